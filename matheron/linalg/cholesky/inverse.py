"""The entries of the inverse on the pattern of a factor, from the last front to the first.

With panel [S; B] of a front, W = L_BS L_SS^-1 and Z the inverse on later rows (Takahashi):
Z_BS = -Z_BB W and Z_SS = (L_SS L_SS')^-1 - W' Z_BS. Only lower triangles are kept.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from functools import partial

from .blas import gram_down, invert, multiply, solve_left, solve_right, symmetric_multiply
from .crew import Crew, Pool, downward
from .loops import copy, copy_places, run_ends
from .numeric import LARGE, TILE, slices
from .symbolic import Plan
from ..compiled import compiled

__all__ = ["invert_on_pattern"]

BLOCK = 96
"""Columns at once in a product of which only the lower triangle is wanted."""


@compiled
def gather_boundary(f, t, c0, c1, Z, z0, above, a0):
    """Copy some columns of the inverse on the boundary of a front from that of its parent."""
    own, p = f.begin[t + 1] - f.begin[t], f.parent[t]
    places = f.places[f.row_at[t] : f.row_at[t + 1]]
    size, stride = own + len(places), f.begin[p + 1] - f.begin[p] + f.row_at[p + 1] - f.row_at[p]
    ends = run_ends(places)
    for j in range(c0, c1):
        target, source = z0 + (own + j) * size + own, a0 + places[j] * stride
        copy_places(Z, target, above, source, places, ends, j)


@compiled
def copy_block(rows, c0, c1, lower, a, a_at, a_stride, b, b_at, b_stride):
    """Copy some columns of a block, or of its lower triangle."""
    for j in range(c0, c1):
        k = j if lower else 0
        copy(b, b_at + j * b_stride + k, a, a_at + j * a_stride + k, rows - k)


@compiled
def invert_front(f, t, L, Z, z0, work):
    """Invert on the rows of a front, given the inverse on its boundary."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    panel, size = f.panel[t], own + edge
    copy_block(own, 0, own, True, L, panel, size, Z, z0, size)
    invert(own, Z, z0, size)
    if edge > 0:
        copy_block(edge, 0, own, False, L, panel + own, size, work, 0, edge)
        solve_right(edge, own, False, L, panel, size, work, 0, edge)
        below, corner = z0 + own, z0 + own * size + own
        symmetric_multiply(edge, own, -1.0, Z, corner, size, work, 0, edge, 0.0, Z, below, size)
        gram_down(own, edge, BLOCK, work, 0, edge, Z, below, size, Z, z0, size)


@compiled
def read_entries(f, t, Z, z0, values, diagonal):
    """Read the entries of the pattern from the inverse on a front."""
    own, edge = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t]
    for j in range(own):
        column, at = z0 + j * (own + edge), f.begin[t] + j
        diagonal[at] = Z[column + j]
        for k in range(f.entry_at[at], f.entry_at[at + 1]):
            value = Z[column + f.entry_row[k]]
            values[f.entry[k]] = value
            values[f.mirror[k]] = value


@compiled
def invert_subtree(f, start, end, L, Z, above, a0, work, values, diagonal):
    """Invert on the fronts of a subtree, given the inverse on its parent's front."""
    for t in range(end, start - 1, -1):
        own, edge, z0 = f.begin[t + 1] - f.begin[t], f.row_at[t + 1] - f.row_at[t], f.tail[t]
        if t == end:
            gather_boundary(f, t, 0, edge, Z, z0, above, a0)
        else:
            gather_boundary(f, t, 0, edge, Z, z0, Z, f.tail[f.parent[t]])
        if own > 0:
            invert_front(f, t, L, Z, z0, work)
            read_entries(f, t, Z, z0, values, diagonal)


@compiled
def inverse_columns(n, c0, c1, a, a_at, a_stride, x):
    """Some columns of the inverse of a triangle, zero above the diagonal; x is dense."""
    for j in range(c0, c1):
        x[j * n + c0 : (j + 1) * n] = 0.0
        x[j * n + j] = 1.0
    k = c0 * a_stride + c0
    solve_left(n - c0, c1 - c0, False, a, a_at + k, a_stride, x, c0 * n + c0, n)


@compiled
def gram_columns(n, c0, c1, x, edge, w, z, z_at, z_stride, c, c_at, c_stride):
    """Some columns of the lower triangle of X' X - W' Z, for X the inverse of a triangle."""
    width = c1 - c0
    for r0 in range(c0, n, width):
        rows = min(width, n - r0)
        multiply(
            rows, width, n - r0, True, False, 1.0, x, r0 * n + r0, n, x, c0 * n + r0, n,
            0.0, c, c_at + c0 * c_stride + r0, c_stride,
        )  # fmt: skip
    if edge > 0:
        multiply(
            n - c0, width, edge, True, False, -1.0, w, c0 * edge, edge, z, z_at + c0 * z_stride,
            z_stride, 1.0, c, c_at + c0 * c_stride + c0, c_stride,
        )  # fmt: skip


@compiled
def weights_tile(r0, r1, own, edge, L, panel, w):
    """Some rows of W = L_BS L_SS^-1."""
    size = own + edge
    copy_block(r1 - r0, 0, own, False, L, panel + own + r0, size, w, r0, edge)
    solve_right(r1 - r0, own, False, L, panel, size, w, r0, edge)


@compiled
def product_tile(c0, c1, own, edge, Z, w):
    """Some columns of Z_BS = -Z_BB W."""
    size = own + edge
    symmetric_multiply(
        edge, c1 - c0, -1.0, Z, own * size + own, size, w, c0 * edge, edge,
        0.0, Z, c0 * size + own, size,
    )  # fmt: skip


class _Inversion:
    """One inversion under way."""

    def __init__(self, plan: Plan, pool: Pool, L: np.ndarray, values: np.ndarray) -> None:
        self.plan, self.pool, self.L, self.values = plan, pool, L, values
        self.diagonal = np.empty(len(plan.order))
        self.inverses: dict[int, np.ndarray] = {-1: np.empty(1)}
        self.crew = Crew()

    def visit(self, t: int) -> None:
        """Invert on a subtree or a front."""
        plan, above = self.plan, self.inverses[int(self.plan.fronts.parent[t])]
        if not plan.whole[t]:
            self._front(t, above)
            return
        Z, work = self.pool.take(int(plan.inverse_space[t])), self.pool.take(plan.longest)
        invert_subtree(
            plan.fronts, plan.start[t], t, self.L, Z, above, 0, work, self.values, self.diagonal
        )
        self.pool.give(Z, work)

    def leave(self, t: int) -> None:
        """Give back what the children of a front needed."""
        self.pool.give(self.inverses.pop(t))

    def _front(self, t: int, above: np.ndarray) -> None:
        f, own, edge = self.plan.fronts, self.plan.own(t), self.plan.edge(t)
        Z = self.inverses[t] = self.pool.take((own + edge) ** 2)
        parts = slices(0, edge)
        self.crew.together([
            partial(gather_boundary, f, t, c0, c1, Z, 0, above, 0) for c0, c1 in parts
        ])  # fmt: skip
        if own == 0:
            return
        work = self.pool.take(edge * own)
        if own * (own + edge) ** 2 < LARGE:
            invert_front(f, t, self.L, Z, 0, work)
        else:
            self._in_tiles(t, own, edge, Z, work)
        self.pool.give(work)
        read_entries(f, t, Z, 0, self.values, self.diagonal)

    def _in_tiles(self, t: int, own: int, edge: int, Z: np.ndarray, work: np.ndarray) -> None:
        L, panel, size = self.L, int(self.plan.fronts.panel[t]), own + edge
        x, columns = self.pool.take(own * own), slices(0, own)
        rows = slices(0, edge, 2 * TILE)
        together = self.crew.together
        together(
            [partial(inverse_columns, own, c0, c1, L, panel, size, x) for c0, c1 in columns]
            + [partial(weights_tile, r0, r1, own, edge, L, panel, work) for r0, r1 in rows]
        )
        if edge > 0:
            together([partial(product_tile, c0, c1, own, edge, Z, work) for c0, c1 in columns])
        together([
            partial(gram_columns, own, c0, c1, x, edge, work, Z, own, size, Z, 0, size)
            for c0, c1 in columns
        ])  # fmt: skip
        self.pool.give(x)


def invert_on_pattern(
    plan: Plan, pool: Pool, L: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Write the entries of the inverse on the pattern; return them, and the diagonal."""
    run = _Inversion(plan, pool, L, values)
    with run.crew:
        downward(plan, run.crew, run.visit, run.leave)
    return values, run.diagonal[plan.back]
