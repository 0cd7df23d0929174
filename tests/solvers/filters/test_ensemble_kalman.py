"""Laws of the ensemble solvers, with the dense Gaussian law of whole trajectories as oracle."""

import math
import pytest
import scipy.sparse as sparse
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.dynamics import Dynamics, Lorenz63
from matheron.observations.nonlinear import NonlinearObservation
from matheron.priors.dynamics import StrongConstraint, WeakConstraint
from matheron.solvers.ensemble_kalman import EnsembleKalman, IterativeEnsembleKalman
from matheron.solvers.filters import Localization
from matheron.solvers.particle_filter import ParticleFilter

TIMES, STATES = 5, 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=generator(seed))


class Linear(Dynamics):
    """x_{k + 1} = M x_k, a rotation that decays."""

    def __init__(self):
        super().__init__()
        self.dt, self.shape = 1.0, (STATES,)
        self.M = 0.95 * torch.linalg.qr(normal(STATES, STATES, seed=9))[0]

    def advance(self, state):
        return state @ self.M.mT


class Exact(StrongConstraint):
    """A prior whose samples of the first state have exactly its mean and covariance."""

    def initial_sample(self, size, generator=None):
        z = torch.randn(size, self.states, dtype=torch.float64, generator=generator)
        z = z - z.mean(dim=0)
        L = torch.linalg.cholesky(torch.cov(z.mT))
        return self.mean + self.background.times(
            torch.linalg.solve_triangular(L, z.mT, upper=False).mT
        )


GRID = mt.Grid(time=torch.arange(float(TIMES)), x=torch.arange(float(STATES)))
START = (normal(STATES, seed=1), torch.cov(normal(9, STATES, seed=2).mT))


def strong(kind=Exact):
    return kind(GRID, Linear(), 1, START)


def weak():
    Q = 0.2 * torch.cov(normal(9, STATES, seed=3).mT)
    return WeakConstraint(GRID, Linear(), 1, START, Q)


def moments(prior):
    """Returns mean and covariance of trajectories: x = D(v) is affine in its white control."""
    zero = torch.zeros(prior.control_size, dtype=torch.float64)
    mean = prior.decode(zero)
    D = prior.decode(torch.eye(prior.control_size, dtype=torch.float64)) - mean
    return mean, D.mT @ D


def conditioned(prior, observation, y, R=None):
    mean, B = moments(prior)
    H = observation.matrix().to_dense()
    R = torch.diag(observation.noise_variance) if R is None else R
    K = torch.linalg.solve(H @ B @ H.mT + R, H @ B).mT
    return mean + K @ (y - H @ mean), B - K @ H @ B


def at(times, places, noise_std=0.7):
    points = mt.Points(time=torch.tensor(times), x=torch.tensor(places))
    return mt.PointObservation(GRID, points, noise_std)


SEEN = {
    "points": lambda: at([1.0, 1.0, 3.0, 4.0], [0.0, 2.5, 1.0, 3.0]),
    "between times": lambda: at([0.5, 1.0, 2.25, 3.5], [0.0, 2.5, 1.0, 3.0]),
    "first time": lambda: at([0.0, 0.0, 0.0], [0.0, 1.0, 3.0]),
    "mask": lambda: mt.GriddedObservation(GRID, normal(20, seed=4) > 0.3, 0.7),
    "matrix": lambda: mt.MatrixObservation(
        GRID, sparse.csr_array(normal(3, 20, seed=5).numpy()), noise_std=0.7
    ),
}


def data(observation, seed=6):
    y = normal(observation.size, seed=seed)
    return y, observation.select(y)


@pytest.mark.parametrize("name", SEEN)
def test_smoother_is_exact_where_the_ensemble_is(name):
    prior, seen = strong(), SEEN[name]()
    y, values = data(seen)
    mean, P = conditioned(prior, seen, values)
    for solver in (
        EnsembleKalman(STATES + 3),
        EnsembleKalman(40, rotation=True),
        IterativeEnsembleKalman(STATES + 3),
    ):
        posterior = solver(prior, seen)(y)
        assert_close(posterior.mean, mean, rtol=1e-8, atol=1e-8)
        assert_close(posterior.std(), P.diagonal().clamp(min=0).sqrt(), rtol=1e-6, atol=1e-8)
        E = posterior.sample(solver.size, generator())
        assert_close(torch.cov(E.mT), P, rtol=1e-8, atol=1e-8)


def test_correlated_noise_is_exact():
    prior = strong()
    R = sparse.block_diag([[[1.0, 0.6], [0.6, 0.5]], [[0.4]]]).tocsr()
    H = sparse.csr_array(([1.0, 1.0, 1.0], ([0, 1, 2], [5, 6, 12])), shape=(3, 20))
    seen = mt.MatrixObservation(GRID, H, noise_covariance=R)
    y = normal(3, seed=6)
    mean, P = conditioned(prior, seen, y, torch.as_tensor(R.toarray()))
    posterior = EnsembleKalman(12)(prior, seen)(y)
    assert_close(posterior.mean, mean, rtol=1e-8, atol=1e-8)
    assert_close(posterior.std(), P.diagonal().sqrt(), rtol=1e-8, atol=1e-8)


def test_filter_conditions_each_time_on_its_past():
    prior, seen = strong(), SEEN["points"]()
    y, _ = data(seen)
    posterior = EnsembleKalman(12, lag=0)(prior, seen)(y)
    time = seen.points.axis("time")
    for k in range(TIMES):
        known = time <= k
        here = slice(k * STATES, (k + 1) * STATES)
        if known.any():
            mean, P = conditioned(prior, seen.take(known), y[known])
        else:
            mean, P = moments(prior)
        assert_close(posterior.mean[here], mean[here], rtol=1e-8, atol=1e-8)
        std = P.diagonal()[here].sqrt()
        assert_close(posterior.std()[here], std, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [EnsembleKalman, IterativeEnsembleKalman])
def test_lag_is_how_far_back_data_reach(make):
    # data at 1 and 4, lag 2: the states at 0 and 1 know the first only, those from 2 on both
    prior, seen = strong(), at([1.0, 4.0], [0.0, 2.0])
    y = torch.tensor([1.0, -1.0]).double()
    posterior = make(12, lag=2)(prior, seen)(y)
    for k in range(TIMES):
        known = torch.tensor([True, k >= 2])
        here = slice(k * STATES, (k + 1) * STATES)
        mean, P = conditioned(prior, seen.take(known), y[known])
        assert_close(posterior.mean[here], mean[here], rtol=1e-8, atol=1e-8)
        assert_close(posterior.std()[here], P.diagonal()[here].sqrt(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", ["etkf", "perturbed"])
def test_smoother_tends_to_the_gaussian_law(method):
    prior, seen = weak(), SEEN["points"]()
    y, values = data(seen)
    mean, P = conditioned(prior, seen, values)
    B = moments(prior)[1]
    N = 2000
    posterior = EnsembleKalman(N, method)(prior, seen)(y)
    E = posterior.conditional.ensemble(y)
    # errors of the mean and of the gain are those of N draws of the prior, or less
    std = B.diagonal().sqrt()
    assert ((posterior.mean - mean).abs() < 5 * std / math.sqrt(N)).all()
    error = ((torch.outer(B.diagonal(), B.diagonal()) + B.square()) / N).sqrt()
    assert ((torch.cov(E.mT) - P).abs() < 5 * error).all()
    # and they are far smaller than what the data changed
    assert (moments(prior)[0] - mean).abs().max() > 20 * (std / math.sqrt(N)).max() / 5


def test_particles_tend_to_the_gaussian_law():
    prior, seen = weak(), SEEN["points"]()
    y, values = data(seen)
    mean, P = conditioned(prior, seen, values)
    conditional = ParticleFilter(1000)(prior, seen)
    runs = torch.stack([conditional.sample(y, 1000, generator(s)) for s in range(40)])
    means, variances = runs.mean(dim=1), runs.var(dim=1)
    # five standard errors, from the spread of the runs; the bias is of the order of 1 / N
    for found, expected in ((means, mean), (variances, P.diagonal())):
        error = found.std(dim=0) / math.sqrt(len(runs))
        assert ((found.mean(dim=0) - expected).abs() < 5 * error + 5 / 1000).all()


def test_particles_say_how_few_are_left():
    prior, seen = weak(), SEEN["points"]()
    info = ParticleFilter(500)(prior, seen)(data(seen)[0]).info
    assert 1 <= info["least_effective_size"] < 500


def test_iterated_members_are_trajectories():
    grid = mt.Grid(time=torch.arange(6.0), x=torch.arange(3.0))
    start = torch.tensor([1.5, -1.5, 25.0]).double(), torch.full((3,), 4.0).double()
    prior = StrongConstraint(grid, Lorenz63(), 8, start)
    points = mt.Points(time=[1.0, 3.0, 5.0], x=[0.0, 0.0, 0.0])
    seen = mt.PointObservation(grid, points, 0.5)
    truth = prior.sample(1, generator(1))[0]
    y = seen.sample(truth, generator(2))
    posterior = IterativeEnsembleKalman(20)(prior, seen)(y)
    E = prior.unfold(posterior.sample(5, generator()))
    assert_close(prior.advance(E[:, :-1]), E[:, 1:])
    assert posterior.info["converged"]
    assert (posterior.mean - truth).square().mean() < 0.5 * prior.sample(500).var(dim=0).mean()


def test_a_function_of_the_state_is_seen_as_a_matrix_is():
    prior, times = strong(), torch.tensor([1, 3])
    seen = at([1.0, 1.0, 3.0, 3.0], [0.0, 2.0, 0.0, 2.0])
    function = NonlinearObservation(GRID, lambda x: x[..., [0, 2]], 0.7, times=times)
    y = normal(4, seed=6)
    for solver in (EnsembleKalman(8), IterativeEnsembleKalman(8), ParticleFilter(50)):
        a, b = (solver(prior, o)(y).mean for o in (seen, function))
        assert_close(a, b)


def test_infinite_radius_is_no_localisation():
    prior, seen = strong(), SEEN["between times"]()
    y, _ = data(seen)
    a = EnsembleKalman(8)(prior, seen)(y)
    b = EnsembleKalman(8, "letkf", localization=Localization(math.inf))(prior, seen)(y)
    assert_close(a.mean, b.mean, rtol=1e-8, atol=1e-8)
    assert_close(a.std(), b.std(), rtol=1e-8, atol=1e-8)


def test_localisation_keeps_far_nodes():
    prior, seen = strong(), at([2.0], [0.0])
    y = torch.tensor([3.0]).double()
    posterior = EnsembleKalman(8, "letkf", localization=Localization(0.5))(prior, seen)(y)
    free = EnsembleKalman(8, lag=0)(prior, at([2.0], [0.0], 1e6))(y)
    change = (posterior.mean - free.mean).reshape(TIMES, STATES)[:3].abs()
    assert (change[:, 2:] < 1e-6).all()
    assert (change[:, 0] > 1e-3).all()


def test_places_of_data_are_those_of_their_points():
    grid = mt.Grid(time=[0.0, 1.0], lat=[40.0, 41.0, 42.0], lon=[0.0, 1.0, 2.0])
    points = mt.Points(time=[1.0, 0.5], lat=[40.0, 42.0], lon=[2.0, 1.0])
    prior = StrongConstraint(grid, Plain(), 1, (torch.zeros(9).double(), torch.ones(9).double()))
    solver = EnsembleKalman(5, "letkf", localization=Localization(1e5))
    arrivals = solver(prior, mt.PointObservation(grid, points, 0.1)).arrivals
    assert [len(i) for i in arrivals.index] == [0, 2]
    expected = mt.Points(lat=[40.0, 42.0], lon=[2.0, 1.0]).cartesian()
    assert_close(arrivals.seen_places(1), expected, rtol=0, atol=1e-3)
    assert_close(arrivals.places()[2], expected[0])


class Plain(Dynamics):
    """Nothing moves, on a grid of nine nodes."""

    def __init__(self):
        super().__init__()
        self.dt, self.shape = 1.0, (3, 3)

    def advance(self, state):
        return state


@pytest.mark.parametrize(
    "solver",
    [EnsembleKalman(9, "perturbed", rotation=True), ParticleFilter(9, jitter=0.1)],
    ids=["kalman", "particles"],
)
def test_draws_are_those_of_the_generator(solver):
    prior, seen = weak(), SEEN["points"]()
    y, _ = data(seen)
    posterior = solver(prior, seen)(y)
    a, b, c = (posterior.sample(20, generator(s)) for s in (1, 1, 2))
    assert a.shape == (20, len(GRID))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    again = solver(prior, seen)(y)
    assert torch.equal(posterior.mean, again.mean)
    assert torch.equal(posterior.std(), again.std())
    assert posterior.info["size"] == 9
    assert abs(posterior.info["spread"] - posterior.std().square().mean().sqrt().item()) < 1e-12


def test_order_of_the_data_does_not_matter():
    prior, seen = weak(), SEEN["points"]()
    y, _ = data(seen)
    order = torch.tensor([3, 1, 0, 2])
    a = EnsembleKalman(9)(prior, seen)(y).mean
    b = EnsembleKalman(9)(prior, seen.take(order))(y[order]).mean
    assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_data_without_weight_change_nothing():
    prior, seen = weak(), at([1.0, 3.0], [0.0, 1.0], 1e7)
    E = EnsembleKalman(9)(prior, seen)(torch.ones(2).double()).conditional.ensemble(
        torch.ones(2).double()
    )
    assert_close(E, prior.sample(9, generator(0)), rtol=1e-6, atol=1e-6)


def test_inflation_widens_and_adapts():
    prior, seen = weak(), SEEN["points"]()
    y, _ = data(seen)
    plain, wide, adaptive = (
        EnsembleKalman(9, inflation=i)(prior, seen)(y).info["spread"]
        for i in (1.0, 1.2, "adaptive")
    )
    assert wide > plain
    assert adaptive != plain


def test_a_posterior_stays_when_the_model_changes():
    prior, seen = strong(), SEEN["points"]()
    y, _ = data(seen)
    posterior = EnsembleKalman(9)(prior, seen)(y)
    before = posterior.mean.clone()
    prior.model.M.mul_(0.5)
    assert torch.equal(posterior.sample(9, generator(0)).mean(dim=0), before)


def correlated():
    H = sparse.csr_array(([1.0, 1.0], ([0, 1], [0, 10])), shape=(2, 20))
    R = sparse.csr_array([[1.0, 0.5], [0.5, 1.0]])
    return mt.MatrixObservation(GRID, H, noise_covariance=R)


def elsewhere():
    other = mt.Grid(time=[0.0, 1.0], x=[0.0, 1.0])
    return mt.GriddedObservation(other, torch.ones(4).bool(), 0.1)


def biased():
    return mt.PointObservation(GRID, at([1.0], [0.0]).points, 0.1, bias_std=1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EnsembleKalman(1)(weak(), at([1.0], [0.0])), "two members or more"),
        (lambda: EnsembleKalman(5, lag=-1), "expected zero or more"),
        (lambda: IterativeEnsembleKalman(5)(weak(), at([1.0], [0.0])), "perfect model"),
        (lambda: IterativeEnsembleKalman(5, lag=0), "expected one or more"),
        (lambda: ParticleFilter(5, threshold=2.0), "threshold"),
        (lambda: EnsembleKalman(5)(weak(), biased()), "without biases"),
        (lambda: EnsembleKalman(5)(weak(), elsewhere()), "nodes of the prior"),
        (lambda: EnsembleKalman(5)(weak(), correlated()), "independent from time to"),
    ],
)
def test_errors_say_the_cure(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_does_not_converge_is_an_error():
    seen = SEEN["points"]()
    posterior = IterativeEnsembleKalman(9, iterations=1)(strong(), seen)(data(seen)[0])
    with pytest.raises(ValueError, match="strict=False"):
        _ = posterior.mean


def test_windows_that_cut_a_datum_are_an_error():
    seen = at([0.5, 3.5], [0.0, 1.0])
    posterior = IterativeEnsembleKalman(9, lag=1)(strong(), seen)(torch.ones(2).double())
    assert posterior.mean.isfinite().all()  # a window of one time holds data between two
    H = sparse.csr_array(([1.0, 1.0], ([0, 0], [0, 16])), shape=(1, 20))
    seen = mt.MatrixObservation(GRID, H, noise_std=0.1)
    posterior = IterativeEnsembleKalman(9, lag=1)(strong(), seen)(torch.ones(1).double())
    with pytest.raises(ValueError, match="Raise the lag"):
        _ = posterior.mean


def test_what_is_not_understood_is_a_type_error():
    whole = NonlinearObservation(GRID, lambda x: x[..., :2], 0.1)
    with pytest.raises(TypeError, match="of whole trajectories"):
        EnsembleKalman(5)(weak(), whole)
    process = mt.GaussianProcess(mt.Matern(0.5, lengthscale=(1.0, 1.0)), GRID)
    with pytest.raises(TypeError, match="is Markovian"):
        EnsembleKalman(5)(process, at([1.0], [0.0]))
    local = EnsembleKalman(5, "letkf", localization=Localization(1.0))
    function = NonlinearObservation(GRID, lambda x: x[..., :1], 0.1, times=torch.tensor([1]))
    with pytest.raises(TypeError, match="have no place"):
        local(weak(), function)
