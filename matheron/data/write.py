r"""Files out: CF NetCDF maps and tables, written whole or not at all."""

from __future__ import annotations

__all__ = ["check_output", "map_dataset", "whole_or_not", "write_dataset", "write_table"]

import contextlib
import functools
import numpy as np
import os
import pandas as pd
import re
import tempfile
import xarray as xr

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from jaxtyping import Float
from pathlib import Path
from torch import Tensor

from .errors import call, refuse
from ..domain import Grid

CF_NAMES = {"lat": "latitude", "lon": "longitude"}
CF_AXES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "time", "axis": "T"},
    "lat": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "lon": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "y": {"axis": "Y"},
    "x": {"axis": "X"},
    "z": {"axis": "Z"},
}
TIME_UNITS = "days since 1950-01-01"
STEP = 1e-4
"""What the last digit of a packed height or speed is worth, in m or m/s."""


def map_dataset(
    grid: Grid,
    mean: Float[Tensor, " n"],
    std: Float[Tensor, " n"] | None = None,
    obs_std: Float[Tensor, " n"] | None = None,
    members: Float[Tensor, "size n"] | None = None,
    *,
    variable: str = "field",
    units: str = "",
    long_name: str = "",
    standard_name: str = "",
    attributes: Mapping[str, object] | None = None,
) -> xr.Dataset:
    r"""Returns a map as a CF-1.8 dataset: mean, std and members, NaN where the grid is masked.

    Arguments:
        grid: The grid of the map, with :math:`n` nodes.
        mean: The mean of the field.
        std: The std of the field.
        obs_std: The std of a new datum: that of the field and of the noise.
        members: An ensemble of fields.
        variable: The name of the field: the others are ``V_std``, ``V_obs_std``, ``V_member``.
        units: The units of the field.
        long_name: The name of the field in words.
        standard_name: The CF standard name of the field.
        attributes: Provenance, e.g. ``command``, ``seed``, ``version``, ``history``.

    Example:
        >>> import torch
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> ds = map_dataset(grid, torch.zeros(6), torch.ones(6), variable="sst", units="degC")
        >>> list(ds), ds.sst.dims
        (['sst', 'sst_std'], ('latitude', 'longitude'))
    """
    name = cf_name(variable)
    words = long_name or variable
    fields: dict[str, tuple[Tensor | None, dict[str, str]]] = {
        name: (mean, {"long_name": words, "standard_name": standard_name}),
        f"{name}_std": (std, _error_attributes(words, standard_name, "standard deviation")),
        f"{name}_obs_std": (
            obs_std,
            {"long_name": f"standard deviation of a new datum of {words}"},
        ),
        f"{name}_member": (members, {"long_name": f"ensemble of {words}"}),
    }
    shown = {
        k: _variable(grid, v, {**a, "units": units})
        for k, (v, a) in fields.items()
        if v is not None
    }
    ds = xr.Dataset(shown, coords=_axes(grid), attrs=_provenance(attributes or {}))
    ancillary = " ".join(k for k in ds if k in {f"{name}_std", f"{name}_obs_std"})
    if ancillary:
        ds[name].attrs["ancillary_variables"] = ancillary
    return _with_realization(ds, name)


def cf_name(variable: str) -> str:
    r"""Returns a name that every reader of NetCDF accepts: letters, digits, underscores.

    Example:
        >>> cf_name("chl-a / total")
        'chl_a_total'
    """
    name = re.sub(r"\W+", "_", variable, flags=re.ASCII).strip("_") or "field"
    return name if name[0].isalpha() else f"v_{name}"


def _error_attributes(words: str, standard_name: str, kind: str) -> dict[str, str]:
    modified = f"{standard_name} standard_error" if standard_name else ""
    return {"long_name": f"{kind} of {words}", "standard_name": modified}


def _variable(grid: Grid, values: Tensor, attributes: Mapping[str, str]) -> xr.Variable:
    dims = tuple(CF_NAMES.get(k, k) for k in grid.dims)
    dims = ("realization", *dims) if values.ndim > 1 else dims
    field = grid.unflatten(values.detach().cpu()).numpy().astype(np.float32)
    return xr.Variable(dims, field, {k: v for k, v in attributes.items() if v})


def _axes(grid: Grid) -> dict[str, xr.Variable]:
    return {CF_NAMES.get(k, k): _axis(grid, k) for k in grid.dims}


def _axis(grid: Grid, name: str) -> xr.Variable:
    values, attributes = grid.axes[name].numpy(), dict(CF_AXES.get(name, {}))
    if name == "time":
        attributes["long_name"] = "time"
    if name != "time" or grid.epoch is None:
        return xr.Variable((CF_NAMES.get(name, name),), values, attributes)
    dates = grid.epoch + np.round(values * 86400e6).astype("timedelta64[us]")
    encoding = {"units": TIME_UNITS, "dtype": "float64", "calendar": "standard"}
    return xr.Variable((name,), dates.astype("datetime64[ns]"), attributes, encoding)


def _provenance(attributes: Mapping[str, object]) -> dict[str, object]:
    plain = {k: v for k, v in attributes.items() if v is not None}
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = plain.get("command")
    history = {"history": f"{created} {command}"} if command and "history" not in plain else {}
    return {"Conventions": "CF-1.8", **plain, **history, "date_created": created}


def _with_realization(ds: xr.Dataset, name: str) -> xr.Dataset:
    if f"{name}_member" not in ds:
        return ds
    number = np.arange(ds.sizes["realization"], dtype=np.int32)
    attributes = {"standard_name": "realization", "long_name": "member of the ensemble"}
    return ds.assign_coords(realization=xr.Variable(("realization",), number, attributes))


def check_output(path: str | Path, suffixes: Sequence[str] = (".nc", ".csv", ".parquet")) -> Path:
    r"""Returns an output path, refused before any work if it could not be written.

    Raises:
        InputError: If its suffix is not known, if its folder does not exist or cannot be written,
            or if it is a folder.

    Example:
        >>> check_output("map.png")
        Traceback (most recent call last):
        ...
        matheron.data.errors.InputError: check_output(path=map.png): expected a name ...
    """
    path = Path(path)
    where = call("check_output", path=path)
    if path.is_dir():
        raise refuse(
            where, "a file", "a folder", f"Name a file, e.g. {path / ('map' + suffixes[0])}"
        )
    if path.suffix.lower() not in suffixes:
        known, got = ", ".join(suffixes), f"'{path.suffix}'"
        cure = f"Rename it, e.g. {path.with_suffix(suffixes[0])}"
        raise refuse(where, f"a name that ends with {known}", got, cure)
    if not path.parent.is_dir():
        raise refuse(
            where, "an existing folder", f"'{path.parent}'", f"Make it: mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise refuse(
            where, "a folder that can be written", f"'{path.parent}'", "Choose another one"
        )
    return path


@contextlib.contextmanager
def whole_or_not(path: Path) -> Iterator[Path]:
    r"""Yields a temporary file beside ``path``, which takes its place if all goes well.

    Whatever happens, an interruption included, no temporary file is left.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    r"""Returns the permissions that new files are denied; temporary files are private."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_dataset(ds: xr.Dataset, path: str | Path, level: int = 4, pack: bool = False) -> Path:
    r"""Writes a dataset as compressed NetCDF, whole or not at all; returns its path.

    Arguments:
        ds: The dataset. Its floating variables are written in single precision.
        path: The file, replaced if it exists.
        level: The compression level, from 0 to 9.
        pack: Whether heights in m and speeds in m/s are written as 32-bit integers, in tenths of
            a millimetre, as the L4 products are.

    Raises:
        InputError: If the path cannot be written.
    """
    path = check_output(path, (".nc",))
    if pack:
        ds = ds.assign({k: v.astype(np.float64) for k, v in ds.data_vars.items() if _packs(v)})
    encoding = {str(k): _encoding(v, level, pack and _packs(v)) for k, v in ds.data_vars.items()}
    encoding |= {str(k): _axis_encoding(v) for k, v in ds.coords.items() if v.dtype.kind in "fM"}
    with whole_or_not(path) as temporary, ThreadPoolExecutor(1) as worker:
        # an interruption in the middle of a file would keep its locks shut, and hang at the end
        write = functools.partial(ds.to_netcdf, engine="netcdf4", encoding=encoding)
        worker.submit(write, temporary).result()
    return path


def _packs(variable: xr.DataArray) -> bool:
    return variable.dtype.kind == "f" and variable.attrs.get("units") in ("m", "m/s")


def _encoding(variable: xr.DataArray, level: int, pack: bool = False) -> dict[str, object]:
    if variable.dtype.kind != "f":
        return {}
    packed = {"dtype": "float32", "_FillValue": np.float32(np.nan)}
    if pack:
        packed = {"dtype": "int32", "_FillValue": np.int32(-2147483647), "scale_factor": STEP}
    return (
        {**packed, "zlib": level > 0, "complevel": level, "shuffle": True}
        if variable.ndim
        else packed
    )


def _axis_encoding(axis: xr.DataArray) -> dict[str, object]:
    kept = {k: axis.encoding[k] for k in ("units", "calendar", "dtype") if k in axis.encoding}
    return {**kept, "_FillValue": None}


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    r"""Writes a table as CSV or Parquet, whole or not at all; returns its path.

    Raises:
        InputError: If the path cannot be written.
    """
    path = check_output(path, (".csv", ".parquet"))
    with whole_or_not(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return path
