r"""Real tracks as windows: passes are withheld in turn, and the guess is made without them."""

from __future__ import annotations

__all__ = ["WithheldPasses", "about_guess", "folds_of"]

import dataclasses
import torch

from collections.abc import Callable, Sequence
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from typing import Any

from .batches import GUESS, Batch, Source, fingerprint_of
from .cells import Cells, to_cells
from .patches import Windows
from .several import Several
from .shown import HIDDEN, Shown
from ..domain import Grid, Points

Guess = Callable[[Tensor], tuple[Tensor, Tensor]]
"""What makes a first guess of the data that are kept: at the nodes, and at the places of all."""


def folds_of(
    passes: Int[Tensor, " m"], folds: int, generator: Generator | None = None
) -> Int[Tensor, " m"]:
    r"""Returns the fold of each datum: passes are dealt out at random, each as a whole.

    Arguments:
        passes: The pass of each datum.
        folds: The number of folds.
        generator: The random number generator.

    Raises:
        ValueError: If there are fewer passes than folds, or fewer than two folds.

    Example:
        >>> fold = folds_of(torch.tensor([7, 7, 9, 9, 4]), 3, torch.Generator().manual_seed(0))
        >>> fold[0] == fold[1], fold[2] == fold[3], len(fold.unique())
        (tensor(True), tensor(True), 3)
    """
    found, place = passes.unique(return_inverse=True)
    if not 2 <= folds <= len(found):
        msg = (
            f"folds_of(folds={folds}): expected two folds or more, and a pass for each, got "
            f"{len(found)} passes. Deal out fewer."
        )
        raise ValueError(msg)
    dealt = torch.empty(len(found), dtype=torch.long)
    dealt[torch.randperm(len(found), generator=generator)] = torch.arange(len(found)) % folds
    return dealt[place]


def about_guess(
    grid: Grid,
    points: Points,
    values: Float[Tensor, " m"],
    guess: Float[Tensor, " n"],
    there: Float[Tensor, " m"],
) -> Cells:
    r"""Averages data over cells as departures from a guess, and adds these to it at the nodes.

    .. math:: y_c = g_c + \frac{1}{k} \sum_{i \in c} (y_i - g(s_i))

    What the guess does within a cell, between the node and the data, is then no error of theirs.

    Arguments:
        grid: The grid.
        points: Where and when the data are.
        values: The data.
        guess: The guess at the nodes.
        there: The guess at the data.

    Example:
        >>> grid, points = Grid(x=[0.0, 1.0]), Points(x=[0.1, 0.3])
        >>> x, slope = points.axis("x"), torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> about_guess(grid, points, x + 0.5, slope, x).mean.tolist()
        [0.5, 0.0]
    """
    cells = to_cells(grid, points, values - there)
    return dataclasses.replace(cells, mean=torch.where(cells.mask, cells.mean + guess, 0.0))


class WithheldPasses(Source):
    r"""The windows of a table of real data, of which one fold after the other is withheld.

    For each fold there are the windows of all times and places: the solver is given the data of
    the other folds, and a first guess that is made of these alone; the data of the fold come as
    hidden ones, for :func:`matheron.fit.losses.withheld_error`. There is no truth.

    Arguments:
        grid: The grid, time first, with :math:`n` nodes.
        size: The nodes of a window on each axis.
        points: Where and when the data are.
        values: The data, with shape :math:`(m)`.
        noise_std: The standard deviation of their errors, with what the field does within a cell.
        fold: The fold of each datum: see :func:`folds_of`.
        guess: What makes a first guess: given which data are kept, with shape :math:`(m)`, it
            returns the guess at the nodes and at all data.
        hidden: The folds that are withheld in turn; all by default.
        settings: Those of :class:`Windows`, e.g. ``span``, ``stride`` and ``augmentation``.

    Raises:
        ValueError: If a fold has no data, or is the only one; or for what :class:`Windows`
            refuses.

    Example:
        >>> grid = Grid(time=range(5), y=range(4), x=range(4))
        >>> points = Points(time=[1.0, 2.0, 3.0], y=[1.0, 2.0, 0.0], x=[1.0, 2.0, 3.0])
        >>> y = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        >>> def mean(kept):
        ...     return y[kept].mean().expand(len(grid)), y[kept].mean().expand(len(y))
        >>> fold = torch.tensor([0, 1, 2])
        >>> windows = WithheldPasses(grid, (5, 4, 4), points, y, 0.1, fold, mean)
        >>> batch = windows.batch(torch.tensor([1]), torch.tensor([0]))
        >>> batch.values.sum().item(), batch.hidden.sum().item()
        (4.0, 2.0)
    """

    def __init__(
        self,
        grid: Grid,
        size: Sequence[int],
        points: Points,
        values: Float[Tensor, " m"],
        noise_std: float,
        fold: Int[Tensor, " m"],
        guess: Guess,
        hidden: Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        folds = fold.unique().tolist() if hidden is None else hidden
        parts = []
        for kept in (_kept(fold, one) for one in folds):
            first, there = guess(kept)
            shown, held = (
                about_guess(grid, points[i], values[i], first, there[i]) for i in (kept, ~kept)
            )
            others = {
                GUESS: (first, torch.ones_like(shown.mask)),
                HIDDEN: (held.mean, held.mask),
            }
            given: dict[str, Any] = {"covariates": others, **settings}
            parts.append(Shown(Windows(grid, size, shown.mean, shown.mask, noise_std, **given)))
        self.parts = Several(parts)
        self.grid = self.parts.grid

    def __len__(self) -> int:
        return len(self.parts)

    def fingerprint(self) -> str:
        return fingerprint_of([], "withheld passes", self.parts.fingerprint())

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        return self.parts.batch(index, seeds)


def _kept(fold: Int[Tensor, " m"], one: int) -> Bool[Tensor, " m"]:
    kept = fold != one
    if kept.all() or not kept.any():
        msg = (
            f"WithheldPasses(hidden={one}): expected a fold with data, and others beside it, got "
            f"{int((~kept).sum())} of {len(kept)} data. Deal them out by folds_of()."
        )
        raise ValueError(msg)
    return kept
