r"""Gaussian Markov fields: a sparse precision, on nodes of their own."""

from __future__ import annotations

__all__ = ["MarkovPrior"]

import abc
import copy
import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import TypeVar

from .base import GaussianPrior, TrendedPrior
from ..domain import Grid, Points
from ..linalg.cholesky import Analysis, Cholesky
from ..linalg.sparse import Sparse

M = TypeVar("M", bound="MarkovPrior")


class MarkovPrior(TrendedPrior):
    r"""A Gaussian prior with a sparse precision.

    .. math:: f(s) = m + F(s)^\top \beta + A(s) u, \qquad u \sim \mathcal{N}(0, Q^{-1})

    The nodes of :math:`u` need not be those of the domain: a lattice that is wider, so that its
    boundary is not felt, the parts of a sum of fields, the vertices of a mesh.
    """

    @abc.abstractmethod
    def precision(self) -> Sparse:
        r"""Returns :math:`Q`, with shape :math:`(N, N)`, differentiable in the parameters.

        Its pattern is one object, the same at every call.
        """

    @abc.abstractmethod
    def embedding(self, points: Points) -> Sparse:
        r"""Returns :math:`A`, the field at some points from the nodes, with shape (m, N)."""

    def sight(self, points: Points) -> Sparse:
        r"""Returns what data at some points see of the nodes, with shape (m, N).

        It is the embedding, but for errors that the data share and the field does not have.
        """
        return self.embedding(points)

    @abc.abstractmethod
    def places(self) -> Float[Tensor, "N k"] | None:
        r"""Returns where the nodes are, for the order of elimination; ``None``: by the graph."""

    def nodes(self) -> Points | None:
        r"""Returns the nodes as points of the domain's axes, if they are such."""
        return None

    def on(self: M, domain: Grid | Points) -> M:
        r"""Returns the same law (its parameters are shared) on another domain."""
        new = copy.copy(self)
        new.domain = domain
        return new

    def factorise(self, Q: Sparse, where: str | None = None) -> Cholesky:
        r"""Returns the factor of a matrix on the nodes; the order is remembered by its pattern."""
        analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, self.places()))
        return Cholesky(Q, analysis, where=where or f"{type(self).__name__}.precision")

    def log_determinant(self) -> Float[Tensor, ""]:
        r"""Returns :math:`\log |Q|`, differentiable in the parameters."""
        return self.factorise(self.precision()).logdet()

    @torch.no_grad()
    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        r"""Draws :math:`u`, with shape (size, N)."""
        Q = self.precision()
        z = torch.randn(size, Q.shape[0], dtype=torch.float64, generator=generator)
        return self.factorise(Q).sqrt_solve(z.mT.contiguous()).mT

    def covariance(self, a: Points, b: Points) -> Float[Tensor, "p q"]:
        A, B = self.embedding(a), self.embedding(b)
        return A @ self.factorise(self.precision()).solve(B.T.to_dense())

    @torch.no_grad()
    def variance(self, points: Points) -> Float[Tensor, " m"]:
        A = self.embedding(points)
        Q = self.precision().structure(A.gram().pattern)
        return self.factorise(Q).selected_inverse().sandwich(A)

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        A = self.embedding(self.domain.points)
        counts = torch.bincount(A.pattern.column_index, minlength=A.shape[1])
        if A.pattern.nnz != A.shape[0] or (A.values != 1).any() or counts.max() > 1:
            return GaussianPrior.cost(self, x)  # the nodes are not told by the state
        r = (x - self.drift()).reshape(-1, x.shape[-1]).mT
        return self._marginal_cost(r, A.pattern.column_index).reshape(x.shape[:-1])

    def _marginal_cost(self, r: Float[Tensor, "n c"], seen: Tensor) -> Float[Tensor, " c"]:
        r"""Returns the cost of the nodes that are seen, the others being at their best."""
        Q = self.precision()
        hidden = torch.ones(Q.shape[0], dtype=torch.bool).index_fill(0, seen, False)
        rest = torch.nonzero(hidden)[:, 0]
        quadratic = Q.take(seen, seen).quadratic(r)
        if len(rest):
            v = Q.take(rest, seen) @ r
            places = self.places()
            inner = Cholesky(Q.take(rest, rest), places=None if places is None else places[rest])
            quadratic = quadratic - (v * inner.solve(v)).sum(dim=0)
        return quadratic / 2

    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        A = self.embedding(self.domain.points).detach()
        return self.drift() + (A @ self.sample_nodes(size, generator).mT.contiguous()).mT

    def denoise(
        self, x_t: Float[Tensor, "*batch n"], sigma: float | Tensor
    ) -> Float[Tensor, "*batch n"]:
        A, mu = self.embedding(self.domain.points), self.drift()
        weight = 1 / torch.as_tensor(sigma, dtype=torch.float64) ** 2
        r = (x_t - mu).reshape(-1, len(mu)).mT
        factor = self.factorise(self.precision() + A.gram() * weight)
        return mu + (A @ factor.solve((A.T @ r) * weight)).mT.reshape(x_t.shape)
