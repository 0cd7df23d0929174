"""What is held out: closed forms against refitting, and scales and spread that are found again."""

from __future__ import annotations

import math
import pytest
import torch

from matheron.domain import Grid, Points
from matheron.kernels import Matern, separable
from matheron.mappers import Problem, mapper
from matheron.mappers.gaussian import tuned
from matheron.mappers.held_out import HeldOut, leave_out, pieces, search
from matheron.mappers.problem import Mapped, thinned
from matheron.mappers.tuning import Smooth
from matheron.observations import PointObservation
from matheron.priors import GaussianProcess
from matheron.priors.wave_packets import PacketKernel, WavePackets
from matheron.solvers.kriging import Kriging

GRID = Grid(
    time=torch.arange(0.0, 20.0, 4.0),
    lat=torch.linspace(38.0, 42.0, 7).double(),
    lon=torch.linspace(-62.0, -57.0, 7).double(),
    metric="sphere",
)


def tracks(seed=0, noise=0.02, scales=(120e3, 5.0), count=48, length=14):
    """Straight passes, one every 2/5 of a day, over a field of known scales, on the grid too."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 2, dtype=torch.float64, generator=generator)
    along = torch.linspace(38.0, 42.0, length, dtype=torch.float64)
    time = torch.arange(count).double() * 0.4
    lon = -62 + 5 * u[:, :1] + (2 * (u[:, 1:] > 0.5) - 1) * (along - 40) * 0.4
    parts = [time[:, None].expand_as(lon), along.expand_as(lon), lon]
    coords = torch.stack([v.reshape(-1) for v in parts], dim=-1)
    inside = (coords[:, 2] > -62.0) & (coords[:, 2] < -57.0)
    passes = torch.arange(count).repeat_interleave(length)[inside]
    points = Points(coords[inside], ("time", "lat", "lon"), metric="sphere")
    both = Points(torch.cat([points.coords, GRID.points.coords]), points.dims, metric="sphere")
    kernel = separable(
        Matern(2.5, 1.0, scales[1], axes="time"), Matern(2.5, 0.04, scales[0], axes="space")
    )
    with torch.no_grad():
        field = GaussianProcess(kernel, both).sample(1, generator)[0]
    m = len(points)
    error = noise * torch.randn(m, dtype=torch.float64, generator=generator)
    return Problem(GRID, points, field[:m] + error, noise_std=noise, passes=passes), field[m:]


def clouded(seed=0):
    """Images of a lattice with square clouds."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(40.0, 42.0, 11).double()
    days = torch.arange(12.0)
    grid = Grid(time=days, lat=axis, lon=axis - 60.0, metric="sphere")
    seen = torch.ones(12, 11, 11, dtype=torch.bool)
    for k, (i, j) in enumerate(torch.randint(0, 7, (12, 2), generator=generator).tolist()):
        seen[k, i : i + 4, j : j + 4] = False
    rows = torch.nonzero(seen.flatten())[:, 0]
    return Problem(grid, grid.points[rows], torch.zeros(len(rows)).double()), seen


def test_errors_are_those_of_kriging_without_each_piece():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(30, 40, dtype=torch.float64, generator=generator)
    S, y = A @ A.mT, torch.randn(30, dtype=torch.float64, generator=generator)
    held = [torch.arange(0, 5), torch.tensor([7, 20, 11])]
    e, v = leave_out(S, y, held)
    expected_e, expected_v = [], []
    for p in held:
        rest = torch.tensor([k for k in range(30) if k not in p.tolist()])
        w = torch.linalg.solve(S[rest][:, rest], S[rest][:, p])
        expected_e.append(y[p] - w.mT @ y[rest])
        expected_v.append((S[p][:, p] - S[p][:, rest] @ w).diagonal())
    torch.testing.assert_close(e, torch.cat(expected_e), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(v, torch.cat(expected_v), rtol=1e-8, atol=1e-10)


def test_scaled_law_has_the_same_errors():
    problem, _ = tracks()
    held, law = HeldOut(problem), Smooth(problem, 2.5, 2.5)
    kernel = law.covariance({"lengthscale": 120e3, "duration": 5.0})
    found = held.choose(lambda x: kernel, {}, 0.05)
    e, v = held.errors(kernel, found.noise)
    assert (e.square() / v).mean().item() == pytest.approx(found.factor)
    assert e.square().mean().sqrt().item() == pytest.approx(found.error)


def test_variances_of_the_right_law_are_right():
    # z-scores of Gaussian errors: their mean square is one. The draws are 10 fields; within one,
    # z-scores of a pass are dependent, so that the error of the mean is seen from the 10 means
    means = []
    for seed in range(10):
        problem, _ = tracks(seed)
        kernel = Smooth(problem, 2.5, 2.5).of({"lengthscale": 120e3, "duration": 5.0})
        own = 0.04 / kernel.diagonal(torch.zeros(1, 4)).item()  # the variance is told
        e, v = HeldOut(problem).errors(
            lambda t, p, k=kernel, f=own: f * k(*[GaussianProcess(k, p).coordinates(p)] * 2), 0.0
        )
        means.append((e.square() / v).mean())
    means = torch.stack(means)
    assert (means.mean() - 1).abs() < 5 * means.std() / math.sqrt(10)
    assert means.std() / math.sqrt(10) < 0.1


def test_search_finds_the_least_cost_of_a_bowl():
    def cost(x):
        return math.log(x["a"] / 7) ** 2 + 0.5 * math.log(x["b"] / 0.3) ** 2

    best, least = search(cost, {"a": 1.0, "b": 1.0})
    assert abs(math.log(best["a"] / 7)) <= 0.1
    assert abs(math.log(best["b"] / 0.3)) <= 0.1
    assert least == pytest.approx(cost(best))


def test_pieces_of_images_are_under_the_clouds_of_another_day():
    problem, seen = clouded()
    label = pieces(problem, 0.1)
    other = seen.roll(5, dims=0)
    rows = torch.nonzero(seen.flatten())[:, 0]
    expected = torch.where(other.flatten()[rows], -1, rows // 121)
    assert torch.equal(label, expected)
    assert (label >= 0).any()


def test_pieces_of_one_time_are_data():
    problem, seen = clouded()
    first = problem.near(0.0, 0.0)
    assert torch.equal(pieces(first, 0.1), torch.arange(int(seen[0].sum())))


def test_pieces_of_tracks_are_passes():
    problem, _ = tracks()
    assert torch.equal(pieces(problem, 0.5), problem.passes)


def test_a_single_pass_leaves_what_it_starts_from():
    problem, _ = tracks(count=1)
    held, law = HeldOut(problem), Smooth(problem, 2.5, 2.5)
    found = held.choose(law.covariance, {"lengthscale": 1e5, "duration": 4.0}, 0.1)
    assert found.scales == {"lengthscale": 1e5, "duration": 4.0}
    assert (found.noise, found.factor) == (0.1, 1.0)


def test_thinned_data_are_data():
    problem, _ = tracks()
    found = thinned(problem, 1.4)
    whole = {
        tuple(row)
        for row in torch.cat([problem.points.coords, problem.values[:, None]], 1).tolist()
    }
    kept = torch.cat([found.points.coords, found.values[:, None]], 1).tolist()
    assert len(kept) < len(problem) / 2
    assert {tuple(row) for row in kept} <= whole
    assert set(found.passes.tolist()) == set(problem.passes.tolist())


def test_unresolved_field_is_in_std_and_members():
    # far from the one datum the law is the prior's, and white
    grid = Grid(x=torch.arange(400.0))
    prior = GaussianProcess(Matern(0.5, 0.09, 1e-3), grid)
    seen = PointObservation(grid, Points(x=[200.5]), 0.1)
    posterior = Kriging()(prior, seen)(torch.zeros(1, dtype=torch.float64))
    mapped = Mapped(posterior, torch.ones(400, dtype=torch.float64), unresolved=0.4)
    torch.testing.assert_close(mapped.std(), torch.full((400,), 0.5, dtype=torch.float64))
    draws = mapped.sample(20, torch.Generator().manual_seed(0))
    # the variance of 8000 draws has a relative error of sqrt(2 / 8000)
    assert abs(draws.var().item() / 0.25 - 1) < 5 * math.sqrt(2 / 8000)
    assert abs(draws.mean().item() - 1) < 5 * 0.5 / math.sqrt(8000)


@pytest.mark.slow
def test_interpolation_finds_scales_and_spread_again():
    problem, truth = tracks(seed=3, count=48, length=14)
    said = []
    mapped = tuned(problem, said.append)
    error, std = mapped.mean - truth, mapped.std()
    assert 0.6 < mapped.info["lengthscale"] / 120e3 < 1.6
    assert 0.6 < mapped.info["duration"] / 5.0 < 1.6
    assert error.square().mean().sqrt() < 0.5 * truth.std()
    assert 0.82 < (error.abs() < 1.645 * std).double().mean() < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oi", "oi-duacs", "miost", "spde"])
def test_error_and_spread(name):
    problem, truth = tracks(seed=5)
    mapped = mapper(name)(problem, lambda _: None)
    generator = torch.Generator().manual_seed(0)
    error, std = mapped.mean - truth, mapped.std(generator)
    # the field has a std of 0.2; the draws of the truth are one, so that bounds are wide
    assert error.square().mean().sqrt() < 0.45 * truth.std()
    assert 0.7 < (error.abs() < 1.645 * std).double().mean() < 0.99


@pytest.mark.slow
def test_members_of_packets_have_their_mean_and_spread():
    problem, _ = tracks(seed=5)
    mapped = mapper("miost")(problem, lambda _: None)
    draws = mapped.sample(200, torch.Generator().manual_seed(0))
    mean, std = mapped.mean, mapped.std()
    # each mean of 200 draws has the std over sqrt 200; 245 nodes, each within 5 of those
    assert ((draws.mean(dim=0) - mean).abs() < 5 * std / 200**0.5).all()
    # a std of 200 draws has a relative error of 1 / sqrt 400; windows cut the tails of time
    assert ((draws.std(dim=0) / std - 1).abs().median() < 5 / 400**0.5).all()


def test_kernel_of_packets_is_their_covariance():
    problem, _ = tracks(count=6)
    packets = WavePackets(problem.grid, 0.04, margin=(300e3, 8.0))
    points = problem.points
    with torch.no_grad():
        field = GaussianProcess(PacketKernel(packets), problem.grid)
        x = field.coordinates(points)
        expected = packets.covariance(points, points)
        torch.testing.assert_close(field.kernel(x, x), expected)
        torch.testing.assert_close(field.kernel.diagonal(x), expected.diagonal())
        torch.testing.assert_close(field.kernel(x[None], x[None])[0], expected)
