r"""The Vecchia approximation of the field itself, the noise left out of its neighbourhoods."""

from __future__ import annotations

__all__ = ["LatentConditional", "Weigh"]

import torch

from collections.abc import Callable, Iterator
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .effects import EffectsConditional
from ..kernels import Kernel
from ..linalg.places import distinct_places
from ..linalg.vecchia import joint_neighbors, marginal_variance, maxmin_order, propagate
from ..linalg.vecchia.latent import LatentField
from ..observations import LinearObservation
from ..priors.base import KernelPrior

Weigh = Callable[
    [KernelPrior, Tensor, Tensor, Tensor, int],
    tuple[Tensor, Tensor],
]
"""Prior, sites, noise, neighbours and first target in; weights and standard deviations out."""

EXACT_LIMIT = 6000
"""Places of data and nodes, together, for which the variance is computed and not simulated."""
DRAWS = 1024
NUMBERS = 10_000_000
"""Numbers of a chunk of columns."""


class LatentConditional(EffectsConditional):
    r"""Conditions the field at each site on the field at its nearest earlier sites.

    The places of the data come first, in a max-min order: the posterior of the field there has a
    sparse precision. The nodes of the domain elsewhere come after them, and follow from near
    places and near earlier nodes one by one: they never enter the factor.

    Arguments:
        prior: The prior.
        observation: The observation, with some noise at every datum.
        weigh: What gives the kriging weights of sites.
        neighbors: The number of neighbours of a place of data.
        prediction_neighbors: The number of neighbours of any other node.
        seed: The seed of the max-min order.

    Raises:
        ValueError: If a datum has no noise, or if the field is determined by its neighbours.
    """

    prior: KernelPrior

    def __init__(
        self,
        prior: KernelPrior,
        observation: LinearObservation,
        weigh: Weigh,
        neighbors: int,
        prediction_neighbors: int,
        seed: int,
    ) -> None:
        super().__init__(prior, observation)
        sites, place = self._arrange(seed)
        near = prior.kernel.neighborhoods(sites)
        table = _neighbors(near, self.k, neighbors, prediction_neighbors)
        weights, spread = weigh(prior, sites, sites.new_zeros(len(sites)), table, 0)
        k, noise = self.k, observation.noise_variance
        self.field = LatentField(weights[:k], spread[:k], table[:k], place, noise)
        self.weights, self.spread, self.neighbors = weights[k:], spread[k:], table[k:]

    def _arrange(self, seed: int) -> tuple[Float[Tensor, "s d"], Int[Tensor, " m"]]:
        r"""Returns all sites in order, and the place of each datum among them.

        It counts the :math:`k` places of data, and notes at which site each node is.
        """
        prior, points = self.prior, self.prior.domain.points
        every = torch.cat([prior.coordinates(self.observation.points), prior.coordinates(points)])
        site, first = distinct_places(every)
        told = first < self.m  # the first site at a place is a datum wherever there is one
        data, rest = (torch.nonzero(mask)[:, 0] for mask in (told, ~told))
        self.k = len(data)
        parts = [_ordered(prior.kernel, every[first], part, seed) for part in (data, rest)]
        order = torch.cat(parts)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        self.slot = rank[site[self.m :]]
        return every[first[order]], rank[site[: self.m]]

    def _continue(
        self, x: Float[Tensor, "k c"], draws: Float[Tensor, "t c"] | None = None
    ) -> Float[Tensor, "s c"]:
        r"""Returns the field at all sites from that at the places of data."""
        z = torch.cat([x, x.new_zeros(len(self.spread), x.shape[1])]).contiguous()
        return propagate(self.weights, self.spread, self.neighbors, self.k, z, draws)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        return self.field.whiten(columns)

    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        return self._continue(self.field.estimate(columns))[self.slot]

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        parts = self._chunks(size)
        return torch.cat([self._draw(len(i), generator)[0][self.slot].mT for i in parts])

    def _chunks(self, size: int) -> Iterator[Int[Tensor, " c"]]:
        sites = self.k + len(self.spread) + self.m
        yield from torch.arange(size).split(max(1, NUMBERS // sites))

    def _draw(
        self, size: int, generator: Generator | None
    ) -> tuple[Float[Tensor, "s c"], Float[Tensor, "t c"]]:
        r"""Draws the field at all sites, column by column, and returns the draws of the nodes."""
        counts = [self.k, self.m, len(self.spread)]
        e = torch.randn(size, sum(counts), dtype=torch.float64, generator=generator).mT
        field, noise, nodes = e.split(counts)
        return self._continue(self.field.perturb(field, noise), nodes), nodes

    def field_variance(self) -> Float[Tensor, " n"]:
        exact = self.k + len(self.spread) <= EXACT_LIMIT
        return (self._exact_variance() if exact else self._simulated_variance())[self.slot]

    def _roots(self) -> Iterator[Float[Tensor, "s c"]]:
        r"""Returns a root of the covariance that the places of data bring, by some columns."""
        for i in self._chunks(self.k + self.m):
            unit = torch.zeros(self.k + self.m, len(i), dtype=torch.float64)
            unit[i, torch.arange(len(i))] = 1.0
            yield self._continue(self.field.perturb(unit[: self.k], unit[self.k :]))

    def _exact_variance(self) -> Float[Tensor, " s"]:
        own = marginal_variance(self.weights, self.spread, self.neighbors, self.k)
        total = torch.cat([own.new_zeros(self.k), own])
        for root in self._roots():
            total += root.square().sum(dim=1)
        return total

    def _simulated_variance(self) -> Float[Tensor, " s"]:
        r"""Returns own variances, exact, plus those of conditional means over some draws.

        A place of data is conditioned on all others, a node on its neighbours. The second part
        has a relative error of :math:`\sqrt{2 / N}` for :math:`N` draws, of a fixed seed.
        """
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(self.k + len(self.spread), dtype=torch.float64)
        for i in self._chunks(DRAWS):
            z, draws = self._draw(len(i), generator)
            z[: self.k] = self.field.given_others(z[: self.k])
            z[self.k :] -= self.spread[:, None] * draws
            total += z.square_().sum(dim=1)
        return torch.cat([self.field.own_variance, self.spread.square()]) + total / DRAWS

    def field_covariance(self) -> Float[Tensor, "n n"]:
        t = len(self.spread)
        unit = torch.eye(t, dtype=torch.float64)
        parts = [self._continue(unit.new_zeros(self.k, t), unit), *self._roots()]
        return sum((A @ A.mT for A in (p[self.slot] for p in parts)), start=unit.new_zeros(()))


def _ordered(
    kernel: Kernel, places: Float[Tensor, "p d"], part: Int[Tensor, " t"], seed: int
) -> Int[Tensor, " t"]:
    r"""Returns some of the places in a max-min order."""
    return part[maxmin_order(kernel.neighborhood(places)[part], seed)] if len(part) else part


def _neighbors(near: list[Tensor], k: int, size: int, later: int) -> Int[Tensor, "s c"]:
    r"""Returns the neighbours of the first ``k`` sites, then those of the later ones."""
    tables = [joint_neighbors([x[:k] for x in near], size), joint_neighbors(near, later, k)]
    wide = max(size, later)
    return torch.cat(
        [torch.nn.functional.pad(t, (0, wide - t.shape[1]), value=-1) for t in tables]
    )
