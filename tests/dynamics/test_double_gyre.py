r"""Laws of the wind-driven gyres: inversion, conservation, basin modes, friction, symmetry."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics import Helmholtz
from matheron.dynamics.double_gyre import DoubleGyre, jacobian


def closed(generator, *shape):
    """Noise that is zero on the border."""
    inner = torch.randn(*shape[:-2], shape[-2] - 2, shape[-1] - 2, dtype=torch.float64,
                        generator=generator)  # fmt: skip
    return torch.nn.functional.pad(inner, (1, 1, 1, 1))


def waves(n, k=1, l=1):
    s = torch.linspace(0, 1, n, dtype=torch.float64)
    wave = torch.sin(l * math.pi * s)[:, None] * torch.sin(k * math.pi * s)
    wave[[0, -1]] = 0.0
    wave[:, [0, -1]] = 0.0
    return wave


def still(n, **given):
    """Neither planetary vorticity, wind nor friction, unless told."""
    quiet = {"beta": 0.0, "wind": 0.0, "hyperviscosity": 0.0, "screening": 400.0}
    return DoubleGyre(n, **(quiet | given))


def smooth(generator, n):
    psi = torch.zeros(n, n, dtype=torch.float64)
    for k in (1, 2, 3):
        for l in (1, 2, 3):
            psi += torch.randn((), dtype=torch.float64, generator=generator) * waves(n, k, l)
    return psi


def energy(model, q):
    """Half the sum of -psi q: kinetic and potential energy."""
    return -(model.leave(q) * q).sum(dim=(-2, -1)) / 2


def test_the_inversion_solves_the_dense_system(generator):
    n = 9
    model = still(n)
    unit = torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n)
    inside = torch.nn.functional.pad(torch.ones(n - 2, n - 2), (1, 1, 1, 1)).bool().flatten()
    A = model.enter(unit * inside.reshape(n, n)).flatten(1).mT[inside][:, inside]
    q = closed(generator, 3, n, n)
    expected = torch.linalg.solve(A, q.flatten(1)[:, inside].mT).mT
    assert_close(model.leave(q).flatten(1)[:, inside], expected, rtol=1e-10, atol=1e-12)
    assert_close(model.leave(model.enter(q)), q, rtol=1e-10, atol=1e-12)


def test_a_box_with_land_is_refused():
    land = torch.zeros(7, 7, dtype=torch.bool)
    land[3, 3] = True
    rows = torch.ones(7, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"closed\(frozen=.*without land, got a coast of 1"):
        Helmholtz(rows, 1.0, rows, land).closed(torch.zeros(7, 7, dtype=torch.float64))


def test_the_jacobian_conserves_energy_and_enstrophy(generator):
    a, b = closed(generator, 2, 4, 12, 15)
    J = jacobian(a, b, 0.3)
    size = (a * J).abs().sum() + (b * J).abs().sum()
    for weight in (a, b):
        assert (weight * J).sum(dim=(-2, -1)).abs().max() < 1e-13 * size
    assert_close(jacobian(b, a, 0.3), -J, rtol=1e-12, atol=1e-12)


def test_the_jacobian_is_of_second_order():
    errors = []
    for n in (33, 65):
        s = torch.linspace(0, 1, n, dtype=torch.float64)
        x, y = s.expand(n, n), s[:, None].expand(n, n)
        a, b = torch.sin(2 * x + y), torch.cos(x - 3 * y)
        exact = 7 * torch.cos(2 * x + y) * torch.sin(x - 3 * y)
        found = jacobian(a, b, 1 / (n - 1))
        errors.append((found - exact)[1:-1, 1:-1].abs().max().item())
    assert errors[0] < 0.02
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_energy_and_enstrophy_are_kept(generator):
    """In space to rounding; in time as the fifth power of the step."""
    losses = []
    for steps in (16, 32):
        model = still(17, rossby=1.0, dt=0.2 / steps)
        start = model.enter(smooth(generator.manual_seed(1), 17))
        end = start
        for _ in range(steps):
            end = model.advance(end)
        assert (end - start).norm() > 0.05 * start.norm()
        before, after = ((energy(model, q), q.square().sum()) for q in (start, end))
        losses.append([abs(1 - a / b).item() for a, b in zip(after, before, strict=True)])
    assert max(losses[0]) < 1e-3
    # it falls by 2^4 or 2^5 with half the step, before rounding
    assert all(a / b > 12 for a, b in zip(*losses, strict=True))


def basin_mode(n, t, screening):
    omega = 1 / (2 * math.sqrt(2 * math.pi**2 + screening))
    s = torch.linspace(0, 1, n, dtype=torch.float64)
    return torch.cos(s / (2 * omega) + omega * t) * waves(n), 2 * math.pi / omega


def test_rossby_basin_modes_oscillate_as_they_should():
    """The dispersion relation, to the second order in the spacing."""
    errors = []
    for n in (21, 41):
        start, period = basin_mode(n, 0.0, 20.0)
        model = still(n, beta=1.0, rossby=0.0, screening=20.0, dt=period / 400)
        expected, _ = basin_mode(n, period / 4, 20.0)
        errors.append((model(start, 100) - expected).norm() / expected.norm())
    assert errors[1] < 0.02
    assert 3 < errors[0] / errors[1] < 5


@pytest.mark.parametrize(
    ("friction", "power"), [("drag", 1), ("viscosity", 2), ("hyperviscosity", 3)]
)
def test_friction_has_its_rate(friction, power):
    """A sine is an eigenvector of every term."""
    n, value = 17, {"drag": 0.3, "viscosity": 2e-3, "hyperviscosity": 1e-5}[friction]
    model = still(n, rossby=0.0, dt=0.01, **{friction: value})
    start = waves(n, 2, 3)
    h = 1 / (n - 1)
    square = sum(4 * math.sin(k * math.pi * h / 2) ** 2 / h**2 for k in (2, 3))
    rate = value * square**power / (square + 400.0)
    assert_close(model(start, 10), start * math.exp(-rate * 0.1), rtol=1e-7, atol=1e-12)


def test_a_wind_that_is_balanced_by_drag_turns_two_gyres():
    """Anticyclonic in the south, cyclonic in the north; mirrored, as the equations are."""
    model = DoubleGyre(17, drag=1.0, hyperviscosity=0.0, rossby=0.0, beta=0.0, dt=1.0,
                       screening=100.0)  # fmt: skip
    psi = model(torch.zeros(17, 17, dtype=torch.float64), 60)
    assert (psi[1:8, 1:-1] > 0).all()
    assert_close(psi.flip(0), -psi, rtol=0, atol=1e-12)
    zeta = -model.forcing  # at rest the drag eats what the wind gives
    found = model.laplacian(psi)
    assert_close(found[1:-1, 1:-1], -zeta[1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def test_the_gradient_is_that_of_finite_differences(generator):
    model = DoubleGyre(13, rossby=1e-3, screening=100.0, drag=0.01, viscosity=1e-4, dt=1.0)
    x, way, weight = (5 * smooth(generator, 13) for _ in range(3))
    x.requires_grad_()
    (slope,) = torch.autograd.grad((model(x, 6) * weight).sum(), x)
    h = 1e-3
    with torch.no_grad():
        value = lambda t: (model(x + t * way, 6) * weight).sum()
        # Fourth-order central differences; the error is O(h^4) plus round-off.
        finite = (8 * (value(h) - value(-h)) - value(2 * h) + value(-2 * h)) / (12 * h)
    assert_close((slope * way).sum(), finite, rtol=1e-8, atol=0)


def test_members_do_not_know_each_other(generator):
    model = DoubleGyre(13)
    x = torch.stack([smooth(generator, 13) for _ in range(3)])
    assert_close(model(x, 5)[1], model(x[1], 5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [{"size": 2}, {"screening": -1.0}, {"drag": -1e-3}])
def test_bad_arguments_are_told(given):
    with pytest.raises(ValueError, match=r"DoubleGyre\(\.\.\.\): expected 3 nodes or more"):
        DoubleGyre(**given)
