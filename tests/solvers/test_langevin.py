r"""Laws of walking members: they keep the law that they should, and come to it from any other."""

import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.priors import AugmentedSPDE, WeakConstraint
from matheron.priors.spde import AllenCahn, Lattice
from matheron.solvers import Langevin, Variational, walks
from tests.linear_models import Linear, grid_of, normal, positive

SE = 5.0
"""Standard errors that are allowed."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weak():
    A, m = 0.7 * normal(2, 2, seed=3), normal(2, seed=4)
    return WeakConstraint(grid_of(5, 2), Linear(A), 1, (m, positive(2, 1)), positive(2, 2))


def gaussian(kind):
    """A prior, what sees it, and a solver that is exact."""
    grid = mt.Grid(x=torch.arange(12.0))
    seen = mt.PointObservation(grid, grid.points[torch.tensor([2, 5, 9])], 0.3)
    if kind == "process":
        return mt.GaussianProcess(mt.Matern(1.5, lengthscale=3.0), grid, 0.5), seen, mt.Kriging()
    if kind == "markov":  # a margin, and data between nodes
        seen = mt.PointObservation(grid, mt.Points(x=[2.3, 5.0, 9.7]), 0.3)
        prior = mt.WhittleMatern(grid, lengthscale=3.0, alpha=2.0, mean=0.5)
        return prior, seen, mt.SparseCholesky()
    if kind == "moving":
        grid = mt.Grid(time=[0.0, 1.0, 2.0], x=torch.arange(8.0))
        prior = mt.AdvectionDiffusion(grid, 3.0, 4.0, velocity=(0.5,))
        seen = mt.GriddedObservation(grid, torch.arange(24) % 5 == 1, 0.3)
        return prior, seen, mt.SparseCholesky()
    prior = weak()
    seen = mt.GriddedObservation(prior.domain, torch.arange(10) % 3 == 1, 0.5)
    return prior, seen, Variational()


def data(prior, seen, seed=7):
    return seen.sample(prior.sample(1, generator(seed))[0], generator(seed)).detach()


def check_moments(x, mean, std):
    """Draws against a Gaussian law, by five standard errors of mean and std."""
    se = std / math.sqrt(len(x))
    assert ((x.mean(dim=0) - mean) / se).abs().max() < SE
    assert ((x.std(dim=0) - std) / (se / math.sqrt(2))).abs().max() < SE


@pytest.mark.parametrize("kind", ["process", "markov", "moving", "weak"])
def test_a_gaussian_law_takes_every_step_from_any_start(kind):
    prior, seen, start = gaussian(kind)
    y = data(prior, seen)
    exact = start(prior, seen)(y)
    law = Langevin(start, steps=60, members=200)(prior, seen)
    wrong = 3 * prior.sample(400, generator(1)) + 5 * exact.std()
    walk = law.walked(y, wrong, generator(2))
    assert_close(walk.acceptance, torch.ones(400, dtype=torch.float64), rtol=0, atol=1e-6)
    assert_close(walk.step, torch.full((400,), 2.0, dtype=torch.float64))
    check_moments(walk.members, exact.mean, exact.std())
    assert abs(walk.remembered) < SE / 20
    posterior = law(y)
    info = posterior.info
    assert info["draws"] > 0.5 * 200 * 30
    se = exact.std() / math.sqrt(200 * 30)
    assert ((posterior.mean - exact.mean) / se).abs().max() < SE
    assert ((posterior.std() - exact.std()) / (se / math.sqrt(2))).abs().max() < SE


@pytest.mark.parametrize("kind", ["process", "markov", "weak"])
def test_another_scale_of_steps_goes_to_the_same_law(kind):
    """Steps scaled by the prior are rejected at times, and forget what they came from too."""
    prior, seen, start = gaussian(kind)
    y = data(prior, seen)
    exact = start(prior, seen)(y)
    law = Langevin(start, steps=600, preconditioner="prior")(prior, seen)
    wrong = 2 * prior.sample(400, generator(1)) + 2 * exact.std()
    walk = law.walked(y, wrong, generator(2))
    assert 0.3 < walk.acceptance.mean() < 0.95
    check_moments(walk.members, exact.mean, exact.std())


def quadrature(log_density, span=6.0, count=20001):
    s = torch.linspace(-span, span, count, dtype=torch.float64)
    p = log_density(s)
    p = (p - p.max()).exp()
    return s, p / p.sum()


NUMBER = mt.Grid(x=[0.0])
DATA = {
    "square": (torch.square, 0.5, 1.0),
    "exponential": (torch.exp, 0.8, 1.0),
    "saturated": (lambda x: torch.tanh(2 * x), 0.5, 0.6),
}


def one_number(kind):
    function, noise, y = DATA[kind]
    prior = mt.GaussianProcess(mt.Matern(0.5, variance=1.5), NUMBER, 0.2)
    seen = mt.NonlinearObservation(NUMBER, function, noise)
    s, p = quadrature(lambda s: -((s - 0.2) ** 2) / 3 - (function(s) - y) ** 2 / (2 * noise**2))
    return prior, seen, torch.tensor([y], dtype=torch.float64), s, p


@pytest.mark.parametrize("kind", DATA)
def test_one_number_against_quadrature(kind):
    prior, seen, y, s, p = one_number(kind)
    law = Langevin(Variational(), steps=400)(prior, seen)
    start = Variational()(prior, seen)(y)
    members = (prior if kind == "square" else start).sample(1500, generator())
    walk = law.walked(y, members, generator(1))
    x = walk.members[:, 0]
    cumulative = p.cumsum(0)
    places = torch.searchsorted(s, x.contiguous()).clamp(max=len(s) - 1)
    rank = cumulative[places].sort().values
    even = (torch.arange(1500, dtype=torch.float64) + 0.5) / 1500
    # Kolmogorov and Smirnov: two in a million draws are further than 2.65 / sqrt(size)
    assert (rank - even).abs().max() < 2.65 / math.sqrt(1500)
    mean, square = (p * s).sum(), (p * s**2).sum()
    variance = square - mean**2
    se = (variance / walk.draws()).sqrt()
    assert (walk.mean.mean() - mean).abs() < SE * se
    assert walk.variance()[0].item() == pytest.approx(variance.item(), rel=0.1)


@pytest.mark.parametrize("step", [0.3, 1.2, 2.0])
def test_one_step_of_any_length_keeps_the_law(step):
    """Detailed balance: members of the law itself are members of it after a few steps."""
    prior, seen, y, s, p = one_number("square")
    cumulative = p.cumsum(0)
    u = torch.rand(4000, dtype=torch.float64, generator=generator())
    start = s[torch.searchsorted(cumulative, u).clamp(max=len(s) - 1)][:, None]
    law = Langevin(Variational(), steps=3, settling=0.0)(prior, seen)
    walk = _with_step(law, y, start, step)
    assert walk.acceptance.mean() < 0.999
    rank = cumulative[torch.searchsorted(s, walk.members[:, 0].contiguous())].sort().values
    even = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert (rank - even).abs().max() < 2.65 / math.sqrt(4000)


def _with_step(law, y, members, step):
    seeds = torch.arange(len(members))
    way = walks._Way(law.ground, law.law(y), y, law.ground.encode(members), seeds, law.solver.plan)
    way.pace.log = torch.full_like(way.pace.log, math.log(step))
    return way.to_the_end()


def test_two_numbers_against_quadrature():
    grid = mt.Grid(x=[0.0, 1.0])
    prior = mt.GaussianProcess(mt.Matern(0.5, lengthscale=1.0), grid)
    seen = mt.NonlinearObservation(grid, lambda x: x[..., :1] * x[..., 1:], 0.3)
    y = torch.tensor([0.4], dtype=torch.float64)
    axis = torch.linspace(-5, 5, 601, dtype=torch.float64)
    s = torch.cartesian_prod(axis, axis)
    p = (-prior.cost(s) - seen.cost(s, y.expand(len(s), -1))).detach()
    p = (p - p.max()).exp()
    p = p / p.sum()
    law = Langevin(Variational(), steps=400)(prior, seen)
    x = law.walked(y, prior.sample(1500, generator()), generator(1)).members
    for f in (lambda x: x[:, 0], lambda x: x[:, 0] * x[:, 1], lambda x: x[:, 0].abs()):
        mean = (p * f(s)).sum()
        std = ((p * f(s) ** 2).sum() - mean**2).sqrt()
        assert (f(x).mean() - mean).abs() < SE * std / math.sqrt(1500)
    assert 0.45 < (x[:, 0] > 0).double().mean() < 0.55


def test_members_do_not_know_each_other():
    prior, seen, y, _, _ = one_number("exponential")
    law = Langevin(Variational(), steps=40)(prior, seen)
    members = prior.sample(9, generator())
    whole = law.walked(y, members, generator(1))
    part = law.walked(y, members[:4], generator(1))
    assert_close(part.members, whole.members[:4], rtol=1e-12, atol=1e-12)
    assert_close(part.step, whole.step[:4], rtol=1e-12, atol=1e-12)
    again = law(y).sample(5, generator(3)), law(y).sample(5, generator(3))
    assert torch.equal(*again)


def test_parts_of_a_large_ensemble_are_joined(monkeypatch):
    prior, seen, start = gaussian("process")
    y = data(prior, seen)
    law = Langevin(start, steps=20)(prior, seen)
    members = prior.sample(7, generator())
    whole = law.walked(y, members, generator(1))
    monkeypatch.setattr("matheron.solvers.walks.NUMBERS", 36)
    parts = law.walked(y, members, generator(1))
    assert_close(parts.members, whole.members)
    assert_close(parts.variance(), whole.variance())
    assert parts.draws() == pytest.approx(whole.draws())


def test_a_batch_of_data_is_solved_row_by_row():
    prior, seen, start = gaussian("process")
    y = torch.stack([data(prior, seen, k) for k in (1, 2)])
    law = Langevin(start, steps=20, members=8)(prior, seen)
    assert_close(law.estimate(y), torch.stack([law.estimate(v) for v in y]))
    assert law.estimate(y[None]).shape == (1, 2, 12)
    std = law(y[0]).std(size=40, generator=generator())
    assert std.shape == (12,)


def test_members_given_parameters_are_refined():
    """Those of the joint law of a field and its parameters, once the parameters are known."""
    grid = mt.Grid(time=[0.0, 1.0], y=torch.arange(5.0), x=torch.arange(6.0))
    joint = AugmentedSPDE(grid, lengthscale=3.0, timescale=4.0)
    x, theta = joint.sample_jointly(1, generator())
    given = joint.given(theta[0])
    seen = mt.GriddedObservation(grid, torch.arange(60) % 4 == 0, 0.2)
    y = seen.sample(x[0], generator(1)).detach()
    exact = mt.SparseCholesky()(given, seen)(y)
    law = Langevin(mt.SparseCholesky(), steps=20)(given, seen)
    learned = joint.sample(300, generator(2))  # of no use as a posterior
    walk = law.walked(y, learned, generator(3))
    check_moments(walk.members, exact.mean, exact.std())


def bistable():
    r"""A field that falls to one of two states after it was seen between them."""
    x = torch.arange(4.0)
    grid = mt.Grid(time=0.5 * torch.arange(9.0), x=x)
    linear = mt.AdvectionDiffusion(grid, 6.0, 2.0, variance=0.1, lattice=Lattice(mt.Grid(x=x)))
    prior = mt.NonlinearSPDE(linear, AllenCahn(1.5))
    seen = mt.PointObservation(grid, grid.points[torch.tensor([9, 11])], 0.1)
    return prior, seen, torch.tensor([0.15, 0.15], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("over", ["nodes", "control"])
def test_a_field_with_two_states(over):
    prior, seen, y = bistable()
    start = Variational("sparse")
    laplace = start(prior, seen)(y)
    law = Langevin(start, steps=1600, members=200, over=over)(prior, seen)
    walk = law.walked(y, laplace.sample(200, generator(1)), generator(2))
    # members of the prior, weighed by the data, are the answer
    x = prior.sample(200_000, generator(3))
    w = torch.exp(-seen.cost(x, y.expand(len(x), -1)))
    w = w / w.sum()
    mean = w @ x
    std = (w @ (x - mean).square()).sqrt()
    error = std * (1 / walk.draws() + w.square().sum()).sqrt()
    end = torch.arange(20, 36) if over == "control" else torch.arange(36)
    assert ((walk.mean.mean(dim=0) - mean) / error)[end].abs().max() < SE
    assert_close(walk.variance().sqrt()[end], std[end], rtol=0.12, atol=0.0)
    last = prior.domain.unflatten(walk.members)[:, -1].mean(dim=-1)
    low = (last < -0.3).double().mean()
    assert low > 0.1  # both states
    assert (last > 0.3).double().mean() > 0.3
    assert ((laplace.mean - mean).abs() / std)[end].max() > 0.3


def test_bad_arguments():
    prior, seen, start = gaussian("process")
    with pytest.raises(ValueError, match="preconditioner"):
        Langevin(start, preconditioner="none")
    with pytest.raises(ValueError, match="over"):
        Langevin(start, over="graph")
    with pytest.raises(ValueError, match="steps"):
        Langevin(start, steps=0)
    with pytest.raises(TypeError, match="over='nodes'"):
        Langevin(start, over="nodes")(prior, seen)
    trended = mt.WhittleMatern(prior.domain, lengthscale=3.0, alpha=2.0, trend="1")
    with pytest.raises(ValueError, match="unknown trend"):
        Langevin(mt.SparseCholesky())(trended, seen)
    grid = mt.Grid(time=[0.0, 1.0], y=torch.arange(5.0), x=torch.arange(6.0))
    with pytest.raises(TypeError, match="Energy"):
        Langevin(start)(AugmentedSPDE(grid, lengthscale=3.0, timescale=4.0), seen)
    root = mt.NonlinearObservation(NUMBER, torch.log, 0.1)
    one = mt.GaussianProcess(mt.Matern(0.5), NUMBER, 1.0)
    law = Langevin(Variational(), preconditioner="prior")(one, root)
    with pytest.raises(ValueError, match="finite cost"):
        law.walked(torch.zeros(1).double(), torch.tensor([[-1.0]]).double())
