r"""Triangulations of the plane and of the sphere, by numpy: where a mesh comes from.

Sizes grow away from the data by powers of two, over nested hexagonal lattices, so that the
triangles between two sizes are good ones; a few passes of smoothing mend those near the data.
"""

from __future__ import annotations

__all__ = ["angles", "around", "icosphere"]

import math
import numpy as np

from dataclasses import dataclass
from scipy.spatial import Delaunay, cKDTree

GRADING = 0.25
"""How fast the size of triangles grows with the distance from the data."""
DIRECTIONS = 96
"""Sides of the polygon that stands for the hull of the data."""
PASSES = 4
"""Passes of smoothing, a few to mend what inserting the data broke."""
GOOD_ANGLE = 25.0
"""Degrees below which a node of data may be moved for the sake of its triangles."""


def angles(x: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""Returns the smallest angle of each triangle, in degrees, in any dimension.

    Example:
        >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> angles(corners, np.array([[0, 1, 2]])).round(6).tolist()
        [45.0]
    """
    a, b, c = (x[triangles[:, i]] for i in range(3))
    sides = [np.linalg.norm(u - v, axis=1) for u, v in ((b, c), (c, a), (a, b))]
    p, q, r = np.sort(np.stack(sides), axis=0)
    cosine = (q**2 + r**2 - p**2) / (2 * q * r)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@dataclass(frozen=True)
class _Hull:
    r"""A convex hull as the intersection of half-planes, at regular directions."""

    normals: np.ndarray
    heights: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> _Hull:
        turn = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        normals = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        parts = np.array_split(x, max(1, len(x) // 100_000))
        heights = np.max([(normals @ part.T).max(axis=1) for part in parts], axis=0)
        return cls(normals, heights)

    def distance(self, x: np.ndarray) -> np.ndarray:
        r"""Returns how far sites are outside; negative inside."""
        parts = np.array_split(x, max(1, len(x) // 100_000))
        return np.concatenate(
            [(part @ self.normals.T - self.heights).max(axis=1, initial=-np.inf) for part in parts]
        )

    def outline(self, width: float) -> np.ndarray:
        r"""Returns the corners of the hull, widened."""
        n, h = self.normals, self.heights + width
        after, h_after = np.roll(n, -1, axis=0), np.roll(h, -1)
        sine = n[:, 0] * after[:, 1] - n[:, 1] * after[:, 0]
        x = (h * after[:, 1] - h_after * n[:, 1]) / sine
        y = (h_after * n[:, 0] - h * after[:, 0]) / sine
        return np.stack([x, y], axis=1)


def _levels(distance: np.ndarray, spacing: float, last: int) -> np.ndarray:
    r"""Returns by how many doublings the size has grown at some distances."""
    size = 1 + GRADING * np.clip(distance, 0, None) / spacing
    return np.minimum(np.floor(np.log2(size)), last).astype(int)


def _hexagons(low: np.ndarray, high: np.ndarray, step: float) -> np.ndarray:
    r"""Returns the nodes of a hexagonal lattice through the origin, over a rectangle."""
    rise = step * math.sqrt(3) / 2
    j = np.arange(math.floor(low[1] / rise), math.ceil(high[1] / rise) + 1)
    half = (high[1] - low[1]) / rise / 2
    i = np.arange(
        math.floor(low[0] / step - max(j[-1], 0) / 2 - half),
        math.ceil(high[0] / step - min(j[0], 0) / 2 + half) + 1,
    )
    x = (i[None, :] + j[:, None] / 2) * step
    y = np.broadcast_to(j[:, None] * rise, x.shape)
    inside = (x >= low[0]) & (x <= high[0])
    return np.stack([x[inside], y[inside]], axis=1)


def _graded(hull: _Hull, spacing: float, margin: float, last: int) -> np.ndarray:
    r"""Returns nodes whose lattice is twice as wide each time the distance calls for it."""
    nodes = []
    for level in range(last + 1):
        reach = (
            margin if level == last else min(margin, (2 ** (level + 1) - 1) * spacing / GRADING)
        )
        corners = hull.outline(reach)
        x = _hexagons(corners.min(axis=0), corners.max(axis=0), spacing * 2**level)
        d = hull.distance(x)
        nodes.append(x[(_levels(d, spacing, last) == level) & (d <= margin)])
    return np.concatenate(nodes)


def _along(outline: np.ndarray, step: float) -> np.ndarray:
    r"""Returns sites at equal steps along a closed line."""
    closed = np.concatenate([outline, outline[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(6, round(length[-1] / step)), endpoint=False)
    return np.stack([np.interp(at, length, closed[:, k]) for k in range(2)], axis=1)


def thin(x: np.ndarray, radius: float) -> np.ndarray:
    r"""Returns the sites left when each one removes the later ones within a radius.

    Example:
        >>> thin(np.array([[0.0, 0.0], [0.4, 0.0], [0.9, 0.0]]), 0.5).tolist()
        [0, 2]
    """
    cell = np.floor(x / (radius / 2)).astype(np.int64)  # one site a cell first: far fewer pairs
    _, first = np.unique(cell, axis=0, return_index=True)
    first.sort()
    keep = np.ones(len(first), dtype=bool)
    pairs = cKDTree(x[first]).query_pairs(radius, output_type="ndarray")
    for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        keep[j] &= not keep[i]
    return first[keep]


def _merge(data: np.ndarray, lattice: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns data and lattice together, none too near another, and how many are data."""
    kept = data[thin(data, spacing / 2)]
    near, _ = cKDTree(kept).query(lattice, distance_upper_bound=0.6 * spacing)
    return kept, lattice[np.isinf(near)]


def _delaunay(x: np.ndarray) -> np.ndarray:
    r"""Returns the triangles of Delaunay that are not flat, those on the hull being of no use."""
    triangles = Delaunay(x).simplices.astype(np.int64)
    return triangles[angles(x, triangles) > 1.0]


def _smoothed(x: np.ndarray, data: int, border: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns nodes moved to where their triangles are better, and the triangles.

    Each free node goes to the mean of the circumcentres around it, weighted by area. The data
    come first and stay, unless their triangles stay bad; the border comes last and stays.
    """
    free = np.ones(len(x), dtype=bool)
    free[:data] = False
    free[len(x) - border :] = False
    for turn in range(PASSES):
        triangles = _delaunay(x)
        worst = np.full(len(x), 180.0)
        np.minimum.at(worst, triangles, np.repeat(angles(x, triangles)[:, None], 3, axis=1))
        if turn >= PASSES // 2:
            free[:data] |= worst[:data] < GOOD_ANGLE
        near = np.zeros(len(x), dtype=bool)
        near[triangles[(worst[triangles] < 50.0).any(axis=1)]] = True
        move = free & near
        x = np.where(move[:, None], _centred(x, triangles), x)
    return x, _delaunay(x)


def _centred(x: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""Returns the mean of the circumcentres around each node, weighted by area."""
    a, u, v = x[triangles[:, 0]], *(x[triangles[:, k]] - x[triangles[:, 0]] for k in (1, 2))
    twice = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    uu, vv = (u**2).sum(axis=1), (v**2).sum(axis=1)
    moment = np.stack([v[:, 1] * uu - u[:, 1] * vv, u[:, 0] * vv - v[:, 0] * uu], axis=1)
    area = np.abs(twice)[:, None] / 2
    # area times circumcentre: the moment is not divided by an area that may be near zero
    weighted = area * a + np.sign(twice)[:, None] * moment / 4
    total, weight = np.zeros_like(x), np.zeros(len(x))
    np.add.at(total, triangles, np.repeat(weighted[:, None], 3, axis=1))
    np.add.at(weight, triangles, np.repeat(area, 3, axis=1))
    return np.where(weight[:, None] > 0, total / np.maximum(weight, 1e-300)[:, None], x)


def around(
    data: np.ndarray, spacing: float, margin: float, margin_spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Returns nodes, triangles, and which nodes are outside the hull of some data.

    Arguments:
        data: The sites to cover, with shape (m, 2).
        spacing: The size of triangles within the hull.
        margin: How far beyond the hull to go.
        margin_spacing: The largest size, far outside.
    """
    origin = data.mean(axis=0)
    data = data - origin
    hull = _Hull.of(data)
    last = max(0, math.floor(math.log2(margin_spacing / spacing) + 1e-9))
    level = int(_levels(np.array([margin]), spacing, last)[0])
    step = spacing * 2**level
    border = _along(hull.outline(margin), step)
    lattice = _graded(hull, spacing, margin, level)
    lattice = lattice[hull.distance(lattice) < margin - 0.6 * step]
    kept, lattice = _merge(data, lattice, spacing)
    x, triangles = _smoothed(np.concatenate([kept, lattice, border]), len(kept), len(border))
    return x + origin, triangles, hull.distance(x) > 1e-9 * spacing


PHI = (1 + math.sqrt(5)) / 2


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    signs = [(s, t) for s in (-1.0, 1.0) for t in (-PHI, PHI)]
    corners = [np.roll((0.0, s, t), k) for k in range(3) for s, t in signs]
    x = np.array(corners) / math.hypot(1, PHI)
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    near = (d > 0) & (d < 1.1 * d[d > 0].min())
    faces = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[k, i]
    ]
    return x, np.array(faces)


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Returns the nodes, on the unit sphere, and the triangles of a divided icosahedron.

    Example:
        >>> nodes, triangles = icosphere(2)
        >>> len(nodes), len(triangles)
        (162, 320)
    """
    x, triangles = _icosahedron()
    for _ in range(subdivisions):
        edges = np.sort(triangles[:, [[1, 2], [2, 0], [0, 1]]].reshape(-1, 2), axis=1)
        unique, index = np.unique(edges, axis=0, return_inverse=True)
        middle = x[unique].mean(axis=1)
        a, b, c = triangles.T
        p, q, r = (index.reshape(-1, 3) + len(x)).T
        x = np.concatenate([x, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
        parts = [(a, r, q), (b, p, r), (c, q, p), (p, q, r)]
        triangles = np.concatenate([np.stack(part, axis=1) for part in parts])
    return x, triangles
