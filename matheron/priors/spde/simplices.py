r"""The geometry of triangles: areas, gradients, and the axes of a field on them."""

from __future__ import annotations

__all__ = ["Simplices", "tangent_frame"]

import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...domain import Points


def tangent_frame(points: Points) -> Float[Tensor, "N 3 3"]:
    r"""Returns the directions up, north and east of points of the sphere, as rows.

    Example:
        >>> tangent_frame(Points(lat=[0.0], lon=[0.0]))[0, 0].tolist()
        [0.0, 0.0, 1.0]
    """
    lat, lon = points.axis("lat").deg2rad(), points.axis("lon").deg2rad()
    zero = torch.zeros_like(lat)
    up = [lat.sin(), lat.cos() * lon.sin(), lat.cos() * lon.cos()]
    north = [lat.cos(), -lat.sin() * lon.sin(), -lat.sin() * lon.cos()]
    east = [zero, lon.cos(), -lon.sin()]
    return torch.stack([torch.stack(v, dim=-1) for v in (up, north, east)], dim=1)


@dataclass(frozen=True)
class Simplices:
    r"""Triangles in two or three dimensions, differentiable in the places of their corners.

    Arguments:
        corners: The places of the corners, with shape (T, 3, k).
        area: The areas, with shape (T).
        slopes: The gradients of the three functions that are one at a corner, with shape
            (T, 3, k).
        axes: The axes of the field at each corner, turned to the plane of the triangle, with
            shape (T, 3, 2, 3); ``None`` on the plane, where they are the coordinates.
    """

    corners: Float[Tensor, "T 3 k"]
    area: Float[Tensor, " T"]
    slopes: Float[Tensor, "T 3 k"]
    axes: Float[Tensor, "T 3 2 k"] | None

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "N k"],
        triangles: Int[Tensor, "T 3"],
        frame: Float[Tensor, "N 3 3"] | None,
    ) -> Simplices:
        r"""Returns the triangles of some nodes, with the directions up, north, east of each."""
        corners = x[triangles]
        edges = corners[:, 1:] - corners[:, :1]  # (T, 2, k)
        metric = edges @ edges.mT
        twice = (metric[:, 0, 0] * metric[:, 1, 1] - metric[:, 0, 1].square()).sqrt()
        slopes = _inverse(metric, twice.square()) @ edges
        slopes = torch.cat([-slopes.sum(dim=1, keepdim=True), slopes], dim=1)
        axes = None if frame is None else _turned(frame[triangles], _normal(edges))
        return cls(corners, twice / 2, slopes, axes)

    def turned_from(self, other: Simplices) -> Bool[Tensor, " T"]:
        r"""Returns which triangles are not the same way up as others."""
        if self.axes is None:
            turned = torch.linalg.det(self._edges()) * torch.linalg.det(other._edges())
        else:
            turned = (_normal(self._edges()) * _normal(other._edges())).sum(dim=-1)
        return ~(turned > 0)

    def _edges(self) -> Float[Tensor, "T 2 k"]:
        return self.corners[:, 1:] - self.corners[:, :1]

    def energy(self, H: Float[Tensor, "T 3 2 2"]) -> Float[Tensor, "T 3 3"]:
        r"""Returns the integrals of products of gradients, through the mean of a matrix."""
        if self.axes is None:
            mean = H.mean(dim=1)
        else:
            mean = torch.einsum("tcak,tcab,tcbl->tkl", self.axes, H, self.axes) / 3
        return self.area[:, None, None] * (self.slopes @ mean @ self.slopes.mT)

    def transport(self, m: Float[Tensor, "T 3 2"]) -> Float[Tensor, "T 3 3"]:
        r"""Returns the integrals of :math:`\phi_i \, m \cdot \nabla \phi_j`, ``m`` linear."""
        if self.axes is not None:
            m = torch.einsum("tca,tcak->tck", m, self.axes)
        weighted = (m + m.sum(dim=1, keepdim=True)) * (self.area / 12)[:, None, None]
        return weighted @ self.slopes.mT

    def mean_square_sides(self) -> Float[Tensor, "T 3 2"]:
        r"""Returns the mean square of the three sides along the axes of each corner."""
        sides = self.corners - self.corners.roll(1, dims=1)
        if self.axes is None:
            square = sides.square().mean(dim=1)
            return square[:, None].expand(-1, 3, -1)
        return torch.einsum("tcak,tsk->tcsa", self.axes, sides).square().mean(dim=2)


def _inverse(metric: Float[Tensor, "T 2 2"], determinant: Tensor) -> Float[Tensor, "T 2 2"]:
    (a, b), (_, d) = (row.unbind(dim=-1) for row in metric.unbind(dim=-2))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-b, a], -1)], dim=-2)
    return adjugate / determinant[:, None, None]


def _normal(edges: Float[Tensor, "T 2 3"]) -> Float[Tensor, "T 3"]:
    return torch.nn.functional.normalize(torch.linalg.cross(edges[:, 0], edges[:, 1]), dim=-1)


def _turned(frame: Float[Tensor, "T 3 3 3"], normal: Tensor) -> Float[Tensor, "T 3 2 3"]:
    r"""Returns the axes at each corner after the smallest turn from its tangent plane."""
    up, axes = frame[:, :, 0], frame[:, :, 1:]
    n = normal[:, None]
    middle = (up + n) / (1 + (up * n).sum(dim=-1, keepdim=True))
    return axes - (axes @ n[..., None]) * middle[:, :, None]
