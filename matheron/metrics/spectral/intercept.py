r"""Where a score crosses one half: the shortest scale that is resolved.

The challenges read this scale off in ways that can mislead. They are kept here, to the digit, as
``legacy`` readings:

- :func:`first_contour` takes the *first* line that a contouring code finds, which may run around
  an island of noise, and takes both scales from two points of it;
- :func:`sorted_by_score` interpolates the wavelength as a function of the score, after sorting by
  score: where the score is not monotone, it joins wavelengths that are no neighbours;
- :func:`below_level` looks at the wavelengths longer than the first one that is not resolved, but
  sorts them by score as well.

The ``robust`` readings :func:`largest_component` and :func:`first_crossing` start from the largest
scales, and stop where the score falls under the level for the first time. Between two nodes they
take the score for linear in the *logarithm* of the wavelength: frequencies are the multiples of
one of them, hence the two longest wavelengths are one octave apart, and a chord in wavelength (as
the contour lines of the challenges) leans to the long end. They return infinity where the largest
scale itself is not resolved, and the shortest scale that the sampling allows where all are.
"""

from __future__ import annotations

__all__ = [
    "below_level",
    "first_contour",
    "first_crossing",
    "largest_component",
    "sorted_by_score",
]

import contourpy
import numpy as np

from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.interpolate import interp1d
from scipy.ndimage import label

from .psd import Plane, Radial

LEVEL = 0.5


def first_contour(score: Plane, level: float = LEVEL) -> tuple[float, float]:
    r"""Returns the least wavelength and period on the first contour line of a score.

    The lines are those that ``matplotlib.pyplot.contour`` draws by default, in its order, in the
    plane of wavelength and period; before its version 3.8 a path was one line. Where there is no
    line at all, or not two frequencies of each, the reading is undefined (the challenge stops on
    an error): NaN.

    Arguments:
        score: The score, on its frequencies.
        level: The level.

    Returns:
        The wavelength and the period, in the units of one over the frequencies.

    Example:
        >>> f = np.array([0.1, 0.2, 0.4])
        >>> plane = Plane(f, f, np.array([[1.0, 0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 0.0]]))
        >>> [round(x, 6) for x in first_contour(plane)]
        [4.0625, 4.0625]
    """
    if min(score.power.shape) < 2:  # too few dates or longitudes for a line
        return np.nan, np.nan
    x, y = np.meshgrid(1 / score.lon, 1 / score.time)
    # the algorithm of plt.contour: another one may find the lines in another order
    made = contourpy.contour_generator(
        x, y, score.power, name="mpl2014", line_type=contourpy.LineType.SeparateCode
    )
    lines: list[ndarray] = made.lines(level)[0]  # type: ignore[assignment, index]
    if not lines:
        return np.nan, np.nan
    return float(lines[0][:, 0].min()), float(lines[0][:, 1].min())


def _border(
    inside: Bool[ndarray, "t x"],
    power: Float[ndarray, "t x"],
    scale: Float[ndarray, " t"],
    level: float,
) -> float:
    r"""Returns the least scale along the first axis that a region reaches, crossings included."""
    least = scale[np.flatnonzero(inside.any(axis=1)).max()]
    for near, far in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        out = inside[near] & (power[far] < level)
        i, j = out.nonzero()
        a, b = power[near][i, j], power[far][i, j]
        w = (a - level) / (a - b)
        long, short = np.log(scale[near][i]), np.log(scale[far][i])
        least = min(least, np.exp(long + w * (short - long)).min(initial=np.inf))
    return float(least)


def largest_component(score: Plane, level: float = LEVEL) -> tuple[float, float]:
    r"""Returns the shortest wavelength and period of what is resolved from the largest scales on.

    The region where the score is at least ``level`` falls into parts that are connected along the
    axes. The part that counts is the one of the largest scales: it holds one of the 2 x 2 nodes of
    longest wavelengths and periods (a single node may be under the level by chance). The scales
    are the least ones of that part and of the crossings around it, where the score is linear in
    the logarithm of the scale.

    Arguments:
        score: The score, on its frequencies.
        level: The level.

    Returns:
        The wavelength and the period: infinite where the largest scales are not resolved, the
        shortest ones of the sampling where the part reaches them.

    Example:
        >>> f = np.array([0.1, 0.2, 0.4])
        >>> plane = Plane(f, f, np.array([[1.0, 0.8, 0.0], [0.8, 0.0, 0.0], [0.0, 0.0, 0.9]]))
        >>> [round(x, 3) for x in largest_component(plane)]
        [3.856, 3.856]
    """
    parts, _ = label(score.power >= level)
    found = np.unique(parts[:2, :2])
    inside = np.isin(parts, found[found > 0])
    if not inside.any():
        return np.inf, np.inf
    x = _border(inside.T, score.power.T, 1 / score.lon, level)
    return x, _border(inside, score.power, 1 / score.time, level)


def sorted_by_score(score: Radial, level: float = LEVEL, extrapolate: bool = False) -> float:
    r"""Returns the wavelength at a level by interpolation between scores, sorted by score.

    The frequency 0, where it is there, has an infinite wavelength.

    Arguments:
        score: The score, on its frequencies.
        level: The level.
        extrapolate: Whether a level out of the scores is extrapolated, as OceanBench does (two
            scores that are equal are then an error there); otherwise the reading is undefined
            (the challenge stops on a ValueError): NaN.

    Example:
        >>> sorted_by_score(Radial(np.array([0.1, 0.2]), np.array([1.0, 0.0])))
        7.5
        >>> score = Radial(np.array([0.1, 0.2, 0.4]), np.array([0.9, 0.2, 0.6]))
        >>> round(sorted_by_score(score), 3)  # between wavelengths that are no neighbours
        3.125
    """
    if extrapolate and np.unique(score.power).size < max(score.power.size, 2):
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        wavelength = 1 / score.frequency
        if extrapolate:
            read = interp1d(score.power, wavelength, kind="slinear", fill_value="extrapolate")
        else:
            read = interp1d(score.power, wavelength, bounds_error=False)
        return float(read(level))


def below_level(score: Radial, level: float = LEVEL) -> float:
    r"""Returns the wavelength at a level, from the largest scales to the first one below it.

    The frequency is interpolated as a function of the score, sorted by score, from the frequencies
    up to the first one whose score is at most the level. Undefined (NaN) where no score is, or
    where all those frequencies are one.

    Example:
        >>> below_level(Radial(np.array([0.1, 0.2, 0.4]), np.array([1.0, 0.0, 0.9])))
        6.666...
    """
    low = (score.power <= level).nonzero()[0]
    if low.size == 0 or low[0] == 0:
        return np.nan
    part = slice(0, low[0] + 1)
    order = np.argsort(score.power[part], kind="stable")
    return float(1 / np.interp(level, score.power[part][order], score.frequency[part][order]))


def first_crossing(score: Radial, level: float = LEVEL) -> float:
    r"""Returns the wavelength where a score falls under a level, from the largest scales on.

    The frequency 0, which is no scale, is left out. Between both nodes the score is linear in the
    logarithm of the wavelength.

    Returns:
        The wavelength: infinite where the largest scale is not resolved, the shortest one of the
        sampling where all are.

    Example:
        >>> score = Radial(np.array([0.1, 0.2, 0.4]), np.array([0.9, 0.1, 0.6]))
        >>> round(first_crossing(score), 3)
        7.071
    """
    kept = score.frequency > 0
    if not kept.any():
        return np.nan
    wavelength, power = 1 / score.frequency[kept], score.power[kept]
    low = (~(power >= level)).nonzero()[0]
    if low.size == 0:
        return float(wavelength[-1])
    if low[0] == 0:
        return np.inf
    i = low[0]
    w = (power[i - 1] - level) / (power[i - 1] - power[i])
    return float(wavelength[i - 1] * (wavelength[i] / wavelength[i - 1]) ** w)
