r"""Fields of what a kernel is made of, about its means: they vary slowly over a box."""

from __future__ import annotations

__all__ = ["LocalField", "NetworkField", "SplineField"]

import abc
import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from .reference import bending, box, lattice
from ..described import Described

NODES = 9
"""The nodes of the reference lattice along each axis."""


class LocalField(Described, nn.Module, abc.ABC):
    r"""Free numbers :math:`\theta(x) - \bar\theta` at each place of a box.

    Their mean over a reference lattice is zero: the level of each is a parameter of the kernel.
    Outside of the box, they are what they are at the nearest edge.

    Arguments:
        low: The lowest corner of the box, in the units of the coordinates.
        high: The highest corner.
        outputs: The number :math:`k` of free numbers.
        smoothness: The weight :math:`\lambda` of the penalty
            :math:`\frac{\lambda}{2} \sum_{ij} \overline{|\partial_i \partial_j \theta|^2}`, in
            half-widths of the box.

    Raises:
        ValueError: If the box is empty, or a number is not as said.
    """

    center: Tensor
    extent: Tensor
    reference: Tensor

    def __init__(
        self, low: Sequence[float], high: Sequence[float], outputs: int, smoothness: float
    ) -> None:
        super().__init__()
        where = type(self).__name__
        center, half = box(where, low, high)
        if outputs < 1 or not 0 <= smoothness < math.inf:
            msg = (
                f"{where}(outputs=..., smoothness=...): expected one output or more and a weight "
                f"at least zero, got {outputs} and {smoothness}. Use 0 for no penalty."
            )
            raise ValueError(msg)
        self.dimensions, self.outputs, self.smoothness = len(center), outputs, float(smoothness)
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("extent", half, persistent=False)
        unit = torch.ones_like(half)
        self.register_buffer("reference", lattice(unit, NODES), persistent=False)

    @abc.abstractmethod
    def free(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        r"""Returns :math:`\theta` at scaled coordinates, between -1 and 1."""

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        z = ((x - self.center) / self.extent).clamp(-1, 1).reshape(-1, self.dimensions)
        theta = self.free(z) - self.free(self.reference).mean(dim=0)
        return theta.reshape(*x.shape[:-1], self.outputs)

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the field."""
        half = torch.ones_like(self.extent)
        rough = bending(self.free(self.reference), half, NODES)
        return self.smoothness / 2 * rough


class SplineField(LocalField):
    r"""Tensor products of cubic B-splines over a coarse lattice.

    .. math:: \theta(x) = \sum_j c_j \prod_i b(h_i^{-1} (x_i - \xi_{j_i}))

    References:
        | Flexible smoothing with B-splines and penalties (Eilers and Marx, 1996)
        | https://doi.org/10.1214/ss/1038425655

    Arguments:
        low: The lowest corner of the box, in the units of the coordinates.
        high: The highest corner.
        knots: The number of knots along each axis, two or more; there are as many splines and
            two.
        outputs: The number :math:`k` of free numbers.
        smoothness: The weight of the penalty; see :class:`LocalField`.

    Raises:
        ValueError: If the box is empty, or a number is not as said.

    Example:
        >>> field = SplineField([0.0, 0.0], [1.0, 2.0], knots=3)
        >>> field(torch.zeros(5, 2).double()).shape, field.coefficients.shape
        (torch.Size([5, 1]), torch.Size([25, 1]))
    """

    knots: Tensor

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        knots: int = 4,
        outputs: int = 1,
        smoothness: float = 1.0,
    ) -> None:
        super().__init__(low, high, outputs, smoothness)
        if knots < 2:
            msg = f"SplineField(knots=...): expected two or more, got {knots}. Use e.g. 4."
            raise ValueError(msg)
        places = torch.arange(-1, knots + 1, dtype=torch.float64)
        self.register_buffer("knots", places, persistent=False)
        self.cells = knots - 1
        splines = (knots + 2) ** self.dimensions
        self.coefficients = nn.Parameter(torch.zeros(splines, outputs, dtype=torch.float64))

    def free(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        basis = z.new_ones(len(z), 1)
        for i in range(self.dimensions):
            along = _cubic((z[:, i, None] + 1) / 2 * self.cells - self.knots)
            basis = (basis[:, :, None] * along[:, None, :]).flatten(1)
        return basis @ self.coefficients.to(z.dtype)


def _cubic(u: Float[Tensor, "m j"]) -> Float[Tensor, "m j"]:
    r"""Returns the cardinal cubic B-spline, which is zero beyond two."""
    far, near = (2 - u.abs()).clamp(min=0), (1 - u.abs()).clamp(min=0)
    return (far**3 - 4 * near**3) / 6


class NetworkField(LocalField):
    r"""A small network with one hidden layer, of hyperbolic tangents.

    .. math:: \theta(x) = A \tanh(B z + b)

    It starts at zero.

    Arguments:
        low: The lowest corner of the box, in the units of the coordinates.
        high: The highest corner.
        width: The number of hidden features.
        outputs: The number :math:`k` of free numbers.
        smoothness: The weight of the penalty; see :class:`LocalField`.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If the box is empty, or a number is not as said.

    Example:
        >>> field = NetworkField([0.0], [1.0], generator=torch.Generator().manual_seed(0))
        >>> field(torch.zeros(2, 1).double()).tolist()
        [[0.0], [0.0]]
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        width: int = 16,
        outputs: int = 1,
        smoothness: float = 1.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(low, high, outputs, smoothness)
        if width < 1:
            msg = f"NetworkField(width=...): expected one or more, got {width}. Use e.g. 16."
            raise ValueError(msg)
        draws = torch.randn(width, self.dimensions + 1, dtype=torch.float64, generator=generator)
        self.inner = nn.Parameter(2 * draws[:, 1:])
        self.bias = nn.Parameter(draws[:, 0].clone())
        self.outer = nn.Parameter(torch.zeros(outputs, width, dtype=torch.float64))

    def free(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        inner, bias, outer = (p.to(z.dtype) for p in (self.inner, self.bias, self.outer))
        return torch.tanh(z @ inner.mT + bias) @ outer.mT
