r"""Where to map: the grid or the points that a user asks for, in the frame of the data."""

from __future__ import annotations

__all__ = ["MOST", "parse_grid", "read_points"]

import math
import numpy as np
import pandas as pd
import re
import xarray as xr

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checks import check_coordinates, numbers_of
from .errors import InputError, call, refuse
from .files import FORMATS, TABLES, check_file, format_of
from .longitude import one_branch, same_branch
from .names import find_coordinates, find_name
from .netcdf import coordinate_names, mask_of, open_netcdf
from .read import Observations
from .tables import open_table
from .times import decode_time, encode_time
from ..domain import Grid, Points

MOST = 20_000_000
"""The largest number of nodes of a grid."""

DATE = r"\d{4}-\d{2}-\d{2}(?:T\d{2}(?::\d{2}){0,2})?"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
UNITS = {"": 1.0, "d": 1.0, "h": 1 / 24, "min": 1 / 1440, "s": 1 / 86400}
SPAN = re.compile(rf"({DATE}|{NUMBER}):({DATE}|{NUMBER}):({NUMBER})(d|h|min|s)?")


def parse_grid(text: str, data: Observations, like_file: str | Path | None = None) -> Grid:
    r"""Returns the grid that a user asks for, on the longitude branch and from the epoch of data.

    Arguments:
        text: ``"same"``, a NetCDF file, or spans ``lon0:lon1:step,lat0:lat1:step`` (on the plane,
            ``x0:x1:step,y0:y1:step``). Where the data have a time, a third span gives the dates
            and the step in days, or as ``6h``: ``2014-05-15:2014-06-03:1``.
        data: The data to map.
        like_file: The gridded file that ``"same"`` means, where it is not the data.

    Raises:
        InputError: If the grid is not understood, is too large, or lacks the time of the data.

    Example:
        >>> import tempfile
        >>> from matheron.data import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "tracks.csv"
        ...     _ = file.write_text("date,lon,lat,adt\n2014-05-15,-3,36,0.1\n2014-05-17,-2,37,0\n")
        ...     data = read(file)
        >>> parse_grid("-6:0:0.5,35:40:0.5,2014-05-15:2014-05-17:1", data)
        Grid(time: 3, lat: 11, lon: 13, metric='sphere')
    """
    text = text.strip()
    if not text:
        cure = f"Write e.g. --grid {_example(data)}"
        raise refuse(call("parse_grid", grid="''"), "'same', a file, or spans", "nothing", cure)
    if text == "same" and like_file is None:
        return _same(data)
    path = str(like_file) if text == "same" else text
    if Path(path).suffix.lower() in FORMATS or Path(path).exists():
        return _from_file(Path(path), data)
    return _from_spans(text, data)


def _same(data: Observations) -> Grid:
    if data.grid is not None:
        return data.grid
    raise refuse(
        call("parse_grid", grid="same"),
        "data on a grid",
        f"{len(data)} points",
        f"Give a file, or spans, e.g. --grid {_example(data)}",
    )


def _example(data: Observations) -> str:
    r"""Returns spans that cover the data, as a user would write them."""
    spans = [_span_around(data.points.axis(k).numpy()) for k in _asked_order(data)]
    if "time" in data.points.dims:
        spans.append(_dates_around(data))
    return ",".join(spans)


def _asked_order(data: Observations) -> list[str]:
    r"""Returns the axes of space as users write them: abscissa first."""
    return [k for k in reversed(data.points.dims) if k != "time"]


def _span_around(values: np.ndarray) -> str:
    extent = float(np.ptp(values)) or 1.0
    step = 10.0 ** math.floor(math.log10(extent / 20))
    low, high = math.floor(values.min() / step) * step, math.ceil(values.max() / step) * step
    return f"{low:.10g}:{high:.10g}:{step:.10g}"


def _dates_around(data: Observations) -> str:
    time = data.points.axis("time").numpy()
    if data.epoch is None:
        return _span_around(time)
    ends = (data.epoch + np.timedelta64(math.floor(t), "D") for t in (time.min(), time.max()))
    return ":".join(str(e.astype("datetime64[D]")) for e in ends) + ":1"


def _from_spans(text: str, data: Observations) -> Grid:
    where, names = call("parse_grid", grid=text), _asked_order(data)
    parts = [p.strip() for p in text.split(",")]
    asked = [*names, "time"] if "time" in data.points.dims else names
    if len(parts) == len(names) and len(asked) > len(names):
        got = f"{', '.join(names)} only, and data with a time"
        cure = f"Add the dates, e.g. ,{_dates_around(data)}"
        raise refuse(where, "a span of time too", got, cure)
    if len(parts) != len(asked):
        expected = f"'same', a file, or {len(asked)} spans first:last:step for {', '.join(asked)}"
        cure = f"Write e.g. --grid {_example(data)}"
        raise refuse(where, expected, f"{len(parts)}: '{text}'", cure)
    spans = {k: _span(where, k, p, data) for k, p in zip(asked, parts, strict=True)}
    _check_size(where, math.prod(_count(s) for s in spans.values()))
    axes = {k: s[0] + s[2] * np.arange(_count(s)) for k, s in spans.items()}
    return _grid(where, axes, data)


def _span(where: str, axis: str, part: str, data: Observations) -> tuple[float, float, float]:
    found = SPAN.fullmatch(part)
    if found is None:
        cure = f"Write e.g. --grid {_example(data)}"
        raise refuse(where, f"first:last:step for '{axis}'", f"'{part}'", cure)
    first, last, step, unit = found.groups()
    if unit is not None and (axis != "time" or data.epoch is None):
        raise refuse(where, f"a step in the units of '{axis}'", f"'{step}{unit}'", "Drop the unit")
    low, high = (_end(where, axis, e, data) for e in (first, last))
    if high < low:
        cure = "Put the smaller first; across the dateline count on, e.g. 170:190:1"
        raise refuse(where, f"first <= last for '{axis}'", f"'{part}'", cure)
    if float(step) <= 0:
        raise refuse(where, f"a step > 0 for '{axis}'", f"'{step}'", "Give a positive step")
    return low, high, float(step) * UNITS[unit or ""]


def _end(where: str, axis: str, text: str, data: Observations) -> float:
    is_date = re.fullmatch(DATE, text) is not None
    if axis != "time":
        if is_date:
            raise refuse(where, f"numbers for '{axis}'", f"'{text}'", "Put the dates last")
        return float(text)
    if is_date and data.epoch is None:
        raise refuse(where, "times as numbers, as in the data", f"'{text}'", "Give numbers")
    if not is_date and data.epoch is not None:
        cure = f"Write dates, e.g. {_dates_around(data)}"
        raise refuse(where, "dates, as in the data", f"'{text}'", cure)
    return _date(where, text, data.epoch) if data.epoch is not None else float(text)


def _date(where: str, text: str, epoch: np.datetime64) -> float:
    try:
        return float((np.datetime64(text, "ns") - epoch) / np.timedelta64(1, "D"))
    except ValueError as error:
        raise refuse(where, "a date of the calendar", f"'{text}'", "Correct it") from error


def _count(span: tuple[float, float, float]) -> int:
    low, high, step = span
    return math.floor((high - low) / step + 1e-6) + 1


def _check_size(where: str, size: int) -> None:
    if size > MOST:
        cure = "Take a larger step, or map in parts"
        raise refuse(where, f"at most {MOST:.0e} nodes", f"{size:.3g}", cure)


def _grid(
    where: str,
    axes: dict[str, Any],
    data: Observations,
    mask: np.ndarray | None = None,
    covariates: Mapping[str, np.ndarray] | None = None,
) -> Grid:
    if "lon" in axes:
        axes["lon"] = same_branch(axes["lon"], data.points.axis("lon").numpy())
    epoch = data.epoch if "time" in axes else None
    try:
        return Grid(**axes, mask=mask, epoch=epoch, covariates=covariates)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise InputError(msg) from error


def _from_file(path: Path, data: Observations) -> Grid:
    r"""Returns the grid of a NetCDF file: its axes, and its mask where it has one."""
    where = call("parse_grid", grid=path)
    if check_file(path) in TABLES:
        cure = f"Give a NetCDF file, or use --at {path}"
        raise refuse(where, "a file with a grid", "a table of points", cure)
    with open_netcdf(path) as ds:
        asked = {k: v for k, v in data.names.items() if find_name(v, list(map(str, ds.variables)))}
        plane = {k: None for k in ("x", "y")} if "x" in data.points.dims else {}
        names = coordinate_names(path, ds, {**plane, **asked})
        names = {k: n for k, n in names.items() if k in data.points.dims}
        _check_axes(where, ds, names, data)
        axes = {k: _file_axis(path, k, ds[n], data) for k, n in names.items()}
        order = {k: np.argsort(v, kind="stable") for k, v in axes.items()}
        mask = mask_of(ds, [str(ds[n].dims[0]) for k, n in names.items() if k != "time"])
    _check_size(where, math.prod(a.size for a in axes.values()))
    axes = {k: v[order[k]] for k, v in axes.items()}
    mask = None if mask is None else mask[np.ix_(*(order[k] for k in axes if k != "time"))]
    return _grid(where, axes, data, mask)


def _check_axes(where: str, ds: xr.Dataset, names: Mapping[str, str], data: Observations) -> None:
    missing = [k for k in data.points.dims if k not in names]
    if missing:
        raise refuse(
            where,
            f"the axes {', '.join(data.points.dims)} of the data",
            f"no '{missing[0]}'",
            f"Add it to the file, or give spans, e.g. --grid {_example(data)}",
        )
    for axis, name in names.items():
        dims = ds[name].dims
        if len(dims) > 1:
            got, cure = f"'{name}' on {dims}", "Use --at with a table of its points"
            raise refuse(where, f"a 1-D axis '{axis}'", got, cure)


def _file_axis(path: Path, axis: str, da: xr.DataArray, data: Observations) -> np.ndarray:
    values = np.atleast_1d(da.values)
    if axis != "time":
        numbers = numbers_of(path, axis, str(da.name), values)
        return one_branch(numbers) if axis == "lon" else numbers
    units, calendar = da.attrs.get("units", ""), da.attrs.get("calendar", "standard")
    return _times(call("parse_grid", grid=path), decode_time(path, values, units, calendar), data)


def _times(where: str, times: np.ndarray, data: Observations) -> np.ndarray:
    r"""Returns times from the epoch of the data: both must be dates, or both numbers."""
    is_date = times.dtype.kind == "M"
    if is_date != (data.epoch is not None):
        kinds = {True: "dates", False: "plain numbers"}
        cure = "Write the times of both files alike"
        raise refuse(where, f"times as {kinds[not is_date]}, as in the data", kinds[is_date], cure)
    return encode_time(times, data.epoch) if is_date and data.epoch is not None else times


def read_points(path: str | Path, like: Observations) -> tuple[Points, pd.DataFrame]:
    r"""Returns the points of a table, in the frame of the data, and the table itself.

    Numeric columns without a gap become covariates of the points.

    Arguments:
        path: A CSV or Parquet table, with the coordinates of the data.
        like: The data: their names of coordinates, longitude branch and epoch are followed.

    Raises:
        InputError: If the table cannot be used; missing coordinates are told by row.
    """
    where = call("read_points", path=path)
    if format_of(path, where) not in TABLES:
        cure = f"Write the points as a table, or use --grid {path}"
        raise refuse(where, "a CSV or Parquet table", "a NetCDF file", cure)
    table = open_table(path)
    names = _point_names(Path(path), table, like)
    coords: dict[str, Any] = {
        k: _point_column(Path(path), k, table[n], like) for k, n in names.items()
    }
    check_coordinates(where, names, coords, np.arange(len(table)))
    if "lon" in coords:
        moved = one_branch(coords["lon"])
        coords["lon"] = same_branch(moved, like.points.axis("lon").numpy())
    covariates = _whole_columns(table.drop(columns=list(names.values())))
    epoch = like.epoch if "time" in coords else None
    return Points(**coords, epoch=epoch, covariates=covariates), table


def _whole_columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    r"""Returns the numeric columns that have no gap."""
    numbers = table.select_dtypes("number").astype(np.float64)
    return {str(k): np.array(v) for k, v in numbers.items() if np.isfinite(v).all()}


def _point_names(path: Path, table: pd.DataFrame, like: Observations) -> dict[str, str]:
    columns = [str(c) for c in table.columns]
    known = {k: find_name(v, columns) for k, v in like.names.items()}
    asked = {k: v for k, v in known.items() if v is not None}
    found = asked if len(asked) == len(like.names) else find_coordinates(path, columns, asked, {})
    missing = [k for k in like.points.dims if k not in found]
    if missing:
        expected = f"the coordinates {', '.join(like.points.dims)} of the data"
        got = f"no '{missing[0]}' among {', '.join(columns)}"
        cure = f"Add the column '{missing[0]}'"
        raise refuse(call("read_points", path=path), expected, got, cure)
    return {k: found[k] for k in like.points.dims}


def _point_column(path: Path, axis: str, column: pd.Series, like: Observations) -> np.ndarray:
    if axis != "time":
        return numbers_of(path, axis, str(column.name), column)
    return _times(call("read_points", path=path), decode_time(path, column), like)
