r"""Pictures of the parameters of a field: ellipses of lengthscales, arrows of velocities."""

from __future__ import annotations

__all__ = ["arrows", "ellipses", "parameters"]

import cmocean.cm
import math
import numpy as np
import torch

from collections.abc import Mapping
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor
from typing import Any

from .frame import LAND, branch, colour_bar, draw, horizontal, limits_of, sheet
from .maps import field
from ..domain import EARTH_RADIUS, Grid, Points

TURN = np.linspace(0, 2 * math.pi, 49)
LARGEST_ELLIPSE = 0.55  # of the distance to the next one, for its half axis
LEGEND = {"facecolor": "w", "edgecolor": "0.7", "alpha": 0.9, "boxstyle": "round,pad=0.3"}


def ellipses(
    grid: Grid,
    points: Points,
    lengthscale: Float[Tensor, "m 2 2"],
    ax: Axes | None = None,
    *,
    title: str = "lengthscales",
) -> Figure:
    r"""Draws an ellipse at each site: how far the field is alike, in every direction.

    The half axes of an ellipse are the local lengthscales, all drawn smaller by one factor where
    they would hide one another; a circle of known size is the legend. Colours are the geometric
    mean of both half axes.

    Arguments:
        grid: The grid that frames the map, whose land is grey.
        points: The sites, with shape :math:`(m)`; times are ignored.
        lengthscale: The squares :math:`\ell \ell^\top` of the matrices of lengthscales (for a
            Whittle-Matern field :math:`2 \nu H / \kappa^2`), in the order of the axes: squared
            metres on the sphere, squared units of the axes on the plane.
        ax: Where to draw. A new figure by default.
        title: The title of the map.

    Raises:
        ValueError: If the matrices are not symmetric and positive definite, or not one per site.

    Example:
        >>> grid = Grid(y=torch.arange(5.0), x=torch.arange(5.0))
        >>> sites = Points(y=[1.0, 3.0], x=[1.0, 3.0])
        >>> square = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double().expand(2, 2, 2)
        >>> ellipses(grid, sites, square).axes[0].get_title()
        'lengthscales'
    """
    square = lengthscale.detach().cpu().double()
    _check(points, square, (2, 2), "ellipses")
    values, vectors = torch.linalg.eigh(square)
    if not (values > 0).all():
        msg = (
            "ellipses(lengthscale=...): expected symmetric positive definite matrices, got an "
            f"eigenvalue of {values.min().item():.3g}. Give squares of lengthscales."
        )
        raise ValueError(msg)
    figure, ax = _canvas(grid, ax)
    sphere = grid.metric == "sphere"
    size = values.prod(dim=-1) ** 0.25
    root = vectors * values.sqrt()[:, None]
    y, x = _sites(grid, points)
    shrunk = _factor(root, y, x, sphere)
    rim = root @ torch.as_tensor(np.stack([np.cos(TURN), np.sin(TURN)])) * shrunk  # (m, 2, k)
    unit = 1000.0 if sphere else 1.0
    outlines = _placed(rim, y, x, sphere)
    limits = limits_of((size / unit).numpy())
    drawn = PolyCollection(list(outlines), cmap=cmocean.cm.dense, edgecolors="k", linewidths=0.4)
    drawn.set_array((size / unit).numpy())
    drawn.set_clim(*limits)
    ax.add_collection(drawn, autolim=False)
    _circle(ax, grid, size.median().item() / unit, shrunk * unit, sphere)
    ax.set_title(title)
    label = "lengthscale [km]" if sphere else "lengthscale"
    colour_bar(figure, drawn, [ax], (size / unit).numpy(), label)
    return figure


def _check(points: Points, values: Tensor, shape: tuple[int, ...], where: str) -> None:
    if values.shape != (len(points), *shape) or not values.isfinite().all():
        msg = (
            f"{where}(points=...): expected finite values of shape {shape} at each of "
            f"{len(points)} sites, got shape {tuple(values.shape)}. Leave land out."
        )
        raise ValueError(msg)


def _canvas(grid: Grid, ax: Axes | None) -> tuple[Figure, Axes]:
    r"""Returns an empty map: white sea, grey land."""
    flat = _flat(grid)
    if ax is None:
        ax = sheet(flat, 1, 1)[1][0, 0]
    sea = np.ones(flat.shape)
    if flat.mask is not None:
        sea[~flat.mask.numpy().reshape(flat.shape)] = np.nan
    drawn = draw(ax, flat, sea, (0.0, 1.0), "mean")
    drawn.set_cmap(ListedColormap(["w"]).with_extremes(bad=LAND))
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure, ax


def _flat(grid: Grid) -> Grid:
    r"""Returns the two axes of the map, at sea where the grid is at any time or level."""
    names = horizontal(grid.dims)
    axes: dict[str, Any] = {k: grid.axes[k] for k in names}
    mask = None
    if grid.mask is not None:
        mask = grid.mask.reshape(-1, *(len(v) for v in axes.values())).any(dim=0)
    return Grid(**axes, mask=mask, metric=grid.metric)


def _sites(grid: Grid, points: Points) -> tuple[np.ndarray, np.ndarray]:
    vertical, across = horizontal(grid.dims)
    s = branch(points.axis(across), grid, across)
    return points.axis(vertical).numpy(), s.numpy()


def _per_length(y: np.ndarray, sphere: bool) -> np.ndarray:
    r"""Returns how many units of the axes a unit of length is, at each site."""
    if not sphere:
        return np.ones((len(y), 2))
    degree = math.degrees(1 / EARTH_RADIUS)
    cosine = np.cos(np.deg2rad(y)).clip(min=1e-2)
    return np.stack([np.full(len(y), degree), degree / cosine], axis=-1)


def _factor(root: Tensor, y: np.ndarray, x: np.ndarray, sphere: bool) -> float:
    r"""Returns the factor that keeps ellipses apart: never more than one."""
    if len(y) < 2:
        return 1.0
    place = torch.as_tensor(np.stack([y, x], axis=-1) / _per_length(y, sphere))
    gaps = torch.cdist(place, place).fill_diagonal_(math.inf).min(dim=1).values
    largest = root.square().sum(dim=1).max(dim=-1).values.sqrt()
    return min(1.0, LARGEST_ELLIPSE * (gaps / largest).median().item())


def _placed(rim: Tensor, y: np.ndarray, x: np.ndarray, sphere: bool) -> np.ndarray:
    r"""Returns outlines on the map, with shape (m, k, 2), the abscissa first."""
    scale = _per_length(y, sphere)
    moved = rim.numpy() * scale[:, :, None] + np.stack([y, x], axis=-1)[:, :, None]
    return moved[:, ::-1].transpose(0, 2, 1)


def _circle(ax: Axes, grid: Grid, typical: float, shrunk: float, sphere: bool) -> None:
    r"""Draws a circle of a round size in a corner, and says how large it is."""
    size = _round(typical)
    vertical, across = (grid.axes[k] for k in horizontal(grid.dims))
    low = float(vertical[0] + 0.08 * (vertical[-1] - vertical[0]))
    left = float(across[0] + 0.1 * (across[-1] - across[0]))
    circle = torch.as_tensor(np.stack([np.cos(TURN), np.sin(TURN)]))[None] * size * shrunk
    outline = _placed(circle, np.array([low]), np.array([left]), sphere)[0]
    ax.fill(*outline.T, facecolor="w", edgecolor="k", linewidth=1.2, zorder=5)
    text = f"{size:g} km" if sphere else f"{size:g}"
    ax.annotate(
        text,
        (float(outline[:, 0].max()), low),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
        bbox=LEGEND,
        zorder=5,
    )


def _round(value: float) -> float:
    r"""Returns the largest of 1, 2, 5, 10, 20... that is not over a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(k * power for k in (1, 2, 5) if k * power <= value * (1 + 1e-9))


def arrows(
    grid: Grid,
    points: Points,
    velocity: Float[Tensor, "m 2"],
    ax: Axes | None = None,
    *,
    title: str = "velocity",
    units: str = "m/s",
) -> Figure:
    r"""Draws an arrow at each site, coloured by its speed, and a key of known speed.

    Arguments:
        grid: The grid that frames the map, whose land is grey.
        points: The sites, with shape :math:`(m)`; times are ignored.
        velocity: The velocities in the order of the axes, (north, east) or (y, x).
        ax: Where to draw. A new figure by default.
        title: The title of the map.
        units: The units of the velocity.

    Raises:
        ValueError: If there is not one finite velocity per site.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> eastward = torch.tensor([0.0, 0.3]).expand(6, 2)
        >>> arrows(grid, grid.points, eastward).axes[0].get_title("left")
        'velocity'
    """
    v = velocity.detach().cpu().double()
    _check(points, v, (2,), "arrows")
    figure, ax = _canvas(grid, ax)
    speed = v.norm(dim=-1).numpy()
    fastest = float(np.quantile(speed, 0.95)) or 1.0
    limits = (0.0, float(speed.max()) or 1.0)
    y, x = _sites(grid, points)
    # directions are those of the map, whose axes have one scale; lengths are of its width
    drawn = ax.quiver(
        x, y, v[:, 1], v[:, 0], speed, cmap=cmocean.cm.speed, clim=limits, angles="uv",
        scale=14 * fastest, width=0.004, pivot="mid", edgecolor="0.3", linewidth=0.3,
    )  # fmt: skip
    key = _round(fastest)
    ax.quiverkey(
        drawn, 0.86, 1.035, key, f"{key:g} {units}".strip(), labelpos="E",
        fontproperties={"size": "small"},
    )  # fmt: skip
    ax.set_title(title, loc="left")
    colour_bar(figure, drawn, [ax], speed, f"speed [{units}]" if units else "speed")
    return figure


def parameters(
    grid: Grid,
    points: Points,
    fields: Mapping[str, Tensor],
    *,
    units: Mapping[str, str] | None = None,
) -> dict[str, Figure]:
    r"""Draws fields of parameters, each as its shape asks: maps, arrows or ellipses.

    Arguments:
        grid: The grid that frames the maps.
        points: The sites of vectors and matrices.
        fields: The fields by name: numbers with shape :math:`(n)` at the nodes of the grid,
            vectors :math:`(m, 2)` and matrices :math:`(m, 2, 2)` at the sites.
        units: Their units by name, for numbers and vectors.

    Returns:
        A figure by name.

    Raises:
        ValueError: If a field has another shape.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> made = parameters(grid, grid.points, {"velocity": torch.ones(6, 2)})
        >>> made["velocity"].axes[0].get_title("left")
        'velocity'
    """
    units = units or {}
    found = {}
    for name, values in fields.items():
        if values.ndim == 3:
            found[name] = ellipses(grid, points, values, title=name)
        elif values.ndim == 2:
            found[name] = arrows(grid, points, values, title=name, units=units.get(name, ""))
        else:
            found[name] = field(grid, values, title=name, units=units.get(name, ""), kind="std")
    return found
