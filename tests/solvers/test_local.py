"""Local kriging: exact where windows hold all the data, coherent and stable where they do not."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.linalg.gaussian import FourierSeries, gaussian_matrix
from matheron.linalg.lattice import Lattice
from matheron.linalg.sliding import bordered
from matheron.solvers.local import LocalKriging
from matheron.solvers.local_draws import draw
from matheron.testing import check_calibration, reference

DOUBLE = torch.float64


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def grid(days: int = 6, **given) -> mt.Grid:
    y, x = torch.linspace(0, 3, 4, dtype=DOUBLE), torch.linspace(0, 4, 5, dtype=DOUBLE)
    return mt.Grid(time=torch.arange(days, dtype=DOUBLE), y=y, x=x, **given)


def sites(m: int = 40, days: int = 6, seed: int = 1) -> mt.Points:
    t, y, x = uniform(m, -1, days, seed), uniform(m, 0, 3, seed + 1), uniform(m, 0, 4, seed + 2)
    return mt.Points(time=t, y=y, x=x)


def data(m: int, seed: int = 7) -> Tensor:
    return uniform(m, -1, 1, seed)


KERNELS = {
    "gaussian": lambda: mt.Gaussian(1.0, (2.0, 0.8, 1.0)),
    "rotated": lambda: mt.Gaussian(1.0, (2.0, 0.8, 1.5), rotation=(30.0, 0.0, 0.0)),
    "matern": lambda: mt.Matern(1.5, 1.0, (2.0, 0.8, 1.0)),
    "separable": lambda: mt.separable(
        mt.Matern(0.5, 1.0, 3.0, axes="time"), mt.Gaussian(0.5, (0.8, 1.1), axes="space")
    ),
    "two scales": lambda: mt.Gaussian(0.7, (2.0, 0.8, 1.0)) + mt.Gaussian(0.3, (9.0, 3.0, 3.0)),
    "periodic": lambda: (
        mt.Periodic(4.0, 1.0, 1.2, axes="time") * mt.Matern(1.5, 1.0, 1.0, axes="space")
    ),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("trend", [None, "1 + x"])
def test_whole_window_is_kriging(kernel: str, trend: str | None) -> None:
    prior = mt.GaussianProcess(KERNELS[kernel](), grid(2), mean=0.3, trend=trend)
    seen = mt.PointObservation(prior.domain, sites(14, 2), 0.3, bias_std=0.5)
    y = data(14)
    mean, P, _ = reference(prior, seen, y)
    conditional = LocalKriging(math.inf)(prior, seen)
    posterior, std = conditional(y), P.diagonal().clamp(min=0).sqrt()
    assert_close(posterior.mean, mean, rtol=0, atol=1e-10)
    assert_close(posterior.std(), std, rtol=0, atol=1e-7)
    size = 4000
    draws = posterior.sample(size, torch.Generator().manual_seed(0))
    error = ((torch.outer(P.diagonal(), P.diagonal()) + P.square()) / size).sqrt() + 1e-9
    assert ((torch.cov(draws.mT) - P).abs() / error).max() < 5
    assert torch.equal(draws, posterior.sample(size, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [1.6, 2.5, 100.0])
def test_each_time_is_kriged_from_its_window(kernel: str, window: float) -> None:
    prior = mt.GaussianProcess(KERNELS[kernel](), grid(), mean=0.3)
    points, y = sites(), data(40)
    seen = mt.Stack(
        mt.PointObservation(prior.domain, points[:25], uniform(25, 0.1, 0.4, 3), bias_std=0.6),
        mt.PointObservation(prior.domain, points[25:], 0.2),
    )
    posterior = LocalKriging(window)(prior, seen)(y)
    mean, std = (prior.domain.unflatten(v) for v in (posterior.mean, posterior.std()))
    for day in range(6):
        near = torch.nonzero((points.axis("time") - day).abs() < window)[:, 0]
        axes = {k: prior.domain.axes[k] for k in ("y", "x")}
        here = mt.Grid(time=[float(day)], **axes)
        expected, P, _ = reference(prior.on(here), seen.take(near), y[near])
        assert_close(mean[day].flatten(), expected, rtol=0, atol=1e-10)
        assert_close(std[day].flatten(), P.diagonal().clamp(min=0).sqrt(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kernel", ["gaussian", "matern"])
def test_same_numbers_alone_or_together(kernel: str) -> None:
    """A day is the same in a map of one day and of many, and a member in a batch or alone."""
    points, y = sites(60), data(60)
    whole = mt.GaussianProcess(KERNELS[kernel](), grid())
    conditional = LocalKriging(2.0)(whole, mt.PointObservation(whole.domain, points, 0.2))
    found = whole.domain.unflatten(conditional.estimate(y))
    axes = {k: whole.domain.axes[k] for k in ("y", "x")}
    alone = whole.on(mt.Grid(time=[3.0], **axes))
    day = LocalKriging(2.0)(alone, mt.PointObservation(alone.domain, points, 0.2)).estimate(y)
    assert_close(found[3].flatten(), day, rtol=0, atol=1e-12)
    batch = conditional.estimate(torch.stack([y, 2 * y]))
    assert_close(batch, torch.stack([found.flatten(), 2 * found.flatten()]), rtol=0, atol=1e-12)


def test_dates_on_the_sphere() -> None:
    """Across the dateline, with data that are dated from another day."""
    days = np.datetime64("2012-10-22") + np.arange(4)
    domain = mt.Grid(time=days, lat=[60.0, 61.0, 62.0], lon=[178.5, 180.0, 181.5])
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, (3.0, 1e5, 2e5)), domain, trend="1")
    lon = uniform(30, 177, 183, 2)
    stamps = np.datetime64("2012-10-21", "ns") + (uniform(30, 0, 5, 1).numpy() * 86400e9).astype(
        "timedelta64[ns]"
    )
    points = mt.Points(
        time=stamps, lat=uniform(30, 59, 63, 3), lon=torch.where(lon > 180, lon - 360, lon)
    )
    seen = mt.PointObservation(domain, points, 0.2)
    mean = domain.unflatten(LocalKriging(1.5)(prior, seen)(data(30)).mean)
    t = points.since(domain.epoch).axis("time")
    for day in range(4):
        near = torch.nonzero((t - day).abs() < 1.5)[:, 0]
        here = mt.Grid(time=days[day : day + 1], lat=domain.axes["lat"], lon=domain.axes["lon"])
        law, own = prior.on(here), mt.PointObservation(here, points[near], 0.2)
        expected = mt.Kriging()(law, own)(data(30)[near]).mean
        assert_close(mean[day].flatten(), expected, rtol=0, atol=1e-9)


def test_gaps_of_a_grid() -> None:
    prior = mt.GaussianProcess(KERNELS["gaussian"](), grid(3))
    seen = mt.GriddedObservation(prior.domain, uniform(60, 0, 1, 8) > 0.5, 0.2)
    exact, local = (s(prior, seen)(data(60)) for s in (mt.Kriging(), LocalKriging(math.inf)))
    assert_close(local.mean, exact.mean, rtol=0, atol=1e-10)


def test_land_is_left_out() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1:3, 2:] = False
    sea = mt.GaussianProcess(KERNELS["gaussian"](), grid(mask=mask))
    plain = sea.on(grid())
    points, y = sites(), data(40)
    maps = [
        LocalKriging(2.0)(p, mt.PointObservation(p.domain, points, 0.2))(y) for p in (sea, plain)
    ]
    (a, b), keep = ((p.mean, p.std()) for p in maps), sea.domain.mask
    assert_close(a[0], b[0][keep], rtol=0, atol=1e-12)
    assert_close(a[1], b[1][keep], rtol=0, atol=1e-9)


def test_a_window_without_data_is_the_prior() -> None:
    prior = mt.GaussianProcess(KERNELS["gaussian"](), grid(), mean=0.7)
    seen = mt.PointObservation(prior.domain, mt.Points(time=[0.0], y=[1.0], x=[1.0]), 0.1)
    posterior = LocalKriging(1.0)(prior, seen)(torch.ones(1, dtype=DOUBLE))
    mean, std = (prior.domain.unflatten(v) for v in (posterior.mean, posterior.std()))
    assert_close(mean[1:], torch.full((5, 4, 5), 0.7, dtype=DOUBLE))
    assert_close(std[1:], torch.ones(5, 4, 5, dtype=DOUBLE))
    trended = mt.GaussianProcess(KERNELS["gaussian"](), prior.domain, trend="1")
    conditional = LocalKriging(1.0)(trended, seen)
    with pytest.raises(ValueError, match=r"LocalKriging\(prior=...\): expected a trend"):
        conditional.estimate(torch.ones(1, dtype=DOUBLE))


@pytest.mark.parametrize("metric", ["plane", "sphere"])
def test_tiles_of_space_tend_to_kriging(metric: str) -> None:
    """The wider the radius the closer; beyond the domain there is one tile, and no error."""
    lat, lon = torch.linspace(38, 44, 13, dtype=DOUBLE), torch.linspace(-66, -58, 17, dtype=DOUBLE)
    degree = 1.0 if metric == "plane" else 111e3
    domain = mt.Grid(lat=lat, lon=lon, metric=metric)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 0.6 * degree), domain)
    points = mt.Points(lat=uniform(150, 38, 44, 1), lon=uniform(150, -66, -58, 2), metric=metric)
    seen = mt.PointObservation(domain, points, 0.2)
    exact = mt.Kriging()(prior, seen)(data(150))
    errors = []
    for radius in (0.6, 1.2, 2.4, 50.0):
        local = LocalKriging(radius=radius * degree)(prior, seen)(data(150))
        errors.append((local.mean - exact.mean).abs().max().item())
        assert (local.std() > exact.std() - 1e-9).all()
    assert errors[0] < 0.5
    assert errors[1] < 0.05
    assert errors[2] < 2e-3
    assert errors[3] < 1e-10


def test_tiles_have_no_seam() -> None:
    """Across a corner of the tiles the map moves as little as between."""
    x = torch.linspace(0, 6, 6001, dtype=DOUBLE)
    prior = mt.GaussianProcess(mt.Gaussian(1.0, 0.5), mt.Grid(x=x))
    seen = mt.PointObservation(prior.domain, mt.Points(x=uniform(30, 0, 6, 3)), 0.1)
    mean = LocalKriging(radius=0.5)(prior, seen)(data(30)).mean
    assert mean.diff().abs().max() < 0.02


@pytest.mark.parametrize("window", [1.6, None])
def test_draws_have_the_law_of_the_error(window: float | None) -> None:
    """Matheron's rule: the spread of draws is that of the estimate's error under the prior."""
    prior = mt.GaussianProcess(KERNELS["gaussian"](), grid(4))
    points, y, size = sites(20, 4), data(20), 4000
    seen = mt.PointObservation(prior.domain, points, 0.3)
    posterior = LocalKriging(window)(prior, seen)(y)
    draws = posterior.sample(size, torch.Generator().manual_seed(0))
    std = posterior.std()
    error = std / (2 * size) ** 0.5  # of a sample std
    assert ((draws.std(dim=0) - std).abs() / error).max() < 5
    assert ((draws.mean(dim=0) - posterior.mean).abs() / (std / size**0.5)).max() < 5


def test_calibration() -> None:
    prior = mt.GaussianProcess(KERNELS["separable"](), grid(3))
    check_calibration(LocalKriging(2.5), prior, sites(25, 3), 0.2)


def test_window_by_tolerance() -> None:
    """exp(-t^2 / (2 l^2)) falls under 1e-3 at l sqrt(2 log 1000)."""
    prior = mt.GaussianProcess(KERNELS["gaussian"](), grid())
    seen = mt.PointObservation(prior.domain, sites(), 0.3)
    window = LocalKriging()(prior, seen)(data(40)).info["window"]
    expected = 2.0 * math.sqrt(2 * math.log(1000.0))
    assert expected < window < 1.02 * expected
    exact = mt.Kriging()(prior, seen)(data(40))
    near = LocalKriging(tolerance=1e-6)(prior, seen)(data(40))
    assert (near.mean - exact.mean).abs().max() < 1e-3


def test_points_with_times_of_their_own() -> None:
    prior = mt.GaussianProcess(KERNELS["gaussian"](), sites(30, 6, 50))
    seen = mt.PointObservation(prior.domain, sites(), 0.3)
    posterior = LocalKriging(30.0, every=1.0)(prior, seen)(data(40))
    assert posterior.info["windows"] <= 8
    assert_close(posterior.mean, mt.Kriging()(prior, seen)(data(40)).mean, rtol=0, atol=1e-10)


def test_bordered_factors() -> None:
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(9, 12, dtype=DOUBLE, generator=generator)
    S = A @ A.mT
    windows = [torch.tensor(w) for w in ([0, 1, 2, 3, 4], [2, 3, 4, 5], [2, 3, 7, 8])]
    b = torch.randn(9, 2, dtype=DOUBLE, generator=generator)
    for rows, factor in zip(windows, bordered(S, windows, "test"), strict=True):
        assert factor.index.sort()[0].tolist() == rows.tolist()
        own = factor.index
        found = factor.unwhiten(factor.whiten(b[own]))
        assert_close(found, torch.linalg.solve(S[own][:, own], b[own]))


def test_lattice_with_gaps() -> None:
    x = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, 5.0])).double()
    lattice = Lattice.of(x[[1, 2, 4]])
    assert lattice is not None
    product = torch.cartesian_prod(*lattice.axes)
    assert_close(product[lattice.index], x[[1, 2, 4]])
    assert Lattice.of(torch.stack([uniform(30, 0, 1, 1), uniform(30, 0, 1, 2)], -1)) is None


def test_fourier_series_has_the_covariance() -> None:
    x = torch.stack([uniform(12, 0, 9, 1), uniform(12, -3, 2, 2)], -1)
    series = FourierSeries(x)
    basis = torch.eye(series.size, dtype=DOUBLE)
    shape = series.coefficients(1, None).shape[1:]
    A = series.at(x, basis.reshape(-1, *shape))
    K = gaussian_matrix([(torch.tensor(1.0, dtype=DOUBLE), x)])
    assert_close(A.mT @ A, K, rtol=0, atol=1e-10)
    assert_close(K, mt.Gaussian()(x, x).detach(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kernel", ["gaussian", "rotated", "two scales", "matern", "separable"])
def test_draws_at_many_sites(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to draw has the covariance of the kernel, between nodes and data alike."""
    monkeypatch.setattr("matheron.solvers.local_draws.DENSE", 0)
    monkeypatch.setattr("matheron.solvers.local_draws.NEIGHBORS", 60)
    k, size = KERNELS[kernel](), 1500
    a, b = grid(2).points.coords, sites(14, 2).coords
    fields = draw(k, [a, b], size, torch.Generator().manual_seed(0))
    x, every = torch.cat(fields, dim=-1), torch.cat([a, b])
    K = k(every, every).detach()
    d = K.diagonal()
    error = ((torch.outer(d, d) + K.square()) / size).sqrt()  # of an entry
    assert ((torch.cov(x.mT) - K).abs() / error).max() < 5


def test_refusals() -> None:
    prior = mt.GaussianProcess(KERNELS["gaussian"](), grid())
    seen = mt.PointObservation(prior.domain, sites(), 0.3)
    with pytest.raises(ValueError, match=r"LocalKriging\(window=...\): expected a positive"):
        LocalKriging(0.0)
    with pytest.raises(ValueError, match=r"LocalKriging\(max_size=10\): expected at most"):
        LocalKriging(math.inf, max_size=10)(prior, seen)
    with pytest.raises(TypeError, match="expected a Gaussian conditional law"):
        LocalKriging(2.0)(prior, seen)(data(40)).covariance()
