r"""The map that a trained solver starts from: optimal interpolation with scales that are kept."""

from __future__ import annotations

__all__ = ["FirstGuess", "first_guess"]

import math
import numpy as np
import torch
import torch.nn as nn

from collections.abc import Iterator
from jaxtyping import Float
from torch import Tensor

from .gaussian import chosen_law
from .problem import Problem, Say
from .tuning import own_noise, reach_of, within
from ..described import Described
from ..domain import Grid
from ..kernels import Matern, separable
from ..observations import PointObservation
from ..posterior import Posterior
from ..priors import GaussianProcess
from ..solvers.local import LocalKriging

MOST = 1500
"""The most data of a window: a first guess need not see all of them."""
DAY = np.timedelta64(1, "D")
NEAR = 0.35
"""The correlation in time at which a window ends: short ones leave room for denser data."""
FEW = 1000
"""The most data of a window by which scales are chosen, likewise."""
NOON = 0.5
"""Up to when the data of a day are its own, in days after midnight."""


class FirstGuess(Described, nn.Module):
    r"""Optimal interpolation by moving windows, with a separable Matern covariance.

    Its numbers are part of a trained solver: the guess that it was trained to mend is the one
    that it is given.

    Arguments:
        lengthscale: The scale in space, in metres.
        duration: The scale in time, in days.
        std: The standard deviation of the field, in its units.
        noise: That of the data, the unresolved field included.
        nu: The smoothness in space.
        nu_time: The smoothness in time.
        reach: The half-width of the windows, in days.
        lead: How many days before a day its data end; ``None`` for data before and after.

    Raises:
        ValueError: If a number is not positive, or a lead is negative.

    Example:
        >>> from matheron.domain import Points
        >>> grid = Grid(time=[0.0], lat=[0.0, 1.0], lon=[0.0, 1.0], metric="sphere")
        >>> points = Points(time=[0.0], lat=[0.0], lon=[0.0], metric="sphere")
        >>> problem = Problem(grid, points, torch.ones(1, dtype=torch.float64))
        >>> FirstGuess(100e3, 5.0, 1.0, 1.0, 1.5, 1.5, 10.0).of(problem, grid)[0].item()
        0.5
    """

    def __init__(
        self,
        lengthscale: float,
        duration: float,
        std: float,
        noise: float,
        nu: float,
        nu_time: float,
        reach: float,
        lead: int | None = None,
    ) -> None:
        super().__init__()
        if not all(0 < v < math.inf for v in (lengthscale, duration, std, noise, reach)) or (
            lead is not None and lead < 0
        ):
            msg = (
                f"FirstGuess(std=...): expected positive numbers, and a lead of zero or more, got "
                f"{lengthscale}, {duration}, {std}, {noise}, {reach}, {lead}. Use first_guess()."
            )
            raise ValueError(msg)
        time = Matern(nu_time, 1.0, duration, axes="time")
        self.kernel = separable(time, Matern(nu, std**2, lengthscale, axes="space"))
        self.requires_grad_(False)
        self.noise, self.reach, self.lead = noise, reach, lead

    @torch.no_grad()
    def of(self, problem: Problem, grid: Grid) -> Float[Tensor, " n"]:
        r"""Returns the map of the anomalies of a problem.

        Arguments:
            problem: The data.
            grid: Where it is wanted: days, latitudes and longitudes.
        """
        return torch.cat([self._law(*part).mean for part in self._parts(problem, grid)])

    @torch.no_grad()
    def std(self, problem: Problem, grid: Grid) -> Float[Tensor, " n"]:
        r"""Returns what the same interpolation says of its errors, from where the data are.

        Arguments:
            problem: The data.
            grid: Where it is wanted.
        """
        return torch.cat([self._law(*part).std() for part in self._parts(problem, grid)])

    def _parts(self, problem: Problem, grid: Grid) -> Iterator[tuple[Problem, Grid]]:
        r"""Yields the grid, or each of its days, with the data that it is mapped from."""
        if self.lead is None:
            yield problem, grid
            return
        for k in range(grid.shape[0]):
            yield self._known(problem, grid, k)

    def _known(self, problem: Problem, grid: Grid, k: int) -> tuple[Problem, Grid]:
        r"""Returns what is known of a day when it is mapped, and its grid."""
        assert self.lead is not None
        axes = {**grid.axes, "time": grid.axes["time"][k : k + 1]}
        day = Grid(metric=grid.metric, epoch=grid.epoch, **axes)  # type: ignore[arg-type]
        now = grid.axes["time"][k].item() - self.lead + NOON
        # up to noon: there the cells of the next day begin
        t = problem.points.since(problem.grid.epoch).axis("time")
        offset = _days_between(problem.grid, grid)
        return problem.take((t >= now - self.reach + offset) & (t < now + offset)), day

    def _law(self, problem: Problem, grid: Grid) -> Posterior | _Nothing:
        prior = GaussianProcess(self.kernel, grid)
        if len(problem) == 0:
            return _Nothing(prior)
        data = within(problem, self.reach, MOST)
        seen = PointObservation(grid, data.points, noise_std=self.noise)
        solver = LocalKriging(window=self.reach, max_size=10 * MOST)
        return solver(prior, seen)(data.anomalies)


class _Nothing:
    r"""What is known where there are no data."""

    def __init__(self, prior: GaussianProcess) -> None:
        self.prior = prior
        self.mean = torch.zeros(len(prior.domain), dtype=torch.float64)

    def std(self) -> Float[Tensor, " n"]:
        r"""Returns the standard deviation of the field."""
        return self.prior.variance(self.prior.domain.points).sqrt()


def _days_between(one: Grid, other: Grid) -> float:
    r"""Returns the days from the epoch of one grid to that of another."""
    if one.epoch is None or other.epoch is None:
        return 0.0
    return float((other.epoch - one.epoch) / DAY)


def first_guess(problem: Problem, say: Say, lead: int | None = None) -> FirstGuess:
    r"""Returns the optimal interpolation whose scales predict what is held out of a problem.

    Arguments:
        problem: The data.
        say: Where to say what is found.
        lead: How many days before a day its data end; ``None`` for data before and after.
    """
    law, start, best = chosen_law(problem, say, FEW)
    kernel = law.of(best.scales, best.factor)
    reach = reach_of(GaussianProcess(kernel, problem.grid), NEAR)
    variance = best.factor * (own_noise(start.seen) + best.noise**2)
    return FirstGuess(
        best.scales["lengthscale"],
        best.scales["duration"],
        law.std * best.factor**0.5,
        max(variance**0.5, 1e-3 * law.std),
        law.nu,
        law.nu_time,
        reach,
        lead,
    )
