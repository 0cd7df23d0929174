r"""Maps: one field, several fields on one scale, a posterior, observations and residuals."""

from __future__ import annotations

__all__ = ["field", "fields", "observations", "posterior", "residuals"]

import numpy as np
import torch

from collections.abc import Mapping
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .frame import (
    colour_bar,
    dots,
    draw,
    horizontal,
    limits_of,
    marker,
    new_figure,
    on_grid,
    scatter,
    sheet,
    slices_of,
    times_of,
)
from ..domain import Grid, Points


def field(
    grid: Grid,
    values: Tensor,
    ax: Axes | None = None,
    *,
    title: str = "",
    units: str = "",
    points: Points | None = None,
    kind: str = "mean",
    slices: int = 3,
) -> Figure:
    r"""Draws one field: a map, or a line on a grid with one axis.

    On a grid with time, dates spread over the axis are drawn side by side. Colours are
    symmetric around zero where the field takes both signs; land is grey.

    Arguments:
        grid: The grid of the field.
        values: The state, with shape :math:`(n)`, or the field, with the shape of the grid.
        ax: Where to draw; then only one date is drawn, the middle one. A new figure by default.
        title: The title of the figure.
        units: The label of the colours.
        points: The sites of the observations, drawn as dots.
        kind: ``"mean"`` for a field, ``"std"`` for an uncertainty, which has its own colours.
        slices: The number of dates.

    Raises:
        ValueError: If ``values`` does not have the shape of the grid.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> field(grid, torch.arange(6.0), title="SSH", units="m").axes[0].get_title()
        'SSH'
    """
    image = on_grid(grid, values)
    if len(grid.dims) == 1:
        return _profiles(grid, {title: image}, units, ax)
    maps = slices_of(grid, 1 if ax is not None else slices)
    figure, axes = sheet(grid, 1, len(maps)) if ax is None else (_figure(ax), np.array([[ax]]))
    limits = limits_of(image, kind)
    for a, (index, name) in zip(axes.flat, maps, strict=True):
        drawn = draw(a, grid, image[index], limits, kind)
        a.set_title("\n".join(filter(None, [title if len(maps) == 1 else "", name])))
        if points is not None:
            dots(a, grid, points, index)
    if len(maps) > 1 and title:
        figure.suptitle(title)
    colour_bar(figure, drawn, list(axes.flat), image, units)
    return figure


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _profiles(
    grid: Grid, images: Mapping[str, np.ndarray], units: str, ax: Axes | None = None
) -> Figure:
    if ax is None:
        ax = new_figure(6.4, 3.4).subplots()
    for title, values in images.items():
        ax.plot(_abscissa(grid), values, label=title, linewidth=1.3)
    ax.set(xlabel=grid.dims[0], ylabel=units)
    if len(images) > 1:
        ax.legend(frameon=False)
    else:
        ax.set_title(next(iter(images)))
    ax.spines[["top", "right"]].set_visible(False)
    return _figure(ax)


def _abscissa(grid: Grid) -> np.ndarray:
    (name,) = grid.dims
    return times_of(grid) if name == "time" else grid.axes[name].numpy()


def fields(
    grid: Grid,
    panels: Mapping[str, Tensor],
    *,
    units: str = "",
    points: Points | None = None,
    kind: str = "mean",
    columns: int = 3,
    slices: int = 3,
) -> Figure:
    r"""Draws several fields on a common scale, so that colours can be compared.

    On a grid with time there is one row per field and one column per date.

    Arguments:
        grid: The grid of the fields.
        panels: The states by title, each with shape :math:`(n)` or with the shape of the grid.
        units: The label of the colours.
        points: The sites of the observations, drawn as dots on the first field.
        kind: ``"mean"`` for fields, ``"std"`` for uncertainties.
        columns: The number of maps in a row, on a grid without time.
        slices: The number of dates.

    Raises:
        ValueError: If ``panels`` is empty, or a field does not have the shape of the grid.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> x = torch.arange(6.0)
        >>> len(fields(grid, {"truth": x, "mean": x / 2}).axes)  # two maps and the colour bar
        3
    """
    if not panels:
        msg = "fields(panels=...): expected at least one field, got none. Pass {'mean': mean}."
        raise ValueError(msg)
    images = {k: on_grid(grid, v) for k, v in panels.items()}
    if len(grid.dims) == 1:
        return _profiles(grid, images, units)
    everything, maps = np.stack(list(images.values())), slices_of(grid, slices)
    limits = limits_of(everything, kind)
    jobs = [(k, v, index, name) for k, v in images.items() for index, name in maps]
    columns = len(maps) if len(maps) > 1 else min(columns, len(jobs))
    figure, axes = sheet(grid, -(-len(jobs) // columns), columns)
    for ax, (title, image, index, name) in zip(axes.flat, jobs, strict=False):
        drawn = draw(ax, grid, image[index], limits, kind)
        ax.set_title(", ".join(filter(None, [title, name])), fontsize="medium")
        if points is not None and title == jobs[0][0]:
            dots(ax, grid, points, index)
    _hide(axes, len(jobs))
    colour_bar(figure, drawn, list(axes.flat), everything, units)
    return figure


def _hide(axes: np.ndarray, used: int) -> None:
    r"""Hides the maps that are not used, and names the longitudes above them."""
    columns = axes.shape[1]
    for unused in range(used, axes.size):
        axes.flat[unused].set_visible(False)
        above = axes.flat[unused - columns]
        above.tick_params(labelbottom=True)
        above.set_xlabel(axes[-1, 0].get_xlabel())


def posterior(
    grid: Grid,
    mean: Tensor,
    std: Tensor,
    members: Tensor | None = None,
    *,
    truth: Tensor | None = None,
    units: str = "",
    points: Points | None = None,
    shown: int = 2,
) -> tuple[Figure, Figure]:
    r"""Draws a posterior: its mean beside the truth and some members, then its std.

    Arguments:
        grid: The grid of the fields.
        mean: The mean, with shape :math:`(n)`.
        std: The standard deviation, with shape :math:`(n)`.
        members: The draws, with shape :math:`(size, n)`.
        truth: The true field, with shape :math:`(n)`.
        units: The label of the colours.
        points: The sites of the observations, drawn as dots on the std.
        shown: The number of members drawn.

    Returns:
        The figure of the fields on a common scale, and the figure of the std.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> x = torch.arange(6.0)
        >>> maps, uncertainty = posterior(grid, x, 1 + x, x.expand(5, 6))
        >>> [ax.get_title() for ax in maps.axes[:3]]
        ['mean', 'member 1', 'member 2']
    """
    panels = {"mean": mean} if truth is None else {"truth": truth, "mean": mean}
    for i, member in enumerate(() if members is None else members[:shown]):
        panels[f"member {i + 1}"] = member
    columns = 2 if len(panels) in {2, 4} else 3
    return (
        fields(grid, panels, units=units, columns=columns),
        field(grid, std, title="standard deviation", units=units, points=points, kind="std"),
    )


def observations(
    grid: Grid,
    points: Points,
    values: Float[Tensor, " m"],
    *,
    title: str = "",
    units: str = "",
    ax: Axes | None = None,
) -> Figure:
    r"""Draws the observations at their sites, in the frame of a map, all dates together.

    Arguments:
        grid: The grid that frames the map.
        points: The sites of the data.
        values: The data, with shape :math:`(m)`.
        title: The title of the map.
        units: The label of the colours.
        ax: Where to draw. A new figure by default.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> sites = Points(lat=[43.5, 43.9], lon=[5.5, -353.5])  # either branch
        >>> observations(grid, sites, torch.tensor([0.1, 0.3]), title="SSH").axes[0].get_title()
        'SSH'
    """
    if len(grid.dims) == 1:
        return _series(grid, points, values, title, units, ax)
    figure, a = (_figure(ax), ax) if ax is not None else _single(grid)
    values = values.detach().cpu()
    image = values.numpy()
    limits = limits_of(image)
    # Where data overlap, the strong anomalies are drawn last: they are the ones to be seen.
    order = values.abs().argsort() if limits[0] == -limits[1] else torch.arange(len(values))
    drawn = scatter(a, grid, points[order], values[order], limits, marker(len(points)))
    a.set_title(title)
    colour_bar(figure, drawn, [a], image, units)
    return figure


def _single(grid: Grid) -> tuple[Figure, Axes]:
    figure, axes = sheet(grid, 1, 1)
    return figure, axes[0, 0]


def _series(
    grid: Grid, points: Points, values: Tensor, title: str, units: str, ax: Axes | None
) -> Figure:
    if ax is None:
        ax = new_figure(6.4, 3.4).subplots()
    ax.scatter(points.axis(grid.dims[0]), values, s=marker(len(points)), linewidths=0)
    ax.set(xlabel=grid.dims[0], ylabel=units, title=title)
    ax.spines[["top", "right"]].set_visible(False)
    return _figure(ax)


def residuals(
    grid: Grid,
    points: Points,
    values: Float[Tensor, " m"],
    *,
    std: float | None = None,
    units: str = "",
) -> Figure:
    r"""Draws residuals, data minus map: their histogram, and where they are.

    Arguments:
        grid: The grid that frames the map.
        points: The sites of the data.
        values: The residuals, with shape :math:`(m)`.
        std: Their expected standard deviation, whose Gaussian law is drawn over the histogram.
        units: The units of the residuals.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> sites = Points(lat=[43.5, 43.9], lon=[5.5, 6.5])
        >>> figure = residuals(grid, sites, torch.tensor([0.1, -0.1]), units="m")
        >>> figure.axes[0].get_xlabel()
        'residual [m]'
    """
    figure = new_figure(9.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    _histogram(left, torch.as_tensor(values).detach().cpu().numpy(), std, units)
    observations(grid, points, values, title="residuals at their sites", units=units, ax=right)
    right.title.set_fontsize("medium")
    if len(grid.dims) > 1 and grid.metric == "plane":
        vertical, across = horizontal(grid.dims)
        right.set(xlabel=across, ylabel=vertical)
    return figure


def _histogram(ax: Axes, values: np.ndarray, std: float | None, units: str) -> None:
    reach = 4 * max(float(values.std()), std or 0.0) or 1.0
    ax.hist(np.clip(values, -reach, reach), bins=41, range=(-reach, reach), density=True)
    if std:
        x = np.linspace(-reach, reach, 201)
        law = np.exp(-0.5 * (x / std) ** 2) / (std * np.sqrt(2 * np.pi))
        ax.plot(x, law, color="k", linewidth=1.2, label="expected")
        ax.legend(frameon=False, loc="upper right")
    mean, spread = values.mean(), values.std()
    ax.set_title(f"mean {mean:.3g}, std {spread:.3g}", fontsize="medium")
    ax.set(xlabel=f"residual [{units}]" if units else "residual", yticks=[])
    ax.spines[["top", "right", "left"]].set_visible(False)
