"""The laws of a solver, for every solver, over kernels, trends, instruments and geometries."""

from __future__ import annotations

import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.testing import check_calibration, check_solver, reference

DOUBLE = torch.float64


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def sites(m: int = 14, seed: int = 1) -> mt.Points:
    x, y = uniform(m, 0, 4, seed), uniform(m, 0, 3, seed + 100)
    return mt.Points(x=x, y=y, covariates={"depth": (2 * x).sin() + y**2})


def plane_grid() -> mt.Grid:
    y, x = torch.linspace(0, 3, 4, dtype=DOUBLE), torch.linspace(0, 4, 5, dtype=DOUBLE)
    return mt.Grid(y=y, x=x, covariates={"depth": (2 * x).sin() + (y**2)[:, None]})


def sphere_grid() -> mt.Grid:
    """Three days across the dateline, in the north."""
    return mt.Grid(time=[0.0, 2.0, 5.0], lat=[60.0, 61.0], lon=[178.5, 180.0, 181.5])


def sphere_sites(m: int = 16) -> mt.Points:
    lon = uniform(m, 177, 183, 2)
    lon = torch.where(lon > 180, lon - 360, lon)  # the other branch
    return mt.Points(time=uniform(m, -1, 6, 1), lat=uniform(m, 59, 62, 3), lon=lon)


EXACT = {
    "kriging": lambda: mt.Kriging(),
    "vecchia": lambda: mt.Vecchia(neighbors=100),
    "vecchia-torch": lambda: mt.Vecchia(neighbors=100, engine="torch"),
}
KERNELS = {
    "exponential": lambda: mt.Matern(0.5, 2.0, 1.5),
    "rotated": lambda: mt.Matern(1.5, 2.0, (1.0, 2.5), rotation=30.0),
    "any-nu": lambda: mt.Matern(0.8, 1.0, (1.0, 1.5), learn_nu=True),
    "gaussian": lambda: mt.Gaussian(0.7, 1.0),
    "wendland": lambda: mt.Wendland(1.0, 2.0, smoothness=1),
    "sum": lambda: mt.Matern(0.5, 1.0, 1.0) + 2.0 * mt.Matern(2.5, 1.0, 3.0),
    "product": lambda: mt.Matern(1.5, 1.0, 2.0) * mt.Gaussian(1.0, 4.0),
    "nugget": lambda: mt.Nugget(0.3) + mt.Matern(1.5, 1.0, 2.0),
}
SPACE_TIME = {
    "metric": lambda: mt.Matern(1.5, 1.0, (3.0, 1e5, 2e5)),
    "rotated": lambda: mt.Matern(0.5, 1.0, (3.0, 1e5, 2e5), rotation=20.0),
    "separable": lambda: mt.separable(
        mt.Matern(0.5, 1.0, 3.0, axes="time"), mt.Matern(1.5, 2.0, 1e5, axes="space")
    ),
    "sum-metric": lambda: mt.sum_metric(
        mt.Matern(0.5, 0.3, 3.0, axes="time"),
        mt.Matern(1.5, 0.5, 1e5, axes="space"),
        mt.Matern(2.5, 1.0, (3.0, 1e5, 1e5)),
    ),
    "gneiting": lambda: mt.Gneiting(1.0, 1e5, 3.0, nu=0.7, alpha=0.6, interaction=0.7, decay=0.2),
    "seasons": lambda: mt.separable(
        mt.Periodic(4.0, 1.0, 1.2, axes="time") * mt.Matern(0.5, 1.0, 30.0, axes="time"),
        mt.Matern(1.5, 1.0, 2e5, axes="space"),
    ),
}
TRENDS = [None, "1", "1 + x + y", "1 + depth", "1 + x*y + sqrt(depth**2)"]


def noisy(grid: mt.Grid) -> mt.PointObservation:
    return mt.PointObservation(grid, sites(), 0.3, learn_noise=True)


def on_nodes(grid: mt.Grid) -> mt.PointObservation:
    """Noiseless data on nodes, and a noisy one at the same site as a noiseless one."""
    points = grid.points[torch.tensor([3, 0, 17, 9, 9])]
    return mt.PointObservation(grid, points, torch.tensor([0.0, 0.0, 0.2, 0.0, 0.5], dtype=DOUBLE))


def biased(grid: mt.Grid) -> mt.PointObservation:
    return mt.PointObservation(grid, sites(), uniform(14, 0.1, 0.6, 5), bias_std=1.5)


def gappy(grid: mt.Grid) -> mt.GriddedObservation:
    return mt.GriddedObservation(grid, uniform(20, 0, 1, 8) > 0.4, 0.2)


def missions(grid: mt.Grid) -> mt.Stack:
    first = mt.PointObservation(grid, sites(6), 0.1, learn_noise=True, bias_std=0.7)
    second = mt.PointObservation(grid, sites(5, 40), 0.4, bias_std=2.0)
    return mt.Stack(first, second, gappy(grid))


OBSERVATIONS = {f.__name__: f for f in (noisy, on_nodes, biased, gappy, missions)}


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(solver: str, kernel: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS[kernel](), grid, mean=0.7)
    check_solver(EXACT[solver](), prior, noisy(grid), size=1500)


@pytest.mark.parametrize("solver", ["kriging", "vecchia"])
@pytest.mark.parametrize("trend", TRENDS[1:])
def test_trends(solver: str, trend: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS["rotated"](), grid, trend=trend)
    check_solver(EXACT[solver](), prior, noisy(grid), size=1500)


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_observations(solver: str, observation: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS["exponential"](), grid, mean=-2.0, trend="1 + x")
    check_solver(EXACT[solver](), prior, OBSERVATIONS[observation](grid), size=1500)


@pytest.mark.parametrize("solver", ["kriging", "vecchia"])
@pytest.mark.parametrize("kernel", SPACE_TIME)
def test_space_and_time_across_the_dateline(solver: str, kernel: str) -> None:
    grid = sphere_grid()
    prior = mt.GaussianProcess(SPACE_TIME[kernel](), grid, trend="1 + lon + lat")
    observation = mt.PointObservation(grid, sphere_sites(), 0.2, learn_noise=True, bias_std=0.4)
    check_solver(EXACT[solver](), prior, observation, size=1500)


@pytest.mark.parametrize("trend", [None, "1"])
@pytest.mark.parametrize("observation", ["noisy", "biased", "missions"])
def test_a_wide_taper_is_kriging(trend: str | None, observation: str) -> None:
    r"""Named tolerance: the taper is :math:`1 - 15 u^2`, with u under 6 / 1e4."""
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS["exponential"](), grid, trend=trend)
    check_solver(mt.Taper(radius=1e4), prior, OBSERVATIONS[observation](grid), 1e-4, size=1500)


def test_a_narrow_taper_is_kriging_with_the_tapered_covariance() -> None:
    grid, radius = plane_grid(), 2.5
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0, 1.5), grid)
    observation = noisy(grid)
    y = torch.linspace(-1, 2, 14, dtype=DOUBLE)
    a, b = observation.points.coords, grid.points.coords

    def tapered(p: Tensor, q: Tensor) -> Tensor:
        u = torch.cdist(p, q) / 1.5
        v = (u / radius).clamp(max=1)
        return 2.0 * (-u).exp() * (1 - v) ** 5 * (5 * v + 1)

    S, C = tapered(a, a) + 0.09 * torch.eye(14, dtype=DOUBLE), tapered(b, a)
    posterior = mt.Taper(radius)(prior, observation)(y)
    assert_close(posterior.mean, C @ torch.linalg.solve(S, y), rtol=1e-9, atol=1e-9)
    expected = tapered(b, b) - C @ torch.linalg.solve(S, C.mT)
    assert_close(posterior.covariance(), expected, rtol=1e-9, atol=1e-9)
    assert_close(posterior.std(), expected.diagonal().sqrt(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("trend", [None, "1 + x"])
@pytest.mark.parametrize("observation", ["noisy", "biased", "missions"])
@pytest.mark.parametrize("kernel", ["exponential", "rotated", "sum"])
def test_as_many_inducing_points_as_data_is_kriging(
    kernel: str, trend: str | None, observation: str
) -> None:
    r"""Mean, std and evidence are exact; the covariance *between* nodes is not (FITC)."""
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS[kernel](), grid, trend=trend)
    seen = OBSERVATIONS[observation](grid)
    y = torch.randn(seen.size, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    mean, P, evidence = reference(prior, seen, y)
    posterior = mt.InducingPoints(size=100)(prior, seen)(y)
    assert_close(posterior.mean, mean, rtol=1e-6, atol=1e-7)
    assert_close(posterior.std(), P.diagonal().sqrt(), rtol=1e-6, atol=1e-6)
    assert_close(posterior.covariance().diagonal(), P.diagonal(), rtol=1e-6, atol=1e-6)
    assert_close(posterior.log_evidence, evidence, rtol=1e-7, atol=1e-7)
    draws = posterior.sample(4000, torch.Generator().manual_seed(4))
    # standard errors of a mean and of a variance over N draws: s / sqrt(N), s^2 sqrt(2 / N)
    assert ((draws.mean(0) - mean).abs() < 5 * P.diagonal().sqrt() / 4000**0.5).all()
    off = (draws.var(0) / P.diagonal() - 1).abs()
    assert off.max() < 5 * (2 / 4000) ** 0.5


ALL = EXACT | {
    "taper": lambda: mt.Taper(radius=4.0),
    "inducing": lambda: mt.InducingPoints(size=8),
}


@pytest.mark.parametrize("solver", ALL)
def test_no_solver_is_less_sure_than_the_prior(solver: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid)
    std = ALL[solver]()(prior, noisy(grid))(torch.zeros(14, dtype=DOUBLE)).std()
    assert (std <= 2.0**0.5 * (1 + 1e-9)).all()
    assert (std < 2.0**0.5 * 0.99).any()


@pytest.mark.parametrize("solver", ALL)
def test_noise_without_end_gives_the_prior(solver: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid, mean=3.0)
    posterior = ALL[solver]()(prior, mt.PointObservation(grid, sites(), 1e7))(
        10 * torch.ones(14, dtype=DOUBLE)
    )
    assert_close(posterior.mean, torch.full((20,), 3.0, dtype=DOUBLE), rtol=1e-9, atol=1e-9)
    assert_close(posterior.std(), torch.full((20,), 2.0**0.5, dtype=DOUBLE), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", [*EXACT, "taper"])
@pytest.mark.parametrize("trend", [None, "1 + x"])
def test_data_without_noise_are_interpolated(solver: str, trend: str | None) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid, trend=trend)
    index = torch.tensor([4, 0, 19, 11, 7])
    y = torch.tensor([3.0, -1.0, 2.0, 0.5, 9.0], dtype=DOUBLE)
    posterior = ALL[solver]()(prior, mt.PointObservation(grid, grid.points[index], 0.0))(y)
    assert_close(posterior.mean[index], y, rtol=1e-9, atol=1e-9)
    assert posterior.std()[index].max() < 1e-6
    # a draw goes through the data too: a square root of a variance of 1e-16 is 1e-8
    assert (posterior.sample(5, torch.Generator().manual_seed(0))[:, index] - y).abs().max() < 1e-6


@pytest.mark.parametrize("solver", ALL)
def test_the_order_of_data_does_not_matter(solver: str) -> None:
    grid, points = plane_grid(), sites()
    prior = mt.GaussianProcess(KERNELS["exponential"](), grid, trend="1")
    y = torch.randn(14, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    std = uniform(14, 0.1, 0.5, 3)
    shuffled = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    if solver == "inducing":  # eight points are chosen from the first datum on: take them all
        ALL_DATA = mt.InducingPoints(size=14)
        pair = (ALL_DATA, ALL_DATA)
    else:
        pair = (ALL[solver](), ALL[solver]())
    a = pair[0](prior, mt.PointObservation(grid, points, std))(y)
    b = pair[1](prior, mt.PointObservation(grid, points[shuffled], std[shuffled]))(y[shuffled])
    assert_close(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    assert_close(a.std(), b.std(), rtol=1e-7, atol=1e-7)
    assert_close(a.log_evidence, b.log_evidence, rtol=1e-9, atol=1e-9)


class Conditioned(mt.priors.GaussianPrior):
    """A posterior as the prior of what comes next: on its own nodes only."""

    def __init__(self, posterior: mt.Posterior, domain: mt.Points) -> None:
        super().__init__()
        self.domain, self.m, self.P = domain, posterior.mean, posterior.covariance()

    def _rank(self, points: mt.Points) -> Tensor:
        return (points.coords[:, None] == self.domain.coords).all(-1).double().argmax(1)

    def mean(self, points: mt.Points) -> Tensor:
        return self.m[self._rank(points)]

    def covariance(self, a: mt.Points, b: mt.Points) -> Tensor:
        return self.P[self._rank(a)][:, self._rank(b)]


@pytest.mark.parametrize("solver", EXACT)
def test_two_batches_in_turn_are_both_at_once(solver: str) -> None:
    points = sites(12)
    prior = mt.GaussianProcess(KERNELS["exponential"](), points)
    y = torch.randn(10, dtype=DOUBLE, generator=torch.Generator().manual_seed(7))
    both = mt.Kriging()(prior, mt.PointObservation(points, points[:10], 0.3))(y)
    first = EXACT[solver]()(prior, mt.PointObservation(points, points[:6], 0.3))(y[:6])
    then = Conditioned(first, points)
    second = mt.Kriging()(then, mt.PointObservation(points, points[6:10], 0.3))(y[6:])
    assert_close(second.mean, both.mean, rtol=1e-9, atol=1e-9)
    assert_close(second.covariance(), both.covariance(), rtol=1e-8, atol=1e-9)
    total = first.log_evidence + second.log_evidence
    assert_close(total, both.log_evidence, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", EXACT)
def test_calibration_over_twin_experiments(solver: str) -> None:
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.5), plane_grid(), mean=1.0)
    check_calibration(EXACT[solver](), prior, sites(), 0.3, twins=200)


def test_the_law_of_calibration_fails_where_the_prior_is_wrong() -> None:
    class Overconfident(mt.Kriging):
        def prepare(self, prior, observation):
            conditional = super().prepare(prior, observation)
            exact = conditional.variance
            conditional.variance = lambda: exact() * 0.6
            return conditional

    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.5), plane_grid())
    with pytest.raises(AssertionError, match="z-scores"):
        check_calibration(Overconfident(), prior, sites(), 0.3)


@pytest.mark.parametrize("solver", ALL)
def test_a_posterior_carries_no_gradient(solver: str) -> None:
    """A half-detached graph would give wrong gradients in silence, and refuse .numpy()."""
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.5), grid, trend="1")
    posterior = ALL[solver]()(prior, biased(grid))(torch.ones(14, dtype=DOUBLE))
    found = (posterior.mean, posterior.std(), posterior.sample(2), posterior.covariance())
    for tensor in (*found, posterior.log_evidence):
        tensor.numpy()


@pytest.mark.parametrize("solver", ALL)
def test_single_precision_is_close_to_double(solver: str) -> None:
    """Named tolerance: parameters rounded at 6e-8, through a well-conditioned system."""
    grid = plane_grid()
    answers = []
    for single in (False, True):
        kernel = mt.Matern(1.5, 2.0, (1.5, 2.5), rotation=20.0)
        prior = mt.GaussianProcess(kernel, grid, trend="1 + x")
        observation = biased(grid)
        y = torch.linspace(-1, 1, 14, dtype=DOUBLE)
        if single:
            prior, observation, y = prior.float(), observation.float(), y.float()
        answers.append(ALL[solver]()(prior, observation)(y))
        assert answers[-1].sample(2).dtype == DOUBLE
        prior.sample(2), prior.denoise(torch.zeros(20, dtype=DOUBLE), 0.1)
    assert_close(answers[1].mean, answers[0].mean, rtol=1e-5, atol=1e-5)
    assert_close(answers[1].std(), answers[0].std(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ALL)
def test_a_trend_that_the_data_cannot_tell_is_refused(solver: str) -> None:
    points = mt.Points(x=[1.0, 1.0], y=[0.0, 2.0])  # x does not vary: "1" and "x" are one column
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(0.5), grid, trend="1 + x")
    with pytest.raises(ValueError, match=r"expected a trend that the data can tell"):
        ALL[solver]()(prior, mt.PointObservation(grid, points, 0.1)).estimate(
            torch.ones(2, dtype=DOUBLE)
        )


def test_data_that_determine_one_another_are_refused() -> None:
    grid = plane_grid()
    twice = mt.Points(x=[1.0, 1.0, 3.0], y=[1.0, 1.0, 2.0])
    prior = mt.GaussianProcess(mt.Matern(0.5), grid)
    with pytest.raises(ValueError, match=r"Kriging: .* at datum 1 of 3\. Give the data some"):
        mt.Kriging()(prior, mt.PointObservation(grid, twice, 0.0))
    with pytest.raises(ValueError, match=r"expected distinct sites .* got 1 repeated of 3"):
        mt.Vecchia()(prior, mt.PointObservation(grid, twice, 0.0))
    with pytest.raises(ValueError, match=r"Taper\(radius=9\.0\): expected a positive definite"):
        mt.Taper(9.0)(prior, mt.PointObservation(grid, twice, 0.0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mt.Vecchia(neighbors=0), r"Vecchia\(neighbors=...\): .* got 0 and None"),
        (lambda: mt.Vecchia(engine="gpu"), r"Vecchia\(engine=...\): .* got 'gpu'"),
        (lambda: mt.Taper(radius=0.0), r"Taper\(radius=...\): .* got 0.0"),
        (lambda: mt.InducingPoints(0), r"InducingPoints\(size=...\): .* got 0"),
    ],
)
def test_bad_settings_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_too_many_data_and_wrong_priors_are_refused() -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(0.5), grid)
    with pytest.raises(ValueError, match=r"Kriging\(max_size=5\): .* got 14\. Use Vecchia"):
        mt.Kriging(max_size=5)(prior, noisy(grid))
    dense = Conditioned(
        mt.Kriging()(prior, noisy(grid))(torch.zeros(14, dtype=DOUBLE)), grid.points
    )
    with pytest.raises(
        TypeError, match=r"Vecchia\(prior=...\): .* KernelPrior, got Conditioned.*Kriging"
    ):
        mt.Vecchia()(dense, noisy(grid))
    gneiting = mt.GaussianProcess(mt.Gneiting(), mt.Grid(time=[0.0], x=[0.0, 1.0]))
    seen = mt.PointObservation(gneiting.domain, mt.Points(time=[0.0], x=[0.5]), 0.1)
    with pytest.raises(ValueError, match=r"Vecchia\(engine='compiled'\): .* got Gneiting"):
        mt.Vecchia(engine="compiled")(gneiting, seen)
