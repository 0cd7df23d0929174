"""Files out: CF attributes, the numbers themselves, and all or nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from matheron.data import InputError, map_dataset, read, read_map, write_dataset, write_table
from matheron.domain import Grid


@pytest.fixture
def grid():
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[0, 0] = False
    time = np.array(["2014-05-15T06:00", "2014-05-16"], "M8[ns]")
    return Grid(time=time, lat=[40.0, 41.0, 42.0], lon=[3.0, 4.0, 5.0, 6.0], mask=mask)


@pytest.fixture
def dataset(grid, generator):
    mean, std = torch.randn(2, len(grid), dtype=torch.float64, generator=generator)
    members = torch.randn(5, len(grid), dtype=torch.float64, generator=generator)
    attributes = {"command": "matheron map a.csv", "seed": 3, "version": "0.1"}
    return map_dataset(
        grid,
        mean,
        std.abs(),
        std.abs() + 1,
        members,
        variable="adt",
        units="m",
        standard_name="sea_surface_height_above_geoid",
        attributes=attributes,
    )


def test_map_round_trip(tmp_path, grid, dataset):
    path = write_dataset(dataset, tmp_path / "map.nc")
    with xr.open_dataset(path) as ds:
        assert set(ds.data_vars) == {"adt", "adt_std", "adt_obs_std", "adt_member"}
        assert ds.adt.dims == ("time", "latitude", "longitude")
        assert ds.adt_member.dims == ("realization", "time", "latitude", "longitude")
        assert ds.adt_member.dtype == np.float32
        for name in ds.data_vars:
            np.testing.assert_array_equal(ds[name].values, dataset[name].values)
            assert np.isnan(ds[name].values[..., 0, 0]).all()
            assert np.isfinite(ds[name].values[..., 1:, :]).all()
        np.testing.assert_array_equal(
            ds.time.values, np.array(["2014-05-15T06", "2014-05-16"], "M8[ns]")
        )


def test_map_is_cf(tmp_path, dataset):
    with xr.open_dataset(write_dataset(dataset, tmp_path / "map.nc"), decode_times=False) as ds:
        assert ds.attrs["Conventions"] == "CF-1.8"
        assert ds.attrs["command"] == "matheron map a.csv"
        assert ds.attrs["seed"] == 3
        assert "matheron map a.csv" in ds.attrs["history"]
        assert ds.latitude.attrs["units"] == "degrees_north"
        assert ds.longitude.attrs["standard_name"] == "longitude"
        assert ds.time.attrs["units"].startswith("days since 1950-01-01")
        assert ds.realization.attrs["standard_name"] == "realization"
        assert ds.adt.attrs["ancillary_variables"] == "adt_std adt_obs_std"
        assert ds.adt_std.attrs["standard_name"] == "sea_surface_height_above_geoid standard_error"
        assert all(ds[v].attrs["units"] == "m" for v in ds.data_vars)


def test_what_is_written_can_be_read(tmp_path, grid, dataset):
    data = read(write_dataset(dataset, tmp_path / "map.nc"), "adt")
    assert data.grid.epoch == grid.epoch
    torch.testing.assert_close(data.points.coords, grid.points.coords, rtol=0, atol=1e-9)
    seen = np.isfinite(dataset.adt.values)
    assert data.values.numpy().tolist() == dataset.adt.values[seen].tolist()
    assert data.noise.numpy().tolist() == dataset.adt_std.values[seen].tolist()


def test_a_map_is_read_whole(tmp_path, grid, dataset):
    back = read_map(write_dataset(dataset, tmp_path / "map.nc"))
    assert (back.variable, back.units, back.grid.dims) == ("adt", "m", grid.dims)
    assert back.grid.mask.equal(grid.mask)
    for part, name in (("mean", "adt"), ("std", "adt_std"), ("obs_std", "adt_obs_std")):
        field = back.grid.unflatten(getattr(back, part)).numpy()
        np.testing.assert_array_equal(field, dataset[name].values)
    np.testing.assert_array_equal(
        back.grid.unflatten(back.members).numpy(), dataset.adt_member.values
    )


def test_a_map_with_its_axes_turned_is_the_same_map(tmp_path, dataset):
    write_dataset(dataset, tmp_path / "a.nc")
    turned = dataset.isel(latitude=slice(None, None, -1), longitude=[2, 3, 0, 1])
    turned = turned.transpose("longitude", ...)
    write_dataset(turned, tmp_path / "b.nc")
    one, other = read_map(tmp_path / "a.nc"), read_map(tmp_path / "b.nc")
    assert one.mean.equal(other.mean)
    assert one.members.equal(other.members)


def test_plane_and_unfriendly_names(tmp_path):
    ds = map_dataset(Grid(x=[0.0, 1.0], y=[0.0, 2.0]), torch.zeros(4), variable="dist.m/s [%]")
    with xr.open_dataset(write_dataset(ds, tmp_path / "map.nc")) as written:
        assert list(written) == ["dist_m_s"]
        assert written["dist_m_s"].dims == ("y", "x")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, dataset, monkeypatch, error):
    def fail(self, path, **options):
        path.write_bytes(b"half of a file")
        raise error

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(error):
        write_dataset(dataset, tmp_path / "map.nc")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_keeps_the_former_file(tmp_path, monkeypatch):
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")

    def fail(self, path, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(KeyboardInterrupt):
        write_table(pd.DataFrame({"a": [2]}), path)
    assert path.read_text() == "a\n1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_table_round_trip(tmp_path, suffix):
    table = pd.DataFrame({"lon": [1.1, 2.2], "v": [0.1 + 0.2, np.nan], "who": ["a", "b"]})
    path = write_table(table, tmp_path / f"a.{suffix}")
    read_back = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(read_back, table, check_dtype=False, rtol=0, atol=0)


def test_files_can_be_read_by_others(tmp_path):
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_wrong_suffix_is_refused(tmp_path, dataset):
    with pytest.raises(InputError, match=r"ends with .nc, got '.csv'"):
        write_dataset(dataset, tmp_path / "map.csv")
    with pytest.raises(InputError, match=r"ends with .csv, .parquet, got '.nc'"):
        write_table(pd.DataFrame(), tmp_path / "map.nc")
