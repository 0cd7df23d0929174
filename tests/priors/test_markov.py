r"""Laws of Markov priors and of their exact solver, on a chain whose law is known."""

import math
import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.linalg.sparse import Assembly
from matheron.priors import MarkovPrior
from matheron.testing import check_calibration, check_observation, check_prior, check_solver


class Chain(MarkovPrior):
    r"""An Ornstein-Uhlenbeck process on a line, longer than the domain by some nodes.

    .. math:: u_{k+1} = a u_k + \sqrt{1 - a^2} \, \sigma z_k
    """

    def __init__(self, domain, nodes=40, trend=None, mean=0.0, shift=0.0):
        super().__init__()
        self.domain = domain
        self.line = mt.Grid(x=torch.arange(float(nodes)) * 0.5 + shift)
        self.log_scale = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.log_variance = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self._set_trend(mean, trend)
        k = np.arange(nodes)
        rows, columns = np.concatenate([k, k[1:], k[:-1]]), np.concatenate([k, k[:-1], k[1:]])
        self.assembly = Assembly(rows, columns, (nodes, nodes))

    def precision(self):
        n = len(self.line)
        a = torch.exp(-0.5 / self.log_scale.exp())
        diagonal = torch.cat([torch.ones(1), (1 + a**2).expand(n - 2), torch.ones(1)])
        values = torch.cat([diagonal, (-a).expand(2 * n - 2)])
        return self.assembly(values / (1 - a**2) / self.log_variance.exp())

    def embedding(self, points):
        return mt.PointObservation(self.line, points, noise_std=1.0).matrix()

    def places(self):
        return self.line.points.coords


def narrow():
    return mt.Grid(x=torch.arange(5.0, 15.0, 0.5, dtype=torch.float64))


def data(domain, seed=0, count=12):
    s = 5 + 9 * torch.rand(count, dtype=torch.float64, generator=_generator(seed))
    return mt.PointObservation(domain, mt.Points(x=s), noise_std=0.3, learn_noise=True)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_chain_is_an_exponential_process():
    prior = Chain(narrow())
    s = prior.domain.points
    kernel = mt.Matern(0.5, variance=np.exp(0.3), lengthscale=np.exp(0.7))
    assert_close(prior.covariance(s, s).detach(), kernel(s.coords, s.coords).detach())


@pytest.mark.parametrize("domain", ["narrow", "whole", "points"])
@pytest.mark.parametrize("trend", [None, "1 + x"])
def test_laws_of_the_prior(domain, trend):
    if domain == "points":
        where = mt.Points(x=[3.2, 5.0, 7.7, 14.1])
    else:
        where = narrow() if domain == "narrow" else mt.Grid(x=torch.arange(40.0) * 0.5)
    prior = Chain(where, trend=trend, mean=1.5)
    check_prior(prior)
    # of the marginal law, against the dense one
    x = torch.randn(3, len(where.points), dtype=torch.float64, generator=_generator())
    assert_close(prior.cost(x), super(MarkovPrior, prior).cost(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sampling", ["direct", "matheron"])
@pytest.mark.parametrize("trend", [None, "1", "1 + x"])
def test_laws_of_the_solver(sampling, trend):
    domain = narrow()
    check_solver(mt.SparseCholesky(sampling), Chain(domain, trend=trend, mean=0.7), data(domain))


def test_laws_with_biases():
    domain = narrow()
    first = data(domain)
    second = mt.PointObservation(domain, mt.Points(x=[6.1, 9.0]), noise_std=0.2, bias_std=0.7)
    check_solver(mt.SparseCholesky(), Chain(domain), mt.Stack(first, second))


def test_laws_at_points():
    domain = mt.Points(x=[5.2, 7.7, 9.9, 14.1])
    seen = mt.PointObservation(domain, domain[torch.tensor([0, 2])], noise_std=0.3)
    check_solver(mt.SparseCholesky(), Chain(domain, trend="1"), seen)


def test_calibration():
    domain = narrow()
    points = data(domain).points
    check_calibration(mt.SparseCholesky(), Chain(domain), points, noise_std=0.3)


def footprints(domain):
    H = np.zeros((4, len(domain)))
    for i in range(4):
        H[i, 4 * i : 4 * i + 5] = 0.2
    return sparse.csr_array(H)


def test_a_footprint_is_seen_through_its_matrix():
    domain = narrow()
    prior = Chain(domain, trend="1", mean=0.4)
    R = sparse.block_diag([[[0.2, 0.1], [0.1, 0.3]], [[0.1]], [[0.2]]])
    seen = mt.MatrixObservation(domain, footprints(domain), noise_covariance=R)
    y = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    posterior = mt.SparseCholesky()(prior, seen)(y)
    s = domain.points
    B, H = prior.covariance(s, s).detach(), seen.matrix().to_dense()
    S = H @ B @ H.mT + torch.as_tensor(R.toarray())
    F = H @ prior.design(s)
    V = torch.linalg.inv(F.mT @ torch.linalg.solve(S, F))
    r = y - H @ prior.mean(s)
    beta = V @ F.mT @ torch.linalg.solve(S, r)
    gain = B @ H.mT @ torch.linalg.inv(S)
    mean = prior.mean(s) + prior.design(s) @ beta + gain @ (r - F @ beta)
    rest = prior.design(s) - gain @ F
    P = B - gain @ H @ B + rest @ V @ rest.mT
    assert_close(posterior.mean, mean, rtol=1e-9, atol=1e-9)
    assert_close(posterior.covariance(), P, rtol=1e-9, atol=1e-9)
    evidence = torch.distributions.MultivariateNormal(F @ beta, S).log_prob(r)
    assert_close(posterior.log_evidence, evidence, rtol=1e-9, atol=1e-9)
    check_noise(seen, torch.as_tensor(R.toarray()))


def check_noise(seen, R):
    e = seen.white_noise((20_000,), _generator())
    d = R.diagonal()
    se = ((torch.outer(d, d) + R.square()) / len(e)).sqrt()
    assert ((torch.cov(e.mT) - R).abs() / se).max() < 5
    x = torch.zeros(len(seen.domain), dtype=torch.float64)
    y = seen.sample(x, _generator(1))
    assert_close(seen.cost(x, y), y @ torch.linalg.solve(R, y) / 2)
    assert_close(seen.noise_times(y[:, None])[:, 0], R @ y)
    assert_close(seen.noise_log_precision(), -torch.logdet(R))


def test_matrix_observation_laws():
    domain = narrow()
    check_observation(mt.MatrixObservation(domain, footprints(domain), noise_std=0.3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"noise_std": None}, "expected one of them, got none"),
        ({"noise_covariance": np.eye(4)}, "expected one of them, got both"),
        ({"matrix": np.ones((2, 3))}, r"expected shape \(m, 20\)"),
        ({"matrix": np.full((2, 20), np.nan)}, "expected finite"),
        ({"noise_std": None, "noise_covariance": -np.eye(4)}, "positive definite"),
        ({"noise_std": None, "noise_covariance": np.eye(3)}, r"expected shape \(4, 4\)"),
    ],
)
def test_a_bad_matrix_is_refused(change, said):
    domain = narrow()
    given = {"matrix": footprints(domain), "noise_std": 0.1} | change
    with pytest.raises(ValueError, match=said):
        mt.MatrixObservation(domain, **given)


def test_solvers_that_ask_for_points_say_so():
    domain = narrow()
    seen = mt.MatrixObservation(domain, footprints(domain), noise_std=0.1)
    with pytest.raises(TypeError, match="SparseCholesky"):
        mt.Kriging()(Chain(domain), seen)


def test_data_without_noise_are_refused():
    domain = narrow()
    seen = mt.PointObservation(domain, mt.Points(x=[6.0]), noise_std=0.0)
    with pytest.raises(ValueError, match="noise_std > 0"):
        mt.SparseCholesky()(Chain(domain), seen)


def test_replicates_add_up():
    domain = narrow()
    prior, seen = Chain(domain, trend="1"), data(domain)
    y = torch.randn(3, 12, dtype=torch.float64, generator=_generator())
    solver = mt.SparseCholesky()
    each = torch.stack([solver.likelihood(prior, seen, v).value() for v in y])
    joint = solver.likelihood(prior, seen, y)
    assert_close(joint.value(), each.sum())
    free = [prior.log_scale, prior.log_variance, seen.error.log_scale]
    alone = [solver.likelihood(prior, seen, v).score(free) for v in y]
    score = joint.score(free)
    assert_close(score.gradient, torch.stack([s.gradient for s in alone]).sum(dim=0))
    assert_close(score.information, torch.stack([s.information for s in alone]).sum(dim=0))


def test_average_information_is_the_mean_of_observed_and_expected():
    # over replicates, its mean is the expected information: tr(S^-1 dS S^-1 dS) / 2
    domain = narrow()
    prior, seen = Chain(domain), data(domain)
    free = [prior.log_scale, prior.log_variance, seen.error.log_scale]
    G = prior.embedding(seen.points).to_dense()

    def covariance(*theta):
        for p, v in zip(free, theta, strict=True):
            p.data.copy_(v)
        B = torch.linalg.inv(prior.precision().to_dense())
        return (G @ B @ G.mT + torch.diag(seen.noise_variance)).detach()

    start = [p.detach().clone() for p in free]
    S, h, slopes = covariance(*start), 1e-5, []
    for i in range(3):
        sides = [covariance(*(t + s * h * (i == j) for j, t in enumerate(start))) for s in (1, -1)]
        slopes.append(torch.linalg.solve(S, (sides[0] - sides[1]) / (2 * h)))
    covariance(*start)
    expected = torch.tensor([[(a @ b).trace() / 2 for b in slopes] for a in slopes])
    size = 4000
    L = torch.linalg.cholesky(S)
    y = torch.randn(size, 12, dtype=torch.float64, generator=_generator()) @ L.mT
    average = mt.SparseCholesky().likelihood(prior, seen, y).score(free).information / size
    # y' M y has variance 2 tr (M S)^2 < 2 tr(M S)^2 = 2 I^2 on the diagonal: five standard errors
    d = expected.diagonal()
    assert ((average - expected).abs() < 5 * (2 / size) ** 0.5 * torch.outer(d, d).sqrt()).all()


def test_a_sum_is_the_sum_of_the_covariances():
    domain = narrow()
    other = Chain(domain)
    other.log_scale.data.fill_(2.0)
    both = mt.priors.MarkovSum(Chain(domain), other, trend="1", mean=0.2)
    s = domain.points
    each = Chain(domain).covariance(s, s) + other.covariance(s, s)
    assert_close(both.covariance(s, s), each)
    logdet = torch.logdet(both.precision().to_dense())
    assert_close(both.log_determinant(), logdet)
    check_prior(both)
    check_solver(mt.SparseCholesky(), both, data(domain))
    check_solver(mt.SparseCholesky("matheron"), both, data(domain))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (lambda d: [], "got 0 on 0"),
        (lambda d: [Chain(d), Chain(narrow())], "got 2 on 2"),
        (lambda d: [Chain(d), Chain(d, trend="1")], "got one with"),
    ],
)
def test_a_bad_sum_is_refused(parts, said):
    with pytest.raises(ValueError, match=said):
        mt.priors.MarkovSum(*parts(narrow()))


@pytest.mark.parametrize(
    ("nu", "correlation"),
    [
        (0.5, lambda r: torch.exp(-r)),
        (1.5, lambda r: (1 + 3**0.5 * r) * torch.exp(-(3**0.5) * r)),
        (2.5, lambda r: (1 + 5**0.5 * r + 5 * r**2 / 3) * torch.exp(-(5**0.5) * r)),
        (math.inf, lambda r: torch.exp(-r.square() / 2)),
    ],
)
def test_errors_along_the_track_are_seen_and_not_mapped(nu, correlation):
    domain = narrow()
    s = torch.tensor([5.0, 5.5, 6.1, 9.0, 9.2, 9.9], dtype=torch.float64)
    points, track = mt.Points(x=s), torch.tensor([3, 3, 3, 1, 1, 1])
    error = mt.priors.AlongTrackError(domain, points, track, lengthscale=1.5, std=0.6, nu=nu)
    seen = mt.PointObservation(domain, points, noise_std=0.2)
    y = torch.tensor([1.0, 1.2, 0.8, -0.3, -0.2, 0.5], dtype=torch.float64)
    posterior = mt.SparseCholesky()(mt.priors.MarkovSum(Chain(domain), error), seen)(y)
    tolerance = 1e-9 if nu == 0.5 else 1e-5  # smooth errors hold a millionth of white noise
    # the same by dense algebra, with correlated errors
    alike = (track[:, None] == track) * correlation((s[:, None] - s).abs() / 1.5)
    field, t = Chain(domain), domain.points
    S = (field.covariance(points, points) + 0.36 * alike).detach() + 0.04 * torch.eye(6)
    C = field.covariance(t, points).detach()
    assert_close(posterior.mean, C @ torch.linalg.solve(S, y), rtol=tolerance, atol=tolerance)
    P = field.covariance(t, t).detach() - C @ torch.linalg.solve(S, C.mT)
    assert_close(posterior.covariance(), P, rtol=tolerance, atol=tolerance)
    law = torch.distributions.MultivariateNormal(torch.zeros(6).double(), S)
    assert_close(posterior.log_evidence, law.log_prob(y), rtol=tolerance, atol=tolerance)


def test_errors_along_the_track_have_gradients():
    domain = narrow()
    s = torch.tensor([5.0, 5.5, 6.1, 9.0, 9.2, 9.9], dtype=torch.float64)
    points, track = mt.Points(x=s), torch.tensor([0, 0, 0, 1, 1, 1])
    error = mt.priors.AlongTrackError(domain, points, track, lengthscale=1.5, std=0.6)
    prior = mt.priors.MarkovSum(Chain(domain), error, trend="1")
    seen = mt.PointObservation(domain, points, noise_std=0.2)
    y = torch.sin(s)
    free = list(error.parameters())
    likelihood = mt.SparseCholesky().likelihood(prior, seen, y)
    slopes = torch.autograd.grad(likelihood.value(), free)
    for p, slope in zip(free, slopes, strict=True):
        sides = []
        for step in (1e-5, -1e-5):
            p.data.add_(step)
            sides.append(likelihood.value().item())
            p.data.sub_(step)
        assert abs(slope.item() - (sides[0] - sides[1]) / 2e-5) < 1e-6


def test_bad_errors_along_the_track_are_refused():
    domain = narrow()
    with pytest.raises(ValueError, match="expected positive scales and 20 labels"):
        mt.priors.AlongTrackError(domain, domain.points, torch.zeros(3).long(), 1.0, 0.1)
    every = torch.zeros(20).long()
    for nu in (1.0, 0.0, -0.5, math.nan, 99.5):
        with pytest.raises(ValueError, match=r"AlongTrackError\(nu=...\): expected .5, 1.5"):
            mt.priors.AlongTrackError(domain, domain.points, every, 1.0, 0.1, nu=nu)
