r"""Sites that coincide."""

from __future__ import annotations

__all__ = ["distinct_places"]

import torch

from jaxtyping import Float, Int
from torch import Tensor


def distinct_places(
    x: Float[Tensor, "n k"],
) -> tuple[Int[Tensor, " n"], Int[Tensor, " places"]]:
    r"""Returns the place of each site, and the first site at each place.

    Example:
        >>> place, first = distinct_places(torch.tensor([[5.0], [1.0], [5.0]]))
        >>> place.tolist(), first.tolist()
        ([1, 0, 1], [1, 0])
    """
    _, place = torch.unique(x, dim=0, return_inverse=True)
    count = int(place.max()) + 1 if len(x) else 0
    first = torch.full((count,), len(x)).scatter_reduce(
        0, place, torch.arange(len(x)), reduce="amin"
    )
    return place, first
