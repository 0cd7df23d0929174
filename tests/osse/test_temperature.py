r"""Laws of temperature: nothing is made nor lost, the flow is followed, heights do not feel it."""

import itertools
import numpy as np
import pytest
import torch
import xarray as xr

from matheron.data.patches import QUASI_GEOSTROPHIC, Mirror
from matheron.dynamics import TwoLayerQG
from matheron.osse import Experiment
from matheron.osse.nature import PRESETS, nature_run
from matheron.osse.temperature import (
    ERROR_MEMORY,
    ERROR_SCALE,
    ERROR_STD,
    Climate,
    SurfaceTemperature,
    advected,
    see_temperature,
)

SMALL = {"size": 16, "spacing": 0.5, "spin_up": 10, "cache": False}


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def fluxes_of(psi):
    """Cells through the faces, from a streamfunction at the corners."""
    return psi - psi.roll(1, 1), psi.roll(1, 0) - psi


@pytest.fixture
def flow():
    """A rough flow that carries up to a cell and a half."""
    psi = torch.randn(24, 20, generator=dice(), dtype=torch.float64)
    for axis in (0, 1):
        psi = (psi.roll(1, axis) + psi + psi.roll(-1, axis)) / 3
    return [1.5 * f / psi.diff().abs().max() for f in fluxes_of(psi)]


def test_nothing_is_lost_and_no_extremum_is_made(flow):
    c = torch.rand(24, 20, generator=dice(1), dtype=torch.float64)
    total, low, high = c.sum(), c.min(), c.max()
    for _ in range(30):
        c = advected(c, flow)
        assert low - 1e-12 <= c.min()
        assert c.max() <= high + 1e-12
    torch.testing.assert_close(c.sum(), total, rtol=1e-12, atol=0)
    assert c.std() > 0.01
    flat = torch.full_like(c, 7.0)
    torch.testing.assert_close(advected(flat, flow), flat, rtol=1e-13, atol=0)


def test_a_whole_number_of_cells_is_a_shift_and_a_staircase_goes_on():
    """At one half of a cell twice there is no slope left to limit in a straight line."""
    c = torch.arange(12.0, dtype=torch.float64)[:, None].expand(12, 8)
    north = torch.ones(12, 8, dtype=torch.float64)
    found = advected(c, (north, 0 * north), jump=12.0)
    torch.testing.assert_close(found, c - 1.0, rtol=0, atol=1e-12)


def blob(n, angle):
    """A bell beside the middle of a disc, turned, and the solid rotation that turns it."""
    s = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    y, x = s[:, None], s
    away = (y - 0.2 * np.sin(angle)) ** 2 + (x - 0.2 * np.cos(angle)) ** 2
    corner = (torch.arange(n, dtype=torch.float64) + 1) / n - 0.5
    # a rotation that fades out before the ends of the square
    r = (corner[:, None] ** 2 + corner**2).sqrt()
    spin = torch.where(r < 0.4, (r**2 - 0.16) / 2, 0.0)
    return torch.exp(-away / (2 * 0.06**2)), spin


def test_a_solid_rotation_is_followed_to_second_order():
    errors = []
    for n in (32, 64, 128):
        c, spin = blob(n, 0.0)
        steps = 2 * n  # the same flow through a face whatever the number of nodes
        turn = np.pi / 2 / steps
        fluxes = [turn * n**2 * f for f in fluxes_of(spin)]
        for _ in range(steps):
            c = advected(c, fluxes)
        errors.append((c - blob(n, np.pi / 2)[0]).abs().mean().item())
    orders = [np.log2(a / b) for a, b in itertools.pairwise(errors)]
    print(errors, orders)
    assert min(orders) > 1.5  # second order but at the top of the bell, where slopes are cut
    assert errors[-1] < 3e-4


def test_restoring_and_spreading_have_their_rates():
    """Without a flow, an anomaly that is a wave decays as exp(-(1/tau + kappa k^2) t)."""
    model = TwoLayerQG(32, flow=(0.0, 0.0), dt=3600.0)
    warm = SurfaceTemperature(model, 0.0, Climate(memory=10.0, diffusivity=400.0))
    k = 2 * np.pi / model.length
    wave = torch.as_tensor(np.cos(k * warm.nodes)).expand(32, 32)
    still = model.enter(torch.zeros(2, 32, 32, dtype=torch.float64))
    c = warm.start() + wave
    for _ in range(48):
        c = warm.advance(c, still, still)
    # the wave of the climatology spreads, too
    rest = warm.start()
    for _ in range(48):
        rest = warm.advance(rest, still, still)
    rate = 1 / (10 * 86400) + 400 * k**2
    found = ((c - rest) * wave).mean() / wave.square().mean()
    assert found.item() == pytest.approx(np.exp(-rate * 48 * 3600), rel=1e-3)


@pytest.mark.parametrize("mirror", QUASI_GEOSTROPHIC[:1])
def test_a_mirrored_flow_carries_the_mirrored_temperature_about_its_mean(mirror):
    """psi(x, -y) with the sign changed carries 2 m - T(x, -y): the sign under -lat is -1."""
    climate = Climate()
    model = TwoLayerQG(32, flow=(0.1, 0.0), dt=7200.0)
    warm = SurfaceTemperature(model, 0.1, climate)
    # nodes are not about the middle: the mirror image of the first row is a row that is not there
    q = model.initial(dice(2))
    middle = (climate.north + climate.south) / 2

    def mirrored(x):
        return x.flip(-2).roll(1, -2)

    def turned(c):
        found = 2 * middle - mirrored(c)
        found[0] = 2 * middle - c[0] - warm.jump  # one step of the staircase further
        return found

    one, other = warm.start(), turned(warm.start())
    torch.testing.assert_close(other, one, rtol=0, atol=1e-10)  # so does the climatology
    state, image = model.enter(q), model.enter(mirror.sign * mirrored(q))
    plain = warm.start()
    for _ in range(60):
        nexts = [model.advance(s) for s in (state, image)]
        one, other = (
            warm.advance(c, a, b)
            for c, a, b in zip((one, other), (state, image), nexts, strict=True)
        )
        plain = warm.advance(plain, state, nexts[0])
        state, image = nexts
    assert (one - warm.start()).std() > 0.3
    torch.testing.assert_close(turned(one), other, rtol=0, atol=1e-6)
    # and not with its sign kept: the climatology would be upside down
    assert (mirrored(one) - other)[1:].abs().max() > 5


def run(**given):
    return nature_run("gulfstream", **{"days": 2, **SMALL, **given})


def test_heights_do_not_feel_it():
    plain, warm = run(), run(sst=True)
    assert np.array_equal(plain["ssh"], warm["ssh"])
    assert "sst" not in plain
    assert warm["sst"].dims == ("time", "lat", "lon")
    again = run(sst=True)
    assert np.array_equal(again["sst"], warm["sst"])
    assert abs(run(seed=1, sst=True)["sst"] - warm["sst"]).max() > 1e-3
    longer = run(days=3, sst=True)
    assert np.array_equal(longer["sst"][: len(warm["sst"])], warm["sst"])


def test_a_cached_temperature_is_the_same(tmp_path):
    days = []
    plain = run(cache=tmp_path)
    fresh = run(sst=True, cache=tmp_path)
    again = run(sst=True, cache=tmp_path, progress=lambda done, total: days.append((done, total)))
    assert days == [(1, 2), (2, 2)]
    for name in ("ssh", "sst"):
        assert np.array_equal(fresh[name], again[name])
    assert np.array_equal(plain["ssh"], run(cache=tmp_path)["ssh"])


def test_what_is_seen_has_its_errors():
    time = np.datetime64("2020-01-01") + np.arange(120) * np.timedelta64(1, "D")
    axes = {"time": time, "lat": np.arange(30.0, 50.0, 0.25), "lon": np.arange(0.0, 20.0, 0.25)}
    flat = xr.Dataset({"sst": (tuple(axes), np.full((120, 80, 80), 15.0))}, axes)
    seen = see_temperature(flat, dice(), clouds=True)
    clear = see_temperature(flat, dice())
    e = clear["sst"].values.astype(float) - 15.0
    # as many independent errors as correlations leave: sums of squares of correlations are
    # l sqrt(pi / 2) along each axis of space, and (1 + r^2) / (1 - r^2) days
    r = np.exp(-1 / ERROR_MEMORY)
    extent = (20 * 111e3) * (20 * 111e3 * np.cos(np.deg2rad(40)))
    count = extent / (np.pi / 2 * ERROR_SCALE**2) * 120 * (1 - r**2) / (1 + r**2)
    assert abs(e.std() / ERROR_STD - 1) < 5 / np.sqrt(2 * count)
    # correlated in space and time as they should be
    near = (e[1:] * e[:-1]).mean() / e.var()
    assert near == pytest.approx(r, abs=5 / np.sqrt(count))
    lag = 0.25 * 111.2e3
    beside = (e[:, 1:] * e[:, :-1]).mean() / e.var()
    assert beside == pytest.approx(np.exp(-((lag / ERROR_SCALE) ** 2)), abs=0.01)
    hidden = np.isnan(seen["sst"].values)
    assert 0.2 < hidden.mean() < 0.8
    assert np.array_equal(seen["sst"].values[~hidden], clear["sst"].values[~hidden])


def sea(**given):
    return Experiment.make("gulfstream", "1nadir", days=3, **{**SMALL, **given})


def test_an_experiment_keeps_it_beside(tmp_path):
    plain, warm = sea(train=True), sea(train=True, sst=True)
    assert list(warm._files()) != list(plain._files())
    for name, dataset in plain._files().items():
        xr.testing.assert_identical(dataset, warm._files()[name])
    assert plain.statistics == {k: v for k, v in warm.statistics.items() if k != "beside"}
    assert "beside" not in plain._settings()
    folder = warm.save(tmp_path / "osse")
    extra = {"sst.nc", "truth_sst.nc", "train_sst.nc", "train_truth_sst.nc"}
    assert {p.name for p in folder.iterdir()} == {*warm._files(), "osse.json", "README.md"}
    assert extra <= set(warm._files())
    found = Experiment.load(folder)
    assert found.summary == warm.summary
    for one, other in ((warm, found), (warm.training, found.training)):
        beside = one.beside["sst"]
        xr.testing.assert_identical(beside.truth, other.beside["sst"].truth.load())
        xr.testing.assert_identical(beside.seen, other.beside["sst"].seen.load())
        assert (beside.seen["time"].dt.hour == 0).all()
        assert beside.seen.sizes["time"] == one.truth.sizes["time"] / 4
    found.close()
    (folder / "sst.nc").unlink()
    with pytest.raises(ValueError, match=r"sst\.nc, as osse\.json says"):
        Experiment.load(folder)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'clear' or 'clouds'"):
        sea(sst="fog")
    with pytest.raises(ValueError, match="it has no currents"):
        Experiment.make("sediment", days=3, sst=True)


def test_clouds_hide_it():
    hidden = np.isnan(sea(sst="clouds").beside["sst"].seen["sst"].values)
    assert 0 < hidden.mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_ocean_has_fronts_and_eddies_of_temperature(name):
    ocean = nature_run(name, 0, 2, sst=True, size=64, cache=False)
    climate = PRESETS[name].climate
    c = ocean["sst"].values
    swing = climate.south - climate.north
    assert c.min() > climate.north - 0.2 * swing
    assert c.max() < climate.south + 0.2 * swing
    assert 0.02 * swing < (c - c.mean(axis=2, keepdims=True)).std() < 0.3 * swing
    assert Mirror(("lat",), -1.0) in QUASI_GEOSTROPHIC
