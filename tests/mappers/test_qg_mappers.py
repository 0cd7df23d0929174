"""The mappers that run a one-layer model: twins, dense least squares, limits."""

from __future__ import annotations

import functools
import math
import numpy as np
import pytest
import torch

from dataclasses import replace
from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.mappers import Mapped, Problem, held_out, mapper
from matheron.mappers.basin import QUARTERS, Basin, Windows
from matheron.mappers.calibrated import Spread
from matheron.mappers.nudging import BackAndForth, Nudge, bfn
from matheron.mappers.variational_qg import Assimilate, QGVariational, variational_qg

DOUBLE = torch.float64
NUDGE = Nudge(length=3, stride=2, passes=2)
ALLOW = Assimilate(length=3, stride=2, steps=4)


def quiet(_: str) -> None:
    """Says nothing."""


def map_grid(days: int = 3, step: float = 0.5) -> mt.Grid:
    lat = torch.arange(36.0, 40.01, step, dtype=DOUBLE)
    lon = torch.arange(-64.0, -59.99, step, dtype=DOUBLE)
    time = torch.arange(10.0, 10.0 + days, dtype=DOUBLE)
    return mt.Grid(time=time, lat=lat, lon=lon, metric="sphere")


def eddies(points: mt.Points, seed: int = 0, size: float = 0.1, k: int = 6) -> Tensor:
    """A few waves that drift to the west."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randn(k, 2, generator=generator, dtype=DOUBLE) * 2.0
    phase = 6.28 * torch.rand(k, generator=generator, dtype=DOUBLE)
    t, lat, lon = (points.axis(name) for name in ("time", "lat", "lon"))
    angle = lat[:, None] * waves[:, 0] + (lon + 0.03 * t)[:, None] * waves[:, 1] + phase
    return size * angle.cos().mean(dim=1) * math.sqrt(k)


def problem(m: int = 80, seed: int = 0, days: int = 3) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(m, 3, generator=generator, dtype=DOUBLE)
    passes = (u[:, 0] * 10).floor()
    t = 8.0 + (passes + 0.1 * u[:, 0]) / 10 * (days + 2)
    points = mt.Points(time=t, lat=36 + 4 * u[:, 1], lon=-64 + 4 * u[:, 2], metric="sphere")
    return Problem(map_grid(days), points, eddies(points), noise_std=0.01, passes=passes.long())


def basin_of(given: Problem, dtype: torch.dtype = DOUBLE) -> Basin:
    return Basin(given, quiet, spacing=0.5, before=2.0, after=1.0, dtype=dtype)


@pytest.fixture(scope="module", autouse=True)
def few_trials():
    """Scales are sought in one round: how they are chosen has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "LEAST", held_out.STEP)
        patch.setattr(held_out, "GAIN", 0.5)
        yield


@pytest.fixture(scope="module")
def basin() -> Basin:
    return basin_of(problem())


def free_run(basin: Basin, x: Tensor, days: int) -> Tensor:
    """The model alone, with its border held."""
    model = basin.model(basin.fastest(x))
    steps = round(86400 / QUARTERS / model.dt)
    found = model.trajectory(x.unflatten(-1, basin.shape), QUARTERS * steps * days, every=steps)
    return found.flatten(-2)


def test_windows_have_no_seams() -> None:
    windows = Windows.over(40, 12, 8)
    assert windows.index.flatten().unique().tolist() == list(range(41))
    truth = torch.randn(41, 3, dtype=DOUBLE)
    assert_close(windows.blend(truth[windows.index]), truth)
    # what one window has wrong fades in and out
    wrong = torch.zeros(len(windows.starts), 13, 3, dtype=DOUBLE)
    wrong[1] = 1.0
    jumps = windows.blend(wrong).diff(dim=0).abs().max()
    assert jumps < 0.3


def test_one_window_if_there_are_few_days() -> None:
    windows = Windows.over(8, 28, 8)
    assert windows.starts.tolist() == [0]
    assert windows.size == 8


def test_no_nudging_is_the_model(basin: Basin) -> None:
    days = basin.total // QUARTERS
    guess = basin.guess(basin.y)
    held = guess[:1].expand(basin.total + 1, -1)
    law = BackAndForth(basin, Nudge(gain=0.0, length=days, passes=1))
    expected = free_run(basin, held[0], days)
    fast = 1.3 * basin.fastest(held)
    assert basin.model(fast).dt == basin.model(basin.fastest(held)).dt
    assert_close(law.drive(basin.y, held), expected, rtol=1e-9, atol=1e-12)


def twin(m: int, days: int = 3) -> tuple[Basin, Tensor, Tensor]:
    """A sea whose data are those of the model, that of the truth, and its first guess.

    The first guess has the border of the truth: neither method corrects much from there.
    """
    sea = basin_of(problem(m, days=days))
    points = sea.days.points[: sea.n]
    start = eddies(points, seed=3, size=0.15) + sea.mean
    truth = free_run(sea, start, sea.total // QUARTERS)
    sea = observing(sea, sea.seen(truth))
    guess = sea.first_guess
    return sea, truth, torch.where(sea.model(1.0).frozen.flatten(), truth, guess)


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def test_nudging_to_dense_exact_data_gives_the_truth() -> None:
    sea, truth, guess = twin(1000)
    nudge = Nudge(gain=0.9, spread=40e3, duration=0.5, length=7, passes=4)
    law = BackAndForth(sea, nudge)
    assert rms(law.drive(sea.y, guess) - truth) < 0.5 * rms(sea.first_guess - truth)
    # the first guess inside is soon forgotten
    poor = torch.where(sea.model(1.0).frozen.flatten(), truth, 0.0)
    assert rms(law.drive(sea.y, poor) - truth) < rms(poor - truth) / 10


@pytest.mark.slow
def test_variational_from_exact_data_gives_the_truth() -> None:
    sea, truth, guess = twin(300)
    allow = Assimilate(forcing=1e-4, noise=1e-3, length=7, steps=100, tolerance=1e-6)
    law = QGVariational(sea, allow)
    law.__dict__["guess"] = guess[law.windows.index]
    assert rms(law.run(sea.y) - truth) < rms(sea.first_guess - truth) / 5


def observing(sea: Basin, y: Tensor) -> Basin:
    """The sea with other values at its data."""
    new = sea.take(torch.ones(len(sea.y), dtype=torch.bool))
    new.y = y
    new.data = replace(new.data, values=y)
    return new


def test_gradient_of_the_cost(basin: Basin) -> None:
    law = QGVariational(basin, ALLOW)
    generator = torch.Generator().manual_seed(1)
    control, way = torch.randn(2, *law.shape, generator=generator, dtype=DOUBLE)
    control.requires_grad_()
    zero = torch.zeros_like(way)
    cost = lambda c: law.cost(c, basin.y, zero)
    (slope,) = torch.autograd.grad(cost(control), control)
    h = 1e-5
    with torch.no_grad():
        rise = (cost(control + h * way) - cost(control - h * way)) / (2 * h)
    assert_close((slope * way).sum(), rise, rtol=1e-6, atol=0.0)


def small_waves() -> tuple[QGVariational, Tensor]:
    """One window of waves so small that the model is linear, and its data by its control."""
    given = problem(20, days=2)
    given = replace(given, values=1e-6 * given.values, noise_std=1e-8)
    stds = {"start": 1e-7, "forcing": 3e-8, "noise": 1e-8}
    law = QGVariational(basin_of(given), Assimilate(length=30, steps=120, tolerance=1e-6, **stds))
    control = torch.zeros(law.shape, dtype=DOUBLE).requires_grad_()
    rows = law.misfit(law.states(control), law.basin.y)
    slopes = [torch.autograd.grad(row, control, retain_graph=True)[0].flatten() for row in rows]
    return law, torch.stack(slopes)


@pytest.mark.slow
def test_is_least_squares_where_waves_are_small() -> None:
    law, A = small_waves()
    with torch.no_grad():
        zero = torch.zeros(law.shape, dtype=DOUBLE)
        d = -law.misfit(law.states(zero), law.basin.y)
        best = A.mT @ torch.linalg.solve(A @ A.mT + torch.eye(len(A), dtype=DOUBLE), d)
        found = law.best.flatten()
    assert (found - best).norm() < 1e-3 * best.norm()


@pytest.mark.parametrize("method", ["bfn", "4dvarqg"])
def test_maps_of_few_data(method: str) -> None:
    for rows in ([0], list(range(60))):
        given = problem().take(torch.tensor(rows))
        found = run(method, given)
        assert found.mean.shape == (len(given.grid),)
        assert found.mean.isfinite().all()


def run(method: str, given: Problem, members: int = 2) -> Mapped:
    if method == "bfn":
        return bfn(given, quiet, nudge=NUDGE, spacing=0.5, members=members)
    return variational_qg(given, quiet, candidates=[ALLOW], spacing=0.5, members=members)


@functools.cache
def twice(method: str) -> list[Mapped]:
    return [run(method, problem()) for _ in range(2)]


@pytest.mark.parametrize("method", ["bfn", "4dvarqg"])
def test_data_elsewhere_have_no_say(method: str) -> None:
    given = problem()
    far = mt.Points(time=[12.0, 12.0], lat=[50.0, 38.0], lon=[-62.0, 10.0], metric="sphere")
    more = Problem(
        given.grid,
        mt.Points.join(given.points, far),
        torch.cat([given.values, torch.tensor([5.0, -5.0], dtype=DOUBLE)]),
        noise_std=0.01,
        passes=torch.cat([given.passes, torch.tensor([98, 99])]),
    )
    assert_close(run(method, more).mean, twice(method)[0].mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["bfn", "4dvarqg"])
def test_draws(method: str) -> None:
    found = twice(method)
    draws = [v.sample(4, torch.Generator().manual_seed(5)) for v in found]
    assert_close(*draws, rtol=0, atol=0)
    stds = [v.std(torch.Generator().manual_seed(5)) for v in found]
    assert_close(*stds, rtol=0, atol=0)
    assert draws[0].shape == (4, len(found[0].mean))
    assert (stds[0] > 0).all()
    other = found[0].sample(2, torch.Generator().manual_seed(6))
    assert not torch.equal(other, draws[0][:2])


@pytest.mark.parametrize("method", ["bfn", "4dvarqg"])
def test_known_mean_and_land(method: str) -> None:
    given = problem()
    grid = given.grid
    mask = torch.ones(grid.shape[1:], dtype=torch.bool)
    mask[:3, :3] = False
    masked = mt.Grid(mask=mask, metric="sphere", **grid.axes)
    sea = ~((given.points.axis("lat") < 37.3) & (given.points.axis("lon") < -62.7))
    given = replace(given.take(sea), grid=masked)
    shift = 0.2 * torch.tanh(masked.points.axis("lat") - 38)
    at_data = 0.2 * torch.tanh(given.points.axis("lat") - 38)
    given = replace(given, values=given.values + at_data, known=(at_data, shift))
    found = run(method, given)
    assert found.mean.shape == (len(masked),)
    assert found.mean.isfinite().all()


def test_members_are_as_far_apart_as_held_out_data_ask_for() -> None:
    generator = torch.Generator().manual_seed(3)
    spread = torch.rand(4000, generator=generator, dtype=DOUBLE).square()
    z = torch.randn(4000, generator=generator, dtype=DOUBLE)
    noise = torch.full_like(spread, 0.01)
    true = Spread(2.0, 0.3)
    found = Spread.fitted((true.variance(spread) + noise).sqrt() * z, spread, noise)
    # the variance of a mean square of m normals is 2 / m
    ratio = found.variance(spread).mean() / true.variance(spread).mean()
    assert abs(ratio.item() - 1) < 5 * math.sqrt(2 / 4000) + 0.1  # the lattice is that coarse
    assert found.factor > 1.5


@pytest.mark.slow
def test_randomised_minima_have_the_posterior_covariance() -> None:
    """On a tiny amplitude, where the model is linear: against the dense posterior of H x."""
    law, A = small_waves()
    allow = replace(law.allow, member_steps=60)
    draws = QGVariational(law.basin, allow).runs(24, torch.Generator().manual_seed(0))
    center = law.run(law.basin.y)
    found = law.basin.seen(draws - center + law.basin.mean).var(dim=0).sum()
    inverse = torch.linalg.inv(torch.eye(A.shape[1], dtype=DOUBLE) + A.mT @ A)
    scale = law.noise[law.sites[0]].square()
    expected = ((A @ inverse) * A).sum(dim=1) @ scale
    # the sum of the variances of 24 draws: at worst as uncertain as one of them
    assert abs(found / expected - 1) < 5 * math.sqrt(2 / 23)


def test_no_data() -> None:
    given = problem()
    away = replace(given, grid=mt.Grid(**{**given.grid.axes, "time": [500.0, 501.0]}))
    with pytest.raises(ValueError, match="expected data in the box"):
        mapper("bfn")(away, quiet)


def test_plane() -> None:
    grid = mt.Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0], y=[0.0, 1.0])
    points = mt.Points(time=np.zeros(3), x=[0.0, 1.0, 2.0], y=np.zeros(3))
    given = Problem(grid, points, torch.zeros(3, dtype=DOUBLE))
    with pytest.raises(ValueError, match="on the sphere"):
        mapper("4dvarqg")(given, quiet)
