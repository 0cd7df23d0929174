"""What mappers are given: averages of data, passes, known means."""

from __future__ import annotations

import pytest
import torch

from matheron.domain import Grid, Points
from matheron.mappers import MAPPERS, Problem, mapper, superobs


def grid():
    return Grid(
        time=torch.arange(4.0), lat=[38.0, 39.0, 40.0], lon=[-61.0, -60.0, -59.0], metric="sphere"
    )


def scattered(m=400, seed=0, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(m, 3, dtype=torch.float64, generator=generator)
    passes = torch.randint(0, 6, (m,), generator=generator)
    coords = torch.stack([passes / 2.0, 38 + 2 * u[:, 1], -61 + 2 * u[:, 2]], dim=-1)
    points = Points(coords, ("time", "lat", "lon"), metric="sphere")
    values = 2 + 3 * (coords[:, 1] - 39) - coords[:, 2]
    return Problem(grid(), points, values, noise_std=noise, passes=passes)


def test_averages_of_a_plane_are_on_the_plane():
    found = superobs(scattered(), 0.5)
    x = found.points.coords
    torch.testing.assert_close(found.values, 2 + 3 * (x[:, 1] - 39) - x[:, 2])
    assert (x[:, 0].diff() >= 0).all()
    torch.testing.assert_close(x[:, 0], found.passes.double() / 2)


def test_averages_keep_the_information():
    # sum of 1 / variance is that of the data, whatever the cells
    for spacing in (0.1, 0.5, 2.0):
        found = superobs(scattered(), spacing)
        assert (1 / found.noise.square()).sum().item() == pytest.approx(400 / 0.01)


def test_brute_force():
    problem = scattered(60)
    found = superobs(problem, 1.0)
    wide = 1.0 / torch.cos(torch.deg2rad(problem.points.axis("lat").mean()))
    cells = {}
    x = problem.points.coords
    for i in range(60):
        near = x[i, 2] - x[0, 2]
        key = (
            int(problem.passes[i]),
            int(torch.floor(x[i, 1])),
            int(torch.floor(near / wide)),
        )
        cells.setdefault(key, []).append(problem.values[i].item())
    expected = sorted(sum(v) / len(v) for v in cells.values())
    assert sorted(found.values.tolist()) == pytest.approx(expected)


def test_across_the_dateline():
    points = Points(
        torch.tensor([[0.0, 39.0, 179.95], [0.0, 39.0, -179.97]], dtype=torch.float64),
        ("time", "lat", "lon"),
        metric="sphere",
    )
    whole = Grid(time=[0.0], lat=[38.0, 40.0], lon=[179.0, 181.0], metric="sphere")
    found = superobs(Problem(whole, points, torch.ones(2).double()), 2.0)
    lon = torch.remainder(found.points.axis("lon"), 360.0)
    assert ((lon > 179.9) & (lon < 180.1)).all()


def test_known_mean_comes_off_and_on():
    known = (torch.full((400,), 5.0).double(), torch.full((36,), 7.0).double())
    problem = scattered()
    whole = Problem(problem.grid, problem.points, problem.values, known=known)
    torch.testing.assert_close(whole.anomalies, problem.values - 5)
    assert whole.shift.tolist() == [7.0] * 36
    assert set(superobs(whole, 1.0).known[0].tolist()) == {5.0}


def test_near_and_take():
    found = scattered().near(0.5, 1.0)
    assert set(found.passes.tolist()) == {1, 2}
    assert len(found.take(torch.zeros(len(found), dtype=torch.bool))) == 0


def test_bad_input_is_refused():
    problem = scattered()
    with pytest.raises(ValueError, match="finite values"):
        Problem(problem.grid, problem.points, problem.values * float("nan"))
    flat = Grid(time=[0.0], y=[0.0, 1.0], x=[0.0, 1.0])
    with pytest.raises(ValueError, match="expected axes"):
        Problem(flat, problem.points, problem.values)


def test_names():
    assert {"oi-odc2020a", "oi", "oi-duacs", "vecchia", "spde", "miost", "dineof"} <= set(MAPPERS)
    with pytest.raises(ValueError, match="expected one of"):
        mapper("nobody")


def test_images_of_other_days_are_left_out():
    generator = torch.Generator().manual_seed(0)
    days = Grid(
        time=torch.arange(6.0),
        lat=torch.linspace(38.0, 40.0, 5).double(),
        lon=torch.linspace(-61.0, -59.0, 5).double(),
        metric="sphere",
    )
    pattern = torch.randn(25, dtype=torch.float64, generator=generator)
    amplitude = torch.tensor([1.0, -1.0, 2.0, 0.5, -2.0, 1.5], dtype=torch.float64)
    field = (amplitude[:, None] * pattern).flatten()
    kept = torch.rand(150, generator=generator) < 0.8
    points = days.points[torch.nonzero(kept)[:, 0]]
    earlier = points.coords[:10].clone()
    earlier[:, 0] = -3.0
    both = Points(torch.cat([points.coords, earlier]), points.dims, metric="sphere")
    values = torch.cat([field[kept], 50.0 * torch.ones(10).double()])
    mapped = mapper("dineof")(Problem(days, both, values, noise_std=0.01), lambda _: None)
    # one pattern: what is hidden is told by what is seen
    assert (mapped.mean - field)[~kept].square().mean().sqrt() < 0.15 * field.std()
