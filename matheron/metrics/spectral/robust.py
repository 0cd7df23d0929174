r"""Scores without the artefacts of the challenges, of maps against a truth or along tracks."""

from __future__ import annotations

__all__ = ["robust"]

import numpy as np
import torch

from jaxtyping import Bool, Float
from numpy import ndarray

from .fields import Field, Track, call, refusal
from .intercept import first_contour, first_crossing, largest_component
from .odc2020a import on_truth, spectral_score
from .odc2021a import FEWEST, daily_scores, nrmse_score, on_tracks
from .psd import Radial, isotropic, periodograms, score
from .regrid import regrid, spacing
from .scored import Scored
from .segments import Segments, regular_segments

LENGTHS = (1000.0, 750.0, 500.0, 350.0, 250.0)
"""The lengths of segments, in km, of which the first that enough passes have is taken."""
PASSES = 5
LEVEL = 0.9
SLACK = 1e-9
"""What rounding may move a longitude by, in degrees."""


def robust(
    map: Field,
    truth: Field | None = None,
    tracks: Track | None = None,
    generator: torch.Generator | None = None,
    size: int = 1000,
) -> Scored:
    r"""Scores a map against a truth, or against independent tracks, without known artefacts.

    Against a truth, on its nodes that the map covers (nothing is extrapolated), at the dates of
    the map (or of the truth, where they are fewer), with weights :math:`\cos(lat)`:

    - ``mu`` and ``sigma`` as in :func:`odc2020a`, but for the weights;
    - ``mu_anomaly``: the same error against the truth less its mean in time, which does not move
      with a constant, nor with the mean front;
    - ``rmse``;
    - ``lambda_x`` (degrees), ``lambda_x_km`` and ``lambda_t`` (days), from the part of the score
      in time and longitude that is resolved from the largest scales on, see
      :func:`largest_component`;
    - ``lambda_iso`` (km), by radial wavenumber, at the first crossing from the largest scales on.

    Against tracks: ``mu`` over all data, ``mu_anomaly`` against the data less their mean,
    ``mu_daily`` and ``sigma`` over days of ten data or more, ``rmse``, and ``lambda_x`` (km) at
    the first crossing of the score of segments that hold no jump, with ``lambda_x_low`` and
    ``lambda_x_high``, the ends of its 90 % interval by a bootstrap over passes (segments of one
    pass overlap: they are drawn together). The data's noise is in all of these.

    Scales are infinite where the largest one is not resolved, and the shortest one of the sampling
    where all are.

    Arguments:
        map: The map.
        truth: The truth, on a lattice.
        tracks: The data, instead of the truth.
        generator: The random number generator, for the bootstrap.
        size: The number of draws of the bootstrap.

    Raises:
        ValueError: If neither or both of ``truth`` and ``tracks`` are given, or if there is no
            overlap.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> days = np.datetime64("2012-10-22") + np.arange(16)
        >>> axes = (days, np.arange(33, 37.0), np.arange(-65, -49.0))
        >>> true = Field(rng.standard_normal((16, 4, 16)), *axes)
        >>> scored = robust(Field(0.9 * true.values, *axes), true)
        >>> round(scored.values["mu"], 6), scored.values["lambda_x"]
        (0.9, 2.285714...)
    """
    if (truth is None) == (tracks is None):
        got = "neither" if truth is None else "both"
        raise refusal(call("robust", "truth, tracks"), "one of the two", got, "Give either")
    if truth is not None:
        return _against_truth(map, truth)
    assert tracks is not None
    return _against_tracks(map, tracks, generator, size)


def _together(map: Field, truth: Field) -> tuple[Field, Field, tuple[str, ...]]:
    r"""Returns both on the nodes of the truth within the map, at dates that both have."""
    own = map.on(truth.lon)
    lat, lon = (
        (x >= y[0] - SLACK) & (x <= y[-1] + SLACK)
        for x, y in ((truth.lat, own.lat), (truth.lon, own.lon))
    )
    if lat.any() and lon.any():
        truth = truth.where(lat=lat, lon=lon)
    pace = lambda x: np.median(np.diff(x.time)) if x.time.size > 1 else np.timedelta64(0)
    if pace(truth) < pace(map):
        shared = (map.time >= truth.time[0]) & (map.time <= truth.time[-1])
        if shared.any():
            truth = regrid(truth, map.time[shared], truth.lat, truth.lon)
    return on_truth("robust", map, truth, fill=False)


def _against_truth(map: Field, truth: Field) -> Scored:
    made, true, notes = _together(map, truth)
    seen = np.isfinite(made.values) & np.isfinite(true.values)
    weights = np.where(seen, np.cos(np.deg2rad(true.lat))[:, None], 0.0)
    values = _weighted(made.values, true.values, weights)
    rows = seen.all(axis=(0, 2))
    scales, told = _scales(made, true, rows)
    units = {"rmse": "", "lambda_x": "deg", "lambda_x_km": "km", "lambda_t": "days"}
    units["lambda_iso"] = "km"
    return Scored("robust", values | scales, units, notes + told)


def _weighted(
    made: Float[ndarray, "t y x"], true: Float[ndarray, "t y x"], weights: Float[ndarray, "t y x"]
) -> dict[str, float]:
    h, e = (np.where(weights > 0, x, 0.0) for x in (true, made - true))
    total = weights.sum(axis=0)
    mean = np.divide((weights * h).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    rms = lambda x, axes=None: np.sqrt((weights * x**2).sum(axes) / weights.sum(axes))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_date = 1 - rms(e, (1, 2)) / rms(h, (1, 2))
        found = {
            "mu": 1 - rms(e) / rms(h),
            "sigma": np.nanstd(by_date),
            "mu_anomaly": 1 - rms(e) / rms(h - mean),
            "rmse": rms(e),
        }
    return {k: float(v) for k, v in found.items()}


def _scales(
    made: Field, true: Field, rows: Bool[ndarray, " y"]
) -> tuple[dict[str, float], tuple[str, ...]]:
    names = ("lambda_x", "lambda_x_km", "lambda_t", "lambda_iso")
    if not rows.any() or min(true.time.size, true.lon.size) < 4:
        told = "no latitude is whole, or too few dates: no scale"
        return dict.fromkeys(names, np.nan), (told,)
    notes: tuple[str, ...] = ()
    if not rows.all():
        notes += (f"spectra of {rows.sum()} latitudes of {rows.size}: the others have gaps",)
    # a latitude counts in a mean spectrum by the square of its factor
    factor = np.sqrt(np.cos(np.deg2rad(true.lat)))[:, None]
    a, b = (Field(x.values * factor, x.time, x.lat, x.lon).where(lat=rows) for x in (made, true))
    plane = spectral_score(a, b)
    lambda_x, lambda_t = largest_component(plane)
    legacy = first_contour(plane)
    if not np.allclose(legacy, (lambda_x, lambda_t), rtol=0.1, equal_nan=True):
        notes += (f"the first contour line would say {legacy[0]:.3g} deg, {legacy[1]:.3g} days",)
    dy, dx = spacing(b.lat, b.lon) if b.lat.size > 1 else (np.nan, np.nan)
    km = lambda_x * dx / (b.lon[1] - b.lon[0])
    found = dict(zip(names, (lambda_x, km, lambda_t, np.nan), strict=True))
    if np.ptp(rows.nonzero()[0]) + 1 == rows.sum() >= 8 <= true.lon.size:
        # as they are, weights apart: a factor that changes with latitude would leak
        a, b = made.where(lat=rows), true.where(lat=rows)
        error, signal = (isotropic(x, dy, dx, "hann") for x in (a.values - b.values, b.values))
        found["lambda_iso"] = first_crossing(
            signal._replace(power=score(error.power, signal.power))
        )
    return found, notes


def _cut(track: Track, made: Float[ndarray, " m"]) -> tuple[Segments, float]:
    r"""Returns the longest segments that enough passes have, and their length."""
    for length in LENGTHS[:-1]:
        try:
            found = regular_segments(track, made, length)
        except ValueError:  # none so long: shorter ones may exist
            continue
        if np.unique(found.passes).size >= PASSES:
            return found, length
    return regular_segments(track, made, LENGTHS[-1]), LENGTHS[-1]


def _against_tracks(
    map: Field, tracks: Track, generator: torch.Generator | None, size: int
) -> Scored:
    seen, made = on_tracks("robust", map, tracks)
    error = made - seen.values
    by_day = daily_scores("robust", seen, made)
    segments, length = _cut(seen, made)
    lambda_x, low, high = _interval(segments, generator, size)
    values = {
        "mu": nrmse_score(error, seen.values),
        "mu_anomaly": nrmse_score(error, seen.values - seen.values.mean()),
        "mu_daily": float(by_day.mean()),
        "sigma": float(by_day.std()),
        "rmse": float(np.sqrt((error**2).mean())),
        "lambda_x": lambda_x,
        "lambda_x_low": low,
        "lambda_x_high": high,
    }
    notes = (
        f"{len(seen)} data, {by_day.size} days of {FEWEST} data or more",
        f"{segments.passes.size} segments of {length:g} km, from "
        f"{np.unique(segments.passes).size} passes, data {segments.dx:.3f} km apart",
        f"lambda_x_low, lambda_x_high: {100 * LEVEL:g} % interval, bootstrap over passes",
    )
    return Scored("robust", values, dict.fromkeys(list(values)[5:], "km"), notes)


def _interval(
    segments: Segments, generator: torch.Generator | None, size: int
) -> tuple[float, float, float]:
    r"""Returns the scale that is resolved along tracks, and the ends of its interval."""
    _, own = np.unique(segments.passes, return_inverse=True)
    count = int(own.max()) + 1
    member = np.eye(count)[own].T
    error = member @ periodograms(segments.study - segments.reference, segments.dx)
    signal = member @ periodograms(segments.reference, segments.dx)
    n = segments.reference.shape[1]
    frequency = np.fft.rfftfreq(n, segments.dx)

    def crossing(bad: ndarray, good: ndarray) -> float:
        return first_crossing(Radial(frequency, score(bad, good)))

    drawn = torch.randint(count, (size, count), generator=generator).numpy()
    times = np.stack([np.bincount(d, minlength=count) for d in drawn]).astype(float)
    found = [crossing(e, s) for e, s in zip(times @ error, times @ signal, strict=True)]
    ends = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return crossing(error.sum(axis=0), signal.sum(axis=0)), float(ends[0]), float(ends[1])
