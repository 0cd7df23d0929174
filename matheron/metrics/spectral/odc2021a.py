r"""The scores of the ocean data challenge 2021a, and of its variant: maps against real tracks."""

from __future__ import annotations

__all__ = [
    "check_seen",
    "daily_scores",
    "nrmse_score",
    "ocb",
    "odc2021a",
    "on_tracks",
    "segment_score",
]

import numpy as np

from jaxtyping import Float
from numpy import ndarray

from .fields import Field, Track, call, check_scale, refusal, same_branch
from .intercept import below_level, sorted_by_score
from .psd import Radial, along_track, score
from .regrid import interpolate_to_tracks
from .scored import Scored
from .segments import Segments, legacy_segments

MARGIN = 0.25
"""How far within the box data are scored, in degrees."""
FEWEST = 10
"""The least number of data of a day that is scored."""


def odc2021a(map: Field, tracks: Track, margin: float = MARGIN, length: float = 1000.0) -> Scored:
    r"""Scores a map against independent tracks as the ocean data challenge 2021a does.

    The map is interpolated linearly in time and space onto the data, which are at least 0.25
    degrees within it. With the error :math:`e` and the data :math:`h` of each day :math:`d` that
    has ten data or more,

    .. math:: s_d = 1 - \mathrm{rms}_d(e) / \mathrm{rms}_d(h), \qquad
        \mu = \overline{s_d}, \quad \sigma = \mathrm{std}_d(s_d)

    whatever the number of data in a day. :math:`\lambda_x` is where the score of the spectra of
    segments of 1000 km is one half, interpolated after sorting by score. The segments have the
    errors of the challenge, see :func:`legacy_segments`.

    The noise of the data caps :math:`\mu`, and bounds :math:`\lambda_x` from below, even for a
    perfect map. The reference of the challenge is ``sla_unfiltered + mdt - lwe`` of CryoSat-2.

    References:
        | A data challenge to compare mapping techniques with real data (Ocean Data Challenges)
        | https://github.com/ocean-data-challenges/2021a_SSH_mapping_OSE

    Arguments:
        map: The map.
        tracks: The data, of the same quantity, of one mission.
        margin: How far within the map data are scored, in degrees.
        length: The length of a segment, in km.

    Returns:
        ``mu``, ``sigma``, and ``lambda_x`` in km: undefined (NaN) where all scores are over, or
        all under, one half (the challenge stops there).

    Raises:
        ValueError: If both do not overlap, or if no day, or no segment, is left.
    """
    seen, made = on_tracks("odc2021a", map, tracks, margin)
    by_day = daily_scores("odc2021a", seen, made)
    segments = legacy_segments(seen, made, length)
    lambda_x = sorted_by_score(segment_score(segments))
    values = {"mu": by_day.mean(), "sigma": by_day.std(), "lambda_x": lambda_x}
    notes = (
        f"{len(seen)} data, {by_day.size} days of {FEWEST} data or more",
        _told(segments),
        "segments have the errors of the challenge: some hold a jump, the last track is lost",
    )
    return Scored(
        "odc2021a",
        {k: float(v) for k, v in values.items()},
        {"lambda_x": "km"},
        notes,
        {"mu": 2, "sigma": 2, "lambda_x": 0},
    )


def ocb(map: Field, tracks: Track, margin: float = MARGIN, length: float = 1000.0) -> Scored:
    r"""Scores a map against independent tracks as the ``ocb`` variant of the challenge 2021a does.

    ``mu`` is :math:`1 - \mathrm{rms}(e) / \mathrm{rms}(h)` over all data at once, not the mean of
    the days. ``lambda_x`` is read from the same spectra, at the first crossing of one half from
    the largest scales on; data without a map take that of the nearest datum. The reference is
    ``sla_filtered + mdt - lwe``, whose noise is less: its numbers are not those of ``odc2021a``.

    References:
        | https://github.com/quentinf00/ocb-dc-ose-2021

    Arguments:
        map: The map.
        tracks: The data, of the same quantity, of one mission.
        margin: How far within the map data are scored, in degrees.
        length: The length of a segment, in km.

    Returns:
        ``mu``, and ``lambda_x`` in km: undefined (NaN) where the score is never over one half, or
        never under it.

    Raises:
        ValueError: If both do not overlap, or if no segment is left.
    """
    inside = _inside(map, tracks, margin)
    made = interpolate_to_tracks(map, inside)
    known = np.isfinite(made)
    check_seen("ocb", map, tracks, known)
    check_scale("ocb", made[known], inside.values)
    mu = nrmse_score(made[known] - inside.values[known], inside.values[known])
    segments = legacy_segments(inside, _nearest(inside, made), length, "ocb")
    lambda_x = below_level(segment_score(segments))
    return Scored(
        "ocb",
        {"mu": mu, "lambda_x": lambda_x},
        {"lambda_x": "km"},
        (f"{int(known.sum())} data", _told(segments)),
        {"mu": 3, "lambda_x": 2},
    )


def _told(segments: Segments) -> str:
    count, size = segments.reference.shape
    return f"{count} segments of {size} data, {segments.dx:.3f} km apart"


def _nearest(track: Track, made: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    r"""Returns a map at data, its gaps taken from the datum that is nearest in time."""
    known = np.isfinite(made).nonzero()[0]
    seconds = (track.time - track.time[0]) / np.timedelta64(1, "s")
    after = np.clip(np.searchsorted(seconds[known], seconds), 0, known.size - 1)
    before = np.maximum(after - 1, 0)
    late = seconds[known][after] - seconds < seconds - seconds[known][before]
    found = known[np.where(late | (before == after), after, before)]
    return np.where(np.isfinite(made), made, made[found])


def _inside(map: Field, tracks: Track, margin: float) -> Track:
    lon = map.lon[0] + np.mod(tracks.lon - map.lon[0], 360.0)
    kept = (lon >= map.lon[0] + margin) & (lon <= map.lon[-1] - margin)
    kept &= (tracks.lat >= map.lat[0] + margin) & (tracks.lat <= map.lat[-1] - margin)
    kept &= (tracks.time >= map.time[0]) & (tracks.time <= map.time[-1])
    return tracks.where(kept) if kept.any() else tracks


def check_seen(where: str, map: Field, tracks: Track, known: ndarray) -> None:
    r"""Refuses tracks of which no datum is within the map."""
    if known.any():
        return
    lon = same_branch(tracks.lon, map.lon)
    span = lambda x: f"{x[0]:.10} to {x[-1]:.10}"
    dates = lambda x: f"{np.datetime_as_string(x[0], 'D')} to {np.datetime_as_string(x[-1], 'D')}"
    expected = f"tracks in {span(map.lon)} E, {span(map.lat)} N, {dates(map.time)}"
    ends = [np.array([x.min(), x.max()]) for x in (lon, tracks.lat)]
    got = f"{span(ends[0])} E, {span(ends[1])} N, {dates(tracks.time)}"
    cure = "Check the extents and the dates"
    raise refusal(call(where, "tracks"), expected, got, cure)


def on_tracks(
    where: str, map: Field, tracks: Track, margin: float = 0.0, kind: str = "linear"
) -> tuple[Track, Float[ndarray, " m"]]:
    r"""Returns the data within a map, and the map there; data next to its gaps are left out."""
    inside = _inside(map, tracks, margin)
    made = interpolate_to_tracks(map, inside, kind)
    known = np.isfinite(made)
    check_seen(where, map, tracks, known)
    check_scale(where, made[known], inside.values[known])
    return inside.where(known), made[known]


def nrmse_score(error: Float[ndarray, " m"], data: Float[ndarray, " m"]) -> float:
    r"""Returns one less the ratio of both root mean squares."""
    return float(1 - np.sqrt((error**2).mean()) / np.sqrt((data**2).mean()))


def daily_scores(where: str, track: Track, made: Float[ndarray, " m"]) -> Float[ndarray, " days"]:
    r"""Returns the score of each day that has enough data.

    Raises:
        ValueError: If no day has.
    """
    _, day = np.unique(track.time.astype("datetime64[D]"), return_inverse=True)
    count = np.bincount(day)
    error = np.bincount(day, (made - track.values) ** 2)
    signal = np.bincount(day, track.values**2)
    kept = (count >= FEWEST) & (signal > 0)
    if not kept.any():
        got = f"at most {count.max()}"
        raise refusal(call(where, "tracks"), f"days of {FEWEST} data", got, "Give more data")
    return 1 - np.sqrt(error[kept] / count[kept]) / np.sqrt(signal[kept] / count[kept])


def segment_score(segments: Segments) -> Radial:
    r"""Returns the score along tracks of some segments."""
    error = along_track(segments.study - segments.reference, segments.dx)
    signal = along_track(segments.reference, segments.dx)
    return signal._replace(power=score(error.power, signal.power))
