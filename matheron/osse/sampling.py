r"""See a truth as a constellation would: along tracks and swaths, with errors."""

from __future__ import annotations

__all__ = ["interpolate", "observe"]

import numpy as np
import torch
import xarray as xr
import zlib

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from jaxtyping import Float, Int

from .constellations import Mission, constellation
from .noise import Error, ErrorModel, noise_model
from .orbits import RepeatOrbit
from .passes import Box, Lines, lines_over
from .spectra import Sight
from .swath import Swath, across_track, ground_frame

NADIR_STEP = 6.2
"""The usual way of an altimeter over the ground in one second, in kilometres."""


def _cell(
    axis: Float[np.ndarray, " n"], at: Float[np.ndarray, "*m"]
) -> tuple[Int[np.ndarray, "*m"], Float[np.ndarray, "*m"]]:
    r"""The cell of an axis that holds each value, and where in it; NaN outside."""
    if axis.size == 1:
        return np.zeros(at.shape, dtype=np.int64), np.where(at == axis[0], 0.0, np.nan)
    slack = 1e-9 * (axis[-1] - axis[0])
    at = np.where((at < axis[0] - slack) | (at > axis[-1] + slack), np.nan, at)
    low = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, axis.size - 2)
    weight = (at - axis[low]) / (axis[low + 1] - axis[low])
    return low, np.clip(weight, 0.0, 1.0)


def interpolate(
    values: Float[np.ndarray, "time lat lon"],
    axes: Sequence[Float[np.ndarray, " _"]],
    at: Sequence[Float[np.ndarray, ...]],
) -> Float[np.ndarray, ...]:
    r"""Returns a field at places, linear along each axis.

    It is NaN outside of the axes, and where a node that counts is NaN.

    Arguments:
        values: The field at the nodes.
        axes: The increasing coordinates of the nodes.
        at: The coordinates of the places, one array per axis.

    Example:
        >>> axis = np.array([0.0, 2.0])
        >>> field = np.arange(8.0).reshape(2, 2, 2)
        >>> interpolate(field, [axis] * 3, [np.array([1.0, 3.0])] * 3)
        array([3.5, nan])
    """
    cells = [_cell(axis, place) for axis, place in zip(axes, at, strict=True)]
    result = np.zeros(np.broadcast_shapes(*(place.shape for place in at)))
    for corner in np.ndindex(2, 2, 2):
        weight, node = np.ones(()), []
        for (low, upper), side, axis in zip(cells, corner, axes, strict=True):
            weight = weight * (upper if side else 1.0 - upper)
            node.append(np.minimum(low + side, axis.size - 1))
        # A node without weight does not count, land though it be.
        result += np.where(weight == 0.0, 0.0, weight * values[tuple(node)])
    return result


@dataclass(frozen=True)
class _Truth:
    values: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    time: np.ndarray

    @property
    def box(self) -> Box:
        east = min(self.lon[-1], self.lon[0] + 360.0)
        return Box(*(float(side) for side in (self.lon[0], east, self.lat[0], self.lat[-1])))

    def branch(self, lon: Float[np.ndarray, "*m"]) -> Float[np.ndarray, "*m"]:
        west = self.lon[0] - 0.5 * max(0.0, 360.0 - (self.lon[-1] - self.lon[0]))
        return west + np.mod(lon - west, 360.0)

    def at(
        self,
        seconds: Float[np.ndarray, "*m"],
        lat: Float[np.ndarray, "*m"],
        lon: Float[np.ndarray, "*m"],
        orbit: RepeatOrbit,
    ) -> Float[np.ndarray, "*m"]:
        axes = [orbit.seconds(self.time), self.lat, self.lon]
        return interpolate(self.values, axes, [seconds, lat, self.branch(lon)])


def _refusal(argument: str, expected: str, got: object, cure: str) -> str:
    return f"observe({argument}): expected {expected}, got {got}. {cure}."


def _read(truth: xr.Dataset, variable: str) -> _Truth:
    if variable not in truth or set(truth[variable].dims) != {"time", "lat", "lon"}:
        got = tuple(truth[variable].dims) if variable in truth else ", ".join(map(str, truth))
        expected = f"a variable {variable!r} of time, lat and lon"
        msg = _refusal("truth=...", expected, got, "Rename its variable or its dimensions")
        raise ValueError(msg)
    field = truth[variable].transpose("time", "lat", "lon")
    lat, lon, time = (field[name].values for name in ("lat", "lon", "time"))
    if not np.issubdtype(time.dtype, np.datetime64):
        msg = _refusal("truth=...", "dates along time", time.dtype, "Decode the times")
        raise ValueError(msg)
    for name, axis in (("lat", lat), ("lon", lon), ("time", time)):
        if not (np.diff(axis) > np.zeros((), dtype=np.diff(axis).dtype)).all():
            got, cure = f"{name} {axis[:3]}...", f"Sort the axis, e.g. ds.sortby({name!r})"
            msg = _refusal("truth=...", "increasing coordinates", got, cure)
            raise ValueError(msg)
    return _around(_Truth(field.values, lat.astype(float), lon.astype(float), time))


def _around(truth: _Truth) -> _Truth:
    r"""Repeats the first longitude at the end, where the grid goes all around the globe."""
    extent = truth.lon[-1] - truth.lon[0]
    if truth.lon.size < 3 or extent >= 360.0 or extent + 1.5 * np.diff(truth.lon)[-1] < 360.0:
        return truth
    values = np.concatenate([truth.values, truth.values[:, :, :1]], axis=2)
    return replace(truth, values=values, lon=np.append(truth.lon, truth.lon[0] + 360.0))


def _errors(
    errors: Sequence[Error], sight: Sight, generator: torch.Generator, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    return {error.name: error.draw(sight, generator).reshape(shape) for error in errors}


def _labelled(
    where: Mapping[str, tuple],
    model: tuple[tuple[str, ...], np.ndarray],
    errors: Mapping[str, np.ndarray],
    mission: Mission,
) -> xr.Dataset:
    dims, ssh = model
    data = {"ssh_model": (dims, ssh)}
    if errors:
        data["ssh_obs"] = (dims, ssh + sum(errors.values()))
        data |= {name: (dims, error) for name, error in errors.items()}
    attrs = {"mission": mission.name, "errors": ", ".join(errors) or "none"}
    result = xr.Dataset(data, coords=dict(where), attrs=attrs)
    for name in data:
        result[name].attrs["units"] = "m"
    return result


def _where(orbit: RepeatOrbit, lines: Lines) -> dict[str, tuple]:
    return {
        "time": ("time", orbit.dates(lines.times)),
        "cycle": ("time", lines.passes // orbit.passes),
        "pass_number": ("time", lines.passes % orbit.passes + 1),
    }


def _degrees(dims: Sequence[str], lon: np.ndarray, lat: np.ndarray) -> dict[str, tuple]:
    east, north = {"units": "degrees_east"}, {"units": "degrees_north"}
    return {"lon": (dims, lon, east), "lat": (dims, lat, north)}


def _nadir(
    truth: _Truth,
    mission: Mission,
    span: tuple[float, float],
    errors: Sequence[Error],
    generator: torch.Generator,
) -> xr.Dataset:
    orbit = mission.orbit
    lines = lines_over(orbit, truth.box, *span, seconds=mission.seconds)
    lon, lat = orbit.track(lines.times)
    sight = Sight(
        lines.passes,
        lines.index,
        np.zeros(1),
        along=NADIR_STEP * mission.seconds,
        altitude=orbit.altitude,
    )
    where = _where(orbit, lines) | _degrees(("time",), truth.branch(lon), lat)
    ssh = truth.at(lines.times, lat, lon, orbit)
    drawn = _errors(errors, sight, generator, lon.shape)
    return _labelled(where, (("time",), ssh), drawn, mission)


def _swath(
    truth: _Truth,
    mission: Mission,
    swath: Swath,
    span: tuple[float, float],
    errors: Sequence[Error],
    generator: torch.Generator,
) -> xr.Dataset:
    orbit, reach = mission.orbit, 1e3 * swath.offsets[-1]
    lines = lines_over(orbit, truth.box, *span, metres=1e3 * swath.along, margin=reach)
    lon, lat = across_track(*ground_frame(orbit, lines.times), swath.offsets)
    seen = np.asarray(truth.box.contains(lon, lat).any(axis=1))
    lines, lon, lat = lines.select(seen), lon[seen], lat[seen]
    sight = Sight(
        lines.passes, lines.index, swath.offsets, swath.along, swath.across, orbit.altitude
    )
    below = orbit.track(lines.times)
    where = _where(orbit, lines) | _degrees(("time", "nC"), truth.branch(lon), lat)
    where["lon_nadir"] = ("time", truth.branch(below[0]), {"units": "degrees_east"})
    where["lat_nadir"] = ("time", below[1], {"units": "degrees_north"})
    where["x_ac"] = ("nC", swath.offsets, {"units": "km", "long_name": "distance to nadir"})
    ssh = truth.at(np.broadcast_to(lines.times[:, None], lon.shape), lat, lon, orbit)
    drawn = _errors(errors, sight, generator, lon.shape)
    return _labelled(where, (("time", "nC"), ssh), drawn, mission)


def _generators(generator: torch.Generator | None, names: Sequence[str]) -> list[torch.Generator]:
    r"""One generator per file, from one draw: a mission has the same errors in every company."""
    seed = int(torch.randint(2**62, (), generator=generator))
    own = [(seed + zlib.crc32(name.encode())) % 2**63 for name in names]
    return [torch.Generator().manual_seed(each) for each in own]


def _in_seconds(
    orbit: RepeatOrbit, dates: tuple[np.datetime64, np.datetime64]
) -> tuple[float, float]:
    start, end = (float(orbit.seconds(date)) for date in dates)
    return start, end


def _span(
    truth: _Truth, start: np.datetime64 | None, end: np.datetime64 | None
) -> tuple[np.datetime64, np.datetime64]:
    first = truth.time[0] if start is None else max(np.datetime64(start), truth.time[0])
    last = truth.time[-1] if end is None else min(np.datetime64(end), truth.time[-1])
    if first > last:
        within = f"dates in order within {truth.time[0]} and {truth.time[-1]}"
        asked = f"start={start}, end={end}"
        msg = _refusal(asked, within, f"{start} and {end}", "Check the dates of the truth")
        raise ValueError(msg)
    return first, last


def observe(
    truth: xr.Dataset,
    missions: str | Sequence[str] | Mapping[str, Mission] = "4nadirs",
    generator: torch.Generator | None = None,
    noise: str | ErrorModel = "none",
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
    *,
    swath: Swath | None = None,
    variable: str = "ssh",
) -> dict[str, xr.Dataset]:
    r"""Observes a truth along the tracks and swaths of missions.

    A nadir altimeter gives a file with its name, with one datum per second; a wide-swath one gives
    two, ``nadir_...`` and ``karin_...``, with pixels along ``nC``. ``ssh_model`` is the truth,
    linear in time and space, as points see it (no average over the footprint), and NaN where a
    pixel is outside of it or on land; ``ssh_obs`` is with errors, and each error is there by its
    name. Longitudes are on the branch of the truth.

    Arguments:
        truth: The truth, with a variable of ``time``, ``lat`` and ``lon``, in metres.
        missions: The missions, as :func:`~matheron.osse.constellations.constellation` names them,
            or by themselves.
        generator: The random generator: one number of it is drawn, whatever the missions, so that
            a mission has the same errors in every constellation.
        noise: The errors: ``none``, ``white``, ``karin``, ``full``, or a model of errors.
        start: The first date; that of the truth by default.
        end: The last date; that of the truth by default.
        swath: Another swath for the wide-swath missions, e.g. ``Swath(along=10.0, across=10.0)``.
        variable: The variable to observe.

    Raises:
        ValueError: If the truth, a name or the dates cannot be used.

    Example:
        >>> time = np.datetime64("2012-10-01") + np.arange(6) * np.timedelta64(1, "D")
        >>> axes = {"time": time, "lat": [33.0, 43.0], "lon": [295.0, 305.0]}
        >>> truth = xr.Dataset({"ssh": (("time", "lat", "lon"), np.ones((6, 2, 2)))}, axes)
        >>> seen = observe(truth, "1nadir,swot", swath=Swath(along=10.0, across=10.0))
        >>> list(seen), seen["karin_swot"].sizes["nC"]
        (['jason1', 'nadir_swot', 'karin_swot'], 12)
    """
    field, errors = _read(truth, variable), noise_model(noise)
    chosen = dict(missions) if isinstance(missions, Mapping) else constellation(missions)
    dates = _span(field, start, end)
    generators = iter(_generators(generator, [f"{k} {name}" for name in chosen for k in (0, 1)]))
    seen = {}
    for name, mission in chosen.items():
        span = _in_seconds(mission.orbit, dates)
        strips = mission.swath and (swath or mission.swath)
        nadir = f"nadir_{name}" if strips else name
        seen[nadir] = _nadir(field, mission, span, errors.nadir, next(generators))
        own = next(generators)
        if strips:
            seen[f"karin_{name}"] = _swath(field, mission, strips, span, errors.swath, own)
    return seen
