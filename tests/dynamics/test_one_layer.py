r"""Laws of one-layer flow and of its inversion: dense systems, basin modes, jets, coasts."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics import Helmholtz, OneLayerQG
from matheron.dynamics.one_layer import _upwind


def box(ny, nx, **given):
    lat = torch.linspace(33, 43, ny, dtype=torch.float64)
    lon = torch.linspace(-65, -55, nx, dtype=torch.float64)
    return lat, lon, OneLayerQG.on_sphere(lat, lon, **given)


def coast(ny, nx, generator):
    """A ragged continent, an island, a lake and a peninsula one node wide."""
    frozen = torch.zeros(ny, nx, dtype=torch.bool)
    frozen[:4, :5] = True
    frozen[1, 2] = False
    frozen[ny - 6 : ny - 4, 4:7] = True
    frozen[ny // 2, nx // 2 :] = True
    frozen |= torch.rand(ny, nx, generator=generator) < 0.05
    return frozen


def noise(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def dense(width, height, screening, frozen):
    """The same equation, node by node, from its formula."""
    ny, nx = frozen.shape
    A = torch.zeros(ny, nx, ny, nx, dtype=torch.float64)
    for j in range(ny):
        for i in range(nx):
            if frozen[j, i] or j in {0, ny - 1} or i in {0, nx - 1}:
                A[j, i, j, i] = 1
                continue
            for a, b, w in (
                (j, i - 1, width[j] ** -2),
                (j, i + 1, width[j] ** -2),
                (j - 1, i, (width[j] + width[j - 1]) / 2 / width[j] / height**2),
                (j + 1, i, (width[j] + width[j + 1]) / 2 / width[j] / height**2),
            ):
                A[j, i, a, b] += w
                A[j, i, j, i] -= w
            A[j, i, j, i] -= screening[j]
    return A.reshape(ny * nx, -1)


@pytest.mark.parametrize("land", [False, True])
def test_the_inversion_solves_the_dense_system(generator, land):
    width = torch.linspace(2.0, 1.2, 12, dtype=torch.float64)
    screening = torch.linspace(0.1, 0.4, 12, dtype=torch.float64)
    frozen = torch.zeros(12, 15, dtype=torch.bool)
    frozen = coast(12, 15, generator) if land else frozen
    solver = Helmholtz(width, 1.7, screening, frozen)
    q, given = noise(generator, 3, 12, 15), noise(generator, 3, 12, 15)
    right = torch.where(solver.frozen, given, q).flatten(-2)
    expected = torch.linalg.solve(dense(width, 1.7, screening, frozen), right.mT).mT
    assert_close(solver(q, given), expected.reshape(q.shape), rtol=1e-9, atol=1e-10)


def test_the_residual_of_the_inversion_is_round_off(generator):
    _, _, model = box(60, 70, frozen=coast(60, 70, generator))
    psi = noise(generator, 60, 70)
    back = model.invert(model.vorticity(psi), psi)
    assert (back - psi).abs().max() < 1e-10


def test_the_laplacian_is_that_of_the_sphere():
    """A spherical harmonic of degree one has the eigenvalue -2 / R^2, to the second order."""
    errors = []
    for n in (21, 41):
        lat, lon, model = box(n, n)
        phi, lam = torch.deg2rad(lat)[:, None], torch.deg2rad(lon)
        f = phi.cos() * lam.cos()
        found = model.solver.laplacian(f)[2:-2, 2:-2]
        errors.append((found + 2 * f[2:-2, 2:-2] / 6_371_008.8**2).abs().max().item())
    assert errors[0] < 1e-3 * 2 / 6_371_008.8**2
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_upwind_differences_are_exact_on_cubics(generator):
    x = torch.arange(9, dtype=torch.float64)
    q = (0.3 * x**3 - x**2 + 2 * x).expand(4, 9)
    u = noise(generator, 4, 9)
    slope = u * (0.9 * x**2 - 2 * x + 2)
    for way in (1.0, -1.0):
        assert_close(_upwind(u, q, -1, way)[:, 2:-2], slope[:, 2:-2])
        assert_close(_upwind(u.mT, q.mT, -2, way).mT[:, 2:-2], slope[:, 2:-2])


def test_upwind_looks_where_the_flow_comes_from():
    q = torch.zeros(1, 9, dtype=torch.float64)
    q[0, 6] = 1.0  # two nodes downstream of node 4: not seen from there
    right = torch.ones(1, 9, dtype=torch.float64)
    assert _upwind(right, q, -1, 1.0)[0, 4] == 0
    assert _upwind(right, q, -1, -1.0)[0, 4] != 0


def basin_mode(n, t, speed=20.0, length=1e6):
    """Rossby's normal mode of a closed square basin, of small amplitude."""
    f, beta = 9e-5, 1.75e-11
    k = math.pi / length
    omega = beta / (2 * math.sqrt(2 * k**2 + (f / speed) ** 2))
    s = torch.linspace(0, length, n, dtype=torch.float64)
    wave = torch.cos(beta * s / (2 * omega) + omega * t)
    return 1e-6 * wave * torch.sin(k * s) * torch.sin(k * s)[:, None], 2 * math.pi / omega


def test_rossby_basin_modes_oscillate_as_they_should():
    """The dispersion relation, to the second order in the spacing."""
    errors = []
    for n in (21, 41):
        start, period = basin_mode(n, 0.0)
        dt = period / 400
        model = OneLayerQG.on_plane((n, n), 1e6 / (n - 1), speed=20.0, dt=dt)
        expected, _ = basin_mode(n, 100 * dt)
        errors.append((model(start, 100) - expected).norm() / expected.norm())
    assert errors[1] < 0.02
    assert 3 < errors[0] / errors[1] < 5


def test_a_zonal_jet_is_steady():
    lat, _, model = box(41, 45, dt=3600.0)
    jet = (-0.6 * torch.tanh((lat - 38) / 1.5))[:, None].expand(41, 45)
    assert (model(jet, 100) - jet).abs().max() < 1e-12


def eddy(lat, lon, height=0.3, at=(38.0, -60.0)):
    d2 = (lat[:, None] - at[0]) ** 2 + ((lon - at[1]) * math.cos(math.radians(38))) ** 2
    return height * torch.exp(-d2 / 0.8**2)


def centre(eta, lon):
    return ((eta * lon).sum() / eta.sum()).item()


def test_an_eddy_drifts_west():
    """No faster than the long Rossby wave, beta c^2 / f^2: 1.4 km a day here."""
    lat, lon, model = box(61, 61, dt=1800.0)
    start = eddy(lat, lon)
    moved = (centre(model(start, 48 * 10), lon) - centre(start, lon)) * 87.6
    assert -20 < moved < -5


def test_land_and_border_hold_and_a_wall_parts_the_sea(generator):
    frozen = torch.zeros(31, 41, dtype=torch.bool)
    frozen[:, 19:22] = True
    lat, lon, model = box(31, 41, frozen=frozen)
    jet = (-0.3 * torch.tanh(lat - 38))[:, None] + 0 * lon
    stirred = jet + eddy(lat, lon, at=(38.0, -63.0))
    west = torch.where(lon[None] < -60, stirred, jet)
    a, b = model(jet, 50), model(west, 50)
    assert_close(b[model.frozen], west[model.frozen], rtol=1e-14, atol=0)
    assert (b - west)[:, :19].abs().max() > 1e-3
    assert_close(a[:, 22:], b[:, 22:], rtol=0, atol=1e-12)


def test_the_flow_goes_back():
    lat, lon, model = box(41, 41)
    start = eddy(lat, lon) - (0.5 * torch.tanh(lat - 38))[:, None]
    forth = model(start, 72)
    back = box(41, 41, dt=-1200.0)[2](forth, 72)
    assert (forth - start).abs().max() > 0.02
    assert (back - start).norm() < 0.2 * (forth - start).norm()


def test_the_border_can_be_moved():
    lat, lon, model = box(21, 21)
    start = eddy(lat, lon)
    border = torch.full_like(start, 0.05)
    after = model.step(torch.where(model.frozen, border, start))
    assert_close(after[0], border[0], rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: box(9, 9, speed=0.0), "expected a positive speed, got 0"),
        (lambda: OneLayerQG.on_plane((9, 9), 1e4, coriolis=0.0), "Keep the box off the equator"),
        (lambda: OneLayerQG.on_plane((2, 9), 1e4), "expected 3 nodes or more on a side"),
        (
            lambda: OneLayerQG.on_sphere(torch.tensor([1.0, 2.0, 4.0]), torch.arange(4.0)),
            r"on_sphere\(lat=\.\.\.\): expected increasing, evenly spaced degrees",
        ),
        (
            lambda: Helmholtz(*(torch.ones(5), 1.0, -torch.ones(5)), torch.ones(5, 5) < 0),
            "expected values that are not negative, got -1",
        ),
    ],
)
def test_bad_arguments_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()
