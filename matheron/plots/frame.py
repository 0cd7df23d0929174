r"""What every map shares: colours and their limits, axes in degrees, dates, dots of data."""

from __future__ import annotations

__all__ = [
    "at_map",
    "branch",
    "colour_bar",
    "date_of",
    "dated",
    "degrees",
    "dots",
    "draw",
    "horizontal",
    "limits_of",
    "marker",
    "new_figure",
    "on_grid",
    "scatter",
    "sheet",
    "slices_of",
    "times_of",
]

import cmocean.cm
import math
import numpy as np
import torch

from collections.abc import Sequence
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor
from typing import Literal

from ..domain import Grid, Points

LAND = "0.72"
LARGEST = 900  # cells drawn along one axis: more would not be seen

LONGEST = 0.12  # a map more oblong than that is stretched

Limits = tuple[float, float]
Index = tuple[int, ...]


def limits_of(values: np.ndarray, kind: str = "mean") -> Limits:
    r"""Returns the limits of the colours: one value in a hundred lies beyond each of them.

    They are symmetric for a field that takes both signs. The scale of an uncertainty
    (``kind="std"``) starts low enough for a flat map to look flat.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return (0.0, 1.0)
    low, high = np.quantile(finite, [0.01, 0.99])
    if kind == "std":
        low = min(low, 0.5 * high)
    elif low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        low, high = -max(-low, high), max(-low, high)
    flat = high - low <= 1e-9 * max(abs(low), abs(high), 1e-300)
    pad = 1e-3 * abs(low) + 1e-12 if flat else 0.0
    return (float(low - pad), float(high + pad))


def _colours(limits: Limits, kind: str) -> Colormap:
    if kind == "std":
        cmap = cmocean.cm.amp
    else:
        cmap = cmocean.cm.balance if limits[0] == -limits[1] else cmocean.cm.thermal
    return cmap.with_extremes(bad=LAND)


def _extend(values: np.ndarray, limits: Limits) -> str:
    below = bool(np.nanmin(values, initial=np.inf) < limits[0])
    above = bool(np.nanmax(values, initial=-np.inf) > limits[1])
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]


def colour_bar(
    figure: Figure, image: Collection, axes: Sequence[Axes], values: np.ndarray, units: str
) -> Colorbar:
    r"""Adds the colour bar of several maps, with its units, and ends where values are beyond."""
    spec = axes[0].get_subplotspec()
    rows = spec.get_gridspec().nrows if spec is not None and len(axes) > 1 else 1
    bar = figure.colorbar(
        image,
        ax=list(axes),
        label=units,
        extend=_extend(values, image.get_clim()),
        extendfrac=0.03,
        pad=0.02,
        shrink=0.9 if rows == 1 else 0.6,
        aspect=22 if rows == 1 else 14 * rows,
    )
    bar.ax.yaxis.set_major_locator(MaxNLocator(6))
    bar.outline.set_visible(False)
    return bar


def horizontal(dims: Sequence[str]) -> list[str]:
    r"""Returns the vertical and horizontal axes of a map: the last two axes of space.

    With one axis of space only, time is the vertical one (a Hovmoeller diagram).
    """
    space = [k for k in dims if k != "time"]
    return list(space if len(space) > 1 else dims)[-2:]


def dated(grid: Grid) -> bool:
    r"""Tells whether there is one map per date."""
    return "time" in grid.dims and "time" not in horizontal(grid.dims)


def degrees(letters: str, turn: float) -> FuncFormatter:
    r"""Returns how to write degrees on either branch, e.g. ``degrees("EW", 360.0)``."""

    def text(value: float, _: int | None = None) -> str:
        value = (value + turn / 2) % turn - turn / 2
        side = "" if value in {0.0, -turn / 2} else letters[int(value < 0)]
        return f"{abs(value):.6g}°{side}"

    return FuncFormatter(text)


def _frame(ax: Axes, grid: Grid) -> None:
    r"""Names the axes; a degree of longitude is drawn as short as it is at that latitude."""
    steps = [1, 1.5, 2, 3, 6, 9, 10] if grid.metric == "sphere" else [1, 2, 5, 10]
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=steps))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
    if grid.metric == "sphere":
        ax.xaxis.set_major_formatter(degrees("EW", 360.0))
        ax.yaxis.set_major_formatter(degrees("NS", 360.0))
    ax.set_aspect(_aspect(grid), adjustable="box")


def _shrink(grid: Grid) -> float:
    r"""Returns the length of a degree of longitude over that of a degree of latitude."""
    if grid.metric == "plane":
        return 1.0
    middle = (grid.axes["lat"][0] + grid.axes["lat"][-1]).item() / 2
    return max(math.cos(math.radians(middle)), 0.1)


def _extent(grid: Grid) -> tuple[float, float]:
    high, wide = (float(grid.axes[k][-1] - grid.axes[k][0]) for k in horizontal(grid.dims))
    return (high or 1.0, (wide or 1.0) * _shrink(grid))


def _faithful(grid: Grid) -> bool:
    r"""Tells whether both axes can have one scale: lengths, of a map not too oblong."""
    height, width = _extent(grid)
    alike = "time" not in horizontal(grid.dims)
    return alike and LONGEST < height / width < 1 / LONGEST


def _aspect(grid: Grid) -> float | Literal["auto"]:
    return 1 / _shrink(grid) if _faithful(grid) else "auto"


def sheet(grid: Grid, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    r"""Returns axes whose shape is that of the maps, so that no white is left around them."""
    ratio = _ratio(grid)
    wide = {1: 5.4, 2: 4.2}.get(columns, 3.2) * min(1.0, 1.25 / ratio)
    figure = new_figure(columns * (wide + 0.15) + 1.3, rows * (wide * ratio + 0.45) + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    if grid.metric == "plane":
        _label(axes, *horizontal(grid.dims))
    return figure, axes


def _ratio(grid: Grid) -> float:
    height, width = _extent(grid)
    return height / width if _faithful(grid) else 0.5


def new_figure(width: float, height: float) -> Figure:
    r"""Returns an empty figure whose labels do not overlap; it belongs to no window."""
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.02)
    return Figure(figsize=(width, height), layout=engine)


def _label(axes: np.ndarray, vertical: str, across: str) -> None:
    for ax in axes[-1]:
        ax.set_xlabel(across)
    for ax in axes[:, 0]:
        ax.set_ylabel(vertical)


def date_of(grid: Grid, index: int) -> str:
    r"""Returns the date of a node of the time axis, to the minute where days are not whole."""
    time = grid.axes["time"][index].item()
    if grid.epoch is None:
        return f"time = {time:.6g}"
    date = grid.epoch + np.timedelta64(round(time * 86_400), "s")
    whole = bool((grid.axes["time"] % 1 == 0).all())
    return str(np.datetime_as_string(date, unit="D" if whole else "m")).replace("T", " ")


def slices_of(grid: Grid, count: int) -> list[tuple[Index, str]]:
    r"""Returns the index and the name of the maps to draw: dates spread over the axis.

    On a further vertical axis, the first level is drawn.
    """
    levels = [k for k in grid.dims if k not in {"time", *horizontal(grid.dims)}]
    level = (0,) * len(levels)
    name = ", ".join(f"{k} = {grid.axes[k][0]:.6g}" for k in levels)
    if not dated(grid):
        return [(level, name)]
    size = len(grid.axes["time"])
    spread = np.linspace(0, size - 1, min(count, size)) if count > 1 else np.array([size // 2])
    chosen = [int(i) for i in spread.round()]
    return [((i, *level), ", ".join(filter(None, [date_of(grid, i), name]))) for i in chosen]


def on_grid(grid: Grid, values: Tensor) -> np.ndarray:
    r"""Returns a field with the shape of the grid, from its state or from such a field."""
    values = torch.as_tensor(values).detach().cpu().double()
    if values.shape == grid.shape:
        return values.numpy()
    if values.shape != (len(grid),):
        msg = (
            f"plots(values=...): expected a state with shape ({len(grid)},) or a field with shape "
            f"{grid.shape}, got {tuple(values.shape)}. Plot one member at a time."
        )
        raise ValueError(msg)
    return grid.unflatten(values).numpy()


def _thin(axis: Tensor) -> np.ndarray:
    return np.arange(0, len(axis), -(-len(axis) // LARGEST))


def draw(ax: Axes, grid: Grid, image: np.ndarray, limits: Limits, kind: str) -> Collection:
    r"""Draws one map, with land in grey."""
    vertical, across = (grid.axes[k] for k in horizontal(grid.dims))
    rows, columns = _thin(vertical), _thin(across)
    drawn = ax.pcolormesh(
        across.numpy()[columns],
        vertical.numpy()[rows],
        np.ma.masked_invalid(image[np.ix_(rows, columns)]),
        cmap=_colours(limits, kind),
        vmin=limits[0],
        vmax=limits[1],
        shading="nearest",
        rasterized=True,
    )
    ax.set_xlim(*_cells(across))  # the map is the frame: data beyond it do not enlarge it
    ax.set_ylim(*_cells(vertical))
    _frame(ax, grid)
    return drawn


def scatter(
    ax: Axes, grid: Grid, points: Points, values: Tensor, limits: Limits, area: float
) -> Collection:
    r"""Draws values at their sites, in the frame of a map of the grid."""
    vertical, across = horizontal(grid.dims)
    drawn = ax.scatter(
        branch(points.axis(across), grid, across),
        points.axis(vertical),
        c=values,
        s=area,
        cmap=_colours(limits, "mean"),
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
        rasterized=True,
    )
    ax.set_facecolor("0.94")
    ax.set_xlim(*_edges(grid.axes[across]))
    ax.set_ylim(*_edges(grid.axes[vertical]))
    _frame(ax, grid)
    return drawn


def _cells(axis: Tensor) -> Limits:
    r"""Returns the outer edges of the first and of the last cell."""
    steps = axis.diff() if len(axis) > 1 else torch.ones(1, dtype=torch.float64)
    return ((axis[0] - steps[0] / 2).item(), (axis[-1] + steps[-1] / 2).item())


def _edges(axis: Tensor) -> Limits:
    margin = (axis[-1] - axis[0]).item() * 0.02 or 0.5
    return (axis[0].item() - margin, axis[-1].item() + margin)


def marker(count: int) -> float:
    r"""Returns the area of a marker, such that dense tracks do not hide one another."""
    return float(np.clip(18_000.0 / max(count, 1), 1.0, 24.0))


def branch(s: Tensor, grid: Grid, name: str) -> Tensor:
    r"""Returns longitudes on the branch of the grid, and any other coordinate as it is."""
    if name != "lon" or grid.metric != "sphere":
        return s
    start = (grid.axes["lon"][0] + grid.axes["lon"][-1]) / 2 - 180
    return start + torch.remainder(s - start, 360.0)


def times_of(grid: Grid) -> np.ndarray:
    r"""Returns the time axis as dates where its epoch is known, else as numbers."""
    time = grid.axes["time"].numpy()
    if grid.epoch is None:
        return time
    return grid.epoch + (time * 86_400_000).round().astype("timedelta64[ms]")


def at_map(points: Points, grid: Grid, index: Index) -> Points:
    r"""Returns the sites of a map: inside it, and nearer to its date than to any other."""
    keep = torch.ones(len(points), dtype=torch.bool)
    for name in horizontal(grid.dims):
        low, high = _cells(grid.axes[name])
        s = branch(points.axis(name), grid, name)
        keep &= (s >= low) & (s <= high)
    if dated(grid) and "time" in points.dims:
        time = grid.axes["time"]
        half = (time.diff().median() / 2).item() if len(time) > 1 else math.inf
        keep &= (points.since(grid.epoch).axis("time") - time[index[0]]).abs() <= half
    return points[keep]


def dots(ax: Axes, grid: Grid, points: Points, index: Index) -> None:
    r"""Draws the sites of the observations over a map."""
    inside = at_map(points, grid, index)
    vertical, across = horizontal(grid.dims)
    ax.scatter(
        branch(inside.axis(across), grid, across),
        inside.axis(vertical),
        s=0.2 * marker(len(inside)),
        c="k",
        alpha=0.6,
        linewidths=0,
        rasterized=True,
    )
