"""What is particular to the Vecchia solver: few neighbours, sites that coincide, determinism."""

from __future__ import annotations

import itertools
import math
import numpy as np
import pytest
import torch

from jaxtyping import TypeCheckError
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.linalg.vecchia import maxmin_order

DOUBLE = torch.float64
ENGINES = pytest.mark.parametrize("engine", ["compiled", "torch"])


def uniform(size: int, seed: int) -> Tensor:
    return torch.rand(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def square(m: int, seed: int = 1) -> mt.Points:
    return mt.Points(x=4 * uniform(m, seed), y=3 * uniform(m, seed + 50))


def kernel() -> mt.kernels.Kernel:
    return mt.Matern(1.5, 2.0, (1.0, 2.0), rotation=25.0) + mt.Matern(0.5, 0.5, 0.4)


def free(*modules: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def test_one_neighbor_on_a_line_by_brute_force() -> None:
    """One neighbour is the product of the conditionals given the nearest earlier site."""
    x = 20 * uniform(25, 3)
    domain = mt.Points(x=x)
    prior = mt.GaussianProcess(mt.Matern(0.5, 2.0, 3.0), domain)
    likelihood = mt.Vecchia(1).likelihood(
        prior, mt.PointObservation(domain, domain, 0.0), normal(25)
    )
    order = maxmin_order(prior.kernel.neighborhood(domain.coords), 0)
    s, v = x[order], likelihood.v[order]
    expected = 0.0
    for i in range(25):
        mean, variance = 0.0, 2.0
        if i:
            j = int((s[:i] - s[i]).abs().argmin())
            rho = math.exp(-abs(s[i] - s[j]) / 3.0)
            mean, variance = rho * v[j], 2.0 * (1 - rho**2)
        expected -= ((v[i] - mean) ** 2 / variance + math.log(2 * math.pi * variance)) / 2
    assert_close(likelihood.value().item(), float(expected))


@ENGINES
@pytest.mark.parametrize("bias", [None, 0.5])
def test_all_neighbors_are_dense_in_likelihood_gradient_fisher_mean_and_covariance(
    engine: str, bias: float | None
) -> None:
    domain, points = square(15, 9), square(18)
    prior = mt.GaussianProcess(kernel(), domain, trend="1 + x")
    seen = mt.PointObservation(domain, points, 0.2, learn_noise=True, bias_std=bias)
    y, parameters = normal(18), free(prior, seen)
    exact = mt.Kriging().likelihood(prior, seen, y)
    near = mt.Vecchia(17, 50, engine).likelihood(prior, seen, y)
    assert_close(near.value(), exact.value(), rtol=1e-8, atol=1e-8)
    slopes = [torch.autograd.grad(x.value(), parameters) for x in (near, exact)]
    for a, b in zip(*slopes, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-8)
    for a, b in zip(near.coefficients(), exact.coefficients(), strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-8)
    a, b = near.score(parameters), exact.score(parameters)
    assert b is not None
    if engine == "compiled":
        assert a is not None
        assert_close(a.gradient, b.gradient, rtol=1e-7, atol=1e-8)
        if bias is None:  # with biases the information of the other parameters is that given them
            assert_close(a.information, b.information, rtol=1e-7, atol=1e-8)
    p, q = (s(prior, seen)(y) for s in (mt.Vecchia(17, 50, engine), mt.Kriging()))
    assert_close(p.mean, q.mean, rtol=1e-8, atol=1e-8)
    assert_close(p.covariance(), q.covariance(), rtol=1e-8, atol=1e-8)


def test_the_divergence_falls_as_neighbors_are_added() -> None:
    r"""KL(dense | Vecchia) is :math:`E[\log p - \log q]`: the gap of the log-determinants plus
    that of the quadratic forms, whose mean under p is found from the columns of a root of K.
    """
    domain = square(80)
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.5), domain)
    seen = mt.PointObservation(domain, domain, 0.1)
    K = prior.covariance(domain, domain).detach() + 0.01 * torch.eye(80, dtype=DOUBLE)
    root = torch.linalg.cholesky(K)
    found = []
    for m in (1, 3, 6, 12, 30, 79):
        likelihood = mt.Vecchia(m).likelihood(prior, seen, normal(80))
        logdet, gram = likelihood.whiten(root)
        found.append(((gram.trace() - 80 + logdet - torch.logdet(K)) / 2).item())
    assert all(a > b for a, b in itertools.pairwise(found)), found
    assert abs(found[-1]) < 1e-8
    assert found[0] > 1


def run(seed: int = 0, **change) -> tuple[Tensor, ...]:
    domain = mt.Grid(
        x=torch.linspace(0, 4, 12, dtype=DOUBLE), y=torch.linspace(0, 3, 9, dtype=DOUBLE)
    )
    prior = mt.GaussianProcess(kernel(), domain, trend="1")
    posterior = mt.Vecchia(8, seed=seed, **change)(
        prior, mt.PointObservation(domain, square(60), 0.1)
    )(normal(60))
    draws = posterior.sample(3, torch.Generator().manual_seed(2))
    return posterior.mean, posterior.std(), draws, posterior.log_evidence


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads() -> None:
    first, threads = run(), torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        again = run()
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(run(seed=1)[2], first[2])


def test_targets_that_coincide_share_their_draws() -> None:
    domain = mt.Points(x=[0.0, 1.0, 0.0, 2.0, 1.0], y=[0.0, 1.0, 0.0, 0.0, 1.0])
    prior = mt.GaussianProcess(mt.Matern(1.5), domain)
    posterior = mt.Vecchia(5)(prior, mt.PointObservation(domain, square(6), 0.1))(normal(6))
    draws = posterior.sample(7, torch.Generator().manual_seed(0))
    assert torch.equal(draws[:, 0], draws[:, 2])
    assert torch.equal(draws[:, 1], draws[:, 4])
    assert_close(posterior.covariance()[0, 2], posterior.covariance()[0, 0])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_targets_on_data(noise: float) -> None:
    points = square(20)
    prior = mt.GaussianProcess(kernel(), points)
    seen = mt.PointObservation(points, points, noise)
    exact, near = (s(prior, seen)(normal(20)) for s in (mt.Kriging(), mt.Vecchia(40)))
    assert_close(near.mean, exact.mean, rtol=1e-7, atol=1e-7)
    assert_close(near.covariance(), exact.covariance(), rtol=1e-7, atol=1e-7)


@ENGINES
def test_repeated_data_with_noise_are_as_good_as_their_mean(engine: str) -> None:
    domain, points = square(10, 9), square(8)
    prior = mt.GaussianProcess(kernel(), domain)
    twice = mt.Points.join(points, points)
    y = normal(16)
    repeated = mt.Vecchia(30, engine=engine)(prior, mt.PointObservation(domain, twice, 0.4))(y)
    average = mt.PointObservation(domain, points, 0.4 / 2**0.5)
    once = mt.Kriging()(prior, average)((y[:8] + y[8:]) / 2)
    assert_close(repeated.mean, once.mean, rtol=1e-8, atol=1e-8)
    assert_close(repeated.covariance(), once.covariance(), rtol=1e-8, atol=1e-8)


@ENGINES
@pytest.mark.parametrize("neighbors", [1, 30])
def test_one_datum(engine: str, neighbors: int) -> None:
    grid = mt.Grid(x=[0.0, 1.0, 5.0])
    prior = mt.GaussianProcess(mt.Matern(1.5), grid)
    seen = mt.PointObservation(grid, mt.Points(x=[1.0]), 0.0)
    y = torch.tensor([2.0], dtype=DOUBLE)
    posterior = mt.Vecchia(neighbors, 30, engine)(prior, seen)(y)
    exact = mt.Kriging()(prior, seen)(y)
    assert posterior.mean[1] == 2.0
    assert_close(posterior.mean, exact.mean)
    assert_close(posterior.log_evidence, exact.log_evidence)
    only = mt.GaussianProcess(mt.Matern(1.5), seen.points)  # no target is left
    assert mt.Vecchia(neighbors, engine=engine)(only, seen)(y).sample(4).tolist() == [[2.0]] * 4


# The sphere: branches, rotations, units.


def sphere(turn: float = 0.0, wrap: bool = False, few: bool = True) -> tuple[Tensor, ...]:
    """The answers near the dateline, turned by some degrees, on either branch of longitudes."""
    lon = torch.cat([178 + 4 * uniform(25, 1), torch.tensor([179.1, 180.7], dtype=DOUBLE)]) + turn
    lat = torch.cat([-31 + 3 * uniform(25, 2), torch.tensor([-30.0, -29.0], dtype=DOUBLE)])
    nodes = torch.tensor([178.3, 179.1, 180.7, 181.2], dtype=DOUBLE) + turn
    grid = mt.Grid(lat=[-30.0, -29.0], lon=nodes)
    if wrap:
        lon = torch.where(lon > 180, lon - 360, lon)
    noise = torch.full((27,), 0.2, dtype=DOUBLE)
    noise[-2:] = 0.0  # on nodes
    prior = mt.GaussianProcess(
        mt.Matern(1.5, 1.0, (8e4, 2e5), rotation=30.0), grid, trend="1 + lon"
    )
    seen = mt.PointObservation(grid, mt.Points(lat=lat, lon=lon), noise)
    solver = mt.Vecchia(6, 10) if few else mt.Kriging()
    posterior = solver(prior, seen)(normal(27))
    draws = posterior.sample(2, torch.Generator().manual_seed(0))
    return posterior.mean, posterior.std(), posterior.covariance(), posterior.log_evidence, draws


@pytest.mark.parametrize("few", [True, False])
def test_either_branch_of_longitudes(few: bool) -> None:
    for a, b in zip(sphere(few=few), sphere(wrap=True, few=few), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)
    mean = sphere(wrap=True, few=few)[0]
    assert_close(mean[[1, 6]], normal(27)[-2:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("turn", [-178.0, 60.0, 150.0])
def test_turning_the_sphere_about_its_axis_changes_nothing(turn: float) -> None:
    for a, b in zip(sphere()[:4], sphere(turn)[:4], strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [mt.Kriging(), mt.Vecchia(6)])
def test_metres_or_kilometres(solver: mt.solvers.Solver) -> None:
    points, answers = square(40), []
    for unit in (1.0, 1000.0):
        grid = mt.Grid(x=unit * torch.linspace(0, 4, 5, dtype=DOUBLE), y=unit * torch.arange(3.0))
        scaled = mt.Points(points.coords * unit, points.dims)
        prior = mt.GaussianProcess(
            mt.Matern(1.5, 2.0, (unit, 2 * unit), rotation=25.0), grid, trend="1 + x"
        )
        answers.append(solver(prior, mt.PointObservation(grid, scaled, 0.1))(normal(40)))
    assert_close(answers[1].mean, answers[0].mean, rtol=1e-8, atol=1e-8)
    assert_close(answers[1].std(), answers[0].std(), rtol=1e-8, atol=1e-8)
    assert_close(answers[1].log_evidence, answers[0].log_evidence, rtol=1e-9, atol=1e-9)


def test_a_rotation_of_the_plane_turns_the_anisotropy_with_it() -> None:
    points, grid = square(30), square(12, 7)
    angle = math.radians(20.0)
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, s], [-s, c]], dtype=DOUBLE)

    def answer(rotation: float, turned: bool) -> mt.Posterior:
        p, g = (
            mt.Points(q.coords @ turn.mT if turned else q.coords, q.dims) for q in (points, grid)
        )
        prior = mt.GaussianProcess(mt.Matern(1.5, 2.0, (0.7, 2.0), rotation=rotation), g)
        return mt.Kriging()(prior, mt.PointObservation(g, p, 0.1))(normal(30))

    # columns are (y, x): x' = x cos - y sin, y' = x sin + y cos, counter-clockwise
    assert_close(answer(30.0, True).mean, answer(10.0, False).mean, rtol=1e-9, atol=1e-9)


def test_data_in_single_precision_are_taken_and_whole_numbers_refused() -> None:
    grid = mt.Grid(x=[0.0, 1.0, 2.0])
    prior = mt.GaussianProcess(mt.Matern(1.5), grid)
    seen = mt.PointObservation(grid, mt.Points(x=[0.3, 1.2]), 0.1)
    for solver in (mt.Kriging(), mt.Vecchia()):
        posterior = solver(prior, seen)(torch.tensor([0.5, 2.0], dtype=torch.float32))
        assert posterior.mean.dtype == DOUBLE
        assert_close(posterior.mean, solver(prior, seen)(torch.tensor([0.5, 2.0]).double()).mean)
        # the shapes in the signatures are checked first, while the tests run
        with pytest.raises((ValueError, TypeCheckError), match=r"torch.int64|i64"):
            solver(prior, seen)(torch.tensor([1, 2])).mean  # noqa: B018
        with pytest.raises(ValueError, match=r"expected 2 values, one per datum, got 3"):
            solver(prior, seen)(torch.zeros(3, dtype=DOUBLE)).mean  # noqa: B018
        with pytest.raises(ValueError, match=r"got 1 NaN or Inf among 2"):
            solver(prior, seen)(torch.tensor([1.0, torch.nan]).double()).mean  # noqa: B018


def test_dates_of_different_epochs() -> None:
    days = np.datetime64("2020-03-01") + np.arange(4)
    grid = mt.Grid(time=days, x=[0.0, 1.0])
    late = mt.Points(time=days[2:].repeat(2), x=[0.0, 1.0, 0.0, 1.0])
    assert late.epoch != grid.epoch
    prior = mt.GaussianProcess(mt.Matern(0.5, 1.0, (2.0, 1.0)), grid)
    y = normal(4)
    for solver in (mt.Kriging(), mt.Vecchia()):
        posterior = solver(prior, mt.PointObservation(grid, late, 0.0))(y)
        assert_close(posterior.mean[4:], y, rtol=1e-9, atol=1e-9)
