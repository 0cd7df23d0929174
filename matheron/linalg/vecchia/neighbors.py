"""Nearest earlier neighbours, exact, in any dimension, by a k-d tree that knows the earliest point
of each node.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch

from jaxtyping import Float, Int
from torch import Tensor

from ..compiled import compiled
from ..threads import chunked, in_threads

__all__ = ["previous_neighbors"]

LEAF = 12


@compiled
def partition(points, index, low, high, middle, d):
    """Reorder ``index[low:high]`` so that coordinate ``d`` is not larger before ``middle`` than
    after it.
    """
    a = low
    b = high - 1
    while a < b:
        pivot = points[index[(a + b) // 2], d]
        i = a
        j = b
        while i <= j:
            while points[index[i], d] < pivot:
                i += 1
            while points[index[j], d] > pivot:
                j -= 1
            if i <= j:
                index[i], index[j] = index[j], index[i]
                i += 1
                j -= 1
        if middle <= j:
            b = j
        elif middle >= i:
            a = i
        else:
            return


@compiled
def ascending(index, low, high):
    """Sort a few indices in place, by insertion."""
    for k in range(low + 1, high):
        j = index[k]
        q = k
        while q > low and index[q - 1] > j:
            index[q] = index[q - 1]
            q -= 1
        index[q] = j


@compiled
def grow(points, depth):
    """Balanced tree: order of the points by leaf, boxes and earliest point of the nodes ``1 ..
    2^(depth + 1) - 1``.
    """
    n, dims = points.shape
    nodes = 2 ** (depth + 1)
    index = np.arange(n)
    boxes = np.empty((nodes, 2, dims))
    earliest = np.empty(nodes, np.int64)
    bounds = np.empty((nodes, 2), np.int64)
    bounds[1, 0] = 0
    bounds[1, 1] = n
    for node in range(1, nodes):
        low, high = bounds[node]
        for d in range(dims):
            boxes[node, 0, d] = np.inf
            boxes[node, 1, d] = -np.inf
        earliest[node] = n
        for k in range(low, high):
            j = index[k]
            earliest[node] = min(earliest[node], j)
            for d in range(dims):
                boxes[node, 0, d] = min(boxes[node, 0, d], points[j, d])
                boxes[node, 1, d] = max(boxes[node, 1, d], points[j, d])
        if 2 * node + 1 < nodes:
            widest = 0
            for d in range(1, dims):
                if (
                    boxes[node, 1, d] - boxes[node, 0, d]
                    > boxes[node, 1, widest] - boxes[node, 0, widest]
                ):
                    widest = d
            middle = (low + high) // 2
            if high - low > 1:
                partition(points, index, low, high, middle, widest)
            bounds[2 * node, 0] = low
            bounds[2 * node, 1] = middle
            bounds[2 * node + 1, 0] = middle
            bounds[2 * node + 1, 1] = high
        else:
            ascending(index, low, high)
    return index, boxes, earliest, bounds


@compiled
def box_distance(point, box):
    """Squared distance of a point to a box."""
    result = 0.0
    for d in range(len(point)):
        gap = max(box[0, d] - point[d], point[d] - box[1, d])
        if gap > 0.0:
            result += gap * gap
    return result


@compiled
def search(
    i,
    point,
    size,
    leaves,
    index,
    sorted_points,
    boxes,
    earliest,
    bounds,
    distances,
    found,
    stack,
    reach,
):
    """Nearest ``size`` points earlier than ``i``, by distance and then by index. Returns their
    number.
    """
    dims = len(point)
    count = 0
    stack[0] = 1
    reach[0] = 0.0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if count == size and reach[top] > distances[size - 1]:
            continue
        while node < leaves:
            left = 2 * node
            right = left + 1
            a = box_distance(point, boxes[left]) if earliest[left] < i else np.inf
            b = box_distance(point, boxes[right]) if earliest[right] < i else np.inf
            near = left if a <= b else right
            far = max(a, b)
            if far < np.inf and (count < size or far <= distances[size - 1]):
                stack[top] = left + right - near
                reach[top] = far
                top += 1
            node = near
            if min(a, b) == np.inf or (count == size and min(a, b) > distances[size - 1]):
                node = 0
                break
        if node == 0:
            continue
        for k in range(bounds[node, 0], bounds[node, 1]):
            j = index[k]
            if j >= i:
                break
            distance = 0.0
            for d in range(dims):
                distance += (sorted_points[k, d] - point[d]) ** 2
            if count == size:
                if distance > distances[size - 1] or (
                    distance == distances[size - 1] and j > found[size - 1]
                ):
                    continue
                q = size - 1
            else:
                q = count
                count += 1
            while q > 0 and (
                distances[q - 1] > distance or (distances[q - 1] == distance and found[q - 1] > j)
            ):
                distances[q] = distances[q - 1]
                found[q] = found[q - 1]
                q -= 1
            distances[q] = distance
            found[q] = j
    return count


@compiled
def search_chunk(first, last, start, points, sorted_points, tree, depth, out):
    """Neighbours of the points ``first`` to ``last`` of the tree, which follow one another in
    space.
    """
    index, boxes, earliest, bounds = tree
    size = out.shape[1]
    distances = np.empty(size)
    found = np.empty(size, np.int64)
    stack = np.empty(depth + 2, np.int64)
    reach = np.empty(depth + 2)
    for k in range(first, last):
        i = index[k]
        if i < start:
            continue
        count = search(
            i,
            sorted_points[k],
            size,
            2**depth,
            index,
            sorted_points,
            boxes,
            earliest,
            bounds,
            distances,
            found,
            stack,
            reach,
        )
        for q in range(count):
            out[i - start, q] = found[q]


def previous_neighbors(
    coords: Float[Tensor, "n d"], size: int, start: int = 0
) -> Int[Tensor, "t m"]:
    r"""The ``size`` nearest of all earlier points, exact, for the points ``start`` to :math:`n -
    1`.

    Ties are broken by index, so that the table is unique. Earlier points that do not exist are -1,
    at the end of the row.

    Arguments:
        coords: The coordinates in order, with shape :math:`(n, d)`.
        size: The number :math:`m` of neighbours.
        start: The first point that needs neighbours.

    Returns:
        The table, nearest first, with shape :math:`(n - start, m)`.

    Raises:
        ValueError: If a coordinate is not finite, or ``size`` is not positive.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [0.4]], dtype=torch.float64)
        >>> previous_neighbors(x, 2).tolist()
        [[-1, -1], [0, -1], [0, 1]]
    """
    points = np.ascontiguousarray(coords.detach().to("cpu", torch.float64).numpy())
    if size < 1:
        msg = (
            f"previous_neighbors(size=...): expected a positive number, got {size}. Ask for 30 "
            "to start with."
        )
        raise ValueError(msg)
    if not np.isfinite(points).all():
        row = int(np.argmax(~np.isfinite(points).all(1)))
        msg = (
            "previous_neighbors(coords=...): expected finite coordinates, got "
            f"{points[row].tolist()} at point {row}. Drop this point."
        )
        raise ValueError(msg)
    n = len(points)
    out = np.full((max(0, n - start), size), -1, dtype=np.int32)
    if n > 1:
        depth = max(0, int(np.ceil(np.log2(n / LEAF))))
        tree = grow(points, depth)
        sorted_points = points[tree[0]]
        runs = chunked(n)
        in_threads(
            lambda k: search_chunk(*runs[k], start, points, sorted_points, tree, depth, out),
            len(runs),
        )
    return torch.as_tensor(out)
