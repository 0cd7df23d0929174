"""Kernels whose lengthscales vary: constants give Matern, formula by hand, always a covariance."""

from __future__ import annotations

import math
import pytest
import torch

from scipy.special import gamma, kv
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.kernels import NetworkField, PaciorekSchervish, SplineField
from matheron.testing import check_kernel, check_solver

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(module: torch.nn.Module, size: float = 0.7, seed: int = 0):
    draws = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, dtype=DOUBLE, generator=draws))
    return module


def outputs(d: int) -> int:
    return 1 + d * (d + 1) // 2


def splines(d: int, knots: int = 3) -> SplineField:
    return SplineField([-1.5] * d, [1.5] * d, knots, outputs(d))


def network(d: int) -> NetworkField:
    return NetworkField([-1.5] * d, [1.5] * d, 6, outputs(d), generator=generator(2))


def sites(d: int, count: int = 25, seed: int = 4) -> Tensor:
    return torch.randn(count, d, dtype=DOUBLE, generator=generator(seed))


@pytest.mark.parametrize("nu", [0.5, 1.1, 1.5, 2.5])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_constants_give_matern(nu: float, d: int) -> None:
    scale = [0.5, 0.8, 1.3][:d] if d > 1 else 0.5
    kernel = PaciorekSchervish(splines(d), nu, 1.7, scale)
    x, y = sites(d), sites(d, 8, 5)
    assert_close(kernel(x, y), mt.Matern(nu, 1.7, scale)(x, y), rtol=1e-9, atol=1e-9)


def test_constant_shear_is_a_rotation() -> None:
    kernel = PaciorekSchervish(splines(2), 1.5, 1.7, (0.5, 0.8))
    with torch.no_grad():
        kernel.shear.fill_(0.9)
    L = torch.tensor([[0.5, 0.0], [0.9 * 0.8, 0.8]], dtype=DOUBLE)
    x = sites(2)
    u = torch.linalg.solve_triangular(L, x.mT, upper=False).mT
    assert_close(kernel(x, x), mt.Matern(1.5, 1.7, 1.0)(u, u), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("field", [splines, network], ids=["splines", "network"])
def test_laws(field, d: int) -> None:
    """Positive definite on random parameters, symmetric, gradients."""
    for seed, nu in enumerate((0.5, 1.5)):
        check_kernel(shaken(PaciorekSchervish(field(d), nu, 1.3, 0.6), 0.7, seed), d)


@pytest.mark.parametrize("nu", [0.5, 0.9, 2.5])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_formula(nu: float, d: int) -> None:
    """Pair by pair, with library determinants, inverses and Bessel functions."""
    kernel = shaken(PaciorekSchervish(splines(d), nu, 1.3, 0.6))
    x = sites(d, 9)
    theta = kernel.field(x).detach()
    scale, below = kernel.log_lengthscale.detach().exp(), torch.tril_indices(d, d, -1)
    found = kernel(x, x).detach()
    for a in range(len(x)):
        for b in range(a):
            matrices = []
            for t in (theta[a], theta[b]):
                L = torch.diag(t[1 : 1 + d].exp())
                if d > 1:
                    L[below[0], below[1]] = t[1 + d :] + kernel.shear.detach()
                matrices.append(torch.diag(scale) @ L @ L.mT @ torch.diag(scale))
            S, T = matrices
            h, mean = x[a] - x[b], (S + T) / 2
            u = math.sqrt(2 * nu * (h @ torch.linalg.inv(mean) @ h).item())
            dets = [torch.linalg.det(m).item() for m in (S, T, mean)]
            factor = (dets[0] * dets[1]) ** 0.25 / dets[2] ** 0.5
            variance = 1.0 * (kernel.log_variance.exp() * (theta[a, 0] + theta[b, 0]).exp()).item()
            rho = 2 ** (1 - nu) / gamma(nu) * u**nu * kv(nu, u)
            expected = variance * factor * rho
            assert found[a, b].item() == pytest.approx(expected, rel=1e-7, abs=2e-9)


def test_a_step_of_lengthscales_is_local() -> None:
    """Far from where it changes, the field is a Matern with the lengthscales of the place."""
    field = NetworkField([0.0], [100.0], 1, 2)
    with torch.no_grad():
        field.inner.fill_(40.0)
        field.bias.fill_(0.0)
        field.outer.copy_(torch.tensor([[0.3], [0.8]], dtype=DOUBLE))
    kernel = PaciorekSchervish(field, 1.5, 1.0, 1.0)
    for place, sign in ((10.0, -1), (90.0, 1)):
        x = place + sites(1)
        local = mt.Matern(1.5, math.exp(2 * sign * 0.3), math.exp(sign * 0.8))
        assert_close(kernel(x, x), local(x, x), rtol=1e-9, atol=1e-9)


def test_solvers_keep_their_laws() -> None:
    grid = mt.Grid(y=[-1.0, 0.0, 1.0], x=[-1.0, -0.3, 0.4, 1.0])
    kernel = shaken(PaciorekSchervish(splines(2), 1.5, 1.3, 0.6))
    s = sites(2, 7)
    points = mt.Points(y=s[:, 0], x=s[:, 1])
    prior = mt.GaussianProcess(kernel, grid)
    seen = mt.PointObservation(grid, points, 0.1)
    check_solver(mt.Kriging(), prior, seen, size=1000)
    check_solver(mt.Vecchia(neighbors=50), prior, seen, size=1000)


def test_on_the_sphere_with_time() -> None:
    grid = mt.Grid(time=[0.0, 5.0], lat=[38.0, 39.0, 40.0], lon=[-65.0, -64.0])
    x = grid.points.cartesian(grid.center)
    low, high = x[:, 1:3].amin(0).tolist(), x[:, 1:3].amax(0).tolist()
    field = SplineField(low, high, 3, 4)
    flat = PaciorekSchervish(field, 1.5, 1.2, (1e5, 2e5), axes="space")
    same = mt.Matern(1.5, 1.2, (1e5, 2e5), axes="space")
    assert_close(flat(x, x), same(x, x), rtol=1e-9, atol=1e-9)
    kernel = shaken(flat, 0.5) * mt.Matern(0.5, 1.0, 4.0, axes="time")
    values = torch.linalg.eigvalsh(kernel(x, x).detach())
    assert values[0] > -1e-9 * values[-1]


@pytest.mark.parametrize("field", [splines, network], ids=["splines", "network"])
def test_fields(field) -> None:
    """Zero mean over the box; constant beyond it; a penalty that straight lines do not pay."""
    f = shaken(field(2))
    assert_close(
        f(f.reference * f.extent).mean(0), torch.zeros(4, dtype=DOUBLE), atol=1e-13, rtol=0
    )
    out, edge = torch.tensor([[9.0, 0.2]]).double(), torch.tensor([[1.5, 0.2]]).double()
    assert torch.equal(f(out), f(edge))
    assert f.penalty() > 0


def test_splines_hold_lines() -> None:
    """B-splines whose coefficients are the knots are a line, whose bending is zero."""
    f = SplineField([0.0], [6.0], knots=4)
    with torch.no_grad():
        f.coefficients.copy_(torch.arange(-1.0, 5.0)[:, None])
    x = torch.linspace(0, 6, 13).double()[:, None]
    assert_close(f(x), x / 2 - 1.5)
    assert f.penalty() < 1e-24


REFUSED = [
    (lambda: PaciorekSchervish(SplineField([0.0], [1.0])), r"expected 2 outputs over 1"),
    (lambda: PaciorekSchervish(splines(2), lengthscale=(1.0, 1.0, 1.0)), r"got 4 and 3"),
    (lambda: PaciorekSchervish(splines(2), nu=80.0), r"got None and 80"),
    (lambda: PaciorekSchervish(splines(2), axes="time"), r"got 'time'"),
    (lambda: PaciorekSchervish(splines(2), variance=0.0), r"variance=...\): expected positive"),
    (
        lambda: PaciorekSchervish(splines(2))(torch.zeros(1, 1), torch.zeros(1, 1)),
        r"expected 2 coordinates or more, got 1",
    ),
    (lambda: SplineField([0.0], [1.0], knots=1), r"SplineField\(knots=...\): expected two"),
    (lambda: SplineField([0.0], [0.0]), r"SplineField\(low=..., high=...\)"),
    (lambda: NetworkField([0.0], [1.0], width=0), r"NetworkField\(width=...\)"),
    (lambda: SplineField([0.0], [1.0], smoothness=-1.0), r"SplineField\(outputs=..., smooth"),
]


@pytest.mark.parametrize(("build", "match"), REFUSED)
def test_refusals(build, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()
