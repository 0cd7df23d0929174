r"""What data see of the nodes of a Markov field."""

from __future__ import annotations

__all__ = ["noise_weights", "sight"]

from ..linalg.sparse import Sparse
from ..observations import LinearObservation
from ..priors.nodal import Nodal


def sight(prior: Nodal, observation: LinearObservation) -> Sparse:
    r"""Returns :math:`G`, the data from the nodes, without noise, with shape (m, N)."""
    if observation.pointwise:
        return prior.sight(observation.points).detach()
    H = observation.matrix()
    return H.product(prior.embedding(prior.domain.points).detach())


def noise_weights(observation: LinearObservation, where: str) -> Sparse:
    r"""Returns :math:`R^{-1}`, checked to be finite."""
    weights = observation.noise_precision()
    if not weights.values.isfinite().all():
        msg = (
            f"{where}(observation=...): expected noise_std > 0 for every datum, got 0. "
            "Give a small one, e.g. 1e-3 of the std of the field."
        )
        raise ValueError(msg)
    return weights
