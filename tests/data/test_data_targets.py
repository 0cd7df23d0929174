"""Grids and points in the frame of the data: axes, branch, epoch."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from matheron.data import parse_grid, read, read_points

DATES = ["2014-05-15T06:00", "2014-05-16", "2014-05-17"]


def data(tmp_path, **columns):
    frame = pd.DataFrame({"v": [0.1, 0.2, 0.4], **columns})
    frame.to_csv(tmp_path / "data.csv", index=False)
    return read(tmp_path / "data.csv", "v")


@pytest.fixture
def tracks(tmp_path):
    return data(tmp_path, time=DATES, lon=[294.0, 300.0, 306.0], lat=[32.0, 38.0, 44.0])


def test_spans_are_inclusive_and_in_the_order_of_the_library(tracks):
    grid = parse_grid("-66:-54:0.1,32:44:0.1,2014-05-15:2014-05-17:6h", tracks)
    assert (grid.dims, grid.shape) == (("time", "lat", "lon"), (9, 121, 121))
    assert grid.axes["lon"][[0, -1]].numpy() == pytest.approx([294.0, 306.0])  # as in the data
    assert grid.axes["time"].numpy() == pytest.approx(np.arange(9) / 4)  # days since the epoch
    assert (grid.epoch, grid.metric) == (tracks.epoch, "sphere")


@pytest.mark.parametrize(
    ("step", "size"), [("1", 3), ("0.5", 5), ("1d", 3), ("12h", 5), ("30min", 97)]
)
def test_steps_of_time(tracks, step, size):
    grid = parse_grid(f"-66:-54:1,32:44:1,2014-05-15:2014-05-17:{step}", tracks)
    assert len(grid.axes["time"]) == size


def test_dates_may_have_a_clock_time(tracks):
    grid = parse_grid("-66:-54:1,32:44:1,2014-05-15T06:00:2014-05-15T18:00:00:6h", tracks)
    assert grid.axes["time"].tolist() == [0.25, 0.5, 0.75]


def test_plane_and_plain_times(tmp_path):
    scene = data(tmp_path, x=[0.0, 1.0, 2.0], y=[5.0, 6.0, 7.0], time=[10.0, 20.0, 30.0])
    grid = parse_grid("0:2:0.5,5:7:1,10:30:10", scene)
    assert (grid.dims, grid.shape, grid.metric) == (("time", "y", "x"), (3, 3, 5), "plane")


def test_a_step_that_does_not_divide_stops_before_the_end(tmp_path):
    scene = data(tmp_path, lon=[1.0, 2.0, 3.0], lat=[5.0, 6.0, 7.0])
    assert parse_grid("0:1:0.3,5:6:1", scene).axes["lon"].numpy() == pytest.approx(
        [0, 0.3, 0.6, 0.9]
    )


def test_the_example_of_an_error_can_be_used(tracks):
    with pytest.raises(ValueError, match="--grid") as caught:
        parse_grid("nonsense", tracks)
    spans = str(caught.value).split("--grid ")[1].rstrip(".")
    grid = parse_grid(spans, tracks)
    for k in ("lat", "lon"):
        values = tracks.points.axis(k)
        assert grid.axes[k][0] <= values.min() <= values.max() <= grid.axes[k][-1] + 1e-9


def lattice(tmp_path, **axes):
    axes = {"lat": [44.0, 38.0, 32.0], "lon": [-66.0, -60.0, -54.0], **axes}
    shape = [len(v) for v in axes.values()]
    ds = xr.Dataset({"other": (tuple(axes), np.zeros(shape))}, axes)
    ds["mask"] = (("lat", "lon"), np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1]]))
    ds.to_netcdf(tmp_path / "lattice.nc")
    return str(tmp_path / "lattice.nc")


def test_the_grid_of_a_file(tmp_path, tracks):
    path = lattice(tmp_path, time=np.array(["2014-05-16", "2014-05-17"], "M8[ns]"))
    grid = parse_grid(path, tracks)
    assert grid.axes["time"].tolist() == [1.0, 2.0]
    assert grid.axes["lat"].tolist() == [32.0, 38.0, 44.0]
    assert grid.axes["lon"].tolist() == [294.0, 300.0, 306.0]
    assert grid.mask.reshape(2, 3, 3).logical_not().nonzero().tolist() == [[0, 2, 0], [1, 2, 0]]


def test_same_is_the_grid_of_the_data_or_of_a_file(tmp_path, tracks):
    path = lattice(tmp_path, time=np.array(["2014-05-16"], "M8[ns]"))
    field = read(path, "other", squeeze=False)
    assert parse_grid("same", field) is field.grid
    assert parse_grid("same", tracks, like_file=path).shape == (1, 3, 3)


def test_points_are_in_the_frame_of_the_data(tmp_path, tracks):
    frame = pd.DataFrame(
        {"name": ["a", "b"], "Lon": [-60.0, -58.0], "Lat": [40.0, 41.0], "depth": [10.0, 20.0]}
    )
    frame["date"] = ["2014-05-15", "2014-05-16T12:00"]
    frame.to_csv(tmp_path / "at.csv", index=False)
    points, table = read_points(tmp_path / "at.csv", tracks)
    assert points.dims == tracks.points.dims
    assert points.coords.tolist() == [[0.0, 40.0, 300.0], [1.5, 41.0, 302.0]]
    assert points.covariates["depth"].tolist() == [10.0, 20.0]
    assert points.epoch == tracks.epoch
    pd.testing.assert_frame_equal(table, frame, check_dtype=False)


def test_points_follow_the_names_of_the_data(tmp_path):
    frame = pd.DataFrame({"lon": [3.0], "lat": [40.0], "Xloc": [1.0], "Yloc": [2.0], "v": [0.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    points, _ = read_points(tmp_path / "a.csv", read(tmp_path / "a.csv", "v", x="Xloc", y="Yloc"))
    assert (points.dims, points.coords.tolist()) == (("y", "x"), [[2.0, 1.0]])
