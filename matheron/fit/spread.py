r"""A spread that is predicted from where the data are."""

from __future__ import annotations

__all__ = ["GapSpread"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .losses import Outcome
from ..described import Described

DENSEST = 1e-3
"""What is added to the density of data, so that its logarithm is finite in the gaps."""


class GapSpread(Described, nn.Module):
    r"""The standard deviation of an estimate, from the density of data about each node.

    .. math:: \log \sigma_i = a + \sum_k b_k \log(\rho_{ik} + 10^{-3})

    where :math:`\rho_{ik}` is the fraction of nodes with data in a box of half-width :math:`k`.
    It starts at one standard deviation everywhere, and is trained by a score such as
    :func:`matheron.fit.losses.crps`.

    Arguments:
        std: The first standard deviation, in units of the field.
        widths: The half-widths of the boxes, in nodes.

    Raises:
        ValueError: If ``std`` is not positive, or a width not.

    Example:
        >>> spread = GapSpread(0.1)
        >>> spread.of(torch.ones(2, 1, 3, 4, dtype=torch.bool)).shape
        torch.Size([2, 1, 3, 4])
    """

    def __init__(self, std: float = 1.0, widths: Sequence[int] = (1, 3, 8)) -> None:
        super().__init__()
        if not std > 0 or min(widths, default=0) < 1:
            msg = (
                f"GapSpread(std=...): expected a positive number and positive widths, got {std} "
                f"and {tuple(widths)}. Start at the std of the field."
            )
            raise ValueError(msg)
        self.widths = tuple(widths)
        start = torch.tensor(std, dtype=torch.float64).log()
        self.level = nn.Parameter(start)
        self.slopes = nn.Parameter(torch.zeros(len(self.widths), dtype=torch.float64))

    def of(self, mask: Tensor) -> Float[Tensor, "b ..."]:
        r"""Returns the spread of windows, from where they are seen, with shape ``(b, *shape)``."""
        features = [(_density(mask, k) + DENSEST).log() for k in self.widths]
        found = sum((b * f for b, f in zip(self.slopes, features, strict=True)), self.level)
        return found.exp()

    def forward(self, outcome: Outcome) -> Float[Tensor, "b n"]:
        return self.of(outcome.batch.space(outcome.batch.mask)).flatten(1)


def _density(mask: Tensor, half: int) -> Float[Tensor, "b ..."]:
    r"""Returns the fraction of data in boxes about each node, cut at the borders."""
    seen, all_ = mask.to(torch.float64), torch.ones_like(mask, dtype=torch.float64)
    for axis in range(1, mask.ndim):
        seen, all_ = (_running(x, axis, half) for x in (seen, all_))
    return seen / all_


def _running(x: Tensor, axis: int, half: int) -> Tensor:
    r"""Returns sums over ``2 half + 1`` places along an axis, cut at its ends."""
    n = x.shape[axis]
    total = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.cumsum(axis)], dim=axis)
    place = torch.arange(n, device=x.device)
    upper = total.index_select(axis, (place + half + 1).clamp(max=n))
    return upper - total.index_select(axis, (place - half).clamp(min=0))
