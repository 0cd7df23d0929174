r"""Minimisation of many costs side by side: each member of a batch goes its own way."""

from __future__ import annotations

__all__ = ["Direction", "Minimum", "Objective", "QuasiNewton", "conjugate_directions", "minimise"]

import abc
import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Tensor

SUFFICIENT = 1e-4
"""The part of the decrease promised by the slope that a step must bring (Armijo)."""
HALVINGS = 20
"""The most trials of a line search."""
ROUNDING = 1e-14
"""What rounding may add to a cost, relative to it."""
PATIENCE = 5
"""Steps in a row without gain after which a member has come to rest."""


class Objective(abc.ABC):
    r"""Costs of the members of a batch, each a function of its own vector."""

    @abc.abstractmethod
    def gradient(self, v: Float[Tensor, "b c"]) -> tuple[Float[Tensor, " b"], Tensor]:
        r"""Returns the costs and their gradients."""

    @abc.abstractmethod
    def take(self, members: Int[Tensor, " k"]) -> Objective:
        r"""Returns the costs of some members."""


class Direction(abc.ABC):
    r"""A choice of descent direction."""

    @abc.abstractmethod
    def __call__(
        self,
        objective: Objective,
        v: Float[Tensor, "k c"],
        g: Float[Tensor, "k c"],
        members: Int[Tensor, " k"],
    ) -> Float[Tensor, "k c"]:
        r"""Returns the directions of some members, from their positions and gradients."""

    def learn(
        self, members: Int[Tensor, " k"], s: Float[Tensor, "k c"], y: Float[Tensor, "k c"]
    ) -> None:
        r"""Takes note of the steps of some members, and of how their gradients changed."""
        return


class QuasiNewton(Direction):
    r"""Limited-memory BFGS; with no memory, the gradient with the step of Barzilai and Borwein.

    References:
        | On the limited memory BFGS method for large scale optimization (Liu & Nocedal, 1989)
        | https://doi.org/10.1007/BF01589116
        | Two-point step size gradient methods (Barzilai & Borwein, 1988)
        | https://doi.org/10.1093/imanum/8.1.141

    Arguments:
        batch: The number of members.
        memory: The number of pairs that are kept.
    """

    def __init__(self, batch: int, memory: int) -> None:
        self.memory = memory
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scale = torch.full((batch, 1), torch.nan, dtype=torch.float64)

    def __call__(
        self,
        objective: Objective,
        v: Float[Tensor, "k c"],
        g: Float[Tensor, "k c"],
        members: Int[Tensor, " k"],
    ) -> Float[Tensor, "k c"]:
        q, weights = g, []
        pairs = [(s[members], y[members], rho[members]) for s, y, rho in self.pairs]
        for s, y, rho in reversed(pairs):
            weights.append(rho * _dot(s, q))
            q = q - weights[-1] * y
        first = 1 / g.norm(dim=-1, keepdim=True).clamp(min=1.0)
        q = q * torch.where(self.scale[members].isnan(), first, self.scale[members])
        for (s, y, rho), a in zip(pairs, reversed(weights), strict=True):
            q = q + (a - rho * _dot(y, q)) * s
        return -q

    def learn(
        self, members: Int[Tensor, " k"], s: Float[Tensor, "k c"], y: Float[Tensor, "k c"]
    ) -> None:
        curvature, length = _dot(s, y), _dot(y, y)
        good = curvature > 1e-12 * length.sqrt() * s.norm(dim=-1, keepdim=True)
        scale = torch.where(good, curvature / length, self.scale[members])
        self.scale = self.scale.index_copy(0, members, scale)
        if self.memory:
            rho = torch.where(good, 1 / curvature, 0.0)
            self.pairs.append((self._spread(members, s), self._spread(members, y),
                               self._spread(members, rho)))  # fmt: skip
            self.pairs = self.pairs[-self.memory :]

    def _spread(self, members: Int[Tensor, " k"], values: Float[Tensor, "k c"]) -> Tensor:
        whole = values.new_zeros(len(self.scale), values.shape[1])
        return whole.index_copy(0, members, values)


@dataclass(frozen=True)
class Minimum:
    r"""Where the members of a batch came to rest.

    Arguments:
        v: The positions, with shape :math:`(b, c)`.
        cost: Their costs, with shape :math:`(b)`.
        gradient_norm: The norms of their gradients.
        converged: Which members met the stopping rule.
        iterations: The number of steps of each.
    """

    v: Float[Tensor, "b c"]
    cost: Float[Tensor, " b"]
    gradient_norm: Float[Tensor, " b"]
    converged: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]

    def take(self, members: Int[Tensor, " k"]) -> Minimum:
        r"""Returns some members."""
        return Minimum(*(value[members] for value in self._values()))

    def put(self, members: Int[Tensor, " k"], other: Minimum) -> Minimum:
        r"""Returns the minima with others in the place of some members."""
        pairs = zip(self._values(), other._values(), strict=True)
        return Minimum(*(mine.index_copy(0, members, theirs) for mine, theirs in pairs))

    def lower(self, other: Minimum) -> Minimum:
        r"""Returns, member by member, the lower of two minima."""
        better = torch.nonzero(other.cost < self.cost.nan_to_num(torch.inf))[:, 0]
        return self.put(better, other.take(better))

    def _values(self) -> tuple[Tensor, ...]:
        return (self.v, self.cost, self.gradient_norm, self.converged, self.iterations)


def minimise(
    objective: Objective,
    v: Float[Tensor, "b c"],
    direction: Direction,
    steps: int,
    tolerance: float,
    decrease: float = ROUNDING,
) -> Minimum:
    r"""Returns minima of the members of a batch, each with its own steps.

    A member stops once the norm of its gradient is under ``tolerance``, or once, for five steps
    in a row, its cost has decreased by less than ``decrease``, relatively, and its gradient is
    not the smallest so far. The answer for one does not depend on the others.

    Arguments:
        objective: The costs.
        v: Where to start from.
        direction: The choice of directions.
        steps: The largest number of steps.
        tolerance: The norm of the gradient to reach.
        decrease: The relative decrease that is none.

    Example:
        >>> class Bowl(Objective):
        ...     def gradient(self, v):
        ...         return v.square().sum(dim=-1) / 2, v
        ...     def take(self, members):
        ...         return self
        >>> v = torch.ones(2, 3, dtype=torch.float64)
        >>> found = minimise(Bowl(), v, QuasiNewton(2, 5), 10, 1e-9)
        >>> bool(found.converged.all()), found.v.norm().item()
        (True, 0.0)
    """
    descent = _Descent(objective, v, direction, tolerance, decrease)
    for _ in range(steps):
        if not len(descent.active):
            break
        descent.step()
    return descent.minimum()


class _Descent:
    r"""The state of a minimisation."""

    def __init__(
        self,
        objective: Objective,
        v: Float[Tensor, "b c"],
        direction: Direction,
        tolerance: float,
        decrease: float,
    ) -> None:
        self.objective, self.direction = objective, direction
        self.tolerance, self.decrease = tolerance, decrease
        self.v = v.clone()
        self.f, self.g = objective.gradient(self.v)
        self.least = self.g.norm(dim=-1)
        self.idle = torch.zeros(len(v), dtype=torch.long)
        self.iterations = torch.zeros(len(v), dtype=torch.long)
        self.stuck = ~self.f.isfinite()
        self._retire(torch.arange(len(v)))

    def _retire(self, members: Tensor) -> None:
        still = (self.g[members].norm(dim=-1) > self.tolerance) & (self.idle[members] < PATIENCE)
        self.active = members[still & ~self.stuck[members]]

    def step(self) -> None:
        i = self.active
        part, v, f, g = self.objective.take(i), self.v[i], self.f[i], self.g[i]
        p = self.direction(part, v, g, i)
        p = torch.where(_dot(p, g) < 0, p, -g)  # rounding may turn a direction uphill
        found, ahead, slope = _search(part, v, f, g, p)
        new_v, new_f, new_g = ahead
        self.direction.learn(i[found], (new_v - v)[found], (new_g - g)[found])
        norm = new_g.norm(dim=-1)
        idle = f - new_f <= self.decrease * f.abs().clamp(min=1.0)
        idle &= norm > 0.9 * self.least[i]
        self.least[i] = torch.minimum(norm, self.least[i])
        self.idle[i] = torch.where(idle, self.idle[i] + 1, 0)
        # no lower point along a direction that promised next to nothing: this is the minimum
        rest = ~found & (slope.abs() <= 1e-9 * f.abs().clamp(min=1.0))
        self.idle[i] = torch.where(rest, PATIENCE, self.idle[i])
        self.stuck[i] = ~found & ~rest
        self.v[i], self.f[i], self.g[i] = new_v, new_f, new_g
        self.iterations[i] += 1
        self._retire(i)

    def minimum(self) -> Minimum:
        norm = self.g.norm(dim=-1)
        converged = ((norm <= self.tolerance) | (self.idle >= PATIENCE)) & ~self.stuck
        return Minimum(self.v, self.f, norm, converged, self.iterations)


def _search(
    objective: Objective, v: Tensor, f: Tensor, g: Tensor, p: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    r"""Returns which members found a lower point, where they are then, and the slopes."""
    slope, t = _dot(p, g)[:, 0], torch.ones_like(f)
    best = [v.clone(), f.clone(), g.clone()]
    left = torch.arange(len(v))
    slack = ROUNDING * f.abs().clamp(min=1.0)
    for _ in range(HALVINGS):
        trial = v[left] + t[left, None] * p[left]
        cost, gradient = objective.take(left).gradient(trial)
        good = cost <= f[left] + SUFFICIENT * t[left] * slope[left] + slack[left]
        good &= gradient.isfinite().all(dim=-1)
        for held, new in zip(best, (trial, cost, gradient), strict=True):
            held[left[good]] = new[good]
        t[left] = _shorter(t[left], f[left], slope[left], cost)
        left = left[~good]
        if not len(left):
            break
    found = torch.ones(len(v), dtype=torch.bool).index_fill(0, left, False)
    return found, (best[0], best[1], best[2]), slope


def _shorter(t: Tensor, f: Tensor, slope: Tensor, cost: Tensor) -> Tensor:
    r"""Returns the step to the bottom of a parabola, within a tenth and a half of the last."""
    bottom = -slope * t.square() / (2 * (cost - f - slope * t))
    bottom = torch.where(bottom.isfinite(), bottom, 0.1 * t)
    return torch.minimum(torch.maximum(bottom, 0.1 * t), 0.5 * t)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "b 1"]:
    return (a * b).sum(dim=-1, keepdim=True)


def conjugate_directions(
    product: Callable[[Tensor], Tensor],
    b: Float[Tensor, "b c"],
    tolerance: Float[Tensor, " b"],
    steps: int,
) -> Float[Tensor, "b c"]:
    r"""Returns approximate solutions of :math:`A_i x_i = b_i`, by conjugate gradients.

    Arguments:
        product: The product of every member with its own matrix.
        b: The right-hand sides.
        tolerance: The norm of the residual to reach, relative to the right-hand side.
        steps: The largest number of products.

    Example:
        >>> b = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
        >>> conjugate_directions(lambda u: 2 * u, b, torch.tensor([1e-9]).double(), 5).tolist()
        [[1.0, 1.5]]
    """
    x, r = torch.zeros_like(b), b
    p, rho = r, _dot(r, r)
    goal = rho * tolerance[:, None].square()
    for _ in range(steps):
        live = rho > goal
        if not live.any():
            break
        Ap = product(p)
        alpha = torch.where(live, rho / _dot(p, Ap), 0.0)
        x, r = x + alpha * p, r - alpha * Ap
        new = _dot(r, r)
        p = torch.where(live, r + new / rho * p, p)
        rho = torch.where(live, new, rho)
    return x
