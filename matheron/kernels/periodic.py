r"""Fields that repeat: seasons, tides, days."""

from __future__ import annotations

__all__ = ["Periodic"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import positive
from .stationary import Stationary


class Periodic(Stationary):
    r"""A covariance that repeats along one axis.

    .. math:: c(r) = \sigma^2 \exp \left( -\frac{2 \sin^2(\pi r / T)}{\ell^2} \right)

    It is the Gaussian covariance on a circle of circumference :math:`T`. Multiply it by a Matern
    over the same axis to let the cycle drift.

    Arguments:
        period: The period :math:`T`, in the units of the axis.
        variance: The variance :math:`\sigma^2`.
        lengthscale: The lengthscale :math:`\ell`, relative to the period.
        axes: ``"time"``, or ``None`` where the domain has one axis.

    Example:
        >>> Periodic(period=24.0)(torch.zeros(1, 1), torch.tensor([[24.0]])).item()
        1.0
    """

    radial = "gaussian"

    def __init__(
        self,
        period: float = 1.0,
        variance: float | Tensor = 1.0,
        lengthscale: float | Sequence[float] | Tensor = 1.0,
        axes: str | None = None,
    ) -> None:
        super().__init__(variance, lengthscale, axes=axes)
        self.log_period = nn.Parameter(positive("Periodic", "period", period).log())

    @property
    def linear(self) -> bool:
        return False  # a circle

    @property
    def period(self) -> Float[Tensor, ""]:
        r"""The period :math:`T`."""
        return self.log_period.exp()

    def scaled(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        x = self._select(x)
        if x.shape[-1] != 1:
            msg = (
                f"Periodic(axes=...): expected one coordinate, got {x.shape[-1]}. "
                "Use axes='time', and multiply by a kernel over 'space'."
            )
            raise ValueError(msg)
        phase = 2 * math.pi * x / self.period
        return torch.cat([phase.cos(), phase.sin()], dim=-1) * (-self.log_lengthscale).exp()

    def _table(self) -> None:
        return None
