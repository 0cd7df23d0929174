r"""Gaussian Markov fields: a sparse precision, on nodes of their own."""

from __future__ import annotations

__all__ = ["MarkovPrior"]

import abc
import copy
import torch

from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import TypeVar

from .base import GaussianPrior, Gradient, TrendedPrior
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
        seen = self._seen()
        if seen is None:
            return GaussianPrior.cost(self, x)
        r = (x - self.drift()).reshape(-1, x.shape[-1]).mT
        return self._marginal_cost(r, seen).reshape(x.shape[:-1])

    def _seen(self) -> Int[Tensor, " n"] | None:
        r"""Returns the node that each number of the state is, if it is one and the only."""
        A = self.embedding(self.domain.points)
        counts = torch.bincount(A.pattern.column_index, minlength=A.shape[1])
        if A.pattern.nnz != A.shape[0] or (A.values != 1).any() or counts.max() > 1:
            return None  # the nodes are not told by the state
        return A.pattern.column_index

    def _hidden(self, Q: Sparse, seen: Tensor) -> tuple[Sparse, Cholesky] | None:
        r"""Returns what ties the other nodes to those that are seen, and their own factor."""
        hidden = torch.ones(Q.shape[0], dtype=torch.bool).index_fill(0, seen, False)
        rest = torch.nonzero(hidden)[:, 0]
        if not len(rest):
            return None
        places = self.places()
        inner = Cholesky(Q.take(rest, rest), places=None if places is None else places[rest])
        return Q.take(rest, seen), inner

    def _marginal_cost(self, r: Float[Tensor, "n c"], seen: Tensor) -> Float[Tensor, " c"]:
        r"""Returns the cost of the nodes that are seen, the others being at their best."""
        Q = self.precision()
        quadratic, hidden = Q.take(seen, seen).quadratic(r), self._hidden(Q, seen)
        if hidden is not None:
            v = hidden[0] @ r
            quadratic = quadratic - (v * hidden[1].solve(v)).sum(dim=0)
        return quadratic / 2

    def prepare_gradient(self) -> Gradient:
        seen = self._seen()
        if seen is None:
            return super().prepare_gradient()
        whole, mu = self.precision(), self.drift()
        Q, hidden = whole.take(seen, seen), self._hidden(whole, seen)

        def gradient(x: Tensor) -> Tensor:
            r = (x - mu).reshape(-1, len(mu)).mT.contiguous()
            slope = Q @ r
            if hidden is not None:
                slope = slope - hidden[0].T @ hidden[1].solve(hidden[0] @ r)
            return slope.mT.reshape(x.shape).to(x.dtype)

        return gradient

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
