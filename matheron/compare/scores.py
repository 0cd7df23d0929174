r"""The scores of a map of an experiment: of its mean, and of what it says of its error."""

from __future__ import annotations

__all__ = ["score_map", "truth_at"]

import numpy as np
import torch
import xarray as xr

from torch import Tensor

from .problems import images
from ..domain import Grid, dates_of
from ..mappers import Problem
from ..metrics import challenge_score, summary
from ..metrics.spectral import Field
from ..metrics.spectral.regrid import regrid
from ..osse import Experiment


def truth_at(experiment: Experiment, grid: Grid) -> Tensor:
    r"""Returns the truth at the nodes of a grid, flat; the logarithm of a positive one."""
    assert grid.epoch is not None
    dates = dates_of(grid.axes["time"], grid.epoch)
    values = experiment.truth[experiment.variable].transpose("time", "lat", "lon")
    values = values.sel(time=slice(dates[0] - np.timedelta64(1, "D"), None))
    lat, lon = grid.axes["lat"].numpy(), grid.axes["lon"].numpy()
    field = Field(values.values, values["time"].values, values["lat"].values, values["lon"].values)
    found = torch.as_tensor(regrid(field, dates, lat, lon).values.reshape(-1))
    return found.log() if images(experiment) else found


def score_map(
    experiment: Experiment, mean: Tensor, std: Tensor, grid: Grid, problem: Problem | None = None
) -> dict[str, float]:
    r"""Returns the scores of a map: those of the challenge, and those of a probability.

    ``mu``, ``sigma``, ``lambda_x`` (degrees) and ``lambda_t`` (days) are those of the 2020a
    challenge; ``robust_...`` those without its artefacts. ``rmse``, ``crps``, ``coverage_90`` and
    ``spread_skill`` are at the nodes and dates of the map. Of images, only what was not seen is
    scored, in units of the logarithm.

    Arguments:
        experiment: The experiment.
        mean: The mean, at the nodes of the grid.
        std: Its std.
        grid: The grid of the map.
        problem: The problem, to tell what images hide.
    """
    truth = truth_at(experiment, grid)
    there = truth.isfinite() & mean.isfinite()
    if images(experiment):
        there &= ~_seen(grid, problem)
    law = summary(mean[there], std[there].clamp(min=1e-12), truth[there])
    found = {k: law[k] for k in ("rmse", "crps", "coverage_90", "spread_skill")}
    if images(experiment):
        return found
    return _challenge(experiment, mean, grid) | found


def _seen(grid: Grid, problem: Problem | None) -> Tensor:
    seen = torch.zeros(len(grid), dtype=torch.bool)
    if problem is not None:
        t = problem.points.since(grid.epoch).axis("time")
        times = grid.axes["time"]
        inside = (t >= times[0]) & (t <= times[-1])
        nodes, weights = grid.interpolation(problem.points[torch.nonzero(inside)[:, 0]])
        seen[nodes[weights > 0.5]] = True
    return seen


def _challenge(experiment: Experiment, mean: Tensor, grid: Grid) -> dict[str, float]:
    assert grid.epoch is not None
    dates = dates_of(grid.axes["time"], grid.epoch)
    made = Field(grid.unflatten(mean).numpy(), dates, grid.axes["lat"], grid.axes["lon"])
    true = experiment.scored[experiment.variable].transpose("time", "lat", "lon")
    truth = _field(true)
    legacy = challenge_score("odc2020a", made, truth=truth).values
    robust = challenge_score("robust", made, truth=truth).values
    found = {k: legacy[k] for k in ("mu", "sigma", "lambda_x", "lambda_t")}
    return found | {f"robust_{k}": robust[k] for k in ("mu_anomaly", "lambda_x", "lambda_t")}


def _field(values: xr.DataArray) -> Field:
    return Field(values.values, values["time"].values, values["lat"].values, values["lon"].values)
