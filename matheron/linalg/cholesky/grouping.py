"""Unknowns that are ordered as one, and the graph of the groups."""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from typing import NamedTuple

from ..compiled import compiled
from ..sparse import Pattern

__all__ = ["Groups", "group_neighbors", "group_places"]


class Groups(NamedTuple):
    """Groups of unknowns, in order of their first member, and their graph.

    Arguments:
        group: The group of each unknown.
        first: The first member of each group.
        weight: The number of members of each group.
        ptr: Where the neighbours of each group begin.
        col: The neighbours, the group itself among them or not.
    """

    group: np.ndarray
    first: np.ndarray
    weight: np.ndarray
    ptr: np.ndarray
    col: np.ndarray

    def expand(self, order: np.ndarray) -> np.ndarray:
        """Return the members of groups in some order."""
        if len(self.first) == len(self.group):
            return order
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return np.argsort(rank[self.group], kind="stable")


def group_places(pattern: Pattern, x: np.ndarray) -> Groups:
    """Put unknowns at one place in a group."""
    size = 1 << int(2 * len(x)).bit_length()
    return _grouped(pattern, *_same_rows(np.ascontiguousarray(x + 0.0).view(np.int64), size))


def group_neighbors(pattern: Pattern) -> Groups:
    """Put unknowns in a group that are neighbours and have all other neighbours in common."""
    size = 1 << int(2 * pattern.shape[0]).bit_length()
    return _grouped(pattern, *_same_neighbors(pattern.indptr, pattern.indices, size))


def _grouped(pattern: Pattern, group: np.ndarray, first: np.ndarray) -> Groups:
    weight = np.bincount(group, minlength=len(first))
    graph = pattern.indptr, pattern.indices
    if len(first) < len(group):
        graph = _quotient(*graph, group, len(first), np.argsort(group, kind="stable"), weight)
    return Groups(group, first, weight, *graph)


@compiled
def _mix(h, key):
    """Mix a number into a hash."""
    h = (h ^ np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)
    return h ^ (h >> np.uint64(29))


@compiled
def _same_rows(keys, size):
    """Groups of equal rows, and the first of each."""
    n, width = keys.shape
    table, group = np.full(size, -1), np.empty(n, np.int64)
    first, count = np.empty(n, np.int64), 0
    for u in range(n):
        h = np.uint64(width)
        for a in range(width):
            h = _mix(h, keys[u, a])
        slot = np.int64(h >> np.uint64(11)) & (size - 1)
        while table[slot] >= 0 and not _equal(keys[u], keys[first[table[slot]]]):
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot], first[count] = count, u
            count += 1
        group[u] = table[slot]
    return group, first[:count].copy()


@compiled
def _equal(a, b):
    if len(a) != len(b):
        return False
    for k in range(len(a)):  # noqa: SIM110
        if a[k] != b[k]:
            return False
    return True


@compiled
def _same_neighbors(ptr, col, size):
    """Groups of vertices with the same row, which holds themselves, and the first of each."""
    n = len(ptr) - 1
    table, group = np.full(size, -1), np.empty(n, np.int64)
    first, count = np.empty(n, np.int64), 0
    for u in range(n):
        row, h = col[ptr[u] : ptr[u + 1]], np.uint64(ptr[u + 1] - ptr[u])
        for v in row:
            h = _mix(h, v)
        slot = np.int64(h >> np.uint64(11)) & (size - 1)
        while table[slot] >= 0:
            v = first[table[slot]]
            if _equal(row, col[ptr[v] : ptr[v + 1]]) and _holds(row, u):
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot], first[count] = count, u
            count += 1
        group[u] = table[slot]
    return group, first[:count].copy()


@compiled
def _holds(row, u):
    at = np.searchsorted(row, u)
    return at < len(row) and row[at] == u


@compiled
def _quotient(ptr, col, group, count, members, weight):
    """The graph of the groups."""
    mark, out = np.full(count, -1), np.empty(len(col), np.int64)
    start, at, seen = np.zeros(count + 1, np.int64), 0, 0
    for g in range(count):
        for u in members[seen : seen + weight[g]]:
            for p in range(ptr[u], ptr[u + 1]):
                h = group[col[p]]
                if mark[h] != g:
                    mark[h] = g
                    out[at] = h
                    at += 1
        seen += weight[g]
        start[g + 1] = at
    return start, out[:at].copy()
