r"""The velocity that carries a field, from a file of currents or of sea surface height."""

from __future__ import annotations

__all__ = ["read_velocity"]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from pathlib import Path
from torch import Tensor
from typing import Any

from .border import say
from ..data import InputError, Observations, read, read_map
from ..data.netcdf import netcdf_variables
from ..domain import Grid, Points, nearest_turn
from ..priors.spde.velocity import Given, geostrophic

DAY = 86_400.0
"""Seconds in a day, the unit of time of a prior."""
FASTEST = 10.0
"""The speed in m/s beyond which units are wrong: no current is as fast."""
PAIRS = (
    ("ugos", "vgos"),
    ("u", "v"),
    ("uo", "vo"),
    ("ugosa", "vgosa"),
    ("u_geo", "v_geo"),
    ("eastward_velocity", "northward_velocity"),
    ("eastward_sea_water_velocity", "northward_sea_water_velocity"),
    ("water_u", "water_v"),
)
"""The names of velocities to the east and to the north."""
HEIGHTS = ("adt", "ssh", "zos", "sla", "sea_surface_height")
"""The names of heights from which the velocity follows."""
UNITS = {"": 1.0, "m/s": 1.0, "ms-1": 1.0, "cm/s": 0.01, "cms-1": 0.01, "meter/second": 1.0}
METRES = {"": 1.0, "m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "cm": 0.01}


def read_velocity(path: Path, data: Observations, domain: Grid | Points) -> Given:
    r"""Returns the velocity of a file, in metres per day, to the north and to the east.

    It is zero on land. Between its nodes it is interpolated, in time too; before its first date
    and after its last it stays.

    Raises:
        InputError: If the file has no velocity, in units that are not known, or elsewhere.
    """
    names = netcdf_variables(path, {})
    known = {n.lower(): n for n in names}
    pair = next((p for p in PAIRS if p[0] in known and p[1] in known), None)
    height = next((h for h in HEIGHTS if h in known), None)
    if pair is not None:
        grid, m = _currents(path, known[pair[0]], known[pair[1]])
    elif height is not None:
        grid, m = _balanced(path, known[height])
    else:
        msg = (
            f"map(velocity={path}): expected a velocity (e.g. ugos and vgos) or a height (e.g. "
            f"adt) on a grid, got {', '.join(names) or 'no variable'}. Rename the variables."
        )
        raise InputError(msg)
    _check(path, grid, m, data, domain)
    return Given(grid, m)


def _currents(path: Path, east: str, north: str) -> tuple[Grid, Float[Tensor, "n 2"]]:
    u, v = (_gridded(path, name) for name in (east, north))
    (grid, a), (_, b) = (_whole(found) for found in (u, v))
    if len(a) != len(b):
        msg = (
            f"map(velocity={path}): expected {east} and {north} on one grid, got {len(a)} and "
            f"{len(b)} nodes. Interpolate them to one grid."
        )
        raise InputError(msg)
    days = DAY if grid.metric == "sphere" else 1.0
    scale = [days * _scale(path, found, UNITS) for found in (v, u)]
    if max(a.abs().max(), b.abs().max()) * _scale(path, u, UNITS) > FASTEST and days == DAY:
        msg = (
            f"map(velocity={path}): expected speeds under {FASTEST:g} m/s, got "
            f"{max(a.abs().max(), b.abs().max()).item():.3g}. Check the units and fill values."
        )
        raise InputError(msg)
    return grid, torch.stack([scale[0] * b, scale[1] * a], dim=-1)


def _gridded(path: Path, name: str) -> Observations:
    found = read(path, name, squeeze=False)
    if found.grid is None:
        msg = (
            f"map(velocity={path}): expected {name} on a grid, got {len(found)} scattered points. "
            "Grid it first."
        )
        raise InputError(msg)
    return found


def _whole(found: Observations) -> tuple[Grid, Float[Tensor, " n"]]:
    r"""Returns the values on the whole grid, zero where there are none: on land."""
    assert found.grid is not None
    axes: dict[str, Any] = dict(found.grid.axes)
    grid = Grid(**axes, metric=found.grid.metric, epoch=found.epoch)
    values = torch.zeros(len(grid), dtype=torch.float64)
    values[found.rows] = found.values
    return grid, values


def _scale(path: Path, found: Observations, known: dict[str, float]) -> float:
    units = found.units.lower().replace(" ", "").replace("**", "").replace("^", "")
    units = units.replace(".", "").replace("seconds", "second").replace("meters", "meter")
    if found.points.metric == "plane":
        return 1.0
    if units not in known:
        msg = (
            f"map(velocity={path}): expected {found.variable} in {' or '.join(list(known)[1:4])}, "
            f"got {found.units!r}. Convert it."
        )
        raise InputError(msg)
    return known[units]


def _balanced(path: Path, height: str) -> tuple[Grid, Float[Tensor, "n 2"]]:
    r"""Returns the geostrophic velocity of a map of heights."""
    chart, found = read_map(path, height), _gridded(path, height)
    factor = _scale(path, found, METRES)
    u, v = geostrophic(chart.grid, factor * chart.mean)
    full = [chart.grid.unflatten(x).flatten().nan_to_num(0.0) for x in (v, u)]
    axes: dict[str, Any] = dict(chart.grid.axes)
    grid = Grid(**axes, metric=chart.grid.metric, epoch=chart.grid.epoch)
    say(f"velocity: geostrophic, from {height} of {path}")
    return grid, DAY * torch.stack(full, dim=-1)


def _check(
    path: Path,
    grid: Grid,
    m: Float[Tensor, "n 2"],
    data: Observations,
    domain: Grid | Points,
) -> None:
    if not m.isfinite().all() or not m.any():
        msg = (
            f"map(velocity={path}): expected finite velocities, not all zero, got "
            f"{int((~m.isfinite()).sum())} not finite. Check the fill values."
        )
        raise InputError(msg)
    space = [k for k in domain.dims if k != "time"]
    own = [k for k in grid.dims if k != "time"]
    dated = ("time" in grid.dims) and ((grid.epoch is None) != (data.epoch is None))
    if own != space or dated or len(own) != 2:
        msg = (
            f"map(velocity={path}): expected axes {', '.join(domain.dims)} as those of the data, "
            f"got {', '.join(grid.dims)}{' in other units of time' if dated else ''}. Write them "
            "alike."
        )
        raise InputError(msg)
    _check_cover(path, grid, domain, own)
    if "time" in grid.dims:
        _say_time(grid, domain)


def _check_cover(path: Path, grid: Grid, domain: Grid | Points, axes: Sequence[str]) -> None:
    for name in axes:
        axis = grid.axes[name]
        wanted = domain.axes[name] if isinstance(domain, Grid) else domain.axis(name)
        if name == "lon" and grid.metric == "sphere":
            middle = (axis[0] + axis[-1]) / 2
            wanted = nearest_turn(wanted, middle)
        slack = 2 * axis.diff().max() if len(axis) > 1 else torch.tensor(1.0)
        if wanted.min() < axis[0] - slack or wanted.max() > axis[-1] + slack:
            msg = (
                f"map(velocity={path}): expected velocities over {name} {wanted.min():.6g} to "
                f"{wanted.max():.6g}, got {axis[0]:.6g} to {axis[-1]:.6g}. Give a file that "
                "covers the map."
            )
            raise InputError(msg)


def _say_time(grid: Grid, domain: Grid | Points) -> None:
    points = domain.points.since(grid.epoch).axis("time")
    axis = grid.axes["time"]
    if points.max() > axis[-1] + 1e-9 or points.min() < axis[0] - 1e-9:
        say("note: beyond its dates, the velocity stays as it is at the nearest")
