"""Maximum likelihood and cross-validation: recovery, honest errors, invariance, brute force."""

from __future__ import annotations

import itertools
import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.fit import Fit, blocks, cross_validate, maximum_likelihood, predict

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scattered(m: int, width: float = 10.0, seed: int = 0) -> mt.Points:
    x, y = width * torch.rand(2, m, dtype=DOUBLE, generator=generator(seed))
    return mt.Points(x=x, y=y)


def draw(kernel: mt.kernels.Kernel, points: mt.Points, noise: float, seed: int) -> Tensor:
    g = generator(seed)
    field = mt.GaussianProcess(kernel, points).sample(1, g)[0].detach()
    return field + noise * torch.randn(len(points), dtype=DOUBLE, generator=g)


def rows(prior: mt.GaussianProcess) -> dict[str, tuple[float, float]]:
    assert isinstance(prior.fitted, Fit)
    names = [r[0] for r in prior.fitted.rows]
    assert len(set(names)) == len(names), f"two quantities of one name: {names}"
    return {name: (value, error) for name, value, error, _ in prior.fitted.rows}


def within(found: tuple[float, float], truth: float) -> None:
    value, error = found
    assert error > 0
    assert abs(value - truth) < 5 * error, f"{value} +- {error}, not {truth}"


def test_known_parameters_are_recovered() -> None:
    """A rotated anisotropic field, with noise and an inclined trend: five standard errors."""
    points = scattered(260)
    truth = mt.Matern(1.5, 2.0, (0.8, 2.0), rotation=25.0)
    y = draw(truth, points, 0.3, 1) + 5.0 + 0.7 * (points.axis("x") - points.axis("x").mean())
    start = mt.Matern(1.5, 1.0, (1.0, 1.0), rotation=0.0)
    prior = mt.GaussianProcess(start, points, trend="1 + x")
    seen = mt.PointObservation(points, points, 0.1, learn_noise=True)
    assert maximum_likelihood(prior, seen, y) is prior
    found = rows(prior)
    assert prior.fitted.converged
    within(found["Matern variance"], 2.0)
    within(found["Matern lengthscale y"], 0.8)
    within(found["Matern lengthscale x"], 2.0)
    within(found["Matern rotation"], 25.0)
    within(found["noise std"], 0.3)
    within(found["trend 1"], 5.0)
    within(found["trend x"], 0.7)
    assert found["Matern rotation"][1] < 15
    assert_close(prior.coefficients[1].item(), found["trend x"][0])
    # the report: sizes and the criterion
    fitted = prior.fitted
    assert (fitted.data, fitted.parameters) == (260, 7)
    assert_close(fitted.bic, 7 * math.log(260) - 2 * fitted.log_likelihood)
    posterior = mt.Kriging()(prior, seen)(y)
    assert_close(posterior.log_evidence.item(), fitted.log_likelihood, rtol=1e-9, atol=1e-9)
    text = prior.summary()
    assert "noise std" in text
    assert "converged in" in text


def test_the_smoothness_is_recovered() -> None:
    points = scattered(220, width=6.0)
    prior = mt.GaussianProcess(mt.Matern(0.7, 1.0, 2.0, learn_nu=True), points)
    seen = mt.PointObservation(points, points, 0.0)
    maximum_likelihood(prior, seen, draw(mt.Matern(1.2, 1.0, 1.5), points, 0.0, 2))
    found = rows(prior)
    within(found["Matern nu"], 1.2)
    assert found["Matern nu"][1] < 0.3


def test_standard_errors_are_the_spread_of_estimates() -> None:
    r"""Over R replicates, the spread s of log-estimates against the mean standard error.

    The standard error of s is :math:`s / \sqrt{2 (R - 1)}`, of which five are allowed; the mean
    error is held against s with it. Estimates are unbiased within five :math:`s / \sqrt R`, plus
    the :math:`O(1/m)` bias of maximum likelihood, here under a quarter of a standard error.
    """
    replicates, points = 40, mt.Points(x=0.5 * torch.arange(180.0))
    truth = {"Matern variance": 1.0, "Matern lengthscale": 2.0, "noise std": 0.5}
    found = []
    for seed in range(replicates):
        prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 2.0), points)
        seen = mt.PointObservation(points, points, 0.5, learn_noise=True)
        maximum_likelihood(prior, seen, draw(mt.Matern(1.5, 1.0, 2.0), points, 0.5, 100 + seed))
        each = rows(prior)
        found.append([[math.log(each[k][0]), each[k][1] / each[k][0]] for k in truth])
    values = torch.tensor(found, dtype=DOUBLE)
    spread, mean_error = values[:, :, 0].std(dim=0), values[:, :, 1].mean(dim=0)
    allowed = 5 * spread / (2 * (replicates - 1)) ** 0.5
    assert ((spread - mean_error).abs() < allowed).all(), (spread, mean_error)
    off = values[:, :, 0].mean(dim=0) - torch.tensor(list(truth.values()), dtype=DOUBLE).log()
    assert (off.abs() < spread * (5 / replicates**0.5 + 0.25)).all(), (off, spread)


def fitted(y: Tensor, points: mt.Points, unit: float = 1.0, **settings) -> mt.GaussianProcess:
    prior = mt.GaussianProcess(mt.Matern(1.5, unit**2, 1.0), points, trend="1")
    seen = mt.PointObservation(points, points, 0.2 * unit, learn_noise=True)
    return maximum_likelihood(prior, seen, y, tolerance=1e-8, **settings)


def test_units_of_the_field_do_not_matter() -> None:
    points = scattered(80)
    y = draw(mt.Matern(1.5, 2.0, 1.5), points, 0.3, 3)
    plain, scaled = rows(fitted(y, points)), rows(fitted(100 * y + 700, points, 100.0))
    for name, power in (("Matern variance", 2), ("Matern lengthscale", 0), ("noise std", 1)):
        for a, b in zip(plain[name], scaled[name], strict=True):
            assert_close(b, a * 100.0**power, rtol=1e-3, atol=0.0)
    assert_close(scaled["trend 1"][0], 100 * plain["trend 1"][0] + 700, rtol=1e-3, atol=0.0)


def test_units_of_length_do_not_matter() -> None:
    points = scattered(60)
    y = draw(mt.Matern(1.5, 2.0, 1.5), points, 0.3, 3)
    values = []
    for unit in (1.0, 1000.0):
        moved = mt.Points(points.coords * unit, points.dims)
        prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, unit), moved)
        seen = mt.PointObservation(moved, moved, 0.2, learn_noise=True)
        maximum_likelihood(prior, seen, y, tolerance=1e-8)
        values.append((prior.fitted.log_likelihood, rows(prior)["Matern lengthscale"][0] / unit))
    assert_close(values[0][0], values[1][0], rtol=1e-8, atol=0.0)
    assert_close(values[0][1], values[1][1], rtol=1e-3, atol=0.0)


def test_gradient_descent_finds_what_scoring_finds() -> None:
    """The torch engine has no Fisher information, so it takes L-BFGS."""
    points = scattered(50)
    y = draw(mt.Matern(1.5, 2.0, 1.5), points, 0.3, 3)
    scoring = fitted(y, points, solver=mt.Kriging())
    other = fitted(y, points, solver=mt.Vecchia(49, engine="torch"), steps=60)
    compiled = fitted(y, points, solver=mt.Vecchia(49))
    for prior in (other, compiled):
        assert_close(prior.fitted.log_likelihood, scoring.fitted.log_likelihood, rtol=0, atol=1e-4)
        for name, (value, error) in rows(scoring).items():
            assert abs(rows(prior)[name][0] - value) < 0.02 * error, name
    assert math.isnan(rows(other)["Matern variance"][1])  # no errors without the information
    assert_close(rows(compiled)["noise std"][1], rows(scoring)["noise std"][1], rtol=1e-3, atol=0)


def test_the_optimum_is_one() -> None:
    """No step in any parameter does better than what the fit found."""
    points = scattered(60)
    y = draw(mt.Matern(1.5, 2.0, 1.5), points, 0.3, 5)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.0), points)
    seen = mt.PointObservation(points, points, 0.1, learn_noise=True)
    maximum_likelihood(prior, seen, y, tolerance=1e-8)
    likelihood, best = mt.Kriging().likelihood(prior, seen, y), prior.fitted.log_likelihood
    free = [p for m in (prior, seen) for p in m.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in free:
            for step in (0.02, -0.02):
                p += step
                assert likelihood.value() < best
                p -= step


def test_a_bias_between_missions_is_recovered() -> None:
    """The first mission is right on average; the second is 3 too high: the map says so."""
    first, second, grid = scattered(60, 5.0, 1), scattered(60, 5.0, 2), scattered(25, 5.0, 3)
    truth = mt.Matern(1.5, 1.0, 2.0)
    every = mt.Points.join(first, second, grid)
    x = draw(truth, every, 0.0, 4)
    g = generator(5)
    y = x[:120] + 0.1 * torch.randn(120, dtype=DOUBLE, generator=g)
    y[60:] += 3.0
    parts = (
        mt.PointObservation(grid, first, 0.1, learn_noise=True),
        mt.PointObservation(grid, second, 0.1, bias_std=1.0),
    )
    seen = mt.Stack(*parts)
    prior = mt.GaussianProcess(mt.Matern(1.5, 0.5, 1.0), grid)
    maximum_likelihood(prior, seen, y)
    found = rows(prior)
    within(found["Matern variance"], 1.0)
    # one draw of a bias b puts its standard deviation at |b|
    assert_close(found["bias std"][0], 3.0, rtol=0.1, atol=0.0)
    posterior = mt.Kriging()(prior, seen)(y)
    z = (posterior.mean - x[120:]) / posterior.std()
    assert z.abs().max() < 5
    blind = mt.Kriging()(prior, mt.PointObservation(grid, mt.Points.join(first, second), 0.1))(y)
    assert (blind.mean - x[120:]).square().mean() > 4 * (posterior.mean - x[120:]).square().mean()


def test_nothing_to_learn_is_refused() -> None:
    points = scattered(5)
    prior = mt.GaussianProcess(mt.Matern(), points).requires_grad_(False)
    seen = mt.PointObservation(points, points, 0.1)
    with pytest.raises(ValueError, match=r"expected parameters to learn, got none that require"):
        maximum_likelihood(prior, seen, torch.zeros(5, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"expected a fitted prior, got one that was not"):
        prior.summary()
    free = mt.GaussianProcess(mt.Matern(), points)
    with pytest.raises(ValueError, match=r"got 1 NaN or Inf among 5"):
        maximum_likelihood(free, seen, torch.tensor([0.0, 1, 2, 3, torch.nan], dtype=DOUBLE))


def test_a_nugget_beside_the_noise_cannot_be_told_and_it_says_so() -> None:
    points = mt.Points(x=torch.arange(60.0))
    y = draw(mt.Matern(0.5, 1.0, 5.0), points, 0.3, 6)
    prior = mt.GaussianProcess(mt.Matern(0.5, 1.0, 5.0) + mt.Nugget(0.1), points)
    seen = mt.PointObservation(points, points, 0.3, learn_noise=True)
    with pytest.warns(UserWarning, match=r"log_scale.* cannot be told from these data"):
        maximum_likelihood(prior, seen, y)
    assert rows(prior)["noise std"][1] > 10
    assert "cannot be told" in prior.summary()


def test_what_is_fixed_stays() -> None:
    points = scattered(40)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.0), points)
    prior.kernel.log_lengthscale.requires_grad_(False)
    seen = mt.PointObservation(points, points, 0.25)
    maximum_likelihood(prior, seen, draw(mt.Matern(1.5, 2.0, 1.5), points, 0.25, 3))
    assert prior.kernel.lengthscale.item() == 1.0
    assert seen.noise_variance[0].item() == 0.0625
    assert prior.kernel.variance.item() != 1.0


def test_progress_never_goes_down() -> None:
    points, seen_values = scattered(60), []
    prior = mt.GaussianProcess(mt.Matern(1.5, 0.1, 0.2), points)
    seen = mt.PointObservation(points, points, 1.0, learn_noise=True)
    y = draw(mt.Matern(1.5, 2.0, 1.5), points, 0.6, 3)
    before = mt.Kriging().likelihood(prior, seen, y).value().item()
    maximum_likelihood(prior, seen, y, progress=lambda _, value: seen_values.append(value))
    assert seen_values
    assert seen_values[0] > before
    assert all(b >= a - 1e-6 * abs(a) for a, b in itertools.pairwise(seen_values))
    assert_close(prior.fitted.log_likelihood, seen_values[-1], rtol=1e-9, atol=1e-9)


def test_a_singular_step_is_come_back_from() -> None:
    """Smooth data without noise pull a Gaussian covariance towards a singular one."""
    points = mt.Points(x=torch.linspace(0, 3, 12, dtype=DOUBLE))
    prior = mt.GaussianProcess(mt.Gaussian(1.0, 0.3), points)
    y = (points.axis("x") / 2).sin()
    maximum_likelihood(prior, mt.PointObservation(points, points, 0.0), y)
    assert math.isfinite(prior.fitted.log_likelihood)
    # the parameters are those whose likelihood is reported
    again = mt.Kriging().likelihood(prior, mt.PointObservation(points, points, 0.0), y).value()
    assert_close(again.item(), prior.fitted.log_likelihood, rtol=1e-9, atol=1e-9)


# Folds and cross-validation.


def test_blocks_share_folds() -> None:
    points = scattered(300)
    fold = blocks(points, size=2.0, folds=4, generator=generator(1))
    cell = (points.coords / 2.0).floor()
    place = cell[:, 0] * 100 + cell[:, 1]
    for p in place.unique():
        assert len(fold[place == p].unique()) == 1
    assert sorted(fold.unique().tolist()) == [0, 1, 2, 3]
    count = torch.stack([(place[fold == k].unique()).shape[0] * torch.ones(()) for k in range(4)])
    assert count.max() - count.min() <= 1
    assert torch.equal(fold, blocks(points, 2.0, 4, generator(1)))
    assert not torch.equal(fold, blocks(points, 2.0, 4, generator(2)))


def test_blocks_hold_all_their_times_and_are_metres_on_the_sphere() -> None:
    lat, lon = 40 + 2 * torch.rand(2, 80, dtype=DOUBLE, generator=generator(3))
    early, late = (mt.Points(time=torch.full((80,), t), lat=lat, lon=lon) for t in (0.0, 50.0))
    fold = blocks(mt.Points.join(early, late), size=5e4, folds=3, generator=generator(0))
    assert torch.equal(fold[:80], fold[80:])
    assert len(fold.unique()) == 3


def test_bad_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks\(size=...\): expected a positive size, got 0"):
        blocks(scattered(10), 0.0)
    with pytest.raises(ValueError, match=r"expected at least 5 blocks, one per fold, got 1"):
        blocks(scattered(10), 1e3)
    points = scattered(4)
    prior, seen = mt.GaussianProcess(mt.Matern(), points), mt.PointObservation(points, points, 0.1)
    with pytest.raises(ValueError, match=r"expected two folds or more, got 1"):
        cross_validate(prior, seen, torch.zeros(4, dtype=DOUBLE), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("trend", [None, "1 + x"])
@pytest.mark.parametrize("solver", [None, mt.Vecchia(60)])
def test_cross_validation_is_that_of_brute_force(trend: str | None, solver) -> None:
    points = scattered(40, 4.0)
    std = 0.1 + 0.4 * torch.rand(40, dtype=DOUBLE, generator=generator(8))
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.0), points, trend=trend)
    y = draw(mt.Matern(1.5, 1.0, 1.0), points, 0.2, 7)
    fold = torch.arange(40) % 4
    K = prior.covariance(points, points).detach()
    F = prior.design(points)
    mean, variance = torch.empty_like(y), torch.empty_like(y)
    for k in range(4):
        a, b = fold != k, fold == k
        S = torch.linalg.inv(K[a][:, a] + std[a].square().diag())
        beta = torch.linalg.inv(F[a].mT @ S @ F[a]) @ F[a].mT @ S @ y[a]
        gain = K[b][:, a] @ S
        mean[b] = F[b] @ beta + gain @ (y[a] - F[a] @ beta)
        rest = F[b] - gain @ F[a]
        trend_part = rest @ torch.linalg.inv(F[a].mT @ S @ F[a]) @ rest.mT
        variance[b] = (K[b][:, b] - gain @ K[a][:, b] + trend_part).diagonal() + std[b] ** 2
    seen = mt.PointObservation(points, points, std)
    scores = cross_validate(prior, seen, y, fold, solver)
    z, sd = (y - mean) / variance.sqrt(), variance.sqrt()
    assert_close(scores["rmse"], (y - mean).square().mean().sqrt().item(), rtol=1e-7, atol=0.0)
    assert_close(scores["bias"], (mean - y).mean().item(), rtol=1e-6, atol=1e-9)
    pdf, cdf = (-(z**2) / 2).exp() / (2 * math.pi) ** 0.5, torch.special.ndtr(z)
    crps = sd * (z * (2 * cdf - 1) + 2 * pdf - 1 / math.pi**0.5)
    assert_close(scores["crps"], crps.mean().item(), rtol=1e-6, atol=0.0)
    found = predict(prior, seen, y, fold != 1, fold == 1, solver)
    assert_close(found[0], mean[fold == 1], rtol=1e-7, atol=1e-7)
    assert_close(found[1], sd[fold == 1], rtol=1e-7, atol=1e-7)


def test_cross_validation_of_a_stack_leaves_missions_out() -> None:
    first, second = scattered(15, 4.0, 1), scattered(12, 4.0, 2)
    grid = scattered(3)
    parts = [mt.PointObservation(grid, p, s) for p, s in ((first, 0.1), (second, 0.4))]
    every = mt.Points.join(first, second)
    y = draw(mt.Matern(1.5), every, 0.1, 3)
    prior = mt.GaussianProcess(mt.Matern(1.5), grid)
    std = torch.cat([torch.full((15,), 0.1), torch.full((12,), 0.4)]).double()
    mission = (torch.arange(27) >= 15).long()
    one = cross_validate(prior, mt.PointObservation(grid, every, std), y, mission)
    assert cross_validate(prior, mt.Stack(*parts), y, mission) == pytest.approx(one)
