r"""Laws of steps on the likelihood: the Kalman filter's maximum, dense matrices, resuming."""

import itertools
import math
import pytest
import torch

from scipy.optimize import minimize
from torch.testing import assert_close

from matheron import Variational
from matheron.dynamics import Dynamics, Lorenz63, Lorenz96
from matheron.dynamics.networks import BilinearNetwork, ConvDynamics, MLPDynamics
from matheron.fit.dynamics import learn_dynamics
from matheron.fit.forecasts import Training
from matheron.fit.optimise import assign, flat, free
from matheron.fit.records import Record
from matheron.fit.scoring import Scoring, Slopes

A = torch.tensor([[0.9, 0.2], [-0.3, 0.8]], dtype=torch.float64)
R = 0.25


def linear_record(generator, q=0.1, windows=4, times=30):
    x = torch.randn(windows, 2, dtype=torch.float64, generator=generator)
    states = [x]
    for _ in range(times + 19):
        z = torch.randn(windows, 2, dtype=torch.float64, generator=generator)
        states.append(states[-1] @ A.mT + q**0.5 * z)
    x = torch.stack(states[20:], dim=1)
    y = x + R**0.5 * torch.randn(x.shape, dtype=torch.float64, generator=generator)
    return Record(y, torch.rand(x.shape, generator=generator) < 0.7, R**0.5)


def linear_model():
    return MLPDynamics(2, (), dt=1.0, scheme="residual")


def lorenz_record(generator, windows=3):
    model = Lorenz63()
    path = model.trajectory(model(model.initial(generator), 1000), windows * 25 * 4 - 1)[::4]
    noisy = path + 0.5 * torch.randn(path.shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(path.shape, generator=generator) < 0.7
    return Record(noisy.reshape(windows, 25, 3), mask.reshape(windows, 25, 3), 0.5)


def begun(record, model, generator):
    scoring = Scoring(record, Training(steps=30, tolerance=1e-4), generator)
    return scoring, scoring.start(model, 1)


def filtered(state, record):
    """The log-likelihood by the Kalman filter, datum after datum."""
    zero = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        b = state.model(zero)
        M = (state.model(torch.eye(2, dtype=torch.float64)) - b).mT
    total = 0.0
    for window, seen in zip(record.x, record.seen, strict=True):
        m, P = state.mean, state.covariance
        for k in range(len(window)):
            if k:
                m, P = M @ m + b, M @ P @ M.mT + state.noise
            for i in range(2):
                if seen[k, i]:
                    S, d = P[i, i] + R, window[k, i] - m[i]
                    total += -0.5 * (d * d / S + S.log()).item()
                    m, P = m + P[:, i] * d / S, P - torch.outer(P[:, i], P[i]) / S
    return total


def evidence(scoring, state):
    with torch.no_grad():
        return scoring.mode(state, scoring.data.filled().flatten(1))


def test_the_evidence_is_that_of_the_kalman_filter(generator):
    record = linear_record(generator)
    scoring, state = begun(record, linear_model(), generator)
    constant = record.seen.sum().item() * math.log(R) / 2
    found = evidence(scoring, state).log_evidence
    assert found - constant == pytest.approx(filtered(state, record), rel=1e-10)


def test_slopes_are_those_of_the_kalman_filter(generator):
    """Differences of fourth order with a step of 1e-3: an error of some 1e-12."""
    record = linear_record(generator)
    scoring, state = begun(record, linear_model(), generator)
    parameters = free(state.model)
    slopes = Slopes(evidence(scoring, state), parameters)
    theta, h, expected = flat(parameters), 1e-3, []
    for way in torch.eye(9, dtype=torch.float64):
        values = []
        for k in (-2, -1, 1, 2):
            assign(parameters, theta + k * h * way[:6])
            state.noise = slopes.noise(k * h * way)
            values.append(filtered(state, record))
        expected.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h))
    assert_close(slopes.gradient, torch.tensor(expected).double(), rtol=1e-7, atol=1e-7)


def test_the_information_is_a_schur_complement_of_the_joint_problem(generator):
    """The whole Gauss-Newton matrix of states and parameters, by the derivative of residuals."""
    record = lorenz_record(generator, windows=1)
    scoring, state = begun(record, BilinearNetwork(dt=0.04, generator=generator), generator)
    parameters = free(state.model)
    mode = evidence(scoring, state)
    slopes, cost = Slopes(mode, parameters), mode.cost
    names = [n for n, _ in cost.prior.named_parameters()]
    held = dict(zip(names, parameters, strict=True))
    root = torch.linalg.inv(cost.root)

    def errors(x, theta):
        parts = theta.split([p.numel() for p in parameters])
        named = {f"{n[6:]}": v.reshape(held[n].shape) for n, v in zip(names, parts, strict=True)}
        ahead = torch.func.functional_call(state.model, named, (x[:-1], 1))
        return ((x[1:] - ahead) @ root.mT).flatten()

    x, theta = mode.states[0], flat(parameters)
    Jx, Jt = torch.autograd.functional.jacobian(errors, (x, theta))
    Jx = Jx.flatten(1)
    H = Jx.mT @ Jx + torch.diag((record.seen[0] / record.std.square()).flatten())
    H[:3, :3] += torch.linalg.inv(state.covariance)
    border = Jx.mT @ Jt
    expected = Jt.mT @ Jt - border.mT @ torch.linalg.solve(H, border)
    scale = expected.diagonal().max()
    p = len(theta)
    assert_close(slopes.information[:p, :p] / scale, expected / scale, rtol=0, atol=1e-10)
    # as the parameters move, the likeliest trajectory goes where the border says
    step = 1e-4 * torch.randn(p, dtype=torch.float64, generator=generator)
    straight = slopes.follow(torch.cat([step, torch.zeros(6).double()])) - mode.x
    expected = torch.linalg.solve(H, -border @ step)
    assert_close(straight[0], expected, rtol=1e-8, atol=1e-10)


class Drifting(Dynamics):
    """A known matrix and an unknown drift: the curvature knows nothing of the parameters."""

    def __init__(self):
        super().__init__()
        self.shape, self.dt = (2,), 1.0
        self.drift = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def advance(self, state):
        return state @ A.mT + self.drift


def test_a_drift_is_found(generator):
    record = linear_record(generator)
    model = Drifting()
    learned = learn_dynamics(model, record.x, record.seen, R**0.5, iterations=20,
                             method="scoring")  # fmt: skip
    # 4 windows of 30 times: a standard error of (.1 / 120)^1/2 at least, and noise of the data
    assert model.drift.abs().max() < 5 * (0.1 / 120) ** 0.5 * 3
    assert learned.log_likelihoods[-1] >= learned.log_likelihoods[0]


@pytest.mark.parametrize("q", [0.1, 1e-6])
def test_rounds_come_to_the_maximum_of_the_likelihood(q, generator):
    """A general optimiser of the filter's likelihood, in all nine numbers, gains nothing."""
    record = linear_record(generator, q)
    scoring, state = begun(record, linear_model(), generator)
    while scoring.run(state) and len(state.log_likelihoods) < 80:
        pass
    assert len(state.log_likelihoods) < 80
    assert all(b >= a for a, b in itertools.pairwise(state.log_likelihoods))
    parameters, best = free(state.model), filtered(state, record)
    theta, root = flat(parameters), torch.linalg.cholesky(state.noise)

    def minus(v):
        v = torch.from_numpy(v)
        assign(parameters, theta + v[:6])
        low = torch.stack([v[6].exp() * root[0, 0], root[1, 0] + v[7] * root[1, 1],
                           v[8].exp() * root[1, 1]])  # fmt: skip
        L = torch.zeros(2, 2, dtype=torch.float64)
        L[0, 0], L[1, 0], L[1, 1] = low
        state.noise = L @ L.mT + 1e-12 * torch.eye(2, dtype=torch.float64)
        return -filtered(state, record)

    better = minimize(minus, [0.0] * 9, method="BFGS", options={"maxiter": 15, "gtol": 1e-3})
    assert -better.fun - best < 1e-3


def test_a_perfect_law_is_found_from_gaps_and_noise(generator):
    """Errors fall to next to nothing; the law forecasts within what its own data tell."""
    record = lorenz_record(generator, windows=8)
    model = BilinearNetwork(dt=0.04, generator=generator)
    learned = learn_dynamics(model, record.x, record.seen, 0.5, iterations=60, method="scoring")
    assert (learned.noise.diagonal() < 1e-4 * learned.covariance.diagonal()).all()
    truth = Lorenz63()
    x = truth(truth.initial(generator, (200,)), 1000)
    errors = (model(x, 5) - truth(x, 20)).square().mean().sqrt()
    # the data have errors of .5: forecasts over .2 are as good
    assert errors < 0.5
    assert learned.trajectories.shape == record.x.shape


def test_longer_states_are_learned_too(generator):
    """Errors of twelve components move along the matrices that hold their slope only."""
    truth = Lorenz96(12)
    path = truth.trajectory(truth(truth.initial(generator), 1000), 2 * 40 - 1)
    noisy = path + 0.5 * torch.randn(path.shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(path.shape, generator=generator) < 0.6
    model = ConvDynamics(12, 1, generator=generator)
    data = noisy.reshape(2, 40, 12), mask.reshape(2, 40, 12)
    learned = learn_dynamics(model, *data, 0.5, iterations=12, method="scoring")
    assert all(b >= a for a, b in itertools.pairwise(learned.log_likelihoods))
    x = truth(truth.initial(generator, (200,)), 1000)
    errors = (model(x, 4) - truth(x, 4)).square().mean().sqrt()
    assert errors < 0.25  # half the noise of one datum, over 4 steps


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(generator, tmp_path):
    record = lorenz_record(generator)

    def learn(iterations, path):
        g = torch.Generator().manual_seed(5)
        model = BilinearNetwork(dt=0.04, generator=g)
        return learn_dynamics(model, record.x, record.seen, 0.5, iterations=iterations,
                              generator=g, checkpoint=path, method="scoring")  # fmt: skip

    whole, path = learn(4, None), tmp_path / "model.safetensors"
    learn(2, path)
    on = learn(4, path)
    assert torch.equal(on.noise, whole.noise)
    assert torch.equal(on.trajectories, whole.trajectories)
    assert on.log_likelihoods == whole.log_likelihoods


def test_windows_in_any_order_are_the_same(generator):
    record, found = lorenz_record(generator), []
    for way in (slice(None), [2, 0, 1]):
        model = BilinearNetwork(dt=0.04, generator=torch.Generator().manual_seed(5))
        data = record.x[way], record.seen[way]
        found.append(learn_dynamics(model, *data, 0.5, iterations=2, method="scoring"))
    assert_close(found[0].noise, found[1].noise, rtol=1e-6, atol=0)


def test_bad_arguments_are_told(generator):
    record = lorenz_record(generator)
    model = BilinearNetwork(dt=0.04, generator=generator)
    with pytest.raises(ValueError, match=r"method=\.\.\..*expected one of"):
        learn_dynamics(model, record.x, record.seen, 0.5, method="newton")
    with pytest.raises(ValueError, match=r"solver=\.\.\..*expected none for method='scoring'"):
        learn_dynamics(model, record.x, record.seen, 0.5, solver=Variational("smoother"),
                       method="scoring")  # fmt: skip
