r"""A network that gives what is to be added to its input."""

from __future__ import annotations

__all__ = ["Residual"]

from jaxtyping import Float
from torch import Tensor

from .layers import Net


class Residual(Net):
    r"""The identity, and a network beside it.

    .. math:: \Phi(x) = x + N(x)

    Networks begin near zero: as a projection that is applied again and again, a plain one begins
    by losing what it is given, and this one by keeping it.

    References:
        | Deep residual learning for image recognition (He, Zhang, Ren & Sun, 2016)
        | https://doi.org/10.1109/CVPR.2016.90

    Arguments:
        net: A network that gives as many channels as it takes.

    Example:
        >>> import torch
        >>> from matheron.nets import Conv
        >>> net = Residual(Conv(1, 1, generator=torch.Generator().manual_seed(0)))
        >>> x = torch.ones(1, 1, 4, 5)
        >>> bool((net(x) == x + net.net(x)).all())
        True
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net, self.channels, self.dims = net, net.channels, net.dims

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return x + self.net(x)
