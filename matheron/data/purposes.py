r"""What a window of days is for, which days are whose, and what is hidden to learn from."""

from __future__ import annotations

__all__ = ["Purpose", "Withhold", "split_times"]

import itertools
import math
import numpy as np
import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ..domain import Grid

PURPOSES = ("mapping", "near-real-time", "forecast")
WAYS = ("node", "time", "label", "box", "exchange")
Span = tuple[float | int | str, float | int | str]
"""The first and the last time of a part, as numbers or as dates."""
TRIES = 1000
"""The most boxes that are laid on one window."""


@dataclass(frozen=True)
class Purpose:
    r"""Which time of a window is wanted, and up to when there are data.

    Arguments:
        name: ``"mapping"``: the middle of the window, from data before and after;
            ``"near-real-time"``: its last time; ``"forecast"``: its last time, from data that end
            ``lead`` times before.
        lead: How many times ahead to forecast.
        width: Within how many times of the wanted one others count too, along a triangle; one for
            the wanted one alone.

    Raises:
        ValueError: If the name is not known, a number is too small, or a lead is without forecast.

    Example:
        >>> Purpose("forecast", lead=2).visible(5).tolist()
        [True, True, True, False, False]
        >>> Purpose("mapping", width=2.0).weights(5).tolist()
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    name: str = "mapping"
    lead: int = 0
    width: float = 1.0

    def __post_init__(self) -> None:
        forecast = self.name == "forecast"
        if self.name not in PURPOSES or forecast != (self.lead > 0) or not self.width >= 1:
            msg = (
                f"Purpose(name=...): expected one of {PURPOSES}, a lead for a forecast only and a "
                f"width of one or more, got {self.name!r}, lead={self.lead}, width={self.width}. "
                "Use e.g. Purpose('forecast', lead=2)."
            )
            raise ValueError(msg)

    def visible(self, times: int) -> Bool[Tensor, " t"]:
        r"""Returns which times of a window may hold data."""
        if self.lead >= times:
            msg = (
                f"Purpose(lead=...): expected fewer times than the {times} of a window, got "
                f"{self.lead}. Lengthen the window."
            )
            raise ValueError(msg)
        return torch.arange(times) < times - self.lead

    def weights(self, times: int) -> Float[Tensor, " t"]:
        r"""Returns the weight of each time of a window."""
        wanted = (times - 1) / 2 if self.name == "mapping" else times - 1.0
        away = (torch.arange(times, dtype=torch.float64) - wanted).abs()
        return (1 - away / self.width).clamp(min=0)


@dataclass(frozen=True)
class Withhold:
    r"""Which data of a window are hidden from the solver, to see how well it finds them.

    Arguments:
        fraction: The fraction of nodes, times, labels or data that is hidden.
        by: What is hidden together: ``"node"``, nothing; ``"time"``, the data of a time;
            ``"label"``, those of a pass or a mission; ``"box"``, those in boxes of one time;
            ``"exchange"``, what the gaps of another window would hide, whatever the fraction.
        size: The side of a box, in nodes.

    Raises:
        ValueError: If the way is not known, or the fraction not between 0 and 1.

    Example:
        >>> seen = torch.ones(1, 100, dtype=torch.bool)
        >>> hidden = Withhold(0.3).draw(seen, generator=torch.Generator().manual_seed(0))
        >>> 0.1 < hidden.double().mean().item() < 0.5
        True
    """

    fraction: float
    by: str = "node"
    size: int = 8

    def __post_init__(self) -> None:
        if self.by not in WAYS or not 0 < self.fraction < 1 or self.size < 1:
            msg = (
                f"Withhold(by=...): expected one of {WAYS}, a fraction between 0 and 1 and a "
                f"positive size, got {self.by!r}, {self.fraction} and {self.size}. "
                "Use e.g. Withhold(0.3, by='label')."
            )
            raise ValueError(msg)

    def draw(
        self,
        mask: Bool[Tensor, "t ..."],
        labels: Int[Tensor, "t ..."] | None = None,
        other: Bool[Tensor, "t ..."] | None = None,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "t ..."]:
        r"""Draws which data are hidden: some of those in the mask, and never all of them.

        Arguments:
            mask: Where there are data.
            labels: The pass or mission of each.
            other: Where there are data in another window.
            generator: The random number generator.

        Raises:
            ValueError: If labels, or the other window, are needed and not given.
        """
        hidden = mask & self._hidden(mask, labels, other, generator)
        return torch.zeros_like(mask) if bool((hidden == mask).all()) else hidden

    def _hidden(
        self,
        mask: Tensor,
        labels: Tensor | None,
        other: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        needed = {"label": labels, "exchange": other}.get(self.by, mask)
        if needed is None:
            msg = (
                f"Withhold(by={self.by!r}): expected the labels, or the gaps of another window, "
                "got none. Give labels=... to Windows, or hide by node, time or box."
            )
            raise ValueError(msg)
        if self.by == "exchange":
            return ~needed
        if self.by == "box":
            return self._boxes(mask, generator)
        if self.by == "label":
            found, place = needed.unique(return_inverse=True)
            return self._chosen(len(found), generator)[place]
        shape = (len(mask),) + (1,) * (mask.ndim - 1) if self.by == "time" else mask.shape
        return (torch.rand(shape, generator=generator) < self.fraction).expand(mask.shape)

    def _chosen(self, count: int, generator: Generator | None) -> Bool[Tensor, " c"]:
        # at least one, and not all: the fraction of few labels would often be none of them
        size = min(max(1, round(self.fraction * count)), max(1, count - 1))
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[torch.randperm(count, generator=generator)[:size]] = True
        return chosen

    def _boxes(self, mask: Tensor, generator: Generator | None) -> Tensor:
        hidden = torch.zeros_like(mask)
        wanted = self.fraction * int(mask.sum())
        for _ in range(TRIES):
            if int((hidden & mask).sum()) >= wanted:
                break
            corner = [int(torch.randint(n, (), generator=generator)) for n in mask.shape]
            half = self.size // 2
            box = [slice(max(0, c - half), c - half + self.size) for c in corner[1:]]
            hidden[corner[0]][tuple(box)] = True
        return hidden


def split_times(grid: Grid, length: int, **spans: Span) -> dict[str, tuple[int, int]]:
    r"""Returns the times of each part of a data set, refused unless a window lies between parts.

    Fields are alike from one day to the next: a map of a day between two days of the training is
    no test. Between the last time of one part and the first of the next there must be as many
    times as in a window.

    Arguments:
        grid: The grid, with time.
        length: The number of times of a window.
        spans: The first and the last time of each part, both included, as numbers on the time
            axis, or as dates.

    Returns:
        The index of the first time of each part, and that after its last.

    Raises:
        ValueError: If a part holds no window, or if there are fewer times than in a window
            between two parts.

    Example:
        >>> grid = Grid(time=range(100), x=[0.0, 1.0])
        >>> split_times(grid, 10, train=(0, 69), validation=(80, 99))
        {'train': (0, 70), 'validation': (80, 100)}
    """
    found = {name: _span(grid, name, span) for name, span in spans.items()}
    for name, (start, stop) in found.items():
        if stop - start < length:
            msg = (
                f"split_times({name}={spans[name]}): expected at least one window of {length} "
                f"times, got {max(0, stop - start)}. Lengthen it, or shorten the windows."
            )
            raise ValueError(msg)
    ordered = sorted(found, key=lambda name: found[name])
    for a, b in itertools.pairwise(ordered):
        gap = found[b][0] - found[a][1]
        if gap < length:
            what = f"{gap} between {a} and {b}" if gap >= 0 else f"{a} and {b} that overlap"
            msg = (
                f"split_times({b}={spans[b]}): expected a gap of one window, {length} times, "
                f"got {what}. Start {b} {length - gap} times later."
            )
            raise ValueError(msg)
    return found


def _span(grid: Grid, name: str, span: Span) -> tuple[int, int]:
    if "time" not in grid.axes:
        msg = f"split_times(grid=...): expected an axis 'time', got {grid.dims}. Add one."
        raise ValueError(msg)
    axis = grid.axes["time"].contiguous()
    first, last = (_time(grid, name, value) for value in span)
    slack = 1e-9 * max(1.0, axis.abs().max().item())
    start = int(torch.searchsorted(axis, first - slack))
    return start, max(start, int(torch.searchsorted(axis, last + slack, right=True)))


def _time(grid: Grid, name: str, value: float | int | str) -> float:
    if not isinstance(value, str):
        return float(value)
    if grid.epoch is None:
        msg = (
            f"split_times({name}={value!r}): expected numbers, as the grid has no dates, got a "
            "date. Give the grid datetimes, or the span numbers."
        )
        raise ValueError(msg)
    found = float((np.datetime64(value) - grid.epoch) / np.timedelta64(1, "D"))
    if not math.isfinite(found):
        msg = f"split_times({name}={value!r}): expected a date, got none. Use e.g. '2013-02-24'."
        raise ValueError(msg)
    return found
