"""Orbits: official ephemerides, the real ground tracks, and the laws of a repeat orbit."""

import math
import numpy as np
import pandas as pd
import pytest

from dataclasses import replace

from matheron.domain import EARTH_RADIUS
from matheron.osse.constellations import (
    CONSTELLATIONS,
    JASON,
    MISSIONS,
    SWOT_CALVAL,
    SWOT_SCIENCE,
    constellation,
)
from matheron.osse.orbits import EQUATORIAL_RADIUS, RepeatOrbit, geodetic_latitude
from matheron.osse.swath import unit_vectors

ORBITS = {name: mission.orbit for name, mission in MISSIONS.items()}
GRAVITY, FLATNESS, EARTH_TURN = 3.986004418e14, 1.08263e-3, 7.292115e-5


def kilometres(a, b):
    return 2e-3 * EARTH_RADIUS * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2)


@pytest.mark.parametrize(
    ("orbit", "file"),
    [
        (SWOT_SCIENCE, "ephemeris_science_sept2015_ell.txt"),
        (SWOT_CALVAL, "ephemeris_calval_june2015_ell.txt"),
    ],
)
def test_tracks_are_those_of_the_official_ephemerides(real_data, orbit, file):
    time, lon, lat, _ = np.loadtxt(real_data / "swot" / file).T
    error = kilometres(unit_vectors(*orbit.track(time)), unit_vectors(lon, lat))
    assert np.sqrt(np.mean(error**2)) < 0.5
    assert error.max() < 1.0


@pytest.mark.parametrize(
    ("mission", "name", "limit"),
    [("j2", "jason1", 2.0), ("al", "envisat", 5.0), ("h2", "hy2a", 20.0)],
)
def test_tracks_of_2014_are_the_real_ones(real_data, mission, name, limit):
    table = pd.read_parquet(
        real_data / "mediterranean" / "adt_alongtrack_20140515_20140603_al_h2_j2.parquet"
    )
    table = table[table["mission"].astype(str) == mission]
    orbit = ORBITS[name]
    track = unit_vectors(*orbit.track(orbit.seconds(table["time"].to_numpy())))
    real = unit_vectors(*(table[c].to_numpy().astype(float) for c in ("lon", "lat")))
    assert np.sqrt(np.mean(kilometres(track, real) ** 2)) < limit


def test_jason_crosses_the_equator_where_it_does():
    # The first pass of Topex/Poseidon and Jason crosses the equator at 99.9242 E.
    lon, lat = JASON.track(JASON.times(2 * np.pi * np.arange(1.0, 128.0)))
    assert np.abs(lat).max() < 1e-9
    assert np.abs(lon - 99.9242).min() < 0.01


@pytest.mark.parametrize("name", ORBITS)
def test_track_closes_after_a_cycle_and_not_before(name):
    orbit = ORBITS[name]
    times = np.linspace(0.0, 3.0 * orbit.revolution, 200)
    start = unit_vectors(*orbit.track(times))
    cycle = orbit.period * 86400
    assert kilometres(unit_vectors(*orbit.track(times + cycle)), start).max() < 1e-3
    for turns in range(1, min(orbit.revolutions, 60)):
        later = unit_vectors(*orbit.track(times[:1] + turns * orbit.revolution))
        assert kilometres(later, start[:1]).min() > 1.0


@pytest.mark.parametrize("name", ORBITS)
def test_inclination_bounds_the_latitude(name):
    orbit = ORBITS[name]
    _, lat = orbit.track(np.arange(0.0, 2.0 * orbit.revolution, 1.0))
    highest = np.deg2rad(min(orbit.inclination, 180.0 - orbit.inclination))
    bound = geodetic_latitude(np.array([highest]), EQUATORIAL_RADIUS + orbit.altitude)
    assert np.abs(lat).max() <= np.rad2deg(bound[0]) + 1e-9
    assert np.abs(lat).max() > np.rad2deg(bound[0]) - 1e-4


@pytest.mark.parametrize("name", ORBITS)
def test_equator_crossings_are_evenly_spaced(name):
    orbit = ORBITS[name]
    nodes = orbit.times(2 * np.pi * np.arange(orbit.revolutions, dtype=float))
    np.testing.assert_allclose(np.diff(nodes), orbit.revolution, rtol=1e-9)
    lon = np.sort(orbit.track(nodes)[0])
    gaps = np.diff(lon, append=lon[0] + 360.0)
    np.testing.assert_allclose(gaps, orbit.spacing, atol=1e-6)
    # Successive nodes move west by the turn of the Earth under the orbit.
    drift = np.mod(-np.diff(orbit.track(nodes)[0]), 360.0)
    expected = (360.0 * orbit.days / orbit.revolutions) % 360.0
    np.testing.assert_allclose(drift, expected, atol=1e-6)


@pytest.mark.parametrize("name", ORBITS)
def test_cycles_obey_the_mechanics_of_an_oblate_earth(name):
    # First-order secular rates by J2 (Kaula 1966): the altitude that gives the revolution, and the
    # nodal day that goes with it. The oracle sees neither the period nor the days of the cycle.
    orbit = ORBITS[name]
    a, i = EQUATORIAL_RADIUS + orbit.altitude, math.radians(orbit.inclination)
    motion = math.sqrt(GRAVITY / a**3)
    oblate = 1.5 * FLATNESS * motion * (EQUATORIAL_RADIUS / a) ** 2
    node = -oblate * math.cos(i)
    argument = motion + oblate * (2.0 - 2.5 * math.sin(i) ** 2 + 1.0 - 1.5 * math.sin(i) ** 2)
    assert orbit.revolution == pytest.approx(2 * math.pi / argument, rel=1.5e-3)
    nodal_day = 2 * math.pi / (EARTH_TURN - node)
    assert orbit.period * 86400 == pytest.approx(orbit.days * nodal_day, rel=3e-5)


@pytest.mark.parametrize("name", ["jason1", "geosat2", "swot"])
def test_passes_run_between_extreme_latitudes(name):
    orbit = ORBITS[name]
    starts = orbit.pass_starts(np.arange(0, 40))
    assert starts[0] <= 0.0 < starts[2]
    _, lat = orbit.track(starts)
    assert (lat[::2] < 0).all()
    assert (lat[1::2] > 0).all()
    inside = (starts[:-1] + starts[1:]) / 2
    np.testing.assert_array_equal(orbit.pass_at(inside), np.arange(39))
    _, before = orbit.track(inside - 1.0)
    _, after = orbit.track(inside + 1.0)
    np.testing.assert_array_equal(after > before, np.arange(39) % 2 == 0)


def test_dates_and_seconds_are_inverse():
    times = np.array([-1.5, 0.0, 3e8 + 0.25])
    np.testing.assert_allclose(JASON.seconds(JASON.dates(times)), times, atol=1e-6)


def test_longitude_turns_the_track():
    times = np.linspace(0.0, 1e5, 50)
    lon, lat = JASON.track(times)
    turned = replace(JASON, longitude=JASON.longitude + 77.0).track(times)
    np.testing.assert_allclose(np.mod(turned[0] - lon - 77.0 + 180, 360) - 180, 0.0, atol=1e-9)
    np.testing.assert_array_equal(turned[1], lat)


def test_interleaved_tracks_lie_midway():
    nodes = 2 * np.pi * np.arange(1.0, 128.0)
    lon, _ = JASON.track(JASON.times(nodes))
    other = ORBITS["topex-poseidon_interleaved"]
    between, _ = other.track(other.times(nodes[:1]))
    assert np.abs(lon - between).min() == pytest.approx(JASON.spacing / 2, abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"revolutions": 0},
        {"days": 0},
        {"period": -1.0},
        {"inclination": 180.0},
        {"altitude": 0.0},
        {"eccentricity": 0.2},
        {"phase": math.nan},
        {"revolutions": 120},
    ],
)
def test_bad_orbits_are_refused(change):
    with pytest.raises(ValueError, match=rf"RepeatOrbit\({next(iter(change))}="):
        replace(JASON, **change)


def test_seconds_want_dates():
    with pytest.raises(TypeError, match="expected dates"):
        JASON.seconds([1.0])


def test_constellations_by_name():
    assert list(constellation("4nadirs")) == list(CONSTELLATIONS["4nadirs"])
    assert list(constellation("4nadirs, swot")) == [*CONSTELLATIONS["4nadirs"], "swot"]
    assert list(constellation(["jason1", "1nadir"])) == ["jason1"]
    assert len(constellation("7nadirs")) == 7
    with pytest.raises(ValueError, match=r"expected names among .*, got 'jason9'"):
        constellation("jason9")
    with pytest.raises(ValueError, match="got none"):
        constellation("")
    assert isinstance(ORBITS["swot"], RepeatOrbit)
