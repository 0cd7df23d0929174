r"""A solver of small grids on a large one, tile by tile, with draws that have no seams."""

from __future__ import annotations

__all__ = ["Tiled"]

import copy
import torch

from collections.abc import Mapping
from jaxtyping import Bool, Float
from torch import Tensor
from typing import Any

from .base import Solver, frozen
from ..data.tiles import Tile, Tiling
from ..domain import Grid
from ..observations import GriddedObservation, Informed, Observation
from ..posterior import Estimator
from ..priors.base import Prior

FAR = 1e9
"""The noise of a datum that says nothing, in standard deviations of the noise of others."""


class Tiled(Solver[Prior]):
    r"""A solver that was made for patches, used on a whole grid.

    Each patch is solved on its own, and the estimates are blended by weights that sum to one:
    see :class:`matheron.data.tiles.Tiling`. Ensembles come by Matheron's rule from draws of the
    whole field, which are cut: members have no seams.

    Arguments:
        solver: The solver of patches.
        patch: The prior of a patch, on a grid of its size without land.
        halo: The nodes without weight on each side of a patch, by axis: at least as many as a
            node of an estimate looks away.
        overlap: The nodes over which patches fade, by axis; as many as the halo by default.
        cell: The nodes that the solver averages on its coarsest scale, by axis; patches start at
            multiples of them, so that they average the same nodes as one large patch would.

    Raises:
        ValueError: If the patch has land, or is larger than the grid, or is all halo.
        TypeError: If the data are not those of a gridded field.
    """

    def __init__(
        self,
        solver: Solver[Any],
        patch: Prior,
        halo: Mapping[str, int] | None = None,
        overlap: Mapping[str, int] | None = None,
        cell: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(patch.domain, Grid) or patch.domain.mask is not None:
            msg = (
                f"Tiled(patch=...): expected a prior on a grid without land, got one on "
                f"{patch.domain!r}. Land is told by the mask of the data."
            )
            raise ValueError(msg)
        self.solver, self.patch = solver, patch
        self.halo, self.overlap, self.cell = halo, overlap, cell

    def prepare(self, prior: Prior, observation: Observation) -> TiledConditional:
        grid, small = prior.domain, self.patch.domain
        seen = observation.observation if isinstance(observation, Informed) else observation
        if not isinstance(seen, GriddedObservation) or not isinstance(grid, Grid):
            msg = (
                f"Tiled(observation=...): expected a GriddedObservation on a grid, got "
                f"{type(observation).__name__}. Average the data in cells: data.cells.to_cells()."
            )
            raise TypeError(msg)
        assert isinstance(small, Grid)
        size = dict(zip(small.dims, small.shape, strict=True))
        tiling = Tiling(grid, size, self.halo, self.overlap, self.cell)
        if torch.is_grad_enabled():
            return TiledConditional(prior, observation, self, tiling)
        kept = copy.copy(self)
        kept._modules = {**self._modules, "solver": copy.deepcopy(self.solver)}
        kept._modules["patch"] = frozen(self.patch)
        return TiledConditional(frozen(prior), frozen(observation), kept, tiling)


class TiledConditional(Estimator):
    r"""Estimates by tiles."""

    def __init__(
        self, prior: Prior, observation: Observation, solver: Tiled, tiling: Tiling
    ) -> None:
        super().__init__(prior, observation)
        self.solver, self.tiling = solver, tiling
        self.told: tuple[int, tuple[str, ...]] = (0, ())
        if isinstance(observation, Informed):
            self.told = (observation.fields, observation.beside)
        seen = observation.observation if isinstance(observation, Informed) else observation
        assert isinstance(seen, GriddedObservation)
        self.seen = seen
        self.noise = seen.error.variance.sqrt().expand(len(prior.domain))

    def _fields(self, y: Float[Tensor, "*batch k"]) -> list[Float[Tensor, "*batch n"]]:
        r"""Returns the data, zero in the gaps, and the fields that came with them."""
        if not isinstance(self.observation, Informed):
            return [torch.where(self.seen._single(), y, 0.0)]
        data = torch.where(self.seen._single(), self.observation.data(y), 0.0)
        return [data, *self.observation.others(y).unbind(dim=-2)]

    def estimate(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        mask, tiling = self.seen._single(), self.tiling
        fields = self._fields(y)
        whole: Tensor | None = None
        for tile in tiling:
            parts = torch.cat([tiling.cut(v, tile) for v in fields], dim=-1)
            x = self._solved(tile, tiling.cut(mask, tile), parts)
            whole = tiling.start(x) if whole is None else whole
            whole = tiling.add(whole, tile, x)
        assert whole is not None
        return tiling.gather(whole)

    def _solved(
        self, tile: Tile, mask: Bool[Tensor, " k"], y: Float[Tensor, "*batch j"]
    ) -> Float[Tensor, "*batch k"]:
        noise = self.tiling.cut(self.noise, tile)
        noise = torch.where(mask, noise, self.noise.mean())
        if not mask.any():  # one datum that says nothing: the estimate without data
            mask = torch.arange(len(mask)) == 0
            noise = torch.where(mask, FAR * noise, noise)
        patch = self.solver.patch
        seen = GriddedObservation(patch.domain, mask, noise)  # type: ignore[arg-type]
        observation = Informed(seen, *self.told) if any(self.told) else seen
        return self.solver.solver(patch, observation).estimate(y)
