r"""Laws of the priors over trajectories."""

import pytest
import torch

from torch.testing import assert_close

from matheron import Grid
from matheron.dynamics import Lorenz63, OneLayerQG, TwoLayerQG
from matheron.priors.dynamics import Markovian, StrongConstraint, WeakConstraint
from matheron.testing import check_prior
from tests.linear_models import Linear, grid_of, normal, positive


def linear(times=6, s=3, full=True):
    A = 0.6 * normal(s, s, seed=3)
    B, Q = positive(s, 1), positive(s, 2)
    B, Q = (B, Q) if full else (B.diagonal(), Q.diagonal())
    return WeakConstraint(grid_of(times, s), Linear(A), 2, (normal(s, seed=4), B), Q)


def lorenz(times=5, kind=WeakConstraint):
    start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 20.0).double()
    noise = (torch.full((3,), 0.5).double(),) if kind is WeakConstraint else ()
    return kind(grid_of(times, 3), Lorenz63(), 8, start, *noise)


def eddies(checkpoint):
    model = OneLayerQG.on_plane((8, 9), 2e4)
    grid = Grid(time=torch.arange(3.0), y=torch.arange(8.0), x=torch.arange(9.0))
    ones = torch.ones(72, dtype=torch.float64)
    return WeakConstraint(grid, model, 4, (0 * ones, 0.01 * ones), 1e-4 * ones, checkpoint)


@pytest.mark.parametrize("kind", [WeakConstraint, StrongConstraint])
def test_laws_of_priors(kind):
    check_prior(lorenz(kind=kind))
    check_prior(linear())


@pytest.mark.parametrize("make", [linear, lorenz, lambda: lorenz(kind=StrongConstraint)])
def test_the_control_is_white(make):
    prior = make()
    v = normal(2, 4, prior.control_size)
    x = prior.decode(v)
    assert x.shape == (2, 4, len(prior.domain))
    assert_close(prior.encode(x), v, rtol=1e-9, atol=1e-9)
    assert_close(prior.cost(x), v.square().sum(dim=-1) / 2, rtol=1e-9, atol=1e-9)
    assert_close(prior.decode(v[1, 2]), x[1, 2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full", [True, False])
def test_the_cost_is_that_of_its_formula(full):
    prior = linear(full=full)
    s, x = prior.states, normal(prior.times, prior.states)
    B, Q = positive(s, 1), positive(s, 2)
    B, Q = (B, Q) if full else (torch.diag(B.diagonal()), torch.diag(Q.diagonal()))
    A2 = prior.model.A @ prior.model.A
    r = x[0] - prior.mean
    expected = r @ torch.linalg.solve(B, r) / 2
    for k in range(1, prior.times):
        r = x[k] - A2 @ x[k - 1]
        expected = expected + r @ torch.linalg.solve(Q, r) / 2
    assert_close(prior.cost(x.flatten()), expected)


def implied(prior):
    """Mean and covariance of a linear prior, by the recursion of moments."""
    K, s = prior.times, prior.states
    A = torch.linalg.matrix_power(prior.model.A, prior.steps)
    B, Q = positive(s, 1), positive(s, 2) if prior.error is not None else None
    mean, P = torch.zeros(K, s).double(), torch.zeros(K, s, K, s).double()
    mean[0], P[0, :, 0] = prior.mean, B
    for k in range(1, K):
        mean[k] = A @ mean[k - 1]
        P[k, :, k] = A @ P[k - 1, :, k - 1] @ A.mT + (0 if Q is None else Q)
        for j in range(k):
            P[k, :, j] = A @ P[k - 1, :, j]
            P[j, :, k] = P[k, :, j].mT
    return mean.flatten(), P.reshape(K * s, K * s)


def test_draws_have_the_implied_moments():
    prior, size = linear(times=4), 20_000
    mean, P = implied(prior)
    for x in (prior.sample(size, torch.Generator().manual_seed(0)),
              prior.decode(normal(size, prior.control_size))):  # fmt: skip
        d = P.diagonal()
        assert ((x.mean(0) - mean).abs() / (d / size).sqrt()).max() < 5
        se = ((torch.outer(d, d) + P.square()) / size).sqrt()
        assert ((torch.cov(x.mT) - P).abs() / se).max() < 5


def test_a_perfect_model_tells_the_rest():
    prior = lorenz(kind=StrongConstraint)
    x = prior.unfold(prior.sample(4, torch.Generator().manual_seed(0)))
    for k in range(4):
        assert_close(prior.model(x[:, k], 8), x[:, k + 1])
    assert (prior.error_sample(3) == 0).all()
    same = Markovian(prior.domain, prior.model, 8, (prior.mean, torch.full((3,), 20.0).double()))
    assert_close(same.sample(4, torch.Generator().manual_seed(0)), x.flatten(1))


@pytest.mark.parametrize("checkpoint", [True, False])
def test_states_of_many_axes_and_checkpoints(checkpoint):
    prior = eddies(checkpoint)
    x = prior.sample(2, torch.Generator().manual_seed(0)).requires_grad_()
    fields = prior.domain.unflatten(x)
    moved = prior.model(fields[:, 0], 4).flatten(1)
    assert_close(prior.advance(fields[:, 0].flatten(1)), moved)
    (slope,) = torch.autograd.grad(prior.cost(x).sum(), x)
    (other,) = torch.autograd.grad(eddies(not checkpoint).cost(x).sum(), x)
    assert_close(slope, other, rtol=1e-9, atol=1e-9)


def test_two_layers_by_a_strong_constraint():
    model = TwoLayerQG(8)
    grid = Grid(time=[0.0, 1.0], z=[0.0, 1.0], y=torch.arange(8.0), x=torch.arange(8.0))
    ones = torch.ones(128, dtype=torch.float64)
    prior = StrongConstraint(grid, model, 3, (0 * ones, 1e-10 * ones))
    v = normal(128)
    assert_close(prior.encode(prior.decode(v)), v, rtol=1e-6, atol=1e-6)


MEAN = torch.zeros(3, dtype=torch.float64)
VARIANCE = torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": Grid(x=[0.0, 1.0, 2.0])}, "a grid with time"),
        ({"domain": grid_of(4, 5)}, "expected 3 nodes per time"),
        ({"steps": 0}, "one step or more"),
        ({"initial": (MEAN[:2], VARIANCE)}, "a mean of 3"),
        ({"initial": (MEAN, VARIANCE[:2])}, r"expected shape \(3,\)"),
        ({"initial": (MEAN, 0 * VARIANCE)}, "positive definite"),
        ({"noise": -torch.eye(3).double()}, "positive definite"),
        ({"noise": torch.triu(torch.ones(3, 3).double())}, "positive definite"),
    ],
)
def test_bad_settings_are_refused(change, message):
    settings = {"domain": grid_of(4, 3), "model": Lorenz63(), "steps": 8,
                "initial": (MEAN, VARIANCE), "noise": VARIANCE} | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        WeakConstraint(**settings)
    with pytest.raises(ValueError, match="at least one draw"):
        lorenz().sample(0)
