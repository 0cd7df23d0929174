"""Laws of the losses for a solver of a field and of its parameters."""

import dataclasses
import pytest
import torch

import matheron as mt

from matheron.fit.bilevel import (
    JointSimulations,
    bilevel,
    parameter_error,
    parameter_likelihood,
    withheld_likelihood,
)
from matheron.fit.losses import Outcome
from matheron.fit.objective import Objective
from matheron.nets import UNet
from matheron.priors.spde.augmented import AugmentedSPDE
from matheron.priors.spde.lattice import Lattice
from matheron.priors.spde.parameters import Spread
from matheron.solvers.neural.augmented import AugmentedVariational

SPACE = {"y": torch.arange(6.0), "x": torch.arange(7.0)}
GRID = mt.Grid(time=torch.arange(2.0), **SPACE)
BARE = Lattice(mt.Grid(**SPACE))
PRIOR = AugmentedSPDE(
    GRID, 3.0, 4.0, spread=Spread(timescale=0.0, velocity=0.0), every=3, lattice=BARE
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simulations(count: int = 3) -> JointSimulations:
    return JointSimulations(PRIOR, PRIOR.sample_jointly(count, seeded()), 0.4, 0.3)


def outcome(theta: torch.Tensor | None = None) -> Outcome:
    batch = simulations().batch(torch.arange(3), torch.arange(3))
    seen = mt.GriddedObservation(GRID, batch.mask, batch.noise_std)
    theta = batch.theta if theta is None else theta
    return Outcome(batch, PRIOR, seen, batch.values, batch.truth, None, theta)


def small() -> AugmentedVariational:
    net = UNet(5, 2 + PRIOR.channels, width=4, levels=2, generator=seeded())
    return AugmentedVariational(net, mt.SparseCholesky())


def test_parameter_error_is_of_what_varies() -> None:
    exact = outcome()
    assert not parameter_error()(exact).any()
    moved = exact.theta.clone()
    moved[:, 1] += 9.0  # the timescale, and the velocity, do not vary
    moved[:, -2:] += 9.0
    assert not parameter_error()(outcome(moved)).any()
    moved[:, 0] += 2.0
    torch.testing.assert_close(parameter_error()(outcome(moved)), torch.ones(3).double())


def test_likelihood_is_the_cost_per_node() -> None:
    found = outcome()
    with torch.no_grad():
        each = parameter_likelihood()(found)
        cost = PRIOR.cost(found.batch.truth, found.theta) - PRIOR.penalty(found.theta)
        both = bilevel(2.0, 3.0)(dataclasses.replace(found, x=found.x + 1.0))
    torch.testing.assert_close(each, cost / len(GRID))
    torch.testing.assert_close(both, 2.0 + 3.0 * each)


def test_withheld_likelihood_is_a_conditional_density() -> None:
    found = outcome()
    hidden_mask = ~found.batch.mask
    hidden = torch.where(hidden_mask, found.batch.truth, 0.0)
    batch = dataclasses.replace(found.batch, hidden=hidden, hidden_mask=hidden_mask)
    found = dataclasses.replace(found, batch=batch)
    with torch.no_grad():
        each = withheld_likelihood(mt.SparseCholesky())(found)
    s = GRID.points
    for k in range(3):
        B = PRIOR.given(found.theta[k]).covariance(s, s)
        B = (B + B.mT) / 2 + 0.09 * torch.eye(len(B)).double()
        y, seen = batch.values[k] + hidden[k], batch.mask[k]

        def density(at: torch.Tensor, B: torch.Tensor = B, y: torch.Tensor = y) -> torch.Tensor:
            mean = torch.zeros(int(at.sum())).double()
            return torch.distributions.MultivariateNormal(mean, B[at][:, at]).log_prob(y[at])

        all_of_them = torch.ones_like(seen)
        expected = -(density(all_of_them) - density(seen)) / hidden_mask[k].sum()
        torch.testing.assert_close(each[k], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", [bilevel(), withheld_likelihood(mt.SparseCholesky())])
def test_likelihoods_train_the_networks(loss: mt.fit.Loss) -> None:
    solver, found = small(), outcome()
    hidden_mask = ~found.batch.mask
    hidden = torch.where(hidden_mask, found.batch.truth, 0.0)
    batch = dataclasses.replace(found.batch, hidden=hidden, hidden_mask=hidden_mask)
    Objective(solver, PRIOR, loss).values(batch).sum().backward()
    slope = solver.guess.leave.bias.grad
    assert slope[2].abs() > 0  # that of the std
    assert not slope[3].any()  # the timescale does not vary


def test_training_tells_parameters_from_data() -> None:
    source, solver = simulations(32), small()
    schedule = mt.fit.Schedule(steps=60, batch=8, rate=1e-2)
    loss = mt.fit.field_error() + parameter_error()
    history = mt.fit.train(solver, PRIOR, source, loss, schedule=schedule, generator=seeded())
    assert sum(history.losses[-10:]) < 0.8 * sum(history.losses[:10])


def test_simulations_remember_their_parameters() -> None:
    source = simulations()
    batch = source.batch(torch.tensor([2, 0]), torch.tensor([5, 6]))
    assert torch.equal(batch.theta, source.theta[[2, 0]])
    assert torch.equal(batch.to("cpu").theta, batch.theta)
    assert source.fingerprint() != simulations(2).fingerprint()
    x, theta = PRIOR.sample_jointly(2, seeded())
    with pytest.raises(ValueError, match="as many fields as parameters"):
        JointSimulations(PRIOR, (x, theta[:1]), 0.4, 0.3)


def test_refusals() -> None:
    found = outcome()
    plain = dataclasses.replace(found, theta=None)
    with pytest.raises(TypeError, match="a solver that estimates parameters"):
        parameter_error()(plain)
    with pytest.raises(TypeError, match="an AugmentedSPDE"):
        parameter_error()(dataclasses.replace(found, prior=PRIOR.equation))
    blank = dataclasses.replace(found, batch=dataclasses.replace(found.batch, theta=None))
    with pytest.raises(ValueError, match="whose parameters are known"):
        parameter_error()(blank)
    blank = dataclasses.replace(found, batch=dataclasses.replace(found.batch, truth=None))
    with pytest.raises(ValueError, match="windows with a truth"):
        parameter_likelihood()(blank)
    with pytest.raises(ValueError, match="hidden data"):
        withheld_likelihood(mt.SparseCholesky())(found)
