r"""Laws of two-layer turbulence: linear waves, instability, conservation, precision."""

import math
import numpy as np
import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics import TwoLayerQG

LENGTH, RADIUS, RATIO, BETA = 1.2e6, 3e4, 0.25, 1.75e-11
F1 = RADIUS**-2 / (1 + RATIO)
F = np.array([F1, RATIO * F1])


def plane_wave(size, m, n, amplitudes, phase=0.0):
    """Both layers' field Re(a exp(i (k x + l y - phase)))."""
    s = 2 * math.pi * np.arange(size) / size
    angle = m * s[None, :] + n * s[:, None] - phase
    a = np.asarray(amplitudes, dtype=complex)[:, None, None]
    return torch.as_tensor((a * np.exp(1j * angle)).real)


def vorticity(psi, m, n):
    """The potential vorticity of amplitudes of a plane wave."""
    k2 = (2 * math.pi / LENGTH) ** 2 * (m**2 + n**2)
    return -k2 * psi + F * (psi[::-1] - psi)


def still(size=32, **given):
    given = {"flow": (0.0, 0.0), "drag": 0.0, "filter": "two-thirds"} | given
    return TwoLayerQG(size, length=LENGTH, radius=RADIUS, ratio=RATIO, beta=BETA, **given)


def test_the_inversion_is_exact(generator):
    model = still(16)
    psi = torch.randn(2, 16, 16, dtype=torch.float64, generator=generator)
    psi -= psi.mean((-1, -2), keepdim=True)
    k = 2 * math.pi / LENGTH * np.fft.fftfreq(16, 1 / 16)
    lap = -(k[:, None] ** 2 + k**2) * np.fft.fft2(psi.numpy())
    other = psi.flip(0) - psi
    q = torch.as_tensor(np.fft.ifft2(lap).real) + torch.as_tensor(F)[:, None, None] * other
    found = model.leave(model.streamfunction(model.enter(q)))
    assert_close(found, psi, rtol=1e-10, atol=1e-12)
    assert_close(model.ssh(q), psi[0] * 9e-5 / 9.81, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("kind", ["barotropic", "baroclinic"])
def test_rossby_waves_have_their_speed(kind):
    """A plane wave of any amplitude is an exact solution: only its phase moves."""
    model, m, n, steps = still(dt=7200.0), 3, 2, 100
    shape = np.array([1.0, 1.0]) if kind == "barotropic" else np.array([1.0, -RATIO])
    k = 2 * math.pi / LENGTH * m
    k2 = (2 * math.pi / LENGTH) ** 2 * (m**2 + n**2)
    omega = -BETA * k / (k2 + (0 if kind == "barotropic" else F.sum()))
    a = 1e4 * vorticity(shape, m, n)
    moved = plane_wave(32, m, n, a, omega * steps * 7200.0)
    start = plane_wave(32, m, n, a)
    # The phase error of one step is (omega dt)^5 / 120.
    tolerance = 5 * steps * abs(omega * 7200.0) ** 5 / 120 + 1e-11
    assert (model(start, steps) - moved).abs().max() < tolerance * start.abs().max()
    assert (start - moved).abs().max() > 0.1 * start.abs().max()


@pytest.mark.parametrize(("m", "n"), [(5, 0), (4, 2)])
def test_a_small_wave_grows_as_its_eigenvalue(m, n):
    U, drag, dt, steps = np.array([0.16, 0.0]), 1e-6, 1800.0, 200
    model = still(flow=tuple(U), drag=drag, dt=dt)
    k, k2 = 2 * math.pi / LENGTH * m, (2 * math.pi / LENGTH) ** 2 * (m**2 + n**2)
    Q = BETA + F * (U - U[::-1])
    # q = A psi; A psi_t = -i k (U A + Q) psi + drag k^2 psi_2.
    A = np.array([[-k2 - F[0], F[0]], [F[1], -k2 - F[1]]])
    right = -1j * k * (np.diag(U) @ A + np.diag(Q)) + drag * k2 * np.diag([0.0, 1.0])
    values, vectors = np.linalg.eig(np.linalg.solve(A, right))
    best = values.real.argmax()
    rate, psi = values[best], vectors[:, best]
    assert rate.real > 1e-7
    q = 1e-3 * (A @ psi)
    start, end = (plane_wave(32, m, n, q * np.exp(rate * t)) for t in (0.0, steps * dt))
    tolerance = 5 * steps * abs(k * 0.16 * dt) ** 5 / 120 + 1e-9
    found = model(start, steps)
    assert (found - end).abs().max() < tolerance * end.abs().max()


def turbulence(model, generator, steps=200):
    """A turbulent state; drag and shear do not matter to how it was made."""
    maker = TwoLayerQG(model.size, LENGTH, RADIUS, RATIO, BETA, flow=(0.3, 0.0), dt=2400.0)
    q = maker(8 * maker.initial(generator), steps)
    state = model.enter(q) * (model.damping > 0.5)
    return model.leave(state)


def test_the_tendency_is_that_of_plain_numpy(generator):
    """All terms at once, on turbulence, in advective form: only aliases may differ, none here."""
    U, drag = np.array([0.16, -0.02]), 2e-6
    model = still(64, flow=tuple(U), drag=drag)
    psi = 1e4 * np.random.default_rng(0).standard_normal((2, 64, 64))
    k = 2 * math.pi / LENGTH * np.fft.fftfreq(64, 1 / 64)
    kx, ky = np.meshgrid(k, k)
    lap = -(kx**2 + ky**2)
    # Waves under a sixth of the square's wavenumbers: their products are all kept.
    spectrum = np.fft.fft2(psi) * (np.maximum(abs(kx), abs(ky)) < k.max() / 3)
    spectrum[:, 0, 0] = 0
    vortex = lap * spectrum + F[:, None, None] * (spectrum[::-1] - spectrum)
    real = lambda s: np.fft.ifft2(s).real
    u, v = real(-1j * ky * spectrum), real(1j * kx * spectrum)
    qx, qy = real(1j * kx * vortex), real(1j * ky * vortex)
    mean = U[:, None, None]
    gradient = (BETA + F * (U - U[::-1]))[:, None, None]
    expected = -(u + mean) * qx - v * (qy + gradient)
    expected[1] -= drag * real(lap * spectrum)[1]
    state = model.enter(torch.as_tensor(real(vortex)))
    found = model.leave(model.tendency(state)).numpy()
    assert abs(found - expected).max() < 1e-10 * abs(expected).max()


def invariants(model, q):
    enstrophy = (q.square().mean((-1, -2)) * model.thickness).sum(-1)
    return torch.stack([model.energy(q), enstrophy])


def test_energy_and_enstrophy_are_conserved(generator):
    """Exactly by the equations truncated in wavenumber; to the fourth order by the steps."""
    q = turbulence(still(), generator)
    model = still()
    state = model.enter(q).requires_grad_()
    rate = model.leave(model.tendency(state)).detach()
    psi = model.leave(model.streamfunction(state)).detach()
    weight = model.thickness[:, None, None]
    for other in (psi, q):  # d(energy)/dt, then d(enstrophy)/dt
        size = (weight * (rate * other).abs()).mean()
        assert (weight * rate * other).mean().abs() < 1e-10 * size
    drift = []
    for parts in (1, 2):
        model = still(dt=14400.0 / parts)
        drift.append((invariants(model, model(q, 40 * parts)) / invariants(model, q) - 1).abs())
    assert drift[0].max() < 1e-2
    assert (drift[0] / drift[1]).min() > 12


def test_drag_and_filter_lose_energy(generator):
    q = turbulence(still(), generator)
    for given in ({"drag": 1e-6}, {"filter": "exponential"}):
        model = still(dt=2400.0, **given)
        before, after = (invariants(model, x) for x in (q, model(q, 50)))
        assert (after < before).all()


def test_single_precision_is_close(generator):
    q = turbulence(still(), generator)
    double, single = (still(dt=3600.0, dtype=t) for t in (torch.float64, torch.float32))
    a, b = double(q, 20), single(q.float(), 20)
    assert b.dtype == torch.float32
    assert (a - b).abs().max() < 1e-4 * a.abs().max()


def test_the_square_turns_with_the_field(generator):
    """A shift of the field shifts its future: the square is periodic, the shear uniform."""
    model = TwoLayerQG(16)
    q = 50 * model.initial(generator)
    shifted = model(q.roll((3, 5), (-2, -1)), 10)
    assert_close(shifted, model(q, 10).roll((3, 5), (-2, -1)), rtol=1e-9, atol=1e-18)


def test_starts_follow_their_generator():
    model = TwoLayerQG(16)
    a, b, c = (model.initial(torch.Generator().manual_seed(k)) for k in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 15}, "expected an even size, 4 or more, got 15"),
        ({"size": 16, "radius": 0.0}, r"radius=\.\.\.\): expected a positive number, got 0"),
        ({"size": 16, "filter": "none"}, "expected one of .*, got 'none'"),
    ],
)
def test_bad_arguments_are_told(given, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerQG(**given)
