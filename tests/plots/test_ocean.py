"""Laws of the maps of a day: what is drawn is what was given, on one scale, at the right date."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from matheron import plots
from matheron.data.currents import geostrophic_currents
from matheron.domain import EARTH_RADIUS, Grid
from matheron.plots.snapshot import GRAVITY, ROTATION, at_nodes, currents

DAY = "2012-10-24"


def maps(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def bars(figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def image(ax):
    return np.ma.filled(ax.collections[0].get_array().astype(float), np.nan)


def nadir(days, lat, lon, values, name="ssh_obs"):
    time = np.datetime64("2012-10-22", "ns") + (np.asarray(days) * 86_400e9).astype("m8[ns]")
    places = {"time": time, "lat": ("time", lat), "lon": ("time", lon)}
    return xr.Dataset({name: ("time", values)}, places)


@pytest.fixture
def track():
    return nadir([1.9, 2.0, 2.6, 4.9], [34.0, 35.0, 36.0, 37.0], [-60.0] * 4, [0.1, 0.2, 0.3, 9.0])


def test_maps_and_errors_are_those_of_the_day(ocean, track):
    truth, made = ocean(0.5, land=True), 0.8 * ocean(0.5, land=True)
    a, _, b, error = maps(plots.panels(truth, {"alg": track}, made, DAY))
    expected = truth.values[2]
    assert np.array_equal(image(a), expected, equal_nan=True)
    assert np.array_equal(image(b), 0.8 * expected, equal_nan=True)
    assert np.allclose(image(error), -0.2 * expected, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert (a.get_title(), b.get_title()) == ("truth, 2012-10-24", "map, 2012-10-24")
    rms = np.sqrt(np.nanmean((0.2 * expected) ** 2))
    assert error.get_title() == f"map - truth, RMS {rms:.3g} m"


def test_all_share_one_scale_where_zero_is_its_middle(ocean, track):
    figure = plots.panels(ocean(0.5), track, 0.8 * ocean(0.5), DAY)
    limits = {ax.collections[0].get_clim() for ax in (maps(figure)[k] for k in (0, 2, 3))}
    assert len(limits) == len(bars(figure)) == 1
    assert maps(figure)[1].collections[1].get_clim() in limits


def test_errors_have_a_scale_as_wide_around_zero_elsewhere(ocean, track):
    figure = plots.panels(3 + ocean(0.5), track, 3 + 0.8 * ocean(0.5), DAY)
    true, made, error = (maps(figure)[k].collections[0].get_clim() for k in (0, 2, 3))
    assert true == made != error
    assert error[0] == -error[1]
    assert error[1] - error[0] == pytest.approx(true[1] - true[0], rel=1e-12)
    assert [ax.get_ylabel() for ax in bars(figure)] == ["SSH [m]", "error: SSH [m]"]


def test_data_are_those_within_some_days_on_either_branch(ocean, track):
    truth = ocean(0.5)
    for shift in (0.0, 360.0):
        moved = track.assign(lon=track["lon"] + shift)
        ax = maps(plots.panels(truth, moved, truth, DAY, within=0.5))[1]
        drawn = ax.collections[1]
        assert np.allclose(drawn.get_offsets(), [[-60, 34], [-60, 35]], rtol=0, atol=1e-9)
        assert drawn.get_array().tolist() == [0.1, 0.2]
        assert ax.get_title() == "2 data within 0.5 days"


def test_tables_swaths_and_files_are_drawn_alike(ocean, track):
    truth, table = ocean(0.5), track.to_dataframe().reset_index()
    swath = track.expand_dims(nC=1).transpose("time", "nC").set_coords(["lat", "lon"])
    offsets = [
        np.asarray(maps(plots.panels(truth, x, truth, DAY))[1].collections[1].get_offsets())
        for x in (track, table, {"a": swath}, {"a": track.rename(ssh_obs="ssh_model")})
    ]
    assert all(np.array_equal(offsets[0], x) for x in offsets[1:])


def test_missing_data_are_left_out_and_none_at_all_is_said(ocean, track):
    truth = ocean(0.5)
    gap = track.assign(ssh_obs=track["ssh_obs"].where(track["lat"] > 34.5))
    assert maps(plots.panels(truth, gap, truth, DAY))[1].get_title() == "2 data within 1 day"
    for none in ({}, track.isel(time=slice(0)), track.isel(time=[3])):
        figure = plots.panels(truth, none, truth, DAY)
        assert maps(figure)[1].get_title() == "no data within 1 day"


def test_land_is_grey_in_the_panel_of_the_data(ocean, track):
    truth = ocean(0.5, land=True)
    sea = image(maps(plots.panels(truth, track, truth, DAY))[1])
    assert np.array_equal(np.isnan(sea), np.isnan(truth.values[2]))


def test_the_truth_is_interpolated_to_the_nodes_of_the_map(ocean, track):
    made = ocean(0.2)
    error = image(maps(plots.panels(ocean(0.1), track, made, DAY))[3])
    assert np.isfinite(error).all()  # the ends too, whose nodes differ by rounding
    assert np.abs(error).max() < 1e-9


def test_fields_without_dates_are_drawn_on_any_day(ocean, track):
    truth = ocean(0.5).isel(time=2, drop=True)
    assert maps(plots.panels(truth, track, truth, DAY))[0].get_title() == "truth"


def test_axes_may_be_named_turned_and_sorted_otherwise(ocean, track):
    truth = ocean(0.5)
    other = truth.rename(lat="latitude", lon="longitude").transpose(
        "longitude", "latitude", "time"
    )
    other = other.isel(latitude=slice(None, None, -1))
    a, b = (image(maps(plots.panels(x, track, truth, DAY))[0]) for x in (truth, other))
    assert np.array_equal(a, b)


def zonal(step=0.05):
    """A height whose current and vorticity have a closed form: the sine of the latitude."""
    lat, lon = np.arange(30.0, 40.01, step), np.arange(0.0, 1.01, 0.25)
    height = 0.5 * np.sin(np.deg2rad(lat))[:, None] + 0 * lon
    return xr.DataArray(height, {"lat": lat, "lon": lon}), np.deg2rad(lat)


def test_speed_and_vorticity_of_a_zonal_jet():
    height, phi = zonal()
    c = GRAVITY * 0.5 / (2 * ROTATION * EARTH_RADIUS)
    speed, turning = (currents(height, k).values[2:-2, 0] for k in ("speed", "vorticity"))
    # u = -c cot(phi), hence zeta = -(d(u cos)/dphi) / (R cos) = -c / R (1 + 1 / sin^2)
    zeta = -c / EARTH_RADIUS * (1 + 1 / np.sin(phi) ** 2)
    assert np.allclose(speed, (c / np.tan(phi))[2:-2], rtol=1e-5)
    # two slopes of second order: of the order of the square of a step, 8e-7, times 10
    assert np.allclose(turning, (zeta / (2 * ROTATION * np.sin(phi)))[2:-2], rtol=1e-5)


def test_vorticity_of_a_small_eddy():
    # (g / f) laplacian of the height, f and the metric being constant across 10 km
    lat = 45 + np.arange(-20, 21) * 2e-3
    lon = np.arange(-20, 21) * 3e-3
    y, x = np.deg2rad(lat - 45)[:, None], np.deg2rad(lon) * np.cos(np.deg2rad(45))
    square = EARTH_RADIUS**2 * (x**2 + y**2)
    height = xr.DataArray(1e-9 * square, {"lat": lat, "lon": lon})
    f = 2 * ROTATION * np.sin(np.deg2rad(45))
    found = float(currents(height, "vorticity")[20, 20])
    assert found == pytest.approx(GRAVITY / f**2 * 4e-9, rel=1e-5)


def test_speed_is_that_of_the_currents_of_products(ocean):
    height = ocean(0.5, land=True).isel(time=0)
    grid = Grid(lat=height["lat"].values, lon=height["lon"].values)
    u, v = geostrophic_currents(grid, torch.as_tensor(height.values).flatten())
    peer, own = torch.hypot(u, v).reshape(grid.shape).numpy(), currents(height, "speed").values
    inner = np.isfinite(own)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.sum() > 300
    assert np.allclose(own[inner], peer[inner], rtol=1e-9)


def test_currents_are_not_drawn_near_the_equator():
    axes = {"lat": np.arange(-8.0, 9.0), "lon": np.arange(4.0)}
    height = xr.DataArray(np.random.default_rng(0).standard_normal((17, 4)), axes)
    seen = currents(height, "speed").notnull().all("lon")
    assert np.array_equal(seen, np.abs(axes["lat"]) >= 5)


@pytest.mark.parametrize(("field", "label"), [("speed", "speed [m/s]"), ("vorticity", "vort")])
def test_derived_fields_are_drawn(ocean, track, field, label):
    truth, made = ocean(0.5, land=True), 0.8 * ocean(0.5, land=True)
    figure = plots.panels(truth, track, made, DAY, field=field)
    a, sites, b, error = maps(figure)
    expected = currents(truth.isel(time=2), field).values
    assert np.array_equal(image(a), expected, equal_nan=True)
    assert np.allclose(image(b), 0.8 * expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert np.allclose(image(error), -0.2 * expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert sites.collections[1].get_array() is None  # data along tracks have no current
    assert bars(figure)[0].get_ylabel().startswith(label)
    if field == "vorticity":
        assert {ax.collections[0].get_clim() for ax in (a, b, error)} == {(-0.5, 0.5)}


def test_a_field_on_the_other_branch_is_at_the_same_places(ocean):
    field = ocean(0.5).isel(time=0)
    other = field.assign_coords(lon=field["lon"] % 360)
    assert np.array_equal(at_nodes(other, field).values, field.values)


def sure(ocean, land=True):
    mean = ocean(0.5, land=land)
    rng = np.random.default_rng(0)
    std = 0 * mean + 0.05 + 0.05 * (mean["lon"] + 65) / 10
    return mean, std, mean + std * rng.standard_normal(mean.shape)


def test_uncertainty_draws_the_std_and_the_error_over_it(ocean):
    mean, std, truth = sure(ocean)
    axes = maps(plots.uncertainty(mean, std, truth, day=DAY))
    off = abs((truth - mean) / std).values[2]
    assert np.array_equal(image(axes[0]), std.values[2], equal_nan=True)
    assert np.allclose(image(axes[1]), off, rtol=1e-12, equal_nan=True)
    assert axes[0].get_title() == "std, 2012-10-24"


def test_spread_and_skill_are_those_of_classes_of_one_size(ocean):
    mean, std, truth = sure(ocean)
    line = maps(plots.uncertainty(mean, std, truth))[2].get_lines()[1]
    seen = np.isfinite(mean.values)
    s, e = std.values[seen], (truth - mean).values[seen]
    classes = np.array_split(s.argsort(kind="stable"), 10)
    rms = [[np.sqrt((x[k] ** 2).mean()) for k in classes] for x in (s, e)]
    assert np.allclose(line.get_xydata().T, rms, rtol=1e-12)
    # each is within 5 standard errors, sqrt(1 / 2n) of a std, of a calibrated map
    assert np.allclose(rms[1], rms[0], rtol=5 / np.sqrt(2 * len(classes[0])), atol=0)


def test_pit_is_flat_where_the_map_is_calibrated_and_not_where_it_is_too_sure(ocean):
    mean, std, truth = sure(ocean)
    n = int(np.isfinite(mean.values).sum())
    good, bad = (
        np.array([p.get_height() for p in maps(plots.uncertainty(mean, x, truth))[3].patches])
        for x in (std, std / 3)
    )
    # bars over their expectation: the variance of one is (bins - 1) / n
    assert np.abs(good[:20] - 1).max() < 5 * np.sqrt(19 / n)
    assert bad[0] > 3
    assert bad[19] > 3


def test_ranks_are_counted_among_members(ocean):
    mean, std, truth = sure(ocean)
    shifts = xr.DataArray([-1.0, 1.0], dims="member")
    axes = maps(plots.uncertainty(mean, std, truth, members=mean + shifts * std))
    bars_drawn = [p.get_height() / 3 for p in axes[3].patches[:3]]
    z = ((truth - mean) / std).values
    z = z[np.isfinite(z)]
    expected = [(z <= -1).mean(), ((z > -1) & (z <= 1)).mean(), (z > 1).mean()]
    assert np.allclose(bars_drawn, expected, rtol=1e-9)


def test_uncertainty_of_one_day_needs_no_date(ocean):
    fields = [x.isel(time=0, drop=True) for x in sure(ocean)]
    assert maps(plots.uncertainty(*fields))[0].get_title() == "std"


def test_hovmoller_draws_the_nearest_parallel(ocean):
    field = ocean(0.5, land=True)
    figure = plots.hovmoller({"truth": field, "half": 0.5 * field}, 41.9)
    a, b = maps(figure)
    expected = field.sel(lat=42.0).values
    assert np.array_equal(image(a), expected, equal_nan=True)
    assert np.array_equal(image(b), 0.5 * expected, equal_nan=True)
    assert a.collections[0].get_clim() == b.collections[0].get_clim()
    assert a.get_title() == "truth, 42°N"
    assert bars(figure)[0].get_ylabel() == "SSH [m]"


@pytest.mark.parametrize("field", ["ssh", "speed", "vorticity"])
def test_no_label_of_maps_collides_or_is_cut(ocean, track, trouble, field):
    mean, _, truth = sure(ocean)
    assert not trouble(plots.panels(truth, track, 2 + mean, DAY, field=field))
    assert not trouble(plots.panels(truth, {}, mean, DAY, field=field))


def test_no_label_of_uncertainty_collides_or_is_cut(ocean, trouble):
    assert not trouble(plots.uncertainty(*sure(ocean)))
    assert not trouble(plots.hovmoller(ocean(0.5, days=60), 38.0))


def refused(call, part):
    with pytest.raises(ValueError, match=part) as found:
        call()
    assert "\n" not in str(found.value)


def test_bad_maps_are_refused_in_one_line(ocean, track):
    truth = ocean(0.5)
    flat = truth.isel(lat=0, drop=True)
    bare = truth.drop_vars("lon")
    numbered = truth.assign_coords(time=np.arange(5))
    draw = plots.panels
    refused(lambda: draw(flat, track, truth, DAY), r"panels\(truth=\.\.\.\): expected a field of")
    refused(lambda: draw(truth, track, bare, DAY), r"panels\(map=\.\.\.\).*lon.*without coord")
    refused(lambda: draw(numbered, track, truth, DAY), "expected dates along time, got int64")
    refused(lambda: draw(truth, track, truth, "2013-01-01"), "2012-10-22T00:00 to 2012-10-26T00")
    refused(lambda: draw(truth, track, truth, "tomorrow's"), "expected a date")
    refused(lambda: draw(truth, track, truth, DAY, within=0.0), r"within=\.\.\.\): expected days")
    refused(lambda: draw(truth, track[["lat"]], truth, DAY), "data with ssh_obs or ssh_model")
    late = track.assign_coords(time=[0.0, 1.0, 2.0, 3.0])
    refused(lambda: draw(truth, late, truth, DAY), "expected dates in time, got float64")


def test_an_unknown_quantity_is_refused(ocean, track):
    with pytest.raises(Exception, match="field"):
        plots.panels(ocean(0.5), track, ocean(0.5), DAY, field="heat")


def test_bad_uncertainties_are_refused_in_one_line(ocean):
    mean, std, truth = sure(ocean)
    draw = plots.uncertainty
    refused(lambda: draw(mean, 0 * std, truth), r"uncertainty\(std=\.\.\.\): expected a std > 0")
    refused(lambda: draw(mean, std[:, :-1], truth), r"uncertainty\(std=\.\.\.\): expected shape")
    refused(lambda: draw(mean, std, truth.isel(time=0)), "dates in mean and std only")
    later = truth.assign_coords(time=truth["time"] + np.timedelta64(90, "D"))
    refused(lambda: draw(mean, std, later), "expected a date of the mean, got none")
    away = truth.assign_coords(lat=truth["lat"] - 60)
    refused(lambda: draw(mean, std, away), "nodes that the mean has too, got none")
    refused(lambda: draw(mean, std, truth, day="2013-05-01"), r"uncertainty\(day=")
    refused(lambda: draw(mean, std, truth, members=mean), "expected one axis of members")


def test_bad_diagrams_are_refused_in_one_line(ocean):
    field = ocean(0.5)
    refused(lambda: plots.hovmoller({}, 38.0), "expected one field or more, got none")
    refused(lambda: plots.hovmoller(field, 50.0), r"lat=\.\.\.\): expected a latitude in 33..43")
    refused(lambda: plots.hovmoller(field.isel(time=0), 38.0), "expected dates along time")


def test_a_table_of_pandas_with_dates_is_data(ocean):
    table = pd.DataFrame(
        {"time": pd.to_datetime([DAY]), "latitude": [35.0], "longitude": [-60.0], "sla": [0.1]}
    )
    truth = ocean(0.5)
    ax = maps(plots.panels(truth, table, truth, DAY, variables=["sla"]))[1]
    assert ax.collections[1].get_array().tolist() == [0.1]
