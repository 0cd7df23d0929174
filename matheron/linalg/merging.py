"""Patterns put together in linear time, and products with many columns.

Patterns are compressed rows, with sorted columns; rows are shared among threads in runs.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from collections.abc import Sequence

from .compiled import compiled
from .threads import chunked, in_threads

__all__ = ["Rows", "apply_columns", "beside", "union"]

Rows = tuple[np.ndarray, np.ndarray]
"""Where each row begins, and the columns of the entries."""
LIMIT = 2**31


def union(a: Rows, b: Rows) -> tuple[Rows, np.ndarray | None, np.ndarray]:
    """Return the union of two patterns, and where in it the entries of each are.

    Where the second adds nothing, the union is the first, and its own places are ``None``.
    """
    n = len(a[0]) - 1
    counts, runs = np.zeros(n + 1, np.int64), chunked(n)
    second = np.empty(len(b[1]), np.int64)
    in_threads(lambda k: _locate(*runs[k], *a, *b, counts, second), len(runs) if n else 0)
    if not counts.any():
        return a, None, second
    start = a[0] + np.cumsum(counts)
    columns, first = np.empty(start[-1], np.int64), np.empty(len(a[1]), np.int64)
    work = lambda k: _merge(*runs[k], *a, *b, start, columns, first, second)
    in_threads(work, len(runs))
    return (start, columns), first, second


@compiled
def _locate(lo, hi, aptr, acol, bptr, bcol, counts, second):
    """Find the entries of b among those of a; the number that are not, one place late."""
    for i in range(lo, hi):
        row = acol[aptr[i] : aptr[i + 1]]
        for q in range(bptr[i], bptr[i + 1]):
            p = np.searchsorted(row, bcol[q])
            second[q] = aptr[i] + p
            counts[i + 1] += p == len(row) or row[p] != bcol[q]


@compiled
def _merge(lo, hi, aptr, acol, bptr, bcol, start, columns, first, second):
    """The columns of a union, and the places of the entries of both."""
    for i in range(lo, hi):
        p, q = aptr[i], bptr[i]
        for k in range(start[i], start[i + 1]):
            left = q == bptr[i + 1] or (p < aptr[i + 1] and acol[p] <= bcol[q])
            right = p == aptr[i + 1] or (q < bptr[i + 1] and bcol[q] <= acol[p])
            columns[k] = acol[p] if left else bcol[q]
            if left:
                first[p] = k
                p += 1
            if right:
                second[q] = k
                q += 1


def beside(parts: Sequence[tuple[int, int, Rows]], rows: int) -> tuple[np.ndarray, ...]:
    """Return the pattern of blocks, each with its first row and column, and for each entry its
    place in the list of theirs.

    Blocks of the same rows are in the order of their columns.
    """
    counts, given = np.zeros(rows + 1, np.int64), 0
    bands: dict[int, list[tuple[int, int, Rows]]] = {}
    for top, left, (ptr, col) in parts:
        counts[top + 1 : top + len(ptr)] += np.diff(ptr)
        bands.setdefault(top, []).append((left, given, (ptr, col)))
        given += len(col)
    start = np.cumsum(counts)
    after = start[:-1].copy()
    columns = np.empty(start[-1], np.int64)
    source = np.empty(start[-1], np.int32 if given < LIMIT else np.int64)

    def work(k: int) -> None:
        top = tops[k]
        for left, first, (ptr, col) in bands[top]:
            _append(top, left, ptr, col, first, after, columns, source)

    tops = list(bands)
    in_threads(work, len(tops))
    return start, columns, source


@compiled
def _append(top, left, ptr, col, given, after, columns, source):
    """Put a block after those before it, in its rows."""
    for i in range(len(ptr) - 1):
        k = after[top + i]
        for p in range(ptr[i], ptr[i + 1]):
            columns[k], source[k] = left + col[p], given + p
            k += 1
        after[top + i] = k


def apply_columns(rows: Rows, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the product of a matrix with columns."""
    ptr, col = rows
    out = np.empty((len(ptr) - 1, x.shape[1]), np.result_type(values, x))
    runs = chunked(len(out))
    in_threads(lambda k: _apply(*runs[k], ptr, col, values, x, out), len(runs) if len(out) else 0)
    return out


@compiled
def _apply(lo, hi, ptr, col, values, x, out):
    for i in range(lo, hi):
        row = out[i]
        row[:] = 0.0
        for p in range(ptr[i], ptr[i + 1]):
            a, other = values[p], x[col[p]]
            for c in range(len(row)):
                row[c] += a * other[c]
