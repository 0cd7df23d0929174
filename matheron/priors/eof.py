r"""Fields of a few patterns: empirical orthogonal functions."""

from __future__ import annotations

__all__ = ["EOF"]

import numpy as np
import torch
import torch.nn as nn

from jaxtyping import Float
from torch import Generator, Tensor

from .markov import MarkovPrior
from .quantities import Quantity
from ..domain import Grid, Points
from ..kernels.base import positive
from ..linalg.sparse import Assembly, Pattern, Sparse

WHERE = "EOF"


class EOF(MarkovPrior):
    r"""A field of a few patterns in space, with random amplitudes in time.

    .. math:: f(s, t) = m + \bar f(s) + \sum_p \phi_p(s) \, a_p(t), \qquad
        a_p \sim \mathcal{N}(0, \lambda_p)

    Amplitudes are independent from one time of the grid to another, or an autoregressive process,

    .. math:: \mathrm{Cov}(a_p(t), a_p(t')) = \lambda_p \exp(-|t - t'| / \tau)

    The patterns are given, or those of past fields (:meth:`from_fields`), or unknown: those that
    gappy data are to tell (:class:`matheron.solvers.dineof.DINEOF`). It is a Markov prior whose
    nodes are the amplitudes: few, so that it is conditioned exactly, however large the grid. The
    law is of low rank: it has no density over the grid, and data that it does not explain must be
    left to their noise. Between nodes of the grid it is interpolated.

    References:
        | Empirical orthogonal functions and statistical weather prediction (Lorenz, 1956)
        | Principal Component Analysis in Meteorology and Oceanography (Preisendorfer, 1988)

    Arguments:
        grid: The grid, with an axis ``time`` and at least one of space; a mask is the same at all
            times.
        modes: The patterns :math:`\phi_p`, with shape :math:`(p, s)` where :math:`s` counts the
            sites of one time that are not masked; ``None`` if they are unknown.
        variances: The variances :math:`\lambda_p`, with shape :math:`(p)`; ones by default.
        duration: The time :math:`\tau`, in days; ``None`` for independent times.
        pattern: The mean field :math:`\bar f`, with shape :math:`(s)`; zero by default.
        mean: The known mean :math:`m`, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + time"``.

    Raises:
        ValueError: If the grid has no time, or its mask changes with it, or shapes do not match.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0])
        >>> prior = EOF(grid, modes=torch.tensor([[1.0, 2.0, 0.0]]).double())
        >>> prior.covariance(grid.points, grid.points)[1].tolist()
        [2.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    """

    modes: Tensor | None
    pattern: Tensor

    def __init__(
        self,
        grid: Grid,
        modes: Float[Tensor, "p s"] | None = None,
        variances: Float[Tensor, " q"] | None = None,
        duration: float | None = None,
        pattern: Float[Tensor, " k"] | None = None,
        mean: float = 0.0,
        trend: str | None = None,
    ) -> None:
        super().__init__()
        _check_grid(grid)
        self.domain, self.grid = grid, grid
        self.times = len(grid.axes["time"])
        self.sites = len(grid) // self.times
        _check_modes(modes, variances, pattern, self.sites)
        self.register_buffer("modes", modes)
        empty = torch.zeros(self.sites, dtype=torch.float64)
        self.register_buffer("pattern", empty if pattern is None else pattern)
        count = 0 if modes is None else len(modes)
        given = torch.ones(count, dtype=torch.float64) if variances is None else variances
        learned = positive(WHERE, "variances", given).log() if count else given
        self.log_variances = nn.Parameter(learned, requires_grad=count > 0)
        self.log_duration = None
        if duration is not None:
            self.log_duration = nn.Parameter(positive(WHERE, "duration", duration).log())
        self._assembly = _chain(self.times, count)
        self._set_trend(mean, trend)

    @classmethod
    def from_fields(
        cls,
        grid: Grid,
        fields: Float[Tensor, "k s"],
        modes: int,
        duration: float | None = None,
    ) -> EOF:
        r"""Returns the prior of the first patterns of past fields, about their mean.

        Arguments:
            grid: The grid of the fields to come.
            fields: Whole fields, each with the sites of one time of the grid.
            modes: The number of patterns.
            duration: The time :math:`\tau`, in days.

        Raises:
            ValueError: If there are not more fields than patterns, or they hold NaN.
        """
        k = len(fields)
        if not 1 <= modes < k or not fields.isfinite().all():
            msg = (
                f"{WHERE}.from_fields(modes={modes}): expected whole fields, more than patterns, "
                f"got {k} with {int((~fields.isfinite()).sum())} NaN. Fill them by DINEOF() first."
            )
            raise ValueError(msg)
        pattern = fields.mean(dim=0)
        _, size, V = torch.linalg.svd(fields - pattern, full_matrices=False)
        variances = size[:modes].square() / (k - 1)
        return cls(grid, V[:modes].contiguous(), variances, duration, pattern)

    def _known(self) -> Float[Tensor, "p s"]:
        if self.modes is None:
            msg = (
                f"{WHERE}(modes=None): expected known patterns for this, got none. Learn them "
                "from the data by DINEOF(), or from past fields by EOF.from_fields(...)."
            )
            raise ValueError(msg)
        return self.modes

    def precision(self) -> Sparse:
        self._known()
        steps = self.grid.axes["time"].diff()
        rho = torch.zeros_like(steps)
        if self.log_duration is not None:
            rho = torch.exp(-steps / self.log_duration.exp())
        given = 1 / (1 - rho.square()).clamp(min=1e-12)  # of a time, given the one before
        one = torch.ones(1, dtype=torch.float64)
        chain = torch.cat([one, given, rho.square() * given, -rho * given, -rho * given])
        return self._assembly((chain[:, None] / self.log_variances.exp()).flatten())

    def embedding(self, points: Points) -> Sparse:
        modes = self._known()
        nodes, weights = self.grid.interpolation(points)
        time, site = nodes // self.sites, nodes % self.sites
        count = len(modes)
        columns = time[:, :, None] * count + torch.arange(count)
        values = weights[:, :, None] * modes.mT[site]
        rows = torch.arange(len(points))[:, None, None].expand_as(columns)
        seen = (weights != 0)[:, :, None].expand_as(columns)
        shape = (len(points), self.times * count)
        if bool((seen.sum(dim=1) == 1).all()):  # nodes of the grid: nothing to add up
            indptr = np.arange(len(points) + 1) * count
            return Sparse(Pattern(indptr, columns[seen].numpy(), shape), values[seen])
        return Assembly(rows[seen].numpy(), columns[seen].numpy(), shape)(values[seen])

    def places(self) -> Float[Tensor, "N k"] | None:
        return None

    def mean(self, points: Points) -> Float[Tensor, " m"]:
        nodes, weights = self.grid.interpolation(points)
        return super().mean(points) + (self.pattern[nodes % self.sites] * weights).sum(dim=1)

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        if self.domain is not self.grid:
            return super().sample(size, generator)
        u = self.sample_nodes(size, generator).reshape(size, self.times, -1)
        return self.drift() + (u @ self._known()).flatten(1)

    def quantities(self) -> list[Quantity]:
        total = self.log_variances.exp() * self._known().square().mean(dim=1)
        rows = [("std", total.sum().sqrt(), "field")]
        if self.log_duration is not None:
            rows.append(("duration", self.log_duration.exp(), "days"))
        return rows


def _chain(times: int, count: int) -> Assembly:
    r"""Returns the places of the precision of ``count`` chains, in the order of its values."""
    here, after = np.arange(times), np.arange(1, times)
    rows = np.concatenate([here, after - 1, after, after - 1])
    columns = np.concatenate([here, after - 1, after - 1, after])
    each = np.arange(count)
    places = [(v[:, None] * count + each).reshape(-1) for v in (rows, columns)]
    return Assembly(places[0], places[1], (times * count, times * count))


def _check_grid(grid: Grid) -> None:
    if "time" not in grid.dims or len(grid.dims) == 1:
        msg = (
            f"{WHERE}(grid=...): expected an axis 'time' and axes of space, got {grid.dims}. "
            "Name the axis of time 'time'."
        )
        raise ValueError(msg)
    if grid.mask is not None:
        sea = grid.mask.reshape(grid.shape[0], -1)
        if not (sea == sea[0]).all():
            msg = (
                f"{WHERE}(grid=...): expected a mask that is the same at all times, got one that "
                "changes. Let the mask be the land, and gaps be of the observation."
            )
            raise ValueError(msg)


def _check_modes(
    modes: Tensor | None, variances: Tensor | None, pattern: Tensor | None, sites: int
) -> None:
    wrong = (
        [f"modes {tuple(modes.shape)}"]
        if modes is not None
        and (modes.shape[1] != sites or len(modes) == 0 or not modes.isfinite().all())
        else []
    )
    if variances is not None and (modes is None or variances.shape != modes.shape[:1]):
        wrong.append(f"variances {tuple(variances.shape)}")
    if pattern is not None and pattern.shape != (sites,):
        wrong.append(f"pattern {tuple(pattern.shape)}")
    if wrong:
        msg = (
            f"{WHERE}(modes=..., variances=..., pattern=...): expected finite patterns of {sites} "
            f"sites and a variance for each, got {', '.join(wrong)}. Leave land and time out."
        )
        raise ValueError(msg)
