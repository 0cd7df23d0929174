r"""Fields that are read off nodes of their own, with a law that is nearly Gaussian there."""

from __future__ import annotations

__all__ = ["Nodal", "NodeCost"]

import abc
import torch

from jaxtyping import Float
from torch import Tensor

from .base import Energy
from ..domain import Points
from ..linalg.cholesky import Analysis, Cholesky
from ..linalg.sparse import Sparse


class NodeCost(abc.ABC):
    r"""The cost of nodes, with what does not depend on them done; nothing carries a gradient."""

    @abc.abstractmethod
    def __call__(
        self, u: Float[Tensor, "b N"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b N"]]:
        r"""Returns the costs of some nodes, and their gradients."""

    @abc.abstractmethod
    def curvature(self, u: Float[Tensor, " N"]) -> Sparse:
        r"""Returns the curvature :math:`J^\top J` about some nodes, with shape (N, N).

        Its pattern is one object, the same at every call.
        """


class Nodal(Energy):
    r"""A field made of nodes, whose law has a sparse curvature about any state.

    .. math:: f(s) = m + A(s) u, \qquad
        -\log p(u) = \tfrac{1}{2} |r(u)|^2 - \tfrac{1}{2} \log |Q| + \mathrm{cst}

    with innovations :math:`r` whose derivative :math:`J` has a determinant that does not depend
    on :math:`u`: the curvature is :math:`J^\top J`, and :math:`|Q|` its determinant. That of a
    Gaussian field is the same everywhere, its precision.
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
    def mean(self, points: Points) -> Float[Tensor, " m"]:
        r"""Returns :math:`m`, what is known of the field beside the nodes."""

    @abc.abstractmethod
    def places(self) -> Float[Tensor, "N k"] | None:
        r"""Returns where the nodes are, for the order of elimination; ``None``: by the graph."""

    @abc.abstractmethod
    def prepare_nodes(self) -> NodeCost:
        r"""Returns the cost of nodes, at the present parameters."""

    @abc.abstractmethod
    def log_determinant(self) -> Float[Tensor, ""]:
        r"""Returns :math:`\log |Q|`, differentiable in the parameters."""

    def factorise(self, Q: Sparse, where: str | None = None) -> Cholesky:
        r"""Returns the factor of a matrix on the nodes; the order is remembered by its pattern."""
        analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, self.places()))
        return Cholesky(Q, analysis, where=where or f"{type(self).__name__}.precision")

    @torch.no_grad()
    def encode_nodes(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b N"]:
        r"""Returns nodes that show some fields, to six digits, the likeliest about zero."""
        A = self.embedding(self.domain.points).detach()
        Q = self.prepare_nodes().curvature(torch.zeros(A.shape[1], dtype=torch.float64))
        weight = CLOSE * Q.diagonal().max()
        factor = self.factorise(Q + A.gram() * weight)
        r = x - self.mean(self.domain.points).detach()
        return factor.solve((A.T @ r.mT.contiguous()) * weight).mT


CLOSE = 1e6
"""The precision with which nodes show a field, in that of a node given all others."""
