"""Files of every convention of sea level, written here and read back to known values."""

import numpy as np
import pandas as pd
import pytest
import tracemalloc
import xarray as xr

from matheron.data import InputError, describe, read, read_map
from matheron.data.missions import mission_of

START = np.datetime64("2017-01-01T00:00:00", "ns")
LON = np.array([294.5, 295.0, 359.5, 1.0])
LAT = np.array([33.0, 34.0, 35.0, 36.0])
SLA = np.array([0.101, -0.052, 0.003, 0.2])
MDT = np.array([0.5, 0.4, 0.3, 0.2])
LWE = np.array([0.01, -0.02, 0.03, 0.0])


def dates(count, step=0.25):
    return START + (np.arange(count) * step * 86400e9).astype("timedelta64[ns]")


def level3(path, sla=SLA, start=0.0, **attributes):
    """Writes an along-track file of Copernicus Marine: packed, 0..360, days since 1950."""
    size = len(sla)
    height = {"units": "m", "standard_name": "sea_surface_height_above_sea_level"}
    ds = xr.Dataset(
        {
            "sla_unfiltered": ("time", sla, height),
            "sla_filtered": ("time", sla / 2, height),
            "mdt": ("time", MDT[:size], {"units": "m"}),
            "lwe": ("time", LWE[:size], {"units": "m"}),
            "dac": ("time", LWE[:size], {"units": "m"}),
            "ocean_tide": ("time", LWE[:size], {"units": "m"}),
            "cycle": ("time", np.full(size, 3, np.int16)),
            "track": ("time", np.arange(size, dtype=np.int16) // 2),
            "flag": ("time", np.ones(size, np.int8)),
        },
        coords={
            "time": dates(size) + np.timedelta64(round(start * 86400), "s"),
            "longitude": ("time", LON[:size], {"units": "degrees_east"}),
            "latitude": ("time", LAT[:size], {"units": "degrees_north"}),
        },
        attrs=attributes,
    )
    packed = {"dtype": "int16", "scale_factor": 1e-3, "_FillValue": np.int16(32767)}
    names = ("sla_unfiltered", "sla_filtered", "mdt", "lwe", "dac", "ocean_tide")
    places = {"dtype": "int32", "scale_factor": 1e-6, "_FillValue": np.int32(2147483647)}
    encoding = {**dict.fromkeys(names, packed), "longitude": places, "latitude": places}
    encoding["time"] = {"units": "days since 1950-01-01 00:00:00", "dtype": "float64"}
    ds.to_netcdf(path, encoding=encoding)
    return path


def level4(path, lon0=295.0, units="m", scale=1.0):
    """Writes a daily L4 map: int32, fill value, 0..360 or not, time as float32 days."""
    lat, lon = 33.0 + np.arange(5) * 0.25, lon0 + np.arange(6) * 0.25
    adt = scale * (np.arange(60.0).reshape(2, 5, 6) / 100 - 0.2)
    adt[:, 0, 0] = np.nan
    fields = {"adt": adt, "sla": adt - 0.3, "ugos": adt, "vgos": adt, "err_sla": 0.05 + 0 * adt}
    dims = ("time", "latitude", "longitude")
    ds = xr.Dataset(
        {k: (dims, v, {"units": "m/s" if "gos" in k else units}) for k, v in fields.items()},
        coords={"time": dates(2, 1.0), "latitude": lat, "longitude": lon},
    ).assign(
        crs=((), np.int32(0)),
        flag_ice=(dims, np.zeros(adt.shape, np.int8)),
        lat_bnds=(("latitude", "nv"), np.stack([lat, lat], 1)),
    )
    packed = {"dtype": "int32", "scale_factor": 1e-4, "_FillValue": np.int32(-2147483647)}
    encoding = {k: packed for k in fields}
    encoding["time"] = {"units": "days since 1950-01-01 00:00:00", "dtype": "float32"}
    ds.to_netcdf(path, encoding=encoding)
    return adt


def swath(path, time=True, names=("ssha_filtered", "quality_flag"), lines=4, pixels=3, **attrs):
    """Writes a swath of SWOT: two dims, a gap at nadir, cross-track distance on swapped dims."""
    dims = ("num_lines", "num_pixels")
    along, across = np.meshgrid(np.arange(lines), np.arange(pixels), indexing="ij")
    height = 0.01 * along + 0.001 * across
    height = np.where(across == pixels // 2, np.nan, height)
    ds = xr.Dataset(
        {k: (dims, np.zeros(height.shape, np.int8) if "flag" in k else height) for k in names},
        coords={
            "longitude": (dims, 3 + 0.02 * across + 0.001 * along),
            "latitude": (dims, 40 + 0.02 * along),
        },
        attrs=attrs,
    )
    ds["cross_track_distance"] = (dims[::-1], (2.0 * (across - pixels // 2)).T, {"units": "km"})
    if time:
        ds["time"] = (dims[0], dates(lines))
    ds.to_netcdf(path)
    return height


def test_level3_is_unpacked_and_put_on_one_branch(tmp_path):
    level3(tmp_path / "a.nc", np.where(np.arange(4) == 1, np.nan, SLA), platform="Jason-3")
    data = read(tmp_path / "a.nc", "sla_unfiltered")
    np.testing.assert_allclose(data.values, SLA[[0, 2, 3]], atol=1e-12)
    np.testing.assert_allclose(data.points.axis("lon"), [-65.5, -0.5, 1.0], atol=1e-9)
    np.testing.assert_allclose(data.points.axis("time"), [0.0, 0.5, 0.75], atol=1e-8)
    assert (data.quantity, data.units, data.dropped) == ("sla", "m", 1)
    assert data.groups.labels == ("Jason-3",)
    assert data.passes.tolist() == [0, 1, 1]


def test_corrections_are_no_candidates_but_a_choice_of_filter_is(tmp_path):
    level3(tmp_path / "a.nc")
    with pytest.raises(InputError, match="one of 'sla_unfiltered', 'sla_filtered' in"):
        read(tmp_path / "a.nc")


def test_first_generation_of_level3(tmp_path):
    ds = xr.Dataset(
        {"ADT": ("time", SLA, {"units": "m"})},
        {"time": dates(4), "longitude": ("time", LON - 360), "latitude": ("time", LAT)},
    )
    packed = {"dtype": "int16", "scale_factor": 1e-3, "_FillValue": np.int16(32767)}
    ds.to_netcdf(tmp_path / "dt_med_al_adt_vfec_20140101.nc", encoding={"ADT": packed})
    data = read(tmp_path / "dt_med_al_adt_vfec_20140101.nc")
    assert (data.variable, data.quantity) == ("ADT", "adt")
    np.testing.assert_allclose(data.values, SLA, atol=1e-12)


@pytest.mark.parametrize("source", ["mdt", "file", "cm", "global"])
def test_anomalies_become_topographies(tmp_path, source):
    level3(tmp_path / "a.nc")
    east = lambda lon: (lon + 180) % 360 - 180
    plane = lambda lat, lon: 0.1 + 0.01 * lat + 0.002 * east(lon)
    if source == "mdt":
        mdt, mean = "mdt", MDT
    else:
        lat = np.arange(30.0, 41.0)
        lon = np.arange(0.0, 360.0, 2.0) if source == "global" else np.arange(-70.0, 6.0)
        field = plane(lat[:, None], lon[None]) * (100 if source == "cm" else 1)
        unit = {"units": "cm" if source == "cm" else "m"}
        ds = xr.Dataset({"mdt": (("lat", "lon"), field, unit)}, {"lat": lat, "lon": lon})
        mdt = tmp_path / "mdt.nc"
        ds.to_netcdf(mdt)
        mean = plane(LAT, LON)  # linear, so interpolated exactly, across the seam too
    adt = read(tmp_path / "a.nc", "sla_unfiltered", mdt=mdt)
    np.testing.assert_allclose(adt.values, SLA + mean, atol=1e-9)
    assert (adt.variable, adt.quantity) == ("adt", "adt")
    assert any("added the mean dynamic topography" in n for n in adt.notes)


def test_topographies_become_anomalies_again(tmp_path):
    table = pd.DataFrame({"lon": LON, "lat": LAT, "adt": SLA + MDT, "mdt": MDT})
    table.to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv", mdt="mdt", quantity="sla")
    np.testing.assert_allclose(data.values, SLA, atol=1e-12)
    with pytest.raises(InputError, match="data to turn into adt, got 'adt'"):
        read(tmp_path / "a.csv", mdt="mdt")


def test_data_outside_of_the_mean_topography_are_left_out_and_said(tmp_path):
    level3(tmp_path / "a.nc")
    field = np.full((3, 3), 0.5)
    field[2, :] = np.nan  # land
    axes = {"lat": [32.0, 34.0, 36.0], "lon": [290.0, 300.0, 360.0]}
    xr.Dataset({"mdt": (("lat", "lon"), field)}, axes).to_netcdf(tmp_path / "mdt.nc")
    data = read(tmp_path / "a.nc", "sla_filtered", mdt=tmp_path / "mdt.nc")
    np.testing.assert_allclose(data.values, SLA[:3] / 2 + 0.5, atol=6e-4)  # packed by 1 mm
    assert "left out 1 values where the mean topography has none" in data.notes


def test_the_long_wavelength_correction_is_kept_or_removed(tmp_path):
    path = level3(tmp_path / "a.nc")
    kept, removed = read(path, "sla_unfiltered"), read(path, "sla_unfiltered", lwe="remove")
    np.testing.assert_allclose((kept.values - removed.values).numpy(), LWE, atol=1e-12)
    xr.Dataset({"sla": ("t", SLA)}, {"lon": ("t", LON), "lat": ("t", LAT)}).to_netcdf(
        tmp_path / "b.nc"
    )
    with pytest.raises(InputError, match=r"a column 'lwe' in .* got none"):
        read(tmp_path / "b.nc", lwe="remove")
    with pytest.raises(InputError, match=r"lwe=drop.*keep or remove"):
        read(path, "sla_unfiltered", lwe="drop")


def test_missions_are_by_file_and_sorted_by_time(tmp_path):
    names = [
        "dt_gulfstream_c2_phy_l3_20161201-20180131_285-315_23-53.nc",
        "dt_gulfstream_alg_phy_l3_20161201-20180131_285-315_23-53.nc",
    ]
    for i, name in enumerate(names):
        level3(tmp_path / name, SLA + i, start=0.1 * i)
    data = read(tmp_path / "dt_*.nc", "sla_unfiltered")
    time = data.points.axis("time")
    assert bool((time.diff() > 0).all())
    assert (data.groups.name, data.groups.labels) == ("mission", ("alg", "c2"))
    assert data.groups.codes.tolist() == [1, 0] * 4
    expected = np.stack([SLA, SLA + 1], 1).ravel()
    np.testing.assert_allclose(data.values, expected, atol=1e-12)
    assert data.rows.tolist() == [4, 0, 5, 1, 6, 2, 7, 3]  # alg is the first file


def test_days_of_one_mission_are_one_mission(tmp_path):
    for day in (1, 2):
        level3(tmp_path / f"obs_2017010{day}.nc", start=day)
    assert read(tmp_path / "obs_*.nc", "sla_filtered").groups is None


def test_a_file_without_its_mission_joins_files_that_have_one(tmp_path):
    level3(tmp_path / "a_20170101.nc", platform="Jason-3")
    level3(tmp_path / "c2_20170102.nc", start=1.0)
    data = read(tmp_path / "*.nc", "sla_filtered")
    assert data.groups.labels == ("Jason-3", "c2")


def challenge(path, name, values, swath_of=0):
    """Writes data or maps of the 2020a challenge."""
    time = np.arange(len(values)) * 0.5
    ds = xr.Dataset({name: ("time", values)}, {"time": ("time", time)})
    ds["time"].attrs["units"] = "days since 2012-10-01"
    if swath_of:
        dims, shape = ("time", "nC"), (len(values), swath_of)
        ds[name] = (dims, np.broadcast_to(values[:, None], shape) + 0.01 * np.arange(swath_of))
        ds["lon"] = (dims, np.broadcast_to(300.0 + 0.1 * np.arange(swath_of), shape))
        ds["lat"] = (dims, np.broadcast_to(35.0 + 0.1 * np.arange(len(values))[:, None], shape))
        ds["x_ac"] = ("nC", np.arange(swath_of) - swath_of / 2)
    else:
        ds["lon"], ds["lat"] = ("time", LON[: len(values)]), ("time", LAT[: len(values)])
    ds.to_netcdf(path)


def test_observations_of_the_2020a_challenge(tmp_path):
    stem = "2020a_SSH_mapping_NATL60_{}.nc"
    challenge(tmp_path / stem.format("jason1"), "ssh_model", SLA)
    challenge(tmp_path / stem.format("topex-poseidon_interleaved"), "ssh_model", SLA + 1)
    challenge(tmp_path / stem.format("karin_swot"), "ssh_model", SLA[:2], swath_of=3)
    data = read(tmp_path / "2020a*.nc")
    assert data.groups.labels == ("jason1", "karin_swot", "topex-poseidon_interleaved")
    assert data.groups.codes.bincount().tolist() == [4, 6, 4]
    assert (data.epoch, data.quantity) == (np.datetime64("2012-10-01"), "ssh")
    karin = read(tmp_path / stem.format("karin_swot"))
    expected = (SLA[:2, None] + 0.01 * np.arange(3)).ravel()
    np.testing.assert_allclose(karin.values, expected, atol=1e-12)
    assert karin.points.axis("time").tolist() == [0.0] * 3 + [0.5] * 3
    assert karin.covariates["x_ac"].tolist() == [-1.5, -0.5, 0.5] * 2


@pytest.mark.parametrize("name", ["sossheig", "gssh", "ssh", "ssh_mod"])
def test_maps_of_the_challenges(tmp_path, name):
    values = np.arange(24.0).reshape(2, 3, 4) / 10
    axes = {"time": [0.5, 1.5], "lat": [33.0, 34.0, 35.0], "lon": [295.0, 296.0, 297.0, 298.0]}
    ds = xr.Dataset({name: (("time", "lat", "lon"), values)}, axes)
    ds["time"].attrs["units"] = "days since 2012-10-01"
    ds.to_netcdf(tmp_path / "map.nc")
    chart = read_map(tmp_path / "map.nc")
    assert (chart.variable, chart.quantity) == (name, "ssh")
    np.testing.assert_array_equal(chart.mean, values.ravel())
    assert chart.grid.axes["time"].tolist() == [0.5, 1.5]
    assert chart.grid.epoch == np.datetime64("2012-10-01")


def test_truth_with_its_mean_topography_is_read_by_its_height(tmp_path):
    axes = {"time": dates(2, 1.0), "lat": [33.0, 34.0], "lon": [-60.0, -59.0]}
    ds = xr.Dataset({"ssh": (("time", "lat", "lon"), np.arange(8.0).reshape(2, 2, 2))}, axes)
    ds["mdt"] = (("lat", "lon"), np.ones((2, 2)))
    ds.to_netcdf(tmp_path / "truth.nc")
    assert read(tmp_path / "truth.nc").variable == "ssh"


@pytest.mark.parametrize("lon0", [295.0, -65.0, 358.75])
def test_level4_maps(tmp_path, lon0):
    adt = level4(tmp_path / "l4.nc", lon0)
    chart = read_map(tmp_path / "l4.nc", "adt")
    np.testing.assert_allclose(chart.grid.unflatten(chart.mean), adt, atol=1e-9)
    np.testing.assert_allclose(chart.std, 0.05, atol=1e-9)
    assert (chart.quantity, chart.units) == ("adt", "m")
    assert np.ptp(chart.grid.axes["lon"].numpy()) == 1.25
    with pytest.raises(InputError, match="one of 'adt', 'sla' in"):
        read_map(tmp_path / "l4.nc")


def test_centimetres_are_kept_alone_and_converted_among_metres(tmp_path):
    places = {"time": dates(4), "lon": LON, "lat": LAT}
    for name, unit, factor in (("a", "m", 1), ("b", "cm", 100)):
        columns = {"sla": ("obs", SLA * factor, {"units": unit})}
        coords = {k: ("obs", v) for k, v in places.items()}
        xr.Dataset(columns, coords).to_netcdf(tmp_path / f"{name}.nc")
    alone = read(tmp_path / "b.nc")
    np.testing.assert_allclose(alone.values, SLA * 100)
    assert alone.units == "cm"
    both = read([tmp_path / "a.nc", tmp_path / "b.nc"])
    np.testing.assert_allclose(both.values, np.repeat(SLA, 2))
    assert both.units == "m"
    assert "converted b.nc from cm to m" in both.notes


def test_anomalies_and_topographies_are_not_mixed(tmp_path):
    for name in ("sla", "adt"):
        table = pd.DataFrame({"lon": LON, "lat": LAT, name: SLA, "mdt": MDT})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = [tmp_path / "adt.csv", tmp_path / "sla.csv"]
    with pytest.raises(InputError, match=r"expected adt as in adt.csv, got 'sla' .*--mdt FILE"):
        read(files)
    mixed = read(files, mdt="mdt")
    np.testing.assert_allclose(mixed.values, np.concatenate([SLA, SLA + MDT]), atol=1e-12)
    assert mixed.quantity == "adt"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_long_table_of_copernicus(tmp_path, suffix):
    rows = [
        {
            "variable": name,
            "platform_id": platform,
            "platform_type": "satellite",
            "time": str(dates(4)[i])[:19] + "Z",
            "longitude": LON[i],
            "latitude": LAT[i],
            "depth": np.nan,
            "value": values[i],
            "value_qc": 4 if (name, i) == ("sla_filtered", 3) else 1,
            "institution": "CLS",
        }
        for name, values in (("sla_filtered", SLA), ("mdt", MDT), ("lwe", LWE))
        for i, platform in enumerate(["j3", "j3", "s3a", "s3a"])
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)
    path = tmp_path / f"long.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    data = read(path)  # lwe and mdt are no candidates
    order = np.argsort(data.points.axis("time").numpy())
    np.testing.assert_allclose(data.values.numpy()[order], SLA[:3])
    np.testing.assert_allclose(data.covariates["mdt"].numpy()[order], MDT[:3])
    assert data.dropped == 1  # flagged as bad
    assert (data.groups.labels, data.variable) == (("j3", "s3a"), "sla_filtered")
    adt = read(path, mdt="mdt", lwe="remove")
    order = np.argsort(adt.points.axis("time").numpy())
    np.testing.assert_allclose(adt.values.numpy()[order], (SLA - LWE + MDT)[:3])


def test_repeats_in_a_long_table_stay_repeats(tmp_path):
    table = pd.DataFrame({"variable": ["sla"] * 2, "value": [0.1, 0.2], "lon": 1.0, "lat": 40.0})
    table.to_csv(tmp_path / "a.csv", index=False)
    assert sorted(read(tmp_path / "a.csv").values.tolist()) == [0.1, 0.2]


@pytest.mark.parametrize("names", [("ssha_noiseless", "quality_flag"), ("ssha_filtered", "mdt")])
def test_swaths_of_both_versions(tmp_path, names):
    height = swath(tmp_path / "a.nc", names=names)
    data = read(tmp_path / "a.nc")
    seen = np.isfinite(height)
    np.testing.assert_array_equal(data.values, height[seen])
    assert (data.variable, data.quantity) == (names[0], "sla")
    assert data.rows.tolist() == np.flatnonzero(seen).tolist()
    assert data.dropped == 4
    assert data.covariates["cross_track_distance"].tolist() == [-2.0, 2.0] * 4
    np.testing.assert_allclose(data.points.axis("time"), np.repeat([0.0, 0.25, 0.5, 0.75], 2))


def test_swaths_without_times_take_those_of_their_coverage_among_others(tmp_path):
    name = "SWOT_L3_LR_SSH_Basic_001_{}_20170102T000000_20170102T004000_v1.0.nc"
    swath(tmp_path / name.format("003"), time=False)
    ends = ("2017-01-03T00:00:00Z", "2017-01-03T00:40:00Z")
    attributes = dict(zip(("time_coverage_start", "time_coverage_end"), ends, strict=True))
    swath(tmp_path / name.format("004"), time=False, **attributes)
    data = read(tmp_path / "SWOT*.nc")
    days = data.points.axis("time").unique()
    assert days.tolist() == pytest.approx([20 / 1440, 1 + 20 / 1440])
    assert any("middle of their coverage" in n for n in data.notes)
    alone = read(tmp_path / name.format("003"))
    assert alone.points.dims == ("lat", "lon")  # alone, a swath stays without times


def test_a_swath_joins_nadir_tracks(tmp_path):
    swath(tmp_path / "SWOT_L3_LR_SSH_001_003_20170102T000000_20170102T004000.nc", time=False)
    coords = {"time": dates(4), "longitude": ("time", LON), "latitude": ("time", LAT)}
    xr.Dataset({"ssha_filtered": ("time", SLA)}, coords).to_netcdf(tmp_path / "j3_201701.nc")
    data = read(tmp_path / "*.nc")
    assert data.groups.labels == ("j3", "swot")
    assert len(data) == 12
    assert bool((data.points.axis("time").diff() >= 0).all())


def test_memory_of_a_swath_is_that_of_what_is_asked_for(tmp_path):
    names = [f"ssha_{k}" for k in ("filtered", "unfiltered", "unedited", *range(12))]
    swath(tmp_path / "a.nc", names=names, lines=2000, pixels=60)
    read(tmp_path / "a.nc", "ssha_filtered")  # what is made once is made
    tracemalloc.start()
    data = read(tmp_path / "a.nc", "ssha_filtered")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    field = 8 * 2000 * 60
    assert peak < 18 * field  # 14 other fields, as read and as kept, would be 28 more
    assert set(data.covariates) == {"cross_track_distance"}


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = level3(tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="a whole NetCDF file"):
        read(path, "sla_filtered")


def test_the_same_track_in_two_files_is_counted(tmp_path):
    for name in ("a_20170101.nc", "a_20170102.nc"):
        level3(tmp_path / name, SLA + (0.1 if name == "a_20170102.nc" else 0.0))
    assert read(tmp_path / "*.nc", "sla_unfiltered").duplicates == 4


def test_description_tells_the_quantity(tmp_path):
    level3(tmp_path / "a.nc")
    facts = describe(tmp_path / "a.nc").facts
    assert facts["sla_filtered"]["quantity"] == "sea level anomaly (SLA)"
    assert "quantity" not in facts["mdt"]


@pytest.mark.parametrize(
    ("name", "variable", "quantity"),
    [
        ("dt_med_al_adt_vfec_20140101.nc", "ADT", "adt"),
        ("dt_med_al_phy_vxxc_l3_20140605.nc", "sla_unfiltered", "sla"),
        ("dt_med_allsat_phy_l4_20160515.nc", "adt", "adt"),
        ("nrt_blacksea_allsat_phy_l4_20190601.nc", None, "sla"),
        ("glorys12v1_gulfstream_2days.nc", "zos", "adt"),
    ],
)
def test_quantities_of_real_products(real_data, name, variable, quantity):
    assert read(real_data / "formats" / name, variable).quantity == quantity


def test_real_tracks_meet_a_real_mean_topography(real_data, tmp_path):
    """ADT less SLA of one DUACS map is its mean topography: it takes tracks from one to other."""
    with xr.open_dataset(real_data / "formats" / "dt_med_allsat_phy_l4_20160515.nc") as ds:
        (ds.adt - ds.sla).to_dataset(name="mdt").isel(time=0).to_netcdf(tmp_path / "mdt.nc")
    path = real_data / "formats" / "dt_med_al_phy_vxxc_l3_20140605.nc"
    both = read(path, "sla_unfiltered", mdt=tmp_path / "mdt.nc")
    truth = read(path, "adt_unfiltered")
    kept = np.isin(truth.rows, both.rows)
    away = both.values.numpy() - truth.values.numpy()[kept]
    assert 0.5 < len(both) / len(truth) <= 1.0
    assert np.sqrt((away**2).mean()) < 0.05  # another version of the mean: a few centimetres


def test_simulated_observations_are_those_with_errors(tmp_path):
    time = np.datetime64("2012-10-22") + np.arange(4).astype("timedelta64[h]")
    columns = {k: ("time", v + np.arange(4.0)) for k, v in (("ssh_model", 0.0), ("ssh_obs", 5.0))}
    columns |= {"white": ("time", np.full(4, 5.0)), "lat": ("time", np.full(4, 38.0))}
    columns["lon"] = ("time", np.linspace(-60.0, -59.0, 4))
    xr.Dataset(columns, {"time": time}).to_netcdf(tmp_path / "obs_jason1.nc")
    found = read(tmp_path / "obs_jason1.nc")
    assert found.variable == "ssh_obs"
    assert found.values.tolist() == [5.0, 6.0, 7.0, 8.0]


def test_missions_of_simulated_files():
    assert mission_of("obs_jason1.nc") == "jason1"
    assert mission_of("train_obs_karin_swot.nc") == "karin_swot"
