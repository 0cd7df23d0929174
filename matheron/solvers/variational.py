r"""Variational assimilation: 3DVar, weak- and strong-constraint 4DVar."""

from __future__ import annotations

__all__ = ["Variational"]

import torch

from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from typing import ClassVar

from .base import Solver, frozen
from .controls import Cost, Tangent, control_of
from .descent import (
    Direction,
    Minimum,
    Objective,
    QuasiNewton,
    conjugate_directions,
    minimise,
)
from .laplace import Spread, factor, leading
from .modal import ModalConditional, Rule
from .smoother import Smoothed
from .sparse_mode import SparseMode
from ..observations import LinearObservation, Observation
from ..posterior import Conditional
from ..priors.base import Energy

METHODS = ("gauss-newton", "lbfgs", "gradient-descent", "smoother", "sparse")
ENSEMBLES = ("laplace", "rto")
INEXACT = 1e-2
"""The largest relative residual of the linear systems of Gauss-Newton."""
LOOSE, BRIEF = 1e-2, 40
"""The norm of the gradient, and the number of steps, that are enough before the last window."""
ENTRIES = 20_000_000
"""The entries of the matrices that are solved at once."""
EXACT = 2000
"""The most controls whose Hessian is factorised for the spread."""


class _GaussNewton(Direction):
    r"""The direction to the minimum of the cost, were the data linear in the control."""

    def __init__(self, dense: int, inner: int) -> None:
        self.dense, self.inner = dense, inner

    def __call__(
        self,
        objective: Objective,
        v: Float[Tensor, "k c"],
        g: Float[Tensor, "k c"],
        members: Int[Tensor, " k"],
    ) -> Float[Tensor, "k c"]:
        assert isinstance(objective, Cost)
        if v.shape[1] > self.dense:
            eta = g.norm(dim=-1).clamp(max=INEXACT)
            return conjugate_directions(Tangent(objective, v).product, -g, eta, self.inner)
        n = objective.y.shape[1] + 2 * v.shape[1]
        blocks = torch.arange(len(v)).split(max(1, ENTRIES // (v.shape[1] * n)))
        return torch.cat([self._solve(objective.take(i), v[i], g[i]) for i in blocks])

    @staticmethod
    def _solve(cost: Cost, v: Tensor, g: Tensor) -> Tensor:
        tangent = Tangent(cost, v)
        H = tangent.matrix(tangent.of_data())
        L, info = torch.linalg.cholesky_ex(H)
        if not info.any():
            return -torch.cholesky_solve(g[..., None], L)[..., 0]
        values, vectors = torch.linalg.eigh(H)  # a prior that is not convex there
        steep = values.abs().clamp(min=1e-12 * values.abs().amax())
        return -(vectors @ ((vectors.mT @ g[..., None]) / steep[..., None]))[..., 0]


class _Variational(ModalConditional):
    r"""The law about the minimum of the cost, in the control of the prior."""

    prior: Energy

    def __init__(self, prior: Energy, observation: Observation, solver: Variational) -> None:
        super().__init__(prior, observation, solver.rule)
        self.solver, self.control = solver, control_of(prior)

    def field(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        return self.control.decode(v)

    def minimum(self, y: Float[Tensor, "b m"]) -> Minimum:
        solver, b = self.solver, len(y)
        v, y = self._start(b), y.repeat(solver.starts, 1)
        for seen in self._windows(y):
            cost = Cost(self.control, self.observation, y, seen=seen)
            v = solver.minimise(cost, v, LOOSE, BRIEF).v
        found = solver.minimise(Cost(self.control, self.observation, y), v)
        lowest = found.cost.nan_to_num(torch.inf).reshape(-1, b).argmin(dim=0)
        return self.checked(found.take(lowest * b + torch.arange(b)))

    def _start(self, b: int) -> Float[Tensor, "k c"]:
        generator = torch.Generator().manual_seed(self.solver.seed)
        others = (self.solver.starts - 1, 1, self.control.size)
        z = torch.randn(*others, dtype=torch.float64, generator=generator)
        v = torch.cat([torch.zeros_like(z[:1]) if len(z) else z.new_zeros(1, *others[1:]), z])
        return v.expand(-1, b, -1).flatten(0, 1)

    def _windows(self, y: Float[Tensor, "b m"]) -> list[Bool[Tensor, " m"]]:
        r"""Returns which data count in each window but the last, where all do."""
        if self.solver.windows == 1:
            return []
        times, m = self.observation.time_index(), y.shape[1]
        place = self.observation.select(torch.arange(m, dtype=torch.float64)).long()
        when = torch.zeros(m, dtype=torch.long).index_copy(0, place, times)
        first, span = times.min(), times.max() + 1 - times.min()
        count = self.solver.windows
        return [(when - first) * count < span * k for k in range(1, count)]

    @cached_property
    def _exact(self) -> bool:
        return self.control.size <= EXACT

    def _tangent(self, y: Float[Tensor, " m"]) -> Tangent:
        cost = Cost(self.control, self.observation, y[None])
        return Tangent(cost, self.mode(y).v)

    def _spread(self, y: Float[Tensor, " m"]) -> Spread:
        mode, tangent = self.mode(y).v[0], self._tangent(y)
        if self._exact:
            return Spread(mode, factor(tangent.matrix(tangent.of_data())[0], self.control.white))
        if not self.control.white:
            msg = (
                f"Variational(prior=...): expected a prior that is Whitened for the spread of "
                f"{self.control.size} controls, got {type(self.prior).__name__}. Ask for the mean."
            )
            raise TypeError(msg)
        values, vectors = leading(tangent, min(self.solver.rank, y.numel()), self.solver.seed)
        return Spread(mode, values=values, vectors=vectors)

    @torch.no_grad()
    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        if self.solver.ensemble != "laplace" or not self._exact:
            return super().std(y, size, generator)
        tangent = self._tangent(y)
        fields, data = tangent.jacobians()
        L = factor(tangent.matrix(data)[0], self.control.white)
        return torch.linalg.solve_triangular(L, fields[0], upper=False).norm(dim=0)

    @torch.no_grad()
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        z = torch.randn(size, self.control.size, dtype=torch.float64, generator=generator)
        if self.solver.ensemble == "laplace":
            return self.control.decode(self._spread(y).draw(z))
        return self.control.decode(self._perturbed(y, z, generator).v)

    def _perturbed(
        self, y: Float[Tensor, " m"], z: Float[Tensor, "size c"], generator: Generator | None
    ) -> Minimum:
        r"""Returns minima for perturbed data and a perturbed mean of the control."""
        if not self.control.white:
            msg = (
                f"Variational(ensemble='rto'): expected a prior that is Whitened or Gaussian, got "
                f"{type(self.prior).__name__}. Use ensemble='laplace'."
            )
            raise TypeError(msg)
        mode = self.mode(y).v
        x = self.control.decode(mode).expand(len(z), -1)
        noise = self.observation.sample(x, generator) - self.observation(x)
        cost = Cost(self.control, self.observation, y + noise, centre=z)
        return self.checked(self.solver.minimise(cost, mode.expand(len(z), -1)))


class Variational(Solver[Energy]):
    r"""The field that minimises the cost of prior and data: 3DVar, 4DVar.

    .. math:: J(x) = J_b(x) - \log p(y \mid h(x))

    It takes any prior with a cost, and any observation, linear or not. With a :class:`Whitened`
    prior, e.g. the trajectories of a model, or a Gaussian one, the control is white noise: the
    Hessian is at least the identity, so that the norm of the gradient bounds the distance to the
    minimum, in prior standard deviations, wherever the cost is convex. The rule that stops looks
    at the gradient and the cost, never at anything else.

    The spread is that of the Gauss-Newton Hessian at the minimum, exact in a linear problem: by
    a dense factor for up to 2000 controls, else by the ``rank`` leading eigenpairs of what the
    data tell. Members are draws of that law, put through the model (``"laplace"``), or minima
    for perturbed data and prior (``"rto"``), which bend with the cost.

    Long windows of a chaotic model have many minima: take the data in growing ``windows``, each
    from the minimum of the last (quasi-static assimilation), or several ``starts``. Or move all
    the states of a trajectory, not its control: ``"smoother"`` iterates a Kalman smoother, with
    errors of the model that are large at first and come down to its own in ``stages``. It takes
    the trajectories of a model (a perfect one is given errors of 1e-7 of the variance of its first
    state), in time that grows as the cube of the size of a state, and linearly with time; its
    spread is exact by a selected inverse.

    ``"sparse"`` moves the nodes of a Markov field, or of a nonlinear equation: each step is the
    conditioning of a Gaussian Markov field by a sparse factor, so that tens of thousands of nodes
    are seen through any function, and their spread is that of the last factor (Laplace).

    References:
        | A strategy for operational implementation of 4D-Var, using an incremental approach
        | (Courtier, Thépaut & Hollingsworth, 1994)
        | https://doi.org/10.1002/qj.49712051912
        | Extending the limits of variational assimilation and nonlinear chaotic effects
        | (Pires, Vautard & Talagrand, 1996)
        | https://doi.org/10.1034/j.1600-0870.1996.00006.x
        | Randomize-then-optimize: a method for sampling from posterior distributions in
        | nonlinear inverse problems (Bardsley, Solonen, Haario & Laine, 2014)
        | https://doi.org/10.1137/140964023

    Arguments:
        method: ``"gauss-newton"``, incremental, ``"lbfgs"``, ``"gradient-descent"``,
            ``"smoother"``, or ``"sparse"``.
        steps: The largest number of steps of the minimisation.
        tolerance: The norm of the gradient to reach, in the control.
        decrease: The relative decrease of the cost under which, five times in a row and without
            a smaller gradient, it is at rest.
        windows: The number of growing windows of data; 1 takes all data at once.
        starts: The number of starts: the mean of the prior, then draws; the lowest cost wins. The
            smoother tries another only where the cost is more than its law allows.
        ensemble: ``"laplace"`` or ``"rto"``.
        memory: The number of pairs that L-BFGS keeps.
        dense: The largest control whose Gauss-Newton matrix is formed; beyond, systems are
            solved by conjugate gradients.
        inner: The largest number of conjugate gradients for a step of Gauss-Newton.
        rank: The number of eigenpairs for the spread of more than 2000 controls.
        stages: The number of covariances of model errors that the smoother takes in turn.
        seed: The seed of starts and eigenpairs.
        strict: Whether to raise where the minimisation did not converge.

    Raises:
        ValueError: If a setting is not known or not positive, if the noise is zero, or if the
            minimisation does not converge and ``strict``.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 1.0, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5, lengthscale=2.0), grid)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[1.0]), noise_std=1.0)
        >>> posterior = Variational()(prior, seen)(torch.tensor([2.0], dtype=torch.float64))
        >>> round(posterior.mean[1].item(), 6), posterior.info["converged"]
        (1.0, True)
    """

    requires: ClassVar = Energy

    def __init__(
        self,
        method: str = "gauss-newton",
        steps: int = 200,
        tolerance: float = 1e-7,
        decrease: float = 1e-14,
        windows: int = 1,
        starts: int = 1,
        ensemble: str = "laplace",
        memory: int = 20,
        dense: int = 100,
        inner: int = 200,
        rank: int = 100,
        stages: int = 5,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        super().__init__()
        self._check_name("method", method, METHODS)
        self._check_name("ensemble", ensemble, ENSEMBLES if method != "sparse" else ENSEMBLES[:1])
        least = min(steps, windows, starts, memory, inner, rank, stages)
        if not (tolerance > 0 and decrease >= 0 and least >= 1 and dense >= 0):
            msg = (
                f"Variational(...): expected a positive tolerance and counts, got a tolerance of "
                f"{tolerance}, a decrease of {decrease}, and counts down to {least}. See the "
                "defaults."
            )
            raise ValueError(msg)
        self.method, self.ensemble = method, ensemble
        self.rule = Rule(method, steps, tolerance, decrease, strict)
        self.windows, self.starts, self.memory = windows, starts, memory
        self.dense, self.inner, self.rank, self.seed = dense, inner, rank, seed
        self.stages = stages

    @staticmethod
    def _check_name(setting: str, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            msg = f"Variational({setting}=...): expected one of {known}, got {name!r}. Choose one."
            raise ValueError(msg)

    def minimise(
        self,
        cost: Cost,
        v: Float[Tensor, "b c"],
        tolerance: float = 0.0,
        steps: int | None = None,
    ) -> Minimum:
        r"""Returns the minimum of a cost, from a start, by the method of this solver.

        Arguments:
            cost: The cost.
            v: Where to start from.
            tolerance: The norm of the gradient to reach, where that is more than usual.
            steps: The largest number of steps, where that is fewer than usual.
        """
        memory = self.memory if self.method == "lbfgs" else 0
        direction: Direction = QuasiNewton(len(v), memory)
        if self.method == "gauss-newton":
            direction = _GaussNewton(self.dense, self.inner)
        goal = max(tolerance, self.rule.tolerance)
        steps = self.rule.steps if steps is None else min(steps, self.rule.steps)
        return minimise(cost, v, direction, steps, goal, self.rule.decrease)

    @torch.no_grad()
    def prepare(self, prior: Energy, observation: Observation) -> Conditional:
        if isinstance(observation, LinearObservation):
            self._check_noise(observation)
        prior, observation = frozen(prior), frozen(observation)
        if self.method == "smoother":
            limits = (self.stages, self.starts, self.ensemble, self.seed)
            return Smoothed(prior, observation, self.rule, *limits)
        if self.method == "sparse":
            return SparseMode(prior, observation, self.rule, self.starts, self.seed)
        return _Variational(prior, observation, self)

    @staticmethod
    def _check_noise(observation: LinearObservation) -> None:
        R = observation.noise_variance
        if not (R > 0).all():
            msg = (
                f"Variational(observation=...): expected data with noise, got "
                f"{int((R <= 0).sum())} without. Give them a noise_std, or use Kriging()."
            )
            raise ValueError(msg)
