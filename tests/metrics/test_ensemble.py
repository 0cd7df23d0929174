"""Laws of the ensemble scores: brute force, identities, limits, propriety."""

import itertools
import math
import numpy as np
import pytest
import torch

from matheron import metrics
from matheron.metrics import ensemble


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def case(generator):
    """Nine members, a batch of two, thirty points."""
    return draw(generator, 9, 2, 30), draw(generator, 2, 30)


def brute_crps(members, truth, fair):
    size = len(members)
    divisor = size * (size - 1) if fair else size**2
    spread = sum((a - b).abs() for a, b in itertools.product(members, members)) / divisor
    return ((members - truth).abs().mean(0) - spread / 2).mean(-1)


def brute_energy(members, truth, fair, w):
    size = len(members)
    divisor = size * (size - 1) if fair else size**2
    norm = lambda v: (w * v**2).sum(-1).sqrt()
    spread = sum(norm(a - b) for a, b in itertools.product(members, members)) / divisor
    return norm(members - truth).mean(0) - spread / 2


def brute_variogram_score(members, truth, w, p):
    total, norm = 0.0, 0.0
    for i, j in itertools.permutations(range(truth.shape[-1]), 2):
        model = (members[..., i] - members[..., j]).abs().pow(p).mean(0)
        gap = (truth[..., i] - truth[..., j]).abs() ** p - model
        total, norm = total + w[i, j] * gap**2, norm + w[i, j]
    return total / norm


@pytest.mark.parametrize("fair", [True, False])
def test_crps_equals_brute_force(case, fair):
    torch.testing.assert_close(metrics.crps_ensemble(*case, fair=fair), brute_crps(*case, fair))


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_equals_brute_force(case, fair, generator):
    w = torch.rand(30, generator=generator, dtype=torch.float64)
    got = metrics.energy_score(*case, fair=fair, weights=w)
    torch.testing.assert_close(got, brute_energy(*case, fair, w / w.mean()))


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_variogram_score_equals_brute_force(case, p, generator):
    w = torch.rand(30, 30, generator=generator, dtype=torch.float64)
    got = metrics.variogram_score(*case, weights=w, p=p)
    torch.testing.assert_close(got, brute_variogram_score(*case, w, p))


def test_chunks_change_nothing(case, monkeypatch):
    def scores():
        bounds = torch.stack(metrics.ensemble_bounds(case[0], level=0.7))
        return metrics.crps_ensemble(*case), metrics.variogram_score(*case), bounds

    whole = scores()
    monkeypatch.setattr(ensemble, "CHUNK", 100)
    for a, b in zip(whole, scores(), strict=True):
        torch.testing.assert_close(a, b)


def test_crps_is_the_integral_of_the_brier_score(case):
    # exact: the empirical distribution is constant between the sorted members and the truth
    members, truth = (x[..., 0, :1].reshape(-1).numpy() for x in case)
    knots = np.sort(np.concatenate([members, truth]))
    middle = (knots[1:] + knots[:-1]) / 2
    cdf = (members[:, None] <= middle).mean(axis=0)
    brier = (cdf - (truth[0] <= middle)) ** 2
    got = metrics.crps_ensemble(case[0][:, 0, :1], case[1][0, :1], fair=False).item()
    assert got == pytest.approx((brier * np.diff(knots)).sum(), rel=1e-12)


def test_one_member_scores_its_absolute_error(case):
    members, truth = case
    got = metrics.crps_ensemble(members[:1], truth, fair=False)
    torch.testing.assert_close(got, metrics.mae(members[0], truth))
    got = metrics.energy_score(members[:1], truth, fair=False)
    torch.testing.assert_close(got, (members[0] - truth).norm(dim=-1))
    for score in (metrics.crps_ensemble, metrics.energy_score):
        with pytest.raises(ValueError, match=r"at least 2 members, got 1\. Draw more"):
            score(members[:1], truth)


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_of_one_point_is_the_crps(case, fair):
    members, truth = case[0][..., :1], case[1][..., :1]
    torch.testing.assert_close(
        metrics.energy_score(members, truth, fair=fair),
        metrics.crps_ensemble(members, truth, fair=fair),
    )


@pytest.mark.parametrize("fair", [True, False])
def test_gaussian_crps_is_the_limit_of_the_ensemble(generator, fair):
    n, size = 4000, 200
    mean, std = draw(generator, n, 1), draw(generator, n, 1).exp()
    truth = mean + 1.3 * std * draw(generator, n, 1)
    members = mean + std * draw(generator, size, n, 1)
    gap = metrics.crps_ensemble(members, truth, fair=fair)
    gap = gap - metrics.crps_gaussian(mean, std, truth)
    # the biased score is too high by E|x - x'| / (2 S) = std / (sqrt(pi) S)
    bias = 0.0 if fair else (std.mean() / math.sqrt(math.pi) / size).item()
    assert abs(gap.mean().item() - bias) < 5 * gap.std().item() / math.sqrt(n)


def test_fair_crps_does_not_depend_on_the_size(generator):
    # E CRPS of N(0, 1) against itself is 1 / sqrt(pi)
    n = 100_000
    truth = draw(generator, n)
    for size in (2, 5, 20):
        members = draw(generator, size, n)
        each = metrics.crps_ensemble(members[..., None], truth[:, None])
        error = (each.std() / math.sqrt(n)).item()
        assert abs(each.mean().item() - 1 / math.sqrt(math.pi)) < 5 * error


def correlated(generator, rho, *shape):
    common, own = draw(generator, *shape[:-1], 1), draw(generator, *shape)
    return math.sqrt(rho) * common + math.sqrt(1 - rho) * own


@pytest.mark.parametrize("score", [metrics.energy_score, metrics.variogram_score])
def test_joint_scores_are_proper(generator, score):
    """Members with the right marginals and the wrong correlation lose, and so on."""
    cases, size, n = 4000, 20, 12
    truth = correlated(generator, 0.7, cases, n)
    good = score(correlated(generator, 0.7, size, cases, n), truth)
    uncorrelated = correlated(generator, 0.0, size, cases, n)
    narrow = 0.5 * correlated(generator, 0.7, size, cases, n)
    wide = 2.0 * correlated(generator, 0.7, size, cases, n)
    for wrong in (uncorrelated, narrow, wide):
        gap = score(wrong, truth) - good
        assert gap.mean() > 5 * gap.std() / math.sqrt(cases)


def test_variogram_score_sees_correlation_and_not_bias(case):
    members, truth = case
    score = metrics.variogram_score
    torch.testing.assert_close(score(members + 7.0, truth), score(members, truth))
    exact = truth.expand(5, *truth.shape)
    assert score(exact, truth).abs().max() < 1e-24


@pytest.mark.parametrize(
    "score", [metrics.crps_ensemble, metrics.energy_score, metrics.variogram_score]
)
def test_order_of_members_and_of_points_and_weights_of_one(case, score, generator):
    members, truth = case
    plain = score(members, truth)
    assert plain.shape == (2,)
    p, q = torch.randperm(9, generator=generator), torch.randperm(30, generator=generator)
    torch.testing.assert_close(score(members[p][..., q], truth[..., q]), plain)
    ones = torch.ones(30, 30) if score is metrics.variogram_score else torch.ones(30)
    torch.testing.assert_close(score(members, truth, weights=2 * ones.double()), plain)


def test_bounds_cover_exactly_where_the_rank_is_whole(generator):
    n = 100_000
    truth = draw(generator, n)
    for size, level in [(19, 0.9), (3, 0.5), (7, 0.75), (39, 0.95), (7, 0.6), (10, 0.8)]:
        got = metrics.coverage_bounds(
            *metrics.ensemble_bounds(draw(generator, size, n), level), truth
        )
        rank = (size + 1) * (1 - level) / 2
        # elsewhere, between the levels of the two nearest whole ranks
        least, most = (
            1 - 2 * k / (size + 1) for k in (math.ceil(rank - 1e-9), math.floor(rank + 1e-9))
        )
        error = 5 * math.sqrt(0.25 / n)
        assert least - error < got.item() < most + error


def test_bounds_equal_numpy_weibull_quantiles(case):
    lower, upper = metrics.ensemble_bounds(case[0], level=0.75)
    expected = np.quantile(case[0].numpy(), [0.125, 0.875], axis=0, method="weibull")
    torch.testing.assert_close(torch.stack([lower, upper]), torch.as_tensor(expected))
    with pytest.raises(ValueError, match=r"at least 39 members, got 9\. Draw more, or lower"):
        metrics.ensemble_bounds(case[0])


def test_moments_give_the_error_of_a_new_draw(generator):
    # E (new - mean)^2 = E std^2 = sigma^2 (1 + 1 / S)
    n, size = 200_000, 3
    members, new = draw(generator, size, n), draw(generator, n)
    mean, std = metrics.ensemble_moments(members)
    gap = (new - mean) ** 2 - std**2
    assert abs(gap.mean()) < 5 * gap.std() / math.sqrt(n)
    assert abs((std**2).mean() - 4 / 3) < 5 * (std**2).std() / math.sqrt(n)


def test_bad_input_is_refused(case):
    members, truth = case
    holes = members.clone()
    holes[0, 0, 0] = torch.nan
    for score in (metrics.crps_ensemble, metrics.energy_score, metrics.variogram_score):
        with pytest.raises(ValueError, match=r"\(members=...\): expected finite values, got 1"):
            score(holes, truth)
    with pytest.raises(ValueError, match="positive order"):
        metrics.variogram_score(members, truth, p=0.0)
    with pytest.raises(ValueError, match="positive total weight"):
        metrics.variogram_score(members[..., :1], truth[..., :1])
