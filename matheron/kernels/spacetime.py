r"""Covariances over space and time. Time is the first coordinate."""

from __future__ import annotations

__all__ = ["Gneiting", "separable", "sum_metric"]

import math
import torch
import torch.nn as nn

from jaxtyping import Float
from torch import Tensor

from .base import Kernel, Product, Sum, positive
from .stationary import Stationary, distance
from ..linalg.composition import correlation, matern_table


def _over(kernel: Kernel, axes: str, where: str) -> None:
    for part in kernel.modules():
        if isinstance(part, Stationary) and part.axes != axes:
            msg = (
                f"{where}({axes}=...): expected a kernel over {axes!r}, got "
                f"{type(part).__name__} over {part.axes!r}. Build it with axes={axes!r}."
            )
            raise ValueError(msg)


def separable(time: Kernel, space: Kernel) -> Product:
    r"""Returns the separable model :math:`c_t(u) \, c_s(h)`.

    Example:
        >>> from matheron.kernels import Matern
        >>> kernel = separable(Matern(0.5, axes="time"), Matern(1.5, axes="space"))
        >>> kernel(torch.zeros(1, 3), torch.zeros(1, 3)).item()
        1.0
    """
    _over(time, "time", "separable")
    _over(space, "space", "separable")
    return Product(time, space)


def sum_metric(time: Kernel, space: Kernel, joint: Kernel) -> Sum:
    r"""Returns the sum-metric model :math:`c_t(u) + c_s(h) + c_j(h, u)`.

    The joint part is a kernel over all axes, whose lengthscales scale time against space.

    Example:
        >>> from matheron.kernels import Matern
        >>> joint = Matern(1.5, lengthscale=(7.0, 1.0, 1.0))
        >>> kernel = sum_metric(Matern(0.5, axes="time"), Matern(1.5, axes="space"), joint)
        >>> kernel(torch.zeros(1, 3), torch.zeros(1, 3)).item()
        3.0
    """
    _over(time, "time", "sum_metric")
    _over(space, "space", "sum_metric")
    return Sum(time, space, joint)


class Gneiting(Kernel):
    r"""Gneiting's non-separable model, with a Matern margin in space.

    .. math::
        c(h, u) = \frac{\sigma^2}{\psi^{\delta + \beta k / 2}}
        M_\nu \left( \frac{h}{\ell \, \psi^{\beta / 2}} \right), \qquad
        \psi = 1 + |u / T|^{2 \alpha}

    with :math:`k` space coordinates (three on the sphere). At :math:`\beta = 0` it is separable.

    References:
        | Nonseparable, stationary covariance functions for space-time data (Gneiting, 2002)
        | https://doi.org/10.1198/016214502760047113

    Arguments:
        variance: The variance :math:`\sigma^2`.
        lengthscale: The lengthscale :math:`\ell` in space.
        duration: The time scale :math:`T`.
        nu: The smoothness in space.
        alpha: The smoothness in time, in (0, 1].
        interaction: The interaction :math:`\beta` of space and time, in [0, 1].
        decay: The extra decay :math:`\delta \ge 0` in time.

    Raises:
        ValueError: If a parameter is outside its interval.

    Example:
        >>> kernel = Gneiting(duration=2.0, alpha=0.5, interaction=0.0, decay=1.0)
        >>> kernel(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])).item()
        0.5
    """

    decay: Tensor

    def __init__(
        self,
        variance: float = 1.0,
        lengthscale: float = 1.0,
        duration: float = 1.0,
        nu: float = 0.5,
        alpha: float = 0.5,
        interaction: float = 0.5,
        decay: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, low in (("alpha", alpha, 1e-3), ("interaction", interaction, 0.0)):
            if not low <= value <= 1:
                msg = (
                    f"Gneiting({name}=...): expected a number in [{low}, 1], got {value}. Clip it."
                )
                raise ValueError(msg)
        if decay < 0:
            msg = f"Gneiting(decay=...): expected at least zero, got {decay}. Use 0.0."
            raise ValueError(msg)
        self.log_variance = nn.Parameter(positive("Gneiting", "variance", variance).log())
        self.log_lengthscale = nn.Parameter(positive("Gneiting", "lengthscale", lengthscale).log())
        self.log_duration = nn.Parameter(positive("Gneiting", "duration", duration).log())
        self.log_nu = nn.Parameter(positive("Gneiting", "nu", nu).log(), requires_grad=False)
        self.angle_alpha = nn.Parameter(_angle(alpha))
        self.angle_interaction = nn.Parameter(_angle(interaction))
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float64))

    @property
    def variance(self) -> Float[Tensor, ""]:
        r"""The variance :math:`\sigma^2`."""
        return self.log_variance.exp()

    @property
    def alpha(self) -> Float[Tensor, ""]:
        r"""The smoothness in time."""
        return self.angle_alpha.sin().square()

    @property
    def interaction(self) -> Float[Tensor, ""]:
        r"""The interaction :math:`\beta`."""
        return self.angle_interaction.sin().square()

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        lag = distance(a[..., :1], b[..., :1]) / self.log_duration.exp()
        apart = lag > 0
        power = torch.where(apart, torch.where(apart, lag, 1.0) ** (2 * self.alpha), 0.0)
        psi, k = 1 + power, a.shape[-1] - 1
        h = distance(a[..., 1:], b[..., 1:]) / self.log_lengthscale.exp()
        nu = self.log_nu.exp()
        u = (2 * nu).sqrt() * h / psi ** (self.interaction / 2)
        margin = correlation("table", matern_table(nu), u)
        return self.variance * psi ** -(self.decay + self.interaction * k / 2) * margin

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.variance.expand(a.shape[:-1])


def _angle(value: float) -> Tensor:
    r"""Returns the angle whose squared sine is ``value``, kept off the flat ends."""
    inside = min(max(value, 1e-12), 1.0)
    return torch.tensor(math.asin(math.sqrt(inside)), dtype=torch.float64)
