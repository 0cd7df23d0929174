r"""Data that are withheld from a solver: how to learn without a truth."""

from __future__ import annotations

__all__ = ["NOISY", "TURNS", "clean", "nugget", "withheld"]

import math
import torch

from jaxtyping import Bool, Float
from torch import Generator, Tensor

TURNS = 3
"""Every so many days one has data withheld: in so many turns all of them have."""
SCATTERED = 0.1
"""The part of the data of such a day that is withheld wherever it is, node by node."""
MOST = 0.9
"""The most of the data of a day that are withheld."""
NOISY = 0.9
"""The most of a variance about data that the errors of these may be."""


def withheld(
    mask: Bool[Tensor, "t h w"], turn: int, spans: list[tuple[int, int]], generator: Generator
) -> Bool[Tensor, "t h w"]:
    r"""Draws which data are withheld: what the gaps of another day, laid over a day, would hide.

    Only every third day is seen so, that the days about it are as they are when the solver is
    used. Some single nodes are hidden too, amid others that are seen.

    Arguments:
        mask: Where there are data, day by day.
        turn: Which days: those that leave this rest when divided by three.
        spans: The first day of each part, and that after its last: gaps are of the same part.
        generator: The random number generator.

    Example:
        >>> mask = torch.rand(9, 4, 4, generator=Generator().manual_seed(0)) < 0.5
        >>> hidden = withheld(mask, 0, [(0, 9)], Generator().manual_seed(0))
        >>> hidden.flatten(1).any(dim=1).tolist()
        [True, False, False, True, False, False, True, False, False]
    """
    hidden = torch.zeros_like(mask)
    for first, end in spans:
        cloudy = [d for d in range(first, end) if mask[d].any()]
        for day in cloudy:
            if day % TURNS == turn:
                hidden[day] = _over(mask, day, cloudy, generator)
    return hidden


def _over(mask: Tensor, day: int, days: list[int], generator: Generator) -> Tensor:
    r"""Returns what the gaps of another of the days hide of one, if that is not nearly all."""
    drawn = torch.rand(mask.shape[1:], generator=generator) < SCATTERED
    order = torch.randperm(len(days), generator=generator).tolist()
    for other in (days[k] for k in order if days[k] != day):
        found = mask[day] & (~mask[other] | drawn)
        if found.sum() <= MOST * mask[day].sum():
            return found
    return mask[day] & drawn


def nugget(values: Float[Tensor, "t h w"], mask: Bool[Tensor, "t h w"]) -> float:
    r"""Returns the variance of the errors of images, from how neighbours differ.

    .. math:: \gamma(0^+) = \frac{4 \gamma(1) - \gamma(2)}{3}

    which is exact where the semivariogram :math:`\gamma` of the field is a parabola.

    Arguments:
        values: The data.
        mask: Where they are.
    """
    total, count = [0.0, 0.0], [0, 0]
    for lag in (1, 2):
        for place in (1, 2):
            n = values.shape[place] - lag
            a, b = (x.narrow(place, lag, n) for x in (values, mask))
            c, d = (x.narrow(place, 0, n) for x in (values, mask))
            both = b & d
            total[lag - 1] += (a - c)[both].square().sum().item() / 2
            count[lag - 1] += int(both.sum())
    near, far = (t / max(1, k) for t, k in zip(total, count, strict=True))
    return max((4 * near - far) / 3, 0.01 * near)


def clean(std: float, noise: float) -> float:
    r"""Returns a std about data without the errors of these, which are a part of it at most.

    Example:
        >>> round(clean(0.5, 0.3), 2), clean(0.5, 0.0), round(clean(0.5, 0.6), 2)
        (0.4, 0.5, 0.16)
    """
    return std if noise == 0 else math.sqrt(max(std**2 - noise**2, (1 - NOISY) * std**2))
