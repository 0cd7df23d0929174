r"""Laws of the prior of advection and diffusion, against closed forms."""

import itertools
import math
import numpy as np
import pytest
import scipy.integrate as integrate
import scipy.special as special
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.linalg.sparse import Sparse
from matheron.priors.spde import Lattice
from matheron.priors.spde.advection_diffusion import AdvectionDiffusion
from matheron.priors.spde.fields import PerNode
from matheron.priors.spde.stepping import stepping_ratio
from matheron.priors.spde.whittle_matern import WhittleMatern

SCHEMES = ("euler", "crank-nicolson")


def line(*values):
    return torch.tensor(values, dtype=torch.float64)


def steps(count, width=1.0):
    return torch.arange(count, dtype=torch.float64) * width


def small(times=(0.0, 1.0, 2.5)):
    return mt.Grid(time=line(*times), y=steps(3), x=steps(4))


def swirl(grid):
    r"""A velocity that varies in space, and in time where the grid has one."""
    p = grid.points
    y, x = p.axis("y"), p.axis("x")
    t = p.axis("time") if "time" in p.dims else torch.zeros_like(x)
    return torch.stack([0.4 * torch.sin(x + t), 0.3 * torch.cos(y - 0.5 * t)], dim=-1)


def closed(*axes, dims=("y", "x"), times=(0.0,), **arguments):
    r"""A prior on a lattice that closes on itself along every axis."""
    named = dict(zip(dims, axes, strict=True))
    grid = mt.Grid(time=line(*times), **named)
    lattice = Lattice(mt.Grid(**named), periodic=dims)
    return AdvectionDiffusion(grid, lattice=lattice, **arguments)


def test_symbol_of_the_operator():
    k, m = line(0.2, 0.13), line(0.3, -0.2)
    H = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    exact = 0.3**2 + k @ H @ k + 1j * (m @ k)
    assert abs(exact.item() - (0.1781 + 0.0340j)) < 1e-4
    errors = []
    for n in (32, 64):
        axes = [steps(n, 2 * math.pi / (n * v)) for v in k]
        prior = closed(
            *axes,
            lengthscale=40.0,
            timescale=10.0,
            velocity=m.expand(n * n, 2),
            kappa=torch.full((n * n,), 0.3),
            diffusivity=H.expand(n * n, 2, 2),
            stabilize=False,
        )
        dynamics = prior._dynamics(0)
        B = dynamics.per_volume(dynamics.fading + dynamics.moving)
        phase = prior.lattice.points.coords @ k
        found = (B @ phase.cos()) + 1j * (B @ phase.sin())
        ratio = found / torch.exp(1j * phase)
        assert_close(ratio, ratio[:1].expand(n * n))
        errors.append((ratio[0] - exact).abs().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] < 1e-3 * abs(exact.item())


def test_symbol_of_the_fourth_order():
    k = 2 * math.pi / 32.0
    prior = closed(
        steps(64, 0.5), dims=("x",), lengthscale=6.0, timescale=4.0, velocity=(0.2,), alpha=4
    )
    d = prior._dynamics(0)
    H = d.H[0, 0, 0].item()
    exact = (0.5 + H * k**2 + 0.2j * k) ** 2
    phase = prior.lattice.points.coords[:, 0] * k
    B = d.per_volume(d.fading + d.moving)
    found = ((B @ phase.cos()) + 1j * (B @ phase.sin())) / torch.exp(1j * phase)
    assert abs(found[0].item() - exact) < 3e-3 * abs(exact)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_waves_decay_and_move_as_they_should(scheme):
    # the lag-t covariance of a wave is its variance times exp(-(kappa^2 + H k^2 + i m k) t)
    n, t, k, m = 24, 2.0, 2 * math.pi / 24, 0.4
    errors = []
    for count in (8, 32):
        prior = closed(
            steps(n), dims=("x",), times=(0.0, t), step=t / count, lengthscale=6.0,
            timescale=3.0, velocity=(m,), scheme=scheme,
        )  # fmt: skip
        B = torch.linalg.inv(prior.precision().to_dense()).detach()
        wave = torch.exp(1j * k * steps(n))
        now, later = B[:n, :n].to(wave.dtype), B[-n:, :n].to(wave.dtype)
        ratio = (wave.conj() @ later @ wave) / (wave.conj() @ now @ wave)
        H = prior._dynamics(0).H[0, 0, 0].item()
        # of the lattice in space, exact in time
        b = 1 / 3 + H * (2 - 2 * math.cos(k)) + 1j * m * math.sin(k)
        errors.append(abs(ratio.item() - np.exp(-b * t)))
    order = math.log(errors[0] / errors[1]) / math.log(4)
    assert order == pytest.approx(1 if scheme == "euler" else 2, abs=0.15)
    assert errors[1] < (0.03 if scheme == "euler" else 1e-3)


def waves(n, H, rate):
    r"""The rates kappa^2 + k'Hk of the waves of a closed lattice of n by n nodes."""
    each = H * (2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))
    return rate + each[:, None] + each


def test_correlation_moves_with_the_velocity():
    times, m, n, rate = (0.0, 2.0, 4.0), (1.5, -1.0), 20, 1 / 20
    prior = closed(
        steps(n), steps(n), times=times, step=0.25, lengthscale=5.0, timescale=1 / rate,
        velocity=m, scheme="crank-nicolson", stabilize=False,
    )  # fmt: skip
    grid = prior.domain
    origin = mt.Points(time=[0.0], y=[10.0], x=[12.0])
    B = grid.unflatten(prior.covariance(origin, grid.points).detach()[0])
    a = waves(n, rate * 25 / 2, rate)
    for k, t in enumerate(times):
        top = np.unravel_index(B[k].argmax().item(), B[k].shape)
        assert top == ((10 + m[0] * t) % n, (12 + m[1] * t) % n)
        expected = (a**-2 * np.exp(-a * t)).sum() / (a**-2).sum()
        assert B[k].max() / B[0].max() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_time_steps_do_not_matter(scheme):
    grid = mt.Grid(time=line(0.0, 2.0), y=steps(5), x=steps(5))
    arguments = dict(lengthscale=3.0, timescale=5.0, velocity=(0.3, 0.5), scheme=scheme)
    B = [
        prior.covariance(grid.points, grid.points).detach()
        for prior in (AdvectionDiffusion(grid, step=s, **arguments) for s in (0.4, 0.1, 0.025))
    ]
    first, second = ((a - b).abs().max() for a, b in itertools.pairwise(B))
    # of first order for Euler, whose shortest waves are forgotten too slowly
    assert first < (0.05 if scheme == "euler" else 0.005)
    assert second < first / 2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("velocity", [None, (0.0, 1.0), (0.7, 2.0)])
def test_variance_is_the_same_everywhere(scheme, velocity):
    # steps of T / 5; the way in T is up to two lengthscales
    grid = mt.Grid(time=steps(5), y=steps(9), x=steps(9))
    prior = AdvectionDiffusion(grid, 8.0, 5.0, variance=2.0, velocity=velocity, scheme=scheme)
    error = prior.variance(grid.points).detach() / 2.0 - 1
    assert error.abs().max() < 0.02


def test_variance_in_one_and_three_dimensions():
    for shape, l, color in (((12,), 6.0, 1), ((4, 4, 4), 4.0, 2)):
        axes = dict(zip(("z", "y", "x"), map(steps, shape), strict=False))
        grid = mt.Grid(time=steps(2), **axes)
        prior = AdvectionDiffusion(grid, l, 4.0, color=color, margin=1.5)
        error = prior.variance(grid.points).detach() - 1
        assert error.abs().max() < (0.02 if len(shape) == 1 else 0.08)


def test_decay_in_time_at_one_place():
    # nu int_1^inf s^(-nu - 1) e^(-s t / T) ds: with nu = 1 an exponential integral
    prior = closed(
        steps(36), steps(36), times=(0.0, 1.0, 2.0, 4.0), step=0.25, lengthscale=8.0,
        timescale=4.0, scheme="crank-nicolson",
    )  # fmt: skip
    t = prior.domain.axes["time"]
    here = mt.Points(time=t, y=torch.zeros(4), x=torch.zeros(4))
    B = prior.covariance(here[:1], here).detach()[0]
    expected = torch.tensor([special.expn(2, v / 4.0) for v in t.tolist()])
    assert_close(B / B[0], expected, atol=0.015, rtol=0)


def test_a_field_at_one_time_is_a_matern_field():
    for color in (1, 2):
        grid = mt.Grid(time=line(0.0), y=steps(17), x=steps(17))
        prior = AdvectionDiffusion(grid, (8.0, 10.0), 5.0, rotation=25.0, color=color)
        kernel = mt.Matern(float(color), lengthscale=(8.0, 10.0), rotation=25.0)
        middle = grid.points[torch.tensor([8 * 17 + 8])]
        found = prior.covariance(middle, grid.points).detach()
        expected = kernel(middle.coords[:, 1:], grid.points.coords[:, 1:]).detach()
        assert (found - expected).abs().max() < 0.015


def test_a_single_time_is_a_whittle_matern_field():
    grid = mt.Grid(time=line(0.0), y=steps(6), x=steps(7))
    space = mt.Grid(y=steps(6), x=steps(7))
    prior = AdvectionDiffusion(grid, 3.0, 5.0, variance=1.7)
    spatial = WhittleMatern(space, 3.0, variance=1.7, lattice=prior.lattice)
    s, t = space.points, grid.points
    # but for the margin, where the amplitude varies
    error = prior.covariance(t, t).detach() - spatial.covariance(s, s).detach()
    assert error.abs().max() < 0.01


def test_nothing_crosses_land():
    mask = torch.ones(6, 9, dtype=torch.bool)
    mask[:, 4] = False
    grid = mt.Grid(time=steps(3), y=steps(6), x=steps(9), mask=mask)
    prior = AdvectionDiffusion(grid, 3.0, 4.0, velocity=(0.0, 1.0))
    s = grid.points
    west = s.axis("x") < 4
    B = prior.covariance(s, s).detach()
    assert (B[west][:, ~west].abs() < 1e-12).all()
    # what is carried to the coast does not pile up there
    assert B.diagonal().max() < 2.6


def test_conservative_advection_keeps_the_sum():
    n = 12
    grid = mt.Grid(time=line(0.0), y=steps(n), x=steps(n))
    for conservative in (True, False):
        prior = closed(
            steps(n), steps(n), lengthscale=4.0, timescale=5.0, velocity=swirl(grid).flip(-1),
            conservative=conservative,
        )  # fmt: skip
        A = prior._dynamics(0).A.to_dense()
        assert A.sum(dim=0 if conservative else 1).abs().max() < 1e-12
        assert A.sum(dim=1 if conservative else 0).abs().max() > 1e-3


def test_forecasts_forget():
    grid = mt.Grid(time=steps(25), y=steps(4), x=steps(4))
    prior = AdvectionDiffusion(grid, 3.0, 4.0, variance=1.5, velocity=(0.1, 0.2))
    points = mt.Points(time=[0.0, 1.0, 1.0], y=[1.0, 2.0, 3.0], x=[1.0, 2.0, 0.5])
    observation = mt.PointObservation(grid, points, noise_std=0.1)
    posterior = mt.SparseCholesky()(prior, observation)(line(1.0, 2.0, 1.5))
    std = grid.unflatten(posterior.std())[1:]
    before = grid.unflatten(prior.variance(grid.points).detach().sqrt())[1:]
    ratio = std / before
    assert (ratio.diff(dim=0) > -1e-3).all()
    assert ratio[-1].min() > 0.999
    top = grid.unflatten(posterior.mean).abs().amax(dim=(1, 2))
    assert (top[1:].diff() < 0).all()
    assert top[-1] < 0.01


def test_no_oscillations_where_cells_are_coarse():
    # cells of Peclet number 22
    found = []
    for stabilize in (True, False):
        prior = closed(
            steps(80), dims=("x",), times=(0.0, 1.0, 2.0), step=0.05, lengthscale=2.0,
            timescale=30.0, velocity=(6.0,), stabilize=stabilize, color=0,
        )  # fmt: skip
        origin = mt.Points(time=[0.0], x=[10.0])
        B = prior.covariance(origin, prior.domain.points).detach()
        found.append((B.min() / B.max()).item())
    assert found[0] > -1e-3
    assert found[1] < -1e-2


def test_the_peclet_number_is_at_most_one():
    grid = small()
    velocity = 20 * swirl(mt.Grid(y=steps(3), x=steps(4)))
    prior = AdvectionDiffusion(grid, 2.5, 3.0, velocity=velocity, margin=1.0)
    d = prior._dynamics(0)
    m = d.coefficients.velocity
    unit = m / m.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    along = torch.einsum("ni,nij,nj->n", unit, d.H.detach(), unit)
    reach = (m.abs() * prior.lattice.spacing).sum(dim=-1)
    assert (reach / (2 * along.clamp(min=1e-12)) < 1 + 1e-9).all()
    across = torch.stack([-unit[:, 1], unit[:, 0]], dim=-1)
    base = d.coefficients.diffusivity.detach()
    kept = torch.einsum("ni,nij,nj->n", across, d.H.detach() - base, across)
    assert kept.abs().max() < 1e-12


def test_slow_velocities_need_no_diagonal_neighbours():
    for speed, places in ((0.1, 5), (4.0, 9)):
        prior = AdvectionDiffusion(small(), 2.5, 3.0, velocity=(speed, 0.0))
        assert np.diff(prior.lattice.pattern.indptr).max() == places
    # if a fit makes it faster all the same, diffusion is added along the axes
    prior = AdvectionDiffusion(small(), 2.5, 3.0, velocity=(0.0, 0.1), margin=1.0)
    with torch.no_grad():
        prior.velocity.theta += 40.0
    d = prior._dynamics(0)
    reach = d.coefficients.velocity.abs() * prior.lattice.spacing / 2
    assert (d.H.diagonal(dim1=-2, dim2=-1) > reach - 1e-12).all()
    assert (d.H[:, 0, 1] == 0).all()


@pytest.mark.parametrize(
    ("dimension", "alpha", "color"), [(1, 2, 1), (2, 2, 1), (2, 4, 0), (3, 2, 2)]
)
def test_variance_lost_to_a_step(dimension, alpha, color):
    beta, drift = 0.3, 0.8

    def density(s, c, beta, drift):
        A, g = 1 + s**2, math.sqrt(drift) * s * c
        r = ((A + 1j * g) ** (alpha // 2)).real
        return s ** (dimension - 1) * A**-color / (2 * r + beta * r**2)

    def total(beta, drift):
        if dimension == 1:
            return integrate.quad(lambda s: density(s, 1.0, beta, drift), 0, np.inf)[0]
        sphere = (lambda a: math.sin(a)) if dimension == 3 else (lambda a: 1.0)
        inner = lambda a: integrate.quad(
            lambda s: density(s, math.cos(a), beta, drift), 0, np.inf
        )[0]
        return integrate.quad(lambda a: sphere(a) * inner(a), 0, math.pi / 2)[0]

    found = stepping_ratio(line(beta), line(drift), dimension, alpha, color).item()
    assert found == pytest.approx(total(beta, drift) / total(0.0, 0.0), rel=1e-4)


def test_on_the_sphere():
    grid = mt.Grid(time=steps(3), lat=40 + steps(5, 0.25), lon=-60 + steps(6, 0.3))
    prior = AdvectionDiffusion(
        grid, 150e3, 6.0, variance=0.02, velocity=line(0.1, 0.3) * 86400, scheme="crank-nicolson"
    )
    error = prior.variance(grid.points).detach() / 0.02 - 1
    assert error.abs().max() < 0.02
    # after two days the ridge is 51.84 km to the east, and 17.28 to the north
    origin = mt.Points(time=[0.0], lat=[40.4], lon=[-59.5])
    metre = math.radians(1) * mt.domain.EARTH_RADIUS
    lat, lon = 40.4 + 17.28e3 / metre, -59.5 + 51.84e3 / (metre * math.cos(math.radians(40.5)))
    there = mt.Points(
        time=[2.0] * 5, lat=[lat, lat, lat, lat + 0.2, lat - 0.2],
        lon=[lon, lon + 0.25, lon - 0.25, lon, lon],
    )  # fmt: skip
    B = prior.covariance(origin, there).detach()[0]
    assert B.argmax() == 0
    assert [name for name, _, _ in prior.quantities()][-3:] == [
        "timescale",
        "velocity lat",
        "velocity lon",
    ]
    assert_close(prior.quantities()[-1][1].item(), 25.92)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_uneven_times_have_the_same_law(scheme):
    # a longer step of Euler's finds waves that shorter ones have left too strong
    grid = mt.Grid(time=line(0.0, 0.5, 2.0, 2.2), y=steps(5), x=steps(5))
    prior = AdvectionDiffusion(grid, 8.0, 6.0, scheme=scheme)
    error = prior.variance(grid.points).detach() - 1
    assert error.abs().max() < (0.03 if scheme == "euler" else 0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"domain": mt.Grid(y=steps(3), x=steps(3))}, r"axes of time and space"),
        ({"domain": mt.Grid(time=steps(3))}, r"axes of time and space"),
        ({"domain": mt.Points(time=[0.0], y=[0.0], x=[0.0])}, "times or a step"),
        ({"times": line(0.0, 2.0, 1.0)}, "strictly increasing"),
        ({"timescale": 0.0}, r"timescale=...\): expected positive"),
        ({"timescale": -1.0}, r"timescale=...\): expected positive"),
        ({"lengthscale": -1.0}, r"lengthscale=...\): expected positive"),
        ({"lengthscale": (1.0, 2.0, 3.0)}, "one number, or one per axis"),
        ({"lengthscale": 0.5}, "two steps of the lattice"),
        ({"variance": 0.0}, r"variance=...\): expected positive"),
        ({"velocity": (1.0, 2.0, 3.0)}, r"velocity=...\): expected finite values of shape"),
        ({"velocity": torch.zeros(5, 2)}, r"velocity=...\): expected finite values of shape"),
        ({"velocity": torch.full((12, 2), torch.nan)}, "24 not finite"),
        ({"velocity": (math.nan, 0.0)}, "1 not finite"),
        ({"velocity": PerNode(small(), torch.tensor(1.0))}, r"expected a field of shape \(2,\)"),
        ({"kappa": torch.ones(7)}, r"kappa=...\): expected finite values"),
        ({"alpha": 3}, r"alpha=...\): expected one of \(2, 4\)"),
        ({"color": 5}, r"color=...\): expected one of"),
        ({"damping": "none"}, r"damping=...\): expected one of"),
        ({"damping": "uniform", "alpha": 4}, r"alpha=...\): expected one of"),
        ({"damping": "uniform"}, "Take color=2"),
        ({"interpolation": "spline"}, "expected 'linear' or 'cubic'"),
        ({"color": 0}, "finite variance"),
        ({"scheme": "leapfrog"}, "expected one of"),
        ({"step": 0.0}, r"step=...\): expected a positive"),
        ({"spin_up": -1}, "a number of steps"),
        ({"margin": 0.1}, "one lengthscale or more"),
        ({"initial": "cold"}, "expected 'stationary'"),
        ({"initial": (torch.zeros(2), Sparse.diag(torch.ones(2)))}, "expected 'stationary'"),
    ],
)
def test_bad_input_is_refused(change, said):
    given = {"domain": small(), "lengthscale": 2.5, "timescale": 3.0} | change
    with pytest.raises(ValueError, match=said) as error:
        AdvectionDiffusion(**given)
    assert "\n" not in str(error.value)


def test_waves_that_grow_are_refused():
    prior = AdvectionDiffusion(small(), 2.5, 3.0, alpha=4, velocity=(2.0, 0.0), stabilize=False)
    with pytest.raises(ValueError, match="some waves would grow"):
        prior.precision()


def test_metres_per_second_are_not_taken_for_metres_per_day():
    grid = mt.Grid(time=steps(2), lat=40 + steps(4, 0.25), lon=steps(4, 0.25))
    with pytest.raises(ValueError, match="metres per day"):
        AdvectionDiffusion(grid, 100e3, 5.0, velocity=(0.1, 0.3))


@pytest.mark.slow
def test_a_velocity_is_found_in_gappy_data():
    generator = torch.Generator().manual_seed(1)
    grid = mt.Grid(time=steps(8), y=steps(10), x=steps(12))
    law = {"scheme": "crank-nicolson", "margin": 1.5}
    truth = AdvectionDiffusion(grid, 5.0, 10.0, variance=1.5, velocity=(-0.4, 0.8), **law)
    u = torch.rand(400, 3, dtype=torch.float64, generator=generator)
    points = mt.Points(time=(u[:, 0] * 8).floor(), y=9 * u[:, 1], x=11 * u[:, 2])
    observation = mt.PointObservation(grid, points, noise_std=0.1)
    y = observation.sample(truth.sample(4, generator), generator)
    start = AdvectionDiffusion(grid, 3.0, 4.0, velocity=(0.0, 0.0), **law)
    found = mt.fit.maximum_likelihood(start, observation, y, solver=mt.SparseCholesky())
    free = [p for p in found.parameters() if p.requires_grad]
    score = mt.SparseCholesky().likelihood(found, observation, y).score(free)
    std = torch.linalg.inv(score.information).diagonal().sqrt()
    exact = {id(p): q for p, q in zip(found.parameters(), truth.parameters(), strict=True)}
    # a velocity is counted in units of its first guess, which differ
    unit = [found.velocity.link.scale if p is found.velocity.theta else 1.0 for p in free]
    aim = [truth.velocity.theta * truth.velocity.link.scale if p is found.velocity.theta
           else exact[id(p)] for p in free]  # fmt: skip
    error = torch.cat([(p * v - q).reshape(-1) for p, v, q in zip(free, unit, aim, strict=True)])
    wide = torch.cat(
        [(torch.ones_like(p) * v).reshape(-1) for p, v in zip(free, unit, strict=True)]
    )
    assert (error.detach().abs() < 5 * std * wide.detach()).all()
    assert (
        found.velocity.theta.mul(found.velocity.link.scale).sub(line(-0.4, 0.8)).abs().max() < 0.3
    )
