"""Bad input: one line on stderr that names the argument and the cure, code 2, and no output.

Each case breaks one thing of a folder that is sound otherwise (see ``conftest.py``).
"""

import numpy as np
import pandas as pd
import pytest
import re
import subprocess
import sys
import xarray as xr

from pathlib import Path

GRID = ("--grid", "-4:4:2,36:42:2")
NAN, INF = float("nan"), float("inf")
LINE = re.compile(r"matheron: [\w.]+\(.*\): expected .+, got.+\. .+[.?]\n")


def columns(**changed):
    """Returns a maker of the tracks with some columns changed."""

    def make(frame):
        for name, value in changed.items():
            frame[name] = value(frame) if callable(value) else value
        return frame

    return lambda: make(pd.read_csv("tracks.csv")).to_csv("tracks.csv", index=False)


def rows(count):
    return lambda: pd.read_csv("tracks.csv").head(count).to_csv("tracks.csv", index=False)


def text(path, content):
    return lambda: Path(path).write_text(content)


def raw(path, content):
    return lambda: Path(path).write_bytes(content)


def cut(path, share=0.6):
    """Returns a maker that cuts a file short, as after a failed download."""

    def short():
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: int(share * len(whole))])

    return short


def table(path, **values):
    def make():
        frame = pd.DataFrame(values)
        frame.to_parquet(path) if path.endswith("parquet") else frame.to_csv(path, index=False)

    return make


def cut_parquet():
    pd.read_csv("tracks.csv").to_parquet("tracks.parquet")
    cut("tracks.parquet")()


def dated():
    columns(time=lambda f: [f"2014-05-{15 + i % 5}" for i in range(len(f))])()


def plane():
    frame = pd.read_csv("tracks.csv").rename(columns={"lon": "x", "lat": "y"})
    frame.to_csv("tracks.csv", index=False)


def netcdf(path, **variables):
    axes = {"lat": [36.0, 38.0], "lon": [-4.0, -2.0, 0.0]}
    return lambda: xr.Dataset(variables, axes).to_netcdf(path)


def moved_truth(**shift):
    def move():
        with xr.open_dataset("truth.nc") as ds:
            moved = ds.load().assign_coords({k: ds[k] + v for k, v in shift.items()})
        moved.to_netcdf("truth.nc")

    return move


def model_text(old, new):
    def edit():
        file = Path("model/model.json")
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new))

    return edit


def model_of_nan():
    from safetensors.torch import load_file, save_file

    numbers = load_file("model/model.safetensors")
    save_file({k: v * NAN for k, v in numbers.items()}, "model/model.safetensors")


def remove(path):
    return lambda: Path(path).unlink()


def mapped(*more, out="out.nc", file="tracks.csv"):
    return ("map", file, "--model", "model", *more, "-o", out)


def config(content):
    return text("run.toml", content)


def currents(path="currents.nc", lat=(30.0, 50.0), units="m/s", **fields):
    """Returns a maker of a velocity file over the data."""

    def make():
        axes = {"lat": np.linspace(*lat, 5), "lon": np.linspace(-10.0, 10.0, 6)}
        made = {
            k: (("lat", "lon"), np.full((5, 6), v), {"units": units}) for k, v in fields.items()
        }
        xr.Dataset(made, axes).to_netcdf(path)

    return make


def both(*makers):
    return lambda: [make() for make in makers]


def markov_model(old="", new="", **numbers):
    """Returns a maker of a Markov model in the folder, spoilt."""

    def make():
        from safetensors.torch import load_file, save_file

        from matheron.cli.model import Model
        from matheron.kernels import Matern
        from matheron.selection.lattices import Spacing
        from matheron.selection.laws import MarkovLaw

        spacing = Spacing({"lat": 0.5, "lon": 0.5}, {"lat": 36.0, "lon": -4.0})
        law = MarkovLaw("spde", 2.0, Matern(1.0, 0.5, [200e3, 250e3], 10.0), spacing)
        Model(law, "1", "sphere", ("lat", "lon"), {"": 0.1}, variable="ssh").save(Path("model"))
        if old:
            model_text(old, new)()
        kept = load_file("model/model.safetensors")
        changed = {k: v * numbers.get(k.split(".")[-1], 1.0) for k, v in kept.items()}
        save_file(changed, "model/model.safetensors")

    return make


SAME = netcdf("field.nc", v=(("lat", "lon"), np.full((2, 3), NAN)))
MAP = mapped(*GRID)
SET = mapped(*GRID, "--config", "run.toml")
AT = mapped("--at", "points.csv", out="out.csv")
SCORE = ("score", "map.nc", "--truth", "truth.nc")
FIT = ("fit", "tracks.csv", "-o", "fitted")
SPDE = ("map", "tracks.csv", *GRID, "--variable", "ssh", "--method", "spde", "-o", "out.nc")
DAYS = "-4:4:2,36:42:2,2014-05-15:2014-05-17:1"
CARRIED = (*SPDE[:2], "--grid", DAYS, *SPDE[4:7], "advection-diffusion", "-o", "out.nc")
CURRENTS = (*CARRIED, "--velocity", "currents.nc")

CASES = {
    # the data
    "absent": (remove("tracks.csv"), MAP, "no such file"),
    "folder": (None, mapped(*GRID, file="model"), "got a folder"),
    "suffix": (text("a.xlsx", "x"), mapped(*GRID, file="a.xlsx"), "suffix '.xlsx'"),
    "empty": (text("tracks.csv", ""), MAP, "an empty file"),
    "header only": (text("tracks.csv", "lon,lat,ssh\n"), MAP, "at least one row"),
    "binary": (raw("tracks.csv", b"\x00\x01\x02"), MAP, "neither text nor a known format"),
    "cut netcdf": (cut("map.nc"), mapped(*GRID, file="map.nc"), "a whole NetCDF file"),
    "cut parquet": (cut_parquet, mapped(*GRID, file="tracks.parquet"), "a whole Parquet table"),
    "long row": (text("tracks.csv", "lon,lat,ssh\n1,2,3,4\n"), MAP, "as many fields"),
    "all missing": (columns(ssh=NAN), (*MAP, "--variable", "ssh"), "40 missing values"),
    "grid of gaps": (SAME, mapped("--grid", "same", file="field.nc"), "6 missing values"),
    "infinite": (columns(ssh=INF), (*MAP, "--variable", "ssh"), "40 infinite"),
    "fill": (columns(ssh=lambda f: [-9999.0, *f.ssh[1:]]), MAP, "fill value -9999"),
    "text": (columns(ssh="high"), (*MAP, "--variable", "ssh"), "numbers in tracks.csv"),
    "missing place": (columns(lat=lambda f: [NAN, *f.lat[1:]]), MAP, "1 missing or infinite"),
    "metres": (columns(lon=lambda f: f.lon * 1e5), MAP, "longitudes within"),
    "swapped": (
        columns(lon=lambda f: f.lat, lat=lambda f: f.lon * 2 + 100),
        MAP,
        "look swapped: exchange them",
    ),
    "radians": (
        columns(lon=np.linspace(-3.1, 3.1, 40), lat=np.linspace(-1.5, 1.5, 40)),
        MAP,
        "Convert them to degrees",
    ),
    "no variable": (columns(sst=1.0), MAP, "Name the variable"),
    "unknown variable": (None, (*MAP, "--variable", "adt"), "got 'adt'"),
    "unknown column": (None, (*MAP, "--lon", "easting"), "got 'easting'"),
    "mixed kinds": (None, ("map", "tracks.csv", "map.nc", *MAP[2:]), "expected"),
    "one datum": (rows(1), ("map", "tracks.csv", *GRID, "-o", "out.nc"), "3 data or more"),
    "two data": (rows(2), FIT, "3 data or more"),
    "bad date": (columns(time="yesterday"), MAP, "ISO dates"),
    # where to map
    "neither": (None, mapped(), "got none"),
    "both": (None, mapped(*GRID, "--at", "points.csv"), "got both"),
    "same of points": (None, mapped("--grid", "same"), "data on a grid"),
    "unreadable": (None, mapped("--grid", "everywhere"), "Write e.g. --grid"),
    "no grid file": (None, mapped("--grid", "absent.nc"), "no such file"),
    "one span": (None, mapped("--grid", "0:1:1"), "2 spans"),
    "reversed": (None, mapped("--grid", "4:-4:1,36:42:1"), "first <= last for 'lon'"),
    "zero step": (None, mapped("--grid", "-4:4:0,36:42:1"), "a step > 0"),
    "negative step": (None, mapped("--grid", "-4:4:-1,36:42:1"), "a step > 0"),
    "huge": (None, mapped("--grid", "-4:4:1e-5,36:42:1e-5"), "at most 2e[+]07 nodes"),
    "lat 95": (None, mapped("--grid", "-4:4:1,36:95:1"), "degrees within"),
    "no dates": (dated, ("map", "tracks.csv", *GRID, "-o", "out.nc"), "a span of time too"),
    "dates, no time": (
        None,
        mapped("--grid", "-4:4:1,36:42:1,2014-05-15:2014-05-16:1"),
        "2 spans",
    ),
    "31 June": (
        dated,
        ("map", "tracks.csv", "--grid", "-4:4:1,36:42:1,2014-06-01:2014-06-31:1", "-o", "out.nc"),
        "a date of the calendar",
    ),
    "grid of table": (None, mapped("--grid", "points.csv"), "use --at points.csv"),
    "at of grid": (None, mapped("--at", "map.nc", out="out.csv"), "use --grid map.nc"),
    "points without lat": (table("points.csv", lon=[1.0]), AT, "a 'lat'|no 'lat'"),
    "points on the plane": (table("points.csv", x=[1.0], y=[1.0]), AT, "no 'lat'"),
    "points of NaN": (table("points.csv", lon=[1.0, 2], lat=[40, NAN]), AT, "first at row 2"),
    "no points": (table("points.csv", lon=[], lat=[]), AT, "at least one row"),
    "absent points": (remove("points.csv"), AT, "no such file"),
    # the model
    "no model": (None, ("map", "tracks.csv", *GRID, "--model", "no", "-o", "out.nc"), "no"),
    "model is a file": (
        None,
        ("map", "tracks.csv", *GRID, "--model", "map.nc", "-o", "out.nc"),
        "Fit it again",
    ),
    "half a model": (remove("model/model.safetensors"), MAP, "Fit it again"),
    "cut model": (cut("model/model.safetensors"), MAP, "Fit it again"),
    "cut text": (cut("model/model.json"), MAP, "Fit it again"),
    "model of NaN": (model_of_nan, MAP, "not finite"),
    "other kernel": (model_text('"Matern"', '"Spline"'), MAP, "Fit it again"),
    "other format": (model_text('"format": 1', '"format": 9'), MAP, "format is not 1"),
    "a list": (text("model/model.json", "[]"), MAP, "Fit it again"),
    "no noise": (model_text('"": 0.1', ""), MAP, "Fit it again"),
    "words for noise": (model_text('"": 0.1', '"": "low"'), MAP, "Fit it again"),
    "other axes": (plane, MAP, "Fit a model on these data"),
    # the settings
    "unknown key": (config("neighbours = 30"), SET, "got 'neighbours'"),
    "wrong type": (config("neighbors = 'many'"), SET, "neighbors to be int"),
    "a boolean": (config("neighbors = true"), SET, "neighbors to be int"),
    "negative": (config("neighbors = -1"), SET, "finite neighbors > 0"),
    "NaN radius": (config("radius = nan"), SET, "finite radius > 0"),
    "bad seed": (config("seed = -1"), SET, "a seed from 0"),
    "not TOML": (config("neighbors: 30"), SET, "expected TOML"),
    "unknown method in TOML": (config("method = 'oi'"), SET, "got 'oi'"),
    "no config": (None, SET, "No such file"),
    "unknown method": (None, (*MAP, "--method", "magic"), "got 'magic'"),
    "unknown metric": (None, (*MAP, "--metric", "torus"), "sphere or plane"),
    "unknown covariate of the map": (
        columns(depth=np.linspace(0, 1, 40)),
        (*FIT, "--trend", "1 + dept", "--variable", "ssh"),
        "among .'depth', 'lat', 'lon'.",
    ),
    "covariate off the grid": (
        columns(depth=np.linspace(0, 1, 40)),
        ("map", *MAP[1:2], *GRID, "--trend", "1 + depth", "--variable", "ssh", "-o", "out.nc"),
        "Pass it in",
    ),
    "sphere of a plane": (plane, (*FIT, "--metric", "sphere"), "axes 'lat' and 'lon'"),
    "unknown covariate": (None, (*FIT, "--trend", "1 + depth"), "depth"),
    "nonsense trend": (None, (*FIT, "--trend", "1 +* lon"), "expected"),
    "too many members": (None, (*MAP, "--members", 10**9), "at most 1e[+]09 numbers"),
    # Markov priors
    "alpha of half the axes": (None, (*SPDE, "--alpha", "1"), "a number over 1"),
    "alpha of text": (None, (*SPDE, "--alpha", "two"), "'--alpha'"),
    "alpha of NaN": (None, (*SPDE, "--alpha", "nan"), "finite number > 0"),
    "infinite alpha": (None, (*SPDE, "--alpha", "inf"), "finite number > 0"),
    "alpha < 0 in TOML": (config("alpha = -1.0"), SET, "finite alpha > 0"),
    "alpha of a kernel": (None, (*MAP, "--alpha", "2"), "--method spde or advection-diffusion"),
    "one datum for spde": (rows(1), SPDE, "3 data or more"),
    "no datum for spde": (text("tracks.csv", "lon,lat,ssh\n"), SPDE, "at least one row"),
    "NaN for spde": (columns(ssh=NAN), SPDE, "40 missing values"),
    "advection without time": (None, CARRIED, "2 spans"),
    "advection of a model without time": (
        None,
        (*FIT, "--method", "advection-diffusion"),
        "data with time and place",
    ),
    "advection, alpha 3": (dated, (*CARRIED, "--alpha", "3"), "2 or 4"),
    "velocity of spde": (None, (*SPDE, "--velocity", "a.nc"), "--method advection-diffusion"),
    "no velocity file": (dated, CURRENTS, "no such file"),
    "velocity of a table": (dated, (*CARRIED, "--velocity", "tracks.csv"), "NetCDF"),
    "a file without velocity": (both(dated, currents(sst=1.0)), CURRENTS, "got sst"),
    "velocity in knots": (
        both(dated, currents(units="knots", ugos=0.1, vgos=0.1)),
        CURRENTS,
        "in m/s",
    ),
    "velocity too fast": (both(dated, currents(u=80.0, v=1.0)), CURRENTS, "under 10 m/s"),
    "velocity of NaN": (both(dated, currents(u=NAN, v=NAN)), CURRENTS, "missing values"),
    "velocity of zero": (both(dated, currents(u=0.0, v=0.0)), CURRENTS, "not all zero"),
    "velocity elsewhere": (
        both(dated, currents(lat=(-50.0, -30.0), u=0.1, v=0.1)),
        CURRENTS,
        "covers the map",
    ),
    "heights in feet": (both(dated, currents(units="ft", adt=0.1)), CURRENTS, "adt in m"),
    "spde of a kernel model": (None, (*MAP, "--method", "spde"), "one of a kernel"),
    "another Markov model": (
        markov_model(),
        (*MAP, "--method", "advection-diffusion"),
        "one of spde",
    ),
    "Markov model, unknown": (markov_model('"spde"', '"magic"'), MAP, "unknown method"),
    "Markov model without steps": (markov_model('"lat": 0.5', '"lat": 0.0'), MAP, "no lattice"),
    "Markov model of NaN": (markov_model(log_variance=NAN), MAP, "not finite"),
    "Markov model of an infinite step": (
        markov_model('"lat": 0.5', '"lat": Infinity'),
        MAP,
        "not finite",
    ),
    "Markov model without alpha": (markov_model('"alpha"', '"beta"'), MAP, "Fit it again"),
    "a Markov model by neighbours": (
        markov_model(),
        (*MAP, "--method", "vecchia"),
        "a prior that is",
    ),
    # the output
    "no such folder": (None, mapped(*GRID, out="no/out.nc"), "an existing folder"),
    "unknown suffix": (None, mapped(*GRID, out="out.png"), "a name that ends with .nc"),
    "table of a grid": (None, mapped(*GRID, out="out.csv"), "a name that ends with .nc"),
    "grid of points": (None, mapped("--at", "points.csv"), "ends with .csv, .parquet"),
    "a folder": (None, mapped(*GRID, out="model"), "got a folder"),
    "model in a file": (None, (*FIT[:3], "map.nc"), "got a file"),
    "model nowhere": (None, (*FIT[:3], "no/model"), "an existing parent folder"),
    "model over a model": (None, (*FIT[:3], "model"), "--resume"),
    "demo in a file": (None, ("demo", "-o", "map.nc"), "got a file"),
    "demo nowhere": (None, ("demo", "-o", "no/demo"), "an existing parent folder"),
    # scores and reports
    "score nothing": (None, ("score", "absent.nc", "--truth", "truth.nc"), "no such file"),
    "score a table": (None, ("score", "tracks.csv", "--truth", "truth.nc"), "its _obs_std"),
    "score points": (
        netcdf("cloud.nc", lat_=("obs", [1.0, 2])),
        ("score", "cloud.nc", "--truth", "truth.nc"),
        "expected",
    ),
    "score a suffix": (text("a.txt2", "x"), ("score", "a.txt2", "--truth", "truth.nc"), "suffix"),
    "no truth": (remove("truth.nc"), SCORE, "no such file"),
    "truth elsewhere": (moved_truth(longitude=90), SCORE, "got none in common"),
    "truth beyond": (moved_truth(latitude=30), SCORE, "got none in common"),
    "truth on the plane": (
        table("truth.csv", x=[1.0], y=[1.0], ssh=[0.0]),
        (*SCORE[:3], "truth.csv"),
        "axes|dims|lat",
    ),
    "truth dated": (
        table("truth.csv", lon=[1.0], lat=[40.0], time=["2014-05-15"], ssh=[0.0]),
        (*SCORE[:3], "truth.csv"),
        "time",
    ),
    "score no variable": (None, (*SCORE, "--variable", "adt"), "got 'adt'"),
    "no data of map": (None, (*SCORE, "--observations", "no.csv"), "no such file"),
    "report a table": (None, ("report", "tracks.csv", "-o", "out.html"), "a field on a grid"),
    "report a cut map": (cut("map.nc"), ("report", "map.nc", "-o", "out.html"), "whole NetCDF"),
    "report as PNG": (None, ("report", "map.nc", "-o", "out.png"), "ends with .html"),
    "report on another grid": (
        moved_truth(latitude=0.5),
        ("report", "map.nc", "--truth", "truth.nc", "-o", "out.html"),
        "grid",
    ),
    "report nowhere": (None, ("report", "map.nc", "-o", "no/out.html"), "existing folder"),
    "info on nothing": (None, ("info", "no.csv"), "no such file"),
    "info on a folder": (None, ("info", "model"), "got a folder"),
    "info, no coordinates": (table("a.csv", a=[1], b=[2]), ("info", "a.csv"), "coordinates"),
    # the command line itself
    "no file": (None, ("map",), "Missing argument"),
    "no output": (None, ("map", "tracks.csv", *GRID), "Missing option"),
    "unknown command": (None, ("krige",), "No such command"),
    "unknown option": (None, (*MAP, "--colour", "red"), "No such option"),
    "members of text": (None, (*MAP, "--members", "ten"), "'--members'"),
    "members < 0": (None, (*MAP, "--members", "-1"), "'--members'"),
    "seed < 0": (None, (*MAP, "--seed", "-1"), "'--seed'"),
    "option alone": (None, ("fit", "tracks.csv", "-o"), "requires an argument"),
}


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_in_one_line(name, here, cli):
    spoil, command, said = CASES[name]
    if spoil is not None:
        spoil()
    before = contents(here)
    ran = cli(*command)
    assert ran.code == 2
    assert LINE.fullmatch(ran.err.splitlines(keepends=True)[-1]), ran.err
    assert re.search(said, ran.err)
    assert ran.err.count("matheron: ") == 1
    assert "Traceback" not in ran.err
    assert contents(here) == before


def test_a_shell_sees_one_line_and_a_code(here):
    before = contents(here)
    ran = subprocess.run(
        [sys.executable, "-m", "matheron.cli", *mapped("--grid", "4:-4:1,36:42:1")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert LINE.fullmatch(ran.stderr)
    assert ran.stdout == ""
    assert contents(here) == before


def test_debug_shows_where(here, cli):
    with pytest.raises(ValueError, match="no such file"):
        cli("info", "absent.csv", "--debug")
