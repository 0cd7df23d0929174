"""The commands on small data: what they write, that they repeat, and that they can be stopped."""

import json
import numpy as np
import pandas as pd
import pytest
import sys
import torch
import xarray as xr

from pathlib import Path

GRID = "-4:4:2,36:42:2"


@pytest.fixture(autouse=True)
def one_candidate(monkeypatch):
    """Tries one structure only: the choice among several has its own tests."""
    from matheron.selection import choosing as selection

    whole = selection.candidates

    def first(*arguments):
        found = whole(*arguments)
        name = "Matern 3/2" if "Matern 3/2" in found else next(iter(found))
        return {name: found[name]}

    monkeypatch.setattr(selection, "candidates", first)


def opened(path):
    with xr.open_dataset(path) as ds:
        return ds.load()


def done(ran):
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    return ran


def map_of(cli, *options, file="tracks.csv", grid=GRID, out="out.nc"):
    done(cli("map", file, *(("--grid", grid) if grid else ()), *options, "-o", out))
    return opened(out) if str(out).endswith(".nc") else None


def dense(data, lon, lat):
    """Kriging by the textbook, with the model of ``save_model``: mean and std of the field."""
    import matheron as mt

    points, nodes = mt.Points(lat=data.lat, lon=data.lon), mt.Points(lat=lat, lon=lon)
    kernel = mt.Matern(1.5, 0.5, 200e3)
    center = nodes.center
    a, b = points.cartesian(center), nodes.cartesian(center)
    with torch.no_grad():
        K, k, k0 = kernel(a, a), kernel(a, b), kernel(b, b).diagonal()
    K = K + 0.01 * torch.eye(len(K)).double()
    y = torch.tensor(data.ssh.to_numpy())
    one = torch.ones(len(y), 1).double()
    info = one.mT @ torch.linalg.solve(K, one)
    beta = (one.mT @ torch.linalg.solve(K, y[:, None])) / info
    w = torch.linalg.solve(K, k)
    left = 1 - one.mT @ w
    mean = beta[0] + (w.mT @ (y - beta[0]))
    variance = k0 - (k * w).sum(0) + (left.square() / info)[0]
    return mean.numpy(), variance.sqrt().numpy()


def test_info_says_what_is_in_a_file(here, cli):
    ran = done(cli("info", "tracks.csv", "map.nc"))
    assert "40 of 40" in ran.out
    assert "ssh" in ran.out
    assert ran.err == ""


def test_a_map_is_kriging(here, cli):
    ds = map_of(cli, "--model", "model", "--members", 3)
    assert list(ds) == ["ssh", "ssh_std", "ssh_obs_std", "ssh_member"]
    assert ds.ssh.dims == ("latitude", "longitude")
    assert ds.ssh_member.dims == ("realization", "latitude", "longitude")
    assert dict(ds.sizes) == {"latitude": 4, "longitude": 5, "realization": 3}
    lat, lon = np.meshgrid(ds.latitude, ds.longitude, indexing="ij")
    mean, std = dense(pd.read_csv("tracks.csv"), lon.ravel(), lat.ravel())
    # maps are written in single precision
    np.testing.assert_allclose(ds.ssh.values.ravel(), mean, atol=1e-6)
    np.testing.assert_allclose(ds.ssh_std.values.ravel(), std, atol=1e-6)
    np.testing.assert_allclose(ds.ssh_obs_std**2, ds.ssh_std**2 + 0.01, atol=1e-6)
    assert ds.attrs["command"].startswith("matheron map tracks.csv")
    assert ds.attrs["Conventions"] == "CF-1.8"


def test_members_have_the_law_of_the_map(here, cli):
    size = 4000
    ds = map_of(cli, "--model", "model", "--members", size)
    error = (ds.ssh_member.mean("realization") - ds.ssh) / (ds.ssh_std / size**0.5)
    assert abs(error).max() < 5  # standard errors of a mean
    ratio = ds.ssh_member.var("realization") / ds.ssh_std**2
    assert abs(ratio - 1).max() < 5 * (2 / size) ** 0.5  # and of a variance


def test_a_seed_is_a_map(here, cli):
    options = ("--members", 2, "--seed")
    one, two = (map_of(cli, *options, 7, out=f"{k}.nc") for k in "ab")
    other = map_of(cli, "--model", "model", *options, 8, out="c.nc")
    again = map_of(cli, "--model", "model", *options, 7, out="d.nc")
    xr.testing.assert_equal(one, two)
    assert not np.allclose(other.ssh_member, again.ssh_member)
    np.testing.assert_array_equal(other.ssh, again.ssh)


def test_a_map_without_members(here, cli):
    ds = map_of(cli, "--model", "model")
    assert list(ds) == ["ssh", "ssh_std", "ssh_obs_std"]


@pytest.mark.parametrize("method", ["kriging", "vecchia", "taper", "inducing"])
def test_each_method_maps(method, here, cli):
    Path("run.toml").write_text("neighbors = 40\nprediction_neighbors = 60\nradius = 1000.0\n")
    options = ("--model", "model", "--method", method, "--config", "run.toml")
    one, exact = map_of(cli, *options), map_of(cli, "--model", "model", out="exact.nc")
    assert one.attrs["solver"] == method
    np.testing.assert_allclose(one.ssh, exact.ssh, atol=1e-3)
    np.testing.assert_allclose(one.ssh_std, exact.ssh_std, atol=1e-3)


def test_grid_same_and_grid_of_a_file_agree(here, cli):
    field = opened("truth.nc").ssh
    gappy = field.where(np.arange(field.size).reshape(field.shape) % 3 > 0)
    gappy.to_dataset().to_netcdf("gappy.nc")
    same = map_of(cli, "--model", "model", file="gappy.nc", grid="same")
    other = map_of(cli, "--model", "model", file="gappy.nc", grid="truth.nc", out="b.nc")
    assert same.ssh.notnull().all()  # the gaps are filled
    np.testing.assert_array_equal(same.ssh, other.ssh)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_points_keep_their_table(suffix, here, cli):
    points = pd.read_csv("points.csv").assign(name=list("abcde"))
    if suffix == "csv":
        points.to_csv("at.csv", index=False)
    else:
        points.to_parquet("at.parquet")
    map_of(
        cli,
        "--model",
        "model",
        "--at",
        f"at.{suffix}",
        "--members",
        2,
        grid=None,
        out=f"out.{suffix}",
    )
    made = pd.read_csv("out.csv") if suffix == "csv" else pd.read_parquet("out.parquet")
    kept, new = ["lon", "lat", "name"], ["ssh", "ssh_std", "ssh_obs_std"]
    assert list(made) == [*kept, *new, "ssh_member_0", "ssh_member_1"]
    pd.testing.assert_frame_equal(made[kept], points)
    mean, std = dense(pd.read_csv("tracks.csv"), points.lon, points.lat)
    np.testing.assert_allclose(made.ssh, mean, atol=1e-9)
    np.testing.assert_allclose(made.ssh_std, std, atol=1e-9)


def test_a_fit_can_be_mapped_and_resumed(here, cli):
    ran = done(cli("fit", "tracks.csv", "--trend", "1", "-o", "fitted"))
    assert "Matern" in ran.out
    assert sorted(p.name for p in Path("fitted").iterdir()) == ["model.json", "model.safetensors"]
    first = map_of(cli, "--model", "fitted")
    direct = map_of(cli, "--trend", "1", out="direct.nc")
    assert (abs(first.ssh - direct.ssh) < 0.2 * first.ssh_std).all()  # other blocks held out
    done(cli("fit", "tracks.csv", "-o", "fitted", "--resume"))
    again = map_of(cli, "--model", "fitted", out="again.nc")
    assert (abs(first.ssh - again.ssh) < 0.2 * first.ssh_std).all()  # likelier by a hair


def quick_spde(*more):
    return ("--method", "spde", "--alpha", 2, "--trend", "1", *more)


def test_a_markov_model_is_fitted_mapped_and_resumed(here, cli):
    direct = map_of(cli, *quick_spde("--members", 2), out="direct.nc")
    assert direct.attrs["solver"].startswith("SparseCholesky")
    assert direct.parameter_lengthscale.shape[2:] == (2, 2)
    done(cli("fit", "tracks.csv", *quick_spde(), "-o", "fitted"))
    assert sorted(p.name for p in Path("fitted").iterdir()) == ["model.json", "model.safetensors"]
    first, same = (map_of(cli, "--model", "fitted", out=f"{k}.nc") for k in "ab")
    np.testing.assert_array_equal(first.ssh, same.ssh)
    # on another lattice, and fits stop within .3 of the highest log-likelihood
    assert (abs(first.ssh - direct.ssh) < 0.3 * first.ssh_std).all()
    done(cli("fit", "tracks.csv", "-o", "fitted", "--resume"))
    again = map_of(cli, "--model", "fitted", out="again.nc")
    assert (abs(first.ssh - again.ssh) < first.ssh_std).all()
    done(cli("report", "direct.nc", "-o", "direct.html"))
    assert 'img alt="Lengthscale"' in Path("direct.html").read_text(encoding="utf-8")


def test_a_markov_model_is_that_of_its_prior(here, cli, make_markov):
    law = make_markov("model")
    ds = map_of(cli, "--model", "model")
    import matheron as mt

    data = pd.read_csv("tracks.csv")
    points = mt.Points(lat=data.lat, lon=data.lon)
    grid = mt.Grid(lat=[36.0, 38.0, 40.0, 42.0], lon=[-4.0, -2.0, 0.0, 2.0, 4.0])
    prior = law.prior(grid, points, "1")
    seen = mt.PointObservation(grid, points, 0.1)
    posterior = mt.SparseCholesky()(prior, seen)(torch.tensor(data.ssh.to_numpy()))
    np.testing.assert_allclose(ds.ssh.values.ravel(), posterior.mean, atol=1e-6)
    np.testing.assert_allclose(ds.ssh_std.values.ravel(), posterior.std(), atol=1e-6)


def test_days_beyond_the_data_are_forecast(here, cli, make_moving):
    make_moving("model")
    data = pd.read_csv("tracks.csv")
    days = pd.Timestamp("2014-05-15") + pd.to_timedelta(np.arange(len(data)) % 4, "D")
    data.assign(time=days).to_csv("dated.csv", index=False)
    options = {"file": "dated.csv", "grid": f"{GRID},2014-05-18:2014-05-30:1"}
    ds = map_of(cli, "--model", "model", **options)
    std = ds.ssh_std.mean(("latitude", "longitude")).values
    assert (np.diff(std) > 0).all()
    assert str(ds.time.values[-1])[:10] == "2014-05-30"
    assert ds.parameter_velocity.attrs["units"] == "m s-1"
    # it comes to the variance of the field, whose trend is known to some .3
    assert 0.9 < std[-1] ** 2 / 0.5 < 1.4
    done(cli("report", "out.nc", "-o", "moving.html"))
    assert 'img alt="Velocity"' in Path("moving.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ugos", "adt"])
def test_a_velocity_is_read_from_a_file(kind, here, cli):
    lat, lon = np.linspace(30, 50, 21), np.linspace(-10, 10, 21)
    fields = {
        "ugos": (("lat", "lon"), np.full((21, 21), 0.1), {"units": "m/s"}),
        "vgos": (("lat", "lon"), np.full((21, 21), 0.0), {"units": "m/s"}),
    }
    if kind == "adt":  # a slope to the south carries to the east
        slope = np.broadcast_to(-1e-2 * (lat - 40)[:, None], (21, 21))
        fields = {"adt": (("lat", "lon"), slope, {"units": "m"})}
    xr.Dataset(fields, {"lat": lat, "lon": lon}).to_netcdf("currents.nc")
    data = pd.read_csv("tracks.csv")
    days = pd.Timestamp("2014-05-15") + pd.to_timedelta(np.arange(len(data)) % 4, "D")
    data.assign(time=days).to_csv("dated.csv", index=False)
    options = {"file": "dated.csv", "grid": f"{GRID},2014-05-15:2014-05-19:1"}
    carried = ("--method", "advection-diffusion", "--velocity", "currents.nc", "--trend", "1")
    ds = map_of(cli, *carried, **options)
    north, east = ds.parameter_velocity.values.reshape(-1, 2).T
    assert np.allclose(north, 0, atol=1e-6)
    # g / f times a slope of 1 cm per degree, at 39 degrees: 0.0096 m/s
    assert np.allclose(east, 0.1 if kind == "ugos" else 0.0096, rtol=0.1)
    done(cli("fit", "dated.csv", *carried, "-o", "fitted"))
    again = map_of(cli, "--model", "fitted", out="again.nc", **options)
    # the lattices differ: one covers the data, one the map too
    assert float((((again.ssh - ds.ssh) / ds.ssh_std) ** 2).mean()) < 0.5**2
    np.testing.assert_allclose(again.parameter_velocity, ds.parameter_velocity)


@pytest.mark.slow
def test_the_demonstration_runs_through(here, cli):
    ran = done(cli("demo", "-o", "demo"))
    assert "spde" in ran.out
    scores = json.loads(Path("demo/scores.json").read_text())
    assert scores["spde"]["crps"] < 1.1 * scores["Gaussian process"]["crps"]
    made = {p.name for p in Path("demo").iterdir()}
    assert {"map.nc", "spde.nc", "map.html", "spde.html"} <= made


def test_the_command_line_overrides_the_file(here, cli):
    Path("run.toml").write_text("seed = 5\nmethod = 'kriging'\n")
    options = ("--model", "model", "--members", 1, "--config", "run.toml")
    ds = map_of(cli, *options)
    assert (ds.attrs["seed"], ds.attrs["solver"]) == (5, "kriging")
    ds = map_of(cli, *options, "--seed", 0, "--method", "auto")
    assert ds.attrs["seed"] == 0
    assert ds.attrs["solver"].startswith("Kriging: exact")


def test_a_fit_resumed_from_nothing_starts_anew(here, cli):
    done(cli("fit", "tracks.csv", "-o", "fitted", "--resume", "--method", "kriging"))
    assert Path("fitted/model.json").exists()


def test_scores_are_those_of_the_definition(here, cli):
    ran = done(cli("score", "map.nc", "--truth", "truth.nc", "--json"))
    scores = json.loads(ran.out)
    assert scores["count"] == 20
    assert scores["bias"] == pytest.approx(0.05, abs=1e-6)
    assert scores["rmse"] == pytest.approx(0.05, abs=1e-6)
    # at half a std from the mean: s [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)], z = 1/2
    crps = 0.1 * (0.5 * 0.3829249225 + 2 * 0.3520653268 - 0.5641895835)
    assert scores["crps"] == pytest.approx(crps, abs=1e-6)
    assert scores["coverage_90"] == 1
    assert "root mean square error" in done(cli("score", "map.nc", "--truth", "truth.nc")).out


def test_a_map_is_scored_against_data(here, cli):
    ran = done(cli("score", "map.nc", "--truth", "tracks.csv", "--json"))
    scores = json.loads(ran.out)
    assert scores["against"].startswith("data")
    assert scores["count"] == 40


def test_scores_by_distance_cover_every_truth(here, cli):
    ran = done(
        cli("score", "map.nc", "--truth", "truth.nc", "--observations", "tracks.csv", "--json")
    )
    rows = json.loads(ran.out)["by_distance"]
    assert sum(row["count"] for row in rows) == 20


def test_tables_are_scored_in_any_order(here, cli):
    data = pd.read_csv("tracks.csv")
    made = data.assign(ssh=data.ssh + 0.1, ssh_std=0.1, ssh_obs_std=0.2)
    made.sample(frac=1, random_state=0).to_csv("made.csv", index=False)
    data.assign(lon=data.lon % 360).to_csv("true.csv", index=False)
    scores = json.loads(done(cli("score", "made.csv", "--truth", "true.csv", "--json")).out)
    assert scores["count"] == 40
    assert scores["rmse"] == pytest.approx(0.1, abs=1e-9)


def test_a_report_is_one_page(here, cli):
    done(
        cli(
            *("report", "map.nc", "--truth", "truth.nc"),
            *("--observations", "tracks.csv", "-o", "report.html"),
        )
    )
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.count("data:image") >= 4
    assert "root mean square error" in page


MAP = ("map", "tracks.csv", "--model", "model", "--grid", GRID, "-o", "o.nc")
STEPS = {
    "choosing": (
        "matheron.cli.mapping.choose",
        ("map", "tracks.csv", "--grid", GRID, "-o", "o.nc"),
    ),
    "conditioning": ("matheron.cli.mapping._fields", MAP),
    "writing a map": ("xarray.Dataset.to_netcdf", MAP),
    "writing a table": (
        "pandas.DataFrame.to_csv",
        ("map", "tracks.csv", "--model", "model", "--at", "points.csv", "-o", "o.csv"),
    ),
    "writing a model": ("matheron.cli.model.save_file", ("fit", "tracks.csv", "-o", "fitted")),
    "ending a model": ("matheron.cli.model.json.dumps", ("fit", "tracks.csv", "-o", "fitted")),
    "drawing": ("matheron.report.build.page", ("report", "map.nc", "-o", "o.html")),
}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError("no space")], ids=repr)
@pytest.mark.parametrize("step", STEPS)
def test_a_command_that_is_stopped_leaves_nothing(step, stop, here, cli, monkeypatch):
    name, command = STEPS[step]

    def stopped(*_args, **_options):
        raise stop

    monkeypatch.setattr(name, stopped)
    before = sorted(here.rglob("*"))
    ran = cli(*command)
    assert ran.code == 1
    said = "interrupted" if stop is KeyboardInterrupt else "no space"
    assert ran.err.splitlines()[-1].startswith(f"matheron: {said}")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["", "demo", "info", "fit", "map", "score", "report"])
def test_help_shows_an_example(command, here, cli):
    ran = done(cli(*command.split(), "--help"))
    assert "Usage: matheron" in ran.out
    assert not command or f"Example: matheron {command} " in ran.out


def test_a_warning_is_a_note_of_one_line(here, cli, monkeypatch):
    import warnings

    def warn(*_args):
        warnings.simplefilter("always")
        warnings.warn("something\nodd", stacklevel=1)
        return "done"

    app = sys.modules["matheron.cli.app"]  # the package names the parser likewise
    monkeypatch.setattr(app, "describe", lambda *_args, **_names: warn())
    assert done(cli("info", "tracks.csv")).err == "note: something odd\n"
