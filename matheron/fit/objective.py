r"""What a training makes small: the loss of a solver and a prior, as a function of batches."""

from __future__ import annotations

__all__ = ["Objective", "Observe", "Sealed", "observe"]

import hashlib
import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor
from typing import Any, Generic, TypeVar

from .losses import Loss, Outcome
from ..data.batches import GUESS, Batch
from ..observations import GriddedObservation, Informed, Observation
from ..observations.informed import with_known
from ..priors.base import Prior
from ..solvers.base import Solver
from ..solvers.neural import LearnedConditional

Observe = Callable[[Batch], tuple[Observation, Tensor]]
"""What makes an observation, and data, of a batch."""


T = TypeVar("T")


class Sealed(Generic[T]):
    r"""What no precision plugin looks into: data and losses stay in double precision."""

    def __init__(self, content: T) -> None:
        self.content = content


def observe(batch: Batch) -> tuple[Observation, Tensor]:
    r"""Returns the observation of a gridded field with gaps, and its data.

    Covariates come after the data: a first guess, then the others in the order of their names,
    which are of order one, and where each is known; see :class:`Informed`.
    """
    observation: Observation = GriddedObservation(batch.grid, batch.mask, batch.noise_std)
    guess = [values for name, (values, _) in batch.covariates.items() if name == GUESS]
    names = sorted(batch.covariates.keys() - {GUESS})
    pairs = [batch.covariates[name] for name in names]
    others = [x for values, known in pairs for x in (values, known.to(values.dtype))]
    if guess or others:
        observation = Informed(observation, len(guess), with_known(names))
    return observation.to(batch.values.device), torch.cat([batch.values, *guess, *others], dim=-1)


class Objective(nn.Module):
    r"""The loss of a solver and a prior, as a function of batches.

    Arguments:
        solver: The solver.
        prior: The prior.
        loss: The loss.
        observe: What makes an observation, and data, of a batch.
    """

    def __init__(
        self, solver: Solver[Any], prior: Prior, loss: Loss, observe: Observe = observe
    ) -> None:
        super().__init__()
        self.solver, self.prior, self.loss, self.observe = solver, prior, loss, observe
        self.own = nn.ModuleList(loss.modules)

    def solve(self, batch: Batch) -> Outcome:
        r"""Returns what the solver makes of a batch."""
        observation, y = self.observe(batch)
        conditional = self.solver(self.prior, observation)
        if isinstance(conditional, LearnedConditional):
            found = conditional.solved(y, self.loss.iterates)
            told = (found.x, found.iterates, found.theta)
            return Outcome(batch, self.prior, observation, y, *told)
        if self.loss.iterates:
            msg = (
                f"train(loss={self.loss}): expected a solver that gives its iterates, got "
                f"{type(self.solver).__name__}. Use the loss without every_iterate."
            )
            raise TypeError(msg)
        return Outcome(batch, self.prior, observation, y, conditional.estimate(y))

    def values(self, batch: Batch) -> Float[Tensor, " b"]:
        r"""Returns the loss of each window."""
        return self.loss(self.solve(batch))

    def forward(self, batch: Sealed[Batch]) -> Sealed[Tensor]:
        r"""Returns the mean loss of the windows of a batch."""
        return Sealed(self.values(batch.content).mean())

    def groups(self, factor: float) -> list[dict[str, Any]]:
        r"""Returns the parameters that move, each once, with the factor of their rate."""
        found: list[dict[str, Any]] = []
        known: set[int] = set()
        for module, own in ((self.solver, 1.0), (self.prior, factor), (self.own, 1.0)):
            moving = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
            known |= {id(p) for p in moving}
            if moving:
                found.append({"params": moving, "factor": own})
        if not found:
            msg = (
                f"train(solver=...): expected parameters that may move, got none in "
                f"{type(self.solver).__name__} and {type(self.prior).__name__}. Use "
                "requires_grad_(True), or a solver that learns."
            )
            raise ValueError(msg)
        return found

    def architecture(self) -> str:
        r"""Returns what tells it from others: its parts, and the shapes of their numbers."""
        parts = [(name, type(m).__name__) for name, m in self.named_modules()]
        shapes = [(k, tuple(v.shape), str(v.dtype)) for k, v in self.state_dict().items()]
        return hashlib.blake2b(repr((parts, shapes)).encode(), digest_size=8).hexdigest()
