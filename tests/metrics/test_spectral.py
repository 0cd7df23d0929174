"""Spectra and crossings, against sums written out, scipy, pandas, and matplotlib's contours."""

import numpy as np
import pandas as pd
import pytest
import scipy.interpolate
import scipy.signal

from matplotlib.figure import Figure

from matheron.metrics import spectral as ms
from matheron.metrics.spectral.intercept import LEVEL
from matheron.metrics.spectral.psd import periodograms, score
from matheron.metrics.spectral.regrid import spacing

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def hann(n):
    """The periodic Hann window, by its formula."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def tukey(n, share=0.5):
    """The periodic Tukey window, by its formula: that of n + 1 points, without the last."""
    x = np.arange(n) / n
    edge = share / 2
    rise = 0.5 * (1 + np.cos(np.pi * (x / edge - 1)))
    fall = 0.5 * (1 + np.cos(np.pi * ((x - 1) / edge + 1)))
    return np.where(x < edge, rise, np.where(x > 1 - edge, fall, 1.0))


def dft(x, k, axis):
    """One line of the discrete Fourier transform, as the sum that it is."""
    n = x.shape[axis]
    phase = np.exp(-2j * np.pi * k * np.arange(n) / n)
    return np.tensordot(x, phase, axes=(axis, 0))


def plane(x, taper):
    """The spectrum of (time, lat, lon), sum by sum: positive frequencies, mean over lat."""
    nt, ny, nx = x.shape
    kt, kx = range(1, (nt + 1) // 2), range(1, (nx + 1) // 2)
    power = np.zeros((len(kt), len(kx)))
    for j in range(ny):
        field = x[:, j] - x[:, j].mean()
        field = field * np.outer(taper(nt), taper(nx))
        for a, p in enumerate(kt):
            for b, q in enumerate(kx):
                power[a, b] += abs(dft(dft(field, p, 0), q, 0)) ** 2 / ny
    return np.array(kt) / nt, np.array(kx) / nx, power


@pytest.mark.parametrize(("name", "taper"), [("hann", hann), ("tukey", tukey)])
@pytest.mark.parametrize("shape", [(9, 3, 8), (8, 2, 11)])
def test_spectra_in_time_and_longitude_are_sums(name, taper, shape):
    x = np.random.default_rng(0).standard_normal(shape) + 3.0
    made = ms.time_lon(x, 0.5, 0.25, name)
    ft, fx, power = plane(x, taper)
    np.testing.assert_allclose(made.time, ft / 0.5, **EXACT)
    np.testing.assert_allclose(made.lon, fx / 0.25, **EXACT)
    np.testing.assert_allclose(made.power, power, rtol=1e-11, atol=1e-11)


def test_a_plane_leaves_nothing_after_a_linear_detrend():
    t, y, x = np.meshgrid(np.arange(8.0), np.arange(3.0), np.arange(9.0), indexing="ij")
    trend = 1 + 0.3 * t * (y + 1) - 2 * x
    assert ms.time_lon(trend, 1.0, 1.0, detrend="linear").power.max() < 1e-20
    rng = np.random.default_rng(1).standard_normal(t.shape)
    design = np.stack([np.ones(72), t[:, 0].ravel(), x[:, 0].ravel()], axis=1)
    left = np.empty_like(rng)
    for j in range(3):
        flat = rng[:, j].ravel()
        left[:, j] = (flat - design @ np.linalg.lstsq(design, flat)[0]).reshape(8, 9)
    made = ms.time_lon(rng, 1.0, 1.0, detrend="linear").power
    np.testing.assert_allclose(made, plane(left, hann)[2], rtol=1e-9)


@pytest.mark.parametrize("shape", [(3, 16, 20), (2, 21, 18)])
def test_isotropic_spectra_are_means_over_rings(shape):
    x = np.random.default_rng(2).standard_normal(shape)
    dy, dx = 5.5, 4.4
    made = ms.isotropic(x, dy, dx)
    _, ny, nx = shape
    power = np.zeros((ny, nx))
    for day in x:
        field = (day - day.mean()) * np.outer(tukey(ny), tukey(nx))
        for p in range(ny):
            for q in range(nx):
                power[p, q] += abs(dft(dft(field, p, 0), q, 0)) ** 2 / len(x)
    fold = lambda n, d: np.array([k if k < (n + 1) // 2 else k - n for k in range(n)]) / (n * d)
    fy, fx = fold(ny, dy), fold(nx, dx)
    radius = np.sqrt(fy[:, None] ** 2 + fx**2).ravel()
    ring = pd.cut(radius, min(ny, nx) // 2).codes
    frame = pd.DataFrame({"f": radius, "p": power.ravel()}).groupby(ring).mean()
    frame = frame[frame.f <= min(fy.max(), fx.max())]
    np.testing.assert_allclose(made.frequency, frame.f, **EXACT)
    np.testing.assert_allclose(made.power, frame.p * frame.f, rtol=1e-11)


def test_spectra_along_tracks_are_welch():
    segments = np.random.default_rng(3).standard_normal((7, 39)) + 1.0
    made = ms.along_track(segments, 6.387)
    f, p = scipy.signal.welch(segments.ravel(), fs=1 / 6.387, nperseg=39, noverlap=0)
    np.testing.assert_array_equal(made.frequency, f)
    np.testing.assert_array_equal(made.power, p)
    # and Welch is a mean of periodograms: one-sided, over the power of the window
    x = (segments - segments.mean(axis=1, keepdims=True)) * hann(39)
    sums = np.stack([abs(dft(x, k, 1)) ** 2 for k in range(20)], axis=1)
    sums *= np.where(np.arange(20) > 0, 2, 1) * 6.387 / (hann(39) ** 2).sum()
    np.testing.assert_allclose(p, sums.mean(axis=0), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(periodograms(segments, 6.387), sums, rtol=1e-11, atol=1e-13)


def test_a_score_is_one_less_a_ratio():
    made = score(np.array([0.0, 1.0, 3.0, 0.0]), np.array([2.0, 2.0, 2.0, 0.0]))
    np.testing.assert_array_equal(made, [1.0, 0.5, -0.5, 1.0])


def first_path(found):
    """The first line that matplotlib draws: what get_paths()[0] was before its version 3.8."""
    axes = Figure().subplots()
    lines = axes.contour(1 / found.lon, 1 / found.time, found.power, [LEVEL]).allsegs[0]
    return lines[0].min(axis=0), len(lines)


def noisy_plane(seed, nt=20, nx=30):
    """A score that falls from large to small scales, with islands."""
    rng = np.random.default_rng(seed)
    ft, fx = np.arange(1, nt + 1) / 42, np.arange(1, nx + 1) / 10
    clean = 1.2 - 1.4 * np.hypot(ft / ft.max(), fx[:, None] / fx.max()).T
    return ms.Plane(ft, fx, clean + 0.25 * rng.standard_normal((nt, nx)))


def test_the_first_contour_is_that_of_matplotlib():
    several = 0
    for seed in range(40):
        found = noisy_plane(seed)
        expected, count = first_path(found)
        several += count > 1
        np.testing.assert_array_equal(ms.first_contour(found), expected)
    assert several > 20  # many lines: the first one is a choice


def test_a_contour_marched_by_hand():
    # one cell row: the line crosses the three edges between the columns of 0.9 and of 0.1
    f = np.array([0.1, 0.2, 0.4])
    found = ms.Plane(f, f, np.array([[0.9, 0.9, 0.1], [0.9, 0.7, 0.1], [0.9, 0.8, 0.2]]))
    wave = 1 / f
    cross = [wave[1] + (s - 0.5) / (s - e) * (wave[2] - wave[1]) for s, e in found.power[:, 1:]]
    np.testing.assert_allclose(ms.first_contour(found), [min(cross), wave[2]], **EXACT)


def march(found, level=0.5):
    """Flood from the four nodes of largest scale, and walk the edges of what was reached."""
    s, logs = found.power, (np.log(1 / found.time), np.log(1 / found.lon))
    todo = [(i, j) for i in (0, 1) for j in (0, 1) if s[i, j] >= level]
    seen, least = set(todo), [np.inf, np.inf]
    while todo:
        node = todo.pop()
        for axis in (0, 1):
            least[axis] = min(least[axis], logs[axis][node[axis]])
            for step in (-1, 1):
                other = tuple(n + step * (k == axis) for k, n in enumerate(node))
                if not all(0 <= n < m for n, m in zip(other, s.shape, strict=True)):
                    continue
                if s[other] >= level and other not in seen:
                    seen.add(other)
                    todo.append(other)
                if s[other] < level:
                    w = (s[node] - level) / (s[node] - s[other])
                    a, b = logs[axis][node[axis]], logs[axis][other[axis]]
                    least[axis] = min(least[axis], a + w * (b - a))
    return np.exp(least[1]), np.exp(least[0])


def test_the_robust_scales_are_those_of_a_flood():
    for seed in range(20):
        found = noisy_plane(seed)
        np.testing.assert_allclose(ms.largest_component(found), march(found), rtol=1e-12)


def test_an_island_misleads_the_first_contour_only():
    f = np.arange(1, 13) / 12
    clean = np.where(np.hypot(f[:, None], f) < 0.7, 0.9, 0.1)
    truth = ms.largest_component(ms.Plane(f, f, clean))
    island = clean.copy()
    island[8:11, 8:11] = 0.9  # noise that happens to agree
    misled = ms.first_contour(ms.Plane(f, f, island))
    # both islands are there: the first line is one of them, the component is that of large scales
    assert ms.largest_component(ms.Plane(f, f, island)) == truth
    hole = clean.copy()
    hole[0, 2] = 0.1  # and a hole at the longest period, within what is resolved
    assert ms.largest_component(ms.Plane(f, f, hole)) == truth
    both = [misled, ms.first_contour(ms.Plane(f, f, hole))]
    assert any(abs(x / t - 1) > 0.2 for b in both for x, t in zip(b, truth, strict=True))


def test_all_and_nothing_resolved():
    f = np.array([0.1, 0.2, 0.4])
    whole, none = (ms.Plane(f, f, np.full((3, 3), v)) for v in (1.0, 0.0))
    assert ms.largest_component(whole) == (2.5, 2.5)
    assert ms.largest_component(none) == (np.inf, np.inf)
    assert np.isnan([*ms.first_contour(whole), *ms.first_contour(none)]).all()
    lines = [ms.Radial(f, np.full(3, v)) for v in (1.0, 0.0)]
    assert [ms.first_crossing(x) for x in lines] == [2.5, np.inf]
    assert np.isnan([r(x) for x in lines for r in (ms.sorted_by_score, ms.below_level)]).all()


def test_readings_agree_where_the_score_is_monotone():
    f = np.array([0.0, 0.1, 0.2, 0.4])
    line = ms.Radial(f, np.array([0.99, 0.9, 0.3, 0.1]))
    assert ms.sorted_by_score(line) == pytest.approx(10 - (0.4 / 0.6) * 5, rel=1e-14)
    assert ms.below_level(line) == pytest.approx(1 / (0.1 + (0.4 / 0.6) * 0.1), rel=1e-14)
    assert ms.first_crossing(line) == pytest.approx(10 * 0.5 ** (0.4 / 0.6), rel=1e-14)


def test_a_score_that_is_not_monotone_misleads_those_that_sort():
    f = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    line = ms.Radial(f, np.array([0.95, 0.6, 0.9, 0.2, 0.55]))
    # sorted: .2 (k=.4), .55 (k=.5): a wavelength between 2.5 and 2, shorter than any crossing
    assert ms.sorted_by_score(line) == pytest.approx(2.5 + (0.3 / 0.35) * (2 - 2.5), rel=1e-14)
    # among .95, .6, .9, .2 sorted: .2 (k=.4) and .6 (k=.2), which are no neighbours
    assert ms.below_level(line) == pytest.approx(1 / (0.4 + 0.75 * (0.2 - 0.4)), rel=1e-14)
    # from large scales on: under one half between k=.3 and k=.4
    assert ms.first_crossing(line) == pytest.approx((10 / 3) * 0.75 ** (0.4 / 0.7), rel=1e-12)


def test_a_score_of_exactly_one_half_is_resolved():
    f = np.array([0.1, 0.2, 0.4])
    assert ms.first_crossing(ms.Radial(f, np.array([0.9, 0.5, 0.5]))) == 2.5
    assert ms.first_crossing(ms.Radial(f, np.array([0.9, 0.5, 0.4]))) == pytest.approx(5.0)


def test_frequency_zero_is_of_infinite_wavelength():
    f = np.array([0.0, 0.1, 0.2])
    assert not np.isfinite(ms.sorted_by_score(ms.Radial(f, np.array([0.3, 0.8, 0.9]))))
    assert ms.first_crossing(ms.Radial(f, np.array([0.3, 0.8, 0.9]))) == 5.0


def test_extrapolation_is_linear_in_the_score():
    line = ms.Radial(np.array([0.1, 0.2, 0.4]), np.array([0.95, 0.8, 0.7]))
    made = ms.sorted_by_score(line, extrapolate=True)
    assert made == pytest.approx(2.5 - (0.2 / 0.1) * (5 - 2.5), rel=1e-12)


def test_gaps_hold_the_mean_of_their_neighbours():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 7, 9))
    x[:, 2:5, 3:8] = np.nan
    x[0, 0, :] = np.nan
    x[1, :, -1] = np.nan
    made = ms.gauss_seidel(x)
    np.testing.assert_array_equal(made[np.isfinite(x)], x[np.isfinite(x)])
    swept = np.where(np.isfinite(x), x, 0.0)
    for _ in range(4000):  # the iteration itself, mirrored at the edges
        for k, i, j in zip(*np.isnan(x).nonzero(), strict=True):
            a, b = abs(i - 1), 6 - abs(6 - (i + 1))
            c, d = abs(j - 1), 8 - abs(8 - (j + 1))
            swept[k, i, j] = (
                swept[k, a, j] + swept[k, b, j] + swept[k, i, c] + swept[k, i, d]
            ) / 4
        if abs(swept - made).max() < 1e-13:
            break
    np.testing.assert_allclose(made, swept, atol=1e-12)
    with pytest.raises(ValueError, match="a field of NaN only"):
        ms.gauss_seidel(np.full((3, 3), np.nan))


def field(shape=(5, 6, 7), seed=5, lon0=-65.0):
    rng = np.random.default_rng(seed)
    days = np.datetime64("2012-10-22") + np.arange(shape[0])
    return ms.Field(
        rng.standard_normal(shape), days, 33 + np.arange(shape[1]), lon0 + np.arange(shape[2])
    )


def test_interpolation_is_that_of_scipy():
    whole = field()
    rng = np.random.default_rng(6)
    m = 50
    time = whole.time[0] + (rng.uniform(0, 4, m) * 86400e9).astype("timedelta64[ns]")
    lat, lon = rng.uniform(33, 38, m), rng.uniform(-65, -59, m)
    days = (whole.time - whole.time[0]) / np.timedelta64(1, "D")
    read = scipy.interpolate.RegularGridInterpolator((days, whole.lat, whole.lon), whole.values)
    track = ms.Track(np.zeros(m), time, lat, lon + 360)
    at = (track.time - whole.time[0]) / np.timedelta64(1, "D")
    expected = read(np.stack([at, track.lat, track.lon - 360], axis=1))
    np.testing.assert_allclose(ms.interpolate_to_tracks(whole, track), expected, atol=1e-10)
    made = ms.regrid(whole, track.time[:2], [34.5, 36.25], [300.5, 296.0][::-1])
    nodes = np.stack(np.meshgrid(at[:2], [34.5, 36.25], [-64.0, -59.5], indexing="ij"), axis=-1)
    np.testing.assert_allclose(made.values, read(nodes), atol=1e-10)


def test_inverse_distance_weighs_by_the_square():
    whole = field((2, 2, 2))
    track = ms.Track([0.0, 0.0], np.repeat(whole.time[:1], 2), [33.2, 33.0], [-64.4, -65.0])
    made = ms.interpolate_to_tracks(whole, track, "inverse-distance")
    away = np.hypot(np.array([[0.2], [0.8]]), np.array([0.6, 0.4]))
    weights = away**-2.0 / (away**-2.0).sum()
    np.testing.assert_allclose(made, [(weights * whole.values[0]).sum(), whole.values[0, 0, 0]])


def test_values_next_to_a_gap_are_not_made_up():
    whole = field()
    whole.values[2, 3, 3] = np.nan
    track = ms.Track(np.zeros(3), np.repeat(whole.time[2:3], 3), [36.0, 36.5, 35.0], [-62.0] * 3)
    assert np.isnan(ms.interpolate_to_tracks(whole, track)).tolist() == [True, True, False]


def test_days_are_means_stamped_at_midnight():
    rng = np.random.default_rng(7)
    time = np.datetime64("2012-10-01T00:30") + np.arange(60) * np.timedelta64(1, "h")
    whole = ms.Field(rng.standard_normal((60, 2, 3)), time, [0.0, 1.0], [0.0, 1.0, 2.0])
    made = ms.daily_mean(whole)
    frame = pd.DataFrame(whole.values.reshape(60, 6), index=pd.DatetimeIndex(time))
    expected = frame.resample("1D").mean()
    np.testing.assert_allclose(made.values.reshape(3, 6), expected, atol=1e-14)
    assert (made.time == expected.index.to_numpy()).all()


def test_spacing_is_along_the_sphere():
    lat, lon = 33 + 0.05 * np.arange(200), -65 + 0.05 * np.arange(200)
    dy, dx = spacing(lat, lon)
    assert dy == pytest.approx(0.05 * 111.19492664455873, rel=1e-12)
    assert dx == pytest.approx(dy * np.cos(np.deg2rad(lat)).mean(), rel=1e-6)
