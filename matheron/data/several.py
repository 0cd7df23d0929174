r"""Windows of several data sets as those of one."""

from __future__ import annotations

__all__ = ["Several"]

import bisect
import dataclasses
import itertools
import torch

from collections.abc import Sequence
from jaxtyping import Int
from torch import Tensor
from typing import Any

from .batches import Batch, Source, fingerprint_of


class Several(Source):
    r"""The windows of several sources, one after the other: e.g. of several simulated oceans.

    Arguments:
        sources: The sources, with windows of one size.

    Raises:
        ValueError: If there is none, or if their windows are of different sizes.

    Example:
        >>> from matheron.data import Windows
        >>> from matheron.domain import Grid
        >>> grid = Grid(time=range(4), x=range(3))
        >>> x = torch.ones(12, dtype=torch.float64)
        >>> one = Windows(grid, (3, 3), x, x > 0, 0.1, truth=x)
        >>> both = Several([one, one])
        >>> len(one), len(both), len(both.batch(torch.tensor([3, 0]), torch.tensor([1, 2])))
        (2, 4, 2)
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        shapes = {s.grid.shape for s in sources}
        if len(shapes) != 1:
            msg = (
                f"Several(sources=...): expected sources with windows of one size, got "
                f"{sorted(shapes)}. Cut them alike."
            )
            raise ValueError(msg)
        self.sources = list(sources)
        self.grid = sources[0].grid
        self.ends = list(itertools.accumulate(len(s) for s in sources))

    def __len__(self) -> int:
        return self.ends[-1]

    def fingerprint(self) -> str:
        return fingerprint_of([], *(s.fingerprint() for s in self.sources))

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        parts = [self._one(i, seeds[k : k + 1]) for k, i in enumerate(index.tolist())]
        return _joined(parts)

    def _one(self, i: int, seed: Int[Tensor, " 1"]) -> Batch:
        k = bisect.bisect_right(self.ends, i)
        first = self.ends[k] - len(self.sources[k])
        return self.sources[k].batch(torch.tensor([i - first]), seed)


def _joined(parts: list[Batch]) -> Batch:
    r"""Returns the windows of several batches as one."""

    def both(name: str) -> Any:
        told = [getattr(p, name) for p in parts]
        return None if told[0] is None else torch.cat(told)

    names = ("values", "mask", "weights", "truth", "hidden", "hidden_mask")
    found = {name: both(name) for name in names}
    noise = [p.noise_std for p in parts]
    if all(e.ndim == 0 for e in noise) and len(set(map(float, noise))) == 1:
        found["noise_std"] = noise[0]
    else:
        found["noise_std"] = torch.cat(
            [e.expand_as(p.values) for e, p in zip(noise, parts, strict=True)]
        )
    axes = {k: torch.cat([p.axes[k] for p in parts]) for k in parts[0].axes}
    others = {}
    for k in parts[0].covariates:
        values, known = zip(*(p.covariates[k] for p in parts), strict=True)
        others[k] = (torch.cat(values), torch.cat(known))
    return dataclasses.replace(parts[0], axes=axes, covariates=others, **found)
