"""Solvers that learn, from the command line: trained, resumed, mapped, compared, refused."""

import json
import numpy as np
import pytest
import shutil
import torch
import xarray as xr

from safetensors.torch import load_file

from matheron.compare import learning, problem_of
from matheron.fit import training
from matheron.fit.checkpoint import write_checkpoint
from matheron.mappers import learned
from tests.learned_ocean import ocean, trained

FIT = ("--window", 5, "--step", 0.5, "--updates", 6, "--first-guess", "none")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder to work in, with an experiment and a trained solver."""
    monkeypatch.chdir(tmp_path)
    ocean().save("osse")
    shutil.copytree(trained("unet"), tmp_path / "model")
    return tmp_path


def done(ran):
    assert ran.code == 0, ran.err
    return ran


def refused(ran, *words):
    assert ran.code == 2, ran.err
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def tracks(folder, variable="sla"):
    """Writes the data of one satellite as anomalies."""
    with xr.open_dataset(folder / "osse" / "obs_jason1.nc") as ds:
        name = next(k for k in ds if "ssh" in k)
        table = ds[[name]].to_dataframe().reset_index()[["time", "lat", "lon", name]]
    table = table.rename(columns={name: variable}).dropna()
    table[variable] -= table[variable].mean()
    table.to_csv(folder / "tracks.csv", index=False)
    return table


def test_a_training_that_is_cut_off_goes_on_to_the_same_weights(lab, cli, monkeypatch):
    whole = done(cli("fit", "osse", "--method", "unet", *FIT, "-o", "whole"))
    assert "on the days held out: rmse" in whole.out
    assert {p.name for p in (lab / "whole").iterdir()} == {"model.json", "weights.safetensors"}
    kept = []

    def stopped(*arguments):
        write_checkpoint(*arguments)
        kept.append(arguments)
        if len(kept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_checkpoint", stopped)
    assert cli("fit", "osse", "--method", "unet", *FIT, "-o", "cut").code == 1
    assert {p.name for p in (lab / "cut").iterdir()} == {
        "plan.json",
        "run.safetensors",
        "oceans.safetensors",
    }
    refused(cli("fit", "osse", "--method", "unet", *FIT, "-o", "cut"), "--resume")
    refused(
        cli("fit", "osse", "--method", "unet", "--updates", 9, "--resume", "-o", "cut"),
        "as it began with",
    )
    # what was asked for is known
    done(cli("fit", "osse", "--method", "unet", "--resume", "-o", "cut"))
    one, other = (load_file(lab / k / "weights.safetensors") for k in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)
    again = done(cli("fit", "osse", "--method", "unet", "--resume", "-o", "cut"))
    assert again.out.startswith("unet on gulfstream")
    card = json.loads((lab / "cut" / "model.json").read_text())["card"]
    assert "--updates 6" in card["command"]  # the command that began it


def test_the_minutes_choose_the_updates(lab, cli):
    ran = done(
        cli(
            "fit", "osse", "--method", "unet", *FIT[:4], *FIT[6:], "--minutes", 1e-3, "-o", "quick"
        )
    )
    assert "20 updates in 0.001 minutes" in ran.err
    card = json.loads((lab / "quick" / "model.json").read_text())["card"]
    assert card["command"].startswith("matheron fit osse --method unet")
    assert "20 updates" in card["notes"]


def test_a_training_begins_with_the_weights_of_another(lab, cli, monkeypatch):
    drawn = learning.train

    def seen(solver, *arguments, **options):
        begun.append({k: v.clone() for k, v in solver.named_parameters()})
        return drawn(solver, *arguments, **options)

    begun = []
    done(cli("fit", "osse", "--method", "unet", *FIT, "--seed", 1, "-o", "one"))
    monkeypatch.setattr(learning, "train", seen)
    done(cli("fit", "osse", "--method", "unet", *FIT, "--from", "one", "-o", "next"))
    known = dict(learned(lab / "one").model.solver.named_parameters())
    assert all(torch.equal(v, known[k]) for k, v in begun[0].items())
    ran = cli("fit", "osse", "--method", "unet", *FIT, "--from", "model", "-o", "other")
    assert ran.code == 2
    assert "Name a model of the same method" in ran.err


def test_the_law_of_a_field_is_learned_beside_a_solver(lab, cli):
    fit = ("fit", "osse", "--step", 0.5, "--method", "4dvarnet-spde", "--law-updates", 3)
    ran = done(cli(*fit, "--from", "model", "-o", "lawful"))
    assert "with the law of its field" in ran.out
    assert {p.name for p in (lab / "lawful").iterdir()} == {"model.json", "weights.safetensors"}
    first = str(tracks(lab)["time"].iloc[0])[:10]
    spans = f"--grid=-64:-58:0.5,34:40:0.5,{first}:{first}:1"
    for name in ("model", "lawful"):
        done(cli("map", "tracks.csv", spans, "--model", name, "-o", f"{name}.nc"))
    with xr.open_dataset("model.nc") as alone, xr.open_dataset("lawful.nc") as lawful:
        names = [k for k in alone if k.endswith("_std")]
        assert np.array_equal(alone[names[0][:-4]], lawful[names[0][:-4]])
        assert not np.allclose(alone[names[0]], lawful[names[0]])
    blind = ("--supervision", "data", "-o", "x")
    refused(cli("fit", "osse", "--method", "4dvarnet-spde", *blind), "expected truth")


def test_a_trained_solver_maps_tracks(lab, cli):
    table = tracks(lab)
    first = str(table["time"].iloc[len(table) // 2])[:10]
    spans = f"-65:-55:0.5,33:43:0.5,{first}:{first}:1"
    model = ("--model", "model", f"--grid={spans}", "--members", 3)
    done(cli("map", "tracks.csv", *model, "-o", "map.nc"))
    with xr.open_dataset("map.nc") as ds:
        assert ds.sla.shape[-2:] == (21, 21)
        assert float(ds.sla_std.min()) > 0
        assert ds.sla_member.sizes["realization"] == 3
        assert ds.attrs["model"].startswith("unet on gulfstream")
        mean = ds.sla.values
    table.sample(frac=1, random_state=0).to_csv("tracks.csv", index=False)
    done(cli("map", "tracks.csv", *model, "-o", "again.nc"))
    with xr.open_dataset("again.nc") as ds:
        np.testing.assert_allclose(ds.sla.values, mean, atol=1e-5)


def test_files_of_an_experiment_give_the_map_of_its_row(lab, cli):
    problem = problem_of(ocean(), 0.5)
    first, last = ocean().calendar.scored
    files = sorted((lab / "osse").glob("obs_*.nc"))
    heights = ("--mdt", "osse/mdt.nc", "--quantity", "sla")
    grid = f"--grid=-65:-55:0.5,33:43:0.5,{first}:{last}:1"
    done(cli("map", *files, "--model", "model", *heights, grid, "-o", "map.nc"))
    found = learned(lab / "model")(problem, print)
    anomaly = problem.grid.unflatten(found.mean - problem.shift)
    with xr.open_dataset("map.nc") as ds:
        # the mean topography is interpolated by another routine, and files hold single precision
        np.testing.assert_allclose(ds.sla.values, anomaly, atol=2e-3)
        np.testing.assert_allclose(
            ds.sla_std.values, problem.grid.unflatten(found.std()), rtol=1e-4
        )


@pytest.mark.parametrize(
    ("variable", "options", "words"),
    [
        ("adt", (), ("sea level anomalies", "--mdt FILE --quantity sla")),
        ("sst", (), ("sea level anomalies", "'sst'")),
        ("sla", ("--method", "kriging"), ("a method of its own",)),
    ],
)
def test_data_that_do_not_fit_are_refused(variable, options, words, lab, cli):
    tracks(lab, variable)
    grid = "--grid=-65:-55:0.5,33:43:0.5,2012-10-04:2012-10-05:1"
    refused(cli("map", "tracks.csv", "--model", "model", grid, *options, "-o", "map.nc"), *words)
    assert not (lab / "map.nc").exists()


def test_a_broken_model_is_refused(lab, cli):
    tracks(lab)
    weights = lab / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refused(cli("map", "tracks.csv", "--model", "model", "--grid=same", "-o", "map.nc"), "model")


def test_a_trained_solver_has_a_row(lab, cli):
    ran = done(cli("compare", "osse", "--methods", "mine=model", "--step", 0.5, "-o", "board"))
    assert "mine" in ran.out
    assert (lab / "board" / "leaderboard.csv").exists()


def test_an_unknown_model_is_told_the_solvers_of_the_library(lab, cli):
    tracks(lab)
    call = ("map", "tracks.csv", "--model", "gulfstrem", "--grid=0:1:1,0:1:1", "-o", "map.nc")
    refused(cli(*call), "gulfstrem", "gulfstream-unet", "lorenz63")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("compare", "osse", "--methods", "oi=model"), ("a new name",)),
        (("compare", "osse", "--methods", "mine=nowhere"), ("nowhere",)),
        (("compare", "osse", "--methods", "mine="), ("a folder after '='",)),
        (("compare", "osse", "--methods", "mine=model,mine=model"), ("each name once",)),
        (("fit", "tracks.csv", "--method", "unet", "-o", "m"), ("matheron osse --train",)),
        (("fit", "osse", "--method", "spde", "--updates", 3, "-o", "m"), ("4dvarnet",)),
        (("fit", "osse", "--method", "unet", "--trend", "1", "-o", "m"), ("other methods",)),
        (("fit", "osse", "--method", "unet", "--window", 4, "-o", "m"), ("odd number",)),
        (("fit", "osse", "--method", "unet", "--minutes", -1, "-o", "m"), ("positive",)),
        (("fit", "osse", "--method", "unet", "--precision", "8", "-o", "m"), ("bf16",)),
        (("fit", "osse", "--method", "unet", "--accelerator", "tpu", "-o", "m"), ("gpu",)),
        (("fit", "osse", "--precision", "bf16", "-o", "m"), ("4dvarnet",)),
        (
            ("fit", "osse", "--method", "unet", "--minutes", 1, "--updates", 3, "-o", "m"),
            ("one of them",),
        ),
    ],
)
def test_bad_calls_are_refused_in_one_line(call, words, lab, cli):
    refused(cli(*call), *words)
    assert not (lab / "m").exists()


def test_half_precision_learns_much_the_same(lab, cli):
    fit = ("fit", "osse", "--method", "4dvarnet", *FIT)
    done(cli(*fit, "-o", "full"))
    done(cli(*fit, "--precision", "bf16", "--accelerator", "cpu", "-o", "half"))
    full, half = (load_file(lab / k / "weights.safetensors") for k in ("full", "half"))
    moved = [(full[k] - half[k]).abs().max() for k in full if k.startswith("solver.")]
    assert all(half[k].dtype == full[k].dtype for k in full)
    # six steps of Adam, each of the learning rate at most, whatever the gradient
    assert 0 < max(moved) < 6 * 2 * 1.5e-3


def test_a_solver_of_the_library_is_found_by_its_name(lab, cli):
    table = tracks(lab)
    day = str(table["time"].iloc[len(table) // 2])[:10]
    grid = f"--grid=-65:-55:0.5,33:43:0.5,{day}:{day}:1"
    done(cli("map", "tracks.csv", "--model", "gulfstream-unet", grid, "-o", "map.nc"))
    with xr.open_dataset("map.nc") as ds:
        assert ds.attrs["model"].startswith("unet on gulfstream, 4nadirs")
        assert 0.02 < float(ds.sla.std()) < 1
