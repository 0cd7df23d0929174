r"""Laws of the sediment plume: positive, conserved, carried, skewed, repeatable."""

import numpy as np
import pytest
import torch

from matheron.osse.plume import Coast, _Sea, _Weather, plume_run


def sea(spacing=0.1, **given):
    return _Sea(Coast(**given), spacing, torch.Generator().manual_seed(0))


def test_a_run_is_labelled_and_repeatable():
    a, b, c = (plume_run(s, 3, spacing=0.2, spin_up=2) for s in (0, 0, 1))
    assert a["spm"].dims == ("time", "lat", "lon")
    assert a["spm"].attrs["units"] == "g m-3"
    assert np.array_equal(a["spm"], b["spm"], equal_nan=True)
    assert not np.array_equal(a["spm"], c["spm"], equal_nan=True)
    land = np.isnan(a["spm"].values)
    assert (land == land[0]).all()
    assert 0.05 < land[0].mean() < 0.5


def test_hours_are_the_same_run_as_days():
    days = plume_run(0, 3, spacing=0.2, spin_up=1)["spm"]
    hours = plume_run(0, 3, spacing=0.2, spin_up=1, every=6)["spm"]
    assert np.array_equal(hours[::4], days, equal_nan=True)
    assert (hours["time"][::4].values == days["time"].values).all()


def test_the_load_is_positive_skewed_and_high_at_the_coast():
    run = plume_run(0, 40, spacing=0.1)
    x = run["spm"].values
    at_sea = np.isfinite(x[0])
    z = np.log(x[:, at_sea])
    assert (x[:, at_sea] > 0).all()
    assert 0.5 < z.std() < 2
    assert ((x[:, at_sea] - x[:, at_sea].mean()) ** 3).mean() / x[:, at_sea].std() ** 3 > 2
    offshore = x[:, :, :5][:, at_sea[:, :5]]
    inshore = np.array([x[:, j, np.flatnonzero(at_sea[j])[-2:]] for j in range(x.shape[1])])
    assert np.median(inshore) > 5 * np.median(offshore)


def test_days_resemble_one_another_and_then_forget():
    z = np.log(plume_run(0, 60, spacing=0.1)["spm"].values)
    z = z[:, np.isfinite(z[0])]
    z = z - z.mean(0)
    memory = [(z[k:] * z[:-k]).mean() / z.var() for k in (1, 5, 20)]
    assert memory[0] > 0.6
    assert memory[0] > memory[1] > memory[2]


def test_diffusion_keeps_the_mass_and_spreads():
    box = sea()
    c = np.where(box.sea, np.random.default_rng(0).random(box.shape), 0.0)
    after = box._spread(c)
    assert after.sum() == pytest.approx(c.sum(), rel=1e-12)
    assert after[box.sea].var() < c[box.sea].var()
    assert (after[~box.sea] == 0).all()
    assert after[box.sea].min() >= c[box.sea].min()


def test_still_water_settles_to_its_background():
    """Without currents or sources the excess decays at its rate: exp(-t / tau(z))."""
    box = sea(tide=0.0, drift=0.0, eddies=1e-300, diffusivity=0.0, storm=0.0, rivers=())
    c = np.where(box.sea, 5.0, 0.0)
    for k in range(24):
        c = box.step(c, 3600.0 * k, (0.0, 0.0, np.zeros(0)))
    tau = 3.0 * box.depth / 10
    expected = 0.2 + 4.8 * np.exp(-1 / tau)
    assert np.allclose(c[box.sea], expected[box.sea], rtol=1e-9)


def test_a_uniform_load_stays_uniform_in_any_current():
    """Advection and diffusion invent no sediment, at the coast neither."""
    box = sea(storm=0.0, rivers=())
    c = np.full(box.shape, 0.2)
    for k in range(24):
        c = box.step(c, 3600.0 * k, (0.3, 1.0, np.zeros(0)))
    assert np.allclose(c[box.sea], 0.2, rtol=1e-12)


def test_the_drift_carries():
    """A patch far offshore moves north at the speed of the drift, within a tenth."""
    box = sea(0.1, tide=0.0, eddies=1e-300, storm=0.0, rivers=(), diffusivity=0.0, settling=1e9)
    j, i = np.indices(box.shape)
    c = 0.2 + np.exp(-((j - 12) ** 2 + (i - 10) ** 2) / 18.0)
    centre = lambda c: ((c - 0.2) * j)[box.sea].sum() / (c - 0.2)[box.sea].sum()
    start = centre(c)
    for k in range(24):
        c = box.step(c, 3600.0 * k, (0.5, 0.0, np.zeros(0)))
    assert (centre(c) - start) * box.dy == pytest.approx(0.5 * 86400, rel=0.1)


def test_rivers_bring_their_load():
    box = sea(storm=0.0)
    before = np.full(box.shape, 0.2)
    flow = np.array([1.0, 2.0])
    gain = box.step(before, 0.0, (0.0, 0.0, flow)) - before
    kilograms = gain[box.sea].sum() * box.dx * box.dy * 5 / 1e3
    assert kilograms == pytest.approx((120 * 1 + 60 * 2) * 3600, rel=1e-6)


def test_the_eddies_do_not_diverge_and_spare_the_coast():
    box = sea()
    u, v = box.eddies
    inner = box.sea.copy()
    for s in (1, -1):
        for a in (0, 1):
            inner &= np.roll(box.sea, s, a)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inner[[1, -2]] = inner[:, [1, -2]] = False
    away = np.gradient(u, box.dx, axis=1) + np.gradient(v, box.dy, axis=0)
    deep = inner & np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
    assert abs(away[deep]).max() < 1e-10 * abs(np.gradient(u, box.dx, axis=1)).max()
    assert np.sqrt((u**2 + v**2)[box.sea].mean() / 2) == pytest.approx(0.08, rel=1e-9)


def test_weather_has_its_means():
    """Waves and rivers have mean one: 5 standard errors over their memories."""
    weather = _Weather(Coast(), 400_000, torch.Generator().manual_seed(0))
    waves, rivers = weather.waves, weather.rivers
    # The variance of a mean with a memory of m hours: var * 2 m / n; var = exp(s^2) - 1.
    error = 5 * np.sqrt((np.exp(1.44) - 1) * 2 * 48 / 400_000)
    assert abs(waves.mean() - 1) < error
    error = 5 * np.sqrt((np.exp(0.81) - 1) * 2 * 240 / 400_000)
    assert (abs(rivers.mean(1) - 1) < error).all()
    assert weather.drift.std() == pytest.approx(0.12, rel=5 * np.sqrt(72 / 400_000))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"days": 0}, r"days=\.\.\.\): expected 1 or more, got 0"),
        ({"every": 0}, r"every=\.\.\.\): expected 1 or more, got 0"),
        ({"spacing": 2.0}, "expected degrees that tell sea from land, got 2"),
    ],
)
def test_bad_arguments_are_told(given, message):
    with pytest.raises(ValueError, match=message):
        plume_run(**given)
