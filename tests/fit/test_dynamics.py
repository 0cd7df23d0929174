r"""Laws of learning models from trajectories: clean, noisy, with gaps."""

import pytest
import torch

from torch.testing import assert_close

from matheron import Variational
from matheron.dynamics import Lorenz63, Lorenz96
from matheron.dynamics.networks import BilinearNetwork, ConvDynamics, MLPDynamics
from matheron.fit.dynamics import ensemble_likelihood, learn_dynamics
from matheron.fit.forecasts import Training, fit_forecasts, forecast_errors
from matheron.fit.records import Record


def path_of(model, generator, steps):
    return model.trajectory(model(model.initial(generator), 1000), steps)


def test_lorenz63_is_found_from_a_clean_trajectory(generator):
    """The scheme of the network is that of the truth: nothing is left but rounding."""
    path = path_of(Lorenz63(), generator, 1000)
    model = BilinearNetwork(3, products=4, generator=generator)
    learned = learn_dynamics(model, path)
    b, A, B = model.coefficients()
    linear = torch.tensor([[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8 / 3]])
    assert_close(A, linear.double(), rtol=0, atol=1e-7)
    assert_close(b, torch.zeros(3).double(), rtol=0, atol=1e-7)
    quadratic = torch.zeros(3, 3, 3, dtype=torch.float64)
    quadratic[1, 0, 2] = quadratic[1, 2, 0] = -0.5
    quadratic[2, 0, 1] = quadratic[2, 1, 0] = 0.5
    assert_close(B, quadratic, rtol=0, atol=1e-8)
    assert learned.noise.abs().max() < 1e-20
    new = path_of(Lorenz63(), generator, 0)[0]
    assert_close(model(new, 100), Lorenz63()(new, 100), rtol=0, atol=1e-6)


def test_a_coarser_scheme_errs_as_its_order_says(generator):
    """One step of .04 for four of .01: what a scheme of order 4 misses, 16 times less for half."""
    errors = []
    for steps in (4, 2):
        path = path_of(Lorenz63(), generator.manual_seed(3), 1000 * steps)[::steps]
        model = BilinearNetwork(dt=0.01 * steps, generator=generator)
        errors.append(learn_dynamics(model, path).noise.diagonal().max().sqrt().item())
    # the error over one step is of order 5; learned coefficients take up some of it
    assert errors[0] < 0.02
    assert errors[0] / errors[1] > 16


@pytest.mark.parametrize("products", [1, 3])
def test_lorenz96_is_found_by_the_convolution(products, generator):
    path = path_of(Lorenz96(16), generator, 60)
    model = ConvDynamics(16, products, generator=generator)
    learn_dynamics(model, path, training=Training(steps=100))
    new = path_of(Lorenz96(16), generator, 0)[0]
    assert_close(model(new, 10), Lorenz96(16)(new, 10), rtol=0, atol=1e-5)


def test_many_steps_ahead_and_other_descents_do_well(generator):
    path = path_of(Lorenz63(), generator, 400)[::2]
    changes = path.diff(dim=0).square().mean(dim=0)
    for horizon, training, share in [
        (3, Training(), 1e-12),
        (1, Training("lbfgs", 150), 0.1),
        (1, Training("adam", 800, 0.03, batch=64), 0.1),
    ]:
        model = BilinearNetwork(generator=generator)
        learned = learn_dynamics(model, path, steps=2, horizon=horizon, training=training,
                                 generator=generator)  # fmt: skip
        assert (learned.noise.diagonal() < share * changes).all()


def test_progress_is_told(generator):
    path, told = path_of(Lorenz63(), generator, 50), []
    for method in ("gauss-newton", "lbfgs", "adam"):
        model = BilinearNetwork(generator=generator)
        fit_forecasts(model, path, training=Training(method, 4), generator=generator,
                      progress=lambda i, cost: told.append(cost))  # fmt: skip
    assert len(told) >= 12
    assert told[3] < told[0]


def test_errors_of_forecasts_are_by_hand(generator):
    path = path_of(Lorenz63(), generator, 6)
    model = Lorenz63(sigma=9.0)
    errors = forecast_errors(model, path[:1], path[None, 2::2], 2)
    assert_close(errors[0, 1], path[4] - model(path[0], 4), rtol=1e-12, atol=1e-12)


# A linear Gaussian law: the likelihood is closed, and expectation-maximisation must climb it.

A = torch.tensor([[0.9, 0.2], [-0.3, 0.8]], dtype=torch.float64)
Q, R = 0.1 * torch.eye(2, dtype=torch.float64), 0.25


def linear_data(generator, windows, times):
    x = torch.randn(windows, 2, dtype=torch.float64, generator=generator)
    states = [x]
    for _ in range(times + 19):
        z = torch.randn(windows, 2, dtype=torch.float64, generator=generator)
        states.append(states[-1] @ A.mT + Q.diagonal().sqrt() * z)
    x = torch.stack(states[20:], dim=1)
    y = x + R**0.5 * torch.randn(x.shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(x.shape, generator=generator) < 0.7
    return y, mask


def matrix(model):
    """The matrix of a linear model: what it makes of the unit vectors, less of zero."""
    zero = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        return (model(torch.eye(2, dtype=torch.float64)) - model(zero)).mT, model(zero)


def exact_likelihood(M, b, Q, mean, B, y, mask):
    """The Kalman filter, datum after datum."""
    total = 0.0
    for window, seen in zip(y, mask, strict=True):
        m, P = mean, B
        for k in range(len(window)):
            if k:
                m, P = M @ m + b, M @ P @ M.mT + Q
            for i in range(2):
                if seen[k, i]:
                    S = P[i, i] + R
                    d = window[k, i] - m[i]
                    total += -0.5 * (d * d / S + (2 * torch.pi * S).log()).item()
                    m, P = m + P[:, i] * d / S, P - torch.outer(P[:, i], P[i]) / S
    return total


def linear_model():
    return MLPDynamics(2, (), dt=1.0, scheme="residual")


@pytest.mark.parametrize(
    "smoother", ["ensemble", pytest.param("variational", marks=pytest.mark.slow)]
)
def test_rounds_climb_the_likelihood_and_find_the_matrix(smoother, generator, tmp_path):
    y, mask = linear_data(generator, 4, 50)
    solver = Variational() if smoother == "variational" else None
    members, exact, kept = 50, [], tmp_path / "kept.safetensors"
    for rounds in (1, 3, 8):
        model, g = linear_model(), torch.Generator().manual_seed(1)
        state = learn_dynamics(model, y, mask, R**0.5, iterations=rounds, members=members,
                               solver=solver, generator=g, checkpoint=kept)  # fmt: skip
        M, b = matrix(model)
        exact.append(exact_likelihood(M, b, state.noise, state.mean, state.covariance, y, mask))
    gains = torch.tensor(exact).diff()
    # Sampling moves each of d = 9 numbers by about N^-1/2 of its error: the likelihood then falls
    # by d / 2N at most on average, with a standard deviation of (d / 2)^1/2 / N.
    assert (gains > -(9 / 2 / members + 5 * (9 / 2) ** 0.5 / members)).all()
    assert exact[-1] > exact[0] + 1
    truth = exact_likelihood(A, torch.zeros(2), Q, state.mean, state.covariance, y, mask)
    assert exact[-1] > truth - 3  # the maximum is over the truth by d / 2 on average
    # 280 data, half of them noise: standard errors of some 0.07
    assert_close(M, A, rtol=0, atol=5 * 0.07)
    assert_close(state.noise, Q, rtol=0, atol=0.1)


def test_the_likelihood_of_an_ensemble_is_that_of_the_kalman_filter(generator):
    y, mask = linear_data(generator, 1, 30)
    model = linear_model()
    state = learn_dynamics(model, y, mask, R**0.5, iterations=1, generator=generator)
    data = Record(y, mask, R**0.5)
    M, b = matrix(model)
    exact = exact_likelihood(M, b, state.noise, state.mean, state.covariance, y, mask)
    prior = state.prior(data.grid)
    found = torch.tensor([
        ensemble_likelihood(prior, data.observation(0), data.values(0), 400, generator)
        for _ in range(8)
    ])  # fmt: skip
    # The bias falls as 1/N: some two numbers at each of 30 times, under 0.5 for N = 400.
    assert abs(found.mean() - exact) < 5 * found.std() / 8**0.5 + 0.5


def noisy_lorenz(generator, windows=4):
    path = path_of(Lorenz63(), generator, windows * 25 * 4 - 1)[::4]
    noisy = path + 0.5 * torch.randn(path.shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(path.shape, generator=generator) < 0.7
    return noisy.reshape(windows, 25, 3), mask.reshape(windows, 25, 3)


def test_the_same_seed_the_same_model(generator):
    y, mask = noisy_lorenz(generator, 2)
    noise = []
    for _ in range(2):
        g = torch.Generator().manual_seed(5)
        model = BilinearNetwork(dt=0.04, generator=g)
        noise.append(learn_dynamics(model, y, mask, 0.5, iterations=2, generator=g).noise)
    assert torch.equal(noise[0], noise[1])


def test_what_stands_under_gaps_is_never_read(generator):
    y, mask = noisy_lorenz(generator, 2)
    noise = []
    for hidden in (0.0, torch.nan):
        g = torch.Generator().manual_seed(5)
        model = BilinearNetwork(dt=0.04, generator=g)
        data = y.where(mask, hidden)
        noise.append(learn_dynamics(model, data, mask, 0.5, iterations=1, generator=g).noise)
    assert torch.equal(noise[0], noise[1])


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(generator, tmp_path):
    y, mask = noisy_lorenz(generator, 2)

    def learn(iterations, path):
        g = torch.Generator().manual_seed(5)
        model = BilinearNetwork(dt=0.04, generator=g)
        return learn_dynamics(model, y, mask, 0.5, iterations=iterations, generator=g,
                              checkpoint=path)  # fmt: skip

    whole, path = learn(3, None), tmp_path / "model.safetensors"
    learn(2, path)
    on = learn(3, path)
    assert torch.equal(on.noise, whole.noise)
    assert on.log_likelihoods == whole.log_likelihoods
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(ValueError, match=r"load\(path=.*expected weights of the same"):
        learn_dynamics(linear_model(), y[..., :2], mask[..., :2], 0.5, checkpoint=path)


def test_bad_arguments_are_told(generator, tmp_path):
    y, mask = noisy_lorenz(generator, 1)
    model = BilinearNetwork(generator=generator)
    with pytest.raises(ValueError, match=r"noise_std=\.\.\..*data with gaps"):
        learn_dynamics(model, y, mask)
    with pytest.raises(ValueError, match=r"noise_std=\.\.\..*positive"):
        learn_dynamics(model, y, mask, 0.0)
    with pytest.raises(ValueError, match=r"mask=\.\.\..*two data or more"):
        learn_dynamics(model, y, mask & torch.tensor([True, True, False]), 0.5)
    with pytest.raises(ValueError, match="horizon of 30"):
        learn_dynamics(model, y, horizon=30)
    with pytest.raises(ValueError, match="got NaN"):
        fit_forecasts(model, y * torch.nan)
    with pytest.raises(ValueError, match="parameters that may move, got none in Lorenz63"):
        fit_forecasts(Lorenz63(), y)
    with pytest.raises(ValueError, match="expected one of"):
        Training("newton")
    with pytest.raises(ValueError, match="expected a file in a folder that exists"):
        learn_dynamics(model, y, mask, 0.5, checkpoint=tmp_path / "no" / "file")
