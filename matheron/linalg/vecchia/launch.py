"""What the compiled passes have in common: memory, runs of blocks, checks."""

from __future__ import annotations

import numpy as np

from collections.abc import Sequence
from torch import Tensor

from .lanes import WIDTH
from .packing import Packed
from ..threads import chunked

__all__ = [
    "ROUND_OFF",
    "check_lengths",
    "extents",
    "neighbor_table",
    "raise_if_singular",
    "scratch_memory",
]

ROUND_OFF = 32 * np.finfo(np.float64).eps
"""Round-off of a pivot, per row of its block and per unit of variance, with a margin."""


def scratch_memory(size: int) -> np.ndarray:
    """Scratch memory aligned on a cache line."""
    memory = np.empty(size + 8)
    return memory[(-memory.ctypes.data // 8) % 8 :][:size]


def neighbor_table(neighbors: Tensor, rows: int, where: str) -> np.ndarray:
    """The table of neighbours as a contiguous int32 array, one row for each of ``rows`` points."""
    if neighbors.shape[0] != rows:
        msg = (
            f"{where}(neighbors=...): expected {rows} rows, got {neighbors.shape[0]}. "
            "Make them with previous_neighbors on the same points."
        )
        raise ValueError(msg)
    return np.ascontiguousarray(neighbors.detach().cpu().numpy(), dtype=np.int32)


def raise_if_singular(rows: Sequence[int], where: str) -> None:
    """Name the first datum whose block is not positive definite."""
    lost = [row for row in rows if row >= 0]
    if lost:
        msg = (
            f"{where}(noise=...): expected positive definite covariances, got one that is not "
            f"positive definite at datum {min(lost)}. "
            "Set noise_std > 0, or merge coincident data."
        )
        raise ValueError(msg)


def check_lengths(packed: Packed, where: str, **given: np.ndarray) -> None:
    """Every array must have one row per point, and finite numbers."""
    size = len(packed.coords)
    for name, values in given.items():
        if len(values) != size:
            msg = (
                f"{where}({name}=...): expected {size} rows, got {len(values)}. Give one per "
                "point, in the order of the coordinates."
            )
            raise ValueError(msg)
        if not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values.reshape(size, -1)).all(1)))
            msg = (
                f"{where}({name}=...): expected finite numbers, got {values[row]} at point "
                f"{row}. Drop this point."
            )
            raise ValueError(msg)


def extents(size: int) -> list[tuple[int, int]]:
    """Runs of blocks of points, the same for any number of threads."""
    return list(chunked((size + WIDTH - 1) // WIDTH))
