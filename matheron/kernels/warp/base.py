r"""What a warp of coordinates is, and how warps follow each other."""

from __future__ import annotations

__all__ = ["Warp", "WarpChain", "increasing_root"]

import abc
import torch
import torch.nn as nn

from collections.abc import Callable, Sequence
from jaxtyping import Float
from torch import Tensor
from typing import cast

from ...described import Described


class Warp(Described, nn.Module, abc.ABC):
    r"""A smooth map :math:`w` of coordinates that never folds: :math:`\det \partial w > 0`.

    Made without arguments that say otherwise, it is the identity.

    Attributes:
        dimensions: The number :math:`d` of coordinates.
    """

    dimensions: int

    @abc.abstractmethod
    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        r"""Returns the coordinates :math:`w(x)`."""

    @abc.abstractmethod
    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`\log \det \partial w / \partial x`."""

    @abc.abstractmethod
    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        r"""Returns :math:`w^{-1}(u)`, without a gradient."""

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the warp; zero by default."""
        return torch.zeros((), dtype=torch.float64)

    def jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d d"]:
        r"""Returns :math:`\partial w_i / \partial x_j`, differentiable where gradients are on.

        A kernel of lengthscale :math:`\ell` seen through the warp has, about a site, the
        ellipse of lengthscales :math:`\ell^2 (J^\top J)^{-1}`.
        """
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            u = self(x)
            rows = [
                torch.autograd.grad(u[..., i].sum(), x, retain_graph=True, create_graph=again)[0]
                for i in range(u.shape[-1])
            ]
        return torch.stack(rows, dim=-2)

    def _check(self, dimensions: int) -> None:
        if dimensions < 1:
            msg = (
                f"{type(self).__name__}(dimensions=...): expected at least one coordinate, got "
                f"{dimensions}. Give the number of axes to warp."
            )
            raise ValueError(msg)
        self.dimensions = dimensions


class WarpChain(Warp):
    r"""Warps, one after the other.

    Arguments:
        warps: The warps, the first to be applied first.

    Raises:
        ValueError: If there is none, or if they are not of as many coordinates.

    Example:
        >>> from matheron.kernels.warp import AxialWarp
        >>> chain = WarpChain([AxialWarp(2, axis=0), AxialWarp(2, axis=1)])
        >>> chain(torch.ones(1, 2).double()).tolist()
        [[1.0, 1.0]]
    """

    warps: Sequence[Warp]

    def __init__(self, warps: Sequence[Warp]) -> None:
        super().__init__()
        sizes = {warp.dimensions for warp in warps}
        if len(sizes) != 1:
            msg = (
                f"WarpChain(warps=...): expected warps of the same coordinates, got {len(warps)} "
                f"of {sorted(sizes)} coordinates. Make them alike."
            )
            raise ValueError(msg)
        self.dimensions = sizes.pop()
        self.warps = cast(Sequence[Warp], nn.ModuleList(warps))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        for warp in self.warps:
            x = warp(x)
        return x

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        total = x.new_zeros(x.shape[:-1])
        for warp in self.warps:
            total = total + warp.log_det_jacobian(x)
            x = warp(x)
        return total

    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        for warp in reversed(list(self.warps)):
            u = warp.inverse(u)
        return u

    def penalty(self) -> Float[Tensor, ""]:
        return torch.stack([warp.penalty() for warp in self.warps]).sum()


@torch.no_grad()
def increasing_root(
    function: Callable[[Tensor], Tensor], target: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    r"""Returns where an increasing function that is not bounded takes values, by bisection.

    Example:
        >>> increasing_root(lambda t: t**3 + t, torch.tensor([10.0]).double()).item()
        2.0
    """
    low, high = -torch.ones_like(target), torch.ones_like(target)
    for _ in range(200):
        below, above = function(low) <= target, function(high) >= target
        if (below & above).all():
            break
        low, high = torch.where(below, low, 2 * low), torch.where(above, high, 2 * high)
    for _ in range(80):
        middle = (low + high) / 2
        left = function(middle) >= target
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
    return (low + high) / 2
