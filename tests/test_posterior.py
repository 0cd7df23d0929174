"""Posterior: its faces, its labels, and the two ways to own a conditional law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jaxtyping import TypeCheckError
from torch import Generator, Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.posterior import Conditional, Estimator, Sampler

DOUBLE = torch.float64


def dated() -> mt.Posterior:
    days = np.datetime64("2020-03-01") + np.arange(3)
    mask = torch.tensor([[True, False], [True, True]])
    grid = mt.Grid(time=days, lat=[40.0, 41.0], lon=[5.0, 6.0], mask=mask)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, (2.0, 1e5, 1e5)), grid)
    points = mt.Points(time=days[:2], lat=[40.0, 40.5], lon=[5.0, 5.5])
    y = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    return mt.Kriging()(prior, mt.PointObservation(grid, points, 0.1))(y)


def test_labels() -> None:
    posterior = dated()
    ds = posterior.to_xarray(
        size=4, generator=torch.Generator().manual_seed(0), name="SSH", units="m"
    )
    assert ds["mean"].dims == ds["std"].dims == ("time", "lat", "lon")
    assert ds["member"].dims == ("realization", "time", "lat", "lon")
    assert ds["member"].shape == (4, 3, 2, 2)
    assert ds["time"].values[1] == np.datetime64("2020-03-02")
    assert ds["lat"].attrs == {"standard_name": "latitude", "units": "degrees_north"}
    assert ds["mean"].attrs == {"long_name": "mean of SSH", "units": "m"}
    assert ds.attrs["Conventions"] == "CF-1.8"
    sea = np.array([[True, False], [True, True]])
    assert np.isnan(ds["mean"].values[:, ~sea]).all()
    assert np.array_equal(ds["mean"].values[:, sea].ravel(), posterior.mean.numpy())
    assert np.array_equal(ds["std"].values[:, sea].ravel(), posterior.std().numpy())
    draws = posterior.sample(4, torch.Generator().manual_seed(0)).numpy()
    assert np.array_equal(ds["member"].values[:, :, sea].reshape(4, -1), draws)


def test_labels_of_points() -> None:
    points = mt.Points(time=[0.5, 1.5], x=[0.0, 1.0])
    prior = mt.GaussianProcess(mt.Matern(0.5, 1.0, (1.0, 1.0)), points)
    ds = mt.Kriging()(prior, mt.PointObservation(points, points, 0.1))(
        torch.ones(2).double()
    ).to_xarray()
    assert ds["mean"].dims == ("point",)
    assert ds["time"].values.tolist() == [0.5, 1.5]
    assert "member" not in ds


def test_the_estimate_of_a_batch_is_asked_of_the_conditional() -> None:
    posterior = dated()
    batch = torch.stack([posterior.y, 2 * posterior.y])
    assert_close(posterior.conditional.estimate(batch)[0], posterior.mean)
    # the shapes in the signatures are checked first, while the tests run
    with pytest.raises((ValueError, TypeCheckError), match=r"\(2, 2\)|\[2,2\]"):
        mt.Posterior(posterior.conditional, batch)
    with pytest.raises(ValueError, match=r"size=...\): expected at least one draw, got 0"):
        posterior.sample(0)
    assert posterior.info == {}


def test_draws_need_no_global_seed() -> None:
    posterior = dated()
    state = torch.random.get_rng_state()
    a = posterior.sample(2, torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(a, posterior.sample(2, torch.Generator().manual_seed(3)))
    assert not torch.equal(a, posterior.sample(2, torch.Generator().manual_seed(4)))


class Interpolation(Estimator):
    """A poor linear estimator: half of the datum, at every node."""

    def estimate(self, y: Tensor) -> Tensor:
        return 0.5 * y[..., :1].expand(*y.shape[:-1], len(self.prior.domain))


class Shadow(Sampler):
    """The draws of another law."""

    def __init__(self, other: Conditional, size: int) -> None:
        super().__init__(other.prior, other.observation)
        self.other, self.size = other, size

    def sample(self, y: Tensor, size: int, generator: Generator | None = None) -> Tensor:
        return self.other.sample(y, size, generator)


def test_any_estimator_samples_by_the_rule_of_matheron() -> None:
    r"""With gain A its draws have covariance :math:`(I - AH) B (I - AH)' + A R A'`."""
    grid = mt.Grid(x=[0.0, 1.0])
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0), grid)
    seen = mt.PointObservation(grid, mt.Points(x=[0.0]), 0.5)
    posterior = Interpolation(prior, seen)(torch.tensor([3.0], dtype=DOUBLE))
    draws = posterior.sample(6000, torch.Generator().manual_seed(0))
    H = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    A = torch.full((2, 1), 0.5, dtype=DOUBLE)
    rest = torch.eye(2, dtype=DOUBLE) - A @ H
    B = prior.covariance(grid.points, grid.points).detach()
    P = rest @ B @ rest.mT + 0.25 * A @ A.mT
    d = P.diagonal()
    error = ((torch.outer(d, d) + P.square()) / 6000).sqrt()
    assert ((torch.cov(draws.mT) - P).abs() < 5 * error).all()
    assert ((draws.mean(0) - 1.5).abs() < 5 * (d / 6000).sqrt()).all()
    assert_close(posterior.mean, torch.full((2,), 1.5, dtype=DOUBLE))
    # the spread of 256 draws, within five standard errors s / sqrt(2 N)
    std = posterior.std(256, torch.Generator().manual_seed(1))
    assert ((std - d.sqrt()).abs() < 5 * d.sqrt() / 512**0.5).all()


def test_any_sampler_estimates_by_its_mean() -> None:
    posterior = dated()
    shadow = Shadow(posterior.conditional, 2000)(posterior.y)
    error = posterior.std() / 2000**0.5
    assert ((shadow.mean - posterior.mean).abs() < 5 * error + 1e-9).all()
    batch = shadow.conditional.estimate(torch.stack([posterior.y, 0 * posterior.y]))
    assert batch.shape == (2, len(posterior.mean))


@pytest.mark.parametrize("name", ["covariance", "log_evidence"])
def test_only_gaussian_laws_have_a_covariance(name: str) -> None:
    posterior = dated()
    shadow = Shadow(posterior.conditional, 8)(posterior.y)
    with pytest.raises(TypeError, match=rf"Posterior.{name}: expected a Gaussian .* got Shadow"):
        getattr(shadow, name)()


def test_an_estimator_without_a_simulated_prior_says_so() -> None:
    class Known(mt.priors.Prior):
        domain = mt.Grid(x=[0.0, 1.0])

    prior = Known()
    seen = mt.PointObservation(prior.domain, mt.Points(x=[0.0]), 0.5)
    with pytest.raises(TypeError, match=r"expected a prior that can be simulated.*got Known"):
        Interpolation(prior, seen)(torch.ones(1, dtype=DOUBLE)).sample(2)


def test_a_posterior_stays_what_it_was_when_made() -> None:
    """Parameters that move afterwards (a fit, a training) leave no half-old, half-new answer."""
    grid = mt.Grid(x=[0.0, 0.5, 1.0])
    seen = mt.PointObservation(grid, mt.Points(x=[0.2]), 0.1)
    y = torch.ones(1, dtype=DOUBLE)
    for solver in (mt.Kriging(), mt.Vecchia(), mt.Taper(9.0), mt.InducingPoints()):
        prior = mt.GaussianProcess(mt.Matern(), grid)
        expected = solver(prior, seen)(y)
        expected.mean, expected.std()
        late = solver(prior, seen)(y)
        before = expected.mean.clone(), expected.std()
        with torch.no_grad():
            prior.kernel.log_lengthscale += 1.0
        assert_close((late.mean, late.std()), before)
