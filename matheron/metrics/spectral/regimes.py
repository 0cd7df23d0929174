r"""The scores of the challenges 2023a and 2024: variance explained along tracks, by regime."""

from __future__ import annotations

__all__ = ["REGIMES", "lanczos", "regime_masks", "regimes"]

import numpy as np

from collections.abc import Mapping
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy.spatial import cKDTree

from .fields import Field, Track, call, check_scale, refusal
from .odc2021a import check_seen
from .regrid import EARTH, at_points, interpolate_to_tracks
from .scored import Scored
from .segments import track_step

COAST, VARIANCE, TROPICS, POLES = 200.0, 0.02, 10.0, 70.0
REGIMES = (
    *("coastal", "offshore_high", "offshore_low"),
    *("equatorial", "arctic", "antarctic"),
)
Scalars = Float[ndarray, " m"]


def regimes(
    map: Field,
    tracks: Track,
    band: tuple[float, float] = (65.0, 500.0),
    distance: Float[ndarray, " m"] | None = None,
    variance: Float[ndarray, " m"] | None = None,
    signal: Float[ndarray, " m"] | None = None,
) -> Scored:
    r"""Scores a map by the variance that it explains along tracks, regime by regime.

    .. math:: 1 - \mathrm{var}(m - h) / \mathrm{var}(h)

    with the map :math:`m` at the data :math:`h`, over all scales, and for both of them filtered
    between two wavelengths (see :func:`lanczos`). The challenge 2023a has a band of 65 to 500 km,
    that of 2024 one of 65 to 200 km. Data within 200 km of the coast are coastal; those offshore
    are of high or low variability, as the variance of the sea level is over or under 0.02 m²;
    equatorial are all within 10 degrees, Arctic and Antarctic those beyond 70 degrees. The map is
    interpolated linearly in time, and by inverse squared distance in space.

    References:
        | https://github.com/ocean-data-challenges/2023a_SSH_mapping_OSE
        | https://github.com/ocean-data-challenges/2024_DC_SSH_mapping_SWOT_OSE

    Arguments:
        map: The map, of sea level anomalies in the challenges.
        tracks: The data, ``sla_unfiltered - lwe`` in the challenges, of one mission.
        band: The shortest and the longest wavelength of the filter, in km.
        distance: The distance of each datum to the coast, in km. By default to the nearest node
            where the map has no value at any date; where there is none, all is offshore.
        variance: The variance of the sea level at each datum, in m². By default that of the map
            over its dates, which is less.
        signal: The data whose variance divides, over all scales; the challenges have
            ``sla_unfiltered``, the long-wavelength correction included. By default the data.

    Returns:
        The score of each regime, over all scales, and in the band; undefined (NaN) where there are
        no data.

    Raises:
        ValueError: If both do not overlap, or if ``distance``, ``variance`` or ``signal`` is not
            given for each datum.
    """
    given = {"distance": distance, "variance": variance, "signal": signal}
    for name, x in given.items():
        if x is not None and x.size != len(tracks):
            cure = "Give one value per datum, in the order of their dates"
            raise refusal(call("regimes", name), f"{len(tracks)} values", str(x.size), cure)
    own, notes = _own(map, tracks, given)
    made = interpolate_to_tracks(map, tracks, "inverse-distance")
    row = np.isfinite(made)
    check_seen("regimes", map, tracks, row)
    check_scale("regimes", made[row], tracks.values[row])
    seen, made = tracks.where(row), made[row]
    whole = np.ones(len(seen), dtype=bool)
    masks = regime_masks(seen.lat, own["distance"][row], own["variance"][row])
    scored = {"all": whole, **masks}
    low, high = (_band(seen, x, band) for x in (seen.values, made))
    divisor = own["signal"][row]
    values = {k: _explained(made - seen.values, divisor, m) for k, m in scored.items()}
    values |= {f"{k}_band": _explained(high - low, low, m) for k, m in scored.items()}
    count = ", ".join(f"{k} {int(m.sum())}" for k, m in masks.items())
    notes += (f"{len(seen)} data: {count}", f"band: {band[0]:g} to {band[1]:g} km")
    return Scored("regimes", values, {}, notes, dict.fromkeys(values, 6))


def _own(
    map: Field, tracks: Track, given: Mapping[str, Scalars | None]
) -> tuple[dict[str, Scalars], tuple[str, ...]]:
    r"""Returns the distance, variance and signal of each datum, computed where not given."""
    found = {k: v for k, v in given.items() if v is not None}
    notes: tuple[str, ...] = ()
    if "distance" not in found:
        found["distance"], told = _coast(map, tracks)
        notes += (told,)
    if "variance" not in found:
        dry = np.isnan(map.values).any(axis=0)
        spread = np.where(dry, np.nan, map.values.var(axis=0))
        found["variance"] = at_points(spread, map.lat, map.lon, tracks)
        notes += ("high and low variability are told by the variance of the map itself",)
    found.setdefault("signal", tracks.values)
    return found, notes


def _cartesian(lat: Shaped[ndarray, " n"], lon: Shaped[ndarray, " n"]) -> Float[ndarray, "n 3"]:
    phi, psi = np.deg2rad(lat), np.deg2rad(lon)
    x, y = np.cos(phi) * np.cos(psi), np.cos(phi) * np.sin(psi)
    return np.stack([x, y, np.sin(phi)], axis=-1)


def _coast(map: Field, tracks: Track) -> tuple[Scalars, str]:
    r"""Returns the distance to the nearest node that never has a value, in km."""
    land = np.isnan(map.values).all(axis=0)
    if not land.any():
        return np.full(len(tracks), np.inf), "the map has no land: all data are offshore"
    i, j = land.nonzero()
    tree = cKDTree(_cartesian(map.lat[i], map.lon[j]))
    chord, _ = tree.query(_cartesian(tracks.lat, tracks.lon))
    away = 2 * EARTH * np.arcsin(np.clip(chord / 2, 0, 1))
    return away, "the coast is told by the nodes where the map has no value"


def regime_masks(
    lat: Scalars, distance: Scalars, variance: Scalars
) -> dict[str, Bool[ndarray, " m"]]:
    r"""Returns which data are in each regime: a datum may be in several, or in none.

    Example:
        >>> distance, variance = np.array([9.0, 900.0]), np.array([0.1, 0.1])
        >>> masks = regime_masks(np.array([5.0, 80.0]), distance, variance)
        >>> [k for k, m in masks.items() if m[1]]
        ['offshore_high', 'arctic']
    """
    off = distance > COAST
    return {
        "coastal": distance < COAST,
        "offshore_high": off & (variance > VARIANCE),
        "offshore_low": off & (variance < VARIANCE),
        "equatorial": np.abs(lat) <= TROPICS,
        "arctic": lat >= POLES,
        "antarctic": lat <= -POLES,
    }


def _explained(error: Scalars, signal: Scalars, kept: Bool[ndarray, " m"]) -> float:
    if kept.sum() < 2:
        return np.nan
    return float(1 - error[kept].var(ddof=1) / signal[kept].var(ddof=1))


def _band(track: Track, values: Scalars, band: tuple[float, float]) -> Scalars:
    dx = track_step(track)[1]
    if not band[1] > band[0] > dx:
        cure = "Give e.g. (65, 500)"
        expected = f"increasing wavelengths over {dx:.4g} km, the distance of data"
        raise refusal(call("regimes", "band"), expected, str(band), cure)
    short, long = (lanczos(track.time, values, float(x // dx)) for x in band)
    return short - long


def lanczos(time: Shaped[ndarray, " m"], values: Scalars, seconds: float) -> Float[ndarray, " m"]:
    r"""Returns data smoothed in time by a Lanczos window of order one, as the challenges do.

    .. math:: w(t) = \mathrm{sinc}^2(t / T), \qquad |t| < T

    The half width :math:`T` is a wavelength in *data* (its length over their median distance, in
    whole numbers), taken in seconds: right for data of 1 Hz. Tracks are not told apart, and the
    last datum counts for itself only; both are so in the challenges.

    Arguments:
        time: The dates, sorted.
        values: The data.
        seconds: The half width :math:`T`, in s.

    Example:
        >>> time = np.datetime64("2019-01-01") + np.arange(5) * np.timedelta64(1, "s")
        >>> lanczos(time, np.array([0.0, 0.0, 1.0, 0.0, 0.0]), 2.0).round(4)
        array([0.    , 0.2239, 0.5523, 0.2884, 0.    ])
    """
    t = (time - time[0]) / np.timedelta64(1, "s")
    total, weight = values.astype(float).copy(), np.ones(values.size)
    for lag in range(1, values.size):
        x = (t[lag:] - t[:-lag]) / seconds
        near = x < 1
        if not near.any():
            break
        w = np.where(near, np.sinc(x) ** 2, 0.0)
        total[lag:] += w * values[:-lag]
        weight[lag:] += w
        w[-1] = 0.0  # the loop of the challenges stops before the last datum
        total[:-lag] += w * values[lag:]
        weight[:-lag] += w
    return total / weight
