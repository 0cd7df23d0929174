r"""A map read back from its dataset, and paired with a truth."""

from __future__ import annotations

__all__ = [
    "Data",
    "Map",
    "Pairs",
    "as_pair",
    "inside_of",
    "is_field",
    "pairs_of",
    "parameter_of",
    "read_map",
    "true_state",
]

import numpy as np
import torch
import xarray as xr

from dataclasses import dataclass
from torch import Generator, Tensor
from typing import Any

from ..data import Observations
from ..domain import Grid, Points
from ..plots.frame import branch

Data = Observations | tuple[Points, Tensor]
"""Scattered data: what :func:`matheron.data.read` returns, or sites and values."""


@dataclass(frozen=True)
class Map:
    r"""A map as tensors: states of the grid, whose masked nodes are left out."""

    grid: Grid
    name: str
    long_name: str
    units: str
    mean: Tensor
    std: Tensor | None
    obs_std: Tensor | None
    members: Tensor | None


@dataclass(frozen=True)
class Pairs:
    r"""What is compared: the predicted law of the truth, and the truth, each with shape (m)."""

    mean: Tensor
    std: Tensor | None
    members: Tensor | None
    truth: Tensor


def read_map(dataset: xr.Dataset) -> Map:
    r"""Returns the map of a dataset; its nodes without a mean are masked.

    Raises:
        ValueError: If the dataset is not a map on a grid.
    """
    name, keys = _variables(dataset)
    mean = dataset[name]
    _check_axes(mean)
    axes: dict[str, Any] = {str(k): mean[k].values for k in mean.dims}
    order = tuple(Grid(**axes).dims)
    fields = {k: _values(dataset[v], order) for k, v in keys.items() if v in dataset}
    grid = Grid(**axes, mask=fields["mean"].isfinite())
    states = {k: grid.flatten(v) for k, v in fields.items()}
    long_name = str(mean.attrs.get("long_name", name)).removeprefix("mean of ")
    return Map(
        grid=grid,
        name=name,
        long_name=long_name,
        units=str(mean.attrs.get("units", "")),
        mean=states["mean"],
        std=states.get("std"),
        obs_std=states.get("obs_std"),
        members=states.get("members"),
    )


def _variables(dataset: xr.Dataset) -> tuple[str, dict[str, str]]:
    names = [str(k) for k in dataset.data_vars]
    found = [k for k in names if f"{k}_std" in names] or [k for k in names if k == "mean"]
    if not found and len(names) == 1:
        found = names
    if len(found) != 1:
        msg = (
            f"report(dataset=...): expected one map V with V_std, or mean with std, got variables "
            f"{names}. Pass the output of `matheron map` or of posterior.to_xarray()."
        )
        raise ValueError(msg)
    name = found[0]
    if name == "mean":
        return name, {"mean": "mean", "std": "std", "obs_std": "obs_std", "members": "member"}
    tails = {"std": "_std", "obs_std": "_obs_std", "members": "_member"}
    return name, {"mean": name} | {k: name + tail for k, tail in tails.items()}


def _check_axes(field: xr.DataArray) -> None:
    bare = [str(k) for k in field.dims if k not in field.coords]
    if bare or not field.dims:
        msg = (
            f"report(dataset=...): expected a field on a grid with coordinates, got dimensions "
            f"{field.dims} without {bare or 'axes'}. Map onto a grid, not at points."
        )
        raise ValueError(msg)


def _values(field: xr.DataArray, order: tuple[str, ...]) -> Tensor:
    short = {"latitude": "lat", "longitude": "lon"}
    names = {short.get(str(k), str(k)): k for k in field.dims}
    first = [k for k in field.dims if k == "realization"]
    field = field.transpose(*first, *(names[k] for k in order))
    return torch.as_tensor(np.asarray(field.values, dtype=np.float64))


def parameter_of(dataset: xr.Dataset, chart: Map, name: str) -> tuple[Points, Tensor] | None:
    r"""Returns the sites and the values of a field of parameters, if the map has it, at sea.

    Lengths are in metres on the sphere.
    """
    key = f"parameter_{name}"
    if key not in dataset or dataset[key].ndim < 3:
        return None
    field = dataset[key]
    short = {"latitude": "lat", "longitude": "lon"}
    own = [str(k).removeprefix("parameter_") for k in field.dims[:2]]
    axes: dict[str, Any] = {short.get(k, k): dataset[f"parameter_{k}"].values for k in own}
    values = torch.as_tensor(np.asarray(field.values, dtype=np.float64)).flatten(0, 1)
    kept = values.flatten(1).isfinite().all(dim=1)
    if not kept.any():
        return None
    metres = 1e6 if str(field.attrs.get("units")) == "km2" else 1.0
    grid = Grid(metric=chart.grid.metric, **axes)
    return grid.points[kept], metres * values[kept]


def as_pair(data: Data) -> tuple[Points, Tensor]:
    r"""Returns the sites and the values of scattered data."""
    points, values = data if isinstance(data, tuple) else (data.points, data.values)
    if values.shape != (len(points),):
        msg = (
            f"report(observations=...): expected one value for each of the {len(points)} points, "
            f"got shape {tuple(values.shape)}. Pass (points, values)."
        )
        raise ValueError(msg)
    return points, values.detach().cpu().double()


def is_field(truth: Any) -> bool:
    r"""Tells a field on a grid from scattered data."""
    return isinstance(truth, xr.Dataset | xr.DataArray)


def true_state(chart: Map, truth: xr.Dataset | xr.DataArray) -> Tensor:
    r"""Returns the truth on the nodes of the map, NaN where it is unknown.

    Raises:
        ValueError: If the truth does not have the variable or the grid of the map.
    """
    if isinstance(truth, xr.Dataset):
        truth = truth[_true_name(chart, truth)]
    short = {"latitude": "lat", "longitude": "lon"}
    truth = truth.rename({k: v for k, v in short.items() if k in truth.dims})
    if set(truth.dims) != set(chart.grid.dims) or any(k not in truth.coords for k in truth.dims):
        raise ValueError(_other_grid(f"dimensions {tuple(truth.dims)}"))
    coords: dict[str, Any] = {str(k): truth[k].values for k in truth.dims}
    axes = Grid(**coords, epoch=chart.grid.epoch).axes
    for k, axis in chart.grid.axes.items():
        if not _same_axis(axes[k], axis, 360.0 if k == "lon" else 0.0):
            raise ValueError(_other_grid(f"another axis '{k}' of {len(axes[k])} nodes"))
    return chart.grid.flatten(_values(truth, chart.grid.dims))


def _same_axis(a: Tensor, b: Tensor, turn: float) -> bool:
    r"""Tells whether two axes have the same nodes, on whatever longitude branch."""
    if len(a) != len(b):
        return False
    gap = a - b
    gap = (gap + turn / 2) % turn - turn / 2 if turn else gap
    return bool(gap.abs().max() <= 1e-6 * max(b.abs().max().item(), 1.0))


def _other_grid(got: str) -> str:
    return (
        f"report(truth=...): expected a field on the grid of the map, got {got}. "
        "Map onto the grid of the truth, or pass data with points and values."
    )


def _true_name(chart: Map, truth: xr.Dataset) -> str:
    names = [str(k) for k in truth.data_vars]
    if chart.name in names or len(names) == 1:
        return chart.name if chart.name in names else names[0]
    msg = (
        f"report(truth=...): expected the variable '{chart.name}', got {names}. "
        "Pass the variable itself, e.g. truth['ssh']."
    )
    raise ValueError(msg)


def pairs_of(chart: Map, truth: Any, noisy: bool, generator: Generator | None) -> Pairs:
    r"""Returns what is predicted where the truth is known, and the truth.

    Raises:
        ValueError: If no truth is on the map.
    """
    if is_field(truth):
        y, at = true_state(chart, truth), lambda x: x
    else:
        points, values = as_pair(truth)
        inside = inside_of(chart.grid, points)
        nodes, weights = chart.grid.interpolation(points[inside])
        y, at = values[inside], lambda x: (x[..., nodes] * weights).sum(dim=-1)
    kept = y.isfinite()
    if not kept.any():
        msg = (
            "report(truth=...): expected a truth on the map, got none of "
            f"{len(kept)} values there. Check the extent and the longitude branch."
        )
        raise ValueError(msg)
    std = chart.obs_std if noisy and chart.obs_std is not None else chart.std
    members = None if chart.members is None else at(chart.members)[:, kept]
    if members is not None and noisy and chart.obs_std is not None and chart.std is not None:
        noise = (chart.obs_std**2 - chart.std**2).clamp_min(0).sqrt()
        z = torch.randn(members.shape, generator=generator, dtype=torch.float64)
        members = members + at(noise)[kept] * z
    return Pairs(at(chart.mean)[kept], None if std is None else at(std)[kept], members, y[kept])


def inside_of(grid: Grid, points: Points) -> Tensor:
    r"""Returns which data are on the map: within every axis, with sea around them."""
    if points.dims != grid.dims:
        msg = (
            f"report(observations=...): expected points with dims {grid.dims}, got {points.dims}. "
            "Name the coordinates as those of the map."
        )
        raise ValueError(msg)
    points = points.since(grid.epoch)
    keep = torch.ones(len(points), dtype=torch.bool)
    for name in grid.dims:
        axis, s = grid.axes[name], branch(points.axis(name), grid, name)
        keep &= (s >= axis[0]) & (s <= axis[-1])
    if grid.mask is None or not keep.any():
        return keep
    # Weights of the grid without its land tell how much sea there is around each datum.
    axes: dict[str, Any] = dict(grid.axes)
    whole = Grid(**axes, metric=grid.metric, epoch=grid.epoch)
    nodes, weights = whole.interpolation(points[keep])
    keep[keep.clone()] = (weights * grid.mask[nodes]).sum(dim=-1) > 1e-6
    return keep
