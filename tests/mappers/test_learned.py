"""Mappers that learned: the same data, the same map; honest spread; mismatches are refused."""

import dataclasses
import json
import numpy as np
import pytest
import shutil
import torch

from matheron.compare import Board, Plan, course_of, learn, problem_of
from matheron.compare.course import Course, _other, _read
from matheron.compare.learning import _scale_along
from matheron.compare.scores import truth_at
from matheron.data import InputError
from matheron.data.patches import Mirror
from matheron.domain import Grid
from matheron.fit import load_model
from matheron.mappers import Problem
from matheron.mappers.first_guess import FirstGuess
from matheron.mappers.learned import (
    LearnedMapper,
    correlated,
    days_of,
    learned,
    on_grid,
)
from tests.learned_ocean import TINY, course, ocean, trained

METHODS = ("unet", "4dvarnet", "fixedpoint")


def quiet(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def problem():
    return problem_of(ocean(), 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_data_does_not_matter(method, problem):
    mapper = learned(trained(method))
    order = torch.randperm(len(problem), generator=torch.Generator().manual_seed(0))
    one, other = mapper(problem, quiet), mapper(problem.take(order), quiet)
    # networks are of single precision, and means of cells are sums in another order
    torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.std(), other.std())
    assert one.mean.std() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_tiling_does_not_matter(method, problem):
    model = learned(trained(method)).model
    lat, lon = (problem.grid.axes[k][0] + 0.5 * torch.arange(-20.0, 40.0) for k in ("lat", "lon"))
    grid = Grid(
        time=problem.grid.axes["time"][:2],
        lat=lat,
        lon=lon,
        metric="sphere",
        epoch=problem.grid.epoch,
    )
    wide = Problem(grid, problem.points, problem.anomalies)
    whole = LearnedMapper(model)(wide, quiet).mean
    tiled = LearnedMapper(model, patch=48)(wide, quiet).mean  # four tiles, which meet in the data
    apart = (whole - tiled).square().mean().sqrt() / whole.std()
    print(method, apart)
    # the halo is not all of the field of view
    assert 0 < apart < 0.02


def test_a_day_does_not_know_of_days_beyond_its_window(problem):
    mapper, grid = learned(trained("unet")), problem.grid
    last = grid.axes["time"][0].item() + 2.5  # that of the window about the first day
    near = problem.near(-1e9, last)
    nodes = grid.shape[1] * grid.shape[2]
    one, other = mapper(problem, quiet), mapper(near, quiet)
    torch.testing.assert_close(one.mean[:nodes], other.mean[:nodes], rtol=0, atol=1e-6)
    assert not torch.allclose(one.mean[-nodes:], other.mean[-nodes:], atol=1e-4)
    assert (one.std()[-nodes:] <= other.std()[-nodes:] + 1e-12).float().mean() > 0.5


def test_a_finer_map_is_the_coarse_one_between_its_nodes(problem):
    mapper = learned(trained("unet"))
    grid = problem.grid
    lat, lon = (torch.linspace(grid.axes[k][0], grid.axes[k][-1], 41) for k in ("lat", "lon"))
    fine = Grid(time=grid.axes["time"], lat=lat, lon=lon, metric="sphere", epoch=grid.epoch)
    finer = dataclasses.replace(problem, grid=fine, known=None, values=problem.anomalies)
    coarse = mapper(dataclasses.replace(finer, grid=grid), quiet)
    shown = fine.unflatten(mapper(finer, quiet).mean)[:, ::2, ::2].flatten()
    torch.testing.assert_close(shown, coarse.mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("word", ["-lat", "time,lon"])
def test_turned_data_give_the_map_turned(word):
    mapper, mirror = learned(trained("unet")), Mirror.of(word)
    assert word in mapper.model.card.symmetries
    grid = Grid(time=range(7), lat=np.arange(16) / 2, lon=np.arange(20) / 2, metric="sphere")
    dice = torch.Generator().manual_seed(0)
    values = torch.randn(grid.shape, generator=dice, dtype=torch.float64)
    mask = torch.rand(grid.shape, generator=dice) < 0.3
    map_ = mapper.daily(grid, values.flatten(), mask.flatten())
    turned = [mirror.turn(x, grid.dims).flatten() for x in (mirror.sign * values, mask)]
    other = mirror.sign * mirror.turn(mapper.daily(grid, *turned), grid.dims)
    torch.testing.assert_close(map_, other, rtol=0, atol=1e-12)  # a mean in another order
    alone = dataclasses.replace(mapper.model.card, symmetries=())
    plain = LearnedMapper(dataclasses.replace(mapper.model, card=alone))
    assert (plain.daily(grid, values.flatten(), mask.flatten()) - map_).abs().max() > 1e-3


def test_one_date_without_data_is_the_mean(problem):
    mapper, grid = learned(trained("unet")), problem.grid
    day = Grid(
        time=grid.axes["time"][:1] + 400.0,
        lat=grid.axes["lat"],
        lon=grid.axes["lon"],
        metric="sphere",
        epoch=grid.epoch,
    )
    found = mapper(Problem(day, problem.points, problem.anomalies), quiet)
    mean = mapper.model.card.normalisation["mean"]
    torch.testing.assert_close(found.mean, torch.full((len(day),), mean).double())
    assert found.std().min() > 0


def test_members_have_the_mean_and_the_std(problem):
    found = learned(trained("unet"))(problem, quiet)
    size = 400
    draws = found.sample(size, torch.Generator().manual_seed(1))
    std = found.std()
    # 5 standard errors of a mean and of a std, over the many nodes of the map at once
    assert ((draws.mean(0) - found.mean) / std).abs().max() < 5.5 / size**0.5
    assert (draws.std(0) / std - 1).abs().max() < 5.5 / (2 * size) ** 0.5


def test_correlated_draws_have_the_scales():
    grid = Grid(time=range(24), y=range(20), x=range(20))
    z = correlated(grid, [4.0, 3.0, 2.0], 40, torch.Generator().manual_seed(0))
    found = [[_scale_along(x.reshape(grid.shape), k) for x in z] for k in range(3)]
    # within a tenth: estimates of scales from finite boxes fall somewhat short
    assert np.allclose(np.mean(found, axis=1), [4.0, 3.0, 2.0], rtol=0.1)


def test_the_grid_of_days_covers_the_map():
    box = Grid(time=[2.0, 3.5], lat=[30.0, 34.1], lon=[0.0, 3.999], metric="sphere")
    made = days_of(box, [1.0, 0.5, 0.5], 2, 2)
    assert made.axes["time"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert made.axes["lat"][-1].item() == pytest.approx(34.5)
    assert made.axes["lon"][-1].item() == 3.999  # a step that is close enough is stretched


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_on_another_grid_has_the_same_numbers(method):
    prior = load_model(trained(method)).prior
    grid = Grid(time=range(5), lat=np.arange(9) / 2, lon=np.arange(12) / 2, metric="sphere")
    moved = on_grid(prior, grid)
    assert moved.domain is grid
    for a, b in zip(prior.state_dict().values(), moved.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_lesson_is_of_the_other_ocean_and_keeps_its_days_apart():
    lessons = course("unet")
    lesson = lessons.lessons[0]
    (a, b), (c, d) = lesson.spans["train"], lesson.spans["validation"]
    assert a == 0
    assert c - b >= 5
    assert d == lesson.grid.shape[0]
    # what is seen is the truth, but for what it does in a cell and in half a day
    e = (lesson.values - lesson.truth)[lesson.mask]
    assert e.square().mean().sqrt() < 0.5 * lesson.truth.std()
    several, validation = lessons.windows()
    (train,) = several.sources
    assert (train.span, validation.span) == ((a, b), (c, d))
    assert not train.mask[b - 2 : b].any()  # as after the last data of all
    assert validation.mask[-1].any()


def test_the_card_says_what_was_done():
    card = load_model(trained("4dvarnet")).card
    assert (
        "4dvarnet on gulfstream, 4nadirs, noise none, seed 2654435769; mapping, 5 days"
        in card.notes
    )
    assert (card.variable, card.units, card.seed, card.command) == ("ssh", "m", 0, "a test")
    assert set(card.split) == {"train", "validation"}
    assert 0.5 < card.scores["spread_skill"] < 2


def test_learning_lowers_the_error(tmp_path, problem):
    learn(course("unet", updates=120, rate=3e-3), tmp_path / "model")
    truth = truth_at(ocean(), problem.grid)
    found = learned(tmp_path / "model")(problem, quiet)
    error = (found.mean - truth).square().mean().sqrt()
    assert error < 0.8 * (truth - problem.shift).std()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "oracle"}, "expected one of unet"),
        ({"updates": 0}, r"updates=\.\.\.\): expected a positive"),
        ({"width": 0}, r"width=\.\.\.\): expected a positive"),
        ({"step": float("nan")}, r"step=\.\.\.\): expected a positive"),
        ({"oceans": 0}, r"oceans=\.\.\.\): expected a positive"),
        ({"first": "spde"}, "expected one of"),
        ({"exchange": 0.5}, "where a first guess is made"),
        ({"purpose": "forecast"}, "a lead for a forecast only"),
        ({"purpose": "forecast", "lead": 15}, "fewer times than the 15"),
    ],
)
def test_bad_plans_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Plan(**change)


@pytest.mark.parametrize("window", [4, 1, 13])
def test_bad_windows_are_refused(window):
    with pytest.raises(ValueError, match="an odd number of days"):
        course("unet", window=window)


def test_experiments_without_another_ocean_are_refused(tmp_path):
    alone = dataclasses.replace(ocean(), training=None)
    with pytest.raises(ValueError, match="osse --train"):
        course_of(alone, Plan(**TINY), quiet, tmp_path / "oceans")
    assert not (tmp_path / "oceans").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"variable": "sst"}, "variable of the model, 'ssh'"), ({"units": "cm"}, "data in m")],
)
def test_other_data_are_refused(asked, said):
    with pytest.raises(InputError, match=said):
        learned(trained("unet"), **asked)


def test_other_models_are_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained("unet"), folder)
    about = json.loads((folder / "model.json").read_text())
    del about["parts"]["spread"]
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="with a spread"):
        learned(folder)


def test_maps_that_are_too_small_or_flat_are_refused(problem):
    mapper = learned(trained("unet"))
    axes = {"time": [0.0], "lat": [35.0, 36.0], "lon": [300.0, 301.0]}
    small = Grid(**axes, metric="sphere", epoch=problem.grid.epoch)
    with pytest.raises(InputError, match=r"8 steps of 0\.5 degrees"):
        mapper(Problem(small, problem.points, problem.values), quiet)
    timeless = Grid(lat=np.arange(30.0, 50.0), lon=np.arange(0.0, 20.0), metric="sphere")
    with pytest.raises(InputError, match="of the sphere"):
        mapper(Problem(timeless, timeless.points, torch.zeros(400).double()), quiet)


def test_a_board_has_its_row(tmp_path):
    folder = ocean().save(tmp_path / "osse")
    models = {"my-unet": trained("unet")}
    said: list[str] = []
    board = Board(folder, tmp_path / "board", step=0.5, members=2, models=models)
    table = board.run(["my-unet"], said.append, alone=False)
    assert table.loc["my-unet", "rmse"] > 0
    assert 0 < table.loc["my-unet", "coverage_90"] <= 1
    board.run(["my-unet"], said.append, alone=False)
    assert said[-1] == "my-unet: kept"
    # other weights under the same name are mapped anew
    again = Board(
        folder, tmp_path / "board", step=0.5, members=2, models={"my-unet": trained("fixedpoint")}
    )
    again.run(["my-unet"], said.append, alone=False)
    assert said[-1] != "my-unet: kept"
    for name, match in (("oi", "a new name"), ("a/b", "a new name")):
        bad = Board(folder, tmp_path / "other", step=0.5, models={name: trained("unet")})
        with pytest.raises(ValueError, match=match):
            bad.run([name], quiet, alone=False)
    assert not (tmp_path / "other").exists()


# the first guess, other purposes, more oceans


@pytest.fixture(scope="module", params=["mapping", "forecast"])
def mended(request, tmp_path_factory):
    """A model that mends a first guess, and its course."""
    lead = 2 if request.param == "forecast" else 0
    plan = Plan(
        "unet", **{**TINY, "first": "oi", "purpose": request.param, "lead": lead, "oceans": 2}
    )
    lag = lead if lead else None
    guess = FirstGuess(120e3, 9.0, 0.1, 0.01, 2.5, 2.5, 9.0, lag)
    found = course_of(ocean(), plan, quiet, guess=guess)
    folder = tmp_path_factory.mktemp("mended") / "model"
    learn(found, folder)
    return found, folder


def test_a_first_guess_is_of_the_data_and_is_mended(mended, problem):
    found, folder = mended
    assert len(found.lessons) == 2
    for lesson in found.lessons:
        e = (lesson.guess - lesson.truth).square().mean().sqrt()
        assert e < 0.9 * lesson.truth.std()
    # the oceans are not the same
    one, other = (lesson.truth for lesson in found.lessons)
    assert not torch.allclose(one, other)
    model = learned(folder).model
    guess = model.others["guess"]
    assert guess.made_with == found.guess.made_with
    assert model.card.scores["rmse"] < 1.1 * model.card.scores["rmse_first_guess"]
    # what the network adds is small at first: the map is near the guess
    mapper = learned(folder)
    mean = mapper(problem, quiet).mean - problem.shift
    plain = dataclasses.replace(problem, known=None, values=problem.anomalies)
    first = guess.of(plain, problem.grid)
    assert (mean - first).square().mean().sqrt() < 0.5 * first.std()


def test_a_forecast_does_not_know_of_the_future(mended, problem):
    _, folder = mended
    mapper, grid = learned(folder), problem.grid
    lead = mapper.model.card.lead
    day = 2
    now = grid.axes["time"][day].item() - lead + 0.5
    t = problem.points.since(grid.epoch).axis("time")
    nodes = grid.shape[1] * grid.shape[2]
    place = slice(day * nodes, (day + 1) * nodes)
    whole = mapper(problem, quiet).mean[place]
    known = mapper(problem.take(t < now), quiet).mean[place]
    if mapper.purpose.name == "forecast":
        torch.testing.assert_close(whole, known, rtol=0, atol=1e-6)
    else:
        assert not torch.allclose(whole, known, atol=1e-3)


def test_oceans_are_read_again(mended, tmp_path):
    found, _ = mended
    path = tmp_path / "oceans.safetensors"
    found.save(path)
    again = course_of(ocean(), found.plan, quiet, path)
    assert isinstance(again, Course)
    assert again.guess.made_with == found.guess.made_with
    for one, other in zip(found.lessons, again.lessons, strict=True):
        assert one.spans == other.spans
        for name in ("truth", "values", "mask", "guess"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert found.windows()[0].fingerprint() == again.windows()[0].fingerprint()
    # what is not whole is made again
    path.write_bytes(path.read_bytes()[:-100])
    assert _read(path, _other(ocean(), found.plan), found.plan, found.lessons[0].spans) is None
    # another plan is not content with them
    found.save(path)
    other = dataclasses.replace(found.plan, first="none", oceans=1)
    assert course_of(ocean(), other, quiet, path).guess is None
