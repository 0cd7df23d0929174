r"""Errors that the data of a track share, and that no map should show."""

from __future__ import annotations

__all__ = ["AlongTrackError"]

import functools
import math
import numpy as np
import torch
import torch.nn as nn

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from .markov import MarkovPrior
from .quantities import Quantity
from ..domain import Grid, Points
from ..kernels.quick import ORDERS, closed_form, half_integer
from ..linalg.sparse import Assembly, Pattern, Sparse

BEFORE = 8
"""How many data before it a datum of a smooth error is drawn given."""
NUGGET = 1e-6
"""The part of the variance of a smooth error that is white, so that it can be inverted."""


class AlongTrackError(MarkovPrior):
    r"""An error that neighbouring data of one track share, and that no map should show.

    Along each track it is an Ornstein-Uhlenbeck process of the distance,

    .. math:: \mathrm{Cov}(e_i, e_j) = \sigma^2 \exp(-|d_i - d_j| / \ell)

    or smoother, as the errors of filtered data are: with the Matern covariance of smoothness
    :math:`\nu`, or for :math:`\nu = \infty` with
    :math:`\sigma^2 \exp(-|d_i - d_j|^2 / (2 \ell^2))`, each datum is drawn given the eight
    before it on its track (Vecchia's approximation) with a millionth of white noise. It is
    such as orbit and correction errors, or waves too quick for the next pass to see. It is part of
    what the data see, not of the field: its std is in no map.

    Arguments:
        domain: The domain of the fields that it is added to.
        points: The data, in the order of the tracks' time.
        track: The track of each datum.
        lengthscale: :math:`\ell`, in metres on the sphere, in the units of the axes on the plane.
        std: :math:`\sigma`, in the units of the field.
        nu: The smoothness :math:`\nu` along the track: half an odd number, or infinity.

    Raises:
        ValueError: If a scale is not positive, ``track`` has another length than the points, or
            ``nu`` is neither half an odd number nor infinite.

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
        nu: float = 0.5,
    ) -> None:
        super().__init__()
        if not (lengthscale > 0 and std > 0) or len(track) != len(points):
            msg = (
                f"AlongTrackError(lengthscale=..., std=..., track=...): expected positive scales "
                f"and {len(points)} labels, got {lengthscale}, {std} and {len(track)} labels. "
                "Give one label per datum."
            )
            raise ValueError(msg)
        if not (nu == math.inf or (nu > 0 and nu % 1 == 0.5 and nu < ORDERS + 1)):
            msg = (
                f"AlongTrackError(nu=...): expected .5, 1.5, ... up to {ORDERS}.5 or infinity, "
                f"got {nu}. Take the nearest of them."
            )
            raise ValueError(msg)
        self.domain, self.points = domain, points
        self.log_lengthscale = _logarithm(lengthscale)
        self.log_variance = _logarithm(std**2)
        self._set_trend(0.0, None)
        x = points.local()[:, 1 if "time" in points.dims else 0 :]
        self.chain = _Rough.of(x, track) if nu == 0.5 else _Smooth.of(x, track, nu)
        self._index = {key: i for i, key in enumerate(_keys(points))}

    def precision(self) -> Sparse:
        return self.chain(self.log_lengthscale.exp()) * (1 / self.log_variance.exp())

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

    def nodes(self) -> Points:
        return self.points

    def quantities(self) -> list[Quantity]:
        sphere = self.points.metric == "sphere"
        scale = self.log_lengthscale.exp() / (1000 if sphere else 1)
        std = (self.log_variance / 2).exp()
        return [("std", std, "field"), ("lengthscale", scale, "km" if sphere else "axes")]


@dataclass
class _Rough:
    r"""The precision of an Ornstein-Uhlenbeck process of variance one along tracks.

    Arguments:
        distance: The distances from data to those before them on their tracks.
        first: Which data have none before them.
        assembly: Where the numbers go.
    """

    distance: Float[Tensor, " k"]
    first: Tensor
    assembly: Assembly

    @classmethod
    def of(cls, x: Float[Tensor, "m d"], track: Int[Tensor, " m"]) -> _Rough:
        r"""Links each datum to the one before it on its track."""
        order, m = torch.argsort(track, stable=True), len(track)
        before, after = order[:-1], order[1:]
        same = track[before] == track[after]
        before, after = before[same], after[same]
        a, b, nodes = before.numpy(), after.numpy(), np.arange(m)
        rows, columns = np.concatenate([nodes, b, a, a, b]), np.concatenate([nodes, b, a, b, a])
        return cls(
            (x[after] - x[before]).norm(dim=-1).clamp(min=1e-9),
            torch.ones(m, dtype=torch.bool).index_fill(0, after, False),
            Assembly(rows, columns, (m, m)),
        )

    def __call__(self, lengthscale: Float[Tensor, ""]) -> Sparse:
        rho = torch.exp(-self.distance / lengthscale)
        given = 1 / (1 - rho.square()).clamp(min=1e-12)  # of a datum, given the one before
        link = -rho * given
        values = [self.first.double(), given, rho.square() * given, link, link]
        return self.assembly(torch.cat(values))


@dataclass
class _Smooth:
    r"""The precision of a smooth process of variance one along tracks.

    Arguments:
        distances: The distances among each datum and those before it that it is drawn given, by
            how many they are.
        correlation: Of a distance in lengthscales.
        assembly: Where the numbers go.
    """

    distances: list[Tensor]
    correlation: Callable[[Tensor], Tensor]
    assembly: Assembly

    @classmethod
    def of(cls, x: Float[Tensor, "m d"], track: Int[Tensor, " m"], nu: float) -> _Smooth:
        r"""Links each datum to the few before it on its track."""
        order, i = torch.argsort(track, stable=True), torch.arange(len(track))
        label = track[order]
        new = torch.cat([torch.ones(1, dtype=torch.bool), label[1:] != label[:-1]])
        count = (i - torch.where(new, i, 0).cummax(0).values).clamp(max=BEFORE)
        distances, rows, columns = [], [], []
        for n in count.unique().tolist():
            nodes = order[i[count == n][:, None] - torch.arange(n + 1)]
            near = x[nodes]
            distances.append((near[:, :, None] - near[:, None]).norm(dim=-1))
            side = (-1, n + 1, n + 1)
            rows.append(nodes[:, :, None].expand(side).reshape(-1))
            columns.append(nodes[:, None, :].expand(side).reshape(-1))
        size = (len(track), len(track))
        assembly = Assembly(torch.cat(rows).numpy(), torch.cat(columns).numpy(), size)
        return cls(distances, functools.partial(_correlation, nu=nu), assembly)

    def __call__(self, lengthscale: Float[Tensor, ""]) -> Sparse:
        every = (_given_before(self.correlation(d / lengthscale)) for d in self.distances)
        return self.assembly(torch.cat(list(every)))


def _correlation(r: Tensor, nu: float) -> Tensor:
    r"""Returns the Matern correlation at distances in lengthscales."""
    if nu == math.inf:
        return torch.exp(-r.square() / 2)
    return closed_form(math.sqrt(2 * nu) * r, half_integer(int(nu)))


def _given_before(rho: Float[Tensor, "k n n"]) -> Float[Tensor, " all"]:
    r"""Returns what data add to the precision, each given the others of its window."""
    one = torch.eye(rho.shape[-1], dtype=torch.float64)
    K = (rho + NUGGET * one) / (1 + NUGGET)
    b = torch.linalg.solve(K[:, 1:, 1:], K[:, 1:, :1])[..., 0]
    v = K[:, 0, 0] - (b * K[:, 0, 1:]).sum(dim=-1)
    a = torch.cat([torch.ones(len(rho), 1, dtype=torch.float64), -b], dim=-1)
    return (a[:, :, None] * a[:, None] / v[:, None, None]).reshape(-1)


def _logarithm(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64).log())


def _keys(points: Points) -> list[tuple[float, ...]]:
    return [tuple(row) for row in points.coords.tolist()]
