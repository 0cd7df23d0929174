"""Parameter fields: limits, smoothness, positivity, time, gradients; velocities in closed form."""

from __future__ import annotations

import io
import math
import numpy as np
import pytest
import torch

from scipy.interpolate import BSpline
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.priors.quantities import of_parameters
from matheron.priors.spde.coordinates import Box, Nearest, cubic_splines
from matheron.priors.spde.fields import (
    Constant,
    Covariates,
    LinkedField,
    ParameterField,
    PerNode,
    Spline,
)
from matheron.priors.spde.links import Link, matrix_exponential
from matheron.priors.spde.network import Network
from matheron.priors.spde.velocity import Given, Streamfunction, geostrophic

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=generator(seed))


def plane(ny: int = 5, nx: int = 6, **settings) -> mt.Grid:
    y, x = torch.linspace(0, 2, ny, dtype=DOUBLE), torch.linspace(-1, 4, nx, dtype=DOUBLE)
    depth = 10 + normal(ny, nx, seed=9)
    return mt.Grid(y=y, x=x, covariates={"depth": depth}, **settings)


def cube() -> mt.Grid:
    g = plane()
    return mt.Grid(time=[0.0, 1.0, 3.0], **g.axes)


def every(grid: mt.Grid, shape: tuple[int, ...], value=None) -> list[LinkedField]:
    start = torch.as_tensor(1.0 if value is None else value, dtype=DOUBLE)
    start = start * torch.eye(2, dtype=DOUBLE) if len(shape) == 2 and start.ndim == 0 else start
    return [
        Constant(start.expand(shape).clone()),
        Spline(grid, (4, 3), start, shape),
        Covariates(grid, ["depth"], start, shape),
        PerNode(grid, start, shape),
        Network(grid, 8, 2, start, shape, generator=generator()),
    ]


SHAPES = ((), (2,), (2, 2))


@torch.no_grad()
def shake(field: ParameterField, size: float = 1.0) -> None:
    for i, p in enumerate(field.parameters()):
        p += size * normal(*p.shape, seed=20 + i)


# Links.


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_matrix_exponential_is_that_of_torch(d: int) -> None:
    a = normal(200, d, d)
    a = a + a.mT
    a[0], a[1] = 0, 1e-9 * a[1]
    a[2] = 1e-2 * a[2]
    assert_close(matrix_exponential(a), torch.linalg.matrix_exp(a), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda z: matrix_exponential(z + z.mT), a[:4].clone().requires_grad_()
    )


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (1, 1), (2, 2), (3, 3)])
def test_links_are_inverted(shape: tuple[int, ...]) -> None:
    link = Link(shape, 7.0)
    free = normal(50, link.size)
    values = link(free)
    assert values.shape == (50, *shape)
    assert_close(link.inverse(values), free, rtol=1e-9, atol=1e-9)


def test_any_free_numbers_give_an_elliptic_diffusivity() -> None:
    H = Link((2, 2))(3 * normal(2000, 3))
    assert_close(H, H.mT, rtol=0, atol=0)
    assert (torch.linalg.eigvalsh(H) > 0).all()
    angle = 0.5 * torch.atan2(2 * H[:, 0, 1], H[:, 1, 1] - H[:, 0, 0])
    assert angle.min() < -1.4  # any rotation
    assert angle.max() > 1.4


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((), -1.0, r"expected positive numbers, got \[-1.0\]"),
        ((), [1.0, 2.0], r"expected finite numbers of shape \(\), got \[1.0, 2.0\]"),
        ((2,), [1.0, math.nan], r"expected finite numbers of shape \(2,\)"),
        (
            (2, 2),
            [[1.0, 2.0], [2.0, 1.0]],
            r"positive definite matrices.* eigenvalue -1",
        ),
        ((2, 2), [[1.0, 0.5], [0.0, 1.0]], r"symmetric positive definite matrices"),
        ((2, 3), 1.0, r"shape=...\): expected \(\), \(d,\) or \(d, d\), got \(2, 3\)"),
    ],
)
def test_values_that_are_not_allowed_are_refused(shape, value, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spline(plane(), 4, value, shape)


# What every field does.


@pytest.mark.parametrize("shape", SHAPES)
def test_every_field_starts_constant_and_costs_nothing(shape: tuple[int, ...]) -> None:
    grid = plane()
    value = torch.tensor({0: 2.5, 1: [3.0, -1.0], 2: [[2.0, 0.5], [0.5, 1.0]]}[len(shape)])
    for field in every(grid, shape, value.double()):
        out = field(grid.points)
        assert out.shape == (30, *shape)
        assert field.shape == shape
        assert_close(out, value.double().expand(30, *shape), rtol=1e-9, atol=1e-9)
        assert_close(field.penalty(), torch.zeros((), dtype=DOUBLE))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_every_parameter_and_states_round_trip(shape: tuple[int, ...]) -> None:
    grid = plane()
    for field, other in zip(every(grid, shape), every(grid, shape), strict=True):
        shake(field)
        free = list(field.parameters())
        slopes = torch.autograd.grad((field(grid.points) * 1.3).sin().sum(), free)
        for slope in slopes:
            assert slope.isfinite().all()
            assert (slope != 0).any()
        assert all(p.dtype == DOUBLE for p in free)
        stream = io.BytesIO()
        torch.save(field.state_dict(), stream)
        stream.seek(0)
        other.load_state_dict(torch.load(stream, weights_only=True))
        assert_close(other(grid.points), field(grid.points), rtol=0, atol=0)
        if not isinstance(field, Constant):
            assert field.penalty() > 0
            worst = _numeric(field.penalty, field)
            assert worst < 1e-6, (type(field).__name__, worst)


def _numeric(function, field: ParameterField, step: float = 1e-5) -> float:
    """The worst relative error of a gradient against central differences, along a direction."""
    free = list(field.parameters())
    slopes = torch.autograd.grad(function(), free, allow_unused=True)
    way = [normal(*p.shape, seed=70 + i) for i, p in enumerate(free)]
    exact = sum((g * w).sum() for g, w in zip(slopes, way, strict=True) if g is not None)
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, w in zip(free, way, strict=True):
                p += sign * step * w
            values.append(function())
    with torch.no_grad():
        for p, w in zip(free, way, strict=True):
            p += step * w
    return float(((values[0] - values[1]) / (2 * step) - exact).abs() / exact.abs())


@pytest.mark.parametrize("shape", SHAPES)
def test_outside_is_the_nearest_edge_and_time_is_ignored_without_it(shape) -> None:
    grid = plane()
    inside = mt.Points(y=[0.0, 2.0, 1.0], x=[1.0, 4.0, -1.0])
    outside = mt.Points(y=[-3.0, 9.0, 1.0], x=[1.0, 7.0, -1.5])
    timed = mt.Points(time=[0.0, 5.0, 9.0], y=outside.axis("y"), x=outside.axis("x"))
    for field in every(grid, shape):
        shake(field)
        assert_close(field(outside), field(inside), rtol=1e-12, atol=1e-12)
        assert_close(field(timed), field(inside), rtol=1e-12, atol=1e-12)


def test_a_field_over_time_varies_in_time_and_asks_for_it() -> None:
    grid = cube()
    here = {"y": [0.5] * 2, "x": [0.5] * 2}
    fields = [Spline(grid, (3, 4, 3)), PerNode(grid), Network(grid, 8, generator=generator())]
    for field in fields:
        shake(field)
        a, b = field(mt.Points(time=[0.0, 3.0], **here)).tolist()
        assert abs(a - b) > 1e-3
        late = field(mt.Points(time=[3.0, 30.0], **here)).tolist()
        assert late[0] == late[1]
        with pytest.raises(ValueError, match=r"Give them the axis 'time'"):
            field(mt.Points(**here))
    dated = mt.Grid(
        time=np.array(["2020-01-01", "2020-01-05"], dtype="datetime64[D]"), y=[0.0, 1], x=[0.0, 1]
    )
    field = Spline(dated, (3, 2, 2))
    shake(field)
    late = mt.Points(
        time=np.array(["2020-01-05"], dtype="datetime64[D]"), y=[0.0], x=[0.0]
    )  # counted from another epoch
    assert_close(field(late), field(dated.points)[4:5])


def test_branches_of_longitude_do_not_matter() -> None:
    for lon in (torch.arange(350.0, 360.0), torch.arange(-10.0, 0.0)):
        grid = mt.Grid(lat=[40.0, 41.0, 42.0], lon=lon)
        fields = [
            Spline(grid, 4),
            PerNode(grid),
            Network(grid, 8, generator=generator()),
            Given(grid, normal(30)),
        ]
        for field in fields:
            shake(field)
            a = field(mt.Points(lat=[40.5, 41.5, 41.0], lon=[-9.4, -0.2, 3.0]))
            b = field(mt.Points(lat=[40.5, 41.5, 41.0], lon=[350.6, 359.8, 3.0]))
            assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_around_the_globe_fields_are_periodic() -> None:
    grid = mt.Grid(lat=[-40.0, 0.0, 40.0], lon=torch.arange(0.0, 360.0, 5.0))
    for field in (Spline(grid, (3, 6)), Network(grid, 8, generator=generator())):
        shake(field)
        lat = torch.tensor([10.0]).double()
        seam, before = (mt.Points(lat=lat, lon=[x]) for x in (357.5 + 1e-7, 357.5 - 1e-7))
        assert_close(field(seam), field(before), rtol=1e-5, atol=1e-5)
        assert field.penalty() > 0
    node = PerNode(grid)
    with torch.no_grad():
        node.rest[0] = 1.0  # two neighbours along the circle, one along the meridian
    assert_close(node.penalty().item(), 1.5)


def test_a_report_names_what_stands_for_a_field() -> None:
    grid = plane()
    host = torch.nn.Module()
    host.kappa, host.m = Constant(2.0), Constant([3.0, -1.0])
    host.H = Spline(grid, 3, [[2.0, 0.5], [0.5, 1.0]], (2, 2))
    host.log_tau = torch.nn.Parameter(torch.zeros(1, dtype=DOUBLE))
    host.given = Given(grid, torch.ones(30))
    host.fixed = Constant(1.0).requires_grad_(False)
    rows = {name: round(value.item(), 9) for name, value, _ in of_parameters(host)}
    matrix = {"H (mean) 11": 2.0, "H (mean) 12": 0.5, "H (mean) 22": 1.0}
    assert rows == {"tau": 1.0, "kappa": 2.0, "m 1": 3.0, "m 2": -1.0} | matrix
    assert Network(grid, value=2.0).quantities()[0][0] == "(middle)"
    assert Streamfunction(grid).quantities() == []


# Splines.


def test_splines_are_those_of_scipy() -> None:
    knots = 6
    s = torch.linspace(0, 1, 101, dtype=DOUBLE)
    number, value, slope = cubic_splines(s, knots)
    c = normal(knots + 2)
    t = np.arange(-3, knots + 3) / (knots - 1)
    peer = BSpline(t, c.numpy(), 3)
    assert_close((c[number] * value).sum(1).numpy(), peer(s.numpy()), rtol=1e-12, atol=1e-12)
    rate = peer.derivative()(s.numpy())
    assert_close((c[number] * slope).sum(1).numpy(), rate, rtol=1e-9, atol=1e-9)
    assert_close(value.sum(dim=1), torch.ones(101, dtype=DOUBLE))


@pytest.mark.parametrize("closed", [False, True])
def test_a_lattice_is_evaluated_as_scattered_points(closed: bool) -> None:
    lon = torch.arange(0.0, 360.0, 10.0) if closed else torch.arange(10.0)
    grid = mt.Grid(time=[0.0, 1.0, 4.0], lat=torch.arange(6.0), lon=lon)
    field = Spline(grid, (3, 4, 5), shape=(2,))
    shake(field)
    some = grid.points[torch.rand(len(grid), generator=generator()) < 0.8]
    for slope in (None, 0, 1, 2):
        one = field._scattered(field.box(some), slope)
        assert_close(field.combine(some, slope), one, rtol=1e-12, atol=1e-12)


def test_a_plane_is_a_spline_that_costs_nothing() -> None:
    grid = plane()
    field = Spline(grid, (4, 5), smoothness=100.0)
    y, x = torch.arange(6.0).double()[:, None], torch.arange(7.0).double()
    with torch.no_grad():
        field.coefficients[..., 0] = 0.3 * y - 0.2 * x + 0.1
    assert field.penalty() < 1e-20
    log = field(grid.points).log()
    A = torch.cat([torch.ones(30, 1), grid.points.coords], dim=1).double()
    assert ((log - A @ torch.linalg.lstsq(A, log[:, None]).solution[:, 0]).abs() < 1e-9).all()


def test_the_penalty_is_that_of_its_gaussian_prior() -> None:
    """A second difference of one is worth half the smoothness; smoothness scales it."""
    field = Spline(mt.Grid(x=[0.0, 1.0]), 5, smoothness=3.0)
    with torch.no_grad():
        field.coefficients[3] = 1.0
    assert_close(field.penalty().item(), 1.5 * (1 + 4 + 1))
    node = PerNode(mt.Grid(x=[0.0, 1, 2], mask=[True, True, True]), smoothness=3.0)
    with torch.no_grad():
        node.rest[1] = 2.0
    assert_close(node.penalty().item(), 1.5 * (4 + 4))
    covariates = Covariates(plane(), ["depth"], smoothness=3.0)
    with torch.no_grad():
        covariates.slopes[:] = 2.0
    assert_close(covariates.penalty().item(), 1.5 * 4)


def test_the_penalty_of_a_network_is_its_mean_squared_slope() -> None:
    grid = plane()
    field = Network(grid, 8, smoothness=2.0, generator=generator())
    shake(field, 0.3)
    s = torch.rand(4000, 2, dtype=DOUBLE, generator=generator(1)).requires_grad_()
    slopes = torch.autograd.grad(field._at(s).sum(), s)[0] / 2  # of the half-width
    exact = slopes.square().sum(dim=1).mean()
    assert_close(field.penalty(), exact, rtol=0.05, atol=0.0)


def test_bad_knots_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Spline\(knots=...\): expected two or .* got \(4,\)"):
        Spline(plane(), (4,))
    with pytest.raises(ValueError, match=r"got \(1, 4\)"):
        Spline(plane(), (1, 4))
    with pytest.raises(ValueError, match=r"PerNode\(smoothness=...\): expected a number at least"):
        PerNode(plane(), smoothness=-1.0)
    with pytest.raises(ValueError, match=r"Network\(width=0, depth=2\): expected positive"):
        Network(plane(), 0)
    with pytest.raises(ValueError, match=r"expected some of \['depth'\], got \['bathymetry'\]"):
        Covariates(plane(), ["bathymetry"])


# Nodes and covariates.


def test_the_nearest_node_is_that_of_brute_force() -> None:
    mask = torch.rand(5, 6, generator=generator(3)) > 0.4
    points = mt.Points(y=2 * torch.rand(300, generator=generator(4)), x=torch.linspace(-1, 4, 300))
    steps = torch.tensor([0.5, 1.0], dtype=DOUBLE)
    for grid in (plane(), plane(mask=mask)):
        gap = (points.coords[:, None] - grid.points.coords) / steps
        found = Nearest(grid)(points)
        far = gap.norm(dim=-1).gather(1, found[:, None])[:, 0]
        sea = gap.norm(dim=-1).min(dim=1).values
        if grid.mask is None:
            assert_close(far, sea)
        else:  # by axis first: never land, and the nearest where that would be land
            whole = Nearest(plane())(points)
            land = ~mask.flatten()[whole]
            assert_close(far[land], sea[land])
            assert land.any()
    node = PerNode(plane(mask=mask), normal(int(mask.sum())).exp())
    assert_close(node(node.grid.points).log(), node.free(node.grid.points)[:, 0])


def test_land_has_no_neighbours() -> None:
    mask = torch.tensor([True, False, True])
    field = PerNode(mt.Grid(x=[0.0, 1.0, 2.0], mask=mask))
    shake(field)
    assert field.penalty() == 0
    (slope,) = torch.autograd.grad(field.penalty() + field.rest.sum(), field.rest)
    assert_close(slope, torch.ones_like(slope))


def test_covariates_are_standardised_and_found_at_bare_points() -> None:
    grid = plane()
    field = Covariates(grid, ["depth"], 2.0)
    with torch.no_grad():
        field.slopes[:] = 0.7
    z = grid.covariates["depth"]
    z = (z - z.mean()) / z.std(correction=0)
    assert_close(field(grid.points), 2 * (0.7 * z).exp())
    bare = mt.Points(grid.points.coords, grid.dims)
    assert_close(field(bare), field(grid.points))


# Velocities.


def test_a_given_field_is_interpolated_and_held_at_edges() -> None:
    grid = cube()
    t, y, x = grid.points.coords.unbind(dim=-1)
    values = torch.stack([1 + t + 2 * y - x, t * y], dim=-1)
    field = Given(grid, values)
    p = mt.Points(time=[0.5, 2.0, 9.0], y=[0.3, 1.9, 1.0], x=[0.0, -0.7, 99.0])
    inside = p.coords.clamp(max=torch.tensor([3.0, 2.0, 4.0]).double())
    t, y, x = inside.unbind(dim=-1)
    assert_close(field(p)[:, 0], 1 + t + 2 * y - x)
    assert not list(field.parameters())
    matrices = Given(plane(), normal(30, 2, 2))
    assert matrices(plane().points).shape == (30, 2, 2)
    with pytest.raises(ValueError, match=r"Given\(values=...\): expected finite values at 30"):
        Given(plane(), torch.full((30, 2), math.nan))


def test_a_given_field_keeps_off_land() -> None:
    mask = torch.tensor([True, True, False, False, True])
    grid = mt.Grid(x=torch.arange(5.0), mask=mask)
    field = Given(grid, torch.tensor([1.0, 2.0, 3.0]))
    assert_close(field(mt.Points(x=[0.5, 1.4, 2.5, 3.9])).tolist()[:2], [1.5, 2.0])
    assert field(mt.Points(x=[2.4])).item() in {2.0, 3.0}
    near = Given(mt.Points(x=[0.0, 3.0]), torch.tensor([1.0, 5.0]))
    assert near(mt.Points(x=[1.0, 2.0])).tolist() == [1.0, 5.0]


def test_a_streamfunction_has_no_divergence_on_the_plane() -> None:
    field = Streamfunction(plane(), 5, scale=3.0)
    shake(field)
    y, x = (torch.rand(200, dtype=DOUBLE, generator=generator(i)) for i in (1, 2))
    y, x, h = 0.1 + 1.8 * y, -0.9 + 4.8 * x, 1e-5
    at = lambda y, x: field(mt.Points(y=y.detach(), x=x.detach())).detach()
    dy = (at(y + h, x)[:, 0] - at(y - h, x)[:, 0]) / (2 * h)
    dx = (at(y, x + h)[:, 1] - at(y, x - h)[:, 1]) / (2 * h)
    assert (dy + dx).abs().max() < 1e-6 * dy.abs().max()
    psi = lambda y, x: field.values(mt.Points(y=y, x=x)).detach()
    m = at(y, x)
    assert_close(m[:, 0], -(psi(y, x + h) - psi(y, x - h)) / (2 * h), rtol=1e-5, atol=1e-6)
    assert_close(m[:, 1], (psi(y + h, x) - psi(y - h, x)) / (2 * h), rtol=1e-5, atol=1e-6)
    assert 0.3 < m.norm(dim=1).mean() / 3.0 < 3  # coefficients of order one, velocities of scale


def test_a_streamfunction_has_no_divergence_on_the_sphere() -> None:
    grid = mt.Grid(lat=torch.linspace(30, 60, 7), lon=torch.linspace(-20, 20, 9))
    field = Streamfunction(grid, 5, scale=1e4)
    shake(field)
    lat = 32 + 26 * torch.rand(200, dtype=DOUBLE, generator=generator(1))
    lon = -18 + 36 * torch.rand(200, dtype=DOUBLE, generator=generator(2))
    h, cos = 1e-4, lambda x: torch.deg2rad(x).cos()
    at = lambda lat, lon: field(mt.Points(lat=lat, lon=lon)).detach()
    north = at(lat + h, lon)[:, 0] * cos(lat + h) - at(lat - h, lon)[:, 0] * cos(lat - h)
    east = at(lat, lon + h)[:, 1] - at(lat, lon - h)[:, 1]
    assert (north + east).abs().max() < 1e-6 * north.abs().max()
    assert 0.2 < at(lat, lon).norm(dim=1).mean() / 1e4 < 5
    with pytest.raises(ValueError, match=r"expected two axes of space, got \('x',\)"):
        Streamfunction(mt.Grid(x=[0.0, 1.0]))


def test_geostrophic_velocities_in_closed_form() -> None:
    r"""A bump that varies with latitude and longitude; the error is of second order in the step.

    .. math:: \eta = \tfrac12 \sin^2 \phi + \tfrac{1}{10} \cos \phi \sin 3 \lambda
    """
    errors = []
    for n in (41, 81):
        grid = mt.Grid(lat=torch.linspace(20, 60, n), lon=torch.linspace(-30, 10, n))
        lat, lon = (torch.deg2rad(c) for c in grid.points.coords.unbind(dim=-1))
        eta = 0.5 * lat.sin() ** 2 + 0.1 * lat.cos() * (3 * lon).sin()
        u, v = geostrophic(grid, eta)
        f, radius = 2 * 7.292115e-5 * lat.sin(), 6_371_008.8
        north = (lat.sin() * lat.cos() - 0.1 * lat.sin() * (3 * lon).sin()) / radius
        east = 0.3 * (3 * lon).cos() / radius
        inner = torch.zeros(n, n, dtype=torch.bool)
        inner[1:-1, 1:-1] = True
        inner = inner.flatten()
        off = ((u + 9.80665 / f * north).abs() + (v - 9.80665 / f * east).abs())[inner]
        errors.append(off.max().item())
        assert u.isfinite().all()
    assert errors[0] < 1e-3  # m/s, of 0.6
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_geostrophy_vanishes_smoothly_at_the_equator() -> None:
    lat = torch.linspace(-10, 10, 201, dtype=DOUBLE)
    grid = mt.Grid(lat=lat, lon=torch.arange(0.0, 3.0))
    u, v = geostrophic(grid, 1e-2 * grid.points.axis("lat"))  # a centimetre per degree
    u = grid.unflatten(u)[:, 1]
    assert u[100].abs() < 1e-12
    assert_close(u, -u.flip(0), rtol=1e-6, atol=1e-9)  # f changes sign
    assert u.abs().max() < 0.1
    assert u.diff().abs().max() < 0.01
    far = lat.abs() > 5
    slope = 0.01 / (math.radians(1) * 6_371_008.8)
    exact = -9.80665 * slope / (2 * 7.292115e-5 * torch.deg2rad(lat).sin())
    assert_close(u[far], exact[far], rtol=1e-9, atol=0)
    assert v.abs().max() < 1e-12


def test_geostrophy_next_to_land_around_the_globe_and_in_time() -> None:
    lon = torch.arange(0.0, 360.0, 2.0)
    grid = mt.Grid(lat=[40.0, 41.0, 42.0], lon=lon)
    lam = torch.deg2rad(grid.points.axis("lon"))
    _, v = geostrophic(grid, lam.sin())
    v = grid.unflatten(v)[1]
    assert_close(v / v[0], torch.deg2rad(lon).cos().double(), rtol=1e-6, atol=1e-6)
    mask = torch.ones(3, 180, dtype=torch.bool)
    mask[1, 50] = False
    timed = mt.Grid(time=[0.0, 1.0], lat=[40.0, 41.0, 42.0], lon=lon, mask=mask)
    u, v = geostrophic(timed, timed.points.axis("lat"))
    assert u.isfinite().all()
    assert v.abs().max() == 0
    sea = timed.unflatten(u)[0]
    assert_close(sea[:, 49], sea[:, 51])
    assert sea[0, 50] == 0  # no slope without a neighbour
    with pytest.raises(ValueError, match=r"expected axes ending with 'lat' and 'lon'"):
        geostrophic(plane(), torch.zeros(30, dtype=DOUBLE))


def test_a_cloud_has_a_box_across_the_dateline() -> None:
    cloud = mt.Points(lat=[10.0, 12.0], lon=[179.0, -179.0])
    box = Box(cloud, ("lat", "lon"))
    assert_close(box.width, torch.tensor([2.0, 2.0]).double(), rtol=1e-9, atol=1e-9)
    assert_close(box(mt.Points(lat=[11.0], lon=[180.0])), torch.full((1, 2), 0.5).double())
