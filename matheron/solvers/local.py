r"""Kriging by moving windows: optimal interpolation as ocean mapping does it."""

from __future__ import annotations

__all__ = ["LocalKriging"]

import math
import torch

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import Any

from .base import Solver, check_linear, check_trend, frozen
from .local_draws import draw
from .neighborhoods import Neighborhood, neighborhoods, window_of
from ..domain import Points
from ..kernels import Kernel
from ..linalg.gaussian import gaussian_matrix, gaussian_parts
from ..linalg.lattice import Lattice, separate
from ..linalg.sliding import Bordered, bordered, groups
from ..observations import LinearObservation, Observation
from ..posterior import Estimator
from ..priors.base import KernelPrior
from ..priors.recentring import Recentring

NUMBERS = 20_000_000
"""Numbers of a chunk of covariances."""


class _Window:
    r"""The kriging system of one neighbourhood."""

    def __init__(
        self,
        prior: KernelPrior,
        nodes: Points,
        data: Points,
        sites: tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]],
        factor: Bordered,
    ) -> None:
        self.prior, self.nodes, self.data = prior, nodes, data
        self.sites, self.factor = sites, factor
        self.offset = prior.mean(self.data)
        self.LF = factor.whiten(prior.design(self.data))
        self.A = self.LF.mT @ self.LF
        _check_data(len(data), len(self.A))
        check_trend("LocalKriging", self.A)

    @cached_property
    def _lattice(self) -> Lattice | None:
        return Lattice.of(self.sites[0]) if self.prior.kernel.linear else None

    @cached_property
    def _separated(self) -> list | None:
        if self._lattice is None or len(self.data) == 0:
            return None
        return separate(self.prior.kernel.terms, self._lattice, self.sites[1])

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Returns the covariances of some nodes and the data, and the next, and the next."""
        x, s = self.sites
        for i in torch.arange(len(x)).split(max(1, NUMBERS // max(1, len(s)))):
            yield i, self.prior.kernel(x[i], s)

    def _carry(self, w: Float[Tensor, "b m"]) -> Float[Tensor, "b k"]:
        r"""Returns the covariance of nodes and data, times weights."""
        if self._separated is not None and self._lattice is not None:
            total = sum(term.times(w) for term in self._separated)
            return torch.as_tensor(total)[:, self._lattice.index]
        return torch.cat([w @ K.mT for _, K in self._chunks()], dim=-1)

    def estimate(self, v: Float[Tensor, "b m"]) -> Float[Tensor, "b k"]:
        r"""Returns the means at the nodes, given data in the order of the factor."""
        z = self.factor.whiten((v - self.offset).mT)
        beta = torch.linalg.solve(self.A, self.LF.mT @ z)
        w = self.factor.unwhiten(z - self.LF @ beta)
        drift = self.prior.mean(self.nodes) + beta.mT @ self.prior.design(self.nodes).mT
        return drift + self._carry(w.mT)

    def variance(self) -> Float[Tensor, " k"]:
        r"""Returns the variances at the nodes."""
        trend = self.prior.design(self.nodes) - self._carry(self.factor.unwhiten(self.LF).mT).mT
        own = (trend * torch.linalg.solve(self.A, trend.mT).mT).sum(dim=-1)
        return self.prior.kernel.diagonal(self.sites[0]) - self._explained() + own

    def _explained(self) -> Float[Tensor, " k"]:
        terms, lattice = self._separated, self._lattice
        if terms is not None and lattice is not None and len(terms) == 1:
            return terms[0].explained(self.factor.whiten)[lattice.index]
        parts = [self.factor.whiten(K.mT).square().sum(dim=0) for _, K in self._chunks()]
        return torch.cat(parts)


@dataclass(frozen=True)
class _Values:
    r"""Values of the field at data: one set for all windows, or one for each."""

    whole: Float[Tensor, "b m"]
    each: Sequence[Tensor] | None = None

    def of(self, k: int, factor: Bordered, own: Neighborhood) -> Float[Tensor, "b w"]:
        if self.each is None:
            return self.whole[:, factor.index]
        place = torch.full((self.whole.shape[1],), -1)
        place[own.data] = torch.arange(len(own.data))
        return self.each[k][:, place[factor.index]]


class _LocalConditional(Estimator):
    prior: KernelPrior
    observation: LinearObservation

    def __init__(
        self, prior: KernelPrior, observation: LinearObservation, solver: LocalKriging
    ) -> None:
        super().__init__(prior, observation)
        self.nodes, self.data = prior.domain.points, observation.points
        self.window = window_of(prior, solver.window, solver.tolerance)
        self.near = neighborhoods(self.nodes, self.data, self.window, solver.radius, solver.every)
        worst = max(len(own.data) for own in self.near)
        if worst > solver.max_size:
            msg = (
                f"LocalKriging(max_size={solver.max_size}): expected at most as many data in a "
                f"window, got {worst}. Narrow the window, give a radius, or thin the data."
            )
            raise ValueError(msg)

    @cached_property
    def _sites(self) -> list[tuple[Tensor, Tensor]]:
        r"""The coordinates of the nodes and of the data of each neighbourhood."""
        prior, data = self.prior, self.data
        if isinstance(prior, Recentring):
            return [_seen_from(prior.at(own.center), self.nodes, data, own) for own in self.near]
        x, s = prior.coordinates(self.nodes), prior.coordinates(data)
        return [(x[own.nodes], s[own.data]) for own in self.near]

    @cached_property
    def _runs(self) -> list[list[int]]:
        r"""The neighbourhoods whose factors are made together: of near times, at one place."""
        alone = isinstance(self.prior, Recentring) or not math.isfinite(self.window)
        reach = 0.0 if alone else self.window / 2
        by_place: dict[tuple[int, ...], list[int]] = {}
        for k, own in enumerate(self.near):
            by_place.setdefault(own.place, []).append(k)
        found = []
        for members in by_place.values():
            runs = groups([self.near[k].center for k in members], reach)
            found += [[members[i] for i in run] for run in runs]
        return found

    def _windows(self) -> Iterator[tuple[int, _Window]]:
        for run in self._runs:
            near = [self.near[k] for k in run]
            rows, index = torch.cat([own.data for own in near]).unique(return_inverse=True)
            sites = torch.cat([self._sites[k][1] for k in run])
            s = sites.new_empty(len(rows), sites.shape[1])
            s[index] = sites
            S = _data_covariance(self.prior.kernel, s, self.observation, rows)
            windows = index.split([len(own.data) for own in near])
            factors = bordered(S, windows, "LocalKriging")
            for k, own, found in zip(run, near, factors, strict=True):
                factor = Bordered(rows[found.index], found.core, found.link, found.border)
                nodes, data = self.nodes[own.nodes], self.data[factor.index]
                both = self._sites[k][0], s[found.index]
                yield k, _Window(self.prior, nodes, data, both, factor)

    def _condition(self, values: _Values) -> Float[Tensor, "b n"]:
        x = values.whole.new_zeros(len(values.whole), len(self.prior.domain))
        for k, window in self._windows():
            own = self.near[k]
            v = values.of(k, window.factor, own)
            x[:, own.nodes] += own.share * window.estimate(v)
        return x

    @torch.no_grad()
    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        v = self.observation.select(y)
        return self._condition(_Values(v.reshape(-1, v.shape[-1]))).reshape(*v.shape[:-1], -1)

    @cached_property
    def _variance(self) -> Float[Tensor, " n"]:
        total = torch.zeros(len(self.prior.domain), dtype=torch.float64)
        for k, window in self._windows():
            own = self.near[k]
            total[own.nodes] += own.share * window.variance()
        return total

    @torch.no_grad()
    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        return self._variance.clamp(min=0).sqrt()

    @torch.no_grad()
    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        x_s, values = self._joint(size, generator)
        return x_s, self._condition(values)

    def _joint(self, size: int, generator: Generator | None) -> tuple[Tensor, _Values]:
        r"""Draws fields at the nodes, and their data as each window sees them."""
        prior, data = self.prior, self.data
        moving = isinstance(prior, Recentring)
        if moving:
            nodes = torch.cat([x for x, _ in self._sites])
            order = torch.cat([own.nodes for own in self.near]).argsort(stable=True)
            # a node in several tiles has one place: its first
            _, counts = torch.cat([own.nodes for own in self.near]).unique(return_counts=True)
            first = counts.cumsum(0) - counts
            sites = [nodes[order[first]], *(s for _, s in self._sites)]
        else:
            sites = [prior.coordinates(self.nodes), prior.coordinates(data)]
        fields = draw(prior.kernel, sites, size, generator)
        noise = self.observation.noise((size,), generator) + prior.mean(data)
        x_s = fields[0] + prior.mean(self.nodes)
        if not moving:
            return x_s, _Values(fields[1] + noise)
        each = [f + noise[:, own.data] for f, own in zip(fields[1:], self.near, strict=True)]
        return x_s, _Values(torch.zeros_like(noise), each)

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        # the data join the simulated ones, so that every window is factorised once
        x_s, values = self._joint(size, generator)
        v = self.observation.select(y)[None]
        each = values.each
        if each is not None:
            each = [torch.cat([v[:, own.data], e]) for own, e in zip(self.near, each, strict=True)]
        found = self._condition(_Values(torch.cat([v, values.whole]), each))
        return found[0] + x_s - found[1:]

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        sizes = [len(own.data) for own in self.near]
        return {
            "windows": len(sizes),
            "window": self.window,
            "data_least": min(sizes),
            "data_most": max(sizes),
        }


def _check_data(m: int, p: int) -> None:
    if m == 0 and p:
        msg = (
            f"LocalKriging(prior=...): expected a trend that the data of each window can tell, "
            f"got {p} columns and a window without data. Widen the window, or drop the trend."
        )
        raise ValueError(msg)


def _seen_from(
    prior: KernelPrior, nodes: Points, data: Points, own: Neighborhood
) -> tuple[Tensor, Tensor]:
    return prior.coordinates(nodes[own.nodes]), prior.coordinates(data[own.data])


def _data_covariance(
    kernel: Kernel,
    s: Float[Tensor, "w k"],
    observation: LinearObservation,
    rows: Int[Tensor, " w"],
) -> Float[Tensor, "w w"]:
    r"""Returns the covariance of some data, with their noise and biases."""
    parts = gaussian_parts(kernel.terms(s)) if len(rows) else None
    K = kernel(s, s) if parts is None else gaussian_matrix(parts)
    B = observation.bias_design[rows]
    if B.shape[1]:
        K = K + (B * observation.bias_variance) @ B.mT
    return K.diagonal_scatter(K.diagonal() + observation.noise_variance[rows])


class LocalKriging(Solver[KernelPrior]):
    r"""Kriging of each time from the data near to it, and of each place likewise.

    The map at a time :math:`t` is the kriging estimate from the data with :math:`|t_i - t| < W`;
    its std is the kriging std of that estimate. So a year over a basin takes the memory of one
    window. Windows that hold all the data give :class:`Kriging` itself. What is left out is the
    data whose correlation with the map is under that at the edge of the window; where nothing is
    said, :math:`W` is where the correlation in time falls under ``tolerance``.

    With a ``radius``, space is tiled as well: kriging systems stand on a lattice of that spacing,
    each with the data within twice the radius along each axis, and are blended linearly between.
    Every node then sees at least the data within the radius, the map has no seams, and its std
    is an upper bound, as that of a blend is under the blend of the stds.

    Draws follow Matheron's rule from one field for all windows: members are coherent in space and
    in time. They are drawn exactly for Gaussian covariances and for few sites, else as Vecchia
    does, each site from some 40 others. An unknown trend is estimated in each window, the bias of
    an instrument too. With a prior that is told about a time (see
    :class:`matheron.priors.recentring.Recentring`), each window has its own, and members are
    coherent within each window only.

    Covariances that separate over the axes of a grid, such as a Gaussian of degrees, take one
    axis at a time; windows that overlap are factorised together.

    References:
        | A technique for objective analysis and design of oceanographic experiments applied to
        | MODE-73 (Bretherton, Davis and Fandry, 1976)
        | https://doi.org/10.1016/0011-7471(76)90001-2

    Arguments:
        window: The half-width :math:`W`, in days; ``math.inf`` for all the data.
        radius: The reach in space, in metres on the sphere, in the units of the axes on the
            plane; ``None`` for all the data of a window.
        every: The spacing in days of the times of analysis, for a domain of points whose times
            all differ; by default each time of the domain has its own window.
        tolerance: The correlation in time under which data are left out, where ``window`` is not
            given.
        max_size: The number of data of a window above which to refuse.

    Raises:
        ValueError: If a width is not positive, if a window has more data than ``max_size``, or
            cannot tell the trend.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(time=[0.0, 10.0], x=[0.0, 1.0])
        >>> prior = mt.GaussianProcess(mt.Gaussian(lengthscale=(2.0, 1.0)), grid)
        >>> seen = mt.PointObservation(grid, mt.Points(time=[0.0, 10.0], x=[0.0, 1.0]), 1.0)
        >>> y = torch.tensor([2.0, 4.0], dtype=torch.float64)
        >>> LocalKriging(window=5.0)(prior, seen)(y).mean.round(decimals=4).tolist()
        [1.0, 0.6065, 1.2131, 2.0]
    """

    requires = KernelPrior

    def __init__(
        self,
        window: float | None = None,
        radius: float | None = None,
        every: float | None = None,
        tolerance: float = 1e-3,
        max_size: int = 10_000,
    ) -> None:
        super().__init__()
        widths = {"window": window, "radius": radius, "every": every, "tolerance": tolerance}
        for name, value in widths.items():
            if value is not None and not value > 0:
                msg = (
                    f"LocalKriging({name}=...): expected a positive number, got {value}. "
                    "Use days for times, metres on the sphere for the radius."
                )
                raise ValueError(msg)
        self.window, self.radius, self.every = window, radius, every
        self.tolerance, self.max_size = tolerance, max_size

    @torch.no_grad()
    def prepare(self, prior: KernelPrior, observation: Observation) -> Estimator:
        return _LocalConditional(frozen(prior), frozen(check_linear(self, observation)), self)
