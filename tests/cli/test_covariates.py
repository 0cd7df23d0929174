"""A temperature beside the heights, from the command line: made, learned with, mapped with."""

import json
import numpy as np
import pytest
import shutil
import xarray as xr

from matheron.compare import problem_of
from matheron.mappers import learned
from tests.learned_ocean import TINY, ocean, trained, trained_with_sst, warm_ocean

FIT = ("--window", 5, "--step", TINY["step"], "--updates", 2, "--first-guess", "none")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder to work in, with an experiment that has temperatures, and solvers."""
    monkeypatch.chdir(tmp_path)
    warm_ocean().save("osse")
    shutil.copytree(trained_with_sst(), tmp_path / "warm")
    return tmp_path


def done(ran):
    assert ran.code == 0, ran.err
    return ran


def refused(ran, *words, notes=0):
    assert ran.code == 2, ran.err
    lines = [line for line in ran.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert len(ran.err.splitlines()) == 1 + notes
    for word in words:
        assert word in lines[0]


def map_call(lab, *more):
    first, last = warm_ocean().calendar.scored
    files = sorted((lab / "osse").glob("obs_*.nc"))
    heights = ("--mdt", "osse/mdt.nc", "--quantity", "sla")
    grid = f"--grid=-65:-55:0.5,33:43:0.5,{first}:{last}:1"
    return ("map", *files, *heights, grid, "-o", "map.nc", *more)


def test_an_experiment_is_made_learned_with_and_compared(lab, cli):
    call = ("osse", "--days", 3, "--size", 16, "--sst-clouds", "-o", "small")
    ran = done(cli(*call))
    assert "- sst: " in ran.out
    assert "of it hidden" in ran.out
    with xr.open_dataset(lab / "small" / "sst.nc") as ds:
        assert 0 < float(ds.sst.isnull().mean()) < 1
    done(cli("fit", "osse", "--method", "unet", *FIT, "--covariates", "sst", "-o", "model"))
    card = json.loads((lab / "model" / "model.json").read_text())["card"]
    assert set(card["covariates"]) == {"sst"}
    ran = done(cli("compare", "osse", "--methods", "mine=model", "--step", 0.5, "-o", "board"))
    assert "mine" in ran.out


def test_a_file_of_temperatures_gives_the_map_of_the_experiment(lab, cli):
    done(cli(*map_call(lab, "--model", "warm", "--covariate", "sst=osse/sst.nc")))
    problem = problem_of(warm_ocean(), 0.5)
    found = learned(lab / "warm")(problem, print)
    anomaly = problem.grid.unflatten(found.mean - problem.shift)
    with xr.open_dataset("map.nc") as ds:
        # the mean topography is interpolated by another routine, and files hold single precision
        np.testing.assert_allclose(ds.sla.values, anomaly, atol=2e-3)
        mean = ds.sla.values
    # any grid, order of dimensions, name and units
    with xr.open_dataset("osse/sst.nc") as ds:
        other = (ds.sst + 273.15).assign_attrs(units="kelvin").rename("analysed_sst")
    other = other.transpose("lon", "lat", "time").sortby("lat", ascending=False)
    other.to_dataset().assign(analysis_error=other * 0).to_netcdf("kelvin.nc")
    done(cli(*map_call(lab, "--model", "warm", "--covariate", "sst=kelvin.nc")))
    with xr.open_dataset("map.nc") as ds:
        np.testing.assert_allclose(ds.sla.values, mean, atol=1e-4)


def test_what_does_not_fit_is_refused_in_one_line(lab, cli):
    given = ("--covariate", "sst=osse/sst.nc")
    warm = ("--model", "warm")
    refused(cli(*map_call(lab, *warm)), "expected sst", "--covariate sst=FILE")
    refused(cli(*map_call(lab, *warm, "--covariate", "sst")), "a file after '='")
    refused(cli(*map_call(lab, *warm, *given, "--covariate", "ice=x.nc")), "(sst)", "'ice'")
    refused(cli(*map_call(lab, *warm, "--covariate", "sst=nowhere.nc")), "nowhere.nc")
    refused(cli(*map_call(lab, *given)), "a trained solver with it")
    shutil.copytree(trained("unet"), lab / "plain")
    refused(cli(*map_call(lab, "--model", "plain", *given)), "(none)", "'sst'")
    with xr.open_dataset("osse/sst.nc") as ds:
        short = ds.load().isel(time=slice(0, -1))
        salt = ds.assign(sst=ds.sst.assign_attrs(units="psu"))
    short.to_netcdf("short.nc")
    salt.to_netcdf("salt.nc")
    last = warm_ocean().calendar.scored[1]
    refused(cli(*map_call(lab, *warm, "--covariate", "sst=short.nc")), f"none on {last}", notes=2)
    refused(cli(*map_call(lab, *warm, "--covariate", "sst=salt.nc")), "'psu'", notes=2)
    assert not (lab / "map.nc").exists()


def test_trainings_that_cannot_be_are_refused(lab, cli):
    ocean().save("cold")
    fit = ("fit", "cold", "--method", "unet", *FIT, "-o", "m")
    refused(cli(*fit, "--covariates", "sst"), "matheron osse --sst")
    refused(cli(*fit, "--covariates", "depth"), "expected some of sst")
    refused(
        cli("fit", "osse", "--method", "fixedpoint", *FIT, "--covariates", "sst", "-o", "m"),
        "the field alone",
    )
    refused(cli("fit", "osse", "--covariates", "sst", "-o", "m"), "4dvarnet")
    assert not (lab / "m").exists()
