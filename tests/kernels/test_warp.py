"""Warps: the identity to start with, never a fold, inverses, determinants, gauge."""

from __future__ import annotations

import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.fit.architecture import build, describe, known_classes
from matheron.kernels import (
    AffineWarp,
    AxialWarp,
    FlowWarp,
    GaugedWarp,
    RadialWarp,
    Warp,
    WarpChain,
    radial_lattice,
)
from matheron.kernels.reference import bending, lattice

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(warp: Warp, size: float = 1.0, seed: int = 0) -> Warp:
    """The warp with random weights."""
    draws = generator(seed)
    with torch.no_grad():
        for p in warp.parameters():
            p.add_(size * torch.randn(p.shape, dtype=DOUBLE, generator=draws))
    return warp


def sites(d: int, count: int = 40, reach: float = 2.0) -> Tensor:
    return reach * (2 * torch.rand(count, d, dtype=DOUBLE, generator=generator(9)) - 1)


WARPS = {
    "affine": lambda: AffineWarp(2),
    "axial": lambda: AxialWarp(2, axis=1, knots=5),
    "axial-1d": lambda: AxialWarp(1),
    "radial": lambda: RadialWarp([0.3, -0.2], 0.4),
    "radial-3d": lambda: RadialWarp([0.3, -0.2, 0.1], 0.4),
    "lattice": lambda: radial_lattice(2, 3),
    "chain": lambda: WarpChain([AxialWarp(2, 0), AxialWarp(2, 1), RadialWarp([0.0, 0.0])]),
    "flow-affine": lambda: FlowWarp(2, "affine", width=8, generator=generator(1)),
    "flow-spline": lambda: FlowWarp(2, "spline", width=8, generator=generator(1)),
    "flow-3d": lambda: FlowWarp(3, "spline", width=8, generator=generator(1)),
    "gauged": lambda: GaugedWarp(
        WarpChain([AffineWarp(2), AxialWarp(2), RadialWarp([0.0, 0.3])]), [-1.0, -2.0], [3.0, 1.0]
    ),
    "gauged-flow": lambda: GaugedWarp(
        FlowWarp(2, width=8, generator=generator(1)), [-2.0, -2.0], [2.0, 2.0], (3.0, 1.0)
    ),
}
every = pytest.mark.parametrize("build_warp", WARPS.values(), ids=WARPS.keys())


@every
def test_starts_from_the_identity(build_warp) -> None:
    """To the machine: rounding of what is of order one, through at most a dozen maps."""
    warp = build_warp()
    x = sites(warp.dimensions)
    assert_close(warp(x), x, rtol=0, atol=4e-15)
    assert_close(warp.log_det_jacobian(x), torch.zeros(len(x), dtype=DOUBLE), rtol=0, atol=2e-14)


@every
@pytest.mark.parametrize("size", [0.5, 3.0])
def test_never_folds(build_warp, size: float) -> None:
    """On a fine lattice beyond the box, whatever the weights."""
    for seed in range(3):
        warp = shaken(build_warp(), size, seed)
        d = warp.dimensions
        x = lattice(torch.full((d,), 3.0).double(), 61 if d < 3 else 13)
        assert warp.log_det_jacobian(x).isfinite().all()
        J = warp.jacobian(x).detach()
        # wild weights make slopes of any size: digits of the whole are then lost, not its sign
        lost = 1e-13 * J.norm(dim=-1).prod(dim=-1) if size > 1 else 0.0
        assert (torch.linalg.det(J) > -lost).all()


@every
def test_determinant_is_that_of_autograd(build_warp) -> None:
    warp = shaken(build_warp(), 0.7)
    x = sites(warp.dimensions)
    found = warp.log_det_jacobian(x)
    assert_close(found, torch.linalg.det(warp.jacobian(x)).log(), rtol=1e-9, atol=1e-9)


@every
def test_inverse(build_warp) -> None:
    warp = shaken(build_warp(), 0.7)
    x = sites(warp.dimensions)
    u = warp(x).detach()
    assert_close(warp.inverse(u), x, rtol=1e-8, atol=1e-8)
    assert_close(warp(warp.inverse(u)).detach(), u, rtol=1e-9, atol=1e-9)


@every
def test_batches_and_gradients(build_warp) -> None:
    warp = shaken(build_warp(), 0.3)
    x = sites(warp.dimensions, 12)
    assert_close(warp(x.reshape(3, 4, -1)).reshape(12, -1), warp(x))
    assert warp.log_det_jacobian(x.reshape(3, 4, -1)).shape == (3, 4)
    total = warp(x).sin().sum() + warp.log_det_jacobian(x).sum()
    slopes = torch.autograd.grad(total, list(warp.parameters()))
    assert all(s.isfinite().all() and (s != 0).any() for s in slopes)


@every
def test_is_described_and_made_again(build_warp) -> None:
    warp, classes, tensors = shaken(build_warp()), known_classes(), {}
    again = build(describe(warp, classes, tensors), classes, tensors, None)
    again.load_state_dict(warp.state_dict())
    x = sites(warp.dimensions)
    assert torch.equal(again(x), warp(x))


def test_flows_draw_their_weights_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    a, b = (FlowWarp(2, width=8, generator=generator(3)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_affine_and_axial_by_hand() -> None:
    L = [[0.3, 0.2], [-0.4, 0.1]]
    x = sites(2)
    assert_close(AffineWarp(2, L)(x), x @ torch.linalg.matrix_exp(torch.tensor(L).double()).mT)
    warp = AxialWarp(1, knots=2)
    with torch.no_grad():
        warp.theta.copy_(torch.tensor([2.0, 3.0, 5.0]).double().log())
    far = torch.tensor([[-60.0], [-59.0], [59.0], [60.0]], dtype=DOUBLE)
    slopes = warp(far).detach()[:, 0].diff()[[0, 2]]
    assert_close(slopes, torch.tensor([2.0, 5.0], dtype=DOUBLE))  # affine tails, at these slopes


def test_a_radial_unit_turns_nothing_and_dies_away() -> None:
    warp = shaken(RadialWarp([0.5, 0.5], 0.2), 2.0)
    x = sites(2)
    away, moved = x - 0.5, warp(x).detach() - 0.5
    cross = away[:, 0] * moved[:, 1] - away[:, 1] * moved[:, 0]
    assert_close(cross, torch.zeros_like(cross), rtol=0, atol=1e-14)
    far = torch.tensor([[5.0, -3.0]], dtype=DOUBLE)
    assert torch.equal(warp(far), far)


# The gauge.


def inner(seed: int = 0) -> Warp:
    units = [AxialWarp(2, 0, 4), RadialWarp([0.2, 0.1], 0.5), RadialWarp([-0.6, 0.4], 0.5)]
    return shaken(WarpChain(units), 0.5, seed)


BOX = ([10.0, 40.0], [14.0, 43.0])


def test_the_gauge_on_its_lattice() -> None:
    """No mean swelling, no mean shift, and slopes that turn nothing on the whole."""
    warp = GaugedWarp(inner(), *BOX, nodes=11)
    x = warp.center + warp.scale * warp.reference
    assert abs(warp.log_det_jacobian(x).mean().item()) < 1e-13
    u = warp(x).detach()
    assert_close((u - x).mean(dim=0), torch.zeros(2, dtype=DOUBLE), rtol=0, atol=1e-12)
    M = (u - u.mean(dim=0)).mT @ warp.reference / warp.reference.square().sum(dim=0)
    assert_close(M, M.mT, rtol=0, atol=1e-12)
    assert (torch.linalg.eigvalsh(M) > 0).all()


def test_what_follows_is_gauged_away() -> None:
    """A rotation and a swelling after the warp change nothing."""
    similar = AffineWarp(2, [[0.4, -0.9], [0.9, 0.4]])
    x = torch.cartesian_prod(torch.linspace(9, 15, 9), torch.linspace(39, 44, 9)).double()
    plain, after = GaugedWarp(inner(), *BOX), GaugedWarp(WarpChain([inner(), similar]), *BOX)
    assert_close(plain(x), after(x), rtol=0, atol=1e-12)
    assert_close(plain.log_det_jacobian(x), after.log_det_jacobian(x), rtol=0, atol=1e-12)
    assert_close(plain.roughness(), after.roughness(), rtol=1e-10, atol=1e-12)


def test_gradient_at_the_identity_is_finite() -> None:
    warp = GaugedWarp(WarpChain([AffineWarp(2), AxialWarp(2)]), *BOX, smoothness=1.0)
    total = warp(sites(2) + 11.0).sin().sum() + warp.penalty()
    slopes = torch.autograd.grad(total, list(warp.parameters()))
    assert all(s.isfinite().all() for s in slopes)


def test_roughness_is_zero_for_affine_warps_only() -> None:
    affine = GaugedWarp(shaken(AffineWarp(2)), *BOX)
    assert affine.roughness().item() < 1e-20
    assert GaugedWarp(inner(), *BOX).roughness().item() > 1e-3
    weighed = GaugedWarp(inner(), *BOX, smoothness=3.0)
    assert_close(weighed.penalty(), 1.5 * weighed.roughness())


def test_bending_by_hand() -> None:
    half = torch.tensor([1.0, 0.5], dtype=DOUBLE)
    x = lattice(half, 7)
    v = torch.stack([x[:, 0] ** 2 - x[:, 1] ** 2, x[:, 0] * x[:, 1]], dim=-1)
    assert bending(v, half, 7).item() == pytest.approx(4 + 4 + 2 * 1)


REFUSED = [
    (lambda: AffineWarp(2, [[1.0]]), r"AffineWarp\(logarithm=...\): expected a finite matrix"),
    (lambda: AffineWarp(0), r"AffineWarp\(dimensions=...\): expected at least one"),
    (lambda: AxialWarp(2, axis=2), r"AxialWarp\(axis=..., knots=...\): .* got 2 and 8"),
    (lambda: RadialWarp([0.0], 0.0), r"RadialWarp\(radius=...\): expected positive"),
    (lambda: radial_lattice(2, 1), r"radial_lattice\(count=...\): expected two"),
    (lambda: WarpChain([]), r"WarpChain\(warps=...\): expected warps"),
    (lambda: WarpChain([AxialWarp(1), AxialWarp(2)]), r"got 2 of \[1, 2\] coordinates"),
    (lambda: FlowWarp(1), r"FlowWarp\(dimensions=..., kind=...\): expected two coordinates"),
    (lambda: FlowWarp(2, "cubic"), r"FlowWarp\(.*\): .* 'cubic'"),
    (lambda: GaugedWarp(AxialWarp(1), [1.0], [1.0]), r"GaugedWarp\(low=..., high=...\): expected"),
    (lambda: GaugedWarp(AxialWarp(1), [0.0, 0.0], [1.0, 1.0]), r"a box of 1 coordinates"),
]


@pytest.mark.parametrize(("build_warp", "match"), REFUSED)
def test_refusals(build_warp, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_warp()


def test_the_box_of_some_sites() -> None:
    points = mt.Points(lat=[40.0, 42.0], lon=[5.0, 8.0])
    x = points.cartesian(points.center)
    warp = GaugedWarp.around(x, AxialWarp(2))
    assert warp.dimensions == 2
    assert math.isclose(warp.scale[0].item(), (x[1, 1] - x[0, 1]).item() / 2, rel_tol=1e-9)
