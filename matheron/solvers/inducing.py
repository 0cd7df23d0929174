r"""Low-rank kriging through a few inducing points."""

from __future__ import annotations

__all__ = ["InducingPoints"]

import math
import torch

from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor

from .base import Likelihood, LikelihoodSolver, check_linear, check_trend, frozen
from ..domain import Points
from ..linalg.dense import factorise
from ..linalg.places import distinct_places
from ..linalg.vecchia import maxmin_order
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.base import KernelPrior


class _LowRank(GaussianConditional):
    r"""The law of :math:`U z + D^{1/2} e + F \beta`, with :math:`U` of low rank."""

    prior: KernelPrior

    def __init__(self, prior: KernelPrior, observation: LinearObservation, chosen: Points) -> None:
        super().__init__(prior, observation)
        s = observation.points
        self.chosen = chosen
        self.L_u = factorise(prior.covariance(chosen, chosen), "InducingPoints")
        self.U = self._features(s)
        rest = (prior.variance(s) - self.U.square().sum(dim=-1)).clamp(min=0)
        self.D = rest + observation.noise_variance
        if not (self.D > 0).all():
            msg = (
                f"InducingPoints(observation=...): expected noise at the inducing points, got "
                f"{int((self.D <= 0).sum())} data without. Give the data some noise_std."
            )
            raise ValueError(msg)
        biases = observation.bias_design * observation.bias_variance.sqrt()
        self.V = torch.cat([self.U, biases], dim=-1)
        eye = torch.eye(self.V.shape[1], dtype=torch.float64)
        self.C = torch.linalg.cholesky(eye + self.V.mT @ (self.V / self.D[:, None]))
        self.F, self.offset = prior.design(s), prior.mean(s)
        self.SF = self._solve(self.F)
        self.A = self.F.mT @ self.SF
        check_trend("InducingPoints", self.A)

    def _features(self, s: Points) -> Float[Tensor, "k u"]:
        r"""Returns :math:`K_{su} L_u^{-\top}`, whose square is the low-rank covariance."""
        K = self.prior.covariance(self.chosen, s)
        return torch.linalg.solve_triangular(self.L_u, K, upper=False).mT

    def _solve(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        scaled = columns / self.D[:, None]
        inner = torch.cholesky_solve(self.V.mT @ scaled, self.C)
        return scaled - (self.V @ inner) / self.D[:, None]

    @cached_property
    def _target(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Features, variance left over, and trend at the nodes of the domain."""
        s = self.prior.domain.points
        U = torch.cat([self._features(s[i]) for i in torch.arange(len(s)).split(4096)])
        rest = (self.prior.variance(s) - U.square().sum(dim=-1)).clamp(min=0)
        return U, rest, self.prior.design(s)

    def coefficients(self, v: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch p"]:
        r"""Returns the coefficients of the trend, by generalised least squares."""
        return torch.linalg.solve(self.A, ((v - self.offset) @ self.SF)[..., None])[..., 0]

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self._condition(self.observation.select(y))

    def _condition(self, v: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        beta = self.coefficients(v)
        r = (v - self.offset - beta @ self.F.mT).reshape(-1, v.shape[-1]).mT
        U, _, F = self._target
        x = (U @ (self.U.mT @ self._solve(r))).mT.reshape(*v.shape[:-1], -1)
        return self.prior.mean(self.prior.domain.points) + beta @ F.mT + x

    def _gain_rest(self) -> tuple[Tensor, Tensor]:
        U, _, F = self._target
        explained = self.U.mT @ self._solve(self.U)
        return explained, F - U @ (self.U.mT @ self.SF)

    def variance(self) -> Float[Tensor, " n"]:
        U, rest, _ = self._target
        explained, G = self._gain_rest()
        trend = (G * torch.linalg.solve(self.A, G.mT).mT).sum(dim=-1)
        return rest + U.square().sum(dim=-1) - ((U @ explained) * U).sum(dim=-1) + trend

    def covariance(self) -> Float[Tensor, "n n"]:
        U, rest, _ = self._target
        explained, G = self._gain_rest()
        eye = torch.eye(U.shape[1], dtype=torch.float64)
        low = U @ (eye - explained) @ U.mT
        return low + torch.diag(rest) + G @ torch.linalg.solve(self.A, G.mT)

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        U, rest, _ = self._target
        z, e, f = (
            torch.randn(size, k, dtype=torch.float64, generator=generator)
            for k in (self.U.shape[1], len(rest), len(self.D))
        )
        x_s = self.prior.mean(self.prior.domain.points) + z @ U.mT + e * rest.sqrt()
        fine = (self.D - self.observation.noise_variance).clamp(min=0).sqrt()
        y_s = self.offset + z @ self.U.mT + f * fine + self.observation.noise((size,), generator)
        return x_s, self._condition(y_s)

    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        v = self.observation.select(y)
        r = (v - self.offset - self.F @ self.coefficients(v))[:, None]
        logdet = self.D.log().sum() + 2 * self.C.diagonal().log().sum()
        return -((r * self._solve(r)).sum() + logdet + len(v) * math.log(2 * math.pi)) / 2


class InducingPoints(LikelihoodSolver[KernelPrior]):
    r"""The predictive process through inducing points, with the variance it loses given back.

    .. math:: c(a, b) \approx k_a^\top K_{uu}^{-1} k_b + 1_{a = b} \, (c(a, a) - k_a^\top
        K_{uu}^{-1} k_a)

    The inducing points are the first data in a max-min order, so that they spread over the data.
    The correction of the diagonal (FITC) is independent between sites.

    References:
        | Sparse Gaussian processes using pseudo-inputs (Snelson and Ghahramani, 2006)
        | Gaussian predictive process models for large spatial data sets (Banerjee et al., 2008)
        | https://doi.org/10.1111/j.1467-9868.2008.00663.x

    Arguments:
        size: The number of inducing points.

    Raises:
        ValueError: If ``size`` is not positive, or a datum has no variance left over.

    Example:
        >>> import matheron as mt
        >>> prior = mt.GaussianProcess(mt.Matern(1.5), mt.Grid(x=[0.0, 1.0]))
        >>> seen = mt.PointObservation(prior.domain, mt.Points(x=[0.0, 1.0]), noise_std=0.1)
        >>> posterior = mt.InducingPoints(size=2)(prior, seen)(torch.ones(2, dtype=torch.float64))
        >>> posterior.mean.shape
        torch.Size([2])
    """

    requires = KernelPrior

    def __init__(self, size: int = 500) -> None:
        super().__init__()
        if size < 1:
            msg = (
                f"InducingPoints(size=...): expected at least one point, got {size}. Use e.g. 500."
            )
            raise ValueError(msg)
        self.size = size

    def choose(self, prior: KernelPrior, observation: LinearObservation) -> Points:
        r"""Returns the inducing points: distinct data, spread over the others."""
        x = prior.kernel.neighborhood(prior.coordinates(observation.points))
        _, first = distinct_places(x)
        order = maxmin_order(x[first], 0)[: self.size]
        return observation.points[first[order]]

    @torch.no_grad()
    def prepare(self, prior: KernelPrior, observation: Observation) -> GaussianConditional:
        linear, prior = frozen(check_linear(self, observation)), frozen(prior)
        return _LowRank(prior, linear, self.choose(prior, linear))

    def likelihood(
        self, prior: KernelPrior, observation: LinearObservation, y: Float[Tensor, " m"]
    ) -> Likelihood:
        return _LowRankLikelihood(prior, observation, y, self.choose(prior, observation))


class _LowRankLikelihood(Likelihood):
    def __init__(
        self, prior: KernelPrior, observation: LinearObservation, y: Tensor, chosen: Points
    ) -> None:
        self.prior, self.observation, self.y, self.chosen = prior, observation, y, chosen

    def _conditional(self) -> _LowRank:
        return _LowRank(self.prior, self.observation, self.chosen)

    def value(self) -> Float[Tensor, ""]:
        return self._conditional().log_evidence(self.y)

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        conditional = self._conditional()
        v = self.observation.select(self.y)
        return conditional.coefficients(v), torch.linalg.inv(conditional.A)
