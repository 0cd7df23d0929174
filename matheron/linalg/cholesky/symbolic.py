"""Where the numbers of a factor are: worked out once for a pattern.

The factor is made of *fronts*, one for each run of unknowns that are eliminated together: a panel
of its own columns, whose rows are those of the run, then its *boundary*, the later unknowns that
its elimination touches. What a front passes to its parent is its *update*, a square matrix on the
boundary.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .ordering import Dissection
from ..compiled import compiled
from ..sparse import Pattern

__all__ = ["Fronts", "Plan", "plan"]

PIECES = 32
"""The work of the tree is given to threads in subtrees of at most this part of the whole."""
SMALL = 3e7
"""Subtrees of fewer operations are never split."""


class Fronts(NamedTuple):
    """The fronts, children before parents, as the compiled passes read them.

    Arguments:
        begin: The first column of each front, and the number of columns at the end.
        parent: The parent of each front, or -1.
        child_at: Where the children of each front begin in ``children``.
        children: The children, in order.
        row_at: Where the boundary of each front begins in ``rows``.
        rows: The boundaries, in order of elimination.
        places: The row of the parent's front for each of ``rows``.
        panel: Where the panel of each front begins, and the length of all.
        entry_at: Where the entries of each column begin.
        entry_row: The row of its front for each entry of the lower triangle.
        entry: The position of the entry in the pattern.
        mirror: The position of its transpose.
        update: Where the update of each front begins in the work space of its subtree.
        vector: The same for an update that is a vector.
        tail: Where the own rows of each front begin in the work space of the inverse.
    """

    begin: np.ndarray
    parent: np.ndarray
    child_at: np.ndarray
    children: np.ndarray
    row_at: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    panel: np.ndarray
    entry_at: np.ndarray
    entry_row: np.ndarray
    entry: np.ndarray
    mirror: np.ndarray
    update: np.ndarray
    vector: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True)
class Plan:
    """The fronts, and the subtrees that are each the work of one thread.

    Arguments:
        fronts: The fronts.
        order: The unknown of each column.
        back: The column of each unknown.
        start: The first front of the subtree of each front.
        whole: Whether the subtree of each front is the work of one thread.
        update_space: The numbers that the updates of each subtree need, its own apart.
        vector_space: The same for updates that are vectors.
        inverse_space: The same for the inverse.
        operations: The multiplications and additions of a factorisation.
    """

    fronts: Fronts
    order: np.ndarray
    back: np.ndarray
    start: np.ndarray
    whole: np.ndarray
    update_space: np.ndarray
    vector_space: np.ndarray
    inverse_space: np.ndarray
    operations: float

    def own(self, t: int) -> int:
        """The number of columns of a front."""
        return int(self.fronts.begin[t + 1] - self.fronts.begin[t])

    def edge(self, t: int) -> int:
        """The number of rows of the boundary of a front."""
        return int(self.fronts.row_at[t + 1] - self.fronts.row_at[t])

    @cached_property
    def widest(self) -> int:
        """The number of rows of the longest boundary."""
        return int(np.diff(self.fronts.row_at).max(initial=0))

    @cached_property
    def longest(self) -> int:
        """The entries below the diagonal block of the largest panel of a subtree."""
        own, edge = np.diff(self.fronts.begin), np.diff(self.fronts.row_at)
        return int((own * edge)[self.whole].max(initial=0))

    def children(self, t: int) -> list[int]:
        """The children of a front."""
        f = self.fronts
        return [int(c) for c in f.children[f.child_at[t] : f.child_at[t + 1]]]


def plan(pattern: Pattern, dissection: Dissection) -> Plan:
    """Work out the fronts of a pattern in some order."""
    order, begin, first = dissection
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    parent = _parents(first)
    child_at, children = _lists(parent)
    graph = (pattern.indptr, pattern.indices, order, back)
    row_at, rows = _boundaries(*graph, begin, child_at, children)
    places = _places(begin, parent, row_at, rows)
    own, edge = np.diff(begin), np.diff(row_at)
    panel = np.concatenate([[0], np.cumsum((own + edge) * own)])
    mirror = mirrored(pattern)
    entries = _entries(*graph, begin, row_at, rows, mirror)
    start = _starts(parent)
    work = own * (own * own / 3.0 + own * edge + 1.0 * edge * edge)
    total, whole = _whole(parent, start, work)
    spaces = _spaces(parent, child_at, children, start, whole, own, edge)
    fronts = Fronts(
        begin, parent, child_at, children, row_at, rows, places, panel, *entries, *spaces[:3]
    )
    update_space, vector_space, inverse_space = spaces[3:]
    return Plan(
        fronts, order, back, start, whole, update_space, vector_space, inverse_space, total
    )


def mirrored(pattern: Pattern) -> np.ndarray:
    """The position of the transpose of each entry."""
    mirror = np.empty(pattern.nnz, np.int32)
    row = _mirror(pattern.indptr, pattern.indices, mirror)
    if row >= 0:
        msg = (
            f"Analysis(pattern=...): expected both triangles of a symmetric pattern, got an entry "
            f"of row {row} without its transpose. Store Q as K' K, or add its transpose."
        )
        raise ValueError(msg)
    return mirror


@compiled
def _mirror(ptr, col, mirror):
    """Rows in turn visit the entries of a column in order; a row that does not, or -1."""
    after = ptr[:-1].copy()
    for u in range(len(after)):
        for p in range(ptr[u], ptr[u + 1]):
            v = col[p]
            if after[v] == ptr[v + 1] or col[after[v]] != u:
                return u
            mirror[p] = after[v]
            after[v] += 1
    return -1


@compiled
def _parents(first):
    """The parent of each front: the next one whose domain holds it."""
    count = len(first)
    parent, stack, held = np.full(count, -1), np.empty(count, np.int64), 0
    for t in range(count):
        while held > 0 and first[stack[held - 1]] >= first[t]:
            held -= 1
            parent[stack[held]] = t
        stack[held] = t
        held += 1
    return parent


def _lists(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The children of each front."""
    order = np.argsort(parent, kind="stable")
    counts = np.bincount(parent[parent >= 0], minlength=len(parent))
    return np.concatenate([[0], np.cumsum(counts)]), order[(parent < 0).sum() :]


@compiled
def _boundaries(ptr, col, order, back, begin, child_at, children):
    """The rows of each front after its own columns."""
    count, n = len(begin) - 1, len(order)
    mark, seen = np.full(n, -1, np.int32), np.empty(n, np.int32)
    row_at, rows = np.zeros(count + 1, np.int64), np.empty(len(col) + 64, np.int32)
    for t in range(count):
        end, k = begin[t + 1], 0
        for j in range(begin[t], end):
            for p in range(ptr[order[j]], ptr[order[j] + 1]):
                i = back[col[p]]
                if i >= end and mark[i] != t:
                    mark[i], seen[k] = t, i
                    k += 1
        for c in children[child_at[t] : child_at[t + 1]]:
            for i in rows[row_at[c] : row_at[c + 1]]:
                if i >= end and mark[i] != t:
                    mark[i], seen[k] = t, i
                    k += 1
        at = row_at[t]
        if at + k > len(rows):
            more = np.empty(max(2 * len(rows), at + k), np.int32)
            more[:at] = rows[:at]
            rows = more
        rows[at : at + k] = np.sort(seen[:k])
        row_at[t + 1] = at + k
    return row_at, rows[: row_at[count]].copy()


@compiled
def _places(begin, parent, row_at, rows):
    """The row of the parent's front for each row of a boundary."""
    places = np.empty(len(rows), np.int32)
    for t in range(len(parent)):
        p = parent[t]
        if p < 0:
            continue
        own, j = begin[p + 1] - begin[p], row_at[p]
        for q in range(row_at[t], row_at[t + 1]):
            i = rows[q]
            if i < begin[p + 1]:
                places[q] = i - begin[p]
            else:
                while rows[j] < i:
                    j += 1
                places[q] = own + j - row_at[p]
    return places


@compiled
def _entries(ptr, col, order, back, begin, row_at, rows, mirror):
    """The entries of the lower triangle, by column, and their rows in the front."""
    n, size = len(order), (len(col) + len(order)) // 2 + 1
    at, row = np.zeros(n + 1, np.int64), np.empty(size, np.int32)
    entry, other = np.empty(size, np.int32), np.empty(size, np.int32)
    where, k = np.empty(n, np.int32), 0
    for t in range(len(begin) - 1):
        first, end = begin[t], begin[t + 1]
        for q in range(row_at[t], row_at[t + 1]):
            where[rows[q]] = end - first + q - row_at[t]
        for j in range(first, end):
            for p in range(ptr[order[j]], ptr[order[j] + 1]):
                i = back[col[p]]
                if i >= j:
                    row[k] = i - first if i < end else where[i]
                    entry[k], other[k] = p, mirror[p]
                    k += 1
            at[j + 1] = k
    return at, row[:k].copy(), entry[:k].copy(), other[:k].copy()


@compiled
def _starts(parent):
    """The first front of each subtree."""
    start = np.arange(len(parent))
    for t in range(len(parent)):
        if parent[t] >= 0:
            start[parent[t]] = min(start[parent[t]], start[t])
    return start


def _whole(parent: np.ndarray, start: np.ndarray, work: np.ndarray) -> tuple[float, np.ndarray]:
    """The subtrees that one thread works through, and the work of all."""
    done = np.concatenate([[0.0], np.cumsum(work)])
    total = float(done[-1])
    return total, done[1:] - done[start] <= max(total / PIECES, SMALL)


@compiled
def _spaces(parent, child_at, children, start, whole, own, edge):
    """Where things are in the work space of a subtree, and the space it needs.

    Updates are on two stacks, for even and odd depths: those of the children of a front are on top
    of one when the front puts its own on the other. The inverse goes down the tree: its fronts are
    on one stack. A subtree's own update is not in its work space, nor is the inverse of its
    boundary.
    """
    count = len(parent)
    update, vector, tail = np.zeros((3, count), np.int64)
    spaces = np.zeros((3, count), np.int64)
    root = np.arange(count)
    depth = np.zeros(count, np.int64)
    for t in range(count - 1, -1, -1):
        p = parent[t]
        if p >= 0 and whole[p]:
            root[t], depth[t] = root[p], depth[p] + 1
            tail[t] = tail[p] + (own[p] + edge[p]) ** 2
        spaces[2, root[t]] = max(spaces[2, root[t]], tail[t] + (own[t] + edge[t]) ** 2)
    lists = parent, child_at, children
    for size, places, space in ((edge * edge, update, spaces[0]), (edge, vector, spaces[1])):
        _stacks(lists, start, whole, root, depth, size, places, space)
    return update, vector, tail, spaces[0], spaces[1], spaces[2]


@compiled
def _stacks(lists, start, whole, root, depth, size, places, space):
    """Positions on two stacks; the second one begins where the first may end."""
    parent, child_at, children = lists
    top, most = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for t in range(len(parent)):
        if not whole[t]:
            continue
        k = depth[t] % 2
        for c in children[child_at[t] : child_at[t + 1]]:
            top[1 - k] -= size[c]
        if t != root[t]:
            places[t] = top[k]
            top[k] += size[t]
            most[k] = max(most[k], top[k])
            continue
        for s in range(start[t], t):
            if depth[s] % 2 == 1:
                places[s] += most[0]
        space[t] = most[0] + most[1]
        top[:], most[:] = 0, 0
