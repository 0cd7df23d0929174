r"""Files in: whatever the user has, as points and values ready for a prior.

Missing values are left out here, once; what was done to the data is said in ``notes``.
"""

from __future__ import annotations

__all__ = ["Groups", "Observations", "read"]

import numpy as np
import pandas as pd
import torch

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from jaxtyping import Bool, Float, Int
from pathlib import Path
from torch import Tensor
from typing import Any

from .checks import all_missing, check_coordinates, check_fill
from .errors import call, refuse
from .files import TABLES, check_file, expand
from .longitude import one_branch
from .missions import add_platform, date_files, label_missions
from .names import (
    CYCLES,
    GROUPS,
    MASKS,
    PASSES,
    clean,
    closest,
    find_name,
    find_noise,
    is_index,
)
from .netcdf import netcdf_source
from .quantity import quantity_of
from .source import Source, merge
from .tables import table_source
from .times import encode_time, epoch_of
from .topography import as_heights, check_quantities
from ..domain import Grid, Points


@dataclass(frozen=True)
class Groups:
    r"""The instrument that took each datum.

    Attributes:
        name: The column that says it, e.g. ``mission``.
        codes: The instrument of each datum, from 0, with shape :math:`(m)`.
        labels: The name of each instrument.
    """

    name: str
    codes: Int[Tensor, " m"]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Observations:
    r"""The data of a user: :math:`m` values at as many points, without any missing one.

    Attributes:
        points: Where, and when, the values are. Their covariates are the other columns that have
            no gap.
        values: The values, with shape :math:`(m)`.
        variable: The name of the variable.
        units: Its units, or nothing.
        long_name: Its name in words, or nothing.
        attributes: What else the file says of it, e.g. its ``standard_name``.
        names: The name of each axis in the file.
        rows: The row of each value in the file, or its node in the whole grid, from 0, with
            shape :math:`(m)`.
        dropped: The number of missing values that were left out.
        noise: The std of the error of each value, with shape :math:`(m)`, where the file has it.
        groups: The instrument of each value, where the file says it.
        passes: The pass of each value along the tracks, from 0, where the file says it.
        covariates: The other numeric columns, gaps included, each with shape :math:`(m)`.
        grid: The grid, where the values are a gridded field.
        mask_valid: Where the gridded field has values, with the shape of the grid.
        table: The table, where the file is one.
        files: The files.
        notes: What was done to the data, in words.
    """

    points: Points
    values: Float[Tensor, " m"]
    variable: str
    units: str
    long_name: str
    attributes: Mapping[str, str]
    names: Mapping[str, str]
    rows: Int[Tensor, " m"]
    dropped: int
    noise: Float[Tensor, " m"] | None = None
    groups: Groups | None = None
    passes: Int[Tensor, " m"] | None = None
    covariates: Mapping[str, Float[Tensor, " m"]] = field(default_factory=dict)
    grid: Grid | None = None
    mask_valid: Bool[Tensor, "*shape"] | None = None
    table: pd.DataFrame | None = None
    files: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def epoch(self) -> np.datetime64 | None:
        r"""The date of time 0, where times are dates."""
        return self.points.epoch

    @property
    def quantity(self) -> str:
        r"""Which sea level it is: ``"sla"``, ``"adt"``, ``"ssh"``, or ``"unknown"``."""
        return quantity_of(self.variable, self.attributes)

    @property
    def duplicates(self) -> int:
        r"""The number of values that differ from the first one at the very same coordinates.

        Without noise, no field goes through them all.
        """
        frame = pd.DataFrame(self.points.coords.numpy())
        first = frame.assign(v=self.values.numpy()).groupby(list(frame.columns))["v"]
        return int((first.transform("first").to_numpy() != self.values.numpy()).sum())


def read(
    path: str | Path | Sequence[str | Path],
    variable: str | None = None,
    *,
    time: str | None = None,
    lat: str | None = None,
    lon: str | None = None,
    x: str | None = None,
    y: str | None = None,
    z: str | None = None,
    noise: str | None = None,
    squeeze: bool = True,
    mdt: str | Path | None = None,
    lwe: str = "keep",
    quantity: str | None = None,
) -> Observations:
    r"""Returns the data of a CSV, Parquet or NetCDF file, or of several files of one kind.

    Tables, along-track files, swaths and gridded fields are told apart by themselves. Dates become
    days since the midnight before the first one; longitudes that straddle the seam of the file
    become one continuous branch; axes of a grid become increasing. The points of several files
    are sorted by time; where no column says the mission, each file is one, by its name. A long
    table of Copernicus Marine (``variable``, ``value``) is made wide first.

    Sea level anomalies (SLA), absolute dynamic topographies (ADT) and heights (SSH) are told by
    their names, and are not mixed: a mean dynamic topography turns one into the other. Of a swath
    only what has a value is kept; of one of sea level, no other field than ``variable`` is read.

    Arguments:
        path: A file, a pattern such as ``"tracks/*.nc"``, or a list of these.
        variable: The variable to read. It can be left out where there is only one.
        time: The name of the time in the file, where it is not a usual one.
        lat: The name of the latitude, likewise.
        lon: The name of the longitude, likewise.
        x: The name of the abscissa on the plane, which is then preferred to the longitude.
        y: The name of the ordinate on the plane, likewise.
        z: The name of the depth, which is a coordinate only if it is asked for.
        noise: The name of the std of the error, where it is not a usual one.
        squeeze: Whether the time of a gridded field with a single date is dropped.
        mdt: The mean dynamic topography, which turns anomalies into absolute topographies: a
            NetCDF file, interpolated to the data, or the column of the data that holds it.
        lwe: Whether to ``"keep"`` the long-wavelength correction of an along-track product, or to
            ``"remove"`` it: its column ``lwe`` is subtracted.
        quantity: The height that is wanted, ``"adt"`` or ``"sla"``. With ``mdt`` it is ``"adt"``
            by default, and ``"sla"`` subtracts the mean; without, it says what the data are.

    Raises:
        InputError: If the file cannot be used. The message is one line, with the cure.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "buoys.csv"
        ...     _ = file.write_text("Lon,Lat,sst\n359,43,14.5\n1,44,15.0\n2,44,\n")
        ...     data = read(file)
        >>> data.points.coords.tolist(), data.values.tolist()
        ([[43.0, -1.0], [44.0, 1.0]], [14.5, 15.0])
        >>> data.notes
        ['left out 1 missing value of 3', 'moved longitudes to one continuous branch']
    """
    asked = {"time": time, "lat": lat, "lon": lon, "x": x, "y": y, "z": z}
    files = expand(path)
    sources = [_open(file, variable, asked, noise) for file in files]
    as_heights(sources, mdt, lwe, quantity)
    check_quantities(sources)
    date_files(sources)
    label_missions(sources)
    return _assemble(merge(sources), noise, squeeze, tuple(files))


def _open(
    path: Path, variable: str | None, asked: Mapping[str, str | None], noise: str | None
) -> Source:
    opener = table_source if check_file(path) in TABLES else netcdf_source
    source = opener(path, variable, asked, noise)
    add_platform(source)
    return source


def _assemble(
    source: Source, noise: str | None, squeeze: bool, files: tuple[Path, ...]
) -> Observations:
    notes = source.notes
    rows = _kept(source)
    if squeeze:
        notes += _squeeze_time(source)
    coords, epoch = _coordinates(source, rows, notes)
    columns = {k: v[rows] for k, v in source.columns.items()}
    error = _noise(source, columns, noise, notes)
    covariates = _covariates(columns, error)
    whole = {k: v for k, v in covariates.items() if v.isfinite().all()}
    grid = _grid(source, epoch, list(whole)) if source.gridded else None
    valid = torch.as_tensor(np.isfinite(source.values))
    return Observations(
        points=Points(**coords, epoch=epoch, covariates=whole),
        values=torch.as_tensor(source.values[rows]),
        variable=source.variable,
        units=source.attributes.get("units", ""),
        long_name=source.attributes.get("long_name", ""),
        attributes=source.attributes,
        names=source.names,
        rows=torch.as_tensor(source.file_rows[rows]),
        dropped=source.size - rows.size,
        noise=None if error is None else torch.as_tensor(columns[error]),
        groups=_groups(columns),
        passes=_passes(columns),
        covariates=covariates,
        grid=grid,
        mask_valid=None if grid is None else valid.reshape(grid.shape),
        table=source.table,
        files=files,
        notes=notes,
    )


def _kept(source: Source) -> np.ndarray:
    r"""Returns the rows that have a value, and says how many have none."""
    check_fill(source.path, source.variable, source.values)
    rows, total = np.flatnonzero(np.isfinite(source.values)), source.size
    if rows.size == 0:
        raise all_missing(source.path, source.variable, total)
    if rows.size < total:
        gaps = total - rows.size
        source.notes.append(f"left out {gaps} missing value{'s' * (gaps > 1)} of {total}")
    values = source.values[rows]
    if rows.size > 1 and np.ptp(values) == 0:
        source.notes.append(f"every value is {values[0]:g}: the field is constant")
    return rows


def _covariates(columns: Mapping[str, np.ndarray], error: str | None) -> dict[str, Tensor]:
    r"""Returns the numeric columns that say something of the place, and not of the row."""
    apart = (*GROUPS, *PASSES, *CYCLES, *MASKS)
    return {
        k: torch.as_tensor(v)
        for k, v in columns.items()
        if v.dtype == np.float64 and k != error and clean(k) not in apart and not is_index(k)
    }


def _squeeze_time(source: Source) -> list[str]:
    r"""Drops the time of a gridded field that has a single date, and keeps the date in words."""
    time = source.axes.get("time", np.empty(0))
    if time.size != 1:
        return []
    for columns in (source.axes, source.coords, source.names):
        del columns["time"]
    date = str(time[0].astype("datetime64[s]")) if time.dtype.kind == "M" else f"{time[0]:g}"
    source.attributes["date"] = date
    return [f"a single date, {date}: time is dropped"]


def _coordinates(
    source: Source, rows: np.ndarray, notes: list[str]
) -> tuple[dict[str, Any], np.datetime64 | None]:
    coords = {k: v[rows] for k, v in source.coords.items()}
    where, told = call("read", path=source.path), source.file_rows[rows]
    check_coordinates(where, source.names, coords, told, source.degrees)
    if "lon" in coords and not source.gridded:
        moved = one_branch(coords["lon"])
        if not np.array_equal(moved, coords["lon"]):
            notes.append("moved longitudes to one continuous branch")
        coords["lon"] = moved
    time = coords.get("time")
    if time is None:
        return coords, None
    if time.dtype.kind != "M":
        notes.append("times are plain numbers, kept as they are")
        return coords, None
    epoch = epoch_of(source.axes.get("time", time))
    return {**coords, "time": encode_time(time, epoch)}, epoch


def _grid(source: Source, epoch: np.datetime64 | None, covariates: list[str]) -> Grid:
    axes: dict[str, Any] = {
        k: encode_time(v, epoch) if v.dtype.kind == "M" else v for k, v in source.axes.items()
    }
    grid = Grid(**axes, mask=source.sea, epoch=epoch)
    sea = slice(None) if grid.mask is None else grid.mask.numpy()
    whole = {k: source.columns[k] for k in covariates if np.isfinite(source.columns[k][sea]).all()}
    return Grid(**axes, mask=source.sea, epoch=epoch, covariates=whole)


def _noise(
    source: Source, columns: Mapping[str, np.ndarray], asked: str | None, notes: list[str]
) -> str | None:
    r"""Returns the column of error std: it must be sound where asked for, else it is left out."""
    columns = {k: v for k, v in columns.items() if v.dtype == np.float64}
    name = find_noise(source.variable, list(columns))
    if asked is not None:
        name = find_name(asked, list(columns))
        if name is None:
            known = f"a numeric column of {source.path}"
            raise refuse(call("read", noise=asked), known, f"'{asked}'", closest(asked, columns))
    if name is None:
        return None
    bad = int((~(np.isfinite(columns[name]) & (columns[name] >= 0))).sum())
    if bad == 0:
        notes.append(f"the noise std is '{name}'")
        return name
    if asked is not None:
        cure = "Repair the column, or give a noise std"
        raise refuse(call("read", noise=asked), "finite std >= 0", f"{bad} that are not", cure)
    notes.append(f"'{name}' is not used as noise: {bad} values are missing or negative")
    return None


def _groups(columns: Mapping[str, np.ndarray]) -> Groups | None:
    named = {clean(k): k for k in columns}
    name = next((named[g] for g in GROUPS if g in named), None)
    if name is None:
        return None
    labels = pd.Series(columns[name]).map(_label)
    codes, names = pd.factorize(labels, sort=True)
    return Groups(name, torch.as_tensor(codes.astype(np.int64)), tuple(map(str, names)))


def _label(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if np.isfinite(value) else "unknown"
    return "unknown" if value is None else str(value)


def _passes(columns: Mapping[str, np.ndarray]) -> Tensor | None:
    r"""Returns a number per pass: of one instrument, one cycle and one track."""
    named = {clean(k): k for k in columns}
    if not any(p in named for p in PASSES):
        return None
    kinds = (GROUPS, CYCLES, PASSES)
    keys = [next((named[n] for n in kind if n in named), None) for kind in kinds]
    frame = pd.DataFrame({i: columns[k] for i, k in enumerate(keys) if k is not None})
    codes = frame.groupby(list(frame.columns), dropna=False, sort=True).ngroup()
    return torch.as_tensor(np.array(codes, dtype=np.int64))
