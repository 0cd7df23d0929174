"""Swaths: distances on the sphere, sides, the gap at nadir, and the geometry of a real file."""

import numpy as np
import pytest
import xarray as xr

from matheron.domain import EARTH_RADIUS
from matheron.osse.constellations import SWOT_SCIENCE
from matheron.osse.swath import Swath, across_track, ground_frame, lonlat, unit_vectors

TIMES = np.linspace(0.0, SWOT_SCIENCE.revolution, 500)


def kilometres(a, b):
    return 2e-3 * EARTH_RADIUS * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2)


def test_pixels_are_at_their_distance_and_square_to_the_track():
    swath = Swath()
    here, along = ground_frame(SWOT_SCIENCE, TIMES)
    points = unit_vectors(*across_track(here, along, swath.offsets))
    distance = kilometres(points, here[:, None])
    np.testing.assert_allclose(distance, np.abs(swath.offsets) * np.ones((500, 1)), rtol=1e-9)
    np.testing.assert_allclose((points * along[:, None]).sum(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(kilometres(points[:, 1:26], points[:, :25]), 2.0, rtol=1e-8)


def test_gap_is_empty_and_sides_are_symmetric():
    offsets = Swath(inner=10.0, outer=60.0, across=2.0).offsets
    assert offsets.size == 52
    assert np.abs(offsets).min() == 10.0
    assert np.abs(offsets).max() == 60.0
    np.testing.assert_array_equal(offsets, -offsets[::-1])
    assert Swath(inner=10.0, outer=60.0, across=0.1).offsets.size == 2 * 501


def test_right_is_east_where_the_satellite_climbs_northwards():
    ascending = (SWOT_SCIENCE.pass_starts(np.array([0, 2])) + SWOT_SCIENCE.revolution / 4)[1:]
    here, along = ground_frame(SWOT_SCIENCE, ascending)
    assert along[0, 2] > 0.5
    (left, right), _ = across_track(here, along, np.array([-50.0, 50.0]))[0].T, None
    below = lonlat(here)[0]
    assert (np.mod(right - below + 180, 360) - 180 > 0.3).all()
    assert (np.mod(left - below + 180, 360) - 180 < -0.3).all()


def test_directions_follow_the_ground_track():
    here, along = ground_frame(SWOT_SCIENCE, TIMES)
    later = unit_vectors(*SWOT_SCIENCE.track(TIMES + 2.0))
    way = later - here
    cosine = (way * along).sum(-1) / np.linalg.norm(way, axis=-1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-5)
    np.testing.assert_allclose((here * along).sum(-1), 0.0, atol=1e-12)


def test_pixels_of_a_real_swath_are_found_from_its_middle(real_data):
    # Column 34 is nadir, columns are 2 km apart, and the right side has positive distances.
    file = real_data / "swot" / "SWOT_L3_LR_SSH_Expert_003_v2.0.1-med.nc"
    with xr.open_dataset(file) as real:
        lon, lat = real["lon"].values, real["lat"].values
        distance = real["cross_track_distance"].values
    points = unit_vectors(lon, lat)
    middle = points[:, 34]
    way = middle[2:] - middle[:-2]
    along = way - (way * middle[1:-1]).sum(-1, keepdims=True) * middle[1:-1]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    offsets = 2.0 * (np.arange(69) - 34)
    measured = np.isfinite(distance)
    assert (np.abs(distance - offsets[:, None])[measured] < 1.0).all()
    made = unit_vectors(*across_track(middle[1:-1], along, offsets))
    error = kilometres(made, points[1:-1])[:, np.abs(offsets) <= 60]
    assert np.sqrt(np.nanmean(error**2)) < 0.25  # 0.4 % of 60 km: a sphere for an ellipsoid


@pytest.mark.parametrize(
    "change",
    [{"inner": -1.0}, {"outer": 5.0}, {"across": 0.0}, {"along": -2.0}, {"along": float("nan")}],
)
def test_bad_swaths_are_refused(change):
    with pytest.raises(ValueError, match=r"Swath\(.*expected"):
        Swath(**change)
