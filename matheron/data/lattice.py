r"""Fields on a lattice: axes found, sorted, and put in the order of the library."""

from __future__ import annotations

__all__ = ["is_lattice", "on_lattice", "rectilinear"]

import numpy as np
import xarray as xr

from collections.abc import Mapping
from pathlib import Path

from .errors import call, refuse
from .longitude import one_branch


def rectilinear(ds: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    r"""Returns 2-D latitudes and longitudes that each depend on one dim only as 1-D axes."""
    lat, lon = (ds.get(names.get(k, "")) for k in ("lat", "lon"))
    if lat is None or lon is None or lat.ndim != 2 or lon.dims != lat.dims:
        return ds
    one, two = map(str, lat.dims)
    for rows, columns in ((one, two), (two, one)):
        wide = min(ds.sizes[rows], ds.sizes[columns]) > 1
        if wide and _constant(lat, columns) and _constant(lon, rows):
            axes = {names["lat"]: lat.isel({columns: 0}), names["lon"]: lon.isel({rows: 0})}
            return ds.assign_coords({k: v.variable for k, v in axes.items()})
    return ds


def _constant(da: xr.DataArray, dim: str) -> bool:
    away = np.abs(da.values - da.isel({dim: [0]}).values)
    return bool(away.max() <= 1e-6)  # NaN is not constant


def is_lattice(ds: xr.Dataset, names: Mapping[str, str], chosen: str) -> bool:
    r"""Tells whether each coordinate has a dim of its own, and the variable all of these."""
    dims = [ds[n].dims for n in names.values()]
    own = [d[0] for d in dims if len(d) == 1]
    alone = len(own) == len(dims) and len(set(own)) == len(own)
    return alone and set(own) == set(ds[chosen].dims)


def on_lattice(
    path: Path, ds: xr.Dataset, names: Mapping[str, str], chosen: str
) -> tuple[xr.Dataset, list[str]]:
    r"""Returns the field with its axes in order and increasing, and what was done for it.

    Raises:
        InputError: If an axis has the same value twice, or a missing one.
    """
    notes = []
    for axis, name in names.items():
        ds, told = _sorted(path, ds, axis, name)
        notes += told
    ds = ds.transpose(*(ds[n].dims[0] for n in names.values()), ...)
    return ds, notes


def _sorted(path: Path, ds: xr.Dataset, axis: str, name: str) -> tuple[xr.Dataset, list[str]]:
    dim, values = str(ds[name].dims[0]), np.asarray(ds[name].values)
    if values.dtype.kind not in "fiu":
        return ds, []
    _check_axis(path, name, values)
    notes: list[str] = []
    if axis == "lon":
        ds, values, notes = _cut_turn(ds, name, dim, values.astype(np.float64))
        moved = one_branch(values)
        if not np.array_equal(moved, values):
            notes.append("moved longitudes to one continuous branch")
        ds = ds.assign({name: (dim, moved, ds[name].attrs)})
        values = moved
    order = np.argsort(values, kind="stable")
    if np.array_equal(order, np.arange(values.size)):
        return ds, notes
    flipped = np.array_equal(order[::-1], np.arange(values.size))
    notes.append(f"{'flipped' if flipped else 'sorted'} the axis '{name}'")
    return ds.isel({dim: order}), notes


def _cut_turn(
    ds: xr.Dataset, name: str, dim: str, lon: np.ndarray
) -> tuple[xr.Dataset, np.ndarray, list[str]]:
    r"""Drops the meridian that is written twice, at both ends of a whole turn."""
    last = int(lon.argmax())
    if lon.size < 3 or abs(np.ptp(lon) - 360.0) > 1e-6:
        return ds, lon, []
    keep = np.delete(np.arange(lon.size), last)
    return (
        ds.isel({dim: keep}),
        lon[keep],
        [f"dropped '{name}' = {lon[last]:g}, the same meridian"],
    )


def _check_axis(path: Path, name: str, values: np.ndarray) -> None:
    where = call("read", path=path)
    bad = ~np.isfinite(values)
    if bad.any():
        got = f"{int(bad.sum())} missing or infinite among {values.size}"
        raise refuse(where, f"a finite axis '{name}'", got, "Repair the axis, or drop those nodes")
    unique, counts = np.unique(values, return_counts=True)
    if unique.size < values.size:
        got = f"{unique[counts > 1][0]:.6g} {counts.max()} times"
        cure = f"Drop the repeated nodes, e.g. ds.drop_duplicates('{name}')"
        raise refuse(where, f"each value of the axis '{name}' once", got, cure)
