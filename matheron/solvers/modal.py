r"""What all variational solvers share: a law about the minimum of a cost."""

from __future__ import annotations

__all__ = ["ModalConditional", "Rule"]

import abc
import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor
from typing import Any

from .descent import Minimum
from ..observations import Observation
from ..posterior import Conditional
from ..priors.base import Prior


@dataclass(frozen=True)
class Rule:
    r"""The rule that stops a minimisation; it looks at cost and gradient only.

    Arguments:
        method: The name of the method.
        steps: The largest number of steps.
        tolerance: The norm of the gradient to reach.
        decrease: The relative decrease of the cost that is none.
        strict: Whether to raise where the minimisation did not converge.
    """

    method: str
    steps: int
    tolerance: float
    decrease: float
    strict: bool


class ModalConditional(Conditional):
    r"""A conditional law about the minimum of a cost; the minima of the last data are kept.

    Arguments:
        prior: The prior.
        observation: The observation.
        rule: The rule that stops.
    """

    def __init__(self, prior: Prior, observation: Observation, rule: Rule) -> None:
        super().__init__(prior, observation)
        self.rule = rule
        self._last: tuple[Tensor, Minimum] | None = None

    @abc.abstractmethod
    def minimum(self, y: Float[Tensor, "b m"]) -> Minimum:
        r"""Returns the minima of the costs of a batch of data."""

    @abc.abstractmethod
    def field(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the field of what is moved."""

    @torch.no_grad()
    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        rows = y.reshape(-1, y.shape[-1])
        self._last = (rows.nan_to_num(), self.minimum(rows))
        return self.field(self._last[1].v).reshape(*y.shape[:-1], -1)

    @torch.no_grad()
    def mode(self, y: Float[Tensor, " m"]) -> Minimum:
        r"""Returns the minimum of the cost; those of the last batch are remembered."""
        if self._last is not None and self._last[0].shape[1] == len(y):
            same = (self._last[0] == y.nan_to_num()).all(dim=-1)  # gaps may hold NaN
            if same.any():
                return self._last[1].take(torch.nonzero(same)[0])
        found = self.minimum(y[None])
        self._last = (y[None].nan_to_num(), found)
        return found

    def checked(self, found: Minimum) -> Minimum:
        r"""Returns minima, or says which are none."""
        if self.rule.strict and not found.converged.all():
            worst = found.gradient_norm[~found.converged].max().item()
            msg = (
                f"Variational: expected gradients under {self.rule.tolerance:g} in "
                f"{self.rule.steps} steps, got {worst:.3g} for {int((~found.converged).sum())} "
                f"of {len(found.converged)} members. Raise steps or tolerance, cut the data into "
                "windows=..., take more stages=..., or pass strict=False."
            )
            raise ValueError(msg)
        return found

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        found = self.mode(y)
        return {
            "method": self.rule.method,
            "converged": bool(found.converged[0]),
            "iterations": int(found.iterations[0]),
            "cost": found.cost[0].item(),
            "gradient_norm": found.gradient_norm[0].item(),
            "controls": found.v.shape[1],
        }
