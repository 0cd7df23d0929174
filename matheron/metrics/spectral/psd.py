r"""Power spectra as the challenges define them, by the discrete Fourier transform of numpy.

A score compares the spectrum of the error with that of the reference,

.. math:: S(f) = 1 - P_{error}(f) / P_{reference}(f),

so that a factor common to both, e.g. that of a window, is of no matter and is left out.
"""

from __future__ import annotations

__all__ = ["Plane", "Radial", "along_track", "isotropic", "periodograms", "score", "time_lon"]

import numpy as np

from jaxtyping import Float
from numpy import ndarray
from scipy.signal import welch, windows
from typing import NamedTuple


class Plane(NamedTuple):
    r"""A spectrum, or a score, on frequencies of time and of longitude, all positive."""

    time: Float[ndarray, " t"]
    lon: Float[ndarray, " x"]
    power: Float[ndarray, "t x"]


class Radial(NamedTuple):
    r"""A spectrum, or a score, on increasing frequencies."""

    frequency: Float[ndarray, " k"]
    power: Float[ndarray, " k"]


def _taper(window: str, shape: tuple[int, int]) -> Float[ndarray, "a b"]:
    r"""Returns the product of two periodic windows, one per axis."""
    make = {"hann": windows.hann, "tukey": windows.tukey}[window]
    a, b = (make(n, sym=False) for n in shape)
    return a[:, None] * b


def _without_plane(x: Float[ndarray, "*batch a b"]) -> Float[ndarray, "*batch a b"]:
    r"""Returns fields less the plane that fits each of them best."""
    a, b = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in x.shape[-2:]), indexing="ij")
    design = np.stack([np.ones(a.size), a.ravel(), b.ravel()], axis=1)
    basis = np.linalg.qr(design)[0]
    flat = x.reshape(*x.shape[:-2], -1)
    return x - ((flat @ basis) @ basis.T).reshape(x.shape)


def _power(
    x: Float[ndarray, "*batch a b"], window: str, detrend: str
) -> Float[ndarray, "*batch a b"]:
    means = x.mean(axis=(-2, -1), keepdims=True)
    x = _without_plane(x) if detrend == "linear" else x - means
    return np.abs(np.fft.fft2(x * _taper(window, x.shape[-2:]))) ** 2


def time_lon(
    values: Float[ndarray, "time lat lon"],
    dt: float,
    dx: float,
    window: str = "hann",
    detrend: str = "constant",
) -> Plane:
    r"""Returns the spectrum in time and longitude, averaged over latitudes.

    At each latitude the mean is removed, both axes are tapered by a periodic window, and the
    power is that of the two-dimensional transform. Frequencies that are not positive are left out.

    Arguments:
        values: The field, without any gap.
        dt: The step in time, e.g. in days.
        dx: The step in longitude, e.g. in degrees.
        window: ``"hann"`` or ``"tukey"`` (a quarter of cosine at each end).
        detrend: What is removed at each latitude: ``"constant"``, or ``"linear"``, a plane in
            time and longitude.

    Example:
        >>> t, x = np.arange(8.0)[:, None, None], np.arange(8.0)
        >>> wave = np.cos(2 * np.pi * (t / 4 + x / 4)) + np.zeros((8, 1, 8))
        >>> found = time_lon(wave, 1.0, 1.0)
        >>> [int(i) for i in np.unravel_index(found.power.argmax(), found.power.shape)]
        [1, 1]
    """
    power = _power(values.transpose(1, 0, 2), window, detrend).mean(axis=0)
    ft, fx = np.fft.fftfreq(values.shape[0], dt), np.fft.fftfreq(values.shape[2], dx)
    return Plane(ft[ft > 0], fx[fx > 0], power[np.ix_(ft > 0, fx > 0)])


def isotropic(
    values: Float[ndarray, "time lat lon"],
    dy: float,
    dx: float,
    window: str = "tukey",
    factor: int = 2,
) -> Radial:
    r"""Returns the spectrum by radial wavenumber, averaged over times.

    The plane of wavenumbers is cut into ``min(lat, lon) / factor`` rings of equal width, from the
    least to the largest radius; a ring stands at the mean radius of its nodes, and holds their
    mean power times that radius. Rings over the smaller of both Nyquist wavenumbers, and empty
    ones, are left out.

    Arguments:
        values: The field, without any gap.
        dy: The step in latitude, e.g. in km.
        dx: The step in longitude, in the same units.
        window: ``"hann"`` or ``"tukey"``.
        factor: The number of nodes per ring.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((2, 16, 16))
        >>> isotropic(x, 1.0, 1.0).frequency.round(3)
        array([0.067, 0.145, 0.229, 0.316, 0.404])
    """
    power = _power(values, window, "constant").mean(axis=0)
    fy, fx = np.fft.fftfreq(values.shape[1], dy), np.fft.fftfreq(values.shape[2], dx)
    radius = np.hypot(fy[:, None], fx).ravel()
    ring = _rings(radius, min(values.shape[1:]) // factor)
    count = np.bincount(ring)
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = np.bincount(ring, radius) / count
        mean = np.bincount(ring, power.ravel()) / count
    # the largest frequency of an even transform is negative
    kept = frequency <= min(fy.max(), fx.max())
    return Radial(frequency[kept], (mean * frequency)[kept])


def _rings(radius: Float[ndarray, " n"], count: int) -> ndarray:
    r"""Returns the ring of each radius, from 0: rings are open below, but the first."""
    edges = np.linspace(radius.min(), radius.max(), count + 1)
    return np.clip(np.searchsorted(edges, radius, side="left") - 1, 0, count - 1)


def along_track(segments: Float[ndarray, "s n"], dx: float) -> Radial:
    r"""Returns the spectrum along tracks: the mean periodogram of segments (Welch's method).

    Each segment is less its mean, and tapered by a periodic Hann window; the density is
    one-sided. The frequency 0 is kept.

    References:
        | The use of fast Fourier transform for the estimation of power spectra (Welch, 1967)
        | https://doi.org/10.1109/TAU.1967.1161901

    Arguments:
        segments: The data of each segment, without any gap.
        dx: The step along the track, e.g. in km.

    Example:
        >>> along_track(np.ones((2, 8)), 6.0).power.tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    n = segments.shape[1]
    return Radial(*welch(segments.ravel(), fs=1.0 / dx, nperseg=n, noverlap=0))


def periodograms(segments: Float[ndarray, "s n"], dx: float) -> Float[ndarray, "s k"]:
    r"""Returns the periodogram of each segment: their mean is :func:`along_track`."""
    n = segments.shape[1]
    return welch(segments, fs=1.0 / dx, nperseg=n, noverlap=0, axis=-1)[1]


def score(
    error: Float[ndarray, "*shape"], reference: Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    r"""Returns the score :math:`1 - P_{error} / P_{reference}`; 1 where both are zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1.0 - error / reference
    return np.where((error == 0) & (reference == 0), 1.0, found)
