r"""In which triangle a site is."""

from __future__ import annotations

__all__ = ["Locator"]

import numpy as np

from dataclasses import dataclass
from functools import cached_property
from scipy.spatial import cKDTree

NEAR = 6
"""Centres of triangles to try at first: nearly every site is in one of them."""
SLACK = 1e-9
"""A weight below zero that is put down to rounding."""


@dataclass(frozen=True)
class Locator:
    r"""Finds the triangle that holds a site, and the weights of its three corners.

    In three dimensions, triangles stand for the parts of a sphere about the origin that are seen
    through them from its centre.

    Arguments:
        nodes: The places of the nodes, with shape (N, k), with k = 2 or 3.
        triangles: The nodes of each triangle, with shape (T, 3).

    Example:
        >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> locator = Locator(corners, np.array([[0, 1, 2]]))
        >>> triangle, weights = locator(np.array([[0.25, 0.5], [1.0, 1.0]]))
        >>> triangle.tolist(), weights[0].tolist()
        ([0, -1], [0.25, 0.25, 0.5])
    """

    nodes: np.ndarray
    triangles: np.ndarray

    @cached_property
    def corners(self) -> np.ndarray:
        r"""The places of the corners, with shape (T, 3, k)."""
        return self.nodes[self.triangles]

    @cached_property
    def tree(self) -> cKDTree:
        r"""The centres of the triangles, to be searched."""
        return cKDTree(self.corners.mean(axis=1))

    @cached_property
    def reach(self) -> np.ndarray:
        r"""How far from its centre a site of each triangle may be."""
        far = np.linalg.norm(self.corners - self.corners.mean(axis=1)[:, None], axis=2).max(axis=1)
        return far if self.nodes.shape[1] == 2 else far + self._bulge()

    @cached_property
    def inverse(self) -> np.ndarray:
        r"""What gives the weights of the corners from a site, with shape (T, 3, 3)."""
        matrix = self.corners
        if self.nodes.shape[1] == 2:
            matrix = np.concatenate([matrix, np.ones((*matrix.shape[:2], 1))], axis=2)
        return np.linalg.inv(np.swapaxes(matrix, 1, 2))

    def _bulge(self) -> np.ndarray:
        r"""Returns by how much the sphere rises above the plane of each triangle."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        normal = np.cross(b - a, c - a)
        height = np.abs((normal * a).sum(axis=1)) / np.linalg.norm(normal, axis=1)
        return np.linalg.norm(a, axis=1) - height

    def weights(self, sites: np.ndarray, triangle: np.ndarray) -> np.ndarray:
        r"""Returns the weights of the corners of given triangles; negative if outside."""
        if self.nodes.shape[1] == 2:
            sites = np.concatenate([sites, np.ones((len(sites), 1))], axis=1)
        w = np.einsum("tij,tj->ti", self.inverse[triangle], sites)
        total = w.sum(axis=1, keepdims=True)
        # on the far side of the sphere all three weights are negative
        return w / np.where(total > 0, total, np.inf) - (total <= 0)

    def __call__(self, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""Returns the triangle of each site, -1 if there is none, and the weights."""
        found = np.full(len(sites), -1)
        weights = np.zeros((len(sites), 3))
        _, near = self.tree.query(sites, k=min(NEAR, len(self.triangles)))
        for column in np.reshape(near, (len(sites), -1)).T:
            rest = np.nonzero(found < 0)[0]
            self._accept(found, weights, sites, rest, column[rest])
        self._search(found, weights, sites)
        return found, weights

    def _accept(
        self,
        found: np.ndarray,
        weights: np.ndarray,
        sites: np.ndarray,
        which: np.ndarray,
        triangle: np.ndarray,
    ) -> None:
        r"""Notes the triangles that do hold the sites they are tried for."""
        w = self.weights(sites[which], triangle)
        good = (w >= -SLACK).all(axis=1) & (found[which] < 0)
        found[which[good]] = triangle[good]
        weights[which[good]] = np.clip(w[good], 0, None)

    def _search(self, found: np.ndarray, weights: np.ndarray, sites: np.ndarray) -> None:
        r"""Tries every triangle that may hold the sites left, from small to large ones."""
        size = np.floor(np.log2(self.reach)).astype(int)
        for level in np.unique(size):
            rest = np.nonzero(found < 0)[0]
            members = np.nonzero(size == level)[0]
            tree = cKDTree(self.tree.data[members])
            for part in np.array_split(rest, max(1, len(rest) // 20_000)):
                lists = tree.query_ball_point(sites[part], 2.0 ** (level + 1))
                self._try(found, weights, sites, part, lists, members)

    def _try(
        self,
        found: np.ndarray,
        weights: np.ndarray,
        sites: np.ndarray,
        which: np.ndarray,
        lists: np.ndarray,
        members: np.ndarray,
    ) -> None:
        counts = np.array([len(found_near) for found_near in lists], dtype=int)
        if counts.sum() == 0:
            return
        pairs = np.repeat(which, counts)
        triangle = members[np.concatenate([np.asarray(near, dtype=int) for near in lists])]
        w = self.weights(sites[pairs], triangle)
        good = np.nonzero((w >= -SLACK).all(axis=1))[0]
        _, first = np.unique(pairs[good], return_index=True)
        at = good[first]
        found[pairs[at]] = triangle[at]
        weights[pairs[at]] = np.clip(w[at], 0, None)

    def nearest(self, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Returns the triangle nearest to sites outside, the weights there, and how far it is.

        The weights that would be negative are put to zero. The distance is in units of the
        reach of the triangle.
        """
        _, near = self.tree.query(sites, k=min(NEAR, len(self.triangles)))
        near = np.reshape(near, (len(sites), -1))
        w = np.stack([np.clip(self.weights(sites, t), 0, None) for t in near.T], axis=1)
        total = w.sum(axis=2, keepdims=True)
        w = np.where(total > 0, w / np.where(total > 0, total, 1), 1 / 3)
        place = np.einsum("spi,spik->spk", w, self.corners[near])
        gap = np.linalg.norm(place - sites[:, None], axis=2)
        best = gap.argmin(axis=1)
        row = np.arange(len(sites))
        chosen = near[row, best]
        return chosen, w[row, best], gap[row, best] / self.reach[chosen]
