"""Fields beside the data on other grids: averages, interpolations, gaps, units."""

import numpy as np
import pytest
import torch
import xarray as xr

from matheron.data import Gridded, InputError
from matheron.data.beside import missing
from matheron.domain import Grid

START = np.datetime64("2020-01-01T00", "ns")
DAY = np.timedelta64(1, "D")


def days(count, first=0.0):
    return START + (np.arange(count) + first) * DAY.astype("timedelta64[ns]")


def field(lat, lon, count=5, first=0.0, at=lambda t, y, x: t + 2 * y - x):
    axes = {"time": days(count, first), "lat": np.asarray(lat), "lon": np.asarray(lon)}
    t = np.arange(count) + first
    values = at(t[:, None, None], axes["lat"][:, None], axes["lon"])
    values = np.broadcast_to(values, (count, len(lat), len(lon))).astype(float)
    attrs = {"units": "degree_Celsius", "standard_name": "sea_surface_temperature"}
    return xr.DataArray(values.copy(), axes, tuple(axes), name="sst", attrs=attrs)


def wanted(lat=(1.0, 2.0, 3.0), lon=(4.0, 5.0), first=1.0, count=2):
    return Grid(time=days(count, first), lat=list(lat), lon=list(lon), metric="sphere")


def linear(grid, offset=1.0):
    t, y, x = torch.meshgrid(*grid.axes.values(), indexing="ij")
    return (t + offset + 2 * y - x).flatten()


FINE = (np.arange(0.0, 6.0, 0.1), np.arange(0.0, 8.0, 0.125))
COARSE = (np.arange(-2.0, 8.0, 1.5), np.arange(-3.0, 12.0, 2.0))


@pytest.mark.parametrize("axes", [FINE, COARSE])
@pytest.mark.parametrize("first", [0.0, 0.5])
def test_a_plane_is_kept_whatever_the_grid(axes, first):
    """Means of cells and linear interpolations are exact on a plane, at noon and at midnight."""
    found, known = Gridded.of("sst", field(*axes, first=first)).onto(wanted())
    assert known.all()
    torch.testing.assert_close(found, linear(wanted()), rtol=0, atol=1e-9)


def test_a_cell_has_its_mean():
    """Against brute force: the mean of the linear interpolation over the cell."""
    rough = field(*FINE, at=lambda t, y, x: np.sin(7 * y) + np.cos(5 * x))
    grid = wanted()
    found, _ = Gridded.of("sst", rough).onto(grid)
    for k, (y, x) in enumerate((y, x) for y in (1.0, 2.0, 3.0) for x in (4.0, 5.0)):
        shares = (np.arange(40) + 0.5) / 40 - 0.5
        there = rough.interp(lat=y + shares, lon=x + shares, time=days(1, 1.0)).values.mean()
        # as many places as nodes in a cell: a mean to the second order of their distance
        assert found[k].item() == pytest.approx(there, abs=0.03)


def test_longitudes_of_the_other_branch_are_the_same_places():
    east, west = field(*FINE), field(FINE[0], FINE[1])
    east = east.assign_coords(lon=east["lon"] + 350.0)
    grid = wanted(lon=(-6.0, -5.0))
    found = Gridded.of("sst", east).onto(grid)[0]
    other = Gridded.of("sst", west).onto(wanted())[0]
    torch.testing.assert_close(found, other, rtol=0, atol=1e-9)


def test_gaps_are_left_out_and_told():
    whole, holed = field(*FINE), field(*FINE)
    rng = np.random.default_rng(0)
    holed.values[rng.random(holed.shape) < 0.3] = np.nan
    one, other = (Gridded.of("sst", f).onto(wanted()) for f in (whole, holed))
    assert other[1].all()
    # a mean of 70 of 100 nodes of a slope of 2 over a cell, five standard errors
    assert (one[0] - other[0]).abs().max() < 5 * 2 / 12**0.5 / 70**0.5
    holed.values[:, (holed["lat"] > 1.4).values] = np.nan
    values, known = Gridded.of("sst", holed).onto(wanted())
    assert known.reshape(2, 3, 2)[:, 0].all()
    assert not known.reshape(2, 3, 2)[:, 1:].any()
    assert (values[~known] == 0).all()


def test_days_that_are_not_there_are_missing():
    grid = wanted(first=-2.0, count=9)
    part = field(*FINE).isel(time=[0, 1, 3, 4])  # a gap of two days: its middle is not guessed
    _, known = Gridded.of("sst", part).onto(grid)
    none = missing(known.reshape(grid.shape), grid)
    assert none == ["2019-12-30", "2019-12-31", "2020-01-03", "2020-01-06", "2020-01-07"]


def test_a_box_elsewhere_is_unknown():
    _, known = Gridded.of("sst", field(*FINE)).onto(wanted(lat=(60.0, 61.0, 62.0)))
    assert not known.any()


def test_the_order_of_dimensions_does_not_matter(tmp_path):
    plain = field(*FINE)
    turned = plain.transpose("lon", "time", "lat").sortby("lat", ascending=False)
    one = Gridded.of("sst", plain).onto(wanted())
    turned.rename("analysed_sst").to_dataset().assign(error=turned * 0).to_netcdf(
        tmp_path / "sst.nc"
    )
    found = Gridded.read("sst", tmp_path / "sst.nc")
    assert found.units == "degree_Celsius"
    for a, b in zip(one, found.onto(wanted()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_kelvin_are_degrees_and_other_units_are_told():
    usual = ("degree_Celsius", 15.0, 4.0)
    plain = field(*FINE, at=lambda t, y, x: 15.0 + y - x + 0 * t)
    kelvin = (plain + 273.15).assign_attrs(units="kelvin")
    one, other = (Gridded.of("sst", f).within(*usual) for f in (plain, kelvin))
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="in degree_Celsius, as in the training, got 'psu'"):
        Gridded.of("sst", plain.assign_attrs(units="psu")).within(*usual)
    with pytest.raises(InputError, match="Check its units"):
        Gridded.of("sst", kelvin.assign_attrs(units="")).within(*usual)


def test_what_is_no_field_of_days_is_refused(tmp_path):
    still = Grid(lat=[0.0, 1.0], lon=[0.0, 1.0], metric="sphere")
    with pytest.raises(InputError, match="a field on time, lat, lon"):
        Gridded("sst", still, torch.zeros(4).double(), torch.ones(4, dtype=torch.bool))
    (tmp_path / "sst.csv").write_text("time,lat,lon,sst\n2020-01-01,0,0,15\n2020-01-02,1,3,16\n")
    with pytest.raises(InputError, match="scattered points"):
        Gridded.read("sst", tmp_path / "sst.csv")
