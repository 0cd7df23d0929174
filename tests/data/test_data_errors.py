"""Bad input is refused in one line that says what is wrong, where, and what to do."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from matheron.data import InputError, check_output, parse_grid, read, read_points

LON, LAT, V = [3.0, 4.0, 5.5], [40.0, 41.0, 42.5], [0.1, -0.2, 0.3]


def csv(**columns):
    """Returns a maker of a CSV table that is sound, but for the columns given."""
    return lambda path: pd.DataFrame({"lon": LON, "lat": LAT, "v": V, **columns}).to_csv(
        path, index=False
    )


def text(content):
    return lambda path: path.write_text(content)


def raw(content):
    return lambda path: path.write_bytes(content)


def parquet(**columns):
    return lambda path: pd.DataFrame({"lon": LON, "lat": LAT, "v": V, **columns}).to_parquet(path)


def grid(values=None, dims=("lat", "lon"), attrs=None, **axes):
    axes = {"lat": [40.0, 41.0], "lon": [3.0, 4.0, 5.0], **axes}
    values = np.arange(6.0).reshape(2, 3) if values is None else np.asarray(values)
    ds = xr.Dataset({"v": (dims, values, attrs or {})}, axes)
    return lambda path: ds.to_netcdf(path)


def track(**variables):
    columns = {"lon": LON, "lat": LAT, "v": V, **variables}
    ds = xr.Dataset({k: ("obs", v) if not isinstance(v, tuple) else v for k, v in columns.items()})
    return lambda path: ds.to_netcdf(path)


def cut(make, keep=0.6):
    """Returns a maker of a file that is cut short, as after a failed download."""

    def short(path):
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole))])

    return short


def classic(path):
    columns = {k: ("obs", np.ones(5000)) for k in ("lon", "lat", "v")}
    xr.Dataset(columns).to_netcdf(path, format="NETCDF3_CLASSIC")


def damaged(path):
    """Writes a compressed file with a block of zeros in its data."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset({k: ("obs", rng.normal(size=20_000)) for k in ("lon", "lat", "v")})
    ds.to_netcdf(path, encoding={k: {"zlib": True} for k in ds.variables})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)


NAN, INF = float("nan"), float("inf")
FILES = {
    "absent": ("a.csv", lambda path: None, {}, "expected a file, got no such file"),
    "other case": ("A.csv", text("x"), {"path": "a.csv"}, "Did you mean 'A.csv'"),
    "absent folder": ("a.csv", lambda p: None, {"path": "no/a.csv"}, "folder .*no does not exist"),
    "folder": ("a.csv", lambda path: path.mkdir(), {}, "expected a file, got a folder"),
    "empty": ("a.csv", text(""), {}, "got an empty file"),
    "blank": ("a.csv", text("\n\n"), {}, "expected a header and rows"),
    "header only": ("a.csv", text("lon,lat,v\n"), {}, "expected at least one row, got none"),
    "suffix": ("a.xlsx", raw(b"PK\x03\x04"), {}, "got suffix '.xlsx'"),
    "no suffix": ("tracks", text("lon,lat,v\n1,2,3\n"), {}, "got suffix ''"),
    "spreadsheet": ("a.csv", raw(b"PK\x03\x04abc"), {}, "got a ZIP archive or spreadsheet"),
    "binary": ("a.csv", raw(b"lon,lat\x00\x01"), {}, "neither text nor a known format"),
    "parquet as csv": ("a.csv", parquet(), {}, "got a Parquet table. Rename it with .parquet"),
    "csv as parquet": ("a.parquet", csv(), {}, "got a CSV table. Rename it with .csv"),
    "csv as netcdf": ("a.nc", csv(), {}, "got a CSV table. Rename it with .csv"),
    "netcdf as csv": ("a.csv", grid(), {}, "got a NetCDF file. Rename it with .nc"),
    "cut parquet": ("a.parquet", cut(parquet()), {}, "expected a whole Parquet table"),
    "cut netcdf": ("a.nc", cut(grid()), {}, "expected a whole NetCDF file"),
    "cut header": ("a.nc", cut(grid(), 0.01), {}, "expected a whole NetCDF file"),
    "cut classic": ("a.nc", cut(classic), {}, "expected a whole NetCDF file"),
    "damaged": ("a.nc", damaged, {"variable": "v"}, "expected a whole NetCDF file"),
    "not utf-8": ("a.csv", raw("lon,lat,température\n1,2,3\n".encode("latin-1")), {}, "UTF-8"),
    "long row": ("a.csv", text("lon,lat,v\n1,2,3\n1,2,3,4\n"), {}, "as many fields"),
    "row names": ("a.csv", text("lon,lat,v\n1,5,6,7\n2,5,6,7\n"), {}, "as many fields"),
    "no coordinates": ("a.csv", text("a,b\n1,2\n"), {}, "expected coordinates.* got 'a', 'b'"),
    "only lat": ("a.csv", text("lat,v\n1,2\n"), {}, "a 'lon' beside 'lat'"),
    "only lon": ("a.csv", text("Longitude,v\n1,2\n"), {}, "a 'lat' beside 'Longitude'"),
    "two lat": ("a.csv", csv(Lat=LAT), {}, "one column for 'lat', got 'lat', 'Lat'"),
    "same column": ("a.csv", csv(), {"lon": "lat"}, "one column per coordinate"),
    "unknown lon": ("a.csv", csv(), {"lon": "longg"}, "got 'longg'. Did you mean 'lon'"),
    "unknown variable": ("a.csv", csv(), {"variable": "w"}, "expected one of 'v'.* got 'w'"),
    "near variable": ("a.csv", csv(adt_1=V), {"variable": "adt_2"}, "Did you mean 'adt_1'?"),
    "two variables": ("a.csv", csv(w=V), {}, "one of 'v', 'w' .*Name the variable"),
    "no variable": ("a.csv", text("lon,lat\n1,2\n"), {}, "expected a numeric variable"),
    "text": ("a.csv", csv(v=["0.1", "abc", "0.2"]), {}, "1 that are not, e.g. 'abc' at row 2"),
    "lon is text": ("a.csv", csv(lon=["1", "2E", "3"]), {}, r"read\(lon=lon\).*'2E' at row 2"),
    "booleans": ("a.parquet", parquet(v=[True, False, True]), {"variable": "v"}, "got booleans"),
    "dates": (
        "a.parquet",
        parquet(v=pd.to_datetime(["2014"] * 3)),
        {"variable": "v"},
        "got dates",
    ),
    "categories": (
        "a.parquet",
        parquet(v=pd.Categorical(["a", "b", "a"])),
        {"variable": "v"},
        "got categories",
    ),
    "objects": ("a.parquet", parquet(v=[[1], [2], [3]]), {"variable": "v"}, "3 that are not"),
    "all missing": ("a.csv", csv(v=[NAN] * 3), {"variable": "v"}, "got 3 missing values"),
    "infinite": ("a.csv", csv(v=[1.0, INF, 2.0]), {}, "got 1 infinite, the first at row 2"),
    "fill -9999": ("a.csv", csv(v=[-9999.0, 0.2, -9999]), {}, "2 times the fill value -9999"),
    "fill 1e20": ("a.csv", csv(v=[1e20, 0.2, 0.1]), {}, r"1 times the fill value 1e\+20"),
    "fill default": ("a.csv", csv(v=[9.96921e36, 0.2, 0.1]), {}, "1 times the fill value 9.96921"),
    "fill int16": ("a.csv", csv(v=[-32768, 3, 5]), {}, "1 times the fill value -32768"),
    "nan lat": (
        "a.csv",
        csv(lat=[40.0, NAN, NAN]),
        {},
        "2 missing or infinite, the first at row 2",
    ),
    "infinite lon": ("a.csv", csv(lon=[1.0, 2.0, INF]), {}, "finite 'lon', got 1"),
    "lat 95": ("a.csv", csv(lat=[95.0, 10, 20], lon=[170.0, 1, 2]), {}, "latitudes within .-90"),
    "swapped": ("a.csv", csv(lon=LAT, lat=[170.0, 175, 179]), {}, "look swapped: exchange them"),
    "metres": ("a.csv", csv(lon=[181072.0] * 3, lat=[3336.0] * 3), {}, "--x and --y"),
    "lon 400": ("a.csv", csv(lon=[400.0, 1, 2]), {}, r"longitudes within \[-360, 360\]"),
    "radians": ("a.csv", csv(lon=[-3.0, 0, 3.0], lat=[-1.4, 0, 1.4]), {}, "as radians"),
    "date": (
        "a.csv",
        csv(time=["2014-05-15", "15/05/2014", "x"]),
        {},
        "ISO dates, got '15/05/2014'",
    ),
    "clock": ("a.csv", csv(time=["04:12:04", "04:12:05", "04:12:06"]), {}, "ISO dates"),
    "nat": ("a.csv", csv(time=["2014-05-15", None, "2014-05-16"]), {}, "finite 'time', got 1"),
    "year 1": ("a.csv", csv(time=["0001-01-01"] * 3), {}, "dates from 1678 to 2262, got 0001"),
    "31 June": ("a.csv", csv(time=[20140631, 20140601, 20140602]), {}, "got '20140631'"),
    "months": (
        "a.nc",
        track(time=("obs", [0, 1, 2], {"units": "months since 2000-01-01"})),
        {},
        "times in 'months since 2000-01-01'",
    ),
    "noise unknown": ("a.csv", csv(s=V), {"variable": "v", "noise": "t"}, r"read\(noise=t\)"),
    "noise < 0": ("a.csv", csv(s=V), {"variable": "v", "noise": "s"}, "std >= 0, got 1"),
    "axis twice": (
        "a.nc",
        grid(lat=[40.0, 40.0]),
        {},
        "each value of the axis 'lat' once, got 40",
    ),
    "axis nan": ("a.nc", grid(lon=[3.0, NAN, 5.0]), {}, "finite axis 'lon', got 1"),
    "axis range": ("a.nc", grid(lat=[40.0, 91.0]), {}, "latitudes within .-90 degrees, got 1"),
    "levels": (
        "a.nc",
        grid(np.zeros((2, 2, 3)), ("depth", "lat", "lon")),
        {},
        "another axis 'depth' of size 2",
    ),
    "grid gaps": ("a.nc", grid(np.full((2, 3), NAN)), {}, "got 6 missing values"),
    "grid complex": ("a.nc", grid(), {"variable": "w"}, "expected one of 'v'"),
    "packed fill": (
        "a.nc",
        lambda path: xr.Dataset(
            {"v": ("obs", np.array([1, 2, -32768], "i2"), {"scale_factor": 0.001})},
            {"lon": ("obs", LON), "lat": ("obs", LAT)},
        ).to_netcdf(path),
        {},
        "1 times the fill value -32768",
    ),
    "grid text": ("a.nc", track(v=["a", "b", "c"]), {"variable": "v"}, "3 that are not"),
    "no coordinates, netcdf": (
        "a.nc",
        lambda path: xr.Dataset({"v": ("obs", V)}).to_netcdf(path),
        {},
        "got 'v'",
    ),
    "lengths": (
        "a.nc",
        track(v=("other", [1.0, 2.0])),
        {"variable": "v"},
        "the dims of 'lat'|another axis",
    ),
    "calendar": (
        "a.nc",
        track(time=("obs", [0, 1, 2], {"units": "days since 2000-01-01", "calendar": "360_day"})),
        {},
        "calendar '360_day'",
    ),
    "time overflow": (
        "a.nc",
        track(time=("obs", [0, 1, 9.96921e36], {"units": "days since 2000-01-01"})),
        {},
        "Check the units and the fill value of time",
    ),
    "time units": (
        "a.nc",
        track(time=("obs", [0, 1, 2], {"units": "days since yesterday"})),
        {},
        "yesterday",
    ),
    "radian units": (
        "a.nc",
        track(lon=("obs", [0.1, 0.2, 0.3], {"units": "radians"})),
        {},
        "as radians",
    ),
    "pattern": ("a.csv", csv(), {"path": "*.nc"}, "files that match, got none"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file_is_refused_in_one_line(tmp_path, case):
    name, make, arguments, message = FILES[case]
    make(tmp_path / name)
    path = tmp_path / arguments.get("path", name)
    arguments = {k: v for k, v in arguments.items() if k != "path"}
    with pytest.raises(InputError, match=message) as caught:
        read(path, **arguments)
    check_line(str(caught.value))


def check_line(line):
    assert "\n" not in line
    assert line.endswith((".", "?"))
    assert "): expected " in line
    assert ", got " in line


def test_no_file_at_all():
    with pytest.raises(InputError, match="at least one file"):
        read([])


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (csv(), csv(time=["2014-05-15"] * 3), "the coordinates of a.csv"),
        (csv(time=[1, 2, 3]), csv(time=["2014-05-15"] * 3), "the kind of times of a.csv"),
    ],
)
def test_files_must_be_of_one_kind(tmp_path, one, other, message):
    one(tmp_path / "a.csv")
    other(tmp_path / "b.csv")
    with pytest.raises(InputError, match=message):
        read([tmp_path / "a.csv", tmp_path / "b.csv"])


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (grid(attrs={"units": "m"}), grid(attrs={"units": "cm"}), "the units of a.nc .m., got cm"),
        (grid(), track(), "the kind of data of a.nc"),
        (grid(), grid(lon=[0.0, 1.0, 2.0]), "another axis 'lon'|no time axis"),
    ],
)
def test_netcdf_files_must_be_of_one_kind(tmp_path, one, other, message):
    one(tmp_path / "a.nc")
    other(tmp_path / "b.nc")
    with pytest.raises(InputError, match=message):
        read([tmp_path / "a.nc", tmp_path / "b.nc"])


def test_a_date_in_two_files(tmp_path):
    make = grid(
        np.zeros((1, 2, 3)), ("time", "lat", "lon"), time=[np.datetime64("2014-05-15", "ns")]
    )
    make(tmp_path / "a.nc")
    make(tmp_path / "b.nc")
    with pytest.raises(InputError, match="each date once, got 1 date"):
        read(tmp_path / "*.nc")


@pytest.fixture
def tracks(tmp_path):
    csv(time=["2014-05-15", "2014-05-16", "2014-05-17"])(tmp_path / "tracks.csv")
    return read(tmp_path / "tracks.csv")


@pytest.fixture
def scene(tmp_path):
    csv()(tmp_path / "scene.csv")
    return read(tmp_path / "scene.csv")


GRIDS = {
    "0:1:0,40:41:1": "a step > 0 for 'lon'",
    "0:1:-1,40:41:1": "a step > 0 for 'lon'",
    "5:1:1,40:41:1": "first <= last for 'lon'",
    "a:b:c,40:41:1": "first:last:step for 'lon', got 'a:b:c'",
    "0:1,40:41:1": "first:last:step",
    "0:1:1": "2 spans first:last:step for lon, lat, got 1",
    "0:1:1,40:41:1,2014-05-15:2014-05-16:1": "2 spans first:last:step",
    "0:1:1,2014-05-15:2014-05-16:1": "numbers for 'lat'",
    "0:1:1,40:95:1": "degrees within",
    "0:359:1e-6,40:41:1": "at most 2e.07 nodes",
    "0:1:1h,40:41:1": "a step in the units of 'lon'",
    "same": "data on a grid, got 3 points",
    "missing.nc": "no such file",
    "": "got nothing",
    "nonsense": "2 spans first:last:step",
}


@pytest.mark.parametrize("text", GRIDS)
def test_bad_grid_is_refused_in_one_line(scene, text):
    with pytest.raises(InputError, match=GRIDS[text]) as caught:
        parse_grid(text, scene)
    check_line(str(caught.value))


TIMED = {
    "0:1:1,40:41:1": "Add the dates, e.g. ,2014-05-15:2014-05-17:1",
    "0:1:1,40:41:1,1:2:1": "dates, as in the data, got '1'",
    "0:1:1,40:41:1,2014-02-30:2014-03-01:1": "a date of the calendar",
    "0:1:1,40:41:1,2014-05-16:2014-05-15:1": "first <= last for 'time'",
}


@pytest.mark.parametrize("text", TIMED)
def test_bad_dates_of_a_grid_are_refused(tracks, text):
    with pytest.raises(InputError, match=TIMED[text]) as caught:
        parse_grid(text, tracks)
    check_line(str(caught.value))


def test_grid_file_without_the_time_of_the_data(tmp_path, tracks):
    grid()(tmp_path / "a.nc")
    with pytest.raises(InputError, match="axes time, lat, lon of the data, got no 'time'"):
        parse_grid(str(tmp_path / "a.nc"), tracks)


def test_table_is_no_grid(tmp_path, scene):
    with pytest.raises(InputError, match="got a table of points"):
        parse_grid(str(tmp_path / "scene.csv"), scene)


POINTS = {
    "nan": (
        csv(lat=[40.0, NAN, 41.0]),
        "finite 'lat', got 1 missing or infinite, the first at row 2",
    ),
    "no lon": (text("lat\n1\n"), "a 'lon' beside 'lat'"),
    "lat 91": (csv(lat=[91.0, 40, 41], lon=[100.0, 1, 2]), "latitudes within"),
    "empty": (text("lon,lat\n"), "at least one row"),
    "text": (csv(lon=["a", "b", "c"]), "3 that are not, e.g. 'a'"),
}


@pytest.mark.parametrize("case", POINTS)
def test_bad_points_are_refused(tmp_path, scene, case):
    make, message = POINTS[case]
    make(tmp_path / "at.csv")
    with pytest.raises(InputError, match=message) as caught:
        read_points(tmp_path / "at.csv", scene)
    check_line(str(caught.value))


def test_points_need_the_time_of_the_data(tmp_path, tracks):
    csv()(tmp_path / "at.csv")
    with pytest.raises(
        InputError, match=r"got no 'time' among lon, lat, v. Add the column 'time'"
    ):
        read_points(tmp_path / "at.csv", tracks)
    csv(time=[1, 2, 3])(tmp_path / "at.csv")
    with pytest.raises(InputError, match="times as dates, as in the data, got plain numbers"):
        read_points(tmp_path / "at.csv", tracks)


def test_points_are_a_table(tmp_path, scene):
    grid()(tmp_path / "at.nc")
    with pytest.raises(InputError, match=r"expected a CSV or Parquet table, got a NetCDF file"):
        read_points(tmp_path / "at.nc", scene)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/map.nc", "an existing folder"),
        ("map.png", "a name that ends with .nc, .csv, .parquet, got '.png'"),
        ("map", "a name that ends with"),
        ("", "expected a file, got a folder"),
    ],
)
def test_bad_output_is_refused_before_any_work(tmp_path, name, message):
    with pytest.raises(InputError, match=message) as caught:
        check_output(tmp_path / name)
    check_line(str(caught.value))
    assert list(tmp_path.iterdir()) == []
