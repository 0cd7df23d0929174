"""Laws of calibration: uniform where the law holds, a known shape where it does not."""

import math
import pytest
import torch

from matheron import metrics


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def uniform(counts):
    """Whether counts are those of a uniform law, within five standard errors per class."""
    total, k = counts.sum(), len(counts)
    return ((counts - total / k).abs() < 5 * (total / k * (1 - 1 / k)).sqrt()).all()


def histogram(pit, k=10):
    return torch.histc(pit, k, 0.0, 1.0)


@pytest.fixture
def truth(generator):
    return draw(generator, 50_000)


def test_pit_of_the_true_law_is_uniform(truth):
    pit = metrics.pit_gaussian(0 * truth, torch.ones_like(truth), truth)
    assert uniform(histogram(pit))
    assert metrics.uniformity(pit).pvalue > 1e-6
    assert metrics.uniformity(pit**1.1).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["gaussian", "ensemble", "ranks"])
def test_wrong_spread_gives_a_u_or_a_dome_and_wrong_mean_a_slope(truth, generator, kind):
    def counts(mean, std):
        law = mean + 0 * truth, std + 0 * truth
        if kind == "gaussian":
            return histogram(metrics.pit_gaussian(*law, truth))
        members = law[0] + law[1] * draw(generator, 9, len(truth))
        if kind == "ensemble":
            return histogram(metrics.pit_ensemble(members, truth, generator))
        return metrics.rank_histogram(members, truth, generator).double()

    assert uniform(counts(0.0, 1.0))
    narrow, wide, high = counts(0.0, 0.6), counts(0.0, 1.6), counts(0.5, 1.0)
    half = (narrow + narrow.flip(0))[:5]
    assert (half.diff() < 0).all()
    half = (wide + wide.flip(0))[:5]
    assert (half.diff() > 0).all()
    assert (high.diff() < 0).all()


def test_ranks_equal_brute_force(generator):
    members, truth = draw(generator, 4, 3, 20), draw(generator, 3, 20)
    joined = torch.cat([truth[None], members])
    ranks = joined.argsort(0).argsort(0)[0]
    expected = torch.stack([(ranks == k).sum() for k in range(5)])
    assert torch.equal(metrics.rank_histogram(members, truth), expected)


def test_ties_are_broken_at_random(generator):
    """A field that is often exactly zero is calibrated too."""
    members, truth = (
        x.clamp_min(0) for x in (draw(generator, 9, 50_000), draw(generator, 50_000))
    )
    counts = metrics.rank_histogram(members, truth, generator)
    assert counts.sum() == 50_000
    assert uniform(counts.double())
    assert metrics.rank_uniformity(counts).pvalue > 1e-6
    assert uniform(histogram(metrics.pit_ensemble(members, truth, generator)))


def test_same_generator_same_ranks():
    members, truth = torch.zeros(5, 100).double(), torch.zeros(100).double()
    a, b = (
        metrics.pit_ensemble(members, truth, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(a, b)


def test_reliability_is_coverage(truth):
    mean, std = 0 * truth, 1.3 * torch.ones_like(truth)
    curve = metrics.reliability(metrics.pit_gaussian(mean, std, truth))
    expected = [metrics.coverage(mean, std, truth, level).item() for level in curve.level.tolist()]
    torch.testing.assert_close(curve.coverage, torch.tensor(expected).double(), rtol=0, atol=1e-4)
    assert (curve.coverage > curve.level).all()


def test_reliability_of_a_calibrated_ensemble_is_the_diagonal(truth, generator):
    pit = metrics.pit_ensemble(draw(generator, 5, len(truth)), truth, generator)
    curve = metrics.reliability(pit)
    error = (curve.level * (1 - curve.level) / len(truth)).sqrt()
    assert ((curve.coverage - curve.level).abs() < 5 * error).all()


def test_uniformity_tests_reject_at_their_own_rate(generator):
    # p-values of true hypotheses are uniform: a share of 10 % falls below 0.1
    u = torch.rand(400, 200, generator=generator, dtype=torch.float64)
    ks = [metrics.uniformity(row).pvalue for row in u]
    chi = [
        metrics.rank_uniformity(torch.bincount((row * 10).long(), minlength=10)).pvalue
        for row in u
    ]
    for pvalues in (ks, chi):
        share = sum(p < 0.1 for p in pvalues) / 400
        assert abs(share - 0.1) < 5 * math.sqrt(0.09 / 400)
    with pytest.raises(ValueError, match="at least 5 points per rank, got 3 for 3 ranks"):
        metrics.rank_uniformity(torch.tensor([1, 1, 1]))


def test_spread_equals_skill_where_calibrated(generator):
    n = 100_000
    std = draw(generator, n).mul(0.5).exp()
    truth = std * draw(generator, n)
    got = metrics.spread_skill(0 * std, std, truth)
    # the relative standard error of a Gaussian rms of k values is 1 / sqrt(2 k), a little more
    # where the std varies within a class: the last class spans most
    tolerance = 5 * (1.5 / got.count).sqrt()
    assert ((got.skill / got.spread - 1).abs() < tolerance).all()
    assert (got.spread.diff() > 0).all()
    assert got.count.sum() == n
    confident = metrics.spread_skill(0 * std, 0.5 * std, truth)
    torch.testing.assert_close(confident.ratio, got.ratio / 2)


def test_spread_and_skill_equal_brute_force_with_weights(generator):
    mean, truth = draw(generator, 40), draw(generator, 40)
    std, w = (torch.rand(40, generator=generator, dtype=torch.float64) for _ in range(2))
    got = metrics.spread_skill(mean, std, truth, bins=4, weights=w)
    order = std.argsort().reshape(4, 10)
    for k, i in enumerate(order):
        torch.testing.assert_close(got.skill[k], metrics.rmse(mean[i], truth[i], w[i]))
        spread = ((w[i] * std[i] ** 2).sum() / w[i].sum()).sqrt()
        torch.testing.assert_close(got.spread[k], spread)
    with pytest.raises(ValueError, match="between 1 and 40 classes, got 41"):
        metrics.spread_skill(mean, std, truth, bins=41)


@pytest.mark.parametrize("size", [2, 5, 30])
def test_spread_skill_of_an_ensemble_is_one_at_any_size(generator, size):
    n = 100_000
    members, truth = draw(generator, size, n), draw(generator, n)
    got = metrics.spread_skill(*metrics.ensemble_moments(members), truth, bins=1)
    # the variance of the log of each mean square is at most that of n chi-squares of one degree
    assert abs(got.ratio.item() - 1) < 5 * math.sqrt(1 / n)


def test_block_average_equals_brute_force(generator):
    x, w = draw(generator, 3, 2, 50), torch.rand(50, generator=generator, dtype=torch.float64)
    blocks = torch.arange(50) % 7
    got = metrics.block_average(x, blocks, w)
    for k in range(7):
        expected = metrics.average(x[..., blocks == k], w[blocks == k])
        torch.testing.assert_close(got[..., k], expected)
    with pytest.raises(ValueError, match="got 1 empty blocks"):
        metrics.block_average(x, 2 * (blocks > 3))


def test_block_coverage_sees_a_wrong_joint_law_that_points_do_not(generator):
    """Members with exact marginals but independent points fail on averages, and only there."""
    blocks = torch.arange(20_000) // 20
    k = int(blocks.max()) + 1

    def fields(size, rho):
        common = draw(generator, size, k)[:, blocks]
        return math.sqrt(rho) * common + math.sqrt(1 - rho) * draw(generator, size, len(blocks))

    truth, right, wrong = fields(1, 0.8)[0], fields(39, 0.8), fields(39, 0.0)
    error = math.sqrt(0.09 / k)
    assert abs(metrics.block_coverage(right, truth, blocks).item() - 0.9) < 5 * error
    assert metrics.block_coverage(wrong, truth, blocks).item() < 0.9 - 5 * error
    # point by point there is nothing to see: 20 points share a draw, so 5 errors of k blocks
    point = metrics.coverage_bounds(*metrics.ensemble_bounds(wrong, 0.9), truth).item()
    assert abs(point - 0.9) < 5 * error


def test_bad_input_is_refused(truth):
    with pytest.raises(ValueError, match="expected values between 0 and 1, got"):
        metrics.uniformity(truth)
    with pytest.raises(ValueError, match="expected positive standard deviations"):
        metrics.pit_gaussian(truth, 0 * truth, truth)
    with pytest.raises(ValueError, match=r"\(truth=...\): expected finite values, got 50000"):
        metrics.pit_ensemble(truth[None], truth / 0 * 0)
