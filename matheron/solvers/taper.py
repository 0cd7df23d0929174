r"""Kriging with a tapered, sparse covariance."""

from __future__ import annotations

__all__ = ["Taper"]

import math
import numpy as np
import scipy.sparse as sparse
import torch

from jaxtyping import Float
from scipy.sparse.linalg import SuperLU, splu
from scipy.spatial import cKDTree
from torch import Generator, Tensor

from .base import Solver, check_linear, check_trend, frozen
from ..linalg.dense import square_root
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.base import KernelPrior


def _taper(u: np.ndarray) -> np.ndarray:
    r"""Returns Wendland's function that is positive definite in up to five dimensions."""
    return np.clip(1 - u, 0, None) ** 5 * (5 * u + 1)


class _Taper(GaussianConditional):
    prior: KernelPrior

    def __init__(self, prior: KernelPrior, observation: LinearObservation, radius: float) -> None:
        super().__init__(prior, observation)
        self.radius, self.m = radius, len(observation.points)
        s = prior.domain.points
        self.x = torch.cat([prior.coordinates(observation.points), prior.coordinates(s)])
        near = prior.kernel.neighborhood(self.x).numpy()
        self.data, self.targets = near[: self.m], near[self.m :]
        S = self._sparse(self.data, self.data, 0, 0) + sparse.diags(
            observation.noise_variance.numpy()
        )
        self.factor = self._factorise(S.tocsc())
        self.cross = self._sparse(self.targets, self.data, self.m, 0)
        self.F, self.offset = prior.design(observation.points), prior.mean(observation.points)
        self.columns = torch.cat([self.F, observation.bias_design], dim=-1)
        self.solved = self._solve(self.columns)
        precision = torch.cat([torch.zeros(self.F.shape[1]), 1 / observation.bias_variance])
        self.A = self.columns.mT @ self.solved + torch.diag(precision.double())
        p = self.F.shape[1]
        check_trend("Taper", self.A[:p, :p])

    @torch.no_grad()
    def _sparse(self, a: np.ndarray, b: np.ndarray, start: int, other: int) -> sparse.csr_array:
        lists = cKDTree(b).query_ball_point(a, self.radius)
        counts = np.array([len(row) for row in lists])
        rows = np.repeat(np.arange(len(a)), counts)
        cols = np.concatenate([np.asarray(row, dtype=np.int64) for row in lists])
        u = np.linalg.norm(a[rows] - b[cols], axis=1) / self.radius
        pairs = zip(np.array_split(rows, 64), np.array_split(cols, 64), strict=True)
        c = torch.cat([self._covariance(i + start, j + other) for i, j in pairs]).numpy()
        return sparse.csr_array((c * _taper(u), (rows, cols)), shape=(len(a), len(b)))

    def _covariance(self, i: np.ndarray, j: np.ndarray) -> Float[Tensor, " k"]:
        return self.prior.kernel(self.x[i][:, None], self.x[j][:, None])[:, 0, 0]

    def _factorise(self, S: sparse.csc_array) -> SuperLU:
        msg = (
            f"Taper(radius={self.radius}): expected a positive definite covariance, got a "
            "pivot that is not positive. Give the data some noise_std, or merge coincident data."
        )
        try:
            factor = splu(S, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
        except RuntimeError as error:  # exactly singular
            raise ValueError(msg) from error
        # no row was exchanged for another pivot, and every pivot is positive
        aligned = np.array_equal(factor.perm_r, factor.perm_c)
        if not aligned or (factor.U.diagonal() <= 0).any():
            raise ValueError(msg)
        return factor

    def _solve(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        if columns.shape[1] == 0:
            return columns
        return torch.as_tensor(self.factor.solve(np.ascontiguousarray(columns.numpy())))

    def _design(self) -> Float[Tensor, "n p"]:
        F = self.prior.design(self.prior.domain.points)
        return torch.cat([F, torch.zeros(len(F), self.A.shape[0] - F.shape[1]).double()], dim=-1)

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self._condition(self.observation.select(y))

    def _condition(self, v: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        r = (v - self.offset).reshape(-1, self.m).mT
        beta = torch.linalg.solve(self.A, self.solved.mT @ r)
        w = self._solve(r) - self.solved @ beta
        x = torch.as_tensor(self.cross @ w.numpy()) + self._design() @ beta
        return self.prior.mean(self.prior.domain.points) + x.mT.reshape(*v.shape[:-1], -1)

    def _rest(self) -> Float[Tensor, "n p"]:
        return self._design() - torch.as_tensor(self.cross @ self.solved.numpy())

    def variance(self) -> Float[Tensor, " n"]:
        G = self._rest()
        trend = (G * torch.linalg.solve(self.A, G.mT).mT).sum(dim=-1)
        chunks = torch.arange(len(G)).split(512)
        gain = torch.cat([self._explained(self.cross[i.numpy()]) for i in chunks])
        return self.prior.variance(self.prior.domain.points) - gain + trend

    def _explained(self, rows: sparse.csr_array) -> Float[Tensor, " k"]:
        dense = rows.toarray()
        return torch.as_tensor((dense * self.factor.solve(dense.T.copy()).T).sum(axis=1))

    def covariance(self) -> Float[Tensor, "n n"]:
        C = self.cross.toarray()
        B = torch.as_tensor(self._sparse(self.targets, self.targets, self.m, self.m).toarray())
        G = self._rest()
        explained = torch.as_tensor(C @ self.factor.solve(C.T.copy()))
        return B - explained + G @ torch.linalg.solve(self.A, G.mT)

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        both = np.concatenate([self.data, self.targets])
        if len(both) > 12_000:
            msg = (
                f"Taper.sample: expected at most 12000 nodes and data together, got {len(both)}. "
                "Use Vecchia(), whose draws need no joint matrix."
            )
            raise ValueError(msg)
        K = torch.as_tensor(self._sparse(both, both, 0, 0).toarray())
        root = square_root(K, where="Taper.sample")
        z = torch.randn(size, root.shape[1], dtype=root.dtype, generator=generator) @ root.mT
        y_s = self.offset + z[:, : self.m] + self.observation.noise((size,), generator)
        x_s = self.prior.mean(self.prior.domain.points) + z[:, self.m :]
        return x_s, self._condition(y_s)

    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        r = (self.observation.select(y) - self.offset)[:, None]
        rhs = self.solved.mT @ r
        quadratic = (r * self._solve(r)).sum() - (rhs * torch.linalg.solve(self.A, rhs)).sum()
        logdet = torch.as_tensor(np.log(self.factor.U.diagonal()).sum())
        p, v = self.F.shape[1], self.observation.bias_variance
        logdet = logdet + v.log().sum() + torch.logdet(self.A[p:, p:])
        return -(quadratic + logdet + self.m * math.log(2 * math.pi)) / 2


class Taper(Solver[KernelPrior]):
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

    requires = KernelPrior

    def __init__(self, radius: float = 3.0) -> None:
        super().__init__()
        if not radius > 0:
            msg = f"Taper(radius=...): expected a positive radius, got {radius}. Use e.g. 3.0."
            raise ValueError(msg)
        self.radius = radius

    @torch.no_grad()
    def prepare(self, prior: KernelPrior, observation: Observation) -> GaussianConditional:
        return _Taper(frozen(prior), frozen(check_linear(self, observation)), self.radius)
