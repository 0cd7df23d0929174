"""Solvers that learn on images with gaps: no land, no truth where none is asked for, no leaks."""

import dataclasses
import functools
import numpy as np
import pytest
import tempfile
import torch
import xarray as xr

from pathlib import Path

from matheron.cli.border import Names
from matheron.cli.learning import map_learned, train_model
from matheron.cli.mapping import Request
from matheron.cli.settings import Settings
from matheron.compare import Board, Plan, course_of, learn, problem_of, score_map
from matheron.compare.course import Course
from matheron.compare.lessons import shown_of, spans_of
from matheron.compare.problems import map_grid
from matheron.compare.scores import truth_at
from matheron.compare.withheld import MOST, TURNS, nugget, withheld
from matheron.data import InputError
from matheron.domain import Grid
from matheron.mappers.first_guess import FirstGuess
from matheron.mappers.learned import LearnedMapper, learned
from matheron.osse import Experiment
from tests.learned_ocean import ocean as tracks
from tests.learned_ocean import trained as trained_on_tracks

TINY = {"window": 5, "patch": 24, "width": 8, "iterations": 2, "updates": 12, "first": "none"}
GUESS = FirstGuess(60e3, 4.0, 1.0, 0.4, 1.5, 1.5, 6.0)


def quiet(_text: str) -> None:
    pass


@functools.cache
def coast() -> Experiment:
    """A plume of a few days, with another to train on."""
    return Experiment.make("sediment", days=8, spacing=0.25, spin_up=3, train=True)


@functools.cache
def course(supervision: str, first: str = "none", **settings) -> Course:
    given = {"method": "unet", "supervision": supervision, "first": first, **settings}
    plan = Plan(**{**TINY, **given})
    return course_of(coast(), plan, quiet, guess=GUESS if first == "oi" else None)


@functools.cache
def _parent() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def trained(supervision: str, first: str = "none") -> Path:
    folder = Path(_parent().name) / f"{supervision}-{first}"
    learn(course(supervision, first), folder)
    return folder


def weights(folder: Path) -> dict:
    model = learned(folder).model
    return {**model.solver.state_dict(), **model.others["spread"].state_dict()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def changed(lessons: Course, **tensors) -> Course:
    """Returns a course with other numbers in its first lesson."""
    one = dataclasses.replace(lessons.lessons[0], **tensors)
    return dataclasses.replace(lessons, lessons=[one, *lessons.lessons[1:]])


def with_truth(values) -> Experiment:
    """Returns the experiment with another truth to train on."""
    training = coast().training
    truth = training.truth.copy()
    truth["spm"] = truth["spm"].copy(data=values)
    return dataclasses.replace(coast(), training=dataclasses.replace(training, truth=truth))


# land


def test_land_is_that_of_the_truth_and_weighs_nothing():
    lesson = course("truth").lessons[0]
    land = np.isnan(coast().training.truth["spm"].values)
    assert np.array_equal(~lesson.sea.reshape(lesson.grid.shape).numpy(), land)
    assert not (lesson.mask & ~lesson.sea).any()
    source, _ = course("truth").windows()
    batch = source.batch(torch.arange(6), torch.arange(6))
    seas = batch.weights > 0
    assert set(batch.covariates) == set()  # the solver is not told where land is
    assert not (batch.mask & (batch.weights.sum(1, keepdim=True) == 0)).any()
    rows = batch.space(seas)[:, 2]
    assert torch.equal(rows, rows[:1].expand_as(rows))  # a coast does not move
    assert 0 < rows.double().mean() < 1


@pytest.mark.parametrize("method", ["unet", "4dvarnet"])
def test_what_stands_on_land_never_matters(method, tmp_path):
    one = course("truth", method=method, updates=4)
    lesson = one.lessons[0]
    wild = torch.where(lesson.sea, lesson.truth, 1e3 * torch.rand(len(lesson.truth)).double())
    learn(one, tmp_path / "one")
    learn(changed(one, truth=wild), tmp_path / "other")
    assert same(weights(tmp_path / "one"), weights(tmp_path / "other"))
    cards = [learned(tmp_path / k).model.card for k in ("one", "other")]
    assert cards[0].normalisation == cards[1].normalisation
    assert cards[0].scores["rmse"] == cards[1].scores["rmse"]
    # at sea it does
    source, other = (c.windows()[0] for c in (one, changed(one, truth=lesson.truth + 0.1)))
    assert not torch.equal(*(s.batch(*[torch.zeros(1).long()] * 2).truth for s in (source, other)))


def test_a_map_without_land_is_the_map_at_sea():
    mapper, problem = learned(trained("truth")), problem_of(coast())
    sea = truth_at(coast(), problem.grid).isfinite()
    grid = problem.grid
    masked = Grid(
        mask=sea.reshape(grid.shape), metric="sphere", epoch=grid.epoch, **dict(grid.axes)
    )
    whole, part = (
        mapper(dataclasses.replace(problem, grid=g, known=None, values=problem.anomalies), quiet)
        for g in (grid, masked)
    )
    torch.testing.assert_close(part.mean, whole.mean[sea], rtol=0, atol=1e-6)
    torch.testing.assert_close(part.std(), whole.std()[sea], rtol=0, atol=1e-6)


# units


def test_data_and_truth_are_logarithms_about_the_mean_of_the_data():
    lesson, experiment = course("truth").lessons[0], coast()
    seen = np.log(experiment.training.observations["clouds"]["spm"].values)
    true = np.log(experiment.training.truth["spm"].values)
    mean = np.nanmean(seen)
    # numbers are kept in single precision
    kept = lesson.mask.reshape(lesson.grid.shape).numpy()
    found = lesson.values.reshape(lesson.grid.shape).numpy()
    assert np.allclose(found[kept], (seen - mean)[kept], atol=1e-5)
    at_sea = np.isfinite(true)
    found = lesson.truth.reshape(lesson.grid.shape).numpy()
    assert np.allclose(found[at_sea], (true - mean)[at_sea], atol=1e-5)
    card = learned(trained("truth")).model.card
    assert (card.variable, card.units) == ("log_spm", "1")
    # the data less the truth: errors of 25 %
    assert card.normalisation["noise"] == pytest.approx(0.25, rel=0.1)


def test_a_rise_of_all_data_is_a_rise_of_the_map():
    mapper, problem = learned(trained("truth")), problem_of(coast())
    values, mean = problem.values + 3.0, problem.known[0] + 3.0
    more = dataclasses.replace(problem, values=values, known=(mean, problem.known[1] + 3.0))
    one, other = mapper(problem, quiet).mean, mapper(more, quiet).mean
    torch.testing.assert_close(one + 3.0, other, rtol=0, atol=1e-5)


# learning from data alone


def test_the_truth_is_never_read_without_supervision(tmp_path, monkeypatch):
    lies = with_truth(np.random.default_rng(0).normal(size=coast().training.truth["spm"].shape))
    monkeypatch.setattr("matheron.compare.lessons.truth_at", None)
    plan = Plan("unet", **{**TINY, "supervision": "data"})
    learn(course_of(lies, plan, quiet), tmp_path / "model")
    assert same(weights(tmp_path / "model"), weights(trained("data")))
    # with supervision it is
    monkeypatch.undo()
    other = course_of(lies, Plan("unet", **TINY), quiet)
    assert not torch.equal(other.lessons[0].truth, course("truth").lessons[0].truth)


def test_what_is_withheld_is_not_in_the_input():
    ocean, grid = _alone()
    spans = spans_of(grid, 5)
    for turn in range(TURNS):
        seen, lesson = shown_of(ocean, None, 5, spans, turn, 0)
        assert not (lesson.mask & lesson.hidden_mask).any()
        wild = ocean.observations["clouds"].copy()
        shape = lesson.hidden_mask.reshape(grid.shape).numpy()
        wild["spm"] = wild["spm"].copy(data=np.where(shape, 7.0, wild["spm"].values))
        other = dataclasses.replace(ocean, observations={"clouds": wild})
        still, again = shown_of(other, None, 5, spans, turn, 0)
        assert torch.equal(lesson.mask, again.mask)
        # sums of another order, in single precision
        torch.testing.assert_close(lesson.values, again.values, rtol=0, atol=1e-6)
        torch.testing.assert_close(seen.values, still.values, rtol=0, atol=1e-12)
        assert len(seen) == int(lesson.mask.sum())
        assert not torch.allclose(lesson.hidden, again.hidden)
    # nor in what scales and first guess are made of
    guesses = [GUESS.of(x, grid) for x in (seen, still)]
    torch.testing.assert_close(*guesses, rtol=0, atol=1e-9)


def _alone() -> tuple[Experiment, Grid]:
    """Returns the ocean to train on, and its grid."""
    other, calendar = coast().training, coast().calendar
    swapped = dataclasses.replace(calendar, scored=calendar.training, training=calendar.scored)
    ocean = dataclasses.replace(
        coast(),
        seed=other.seed,
        calendar=swapped,
        truth=other.truth,
        observations=other.observations,
        training=None,
    )
    return ocean, map_grid(ocean)


def test_what_is_seen_and_what_is_withheld_are_the_data_and_go_with_the_windows():
    lessons = course("data").lessons
    assert len(lessons) == TURNS
    every = [one.mask | one.hidden_mask for one in lessons]
    assert all(torch.equal(every[0], other) for other in every)
    assert all(one.truth is None for one in lessons)
    source, validation = course("data").windows()
    assert len(validation) == TURNS * (len(validation) // TURNS)
    batch = source.batch(torch.arange(len(source)), torch.zeros(len(source), dtype=torch.long))
    assert not (batch.mask & batch.hidden_mask).any()
    assert (batch.values[~batch.mask] == 0).all()
    assert (batch.hidden_mask & (batch.weights > 0)).any()


def test_each_day_is_veiled_in_its_turn_by_the_gaps_of_another():
    mask = torch.rand(12, 20, 20, generator=torch.Generator().manual_seed(3)) < 0.6
    mask[4] = False
    veils = [
        withheld(mask, k, [(0, 8), (8, 12)], torch.Generator().manual_seed(k))
        for k in range(TURNS)
    ]
    count = torch.stack([v.flatten(1).any(dim=1) for v in veils]).sum(dim=0)
    assert count.tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    for veil in veils:
        assert not (veil & ~mask).any()
        assert (veil.flatten(1).sum(1) <= MOST * mask.flatten(1).sum(1)).all()
    for day in (0, 6, 9):
        veil = veils[day % TURNS][day]
        part = range(8) if day < 8 else range(8, 12)
        # the gaps of one day of the same part, and a tenth of the nodes
        wrong = [(mask[day] & ~mask[d] & ~veil).sum() for d in part if d != day]
        assert min(wrong) == 0


def test_a_day_that_no_other_leaves_in_part_is_veiled_by_single_nodes():
    mask = torch.zeros(2, 30, 30, dtype=torch.bool)
    mask[0, :15], mask[1, 15:] = True, True
    veil = withheld(mask, 0, [(0, 2)], torch.Generator().manual_seed(0))
    assert 0 < int(veil[0].sum()) < 0.2 * int(mask[0].sum())


def test_errors_of_images_are_told_by_neighbours(generator):
    size, std = 60, 0.3
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in (4, size, size)), indexing="ij")
    field = 0.02 * x + 0.001 * (y - 20) ** 2
    noise = std * torch.randn(field.shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(field.shape, generator=generator) < 0.7
    assert nugget(field, mask) < 0.02 * std**2
    # a half square difference has a variance of 2 std^4, and each datum is in up to four pairs
    pairs = 2 * 0.49 * field.numel()
    error = 5 / 3 * std**2 * (2 * 4 / pairs) ** 0.5
    assert abs(nugget(field + noise, mask) - std**2) < 5 * error + nugget(field, mask)
    assert t.shape == field.shape


@pytest.mark.parametrize("first", ["none", "oi"])
def test_the_spread_of_data_alone_is_that_of_the_errors(first):
    card = learned(trained("data", first)).model.card
    assert 0.7 < card.scores["spread_skill"] < 1.4
    assert card.scores["rmse"] < 1.2 * card.normalisation["std"]
    assert "from data alone" in card.notes
    assert ("rmse_first_guess" in card.scores) == (first == "oi")


def test_a_first_guess_without_supervision_is_of_what_is_seen():
    lessons = course("data", "oi").lessons
    ocean, grid = _alone()
    seen, _ = shown_of(ocean, None, 5, lessons[1].spans, 1, 0)
    torch.testing.assert_close(lessons[1].guess, GUESS.of(seen, grid), rtol=0, atol=1e-6)


# what comes of it


@pytest.mark.parametrize("supervision", ["truth", "data"])
def test_learning_lowers_the_error(supervision, tmp_path):
    oceans = 1 if supervision == "truth" else 4  # of data alone there are fewer
    learn(course(supervision, updates=80, rate=3e-3, oceans=oceans), tmp_path / "model")
    problem = problem_of(coast())
    found = learned(tmp_path / "model")(problem, quiet)
    one = score_map(coast(), found.mean, found.std(), problem.grid, problem)
    mean = problem.shift  # of the data
    other = score_map(coast(), mean, torch.ones_like(mean), problem.grid, problem)
    assert one["rmse"] < 0.8 * other["rmse"]


def test_a_board_has_its_row(tmp_path):
    folder = coast().save(tmp_path / "osse")
    board = Board(folder, tmp_path / "board", models={"mine": trained("truth")})
    table = board.run(["mine"], quiet, alone=False)
    assert table.loc["mine", "rmse"] > 0
    with xr.open_dataset(tmp_path / "board" / "mine.nc") as made:
        assert "log_spm" in made
    wrong = Board(folder, tmp_path / "other", models={"mine": trained_on_tracks("unet")})
    with pytest.raises(InputError, match="the variable of the model, 'ssh'"):
        wrong.run(["mine"], quiet, alone=False)


def test_the_command_line_takes_logarithms_and_gives_them_back(tmp_path):
    ocean = coast().save(tmp_path / "osse")
    told = {"window": 5, "updates": 4, "first": "none", "supervision": "data", "method": "unet"}
    said = train_model(ocean, tmp_path / "model", told)
    assert "from data alone" in said
    images, out = ocean / "obs_clouds.nc", tmp_path / "map.nc"
    kept = (None, Names(), "same", None, 2, out, tmp_path / "model")
    map_learned(Request([images], *kept), Settings())
    problem = problem_of(coast())  # of the same data, on the days that are scored
    with xr.open_dataset(out) as made:
        days = made["log_spm"].isel(time=slice(-problem.grid.shape[0], None))
        mean, members = days.values.reshape(-1), made["log_spm_member"]
        assert made["log_spm"].attrs["units"] == "1"
        assert members.sizes["realization"] == 2
    found = learned(tmp_path / "model")(problem, quiet)
    # what is written has single precision
    assert np.allclose(mean, found.mean.numpy(), atol=1e-5)
    with xr.open_dataset(images) as data:
        (data.load() - 1.0).to_netcdf(tmp_path / "negative.nc")
        data.rename(spm="chl").to_netcdf(tmp_path / "other.nc")
    for name, match in (("negative", "positive data"), ("other", "expected 'spm'")):
        with pytest.raises(InputError, match=match):
            map_learned(Request([tmp_path / f"{name}.nc"], *kept), Settings())


def test_oceans_are_read_again(tmp_path):
    for supervision in ("truth", "data"):
        one, path = course(supervision, "oi"), tmp_path / f"{supervision}.safetensors"
        one.save(path)
        again = course_of(coast(), one.plan, quiet, path)
        assert again.guess.made_with == one.guess.made_with
        assert again.windows()[0].fingerprint() == one.windows()[0].fingerprint()
        assert again.units(again.grid).length == one.units(one.grid).length


def test_more_oceans_are_other_coasts():
    one = course_of(coast(), Plan("unet", **{**TINY, "oceans": 2}), quiet)
    assert not torch.equal(one.lessons[0].sea, one.lessons[1].sea)
    assert len(one.held) == 1


# refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"supervision": "faith"}, r"supervision=\.\.\.\): expected one of"),
        ({"supervision": "data", "exchange": 0.5}, "where no truth is read"),
        ({"step": -0.1}, r"step=\.\.\.\): expected a positive"),
    ],
)
def test_bad_plans_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Plan(**{**TINY, **change})


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="mapped at their own nodes"):
        course_of(coast(), Plan(**TINY, step=0.5), quiet)
    with pytest.raises(ValueError, match="expected images"):
        course_of(tracks(), Plan(**TINY, supervision="data"), quiet)
    with pytest.raises(ValueError, match="osse --train"):
        course_of(dataclasses.replace(coast(), training=None), Plan(**TINY), quiet)
    with pytest.raises(InputError, match="the variable of the model, 'log_spm'"):
        learned(trained("truth"), "ssh", "m")
    assert isinstance(learned(trained("truth"), "spm"), LearnedMapper)
