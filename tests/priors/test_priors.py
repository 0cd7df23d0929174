"""Gaussian processes: the laws of a prior, trends, and what is refused."""

from __future__ import annotations

import io
import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.testing import check_prior, small_grid

DOUBLE = torch.float64

KERNELS = {
    "exponential": lambda: mt.Matern(0.5, 2.0, 1.5),
    "rotated": lambda: mt.Matern(1.5, 2.0, (1.0, 2.0), rotation=30.0),
    "any-nu": lambda: mt.Matern(0.8, 1.0, (1.0, 1.5), learn_nu=True),
    "wendland": lambda: mt.Wendland(1.0, 2.0, smoothness=1),
    "sum": lambda: mt.Matern(0.5, 1.0, 1.0) + 2.0 * mt.Matern(1.5, 1.0, 3.0),
    "product": lambda: mt.Matern(1.5, 1.0, 2.0) * mt.Gaussian(1.0, 4.0),
    "nugget": lambda: mt.Matern(1.5) + mt.Nugget(0.2),
}


@pytest.mark.parametrize("trend", [None, "1 + x"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_laws(kernel: str, trend: str | None) -> None:
    prior = mt.GaussianProcess(KERNELS[kernel](), small_grid(), mean=0.5, trend=trend)
    prior.coefficients = 0.7 * torch.ones(len(prior.coefficients), dtype=DOUBLE)
    check_prior(prior)


def test_laws_on_the_sphere_in_time() -> None:
    grid = mt.Grid(time=[0.0, 1.0], lat=[60.0, 61.0], lon=[179.0, 180.0, 181.0])
    check_prior(mt.GaussianProcess(mt.Gneiting(1.0, 1e5, 2.0), grid))
    check_prior(mt.GaussianProcess(mt.Matern(1.5, 1.0, (2.0, 1e5, 2e5), rotation=40.0), grid))


def test_a_masked_grid_holds_its_sea_only() -> None:
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[1, 2] = mask[4, 5] = False
    whole = small_grid()
    grid = mt.Grid(**whole.axes, mask=mask)
    prior, full = (mt.GaussianProcess(mt.Matern(), g) for g in (grid, whole))
    check_prior(prior)
    sea = mask.flatten()
    found = prior.covariance(grid.points, grid.points)
    assert_close(found, full.covariance(whole.points, whole.points)[sea][:, sea])


def test_density_by_hand() -> None:
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0), mt.Points(x=[0.0, 1.0]), mean=1.0)
    rho = math.exp(-1.0)
    x = torch.tensor([2.0, 1.0], dtype=DOUBLE)
    assert_close(prior.cost(x).item(), 1 / (1 - rho**2) / 2 / 2)
    # the mean given x + sigma z, one node far from another
    far = mt.GaussianProcess(mt.Matern(0.5, 2.0), mt.Points(x=[0.0, 1e6]), mean=1.0)
    assert_close(far.denoise(x, 1.0), 1 + (x - 1) * 2 / 3)


def test_on_another_domain_the_law_is_the_same() -> None:
    grid = mt.Grid(lat=[40.0, 42.0], lon=[5.0, 8.0])
    elsewhere = mt.Points(lat=[41.0, 44.0], lon=[6.0, 2.0])
    prior = mt.GaussianProcess(
        mt.Matern(1.5, 1.0, (1e5, 3e5), rotation=20.0), grid, mean=2.0, trend="1 + lon"
    )
    moved = prior.on(elsewhere)
    assert moved.kernel is prior.kernel
    a, b = grid.points, elsewhere
    assert_close(moved.covariance(a, b), prior.covariance(a, b))
    assert_close(moved.design(b), prior.design(b))
    assert len(moved.drift()) == 2


def test_trends_are_counted_from_the_middle() -> None:
    domain = mt.Points(x=[1.0, 3.0], y=[0.0, 8.0], covariates={"d": [4.0, 9.0]})
    prior = mt.GaussianProcess(mt.Matern(), domain, trend="1 + x + y**2 + x*y + -sqrt(d)/2 + 3*d")
    assert prior.trend.names == ["1", "x", "y ** 2", "x * y", "-sqrt(d) / 2", "3 * d"]
    expected = [[1.0, -1.0, 16.0, 4.0, -1.0, 12.0], [1.0, 1.0, 16.0, 4.0, -1.5, 27.0]]
    assert prior.design(domain).tolist() == expected


def test_a_trend_in_longitude_sees_no_dateline() -> None:
    grid = mt.Grid(lat=[0.0, 1.0], lon=[178.0, 180.0, 182.0])
    prior = mt.GaussianProcess(mt.Matern(lengthscale=1e5), grid, trend="lon")
    F = prior.design(mt.Points(lat=[0.0] * 4, lon=[179.0, -179.0, 181.0, -180.0]))[:, 0]
    assert_close(F, torch.tensor([-1.0, 1.0, 1.0, 0.0], dtype=DOUBLE), rtol=0, atol=1e-9)


@pytest.mark.parametrize("trend", [None, "", "0"])
def test_no_trend(trend: str | None) -> None:
    prior = mt.GaussianProcess(mt.Matern(), small_grid(), trend=trend)
    assert prior.trend is None
    assert prior.design(small_grid().points).shape == (30, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_state_goes_through_a_file(kernel: str) -> None:
    first, second = (mt.GaussianProcess(KERNELS[kernel](), small_grid(), trend="1") for _ in "ab")
    with torch.no_grad():
        for p in first.parameters():
            p += 0.1
    first.coefficients = torch.tensor([3.0], dtype=DOUBLE)
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second.load_state_dict(torch.load(stream, weights_only=True))
    draws = [p.sample(2, torch.Generator().manual_seed(0)) for p in (first, second)]
    assert torch.equal(*draws)
    assert repr(first).startswith("GaussianProcess(")


SPHERE = {"lat": [0.0, 1.0], "lon": [0.0, 1.0]}
BAD = [
    (
        mt.Matern(lengthscale=(1.0, 2.0, 3.0, 4.0)),
        {"x": [0.0, 1.0]},
        r"expected one value or one per axis of the domain, got 4 values for 1",
    ),
    (
        mt.Matern(),
        {"time": [0.0], "x": [0.0]},
        r"expected a lengthscale per axis of \('time', 'x'\), got one number for both",
    ),
    (
        mt.Matern() + mt.Matern(),
        {"time": [0.0], **SPHERE},
        r"one number for both time and space in Matern",
    ),
    (
        mt.Matern(axes="space"),
        SPHERE,
        r"expected an axis 'time' .* for Matern over 'space', got \('lat', 'lon'\)",
    ),
    (
        mt.Matern(axes="time"),
        {"x": [0.0, 1.0]},
        r"expected an axis 'time' .* for Matern over 'time'",
    ),
    (mt.Matern(axes="space"), {"time": [0.0, 1.0]}, r"expected an axis 'time' and axes of space"),
    (mt.Gneiting(), SPHERE, r"for Gneiting over 'time', got \('lat', 'lon'\)"),
    (
        mt.Periodic(),
        {"x": [0.0], "y": [0.0]},
        r"Periodic\(axes=...\): expected one coordinate, got 2",
    ),
]


@pytest.mark.parametrize(("kernel", "axes", "message"), BAD)
def test_kernels_that_do_not_fit_the_axes_are_refused(kernel, axes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mt.GaussianProcess(kernel, mt.Grid(**axes))


@pytest.mark.parametrize(
    ("trend", "message"),
    [
        ("1 + depth", r"expected coordinates or covariates among \['x', 'y'\], got 'depth'"),
        (
            "1 +",
            r"Trend\(formula=...\): expected a sum of terms such as '1 \+ lon \+ lat', got '1 \+'",
        ),
        ("log(x)", r"expected finite columns, got NaN or Inf in 'log\(x\)'"),
        ("__import__('os')", r"expected coordinates or covariates"),
        ("x.real", r"got 'x.real'"),
        ("max(x)", r"got 'max\(x\)'"),
    ],
)
def test_bad_trends_are_refused(trend: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mt.GaussianProcess(mt.Matern(), small_grid(), trend=trend).design(small_grid().points)


def test_points_of_another_kind_are_refused() -> None:
    prior = mt.GaussianProcess(mt.Matern(), small_grid())
    with pytest.raises(ValueError, match=r"expected points with dims \('y', 'x'\) on the plane"):
        prior.covariance(mt.Points(x=[0.0]), mt.Points(x=[0.0]))


def test_a_singular_prior_has_no_density_but_draws() -> None:
    prior = mt.GaussianProcess(mt.Matern(), mt.Points(x=[0.0, 0.0]))
    draws = prior.sample(3, torch.Generator().manual_seed(0))
    assert_close(draws[:, 0], draws[:, 1], rtol=0, atol=1e-7)
    with pytest.raises(
        ValueError, match=r"GaussianProcess: expected a positive definite covariance"
    ):
        prior.cost(torch.zeros(2, dtype=DOUBLE))
