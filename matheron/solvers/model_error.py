r"""The errors of a model, from data: expectation and maximisation over trajectories."""

from __future__ import annotations

__all__ = ["error_moment", "error_parts", "estimate_model_error"]

import torch

from jaxtyping import Float
from torch import Tensor

from .base import frozen
from .modal import Rule
from .smoother import Smoothed
from .trajectories import TrajectoryCost
from ..linalg.tridiagonal import BlockCholesky
from ..observations import Observation
from ..priors.dynamics import WeakConstraint

RULE = Rule("smoother", 60, 1e-4, 1e-9, strict=False)
"""What a minimisation is to reach: the next covariance undoes more."""


def error_moment(cost: TrajectoryCost, x: Float[Tensor, "b n"]) -> Float[Tensor, "s s"]:
    r"""Returns the mean of :math:`\mathbb{E}[\eta_k \eta_k^\top \mid y]` over times and members.

    The law of a trajectory is the Gaussian one about its minimum, in which errors are
    :math:`\eta_k = x_k - M(x_{k-1})`, and the model is linear.

    Arguments:
        cost: The cost.
        x: Its minima, with shape :math:`(b, n)`.
    """
    found, spread = error_parts(cost, x, cost.factor(x))
    return (found + spread) / (len(x) * (cost.prior.times - 1))


def error_parts(
    cost: TrajectoryCost, x: Float[Tensor, "b n"], factor: BlockCholesky
) -> tuple[Float[Tensor, "s s"], Float[Tensor, "s s"]]:
    r"""Returns the sums of :math:`\hat\eta_k \hat\eta_k^\top` and of the covariances of errors.

    Arguments:
        cost: The cost.
        x: Its minima, with shape :math:`(b, n)`.
        factor: The factor of the Gauss-Newton matrix there.
    """
    states = cost.prior.unfold(x)
    e = states[:, 1:] - cost.prior.advance(states[:, :-1])
    F = cost.tangents(states[:, :-1])
    S, below = factor.inverse_blocks()
    cross = below @ F.mT
    spread = S[:, 1:] - cross - cross.mT + F @ S[:, :-1] @ F.mT
    return torch.einsum("bks,bkt->st", e, e), spread.sum(dim=(0, 1))


def estimate_model_error(
    prior: WeakConstraint,
    observation: Observation,
    y: Float[Tensor, "b m"],
    iterations: int = 20,
    diagonal: bool = False,
    stages: int = 5,
) -> Float[Tensor, "s s"]:
    r"""Returns the covariance of model errors that makes data most likely.

    .. math:: Q \leftarrow \frac{1}{b (K - 1)} \sum_{i, k}
        \mathbb{E}_Q[\eta_{ik} \eta_{ik}^\top \mid y_i]

    Each round raises the likelihood of the data, or its approximation by Laplace's method where
    the model is not linear. Errors that data hardly see take many rounds.

    References:
        | An approach to time series smoothing and forecasting using the EM algorithm
        | (Shumway & Stoffer, 1982)
        | https://doi.org/10.1111/j.1467-9892.1982.tb00349.x
        | A review of innovation-based methods to jointly estimate model and observation error
        | covariance matrices in ensemble data assimilation (Tandeo et al., 2020)
        | https://doi.org/10.1175/MWR-D-19-0240.1

    Arguments:
        prior: The prior, whose own covariance of errors is the start: rather too large.
        observation: The observation.
        y: The data of several windows, with shape :math:`(b, m)`.
        iterations: The number of rounds.
        diagonal: Whether the errors of components are independent.
        stages: The number of stages of the first minimisation, as in :class:`Variational`.

    Raises:
        ValueError: If there is no round.

    Example:
        >>> from matheron import Grid, GriddedObservation
        >>> from matheron.dynamics import Lorenz63
        >>> grid = Grid(time=torch.arange(6.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 60.0).double()
        >>> prior = WeakConstraint(grid, Lorenz63(), 1, start, torch.ones(3).double())
        >>> seen = GriddedObservation(grid, torch.ones(18).bool(), 0.5)
        >>> y = seen.sample(prior.sample(2, torch.Generator().manual_seed(0)))
        >>> estimate_model_error(prior, seen, y, iterations=2).shape
        torch.Size([3, 3])
    """
    if iterations < 1:
        msg = (
            f"estimate_model_error(iterations=...): expected one or more, got {iterations}. Try "
            "20."
        )
        raise ValueError(msg)
    with torch.no_grad():
        law = Smoothed(frozen(prior), frozen(observation), RULE, stages)
        cost = law.cost(y)
        x = law.minimum(y).v
        for round_ in range(iterations):
            Q = error_moment(cost, x)
            Q = torch.diag(Q.diagonal()) if diagonal else (Q + Q.mT) / 2
            cost = TrajectoryCost(law.prior, law.curvature, y, torch.linalg.cholesky(Q))
            x = x if round_ + 1 == iterations else law.descend(cost, x).v
    return Q
