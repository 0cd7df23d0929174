"""The numbers of a factor: fronts are assembled and eliminated, children before parents."""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from functools import partial

from .blas import downdate, factorise, multiply, solve_right
from .crew import Crew, Pool, Task, upward
from .loops import add_places, run_ends
from .symbolic import Plan
from ..compiled import compiled

__all__ = ["TILE", "factor", "half_log_determinant", "slices"]

TILE = 384
"""Columns of a tile: large fronts are cut into tiles, so that threads can share them."""
LARGE = 3e8
"""Operations of an elimination from which it is worth sharing."""


@compiled
def assemble(f, t, c0, c1, values, L, U, u0):
    """Put the entries of a matrix into some columns of a front, zero elsewhere.

    The matrix is the mean of what is given and its transpose.
    """
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    size = own + edge
    for j in range(c0, min(c1, own)):
        column = L[f.panel[t] + j * size : f.panel[t] + (j + 1) * size]
        column[j:] = 0.0
        at = f.begin[t] + j
        for k in range(f.entry_at[at], f.entry_at[at + 1]):
            column[f.entry_row[k]] = 0.5 * (values[f.entry[k]] + values[f.mirror[k]])
    for j in range(max(0, c0 - own), c1 - own):
        U[u0 + j * edge + j : u0 + (j + 1) * edge] = 0.0


@compiled
def extend(f, t, c, c0, c1, L, U, u0, given, g0):
    """Add the update of a child to some columns of a front."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    places = f.places[f.row_at[c] : f.row_at[c + 1]]
    count, size = len(places), own + edge
    first, last = np.searchsorted(places, c0), np.searchsorted(places, c1)
    if first == last:
        return
    ends = run_ends(places)
    for j in range(first, last):
        if places[j] < own:
            target, at = L, f.panel[t] + places[j] * size
        else:
            target, at = U, u0 + (places[j] - own) * edge - own
        add_places(target, at, given, g0 + j * count, places, ends, j)


@compiled
def eliminate(f, t, L, U, u0):
    """Eliminate the columns of a front; the column that cannot be, or -1."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    if own == 0:
        return -1
    panel, size = f.panel[t], own + edge
    lost = factorise(own, L, panel, size)
    if lost > 0:
        return f.begin[t] + lost - 1
    if edge > 0:
        solve_right(edge, own, True, L, panel, size, L, panel + own, size)
        downdate(edge, own, L, panel + own, size, U, u0, edge)
    return -1


@compiled
def factor_subtree(f, start, end, values, L, work, update):
    """Factorise a subtree; its update is for its parent. The column that cannot be, or -1."""
    for t in range(start, end + 1):
        U, u0 = (update, 0) if t == end else (work, f.update[t])
        size = f.begin[t + 1] - f.begin[t] + f.row_at[t + 1] - f.row_at[t]
        assemble(f, t, 0, size, values, L, U, u0)
        for c in f.children[f.child_at[t] : f.child_at[t + 1]]:
            extend(f, t, c, 0, size, L, U, u0, work, f.update[c])
        lost = eliminate(f, t, L, U, u0)
        if lost >= 0:
            return lost
    return -1


@compiled
def downdate_tile(a, a_at, a_stride, c, c_at, c_stride, rows, k, c0, c1):
    """Take A A' from the lower triangle of C in some columns; A has shape (rows, k)."""
    downdate(c1 - c0, k, a, a_at + c0, a_stride, c, c_at + c0 * c_stride + c0, c_stride)
    multiply(
        rows - c1, c1 - c0, k, False, True, -1.0, a, a_at + c1, a_stride, a, a_at + c0, a_stride,
        1.0, c, c_at + c0 * c_stride + c1, c_stride,
    )  # fmt: skip


def slices(start: int, end: int, step: int = TILE) -> list[tuple[int, int]]:
    """Bounds of runs of at most some length."""
    return [(k, min(end, k + step)) for k in range(start, end, step)]


class _Factorisation:
    """One factorisation under way."""

    def __init__(self, plan: Plan, pool: Pool, values: np.ndarray) -> None:
        self.plan, self.pool, self.values = plan, pool, values
        self.L = pool.take(int(plan.fronts.panel[-1]))
        self.updates: dict[int, np.ndarray] = {}
        self.lost: list[int] = []
        self.crew = Crew()

    def visit(self, t: int) -> None:
        """Factorise a subtree or a front; nothing any more once a pivot is lost."""
        if self.lost:
            return
        update = self.updates[t] = self.pool.take(self.plan.edge(t) ** 2)
        lost = self._subtree(t, update) if self.plan.whole[t] else self._front(t, update)
        if lost >= 0:
            self.lost.append(lost)

    def _subtree(self, t: int, update: np.ndarray) -> int:
        plan = self.plan
        work = self.pool.take(int(plan.update_space[t]))
        lost = factor_subtree(
            plan.fronts, plan.start[t], t, self.values, self.L, work, update
        )  # fmt: skip
        self.pool.give(work)
        return int(lost)

    def _front(self, t: int, update: np.ndarray) -> int:
        own, edge = self.plan.own(t), self.plan.edge(t)
        parts = slices(0, own + edge)
        self.crew.together([partial(self._assemble, t, *part, update) for part in parts])
        for c in self.plan.children(t):
            self.pool.give(self.updates.pop(c))
        if own * (own + edge) ** 2 < LARGE:
            return int(eliminate(self.plan.fronts, t, self.L, update, 0))
        return self._eliminate_in_tiles(t, own, edge, update)

    def _assemble(self, t: int, c0: int, c1: int, update: np.ndarray) -> None:
        f = self.plan.fronts
        assemble(f, t, c0, c1, self.values, self.L, update, 0)
        for c in self.plan.children(t):
            extend(f, t, c, c0, c1, self.L, update, 0, self.updates[c], 0)

    def _eliminate_in_tiles(self, t: int, own: int, edge: int, update: np.ndarray) -> int:
        panel, size = int(self.plan.fronts.panel[t]), own + edge
        for k0, k1 in slices(0, own):
            lost = factorise(k1 - k0, self.L, panel + k0 * size + k0, size)
            if lost > 0:
                return int(self.plan.fronts.begin[t] + k0 + lost - 1)
            self.crew.together(self._solves(panel, size, k0, k1))
            self.crew.together(self._downdates(panel, size, k0, k1, own))
        self.crew.together([
            partial(downdate_tile, self.L, panel + own, size, update, 0, edge, edge, own, c0, c1)
            for c0, c1 in slices(0, edge)
        ])  # fmt: skip
        return -1

    def _solves(self, panel: int, size: int, k0: int, k1: int) -> list[Task]:
        block, column = panel + k0 * size + k0, panel + k0 * size
        return [
            partial(
                solve_right, r1 - r0, k1 - k0, True, self.L, block, size, self.L, column + r0, size
            )
            for r0, r1 in slices(k1, size, 2 * TILE)
        ]

    def _downdates(self, panel: int, size: int, k0: int, k1: int, own: int) -> list[Task]:
        a, c = panel + k0 * size + k1, panel + k1 * size + k1
        tile = partial(downdate_tile, self.L, a, size, self.L, c, size, size - k1, k1 - k0)
        return [partial(tile, c0 - k1, c1 - k1) for c0, c1 in slices(k1, own)]


def factor(plan: Plan, pool: Pool, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the panels of the factor, and the first column known to have no pivot, or -1."""
    run = _Factorisation(plan, pool, values)
    with run.crew:
        upward(plan, run.crew, run.visit)
    pool.give(*run.updates.values())
    return run.L, min(run.lost, default=-1)


@compiled
def half_log_determinant(f, L):
    """The sum of the logarithms of the diagonal of a factor."""
    total = 0.0
    for t in range(len(f.parent)):
        own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
        for j in range(own):
            total += np.log(L[f.panel[t] + j * (own + edge) + j])
    return total
