"""Grids and points: interpolation, land, longitudes, distances, dates, and what is refused."""

from __future__ import annotations

import math
import numpy as np
import pandas as pd
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.domain import EARTH_RADIUS

DOUBLE = torch.float64


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def interpolate(grid: mt.Grid, field: Tensor, points: mt.Points) -> Tensor:
    nodes, weights = grid.interpolation(points)
    assert_close(weights.sum(dim=1), torch.ones(len(points), dtype=DOUBLE))
    assert (weights >= 0).all()
    return (field[nodes] * weights).sum(dim=1)


# Interpolation.


@pytest.mark.parametrize("d", [1, 2, 3])
def test_multilinear_functions_are_reproduced(d: int) -> None:
    axes = {"time": [0.0, 1.0, 4.0, 5.0], "y": [-1.0, 0.5, 1.0], "x": [10.0, 11.0, 15.0]}
    axes = dict(list(axes.items())[-d:])
    grid = mt.Grid(**axes)
    points = mt.Points(**{k: uniform(50, v[0], v[-1], i) for i, (k, v) in enumerate(axes.items())})

    def field(s: mt.Points) -> Tensor:
        return torch.stack([0.3 + (i + 2) * s.coords[:, i] for i in range(d)]).prod(dim=0)

    assert_close(interpolate(grid, field(grid.points), points), field(points))
    onto = mt.Points(grid.points.coords, grid.dims)  # nodes see themselves
    assert_close(interpolate(grid, field(grid.points), onto), field(grid.points))


def test_land_takes_no_weight() -> None:
    grid = mt.Grid(y=[0.0, 1.0], x=[0.0, 1.0], mask=[[True, True], [False, True]])
    points = mt.Points(y=[0.5, 0.75, 0.0], x=[0.5, 0.5, 0.25])
    assert len(grid) == 3
    full = torch.tensor([1.0, 2.0, math.nan, 8.0], dtype=DOUBLE)
    sea = full[grid.mask]
    expected = torch.tensor([11 / 3, (0.125 * 3 + 0.375 * 8) / 0.625, 1.25], dtype=DOUBLE)
    assert_close(interpolate(grid, sea, points), expected)
    assert_close(grid.unflatten(sea), full.reshape(2, 2), equal_nan=True)
    assert_close(grid.flatten(grid.unflatten(sea)), sea)
    assert torch.equal(grid.points.coords, torch.tensor([[0, 0], [0, 1], [1, 1]], dtype=DOUBLE))


def test_points_on_land_are_refused_by_count() -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1:, 1:] = False
    grid = mt.Grid(y=[0.0, 1.0, 2.0], x=[0.0, 1.0, 2.0], mask=mask)
    with pytest.raises(ValueError, match=r"expected points at sea, got 2 of 3 among masked"):
        grid.interpolation(mt.Points(y=[1.5, 2.0, 0.0], x=[1.5, 2.0, 0.0]))


def test_a_mask_of_the_last_axes_holds_at_all_times() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    grid = mt.Grid(time=[0.0, 1.0, 2.0], lat=[0.0, 1.0], lon=[0.0, 1.0], mask=mask)
    assert len(grid) == 9
    assert torch.equal(grid.mask.reshape(3, 2, 2), mask.expand(3, 2, 2))
    assert mt.Grid(x=[0.0, 1.0], mask=[True, True]).mask is None


def test_points_outside_are_refused_by_axis_and_count() -> None:
    grid = mt.Grid(time=[0.0, 1.0], y=[0.0, 1.0])
    with pytest.raises(
        ValueError, match=r"expected 'time' within \[0, 1\], got 2 of 3 points outside"
    ):
        grid.interpolation(mt.Points(time=[0.5, 1.5, -1.0], y=[0.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"expected 'y' within \[0, 1\], got 1 of 1"):
        grid.interpolation(mt.Points(time=[0.5], y=[1.01]))
    with pytest.raises(
        ValueError, match=r"expected points with dims \('time', 'y'\), got \('x',\)"
    ):
        grid.interpolation(mt.Points(x=[0.5]))


@pytest.mark.parametrize("first", [0.0, -180.0, 0.5, -5.0])
def test_global_longitudes_close(first: float) -> None:
    lon = first + 10 * torch.arange(36.0, dtype=DOUBLE)
    grid = mt.Grid(lat=[0.0, 1.0], lon=lon)
    field = grid.points.axis("lon").deg2rad().cos()
    where = mt.Points(lat=[0.5] * 5, lon=[-3.0, 357.0, 359.9, -0.1, 4.0])
    found = interpolate(grid, field, where)
    # between two nodes a cosine is within step^2 / 8 of a line
    assert_close(found, where.axis("lon").deg2rad().cos(), rtol=0, atol=math.radians(10) ** 2 / 8)
    assert_close(found[0], found[1])
    assert_close(found[2], found[3])


def test_either_branch_falls_in_the_same_cell() -> None:
    grid = mt.Grid(lat=[40.0, 41.0], lon=[355.0, 358.0, 361.0 - 1.5])
    a = grid.interpolation(mt.Points(lat=[40.25, 40.5], lon=[-4.0, -1.0]))
    b = grid.interpolation(mt.Points(lat=[40.25, 40.5], lon=[356.0, 359.0]))
    assert torch.equal(a[0], b[0])
    assert_close(a[1], b[1])
    with pytest.raises(ValueError, match=r"expected 'lon' within \[355, 359.5\], got 1 of 1"):
        grid.interpolation(mt.Points(lat=[40.0], lon=[1.0]))


def test_an_axis_of_one_node() -> None:
    grid = mt.Grid(time=[3.0], x=[0.0, 1.0])
    found = interpolate(
        grid, torch.tensor([0.0, 2.0], dtype=DOUBLE), mt.Points(time=[3.0], x=[0.25])
    )
    assert_close(found.item(), 0.5)
    with pytest.raises(ValueError, match=r"'time' within \[3, 3\]"):
        grid.interpolation(mt.Points(time=[3.5], x=[0.25]))


# Distances.


def great_circle(a: Tensor, b: Tensor) -> Tensor:
    """The haversine formula, by rows (lat, lon) in degrees, in radians."""
    lat, lon = (b - a).deg2rad().unbind(-1)
    h = (lat / 2).sin() ** 2 + a[:, 0].deg2rad().cos() * b[:, 0].deg2rad().cos() * (
        lon / 2
    ).sin() ** 2
    return 2 * h.sqrt().clamp(max=1).asin()


@pytest.mark.parametrize("center", [(0.0, 0.0), (43.0, 5.0), (-89.0, 179.0)])
def test_distances_are_chords(center: tuple[float, float]) -> None:
    a, b = (
        mt.Points(lat=uniform(40, -90, 90, i), lon=uniform(40, -180, 360, i + 9)) for i in (1, 2)
    )
    chord = (a.cartesian(center) - b.cartesian(center)).norm(dim=-1)
    expected = 2 * EARTH_RADIUS * (great_circle(a.coords, b.coords) / 2).sin()
    # sites are rounded to 10 micrometres
    assert_close(chord, expected, rtol=1e-9, atol=1e-4)


def test_the_tangent_frame_points_north_east_and_up() -> None:
    step = mt.Points(lat=[43.0, 43.001, 43.0], lon=[5.0, 5.0, 5.001]).cartesian((43.0, 5.0))
    metres = EARTH_RADIUS * math.radians(0.001)
    east = metres * math.cos(math.radians(43))
    expected = torch.tensor([[0, 0, 0], [metres, 0, 0], [0, east, 0]], dtype=DOUBLE)
    assert_close(step, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("lon", [0.0, 12.3, 123.456789, 179.9999, 200.1, 359.1, 359.95])
def test_a_site_is_one_place_on_either_branch(lon: float) -> None:
    there, here = (mt.Points(lat=[43.2], lon=[v]).cartesian((40.0, 7.0)) for v in (lon, lon - 360))
    assert torch.equal(there, here)


def test_time_and_depth_go_before_the_frame() -> None:
    points = mt.Points(lon=[0.0], z=[-5.0], time=[3.0], lat=[0.0])
    assert points.dims == ("time", "z", "lat", "lon")
    assert_close(points.cartesian(), torch.tensor([[3.0, -5.0, 0, 0, 0]], dtype=DOUBLE))


def test_the_middle_of_a_box_across_the_dateline() -> None:
    grid = mt.Grid(lat=[-1.0, 1.0], lon=[178.0, 180.0, 182.0])
    lat, lon = grid.center
    assert abs(lat) < 1e-9
    assert abs(abs(lon) - 180) < 1e-9
    whole = mt.Grid(lat=[-45.0, 45.0], lon=[0.0, 90.0, 180.0, 270.0])
    assert whole.center == (0.0, 0.0)


def test_nearest_distance_is_that_of_brute_force() -> None:
    a, b = (
        mt.Points(
            time=uniform(20, 0, 9, i), lat=uniform(20, 30, 60, i), lon=uniform(20, -10, 40, i + 5)
        )
        for i in (1, 2)
    )
    s, t = (mt.Points(p.coords[:, 1:], ("lat", "lon")).cartesian() for p in (a, b))
    assert_close(a.nearest_distance(b), torch.cdist(s, t).amin(dim=1), rtol=1e-6, atol=1e-3)


# Names, order, dates.


def test_axes_are_ordered_and_aliases_known() -> None:
    grid = mt.Grid(longitude=[0.0, 1.0], time=[0.0], latitude=[5.0, 6.0, 7.0])
    assert (grid.dims, grid.shape, grid.metric) == (("time", "lat", "lon"), (1, 3, 2), "sphere")
    assert repr(grid) == "Grid(time: 1, lat: 3, lon: 2, metric='sphere')"
    assert mt.Grid(lat=[0.0], lon=[0.0], metric="plane").metric == "plane"
    assert mt.Points(x=[0.0], y=[1.0]).dims == ("y", "x")
    assert repr(mt.Points(x=[0.0], y=[1.0])) == "Points(1 sites, dims=('y', 'x'), metric='plane')"


def test_coordinates_of_any_kind_become_double() -> None:
    for values in (
        [1, 2],
        np.array([1, 2], dtype="int16"),
        torch.tensor([1.0, 2.0]),
        pd.Series([1, 2]),
    ):
        points = mt.Points(x=values)
        assert points.coords.dtype == DOUBLE
        assert points.coords[:, 0].tolist() == [1.0, 2.0]


def test_dates() -> None:
    dates = np.array(["2020-01-02T12", "2020-01-01T06", "2020-01-05T00"], dtype="datetime64[h]")
    points = mt.Points(time=dates)
    assert points.epoch == np.datetime64("2020-01-01")
    assert points.axis("time").tolist() == [1.5, 0.25, 4.0]
    assert mt.Points(time=pd.DatetimeIndex(dates)).axis("time").tolist() == [1.5, 0.25, 4.0]
    moved = points.since(np.datetime64("2019-12-31", "ns"))
    assert moved.axis("time").tolist() == [2.5, 1.25, 5.0]
    assert points.since(points.epoch) is points
    given = mt.Points(time=dates, epoch=np.datetime64("2020-01-02"))
    assert given.axis("time").tolist() == [0.5, -0.75, 3.0]
    both = mt.Points.join(points, given)
    assert_close(both.axis("time")[3:], points.axis("time"))


def test_dates_against_plain_numbers_are_refused_on_either_side() -> None:
    dated = mt.Points(time=np.array(["2020-01-05"], dtype="datetime64[D]"))
    plain, grid = mt.Points(time=[0.0]), mt.Grid(time=[0.0, 1.0])
    dated_grid = mt.Grid(time=np.array(["2020-01-05", "2020-01-06"], dtype="datetime64[D]"))
    for a, b in ((dated, grid), (plain, dated_grid)):
        with pytest.raises(ValueError, match=r"expected dates on both sides or on neither"):
            b.interpolation(a)
        with pytest.raises(ValueError, match=r"expected dates on both sides or on neither"):
            mt.PointObservation(b, a, 0.1)
    with pytest.raises(ValueError, match=r"expected dates on both sides"):
        mt.Points.join(dated, plain)


def test_join_and_index_keep_the_covariates_in_common() -> None:
    a = mt.Points(x=[0.0, 1.0], covariates={"depth": [5.0, 6.0], "sst": [1.0, 2.0]})
    b = mt.Points(x=[2.0], covariates={"depth": [7.0]})
    both = mt.Points.join(a, b)
    assert both.covariates.keys() == {"depth"}
    assert both[torch.tensor([2, 0])].covariates["depth"].tolist() == [7.0, 5.0]
    assert both[1:].coords.tolist() == [[1.0], [2.0]]
    assert both[both.coords[:, 0] > 0].covariates["depth"].tolist() == [6.0, 7.0]
    with pytest.raises(
        ValueError, match=r"Points.join\(...\): expected clouds with the same dims"
    ):
        mt.Points.join(a, mt.Points(y=[0.0]))


def test_covariates_of_a_grid_follow_its_mask() -> None:
    depth = torch.tensor([[1.0, math.nan], [3.0, 4.0]])
    mask = depth.isfinite()
    grid = mt.Grid(y=[0.0, 1.0], x=[0.0, 1.0], mask=mask, covariates={"depth": depth})
    assert grid.points.covariates["depth"].tolist() == [1.0, 3.0, 4.0]


NAN, INF = math.nan, math.inf
BAD = [
    (lambda: mt.Points(), r"Points\(...\): expected at least one coordinate, got none"),
    (
        lambda: mt.Points(x=[]),
        r"Points\(x=...\): expected a vector with at least one value, got shape \(0,\)",
    ),
    (lambda: mt.Points(x=[[1.0]]), r"Points\(x=...\): expected a vector .* got shape \(1, 1\)"),
    (
        lambda: mt.Points(x=[1.0, NAN, INF]),
        r"Points\(x=...\): expected finite .* got 2 NaN or Inf among 3",
    ),
    (
        lambda: mt.Points(x=[1.0], y=[1.0, 2.0]),
        r"expected coordinates of equal length, got {'y': 2, 'x': 1}",
    ),
    (
        lambda: mt.Points(lat=[91.0], lon=[0.0]),
        r"Points\(lat=...\): expected degrees within \+-90, got 91",
    ),
    (
        lambda: mt.Points(lat=[5.0], lon=[-400.0]),
        r"Points\(lon=...\): expected degrees within \+-360, got -400",
    ),
    (lambda: mt.Points(x=["a"]), r"Points\(x=...\): expected numbers or datetimes, got <U1"),
    (
        lambda: mt.Points(time=np.array(["NaT", "2020-01-01"], dtype="datetime64[D]")),
        r"got 1 missing dates",
    ),
    (lambda: mt.Points(x=[1.0], metric="torus"), r"Points\(metric=...\): .* got 'torus'"),
    (
        lambda: mt.Points(x=[1.0], metric="sphere"),
        r"Points\(metric='sphere'\): expected axes 'lat' and 'lon', got \('x',\)",
    ),
    (
        lambda: mt.Points(torch.zeros(2, 2), ("x",)),
        r"Points\(dims=...\): expected one name per column",
    ),
    (lambda: mt.Points(torch.zeros(2, 2)), r"Points\(dims=...\): .* got None"),
    (
        lambda: mt.Points(x=[1.0], covariates={"d": [1.0, 2.0]}),
        r"Points\(covariates='d'\): expected 1 finite .* shape \(2,\)",
    ),
    (
        lambda: mt.Points(x=[1.0], covariates={"d": [NAN]}),
        r"Points\(covariates='d'\): .* with 1 not finite",
    ),
    (lambda: mt.Grid(), r"Grid\(...\): expected at least one axis, got none"),
    (
        lambda: mt.Grid(time=[0.0, 2.0, 1.0]),
        r"Grid\(time=...\): .* increasing .* got \[0.0, 2.0, 1.0\].*sortby\('time'\)",
    ),
    (lambda: mt.Grid(x=[0.0, 0.0]), r"Grid\(x=...\): expected strictly increasing"),
    (
        lambda: mt.Grid(lat=[0.0], lon=[-180.0, 200.0]),
        r"Grid\(lon=...\): expected at most one turn, got -180 to 200",
    ),
    (
        lambda: mt.Grid(x=[0.0, 1.0], mask=[1, 0]),
        r"Grid\(mask=...\): expected booleans \(True is sea\), got torch.int64",
    ),
    (
        lambda: mt.Grid(x=[0.0, 1.0], mask=[True]),
        r"Grid\(mask=...\): expected shape \(2,\) or its last axes, got \(1,\)",
    ),
    (
        lambda: mt.Grid(x=[0.0, 1.0], mask=[False, False]),
        r"expected some sea, got a mask that is False everywhere",
    ),
    (
        lambda: mt.Grid(x=[0.0, 1.0], covariates={"d": [1.0]}),
        r"Grid\(covariates='d'\): expected 2 finite values",
    ),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_arguments_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
