r"""From free numbers to the parameters of an equation: positive, a vector, a diffusivity."""

from __future__ import annotations

__all__ = ["Link", "matrix_exponential"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from ...kernels.base import positive


def matrix_exponential(a: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    r"""Returns :math:`e^A` of symmetric matrices: positive definite, whatever :math:`A`.

    In two dimensions, with :math:`A = \mu I + S` and :math:`S` of zero trace,
    :math:`e^A = e^\mu (\cosh r \, I + \sinh r / r \, S)` where :math:`r^2 = -\det S`.

    Example:
        >>> matrix_exponential(torch.zeros(2, 2, dtype=torch.float64)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if a.shape[-1] == 1:
        return a.exp()
    if a.shape[-1] > 2:
        return torch.linalg.matrix_exp(a)
    eye = torch.eye(2, dtype=a.dtype)
    mu = (a[..., 0, 0] + a[..., 1, 1])[..., None, None] / 2
    S = a - mu * eye
    cosh, ratio = _hyperbolic((S[..., 0, 0].square() + S[..., 0, 1].square())[..., None, None])
    return mu.exp() * (cosh * eye + ratio * S)


def _hyperbolic(q: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\cosh \sqrt q` and :math:`\sinh \sqrt q / \sqrt q`, smooth at zero."""
    small = q < 1e-4
    r = torch.where(small, 1.0, q).sqrt()
    t = torch.where(small, q, 0.0)
    cosh = torch.where(small, 1 + t / 2 * (1 + t / 12 * (1 + t / 30)), r.cosh())
    ratio = torch.where(small, 1 + t / 6 * (1 + t / 20 * (1 + t / 42)), r.sinh() / r)
    return cosh, ratio


class Link(nn.Module):
    r"""A smooth map from free numbers to values: any number gives a value that is allowed.

    A single number is positive: the exponential. A vector is free: a multiple of ``scale``. A
    matrix is symmetric positive definite, along any axes: the exponential of a symmetric matrix.

    Arguments:
        shape: The shape of a value: :math:`()`, :math:`(d)` or :math:`(d, d)`.
        scale: What a vector is counted in, so that its free numbers are of order one.

    Raises:
        ValueError: If the shape is another, or ``scale`` is not positive.

    Example:
        >>> link = Link((2, 2))
        >>> link(torch.zeros(5, 3, dtype=torch.float64)).shape
        torch.Size([5, 2, 2])
    """

    scale: Tensor

    def __init__(self, shape: Sequence[int] = (), scale: float = 1.0) -> None:
        super().__init__()
        self.shape = tuple(shape)
        square = len(self.shape) < 2 or self.shape[0] == self.shape[1]
        if len(self.shape) > 2 or not square or any(d < 1 for d in self.shape):
            msg = (
                f"ParameterField(shape=...): expected (), (d,) or (d, d), got {self.shape}. "
                "Give the shape of one value."
            )
            raise ValueError(msg)
        self.register_buffer("scale", positive("ParameterField", "scale", scale))

    @property
    def size(self) -> int:
        r"""The count of free numbers of a value."""
        if len(self.shape) < 2:
            return self.shape[0] if self.shape else 1
        return self.shape[0] * (self.shape[0] + 1) // 2

    @property
    def _triangle(self) -> Tensor:
        return torch.triu_indices(self.shape[0], self.shape[0])

    def forward(self, free: Float[Tensor, "m k"]) -> Tensor:
        r"""Returns the values, with shape :math:`(m)`, :math:`(m, d)` or :math:`(m, d, d)`."""
        free = free.double()  # matrices are, whatever the parameters
        if not self.shape:
            return free[:, 0].exp()
        if len(self.shape) == 1:
            return free * self.scale
        i, j = self._triangle
        half = free.new_zeros(len(free), *self.shape).index_put(
            (torch.arange(len(free))[:, None], i, j), free * torch.where(i == j, 0.5, 1.0)
        )
        return matrix_exponential(half + half.mT)

    def inverse(self, value: Tensor) -> Float[Tensor, "m k"]:
        r"""Returns the free numbers of values that are allowed.

        Raises:
            ValueError: If a number is not positive, or a matrix not positive definite.
        """
        if not self.shape:
            return positive("ParameterField", "value", value).log()[:, None]
        if len(self.shape) == 1:
            return value / self.scale
        levels, axes = torch.linalg.eigh(value)
        if not torch.allclose(value, value.mT) or not (levels > 0).all():
            msg = (
                "ParameterField(value=...): expected symmetric positive definite matrices, got "
                f"one with least eigenvalue {levels.min():.3g}. Check the diffusivity."
            )
            raise ValueError(msg)
        i, j = self._triangle
        return ((axes * levels.log()[..., None, :]) @ axes.mT)[:, i, j]

    def start(
        self, value: float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None
    ) -> Float[Tensor, " k"]:
        r"""Returns the free numbers of a constant: by default 1, no velocity, the identity."""
        d = len(self.shape)
        if value is None:
            value = 0.0 if d == 1 else 1.0
        v = torch.as_tensor(value, dtype=torch.float64)
        if v.ndim == 0 and d == 2:
            v = v * torch.eye(self.shape[0], dtype=torch.float64)
        if v.ndim == 0 and d == 1:
            v = v.expand(self.shape)
        if v.shape != self.shape or not v.isfinite().all():
            msg = (
                f"ParameterField(value=...): expected finite numbers of shape {self.shape}, got "
                f"{v.tolist()}. Give one value, where the field starts."
            )
            raise ValueError(msg)
        return self.inverse(v[None])[0]
