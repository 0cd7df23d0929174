"""Conditioning by a sparse factor, as a sceptic sees it: limits, copies, threads, hard data."""

from __future__ import annotations

import math
import pytest
import torch
import warnings

from collections.abc import Callable
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.priors.markov import MarkovPrior
from matheron.priors.spde import Spline
from matheron.testing import check_calibration

DOUBLE = torch.float64


def line(n: int) -> Tensor:
    return torch.arange(n, dtype=DOUBLE)


def square(n: int = 7) -> mt.Grid:
    return mt.Grid(y=line(n), x=line(n))


def days(times: int = 3, n: int = 5) -> mt.Grid:
    return mt.Grid(time=line(times), y=line(n), x=line(n))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=DOUBLE, generator=generator(seed))


def pick(points: mt.Points, index: list[int]) -> mt.Points:
    return points[torch.tensor(index)]


def seen(prior: MarkovPrior, noise: float | Tensor = 0.2, step: int = 4) -> mt.PointObservation:
    return mt.PointObservation(prior.domain, prior.domain.points[::step], noise)


PRIORS: dict[str, Callable[[], MarkovPrior]] = {
    "trend": lambda: mt.WhittleMatern(square(), 4.0, trend="1 + x", mean=2.0),
    "rational": lambda: mt.WhittleMatern(square(), 4.0, alpha=1.5),
    "varying": lambda: mt.WhittleMatern(square(), kappa=0.3 + line(49) / 150, alpha=3.0),
    "moving": lambda: mt.AdvectionDiffusion(days(), 3.0, 4.0, velocity=(0.5, 1.0)),
    "crank": lambda: mt.AdvectionDiffusion(days(), 3.0, 4.0, scheme="crank-nicolson", trend="1"),
}


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("sampling", ["direct", "matheron"])
def test_it_is_kriging_with_the_same_covariance(name: str, sampling: str) -> None:
    prior = PRIORS[name]()
    observation = seen(prior)
    y = normal(len(observation.points))
    a = mt.SparseCholesky(sampling)(prior, observation)(y)
    b = mt.Kriging()(prior, observation)(y)
    assert_close(a.mean, b.mean, rtol=1e-8, atol=1e-8)
    assert_close(a.std(), b.std(), rtol=1e-8, atol=1e-8)
    assert_close(a.covariance(), b.covariance(), rtol=1e-8, atol=1e-8)
    assert_close(a.log_evidence, b.log_evidence, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("sampling", ["direct", "matheron"])
def test_a_factor_in_single_precision_gives_the_same(name: str, sampling: str) -> None:
    """The mean, the std, and members of the same numbers; for members to the defect."""
    prior = PRIORS[name]()
    observation = seen(prior)
    y = normal(len(observation.points))
    a = mt.SparseCholesky(sampling, precision="single")(prior, observation)(y)
    b = mt.SparseCholesky(sampling)(prior, observation)(y)
    assert a.info["defect"] < 1e-5
    assert a.info["information"] == pytest.approx(
        a.conditional.size * a.info["defect"] ** 2 / 4  # type: ignore[attr-defined]
    )
    assert_close(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    for x, z in ((a.std(), b.std()), (a.covariance(), b.covariance())):
        assert_close(x, z, rtol=1e-9, atol=1e-9)
    assert_close(a.log_evidence, b.log_evidence, rtol=1e-9, atol=1e-9)
    near = 1e-9 if sampling == "matheron" else 1e-4
    assert_close(a.sample(3, generator()), b.sample(3, generator()), rtol=near, atol=near)


def test_it_is_kriging_with_the_matern_kernel_but_for_the_lattice() -> None:
    """Named tolerance: 4 % of the std of the field, with 8 steps per lengthscale."""
    grid = mt.Grid(y=line(17) / 8, x=line(17) / 8)
    kernel = mt.GaussianProcess(mt.Matern(1.0, 1.0, 1.0), grid)
    observation = mt.PointObservation(grid, pick(grid.points, [0, 100, 144, 230, 250]), 0.2)
    y = observation.sample(kernel.sample(1, generator())[0].detach(), generator(1)).detach()
    a = mt.SparseCholesky()(mt.WhittleMatern(grid, 1.0), observation)(y)
    b = mt.Kriging()(kernel, observation)(y)
    assert (a.mean - b.mean).abs().max() < 0.04
    assert (a.std() - b.std()).abs().max() < 0.04
    assert (a.log_evidence - b.log_evidence).abs() < 0.1


@pytest.mark.parametrize("name", PRIORS)
def test_noise_without_end_gives_the_prior(name: str) -> None:
    prior = PRIORS[name]()
    if prior.trend is not None:
        prior = mt.WhittleMatern(square(), 4.0, mean=2.0)
    observation = seen(prior, 1e9)
    posterior = mt.SparseCholesky()(prior, observation)(normal(len(observation.points)))
    assert_close(posterior.mean, prior.drift(), rtol=1e-9, atol=1e-9)
    exact = prior.variance(prior.domain.points).sqrt()
    assert_close(posterior.std(), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_little_noise_interpolates_and_the_evidence_stays_true(noise: float) -> None:
    """The evidence and its gradient are differences of terms as large as 1 / noise^2."""
    prior = mt.WhittleMatern(square(), 4.0, trend="1")
    observation = mt.PointObservation(prior.domain, pick(prior.domain.points, [0, 16, 40]), noise)
    y = torch.tensor([1.0, -2.0, 3.0], dtype=DOUBLE)
    posterior = mt.SparseCholesky()(prior, observation)(y)
    assert_close(posterior.mean[[0, 16, 40]], y, rtol=0, atol=4 * noise)
    assert_close(posterior.std()[[0, 16, 40]], torch.full((3,), noise).double(), rtol=1e-3, atol=0)
    values, slopes = [], []
    for solver in (mt.SparseCholesky(), mt.Kriging()):
        values.append(solver.likelihood(prior, observation, y).value())
        slopes.append(torch.autograd.grad(values[-1], prior.kernel.log_lengthscale)[0])
    assert_close(values[0], values[1], rtol=1e-8, atol=1e-8)
    assert_close(posterior.log_evidence, values[1].detach(), rtol=1e-8, atol=1e-8)
    assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-7)


def test_order_and_duplicates() -> None:
    """Two data at one place are their mean, with half of the noise variance."""
    prior = mt.WhittleMatern(square(), 4.0, trend="1 + x")
    points = mt.Points(y=[1.1, 1.1, 5.0, 6.0, 0.3], x=[2.2, 2.2, 6.0, 0.0, 5.0])
    y, shuffled = normal(5), torch.tensor([3, 1, 4, 0, 2])
    solve = mt.SparseCholesky()
    first = solve(prior, mt.PointObservation(prior.domain, points, 0.3))(y)
    second = solve(prior, mt.PointObservation(prior.domain, points[shuffled], 0.3))(y[shuffled])
    std = torch.tensor([0.3 / 2**0.5, 0.3, 0.3, 0.3], dtype=DOUBLE)
    merged = solve(prior, mt.PointObservation(prior.domain, points[1:], std))(
        torch.cat([y[:2].mean()[None], y[2:]])
    )
    for other in (second, merged):
        assert_close(other.mean, first.mean, rtol=1e-9, atol=1e-9)
        assert_close(other.std(), first.std(), rtol=1e-9, atol=1e-9)
    assert_close(second.log_evidence, first.log_evidence, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["rational", "varying", "moving"])
def test_two_batches_in_turn_are_both_at_once(name: str) -> None:
    """The evidence of all is that of the first, times that of the rest given the first."""
    prior = PRIORS[name]()
    every = seen(prior)
    m = len(every.points)
    y, first = normal(m), torch.arange(m) < m // 2
    total = mt.SparseCholesky()(prior, every)(y).log_evidence
    part = every.take(first, every.points[~first])
    given = mt.SparseCholesky()(prior.on(every.points[~first]), part)(y[first])
    S = given.covariance() + 0.04 * torch.eye(int((~first).sum()), dtype=DOUBLE)
    rest = torch.distributions.MultivariateNormal(given.mean, S).log_prob(y[~first])
    assert_close(given.log_evidence + rest, total, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PRIORS)
def test_a_posterior_stays_after_a_fit_and_beside_another(name: str) -> None:
    prior = PRIORS[name]()
    observation = seen(prior)
    y = normal(len(observation.points))
    posterior = mt.SparseCholesky()(prior, observation)(y)
    before = posterior.mean.clone(), posterior.std(), posterior.sample(2, generator())
    with torch.no_grad():  # as a fit does
        for parameter in prior.parameters():
            parameter.add_(0.3)
    other = mt.SparseCholesky()(prior, seen(prior, 0.5))(y)
    assert (other.std() - before[1]).abs().max() > 1e-3
    again = mt.Posterior(posterior.conditional, y)
    for a, b in zip((again.mean, again.std(), again.sample(2, generator())), before, strict=True):
        assert torch.equal(a, b)


def test_threads_do_not_matter() -> None:
    grid = mt.Grid(y=line(30), x=line(30))
    prior = mt.WhittleMatern(grid, 6.0)
    observation, threads = seen(prior, 0.1, 3), torch.get_num_threads()
    y, found = normal(300), []
    for n in (1, 2):
        torch.set_num_threads(n)
        posterior = mt.SparseCholesky()(prior, observation)(y)
        found.append((posterior.mean, posterior.std(), posterior.sample(2, generator())))
    torch.set_num_threads(threads)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["trend", "varying", "moving"])
def test_calibration_over_twin_experiments(name: str) -> None:
    prior = PRIORS[name]()
    if prior.trend is not None:
        prior = mt.WhittleMatern(square(), 4.0, mean=2.0)
    points = pick(prior.domain.points, [3, 20, 44])
    check_calibration(mt.SparseCholesky("matheron"), prior, points, 0.3, twins=100)


def small(kind: str) -> MarkovPrior:
    grid = square(5)
    if kind == "field":
        return mt.WhittleMatern(grid, kappa=Spline(grid, 2, 0.35))
    return mt.WhittleMatern(grid, 4.0, alpha=1.5 if kind == "rational" else 2.0)


@pytest.mark.parametrize("kind", ["whole", "rational", "field"])
@pytest.mark.parametrize("data", ["constant", "one", "white"])
def test_fits_of_data_that_tell_little_end(kind: str, data: str) -> None:
    """No likelihood is over what data known but for the noise would have."""
    prior = small(kind)
    points = prior.domain.points[:1] if data == "one" else prior.domain.points[::2]
    m = len(points)
    y = {"white": normal(m)}.get(data, torch.full((m,), 3.0, dtype=DOUBLE))
    observation = mt.PointObservation(prior.domain, points, 0.1, learn_noise=data == "white")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some parameters cannot be told
        mt.fit.maximum_likelihood(prior, observation, y, steps=30)
    std = observation.noise_variance.detach().sqrt()
    found = prior.fitted.log_likelihood
    assert math.isfinite(found)
    assert found <= -(std * (2 * math.pi) ** 0.5).log().sum().item()
    assert mt.SparseCholesky()(prior, observation)(y).mean.isfinite().all()


def test_the_likelihood_of_replicates_is_the_sum() -> None:
    prior = mt.WhittleMatern(square(), kappa=Spline(square(), 3, 0.35), trend="1")
    observation = seen(prior)
    y = normal(4, len(observation.points))
    solver = mt.SparseCholesky()
    total = solver.likelihood(prior, observation, y).value()
    each = [solver.likelihood(prior, observation, v).value() for v in y]
    assert_close(total, torch.stack(each).sum(), rtol=1e-10, atol=1e-10)
    theta = prior.kappa.coefficients
    (whole,) = torch.autograd.grad(total, theta)
    (summed,) = torch.autograd.grad(torch.stack(each).sum(), theta)
    assert_close(whole, summed, rtol=1e-8, atol=1e-8)


def test_what_cannot_be_conditioned_is_refused() -> None:
    prior = mt.WhittleMatern(square(), 4.0)
    with pytest.raises(ValueError, match="expected 'direct' or 'matheron', got 'gibbs'"):
        mt.SparseCholesky("gibbs")
    with pytest.raises(ValueError, match="expected 'double' or 'single', got 'half'"):
        mt.SparseCholesky(precision="half")
    with pytest.raises(ValueError, match="expected noise_std > 0 for every datum"):
        mt.SparseCholesky()(prior, seen(prior, 0.0))
    gp, observation = mt.GaussianProcess(mt.Matern(1.5), square()), seen(prior)
    with pytest.raises(TypeError, match="expected a prior that is MarkovPrior"):
        mt.SparseCholesky()(gp, observation)
    conditional = mt.SparseCholesky()(prior, seen(prior))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="expected finite values, got 1 NaN or Inf"):
            conditional(torch.cat([normal(12), torch.tensor([bad], dtype=DOUBLE)])).mean  # noqa: B018
    with pytest.raises(ValueError, match="expected 13 values, one per datum, got 12"):
        conditional(normal(12)).mean  # noqa: B018
