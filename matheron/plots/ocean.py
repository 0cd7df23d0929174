r"""Maps of the ocean on one day: truth, data, map and error; and how sure the map is."""

from __future__ import annotations

__all__ = ["panels", "uncertainty"]

import cmocean.cm
import numpy as np
import torch
import xarray as xr

from collections.abc import Mapping, Sequence
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from numpy import ndarray
from typing import NamedTuple

from .diagnostics import pit, ranks, spread_skill
from .frame import LAND, Limits, colour_bar, draw, limits_of, marker, new_figure, sheet
from .snapshot import (
    Data,
    Day,
    Quantity,
    Sites,
    as_field,
    at_day,
    at_nodes,
    call,
    currents,
    image_of,
    lattice_of,
    refusal,
    sites_of,
    titled,
)

MOST = 3.0
"""The largest colour of errors over their std."""
CLASSES = 10


class _Look(NamedTuple):
    label: str
    limits: Limits | None
    colours: Colormap | None
    error: Colormap


LOOKS = {
    "ssh": _Look("SSH [{units}]", None, None, cmocean.cm.balance),
    "speed": _Look("speed [m/s]", None, cmocean.cm.ice, cmocean.cm.balance),
    "vorticity": _Look("vorticity / f", (-0.5, 0.5), cmocean.cm.balance, cmocean.cm.balance),
}


def panels(
    truth: xr.DataArray,
    observations: Data | Mapping[str, Data],
    map: xr.DataArray,
    day: Day,
    *,
    within: float = 1.0,
    field: Quantity = "ssh",
    variables: Sequence[str] = ("ssh_obs", "ssh_model"),
    units: str = "m",
) -> Figure:
    r"""Draws the truth, the data of some days, the map and its error, side by side.

    The error is the map minus the truth at the nodes of the map, where the truth is interpolated.
    All panels have one scale of colours; where zero is not in its middle, the error has a scale of
    the same width around zero. Land is grey.

    Speeds and vorticities are those of the geostrophic current of each height, from its own grid:
    that of an anomaly is an anomaly. Data along tracks have none: their sites are drawn.

    Arguments:
        truth: The true height, with axes ``(time, lat, lon)`` or ``(lat, lon)``.
        observations: Files of data by name, or one; or tables with columns ``time``, ``lat``,
            ``lon`` and one of ``variables``.
        map: The map of the height.
        day: The day, e.g. ``"2012-11-05"``: the nearest dates are drawn.
        within: How many days of data before and after it.
        field: ``"ssh"``, ``"speed"`` or ``"vorticity"`` (over the Coriolis parameter).
        variables: The names of the data: the first one that a file has.
        units: The units of the heights; speeds and vorticities ask for metres.

    Raises:
        ValueError: If the truth or the map has no date near the day, or other axes; if a file has
            no such variable.

    Example:
        >>> axes = {"lat": [33.0, 34.0], "lon": [-65.0, -64.0, -63.0]}
        >>> height = xr.DataArray(np.arange(6.0).reshape(2, 3), axes)
        >>> track = xr.Dataset({"ssh_obs": ("time", [1.0])}, {"lat": ("time", [33.2]),
        ...     "lon": ("time", [295.5]), "time": np.array(["2012-11-05"], "datetime64[ns]")})
        >>> figure = panels(height, {"alg": track}, 0.9 * height, "2012-11-05")
        >>> [ax.get_title() for ax in figure.axes[:4]]
        ['truth', '1 datum within 1 day', 'map', 'map - truth, RMS 0.303 m']
    """
    look = _look(field, units)
    true, made = (
        currents(at_day(call("panels", name), x, day), field)
        for name, x in (("truth", truth), ("map", map))
    )
    sites = sites_of(
        call("panels", "observations"), observations, day, within, variables, true["lon"].values
    )
    error = image_of(made) - image_of(at_nodes(true, made))
    both = [image_of(x) for x in (true, made)]
    limits = look.limits or limits_of(np.concatenate([x.ravel() for x in both]))
    limits = (0.0, limits[1]) if field == "speed" else limits
    figure, axes = sheet(lattice_of(true), 1, 4)
    drawn = _map(axes[0, 0], true, both[0], limits, look.colours)
    _sites(axes[0, 1], true, sites, within, drawn if field == "ssh" else None)
    _map(axes[0, 2], made, both[1], limits, look.colours)
    half = (limits[1] - limits[0]) / 2
    wrong = _map(axes[0, 3], made, error, (-half, half), look.error)
    axes[0, 0].set_title(titled("truth", true))
    axes[0, 2].set_title(titled("map", made))
    axes[0, 3].set_title(f"map - truth, RMS {_rms(error):.3g} {_unit(look)}".rstrip())
    for ax in axes[0]:
        ax.title.set_fontsize("medium")
    values = np.concatenate([x.ravel() for x in both])
    if limits == (-half, half):
        everything = np.concatenate([values, error.ravel()])
        colour_bar(figure, drawn, list(axes[0]), everything, look.label)
    else:
        figure.set_figwidth(figure.get_figwidth() + 1.3)  # for the second bar
        colour_bar(figure, drawn, list(axes[0, :3]), values, look.label)
        colour_bar(figure, wrong, [axes[0, 3]], error, f"error: {look.label}")
    return figure


def _look(field: str, units: str) -> _Look:
    if field not in LOOKS:
        expected = f"one of {', '.join(LOOKS)}"
        raise refusal(call("panels", "field"), expected, f"'{field}'", "Name a quantity")
    look = LOOKS[field]
    return look._replace(label=look.label.format(units=units))


def _unit(look: _Look) -> str:
    return look.label.partition("[")[2].rstrip("]")


def _map(
    ax: Axes,
    field: xr.DataArray,
    image: Float[ndarray, "lat lon"],
    limits: Limits,
    colours: Colormap | None,
) -> Collection:
    drawn = draw(ax, lattice_of(field), image, limits, "mean")
    if colours is not None:
        drawn.set_cmap(colours.with_extremes(bad=LAND))
    return drawn


def _sites(
    ax: Axes, field: xr.DataArray, sites: Sites, within: float, like: Collection | None
) -> None:
    r"""Draws data on a bare sea, coloured like a map, or as black dots."""
    sea = np.where(np.isfinite(image_of(field)), 1.0, np.nan)
    _map(ax, field, sea, (0.0, 1.0), ListedColormap(["0.97"]))
    box = (*ax.get_xlim(), *ax.get_ylim())
    inside = (sites.lon >= box[0]) & (sites.lon <= box[1])
    inside &= (sites.lat >= box[2]) & (sites.lat <= box[3])
    lat, lon, values = (x[inside] for x in sites)
    count, area = len(values), marker(len(values))
    if like is not None:
        ax.scatter(lon, lat, s=area, c=values, cmap=like.get_cmap(),
                   vmin=like.get_clim()[0], vmax=like.get_clim()[1],
                   linewidths=0, rasterized=True)  # fmt: skip
    else:
        ax.scatter(lon, lat, s=0.5 * area, c="k", linewidths=0, rasterized=True)
    ax.set(xlim=box[:2], ylim=box[2:])
    said = {0: "no data", 1: "1 datum"}.get(count, f"{count} data")
    ax.set_title(f"{said} within {within:g} day" + "s" * (within != 1))


def _rms(x: ndarray) -> float:
    finite = x[np.isfinite(x)]
    return float(np.sqrt((finite**2).mean())) if finite.size else np.nan


def uncertainty(
    mean: xr.DataArray,
    std: xr.DataArray,
    truth: xr.DataArray,
    *,
    day: Day | None = None,
    members: xr.DataArray | None = None,
    units: str = "m",
) -> Figure:
    r"""Draws how sure a map is, and whether it is right to be: four panels.

    Above, on one day: its std, and the absolute error in units of this std, which is over 2 at
    one node in twenty where the map is calibrated. Below, over all dates and nodes that both have:
    the RMSE of classes of one std, and the histogram of the truth in the predicted law, which is
    flat where the map is calibrated (its band is that of independent data, fields vary more).

    Arguments:
        mean: The mean, with axes ``(time, lat, lon)`` or ``(lat, lon)``.
        std: The standard deviation, on the same nodes.
        truth: The truth; it is interpolated to the nodes of the mean.
        day: The day of the maps: the middle date by default.
        members: Draws, on the nodes of the mean, with one more axis: the rank histogram is drawn
            in place of the Gaussian one.
        units: The units of the field.

    Raises:
        ValueError: If the fields have other axes, share no date, or if a std is not positive.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> axes = {"lat": np.arange(33.0, 43.0), "lon": np.arange(9.0)}
        >>> truth = xr.DataArray(rng.standard_normal((10, 9)), axes)
        >>> figure = uncertainty(0 * truth, 0 * truth + 1.0, truth)
        >>> [ax.get_title() for ax in figure.axes[:4]]
        ['std', '|error| / std', 'spread and skill', 'PIT']
    """
    dated = "time" in mean.dims
    mean, std, truth = _together(mean, std, truth)
    error = truth - mean
    seen = np.isfinite(error.values) & np.isfinite(std.values)
    _check_seen(seen, std.values)
    when = day if dated and day is not None else mean["time"].values[mean.sizes["time"] // 2]
    at, off = (at_day(call("uncertainty", "day"), x, when) for x in (std, abs(error) / std))
    if not dated:
        at, off = (x.drop_vars("time") for x in (at, off))
    figure = new_figure(9.6, 7.6)
    axes = figure.subplots(2, 2)
    _sure(axes[0, 0], at, None, f"std [{units}]")
    _sure(axes[0, 1], off, (0.0, MOST), "|error| / std")
    spread, skill = _classes(std.values[seen], error.values[seen])
    spread_skill(spread, skill, axes[1, 0], units=units)
    _law(axes[1, 1], mean, error, std, seen, members)
    axes[1, 1].set_box_aspect(1)
    return figure


def _sure(ax: Axes, field: xr.DataArray, limits: Limits | None, label: str) -> None:
    image = image_of(field)
    drawn = _map(ax, field, image, limits or limits_of(image, "std"), cmocean.cm.amp)
    ax.set_title(titled(label.partition(" [")[0], field))
    figure = ax.get_figure(root=True)
    assert figure is not None
    colour_bar(figure, drawn, [ax], image, label)


def _together(
    mean: xr.DataArray, std: xr.DataArray, truth: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    r"""Returns three fields on the nodes of the mean, at the dates that all have."""
    named = {"mean": mean, "std": std, "truth": truth}
    found = {k: as_field(call("uncertainty", k), v) for k, v in named.items()}
    dated = [k for k, v in found.items() if "time" in v.dims]
    if len(dated) not in {0, 3}:
        got = f"dates in {' and '.join(dated)} only"
        raise refusal(
            call("uncertainty", "mean, std, truth"),
            "dates in all fields, or in none",
            got,
            "Select a date",
        )
    if not dated:
        when = np.array(["2000-01-01"], dtype="datetime64[ns]")
        found = {k: v.drop_vars("time", errors="ignore") for k, v in found.items()}
        found = {k: v.expand_dims(time=when) for k, v in found.items()}
    times = [v["time"].values for v in found.values()]
    shared = np.intersect1d(np.intersect1d(times[0], times[1]), times[2])
    if shared.size == 0:
        raise refusal(
            call("uncertainty", "truth"), "a date of the mean", "none", "Check the dates"
        )
    mean, std, truth = (v.sel(time=shared) for v in found.values())
    if std.shape != mean.shape:
        cure = "Give the std of this mean"
        raise refusal(call("uncertainty", "std"), f"shape {mean.shape}", str(std.shape), cure)
    return mean, std.assign_coords(mean.coords), at_nodes(truth, mean)


def _check_seen(seen: ndarray, std: ndarray) -> None:
    if not seen.any():
        cure = "Check both boxes"
        raise refusal(call("uncertainty", "truth"), "nodes that the mean has too", "none", cure)
    least = std[seen].min()
    if not least > 0:
        cure = "Mask the nodes that are known"
        raise refusal(call("uncertainty", "std"), "a std > 0", f"{least:.4g}", cure)


def _classes(std: ndarray, error: ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Returns the spread and the RMSE of classes of equal counts, by increasing std."""
    classes = np.array_split(std.argsort(kind="stable"), min(CLASSES, len(std)))
    found = [[_rms(x[k]) for k in classes] for x in (std, error)]
    return torch.tensor(found[0]), torch.tensor(found[1])


def _law(
    ax: Axes,
    mean: xr.DataArray,
    error: xr.DataArray,
    std: xr.DataArray,
    seen: ndarray,
    members: xr.DataArray | None,
) -> None:
    if members is None:
        z = torch.as_tensor((error.values / std.values)[seen])
        pit(torch.special.ndtr(z), ax)
        return
    more = [k for k in members.dims if k in {"member", "realization", "size"}]
    if len(more) != 1:
        cure = "Name its first axis 'member'"
        raise refusal(
            call("uncertainty", "members"), "one axis of members", tuple(members.dims), cure
        )
    draws = [as_field(call("uncertainty", "members"), members.isel({more[0]: i}))
             for i in range(members.sizes[more[0]])]  # fmt: skip
    drawn = np.stack([_like(x, mean) for x in draws])
    rank = (drawn < (error + mean).values)[:, seen].sum(axis=0)
    ranks(torch.as_tensor(np.bincount(rank, minlength=len(drawn) + 1)), ax)


def _like(member: xr.DataArray, mean: xr.DataArray) -> ndarray:
    if "time" in member.dims:
        member = member.sel(time=mean["time"].values)
    values = member.values.reshape(-1, *member.shape[-2:])
    if values.shape != mean.shape:
        expected = f"the shape of the mean, {mean.shape}"
        raise refusal(
            call("uncertainty", "members"), expected, str(values.shape), "Map them together"
        )
    return values
