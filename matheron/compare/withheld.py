r"""Data that are withheld from a solver, and windows that say so: how to learn without a truth."""

from __future__ import annotations

__all__ = ["GUESS", "HIDDEN", "NOISY", "SEA", "TURNS", "Shown", "clean", "nugget", "withheld"]

import dataclasses
import math
import torch

from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..data import Windows
from ..data.batches import Batch, Source, fingerprint_of

GUESS, SEA, HIDDEN = "guess", "sea", "withheld"
"""The names of what goes along with the windows: a first guess, the sea, data withheld."""
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


class Shown(Source):
    r"""Windows of which the land weighs nothing, and of which some data are withheld.

    Both come with the windows as fields beside them, which the solver does not see.

    Arguments:
        windows: The windows, whose data are those that are not withheld.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows, self.grid = windows, windows.grid

    def __len__(self) -> int:
        return len(self.windows)

    def fingerprint(self) -> str:
        return fingerprint_of([], "shown", self.windows.fingerprint())

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        batch = self.windows.batch(index, seeds)
        others = dict(batch.covariates)
        if SEA in others:
            batch = dataclasses.replace(batch, weights=batch.weights * others.pop(SEA)[1])
        if HIDDEN in others:
            batch = _with_hidden(batch, *others.pop(HIDDEN))
        return dataclasses.replace(batch, covariates=others)


def _with_hidden(batch: Batch, values: Tensor, mask: Tensor) -> Batch:
    r"""Returns a batch with more hidden data: those of the future are hidden already."""
    assert batch.hidden is not None
    assert batch.hidden_mask is not None
    return dataclasses.replace(
        batch, hidden=batch.hidden + values, hidden_mask=batch.hidden_mask | mask
    )
