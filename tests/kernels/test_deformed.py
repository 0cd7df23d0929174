"""Kernels of warped coordinates: the identity, affine warps, gauge, likelihoods and slopes."""

from __future__ import annotations

import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.fit.architecture import build, describe, known_classes
from matheron.fit.optimise import assign, flat, free
from matheron.kernels import (
    AffineWarp,
    AxialWarp,
    Deformed,
    FlowWarp,
    GaugedWarp,
    RadialWarp,
    SplineField,
    Warp,
    WarpChain,
)
from matheron.linalg.composition import dense
from matheron.testing import check_kernel, check_solver

DOUBLE = torch.float64
LOW, HIGH = [-1.0, -1.0], [1.0, 1.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(module: torch.nn.Module, size: float = 0.5, seed: int = 0):
    draws = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, dtype=DOUBLE, generator=draws))
    return module


def units() -> Warp:
    return WarpChain([AxialWarp(2, 0, 3), AxialWarp(2, 1, 3), RadialWarp([0.2, 0.1], 0.5)])


def flow() -> Warp:
    return FlowWarp(2, transforms=2, width=6, bins=4, generator=generator(1))


def cloud(count: int = 90) -> mt.Points:
    s = 2 * torch.rand(count, 2, dtype=DOUBLE, generator=generator(5)) - 1
    return mt.Points(y=s[:, 0], x=s[:, 1])


def problem(kernel: mt.kernels.Kernel, count: int = 90):
    points = cloud(count)
    prior = mt.GaussianProcess(kernel, points)
    y = torch.randn(count, dtype=DOUBLE, generator=generator(6))
    return prior, mt.PointObservation(points, points, noise_std=0.2), y


def likelihood(kernel: mt.kernels.Kernel, solver, count: int = 90) -> Tensor:
    prior, seen, y = problem(kernel, count)
    return solver.likelihood(prior, seen, y).value()


SOLVERS = {
    "kriging": mt.Kriging(),
    "vecchia": mt.Vecchia(neighbors=12),
    "torch": mt.Vecchia(neighbors=12, engine="torch"),
    "inducing": mt.InducingPoints(size=30),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


@pytest.mark.parametrize("warp", [units, flow], ids=["units", "flow"])
def test_laws(warp) -> None:
    check_kernel(Deformed(mt.Matern(1.5, 1.3, 0.6), shaken(warp(), 0.3)), 2)
    gauged = GaugedWarp(shaken(warp(), 0.3), LOW, HIGH)
    field = shaken(SplineField(LOW, HIGH, 3))
    check_kernel(Deformed(mt.Matern(0.5, 1.3, 0.6), gauged, field), 2)


def test_terms_reproduce_the_kernel() -> None:
    kernel = Deformed(
        mt.Matern(1.5) + mt.Gaussian(0.3, 0.4), GaugedWarp(shaken(units()), LOW, HIGH)
    )
    x = cloud(30).cartesian()
    assert_close(dense(kernel.terms(x)), kernel(x, x), rtol=1e-9, atol=1e-9)


@each_solver
@pytest.mark.parametrize("warp", [units, flow], ids=["units", "flow"])
def test_the_identity_gives_the_stationary_likelihood(warp, solver) -> None:
    base = mt.Matern(1.5, 1.2, 0.5)
    warped = Deformed(base, GaugedWarp(warp(), LOW, HIGH))
    assert_close(likelihood(warped, solver), likelihood(base, solver), rtol=1e-12, atol=0)
    varied = Deformed(base, GaugedWarp(warp(), LOW, HIGH), SplineField(LOW, HIGH))
    assert_close(likelihood(varied, solver), likelihood(base, solver), rtol=1e-12, atol=0)


@each_solver
def test_an_affine_warp_is_geometric_anisotropy(solver) -> None:
    r"""A matrix of lengthscales :math:`M` is the warp :math:`M^{-1}` of a lengthscale of one."""
    rotated = mt.Matern(1.5, 1.2, (0.3, 0.9), rotation=25.0)
    warp = AffineWarp(2, -rotated._logarithm().detach())
    warped = Deformed(mt.Matern(1.5, 1.2, 1.0), warp)
    assert_close(likelihood(warped, solver), likelihood(rotated, solver), rtol=1e-10, atol=0)
    # gauged, the determinant is left to the lengthscale
    gauged = Deformed(mt.Matern(1.5, 1.2, 0.27**0.5), GaugedWarp(warp, LOW, HIGH))
    assert_close(likelihood(gauged, solver), likelihood(rotated, solver), rtol=1e-10, atol=0)


@each_solver
def test_the_gauge_takes_out_what_no_kernel_sees(solver) -> None:
    similar = AffineWarp(2, [[0.3, -0.8], [0.8, 0.3]])
    base = mt.Matern(1.5, 1.2, 0.5)
    plain = Deformed(base, GaugedWarp(shaken(units()), LOW, HIGH))
    after = Deformed(base, GaugedWarp(WarpChain([shaken(units()), similar]), LOW, HIGH))
    assert_close(likelihood(plain, solver), likelihood(after, solver), rtol=1e-10, atol=0)


def _gradient(kernel: mt.kernels.Kernel, value: Tensor) -> Tensor:
    slopes = torch.autograd.grad(value, free(kernel))
    return torch.cat([s.reshape(-1) for s in slopes])


def _along(kernel: mt.kernels.Kernel, function, seed: int) -> tuple[float, float]:
    """The slope along a random direction: by the gradient, and by central differences."""
    parameters = free(kernel)
    size = sum(p.numel() for p in parameters)
    direction = torch.randn(size, dtype=DOUBLE, generator=generator(seed))
    found = _gradient(kernel, function()) @ direction
    theta, step = flat(parameters), 1e-5
    values = []
    for sign in (1, -1):
        assign(parameters, theta + sign * step * direction)
        values.append(function().item())
    assign(parameters, theta)
    return found.item(), (values[0] - values[1]) / (2 * step)


@each_solver
@pytest.mark.parametrize("warp", [units, flow], ids=["units", "flow"])
def test_gradients_against_differences(warp, solver) -> None:
    """Neighbours are those of the first parameters: they do not move with the warp."""
    warped = GaugedWarp(shaken(warp(), 0.3), LOW, HIGH)
    kernel = Deformed(mt.Matern(1.5, 1.2, 0.5), warped)
    prior, seen, y = problem(kernel)
    fixed = solver.likelihood(prior, seen, y)
    for seed in range(3):
        found, expected = _along(kernel, fixed.value, seed)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("varied", [False, True])
def test_vecchia_with_all_neighbours_has_the_dense_gradient(varied: bool) -> None:
    field = shaken(SplineField(LOW, HIGH, 3)) if varied else None
    kernel = Deformed(mt.Matern(1.5, 1.2, 0.5), GaugedWarp(shaken(flow(), 0.3), LOW, HIGH), field)
    prior, seen, y = problem(kernel, 60)
    pair = [
        _gradient(kernel, solver.likelihood(prior, seen, y).value())
        for solver in (mt.Kriging(), mt.Vecchia(neighbors=59))
    ]
    assert_close(pair[0], pair[1], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("solver", [mt.Kriging(), mt.Vecchia(neighbors=59)])
def test_scores_of_few_parameters(solver) -> None:
    """Fisher scoring sees through a warp of units: its gradient is that of the likelihood."""
    chain = WarpChain([AxialWarp(2, 0, 3), RadialWarp([0.2, 0.1], 0.5)])
    kernel = Deformed(mt.Matern(1.5, 1.2, 0.5), GaugedWarp(shaken(chain), LOW, HIGH))
    prior, seen, y = problem(kernel, 60)
    parameters = free(kernel)
    score = solver.likelihood(prior, seen, y).score(parameters)
    value = solver.likelihood(prior, seen, y).value()
    slopes = torch.autograd.grad(value, parameters)
    expected = torch.cat([s.reshape(-1) for s in slopes])
    assert_close(score.gradient, expected, rtol=1e-7, atol=1e-7)
    assert torch.linalg.eigvalsh(score.information)[0] > -1e-8


def test_solvers_keep_their_laws() -> None:
    grid = mt.Grid(y=[-1.0, 0.0, 1.0], x=[-1.0, -0.3, 0.4, 1.0])
    warp = GaugedWarp(shaken(units()), LOW, HIGH)
    field = shaken(SplineField(LOW, HIGH, 3))
    points = cloud(7)
    for kernel in (Deformed(mt.Matern(1.5), warp), Deformed(mt.Matern(1.5), warp, field)):
        prior = mt.GaussianProcess(kernel, grid)
        seen = mt.PointObservation(grid, points, 0.1)
        check_solver(mt.Kriging(), prior, seen, size=1000)
        check_solver(mt.Vecchia(neighbors=50), prior, seen, size=1000)


def test_variance_by_hand() -> None:
    field = shaken(SplineField(LOW, HIGH, 3))
    kernel = Deformed(mt.Matern(0.5, 2.0), GaugedWarp(shaken(units()), LOW, HIGH), field)
    x = cloud(20).cartesian()
    s = field(x)[:, 0]
    u = kernel.warp(x)
    expected = 2.0 * (s[:, None] / 2 + s / 2).exp() * (-torch.cdist(u, u)).exp()
    assert_close(kernel(x, x), expected)
    assert_close(kernel.diagonal(x), 2.0 * s.exp())


def test_is_described_and_made_again() -> None:
    field = shaken(SplineField(LOW, HIGH, 3))
    kernel = Deformed(mt.Matern(1.5), GaugedWarp(shaken(flow()), LOW, HIGH), field)
    classes, tensors = known_classes(), {}
    again = build(describe(kernel, classes, tensors), classes, tensors, None)
    again.load_state_dict(kernel.state_dict())
    x = cloud(10).cartesian()
    assert torch.equal(again(x, x), kernel(x, x))


def test_neighbours_are_near_on_the_warped_map() -> None:
    stretched = Deformed(mt.Matern(1.5), AffineWarp(2, [[3.0, 0.0], [0.0, 0.0]]))
    x = cloud(20).cartesian()
    u, v = stretched.neighborhood(x), x * torch.tensor([3.0, 0.0]).double().exp()
    assert_close(torch.pdist(u), 3**0.5 * torch.pdist(v))  # in units of the Matern 3/2


def test_in_space_and_time_on_the_sphere() -> None:
    grid = mt.Grid(time=[0.0, 5.0], lat=[38.0, 39.0, 40.0], lon=[-65.0, -64.0])
    points = mt.Points(time=[1.0, 3.0, 4.0], lat=[38.2, 39.1, 39.9], lon=[-64.9, -64.5, -64.1])
    x = grid.points.cartesian(grid.center)
    warp = GaugedWarp.around(x[:, 1:], shaken(units()))
    space = Deformed(mt.Matern(1.5, 1.0, 1e5, axes="space"), warp, axes="space")
    assert torch.equal(space.moved(x)[:, [0, 3]], x[:, [0, 3]])
    later = Deformed(mt.Matern(0.5, 1.0, 4.0, axes="time"), shaken(AxialWarp(1)), axes="time")
    prior = mt.GaussianProcess(mt.separable(later, space), grid)
    seen = mt.PointObservation(grid, points, 0.05)
    check_solver(mt.Vecchia(neighbors=50), prior, seen, size=1000)


REFUSED = [
    (lambda: Deformed(mt.Matern(), AxialWarp(2), axes="depth"), r"Deformed\(axes=...\): .*depth"),
    (lambda: Deformed(mt.Matern(), AxialWarp(2), axes="time"), r"'time' for 2"),
    (
        lambda: Deformed(mt.Matern(), AxialWarp(1), SplineField(LOW, HIGH)),
        r"Deformed\(variance=...\): .* got 2 and 1",
    ),
    (
        lambda: Deformed(mt.Matern(), AxialWarp(2))(torch.zeros(1, 1), torch.zeros(1, 1)),
        r"Deformed\(warp=...\): expected 2 coordinates or more, got 1",
    ),
]


@pytest.mark.parametrize(("make", "match"), REFUSED)
def test_refusals(make, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()
