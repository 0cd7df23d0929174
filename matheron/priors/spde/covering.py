r"""Which lattice a prior lives on: wide enough for its domain, fine enough for its lengthscale."""

from __future__ import annotations

__all__ = ["check_resolution", "cover", "regular"]

import math
import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor
from typing import Any

from .discretization import Discretization
from .lattice import Lattice
from ...domain import EARTH_RADIUS, Grid, Points, nearest_turn

MOST_NODES = 1_000_000
FINENESS = (8.0, 5.0)
"""Nodes per lengthscale of an automatic lattice: the first that is not too many."""


def cover(
    where: str,
    domain: Grid | Points,
    lattice: Grid | Discretization | None,
    lengthscale: Float[Tensor, " d"],
    margin: float,
    cross: bool,
    interpolation: str = "linear",
) -> Discretization:
    r"""Returns the discretisation of a domain, with a margin of so many lengthscales.

    A grid is its own lattice; points get a regular one. A discretisation stays as it is.

    Raises:
        ValueError: If the margin is under one lengthscale, or the lattice has other axes than
            the domain, or would be too large.
    """
    if not 1 <= margin < math.inf:
        msg = (
            f"{where}(margin=...): expected one lengthscale or more, got {margin}. The variance "
            "is not flat near a closer boundary: give e.g. 2."
        )
        raise ValueError(msg)
    if isinstance(lattice, Discretization):
        _check_dims(where, domain, lattice.points)
        return lattice
    if lattice is None:
        lattice = domain if isinstance(domain, Grid) else regular(where, domain, lengthscale)
    _check_dims(where, domain, lattice.points)
    widths = [margin * l for l in lengthscale.tolist()]
    return Lattice(lattice, widths, cross=cross, interpolation=interpolation)


def _check_dims(where: str, domain: Grid | Points, points: Points) -> None:
    if domain.dims != points.dims or domain.metric != points.metric:
        msg = (
            f"{where}(lattice=...): expected axes {domain.dims} on the {domain.metric}, got "
            f"{points.dims} on the {points.metric}. Name the axes as those of the domain."
        )
        raise ValueError(msg)


def regular(where: str, points: Points, lengthscale: Float[Tensor, " d"]) -> Grid:
    r"""Returns a regular grid over some points, of eight nodes per lengthscale, or five.

    Example:
        >>> grid = regular("Example", Points(x=[0.0, 1.0]), torch.tensor([2.0]).double())
        >>> grid.axes["x"].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    for fineness in FINENESS:
        axes: dict[str, Any] = _regular_axes(points, lengthscale / fineness)
        count = math.prod(len(axis) for axis in axes.values())
        if count <= MOST_NODES:
            return Grid(**axes, metric=points.metric, epoch=points.epoch)
    msg = (
        f"{where}(lattice=...): expected at most {MOST_NODES} nodes to cover the points, got "
        f"{count}, five per lengthscale. Pass a coarser lattice=Grid(...) or a Mesh."
    )
    raise ValueError(msg)


def _regular_axes(points: Points, steps: Float[Tensor, " d"]) -> dict[str, Tensor]:
    sphere = points.metric == "sphere"
    axes = {}
    for name, step in zip(points.dims, steps.tolist(), strict=True):
        s = points.axis(name)
        if sphere and name in {"lat", "lon"}:
            step = step / (math.radians(1.0) * EARTH_RADIUS)
        if sphere and name == "lon":
            s = nearest_turn(s, points.center[1])
            step = min(step / max(points.axis("lat").deg2rad().cos().max().item(), 1e-2), 30.0)
        axes[name] = _even(s, step, sphere and name == "lon")
    return axes


def _even(s: Float[Tensor, " m"], step: float, turn: bool) -> Float[Tensor, " k"]:
    low, high = s.min().item(), s.max().item()
    count = max(math.ceil((high - low) / step - 1e-9), 1)
    if turn and high - low + step >= 360.0:  # the whole circle, whose ends are one place
        count = math.ceil(360.0 / step)
        return low + torch.arange(count, dtype=torch.float64) * (360.0 / count)
    if high == low:
        low, high, count = low - step, high + step, 2  # with a node where the points are
    axis = torch.linspace(low, high, count + 1, dtype=torch.float64)
    return axis - 360.0 * turn * (axis.max() > 360.0)


def check_resolution(
    where: str, lengthscale: Float[Tensor, "n d"], lattice: Discretization, dims: Sequence[str]
) -> None:
    r"""Checks that lengthscales are two steps of the lattice or more, as they mostly are."""
    ratio = (lengthscale / lattice.spacing)[~lattice.margin].median(dim=0).values
    worst = int(ratio.argmin())
    if ratio[worst] < 2 - 1e-6:
        msg = (
            f"{where}(lengthscale=...): expected two steps of the lattice or more, got "
            f"{ratio[worst].item():.3g} along {dims[worst]!r}. Pass a finer lattice=Grid(...)."
        )
        raise ValueError(msg)
