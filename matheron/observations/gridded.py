r"""Observations of a whole grid with gaps: clouds, swath edges, land."""

from __future__ import annotations

__all__ = ["GriddedObservation"]

import torch

from jaxtyping import Bool, Float
from torch import Tensor

from .base import LinearObservation, Noise, _finite
from ..domain import Grid, Points
from ..linalg.sparse import Pattern, Sparse


class GriddedObservation(LinearObservation):
    r"""A gridded field with gaps, :math:`y = x + \varepsilon` where the mask is true.

    Data keep the shape of the state, :math:`(*, n)`; what stands under the gaps is never read,
    neither of the data nor of the noise. The mask and the noise may differ between the members of
    a batch.

    Arguments:
        grid: The grid of the state, with :math:`n` nodes.
        mask: Where the field is seen, with shape :math:`(*, n)`.
        noise_std: The standard deviation of the noise, with shape :math:`()`, :math:`(n)` or, with
            the batch of the mask, :math:`(*, n)`.
        learn_noise: Whether a fit may scale ``noise_std``.

    Raises:
        ValueError: If the mask is of another size, or sees nothing.

    Example:
        >>> grid = Grid(x=[0.0, 1.0, 2.0])
        >>> seen = GriddedObservation(grid, torch.tensor([True, False, True]), noise_std=0.1)
        >>> seen(torch.ones(3, dtype=torch.float64)).tolist()
        [1.0, 0.0, 1.0]
    """

    mask: Tensor

    def __init__(
        self,
        grid: Grid,
        mask: Bool[Tensor, "*batch n"],
        noise_std: float | Tensor,
        learn_noise: bool = False,
    ) -> None:
        super().__init__()
        if mask.dtype != torch.bool or mask.shape[-1] != len(grid):
            msg = (
                f"GriddedObservation(mask=...): expected {len(grid)} booleans per member, got "
                f"{mask.dtype} of shape {tuple(mask.shape)}. Flatten it with grid.flatten(mask)."
            )
            raise ValueError(msg)
        if not mask.any(dim=-1).all():
            msg = (
                "GriddedObservation(mask=...): expected some data in every member, got a mask "
                "that is False everywhere. Drop that member."
            )
            raise ValueError(msg)
        self.domain = grid
        self.register_buffer("mask", mask)
        std = self._spread(torch.as_tensor(noise_std, dtype=torch.float64))
        where, batched = type(self).__name__, std.ndim > 1
        self.error = Noise(where, "noise_std", std, len(grid), learn_noise, batched)

    def _spread(self, std: Tensor) -> Tensor:
        r"""Returns the noise with ones under the gaps, where it is not one number."""
        if std.ndim == 0 or std.shape[-1] != self.size:
            return std
        if std.ndim > 1 and std.shape != self.mask.shape:
            msg = (
                f"GriddedObservation(noise_std=...): expected one number, {self.size} of them, or "
                f"the shape of the mask {tuple(self.mask.shape)}, got {tuple(std.shape)}. Match "
                "the mask."
            )
            raise ValueError(msg)
        return torch.where(self.mask, std, 1.0)

    def _single(self) -> Bool[Tensor, " n"]:
        if self.mask.ndim > 1:
            msg = (
                f"GriddedObservation(mask=...): expected one mask for this solver, got a batch of "
                f"shape {tuple(self.mask.shape)}. Condition each member in turn."
            )
            raise ValueError(msg)
        return self.mask

    @property
    def points(self) -> Points:  # type: ignore[override]
        r"""The nodes that are seen."""
        return self.domain.points[self._single()]

    def matrix(self) -> Sparse:
        nodes = torch.nonzero(self._single())[:, 0]
        pattern = Pattern(
            torch.arange(len(nodes) + 1).numpy(), nodes.numpy(), (len(nodes), self.size)
        )
        return Sparse(pattern, torch.ones(len(nodes), dtype=torch.float64))

    @property
    def noise_variance(self) -> Float[Tensor, " m"]:
        return self.error.variance[self._single()]

    @property
    def size(self) -> int:
        return len(self.domain)

    def select(self, y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data where the mask is true, checked."""
        if y.shape[-1] != len(self.domain):
            msg = (
                f"GriddedObservation(y=...): expected {len(self.domain)} values, one per node, "
                f"got {y.shape[-1]}. Pass the flat state; gaps may hold anything."
            )
            raise ValueError(msg)
        return _finite(type(self).__name__, y[..., self._single()])

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return torch.where(self.mask, x, 0)

    def adjoint(self, y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return torch.where(self.mask, y, 0)

    def sample(
        self, x: Float[Tensor, "*batch n"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        e = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        return self(x + self.error.variance.sqrt() * e)

    def misfit(
        self, d: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]
    ) -> Float[Tensor, "*batch"]:
        r = torch.where(self.mask, y - d, 0)
        return (r.square() / self.error.variance).sum(dim=-1) / 2

    def gradient(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch n"]
    ) -> Float[Tensor, "*batch n"]:
        r = torch.where(self.mask, x.to(torch.float64) - y, 0)
        return (r / self.error.variance).to(x.dtype)
