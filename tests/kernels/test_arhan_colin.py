"""The Arhan-Colin covariance: its zero, its spectra, where it is a covariance and where not."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from scipy.integrate import quad
from scipy.special import j0
from torch.testing import assert_close

import matheron as mt

from matheron.kernels.arhan_colin import ArhanColin, Propagating, arhan_colin
from matheron.testing import check_kernel, check_solver

DOUBLE = torch.float64


def rho(u: np.ndarray) -> np.ndarray:
    return (1 + u + u**2 / 6 - u**3 / 6) * np.exp(-u)


def test_equals_its_formula() -> None:
    r = torch.linspace(0, 12, 4001, dtype=DOUBLE)[:, None]
    found = ArhanColin(2.0, 1.7)(torch.zeros(1, 1, dtype=DOUBLE), r)[0]
    expected = torch.as_tensor(2.0 * rho(3.34 / 1.7 * r[:, 0].numpy()))
    assert_close(found, expected, rtol=0, atol=1e-11)
    zero = ArhanColin(1.0, 1.7)(torch.zeros(1, 1, dtype=DOUBLE), torch.tensor([[1.7]]))
    assert zero.abs() < 2e-3  # 3.34 is the root to three digits
    assert found.min() < -0.1


@pytest.mark.parametrize("dimensions", [1, 2])
def test_laws(dimensions: int) -> None:
    check_kernel(ArhanColin(1.3, 0.8), dimensions)


@pytest.mark.parametrize("k", [0.0, 0.1, 0.5, 1.0, 3.0, 10.0])
def test_spectrum_in_the_plane(k: float) -> None:
    """The Hankel transform: nothing at zero, nowhere negative."""
    found = 2 * math.pi * quad(lambda r: r * rho(r) * j0(k * r), 0, 60, limit=400)[0]
    assert found == pytest.approx(35 * math.pi * k**2 / (1 + k**2) ** 4.5, abs=1e-7)


@pytest.mark.parametrize("k", [0.05, 0.2, 0.37, 0.39, 1.0, 4.0])
def test_spectrum_in_a_volume_is_negative_at_large_scales(k: float) -> None:
    found = 4 * math.pi / k * quad(lambda r: r * rho(r) * math.sin(k * r), 0, 60, limit=400)[0]
    assert found == pytest.approx(32 * math.pi * (7 * k**2 - 1) / (1 + k**2) ** 5, abs=1e-6)
    assert (found < 0) == (k < 7**-0.5)


def test_a_volume_shows_it() -> None:
    """A wide lattice has a negative eigenvalue in three dimensions only."""
    for d, side, valid in ((2, 40, True), (3, 12, False)):
        axis = torch.arange(side, dtype=DOUBLE) * 3.0  # in units of a / 3.34
        x = torch.cartesian_prod(*[axis] * d)
        least = torch.linalg.eigvalsh(ArhanColin(1.0, 3.34)(x, x).detach())[0]
        assert (least > -1e-9) == valid


@pytest.mark.parametrize("scale", [200e3, 500e3, 1000e3])
def test_a_covariance_on_the_sphere(scale: float) -> None:
    """By Schoenberg: the coefficients over Legendre polynomials of the angle are not negative."""
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    half = np.pi * (nodes + 1) / 2  # angles, dense enough for the shortest scale
    chord = 2 * 6_371_008.8 * np.sin(half / 2)
    f = rho(3.34 * chord / scale) * np.sin(half) * weights * np.pi / 2
    top, x = int(8 * 3.34 * 6_371_008.8 / scale), np.cos(half)
    before, now, least, most = np.ones_like(x), x, f.sum(), 0.0
    for n in range(1, min(top, 700)):
        value = (f * now).sum()
        least, most = min(least, value), max(most, value)
        before, now = now, ((2 * n + 1) * x * now - n * before) / (n + 1)
    assert least > -1e-10 * most


def test_in_space_and_time() -> None:
    grid = mt.Grid(time=[0.0, 6.0], lat=[38.0, 39.0, 40.0], lon=[-65.0, -64.0])
    kernel = arhan_colin(200e3, 12.0, 0.04, velocity=-4e3)
    a = torch.zeros(1, 4, dtype=DOUBLE)
    b = torch.tensor([[6.0, 50e3, 70e3, 0.0]], dtype=DOUBLE)
    r = math.hypot(50e3, 70e3 + 6 * 4e3)
    expected = 0.04 * rho(np.float64(3.34 * r / 200e3)) * math.exp(-((6 / 12) ** 2))
    assert kernel(a, b).item() == pytest.approx(expected, abs=1e-11)
    prior = mt.GaussianProcess(kernel, grid)
    points = mt.Points(time=[1.0, 3.0, 4.0], lat=[38.2, 39.1, 39.9], lon=[-64.9, -64.5, -64.1])
    seen = mt.PointObservation(grid, points, 0.05)
    check_solver(mt.Kriging(), prior, seen, size=1000)
    check_solver(mt.Vecchia(neighbors=50), prior, seen, size=1000)


def test_propagation_that_varies() -> None:
    kernel = Propagating(mt.Gaussian(1.0, 1.0), [-1.0, -3.0], [0.0, 2.0])
    s = torch.tensor([[2.0, 1.0, 5.0], [2.0, -4.0, 5.0], [2.0, 9.0, 5.0]], dtype=DOUBLE)
    assert_close(kernel.moved(s)[:, 2], torch.tensor([9.0, 7.0, 11.0], dtype=DOUBLE))
    check_kernel(kernel, 3)
    still = Propagating(mt.Gaussian(1.0, 1.0), 0.0)
    assert_close(still(s, s), mt.Gaussian(1.0, 1.0)(s, s))


def test_refusals() -> None:
    four = torch.zeros(1, 4, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"ArhanColin\(axes=...\): expected at most 3"):
        ArhanColin()(four, four)
    with pytest.raises(ValueError, match=r"Propagating\(velocity=..., northing=...\)"):
        Propagating(mt.Gaussian(), [1.0, 2.0])
