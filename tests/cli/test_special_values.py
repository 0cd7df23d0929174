"""Data that are unusual but sound: each must be mapped, and as its ordinary twin is."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

GRID = "-4:4:2,36:42:2"


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    """Tries one structure only: the choice among several has its own tests."""
    from matheron.selection import choosing as selection

    whole = selection.candidates

    def first(*arguments):
        found = whole(*arguments)
        name = "Matern 3/2" if "Matern 3/2" in found else next(iter(found))
        return {name: found[name]}

    monkeypatch.setattr(selection, "candidates", first)


def mapped(cli, data, *options, grid=GRID, out="out.nc"):
    if isinstance(data, pd.DataFrame):
        data.to_parquet("data.parquet")
        data = "data.parquet"
    ran = cli("map", data, "--grid", grid, *options, "-o", out)
    assert ran.code == 0, ran.err
    with xr.open_dataset(out) as ds:
        return ds.load()


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def plain(kept, here, cli, make_tracks):
    """The map of the ordinary data, fitted once."""
    if "map" not in kept:
        kept["map"] = mapped(cli, make_tracks(), out="plain.nc")
    return kept["map"]


def close(one, two, scale=1.0, shift=0.0):
    # in single precision, and the fits stop within .02 of the highest log-likelihood
    rtol = 1e-3
    atol = rtol * float(two.ssh.std()) * scale
    np.testing.assert_allclose(one.ssh, two.ssh * scale + shift, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(one.ssh_std, two.ssh_std * scale, rtol=2 * rtol, atol=atol)


@pytest.mark.parametrize("shift", [180.0, 184.0, -177.0])
def test_the_dateline_is_nowhere(shift, here, cli, make_tracks):
    data = make_tracks()
    options = ("--model", "model")
    plain = mapped(cli, data, *options, out="plain.nc")
    lon = (data.lon + shift + 180) % 360 - 180
    low, high = shift - 4, shift + 4
    moved = mapped(cli, data.assign(lon=lon), *options, grid=f"{low}:{high}:2,36:42:2")
    np.testing.assert_allclose(moved.ssh, plain.ssh, atol=1e-6)
    np.testing.assert_allclose(moved.ssh_std, plain.ssh_std, atol=1e-6)


def test_both_branches_give_one_map(here, cli, make_tracks):
    data = make_tracks()
    west = data.assign(lon=data.lon - 60)
    east = data.assign(lon=(data.lon - 60) % 360)
    one = mapped(cli, west, grid="-64:-56:2,36:42:2", out="a.nc")
    two = mapped(cli, east, grid="296:304:2,36:42:2", out="b.nc")
    three = mapped(cli, east, grid="-64:-56:2,36:42:2", out="c.nc")
    np.testing.assert_allclose(two.ssh, one.ssh, atol=1e-6)
    np.testing.assert_allclose(three.ssh, one.ssh, atol=1e-6)


def test_a_single_day(plain, cli, make_tracks):
    data = make_tracks().assign(time="2014-05-15")
    ds = mapped(cli, data, grid=f"{GRID},2014-05-15:2014-05-15:1")
    assert ds.ssh.dims == ("time", "latitude", "longitude")
    assert abs(ds.ssh[0] - plain.ssh).max() < 0.5 * plain.ssh_std.max() + 0.1


def test_space_and_time(here, cli, make_tracks):
    data = make_tracks(60)
    data = data.assign(time=pd.Timestamp("2014-05-15") + pd.to_timedelta(np.arange(60) / 10, "D"))
    ds = mapped(cli, data, "--members", 2, grid=f"{GRID},2014-05-15:2014-05-18:1")
    assert dict(ds.sizes) == {"time": 4, "latitude": 4, "longitude": 5, "realization": 2}
    assert str(ds.time.values[0])[:10] == "2014-05-15"
    assert ds.ssh_member.notnull().all()


def test_repeated_places_are_averaged_by_their_noise(here, cli, make_tracks):
    data = make_tracks()
    twice = pd.concat([data, data.assign(ssh=data.ssh + 0.1)])
    ds = mapped(cli, twice, "--model", "model")
    plain = mapped(cli, data.assign(ssh=data.ssh + 0.05), "--model", "model", out="plain.nc")
    assert (ds.ssh_std < plain.ssh_std).all()
    assert abs(ds.ssh - plain.ssh).max() < 0.1
    mapped(cli, twice)  # and the fit finds a noise


def test_three_data(here, cli, make_tracks):
    ds = mapped(cli, make_tracks(3))
    assert ds.ssh.notnull().all()
    assert (ds.ssh_std > 0).all()


def test_a_constant_field(here, cli, make_tracks):
    ds = mapped(cli, make_tracks().assign(ssh=0.7))
    np.testing.assert_allclose(ds.ssh, 0.7, atol=1e-3)
    assert ds.ssh_std.notnull().all()
    assert (ds.ssh_std < 1e-2).all()


def test_a_row_of_nodes(here, cli, make_tracks):
    whole = mapped(cli, make_tracks(), "--model", "model")
    row = mapped(cli, make_tracks(), "--model", "model", grid="-4:4:2,38:38:1", out="row.nc")
    np.testing.assert_allclose(row.ssh[0], whole.ssh.sel(latitude=38), atol=1e-6)


def test_data_along_a_parallel(here, cli, make_tracks):
    ds = mapped(cli, make_tracks().assign(lat=40.0), grid="-4:4:1,40:40:1")
    assert ds.ssh.notnull().all()


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e6, 0.0), (1.0, 1e4)])
def test_units_do_not_matter(scale, shift, plain, cli, make_tracks):
    data = make_tracks()
    other = mapped(cli, data.assign(ssh=scale * data.ssh + shift))
    close(other, plain, scale, shift)


def test_coordinates_in_single_precision(plain, cli, make_tracks):
    data = make_tracks()
    single = data.astype({"lon": np.float32, "lat": np.float32})
    close(mapped(cli, single), plain)


def test_the_order_of_rows_does_not_matter(here, cli, make_tracks):
    data = make_tracks()
    mixed = data.sample(frac=1, random_state=0)
    one = mapped(cli, data, "--model", "model", out="a.nc")
    two = mapped(cli, mixed, "--model", "model", out="b.nc")
    np.testing.assert_allclose(one.ssh, two.ssh, atol=1e-6)


def test_missions_have_their_own_noise(here, cli, make_tracks):
    rng = np.random.default_rng(1)
    one, two = make_tracks(60), make_tracks(60, 1)
    two = two.assign(ssh=two.ssh + 0.3 * rng.standard_normal(60))
    data = pd.concat([one.assign(mission="alpha"), two.assign(mission="beta")])
    data.to_csv("missions.csv", index=False)
    ran = cli("fit", "missions.csv", "-o", "fitted")
    assert ran.code == 0, ran.err
    from matheron.cli.model import Model

    noise = Model.load(here / "fitted").noise
    assert noise["alpha"] < noise["beta"]
    ds = mapped(cli, "missions.csv", "--model", "fitted")
    assert ds.ssh.notnull().all()
    again = cli("fit", "missions.csv", "-o", "fitted", "--resume")
    assert again.code == 0, again.err
