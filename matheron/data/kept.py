r"""Windows that are kept whole: a few hundred of them, made beforehand."""

from __future__ import annotations

__all__ = ["KeptWindows"]

import torch

from collections.abc import Mapping, Sequence
from jaxtyping import Int
from torch import Generator, Tensor

from .batches import GUESS, Batch, Source, fingerprint_of
from .patches import Mirror
from ..domain import Grid

PARTS = ("values", "mask", "truth", GUESS)


class KeptWindows(Source):
    r"""Windows made beforehand, each with data, a truth and a first guess on all nodes.

    Arguments:
        grid: The grid of a window, with :math:`n` nodes.
        tensors: ``values``, ``mask``, ``truth`` and ``guess``, each with shape :math:`(k, n)`.
        noise_std: The standard deviation of the errors of the data.
        mirrors: The symmetries of the field: each window is turned by each, or not, by chance.

    Raises:
        ValueError: If a part is missing, or its shape is another.

    Example:
        >>> grid = Grid(x=range(5))
        >>> x = torch.zeros(3, 5, dtype=torch.float64)
        >>> parts = {"values": x, "mask": x == 0, "truth": x, "guess": x}
        >>> KeptWindows(grid, parts, 0.1).batch(torch.arange(2), torch.arange(2)).truth.shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        grid: Grid,
        tensors: Mapping[str, Tensor],
        noise_std: float,
        mirrors: Sequence[Mirror] = (),
    ) -> None:
        shapes = {k: tuple(tensors[k].shape) if k in tensors else None for k in PARTS}
        count = len(tensors[PARTS[0]]) if PARTS[0] in tensors else 0
        if not count or set(shapes.values()) != {(count, len(grid))}:
            msg = (
                f"KeptWindows(tensors=...): expected {', '.join(PARTS)} of {len(grid)} nodes "
                f"each, as many windows of each, got {shapes}. Give one row per window."
            )
            raise ValueError(msg)
        self.grid, self.tensors, self.mirrors = grid, dict(tensors), tuple(mirrors)
        self.noise = torch.tensor(noise_std, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.tensors["values"])

    def fingerprint(self) -> str:
        about = (self.noise.item(), [str(m) for m in self.mirrors])
        return fingerprint_of([self.tensors[k] for k in PARTS], *about)

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        rows = [self._window(int(i), int(s)) for i, s in zip(index, seeds, strict=True)]
        values, mask, truth, guess = (torch.stack([r[k] for r in rows]) for k in PARTS)
        return Batch(
            self.grid,
            values,
            mask,
            self.noise,
            torch.ones_like(truth),
            truth,
            covariates={GUESS: (guess, torch.ones_like(mask))},
        )

    def _window(self, index: int, seed: int) -> dict[str, Tensor]:
        row = {k: self.tensors[k][index] for k in PARTS}
        row = {k: x if x.dtype == torch.bool else x.double() for k, x in row.items()}
        dice = Generator().manual_seed(seed)
        for mirror in self.mirrors:
            if torch.rand((), generator=dice).item() < 0.5:
                row = {k: self._turned(x, mirror) for k, x in row.items()}
        return row

    def _turned(self, x: Tensor, mirror: Mirror) -> Tensor:
        turned = mirror.turn(x.unflatten(0, self.grid.shape), self.grid.dims).flatten()
        return turned if x.dtype == torch.bool else mirror.sign * turned
