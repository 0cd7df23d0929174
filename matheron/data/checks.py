r"""What makes coordinates and values unusable: each fault is refused by name, count and cure."""

from __future__ import annotations

__all__ = ["all_missing", "check_coordinates", "check_degrees", "check_fill", "numbers_of"]

import numpy as np
import pandas as pd

from collections.abc import Mapping

from .errors import InputError, call, refuse

FILLS = (
    *(-99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0, 999999.0),
    *(-128.0, -32768.0, -32767.0, 32767.0, -2147483648.0, -2147483647.0, 2147483647.0),
)
HUGE = 1e18


def numbers_of(path: object, argument: str, name: str, values: object) -> np.ndarray:
    r"""Returns a column as float64.

    Raises:
        InputError: If the column is not made of real numbers.

    Example:
        >>> numbers_of("a.csv", "variable", "adt", ["1.5", None])
        array([1.5, nan])
    """
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values).ravel())
    where = call("read", **{argument: name})
    kind = _kind(series)
    if kind is not None:
        cure = "Choose another column, or convert this one to numbers"
        raise refuse(where, f"numbers in {path}", kind, cure)
    if pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return _from_text(where, path, series)


def _kind(series: pd.Series) -> str | None:
    r"""Names the kind of a column that cannot hold measured values."""
    kinds = {
        "booleans": pd.api.types.is_bool_dtype,
        "complex numbers": pd.api.types.is_complex_dtype,
        "dates": pd.api.types.is_datetime64_any_dtype,
        "durations": pd.api.types.is_timedelta64_dtype,
        "categories": lambda dtype: isinstance(dtype, pd.CategoricalDtype),
    }
    return next((k for k, test in kinds.items() if test(series.dtype)), None)


def _from_text(where: str, path: object, series: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(series, errors="coerce")
    bad = numbers.isna() & series.notna()
    if bad.any():
        got = f"{int(bad.sum())} that are not, e.g. '{str(series[bad].iloc[0])[:40]}'"
        row = f"at row {_row(bad.to_numpy())}"
        cure = "Correct them, or choose a numeric column with --variable"
        raise refuse(where, f"numbers in {path}", f"{got} {row}", cure)
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _row(bad: np.ndarray) -> int:
    r"""Returns the number, from 1, of the first row at fault."""
    return int(np.flatnonzero(bad)[0]) + 1


def check_coordinates(
    where: str,
    names: Mapping[str, str],
    coords: Mapping[str, np.ndarray],
    rows: np.ndarray,
    units: str = "",
) -> None:
    r"""Refuses coordinates that are missing, infinite or not in degrees.

    Arguments:
        where: The function that refuses, with the argument and its value.
        names: The name of each axis in the file.
        coords: The coordinates by axis, each with shape :math:`(m)`.
        rows: The row of each datum in the file, from 0.
        units: The units of latitude and longitude, if the file states them.

    Raises:
        InputError: If a coordinate cannot be used.
    """
    for axis, values in coords.items():
        is_date = values.dtype.kind == "M"
        bad = np.isnat(values) if is_date else ~np.isfinite(values)
        if bad.any():
            got = f"{int(bad.sum())} missing or infinite, the first at row {rows[bad][0] + 1}"
            raise refuse(where, f"finite '{names[axis]}'", got, "Drop or repair those rows")
        if not is_date:
            _check_huge(where, names[axis], values)
    if {"lat", "lon"} <= coords.keys():
        check_degrees(where, coords["lat"], coords["lon"], units)


def _check_huge(where: str, name: str, values: np.ndarray) -> None:
    bad = np.abs(values) > HUGE
    if bad.any():
        got = f"{int(bad.sum())} times the fill value {values[bad][0]:.6g}"
        raise refuse(where, f"real '{name}'", got, "Drop those rows, or declare _FillValue")


def check_degrees(where: str, lat: np.ndarray, lon: np.ndarray, units: str = "") -> None:
    r"""Refuses latitudes and longitudes that are not degrees, or that are swapped.

    Raises:
        InputError: If they are out of range, or look like radians.

    Example:
        >>> check_degrees("read(path=a.csv)", np.array([120.0]), np.array([30.0]))
        Traceback (most recent call last):
        ...
        matheron.data.errors.InputError: read(path=a.csv): expected latitudes within +-90 ...
    """
    bad = ~(np.abs(lat) <= 90.0 + 1e-9)
    if bad.any():
        swapped = np.abs(lon).max() <= 90.0 and np.abs(lat).max() <= 360.0
        cure = "Latitude and longitude look swapped: exchange them" if swapped else _DEGREES
        got = f"{int(bad.sum())} outside, e.g. {lat[bad][0]:.6g}"
        raise refuse(where, "latitudes within +-90 degrees", got, cure)
    bad = ~(np.abs(lon) <= 360.0 + 1e-9)
    if bad.any():
        got = f"{int(bad.sum())} outside, e.g. {lon[bad][0]:.6g}"
        raise refuse(where, "longitudes within [-360, 360] degrees", got, _DEGREES)
    if "degree" not in units and ("radian" in units or _like_radians(lat, lon)):
        got = f"values up to {np.abs(lon).max():.6g} and {np.abs(lat).max():.6g}, as radians"
        raise refuse(where, "longitude and latitude in degrees", got, "Convert them to degrees")


_DEGREES = "Give degrees, or name projected coordinates with --x and --y"


def _like_radians(lat: np.ndarray, lon: np.ndarray) -> bool:
    r"""Tells a whole globe in radians; a small region in radians cannot be told from degrees."""
    if lat.size < 3 or np.abs(lat).max() > np.pi / 2 or np.abs(lon).max() > 2 * np.pi:
        return False
    around = np.ptp(lon) > 5.5 and (np.abs(lon).max() <= np.pi or lon.min() >= 0)
    return bool(around and np.ptp(lat) > 1.5)


def check_fill(path: object, variable: str, values: np.ndarray) -> None:
    r"""Refuses infinite values, and fill values that were not declared.

    A usual fill value is refused where it lies away from the other data, by more than their
    whole extent: a depth of -999 m among others is a depth.

    Raises:
        InputError: If such values are found.

    Example:
        >>> check_fill("a.nc", "sst", np.array([12.0, 13.0, -9999.0]))
        Traceback (most recent call last):
        ...
        matheron.data.errors.InputError: read(variable=sst): expected real values in a.nc, ...
    """
    where, real = call("read", variable=variable), f"real values in {path}"
    infinite = np.isinf(values)
    if infinite.any():
        got = f"{int(infinite.sum())} infinite, the first at row {_row(infinite)}"
        raise refuse(where, real, got, "Repair them, or set them to NaN to leave them out")
    fill = _fill_value(values[np.isfinite(values)])
    if fill is not None:
        got = f"{int((values == fill).sum())} times the fill value {fill:.7g}"
        raise refuse(where, real, got, "Declare it as _FillValue, or set it to NaN")


def _fill_value(values: np.ndarray) -> float | None:
    if values.size == 0:
        return None
    ends = (float(values.min()), float(values.max()))
    for end in ends:
        if abs(end) > HUGE:
            return end
        others = values[values != end]
        if _is_fill(end) and (others.size == 0 or _away(end, others)):
            return end
    return None


def _is_fill(value: float) -> bool:
    return any(abs(value - fill) <= 1e-6 * abs(fill) for fill in FILLS)


def _away(value: float, others: np.ndarray) -> bool:
    extent = float(np.ptp(others))
    distance = float(np.abs(others - value).min())
    return distance > max(extent, 10 * float(np.abs(others).max()) if extent == 0 else 0.0)


def all_missing(path: object, variable: str, count: int) -> InputError:
    r"""Returns the error of a variable without a single value."""
    if count == 0:
        return refuse(call("read", path=path), "at least one row", "none", "Check the file")
    got = f"{count} missing values"
    cure = "Check the file, its fill value and the variable"
    return refuse(call("read", variable=variable), f"values in {path}", got, cure)
