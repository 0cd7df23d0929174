"""Triangular systems with a factor.

Right-hand sides are rows, one for each column of the factor: a flat array where the numbers of a
row follow each other. What a front takes from later rows goes up the tree with it, so that threads
never write to the same row.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from .blas import multiply, multiply_vector, solve_right, solve_vector
from .crew import Crew, Pool, downward, upward
from .loops import add, copy
from .symbolic import Plan
from ..compiled import compiled
from ..threads import chunked, in_threads

__all__ = ["backward", "forward", "take_rows"]


@compiled
def gather_child(f, t, c, width, X, V, v0, given, g0):
    """Add what a child takes from later rows to a front."""
    own, at = f.begin[t + 1] - f.begin[t], f.begin[t] * width
    places = f.places[f.row_at[c] : f.row_at[c + 1]]
    inner = np.searchsorted(places, own)
    if width == 1:
        for i in range(inner):
            X[at + places[i]] += given[g0 + i]
        for i in range(inner, len(places)):
            V[v0 + places[i] - own] += given[g0 + i]
        return
    for i in range(inner):
        add(X, at + places[i] * width, given, g0 + i * width, width)
    for i in range(inner, len(places)):
        add(V, v0 + (places[i] - own) * width, given, g0 + i * width, width)


@compiled
def gather_rows(rows, width, X, V):
    """Copy some rows, one after another."""
    if width == 1:
        for k in range(len(rows)):
            V[k] = X[rows[k]]
        return
    for k in range(len(rows)):
        copy(V, k * width, X, rows[k] * width, width)


@compiled
def forward_front(f, t, L, width, X, V, v0):
    """Solve for the rows of a front, and take them from its boundary."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    panel, size, at = f.panel[t], own + edge, f.begin[t] * width
    if own == 0:
        return
    if width == 1:
        solve_vector(own, False, L, panel, size, X, at)
        if edge > 0:
            multiply_vector(edge, own, False, -1.0, L, panel + own, size, X, at, V, v0)
        return
    solve_right(width, own, True, L, panel, size, X, at, width)
    if edge > 0:
        multiply(
            width, edge, own, False, True, -1.0, X, at, width, L, panel + own, size,
            1.0, V, v0, width,
        )  # fmt: skip


@compiled
def backward_front(f, t, L, width, X, V):
    """Solve for the rows of a front, given later rows."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    panel, size, at = f.panel[t], own + edge, f.begin[t] * width
    if own == 0:
        return
    gather_rows(f.rows[f.row_at[t] : f.row_at[t + 1]], width, X, V)
    if width == 1:
        if edge > 0:
            multiply_vector(edge, own, True, -1.0, L, panel + own, size, V, 0, X, at)
        solve_vector(own, True, L, panel, size, X, at)
        return
    if edge > 0:
        multiply(
            width, own, edge, False, False, -1.0, V, 0, width, L, panel + own, size,
            1.0, X, at, width,
        )  # fmt: skip
    solve_right(width, own, False, L, panel, size, X, at, width)


@compiled
def forward_subtree(f, start, end, L, width, X, work, out):
    """Solve for the rows of a subtree; what it takes from later rows is for its parent."""
    for t in range(start, end + 1):
        V, v0 = (out, 0) if t == end else (work, f.vector[t] * width)
        V[v0 : v0 + (f.row_at[t + 1] - f.row_at[t]) * width] = 0.0
        for c in f.children[f.child_at[t] : f.child_at[t + 1]]:
            gather_child(f, t, c, width, X, V, v0, work, f.vector[c] * width)
        forward_front(f, t, L, width, X, V, v0)


@compiled
def backward_subtree(f, start, end, L, width, X, work):
    """Solve for the rows of a subtree, given later rows."""
    for t in range(end, start - 1, -1):
        backward_front(f, t, L, width, X, work)


def forward(plan: Plan, pool: Pool, L: np.ndarray, X: np.ndarray) -> None:
    """Replace X, with shape (n, width), by the solution of L Y = X."""
    f, width, flat = plan.fronts, X.shape[1], X.reshape(-1)
    taken: dict[int, np.ndarray] = {}

    def visit(t: int) -> None:
        out = taken[t] = pool.take(plan.edge(t) * width)
        if plan.whole[t]:
            work = pool.take(int(plan.vector_space[t]) * width)
            forward_subtree(f, plan.start[t], t, L, width, flat, work, out)
            pool.give(work)
            return
        out[:] = 0.0
        for c in plan.children(t):
            given = taken.pop(c)
            gather_child(f, t, c, width, flat, out, 0, given, 0)
            pool.give(given)
        forward_front(f, t, L, width, flat, out, 0)

    with Crew() as crew:
        upward(plan, crew, visit)
    pool.give(*taken.values())


def backward(plan: Plan, pool: Pool, L: np.ndarray, X: np.ndarray) -> None:
    """Replace X, with shape (n, width), by the solution of L' Y = X."""
    f, width, flat = plan.fronts, X.shape[1], X.reshape(-1)

    def visit(t: int) -> None:
        work = pool.take(plan.widest * width)
        if plan.whole[t]:
            backward_subtree(f, plan.start[t], t, L, width, flat, work)
        else:
            backward_front(f, t, L, width, flat, work)
        pool.give(work)

    with Crew() as crew:
        downward(plan, crew, visit, lambda t: None)


def take_rows(X: np.ndarray, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Copy some rows of a matrix."""
    width, runs = X.shape[1], chunked(len(rows))

    def work(k: int) -> None:
        lo, hi = runs[k]
        gather_rows(rows[lo:hi], width, X.reshape(-1), out[lo:hi].reshape(-1))

    in_threads(work, len(runs) if len(rows) else 0)
    return out
