"""Laws of experiments: a seed is one experiment; whole or not at all; nothing foreign is read."""

import dataclasses
import json
import numpy as np
import os
import pytest
import signal
import torch
import xarray as xr

from matheron.osse import folder as disk
from matheron.osse.calendar import CALENDARS
from matheron.osse.experiment import Experiment, shortened, training_seed
from matheron.osse.images import LOG_STD, hidden_cells, see
from matheron.osse.nature import nature_run
from matheron.osse.recipes import errors_of
from matheron.osse.statistics import geostrophic_speed

DAY = np.timedelta64(1, "D")
SMALL = {"size": 16, "spacing": 0.5, "spin_up": 10, "cache": False}


def sea(constellation="1nadir", noise="none", seed=0, days=3, **given):
    return Experiment.make("gulfstream", constellation, noise, seed, days=days, **SMALL | given)


def coast(names="clouds", seed=0, days=3, **given):
    return Experiment.make("sediment", names, seed=seed, days=days, spacing=0.25, **given)


@pytest.fixture(scope="module")
def whole():
    """An experiment with everything in it."""
    return sea("1nadir,swot", "karin", days=3, train=True)


def files(experiment):
    return experiment._files()


def same(a, b):
    assert list(files(a)) == list(files(b))
    for name, dataset in files(a).items():
        xr.testing.assert_identical(dataset, files(b)[name].load())


def copy_of(experiment, tmp_path):
    return experiment.save(tmp_path / "osse")


@pytest.mark.parametrize("make", [sea, coast])
def test_a_seed_is_an_experiment(make):
    same(make(), make())
    a, b = make(seed=0), make(seed=1)
    assert not a.truth.equals(b.truth)
    assert not next(iter(a.observations.values())).equals(next(iter(b.observations.values())))


def test_what_is_written_is_read_again(whole, tmp_path):
    folder = copy_of(whole, tmp_path)
    found = Experiment.load(folder)
    same(whole, found)
    assert found.statistics == whole.statistics
    assert found.summary == whole.summary == (folder / "README.md").read_text().rstrip("\n")
    for name in ("preset", "seed", "calendar", "observed", "days"):
        assert getattr(found, name) == getattr(whole, name)
    assert found.training.seed == whole.training.seed
    xr.testing.assert_identical(found.mdt, whole.mdt)
    found.close()


def test_fields_are_read_when_they_are_used(whole, tmp_path):
    found = Experiment.load(copy_of(whole, tmp_path))
    assert not found.truth["ssh"].variable._in_memory
    found.close()


def test_the_folder_holds_what_was_promised(whole, tmp_path):
    folder = copy_of(whole, tmp_path)
    seen = ("jason1", "nadir_swot", "karin_swot")
    names = {"truth.nc", "mdt.nc", "osse.json", "README.md", "train.nc"}
    names |= {f"{start}{name}.nc" for name in seen for start in ("obs_", "train_obs_")}
    assert {file.name for file in folder.iterdir()} == names
    told = json.loads((folder / "osse.json").read_text())
    assert told["statistics"] == whole.statistics
    assert (told["seed"], told["noise"], told["options"]["size"]) == (0, "karin", 16)
    with xr.open_dataset(folder / "obs_karin_swot.nc") as swath:
        assert swath["ssh_model"].dims == ("time", "nC")
        assert {"lon", "lat", "x_ac"} <= set(swath.coords)


def test_a_mission_has_the_same_errors_in_every_company():
    alone, among = sea("jason1", "full"), sea("4nadirs,swot", "full")
    xr.testing.assert_identical(alone.observations["jason1"], among.observations["jason1"])


def test_observations_are_the_truth_and_their_errors(whole):
    for seen in whole.observations.values():
        told = sum(seen[name] for name in seen.attrs["errors"].split(", "))
        error = (seen["ssh_obs"] - seen["ssh_model"] - told).values
        # Sums of a few heights under 2 m, each rounded to single precision.
        assert np.nanmax(abs(error)) < 8 * 2 * np.finfo(np.float32).eps


def test_the_truth_is_the_nature_run_and_its_evening_is_observed():
    made = sea("7nadirs", days=3)
    run = nature_run("gulfstream", 0, 3, **SMALL)
    np.testing.assert_array_equal(made.truth["ssh"], run["ssh"])
    np.testing.assert_array_equal(made.mdt, run["mdt"])
    latest = max(seen["time"].values[-1] for seen in made.observations.values())
    assert run["time"].values[-1] < latest < run["time"].values[0] + 3 * DAY


def test_fewer_days_leave_the_same_sea():
    long, short = sea(days=6), sea(days=3)
    xr.testing.assert_identical(long.truth.isel(time=slice(0, 12)), short.truth)
    a, b = (e.observations["jason1"]["ssh_model"] for e in (long, short))
    xr.testing.assert_identical(a.isel(time=slice(0, len(b))), b)


@pytest.mark.parametrize("days", [2, 3, 10, 62, (1, 5), (20, 1), (5, 42)])
def test_the_scored_days_are_inside(days):
    calendar, whole = shortened(CALENDARS["2020a"], days), CALENDARS["2020a"]
    counts = calendar.count("spin_up"), calendar.count("scored")
    assert counts == days if isinstance(days, tuple) else sum(counts) == days
    assert calendar.start == whole.start
    assert calendar.scored[1] < whole.buffer[0]
    assert calendar.training[0] == whole.training[0]
    # The calendar has one day of spin-up for two scored, shared out to the nearest day.
    assert isinstance(days, tuple) or abs(counts[1] - 2 * days / 3) <= 0.5


def test_a_whole_calendar_is_kept():
    for days in (None, 63, (21, 42)):
        assert shortened(CALENDARS["2020a"], days) is CALENDARS["2020a"]


def test_scored_fields_are_of_scored_days():
    made = sea(days=6)
    time = made.scored["time"].values
    first, last = (np.datetime64(day) for day in made.calendar.scored)
    assert (time[0], len(time)) == (first, 4 * 4)
    assert last <= time[-1] < last + DAY


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_ocean_to_train_on_is_another(seed):
    other = training_seed(seed)
    assert other != seed
    assert 0 <= other < 2**32
    draws = [torch.randn(8, generator=torch.Generator().manual_seed(s)) for s in (seed, other)]
    assert not torch.equal(*draws)
    assert training_seed(other) == seed  # one to one: no two oceans share theirs


def test_training_has_other_dates_and_fields(whole):
    truth, train = whole.truth, whole.training.truth
    first, last = (np.datetime64(day) for day in whole.calendar.training)
    assert train["time"].values[0] == first > truth["time"].values[-1]
    assert len(train["time"]) == 4 * (int((last - first) / DAY) + 1)
    a, b = (ds["ssh"].isel(time=0) - whole.mdt for ds in (truth, train))
    # Two oceans of one law: their fields are not closer than chance has it.
    assert float(abs(a.values - b.values).max()) > 0.1 * float(a.std())
    same(whole, dataclasses.replace(whole))  # and what is scored is not touched by it
    xr.testing.assert_identical(sea("1nadir,swot", "karin").truth, truth)


def test_sediment_is_positive_and_missing_under_clouds_only():
    made = coast("clouds,random", days=6)
    truth = made.truth["spm"].values
    seed = int(torch.randint(2**31, (), generator=errors_of(0)))
    assert set(made.observations) == {"clouds", "random"}
    for name, seen in made.observations.items():
        own = torch.Generator().manual_seed(seed)
        hidden = hidden_cells(made.truth["spm"], name, own)
        values = seen["spm"].values
        np.testing.assert_array_equal(np.isnan(values), np.isnan(truth) | hidden)
        assert (values[np.isfinite(values)] > 0).all()


def test_random_gaps_hide_as_much_but_elsewhere():
    made = coast("clouds,random", days=6)
    clouds, chance = (np.isnan(ds["spm"].values) for ds in made.observations.values())
    np.testing.assert_array_equal(clouds.sum(axis=(1, 2)), chance.sum(axis=(1, 2)))
    assert (clouds != chance).any()

    def edges(gaps):
        return (gaps[:, 1:] != gaps[:, :-1]).sum() + (gaps[:, :, 1:] != gaps[:, :, :-1]).sum()

    assert edges(clouds) < edges(chance)


def test_errors_of_images_are_lognormal_and_shared():
    time = np.datetime64("2020-01-01") + np.arange(6) * DAY
    axes = {"time": time, "lat": 44 + 0.05 * np.arange(60), "lon": -4 + 0.05 * np.arange(60)}
    truth = xr.Dataset({"spm": (tuple(axes), np.full((6, 60, 60), 3.0))}, axes)
    seen = see(truth, ["clouds", "random"], torch.Generator().manual_seed(0))
    a, b = (ds["spm"].values for ds in seen.values())
    both = np.isfinite(a) & np.isfinite(b)
    np.testing.assert_array_equal(a[both], b[both])
    z = (np.log(a[np.isfinite(a)].astype(float) / 3) + LOG_STD**2 / 2) / LOG_STD
    # 5 standard errors of a mean, and of a variance, of independent normal numbers.
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)
    exact = see(truth, ["clouds"], torch.Generator().manual_seed(0), noisy=False)["clouds"]["spm"]
    np.testing.assert_array_equal(exact.values[np.isfinite(exact.values)], 3.0)


def test_a_slope_has_its_current():
    lat, lon = np.linspace(33, 43, 101), np.linspace(-65, -55, 51)
    # A height a sin(lat) has the gradient a cos(lat) / R; one of b lon, b / (R cos(lat)).
    phi, radius = np.deg2rad(lat), 6371008.7714
    ssh = (3 * np.sin(phi)[:, None] + 2 * np.deg2rad(lon))[None]
    slope = np.hypot(3 * np.cos(phi), 2 / np.cos(phi)) / radius
    speed = 9.81 * slope / (2 * 7.292115e-5 * np.sin(phi))
    # Second differences of sin over .1 degree: (dphi)^2 / 6 = 5e-7, and first ones at the ends.
    np.testing.assert_allclose(
        geostrophic_speed(ssh, lat, lon)[0, 1:-1, 7], speed[1:-1], rtol=2e-6
    )


def test_statistics_are_those_of_the_fields(whole):
    truth, told = whole.truth["ssh"].values.astype(float), whole.statistics
    assert told["truth"]["std"] == pytest.approx(truth.std(), rel=1e-5)
    karin, seen = told["observations"]["karin_swot"], whole.observations["karin_swot"]
    assert karin["count"] == np.isfinite(seen["ssh_obs"]).sum()
    error = (seen["ssh_obs"] - seen["ssh_model"]).values.astype(float)
    assert karin["noise_std"] == pytest.approx(np.nanstd(error), rel=1e-4)
    starts = set(zip(seen["cycle"].values, seen["pass_number"].values, strict=True))
    assert karin["passes"] == len(starts)


BAD = {
    "preset": ({"preset": "moon"}, "gulfstream"),
    "mission": ({"constellation": "sputnik"}, "'sputnik'"),
    "noise": ({"noise": "pink"}, "'pink'"),
    "seed": ({"seed": 2**32}, "seed"),
    "negative seed": ({"seed": -1}, "seed"),
    "no day": ({"days": 0}, "days=0"),
    "one day": ({"days": 1}, "days=1"),
    "negative days": ({"days": -5}, "days=-5"),
    "too many days": ({"days": 64}, "63 at most"),
    "nothing scored": ({"days": (3, 0)}, "one to score"),
    "calendar": ({"calendar": "1999"}, "2020a"),
    "spacing": ({"spacing": 0.3}, "spacing"),
    "clouds at sea": ({"constellation": "clouds"}, "'clouds'"),
    "tracks on images": ({"preset": "sediment", "constellation": "1nadir"}, "clouds or random"),
    "noise of images": ({"preset": "sediment", "noise": "karin"}, "lognormal"),
    "size of a coast": ({"preset": "sediment", "size": 32}, "size=32"),
    "nothing seen": (
        {"preset": "mediterranean", "constellation": "swot", "days": 2, "size": 16, "spin_up": 1},
        "got none",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_told_in_one_line(case):
    given, word = BAD[case]
    with pytest.raises(ValueError, match=r"expected .*, got .*\. .*\.$") as refused:
        Experiment.make(**{"cache": False} | given)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("no space")], ids=repr)
@pytest.mark.parametrize("force", [False, True])
def test_a_save_that_is_stopped_leaves_nothing(force, stop, tmp_path, monkeypatch):
    folder = tmp_path / "osse"
    if force:
        sea().save(folder)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    write, calls = xr.Dataset.to_netcdf, []

    def stopped(*args, **options):
        if len(calls) == 2:
            raise stop
        calls.append(write(*args, **options))

    monkeypatch.setattr(xr.Dataset, "to_netcdf", stopped)
    with pytest.raises(type(stop) if isinstance(stop, Exception) else stop):
        sea(seed=1).save(folder, force=force)
    assert len(calls) == 2
    left = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    assert left == before
    assert len(list(tmp_path.iterdir())) == force


def test_an_interruption_while_a_file_is_written_leaves_nothing_and_no_lock(tmp_path, monkeypatch):
    write, written = xr.Dataset.to_netcdf, []

    def interrupted(dataset, path, **options):
        os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C would
        write(dataset, path, **options)
        written.append(path)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # parallel tests ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            sea().save(tmp_path / "osse")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(written) == 1  # the file was not cut in the middle, with its locks shut
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    sea().save(tmp_path / "osse")


def test_a_swap_that_fails_brings_the_old_one_back(tmp_path):
    old = sea().save(tmp_path / "osse")
    with pytest.raises(FileNotFoundError):
        disk._take_place(tmp_path / "absent", old)
    assert Experiment.load(old).seed == 0
    assert [file.name for file in tmp_path.iterdir()] == ["osse"]


def test_only_an_experiment_is_replaced_and_only_when_told(tmp_path):
    folder = tmp_path / "osse"
    folder.mkdir()
    sea().save(folder)  # an empty folder is as good as a new one
    with pytest.raises(ValueError, match="--force"):
        sea(seed=1).save(folder)
    assert Experiment.load(folder).seed == 0
    sea(seed=1).save(folder, force=True)
    assert Experiment.load(folder).seed == 1
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="notes"):
        sea(seed=2).save(folder, force=True)
    assert Experiment.load(folder).seed == 1


def test_other_folders_are_left_alone(tmp_path, monkeypatch):
    folder, file = tmp_path / "mine", tmp_path / "file"
    folder.mkdir()
    (folder / "osse.json").write_text('{"made_by": "me"}')
    file.write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for where in (folder, file, tmp_path / "no" / "parent", work, tmp_path):
        with pytest.raises(ValueError, match="expected") as refused:
            disk.check(where, force=True)
        assert "\n" not in str(refused.value)
    assert (folder / "osse.json").read_text() == '{"made_by": "me"}'


def broken(folder, how):
    index = folder / "osse.json"
    told = json.loads(index.read_text())
    if how == "truncated file":
        data = (folder / "obs_jason1.nc").read_bytes()
        (folder / "obs_jason1.nc").write_bytes(data[: len(data) // 2])
    elif how == "missing file":
        (folder / "obs_jason1.nc").unlink()
    elif how == "foreign file":
        (folder / "truth.nc").write_text("not NetCDF")
    elif how == "another truth":
        (folder / "truth.nc").write_bytes((folder / "mdt.nc").read_bytes())
    elif how == "other days":
        with xr.open_dataset(folder / "truth.nc") as truth:
            shorter = truth.isel(time=slice(0, 4)).load()
        shorter.to_netcdf(folder / "truth.nc")
    elif how == "no index":
        index.unlink()
    elif how == "truncated index":
        index.write_text(index.read_text()[:100])
    elif how == "foreign index":
        index.write_text("[1, 2]")
    elif how == "older format":
        index.write_text(json.dumps(told | {"format": 0}))
    elif how == "missing setting":
        index.write_text(json.dumps({k: v for k, v in told.items() if k != "seed"}))
    elif how == "broken calendar":
        index.write_text(json.dumps(told | {"calendar": {}}))
    return folder


@pytest.mark.parametrize(
    ("how", "word"),
    {
        "truncated file": "obs_jason1.nc",
        "missing file": "no such file",
        "foreign file": "truth.nc",
        "another truth": "'ssh' in truth.nc",
        "other days": "2012-10-03",
        "no index": "no osse.json",
        "truncated index": "broken osse.json",
        "foreign index": "foreign",
        "older format": "format 0",
        "missing setting": "'seed'",
        "broken calendar": "calendar",
    }.items(),
)
def test_a_broken_folder_is_refused_in_one_line(how, word, tmp_path):
    folder = broken(sea().save(tmp_path / "osse"), how)
    with pytest.raises(ValueError, match=r"load.*expected .*, got .*\. .*\.$") as refused:
        Experiment.load(folder)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_folder_is_no_experiment(tmp_path):
    with pytest.raises(ValueError, match="matheron osse"):
        Experiment.load(tmp_path / "nothing")
