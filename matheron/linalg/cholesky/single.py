r"""Factors in single precision, for solutions and draws in double precision."""

from __future__ import annotations

__all__ = ["SingleCholesky"]

import numpy as np
import torch
import weakref

from jaxtyping import Float
from torch import Tensor

from .factor import Analysis, check_values, columns_of
from .numeric import factor
from .solves import backward, forward, take_rows
from ..compiled import compiled
from ..sparse import Sparse
from ..threads import chunked, in_threads

TOLERANCE = 1e-10
"""The correction that a solution may still need, relative to it."""
CAUTION = 10.0
"""How many times slower than the last two corrections the next may fall."""
FLOOR = 1e-15
"""The residual that double precision leaves, relative to the matrix times the solution."""
PASSES = 12
WIDTH = 64
"""Columns that are solved for at once."""
INFORMATION = 1e-3
"""The most that a draw may tell of its being drawn in single precision, in nats."""


class SingleCholesky:
    r"""The factor of a symmetric positive definite sparse matrix, kept in single precision.

    It takes half the memory and half the time of :class:`Cholesky`, for what does not need all
    digits of the factor. The matrix is scaled to a diagonal of ones first, :math:`S Q S \approx
    L L^\top`. Solutions are corrected with residuals in double precision, until a correction more
    would be under :math:`10^{-10}` of them: they are those of :class:`Cholesky`. Draws have the
    covariance :math:`S L^{-\top} L^{-1} S`; with the defect

    .. math:: E = L^{-1} S Q S L^{-\top} - I, \qquad
        \delta = \frac{1}{\sqrt{n}} \|E\|_F

    the divergence of their law from the exact one is :math:`n \delta^2 / 4` nats to second order,
    for all the numbers of a draw together. Both are measured when the factor is made, rounding
    included, and a matrix is refused where a draw would tell more than 0.001 nats. No residual
    corrects log-determinants and marginal variances: they are left to :class:`Cholesky`. Nothing
    here has a gradient. Results do not depend on the number of threads.

    References:
        | Accuracy and Stability of Numerical Algorithms, chapter 12 (Higham, 2002)
        | https://doi.org/10.1137/1.9780898718027

    Arguments:
        Q: A matrix of shape :math:`(n, n)`, both triangles stored, in double precision.
        analysis: The analysis of its pattern. By default it is worked out and kept by the pattern.
        places: Coordinates of the unknowns, for an analysis that is not given.
        where: The caller, to be named in an error.

    Raises:
        ValueError: If the matrix is not finite, or not positive definite in single precision, or
            if draws would differ from those of the exact law.

    Example:
        >>> Q = Sparse.from_scipy(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> SingleCholesky(Q).solve(torch.tensor([3.0, 3.0], dtype=torch.float64))
        tensor([1., 1.], dtype=torch.float64)
    """

    def __init__(
        self,
        Q: Sparse,
        analysis: Analysis | None = None,
        places: Float[Tensor, "n k"] | None = None,
        where: str = "SingleCholesky",
    ) -> None:
        if analysis is None:
            analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, places))
        check_values(Q, analysis, where)
        self.Q, self.analysis, self.where = Q.detach(), analysis, where
        self.scale = self._scale()
        self.norm = _norm(self.Q, self.scale)
        self._L = self._factor(_scaled(self.Q, self.scale))
        self.defect = self._defect()
        self._check_defect()

    @property
    def information(self) -> float:
        """What a draw tells of its being drawn in single precision, in nats."""
        return self.Q.shape[0] * self.defect**2 / 4

    def solve(self, b: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        r"""Return :math:`Q^{-1} b`, for a vector or each column of a matrix."""
        if len(b) != self.Q.shape[0]:
            msg = (
                f"SingleCholesky.solve(b=...): expected {self.Q.shape[0]} rows, got {len(b)}. "
                "Give one row per unknown."
            )
            raise ValueError(msg)
        if b.numel() == 0:
            return b.detach().clone()
        parts = columns_of(b.detach()).split(WIDTH, dim=1)
        return torch.cat([self._refined(part) for part in parts], dim=1).reshape(b.shape)

    def sqrt_solve(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        r"""Return a draw of covariance :math:`Q^{-1}`, up to the defect, if z is white."""
        if z.numel() == 0:
            return z.detach().clone()
        columns = columns_of(z.detach()).to(torch.float32, copy=True)
        return self._back(columns.contiguous().numpy()).reshape(z.shape)

    def _scale(self) -> Float[Tensor, "n 1"]:
        diagonal = self.Q.diagonal()
        if (diagonal <= 0).any():
            at = int((diagonal <= 0).nonzero()[0])
            self._raise_not_positive(diagonal[at].item(), at)
        return diagonal.rsqrt()[:, None]

    def _factor(self, values: np.ndarray) -> np.ndarray:
        plan, pool = self.analysis.plan, self.analysis.single
        L, lost = factor(plan, pool, values)
        weakref.finalize(self, pool.give, L).atexit = False
        if lost >= 0:
            pivot = self.analysis.diagonal_entry(L, lost)
            self._raise_not_positive(pivot, int(plan.order[lost]))
        return L

    def _raise_not_positive(self, pivot: float, unknown: int) -> None:
        msg = (
            f"{self.where}: expected a matrix that is positive definite in single precision, got "
            f"a pivot of {pivot:.3g} at unknown {unknown}. Factorise it in double precision."
        )
        raise ValueError(msg)

    def _back(self, X: np.ndarray) -> Float[Tensor, "n c"]:
        r"""Return :math:`S L^{-\top} X`, in double precision; X is written to."""
        plan, pool = self.analysis.plan, self.analysis.single
        backward(plan, pool, self._L, X)
        out = torch.as_tensor(take_rows(X, plan.back, np.empty_like(X))).double()
        return out.mul_(self.scale)

    def _forth(self, r: Float[Tensor, "n c"]) -> np.ndarray:
        r"""Return :math:`L^{-1} S r`, in single precision and the order of the factor."""
        plan, pool = self.analysis.plan, self.analysis.single
        given = (r * self.scale).float().contiguous().numpy()
        X = take_rows(given, plan.order, np.empty_like(given))
        forward(plan, pool, self._L, X)
        return X

    def _approximate(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return a solution to single precision, whatever the units of r."""
        size = (r * self.scale).abs().amax(dim=0).clamp(min=torch.finfo(r.dtype).tiny)
        return self._back(self._forth(r / size)) * size

    def _refined(self, b: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        x, r, before = torch.zeros_like(b), b, None
        for _ in range(PASSES):
            step = self._approximate(r)
            x += step
            size = _length(x / self.scale)
            last = _length(step / self.scale) / size.clamp(min=torch.finfo(b.dtype).tiny)
            rate = 1.0 if before is None else (CAUTION * last / before).clamp(max=1.0)
            if (last * rate <= TOLERANCE).all():
                return x
            r, before = b - self.Q @ x, last.clamp(min=TOLERANCE**2)
            if (_length(r * self.scale) <= FLOOR * self.norm * size).all():
                return x
        msg = (
            f"{self.where}: expected corrections under {TOLERANCE} of the solution in {PASSES} "
            f"passes, got {last.max().item():.3g}. Factorise it in double precision."
        )
        raise ValueError(msg)

    def _defect(self) -> float:
        """The root mean square of E z over white columns z, always the same ones."""
        n = self.Q.shape[0]
        if n == 0:
            return 0.0
        z = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
        e = torch.as_tensor(self._forth(self.Q @ self._back(z.clone().numpy()))) - z
        return e.double().square().mean().sqrt().item()

    def _check_defect(self) -> None:
        if not self.information <= INFORMATION:
            msg = (
                f"{self.where}: expected draws that tell at most {INFORMATION} nats of being in "
                f"single precision, got {self.information:.3g}: the matrix is ill-conditioned. "
                "Factorise it in double precision."
            )
            raise ValueError(msg)


def _length(v: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
    return torch.linalg.vector_norm(v, dim=0)


def _scaled(Q: Sparse, scale: Float[Tensor, "n 1"]) -> np.ndarray:
    """Return the values of S Q S in single precision."""
    p, s, out = Q.pattern, scale[:, 0].numpy(), np.empty(Q.pattern.nnz, np.float32)
    runs, values = chunked(p.shape[0]), Q.values.contiguous().numpy()
    work = lambda k: _scale_rows(*runs[k], p.indptr, p.indices, values, s, out)
    in_threads(work, len(runs) if p.nnz else 0)
    return out


def _norm(Q: Sparse, scale: Float[Tensor, "n 1"]) -> float:
    """Return the largest sum of a row of S Q S in absolute value."""
    size = Sparse(Q.pattern, Q.values.abs()) @ scale
    return (size * scale).max().item() if len(scale) else 0.0


@compiled
def _scale_rows(lo, hi, ptr, col, values, s, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(lo, hi):
        for p in range(ptr[i], ptr[i + 1]):
            out[p] = values[p] * s[i] * s[col[p]]
