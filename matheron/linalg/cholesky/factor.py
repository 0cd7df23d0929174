r"""Sparse Cholesky factors, with gradients."""

from __future__ import annotations

__all__ = ["Analysis", "Cholesky", "check_values", "columns_of"]

import numpy as np
import torch
import weakref

from jaxtyping import Float
from torch import Tensor
from typing import Any

from .crew import Pool
from .inverse import invert_on_pattern
from .numeric import factor, half_log_determinant
from .ordering import dissect
from .solves import backward, forward, take_rows
from .symbolic import plan
from ..sparse import Pattern, Sparse, outer_entries

LIMIT = 2**31
"""Positions of entries and of unknowns are 32-bit integers; those of the factor are not."""


class Analysis:
    r"""The order of elimination of a symmetric pattern, and the places of the factor's entries.

    It is worked out once, and serves all matrices of the pattern. Unknowns are ordered by nested
    dissection: along their coordinates if they have some, else along distances in the graph.

    References:
        | Nested dissection of a regular finite element mesh (George, 1973)
        | https://doi.org/10.1137/0710032
        | The multifrontal method for sparse matrix solution (Liu, 1992)
        | https://doi.org/10.1137/1034004

    Arguments:
        pattern: A symmetric pattern, both triangles stored.
        places: Coordinates of the :math:`n` unknowns, with shape :math:`(n, k)`, for the order
            only. Several unknowns may share a place. Neighbours should be near each other.

    Raises:
        ValueError: If the pattern is not symmetric, or the coordinates are not finite or too few.

    Example:
        >>> Q = Sparse.from_scipy(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> Analysis(Q.pattern).entries
        3
    """

    def __init__(self, pattern: Pattern, places: Float[Tensor, "n k"] | None = None) -> None:
        self.pattern = pattern
        x = None if places is None else places.detach().to("cpu", torch.float64).numpy()
        _check_places(pattern, x)
        self.plan = plan(pattern, dissect(pattern, x))
        self.pool, self.single = Pool(), Pool(np.float32)

    def __deepcopy__(self, memo: dict[int, Any]) -> Analysis:
        return self  # nothing of it changes

    @property
    def entries(self) -> int:
        """The number of entries of the factor, with the zeros that it stores."""
        own, edge = np.diff(self.plan.fronts.begin), np.diff(self.plan.fronts.row_at)
        return int((own * (own + 1) // 2 + own * edge).sum())

    @property
    def operations(self) -> float:
        """The number of multiplications, each with an addition, of a factorisation."""
        return self.plan.operations / 2

    def release(self) -> None:
        """Forget the memory that is kept for the next factorisation."""
        self.pool.clear()
        self.single.clear()

    def diagonal_entry(self, L: np.ndarray, column: int) -> float:
        """Return the entry of a factor on its diagonal, in some column."""
        f = self.plan.fronts
        t = int(np.searchsorted(f.begin, column, side="right")) - 1
        size = self.plan.own(t) + self.plan.edge(t)
        return float(L[f.panel[t] + (column - f.begin[t]) * (size + 1)])


def _check_places(pattern: Pattern, x: np.ndarray | None) -> None:
    if pattern.shape[0] != pattern.shape[1] or max(pattern.nnz, pattern.shape[0]) >= LIMIT:
        msg = (
            f"Analysis(pattern=...): expected a square pattern of fewer than 2^31 entries, got "
            f"{pattern.shape} with {pattern.nnz}. Check that it is a precision."
        )
        raise ValueError(msg)
    if x is not None and (len(x) != pattern.shape[0] or not np.isfinite(x).all()):
        msg = (
            f"Analysis(places=...): expected finite coordinates of {pattern.shape[0]} unknowns, "
            f"got shape {x.shape} with {(~np.isfinite(x)).sum()} not finite. "
            "Give one row per unknown."
        )
        raise ValueError(msg)


class Cholesky:
    r"""The factor of a symmetric positive definite sparse matrix :math:`P Q P^\top = L L^\top`.

    The factor is computed at once, and serves for log-determinants, solutions, draws, marginal
    variances and all their gradients. The matrix is read as :math:`(Q + Q^\top) / 2`. Results do
    not depend on the number of threads.

    Arguments:
        Q: A matrix of shape :math:`(n, n)`, both triangles stored. Its values may carry a
            gradient.
        analysis: The analysis of its pattern. By default it is worked out and kept by the
            pattern.
        places: Coordinates of the unknowns, for an analysis that is not given.
        where: The caller, to be named in an error.

    Raises:
        ValueError: If the matrix is not positive definite in double precision, or not finite.
            Nothing is added to its diagonal.

    Example:
        >>> Q = Sparse.from_scipy(np.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> factor = Cholesky(Q)
        >>> factor.logdet().exp()
        tensor(3.0000, dtype=torch.float64)
        >>> factor.solve(torch.tensor([3.0, 3.0], dtype=torch.float64))
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        Q: Sparse,
        analysis: Analysis | None = None,
        places: Float[Tensor, "n k"] | None = None,
        where: str = "Cholesky",
    ) -> None:
        if analysis is None:
            analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, places))
        check_values(Q, analysis, where)
        self.Q, self.analysis = Q, analysis
        values = Q.values.detach().contiguous().numpy()
        self._L, lost = factor(analysis.plan, analysis.pool, values)
        weakref.finalize(self, analysis.pool.give, self._L).atexit = False
        if lost >= 0:
            _raise_not_positive(analysis, self._L, lost, where)
        self._inverse: tuple[Tensor, Tensor] | None = None

    def logdet(self) -> Float[Tensor, ""]:
        r"""Return :math:`\log\det Q`; its gradient is :math:`Q^{-1}` on the pattern."""
        result: Tensor = _LogDet.apply(self.Q.values, self)
        return result

    def solve(self, b: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        r"""Return :math:`Q^{-1} b`, for a vector or each column of a matrix."""
        if len(b) != self.Q.shape[0]:
            msg = (
                f"Cholesky.solve(b=...): expected {self.Q.shape[0]} rows, got {len(b)}. "
                "Give one row per unknown."
            )
            raise ValueError(msg)
        result: Tensor = _Solve.apply(self.Q.values, b, self)
        return result

    def sqrt_solve(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        r"""Return :math:`P^\top L^{-\top} z`, a draw of covariance :math:`Q^{-1}` if z is white.

        Its gradient reaches z, and not the matrix.
        """
        result: Tensor = _Half.apply(z, self, False)
        return result

    def half_solve(self, b: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        r"""Return :math:`L^{-1} P b`; of :math:`Q x`, the white noise that a draw x is made of.

        Its gradient reaches b, and not the matrix.
        """
        result: Tensor = _Half.apply(b, self, True)
        return result

    def selected_inverse(self) -> Sparse:
        r"""Return the entries of :math:`Q^{-1}` on the pattern of :math:`Q`, without gradient."""
        return Sparse(self.Q.pattern, self._inverted()[0])

    def variance(self) -> Float[Tensor, " n"]:
        r"""Return the diagonal of :math:`Q^{-1}`, without gradient."""
        return self._inverted()[1]

    def _inverted(self) -> tuple[Tensor, Tensor]:
        if self._inverse is None:
            values = np.empty(self.Q.pattern.nnz)
            found = invert_on_pattern(self.analysis.plan, self.analysis.pool, self._L, values)
            self._inverse = torch.as_tensor(found[0]), torch.as_tensor(found[1])
        return self._inverse

    def _log_determinant(self) -> float:
        return 2 * float(half_log_determinant(self.analysis.plan.fronts, self._L))

    def _half_way(self, b: Tensor, ahead: bool) -> Tensor:
        if b.numel() == 0:
            return b.detach().clone()
        plan, pool = self.analysis.plan, self.analysis.pool
        given = np.ascontiguousarray(columns_of(b.detach()).numpy())
        space = pool.take(given.size)
        x = space[: given.size].reshape(given.shape)
        if ahead:
            x = take_rows(given, plan.order, x)
            forward(plan, pool, self._L, x)
            out = np.array(x)
        else:
            x[:] = given
            backward(plan, pool, self._L, x)
            out = take_rows(x, plan.back, np.empty_like(given))
        pool.give(space)
        return torch.as_tensor(out).reshape(b.shape)

    def _solve(self, b: Tensor) -> Tensor:
        if b.numel() == 0:  # no column, or no unknown: BLAS takes neither
            return b.detach().clone()
        plan, pool = self.analysis.plan, self.analysis.pool
        given = np.ascontiguousarray(columns_of(b.detach()).numpy())
        space = pool.take(given.size)
        x = take_rows(given, plan.order, space[: given.size].reshape(given.shape))
        forward(plan, pool, self._L, x)
        backward(plan, pool, self._L, x)
        out = take_rows(x, plan.back, np.empty_like(given))
        pool.give(space)
        return torch.as_tensor(out).reshape(b.shape)


def columns_of(b: Tensor) -> Float[Tensor, "n c"]:
    return b[:, None] if b.ndim == 1 else b.flatten(start_dim=1)


def check_values(Q: Sparse, analysis: Analysis, where: str) -> None:
    if analysis.pattern is not Q.pattern:
        msg = (
            f"{where}: expected an analysis of the same Pattern object, got another one. "
            "Analyse Q.pattern."
        )
        raise ValueError(msg)
    if Q.values.dtype != torch.float64:
        msg = f"{where}: expected a precision in float64, got {Q.values.dtype}. Convert it."
        raise TypeError(msg)
    if not torch.isfinite(Q.values).all():
        at = int((~torch.isfinite(Q.values)).nonzero()[0])
        row = int(Q.pattern.rows[at])
        msg = (
            f"{where}: expected a finite precision, got {Q.values[at].item()} at unknown {row}. "
            "Check the parameters and the noise for zeros, NaN and overflow."
        )
        raise ValueError(msg)


def _raise_not_positive(analysis: Analysis, L: np.ndarray, lost: int, where: str) -> None:
    pivot = analysis.diagonal_entry(L, lost)
    msg = (
        f"{where}: expected a positive definite precision, got a pivot of {pivot:.3g} at unknown "
        f"{analysis.plan.order[lost]}. Check kappa, tau and the noise for zeros."
    )
    raise ValueError(msg)


class _LogDet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, cholesky: Cholesky) -> Tensor:
        ctx.cholesky = cholesky
        return values.new_tensor(cholesky._log_determinant())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.cholesky.selected_inverse().values, None


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, b: Tensor, cholesky: Cholesky) -> Tensor:
        x = cholesky._solve(b)
        ctx.cholesky = cholesky
        ctx.save_for_backward(values, x)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (values, x), cholesky = ctx.saved_tensors, ctx.cholesky
        if not ctx.needs_input_grad[0]:  # linear in b: it may be differentiated again
            return None, _Solve.apply(values, g, cholesky), None
        for_b = cholesky._solve(g)
        a, b = columns_of(for_b), columns_of(x)
        left, right = torch.cat([a, b], dim=1), torch.cat([b, a], dim=1)
        for_values = -0.5 * outer_entries(cholesky.Q.pattern, left, right)
        return for_values, for_b if ctx.needs_input_grad[1] else None, None


class _Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, b: Tensor, cholesky: Cholesky, ahead: bool) -> Tensor:
        ctx.cholesky, ctx.ahead = cholesky, ahead
        return cholesky._half_way(b, ahead)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Half.apply(g, ctx.cholesky, not ctx.ahead), None, None
