r"""Variability below the spacing of the data."""

from __future__ import annotations

__all__ = ["Nugget"]

import torch.nn as nn

from jaxtyping import Float
from torch import Tensor

from .base import Kernel, positive


class Nugget(Kernel):
    r"""A white field: variance where two sites coincide, nothing elsewhere.

    It belongs to the field, and is mapped at the data; noise belongs to the observation.

    Arguments:
        variance: The variance, in squared units of the field.

    Example:
        >>> import torch
        >>> Nugget(0.1)(torch.zeros(1, 1), torch.tensor([[0.0], [1.0]])).tolist()
        [[0.1, 0.0]]
    """

    def __init__(self, variance: float | Tensor = 1.0) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(positive("Nugget", "variance", variance).log())

    @property
    def variance(self) -> Float[Tensor, ""]:
        r"""The variance of the nugget."""
        return self.log_variance.exp()

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        same = (a[..., :, None, :] == b[..., None, :, :]).all(dim=-1)
        return self.variance * same

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.variance.expand(a.shape[:-1])
