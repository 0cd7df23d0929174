"""Files out as L4 products: names, metres, branches, packing, currents; read back exactly."""

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from matheron.data import (
    InputError,
    check_same,
    geostrophic_currents,
    l4_dataset,
    quantity_of,
    read_map,
    write_dataset,
)
from matheron.domain import EARTH_RADIUS, Grid

DATES = np.array(["2017-01-01T12:00", "2017-01-02T12:00"], "M8[ns]")


@pytest.fixture
def grid():
    mask = np.ones((2, 4, 5), bool)
    mask[:, 0, 1] = False
    lat, lon = 33.0 + np.arange(4) * 0.25, 295.0 + np.arange(5) * 0.25
    return Grid(time=DATES, lat=lat, lon=lon, mask=mask)


def draw(grid, generator, *size):
    return 0.3 * torch.randn(*size, len(grid), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("quantity", ["adt", "sla"])
def test_round_trip(tmp_path, grid, generator, quantity):
    mean, std = draw(grid, generator), draw(grid, generator).abs()
    members = draw(grid, generator, 3)
    ds = l4_dataset(grid, mean, std, 2 * std, members, quantity=quantity, currents=True)
    path = write_dataset(ds, tmp_path / "map.nc")
    chart = read_map(path)
    for got, given in (
        (chart.mean, mean),
        (chart.std, std),
        (chart.obs_std, 2 * std),
        (chart.members, members),
    ):
        torch.testing.assert_close(got, given.float().double(), rtol=0, atol=0)
    assert (chart.variable, chart.quantity, chart.units) == (quantity, quantity, "m")
    torch.testing.assert_close(chart.grid.axes["lon"], grid.axes["lon"] - 360, rtol=0, atol=0)
    assert chart.grid.points.epoch == grid.epoch
    assert chart.grid.mask.equal(grid.mask)


def test_packed_round_trip_is_exact_to_half_a_step(tmp_path, grid, generator):
    mean = draw(grid, generator)
    ds = l4_dataset(grid, mean, quantity="adt", currents=True)
    path = write_dataset(ds, tmp_path / "map.nc", pack=True)
    with netCDF4.Dataset(path) as raw:
        raw.set_auto_maskandscale(False)
        ints = raw["adt"][:]
        assert (ints.dtype, raw["adt"].scale_factor) == (np.dtype("int32"), 1e-4)
        assert raw["adt"]._FillValue == -2147483647
        assert (ints[:, 0, 1] == -2147483647).all()
        assert raw["time"].units.startswith("days since 1950-01-01")
        np.testing.assert_array_equal(raw["time"][:], [24472.5, 24473.5])
        sea = grid.mask.reshape(grid.shape).numpy()
        expected = np.round(grid.unflatten(mean).numpy()[sea].astype(np.float32) / 1e-4)
        np.testing.assert_array_equal(ints[sea], expected)
    back = read_map(path, "adt").mean
    assert (back - mean).abs().max() <= 0.5e-4 + 1e-7
    again = write_dataset(l4_dataset(grid, back, quantity="adt"), tmp_path / "again.nc", pack=True)
    torch.testing.assert_close(read_map(again, "adt").mean, back, rtol=0, atol=1e-12)


def test_names_and_attributes_are_those_of_the_product(tmp_path, grid, generator):
    mean = draw(grid, generator)
    ds = l4_dataset(grid, mean, mean.abs(), quantity="adt", currents=True, attributes={"seed": 7})
    path = write_dataset(ds, tmp_path / "map.nc")
    with xr.open_dataset(path) as ds:
        assert set(ds) == {"adt", "err_adt", "ugos", "vgos", "crs"}
        assert ds.adt.dims == ("time", "latitude", "longitude")
        assert ds.adt.attrs["standard_name"] == "sea_surface_height_above_geoid"
        assert ds.adt.attrs["ancillary_variables"] == "err_adt"
        assert ds.ugos.attrs["units"] == "m/s"
        assert (ds.attrs["Conventions"], ds.attrs["seed"]) == ("CF-1.8", 7)
        assert ds.crs.attrs["grid_mapping_name"] == "latitude_longitude"
        np.testing.assert_array_equal(ds.time.values, DATES)
    anomaly = l4_dataset(grid, mean, mean.abs(), quantity="sla", currents=True)
    assert {"sla", "err_sla", "ugosa", "vgosa"} <= set(anomaly)


@pytest.mark.parametrize(
    ("lon", "branch", "written"),
    [
        ([295.0, 296.0], "-180..180", [-65.0, -64.0]),
        ([-65.0, -64.0], "0..360", [295.0, 296.0]),
        ([-1.0, 1.0], "0..360", [-1.0, 1.0]),
        ([-185.0, -175.0], "-180..180", [175.0, 185.0]),
        ([0.0, 359.0], "0..360", [0.0, 359.0]),
    ],
)
def test_longitudes_are_on_the_branch_that_is_asked_for(lon, branch, written):
    grid = Grid(lat=[10.0, 11.0], lon=lon)
    ds = l4_dataset(grid, torch.zeros(4).double(), quantity="sla", branch=branch)
    moved = ds.longitude.values
    np.testing.assert_array_equal(np.mod(moved, 360), np.mod(written, 360))
    assert (np.diff(moved) > 0).all()
    if max(written) <= (180 if branch == "-180..180" else 360):
        assert moved.tolist() == written


def test_centimetres_are_written_as_metres(grid):
    mean = torch.full((len(grid),), 12.0, dtype=torch.float64)
    ds = l4_dataset(grid, mean, mean / 4, quantity="sla", units="cm")
    assert ds.sla.attrs["units"] == "m"
    assert np.nanmax(ds.sla.values) == np.float32(0.12)
    assert np.nanmax(ds.err_sla.values) == np.float32(0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "ssh"}, "adt or sla, got 'ssh'.*--quantity"),
        ({"quantity": "adt", "units": "degC"}, "m, cm or mm, got 'degC'"),
        ({"quantity": "adt", "branch": "0..180"}, "-180..180 or 0..360"),
    ],
)
def test_what_is_no_sea_level_is_refused(grid, change, message):
    with pytest.raises(InputError, match=message):
        l4_dataset(grid, torch.zeros(len(grid)).double(), **change)


def test_no_product_on_the_plane():
    with pytest.raises(InputError, match="a grid of lat and lon"):
        l4_dataset(Grid(x=[0.0, 1.0]), torch.zeros(2).double(), quantity="adt")


# currents


def test_solid_rotation_has_the_current_of_the_textbook():
    """A height a sin(lat) has u = -g a cos(lat) / (2 omega sin(lat) R), by hand; v = 0."""
    lat, lon = np.arange(-60.0, 60.5, 0.25), np.arange(0.0, 3.0, 0.5)
    grid = Grid(lat=lat, lon=lon)
    phi = torch.deg2rad(grid.points.axis("lat"))
    u, v = geostrophic_currents(grid, 0.5 * phi.sin())
    exact = -9.80665 * 0.5 * phi.cos() / (2 * 7.292115e-5 * phi.sin() * EARTH_RADIUS)
    far, inner = phi.abs() >= np.deg2rad(5.0), phi.abs() < np.deg2rad(59.9)
    # central differences: an error of h^2 / 6 of the third derivative, here h = 0.25 degree
    both = far & inner
    torch.testing.assert_close(u[both], exact[both], rtol=np.deg2rad(0.25) ** 2 / 6 * 1.01, atol=0)
    assert v[far].abs().max() < 1e-12
    assert u[~far].isnan().all()
    assert v[~far].isnan().all()


def test_currents_cross_the_seam_of_a_whole_globe():
    grid = Grid(lat=[30.0, 31.0, 32.0], lon=np.arange(0.0, 360.0, 1.0))
    lam = torch.deg2rad(grid.points.axis("lon"))
    _, v = geostrophic_currents(grid, lam.sin())
    field = grid.unflatten(v)[1]
    f, c = 2 * 7.292115e-5 * np.sin(np.deg2rad(31.0)), np.cos(np.deg2rad(31.0))
    step = np.deg2rad(1.0)
    exact = 9.80665 / f * torch.cos(lam[:360]) * np.sin(step) / step / (EARTH_RADIUS * c)
    torch.testing.assert_close(field, exact, rtol=1e-9, atol=1e-12)


def test_currents_next_to_land_are_one_sided_and_match_the_prior(grid, generator):
    from matheron.priors.spde.velocity import geostrophic

    height = draw(grid, generator)
    ours, theirs = geostrophic_currents(grid, height), geostrophic(grid, height)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.nan_to_num(0.0), b, rtol=1e-9, atol=1e-12)
    lonely = ours[1].isnan().reshape(2, -1).sum(dim=1)  # west of the land, no slope to the east
    assert lonely.tolist() == [1, 1]
    assert not ours[0].isnan().any()


# quantities


class Some:
    def __init__(self, variable, units="m", **attributes):
        self.variable, self.units = variable, units
        self.quantity = quantity_of(variable, attributes)


@pytest.mark.parametrize(
    ("variable", "standard_name", "quantity"),
    [
        ("sla_unfiltered", "", "sla"),
        ("ssha_karin", "sea_surface_height_above_reference_ellipsoid", "sla"),
        ("ADT", "", "adt"),
        ("zos", "", "adt"),
        ("gssh", "", "ssh"),
        ("ssh_model", "", "ssh"),
        ("sossheig", "", "ssh"),
        ("height", "sea_surface_height_above_geoid", "adt"),
        ("ssh", "sea_surface_height_above_sea_level", "sla"),
        ("mdt", "sea_surface_height_above_geoid", "unknown"),
        ("err_sla", "", "unknown"),
        ("slab", "", "unknown"),
        ("sst", "", "unknown"),
    ],
)
def test_quantities(variable, standard_name, quantity):
    assert quantity_of(variable, {"standard_name": standard_name}) == quantity


@pytest.mark.parametrize(("a", "b"), [("sla", "adt"), ("ssh", "sla"), ("adt", "ssha")])
def test_anomalies_are_not_compared_with_topographies(a, b):
    with pytest.raises(InputError, match="--mdt FILE"):
        check_same(Some(a), Some(b))


def test_what_is_told_of_heights_that_are_alike():
    assert check_same(Some("sla"), Some("sla_filtered")) == ""
    assert check_same(Some("sst", "degC"), Some("t", "degC")) == ""
    assert "constant" in check_same(Some("adt"), Some("ssh"))
    assert "nothing says that 'truth' is sla" in check_same(Some("sla"), Some("truth"))
    with pytest.raises(InputError, match=r"the units of 'sla' \(m\), got 'cm'"):
        check_same(Some("sla"), Some("sla", "cm"))
