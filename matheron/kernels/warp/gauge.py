r"""The warp of a box of coordinates, with what a kernel could not tell from itself taken out."""

from __future__ import annotations

__all__ = ["GaugedWarp"]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import Warp
from ..base import positive
from ..reference import bending, box, lattice

POLAR = 20
"""The steps of the polar decomposition; five are enough near a rotation."""


class GaugedWarp(Warp):
    r"""A warp of coordinates over a box, gauged: no shift, no turn, no change of scale.

    .. math:: g(x) = x + s \left( e^{-m / d} \, Q^\top (w(z) - \bar w) - z \right),
        \qquad z = (x - c) / s

    with the middle :math:`c` of the box and a scale :math:`s`. Over a reference lattice of the
    box, :math:`m` is the mean of :math:`\log \det \partial w`, :math:`\bar w` the mean of
    :math:`w`, and :math:`Q` the rotation that fits :math:`w(z)` to :math:`z` best (Procrustes).
    These are what a stationary, isotropic kernel cannot tell from a lengthscale, or at all: a
    lengthscale keeps its units, that of an average place. Where :math:`w` is the identity, so is
    :math:`g`.

    Arguments:
        warp: The warp :math:`w`, of coordinates of order one about zero.
        low: The lowest corner of the box, in the units of the coordinates.
        high: The highest corner.
        scale: The scale :math:`s`, one number or one per coordinate; by default half of the
            longest side, so that what is round stays round. Where coordinates have different
            units (time and space), give one per coordinate.
        nodes: The number of nodes of the lattice along each axis.
        smoothness: The weight :math:`\lambda` of the penalty
            :math:`\frac{\lambda}{2} \sum_{ij} \overline{|\partial_i \partial_j g|^2}`, in
            scaled coordinates.

    Raises:
        ValueError: If the box is empty, or does not have the coordinates of the warp, or if a
            number is not as said.

    Example:
        >>> from matheron.kernels.warp import AffineWarp
        >>> swollen = AffineWarp(1, [[1.0]])  # by e, of which nothing is left
        >>> GaugedWarp(swollen, [0.0], [10.0])(torch.tensor([[7.0]]).double()).item()
        7.0
    """

    center: Tensor
    scale: Tensor
    extent: Tensor
    reference: Tensor

    def __init__(
        self,
        warp: Warp,
        low: Sequence[float],
        high: Sequence[float],
        scale: float | Sequence[float] | None = None,
        nodes: int = 9,
        smoothness: float = 0.0,
    ) -> None:
        super().__init__()
        center, half = box("GaugedWarp", low, high)
        d = warp.dimensions
        if len(center) != d or nodes < 3 or not 0 <= smoothness < float("inf"):
            msg = (
                f"GaugedWarp(low=..., nodes=..., smoothness=...): expected a box of {d} "
                f"coordinates, three nodes or more and a weight at least zero, got {len(center)}, "
                f"{nodes} and {smoothness}. Give as many as the warp has."
            )
            raise ValueError(msg)
        s = half.max() if scale is None else positive("GaugedWarp", "scale", scale)
        self.warp, self.dimensions = warp, d
        self.nodes, self.smoothness = nodes, float(smoothness)
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("scale", s.expand(d).clone(), persistent=False)
        self.register_buffer("extent", half / self.scale, persistent=False)
        self.register_buffer("reference", lattice(self.extent, nodes), persistent=False)

    @classmethod
    def around(
        cls,
        x: Float[Tensor, "m k"],
        warp: Warp,
        scale: float | Sequence[float] | None = None,
        nodes: int = 9,
        smoothness: float = 0.0,
    ) -> GaugedWarp:
        r"""Returns the gauged warp over the box of some sites, of their first coordinates.

        Example:
            >>> from matheron.kernels.warp import AxialWarp
            >>> x = torch.tensor([[0.0, 0.0], [10.0, 4.0]]).double()
            >>> GaugedWarp.around(x, AxialWarp(2)).extent.tolist()
            [1.0, 0.4]
        """
        x = x[:, : warp.dimensions]
        low, high = x.amin(dim=0).tolist(), x.amax(dim=0).tolist()
        return cls(warp, low, high, scale, nodes, smoothness)

    def _gauge(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the mean logarithm, the mean warp and the rotation over the lattice."""
        z = self.reference
        u = self.warp(z)
        mean = u.mean(dim=0)
        M = (u - mean).mT @ z / z.square().mean(dim=0) / len(z)
        return self.warp.log_det_jacobian(z).mean(), mean, _rotation(M)

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale

    def _straight(self, z: Tensor) -> Tensor:
        m, mean, Q = self._gauge()
        return (self.warp(z) - mean) @ Q * (-m / self.dimensions).exp()

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        z = self._scaled(x)
        # by what it adds, so that the identity is exact
        return x + (self.scale * (self._straight(z) - z)).to(x.dtype)

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        mean = self.warp.log_det_jacobian(self.reference).mean()
        return (self.warp.log_det_jacobian(self._scaled(x)) - mean).to(x.dtype)

    @torch.no_grad()
    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        m, mean, Q = self._gauge()
        w = self._scaled(u) * (m / self.dimensions).exp() @ Q.mT + mean
        return self.center + self.scale * self.warp.inverse(w)

    def roughness(self) -> Float[Tensor, ""]:
        r"""Returns the mean square of the second derivatives over the box, in scaled coordinates.

        It is zero for the warps that are affine.
        """
        return bending(self._straight(self.reference), self.extent, self.nodes)

    def penalty(self) -> Float[Tensor, ""]:
        if self.smoothness == 0:
            return self.warp.penalty()
        return self.warp.penalty() + self.smoothness / 2 * self.roughness()


def _rotation(M: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    r"""Returns the rotation of the polar decomposition, by Newton's method.

    Unlike singular vectors, it is differentiable where the matrix is near the identity.

    References:
        | Computing the polar decomposition, with applications (Higham, 1986)
        | https://doi.org/10.1137/0907079
    """
    if len(M) == 1:
        return torch.ones_like(M)
    if not torch.linalg.det(M.detach()) > 1e-12:
        msg = (
            f"GaugedWarp(warp=...): expected a warp that keeps its box the right way round, got "
            f"one whose mean slopes are {M.detach().tolist()}. Start from the identity, or give "
            "a larger smoothness."
        )
        raise ValueError(msg)
    for _ in range(POLAR):
        M = (M + torch.linalg.inv(M).mT) / 2
    return M
