r"""What an observation can do."""

from __future__ import annotations

__all__ = ["LinearObservation", "Noise", "Observation"]

import abc
import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from typing import ClassVar

from ..domain import Grid, Points
from ..linalg.slope import slope_of
from ..linalg.sparse import Sparse


class Observation(nn.Module, abc.ABC):
    r"""A law :math:`p(y \mid x)` for data :math:`y` given a state :math:`x`."""

    domain: Grid | Points

    @abc.abstractmethod
    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data without noise, :math:`H(x)`."""

    @abc.abstractmethod
    def sample(
        self, x: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        r"""Draws :math:`y \sim p(y \mid x)`."""

    @abc.abstractmethod
    def misfit(
        self, d: Float[Tensor, "*batch m"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`-\log p(y \mid H(x) = d) + \mathrm{cst}`, zero where ``d`` is ``y``."""

    def cost(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`J_o(x) = -\log p(y \mid x) + \mathrm{cst}`."""
        return self.misfit(self(x), y)

    def gradient(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\nabla J_o(x)`, in the type of ``x``.

        It is differentiable where gradients are on, in ``x`` and in the parameters. By default it
        is the derivative of :meth:`cost`: a loss behind it is then differentiated twice.
        """
        return slope_of(lambda v: self.cost(v, y), x, self.parameters())

    def select(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data that count, checked; gaps left out, where there are some."""
        return y

    def time_index(self) -> Int[Tensor, " m"]:
        r"""Returns at which time of the domain each datum is seen, counted from zero.

        Raises:
            TypeError: If the data are not those of single times.
        """
        msg = (
            f"{type(self).__name__}.time_index: expected data that are each of one time, got an "
            "observation of whole trajectories. Build it with the times of the data."
        )
        raise TypeError(msg)


class LinearObservation(Observation):
    r"""A linear view of the field at some points, :math:`y = H x + B b + \varepsilon`.

    The noise is :math:`\varepsilon \sim \mathcal{N}(0, R)` with :math:`R` diagonal. An instrument
    may have a bias: a random effect :math:`b_j \sim \mathcal{N}(0, \sigma_j^2)` shared by all its
    data through a column of :math:`B`, and estimated with the field.
    """

    points: Points
    pointwise: ClassVar[bool] = True
    """Whether the data are values of the field at :attr:`points`, rather than sums of them."""

    @property
    def count(self) -> int:
        r"""The number :math:`m` of data, gaps left out."""
        return len(self.points)

    def seen(self, field: Callable[[Points], Tensor]) -> Tensor:
        r"""Returns what the data see of a function of points, e.g. a mean, exactly."""
        return field(self.points)

    @abc.abstractmethod
    def matrix(self) -> Sparse:
        r"""Returns :math:`H`, with shape (m, n)."""

    @property
    @abc.abstractmethod
    def noise_variance(self) -> Float[Tensor, " m"]:
        r"""The diagonal of :math:`R`, in squared units of the field."""

    @abc.abstractmethod
    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`H^\top y`."""

    @property
    def bias_design(self) -> Float[Tensor, "m q"]:
        r"""The columns :math:`B`; none by default."""
        return torch.zeros(len(self.points), 0, dtype=torch.float64)

    @property
    def bias_variance(self) -> Float[Tensor, " q"]:
        r"""The variances of the biases, in squared units of the field."""
        return torch.zeros(0, dtype=torch.float64)

    def noise_precision(self) -> Sparse:
        r"""Returns :math:`R^{-1}`, with shape (m, m); infinite where there is no noise."""
        return Sparse.diag(1 / self.noise_variance)

    def noise_log_precision(self) -> Float[Tensor, ""]:
        r"""Returns :math:`\log |R^{-1}|`."""
        return -self.noise_variance.log().sum()

    def noise_times(self, v: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        r"""Returns :math:`R v`."""
        return self.noise_variance[:, None] * v

    def white_noise(
        self, size: tuple[int, ...], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        r"""Draws noise without biases, with shape ``(*size, m)``."""
        R = self.noise_variance
        return torch.randn(*size, len(R), dtype=R.dtype, generator=generator) * R.sqrt()

    @property
    def size(self) -> int:
        r"""The number of values that the data :math:`y` holds, gaps included."""
        return len(self.points)

    def take(
        self, index: Int[Tensor, " k"] | Bool[Tensor, " m"], domain: Grid | Points | None = None
    ) -> LinearObservation:
        r"""Returns the observation of some of the data, at the present noise.

        Arguments:
            index: Which data, in their present order.
            domain: The domain of the new observation, if it is another.
        """
        msg = (
            f"{type(self).__name__}.take: expected an observation at points, got another. "
            "Build a PointObservation of the data to keep."
        )
        raise TypeError(msg)

    def select(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data at :attr:`points`, checked: finite, and as many as there are."""
        where = type(self).__name__
        if y.shape[-1] != self.count:
            msg = (
                f"{where}(y=...): expected {self.count} values, one per datum, got "
                f"{y.shape[-1]}. Pass the values in the order of the points."
            )
            raise ValueError(msg)
        return _finite(where, y)

    def noise(
        self, size: tuple[int, ...], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        r"""Draws noise and biases, with shape ``(*size, m)``."""
        e, v = self.white_noise(size, generator), self.bias_variance
        b = torch.randn(*size, len(v), dtype=e.dtype, generator=generator) * v.sqrt()
        return e + b @ self.bias_design.mT

    def sample(
        self, x: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        y = self(x)
        return y + self.noise(tuple(y.shape[:-1]), generator)

    def time_index(self) -> Int[Tensor, " m"]:
        H = self.matrix()
        seen = H.values.detach() != 0
        rows, nodes = H.pattern.row_index[seen], H.pattern.column_index[seen]
        axis = self.domain.points.axis("time")
        times = self.domain.axes["time"] if isinstance(self.domain, Grid) else axis.unique()
        places = torch.searchsorted(times, axis.contiguous())[nodes]
        start = torch.full((H.shape[0],), -1)
        last = start.scatter_reduce(0, rows, places, "amax")
        first = start.scatter_reduce(0, rows, places, "amin", include_self=False)
        if (first != last).any():
            bad = int((first != last).sum())
            msg = (
                f"{type(self).__name__}.time_index: expected data at times of the domain, got "
                f"{bad} of {len(first)} between two of them. Add their times to the grid."
            )
            raise ValueError(msg)
        return first

    def misfit(
        self, d: Float[Tensor, "*batch m"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch"]:
        r = self.select(y) - d
        return (r * self._weigh_all(r)).sum(dim=-1) / 2

    def gradient(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`H^\top R^{-1} (H x - y)`, in the type of ``x``, differentiable.

        Biases count as noise that the data share.
        """
        r = self(x.to(torch.float64)) - self.select(y)
        return self.adjoint(self._weigh_all(r)).to(x.dtype)

    def _weigh_all(self, r: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        r"""Returns :math:`(R + B V B^\top)^{-1} r`, with the biases integrated out (Woodbury)."""
        w, B, v = self._weigh(r), self.bias_design, self.bias_variance
        if not len(v):
            return w
        RB = self._weigh(B.mT).mT
        A = torch.diag(1 / v) + B.mT @ RB
        return w - torch.linalg.solve(A, (w @ B)[..., None])[..., 0] @ RB.mT

    def _weigh(self, r: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        r"""Returns :math:`R^{-1} r`."""
        return r / self.noise_variance


def _finite(where: str, y: Tensor) -> Tensor:
    if y.dtype.is_complex or not y.dtype.is_floating_point:
        msg = f"{where}(y=...): expected floating-point values, got {y.dtype}. Use y.double()."
        raise ValueError(msg)
    if not y.isfinite().all():
        bad = int((~y.isfinite()).sum())
        msg = (
            f"{where}(y=...): expected finite values, got {bad} NaN or Inf among {y.numel()}. "
            "Drop those data, or mask them: missing data is geometry."
        )
        raise ValueError(msg)
    return y.to(torch.float64)


class Noise(nn.Module):
    r"""A standard deviation, one number or one per datum, whose scale may be learned.

    Arguments:
        std: The standard deviation, in the units of the field.
        size: The number of data.
        learn: Whether a fit may multiply ``std`` by a constant.
        batched: Whether ``std`` may differ between the members of a batch.

    Raises:
        ValueError: If ``std`` is negative, not finite, of another size, or learned from zero.

    Example:
        >>> Noise("PointObservation", "noise_std", 0.5, 3, learn=False).variance.tolist()
        [0.25, 0.25, 0.25]
    """

    std: Tensor

    def __init__(
        self,
        where: str,
        name: str,
        std: float | Tensor,
        size: int,
        learn: bool,
        batched: bool = False,
    ) -> None:
        super().__init__()
        std = torch.as_tensor(std, dtype=torch.float64)
        self.size = size
        problem = None
        if std.shape[-1:] not in {(), (size,)} or (std.ndim > 1 and not batched):
            problem = f"one number or {size} of them, got shape {tuple(std.shape)}. Match the data"
        elif not std.isfinite().all() or (std < 0).any():
            worst = std[~std.isfinite()] if not std.isfinite().all() else std
            problem = f"at least zero, got {worst.min().item()}. Drop those data or give a std"
        elif learn and not (std > 0).all():
            problem = "a positive start to learn from, got 0. Give a rough guess"
        if problem:
            msg = f"{where}({name}=...): expected {problem}."
            raise ValueError(msg)
        self.register_buffer("std", std)
        self.log_scale = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=learn)

    @property
    def variance(self) -> Float[Tensor, "*batch m"]:
        r"""The variance of each datum."""
        std = self.std.to(torch.float64) * self.log_scale.to(torch.float64).exp()
        return std.square().expand(*std.shape[:-1], self.size)
