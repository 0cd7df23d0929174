r"""What a variational solver moves: white noise, or the field itself; and what it minimises."""

from __future__ import annotations

__all__ = ["Control", "Cost", "Tangent", "control_of"]

import abc
import torch

from collections.abc import Callable
from functools import cached_property
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .descent import Objective
from ..linalg.dense import square_root
from ..observations import LinearObservation, Observation
from ..priors.base import Energy, GaussianPrior, Whitened

NUMBERS = 400_000
"""The numbers of the fields whose derivatives are taken at once: a graph holds a few hundred."""


class Control(abc.ABC):
    r"""What is moved, and the field that it stands for.

    Attributes:
        size: The number :math:`c` of controls.
        white: Whether the prior makes the control white, :math:`v \sim \mathcal{N}(0, I)`.
    """

    size: int
    white: bool = True

    @abc.abstractmethod
    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the field."""

    @abc.abstractmethod
    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        r"""Returns the control of a field, or of one next to it."""

    def cost(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch"]:
        r"""Returns the cost of the prior."""
        return v.square().sum(dim=-1) / 2

    def curve(self, v: Float[Tensor, "*batch c"], u: Float[Tensor, "*batch c"]) -> Tensor:
        r"""Returns the second derivative of the cost of the prior times ``u``."""
        return u


class _Turned:
    r"""The derivative of a function at a point, by two passes in reverse mode.

    The adjoint :math:`w \mapsto G^\top w` is linear, and its adjoint is :math:`G`: no rule but
    those of the reverse mode is needed, which in torch is much the faster of the two.
    """

    def __init__(self, y: Tensor, x: Tensor) -> None:
        with torch.enable_grad():
            self.w = torch.zeros_like(y).requires_grad_()
            (self.back,) = torch.autograd.grad(y, x, self.w, create_graph=True)

    def __call__(self, u: Tensor, again: bool = False) -> Tensor:
        (d,) = torch.autograd.grad(self.back, self.w, u, retain_graph=again)
        return d


def derivative(function: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    r"""Returns the derivative of a function along ``u``.

    Example:
        >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> derivative(torch.square, x, torch.ones_like(x)).tolist()
        [2.0, 4.0]
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        return _Turned(function(x), x)(u)


class _White(Control):
    r"""The control of a prior that has one."""

    def __init__(self, prior: Whitened) -> None:
        self.prior, self.size = prior, prior.control_size

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        return self.prior.decode(v)

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        return self.prior.encode(x)


class _Root(Control):
    r"""White noise, through the root of a dense covariance."""

    def __init__(self, prior: GaussianPrior) -> None:
        s = prior.domain.points
        if prior.design(s).shape[1]:
            msg = (
                f"Variational(prior=...): expected a prior without an unknown trend, got "
                f"{type(prior).__name__} with one. Give its mean, or use Kriging()."
            )
            raise ValueError(msg)
        if len(s) > 12_000:
            msg = (
                f"Variational(prior=...): expected at most 12000 nodes for a dense root, got "
                f"{len(s)}. Use SparseCholesky() or Vecchia(), or a prior that is Whitened."
            )
            raise ValueError(msg)
        self.root = square_root(prior.covariance(s, s), where=type(prior).__name__)
        self.drift, self.size = prior.drift(), self.root.shape[1]

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        return self.drift + v @ self.root.mT

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        r = (x - self.drift).reshape(-1, len(self.drift)).mT
        return torch.linalg.lstsq(self.root, r, driver="gelsd").solution.mT.reshape(x.shape)


class _Field(Control):
    r"""The field itself, for a prior that is known by its cost alone."""

    white = False

    def __init__(self, prior: Energy) -> None:
        self.prior, self.size = prior, len(prior.domain)

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        return v

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        return x

    def cost(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch"]:
        return self.prior.cost(v)

    def curve(self, v: Float[Tensor, "*batch c"], u: Float[Tensor, "*batch c"]) -> Tensor:
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            (g,) = torch.autograd.grad(self.cost(v).sum(), v, create_graph=True)
            (h,) = torch.autograd.grad(g, v, u)
        return h


def control_of(prior: Energy) -> Control:
    r"""Returns the control of a prior: the whitest that it allows."""
    if isinstance(prior, Whitened):
        return _White(prior)
    return _Root(prior) if isinstance(prior, GaussianPrior) else _Field(prior)


class Cost(Objective):
    r"""The cost of prior and data, for every member of a batch.

    .. math:: J(v) = \tfrac12 \|v - \bar v\|^2 - \log p(y \mid h(D(v)))

    Arguments:
        control: The control.
        observation: The observation :math:`h`.
        y: The data, with shape :math:`(b, m)`.
        centre: The mean :math:`\bar v` of a white control, with shape :math:`(b, c)`; zero by
            default.
        seen: Which data count, with shape :math:`(m)`; all by default.
    """

    def __init__(
        self,
        control: Control,
        observation: Observation,
        y: Float[Tensor, "b m"],
        centre: Float[Tensor, "b c"] | None = None,
        seen: Bool[Tensor, " m"] | None = None,
    ) -> None:
        self.control, self.observation, self.y = control, observation, y
        self.centre, self.seen = centre, seen

    def take(self, members: Int[Tensor, " k"]) -> Cost:
        centre = None if self.centre is None else self.centre[members]
        return Cost(self.control, self.observation, self.y[members], centre, self.seen)

    def background(self, v: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        r"""Returns the cost of the prior."""
        return self.control.cost(v if self.centre is None else v - self.centre)

    def misfit(self, d: Float[Tensor, "b m"], y: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
        r"""Returns the cost of the data that count."""
        if self.seen is not None:
            d, y = (torch.where(self.seen, values, 0.0) for values in (d, y))
        return self.observation.misfit(d, y)

    def __call__(self, v: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        d = self.observation(self.control.decode(v))
        return self.background(v) + self.misfit(d, self.y)

    def gradient(self, v: Float[Tensor, "b c"]) -> tuple[Float[Tensor, " b"], Tensor]:
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            cost = self(v)
            (g,) = torch.autograd.grad(cost.sum(), v)
        return cost.detach(), g

    def weigh(self, e: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        r"""Returns :math:`R^{-1} e`, the data that do not count left out."""
        with torch.enable_grad():
            e = e.detach().requires_grad_()
            (w,) = torch.autograd.grad(self.misfit(e, torch.zeros_like(e)).sum(), e)
        return w


class Tangent:
    r"""A cost about a point: the Gauss-Newton matrix :math:`J_b'' + G^\top R^{-1} G`.

    :math:`G` is the derivative of the data in the control. The model runs once; products with
    :math:`G` and its transpose go through what is kept of that run.

    Arguments:
        cost: The cost.
        v: The point, with shape :math:`(b, c)`.
    """

    def __init__(self, cost: Cost, v: Float[Tensor, "b c"]) -> None:
        self.cost, self.control = cost, cost.control
        with torch.enable_grad():
            self.v = v.detach().requires_grad_()
            self.field = self.control.decode(self.v)
            self.data = cost.observation(self.field)
        self.x = self.field.detach()

    @cached_property
    def _forward(self) -> _Turned:
        return _Turned(self.field, self.v)

    def push(self, u: Float[Tensor, "b c"]) -> Float[Tensor, "b m"]:
        r"""Returns :math:`G u`."""
        return self._see(self.x, self._forward(u, again=True))

    def _see(self, x: Tensor, dx: Tensor) -> Tensor:
        h = self.cost.observation
        if isinstance(h, LinearObservation):
            with torch.no_grad():
                seen: Tensor = h(dx)
            return seen
        return derivative(h, x, dx)

    def pull(self, w: Float[Tensor, "b m"]) -> Float[Tensor, "b c"]:
        r"""Returns :math:`G^\top w`."""
        (g,) = torch.autograd.grad(self.data, self.v, w, retain_graph=True)
        return g

    def product(self, u: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        r"""Returns the Gauss-Newton matrix times ``u``."""
        return self.control.curve(self.v, u) + self.information(u)

    def information(self, u: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        r"""Returns :math:`G^\top R^{-1} G u`: what the data tell."""
        return self.pull(self.cost.weigh(self.push(u)))

    def jacobians(self) -> tuple[Float[Tensor, "b c n"], Float[Tensor, "b c m"]]:
        r"""Returns the derivatives of the field and of the data in each control."""
        blocks = [self._columns(i) for i in self._blocks()]
        fields, data = (torch.cat(part, dim=1) for part in zip(*blocks, strict=True))
        return fields, data

    def of_data(self) -> Float[Tensor, "b c m"]:
        r"""Returns the derivatives of the data in each control."""
        return torch.cat([self._columns(i)[1] for i in self._blocks()], dim=1)

    def _blocks(self) -> tuple[Tensor, ...]:
        b, c = self.v.shape
        return torch.arange(c).split(max(1, NUMBERS // (b * self.x.shape[1])))

    def _columns(self, index: Int[Tensor, " k"]) -> tuple[Tensor, Tensor]:
        b, c = self.v.shape
        k = len(index)
        unit = torch.zeros(b, k, c, dtype=torch.float64)
        unit[:, torch.arange(k), index] = 1.0
        v, x = (t.detach()[:, None].expand(-1, k, -1).flatten(0, 1) for t in (self.v, self.x))
        dx = derivative(self.control.decode, v, unit.flatten(0, 1))
        return dx.unflatten(0, (b, k)), self._see(x, dx).unflatten(0, (b, k))

    def matrix(self, G: Float[Tensor, "b c m"]) -> Float[Tensor, "b c c"]:
        r"""Returns the Gauss-Newton matrix, from the derivatives of the data."""
        b, c = self.v.shape
        weighed = self.cost.weigh(G.flatten(0, 1)).unflatten(0, (b, c))
        A = G @ weighed.mT
        return (A + A.mT) / 2 + self._prior_matrix()

    def _prior_matrix(self) -> Float[Tensor, "*b c c"]:
        b, c = self.v.shape
        unit = torch.eye(c, dtype=torch.float64)
        if self.control.white:
            return unit
        v = self.v.detach().repeat_interleave(c, dim=0)
        H = self.control.curve(v, unit.repeat(b, 1)).unflatten(0, (b, c))
        return (H + H.mT) / 2
