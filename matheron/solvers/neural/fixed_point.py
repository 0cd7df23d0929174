r"""A projection applied again and again, with the data put back in between."""

from __future__ import annotations

__all__ = ["FixedPoint"]

import torch

from collections.abc import Iterator
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute
from typing import Any, ClassVar

from .base import LearnedConditional, LearnedSolver
from ...observations import Observation
from ...priors.projection import Projection


class _FixedPoint(LearnedConditional):
    prior: Projection
    solver: FixedPoint

    def iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Float[Tensor, "*batch n"]]:
        geometry = self.geometry(y)
        x = self.first(geometry)
        yield x
        for _ in range(self.solver.steps):
            if self.solver.checkpoint and torch.is_grad_enabled():
                x = recompute(self._step, x, y, geometry.precision, use_reentrant=False)
            else:
                x = self._step(x, y, geometry.precision)
            yield x

    def _step(self, x: Tensor, y: Tensor, precision: Tensor) -> Tensor:
        x = self.prior.project(x)
        variance = self.scale.square()
        weight = variance / (variance / self.prior.std.square() + precision)
        return x - (weight * self.observation.gradient(x, y)).to(x.dtype)


class FixedPoint(LearnedSolver[Projection]):
    r"""The projection of the prior, again and again, with the data put back at their weight.

    .. math:: x_{k+1} = \arg\min_x \frac{\|x - \Phi(x_k)\|^2}{2 s^2} - \log p(y \mid x)

    For data at nodes the minimum is exact: :math:`\Phi(x_k)` moved towards each datum by
    :math:`s^2 / (s^2 + \sigma^2)`. For others it is one step towards it, which cannot overshoot
    where weights are positive. What is learned is the projection and :math:`s`, through the steps.

    References:
        | End-to-end learning of energy-based representations for irregularly-sampled signals and
        | images (Fablet, Drumetz & Rousseau, 2019)
        | https://doi.org/10.48550/arXiv.1910.00556

    Arguments:
        steps: The number of steps.
        settings: Those of :class:`LearnedSolver`.

    Raises:
        ValueError: If ``steps`` is not positive, or a setting is not known.

    Example:
        >>> from matheron import Grid, GriddedObservation
        >>> from matheron.nets import TwoScale
        >>> grid = Grid(time=torch.arange(12.0))
        >>> phi = TwoScale(1, 4, dims=1, generator=torch.Generator().manual_seed(0))
        >>> seen = GriddedObservation(grid, torch.arange(12) % 3 == 0, noise_std=0.1)
        >>> prior = Projection(grid, phi, std=0.5, channels=None)
        >>> FixedPoint(5, channels=None)(prior, seen)(torch.ones(12).double()).mean.shape
        torch.Size([12])
    """

    requires: ClassVar = Projection
    looks: ClassVar = False

    def __init__(self, steps: int = 10, **settings: Any) -> None:
        super().__init__(**settings)
        if steps < 1:
            msg = f"FixedPoint(steps=...): expected one step or more, got {steps}. Raise it."
            raise ValueError(msg)
        self.steps = steps

    def conditional(self, prior: Projection, observation: Observation) -> LearnedConditional:
        return _FixedPoint(prior, observation, self)
