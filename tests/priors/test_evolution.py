r"""The chain of advection and diffusion, against dense recursions and a Kalman smoother."""

import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.priors.spde.advection_diffusion import AdvectionDiffusion
from matheron.priors.spde.fields import PerNode, Spline
from matheron.priors.spde.whittle_matern import WhittleMatern
from matheron.testing import check_prior, check_solver


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


CASES = {
    "still": {},
    "carried": {"velocity": (0.3, -0.5)},
    "crank": {"velocity": (0.3, -0.5), "scheme": "crank-nicolson", "step": 0.8},
    "white": {"color": 0, "tau": torch.full((12,), 0.7)},
    "smooth": {"color": 2, "rotation": 30.0, "lengthscale": (2.2, 3.0)},
    "fourth": {"alpha": 4, "velocity": (0.1, 0.1)},
    "advective": {"velocity": swirl(small()), "conservative": False},
    "varying": {"velocity": swirl(small()), "scheme": "crank-nicolson", "spin_up": 1},
}


def prior_of(name, grid=None):
    arguments = {"lengthscale": 2.5, "timescale": 3.0, "variance": 1.3, "margin": 1.0}
    return AdvectionDiffusion(grid or small(), **(arguments | CASES[name]))


def dense(evolution):
    r"""The matrices of a chain: its first covariance, and M, E, Cov(r) of each step."""
    chain = [
        (s.ahead.to_dense(), s.behind.to_dense(), torch.linalg.inv(s.noise.precision().to_dense()))
        for s in evolution.steps
    ]
    return torch.linalg.inv(evolution.initial.to_dense()).detach(), [
        tuple(m.detach() for m in step) for step in chain
    ]


def recursion(evolution):
    r"""The covariance of all the fields, by x_k = F x_{k-1} + M^-1 r_k."""
    P, chain = dense(evolution)
    rows = [[P]]
    for M, E, R in chain:
        F = torch.linalg.solve(M, E)
        noise = torch.linalg.solve(M, torch.linalg.solve(M, R).mT)
        last = [F @ block for block in rows[-1]]
        for k, row in enumerate(rows):
            row.append(last[k].mT)
        rows.append([*last, F @ rows[-1][-1] @ F.mT + noise])
        # the new diagonal block follows from the last one
        rows[-1][-1] = F @ rows[-2][-2] @ F.mT + noise
    return torch.cat([torch.cat(row, dim=1) for row in rows])


@pytest.mark.parametrize("name", CASES)
def test_precision_is_that_of_the_recursion(name):
    prior = prior_of(name)
    Q = prior.precision()
    assert Q.pattern is prior.precision().pattern
    expected = torch.linalg.inv(recursion(prior.evolution()))
    assert_close(Q.to_dense().detach(), expected, rtol=1e-8, atol=1e-9 * expected.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_log_determinant_by_blocks(name):
    prior = prior_of(name)
    free = [p for p in prior.parameters() if p.requires_grad]
    value, whole = prior.log_determinant(), torch.logdet(prior.precision().to_dense())
    assert_close(value, whole, rtol=1e-10, atol=1e-9)
    if free:
        by_blocks = torch.autograd.grad(value, free, allow_unused=True)
        for a, b in zip(by_blocks, torch.autograd.grad(whole, free), strict=True):
            assert_close(torch.zeros_like(b) if a is None else a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["carried", "varying", "smooth"])
def test_laws_of_the_prior(name):
    check_prior(prior_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_laws_of_every_prior(name):
    check_prior(prior_of(name))


def seen(grid, count=9, seed=0, whole_times=True):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 3, dtype=torch.float64, generator=generator)
    t = grid.axes["time"]
    times = t[(u[:, 0] * len(t)).long()] if whole_times else u[:, 0] * (t[-1] - t[0]) + t[0]
    points = mt.Points(time=times, y=2 * u[:, 1], x=3 * u[:, 2])
    return mt.PointObservation(grid, points, noise_std=0.3)


@pytest.mark.parametrize("name", ["carried", "crank"])
def test_laws_of_the_solver(name):
    # with the gradient of the evidence, for every parameter, against finite differences
    grid = small()
    check_solver(mt.SparseCholesky(), prior_of(name, grid), seen(grid, whole_times=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sampling", ["direct", "matheron"])
def test_laws_of_every_solver(name, sampling):
    grid = small()
    check_solver(mt.SparseCholesky(sampling), prior_of(name, grid), seen(grid, whole_times=False))


def kalman(prior, observation, y):
    r"""The smoother of Rauch, Tung and Striebel: means, covariances and the evidence."""
    P, chain = dense(prior.evolution())
    nodes = len(P)
    H = prior.embedding(observation.points).to_dense()
    variance = observation.noise_variance.detach()
    x, evidence, filtered, ahead = torch.zeros(nodes, dtype=torch.float64), 0.0, [], []
    for k in range(len(chain) + 1):
        if k:
            M, E, R = chain[k - 1]
            F = torch.linalg.solve(M, E)
            x = F @ x
            P = F @ P @ F.mT + torch.linalg.solve(M, torch.linalg.solve(M, R).mT)
            ahead.append((F, x, P))
        now = H[:, k * nodes : (k + 1) * nodes]
        here = now.abs().sum(dim=1) > 0
        h, v, d = now[here], y[here], variance[here]
        S = h @ P @ h.mT + torch.diag(d)
        gain = torch.linalg.solve(S, h @ P).mT
        innovation = v - h @ x
        evidence -= (innovation @ torch.linalg.solve(S, innovation) + torch.logdet(S)) / 2
        evidence -= len(v) * math.log(2 * math.pi) / 2
        x, P = x + gain @ innovation, P - gain @ h @ P
        filtered.append((x, P))
    smooth = [filtered[-1]]
    for (x, P), (F, x1, P1) in zip(filtered[-2::-1], ahead[::-1], strict=True):
        G = torch.linalg.solve(P1, F @ P).mT
        later, spread = smooth[0]
        smooth.insert(0, (x + G @ (later - x1), P + G @ (spread - P1) @ G.mT))
    return smooth, evidence


@pytest.mark.parametrize("name", CASES)
def test_posterior_is_that_of_a_kalman_smoother(name):
    grid = small()
    prior, observation = prior_of(name, grid), seen(grid)
    y = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    posterior = mt.SparseCholesky()(prior, observation)(y)
    smooth, evidence = kalman(prior, observation, y)
    A = prior.embedding(grid.points).to_dense()
    mean = A @ torch.cat([m for m, _ in smooth])
    variance = torch.cat([P.diagonal() for _, P in smooth])  # nodes of the grid are nodes
    assert_close(posterior.mean, mean, rtol=1e-8, atol=1e-9)
    assert_close(posterior.std(), (A @ variance).sqrt(), rtol=1e-8, atol=1e-9)
    assert_close(posterior.log_evidence, evidence, rtol=1e-9, atol=1e-9)


def test_a_given_initial_law():
    grid = small()
    base = prior_of("carried", grid)
    n = len(base.lattice)
    Q = base.evolution().initial.detach() * 4.0
    mean = torch.linspace(0, 1, n, dtype=torch.float64)
    arguments = {"lengthscale": 2.5, "timescale": 3.0, "margin": 1.0, "velocity": (0.3, -0.5)}
    prior = AdvectionDiffusion(grid, initial=(mean, Q), mean=0.5, **arguments)
    P, chain = dense(prior.evolution())
    assert_close(P, torch.linalg.inv(Q.to_dense()))
    means = [mean - 0.5]
    for M, E, _ in chain:
        means.append(torch.linalg.solve(M, E @ means[-1]))
    expected = 0.5 + prior.embedding(grid.points).to_dense() @ torch.cat(means)
    assert_close(prior.mean(grid.points).detach(), expected)
    check_prior(prior)
    check_solver(mt.SparseCholesky(), prior, seen(grid))


def test_an_initial_prior():
    grid = small()
    lattice = prior_of("still", grid).lattice
    first = WhittleMatern(mt.Grid(y=steps(3), x=steps(4)), 2.5, 0.3, lattice=lattice)
    prior = AdvectionDiffusion(grid, 2.5, 3.0, lattice=lattice, initial=first)
    start = grid.points[torch.arange(12)]
    space = first.domain.points
    assert_close(prior.covariance(start, start), first.covariance(space, space))
    later = prior.variance(grid.points[torch.arange(24, 36)])
    assert (later > prior.variance(start)).all()


def test_spin_up_is_a_window_that_began_sooner():
    field = swirl(small())
    late = AdvectionDiffusion(small(), 2.5, 3.0, velocity=field, spin_up=2, margin=1.0)
    grid = mt.Grid(time=line(-2.0, -1.0, 0.0, 1.0, 2.5), y=steps(3), x=steps(4))
    whole = AdvectionDiffusion(
        grid, 2.5, 3.0, velocity=late.velocity, margin=1.0, lattice=late.lattice
    )
    s = small().points
    assert_close(late.covariance(s, s), whole.covariance(s, s))


def test_fields_in_space_and_time():
    grid = small()
    prior = AdvectionDiffusion(
        grid,
        2.5,
        3.0,
        margin=1.0,
        kappa=Spline(grid, (2, 2, 2), value=0.6),
        diffusivity=Spline(mt.Grid(y=steps(3), x=steps(4)), 2, shape=(2, 2)),
        velocity=PerNode(grid, torch.zeros(2), shape=(2,), scale=0.5),
        tau=PerNode(mt.Grid(y=steps(3), x=steps(4)), torch.tensor(0.5)),
    )
    assert not any(p.requires_grad for p in prior.kernel.parameters())
    assert not prior.log_timescale.requires_grad
    generator = torch.Generator().manual_seed(0)
    free = [p for p in prior.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in free:
            p += 0.1 * torch.randn(p.shape, dtype=torch.float64, generator=generator)
    observation = seen(grid)
    y = torch.randn(9, dtype=torch.float64, generator=generator)
    likelihood = mt.SparseCholesky().likelihood(prior, observation, y)
    slopes = torch.autograd.grad(likelihood.value(), free)
    for p, slope in zip(free, slopes, strict=True):
        way = torch.randn(p.shape, dtype=torch.float64, generator=generator)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * 1e-5 * way
                sides.append(likelihood.value())
                p -= sign * 1e-5 * way
        numeric = (sides[0] - sides[1]) / 2e-5
        assert_close((slope * way).sum(), numeric, rtol=1e-5, atol=1e-7)
    assert_close(
        prior.penalty(),
        sum(f.penalty() for f in (prior.kappa, prior.diffusivity, prior.velocity, prior.tau)),
    )


def test_a_field_over_time_that_starts_constant_stays_free():
    # its values are equal at all times, but not its gradients
    grid = small()
    field = PerNode(grid, torch.tensor([0.2, 0.1]), shape=(2,))
    prior = AdvectionDiffusion(grid, 2.5, 3.0, margin=1.0, velocity=field)
    (free,) = (p for p in field.parameters() if p.numel() == 2 * len(grid))
    (slope,) = torch.autograd.grad(prior.precision().values.square().sum(), free)
    assert (slope.reshape(3, -1)[1] - slope.reshape(3, -1)[2]).abs().max() > 1e-6


def test_scattered_points():
    points = mt.Points(time=[0.0, 0.7, 1.9], y=[0.0, 3.0, 1.0], x=[0.0, 1.0, 4.0])
    prior = AdvectionDiffusion(points, 3.0, 4.0, step=0.5, velocity=(0.1, 0.1))
    assert len(prior.timeline) == 5
    assert prior.lattice.spacing[~prior.lattice.margin].max() < 0.7
    check_prior(prior)


def test_the_same_law_on_another_domain():
    prior = prior_of("carried")
    there = mt.Points(time=[0.5, 2.0], y=[1.2, 0.3], x=[0.4, 2.2])
    other = prior.on(there)
    assert other.domain is there
    assert_close(other.covariance(there, there), prior.covariance(there, there))
    with pytest.raises(ValueError, match="expected times within"):
        prior.covariance(there, mt.Points(time=[3.0], y=[1.0], x=[1.0]))
    with pytest.raises(ValueError, match="expected points with time"):
        prior.covariance(there, mt.Points(y=[1.0], x=[1.0]))
