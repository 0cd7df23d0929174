r"""Coordinates for parameter fields: a box, B-splines over it, the nearest node of a grid."""

from __future__ import annotations

__all__ = ["Box", "Nearest", "cubic_splines", "neighbour_differences", "space_axes"]

import math
import torch

from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from ...domain import Grid, Points, nearest_turn


def space_axes(domain: Grid | Points) -> tuple[str, ...]:
    r"""Returns the names of the axes other than time.

    Example:
        >>> space_axes(Grid(time=[0.0, 1.0], y=[0.0], x=[0.0]))
        ('y', 'x')
    """
    return tuple(name for name in domain.dims if name != "time")


def _closed(domain: Grid | Points, name: str) -> bool:
    r"""Returns whether an axis goes once around the globe."""
    if name != "lon" or domain.metric != "sphere":
        return False
    if isinstance(domain, Grid):
        axis = domain.axes["lon"]
        return len(axis) > 1 and bool(axis[0] + 360 - axis[-1] <= 1.5 * axis.diff().max())
    lon = (domain.axis("lon") % 360.0).sort().values
    return bool(torch.cat([lon, lon[:1] + 360.0]).diff().max() <= 15.0)


class Box:
    r"""The bounding box of a domain, over some of its axes, scaled to the unit cube.

    Longitudes are counted from the middle of the box, so that their branch does not matter; an
    axis that goes around the globe is ``closed``. Points outside are taken to the nearest edge.

    Arguments:
        domain: The domain.
        dims: The axes, in the order of the domain.

    Example:
        >>> box = Box(Points(x=[0.0, 4.0]), ("x",))
        >>> box(Points(x=[1.0, 9.0])).flatten().tolist()
        [0.25, 1.0]
    """

    def __init__(self, domain: Grid | Points, dims: tuple[str, ...]) -> None:
        self.dims, self.epoch, self.metric = dims, domain.epoch, domain.metric
        self.closed = tuple(_closed(domain, name) for name in dims)
        axes = (
            domain.axes
            if isinstance(domain, Grid)
            else dict(zip(domain.dims, domain.coords.unbind(dim=-1), strict=True))
        )
        self.middle = 0.0
        if "lon" in dims and self.metric == "sphere":
            ends = axes["lon"][[0, -1]].mean().item()
            self.middle = ends if isinstance(domain, Grid) else domain.center[1]
        spans = [self._range(axes[k], k, c) for k, c in zip(dims, self.closed, strict=True)]
        self.lower = torch.tensor([a for a, _ in spans], dtype=torch.float64)
        self.width = torch.tensor([(b - a) or 1.0 for a, b in spans], dtype=torch.float64)

    def _range(self, axis: Tensor, name: str, closed: bool) -> tuple[float, float]:
        if closed:
            return -180.0, 180.0
        axis = self._turned(axis, name)
        return axis.min().item(), axis.max().item()

    def _turned(self, s: Tensor, name: str) -> Tensor:
        if name != "lon" or self.metric != "sphere":
            return s
        return nearest_turn(s - self.middle)

    def __call__(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns the coordinates of some points, from 0 to 1 on each axis."""
        missing = [name for name in self.dims if name not in points.dims]
        if missing:
            msg = (
                f"ParameterField(points=...): expected points with axes {self.dims}, got "
                f"{points.dims}. Give them the axis {missing[0]!r}, or build the field without it."
            )
            raise ValueError(msg)
        if "time" in self.dims:
            points = points.since(self.epoch)
        s = torch.stack([self._turned(points.axis(k), k) for k in self.dims], dim=-1)
        return ((s - self.lower) / self.width).clamp(0.0, 1.0)

    def inside(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns the nearest places of the box, with longitudes from its middle."""
        return self(points) * self.width + self.lower

    def moved(self, points: Points) -> Points:
        r"""Returns the nearest places of the box, as points of its axes."""
        s = self.inside(points)
        if "lon" in self.dims and self.metric == "sphere":
            j = self.dims.index("lon")
            s[:, j] = nearest_turn(s[:, j] + self.middle)
        return Points(s, self.dims, metric=self.metric, epoch=self.epoch)


def cubic_splines(
    s: Float[Tensor, " m"], knots: int, closed: bool = False
) -> tuple[Int[Tensor, "m 4"], Float[Tensor, "m 4"], Float[Tensor, "m 4"]]:
    r"""Returns the uniform cubic B-splines that do not vanish, and their slopes.

    References:
        | A Practical Guide to Splines (de Boor, 2001)
        | https://link.springer.com/book/9780387953663

    Arguments:
        s: Coordinates between 0 and 1.
        knots: The number of knots, ends included; around a closed axis, the number of splines.
        closed: Whether 1 is 0 again.

    Returns:
        The numbers of the four splines, their values (which sum to one), their slopes. There are
        ``knots + 2`` splines on an open axis.

    Example:
        >>> number, value, _ = cubic_splines(torch.tensor([0.0, 1.0]).double(), 5)
        >>> number[:, 0].tolist(), number[:, -1].max().item()
        ([0, 3], 6)
    """
    cells = knots if closed else knots - 1
    place = s * cells
    cell = place.floor().clamp(0, cells - 1)
    u = place - cell
    v = 1 - u
    value = torch.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3], dim=-1)
    slope = torch.stack([-(v**2), 3 * u**2 - 4 * u, 4 * v - 3 * v**2, u**2], dim=-1)
    number = cell.long()[:, None] + torch.arange(4)
    return number % cells if closed else number, value / 6, slope * (cells / 2)


def neighbour_differences(
    c: Float[Tensor, "*axes k"], axis: int, order: int, closed: bool = False
) -> Tensor:
    r"""Returns the differences of coefficients along an axis, around it where it is closed."""
    for _ in range(order):
        c = c.roll(-1, axis) - c if closed else c.diff(dim=axis)
    return c


class Nearest:
    r"""Finds the nearest node of a domain, in steps of its axes.

    Time is left out where the domain has none. Masked nodes are never found.

    Example:
        >>> near = Nearest(Grid(x=[0.0, 1.0, 2.0], mask=[True, False, True]))
        >>> near(Points(x=[0.9, 7.0])).tolist()
        [0, 1]
    """

    def __init__(self, domain: Grid | Points) -> None:
        self.domain, self.dims = domain, domain.dims
        self.box = Box(domain, domain.dims)
        self.scale = self._scale()
        self.tree: cKDTree | None = None
        self.rank = torch.arange(math.prod(domain.shape)) if isinstance(domain, Grid) else None
        if domain.mask is not None:
            self.rank = torch.where(domain.mask, domain.mask.cumsum(0) - 1, -1)

    def _scale(self) -> Float[Tensor, " k"]:
        r"""The widths of the box, in steps of the axes (a cloud: in mean distances)."""
        if isinstance(self.domain, Grid):
            counts = [len(axis) - 1 for axis in self.domain.axes.values()]
            return torch.tensor(counts, dtype=torch.float64).clamp(min=1.0)
        width = self.box.width
        if self.box.metric == "sphere":
            stretch = {"lon": math.cos(math.radians(self.domain.center[0]))}
            width = width * torch.tensor([stretch.get(k, 1.0) for k in self.dims]).double()
        space = torch.tensor([k != "time" for k in self.dims])
        return torch.where(space, width / width[space].max(), 1.0)

    def __call__(self, points: Points) -> Int[Tensor, " m"]:
        r"""Returns the number of the nearest node of each point."""
        if not isinstance(self.domain, Grid):
            return self._search(points)
        index = torch.zeros(len(points), dtype=torch.long)
        s = self.box.inside(points)
        for j, (name, axis) in enumerate(self.domain.axes.items()):
            index = index * len(axis) + _nearest(self._axis(axis, name), s[:, j])
        assert self.rank is not None
        found = self.rank[index]
        land = found < 0
        if land.any():
            found = found.masked_scatter(land, self._search(points[land]))
        return found

    def _axis(self, axis: Tensor, name: str) -> Tensor:
        return axis - self.box.middle if name == "lon" and self.box.metric == "sphere" else axis

    def _search(self, points: Points) -> Int[Tensor, " m"]:
        if self.tree is None:
            self.tree = cKDTree((self.box(self.domain.points) * self.scale).numpy())
        return torch.as_tensor(self.tree.query((self.box(points) * self.scale).numpy())[1]).long()


def _nearest(axis: Float[Tensor, " n"], s: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    upper = torch.searchsorted(axis, s.contiguous()).clamp(0, len(axis) - 1)
    lower = (upper - 1).clamp(min=0)
    return torch.where((s - axis[lower]) <= (axis[upper] - s), lower, upper)
