r"""What a solver is trained on: an ocean, day by day, on a grid."""

from __future__ import annotations

__all__ = ["Lesson", "Spans", "lesson_of", "shown_of", "spans_of"]

import dataclasses
import numpy as np
import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from .problems import problem_of
from .scores import truth_at
from .withheld import nugget, withheld
from ..data import Augmentation, Purpose, Windows, split_times, to_cells
from ..data.batches import GUESS
from ..data.beside import Known, of_order_one
from ..data.shown import HIDDEN, SEA, Shown
from ..domain import Grid, dates_of
from ..mappers.first_guess import FirstGuess
from ..mappers.problem import Problem
from ..osse import Experiment

HELD = 0.2
"""The part of the days that is held out to validate."""
APART = 8
"""How many windows there are from one stretch without data to the next."""
BESIDE, BESIDE_KNOWN = "beside.", "beside_known."
"""What the names of other fields begin with, among what a lesson keeps."""
NUMBERS, PLACES = ("truth", "values", "guess", "hidden"), ("mask", "sea", "hidden_mask")
"""What a lesson keeps, by name."""
Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Lesson:
    r"""The truth of an ocean, or data withheld, and what is seen of it, on a grid of days.

    Arguments:
        grid: The grid, with :math:`n` nodes, land included.
        truth: The truth, the known mean removed, zero on land; ``None`` if it is not read.
        values: The means of the data in the cells of the grid, zero where there are none.
        mask: Where there are some.
        spans: The first day of each part, and that after its last: ``train``, ``validation``.
        guess: A first guess of the truth, made of the data.
        sea: Where there is sea; everywhere by default. Land weighs nothing, and nothing is seen
            there: that is all that a solver is told of it.
        hidden: The means of data that are withheld, zero where there are none.
        hidden_mask: Where there are some.
        beside: What is seen of other fields by name, zero in their gaps, and where.
    """

    grid: Grid
    truth: Float[Tensor, " n"] | None
    values: Float[Tensor, " n"]
    mask: Bool[Tensor, " n"]
    spans: Spans
    guess: Float[Tensor, " n"] | None = None
    sea: Bool[Tensor, " n"] | None = None
    hidden: Float[Tensor, " n"] | None = None
    hidden_mask: Bool[Tensor, " n"] | None = None
    beside: Mapping[str, Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # what is kept on disk is of single precision: the same numbers, fresh or read again
        for name in NUMBERS:
            x = getattr(self, name)
            if x is not None:
                object.__setattr__(self, name, _as_kept(x))
        beside = {k: (_as_kept(x), known) for k, (x, known) in self.beside.items()}
        object.__setattr__(self, "beside", beside)

    @property
    def tensors(self) -> dict[str, Tensor]:
        r"""What there is, by name, as it is kept on disk."""
        numbers = {k: v.float() for k in NUMBERS if (v := getattr(self, k)) is not None}
        for name, (x, known) in self.beside.items():
            numbers |= {BESIDE + name: x.float(), BESIDE_KNOWN + name: known}
        return numbers | {k: v for k in PLACES if (v := getattr(self, k)) is not None}

    @classmethod
    def read(cls, grid: Grid, spans: Spans, tensors: Mapping[str, Tensor]) -> Lesson:
        r"""Returns the lesson of what was kept."""
        found = {k: tensors.get(k) for k in (*NUMBERS, *PLACES)}
        names = [k.removeprefix(BESIDE) for k in tensors if k.startswith(BESIDE)]
        beside = {k: (tensors[BESIDE + k], tensors[BESIDE_KNOWN + k]) for k in names}
        return cls(grid, spans=spans, beside=beside, **found)  # type: ignore[arg-type]

    @property
    def target(self) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        r"""What estimates are judged by, and where it is: the truth at sea, or data withheld."""
        if self.truth is None:
            assert self.hidden is not None
            assert self.hidden_mask is not None
            return self.hidden, self.hidden_mask
        sea = torch.ones_like(self.mask) if self.sea is None else self.sea
        return self.truth, sea

    def errors(self) -> Float[Tensor, " k"]:
        r"""Returns the errors of the data of the training, as values at the nodes.

        They hold what the field does within a cell. There are none without a truth.
        """
        if self.truth is None:
            return self.values[:0]
        return (self.values - self.truth)[self.days("train") & self.mask]

    def nugget(self) -> float:
        r"""Returns the variance of the errors of the data, as neighbours tell it."""
        days = slice(*self.spans["train"])
        return nugget(*(x.reshape(self.grid.shape)[days] for x in (self.values, self.mask)))

    def fields(self) -> Float[Tensor, " k"]:
        r"""Returns the truth of the training, or data that are withheld from it."""
        x, where = self.target
        return x[self.days("train") & where]

    def departures(self) -> Float[Tensor, " k"]:
        r"""Returns the same less the first guess, or as it is without one."""
        x, where = self.target
        return (x if self.guess is None else x - self.guess)[self.days("train") & where]

    def days(self, part: str) -> Bool[Tensor, " n"]:
        r"""Returns which nodes are of a part of the days."""
        kept = torch.zeros(self.grid.shape, dtype=torch.bool)
        kept[slice(*self.spans[part])] = True
        return kept.flatten()

    def dates(self) -> dict[str, list[str]]:
        r"""Returns the first and the last date of each part."""
        assert self.grid.epoch is not None
        days = dates_of(self.grid.axes["time"], self.grid.epoch).astype("datetime64[D]")
        return {k: [str(days[a]), str(days[b - 1])] for k, (a, b) in self.spans.items()}

    def windows(
        self,
        part: str,
        size: tuple[int, ...],
        noise: float,
        purpose: Purpose,
        augmentation: Augmentation | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
    ) -> Windows | Shown:
        r"""Returns the windows of a part of the days.

        Arguments:
            part: ``train``, whose windows overlap; or ``validation``.
            size: The days and the nodes of a window.
            noise: The std of the errors of the data.
            purpose: What a window is for.
            augmentation: How windows are made different; not at all by default.
            scales: The mean and the std of each of the other fields.
        """
        others = {} if self.guess is None else {GUESS: (self.guess, torch.ones_like(self.mask))}
        if self.sea is not None:
            others[SEA] = (self.sea.double(), self.sea)
        if self.hidden is not None and self.hidden_mask is not None:
            others[HIDDEN] = (self.hidden, self.hidden_mask)
        for name, (mean, std) in (scales or {}).items():
            x, known = self.beside[name]
            others[name] = of_order_one(x, known, mean, std)
        windows = Windows(
            self.grid,
            size,
            self.values,
            self.mask,
            noise,
            truth=self.truth,
            span=self.spans[part],
            purpose=purpose,
            stride=None if part == "train" else (2, *size[1:]),
            augmentation=augmentation,
            covariates=others,
            timely=tuple(scales or ()),
        )
        return Shown(windows) if {SEA, HIDDEN} & set(others) else windows


def _as_kept(x: Tensor) -> Tensor:
    return x.to(torch.float32).to(torch.float64)


def lesson_of(
    experiment: Experiment,
    step: float | None,
    window: int,
    spans: Spans,
    guess: FirstGuess | None,
    covariates: Sequence[str] = (),
) -> Lesson:
    r"""Returns the lesson of an ocean: that of the scored days of an experiment.

    In the training some days are without data, as are those before the first and after the last.

    Arguments:
        experiment: The experiment.
        step: The step of the grid, in degrees.
        window: The number of days of a window.
        spans: The days of each part.
        guess: What makes a first guess of the data.
        covariates: The names of the other fields that go along.
    """
    problem = problem_of(experiment, step)
    truth = truth_at(experiment, problem.grid) - problem.shift
    sea = truth.isfinite()
    problem = _blanked(
        dataclasses.replace(problem, known=None, values=problem.anomalies), window, spans
    )
    cells = to_cells(problem.grid, problem.points, problem.values)
    found = None if guess is None else guess.of(problem, problem.grid)
    kept = cells.mask & sea
    return Lesson(
        problem.grid,
        torch.where(sea, truth, 0.0),
        torch.where(kept, cells.mean, 0.0),
        kept,
        spans,
        found,
        None if sea.all() else sea,
        beside=_beside(problem, covariates, window, spans),
    )


def _beside(problem: Problem, names: Sequence[str], window: int, spans: Spans) -> dict[str, Known]:
    r"""Returns what is seen of other fields; nothing on days without data."""
    grid, found = problem.grid, {}
    blank = _blank_days(grid, window, spans).reshape(-1, 1, 1)
    for name in names:
        x, known = problem.beside[name].onto(grid)
        known = (known.reshape(grid.shape) & ~blank).flatten()
        found[name] = (torch.where(known, x, 0.0), known)
    return found


def shown_of(
    experiment: Experiment,
    step: float | None,
    window: int,
    spans: Spans,
    turn: int,
    seed: int,
) -> tuple[Problem, Lesson]:
    r"""Returns what is seen of an ocean whose truth is not read, and the lesson of the rest.

    The first guess of the lesson is to be made of what is seen: it has none yet.

    Arguments:
        experiment: The experiment, on the scored days.
        step: The step of the grid, in degrees.
        window: The number of days of a window.
        spans: The days of each part.
        turn: Which days have data withheld: see :func:`withheld`.
        seed: The seed of what is withheld.
    """
    problem = problem_of(experiment, step)
    problem = _blanked(
        dataclasses.replace(problem, known=None, values=problem.anomalies), window, spans
    )
    grid = problem.grid
    cells = to_cells(grid, problem.points, problem.values)
    own = int(np.random.SeedSequence([seed, experiment.seed, turn]).generate_state(1)[0])
    hidden = withheld(
        cells.mask.reshape(grid.shape), turn, list(spans.values()), Generator().manual_seed(own)
    ).flatten()
    seen = problem.take(~_at(hidden, problem))
    mean = seen.values.mean()  # that of what is seen: not of what is withheld
    seen = dataclasses.replace(seen, values=seen.values - mean)
    shown = to_cells(grid, seen.points, seen.values)
    lesson = Lesson(
        grid,
        None,
        shown.mean,
        shown.mask,
        spans,
        hidden=torch.where(hidden, cells.mean - mean, 0.0),
        hidden_mask=hidden,
    )
    return seen, lesson


def _at(places: Bool[Tensor, " n"], problem: Problem) -> Bool[Tensor, " m"]:
    r"""Returns which data are in some of the cells, which end half-way to the next node."""
    points = problem.points.since(problem.grid.epoch)
    cell = torch.zeros(len(points), dtype=torch.long)
    for name, axis in problem.grid.axes.items():
        cell = cell * len(axis) + _cell_along(axis, points.axis(name))
    return places[cell]


def _cell_along(axis: Float[Tensor, " k"], s: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    return torch.bucketize(s.contiguous(), (axis[1:] + axis[:-1]) / 2, right=True)


def _blanked(problem: Problem, window: int, spans: Spans) -> Problem:
    r"""Returns the problem without the data of half a window, again and again."""
    t = problem.points.since(problem.grid.epoch).axis("time")
    place = _cell_along(problem.grid.axes["time"], t)
    return problem.take(~_blank_days(problem.grid, window, spans)[place])


def _blank_days(grid: Grid, window: int, spans: Spans) -> Bool[Tensor, " d"]:
    r"""Returns which days are without data: half a window, again and again."""
    first, end = spans["train"]
    half, blank = window // 2, torch.zeros(grid.shape[0], dtype=torch.bool)
    for last in range(end, first + half, -APART * window):
        blank[last - half : last] = True
    return blank


def spans_of(grid: Grid, window: int, held: bool = True) -> Spans:
    r"""Returns the days to train on, and those to validate by: the last fifth, if any.

    Arguments:
        grid: The grid.
        window: The number of days of a window, odd; as many are left out between the parts.
        held: Whether days are held out.

    Raises:
        ValueError: If there are not enough days.
    """
    days = grid.shape[0]
    held_out = max(window + 2, round(HELD * days))
    train = days - held_out - window
    if window < 3 or window % 2 == 0 or train < window:
        msg = (
            f"learn(window={window}): expected an odd number of days, three at least, and "
            f"{3 * window + 2} days to train on, got {days}. Shorten the window, or make an "
            "experiment of more days."
        )
        raise ValueError(msg)
    if not held:
        return {"train": (0, days)}
    time = grid.axes["time"].tolist()
    return split_times(
        grid,
        window,
        train=(time[0], time[train - 1]),
        validation=(time[days - held_out], time[-1]),
    )
