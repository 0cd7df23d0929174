"""Laws of the learned solver for a field and the parameters of its law."""

import dataclasses
import pytest
import torch

import matheron as mt

from matheron.fit.bilevel import JointSimulations, parameter_error
from matheron.fit.objective import Objective
from matheron.nets import UNet
from matheron.priors.spde.augmented import AugmentedSPDE
from matheron.priors.spde.lattice import Lattice
from matheron.solvers.neural.augmented import AugmentedConditional, AugmentedVariational

SPACE = {"y": torch.arange(6.0), "x": torch.arange(7.0)}
GRID = mt.Grid(time=torch.arange(2.0), **SPACE)
PRIOR = AugmentedSPDE(GRID, 3.0, 4.0, std=2.0, every=3, lattice=Lattice(mt.Grid(**SPACE)))
C, P, W = 2, PRIOR.channels, 3
MASK = torch.arange(len(GRID)) % 3 == 0
SEEN = mt.GriddedObservation(GRID, MASK, 0.3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(channels: int, out: int, seed: int = 0) -> UNet:
    return UNet(channels, out, width=4, levels=2, generator=seeded(seed))


def solver(steps: int = 0, split: bool = False, **settings: object) -> AugmentedVariational:
    inner = 4 * C + 1 + 2 * P + W
    networks: object = None
    if steps:
        networks = net(inner, C + P + W, 1)
    if steps and split:
        networks = (net(inner, C + W, 1), net(inner, P + W, 2))
    return AugmentedVariational(
        net(2 * C + 1, C + P), mt.SparseCholesky(), networks, steps, W, **settings
    )


def data(size: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, theta = PRIOR.sample_jointly(size, seeded(3))
    e = 0.3 * torch.randn(x.shape, generator=seeded(4)).double()
    return x, theta, torch.where(MASK, x + e, 0.0)


def conditional(found: AugmentedVariational) -> AugmentedConditional:
    with torch.no_grad():
        return found(PRIOR, SEEN)


@pytest.mark.parametrize("steps", [0, 2])
def test_parameters_never_see_the_truth(steps: int) -> None:
    draws = PRIOR.sample_jointly(3, seeded())
    batch = JointSimulations(PRIOR, draws, 0.4, 0.3).batch(torch.arange(3), torch.arange(3))
    noise = torch.randn(batch.truth.shape, generator=seeded(1)).double()
    other = dataclasses.replace(batch, truth=noise, theta=torch.randn(batch.theta.shape).double())
    objective = Objective(solver(steps), PRIOR, parameter_error())
    with torch.no_grad():
        one, two = objective.solve(batch), objective.solve(other)
    assert torch.equal(one.theta, two.theta)
    assert torch.equal(one.x, two.x)


@pytest.mark.parametrize("split", [False, True])
def test_members_of_a_batch_do_not_know_each_other(split: bool) -> None:
    law = conditional(solver(2, split))
    y = data(2)[2]
    with torch.no_grad():
        x, theta = law.estimate_jointly(y)
        alone = [law.estimate_jointly(v) for v in y]
    torch.testing.assert_close(x, torch.stack([a for a, _ in alone]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theta, torch.stack([b for _, b in alone]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", [False, True])
def test_gradients_reach_every_weight(split: bool) -> None:
    found = solver(2, split)
    draws = PRIOR.sample_jointly(2, seeded())
    batch = JointSimulations(PRIOR, draws, 0.4, 0.3).batch(torch.arange(2), torch.arange(2))
    loss = mt.fit.field_error() + parameter_error()
    Objective(found, PRIOR, loss).values(batch).sum().backward()
    still = [n for n, p in found.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_networks_that_say_nothing_leave_the_constants() -> None:
    found = solver()
    torch.nn.init.zeros_(found.guess.leave.weight)
    torch.nn.init.zeros_(found.guess.leave.bias)
    y = data()[2][0]
    posterior = found(PRIOR, SEEN)(y)
    assert not posterior.info["theta"].any()
    assert not posterior.mean.any()
    exact = mt.SparseCholesky()(PRIOR.given(PRIOR.constants()[0]), SEEN)(y)
    torch.testing.assert_close(posterior.conditional.exact(y).mean, exact.mean)


def test_anomalies_are_those_of_the_exact_law() -> None:
    found = solver()
    y = data()[2][0]
    posterior = found(PRIOR, SEEN)(y)
    exact = posterior.conditional.exact(y)
    members = posterior.sample(5, seeded())
    anomalies = exact.sample(5, seeded()) - exact.mean
    torch.testing.assert_close(members - posterior.mean, anomalies)
    torch.testing.assert_close(posterior.std(), exact.std())
    found.inflation.fill_(2.0)
    wide = found(PRIOR, SEEN)(y)
    torch.testing.assert_close(wide.sample(5, seeded()) - wide.mean, 2 * anomalies)


def test_matheron_goes_through_the_networks() -> None:
    found = solver(members="matheron")
    y = data()[2][0]
    posterior = found(PRIOR, SEEN)(y)
    members = posterior.sample(4, seeded())
    g = seeded()
    x = PRIOR.given(posterior.info["theta"]).sample(4, g)
    with torch.no_grad():
        residual = x - posterior.conditional.estimate(SEEN.sample(x, g))
    torch.testing.assert_close(members, posterior.mean + residual)
    assert posterior.std(4, seeded()).shape == (len(GRID),)


def test_the_evidence_is_that_of_a_dense_gaussian() -> None:
    law = conditional(solver())
    _, theta, y = (v[0] for v in data())
    other = PRIOR.sample_parameters(1, seeded(9))[0]
    s = GRID.points

    def dense(t: torch.Tensor) -> torch.Tensor:
        B = PRIOR.given(t).covariance(s, s)[MASK][:, MASK]
        S = B + 0.09 * torch.eye(len(B)).double()
        zero = torch.zeros(len(B)).double()
        value = torch.distributions.MultivariateNormal(zero, (S + S.mT) / 2).log_prob(y[MASK])
        return PRIOR.penalty(t) - value

    mine = law.evidence_cost(y, theta) - law.evidence_cost(y, other)
    torch.testing.assert_close(mine, dense(theta) - dense(other), rtol=1e-6, atol=1e-8)


def test_refining_climbs_to_where_the_slope_vanishes() -> None:
    law = conditional(solver())
    y = data()[2][0]
    start = PRIOR.constants()[0]
    few, many = law.refined(y, start, 2), law.refined(y, start, 40)
    cost = lambda t: law.evidence_cost(y, t).item()
    assert cost(many) <= cost(few) < cost(start)
    theta = many.clone().requires_grad_()
    (slope,) = torch.autograd.grad(law.evidence_cost(y, theta), theta)
    theta = start.clone().requires_grad_()
    (first,) = torch.autograd.grad(law.evidence_cost(y, theta), theta)
    # in terms of the white noise of the parameters
    assert (slope @ PRIOR.white).norm() < 0.02 * (first @ PRIOR.white).norm()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"members": "some"}, "expected one of"),
        ({"steps": 2}, "a network for steps"),
        ({"width": 0}, "positive width"),
    ],
)
def test_refusals(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AugmentedVariational(net(5, 9), mt.SparseCholesky(), **arguments)


def test_networks_must_fit() -> None:
    with pytest.raises(ValueError, match="expected a network of 5 channels"):
        AugmentedVariational(net(6, 9), mt.SparseCholesky())(PRIOR, SEEN)
