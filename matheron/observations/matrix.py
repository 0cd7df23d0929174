r"""Observations through a sparse matrix: averages over footprints, differences, swaths."""

from __future__ import annotations

__all__ = ["MatrixObservation"]

import numpy as np
import torch

from functools import cached_property
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import LinearObservation, Noise
from ..domain import Grid, Points
from ..linalg.cholesky import Cholesky
from ..linalg.sparse import Assembly, Sparse

LARGEST_BLOCK = 2000
"""The most data whose errors are correlated with each other: their block is inverted densely."""


class MatrixObservation(LinearObservation):
    r"""Sums of the nodes of the domain, :math:`y = H x + \varepsilon`, with a sparse :math:`H`.

    The noise is independent, or has a sparse covariance :math:`R` made of blocks: the errors of
    one swath, of one buoy.

    Arguments:
        domain: The domain of the state, with :math:`n` nodes.
        matrix: :math:`H`, with shape :math:`(m, n)`: a matrix of scipy, or :class:`Sparse`.
        noise_std: The standard deviation of the noise, with shape :math:`()` or :math:`(m)`.
        noise_covariance: :math:`R` instead, with shape :math:`(m, m)`.
        learn_noise: Whether a fit may scale ``noise_std``.

    Raises:
        ValueError: If shapes do not match, numbers are not finite, :math:`R` is not positive
            definite or has too large a block, or both or none of the noises are given.

    Example:
        >>> import scipy.sparse as sparse
        >>> grid = Grid(x=[0.0, 1.0, 2.0])
        >>> mean = sparse.csr_array([[0.5, 0.5, 0.0]])
        >>> seen = MatrixObservation(grid, mean, noise_std=0.1)
        >>> seen(torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)).tolist()
        [2.0]
    """

    pointwise: ClassVar[bool] = False

    def __init__(
        self,
        domain: Grid | Points,
        matrix: Any,
        noise_std: float | Tensor | None = None,
        noise_covariance: Any = None,
        learn_noise: bool = False,
    ) -> None:
        super().__init__()
        self.domain = domain
        self._H = _checked("matrix", matrix, (None, len(domain)))
        if (noise_std is None) == (noise_covariance is None):
            msg = (
                "MatrixObservation(noise_std=..., noise_covariance=...): expected one of them, "
                f"got {'none' if noise_std is None else 'both'}. Give noise_std=0.1, say."
            )
            raise ValueError(msg)
        where, m = type(self).__name__, self._H.shape[0]
        self._R = self._blocks = None
        if noise_covariance is not None:
            self._R = _checked("noise_covariance", noise_covariance, (m, m))
            self._blocks = _inverse(self._R)
            noise_std = self._R.diagonal().clamp(min=0).sqrt()
        assert noise_std is not None
        self.error = Noise(where, "noise_std", noise_std, m, learn_noise and self._R is None)

    @property
    def points(self) -> Points:  # type: ignore[override]
        r"""There are none: solvers that ask for points are told so."""
        msg = (
            "MatrixObservation: expected a solver that takes any matrix H, got one that asks for "
            "the points of the data. Use SparseCholesky() with a Markov prior."
        )
        raise TypeError(msg)

    @property
    def count(self) -> int:
        return self._H.shape[0]

    @property
    def size(self) -> int:
        return self.count

    def seen(self, field: Any) -> Tensor:
        r"""Returns what the data see of a function of points, through the nodes."""
        return self._H @ field(self.domain.points)

    def matrix(self) -> Sparse:
        return self._H

    @property
    def noise_variance(self) -> Float[Tensor, " m"]:
        return self.error.variance

    @property
    def bias_design(self) -> Float[Tensor, "m q"]:
        return torch.zeros(self.count, 0, dtype=torch.float64)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        flat = x.reshape(-1, x.shape[-1]).mT
        return (self._H @ flat).mT.reshape(*x.shape[:-1], self.count)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        flat = y.reshape(-1, y.shape[-1]).mT
        return (self._H.T @ flat).mT.reshape(*y.shape[:-1], len(self.domain))

    @cached_property
    def _factor(self) -> Cholesky:
        assert self._blocks is not None
        return Cholesky(self._blocks, where="MatrixObservation(noise_covariance=...)")

    def noise_precision(self) -> Sparse:
        return super().noise_precision() if self._blocks is None else self._blocks

    def noise_log_precision(self) -> Float[Tensor, ""]:
        return super().noise_log_precision() if self._R is None else self._factor.logdet()

    def noise_times(self, v: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        return super().noise_times(v) if self._R is None else self._R @ v

    def white_noise(
        self, size: tuple[int, ...], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        r"""Draws the noise, correlated where :math:`R` says so."""
        if self._R is None:
            return super().white_noise(size, generator)
        z = torch.randn(*size, self.count, dtype=torch.float64, generator=generator)
        flat = z.reshape(-1, self.count).mT.contiguous()
        return self._factor.sqrt_solve(flat).mT.reshape(z.shape)

    def _weigh(self, r: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        if self._blocks is None:
            return super()._weigh(r)
        return (self._blocks @ r.reshape(-1, self.count).mT).mT.reshape(r.shape)


def _checked(name: str, matrix: Any, shape: tuple[int | None, int]) -> Sparse:
    found = matrix if isinstance(matrix, Sparse) else Sparse.from_scipy(matrix)
    rows = shape[0] if shape[0] is not None else found.shape[0]
    if found.shape != (rows, shape[1]) or rows == 0:
        msg = (
            f"MatrixObservation({name}=...): expected shape ({shape[0] or 'm'}, {shape[1]}), got "
            f"{found.shape}. Give a row per datum and a column per node."
        )
        raise ValueError(msg)
    if not found.values.isfinite().all():
        msg = (
            f"MatrixObservation({name}=...): expected finite numbers, got "
            f"{int((~found.values.isfinite()).sum())} NaN or Inf. Drop those data."
        )
        raise ValueError(msg)
    return found.detach()


def _inverse(R: Sparse) -> Sparse:
    r"""Returns the inverse of a block matrix, whatever the order of its rows."""
    count, label = connected_components(R.to_scipy(), directed=False)
    order, sizes = np.argsort(label, kind="stable"), np.bincount(label, minlength=count)
    if sizes.max() > LARGEST_BLOCK:
        msg = (
            f"MatrixObservation(noise_covariance=...): expected blocks of at most {LARGEST_BLOCK} "
            f"data, got one of {sizes.max()}. Give the correlated part as a bias or as a field."
        )
        raise ValueError(msg)
    members = torch.as_tensor(order).split(sizes.tolist())
    places = torch.cat([torch.cartesian_prod(i, i) for i in members])
    values = torch.cat([_inverted(R.take(i, i).to_dense()).reshape(-1) for i in members])
    rows, columns = places.numpy().T
    return Assembly(rows, columns, R.shape)(values)


def _inverted(block: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    factor, bad = torch.linalg.cholesky_ex((block + block.mT) / 2)
    if bad or (block - block.mT).abs().max() > 1e-9 * block.abs().max():
        msg = (
            "MatrixObservation(noise_covariance=...): expected a symmetric positive definite "
            "matrix, got one that is not. Check the correlations."
        )
        raise ValueError(msg)
    return torch.cholesky_inverse(factor)
