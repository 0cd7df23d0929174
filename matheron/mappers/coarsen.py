r"""Data made fewer by the means of blocks along their files."""

from __future__ import annotations

__all__ = ["NADIR", "SWATH", "coarsen"]

import math
import torch

from collections.abc import Mapping, Sequence
from numpy.typing import ArrayLike
from torch import Tensor

NADIR = (5,)
"""The block of a nadir file in the 2020a challenge: five values along the track."""
SWATH = (15, 6)
"""The block of a swath file: fifteen lines of six pixels."""


def coarsen(
    columns: Mapping[str, ArrayLike | Tensor], block: Sequence[int] = NADIR
) -> dict[str, Tensor]:
    r"""Returns the means of blocks of each column, along the axes of the file.

    What is left at the end of an axis and fills no block is dropped; missing values are left out
    of a mean. Columns with the first axes only, such as the time of a swath, are repeated along
    the others. Blocks know nothing of gaps: one that spans two passes averages their positions,
    as the challenge does.

    Arguments:
        columns: Coordinates and values as the file has them, with shape :math:`(l)` or
            :math:`(l, c)`; times in days, longitudes on one branch.
        block: The number of values along each axis.

    Returns:
        The columns, flat and of one length, where all have a value.

    Raises:
        ValueError: If ``block`` is not positive, or a column does not have the axes of the block.

    Example:
        >>> found = coarsen({"time": [0.0, 1.0, 2.0], "ssh": [1.0, float("nan"), 3.0]}, (2,))
        >>> {k: v.tolist() for k, v in found.items()}
        {'time': [0.5], 'ssh': [1.0]}
    """
    if not block or any(size < 1 for size in block):
        msg = f"coarsen(block=...): expected positive sizes, got {tuple(block)}. Use e.g. (5,)."
        raise ValueError(msg)
    tensors = {k: torch.as_tensor(v).to(torch.float64) for k, v in columns.items()}
    most = max(tensors.values(), key=lambda v: v.ndim, default=torch.zeros(0))
    for name, v in tensors.items():
        if v.shape != most.shape[: v.ndim] or most.ndim != len(block) or v.ndim == 0:
            msg = (
                f"coarsen(columns={name!r}): expected the first axes of shape "
                f"{tuple(most.shape)}, as many as in the block {tuple(block)}, got "
                f"{tuple(v.shape)}. Give one size per axis of the file."
            )
            raise ValueError(msg)
    means = {k: _means(v, block) for k, v in tensors.items()}
    shape = [size // b for size, b in zip(most.shape, block, strict=True)]
    full = {k: _flat(v, shape) for k, v in means.items()}
    kept = torch.ones(math.prod(shape), dtype=torch.bool)
    for v in full.values():
        kept &= v.isfinite()
    return {k: v[kept] for k, v in full.items()}


def _means(v: Tensor, block: Sequence[int]) -> Tensor:
    for axis, size in enumerate(block[: v.ndim]):
        v = v.narrow(axis, 0, v.shape[axis] // size * size)
    for axis, size in enumerate(block[: v.ndim]):
        v = v.unflatten(2 * axis, (-1, size)) if v.shape[2 * axis] else v.unsqueeze(2 * axis + 1)
    axes = tuple(range(1, v.ndim, 2))
    return v.nanmean(dim=axes)


def _flat(v: Tensor, shape: Sequence[int]) -> Tensor:
    return v.reshape(*v.shape, *[1] * (len(shape) - v.ndim)).expand(*shape).flatten()
