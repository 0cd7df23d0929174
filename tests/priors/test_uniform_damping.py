"""Advection-diffusion where all scales fade alike: the law is separable, and carried."""

from __future__ import annotations

import math
import pytest
import torch

import matheron as mt

from matheron.domain import Grid, Points
from matheron.testing import check_prior


def square(step=1.0, times=(0.0, 1.0, 3.0), size=15):
    axis = step * torch.arange(float(size), dtype=torch.float64)
    return Grid(time=list(times), y=axis, x=axis)


def across(prior, grid):
    """Returns the covariances of the middle at each time with the whole grid."""
    k, n = len(grid.axes["time"]), len(grid.axes["x"])
    middle = (n // 2) * n + n // 2
    points = grid.points
    at = points[torch.arange(k) * n * n + middle]
    with torch.no_grad():
        return prior.covariance(at, points).reshape(k, k, n, n)


@pytest.mark.parametrize("color", [2, 4])
def test_covariance_is_separable(color):
    grid = square()
    prior = mt.AdvectionDiffusion(grid, 6.0, 5.0, 2.0, color=color, damping="uniform")
    found = across(prior, grid)
    t = grid.axes["time"]
    fading = torch.exp(-(t[:, None] - t).abs() / 5.0)
    # steps are fitted to the exponential: it is exact whatever their lengths
    torch.testing.assert_close(found, fading[:, :, None, None] * found[0, 0], rtol=1e-8, atol=1e-8)
    x = torch.arange(15.0, dtype=torch.float64) - 7
    d = torch.stack([torch.zeros(15, dtype=torch.float64), x], dim=-1)
    kernel = mt.Matern(color - 1.0, 2.0, 6.0)
    exact = kernel(d[7:8], d)[0].detach()
    # the lattice of six nodes per lengthscale: 2.5 % of the variance
    assert (found[0, 0, 7] - exact).abs().max() < 0.025 * 2.0
    variance = prior.variance(grid.points).detach()
    assert (variance / 2.0 - 1).abs().max() < 0.025


def test_velocity_carries_what_fades_alike():
    grid = square(times=(0.0, 2.0, 4.0), size=17)
    prior = mt.AdvectionDiffusion(
        grid, 8.0, 6.0, color=4, damping="uniform", velocity=(0.5, 1.0), margin=1.0
    )
    found = across(prior, grid)
    for k, t in enumerate((0, 2, 4)):
        assert divmod(found[0, k].argmax().item(), 17) == (8 + t // 2, 8 + t)
        # what is carried keeps its height, but for fading
        ratio = (found[0, k].max() / found[0, 0].max()).item()
        assert ratio == pytest.approx(math.exp(-t / 6), rel=0.03)
    variance = prior.variance(grid.points).detach()
    assert (variance - 1).abs().max() < 0.03


def test_determinant_draws_and_precision_agree():
    grid = square(times=(0.0, 1.0), size=6)
    prior = mt.AdvectionDiffusion(
        grid, 4.0, 4.0, 2.0, color=3, damping="uniform", velocity=(0.3, 0.2), margin=1.0
    )
    Q = prior.precision().to_dense()
    assert prior.log_determinant().item() == pytest.approx(
        torch.linalg.slogdet(Q)[1].item(), rel=1e-9
    )
    draws = prior.sample_nodes(20_000, torch.Generator().manual_seed(0))
    # N(0, Q^-1): x'Qx is chi-square of so many degrees of freedom
    quadratic = (draws @ Q * draws).sum(dim=1)
    n = Q.shape[0]
    error = 5 * math.sqrt(2 * n / len(draws))
    assert abs(quadratic.mean().item() - n) < error
    middle = torch.linalg.inv(Q).diagonal()
    ratio = draws.var(dim=0) / middle
    assert (ratio - 1).abs().max() < 6 * math.sqrt(2 / len(draws))


def test_laws():
    times = [0.0, 1.0, 2.0]
    grid = Grid(time=times, y=torch.arange(4.0), x=torch.arange(5.0))
    check_prior(
        mt.AdvectionDiffusion(grid, 3.0, 4.0, color=2, damping="uniform", velocity=(0.2, 0.1))
    )


def test_equals_kriging_with_the_separable_kernel():
    grid = square(step=0.5, times=(0.0, 2.0), size=11)
    prior = mt.AdvectionDiffusion(
        grid, 4.0, 5.0, color=4, damping="uniform", interpolation="cubic", margin=1.5
    )
    kernel = mt.kernels.separable(
        mt.Matern(0.5, 1.0, 5.0, axes="time"), mt.Matern(3.0, 1.0, 4.0, axes="space")
    )
    generator = torch.Generator().manual_seed(3)
    u = torch.rand(60, 3, dtype=torch.float64, generator=generator) * torch.tensor([0.0, 5.0, 5.0])
    u[:, 0] = 2.0 * torch.randint(0, 2, (60,), generator=generator)
    points = Points(u, ("time", "y", "x"))
    y = torch.randn(60, dtype=torch.float64, generator=generator)
    seen = mt.PointObservation(grid, points, noise_std=0.3)
    ours = mt.SparseCholesky()(prior, seen)(y)
    exact = mt.Kriging()(mt.GaussianProcess(kernel, grid), seen)(y)
    spread = exact.mean.std()
    assert (ours.mean - exact.mean).square().mean().sqrt() < 0.05 * spread
    assert (ours.std() - exact.std()).abs().max() < 0.02
    # a twentieth of a unit per datum: the lattice has eight nodes per lengthscale
    assert abs(ours.log_evidence - exact.log_evidence) < 0.05 * len(y)
