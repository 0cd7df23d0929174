r"""Clouds: which cells of an image are missing, from day to day.

A cell is hidden where a latent Gaussian field is above a threshold. The field is correlated as
:math:`\rho(h) = \exp(-(h / \ell)^a)` in space and :math:`\exp(-\Delta t / \tau)` in time; a small
exponent :math:`a` makes the ragged edges and the many scales of true clouds.
"""

from __future__ import annotations

__all__ = ["AVHRR", "Clouds", "indicator_correlation", "stationary_field"]

import math
import numpy as np
import torch
import xarray as xr

from dataclasses import dataclass
from jaxtyping import Bool, Complex, Float
from numpy.typing import ArrayLike
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.special import ndtr, ndtri, owens_t

from .spectra import white
from ..domain import EARTH_RADIUS

LARGEST = 2**24
"""The largest torus on which fields are drawn, in cells."""

NEGATIVE = 1e-3
"""The part of the contrast over the grid that a torus may spoil: its correlation is that exact."""


def indicator_correlation(
    correlation: Float[np.ndarray, "*h"], cover: float
) -> Float[np.ndarray, "*h"]:
    r"""Returns the correlation of cloud masks, from that of the latent field.

    With :math:`z = \Phi^{-1}(1 - p)` for a cover :math:`p`, two cells are both hidden with
    probability :math:`p - 2 T(z, \sqrt{(1 - \rho) / (1 + \rho)})`, :math:`T` that of Owen; a mask
    with half cover has :math:`2 \arcsin(\rho) / \pi`.

    Arguments:
        correlation: The correlation :math:`\rho` of the latent field.
        cover: The probability :math:`p` that a cell is hidden.

    Example:
        >>> indicator_correlation(np.array([0.0, 0.5, 1.0]), 0.5).round(4).tolist()
        [0.0, 0.3333, 1.0]
    """
    angle = np.sqrt((1.0 - correlation) / (1.0 + correlation))
    apart = 2.0 * owens_t(ndtri(1.0 - cover), angle)
    return 1.0 - apart / (cover * (1.0 - cover))


def _lags(size: int, step: float) -> Float[np.ndarray, " n"]:
    return step * np.minimum(np.arange(size), size - np.arange(size))


def _eigenvalues(
    sizes: tuple[int, int], steps: tuple[float, float], lengthscale: float, exponent: float
) -> Float[np.ndarray, "rows half"]:
    rows, columns = (_lags(size, step) for size, step in zip(sizes, steps, strict=True))
    distance = np.hypot(rows[:, None], columns)
    return np.asarray(rfft2(np.exp(-((distance / lengthscale) ** exponent))).real)


def _gains(
    sizes: tuple[int, int], steps: tuple[float, float], lengthscale: float, exponent: float
) -> tuple[Float[np.ndarray, "rows half"], float]:
    r"""The gains of a torus at each wave number, and the part of the variance that is negative.

    The variance is one whatever is cut off.
    """
    values = _eigenvalues(sizes, steps, lengthscale, exponent)
    twice = np.full(values.shape[1], 2.0)
    twice[0], twice[-1] = 1.0, 2.0 if sizes[1] % 2 else 1.0
    kept = np.maximum(values, 0.0)
    total = (kept @ twice).sum()
    missing = ((kept - values) @ twice).sum() / total
    return np.sqrt(kept * (sizes[0] * sizes[1] / total)), float(missing)


def _torus(
    shape: tuple[int, int], steps: tuple[float, float], lengthscale: float, exponent: float
) -> tuple[int, int]:
    extent = math.hypot(shape[0] * steps[0], shape[1] * steps[1])
    allowed = -NEGATIVE * math.expm1(-((extent / lengthscale) ** exponent))
    factor = 2.0  # less, and opposite sides would be neighbours
    while True:
        rows, columns = (next_fast_len(math.ceil(factor * n), real=True) for n in shape)
        if rows * columns > LARGEST:
            msg = (
                f"stationary_field(lengthscale={lengthscale:.4g}): expected a correlation that "
                f"fits on a torus of {LARGEST} cells, got a grid of {shape} cells of "
                f"{steps[0]:.3g} by {steps[1]:.3g} km. Shorten the lengthscale or widen the cells."
            )
            raise ValueError(msg)
        if _gains((rows, columns), steps, lengthscale, exponent)[1] <= allowed:
            return rows, columns
        factor *= 1.4


def _cut(
    waves: Complex[np.ndarray, "rows half"], sizes: tuple[int, int], shape: tuple[int, int]
) -> Float[np.ndarray, "lat lon"]:
    return np.asarray(irfft2(waves, s=sizes))[: shape[0], : shape[1]]


def stationary_field(
    shape: tuple[int, int],
    steps: tuple[float, float],
    lengthscale: float,
    exponent: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[np.ndarray, "rows columns"]:
    r"""Draws a Gaussian field of variance one on a regular grid, with a given correlation.

    The grid is embedded in a torus, made larger until the correlation is one on it, up to one
    thousandth of its fall over the grid: it is exact where the grid is much wider than
    :math:`\ell`.

    References:
        | Fast and exact simulation of stationary Gaussian processes through circulant embedding
          of the covariance matrix (Dietrich & Newsam, 1997)
        | https://doi.org/10.1137/S1064827592240555

    Arguments:
        shape: The number of rows and columns.
        steps: The steps between rows and between columns, in kilometres.
        lengthscale: The lengthscale :math:`\ell`, in kilometres.
        exponent: The exponent :math:`a`, above 0 and up to 1.
        generator: The random generator.

    Raises:
        ValueError: If no torus of a reasonable size is large enough.

    Example:
        >>> stationary_field((20, 30), (2.0, 2.0), lengthscale=10.0).shape
        (20, 30)
    """
    sizes = _torus(shape, steps, lengthscale, exponent)
    gain = _gains(sizes, steps, lengthscale, exponent)[0]
    return _cut(rfft2(white(sizes, generator)) * gain, sizes, shape)


def _in_days(time: ArrayLike) -> Float[np.ndarray, " t"]:
    values = np.asarray(time)
    if np.issubdtype(values.dtype, np.datetime64):
        values = (values - values.ravel()[0]) / np.timedelta64(1, "D")
    return values.astype(np.float64)


def _step(name: str, axis: Float[np.ndarray, " n"]) -> float:
    steps = np.diff(axis)
    if axis.ndim != 1 or axis.size < 2 or not np.allclose(steps, steps[0], rtol=1e-3):
        msg = (
            f"Clouds.draw({name}=...): expected a regular axis of at least 2 values, got shape "
            f"{axis.shape}. Draw on a regular grid, then interpolate."
        )
        raise ValueError(msg)
    return math.radians(abs(float(steps.mean()))) * EARTH_RADIUS / 1e3


def _memory(days: Float[np.ndarray, " t"], memory: float) -> Float[np.ndarray, " t"]:
    r"""The correlation of each day with the one before; 0 for the first one."""
    gaps = np.diff(days)
    decay = np.exp(-gaps / memory) if memory > 0.0 else np.zeros(gaps.size)
    return np.append(0.0, decay)


@dataclass(frozen=True)
class Clouds:
    r"""Random masks of clouds, persistent from day to day.

    Arguments:
        cover: The median :math:`p` over days of the expected part of cells that are hidden.
        lengthscale: The median lengthscale :math:`\ell` of the latent field, in kilometres.
        memory: The time :math:`\tau` after which clouds are others, in days; 0 for none.
        exponent: The exponent :math:`a` of the correlation: 1 for an exponential one, less for
            more scales.
        cover_spread: The standard deviation over days of :math:`\Phi^{-1}` of the expected cover.
        cover_memory: The time over which the expected cover changes, in days.
        lengthscale_spread: The standard deviation over days of :math:`\log \ell`.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> lat, lon = np.arange(34.0, 38.0, 0.1), np.arange(-6.0, 0.0, 0.1)
        >>> hidden = Clouds(cover=0.6).draw(lat, lon, time=np.arange(10.0))
        >>> hidden.shape, hidden.dtype
        ((10, 40, 60), dtype('bool'))
    """

    cover: float = 0.5
    lengthscale: float = 50.0
    memory: float = 1.0
    exponent: float = 1.0
    cover_spread: float = 0.0
    cover_memory: float = 0.0
    lengthscale_spread: float = 0.0

    def __post_init__(self) -> None:
        self._expect("cover", 0.0 < self.cover < 1.0, "a part inside (0, 1)")
        self._expect("lengthscale", 0.0 < self.lengthscale < math.inf, "positive kilometres")
        self._expect("exponent", 0.0 < self.exponent <= 1.0, "an exponent in (0, 1]")
        for name in ("memory", "cover_spread", "cover_memory", "lengthscale_spread"):
            self._expect(name, 0.0 <= getattr(self, name) < math.inf, "at least 0")

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            value = getattr(self, name)
            msg = f"Clouds({name}={value}): expected {what}, got {value}. AVHRR is an example."
            raise ValueError(msg)

    def _covers(
        self, days: Float[np.ndarray, " t"], generator: torch.Generator | None
    ) -> Float[np.ndarray, " t"]:
        change = white((days.size,), generator)
        for t, kept in enumerate(_memory(days, self.cover_memory)[1:], start=1):
            change[t] = kept * change[t - 1] + math.sqrt(1.0 - kept**2) * change[t]
        return np.asarray(ndtr(ndtri(self.cover) + self.cover_spread * change))

    def _lengthscales(
        self, size: int, generator: torch.Generator | None
    ) -> Float[np.ndarray, " t"]:
        change = np.clip(white((size,), generator), -2.0, 2.0)
        return self.lengthscale * np.exp(self.lengthscale_spread * change)

    def draw(
        self,
        lat: Float[np.ndarray, " rows"],
        lon: Float[np.ndarray, " columns"],
        time: ArrayLike,
        generator: torch.Generator | None = None,
    ) -> xr.DataArray:
        r"""Draws masks: True where a cell is hidden.

        Distances are those of the plane at the middle latitude.

        Arguments:
            lat: The latitudes of a regular grid, in degrees.
            lon: The longitudes, in degrees.
            time: The increasing times of the images: dates, or numbers of days.
            generator: The random generator.

        Raises:
            ValueError: If an axis is not regular, or if times do not increase.
        """
        days = _in_days(time)
        if days.ndim != 1 or not (np.diff(days) > 0.0).all():
            msg = (
                f"Clouds.draw(time=...): expected increasing times, got shape {days.shape} from "
                f"{days.min()} to {days.max()}. Sort them."
            )
            raise ValueError(msg)
        narrow = math.cos(math.radians(float(np.mean(lat))))
        steps = (_step("lat", lat), _step("lon", lon) * narrow)
        hidden = self._masks((lat.size, lon.size), steps, days, generator)
        axes = {"time": np.asarray(time), "lat": lat, "lon": lon}
        return xr.DataArray(hidden, axes, ("time", "lat", "lon"), name="hidden")

    def _masks(
        self,
        shape: tuple[int, int],
        steps: tuple[float, float],
        days: Float[np.ndarray, " t"],
        generator: torch.Generator | None,
    ) -> Bool[np.ndarray, "t rows columns"]:
        covers = self._covers(days, generator)
        lengthscales = self._lengthscales(days.size, generator)
        sizes = _torus(shape, steps, float(lengthscales.max()), self.exponent)
        hidden = np.empty((days.size, *shape), dtype=bool)
        waves, last, gain = np.zeros(()), -1.0, np.zeros(())
        for t, kept in enumerate(_memory(days, self.memory)):
            waves = kept * waves + math.sqrt(1.0 - kept**2) * rfft2(white(sizes, generator))
            if lengthscales[t] != last:
                last = float(lengthscales[t])
                gain = _gains(sizes, steps, last, self.exponent)[0]
            hidden[t] = _cut(waves * gain, sizes, shape) > ndtri(1.0 - covers[t])
        return hidden


AVHRR = Clouds(
    cover=0.45,
    lengthscale=150.0,
    memory=0.75,
    exponent=0.8,
    cover_spread=0.6,
    cover_memory=1.4,
    lengthscale_spread=0.5,
)
"""Clouds over the western Mediterranean sea in spring, as a radiometer in the infrared meets them:
covers of 10 to 90 %, many scales from 2 to 100 km, mostly others on the next day. Adjusted to ten
daily images: an example, not a climatology."""
