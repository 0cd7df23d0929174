r"""Kriging with a tapered, sparse covariance."""

from __future__ import annotations

__all__ = ["Taper"]

import numpy as np
import torch

from functools import cached_property
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Generator, Tensor
from typing import ClassVar

from .base import Likelihood, LikelihoodSolver, check_linear, frozen
from .effects import Effects, EffectsConditional
from ..linalg.cholesky import Cholesky
from ..linalg.dense import square_root
from ..linalg.sparse import Assembly, Sparse
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.base import KernelPrior


def _taper(u: np.ndarray) -> np.ndarray:
    r"""Returns Wendland's function that is positive definite in up to five dimensions."""
    return np.clip(1 - u, 0, None) ** 5 * (5 * u + 1)


class _Near:
    r"""The pairs of sites within the radius, in the metric that the kernel now has."""

    def __init__(
        self, prior: KernelPrior, a: Float[Tensor, "p k"], b: Float[Tensor, "q k"], radius: float
    ) -> None:
        self.a, self.b = a, b
        near = prior.kernel.neighborhood(torch.cat([a, b])).detach().numpy()
        near_a, near_b = near[: len(a)], near[len(a) :]
        lists = cKDTree(near_b).query_ball_point(near_a, radius)
        counts = np.array([len(row) for row in lists])
        rows = np.repeat(np.arange(len(a)), counts)
        columns = np.concatenate([np.asarray(row, dtype=np.int64) for row in lists])
        u = np.linalg.norm(near_a[rows] - near_b[columns], axis=1) / radius
        self.weights = torch.as_tensor(_taper(u))
        self.assembly = Assembly(rows, columns, (len(a), len(b)))
        self.pairs = torch.as_tensor(np.stack([rows, columns]))

    def covariance(self, prior: KernelPrior) -> Sparse:
        r"""Returns the tapered covariance, differentiable in the parameters of the kernel."""
        runs = self.pairs.split(200_000, dim=1)
        each = [prior.kernel(self.a[i][:, None], self.b[j][:, None])[:, 0, 0] for i, j in runs]
        return self.assembly(torch.cat(each) * self.weights)


def _factorise(S: Sparse, places: Float[Tensor, "m k"], radius: float) -> Cholesky:
    try:
        return Cholesky(S, places=places)
    except ValueError as error:
        msg = (
            f"Taper(radius={radius}): expected a positive definite covariance, got a "
            "pivot that is not positive. Give the data some noise_std, or merge coincident data."
        )
        raise ValueError(msg) from error


class _Taper(EffectsConditional):
    prior: KernelPrior

    def __init__(self, prior: KernelPrior, observation: LinearObservation, radius: float) -> None:
        super().__init__(prior, observation)
        self.radius = radius
        self.data = prior.coordinates(observation.points)
        self.targets = prior.coordinates(prior.domain.points)
        S = self._between(self.data, self.data) + Sparse.diag(observation.noise_variance)
        self.factor = _factorise(S, self.data, radius)
        self.cross = self._between(self.targets, self.data)

    def _between(self, a: Float[Tensor, "p k"], b: Float[Tensor, "q k"]) -> Sparse:
        return _Near(self.prior, a, b, self.radius).covariance(self.prior)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        return self.factor.logdet(), columns.mT @ self.factor.solve(columns)

    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        return self.cross @ self.factor.solve(columns)

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        root = self._joint_root
        z = torch.randn(size, root.shape[1], dtype=root.dtype, generator=generator) @ root.mT
        e = self.observation.white_noise((size,), generator)
        return z[:, self.m :] - self.carry((z[:, : self.m] + e).mT.contiguous()).mT

    @cached_property
    def _joint_root(self) -> Float[Tensor, "k k"]:
        both = torch.cat([self.data, self.targets])
        if len(both) > 12_000:
            msg = (
                f"Taper.sample: expected at most 12000 nodes and data together, got {len(both)}. "
                "Use Vecchia(), whose draws need no joint matrix."
            )
            raise ValueError(msg)
        return square_root(self._between(both, both).to_dense(), where="Taper.sample")

    def field_variance(self) -> Float[Tensor, " n"]:
        chunks = torch.arange(len(self.targets)).split(512)
        gain = torch.cat([self._explained(i) for i in chunks])
        return self.prior.variance(self.prior.domain.points) - gain

    def _explained(self, nodes: Tensor) -> Float[Tensor, " k"]:
        rows = self.cross.take(nodes, torch.arange(self.m)).to_dense()
        return (rows * self.factor.solve(rows.mT.contiguous()).mT).sum(dim=1)

    def field_covariance(self) -> Float[Tensor, "n n"]:
        C = self.cross.to_dense()
        B = self._between(self.targets, self.targets).to_dense()
        return B - C @ self.factor.solve(C.mT.contiguous())


class _Evidence(Likelihood):
    r"""The likelihood of the tapered covariance, the taper in the metric of the start."""

    def __init__(
        self, solver: Taper, prior: KernelPrior, observation: LinearObservation, y: Tensor
    ) -> None:
        self.prior, self.observation, self.radius = prior, observation, solver.radius
        with torch.no_grad():
            self.v = (observation.select(y) - observation.seen(prior.mean))[:, None]
            self.x = prior.coordinates(observation.points)
            self.near = _Near(prior, self.x, self.x, solver.radius)

    def _solved(self) -> tuple[Cholesky, Effects, Tensor]:
        S = self.near.covariance(self.prior) + Sparse.diag(self.observation.noise_variance)
        factor = _factorise(S, self.x, self.radius)
        effects = Effects.of(self.prior, self.observation)
        return factor, effects, factor.solve(torch.cat([self.v, effects.columns], dim=-1))

    def value(self) -> Float[Tensor, ""]:
        factor, effects, solved = self._solved()
        gram = torch.cat([self.v, effects.columns], dim=-1).mT @ solved
        return effects.log_likelihood(factor.logdet(), gram, len(self.v))

    @torch.no_grad()
    def coefficients(self) -> tuple[Float[Tensor, " q"], Float[Tensor, "q q"]]:
        _, effects, solved = self._solved()
        X, p = effects.columns, effects.p
        V = torch.linalg.inv(effects.normal_matrix(X.mT @ solved[:, 1:]))
        return (V @ (X.mT @ solved[:, 0]))[:p], V[:p, :p]


class Taper(LikelihoodSolver[KernelPrior]):
    r"""Kriging with a covariance multiplied by a compact one, so that it is sparse.

    .. math:: c_T(a, b) = c(a, b) \, \varphi(\|a - b\| / r), \qquad
        \varphi(u) = (1 - u)_+^5 (5 u + 1)

    Distances are in lengthscales of the kernel; for a Matern, in :math:`\ell / \sqrt{2 \nu}`, the
    unit of its exponential decay. The answer tends to kriging as the radius grows,
    and is exact for the tapered covariance.

    References:
        | Covariance tapering for interpolation of large spatial datasets (Furrer et al., 2006)
        | https://doi.org/10.1198/106186006X132178

    Arguments:
        radius: The radius :math:`r` of the taper, in the unit above.

    Raises:
        ValueError: If ``radius`` is not positive.

    Example:
        >>> import matheron as mt
        >>> prior = mt.GaussianProcess(mt.Matern(0.5), mt.Grid(x=[0.0, 1.0, 2.0]))
        >>> seen = mt.PointObservation(prior.domain, mt.Points(x=[1.0]), noise_std=0.0)
        >>> y = torch.tensor([1.0], dtype=torch.float64)
        >>> mt.Taper(radius=0.5)(prior, seen)(y).mean.tolist()  # out of reach: the mean
        [0.0, 1.0, 0.0]
    """

    requires: ClassVar = KernelPrior

    def __init__(self, radius: float = 3.0) -> None:
        super().__init__()
        if not radius > 0:
            msg = f"Taper(radius=...): expected a positive radius, got {radius}. Use e.g. 3.0."
            raise ValueError(msg)
        self.radius = radius

    @torch.no_grad()
    def prepare(self, prior: KernelPrior, observation: Observation) -> GaussianConditional:
        return _Taper(frozen(prior), frozen(check_linear(self, observation)), self.radius)

    def likelihood(
        self, prior: KernelPrior, observation: LinearObservation, y: Float[Tensor, " m"]
    ) -> Likelihood:
        return _Evidence(self, prior, observation, y)
