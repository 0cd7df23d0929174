r"""Advection on a lattice: what becomes of the velocity in the margin, and on coarse cells."""

from __future__ import annotations

__all__ = ["Transport"]

import numpy as np
import torch

from jaxtyping import Float
from torch import Tensor

from .lattice import Lattice
from ...linalg.sparse import Sparse


class Transport:
    r"""The operator of advection on a lattice with a margin.

    In the domain the form is conservative, :math:`\nabla \cdot (m x)`, or advective,
    :math:`m \cdot \nabla x`, by choice. In the margin, and in the cells next to land, through
    which nothing flows, it is advective: values are carried, and do not pile up. The velocity
    falls to zero along its axis in the outer part of the margin, where what flows in is made.

    Arguments:
        lattice: The lattice.
        conservative: Whether the form is conservative in the domain.
        stabilize: Whether to add diffusion along the velocity where cells are too coarse.
    """

    def __init__(self, lattice: Lattice, conservative: bool, stabilize: bool) -> None:
        self.lattice, self.stabilize = lattice, stabilize
        neighbours = torch.as_tensor(np.diff(lattice.pattern.indptr))
        inside = ~lattice.margin & (neighbours == neighbours.max())
        self.flux = (inside & conservative).to(torch.float64)
        self.taper = _taper(lattice)

    def velocity(self, m: Float[Tensor, "n d"]) -> Float[Tensor, "N d"]:
        r"""Returns the velocity that is used, at every node."""
        return m * self.taper

    def diffusivity(
        self, H: Float[Tensor, "n d d"], m: Float[Tensor, "N d"]
    ) -> Float[Tensor, "N d d"]:
        r"""Returns the diffusivity that keeps the Peclet number of every cell at one or less.

        .. math:: H + \left( \frac{|m| h}{2} - \frac{m^\top H m}{|m|^2} \right)_+
            \frac{m m^\top}{|m|^2}, \qquad |m| h = \sum_i |m_i| h_i

        On a lattice without diagonal neighbours it is along the axes, each by itself.

        References:
            | Streamline upwind/Petrov-Galerkin formulations (Brooks and Hughes, 1982)
            | https://doi.org/10.1016/0045-7825(82)90071-8
        """
        H = H.expand(len(m), -1, -1)
        if not self.stabilize:
            return H
        reach = m.abs() * self.lattice.spacing / 2
        if not self.lattice.cross:
            short = (reach - H.diagonal(dim1=-2, dim2=-1)).clamp(min=0)
            return H + torch.diag_embed(short)
        square = m.square().sum(dim=-1)
        still = square == 0
        unit = m / torch.where(still, 1.0, square).sqrt()[:, None]
        along = (unit[:, None] @ H @ unit[:, :, None])[:, 0, 0]
        more = torch.where(still, 0.0, (reach.sum(dim=-1) - along).clamp(min=0))
        return H + more[:, None, None] * unit[:, :, None] * unit[:, None]

    def operator(self, m: Float[Tensor, "N d"]) -> Sparse:
        r"""Returns :math:`A`, integrated over cells."""
        values = self.lattice.advection(m, conservative=False)
        whole = self.lattice.advection(m, conservative=True)
        return values + (whole - values).scale(rows=self.flux)


START = 0.5
"""The part of the margin through which the velocity goes on."""


def _taper(lattice: Lattice) -> Float[Tensor, "N d"]:
    r"""Returns the share of each component that is left, 1 in the domain, 0 at the end."""
    each = []
    for name, axis in lattice.axes.items():
        s = lattice.points.axis(name)
        if lattice.grid.metric == "sphere" and name == "lon":
            s = axis.nodes[0] + torch.remainder(s - axis.nodes[0] + 1e-9, 360.0) - 1e-9
        low, high = axis.nodes[axis.before], axis.nodes[axis.before + axis.count - 1]
        out = torch.maximum(
            (low - s) / (low - axis.nodes[0]).clamp(min=1e-12),
            (s - high) / (axis.nodes[-1] - high).clamp(min=1e-12),
        )
        out = torch.zeros_like(s) if axis.closed else out
        each.append(((1 - out) / (1 - START)).clamp(0.0, 1.0))
    return torch.stack(each, dim=-1)
