r"""The fields of parameters of a model, on a coarse grid, beside its map."""

from __future__ import annotations

__all__ = ["with_parameters"]

import numpy as np
import xarray as xr

from torch import Tensor
from typing import Any

from .structure import Law
from ..data.write import CF_NAMES
from ..domain import Grid
from ..selection.laws import MarkovLaw

DAY = 86_400.0
LINES = 9
"""The most symbols across the shorter side of a map."""


def with_parameters(dataset: xr.Dataset, law: Law | None, grid: Grid) -> xr.Dataset:
    r"""Returns a map with the lengthscales and the velocity of its model, where it has them.

    They are on a coarser grid of their own, at the middle of the dates: enough to draw ellipses
    and arrows.
    """
    space = [k for k in grid.dims if k != "time"]
    if not isinstance(law, MarkovLaw) or len(space) != 2:
        return dataset
    coarse = _coarse(grid, space)
    own = {k: f"parameter_{CF_NAMES.get(k, k)}" for k in space}
    coords = {own[k]: (own[k], coarse.axes[k].numpy()) for k in space}
    found: dict[str, Any] = {}
    sphere = grid.metric == "sphere"
    for name, values in law.local(coarse.points).items():
        scale = {"lengthscale": 1e-6, "velocity": 1 / DAY}[name] if sphere else 1.0
        units = {"lengthscale": "km2", "velocity": "m s-1"}[name] if sphere else "units of axes"
        tail = ("row", "column")[: values.ndim - 1] if name == "lengthscale" else ("component",)
        whole = _on_grid(coarse, scale * values)
        words = {
            "lengthscale": "squared matrix of lengthscales, in the order of the axes",
            "velocity": "velocity of advection, in the order of the axes",
        }[name]
        attributes = {"long_name": words, "units": units}
        found[f"parameter_{name}"] = ((*own.values(), *tail), whole, attributes)
    return dataset.assign(found).assign_coords(coords)


def _coarse(grid: Grid, space: list[str]) -> Grid:
    r"""Returns every so many nodes of the axes of space, and one date in the middle."""
    fewest = min(len(grid.axes[k]) for k in space)
    axes: dict[str, Any] = {}
    index = []
    for name, axis in grid.axes.items():
        if name == "time":
            pick = np.array([len(axis) // 2])
        else:
            step = max(-(-fewest // LINES), -(-len(axis) // (2 * LINES)))
            pick = np.arange(len(axis))[(len(axis) - 1) % step // 2 :: step]
        axes[name] = axis[pick]
        index.append(pick)
    mask = None
    if grid.mask is not None:
        sea: Tensor = grid.mask.unflatten(0, grid.shape)
        picked = sea.numpy()[np.ix_(*index)]
        mask = picked if picked.any() else None
    return Grid(**axes, mask=mask, metric=grid.metric, epoch=grid.epoch)


def _on_grid(coarse: Grid, values: Tensor) -> np.ndarray:
    r"""Returns values at the nodes with the shape of the axes of space, NaN on land."""
    flat = values.detach().reshape(len(coarse), -1)
    full = coarse.unflatten(flat.mT).movedim(0, -1)
    shape = [len(v) for k, v in coarse.axes.items() if k != "time"]
    return full.reshape(*shape, *values.shape[1:]).numpy()
