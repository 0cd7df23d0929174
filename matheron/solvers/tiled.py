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
from ..observations import GriddedObservation, Observation
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
    ) -> None:
        super().__init__()
        if not isinstance(patch.domain, Grid) or patch.domain.mask is not None:
            msg = (
                f"Tiled(patch=...): expected a prior on a grid without land, got one on "
                f"{patch.domain!r}. Land is told by the mask of the data."
            )
            raise ValueError(msg)
        self.solver, self.patch = solver, patch
        self.halo, self.overlap = halo, overlap

    def prepare(self, prior: Prior, observation: Observation) -> TiledConditional:
        grid, small = prior.domain, self.patch.domain
        if not isinstance(observation, GriddedObservation) or not isinstance(grid, Grid):
            msg = (
                f"Tiled(observation=...): expected a GriddedObservation on a grid, got "
                f"{type(observation).__name__}. Average the data in cells: data.cells.to_cells()."
            )
            raise TypeError(msg)
        assert isinstance(small, Grid)
        size = dict(zip(small.dims, small.shape, strict=True))
        tiling = Tiling(grid, size, self.halo, self.overlap)
        if torch.is_grad_enabled():
            return TiledConditional(prior, observation, self, tiling)
        kept = copy.copy(self)
        kept._modules = {**self._modules, "solver": copy.deepcopy(self.solver)}
        kept._modules["patch"] = frozen(self.patch)
        return TiledConditional(frozen(prior), frozen(observation), kept, tiling)


class TiledConditional(Estimator):
    r"""Estimates by tiles."""

    observation: GriddedObservation

    def __init__(
        self, prior: Prior, observation: GriddedObservation, solver: Tiled, tiling: Tiling
    ) -> None:
        super().__init__(prior, observation)
        self.solver, self.tiling = solver, tiling
        n = len(observation.domain)
        self.noise = observation.error.variance.sqrt().expand(n)

    def estimate(self, y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        mask, tiling = self.observation._single(), self.tiling
        seen = torch.where(mask, y, 0.0)
        whole: Tensor | None = None
        for tile in tiling:
            x = self._solved(tile, tiling.cut(mask, tile), tiling.cut(seen, tile))
            whole = tiling.start(x) if whole is None else whole
            whole = tiling.add(whole, tile, x)
        assert whole is not None
        return tiling.gather(whole)

    def _solved(
        self, tile: Tile, mask: Bool[Tensor, " k"], y: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch k"]:
        noise = self.tiling.cut(self.noise, tile)
        noise = torch.where(mask, noise, self.noise.mean())
        if not mask.any():  # one datum that says nothing: the estimate without data
            mask = torch.arange(len(mask)) == 0
            noise = torch.where(mask, FAR * noise, noise)
        patch = self.solver.patch
        observation = GriddedObservation(patch.domain, mask, noise)  # type: ignore[arg-type]
        return self.solver.solver(patch, observation).estimate(y)
