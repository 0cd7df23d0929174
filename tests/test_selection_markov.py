"""Laws of the choice of a Markov prior: its lattice, its parameters, and what it forecasts."""

import math
import pytest
import torch

import matheron as mt

from matheron.priors.spde.advection_diffusion import AdvectionDiffusion
from matheron.selection import choose_markov
from matheron.selection.lattices import COARSEST, Spacing, lattice, spacing_for

F64 = torch.float64


def draw(prior, points, seed=0, noise=0.05):
    """Data of one draw of a prior at some points."""
    generator = torch.Generator().manual_seed(seed)
    field = prior.on(points).sample(1, generator)[0]
    return field + noise * torch.randn(len(points), generator=generator, dtype=F64)


def scattered(size, seed=1, **widths):
    generator = torch.Generator().manual_seed(seed)
    return mt.Points(
        **{k: w * torch.rand(size, generator=generator, dtype=F64) for k, w in widths.items()}
    )


@pytest.mark.parametrize("step", [0.1, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("scale", [0.5, 2.0, 9.0])
def test_a_lattice_falls_in_with_the_target_and_resolves_its_scale(step, scale):
    grid = mt.Grid(x=torch.arange(0.0, 30.01, step, dtype=F64))
    spacing = spacing_for(grid, grid.points, [scale], 100_000)
    ratio = spacing.steps["x"] / step
    assert min(abs(ratio - round(ratio)), abs(1 / ratio - round(1 / ratio))) < 1e-9
    assert scale / spacing.steps["x"] > COARSEST / 1.06


def test_a_lattice_covers_the_target_and_the_data():
    grid = mt.Grid(y=[0.0, 1.0, 2.0], x=[0.0, 1.0])
    data = mt.Points(y=[-3.3, 1.0], x=[0.5, 7.7])
    nodes = lattice(grid, data, Spacing({"y": 0.5, "x": 1.0}, {"y": 0.0, "x": 0.0}))
    for where in (grid.points, data):
        nodes.interpolation(where)  # raises where it is outside
    assert (nodes.axes["y"][0].item(), nodes.axes["x"][-1].item()) == (-3.5, 8.0)


def test_a_lattice_too_large_is_made_coarser_then_refused():
    grid = mt.Grid(y=[0.0, 100.0], x=[0.0, 100.0])
    fine = spacing_for(grid, grid.points, [2.0, 2.0], 200_000)
    coarse = spacing_for(grid, grid.points, [2.0, 2.0], 20_000)
    assert coarse.steps["x"] > fine.steps["x"]
    assert spacing_for(grid, grid.points, [2.0, 2.0], 5_000) is None


def test_land_is_that_of_the_target_but_for_the_nodes_of_data():
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[:, 4] = False
    axis = torch.arange(9.0, dtype=F64)
    grid = mt.Grid(y=axis, x=axis, mask=mask)
    data = mt.Points(y=[2.0], x=[4.1])
    nodes = lattice(grid, data, Spacing({"y": 1.0, "x": 1.0}, {"y": 0.0, "x": 0.0}))
    expected = mask.clone()
    expected[2, 4] = True
    assert torch.equal(nodes.mask.reshape(9, 9), expected)


def test_the_whole_globe_closes():
    lat, lon = torch.arange(-80.0, 81, 10, dtype=F64), torch.arange(-180.0, 180, 10, dtype=F64)
    grid = mt.Grid(lat=lat, lon=lon)
    nodes = lattice(
        grid, grid.points, Spacing({"lat": 7.0, "lon": 7.0}, {"lat": -80.0, "lon": -180.0})
    )
    lon = nodes.axes["lon"]
    assert lon[-1] - lon[0] + lon.diff()[0] == pytest.approx(360.0, abs=1e-9)


def test_the_law_that_made_the_data_is_found():
    points = scattered(500, y=10.0, x=10.0)
    truth = mt.GaussianProcess(mt.Matern(1.0, 1.0, 2.0), points)
    y = draw(truth, points)
    target = mt.Grid(
        y=torch.linspace(0, 10, 21, dtype=F64), x=torch.linspace(0, 10, 21, dtype=F64)
    )
    said = []
    choice, law = choose_markov(target, points, y, alpha=2.0, trend="1", say=said.append)
    # the logarithm of a lengthscale is known to some .2 from 25 squares of that size
    assert abs(law.kernel.log_lengthscale.mean().item() - math.log(2.0)) < 0.6
    assert law.kernel.log_variance.item() == pytest.approx(0.0, abs=1.0)
    assert any(line.startswith("lattice") for line in said)
    assert "2" in choice.structure
    # its map is that of kriging with the same covariance, but for the lattice: where a datum of
    # little noise is between its nodes, it is seen through linear weights
    seen = mt.PointObservation(target, points, 0.05)
    gp = mt.GaussianProcess(law.kernel, target, trend="1")
    exact, sparse = mt.Kriging()(gp, seen)(y), mt.SparseCholesky()(choice.prior, seen)(y)
    assert (exact.mean - sparse.mean).square().mean().sqrt() < 0.2 * exact.std().mean()
    assert (exact.std() / sparse.std()).log().abs().mean() < 0.1


def test_a_law_makes_the_same_prior_again():
    points = scattered(60, x=10.0)
    y = draw(mt.GaussianProcess(mt.Matern(1.5, 1.0, 2.0), points), points)
    target = mt.Grid(x=torch.linspace(0, 10, 11, dtype=F64))
    choice, law = choose_markov(target, points, y, alpha=2.0)
    form = "" if choice.prior.trend is None else choice.prior.trend.formula
    again = law.prior(target, choice.observation.points, form)
    assert torch.equal(choice.prior.precision().values, again.precision().values)
    sights = [p.embedding(target.points).values for p in (choice.prior, again)]
    assert torch.equal(*sights)


@pytest.mark.slow
def test_roughness_is_chosen_by_likelihood():
    points = scattered(600, y=10.0, x=10.0)
    y = draw(mt.GaussianProcess(mt.Matern(0.5, 1.0, 3.0), points), points, noise=0.02)
    target = mt.Grid(y=[0.0, 5.0, 10.0], x=[0.0, 5.0, 10.0])
    choice, law = choose_markov(target, points, y)
    assert law.alpha == 1.5
    assert "1.5" in choice.structure


@pytest.mark.slow
def test_time_is_one_more_direction_of_spde():
    points = scattered(150, time=10.0, x=10.0)
    y = torch.sin(points.axis("x")) * torch.cos(points.axis("time") / 3)
    target = mt.Grid(time=[0.0, 5.0], x=[0.0, 5.0, 10.0])
    choice, law = choose_markov(target, points, y, alpha=2.0)
    assert law.timescale is None
    assert choice.prior.domain.dims == ("time", "x")


def moving(seed=0):
    """Data of five days on a line, of a field that is carried by 1 a day."""
    grid = mt.Grid(time=torch.arange(9.0, dtype=F64), x=torch.arange(0.0, 20.5, 0.5, dtype=F64))
    prior = AdvectionDiffusion(grid, 3.0, 20.0, variance=1.0, velocity=(1.0,))
    generator = torch.Generator().manual_seed(seed)
    x = prior.sample(1, generator)[0]
    seen = torch.nonzero(grid.points.axis("time") <= 5)[:, 0]
    y = x[seen] + 0.05 * torch.randn(len(seen), generator=generator, dtype=F64)
    return grid, x, grid.points[seen], y


def test_the_velocity_is_learned_and_the_forecast_knows_less_and_less():
    grid, x, points, y = moving()
    choice, law = choose_markov(grid, points, y, trend="0", method="advection-diffusion")
    assert law.velocity(points[:1]).item() == pytest.approx(1.0, abs=0.3)
    posterior = mt.SparseCholesky()(choice.prior, choice.observation)(choice.y)
    std = posterior.std().reshape(grid.shape).mean(dim=1)
    assert (std[5:].diff() > 0).all()
    mean = posterior.mean.reshape(grid.shape)
    truth = x.reshape(grid.shape)
    rms = lambda e: e.square().mean().sqrt()
    assert rms(mean[6] - truth[6]) < rms(mean[5] - truth[6])


@pytest.mark.slow
def test_a_velocity_that_is_given_is_kept():
    from matheron.priors.spde.velocity import Given

    grid, _, points, y = moving()
    line = mt.Grid(x=[0.0, 20.0])
    given = Given(line, torch.tensor([[0.8], [1.2]], dtype=F64))
    _, law = choose_markov(
        grid, points, y, trend="0", method="advection-diffusion", velocity=given
    )
    sites = mt.Points(time=[0.0, 3.0], x=[5.0, 15.0])
    assert torch.allclose(law.velocity(sites)[:, 0], torch.tensor([0.9, 1.1], dtype=F64))


@pytest.mark.parametrize(
    ("method", "alpha", "dims", "said"),
    [
        ("advection-diffusion", None, {"y": 1.0, "x": 1.0}, "data with time and place"),
        ("advection-diffusion", None, {"time": 1.0}, "data with time and place"),
        ("advection-diffusion", 3.0, {"time": 1.0, "x": 1.0}, "2 or 4"),
        ("spde", 1.0, {"y": 1.0, "x": 1.0}, "a number over 1"),
        ("spde", 0.5, {"x": 1.0}, "a number over 0.5"),
        ("spde", 99.0, {"x": 1.0}, "at most 10"),
    ],
)
def test_what_makes_no_sense_is_refused(method, alpha, dims, said):
    points = scattered(10, **dims)
    with pytest.raises(ValueError, match=said):
        choose_markov(points, points, torch.ones(10, dtype=F64), method=method, alpha=alpha)
