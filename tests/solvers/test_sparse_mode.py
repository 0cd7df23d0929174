r"""Laws of the likeliest nodes: linear problems are exact, others are those of dense solvers."""

import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.dynamics import Dynamics
from matheron.priors import WeakConstraint
from matheron.priors.spde import AllenCahn, Lattice, ModelDrift
from matheron.solvers import SparseCholesky, Variational
from tests.priors.test_nonlinear import Neighbours

MARKOV = {
    "still": lambda: mt.WhittleMatern(
        mt.Grid(y=torch.arange(5.0), x=torch.arange(6.0)), lengthscale=3.0, alpha=2.0, mean=0.3
    ),
    "moving": lambda: mt.AdvectionDiffusion(
        mt.Grid(time=[0.0, 1.0, 2.0], x=torch.arange(9.0)), 3.0, 4.0, velocity=(0.4,), mean=0.3
    ),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def observations(grid):
    points = grid.points[torch.arange(0, len(grid), 4)]
    biased = mt.PointObservation(grid, points, 0.3, bias_std=0.2)
    gaps = mt.GriddedObservation(grid, torch.arange(len(grid)) % 3 == 1, 0.3)
    return {"points": mt.PointObservation(grid, points, 0.3), "gaps": gaps, "biased": biased}


@pytest.mark.parametrize("kind", MARKOV)
@pytest.mark.parametrize("data", ["points", "gaps", "biased"])
def test_a_linear_problem_is_solved_exactly(kind, data):
    prior = MARKOV[kind]()
    seen = observations(prior.domain)[data]
    y = seen.sample(prior.sample(1, generator())[0], generator(1)).detach()
    exact, found = SparseCholesky()(prior, seen)(y), Variational("sparse")(prior, seen)(y)
    assert_close(found.mean, exact.mean, rtol=1e-6, atol=1e-6)
    assert found.info["converged"]
    if data == "biased":  # the curvature leaves them out
        return
    assert found.info["iterations"] <= 2
    assert_close(found.std(), exact.std(), rtol=1e-8, atol=1e-8)
    m = seen.count
    constant = (m * math.log(2 * math.pi) + seen.noise_variance.log().sum()) / 2
    evidence = found.info["log_evidence"] - constant
    assert_close(evidence.detach(), exact.log_evidence.detach(), rtol=1e-8, atol=1e-8)
    x = found.sample(3000, generator(2))
    se = exact.std() / math.sqrt(3000)
    assert ((x.mean(dim=0) - exact.mean) / se).abs().max() < 5
    assert ((x.std(dim=0) - exact.std()) / (se / math.sqrt(2))).abs().max() < 5


@pytest.mark.parametrize("kind", MARKOV)
@pytest.mark.parametrize("function", [torch.exp, lambda x: torch.tanh(x) + 0.1 * x])
def test_nonlinear_data_as_by_the_dense_root(kind, function):
    prior = MARKOV[kind]()
    at = torch.arange(1, len(prior.domain), 3)
    seen = mt.NonlinearObservation(prior.domain, lambda x: function(x[..., at]), 0.2)
    y = seen.sample(prior.sample(1, generator())[0], generator(1)).detach()
    dense, found = Variational()(prior, seen)(y), Variational("sparse")(prior, seen)(y)
    assert_close(found.mean, dense.mean, rtol=1e-6, atol=1e-6)
    assert_close(found.std(), dense.std(), rtol=1e-6, atol=1e-6)
    batch = torch.stack([y, y + 0.1])
    law = Variational("sparse")(prior, seen)
    each = torch.stack([law.estimate(v) for v in batch])
    assert_close(law.estimate(batch), each, rtol=1e-9, atol=1e-9)


class Written(Dynamics):
    """The steps of a nonlinear equation, with dense matrices."""

    def __init__(self, prior):
        super().__init__()
        step = prior.linear.evolution().steps[0]
        self.prior, self.dt, self.shape = prior, 1.0, (len(prior.linear.lattice),)
        self.back = torch.linalg.inv(step.ahead.to_dense()).detach()
        self.behind = step.behind.to_dense().detach()
        self.chain = prior.prepare_nodes()

    def advance(self, state):
        u = state - self.prior.linear.constant
        ahead = (u @ self.behind.mT + self.chain.push(u, self.chain.lengths[0])) @ self.back.mT
        return ahead + self.prior.linear.constant


def twins(drift):
    """A nonlinear equation, and the same law as the trajectories of a model with errors."""
    x = torch.arange(6.0)
    grid = mt.Grid(time=0.5 * torch.arange(6.0), x=x)
    linear = mt.AdvectionDiffusion(
        grid, 3.0, 3.0, variance=0.3, velocity=(0.3,), mean=0.1, lattice=Lattice(mt.Grid(x=x))
    )
    prior = mt.NonlinearSPDE(linear, drift)
    model, evolution = Written(prior), linear.evolution()
    S = torch.linalg.inv(evolution.steps[0].noise.precision().to_dense()).detach()
    noise, first = model.back @ S @ model.back.mT, torch.linalg.inv(evolution.initial.to_dense())
    start = torch.full((6,), 0.1, dtype=torch.float64), ((first + first.mT) / 2).detach()
    return prior, WeakConstraint(grid, model, 1, start, (noise + noise.mT) / 2)


@pytest.mark.parametrize("drift", [AllenCahn(1.0, 0.7), Neighbours()])
@pytest.mark.parametrize("linear", [True, False])
def test_a_nonlinear_equation_is_smoothed_as_a_model_with_errors(drift, linear):
    prior, twin = twins(drift)
    grid, at = prior.domain, torch.arange(2, 36, 5)
    seen = mt.GriddedObservation(grid, torch.arange(36) % 5 == 2, 0.2)
    if not linear:
        seen = mt.NonlinearObservation(
            grid, lambda x: x[..., :2].exp(), 0.2, times=torch.tensor([1, 3, 4])
        )
    x = prior.sample(3, generator())
    assert_close(prior.cost(x).detach(), twin.cost(x), rtol=1e-8, atol=1e-8)
    y = seen.sample(x[0], generator(1)).detach()
    dense, found = Variational("smoother")(twin, seen)(y), Variational("sparse")(prior, seen)(y)
    assert_close(found.mean, dense.mean, rtol=1e-5, atol=1e-5)
    assert_close(found.std(), dense.std(), rtol=1e-5, atol=1e-5)
    ahead = found.info["log_evidence"] - dense.info["log_evidence"]
    assert ahead == pytest.approx(0.0, abs=1e-4)
    white = Variational()(prior, seen)(y)  # the same minimum, in the control
    assert_close(white.mean, found.mean, rtol=1e-4, atol=1e-4)
    assert len(at) == 7


def test_it_is_where_conditioning_of_the_linearised_law_stays():
    prior, _ = twins(AllenCahn(1.0, 0.7))
    seen = mt.GriddedObservation(prior.domain, torch.arange(36) % 5 == 2, 0.2)
    y = seen.sample(prior.sample(1, generator())[0], generator(1)).detach()
    found = Variational("sparse")(prior, seen)(y)
    near = prior.linearised(prior._nodes_of(found.mean[None])[0])
    exact = SparseCholesky()(near, seen)(y)
    assert_close(exact.mean, found.mean, rtol=1e-6, atol=1e-6)
    assert_close(exact.std(), found.std(), rtol=1e-6, atol=1e-6)


def test_a_margin_and_a_drift_of_a_model():
    x = torch.arange(8.0)
    grid = mt.Grid(time=[0.0, 0.5, 1.0], x=x)
    prior = mt.NonlinearSPDE(mt.AdvectionDiffusion(grid, 3.0, 4.0), AllenCahn(0.5))
    seen = mt.GriddedObservation(grid, torch.arange(24) % 3 == 1, 0.1)
    y = seen.sample(prior.sample(1, generator())[0], generator(1)).detach()
    found = Variational("sparse")(prior, seen)(y)
    kept = torch.arange(24) % 3 == 1
    assert (found.mean - y)[kept].abs().max() < 0.4
    assert found.std().max() < prior.sample(200, generator(2)).std(dim=0).max()
    far = torch.nn.Identity()
    assert isinstance(ModelDrift(Written(mt.NonlinearSPDE(prior.linear, far))), torch.nn.Module)


def test_several_starts_find_the_lower_of_two_minima():
    prior, _ = twins(AllenCahn(1.5))
    at = torch.tensor([20, 33])
    seen = mt.NonlinearObservation(prior.domain, lambda x: (x[..., at] - 0.5).square(), 0.3)
    y = torch.tensor([2.0, 2.0], dtype=torch.float64)
    one, many = (Variational("sparse", starts=k)(prior, seen)(y) for k in (1, 6))
    assert many.info["cost"] <= one.info["cost"] + 1e-9
    assert (many.mean[at] < 0).all()  # -0.9 is likelier than 1.9


def test_bad_arguments():
    grid = mt.Grid(x=torch.arange(5.0))
    dense = mt.GaussianProcess(mt.Matern(1.5, lengthscale=2.0), grid)
    seen = mt.PointObservation(grid, grid.points[torch.tensor([1])], 0.1)
    with pytest.raises(TypeError, match="Markov"):
        Variational("sparse")(dense, seen)
    with pytest.raises(ValueError, match="ensemble"):
        Variational("sparse", ensemble="rto")
    trended = mt.WhittleMatern(grid, lengthscale=3.0, alpha=2.0, trend="1")
    with pytest.raises(ValueError, match="unknown trend"):
        Variational("sparse")(trended, seen)
