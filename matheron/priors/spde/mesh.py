r"""Linear finite elements on triangles, on the plane or on the sphere."""

from __future__ import annotations

__all__ = ["Mesh"]

import copy
import numpy as np
import torch

from collections.abc import Callable, Sequence
from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .chart import Chart, on_land
from .discretization import Discretization
from .locator import Locator
from .simplices import Simplices, tangent_frame
from .topology import check_triangles, outer_sides
from .triangulation import angles, around, icosphere
from ...domain import EARTH_RADIUS, Grid, Points
from ...linalg.sparse import Assembly, Pattern, Sparse

COAST_REACH = 0.5
"""How far beyond a coast a datum may be, in sizes of the triangle there."""
MOST_NODES = 4_000_000
"""Nodes that a mesh may have within the box of its sites."""
FAR = 1e-9
"""A weight that is put down to rounding."""


class Mesh(Discretization):
    r"""A mesh of triangles, with a field that is linear on each of them.

    With :math:`\phi_i` the function that is one at node :math:`i` and zero at the others,

    .. math:: G_{ij} = \int \nabla \phi_i^\top H \nabla \phi_j, \qquad C_{ii} = \int \phi_i

    where :math:`H` is the mean of those of the three corners. On the sphere the triangles are
    flat, with corners on the sphere; the axes north and east of each corner are turned to the
    plane of the triangle. Triangles on land are left out: their sides are a coast that lets
    nothing through. A datum up to half a triangle beyond a coast is taken at the coast.

    :meth:`around` makes a mesh for some data, :meth:`sphere` one of the whole Earth.

    References:
        | An explicit link between Gaussian fields and GMRFs (Lindgren et al., 2011)
        | https://doi.org/10.1111/j.1467-9868.2011.00777.x

    Arguments:
        nodes: The :math:`N` nodes: points, or coordinates on the plane with shape (N, 2).
        triangles: The nodes of each triangle, either way around, with shape (T, 3).
        margin: Where nodes lie outside the domain, with shape (N); nowhere by default.
        land: Which triangles are on land, with shape (T); none by default.
        dims: The names of the columns of ``nodes``.

    Raises:
        ValueError: If a triangle has no area, is given twice or overlaps its neighbour, if
            indices are out of range, or if a node is in no triangle.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> mesh = Mesh(square.double(), torch.tensor([[0, 1, 2], [1, 3, 2]]))
        >>> len(mesh), mesh.volume.sum().item(), round(mesh.minimum_angle)
        (4, 1.0, 45)
    """

    dimension = 2

    def __init__(
        self,
        nodes: Points | Float[Tensor, "N 2"],
        triangles: Int[Tensor, "T 3"],
        margin: Bool[Tensor, " N"] | None = None,
        land: Bool[Tensor, " T"] | None = None,
        dims: Sequence[str] = ("y", "x"),
    ) -> None:
        points = nodes if isinstance(nodes, Points) else Points(nodes.double(), dims)
        _check_axes(points)
        x = _cartesian(points)
        kept = check_triangles(x.numpy(), triangles.numpy())
        wet = np.ones(len(kept), dtype=bool) if land is None else ~land.numpy()
        sides = outer_sides(kept, wet)
        used = np.unique(kept[wet])
        rank = np.full(len(x), -1)
        rank[used] = np.arange(len(used))
        self.triangles = torch.as_tensor(rank[kept[wet]])
        self.sides = torch.as_tensor(rank[sides])
        self.coast = not wet.all()
        index = torch.as_tensor(used)
        self.points, self.size = points[index], len(used)
        none = torch.zeros(len(x), dtype=torch.bool)
        self.margin = (none if margin is None else margin)[index]
        self.assembly = _assembly(self.triangles.numpy(), self.size)
        self._place(x[index])

    def _place(self, x: Float[Tensor, "N k"]) -> None:
        r"""Computes what depends on the places of the nodes in the equation."""
        self.positions = x
        frame = tangent_frame(self.points) if self.points.metric == "sphere" else None
        self.simplices = Simplices.of(x, self.triangles, frame)
        share = (self.simplices.area / 3)[:, None].expand(-1, 3)
        self.volume = x.new_zeros(self.size).index_add(
            0, self.triangles.flatten(), share.flatten()
        )
        self.spacing = self._spacing()

    def __deepcopy__(self, memo: dict[int, object]) -> Mesh:
        return self  # nothing of it changes

    def __repr__(self) -> str:
        return (
            f"Mesh({self.size} nodes, {len(self.triangles)} triangles, dims={self.points.dims}, "
            f"smallest angle {self.minimum_angle:.1f} degrees)"
        )

    @classmethod
    def around(
        cls,
        points: Points,
        spacing: float,
        margin: float,
        margin_spacing: float | None = None,
        land: Grid | Sequence[Float[Tensor, "k 2"]] | None = None,
    ) -> Mesh:
        r"""Returns a mesh that is fine over some sites and grows coarser around them.

        The sites are nodes, but those within half a spacing of another, and a few that would
        spoil the triangles: smallest angles are over 15 degrees, 20 as a rule.

        Arguments:
            points: The sites to cover, on the plane or on part of the sphere.
            spacing: The side of triangles among the sites, in metres on the sphere.
            margin: How far to go beyond the hull of the sites: a lengthscale or two.
            margin_spacing: The largest side of triangles; that of a third of the margin by
                default.
            land: A grid whose mask is False on land, or polygons of land, each with shape (k, 2),
                in the order of the axes. Triangles with their centre on land are left out.

        Raises:
            ValueError: If the margin is under two spacings, the sites are over half a sphere, or
                the spacing so small that there are millions of nodes.

        Example:
            >>> mesh = Mesh.around(Points(y=[0.0, 2.0], x=[0.0, 3.0]), spacing=0.5, margin=2.0)
            >>> mesh.minimum_angle > 15
            True
        """
        wide = max(spacing, margin / 3) if margin_spacing is None else margin_spacing
        _check_sizes(spacing, margin, wide)
        chart = Chart.of(points)
        data = chart.flatten(points, margin)
        _check_count(data, spacing)
        x, triangles, outside = around(data, spacing, margin, wide)
        nodes = chart.raise_back(x)
        dry = on_land(land, nodes, triangles) if land is not None else None
        if dry is not None and dry.all():
            msg = (
                "Mesh.around(land=...): expected some sea, got land everywhere. Check the mask "
                "(False is land), and the order of the axes of polygons."
            )
            raise ValueError(msg)
        margins = torch.as_tensor(outside)
        return cls(
            nodes,
            torch.as_tensor(triangles),
            margins,
            None if dry is None else torch.as_tensor(dry),
        )

    @classmethod
    def sphere(cls, subdivisions: int) -> Mesh:
        r"""Returns a mesh of the whole Earth: an icosahedron whose faces are divided in four.

        Arguments:
            subdivisions: How many times: 5 gives 10 242 nodes, some 240 km apart.

        Example:
            >>> len(Mesh.sphere(2))
            162
        """
        x, triangles = icosphere(subdivisions)
        lat = np.degrees(np.arcsin(np.clip(x[:, 2], -1, 1)))
        lon = np.degrees(np.arctan2(x[:, 1], x[:, 0]))
        return cls(Points(lat=lat, lon=lon), torch.as_tensor(triangles))

    def deformed(self, warp: Callable[[Tensor], Tensor]) -> Mesh:
        r"""Returns the mesh of a deformation model: the same nodes, elsewhere in the equation.

        The operators are those of the moved triangles: a stationary field there is a
        non-stationary one here. On the plane it has the diffusivity :math:`|J| (J^\top J)^{-1}`
        and the mass :math:`|J|`, with :math:`J` the Jacobian of the warp. Points stay where they
        are: data are looked for in the triangles as they were. Operators are differentiable in
        the parameters of the warp.

        Arguments:
            warp: A function of coordinates: those of the nodes on the plane, with shape (N, 2);
                metres from the centre of the Earth, with shape (N, 3), on the sphere.

        Raises:
            ValueError: If a triangle is turned over.

        Example:
            >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).double()
            >>> mesh = Mesh(square, torch.tensor([[0, 1, 2]]))
            >>> mesh.deformed(lambda x: 2 * x).volume.sum().item()
            2.0
        """
        x = warp(self.places())
        if x.shape != self.places().shape:
            msg = (
                f"Mesh.deformed(warp=...): expected places of shape {tuple(self.places().shape)}, "
                f"got {tuple(x.shape)}. Return as many coordinates as are given."
            )
            raise ValueError(msg)
        new = copy.copy(self)
        new._place(x.to(torch.float64))
        folded = new.simplices.turned_from(self.simplices)
        if folded.any():
            msg = (
                f"Mesh.deformed(warp=...): expected a warp that does not fold, got "
                f"{int(folded.sum())} of {len(folded)} triangles turned over. Use a smoother or "
                "smaller warp."
            )
            raise ValueError(msg)
        return new

    @property
    def pattern(self) -> Pattern:
        r"""The pattern of all the operators."""
        return self.assembly.pattern

    @property
    def minimum_angle(self) -> float:
        r"""The smallest angle of the triangles in the equation, in degrees."""
        return float(angles(self.positions.detach().numpy(), self.triangles.numpy()).min())

    def places(self) -> Float[Tensor, "N k"]:
        return _cartesian(self.points)

    def stiffness(self, H: Float[Tensor, "n d d"]) -> Sparse:
        return self.assembly(self.simplices.energy(self._corners(H)).flatten())

    def advection(self, m: Float[Tensor, "n d"], conservative: bool = True) -> Sparse:
        flow = self.simplices.transport(self._corners(m))
        return self.assembly((-flow.mT if conservative else flow).flatten())

    def _corners(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, "T 3 ..."]:
        r"""Returns the values of the corners of each triangle."""
        if len(values) not in {1, self.size}:
            msg = (
                f"Mesh.stiffness or advection(...): expected one value per node, {self.size}, or "
                f"a single one, got {len(values)}. Give it on the nodes of the mesh."
            )
            raise ValueError(msg)
        return values.expand(self.size, *values.shape[1:])[self.triangles]

    def boundary_mass(self) -> Float[Tensor, " N"]:
        a, b = self.sides.unbind(dim=1)
        half = (self.positions[a] - self.positions[b]).norm(dim=1) / 2
        return half.new_zeros(self.size).index_add(0, torch.cat([a, b]), torch.cat([half, half]))

    def _spacing(self) -> Float[Tensor, "N d"]:
        r"""Returns the root mean square of the sides along each axis, over the triangles around.

        It is scaled so as to be the side where the triangles are equilateral.
        """
        square = self.simplices.mean_square_sides()  # (T, 3, d)
        weighted = (square * self.simplices.area[:, None, None]).flatten(0, 1)
        total = weighted.new_zeros(self.size, 2).index_add(0, self.triangles.flatten(), weighted)
        return (2 * total / (3 * self.volume[:, None])).sqrt()

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self.places().numpy(), self.triangles.numpy())

    def interpolation(self, points: Points) -> Sparse:
        if points.dims != self.points.dims or points.metric != self.points.metric:
            msg = (
                f"Mesh.interpolation(points=...): expected dims {self.points.dims} on the "
                f"{self.points.metric}, got {points.dims} on the {points.metric}. Name the "
                "coordinates alike."
            )
            raise ValueError(msg)
        triangle, weights = self._locate(_cartesian(points).numpy())
        return _weights(self.triangles.numpy()[triangle], weights, self.size)

    def _locate(self, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        triangle, weights = self._locator(sites)
        outside = np.nonzero(triangle < 0)[0]
        if self.coast and len(outside):
            near, w, gap = self._locator.nearest(sites[outside])
            landed = gap < COAST_REACH
            triangle[outside[landed]], weights[outside[landed]] = near[landed], w[landed]
            outside = outside[~landed]
        if len(outside):
            msg = (
                f"Mesh.interpolation(points=...): expected points in the mesh, got "
                f"{len(outside)} of {len(sites)} outside"
                f"{' or on land' if self.coast else ''}. Drop them, or widen the mesh."
            )
            raise ValueError(msg)
        return triangle, weights


def _cartesian(points: Points) -> Float[Tensor, "m k"]:
    r"""Returns coordinates of the plane, or metres from the centre of the Earth."""
    x = points.cartesian()
    if points.metric == "sphere":
        x = x + torch.tensor([0.0, 0.0, EARTH_RADIUS], dtype=torch.float64)
    return x


def _assembly(triangles: np.ndarray, size: int) -> Assembly:
    rows = np.repeat(triangles, 3, axis=1)
    columns = np.tile(triangles, (1, 3))
    return Assembly(rows.ravel(), columns.ravel(), (size, size))


def _weights(corners: np.ndarray, weights: np.ndarray, size: int) -> Sparse:
    r"""Returns the matrix of interpolation, a site on a node having a single weight of one."""
    weights = np.where(weights < FAR, 0.0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(corners)), 3)
    used = weights.ravel() > 0
    assembly = Assembly(rows[used], corners.ravel()[used], (len(corners), size))
    return assembly(torch.as_tensor(weights.ravel()[used]))


def _check_axes(points: Points) -> None:
    if len(points.dims) != 2 or "time" in points.dims:
        msg = (
            f"Mesh(nodes=...): expected two axes of space, got {points.dims}. Leave out time; use "
            "a lattice in one or three dimensions."
        )
        raise ValueError(msg)


def _check_sizes(spacing: float, margin: float, wide: float) -> None:
    if not spacing > 0 or not wide >= spacing:
        msg = (
            f"Mesh.around(spacing=..., margin_spacing=...): expected 0 < spacing <= "
            f"margin_spacing, got {spacing:.6g} and {wide:.6g}. Triangles grow outwards."
        )
        raise ValueError(msg)
    if not margin >= 2 * spacing:
        msg = (
            f"Mesh.around(margin=...): expected at least two spacings, {2 * spacing:.6g}, got "
            f"{margin:.6g}. Use a lengthscale or two, so that the edge is not felt."
        )
        raise ValueError(msg)


def _check_count(data: np.ndarray, spacing: float) -> None:
    count = np.prod(np.ptp(data, axis=0) / spacing + 1)
    if count > MOST_NODES:
        msg = (
            f"Mesh.around(spacing=...): expected at most {MOST_NODES} nodes over the sites, got "
            f"about {count:.2g} of them {spacing:.6g} apart. Use a larger spacing; it is in "
            "metres on the sphere."
        )
        raise ValueError(msg)
