r"""The cost of the nodes of a field, of which only a sparse curvature is ever formed."""

from __future__ import annotations

__all__ = ["NodalCost", "NodalGaussNewton", "NodalView"]

import torch

from jaxtyping import Float, Int
from torch import Tensor

from .descent import Direction, Objective
from .sight import noise_weights, sight
from ..linalg.jacobian import SparseJacobian
from ..linalg.sparse import Sparse
from ..observations import LinearObservation, NonlinearObservation, Observation
from ..priors.base import GaussianPrior
from ..priors.nodal import Nodal


class NodalView:
    r"""A prior on nodes and an observation of its field, with what does not change done.

    Arguments:
        where: The caller, to be named in an error.
        prior: The prior.
        observation: The observation: linear, or nonlinear with independent noise.

    Raises:
        ValueError: If a trend is unknown, or a datum has no noise.
        TypeError: If an observation of another kind is given.
    """

    def __init__(self, where: str, prior: Nodal, observation: Observation) -> None:
        self.where, self.prior, self.observation = where, prior, observation
        if isinstance(prior, GaussianPrior) and prior.design(prior.domain.points).shape[1]:
            msg = (
                f"{where}(prior=...): expected a prior without an unknown trend, got "
                f"{type(prior).__name__} with one. Give its mean, or use SparseCholesky()."
            )
            raise ValueError(msg)
        self.embedding = prior.embedding(prior.domain.points).detach()
        self.mean = prior.mean(prior.domain.points).detach()
        self.prior_cost = prior.prepare_nodes()
        self.size = self.embedding.shape[1]
        self._set_data()

    def _set_data(self) -> None:
        h = self.observation
        if isinstance(h, LinearObservation):
            self.weights = noise_weights(h, self.where).detach()
            self.sight, self.offset = sight(self.prior, h), h.seen(self.prior.mean).detach()
            self.biases = h.bias_design.detach().contiguous()
            WB = self.weights @ self.biases
            self._inner = torch.diag(1 / h.bias_variance.detach()) + self.biases.mT @ WB
            self._gram = self.sight.T.product(self.weights.product(self.sight))
        elif isinstance(h, NonlinearObservation):
            self.weights = Sparse.diag(1 / h.noise_variance.detach())
            self._slope = SparseJacobian(h)
        else:
            msg = (
                f"{self.where}(observation=...): expected a LinearObservation or a "
                f"NonlinearObservation, got {type(h).__name__}. Use Variational()."
            )
            raise TypeError(msg)

    def decode(self, u: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the field of some nodes."""
        rows = u.reshape(-1, u.shape[-1]).mT.contiguous()
        return self.mean + (self.embedding @ rows).mT.reshape(*u.shape[:-1], -1)

    def data_cost(
        self, u: Float[Tensor, "b N"], y: Float[Tensor, "b m"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b N"]]:
        r"""Returns the cost of the data, and its gradient."""
        if isinstance(self.observation, LinearObservation):
            seen = self.offset + (self.sight @ u.mT.contiguous()).mT
            r = seen - self.observation.select(y)
            w = self._weigh(r)
            return (r * w).sum(dim=-1) / 2, (self.sight.T @ w.mT.contiguous()).mT
        with torch.enable_grad():
            x = self.decode(u).detach().requires_grad_()
            cost = self.observation.cost(x, y)
            (slope,) = torch.autograd.grad(cost.sum(), x)
        return cost.detach(), (self.embedding.T @ slope.mT.contiguous()).mT

    def _weigh(self, r: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        r"""Returns the inverse of the covariance of noise and biases, times each row."""
        w = (self.weights @ r.mT.contiguous()).mT
        if not self.biases.shape[1]:
            return w
        WB = self.weights @ self.biases
        return w - torch.linalg.solve(self._inner, (w @ self.biases).mT).mT @ WB.mT

    @torch.no_grad()
    def curvature(self, u: Float[Tensor, " N"]) -> Sparse:
        r"""Returns the Gauss-Newton matrix of prior and data, with room for the spread."""
        data = self._gram if isinstance(self.observation, LinearObservation) else self._bent(u)
        Q = self.prior_cost.curvature(u) + data
        # what the std of the nodes of the domain reads of the inverse must be in the pattern
        return Q.structure(self.embedding.gram().pattern)

    def _bent(self, u: Float[Tensor, " N"]) -> Sparse:
        G = self._slope(self.decode(u)).product(self.embedding)
        return G.T.product(self.weights.product(G))


class NodalCost(Objective):
    r"""The cost of prior and data, for every member of a batch of nodes.

    Arguments:
        view: The prior and the observation.
        y: The data, with shape :math:`(b, m)`.
    """

    def __init__(self, view: NodalView, y: Float[Tensor, "b m"]) -> None:
        self.view, self.y = view, y

    def take(self, members: Int[Tensor, " k"]) -> NodalCost:
        return NodalCost(self.view, self.y[members])

    @torch.no_grad()
    def gradient(self, v: Float[Tensor, "b N"]) -> tuple[Float[Tensor, " b"], Tensor]:
        prior, slope = self.view.prior_cost(v)
        data, more = self.view.data_cost(v, self.y)
        return prior + data, slope + more


class NodalGaussNewton(Direction):
    r"""The way to the minimum, were innovations and data linear in the nodes."""

    def __call__(
        self,
        objective: Objective,
        v: Float[Tensor, "k N"],
        g: Float[Tensor, "k N"],
        members: Int[Tensor, " k"],
    ) -> Float[Tensor, "k N"]:
        assert isinstance(objective, NodalCost)
        view = objective.view
        solve = lambda u, b: view.prior.factorise(view.curvature(u), view.where).solve(b)
        return -torch.stack([solve(u, b) for u, b in zip(v, g, strict=True)])
