r"""The scores of OceanBench (SSH edition): maps of SSH against a model, on its own lattice."""

from __future__ import annotations

__all__ = ["oceanbench"]

import numpy as np

from .fields import Field, call, check_scale, refusal, same_branch, step_of
from .intercept import first_contour, sorted_by_score
from .odc2020a import check_whole, rms_scores
from .psd import isotropic, score, time_lon
from .regrid import daily_mean, gauss_seidel, regrid, spacing
from .scored import Scored

BOX = ((33.0, 43.0), (-65.0, -55.0))
"""The latitudes and longitudes of the Gulf Stream of the benchmark."""
STEP = 0.05
NAMES = {"lambda_iso": "km", "lambda_x": "km", "lambda_t": "days"}
TRUE = {"lambda_iso_true": "km", "lambda_x_true": "km"}
DECIMALS = {"nrmse": 3, **dict.fromkeys((*NAMES, *TRUE), 2)}


def oceanbench(
    map: Field,
    truth: Field,
    box: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Scored:
    r"""Scores a map against the truth as OceanBench (SSH edition) does.

    Both become daily means on a lattice of 0.05 degrees, whose end points are left out, their gaps
    filled from the neighbours. ``nrmse`` is the :math:`\mu` of the challenge 2020a. Spectra have
    Tukey windows; ``lambda_x`` and ``lambda_t`` are read from the first line at one half of the
    score in time and longitude, ``lambda_iso`` from the score by radial wavenumber, interpolated
    after sorting by score.

    The benchmark swaps the axes as it turns degrees into metres: longitudes take the step of
    latitudes. Its ``lambda_x`` is 1.27 times too long at 38 N. The published numbers have that
    error, and so do the names of the definition here; ``lambda_x_true`` and ``lambda_iso_true``
    are without it. A degree is that of a sphere of 6371 km.

    References:
        | OceanBench: the sea surface height edition (Johnson et al., 2023)
        | https://arxiv.org/abs/2309.15599

    Arguments:
        map: The map.
        truth: The truth.
        box: The bounds of latitude and of longitude. By default 33 to 43 N, 65 to 55 W, where the
            truth is there; otherwise the extent of the truth.

    Returns:
        ``nrmse``, ``lambda_iso`` and ``lambda_x`` in km, ``lambda_t`` in days. Where the score has
        no line at one half, the scales are infinite, as in the benchmark.

    Raises:
        ValueError: If both do not overlap.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> days = np.datetime64("2012-10-22") + np.arange(8)
        >>> axes = (days, 33 + 0.1 * np.arange(16), -65 + 0.1 * np.arange(20))
        >>> true = Field(rng.standard_normal((8, 16, 20)), *axes)
        >>> scored = oceanbench(Field(0.9 * true.values, *axes), true)
        >>> scored.printed("nrmse"), scored.printed("lambda_x")
        ('0.900', 'inf')
    """
    check_scale("oceanbench", map.values, truth.values)
    box, notes = (box, ()) if box is not None else _box(truth)
    made, true = _on_lattice(daily_mean(map), daily_mean(truth), box)
    days = step_of("oceanbench", "time", true.time)
    dy, dx = spacing(true.lat, true.lon)
    error = made.values - true.values

    def first_line(step: float) -> tuple[float, float]:
        bad, good = (time_lon(x, days, step, "tukey") for x in (error, true.values))
        found = first_contour(good._replace(power=score(bad.power, good.power)))
        return (np.inf, np.inf) if np.isnan(found[0]) else found

    def radial(lat: float, lon: float) -> float:
        bad, good = (isotropic(x, lat, lon) for x in (error, true.values))
        found = good._replace(power=score(bad.power, good.power))
        return sorted_by_score(found, extrapolate=True)

    swapped, right = first_line(dy), first_line(dx)
    values = {
        "nrmse": rms_scores(error, true.values)[0],
        "lambda_iso": radial(dx, dy),
        "lambda_x": swapped[0],
        "lambda_t": swapped[1],
        "lambda_iso_true": radial(dy, dx),
        "lambda_x_true": right[0],
    }
    notes += (
        f"{true.time.size} days, {true.lat.size} x {true.lon.size} nodes",
        f"lambda_x and lambda_iso have the swapped axes of the benchmark ({dy / dx:.2f} times "
        "too long in x); those that end with _true do not",
    )
    return Scored("oceanbench", values, {**NAMES, **TRUE}, notes, DECIMALS)


Box = tuple[tuple[float, float], tuple[float, float]]


def _box(truth: Field) -> tuple[Box, tuple[str, ...]]:
    lon = same_branch(truth.lon, np.array(BOX[1]))
    slack = 0.11
    ends = ((truth.lat, BOX[0]), (lon, BOX[1]))
    if all(x[0] <= b[0] + slack and x[-1] >= b[1] - slack for x, b in ends):
        return BOX, ()
    made = ((truth.lat[0], truth.lat[-1]), (truth.lon[0], truth.lon[-1]))
    return made, ("the box is the extent of the truth, not 33..43 N, 65..55 W",)


def _on_lattice(map: Field, truth: Field, box: Box) -> tuple[Field, Field]:
    r"""Returns both on the lattice of the benchmark, on the days that both have."""
    axes = [low + STEP * np.arange(round((high - low) / STEP)) for low, high in box]
    days = np.intersect1d(map.time, truth.time)
    if days.size == 0:
        got = f"{map.time[0]} to {map.time[-1]}".replace(".000000000", "")
        expected = f"days within {truth.time[0]} to {truth.time[-1]}".replace(".000000000", "")
        raise refusal(call("oceanbench", "map"), expected, got, "Check the dates")
    both = []
    for name, field in (("map", map), ("truth", truth)):
        made = regrid(field, days, *axes)
        if np.isfinite(made.values).mean() < 0.5:
            got = f"{field.lat[0]:g}..{field.lat[-1]:g} N, {field.lon[0]:g}..{field.lon[-1]:g} E"
            expected = f"a field in {box[0][0]:g}..{box[0][1]:g} N, {box[1][0]:g}..{box[1][1]:g} E"
            raise refusal(call("oceanbench", name), expected, got, "Check the box")
        both.append(Field(gauss_seidel(made.values), *_axes(made)))
    check_whole("oceanbench", both[1])
    return both[0], both[1]


def _axes(field: Field) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return field.time, field.lat, field.lon
