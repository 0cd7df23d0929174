r"""What a walk goes over: numbers that stand for a field, their cost, Gaussian laws near it."""

from __future__ import annotations

__all__ = ["Ground", "ground_of"]

import abc
import torch

from jaxtyping import Float
from torch import Tensor

from .controls import Control, Cost, Tangent, control_of
from .descent import Objective
from .gaussian_laws import DiagonalLaw, GaussianLaw, SparseLaw
from .laplace import Spread, leading
from .nodes import NodalCost, NodalView
from ..observations import LinearObservation, NonlinearObservation, Observation
from ..priors.base import Energy
from ..priors.nodal import Nodal

EXACT = 2000
"""The most controls whose curvature is formed."""
HALVINGS = 20
"""How often a step to the bottom of a parabola is halved where it goes up."""


class Ground(abc.ABC):
    r"""Numbers that stand for a field.

    Attributes:
        size: Their count :math:`c`.
    """

    size: int

    @abc.abstractmethod
    def objective(self, y: Float[Tensor, "b m"]) -> Objective:
        r"""Returns the cost of prior and data, for every member of a batch."""

    @abc.abstractmethod
    def decode(self, v: Float[Tensor, "b c"]) -> Float[Tensor, "b n"]:
        r"""Returns fields."""

    @abc.abstractmethod
    def encode(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        r"""Returns what stands for some fields."""

    @abc.abstractmethod
    def prior_law(self) -> GaussianLaw:
        r"""Returns a Gaussian law as wide as the prior."""

    @abc.abstractmethod
    def law(self, v: Float[Tensor, " c"], y: Float[Tensor, " m"]) -> GaussianLaw:
        r"""Returns the law with the curvature of the cost about a place, centred there."""

    @torch.no_grad()
    def posterior_law(self, v: Float[Tensor, " c"], y: Float[Tensor, " m"]) -> GaussianLaw:
        r"""Returns the law about the bottom of the parabola at a place: one Gauss-Newton step.

        In a linear Gaussian problem it is the posterior, whatever the place.
        """
        objective, law = self.objective(y[None]), self.law(v, y)
        cost, g = objective.gradient(v[None])
        way = law.times(g)
        for k in range(HALVINGS):
            there = v[None] - way / 2**k
            if objective.gradient(there)[0] < cost:
                return self.law(there[0], y)
        return law


class _Controls(Ground):
    def __init__(self, control: Control, observation: Observation, rank: int) -> None:
        self.control, self.observation, self.size = control, observation, control.size
        self.rank = rank

    def objective(self, y: Float[Tensor, "b m"]) -> Objective:
        return Cost(self.control, self.observation, y)

    def decode(self, v: Float[Tensor, "b c"]) -> Float[Tensor, "b n"]:
        return self.control.decode(v)

    def encode(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        return self.control.encode(x)

    def prior_law(self) -> GaussianLaw:
        zero = torch.zeros(self.size, dtype=torch.float64)
        return DiagonalLaw(zero, torch.ones_like(zero))

    def law(self, v: Float[Tensor, " c"], y: Float[Tensor, " m"]) -> GaussianLaw:
        if self.size > EXACT and not self.control.white:
            return DiagonalLaw(v, torch.ones_like(v))
        tangent = Tangent(Cost(self.control, self.observation, y[None]), v[None])
        if self.size <= EXACT:
            return self._steep(v, tangent.matrix(tangent.of_data())[0])
        values, vectors = leading(tangent, min(self.rank, y.numel()), seed=0)
        return Spread(v, values=values, vectors=vectors)

    @staticmethod
    def _steep(v: Float[Tensor, " c"], H: Float[Tensor, "c c"]) -> GaussianLaw:
        r"""Returns the law of a curvature, positive where a prior is not convex."""
        L, info = torch.linalg.cholesky_ex(H)
        if info > 0:
            values, vectors = torch.linalg.eigh(H)
            steep = values.abs().clamp(min=1e-9 * values.abs().amax())
            L = torch.linalg.qr(steep.sqrt()[:, None] * vectors.mT).R.mT
        return Spread(v, L)


class _Nodes(Ground):
    def __init__(self, prior: Nodal, observation: Observation) -> None:
        self.prior, self.view = prior, NodalView("Langevin", prior, observation)
        self.size = self.view.size

    def objective(self, y: Float[Tensor, "b m"]) -> Objective:
        return NodalCost(self.view, y)

    def decode(self, v: Float[Tensor, "b c"]) -> Float[Tensor, "b n"]:
        return self.view.decode(v)

    def encode(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        return self.prior.encode_nodes(x)

    def prior_law(self) -> GaussianLaw:
        zero = torch.zeros(self.size, dtype=torch.float64)
        return SparseLaw(zero, self.prior.factorise(self.view.prior_cost.curvature(zero)))

    def law(self, v: Float[Tensor, " c"], y: Float[Tensor, " m"]) -> GaussianLaw:
        return SparseLaw(v, self.prior.factorise(self.view.curvature(v), "Langevin(prior=...)"))


def ground_of(
    prior: Energy, observation: Observation, over: str | None = None, rank: int = 100
) -> Ground:
    r"""Returns the ground of a prior: the nodes of a lattice, white noise, or the field itself.

    Nodes have sparse curvatures, and answer to their neighbours in time only. The white noise that
    a law is made of knows what is not linear in it, which nodes feel all over.

    Arguments:
        prior: The prior.
        observation: The observation.
        over: ``"nodes"`` or ``"control"``; by default nodes, where there are some.
        rank: The number of eigenpairs of what the data tell of more than 2000 controls.
    """
    kinds = (LinearObservation, NonlinearObservation)
    nodal = isinstance(prior, Nodal) and isinstance(observation, kinds)
    if over == "nodes" and not nodal:
        msg = (
            f"Langevin(over='nodes'): expected a prior that is Markov or a NonlinearSPDE, and "
            f"data with Gaussian noise, got {type(prior).__name__} and "
            f"{type(observation).__name__}. Leave over out."
        )
        raise TypeError(msg)
    if nodal and over != "control":
        assert isinstance(prior, Nodal)
        return _Nodes(prior, observation)
    return _Controls(control_of(prior), observation, rank)
