"""A map of 512 x 512 nodes by 1, 4 and 16 tiles: how far apart are they?

    python tiles.py [MODEL...]      folders of trained solvers, or names of those of the library

Patches start at whole cells of the coarsest scale of the networks, and their halo is 32 nodes.
The bar: less than 1e-4 of the std of the map.
"""

from __future__ import annotations

import sys
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.data import Tiling
from matheron.domain import Grid
from matheron.fit import load_model
from matheron.mappers.first_guess import FirstGuess
from matheron.mappers.learned import on_grid
from matheron.nets import coarsest
from matheron.observations import GriddedObservation, Informed
from matheron.solvers.tiled import Tiled

NODES, HALO, FADE = 512, 32, 8
SIDES = {1: 512, 4: 296, 16: 188}
"""The nodes of a patch on a side, by the number of tiles."""


def window(model, nodes: int) -> Grid:
    """Returns a grid with the steps of a model."""
    axes = {}
    for name, axis in model.grid.axes.items():
        step = axis.diff().median().item()
        count = len(axis) if name == "time" else nodes
        places = torch.arange(count, dtype=torch.float64)
        middle = 0.0 if name == "time" else places.mean()  # about the equator: it must fit
        axes[name] = step * (places - middle)
    return Grid(metric=model.grid.metric, **axes)


def field(grid: Grid, std: float, generator: torch.Generator) -> torch.Tensor:
    """Draws a field: waves of forty to eight nodes, that move."""
    t, y, x = torch.meshgrid(*(torch.arange(n).double() for n in grid.shape), indexing="ij")
    total = torch.zeros_like(t)
    for _ in range(60):
        k = torch.randn(2, dtype=torch.float64, generator=generator) / 8
        phase, drift = torch.rand(2, dtype=torch.float64, generator=generator) * 6.28
        total += torch.cos(k[0] * y + k[1] * x + 0.05 * drift * t + phase)
    return std * (total / total.std()).flatten()


@torch.no_grad()
def row(name: str) -> list[dict]:
    """Maps a field by each number of tiles."""
    model = load_model(Path(name), classes={"FirstGuess": FirstGuess})
    grid, generator = window(model, NODES), torch.Generator().manual_seed(0)
    truth = field(grid, model.card.normalisation["std"], generator)
    mask = torch.rand(len(grid), generator=generator) < 0.05
    observation = GriddedObservation(grid, mask, model.card.normalisation["noise"])
    y = torch.where(mask, truth, 0.0)
    if model.solver.first == "guess":
        noise = torch.randn(len(grid), dtype=torch.float64, generator=generator)
        observation, y = Informed(observation), torch.cat([y, 0.9 * truth + 0.02 * noise])
    whole, cell = on_grid(model.prior, grid), coarsest(model.solver, model.prior)
    rows, reference = [], None
    for tiles, side in SIDES.items():
        side = Tiling.fitting(NODES, side, cell)
        small = on_grid(model.prior, window(model, side))
        halo, fade, cells = ({k: v for k in ("lat", "lon")} for v in (HALO, FADE, cell))
        tiled = Tiled(model.solver, small, halo, fade, cells)
        start = time.perf_counter()
        conditional = tiled(whole, observation)
        assert len(conditional.tiling) == tiles
        x = conditional.estimate(y)
        seconds = time.perf_counter() - start
        reference = x if reference is None else reference
        apart = (x - reference).abs() / reference.std()
        rows.append(
            {
                "model": name,
                "tiles": tiles,
                "side": side,
                "rms apart": apart.square().mean().sqrt().item(),
                "most apart": apart.max().item(),
                "seconds": seconds,
            }
        )
    return rows


if __name__ == "__main__":
    names = sys.argv[1:] or ["gulfstream-unet"]
    finish("Maps by tiles, in std of the map", "tiles", [r for name in names for r in row(name)])
