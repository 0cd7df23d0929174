r"""Learning a model by steps on the likelihood of data whose trajectories are integrated out."""

from __future__ import annotations

__all__ = ["Scoring"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.func import functional_call, jacrev, vmap

from .forecasts import Training
from .learned import LearnedDynamics
from .optimise import assign, flat, free
from .records import Record, first_guess
from ..dynamics import Dynamics
from ..linalg.tridiagonal import BlockCholesky
from ..priors.dynamics import Markovian
from ..solvers.descent import minimise
from ..solvers.model_error import error_parts
from ..solvers.trajectories import BlockGaussNewton, Blocks, Curvature, TrajectoryCost

TOLERANCE, DECREASE, STEPS = 1e-7, 1e-12, 60
"""What the smoother is to reach."""
TRIALS = 12
"""The most steps that are tried in one round."""
REST = 1e-4
"""The gain of log-likelihood under which parameters are at rest."""
FLOOR = 1e-7
"""The least variance of model errors, in those of the states: what double precision can carry."""
FASTEST = 100.0
"""The most by which a variance of model errors changes in one round."""
SMALL = 8
"""The most components of a state whose errors move along all matrices at once."""
CHUNK = 2000
"""The states whose derivatives are held at once."""


class _Gappy(Curvature):
    r"""What data tell of the trajectories of windows, each with gaps of its own.

    Arguments:
        precision: The precision of each datum, zero in gaps, with shape :math:`(b, k, s)`.
    """

    def __init__(self, precision: Float[Tensor, "b k s"]) -> None:
        self.precision = precision

    def __call__(self, x: Float[Tensor, "b n"]) -> Blocks:
        D = torch.diag_embed(self.precision)
        return D, torch.zeros_like(D[:, 1:])

    def cost(self, x: Float[Tensor, "b n"], y: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
        return (self.precision.flatten(1) * (x - y).square()).sum(dim=-1) / 2

    def take(self, members: Int[Tensor, " k"]) -> _Gappy:
        return _Gappy(self.precision[members])


@dataclass(frozen=True)
class _Mode:
    r"""The likeliest trajectories of all windows, and the Gaussian law about them.

    Arguments:
        cost: The cost that they make least.
        x: The trajectories, with shape :math:`(b, n)`.
        factor: The factor of its Gauss-Newton matrix there.
        log_evidence: The log-likelihood of the data by Laplace's method, without the constant
            of the noise.
    """

    cost: TrajectoryCost
    x: Float[Tensor, "b n"]
    factor: BlockCholesky
    log_evidence: float

    @property
    def states(self) -> Float[Tensor, "b k s"]:
        r"""The trajectories, state by state."""
        return self.cost.prior.unfold(self.x)


def _mode(cost: TrajectoryCost, x: Float[Tensor, "b n"]) -> _Mode:
    unit = cost.root.square().sum(dim=1).mean().sqrt().item()
    found = minimise(cost, x, BlockGaussNewton(), STEPS, TOLERANCE / unit, DECREASE)
    factor = cost.factor(found.v)
    roots = cost.first.diagonal().log().sum()
    roots = roots + (cost.prior.times - 1) * cost.root.diagonal().log().sum()
    value = -found.cost - factor.log_determinant() / 2 - roots
    return _Mode(cost, found.v, factor, value.sum().item())


class _Ahead(nn.Module):
    r"""A model from one time to the next, of one state."""

    def __init__(self, prior: Markovian) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor) -> Tensor:
        return self.prior.advance(x)


class Slopes:
    r"""How the log-likelihood of the data bends with the model and the errors it makes.

    With the errors :math:`e_k = x_k - M_\theta(x_{k-1})`, the matrix :math:`H` of the states and
    the border :math:`B = \partial_x \partial_\theta J`, both of Gauss and Newton,

    .. math::
        \ell(\theta, Q) &= -J(\hat x) - \tfrac12 \log |H| - \tfrac12 N \log |Q|, \\
        \partial_\theta \ell &= -\partial_\theta J - \tfrac12 \partial_\theta \log |H|
        + \tfrac12 B^\top H^{-1} \partial_x \log |H|, \\
        I &= \partial_\theta e^\top Q^{-1} \partial_\theta e - B^\top H^{-1} B,

    where :math:`I` is what the data tell of the parameters once the states are integrated out:
    a Schur complement of the joint problem. All is exact where the model is linear in the states.

    The covariance moves as :math:`Q = L \exp(\sum_i \phi_i E_i) L^\top`, along matrices
    :math:`E_i` that hold the slope :math:`\tfrac12 (S - A)`: :math:`S = L^{-1} \sum_k \hat e_k
    \hat e_k^\top L^{-\top}`, and :math:`A` is its mean, were :math:`Q` right. Its information is
    the average of the observed and the expected one, half that of parameters that would move
    forecasts by :math:`L E_i L^{-1} \hat e_k`, and no less than lets variances fall by a factor
    of :math:`e^2` in one step.

    References:
        | Average information REML: an efficient algorithm for variance parameter estimation in
        | linear mixed models (Gilmour, Thompson & Cullis, 1995)
        | https://doi.org/10.2307/2533274

    Arguments:
        mode: The likeliest trajectories.
        parameters: The parameters that move, those of the model of the prior.
    """

    def __init__(self, mode: _Mode, parameters: Sequence[nn.Parameter]) -> None:
        self.mode, self.parameters = mode, parameters
        self.root = mode.cost.root
        self.precision = torch.cholesky_inverse(self.root)
        S, A = self._moments()
        slope, basis = torch.linalg.eigh(_symmetric(S - A) / 2)
        self.ways, i, j = _ways(basis)
        G = self._derivatives()
        self.border, whole = self._border(torch.cat([G, self._moved()], dim=-1))
        half = mode.factor.forward_columns(self.border)
        I = _symmetric(whole - torch.einsum("bksp,bksq->pq", half, half))
        p = G.shape[-1]
        least = -slope.clamp(max=0.0)
        self.information = torch.block_diag(
            I[:p, :p], I[p:, p:] / 2 + torch.diag(least[i] + least[j]) / 4
        )
        self.gradient = torch.cat([self._gradient(p), torch.where(i == j, slope[i], 0.0)])

    def _moments(self) -> tuple[Float[Tensor, "s s"], Float[Tensor, "s s"]]:
        r"""Returns :math:`S` and :math:`A`."""
        cost, L = self.mode.cost, self.root
        found, spread = error_parts(cost, self.mode.x, self.mode.factor)
        count = len(self.mode.x) * (cost.prior.times - 1)
        S, C = (torch.linalg.solve(L, torch.linalg.solve(L, T).mT) for T in (found, spread))
        return S, count * torch.eye(len(L), dtype=torch.float64) - C

    def _moved(self) -> Float[Tensor, "b k s q"]:
        r"""Returns how the errors found would move with the covariance."""
        x = self.mode.states
        e = x[:, 1:] - self.mode.cost.prior.advance(x[:, :-1])
        L = self.root
        moved = L @ self.ways @ torch.linalg.inv(L)
        return torch.einsum("qst,bkt->bksq", moved, e)

    def _derivatives(self) -> Float[Tensor, "b k s p"]:
        r"""Returns the derivatives of forecasts in the parameters."""
        ahead = _Ahead(self.mode.cost.prior)
        moved = {n: p.detach() for n, p in ahead.named_parameters() if p.requires_grad}
        slope = vmap(jacrev(lambda p, x: functional_call(ahead, p, (x,))), in_dims=(None, 0))
        x = self.mode.states[:, :-1]
        parts = [slope(moved, r) for r in x.reshape(-1, x.shape[-1]).split(CHUNK)]
        rows = [torch.cat([g.flatten(2) for g in part.values()], dim=-1) for part in parts]
        return torch.cat(rows).detach().reshape(*x.shape, -1)

    def _border(self, G: Float[Tensor, "b k s p"]) -> tuple[Float[Tensor, "b j s p"], Tensor]:
        r"""Returns the border, and the matrix of parameters for states that are known."""
        QG = self.precision @ G
        back = self.mode.cost.tangents(self.mode.states[:, :-1]).mT @ QG
        zero = torch.zeros_like(QG[:, :1])
        border = torch.cat([back, zero], dim=1) - torch.cat([zero, QG], dim=1)
        return border, torch.einsum("bksp,bksq->pq", G, QG)

    def _gradient(self, count: int) -> Float[Tensor, " p"]:
        cost = self.mode.cost
        with torch.enable_grad():
            x = self.mode.states.detach().requires_grad_()
            e = x[:, 1:] - cost.prior.advance(x[:, :-1])
            J = ((e @ self.precision) * e).sum() / 2
            explicit, _ = self._slopes(J, x)
            spread, through = self._slopes(self._half_log_determinant(x), x)
        moved = self.mode.factor.solve(through)
        implied = torch.einsum("bksp,bks->p", self.border[..., :count], moved)
        return implied - explicit - spread

    def _slopes(self, value: Tensor, x: Tensor) -> tuple[Float[Tensor, " p"], Tensor]:
        r"""Returns the derivatives in parameters and states; zero where there are none."""
        held = [*self.parameters, x]
        found: Sequence[Tensor | None] = [None] * len(held)
        if value.requires_grad:
            found = torch.autograd.grad(value, held, retain_graph=True, allow_unused=True)
        full = [torch.zeros_like(h) if g is None else g for g, h in zip(found, held, strict=True)]
        return torch.cat([g.reshape(-1) for g in full[:-1]]), full[-1]

    def _half_log_determinant(self, x: Float[Tensor, "b k s"]) -> Float[Tensor, ""]:
        r"""Returns what has the derivatives of :math:`\tfrac12 \log |H|`, with its graph."""
        D, C = self.mode.factor.inverse_blocks()
        s = x.shape[-1]
        each = x[:, :-1, None].expand(-1, -1, s, -1)
        ahead = self.mode.cost.prior.advance(each)
        unit = torch.eye(s, dtype=torch.float64).expand_as(ahead)
        (F,) = torch.autograd.grad(ahead, each, unit, create_graph=True)
        QF = self.precision @ F
        return ((F.mT @ QF) * D[:, :-1]).sum() / 2 - (QF * C).sum()

    def step(self, damping: float) -> Float[Tensor, " r"]:
        r"""Returns the step to the maximum, held back by a share of the information."""
        d = self.information.diagonal()
        d = d.clamp(min=1e-10 * d.max().item())
        return torch.linalg.solve(self.information + damping * torch.diag(d), self.gradient)

    def follow(self, step: Float[Tensor, " r"]) -> Float[Tensor, "b n"]:
        r"""Returns where the likeliest trajectories go, as far as they go straight."""
        return self.mode.x - self.mode.factor.solve(self.border @ step).flatten(1)

    def noise(self, step: Float[Tensor, " r"]) -> Float[Tensor, "s s"]:
        r"""Returns the covariance of model errors after a step."""
        way = torch.einsum("q,qst->st", step[len(step) - len(self.ways) :], self.ways)
        values, vectors = torch.linalg.eigh(way)
        factors = values.clamp(-math.log(FASTEST), math.log(FASTEST)).exp()
        return _symmetric(self.root @ (vectors * factors) @ vectors.mT @ self.root.mT)


def _ways(basis: Float[Tensor, "s s"]) -> tuple[Float[Tensor, "q s s"], Tensor, Tensor]:
    r"""Returns symmetric matrices of norm one that a covariance moves along, and their indices.

    All of them for small states; else those that the basis makes diagonal: it is that of the
    slope, which they hold in any case.
    """
    s = len(basis)
    i, j = torch.triu_indices(s, s) if s <= SMALL else torch.arange(s).expand(2, s)
    outer = torch.einsum("sq,tq->qst", basis[:, i], basis[:, j])
    scale = torch.where(i == j, 0.5, 0.5**0.5).to(torch.float64)
    return (outer + outer.mT) * scale[:, None, None], i, j


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


class Scoring:
    r"""Rounds that each step on the likelihood: Gauss-Newton in states and parameters at once.

    A round finds the likeliest trajectories under the present model, and the slopes there; it
    then moves the parameters :math:`\theta` by Fisher scoring and the covariance :math:`Q` of the
    errors of the model, and takes less of both until the likelihood is not lower. Errors that are
    large at first, on interpolated data, let trajectories stay near the data; they fall as the
    model gets better.

    Time grows as :math:`K (s^3 + s^2 p)` for :math:`K` times, :math:`s` components and :math:`p`
    parameters, memory as :math:`K s p`.

    Arguments:
        data: The windows.
        training: How parameters are moved on interpolated data, before the first round.
        generator: The random number generator of that.
    """

    def __init__(
        self, data: Record, training: Training, generator: Generator | None = None
    ) -> None:
        self.data, self.training, self.generator = data, training, generator
        self.curvature = _Gappy(data.seen / data.std.square())
        self.y = data.x.flatten(1)

    def start(self, model: Dynamics, steps: int) -> LearnedDynamics:
        r"""Returns the model as fitted to interpolated data."""
        state = first_guess(self.data, model, steps, self.training, self.generator)
        state.trajectories = self.data.filled()
        return state

    @torch.no_grad()
    def run(self, state: LearnedDynamics) -> bool:
        r"""Moves parameters and errors once; returns whether that brought anything."""
        parameters = free(state.model)
        now = self.mode(state, self._from(state))
        state.log_likelihoods.append(now.log_evidence)
        state.trajectories = now.states
        slopes, kept = Slopes(now, parameters), (flat(parameters), state.noise)
        for _ in range(TRIALS):
            step = slopes.step(state.damping)
            assign(parameters, kept[0] + step[: len(kept[0])])
            state.noise = self._bounded(state, slopes.noise(step))
            ahead = self._try(state, slopes.follow(step))
            if ahead is not None and ahead.log_evidence >= now.log_evidence:
                state.trajectories = ahead.states
                state.damping = max(state.damping / 10, 1e-8)
                return ahead.log_evidence - now.log_evidence > REST
            state.damping = min(10 * max(state.damping, 1e-5), 1e4)
        assign(parameters, kept[0])
        state.noise = kept[1]
        return False

    def mode(self, state: LearnedDynamics, x: Float[Tensor, "b n"]) -> _Mode:
        r"""Returns the likeliest trajectories under a model, from others."""
        root = torch.linalg.cholesky(state.noise)
        prior = state.prior(self.data.grid)
        return _mode(TrajectoryCost(prior, self.curvature, self.y, root), x)

    def _from(self, state: LearnedDynamics) -> Float[Tensor, "b n"]:
        x = state.trajectories
        return (self.data.filled() if x is None else x).flatten(1)

    def _try(self, state: LearnedDynamics, x: Float[Tensor, "b n"]) -> _Mode | None:
        try:
            return self.mode(state, x)
        except ValueError:  # a matrix that is not positive in double precision: a step too far
            return None

    @staticmethod
    def _bounded(state: LearnedDynamics, Q: Float[Tensor, "s s"]) -> Float[Tensor, "s s"]:
        r"""Returns a covariance that is not under the least one in any direction."""
        unit = state.covariance.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(_symmetric(Q / (unit[:, None] * unit)))
        bounded = (vectors * values.clamp(min=FLOOR)) @ vectors.mT
        return _symmetric(bounded) * (unit[:, None] * unit)
