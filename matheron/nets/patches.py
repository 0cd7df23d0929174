r"""Nodes of a cell as channels of one: wide networks where fields are coarse."""

from __future__ import annotations

__all__ = ["Patches"]

import math
import torch.nn.functional as F

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .layers import Net, check_counts


class Patches(Net):
    r"""A network on cells, whose channels are those of all the nodes of a cell.

    No number is lost, unlike by averages: a field of :math:`c` channels becomes one of
    :math:`c \prod_i f_i` channels with :math:`f_i` times fewer places along each axis. Where data
    come at regular steps a cell per datum is a natural choice. The network then works at the
    scales that matter, with products of matrices that are large enough for a processor to be
    quick. It is not invariant to shifts that are not whole cells.

    Sides that are not whole numbers of cells are filled with zeros at their ends.

    References:
        | Real-time single image and video super-resolution using an efficient sub-pixel
        | convolutional neural network (Shi et al., 2016)
        | https://doi.org/10.1109/CVPR.2016.207

    Arguments:
        net: The network on cells.
        factor: The side of a cell in nodes, one or one per dimension.

    Raises:
        ValueError: If a side is not positive, there is not one per dimension, or the channels of
            the network are not those of whole cells.

    Example:
        >>> import torch
        >>> from matheron.nets import UNet
        >>> inner = UNet(24, 8, width=4, dims=1, generator=torch.Generator().manual_seed(0))
        >>> net = Patches(inner, 8)
        >>> net(torch.zeros(2, 3, 21)).shape
        torch.Size([2, 1, 21])
    """

    def __init__(self, net: Net, factor: int | Sequence[int]) -> None:
        super().__init__()
        self.dims = net.dims
        self.factor = (factor,) * net.dims if isinstance(factor, int) else tuple(factor)
        check_counts("Patches", factor=min(self.factor, default=0))
        self.channels, rest = divmod(net.channels, math.prod(self.factor))
        if rest or len(self.factor) != net.dims:
            msg = (
                f"Patches(factor={self.factor}): expected one side per dimension, and a network "
                f"of a multiple of {math.prod(self.factor)} channels, got {net.dims} dimensions "
                f"and {net.channels} channels. Give the network those of all nodes of a cell."
            )
            raise ValueError(msg)
        self.net = net

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d *space"]:
        space = x.shape[2:]
        gaps = [-n % f for n, f in zip(space, self.factor, strict=True)]
        pads = [width for gap in reversed(gaps) for width in (0, gap)]
        y = self._apart(self.net(self._together(F.pad(x, pads) if any(gaps) else x)))
        for axis, n in enumerate(space, start=2):
            y = y.narrow(axis, 0, n)
        return y

    def _together(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *coarse"]:
        d, f = self.dims, self.factor
        split = [size for n, k in zip(x.shape[2:], f, strict=True) for size in (n // k, k)]
        cells, inside = range(2, 2 + 2 * d, 2), range(3, 3 + 2 * d, 2)
        y = x.reshape(*x.shape[:2], *split).permute(0, 1, *inside, *cells)
        return y.flatten(1, 1 + d)

    def _apart(self, y: Float[Tensor, "b k *coarse"]) -> Float[Tensor, "b d *space"]:
        d, f = self.dims, self.factor
        places = [axis for k in range(d) for axis in (2 + d + k, 2 + k)]
        x = y.unflatten(1, (-1, *f)).permute(0, 1, *places)
        sides = [n * k for n, k in zip(y.shape[2:], f, strict=True)]
        return x.reshape(*x.shape[:2], *sides)
