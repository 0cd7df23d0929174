"""Empirical orthogonal functions: laws, covariance by hand, past fields, what is refused."""

from __future__ import annotations

import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.priors.eof import EOF
from matheron.testing import check_prior, check_solver

DOUBLE = torch.float64


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def grid(mask: torch.Tensor | None = None) -> mt.Grid:
    return mt.Grid(time=[0.0, 1.0, 3.0], y=[0.0, 1.0], x=torch.arange(3.0), mask=mask)


def patterns(
    count: int, duration: float | None, domain: mt.Grid | None = None, trend: str | None = None
) -> EOF:
    domain = domain or grid()
    sites = len(domain) // 3
    variances = torch.linspace(2.0, 0.5, count, dtype=DOUBLE)
    mean = normal(sites, seed=1)
    return EOF(domain, normal(count, sites), variances, duration, mean, 0.3, trend)


@pytest.mark.parametrize("duration", [None, 2.0])
@pytest.mark.parametrize("trend", [None, "1 + x"])
def test_laws_of_as_many_patterns_as_sites(duration: float | None, trend: str | None) -> None:
    check_prior(patterns(6, duration, trend=trend))


@pytest.mark.parametrize("duration", [None, 2.0])
@pytest.mark.parametrize("solver", [mt.SparseCholesky, mt.Kriging])
def test_laws_of_the_solvers(duration: float | None, solver: type) -> None:
    prior = patterns(2, duration)
    sites = mt.Points(time=[0.0, 0.5, 2.0, 3.0], y=[0.0, 0.3, 1.0, 0.5], x=[0.2, 1.0, 2.0, 1.5])
    check_solver(solver(), prior, mt.PointObservation(prior.domain, sites, 0.3), size=1500)


@pytest.mark.parametrize("duration", [None, 2.0])
def test_covariance_by_hand(duration: float | None) -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    prior = patterns(2, duration, grid(mask))
    s, t = prior.domain.points, torch.tensor([0.0, 1.0, 3.0], dtype=DOUBLE)
    assert prior.modes is not None
    space = (prior.modes.mT * prior.log_variances.exp()) @ prior.modes
    lag = (t[:, None] - t).abs()
    time = (lag == 0).double() if duration is None else torch.exp(-lag / duration)
    expected = torch.kron(time, space).detach()
    assert_close(prior.covariance(s, s).detach(), expected)
    assert_close(prior.variance(s).detach(), expected.diagonal())
    assert_close(prior.mean(s), 0.3 + prior.pattern.repeat(3))
    x = prior.sample(4000, torch.Generator().manual_seed(0))
    se = ((expected.diagonal()[:, None] * expected.diagonal() + expected**2) / 4000).sqrt()
    assert ((torch.cov(x.mT) - expected).abs() <= 5 * se).all()


def test_past_fields() -> None:
    """All patterns give back the covariance of the fields; the first are its eigenvectors."""
    fields = normal(8, 6, seed=3)
    whole = EOF.from_fields(grid(), fields, 6)
    one_time = grid().points[:6]
    assert_close(whole.covariance(one_time, one_time).detach(), torch.cov(fields.mT))
    values, vectors = torch.linalg.eigh(torch.cov(fields.mT))
    first = EOF.from_fields(grid(), fields, 1, duration=3.0)
    assert first.modes is not None
    assert_close(first.log_variances.exp().detach(), values[-1:])
    assert_close((first.modes @ vectors[:, -1]).abs(), torch.ones(1, dtype=DOUBLE))
    assert_close(first.mean(one_time), fields.mean(dim=0))


def test_a_large_grid_needs_no_large_matrix() -> None:
    """20 000 nodes given 500 data: as ordinary least squares with a prior, time by time."""
    domain = mt.Grid(time=[0.0, 1.0], y=torch.arange(100.0), x=torch.arange(100.0))
    prior = EOF(domain, normal(3, 10_000))
    at = torch.randperm(20_000, generator=torch.Generator().manual_seed(2))[:500]
    seen = mt.PointObservation(domain, domain.points[at], 0.5)
    y = normal(500, seed=4)
    posterior = mt.SparseCholesky()(prior, seen)(y)
    assert prior.modes is not None
    now = at < 10_000
    L = prior.modes[:, at[now]].mT
    C = torch.linalg.inv(L.mT @ L / 0.25 + torch.eye(3, dtype=DOUBLE))
    expected = prior.modes.mT @ (C @ (L.mT @ y[now] / 0.25))
    assert_close(posterior.mean[:10_000], expected)
    spread = ((prior.modes.mT @ C) * prior.modes.mT).sum(dim=1).sqrt()
    assert_close(posterior.std()[:10_000], spread)


def test_fit_finds_the_duration() -> None:
    """Within five standard errors: 60 times of an autoregressive process."""
    domain = mt.Grid(time=torch.arange(60.0), x=torch.arange(4.0))
    modes = torch.eye(4, dtype=DOUBLE)
    y = EOF(domain, modes, duration=3.0).sample(1, torch.Generator().manual_seed(0))[0]
    prior = EOF(domain, modes, duration=1.0)
    prior.log_variances.requires_grad_(False)
    seen = mt.PointObservation(domain, domain.points, 0.05)
    mt.fit.maximum_likelihood(prior, seen, y)
    assert prior.log_duration is not None
    assert abs(prior.log_duration.exp().item() - 3.0) < 5 * 3.0 * (2 / 240) ** 0.5 * 2


def test_unknown_patterns() -> None:
    prior = EOF(grid())
    with pytest.raises(ValueError, match=r"by DINEOF\(\)"):
        prior.covariance(prior.domain.points, prior.domain.points)
    with pytest.raises(ValueError, match=r"by DINEOF\(\)"):
        prior.sample(1)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="axis 'time' and axes of space"):
        EOF(mt.Grid(x=[0.0, 1.0]))
    with pytest.raises(ValueError, match="axis 'time' and axes of space"):
        EOF(mt.Grid(time=[0.0, 1.0]))
    moving = torch.ones(3, 2, 3, dtype=torch.bool)
    moving[0, 0, 0] = False
    with pytest.raises(ValueError, match="the same at all times"):
        EOF(grid(moving))
    with pytest.raises(ValueError, match="patterns of 6 sites"):
        EOF(grid(), normal(2, 5))
    with pytest.raises(ValueError, match="variances"):
        EOF(grid(), normal(2, 6), normal(3).exp())
    with pytest.raises(ValueError, match="positive"):
        EOF(grid(), normal(2, 6), duration=-1.0)
    with pytest.raises(ValueError, match="more than patterns"):
        EOF.from_fields(grid(), normal(3, 6), 3)
