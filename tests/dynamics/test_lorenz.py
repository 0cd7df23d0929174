r"""Laws that every model of time evolution obeys, and those of Lorenz's."""

import numpy as np
import pytest
import torch

from scipy.integrate import solve_ivp
from torch.testing import assert_close

from matheron.dynamics import Lorenz63, Lorenz96, OneLayerQG, TwoLayerQG
from matheron.dynamics.lorenz import TwoScaleLorenz96
from matheron.dynamics.transport import Transport


def island():
    frozen = torch.zeros(12, 14, dtype=torch.bool)
    frozen[4:7, 5:9] = True
    return OneLayerQG.on_plane((12, 14), 2e4, frozen=frozen)


def waves(generator, size, shape):
    return 0.1 * torch.randn(*size, *shape, dtype=torch.float64, generator=generator)


MODELS = {
    "Lorenz63": (Lorenz63, lambda m, g, size: m.initial(g, size)),
    "Lorenz96": (lambda: Lorenz96(12), lambda m, g, size: m.initial(g, size)),
    "Implicit": (lambda: Lorenz96(12, scheme="implicit"), lambda m, g, size: m.initial(g, size)),
    "TwoScaleLorenz96": (lambda: TwoScaleLorenz96(6, 3), lambda m, g, size: m.initial(g, size)),
    "Transport": (
        lambda: Transport((4, 5), (1.0, 2.0), (0.3, -0.5), 0.1, 0.05, 0.5, (True, False)),
        lambda m, g, size: waves(g, size, m.shape),
    ),
    "TwoLayerQG": (lambda: TwoLayerQG(16), lambda m, g, size: 5 * m.initial(g, size)),
    "OneLayerQG": (island, lambda m, g, size: waves(g, size, m.shape)),
}


@pytest.fixture(params=list(MODELS))
def made(request):
    make, start = MODELS[request.param]
    return make(), start


def test_a_batch_is_one_at_a_time(made, generator):
    model, start = made
    x = start(model, generator, (2, 3))
    after = model(x, 7)
    assert after.shape == x.shape
    for i in range(2):
        for j in range(3):
            assert_close(after[i, j], model(x[i, j], 7), rtol=1e-10, atol=1e-14)


def test_a_trajectory_is_its_steps(made, generator):
    model, start = made
    x = start(model, generator, (2,))
    path = model.trajectory(x, 6, every=2)
    assert path.shape == (2, 4, *model.shape)
    assert_close(path[:, 0], x, rtol=0, atol=0)
    for k in range(4):
        assert_close(path[:, k], model(x, 2 * k), rtol=1e-10, atol=1e-14)
    by_steps = x
    for _ in range(6):
        by_steps = model.step(by_steps)
    assert_close(path[:, 3], by_steps, rtol=1e-9, atol=1e-14)


def test_the_gradient_is_that_of_finite_differences(made, generator):
    model, start = made
    x, way, weight = (start(model, generator, ()) for _ in range(3))
    x.requires_grad_()
    (slope,) = torch.autograd.grad((model(x, 20) * weight).sum(), x)
    h = 1e-4
    with torch.no_grad():
        value = lambda t: (model(x + t * way, 20) * weight).sum()
        # Fourth-order central differences; the error is O(h^4) plus round-off.
        finite = (8 * (value(h) - value(-h)) - value(2 * h) + value(-2 * h)) / (12 * h)
    assert_close((slope * way).sum(), finite, rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [1, 4, 7])  # one, a whole number of segments, and some over
def test_checkpoints_change_no_gradient(made, generator, steps):
    model, start = made
    x = start(model, generator, ()).requires_grad_()
    slopes = [
        torch.autograd.grad(model(x, steps, checkpoint=c).square().sum(), x)[0]
        for c in (False, True)
    ]
    assert_close(slopes[0], slopes[1], rtol=1e-12, atol=0)
    paths = [model.trajectory(x, steps, checkpoint=c) for c in (False, True)]
    slopes = [torch.autograd.grad(p.square().sum(), x)[0] for p in paths]
    assert_close(slopes[0], slopes[1], rtol=1e-12, atol=0)


def test_no_step_is_the_state(made, generator):
    model, start = made
    x = start(model, generator, ())
    assert_close(model(x, 0), x, rtol=1e-12, atol=1e-18)


def test_bad_arguments_are_told(made, generator):
    model, start = made
    x = start(model, generator, ())
    with pytest.raises(ValueError, match="expected states with the last axes"):
        model(x[..., :-1])
    with pytest.raises(ValueError, match=r"steps=\.\.\..*negative dt"):
        model(x, -1)
    with pytest.raises(ValueError, match=r"every=\.\.\..*divisor of 7"):
        model.trajectory(x, 7, every=2)


@pytest.mark.parametrize("make", [Lorenz63, lambda dt: Lorenz96(40, dt)])
def test_the_scheme_is_of_fourth_order(make, generator):
    model = make(0.01)
    x = model(model.initial(generator), 1000)
    law = lambda t, x: model.tendency(torch.as_tensor(x)).numpy()
    exact = solve_ivp(law, (0, 0.6), x.numpy(), "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    errors = [np.abs(make(0.6 / n)(x, n).numpy() - exact).max() for n in (60, 120)]
    assert errors[0] < 1e-3
    assert 12 < errors[0] / errors[1] < 20


def test_lorenz63_rests_at_its_fixed_points():
    model = Lorenz63()
    root = np.sqrt(8 / 3 * 27)
    for point in ([0.0, 0.0, 0.0], [root, root, 27.0], [-root, -root, 27.0]):
        x = torch.tensor(point, dtype=torch.float64)
        assert model.tendency(x).abs().max() < 1e-13
        assert_close(model(x, 10), x, rtol=1e-10, atol=1e-12)


def test_lorenz63_contracts_volumes_at_a_constant_rate(generator):
    model = Lorenz63()
    jacobian = torch.autograd.functional.jacobian(model.tendency, model.initial(generator))
    assert_close(jacobian.trace().item(), -(10 + 1 + 8 / 3), rtol=1e-12, atol=0)


def test_lorenz63_goes_back(generator):
    x = Lorenz63()(Lorenz63().initial(generator), 100)
    assert_close(Lorenz63(-0.01)(Lorenz63(0.01)(x, 5), 5), x, rtol=1e-4, atol=1e-4)


def test_lorenz96_advects_without_loss_and_rests_at_its_forcing(generator):
    x = Lorenz96(40).initial(generator, (5,))
    assert (x * Lorenz96.advection(x)).sum(-1).abs().max() < 1e-10
    rest = torch.full((40,), 8.0, dtype=torch.float64)
    assert_close(Lorenz96(40)(rest, 5), rest)


def test_lorenz96_has_its_climate(generator):
    """Mean 2.34 and standard deviation 3.64, as published; the energy balance links them."""
    model = Lorenz96(40)
    path = model.trajectory(model.initial(generator, (20,)), 1000)[:, 200:]
    assert path.mean().item() == pytest.approx(2.34, abs=0.05)
    assert path.std().item() == pytest.approx(3.64, abs=0.05)
    # d/dt |x|^2 / 2 = F sum x - |x|^2 = 0 on average.
    assert path.square().mean().item() == pytest.approx(8 * path.mean().item(), rel=0.01)


def test_lorenz96_needs_four_places():
    with pytest.raises(ValueError, match="expected 4 places or more, got 3"):
        Lorenz96(3)


def test_parameters_can_be_learnt():
    rho = torch.tensor(28.0, dtype=torch.float64, requires_grad=True)
    x = Lorenz63(rho=rho)(torch.ones(3, dtype=torch.float64), 3)
    (slope,) = torch.autograd.grad(x.sum(), rho)
    assert slope != 0


def test_both_scales_exchange_what_they_share(generator):
    model = TwoScaleLorenz96(8, 4)
    x = model.initial(generator, (5,))
    X, Y = model.scales(x)
    work = (x * model.tendency(x)).sum(-1)
    # advection and coupling cancel: what is left is forcing and friction
    left = 10 * X.sum(-1) - X.square().sum(-1) - 10 * Y.square().sum((-1, -2))
    assert_close(work, left, rtol=1e-12, atol=1e-9)


def test_both_scales_are_those_of_the_formula(generator):
    n, each, h, c, b, F = 5, 3, 0.7, 8.0, 9.0, 6.0
    model = TwoScaleLorenz96(n, each, 0.005, F, h, c, b)
    x = model.initial(generator)
    X, Y = x[:n], x[n:]
    large = [
        (X[(i + 1) % n] - X[i - 2]) * X[i - 1] - X[i] + F
        - h * c / b * Y[i * each : (i + 1) * each].sum()
        for i in range(n)
    ]  # fmt: skip
    m = n * each
    small = [
        c * b * (Y[l - 1] - Y[(l + 2) % m]) * Y[(l + 1) % m] - c * Y[l] + h * c / b * X[l // each]
        for l in range(m)
    ]
    assert_close(model.tendency(x), torch.stack([*large, *small]))


def test_no_coupling_leaves_one_scale(generator):
    model = TwoScaleLorenz96(8, 4, coupling=0.0)
    x = model.initial(generator)
    large, small = model.scales(model(x, 40))
    assert_close(large, Lorenz96(8, 0.005, 10.0)(x[:8], 40), rtol=1e-10, atol=1e-12)
    assert small.abs().max() < 0.2  # nothing feeds the small scales


def test_both_scales_are_in_balance(generator):
    # on the attractor, F sum X = |X|^2 + c |Y|^2 on average
    model = TwoScaleLorenz96(8, 8, forcing=10.0)
    path = model.trajectory(model(model.initial(generator, (128,)), 800), 500, 10)
    X, Y = model.scales(path)
    gained = 10 * X.sum(-1).mean()
    spent = X.square().sum(-1).mean() + 10 * Y.square().sum((-1, -2)).mean()
    assert_close(gained, spent, rtol=0.02, atol=0)
    assert 1.5 < X.mean() < 3.5


def test_lorenz63_has_its_climate_and_its_exponent(generator):
    """Mean of z 23.55, mean square of x 62.8 (= beta z), and a leading exponent of .906."""
    model = Lorenz63()
    x = model(model.initial(generator, (512,)), 1000)
    path = model.trajectory(x, 500, 10)
    assert path[..., 2].mean().item() == pytest.approx(23.55, abs=0.15)
    balance = (path[..., 0] * path[..., 1]).mean() / path[..., 2].mean()
    assert balance.item() == pytest.approx(8 / 3, rel=0.01)  # d<z>/dt = 0
    near, growth = x + 1e-8 * torch.randn(x.shape, dtype=x.dtype, generator=generator), []
    for _ in range(130):  # 8 units of time after 5, in which differences turn to the fastest way
        x, near = model(torch.stack([x, near]), 10)
        d = (near - x).norm(dim=-1, keepdim=True)
        growth.append((d / 1e-8).log())
        near = x + 1e-8 * (near - x) / d
    rate = torch.cat(growth[50:], dim=-1).mean(-1) / 0.1
    # 512 members: the standard error of their mean
    assert abs(rate.mean().item() - 0.906) < 5 * rate.std().item() / 512**0.5


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("implicit", 2), ("runge-kutta", 4)])
def test_schemes_have_their_orders(scheme, order, generator):
    start = Lorenz63()(Lorenz63().initial(generator), 1000)
    exact = Lorenz63(0.4 / 1600)(start, 1600)
    errors = [(Lorenz63(0.4 / n, scheme=scheme)(start, n) - exact).norm() for n in (100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.2)


def test_the_implicit_scheme_keeps_energy_and_goes_back(generator):
    class Advection(Lorenz96):
        def tendency(self, x):
            return self.advection(x)

    x = Lorenz96(12).initial(generator)
    after = Advection(12, 0.02, scheme="implicit")(x, 50)
    assert_close(after.norm(), x.norm(), rtol=1e-12, atol=0)
    assert_close(Advection(12, -0.02, scheme="implicit")(after, 50), x, rtol=1e-9, atol=1e-9)
    drift = Advection(12, 0.02, scheme="euler")(x, 50).norm() / x.norm()
    assert drift > 1.01


def test_bad_schemes_are_refused():
    with pytest.raises(ValueError, match=r"Lorenz96\(scheme=\.\.\.\): expected one of"):
        Lorenz96(scheme="leapfrog")
    with pytest.raises(ValueError, match="Shorten the step"):
        Lorenz63(1.0, scheme="implicit")(torch.tensor([5.0, 5.0, 25.0]).double())
    with pytest.raises(ValueError, match="got 3 and 4"):
        TwoScaleLorenz96(3, 4)
