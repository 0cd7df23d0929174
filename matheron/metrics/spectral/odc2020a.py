r"""The scores of the ocean data challenge 2020a: maps of SSH against a model, on a lattice."""

from __future__ import annotations

__all__ = ["odc2020a", "on_truth", "rms_scores"]

import numpy as np

from jaxtyping import Float
from numpy import ndarray

from .fields import Field, call, check_scale, refusal, same_branch, step_of
from .intercept import first_contour
from .psd import Plane, score, time_lon
from .regrid import daily_mean, gauss_seidel, regrid
from .scored import Scored

UNITS = {"lambda_x": "deg", "lambda_t": "days"}
DECIMALS = {"mu": 2, "sigma": 2, "lambda_x": 2, "lambda_t": 2}
COVERED = 0.5
"""The share of the nodes of the truth that a map must cover."""


def odc2020a(
    map: Field,
    truth: Field,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
) -> Scored:
    r"""Scores a map against the truth as the ocean data challenge 2020a does.

    The truth becomes daily means, stamped 00:00; the map is interpolated linearly in time and
    space onto them, its gaps filled from the neighbours. Then, over all nodes and dates,

    .. math:: \mu = 1 - \sqrt{\overline{e^2}} / \sqrt{\overline{h^2}}, \qquad
        \sigma = \mathrm{std}_t \left( 1 - \mathrm{rms}_{xy}(e) / \mathrm{rms}_{xy}(h) \right)

    with the error :math:`e` and the truth :math:`h`, from which **no mean is removed**: a constant
    added to both raises :math:`\mu`. :math:`\lambda_x` and :math:`\lambda_t` are the least
    wavelength and period on the first line at one half of :math:`1 - P_e / P_h`, in the plane of
    wavelength and period.

    References:
        | A data challenge to compare mapping techniques of SSH (Ocean Data Challenges, 2020)
        | https://github.com/ocean-data-challenges/2020a_SSH_mapping_NATL60

    Arguments:
        map: The map.
        truth: The truth, without any gap.
        start: The first instant of the truth; the challenge has 2012-10-22. By default all that
            the map covers.
        end: The last instant of the truth; the challenge has 2012-12-02, which is 41 days.

    Returns:
        ``mu``, ``sigma``, ``lambda_x`` in degrees of longitude, ``lambda_t`` in days. Where the
        score has no line at one half, both scales are undefined (NaN).

    Raises:
        ValueError: If both do not overlap, if the truth has gaps, or if an axis is irregular.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> days = np.datetime64("2012-10-22") + np.arange(16)
        >>> axes = (days, np.arange(33, 37.0), np.arange(-65, -49.0))
        >>> true = Field(rng.standard_normal((16, 4, 16)), *axes)
        >>> odc2020a(Field(0.9 * true.values, *axes), true).values["mu"]
        0.9
    """
    true = daily_mean(truth.between(start, end))
    made, true, notes = on_truth("odc2020a", map, true)
    mu, sigma = rms_scores(made.values - true.values, true.values)
    lambda_x, lambda_t = first_contour(spectral_score(made, true))
    if np.isnan(lambda_x):
        notes += ("the PSD score has no line at 0.5: the definition gives no scale",)
    values = {"mu": mu, "sigma": sigma, "lambda_x": lambda_x, "lambda_t": lambda_t}
    if np.unique(truth.time.astype("datetime64[D]")).size < truth.time.size:
        notes += ("daily means of the truth are stamped 00:00, though they stand for noon",)
    if np.isnan(map.values).any():
        notes += ("gaps of the map are extrapolated, not masked",)
    return Scored("odc2020a", values, UNITS, notes, DECIMALS)


def on_truth(
    where: str, map: Field, truth: Field, fill: bool = True
) -> tuple[Field, Field, tuple[str, ...]]:
    r"""Returns a map on the nodes of the truth, the truth on the dates of the map, and notes."""
    check_scale(where, map.values, truth.values)
    dates = (truth.time >= map.time[0]) & (truth.time <= map.time[-1])
    if not dates.any():
        got = f"{map.time[0]:} to {map.time[-1]:}".replace(".000000000", "")
        expected = f"a map within {truth.time[0]} to {truth.time[-1]}".replace(".000000000", "")
        raise refusal(call(where, "map"), expected, got, "Check the dates")
    truth = truth.where(time=dates)
    made = regrid(map, truth.time, truth.lat, truth.lon)
    share = float(np.isfinite(made.values).mean())
    if share < COVERED:
        own = same_branch(map.lon, truth.lon)
        got = f"{100 * share:.0f} % of them, in {own[0]:g}..{own[-1]:g} E, "
        got += f"{map.lat[0]:g}..{map.lat[-1]:g} N"
        box = f"{truth.lon[0]:g}..{truth.lon[-1]:g} E, {truth.lat[0]:g}..{truth.lat[-1]:g} N"
        cure = "Crop the truth to the map"
        raise refusal(call(where, "map"), f"a map that covers the truth, in {box}", got, cure)
    notes: tuple[str, ...] = (f"{dates.sum()} dates, {truth.lat.size} x {truth.lon.size} nodes",)
    if fill:
        check_whole(where, truth)
        made = Field(gauss_seidel(made.values), made.time, made.lat, made.lon)
    if share < 1:
        what = "extrapolated" if fill else "left out"
        notes += (f"{100 * (1 - share):.2g} % of the nodes are not covered by the map: {what}",)
    return made, truth, notes


def check_whole(where: str, truth: Field) -> None:
    r"""Refuses a truth with gaps."""
    bad = int((~np.isfinite(truth.values)).sum())
    if bad:
        cure = "Crop the truth to the sea, or use the definition 'robust'"
        got = f"{bad} NaN or Inf among {truth.values.size}"
        raise refusal(call(where, "truth"), "a truth without any gap", got, cure)


def rms_scores(
    error: Float[ndarray, "time lat lon"], truth: Float[ndarray, "time lat lon"]
) -> tuple[float, float]:
    r"""Returns :math:`\mu` and :math:`\sigma` of the challenge."""
    rms = lambda x, axes: np.sqrt((x**2).mean(axis=axes))
    if not rms(truth, None) > 0:
        cure = "Check the variable"
        raise refusal(call("score", "truth"), "a truth that is not zero", "zeros only", cure)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_date = 1 - rms(error, (1, 2)) / rms(truth, (1, 2))
    return float(1 - rms(error, None) / rms(truth, None)), float(by_date.std())


def spectral_score(made: Field, true: Field, window: str = "hann") -> Plane:
    r"""Returns the score in time (days) and longitude (degrees) of a map on the same nodes."""
    dt = step_of("score", "time", true.time)
    dx = step_of("score", "lon", true.lon)
    error = time_lon(made.values - true.values, dt, dx, window)
    signal = time_lon(true.values, dt, dx, window)
    return signal._replace(power=score(error.power, signal.power))
