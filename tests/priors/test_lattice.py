"""Finite volumes on a lattice: the operators by hand, their symbols, walls, the sphere."""

from __future__ import annotations

import itertools
import math
import numpy as np
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.domain import EARTH_RADIUS
from matheron.priors.spde import Lattice

DOUBLE = torch.float64
OBLIQUE = torch.tensor([[[1.0, 0.6], [0.6, 1.0]]], dtype=DOUBLE)


def uneven(mask: torch.Tensor | None = None) -> mt.Grid:
    return mt.Grid(y=[0.0, 1.0, 1.5, 3.0], x=[0.0, 0.5, 2.0, 2.5, 3.5], mask=mask)


def turned(values: tuple[float, ...], generator: torch.Generator, size: int) -> torch.Tensor:
    """Positive definite matrices with some eigenvalues, in random frames."""
    d = len(values)
    frames = torch.linalg.qr(torch.randn(size, d, d, dtype=DOUBLE, generator=generator))[0]
    return frames @ torch.diag(torch.tensor(values, dtype=DOUBLE)) @ frames.mT


def energy_by_hand(lattice: Lattice, H: torch.Tensor, x: torch.Tensor) -> float:
    """The energy, corner by corner, in plain loops (plane, two axes)."""
    y, s = (a.nodes.tolist() for a in lattice.axes.values())
    sea = lattice.grid.mask
    sea = torch.ones(lattice.grid.shape).bool() if sea is None else sea.reshape(len(y), len(s))
    rank = (sea.flatten().cumsum(0) - 1).reshape(sea.shape)
    total = 0.0
    for i, j in np.ndindex(*sea.shape):
        if not sea[i, j]:
            continue
        for a in (-1, 1):
            for b in (-1, 1):
                g, sides = torch.zeros(2, dtype=DOUBLE), []
                moves = ((y, i, a, (i + a, j)), (s, j, b, (i, j + b)))
                for k, (axis, n, step, to) in enumerate(moves):
                    inside = 0 <= n + step < len(axis)
                    h = abs(axis[n + step if inside else n - step] - axis[n])
                    sides.append(h / 2)
                    if inside and sea[to]:
                        g[k] = step * (x[rank[to]] - x[rank[i, j]]) / h
                total += sides[0] * sides[1] * (g @ H[rank[i, j]] @ g).item()
    return total


@pytest.mark.parametrize("land", [False, True])
def test_energy_by_hand(land: bool, generator: torch.Generator) -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = mask[0, 4] = not land
    lattice = Lattice(uneven(mask), extension=1.0)
    H = turned((0.5, 4.0), generator, len(lattice))
    G = lattice.stiffness(H)
    x = torch.randn(len(lattice), 1, dtype=DOUBLE, generator=generator)
    assert_close(G.quadratic(x).item(), energy_by_hand(lattice, H, x[:, 0]))
    assert_close(G.to_dense(), G.to_dense().mT)


@pytest.mark.parametrize("dimension", [2, 3])
def test_any_rotation_keeps_the_operator_elliptic(
    dimension: int, generator: torch.Generator
) -> None:
    grid = mt.Grid(z=[0.0, 1.0, 4.0], y=[0.0, 1.0, 1.2, 5.0], x=[0.0, 2.0, 3.0, 3.5])
    if dimension == 2:
        grid = uneven()
    lattice = Lattice(grid, extension=1.0)
    for _ in range(5):
        H = turned((1e-3, 1.0, 10.0)[-dimension:], generator, len(lattice))
        values = torch.linalg.eigvalsh(lattice.stiffness(H).to_dense())
        assert values[0] > -1e-12 * values[-1]
        assert values[1] > 1e-12 * values[-1]  # constants only have no energy


def test_gradient_of_the_operators(generator: torch.Generator) -> None:
    lattice = Lattice(uneven(), extension=1.0)
    H = turned((0.5, 4.0), generator, len(lattice)).requires_grad_()
    m = torch.randn(len(lattice), 2, dtype=DOUBLE, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda H: lattice.stiffness(H).values, H)
    assert torch.autograd.gradcheck(lambda m: lattice.advection(m).values, m)


def test_patterns_are_one_object() -> None:
    lattice = Lattice(uneven())
    G, D = lattice.stiffness(OBLIQUE), lattice.advection(torch.ones(1, 2, dtype=DOUBLE))
    assert G.pattern is lattice.stiffness(2 * OBLIQUE).pattern is D.pattern is lattice.pattern
    thin = Lattice(uneven(), cross=False)
    assert thin.pattern.nnz == 20 + 2 * (4 * 4 + 5 * 3)
    eye = torch.eye(2, dtype=DOUBLE)[None]
    assert_close(thin.stiffness(eye).to_dense(), Lattice(uneven()).stiffness(eye).to_dense())
    with pytest.raises(ValueError, match="Build it with cross=True"):
        thin.stiffness(OBLIQUE)


def symbol(n: int) -> complex:
    """The symbol of the reference case, from a wave on a periodic lattice of n by n nodes."""
    k = torch.tensor([0.2, 0.13], dtype=DOUBLE)
    steps = 2 * math.pi / k / n
    count = torch.arange(n, dtype=DOUBLE)
    lattice = Lattice(mt.Grid(y=count * steps[0], x=count * steps[1]), periodic=("y", "x"))
    phase = lattice.points.coords @ k
    wave = torch.stack([phase.cos(), phase.sin()], dim=-1)
    A = lattice.advection(torch.tensor([[0.3, -0.2]], dtype=DOUBLE), conservative=False)
    moved = ((lattice.stiffness(OBLIQUE) + A) @ wave) / lattice.volume[:, None]
    found = torch.complex(*moved.unbind(-1)) / torch.complex(*wave.unbind(-1))
    assert (found - found[0]).abs().max() < 1e-9
    return 0.3**2 + found[0].item()


def test_symbol_on_plane_waves() -> None:
    # kappa^2 + i m.k + k'Hk, the cross term with its sign and size
    exact = 0.09 + 0.034j + (0.2**2 + 2 * 0.6 * 0.2 * 0.13 + 0.13**2)
    assert abs(exact - (0.1781 + 0.0340j)) < 1e-6
    errors = [abs(symbol(n) - exact) for n in (16, 32, 64)]
    assert errors[2] < 3e-4
    for coarse, fine in itertools.pairwise(errors):
        assert 3.8 < coarse / fine < 4.2


def test_advection_conserves_or_keeps_constants(generator: torch.Generator) -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2] = False
    lattice = Lattice(uneven(mask), extension=1.0)
    m = torch.randn(len(lattice), 2, dtype=DOUBLE, generator=generator)
    flux, drift = (lattice.advection(m, conservative=c).to_dense() for c in (True, False))
    zero = torch.zeros(len(lattice), dtype=DOUBLE)
    assert_close(flux.sum(dim=0), zero)
    assert_close(drift.sum(dim=1), zero)
    # they differ by x div m; a wind through the walls carries nothing
    assert_close(flux - drift, torch.diag(flux.sum(dim=1)))


def test_advection_of_a_slope_by_hand() -> None:
    lattice = Lattice(mt.Grid(x=[0.0, 1.0, 2.0, 4.0]))
    x = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=DOUBLE)
    m = torch.full((1, 1), 3.0, dtype=DOUBLE)
    found = lattice.advection(m, conservative=False) @ x
    # half of the jump to each neighbour; none beyond the ends
    assert_close(found, torch.tensor([1.5, 3.0, 4.5, 3.0], dtype=DOUBLE))
    found = lattice.advection(m) @ x
    assert_close(found, torch.tensor([1.5, 3.0, 4.5, -9.0], dtype=DOUBLE))


def test_volume_and_margin() -> None:
    lattice = Lattice(uneven(), extension=[2.0, (0.0, 3.0)])
    nodes = [a.nodes for a in lattice.axes.values()]
    assert nodes[0][0] <= -2.0
    assert nodes[0][-1] >= 5.0
    assert nodes[1][0] == 0.0
    assert nodes[1][-1] >= 6.5
    steps = nodes[1][4:].diff()
    assert_close(steps[1:] / steps[:-1], torch.full_like(steps[1:], 1.15))
    inner = lattice.points[~lattice.margin]
    assert_close(inner.coords, uneven().points.coords)
    # cells of the size of the steps, also at the ends
    ends = [(3 * n[0] - n[1]) / 2 for n in nodes], [(3 * n[-1] - n[-2]) / 2 for n in nodes]
    area = math.prod((b - a).item() for a, b in zip(*ends, strict=True))
    assert_close(lattice.volume.sum().item(), area)
    sides = [(b - a).item() for a, b in zip(*ends, strict=True)]
    assert_close(lattice.boundary_mass().sum().item(), 2 * sum(sides))


def test_mass_and_stiffness_against_cosines() -> None:
    # with cells in the middle, cosines (DCT-II) are the modes of the closed box
    n, h, kappa = (5, 7), (0.5, 0.8), 1.3
    grid = mt.Grid(y=h[0] * torch.arange(5.0), x=h[1] * torch.arange(7.0))
    lattice = Lattice(grid, cross=False)
    H = torch.diag(torch.tensor([2.0, 0.7], dtype=DOUBLE))[None]
    K = lattice.stiffness(H).to_dense() + kappa**2 * torch.diag(lattice.volume)
    modes = [
        H[0, i, i]
        * (2 / h[i] * torch.sin(math.pi * torch.arange(n[i]).double() / (2 * n[i]))) ** 2
        for i in range(2)
    ]
    values = h[0] * h[1] * (kappa**2 + modes[0][:, None] + modes[1]).flatten().sort().values
    assert_close(torch.linalg.eigvalsh(K), values)
    assert_close(torch.logdet(K), values.log().sum())


@pytest.mark.parametrize("step", [30.0, 10.0])
def test_the_globe_is_whole(step: float) -> None:
    lat = torch.arange(-90 + step / 2, 90, step)
    lattice = Lattice(mt.Grid(lat=lat, lon=torch.arange(0.0, 360.0, step)), extension=1e6)
    assert len(lattice) == len(lat) * int(360 / step)  # closed: the margin is not needed
    assert_close(lattice.volume.sum().item(), 4 * math.pi * EARTH_RADIUS**2)
    assert not lattice.margin.any()
    assert_close(lattice.boundary_mass().abs().max().item(), 0.0, atol=1e-6, rtol=0)


def test_laplacian_on_the_sphere() -> None:
    # sin(lat) and cos(lat) cos(lon) are eigenvectors, of degree 1: 2 / R^2, to second order
    def error(step: float) -> float:
        lat = torch.arange(-90 + step / 2, 90, step)
        lattice = Lattice(mt.Grid(lat=lat, lon=torch.arange(0.0, 360.0, step)))
        phi, lam = lattice.points.coords.deg2rad().unbind(-1)
        waves = torch.stack([phi.sin(), phi.cos() * lam.cos()], dim=-1)
        G = lattice.stiffness(torch.eye(2, dtype=DOUBLE)[None])
        total = G.quadratic(waves) / (lattice.volume[:, None] * waves.square()).sum(0)
        return (total * EARTH_RADIUS**2 / 2 - 1).abs().max().item()

    coarse, fine = error(10.0), error(5.0)
    assert fine < 2e-3
    assert 3.5 < coarse / fine < 4.5


def test_a_wide_margin_goes_around_the_earth() -> None:
    grid = mt.Grid(lat=[70.0, 75.0, 80.0], lon=[340.0, 350.0, 360.0])
    lattice = Lattice(grid, extension=3e6)
    assert lattice.axes["lon"].closed
    lon, lat = lattice.grid.axes["lon"], lattice.grid.axes["lat"]
    gaps = torch.cat([lon, lon[:1] + 360]).diff()
    assert gaps.min() > 8
    assert gaps.max() < 80
    assert lat[-1] < 90
    cap = 2 * math.pi * EARTH_RADIUS**2 * (1 - lattice_bottom_sine(lat))
    assert_close(lattice.volume.sum().item(), cap)
    inside = lattice.points[~lattice.margin]
    assert_close(inside.coords[:, 1] % 360, grid.points.coords[:, 1] % 360)


def lattice_bottom_sine(lat: torch.Tensor) -> float:
    return math.sin(math.radians((lat[0] - (lat[1] - lat[0]) / 2).item()))


def test_walls_go_on_into_the_margin() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 2] = False
    lattice = Lattice(uneven(mask), extension=2.0)
    G = lattice.stiffness(OBLIQUE).to_dense()
    left = lattice.points.coords[:, 1] < 2.0
    assert (G[left][:, ~left] == 0).all()
    assert left.any()
    assert not left.all()


def test_interpolation_is_that_of_the_grid(generator: torch.Generator) -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2] = False
    grid = uneven(mask)
    lattice = Lattice(grid, extension=2.0)
    points = mt.Points(y=[0.2, 2.9, 1.4], x=[3.3, 0.1, 1.8])
    x = torch.randn(len(lattice), dtype=DOUBLE, generator=generator)
    nodes, weights = grid.interpolation(points)
    found = lattice.interpolation(points) @ x
    assert_close(found, (x[~lattice.margin][nodes] * weights).sum(-1))
    assert lattice.interpolation(points) is lattice.interpolation(points[torch.arange(3)])
    E = lattice.interpolation(grid.points)
    assert E.pattern.nnz == len(grid)
    assert (E.values == 1).all()
    ones = lattice.interpolation(mt.Points(y=[-1.5], x=[4.5])) @ torch.ones_like(x)
    assert_close(ones, torch.ones(1, dtype=DOUBLE))
    with pytest.raises(ValueError, match="outside"):
        lattice.interpolation(mt.Points(y=[0.0], x=[50.0]))


def test_interpolation_across_the_seams() -> None:
    ring = Lattice(mt.Grid(x=[0.0, 1.0, 2.0, 3.0]), periodic=("x",))
    values = torch.tensor([5.0, 1.0, 2.0, 3.0], dtype=DOUBLE)
    found = ring.interpolation(mt.Points(x=[3.5, 4.25, -1.0])) @ values
    assert_close(found, torch.tensor([4.0, 4.0, 3.0], dtype=DOUBLE))
    globe = Lattice(mt.Grid(lat=[-45.0, 45.0], lon=[0.0, 90.0, 180.0, 270.0]))
    values = torch.tensor([5.0, 1.0, 2.0, 3.0] * 2, dtype=DOUBLE)
    found = globe.interpolation(mt.Points(lat=[0.0, 10.0], lon=[315.0, -45.0])) @ values
    assert_close(found, torch.tensor([4.0, 4.0], dtype=DOUBLE))


def test_covariates_go_on_into_the_margin() -> None:
    grid = mt.Grid(x=[0.0, 1.0, 2.0], covariates={"depth": [7.0, 8.0, 9.0]})
    lattice = Lattice(grid, extension=1.0)
    assert lattice.points.covariates["depth"].tolist() == [7.0, 7.0, 8.0, 9.0, 9.0]


def test_bad_lattices() -> None:
    with pytest.raises(ValueError, match="one width, or one per axis, got 3"):
        Lattice(uneven(), extension=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="zero or more, got -1"):
        Lattice(uneven(), extension=-1.0)
    with pytest.raises(ValueError, match="2 nodes or more along 'x', got 1"):
        Lattice(mt.Grid(x=[0.0]))
    with pytest.raises(ValueError, match="3 nodes or more along 'x', which closes, got 2"):
        Lattice(mt.Grid(x=[0.0, 1.0]), periodic=("x",))
