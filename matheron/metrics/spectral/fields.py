r"""What is scored: a map on a lattice, and data along tracks, as plain arrays."""

from __future__ import annotations

__all__ = ["Field", "Track", "call", "check_scale", "refusal", "same_branch", "step_of"]

import numpy as np
import warnings

from dataclasses import dataclass
from jaxtyping import Shaped
from numpy import ndarray

RATIO = 20.0
"""Two fields whose std differ by more than this are taken for other units, e.g. cm and m."""


def call(where: str, argument: str) -> str:
    r"""Returns a call with the argument at fault, as the head of an error.

    Example:
        >>> call("odc2020a", "map")
        'odc2020a(map=...)'
    """
    return f"{where}({argument}=...)"


def refusal(where: str, expected: str, got: str, cure: str) -> ValueError:
    r"""Returns the error to raise, worded as everywhere in the library."""
    return ValueError(f"{where}: expected {expected}, got {got}. {cure}.")


def _as_dates(where: str, time: Shaped[ndarray, " n"]) -> Shaped[ndarray, " n"]:
    time = np.asarray(time)
    if time.dtype.kind != "M":
        cure = "Add the numbers to their epoch, e.g. epoch + days * np.timedelta64(1, 'D')"
        raise refusal(call(where, "time"), "datetime64", str(time.dtype), cure)
    if np.isnat(time).any():
        raise refusal(call(where, "time"), "dates", "NaT", "Drop what has no date")
    return time.astype("datetime64[ns]")


def _as_axis(where: str, name: str, axis: Shaped[ndarray, " n"]) -> Shaped[ndarray, " n"]:
    axis = np.asarray(axis, dtype=np.float64)
    if not np.isfinite(axis).all() or (np.diff(axis) <= 0).any() or axis.size == 0:
        got = f"{axis[:3].tolist()}..." if axis.size else "none"
        cure = f"Sort the axis, e.g. ds.sortby('{name}')"
        raise refusal(call(where, name), "strictly increasing coordinates", got, cure)
    return axis


@dataclass(frozen=True)
class Field:
    r"""A field on a lattice.

    Attributes:
        values: The values, with shape :math:`(time, lat, lon)`; NaN where there is none.
        time: The dates, with shape :math:`(time)`.
        lat: The latitudes in degrees, with shape :math:`(lat)`.
        lon: The longitudes in degrees, on one branch, with shape :math:`(lon)`.

    Raises:
        ValueError: If an axis does not increase, or if the shapes do not agree.

    Example:
        >>> days = np.datetime64("2012-10-22") + np.arange(2)
        >>> Field(np.zeros((2, 1, 3)), days, [38.0], [-65.0, -64.0, -63.0]).shape
        (2, 1, 3)
    """

    values: Shaped[ndarray, "time lat lon"]
    time: Shaped[ndarray, " time"]
    lat: Shaped[ndarray, " lat"]
    lon: Shaped[ndarray, " lon"]

    def __init__(self, values: object, time: object, lat: object, lon: object) -> None:
        time = _as_dates("Field", np.asarray(time))
        if (np.diff(time) <= np.timedelta64(0)).any():
            cure = "Sort the dates, and drop those that are twice there"
            raise refusal(call("Field", "time"), "increasing dates", "dates that do not", cure)
        object.__setattr__(self, "values", np.asarray(values, dtype=np.float64))
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "lat", _as_axis("Field", "lat", np.asarray(lat)))
        object.__setattr__(self, "lon", _as_axis("Field", "lon", np.asarray(lon)))
        shape = (self.time.size, self.lat.size, self.lon.size)
        if self.values.shape != shape:
            cure = "Transpose it to (time, lat, lon)"
            raise refusal(call("Field", "values"), f"shape {shape}", str(self.values.shape), cure)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The number of dates, latitudes and longitudes."""
        return self.values.shape

    def on(self, lon: Shaped[ndarray, " n"]) -> Field:
        r"""Returns the field with its longitudes on the branch of others."""
        return Field(self.values, self.time, self.lat, same_branch(self.lon, lon))

    def where(
        self,
        time: Shaped[ndarray, " time"] | slice = slice(None),
        lat: Shaped[ndarray, " lat"] | slice = slice(None),
        lon: Shaped[ndarray, " lon"] | slice = slice(None),
    ) -> Field:
        r"""Returns a part of the field, by masks on its axes."""
        values = self.values[time][:, lat][:, :, lon]
        return Field(values, self.time[time], self.lat[lat], self.lon[lon])

    def between(self, start: np.datetime64 | None, end: np.datetime64 | None) -> Field:
        r"""Returns the dates from ``start`` to ``end``, both included."""
        kept = np.ones(self.time.size, dtype=bool)
        kept &= True if start is None else self.time >= start
        kept &= True if end is None else self.time <= end
        if not kept.any():
            what, got = f"dates from {start} to {end}", _span(self.time)
            raise refusal(call("score", "start, end"), what, got, "Check the dates")
        return self.where(time=kept)


def _span(time: Shaped[ndarray, " n"]) -> str:
    return f"{np.datetime_as_string(time[0], 's')} to {np.datetime_as_string(time[-1], 's')}"


@dataclass(frozen=True)
class Track:
    r"""Data along tracks, sorted by date; those that are not finite are left out.

    Attributes:
        values: The values, with shape :math:`(m)`.
        time: The dates, with shape :math:`(m)`.
        lat: The latitudes in degrees, with shape :math:`(m)`.
        lon: The longitudes in degrees, with shape :math:`(m)`.
    """

    values: Shaped[ndarray, " m"]
    time: Shaped[ndarray, " m"]
    lat: Shaped[ndarray, " m"]
    lon: Shaped[ndarray, " m"]

    def __init__(self, values: object, time: object, lat: object, lon: object) -> None:
        whole = call("Track", "values, time, lat, lon")
        dates = _as_dates("Track", np.asarray(time))
        columns = [np.asarray(x, dtype=np.float64) for x in (values, lat, lon)]
        sizes = {k: x.shape for k, x in zip(("values", "lat", "lon"), columns, strict=True)}
        if any(x.shape != dates.shape or x.ndim != 1 for x in columns):
            cure = "Give one value, date, latitude and longitude per datum"
            raise refusal(whole, f"shape {dates.shape} of time", str(sizes), cure)
        kept = np.isfinite(columns).all(axis=0)
        if not kept.any():
            raise refusal(whole, "data", "none that is finite", "Check the variable")
        order = np.argsort(dates[kept], kind="stable")
        names = ("values", "lat", "lon")
        for name, x in zip((*names, "time"), (*columns, dates), strict=True):
            object.__setattr__(self, name, x[kept][order])

    def __len__(self) -> int:
        return self.values.size

    def where(self, kept: Shaped[ndarray, " m"]) -> Track:
        r"""Returns a part of the data."""
        return Track(self.values[kept], self.time[kept], self.lat[kept], self.lon[kept])


def same_branch(lon: Shaped[ndarray, " n"], like: Shaped[ndarray, " k"]) -> Shaped[ndarray, " n"]:
    r"""Returns longitudes moved by whole turns, all together, onto the branch of others.

    Example:
        >>> same_branch(np.array([295.0, 305.0]), np.array([-64.0, -56.0])).tolist()
        [-65.0, -55.0]
    """
    middle = (like.min() + like.max()) / 2 - (lon.min() + lon.max()) / 2
    turns = np.round(middle / 360.0)
    return lon + 360.0 * turns if turns else lon


def step_of(where: str, name: str, axis: Shaped[ndarray, " n"]) -> float:
    r"""Returns the step of an axis, in degrees, or in days where it holds dates.

    Raises:
        ValueError: If the axis has less than four nodes, or no one step: a discrete Fourier
            transform knows no gap.

    Example:
        >>> step_of("score", "time", np.datetime64("2012-10-22T12") + np.arange(4) * 12)
        0.5
    """
    numbers = (axis - axis[0]) / np.timedelta64(1, "D") if axis.dtype.kind == "M" else axis
    steps = np.diff(numbers)
    if steps.size < 3:
        cure = "A spectrum needs more of them"
        raise refusal(call(where, name), "at least 4 nodes", str(steps.size + 1), cure)
    if np.ptp(steps) > 1e-3 * steps.mean():
        got = f"steps from {steps.min():.6g} to {steps.max():.6g}"
        raise refusal(call(where, name), "a regular axis", got, "Fill the gaps, or regrid")
    return float(steps.mean())


def check_scale(where: str, made: Shaped[ndarray, ...], true: Shaped[ndarray, ...]) -> None:
    r"""Warns where two fields seem to be in other units, e.g. one in cm and the other in m."""
    a, b = np.nanstd(made), np.nanstd(true)
    low, high = min(a, b), max(a, b)
    if low > 0 and high > RATIO * low:
        warnings.warn(
            f"{where}: the std of the map is {a:.4g} and that of the reference {b:.4g}, "
            f"{high / low:.0f} times apart: are both in the same units?",
            stacklevel=3,
        )
