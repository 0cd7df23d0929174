"""Stages of a block of eight points: distances, radial functions, Cholesky factor, solves,
adjoints.

A block holds eight points, one per lane. Each has ``rows`` rows: its neighbours first, itself
last. Symmetric matrices are stored by
rows of their lower triangle, diagonal included: entry (p, q) is vector ``p (p + 1) / 2 + q``.
Absent neighbours become rows of the
identity: they have no effect at all.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

from .lanes import WIDTH, exp, floor, gather, load, maximum, positive, splat, sqrt, store
from ..compiled import compiled

__all__ = [
    "adjoint",
    "assemble",
    "back_solve",
    "blank_absent",
    "collect",
    "combine",
    "factorise",
    "forces",
    "forward_solve",
    "multiply",
    "radial",
]

TINY = 1e-290
EXPONENTIAL, MATERN32, MATERN52, GAUSSIAN, TABLE = range(5)


@compiled
def collect(block, start, stop, neighbors, values, out):
    """Gather the columns ``values[j, k]`` of the rows of a block into ``out[k, p]``, zero where
    absent.
    """
    size = neighbors.shape[1]
    width = values.shape[1]
    rows = size + 1
    for lane in range(WIDTH):
        i = block * WIDTH + lane
        for p in range(rows):
            j = -1
            if i < stop - start:
                j = neighbors[i, p] if p < size else start + i
            for k in range(width):
                out[(k * rows + p) * WIDTH + lane] = values[j, k] if j >= 0 else 0.0


@compiled
def squared_distance(coords, first, last, rows, out):
    """Squared distances over the dimensions ``first`` to ``last``."""
    for p in range(rows):
        start = p * (p + 1) // 2
        if last - first == 2:
            x = load(coords, first * rows + p)
            y = load(coords, (first + 1) * rows + p)
            for q in range(p + 1):
                a = x - load(coords, first * rows + q)
                b = y - load(coords, (first + 1) * rows + q)
                store(out, start + q, a * a + b * b)
        else:
            for q in range(p + 1):
                store(out, start + q, splat(0.0))
            for d in range(first, last):
                x = load(coords, d * rows + p)
                for q in range(p + 1):
                    a = x - load(coords, d * rows + q)
                    store(out, start + q, load(out, start + q) + a * a)


@compiled
def radial_closed(kind, pairs, square, value, slope, want):
    """Closed forms: the function and, where wanted, its derivative over the distance."""
    one = splat(1.0)
    zero = splat(0.0)
    third = splat(1.0 / 3.0)
    if kind == GAUSSIAN:
        for i in range(pairs):
            e = exp(zero - splat(0.5) * load(square, i))
            store(value, i, e)
            if want:
                store(slope, i, zero - e)
    elif kind == EXPONENTIAL:
        for i in range(pairs):
            u2 = load(square, i)
            u = sqrt(u2)
            e = exp(zero - u)
            store(value, i, e)
            if want:
                store(slope, i, positive(u2 - splat(TINY), zero - e / u))
    elif kind == MATERN32:
        for i in range(pairs):
            u = sqrt(load(square, i))
            e = exp(zero - u)
            store(value, i, (one + u) * e)
            if want:
                store(slope, i, zero - e)
    else:
        for i in range(pairs):
            u2 = load(square, i)
            u = sqrt(u2)
            e = exp(zero - u) * third
            store(value, i, (splat(3.0) + splat(3.0) * u + u2) * e)
            if want:
                store(slope, i, zero - (one + u) * e)


@compiled
def radial_table(
    pairs,
    square,
    table,
    first,
    knots,
    roots,
    inverse_step,
    value,
    slope,
    by_shape,
    want,
    want_shape,
):
    """Cubic Hermite table: the function, its derivative over the distance, its derivative in the
    shape.
    """
    end = splat(float(knots - 1))
    last = splat(float(knots - 2))
    zero = splat(0.0)
    scale = splat(inverse_step)
    share = splat(1.0 / 2.0**roots)
    for i in range(pairs):
        u2 = load(square, i)
        s = sqrt(u2)
        for _ in range(roots):
            s = sqrt(s)
        x = s * scale
        inside = end - x
        k = floor(zero - maximum(zero - x, zero - last))
        t = x - k
        k = k + splat(float(first))
        a = gather(table, k, 0)
        da = gather(table, k, 1)
        b = gather(table, k, 4)
        db = gather(table, k, 5)
        step = b - a
        c2 = splat(3.0) * step - da - da - db
        c3 = da + db - step - step
        store(value, i, positive(inside, a + t * (da + t * (c2 + t * c3))))
        if want:
            d = (da + t * (c2 + c2 + splat(3.0) * t * c3)) * x * share / u2
            store(slope, i, positive(inside, positive(u2 - splat(TINY), d)))
        if want_shape:
            a = gather(table, k, 2)
            da = gather(table, k, 3)
            b = gather(table, k, 6)
            db = gather(table, k, 7)
            step = b - a
            c2 = splat(3.0) * step - da - da - db
            c3 = da + db - step - step
            store(by_shape, i, positive(inside, a + t * (da + t * (c2 + t * c3))))


@compiled
def radial(rows, coords, factors, steps, table, scratch, values, slopes, shapes, want, want_shape):
    """All radial functions of a block: ``values``, ``slopes`` and ``shapes`` hold one triangle per
    factor.
    """
    pairs = rows * (rows + 1) // 2
    for f in range(factors.shape[0]):
        kind = factors[f, 0]
        squared_distance(coords, factors[f, 1], factors[f, 2], rows, scratch)
        here = slice(f * pairs * WIDTH, (f + 1) * pairs * WIDTH)
        value = values[here]
        slope = slopes[here] if want else slopes[:0]
        by_shape = shapes[here] if want_shape else shapes[:0]
        if kind == TABLE:
            radial_table(
                pairs,
                scratch,
                table,
                factors[f, 3],
                factors[f, 4],
                factors[f, 5],
                steps[f],
                value,
                slope,
                by_shape,
                want,
                want_shape,
            )
        else:
            radial_closed(kind, pairs, scratch, value, slope, want)
            if want_shape:
                by_shape[:] = 0.0


@compiled
def combine(pairs, terms, variances, values, slopes, shapes, matrix, want, want_shape):
    """Sum of products; slopes and shapes become derivatives of the sum with respect to their own
    factor.
    """
    for t in range(len(variances)):
        variance = splat(variances[t])
        first = terms[t]
        last = terms[t + 1]
        for i in range(pairs):
            product = variance
            for f in range(first, last):
                product = product * load(values, f * pairs + i)
            store(matrix, i, product if t == 0 else load(matrix, i) + product)
        if want or want_shape:
            for f in range(first, last):
                for i in range(pairs):
                    others = variance
                    for g in range(first, last):
                        if g != f:
                            others = others * load(values, g * pairs + i)
                    if want:
                        store(slopes, f * pairs + i, others * load(slopes, f * pairs + i))
                    if want_shape:
                        store(shapes, f * pairs + i, others * load(shapes, f * pairs + i))


@compiled
def blank_absent(block, start, stop, neighbors, matrix, present):
    """Turn absent rows into rows of the identity; ``present`` is 1 or 0. Returns whether any row
    is absent.
    """
    size = neighbors.shape[1]
    found = False
    for lane in range(WIDTH):
        i = block * WIDTH + lane
        for p in range(size + 1):
            here = i < stop - start and (p == size or neighbors[i, p] >= 0)
            present[p * WIDTH + lane] = 1.0 if here else 0.0
            if here:
                continue
            found = True
            for q in range(p):
                matrix[(p * (p + 1) // 2 + q) * WIDTH + lane] = 0.0
            for q in range(p + 1, size + 1):
                matrix[(q * (q + 1) // 2 + p) * WIDTH + lane] = 0.0
            matrix[(p * (p + 1) // 2 + p) * WIDTH + lane] = 1.0
    return found


@compiled
def assemble(rows, noise, matrix):
    """Add the noise to the diagonal."""
    for p in range(rows):
        d = p * (p + 1) // 2 + p
        store(matrix, d, load(matrix, d) + load(noise, p))


@compiled
def start_of(p, rows):
    """First vector of row ``p``: a row of the triangle, or one of the full rows of right-hand
    sides after it.
    """
    return p * (p + 1) // 2 if p < rows else rows * (rows + 1) // 2 + (p - rows) * rows


@compiled
def factorise(rows, extra, matrix, pivots, inverse, tolerance):
    """Cholesky factor in place, ``extra`` right-hand sides stored as further rows being solved on
    the way.

    ``pivots`` receives the squared diagonal of the factor and ``inverse`` its inverse root: 0
    where the pivot is lost in round-off.
    """
    zero = splat(0.0)
    one = splat(1.0)
    share = splat(tolerance)
    for p in range(rows):
        store(pivots, p, load(matrix, start_of(p, rows) + p))
    for q in range(rows):
        base = start_of(q, rows)
        pivot = load(pivots, q)
        root = positive(pivot - share * load(matrix, base + q), one / sqrt(pivot))
        store(inverse, q, root)
        p = q + 1
        while p + 4 <= rows + extra:
            r0 = start_of(p, rows)
            r1 = start_of(p + 1, rows)
            r2 = start_of(p + 2, rows)
            r3 = start_of(p + 3, rows)
            a0 = load(matrix, r0 + q)
            a1 = load(matrix, r1 + q)
            a2 = load(matrix, r2 + q)
            a3 = load(matrix, r3 + q)
            for r in range(q):
                x = load(matrix, base + r)
                a0 = a0 - load(matrix, r0 + r) * x
                a1 = a1 - load(matrix, r1 + r) * x
                a2 = a2 - load(matrix, r2 + r) * x
                a3 = a3 - load(matrix, r3 + r) * x
            a0 = a0 * root
            a1 = a1 * root
            a2 = a2 * root
            a3 = a3 * root
            store(matrix, r0 + q, a0)
            store(matrix, r1 + q, a1)
            store(matrix, r2 + q, a2)
            store(matrix, r3 + q, a3)
            if p < rows:
                store(pivots, p, load(pivots, p) - a0 * a0)
            if p + 1 < rows:
                store(pivots, p + 1, load(pivots, p + 1) - a1 * a1)
            if p + 2 < rows:
                store(pivots, p + 2, load(pivots, p + 2) - a2 * a2)
            if p + 3 < rows:
                store(pivots, p + 3, load(pivots, p + 3) - a3 * a3)
            p += 4
        while p < rows + extra:
            r0 = start_of(p, rows)
            a0 = load(matrix, r0 + q)
            b0 = zero
            r = 0
            while r + 2 <= q:
                a0 = a0 - load(matrix, r0 + r) * load(matrix, base + r)
                b0 = b0 - load(matrix, r0 + r + 1) * load(matrix, base + r + 1)
                r += 2
            if r < q:
                a0 = a0 - load(matrix, r0 + r) * load(matrix, base + r)
            a0 = (a0 + b0) * root
            store(matrix, r0 + q, a0)
            if p < rows:
                store(pivots, p, load(pivots, p) - a0 * a0)
            p += 1


@compiled
def forward_solve(rows, matrix, inverse, vector):
    """Solve L g = v in place."""
    for p in range(rows):
        base = p * (p + 1) // 2
        a = load(vector, p)
        b = splat(0.0)
        q = 0
        while q + 2 <= p:
            a = a - load(matrix, base + q) * load(vector, q)
            b = b - load(matrix, base + q + 1) * load(vector, q + 1)
            q += 2
        if q < p:
            a = a - load(matrix, base + q) * load(vector, q)
        store(vector, p, (a + b) * load(inverse, p))


@compiled
def back_solve(rows, matrix, inverse, first, second):
    """Solve L' x = v in place for two vectors."""
    for k in range(rows):
        p = rows - 1 - k
        base = p * (p + 1) // 2
        a = load(first, p) * load(inverse, p)
        b = load(second, p) * load(inverse, p)
        store(first, p, a)
        store(second, p, b)
        for q in range(p):
            x = load(matrix, base + q)
            store(first, q, load(first, q) - x * a)
            store(second, q, load(second, q) - x * b)


@compiled
def multiply(rows, triangle, vector, out):
    """Product of a symmetric matrix with zero diagonal and a vector, added to ``out``."""
    for p in range(rows):
        base = p * (p + 1) // 2
        x = load(vector, p)
        s = splat(0.0)
        for q in range(p):
            e = load(triangle, base + q)
            s = s + e * load(vector, q)
            store(out, q, load(out, q) + e * x)
        store(out, p, load(out, p) + s)


@compiled
def adjoint(rows, first, second, alpha, matrix):
    """Adjoint of the covariance block, alpha a a' - a b' - b a', off-diagonal entries doubled."""
    for p in range(rows):
        base = p * (p + 1) // 2
        a = load(first, p)
        b = load(second, p)
        h = alpha * a - b
        a2 = a + a
        h2 = h + h
        for q in range(p):
            store(matrix, base + q, h2 * load(first, q) - a2 * load(second, q))
        store(matrix, base + p, h * a - a * b)


@compiled
def forces(rows, coords, first, last, weights, slope, out):
    """Gradient of the coordinates ``first`` to ``last`` from the adjoint of the pairs and the
    slope of one factor.
    """
    for d in range(first, last):
        for p in range(rows):
            base = p * (p + 1) // 2
            x = load(coords, d * rows + p)
            s = splat(0.0)
            for q in range(p):
                t = (
                    load(weights, base + q)
                    * load(slope, base + q)
                    * (x - load(coords, d * rows + q))
                )
                s = s + t
                store(out, d * rows + q, load(out, d * rows + q) - t)
            store(out, d * rows + p, s)
