r"""From an experiment to what its mappers are given."""

from __future__ import annotations

__all__ = ["beside_of", "chosen", "images", "map_grid", "problem_of"]

import numpy as np
import torch
import xarray as xr

from collections.abc import Mapping, Sequence
from torch import Tensor
from typing import Any

from ..data.beside import Gridded
from ..domain import Grid, Points, days_since
from ..mappers import Problem, coarsen
from ..mappers.coarsen import NADIR, SWATH
from ..osse import Experiment

APART = 0.01
"""The gap in time that parts passes, in days: a quarter of an hour."""
DIMS = ("time", "lat", "lon")


def map_grid(experiment: Experiment, step: float | None = None) -> Grid:
    r"""Returns the grid that is mapped: the scored days at 0 h, on the box of the truth.

    Arguments:
        experiment: The experiment.
        step: The step in degrees; by default 0.2 for tracks, that of the truth for images.
    """
    truth = experiment.truth
    first, last = (np.datetime64(day, "ns") for day in experiment.calendar.scored)
    axes: dict[str, Any] = {}
    for name in ("lat", "lon"):
        axis = truth[name].values.astype(np.float64)
        if step is None and images(experiment):
            axes[name] = axis
            continue
        width = 0.2 if step is None else step
        if not 0 < width <= axis[-1] - axis[0]:
            msg = (
                f"compare(step={width}): expected a step in degrees, under "
                f"{axis[-1] - axis[0]:.3g}, got {width}. Use e.g. 0.2."
            )
            raise ValueError(msg)
        axes[name] = np.linspace(axis[0], axis[-1], round((axis[-1] - axis[0]) / width) + 1)
    days = np.arange(first, last + np.timedelta64(1, "ns"), np.timedelta64(1, "D"))
    return Grid(time=days, metric="sphere", **axes)


def images(experiment: Experiment) -> bool:
    r"""Returns whether data are images with gaps, on the nodes of the truth."""
    return experiment.preset == "sediment"


def problem_of(
    experiment: Experiment,
    step: float | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> Problem:
    r"""Returns the problem that an experiment poses to every mapper.

    The mean dynamic topography is known. A positive field is mapped by its logarithm, about the
    mean of the data.

    Arguments:
        experiment: The experiment.
        step: The step of the map, in degrees.
        only: The names of the observations to map from; all by default.
        seed: The seed of the mappers.

    Raises:
        ValueError: If a name is not one of the observations.

    Example:
        >>> experiment = Experiment.make("gulfstream", "1nadir", days=3, size=16, spacing=1.0,
        ...     spin_up=5, cache=False)
        >>> problem = problem_of(experiment, step=1.0)
        >>> len(problem) == len(problem.passes), problem.grid.shape
        (True, (2, 11, 11))
    """
    used = chosen(experiment.observations, only)
    grid = map_grid(experiment, step)
    assert grid.epoch is not None
    if images(experiment):
        return _of_images(experiment, used, grid, seed)
    return _of_tracks(experiment, used, grid, seed)


def chosen(every: Mapping[str, xr.Dataset], only: Sequence[str] | None) -> dict[str, xr.Dataset]:
    unknown = [name for name in only or () if name not in every]
    if unknown:
        msg = (
            f"compare(only=...): expected observations among {', '.join(every)}, got "
            f"{', '.join(unknown)}. Name those of the experiment."
        )
        raise ValueError(msg)
    return {k: ds for k, ds in every.items() if only is None or k in only}


def _columns(ds: xr.Dataset, name: str, epoch: np.datetime64) -> dict[str, np.ndarray]:
    r"""Returns the columns of a file, pixels one after the other, without missing values."""
    values = ds[name].values.astype(np.float64)
    t = days_since(ds["time"].values, epoch)
    t = np.broadcast_to(t.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    columns = {"time": t, "lat": ds["lat"].values, "lon": ds["lon"].values, "value": values}
    seen = np.isfinite(values)
    order = np.argsort(t[seen], kind="stable")
    return {k: v[seen].astype(np.float64)[order] for k, v in columns.items()}


def _of_tracks(
    experiment: Experiment, chosen: Mapping[str, xr.Dataset], grid: Grid, seed: int
) -> Problem:
    assert grid.epoch is not None
    parts, passes, groups, count = [], [], [], 0
    for k, ds in enumerate(chosen.values()):
        columns = _columns(ds, experiment.observed, grid.epoch)
        parts.append(columns)
        own = np.cumsum(np.diff(columns["time"], prepend=columns["time"][:1]) > APART)
        passes.append(own + count)
        count += int(own[-1]) + 1 if len(own) else 0
        groups.append(np.full(len(own), k))
    data = {k: torch.as_tensor(np.concatenate([p[k] for p in parts])) for k in parts[0]}
    points = _points(data, grid)
    known = None
    if experiment.mdt is not None:
        known = (_at(experiment.mdt, points), _at(experiment.mdt, grid.points))
    noisy = experiment.recipe.noise != "none"
    several = noisy and len(chosen) > 1
    return Problem(
        grid,
        points,
        data["value"],
        passes=torch.as_tensor(np.concatenate(passes)),
        groups=torch.as_tensor(np.concatenate(groups)) if several else None,
        known=known,
        blocks=_blocks(experiment, chosen, grid),
        seed=seed,
        beside=beside_of(experiment),
    )


def beside_of(experiment: Experiment) -> dict[str, Gridded]:
    r"""Returns what is seen of other fields of an experiment."""
    return {k: Gridded.of(k, found.seen[k].load()) for k, found in experiment.beside.items()}


def _points(data: Mapping[str, Tensor], grid: Grid) -> Points:
    coords = torch.stack([data[k] for k in DIMS], dim=-1)
    return Points(coords, DIMS, metric="sphere", epoch=grid.epoch)


def _blocks(
    experiment: Experiment, chosen: Mapping[str, xr.Dataset], grid: Grid
) -> tuple[Points, Tensor]:
    r"""Returns the means of blocks of the files, as the challenge takes them."""
    assert grid.epoch is not None
    found = []
    for ds in chosen.values():
        values = ds[experiment.observed].values
        columns = {"lat": ds["lat"].values, "lon": ds["lon"].values, "value": values}
        columns["time"] = days_since(ds["time"].values, grid.epoch)
        found.append(coarsen(columns, NADIR if values.ndim == 1 else SWATH))
    data = {k: torch.cat([c[k] for c in found]) for k in (*DIMS, "value")}
    return _points(data, grid), data["value"]


def _at(field: xr.DataArray, points: Points) -> Tensor:
    r"""Returns a mean field at some points, by linear interpolation."""
    grid = Grid(lat=field["lat"].values, lon=field["lon"].values, metric="sphere")
    flat = Points(points.coords[:, 1:], ("lat", "lon"), metric="sphere")
    nodes, weights = grid.interpolation(flat)
    values = torch.as_tensor(field.values.astype(np.float64)).flatten()
    return (values[nodes] * weights).sum(dim=1)


def _of_images(
    experiment: Experiment, chosen: Mapping[str, xr.Dataset], grid: Grid, seed: int
) -> Problem:
    assert grid.epoch is not None
    parts = []
    for ds in chosen.values():
        values = ds[experiment.observed].transpose("time", "lat", "lon").values
        seen = np.isfinite(values)
        t, lat, lon = np.meshgrid(
            days_since(ds["time"].values, grid.epoch),
            ds["lat"].values,
            ds["lon"].values,
            indexing="ij",
        )
        logs = np.log(np.where(seen, values, 1.0))
        columns = {"time": t, "lat": lat, "lon": lon, "value": logs}
        parts.append({k: v[seen].astype(np.float64) for k, v in columns.items()})
    data = {k: torch.as_tensor(np.concatenate([p[k] for p in parts])) for k in parts[0]}
    points, y = _points(data, grid), data["value"]
    mean = y.mean()
    known = (mean.expand(len(y)).clone(), mean.expand(len(grid)).clone())
    return Problem(grid, points, y, known=known, seed=seed)
