"""The order of elimination: nested dissection.

The graph is cut in two by a small separator, which is eliminated last; so are the two sides. The
cuts follow the coordinates of the unknowns where they have some, else distances in the graph.
Unknowns that share a place, or all their neighbours, are ordered as one.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import math
import numpy as np

from typing import NamedTuple

from .grouping import Groups, group_neighbors, group_places
from .separators import OUTSIDE, cut_by_levels, cut_by_places, gather_sides, separate
from ..compiled import compiled
from ..sparse import Pattern
from ..threads import chunked, in_threads

__all__ = ["Dissection", "dissect"]

LEAF = 24
"""Unknowns that are eliminated together at the leaves of the tree."""
SOME = 4096
"""Vertices that tell how far neighbours are, for the slope of the diagonals."""
ROOTS = 16
"""Parts into which the graph is cut before they are given to threads."""


class Dissection(NamedTuple):
    """An order of the unknowns, cut into runs that are eliminated together.

    Arguments:
        order: The unknown at each position.
        begin: Where each run begins, with the number of unknowns at the end. A run is empty where
            two domains have no neighbours in common.
        first: Where the domain that a run separates begins; it ends with the run.
    """

    order: np.ndarray
    begin: np.ndarray
    first: np.ndarray


def dissect(pattern: Pattern, places: np.ndarray | None, leaf: int = LEAF) -> Dissection:
    """Return an order of the unknowns of a symmetric pattern, by their places or by the graph."""
    n = pattern.shape[0]
    if n == 0:
        empty = np.zeros(0, np.int64)
        return Dissection(empty, np.zeros(1, np.int64), empty)
    groups, x = _grouped(pattern, places)
    order, runs = _order_groups(groups, x, leaf)
    members = groups.expand(order)
    ends = np.concatenate([[0], np.cumsum(groups.weight[order])])
    runs = runs[np.lexsort((-runs[:, 0], runs[:, 2]))]
    return Dissection(members, np.concatenate([[0], ends[runs[:, 2]]]), ends[runs[:, 0]])


def _grouped(pattern: Pattern, places: np.ndarray | None) -> tuple[Groups, np.ndarray]:
    if places is None:
        return group_neighbors(pattern), np.zeros((0, 0))
    x = np.ascontiguousarray(places, dtype=np.float64).reshape(len(places), -1)
    groups = group_places(pattern, x)
    return groups, np.ascontiguousarray(x[groups.first].T)


def _order_groups(groups: Groups, x: np.ndarray, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """Order the groups; the runs as (first of the domain, first, end)."""
    degree = np.diff(groups.ptr)
    dense = degree > 16 + 10 * math.sqrt(len(degree))
    order = np.concatenate([np.nonzero(~dense)[0], np.nonzero(dense)[0]])
    sparse = len(order) - int(dense.sum())
    x, reach = _axes(groups, x, dense)
    label = np.full(len(order), OUTSIDE)
    label[dense] = OUTSIDE - 1
    level = np.empty(0 if len(x) else len(order), np.int64)
    graph = (groups.ptr, groups.col, groups.weight, x, *reach, order, label, level)
    large = max(sparse // ROOTS, 4096)
    top, parts = _dissect(0, sparse, leaf, large, *graph)
    below = in_threads(
        lambda k: _dissect(parts[k, 0], parts[k, 1], leaf, 0, *graph)[0], len(parts)
    )
    last = [[0, sparse, len(order)]] if sparse < len(order) else []
    return order, np.concatenate([top, *below, np.array(last, np.int64).reshape(-1, 3)])


def _axes(groups: Groups, x: np.ndarray, dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The axes along which to cut, and how far neighbours are along them, down and up.

    Besides those of the coordinates, they are the diagonals of two: the neighbours of a vertex are
    often in a diamond, and domains that look like one then have short sides.
    """
    k = len(x)
    if not 1 < k <= 3:
        return x, _reaches(groups, x, dense)
    some = np.arange(0, x.shape[1], 1 + x.shape[1] // SOME)
    step = _reaches(groups, x, dense, some).sum(axis=0).mean(axis=1)
    y = x / np.where(step > 0, step, 1.0)[:, None]
    pairs = [(a, b) for a in range(k) for b in range(a)]
    diagonals = [y[a] + sign * y[b] for a, b in pairs for sign in (1, -1)]
    x = np.concatenate([np.stack(diagonals), x])
    return x, _reaches(groups, x, dense)


def _reaches(
    groups: Groups, x: np.ndarray, dense: np.ndarray, some: np.ndarray | None = None
) -> np.ndarray:
    """How far the neighbours of vertices, or of some, are along each axis, down and up."""
    some = np.arange(x.shape[1]) if some is None else some
    reach = np.zeros((2, len(x), len(some)))
    places, runs = np.ascontiguousarray(x.T), chunked(len(some))
    work = lambda k: _reach(*runs[k], some, groups.ptr, groups.col, places, dense, *reach)
    in_threads(work, len(runs) if x.size else 0)
    return reach


@compiled
def _reach(begin, end, some, ptr, col, x, dense, down, up):
    """How far the neighbours of some vertices are, down and up each axis."""
    k = x.shape[1]
    low, high = np.empty(k), np.empty(k)
    for i in range(begin, end):
        u = some[i]
        low[:], high[:] = x[u], x[u]
        for p in range(ptr[u], ptr[u + 1]):
            v = col[p]
            if dense[v]:
                continue
            place = x[v]
            for a in range(k):
                low[a], high[a] = min(low[a], place[a]), max(high[a], place[a])
        for a in range(k):
            down[a, i] = (x[u, a] - low[a]) * (1 + 1e-12)
            up[a, i] = (high[a] - x[u, a]) * (1 + 1e-12)


@compiled
def _dissect(begin, end, leaf, large, ptr, col, weight, x, down, up, order, label, level):
    """Cut a part until what is left is a leaf, or not large; the runs, and the parts left."""
    size = end - begin
    runs, parts = np.empty((size, 3), np.int64), np.empty((size, 2), np.int64)
    found, spare = np.empty(size, np.int64), np.empty(size, np.int64)
    stack = np.empty((128, 2), np.int64)
    stack[0, 0], stack[0, 1], held = begin, end, 1
    made, left = 0, 0
    while held > 0:
        held -= 1
        lo, hi = stack[held]
        if lo == hi:
            continue
        if hi - lo <= large:
            parts[left, 0], parts[left, 1] = lo, hi
            left += 1
            continue
        part, total = order[lo:hi], 0
        for u in part:
            total += weight[u]
        a, b = 0, 0
        if total > leaf:
            a, b = _cut(
                part, 4 * lo, ptr, col, weight, x, down, up, label, level, found, spare
            )  # fmt: skip
        if a == 0 or b == a:
            runs[made, 0], runs[made, 1], runs[made, 2] = lo, lo, hi
            made += 1
            continue
        runs[made, 0], runs[made, 1], runs[made, 2] = lo, lo + b, hi  # perhaps none
        made += 1
        larger = 0 if a >= b - a else 1  # waits, so that the stack stays short
        stack[held + larger, 0], stack[held + larger, 1] = lo, lo + a
        stack[held + 1 - larger, 0], stack[held + 1 - larger, 1] = lo + a, lo + b
        held += 2
    return runs[:made].copy(), parts[:left].copy()


@compiled
def _cut(part, mark, ptr, col, weight, x, down, up, label, level, found, spare):
    """Cut a part in two; where its sides end."""
    if len(x) > 0:
        count = cut_by_places(part, mark, weight, x, down, up, label, found)
    else:
        count = cut_by_levels(part, mark, weight, ptr, col, label, found, level)
    if count < 0:
        for u in part:
            label[u] = OUTSIDE
        return 0, 0
    separate(part, mark, weight, ptr, col, label, found, count)
    return gather_sides(part, mark, label, spare)
