r"""Finite volumes on a rectilinear lattice, on the plane or on the sphere."""

from __future__ import annotations

__all__ = ["Lattice"]

import itertools
import math
import numpy as np
import scipy.sparse as sparse
import torch

from collections.abc import Mapping, Sequence
from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing import Any

from .cells import Axis, extended
from .cubic import cubic
from .discretization import Discretization
from ...domain import EARTH_RADIUS, Grid, Points
from ...linalg.sparse import Pattern, Sparse

Offset = tuple[int, ...]
Widths = float | Sequence[float | tuple[float, float]]


class Lattice(Discretization):
    r"""The nodes of a grid, each in the middle of a box, and a margin of coarser ones around.

    The energy of a field is a sum over the corners of the cells: with :math:`g` the differences
    to the neighbours on the two (or three) sides of a corner, zero towards land or the outside,

    .. math:: x^\top G x = \sum_{\mathrm{corners}} w \, g^\top H g,
        \qquad w = \prod_i h_i^{\pm} / 2

    It is never negative, whatever the rotation of :math:`H`. Off-diagonal terms of :math:`H`
    couple diagonal neighbours (9 places a row in two dimensions, 19 in three, instead of 5 and
    7). Land lets nothing through; it goes on into the margin as it is at the edge of the grid,
    so that a wall which reaches the edge cannot be walked around.

    On the sphere the cells have their exact areas, lengths are in metres and the axes of
    :math:`H` are north and east. A longitude that closes is periodic; no flux leaves at a pole.

    References:
        | Finite Volume Methods (Eymard, Gallouet and Herbin, 2000)
        | https://doi.org/10.1016/S1570-8659(00)07005-8

    Arguments:
        grid: The grid, whose axes need not be uniform.
        extension: The width of the margin, in metres on the sphere: one number, one per axis, or
            one pair (below, above) per axis. A margin in longitude that meets itself closes.
        growth: The ratio of a spacing of the margin to the one before it.
        periodic: The axes of the plane whose first node follows the last.
        cross: Whether diagonal neighbours are coupled, which a rotated ``H`` asks for.
        interpolation: What is between the nodes: ``"linear"`` or ``"cubic"``.

    Raises:
        ValueError: If an axis has a single node and no margin, or a periodic one fewer than three.

    Example:
        >>> lattice = Lattice(Grid(y=[0.0, 1.0], x=[0.0, 1.0, 2.0]), extension=1.0)
        >>> lattice.grid.shape, len(lattice)
        ((4, 5), 20)
    """

    def __init__(
        self,
        grid: Grid,
        extension: Widths = 0.0,
        growth: float = 1.15,
        periodic: Sequence[str] = (),
        cross: bool = True,
        interpolation: str = "linear",
    ) -> None:
        self.smooth = _smooth(interpolation)
        self.axes = _axes(grid, extension, growth, periodic)
        self.cross, self.dimension = cross, len(self.axes)
        self._spans = [torch.arange(len(a.nodes)) for a in self.axes.values()]
        self.grid = self._extended(grid)
        self.size, self.points = len(self.grid), self.grid.points
        self._index = [self._nodes(i) for i in _meshed(self._spans)]
        self.margin = self._outside()
        self._set_sizes()
        self._set_neighbours()
        self._seen: list[tuple[Points, Sparse]] = []

    def _extended(self, grid: Grid) -> Grid:
        r"""Returns the grid with its margin, where fields are those of the nearest node."""
        inner = zip(self._spans, self.axes.values(), strict=True)
        nearest = [(i - a.before).clamp(0, a.count - 1) for i, a in inner]
        at = torch.meshgrid(*nearest, indexing="ij")
        nodes: dict[str, Any] = {k: a.nodes for k, a in self.axes.items()}
        return Grid(
            **nodes,
            mask=None if grid.mask is None else grid.mask.unflatten(0, grid.shape)[at],
            metric=grid.metric,
            epoch=grid.epoch,
            covariates={k: grid.unflatten(v)[at] for k, v in grid.covariates.items()},
        )

    def _outside(self) -> Bool[Tensor, " N"]:
        outside = torch.zeros(self.size, dtype=torch.bool)
        for i, a in zip(self._index, self.axes.values(), strict=True):
            outside |= (i < a.before) | (i >= a.before + a.count)
        return outside

    def _nodes(self, field: Tensor) -> Tensor:
        return self.grid.flatten(field)

    def _per_node(self, i: int, values: Tensor) -> Float[Tensor, " N"]:
        return values[self._index[i]]

    def _set_sizes(self) -> None:
        axes = list(self.axes.values())
        self._half = {
            (i, s): self._per_node(i, a.above if s > 0 else a.below)
            for i, a in enumerate(axes)
            for s in (-1, 1)
        }
        self._width = [self._half[i, -1] + self._half[i, 1] for i in range(len(axes))]
        self._length = [self._per_node(i, a.length) for i, a in enumerate(axes)]
        self.volume = torch.stack(self._width).prod(dim=0)
        # the length of a degree of longitude, by the mean cosine over the cell: never zero
        parallel = torch.ones_like(self.volume)
        if self.grid.metric == "sphere":
            lat = self.grid.dims.index("lat")
            parallel = self._width[lat] / self._length[lat]
        on_parallel = [k == "lon" and self.grid.metric == "sphere" for k in self.axes]
        self._stretch = [parallel if p else torch.ones_like(parallel) for p in on_parallel]
        steps = zip(self._length, self._stretch, strict=True)
        self.spacing = torch.stack([h * c for h, c in steps], dim=-1)

    def _set_neighbours(self) -> None:
        offsets = [o for o in itertools.product((-1, 0, 1), repeat=self.dimension)]
        self._offsets = [o for o in offsets if sum(map(abs, o)) <= (2 if self.cross else 1)]
        found = {o: self._shifted(o) for o in self._offsets}
        for o in self._offsets:
            if sum(map(abs, o)) == 2:  # coupled through a corner at sea, not across a wall
                first, second = _sides(o)
                open_ = (found[first] >= 0) | (found[second] >= 0)
                found[o] = torch.where(open_, found[o], -1)
        self._open = {o: found[o] >= 0 for o in self._offsets}
        self._next = {o: found[o].clamp(min=0) for o in self._offsets}
        self.pattern, self._take = _stencil_pattern(torch.stack(list(found.values()), dim=1))

    def _shifted(self, offset: Offset) -> Int[Tensor, " N"]:
        r"""Returns the node at an offset from each node, or -1."""
        flat = torch.zeros(self.size, dtype=torch.long)
        inside = torch.ones(self.size, dtype=torch.bool)
        for index, step, axis in zip(self._index, offset, self.axes.values(), strict=True):
            n = len(axis.nodes)
            moved = (index + step) % n if axis.closed else index + step
            inside &= (moved >= 0) & (moved < n)
            flat = flat * n + moved.clamp(0, n - 1)
        if self.grid.mask is None:
            return torch.where(inside, flat, -1)
        rank = self.grid.mask.cumsum(0) - 1
        return torch.where(inside & self.grid.mask[flat], rank[flat], -1)

    def places(self) -> Float[Tensor, "N k"]:
        columns: list[Tensor] = []
        for index, axis in zip(self._index, self.axes.values(), strict=True):
            if not axis.closed:
                columns.append(index.to(torch.float64))
                continue
            turn = len(axis.nodes) / (2 * math.pi)
            columns += [turn * (index / turn).cos(), turn * (index / turn).sin()]
        return torch.stack(columns, dim=-1)

    def stiffness(self, H: Float[Tensor, "n d d"]) -> Sparse:
        self._check_matrix(H)
        H = H.expand(self.size, -1, -1)
        entries = {o: H.new_zeros(self.size) for o in self._offsets}
        for i in range(self.dimension):
            self._add_edges(entries, i, H[:, i, i])
        if self.cross:
            for i, j in itertools.combinations(range(self.dimension), 2):
                for s, t in itertools.product((-1, 1), repeat=2):
                    self._add_corners(entries, (i, s), (j, t), H[:, i, j])
        return self._gather(entries)

    def _check_matrix(self, H: Float[Tensor, "n d d"]) -> None:
        off = H - torch.diag_embed(H.diagonal(dim1=-2, dim2=-1))
        if not self.cross and bool((off != 0).any()):
            msg = (
                "Lattice.stiffness(H=...): expected diagonal matrices on a lattice without "
                "diagonal neighbours, got off-diagonal terms. Build it with cross=True."
            )
            raise ValueError(msg)

    def _gather(self, entries: Mapping[Offset, Tensor]) -> Sparse:
        dense = torch.stack([entries[o] for o in self._offsets], dim=1)
        return Sparse(self.pattern, dense.reshape(-1)[self._take])

    def _unit(self, i: int, s: int) -> Offset:
        return tuple(s if k == i else 0 for k in range(self.dimension))

    def _from(self, offset: Offset, values: Tensor) -> Float[Tensor, " N"]:
        r"""Returns the values of the neighbours, zero where there is none."""
        return torch.where(self._open[offset], values[self._next[offset]], 0.0)

    def _step(self, i: int, s: int) -> Float[Tensor, " N"]:
        r"""Returns the distance to the next node on a side, along the axis."""
        axis = list(self.axes.values())[i]
        step = self._per_node(i, axis.step if s > 0 else axis.step.roll(1))
        return step * self._stretch[i]

    def _corner(self, i: int, s: int) -> Float[Tensor, " N"]:
        r"""Returns the volume of the half of each cell on a side of an axis."""
        return self.volume * (self._half[i, s] / self._width[i])

    def _add_edges(self, entries: dict[Offset, Tensor], i: int, h: Float[Tensor, " N"]) -> None:
        up, down, here = self._unit(i, 1), self._unit(i, -1), self._unit(i, 0)
        share = {s: h * self._corner(i, s) / self._step(i, s).square() for s in (-1, 1)}
        above = torch.where(self._open[up], share[1] + self._from(up, share[-1]), 0.0)
        below = self._from(down, above)
        entries[up] = entries[up] - above
        entries[down] = entries[down] - below
        entries[here] = entries[here] + above + below

    def _add_corners(
        self,
        entries: dict[Offset, Tensor],
        first: tuple[int, int],
        second: tuple[int, int],
        h: Float[Tensor, " N"],
    ) -> None:
        r"""Adds :math:`2 w H_{ij} g_i g_j` of one corner of every cell."""
        (i, s), (j, t) = first, second
        a, b, here = self._unit(i, s), self._unit(j, t), self._unit(i, 0)
        weight = self._corner(i, s) * self._half[j, t] / self._width[j]
        k = h * weight * (s * t) / (self._step(i, s) * self._step(j, t))
        k = torch.where(self._open[a] & self._open[b], k, 0.0)
        entries[here] = entries[here] + 2 * k
        for side, other in ((a, b), (b, a)):
            back = tuple(-v for v in side)
            came = self._from(back, k)  # the corner seen from its neighbour
            across = tuple(u + v for u, v in zip(back, other, strict=True))
            entries[side] = entries[side] - k
            entries[back] = entries[back] - came
            entries[across] = entries[across] + came

    def advection(self, m: Float[Tensor, "n d"], conservative: bool = True) -> Sparse:
        m = m.expand(self.size, -1)
        entries = {o: m.new_zeros(self.size) for o in self._offsets}
        here = self._unit(0, 0)
        for i in range(self.dimension):
            up, down = self._unit(i, 1), self._unit(i, -1)
            speed = (m[:, i] + self._from(up, m[:, i])) / 2
            above = torch.where(self._open[up], self._face(i, 1) * speed / 2, 0.0)
            below = self._from(down, above)
            entries[up] = entries[up] + above
            entries[down] = entries[down] - below
            sign = 1 if conservative else -1
            entries[here] = entries[here] + sign * (above - below)
        return self._gather(entries)

    def _face(self, i: int, s: int) -> Float[Tensor, " N"]:
        r"""Returns the area of the face of each cell on a side of an axis."""
        (name, axis), side = list(self.axes.items())[i], slice(1, None) if s > 0 else slice(-1)
        area = self._per_node(i, axis.cosine[side])
        for j in range(self.dimension):
            if j != i:
                area = area * (self._length[j] if name == "lon" else self._width[j])
        return area

    def boundary_mass(self) -> Float[Tensor, " N"]:
        total = torch.zeros_like(self.volume)
        for i, axis in enumerate(self.axes.values()):
            if not axis.closed:
                for s, end in ((-1, 0), (1, len(axis.nodes) - 1)):
                    total = total + torch.where(self._index[i] == end, self._face(i, s), 0.0)
        return total

    def interpolation(self, points: Points) -> Sparse:
        for seen, found in self._seen:
            if seen is points or _same(seen, points):
                return found
        found = _weights(*self._around(points), self.size)
        self._seen = [(points, found), *self._seen[:7]]
        return found

    def _around(self, points: Points) -> tuple[Tensor, Tensor]:
        turning = {k: a for k, a in self.axes.items() if a.closed}
        if not turning or self.grid.metric == "sphere":
            return self._between(self.grid, points)
        points = points.since(self.grid.epoch)
        columns: dict[str, Any] = {k: points.axis(k) for k in points.dims}
        for name, axis in turning.items():
            start = axis.nodes[0]
            columns[name] = start + torch.remainder(columns[name] - start, axis.period)
        cover, fold = self._cover
        at = Points(**columns, metric=points.metric, epoch=points.epoch)
        nodes, weights = self._between(cover, at)
        return fold[nodes], weights

    def _between(self, grid: Grid, points: Points) -> tuple[Tensor, Tensor]:
        linear = grid.interpolation(points)
        return cubic(grid, points, *linear) if self.smooth else linear

    @cached_property
    def _cover(self) -> tuple[Grid, Int[Tensor, " n"]]:
        r"""The grid with the first node of a closed axis again at its end, and the nodes there."""
        index = [torch.arange(len(a.nodes) + a.closed) for a in self.axes.values()]
        axes: dict[str, Any] = {
            k: torch.cat([a.nodes, a.nodes[:1] + a.period]) if a.closed else a.nodes
            for k, a in self.axes.items()
        }
        folded = [i % n for i, n in zip(index, self.grid.shape, strict=True)]
        at = torch.meshgrid(*folded, indexing="ij")
        sea = torch.ones(self.grid.shape, dtype=torch.bool)
        if self.grid.mask is not None:
            sea = self.grid.mask.unflatten(0, self.grid.shape)
        cover = Grid(**axes, mask=sea[at], metric=self.grid.metric, epoch=self.grid.epoch)
        rank = (sea.flatten().cumsum(0) - 1).unflatten(0, self.grid.shape)
        return cover, cover.flatten(rank[at])


def _smooth(interpolation: str) -> bool:
    if interpolation not in {"linear", "cubic"}:
        msg = (
            f"Lattice(interpolation=...): expected 'linear' or 'cubic', got {interpolation!r}. "
            "Choose one."
        )
        raise ValueError(msg)
    return interpolation == "cubic"


def _axes(
    grid: Grid, extension: Widths, growth: float, periodic: Sequence[str]
) -> dict[str, Axis]:
    widths = _pairs(extension, len(grid.dims))
    sphere = grid.metric == "sphere"
    found = {}
    for (name, nodes), pair in zip(grid.axes.items(), widths, strict=True):
        if sphere and name in {"lat", "lon"}:
            metres = math.radians(1.0) * EARTH_RADIUS
            if name == "lon":  # the parallel nearest to a pole asks for most degrees
                metres *= max(grid.axes["lat"].deg2rad().cos().min().item(), 1e-6)
            pair = (pair[0] / metres, pair[1] / metres)
        _check_widths(name, len(nodes), pair)
        found[name] = extended(name, nodes, pair, growth, name in periodic, sphere)
        if found[name].closed and len(found[name].nodes) < 3:
            msg = (
                f"Lattice(grid=...): expected 3 nodes or more along {name!r}, which closes, got "
                f"{len(nodes)}. Refine the axis."
            )
            raise ValueError(msg)
    return found


def _pairs(extension: Widths, dimension: int) -> list[tuple[float, float]]:
    each = list(extension) if isinstance(extension, Sequence) else [extension] * dimension
    if len(each) != dimension:
        msg = (
            f"Lattice(extension=...): expected one width, or one per axis, got {len(each)} for "
            f"{dimension} axes. Give as many as there are axes."
        )
        raise ValueError(msg)
    return [(w[0], w[1]) if isinstance(w, Sequence) else (float(w), float(w)) for w in each]


def _check_widths(name: str, count: int, widths: tuple[float, float]) -> None:
    if min(widths) < 0:
        msg = (
            f"Lattice(extension=...): expected widths of zero or more, got {min(widths)} along "
            f"{name!r}. Drop the sign."
        )
        raise ValueError(msg)
    if count < 2 and max(widths) == 0:
        msg = (
            f"Lattice(grid=...): expected 2 nodes or more along {name!r}, got {count}. "
            "Refine the axis, or give the lattice an extension."
        )
        raise ValueError(msg)


def _meshed(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*vectors, indexing="ij"))


def _sides(offset: Offset) -> list[Offset]:
    r"""Returns the two steps along axes of which a diagonal one is made."""
    n = len(offset)
    return [tuple(v if k == i else 0 for k in range(n)) for i, v in enumerate(offset) if v]


def _stencil_pattern(columns: Int[Tensor, "N K"]) -> tuple[Pattern, Int[Tensor, " nnz"]]:
    r"""Returns the pattern of a stencil (-1: no neighbour), and where each entry is in it."""
    found, n = columns.numpy(), len(columns)
    order = np.argsort(np.where(found < 0, n, found), axis=1, kind="stable")
    inside = np.take_along_axis(found, order, axis=1) >= 0
    place = order + np.arange(n)[:, None] * found.shape[1]
    indptr = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
    take = place[inside]
    return Pattern(indptr, found.reshape(-1)[take], (n, n)), torch.as_tensor(take)


def _same(a: Points, b: Points) -> bool:
    alike = a.dims == b.dims and a.metric == b.metric and a.epoch == b.epoch
    return alike and torch.equal(a.coords, b.coords)


def _weights(nodes: Int[Tensor, "m k"], weights: Float[Tensor, "m k"], size: int) -> Sparse:
    r"""Returns the matrix of some weights, without those that are nothing but rounding."""
    weights = torch.where(weights.abs() < 1e-9, 0.0, weights)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    ends = np.arange(len(nodes) + 1) * nodes.shape[1]
    content = (weights.flatten().numpy(), nodes.flatten().numpy(), ends)
    matrix = sparse.csr_array(content, shape=(len(nodes), size))
    matrix.eliminate_zeros()
    return Sparse.from_scipy(matrix)
