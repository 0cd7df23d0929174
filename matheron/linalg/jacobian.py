r"""Sparse matrices of derivatives."""

from __future__ import annotations

__all__ = ["SparseJacobian"]

import numpy as np
import torch

from collections.abc import Callable
from jaxtyping import Bool, Float
from torch import Tensor

from .sparse import Pattern, Sparse

NUMBERS = 2_000_000
"""The numbers of the states whose derivatives are taken at once."""
ENTRIES = 25_000_000
"""The most entries of the dense matrix that the sparse one is read from."""


class SparseJacobian:
    r"""The derivative of a function of vectors, as a matrix whose pattern stays one object.

    The derivative is taken row by row in reverse mode, and its zeros are left out; a place that
    was seen once stays in the pattern. Time and memory are those of the dense matrix, for the
    moment that it takes to read it.

    Arguments:
        function: The function, of a batch of vectors, each by itself: (b, n) to (b, m).

    Raises:
        ValueError: If the dense matrix would be too large.

    Example:
        >>> slope = SparseJacobian(lambda x: x[..., :1] * x[..., 1:])
        >>> slope(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)).to_dense().tolist()
        [[3.0, 2.0, 0.0], [4.0, 0.0, 2.0]]
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self._seen: tuple[Bool[Tensor, "m n"], Pattern] | None = None

    def __call__(self, x: Float[Tensor, " n"]) -> Sparse:
        dense = self._rows(x.detach())
        seen, pattern = self._covering(dense, x)
        return Sparse(pattern, dense[seen])

    def _covering(self, dense: Tensor, x: Tensor) -> tuple[Bool[Tensor, "m n"], Pattern]:
        found = dense != 0
        if self._seen is None:  # elsewhere too: a slope may be zero here by chance
            z = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
            found |= self._rows(x.detach() + z) != 0
        else:
            if not (found & ~self._seen[0]).any():
                return self._seen
            found |= self._seen[0]
        ends = np.concatenate([[0], found.sum(dim=1).cumsum(dim=0).numpy()])
        columns = torch.nonzero(found)[:, 1].numpy()
        self._seen = found, Pattern(ends, columns, (found.shape[0], found.shape[1]))
        return self._seen

    def _rows(self, x: Float[Tensor, " n"]) -> Float[Tensor, "m n"]:
        n = len(x)
        with torch.no_grad():
            m = self.function(x[None]).shape[-1]
        if m * n > ENTRIES:
            msg = (
                f"SparseJacobian(function=...): expected at most {ENTRIES} derivatives, got {m} "
                f"of {n} numbers. Use a method that takes gradients alone."
            )
            raise ValueError(msg)
        blocks = torch.arange(m).split(max(1, NUMBERS // n))
        return torch.cat([self._block(x, rows, m) for rows in blocks])

    def _block(self, x: Tensor, rows: Tensor, m: int) -> Float[Tensor, "k n"]:
        unit = torch.zeros(len(rows), m, dtype=x.dtype)
        unit[torch.arange(len(rows)), rows] = 1.0
        with torch.enable_grad():
            many = x.expand(len(rows), -1).clone().requires_grad_()
            (slopes,) = torch.autograd.grad(self.function(many), many, unit)
        return slopes
