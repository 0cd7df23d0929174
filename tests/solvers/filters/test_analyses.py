"""Laws of one analysis, with Kalman's equations written out as the oracle."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.solvers.filters import (
    Departures,
    EnsembleAnalysis,
    Localization,
    deterministic_weights,
    effective_size,
    finite_size_inflation,
    gaspari_cohn,
    gauss_newton,
    jittered,
    perturbed_weights,
    random_rotation,
    resampled,
    reweighted,
    symmetric_weights,
    whitened,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=generator(seed))


def kalman(E, H, y, R):
    """Returns Kalman's mean and covariance, from those of the ensemble."""
    x, P = E.mean(dim=0), torch.cov(E.mT)
    K = torch.linalg.solve(H @ P @ H.mT + R, H @ P).mT
    return x + K @ (y - H @ x), P - K @ H @ P, K, P


@pytest.fixture(params=[(6, 4, 3), (30, 5, 7), (8, 12, 20)], ids=["few", "many", "low-rank"])
def problem(request):
    N, n, m = request.param
    E, H, y = normal(N, n), normal(m, n, seed=1), normal(m, seed=2)
    return E, H, y, 0.3 + normal(m, seed=3).square()


def test_symmetric_root_is_kalman(problem):
    E, H, y, R = problem
    Ea = reweighted(E, symmetric_weights(whitened(E @ H.mT, y, R)))
    mean, P, _, _ = kalman(E, H, y, torch.diag(R))
    assert_close(Ea.mean(dim=0), mean, rtol=1e-10, atol=1e-10)
    assert_close(torch.cov(Ea.mT), P, rtol=1e-10, atol=1e-10)


def test_correlated_noise_is_kalman(problem):
    E, H, y, R = problem
    L = torch.linalg.cholesky(torch.eye(len(R)).double() + 0.5)
    R = L @ torch.diag(R) @ L.mT
    Ea = reweighted(E, symmetric_weights(whitened(E @ H.mT, y, R)))
    mean, P, _, _ = kalman(E, H, y, R)
    assert_close(Ea.mean(dim=0), mean, rtol=1e-10, atol=1e-10)
    assert_close(torch.cov(Ea.mT), P, rtol=1e-10, atol=1e-10)


def test_deterministic_filter_is_half_the_gain(problem):
    E, H, y, R = problem
    Ea = reweighted(E, deterministic_weights(whitened(E @ H.mT, y, R)))
    mean, _, K, P = kalman(E, H, y, torch.diag(R))
    half = torch.eye(len(P)).double() - K @ H / 2
    assert_close(Ea.mean(dim=0), mean, rtol=1e-10, atol=1e-10)
    assert_close(torch.cov(Ea.mT), half @ P @ half.mT, rtol=1e-10, atol=1e-10)


def test_perturbed_observations_are_kalman_on_average():
    E, H, y = normal(12, 3), normal(2, 3, seed=1), normal(2, seed=2)
    R = torch.tensor([0.5, 2.0]).double()
    mean, P, _, _ = kalman(E, H, y, torch.diag(R))
    draws = 3000
    seen = whitened(E @ H.mT, y, R)
    many = Departures(
        seen.anomalies.expand(draws, -1, -1).clone(), seen.innovation.expand(draws, -1)
    )
    Ea = reweighted(E.expand(draws, -1, -1), perturbed_weights(many, generator(3)))
    assert_close(Ea.mean(dim=1), mean.expand(draws, -1), rtol=1e-10, atol=1e-10)
    A = Ea - mean
    covariances = A.mT @ A / (len(E) - 1)
    # unbiased: five standard errors of the mean over the draws
    error = covariances.std(dim=0) / math.sqrt(draws)
    assert ((covariances.mean(dim=0) - P).abs() < 5 * error).all()


def test_rotations_keep_mean_and_covariance():
    E, R = normal(9, 5), random_rotation(9, generator(1), (3,))
    assert_close(R @ R.mT, torch.eye(9).double().expand(3, -1, -1), rtol=0, atol=1e-12)
    turned = reweighted(E.expand(3, -1, -1), R)
    assert_close(turned.mean(dim=1), E.mean(dim=0).expand(3, -1))
    for F in turned:
        assert_close(torch.cov(F.mT), torch.cov(E.mT))
        assert (F - E).abs().max() > 0.1


def test_rotations_are_uniform():
    # E[R_ij] = 1/N and, for the uniform law on what is orthogonal to ones, Var[R_ij] equals
    # (1 - 1/N)^2 / (N - 1)
    N, draws = 4, 4000
    R = random_rotation(N, generator(), (draws,))
    variance = (1 - 1 / N) ** 2 / (N - 1)
    assert ((R.mean(dim=0) - 1 / N).abs() < 5 * math.sqrt(variance / draws)).all()
    square = (R - 1 / N).square()
    assert ((square.mean(dim=0) - variance).abs() < 5 * square.std(dim=0) / draws**0.5).all()


@pytest.mark.parametrize("method", ["etkf", "perturbed", "denkf"])
def test_inflation_multiplies_the_anomalies(method):
    E, y, R = normal(9, 5), normal(5, seed=1), torch.ones(5).double()
    plain = EnsembleAnalysis(method)(E, E, y, R, generator())
    inflated = EnsembleAnalysis(method, inflation=1.3)(E, E, y, R, generator())
    assert_close(inflated.mean(dim=0), plain.mean(dim=0))
    assert_close(torch.cov(inflated.mT), 1.69 * torch.cov(plain.mT))


def test_infinite_radius_is_the_global_analysis():
    E, y, R = normal(2, 7, 10), normal(2, 6, seed=1), 0.2 + normal(6, seed=2).square()
    places, seen = normal(10, 2, seed=3), normal(6, 2, seed=4)
    local = Localization(math.inf)
    analysis = EnsembleAnalysis("letkf", rotation=True, localization=local)
    coefficients = local.coefficients(places, seen)
    a = analysis(E, E[..., :6], y, R, generator(), coefficients)
    b = EnsembleAnalysis("etkf", rotation=True)(E, E[..., :6], y, R, generator())
    assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_local_analysis_is_node_by_node():
    E, y, R = normal(7, 12), normal(12, seed=1), 0.2 + normal(12, seed=2).square()
    places = torch.arange(12.0).double()[:, None]
    local = Localization(1.5, period=12.0)
    C = local.coefficients(places, places)
    Ea = EnsembleAnalysis("letkf", localization=local)(E, E, y, R, None, C)
    for i in range(12):
        near = C[i] > 0
        assert near.sum() < 12
        weights = symmetric_weights(whitened(E[:, near], y[near], R[near] / C[i, near]))
        assert_close(Ea[:, i], reweighted(E, weights)[:, i])


def test_far_data_change_nothing():
    E, y, R = normal(7, 12), normal(1, seed=1), torch.ones(1).double()
    places = torch.arange(12.0).double()[:, None]
    local = Localization(1.0)
    analysis = EnsembleAnalysis("letkf", localization=local)
    Ea = analysis(E, E[:, :1], y, R, None, local.coefficients(places, places[:1]))
    assert_close(Ea[:, 4:], E[:, 4:])
    assert (Ea[:, 0] - E[:, 0]).abs().max() > 0.1


def test_gaspari_cohn_is_compact_smooth_and_positive_definite():
    r = torch.linspace(0, 3, 3001).double()
    C = gaspari_cohn(r)
    assert (C[r >= 2] == 0).all()
    assert (C.diff() <= 1e-12).all()
    assert C.diff(n=2).abs().max() < 2e-5  # 10/3 times the square of the step: no kink
    for d in (1, 2, 3):
        x = 3 * normal(150, d, seed=d)
        assert torch.linalg.eigvalsh(gaspari_cohn(torch.cdist(x, x))).min() > -1e-10


def test_gaspari_cohn_is_a_triangle_convolved_with_itself_in_space():
    # C(r) is proportional to the integral of B(|x|) B(|x - r|) over space, B(r) = (1 - r)+ of
    # half the support: by quadrature on a lattice, to its accuracy
    step = 1 / 24
    axis = torch.arange(-1.5 + step / 2, 1.5, step).double()
    z, y, x = torch.meshgrid(axis, axis[axis.abs() < 0.5], axis[axis.abs() < 0.5], indexing="ij")
    hat = lambda shift: (1 - 2 * ((z - shift) ** 2 + y**2 + x**2).sqrt()).clamp(min=0)
    total = (hat(0.0) ** 2).sum()
    for shift in (0.25, 0.5, 0.75):
        expected = (hat(0.0) * hat(shift)).sum() / total
        assert abs(gaspari_cohn(torch.tensor(2 * shift)) - expected) < 2e-3


def test_period_wraps_distances():
    a = torch.tensor([[0.5], [39.5]]).double()
    assert_close(Localization(1.0, 40.0).distance(a, a)[0, 1], torch.tensor(1.0).double())
    assert_close(Localization(1.0).distance(a, a)[0, 1], torch.tensor(39.0).double())


def test_order_of_the_data_does_not_matter(problem):
    E, H, y, R = problem
    order = torch.randperm(len(y), generator=generator())
    for method in ("etkf", "denkf"):
        analysis = EnsembleAnalysis(method, "adaptive")
        a = analysis(E, E @ H.mT, y, R)
        b = analysis(E, (E @ H.mT)[:, order], y[order], R[order])
        assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_no_data_change_nothing():
    E, none = normal(5, 4), torch.zeros(0).double()
    Ea = EnsembleAnalysis("etkf", inflation=1.0, rotation=True)(E, E[:, :0], none, none)
    assert torch.equal(Ea, E)


def test_same_generator_same_analysis():
    E, y, R = normal(9, 5), normal(5, seed=1), torch.ones(5).double()
    analysis = EnsembleAnalysis("perturbed", rotation=True)
    a, b, c = (analysis(E, E, y, R, generator(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_adaptive_inflation_minimises_its_cost():
    S, d = normal(6, 3), 3 * normal(3, seed=1)
    S = S - S.mean(dim=0)
    found = finite_size_inflation(Departures(S, d)).item()
    N, eigenvalues = 6, torch.linalg.eigvalsh(S.mT @ S)
    certainty = ((1 / (1 + eigenvalues)).sum() + N - 3) / N
    epsilon, c = (N + 1) / N, N / (N - 1)
    correction = (epsilon / c) ** (certainty / 2)

    def cost(factor):
        fit = d @ torch.linalg.solve(torch.eye(3).double() + factor**2 * S.mT @ S, d)
        prior = epsilon / correction / factor**2 + c * correction * math.log(factor**2)
        return (fit + (N - 1) * prior).item()

    around = [cost(found * (1 + h)) for h in (-1e-3, 0.0, 1e-3)]
    assert around[1] == min(around)
    grid = [cost(f) for f in torch.linspace(0.2, 8, 400).tolist()]
    assert around[1] <= min(grid)


def test_adaptive_inflation_grows_with_surprise():
    S = normal(10, 4)
    S = S - S.mean(dim=0)
    d = normal(4, seed=1)
    factors = [finite_size_inflation(Departures(S, k * d)).item() for k in (0.1, 3.0, 10.0)]
    assert factors == sorted(factors)
    assert 0.8 < factors[0] < 1.1 < factors[2]


def test_gauss_newton_is_kalman_where_all_is_linear(problem):
    E, H, y, R = problem
    Ea, change = gauss_newton(E, lambda x: x @ H.mT, y, R)
    mean, P, _, _ = kalman(E, H, y, torch.diag(R))
    assert change < 1e-9
    assert_close(Ea.mean(dim=0), mean, rtol=1e-9, atol=1e-9)
    assert_close(torch.cov(Ea.mT), P, rtol=1e-9, atol=1e-9)


def test_gauss_newton_finds_the_minimum():
    # one unknown, two members a small step apart in weight space: h is locally its tangent
    E = torch.tensor([[1.0 - 1e-4], [1.0 + 1e-4]]).double()
    y, R = torch.tensor([1.3]).double(), torch.tensor([1e-10]).double()
    Ea, _ = gauss_newton(E, lambda x: x**3, y, R, iterations=50, tolerance=1e-10)
    x = torch.linspace(1.0, 1.1, 200_001).double()
    B = E.var()
    cost = (x - 1) ** 2 / B + (x**3 - y) ** 2 / R
    assert abs(Ea.mean() - x[cost.argmin()]) < 2e-6


def test_resampling_is_unbiased_and_keeps_whole_shares():
    w = torch.tensor([0.5, 0.05, 0.2, 0.25]).double()
    draws = 4000
    parents = resampled(w.log().expand(draws, -1), generator())
    counts = torch.nn.functional.one_hot(parents, 4).sum(dim=1).double()
    assert ((counts - 4 * w).abs() < 1).all()
    error = counts.std(dim=0) / draws**0.5
    assert ((counts.mean(dim=0) - 4 * w).abs() <= 5 * error + 1e-12).all()


def test_effective_size_counts_equal_weights():
    weights = torch.tensor([0.0, 0.0, -1e9, -1e9]).double()
    assert_close(effective_size(weights), torch.tensor(2.0).double())


def test_jitter_has_the_covariance_of_its_kernel():
    N, n = 20_000, 3
    B = torch.cov(normal(10, n).mT)
    moves = jittered(torch.zeros(N, n).double(), B, 1.5, generator())
    S = (1.5 * N ** (-1 / (n + 4))) ** 2 * B
    error = ((S.square() + torch.outer(S.diagonal(), S.diagonal())) / N).sqrt()
    assert ((torch.cov(moves.mT) - S).abs() < 5 * error).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EnsembleAnalysis("enkf"), r"method=...\): expected one of"),
        (lambda: EnsembleAnalysis(inflation="auto"), "a number or 'adaptive'"),
        (lambda: EnsembleAnalysis(inflation=0.0), "a positive factor"),
        (lambda: EnsembleAnalysis("letkf"), "one for 'letkf'"),
        (lambda: EnsembleAnalysis("etkf", localization=Localization(1.0)), "no other method"),
        (lambda: Localization(-1.0), "a positive number"),
        (lambda: Localization(1.0, period=0.0), "a positive number"),
        (lambda: whitened(normal(1, 3), normal(3), torch.ones(3).double()), "two members"),
        (lambda: whitened(normal(4, 3), normal(3), torch.zeros(3).double()), "positive variances"),
        (
            lambda: whitened(normal(4, 3) / 0, normal(3), torch.ones(3).double()),
            "a finite ensemble",
        ),
    ],
)
def test_errors_say_the_cure(call, words):
    with pytest.raises(ValueError, match=words):
        call()
