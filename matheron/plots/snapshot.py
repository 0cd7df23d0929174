r"""Fields and data of one day, read from labelled arrays, and the currents of a height."""

from __future__ import annotations

__all__ = [
    "Quantity",
    "Sites",
    "as_field",
    "at_day",
    "at_nodes",
    "call",
    "currents",
    "image_of",
    "lattice_of",
    "refusal",
    "sites_of",
    "titled",
]

import numpy as np
import pandas as pd
import xarray as xr

from collections.abc import Mapping, Sequence
from jaxtyping import Float
from numpy import ndarray
from typing import Literal, NamedTuple, TypeAlias

from ..domain import EARTH_RADIUS, Grid

Quantity = Literal["ssh", "speed", "vorticity"]
Day: TypeAlias = str | np.datetime64 | pd.Timestamp
Data: TypeAlias = xr.Dataset | pd.DataFrame

GRAVITY = 9.80665
ROTATION = 7.292115e-5
EQUATOR = 5.0
"""The latitude, in degrees, under which the geostrophic balance does not hold."""

NAMES = {"latitude": "lat", "nav_lat": "lat", "longitude": "lon", "nav_lon": "lon"}


class Sites(NamedTuple):
    r"""Data at their sites."""

    lat: Float[ndarray, " m"]
    lon: Float[ndarray, " m"]
    values: Float[ndarray, " m"]


def call(function: str, argument: str) -> str:
    r"""Returns a call with the argument at fault, as the head of an error.

    Example:
        >>> call("panels", "map")
        'panels(map=...)'
    """
    return f"{function}({argument}=...)"


def refusal(where: str, expected: str, got: object, cure: str) -> ValueError:
    r"""Returns the error to raise, worded as everywhere in the library."""
    return ValueError(f"{where}: expected {expected}, got {got}. {cure}.")


def as_field(where: str, field: xr.DataArray) -> xr.DataArray:
    r"""Returns a field with axes ``(time, lat, lon)``, or ``(lat, lon)``, that increase.

    Arguments:
        where: The call with the argument at fault, as the head of an error.
        field: The field; ``latitude`` and ``longitude`` will do.

    Raises:
        ValueError: If the field has other axes, or has no coordinates along one.

    Example:
        >>> found = xr.DataArray(np.zeros((2, 1)), {"longitude": [1.0, 0.0], "lat": [3.0]})
        >>> as_field("panels(map=...)", found).dims
        ('lat', 'lon')
    """
    field = field.rename({k: v for k, v in NAMES.items() if k in field.dims})
    order = ("time", "lat", "lon") if "time" in field.dims else ("lat", "lon")
    bare = [k for k in field.dims if k not in field.coords]
    if set(field.dims) != set(order) or bare:
        got = f"dimensions {tuple(field.dims)}" + (f", {bare} without coordinates" if bare else "")
        cure = "Select one level or member, and name the axes time, lat and lon"
        raise refusal(where, "a field of (time, lat, lon)", got, cure)
    if not all(field.sizes.values()):
        raise refusal(where, "a field with nodes", f"shape {field.shape}", "Select less")
    return field.transpose(*order).sortby(list(order))


def _day(where: str, day: Day) -> np.datetime64:
    try:
        date = pd.Timestamp(day).to_datetime64()
    except ValueError as error:
        raise refusal(where, "a date", repr(day), "Write it as '2012-10-22'") from error
    return date


def at_day(where: str, field: xr.DataArray, day: Day) -> xr.DataArray:
    r"""Returns the map of a field at its date nearest to a day; a field without dates as it is.

    Raises:
        ValueError: If no date of the field is near: within half a step, or half a day.
    """
    date = _day(where, day)
    field = as_field(where, field)
    if "time" not in field.dims:
        return field
    time = field["time"].values
    if time.dtype.kind != "M":
        raise refusal(where, "dates along time", str(time.dtype), "Decode the times")
    near = int(np.abs(time - date).argmin())
    half = np.timedelta64(12, "h")
    if len(time) > 1:
        half = max(half, np.median(np.diff(time)) / 2)
    if abs(time[near] - date) > half:
        ends = " to ".join(str(t.astype("datetime64[m]")) for t in (time[0], time[-1]))
        got = f"'{date.astype('datetime64[m]')}'"
        raise refusal(where, f"a day near its dates, {ends}", got, "Choose another day")
    return field.isel(time=near)


def titled(name: str, field: xr.DataArray) -> str:
    r"""Returns a title, with the date of the map where it has one: to the minute if not 00:00."""
    if "time" not in field.coords:
        return name
    date = field["time"].values.astype("datetime64[m]")
    whole = date == date.astype("datetime64[D]")
    return f"{name}, {np.datetime_as_string(date, 'D' if whole else 'm')}".replace("T", " ")


def lattice_of(field: xr.DataArray) -> Grid:
    r"""Returns the grid of the latitudes and longitudes of a field."""
    return Grid(lat=field["lat"].values.astype(float), lon=field["lon"].values.astype(float))


def image_of(field: xr.DataArray) -> Float[ndarray, "lat lon"]:
    r"""Returns the values of a map: NaN where there is none."""
    image = field.values.astype(np.float64)
    return np.where(np.isfinite(image), image, np.nan)


def _on_branch(lon: ndarray, other: ndarray) -> ndarray:
    start = (other[0] + other[-1]) / 2 - 180
    return start + np.mod(lon - start, 360.0)


def at_nodes(field: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    r"""Returns a field at the nodes of another one: linear between its own, NaN beyond them."""
    lon = _on_branch(field["lon"].values, other["lon"].values)
    moved = field.assign_coords(lon=lon).sortby("lon")
    places = {k: other[k].values for k in ("lat", "lon")}
    if all(len(moved[k]) == len(v) and np.allclose(moved[k], v) for k, v in places.items()):
        return moved.assign_coords(places)
    within = {k: _within(v, moved[k].values) for k, v in places.items()}
    return moved.interp(within).assign_coords(places)


def _within(places: ndarray, axis: ndarray) -> ndarray:
    r"""Returns places, on the axis where rounding alone puts them beyond its ends."""
    slack = 1e-6 * max(abs(axis[0]), abs(axis[-1]), 1.0)
    clipped = np.clip(places, axis[0], axis[-1])
    return np.where(np.abs(clipped - places) <= slack, clipped, places)


def _slope(
    image: Float[ndarray, "lat lon"], x: Float[ndarray, " k"], axis: int
) -> Float[ndarray, "lat lon"]:
    if len(x) < 2:
        return np.full_like(image, np.nan)
    return np.gradient(image, x, axis=axis, edge_order=1 if len(x) < 3 else 2)


def currents(field: xr.DataArray, quantity: Quantity) -> xr.DataArray:
    r"""Returns the speed, in m/s, or the vorticity over f, of the current that balances a height.

    .. math:: u = -\frac{g}{f} \frac{\partial \eta}{\partial y}, \quad
        v = \frac{g}{f} \frac{\partial \eta}{\partial x}, \quad
        \zeta = \frac{\partial v}{\partial x} - \frac{\partial u}{\partial y}
        + \frac{u \tan \phi}{R}

    Slopes are central differences, one-sided at the edges. It is NaN next to land, and within 5
    degrees of the equator.

    References:
        | Atmospheric and Oceanic Fluid Dynamics (Vallis, 2017)
        | https://doi.org/10.1017/9781107588417

    Arguments:
        field: The height :math:`\eta`, in metres, of axes ``(lat, lon)``.
        quantity: ``"speed"`` or ``"vorticity"``; ``"ssh"`` is the height itself.

    Example:
        >>> lat = np.linspace(30.0, 31.0, 5)
        >>> height = xr.DataArray(np.zeros((5, 3)) - 0.1 * lat[:, None],
        ...                       {"lat": lat, "lon": [0.0, 0.5, 1.0]})
        >>> round(float(currents(height, "speed").mean()), 2)  # 0.1 m over 111 km
        0.12
    """
    if quantity == "ssh":
        return field
    eta, phi, lon = image_of(field), *(np.deg2rad(field[k].values) for k in ("lat", "lon"))
    f = 2 * ROTATION * np.where(np.abs(phi) < np.deg2rad(EQUATOR), np.nan, np.sin(phi))[:, None]
    y, x = EARTH_RADIUS * phi, EARTH_RADIUS * lon
    cosine = np.cos(phi)[:, None]
    u = -GRAVITY / f * _slope(eta, y, 0)
    v = GRAVITY / f * _slope(eta, x, 1) / cosine
    if quantity == "speed":
        return field.copy(data=np.hypot(u, v))
    turning = _slope(v, x, 1) / cosine - _slope(u, y, 0) + u * np.tan(phi)[:, None] / EARTH_RADIUS
    return field.copy(data=turning / f)


def _one(where: str, data: Data, variables: Sequence[str]) -> tuple[ndarray, ...]:
    r"""Returns the dates, latitudes, longitudes and values of a file, one per datum."""
    found = data.to_xarray() if isinstance(data, pd.DataFrame) else data
    found = found.rename({k: v for k, v in NAMES.items() if k in found.variables})
    named = [k for k in variables if k in found.variables]
    lacking = [k for k in ("time", "lat", "lon") if k not in found.variables]
    if lacking or not named:
        lacking += [] if named else [" or ".join(variables)]
        got = f"variables {', '.join(map(str, found.variables))}"
        raise refusal(where, f"data with {', '.join(lacking)}", got, "Rename them")
    whole = xr.broadcast(*(found[k].drop_vars(found[k].coords) for k in (
        "time", "lat", "lon", named[0])))  # fmt: skip
    return tuple(x.values.ravel() for x in whole)


def sites_of(
    where: str,
    observations: Data | Mapping[str, Data],
    day: Day,
    within: float,
    variables: Sequence[str],
    lon: Float[ndarray, " k"],
) -> Sites:
    r"""Returns the data of a day, more or less some days, on the branch of other longitudes.

    Arguments:
        where: The call with the argument at fault, as the head of an error.
        observations: Files of along-track or swath data, or tables.
        day: The day.
        within: How many days before and after it.
        variables: The names of the data: the first one that a file has.
        lon: The longitudes of a map.

    Raises:
        ValueError: If a file has no such variable, or no dates and places.
    """
    if not within > 0:
        raise refusal(where.replace("observations", "within"), "days > 0", within, "Give some")
    files = observations.values() if isinstance(observations, Mapping) and not isinstance(
        observations, xr.Dataset
    ) else [observations]  # fmt: skip
    date, span = _day(where, day), np.timedelta64(round(within * 86_400_000), "ms")
    parts = []
    for file in files:
        time, *rest = _one(where, file, variables)
        if time.dtype.kind != "M":
            raise refusal(where, "dates in time", str(time.dtype), "Decode the times")
        near = (np.abs(time - date) <= span) & np.isfinite(np.asarray(rest, dtype=float)).all(0)
        parts.append(np.asarray(rest, dtype=float)[:, near])
    lat, east, values = np.concatenate([np.empty((3, 0)), *parts], axis=1)
    return Sites(lat, _on_branch(east, lon), values)
