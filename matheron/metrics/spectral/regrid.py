r"""The steps before a score: onto the nodes of the reference, onto tracks, into days."""

from __future__ import annotations

__all__ = [
    "at_points",
    "daily_mean",
    "gauss_seidel",
    "interpolate_to_tracks",
    "regrid",
    "spacing",
]

import numpy as np

from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from .fields import Field, Track, call, refusal

EARTH = 6371.0
"""The radius of the sphere, in km."""

Brackets = tuple[Int[ndarray, " n"], Float[ndarray, " n"], Bool[ndarray, " n"]]


def _bracket(axis: Shaped[ndarray, " k"], at: Shaped[ndarray, " n"]) -> Brackets:
    r"""Returns the node below each coordinate, the weight of the next, and what is inside."""
    if axis.dtype.kind == "M":
        second = np.timedelta64(1, "s")
        at, axis = (at - axis[0]) / second, (axis - axis[0]) / second
    slack = 1e-9 * max(abs(axis[0]), abs(axis[-1]), 1.0)
    inside = (at >= axis[0] - slack) & (at <= axis[-1] + slack)
    if axis.size == 1:
        return np.zeros(at.size, dtype=int), np.zeros(at.size), inside
    below = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, axis.size - 2)
    weight = (at - axis[below]) / (axis[below + 1] - axis[below])
    # a node that rounding moved, e.g. by a turn of longitude, is a node still
    weight = np.where(np.abs(weight - np.round(weight)) < 1e-10, np.round(weight), weight)
    return below, np.clip(weight, 0.0, 1.0), inside


def _along(
    values: Float[ndarray, "*shape"],
    dim: int,
    axis: Shaped[ndarray, " k"],
    at: Shaped[ndarray, " n"],
) -> Float[ndarray, "*other"]:
    below, w, inside = _bracket(axis, at)
    above = np.minimum(below + 1, axis.size - 1)
    shape = [-1 if i == dim else 1 for i in range(values.ndim)]
    low, high = values.take(below, axis=dim), values.take(above, axis=dim)
    w = w.reshape(shape)
    # a node without a value counts only where it has a weight
    made = np.where(w == 0, 0, high * w) + np.where(w == 1, 0, low * (1 - w))
    return np.where(inside.reshape(shape), made, np.nan)


def regrid(field: Field, time: object, lat: object, lon: object) -> Field:
    r"""Returns a field on other nodes, linear in time, latitude and longitude.

    Nodes out of the field, or next to a node without a value, are NaN. Longitudes may be on
    another branch.

    Example:
        >>> days = np.datetime64("2012-10-22") + np.arange(2)
        >>> field = Field([[[0.0, 1.0]], [[2.0, 3.0]]], days, [38.0], [-65.0, -64.0])
        >>> half = np.array(["2012-10-22T12"], "M8[ns]")
        >>> regrid(field, half, [38.0], [295.5, 297.0]).values
        array([[[1.5, nan]]])
    """
    axes = (np.asarray(time), np.asarray(lat, dtype=float), np.asarray(lon, dtype=float))
    field = field.on(axes[2])
    values = field.values
    for dim, (own, at) in enumerate(zip((field.time, field.lat, field.lon), axes, strict=True)):
        values = _along(values, dim, own, at)
    return Field(values, *axes)


def _corners(
    lat: Shaped[ndarray, " y"],
    lon: Shaped[ndarray, " x"],
    at_lat: Shaped[ndarray, " n"],
    at_lon: Shaped[ndarray, " n"],
    kind: str,
) -> tuple[Int[ndarray, "4 n"], Int[ndarray, "4 n"], Float[ndarray, "4 n"], Bool[ndarray, " n"]]:
    r"""Returns the four nodes around each point, and their weights."""
    i, v, in_lat = _bracket(lat, at_lat)
    j, u, in_lon = _bracket(lon, at_lon)
    rows = np.stack([i, i, np.minimum(i + 1, lat.size - 1), np.minimum(i + 1, lat.size - 1)])
    cols = np.stack([j, np.minimum(j + 1, lon.size - 1), j, np.minimum(j + 1, lon.size - 1)])
    weights = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u])
    if kind == "inverse-distance":
        away = np.hypot(lat[rows] - at_lat, lon[cols] - at_lon)
        with np.errstate(divide="ignore"):
            weights = np.where(away.min(axis=0) < 1e-6, away < 1e-6, 1 / away**2)
        weights = weights / weights.sum(axis=0)
    return rows, cols, weights, in_lat & in_lon


def at_points(
    values: Float[ndarray, "y x"],
    lat: Float[ndarray, " y"],
    lon: Float[ndarray, " x"],
    track: Track,
) -> Float[ndarray, " m"]:
    r"""Returns a map that does not depend on time at the points of a track, e.g. a variance."""
    start = track.time[:1]
    field = Field(values[None], start, lat, lon)
    still = Track(np.zeros(len(track)), np.repeat(start, len(track)), track.lat, track.lon)
    return interpolate_to_tracks(field, still)


def interpolate_to_tracks(
    field: Field, track: Track, kind: str = "linear"
) -> Float[ndarray, " m"]:
    r"""Returns a field at the points of a track: linear in time, and in space as told.

    Arguments:
        field: The field.
        track: The points, on any branch of longitude.
        kind: ``"linear"`` in latitude and longitude, or ``"inverse-distance"``: the four nodes
            around a point weigh one over the square of their distance in degrees.

    Returns:
        The values, with shape :math:`(m)`: NaN out of the field, or next to a node without value.

    Example:
        >>> days = np.datetime64("2012-10-22") + np.arange(2)
        >>> field = Field([[[0.0, 1.0]], [[2.0, 3.0]]], days, [38.0], [-65.0, -64.0])
        >>> track = Track([0.0], np.array(["2012-10-22T06"], "M8[ns]"), [38.0], [295.5])
        >>> interpolate_to_tracks(field, track)
        array([1.])
    """
    lon = field.lon[0] + np.mod(track.lon - field.lon[0] + 1e-9, 360.0) - 1e-9
    rows, cols, weights, inside = _corners(field.lat, field.lon, track.lat, lon, kind)
    k, w, in_time = _bracket(field.time, track.time)
    above = np.minimum(k + 1, field.time.size - 1)
    total = np.zeros(len(track))
    for date, share in ((k, 1 - w), (above, w)):
        part = weights * share
        total += np.where(part == 0, 0.0, field.values[date, rows, cols] * part).sum(axis=0)
    return np.where(inside & in_time, total, np.nan)


def daily_mean(field: Field) -> Field:
    r"""Returns the mean of each day, stamped at its first instant (00:00).

    The stamp is the one of the challenges: the mean of the hours of a day stands for its noon, so
    that a map that is valid at 00:00 is scored twelve hours off.

    Example:
        >>> half_days = np.datetime64("2012-10-22T00") + np.arange(4) * np.timedelta64(12, "h")
        >>> days = daily_mean(Field(np.arange(4.0)[:, None, None], half_days, [38.0], [0.0]))
        >>> days.values.ravel(), str(days.time[1])[:16]
        (array([0.5, 2.5]), '2012-10-23T00:00')
    """
    days, first = np.unique(field.time.astype("datetime64[D]"), return_index=True)
    if days.size == field.time.size:
        return Field(field.values, days, field.lat, field.lon)
    valid = np.isfinite(field.values)
    total = np.add.reduceat(np.where(valid, field.values, 0.0), first, axis=0)
    count = np.add.reduceat(valid.astype(float), first, axis=0)
    with np.errstate(invalid="ignore"):
        return Field(total / count, days, field.lat, field.lon)


def gauss_seidel(values: Float[ndarray, "*batch y x"]) -> Float[ndarray, "*batch y x"]:
    r"""Returns fields whose gaps hold the mean of their four neighbours, mirrored at the edges.

    The iteration of Gauss and Seidel goes to this solution of a discrete Laplace equation; it is
    solved for directly here. An iteration that stops at a tolerance differs by that tolerance.

    Raises:
        ValueError: If a field holds no value at all.

    Example:
        >>> gauss_seidel(np.array([[0.0, np.nan, np.nan, 3.0]]))
        array([[0., 1., 2., 3.]])
    """
    shape = values.shape
    found = [_filled(x) for x in values.reshape(-1, *shape[-2:])]
    return np.stack(found).reshape(shape)


def _filled(x: Float[ndarray, "y x"]) -> Float[ndarray, "y x"]:
    gaps = np.isnan(x)
    if not gaps.any():
        return x
    if gaps.all():
        cure = "Score dates and places that the map covers"
        raise refusal(call("gauss_seidel", "values"), "some values", "a field of NaN only", cure)
    rank = np.cumsum(gaps).reshape(x.shape) - 1
    i, j = gaps.nonzero()
    known, parts = np.zeros(i.size), []
    for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        a, b = _mirrored(i + di, x.shape[0]), _mirrored(j + dj, x.shape[1])
        free = gaps[a, b]
        known += np.where(free, 0.0, x[a, b])
        parts.append((rank[i, j][free], rank[a, b][free]))
    rows, cols = np.concatenate(parts, axis=1)
    every = np.arange(i.size)
    data = np.concatenate([np.full(i.size, 4.0), np.full(rows.size, -1.0)])
    where = (np.concatenate([every, rows]), np.concatenate([every, cols]))
    made = x.copy()
    made[i, j] = spsolve(coo_matrix((data, where)).tocsc(), known)
    return made


def _mirrored(index: Int[ndarray, " n"], size: int) -> Int[ndarray, " n"]:
    index = np.abs(index)
    return np.minimum(index, 2 * (size - 1) - index) if size > 1 else 0 * index


def spacing(lat: Float[ndarray, " y"], lon: Float[ndarray, " x"]) -> tuple[float, float]:
    r"""Returns the mean steps of a lattice in latitude and in longitude, in km, on the sphere."""
    degree = EARTH * np.pi / 180
    dy = degree * (lat[-1] - lat[0]) / (lat.size - 1)
    half = np.deg2rad((lon[-1] - lon[0]) / (lon.size - 1)) / 2
    chord = np.cos(np.deg2rad(lat)) * np.sin(half)
    return float(dy), float(2 * EARTH * np.arcsin(chord).mean())
