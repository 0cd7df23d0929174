r"""Exact conditioning in observation space: kriging, optimal interpolation, GP regression."""

from __future__ import annotations

__all__ = ["Kriging"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor

from .base import Likelihood, LikelihoodSolver, Score, check_linear, check_trend, frozen
from ..domain import Points
from ..linalg.dense import factorise, square_root
from ..linalg.tangents import tangents
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.base import GaussianPrior, KernelPrior


def data_covariance(prior: GaussianPrior, observation: LinearObservation) -> Float[Tensor, "m m"]:
    r"""Returns the covariance of the data, :math:`H B H^\top + R` and that of the biases."""
    s = observation.points
    K = prior.covariance(s, s)
    B = observation.bias_design
    K = K + (B * observation.bias_variance) @ B.mT
    return K + torch.diag(observation.noise_variance)


class DenseConditional(GaussianConditional):
    prior: GaussianPrior

    def __init__(self, prior: GaussianPrior, observation: LinearObservation) -> None:
        super().__init__(prior, observation)
        s = observation.points
        self.L = factorise(data_covariance(prior, observation), "Kriging")
        self.F, self.offset = prior.design(s), prior.mean(s)
        self.LF = self._whiten(self.F)
        self.A = self.LF.mT @ self.LF
        check_trend("Kriging", self.A)

    def _whiten(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        return torch.linalg.solve_triangular(self.L, columns, upper=False)

    def _cross(self, targets: Points) -> Float[Tensor, "k m"]:
        s = self.observation.points
        return self.prior.covariance(targets, s)

    def _chunks(self) -> list[Tensor]:
        size = max(1, 20_000_000 // len(self.observation.points))
        return list(torch.arange(len(self.prior.domain)).split(size))

    def coefficients(self, v: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch p"]:
        r"""Returns the coefficients of the trend, by generalised least squares."""
        z = self._whiten((v - self.offset).reshape(-1, v.shape[-1]).mT)
        beta = torch.linalg.solve(self.A, self.LF.mT @ z).mT
        return beta.reshape(*v.shape[:-1], -1)

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self._condition(self.observation.select(y))

    def _condition(self, v: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        beta = self.coefficients(v)
        r = (v - self.offset - beta @ self.F.mT).reshape(-1, v.shape[-1])
        w = torch.cholesky_solve(r.mT, self.L)
        targets = self.prior.domain.points
        parts = [(self._cross(targets[i]) @ w).mT for i in self._chunks()]
        smooth = torch.cat(parts, dim=-1).reshape(*v.shape[:-1], -1)
        return self.prior.mean(targets) + beta @ self.prior.design(targets).mT + smooth

    def _gain_rest(self, targets: Points) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`L^{-1} K_{yx}`, and :math:`F_x - K_{xy} K^{-1} F` of the trend."""
        W = self._whiten(self._cross(targets).mT)
        return W, self.prior.design(targets) - W.mT @ self.LF

    def variance(self) -> Float[Tensor, " n"]:
        return torch.cat([self._variance(self.prior.domain.points[i]) for i in self._chunks()])

    def _variance(self, targets: Points) -> Float[Tensor, " k"]:
        W, G = self._gain_rest(targets)
        trend = (G * torch.linalg.solve(self.A, G.mT).mT).sum(dim=-1)
        return self.prior.variance(targets) - W.square().sum(dim=0) + trend

    def covariance(self) -> Float[Tensor, "n n"]:
        s = self.prior.domain.points
        W, G = self._gain_rest(s)
        return self.prior.covariance(s, s) - W.mT @ W + G @ torch.linalg.solve(self.A, G.mT)

    @cached_property
    def _joint_root(self) -> Float[Tensor, "k k"]:
        r"""A square root of the covariance of the field at the nodes and at the data."""
        s = Points.join(self.prior.domain.points, self.observation.points)
        if len(s) > 12_000:
            msg = (
                f"Kriging.sample: expected at most 12000 nodes and data together, got {len(s)}. "
                "Use Vecchia(), whose draws need no dense matrix."
            )
            raise ValueError(msg)
        return square_root(self.prior.covariance(s, s), where="Kriging.sample")

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        n, root = len(self.prior.domain), self._joint_root
        z = torch.randn(size, root.shape[1], dtype=root.dtype, generator=generator) @ root.mT
        x_s = self.prior.mean(self.prior.domain.points) + z[:, :n]
        y_s = self.offset + z[:, n:] + self.observation.noise((size,), generator)
        return x_s, self._condition(y_s)

    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        z = self.residual(self.observation.select(y))
        logdet = 2 * self.L.diagonal().log().sum()
        return -(z.square().sum() + logdet + len(z) * math.log(2 * math.pi)) / 2

    def residual(self, v: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        r"""Returns the data without their trend, whitened."""
        return self._whiten((v - self.offset - self.F @ self.coefficients(v))[:, None])[:, 0]


class Kriging(LikelihoodSolver[GaussianPrior]):
    r"""Solves the kriging system exactly, by a dense Cholesky factor.

    .. math:: x^\star = \mu + B H^\top (H B H^\top + R)^{-1} (y - H \mu)

    The field is taken at the data themselves, not interpolated from the grid. Time grows with the
    cube of the number of data, memory with its square: up to about 8 000 data.

    References:
        | Geostatistics: Modeling Spatial Uncertainty (Chiles and Delfiner, 2012)
        | https://doi.org/10.1002/9781118136188

    Arguments:
        max_size: The number of data above which to refuse.

    Raises:
        ValueError: If there are more data than ``max_size``, or if the covariance is singular.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 1.0, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5), grid, trend="1")
        >>> seen = mt.PointObservation(grid, mt.Points(x=[0.0, 2.0]), noise_std=0.0)
        >>> y = torch.tensor([1.0, 3.0], dtype=torch.float64)
        >>> mt.Kriging()(prior, seen)(y).mean.round(decimals=9).tolist()
        [1.0, 2.0, 3.0]
    """

    requires = GaussianPrior

    def __init__(self, max_size: int = 10_000) -> None:
        super().__init__()
        self.max_size = max_size

    def conditional(
        self, prior: GaussianPrior, observation: LinearObservation
    ) -> DenseConditional:
        r"""Returns the conditional law, differentiable in the parameters."""
        m = len(observation.points)
        if m > self.max_size:
            msg = (
                f"Kriging(max_size={self.max_size}): expected at most as many data, got {m}. "
                "Use Vecchia(), or raise max_size if memory allows."
            )
            raise ValueError(msg)
        return DenseConditional(prior, observation)

    def prepare(self, prior: GaussianPrior, observation: Observation) -> GaussianConditional:
        with torch.no_grad():
            linear = frozen(check_linear(self, observation))
            return self.conditional(frozen(prior), linear)

    def likelihood(
        self, prior: GaussianPrior, observation: LinearObservation, y: Float[Tensor, " m"]
    ) -> Likelihood:
        return _DenseLikelihood(self, prior, observation, y)


class _DenseLikelihood(Likelihood):
    def __init__(
        self,
        solver: Kriging,
        prior: GaussianPrior,
        observation: LinearObservation,
        y: Float[Tensor, " m"],
    ) -> None:
        self.solver, self.prior, self.observation, self.y = solver, prior, observation, y

    def value(self) -> Float[Tensor, ""]:
        return self.solver.conditional(self.prior, self.observation).log_evidence(self.y)

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        conditional = self.solver.conditional(self.prior, self.observation)
        v = self.observation.select(self.y)
        return conditional.coefficients(v), torch.linalg.inv(conditional.A)

    @torch.no_grad()
    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        if not isinstance(self.prior, KernelPrior):  # forward derivatives are of kernels
            return None
        conditional = self.solver.conditional(self.prior, self.observation)
        z = conditional.residual(self.observation.select(self.y))
        slopes = tangents([self.prior, self.observation], parameters, self._covariance)
        W = [_congruence(conditional.L, dK) for (dK,) in slopes]
        gradient = [(z @ (W_j @ z) - W_j.trace()) / 2 for W_j in W]
        information = [[(a * b).sum() / 2 for b in W] for a in W]
        return Score(
            conditional.log_evidence(self.y).item(),
            torch.tensor(gradient, dtype=torch.float64),
            torch.tensor(information, dtype=torch.float64).reshape(len(W), len(W)),
        )

    def _covariance(self) -> list[Tensor]:
        return [data_covariance(self.prior, self.observation)]


def _congruence(L: Float[Tensor, "m m"], dK: Tensor | None) -> Float[Tensor, "m m"]:
    r"""Returns :math:`L^{-1} \, \partial K \, L^{-\top}`."""
    if dK is None:
        return torch.zeros_like(L)
    half = torch.linalg.solve_triangular(L, dK, upper=False)
    return torch.linalg.solve_triangular(L, half.mT, upper=False)
