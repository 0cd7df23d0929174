r"""Several instruments at once."""

from __future__ import annotations

__all__ = ["Stack"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from typing import cast

from .base import LinearObservation
from ..domain import Grid, Points
from ..linalg.sparse import Sparse


class Stack(LinearObservation):
    r"""Several observations of one field, each with its own noise and, perhaps, its own bias.

    Data are those of the parts, one after the other.

    Arguments:
        parts: The observations, on the same domain.

    Raises:
        ValueError: If there is no part, or if the parts live on different domains.

    Example:
        >>> from matheron.domain import Grid
        >>> from matheron.observations import PointObservation
        >>> grid = Grid(x=[0.0, 1.0])
        >>> buoy = PointObservation(grid, Points(x=[0.0]), noise_std=0.1)
        >>> drifter = PointObservation(grid, Points(x=[0.5, 1.0]), noise_std=0.2, bias_std=0.5)
        >>> Stack(buoy, drifter).noise_variance.round(decimals=6).tolist()
        [0.01, 0.04, 0.04]
    """

    def __init__(self, *parts: LinearObservation) -> None:
        super().__init__()
        if not parts or any(p.domain is not parts[0].domain for p in parts):
            msg = (
                f"Stack(parts=...): expected observations on one and the same domain, got "
                f"{len(parts)} on {len({id(p.domain) for p in parts})}. Build them on one grid."
            )
            raise ValueError(msg)
        if not all(p.pointwise for p in parts):
            msg = (
                "Stack(parts=...): expected observations at points, got one through a matrix. "
                "Stack the matrices, and pass one MatrixObservation."
            )
            raise TypeError(msg)
        self.parts = cast(Sequence[LinearObservation], nn.ModuleList(parts))
        self.domain = parts[0].domain
        self.points = Points.join(*(p.points for p in parts))

    @property
    def size(self) -> int:
        return sum(p.size for p in self.parts)

    def _split(self, y: Float[Tensor, "*batch k"]) -> list[tuple[LinearObservation, Tensor]]:
        if y.shape[-1] != self.size:
            msg = (
                f"Stack(y=...): expected {self.size} values, those of its parts in turn, got "
                f"{y.shape[-1]}. Concatenate the data of the parts."
            )
            raise ValueError(msg)
        values = y.split([p.size for p in self.parts], dim=-1)
        return list(zip(self.parts, values, strict=True))

    def select(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m"]:
        return torch.cat([p.select(v) for p, v in self._split(y)], dim=-1)

    def take(
        self, index: Int[Tensor, " k"] | Bool[Tensor, " m"], domain: Grid | Points | None = None
    ) -> Stack:
        r"""Returns the observation of some of the points, at the present noise.

        Points keep the order of the parts; a part without any of them is left out.
        """
        chosen = torch.zeros(len(self.points), dtype=torch.bool)
        chosen[index] = True
        pieces = chosen.split([len(p.points) for p in self.parts])
        kept = [(p, c) for p, c in zip(self.parts, pieces, strict=True) if c.any()]
        return Stack(*(p.take(c, domain) for p, c in kept))

    def matrix(self) -> Sparse:
        return Sparse.block([[p.matrix()] for p in self.parts])

    @property
    def noise_variance(self) -> Float[Tensor, " m"]:
        return torch.cat([p.noise_variance for p in self.parts])

    @property
    def bias_design(self) -> Float[Tensor, "m q"]:
        return torch.block_diag(*(p.bias_design for p in self.parts))

    @property
    def bias_variance(self) -> Float[Tensor, " q"]:
        return torch.cat([p.bias_variance for p in self.parts])

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        return torch.cat([p(x) for p in self.parts], dim=-1)

    def sample(
        self, x: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch k"]:
        return torch.cat([p.sample(x, generator) for p in self.parts], dim=-1)

    def misfit(
        self, d: Float[Tensor, "*batch k"], y: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch"]:
        both = zip(self._split(d), self._split(y), strict=True)
        return torch.stack([p.misfit(u, v) for (p, u), (_, v) in both]).sum(dim=0)

    def gradient(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch n"]:
        return torch.stack([p.gradient(x, v) for p, v in self._split(y)]).sum(dim=0)

    def adjoint(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        return torch.stack([p.adjoint(v) for p, v in self._split(y)]).sum(dim=0)
