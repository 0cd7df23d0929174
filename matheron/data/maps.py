r"""Maps in: what :func:`write_dataset` has written, mean, std and members, on its grid."""

from __future__ import annotations

__all__ = ["Map", "read_map"]

import numpy as np
import torch
import xarray as xr

from dataclasses import dataclass
from jaxtyping import Float
from pathlib import Path
from torch import Tensor
from typing import Any

from .errors import call, refuse
from .lattice import on_lattice
from .netcdf import open_netcdf
from .read import read
from ..domain import Grid


@dataclass(frozen=True)
class Map:
    r"""A map on a grid with :math:`n` nodes.

    Attributes:
        grid: The grid: nodes without a mean are masked.
        variable: The name of the field.
        mean: The mean of the field, with shape :math:`(n)`.
        std: The std of the field, with shape :math:`(n)`, if the file has it.
        obs_std: The std of a new datum, with shape :math:`(n)`, if the file has it.
        members: The ensemble, with shape :math:`(size, n)`, if the file has it.
        units: The units of the field, or nothing.
        quantity: Which sea level it is: ``"sla"``, ``"adt"``, ``"ssh"``, or ``"unknown"``.
    """

    grid: Grid
    variable: str
    mean: Float[Tensor, " n"]
    std: Float[Tensor, " n"] | None = None
    obs_std: Float[Tensor, " n"] | None = None
    members: Float[Tensor, "size n"] | None = None
    units: str = ""
    quantity: str = "unknown"


def read_map(path: str | Path, variable: str | None = None) -> Map:
    r"""Returns a map that is written in a NetCDF file.

    Arguments:
        path: The file.
        variable: The name of the field. It can be left out where there is only one.

    Raises:
        InputError: If the file cannot be used, or does not hold a gridded field.

    Example:
        >>> import tempfile
        >>> from matheron.data import map_dataset, write_dataset
        >>> ds = map_dataset(Grid(x=[0.0, 1.0], y=[0.0, 1.0]), torch.ones(4), torch.ones(4) / 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     back = read_map(write_dataset(ds, Path(folder) / "map.nc"))
        >>> back.grid, back.std, back.members
        (Grid(y: 2, x: 2, metric='plane'), tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64), None)
    """
    data = read(path, variable, squeeze=False)
    if data.grid is None or data.mask_valid is None:
        where, got = call("read_map", path=path), f"{len(data)} scattered points"
        raise refuse(where, "a field on a grid", got, "Give a map made by `matheron map`")
    axes: dict[str, Any] = dict(data.grid.axes)
    grid = Grid(**axes, mask=data.mask_valid, epoch=data.epoch)
    with open_netcdf(path) as ds:
        ds, _ = on_lattice(Path(path), ds, data.names, data.variable)
        parts = {
            part: _part(ds, names, [data.names[k] for k in grid.dims], grid)
            for part, names in _names_of(data.variable).items()
        }
    return Map(
        grid=grid,
        variable=data.variable,
        mean=data.values,
        std=parts["std"],
        obs_std=parts["obs_std"],
        members=parts["member"],
        units=data.units,
        quantity=data.quantity,
    )


def _names_of(variable: str) -> dict[str, tuple[str, ...]]:
    r"""Returns the usual names of the parts of a map: ours, and those of the L4 products."""
    formal = ("err_sla", "err") if variable in ("sla", "adt") else ()
    return {
        "std": (f"{variable}_std", f"err_{variable}", *formal),
        "obs_std": (f"{variable}_obs_std",),
        "member": (f"{variable}_member",),
    }


def _part(ds: xr.Dataset, names: tuple[str, ...], dims: list[str], grid: Grid) -> Tensor | None:
    name = next((n for n in names if n in ds and set(dims) <= set(ds[n].dims)), None)
    if name is None:
        return None
    values = ds[name].transpose(..., *dims).values.astype(np.float64)
    return grid.flatten(torch.as_tensor(values))
