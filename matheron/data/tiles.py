r"""Large grids cut into patches, and what is found on these joined without seams."""

from __future__ import annotations

__all__ = ["Tile", "Tiling"]

import itertools
import math
import torch

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from typing import Any

from ..domain import Grid


@dataclass(frozen=True)
class Tile:
    r"""A patch of a grid, and what it weighs in the whole.

    Arguments:
        start: Its first node on each axis.
        nodes: Its nodes in the whole grid, land included, with shape :math:`(k)`.
        weights: The weight of each, with shape :math:`(k)`.
    """

    start: tuple[int, ...]
    nodes: Int[Tensor, " k"]
    weights: Float[Tensor, " k"]


class Tiling:
    r"""A grid cut into overlapping patches of one size, whose weights sum to one everywhere.

    A patch has no weight within ``halo`` nodes of its border, unless that is the border of the
    grid, and fades over ``overlap`` nodes more. Where what is computed at a node depends on
    nothing beyond the halo, the whole does not depend on the tiling. It is the whole field that
    should be drawn and then cut: drawn tile by tile, draws have seams.

    Arguments:
        grid: The grid.
        size: The nodes of a patch on each axis, by name; the whole axis by default.
        halo: The nodes without weight on each side, by name; none by default.
        overlap: The nodes over which one patch fades into the next, by name; by default as many
            as the halo.
        cell: Patches start at multiples of so many nodes from the start of the grid: those that
            a network averages on its coarsest scale, by name. See :meth:`fitting`.

    Raises:
        ValueError: If a patch is larger than the grid, is all halo, or leaves a part of a cell.

    Example:
        >>> grid = Grid(y=range(9), x=range(9))
        >>> tiling = Tiling(grid, {"y": 5, "x": 5}, {"y": 1, "x": 1})
        >>> x = torch.rand(81, dtype=torch.float64)
        >>> parts = torch.stack([tiling.cut(x, tile) for tile in tiling])
        >>> len(tiling), torch.allclose(tiling.blend(parts), x)
        (9, True)
    """

    def __init__(
        self,
        grid: Grid,
        size: Mapping[str, int],
        halo: Mapping[str, int] | None = None,
        overlap: Mapping[str, int] | None = None,
        cell: Mapping[str, int] | None = None,
    ) -> None:
        halo = dict(halo or {})
        self.cell = {k: (cell or {}).get(k, 1) for k in grid.dims}
        self.grid, self.overlap = grid, {**halo, **(overlap or {})}
        self.halo = {k: halo.get(k, 0) for k in grid.dims}
        self.size = {k: size.get(k, n) for k, n in zip(grid.dims, grid.shape, strict=True)}
        self._check({*size, *halo, *(overlap or {})})
        lines = [self._line(k, n) for k, n in zip(grid.dims, grid.shape, strict=True)]
        self._tiles = [self._tile(parts) for parts in itertools.product(*lines)]

    def _check(self, names: set[str]) -> None:
        unknown = sorted(names - set(self.grid.dims))
        if unknown:
            msg = (
                f"Tiling(size=...): expected sizes of axes {self.grid.dims}, got {unknown[0]!r}. "
                "Name the axes of the grid."
            )
            raise ValueError(msg)
        for k, n in zip(self.grid.dims, self.grid.shape, strict=True):
            s, lost = self.size[k], 2 * self.halo[k] + self.overlap.get(k, 0)
            if s > n or s < 1 or self.halo[k] < 0 or (s < n and s <= lost):
                msg = (
                    f"Tiling(size={{{k!r}: {s}}}): expected at most the {n} nodes of the grid, "
                    f"and more than halos and overlap, {lost}, got {s}. Take a larger patch or a "
                    "smaller halo."
                )
                raise ValueError(msg)
            if (n - s) % self.cell[k]:
                msg = (
                    f"Tiling(cell={{{k!r}: {self.cell[k]}}}): expected a patch that leaves whole "
                    f"cells of the {n} nodes, got {s} nodes. Take "
                    f"{self.fitting(n, s, self.cell[k])}."
                )
                raise ValueError(msg)

    @staticmethod
    def fitting(nodes: int, size: int, cell: int) -> int:
        r"""Returns the smallest patch of at least a size that leaves whole cells of an axis.

        Example:
            >>> Tiling.fitting(51, 24, 4), Tiling.fitting(51, 60, 4)
            (27, 51)
        """
        return nodes if size >= nodes else size + (nodes - size) % cell

    def _line(self, name: str, n: int) -> list[tuple[int, Float[Tensor, " s"]]]:
        r"""Returns the patches of one axis: where they start, and their weights along it."""
        s, h, r = self.size[name], self.halo[name], self.overlap.get(name, 0)
        room = max(1, s - 2 * h - r - self.cell[name] + 1)
        count = 1 if s == n else math.ceil((n - s) / room) + 1
        # rounded to whole cells; a patch may move by half of one: the room for it is in the count
        c = self.cell[name]
        cells = (n - s) // c
        starts = [c * round(i * cells / max(1, count - 1)) for i in range(count)]
        shapes = [_fade(s, h, r, a > 0, a + s < n) for a in starts]
        total = torch.zeros(n, dtype=torch.float64)
        for a, w in zip(starts, shapes, strict=True):
            total[a : a + s] += w
        return [(a, w / total[a : a + s]) for a, w in zip(starts, shapes, strict=True)]

    def _tile(self, parts: tuple[tuple[int, Tensor], ...]) -> Tile:
        nodes = torch.zeros((), dtype=torch.long)
        weights = torch.ones((), dtype=torch.float64)
        for (start, w), n in zip(parts, self.grid.shape, strict=True):
            nodes = nodes[..., None] * n + torch.arange(start, start + len(w))
            weights = weights[..., None] * w
        return Tile(tuple(start for start, _ in parts), nodes.flatten(), weights.flatten())

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self._tiles)

    def __getitem__(self, index: int) -> Tile:
        return self._tiles[index]

    def patch(self, tile: Tile) -> Grid:
        r"""Returns the grid of a patch, land included: tiles have states of one size."""
        return self.grid_at(tile.start)

    def grid_at(self, start: tuple[int, ...]) -> Grid:
        r"""Returns the grid of the patch that starts at a node."""
        axes: dict[str, Any] = {
            k: self.grid.axes[k][a : a + self.size[k]]
            for k, a in zip(self.grid.dims, start, strict=True)
        }
        return Grid(metric=self.grid.metric, epoch=self.grid.epoch, **axes)

    def cut(self, x: Shaped[Tensor, "*batch n"], tile: Tile) -> Shaped[Tensor, "*batch k"]:
        r"""Returns a state on a patch, zero (or ``False``) on land."""
        return self._whole(x)[..., tile.nodes]

    def _whole(self, x: Tensor) -> Tensor:
        if self.grid.mask is None:
            return x
        full = x.new_zeros((*x.shape[:-1], len(self.grid.mask)))
        full[..., self.grid.mask] = x
        return full

    def blend(self, parts: Float[Tensor, "tiles *batch k"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the whole state, from the states of all patches in their order."""
        whole = self.start(parts[0])
        for tile, x in zip(self._tiles, parts, strict=True):
            whole = self.add(whole, tile, x)
        return self.gather(whole)

    def start(self, like: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch cells"]:
        r"""Returns zeros on the whole grid, to add patches to one at a time."""
        return like.new_zeros((*like.shape[:-1], math.prod(self.grid.shape)))

    def add(
        self, whole: Float[Tensor, "*batch cells"], tile: Tile, x: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch cells"]:
        r"""Returns the whole with a weighed patch added to it, in place."""
        return whole.index_add_(-1, tile.nodes.to(x.device), x * tile.weights.to(x))

    def gather(self, whole: Float[Tensor, "*batch cells"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the nodes that are not masked."""
        return whole if self.grid.mask is None else whole[..., self.grid.mask]


def _fade(size: int, halo: int, overlap: int, left: bool, right: bool) -> Float[Tensor, " s"]:
    r"""Returns weights along an axis: zero in the halo, then a smooth rise to one."""
    u = torch.arange(size, dtype=torch.float64)
    weight = torch.ones(size, dtype=torch.float64)
    for away, faded in ((u, left), (size - 1 - u, right)):
        if faded:
            rise = ((away - halo + 1) / (overlap + 1)).clamp(0.0, 1.0)
            weight = weight * (rise * math.pi / 2).sin().square()
    return weight
