r"""Laws of the iterated Kalman smoother: linear problems are kriging; a cost only falls."""

import math
import pytest
import torch

from torch.autograd.functional import jacobian
from torch.testing import assert_close

import matheron as mt

from matheron import Grid, GriddedObservation, MatrixObservation, PointObservation
from matheron.dynamics import Lorenz63, Lorenz96
from matheron.observations.nonlinear import NonlinearObservation
from matheron.priors.dynamics import Markovian, StrongConstraint, WeakConstraint
from matheron.solvers import Kriging
from matheron.solvers.model_error import estimate_model_error
from matheron.solvers.smoother import noise_roots
from matheron.solvers.trajectories import DataCurvature, TrajectoryCost
from matheron.solvers.variational import Variational
from tests.linear_models import Implied, Linear, grid_of, normal, positive


def linear(noise=1.0, times=6, s=3):
    grid = grid_of(times, s)
    A, m = 0.7 * normal(s, s, seed=3), normal(s, seed=4)
    return WeakConstraint(grid, Linear(A), 1, (m, positive(s, 1)), noise * positive(s, 2))


def observations(grid):
    """Data at nodes, between two times, on a grid with gaps, and with correlated noise."""
    points = grid.points[torch.tensor([1, 3, 5, 7, 8, 9, 12, 16, 17])]
    between = mt.Points(time=[0.3, 1.5, 2.9, 4.2], x=[0.0, 1.5, 2.0, 0.4])
    nodes = PointObservation(grid, points, torch.linspace(0.2, 0.6, 9, dtype=torch.float64))
    block = torch.block_diag(*(positive(3, k) for k in range(3)))
    seen = torch.zeros(9, 18, dtype=torch.float64)
    seen[torch.arange(9), torch.tensor([0, 1, 2, 6, 7, 8, 15, 16, 17])] = 1.0
    return {
        "nodes": nodes,
        "between": PointObservation(grid, between, 0.4),
        "gaps": GriddedObservation(grid, torch.arange(18) % 3 == 1, 0.5),
        "correlated": MatrixObservation(grid, seen, noise_covariance=block),
    }


def data(prior, seen, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return seen.sample(prior.sample(1, generator)[0], generator)


@pytest.mark.parametrize("kind", ["nodes", "between", "gaps", "correlated"])
def test_a_linear_problem_is_kriging(kind):
    prior = linear()
    seen = observations(prior.domain)[kind]
    y = data(prior, seen)
    posterior = Variational("smoother")(prior, seen)(y)
    if kind == "correlated":
        H, R = seen.matrix().to_dense(), torch.linalg.inv(seen.noise_precision().to_dense())
        law = Implied(prior)
        gain = law.B @ H.mT @ torch.linalg.inv(H @ law.B @ H.mT + R)
        mean = law.mu + gain @ (y - H @ law.mu)
        std = (law.B - gain @ H @ law.B).diagonal().sqrt()
    else:
        kriged = Kriging()(Implied(prior), seen)(y)
        mean, std = kriged.mean, kriged.std()
        R, m = seen.noise_variance, seen.count
        constant = (m * math.log(2 * math.pi) + R.log().sum()) / 2
        evidence = posterior.info["log_evidence"] - constant
        assert_close(evidence, kriged.log_evidence, rtol=1e-8, atol=1e-8)
    assert_close(posterior.mean, mean, rtol=1e-8, atol=1e-8)
    assert_close(posterior.std(), std, rtol=1e-8, atol=1e-8)
    assert posterior.info["converged"]


def test_a_perfect_model_is_one_with_next_to_no_errors():
    weak = linear()
    prior = StrongConstraint(
        weak.domain, weak.model, 1, (weak.mean, weak.background.factor @ weak.background.factor.mT)
    )
    seen = observations(prior.domain)["nodes"]
    y = data(prior, seen)
    exact = Variational("gauss-newton", tolerance=1e-10)(prior, seen)(y)
    found = Variational("smoother")(prior, seen)(y)
    # errors of the share 1e-7 move the law by about as much
    assert_close(found.mean, exact.mean, rtol=1e-5, atol=1e-5)
    assert_close(found.std(), exact.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ensemble", ["laplace", "rto"])
def test_draws_have_the_posterior_covariance(ensemble):
    prior = linear()
    seen = observations(prior.domain)["nodes"]
    y = data(prior, seen)
    posterior = Variational("smoother", ensemble=ensemble)(prior, seen)(y)
    exact = Kriging()(Implied(prior), seen)(y)
    size, P = 10_000, exact.covariance()
    x = posterior.sample(size, torch.Generator().manual_seed(0))
    d = P.diagonal()
    # the standard error of a covariance is sqrt((P_ii P_jj + P_ij^2) / N)
    assert ((x.mean(0) - exact.mean).abs() / (d / size).sqrt()).max() < 5
    se = ((torch.outer(d, d) + P.square()) / size).sqrt()
    assert ((torch.cov(x.mT) - P).abs() / se).max() < 5
    # the error of a std from 256 draws is std / sqrt(2 * 256)
    ratio = posterior.std(256, torch.Generator().manual_seed(1)) / d.sqrt()
    assert ((ratio - 1).abs() < 5 / 512**0.5).all()


def lorenz(times=12, noise=0.3):
    start = torch.tensor([0.0, 0.0, 23.5]).double(), torch.tensor([60.0, 80.0, 75.0]).double()
    Q = torch.full((3,), noise, dtype=torch.float64)
    return WeakConstraint(grid_of(times, 3), Lorenz63(), 8, start, Q)


def lorenz_data(prior, members=3):
    generator = torch.Generator().manual_seed(0)
    first = Lorenz63()(Lorenz63().initial(generator, (members,)), 1000)
    x = [first]
    for _ in range(prior.times - 1):
        x.append(prior.advance(x[-1]) + prior.error_sample(members, generator))
    x = torch.cat(x, dim=-1)
    full = GriddedObservation(prior.domain, torch.ones(x.shape[1]).bool(), 2**0.5)
    bent = NonlinearObservation(
        prior.domain,
        lambda x: torch.stack([x[..., 0] + x[..., 2].square() / 30, x[..., 1]], dim=-1),
        1.2,
        times=torch.arange(1, prior.times),
    )
    return x, {"full": full, "bent": bent}, generator


@pytest.mark.parametrize("kind", ["full", "bent"])
def test_it_is_the_minimum_of_weak_constraint_4dvar(kind):
    prior = lorenz(6)
    x, seen, generator = lorenz_data(prior)
    y = seen[kind].sample(x, generator)
    smoothed = Variational("smoother")(prior, seen[kind])
    found = smoothed.estimate(y)
    cost = lambda x: prior.cost(x) + seen[kind].cost(x, y)
    white = Variational(steps=500)(prior, seen[kind])
    other = white.estimate(y)
    assert (cost(found) <= cost(other) + 1e-6).all()
    same = (cost(found) - cost(other)).abs() < 1e-6
    assert same.any()
    assert_close(found[same], other[same], rtol=0, atol=1e-5)
    i = int(same.nonzero()[0])
    std = [law.std(y[i], 0, None) for law in (smoothed, white)]
    assert_close(std[0], std[1], rtol=1e-5, atol=1e-6)
    alone = Variational("smoother")(prior, seen[kind])(y[1])
    assert_close(alone.mean, found[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "bent"])
def test_the_blocks_are_those_of_the_squared_jacobian(kind):
    prior = lorenz(4)
    x, seen, generator = lorenz_data(prior, 2)
    y = seen[kind].sample(x, generator)
    root = noise_roots(prior, 1)[-1]
    curvature = DataCurvature(prior, seen[kind])
    cost = TrajectoryCost(prior, curvature, y, root)
    D, C = cost.blocks(x)
    A = torch.zeros(4, 3, 4, 3, dtype=torch.float64)
    for k in range(4):
        A[k, :, k] = D[1, k]
        if k:
            A[k, :, k - 1], A[k - 1, :, k] = C[1, k - 1], C[1, k - 1].mT

    def residuals(v):
        departure = seen[kind].select(seen[kind](v) - y[1]) / seen[kind].noise_variance.sqrt()
        return torch.cat([prior.encode(v), departure])

    J = jacobian(residuals, x[1])
    assert_close(A.reshape(12, 12), J.mT @ J, rtol=1e-9, atol=1e-9)
    assert_close(cost(x)[1], residuals(x[1]).square().sum() / 2)


def test_the_cost_only_falls():
    prior = lorenz(20, noise=0.05)
    x, seen, generator = lorenz_data(prior, 4)
    y = seen["full"].sample(x, generator)
    costs = []
    for steps in (1, 2, 3, 5, 8, 100):
        solver = Variational("smoother", steps=steps, stages=1, strict=False)
        law = solver(prior, seen["full"])
        law.estimate(y)
        costs.append(torch.cat([law.mode(v).cost for v in y]))
    assert (torch.stack(costs).diff(dim=0) <= 1e-9).all()
    assert bool(law.mode(y[0]).converged[0])


def test_other_ways_are_no_worse_and_alone_in_a_batch(monkeypatch):
    prior = lorenz(20, noise=0.01)
    x, seen, generator = lorenz_data(prior, 4)
    y = seen["full"].sample(x, generator)
    law = lambda starts: Variational("smoother", starts=starts, strict=False)(prior, seen["full"])
    one, many = law(1), law(3)
    one.estimate(y)
    monkeypatch.setattr("matheron.solvers.smoother.Smoothed._most", lambda *_: 0.0)
    together = many.estimate(y)
    for v in y:
        assert many.mode(v).cost <= one.mode(v).cost + 1e-9
    for i in (1, 3):
        assert_close(law(3).estimate(y[i]), together[i], rtol=0, atol=1e-5)


def test_stages_come_down_to_the_errors_of_the_model():
    prior = lorenz(noise=0.01)
    roots = noise_roots(prior, 4)
    B = prior.background.factor.square()
    variances = [(L @ L.mT).diagonal() for L in roots]
    assert_close(variances[0], 0.1 * B + 0.01)
    assert_close(variances[-1], torch.full((3,), 0.01).double())
    assert len(noise_roots(lorenz(noise=50.0), 4)) == 1  # large errors need no stages
    perfect = Markovian(prior.domain, prior.model, 8, (prior.mean, B))
    assert_close((noise_roots(perfect, 3)[-1].square().sum(0)), 1e-7 * B)


@pytest.mark.slow
def test_other_ways_find_lower_minima_of_chaos():
    # 16 Lyapunov times of 40 places, an eighth of them seen: what defeats strong constraints
    model, generator = Lorenz96(40), torch.Generator().manual_seed(2)
    climate = model.trajectory(model(model.initial(generator, (32,)), 500), 400, 20).flatten(0, 1)
    start = climate.mean(0), torch.cov(climate.mT)
    grid = Grid(time=0.05 * torch.arange(200.0), x=torch.arange(40.0))
    prior = StrongConstraint(grid, model, 1, start)
    mask = torch.zeros(200, 40, dtype=torch.bool)
    for k in range(0, 200, 4):
        mask[k, torch.randperm(40, generator=generator)[:20]] = True
    seen = GriddedObservation(grid, mask.flatten(), 2**0.5)
    first = model(model.initial(generator, (3,)), 1000)
    x = model.trajectory(first, 199).flatten(1)
    y = seen.sample(x, generator)
    solver = Variational("smoother", steps=40, decrease=1e-8, starts=4, strict=False)
    mean = solver(prior, seen).estimate(y)
    assert (mean - x).square().mean() < 0.4  # the noise has a variance of 2


def test_errors_of_the_model_are_told_by_data():
    """The expectation-maximisation of a linear problem: the evidence rises to a maximum."""
    prior = linear(noise=4.0, times=30, s=2)
    seen = GriddedObservation(prior.domain, torch.ones(60).bool(), 0.3)
    true = WeakConstraint(
        prior.domain,
        prior.model,
        1,
        (prior.mean, prior.background.factor @ prior.background.factor.mT),
        torch.tensor([0.5, 0.2]).double(),
    )
    generator = torch.Generator().manual_seed(0)
    y = seen.sample(true.sample(20, generator), generator)

    def evidence(Q):
        other = WeakConstraint(
            prior.domain, prior.model, 1, (prior.mean, positive(2, 1)), Q
        )  # fmt: skip
        law = Variational("smoother")(other, seen)
        return sum(law(v).info["log_evidence"] for v in y)

    few, many = (estimate_model_error(prior, seen, y, iterations=i) for i in (3, 60))
    assert evidence(many) > evidence(few) > evidence(positive(2, 2) * 4.0)
    # 20 windows of 29 errors: a relative standard error of sqrt(2 / 580) were they seen
    ratio = many.diagonal() / torch.tensor([0.5, 0.2]).double()
    assert ((ratio - 1).abs() < 5 * 1.5 * (2 / 580) ** 0.5).all()
    # at the maximum no neighbour is better
    for factor in (0.97, 1.03):
        assert evidence(many) > evidence(factor * many)


def test_bad_problems_are_refused():
    prior = linear()
    grid = prior.domain
    field = mt.GaussianProcess(mt.Matern(0.5, lengthscale=(1.0, 1.0)), grid)
    seen = PointObservation(grid, grid.points[:2], 0.5)
    with pytest.raises(TypeError, match="WeakConstraint or StrongConstraint, got GaussianProcess"):
        Variational("smoother")(field, seen)
    biased = PointObservation(grid, grid.points[:2], 0.5, bias_std=1.0)
    with pytest.raises(ValueError, match="got 1 biases"):
        Variational("smoother")(prior, biased)
    far = torch.zeros(1, 18, dtype=torch.float64)
    far[0, [0, 17]] = 1.0
    with pytest.raises(ValueError, match="links over 5 times"):
        Variational("smoother")(prior, MatrixObservation(grid, far, noise_std=1.0))
    whole = NonlinearObservation(grid, lambda x: x.square(), 0.5)
    with pytest.raises(TypeError, match="data that are each of one time"):
        Variational("smoother")(prior, whole)
    with pytest.raises(ValueError, match="counts down to 0"):
        Variational("smoother", stages=0)
