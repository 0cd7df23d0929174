r"""Equations of evolution that are not linear: reactions, models of the flow, networks."""

from __future__ import annotations

__all__ = ["LinearisedSPDE", "NonlinearSPDE"]

import dataclasses
import math
import torch
import torch.nn as nn

from collections.abc import Callable, Sequence
from functools import cached_property
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .advection_diffusion import AdvectionDiffusion
from .drifts import Reaction
from .evolution import Evolution, Step
from ..base import Sampling, Whitened
from ..markov import MarkovPrior
from ..nodal import Nodal, NodeCost
from ...domain import Points
from ...linalg.jacobian import SparseJacobian
from ...linalg.sparse import Sparse

WHERE = "NonlinearSPDE"
Move = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From fields, what pushes them, and white noise to the next fields, column by column."""
DENSE = 200
"""The most nodes of a time whose steps are dense."""


class NonlinearSPDE(Nodal, Sampling, Whitened):
    r"""A field that is carried, spread and forgotten, and acts on itself.

    .. math:: \frac{\partial x}{\partial t} + L (x - m) = f(x) + \tau z

    :math:`L`, :math:`\tau z` and the first field are those of :class:`AdvectionDiffusion`, with
    its mean :math:`m`; :math:`f` is a reaction, the tendency of a model, or a network. Steps are
    those of the linear equation, with :math:`f` from where they start:

    .. math:: M_k u_k = E_k u_{k-1} + C \left( \phi_\delta(x_{k-1}) - x_{k-1} \right) + r_k,
        \qquad x = m + u

    where :math:`\phi_\delta(x)` is :math:`x + \delta f(x)`, or what a :class:`Reaction` says that
    becomes of :math:`x` in a time :math:`\delta`.

    The control holds the first field and the noise, all white. So fields are drawn one after the
    other, exactly; and as the derivative of the innovations
    :math:`r` is triangular, with the :math:`M_k` on its diagonal, the density is that of the
    innovations, with the determinants of the linear equation:

    .. math:: -\log p(u) = \tfrac{1}{2} \|u_0 - \bar u_0\|_{Q_0}^2
        + \tfrac{1}{2} \sum_k \|r_k\|_{S_k}^2 - \tfrac{1}{2} \log |Q| + \mathrm{cst}

    A step must be short beside what :math:`f` does, :math:`\delta |f'| < 1` or so, where it is not
    taken exactly.

    About any state it is nearly a Gaussian Markov field, :meth:`linearised`; the curvature is
    sparse where :math:`f` looks at neighbours only. ``Variational("sparse")`` finds the most
    likely field and the Gaussian law about it, and ``Langevin`` mends that law.

    References:
        | Numerical Solution of Time-Dependent Advection-Diffusion-Reaction Equations
          (Hundsdorfer and Verwer, 2003)
        | https://doi.org/10.1007/978-3-662-09017-6
        | Accounting for an imperfect model in 4D-Var (Trémolet, 2006)
        | https://doi.org/10.1256/qj.05.224

    Arguments:
        linear: The equation without :math:`f`, without an unknown trend.
        drift: The function :math:`f`, from the field at the nodes of the lattice at one time,
            with shape :math:`(*, n)`, to its rate of change, in units of the field per day. A
            :class:`Reaction` is known to act place by place.

    Raises:
        ValueError: If the linear equation has an unknown trend, or the drift does not keep the
            shape of fields.

    Example:
        >>> from matheron import Grid
        >>> from matheron.priors.spde import AllenCahn
        >>> grid = Grid(time=torch.arange(4.0), y=torch.arange(5.0), x=torch.arange(6.0))
        >>> linear = AdvectionDiffusion(grid, lengthscale=3.0, timescale=4.0)
        >>> prior = NonlinearSPDE(linear, AllenCahn(0.5))
        >>> prior.sample(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 120])
    """

    def __init__(self, linear: AdvectionDiffusion, drift: nn.Module) -> None:
        super().__init__()
        if linear.trend is not None:
            msg = (
                f"{WHERE}(linear=...): expected an equation without an unknown trend, got one of "
                f"{linear.design(linear.domain.points[:1]).shape[1]} terms. Give its mean."
            )
            raise ValueError(msg)
        self.domain, self.linear, self.drift = linear.domain, linear, drift
        self._kept = _Kept()
        state = torch.full((2, len(linear.lattice)), linear.constant, dtype=torch.float64)
        found = self.drift(state)
        if found.shape != state.shape or found.dtype != state.dtype:
            msg = (
                f"{WHERE}(drift=...): expected a function that keeps shape {tuple(state.shape)} "
                f"and {state.dtype}, got {tuple(found.shape)} and {found.dtype}. It sees all the "
                "nodes of linear.lattice, margin included: Lattice(grid) has none."
            )
            raise ValueError(msg)

    # the nodes

    def embedding(self, points: Points) -> Sparse:
        return self.linear.embedding(points)

    def places(self) -> Float[Tensor, "N k"]:
        return self.linear.places()

    def mean(self, points: Points) -> Float[Tensor, " m"]:
        return torch.full((len(points),), self.linear.constant, dtype=torch.float64)

    def log_determinant(self) -> Float[Tensor, ""]:
        return self.linear.log_determinant()

    def innovations(self) -> Innovations:
        r"""Returns the chain of fields, at the present parameters; kept where none is learned."""
        if any(p.requires_grad for p in self.parameters()):
            return Innovations(self)
        numbers = (*self.parameters(), *self.buffers())
        state = tuple((id(t), t._version) for t in numbers)
        if self._kept.state != state:
            self._kept.state, self._kept.chain = state, Innovations(self)
        assert self._kept.chain is not None
        return self._kept.chain

    @torch.no_grad()
    def prepare_nodes(self) -> Innovations:
        return self.innovations()

    @torch.no_grad()
    def sample_nodes(
        self, size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size N"]:
        r"""Draws nodes :math:`u`, one time after the other.

        Raises:
            ValueError: If a field grows without end.
        """
        chain = self.innovations()
        draw = lambda: torch.randn(chain.size, size, dtype=torch.float64, generator=generator)
        return self._finite(chain.follow([draw() for _ in range(chain.times)]))

    @staticmethod
    def _finite(u: Float[Tensor, "size N"]) -> Float[Tensor, "size N"]:
        if not u.isfinite().all():
            msg = (
                f"{WHERE}.sample: expected fields that stay finite, got "
                f"{int((~u.isfinite()).any(dim=1).sum())} of {len(u)} that grow without end. "
                "Shorten the step of the linear equation (step=...), or check the units of the "
                "drift."
            )
            raise ValueError(msg)
        return u

    @property
    def control_size(self) -> int:  # type: ignore[override]
        r"""The number of nodes, of all times: the first field and the noise are white in it."""
        return len(self.linear.lattice) * len(self.linear.timeline)

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        chain, A = self.innovations(), self.embedding(self.domain.points)
        white = v.reshape(-1, chain.times, chain.size).permute(1, 2, 0)
        u = chain.follow([z.contiguous() for z in white])
        return (self.linear.constant + (A @ u.mT.contiguous()).mT).reshape(*v.shape[:-1], -1)

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        r"""Returns the control of a field; nodes that it has not are at their likeliest."""
        rows = x.reshape(-1, x.shape[-1])
        u = self.encode_nodes(rows) if self._order is None else self._nodes_of(rows)
        return self.innovations().whiten(u).reshape(*x.shape[:-1], -1)

    # the field

    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        A = self.embedding(self.domain.points).detach()
        u = self.sample_nodes(size, generator)
        return self.linear.constant + (A @ u.mT.contiguous()).mT

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`-\log p(x)`, up to a constant.

        Raises:
            ValueError: If the lattice has nodes that the field has not, e.g. a margin.
        """
        u = self._nodes_of(x.reshape(-1, x.shape[-1]))
        return self.innovations().cost(u).reshape(x.shape[:-1])

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\nabla J_b(x)`, in the type of ``x``.

        It is differentiable in ``x`` where no parameter is to be learned, and else not.
        """
        if not any(p.requires_grad for p in self.parameters()):
            return super().gradient(x)
        u = self._nodes_of(x.detach().reshape(-1, x.shape[-1]))
        slope = torch.empty_like(u)
        slope[:, self._order] = self.prepare_nodes()(u)[1]
        return slope.reshape(x.shape).to(x.dtype)

    def log_density(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`\log p(x)`, with its constant, differentiable in the parameters."""
        constant = (self.log_determinant() - x.shape[-1] * math.log(2 * math.pi)) / 2
        return constant - self.cost(x)

    @cached_property
    def _order(self) -> Int[Tensor, " N"] | None:
        r"""Which number of the field each node is, if they are the same."""
        A = self.embedding(self.domain.points)
        once = torch.bincount(A.pattern.column_index, minlength=A.shape[1]) == 1
        if A.shape[0] != A.shape[1] or not once.all() or (A.values != 1).any():
            return None
        return A.pattern.column_index.argsort()

    def _nodes_of(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b N"]:
        if self._order is None:
            msg = (
                f"{WHERE}.cost: expected a lattice with the nodes of the field and no others, got "
                f"{self.control_size} for {x.shape[1]}. Build the linear equation with "
                "lattice=Lattice(grid), or use what moves nodes: Variational(), Langevin()."
            )
            raise ValueError(msg)
        return (x.double() - self.linear.constant)[:, self._order]

    @torch.no_grad()
    def linearised(self, u: Float[Tensor, " N"]) -> LinearisedSPDE:
        r"""Returns the Gaussian Markov field that this one is nearly, about some nodes.

        Its innovations are the same there, and have the same derivatives.
        """
        return LinearisedSPDE(self, u)


class _Kept:
    r"""The chain of some parameters; a copy of its owner starts without."""

    def __init__(self) -> None:
        self.state: tuple[tuple[int, int], ...] | None = None
        self.chain: Innovations | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


class Innovations(NodeCost):
    r"""The innovations of a chain of fields, their cost, and its first two derivatives.

    Arguments:
        prior: The prior.
    """

    def __init__(self, prior: NonlinearSPDE) -> None:
        linear, self.drift = prior.linear, prior.drift
        self.constant = linear.constant
        self.evolution, self.lengths = linear.evolution(), linear.timeline.steps.tolist()
        self.volume, self.size = linear.lattice.volume, len(linear.lattice)
        self.times = len(self.lengths) + 1
        zero = torch.zeros(self.size, dtype=torch.float64)
        first = linear.first_mean()
        self.start = zero if first is None else first.detach()
        groups: dict[int, list[int]] = {}
        for k, step in enumerate(self.evolution.steps):
            groups.setdefault(id(step), []).append(k)
        self.groups = [torch.tensor(at) for at in groups.values()]
        self._slope = SparseJacobian(self.drift)

    def push(self, u: Float[Tensor, "*batch n"], delta: float) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`C (\phi_\delta(m + u) - m - u)`."""
        x = self.constant + u
        if isinstance(self.drift, Reaction):
            return self.volume * (self.drift.moved(x, delta) - x)
        rate: Tensor = self.drift(x)
        return delta * self.volume * rate

    def follow(self, white: Sequence[Float[Tensor, "n b"]]) -> Float[Tensor, "b N"]:
        r"""Returns the nodes that white noise makes, one time after the other."""
        states = [self.start[:, None] + self.evolution.factor.sqrt_solve(white[0])]
        for move, delta, z in zip(self._moves, self.lengths, white[1:], strict=True):
            states.append(move(states[-1], self.push(states[-1].mT, delta).mT, z))
        return torch.cat(states).mT

    @cached_property
    def _moves(self) -> list[Move]:
        r"""What each step does to fields, to what pushes them, and to white noise."""
        steps = self.evolution.steps
        made = {id(s): _dense(s) if self.size <= DENSE else _sparse(s) for s in steps}
        return [made[id(step)] for step in steps]

    def whiten(self, u: Float[Tensor, "b N"]) -> Float[Tensor, "b N"]:
        r"""Returns the white noise that nodes are made of."""
        states = u.unflatten(-1, (-1, self.size))
        first = (states[:, 0] - self.start).mT.contiguous()
        white: list[Tensor] = [torch.empty(0)] * self.times
        white[0] = self.evolution.factor.half_solve(self.evolution.initial @ first).mT
        for at in self.groups:
            step, r = self._rest(states, at)
            each = step.noise.whiten(r).mT.unflatten(0, (len(u), -1))
            for k, z in zip(at.tolist(), each.unbind(1), strict=True):
                white[k + 1] = z
        return torch.cat(white, dim=-1)

    def _rest(
        self, states: Float[Tensor, "b k n"], at: Int[Tensor, " j"]
    ) -> tuple[Step, Float[Tensor, "n bj"]]:
        r"""Returns the innovations of steps that are alike, all at once, column by column."""
        step, delta = self.evolution.steps[int(at[0])], self.lengths[int(at[0])]
        before, after = states[:, at], states[:, at + 1]
        push = self.push(before, delta)
        before, after, push = (v.flatten(0, 1).mT.contiguous() for v in (before, after, push))
        return step, step.ahead @ after - step.behind @ before - push

    def cost(self, u: Float[Tensor, "b N"]) -> Float[Tensor, " b"]:
        r"""Returns the costs, differentiable in the nodes and in the parameters."""
        states = u.unflatten(-1, (-1, self.size))
        first = (states[:, 0] - self.start).mT.contiguous()
        total = self.evolution.initial.quadratic(first)
        for at in self.groups:
            step, r = self._rest(states, at)
            each = step.noise.precision().quadratic(r)
            total = total + each.unflatten(0, (len(u), -1)).sum(dim=-1)
        return total / 2

    def __call__(
        self, u: Float[Tensor, "b N"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b N"]]:
        with torch.enable_grad():
            v = u.detach().requires_grad_()
            cost = self.cost(v)
            (slope,) = torch.autograd.grad(cost.sum(), v)
        return cost.detach(), slope

    def _bent(self, u: Float[Tensor, " N"]) -> list[Step]:
        r"""Returns the steps with the derivative of the drift in them."""
        states = u.detach().unflatten(0, (-1, self.size))[:-1] + self.constant
        pairs = zip(self.evolution.steps, self._slopes(states), strict=True)
        return [
            dataclasses.replace(step, behind=step.behind + J.scale(rows=self.volume))
            for step, J in pairs
        ]

    def _slopes(self, states: Float[Tensor, "k n"]) -> list[Sparse]:
        r"""Returns the derivatives of :math:`\phi_\delta(x) - x`, step by step."""
        if not isinstance(self.drift, Reaction):
            pairs = zip(states, self.lengths, strict=True)
            return [self._slope(x) * delta for x, delta in pairs]
        spans = torch.tensor(self.lengths, dtype=torch.float64)[:, None]
        with torch.enable_grad():
            x = states.requires_grad_()
            (slopes,) = torch.autograd.grad(self.drift.moved(x, spans).sum(), x)
        return [Sparse.diag(each - 1) for each in slopes]

    def tangent(self, u: Float[Tensor, " N"]) -> Evolution:
        r"""Returns the linear chain whose innovations have the same derivatives about nodes."""
        return Evolution(self.evolution.initial, self._bent(u), self.evolution.factorise)

    @torch.no_grad()
    def curvature(self, u: Float[Tensor, " N"]) -> Sparse:
        return self.tangent(u).precision()

    @torch.no_grad()
    def best(self, u: Float[Tensor, " N"], tangent: Evolution) -> Float[Tensor, " N"]:
        r"""Returns the nodes without innovations, were the chain linear about others."""
        about = u.unflatten(0, (-1, self.size))
        found = [self.start]
        for k, (step, delta) in enumerate(zip(tangent.steps, self.lengths, strict=True)):
            base = self.evolution.steps[k]  # its matrix ahead is the same, and factorised once
            fixed = base.behind @ about[k] + self.push(about[k], delta)
            moved = step.behind @ (found[-1] - about[k])
            found.append(base.solve((fixed + moved)[:, None])[:, 0])
        return torch.cat(found)


def _sparse(step: Step) -> Move:
    return lambda u, push, z: step.solve(step.behind @ u + push + step.noise.sample(z))


@torch.no_grad()
def _dense(step: Step) -> Move:
    r"""Returns a step as products with dense matrices, which are the quicker for few nodes."""
    eye = torch.eye(len(step.noise.volume), dtype=torch.float64)
    back, root = step.solve(eye), step.solve(step.noise.sample(eye))
    behind = step.solve(step.behind.to_dense())
    return lambda u, push, z: behind @ u + back @ push + root @ z


class LinearisedSPDE(MarkovPrior):
    r"""The Gaussian Markov field that a nonlinear one is nearly, about some nodes.

    Arguments:
        prior: The nonlinear law.
        u: The nodes, with shape :math:`(N)`.

    Example:
        >>> from matheron import Grid
        >>> from matheron.priors.spde import AllenCahn
        >>> grid = Grid(time=torch.arange(4.0), x=torch.arange(6.0))
        >>> linear = AdvectionDiffusion(grid, lengthscale=3.0, timescale=4.0)
        >>> prior = NonlinearSPDE(linear, AllenCahn(0.5))
        >>> near = prior.linearised(prior.sample_nodes(1)[0])
        >>> near.mean(grid.points).shape
        torch.Size([24])
    """

    def __init__(self, prior: NonlinearSPDE, u: Float[Tensor, " N"]) -> None:
        super().__init__()
        self.domain, self.linear = prior.domain, prior.linear
        self._set_trend(prior.linear.constant, None)
        self.chain = prior.prepare_nodes()
        self.tangent = self.chain.tangent(u)
        self.centre = self.chain.best(u, self.tangent)
        self._precision = self.tangent.precision()

    def embedding(self, points: Points) -> Sparse:
        return self.linear.embedding(points)

    def places(self) -> Float[Tensor, "N k"]:
        return self.linear.places()

    def mean(self, points: Points) -> Float[Tensor, " m"]:
        return super().mean(points) + self.embedding(points) @ self.centre

    def precision(self) -> Sparse:
        return self._precision

    def log_determinant(self) -> Float[Tensor, ""]:
        return self.chain.evolution.log_determinant()

    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        return self.tangent.sample(size, generator)
