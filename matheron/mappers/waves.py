r"""Mapping with a basis of wave packets, as MIOST does."""

from __future__ import annotations

__all__ = ["miost"]

import torch
import warnings

from .gaussian import FEWEST
from .problem import Mapped, Problem, Say, superobs
from ..fit import maximum_likelihood
from ..priors.wave_packets import WavePackets
from ..selection import instruments
from ..selection.choice import scale_of
from ..solvers.expansion_gradient import ExpansionGradient
from ..solvers.kriging import Kriging

FIT = 1200
"""The data of a fit, which has the dense covariance."""
DAYS = 15.0
"""The days of a fit."""
BEYOND = 8.0
"""How far beyond the map data are used, in days: packets of the longest waves last longer."""


def miost(problem: Problem, say: Say) -> Mapped:
    r"""Wave packets of many scales, directions and places, each with its share of the variance.

    Variance, slope and duration have the largest likelihood over some days in the middle.
    """
    times = problem.grid.axes["time"]
    near = problem.near(times[0].item() - BEYOND, times[-1].item() + BEYOND)
    data = superobs(near, 2 * FEWEST)
    t = data.points.since(problem.grid.epoch).axis("time")
    beyond = max((times[0] - t.min()).item(), (t.max() - times[-1]).item(), 2.5)
    variance = scale_of(data.anomalies) ** 2
    prior = WavePackets(
        problem.grid,
        variance,
        margin=(120e3, beyond + 1.0),
        learn_duration=True,
        slope=2.0,
    )
    noise = _fit(prior, data, say)
    with torch.no_grad():
        seen, y = instruments(
            data.grid, data.points, data.anomalies, noise.expand(len(data)), None
        )
        say(f"{len(prior.coefficient_variance())} packets, {len(data)} data")
        solver = ExpansionGradient(tolerance=1e-3, draws=24, seed=problem.seed)
        return Mapped(solver(prior, seen)(y), problem.shift)


def _fit(prior: WavePackets, data: Problem, say: Say) -> torch.Tensor:
    r"""Fits the packets and returns the std of the noise."""
    times = data.grid.axes["time"]
    middle = times.median().item()
    near = data.near(middle - DAYS / 2, middle + DAYS / 2)
    spacing = 3 * FEWEST
    while len(near) > FIT:
        near, spacing = superobs(near, spacing), spacing * 1.2
    seen, y = instruments(near.grid, near.points, near.anomalies, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        maximum_likelihood(prior, seen, y, Kriging(), steps=12, tolerance=0.5)
    fit = [f"{n} {v.item():.4g} {u}" for n, v, u in prior.quantities()]
    say(f"fitted on {len(y)} data: {', '.join(fit)}")
    return seen.noise_variance.detach().mean().sqrt()
