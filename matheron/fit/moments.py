r"""The mean and the variance of an exact posterior, with gradients in the parameters of a law."""

from __future__ import annotations

__all__ = ["posterior_moments"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor

from ..linalg.cholesky import Cholesky
from ..linalg.sparse import Sparse
from ..observations import LinearObservation
from ..priors.markov import MarkovPrior
from ..solvers.effects import Effects
from ..solvers.sight import noise_weights, sight

WHERE = "posterior_moments"


def posterior_moments(
    prior: MarkovPrior,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    probes: int = 4,
    generator: Generator | None = None,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""Returns the mean and the variance at the nodes of the domain, with gradients.

    .. math:: v = \operatorname{diag}(E Q^{-1} E^\top), \qquad
        \frac{\partial v_i}{\partial \theta} = \mathbb{E}_z \left[ z_i \,
        \frac{\partial}{\partial \theta} (E Q^{-1} E^\top z)_i \right]

    Both values are exact. The gradient of the variance would read all of the inverse of the
    precision: it is an average over some vectors :math:`z` of random signs instead, without bias,
    for one solution each.

    References:
        | A stochastic estimator of the trace of the influence matrix (Hutchinson, 1990)
        | https://doi.org/10.1080/03610919008812866

    Arguments:
        prior: The prior, without a trend.
        observation: The observation, without biases.
        y: The data.
        probes: The number of vectors of random signs.
        generator: The random number generator of the signs.

    Raises:
        ValueError: If there is a trend or a bias, or no probe.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=torch.arange(9.0))
        >>> prior = mt.WhittleMatern(grid, lengthscale=3.0, alpha=2.0)
        >>> seen = mt.GriddedObservation(grid, torch.arange(9) == 4, noise_std=0.1)
        >>> mean, variance = posterior_moments(prior, seen, torch.ones(9, dtype=torch.float64))
        >>> mean.argmax().item(), variance.argmin().item(), variance.requires_grad
        (4, 4, True)
    """
    if probes < 1 or Effects.of(prior, observation).columns.shape[1]:
        msg = (
            f"{WHERE}(prior=...): expected a law without trend and biases, and one probe or more, "
            f"got others or {probes}. Use SparseCholesky() for them, without gradients."
        )
        raise ValueError(msg)
    E, G = prior.embedding(prior.domain.points).detach(), sight(prior, observation)
    factor, b = _factor(prior, observation, G, E, y)
    signs = torch.randint(2, (E.shape[0], probes), generator=generator).double() * 2 - 1
    found = E @ factor.solve(torch.cat([b[:, None], E.T @ signs], dim=1))
    probed = (signs * found[:, 1:]).mean(dim=1)
    exact = factor.selected_inverse().sandwich(E)
    mean = prior.mean(prior.domain.points).detach() + found[:, 0]
    return mean, exact + (probed - probed.detach())


def _factor(
    prior: MarkovPrior, observation: LinearObservation, G: Sparse, E: Sparse, y: Tensor
) -> tuple[Cholesky, Float[Tensor, " N"]]:
    r"""Returns the factor of the posterior precision, and the right side of the mean."""
    r = observation.select(y) - observation.seen(prior.mean).detach()
    W = noise_weights(observation, WHERE)
    Q = _plus(prior.precision(), G.T.product(W.product(G)))
    # what the variance reads of the inverse must be in the pattern
    factor = prior.factorise(Q.structure(E.gram().pattern), WHERE)
    return factor, (G.T @ (W @ r[:, None]))[:, 0]


def _plus(Q: Sparse, more: Sparse) -> Sparse:
    r"""Returns the sum, on the pattern of the first where the other is diagonal.

    What is worked out for that pattern then serves for any places that are seen.
    """
    at = more.pattern.rows
    if not (at == more.pattern.indices).all():
        return Q + more
    places = torch.as_tensor(Q.pattern.find(at, at))
    return Sparse(Q.pattern, Q.values.index_add(0, places, more.values))
