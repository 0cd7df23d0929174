r"""Velocity fields: given, from a streamfunction, from sea surface height."""

from __future__ import annotations

__all__ = ["Given", "Streamfunction", "geostrophic"]

import math
import torch

from collections.abc import Sequence
from jaxtyping import Bool, Float
from torch import Tensor
from typing import Any

from .coordinates import Box, Nearest, space_axes
from .fields import ParameterField, Spline
from ...domain import EARTH_RADIUS, Grid, Points

GRAVITY = 9.80665
"""The standard acceleration of gravity, in m/s^2."""
ROTATION = 7.292115e-5
"""The rate of rotation of the Earth, in rad/s."""


class Given(ParameterField):
    r"""A field that is known, and not learned.

    On a grid it is interpolated linearly along every axis, time included; outside of the grid,
    and among land, it is that of the nearest edge or node. At points, it is that of the nearest.

    Arguments:
        domain: Where the field is known.
        values: The values, with shape :math:`(n)`, :math:`(n, d)` or :math:`(n, d, d)`; those of
            a velocity in the order of the axes, e.g. (lat, lon), in metres per day on the sphere.

    Raises:
        ValueError: If there is not one finite value per node.

    Example:
        >>> field = Given(Grid(x=[0.0, 2.0]), torch.tensor([[1.0], [3.0]]))
        >>> field(Points(x=[0.5, 7.0])).tolist()
        [[1.5], [3.0]]
    """

    values: Tensor

    def __init__(self, domain: Grid | Points, values: Tensor) -> None:
        super().__init__()
        values = torch.as_tensor(values, dtype=torch.float64)
        if values.ndim > 3 or values.shape[:1] != (len(domain),) or not values.isfinite().all():
            msg = (
                f"Given(values=...): expected finite values at {len(domain)} nodes, got shape "
                f"{tuple(values.shape)} with {int((~values.isfinite()).sum())} not finite. Give "
                "the nodes that are not masked, first."
            )
            raise ValueError(msg)
        self.domain, self.nearest = domain, Nearest(domain)
        self.register_buffer("values", values)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def forward(self, points: Points) -> Tensor:
        if not isinstance(self.domain, Grid):
            return self.values[self.nearest(points)]
        nodes, weights = self._inside(self.domain, points)
        tail = (1,) * len(self.shape)
        return (self.values[nodes] * weights.reshape(*weights.shape, *tail)).sum(dim=1)

    def _inside(self, grid: Grid, points: Points) -> tuple[Tensor, Tensor]:
        r"""Returns the corners of each point, once it is moved into the grid, and weights."""
        near = self.nearest(points)
        nodes, weights = near[:, None].repeat(1, 2 ** len(grid.dims)), self._first(points)
        moved = self.nearest.box.moved(points)
        sea = self._at_sea(grid, moved)
        if sea.any():
            nodes[sea], weights[sea] = grid.interpolation(moved[sea])
        return nodes, weights

    def _first(self, points: Points) -> Float[Tensor, "m k"]:
        weights = torch.zeros(len(points), 2 ** len(self.domain.dims), dtype=torch.float64)
        weights[:, 0] = 1.0
        return weights

    def _at_sea(self, grid: Grid, moved: Points) -> Bool[Tensor, " m"]:
        if grid.mask is None:
            return torch.ones(len(moved), dtype=torch.bool)
        axes: dict[str, Any] = grid.axes
        whole = Grid(metric=grid.metric, epoch=grid.epoch, **axes)
        nodes, weights = whole.interpolation(moved)
        return (weights * grid.mask[nodes]).sum(dim=1) > 1e-9


class Streamfunction(ParameterField):
    r"""A velocity without divergence, from a streamfunction of cubic B-splines.

    .. math:: m = \left( -\frac{\partial \psi}{\partial x}, \frac{\partial \psi}{\partial y}
        \right)

    in the order of the axes, (y, x) or (lat, lon). On the sphere the derivatives are per metre.
    Outside of the box of the domain the velocity is that of the nearest edge. The penalty is that
    of :class:`Spline`, on the coefficients of :math:`\psi`.

    Arguments:
        domain: The domain whose box to cover, with two axes of space.
        knots: The number of knots along each axis of space, or of time and space.
        scale: A typical velocity, in metres per day on the sphere.
        smoothness: The weight of the penalty.

    Raises:
        ValueError: If the domain has not two axes of space, or ``scale`` is not positive.

    Example:
        >>> grid = Grid(y=[0.0, 1.0, 2.0], x=[0.0, 1.0])
        >>> Streamfunction(grid, knots=4)(grid.points).shape
        torch.Size([6, 2])
    """

    def __init__(
        self,
        domain: Grid | Points,
        knots: int | Sequence[int] = 5,
        scale: float = 1.0,
        smoothness: float = 1.0,
    ) -> None:
        super().__init__()
        space = space_axes(domain)
        if len(space) != 2:
            msg = (
                f"Streamfunction(domain=...): expected two axes of space, got {space}. "
                "Use a Spline of vectors."
            )
            raise ValueError(msg)
        self.psi = Spline(domain, knots, 0.0, (1,), smoothness, scale)
        self.first = self.psi.box.dims.index(space[0])
        self.sphere = domain.metric == "sphere"
        # coefficients of order one give velocities of order scale, for one cell between knots
        self.cell = (self._metres(self.psi.box) / self._cells()).mean().item()

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def _cells(self) -> Float[Tensor, " two"]:
        knots = self.psi.knots[self.first :]
        return torch.tensor(knots, dtype=torch.float64).sub(1).clamp(min=1)

    def _metres(self, box: Box, lat: Tensor | None = None) -> Tensor:
        r"""Returns the widths of the box in units of length, at some latitudes on the sphere."""
        width = box.width[self.first :]
        if not self.sphere:
            return width
        if lat is None:
            lat = (box.lower + box.width / 2)[self.first]
        cos = torch.deg2rad(lat).cos().clamp(min=1e-3)  # the poles have no longitude
        return torch.stack([torch.ones_like(cos), cos], -1) * torch.deg2rad(width) * EARTH_RADIUS

    def values(self, points: Points) -> Float[Tensor, " m"]:
        r"""Returns the streamfunction :math:`\psi`, in squared lengths per day."""
        return self.psi.free(points)[:, 0] * self.psi.link.scale * self.cell

    def forward(self, points: Points) -> Tensor:
        size = self.psi.link.scale * self.cell
        slopes = [self.psi.combine(points, self.first + i)[:, 0] * size for i in range(2)]
        lat = self.psi.box.inside(points)[:, self.first] if self.sphere else None
        per_length = torch.stack(slopes, dim=-1) / self._metres(self.psi.box, lat)
        return torch.stack([-per_length[:, 1], per_length[:, 0]], dim=-1)

    def penalty(self) -> Float[Tensor, ""]:
        return self.psi.penalty()


def geostrophic(
    grid: Grid, ssh: Float[Tensor, "*batch n"], equator: float = 5.0
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    r"""Returns the velocity in balance with the slope of the sea surface.

    .. math:: u = -\frac{g}{f} \frac{\partial \eta}{\partial y}, \qquad
        v = \frac{g}{f} \frac{\partial \eta}{\partial x}, \qquad f = 2 \Omega \sin \phi

    Slopes are central differences, one-sided next to land and at edges. Within ``equator``
    degrees of the equator, where :math:`f` vanishes and the balance does not hold, both are
    tapered smoothly to zero.

    References:
        | Atmospheric and Oceanic Fluid Dynamics (Vallis, 2017)
        | https://doi.org/10.1017/9781107588417

    Arguments:
        grid: The grid, with axes ``lat`` and ``lon``, and perhaps time.
        ssh: The sea surface height :math:`\eta`, in metres.
        equator: The latitude, in degrees, below which the velocity is tapered.

    Returns:
        The velocities to the east and to the north, in m/s. An equation in days takes
        ``torch.stack([v, u], -1) * 86400``, in the order of the axes.

    Raises:
        ValueError: If the grid has no latitudes and longitudes.

    Example:
        >>> grid = Grid(lat=[30.0, 31.0, 32.0], lon=[0.0, 1.0])
        >>> u, v = geostrophic(grid, grid.points.axis("lat"))  # higher to the north
        >>> bool((u < 0).all()), v.abs().max().item()
        (True, 0.0)
    """
    if grid.metric != "sphere" or grid.dims[-2:] != ("lat", "lon"):
        msg = (
            f"geostrophic(grid=...): expected axes ending with 'lat' and 'lon', got {grid.dims}. "
            "Use a grid on the sphere."
        )
        raise ValueError(msg)
    eta, lat = grid.unflatten(ssh), grid.axes["lat"][:, None]
    metre = math.radians(1.0) * EARTH_RADIUS
    closed = Box(grid, ("lon",)).closed[0]
    north = _slope(eta, -2, grid.axes["lat"] * metre)
    east = _slope(eta, -1, grid.axes["lon"] * metre, 360.0 * metre if closed else None)
    east = east / torch.deg2rad(lat).cos().clamp(min=1e-9)
    s = (lat.abs() / equator).clamp(max=1.0)
    sine = torch.deg2rad(lat).sin()
    safe = torch.where(sine == 0, 1.0, sine)
    ratio = torch.where(sine == 0, 0.0, GRAVITY / (2 * ROTATION * safe)) * s**2 * (3 - 2 * s)
    return grid.flatten(-ratio * north), grid.flatten(ratio * east)


def _slope(f: Tensor, axis: int, x: Float[Tensor, " n"], turn: float | None = None) -> Tensor:
    r"""Returns the derivative, of second order inside, one-sided next to NaN and to edges."""
    if len(x) == 1:
        return torch.zeros_like(f)
    f, gap = f.movedim(axis, -1), x.diff()
    gap = torch.cat([gap, gap[-1:] if turn is None else (turn + x[0] - x[-1])[None]])
    ahead = (f.roll(-1, -1) - f) / gap
    if turn is None:
        ahead = torch.cat([ahead[..., :-1], torch.full_like(ahead[..., -1:], torch.nan)], dim=-1)
    behind, before = ahead.roll(1, -1), gap.roll(1)
    both = (ahead * before + behind * gap) / (gap + before)
    one = torch.where(ahead.isnan(), behind, ahead)
    slope = torch.where(both.isnan(), torch.where(one.isnan(), 0.0, one), both)
    return slope.movedim(-1, axis)
