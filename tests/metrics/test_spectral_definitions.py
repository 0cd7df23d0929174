"""The definitions of the challenges, each against an independent writing of it."""

import json
import numpy as np
import pandas as pd
import pytest
import scipy.interpolate
import scipy.signal
import warnings

from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from matheron.metrics import spectral as ms

DAY = np.timedelta64(1, "D")
START = np.datetime64("2012-10-22")


def ocean(days=42, nodes=48, seed=0, hours=24, front=0.6):
    """A red field with a front, every few hours."""
    rng = np.random.default_rng(seed)
    n = days * 24 // hours
    noise = rng.standard_normal((n, nodes, nodes))
    x = sum(s * _unit(gaussian_filter(noise, (s * 48 / hours, s, s))) for s in (1, 2, 4))
    lat, lon = 33.1 + (10 / nodes) * np.arange(nodes), -64.9 + (10 / nodes) * np.arange(nodes)
    x = 0.08 * x - front * np.tanh(lat - 38)[:, None]
    return ms.Field(x, START + np.arange(n) * np.timedelta64(hours, "h"), lat, lon)


def _unit(x):
    return x / x.std()


def smoothed(true, width=2.0, noise=0.03, seed=1):
    """What a mapper makes of it: a smooth field, with errors."""
    rng = np.random.default_rng(seed)
    error = _unit(gaussian_filter(rng.standard_normal(true.shape), (2, 3, 3)))
    made = gaussian_filter(true.values, (width, width, width)) + noise * error
    return ms.Field(made, true.time, true.lat, true.lon)


def shifted(field, constant):
    return ms.Field(field.values + constant, field.time, field.lat, field.lon)


def challenge_2020a(made, true):
    """The challenge with numpy's transforms, scipy's windows and matplotlib's contours."""
    error = made.values - true.values
    by_date = 1 - np.sqrt((error**2).mean((1, 2)) / (true.values**2).mean((1, 2)))
    mu = 1 - np.sqrt((error**2).mean() / (true.values**2).mean())

    def power(x):
        x = x - x.mean(axis=(0, 2), keepdims=True)
        taper = [scipy.signal.get_window("hann", n) for n in x.shape]
        x = x * taper[0][:, None, None] * taper[2]
        found = abs(np.fft.fft(np.fft.rfft(x, axis=2), axis=0)) ** 2
        half = slice(1, (x.shape[0] + 1) // 2)
        return found.mean(axis=1)[half, 1 : (x.shape[2] + 1) // 2]

    s = 1 - power(error) / power(true.values)
    t = len(true.time) / np.arange(1, s.shape[0] + 1)
    x = true.lon.size * (true.lon[1] - true.lon[0]) / np.arange(1, s.shape[1] + 1)
    line = Figure().subplots().contour(x, t, s, [0.5]).allsegs[0][0]
    return mu, by_date.std(), *line.min(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_2020a_is_the_challenge(seed):
    true = ocean(seed=seed)
    made = smoothed(true, seed=seed + 10)
    scored = ms.odc2020a(made, true)
    found = list(scored.values.values())
    np.testing.assert_allclose(found, challenge_2020a(made, true), rtol=1e-11)
    assert [scored.printed(k) for k in scored.values] == [f"{v:.2f}" for v in found]


def test_2020a_takes_days_and_the_nodes_of_the_truth():
    hourly = ocean(days=12, nodes=24, hours=6)
    coarse = smoothed(ocean(days=13, nodes=24), noise=0.0)
    nodes = slice(None, None, 2)
    made = ms.Field(
        coarse.values[:, nodes, nodes], coarse.time, coarse.lat[nodes], coarse.lon[nodes]
    )
    scored = ms.odc2020a(made, hourly)
    daily = hourly.values.reshape(12, 4, 24, 24).mean(axis=1)
    read = scipy.interpolate.RegularGridInterpolator(
        (np.arange(13.0), made.lat, made.lon), made.values, bounds_error=False
    )
    at = np.stack(np.meshgrid(np.arange(12.0), hourly.lat, hourly.lon, indexing="ij"), axis=-1)
    filled = ms.gauss_seidel(read(at))  # the last row and column are out of the map
    expected = 1 - np.sqrt(((filled - daily) ** 2).mean() / (daily**2).mean())
    assert scored.values["mu"] == pytest.approx(expected, rel=1e-12)
    assert any("stand for noon" in n for n in scored.notes)
    assert any("extrapolated" in n for n in scored.notes)


def test_2020a_has_41_days():
    hourly = ocean(days=43, nodes=8, hours=12)
    hourly = ms.Field(hourly.values, hourly.time + np.timedelta64(30, "m"), hourly.lat, hourly.lon)
    daily = ms.daily_mean(hourly)
    scored = ms.odc2020a(daily, hourly, START, np.datetime64("2012-12-02"))
    assert scored.notes[0].startswith("41 dates")


def test_a_perfect_map_resolves_everything():
    true = ocean(days=20, nodes=24)
    for name in ("odc2020a", "robust", "oceanbench"):
        scored = ms.challenge_score(name, true, truth=true)
        assert scored.values.get("mu", scored.values.get("nrmse")) == 1
    values = ms.robust(true, true).values
    step = 10 / 24
    shortest = 24 * step / 11, 20 / 9  # the largest frequencies that are positive
    assert (values["lambda_x"], values["lambda_t"]) == pytest.approx(shortest, rel=1e-12)
    assert values["mu_anomaly"] == 1
    assert values["rmse"] == values["sigma"] == 0


def test_bad_maps_score_badly():
    true = ocean(front=0.0)
    rng = np.random.default_rng(0)
    shuffled = ms.Field(true.values[rng.permutation(42)], true.time, true.lat, true.lon)
    white = ms.Field(true.values.std() * rng.standard_normal(true.shape), *axes(true))
    flat = ms.Field(np.zeros(true.shape), *axes(true))
    good = ms.robust(smoothed(true), true).values
    for bad in (shuffled, white):
        values = ms.robust(bad, true).values
        assert values["mu"] < 0.05 < 0.4 < good["mu"]
        assert values["lambda_x"] == values["lambda_t"] == np.inf
        assert ms.odc2020a(bad, true).values["mu"] == pytest.approx(values["mu"], abs=0.02)
    assert ms.odc2020a(flat, true).values["mu"] == 0
    assert ms.robust(flat, true).values["lambda_iso"] == np.inf


def axes(field):
    return field.time, field.lat, field.lon


def test_a_constant_raises_mu_but_not_that_of_the_anomaly():
    true = ocean()
    made = smoothed(true)
    plain = [f(made, true).values for f in (ms.odc2020a, ms.robust)]
    moved = [f(shifted(made, 1.0), shifted(true, 1.0)).values for f in (ms.odc2020a, ms.robust)]
    for before, after in zip(plain, moved, strict=True):
        assert after["mu"] > before["mu"] + 0.03
        for name in ("lambda_x", "lambda_t"):
            assert after[name] == pytest.approx(before[name], rel=1e-9)
    assert moved[1]["mu_anomaly"] == pytest.approx(plain[1]["mu_anomaly"], rel=1e-10)
    ratio = np.sqrt((true.values**2).mean() / ((true.values + 1) ** 2).mean())
    assert moved[0]["mu"] == pytest.approx(1 - (1 - plain[0]["mu"]) * ratio, rel=1e-12)


def test_robust_weighs_by_the_cosine_of_latitude():
    true = ocean(days=10, nodes=24)
    made = smoothed(true)
    scored = ms.robust(made, true).values
    w = np.cos(np.deg2rad(true.lat))[:, None]
    e2, h2 = ((made.values - true.values) ** 2 * w).sum(), (true.values**2 * w).sum()
    assert scored["mu"] == pytest.approx(1 - np.sqrt(e2 / h2), rel=1e-12)
    rest = ((true.values - true.values.mean(axis=0)) ** 2 * w).sum()
    assert scored["mu_anomaly"] == pytest.approx(1 - np.sqrt(e2 / rest), rel=1e-12)
    assert scored["rmse"] == pytest.approx(np.sqrt(e2 / (w * np.ones(true.shape)).sum()))
    e, h = (((x**2 * w).sum((1, 2))) for x in (made.values - true.values, true.values))
    assert scored["sigma"] == pytest.approx((1 - np.sqrt(e / h)).std(), rel=1e-12)


def test_robust_leaves_land_out():
    true = ocean(days=16, nodes=24)
    made = smoothed(true)
    dry = np.zeros(true.shape, dtype=bool)
    dry[:, :6, :9] = True
    land = [ms.Field(np.where(dry, np.nan, x.values), *axes(x)) for x in (made, true)]
    scored = ms.robust(*land)
    north = [ms.Field(x.values[:, 6:], x.time, x.lat[6:], x.lon) for x in (made, true)]
    for name in ("lambda_x", "lambda_t", "lambda_iso"):
        assert scored.values[name] == pytest.approx(ms.robust(*north).values[name], rel=1e-10)
    sea = ~dry[0]
    w = (np.cos(np.deg2rad(true.lat))[:, None] * np.ones(sea.shape))[sea]
    e, h = (x[:, sea] for x in (made.values - true.values, true.values))
    mu = 1 - np.sqrt((w * e**2).sum() / (w * h**2).sum())
    assert scored.values["mu"] == pytest.approx(mu, rel=1e-12)
    assert any("have gaps" in n for n in scored.notes)
    with pytest.raises(
        ValueError, match=r"odc2020a\(truth=...\): expected a truth without any gap"
    ):
        ms.odc2020a(made, land[1])


def test_robust_scores_at_the_dates_of_the_map():
    true = ocean(days=12, nodes=16, hours=6)
    every = ms.Field(true.values[::4], true.time[::4], true.lat, true.lon)
    assert ms.robust(every, true).values["mu"] == 1  # snapshots at 00:00 are right
    assert ms.odc2020a(every, true).values["mu"] < 1  # against means of days they are not


def bench_lattice(field):
    """On 0.05 degrees by scipy, and in days by pandas."""
    frame = pd.DataFrame(field.values.reshape(len(field.time), -1), pd.DatetimeIndex(field.time))
    days = frame.resample("1D").mean().to_numpy().reshape(-1, *field.shape[1:])
    lat, lon = np.arange(33, 43, 0.05), np.arange(-65, -55, 0.05)
    nodes = np.stack(np.meshgrid(np.arange(len(days)), lat, lon, indexing="ij"), axis=-1)
    read = scipy.interpolate.RegularGridInterpolator(
        (np.arange(len(days)), field.lat, field.lon), days, bounds_error=False
    )
    made = read(nodes)
    assert np.isfinite(made).all()
    return made, lat


def test_oceanbench_is_the_benchmark():
    def wide(x):  # over the whole box, its end points as well
        nodes = slice(None)
        return ms.Field(
            x.values[:, nodes], x.time, np.linspace(33, 43, 26), np.linspace(-65, -55, 26)
        )

    true = wide(ocean(days=10, nodes=26, hours=12))
    made = wide(smoothed(ocean(days=10, nodes=26, hours=12), 1.0))
    scored = ms.oceanbench(made, true).values
    (a, lat), (b, _) = bench_lattice(made), bench_lattice(true)
    assert a.shape == (10, 200, 200)
    nrmse = 1 - np.sqrt(((a - b) ** 2).mean() / (b**2).mean())
    assert scored["nrmse"] == pytest.approx(nrmse, rel=1e-11)
    degree = 6371.0 * np.pi / 180
    taper = lambda n: scipy.signal.get_window(("tukey", 0.5), n)

    def spacetime(x):
        x = (x - x.mean((0, 2), keepdims=True)) * taper(10)[:, None, None] * taper(200)
        return (abs(np.fft.fft2(x, axes=(0, 2))) ** 2).mean(1)[1:5, 1:100]

    s = 1 - spacetime(a - b) / spacetime(b)
    x = 200 * 0.05 * degree / np.arange(1, 100)  # a longitude is as long as a latitude
    line = Figure().subplots().contour(x, 10 / np.arange(1, 5), s, [0.5]).allsegs[0][0]
    np.testing.assert_allclose([scored["lambda_x"], scored["lambda_t"]], line.min(0), rtol=1e-8)

    short = 0.05 * degree * np.cos(np.deg2rad(lat)).mean()
    ratio = scored["lambda_x"] / scored["lambda_x_true"]
    assert ratio == pytest.approx(0.05 * degree / short, rel=1e-4)
    assert 1.26 < ratio < 1.28
    fy, fx = np.fft.fftfreq(200, short), np.fft.fftfreq(200, 0.05 * degree)  # swapped
    radius = np.sqrt(fy[:, None] ** 2 + fx**2).ravel()

    def rings(x):
        x = (x - x.mean((1, 2), keepdims=True)) * taper(200)[:, None] * taper(200)
        power = (abs(np.fft.fft2(x)) ** 2).mean(0).ravel()
        made = pd.DataFrame({"f": radius, "p": power}).groupby(pd.cut(radius, 100).codes).mean()
        return made[made.f <= min(fy.max(), fx.max())]

    e, h = rings(a - b), rings(b)
    score = (1 - e.p / h.p).to_numpy()
    order = np.argsort(score)
    i = np.searchsorted(score[order], 0.5)
    (s0, s1), (w0, w1) = score[order][i - 1 : i + 1], (1 / h.f.to_numpy())[order][i - 1 : i + 1]
    expected = w0 + (0.5 - s0) / (s1 - s0) * (w1 - w0)
    assert scored["lambda_iso"] == pytest.approx(expected, rel=1e-7)


def test_longitudes_may_be_on_another_branch():
    true = ocean(days=12, nodes=24)
    made = smoothed(true)
    east = ms.Field(made.values, made.time, made.lat, made.lon + 360)
    for name in ("odc2020a", "oceanbench", "robust"):
        one, two = (ms.challenge_score(name, m, truth=true).values for m in (made, east))
        assert one == pytest.approx(two, rel=1e-9, nan_ok=True)


def test_misfits_are_refused_in_one_line():
    true = ocean(days=8, nodes=16)
    late = ms.Field(true.values, true.time + 100 * DAY, true.lat, true.lon)
    away = ms.Field(true.values, true.time, true.lat, true.lon + 40)
    south = ms.Field(true.values, true.time, true.lat - 40, true.lon)
    for name in ("odc2020a", "oceanbench", "robust"):
        for bad in (late, away, south):
            with pytest.raises(ValueError, match=r"expected .*, got .*\. [A-Z].*\.$") as error:
                ms.challenge_score(name, bad, truth=true)
            assert "\n" not in str(error.value)
            assert ".000000000" not in str(error.value)
    with pytest.raises(ValueError, match=r"expected shape \(8, 16, 16\), got \(8, 16, 15\)"):
        ms.Field(true.values[:, :, :-1], *axes(true))
    with pytest.raises(ValueError, match="expected datetime64, got float64"):
        ms.Field(true.values, np.arange(8.0), true.lat, true.lon)
    with pytest.raises(ValueError, match="strictly increasing coordinates"):
        ms.Field(true.values, true.time, true.lat[::-1], true.lon)
    uneven = ms.Field(true.values, true.time + np.array([0] * 7 + [3]) * DAY, true.lat, true.lon)
    with pytest.raises(ValueError, match="a regular axis"):
        ms.odc2020a(uneven, uneven)
    zero = ms.Field(0 * true.values, *axes(true))
    with pytest.raises(ValueError, match="a truth that is not zero"):
        ms.odc2020a(zero, zero)


def test_other_units_are_told():
    true = ocean(days=8, nodes=16)
    cm = ms.Field(100 * true.values, *axes(true))
    with pytest.warns(UserWarning, match="100 times apart: are both in the same units"):
        ms.odc2020a(cm, true)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ms.odc2020a(ms.Field(10 * true.values, *axes(true)), true)


def test_gaps_of_the_map_are_extrapolated_by_the_challenge_only():
    true = ocean(days=8, nodes=16)
    holes = true.values.copy()
    holes[:, 5:8, 5:8] = np.nan
    made = ms.Field(holes, *axes(true))
    scored = ms.odc2020a(made, true)
    assert scored.values["mu"] < 1
    assert any("not masked" in n for n in scored.notes)
    assert ms.robust(made, true).values["mu"] == 1


def test_each_number_says_its_definition():
    true = ocean(days=12, nodes=24)
    made = smoothed(true)
    for name in ("odc2020a", "oceanbench", "robust"):
        scored = ms.challenge_score(name, made, truth=true)
        assert str(scored).startswith(f"definition: {name}\n")
        assert all(k in str(scored) for k in scored.values)
        plain = json.loads(json.dumps(scored.to_dict()))
        assert plain["definition"] == name
        assert plain["values"]["lambda_t"] == scored.values["lambda_t"]
        assert set(plain["units"]) <= set(scored.values)


@pytest.mark.parametrize("name", ms.DEFINITIONS)
def test_published_rows_have_the_names_of_the_definition(name):
    rows = ms.published(name)
    assert bool(rows) == (name != "robust")
    assert all(r.source.startswith("https://") and r.generation for r in rows)
    table = ms.beside(ms.Scored(name, {k: 1.0 for r in rows for k in r.values}))
    assert table.count("other data") == len(rows)


def test_published_rows_are_as_printed():
    found = {
        (r.setting, r.method): r.values
        for r in ms.published("odc2020a")
        if r.generation == "current"
    }
    assert found["4 nadirs", "DUACS"] == dict(mu=0.92, sigma=0.01, lambda_x=1.42, lambda_t=12.13)
    assert len(found) == 17
    assert len(ms.published("oceanbench")) == 18
    assert len(ms.published("odc2021a")) == 11
    miost = ms.published("regimes")[1].values
    assert miost["antarctic_band"] == 0.103416
    assert miost["coastal"] == 0.689822


def test_what_a_definition_needs_is_asked_for():
    true = ocean(days=4, nodes=8)
    track = ms.Track([0.0], true.time[:1], [35.0], [-60.0])
    with pytest.raises(ValueError, match=r"expected one of odc2020a, .* got 'mu'"):
        ms.challenge_score("mu", true, truth=true)
    with pytest.raises(ValueError, match=r"expected truth, got tracks. Give --truth FILE"):
        ms.challenge_score("odc2020a", true, tracks=track)
    with pytest.raises(ValueError, match="got neither truth nor tracks"):
        ms.challenge_score("ocb", true)
    with pytest.raises(ValueError, match="got truth and tracks"):
        ms.challenge_score("robust", true, truth=true, tracks=track)
    with pytest.raises(ValueError, match="expected one of the two, got neither"):
        ms.robust(true)
