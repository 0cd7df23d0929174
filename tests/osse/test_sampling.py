"""Sampling: no pass is lost, a linear truth is found again, branches and borders."""

import numpy as np
import pytest
import torch
import xarray as xr

from dataclasses import replace

from matheron.domain import EARTH_RADIUS
from matheron.osse.constellations import MISSIONS, SWOT_CALVAL, constellation
from matheron.osse.noise import ErrorModel, White
from matheron.osse.passes import Box, lines_over, passes_over
from matheron.osse.sampling import interpolate, observe
from matheron.osse.swath import Swath, across_track, ground_frame, unit_vectors

START = np.datetime64("2012-10-01")
DAY = 86400.0
BOXES = {
    "gulf stream": Box(295.0, 305.0, 33.0, 43.0),
    "dateline": Box(170.0, 190.0, -25.0, -5.0),
    "meridian": Box(-4.0, 3.0, 44.0, 47.0),
    "arctic": Box(0.0, 90.0, 60.0, 85.0),
    "south pole": Box(0.0, 360.0, -90.0, -70.0),
    "narrow": Box(10.0, 10.5, 0.0, 0.5),
}


def truth(lon=(295.0, 305.0), lat=(33.0, 43.0), days=12, step=1.0, field=None):
    axes = {
        "time": START + np.arange(0, 24 * days + 1, 12) * np.timedelta64(1, "h"),
        "lat": np.arange(lat[0], lat[1] + 1e-9, step),
        "lon": np.arange(lon[0], lon[1] + 1e-9, step),
    }
    hours = (axes["time"] - START) / np.timedelta64(1, "h")
    t, y, x = np.meshgrid(hours / 24, axes["lat"], axes["lon"], indexing="ij")
    values = (field or linear)(t, y, x)
    return xr.Dataset({"ssh": (("time", "lat", "lon"), values)}, axes)


def linear(t, y, x):
    return 0.1 * t - 0.02 * y + 0.003 * x + 0.5


def days_of(file):
    return (file["time"].values - START) / np.timedelta64(1, "D")


@pytest.mark.parametrize("mission", ["jason1", "geosat2", "swot", "cryosat2"])
@pytest.mark.parametrize("place", BOXES)
def test_no_pass_is_lost_against_the_whole_track(mission, place):
    orbit, box, days = MISSIONS[mission].orbit, BOXES[place], 12.0
    start = 4567.0 * DAY + 1234.5
    end = start + days * DAY
    times = np.arange(np.ceil(start), end)
    brute = times[box.contains(*orbit.track(times))]
    lines = lines_over(orbit, box, start, end, seconds=1.0)
    assert box.contains(*orbit.track(lines.times)).all()
    assert (np.diff(lines.times) > 0).all()
    # Our seconds count from the start of a pass, those of the whole track do not: the two differ
    # by one datum at most at each side of each crossing.
    seen = np.unique(orbit.pass_at(brute))
    assert abs(brute.size - lines.times.size) <= 2 * (seen.size + 2)
    inner = brute
    for shift in (-1.0, 1.0):
        inner = inner[box.contains(*orbit.track(inner + shift))]
    inner = inner[(inner > start + 1) & (inner < end - 1)]
    # A whole second is lost at the end of a pass, where the next one starts.
    gaps = np.abs(lines.times[np.searchsorted(lines.times, inner).clip(1) - 1] - inner)
    if inner.size:
        assert gaps.max() <= 2.0
    assert set(seen[1:-1]) <= set(passes_over(orbit, box, start, end))


@pytest.mark.parametrize("place", BOXES)
def test_no_line_of_a_swath_is_lost(place):
    orbit, box, swath = SWOT_CALVAL, BOXES[place], Swath(across=10.0, along=10.0)
    start, end = 100.0 * DAY, 102.0 * DAY
    first, last = orbit.pass_at(np.array([start, end]))
    lines = lines_over(orbit, box, start, end, metres=1e4, margin=6e4)
    whole = Box(0.0, 360.0, -90.0, 90.0)
    brute = lines_over(orbit, whole, start, end, metres=1e4)
    np.testing.assert_array_equal(np.unique(brute.passes), np.arange(first, last + 1))
    lon, lat = across_track(*ground_frame(orbit, brute.times), swath.offsets)
    seen = brute.select(np.asarray(box.contains(lon, lat).any(axis=1)))
    kept = set(zip(lines.passes.tolist(), lines.index.tolist(), strict=True))
    assert set(zip(seen.passes.tolist(), seen.index.tolist(), strict=True)) <= kept


@pytest.mark.parametrize("name", ["jason1", "swot", "envisat"])
def test_a_cycle_has_two_passes_per_revolution(name):
    orbit = MISSIONS[name].orbit
    start = orbit.pass_starts(np.array([0]))[0] + 1.0
    whole = Box(-180.0, 180.0, -90.0, 90.0)
    passes = passes_over(orbit, whole, start, start + orbit.period * DAY - 2.0)
    np.testing.assert_array_equal(passes, np.arange(2 * orbit.revolutions))


def test_lines_of_a_swath_are_evenly_spaced_and_repeat():
    orbit, box = MISSIONS["swot"].orbit, BOXES["gulf stream"]
    cycle = orbit.period * DAY
    lines = lines_over(orbit, box, 0.0, 2 * cycle, metres=2000.0, margin=6e4)
    points = unit_vectors(*orbit.track(lines.times))
    way = 2e-3 * EARTH_RADIUS * np.arcsin(np.linalg.norm(np.diff(points, axis=0), axis=-1) / 2)
    same = np.diff(lines.passes) == 0
    np.testing.assert_allclose(way[same], 2.0, atol=1e-4)
    first = lines.select(lines.passes < orbit.passes)
    again = lines.select((lines.passes >= orbit.passes) & (lines.passes < 2 * orbit.passes))
    np.testing.assert_array_equal(first.index, again.index)
    np.testing.assert_allclose(again.times - first.times, cycle, atol=1e-5)


@pytest.mark.parametrize("west", [-65.0, 295.0])
def test_linear_truth_is_found_again_on_either_branch(west, generator):
    seen = observe(truth(lon=(west, west + 10.0)), "4nadirs,swot", generator)
    assert list(seen)[-2:] == ["nadir_swot", "karin_swot"]
    for file in seen.values():
        assert west - 2.0 < float(file["lon"].min()) < float(file["lon"].max()) < west + 12.0
        t = days_of(file)
        t = t[:, None] if file["lon"].ndim == 2 else t
        expected = linear(t, file["lat"].values, file["lon"].values)
        got = file["ssh_model"].values
        found = np.isfinite(got)
        np.testing.assert_allclose(got[found], expected[found], rtol=1e-9)
        box = Box(west, west + 10.0, 33.0, 43.0)
        inside = box.contains(file["lon"].values, file["lat"].values)
        np.testing.assert_array_equal(found, inside & np.isfinite(t))
        assert set(file.data_vars) == {"ssh_model"}


def test_both_branches_see_the_same(generator):
    east = observe(truth(lon=(295.0, 305.0)), "jason1", generator)["jason1"]
    west = observe(truth(lon=(-65.0, -55.0)), "jason1", generator)["jason1"]
    np.testing.assert_array_equal(east["time"], west["time"])
    np.testing.assert_allclose(east["lon"], west["lon"] + 360.0, atol=1e-9)


def test_a_box_across_the_dateline_is_seen_whole(generator):
    seen = observe(truth(lon=(170.0, 190.0), lat=(-10.0, 10.0)), "swot", generator)
    lon = seen["nadir_swot"]["lon"].values
    assert lon.min() < 171.0
    assert lon.max() > 189.0
    assert np.isfinite(seen["nadir_swot"]["ssh_model"]).all()


def test_a_global_truth_has_no_seam(generator):
    def wave(t, y, x):
        return np.cos(np.deg2rad(x)) + 0.01 * y

    globe = truth(lon=(0.0, 359.0), lat=(-90.0, 90.0), days=2, field=wave)
    file = observe(globe, "jason1", generator)["jason1"]
    expected = wave(0.0, file["lat"].values, file["lon"].values)
    # Linear between nodes of one degree: an error under h^2 / 8 in radians.
    np.testing.assert_allclose(file["ssh_model"], expected, atol=np.deg2rad(1.0) ** 2 / 8)
    assert file["lon"].max() > 359.5
    count = 2 * DAY
    assert abs(file.sizes["time"] - count) < 2 * DAY / 3000


def test_land_is_nan_around_nodes_without_values(generator):
    island = truth()
    island["ssh"].values[:, 4:7, 4:7] = np.nan
    file = observe(island, "4nadirs", generator)["jason1"]
    lat, lon = file["lat"].values, file["lon"].values
    near = (np.abs(lat - 38.0) < 2.0) & (np.abs(lon - 300.0) < 2.0)
    np.testing.assert_array_equal(np.isnan(file["ssh_model"].values), near)


def test_a_node_without_weight_does_not_count():
    axis = np.array([0.0, 1.0, 2.0])
    field = np.zeros((3, 3, 3))
    field[:, :, 2] = np.nan
    at = [np.array([0.5]), np.array([0.5]), np.array([1.0])]
    assert interpolate(field, [axis] * 3, at)[0] == 0.0


def test_dates_bound_the_data(generator):
    start, end = START + np.timedelta64(3, "D"), START + np.timedelta64(5, "D")
    file = observe(truth(), "4nadirs", generator, start=start, end=end)
    whole = observe(truth(), "4nadirs", generator)
    for name in file:
        time = whole[name]["time"].values
        kept = time[(time >= start) & (time <= end)]
        np.testing.assert_array_equal(file[name]["time"].values, kept)


def test_errors_are_added_and_named(generator):
    seen = observe(truth(), "jason1,swot", generator, "full")
    swath = seen["karin_swot"]
    names = ["karin_err", "roll_err", "phase_err", "bd_err", "timing_err"]
    total = sum(swath[name] for name in names)
    xr.testing.assert_allclose(swath["ssh_obs"], (swath["ssh_model"] + total).rename("ssh_obs"))
    assert swath.attrs["errors"] == ", ".join(names)
    nadir = seen["jason1"]
    error = nadir["ssh_obs"] - nadir["ssh_model"]
    np.testing.assert_allclose(error, nadir["altimeter_err"], atol=1e-12)
    assert swath["x_ac"].attrs["units"] == "km"


def test_odd_passes_ascend(generator):
    file = observe(truth(), "jason1", generator)["jason1"]
    same = np.diff(file["pass_number"]) == 0
    up = np.diff(file["lat"]) > 0
    np.testing.assert_array_equal(up[same], (file["pass_number"].values[1:] % 2 == 1)[same])


def test_same_generator_same_data_in_any_company():
    def draw(missions, seed):
        return observe(truth(), missions, torch.Generator().manual_seed(seed), "karin")

    one, other, alone = draw("4nadirs,swot", 1), draw("4nadirs,swot", 2), draw("swot,jason1", 1)
    for name in ("jason1", "nadir_swot", "karin_swot"):
        xr.testing.assert_identical(one[name], alone[name])
        assert not np.array_equal(one[name]["ssh_obs"], other[name]["ssh_obs"])
    assert not np.allclose(
        one["jason1"]["altimeter_err"].values[:100],
        one["nadir_swot"]["altimeter_err"].values[:100],
    )


def test_noise_has_its_size(generator):
    model = ErrorModel(nadir=(White(0.05),), swath=(White(0.01),))
    seen = observe(truth(days=20), "4nadirs,swot", generator, model)
    for name, file in seen.items():
        error = file["white_err"].values
        std = 0.01 if name.startswith("karin") else 0.05
        assert abs(error.std() - std) < 5 * std / np.sqrt(2 * error.size)


def test_own_missions_and_coarse_swaths(generator):
    own = {"calval": replace(MISSIONS["swot_calval"], name="calval")}
    seen = observe(truth(days=2), own, generator, swath=Swath(across=10.0, along=10.0))
    assert list(seen) == ["nadir_calval", "karin_calval"]
    assert seen["karin_calval"].sizes["nC"] == 12
    assert seen["karin_calval"].attrs["mission"] == "calval"


def test_a_box_that_no_track_visits_gives_empty_files(generator):
    polar = truth(lat=(80.0, 88.0))
    seen = observe(polar, "jason1,swot", generator, "full")
    assert [file.sizes["time"] for file in seen.values()] == [0, 0, 0]


def test_order_of_dimensions_is_free(generator):
    turned = truth().transpose("lon", "time", "lat")
    straight = observe(truth(), "jason1", generator)["jason1"]
    xr.testing.assert_identical(straight, observe(turned, "jason1", generator)["jason1"])


def test_bad_arguments_are_refused(generator):
    good = truth()
    cases = [
        ({"truth": good.rename(ssh="sla")}, "a variable 'ssh'"),
        ({"truth": good.rename(lat="y")}, "of time, lat and lon"),
        ({"truth": good.isel(lat=slice(None, None, -1))}, "sortby\\('lat'\\)"),
        ({"truth": good.assign_coords(time=np.arange(25.0))}, "dates along time"),
        ({"missions": "voyager"}, "expected names among"),
        ({"noise": "loud"}, "expected a name among"),
        ({"start": np.datetime64("2013-01-01")}, "dates in order"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            observe(**{"truth": good, "missions": "1nadir", "generator": generator, **change})
    orbit = constellation("jason1")["jason1"].orbit
    with pytest.raises(ValueError, match="expected one positive step"):
        lines_over(orbit, BOXES["narrow"], 0.0, 1.0)
    with pytest.raises(ValueError, match=r"Box\(west="):
        Box(10.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"Box\(south="):
        Box(0.0, 1.0, 2.0, 1.0)
