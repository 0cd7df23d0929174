r"""Hovmoeller diagrams: a field along a parallel, date after date."""

from __future__ import annotations

__all__ = ["hovmoller"]

import cmocean.cm
import numpy as np
import xarray as xr

from collections.abc import Mapping
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .frame import LAND, colour_bar, degrees, limits_of, new_figure
from .snapshot import as_field, call, refusal


def hovmoller(
    fields: xr.DataArray | Mapping[str, xr.DataArray],
    lat: float,
    *,
    units: str = "m",
    label: str = "SSH",
) -> Figure:
    r"""Draws fields along a parallel by longitude and date: how eddies drift.

    Time runs upwards. What goes west leans to the left. All fields have one scale of colours;
    land is grey.

    Arguments:
        fields: A field with axes ``(time, lat, lon)``, or several by title.
        lat: The latitude, in degrees: each field is drawn at its nearest one.
        units: The units of the field.
        label: What the field is.

    Raises:
        ValueError: If there is no field, if one has no dates, or if the latitude is beyond it.

    Example:
        >>> days = np.datetime64("2012-10-22", "ns") + np.arange(3) * np.timedelta64(1, "D")
        >>> axes = {"time": days, "lat": [37.0, 38.0], "lon": [-65.0, -64.0]}
        >>> field = xr.DataArray(np.zeros((3, 2, 2)), axes)
        >>> hovmoller({"truth": field}, 37.8).axes[0].get_title()
        'truth, 38°N'
    """
    named = fields if isinstance(fields, Mapping) else {"": fields}
    if not named:
        raise refusal(call("hovmoller", "fields"), "one field or more", "none", "Pass a field")
    cuts = {k: _along(v, lat) for k, v in named.items()}
    values = np.concatenate([x.values.ravel() for x in cuts.values()]).astype(np.float64)
    limits = limits_of(values)
    cmap = cmocean.cm.balance if limits[0] == -limits[1] else cmocean.cm.thermal
    figure = new_figure(3.1 * len(cuts) + 1.4, 4.8)
    axes = figure.subplots(1, len(cuts), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (name, cut) in zip(axes, cuts.items(), strict=True):
        image = np.ma.masked_invalid(cut.values.astype(np.float64))
        drawn = ax.pcolormesh(
            cut["lon"].values, cut["time"].values, image, shading="nearest", rasterized=True,
            cmap=cmap.with_extremes(bad=LAND), vmin=limits[0], vmax=limits[1],
        )  # fmt: skip
        where = degrees("NS", 360.0)(round(float(cut["lat"]), 6), 0)
        ax.set_title(", ".join(filter(None, [name, where])), fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 1.5, 2, 3, 6, 9, 10]))
        ax.xaxis.set_major_formatter(degrees("EW", 360.0))
    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes[0].yaxis.set_major_locator(locator)
    axes[0].yaxis.set_major_formatter(DateFormatter("%Y-%m-%d"))
    colour_bar(figure, drawn, list(axes), values, f"{label} [{units}]" if units else label)
    return figure


def _along(field: xr.DataArray, lat: float) -> xr.DataArray:
    r"""Returns a field by date and longitude at its latitude nearest to one."""
    where = call("hovmoller", "fields")
    field = as_field(where, field)
    if "time" not in field.dims or field["time"].dtype.kind != "M":
        got = f"dimensions {tuple(field.dims)}"
        raise refusal(where, "dates along time", got, "Decode the times, or draw a map")
    axis = field["lat"].values
    near = int(np.abs(axis - lat).argmin())
    half = np.diff(axis).max() / 2 if len(axis) > 1 else 0.5
    if abs(axis[near] - lat) > half * (1 + 1e-9):
        expected = f"a latitude in {axis[0]:g}..{axis[-1]:g}"
        raise refusal(call("hovmoller", "lat"), expected, lat, "Choose another one")
    return field.isel(lat=near)
