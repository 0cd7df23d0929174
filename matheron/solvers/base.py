r"""What a solver is: prior and observation in, conditional law out."""

from __future__ import annotations

__all__ = [
    "Likelihood",
    "LikelihoodSolver",
    "Score",
    "Solver",
    "check_linear",
    "check_trend",
    "frozen",
]

import abc
import copy
import torch
import torch.nn as nn

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor
from typing import ClassVar, Generic, TypeVar

from ..observations import LinearObservation, Observation
from ..posterior import Conditional
from ..priors.base import Prior

P = TypeVar("P", bound=Prior)
M = TypeVar("M", bound="Prior | Observation")


class Solver(nn.Module, abc.ABC, Generic[P]):
    r"""A map from a prior and an observation to the conditional law :math:`p(x \mid \cdot)`."""

    requires: ClassVar[type[Prior]] = Prior

    @abc.abstractmethod
    def prepare(self, prior: P, observation: Observation) -> Conditional:
        r"""Does what does not depend on the data: orders, factorises, compiles."""

    def forward(self, prior: P, observation: Observation) -> Conditional:
        if not isinstance(prior, self.requires):
            msg = (
                f"{type(self).__name__}(prior=...): expected a prior that is "
                f"{self.requires.__name__}, got {type(prior).__name__}. "
                f"{_accepting(prior)}"
            )
            raise TypeError(msg)
        return self.prepare(prior, observation)


def _accepting(prior: Prior) -> str:
    every = _descendants(Solver)  # type: ignore[type-abstract]
    names = sorted(solver.__name__ for solver in every if isinstance(prior, solver.requires))
    return f"Solvers that accept it: {', '.join(names) or 'none yet'}."


def _descendants(cls: type[Solver]) -> set[type[Solver]]:
    below: set[type[Solver]] = {s for c in cls.__subclasses__() for s in {c} | _descendants(c)}
    return {c for c in below if not getattr(c, "__abstractmethods__", None)}


def check_linear(solver: Solver, observation: Observation) -> LinearObservation:
    r"""Returns the observation if it is linear, and says so if it is not."""
    if not isinstance(observation, LinearObservation):
        msg = (
            f"{type(solver).__name__}(observation=...): expected a LinearObservation, got "
            f"{type(observation).__name__}. Use a variational or a diffusion solver."
        )
        raise TypeError(msg)
    return observation


def frozen(module: M) -> M:
    r"""Returns a copy whose parameters stay, so that a posterior is not moved by a later fit.

    The domain is shared, not copied.
    """
    memo = {id(module.domain): module.domain}
    copied = copy.deepcopy(module, memo)
    copied.requires_grad_(False)
    return copied


@torch.no_grad()
def check_trend(where: str, A: Float[Tensor, "p p"]) -> None:
    r"""Says so if the normal matrix :math:`F^\top S^{-1} F` of a trend is singular."""
    scale = A.diagonal().sqrt().clamp(min=1e-300)
    if len(A) and torch.linalg.matrix_rank(A / (scale[:, None] * scale)) < len(A):
        msg = (
            f"{where}(prior=...): expected a trend that the data can tell, got {len(A)} columns "
            "of lower rank. Drop terms from the trend."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Score:
    r"""The log-likelihood, its gradient and the Fisher information, for :math:`p` parameters.

    Arguments:
        value: The log-likelihood.
        gradient: Its gradient, with shape :math:`(p)`.
        information: The expected information, with shape :math:`(p, p)`.
    """

    value: float
    gradient: Float[Tensor, " p"]
    information: Float[Tensor, "p p"]


class Likelihood(abc.ABC):
    r"""The likelihood of given data, with the geometry of the solver held fixed."""

    @abc.abstractmethod
    def value(self) -> Float[Tensor, ""]:
        r"""Returns :math:`\log p(y)`, differentiable in the parameters of prior and observation.

        The coefficients of an unknown trend are at their maximum.
        """

    @abc.abstractmethod
    def coefficients(self) -> tuple[Float[Tensor, " q"], Float[Tensor, "q q"]]:
        r"""Returns the coefficients of the trend at the maximum, and their covariance."""

    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        r"""Returns value, gradient and Fisher information, or ``None`` if out of reach."""
        return None


class LikelihoodSolver(Solver[P]):
    r"""A solver that knows the likelihood of the data, so that a fit can maximise it."""

    @abc.abstractmethod
    def likelihood(
        self, prior: P, observation: LinearObservation, y: Float[Tensor, " m"]
    ) -> Likelihood:
        r"""Returns the likelihood, with the geometry that the present parameters call for."""

    def coarse(self) -> LikelihoodSolver[P] | None:
        r"""Returns a cheaper solver to start a fit with, if there is one."""
        return None
