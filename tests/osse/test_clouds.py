"""Clouds: cover, correlation in space and time, and the look of real ones."""

import itertools
import numpy as np
import pytest
import torch
import xarray as xr

from dataclasses import replace

from matheron.osse.clouds import AVHRR, Clouds, indicator_correlation, stationary_field

LAT, LON = np.arange(30.0, 34.0, 0.1), np.arange(-6.0, -1.0, 0.1)
STEP = np.deg2rad(0.1) * 6371.0088  # kilometres between rows


def five_errors(daily):
    return 5.0 * daily.std(axis=0, ddof=1) / np.sqrt(len(daily))


@pytest.mark.parametrize(("lengthscale", "exponent"), [(8.0, 1.0), (30.0, 1.0), (15.0, 0.6)])
def test_fields_have_their_covariance(generator, lengthscale, exponent):
    draws = 300
    fields = np.stack(
        [
            stationary_field((24, 30), (2.0, 3.0), lengthscale, exponent, generator)
            for _ in range(draws)
        ]
    )
    for rows, columns in ((0, 0), (1, 0), (0, 1), (5, 3), (20, 0), (0, 25)):
        a = fields[:, : 24 - rows, : 30 - columns]
        b = fields[:, rows:, columns:]
        daily = (a * b).mean(axis=(1, 2))
        lag = np.hypot(2.0 * rows, 3.0 * columns)
        expected = np.exp(-((lag / lengthscale) ** exponent))
        assert abs(daily.mean() - expected) < five_errors(daily) + 1e-3


@pytest.mark.parametrize("cover", [0.1, 0.5, 0.9])
def test_cover_is_as_asked(generator, cover):
    # Days without memory are independent: the standard error is that of their mean.
    hidden = Clouds(cover=cover, lengthscale=30.0, memory=0.0).draw(
        LAT, LON, np.arange(300.0), generator
    )
    daily = hidden.values.mean(axis=(1, 2))
    assert abs(daily.mean() - cover) < five_errors(daily)


def test_spread_of_cover_is_as_asked(generator):
    # Fine clouds: the cover of a day is its expectation, whose median and quartiles are known.
    clouds = Clouds(cover=0.4, lengthscale=2.0, memory=0.0, cover_spread=1.0)
    daily = clouds.draw(LAT, LON, np.arange(600.0), generator).values.mean(axis=(1, 2))
    for level, quantile in ((0.25, 0.1771), (0.5, 0.4), (0.75, 0.6634)):
        # Phi(Phi^-1(0.4) +- 0.6745); the part of days below is binomial.
        below = (daily < quantile).mean()
        assert abs(below - level) < 5 * np.sqrt(level * (1 - level) / 600) + 0.01


@pytest.mark.parametrize(("cover", "exponent"), [(0.5, 1.0), (0.25, 1.0), (0.7, 0.7)])
def test_masks_have_the_variogram_of_their_lengthscale(generator, cover, exponent):
    lengthscale, days = 40.0, 300
    clouds = Clouds(cover, lengthscale, memory=0.0, exponent=exponent)
    hidden = clouds.draw(LAT, LON, np.arange(float(days)), generator).values
    for lag in (1, 3, 8):
        differ = (hidden[:, lag:] != hidden[:, :-lag]).mean(axis=(1, 2)) / 2
        latent = np.exp(-((np.array([lag * STEP]) / lengthscale) ** exponent))
        expected = cover * (1 - cover) * (1 - indicator_correlation(latent, cover)[0])
        assert abs(differ.mean() - expected) < five_errors(differ) + 1e-3


@pytest.mark.parametrize("memory", [0.0, 0.5, 3.0])
def test_masks_persist_as_asked(generator, memory):
    days, cover = 600, 0.5
    clouds = Clouds(cover, lengthscale=15.0, memory=memory)
    hidden = clouds.draw(LAT, LON, np.arange(float(days)), generator).values
    for lag in (1, 2):
        both = (hidden[lag:] & hidden[:-lag]).mean(axis=(1, 2))
        latent = np.exp(-lag / memory) if memory else 0.0
        known = indicator_correlation(np.array([latent]), cover)[0]
        expected = cover**2 + cover * (1 - cover) * known
        # Successive days share clouds: blocks of thirty days are nearly independent.
        blocks = both[: len(both) // 30 * 30].reshape(-1, 30).mean(axis=1)
        assert abs(blocks.mean() - expected) < five_errors(blocks)


def test_uneven_times_are_remembered_by_their_gap(generator):
    times = np.sort(np.concatenate([np.arange(0.0, 400.0, 4.0), np.arange(0.5, 400.0, 4.0)]))
    hidden = Clouds(0.5, 15.0, memory=1.0).draw(LAT, LON, times, generator).values
    both = (hidden[1:] & hidden[:-1]).mean(axis=(1, 2))
    for pairs, gap in ((both[::2], 0.5), (both[1::2], 3.5)):
        known = indicator_correlation(np.array([np.exp(-gap)]), 0.5)[0]
        assert abs(pairs.mean() - 0.25 * (1 + known)) < five_errors(pairs)


def test_correlation_of_masks_against_many_pairs(generator):
    pairs = torch.randn(2, 400_000, generator=generator, dtype=torch.float64).numpy()
    for rho in (-0.5, 0.3, 0.9):
        other = rho * pairs[0] + np.sqrt(1 - rho**2) * pairs[1]
        for cover, threshold in ((0.5, 0.0), (0.158655, 1.0)):
            both = ((pairs[0] > threshold) & (other > threshold)).mean()
            known = indicator_correlation(np.array([rho]), cover)[0]
            expected = cover**2 + cover * (1 - cover) * known
            assert abs(both - expected) < 5 * np.sqrt(both * (1 - both) / 400_000)


def test_half_cover_has_the_law_of_arcsines():
    rho = np.linspace(-0.9, 1.0, 20)
    expected = 2 * np.arcsin(rho) / np.pi
    np.testing.assert_allclose(indicator_correlation(rho, 0.5), expected, atol=1e-12)


def mismatch(hidden, sea, lag):
    """Part of pairs of cells that differ, over that of independent ones."""
    both = sea[:, lag:] & sea[:, :-lag]
    cover = hidden[:, sea].mean(axis=1)
    differ = (hidden[:, :, lag:] != hidden[:, :, :-lag])[:, both].mean(axis=1) / 2
    return differ.mean() / (cover * (1 - cover)).mean()


def correlation(a, b):
    """The correlation of two masks; a day that is hidden whole says nothing."""
    return np.nan if a.all() or b.all() else np.corrcoef(a, b)[0, 1]


def test_remade_clouds_are_like_real_ones(real_data, generator):
    with xr.open_dataset(real_data / "alboran_sst_avhrr.nc") as file:
        sea = file["mask"].values > 0
        real = np.isnan(file["SST"].values) & sea
        lat, lon = (file[name].values.astype(float) for name in ("lat", "lon"))
    made = AVHRR.draw(lat, lon, np.arange(25.0), generator).values & sea
    covers = [hidden[:, sea].mean(axis=1) for hidden in (real, made)]
    # Ten real days: the spread of their covers is known to 24 %, their mean to 0.09.
    assert abs(covers[0].mean() - covers[1].mean()) < 0.2
    assert 0.6 < covers[0].std() / covers[1].std() < 1.5
    for lag in (1, 4, 16):
        assert 0.6 < mismatch(real, sea, lag) / mismatch(made, sea, lag) < 1.6
    persistence = [
        np.nanmean([correlation(a[sea], b[sea]) for a, b in itertools.pairwise(h)])
        for h in (real, made)
    ]
    assert abs(persistence[0] - persistence[1]) < 0.2


def test_same_generator_same_clouds():
    draws = [
        AVHRR.draw(LAT, LON, np.arange(4.0), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    xr.testing.assert_identical(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_dates_are_kept(generator):
    dates = np.datetime64("2017-05-14") + np.array([0, 1, 3]) * np.timedelta64(1, "D")
    hidden = Clouds().draw(LAT, LON, dates, generator)
    np.testing.assert_array_equal(hidden["time"].values, dates)
    numbers = Clouds().draw(LAT, LON, np.array([0.0, 1.0, 3.0]), torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(hidden.values, numbers.values)


@pytest.mark.parametrize(
    "change",
    [
        {"cover": 0.0},
        {"cover": 1.0},
        {"lengthscale": -1.0},
        {"memory": -1.0},
        {"exponent": 1.5},
        {"cover_spread": float("nan")},
    ],
)
def test_bad_clouds_are_refused(change):
    with pytest.raises(ValueError, match=rf"Clouds\({next(iter(change))}="):
        replace(Clouds(), **change)


def test_bad_axes_are_refused(generator):
    with pytest.raises(ValueError, match="increasing times"):
        Clouds().draw(LAT, LON, np.array([1.0, 0.0]), generator)
    with pytest.raises(ValueError, match=r"lat=\.\.\.\): expected a regular axis"):
        Clouds().draw(np.array([0.0, 1.0, 3.0]), LON, np.arange(2.0), generator)
    with pytest.raises(ValueError, match="fits on a torus"):
        stationary_field((40, 40), (1.0, 1.0), lengthscale=1e5, generator=generator)
