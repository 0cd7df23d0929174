"""Solvers that learn with another field beside the data: used, never leaked, mirrored, told."""

import dataclasses
import json
import numpy as np
import pytest
import torch

from matheron.compare import Board, Plan, course_of, learn, problem_of
from matheron.compare.lessons import Lesson
from matheron.compare.plans import COVARIATES
from matheron.data import Gridded, InputError, Mirror
from matheron.data.patches import Augmentation, Windows
from matheron.data.purposes import Purpose
from matheron.domain import Grid, dates_of
from matheron.fit import load_model
from matheron.fit.objective import observe
from matheron.mappers.learned import LearnedMapper, learned
from matheron.observations import GriddedObservation, Informed
from matheron.solvers.neural import FixedPoint, LightStep, NeuralVariational
from tests.learned_ocean import (
    TINY,
    ocean,
    trained,
    trained_with_sst,
    warm_course,
    warm_ocean,
)

METHODS = ("unet", "4dvarnet")


def quiet(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def problem():
    return problem_of(warm_ocean(), 0.5)


def with_field(problem, change):
    """The problem with another temperature."""
    field = problem.beside["sst"]
    return dataclasses.replace(problem, beside={"sst": change(field)})


# training


def test_windows_carry_it_of_order_one():
    course = warm_course()
    (mean, std) = course.scales["sst"]
    assert 12 < mean < 26
    windows = course.lessons[0].windows(
        "train", (5, 16, 16), 0.01, course.plan.use, scales=course.scales
    )
    every = torch.arange(len(windows))
    batch = windows.batch(every, every)
    z, known = batch.covariates["sst"]
    assert z.shape == batch.values.shape
    assert (z[~known] == 0).all()
    assert 0.5 < known.double().mean() < 1  # nothing on days that are kept without data
    blank = ~batch.space(known).flatten(2).any(dim=2)
    assert blank.any()
    assert not batch.space(batch.mask).flatten(2).any(dim=2)[blank].any()
    assert abs(z[known].mean()) < 1
    # it is the mean over cells of what is seen, at the nodes
    lesson = course.lessons[0]
    field = Gridded.of("sst", warm_ocean().training.beside["sst"].seen["sst"])
    x, there = lesson.beside["sst"]
    expected = field.onto(lesson.grid)[0]
    torch.testing.assert_close(x[there], expected[there], rtol=1e-6, atol=0)
    # the truth of temperatures is not what is learned with
    assert not torch.allclose(
        x[there],
        Gridded.of("sst", warm_ocean().training.beside["sst"].truth["sst"]).onto(lesson.grid)[0][
            there
        ],
        atol=0.05,
    )
    assert std > 1


def test_noise_in_the_place_of_the_truth_changes_nothing_but_the_loss():
    course = warm_course()
    noise = torch.randn(
        len(course.grid), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    other = dataclasses.replace(course.lessons[0], truth=noise)
    size, index = (5, 16, 16), torch.arange(6)
    pairs = [
        one.windows("train", size, 0.01, course.plan.use, None, course.scales).batch(index, index)
        for one in (course.lessons[0], other)
    ]
    told = [observe(batch)[1] for batch in pairs]
    assert torch.equal(*told)
    assert not torch.equal(pairs[0].truth, pairs[1].truth)


def test_the_future_of_a_forecast_is_hidden():
    course = warm_course()
    forecast = Purpose("forecast", 2, width=3.0)
    windows = course.lessons[0].windows("train", (5, 16, 16), 0.01, forecast, None, course.scales)
    batch = windows.batch(torch.arange(4), torch.arange(4))
    z, known = (batch.space(x) for x in batch.covariates["sst"])
    assert known[:, :3].any()
    assert not known[:, 3:].any()
    assert (z[:, 3:] == 0).all()


def test_a_first_guess_is_never_taken_for_data_of_its_day():
    grid = Grid(time=range(5), y=range(4), x=range(4))
    x = torch.rand(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everywhere = torch.ones(80, dtype=torch.bool)
    others = {k: (x, everywhere) for k in ("guess", "sst")}
    settings = {"truth": x, "covariates": others, "purpose": Purpose("forecast", 2)}
    windows = Windows(grid, (5, 4, 4), x, x > 0.5, 0.1, timely=["sst"], **settings)
    batch = windows.batch(torch.tensor([0]), torch.tensor([0]))
    assert batch.covariates["guess"][1].all()
    assert not batch.covariates["sst"][1].all()
    plain = Windows(grid, (5, 4, 4), x, x > 0.5, 0.1, **settings)
    assert windows.fingerprint() != plain.fingerprint()


def test_signs_under_mirrors():
    course = warm_course()
    assert [str(m) for m in course.symmetries] == ["-lat;-sst"]
    plain = dataclasses.replace(course, plan=dataclasses.replace(course.plan, covariates=()))
    assert [str(m) for m in plain.symmetries] == ["-lat", "time,lon"]
    assert set(COVARIATES) == {"sst"}
    kept = Mirror.of("-lat;sst")
    assert (kept.sign_of("sst"), kept.sign_of("truth"), kept.sign_of("noise")) == (1.0, -1.0, 1.0)
    assert Mirror.of(str(kept)) == kept
    assert repr(Mirror(("lat",), -1.0)) == "Mirror(axes=('lat',), sign=-1.0)"
    with pytest.raises(ValueError, match="a sign of 1 or -1"):
        Mirror(("lat",), -1.0, (("sst", 0.5),))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_window_is_turned_with_the_sign_of_each_field(sign):
    grid = Grid(time=range(3), lat=range(4), lon=range(4), metric="sphere")
    x = torch.rand(48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = x > 0.3
    mirror = Mirror(("lat",), -1.0, (("sst", sign),))
    seen = set()
    settings = {"truth": x, "covariates": {"sst": (x, known)}}
    moved = Augmentation(mirrors=(mirror,))
    windows = Windows(grid, (3, 4, 4), x, x > 0.5, 0.1, augmentation=moved, **settings)
    for seed in range(8):
        batch = windows.batch(torch.tensor([0]), torch.tensor([seed]))
        turned = bool((batch.truth < 0).any())
        z, there = (batch.space(v)[0] for v in batch.covariates["sst"])
        whole = torch.where(known, x, 0.0).reshape(3, 4, 4)
        expected = sign * whole.flip(1) if turned else whole
        assert torch.equal(z, expected)
        places = known.reshape(3, 4, 4)
        assert torch.equal(there, places.flip(1) if turned else places)
        # where it is known is 1 whatever the sign of the field
        y = observe(batch)[1][0].reshape(-1, 48)
        assert torch.equal(y[2], there.double().flatten())
        seen.add(turned)
    assert len(seen) == 2


def test_lessons_are_read_again(tmp_path):
    course = warm_course()
    path = tmp_path / "oceans.safetensors"
    course.save(path)
    again = course_of(warm_ocean(), course.plan, quiet, path)
    one, other = course.lessons[0], again.lessons[0]
    assert isinstance(other, Lesson)
    for a, b in zip(one.beside["sst"], other.beside["sst"], strict=True):
        assert torch.equal(a, b)
    assert again.windows()[0].fingerprint() == course.windows()[0].fingerprint()
    assert again.labels == {"sst": "degree_Celsius"}
    # a plan without it is not content with them
    plain = Plan("unet", **TINY)
    assert plain.oceans_alone != course.plan.oceans_alone


@pytest.mark.slow
@pytest.mark.parametrize(("method", "updates"), [("unet", 100), ("4dvarnet", 60)])
def test_a_field_that_is_the_truth_is_used(method, updates, tmp_path):
    """The error on the days held out falls far below that without it."""
    course = warm_course(method, updates=updates, rate=3e-3)
    lesson = course.lessons[0]
    leak = dataclasses.replace(
        lesson, beside={"sst": (15 + 5 * lesson.truth, torch.ones_like(lesson.mask))}
    )
    plain = dataclasses.replace(course, plan=dataclasses.replace(course.plan, covariates=()))
    told = dataclasses.replace(course, lessons=[leak])
    errors = [
        learn(one, tmp_path / name).card.scores["rmse"]
        for name, one in (("told", told), ("plain", plain))
    ]
    assert errors[0] < 0.6 * errors[1]


# maps


@pytest.mark.parametrize("method", METHODS)
def test_the_card_says_what_it_learned_with(method):
    course, card = warm_course(method), load_model(trained_with_sst(method)).card
    mean, std = course.scales["sst"]
    assert card.covariates == {"sst": {"mean": mean, "std": std, "units": "degree_Celsius"}}
    assert card.notes.endswith("with sst")
    assert card.symmetries == ["-lat;-sst"]


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_of_its_temperature_too(method, problem):
    mapper = learned(trained_with_sst(method))
    one = mapper(problem, quiet).mean
    assert torch.equal(one, mapper(problem, quiet).mean)
    other = mapper(
        with_field(problem, lambda f: dataclasses.replace(f, values=f.values.flip(0))), quiet
    ).mean
    assert (one - other).abs().max() > 1e-4
    kelvin = with_field(
        problem, lambda f: dataclasses.replace(f, values=f.values + 273.15, units="kelvin")
    )
    torch.testing.assert_close(mapper(kelvin, quiet).mean, one, rtol=0, atol=1e-6)


def test_turned_fields_give_the_map_turned():
    mapper, mirror = learned(trained_with_sst()), Mirror.of("-lat;-sst")
    grid = Grid(time=range(7), lat=np.arange(16) / 2, lon=np.arange(20) / 2, metric="sphere")
    dice = torch.Generator().manual_seed(0)
    values, z = torch.randn(2, *grid.shape, generator=dice, dtype=torch.float64)
    mask, known = torch.rand(2, *grid.shape, generator=dice) < 0.5

    def mapped(sign, turn):
        fields = [turn(x).flatten() for x in (sign * values, mask)]
        beside = {"sst": (turn(sign * z).flatten(), turn(known).flatten())}
        return mapper.daily(grid, *fields, beside=beside)

    one = mapped(1.0, lambda x: x)
    other = mapped(-1.0, lambda x: mirror.turn(x, grid.dims))
    torch.testing.assert_close(-mirror.turn(other, grid.dims), one, rtol=0, atol=1e-12)


def test_what_stands_in_a_gap_is_never_read(problem):
    mapper = learned(trained_with_sst())
    field = problem.beside["sst"]
    hole = torch.rand(len(field.grid), generator=torch.Generator().manual_seed(0)) < 0.9
    said = []

    def holed(value):
        values = torch.where(hole, value, field.values)
        return dataclasses.replace(field, values=values, known=~hole)

    maps = [
        mapper(with_field(problem, lambda _, v=v: holed(v)), said.append).mean for v in (0, 1e6)
    ]
    assert torch.equal(*maps)
    assert any("% of sst is missing" in text for text in said)


def test_missing_days_are_named(problem):
    mapper = learned(trained_with_sst())
    dates = dates_of(problem.grid.axes["time"], problem.grid.epoch).astype("datetime64[D]")
    seen = warm_ocean().beside["sst"].seen["sst"]
    short = seen.sel(time=~np.isin(seen["time"].values.astype("datetime64[D]"), dates[1:3]))
    with pytest.raises(InputError, match=f"none on {dates[1]}, {dates[2]}") as error:
        mapper(with_field(problem, lambda _: Gridded.of("sst", short)), quiet)
    assert "\n" not in str(error.value)
    # days about the map may be missing, as they are at the end of an experiment
    own = seen.sel(time=slice(str(dates[0]), str(dates[-1])))
    mapper(with_field(problem, lambda _: Gridded.of("sst", own)), quiet)


def test_a_map_without_it_or_of_other_units_is_refused(problem):
    mapper = learned(trained_with_sst())
    with pytest.raises(InputError, match="expected sst, as in the training, got none"):
        mapper(dataclasses.replace(problem, beside={}), quiet)
    other = with_field(problem, lambda f: dataclasses.replace(f, units="psu"))
    with pytest.raises(InputError, match="in degree_Celsius"):
        mapper(other, quiet)


def test_the_other_models_do_not_look_at_it(problem):
    mapper = learned(trained("unet"))
    bare = dataclasses.replace(problem, beside={})
    assert torch.equal(mapper(problem, quiet).mean, mapper(bare, quiet).mean)


def test_a_folder_of_before_is_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (folder / name).write_bytes((trained("unet") / name).read_bytes())
    about = json.loads((folder / "model.json").read_text())
    del about["card"]["covariates"]
    (folder / "model.json").write_text(json.dumps(about))
    assert learned(folder).covariates.names == ()


def test_a_board_gives_it_its_temperature(tmp_path):
    folder = warm_ocean().save(tmp_path / "osse")
    board = Board(folder, tmp_path / "board", step=0.5, models={"warm": trained_with_sst()})
    row = board.run(["warm"], quiet, alone=False).loc["warm"]
    found = learned(trained_with_sst())(problem_of(warm_ocean(), 0.5), quiet)
    assert row["rmse"] > 0
    assert found.mean.isfinite().all()
    cold = ocean().save(tmp_path / "cold")
    other = Board(cold, tmp_path / "other", step=0.5, models={"warm": trained_with_sst()})
    with pytest.raises(ValueError, match="expected sst, as in the training"):
        other.run(["warm"], quiet, alone=False)


def test_tiles_cut_it_too(problem):
    model = learned(trained_with_sst()).model
    own = problem.grid
    lat = own.axes["lat"][0] + 0.5 * torch.arange(-4.0, 44.0)
    axes = {"time": own.axes["time"][:1], "lat": lat, "lon": own.axes["lon"]}
    grid = Grid(metric="sphere", epoch=own.epoch, **axes)
    larger = dataclasses.replace(problem, grid=grid, known=None, values=problem.anomalies)
    whole, tiled = (LearnedMapper(model, patch=p)(larger, quiet).mean for p in (160, 40))
    apart = (whole - tiled).square().mean().sqrt() / whole.std()
    assert 0 < apart < 0.05


# what cannot be


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected some of sst"):
        Plan("unet", covariates=("depth",))
    with pytest.raises(ValueError, match="each once"):
        Plan("unet", covariates=("sst", "sst"))
    with pytest.raises(ValueError, match="looks at the field alone"):
        Plan("fixedpoint", covariates=("sst",))
    with pytest.raises(ValueError, match="osse --sst"):
        course_of(ocean(), Plan("unet", **TINY, covariates=("sst",)), quiet)
    with pytest.raises(ValueError, match="nothing in it looks"):
        FixedPoint(2, others=("sst",))


def test_solvers_are_given_what_they_were_built_for():
    model = load_model(trained_with_sst())
    seen = GriddedObservation(model.grid, torch.arange(len(model.grid)) % 7 == 0, 0.1)
    with pytest.raises(
        ValueError, match="expected the fields sst, sst_known beside the data, got none"
    ):
        model.solver(model.prior, seen)
    step = LightStep(model.grid.shape[0], 4, 2, 4, generator=torch.Generator().manual_seed(0))
    prior = load_model(trained_with_sst("4dvarnet")).prior
    from_step = NeuralVariational(step, 2, others=("sst", "sst_known"))
    with pytest.raises(ValueError, match="10 channels of the fields beside"):
        from_step(prior, Informed(seen, 0, ("sst", "sst_known")))
