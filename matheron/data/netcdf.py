r"""NetCDF files: along-track data, swaths and gridded fields, told apart by their coordinates."""

from __future__ import annotations

__all__ = [
    "SPHERE",
    "coordinate_names",
    "mask_of",
    "netcdf_source",
    "netcdf_variables",
    "open_netcdf",
]

import contextlib
import numpy as np
import warnings
import xarray as xr

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from scipy.io import netcdf_file

from .checks import check_degrees, check_fill, numbers_of
from .errors import InputError, call, refuse
from .files import check_file
from .lattice import is_lattice, on_lattice, rectilinear
from .names import (
    CYCLES,
    INSTRUMENTS,
    LAND_IS_ONE,
    MASKS,
    PASSES,
    clean,
    find_coordinates,
    find_noise,
    is_flag,
    pick_variable,
    spare_coordinates,
)
from .quantity import principal, quantity_of
from .source import Source
from .times import decode_time

BROKEN = (OSError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, MemoryError)
"""What the readers raise on damaged files."""

SPHERE = ("lat", "lon")
Taker = Callable[[xr.Variable, xr.DataArray], np.ndarray]
SHARED = (
    *(*INSTRUMENTS, "title"),
    *("time_coverage_start", "time_coverage_begin", "time_coverage_end", "time_coverage_stop"),
)
KEPT = ("units", "long_name", "standard_name", "cell_methods", "comment")


@contextlib.contextmanager
def open_netcdf(path: str | Path) -> Iterator[xr.Dataset]:
    r"""Opens a NetCDF file: packed and fill values are decoded, times are not.

    Raises:
        InputError: If the file is absent, cut short, or not NetCDF.
    """
    path = Path(path)
    kind = check_file(path)
    if kind != "netcdf":
        cure = "Give a file that ends with .nc"
        raise refuse(call("read", path=path), "a NetCDF file", f"a {kind} file", cure)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)
            _check_classic(path)
            ds = xr.open_dataset(path, engine="netcdf4", decode_times=False)
    except BROKEN as error:
        raise _broken(path, error) from error
    try:
        yield ds
    except (OSError, RuntimeError) as error:  # values are read late: a damaged block shows here
        raise _broken(path, error) from error
    finally:
        ds.close()


def _broken(path: Path, error: Exception) -> InputError:
    got = f"a file that cannot be read ({str(error)[:80] or type(error).__name__})"
    cure = "Download or write it again"
    return refuse(call("read", path=path), "a whole NetCDF file", got, cure)


def _check_classic(path: Path) -> None:
    r"""Raises where a classic file is cut short: its reader would give zeros for the rest."""
    with path.open("rb") as file:
        if file.read(4) in (b"CDF\x01", b"CDF\x02"):
            file.seek(0)
            netcdf_file(file, mmap=False).close()


def netcdf_source(
    path: Path, variable: str | None, asked: Mapping[str, str | None], noise: str | None = None
) -> Source:
    r"""Returns a NetCDF file as columns, with its axes where it is a gridded field.

    Raises:
        InputError: If the file, its coordinates or its variable cannot be used.
    """
    with open_netcdf(path) as ds:
        names = coordinate_names(path, ds, asked)
        others, candidates = _candidates(ds, names)
        left = principal([c for c in candidates if c != noise])
        chosen = pick_variable(path, variable, left, others)
        ds, notes = _tidy(path, ds, names, chosen)
        unread = _unread(candidates, chosen, noise)
        source = _read(path, ds, names, chosen, unread)
        source.notes = notes + source.notes
        return source


def netcdf_variables(path: Path, asked: Mapping[str, str | None]) -> list[str]:
    r"""Returns the variables of a NetCDF file that can be read."""
    with open_netcdf(path) as ds:
        return _candidates(ds, coordinate_names(path, ds, asked))[1]


def _candidates(ds: xr.Dataset, names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    r"""Returns the variables that are no coordinates, and those among them that are measured."""
    others = [str(n) for n in ds.variables if n not in names.values() and n not in ds.dims]
    spare = spare_coordinates(others)
    return others, [n for n in others if n not in spare and _measures(ds, n, names)]


def coordinate_names(
    path: Path, ds: xr.Dataset, asked: Mapping[str, str | None]
) -> dict[str, str]:
    r"""Returns which variable holds each coordinate."""
    attributes = {str(n): v.attrs for n, v in ds.variables.items()}
    return find_coordinates(path, [str(n) for n in ds.variables], asked, attributes)


def _measures(ds: xr.Dataset, name: str, names: Mapping[str, str]) -> bool:
    r"""Tells a measured variable, on the dims of the coordinates, from flags and parameters."""
    v = ds[name]
    located = set.union(*(set(ds[n].dims) for k, n in names.items() if k != "time"))
    apart = is_flag(name) or clean(name) in (*PASSES, *CYCLES) or "flag_values" in v.attrs
    return v.dtype.kind in "fiu" and not apart and v.size > 0 and located <= set(v.dims)


def _unread(candidates: Sequence[str], chosen: str, noise: str | None) -> set[str]:
    r"""Returns the other fields of a swath of sea level, that fill the memory for nothing.

    What corrects or weighs the chosen one is none of them.
    """
    if quantity_of(chosen) == "unknown":
        return set()
    kept = {chosen, noise, find_noise(chosen, candidates)}
    kept |= {c for c in candidates if clean(c) in ("lwe", "mdt")}
    return set(candidates) - kept


def _tidy(
    path: Path, ds: xr.Dataset, names: dict[str, str], chosen: str
) -> tuple[xr.Dataset, list[str]]:
    r"""Drops axes of one level that are no coordinate, and makes a lone time an axis."""
    ds, notes = _tidy_time(ds, names, chosen)
    used = {d for n in names.values() for d in ds[n].dims}
    extra = [str(d) for d in ds[chosen].dims if d not in used]
    large = [d for d in extra if ds.sizes[d] > 1]
    if large:
        raise refuse(
            call("read", variable=chosen),
            f"a field on {', '.join(names.values())} in {path}",
            f"another axis '{large[0]}' of size {ds.sizes[large[0]]}",
            f"Select one level first, e.g. ds.isel({large[0]}=0)",
        )
    ds = ds.isel(dict.fromkeys(extra, 0))
    return ds, [*notes, *(f"took the only level of '{d}'" for d in extra)]


def _tidy_time(ds: xr.Dataset, names: dict[str, str], chosen: str) -> tuple[xr.Dataset, list[str]]:
    name = names.get("time", "")
    if name not in ds.variables or (ds[name].ndim and set(ds[name].dims) <= set(ds[chosen].dims)):
        return ds, []
    if ds[name].size > 1:
        del names["time"]
        return ds, [f"'{chosen}' does not depend on '{name}'"]
    ds = ds.set_coords(list(names.values()))
    return ds.isel(dict.fromkeys(ds[name].dims, 0)).expand_dims(name), []


def _read(
    path: Path, ds: xr.Dataset, names: dict[str, str], chosen: str, unread: set[str]
) -> Source:
    degrees = "".join(str(ds[n].attrs.get("units", "")) for k, n in names.items() if k in SPHERE)
    if set(SPHERE) <= names.keys():
        lat, lon = (numbers_of(path, k, names[k], ds[names[k]].values) for k in SPHERE)
        lat, lon = lat[np.isfinite(lat)], lon[np.isfinite(lon)]
        check_degrees(call("read", path=path), lat, lon, degrees.lower())
    ds = rectilinear(ds, names)
    notes: list[str] = []
    gridded = is_lattice(ds, names, chosen)
    if gridded:
        ds, notes = on_lattice(path, ds, names, chosen)
    if not gridded and ds[chosen].ndim > 1:
        ds = ds.drop_vars(unread)
    source = _flat(path, ds, names, chosen, gridded)
    source.degrees = degrees.lower()
    source.notes = [*notes, *_unpack(path, ds[chosen], source)]
    if gridded:
        source.axes = {k: _coordinate(path, k, ds[n], _spread, ds[n]) for k, n in names.items()}
        source.sea = _sea(ds, names, source)
    return source


def _flat(path: Path, ds: xr.Dataset, names: dict[str, str], chosen: str, gridded: bool) -> Source:
    r"""Returns the columns of a file, whole; those of a swath where it has values only."""
    like = ds[chosen]
    _check_dims(ds, names, chosen)
    values = numbers_of(path, "variable", chosen, like.values)
    kept = None if gridded or like.ndim < 2 else np.flatnonzero(~np.isnan(values))
    take = _spread if kept is None else _picker(kept, like)
    others = [str(n) for n in ds.variables if n not in (*names.values(), chosen)]
    wide = [n for n in others if ds[n].dims and set(ds[n].dims) <= set(like.dims)]
    return Source(
        path=path,
        variable=chosen,
        coords={k: _coordinate(path, k, ds[n], take, like) for k, n in names.items()},
        names=names,
        values=values if kept is None else values[kept],
        columns={n: _column(ds[n], take, like) for n in wide if n not in like.dims},
        attributes=_attributes(ds, chosen),
        rows=kept,
        total=values.size,
    )


def _check_dims(ds: xr.Dataset, names: Mapping[str, str], chosen: str) -> None:
    dims = ds[chosen].dims
    for k, n in names.items():
        if not set(ds[n].dims) <= set(dims):
            raise refuse(
                call("read", variable=chosen),
                f"a variable on the dims of '{n}' {ds[n].dims}",
                str(dims),
                f"Choose another variable, or name the coordinates, e.g. --{k} NAME",
            )


def _coordinate(
    path: Path, axis: str, da: xr.DataArray, take: Taker, like: xr.DataArray
) -> np.ndarray:
    if axis == "time":
        units, calendar = da.attrs.get("units", ""), da.attrs.get("calendar", "standard")
        flat = decode_time(path, da.values, str(units), str(calendar))
    else:
        flat = numbers_of(path, axis, str(da.name), da.values)
    return take(xr.Variable(da.dims, flat.reshape(da.shape)), like)


def _spread(variable: xr.Variable, like: xr.DataArray) -> np.ndarray:
    r"""Returns a variable on fewer dims, repeated over the dims of another; matched by name."""
    variable = variable.set_dims(dict(zip(like.dims, like.shape, strict=True)))
    return np.ascontiguousarray(variable.transpose(*like.dims).values).ravel()


def _picker(kept: np.ndarray, like: xr.DataArray) -> Taker:
    r"""Returns what takes a variable on some dims of another at some nodes; matched by name."""
    index = dict(zip(like.dims, np.unravel_index(kept, like.shape), strict=True))

    def take(variable: xr.Variable, _like: xr.DataArray) -> np.ndarray:
        values = np.asarray(variable.values)
        return values[tuple(index[d] for d in variable.dims)] if variable.dims else values

    return take


def _column(da: xr.DataArray, take: Taker, like: xr.DataArray) -> np.ndarray:
    values = take(da.variable, like)
    return values.astype(np.float64) if values.dtype.kind in "fiu" else values.astype(object)


def _attributes(ds: xr.Dataset, chosen: str) -> dict[str, str]:
    own = {k: str(ds[chosen].attrs[k]) for k in KEPT if k in ds[chosen].attrs}
    if "units" not in own and "unit" in ds[chosen].attrs:
        own["units"] = str(ds[chosen].attrs["unit"])
    shared = {k: str(v) for k, v in ds.attrs.items() if str(k).lower() in SHARED}
    return {**shared, **own}


def _unpack(path: Path, da: xr.DataArray, source: Source) -> list[str]:
    r"""Sets values out of the valid range to NaN, and refuses a fill value that was packed."""
    notes = []
    scale = da.encoding.get("scale_factor", 1.0)
    offset = da.encoding.get("add_offset", 0.0)
    packed = "scale_factor" in da.encoding or "add_offset" in da.encoding
    if packed:
        notes.append(f"unpacked '{source.variable}' (scale {scale:g}, offset {offset:g})")
        check_fill(path, source.variable, np.round((source.values - offset) / scale, 6))
    low, high = _valid_range(da, scale, offset, packed)
    slack = 0.5 * abs(scale) if packed else 0.0
    outside = (source.values < low - slack) | (source.values > high + slack)
    if outside.any() and low < high and outside.sum() < 0.5 * np.isfinite(source.values).sum():
        source.values = np.where(outside, np.nan, source.values)
        notes.append(f"left out {int(outside.sum())} values outside valid_range")
    return notes


def _valid_range(
    da: xr.DataArray, scale: float, offset: float, packed: bool
) -> tuple[float, float]:
    ends = da.attrs.get("valid_range", (-np.inf, np.inf))
    low, high = da.attrs.get("valid_min", ends[0]), da.attrs.get("valid_max", ends[-1])
    try:
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        return -np.inf, np.inf
    # In a packed variable the range is packed too (CF 2.5.1), but for files that break the rule.
    is_packed = packed and low % 1 == 0 and high % 1 == 0
    ends = (low * scale + offset, high * scale + offset) if is_packed else (low, high)
    return min(ends), max(ends)


def _sea(ds: xr.Dataset, names: dict[str, str], source: Source) -> np.ndarray | None:
    seen = np.isfinite(source.values).reshape([a.size for a in source.axes.values()])
    seen = seen.any(axis=0) if "time" in names else seen
    sea = mask_of(ds, [str(ds[n].dims[0]) for k, n in names.items() if k != "time"], seen)
    if sea is not None:
        source.notes.append("a mask tells sea from land")
    return sea


def mask_of(
    ds: xr.Dataset, dims: Sequence[str], seen: np.ndarray | None = None
) -> np.ndarray | None:
    r"""Returns where a field exists, from a mask of zeros and ones on the spatial dims.

    Which of the two is sea is told by the data, that are not on land (but for one in a hundred,
    at the coast, which are then sea); where these do not tell, by the name of the mask.
    """
    for name in ds.variables:
        if clean(name) not in MASKS or set(ds[name].dims) != set(dims):
            continue
        mask = ds[name].transpose(*dims).values
        if np.isin(mask, (0, 1)).all() and 0 < mask.sum() < mask.size:
            return _sea_side(mask == 1, clean(name) in LAND_IS_ONE, seen)
    return None


def _sea_side(one: np.ndarray, land_is_one: bool, seen: np.ndarray | None) -> np.ndarray:
    if seen is None or not seen.any() or 0.01 <= one[seen].mean() <= 0.99:
        return ~one if land_is_one else one
    return (one if one[seen].mean() > 0.5 else ~one) | seen
