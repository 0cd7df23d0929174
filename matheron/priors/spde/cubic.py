r"""Smooth interpolation between the nodes of a lattice."""

from __future__ import annotations

__all__ = ["cubic"]

import torch

from jaxtyping import Float, Int
from torch import Tensor

from ...domain import Grid, Points

Stencil = tuple[Int[Tensor, "m k"], Float[Tensor, "m k"]]
WIDTH = 4


def cubic(grid: Grid, points: Points, nodes: Tensor, weights: Tensor) -> Stencil:
    r"""Returns the nodes around each point and their weights: cubic, or linear beside land.

    Along each axis the weights are those of the polynomial through the four nodes nearest to the
    point, two on each side but at the ends. Halfway between nodes a wave of length
    :math:`\lambda` keeps :math:`1 - 3 (\pi h / \lambda)^4 / 8` of its height, where linear
    weights keep :math:`1 - (\pi h / \lambda)^2 / 2`: on 4 nodes a wave, 83 % instead of 71; on 8,
    98.9 instead of 92. A field that is smooth on the scale of the lattice keeps its variance.

    Arguments:
        grid: The nodes.
        points: The points, within the grid.
        nodes: The nodes around each point for linear weights.
        weights: The linear weights.

    Example:
        >>> grid, points = Grid(x=torch.arange(5.0)), Points(x=[1.5])
        >>> cubic(grid, points, *grid.interpolation(points))[1]
        tensor([[-0.0625,  0.5625,  0.5625, -0.0625]], dtype=torch.float64)
    """
    points = points.since(grid.epoch)
    found = torch.zeros(len(points), 1, dtype=torch.long)
    smooth = torch.ones(len(points), 1, dtype=torch.float64)
    for name, axis in grid.axes.items():
        turns = name == "lon" and grid.metric == "sphere"
        at, w = _along(axis, points.axis(name), turns)
        found = ((found * len(axis))[..., None] + at[:, None]).flatten(1)
        smooth = (smooth[..., None] * w[:, None]).flatten(1)
    if grid.mask is None:
        return found, smooth
    dry = ((smooth.abs() > 1e-9) & ~grid.mask[found]).any(dim=1, keepdim=True)
    rank = (grid.mask.cumsum(0) - 1)[found].clamp(min=0)
    short = smooth.shape[1] - weights.shape[1]
    pad = torch.nn.functional.pad
    return (
        torch.where(dry, pad(nodes, (0, short)), rank),
        torch.where(dry, pad(weights, (0, short)), smooth),
    )


def _along(axis: Float[Tensor, " n"], s: Float[Tensor, " m"], turns: bool) -> Stencil:
    r"""Returns the nodes of one axis and their weights."""
    n, index = len(axis), torch.arange(len(axis))
    if turns:
        slack = 1e-9 * max(axis.abs().max().item(), 1.0)
        s = axis[0] + torch.remainder(s - axis[0] + slack, 360.0) - slack
        if n > 2 and axis[0] + 360 - axis[-1] <= 1.5 * axis.diff().max():
            axis = torch.cat([axis[-1:] - 360, axis, axis[:2] + 360])
            index = torch.cat([index[-1:], index, index[:2]])
    width = min(WIDTH, len(axis))
    if width == 1:
        return torch.zeros(len(s), 1, dtype=torch.long), s.new_ones(len(s), 1)
    s = s.clamp(axis[0], axis[-1])
    first = torch.searchsorted(axis, s, right=True) - width // 2
    at = first.clamp(0, len(axis) - width)[:, None] + torch.arange(width)
    return index[at], _lagrange(axis[at], s)


def _lagrange(x: Float[Tensor, "m k"], s: Float[Tensor, " m"]) -> Float[Tensor, "m k"]:
    r"""Returns the weights of the polynomial through the nodes, at a point each."""
    k = x.shape[1]
    each = torch.eye(k, dtype=torch.bool)
    above = torch.where(each, 1.0, s[:, None, None] - x[:, None])
    below = torch.where(each, 1.0, x[:, :, None] - x[:, None])
    return (above / below).prod(dim=-1)
