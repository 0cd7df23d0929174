r"""Laws of transport: nothing is lost, waves move as the scheme says, extrema do not grow."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics.transport import Transport


def swirl(ny, nx):
    """A flow without divergence, in a closed basin: the curl of a stream function at corners."""
    y, x = torch.meshgrid(torch.arange(ny) + 0.5, torch.arange(nx) + 0.5, indexing="ij")
    u = torch.sin(math.pi * x / nx) * torch.cos(math.pi * y / ny)
    v = -torch.cos(math.pi * x / nx) * torch.sin(math.pi * y / ny)
    return v.double(), u.double()


@pytest.mark.parametrize("faces", ["upwind", "centred"])
@pytest.mark.parametrize("periodic", [True, False, (True, False)])
def test_the_total_is_kept(faces, periodic, generator):
    model = Transport((6, 7), (1.0, 2.0), swirl(6, 7), 0.2, 0.0, 0.3, periodic, faces)
    c = torch.rand(3, 6, 7, dtype=torch.float64, generator=generator)
    after = model(c, 50)
    assert_close(after.sum((-1, -2)), c.sum((-1, -2)), rtol=1e-12, atol=0)
    assert (after - c).abs().max() > 0.01


def test_what_is_forgotten_decays():
    model = Transport((6,), (1.0,), (0.4,), 0.1, decay=0.3, dt=0.1)
    c = torch.arange(6.0, dtype=torch.float64)
    assert_close(model(c, 30).sum(), c.sum() * math.exp(-0.3 * 3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("faces", ["upwind", "centred"])
@pytest.mark.parametrize("u", [0.6, -0.6])
def test_waves_grow_and_move_as_the_scheme_says(faces, u):
    """The symbol of the lattice, and the polynomial of the fourth order scheme, to rounding."""
    n, d, K, r, dt, steps = 16, 0.5, 0.07, 0.02, 0.2, 9
    model = Transport((n,), (d,), (u,), K, r, dt, faces=faces)
    theta = 2 * math.pi * 3 / n
    spread = K + (abs(u) * d / 2 if faces == "upwind" else 0.0)
    rate = complex(-r - 2 * spread * (1 - math.cos(theta)) / d**2, -u * math.sin(theta) / d)
    z = rate * dt
    growth = (1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24) ** steps
    place = torch.arange(n, dtype=torch.float64) * theta
    after = model(place.cos(), steps)
    assert_close(after, growth.real * place.cos() - growth.imag * place.sin())


def test_upwind_steps_make_no_new_extrema(generator):
    model = Transport((8, 9), (1.0, 1.0), (0.5, -0.3), 0.05, dt=0.5, scheme="euler")
    c = torch.rand(8, 9, dtype=torch.float64, generator=generator)
    for _ in range(30):
        new = model(c)
        assert new.max() <= c.max() + 1e-15
        assert new.min() >= c.min() - 1e-15
        c = new


def test_diffusion_tends_to_a_bell(generator):
    """A spike spreads with the variance 2 K t, exactly on a lattice."""
    model = Transport((81,), (0.5,), (0.0,), 0.3, dt=0.1)
    c = torch.zeros(81, dtype=torch.float64)
    c[40] = 1.0
    after, place = model(c, 60), 0.5 * (torch.arange(81.0, dtype=torch.float64) - 40)
    assert_close(
        (after * place**2).sum(), torch.tensor(3.6, dtype=torch.float64), rtol=1e-8, atol=0
    )


@pytest.mark.parametrize("scheme", ["runge-kutta", "implicit"])
def test_the_adjoint_is_that_of_finite_differences(scheme, generator):
    model = Transport((4, 5), (1.0, 1.0), swirl(4, 5), 0.1, 0.1, 0.4, False, scheme=scheme)
    c, way, weight = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)
    c.requires_grad_()
    (slope,) = torch.autograd.grad((model(c, 5) * weight).sum(), c)
    with torch.no_grad():  # the model is linear
        finite = ((model(c + way, 5) - model(c, 5)) * weight).sum()
    assert_close((slope * way).sum(), finite, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": (1.0, 1.0)}, r"Transport\(shape"),
        ({"spacing": (0.0,)}, "all positive"),
        ({"faces": "quick"}, r"Transport\(faces"),
        ({"dt": 3.0}, r"Transport\(dt=\.\.\.\).*time step up to 1.35"),
        ({"diffusivity": -1.0}, "rates of at least zero"),
        ({"scheme": "leapfrog"}, r"Transport\(scheme"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Transport(**{"shape": (8,), "spacing": (1.0,), "velocity": (1.0,), **settings})
