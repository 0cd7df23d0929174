r"""Members that walk by the law itself, from those of any other solver."""

from __future__ import annotations

__all__ = ["Langevin", "LangevinConditional"]

import math
import torch

from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver, frozen
from .gaussian_laws import GaussianLaw
from .grounds import Ground, ground_of
from .walks import Plan, Walk, walk_over
from ..observations import Observation
from ..posterior import Conditional
from ..priors.base import Energy

PRECONDITIONERS = ("posterior", "prior")
OVER = (None, "nodes", "control")


class LangevinConditional(Conditional):
    r"""The conditional law itself, by the walks of members.

    Arguments:
        prior: The prior.
        observation: The observation.
        start: The law that the members come from.
        solver: The settings.
    """

    prior: Energy

    def __init__(
        self, prior: Energy, observation: Observation, start: Conditional, solver: Langevin
    ) -> None:
        super().__init__(prior, observation)
        self.start, self.solver = start, solver
        self.ground: Ground = ground_of(prior, observation, solver.over, solver.rank)
        self._last: tuple[Tensor, Walk] | None = None
        self._law: tuple[Tensor, GaussianLaw] | None = None

    @torch.no_grad()
    def law(self, y: Float[Tensor, " m"]) -> GaussianLaw:
        r"""Returns the Gaussian law that scales the steps; that of the last data is kept."""
        if self._law is None or not _same(self._law[0], y):
            self._law = (y, self._law_of(y))
        return self._law[1]

    def _law_of(self, y: Float[Tensor, " m"]) -> GaussianLaw:
        if self.solver.preconditioner == "prior":
            return self.ground.prior_law()
        v = self.ground.encode(self.start.estimate(y)[None].double())[0]
        return self.ground.posterior_law(v, y)

    @torch.no_grad()
    def walked(
        self,
        y: Float[Tensor, " m"],
        members: Float[Tensor, "b n"],
        generator: Generator | None = None,
    ) -> Walk:
        r"""Lets some members walk: whatever law they come from, they go to that of the data.

        Each has its own random numbers, and its way does not depend on the others.

        Arguments:
            y: The data.
            members: The fields to start from.
            generator: The random number generator.
        """
        return self._walked(y, members, _seeds(len(members), generator))

    def _walked(
        self, y: Float[Tensor, " m"], members: Float[Tensor, "b n"], seeds: Int[Tensor, " b"]
    ) -> Walk:
        v = self.ground.encode(members.double())
        return walk_over(self.ground, self.law(y), y, v, seeds, self.solver.plan)

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        seeds = _seeds(size, generator)
        return self._walked(y, self.start.sample(y, size, generator), seeds).members

    @torch.no_grad()
    def walk(self, y: Float[Tensor, " m"]) -> Walk:
        r"""Returns the walk behind mean, standard deviation and report; the last one is kept."""
        if self._last is None or not _same(self._last[0], y):
            generator = torch.Generator().manual_seed(self.solver.seed)
            seeds = _seeds(self.solver.members, generator)
            members = self.start.sample(y, self.solver.members, generator)
            self._last = (y, self._walked(y, members, seeds))
        return self._last[1]

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        rows = y.reshape(-1, y.shape[-1])
        means = [self.walk(row).mean.mean(dim=0) for row in rows]
        return torch.stack(means).reshape(*y.shape[:-1], -1)

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        r"""Returns the standard deviation over the ways of all the members.

        They are those of the mean, unless there is a generator: then ``size`` new ones.
        """
        if generator is None:
            return self.walk(y).variance().sqrt()
        seeds = _seeds(size, generator)
        walk = self._walked(y, self.start.sample(y, size, generator), seeds)
        return walk.variance().sqrt()

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        walk = self.walk(y)
        return {
            "method": "langevin",
            "steps": self.solver.plan.steps,
            "members": len(walk.members),
            "acceptance": walk.acceptance.mean().item(),
            "least_acceptance": walk.acceptance.min().item(),
            "step": walk.step.median().item(),
            "draws": walk.draws(),
            "remembered": walk.remembered,
        }


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _seeds(size: int, generator: Generator | None) -> Int[Tensor, " size"]:
    return torch.cat([torch.randint(2**62, (1,), generator=generator) for _ in range(size)])


class Langevin(Solver[Energy]):
    r"""Members of another solver, refined: each walks by the law of prior and data itself.

    .. math:: d x = - C \nabla J(x) \, d t + \sqrt{2} \, C^{1/2} d W, \qquad
        J(x) = -\log p(x) - \log p(y \mid x)

    leaves :math:`p(x \mid y)` as it is, whatever the covariance :math:`C`; steps by the scheme of
    Crank and Nicolson, accepted or not by the rule of Metropolis and Hastings, do so exactly. By
    default :math:`C` is that of the Gauss-Newton law about the mean of the start: its part of the
    walk is solved exactly, so that in a linear Gaussian problem every step is accepted, however
    long, and a step of the greatest length is a new draw of the posterior. Elsewhere steps learn
    their length in the first part of the walk, each member its own, and keep it.

    So a solver that is approximate (a Laplace law, an ensemble smoother, a network) gives a start,
    and the walk mends what is wrong with it: skewness, heavy tails, modes that it has members in.
    It does not jump: a valley whose walls are many times the unit of :math:`J` holds the members
    that start there, for any number of steps that one would wait. ``posterior.info`` tells the
    acceptance, the number of independent draws behind the mean (``draws``), and how much of a
    member is left after the walk (``remembered``, a correlation: near zero, walk no longer).

    The walk is over the nodes of a Markov prior, with sparse matrices alone; over the control of a
    prior that is :class:`Whitened` or Gaussian; else over the field.

    References:
        | MCMC methods for functions: modifying old algorithms to make them faster
          (Cotter, Roberts, Stuart and White, 2013)
        | https://doi.org/10.1214/13-STS421
        | Exponential convergence of Langevin distributions and their discrete approximations
          (Roberts and Tweedie, 1996)
        | https://doi.org/10.2307/3318418
        | Dimension-independent likelihood-informed MCMC (Cui, Law and Marzouk, 2016)
        | https://doi.org/10.1016/j.jcp.2015.10.008

    Arguments:
        start: The solver that the members come from. It tells where :math:`C` is taken, too.
        steps: The number of steps of each member.
        members: The number of members behind the mean and the standard deviation.
        preconditioner: What :math:`C` is: ``"posterior"``, or ``"prior"``, which needs no
            curvature and steps less far.
        settling: The part of the steps in which their length is learned.
        acceptance: The acceptance that they learn to have.
        over: What walks: the ``"nodes"`` of a Markov field or of a nonlinear equation, or the
            ``"control"``, the white noise that the field is made of; by default nodes, where
            there are some. In the control a nonlinear prior is Gaussian, so that members change
            their course where no data are, e.g. in forecasts, in few steps.
        rank: The number of eigenpairs of the curvature, beyond 2000 controls.
        seed: The seed of the walk behind the mean.

    Raises:
        ValueError: If a setting makes no sense, a trend is unknown, or a member of the start has
            no finite cost.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 1.0, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5, lengthscale=2.0), grid)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[1.0]), noise_std=1.0)
        >>> posterior = Langevin(mt.Kriging(), steps=20)(prior, seen)(torch.ones(1).double())
        >>> round(posterior.info["acceptance"], 9)  # of a Gaussian law
        1.0
    """

    requires: ClassVar = Energy

    def __init__(
        self,
        start: Solver[Any],
        steps: int = 400,
        members: int = 64,
        preconditioner: str = "posterior",
        settling: float = 0.5,
        acceptance: float = 0.57,
        over: str | None = None,
        rank: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        choices = {"preconditioner": (preconditioner, PRECONDITIONERS), "over": (over, OVER)}
        for name, (value, known) in choices.items():
            if value not in known:
                msg = f"Langevin({name}=...): expected one of {known}, got {value!r}. Choose one."
                raise ValueError(msg)
        self.plan = Plan(steps, math.ceil(settling * steps), acceptance)
        if min(steps - self.plan.settling, members, rank) < 1 or not (
            0 <= settling < 1 and 0 < acceptance < 1
        ):
            msg = (
                f"Langevin(steps=...): expected steps after those of settling, members, and "
                f"shares between 0 and 1, got {steps} steps, {settling} of them settling, "
                f"{members} members and an acceptance of {acceptance}. See the defaults."
            )
            raise ValueError(msg)
        self.start, self.preconditioner = start, preconditioner
        self.members, self.over, self.rank, self.seed = members, over, rank, seed

    def prepare(self, prior: Energy, observation: Observation) -> LangevinConditional:
        start = self.start(prior, observation)
        return LangevinConditional(frozen(prior), frozen(observation), start, self)
