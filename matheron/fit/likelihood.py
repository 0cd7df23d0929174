r"""The likelihood that a fit maximises: of every geometry, every replicate, less a penalty."""

from __future__ import annotations

__all__ = ["Joint", "Parts", "default_solver", "joint", "parts"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from ..observations import LinearObservation
from ..priors.base import GaussianPrior
from ..priors.expansion import ExpansionPrior
from ..priors.markov import MarkovPrior
from ..solvers.base import Likelihood, LikelihoodSolver, Score
from ..solvers.kriging import Kriging
from ..solvers.sparse_cholesky import SparseCholesky
from ..solvers.vecchia import Vecchia

Parts = list[tuple[LinearObservation, Float[Tensor, "..."]]]
"""Each geometry with its data: a vector, or independent replicates of it."""


def default_solver(size: int, prior: GaussianPrior | None = None) -> LikelihoodSolver:
    r"""Returns the solver to use for a number of data: exact while that is quick."""
    if isinstance(prior, ExpansionPrior):
        return Kriging()  # its coefficients are many, and all seen by each other
    if isinstance(prior, MarkovPrior):
        return SparseCholesky()
    return Kriging() if size <= 1500 else Vecchia()


def parts(
    observation: LinearObservation | Sequence[LinearObservation],
    y: Float[Tensor, ...] | Sequence[Float[Tensor, ...]],
) -> Parts:
    r"""Returns each observation with its data, checked to be as many."""
    if isinstance(observation, LinearObservation) and isinstance(y, Tensor):
        return [(observation, _replicates(y))]
    if isinstance(observation, LinearObservation) or isinstance(y, Tensor):
        observation, y = [], [torch.zeros(1)]
    if len(observation) != len(y) or not len(y):
        msg = (
            f"maximum_likelihood(observation=..., y=...): expected as many observations as data, "
            f"got {len(observation) or 'one'} and {len(y)}. Give one of each, or two lists alike."
        )
        raise ValueError(msg)
    return [(o, _replicates(v)) for o, v in zip(observation, y, strict=True)]


def _replicates(y: Float[Tensor, ...]) -> Float[Tensor, ...]:
    if y.ndim not in {1, 2} or y.shape[0] == 0:
        msg = (
            f"maximum_likelihood(y=...): expected shape (m), or (r, m) for replicates, got "
            f"{tuple(y.shape)}. Put the replicates first."
        )
        raise ValueError(msg)
    return y


class Joint(Likelihood):
    r"""The sum of the likelihoods of independent data, less the penalty of the prior.

    Each has its own coefficients of the trend; those that are reported are their average.

    Arguments:
        each: The likelihoods.
        prior: The prior, whose penalty to subtract.
    """

    def __init__(self, each: Sequence[Likelihood], prior: GaussianPrior) -> None:
        self.each, self.prior = each, prior

    def value(self) -> Float[Tensor, ""]:
        total = -self.prior.penalty()
        for likelihood in self.each:
            total = total + likelihood.value()
        return total

    def coefficients(self) -> tuple[Float[Tensor, " q"], Float[Tensor, "q q"]]:
        found = [likelihood.coefficients() for likelihood in self.each]
        k = len(found)
        beta = torch.stack([b for b, _ in found]).mean(dim=0)
        return beta, torch.stack([V for _, V in found]).sum(dim=0) / k**2

    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        scores = [likelihood.score(parameters) for likelihood in self.each]
        known = [s for s in scores if s is not None]
        if len(known) < len(scores):
            return None
        value, gradient, curvature = _penalty(self.prior, parameters)
        for s in known:
            value, gradient = value + s.value, gradient + s.gradient
            curvature = curvature + s.information
        return Score(value, gradient, curvature)


def _penalty(
    prior: GaussianPrior, parameters: Sequence[nn.Parameter]
) -> tuple[float, Float[Tensor, " p"], Float[Tensor, "p p"]]:
    r"""Returns minus the penalty, its gradient, and the curvature that it adds."""
    size = sum(p.numel() for p in parameters)
    flat, curvature = torch.zeros(size).double(), torch.zeros(size, size).double()
    with torch.enable_grad():
        value = prior.penalty()
        if not value.requires_grad:
            return -value.item(), flat, curvature
        slope = _gradient(value, parameters, again=True)
        if slope.requires_grad:
            rows = [_gradient(s, parameters) for s in slope]
            curvature = torch.stack(rows).detach()
    return -value.item(), -slope.detach(), curvature


def _gradient(
    value: Tensor, parameters: Sequence[nn.Parameter], again: bool = False
) -> Float[Tensor, " p"]:
    slopes = torch.autograd.grad(
        value, parameters, allow_unused=True, retain_graph=True, create_graph=again
    )
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, slopes, strict=True)
    ]
    return torch.cat([f.reshape(-1) for f in filled])


def joint(solver: LikelihoodSolver, prior: GaussianPrior, every: Parts) -> Joint:
    r"""Returns the likelihood of all the data, with the geometry of the present parameters."""
    each: list[Likelihood] = []
    for observation, y in every:
        if y.ndim == 1 or isinstance(solver, SparseCholesky):  # which shares the factor
            each.append(solver.likelihood(prior, observation, y))
        else:
            each += [solver.likelihood(prior, observation, v) for v in y]
    return Joint(each, prior)
