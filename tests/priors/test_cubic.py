"""Smooth interpolation between nodes."""

from __future__ import annotations

import math
import pytest
import torch

import matheron as mt

from matheron.domain import Grid, Points
from matheron.priors.spde.lattice import Lattice


def uneven(n, generator):
    return torch.rand(n, dtype=torch.float64, generator=generator).add(0.3).cumsum(0)


def test_cubics_are_exact_on_uneven_axes():
    generator = torch.Generator().manual_seed(0)
    y, x = uneven(7, generator), uneven(6, generator)
    lattice = Lattice(Grid(y=y, x=x), interpolation="cubic")
    u = torch.rand(200, 2, dtype=torch.float64, generator=generator)
    at = torch.stack([y[0] + u[:, 0] * (y[-1] - y[0]), x[0] + u[:, 1] * (x[-1] - x[0])], dim=-1)
    f = lambda p: (1 + p[:, 0] - 0.3 * p[:, 0] ** 3) * (2 - p[:, 1] ** 2 + 0.1 * p[:, 1] ** 3)
    A = lattice.interpolation(Points(at, ("y", "x")))
    found = A @ f(lattice.points.coords)
    torch.testing.assert_close(found, f(at), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(A @ torch.ones(42, dtype=torch.float64), torch.ones(200).double())


def test_nodes_have_one_weight():
    lattice = Lattice(Grid(y=[0.0, 1.0, 3.0, 4.0, 6.0], x=[0.0, 1.0]), interpolation="cubic")
    A = lattice.interpolation(lattice.points).to_dense()
    torch.testing.assert_close(A, torch.eye(10, dtype=torch.float64))


def test_a_wave_keeps_its_height():
    n = 64
    axis = torch.arange(float(n), dtype=torch.float64)
    lattice = Lattice(Grid(x=axis), interpolation="cubic")
    middle = Points(x=axis[10:50] + 0.5)
    for length, kept in ((8.0, 0.989), (16.0, 0.9993)):
        k = 2 * math.pi / length
        wave = torch.cos(k * (axis - 10.5))
        found = lattice.interpolation(middle) @ wave
        exact = torch.cos(k * (middle.axis("x") - 10.5))
        ratio = (found @ exact / (exact @ exact)).item()
        assert ratio == pytest.approx((9 * math.cos(k / 2) - math.cos(3 * k / 2)) / 8, rel=1e-9)
        assert ratio > kept


def test_around_the_globe():
    lon = torch.arange(0.0, 360.0, 10.0, dtype=torch.float64)
    grid = Grid(lat=torch.linspace(-40.0, 40.0, 9), lon=lon, metric="sphere")
    lattice = Lattice(grid, interpolation="cubic")
    wave = torch.cos(2 * lattice.points.axis("lon").deg2rad())
    s = torch.tensor([355.0, 359.0, -3.0, 181.0, 364.0 - 360.0], dtype=torch.float64)
    points = Points(lat=torch.full((5,), 3.0), lon=s, metric="sphere")
    found = lattice.interpolation(points) @ wave
    assert (found - torch.cos(2 * s.deg2rad())).abs().max() < 2e-3  # a wave of 18 nodes


def test_beside_land_weights_are_linear_and_dry():
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[1, 1] = False
    grid = Grid(y=torch.arange(6.0), x=torch.arange(6.0), mask=mask)
    points = Points(y=[0.5, 4.5], x=[1.5, 4.5])
    linear = Lattice(grid).interpolation(points).to_dense()
    smooth = Lattice(grid, interpolation="cubic").interpolation(points).to_dense()
    torch.testing.assert_close(smooth[0], linear[0])
    assert not torch.allclose(smooth[1], linear[1])
    torch.testing.assert_close(smooth.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_variance_between_nodes():
    grid = Grid(y=torch.arange(16.0), x=torch.arange(16.0))
    points = Points(y=[7.5, 7.5, 8.0], x=[7.5, 8.0, 8.0])
    linear, smooth = (
        mt.WhittleMatern(grid, 4.0, alpha=4.0, interpolation=kind).variance(points)
        for kind in ("linear", "cubic")
    )
    # a field of nu = 3 with four nodes per lengthscale: halfway between them
    assert linear[0] / linear[2] < 0.96
    assert (smooth / smooth[2] - 1).abs().max() < 0.01
