r"""Cross-validation by blocks: how well held-out data are predicted."""

from __future__ import annotations

__all__ = ["blocks", "cross_validate", "predict"]

import torch

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .likelihood import default_solver
from ..domain import Points
from ..metrics.scores import summary as score_summary
from ..observations import LinearObservation
from ..priors.gp import GaussianProcess
from ..priors.markov import MarkovPrior
from ..solvers.base import Solver


def blocks(
    points: Points, size: float, folds: int = 5, generator: torch.Generator | None = None
) -> Int[Tensor, " m"]:
    r"""Returns a fold for each point, so that points of one block share a fold.

    Blocks are squares (boxes) of side ``size`` in space: metres on the sphere, units of the axes
    on the plane. Time is left out: a block holds all its times.

    Example:
        >>> from matheron.domain import Points
        >>> blocks(Points(x=[0.0, 0.1, 5.0]), size=1.0, folds=2).shape
        torch.Size([3])
    """
    if not size > 0:
        msg = f"blocks(size=...): expected a positive size, got {size}. Use the width of a gap."
        raise ValueError(msg)
    start = 1 if "time" in points.dims else 0
    cell = (points.local()[:, start:] / size).floor().long()
    _, block = torch.unique(cell, dim=0, return_inverse=True)
    count = int(block.max()) + 1
    if count < folds:
        msg = (
            f"blocks(size={size}): expected at least {folds} blocks, one per fold, got {count}. "
            "Use smaller blocks or fewer folds."
        )
        raise ValueError(msg)
    fold = torch.arange(count) % folds
    return fold[torch.randperm(count, generator=generator)][block]


def cross_validate(
    prior: GaussianProcess | MarkovPrior,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    blocks: Int[Tensor, " m"],
    solver: Solver | None = None,
) -> dict[str, float]:
    r"""Returns the scores of predicting each fold from the others.

    The parameters are those of the prior; they are not fitted again. Held-out data are predicted
    with their noise (and bias, where instruments have one).

    Arguments:
        prior: The prior.
        observation: The observation of all the data.
        y: The data.
        blocks: The fold of each datum, e.g. from :func:`matheron.fit.blocks`; a mission or a
            track number leaves those out in turn.
        solver: The solver, by default the one that fits the number of data.

    Raises:
        ValueError: If there is only one fold.

    Example:
        >>> import matheron as mt
        >>> line = mt.Points(x=torch.arange(20.0))
        >>> prior = mt.GaussianProcess(mt.Matern(1.5, lengthscale=5.0), line)
        >>> seen = mt.PointObservation(line, line, noise_std=0.1)
        >>> y = torch.sin(torch.arange(20.0, dtype=torch.float64) / 5)
        >>> scores = mt.fit.cross_validate(prior, seen, y, torch.arange(20) // 5)
        >>> scores["rmse"] < 1
        True
    """
    labels = torch.unique(blocks)
    if len(labels) < 2:
        msg = f"cross_validate(blocks=...): expected two folds or more, got {len(labels)}."
        raise ValueError(msg)
    v = observation.select(y)
    mean, std = torch.empty_like(v), torch.empty_like(v)
    for label in labels:
        out = blocks == label
        mean[out], std[out] = predict(prior, observation, v, ~out, out, solver)
    return score_summary(mean, std, v)


@torch.no_grad()
def predict(
    prior: GaussianProcess | MarkovPrior,
    observation: LinearObservation,
    v: Float[Tensor, " m"],
    kept: Bool[Tensor, " m"],
    out: Bool[Tensor, " m"],
    solver: Solver | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns mean and std (noise included) of the data ``out`` given the data ``kept``.

    Held-out data are taken for those of new instruments: the bias of one whose other data are
    kept is not added to the mean, and its variance is in the std.
    """
    targets = observation.points[out]
    solver = solver or default_solver(int(kept.sum()), prior)
    part = observation.take(kept, targets)
    posterior = solver(prior.on(targets), part)(v[kept])
    noise = observation.noise_variance[out]
    bias = (observation.bias_design.square() @ observation.bias_variance)[out]
    return posterior.mean, (posterior.std() ** 2 + noise + bias).sqrt()
