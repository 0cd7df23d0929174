r"""The bootstrap particle filter."""

from __future__ import annotations

__all__ = ["ParticleFilter"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver
from .filters.particles import effective_size, jittered, log_likelihood, resampled
from .filters.schemes import Weighted
from .filters.trajectories import EnsembleConditional
from ..observations import Observation
from ..priors.base import Prior
from ..priors.dynamics import Markovian


class ParticleFilter(Solver[Markovian]):
    r"""The bootstrap particle filter: trajectories of the model, weighted by their likelihood.

    It is exact for any model as :math:`N` grows, which must be fast: the number of particles
    that keep any weight falls exponentially with the number of data. Resampled trajectories share
    their ancestors: the further back, the fewer they are.

    References:
        | Novel approach to nonlinear/non-Gaussian Bayesian state estimation
        | (Gordon, Salmond & Smith, 1993)
        | https://doi.org/10.1049/ip-f-2.1993.0015

    Arguments:
        size: The number :math:`N` of particles.
        threshold: The share of the effective size under which particles are resampled.
        jitter: The bandwidth of the kernel that moves the state of resampled particles, in units
            of the usual one; 0 for none. A model without errors asks for some.
        seed: The seed of the particles behind mean and standard deviation.

    Raises:
        ValueError: If ``size`` is under two, or ``threshold`` or ``jitter`` is out of bounds.

    Example:
        >>> import matheron as mt
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.priors.dynamics import StrongConstraint
        >>> grid = mt.Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 9.0).double()
        >>> prior = StrongConstraint(grid, Lorenz63(), 8, start)
        >>> seen = mt.PointObservation(grid, mt.Points(time=[2.0, 4.0], x=[0.0, 0.0]), 0.5)
        >>> posterior = ParticleFilter(200)(prior, seen)(torch.tensor([1.0, 3.0]).double())
        >>> posterior.mean.shape
        torch.Size([15])
    """

    requires: ClassVar[type[Prior]] = Markovian

    def __init__(
        self, size: int = 1000, threshold: float = 0.5, jitter: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        if jitter < 0 or not 0 <= threshold <= 1:
            msg = (
                f"ParticleFilter(threshold=..., jitter=...): expected a share and at least zero, "
                f"got {threshold} and {jitter}. Try 0.5 and 0."
            )
            raise ValueError(msg)
        self.size, self.seed = size, seed
        self.threshold, self.jitter = threshold, jitter

    def prepare(self, prior: Markovian, observation: Observation) -> _Resampled:
        return _Resampled(self, prior, observation)


class _Resampled(EnsembleConditional):
    def __init__(self, solver: ParticleFilter, prior: Markovian, observation: Observation) -> None:
        where = type(solver).__name__
        super().__init__(where, prior, observation, solver.size, solver.seed)
        self.solver = solver

    def run(
        self, y: Float[Tensor, " m"], generator: Generator | None
    ) -> tuple[Float[Tensor, "size n"], dict[str, Any]]:
        weights, least = torch.zeros(self.size, dtype=torch.float64), float(self.size)
        states = [self.prior.initial_sample(self.size, generator)]
        for k in range(self.prior.times):
            if k:
                error = self.prior.error_sample(self.size, generator)
                states.append(self.prior.advance(states[-1]) + error)
            if len(self.arrivals.index[k]):
                weights = self._weigh(k, states, weights, y)
                least = min(least, effective_size(weights).item())
                weights = self._renew(states, weights, generator)
        parents = resampled(weights, generator)
        return torch.cat(states, dim=-1)[parents], {"least_effective_size": least}

    def _weigh(self, k: int, states: list[Tensor], weights: Tensor, y: Tensor) -> Tensor:
        predicted = self.arrivals.predict(k, states)
        values = y[self.arrivals.index[k]]
        likelihood = log_likelihood(predicted, values, self.arrivals.noise(k))
        return (weights + likelihood).log_softmax(dim=-1)

    def _renew(self, states: list[Tensor], weights: Tensor, generator: Generator | None) -> Tensor:
        if effective_size(weights) >= self.solver.threshold * self.size:
            return weights
        parents = resampled(weights, generator)
        if self.solver.jitter:
            kernel = Weighted(states[-1], weights).covariance
            moved = jittered(states[-1][parents], kernel, self.solver.jitter, generator)
        else:
            moved = states[-1][parents]
        states[:] = [*(x[parents] for x in states[:-1]), moved]
        return torch.zeros_like(weights)
