r"""The iterated Kalman smoother: weak-constraint 4DVar in the states themselves."""

from __future__ import annotations

__all__ = ["Smoothed", "noise_roots"]

import math
import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .descent import Minimum, minimise
from .modal import ModalConditional, Rule
from .trajectories import BlockGaussNewton, DataCurvature, TrajectoryCost
from ..linalg.tridiagonal import BlockCholesky
from ..observations import Observation
from ..priors.base import Prior
from ..priors.dynamics import Markovian

LOOSE, BRIEF, COARSE = 1.0, 12, 1e-4
"""The norm of the gradient, the steps and the decrease that are enough before the last stage."""
LARGE = 0.1
"""The variance of model errors in the first stage, in those of the first state."""
PERFECT = 1e-7
"""The variance of the errors of a perfect model, likewise: what double precision can carry."""


def noise_roots(prior: Markovian, stages: int) -> list[Float[Tensor, "s s"]]:
    r"""Returns Cholesky roots of covariances of model errors, from large ones to those of a prior.

    Those of the stages before the last are :math:`Q + r_j \, \mathrm{diag}(B)`, with shares
    :math:`r_j` that fall geometrically from .1 to that of :math:`Q`.

    Arguments:
        prior: The prior.
        stages: The number of covariances; fewer where :math:`Q` itself is large.
    """
    B = prior.background.times(torch.eye(prior.states, dtype=torch.float64)).square().sum(dim=0)
    share = PERFECT
    Q = torch.diag(PERFECT * B)
    if prior.error is not None:
        L = prior.error.factor
        Q = torch.diag(L.square()) if L.ndim == 1 else L @ L.mT
        share = (Q.diagonal().mean() / B.mean()).item()
    count = stages if share < LARGE else 1
    shares = [LARGE * (share / LARGE) ** (j / max(1, count - 1)) for j in range(count - 1)]
    return [torch.linalg.cholesky(Q + torch.diag(r * B)) for r in [*shares, 0.0]]


class Smoothed(ModalConditional):
    r"""The law about the trajectory of least cost.

    Steps of Gauss-Newton, with a search along each, move all the states at once: each step is a
    Kalman smoother of the model linearised about the last trajectory. Large errors of the model
    come first, with which a trajectory stays near the data whatever the chaos, then smaller ones,
    each stage from the last.

    References:
        | The iterated Kalman smoother as a Gauss-Newton method (Bell, 1994)
        | https://doi.org/10.1137/0804035
        | Accounting for an imperfect model in 4D-Var (Trémolet, 2006)
        | https://doi.org/10.1256/qj.05.224

    Arguments:
        prior: The prior.
        observation: The observation.
        rule: The rule that stops.
        stages: The number of covariances of model errors.
        starts: The most ways to the last stage; the lowest cost wins. Another, by perturbed
            data, is tried where twice the cost is more than a :math:`\chi^2` law with a degree of
            freedom per datum allows: the least of the costs has that law in a linear problem.
        ensemble: ``"laplace"`` or ``"rto"``.
        seed: The seed of the perturbations.

    Raises:
        TypeError: If the prior has no states in time.
    """

    prior: Markovian

    def __init__(
        self,
        prior: Prior,
        observation: Observation,
        rule: Rule,
        stages: int,
        starts: int = 1,
        ensemble: str = "laplace",
        seed: int = 0,
    ) -> None:
        if not isinstance(prior, Markovian):
            msg = (
                f"Variational(method='smoother'): expected a prior that is WeakConstraint or "
                f"StrongConstraint, got {type(prior).__name__}. Use method='gauss-newton'."
            )
            raise TypeError(msg)
        super().__init__(prior, observation, rule)
        self.curvature = DataCurvature(prior, observation)
        self.roots = noise_roots(prior, stages)
        self.starts, self.ensemble, self.seed = starts, ensemble, seed

    def field(self, v: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return v

    def cost(self, y: Float[Tensor, "b m"], stage: int = -1) -> TrajectoryCost:
        r"""Returns the cost of trajectories at a stage; at the last by default."""
        return TrajectoryCost(self.prior, self.curvature, y, self.roots[stage])

    def minimum(self, y: Float[Tensor, "b m"]) -> Minimum:
        generator = torch.Generator().manual_seed(self.seed)
        found = self._staged(y, y)
        for _ in range(self.starts - 1):
            poor = torch.nonzero(2 * found.cost > self._most(y))[:, 0]
            if not len(poor):
                break
            other = self._staged(y[poor], y[poor] + self._noise(generator))
            found = found.put(poor, found.take(poor).lower(other))
        return self.checked(found)

    def _staged(self, y: Float[Tensor, "b m"], other: Float[Tensor, "b m"]) -> Minimum:
        r"""Returns minima, by way of other data in the first half of the stages."""
        v, last = self.prior.mean.repeat(len(y), self.prior.times), len(self.roots) - 1
        for stage in range(last):
            data = other if 2 * stage < last else y
            v = self._descend(self.cost(data, stage), v, LOOSE, BRIEF, COARSE).v
        return self.descend(self.cost(y), v)

    def _noise(self, generator: Generator) -> Float[Tensor, " m"]:
        r"""Draws noise of the data, one for all members: none depends on the others."""
        x = self.prior.mean.repeat(self.prior.times)
        return self.observation.sample(x, generator) - self.observation(x)

    def _most(self, y: Float[Tensor, "b m"]) -> float:
        r"""Returns twice the cost that the law of the data allows: three deviations over all."""
        count = self.observation.select(y[:1]).shape[1]
        return count + 3 * math.sqrt(2 * count)

    def descend(self, cost: TrajectoryCost, v: Float[Tensor, "b n"]) -> Minimum:
        r"""Returns the minimum of a cost that is below a trajectory."""
        rule = self.rule
        return self._descend(cost, v, rule.tolerance, rule.steps, rule.decrease)

    @staticmethod
    def _descend(
        cost: TrajectoryCost, v: Tensor, tolerance: float, steps: int, decrease: float
    ) -> Minimum:
        r"""Returns a minimum; gradients are those in the standard deviation of model errors."""
        unit = cost.root.square().sum(dim=1).mean().sqrt().item()
        found = minimise(cost, v, BlockGaussNewton(), steps, tolerance / unit, decrease)
        scaled = unit * found.gradient_norm
        return Minimum(found.v, found.cost, scaled, found.converged, found.iterations)

    @torch.no_grad()
    def factor(self, y: Float[Tensor, " m"]) -> BlockCholesky:
        r"""Returns the factor of the Gauss-Newton matrix at the minimum."""
        return self.cost(y[None]).factor(self.mode(y).v)

    @torch.no_grad()
    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        if self.ensemble != "laplace":
            return super().std(y, size, generator)
        return self.factor(y).variance().sqrt().flatten()

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        shape = (size, self.prior.times, self.prior.states)
        z = torch.randn(shape, dtype=torch.float64, generator=generator)
        if self.ensemble == "laplace":
            return self.mode(y).v + self.factor(y).backward_solve(z).flatten(1)
        x = self.mode(y).v.expand(size, -1)
        noise = self.observation.sample(x, generator) - self.observation(x)
        cost = TrajectoryCost(self.prior, self.curvature, y + noise, self.roots[-1], z)
        return self.checked(self.descend(cost, x)).v

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {**super().info(y), "log_evidence": self.log_evidence(y).item()}

    @torch.no_grad()
    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        r"""Returns the log-density of the data, by Laplace's method; exact in a linear problem.

        The constant of the density of the noise is left out.
        """
        roots = (self.cost(y[None]).first, self.roots[-1])
        first, error = (L.diagonal().log().sum() for L in roots)
        half = self.factor(y).log_determinant()[0] / 2
        return -self.mode(y).cost[0] - half - first - (self.prior.times - 1) * error
