r"""Covariances between the places that water parcels take at one time."""

from __future__ import annotations

__all__ = ["LagrangianProcess", "transported"]

import math
import torch

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

from .base import TrendedPrior
from .recentring import Recentring
from ..domain import EARTH_RADIUS, Grid, Points, nearest_turn
from ..kernels import Kernel

Velocity = Callable[[Points], Tensor]


def transported(
    points: Points, velocity: Velocity, time: float, step: float = 0.25
) -> Float[Tensor, "m d"]:
    r"""Returns where parcels are at a time, with the coordinates that they had at their own.

    .. math:: \frac{dX}{dt} = m(t, X), \qquad X(t_i) = s_i

    by the classical Runge-Kutta method of order four, all parcels at once, each with equal steps
    of its own between its time and the given one.

    Arguments:
        points: The parcels, with time and two axes of space, or one.
        velocity: The velocity at points, in the order of the axes of space, with shape
            :math:`(m, d - 1)`: in metres per day on the sphere, in units of the axes per day on
            the plane; e.g. a :class:`matheron.priors.spde.Given` field.
        time: The time, in days since the epoch of the points.
        step: The largest step, in days.

    Returns:
        The coordinates, with shape :math:`(m, d)`: the time of the points, the places at ``time``.

    Example:
        >>> eastward = lambda points: torch.full((len(points), 1), 2.0, dtype=torch.float64)
        >>> transported(Points(time=[0.0, 3.0], x=[5.0, 5.0]), eastward, time=1.0).tolist()
        [[0.0, 7.0], [3.0, 1.0]]
    """
    own = points.axis("time")
    span = time - own
    steps = math.ceil(span.abs().max().item() / step - 1e-9) if len(points) else 0
    x, h = points.coords, span / max(steps, 1)
    for k in range(steps):
        x = _runge_kutta(x, own + k * h, h, points, velocity)
    return torch.cat([own[:, None], x[:, 1:]], dim=-1)


def _runge_kutta(
    x: Float[Tensor, "m d"],
    t: Float[Tensor, " m"],
    h: Float[Tensor, " m"],
    like: Points,
    velocity: Velocity,
) -> Float[Tensor, "m d"]:
    def slope(shift: float, moved: Tensor) -> Tensor:
        at = torch.cat([(t + shift * h)[:, None], moved], dim=-1)
        return h[:, None] * _rate(at, like, velocity)

    s = x[:, 1:]
    a = slope(0.0, s)
    b = slope(0.5, s + a / 2)
    c = slope(0.5, s + b / 2)
    d = slope(1.0, s + c)
    return torch.cat([x[:, :1], s + (a + 2 * b + 2 * c + d) / 6], dim=-1)


def _rate(at: Float[Tensor, "m d"], like: Points, velocity: Velocity) -> Float[Tensor, "m e"]:
    r"""Returns the rate of change of the coordinates: degrees per day on the sphere."""
    if like.metric == "plane":
        return velocity(Points(at, like.dims, metric="plane", epoch=like.epoch))
    # no parcel crosses the pole; longitudes return to their branch, for the check of degrees
    lat = at[:, 1].clamp(-89.9, 89.9)
    lon = nearest_turn(at[:, 2])
    inside = torch.stack([at[:, 0], lat, lon], dim=-1)
    m = velocity(Points(inside, like.dims, metric="sphere", epoch=like.epoch))
    width = torch.stack([torch.ones_like(lat), torch.deg2rad(lat).cos()], dim=-1)
    return torch.rad2deg(m / (EARTH_RADIUS * width))


class LagrangianProcess(Recentring, TrendedPrior):
    r"""A Gaussian process that water carries: the covariance compares Lagrangian places.

    .. math:: \mathrm{Cov}(f(t, s), f(t', s')) = k(t - t', X(t, s) - X(t', s'))

    where :math:`X(t, s)` is the place, at the time of analysis, of the parcel that is at
    :math:`s` at time :math:`t`. Structures that a first guess of the flow carries stay alike for
    longer than at a fixed place, hence a longer scale in time than that of a plain OI: the idea
    of dynamic interpolation (DYMOST), whose first guess is a quasi-geostrophic flow. It is
    positive definite for every velocity, as a stationary kernel of moved coordinates.

    Far from the time of analysis trajectories part and so do the covariances. Through
    :class:`matheron.solvers.local.LocalKriging` each window is analysed about its own middle; by
    itself it is one law about ``time``.

    References:
        | Dynamic interpolation of sea surface height and potential applications for future
        | high-resolution altimetry mapping (Ubelmann, Klein and Fu, 2015)
        | https://doi.org/10.1175/JTECH-D-14-00152.1
        | Dynamic mapping of along-track ocean altimetry: performance from real observations
        | (Ballarotta et al., 2020), https://doi.org/10.1175/JTECH-D-20-0030.1

    Arguments:
        kernel: A stationary kernel of time and of space.
        domain: The domain, with time.
        velocity: The velocity field, a module that takes points, as in :func:`transported`.
        time: The time of analysis, in days since the epoch; the middle of the domain by default.
        step: The largest step of a trajectory, in days.
        mean: The known mean, in the units of the field.
        trend: The unknown trend.

    Raises:
        ValueError: If the domain has no time, the kernel does not fit it, or the velocity has
            another number of components.

    Example:
        >>> import matheron as mt
        >>> from matheron.priors.spde import Given
        >>> grid = Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0])
        >>> east = Given(Grid(x=[0.0, 2.0]), torch.ones(2, 1))  # one unit a day
        >>> prior = LagrangianProcess(mt.Gaussian(1.0, (50.0, 0.5)), grid, east)
        >>> a, b = Points(time=[0.0], x=[0.5]), Points(time=[1.0], x=[1.5])
        >>> round(prior.covariance(a, b).item(), 3)  # the same water
        1.0
    """

    def __init__(
        self,
        kernel: Kernel,
        domain: Grid | Points,
        velocity: torch.nn.Module,
        time: float | None = None,
        step: float = 0.25,
        mean: float = 0.0,
        trend: str | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.domain, self.velocity = kernel, domain, velocity
        if "time" not in domain.dims or not step > 0:
            msg = (
                f"LagrangianProcess(domain=..., step={step}): expected a domain with time and a "
                f"positive step, got axes {domain.dims}. Name the axis of time 'time'."
            )
            raise ValueError(msg)
        self.center = domain.center if domain.metric == "sphere" else (0.0, 0.0)
        t = domain.points.axis("time")
        self.time = ((t.min() + t.max()) / 2).item() if time is None else float(time)
        self.step = step
        found = tuple(velocity(domain.points[:1]).shape)
        if found != (1, len(domain.dims) - 1):
            msg = (
                f"LagrangianProcess(velocity=...): expected {len(domain.dims) - 1} components at "
                f"each point, one per axis of space, got shape {found}. Stack them, e.g. "
                "torch.stack([v, u], -1) * 86400."
            )
            raise ValueError(msg)
        self._set_trend(mean, trend)

    def at(self, time: float) -> LagrangianProcess:
        r"""Returns the same law (its modules are shared) about another time of analysis."""
        return self._like(self.domain, time)

    def on(self, domain: Grid | Points) -> LagrangianProcess:
        r"""Returns the same law (its modules are shared) on another domain."""
        return self._like(domain, self.time)

    def _like(self, domain: Grid | Points, time: float) -> LagrangianProcess:
        new = LagrangianProcess(self.kernel, domain, self.velocity, time, self.step, self.constant)
        new.center, new.trend, new.coefficients = self.center, self.trend, self.coefficients
        new.train(self.training)
        return new

    def coordinates(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns times, and the places of parcels at the time of analysis."""
        if points.dims != self.domain.dims or points.metric != self.domain.metric:
            msg = (
                f"LagrangianProcess(domain=...): expected points with dims {self.domain.dims} on "
                f"the {self.domain.metric}, got {points.dims} on the {points.metric}. "
                "Name the coordinates alike."
            )
            raise ValueError(msg)
        points = points.since(self.domain.epoch)
        away = points.axis("time") != self.time  # the others stay, to the bit
        coords = points.coords.clone()
        moved = transported(points[away], self.velocity, self.time, self.step)
        coords[away] = self._wrapped(moved)
        moved_points = Points(coords, points.dims, metric=points.metric, epoch=points.epoch)
        return moved_points.cartesian(self.center)

    def _wrapped(self, coords: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        if self.domain.metric != "sphere":
            return coords
        lon = nearest_turn(coords[:, 2])
        return torch.stack([coords[:, 0], coords[:, 1].clamp(-90.0, 90.0), lon], dim=-1)
