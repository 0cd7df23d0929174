r"""Linear effects beside a Gaussian field: an unknown trend, and the biases of instruments."""

from __future__ import annotations

__all__ = ["Effects", "EffectsConditional"]

import abc
import math
import torch

from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor

from ..observations import LinearObservation
from ..posterior import GaussianConditional
from ..priors.base import GaussianPrior


@dataclass(frozen=True)
class Effects:
    r"""Linear effects beside the field: a trend without a prior, and biases with one.

    The data are :math:`y = \mu + f + X b + \varepsilon`, with :math:`\operatorname{Var}(f +
    \varepsilon) = S`, and :math:`\Lambda` the variance of :math:`b`, infinite for a trend.

    Arguments:
        columns: The columns :math:`X`, those of the trend first, with shape :math:`(m, q)`.
        variance: The variances of the biases, with shape :math:`(b)`.
    """

    columns: Float[Tensor, "m q"]
    variance: Float[Tensor, " b"]

    @property
    def p(self) -> int:
        r"""The number of columns of the trend."""
        return self.columns.shape[1] - len(self.variance)

    @classmethod
    def of(cls, prior: GaussianPrior, observation: LinearObservation) -> Effects:
        r"""Returns the effects of a prior and of an observation on the data."""
        columns = [observation.seen(prior.design), observation.bias_design]
        return cls(torch.cat(columns, dim=-1), observation.bias_variance)

    def normal_matrix(self, gram: Float[Tensor, "q q"]) -> Float[Tensor, "q q"]:
        r"""Returns :math:`X^\top S^{-1} X + \Lambda^{-1}`, checked to be invertible."""
        A = gram + torch.diag(torch.cat([gram.new_zeros(self.p), 1 / self.variance]))
        scale = A.diagonal().detach().clamp(min=1e-300).sqrt()
        unit = A.detach() / (scale[:, None] * scale)
        if len(A) and torch.linalg.eigvalsh(unit)[0] < 1e-12:
            msg = (
                f"prior(trend=...): expected a trend that the data can tell, got {self.p} "
                "columns of lower rank. Drop terms from the trend."
            )
            raise ValueError(msg)
        return A

    def log_likelihood(
        self, logdet: Tensor, gram: Float[Tensor, "c c"], n: int
    ) -> Float[Tensor, ""]:
        r"""Returns the log-likelihood from the whitened products of ``[y, columns]``."""
        return self.of_replicates(logdet, gram[:1, 0], gram[1:, :1], gram[1:, 1:], n)

    def of_replicates(
        self,
        logdet: Tensor,
        yy: Float[Tensor, " r"],
        Xy: Float[Tensor, "q r"],
        XX: Float[Tensor, "q q"],
        n: int,
    ) -> Float[Tensor, ""]:
        r"""Returns the log-likelihood of independent replicates, each with its own effects.

        Arguments:
            logdet: :math:`\log |S|`.
            yy: :math:`y^\top S^{-1} y` of each replicate.
            Xy: :math:`X^\top S^{-1} y` of each.
            XX: :math:`X^\top S^{-1} X`.
            n: The number of data of a replicate.
        """
        A = self.normal_matrix(XX)
        quadratic = yy.sum() - (Xy * torch.linalg.solve(A, Xy)).sum()
        logdet = logdet + self.variance.log().sum() + torch.logdet(A[self.p :, self.p :])
        return -(quadratic + len(yy) * (logdet + n * math.log(2 * math.pi))) / 2


class EffectsConditional(GaussianConditional):
    r"""A Gaussian conditional law of a field plus effects, from the law of the field alone.

    The effects are estimated by generalised least squares; what is not known of them adds to the
    spread of the field.
    """

    prior: GaussianPrior

    def __init__(self, prior: GaussianPrior, observation: LinearObservation) -> None:
        super().__init__(prior, observation)
        self.effects = Effects.of(prior, observation)
        self.offset = observation.seen(prior.mean)
        self.m = observation.count

    @abc.abstractmethod
    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        r"""Returns :math:`\log |S|` and :math:`C^\top S^{-1} C`, for some columns."""

    def gram(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "c c"]:
        r"""Returns :math:`C^\top S^{-1} C`, for some columns."""
        return self.whiten(columns)[1]

    @abc.abstractmethod
    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        r"""Returns the mean of the field at the nodes if the columns were the data."""

    @abc.abstractmethod
    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        r"""Draws the field at the nodes about its mean, were the effects known."""

    @abc.abstractmethod
    def field_variance(self) -> Float[Tensor, " n"]:
        r"""Returns the posterior variance of the field, were the effects known."""

    @abc.abstractmethod
    def field_covariance(self) -> Float[Tensor, "n n"]:
        r"""Returns the posterior covariance of the field, were the effects known."""

    @cached_property
    def _rest(self) -> Float[Tensor, "n q"]:
        r"""What the effects leave at the nodes: :math:`F_x - M F` and :math:`-M B`."""
        design = self.prior.design(self.prior.domain.points)
        pad = design.new_zeros(len(design), len(self.effects.variance))
        return torch.cat([design, pad], dim=-1) - self.carry(self.effects.columns)

    @cached_property
    def _effects_covariance(self) -> Float[Tensor, "q q"]:
        if self.effects.columns.shape[1] == 0:
            return torch.zeros(0, 0, dtype=torch.float64)
        gram = self.gram(self.effects.columns)
        return torch.linalg.inv(self.effects.normal_matrix(gram))

    @property
    def _effects_root(self) -> Float[Tensor, "q q"]:
        V = self._effects_covariance
        return torch.linalg.cholesky(V) if len(V) else V

    def coefficients(self, r: Float[Tensor, "b m"]) -> Float[Tensor, "b q"]:
        r"""Returns the coefficients of trend and biases, by generalised least squares."""
        q = self.effects.columns.shape[1]
        if q == 0:
            return r.new_zeros(len(r), 0)
        gram = self.gram(torch.cat([self.effects.columns, r.mT], dim=-1))
        return torch.linalg.solve(self.effects.normal_matrix(gram[:q, :q]), gram[:q, q:]).mT

    @torch.no_grad()
    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        v = self.observation.select(y)
        r = (v - self.offset).reshape(-1, self.m)
        x = self.carry(r.mT).mT + self.coefficients(r) @ self._rest.mT
        x = x + self.prior.mean(self.prior.domain.points)
        return x.reshape(*v.shape[:-1], -1)

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        x = self.deviate(size, generator).add_(self.estimate(y))
        if not self.effects.columns.shape[1]:
            return x
        b = torch.randn(size, self._rest.shape[1], dtype=torch.float64, generator=generator)
        return x.add_(b @ self._effects_root.mT @ self._rest.mT)

    @torch.no_grad()
    def variance(self) -> Float[Tensor, " n"]:
        G = self._rest
        return self.field_variance() + ((G @ self._effects_covariance) * G).sum(dim=-1)

    @torch.no_grad()
    def covariance(self) -> Float[Tensor, "n n"]:
        G = self._rest
        return self.field_covariance() + G @ self._effects_covariance @ G.mT

    @torch.no_grad()
    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        v = self.observation.select(y) - self.offset
        logdet, gram = self.whiten(torch.cat([v[:, None], self.effects.columns], dim=-1))
        return self.effects.log_likelihood(logdet, gram, self.m)
