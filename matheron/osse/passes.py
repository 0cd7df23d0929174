r"""Which passes of an orbit cross a box, and where an instrument measures along them."""

from __future__ import annotations

__all__ = ["Box", "Lines", "lines_over", "passes_over"]

import numpy as np

from dataclasses import dataclass
from jaxtyping import Bool, Float, Int

from .orbits import RepeatOrbit
from .swath import unit_vectors
from ..domain import EARTH_RADIUS

COARSE = 10.0
"""The step at which passes are scanned, in seconds."""

REACH = 0.6 * 8.0e3 * COARSE
"""No point of a track is farther than that from a scanned one, in metres: 8 km/s at most."""


@dataclass(frozen=True)
class Box:
    r"""A box of longitudes and latitudes, on any branch.

    Arguments:
        west: The western side, in degrees.
        east: The eastern side, at most one turn beyond ``west``.
        south: The southern side, in degrees.
        north: The northern side, in degrees.

    Raises:
        ValueError: If the sides are not in order, or are beyond the poles.

    Example:
        >>> box = Box(west=170.0, east=190.0, south=-10.0, north=10.0)
        >>> box.contains(np.array([-175.0, 185.0, 0.0]), np.zeros(3)).tolist()
        [True, True, False]
    """

    west: float
    east: float
    south: float
    north: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.east - self.west <= 360.0 + 1e-9:
            msg = (
                f"Box(west={self.west}, east={self.east}): expected west <= east <= west + 360, "
                f"got {self.west} and {self.east}. Across the dateline, add 360 to east."
            )
            raise ValueError(msg)
        if not -90.0 <= self.south <= self.north <= 90.0:
            msg = (
                f"Box(south={self.south}, north={self.north}): expected -90 <= south <= north <= "
                f"90, got {self.south} and {self.north}. Give degrees, the south first."
            )
            raise ValueError(msg)

    def contains(
        self, lon: Float[np.ndarray, "*t"], lat: Float[np.ndarray, "*t"]
    ) -> Bool[np.ndarray, "*t"]:
        r"""Tells which points are in the box, sides included.

        Arguments:
            lon: The longitudes, in degrees, on any branch.
            lat: The latitudes, in degrees.
        """
        beyond = np.mod(lon - self.west + 1e-9, 360.0) - 1e-9
        inside = (lat >= self.south - 1e-9) & (lat <= self.north + 1e-9)
        return inside & (beyond <= self.east - self.west + 1e-9)

    def padded(self, distance: float) -> Box:
        r"""Returns a box that holds every point at most this far from this one.

        Arguments:
            distance: The distance on the sphere, in metres.
        """
        angle = distance / EARTH_RADIUS
        south = max(-90.0, self.south - np.rad2deg(angle))
        north = min(90.0, self.north + np.rad2deg(angle))
        narrowest = np.cos(np.deg2rad(max(abs(self.south), abs(self.north))))
        side = np.sin(angle) / max(narrowest, 1e-12)
        wide = np.rad2deg(np.arcsin(side)) if side < 1.0 and max(-south, north) < 90.0 else 180.0
        if self.east - self.west + 2.0 * wide >= 360.0:
            return Box(self.west, self.west + 360.0, south, north)
        return Box(self.west - wide, self.east + wide, south, north)


@dataclass(frozen=True)
class Lines:
    r"""Where an instrument measures along the passes over a box, in the order of time.

    Arguments:
        passes: The pass of each line, counted from the epoch of the orbit.
        index: The number of each line from the start of its pass.
        times: The time of each line, in seconds since the epoch of the orbit.
    """

    passes: Int[np.ndarray, " t"]
    index: Int[np.ndarray, " t"]
    times: Float[np.ndarray, " t"]

    def select(self, keep: Bool[np.ndarray, " t"]) -> Lines:
        r"""Returns the lines to keep.

        Arguments:
            keep: Which ones.
        """
        return Lines(self.passes[keep], self.index[keep], self.times[keep])


def _offsets(
    orbit: RepeatOrbit, parity: int, seconds: float | None, metres: float | None
) -> Float[np.ndarray, " j"]:
    r"""The times of the lines of a pass, from its start: even in time, or in distance.

    The distance depends on the time since the start only, so that every pass of one direction
    has the same times.
    """
    start, end = orbit.pass_starts(np.array([parity, parity + 1]))
    if metres is None:
        return np.arange(0.0, end - start, seconds)
    fine = _whole(end - start, 1.0)
    points = unit_vectors(*orbit.track(start + fine))
    chords = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    distance = np.append(0.0, np.cumsum(2.0 * EARTH_RADIUS * np.arcsin(chords / 2.0)))
    return np.interp(np.arange(0.0, distance[-1], metres), distance, fine)


def _whole(duration: float, step: float) -> Float[np.ndarray, " j"]:
    return np.append(np.arange(0.0, duration, step), duration)


def _candidates(
    orbit: RepeatOrbit, parity: int, start: float, end: float
) -> Int[np.ndarray, " k"]:
    first, last = orbit.pass_at(np.array([start, end]))
    return np.arange(first + (first - parity) % 2, last + 1, 2)


def _window(
    orbit: RepeatOrbit, parity: int, offsets: Float[np.ndarray, " j"], box: Box
) -> Int[np.ndarray, " w"]:
    r"""The lines of a pass whose latitude is that of the box: the same ones for all passes."""
    lat = orbit.track(orbit.pass_starts(np.array([parity])) + offsets)[1]
    return np.nonzero((lat >= box.south) & (lat <= box.north))[0]


def passes_over(
    orbit: RepeatOrbit, box: Box, start: float, end: float, margin: float = 0.0
) -> Int[np.ndarray, " k"]:
    r"""Returns the passes that may come within a distance of a box: none is missed.

    Passes are scanned every ten seconds against a box made wider by half of that way; only the
    latitudes of the box are visited.

    Arguments:
        orbit: The orbit.
        box: The box.
        start: The first time, in seconds since the epoch of the orbit.
        end: The last one.
        margin: The distance, in metres: half of the width of the swath.

    Example:
        >>> orbit = RepeatOrbit(127, 10, 9.91564, inclination=66.04, altitude=1336e3)
        >>> box = Box(-65.0, -55.0, 33.0, 43.0)
        >>> len(passes_over(orbit, box, 0.0, orbit.period * 86400))
        13
    """
    wide, found = box.padded(margin + REACH), []
    for parity in (0, 1):
        first, last = orbit.pass_starts(np.array([parity, parity + 1]))
        offsets = _whole(last - first, COARSE)
        offsets = offsets[_window(orbit, parity, offsets, wide)]
        passes = _candidates(orbit, parity, start, end)
        times = orbit.pass_starts(passes)[:, None] + offsets
        found.append(passes[wide.contains(*orbit.track(times)).any(axis=1)])
    return np.sort(np.concatenate(found))


def lines_over(
    orbit: RepeatOrbit,
    box: Box,
    start: float,
    end: float,
    *,
    seconds: float | None = None,
    metres: float | None = None,
    margin: float = 0.0,
) -> Lines:
    r"""Returns the lines of an instrument whose nadir is within a distance of a box.

    Lines are numbered from the start of each pass, so that every cycle has the same ones.

    Arguments:
        orbit: The orbit.
        box: The box.
        start: The first time, in seconds since the epoch of the orbit.
        end: The last one.
        seconds: The step in time, in seconds; or give ``metres``.
        metres: The step over the ground, in metres.
        margin: The distance, in metres: half of the width of the swath.

    Raises:
        ValueError: If not exactly one positive step is given.
    """
    if (seconds is None) == (metres is None) or not 0.0 < (seconds or metres or 0.0) < 1e7:
        msg = (
            f"lines_over(seconds={seconds}, metres={metres}): expected one positive step, got "
            f"{seconds} and {metres}. Give one of the two."
        )
        raise ValueError(msg)
    wide, parts = box.padded(margin), []
    passes = passes_over(orbit, box, start, end, margin)
    for parity in (0, 1):
        offsets = _offsets(orbit, parity, seconds, metres)
        index = _window(orbit, parity, offsets, wide)
        mine = passes[passes % 2 == parity]
        times = orbit.pass_starts(mine)[:, None] + offsets[index]
        keep = wide.contains(*orbit.track(times)) & (times >= start) & (times <= end)
        row, column = np.nonzero(keep)
        parts.append((mine[row], index[column], times[keep]))
    joined = [np.concatenate(both) for both in zip(*parts, strict=True)]
    order = np.argsort(joined[2], kind="stable")
    return Lines(*(values[order] for values in joined))
