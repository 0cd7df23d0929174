r"""The std of maps beside their errors, on some days and from day to day."""

from __future__ import annotations

__all__ = ["told_errors"]

import cmocean.cm
import numpy as np
import xarray as xr

from collections.abc import Sequence
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy import ndarray

from .frame import Limits, colour_bar, draw, new_figure
from .snapshot import call, image_of, lattice_of, refusal

WITHIN = 1.6449
"""How many std of a normal law lie either side of an interval of 90 %."""
SHOWN = 4


def told_errors(
    mean: xr.DataArray,
    std: xr.DataArray,
    truth: xr.DataArray,
    days: Sequence[str] | None = None,
    *,
    units: str = "m",
) -> Figure:
    r"""Draws the std and the absolute error of some days, and what errors are day by day.

    The maps of a day share one scale: where a std is right, errors are as large as it is in the
    mean, and each pair says how they correlate. Below, the RMSE of each day beside the std that
    was told, and the part of the nodes inside intervals of 90 %.

    References:
        | Neural variational data assimilation with uncertainty quantification using SPDE priors
          (Beauchamp, Fablet, Benaichouche, Tandeo, Desassis & Chapron, 2025)
        | https://doi.org/10.1175/AIES-D-24-0060.1

    Arguments:
        mean: The mean, with axes ``(time, lat, lon)``.
        std: The standard deviation, on the same nodes.
        truth: The truth, on the same nodes.
        days: The days of the maps; by default four, evenly.
        units: The units of the field.

    Raises:
        ValueError: If the fields have other shapes, a std is not positive, or a day is not there.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> days = np.array(["2012-10-22", "2012-10-23", "2012-10-24"], dtype="datetime64[ns]")
        >>> axes = {"time": days, "lat": np.arange(33.0, 43.0), "lon": np.arange(9.0)}
        >>> truth = xr.DataArray(rng.standard_normal((3, 10, 9)), axes)
        >>> figure = told_errors(0 * truth, 0 * truth + 1.0, truth, ["2012-10-22", "2012-10-24"])
        >>> [ax.get_title() for ax in figure.axes[:2]]
        ['2012-10-22', '2012-10-24']
    """
    error = _checked(mean, std, truth)
    chosen = _chosen(mean, days)
    figure = new_figure(2.6 * len(chosen) + 1.2, 8.2)
    axes = figure.subplots(4, len(chosen), squeeze=False, height_ratios=[3, 3, 2, 2])
    shown = np.concatenate([error.values[chosen].ravel(), std.values[chosen].ravel()])
    limits = (0.0, float(np.nanquantile(shown, 0.99)))
    drawn = [
        _pair(list(axes[:2, k]), std[day], error[day], limits) for k, day in enumerate(chosen)
    ]
    places = [axes[0, k] for k in range(len(chosen))] + [axes[1, k] for k in range(len(chosen))]
    colour_bar(figure, drawn[-1], places, shown, f"std and |error| [{units}]")
    axes[0, 0].set_ylabel("std")
    axes[1, 0].set_ylabel("|error|")
    grid = axes[0, 0].get_gridspec()
    for ax in axes[2:].ravel():
        ax.remove()
    above = figure.add_subplot(grid[2, :])
    _series(above, figure.add_subplot(grid[3, :], sharex=above), std, error, chosen, units)
    return figure


def _checked(mean: xr.DataArray, std: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    r"""Returns the absolute errors."""
    for name, x in (("std", std), ("truth", truth)):
        if x.dims != mean.dims or x.shape != mean.shape or mean.dims[:1] != ("time",):
            expected = f"axes and shape of the mean, {mean.dims} {mean.shape}, the time first"
            cure = "Interpolate it to the nodes of the mean"
            raise refusal(call("told_errors", name), expected, f"{x.dims} {x.shape}", cure)
    if not float(std.min()) > 0:
        got = f"{float(std.min()):.4g}"
        raise refusal(call("told_errors", "std"), "a std > 0", got, "Leave out what is known")
    return abs(mean.copy(data=mean.values - truth.values))


def _chosen(mean: xr.DataArray, days: Sequence[str] | None) -> list[int]:
    dates = mean["time"].values.astype("datetime64[D]")
    if days is None:
        return np.linspace(0, len(dates) - 1, min(SHOWN, len(dates))).round().astype(int).tolist()
    found = [np.flatnonzero(dates == np.datetime64(day, "D")) for day in days]
    lacking = [str(day) for day, at in zip(days, found, strict=True) if not len(at)]
    if lacking:
        expected, cure = f"dates of {dates[0]} to {dates[-1]}", "Choose others"
        raise refusal(call("told_errors", "days"), expected, ", ".join(lacking), cure)
    return [int(at[0]) for at in found]


def _pair(
    axes: Sequence[Axes], std: xr.DataArray, error: xr.DataArray, limits: Limits
) -> Collection:
    for ax, x in zip(axes, (std, error), strict=True):
        drawn = draw(ax, lattice_of(x), image_of(x), limits, "std")
        drawn.set_cmap(cmocean.cm.amp)
        ax.set(xticks=[], yticks=[])
    seen = np.isfinite(std.values) & np.isfinite(error.values)
    both = std.values[seen], error.values[seen]
    if min(np.ptp(x) for x in both) > 0:  # of what does not vary there is no correlation
        axes[1].set_title(f"r = {np.corrcoef(*both)[0, 1]:.2f}", fontsize="medium")
    axes[0].set_title(str(std["time"].values.astype("datetime64[D]")), fontsize="medium")
    return drawn


def _series(
    above: Axes,
    below: Axes,
    std: xr.DataArray,
    error: xr.DataArray,
    chosen: Sequence[int],
    units: str,
) -> None:
    time = std["time"].values
    rms = lambda x: np.sqrt(np.nanmean(x.values**2, axis=(1, 2)))
    above.plot(time, rms(error), color="C3", label="RMSE")
    above.plot(time, rms(std), color="k", linestyle="--", label="std")
    above.set_ylabel(f"[{units}]")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, fontsize="small", ncols=2)
    below.plot(time, _covered(std.values, error.values), color="C0")
    below.axhline(0.9, color="0.5", linewidth=0.8)
    below.set(ylabel="in 90 %", ylim=(0.6, 1.0))
    for ax in (above, below):
        for day in chosen:
            ax.axvline(time[day], color="0.8", linewidth=0.8, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.01)
    locator = AutoDateLocator(minticks=4, maxticks=9)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    above.tick_params(labelbottom=False)


def _covered(std: ndarray, error: ndarray) -> ndarray:
    r"""Returns the part of the nodes of each day that are within intervals of 90 %."""
    seen = np.isfinite(error)
    return (seen & (error <= WITHIN * std)).sum(axis=(1, 2)) / seen.sum(axis=(1, 2))
