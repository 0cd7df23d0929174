r"""What a list of triangles must be to make a mesh, and which of its sides are outer ones."""

from __future__ import annotations

__all__ = ["check_triangles", "outer_sides"]

import numpy as np

FLAT = 1e-10
"""An area, in squares of the longest side, below which a triangle is flat."""


def _refuse(got: str, cure: str) -> None:
    msg = f"Mesh(triangles=...): expected {got}. {cure}."
    raise ValueError(msg)


def check_triangles(x: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""Returns the triangles the same way around, all of them sound.

    Arguments:
        x: The places of the nodes, with shape (N, k).
        triangles: The nodes of each triangle, with shape (T, 3).

    Example:
        >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> check_triangles(corners, np.array([[0, 2, 1]])).tolist()
        [[0, 1, 2]]
    """
    triangles = triangles.astype(np.int64)
    _check_indices(triangles, len(x))
    double = twice_area(x, triangles)
    longest = np.max([np.linalg.norm(x[triangles[:, i]] - x[triangles[:, i - 1]], axis=1)
                      for i in range(3)], axis=0)  # fmt: skip
    flat = np.abs(double) <= FLAT * longest**2
    if flat.any():
        _refuse(f"triangles with an area, got {flat.sum()} flat ones", "Drop them")
    return np.where((double < 0)[:, None], triangles[:, [0, 2, 1]], triangles)


def _check_indices(triangles: np.ndarray, size: int) -> None:
    if len(triangles) == 0 or triangles.min() < 0 or triangles.max() >= size:
        got = f"from {triangles.min()} to {triangles.max()}" if len(triangles) else "none"
        _refuse(f"at least one, with nodes from 0 to {size - 1}, got {got}", "Count from zero")
    if len(np.unique(np.sort(triangles, axis=1), axis=0)) < len(triangles):
        _refuse("each triangle once, got some twice", "Drop the copies")
    unused = size - len(np.unique(triangles))
    if unused:
        _refuse(f"every node in a triangle, got {unused} of {size} in none", "Drop those nodes")


def twice_area(x: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""Returns twice the area, negative if clockwise, or seen from outside of the sphere."""
    a, b, c = (x[triangles[:, i]] for i in range(3))
    u, v = b - a, c - a
    if x.shape[1] == 2:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    normal = np.cross(u, v)
    return np.sign((normal * (a + b + c)).sum(axis=1)) * np.linalg.norm(normal, axis=1)


def outer_sides(triangles: np.ndarray, wet: np.ndarray) -> np.ndarray:
    r"""Returns the sides that have a single triangle, at sea; none may have two on one side.

    Example:
        >>> outer_sides(np.array([[0, 1, 2], [1, 3, 2]]), np.array([True, False])).tolist()
        [[0, 1], [0, 2]]
    """
    sides = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    twice = len(sides) - len(np.unique(sides, axis=0))
    if twice:
        _refuse(
            f"triangles on both sides of a shared edge, got {twice} on the same side",
            "Drop those that overlap",
        )
    edges, first, count = np.unique(
        np.sort(sides, axis=1), axis=0, return_index=True, return_counts=True
    )
    return edges[(count == 1) & np.repeat(wet, 3)[first]]
