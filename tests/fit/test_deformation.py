"""Deformed kernels fitted in stages."""

from __future__ import annotations

import pytest
import torch

import matheron as mt

from matheron.fit.deformation import fit_deformation
from matheron.kernels import (
    AffineWarp,
    AxialWarp,
    Deformed,
    GaugedWarp,
    RadialWarp,
    SplineField,
    WarpChain,
)

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def warped(smoothness: float = 0.0) -> Deformed:
    warp = GaugedWarp(AxialWarp(1, knots=3), [0.0], [200.0], smoothness=smoothness)
    return Deformed(mt.Matern(0.5, lengthscale=10.0), warp)


def simulated(replicates: int = 3) -> tuple[Deformed, mt.Points, torch.Tensor]:
    truth, line = warped(), mt.Points(x=torch.linspace(0, 200, 100))
    with torch.no_grad():
        truth.warp.warp.theta.copy_(torch.tensor([-1.2, -1.0, 1.0, 1.2], dtype=DOUBLE))
    y = mt.GaussianProcess(truth, line).sample(replicates, generator()).detach()
    return truth, line, y + 0.1 * torch.randn(y.shape, dtype=DOUBLE, generator=generator(1))


@pytest.mark.parametrize("solver", [mt.Kriging(), mt.Vecchia(neighbors=10)])
def test_a_warp_is_recovered(solver) -> None:
    """At least as likely as the truth, far ahead of the stationary fit, with the right slopes."""
    truth, line, y = simulated()
    seen = mt.PointObservation(line, line, noise_std=0.1)
    prior = mt.GaussianProcess(warped(), line)
    stages = fit_deformation(prior, seen, y, solver)
    assert [s.name for s in stages] == ["stationary", "warp", "all"]
    values = [s.log_likelihood for s in stages]
    assert values[0] <= values[1] + 1e-6 <= values[2] + 0.1
    with torch.no_grad():
        true = mt.GaussianProcess(truth, line)
        best = sum(solver.likelihood(true, seen, v).value().item() for v in y)
    assert values[2] > best - 0.5
    assert values[0] < best - 20
    assert stages[2].bic < stages[0].bic - 20
    x = torch.linspace(20, 180, 9, dtype=DOUBLE)[:, None]
    # named tolerance: of 300 data a slope sees about a quarter, some 0.2 of a logarithm
    gap = prior.kernel.warp.log_det_jacobian(x) - truth.warp.log_det_jacobian(x)
    assert gap.abs().median() < 0.4
    assert all(p.requires_grad for p in prior.kernel.warp.parameters())


def test_a_penalty_keeps_a_warp_straight() -> None:
    _, line, y = simulated(1)
    seen = mt.PointObservation(line, line, noise_std=0.1)
    rough = []
    for smoothness in (0.0, 100.0):
        prior = mt.GaussianProcess(warped(smoothness), line)
        stages = fit_deformation(prior, seen, y[0], mt.Kriging())
        rough.append(prior.kernel.warp.roughness().item())
        assert (stages[-1].penalty > 0) == (smoothness > 0)
    assert rough[1] < 0.5 * rough[0]


def test_every_stage_in_the_plane() -> None:
    s = 2 * torch.rand(60, 2, dtype=DOUBLE, generator=generator(2)) - 1
    points = mt.Points(y=s[:, 0], x=s[:, 1])
    chain = WarpChain([AffineWarp(2), RadialWarp([0.0, 0.0])])
    field = SplineField([-1.0, -1.0], [1.0, 1.0], 2)
    kernel = Deformed(mt.Matern(1.5), GaugedWarp(chain, [-1.0, -1.0], [1.0, 1.0]), field)
    stretched = mt.Matern(1.5, 1.0, (0.2, 0.8), rotation=30.0)
    y = mt.GaussianProcess(stretched, points).sample(3, generator(3)).detach()
    prior = mt.GaussianProcess(kernel, points, trend="1")
    seen = mt.PointObservation(points, points, noise_std=0.1, learn_noise=True)
    stages = fit_deformation(prior, seen, y, mt.Vecchia(neighbors=8), steps=15)
    assert [s.name for s in stages] == ["stationary", "anisotropic", "warp", "all"]
    assert [s.parameters for s in stages] == [6, 10, 27, 27]
    assert stages[1].log_likelihood > stages[0].log_likelihood + 10
    assert all(s.data == 180 for s in stages)


def test_refusals() -> None:
    line = mt.Points(x=torch.arange(3.0))
    prior = mt.GaussianProcess(mt.Matern(), line)
    seen = mt.PointObservation(line, line, 0.1)
    with pytest.raises(ValueError, match=r"fit_deformation\(prior=...\): expected one Deformed"):
        fit_deformation(prior, seen, torch.zeros(3, dtype=DOUBLE))
