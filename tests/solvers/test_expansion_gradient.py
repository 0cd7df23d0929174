"""Wave packets conditioned by every solver that accepts them, against the dense equations."""

from __future__ import annotations

import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.priors.wave_packets import WavePackets
from matheron.solvers.expansion_gradient import ExpansionGradient
from matheron.testing import check_calibration, check_solver, reference

DOUBLE = torch.float64


def uniform(size: int, low: float, high: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def grid() -> mt.Grid:
    return mt.Grid(time=[0.0, 1.0, 3.0], y=torch.arange(3.0), x=torch.arange(4.0))


def packets(trend: str | None = None) -> WavePackets:
    return WavePackets(
        grid(),
        1.5,
        wavelengths=(2.5, 6.0),
        turning=3.0,
        duration=2.0,
        durations=(1.5, 4.0),
        directions=2,
        step=5.0,
        margin=(0.1, 0.1),
        trend=trend,
        mean=0.0 if trend else 0.4,
    )


def sites(m: int = 20) -> mt.Points:
    return mt.Points(time=uniform(m, 0, 3, 1), y=uniform(m, 0, 2, 2), x=uniform(m, 0, 3, 3))


def seen(domain: mt.Grid, bias: float | None = None) -> mt.PointObservation:
    return mt.PointObservation(domain, sites(), uniform(20, 0.2, 0.5, 4), bias_std=bias)


def exact(coarse: int) -> ExpansionGradient:
    return ExpansionGradient(tolerance=1e-13, coarse=coarse, probes=5000, lanczos=50)


SOLVERS = {
    "kriging": mt.Kriging,
    "sparse": mt.SparseCholesky,
    "gradient": lambda: exact(150),
    "gradient, no dense block": lambda: exact(0),
    "gradient, dense": lambda: exact(9999),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_laws(solver: str) -> None:
    prior = packets()
    check_solver(SOLVERS[solver](), prior, seen(prior.domain), size=1500)


def test_laws_of_a_trend_and_a_bias() -> None:
    prior = packets("1 + x")
    check_solver(exact(150), prior, seen(prior.domain, bias=1.5), size=1500)


def test_the_posterior_is_that_of_dense_kriging() -> None:
    """To 1e-8 of the std of the field, whatever the solver."""
    prior = packets()
    observation = seen(prior.domain)
    y = uniform(20, -1, 1, 6)
    mean, P, _ = reference(prior, observation, y)
    for make in SOLVERS.values():
        posterior = make()(prior, observation)(y)
        assert_close(posterior.mean, mean, rtol=0, atol=1e-8)
        assert_close(posterior.std(), P.diagonal().sqrt(), rtol=0, atol=1e-8)


def test_defaults_and_what_they_say() -> None:
    """The std of more nodes than draws: within five standard errors, sqrt(1 / 2N) each."""
    prior = packets()
    observation, y = seen(prior.domain), uniform(20, -1, 1, 6)
    mean, P, evidence = reference(prior, observation, y)
    posterior = ExpansionGradient(draws=30, probes=200)(prior, observation)(y)
    assert_close(posterior.mean, mean, rtol=0, atol=1e-4)
    ratio = posterior.std() / P.diagonal().sqrt()
    assert (ratio - 1).abs().max() < 5 * math.sqrt(1 / 60)
    assert posterior.info["converged"]
    assert posterior.info["std"] == "from 30 draws"
    assert (posterior.log_evidence - evidence).abs() < 2.0
    again = ExpansionGradient(draws=30)(prior, observation)(y)
    assert torch.equal(again.std(), posterior.std())


def test_calibration() -> None:
    prior = packets()
    check_calibration(ExpansionGradient(draws=100), prior, sites(), 0.3, twins=100)


def test_bad_input() -> None:
    prior = packets()
    with pytest.raises(ValueError, match="noise_std > 0"):
        ExpansionGradient()(prior, mt.PointObservation(prior.domain, sites(), 0.0))
    with pytest.raises(ValueError, match="tolerance under 1"):
        ExpansionGradient(tolerance=2.0)
    with pytest.raises(ValueError, match="at least 2 of each"):
        ExpansionGradient(draws=1)
    other = mt.GaussianProcess(mt.Matern(1.5), mt.Grid(x=[0.0, 1.0]))
    with pytest.raises(TypeError, match="ExpansionPrior"):
        ExpansionGradient()(other, mt.PointObservation(other.domain, mt.Points(x=[0.0]), 0.1))
    loose = ExpansionGradient(steps=1, coarse=0, tolerance=1e-12, strict=False)
    posterior = loose(prior, seen(prior.domain))(torch.ones(20, dtype=DOUBLE))
    assert not posterior.info["converged"]
    strict = ExpansionGradient(steps=1, coarse=0, tolerance=1e-12)(prior, seen(prior.domain))
    with pytest.raises(ValueError, match="residuals under"):
        strict.estimate(torch.ones(20, dtype=DOUBLE))
