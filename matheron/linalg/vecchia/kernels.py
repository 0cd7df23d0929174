"""Compiled passes over runs of blocks: value with gradient, and prediction weights.

Each run has its own scratch memory and its own sums: any number of threads gives the same bits.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

from .blocks import (
    accumulate,
    carve,
    gram,
    log_pivot,
    lost,
    pair_sum,
    prepare,
    reduce,
    scatter,
    spaces,
    unit,
)
from .lanes import WIDTH, load, positive, splat, sqrt, store
from .stages import adjoint, back_solve, forces
from ..compiled import compiled

__all__ = ["predict_chunk", "reverse_chunk"]


@compiled
def pull(rows, extra, weights, matrix, mw, b):
    """Adjoint ``M w_r`` of the last whitened rows, and ``W M w_r`` with its last entry 0.

    Returns ``w_r' M w_r``.
    """
    pairs = rows * (rows + 1) // 2
    quadratic = splat(0.0)
    for k in range(extra):
        s = splat(0.0)
        for m in range(extra):
            s = s + splat(weights[k, m]) * load(matrix, pairs + m * rows + rows - 1)
        store(mw, k, s)
        quadratic = quadratic + s * load(matrix, pairs + k * rows + rows - 1)
        for p in range(rows - 1):
            store(b, p, load(b, p) + s * load(matrix, pairs + k * rows + p))
    return quadratic


@compiled
def column_adjoints(rows, extra, mw, a, out):
    """Adjoints of the columns, ``2 a (M w_r)'``, after one row of ``out``."""
    for k in range(extra):
        s = load(mw, k) + load(mw, k)
        for p in range(rows):
            store(out, (1 + k) * rows + p, s * load(a, p))


@compiled
def diagonal(rows, matrix, out):
    """Diagonal of a triangle."""
    for p in range(rows):
        store(out, p, load(matrix, p * (p + 1) // 2 + p))


@compiled
def reverse_chunk(
    first,
    last,
    start,
    coords,
    noise,
    columns,
    neighbors,
    model,
    tolerance,
    g0,
    weights,
    want,
    scratch,
    sums,
    buffer,
):
    """Value over the blocks ``first`` to ``last`` and, where wanted, its gradient.

    The gradient is that of ``g0 logdet + sum(weights * gram)``. ``want`` holds three flags:
    gradient, gradient of the shapes, gradient of the coordinates. ``sums`` receives logdet, gram,
    and the gradients of the variances and of the shapes; ``buffer`` those of the noise, of the
    columns and of the coordinates, side by side. Returns the first datum where the matrix is not
    positive definite, or -1.
    """
    factors, _, terms, variances, _ = model
    stop, size = neighbors.shape
    rows = size + 1
    pairs = rows * (rows + 1) // 2
    extra = columns.shape[1]
    dims = coords.shape[1]
    here = 1 + extra * extra
    gradient, want_shape, want_coords = want
    space, used = spaces(scratch, rows, dims, len(factors), extra, want_coords, want_shape)
    x, _, present, pivots, inverse, _, values, slopes, shapes, matrix = space
    a, used = carve(scratch, used, rows)
    b, used = carve(scratch, used, rows)
    work, used = carve(scratch, used, (1 + extra + dims) * rows)
    moves = work[(1 + extra) * rows * WIDTH :]
    mw, used = carve(scratch, used, extra)
    acc, used = carve(scratch, used, len(sums))
    acc[:] = 0.0
    bad = -1
    logdet = 0.0
    for block in range(first, last):
        prepare(
            block,
            start,
            stop,
            coords,
            noise,
            columns,
            neighbors,
            model,
            tolerance,
            want_coords,
            want_shape,
            space,
        )
        if bad < 0:
            bad = lost(block, start, rows, stop, inverse, work, neighbors)
        logdet += log_pivot(pivots, rows - 1)
        gram(rows, extra, matrix, acc)
        if not gradient:
            continue
        unit(rows, present, a, b)
        quadratic = pull(rows, extra, weights, matrix, mw, b)
        back_solve(rows, matrix, inverse, a, b)
        column_adjoints(rows, extra, mw, a, work)
        adjoint(rows, a, b, splat(g0) - quadratic, matrix)
        diagonal(rows, matrix, work)
        for t in range(len(variances)):
            s = pair_sum(pairs, terms[t], terms[t + 1], matrix, values)
            accumulate(acc, here + t, s)
        for f in range(len(factors)):
            if want_shape:
                s = pair_sum(pairs, f, f + 1, matrix, shapes)
                accumulate(acc, here + len(variances) + f, s)
            if want_coords:
                slope = slopes[f * pairs * WIDTH : (f + 1) * pairs * WIDTH]
                forces(rows, x, factors[f, 1], factors[f, 2], matrix, slope, moves)
        scatter(block, stop, neighbors, work, buffer)
    reduce(acc, sums)
    sums[0] = logdet
    return bad


@compiled
def predict_chunk(
    first,
    last,
    start,
    coords,
    noise,
    columns,
    neighbors,
    model,
    tolerance,
    want,
    scratch,
    weights,
    std,
):
    """Weights and standard deviations of the targets of the blocks ``first`` to ``last``, given
    their neighbours.
    """
    stop = coords.shape[0]
    size = neighbors.shape[1]
    rows = size + 1
    r = rows - 1
    base = r * (r + 1) // 2
    space, used = spaces(scratch, rows, coords.shape[1], len(model[0]), columns.shape[1], *want)
    _, _, _, pivots, inverse, work, _, _, _, matrix = space
    a, used = carve(scratch, used, rows)
    b, used = carve(scratch, used, rows)
    bad = -1
    for block in range(first, last):
        prepare(
            block,
            start,
            stop,
            coords,
            noise,
            columns,
            neighbors,
            model,
            tolerance,
            *want,
            space,
        )
        if bad < 0:
            bad = lost(block, start, rows, start, inverse, work, neighbors)
        for p in range(r):
            store(a, p, load(matrix, base + p))
            store(b, p, splat(0.0))
        store(a, r, splat(0.0))
        store(b, r, splat(0.0))
        back_solve(rows, matrix, inverse, a, b)
        pivot = load(pivots, r)
        store(b, 0, sqrt(positive(pivot, pivot)))
        for lane in range(WIDTH):
            i = block * WIDTH + lane
            if i < stop - start:
                std[i] = b[lane]
                for p in range(size):
                    weights[i, p] = a[p * WIDTH + lane]
    return bad
