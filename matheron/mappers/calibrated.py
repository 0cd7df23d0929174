r"""The law of a mapper that runs a model: its members, spread to match held-out passes."""

from __future__ import annotations

__all__ = ["Calibrated", "held_out"]

import abc
import torch

from functools import cached_property
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from typing import Any

from .basin import Basin
from ..posterior import Conditional

HELD = 5
"""One pass in so many is held out, to calibrate the spread."""
LEAST, MOST = 0.2, 5.0
"""The limits of the factor of the spread."""


class Calibrated(Conditional):
    r"""A conditional law by runs of a model: the mean from one, the spread from a few.

    Members are runs with perturbed data and first guess. Their deviations from their mean are
    scaled by one factor, such that their variance and that of the noise make up the squared error
    at passes that a run is not given.

    Arguments:
        basin: The sea and its data.
        members: The number of runs of an ensemble that is asked for its std.
        seed: The seed of the runs that calibrate it.
    """

    def __init__(self, basin: Basin, members: int, seed: int) -> None:
        super().__init__(basin.prior, basin.observation)
        self.basin, self.members, self.seed = basin, members, seed

    @abc.abstractmethod
    def on(self, basin: Basin) -> Calibrated:
        r"""Returns the same law for other data."""

    @abc.abstractmethod
    def run(self, y: Float[Tensor, " m"]) -> Float[Tensor, "q n"]:
        r"""Returns heights every quarter of a day, from anomalies."""

    @abc.abstractmethod
    def runs(self, size: int, generator: Generator | None) -> Float[Tensor, "size q n"]:
        r"""Returns the heights of perturbed runs."""

    @cached_property
    def _center(self) -> Float[Tensor, " n"]:
        return self.basin.onto(self.run(self.basin.y))

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        rows = [
            self._center if torch.equal(v, self.basin.y) else self.basin.onto(self.run(v))
            for v in y.reshape(-1, y.shape[-1])
        ]
        return torch.stack(rows).reshape(*y.shape[:-1], -1)

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        _check_data(self.basin, y)
        factor = self.factor
        runs = self.basin.onto(self.runs(max(size, 2), generator))
        apart = (runs - runs.mean(dim=0)) * (len(runs) / (len(runs) - 1)) ** 0.5
        return self._center + factor * apart[:size]

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        _check_data(self.basin, y)
        runs = self.basin.onto(self.runs(min(size, self.members), generator))
        return self.factor * runs.std(dim=0)

    @cached_property
    def factor(self) -> float:
        r"""The factor of the spread that passes held out ask for; one without passes."""
        held = held_out(self.basin)
        if held is None:
            return 1.0
        law, basin = self.on(self.basin.take(~held)), self.basin.take(held)
        generator = torch.Generator().manual_seed(self.seed)
        error = basin.seen(law.run(law.basin.y)) - basin.y
        spread = basin.seen(law.runs(self.members, generator)).var(dim=0)
        more = error.square() - basin.observation.noise_variance.detach()
        ratio = more.mean() / spread.mean().clamp(min=1e-18)
        return ratio.clamp(LEAST**2, MOST**2).sqrt().item()

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {"spread_factor": self.factor}


def held_out(basin: Basin) -> Bool[Tensor, " m"] | None:
    r"""Returns the data of the passes that are held out, if there are some and others."""
    if basin.data.passes is None:
        return None
    held = basin.data.passes % HELD == 0
    return None if held.all() or not held.any() else held


def _check_data(basin: Basin, y: Tensor) -> None:
    if y.shape != basin.y.shape or not torch.equal(y, basin.y):
        msg = (
            f"Calibrated.sample(y=...): expected the data that the law was made for, got others "
            f"with shape {tuple(y.shape)}. Map the problem with these data."
        )
        raise ValueError(msg)
