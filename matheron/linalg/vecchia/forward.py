"""Compiled pass over runs of blocks: value, gradient and Fisher information, forward."""

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
    prepare,
    reduce,
    spaces,
    unit,
)
from .lanes import WIDTH, load, splat, sqrt, store
from .stages import back_solve, collect, forward_solve, multiply
from ..compiled import compiled

__all__ = ["fisher_chunk"]


@compiled
def tangent(rows, x, dx, j, factors, terms, tangents, values, slopes, shapes, want_shape, out):
    """Derivative of the pairs of a block along parameter ``j``; its diagonal is set to zero."""
    by_variance, by_shape, by_coords = tangents
    pairs = rows * (rows + 1) // 2
    for i in range(pairs):
        store(out, i, splat(0.0))
    for t in range(len(terms) - 1):
        if by_variance[j, t] != 0.0:
            scale = splat(by_variance[j, t])
            for i in range(pairs):
                product = scale
                for f in range(terms[t], terms[t + 1]):
                    product = product * load(values, f * pairs + i)
                store(out, i, load(out, i) + product)
    for f in range(len(factors)):
        if want_shape and by_shape[j, f] != 0.0:
            scale = splat(by_shape[j, f])
            for i in range(pairs):
                store(out, i, load(out, i) + scale * load(shapes, f * pairs + i))
        if by_coords[j, f] >= 0:
            for d in range(factors[f, 1], factors[f, 2]):
                e = by_coords[j, f] + d - factors[f, 1]
                for p in range(rows):
                    base = p * (p + 1) // 2
                    xp = load(x, d * rows + p)
                    tp = load(dx, e * rows + p)
                    for q in range(p):
                        s = (xp - load(x, d * rows + q)) * (tp - load(dx, e * rows + q))
                        store(
                            out,
                            base + q,
                            load(out, base + q) + s * load(slopes, f * pairs + base + q),
                        )
    for p in range(rows):
        store(out, p * (p + 1) // 2 + p, splat(0.0))


@compiled
def scaled_signal(rows, rate, noise, a, pivots, out):
    """Derivative of a block times ``a`` when the signal is scaled: no pair is visited.

    The signal is the block less its noise, and the block times ``a`` is the last unit vector
    times the last entry of the factor.
    """
    for p in range(rows):
        store(out, p, splat(0.0) - splat(rate) * load(noise, p) * load(a, p))
    end = load(out, rows - 1) + splat(rate) * sqrt(load(pivots, rows - 1))
    store(out, rows - 1, end)


@compiled
def times(rows, scale, vector, out):
    """Product of a number and a vector."""
    for p in range(rows):
        store(out, p, splat(scale) * load(vector, p))


@compiled
def add_product(rows, first, offset, second, out):
    """Add the product of ``first`` from ``offset`` on and ``second``, entry by entry."""
    for p in range(rows):
        store(out, p, load(out, p) + load(first, offset + p) * load(second, p))


@compiled
def mask(rows, present, out):
    """Set absent rows to 0."""
    for p in range(rows):
        store(out, p, load(out, p) * load(present, p))


@compiled
def dot(rows, first, i, second, j):
    """Inner product of two vectors that start at ``i`` and ``j``."""
    s = splat(0.0)
    for p in range(rows):
        s = s + load(first, i + p) * load(second, j + p)
    return s


@compiled
def record(rows, extra, parameters, j, matrix, g, here, sums):
    """Add the derivatives along parameter ``j`` and its row of the information.

    The derivative of the gram is half of it, to be added to its transpose, less its sign.
    """
    pairs = rows * (rows + 1) // 2
    end = load(g, j * rows + rows - 1)
    accumulate(sums, here, end)
    for k in range(extra):
        s = dot(rows, matrix, pairs + k * rows, g, j * rows)
        s = s - splat(0.5) * end * load(matrix, pairs + k * rows + rows - 1)
        for m in range(extra):
            accumulate(
                sums, here + 1 + k * extra + m, s * load(matrix, pairs + m * rows + rows - 1)
            )
    for m in range(j + 1):
        s = dot(rows, g, j * rows, g, m * rows)
        s = s - splat(0.5) * end * load(g, m * rows + rows - 1)
        accumulate(sums, here + 1 + extra * extra + m, s)


@compiled
def fisher_chunk(
    first,
    last,
    start,
    coords,
    noise,
    columns,
    neighbors,
    model,
    tolerance,
    tangents,
    common,
    packed,
    noises,
    want,
    scratch,
    sums,
):
    """Value, gradient and Fisher information over the blocks ``first`` to ``last``.

    ``common[j]`` is (whether parameter ``j`` only scales the whole signal, its relative rate,
    whether it changes the noise). ``packed`` holds the tangents of the coordinates,
    ``noises[:, j]`` those of the noise. ``sums`` receives logdet, gram, then for each parameter
    dlogdet, dgram and one row of the information.
    """
    factors, _, terms, variances, _ = model
    stop, size = neighbors.shape
    rows = size + 1
    extra = columns.shape[1]
    parameters = len(common)
    width = 1 + extra * extra + parameters
    want_coords, want_shape, want_noise = want
    space, used = spaces(
        scratch, rows, coords.shape[1], len(factors), extra, want_coords, want_shape
    )
    x, d, present, pivots, inverse, work, values, slopes, shapes, matrix = space
    a, used = carve(scratch, used, rows)
    b, used = carve(scratch, used, rows)
    dx, used = carve(scratch, used, packed.shape[1] * rows)
    dn, used = carve(scratch, used, parameters * rows)
    g, used = carve(scratch, used, parameters * rows)
    acc, used = carve(scratch, used, len(sums))
    acc[:] = 0.0
    bad = -1
    logdet = 0.0
    for block in range(first, last):
        ragged = prepare(
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
        collect(block, start, stop, neighbors, packed, dx)
        if want_noise:
            collect(block, start, stop, neighbors, noises, dn)
        unit(rows, present, a, b)
        back_solve(rows, matrix, inverse, a, b)
        for j in range(parameters):
            v = g[j * rows * WIDTH : (j + 1) * rows * WIDTH]
            if common[j, 0] != 0.0:
                scaled_signal(rows, common[j, 1], d, a, pivots, v)
            else:
                diagonal = 0.0
                for t in range(len(variances)):
                    diagonal += tangents[0][j, t]
                tangent(
                    rows,
                    x,
                    dx,
                    j,
                    factors,
                    terms,
                    tangents,
                    values,
                    slopes,
                    shapes,
                    want_shape,
                    work,
                )
                times(rows, diagonal, a, v)
                multiply(rows, work, a, v)
            if common[j, 2] != 0.0:
                add_product(rows, dn, j * rows, a, v)
            if ragged:
                mask(rows, present, v)
            forward_solve(rows, matrix, inverse, v)
        for j in range(parameters):
            record(rows, extra, parameters, j, matrix, g, 1 + extra * extra + j * width, acc)
    reduce(acc, sums)
    sums[0] = logdet
    return bad
