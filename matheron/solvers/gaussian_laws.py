r"""Gaussian laws by what a walk needs of them: products with covariance and precision, draws."""

from __future__ import annotations

__all__ = ["DiagonalLaw", "GaussianLaw", "SparseLaw"]

import abc

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from ..linalg.cholesky import Cholesky


class GaussianLaw(abc.ABC):
    r"""The law :math:`\mathcal{N}(m, C)` of :math:`c` numbers; rows are members of a batch.

    Attributes:
        mode: The mean :math:`m`.
    """

    mode: Float[Tensor, " c"]

    @abc.abstractmethod
    def times(self, g: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        r"""Returns :math:`C g`."""

    @abc.abstractmethod
    def weigh(self, d: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        r"""Returns :math:`C^{-1} d`."""

    @abc.abstractmethod
    def color(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        r"""Returns draws with covariance :math:`C` and no mean, from white noise."""


@dataclass(frozen=True)
class DiagonalLaw(GaussianLaw):
    r"""A law of independent numbers.

    Arguments:
        mode: The mean.
        variance: The variances.
    """

    mode: Float[Tensor, " c"]
    variance: Float[Tensor, " c"]

    def times(self, g: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return g * self.variance

    def weigh(self, d: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return d / self.variance

    def color(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return z * self.variance.sqrt()


@dataclass(frozen=True)
class SparseLaw(GaussianLaw):
    r"""A law with a sparse precision.

    Arguments:
        mode: The mean.
        factor: The factor of the precision.
    """

    mode: Float[Tensor, " c"]
    factor: Cholesky

    def times(self, g: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return self.factor.solve(g.mT.contiguous()).mT

    def weigh(self, d: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return (self.factor.Q.detach() @ d.mT.contiguous()).mT

    def color(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        return self.factor.sqrt_solve(z.mT.contiguous()).mT
