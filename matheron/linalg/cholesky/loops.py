"""Runs of numbers added and copied between flat arrays, as vector instructions.

Slices tell the compiler that no index is negative; without them it takes one number at a time.
"""

# ruff: noqa: ANN001, ANN201
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from ..compiled import compiled

__all__ = ["add", "add_places", "copy", "copy_places", "run_ends"]


@compiled
def add(x, x_at, y, y_at, count):
    """Add ``count`` numbers of y to those of x."""
    a, b = x[x_at : x_at + count], y[y_at : y_at + count]
    for k in range(count):
        a[k] += b[k]


@compiled
def copy(x, x_at, y, y_at, count):
    """Copy ``count`` numbers of y to x."""
    a, b = x[x_at : x_at + count], y[y_at : y_at + count]
    for k in range(count):
        a[k] = b[k]


@compiled
def run_ends(places):
    """Where the run of consecutive places that holds each one ends."""
    count = len(places)
    ends, end = np.empty(count, np.int64), count
    for i in range(count - 1, -1, -1):
        if i + 1 < count and places[i + 1] != places[i] + 1:
            end = i + 1
        ends[i] = end
    return ends


@compiled
def add_places(x, x_at, y, y_at, places, ends, start):
    """Add numbers of y, from one on, to places of x, a run at once."""
    i, count = start, len(places)
    while i < count:
        add(x, x_at + places[i], y, y_at + i, ends[i] - i)
        i = ends[i]


@compiled
def copy_places(x, x_at, y, y_at, places, ends, start):
    """Copy places of y to numbers of x, from one on, a run at once."""
    i, count = start, len(places)
    while i < count:
        copy(x, x_at + i, y, y_at + places[i], ends[i] - i)
        i = ends[i]
