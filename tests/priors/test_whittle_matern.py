"""Whittle-Matern fields: laws of a prior, covariances in closed form, walls, fields, refusals."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.domain import EARTH_RADIUS
from matheron.linalg.sparse import Sparse
from matheron.priors.spde import Lattice, WhittleMatern
from matheron.priors.spde.fields import Constant, Spline
from matheron.priors.spde.mesh import Mesh
from matheron.priors.spde.normalisation import lattice_variance, limit_variance
from matheron.priors.spde.rational import Part, parts
from matheron.testing import check_prior, small_grid

DOUBLE = torch.float64
ROTATED = {"lengthscale": (2.0, 3.0), "rotation": 30.0}


def square(step: float, n: int) -> mt.Grid:
    axis = step * torch.arange(n, dtype=DOUBLE)
    return mt.Grid(y=axis, x=axis)


@torch.no_grad()
def gap(prior: WhittleMatern, kernel: mt.Matern, at: list[int]) -> float:
    """The largest error of the covariance with some nodes, over the variance."""
    s = prior.domain.points
    found = prior.covariance(s, s[torch.tensor(at)])
    x = s.local()
    return ((found - kernel(x, x[torch.tensor(at)])).abs().max() / kernel.variance).item()


CASES = {
    "alpha-1": {"alpha": 1.0},
    "fractional": {"alpha": 1.5},
    "alpha-2": {"variance": 2.0},
    "rotated": {**ROTATED, "alpha": 2.0, "boundary": "robin"},
    "rough-rotated": {**ROTATED, "alpha": 1.4, "order": 3},
    "alpha-2.5": {"alpha": 2.5},
    "alpha-3": {"alpha": 3.0, "boundary": "dirichlet"},
    "alpha-4": {"alpha": 4.0},
}


def small(name: str, trend: str | None = None) -> WhittleMatern:
    options = {"lengthscale": 2.0, **CASES[name]}
    grid = small_grid() if options.get("alpha") != 1.0 else mt.Grid(x=torch.linspace(0, 9, 19))
    return WhittleMatern(grid, mean=0.5, trend=trend, margin=1.0, **options)


@pytest.mark.parametrize("name", CASES)
def test_laws(name: str) -> None:
    prior = small(name, "1 + x")
    prior.coefficients = 0.7 * torch.ones(2, dtype=DOUBLE)
    check_prior(prior)


def test_laws_of_points_in_time_and_on_the_sphere() -> None:
    grid = mt.Grid(time=[0.0, 1.0, 3.0], lat=[60.0, 61.0, 62.0], lon=[179.0, 180.0, 181.5])
    check_prior(WhittleMatern(grid, (3.0, 3e5, 2e5), alpha=2.0, margin=1.0))
    points = mt.Points(y=[0.0, 3.0, 1.0, 1.0], x=[0.0, 0.5, 2.0, 1.0])
    check_prior(WhittleMatern(points, 1.0, margin=1.0))
    line = mt.Points(lat=[10.0, 12.0, 11.0], lon=[359.0, 1.5, 3.0])
    check_prior(WhittleMatern(line, 3e5, 2.0, alpha=1.5, margin=1.0))


@pytest.mark.parametrize("name", CASES)
def test_determinant_draws_and_gradients(name: str, generator: torch.Generator) -> None:
    prior = small(name)
    Q = prior.precision()
    assert prior.precision().pattern is Q.pattern
    dense = Q.to_dense()
    assert_close(dense, dense.mT)
    assert_close(prior.log_determinant(), torch.logdet(dense), rtol=1e-8, atol=1e-6)
    # nodes are drawn from factors of K: N(0, Q^-1), 5 standard errors on each quadratic form
    u = prior.sample_nodes(2000, generator)
    z = (u @ torch.linalg.cholesky(dense.detach())).square().mean(0)
    assert (z - 1).abs().max() < 5 * math.sqrt(2 / 2000)
    free = [p for p in prior.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(prior.log_determinant(), free)
    for p, slope in zip(free, slopes, strict=True):
        for i in range(p.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    p.reshape(-1)[i] += sign * 1e-4
                    values.append(prior.log_determinant().item())
                    p.reshape(-1)[i] -= sign * 1e-4
            numeric = (values[0] - values[1]) / 2e-4
            assert abs(slope.reshape(-1)[i] - numeric) < 1e-5 * (1 + abs(numeric))


def test_alpha_2_in_the_plane() -> None:
    # kappa d K_1(kappa d), with 8 nodes per lengthscale: 1 % of the variance, corners included
    prior = WhittleMatern(square(1 / 8, 41), 1.0, 2.0)
    assert gap(prior, mt.Matern(1.0, 2.0, 1.0), [20 * 41 + 20, 0, 20]) < 0.01


def test_variance_is_flat_to_the_corners() -> None:
    grid = square(1 / 8, 25)
    for alpha in (1.5, 2.0, 2.5, 3.0, 4.0):
        for boundary in ("neumann", "robin", "dirichlet"):
            prior = WhittleMatern(grid, 1.0, 3.0, alpha=alpha, boundary=boundary)
            assert (prior.variance(grid.points) / 3 - 1).abs().max() < 0.02


@pytest.mark.parametrize(("order", "allowed"), [(1, 0.05), (2, 0.011), (3, 0.011)])
def test_exponential_in_the_plane(order: int, allowed: float) -> None:
    # of the tolerance with two parts or more, 1 % is the step of the lattice (l / 8)
    prior = WhittleMatern(square(1 / 8, 41), 1.0, alpha=1.5, order=order)
    assert len(prior.parts) == order
    assert gap(prior, mt.Matern(0.5, 1.0, 1.0), [20 * 41 + 20, 0, 20]) < allowed


def test_fine_lattices_tend_to_the_exponential() -> None:
    prior = WhittleMatern(square(1 / 20, 41), 1.0, alpha=1.5, order=3)
    assert gap(prior, mt.Matern(0.5, 1.0, 1.0), [20 * 41 + 20, 0]) < 0.007


@pytest.mark.parametrize("rotation", [None, 30.0, -45.0])
def test_anisotropy_is_that_of_the_kernel(rotation: float | None) -> None:
    prior = WhittleMatern(square(1 / 8, 41), (1.0, 2.0), 2.0, rotation=rotation)
    kernel = mt.Matern(1.0, 2.0, (1.0, 2.0), rotation=rotation)
    assert gap(prior, kernel, [20 * 41 + 20, 0, 20]) < 0.01
    assert (prior.variance(prior.domain.points) / 2 - 1).abs().max() < 0.01


def test_exponential_on_a_line() -> None:
    x = torch.cat([torch.arange(0, 3, 0.1), torch.arange(3, 8, 0.15)])  # two steps
    prior = WhittleMatern(mt.Grid(x=x), 1.0, alpha=1.0)
    assert gap(prior, mt.Matern(0.5, 1.0, 1.0), [0, 20, 40, 63]) < 0.003


def test_exponential_in_space() -> None:
    axis = torch.arange(9, dtype=DOUBLE) / 6
    prior = WhittleMatern(mt.Grid(z=axis, y=2 * axis, x=axis), (1.0, 2.0, 1.0), alpha=2.0)
    kernel = mt.Matern(0.5, 1.0, (1.0, 2.0, 1.0))
    assert gap(prior, kernel, [4 * 81 + 4 * 9 + 4, 0]) < 0.025


def test_mixed_cells() -> None:
    # steps of 1/10 to 1/5 of a lengthscale, side by side
    x = torch.cat([torch.arange(0, 2, 0.1), torch.arange(2, 4, 0.2)]).double()
    prior = WhittleMatern(mt.Grid(y=x, x=x), 1.0)
    assert gap(prior, mt.Matern(1.0, 1.0, 1.0), [0, 450, 899]) < 0.02
    assert (prior.variance(prior.domain.points) - 1).abs().max() < 0.025


def globe(step: float) -> mt.Grid:
    return mt.Grid(lat=torch.arange(-90 + step / 2, 90, step), lon=torch.arange(0.0, 360, step))


def harmonics(grid: mt.Grid, at: int, lengthscale: float, alpha: float) -> torch.Tensor:
    """The covariance on the sphere, as a sum over degrees (Legendre polynomials)."""
    x = grid.points.cartesian() / EARTH_RADIUS
    x[:, -1] += 1  # from the tangent point to the middle of the Earth
    cosine = (x @ x[at]).clamp(-1, 1).numpy()
    nu, degree = alpha - 1, np.arange(300)
    kappa2 = 2 * nu / lengthscale**2
    tau2 = 1 / (4 * math.pi * nu * kappa2**nu)
    power = (2 * degree + 1) / (4 * math.pi * EARTH_RADIUS**2) / tau2
    power = power / (kappa2 + degree * (degree + 1) / EARTH_RADIUS**2) ** alpha
    return torch.as_tensor(np.polynomial.legendre.legval(cosine, power))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_sphere_against_harmonics(alpha: float) -> None:
    grid = globe(5.0)
    prior = WhittleMatern(grid, 4.5e6, alpha=alpha, order=3)
    for at in (18 * 72, 8 * 72 + 5, 10):  # the equator, mid-latitudes, a pole
        exact = harmonics(grid, at, 4.5e6, alpha)
        found = prior.covariance(grid.points, grid.points[torch.tensor([at])])[:, 0]
        assert (found - exact).abs().max() < 0.015 * exact[at]


def test_nothing_leaks_through_a_wall() -> None:
    grid = square(0.25, 16)
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[:, 8] = False
    for alpha in (1.5, 2.0, 3.0):
        prior = WhittleMatern(
            mt.Grid(**grid.axes, mask=mask), (1.0, 1.5), rotation=20.0, alpha=alpha
        )
        s = prior.domain.points
        left = s.axis("x") < 2
        assert (prior.covariance(s[left], s[~left]) == 0).all()
    # through a gap, the way around counts
    mask[7, 8] = True
    prior = WhittleMatern(mt.Grid(**grid.axes, mask=mask), 1.0)
    a, b = mt.Points(y=[0.25], x=[1.5]), mt.Points(y=[0.25], x=[2.5])
    through = prior.covariance(a, b).item()
    assert 0 < through < 0.1 * mt.Matern(1.0)(a.coords, b.coords).item()


def test_variance_doubles_along_a_coast() -> None:
    mask = torch.ones(40, 30, dtype=torch.bool)
    mask[:, 0] = False
    grid = mt.Grid(y=torch.arange(40.0) / 8, x=torch.arange(30.0) / 8, mask=mask)
    v = grid.unflatten(WhittleMatern(grid, 1.0).variance(grid.points))
    # half a step from the wall, the image of a node is one step away
    image = 1 + mt.Matern(1.0)(torch.zeros(1, 1).double(), torch.full((1, 1), 0.125).double())
    assert_close(v[20, 1], image[0, 0].detach(), rtol=0.02, atol=0)
    assert abs(v[20, 29].item() - 1) < 0.02


def test_the_kernel_of_divand() -> None:
    # DIVAnd in two dimensions: (1 - L^2 Laplacian)^2 / (4 pi L^2), whose kernel is (r/L) K_1(r/L)
    L = 0.7
    grid = square(0.1, 40)
    prior = WhittleMatern(grid, math.sqrt(2) * L)
    lattice = prior.lattice
    assert isinstance(lattice, Lattice)
    eye = torch.eye(2, dtype=DOUBLE)[None]
    K = Sparse.diag(lattice.volume) + lattice.stiffness(L**2 * eye)
    Q = K.product(K.scale(rows=1 / lattice.volume)) * (1 / (4 * math.pi * L**2))
    found = prior.precision()
    inside = Q.to_scipy()[~lattice.margin.numpy()][:, ~lattice.margin.numpy()]
    ratio = (
        found.to_scipy()[~lattice.margin.numpy()][:, ~lattice.margin.numpy()].data / inside.data
    )
    assert abs(ratio - 1).max() < 0.01  # the correction for the step


def test_fields_that_are_constant_change_nothing() -> None:
    grid = small_grid()
    n = len(grid)
    plain = WhittleMatern(grid, 2.0, 3.0)
    kappa = math.sqrt(2) / 2.0
    for field in (Constant(kappa), torch.full((n,), kappa, dtype=DOUBLE)):
        prior = WhittleMatern(grid, None, 3.0, kappa=field)
        assert_close(prior.precision().to_dense(), plain.precision().to_dense())
        assert_close(prior.log_determinant(), plain.log_determinant())
    turned = WhittleMatern(grid, **ROTATED)
    H = torch.linalg.inv(turned.kernel.scaled(torch.eye(2).double()).detach())
    H = H.mT @ H
    prior = WhittleMatern(grid, math.sqrt(2), diffusivity=H.expand(n, 2, 2))
    assert_close(prior.precision().to_dense(), turned.precision().to_dense())
    scaled = WhittleMatern(grid, 2.0, torch.full((n,), 3.0))
    assert_close(scaled.precision().to_dense(), plain.precision().to_dense())
    rough = WhittleMatern(grid, 2.0, 3.0, alpha=1.5)
    prior = WhittleMatern(grid, None, 3.0, alpha=1.5, kappa=Constant(0.5))
    s = grid.points  # the parts may differ: a field that moves asks for a wider spectrum
    assert (prior.covariance(s, s) - rough.covariance(s, s)).abs().max() < 0.02 * 3


def test_fields_that_vary() -> None:
    grid = square(0.2, 31)
    x = grid.points.axis("x")
    # the variance is what is asked for, wherever it changes
    wanted = 1 + x
    prior = WhittleMatern(grid, 1.0, wanted, alpha=1.5)
    assert (prior.variance(grid.points) / wanted - 1).abs().max() < 0.03
    # a lengthscale that doubles over several: the variance stays, the correlation follows it
    prior = WhittleMatern(grid, kappa=math.sqrt(2) / (1 + x / 6))
    v = prior.variance(grid.points)
    assert (v - 1).abs().max() < 0.05
    a = mt.Points(y=[3.0] * 2, x=[0.4, 5.4])
    for i, offset in ((0, 0.8), (1, -0.8)):
        s = a[torch.tensor([i])]
        b = mt.Points(y=s.axis("y"), x=s.axis("x") + offset)
        middle = 1 + (s.axis("x") + offset / 2).item() / 6
        exact = mt.Matern(1.0, 1.0, middle)(s.coords, b.coords).item()
        assert abs(prior.covariance(s, b).item() - exact) < 0.03
    # twice tau halves the field
    tau = torch.ones(len(grid), dtype=DOUBLE)
    first, second = (WhittleMatern(grid, 1.0, tau=k * tau) for k in (1, 2))
    assert_close(first.variance(grid.points), 4 * second.variance(grid.points))
    assert_close(4 * first.precision().values, second.precision().values)


def test_gradients_reach_the_fields(generator: torch.Generator) -> None:
    grid = square(0.4, 8)
    prior = WhittleMatern(
        grid,
        None,
        Spline(grid, knots=3, value=1.0),
        kappa=Spline(grid, knots=3, value=1.0, smoothness=2.0),
        diffusivity=Spline(grid, knots=3, value=[[2.0, 0.3], [0.3, 1.0]], shape=(2, 2)),
    )
    check_prior(prior)
    x = torch.randn(len(grid), dtype=DOUBLE, generator=generator)
    free = [p for p in prior.parameters() if p.requires_grad]
    cost = prior.cost(x) - prior.log_determinant() / 2
    for slope in torch.autograd.grad(cost, free):
        assert (slope != 0).all()
    assert prior.penalty() == 0  # no slopes yet
    with torch.no_grad():
        for p in prior.kappa.parameters():
            p.normal_(generator=generator)
    assert_close(prior.penalty(), prior.kappa.penalty())
    assert prior.penalty() > 0


def test_quantities_are_those_of_the_kernel() -> None:
    prior = WhittleMatern(mt.Grid(lat=[40.0, 41.0, 42.0], lon=[1.0, 2.0, 3.0]), 3e5, 2.0)
    found = {name: (value.item(), units) for name, value, units in prior.quantities()}
    assert found["Matern variance"] == pytest.approx((2.0, "field^2"))
    assert found["Matern lengthscale"][0] == pytest.approx(300.0)
    assert found["Matern lengthscale"][1] == "km"


def test_on_another_domain_the_law_is_the_same() -> None:
    grid = small_grid()
    prior = WhittleMatern(grid, 2.0, alpha=1.5, trend="1 + x")
    elsewhere = mt.Points(y=[0.3, -0.5], x=[3.9, 5.0])
    moved = prior.on(elsewhere)
    assert moved.kernel is prior.kernel
    s = grid.points
    assert_close(moved.covariance(s, elsewhere), prior.covariance(s, elsewhere))
    assert moved.sample(2, torch.Generator().manual_seed(0)).shape == (2, 2)
    with pytest.raises(ValueError, match="outside"):
        prior.on(mt.Points(y=[0.0], x=[99.0])).sample(1)


def test_posterior_against_kriging() -> None:
    grid = square(1 / 8, 25)
    points = mt.Points(y=[0.3, 1.2, 2.9, 2.0, 1.1], x=[0.1, 2.2, 2.8, 1.3, 1.4])
    observation = mt.PointObservation(grid, points, noise_std=0.2)
    y = torch.tensor([1.0, -0.5, 0.3, 2.0, 0.1], dtype=DOUBLE)
    exact = mt.Kriging()(mt.GaussianProcess(mt.Matern(1.0), grid), observation)(y)
    found = mt.Kriging()(WhittleMatern(grid, 1.0), observation)(y)
    assert (found.mean - exact.mean).abs().max() < 0.03
    assert (found.std() - exact.std()).abs().max() < 0.03


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("alpha", [2.0, 2.4, 3.0, 4.0])
def test_lattice_variance_by_quadrature(dimension: int, alpha: float) -> None:
    # the sum over the waves of a lattice whose ends meet, far enough
    n = 120 if dimension == 3 else 256
    h = torch.tensor([0.25, 0.3, 0.2], dtype=DOUBLE)[:dimension]
    H = torch.diag(torch.tensor([0.5, 0.4, 0.6], dtype=DOUBLE)[:dimension])
    if dimension > 1:
        H[-1, -2] = H[-2, -1] = 0.3
    angle = 2 * math.pi * torch.arange(n, dtype=DOUBLE) / n
    mesh = torch.meshgrid(*[angle] * dimension, indexing="ij")
    s = 1 + sum(H[i, i] * (2 - 2 * a.cos()) / h[i] ** 2 for i, a in enumerate(mesh))
    if dimension > 1:
        s = s + 2 * H[-1, -2] * mesh[-1].sin() * mesh[-2].sin() / (h[-1] * h[-2])
    found = parts(alpha, dimension, 2, 1.0, s.max().item())
    sums = sum(p.weight * s ** (1 - p.power) / (s + p.shift) for p in found)
    exact = sums.mean() / h.prod()
    value = lattice_variance(H[None], h[None], found, torch.ones(1, dtype=DOUBLE))
    assert_close(value[0], exact, rtol=1e-5, atol=0)
    fine = lattice_variance(H[None], 0.01 * h[None], [Part(2)], torch.ones(1, dtype=DOUBLE))
    assert_close(fine, limit_variance(H[None], 2.0), rtol=0.02, atol=0)


def test_rational_powers() -> None:
    assert parts(3.0, 2, 2, 0.1, 10.0) == [Part(3)]
    x = torch.logspace(0, 3, 50, dtype=DOUBLE)
    for alpha in (0.75, 1.5, 2.3):
        errors = []
        for order in (1, 2, 3, 4):
            found = parts(alpha, 1, order, 1.0, 1e3)
            assert all(p.weight > 0 and p.shift > 0 for p in found)
            total = sum(p.weight * x ** (1 - p.power) / (x + p.shift) for p in found)
            errors.append((total * x**alpha - 1).abs()[x < 100].max().item())
        assert errors[3] < 0.02
        assert errors[3] < errors[2] < errors[1] < errors[0]
    # in other units
    a, b = parts(1.5, 2, 2, 1.0, 1e3), parts(1.5, 2, 2, 4.0, 4e3)
    for p, q in zip(a, b, strict=True):
        assert_close(torch.tensor([q.weight, q.shift]), torch.tensor([2 * p.weight, 4 * p.shift]))


def test_refusals() -> None:
    grid = square(1.0, 5)
    cases = [
        (dict(lengthscale=-1.0), "expected positive numbers, got -1"),
        (dict(lengthscale=1.5), "two steps of the lattice or more, got 1.5 along 'y'"),
        (dict(lengthscale=3.0, alpha=1.0), "more than 1.0, half the number of axes, got 1.0"),
        (dict(lengthscale=3.0, variance=0.0), "expected positive numbers, got 0.0"),
        (dict(lengthscale=(3.0, 3.0, 3.0)), "one per axis of"),
        (dict(), "expected one of them, got neither"),
        (dict(lengthscale=3.0, kappa=Constant(1.0)), "expected one of them, got both"),
        (dict(lengthscale=3.0, boundary="open"), "got 'open'"),
        (dict(lengthscale=3.0, margin=0.5), "one lengthscale or more, got 0.5"),
        (dict(lengthscale=3.0, order=0), "one part or more, got 0"),
        (dict(lengthscale=3.0, tau=torch.zeros(25)), "expected positive values, got 0"),
        (dict(lengthscale=3.0, tau=torch.ones(24)), "25 nodes"),
        (dict(lengthscale=3.0, diffusivity=torch.ones(25, 2)), "shape"),
        (dict(lengthscale=3.0, diffusivity=torch.ones(25, 2, 2)), "positive definite"),
        (dict(lengthscale=(3.0, 3.0), diffusivity=torch.eye(2).expand(25, 2, 2)), "one length"),
        (dict(lengthscale=3.0, lattice=mt.Grid(x=[0.0, 1.0])), "expected axes"),
        (dict(lengthscale=3.0, tau=torch.ones(25), variance=torch.ones(25)), "got both"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            WhittleMatern(grid, **options)
    days = mt.Grid(time=[0.0, 1.0], y=[0.0, 1.0], x=[0.0, 1.0])
    with pytest.raises(ValueError, match="AdvectionDiffusion"):
        WhittleMatern(days, 3.0)
    far = mt.Points(y=[0.0, 1e6], x=[0.0, 1e6])
    with pytest.raises(ValueError, match="at most 1000000 nodes"):
        WhittleMatern(far, 1.0)


def test_lattice_variance_is_tabulated_where_nodes_are_many(generator: torch.Generator) -> None:
    n = 20_000
    H = torch.diag_embed(torch.rand(n, 2, dtype=DOUBLE, generator=generator) + 0.2)
    H[:, 0, 1] = H[:, 1, 0] = 0.3 * torch.rand(n, dtype=DOUBLE, generator=generator) - 0.1
    h = 0.1 + 0.2 * torch.rand(n, 2, dtype=DOUBLE, generator=generator)
    scale = torch.ones(n, dtype=DOUBLE)
    few = torch.arange(0, n, 200)
    for alpha in (1.5, 2.0):
        found = parts(alpha, 2, 2, 1.0, 1e3)
        many = lattice_variance(H, h, found, scale)[few]
        assert_close(many, lattice_variance(H[few], h[few], found, scale[few]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rotation", [None, 30.0])
def test_a_region_of_the_sphere_against_the_kernel(rotation: float | None) -> None:
    # 11 km by 11 km at 60 degrees north, about a pole of the tangent plane: hardly curved
    lat, lon = torch.linspace(59, 61, 21).double(), torch.linspace(-2, 2, 21).double()
    scale = (88e3, 150e3)
    priors = [
        WhittleMatern(mt.Grid(lat=lat, lon=lon + shift), scale, 2.0, rotation=rotation)
        for shift in (0.0, 358.0)
    ]
    kernel = mt.Matern(1.0, 2.0, scale, rotation=rotation)
    assert gap(priors[0], kernel, [220, 0]) < 0.02
    assert (priors[0].variance(priors[0].domain.points) / 2 - 1).abs().max() < 0.012
    a, b = (p.precision().values for p in priors)  # the branch of longitudes does not matter
    assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_on_a_mesh(alpha: float, generator: torch.Generator) -> None:
    x = 2 * torch.rand(60, 2, dtype=DOUBLE, generator=generator)
    points = mt.Points(x, dims=("y", "x"))
    prior = WhittleMatern(points, 1.0, alpha=alpha, lattice=Mesh.around(points, 1 / 8, 2.0))
    with torch.no_grad():
        error = prior.covariance(points, points) - mt.Matern(alpha - 1, 1.0, 1.0)(x, x)
    # named tolerance: the rougher the field, the more a mesh of uneven triangles is felt
    assert error.abs().max() < {1.5: 0.07, 2.0: 0.04, 3.0: 0.02}[alpha]
