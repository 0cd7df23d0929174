"""Files in: every format and every usual name gives the numbers that were written."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from matheron.data import describe, read

DATES = np.array(["2014-05-15T06:00", "2014-05-15T18:00", "2014-05-17T00:00"], "M8[ns]")
DAYS = [0.25, 0.75, 2.0]  # since the midnight before the first one
LON, LAT, ADT = [3.0, 4.0, 5.5], [40.0, 41.0, 42.5], [0.1, -0.2, 0.3]


def table(**columns):
    return pd.DataFrame(columns)


def tracks():
    return table(time=DATES, lon=LON, lat=LAT, adt=ADT)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
def test_csv_round_trip(tmp_path, suffix, separator):
    path = tmp_path / f"tracks.{suffix}"
    tracks().to_csv(path, sep=separator, index=False)
    check_tracks(read(path))


def test_parquet_round_trip(tmp_path):
    tracks().to_parquet(tmp_path / "tracks.parquet")
    check_tracks(read(tmp_path / "tracks.parquet"))


@pytest.mark.parametrize("units", ["days since 1950-01-01", "seconds since 2014-01-01 00:00:00"])
def test_along_track_netcdf_round_trip(tmp_path, units):
    ds = xr.Dataset(
        {"adt": ("obs", ADT, {"units": "m", "long_name": "topography"})},
        coords={"time": ("obs", DATES), "longitude": ("obs", LON), "latitude": ("obs", LAT)},
        attrs={"platform": "AltiKa"},
    )
    packed = {"dtype": "int16", "scale_factor": 1e-3, "_FillValue": np.int16(-32768)}
    encoding = {"adt": packed, "time": {"units": units, "dtype": "float64"}}
    ds.to_netcdf(tmp_path / "tracks.nc", encoding=encoding)
    data = read(tmp_path / "tracks.nc")
    check_tracks(data, tolerance=1e-9)  # a nanosecond in days
    assert (data.units, data.long_name, data.groups.labels) == ("m", "topography", ("AltiKa",))


def check_tracks(data, tolerance=1e-12):
    assert (data.variable, data.points.dims) == ("adt", ("time", "lat", "lon"))
    assert data.epoch == np.datetime64("2014-05-15")
    expected = torch.tensor([DAYS, LAT, LON], dtype=torch.float64).T
    torch.testing.assert_close(data.points.coords, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(data.values, torch.tensor(ADT, dtype=torch.float64))
    assert (data.grid, data.dropped, data.values.dtype) == (None, 0, torch.float64)


@pytest.mark.parametrize(
    "names",
    [
        ("lon", "lat"),
        ("Longitude", "LATITUDE"),
        ("nav_lon", "nav_lat"),
        ("long", "Lat"),
        ("x_lon", "y_lat"),
        ("lon [degrees_east]", "lat (deg)"),
    ],
)
def test_usual_names_on_the_sphere(tmp_path, names):
    table(**dict(zip(names, (LON, LAT), strict=True)), v=ADT).to_csv(tmp_path / "a.csv")
    points = read(tmp_path / "a.csv").points
    assert points.metric == "sphere"
    assert points.coords.T.tolist() == [LAT, LON]


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "Y"), ("easting", "Northing"), ("Xloc", "Yloc")]
)
def test_usual_names_on_the_plane(tmp_path, names):
    table(**dict(zip(names, (LON, LAT), strict=True)), v=ADT).to_csv(tmp_path / "a.csv")
    points = read(tmp_path / "a.csv").points
    assert (points.dims, points.metric) == (("y", "x"), "plane")
    assert points.coords.T.tolist() == [LAT, LON]


def test_names_given_by_the_user(tmp_path):
    table(a=LON, b=LAT, c=[1.0, 2.0, 3.0], d=ADT).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv", "d", lon="a", lat="b", z="c")
    assert data.points.dims == ("z", "lat", "lon")
    assert data.points.coords[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_plane_is_preferred_where_it_is_asked_for(tmp_path):
    table(lon=LON, lat=LAT, Xloc=[0, 1, 2], Yloc=[2, 1, 0], v=ADT).to_csv(tmp_path / "a.csv")
    by_default, asked = read(tmp_path / "a.csv"), read(tmp_path / "a.csv", x="Xloc", y="Yloc")
    assert (by_default.points.dims, asked.points.dims) == (("lat", "lon"), ("y", "x"))
    assert set(by_default.covariates) == {"Xloc", "Yloc"}


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (
            ["2014-05-15T12:00:00Z", "2014-05-16T00:00:00+02:00", "2014-05-17"],
            [0.5, 0.916667, 2.0],
        ),
        (["2014/05/15", "2014/05/16 12:00", "2014/05/17"], [0.0, 1.5, 2.0]),
        ([20140515, 20140516, 20140601], [0.0, 1.0, 17.0]),
        (
            ["2014-05-15 06:00:00", "2014-05-15 18:00:00.5", "2014-05-17 00:00"],
            [0.25, 0.750006, 2],
        ),
    ],
)
def test_dates_as_people_write_them(tmp_path, times, days):
    table(date=times, lon=LON, lat=LAT, v=ADT).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert data.epoch == np.datetime64("2014-05-15")
    assert data.points.axis("time").numpy() == pytest.approx(days, abs=1e-6)


def test_date_and_clock_time_in_two_columns(tmp_path):
    date, clock = ["2014-05-15", "2014-05-15", "2014-05-17"], ["06:00:00", "18:00:00", "00:00:00"]
    table(date=date, time=clock, lon=LON, lat=LAT, v=ADT).to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv").points.axis("time").numpy() == pytest.approx(DAYS)


def test_units_in_the_header(tmp_path):
    columns = {
        "time [hours since 2014-05-15]": [6, 18, 48],
        "lon": LON,
        "lat": LAT,
        "adt [m]": ADT,
    }
    table(**columns).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv", "ADT")
    assert (data.variable, data.units) == ("adt", "m")
    assert data.points.axis("time").numpy() == pytest.approx(DAYS)


def test_plain_times_are_kept_and_said(tmp_path):
    table(time=[5.5, 7.0, 1e6], lon=LON, lat=LAT, v=ADT).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert data.epoch is None
    assert data.points.axis("time").tolist() == [5.5, 7.0, 1e6]
    assert any("plain numbers" in note for note in data.notes)


@pytest.mark.parametrize(
    ("lon", "expected"),
    [
        ([359.0, 0.5, 3.0], [-1.0, 0.5, 3.0]),
        ([178.0, -179.0, -175.0], [178.0, 181.0, 185.0]),
        ([-3.0, 0.0, 2.0], [-3.0, 0.0, 2.0]),
        ([350.0, 352.0, 354.0], [350.0, 352.0, 354.0]),
        ([-350.0, -352.0, -354.0], [10.0, 8.0, 6.0]),
    ],
)
def test_longitudes_are_on_one_branch(tmp_path, lon, expected):
    table(lon=lon, lat=LAT, v=ADT).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert data.points.axis("lon").numpy() == pytest.approx(expected, abs=1e-9)
    assert any("branch" in note for note in data.notes) == (lon != expected)


def test_global_longitudes_are_left_alone(tmp_path):
    lon = np.linspace(0, 359.5, 300)
    frame = table(lon=lon, lat=np.linspace(-60, 60, 300), v=np.arange(300.0))
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv").points.axis("lon").numpy() == pytest.approx(lon)


@pytest.mark.parametrize(
    "content",
    [
        "\ufefflon,lat,v\r\n3,40,1.5\r\n4,41,2.5\r\n",
        "# a comment\nlon lat v\n3 40 1.5\n4 41 2.5\n",
        '"lon";"lat";"v"\n3,0;40;1,5\n4,0;41;2,5\n',
        "lon,lat,v,\n3,40,1.5,\n4,41,2.5,\n",
        "id,lon, lat, v\n7,3,40,1.5\n8,4,41,2.5\n",
    ],
)
def test_dialects_of_csv(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    data = read(tmp_path / "a.csv")
    assert data.points.coords.tolist() == [[40.0, 3.0], [41.0, 4.0]]
    assert (data.values.tolist(), data.covariates) == ([1.5, 2.5], {})


def test_auxiliary_coordinates_are_no_variables(tmp_path):
    plane = {"x": [0.0, 1e3, 2e3], "y": [0.0, 1e3], "lat": (("y", "x"), np.ones((2, 3)))}
    plane["lon"] = (("y", "x"), np.arange(6.0).reshape(2, 3))
    xr.Dataset({"v": (("y", "x"), np.ones((2, 3)))}, plane).to_netcdf(tmp_path / "a.nc")
    assert read(tmp_path / "a.nc").points.dims == ("lat", "lon")
    assert read(tmp_path / "a.nc", x="x", y="y").grid.dims == ("y", "x")


def test_missing_values_are_left_out_and_counted(tmp_path):
    table(lon=LON, lat=LAT, v=[0.5, np.nan, 1.5]).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert (data.dropped, data.rows.tolist(), data.values.tolist()) == (1, [0, 2], [0.5, 1.5])
    assert "left out 1 missing value of 3" in data.notes


def test_missions_passes_noise_and_covariates(tmp_path):
    frame = table(
        lon=[1.0, 2.0, 3.0, 4.0],
        lat=[40.0] * 4,
        sla=[*ADT, 0.0],
        sla_std=[0.1, 0.2, 0.3, 0.4],
        mission=["j2", "al", "al", "j2"],
        track=[7, 7, 7, 7],
        cycle=[1, 1, 2, 1],
        depth=[10.0, np.nan, 30.0, 40.0],
        dist=[1.0, 2.0, 3.0, 4.0],
    )
    frame.to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet", "sla")
    assert (data.groups.labels, data.groups.codes.tolist()) == (("al", "j2"), [1, 0, 0, 1])
    assert data.passes.tolist() == [2, 0, 1, 2]  # one track of two missions is two passes
    assert data.noise.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert set(data.covariates) == {"depth", "dist"}
    assert set(data.points.covariates) == {"dist"}  # the other has a gap


def test_unsound_noise_is_left_out_unless_asked_for(tmp_path):
    table(lon=LON, lat=LAT, v=ADT, v_std=[0.1, -1.0, 0.2]).to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert data.noise is None
    assert any("not used as noise" in note for note in data.notes)


def test_duplicates_are_counted(tmp_path):
    frame = table(lon=[1, 1, 1, 2], lat=[40, 40, 40, 40], v=[0.1, 0.1, 0.3, 0.2])
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv").duplicates == 1


FIELD = np.arange(24.0).reshape(2, 3, 4)
AXES = {
    "time": DATES[[0, 2]],
    "lat": np.array([40.0, 41.0, 42.5]),
    "lon": np.array([-2.0, -1.0, 0.0, 1.0]),
}


def field(**changes):
    axes = {**AXES, **changes}
    return xr.Dataset({"sst": (("time", "lat", "lon"), FIELD.copy())}, coords=axes)


def check_field(data, values=FIELD):
    assert data.grid.dims == ("time", "lat", "lon")
    full = torch.full((24,), torch.nan, dtype=torch.float64)
    full[data.rows] = data.values
    expected = torch.as_tensor(values, dtype=torch.float64)
    torch.testing.assert_close(full.reshape(2, 3, 4), expected, equal_nan=True)
    torch.testing.assert_close(data.points.coords, data.grid.points.coords[data.rows])
    assert data.mask_valid.equal(expected.isfinite())
    assert data.grid.axes["lat"].tolist() == [40.0, 41.0, 42.5]
    assert data.grid.axes["lon"].tolist() == [-2.0, -1.0, 0.0, 1.0]
    assert data.grid.epoch == np.datetime64("2014-05-15")


def test_gridded_field(tmp_path):
    ds = field()
    ds["sst"][0, 1, 2] = np.nan
    ds.to_netcdf(tmp_path / "a.nc")
    check_field(read(tmp_path / "a.nc"), ds.sst.values)


def test_grid_in_any_order(tmp_path):
    ds = field().isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    ds.rename(lat="nav_lat", lon="Longitude").to_netcdf(tmp_path / "a.nc")
    data = read(tmp_path / "a.nc")
    check_field(data)
    assert "flipped the axis 'nav_lat'" in data.notes


@pytest.mark.parametrize("lon", [[358.0, 359.0, 0.0, 1.0], [-2.0, -1.0, 0.0, 1.0]])
def test_grid_across_the_seam(tmp_path, lon):
    field(lon=lon).to_netcdf(tmp_path / "a.nc")
    check_field(read(tmp_path / "a.nc"))


def test_shuffled_axis_is_sorted_with_its_data(tmp_path):
    field().isel(lon=[2, 0, 3, 1]).to_netcdf(tmp_path / "a.nc")
    data = read(tmp_path / "a.nc")
    check_field(data)
    assert "sorted the axis 'lon'" in data.notes


def test_axes_on_two_dims_that_are_a_lattice(tmp_path):
    lat, lon = np.meshgrid(AXES["lat"], AXES["lon"], indexing="ij")
    coords = {"time": AXES["time"], "nav_lat": (("y", "x"), lat), "nav_lon": (("y", "x"), lon)}
    xr.Dataset({"sst": (("time", "y", "x"), FIELD)}, coords).to_netcdf(tmp_path / "a.nc")
    check_field(read(tmp_path / "a.nc"))


def test_files_of_a_grid_are_stacked_in_time(tmp_path):
    for i in (1, 0):
        field().isel(time=[i]).to_netcdf(tmp_path / f"day{1 - i}.nc")
    check_field(read(tmp_path / "*.nc"))


def test_scalar_time_is_an_axis_when_files_are_stacked(tmp_path):
    for i in (0, 1):
        field().isel(time=i).to_netcdf(tmp_path / f"day{i}.nc")
    check_field(read(sorted(tmp_path.glob("*.nc"))))


def test_files_of_tracks_are_joined(tmp_path):
    tracks().iloc[:1].to_csv(tmp_path / "a.csv", index=False)
    tracks().iloc[1:].to_csv(tmp_path / "b.csv", index=False)
    check_tracks(read([tmp_path / "a.csv", tmp_path / "b.csv"]))


def test_a_single_date_is_dropped_unless_kept(tmp_path):
    field().isel(time=[0]).to_netcdf(tmp_path / "a.nc")
    assert read(tmp_path / "a.nc").grid.dims == ("lat", "lon")
    assert read(tmp_path / "a.nc", squeeze=False).grid.dims == ("time", "lat", "lon")


def test_a_level_is_dropped(tmp_path):
    field().expand_dims(depth=[0.5], axis=1).to_netcdf(tmp_path / "a.nc")
    check_field(read(tmp_path / "a.nc"))


def test_the_meridian_written_twice_is_dropped(tmp_path):
    lon = np.linspace(0, 360, 5)
    values = np.tile(np.array([0.0, 1, 2, 3, 0]), (2, 1))
    xr.Dataset({"v": (("lat", "lon"), values)}, {"lat": [0.0, 1.0], "lon": lon}).to_netcdf(
        tmp_path / "a.nc"
    )
    assert read(tmp_path / "a.nc").grid.axes["lon"].tolist() == [0.0, 90.0, 180.0, 270.0]


@pytest.mark.parametrize("sea", [0, 1])
def test_a_mask_tells_sea_from_land_by_the_data(tmp_path, sea):
    ds = field()
    ds["mask"] = (("lat", "lon"), np.full((3, 4), sea))
    ds["mask"][0, 0] = 1 - sea
    ds["sst"] = ds["sst"].where(ds["mask"] == sea)
    ds["sst"][0, 2, 2] = np.nan
    ds.to_netcdf(tmp_path / "a.nc")
    data = read(tmp_path / "a.nc")
    assert len(data.grid) == 22
    assert len(data) == 21
    assert not data.grid.mask.reshape(2, 3, 4)[:, 0, 0].any()


def test_swath_is_read_as_points_with_dims_matched_by_name(tmp_path):
    lat = np.array([[40.0, 40.1, 40.2], [41.0, 41.1, 41.2]])
    lon = np.array([[3.0, 3.1, 3.2], [3.05, 3.15, 3.25]])
    across = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    ssh = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]])
    dims = ("num_lines", "num_pixels")
    ds = xr.Dataset(
        {"ssha": (dims, ssh), "cross_track_distance": (dims[::-1], across)},
        coords={"time": (dims[0], DATES[:2]), "lat": (dims, lat), "lon": (dims, lon)},
    )
    ds.to_netcdf(tmp_path / "a.nc")
    data = read(tmp_path / "a.nc")
    keep = np.isfinite(ssh).ravel()
    assert data.points.axis("lat").tolist() == lat.ravel()[keep].tolist()
    assert data.points.axis("time").tolist() == [0.25, 0.25, 0.75, 0.75, 0.75]
    assert data.covariates["cross_track_distance"].tolist() == [-1.0, 1.0, -1.0, 0.0, 1.0]


def test_valid_range_is_applied_unless_it_is_absurd(tmp_path):
    ds = xr.Dataset({"v": ("obs", [1.0, 2.0, 50.0])}, {"lon": ("obs", LON), "lat": ("obs", LAT)})
    ds["v"].attrs |= {"valid_min": 0.0, "valid_max": 10.0}
    ds.to_netcdf(tmp_path / "a.nc")
    assert read(tmp_path / "a.nc").values.tolist() == [1.0, 2.0]
    ds["v"].attrs |= {"valid_min": 0.0, "valid_max": 0.0}
    ds.to_netcdf(tmp_path / "b.nc")
    assert read(tmp_path / "b.nc").values.tolist() == [1.0, 2.0, 50.0]


def test_a_variable_is_found_without_its_case(tmp_path):
    table(lon=LON, lat=LAT, SLA=ADT, adt=LON).to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv", "sla").variable == "SLA"


def test_a_depth_of_minus_999_among_others_is_a_depth(tmp_path):
    frame = table(lon=LON, lat=LAT, depth=[-999.0, -1500.0, -400.0])
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert len(read(tmp_path / "a.csv")) == 3


def test_description_says_what_is_in_the_file(tmp_path):
    frame = table(
        time=DATES,
        lon=[359.0, 0.5, 0.5],
        lat=[40, 41, 41],
        sla=[1.0, np.nan, 800.0],
        mission=["al", "al", "j2"],
    )
    frame.loc[3] = [DATES[2], 0.5, 41, 700.0, "j2"]
    frame.to_parquet(tmp_path / "a.parquet")
    description = describe(tmp_path / "a.parquet")
    facts = description.facts["sla"]
    assert facts["values"] == "3 of 4 (25.0% missing)"
    assert facts["time"].startswith("2014-05-15T06:00:00 to 2014-05-17T00:00:00")
    assert facts["lon"] == "-1 to 0.5 (-180..180)"
    assert facts["missions"] == "al (1), j2 (2)"
    assert "SLA" in facts["quantity"]
    text = str(description)
    assert "are its units metres?" in text
    assert "1 values at the coordinates of another" in text


@pytest.mark.parametrize(
    "kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4", "NETCDF4_CLASSIC"]
)
def test_every_netcdf_format(tmp_path, kind):
    ds = field().isel(time=0, drop=True)
    ds.to_netcdf(tmp_path / "a.nc", format=kind)
    assert read(tmp_path / "a.nc").values.tolist() == FIELD[0].ravel().tolist()
