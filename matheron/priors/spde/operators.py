r"""The sparse matrices of a Whittle-Matern equation."""

from __future__ import annotations

__all__ = ["Operators"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .discretization import Discretization
from .rational import Part
from ...linalg.cholesky import Analysis, Cholesky
from ...linalg.sparse import Sparse


class Operators:
    r"""The equation at the present parameters, :math:`L = C^{-1} K`, and what is made of it.

    A part of power :math:`m` has the precision :math:`F^\top B F / w` with
    :math:`F = (C^{-1} K)^{\lfloor (m - 1) / 2 \rfloor}` and, with the shifted
    :math:`K_p = K + p C`, :math:`B = \tau K_p \tau` for odd :math:`m`, else
    :math:`K \tau^2 C^{-1} K`, or :math:`\tau K C^{-1} K_p \tau` where there is a shift.

    Arguments:
        lattice: The discretisation.
        K: The operator :math:`\kappa^2 C + G`, with its boundary.
        alpha: The power :math:`\alpha`.
        level: The unit of the shifts, a typical :math:`\kappa^2`.
        tau: The field :math:`\tau`.
        amplitude: What multiplies the solution.
        where: Who asks, for messages.
    """

    def __init__(
        self,
        lattice: Discretization,
        K: Sparse,
        alpha: float,
        level: Float[Tensor, ""],
        tau: Float[Tensor, " N"],
        amplitude: Float[Tensor, " N"],
        where: str,
    ) -> None:
        self.lattice, self.volume = lattice, lattice.volume
        self.K, self.alpha, self.level = K, alpha, level
        self.tau, self.amplitude, self.where = tau, amplitude, where
        self._factor: Cholesky | None = None

    def factorise(self, Q: Sparse) -> Cholesky:
        analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, self.lattice.places()))
        return Cholesky(Q, analysis, where=self.where)

    @property
    def factor(self) -> Cholesky:
        r"""The factor of K."""
        if self._factor is None:
            self._factor = self.factorise(self.K)
        return self._factor

    def weight(self, part: Part) -> Float[Tensor, ""]:
        return part.weight * self.level ** (part.power - self.alpha)

    def shifted(self, part: Part) -> Sparse:
        if part.shift == 0:
            return self.K
        return self.K + Sparse.diag(part.shift * self.level * self.volume)

    def middle(self, part: Part) -> Sparse:
        if part.power % 2 == 0 and part.shift == 0:
            return self.K.product(self.K.scale(rows=self.tau.square() / self.volume))
        B = self.shifted(part)
        if part.power % 2 == 0:
            B = self.K.product(B.scale(rows=1 / self.volume))
        return B.scale(rows=self.tau, columns=self.tau)

    def precision(self, part: Part) -> Sparse:
        Q = self.middle(part)
        for _ in range((part.power - 1) // 2):
            inner = Q.scale(rows=1 / self.volume, columns=1 / self.volume)
            Q = self.K.product(inner.product(self.K))
        inverse = 1 / self.amplitude
        return Q.scale(rows=inverse / self.weight(part), columns=inverse)

    def log_determinant(self, part: Part) -> Float[Tensor, ""]:
        whole = (part.power - 1) * (self.factor.logdet() - self.volume.log().sum())
        last = self.factor if part.shift == 0 else self.factorise(self.shifted(part))
        scales = 2 * (self.tau.log() - self.amplitude.log()) - self.weight(part).log()
        return whole + last.logdet() + scales.sum()

    def sample(
        self, part: Part, size: int, generator: Generator | None
    ) -> Float[Tensor, "size N"]:
        z = torch.randn(size, len(self.volume), dtype=torch.float64, generator=generator)
        x = self._sample_middle(part, z.mT.contiguous())
        for _ in range((part.power - 1) // 2):
            x = self.factor.solve(self.volume[:, None] * x)
        return (x * (self.amplitude * self.weight(part).sqrt())[:, None]).mT

    def _sample_middle(self, part: Part, z: Float[Tensor, "N size"]) -> Float[Tensor, "N size"]:
        if part.power % 2 == 0 and part.shift == 0:
            return self.factor.solve((self.volume.sqrt() / self.tau)[:, None] * z)
        if part.power % 2 == 0:
            return self.factorise(self.middle(part)).sqrt_solve(z)
        last = self.factor if part.shift == 0 else self.factorise(self.shifted(part))
        return last.sqrt_solve(z) / self.tau[:, None]
