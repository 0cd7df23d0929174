"""Laws of the pointwise scores: brute force, quadrature, limits, propriety."""

import math
import numpy as np
import pytest
import torch

from scipy import integrate, stats

from matheron import metrics

GAUSSIAN = [
    metrics.crps_gaussian,
    metrics.log_score_gaussian,
    metrics.interval_score,
    metrics.coverage,
]
POINT = [metrics.mae, metrics.rmse, metrics.bias]


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def law(generator):
    """Mean, std and truth of 200 points; the truth follows the law."""
    mean, std = draw(generator, 200), draw(generator, 200).exp()
    return mean, std, mean + std * draw(generator, 200)


def test_crps_is_the_integral_of_the_brier_score():
    # CRPS = integral over thresholds t of (F(t) - 1{y <= t})^2
    for mean, std, y in [(0.3, 0.7, 1.9), (0.0, 1.0, 0.0), (-2.0, 3.0, -9.0)]:
        cdf = stats.norm(mean, std).cdf
        low = integrate.quad(lambda t, f=cdf: f(t) ** 2, -60, y, epsabs=1e-12, points=[mean])[0]
        top = integrate.quad(lambda t, f=cdf: (1 - f(t)) ** 2, y, 60, epsabs=1e-12)[0]
        got = metrics.crps_gaussian(
            *(torch.tensor([v], dtype=torch.float64) for v in (mean, std, y))
        )
        assert got.item() == pytest.approx(low + top, abs=1e-9)


def test_log_score_is_minus_the_log_density(law):
    mean, std, truth = law
    expected = -stats.norm(mean.numpy(), std.numpy()).logpdf(truth.numpy()).mean()
    assert metrics.log_score_gaussian(*law).item() == pytest.approx(expected, rel=1e-12)


def test_scores_equal_the_definitions_of_heaton(law):
    # The formulas of the comparison's own code, point by point, alpha = 0.05.
    m, s, y = (x.numpy() for x in law)
    z = (y - m) / s
    lower, upper = m - stats.norm.ppf(0.975) * s, m + stats.norm.ppf(0.975) * s
    crps = s * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    miss = (lower - y) * (y < lower) + (y - upper) * (y > upper)
    expected = {
        "mae": np.abs(y - m).mean(),
        "rmse": np.sqrt(((y - m) ** 2).mean()),
        "bias": (m - y).mean(),
        "crps": crps.mean(),
        "interval_score": ((upper - lower) + 2 / 0.05 * miss).mean(),
        "coverage_95": ((lower <= y) & (y <= upper)).mean(),
        "spread_skill": np.sqrt((s**2).mean() / ((y - m) ** 2).mean()),
    }
    got = metrics.summary(*law)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-10), name


def test_summary_names_every_score_and_adds_those_of_members(law, generator):
    names = "mae rmse bias crps interval_score coverage_50 coverage_90 coverage_95 spread_skill"
    assert list(metrics.summary(*law)) == names.split()
    members = law[0] + law[1] * draw(generator, 20, 200)
    more = metrics.summary(*law, members=members)
    assert list(more) == [*names.split(), "crps_ensemble", "energy_score"]
    assert all(isinstance(v, float) for v in more.values())


def test_crps_tends_to_the_absolute_error_as_the_std_vanishes(law):
    mean, _, truth = law
    truth = torch.cat([truth, mean[:1]])  # one exact hit: 0/0 in z
    mean = torch.cat([mean, mean[:1]])
    for size in (0.0, 1e-200, 1e-9):
        crps = metrics.crps_gaussian(mean, torch.full_like(mean, size), truth)
        torch.testing.assert_close(crps, metrics.mae(mean, truth), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "score", [metrics.crps_gaussian, metrics.log_score_gaussian, metrics.interval_score]
)
def test_scores_are_proper(score, generator):
    """The true law wins, on average, over one with the wrong spread or the wrong mean."""
    y = draw(generator, 200, 1000)
    zero, one = torch.zeros_like(y), torch.ones_like(y)
    for mean, std in [(0.0, 0.7), (0.0, 1.4), (0.3, 1.0), (-0.3, 1.0)]:
        loss = score(mean + zero, std * one, y) - score(zero, one, y)
        assert loss.mean() > 5 * loss.std() / math.sqrt(len(loss))


def test_coverage_is_nominal_for_a_calibrated_law(generator):
    n = 100_000
    y, one = draw(generator, n), torch.ones(n).double()
    for level in (0.5, 0.9, 0.95):
        got = metrics.coverage(0 * one, one, y, level).item()
        assert abs(got - level) < 5 * math.sqrt(level * (1 - level) / n)


def test_gaussian_bounds_are_those_given_explicitly(law):
    mean, std, truth = law
    half = stats.norm.ppf(0.95) * std
    lower, upper = mean - half, mean + half
    a = metrics.interval_score(*law, level=0.9)
    b = metrics.interval_score_bounds(lower, upper, truth, level=0.9)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)
    assert metrics.coverage(*law, level=0.9) == metrics.coverage_bounds(lower, upper, truth)


@pytest.mark.parametrize("score", POINT + GAUSSIAN)
def test_weights_and_order_and_batch(score, law, generator):
    fields = law[::2] if score in POINT else law
    plain = score(*fields)
    assert plain.shape == ()
    # weights of one are none; only ratios count
    w = torch.full((200,), 3.0).double()
    torch.testing.assert_close(score(*fields, weights=w), plain)
    # order of points
    p = torch.randperm(200, generator=generator)
    torch.testing.assert_close(score(*(f[p] for f in fields)), plain)
    # whole weights repeat points
    w = torch.randint(0, 4, (200,), generator=generator)
    repeated = [f.repeat_interleave(w) for f in fields]
    torch.testing.assert_close(score(*fields, weights=w.double()), score(*repeated))
    # a batch is its members in turn
    batch = [torch.stack([f, f.flip(0), 2 * f.abs()]) for f in fields]
    each = torch.stack([score(*(f[i] for f in batch)) for i in range(3)])
    torch.testing.assert_close(score(*batch), each)


@pytest.mark.parametrize("score", [*GAUSSIAN, metrics.summary])
def test_bad_input_is_refused_by_name(score, law):
    mean, std, truth = law
    holes = truth.clone()
    holes[:3] = torch.nan
    with pytest.raises(ValueError, match=r"\(truth=...\): expected finite values, got 3 NaN"):
        score(mean, std, holes)
    with pytest.raises(ValueError, match=r"\(std=...\): expected .*, got 200 that are not"):
        score(mean, -std, truth)
    with pytest.raises(ValueError, match=r"at least one, got \{'.*': 0"):
        score(mean[:0], std[:0], truth[:0])


def test_unequal_sizes_are_refused_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"same number of points.*'a': 1, 'b': 3"):
        metrics.base.check("score", a=torch.zeros(1), b=torch.zeros(3))


def test_weights_levels_and_bounds_are_checked(law):
    mean, std, truth = law
    with pytest.raises(ValueError, match="expected non-negative weights"):
        metrics.mae(mean, truth, weights=-torch.ones_like(mean))
    with pytest.raises(ValueError, match="expected non-negative weights"):
        metrics.mae(mean, truth, weights=torch.zeros_like(mean))
    with pytest.raises(ValueError, match=r"coverage\(level=...\): .* got 95.0"):
        metrics.coverage(mean, std, truth, level=95.0)
    with pytest.raises(ValueError, match="crossed"):
        metrics.interval_score_bounds(mean + std, mean - std, truth)
    with pytest.raises(ValueError, match="expected positive standard deviations"):
        metrics.log_score_gaussian(mean, 0 * std, truth)


def test_by_distance_splits_the_score(law, generator):
    distance = torch.rand(200, generator=generator, dtype=torch.float64)
    edges = torch.tensor([0.0, 0.2, 0.5, 1.0]).double()
    got = metrics.by_distance(distance, edges, metrics.crps_gaussian, *law)
    for k in range(3):
        keep = (distance >= edges[k]) & (distance < edges[k + 1])
        expected = metrics.crps_gaussian(*(f[keep] for f in law))
        torch.testing.assert_close(got.score[k], expected)
    # a mean score is the average of its classes, by counts
    total = (got.score * got.count).sum() / got.count.sum()
    torch.testing.assert_close(total, metrics.crps_gaussian(*law))


def test_by_distance_keeps_every_point_and_says_where_there_is_none(law):
    mean, _, truth = law
    distance = torch.arange(200.0).double()
    assert metrics.by_distance(distance, 7, metrics.rmse, mean, truth).count.sum() == 200
    far = metrics.by_distance(
        distance, torch.tensor([0.0, 1.0, 1.5, 199.0]).double(), metrics.rmse, mean, truth
    )
    assert far.count.tolist() == [1, 1, 198]
    far = metrics.by_distance(
        distance, torch.tensor([0.0, 0.5, 0.7]).double(), metrics.rmse, mean, truth
    )
    assert far.count.tolist() == [1, 0]
    assert far.score[1].isnan()
    with pytest.raises(ValueError, match="two increasing edges"):
        metrics.by_distance(0 * distance, 5, metrics.rmse, mean, truth)


def test_by_distance_takes_ensembles_and_weights(law, generator):
    members = law[0] + law[1] * draw(generator, 10, 200)
    distance, w = (torch.rand(200, generator=generator, dtype=torch.float64) for _ in range(2))
    got = metrics.by_distance(distance, 1, metrics.crps_ensemble, members, law[2], weights=w)
    torch.testing.assert_close(got.score[0], metrics.crps_ensemble(members, law[2], weights=w))


def test_by_distance_shows_an_error_that_grows_with_distance(generator):
    distance = torch.rand(20_000, generator=generator, dtype=torch.float64)
    error = distance * draw(generator, 20_000)
    got = metrics.by_distance(distance, 5, metrics.rmse, error, torch.zeros_like(error))
    # rms over a class [a, b] of distance * N(0, 1) is sqrt((a^2 + ab + b^2) / 3); the relative
    # standard error of a rms of n heavy-tailed squares is below sqrt(3 / n)
    a, b = got.edges[:-1], got.edges[1:]
    expected = ((a * a + a * b + b * b) / 3).sqrt()
    assert ((got.score / expected - 1).abs() < 5 * (3 / got.count).sqrt()).all()
