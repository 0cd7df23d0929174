r"""The law of trajectories given data, owned through ensembles."""

from __future__ import annotations

__all__ = ["EnsembleConditional"]

import abc
import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .arrivals import Arrivals
from ..base import frozen
from ...observations import Observation
from ...posterior import Sampler
from ...priors.dynamics import Markovian


class EnsembleConditional(Sampler):
    r"""A conditional law whose draws come by whole ensembles.

    Mean and standard deviation are those of one ensemble of ``size`` members, always the same;
    :meth:`sample` runs others.

    Arguments:
        where: The name of the solver, for the messages.
        prior: The prior.
        observation: The observation.
        size: The number :math:`N` of members.
        seed: The seed of the ensemble behind mean and standard deviation.
    """

    prior: Markovian

    def __init__(
        self, where: str, prior: Markovian, observation: Observation, size: int, seed: int
    ) -> None:
        super().__init__(frozen(prior), observation)
        if size < 2:
            msg = f"{where}(size=...): expected two members or more, got {size}. Try 50."
            raise ValueError(msg)
        self.size, self.seed = size, seed
        self.arrivals = Arrivals(where, self.prior, observation)
        self._last: tuple[Tensor, Tensor, dict[str, Any]] | None = None

    @abc.abstractmethod
    def run(
        self, y: Float[Tensor, " m"], generator: Generator | None
    ) -> tuple[Float[Tensor, "size n"], dict[str, Any]]:
        r"""Returns one ensemble of trajectories given checked data, and what to say of it."""

    def ensemble(self, y: Float[Tensor, " k"]) -> Float[Tensor, "size n"]:
        r"""Returns the ensemble behind mean and standard deviation."""
        return self._kept(y)[0]

    @torch.no_grad()
    def _kept(self, y: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if self._last is None or not torch.equal(self._last[0], y):
            generator = torch.Generator().manual_seed(self.seed)
            self._last = (y.clone(), *self.run(self.select(y), generator))
        return self._last[1], self._last[2]

    def select(self, y: Float[Tensor, " k"]) -> Float[Tensor, " m"]:
        r"""Returns the data, checked."""
        values: Tensor = self.arrivals.observation.select(y)  # type: ignore[operator]
        return values

    @torch.no_grad()
    def estimate(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        means = [self.ensemble(v).mean(dim=0) for v in y.reshape(-1, y.shape[-1])]
        return torch.stack(means).reshape(*y.shape[:-1], -1)

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " k"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        r"""Draws members: as many new ensembles as it takes."""
        values, runs = self.select(y), -(-size // self.size)
        return torch.cat([self.run(values, generator)[0] for _ in range(runs)])[:size]

    def std(
        self, y: Float[Tensor, " k"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        r"""Returns the standard deviation of the ensemble."""
        return self.ensemble(y).std(dim=0)

    def info(self, y: Float[Tensor, " k"]) -> dict[str, Any]:
        E, said = self._kept(y)
        return {"size": self.size, "spread": E.var(dim=0).mean().sqrt().item(), **said}
