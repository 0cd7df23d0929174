r"""The Gaussian law about the minimum of a cost (Laplace), dense or by leading eigenpairs."""

from __future__ import annotations

__all__ = ["Spread", "factor", "leading"]

import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from .controls import Tangent
from .gaussian_laws import GaussianLaw


@dataclass(frozen=True)
class Spread(GaussianLaw):
    r"""The law :math:`\mathcal{N}(v^\star, H^{-1})` of the control, by what it takes to draw.

    Arguments:
        mode: The minimum :math:`v^\star`, with shape :math:`(c)`.
        factor: The Cholesky factor of :math:`H`, with shape :math:`(c, c)`; or else
        values: the leading eigenvalues of :math:`H - I`, with shape :math:`(r)`, and
        vectors: their eigenvectors, with shape :math:`(c, r)`.
    """

    mode: Float[Tensor, " c"]
    factor: Float[Tensor, "c c"] | None = None
    values: Float[Tensor, " r"] | None = None
    vectors: Float[Tensor, "c r"] | None = None

    def draw(self, z: Float[Tensor, "size c"]) -> Float[Tensor, "size c"]:
        r"""Returns draws, from white noise."""
        return self.mode + self.color(z)

    def color(self, z: Float[Tensor, "size c"]) -> Float[Tensor, "size c"]:
        if self.factor is not None:
            return torch.linalg.solve_triangular(self.factor.mT, z.mT, upper=True).mT
        return self._spectral(z, -0.5)

    def times(self, g: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        if self.factor is not None:
            return torch.cholesky_solve(g.mT, self.factor).mT
        return self._spectral(g, -1.0)

    def weigh(self, d: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        if self.factor is not None:
            return (d @ self.factor) @ self.factor.mT
        return self._spectral(d, 1.0)

    def _spectral(self, z: Float[Tensor, "b c"], power: float) -> Float[Tensor, "b c"]:
        r"""Returns a power of :math:`H` times each row, from its eigenpairs."""
        assert self.values is not None
        assert self.vectors is not None
        shrink = 1 - (1 + self.values) ** power
        return z - ((z @ self.vectors) * shrink) @ self.vectors.mT


def factor(H: Float[Tensor, "c c"], white: bool) -> Float[Tensor, "c c"]:
    r"""Returns the Cholesky factor of a Hessian, or says that it is no minimum.

    With a white control it is at least the identity; where a chaotic model makes it so large
    that rounding hides that, its eigenvalues are put back.
    """
    L, info = torch.linalg.cholesky_ex(H)
    if info > 0 and white:
        values, vectors = torch.linalg.eigh(H)
        root = values.clamp(min=1.0).sqrt()
        return torch.linalg.qr(root[:, None] * vectors.mT).R.mT
    if info > 0:
        msg = (
            "Variational: expected a minimum with a positive definite Hessian, got a saddle. "
            "Start elsewhere (starts=...), or use a prior that is Whitened."
        )
        raise ValueError(msg)
    return L


def leading(tangent: Tangent, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    r"""Returns the leading eigenpairs of what the data tell, by Lanczos.

    Directions are made orthogonal to all before. They start among those that the data see, so
    that nothing is left out where there are as many as data; a space that is exhausted is left
    for another.
    """
    c = tangent.v.shape[1]
    generator = torch.Generator().manual_seed(seed)
    V, AV = torch.zeros(0, c).double(), torch.zeros(0, c).double()
    q = torch.zeros(c, dtype=torch.float64)
    while len(V) < min(rank, c):
        q = _orthogonal(q, V)
        if q.norm() <= 1e-10 * AV.norm():
            z = torch.randn(1, c, dtype=torch.float64, generator=generator)
            z = tangent.information(z)[0]
            q = _orthogonal(z, V)
            if q.norm() <= 1e-10 * z.norm():
                break
        V = torch.cat([V, q[None] / q.norm()])
        q = tangent.information(V[-1:])[0]
        AV = torch.cat([AV, q[None]])
    T = V @ AV.mT
    values, vectors = torch.linalg.eigh((T + T.mT) / 2)
    return values.clamp(min=0.0), V.mT @ vectors


def _orthogonal(q: Float[Tensor, " c"], V: Float[Tensor, "k c"]) -> Float[Tensor, " c"]:
    for _ in range(2):
        q = q - V.mT @ (V @ q)
    return q
