r"""Sums of independent Markov fields, and the errors that data share along a track."""

from __future__ import annotations

__all__ = ["AlongTrackError", "MarkovSum"]

import numpy as np
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import cast

from .markov import MarkovPrior
from .quantities import Quantity
from ..domain import Grid, Points
from ..linalg.sparse import Assembly, Pattern, Sparse


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
        r"""Returns the places of all nodes, if the parts have one lattice in common."""
        first = self.parts[0]
        base = first.places()
        every = [base] + [_places(p, first, base) for p in self.parts[1:]]
        found = [x for x in every if x is not None]
        return torch.cat(found) if len(found) == len(every) else None

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


class AlongTrackError(MarkovPrior):
    r"""An error that neighbouring data of one track share, and that no map should show.

    Along each track it is an Ornstein-Uhlenbeck process of the distance,

    .. math:: \mathrm{Cov}(e_i, e_j) = \sigma^2 \exp(-|d_i - d_j| / \ell)

    such as orbit and correction errors, or waves too quick for the next pass to see. It is part of
    what the data see, not of the field: its std is in no map.

    Arguments:
        domain: The domain of the fields that it is added to.
        points: The data, in the order of the tracks' time.
        track: The track of each datum.
        lengthscale: :math:`\ell`, in metres on the sphere, in the units of the axes on the plane.
        std: :math:`\sigma`, in the units of the field.

    Raises:
        ValueError: If a scale is not positive, or ``track`` has another length than the points.

    Example:
        >>> line = Points(x=[0.0, 1.0, 2.0])
        >>> error = AlongTrackError(line, line, torch.tensor([0, 0, 1]), lengthscale=2.0, std=0.5)
        >>> round(torch.linalg.inv(error.precision().to_dense())[0, 1].item(), 4)
        0.1516
    """

    def __init__(
        self,
        domain: Grid | Points,
        points: Points,
        track: Int[Tensor, " m"],
        lengthscale: float,
        std: float,
    ) -> None:
        super().__init__()
        if not (lengthscale > 0 and std > 0) or len(track) != len(points):
            msg = (
                f"AlongTrackError(lengthscale=..., std=..., track=...): expected positive scales "
                f"and {len(points)} labels, got {lengthscale}, {std} and {len(track)} labels. "
                "Give one label per datum."
            )
            raise ValueError(msg)
        self.domain, self.points = domain, points
        self.log_lengthscale = _logarithm(lengthscale)
        self.log_variance = _logarithm(std**2)
        self._set_trend(0.0, None)
        self._set_chain(track)
        self._index = {key: i for i, key in enumerate(_keys(points))}

    def _set_chain(self, track: Int[Tensor, " m"]) -> None:
        r"""Links each datum to the one before it on its track."""
        order = torch.argsort(track, stable=True)
        before, after = order[:-1], order[1:]
        same = track[before] == track[after]
        self.before, self.after = before[same], after[same]
        x = self.points.local()[:, 1 if "time" in self.points.dims else 0 :]
        self.distance = (x[self.after] - x[self.before]).norm(dim=-1).clamp(min=1e-9)
        m = len(track)
        self.first = torch.ones(m, dtype=torch.bool).index_fill(0, self.after, False)
        a, b = self.before.numpy(), self.after.numpy()
        nodes = np.arange(m)
        rows, columns = np.concatenate([nodes, b, a, a, b]), np.concatenate([nodes, b, a, b, a])
        self.assembly = Assembly(rows, columns, (m, m))

    def precision(self) -> Sparse:
        rho = torch.exp(-self.distance / self.log_lengthscale.exp())
        given = 1 / (1 - rho.square()).clamp(min=1e-12)  # of a datum, given the one before
        link = -rho * given
        values = torch.cat([self.first.double(), given, rho.square() * given, link, link])
        return self.assembly(values / self.log_variance.exp())

    def sight(self, points: Points) -> Sparse:
        place = np.array([self._index.get(key, -1) for key in _keys(points)])
        found = place >= 0
        indptr = np.concatenate([[0], np.cumsum(found)])
        pattern = Pattern(indptr, place[found], (len(points), len(self.points)))
        return Sparse(pattern, torch.ones(int(found.sum()), dtype=torch.float64))

    def embedding(self, points: Points) -> Sparse:
        empty = np.zeros(0, dtype=np.int64)
        pattern = Pattern(np.zeros(len(points) + 1), empty, (len(points), len(self.points)))
        return Sparse(pattern, torch.zeros(0, dtype=torch.float64))

    def places(self) -> Float[Tensor, "N k"] | None:
        return self.points.local()

    def quantities(self) -> list[Quantity]:
        sphere = self.points.metric == "sphere"
        scale = self.log_lengthscale.exp() / (1000 if sphere else 1)
        std = (self.log_variance / 2).exp()
        return [("std", std, "field"), ("lengthscale", scale, "km" if sphere else "axes")]


def _logarithm(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64).log())


def _keys(points: Points) -> list[tuple[float, ...]]:
    return [tuple(row) for row in points.coords.tolist()]
