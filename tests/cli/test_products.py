"""Sea levels on the command line: mean topographies, L4 products, the command that fetches."""

import numpy as np
import pandas as pd
import pytest
import shlex
import subprocess
import xarray as xr

from matheron.cli import fetch as fetching

GRID = ("--grid", "-4:4:2,36:42:2", "--model", "model")


@pytest.fixture
def sea(here, make_model, make_tracks):
    """A folder with anomalies, their mean topography, and models of both."""
    data = make_tracks().rename(columns={"ssh": "sla"})
    data.assign(mdt=0.5 + 0.01 * data.lat).to_csv("sla.csv", index=False)
    lat, lon = np.arange(30.0, 46.0), np.arange(-10.0, 11.0)
    field = np.broadcast_to(0.5 + 0.01 * lat[:, None], (lat.size, lon.size))
    ds = xr.Dataset({"mdt": (("lat", "lon"), field, {"units": "m"})}, {"lat": lat, "lon": lon})
    ds.to_netcdf("mdt.nc")
    return here


def done(ran):
    assert ran.code == 0, ran.err
    return ran


def refused(ran, *words):
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def opened(path):
    with xr.open_dataset(path) as ds:
        return ds.load()


def mapped(cli, *options):
    done(cli("map", "sla.csv", *GRID, *options, "-o", "out.nc"))
    return opened("out.nc")


@pytest.mark.parametrize("mdt", ["mdt.nc", "mdt"])
def test_a_map_of_topography_is_that_of_the_data_with_their_mean(sea, cli, mdt):
    data = pd.read_csv("sla.csv")
    data.assign(sla=data.sla + data.mdt).rename(columns={"sla": "adt", "mdt": "m"}).to_csv(
        "adt.csv", index=False
    )
    done(cli("map", "adt.csv", *GRID, "--variable", "adt", "-o", "direct.nc"))
    ds = mapped(cli, "--mdt", mdt)
    np.testing.assert_allclose(ds.adt, opened("direct.nc").adt, atol=1e-6)
    assert ds.adt.attrs["standard_name"] == "sea_surface_height_above_geoid"


def test_an_l4_product(sea, cli):
    ds = mapped(cli, "--mdt", "mdt.nc", "--product", "l4", "--currents", "--pack", "--members", 2)
    assert {"adt", "err_adt", "ugos", "vgos", "adt_member"} <= set(ds)
    assert ds.adt.encoding["scale_factor"] == 1e-4
    assert ds.adt.encoding["dtype"] == np.dtype("int32")
    assert "sla.csv sha256:" in ds.attrs["input_files"]
    assert ds.attrs["history"].endswith("-o out.nc")
    whole = mapped(cli, "--mdt", "mdt.nc", "--members", 2)
    np.testing.assert_allclose(ds.adt, whole.adt, atol=0.5e-4 + 1e-6)
    np.testing.assert_allclose(ds.err_adt, whole.adt_std, atol=0.5e-4 + 1e-6)


def test_an_l4_product_of_anomalies(sea, cli):
    assert {"sla", "err_sla", "ugosa", "vgosa"} <= set(
        mapped(cli, "--product", "l4", "--currents")
    )


def test_a_product_is_scored_and_reported_as_a_map_is(sea, cli):
    mapped(cli, "--mdt", "mdt.nc", "--product", "l4", "--currents", "--pack", "--members", 2)
    assert "CRPS" in done(cli("score", "out.nc", "--truth", "out.nc", "--variable", "adt")).out
    done(cli("report", "out.nc", "-o", "page.html"))
    assert (sea / "page.html").stat().st_size > 0


def test_a_height_must_say_what_it_is(sea, cli):
    pd.read_csv("sla.csv").rename(columns={"sla": "ssh"}).to_csv("sla.csv", index=False)
    ran = cli("map", "sla.csv", *GRID, "--product", "l4", "-o", "out.nc")
    refused(ran, "expected adt or sla, got 'ssh'", "--quantity")
    assert "adt" in mapped(cli, "--product", "l4", "--quantity", "adt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--product", "l5"), "expected field or l4"),
        (("--currents",), "Add --product l4"),
        (("--lwe", "maybe"), "keep or remove"),
        (("--lwe", "remove"), "a column 'lwe'"),
        (("--quantity", "adt"), "Add --mdt FILE"),
        (("--quantity", "ssh"), "expected adt or sla"),
        (("--mdt", "absent.nc"), "no such file"),
        (("--mdt", "truth.nc"), "a mean dynamic topography, got 'ssh'"),
    ],
)
def test_bad_options_are_one_line(sea, cli, options, words):
    ran = cli("map", "sla.csv", *GRID, *options, "-o", "out.nc")
    refused(ran, words)


def test_a_model_of_anomalies_is_not_for_topographies(sea, cli):
    from matheron.cli.model import Model

    model = Model.load(sea / "model")
    model.variable = "sla"
    model.save(sea / "anomalies")
    options = ("--grid", GRID[1], "--model", "anomalies", "-o", "out.nc")
    done(cli("map", "sla.csv", *options))
    ran = cli("map", "sla.csv", "--mdt", "mdt.nc", *options)
    refused(ran, "expected sla, as the model was fitted on, got adt")


# fetch


@pytest.mark.parametrize(
    ("product", "dataset"),
    [
        ("l4", "cmems_obs-sl_glo_phy-ssh_my_allsat-l4-duacs-0.125deg_P1D"),
        ("l3-j3", "cmems_obs-sl_glo_phy-ssh_my_j3-l3-duacs_PT1S"),
        ("L3-NRT-s6a-lr", "cmems_obs-sl_glo_phy-ssh_nrt_s6a-lr-l3-duacs_PT1S"),
    ],
)
def test_the_command_is_printed_and_not_run(here, cli, monkeypatch, product, dataset):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("it was run"))
    ran = done(
        cli("fetch", product, "--box=295:305,33:43", "--start", "2017-01-01", "-o", "a b.nc")
    )
    words = shlex.split(ran.out)
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["copernicusmarine", "subset"]
    assert pairs["--dataset-id"] == dataset
    assert (pairs["--minimum-longitude"], pairs["--maximum-longitude"]) == ("-65", "-55")
    assert (pairs["--minimum-latitude"], pairs["--maximum-latitude"]) == ("33", "43")
    assert (pairs["--start-datetime"], pairs["--output-filename"]) == ("2017-01-01", "a b.nc")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("l5",), "expected one of l4, l4-nrt"),
        (("l3-j9",), "j3"),
        (("l3-SAT",), "got 'l3-SAT'"),
        (("l4", "--box", "3"), "lon0:lon1,lat0:lat1"),
        (("l4", "--box=5:3,40:41"), "lon0:lon1,lat0:lat1"),
        (("l4", "--start", "yesterday"), "expected a date"),
        (("l4", "--start", "2017-02-01", "--end", "2017-01-01"), "an end after"),
        (("mdt", "--start", "2017-02-01"), "no dates"),
        (("l4", "-o", "nowhere/a.nc"), "mkdir -p nowhere"),
    ],
)
def test_bad_requests_are_one_line(here, cli, arguments, words):
    refused(cli("fetch", *arguments), words)


def test_it_is_run_only_if_installed(here, cli, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    refused(cli("fetch", "l4", "--run"), "pip install copernicusmarine")


@pytest.mark.parametrize("code", [0, 3])
def test_it_is_run_if_asked_for(here, cli, monkeypatch, code):
    seen = []
    monkeypatch.setattr(fetching.shutil, "which", lambda name: "/bin/" + name)
    monkeypatch.setattr(
        fetching.subprocess,
        "run",
        lambda command, **_: seen.append(command) or subprocess.CompletedProcess(command, code),
    )
    ran = cli("fetch", "mdt", "--run")
    assert ran.code == (1 if code else 0)
    assert seen[0][:2] == ["/bin/copernicusmarine", "subset"]
