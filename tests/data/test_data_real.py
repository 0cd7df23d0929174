"""Real products read as xarray and pandas read them; skipped where the data are absent."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from matheron.data import InputError, describe, read

GRIDS = [
    ("heaton/satellite_train.nc", "temperature"),
    ("heaton/simulated.nc", "mask_temp"),
    ("heaton/simulated.nc", "true_temp"),
    ("mediterranean/duacs_l4_adt_2005-04_2005-05.nc", "adt"),
    ("mediterranean/duacs_l4_mean_20140515_20140531.nc", "adt"),
    ("alboran_sst_avhrr.nc", "SST"),
    ("formats/dt_med_allsat_phy_l4_20160515.nc", "adt"),
    ("formats/dt_med_allsat_phy_l4_20160515.nc", "sla"),
    ("formats/nrt_blacksea_allsat_phy_l4_20190601.nc", "sla"),
    ("formats/glorys12v1_gulfstream_2days.nc", "zos"),
    ("formats/glorys12v1_gulfstream_2days.nc", "thetao"),
]


@pytest.mark.parametrize(("name", "variable"), GRIDS)
def test_gridded_products(real_data, name, variable):
    data = read(real_data / name, variable)
    with xr.open_dataset(real_data / name) as ds:
        field = ds[variable].squeeze(drop=True)
        lat, lon = (next(k for k in field.dims if str(k).startswith(s)) for s in ("lat", "lon"))
        field = field.sortby(lat).sortby(lon)
        assert data.grid.shape == field.shape
        np.testing.assert_array_equal(data.grid.axes["lat"].numpy(), field[lat].values)
        np.testing.assert_array_equal(data.grid.axes["lon"].numpy(), field[lon].values)
        seen = np.isfinite(field.values)
        np.testing.assert_array_equal(data.mask_valid.numpy(), seen)
        np.testing.assert_array_equal(data.values.numpy(), field.values[seen].astype(np.float64))
        if "time" in field.dims:
            days = (field.time.values - data.epoch) / np.timedelta64(1, "D")
            np.testing.assert_allclose(data.grid.axes["time"].numpy(), days, rtol=0, atol=1e-9)


def test_the_mask_of_a_product(real_data):
    data = read(real_data / "alboran_sst_avhrr.nc")
    with xr.open_dataset(real_data / "alboran_sst_avhrr.nc") as ds:
        sea = (ds["mask"].values == 1) | np.isfinite(ds.SST.values).any(axis=0)
    assert data.variable == "SST"
    np.testing.assert_array_equal(data.grid.mask.reshape(data.grid.shape)[0].numpy(), sea)


def test_a_choice_must_be_made(real_data):
    with pytest.raises(InputError, match="'mask_temp', 'true_temp'"):
        read(real_data / "heaton" / "simulated.nc")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("dt_med_al_adt_vfec_20140101.nc", "ADT"),
        ("dt_med_al_phy_vxxc_l3_20140605.nc", "sla_unfiltered"),
        ("dt_med_al_phy_vxxc_l3_20140605.nc", "adt_unfiltered"),
    ],
)
def test_along_track_products(real_data, name, variable):
    path = real_data / "formats" / name
    data = read(path, variable)
    with xr.open_dataset(path) as ds:
        seen = np.isfinite(ds[variable].values)
        np.testing.assert_array_equal(data.values.numpy(), ds[variable].values[seen])
        turns = (data.points.axis("lon").numpy() - ds.longitude.values[seen]) / 360
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
        days = (ds.time.values[seen] - data.epoch) / np.timedelta64(1, "D")
        np.testing.assert_allclose(data.points.axis("time").numpy(), days, rtol=0, atol=1e-9)
        tracks = np.unique(ds.track.values[seen]).size
    assert np.ptp(data.points.axis("lon").numpy()) < 50  # Mediterranean, on one branch
    assert (data.groups.labels, int(data.passes.max()) + 1) == (("AltiKa",), tracks)


def test_all_formats_are_described(real_data):
    for path in sorted((real_data / "formats").glob("*.nc")):
        assert describe(path).facts


@pytest.mark.parametrize(
    ("name", "variable", "dims"),
    [
        ("jason3_windspeed.parquet", "windspeed", ("time", "lat", "lon")),
        (
            "modis_chlorophyll/modis_aqua_chl_poly4_nwa_2018252_l3b4km.parquet",
            "chl",
            ("lat", "lon"),
        ),
        ("gulfstream/s6a_l3_ssh_20230101_20230607.parquet", "ssh", ("time", "lat", "lon")),
        (
            "mediterranean/adt_alongtrack_20140515_20140603_al_h2_j2.parquet",
            "adt",
            ("time", "lat", "lon"),
        ),
        ("classics/meuse.parquet", "zinc", ("y", "x")),
        ("classics/walker.parquet", "V", ("y", "x")),
        ("classics/walker_exh.parquet", "V", ("y", "x")),
    ],
)
def test_tables(real_data, name, variable, dims):
    frame = pd.read_parquet(real_data / name)
    data = read(real_data / name, variable)
    frame = frame[frame[variable].notna()]
    assert data.points.dims == dims
    np.testing.assert_array_equal(data.values.numpy(), frame[variable].to_numpy(np.float64))
    for k in dims:
        expected = frame[k]
        if expected.dtype.kind == "M":
            expected = (expected - pd.Timestamp(data.epoch)) / pd.Timedelta(days=1)
        tolerance = 1e-9 if k == "time" else 0.0
        np.testing.assert_allclose(data.points.axis(k).numpy(), expected, rtol=0, atol=tolerance)


def test_jason3_keeps_its_seconds_and_its_branch(real_data):
    data = read(real_data / "jason3_windspeed.parquet")
    assert (data.epoch, data.points.metric, len(data)) == (None, "sphere", 18_973)
    assert data.points.axis("time").max() > 500_000
    assert 0 <= data.points.axis("lon").min() < data.points.axis("lon").max() <= 360


def test_missions_of_the_mediterranean(real_data):
    folder = real_data / "mediterranean"
    data = read(folder / "adt_alongtrack_20140515_20140603_al_h2_j2.parquet")
    assert data.groups.labels == ("al", "h2", "j2")
    assert data.groups.codes.bincount().tolist() == [3109, 2312, 3159]
    assert len(data.passes) == 8_580
    assert read(folder / "duacs_l4_mean_20140515_20140531.nc", "adt").noise is not None


def test_jura_by_either_pair_of_coordinates(real_data):
    path = real_data / "classics" / "jura_pred.parquet"
    assert read(path, "Cd").points.dims == ("lat", "lon")
    local = read(path, "Cd", x="Xloc", y="Yloc")
    np.testing.assert_array_equal(local.points.axis("x").numpy(), pd.read_parquet(path)["Xloc"])


@pytest.mark.parametrize(
    ("name", "variable", "lat", "lon"),
    [
        ("SWOT_L3_LR_SSH_Expert_003_v2.0.1-med.nc", "ssha_filtered", "lat", "lon"),
        ("karin_simulated_med_with_truth.nc", "ssh_karin", "latitude", "longitude"),
        ("eNATL60_20090815_SSH_westmed.nc", "sossheig", "lat", "lon"),
    ],
)
def test_swaths(real_data, name, variable, lat, lon):
    data = read(real_data / "swot" / name, variable)
    with xr.open_dataset(real_data / "swot" / name) as ds:
        seen = np.isfinite(ds[variable].values)
        assert data.grid is None
        np.testing.assert_array_equal(data.values.numpy(), ds[variable].values[seen])
        for axis, column in (("lat", lat), ("lon", lon)):
            np.testing.assert_array_equal(data.points.axis(axis).numpy(), ds[column].values[seen])
        if "time" in ds:
            days = (ds.time.values - data.epoch) / np.timedelta64(1, "D")
            days = np.broadcast_to(days[:, None], seen.shape)[seen]
            np.testing.assert_allclose(data.points.axis("time").numpy(), days, rtol=0, atol=1e-9)


def test_cross_track_distance_is_matched_by_the_names_of_its_dims(real_data):
    name = "SWOT_L3_LR_SSH_Expert_003_v2.0.1-med.nc"
    data = read(real_data / "swot" / name)
    across = data.covariates["cross_track_distance"]
    torch.testing.assert_close(across.abs().max().item(), 68.0, atol=8.0, rtol=0)
    with xr.open_dataset(real_data / "swot" / name) as ds:
        seen = np.isfinite(ds.ssha_filtered.values)
        expected = ds.cross_track_distance.transpose(*ds.ssha_filtered.dims).values[seen]
        np.testing.assert_array_equal(across.numpy(), expected)
