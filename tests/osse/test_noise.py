"""Errors of altimeters: moments, spectra, geometry, and the noise of a simulation of SWOT."""

import numpy as np
import pytest
import torch
import xarray as xr

from matheron.osse.karin import karin_std
from matheron.osse.noise import (
    NOISES,
    Altimeter,
    BaselineDilation,
    ErrorModel,
    Karin,
    Phase,
    Roll,
    Timing,
    White,
    noise_model,
)
from matheron.osse.spectra import Sight, Spectrum
from matheron.osse.swath import Swath

OFFSETS = Swath().offsets


def sight(lines=400, passes=1, offsets=OFFSETS, along=2.0, across=2.0):
    return Sight(
        np.repeat(np.arange(passes), lines),
        np.tile(np.arange(lines), passes),
        offsets,
        along=along,
        across=across,
    )


def expect_std(sample, std, count):
    # The sample standard deviation of m Gaussian numbers has standard error std / sqrt(2 m).
    assert np.all(np.abs(sample - std) < 5.0 * std / np.sqrt(2.0 * count))


def test_law_of_karin_is_the_published_one(real_data):
    with xr.open_dataset(real_data / "swot" / "karin_noise_v2.nc") as table:
        across, waves = table["cross_track"].values.astype(float), table["SWH"].values
        published = table["height_sdt"].values
    kept = (across >= 10.0) & (across <= 60.0)
    for row, height in zip(published, waves, strict=True):
        law = karin_std(across[kept], float(height))
        np.testing.assert_allclose(law, row[kept], rtol=0.04)


def test_noise_of_karin_is_that_of_a_simulation(real_data):
    with xr.open_dataset(real_data / "swot" / "karin_simulated_med_with_truth.nc") as file:
        error = (file["ssh_karin"] - file["ssh_true"]).values
    offsets = np.arange(-70.0, 71.0, 2.0)
    seen = np.isfinite(error).any(axis=0)
    assert (np.abs(offsets[seen]).min(), np.abs(offsets[seen]).max()) == (10.0, 60.0)
    real = np.nanstd(error[:, seen], axis=0)
    law = karin_std(offsets[seen], wave_height=1.0) / 2.0  # pixels of 2 km by 2 km
    np.testing.assert_allclose(law, real, rtol=0.1)


def test_noise_of_karin_has_its_law(generator):
    seen = sight(lines=20_000)
    error = Karin(wave_height=3.0).draw(seen, generator)
    expect_std(error.std(axis=0), karin_std(OFFSETS, 3.0) / 2.0, 20_000)
    assert np.abs(np.corrcoef(error[:, :8].T)[0, 1:]).max() < 5 / np.sqrt(20_000)
    coarse = sight(lines=20_000, along=10.0, across=5.0)
    error = Karin(wave_height=3.0).draw(coarse, generator)
    expect_std(error.std(axis=0), karin_std(OFFSETS, 3.0) / np.sqrt(50.0), 20_000)


def test_karin_is_least_in_mid_swath_and_grows_with_waves():
    std = karin_std(np.array([10.0, 35.0, 60.0]))
    assert std[1] < std[0] < std[2]
    np.testing.assert_array_equal(karin_std(OFFSETS), karin_std(-OFFSETS))
    waves = np.stack([karin_std(OFFSETS, h) for h in (0.0, 1.0, 2.5, 4.0, 6.5, 8.0)])
    assert (np.diff(waves, axis=0) > 0).all()


def test_white_noise_has_its_moments(generator):
    error = White(0.02).draw(sight(lines=2000), generator)
    count = error.size
    expect_std(error.std(), 0.02, count)
    assert abs(error.mean()) < 5 * 0.02 / np.sqrt(count)


@pytest.mark.parametrize(
    "spectrum",
    [
        Spectrum.red(std=1.0, longest=300.0),
        Spectrum(level=1.05e-8, slope=2.2, longest=1000.0, floor=8e-4),
    ],
)
def test_series_have_their_spectrum_and_variance(spectrum, generator):
    # Averages over bands of periodograms of many series, against the average of the law in the
    # band. A periodogram of a Hann window leaks little; its estimates are near exponential, so
    # that the average of m independent ones has a relative standard error of 1 / sqrt(m).
    size, step, draws = 2048, 2.0, 150
    series = np.stack([spectrum.draw(size, step, generator) for _ in range(draws)])
    window = np.hanning(size)
    power = np.abs(np.fft.rfft(series * window)) ** 2 * 2 * step / (window**2).sum()
    frequencies = np.fft.rfftfreq(size, step)
    for low, high in ((8, 16), (16, 64), (64, 256), (256, 1000)):
        band = slice(low, high)
        ratio = (power[:, band] / spectrum(frequencies[band])).mean()
        # Neighbours share the window: 1.94 bins are one independent estimate.
        assert abs(ratio - 1.0) < 5 / np.sqrt(draws * (high - low) / 1.94) + 0.01
    variance = spectrum.variance(step)
    samples = (series**2).mean(axis=1)
    assert abs(samples.mean() - variance) < 5 * samples.std() / np.sqrt(draws) + 1e-2 * variance


def test_variance_is_the_integral_of_the_spectrum():
    spectrum = Spectrum(level=2e-4, slope=1.7, longest=500.0, floor=1e-3)
    f = np.append(0.0, np.geomspace(1e-6, 0.25, 200_001))
    values = spectrum(f)
    area = ((values[1:] + values[:-1]) / 2 * np.diff(f)).sum()
    assert spectrum.variance(2.0) == pytest.approx(area, rel=1e-6)


def test_altimeter_has_its_variance(generator):
    seen = sight(lines=150, passes=400, offsets=np.zeros(1), along=6.2)
    error = Altimeter().draw(seen, generator)[:, 0].reshape(400, 150)
    variance = Altimeter().spectrum.variance(6.2)
    assert np.sqrt(variance) == pytest.approx(0.023, abs=0.002)
    samples = (error**2).mean(axis=1)
    assert abs(samples.mean() - variance) < 5 * samples.std() / np.sqrt(400)


def test_passes_are_independent_and_gaps_are_kept(generator):
    spectrum = Spectrum.red(std=1.0, longest=4000.0)
    whole = spectrum.along(sight(lines=300, passes=600), generator).reshape(600, 300)
    product = whole[1:, 0] * whole[:-1, 0]
    assert abs(product.mean()) < 5 * product.std() / np.sqrt(599)
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    seen = sight(lines=300)
    full = spectrum.along(seen, first)
    kept = np.ones(300, dtype=bool)
    kept[100:200] = False
    holed = Sight(seen.passes[kept], seen.index[kept], seen.offsets, seen.along)
    np.testing.assert_array_equal(spectrum.along(holed, again), full[kept])


def test_systematic_errors_have_their_shape_across_the_track(generator):
    seen = sight(lines=50, passes=40)
    left, right = OFFSETS < 0, OFFSETS > 0
    roll = Roll().draw(seen, generator)
    np.testing.assert_allclose(roll / OFFSETS, (roll / OFFSETS)[:, :1] * np.ones(52), rtol=1e-9)
    phase = Phase().draw(seen, generator) / OFFSETS
    np.testing.assert_allclose(phase[:, left], phase[:, :1] * np.ones(26), rtol=1e-9)
    assert np.abs(phase[:, left][:, 0] - phase[:, right][:, 0]).min() > 0.0
    stretch = BaselineDilation().draw(seen, generator) / OFFSETS**2
    np.testing.assert_allclose(stretch, stretch[:, :1] * np.ones(52), rtol=1e-9)
    timing = Timing().draw(seen, generator)
    assert np.ptp(timing[:, left], axis=1).max() == 0.0
    assert np.ptp(timing[:, right], axis=1).max() == 0.0


def test_systematic_errors_have_their_size(generator):
    # One arcsecond of roll at 60 km, one degree of phase, 1 mm of baseline, one nanosecond.
    edge = sight(lines=1, passes=2000, offsets=np.array([60.0]))
    lever = 1 + 890_582.0 / 6_371_008.8
    wave = 2 * np.pi * 35.75e9 / 299_792_458.0
    cases = {
        Roll(Spectrum.red(1.0)): lever * np.pi / 648_000 * 6e4,
        Phase(Spectrum.red(1.0)): lever * np.pi / 180 * 6e4 / (wave * 10),
        BaselineDilation(Spectrum.red(1000.0)): lever * 1e-3 * 3.6e9 / (890_582.0 * 10),
        Timing(Spectrum.red(1000.0)): 0.5 * 299_792_458.0 * 1e-9,
    }
    for error, std in cases.items():
        # The spectrum is cut at the Nyquist frequency: 0.1 % of the variance of these is beyond.
        expect_std(error.draw(edge, generator).std() * (1 + 5e-4), std, 2000)


def test_same_generator_same_draw():
    for error in (*NOISES["full"].swath, *NOISES["full"].nadir):
        draws = [error.draw(sight(), torch.Generator().manual_seed(7)) for _ in range(2)]
        np.testing.assert_array_equal(*draws)


def test_models_by_name():
    assert noise_model("karin") is NOISES["karin"]
    own = ErrorModel(nadir=(White(0.01),))
    assert noise_model(own) is own
    with pytest.raises(ValueError, match="expected a name among none, white, karin, full"):
        noise_model("pink")


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: White(-0.1), "std"),
        (lambda: White(float("nan")), "std"),
        (lambda: Karin(9.0), "wave_height"),
        (lambda: Spectrum(-1.0), "level"),
        (lambda: Spectrum(1.0, slope=1.0), "slope"),
        (lambda: Spectrum(1.0, longest=0.0), "longest"),
        (lambda: Spectrum(1.0, floor=-1.0), "floor"),
    ],
)
def test_bad_errors_are_refused(build, word):
    with pytest.raises(ValueError, match=rf"\({word}="):
        build()
