r"""Scattered data on the nodes of a grid: their mean in each cell, and its error."""

from __future__ import annotations

__all__ = ["Cells", "to_cells"]

import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..domain import Grid, Points


@dataclass(frozen=True)
class Cells:
    r"""Data of the cells about the nodes of a grid, :math:`n` of them.

    Arguments:
        mean: Their mean; zero where there is none.
        count: Their number.
        noise_std: The standard deviation of the error of the mean; infinite where there is none.
        dropped: How many data are in no cell: beyond the grid, or on land.
    """

    mean: Float[Tensor, " n"]
    count: Int[Tensor, " n"]
    noise_std: Float[Tensor, " n"]
    dropped: int

    @property
    def mask(self) -> Bool[Tensor, " n"]:
        r"""Where there are data."""
        return self.count > 0


def to_cells(
    grid: Grid,
    points: Points,
    values: Float[Tensor, " m"],
    noise_std: float | Float[Tensor, " m"] = 0.0,
    correlation: float = 0.0,
) -> Cells:
    r"""Averages scattered data over the cells of a grid, which end half-way to the next node.

    With errors :math:`\sigma_i` of correlation :math:`\rho`, the mean of :math:`k` data has

    .. math:: \sigma^2 = \frac{1}{k^2} \Big( (1 - \rho) \sum_i \sigma_i^2
        + \rho \big( \sum_i \sigma_i \big)^2 \Big)

    the average of the errors for :math:`\rho = 1`. What the field does within a cell is not in it.

    Arguments:
        grid: The grid.
        points: Where and when the data are, with the axes of the grid.
        values: The data.
        noise_std: The standard deviation of their errors.
        correlation: The correlation :math:`\rho` of the errors in a cell, from 0 to 1.

    Raises:
        ValueError: If axes or sizes do not agree, values are not finite, or the correlation is not
            one.

    Example:
        >>> points = Points(x=[0.1, -0.2, 1.2, 9.0])
        >>> values = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)
        >>> cells = to_cells(Grid(x=[0.0, 1.0, 2.0]), points, values, noise_std=1.0)
        >>> cells.mean.tolist(), cells.count.tolist(), cells.dropped
        ([2.0, 5.0, 0.0], [2, 1, 0], 1)
    """
    std = torch.as_tensor(noise_std, dtype=torch.float64)
    _check(grid, points, values, std, correlation)
    cell, kept = _cell(grid, points)
    std = std.expand(len(values))[kept]

    def total(v: Tensor) -> Tensor:
        return torch.zeros(len(grid), dtype=torch.float64).index_add(0, cell, v)

    count = torch.bincount(cell, minlength=len(grid))
    own, shared = total(std.square()), total(std).square()
    variance = ((1 - correlation) * own + correlation * shared) / count.square()
    return Cells(
        total(values[kept].to(torch.float64)) / count.clamp(min=1),
        count,
        torch.where(count > 0, variance.sqrt(), torch.inf),
        len(values) - len(cell),
    )


def _check(grid: Grid, points: Points, values: Tensor, std: Tensor, correlation: float) -> None:
    if points.dims != grid.dims or points.metric != grid.metric:
        msg = (
            f"to_cells(points=...): expected axes {grid.dims} on the {grid.metric}, got "
            f"{points.dims} on the {points.metric}. Name them as the grid does."
        )
        raise ValueError(msg)
    m = len(points)
    fine = values.shape == (m,) and std.shape in {(), (m,)}
    if not fine or not values.isfinite().all() or not (std >= 0).all():
        msg = (
            f"to_cells(values=...): expected {m} finite values, and errors of zero or more, got "
            f"shapes {tuple(values.shape)} and {tuple(std.shape)}. Drop missing data."
        )
        raise ValueError(msg)
    if not 0 <= correlation <= 1:
        msg = (
            f"to_cells(correlation=...): expected a number from 0 to 1, got {correlation}. "
            "Use 0 for independent errors."
        )
        raise ValueError(msg)


def _cell(grid: Grid, points: Points) -> tuple[Int[Tensor, " k"], Bool[Tensor, " m"]]:
    r"""Returns the node whose cell holds each datum, and which data are in a cell."""
    points = points.since(grid.epoch)
    cell = torch.zeros(len(points), dtype=torch.long)
    kept = torch.ones(len(points), dtype=torch.bool)
    for name, axis in grid.axes.items():
        place, inside = _place(axis, points.axis(name), name == "lon" and grid.metric == "sphere")
        cell, kept = cell * len(axis) + place, kept & inside
    if grid.mask is not None:
        kept &= grid.mask[cell]
        cell = (grid.mask.cumsum(0) - 1)[cell]
    return cell[kept], kept


def _place(axis: Tensor, s: Tensor, turns: bool) -> tuple[Tensor, Tensor]:
    r"""Returns the nearest node of an axis, and whether it is within half a step."""
    edges = _edges(axis)
    if turns:
        s = edges[0] + torch.remainder(s - edges[0], 360.0)
    place = torch.searchsorted(edges, s.contiguous(), right=True) - 1
    inside = (place >= 0) & (place < len(axis))
    return place.clamp(0, len(axis) - 1), inside


def _edges(axis: Tensor) -> Float[Tensor, " k"]:
    if len(axis) == 1:  # nothing tells the width of a single node: half a unit to each side
        return torch.stack([axis[0] - 0.5, axis[0] + 0.5])
    middle = (axis[1:] + axis[:-1]) / 2
    first, last = 1.5 * axis[0] - 0.5 * axis[1], 1.5 * axis[-1] - 0.5 * axis[-2]
    return torch.cat([first[None], middle, last[None]])
