"""Compiled work on one block of points that all passes share."""

# ruff: noqa: ANN001, ANN201
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import math

from .lanes import WIDTH, load, maximum, splat, store, total
from .stages import assemble, blank_absent, collect, combine, factorise, radial
from ..compiled import compiled

__all__ = [
    "accumulate",
    "carve",
    "gram",
    "log_pivot",
    "lost",
    "pair_sum",
    "prepare",
    "reduce",
    "scatter",
    "scratch_size",
    "spaces",
    "unit",
]


def scratch_size(
    rows: int, dims: int, factors: int, extra: int, tangent_dims: int, parameters: int
) -> int:
    """Numbers of scratch memory that any pass needs."""
    pairs = rows * (rows + 1) // 2
    triangles = pairs * (2 + 3 * factors)
    vectors = rows * (2 * dims + 8 + 2 * extra + tangent_dims + parameters)
    sums = (1 + parameters) * (1 + extra * extra + parameters) + 2 * factors + extra + 8
    return WIDTH * (triangles + vectors + sums)


@compiled
def carve(scratch, used, vectors):
    """Next piece of scratch memory, and what is used after it."""
    end = used + vectors * WIDTH
    return scratch[used:end], end


@compiled
def prepare(
    block,
    start,
    stop,
    coords,
    noise,
    columns,
    neighbors,
    model,
    tolerance,
    want,
    want_shape,
    space,
):
    """Gather a block, evaluate its covariance and factorise it. Returns whether some row is
    absent.
    """
    factors, steps, terms, variances, table = model
    x, d, present, pivots, inverse, square, values, slopes, shapes, matrix = space
    rows = neighbors.shape[1] + 1
    pairs = rows * (rows + 1) // 2
    collect(block, start, stop, neighbors, coords, x)
    collect(block, start, stop, neighbors, noise, d)
    collect(block, start, stop, neighbors, columns, matrix[pairs * WIDTH :])
    radial(rows, x, factors, steps, table, square, values, slopes, shapes, want, want_shape)
    combine(pairs, terms, variances, values, slopes, shapes, matrix, want, want_shape)
    assemble(rows, d, matrix)
    ragged = blank_absent(block, start, stop, neighbors, matrix, present)
    factorise(rows, columns.shape[1], matrix, pivots, inverse, tolerance)
    return ragged


@compiled
def spaces(scratch, rows, dims, count, extra, want, want_shape):
    """Scratch memory of :func:`prepare`, and what is used."""
    pairs = rows * (rows + 1) // 2
    matrix, used = carve(scratch, 0, pairs + extra * rows)
    square, used = carve(scratch, used, pairs)
    values, used = carve(scratch, used, pairs * count)
    slopes, used = carve(scratch, used, pairs * count if want else 0)
    shapes, used = carve(scratch, used, pairs * count if want_shape else 0)
    x, used = carve(scratch, used, dims * rows)
    d, used = carve(scratch, used, rows)
    present, used = carve(scratch, used, rows)
    pivots, used = carve(scratch, used, rows)
    inverse, used = carve(scratch, used, rows)
    return (x, d, present, pivots, inverse, square, values, slopes, shapes, matrix), used


@compiled
def lost(block, start, rows, first, inverse, work, neighbors):
    """Point of the block with a vanished pivot at a point before ``first``, or -1."""
    smallest = load(inverse, 0)
    for p in range(1, rows):
        smallest = splat(0.0) - maximum(splat(0.0) - smallest, splat(0.0) - load(inverse, p))
    store(work, 0, smallest)
    for lane in range(WIDTH):
        if work[lane] > 0.0:
            continue
        i = block * WIDTH + lane
        for p in range(rows):
            j = start + i if p == rows - 1 else neighbors[i, p]
            if not inverse[p * WIDTH + lane] > 0.0 and j < first:
                return start + i
    return -1


@compiled
def scatter(block, stop, neighbors, values, buffer):
    """Add ``values[k, p]`` of a block to ``buffer[j, k]``."""
    size = neighbors.shape[1]
    rows = size + 1
    for lane in range(WIDTH):
        i = block * WIDTH + lane
        if i >= stop:
            return
        for p in range(rows):
            j = neighbors[i, p] if p < size else i
            if j >= 0:
                for k in range(buffer.shape[1]):
                    buffer[j, k] += values[(k * rows + p) * WIDTH + lane]


@compiled
def log_pivot(pivots, r):
    """Sum over the lanes of the log of the last pivot."""
    result = 0.0
    for lane in range(WIDTH):
        result += math.log(pivots[r * WIDTH + lane])
    return result


@compiled
def pair_sum(pairs, first, last, weights, values):
    """Sum of weights times the product of some triangles."""
    s = splat(0.0)
    for i in range(pairs):
        x = load(weights, i)
        for f in range(first, last):
            x = x * load(values, f * pairs + i)
        s = s + x
    return s


@compiled
def accumulate(sums, index, value):
    """Add to a vector of sums."""
    store(sums, index, load(sums, index) + value)


@compiled
def reduce(lanes, sums):
    """Add up the lanes of the sums."""
    for k in range(len(sums)):
        sums[k] = total(load(lanes, k))


@compiled
def gram(rows, extra, matrix, sums):
    """Add the products of the last whitened rows of the columns."""
    last = rows * (rows + 1) // 2 + rows - 1
    for k in range(extra):
        for m in range(extra):
            product = load(matrix, last + k * rows) * load(matrix, last + m * rows)
            accumulate(sums, 1 + k * extra + m, product)


@compiled
def unit(rows, present, vector, other):
    """Set a vector to the last unit vector, 0 where the point is absent, and another to 0."""
    for p in range(rows):
        store(vector, p, splat(0.0))
        store(other, p, splat(0.0))
    store(vector, rows - 1, load(present, rows - 1))
