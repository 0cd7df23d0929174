r"""Fields that are sums of known functions, with independent coefficients."""

from __future__ import annotations

__all__ = ["ExpansionPrior"]

import abc
import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .markov import MarkovPrior
from ..domain import Points
from ..linalg.packets import Packets
from ..linalg.sparse import Sparse

LARGEST_MATRIX = 100_000_000
"""The entries of the largest matrix that is stored."""


class ExpansionPrior(MarkovPrior):
    r"""A Gaussian prior that is a sum of known functions with independent coefficients.

    .. math:: f(s) = m + F(s)^\top \beta + A(s) u, \qquad u \sim \mathcal{N}(0, D),

    with :math:`D` diagonal. It is a Markov prior whose nodes are the coefficients.
    """

    @abc.abstractmethod
    def basis(self, points: Points) -> Packets:
        r"""Returns the functions at some points, the matrix :math:`A`, without storing it."""

    @abc.abstractmethod
    def coefficient_variance(self) -> Float[Tensor, " N"]:
        r"""Returns the variances :math:`D` of the coefficients, differentiable."""

    def precision(self) -> Sparse:
        return Sparse.diag(1 / self.coefficient_variance())

    def embedding(self, points: Points) -> Sparse:
        basis = self.basis(points)
        if basis.nnz > LARGEST_MATRIX:
            msg = (
                f"{type(self).__name__}.embedding(points=...): expected at most "
                f"{LARGEST_MATRIX} entries, got {basis.nnz} for {len(points)} points. "
                "Use ExpansionGradient(), which stores no matrix."
            )
            raise ValueError(msg)
        return basis.sparse()

    def places(self) -> Float[Tensor, "N k"] | None:
        return None

    def log_determinant(self) -> Float[Tensor, ""]:
        return -self.coefficient_variance().log().sum()

    @torch.no_grad()
    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        d = self.coefficient_variance()
        return torch.randn(size, len(d), dtype=d.dtype, generator=generator) * d.sqrt()

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        u = self.sample_nodes(size, generator)
        return self.drift() + (self.basis(self.domain.points) @ u.mT).mT
