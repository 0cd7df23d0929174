"""Kriging and Vecchia against closed forms by hand, and against other libraries."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

DOUBLE = torch.float64
EXACT = {"kriging": lambda: mt.Kriging(), "vecchia": lambda: mt.Vecchia(neighbors=60)}
both = pytest.mark.parametrize("solver", EXACT)


def uniform(size: int, seed: int) -> Tensor:
    return torch.rand(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def line(*x: float) -> mt.Points:
    return mt.Points(x=torch.tensor(x, dtype=DOUBLE))


# By hand.


@both
def test_two_data_by_hand(solver: str) -> None:
    r"""Between two data at a distance d, simple kriging weighs each
    :math:`w = \rho(d/2) / (1 + \rho(d))` and leaves :math:`1 - 2 w \rho(d/2)`; ordinary kriging
    weighs each 1/2 and leaves :math:`3/2 - 2 \rho(d/2) + \rho(d)/2`.
    """
    d, y = 2.0, torch.tensor([1.0, 4.0], dtype=DOUBLE)
    half, full = math.exp(-d / 2), math.exp(-d)
    seen = mt.PointObservation(line(1.0), line(0.0, d), 0.0)
    simple = EXACT[solver]()(mt.GaussianProcess(mt.Matern(0.5), line(1.0)), seen)(y)
    w = half / (1 + full)
    assert_close(simple.mean.item(), 5 * w)
    assert_close(simple.std().item() ** 2, 1 - 2 * w * half)
    ordinary = EXACT[solver]()(mt.GaussianProcess(mt.Matern(0.5), line(1.0), trend="1"), seen)(y)
    assert_close(ordinary.mean.item(), 2.5)
    assert_close(ordinary.std().item() ** 2, 1.5 - 2 * half + full / 2)


@both
def test_one_datum_and_its_evidence_by_hand(solver: str) -> None:
    domain = line(0.0, 1.0)
    prior = mt.GaussianProcess(mt.Matern(0.5, variance=2.0), domain, mean=1.0)
    posterior = EXACT[solver]()(prior, mt.PointObservation(domain, line(0.0), 1.0))(
        torch.tensor([4.0])
    )
    r = math.exp(-1.0)
    assert_close(posterior.mean, torch.tensor([1 + 2.0, 1 + 2.0 * r], dtype=DOUBLE))
    assert_close(
        posterior.std().square(), torch.tensor([2 - 4 / 3, 2 - 4 / 3 * r**2], dtype=DOUBLE)
    )
    expected = -(9 / 3 + math.log(2 * math.pi * 3)) / 2
    assert_close(posterior.log_evidence.item(), expected)


@both
def test_two_biased_data_by_hand(solver: str) -> None:
    """Far from each other, two data of one instrument tell its bias and nothing else of it."""
    domain = line(0.0, 1e6)
    prior = mt.GaussianProcess(mt.Matern(0.5), domain)
    seen = mt.PointObservation(domain, domain, 1e-6, bias_std=3.0)
    y = torch.tensor([2.0, 4.0], dtype=DOUBLE)
    bias = 9 / (9 + 0.5) * 3.0  # the mean of two unit variances against a variance of 9
    posterior = EXACT[solver]()(prior, seen)(y)
    assert_close(posterior.mean, y - bias, rtol=1e-9, atol=1e-9)
    spread = 9 * 0.5 / (9 + 0.5)
    expected = torch.full((2, 2), spread, dtype=DOUBLE)
    assert_close(posterior.covariance(), expected, rtol=1e-9, atol=1e-9)


@both
@pytest.mark.parametrize("trend", ["1", "1 + x + y", "1 + x + y + x*y"])
def test_weights_reproduce_the_trend(solver: str, trend: str) -> None:
    """The weights of ordinary kriging sum to one; those of universal kriging keep F."""
    grid = mt.Grid(x=[0.0, 0.4, 3.0], y=[0.0, 1.0])
    points = mt.Points(x=uniform(15, 1), y=uniform(15, 2))
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 0.5), grid, trend=trend)
    conditional = EXACT[solver]()(prior, mt.PointObservation(grid, points, 0.1))
    weights = conditional.estimate(torch.eye(15, dtype=DOUBLE)).mT
    assert_close(weights.sum(dim=1), torch.ones(6, dtype=DOUBLE), rtol=1e-9, atol=1e-9)
    kept = weights @ prior.design(points)
    assert_close(kept, prior.design(grid.points), rtol=1e-8, atol=1e-8)


# The joint law of a conditional simulation: what GSTools' CondSRF has not.


def across_a_datum(delta: float) -> tuple[float, float]:
    """The covariance and the variance of f(-d) and f(d) given f(0), Gaussian covariance."""
    near, far = math.exp(-(delta**2) / 2), math.exp(-2 * delta**2)
    return far - near**2, 1 - near**2


@both
def test_draws_have_the_right_correlation_across_a_datum(solver: str) -> None:
    r"""The standard error of a correlation over N draws is :math:`(1 - \rho^2) / \sqrt N`."""
    size, domain = 4000, line(-0.5, 0.5)
    prior = mt.GaussianProcess(mt.Gaussian(), domain)
    posterior = EXACT[solver]()(prior, mt.PointObservation(domain, line(0.0), 0.0))(
        torch.tensor([1.0], dtype=DOUBLE)
    )
    covariance, variance = across_a_datum(0.5)
    exact = covariance / variance
    assert exact < -0.7
    assert_close(posterior.covariance()[0, 1].item(), covariance)
    draws = posterior.sample(size, torch.Generator().manual_seed(1))
    found = torch.corrcoef(draws.mT)[0, 1].item()
    assert abs(found - exact) < 5 * (1 - exact**2) / size**0.5


@pytest.mark.reference
def test_gstools_draws_have_the_wrong_correlation_across_a_datum() -> None:
    gstools = pytest.importorskip("gstools")
    model = gstools.Gaussian(dim=1, var=1.0, len_scale=1.0, rescale=0.5**0.5)
    kriging = gstools.krige.Simple(model, [[0.0]], [1.0])
    field = gstools.CondSRF(kriging)
    targets = np.array([-0.5, 0.5])
    draws = np.stack([field([targets], seed=i, store=False) for i in range(400)])
    covariance, variance = across_a_datum(0.5)
    found = np.corrcoef(draws.T)[0, 1]
    error = abs(found - covariance / variance)
    assert error > 0.2
    assert error > 5 * (1 - found**2) / 400**0.5
    assert found > 0  # it has the sign of the prior


# Other libraries, on the same model.

M = 25
SITES = mt.Points(x=4 * uniform(M, 1), y=3 * uniform(M, 2))
TARGETS = mt.Points(x=5 * uniform(9, 3), y=4 * uniform(9, 4))
VALUES = (SITES.axis("x") + 0.5 * SITES.axis("y")).sin() + 0.3 * uniform(M, 5)
ERRORS = 0.1 + 0.2 * uniform(M, 6)


def answer(solver: str, kernel: mt.kernels.Kernel, noise, trend=None, mean=0.0) -> mt.Posterior:
    covered = [
        mt.Points(p.coords, p.dims, covariates={"depth": p.axis("x") ** 2})
        for p in (TARGETS, SITES)
    ]
    prior = mt.GaussianProcess(kernel, covered[0], mean=mean, trend=trend)
    return EXACT[solver]()(prior, mt.PointObservation(covered[0], covered[1], noise))(VALUES)


def agree(posterior: mt.Posterior, mean: np.ndarray, variance: np.ndarray) -> None:
    assert_close(posterior.mean, torch.as_tensor(np.array(mean)), rtol=1e-6, atol=1e-6)
    found = posterior.std().square()
    assert_close(found, torch.as_tensor(np.array(variance)), rtol=1e-6, atol=1e-6)


def xy(points: mt.Points) -> list[np.ndarray]:
    return [points.axis("x").numpy(), points.axis("y").numpy()]


@both
@pytest.mark.reference
@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 0.8, 3.3])
def test_scikit_learn(solver: str, nu: float) -> None:
    process = pytest.importorskip("sklearn.gaussian_process")
    kernels = process.kernels
    model = kernels.ConstantKernel(1.7) * kernels.Matern(length_scale=[0.8, 1.5], nu=nu)
    peer = process.GaussianProcessRegressor(model, alpha=ERRORS.numpy() ** 2, optimizer=None)
    peer.fit(SITES.coords.numpy(), VALUES.numpy())  # columns are (y, x)
    mean, covariance = peer.predict(TARGETS.coords.numpy(), return_cov=True)
    posterior = answer(solver, mt.Matern(nu, 1.7, (0.8, 1.5)), ERRORS)
    agree(posterior, mean, covariance.diagonal())
    assert_close(posterior.covariance(), torch.as_tensor(covariance), rtol=1e-6, atol=1e-6)
    assert_close(
        posterior.log_evidence.item(), peer.log_marginal_likelihood(), rtol=1e-7, atol=0.0
    )


@both
@pytest.mark.reference
@pytest.mark.parametrize("kind", ["simple", "ordinary", "universal", "drift"])
@pytest.mark.parametrize("noise", [False, True])
def test_gstools_kriging(solver: str, kind: str, noise: bool) -> None:
    gstools = pytest.importorskip("gstools")
    model = gstools.Matern(
        dim=2, var=1.7, len_scale=[1.5, 0.8], angles=np.deg2rad(30.0), nu=1.5, rescale=2**0.5
    )
    errors = ERRORS if noise else torch.zeros(M, dtype=DOUBLE)
    settings = {"cond_err": errors.numpy() ** 2, "exact": False} if noise else {}
    where = {}
    if kind == "simple":
        peer = gstools.krige.Simple(model, xy(SITES), VALUES.numpy(), mean=0.4, **settings)
    elif kind == "ordinary":
        peer = gstools.krige.Ordinary(model, xy(SITES), VALUES.numpy(), **settings)
    elif kind == "universal":
        peer = gstools.krige.Universal(model, xy(SITES), VALUES.numpy(), "linear", **settings)
    else:
        depth = SITES.axis("x").numpy() ** 2
        peer = gstools.krige.ExtDrift(model, xy(SITES), VALUES.numpy(), depth, **settings)
        where = {"ext_drift": TARGETS.axis("x").numpy() ** 2}
    mean, variance = peer(xy(TARGETS), **where)
    trend = {"simple": None, "ordinary": "1", "universal": "1 + x + y", "drift": "1 + depth"}
    kernel = mt.Matern(1.5, 1.7, (0.8, 1.5), rotation=30.0)
    known = 0.4 if kind == "simple" else 0.0
    agree(answer(solver, kernel, errors, trend[kind], known), mean, variance)


@both
@pytest.mark.reference
@pytest.mark.parametrize("kind", ["ordinary", "universal"])
def test_pykrige(solver: str, kind: str) -> None:
    ordinary = pytest.importorskip("pykrige.ok").OrdinaryKriging
    universal = pytest.importorskip("pykrige.uk").UniversalKriging
    model = {
        "variogram_model": "exponential",
        # its range is three lengthscales
        "variogram_parameters": {"psill": 1.7, "range": 3 * 1.2, "nugget": 0.0},
    }
    if kind == "ordinary":
        peer, trend = ordinary(*xy(SITES), VALUES.numpy(), **model), "1"
    else:
        peer = universal(*xy(SITES), VALUES.numpy(), drift_terms=["regional_linear"], **model)
        trend = "1 + x + y"
    mean, variance = peer.execute("points", *xy(TARGETS))
    agree(answer(solver, mt.Matern(0.5, 1.7, 1.2), 0.0, trend), mean.data, variance.data)
