r"""What a discretisation of space offers to a stochastic partial differential equation."""

from __future__ import annotations

__all__ = ["Discretization"]

import abc

from jaxtyping import Bool, Float
from torch import Tensor

from ...domain import Points
from ...linalg.sparse import Sparse


class Discretization(abc.ABC):
    r"""Nodes, and the operators of a partial differential equation on them, in weak form.

    Operators are integrated over cells, so that they are divided by :attr:`volume` to act on
    fields. Lengths are metres on the sphere, the units of the axes on the plane. Vectors and
    matrices are in the order of the axes of :attr:`points`: (y, x) on the plane, (north, east)
    on the sphere. All the operators have one pattern, the same object at every call.

    Arguments:
        size: The number of nodes :math:`N`.
        dimension: The number of axes :math:`d`.
        points: The nodes.
        volume: The volume of the cell of each node: the lumped mass.
        spacing: A typical distance to the next node, along each axis.
        margin: Where nodes lie outside the domain, only to keep its boundary away.
    """

    size: int
    dimension: int
    points: Points
    volume: Float[Tensor, " N"]
    spacing: Float[Tensor, "N d"]
    margin: Bool[Tensor, " N"]

    def __len__(self) -> int:
        return self.size

    @abc.abstractmethod
    def places(self) -> Float[Tensor, "N k"]:
        r"""Returns where the nodes are, for the order of elimination."""

    @abc.abstractmethod
    def stiffness(self, H: Float[Tensor, "n d d"]) -> Sparse:
        r"""Returns :math:`G`, with :math:`x^\top G x = \int \nabla x^\top H \nabla x`.

        No flux leaves through the boundary. :math:`G` is symmetric, and positive semi-definite
        if ``H`` is. ``H`` holds one matrix per node, or a single one for all.
        """

    @abc.abstractmethod
    def advection(self, m: Float[Tensor, "n d"], conservative: bool = True) -> Sparse:
        r"""Returns :math:`\nabla \cdot (m x)`, or :math:`m \cdot \nabla x`, over each cell.

        No flux leaves through the boundary, whatever the velocity. ``m`` holds one vector per
        node, or a single one for all.
        """

    @abc.abstractmethod
    def boundary_mass(self) -> Float[Tensor, " N"]:
        r"""Returns the surface of the outer boundary that belongs to each node; 0 inside."""

    @abc.abstractmethod
    def interpolation(self, points: Points) -> Sparse:
        r"""Returns the linear weights, which sum to one, from nodes to points.

        Raises:
            ValueError: If points fall outside, or on land.
        """
