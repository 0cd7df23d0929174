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
from .nodal import Nodal, NodeCost
from ..domain import Grid, Points
from ..linalg.cholesky import Cholesky
from ..linalg.sparse import Sparse

M = TypeVar("M", bound="MarkovPrior")


class _Quadratic(NodeCost):
    r"""The cost of nodes whose precision is the same everywhere."""

    def __init__(self, Q: Sparse) -> None:
        self.Q = Q

    def __call__(
        self, u: Float[Tensor, "b N"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b N"]]:
        slope = (self.Q @ u.mT.contiguous()).mT
        return (u * slope).sum(dim=-1) / 2, slope

    def curvature(self, u: Float[Tensor, " N"]) -> Sparse:
        return self.Q


class MarkovPrior(TrendedPrior, Nodal):
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

    def prepare_nodes(self) -> NodeCost:
        return _Quadratic(self.precision().detach())

    def nodes(self) -> Points | None:
        r"""Returns the nodes as points of the domain's axes, if they are such."""
        return None

    def on(self: M, domain: Grid | Points) -> M:
        r"""Returns the same law (its parameters are shared) on another domain."""
        new = copy.copy(self)
        new.domain = domain
        return new

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
