r"""Tracks cut into segments of one length, for spectra along them."""

from __future__ import annotations

__all__ = ["Segments", "legacy_segments", "regular_segments", "track_step"]

import numpy as np

from jaxtyping import Float, Int
from numpy import ndarray
from typing import NamedTuple

from .fields import Track, call, refusal
from .regrid import EARTH

SPEED = 6.77
"""The speed of the challenges' altimeter along the ground, in km/s."""
PERIOD = 0.9434
"""The time between two of its data, in s."""
GAP = np.timedelta64(4, "s")
"""The longest pause within a track."""
STEP = 0.25
"""The step from one segment to the next, as a share of their length."""


class Segments(NamedTuple):
    r"""Segments of a reference and of a map, with the pass that each was cut from."""

    reference: Float[ndarray, "s n"]
    study: Float[ndarray, "s n"]
    passes: Int[ndarray, " s"]
    dx: float


def _starts(first: int, last: int, size: int) -> range:
    return range(first, last - size, int(size * STEP))


def _check(where: str, starts: list[int], length: float) -> None:
    if not starts:
        expected = f"tracks of {length:g} km without a gap over 4 s"
        cure = "Give more data, or data of 1 Hz"
        raise refusal(call(where, "tracks"), expected, "none so long", cure)


def legacy_segments(
    track: Track, study: Float[ndarray, " m"], length: float = 1000.0, where: str = "odc2021a"
) -> Segments:
    r"""Returns the segments of the 2021a challenge, errors included.

    Data stand 6.387 km apart (0.9434 s at 6.77 km/s), whatever the mission. A track ends before a
    pause of over 4 s; shorter ones stay in. The first datum of a track is taken to be the *last*
    one of the track before (an error by one, so that the first segment of a track holds one jump),
    and the track after the last pause is lost.

    Arguments:
        track: The data.
        study: The map at the data.
        length: The length of a segment, in km.
        where: The definition, for the error.

    Raises:
        ValueError: If there is no segment.
    """
    dx = SPEED * PERIOD
    size = int(length / dx)
    ends = (np.diff(track.time) > GAP).nonzero()[0]
    starts: list[int] = []
    passes: list[int] = []
    for k, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if b - a >= size:
            found = _starts(int(a), int(b), size)
            starts += found
            passes += [k] * len(found)
    _check(where, starts, length)
    index = np.asarray(starts)[:, None] + np.arange(size)
    return Segments(track.values[index], study[index], np.asarray(passes), dx)


def track_step(track: Track) -> tuple[float, float]:
    r"""Returns the median time, in s, and distance, in km, between two data in a row."""
    seconds = np.diff(track.time) / np.timedelta64(1, "s")
    lat, lon = np.deg2rad(track.lat), np.deg2rad(track.lon)
    along = np.sin(np.diff(lat) / 2) ** 2
    across = np.cos(lat[1:]) * np.cos(lat[:-1]) * np.sin(np.diff(lon) / 2) ** 2
    away = 2 * EARTH * np.arcsin(np.sqrt(np.clip(along + across, 0, 1)))
    return float(np.median(seconds)), float(np.median(away))


def regular_segments(
    track: Track, study: Float[ndarray, " m"], length: float = 1000.0, where: str = "robust"
) -> Segments:
    r"""Returns segments of every track, at the step of the data, their short gaps filled.

    The step is the median one of the data. A track ends before a pause of over 4 s (or of four
    steps, where data are farther apart); data that are missing inside it are interpolated linearly
    in time, in the reference and in the map alike. No track is lost, and none holds a jump.

    Arguments:
        track: The data.
        study: The map at the data.
        length: The length of a segment, in km.
        where: The definition, for the error.

    Raises:
        ValueError: If there is no segment, or if data are not a track.
    """
    step, dx = track_step(track)
    if not (step > 0 and dx > 0):
        got = f"{step:g} s and {dx:g} km"
        cure = "Give the data of one mission"
        raise refusal(call(where, "tracks"), "data some time and distance apart", got, cure)
    size = int(length / dx)
    if size < 4:
        got, cure = f"data {dx:.4g} km apart", "Give longer segments"
        raise refusal(call(where, "length"), "4 data per segment", got, cure)
    seconds = (track.time - track.time[0]) / np.timedelta64(1, "s")
    ends = (np.diff(seconds) > max(4.0, 4 * step)).nonzero()[0] + 1
    parts: list[tuple[Float[ndarray, "s n"], Float[ndarray, "s n"], int]] = []
    for k, own in enumerate(np.split(np.arange(len(track)), ends)):
        count = round((seconds[own[-1]] - seconds[own[0]]) / step) + 1
        index = np.asarray(_starts(0, count + 1, size))[:, None] + np.arange(size)
        if index.size == 0:
            continue
        at = np.linspace(seconds[own[0]], seconds[own[-1]], count)
        both = [np.interp(at, seconds[own], x[own])[index] for x in (track.values, study)]
        parts.append((both[0], both[1], k))
    _check(where, [k for *_, k in parts], length)
    passes = np.concatenate([np.full(len(a), k) for a, _, k in parts])
    reference, made = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return Segments(reference, made, passes, dx)
