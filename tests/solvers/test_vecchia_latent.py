"""The latent form of the Vecchia solver: dense with all neighbours, closer with few and noise."""

from __future__ import annotations

import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.linalg.vecchia import maxmin_order
from matheron.linalg.vecchia.latent import LatentField
from matheron.solvers import vecchia_latent
from matheron.testing import check_calibration, check_solver, reference

DOUBLE = torch.float64
ENGINES = pytest.mark.parametrize("engine", ["auto", "torch"])


def latent(neighbors: int = 100, **change: object) -> mt.Vecchia:
    return mt.Vecchia(neighbors, form="latent", **change)


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def sites(m: int = 14, seed: int = 1) -> mt.Points:
    return mt.Points(x=uniform(m, 0, 4, seed), y=uniform(m, 0, 3, seed + 100))


def plane_grid(rows: int = 4, columns: int = 5) -> mt.Grid:
    y, x = torch.linspace(0, 3, rows, dtype=DOUBLE), torch.linspace(0, 4, columns, dtype=DOUBLE)
    return mt.Grid(y=y, x=x)


def noisy(grid: mt.Grid) -> mt.PointObservation:
    return mt.PointObservation(grid, sites(), 0.3, learn_noise=True)


def biased(grid: mt.Grid) -> mt.PointObservation:
    return mt.PointObservation(grid, sites(), uniform(14, 0.1, 0.6, 5), bias_std=1.5)


def repeated(grid: mt.Grid) -> mt.PointObservation:
    """Data on nodes and off them, some places twice, in no order."""
    points = mt.Points.join(grid.points[torch.tensor([3, 0, 17, 9, 9])], sites(4), sites(4))
    return mt.PointObservation(grid, points, uniform(13, 0.1, 0.6, 5))


def gappy(grid: mt.Grid) -> mt.GriddedObservation:
    return mt.GriddedObservation(grid, uniform(20, 0, 1, 8) > 0.4, 0.2)


def missions(grid: mt.Grid) -> mt.Stack:
    first = mt.PointObservation(grid, sites(6), 0.1, learn_noise=True, bias_std=0.7)
    second = mt.PointObservation(grid, sites(5, 40), 0.4, bias_std=2.0)
    return mt.Stack(first, second, gappy(grid))


OBSERVATIONS = {f.__name__: f for f in (noisy, biased, repeated, gappy, missions)}
KERNELS = {
    "exponential": lambda: mt.Matern(0.5, 2.0, 1.5),
    "rotated": lambda: mt.Matern(1.5, 2.0, (1.0, 2.5), rotation=30.0),
    "gaussian": lambda: mt.Gaussian(0.7, 1.0),
    "sum": lambda: mt.Matern(0.5, 1.0, 1.0) + 2.0 * mt.Matern(2.5, 1.0, 3.0),
    "nugget": lambda: mt.Nugget(0.3) + mt.Matern(1.5, 1.0, 2.0),
}


@ENGINES
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(engine: str, kernel: str) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS[kernel](), grid, mean=0.7)
    check_solver(latent(engine=engine), prior, noisy(grid), size=1500)


@pytest.mark.parametrize("trend", [None, "1 + x"])
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_observations(observation: str, trend: str | None) -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(KERNELS["rotated"](), grid, mean=-2.0, trend=trend)
    check_solver(latent(), prior, OBSERVATIONS[observation](grid), size=1500)


@pytest.mark.parametrize("gneiting", [False, True])
def test_space_and_time_across_the_dateline(gneiting: bool) -> None:
    grid = mt.Grid(time=[0.0, 2.0, 5.0], lat=[60.0, 61.0], lon=[178.5, 180.0, 181.5])
    lon = torch.remainder(uniform(16, 177, 183, 2) + 180, 360) - 180
    points = mt.Points(time=uniform(16, -1, 6, 1), lat=uniform(16, 59, 62, 3), lon=lon)
    kernel = mt.Gneiting(1.0, 1e5, 3.0) if gneiting else mt.Matern(1.5, 1.0, (3.0, 1e5, 2e5))
    prior = mt.GaussianProcess(kernel, grid, trend="1 + lon + lat")
    seen = mt.PointObservation(grid, points, 0.2, learn_noise=True, bias_std=0.4)
    check_solver(latent(), prior, seen, size=1500)


def test_calibration_over_twins() -> None:
    prior = mt.GaussianProcess(KERNELS["exponential"](), plane_grid())
    check_calibration(latent(), prior, sites(), 0.3)


# Few neighbours: the precision by brute force, and what the form is for.


def by_hand(order: Tensor, K: Tensor, x: Tensor, m: int) -> Tensor:
    """The covariance of the product of conditionals given ``m`` near earlier sites, densely."""
    B = torch.zeros(len(K), len(K), dtype=DOUBLE)
    for rank, i in enumerate(order.tolist()):
        earlier = order[:rank]
        c = earlier[(x[earlier] - x[i]).norm(dim=1).argsort()[:m]]
        w = torch.linalg.solve(K[c][:, c], K[c, i])
        B[rank, i], B[rank, c] = 1.0, -w
        B[rank] /= (K[i, i] - w @ K[c, i]).sqrt()
    return torch.linalg.inv(B.mT @ B)


@pytest.mark.parametrize("split", [40, 25])
def test_few_neighbors_are_the_product_of_conditionals_of_the_field(split: int) -> None:
    """Places of data come first, then the other nodes; each is ordered among its own."""
    points, y, m = sites(40), normal(split), 4
    data, rest = torch.arange(split), torch.arange(split, 40)
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), points, trend="1")
    seen = mt.PointObservation(points, points[data], 0.5)
    posterior = mt.Vecchia(m, m, form="latent")(prior, seen)(y)
    near = prior.kernel.neighborhood(points.coords)
    order = torch.cat([p[maxmin_order(near[p])] for p in (data, rest)])
    K = prior.covariance(points, points).detach()
    every = by_hand(order, K, points.coords, m)
    A = every[:, :split]
    C = every[:split, :split]
    S = C + 0.25 * torch.eye(split, dtype=DOUBLE)
    F, H = torch.ones(split, 1, dtype=DOUBLE), torch.ones(40, 1, dtype=DOUBLE)
    V = torch.linalg.inv(F.mT @ torch.linalg.solve(S, F))
    r = y - F @ (beta := V @ (F.mT @ torch.linalg.solve(S, y)))
    assert_close(posterior.mean, H @ beta + A @ torch.linalg.solve(S, r), rtol=1e-9, atol=1e-9)
    G = H - A @ torch.linalg.solve(S, F)
    P = every - A @ torch.linalg.solve(S, A.mT) + G @ V @ G.mT
    assert_close(posterior.covariance(), P, rtol=1e-8, atol=1e-8)
    assert_close(posterior.std(), P.diagonal().sqrt(), rtol=1e-8, atol=1e-8)
    evidence = -(r @ torch.linalg.solve(S, r) + torch.logdet(2 * math.pi * S)) / 2
    assert_close(posterior.log_evidence, evidence, rtol=1e-9, atol=1e-9)


def errors(solver: mt.Vecchia, noise: float, seed: int) -> tuple[float, float, float]:
    """The errors to kriging of mean, standard deviation and evidence, on a draw of the model."""
    grid, points = plane_grid(8, 10), sites(300, seed)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.0), grid)
    seen = mt.PointObservation(grid, points, noise)
    K = prior.covariance(points, points).detach()
    y = torch.linalg.cholesky(K + noise**2 * torch.eye(300, dtype=DOUBLE)) @ normal(300, seed)
    mean, P, evidence = reference(prior, seen, y)
    posterior = solver(prior, seen)(y)
    return (
        (posterior.mean - mean).square().mean().sqrt().item(),
        (posterior.std() - P.diagonal().sqrt()).square().mean().sqrt().item(),
        abs(posterior.log_evidence - evidence).item(),
    )


def test_with_much_noise_and_few_neighbors_the_latent_form_is_closer_to_kriging() -> None:
    """The error in the root mean square over ten draws, for each of the three answers."""
    found = [
        torch.tensor([errors(mt.Vecchia(8, form=form), 1.0, seed) for seed in range(10)])
        for form in ("latent", "response")
    ]
    a, b = (x.square().mean(dim=0).sqrt() for x in found)
    assert (a < b / 1.25).all(), (a, b)
    assert a[0] < b[0] / 2, (a, b)
    assert a[2] < b[2] / 5, (a, b)


# Variances by simulation, determinism, memory.


def test_the_simulated_variance_is_within_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Five standard errors :math:`\sqrt{2 / N}` of the part that is simulated, at most all."""
    grid = plane_grid(12, 12)
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0, 1.5), grid, trend="1")
    points = mt.Points.join(grid.points[torch.arange(0, 144, 3)], sites(60))
    seen = mt.PointObservation(grid, points, 0.8)
    exact = latent(15)(prior, seen).variance()
    monkeypatch.setattr(vecchia_latent, "EXACT_LIMIT", 0)
    conditional = latent(15)(prior, seen)
    found = conditional.variance()
    error = exact * math.sqrt(2 / vecchia_latent.DRAWS)
    assert ((found - exact).abs() < 5 * error).all()
    assert torch.equal(found, latent(15)(prior, seen).variance())
    own = torch.cat([conditional.field.own_variance, conditional.spread.square()])
    assert (own[conditional.slot] <= exact * (1 + 1e-9)).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = plane_grid(6, 6)
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0, 1.5), grid, trend="1")
    first = latent(9)(prior, noisy(grid))
    monkeypatch.setattr(vecchia_latent, "NUMBERS", 500)
    again = latent(9)(prior, noisy(grid))
    assert_close(again.variance(), first.variance(), rtol=1e-12, atol=1e-12)
    assert_close(again.covariance(), first.covariance(), rtol=1e-12, atol=1e-12)
    draws = again.sample(normal(14), 4000, torch.Generator().manual_seed(1))
    # the standard error of a variance over N draws is s^2 sqrt(2 / N)
    assert (draws.var(0) / first.variance() - 1).abs().max() < 5 * (2 / 4000) ** 0.5


def test_the_order_of_data_does_not_matter() -> None:
    grid, std = plane_grid(), uniform(14, 0.1, 0.5, 3)
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0, 1.5), grid, trend="1")
    shuffled = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    a, b = (
        latent(3)(prior, mt.PointObservation(grid, sites()[i], std[i]))(normal(14)[i])
        for i in (torch.arange(14), shuffled)
    )
    assert_close(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    assert_close(a.std(), b.std(), rtol=1e-9, atol=1e-9)
    assert_close(a.log_evidence, b.log_evidence, rtol=1e-9, atol=1e-9)


def test_noise_without_end_gives_the_prior() -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid, mean=3.0)
    posterior = latent()(prior, mt.PointObservation(grid, sites(), 1e7))(normal(14))
    assert_close(posterior.mean, torch.full((20,), 3.0, dtype=DOUBLE), rtol=1e-9, atol=1e-9)
    assert_close(posterior.std(), torch.full((20,), 2.0**0.5, dtype=DOUBLE), rtol=1e-9, atol=1e-9)


def test_noise_near_zero_interpolates() -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid)
    index = torch.tensor([4, 0, 19, 11, 7])
    seen = mt.PointObservation(grid, grid.points[index], 1e-6)
    posterior = latent()(prior, seen)(normal(5))
    assert_close(posterior.mean[index], normal(5), rtol=1e-9, atol=1e-9)
    assert_close(posterior.std()[index], torch.full((5,), 1e-6, dtype=DOUBLE), rtol=1e-6, atol=0.0)


@ENGINES
def test_one_datum_and_no_other_node(engine: str) -> None:
    grid, y = mt.Grid(x=[0.0, 1.0, 5.0]), torch.tensor([2.0], dtype=DOUBLE)
    seen = mt.PointObservation(grid, mt.Points(x=[1.0]), 0.3)
    for domain in (grid, seen.points):
        prior = mt.GaussianProcess(mt.Matern(1.5), domain)
        a, b = (solver(prior, seen)(y) for solver in (latent(1, engine=engine), mt.Kriging()))
        assert_close(a.mean, b.mean)
        assert_close(a.std(), b.std())
        assert_close(a.log_evidence, b.log_evidence)
        assert a.sample(4).shape == (4, len(domain))


def test_a_fit_keeps_to_the_response_form() -> None:
    grid = plane_grid()
    prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.0), grid, trend="1")
    values = [
        solver.likelihood(prior, noisy(grid), normal(14)).value()
        for solver in (latent(4), mt.Vecchia(4))
    ]
    assert torch.equal(*values)


# Refusals.


@pytest.mark.parametrize(
    ("std", "kernel", "message"),
    [
        (torch.zeros(2), mt.Matern(0.5), r"noise_std > 0 .* got 2 of 2 .* Use form='response'\."),
        (torch.tensor([0.1, 0.0]), mt.Matern(0.5), r"noise_std > 0 at every datum, got 1 of 2"),
        (torch.ones(2), mt.Gaussian(1.0, 1e9), r"rougher than round-off, got 1 of 2 places"),
    ],
)
def test_what_has_no_precision_is_refused(
    std: Tensor, kernel: mt.kernels.Kernel, message: str
) -> None:
    grid = plane_grid()
    seen = mt.PointObservation(grid, mt.Points(x=[0.5, 0.7], y=[1.0, 1.0]), std.double())
    with pytest.raises(ValueError, match=r"^Vecchia\(form='latent'\): expected .*" + message):
        latent()(mt.GaussianProcess(kernel, grid), seen)


def test_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Vecchia\(form=...\): .* got 'field'"):
        mt.Vecchia(form="field")


def test_a_lost_pivot_is_refused() -> None:
    """Standard deviations of 1e-200 overflow in the precision."""
    tiny = torch.full((2,), 1e-200, dtype=DOUBLE)
    table = torch.full((2, 1), -1, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"expected a positive definite precision"):
        LatentField(0 * tiny[:, None], tiny, table, torch.arange(2), torch.ones(2).double())
