"""Laws of the picture of std and errors: one scale for both, what is told of each day."""

import numpy as np
import pytest
import xarray as xr

from matheron import plots

DAYS = np.datetime64("2012-10-22", "ns") + np.arange(5) * np.timedelta64(1, "D")


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    axes = {"time": DAYS, "lat": np.arange(33.0, 43.0), "lon": np.arange(-60.0, -51.0)}
    std = xr.DataArray(rng.uniform(0.5, 2.0, (5, 10, 9)), axes)
    mean = xr.zeros_like(std)
    return mean, std, mean.copy(data=std.values * rng.standard_normal(std.shape))


def named(figure, label):
    return next(ax for ax in figure.axes if ax.get_ylabel() == label)


def test_std_and_errors_have_one_scale_and_their_correlation(maps):
    mean, std, truth = maps
    figure = plots.told_errors(mean, std, truth, ["2012-10-23", "2012-10-26"])
    above, below = figure.axes[:2], figure.axes[2:4]
    assert len({ax.collections[0].get_clim() for ax in (*above, *below)}) == 1
    for ax, other, day in zip(above, below, (1, 4), strict=True):
        shown = np.ma.filled(ax.collections[0].get_array().astype(float), np.nan)
        assert np.allclose(np.sort(shown.ravel()), np.sort(std.values[day].ravel()))
        r = np.corrcoef(std.values[day].ravel(), abs(truth.values[day]).ravel())[0, 1]
        assert other.get_title() == f"r = {r:.2f}"


def test_days_have_their_rmse_and_coverage(maps):
    mean, std, truth = maps
    figure = plots.told_errors(mean, std, truth)
    rmse, spread = (line.get_ydata() for line in named(figure, "[m]").get_lines()[:2])
    assert np.allclose(rmse, np.sqrt((truth.values**2).mean(axis=(1, 2))))
    assert np.allclose(spread, np.sqrt((std.values**2).mean(axis=(1, 2))))
    inside = named(figure, "in 90 %").get_lines()[0].get_ydata()
    assert np.allclose(inside, (abs(truth.values) < 1.6449 * std.values).mean(axis=(1, 2)))


def test_what_does_not_fit_is_refused(maps):
    mean, std, truth = maps
    with pytest.raises(ValueError, match="std > 0"):
        plots.told_errors(mean, 0 * std, truth)
    with pytest.raises(ValueError, match="axes and shape of the mean"):
        plots.told_errors(mean, std, truth[1:])
    with pytest.raises(ValueError, match="2013-01-01"):
        plots.told_errors(mean, std, truth, ["2013-01-01"])
