"""Scores along tracks: segments, days, regimes and filters, each written out again."""

import numpy as np
import pandas as pd
import pytest
import scipy.interpolate
import scipy.signal
import torch

from scipy.ndimage import gaussian_filter

from matheron.metrics import spectral as ms
from matheron.metrics.spectral.segments import PERIOD, SPEED, track_step

START = np.datetime64("2017-01-01T00:00:00", "ns")
SECOND = np.timedelta64(1, "s")
DX = SPEED * PERIOD


def sea(days=20, seed=0):
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.standard_normal((days + 1, 60, 60)), (2, 2, 2))
    time = START + np.arange(days + 1) * np.timedelta64(1, "D")
    return ms.Field(0.2 * x / x.std(), time, np.linspace(31, 45, 60), np.linspace(293, 307, 60))


def passes(field, count=40, size=170, seed=1, noise=0.02, step=PERIOD):
    """Straight passes to the north, a few a day, with noise."""
    rng = np.random.default_rng(seed)
    seconds, lat, lon = [], [], []
    days = (field.time[-1] - field.time[0]) / np.timedelta64(1, "D")
    for k in range(count):
        start = (k + 0.3) * 86400 * days / count
        seconds.append(start + step * np.arange(size))
        lat.append(32.0 + np.arange(size) * DX / 111.195)
        lon.append(rng.uniform(295, 304) + 0.01 * np.arange(size))
    time = START + (np.concatenate(seconds) * 1e9).astype("timedelta64[ns]")
    lat, lon = np.concatenate(lat), np.concatenate(lon)
    clean = ms.interpolate_to_tracks(field, ms.Track(np.zeros(time.size), time, lat, lon))
    return ms.Track(clean + noise * rng.standard_normal(time.size), time, lat, lon)


def blurred(field, width=1.5):
    return ms.Field(
        gaussian_filter(field.values, (0, width, width)), field.time, field.lat, field.lon
    )


def at(field, track):
    """The map at data by scipy, and which data are 0.25 degrees within it."""
    day = np.timedelta64(1, "D")
    read = scipy.interpolate.RegularGridInterpolator(
        ((field.time - START) / day, field.lat, field.lon), field.values, bounds_error=False
    )
    made = read(np.stack([(track.time - START) / day, track.lat, track.lon], axis=1))
    inside = np.isfinite(made)
    for x, axis in ((track.lat, field.lat), (track.lon, field.lon)):
        inside &= (x >= axis[0] + 0.25) & (x <= axis[-1] - 0.25)
    return track.time[inside], track.values[inside], made[inside]


def challenge_segments(time, size):
    """The starts of the segments of the challenge, from its loop over pauses."""
    pause = [i for i in range(len(time) - 1) if time[i + 1] - time[i] > 4 * SECOND]
    found, previous = [], 0
    for end in pause:
        if end - previous >= size:
            found += list(range(previous, end - size, int(size * 0.25)))
        previous = end  # the last datum of this track, not the first of the next one
    return found


def challenge_2021a(field, track):
    time, data, made = at(field, track)
    frame = pd.DataFrame({"e": (data - made) ** 2, "h": data**2}, pd.DatetimeIndex(time))
    days = frame.resample("1D")
    mean, count = days.mean(), days["e"].count()
    score = (1 - np.sqrt(mean.e / mean.h))[count >= 10]
    size = int(1000 / DX)
    starts = challenge_segments(time, size)
    cut = lambda x: np.concatenate([x[s : s + size] for s in starts])
    welch = lambda x: scipy.signal.welch(cut(x), fs=1 / DX, nperseg=size, noverlap=0)
    f, reference = welch(data)
    ratio = 1 - welch(made - data)[1] / reference
    order = np.argsort(ratio)
    s, w = ratio[order], 1 / np.maximum(f, 1e-300)[order]
    i = np.searchsorted(s, 0.5)
    lam = w[i - 1] + (0.5 - s[i - 1]) / (s[i] - s[i - 1]) * (w[i] - w[i - 1])
    return score.mean(), score.std(ddof=0), lam, (f, ratio)


@pytest.mark.parametrize("seed", range(3))
def test_2021a_is_the_challenge(seed):
    field = sea(seed=seed)
    track = passes(field, seed=seed + 5)
    made = blurred(field)
    scored = ms.odc2021a(made, track)
    expected = challenge_2021a(made, track)
    np.testing.assert_allclose(list(scored.values.values()), expected[:3], rtol=1e-9)
    assert scored.printed("lambda_x") == f"{expected[2]:.0f}"


@pytest.mark.parametrize("seed", range(3))
def test_ocb_is_the_variant(seed):
    field = sea(seed=seed)
    track = passes(field, seed=seed + 5)
    made = blurred(field)
    _, data, there = at(made, track)
    mu = 1 - np.sqrt(((there - data) ** 2).mean() / (data**2).mean())
    f, ratio = challenge_2021a(made, track)[3]
    k = next(i for i, s in enumerate(ratio) if s <= 0.5)
    order = np.argsort(ratio[: k + 1])
    expected = 1 / np.interp(0.5, ratio[: k + 1][order], f[: k + 1][order])
    scored = ms.ocb(made, track).values
    np.testing.assert_allclose([scored["mu"], scored["lambda_x"]], [mu, expected], rtol=1e-9)


def test_both_variants_have_other_numbers():
    field = sea()
    track, made = passes(field), blurred(field)
    one, two = ms.odc2021a(made, track).values, ms.ocb(made, track).values
    assert one["mu"] != pytest.approx(two["mu"], abs=1e-4)
    assert "sigma" not in two


def test_days_with_few_data_are_left_out():
    field = sea(4)
    m = 10
    time = START + np.concatenate([np.arange(m), 86400 + np.arange(m - 1)]) * SECOND
    data = np.concatenate([np.full(m, 1.0), np.full(m - 1, 2.0)])
    track = ms.Track(data, time, np.full(19, 38.0), np.full(19, 300.0))
    made = np.concatenate([np.full(m, 0.5), np.full(m - 1, 0.0)])
    from matheron.metrics.spectral.odc2021a import daily_scores

    np.testing.assert_allclose(daily_scores("t", track, made), [0.5])
    with pytest.raises(ValueError, match="expected days of 10 data, got at most 9"):
        daily_scores("t", track.where(np.arange(19) > 9), made[10:])
    assert field.shape[0] == 5


def two_tracks(size=170, gap=100):
    """Two tracks of another level: what joins them is a jump of a metre."""
    seconds = PERIOD * np.arange(2 * size) + gap * (np.arange(2 * size) >= size)
    level = np.where(np.arange(2 * size) < size, 0.0, 1.0)
    time = START + (seconds * 1e9).astype("timedelta64[ns]")
    lat = 34.0 + np.tile(np.arange(size), 2) * DX / 111.195
    return ms.Track(level, time, lat, np.full(2 * size, 300.0))


def test_the_errors_of_the_challenge_are_kept_in_legacy_only():
    track = two_tracks()
    third = ms.Track(
        *(np.concatenate([x, x[:170]]) for x in (track.values,)),
        np.concatenate([track.time, track.time[170:] + 300 * SECOND]),
        *(np.concatenate([x, x[:170]]) for x in (track.lat, track.lon)),
    )
    legacy = ms.legacy_segments(third, third.values)
    assert legacy.dx == pytest.approx(6.386818, abs=1e-6)
    assert legacy.reference.shape == (2, 156)  # one per track: the last track is lost
    assert np.ptp(legacy.reference, axis=1).tolist() == [0.0, 1.0]  # the second holds a jump
    own = ms.regular_segments(third, third.values)
    assert own.reference.shape == (3, 156)
    assert np.ptp(own.reference, axis=1).max() == 0.0
    assert len(set(own.passes.tolist())) == 3


def test_short_gaps_are_filled_in_robust_segments():
    size = 200
    time = START + (PERIOD * np.arange(size) * 1e9).astype("timedelta64[ns]")
    lat = 34.0 + np.arange(size) * DX / 111.195
    line = 0.01 * np.arange(size)
    kept = np.ones(size, dtype=bool)
    kept[[50, 51, 120]] = False  # pauses of 2.8 s and of 1.9 s
    whole = ms.Track(line, time, lat, np.full(size, 300.0))
    holed = whole.where(kept)
    a, b = (ms.regular_segments(t, t.values) for t in (whole, holed))
    np.testing.assert_allclose(a.reference, b.reference, atol=1e-9)
    assert a.reference.shape == (2, 156)
    # in the challenge what follows the gap is joined to what precedes it
    ends = ms.Track([0.0], time[-1:] + 60 * SECOND, [34.0], [300.0])
    ends = ms.Track(
        *(
            np.concatenate([getattr(holed, k), getattr(ends, k)])
            for k in ("values", "time", "lat", "lon")
        )
    )
    legacy = ms.legacy_segments(ends, ends.values)
    assert np.ptp(np.diff(legacy.reference[0])) > 0.009


def test_no_segment_is_told():
    track = two_tracks(50)
    for cut in (ms.legacy_segments, ms.regular_segments):
        with pytest.raises(ValueError, match=r"expected tracks of 1000 km .* none so long"):
            cut(track, track.values)


def test_steps_are_those_of_the_track():
    seconds, km = track_step(two_tracks())
    assert seconds == pytest.approx(PERIOD, rel=1e-8)
    assert km == pytest.approx(DX * 6371 / (111.195 * 180 / np.pi), rel=1e-6)


def test_robust_scores_along_tracks():
    field = sea()
    track, made = passes(field), blurred(field)
    generator = lambda: torch.Generator().manual_seed(0)
    scored = ms.robust(made, tracks=track, generator=generator(), size=200)
    again = ms.robust(made, tracks=track, generator=generator(), size=200)
    assert scored == again
    v = scored.values
    assert v["lambda_x_low"] <= v["lambda_x"] <= v["lambda_x_high"]
    assert 0 < v["lambda_x_low"] < v["lambda_x_high"] < np.inf
    e = at_whole(made, track)
    assert v["rmse"] == pytest.approx(np.sqrt((e**2).mean()), rel=1e-9)
    better = ms.robust(blurred(field, 0.5), tracks=track, generator=generator(), size=200).values
    assert better["lambda_x_high"] < v["lambda_x_low"]
    assert better["mu"] > v["mu"]
    moved = [ms.Field(made.values + 1, made.time, made.lat, made.lon)]
    moved.append(ms.Track(track.values + 1, track.time, track.lat, track.lon))
    other = ms.robust(moved[0], tracks=moved[1], generator=generator(), size=200).values
    assert other["mu"] > v["mu"] + 0.1
    assert other["mu_anomaly"] == pytest.approx(v["mu_anomaly"], rel=1e-9)
    assert other["lambda_x"] == pytest.approx(v["lambda_x"], rel=1e-6)


def at_whole(field, track):
    day = np.timedelta64(1, "D")
    read = scipy.interpolate.RegularGridInterpolator(
        ((field.time - START) / day, field.lat, field.lon), field.values, bounds_error=False
    )
    made = read(np.stack([(track.time - START) / day, track.lat, track.lon], axis=1))
    return (made - track.values)[np.isfinite(made)]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # white data, a map that is wrong over one wavelength: the score crosses 1/2 at a known scale
    rng = np.random.default_rng(0)
    n, per, truth = 64, 30, []
    f = np.fft.rfftfreq(n, 6.0)
    gain = np.clip(f / 0.04, 0, None)  # the error spectrum is gain times that of the data
    exact = 1 / (0.5 * 0.04)
    from matheron.metrics.spectral.robust import _interval
    from matheron.metrics.spectral.segments import Segments

    def coloured(power):
        spectrum = np.fft.rfft(rng.standard_normal((per, 4 * n)), axis=1)
        g = np.interp(np.fft.rfftfreq(4 * n, 6.0), f, np.sqrt(power))
        return np.fft.irfft(spectrum * g, n=4 * n, axis=1)[:, :n]

    trials = 60
    for k in range(trials):
        data, error = coloured(np.ones(f.size)), coloured(gain)
        cut = Segments(data, data + error, np.arange(per), 6.0)
        _, low, high = _interval(cut, torch.Generator().manual_seed(k), 200)
        truth.append(low <= exact <= high)
    # five standard errors of a share, and the leak of a taper
    assert abs(np.mean(truth) - 0.9) < 5 * np.sqrt(0.09 / trials)


def test_perfect_and_bad_maps_along_tracks():
    field = sea()
    track = passes(field, noise=0.0)
    best = ms.robust(field, tracks=track).values
    assert best["mu"] == pytest.approx(1, abs=1e-9)
    dx = track_step(track)[1]
    n = int(1000 / dx)
    assert best["lambda_x"] == pytest.approx(n * dx / (n // 2), rel=1e-9)
    rng = np.random.default_rng(0)
    bad = ms.Field(field.values[rng.permutation(21)], field.time, field.lat, field.lon)
    worst = ms.robust(bad, tracks=track, size=20).values
    assert worst["mu"] < 0.05
    assert worst["lambda_x"] == np.inf
    assert ms.odc2021a(bad, track).values["mu"] < 0.05
    assert np.isnan(ms.ocb(bad, track).values["lambda_x"])


def test_branches_and_misfits_along_tracks():
    field = sea()
    track, made = passes(field), blurred(field)
    west = ms.Field(made.values, made.time, made.lat, made.lon - 360)
    late = ms.Track(track.values, track.time + 400 * np.timedelta64(1, "D"), track.lat, track.lon)
    away = ms.Track(track.values, track.time, track.lat, track.lon + 40)
    for name in ("odc2021a", "ocb", "robust", "regimes"):
        g = [torch.Generator().manual_seed(0) for _ in range(2)]
        one, two = (
            ms.challenge_score(name, m, tracks=track, generator=k).values
            for m, k in zip((made, west), g, strict=True)
        )
        assert one == pytest.approx(two, rel=1e-7, nan_ok=True)
        for bad in (late, away):
            with pytest.raises(
                ValueError, match=r"expected tracks in .* got .*Check the ext"
            ) as e:
                ms.challenge_score(name, made, tracks=bad)
            assert "\n" not in str(e.value)
        cm = ms.Track(100 * track.values, track.time, track.lat, track.lon)
        with pytest.warns(UserWarning, match="same units"):
            ms.challenge_score(name, made, tracks=cm)


def test_tracks_are_sorted_and_without_gaps():
    time = START + np.array([3, 1, 2]) * SECOND
    track = ms.Track([3.0, 1.0, np.nan], time, [0.0, 0, 0], [0.0, 0, 0])
    assert track.values.tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match="none that is finite"):
        ms.Track([np.nan], time[:1], [0.0], [0.0])
    with pytest.raises(ValueError, match="one value, date, latitude and longitude per datum"):
        ms.Track([1.0, 2.0], time, [0.0, 0, 0], [0.0, 0, 0])


def lanczos_loop(seconds, z, width):
    """The filter of the challenges, datum by datum."""
    made = np.empty(len(z))
    for i in range(len(z)):
        total, weight = z[i], 1.0
        for j in range(len(z)):
            x = abs(seconds[j] - seconds[i]) / width
            if j == i or x >= 1 or (j > i and j == len(z) - 1):
                continue
            w = np.sin(np.pi * x) ** 2 / (np.pi * x) ** 2
            total, weight = total + w * z[j], weight + w
        made[i] = total / weight
    return made


def test_the_filter_is_that_of_the_challenges():
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.choice([0.5, 1.0, 30.0], 80, p=[0.4, 0.55, 0.05]))
    time = START + (seconds * 1e9).astype("timedelta64[ns]")
    z = rng.standard_normal(80)
    made = ms.lanczos(time, z, 7.0)
    np.testing.assert_allclose(made, lanczos_loop(seconds, z, 7.0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ms.lanczos(time, np.ones(80), 7.0), 1.0)


def test_regimes_are_explained_variances():
    field = sea()
    track, made = passes(field), blurred(field)
    rng = np.random.default_rng(3)
    distance = rng.uniform(0, 400, len(track))
    variance = rng.uniform(0, 0.04, len(track))
    signal = track.values + 0.05 * rng.standard_normal(len(track))
    scored = ms.regimes(made, track, (65.0, 200.0), distance, variance, signal)
    there = ms.interpolate_to_tracks(made, track, "inverse-distance")
    seen = np.isfinite(there)
    assert seen.all()
    masks = {
        "coastal": distance < 200,
        "offshore_high": (distance > 200) & (variance > 0.02),
        "offshore_low": (distance > 200) & (variance < 0.02),
    }
    seconds = (track.time - START) / SECOND
    step = int(65 // track_step(track)[1]), int(200 // track_step(track)[1])
    assert step == (10, 31)
    bands = [
        ms.lanczos(track.time, x, float(step[0])) - ms.lanczos(track.time, x, float(step[1]))
        for x in (track.values, there)
    ]
    for name, m in masks.items():
        expected = 1 - np.var((there - track.values)[m], ddof=1) / np.var(signal[m], ddof=1)
        assert scored.values[name] == pytest.approx(expected, rel=1e-12)
        band = 1 - np.var((bands[1] - bands[0])[m], ddof=1) / np.var(bands[0][m], ddof=1)
        assert scored.values[f"{name}_band"] == pytest.approx(band, rel=1e-12)
    assert all(np.isnan(scored.values[k]) for k in ("equatorial", "arctic", "antarctic"))
    assert scored.printed("arctic") == "undefined"
    assert seconds.size == len(track)


def test_regimes_by_themselves():
    field = sea()
    field.values[:, :20, :20] = np.nan  # land in the south-west
    track = passes(sea())
    scored = ms.regimes(blurred_land(field), track)
    assert any("the coast is told by" in n for n in scored.notes)
    whole = ms.regimes(sea(), track)
    assert any("no land" in n for n in whole.notes)
    assert np.isnan(whole.values["coastal"])
    assert whole.values["all"] > 0.95  # all but the noise of the data
    with pytest.raises(ValueError, match=r"regimes\(distance=...\): expected 6800 values, got 3"):
        ms.regimes(sea(), track, distance=np.zeros(3))
    with pytest.raises(ValueError, match=r"regimes\(band=...\): expected increasing wavelengths"):
        ms.regimes(sea(), track, band=(500.0, 65.0))


def blurred_land(field):
    return ms.Field(0.9 * field.values, field.time, field.lat, field.lon)


def test_data_on_an_edge_of_a_regime():
    lat = np.array([-70.0, -10.0, 10.0, 70.0, 38.0])
    masks = ms.regime_masks(lat, np.full(5, 200.0), np.full(5, 0.02))
    found = [[k for k, m in masks.items() if m[i]] for i in range(5)]
    assert found == [["antarctic"], ["equatorial"], ["equatorial"], ["arctic"], []]
