r"""Laws of nature runs: seeds, continuity, the cut, the cache, and the ocean they claim to be."""

import numpy as np
import pytest
import torch
import xarray as xr

import matheron as mt

from matheron.dynamics import Lorenz63, Lorenz96
from matheron.osse.calendar import CALENDARS, Calendar
from matheron.osse.nature import PRESETS, _cut, _model, mean_front, nature_run
from matheron.osse.simple import gaussian_truth, lorenz_truth


def small(seed=0, days=2, cache=False, **given):
    given = {"size": 16, "spacing": 0.5, "spin_up": 10} | given
    return nature_run("gulfstream", seed, days, cache=cache, **given)


def test_a_run_is_labelled_as_told():
    run = small(days=1, spacing=0.1, start="2015-06-01")
    assert run["ssh"].dims == ("time", "lat", "lon")
    assert run["ssh"].dtype == np.float32
    assert run["lat"].values[[0, 1, -1]].tolist() == [33.0, 33.1, 43.0]
    assert run["lon"].values[[0, -1]].tolist() == [-65.0, -55.0]
    assert len(run["lat"]) == len(run["lon"]) == 101
    assert (run["time"].values[:2] == np.array(["2015-06-01T00", "2015-06-01T06"], "M8[h]")).all()
    assert (run.attrs["preset"], run.attrs["seed"]) == ("gulfstream", 0)
    assert np.isfinite(run["ssh"]).all()


def test_a_seed_is_an_ocean():
    a, b, c = small(0), small(0), small(1)
    assert np.array_equal(a["ssh"], b["ssh"])
    assert abs(a["ssh"] - c["ssh"]).max() > 0.01
    assert np.array_equal(a["mdt"], c["mdt"])


def test_more_days_go_on():
    assert np.array_equal(small(days=3)["ssh"][:4], small(days=1)["ssh"])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run = small(days=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(run["ssh"], small(days=1)["ssh"])


def test_a_cached_ocean_is_the_same(tmp_path):
    days = []
    fresh = small(cache=tmp_path, progress=lambda done, total: days.append((done, total)))
    assert days[0] == (1, 12)
    assert days[-1] == (12, 12)
    assert len(days) == 12
    days.clear()
    again = small(cache=tmp_path, progress=lambda done, total: days.append((done, total)))
    assert days == [(1, 2), (2, 2)]
    assert np.array_equal(fresh["ssh"], again["ssh"])
    assert np.array_equal(fresh["ssh"], small()["ssh"])
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]


@pytest.mark.parametrize("harm", ["truncated", "text", "other", "empty"])
def test_a_broken_cache_is_made_again(tmp_path, harm):
    fresh = small(cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if harm == "other":
        np.savez(path, q=np.zeros((2, 16, 16), np.float32), settings=np.array("{}"))
    else:
        path.write_bytes({"truncated": whole[:-100], "text": b"hello", "empty": b""}[harm])
    again = small(cache=tmp_path)
    assert np.array_equal(fresh["ssh"], again["ssh"])
    with np.load(path, allow_pickle=False) as file:
        assert file["q"].shape == (2, 16, 16)


def test_the_user_s_cache_is_where_the_system_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small(cache=True)
    assert len(list((tmp_path / "matheron" / "nature").iterdir())) == 1


def test_the_cut_is_exact_on_waves():
    region = PRESETS["gulfstream"]
    model, _ = _model(region, 32)
    lat, lon = np.linspace(33, 43, 21), np.linspace(-65, -55, 21)
    across, along = (w.double() for w in _cut(region, model, lat, lon))
    wave = lambda y, x: np.cos(2 * np.pi * (5 * x - 3 * y) / 1.28e6 + 0.4)
    s = np.arange(32) * 4e4 - 6.4e5
    y = 6_371_008.8 * np.deg2rad(lat - 38)
    x = 6_371_008.8 * np.cos(np.deg2rad(38)) * np.deg2rad(lon + 60)
    nodes = torch.as_tensor(wave(s[:, None], s))
    found = (across @ nodes @ along.mT).numpy()
    assert abs(found - wave(y[:, None], x)).max() < 1e-5  # weights in single precision


@pytest.mark.parametrize("name", PRESETS)
def test_the_box_lies_in_the_square(name):
    """With a margin of 5 % at least, so that opposite sides are not neighbours."""
    region = PRESETS[name]
    height = 111.2e3 * (region.lat[1] - region.lat[0])
    width = 111.2e3 * (region.lon[1] - region.lon[0]) * np.cos(np.deg2rad(region.lat[0]))
    assert max(height, width) < 0.95 * region.model["length"]


def test_the_front_is_high_in_the_south():
    region = PRESETS["gulfstream"]
    front = mean_front(region, np.array([33.0, 38.0, 43.0]), np.array([-60.0]))[:, 0]
    assert front == pytest.approx([0.6, 0.0, -0.6], abs=2e-3)


def test_time_is_continuous():
    """Six hours change a field less than a day, and a day less than the eddies are high."""
    run = small(days=8, size=32)
    h = (run["ssh"] - run["mdt"]).values
    moves = [np.sqrt(((h[k:] - h[:-k]) ** 2).mean()) for k in (1, 4, 8)]
    assert moves[0] < 0.4 * moves[1] < 0.4 * moves[2]
    assert moves[0] < 0.15 * h.std()
    steps = np.sqrt(((h[1:] - h[:-1]) ** 2).mean((1, 2)))
    assert steps.max() < 2 * steps.min()


def slope(h, spacing_km, low, high):
    """The exponent of the isotropic spectrum of height, between two wavelengths."""
    h = h - h.mean((1, 2), keepdims=True)
    n, m = h.shape[1:]
    window = np.hanning(n)[:, None] * np.hanning(m)
    power = (abs(np.fft.fft2(h * window)) ** 2).mean(0)
    k = np.hypot(
        *np.meshgrid(
            np.fft.fftfreq(n, spacing_km[0]), np.fft.fftfreq(m, spacing_km[1]), indexing="ij"
        )
    )
    edges = np.geomspace(1 / high, 1 / low, 9)
    middle = np.sqrt(edges[1:] * edges[:-1])
    ring = [
        power[(k >= a) & (k < b)].mean() * c
        for a, b, c in zip(edges[:-1], edges[1:], middle, strict=True)
    ]
    return np.polyfit(np.log(middle), np.log(ring), 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("gulfstream", 0.18, 0.32), ("mediterranean", 0.045, 0.08), ("quiet", 0.03, 0.055)],
)
def test_the_ocean_is_what_it_claims(name, low, high):
    """Eddies of the stated height, a spectrum as steep as turbulence, a memory of days."""
    run = nature_run(name, seed=0, days=40, cache=False)
    h = (run["ssh"] - run["mdt"]).values.astype(float)
    assert low < h.std() < high
    spacing = 11.12, 11.12 * np.cos(np.deg2rad(np.mean(PRESETS[name].lat)))
    radius = PRESETS[name].model["radius"] / 1e3
    assert -6.5 < slope(h[::20], spacing, 2 * radius, 8 * radius) < -3
    days = h[::4]
    memory = [np.corrcoef(days[0].ravel(), days[k].ravel())[0, 1] for k in (1, 10, 39)]
    assert memory[0] > 0.95
    assert 0.2 < memory[1] < 0.9
    assert memory[2] < 0.6


def test_the_calendar_of_2020a():
    calendar = CALENDARS["2020a"]
    counts = {k: calendar.count(k) for k in ("spin_up", "scored", "buffer", "training")}
    assert counts == {"spin_up": 21, "scored": 42, "buffer": 30, "training": 272}
    assert sum(counts.values()) == calendar.days == 365
    assert (calendar.start, calendar.end) == ("2012-10-01", "2013-09-30")
    times = np.datetime64("2012-10-01", "ns") + np.arange(365 * 4) * np.timedelta64(6, "h")
    whole = xr.Dataset({"x": ("time", np.arange(len(times)))}, {"time": times})
    parts = [calendar.select(whole, k)["x"].values for k in counts]
    assert [len(p) for p in parts] == [4 * c for c in counts.values()]
    assert np.array_equal(np.concatenate(parts), whole["x"])
    with pytest.raises(ValueError, match=r"expected one of .*got 'test'"):
        calendar.select(whole, "test")
    with pytest.raises(ValueError, match="expected times from 2013-01-02 to 2013-09-30"):
        calendar.select(whole.isel(time=slice(10)), "training")
    with pytest.raises(ValueError, match="parts that follow one another"):
        Calendar("x", *[("2012-01-01", "2012-01-03")] * 4)


def test_gaussian_truths_are_draws_of_their_law():
    mask = np.array([[True, True, False], [True, True, True]])
    grid = mt.Grid(
        time=np.array(["2020-01-01", "2020-01-03"], "M8[D]"),
        lat=[43.0, 44.0],
        lon=[5.0, 6.0, 7.0],
        mask=mask,
    )
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, (3.0, 1e5, 1e5)), grid)
    truth = gaussian_truth(prior, 4, torch.Generator().manual_seed(3), name="sla")
    draws = prior.sample(4, torch.Generator().manual_seed(3)).detach().numpy()
    assert truth["sla"].dims == ("member", "time", "lat", "lon")
    np.testing.assert_allclose(truth["sla"].values[:, :, mask].reshape(4, -1), draws, 1e-12)
    assert np.isnan(truth["sla"].values[:, :, ~mask]).all()
    assert truth["time"].values[1] == np.datetime64("2020-01-03", "ns")


def test_gaussian_truths_need_a_grid():
    points = mt.Points(x=[0.0, 1.0])
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1.0), points)
    with pytest.raises(TypeError, match="expected a law on a Grid, got one on Points"):
        gaussian_truth(prior)


@pytest.mark.parametrize("model", [Lorenz63(), Lorenz96(12)])
def test_lorenz_truths_follow_the_model(model, generator):
    truth = lorenz_truth(model, 20, 2, generator, every=5)
    x = torch.as_tensor(truth["x"].values)
    assert x.shape == (2, 5, *model.shape)
    assert torch.allclose(model(x[:, 0], 20), x[:, 4], rtol=1e-8)
    assert truth["time"].values[-1] == pytest.approx(20 * model.dt)
    assert x[:, 0].abs().max() < 60


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "atlantis"}, "expected one of gulfstream, .*got 'atlantis'"),
        ({"days": 0}, "expected one day or more, got 0"),
        ({"spacing": 0.3}, "expected degrees that divide the 10 degrees of lat, got 0.3"),
        ({"spacing": 0.0}, "expected degrees that divide"),
    ],
)
def test_bad_arguments_are_told(given, message):
    with pytest.raises(ValueError, match=message):
        nature_run(**given)
