r"""What a solver is trained on: another ocean of an experiment, day by day, on a grid."""

from __future__ import annotations

__all__ = ["Lesson", "lesson_of"]

import dataclasses
import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float
from torch import Tensor

from .problems import images, problem_of
from .scores import truth_at
from ..data import Augmentation, Purpose, Windows, split_times, to_cells
from ..domain import Grid, dates_of
from ..osse import Experiment

HELD = 0.2
"""The part of the days that is held out to validate."""
APART = 8
"""How many windows there are from one stretch without data to the next."""
NEAR = 3.0
"""Within how many days of the middle of a window its days count in the training."""


@dataclass(frozen=True)
class Lesson:
    r"""The truth of another ocean, and what is seen of it, on a grid of days.

    Arguments:
        grid: The grid, with :math:`n` nodes.
        truth: The truth, the mean dynamic topography removed.
        values: The means of the data in the cells of the grid, zero where there are none.
        mask: Where there are some.
        spans: The first day of each part, and that after its last: ``train``, ``validation``.
        window: The number of days of a window.
    """

    grid: Grid
    truth: Float[Tensor, " n"]
    values: Float[Tensor, " n"]
    mask: Bool[Tensor, " n"]
    spans: dict[str, tuple[int, int]]
    window: int

    @property
    def noise(self) -> float:
        r"""The std of the data about the truth at the nodes, over the days of the training.

        It holds their errors, and what the field does within a cell.
        """
        there = self._days("train", self.mask)
        e = (self.values - self.truth)[there]
        return max(e.square().mean().sqrt().item(), 1e-3 * self.moments()[1])

    def moments(self) -> tuple[float, float]:
        r"""Returns mean and std of the truth, over the days of the training."""
        x = self.truth[self._days("train", torch.ones_like(self.mask))]
        return x.mean().item(), x.std().item()

    def _days(self, part: str, mask: Tensor) -> Bool[Tensor, " n"]:
        kept = torch.zeros(self.grid.shape, dtype=torch.bool)
        kept[slice(*self.spans[part])] = True
        return kept.flatten() & mask

    def dates(self) -> dict[str, list[str]]:
        r"""Returns the first and the last date of each part."""
        assert self.grid.epoch is not None
        days = dates_of(self.grid.axes["time"], self.grid.epoch).astype("datetime64[D]")
        return {k: [str(days[a]), str(days[b - 1])] for k, (a, b) in self.spans.items()}

    def windows(self, patch: int, exchange: float) -> tuple[Windows, Windows]:
        r"""Returns the windows to train on, and those to validate by.

        Arguments:
            patch: The most nodes of a window on a side.
            exchange: The probability that a window is seen through the gaps of another time.
        """
        size = (self.window, *(min(patch, n) for n in self.grid.shape[1:]))
        train = Windows(
            self.grid,
            size,
            self.values,
            self._blanked(),
            self.noise,
            truth=self.truth,
            span=self.spans["train"],
            purpose=Purpose(width=NEAR),
            augmentation=Augmentation(exchange, shift=True),
        )
        known = (self.grid, size, self.values, self.mask, self.noise)
        span, stride = self.spans["validation"], (2, *size[1:])
        return train, Windows(*known, truth=self.truth, stride=stride, span=span)

    def _blanked(self) -> Bool[Tensor, " n"]:
        r"""Returns the mask with some days without data, as before the first, after the last."""
        mask = self.mask.reshape(self.grid.shape).clone()
        half, (_, end) = self.window // 2, self.spans["train"]
        for last in range(end, half, -APART * self.window):
            mask[last - half : last] = False
        return mask.flatten()


def lesson_of(experiment: Experiment, step: float, window: int) -> Lesson:
    r"""Returns the lesson of the ocean to train on that an experiment has.

    The last fifth of its days is for validation; as many days as in a window are left out before.

    Arguments:
        experiment: The experiment.
        step: The step of the grid, in degrees.
        window: The number of days of a window, odd.

    Raises:
        ValueError: If there is no ocean to train on, or not enough days.
    """
    problem = problem_of(_other(experiment), step)
    cells = to_cells(problem.grid, problem.points, problem.anomalies)
    truth = truth_at(_other(experiment), problem.grid) - problem.shift
    spans = _spans(problem.grid, window)
    return Lesson(problem.grid, truth, cells.mean, cells.mask, spans, window)


def _other(experiment: Experiment) -> Experiment:
    r"""Returns the ocean to train on as an experiment whose scored days are all its days."""
    other, calendar = experiment.training, experiment.calendar
    if other is None or images(experiment):
        got = "images" if images(experiment) else "none"
        msg = (
            f"learn(experiment=...): expected one of sea level along tracks, with another ocean "
            f"to train on, got {got}. Make it with `matheron osse --train`."
        )
        raise ValueError(msg)
    swapped = dataclasses.replace(calendar, scored=calendar.training, training=calendar.scored)
    return dataclasses.replace(
        experiment,
        seed=other.seed,
        calendar=swapped,
        truth=other.truth,
        observations=other.observations,
        training=None,
    )


def _spans(grid: Grid, window: int) -> dict[str, tuple[int, int]]:
    days = grid.shape[0]
    held = max(window + 2, round(HELD * days))
    train = days - held - window
    if window < 3 or window % 2 == 0 or train < window:
        msg = (
            f"learn(window={window}): expected an odd number of days, three at least, and "
            f"{3 * window + 2} days to train on, got {days}. Shorten the window, or make an "
            "experiment of more days."
        )
        raise ValueError(msg)
    time = grid.axes["time"].tolist()
    return split_times(
        grid,
        window,
        train=(time[0], time[train - 1]),
        validation=(time[days - held], time[-1]),
    )
