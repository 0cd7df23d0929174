r"""Times, however they are written, as dates or as plain numbers."""

from __future__ import annotations

__all__ = ["decode_time", "encode_time", "epoch_of"]

import numpy as np
import pandas as pd
import re
import xarray as xr

from .errors import call, refuse

STANDARD = ("standard", "gregorian", "proleptic_gregorian")


def decode_time(
    path: object, values: object, units: str = "", calendar: str = "standard"
) -> np.ndarray:
    r"""Returns times as ``datetime64[ns]``, or as float64 where they are plain numbers.

    Dates are ISO 8601 strings, datetimes, integers such as 20140515, or numbers with CF units
    (``"seconds since 2016-08-04"``). Times with a zone are turned to UTC.

    Arguments:
        path: The file, for the error.
        values: The times.
        units: The CF units, if any.
        calendar: The CF calendar.

    Raises:
        InputError: If the times cannot be understood.

    Example:
        >>> decode_time("a.nc", [0, 12], "hours since 1950-01-01").astype("datetime64[h]").tolist()
        [datetime.datetime(1950, 1, 1, 0, 0), datetime.datetime(1950, 1, 1, 12, 0)]
    """
    series = pd.Series(np.asarray(values).ravel()) if not isinstance(values, pd.Series) else values
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return _naive(path, series)
    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_complex_dtype(series.dtype):
        raise _unparsable(path, series.iloc[0] if len(series) else series.dtype)
    if not pd.api.types.is_numeric_dtype(series.dtype):
        return _from_strings(path, series)
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    if " since " in units:
        return _from_units(path, numbers, units, calendar)
    return _from_integers(path, numbers) if _looks_like_dates(numbers) else numbers


def _naive(path: object, series: pd.Series) -> np.ndarray:
    if series.dt.tz is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    try:
        return np.array(series.dt.as_unit("ns"), dtype="datetime64[ns]")
    except (OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        got = f"{series.min().isoformat()} to {series.max().isoformat()}"
        cure = "Correct the dates that are wrong"
        raise refuse(call("read", path=path), "dates from 1678 to 2262", got, cure) from error


def _from_strings(path: object, series: pd.Series) -> np.ndarray:
    texts = series.map(_iso)
    dates = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    bad = dates.isna() & texts.notna()
    if not bad.any() and texts.map(_has_year).all():
        return _naive(path, dates)
    numbers = pd.to_numeric(texts, errors="coerce")
    if not numbers.isna().any():
        return numbers.to_numpy(dtype=np.float64)
    raise _unparsable(path, texts[bad].iloc[0] if bad.any() else texts.iloc[0])


def _iso(value: object) -> object:
    r"""Returns a date with dashes, where it is written 2014/05/15; any other value as it is."""
    text = value.decode() if isinstance(value, bytes) else value
    return (
        re.sub(r"^(\d{4})/(\d{2})/(\d{2})", r"\1-\2-\3", text) if isinstance(text, str) else text
    )


def _has_year(value: object) -> bool:
    r"""Tells a date from a bare clock time, to which a parser would add today's date."""
    return not isinstance(value, str) or "-" in value or len(value) == 8


def _unparsable(path: object, value: object) -> Exception:
    return refuse(
        call("read", path=path),
        "times as numbers or ISO dates",
        f"'{value}'",
        "Write dates as 2014-05-15T04:12:04",
    )


def _from_units(path: object, numbers: np.ndarray, units: str, calendar: str) -> np.ndarray:
    if calendar.lower() not in STANDARD:
        raise refuse(
            call("read", path=path),
            "times on the standard calendar",
            f"calendar '{calendar}'",
            "Convert them first, e.g. ds.convert_calendar('standard')",
        )
    dates = np.full(numbers.shape, np.datetime64("NaT", "ns"))
    valid = np.isfinite(numbers)
    try:
        decoded = xr.coding.times.decode_cf_datetime(
            numbers[valid], units, "proleptic_gregorian", use_cftime=False
        )
    except (ValueError, KeyError, OverflowError) as error:
        raise refuse(
            call("read", path=path),
            f"times in '{units}'",
            f"values from {np.nanmin(numbers):.6g} to {np.nanmax(numbers):.6g}",
            "Check the units and the fill value of time",
        ) from error
    dates[valid] = decoded.astype("datetime64[ns]")
    return dates


def _looks_like_dates(numbers: np.ndarray) -> bool:
    r"""Tells integers such as 20140515 from counts of days or seconds."""
    if numbers.size == 0 or not np.isfinite(numbers).all() or (numbers % 1 != 0).any():
        return False
    month, day = numbers // 100 % 100, numbers % 100
    inside = (numbers >= 18000101) & (numbers <= 22001231)
    return bool((inside & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _from_integers(path: object, numbers: np.ndarray) -> np.ndarray:
    texts = pd.Series(numbers.astype(np.int64).astype(str))
    dates = pd.to_datetime(texts, format="%Y%m%d", errors="coerce")
    if dates.isna().any():
        raise _unparsable(path, texts[dates.isna()].iloc[0])
    return _naive(path, dates)


def epoch_of(dates: np.ndarray) -> np.datetime64:
    r"""Returns the midnight before the first date.

    Example:
        >>> str(epoch_of(np.array(["2014-05-16T03", "2014-05-15T04"], "datetime64[ns]")))[:16]
        '2014-05-15T00:00'
    """
    return np.nanmin(dates).astype("datetime64[D]").astype("datetime64[ns]")


def encode_time(dates: np.ndarray, epoch: np.datetime64 | None) -> np.ndarray:
    r"""Returns dates as days since ``epoch``, NaN where a date is missing.

    Example:
        >>> encode_time(np.array(["2014-05-15T06:00"], "M8[ns]"), np.datetime64("2014-05-14"))
        array([1.25])
    """
    return (dates.astype("datetime64[ns]") - epoch) / np.timedelta64(1, "D")
