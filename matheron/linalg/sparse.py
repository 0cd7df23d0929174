"""Sparse matrices whose structure is fixed and whose values carry a gradient.

The structure is worked out once: products, sums and transposes of two patterns are remembered by
them, so that matrices of the same pattern share all symbolic work, and a sparse factor too.
"""

from __future__ import annotations

__all__ = ["Assembly", "Pattern", "Sparse"]

import numpy as np
import scipy.sparse as sparse
import torch

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing import Any, TypeVar

from .compiled import compiled
from .merging import apply_columns, beside, union
from .threads import chunked, in_threads

T = TypeVar("T")
FEW = 4
"""Columns from which a product is worth our own loop."""
MOST = 32
"""The most things that a pattern keeps of itself with others: data that move are always others."""


class Pattern:
    """The places of the entries of a sparse matrix: compressed rows, columns sorted.

    Two patterns are the same if they are one object: what is worked out for one is kept on it.

    Arguments:
        indptr: Where each row begins, with shape (rows + 1).
        indices: The column of each entry, increasing within a row.
        shape: The numbers of rows and columns.

    Example:
        >>> Pattern(np.array([0, 1, 2]), np.array([0, 1]), (2, 2)).nnz
        2
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> None:
        self.indptr = np.ascontiguousarray(indptr, dtype=np.int64)
        self.indices = np.ascontiguousarray(indices, dtype=np.int64)
        self.shape = shape
        self._kept: dict[Hashable, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Pattern:
        return self  # nothing of it changes

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return len(self.indices)

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @cached_property
    def row_index(self) -> Int[Tensor, " nnz"]:
        """The row of each entry, as a tensor."""
        return torch.as_tensor(self.rows)

    @cached_property
    def column_index(self) -> Int[Tensor, " nnz"]:
        """The column of each entry, as a tensor."""
        return torch.as_tensor(self.indices)

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was worked out for this pattern under a key, or work it out.

        Of what it shares with other patterns, under keys that are tuples, the last ones are kept.
        """
        found: T = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = found
        shared = [k for k in self._kept if isinstance(k, tuple)]
        if len(shared) > MOST:
            del self._kept[shared[0]]
        return found

    @property
    def transpose(self) -> tuple[Pattern, Int[Tensor, " nnz"]]:
        """The pattern of the transpose, and where each of its entries is in this one."""
        return self.keep("transpose", self._transpose)

    def _transpose(self) -> tuple[Pattern, Int[Tensor, " nnz"]]:
        order = _grouped(self.indices, self.shape[1])
        counts = np.bincount(self.indices, minlength=self.shape[1])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        turned = Pattern(indptr, self.rows[order], (self.shape[1], self.shape[0]))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        turned._kept["transpose"] = (self, torch.as_tensor(back))
        return turned, torch.as_tensor(order)

    def find(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the positions of entries that are in the pattern."""
        keys = self.rows * self.shape[1] + self.indices
        return np.searchsorted(keys, rows * self.shape[1] + columns)

    def scipy(self, values: np.ndarray) -> sparse.csr_array:
        """Return a matrix of scipy, sharing the structure."""
        matrix = sparse.csr_array((values, self.indices, self.indptr), shape=self.shape)
        matrix.has_sorted_indices = True
        return matrix


def _grouped(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the stable order of some labels from 0 to ``count - 1``, in linear time."""
    every = np.arange(len(labels))
    shape = (count, len(labels))
    return sparse.csr_array((every, (labels, every)), shape=shape).indices


class Assembly:
    """A fixed list of entries, repeated ones to be summed: how a matrix is put together.

    Arguments:
        rows: The row of each contribution.
        columns: The column of each contribution.
        shape: The numbers of rows and columns.

    Example:
        >>> twice = Assembly(np.array([0, 0]), np.array([0, 0]), (1, 1))
        >>> twice(torch.tensor([1.0, 2.0], dtype=torch.float64)).to_dense().item()
        3.0
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> None:
        rows, columns = (np.asarray(v, dtype=np.int64).reshape(-1) for v in (rows, columns))
        order = _grouped(columns, shape[1])
        order = order[_grouped(rows[order], shape[0])]
        rows, columns = rows[order], columns[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0)
        slots = np.empty(len(order), dtype=np.int64)
        slots[order] = np.cumsum(new) - 1
        counts = np.bincount(rows[new], minlength=shape[0])
        self.pattern = Pattern(np.concatenate([[0], np.cumsum(counts)]), columns[new], shape)
        self.slots = torch.as_tensor(slots)

    def __deepcopy__(self, memo: dict[int, Any]) -> Assembly:
        return self  # nothing of it changes

    def __call__(self, values: Float[Tensor, " k"]) -> Sparse:
        total = values.new_zeros(self.pattern.nnz).index_add(0, self.slots, values)
        return Sparse(self.pattern, total)


class Sparse:
    """A sparse matrix, differentiable in its values.

    Arguments:
        pattern: The places of the entries.
        values: The entries, in the order of the pattern, in float64.

    Example:
        >>> A = Sparse.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
        >>> (A @ torch.ones(2, dtype=torch.float64)).tolist()
        [1.0, 2.0]
    """

    def __init__(self, pattern: Pattern, values: Float[Tensor, " nnz"]) -> None:
        self.pattern, self.values = pattern, values

    @classmethod
    def from_scipy(cls, matrix: Any) -> Sparse:
        """Return a copy of a matrix of scipy."""
        csr = sparse.csr_array(matrix, copy=True)
        csr.sum_duplicates()
        pattern = Pattern(csr.indptr, csr.indices, (csr.shape[0], csr.shape[1]))
        return cls(pattern, torch.as_tensor(csr.data, dtype=torch.float64))

    @classmethod
    def diag(cls, values: Float[Tensor, " n"]) -> Sparse:
        """Return a diagonal matrix."""
        n = len(values)
        if n not in _DIAGONALS:
            _DIAGONALS[n] = Pattern(np.arange(n + 1), np.arange(n), (n, n))
        return cls(_DIAGONALS[n], values)

    @classmethod
    def block(cls, blocks: Sequence[Sequence[Sparse | None]]) -> Sparse:
        """Return the matrix of some blocks; ``None`` is a block of zeros.

        Every row and every column of blocks holds at least one that is not ``None``.
        """
        parts = [(i, j, b) for i, row in enumerate(blocks) for j, b in enumerate(row) if b]
        key = ("block", *((i, j, b.pattern) for i, j, b in parts))
        whole = parts[0][2].pattern.keep(key, lambda: _Blocks(parts))
        values = torch.cat([b.values for _, _, b in parts])
        return cls(whole.pattern, values.index_select(0, whole.source))

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.pattern.shape

    @property
    def T(self) -> Sparse:
        """The transpose."""
        pattern, order = self.pattern.transpose
        return Sparse(pattern, self.values[order])

    def detach(self) -> Sparse:
        """Return the matrix without its gradient."""
        return Sparse(self.pattern, self.values.detach())

    def to_scipy(self) -> sparse.csr_array:
        """Return a matrix of scipy, without gradient."""
        return self.pattern.scipy(self.values.detach().numpy())

    def to_dense(self) -> Float[Tensor, "n m"]:
        """Return the dense matrix."""
        index = (self.pattern.row_index, self.pattern.column_index)
        return self.values.new_zeros(self.shape).index_put(index, self.values)

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return the diagonal, zero where there is no entry."""
        at, rows = self.pattern.keep("diagonal", self._diagonal_places)
        return self.values.new_zeros(min(self.shape)).index_add(0, rows, self.values[at])

    def _diagonal_places(self) -> tuple[Tensor, Tensor]:
        at = np.nonzero(self.pattern.rows == self.pattern.indices)[0]
        return torch.as_tensor(at), torch.as_tensor(self.pattern.rows[at])

    def __matmul__(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*m"]:
        y: Tensor = _Apply.apply(self.values, x, self.pattern)
        return y

    def __mul__(self, number: float | Tensor) -> Sparse:
        return Sparse(self.pattern, self.values * number)

    __rmul__ = __mul__

    def __neg__(self) -> Sparse:
        return Sparse(self.pattern, -self.values)

    def __sub__(self, other: Sparse) -> Sparse:
        return self + -other

    def __add__(self, other: Sparse) -> Sparse:
        if self.pattern is other.pattern:
            return Sparse(self.pattern, self.values + other.values)
        both = self._union(other.pattern)
        values = both.wider(self.values).index_add(0, both.second, other.values)
        return Sparse(both.pattern, values)

    def _union(self, other: Pattern) -> _Union:
        return self.pattern.keep(("union", other), lambda: _Union(self.pattern, other))

    def scale(
        self, rows: Float[Tensor, " n"] | None = None, columns: Float[Tensor, " m"] | None = None
    ) -> Sparse:
        """Return diag(rows) A diag(columns)."""
        values = self.values
        values = values if rows is None else values * rows[self.pattern.row_index]
        values = values if columns is None else values * columns[self.pattern.column_index]
        return Sparse(self.pattern, values)

    def product(self, other: Sparse) -> Sparse:
        """Return the product with another sparse matrix."""
        a, b = self.pattern, other.pattern
        pattern = a.keep(("product", b), lambda: _product_pattern(a, b))
        return Sparse(pattern, _Product.apply(self.values, other.values, a, b, pattern))

    def gram(self, weights: Float[Tensor, " n"] | None = None) -> Sparse:
        """Return A' diag(weights) A."""
        return self.T.product(self if weights is None else self.scale(rows=weights))

    def structure(self, other: Pattern) -> Sparse:
        """Return the matrix with the places of another pattern too, where it is zero."""
        both = self._union(other)
        return Sparse(both.pattern, both.wider(self.values))

    def sandwich(self, A: Sparse) -> Float[Tensor, " m"]:
        """Return the diagonal of A Z A', reading the entries of this Z that are in its pattern.

        Without gradient.
        """
        AZ = _sampled_product(A.pattern, A.values, self.pattern, self.values, A.pattern)
        total = A.values.new_zeros(A.shape[0])
        return total.index_add(0, A.pattern.row_index, AZ * A.values.detach())

    def take(self, rows: Int[Tensor, " r"], columns: Int[Tensor, " c"]) -> Sparse:
        """Return the block of some rows and columns, in their order."""
        place = np.arange(self.pattern.nnz, dtype=np.float64) + 1  # scipy drops explicit zeros
        csr = self.pattern.scipy(place)[rows.numpy()][:, columns.numpy()]
        csr.sort_indices()
        pattern = Pattern(csr.indptr, csr.indices, (len(rows), len(columns)))
        return Sparse(pattern, self.values[torch.as_tensor(csr.data).long() - 1])

    def quadratic(self, x: Float[Tensor, "n c"]) -> Float[Tensor, " c"]:
        """Return x' A x for each column of x."""
        return (x * (self @ x)).sum(dim=0)


_DIAGONALS: dict[int, Pattern] = {}


class _Union:
    """A sum of two patterns."""

    def __init__(self, a: Pattern, b: Pattern) -> None:
        rows, first, second = union((a.indptr, a.indices), (b.indptr, b.indices))
        # where nothing is new, what is known of the pattern holds
        self.pattern = a if first is None else Pattern(*rows, a.shape)
        self.first = None if first is None else torch.as_tensor(first)
        self.second = torch.as_tensor(second)

    def wider(self, values: Tensor) -> Tensor:
        """Return the values of the first matrix on the union, zero where it has none."""
        if self.first is None:
            return values
        return values.new_zeros(self.pattern.nnz).index_copy(0, self.first, values)


class _Blocks:
    """A matrix of blocks."""

    def __init__(self, parts: Sequence[tuple[int, int, Sparse]]) -> None:
        heights = {i: b.shape[0] for i, _, b in parts}
        widths = {j: b.shape[1] for _, j, b in parts}
        top = np.concatenate([[0], np.cumsum([heights[i] for i in sorted(heights)])])
        left = np.concatenate([[0], np.cumsum([widths[j] for j in sorted(widths)])])
        rows = lambda p: (p.indptr, p.indices)
        placed = [(int(top[i]), int(left[j]), rows(b.pattern)) for i, j, b in parts]
        indptr, indices, source = beside(placed, int(top[-1]))
        self.pattern = Pattern(indptr, indices, (int(top[-1]), int(left[-1])))
        self.source = torch.as_tensor(source)


def _product_pattern(a: Pattern, b: Pattern) -> Pattern:
    if a.shape[1] != b.shape[0]:
        msg = (
            f"Sparse.product(other=...): expected {a.shape[1]} rows, got {b.shape[0]}. "
            "Transpose it."
        )
        raise ValueError(msg)
    found = sparse.csr_array(a.scipy(np.ones(a.nnz)) @ b.scipy(np.ones(b.nnz)))
    found.sort_indices()
    return Pattern(found.indptr, found.indices, (a.shape[0], b.shape[1]))


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, x)
        ctx.pattern = pattern
        return _applied(pattern, values, x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        if ctx.needs_input_grad[0]:
            return _apply_backward(ctx, g)
        values, _ = ctx.saved_tensors
        turned, order = ctx.pattern.transpose
        return None, _Apply.apply(values[order], g, turned), None


@once_differentiable
def _apply_backward(ctx: Any, g: Tensor) -> Any:
    values, x = ctx.saved_tensors
    for_x = None
    if ctx.needs_input_grad[1]:
        turned, order = ctx.pattern.transpose
        for_x = _applied(turned, values[order], g)
    return outer_entries(ctx.pattern, g, x), for_x, None


def _applied(pattern: Pattern, values: Tensor, x: Tensor) -> Tensor:
    v, columns = values.detach().numpy(), x.detach().numpy()
    if columns.ndim != 2 or columns.shape[1] < FEW:
        return torch.as_tensor(pattern.scipy(v) @ columns)
    columns = np.ascontiguousarray(columns)
    return torch.as_tensor(apply_columns((pattern.indptr, pattern.indices), v, columns))


def outer_entries(pattern: Pattern, a: Tensor, b: Tensor) -> Float[Tensor, " nnz"]:
    """Return the entries of a b' on a pattern, summed over columns."""
    a2 = np.ascontiguousarray(a.detach().reshape(len(a), -1).numpy())
    b2 = np.ascontiguousarray(b.detach().reshape(len(b), -1).numpy())
    out = np.empty(pattern.nnz)
    runs = chunked(pattern.shape[0])
    work = lambda k: _outer(*runs[k], pattern.indptr, pattern.indices, a2, b2, out)
    in_threads(work, len(runs))
    return torch.as_tensor(out)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, pa: Pattern, pb: Pattern, pc: Pattern) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.patterns = (pa, pb, pc)
        return _sampled_product(pa, a, pb, b, pc)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        a, b = ctx.saved_tensors
        pa, pb, pc = ctx.patterns
        for_a = for_b = None
        if ctx.needs_input_grad[0]:
            turned, order = pb.transpose
            for_a = _sampled_product(pc, g, turned, b[order], pa)
        if ctx.needs_input_grad[1]:
            turned, order = pa.transpose
            for_b = _sampled_product(turned, a[order], pc, g, pb)
        return for_a, for_b, None, None, None


def _sampled_product(pa: Pattern, a: Tensor, pb: Pattern, b: Tensor, pc: Pattern) -> Tensor:
    """Return the entries of a product that are on a pattern."""
    out = np.empty(pc.nnz)
    av, bv = a.detach().contiguous().numpy(), b.detach().contiguous().numpy()
    runs = chunked(pc.shape[0])

    def work(k: int) -> None:
        _sample(
            *runs[k], pa.indptr, pa.indices, av, pb.indptr, pb.indices, bv,
            pc.indptr, pc.indices, pc.shape[1], out,
        )  # fmt: skip

    in_threads(work, len(runs))
    return torch.as_tensor(out)


@compiled
def _sample(lo, hi, aptr, acol, a, bptr, bcol, b, cptr, ccol, width, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    slot = np.full(width, -1)
    for i in range(lo, hi):
        for p in range(cptr[i], cptr[i + 1]):
            slot[ccol[p]] = p
            out[p] = 0.0
        for q in range(aptr[i], aptr[i + 1]):
            k = acol[q]
            for r in range(bptr[k], bptr[k + 1]):
                p = slot[bcol[r]]
                if p >= 0:
                    out[p] += a[q] * b[r]
        for p in range(cptr[i], cptr[i + 1]):
            slot[ccol[p]] = -1


@compiled
def _outer(lo, hi, ptr, col, a, b, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(lo, hi):
        for p in range(ptr[i], ptr[i + 1]):
            j, s = col[p], 0.0
            for c in range(a.shape[1]):
                s += a[i, c] * b[j, c]
            out[p] = s
