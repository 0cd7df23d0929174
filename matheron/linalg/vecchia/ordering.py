"""Max-min ordering of points in any dimension, coarse to fine."""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch

from jaxtyping import Float, Int
from torch import Tensor

from ..compiled import compiled

__all__ = ["along_curve", "maxmin_order", "stored_along_curve"]


@compiled
def morton(points, origin, extent):
    """Position of each point along a curve that keeps near points near."""
    n, dims = points.shape
    bits = min(20, 60 // dims)
    result = np.zeros(n, np.int64)
    for i in range(n):
        code = 0
        for d in range(min(dims, 60)):
            cell = int((points[i, d] - origin[d]) / extent * (2**bits - 1))
            for k in range(bits):
                code |= ((cell >> k) & 1) << (k * dims + d)
        result[i] = code
    return result


@compiled
def shuffle(order, first, last, state):
    """Shuffle a part of an order in place (Fisher-Yates, a linear congruence of 64 bits). Returns
    the new state.
    """
    for k in range(last - 1, first, -1):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        other = first + np.int64((state >> np.uint64(33)) % np.uint64(k - first + 1))
        order[k], order[other] = order[other], order[k]
    return state


@compiled
def near_selected(point, cell, strides, shifts, radius, mask, heads, following, points):
    """Whether a selected point of the cells around lies within the radius."""
    dims = len(point)
    key = 0
    for d in range(dims):
        key += cell[d] * strides[d]
    for shift in shifts:
        j = heads[(key + shift) & mask]
        while j >= 0:
            distance = 0.0
            for d in range(dims):
                distance += (points[j, d] - point[d]) ** 2
            if distance < radius * radius:
                return True
            j = following[j]
    return False


@compiled
def locate(point, origin, scale, cell):
    """Cell of a point."""
    for d in range(len(point)):
        cell[d] = int((point[d] - origin[d]) * scale)


@compiled
def insert(j, cell, strides, mask, heads, following):
    """Put a selected point in the bucket of its cell; cells that share a bucket only cost time."""
    key = 0
    for d in range(len(cell)):
        key += cell[d] * strides[d]
    following[j] = heads[key & mask]
    heads[key & mask] = j


@compiled
def around(strides):
    """Shifts to the cells around, the cell itself first; from four dimensions on they are too
    many, and it is alone.
    """
    dims = len(strides)
    shifts = np.zeros(3**dims if dims <= 3 else 1, np.int64)
    for code in range(len(shifts)):
        rest = code
        for d in range(dims):
            shifts[code] += (rest % 3 if rest % 3 < 2 else -1) * strides[d]
            rest //= 3
    return shifts


@compiled
def separated_levels(points, origin, extents, radius, first, levels, seed):
    """Order in which points, given along a curve, enter nets of halving squared radius."""
    n, dims = points.shape
    order = np.empty(n, np.int64)
    waiting = np.arange(n)
    waiting[first] = n - 1
    order[0] = first
    left = n - 1
    done = 1
    following = np.empty(n, np.int64)
    strides = np.empty(dims, np.int64)
    cell = np.empty(dims, np.int64)
    state = np.uint64(seed)
    for _ in range(levels):
        # The last few lie close to others: their order hardly matters, each level costs a pass.
        if 20 * left <= n:
            break
        radius *= 0.5**0.5
        size = 1024
        while size < 4 * done:
            size *= 2
        heads = np.empty(size, np.int64)
        heads[:] = -1
        strides[dims - 1] = 1
        for d in range(dims - 1, 0, -1):
            strides[d - 1] = strides[d] * (int(extents[d] / radius) + 3)
        shifts = around(strides)
        for q in range(done):
            locate(points[order[q]], origin, 1.0 / radius, cell)
            insert(order[q], cell, strides, size - 1, heads, following)
        kept = 0
        before = done
        for q in range(left):
            j = waiting[q]
            locate(points[j], origin, 1.0 / radius, cell)
            if near_selected(
                points[j], cell, strides, shifts, radius, size - 1, heads, following, points
            ):
                waiting[kept] = j
                kept += 1
            else:
                order[done] = j
                done += 1
                insert(j, cell, strides, size - 1, heads, following)
        state = shuffle(order, before, done, state)
        left = kept
    for q in range(left):
        order[done + q] = waiting[q]
    shuffle(order, done, n, state)
    return order


def maxmin_order(coords: Float[Tensor, "n d"], seed: int = 0) -> Int[Tensor, " n"]:
    r"""Approximate max-min ordering: each point is far from all before it, so that prefixes cover
    the domain ever more finely.

    Points enter nets of radii :math:`r_l = 2^{-l/2} r_0`: a point joins at the first level where
    no earlier point lies within
    :math:`r_l`. In :math:`O(n \log n)`, and deterministic.

    Arguments:
        coords: The coordinates, with shape :math:`(n, d)`.
        seed: The seed of the order within a level.

    Returns:
        The indices of the points in order, with shape :math:`(n)`.

    Raises:
        ValueError: If a coordinate is not finite.

    Example:
        >>> maxmin_order(torch.linspace(0, 1, 5, dtype=torch.float64).reshape(5, 1)).tolist()[0]
        2
    """
    points = np.ascontiguousarray(coords.detach().to("cpu", torch.float64).numpy())
    if not np.isfinite(points).all():
        row = int(np.argmax(~np.isfinite(points).all(1)))
        msg = (
            f"maxmin_order(coords=...): expected finite coordinates, got {points[row].tolist()} "
            f"at point {row}. Drop this point."
        )
        raise ValueError(msg)
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64)
    origin = points.min(0)
    extents = points.max(0) - origin
    widest = float(extents.max()) or 1.0
    curve = np.argsort(morton(points, origin, widest), kind="stable")
    along = np.ascontiguousarray(points[curve])
    first = int(np.argmin(((along - along.mean(0)) ** 2).sum(1)))
    levels = int(2 * np.log2(len(points))) + 4
    order = separated_levels(along, origin, extents, widest, first, levels, seed)
    return torch.as_tensor(curve[order])


def along_curve(coords: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    r"""Returns the points along a curve that keeps near points near (Morton's).

    Arrays stored so are read from the cache where neighbours are.

    Example:
        >>> along_curve(torch.tensor([[0.0], [9.0], [1.0]], dtype=torch.float64)).tolist()
        [0, 2, 1]
    """
    points = np.ascontiguousarray(coords.detach().numpy(), dtype=np.float64)
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.long)
    origin = points.min(axis=0)
    extent = max(float((points - origin).max()), 1e-300)
    return torch.as_tensor(np.argsort(morton(points, origin, extent), kind="stable"))


def stored_along_curve(
    order: Int[Tensor, " n"], table: Int[Tensor, "n m"], coords: Float[Tensor, "n d"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, "n m"]]:
    r"""Returns the same order and neighbours, stored along a curve: who looks at whom is kept.

    Arguments:
        order: The order of the points.
        table: Their neighbours in this order, -1 where absent.
        coords: Their coordinates in this order.

    Example:
        >>> x = torch.tensor([[0.0], [9.0], [1.0]], dtype=torch.float64)
        >>> order, table = stored_along_curve(torch.arange(3), torch.tensor([[-1], [0], [1]]), x)
        >>> order.tolist(), table.tolist()  # point 2, now second, looks at point 1, now third
        ([0, 2, 1], [[-1], [2], [0]])
    """
    places = along_curve(coords)
    rank = torch.empty(len(places) + 1, dtype=table.dtype)
    rank[places] = torch.arange(len(places), dtype=table.dtype)
    rank[-1] = -1  # where an absent neighbour, -1, finds itself
    return order[places], rank[table[places].long()]
