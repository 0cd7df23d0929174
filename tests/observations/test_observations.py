"""Observations: the laws, brute-force H, noise and biases, gaps, and what is refused."""

from __future__ import annotations

import io
import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.testing import check_observation, small_grid

DOUBLE = torch.float64


def uniform(size: int, seed: int) -> Tensor:
    return torch.rand(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def inside(m: int = 12, seed: int = 0) -> mt.Points:
    return mt.Points(x=4 * uniform(m, seed), y=3 * uniform(m, seed + 20))


def build(kind: str, grid: mt.Grid) -> mt.observations.LinearObservation:
    mask = uniform(30, 7) > 0.4
    per_datum = 0.1 + uniform(12, 3)
    kinds = {
        "points": lambda: mt.PointObservation(grid, inside(), 0.3),
        "per-datum": lambda: mt.PointObservation(grid, inside(), per_datum),
        "noiseless": lambda: mt.PointObservation(grid, inside(), 0.0),
        "biased": lambda: mt.PointObservation(grid, inside(), per_datum, bias_std=1.3),
        "gridded": lambda: mt.GriddedObservation(grid, mask, 0.3),
        "gridded-each": lambda: mt.GriddedObservation(grid, mask, 0.1 + uniform(30, 9)),
        "stack": lambda: mt.Stack(
            build("biased", grid), build("gridded", grid), build("biased", grid)
        ),
        "nested": lambda: mt.Stack(mt.Stack(build("biased", grid)), build("points", grid)),
    }
    return kinds[kind]()


KINDS = ["points", "per-datum", "biased", "gridded", "gridded-each", "stack", "nested"]


@pytest.mark.parametrize("kind", KINDS)
def test_laws(kind: str) -> None:
    check_observation(build(kind, small_grid()))


def test_points_of_a_cloud_read_their_site() -> None:
    cloud = inside()
    index = torch.tensor([3, 3, 0])
    seen = mt.PointObservation(cloud, cloud[index], 0.2)
    x = uniform(12, 4)
    assert torch.equal(seen(x), x[index])
    check_observation(seen)
    elsewhere = mt.PointObservation(cloud, mt.Points(x=[0.0, 9.0], y=[0.0, 9.0]), 0.2)
    with pytest.raises(ValueError, match=r"expected points of the domain, got 2 elsewhere"):
        elsewhere(x)


def test_the_sparse_matrix_is_the_operator() -> None:
    grid = small_grid()
    seen = build("points", grid)
    H = seen.matrix().to_dense()
    x, y = uniform(30, 1), uniform(12, 2)
    assert_close(seen(x), H @ x)
    assert_close(seen.adjoint(y), H.mT @ y)
    assert_close(seen(x.expand(2, 3, 30)), (H @ x).expand(2, 3, 12))


def test_gaps_are_never_read() -> None:
    grid = mt.Grid(x=[0.0, 1.0, 2.0])
    seen = mt.GriddedObservation(grid, torch.tensor([True, False, True]), 0.5)
    y = torch.tensor([1.0, math.nan, 3.0], dtype=DOUBLE)
    x = torch.tensor([0.0, math.nan, 3.5], dtype=DOUBLE)
    assert seen.select(y).tolist() == [1.0, 3.0]
    assert_close(seen.cost(x, y).item(), (1.0 + 0.25) / 0.25 / 2)
    assert seen(x).tolist() == [0.0, 0.0, 3.5]
    prior = mt.GaussianProcess(mt.Matern(), grid)
    with_gap = mt.Kriging()(prior, seen)(y)
    points = mt.PointObservation(grid, mt.Points(x=[0.0, 2.0]), 0.5)
    assert_close(with_gap.mean, mt.Kriging()(prior, points)(y[[0, 2]]).mean)


def test_masks_may_differ_between_members() -> None:
    grid = mt.Grid(x=[0.0, 1.0, 2.0])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    seen = mt.GriddedObservation(grid, mask, 0.5)
    x = torch.ones(2, 3, dtype=DOUBLE)
    assert seen(x).tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert seen.cost(x, torch.zeros(2, 3, dtype=DOUBLE)).tolist() == [4.0, 2.0]
    with pytest.raises(
        ValueError, match=r"expected one mask for this solver, got a batch of shape \(2, 3\)"
    ):
        mt.Kriging()(mt.GaussianProcess(mt.Matern(), grid), seen)


def test_biases_are_shared_within_a_part_only() -> None:
    grid = small_grid()
    seen = mt.Stack(
        mt.PointObservation(grid, inside(3), 1e-9, bias_std=2.0),
        mt.PointObservation(grid, inside(2, 5), 1e-9, bias_std=0.5),
    )
    e = seen.noise((4000,), torch.Generator().manual_seed(0))
    assert_close(e[:, 0], e[:, 2], rtol=0, atol=1e-6)
    assert_close(e[:, 3], e[:, 4], rtol=0, atol=1e-6)
    # standard error of a correlation of independent draws: 1 / sqrt(N)
    assert torch.corrcoef(e[:, [0, 3]].mT)[0, 1].abs() < 5 / 4000**0.5
    assert seen.bias_design.tolist() == [[1, 0]] * 3 + [[0, 1]] * 2
    assert_close(seen.bias_variance, torch.tensor([4.0, 0.25], dtype=DOUBLE))


@pytest.mark.parametrize("kind", ["biased", "stack"])
def test_taking_some_of_the_data(kind: str) -> None:
    grid = small_grid()
    if kind == "stack":
        seen = mt.Stack(build("biased", grid), build("points", grid))
    else:
        seen = build("biased", grid)
    kept = torch.arange(seen.size) % 3 == 1
    part = seen.take(kept)
    assert torch.equal(part.points.coords, seen.points.coords[kept])
    assert_close(part.noise_variance, seen.noise_variance[kept])
    assert_close(part.bias_design, seen.bias_design[kept])
    assert_close(part.bias_variance, seen.bias_variance)


def test_a_gridded_observation_cannot_be_cut() -> None:
    with pytest.raises(TypeError, match=r"GriddedObservation.take: .* Build a PointObservation"):
        build("gridded", small_grid()).take(torch.tensor([0]))


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_through_a_file(kind: str) -> None:
    first, second = build(kind, small_grid()), build(kind, small_grid())
    with torch.no_grad():
        for p in first.parameters():
            p += 0.3
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    second.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(first.noise_variance, second.noise_variance)
    assert torch.equal(first.bias_variance, second.bias_variance)
    assert repr(first).startswith(type(first).__name__)


def test_learned_scales() -> None:
    seen = mt.PointObservation(small_grid(), inside(), 0.3, learn_noise=True, bias_std=1.0)
    assert {n for n, p in seen.named_parameters() if p.requires_grad} == {
        "error.log_scale",
        "bias.log_scale",
    }
    fixed = mt.PointObservation(small_grid(), inside(), 0.3, bias_std=1.0, learn_bias=False)
    assert not any(p.requires_grad for p in fixed.parameters())


GRID = small_grid()
EVERY = torch.ones(30, dtype=torch.bool)
BAD = [
    (
        lambda: mt.PointObservation(GRID, mt.Points(x=[0.0]), 0.1),
        r"points=...\): expected dims \('y', 'x'\) on the plane, got \('x',\)",
    ),
    (
        lambda: mt.PointObservation(GRID, inside()[:0], 0.1),
        r"expected at least one datum, got none",
    ),
    (
        lambda: mt.PointObservation(GRID, inside(), -0.1),
        r"noise_std=...\): expected at least zero, got -0.1",
    ),
    (
        lambda: mt.PointObservation(GRID, inside(), math.nan),
        r"noise_std=...\): expected at least zero, got nan",
    ),
    (
        lambda: mt.PointObservation(GRID, inside(), torch.ones(3)),
        r"expected one number or 12 of them, got shape \(3,\)",
    ),
    (
        lambda: mt.PointObservation(GRID, inside(), 0.0, learn_noise=True),
        r"expected a positive start to learn from, got 0",
    ),
    (
        lambda: mt.PointObservation(GRID, inside(), 0.1, bias_std=0.0),
        r"bias_std=...\): expected a positive number or None, got 0.0",
    ),
    (
        lambda: mt.GriddedObservation(GRID, EVERY[:5], 0.1),
        r"mask=...\): expected 30 booleans per member, got torch.bool of shape \(5,\)",
    ),
    (lambda: mt.GriddedObservation(GRID, ~EVERY, 0.1), r"expected some data in every member"),
    (
        lambda: mt.GriddedObservation(GRID, EVERY, -1.0),
        r"GriddedObservation\(noise_std=...\): expected at least zero",
    ),
    (
        lambda: mt.GriddedObservation(GRID, EVERY, 0.1).select(torch.zeros(4)),
        r"GriddedObservation\(y=...\): expected 30 values, one per node, got 4",
    ),
    (lambda: mt.Stack(), r"Stack\(parts=...\): .* got 0 on 0"),
    (
        lambda: mt.Stack(build("points", GRID), build("points", small_grid())),
        r"Stack\(parts=...\): .* got 2 on 2",
    ),
    (
        lambda: mt.Stack(build("points", GRID)).select(torch.zeros(4)),
        r"Stack\(y=...\): expected 12 values, .* got 4",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_arguments_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_noiseless_observation_draws_no_noise() -> None:
    seen = build("noiseless", GRID)
    x = uniform(30, 1)
    assert torch.equal(seen.sample(x, torch.Generator().manual_seed(0)), seen(x))
