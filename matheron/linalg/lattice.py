r"""Covariances between a lattice and scattered points, one axis at a time where they separate."""

from __future__ import annotations

__all__ = ["Lattice", "Separated", "separate"]

import math
import torch

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from .composition import Composition, Factor, correlation, distance

RANK = 1e-13
"""Singular values of the covariances along an axis, of the largest, that are rounding."""
ROOM = 4
"""The nodes of a lattice per point, beyond which the points are not seen as a part of it."""


@dataclass(frozen=True)
class Lattice:
    r"""Points as nodes of the product of their coordinates along each axis.

    Arguments:
        axes: The coordinates along each axis.
        index: The node of each point, in row-major order, with shape :math:`(n)`.
    """

    axes: tuple[Float[Tensor, " _"], ...]
    index: Int[Tensor, " n"]

    @classmethod
    def of(cls, x: Float[Tensor, "n k"]) -> Lattice | None:
        r"""Returns the lattice on which the points are, or ``None`` if they fill too little of it.

        Example:
            >>> x = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, 5.0]))
            >>> [len(axis) for axis in Lattice.of(x.double()).axes]
            [2, 3]
        """
        axes, index = [], torch.zeros(len(x), dtype=torch.long)
        for column in x.unbind(dim=-1):
            axis, rank = torch.unique(column, return_inverse=True)
            axes.append(axis)
            index = index * len(axis) + rank
            if math.prod(len(a) for a in axes) > ROOM * len(x):
                return None
        return cls(tuple(axes), index)

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The number of nodes along each axis."""
        return tuple(len(axis) for axis in self.axes)

    def lines(self) -> Float[Tensor, "l k"]:
        r"""Returns the nodes along each axis in turn, the other coordinates at their first."""
        origin = torch.stack([axis[0] for axis in self.axes])
        found = []
        for j, axis in enumerate(self.axes):
            line = origin.repeat(len(axis), 1)
            line[:, j] = axis
            found.append(line)
        return torch.cat(found)


@dataclass(frozen=True)
class Separated:
    r"""A term :math:`K_{(ij) a} = s_a P_{ia} Q_{ja}` of the covariance of a lattice and data.

    Arguments:
        scale: :math:`s`, with shape :math:`(m)`.
        first: :math:`P`, along the first axis that has more than one node.
        rest: :math:`Q`, along the others.
    """

    scale: Float[Tensor, " m"]
    first: Float[Tensor, "p m"]
    rest: Float[Tensor, "q m"]

    def times(self, w: Float[Tensor, "b m"]) -> Float[Tensor, "b n"]:
        r"""Returns :math:`K w`, for each row of ``w``, in row-major order."""
        x = w.new_empty(len(w), len(self.first), len(self.rest))
        for i, row in enumerate(w):
            torch.matmul(self.first * (self.scale * row), self.rest.mT, out=x[i])
        return x.flatten(1)

    def explained(
        self, whiten: Callable[[Float[Tensor, "m c"]], Float[Tensor, "m c"]]
    ) -> Float[Tensor, " n"]:
        r"""Returns the diagonal of :math:`K S^{-1} K^\top`, by the low rank of each axis.

        Smooth covariances along an axis have few singular values above rounding: the factor of
        :math:`S` meets their products in place of the nodes.
        """
        (U, A), (T, B) = _low_rank(self.first), _low_rank(self.rest)
        r, t = len(A), len(B)
        W = whiten((self.scale * (A[:, None] * B)).flatten(0, 1).mT)
        C = (W.mT @ W).reshape(r, t, r, t).transpose(1, 2).reshape(r * r, t * t)
        squares = [(V[:, :, None] * V[:, None, :]).flatten(1) for V in (U, T)]
        return (squares[0] @ C @ squares[1].mT).flatten()


def _low_rank(K: Float[Tensor, "n m"]) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`U` with orthonormal columns and :math:`A`, with :math:`U A = K`."""
    # by the Gram matrix values under 1e-8 of the largest would be lost, hence the decomposition
    Q, R = torch.linalg.qr(K.mT)
    U, values, V = torch.linalg.svd(R.mT, full_matrices=False)
    keep = values > RANK * values[:1]
    return U[:, keep], (values[keep, None] * V[keep]) @ Q.mT


def separate(
    terms: Callable[[Float[Tensor, "n k"]], Composition | None],
    lattice: Lattice,
    data: Float[Tensor, "m k"],
) -> list[Separated] | None:
    r"""Returns the covariance of the nodes of a lattice and data, if it separates over its axes.

    Arguments:
        terms: The kernel, as a sum of products of radial functions over given sites; their
            coordinates are a linear map of the sites.
        lattice: The lattice.
        data: The sites of the data.
    """
    lines = lattice.lines()
    composition = terms(torch.cat([lines, data]))
    if composition is None:
        return None
    found = []
    for term in composition:
        axes: list[Tensor | None] = [None] * len(lattice.axes)
        scale = term.variance.expand(len(data))
        for factor in term.factors:
            pieces = _pieces(factor, lattice, len(lines))
            if pieces is None:
                return None
            for j, K in pieces:
                if j is None:
                    scale = scale * K[0]
                else:
                    own = axes[j]
                    axes[j] = K if own is None else own * K
        found.append(_separated(scale, lattice, axes))
    return found


def _pieces(
    factor: Factor, lattice: Lattice, lines: int
) -> list[tuple[int | None, Tensor]] | None:
    r"""Returns the correlations of a factor along the axes that it depends on."""
    columns = list(range(factor.coords.shape[1]))
    # the Gaussian alone is the product of its columns
    sets = [[c] for c in columns] if factor.radial == "gaussian" else [columns]
    nodes, data = factor.coords[:lines].split(lattice.shape), factor.coords[lines:]
    found = []
    for chosen in sets:
        on = [j for j, x in enumerate(nodes) if _varies(x[:, chosen])]
        if len(on) > 1:
            return None
        j = on[0] if on else None
        a = nodes[0][:1] if j is None else nodes[j]
        u = distance(a[:, chosen], data[:, chosen])
        found.append((j, correlation(factor.radial, factor.table, u)))
    return found


def _varies(x: Float[Tensor, "n c"]) -> bool:
    return bool((x - x[:1]).abs().max() > 1e-12 * (1 + x.abs().max()))


def _separated(
    scale: Float[Tensor, " m"], lattice: Lattice, axes: Sequence[Tensor | None]
) -> Separated:
    ones = scale.new_ones(1, len(scale))
    full = [
        ones.expand(size, -1) if K is None else K
        for size, K in zip(lattice.shape, axes, strict=True)
        if size > 1
    ]
    rest = ones
    for K in full[1:]:
        rest = (rest[:, None] * K).flatten(0, 1)
    return Separated(scale, full[0] if full else ones, rest)
