r"""The parameters of an equation that vary in space, and how far they go from constants."""

from __future__ import annotations

__all__ = ["Parameters", "Spread"]

import math
import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Parameters:
    r"""The parameters of an equation, at some points.

    Arguments:
        std: The standard deviation of the field.
        timescale: The timescale.
        square: The squared lengthscale :math:`\ell \ell^\top`: its roots are the half axes of an
            ellipse.
        velocity: The velocity.
    """

    std: Float[Tensor, " m"]
    timescale: Float[Tensor, " m"]
    square: Float[Tensor, "m d d"]
    velocity: Float[Tensor, "m d"]


@dataclass(frozen=True)
class Spread:
    r"""How far the parameters go from their constants: standard deviations of their prior.

    Arguments:
        std: That of the logarithm of the standard deviation of the field.
        timescale: That of the logarithm of the timescale.
        lengthscale: That of the diagonal of the logarithm of the lengthscale, a matrix.
        velocity: That of each component of the velocity, in units of length per day; by default
            half a lengthscale in a timescale.
        shear: That of the other terms of the logarithm of the lengthscale, times the root of
            two; by default as on the diagonal, so that no axis is preferred. With zero ellipses
            lie along the axes, which spares neighbours.
    """

    std: float = 0.4
    timescale: float = 0.3
    lengthscale: float = 0.3
    velocity: float | None = None
    shear: float | None = None

    def filled(
        self, where: str, lengthscale: float | tuple[float, ...], timescale: float
    ) -> Spread:
        r"""Returns the same with all of its numbers, checked."""
        length = torch.as_tensor(lengthscale, dtype=torch.float64).mean().item()
        swift = length / timescale / 2 if self.velocity is None else self.velocity
        shear = self.lengthscale if self.shear is None else self.shear
        numbers = (self.std, self.timescale, self.lengthscale, swift, shear)
        if not all(0 <= s < math.inf for s in numbers):
            msg = (
                f"{where}(spread=...): expected numbers at least zero, got {numbers}. Use zero "
                "for what does not vary."
            )
            raise ValueError(msg)
        return Spread(*numbers)
