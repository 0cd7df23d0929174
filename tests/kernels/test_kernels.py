"""Kernels: positive definite everywhere they are said to be, right limits, right identities."""

from __future__ import annotations

import io
import itertools
import math
import numpy as np
import pytest
import scipy.special
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.linalg.composition import dense
from matheron.testing import check_kernel

DOUBLE = torch.float64


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)[:, None]


ANY = {
    "exponential": lambda: mt.Matern(0.5, 2.0, 1.5),
    "rough": lambda: mt.Matern(0.2, 1.0, 0.7, learn_nu=True),
    "any-nu": lambda: mt.Matern(1.1, 1.0, 0.7, learn_nu=True),
    "matern-5/2": lambda: mt.Matern(2.5, 1.0, 0.7),
    "smooth": lambda: mt.Matern(8.0, 1.0, 0.4),
    "gaussian": lambda: mt.Gaussian(1.0, 0.5),
    "wendland-0": lambda: mt.Wendland(1.0, 1.5, smoothness=0),
    "wendland-1": lambda: mt.Wendland(1.0, 1.5, smoothness=1),
    "wendland-2": lambda: mt.Wendland(1.0, 1.5, smoothness=2),
    "sum": lambda: mt.Matern(0.5) + 2.0 * mt.Gaussian(1.0, 0.7),
    "product": lambda: mt.Matern(1.5, 1.0, 2.0) * mt.Gaussian(1.0, 2.0),
    "nugget": lambda: mt.Nugget(0.1) + mt.Matern(1.5),
}
FIXED = {
    1: {
        "periodic": lambda: mt.Periodic(1.3),
        "drifting": lambda: mt.Periodic(1.3) * mt.Matern(0.5),
    },
    2: {
        "rotated": lambda: mt.Matern(1.5, 1.0, (0.5, 2.0), rotation=35.0),
        "separable": lambda: mt.separable(
            mt.Matern(0.5, axes="time"), mt.Matern(1.5, axes="space")
        ),
        "gneiting": lambda: mt.Gneiting(1.0, 0.8, 1.5, interaction=0.9),
    },
    3: {
        "rotated": lambda: mt.Matern(0.8, 1.0, (0.5, 2.0, 1.0), rotation=(35.0, -20.0, 70.0)),
        "one-angle": lambda: mt.Matern(0.5, 1.0, (0.5, 2.0, 1.0), rotation=35.0),
        "gneiting": lambda: mt.Gneiting(
            1.0, 0.8, 1.5, nu=1.5, alpha=0.9, interaction=0.7, decay=0.3
        ),
        "sum-metric": lambda: mt.sum_metric(
            mt.Matern(0.5, axes="time"), mt.Matern(1.5, axes="space"), mt.Matern(2.5)
        ),
    },
}
CASES = [(k, v, d) for (k, v), d in itertools.product(ANY.items(), (1, 2, 3))]
CASES += [(k, v, d) for d, some in FIXED.items() for k, v in some.items()]


@pytest.mark.parametrize(("name", "build", "d"), CASES, ids=[f"{k}-{d}" for k, _, d in CASES])
def test_laws(name: str, build, d: int) -> None:
    check_kernel(build(), d)


def globe(n: int = 90) -> mt.Points:
    """Points all over the sphere, poles and both sides of the dateline included."""
    z = 2 * torch.rand(n, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) - 1
    lon = 360 * torch.rand(n, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)) - 180
    lat, lon = z.asin().rad2deg(), lon
    lat[:4] = torch.tensor([90.0, -90.0, 10.0, 10.0])
    lon[:4] = torch.tensor([0.0, 0.0, 180.0, -179.999])
    return mt.Points(lat=lat, lon=lon)


@pytest.mark.parametrize(
    "kernel",
    [
        mt.Matern(0.5, 1.0, 3e6),
        mt.Matern(2.5, 1.0, 1e7),  # as wide as the globe: with great-circle distances it fails
        mt.Matern(0.5, 1.0, (2e6, 6e6), rotation=30.0),
        mt.Gaussian(1.0, 3e6),
        mt.Wendland(1.0, 1.2e7, smoothness=2),
    ],
    ids=["exponential", "wide", "rotated", "gaussian", "wendland"],
)
def test_positive_definite_on_the_whole_sphere(kernel: mt.kernels.Kernel) -> None:
    points = globe()
    prior = mt.GaussianProcess(kernel, points)
    values = torch.linalg.eigvalsh(prior.covariance(points, points).detach())
    assert values[0] > -1e-9 * values[-1]
    assert prior.sample(2).isfinite().all()


def test_gneiting_is_positive_definite_over_days_and_the_whole_sphere() -> None:
    points = globe()
    points = mt.Points(
        time=10 * normal(90, seed=3), lat=points.axis("lat"), lon=points.axis("lon")
    )
    for alpha, interaction in itertools.product((0.3, 1.0), (0.0, 0.5, 1.0)):
        kernel = mt.Gneiting(1.0, 3e6, 5.0, 1.5, alpha, interaction, decay=0.1)
        prior = mt.GaussianProcess(kernel, points)
        values = torch.linalg.eigvalsh(prior.covariance(points, points).detach())
        assert values[0] > -1e-9 * values[-1], (alpha, interaction)


# Values.

U = torch.cat([torch.logspace(-6, 1.5, 60, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)])[:, None]


@pytest.mark.parametrize("nu", [0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.7, 6.0, 12.0, 40.0])
def test_matern_against_bessel_functions(nu: float) -> None:
    found = mt.Matern(nu, 2.0, 1.7)(U, column(0.0))[:, 0].detach()
    u = (2 * nu) ** 0.5 * U[:-1, 0].numpy() / 1.7
    log = (1 - nu) * math.log(2) - scipy.special.gammaln(nu) + nu * np.log(u)
    expected = 2.0 * np.exp(log + np.log(scipy.special.kve(nu, u)) - u)
    assert_close(found[:-1], torch.as_tensor(expected), rtol=1e-6, atol=2e-9)
    assert found[-1] == 2.0


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_a_learned_half_integer_is_the_closed_form(nu: float) -> None:
    tabled, closed = (mt.Matern(nu, 1.3, 0.8, learn_nu=b)(U, column(0.0)) for b in (True, False))
    assert_close(tabled, closed, rtol=1e-7, atol=1e-9)


def test_closed_forms() -> None:
    r, zero = U, column(0.0)
    assert_close(mt.Matern(0.5, 2.0, 3.0)(r, zero), 2 * (-r / 3).exp())
    u = 3**0.5 * r
    assert_close(mt.Matern(1.5)(r, zero), (1 + u) * (-u).exp())
    u = 5**0.5 * r
    assert_close(mt.Matern(2.5)(r, zero), (1 + u + u**2 / 3) * (-u).exp())
    assert_close(mt.Gaussian(2.0, 3.0)(r, zero), 2 * (-(r**2) / 18).exp())


def test_a_very_smooth_matern_is_nearly_gaussian() -> None:
    r"""The first correction is of order :math:`1/\nu`: named tolerances, and it halves."""
    r = torch.linspace(0, 4, 50, dtype=DOUBLE)[:, None]
    gap = [
        (mt.Matern(nu)(r, column(0.0)) - mt.Gaussian()(r, column(0.0))).abs().max().item()
        for nu in (12.0, 24.0, 48.0)
    ]
    assert gap[2] < 0.01
    assert_close(gap[0] / gap[1], 2.0, rtol=0.1, atol=0.0)
    assert_close(gap[1] / gap[2], 2.0, rtol=0.1, atol=0.0)


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.0, 1.5, 2.2, 7.0])
def test_gradient_in_the_smoothness(nu: float) -> None:
    """Against central differences of the Bessel formula, in the logarithm of nu."""
    kernel = mt.Matern(nu, 1.0, 1.3, learn_nu=True)
    x, y = normal(20, 2), normal(15, 2, seed=1)
    weights = normal(20, 15, seed=2)
    (slope,) = torch.autograd.grad((weights * kernel(x, y)).sum(), [kernel.log_nu])

    def brute(value: float) -> float:
        u = (2 * value) ** 0.5 * torch.cdist(x, y).numpy() / 1.3
        rho = 2 ** (1 - value) / scipy.special.gamma(value) * u**value * scipy.special.kv(value, u)
        return float((weights.numpy() * rho).sum())

    step = 1e-4
    expected = (brute(nu * math.exp(step)) - brute(nu * math.exp(-step))) / (2 * step)
    assert abs(slope.item() - expected) < 1e-5 * (1 + abs(expected))


def test_periodic_repeats() -> None:
    kernel = mt.Periodic(period=24.0, variance=2.0, lengthscale=0.7)
    t = torch.linspace(0, 24, 13, dtype=DOUBLE)[:, None]
    assert_close(kernel(t, column(5.0)), kernel(t + 24 * 7, column(5.0)), rtol=1e-9, atol=1e-9)
    expected = 2 * (-2 * (math.pi * (t - 5.0) / 24).sin().square() / 0.7**2).exp()
    assert_close(kernel(t, column(5.0)), expected)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_wendland_is_zero_beyond_its_lengthscale(k: int) -> None:
    kernel = mt.Wendland(1.5, 2.0, smoothness=k)
    r = torch.linspace(0, 2, 41, dtype=DOUBLE)[:, None]
    u = r / 2
    factor = (torch.ones_like(u), 4 * u + 1, (35 * u**2 + 18 * u + 3) / 3)[k]
    assert_close(
        kernel(r, column(0.0)), 1.5 * (1 - u) ** (2 + 2 * k) * factor, rtol=1e-6, atol=1e-8
    )
    assert (kernel(column(2.0, 2.001, 3.0, 1e9), column(0.0)) == 0).all()


def test_gneiting_without_interaction_is_separable() -> None:
    kernel = mt.Gneiting(2.0, 1.5, 3.0, nu=1.5, alpha=0.6, interaction=0.0, decay=0.8)
    x = normal(30, 3)
    time, space = x.clone(), x.clone()
    time[:, 1:], space[:, :1] = 0, 0
    product = kernel(time, time) * kernel(space, space) / 2.0
    assert_close(kernel(x, x), product, rtol=1e-9, atol=1e-9)
    assert_close(
        kernel(space, space), mt.Matern(1.5, 2.0, 1.5)(space, space), rtol=1e-7, atol=1e-8
    )


def test_gneiting_by_its_formula() -> None:
    kernel = mt.Gneiting(2.0, 1.5, 3.0, nu=0.5, alpha=0.6, interaction=0.7, decay=0.2)
    t, h = 1.3, 0.9
    found = kernel(torch.zeros(1, 3), torch.tensor([[t, h, 0.0]], dtype=DOUBLE)).item()
    psi = 1 + (t / 3.0) ** 1.2
    expected = 2.0 * psi ** -(0.2 + 0.7) * math.exp(-h / 1.5 / psi**0.35)
    assert_close(found, expected, rtol=1e-7, atol=0.0)


def test_gneiting_gradients_are_finite_where_times_coincide() -> None:
    kernel = mt.Gneiting(alpha=0.3)
    x = torch.zeros(4, 3, dtype=DOUBLE)
    x[:, 1] = torch.arange(4.0)
    slopes = torch.autograd.grad(
        kernel(x, x).sum(), [p for p in kernel.parameters() if p.requires_grad]
    )
    assert all(s.isfinite() for s in slopes)


# Identities.


def test_sums_products_and_scales() -> None:
    a, b, x = mt.Matern(0.5, 2.0, 1.3), mt.Gaussian(0.7, 2.0), normal(12, 2)
    A, B = a(x, x), b(x, x)
    assert_close((a + b)(x, x), A + B)
    assert_close((a * b)(x, x), A * B)
    assert_close((3.0 * a)(x, x), 3 * A)
    assert_close((a * 3.0)(x, x), 3 * A)
    assert_close((a * (b + 2.0 * a))(x, x), A * (B + 2 * A))
    assert_close(((a + b) + a)(x, x), (a + (b + a))(x, x))
    assert len(list((a + a).parameters())) == len(list(a.parameters()))  # one kernel, shared
    with pytest.raises(
        ValueError, match=r"Scaled\(scale=...\): expected positive numbers, got -1"
    ):
        -1.0 * a


@pytest.mark.parametrize(("name", "build", "d"), CASES, ids=[f"{k}-{d}" for k, _, d in CASES])
def test_terms_reproduce_the_kernel(name: str, build, d: int) -> None:
    kernel, x = build(), normal(25, d)
    composition = kernel.terms(x)
    if composition is None:
        assert any(isinstance(k, mt.Nugget | mt.Gneiting) for k in kernel.modules())
    else:
        assert_close(dense(composition), kernel(x, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "build", "d"), CASES, ids=[f"{k}-{d}" for k, _, d in CASES])
def test_state_goes_through_a_file(name: str, build, d: int) -> None:
    first, second, x = build(), build(), normal(6, d)
    with torch.no_grad():
        for p in first.parameters():
            p += 0.1
    assert not torch.allclose(first(x, x), second(x, x))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(first(x, x), second(x, x))
    assert repr(first).startswith(type(first).__name__)


@pytest.mark.parametrize(("name", "build", "d"), CASES, ids=[f"{k}-{d}" for k, _, d in CASES])
def test_single_precision_is_close_to_double(name: str, build, d: int) -> None:
    """Named tolerance: parameters are rounded at 6e-8 of their logarithms."""
    x = normal(10, d)
    exact, rounded = build()(x, x), build().float()(x, x)
    assert_close(rounded.double(), exact, rtol=1e-4, atol=1e-5)


# Rotation.


def metric(kernel: mt.Matern, d: int) -> Tensor:
    """The matrix that takes lags to lengthscales."""
    return kernel.scaled(torch.eye(d, dtype=DOUBLE)).detach() / math.sqrt(2 * kernel.nu.item())


@pytest.mark.parametrize("angle", [-170.0, -60.0, -45.0, 0.0, 10.0, 45.0, 90.0, 135.0])
def test_rotation_turns_the_last_axis_counter_clockwise(angle: float) -> None:
    """Coordinates are (y, x): the direction at ``angle`` from x carries the last lengthscale."""
    kernel = mt.Matern(0.5, 1.0, (0.5, 2.0), rotation=angle)
    a = math.radians(angle)
    along = torch.tensor([[math.sin(a), math.cos(a)]], dtype=DOUBLE)
    across = torch.tensor([[math.cos(a), -math.sin(a)]], dtype=DOUBLE)
    zero = torch.zeros(1, 2, dtype=DOUBLE)
    assert_close(kernel(zero, 2.0 * along).item(), math.exp(-1))
    assert_close(kernel(zero, 0.5 * across).item(), math.exp(-1))


@pytest.mark.parametrize("angle", [-170.0, -60.0, -45.0, 0.0, 10.0, 45.0, 90.0])
def test_lengthscales_and_rotation_go_round(angle: float) -> None:
    kernel = mt.Matern(0.5, 1.0, (0.5, 2.0), rotation=angle)
    scale, rotation = kernel.principal_axes()
    assert rotation.abs() <= 45 + 1e-9
    again = mt.Matern(0.5, 1.0, scale.detach(), rotation=rotation.item())
    assert_close(metric(again, 2), metric(kernel, 2))
    if abs(angle) < 45:
        assert_close(scale, torch.tensor([0.5, 2.0], dtype=DOUBLE))
        assert_close(rotation.item(), angle, rtol=0.0, atol=1e-9)


def test_three_rotations_go_round() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        scale = torch.randn(3, dtype=DOUBLE, generator=generator).exp()
        angles = 360 * (torch.rand(3, dtype=DOUBLE, generator=generator) - 0.5)
        kernel = mt.Matern(0.5, 1.0, scale, rotation=angles.tolist())
        found, rotation = kernel.principal_axes()
        assert_close(found.sort().values, scale.sort().values)
        again = mt.Matern(0.5, 1.0, found.detach(), rotation=rotation.tolist())
        assert_close(metric(again, 3), metric(kernel, 3), rtol=1e-8, atol=1e-8)


def test_equal_lengthscales_do_not_turn() -> None:
    x = normal(8, 2)
    turned = mt.Matern(1.5, 1.0, (0.7, 0.7), rotation=33.0)
    assert_close(turned(x, x), mt.Matern(1.5, 1.0, 0.7)(x, x))
    slopes = torch.autograd.grad(turned(x, x).sin().sum(), [turned.log_lengthscale, turned.shear])
    assert all(s.isfinite().all() for s in slopes)


def test_height_takes_the_geometric_mean_on_the_sphere() -> None:
    kernel = mt.Matern(0.5, 1.0, (1e5, 4e5))
    up = torch.tensor([[0.0, 0.0, 2e5]], dtype=DOUBLE)
    assert_close(kernel(torch.zeros(1, 3), up).item(), math.exp(-1))


# What is refused.

BAD = [
    (lambda: mt.Matern(nu=0.0), r"Matern\(nu=...\): expected positive numbers, got 0.0"),
    (
        lambda: mt.Matern(nu=80.0),
        r"Matern\(nu=...\): expected a smoothness between 0.05 and 50, got 80",
    ),
    (
        lambda: mt.Matern(variance=-1.0),
        r"Matern\(variance=...\): expected positive numbers, got -1",
    ),
    (lambda: mt.Gaussian(lengthscale=(1.0, 0.0)), r"Gaussian\(lengthscale=...\): .* \[1.0, 0.0\]"),
    (lambda: mt.Gaussian(lengthscale=math.nan), r"Gaussian\(lengthscale=...\): .* got nan"),
    (lambda: mt.Matern(axes="depth"), r"Matern\(axes=...\): .* got 'depth'"),
    (lambda: mt.Matern(rotation=10.0), r"Matern\(rotation=...\): .* got 1 angles"),
    (
        lambda: mt.Matern(lengthscale=(1.0, 2.0), rotation=(1.0, 2.0)),
        r"rotation=...\): .* got 2 angles",
    ),
    (lambda: mt.Wendland(smoothness=3), r"Wendland\(smoothness=...\): expected 0, 1 or 2, got 3"),
    (
        lambda: mt.Wendland()(torch.zeros(1, 4), torch.zeros(1, 4)),
        r"at most 3 coordinates.* got 4",
    ),
    (
        lambda: mt.Matern(lengthscale=(1.0, 2.0))(torch.zeros(1, 4), torch.zeros(1, 4)),
        r"got 2 values for 4",
    ),
    (lambda: mt.Periodic(period=0.0), r"Periodic\(period=...\): expected positive"),
    (
        lambda: mt.Periodic()(torch.zeros(1, 2), torch.zeros(1, 2)),
        r"expected one coordinate, got 2",
    ),
    (lambda: mt.Nugget(0.0), r"Nugget\(variance=...\): expected positive"),
    (
        lambda: mt.Gneiting(alpha=1.2),
        r"Gneiting\(alpha=...\): expected a number in \[0.001, 1\], got 1.2",
    ),
    (lambda: mt.Gneiting(interaction=-0.1), r"Gneiting\(interaction=...\): .* got -0.1"),
    (lambda: mt.Gneiting(decay=-1.0), r"Gneiting\(decay=...\): expected at least zero, got -1"),
    (
        lambda: mt.separable(mt.Matern(), mt.Matern(axes="space")),
        r"separable\(time=...\): .* got Matern over None",
    ),
    (
        lambda: mt.sum_metric(mt.Matern(axes="time"), mt.Matern(axes="time"), mt.Matern()),
        r"separable|sum_metric\(space=...\): .* Matern over 'time'",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_arguments_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
