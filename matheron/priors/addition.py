r"""Sums of independent Markov fields."""

from __future__ import annotations

__all__ = ["MarkovSum"]

import numpy as np
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Generator, Tensor
from typing import cast

from .markov import MarkovPrior
from .quantities import Quantity
from .track_error import AlongTrackError
from ..domain import Grid, Points
from ..linalg.sparse import Assembly, Sparse


class MarkovSum(MarkovPrior):
    r"""A sum of independent Markov fields, e.g. of two scales, about one trend.

    .. math:: f(s) = m + F(s)^\top \beta + \sum_i A_i(s) u_i

    The nodes are those of all the parts; their precision has a block for each. The parts have no
    trend and no mean of their own.

    Arguments:
        parts: The fields, on one domain.
        mean: The known mean, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + lon + lat"``.

    Raises:
        ValueError: If there is no part, or one has a trend or a mean, or another domain.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=torch.arange(30.0))
        >>> parts = [mt.WhittleMatern(grid, lengthscale=scale) for scale in (3.0, 12.0)]
        >>> s = mt.Points(x=[15.0])
        >>> round(MarkovSum(*parts).variance(s).item(), 1)
        2.0
    """

    def __init__(self, *parts: MarkovPrior, mean: float = 0.0, trend: str | None = None) -> None:
        super().__init__()
        if not parts or any(p.domain is not parts[0].domain for p in parts):
            msg = (
                f"MarkovSum(parts=...): expected fields on one and the same domain, got "
                f"{len(parts)} on {len({id(p.domain) for p in parts})}. Build them on one grid."
            )
            raise ValueError(msg)
        if any(p.trend is not None or p.constant != 0 for p in parts):
            msg = (
                "MarkovSum(parts=...): expected fields without mean and trend, got one with. "
                "Give them to the sum: MarkovSum(..., trend='1')."
            )
            raise ValueError(msg)
        self.parts = cast(Sequence[MarkovPrior], nn.ModuleList(parts))
        self.domain = parts[0].domain
        self._set_trend(mean, trend)

    def on(self, domain: Grid | Points) -> MarkovSum:
        r"""Returns the same law (its parameters are shared) on another domain."""
        new = MarkovSum(*(p.on(domain) for p in self.parts), mean=self.constant)
        new.trend, new.coefficients = self.trend, self.coefficients
        return new

    def precision(self) -> Sparse:
        blocks: list[list[Sparse | None]] = [
            [p.precision() if i == j else None for j in range(len(self.parts))]
            for i, p in enumerate(self.parts)
        ]
        return Sparse.block(blocks)

    def embedding(self, points: Points) -> Sparse:
        return _beside([p.embedding(points) for p in self.parts])

    def sight(self, points: Points) -> Sparse:
        return _beside([p.sight(points) for p in self.parts])

    def places(self) -> Float[Tensor, "N k"] | None:
        r"""Returns the places of all nodes, on the lattice that the parts have or in space."""
        first = self.parts[0]
        base = first.places()
        every = [base] + [_places(p, first, base) for p in self.parts[1:]]
        found = [x for x in every if x is not None]
        return torch.cat(found) if len(found) == len(every) else self._in_space()

    def _in_space(self) -> Float[Tensor, "N k"] | None:
        r"""Returns where the nodes are, a step of time being as long as one of the first part."""
        nodes = [p.nodes() for p in self.parts]
        known = [x for x in nodes if x is not None]
        if len(known) < len(nodes):
            return None
        x, timed = Points.join(*known).local(), "time" in known[0].dims
        if not timed:
            return x
        own = x[: len(known[0])]
        steps = own[:, 0].unique().diff()
        space = own[own[:, 0] == own[0, 0], 1:].unique(dim=0).numpy()
        if not len(steps) or len(space) < 2:
            return x
        width = np.median(cKDTree(space).query(space, k=2)[0][:, 1])
        return torch.cat([x[:, :1] / steps.median(), x[:, 1:] / float(width)], dim=-1)

    def log_determinant(self) -> Float[Tensor, ""]:
        return torch.stack([p.log_determinant() for p in self.parts]).sum()

    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        return torch.cat([p.sample_nodes(size, generator) for p in self.parts], dim=-1)

    def penalty(self) -> Float[Tensor, ""]:
        return torch.stack([p.penalty() for p in self.parts]).sum()

    def quantities(self) -> list[Quantity]:
        r"""Returns the quantities of the parts, numbered."""
        return [
            (f"{type(part).__name__} {i} {name}", value, units)
            for i, part in enumerate(self.parts, start=1)
            for name, value, units in part.quantities()
        ]


def _beside(blocks: Sequence[Sparse]) -> Sparse:
    r"""Returns blocks side by side; some may be empty."""
    left = np.cumsum([0, *(b.shape[1] for b in blocks)])
    rows = np.concatenate([b.pattern.rows for b in blocks])
    columns = np.concatenate([b.pattern.indices + k for b, k in zip(blocks, left, strict=False)])
    assembly = Assembly(rows, columns, (blocks[0].shape[0], int(left[-1])))
    return assembly(torch.cat([b.values for b in blocks]))


def _places(part: MarkovPrior, first: MarkovPrior, base: Tensor | None) -> Tensor | None:
    r"""Returns the places of the nodes of a part among those of the first, if they are told."""
    if base is None:
        return None
    if isinstance(part, AlongTrackError):
        return first.embedding(part.points) @ base
    own = part.places()
    return own if own is not None and torch.equal(own, base) else None
