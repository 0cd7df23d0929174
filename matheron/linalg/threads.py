"""Work in a fixed number of pieces over a pool of threads: the same bits for any number of
threads.
"""

from __future__ import annotations

import torch

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["CHUNKS", "chunked", "in_threads"]

T = TypeVar("T")
CHUNKS = 32


def in_threads(function: Callable[[int], T], pieces: int) -> list[T]:
    """Results of ``function(0), ..., function(pieces - 1)`` in this order, over as many threads as
    torch uses.
    """
    workers = min(torch.get_num_threads(), pieces)
    if workers <= 1:
        return [function(k) for k in range(pieces)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, range(pieces)))


def chunked(size: int, pieces: int = CHUNKS) -> Sequence[tuple[int, int]]:
    """Bounds of at most ``pieces`` non-empty runs of ``size`` items, whatever the number of
    threads.
    """
    pieces = max(1, min(size, pieces))
    return [(k * size // pieces, (k + 1) * size // pieces) for k in range(pieces)]
