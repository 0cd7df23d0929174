r"""Optimal interpolation by Gaussian processes: that of the challenge, tuned, and others."""

from __future__ import annotations

__all__ = ["challenge", "chosen_law", "dymost", "tuned", "tuned_duacs", "vecchia"]

import torch

from collections.abc import Mapping
from dataclasses import replace

from .challenge import oi_odc2020a
from .held_out import SIZE, Chosen, Covariance
from .moving import carried, moving
from .problem import Mapped, Problem, Say, superobs
from .tuning import (
    FEWEST,
    NOISY,
    WINDOW,
    Prepared,
    Smooth,
    fitted,
    held_out,
    noisy,
    plain,
    prepared,
    separated,
    smoothed,
    window_of,
)
from ..kernels.arhan_colin import arhan_colin
from ..priors import GaussianProcess
from ..selection import choose, instruments
from ..selection.choice import scale_of
from ..solvers.local import LocalKriging
from ..solvers.vecchia import Vecchia

SMOOTH = (1.5, 2.5, 3.5)
"""The smoothness, in time and in space: to choose from."""


def challenge(problem: Problem, say: Say) -> Mapped:
    r"""The optimal interpolation of the 2020a challenge: nothing is tuned, no mean is removed."""
    say("fixed scales: 1 degree, 7 days; variance 1, noise .05")
    points, values = problem.blocks or (problem.points, problem.values)
    posterior = oi_odc2020a(points, values, problem.grid)
    return Mapped(posterior, torch.zeros(len(problem.grid), dtype=torch.float64))


def chosen_law(problem: Problem, say: Say, size: int = SIZE) -> tuple[Smooth, Prepared, Chosen]:
    r"""Returns the covariance that predicts held-out data, what it needs, and its scales.

    Arguments:
        problem: The problem.
        say: Where to say what is found.
        size: The most data of a window in which some are held out.
    """
    kernel = Smooth(problem, 2.5, 2.5)
    start = prepared(problem, kernel, say, size=size)
    best = start.chosen
    for timed in (True, False):
        for nu in SMOOTH:
            other = replace(kernel, nu_time=nu) if timed else replace(kernel, nu=nu)
            if other == kernel:
                continue
            found = start.held.choose(other.covariance, best.scales, best.noise, step=0.15)
            if found.error < best.error:
                kernel, best = other, found
    say(f"smoothness {kernel.nu_time:g} in time, {kernel.nu:g} in space; {best.words()}")
    return kernel, start, best


def tuned(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation with the scales, smoothness and noise that predict held-out data."""
    kernel, start, best = chosen_law(problem, say)
    prior = GaussianProcess(kernel.of(best.scales, best.factor), problem.grid)
    return smoothed(problem, prior, start.seen, best, say)


def tuned_duacs(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation with the covariance of Arhan and Colin de Verdiere, as DUACS has it.

    Its scales, and the noise that stands for what it is too smooth for, are those that predict
    passes held out: the likelihood of a field as smooth as this sees the shortest lags alone.
    """
    data, variance = superobs(problem, FEWEST), scale_of(problem.anomalies) ** 2
    seen, _ = instruments(data.grid, data.points, data.anomalies, data.noise, data.groups)
    if data.noise is None:
        _, seen = fitted(data, separated(data, 2.5, 2.5), say)

    def covariance(x: Mapping[str, float]) -> Covariance:
        return plain(arhan_colin(x["lengthscale"], x["duration"], variance))

    start = {"lengthscale": 150e3, "duration": 10.0}
    best = held_out(data, seen).choose(covariance, start, NOISY * variance**0.5)
    say(f"by passes held out: {best.words()}")
    length, duration = best.scales["lengthscale"], best.scales["duration"]
    kernel = arhan_colin(length, duration, variance * best.factor)
    return smoothed(problem, GaussianProcess(kernel, problem.grid), seen, best, say)


def vecchia(problem: Problem, say: Say) -> Mapped:
    r"""A Gaussian process whose structure is chosen by held-out data, by near neighbours."""
    data = superobs(problem, FEWEST)
    choice = choose(
        data.grid,
        data.points,
        data.anomalies,
        data.noise,
        data.groups,
        trend="1",
        seed=data.seed,
        say=say,
    )
    posterior = Vecchia(30, 60)(choice.prior, choice.observation)(choice.y)
    return Mapped(posterior, problem.shift, {"structure": choice.structure})


def dymost(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation of structures that are followed as a quasi-geostrophic model says.

    The model tells the drift of a first map, another optimal interpolation, mean included. How
    much of it carries, and how much longer what moves is remembered, is chosen by held-out passes.
    """
    law = Smooth(problem, 2.5, 2.5)
    start = prepared(problem, law, say)
    best, seen = start.chosen, start.seen
    still = GaussianProcess(law.of(best.scales, best.factor), problem.grid)
    first = smoothed(problem, still, seen, best, say)
    found = moving(problem, start.held, law.chosen, best, first.mean, say)
    prior = carried(problem, law.chosen(found.chosen), found.velocity)
    half, fewer = window_of(problem, still)
    observation, y = noisy(fewer, seen, found.chosen)
    solver = LocalKriging(window=half * min(found.longer, 1.5), max_size=10 * WINDOW)
    info = {"drift": found.part, "longer": found.longer}
    return Mapped(solver(prior, observation)(y), problem.shift, info, found.chosen.unresolved)
