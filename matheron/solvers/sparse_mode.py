r"""The likeliest field on nodes, and the Gaussian law about it, by sparse factors."""

from __future__ import annotations

__all__ = ["SparseMode"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .descent import Minimum, minimise
from .modal import ModalConditional, Rule
from .nodes import NodalCost, NodalGaussNewton, NodalView
from ..linalg.cholesky import Cholesky
from ..observations import Observation
from ..priors.base import Prior, Sampling
from ..priors.nodal import Nodal

WHERE = "Variational"


class SparseMode(ModalConditional):
    r"""The law about the nodes of least cost.

    Steps of Gauss-Newton, with a search along each: every one is the exact conditioning of the
    Gaussian Markov field that prior and data are nearly, about the last nodes. The spread is that
    of the last.

    References:
        | Approximate Bayesian inference for latent Gaussian models by using integrated nested
          Laplace approximations (Rue, Martino and Chopin, 2009)
        | https://doi.org/10.1111/j.1467-9868.2008.00700.x
        | The iterated Kalman smoother as a Gauss-Newton method (Bell, 1994)
        | https://doi.org/10.1137/0804035

    Arguments:
        prior: The prior.
        observation: The observation.
        rule: The rule that stops.
        starts: The number of starts: zero, then draws of the prior; the lowest cost wins.
        seed: The seed of the draws.

    Raises:
        TypeError: If the prior has no nodes.
    """

    prior: Nodal

    def __init__(
        self, prior: Prior, observation: Observation, rule: Rule, starts: int = 1, seed: int = 0
    ) -> None:
        if not isinstance(prior, Nodal):
            msg = (
                f"Variational(method='sparse'): expected a prior that is Markov or a "
                f"NonlinearSPDE, got {type(prior).__name__}. Use method='gauss-newton'."
            )
            raise TypeError(msg)
        super().__init__(prior, observation, rule)
        self.view = NodalView(WHERE, prior, observation)
        self.starts, self.seed = starts, seed
        self._factor: tuple[Tensor, Cholesky] | None = None

    def field(self, v: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch n"]:
        return self.view.decode(v)

    def minimum(self, y: Float[Tensor, "b m"]) -> Minimum:
        first, *others = self._starts()
        found = self._descended(first, y)
        for v in others:
            found = found.lower(self._descended(v, y))
        return self.checked(found)

    def _starts(self) -> list[Float[Tensor, " N"]]:
        v = [torch.zeros(self.view.size, dtype=torch.float64)]
        if self.starts > 1:
            assert isinstance(self.prior, Sampling)
            generator = torch.Generator().manual_seed(self.seed)
            v += list(self.prior.encode_nodes(self.prior.sample(self.starts - 1, generator)))
        return v

    def _descended(self, v: Float[Tensor, " N"], y: Float[Tensor, "b m"]) -> Minimum:
        r"""Returns minima below a start; gradients are those in the std of a node, given all."""
        unit = self.view.curvature(v).diagonal().rsqrt().mean().item()
        rule, start = self.rule, v.expand(len(y), -1)
        cost, way = NodalCost(self.view, y), NodalGaussNewton()
        found = minimise(cost, start, way, rule.steps, rule.tolerance / unit, rule.decrease)
        scaled = unit * found.gradient_norm
        return Minimum(found.v, found.cost, scaled, found.converged, found.iterations)

    @torch.no_grad()
    def factor(self, y: Float[Tensor, " m"]) -> Cholesky:
        r"""Returns the factor of the curvature at the minimum; the last one is kept."""
        mode = self.mode(y).v[0]
        if self._factor is None or not torch.equal(self._factor[0], mode):
            Q = self.view.curvature(mode)
            self._factor = (mode, self.prior.factorise(Q, f"{WHERE}(prior=...)"))
        return self._factor[1]

    @torch.no_grad()
    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        spread = self.factor(y).selected_inverse().sandwich(self.view.embedding)
        return spread.clamp(min=0).sqrt()

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        z = torch.randn(self.view.size, size, dtype=torch.float64, generator=generator)
        return self.field(self.mode(y).v + self.factor(y).sqrt_solve(z).mT)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {**super().info(y), "log_evidence": self.log_evidence(y).item()}

    @torch.no_grad()
    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        r"""Returns the log-density of the data, by Laplace's method; exact in a linear problem.

        The constant of the density of the noise is left out.
        """
        change = self.prior.log_determinant() - self.factor(y).logdet()
        return change / 2 - self.mode(y).cost[0]
