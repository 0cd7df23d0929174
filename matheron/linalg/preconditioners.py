"""Cheap approximations of a matrix, to make iterations few."""

from __future__ import annotations

__all__ = ["IncompleteCholesky", "Jacobi", "Preconditioner"]

import abc
import numpy as np
import torch

from collections.abc import Callable
from functools import cached_property
from jaxtyping import Float
from torch import Tensor

from .compiled import compiled
from .sparse import Pattern, Sparse

FIRST_SHIFT = 1e-3
"""The first multiple of the diagonal to add where an incomplete factor breaks down."""


class Preconditioner(abc.ABC):
    """An approximation M = L L' of a symmetric matrix, applied by its inverse."""

    @abc.abstractmethod
    def forward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return L^-1 r."""

    @abc.abstractmethod
    def backward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return L'^-1 r."""

    @abc.abstractmethod
    def multiply(self, z: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return L z."""

    @property
    @abc.abstractmethod
    def log_determinant(self) -> Float[Tensor, ""]:
        """The logarithm of the determinant of M."""

    def __call__(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return M^-1 r."""
        return self.backward_solve(self.forward_solve(r))

    def whiten(self, apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return L^-1 A L'^-1, of which the eigenvalues are near one.

        The logarithm of its determinant is that of A less :attr:`log_determinant`.
        """
        return lambda z: self.forward_solve(apply(self.backward_solve(z)))


class Jacobi(Preconditioner):
    """The diagonal of a matrix.

    Arguments:
        A: The matrix, with a positive diagonal.

    Raises:
        ValueError: If the diagonal is not positive.

    Example:
        >>> M = Jacobi(Sparse.diag(torch.tensor([2.0, 4.0], dtype=torch.float64)))
        >>> M(torch.ones(2, 1, dtype=torch.float64))[:, 0].tolist()
        [0.5, 0.25]
    """

    def __init__(self, A: Sparse) -> None:
        diagonal = A.diagonal().detach()
        _check("Jacobi", A)
        self.root = diagonal.sqrt()[:, None]

    def forward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return r / self.root

    def backward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return r / self.root

    def multiply(self, z: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return z * self.root

    @property
    def log_determinant(self) -> Float[Tensor, ""]:
        return 2 * self.root.log().sum()


class IncompleteCholesky(Preconditioner):
    r"""A Cholesky factor that keeps the places of the matrix: no fill.

    Where a pivot is not positive, which may be for a matrix that is not diagonally dominant, a
    multiple of the diagonal is added and it starts again: the first is a thousandth, and it
    doubles. It is kept in :attr:`shift`. It makes iterations more, not their answer another.

    References:
        | An incomplete factorization technique for positive definite linear systems (Manteuffel,
          1980)
        | https://doi.org/10.1090/S0025-5718-1980-0559197-0

    Arguments:
        A: The matrix, symmetric and positive definite, with both triangles.

    Raises:
        ValueError: If the diagonal is not positive.

    Example:
        >>> A = Sparse.diag(torch.tensor([4.0, 9.0], dtype=torch.float64))
        >>> IncompleteCholesky(A).forward_solve(torch.ones(2, 1).double())[:, 0].tolist()
        [0.5, 0.3333333333333333]
    """

    def __init__(self, A: Sparse) -> None:
        _check("IncompleteCholesky", A)
        self.lower, at = A.pattern.keep("lower", lambda: _lower(A.pattern))
        start = A.values.detach()[at].numpy()
        self.shift = 0.0
        values = self._factorise(start)
        while values is None:
            self.shift = 2 * self.shift or FIRST_SHIFT
            values = self._factorise(start)
        self.values = values

    def _factorise(self, start: np.ndarray) -> np.ndarray | None:
        values = start.copy()
        ends = self.lower.indptr[1:] - 1  # the diagonal comes last in each row
        values[ends] *= 1 + self.shift
        sound: bool = _incomplete(self.lower.indptr, self.lower.indices, values)
        return values if sound else None

    @cached_property
    def _upper(self) -> tuple[Pattern, np.ndarray]:
        pattern, order = self.lower.transpose
        return pattern, self.values[order.numpy()]

    def forward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        x = r.contiguous().numpy().copy()
        _forward(self.lower.indptr, self.lower.indices, self.values, x)
        return torch.as_tensor(x)

    def backward_solve(self, r: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        pattern, values = self._upper
        x = r.contiguous().numpy().copy()
        _backward(pattern.indptr, pattern.indices, values, x)
        return torch.as_tensor(x)

    def multiply(self, z: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return Sparse(self.lower, torch.as_tensor(self.values)) @ z

    @property
    def log_determinant(self) -> Float[Tensor, ""]:
        ends = self.lower.indptr[1:] - 1
        return 2 * torch.as_tensor(self.values[ends]).log().sum()


def _check(where: str, A: Sparse) -> None:
    least = A.diagonal().min()
    if not (least > 0 and A.values.isfinite().all()):
        msg = (
            f"{where}(A=...): expected a positive diagonal and finite values, got a diagonal from "
            f"{least:.3g}. Check the parameters of the prior."
        )
        raise ValueError(msg)


def _lower(pattern: Pattern) -> tuple[Pattern, Tensor]:
    """Return the pattern of the lower triangle, and where its entries are."""
    at = np.nonzero(pattern.indices <= pattern.rows)[0]
    counts = np.bincount(pattern.rows[at], minlength=pattern.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Pattern(indptr, pattern.indices[at], pattern.shape), torch.as_tensor(at)


@compiled
def _incomplete(ptr, col, a):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(ptr) - 1):
        for p in range(ptr[i], ptr[i + 1]):
            j, s = col[p], a[p]
            q, r = ptr[i], ptr[j]
            while q < p and r < ptr[j + 1] - 1:  # rows i and j, up to column j
                if col[q] == col[r]:
                    s -= a[q] * a[r]
                    q += 1
                    r += 1
                elif col[q] < col[r]:
                    q += 1
                else:
                    r += 1
            if j < i:
                a[p] = s / a[ptr[j + 1] - 1]
            else:
                if not s > 1e-8 * a[p]:
                    return False
                a[p] = np.sqrt(s)
    return True


@compiled
def _forward(ptr, col, a, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(ptr) - 1):
        end = ptr[i + 1] - 1
        for p in range(ptr[i], end):
            for c in range(x.shape[1]):
                x[i, c] -= a[p] * x[col[p], c]
        for c in range(x.shape[1]):
            x[i, c] /= a[end]


@compiled
def _backward(ptr, col, a, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(ptr) - 2, -1, -1):
        start = ptr[i]
        for p in range(start + 1, ptr[i + 1]):
            for c in range(x.shape[1]):
                x[i, c] -= a[p] * x[col[p], c]
        for c in range(x.shape[1]):
            x[i, c] /= a[start]
