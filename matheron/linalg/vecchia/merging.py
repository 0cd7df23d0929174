r"""Neighbours in several metrics at once, for covariances of several scales."""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

__all__ = ["joint_neighbors", "target_neighbors"]

import numpy as np
import torch

from collections.abc import Sequence
from jaxtyping import Float, Int
from torch import Tensor

from .neighbors import previous_neighbors
from ..compiled import compiled
from ..threads import chunked, in_threads


@compiled
def holds(row, count, j):
    """Tell whether ``j`` is among the first entries of a row."""
    q = 0
    while q < count and row[q] != j:
        q += 1
    return q < count


@compiled
def merge(tables, first, last, out):
    """Take the nearest of each table in turn, each neighbour once, until a row is full."""
    metrics, _, wide = tables.shape
    size = out.shape[1]
    for i in range(first, last):
        count = 0
        for k in range(wide):
            for t in range(metrics):
                j = tables[t, i, k]
                if j < 0 or count == size:
                    continue
                if not holds(out[i], count, j):
                    out[i, count] = j
                    count += 1


def joint_neighbors(
    metrics: Sequence[Float[Tensor, "n _"]], size: int, start: int = 0
) -> Int[Tensor, "t m"]:
    r"""Returns neighbours among earlier points, taken in turn from the nearest in each metric.

    A field of several scales is seen through several metrics: those near in one may be far in
    another, e.g. the data of one satellite pass and those of the pass a week later.

    Arguments:
        metrics: Coordinates of the points in each metric.
        size: The number of neighbours.
        start: The first point that needs neighbours.

    Returns:
        The table; absent ones are -1, at the end of a row.

    Example:
        >>> x = torch.tensor([[0.0, 5.0], [3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> joint_neighbors([x[:, :1], x[:, 1:]], 2)[2].tolist()  # nearest in x, then in y
        [0, 1]
    """
    if len(metrics) == 1:
        return previous_neighbors(metrics[0], size, start)
    tables = np.stack([previous_neighbors(x, size, start).numpy() for x in metrics])
    out = np.full(tables.shape[1:], -1, dtype=np.int32)
    runs = chunked(len(out))
    in_threads(lambda k: merge(tables, *runs[k], out), len(runs))
    return torch.as_tensor(out)


@compiled
def append(table, later, shift, first, last, out):
    """Copy rows of a table, and append the neighbours of another that they do not hold yet."""
    for i in range(first, last):
        count = 0
        for k in range(table.shape[1]):
            if table[i, k] >= 0:
                out[i, count] = table[i, k]
                count += 1
        held = count
        for k in range(later.shape[1]):
            j = later[i, k] + shift
            if j < shift:
                continue
            if not holds(out[i], held, j):
                out[i, count] = j
                count += 1


def target_neighbors(
    metrics: Sequence[Float[Tensor, "n _"]], size: int, start: int
) -> Int[Tensor, "t m"]:
    r"""Returns the neighbours of targets among data and earlier targets, some of each.

    Where noisy data are dense the nearest are all data, and targets would be drawn as if they had
    nothing to do with each other but through those. So ``size / 6`` earlier targets are appended
    to the ``size`` nearest: they carry what farther data told, without their noise.

    Arguments:
        metrics: Coordinates of the data, then of the targets, in each metric.
        size: The number of nearest neighbours.
        start: The number of data.

    Returns:
        The table; absent ones are -1, at the end of a row.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [0.2]], dtype=torch.float64)
        >>> target_neighbors([x], 1, start=2).tolist()  # two data, two targets
        [[1, -1], [1, 2]]
    """
    table = joint_neighbors(metrics, size, start).numpy()
    extra = max(1, size // 6)
    later = joint_neighbors([x[start:] for x in metrics], extra).numpy()
    out = np.full((len(table), size + extra), -1, dtype=np.int32)
    runs = chunked(len(out))
    in_threads(lambda k: append(table, later, start, *runs[k], out), len(runs))
    return torch.as_tensor(out)
