r"""Warps by normalizing flows."""

from __future__ import annotations

__all__ = ["FlowWarp"]

import functools
import math
import torch
import torch.nn as nn

from jaxtyping import Float
from torch import Generator, Tensor
from zuko.flows.autoregressive import MAF
from zuko.nn import MaskedLinear
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from .base import Warp

BOUND = 2.0
"""The half-width of the box in which splines act: about twice that of the data."""
KINDS = ("affine", "spline")


class FlowWarp(Warp):
    r"""A normalizing flow: masked autoregressive maps, each coordinate given those before it.

    .. math:: u_i = f(x_i; \, h_\theta(x_1, \dots, x_{i-1}))

    The order of the coordinates is turned round from one map to the next. Networks are smooth
    (hyperbolic tangents) and bounded, so that tails are affine; their last layers start at zero,
    so that the warp starts from the identity. ``"affine"`` scales and shifts (RealNVP in two
    dimensions); ``"spline"`` adds monotone rational splines over the box :math:`[-2, 2]^d`, and
    is of few maps for the same warp.

    References:
        | Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803
        | Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017)
        | https://arxiv.org/abs/1705.07057
        | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Arguments:
        dimensions: The number of coordinates, two or more.
        kind: ``"affine"`` or ``"spline"``.
        transforms: The number of maps.
        width: The number of features of the two hidden layers of each network.
        bins: The number of bins of a spline.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If an argument is not as said.

    Example:
        >>> warp = FlowWarp(2, generator=torch.Generator().manual_seed(0))
        >>> warp(torch.ones(1, 2).double()).tolist()
        [[1.0, 1.0]]
    """

    def __init__(
        self,
        dimensions: int,
        kind: str = "spline",
        transforms: int = 3,
        width: int = 32,
        bins: int = 8,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self._check(dimensions)
        if dimensions < 2 or kind not in KINDS or min(transforms, width, bins - 1) < 1:
            msg = (
                f"FlowWarp(dimensions=..., kind=...): expected two coordinates or more, a kind "
                f"among {KINDS}, and a map or more, got {dimensions}, {kind!r} and {transforms}. "
                "Use AxialWarp for one coordinate."
            )
            raise ValueError(msg)
        with torch.random.fork_rng(devices=[]):  # weights are drawn below, by the generator
            flow = MAF(
                dimensions,
                transforms=transforms,
                hidden_features=(width, width),
                activation=nn.Tanh,
                univariate=_univariate(kind),
                shapes=[(), ()] if kind == "affine" else [(bins,), (bins,), (bins - 1,)],
            )
        self.maps = flow.transform.double()
        for network in self.maps.transforms:
            _start(network.hyper, generator)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return self.maps()(x.double()).to(x.dtype)

    def log_det_jacobian(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.maps().call_and_ladj(x.double())[1].to(x.dtype)

    @torch.no_grad()
    def inverse(self, u: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return self.maps().inv(u.double()).to(u.dtype)


def _univariate(kind: str) -> object:
    if kind == "affine":
        return MonotonicAffineTransform
    return functools.partial(MonotonicRQSTransform, bound=BOUND)


@torch.no_grad()
def _start(network: nn.Module, generator: Generator | None) -> None:
    r"""Draws the weights of a network, and sets its last layer to zero."""
    layers = [layer for layer in network.modules() if isinstance(layer, MaskedLinear)]
    for layer in layers:
        bound = 1 / math.sqrt(layer.in_features)
        for p in layer.parameters():
            p.copy_(torch.empty_like(p).uniform_(-bound, bound, generator=generator))
    for p in layers[-1].parameters():
        p.zero_()
