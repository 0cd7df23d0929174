r"""Laws of nonlinear equations of evolution: linear limits, chains written out, densities."""

import copy
import itertools
import math
import pytest
import torch
import torch.nn as nn

from torch.autograd.functional import hessian
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

import matheron as mt

from matheron.dynamics import Lorenz96, TwoLayerQG
from matheron.priors.spde import (
    AdvectionDiffusion,
    AllenCahn,
    Lattice,
    Logistic,
    ModelDrift,
    NonlinearSPDE,
    Reaction,
)
from matheron.testing import check_prior
from tests.linear_models import normal


class Proportional(Reaction):
    """x -> c x, one Euler step at a time."""

    def __init__(self, rate):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, x):
        return self.rate * x


class Neighbours(nn.Module):
    """A drift that looks at the next node, and is not linear."""

    def forward(self, x):
        return 0.3 * torch.sin(x.roll(1, -1)) * x


DRIFTS = {
    "allen-cahn": AllenCahn(1.2, 0.8),
    "logistic": Logistic(0.7, 1.5),
    "neighbours": Neighbours(),
    "model": ModelDrift(Lorenz96(12, dt=0.01), steps=3, unit=2.0),
}


def linear(times=(0.0, 0.5, 1.0, 1.8), margin=False, **settings):
    axes = {"y": torch.arange(3.0), "x": torch.arange(4.0)}
    grid = mt.Grid(time=torch.tensor(tuple(times), dtype=torch.float64), **axes)
    if not margin:
        settings["lattice"] = Lattice(mt.Grid(**axes))
    arguments = {"lengthscale": 3.0, "timescale": 4.0, "variance": 0.5, "mean": 0.2} | settings
    return AdvectionDiffusion(grid, **arguments)


def equation(kind="allen-cahn", **settings):
    return NonlinearSPDE(linear(**settings), DRIFTS[kind])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def without_noise(prior):
    """The nodes of the trajectory that no noise moves: all innovations are zero there."""
    zero = torch.zeros(1, prior.control_size, dtype=torch.float64)
    return (prior.decode(zero)[:, prior._order] - prior.linear.constant)[0]


def written_out(prior):
    """The transitions of the chain as functions and dense covariances."""
    evolution, steps = prior.linear.evolution(), prior.linear.timeline.steps.tolist()
    m, C = prior.linear.constant, prior.linear.lattice.volume
    laws = [(lambda u: torch.zeros_like(u), torch.linalg.inv(evolution.initial.to_dense()))]
    for step, delta in zip(evolution.steps, steps, strict=True):
        M, E = step.ahead.to_dense(), step.behind.to_dense()
        S = torch.linalg.inv(step.noise.precision().to_dense())
        back = torch.linalg.inv(M)

        def ahead(u, back=back, E=E, delta=delta):
            x = m + u
            if isinstance(prior.drift, Reaction):
                push = prior.drift.moved(x, delta) - x
            else:
                push = delta * prior.drift(x)
            return (u @ E.mT + C * push) @ back.mT

        laws.append((ahead, back @ S @ back.mT))
    return [(f, V.detach()) for f, V in laws]


def log_density(prior, x):
    states = (x - prior.linear.constant)[:, prior._order].unflatten(-1, (-1, 12))
    total, before = 0.0, states[:, 0]
    for k, (ahead, V) in enumerate(written_out(prior)):
        V = (V + V.mT) / 2
        total = total + MultivariateNormal(ahead(before), V).log_prob(states[:, k])
        before = states[:, k]
    return total


@pytest.mark.parametrize("kind", DRIFTS)
@pytest.mark.parametrize(
    "settings", [{}, {"velocity": (0.3, -0.2), "color": 2, "scheme": "crank-nicolson"}]
)
def test_density_is_that_of_the_chain_written_out(kind, settings):
    prior = equation(kind, **settings)
    x = prior.sample(3, generator()) + 0.1 * normal(3, 48, seed=1)
    with torch.no_grad():
        assert_close(prior.log_density(x), log_density(prior, x), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("kind", DRIFTS)
def test_draws_are_those_of_a_loop(kind):
    prior = equation(kind)
    evolution = prior.linear.evolution()
    g, states = generator(3), []
    draw = lambda: torch.randn(12, 5, dtype=torch.float64, generator=g)
    white = [draw() for _ in range(4)]
    u = evolution.factor.sqrt_solve(white[0]).mT
    states.append(u)
    for (ahead, _), step, z in zip(
        written_out(prior)[1:], evolution.steps, white[1:], strict=True
    ):
        r = torch.linalg.solve(step.ahead.to_dense(), step.noise.sample(z)).mT
        states.append(ahead(states[-1]) + r)
    expected = prior.linear.constant + torch.cat(states, dim=-1)
    found = prior.sample(5, generator(3))
    assert_close(found[:, prior._order], expected.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", DRIFTS)
@pytest.mark.parametrize("color", [0, 1, 2, 3])
def test_control_is_the_white_noise_of_a_field(kind, color):
    taus = {"tau": torch.ones(12).double()} if color == 0 else {}
    prior = equation(kind, color=color, **taus)
    v = normal(2, 3, 48)
    x = prior.decode(v)
    assert_close(prior.encode(x), v, rtol=1e-8, atol=1e-8)
    assert_close(prior.cost(x), v.square().sum(dim=-1) / 2)
    again = prior.sample(2, generator(1))
    assert_close(prior.decode(prior.encode(again)), again)


def test_sparse_steps_are_the_dense_ones(monkeypatch):
    prior, v = equation().requires_grad_(False), normal(2, 48)
    dense = prior.decode(v)
    monkeypatch.setattr("matheron.priors.spde.nonlinear.DENSE", 0)
    assert_close(prior.decode(v), dense, rtol=1e-9, atol=1e-9)
    v, u, w = normal(1, 48).requires_grad_(), normal(1, 48, seed=1), normal(1, 48, seed=2)
    slope = lambda v: torch.autograd.grad((prior.decode(v) * w).sum(), v, create_graph=True)[0]
    (second,) = torch.autograd.grad((slope(v) * u).sum(), v)
    ahead, behind = (v.detach().add(s * 1e-5 * u).requires_grad_() for s in (1, -1))
    along = ((prior.decode(ahead) - prior.decode(behind)) * w).sum() / 2e-5
    assert_close((slope(v) * u).sum(), along, rtol=1e-7, atol=1e-7)
    assert_close(second, (slope(ahead) - slope(behind)) / 2e-5, rtol=1e-6, atol=1e-6)


def test_without_a_drift_it_is_the_linear_equation():
    for drift in (Proportional(0.0), nn.Tanh()):
        base = linear(velocity=(0.2, 0.1))
        prior = NonlinearSPDE(base, drift)
        if isinstance(drift, nn.Tanh):
            drift.register_forward_hook(lambda module, given, out: 0 * out)
        x = base.sample(4, generator())
        assert_close(prior.sample(4, generator()), x)
        assert_close(prior.cost(x), base.cost(x))
        B = base.covariance(base.domain.points, base.domain.points)
        law = MultivariateNormal(base.drift(), (B + B.mT).detach() / 2)
        assert_close(prior.log_density(x), law.log_prob(x), rtol=1e-8, atol=1e-8)
        near = prior.linearised(normal(48))
        assert_close(near.precision().to_dense(), base.precision().to_dense())
        assert_close(near.drift(), base.drift())


def decaying(rate, step, initial):
    x, ones = torch.arange(12.0), torch.ones(12, dtype=torch.float64)
    return AdvectionDiffusion(
        mt.Grid(time=[0.0, 1.0], x=x),
        lengthscale=4.0,
        timescale=4.0,
        color=0,  # otherwise the noise has the operator in it
        kappa=ones * math.sqrt(rate),
        diffusivity=6.0 * ones[:, None, None],
        tau=ones,
        lattice=Lattice(mt.Grid(x=x)),
        step=step,
        initial=initial,
    )


def test_a_linear_drift_is_another_kappa():
    """The same law as the step goes to zero: explicit here, implicit there."""
    c, kappa2, errors = 0.4, 0.25, []
    start = torch.linspace(-1, 1, 12, dtype=torch.float64)
    initial = (start, decaying(kappa2, 1.0, "stationary").evolution().initial.detach())
    for step in (0.1, 0.05, 0.025):
        prior = NonlinearSPDE(decaying(kappa2, step, initial), Proportional(-c))
        near = prior.linearised(torch.zeros(prior.control_size, dtype=torch.float64))
        exact = decaying(kappa2 + c, step, initial)
        end = prior.domain.points[torch.arange(12, 24)]
        gap = (near.covariance(end, end) - exact.covariance(end, end)).detach().abs().max()
        drop = (near.mean(end) - exact.mean(end)).detach().abs().max()
        errors.append((gap.item(), drop.item()))
    for a, b in itertools.pairwise(errors):
        assert a[0] / b[0] == pytest.approx(2, abs=0.25)
        assert a[1] / b[1] == pytest.approx(2, abs=0.25)
    assert max(errors[-1]) < 0.02


@pytest.mark.parametrize("kind", DRIFTS)
def test_gradients(kind):
    prior = equation(kind, velocity=(0.3, 0.1))
    x = prior.sample(2, generator())
    numeric = [
        (prior.cost(x + h) - prior.cost(x - h)) / 2e-5
        for h in 1e-5 * torch.eye(48, dtype=torch.float64)
    ]
    slope = prior.gradient(x)
    scale = slope.abs().max().item()
    assert_close(slope.detach(), torch.stack(numeric, -1).detach(), rtol=0, atol=1e-6 * scale)
    chain = prior.prepare_nodes()
    cost, of_nodes = chain(prior._nodes_of(x))
    assert_close(cost, prior.cost(x).detach())
    assert_close(of_nodes, slope.detach()[:, prior._order])


def test_gradients_reach_the_parameters():
    prior = NonlinearSPDE(linear(), Proportional(0.1))
    x = prior.sample(1, generator())[0]
    free = [p for p in prior.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(prior.log_density(x), free)
    for p, slope in zip(free, slopes, strict=True):
        with torch.no_grad():
            p += 1e-5
            up = prior.log_density(x)
            p -= 2e-5
            down = prior.log_density(x)
            p += 1e-5
        assert slope.sum().item() == pytest.approx((up - down).item() / 2e-5, rel=1e-5)


@pytest.mark.parametrize("kind", DRIFTS)
def test_curvature_is_the_hessian_where_nothing_pushes(kind):
    # the second derivative of the innovations has no part where they are zero
    prior = equation(kind, velocity=(0.2, 0.1)).requires_grad_(False)
    u = without_noise(prior)
    chain = prior.prepare_nodes()
    exact = hessian(lambda v: chain.cost(v[None])[0], u)
    assert_close(chain.curvature(u).to_dense(), exact, rtol=1e-6, atol=1e-6)
    assert chain.cost(u[None]).abs().item() < 1e-18
    near = prior.linearised(u)
    assert_close(near.centre, u)


@pytest.mark.parametrize("kind", DRIFTS)
def test_the_linearised_law(kind):
    r"""Its cost is that of the linear part of the innovations: the same value and slope there."""
    prior = equation(kind)
    x = prior.sample(1, generator())
    u = prior._nodes_of(x)[0]
    near = prior.linearised(u)
    check_prior(near, size=2000)
    assert_close(near.cost(x), prior.cost(x).detach(), rtol=1e-8, atol=1e-8)
    assert_close(near.gradient(x), prior.gradient(x).detach(), rtol=1e-7, atol=1e-7)
    assert_close(near.log_determinant(), torch.logdet(near.precision().to_dense()))
    assert_close(prior.log_determinant().detach(), near.log_determinant().detach())


def test_a_margin_is_drawn_and_not_asked_for():
    prior = equation(margin=True)
    assert prior.control_size > 48
    v = normal(2, prior.control_size)
    x = prior.decode(v)
    assert x.shape == (2, 48)
    assert_close(prior.decode(prior.encode(x)), x, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="lattice=Lattice"):
        prior.cost(x)


def test_laws_of_every_prior():
    check_prior(equation())


@pytest.mark.parametrize(
    ("drift", "start"), [(AllenCahn(1.3, 0.7), -2.0), (Logistic(0.8, 1.4), -0.5)]
)
def test_reactions_are_followed_exactly(drift, start):
    x = torch.linspace(start, 3.0, 31, dtype=torch.float64)
    euler, errors = x.clone(), []
    for count in (1000, 2000):
        euler = x.clone()
        for _ in range(count):
            euler = euler + 1.5 / count * drift(euler)
        errors.append((euler - drift.moved(x, 1.5)).abs().max().item())
    assert errors[1] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    half = drift.moved(drift.moved(x, 0.7), 0.8)
    assert_close(half, drift.moved(x, 1.5))


def test_a_strong_reaction_has_two_states():
    grid = mt.Grid(time=torch.arange(0.0, 12.1, 1.0), x=torch.arange(3.0))
    base = AdvectionDiffusion(
        grid, 6.0, 8.0, variance=0.01, lattice=Lattice(mt.Grid(x=torch.arange(3.0)))
    )
    prior = NonlinearSPDE(base, AllenCahn(3.0))
    x = grid.unflatten(prior.sample(500, generator()))[:, -1].mean(dim=-1)
    assert ((x.abs() - 1).abs() < 0.4).double().mean() > 0.9
    # five standard errors of a share of a half
    assert abs((x > 0).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(500)


def test_a_layered_flow():
    """The tendency of quasi-geostrophic turbulence, its two layers one above the other."""
    model = TwoLayerQG(6, length=6e5, dt=1800.0)
    axes = {"y": torch.arange(12.0), "x": torch.arange(6.0)}
    grid = mt.Grid(time=[0.0, 0.1, 0.2], **axes)
    base = AdvectionDiffusion(grid, 4.0, 20.0, variance=1e-10, lattice=Lattice(mt.Grid(**axes)))
    prior = NonlinearSPDE(base, ModelDrift(model, steps=4, unit=1 / 86400)).requires_grad_(False)
    x = prior.sample(2, generator())
    assert x.isfinite().all()
    u = without_noise(prior)
    chain = prior.prepare_nodes()
    scale = chain.curvature(u).diagonal().mean()
    exact = hessian(lambda v: chain.cost(v[None])[0], u)
    assert_close(chain.curvature(u).to_dense() / scale, exact / scale, rtol=1e-7, atol=1e-9)


def test_bad_arguments():
    with pytest.raises(ValueError, match="without an unknown trend"):
        NonlinearSPDE(linear(trend="1"), AllenCahn(1.0))
    with pytest.raises(ValueError, match="keeps shape"):
        NonlinearSPDE(linear(), nn.Flatten(0))
    with pytest.raises(ValueError, match="positive number"):
        AllenCahn(-1.0)
    with pytest.raises(ValueError, match="positive unit"):
        ModelDrift(Lorenz96(12), unit=0.0)
    with pytest.raises(ValueError, match="stay finite"):
        NonlinearSPDE(linear(times=range(60)), Proportional(1e6)).sample(1)
    with pytest.raises(ValueError, match="at least one draw"):
        equation().sample(0)


def test_a_chain_that_is_kept_follows_its_parameters():
    prior = NonlinearSPDE(linear(), Proportional(0.1)).requires_grad_(False)
    x = prior.sample(1, generator())
    first = prior.cost(x)
    assert prior.innovations() is prior.innovations()
    with torch.no_grad():
        prior.drift.rate.add_(0.3)
        prior.linear.log_timescale.add_(0.1)
    moved = prior.cost(x)
    assert (moved - first).abs().item() > 1e-3
    copied = copy.deepcopy(prior)
    assert copied.innovations() is not prior.innovations()
    assert_close(copied.cost(x), moved)
