r"""Where a field lives: labelled grids and scattered points, on the plane or on the sphere.

Axis order is always ``(time, z, lat, lon)``, or ``(time, z, y, x)`` on the plane. Latitudes and
longitudes are in degrees, on either longitude branch; time is in days. Distances on the sphere
are chords, in metres: they keep every covariance positive definite and do not see the dateline.
"""

from __future__ import annotations

__all__ = ["EARTH_RADIUS", "Grid", "Points"]

import math
import numpy as np
import torch

from collections.abc import Mapping, Sequence
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree
from torch import Tensor
from typing import Any

EARTH_RADIUS = 6_371_008.8
"""The mean radius of the Earth, in metres (IUGG)."""

ORDER = ("time", "z", "depth", "lat", "y", "lon", "x")
ALIASES = {"latitude": "lat", "longitude": "lon"}


def days_since(values: np.ndarray, epoch: np.datetime64) -> np.ndarray:
    r"""Returns datetimes as days since ``epoch``, in float64."""
    return (values.astype("datetime64[ns]") - epoch) / np.timedelta64(1, "D")


def dates_of(days: np.ndarray | Tensor, epoch: np.datetime64) -> np.ndarray:
    r"""Returns days since ``epoch`` as datetimes, to the nanosecond: the way back.

    Example:
        >>> epoch = np.datetime64("2012-10-01", "ns")
        >>> dates_of(np.array([0.0, 1.5]), epoch).astype("datetime64[h]").tolist()[1].hour
        12
    """
    return epoch + (np.asarray(days) * 86400e9).round().astype("timedelta64[ns]")


def nearest_turn(
    lon: Float[Tensor, "*shape"], middle: float | Float[Tensor, ""] = 0.0
) -> Float[Tensor, "*shape"]:
    r"""Returns longitudes on the branch about a middle: from 180 degrees west of it on.

    Example:
        >>> nearest_turn(torch.tensor([359.0, 181.0]), middle=10.0).tolist()
        [-1.0, 181.0]
    """
    return middle + torch.remainder(lon - middle + 180.0, 360.0) - 180.0


def _is_datetime(values: Any) -> bool:
    return np.issubdtype(np.asarray(values).dtype, np.datetime64)


def _coordinate(where: str, name: str, values: Any, epoch: np.datetime64 | None) -> Tensor:
    if not torch.is_tensor(values):
        values = np.asarray(values)
        if np.issubdtype(values.dtype, np.datetime64):
            if np.isnat(values).any():
                msg = (
                    f"{where}({name}=...): expected finite coordinates, got "
                    f"{int(np.isnat(values).sum())} missing dates. Drop them first."
                )
                raise ValueError(msg)
            values = days_since(values, epoch or values.ravel()[0])
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
            msg = (
                f"{where}({name}=...): expected numbers or datetimes, got {values.dtype}. "
                "Convert the column first."
            )
            raise ValueError(msg)
        values = torch.as_tensor(np.array(values, dtype=np.float64))
    values = values.to(torch.float64)
    if values.ndim != 1 or values.numel() == 0:
        msg = (
            f"{where}({name}=...): expected a vector with at least one value, got shape "
            f"{tuple(values.shape)}. Pass one coordinate per axis."
        )
        raise ValueError(msg)
    _check_values(where, name, values)
    return values


def _check_values(where: str, name: str, values: Tensor) -> None:
    bad = ~values.isfinite()
    if bad.any():
        msg = (
            f"{where}({name}=...): expected finite coordinates, got {int(bad.sum())} NaN or Inf "
            f"among {values.numel()}. Drop those points first."
        )
        raise ValueError(msg)
    limit = {"lat": 90.0, "lon": 360.0}.get(name)
    if limit is not None and values.abs().max() > limit + 1e-9:
        msg = (
            f"{where}({name}=...): expected degrees within +-{limit:.0f}, got "
            f"{values[values.abs().argmax()].item():.6g}. Check the units, and that lat and lon "
            "are not swapped."
        )
        raise ValueError(msg)


def _canonical(axes: Mapping[str, Any]) -> dict[str, Any]:
    named = {ALIASES.get(k, k): v for k, v in axes.items()}
    if len(named) < len(axes):
        msg = f"Grid or Points(...): expected each axis once, got {', '.join(axes)}. Drop one."
        raise ValueError(msg)
    known = sorted((k for k in named if k in ORDER), key=ORDER.index)
    others = [k for k in named if k not in ORDER]
    head = [k for k in known if k == "time"]
    return {k: named[k] for k in head + others + [k for k in known if k != "time"]}


def _metric(where: str, dims: Sequence[str], metric: str | None) -> str:
    on_sphere = "lat" in dims and "lon" in dims
    if metric not in {None, "plane", "sphere"}:
        msg = f"{where}(metric=...): expected 'plane' or 'sphere', got {metric!r}. Choose one."
        raise ValueError(msg)
    if metric == "sphere" and not on_sphere:
        msg = (
            f"{where}(metric='sphere'): expected axes 'lat' and 'lon', got {tuple(dims)}. "
            "Name the axes lat and lon, or use metric='plane'."
        )
        raise ValueError(msg)
    return metric or ("sphere" if on_sphere else "plane")


class Points:
    r"""A cloud of :math:`m` sites.

    Arguments:
        coords: The coordinates, with shape :math:`(m, d)`; or pass one vector per axis by name.
        dims: The name of each column of ``coords``.
        metric: ``"sphere"`` or ``"plane"``. By default the sphere where ``lat`` and ``lon`` are.
        epoch: The date of ``time = 0``; taken from the first date where ``time`` holds datetimes.
        covariates: External variables known at every site, for a trend, each with shape
            :math:`(m)`.
        axes: The coordinates by name: degrees for ``lat`` and ``lon``, days or datetimes for
            ``time``.

    Raises:
        ValueError: If coordinates are missing, not finite, of unequal lengths or not in degrees.

    Example:
        >>> points = Points(lat=[43.0, 44.0], lon=[359.0, 1.0])
        >>> len(points), points.dims, points.metric
        (2, ('lat', 'lon'), 'sphere')
    """

    def __init__(
        self,
        coords: Float[Tensor, "m d"] | None = None,
        dims: Sequence[str] | None = None,
        *,
        metric: str | None = None,
        epoch: np.datetime64 | None = None,
        covariates: Mapping[str, ArrayLike | Tensor] | None = None,
        **axes: ArrayLike | Tensor,
    ) -> None:
        named: dict[str, Any] = axes if coords is None else self._columns(coords, dims)
        if not named:
            msg = "Points(...): expected at least one coordinate, got none. Pass e.g. x=..., y=..."
            raise ValueError(msg)
        named = _canonical(named)
        self.epoch = _epoch(named, epoch)
        columns = {k: _coordinate("Points", k, v, self.epoch) for k, v in named.items()}
        sizes = {k: len(v) for k, v in columns.items()}
        if len(set(sizes.values())) > 1:
            msg = (
                f"Points(...): expected coordinates of equal length, got {sizes}. "
                "Give one value per site on every axis."
            )
            raise ValueError(msg)
        self.dims = tuple(columns)
        self.coords = torch.stack(list(columns.values()), dim=-1)
        self.metric = _metric("Points", self.dims, metric)
        self.covariates = {
            k: _covariate("Points", k, v, len(self)) for k, v in (covariates or {}).items()
        }

    @staticmethod
    def _columns(coords: Tensor, dims: Sequence[str] | None) -> dict[str, Tensor]:
        if dims is None or coords.ndim != 2 or len(dims) != coords.shape[1]:
            msg = (
                f"Points(dims=...): expected one name per column of coords {tuple(coords.shape)}, "
                f"got {dims}. Name the columns, e.g. dims=('y', 'x')."
            )
            raise ValueError(msg)
        return dict(zip(dims, coords.unbind(dim=-1), strict=True))

    def __len__(self) -> int:
        return self.coords.shape[0]

    def __repr__(self) -> str:
        return f"Points({len(self)} sites, dims={self.dims}, metric={self.metric!r})"

    def __getitem__(self, index: Int[Tensor, " k"] | Bool[Tensor, " m"] | slice) -> Points:
        r"""Returns the chosen sites, in the order of ``index``."""
        return self._with(
            self.coords[index], {k: v[index] for k, v in self.covariates.items()}, self.epoch
        )

    def _with(
        self, coords: Tensor, covariates: Mapping[str, Tensor], epoch: np.datetime64 | None
    ) -> Points:
        new = object.__new__(Points)
        new.coords, new.dims, new.metric = coords, self.dims, self.metric
        new.epoch, new.covariates = epoch, dict(covariates)
        return new

    @property
    def points(self) -> Points:
        r"""The sites themselves, so that points and grids can be asked alike."""
        return self

    @property
    def mask(self) -> None:
        r"""No site is masked."""
        return

    def axis(self, name: str) -> Float[Tensor, " m"]:
        r"""Returns one coordinate by name."""
        if name not in self.dims:
            msg = (
                f"Points.axis(name={name!r}): expected one of {self.dims}, got {name!r}. "
                "Name an axis of these points."
            )
            raise ValueError(msg)
        return self.coords[:, self.dims.index(name)]

    def since(self, epoch: np.datetime64 | None) -> Points:
        r"""Returns the same sites with time counted from another epoch."""
        if self.epoch == epoch or "time" not in self.dims:
            return self
        if self.epoch is None or epoch is None:
            msg = (
                f"Points(epoch=...): expected dates on both sides or on neither, got epoch "
                f"{self.epoch} to compare with {epoch}. Pass datetimes, or epoch=..., on both "
                "sides."
            )
            raise ValueError(msg)
        shift = torch.zeros(len(self.dims), dtype=torch.float64)
        shift[self.dims.index("time")] = float((self.epoch - epoch) / np.timedelta64(1, "D"))
        return self._with(self.coords + shift, self.covariates, epoch)

    @property
    def center(self) -> tuple[float, float]:
        r"""The latitude and longitude, in degrees, of the middle of the sites on the sphere."""
        return _center(self.axis("lat"), self.axis("lon"))

    def cartesian(self, center: tuple[float, float] = (0.0, 0.0)) -> Float[Tensor, "m k"]:
        r"""Returns coordinates whose Euclidean distance is the distance between sites.

        On the plane these are the coordinates. On the sphere, ``(lat, lon)`` becomes
        ``(north, east, up)`` in metres, in the tangent frame at ``center``, so that
        :math:`k = d + 1` and the distance is the chord.

        Example:
            >>> poles = Points(lat=[90.0, -90.0], lon=[0.0, 0.0]).cartesian()
            >>> round((poles[0] - poles[1]).norm().item() / EARTH_RADIUS, 6)
            2.0
        """
        if self.metric == "plane":
            return self.coords
        others = [self.axis(k) for k in self.dims if k not in {"lat", "lon"}]
        frame = _tangent_frame(self.axis("lat"), self.axis("lon"), center)
        return torch.stack([*others, *frame], dim=-1)

    def local(self) -> Float[Tensor, "m k"]:
        r"""Returns Cartesian coordinates about the middle of the sites themselves."""
        return self.cartesian(self.center if self.metric == "sphere" else (0.0, 0.0))

    @classmethod
    def join(cls, *clouds: Points) -> Points:
        r"""Returns the sites of several clouds, one after the other."""
        first = clouds[0]
        if any(c.dims != first.dims or c.metric != first.metric for c in clouds):
            msg = (
                "Points.join(...): expected clouds with the same dims and metric, got "
                f"{[(c.dims, c.metric) for c in clouds]}. Convert them first."
            )
            raise ValueError(msg)
        clouds = tuple(c.since(first.epoch) for c in clouds)
        shared = set.intersection(*(set(c.covariates) for c in clouds))
        covariates = {k: torch.cat([c.covariates[k] for c in clouds]) for k in sorted(shared)}
        return first._with(torch.cat([c.coords for c in clouds]), covariates, first.epoch)

    def nearest_distance(self, data: Points) -> Float[Tensor, " m"]:
        r"""Returns the distance from each site to the nearest datum, over the space axes.

        In metres on the sphere, in the units of the axes on the plane. Time is left out.

        Example:
            >>> Points(x=[0.0, 3.0]).nearest_distance(Points(x=[1.0, 9.0]))
            tensor([1., 2.], dtype=torch.float64)
        """
        start = 1 if "time" in self.dims else 0
        a, b = self.cartesian()[:, start:], data.cartesian()[:, start:]
        return torch.as_tensor(cKDTree(b.numpy()).query(a.numpy())[0])


class Grid:
    r"""A lattice with named axes, e.g. ``Grid(time=days, lat=lat, lon=lon)``.

    A state on the grid is a flat vector with shape :math:`(*, n)`, where :math:`n` counts the
    nodes that are not masked; the grid knows its shape and its metric.

    Arguments:
        mask: Where the field exists (``True`` is sea), with the shape of the grid, or of its
            last axes.
        metric: ``"sphere"`` or ``"plane"``. By default the sphere where ``lat`` and ``lon`` are.
        epoch: The date of ``time = 0``; taken from the first date where ``time`` holds datetimes.
        covariates: External variables on every node, for a trend, with the shape of the grid.
        axes: The coordinates by name, strictly increasing.

    Raises:
        ValueError: If an axis is not strictly increasing or not finite, or if no node is left.

    Example:
        >>> grid = Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> grid.dims, grid.shape, len(grid)
        (('lat', 'lon'), (2, 3), 6)
    """

    def __init__(
        self,
        *,
        mask: ArrayLike | Tensor | None = None,
        metric: str | None = None,
        epoch: np.datetime64 | None = None,
        covariates: Mapping[str, ArrayLike | Tensor] | None = None,
        **axes: ArrayLike | Tensor,
    ) -> None:
        if not axes:
            msg = "Grid(...): expected at least one axis, got none. Pass e.g. lat=..., lon=..."
            raise ValueError(msg)
        axes = _canonical(axes)
        self.epoch = _epoch(axes, epoch)
        self.axes = {k: _coordinate("Grid", k, v, self.epoch) for k, v in axes.items()}
        for name, axis in self.axes.items():
            _check_increasing(name, axis)
        self.dims = tuple(self.axes)
        self.metric = _metric("Grid", self.dims, metric)
        self.mask = self._mask(mask)
        self.covariates = {k: self._on_nodes(k, v) for k, v in (covariates or {}).items()}

    def _on_nodes(self, name: str, values: Any) -> Tensor:
        size = math.prod(self.shape)
        values = _covariate("Grid", name, torch.as_tensor(values).reshape(-1), size, self.mask)
        return values if self.mask is None else values[self.mask]

    def _mask(self, mask: ArrayLike | Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        m = torch.as_tensor(np.array(mask) if not torch.is_tensor(mask) else mask)
        if m.dtype != torch.bool:
            msg = (
                f"Grid(mask=...): expected booleans (True is sea), got {m.dtype}. "
                "Compare first, e.g. mask == 1."
            )
            raise ValueError(msg)
        if m.ndim > len(self.shape) or m.shape != self.shape[len(self.shape) - m.ndim :]:
            msg = (
                f"Grid(mask=...): expected shape {self.shape} or its last axes, got "
                f"{tuple(m.shape)}. Transpose it."
            )
            raise ValueError(msg)
        if not m.any():
            msg = (
                "Grid(mask=...): expected some sea, got a mask that is False everywhere. "
                "Invert it."
            )
            raise ValueError(msg)
        return None if m.all() else m.expand(self.shape).flatten()

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The number of nodes on each axis."""
        return tuple(len(axis) for axis in self.axes.values())

    def __len__(self) -> int:
        return math.prod(self.shape) if self.mask is None else int(self.mask.sum())

    def __repr__(self) -> str:
        sizes = ", ".join(f"{k}: {len(v)}" for k, v in self.axes.items())
        return f"Grid({sizes}, metric={self.metric!r})"

    @property
    def points(self) -> Points:
        r"""The nodes that are not masked, in the order of the state."""
        mesh = torch.meshgrid(*self.axes.values(), indexing="ij")
        coords = torch.stack([c.flatten() for c in mesh], dim=-1)
        coords = coords if self.mask is None else coords[self.mask]
        return Points(
            coords, self.dims, metric=self.metric, epoch=self.epoch, covariates=self.covariates
        )

    @property
    def center(self) -> tuple[float, float]:
        r"""The latitude and longitude, in degrees, of the middle of the grid on the sphere."""
        lat, lon = torch.meshgrid(self.axes["lat"], self.axes["lon"], indexing="ij")
        return _center(lat.flatten(), lon.flatten())

    def unflatten(self, x: Float[Tensor, "*batch n"]) -> Tensor:
        r"""Returns a state with the shape of the grid, and NaN where it is masked."""
        if x.shape[-1:] != (len(self),):
            msg = (
                f"Grid.unflatten(x=...): expected states of {len(self)} nodes, got shape "
                f"{tuple(x.shape)}. Give the nodes that are not masked, last."
            )
            raise ValueError(msg)
        if self.mask is not None:
            full = x.new_full((*x.shape[:-1], math.prod(self.shape)), torch.nan)
            full[..., self.mask] = x
            x = full
        return x.unflatten(-1, self.shape)

    def flatten(self, field: Tensor) -> Shaped[Tensor, "*batch n"]:
        r"""Returns the state of a field that has the shape of the grid."""
        if field.shape[max(field.ndim - len(self.shape), 0) :] != self.shape:
            msg = (
                f"Grid.flatten(field=...): expected the last axes {self.shape}, got shape "
                f"{tuple(field.shape)}. Transpose it, with the axes in the order {self.dims}."
            )
            raise ValueError(msg)
        x = field.flatten(-len(self.shape))
        return x if self.mask is None else x[..., self.mask]

    def interpolation(self, points: Points) -> tuple[Int[Tensor, "m k"], Float[Tensor, "m k"]]:
        r"""Returns the nodes around each point and their multilinear weights.

        With :math:`d` axes each point has :math:`k = 2^d` corners, whose weights sum to one.
        Corners on land take no weight: the others are scaled to sum to one.

        Raises:
            ValueError: If points fall outside an axis, or among land only.

        Example:
            >>> nodes, weights = Grid(x=[0.0, 1.0, 3.0]).interpolation(Points(x=[2.5]))
            >>> nodes.tolist(), weights.tolist()
            ([[1, 2]], [[0.25, 0.75]])
        """
        if points.dims != self.dims:
            msg = (
                f"Grid.interpolation(points=...): expected points with dims {self.dims}, got "
                f"{points.dims}. Name the coordinates alike."
            )
            raise ValueError(msg)
        points = points.since(self.epoch)
        nodes = torch.zeros(len(points), 1, dtype=torch.long)
        weights = torch.ones(len(points), 1, dtype=torch.float64)
        for name, axis in self.axes.items():
            lower, upper, w = _bracket(name, axis, points.axis(name), self.metric)
            nodes = (nodes * len(axis))[..., None] + torch.stack([lower, upper], -1)[:, None]
            weights = weights[..., None] * torch.stack([1 - w, w], -1)[:, None]
            nodes, weights = nodes.flatten(1), weights.flatten(1)
        return (nodes, weights) if self.mask is None else self._off_land(nodes, weights)

    def _off_land(self, nodes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        assert self.mask is not None
        rank = self.mask.cumsum(0) - 1
        weights = weights * self.mask[nodes]
        total = weights.sum(dim=-1, keepdim=True)
        if (total <= 1e-9).any():
            msg = (
                f"Grid.interpolation(points=...): expected points at sea, got "
                f"{int((total <= 1e-9).sum())} of {len(total)} among masked nodes only. Drop them."
            )
            raise ValueError(msg)
        return rank[nodes].clamp(min=0), weights / total


def _epoch(axes: Mapping[str, Any], epoch: np.datetime64 | None) -> np.datetime64 | None:
    time = axes.get("time")
    if epoch is not None or time is None or torch.is_tensor(time) or not _is_datetime(time):
        return None if epoch is None else epoch.astype("datetime64[ns]")
    dates = np.asarray(time).astype("datetime64[D]")
    valid = dates[~np.isnat(dates)]
    return valid.min().astype("datetime64[ns]") if valid.size else None


def _covariate(
    where: str, name: str, values: Any, size: int, mask: Tensor | None = None
) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64)
    used = values if mask is None or values.shape != mask.shape else values[mask]
    if values.shape != (size,) or not used.isfinite().all():
        msg = (
            f"{where}(covariates={name!r}): expected {size} finite values, got shape "
            f"{tuple(values.shape)} with {int((~used.isfinite()).sum())} not finite. "
            "Fill or drop them first."
        )
        raise ValueError(msg)
    return values


def _check_increasing(name: str, axis: Tensor) -> None:
    if not (axis.diff() > 0).all():
        shown = [round(v, 6) for v in axis[:4].tolist()]
        msg = (
            f"Grid({name}=...): expected strictly increasing coordinates, got {shown}... "
            f"Sort the axis, e.g. ds.sortby('{name}')."
        )
        raise ValueError(msg)
    if name == "lon" and axis[-1] - axis[0] > 360 + 1e-9:
        msg = (
            f"Grid(lon=...): expected at most one turn, got {axis[0]:.6g} to {axis[-1]:.6g}. "
            "Cut the axis at 360 degrees."
        )
        raise ValueError(msg)


def _center(lat: Tensor, lon: Tensor) -> tuple[float, float]:
    lat, lon = lat.deg2rad(), lon.deg2rad()
    x, y, z = lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()
    east, north, up = (c.mean().item() for c in (x, y, z))
    if math.hypot(east, north, up) < 1e-6:  # the whole globe: no middle, any frame will do
        return (0.0, 0.0)
    reach = math.hypot(east, north)
    return (math.degrees(math.atan2(up, reach)), math.degrees(math.atan2(north, east)))


def _tangent_frame(lat: Tensor, lon: Tensor, center: tuple[float, float]) -> list[Tensor]:
    r"""Returns the metres to the north, to the east and upwards of the tangent point."""
    # one site has one place: rounded to 1e-10 degree (10 micrometres), 359.1 is -0.9 to the bit
    lon = nearest_turn(lon).round(decimals=10)
    lat, east_of = lat.deg2rad(), (lon - center[1]).deg2rad()
    sin0, cos0 = math.sin(math.radians(center[0])), math.cos(math.radians(center[0]))
    along, east = lat.cos() * east_of.cos(), lat.cos() * east_of.sin()
    north = cos0 * lat.sin() - sin0 * along
    up = sin0 * lat.sin() + cos0 * along - 1
    return [EARTH_RADIUS * north, EARTH_RADIUS * east, EARTH_RADIUS * up]


def _bracket(name: str, axis: Tensor, s: Tensor, metric: str) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the two nodes around each coordinate and the weight of the upper one."""
    slack = 1e-9 * max(axis.abs().max().item(), 1.0)
    turn = name == "lon" and metric == "sphere"
    if turn:
        s = axis[0] + torch.remainder(s - axis[0] + slack, 360.0) - slack
    closed = turn and len(axis) > 1 and axis[0] + 360 - axis[-1] <= 1.5 * axis.diff().max()
    if closed:
        axis = torch.cat([axis, axis[:1] + 360])
    outside = (s < axis[0] - slack) | (s > axis[-1] + slack)
    if outside.any():
        msg = (
            f"Grid.interpolation(points=...): expected '{name}' within [{axis[0]:.6g}, "
            f"{axis[-1]:.6g}], got {int(outside.sum())} of {len(s)} points outside. "
            "Drop them or enlarge the grid."
        )
        raise ValueError(msg)
    if len(axis) == 1:
        zero = torch.zeros(len(s), dtype=torch.long)
        return zero, zero, s.new_zeros(len(s))
    s = s.clamp(axis[0], axis[-1])
    lower = (torch.searchsorted(axis, s, right=True) - 1).clamp(0, len(axis) - 2)
    upper = lower + 1
    w = (s - axis[lower]) / (axis[upper] - axis[lower])
    return lower, torch.where(upper == len(axis) - 1, 0, upper) if closed else upper, w
