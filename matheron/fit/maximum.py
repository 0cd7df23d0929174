r"""Maximum likelihood: the loop over geometries, and its report."""

from __future__ import annotations

__all__ = ["maximum_likelihood"]

import warnings

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor
from typing import TypeVar

from .likelihood import default_solver, joint, parts
from .optimise import Progress, flat, free, maximise
from .report import report
from ..observations import LinearObservation
from ..priors.base import GaussianPrior
from ..priors.markov import MarkovPrior
from ..solvers.base import LikelihoodSolver

P = TypeVar("P", bound=GaussianPrior)


def maximum_likelihood(
    prior: P,
    observation: LinearObservation | Sequence[LinearObservation],
    y: Float[Tensor, ...] | Sequence[Float[Tensor, ...]],
    solver: LikelihoodSolver | None = None,
    steps: int | None = None,
    tolerance: float = 0.02,
    refresh: int = 3,
    progress: Progress | None = None,
    coarse: bool = True,
) -> P:
    r"""Fits a prior, and what is learned of the noise, by maximum likelihood.

    Parameters are changed in place, as when a network is trained; the prior is returned, with the
    report as ``prior.fitted``, printed by ``prior.summary()``. Those that do not require a
    gradient are left as they are. The noise is fitted where the observation was built with
    ``learn_noise=True``.

    Data may be independent replicates seen at the same points, or a list of observations, each
    with data of its own (other days, other tracks): their likelihoods are summed, each with its
    own coefficients of the trend. Observations whose noise shares one ``log_scale`` are of one
    instrument. What the prior's parameter fields cost is subtracted from the likelihood: the
    estimates are then those of largest posterior density.

    The coefficients of the trend are profiled out (generalised least squares). Fisher scoring is
    used for up to 25 parameters, L-BFGS beyond, with steps of at most 1 in any parameter. Where
    the solver orders data by the kernel, the order is refreshed as the lengthscales change.

    References:
        | Gaussian process learning via Fisher scoring of Vecchia's approximation (Guinness, 2021)
        | https://doi.org/10.1007/s11222-020-09999-1

    Arguments:
        prior: The prior, with its parameters at a first guess.
        observation: The observation, with its noise at a first guess; or a list of them.
        y: The data, with shape :math:`(m)`, or :math:`(r, m)` for replicates; or a list of them.
        solver: Whose likelihood to maximise. By default :class:`SparseCholesky` for a Markov
            prior; for others, :class:`Vecchia` above 1500 data, :class:`Kriging` below.
        steps: The largest number of steps at each refreshed geometry: by default 40 of scoring,
            200 of L-BFGS.
        tolerance: The gain in log-likelihood below which to stop.
        refresh: The largest number of times to refresh the geometry.
        progress: Called with the step and the (penalised) log-likelihood after each step.
        coarse: Whether to start with a cheaper likelihood, where the solver has one.

    Raises:
        ValueError: If nothing is to be learned, data are not finite, or there are not as many
            observations as data.

    Example:
        >>> import matheron as mt
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> line = mt.Points(x=torch.arange(200.0))
        >>> truth = mt.GaussianProcess(mt.Matern(0.5, lengthscale=5.0), line)
        >>> y = truth.sample(1, generator)[0]
        >>> seen = mt.PointObservation(line, line, noise_std=0.0)
        >>> prior = mt.GaussianProcess(mt.Matern(0.5), line)
        >>> prior = mt.fit.maximum_likelihood(prior, seen, y)
        >>> 2 < prior.kernel.lengthscale.item() < 12
        True
    """
    every = parts(observation, y)
    parameters = free(prior, *(seen for seen, _ in every))
    if not parameters:
        msg = (
            "maximum_likelihood(prior=...): expected parameters to learn, got none that require "
            "a gradient. Call prior.requires_grad_(True)."
        )
        raise ValueError(msg)
    solver = solver or default_solver(max(len(seen.points) for seen, _ in every), prior)
    say = progress or (lambda *_: None)
    total, converged = 0, False
    start = solver.coarse() if coarse else None
    if start is not None:
        likelihood = joint(start, prior, every)
        total += maximise(likelihood, parameters, steps, max(tolerance, 0.5), say)[0]
    rounds = 1 if isinstance(prior, MarkovPrior) else max(1, refresh)  # its pattern stays
    for _ in range(rounds):
        before = flat(parameters)
        likelihood = joint(solver, prior, every)
        taken, converged = maximise(likelihood, parameters, steps, tolerance, say)
        total += taken
        if (flat(parameters) - before).abs().max() < 0.02:
            break
    result = report(prior, every, likelihood, parameters)
    result.iterations, result.converged = total, converged
    prior.fitted = result
    for text in result.warnings:
        warnings.warn(text, stacklevel=2)
    return prior
