r"""Gridded fields beside the data, e.g. temperature beside sea level, brought to another grid."""

from __future__ import annotations

__all__ = ["Gridded", "Known", "missing", "of_order_one"]

import dataclasses
import numpy as np
import torch
import xarray as xr

from collections.abc import Mapping
from dataclasses import dataclass
from jaxtyping import Bool, Float
from pathlib import Path
from torch import Tensor
from typing import Any

from .errors import call, refuse
from .netcdf import netcdf_variables
from .read import read
from ..domain import Grid, Points, dates_of, nearest_turn

DIMS = ("time", "lat", "lon")
Known = tuple[Tensor, Tensor]
"""The values of a field at nodes, and where it is known."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "sst": ("sst", "analysed_sst", "sea_surface_temperature", "thetao", "tos", "to")
}
"""The usual names of fields in files."""
CELSIUS = ("degreecelsius", "degreescelsius", "celsius", "degc", "degreec", "degreesc", "c", "°c")
KELVIN = ("kelvin", "k", "degreekelvin", "degreeskelvin", "degk")
ZERO = 273.15
"""Zero degrees Celsius, in kelvin."""
APART = 1.5
"""The most days between dates that the field is interpolated from."""
NEAR = 0.5
"""How many days from its nearest date a field is still taken for that of a day."""
HALF = 0.5
"""The part of a cell where a field is known, for the cell to have it."""
FAR = 10.0
"""How many standard deviations from its usual mean a field is taken for another."""


@dataclass(frozen=True)
class Gridded:
    r"""A field on days, latitudes and longitudes, with gaps.

    Arguments:
        name: What it is.
        grid: Its grid, with :math:`n` nodes.
        values: Its values, zero in the gaps.
        known: Where it is known.
        units: Its units, or nothing.

    Raises:
        InputError: If the grid has other axes, or no dates.

    Example:
        >>> time = np.array(["2020-01-01", "2020-01-02"], "M8[D]")
        >>> axes = {"time": time, "lat": np.arange(4.0), "lon": np.arange(4.0)}
        >>> field = xr.DataArray(np.full((2, 4, 4), 15.0), axes, tuple(axes), name="sst")
        >>> coarse = Grid(time=time[:1], lat=[0.5, 2.5], lon=[0.5, 2.5], metric="sphere")
        >>> Gridded.of("sst", field).onto(coarse)[0].tolist()
        [15.0, 15.0, 15.0, 15.0]
    """

    name: str
    grid: Grid
    values: Float[Tensor, " n"]
    known: Bool[Tensor, " n"]
    units: str = ""

    def __post_init__(self) -> None:
        if self.grid.dims != DIMS or self.grid.epoch is None:
            got = ", ".join(self.grid.dims) + ("" if self.grid.epoch is not None else ", no dates")
            where, cure = call("Gridded", name=self.name), "Name its axes so, and give it dates"
            raise refuse(where, f"a field on {', '.join(DIMS)}", got, cure)

    @classmethod
    def of(cls, name: str, field: xr.DataArray) -> Gridded:
        r"""Returns a labelled field; NaN are gaps."""
        field = field.transpose(*DIMS)
        axes: dict[str, Any] = {k: field[k].values for k in DIMS}
        values = torch.as_tensor(field.values.astype(np.float64)).flatten()
        units = str(field.attrs.get("units", ""))
        grid = Grid(metric="sphere", **axes)
        return cls(name, grid, values.nan_to_num(0.0), values.isfinite(), units)

    @classmethod
    def read(cls, name: str, path: Path, variable: str | None = None) -> Gridded:
        r"""Returns the field of a file.

        Arguments:
            name: What it is, e.g. ``sst``.
            path: The file.
            variable: Its variable; by default one of the usual names, or the only one.

        Raises:
            InputError: If the file cannot be used, or holds no field on a grid of dates.
        """
        if variable is None and path.is_file() and path.suffix == ".nc":
            there = netcdf_variables(path, {})
            variable = next((k for k in ALIASES.get(name, (name,)) if k in there), None)
        data = read(path, variable, squeeze=False)
        if data.grid is None or data.mask_valid is None:
            where, got = call("read", path=path), f"{len(data)} scattered points"
            raise refuse(where, f"{name} on a grid", got, "Grid it first")
        axes: dict[str, Any] = dict(data.grid.axes)
        grid = Grid(metric=data.grid.metric, epoch=data.epoch, **axes)
        known = data.mask_valid.flatten()
        values = torch.zeros(len(known), dtype=torch.float64)
        values[known] = data.values
        return cls(name, grid, values, known, data.units)

    def within(self, units: str, mean: float, std: float) -> Gridded:
        r"""Returns the field in some units, refused if it is nothing like the usual.

        Arguments:
            units: The units; kelvin and degrees Celsius are made of each other.
            mean: The usual mean.
            std: The usual standard deviation.

        Raises:
            InputError: If the units are others, or the values are of another field.
        """
        where, values = call("Gridded", name=self.name), self.values
        own, wanted = _plain(self.units), _plain(units)
        shift = {("k", "c"): -ZERO, ("c", "k"): ZERO}.get((own, wanted), 0.0)
        if own and wanted and own != wanted and not shift:
            expected, cure = f"{self.name} in {units}, as in the training", "Convert it"
            raise refuse(where, expected, repr(self.units), cure)
        values = torch.where(self.known, values + shift, 0.0)
        middle = values[self.known].median().item() if self.known.any() else mean
        if abs(middle - mean) > FAR * std:
            expected = f"{self.name} about {mean:.3g} {units}, as in the training"
            raise refuse(
                where, expected, f"{middle:.4g}", "Check its units, and which field it is"
            )
        return dataclasses.replace(self, values=values, units=units)

    def onto(self, grid: Grid) -> tuple[Float[Tensor, " k"], Bool[Tensor, " k"]]:
        r"""Returns the field on another grid, zero in the gaps, and where it is known.

        Within the cells of a coarser grid it is averaged, between its own nodes it is
        interpolated, in time too, from dates a day and a half apart at most.

        Arguments:
            grid: The grid: days, latitudes and longitudes, without land.
        """
        when = _in_time(self.grid, grid)
        north = _in_cells(self.grid.axes["lat"], grid.axes["lat"])
        own, wanted = self.grid.axes["lon"], grid.axes["lon"]
        middle = (own[0] + own[-1]) / 2
        east = _in_cells(own, nearest_turn(wanted, middle))

        def moved(x: Tensor) -> Tensor:
            x = north @ x.reshape(self.grid.shape) @ east.mT
            return torch.einsum("ts,shw->thw", when, x).flatten()

        there = moved(self.known.to(torch.float64))
        known = there >= HALF - 1e-9
        total = moved(self.values)
        return torch.where(known, total / there.clamp(min=HALF / 2), 0.0), known


def _plain(units: str) -> str:
    word = "".join(c for c in units.lower() if c not in " _.")
    return "c" if word in CELSIUS else "k" if word in KELVIN else word


def _in_cells(own: Float[Tensor, " s"], wanted: Float[Tensor, " k"]) -> Float[Tensor, "k s"]:
    r"""Returns weights of nodes: means of linear interpolations at places spread over each cell.

    A cell of which less than half is between the nodes has none.
    """
    if len(own) < 2:
        near = (wanted[:, None] - own).abs() <= HALF
        return near.to(torch.float64)
    step = wanted.diff().abs().median() if len(wanted) > 1 else own.diff().median()
    count = max(1, round((step / own.diff().median()).item()))
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    places = wanted[:, None] + step * shares
    slack = own.diff().median() / 2 + 1e-9
    inside = (places >= own[0] - slack) & (places <= own[-1] + slack)
    weights = _hats(own, places.clamp(own[0], own[-1])) * inside[..., None]
    share = inside.to(torch.float64).mean(dim=1)[:, None]
    return torch.where(share >= HALF, weights.mean(dim=1) / share.clamp(min=1e-9), 0.0)


def _hats(own: Float[Tensor, " s"], places: Float[Tensor, "*k"]) -> Float[Tensor, "*k s"]:
    r"""Returns the weights of linear interpolation."""
    nodes, weights = Grid(x=own).interpolation(Points(x=places.flatten()))
    found = torch.zeros(len(nodes), len(own), dtype=torch.float64)
    return found.scatter_add(1, nodes, weights).reshape(*places.shape, -1)


def _in_time(own: Grid, wanted: Grid) -> Float[Tensor, "k s"]:
    r"""Returns weights of dates: of those on both sides of a day, else of one that is near."""
    assert own.epoch is not None
    assert wanted.epoch is not None
    shift = float((wanted.epoch - own.epoch) / np.timedelta64(1, "D"))
    days, dates = wanted.axes["time"] + shift, own.axes["time"]
    away = (days[:, None] - dates).abs()
    nearest = away.argmin(dim=1)
    near = torch.nn.functional.one_hot(nearest, len(dates)).to(torch.float64)
    near *= (away.amin(dim=1) <= NEAR + 1e-6)[:, None]
    if len(dates) < 2:
        return near
    between = (days >= dates[0]) & (days <= dates[-1])
    above = torch.searchsorted(dates, days.contiguous()).clamp(1, len(dates) - 1)
    between &= dates[above] - dates[above - 1] <= APART
    return torch.where(between[:, None], _hats(dates, days.clamp(dates[0], dates[-1])), near)


def of_order_one(x: Tensor, known: Tensor, mean: float, std: float) -> Known:
    r"""Returns a field as solvers are given it, zero in its gaps, and where it is known."""
    return torch.where(known, (x - mean) / std, 0.0), known


def missing(known: Bool[Tensor, "t h w"], grid: Grid, first: int = 0) -> list[str]:
    r"""Returns the dates of a grid, from a given one on, on which nothing is known."""
    assert grid.epoch is not None
    dates = dates_of(grid.axes["time"], grid.epoch).astype("datetime64[D]")
    dates = dates[first : first + len(known)]
    nowhere = ~known.flatten(1).any(dim=1)
    return [str(date) for date, empty in zip(dates, nowhere.tolist(), strict=True) if empty]
