"""Laws of the report: one whole file, which says what the metrics say and shows what it has."""

import base64
import html
import io
import numpy as np
import os
import pandas as pd
import pytest
import re
import torch
import xarray as xr

from PIL import Image

from matheron.data import map_dataset, write_dataset, write_table
from matheron.data import read as read_file
from matheron.domain import Grid, Points
from matheron.metrics import scores
from matheron.report import report
from matheron.report.page import write_whole

F64 = torch.float64
LAT, LON = np.arange(33.0, 38.0, 0.5), np.arange(295.0, 301.0, 0.5)
DAYS = np.datetime64("2012-10-22", "ns") + np.arange(2) * np.timedelta64(1, "D")
SHAPE = (len(DAYS), len(LAT), len(LON))


def labelled(values, attrs=None):
    first = ["realization"] if values.ndim == 4 else []
    values = values.numpy().copy()
    values[..., :2, :3] = np.nan  # land
    return ([*first, "time", "latitude", "longitude"], values, attrs or {})


@pytest.fixture
def truth(generator):
    return torch.randn(SHAPE, generator=generator, dtype=F64)


@pytest.fixture
def dataset(truth, generator):
    noise = torch.randn(9, *SHAPE, generator=generator, dtype=F64)
    mean = truth + 0.3 * noise[0]
    attrs = {"units": "m", "long_name": "sea level <anomaly>"}
    fields = {
        "sla": labelled(mean, attrs),
        "sla_std": labelled(torch.full(SHAPE, 0.3, dtype=F64)),
        "sla_obs_std": labelled(torch.full(SHAPE, 0.5, dtype=F64)),
        "sla_member": labelled(mean + 0.3 * noise[1:]),
    }
    coords = {"time": DAYS, "latitude": LAT, "longitude": LON}
    return xr.Dataset(fields, coords, {"command": "map a.nc & b.nc", "seed": 0})


@pytest.fixture
def field(truth):
    coords = {"time": DAYS, "lat": LAT, "lon": LON}
    return xr.DataArray(truth.numpy(), coords, ["time", "lat", "lon"], name="sla")


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the pictures out: they take nearly all the time of a page."""
    monkeypatch.setattr("matheron.report.build.pictures", lambda *_: iter(()))


def nodes(field, dataset):
    """The truth as data, one at each node that is not on land."""
    stacked = field.stack(point=("time", "lat", "lon"))
    sea = np.isfinite(dataset["sla"].values.ravel())
    points = Points(
        time=stacked["time"].values, lat=stacked["lat"].values, lon=stacked["lon"].values
    )
    return (points[torch.as_tensor(sea)], torch.as_tensor(stacked.values[sea]))


def table(text):
    """The rows of every table of the page, by their first cell."""
    rows = re.findall(r"<tr><th>(.*?)</th><td[^>]*>(.*?)</td>", text)
    return {html.unescape(k): html.unescape(v) for k, v in rows}


def pictures(text):
    found = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]+)"', text)
    return {k: Image.open(io.BytesIO(base64.b64decode(v))) for k, v in found}


def expected(dataset, field, std="sla_std"):
    values = dataset["sla"].values
    sea = np.isfinite(values)
    t = [torch.as_tensor(v[sea]) for v in (values, dataset[std].values, field.values)]
    return scores.summary(*t)


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_no_network(dataset, field, tmp_path):
    text = read(report(dataset, tmp_path / "r.html", truth=field))
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)|@import|url\(|<script|<link", text)
    assert os.listdir(tmp_path) == ["r.html"]


def test_every_picture_is_there_and_is_not_blank(dataset, field, tmp_path):
    data = nodes(field, dataset)
    page = report(dataset, tmp_path / "r.html", truth=field, observations=data)
    found = pictures(read(page))
    assert list(found) == [
        "Mean and members",
        "Standard deviation",
        "Error",
        "Observations",
        "Residuals",
        "Calibration",
    ]
    assert all(len(image.convert("RGB").getcolors(1 << 24)) > 50 for image in found.values())


@pytest.mark.usefixtures("undrawn")
def test_scores_are_those_of_the_metrics(dataset, field, tmp_path):
    rows = table(read(report(dataset, tmp_path / "r.html", truth=field)))
    wanted = expected(dataset, field)
    assert rows["root mean square error"] == f"{wanted['rmse']:.4g}"
    assert rows["CRPS, Gaussian"] == f"{wanted['crps']:.4g}"
    assert rows["coverage of the 90 % interval"] == f"{100 * wanted['coverage_90']:.1f}"
    assert "energy score" in rows


@pytest.mark.usefixtures("undrawn")
def test_data_at_the_nodes_are_scored_as_the_field(dataset, field, tmp_path):
    data = nodes(field, dataset)
    rows = table(read(report(dataset, tmp_path / "r.html", truth=data)))
    noisy = expected(dataset, field, "sla_obs_std")
    assert rows["interval score at 95 %"] == f"{noisy['interval_score']:.4g}"
    sure = table(read(report(dataset, tmp_path / "r.html", truth=data, noisy=False)))
    assert sure["CRPS, Gaussian"] == f"{expected(dataset, field)['crps']:.4g}"


@pytest.mark.usefixtures("undrawn")
def test_the_truth_may_have_another_order_branch_and_gaps(dataset, field, tmp_path):
    plain = table(read(report(dataset, tmp_path / "r.html", truth=field)))
    other = field.assign_coords(lon=LON - 360).transpose("lon", "time", "lat")
    assert table(read(report(dataset, tmp_path / "r.html", truth=other))) == plain
    holes = field.where(field["lat"] > 35)
    rows = table(read(report(dataset, tmp_path / "r.html", truth=holes)))
    known = expected(dataset.where(dataset["latitude"] > 35), holes)
    assert rows["mean absolute error"] == f"{known['mae']:.4g}"


def test_provenance_is_said_and_escaped(dataset, tmp_path):
    text = read(report(dataset, tmp_path / "r.html"))
    rows = table(text)
    assert rows["command"] == "map a.nc & b.nc"
    assert rows["time"] == "2012-10-22 to 2012-10-23"
    assert rows["members"] == "8"
    assert "<anomaly>" not in text
    assert "sea level &lt;anomaly&gt;" in text


def test_a_map_without_std_nor_members_is_reported(dataset, field, tmp_path):
    text = read(report(dataset[["sla"]], tmp_path / "r.html", truth=field))
    assert list(pictures(text)) == ["Mean", "Error"]
    assert table(text)["bias, map minus truth"] == f"{expected(dataset, field)['bias']:.4g}"


def test_a_posterior_is_reported_under_its_own_names(dataset, tmp_path):
    names = {"sla": "mean", "sla_std": "std", "sla_member": "member"}
    text = read(report(dataset.rename(names).drop_vars("sla_obs_std"), tmp_path / "r.html"))
    assert list(pictures(text)) == ["Mean and members", "Standard deviation"]


def test_what_the_library_writes_and_reads_is_reported(tmp_path, generator):
    grid = Grid(lat=LAT, lon=LON)
    x = torch.randn(len(grid), generator=generator, dtype=F64)
    chart = map_dataset(grid, x, 0 * x + 0.3, 0 * x + 0.5, variable="ssh", units="m")
    write_dataset(chart, tmp_path / "map.nc")
    columns = {"longitude": [296.0, -61.0], "latitude": [34.0, 36.0], "ssh": [0.1, 0.2]}
    write_table(pd.DataFrame(columns), tmp_path / "data.csv")
    data = read_file(tmp_path / "data.csv")
    with xr.open_dataset(tmp_path / "map.nc") as dataset:
        rows = table(read(report(dataset, tmp_path / "r.html", truth=data, observations=data)))
    nodes, weights = grid.interpolation(data.points)
    error = (x[nodes] * weights).sum(-1) - data.values
    assert float(rows["bias, map minus truth"]) == pytest.approx(error.mean().item(), rel=1e-3)


def test_data_off_the_map_are_left_out_of_the_residuals(dataset, tmp_path):
    points = Points(time=np.repeat(DAYS[:1], 3), lat=[36.0, 60.0, 33.0], lon=[-61.0, 298.0, 295.0])
    data = (points, torch.zeros(3, dtype=F64))
    text = read(report(dataset, tmp_path / "r.html", observations=data))
    assert "for the 1 data that" in text  # one is off the map, one on land


def test_the_plane_is_reported(tmp_path, generator):
    values = torch.randn(6, 5, generator=generator, dtype=F64).numpy()
    field = xr.DataArray(values, {"x": np.arange(6.0), "y": np.arange(5.0)}, ["x", "y"])
    dataset = xr.Dataset({"zinc": field, "zinc_std": 0 * field + 1})
    rows = table(read(report(dataset, tmp_path / "r.html", truth=field)))
    assert rows["root mean square error"] == "0"


def test_the_same_generator_gives_the_same_page(dataset, field, tmp_path):
    pages = [
        read(
            report(
                dataset,
                tmp_path / "r.html",
                truth=field,
                noisy=True,
                generator=torch.Generator().manual_seed(1),
            )
        )
        for _ in range(2)
    ]
    assert pages[0] == pages[1]


def test_a_failure_leaves_the_old_page_and_nothing_else(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.html"]


@pytest.mark.parametrize(
    ("name", "match"),
    [("r.txt", "expected .*html"), ("none/r.html", "folder")],
)
def test_a_wrong_path_is_refused(dataset, tmp_path, name, match):
    with pytest.raises(ValueError, match=match):
        report(dataset, tmp_path / name)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda ds: ds.rename(sla="a"), "expected one map V with V_std"),
        (lambda ds: ds.drop_vars("latitude"), r"without \['latitude'\]"),
        (lambda ds: ds.assign(temp=ds.sla, temp_std=ds.sla), "expected one map"),
    ],
)
def test_what_is_not_a_map_is_refused(dataset, tmp_path, broken, match):
    with pytest.raises(ValueError, match=match):
        report(broken(dataset), tmp_path / "r.html")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda f: f.isel(time=0, drop=True), "on the grid of the map"),
        (lambda f: f.isel(lat=slice(3)), "another axis 'lat' of 3 nodes"),
        (lambda f: f.assign_coords(lon=f.lon + 0.1), "another axis 'lon'"),
        (lambda f: f * np.nan, "got none of"),
        (lambda f: xr.Dataset({"u": f, "v": f}), r"variable 'sla', got \['u', 'v'\]"),
    ],
)
def test_another_truth_is_refused(dataset, field, tmp_path, broken, match):
    with pytest.raises(ValueError, match=match):
        report(dataset, tmp_path / "r.html", truth=broken(field))


def test_values_of_another_length_are_refused(dataset, field, tmp_path):
    points, values = nodes(field, dataset)
    with pytest.raises(ValueError, match="expected one value for each of the"):
        report(dataset, tmp_path / "r.html", truth=(points, values[1:]))


def test_data_with_other_axes_are_refused(dataset, tmp_path):
    data = (Points(lat=[35.0], lon=[300.0]), torch.zeros(1, dtype=F64))
    with pytest.raises(ValueError, match="expected points with dims"):
        report(dataset, tmp_path / "r.html", observations=data)
