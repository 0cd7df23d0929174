"""Cutting a part of a graph in two by a small set of vertices.

A part is a run of the array ``order``. Its vertices carry a label that tells their side, the
vertices of other parts another one, so that parts are cut in different threads.
"""

# ruff: noqa: ANN001, ANN201, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from ..compiled import compiled

__all__ = ["OUTSIDE", "cut_by_levels", "cut_by_places", "gather_sides", "separate"]

SAMPLE = 8192
"""Vertices that tell where to cut."""
LARGE_SAMPLE = 65536
"""Vertices that tell how long the separator of a cut is."""
CLEARLY = 0.85
"""An axis is taken before an earlier one, diagonals coming first, if it costs less than this."""
LEFT, RIGHT, BETWEEN = 1, 2, 3
OUTSIDE = -1
PASSES = 4


@compiled
def _jitter(seed):
    """The next number of a simple sequence. Its low digits repeat, as the rows of a lattice do: a
    draw takes the others.
    """
    return (1103515245 * seed + 12345) % 2147483648


@compiled
def _threshold(part, x):
    """A value that parts a sample along one axis in halves, or nearly so where some are equal."""
    step, seed = 1 + len(part) // SAMPLE, 0
    count = (len(part) + step - 1) // step
    some = np.empty(count)
    for k in range(count):
        seed = _jitter(seed)
        some[k] = x[part[min(k * step + (seed >> 8) % step, len(part) - 1)]]
    middle = np.partition(some, count // 2)[count // 2]
    below, above, fewer, more = -np.inf, np.inf, 0, 0
    for value in some:
        if value < middle:
            below, fewer = max(below, value), fewer + 1
        elif value > middle:
            above, more = min(above, value), more + 1
    if fewer == 0 and more == 0:
        return np.nan
    return _between(below, middle) if fewer >= more else _between(middle, above)


@compiled
def _between(below, above):
    middle = 0.5 * (below + above)
    return middle if middle > below else above


@compiled
def _crossing(part, weight, x, down, up, value):
    """The weight of each side, and that of its vertices that reach across, in a sample."""
    step, seed = 1 + len(part) // LARGE_SAMPLE, 0
    left, right, from_left, from_right = 0, 0, 0, 0
    for k in range(0, len(part), step):
        seed = _jitter(seed)
        u = part[min(k + (seed >> 8) % step, len(part) - 1)]
        if x[u] < value:
            left += weight[u]
            if x[u] + up[u] >= value:
                from_left += weight[u]
        else:
            right += weight[u]
            if x[u] - down[u] < value:
                from_right += weight[u]
    return left, right, from_left, from_right


@compiled
def cut_by_places(part, mark, weight, x, down, up, label, found):
    """Label the sides of a part by the best cut across an axis, and find the candidates to
    separate them; their number, or -1 if there is no cut.

    The best axis has the lightest separator for the lighter side. ``x``, ``down`` and ``up`` have
    one row per axis: the coordinate, and how far neighbours are on either side.
    """
    best, axis, value, side = np.inf, -1, 0.0, RIGHT
    for a in range(len(x)):
        at = _threshold(part, x[a])
        if np.isnan(at):
            continue
        left, right, from_left, from_right = _crossing(part, weight, x[a], down[a], up[a], at)
        cost = min(from_left, from_right) / max(1, min(left, right))
        if cost < CLEARLY * best:
            best, axis, value = cost, a, at
            side = LEFT if from_left < from_right else RIGHT
    if axis < 0:
        return -1
    return _label_across(part, mark, x[axis], down[axis], up[axis], value, side, label, found)


@compiled
def _label_across(part, mark, x, down, up, value, side, label, found):
    count = 0
    for u in part:
        left = x[u] < value
        label[u] = mark + (LEFT if left else RIGHT)
        reaches = x[u] + up[u] >= value if left else x[u] - down[u] < value
        if reaches and left == (side == LEFT):
            found[count] = u
            count += 1
    return count


@compiled
def _walk(start, ptr, col, inside, label, level, queue, count, depth):
    """Levels of the vertices that can be reached from one; the count of those found, the depth."""
    queue[count], level[start] = start, depth
    head, count = count, count + 1
    while head < count:
        u = queue[head]
        head += 1
        for p in range(ptr[u], ptr[u + 1]):
            v = col[p]
            if label[v] == inside and level[v] < 0:
                level[v] = level[u] + 1
                queue[count] = v
                count += 1
    return count, level[queue[count - 1]]


@compiled
def _levels(part, start, ptr, col, inside, label, level, queue):
    """Levels from a vertex; what it does not reach comes after, one component at a time."""
    for u in part:
        level[u] = -1
    count, depth = _walk(start, ptr, col, inside, label, level, queue, 0, 0)
    for u in part:
        if level[u] < 0:
            count, depth = _walk(
                u, ptr, col, inside, label, level, queue, count, depth + 1
            )  # fmt: skip
    return depth


@compiled
def cut_by_levels(part, mark, weight, ptr, col, label, found, level):
    """Label the sides of a part by the distance from a vertex at its rim, and find the candidates
    to separate them; their number, or -1 if there is no cut.
    """
    total = 0
    for u in part:
        label[u] = mark
        total += weight[u]
    depth = _levels(part, part[0], ptr, col, mark, label, level, found)
    for _ in range(2):
        deeper = _levels(part, found[len(part) - 1], ptr, col, mark, label, level, found)
        if deeper <= depth:
            break
        depth = deeper
    if depth == 0:
        return -1
    at, before, after = _half(found[: len(part)], weight, level, total)
    side = LEFT if before < after else RIGHT
    count = 0
    for u in part:
        label[u] = mark + (LEFT if level[u] < at else RIGHT)
        if level[u] == (at - 1 if side == LEFT else at):
            found[count] = u
            count += 1
    return count


@compiled
def _half(queue, weight, level, total):
    """The level at which half the weight is passed, and the weights of the levels around it."""
    below, at, before, after = 0, 1, 0, 0
    for u in queue:
        if level[u] > at and 2 * below >= total:
            break
        if level[u] > at:
            at, before, after = level[u], after, 0
        below += weight[u]
        if level[u] == at:
            after += weight[u]
        elif at == 1:
            before += weight[u]
    return at, before, after


@compiled
def _weight_facing(u, mark, side, weight, ptr, col, label):
    """The weight of the neighbours of a vertex that are on a side."""
    found = 0
    for p in range(ptr[u], ptr[u + 1]):
        if label[col[p]] == mark + side:
            found += weight[col[p]]
    return found


@compiled
def separate(part, mark, weight, ptr, col, label, found, count):
    """Make a separator of the candidates that face the other side, and thin it; its length.

    The separator is then in ``found``, which may hold other vertices too.
    """
    kept = 0
    for u in found[:count]:
        side = label[u] - mark
        if _weight_facing(u, mark, LEFT + RIGHT - side, weight, ptr, col, label) > 0:
            found[kept] = u
            kept += 1
    for u in found[:kept]:
        label[u] = mark + BETWEEN
    sides = np.zeros(4, np.int64)
    for u in part:
        sides[label[u] - mark] += weight[u]
    for _ in range(PASSES):
        before = sides[BETWEEN]
        kept = _thin(mark, weight, ptr, col, label, found, kept, sides)
        if sides[BETWEEN] == before:
            break
    return sides


@compiled
def _thin(mark, weight, ptr, col, label, found, count, sides):
    """Move vertices of the separator to a side where that makes it lighter."""
    k = 0
    while k < count:
        u = found[k]
        k += 1
        if label[u] != mark + BETWEEN:
            continue
        left = _weight_facing(u, mark, LEFT, weight, ptr, col, label)
        right = _weight_facing(u, mark, RIGHT, weight, ptr, col, label)
        lighter = LEFT if sides[LEFT] <= sides[RIGHT] else RIGHT
        to = LEFT if right < left else (RIGHT if left < right else lighter)
        drawn = right if to == LEFT else left
        if drawn >= weight[u] or (to != lighter and 5 * sides[to] > 7 * sides[LEFT + RIGHT - to]):
            continue
        label[u] = mark + to
        sides[to] += weight[u]
        sides[BETWEEN] -= weight[u] - drawn
        sides[LEFT + RIGHT - to] -= drawn
        count = _draw(u, mark, LEFT + RIGHT - to, ptr, col, label, found, count)
    return count


@compiled
def _draw(u, mark, side, ptr, col, label, found, count):
    """Draw the neighbours of a vertex that are on a side into the separator."""
    for p in range(ptr[u], ptr[u + 1]):
        v = col[p]
        if label[v] == mark + side:
            label[v] = mark + BETWEEN
            if count < len(found):
                found[count] = v
                count += 1
    return count


@compiled
def gather_sides(part, mark, label, spare):
    """Sort a part as left, right and separator, keeping the order of each; where they end."""
    ends = np.zeros(4, np.int64)
    for u in part:
        ends[label[u] - mark] += 1
    left, right = ends[LEFT], ends[LEFT] + ends[RIGHT]
    a, b, c = 0, left, right
    for u in part:
        side = label[u] - mark
        if side == LEFT:
            spare[a] = u
            a += 1
        elif side == RIGHT:
            spare[b] = u
            b += 1
        else:
            spare[c] = u
            c += 1
        label[u] = OUTSIDE
    part[:] = spare[: len(part)]
    return left, right
