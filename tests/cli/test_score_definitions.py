"""Scores under the definitions of the challenges, from the command line."""

import json
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pathlib import Path
from scipy.ndimage import gaussian_filter

from matheron.metrics import spectral as ms

DAYS, NODES = 21, 30


@pytest.fixture
def sea(tmp_path, monkeypatch):
    """A folder with a truth, a map of it, and tracks through it, of 1 Hz."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.standard_normal((DAYS, NODES, NODES)), (2, 2, 2))
    x = 0.2 * x / x.std()
    made = gaussian_filter(x, (0, 1, 1))
    time = np.datetime64("2017-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
    lat, lon = np.linspace(31, 45, NODES), np.linspace(-67, -53, NODES)
    for name, values in (("truth", x), ("map", made)):
        written(values, time, lat, lon).to_netcdf(f"{name}.nc")
    seconds = np.concatenate([(k + 0.5) * 43200 + 0.9434 * np.arange(175) for k in range(39)])
    dates = time[0] + (seconds * 1e6).astype("timedelta64[us]")
    at = {"lat": np.tile(32 + 6.387 * np.arange(175) / 111.195, 39), "lon": np.empty(175 * 39)}
    at["lon"] = np.repeat(rng.uniform(-65, -55, 39), 175)
    field = ms.Field(x, time, lat, lon)
    data = ms.interpolate_to_tracks(field, ms.Track(0 * seconds, dates, at["lat"], at["lon"]))
    table = pd.DataFrame(
        {"time": dates, **at, "ssh": data + 0.03 * rng.standard_normal(data.size)}
    )
    table.to_csv("tracks.csv", index=False)
    return field, ms.Field(made, time, lat, lon), table


def written(values, time, lat, lon, name="ssh", units="m"):
    coords = {"time": time, "lat": lat, "lon": lon}
    da = xr.DataArray(values, coords, ("time", "lat", "lon"), attrs={"units": units})
    da["lat"].attrs["units"], da["lon"].attrs["units"] = "degrees_north", "degrees_east"
    return da.to_dataset(name=name)


def scores(cli, *options):
    ran = cli("score", "map.nc", *options, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("name", ["odc2020a", "robust", "oceanbench"])
def test_a_map_against_the_truth(name, sea, cli):
    true, made, _ = sea
    found = scores(cli, "--truth", "truth.nc", "--definition", name)
    assert found["definition"] == name
    expected = ms.challenge_score(name, made, truth=true).to_dict()
    for key, value in expected["values"].items():
        assert float(found["values"][key]) == pytest.approx(float(value), rel=1e-6), key
    assert found["units"] == expected["units"]


@pytest.mark.parametrize("name", ["odc2021a", "ocb", "robust", "regimes"])
def test_a_map_against_tracks(name, sea, cli):
    _, made, table = sea
    found = scores(cli, "--tracks", "tracks.csv", "--definition", name)["values"]
    track = ms.Track(table.ssh, table.time.to_numpy(), table.lat, table.lon)
    expected = ms.challenge_score(name, made, tracks=track).to_dict()["values"]
    assert set(found) == set(expected)
    for key in ("mu", "sigma", "lambda_x", "all", "all_band"):
        if key in expected:
            assert found[key] == pytest.approx(expected[key], rel=1e-6), key


def test_the_table_is_printed(sea, cli):
    ran = cli("score", "map.nc", "--truth", "truth.nc", "--definition", "odc2020a")
    assert ran.code == 0
    assert ran.out.startswith("definition: odc2020a\n  mu ")
    assert "note: 21 dates" in ran.out


def test_published_rows_stand_beside(sea, cli):
    options = ("--definition", "odc2020a", "--against", "published")
    ran = cli("score", "map.nc", "--truth", "truth.nc", *options)
    assert ran.code == 0
    assert "this map" in ran.out
    assert "4DVarQG" in ran.out
    rows = [r for r in ran.out.splitlines() if "MIOST" in r]
    assert rows
    assert all("other data" in r for r in rows)
    found = scores(cli, "--truth", "truth.nc", *options)
    assert all(r["other_data"] and r["source"] for r in found["published"])
    assert {"current", "Nov 2020"} <= {r["generation"] for r in found["published"]}


def test_tracks_alone_are_a_truth_without_a_definition(sea, cli):
    plain = scores(cli, "--truth", "tracks.csv")
    assert scores(cli, "--tracks", "tracks.csv") == plain


def test_seeds_make_intervals(sea, cli):
    options = ("--tracks", "tracks.csv", "--definition", "robust")
    one, two = (scores(cli, *options, "--seed", k)["values"] for k in (0, 0))
    assert one == two


def missions():
    table = pd.read_csv("tracks.csv")
    table.assign(mission=np.where(np.arange(len(table)) % 2, "al", "c2")).to_csv("two.csv")


def anomalies():
    pd.read_csv("tracks.csv").rename(columns={"ssh": "sla"}).to_csv("two.csv", index=False)
    with xr.open_dataset("map.nc") as ds:
        ds.load().rename(ssh="adt").to_netcdf("adt.nc")


def one_date():
    with xr.open_dataset("map.nc") as ds:
        ds.load().isel(time=0, drop=True).to_netcdf("still.nc")


def late():
    with xr.open_dataset("truth.nc") as ds:
        ds = ds.load()
        ds.assign_coords(time=ds.time + np.timedelta64(900, "D")).to_netcdf("late.nc")


TRUTH, TRACKS = ("--truth", "truth.nc"), ("--tracks", "tracks.csv")
CASES = {
    "unknown": (None, ("map.nc", *TRUTH, "--definition", "mu"), "one of odc2020a, oceanbench"),
    "no truth": (None, ("map.nc", "--definition", "odc2020a"), "neither --truth nor --tracks"),
    "tracks for truth": (None, ("map.nc", *TRACKS, "--definition", "odc2020a"), "--truth FILE"),
    "truth for tracks": (None, ("map.nc", *TRUTH, "--definition", "ocb"), "--tracks FILE"),
    "both": (None, ("map.nc", *TRUTH, *TRACKS, "--definition", "robust"), "--truth and --tracks"),
    "nothing": (None, ("map.nc",), "expected one of the two, got neither"),
    "against what": (
        None,
        ("map.nc", *TRUTH, "--definition", "ocb", *TRACKS, "--against", "me"),
        "--tracks FILE",
    ),
    "another word": (
        None,
        ("map.nc", *TRUTH, "--definition", "robust", "--against", "me"),
        "expected published",
    ),
    "against alone": (None, ("map.nc", *TRUTH, "--against", "published"), "--definition"),
    "no file": (None, ("map.nc", "--truth", "a.nc", "--definition", "robust"), "no such file"),
    "two missions": (
        missions,
        ("map.nc", "--tracks", "two.csv", "--definition", "robust", "--variable", "ssh"),
        "one mission",
    ),
    "no dates": (one_date, ("still.nc", *TRUTH, "--definition", "robust"), "for each date"),
    "another year": (
        late,
        ("map.nc", "--truth", "late.nc", "--definition", "robust"),
        "Check the dates",
    ),
    "anomalies": (
        anomalies,
        ("adt.nc", "--tracks", "two.csv", "--definition", "robust"),
        "--mdt FILE",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_in_one_line(name, sea, cli):
    spoil, command, said = CASES[name]
    if spoil is not None:
        spoil()
    ran = cli("score", *command)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    line = ran.err.strip().splitlines()[-1]
    assert said in line
    assert "Traceback" not in ran.err
    assert not [p for p in Path().iterdir() if p.suffix == ".tmp"]
