r"""The cost of whole trajectories, state by state, and its block tridiagonal curvature."""

from __future__ import annotations

__all__ = ["BlockGaussNewton", "Curvature", "DataCurvature", "TrajectoryCost"]

import abc
import torch

from jaxtyping import Float, Int
from torch import Tensor

from .controls import NUMBERS, derivative
from .descent import Direction, Objective
from ..linalg.tridiagonal import BlockCholesky
from ..observations import LinearObservation, NonlinearObservation, Observation
from ..priors.dynamics import Markovian

ENTRIES = 20_000_000
"""The entries of the blocks that are factorised at once."""
Blocks = tuple[Tensor, Tensor]
"""Blocks on the diagonal, with shape (*, k, s, s), and below it, with shape (*, k - 1, s, s)."""


class Curvature(abc.ABC):
    r"""What data tell of the trajectories of a batch, and what they cost."""

    @abc.abstractmethod
    def __call__(self, x: Float[Tensor, "b n"]) -> Blocks:
        r"""Returns the blocks for every member of a batch of trajectories."""

    @abc.abstractmethod
    def cost(self, x: Float[Tensor, "b n"], y: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
        r"""Returns minus the log-density of the data of every member, up to a constant."""

    @abc.abstractmethod
    def take(self, members: Int[Tensor, " k"]) -> Curvature:
        r"""Returns what the data of some members tell."""


class DataCurvature(Curvature):
    r"""What data tell of a trajectory: the blocks of :math:`H^\top R^{-1} H`.

    Data see the state of one time, or lie between two times that follow each other.

    Arguments:
        prior: The prior.
        observation: The observation: linear, or nonlinear with the times of its data.

    Raises:
        TypeError: If an observation of another kind is given.
        ValueError: If instruments have biases, or if data or their noise link times that do not
            follow each other.
    """

    def __init__(self, prior: Markovian, observation: Observation) -> None:
        self.times, self.states, self.observation = prior.times, prior.states, observation
        self.constant: Blocks | None = None
        if isinstance(observation, LinearObservation):
            self.constant = self._linear(observation)
        elif isinstance(observation, NonlinearObservation):
            self.when = observation.time_index()
            self.precision = 1 / observation.noise_variance
        else:
            msg = (
                f"Variational(observation=...): expected a LinearObservation or a "
                f"NonlinearObservation for method='smoother', got {type(observation).__name__}. "
                "Use method='gauss-newton'."
            )
            raise TypeError(msg)

    def _linear(self, observation: LinearObservation) -> Blocks:
        H = observation.matrix().detach().to_scipy()
        R = observation.noise_precision().detach().to_scipy()
        A = (H.T @ R @ H).tocoo()
        A.sum_duplicates()
        A.eliminate_zeros()
        rows, columns = torch.from_numpy(A.row).long(), torch.from_numpy(A.col).long()
        step = rows // self.states - columns // self.states
        if len(observation.bias_variance) or (step.abs() > 1).any():
            msg = (
                "Variational(observation=...): expected data that each see one time or two that "
                f"follow, for method='smoother', got {len(observation.bias_variance)} biases "
                f"and links over {int(step.abs().max())} times. Use method='gauss-newton'."
            )
            raise ValueError(msg)
        values = torch.from_numpy(A.data)
        return tuple(self._placed(rows, columns, values, step == k, k) for k in (0, 1))  # type: ignore[return-value]

    def _placed(
        self, rows: Tensor, columns: Tensor, values: Tensor, here: Tensor, step: int
    ) -> Float[Tensor, "k s s"]:
        s = self.states
        blocks = torch.zeros(self.times - step, s, s, dtype=torch.float64)
        at = (columns[here] // s, rows[here] % s, columns[here] % s)
        return blocks.index_put(at, values[here], accumulate=True)

    def take(self, members: Int[Tensor, " k"]) -> DataCurvature:
        return self  # all members are seen alike

    def cost(self, x: Float[Tensor, "b n"], y: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
        return self.observation.cost(x, y)

    def __call__(self, x: Float[Tensor, "b n"]) -> Blocks:
        if self.constant is not None:
            D, C = self.constant
            return D.expand(len(x), *D.shape), C.expand(len(x), *C.shape)
        G = self._jacobian(x)
        D = x.new_zeros(len(x), self.times, self.states, self.states)
        for k in self.when.unique():
            here = self.when == k
            D[:, k] = (G[:, here].mT * self.precision[here]) @ G[:, here]
        return D, torch.zeros_like(D[:, 1:])

    def _jacobian(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b m s"]:
        r"""Returns the derivatives of the data in the state of their time, by columns."""
        way = torch.eye(self.states, dtype=torch.float64).repeat(1, self.times)
        columns = [derivative(self.observation, x, u.expand_as(x)) for u in way]
        return torch.stack(columns, dim=-1)


class TrajectoryCost(Objective):
    r"""The cost of trajectories, in the states themselves.

    .. math:: J(x) = \tfrac12 \|L_B^{-1} (x_0 - m) - z_0\|^2 + \tfrac12 \sum_{k=1}^{K-1}
        \|L_Q^{-1} (x_k - M(x_{k-1})) - z_k\|^2 - \log p(y \mid h(x))

    A state answers to its neighbours in time only: the cost bends gently where that of the first
    state alone, through a chaotic model, folds; and its Gauss-Newton matrix is block tridiagonal.

    Arguments:
        prior: The prior :math:`m, B, M`.
        curvature: What the data tell.
        y: The data, with shape :math:`(b, m)`.
        root: The Cholesky root :math:`L_Q` of the covariance of model errors, with shape
            :math:`(s, s)`.
        centre: The offsets :math:`z`, with shape :math:`(b, K, s)`; none by default.
    """

    def __init__(
        self,
        prior: Markovian,
        curvature: Curvature,
        y: Float[Tensor, "b m"],
        root: Float[Tensor, "s s"],
        centre: Float[Tensor, "b k s"] | None = None,
    ) -> None:
        self.prior, self.curvature, self.y = prior, curvature, y
        self.root, self.centre = root, centre
        B = prior.background.factor
        self.first = B.diag() if B.ndim == 1 else B

    def take(self, members: Int[Tensor, " k"]) -> TrajectoryCost:
        centre = None if self.centre is None else self.centre[members]
        curvature = self.curvature.take(members)
        return TrajectoryCost(self.prior, curvature, self.y[members], self.root, centre)

    def __call__(self, v: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        x = self.prior.unfold(v)
        first = _whiten(self.first, x[:, :1] - self.prior.mean)
        errors = _whiten(self.root, x[:, 1:] - self.prior.advance(x[:, :-1]))
        r = torch.cat([first, errors], dim=1)
        r = r if self.centre is None else r - self.centre
        return r.square().sum(dim=(1, 2)) / 2 + self.curvature.cost(v, self.y)

    def gradient(self, v: Float[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Tensor]:
        parts = torch.arange(len(v)).split(max(1, 2 * NUMBERS // v.shape[1]))
        costs, slopes = zip(*(self.take(i)._gradient(v[i]) for i in parts), strict=True)
        return torch.cat(costs), torch.cat(slopes)

    def _gradient(self, v: Float[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Tensor]:
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            cost = self(v)
            (g,) = torch.autograd.grad(cost.sum(), v)
        return cost.detach(), g

    def blocks(self, v: Float[Tensor, "b n"]) -> Blocks:
        r"""Returns the blocks of the Gauss-Newton matrix."""
        D, C = self.curvature(v)
        eye = torch.eye(self.prior.states, dtype=torch.float64)
        W, F = _inverse(self.root), self.tangents(self.prior.unfold(v)[:, :-1])
        WF = W @ F
        D = D + torch.cat([WF.mT @ WF, torch.zeros_like(D[:, :1])], dim=1)
        D[:, 0] += torch.cholesky_solve(eye, self.first)
        D[:, 1:] += W.mT @ W
        return D, C - W.mT @ WF

    def tangents(self, x: Float[Tensor, "b k s"]) -> Float[Tensor, "b k s s"]:
        r"""Returns the derivatives of the model in each state, by its adjoint."""
        s = x.shape[-1]
        rows = x.reshape(-1, s).split(max(1, NUMBERS // s**2))
        return torch.cat([self._tangent(r) for r in rows]).reshape(*x.shape, s)

    def _tangent(self, x: Float[Tensor, "r s"]) -> Float[Tensor, "r s s"]:
        s = x.shape[-1]
        unit = torch.eye(s, dtype=torch.float64).expand(len(x), s, s)
        with torch.enable_grad():
            each = x.detach()[:, None].expand(-1, s, -1).clone().requires_grad_()
            (F,) = torch.autograd.grad(self.prior.advance(each), each, unit)
        return F

    def factor(self, v: Float[Tensor, "b n"]) -> BlockCholesky:
        r"""Returns the factor of the Gauss-Newton matrix."""
        return BlockCholesky(*self.blocks(v))


class BlockGaussNewton(Direction):
    r"""The way to the minimum, were the model linear: one sweep forth and back in time."""

    def __call__(
        self,
        objective: Objective,
        v: Float[Tensor, "k c"],
        g: Float[Tensor, "k c"],
        members: Int[Tensor, " k"],
    ) -> Float[Tensor, "k c"]:
        assert isinstance(objective, TrajectoryCost)
        prior = objective.prior
        parts = torch.arange(len(v)).split(max(1, ENTRIES // (v.shape[1] * prior.states)))
        solved = [objective.take(i).factor(v[i]).solve(prior.unfold(g[i])) for i in parts]
        return -torch.cat(solved).flatten(1)


def _inverse(root: Float[Tensor, "s s"]) -> Float[Tensor, "s s"]:
    eye = torch.eye(len(root), dtype=torch.float64)
    return torch.linalg.solve_triangular(root, eye, upper=False)


def _whiten(root: Float[Tensor, "s s"], x: Float[Tensor, "b k s"]) -> Float[Tensor, "b k s"]:
    flat = x.reshape(-1, x.shape[-1]).mT
    return torch.linalg.solve_triangular(root, flat, upper=False).mT.reshape(x.shape)
