r"""Trajectories of a model of time evolution, with or without errors of the model."""

from __future__ import annotations

__all__ = ["Markovian", "StrongConstraint", "WeakConstraint"]

import math
import torch
import torch.nn as nn

from jaxtyping import Float
from torch import Generator, Tensor

from .base import Energy, Sampling, Whitened
from ..domain import Grid
from ..dynamics import Dynamics

Covariance = Float[Tensor, "..."]
"""Variances, with shape (s), or a matrix, with shape (s, s)."""


class _Root(nn.Module):
    r"""The root :math:`L` of a covariance :math:`L L^\top`, diagonal or lower triangular."""

    factor: Tensor

    def __init__(self, where: str, name: str, covariance: Tensor, size: int) -> None:
        super().__init__()
        S = torch.as_tensor(covariance, dtype=torch.float64)
        if S.shape not in {(size,), (size, size)}:
            msg = (
                f"{where}({name}=...): expected shape ({size},), the variances, or "
                f"({size}, {size}), got {tuple(S.shape)}. A state has {size} components."
            )
            raise ValueError(msg)
        bad = not S.isfinite().all() or (S.ndim == 2 and not torch.allclose(S, S.mT))
        L, info = torch.linalg.cholesky_ex(S) if S.ndim == 2 else (S.sqrt(), (S <= 0).any())
        if bad or info:
            msg = (
                f"{where}({name}=...): expected a positive definite covariance, got one that is "
                "not, in double precision. Give every component some variance."
            )
            raise ValueError(msg)
        self.register_buffer("factor", L)

    def times(self, z: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch s"]:
        r"""Returns :math:`L z`."""
        return z * self.factor if self.factor.ndim == 1 else z @ self.factor.mT

    def solve(self, x: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch s"]:
        r"""Returns :math:`L^{-1} x`."""
        if self.factor.ndim == 1:
            return x / self.factor
        flat = x.reshape(-1, x.shape[-1]).mT
        return torch.linalg.solve_triangular(self.factor, flat, upper=False).mT.reshape(x.shape)


class Markovian(Sampling):
    r"""The trajectories of a model, from an uncertain first state, with errors on the way.

    .. math:: x_0 \sim \mathcal{N}(m, B), \qquad x_k = M(x_{k-1}) + \eta_k, \qquad
        \eta_k \sim \mathcal{N}(0, Q), \qquad 0 < k < K

    A field holds the states at the :math:`K` times of the domain, one after the other, each with
    :math:`s` components: :math:`n = K s`.

    References:
        | Data Assimilation: Methods, Algorithms, and Applications (Asch, Bocquet & Nodet, 2016)
        | https://doi.org/10.1137/1.9781611974546

    Arguments:
        domain: A grid whose first axis is ``time``; the others hold the components of a state.
        model: The model. Its state has :math:`s` numbers.
        steps: The number of its time steps from one time of the domain to the next.
        initial: The mean :math:`m`, with shape :math:`(s)`, and the covariance :math:`B` of the
            first state: variances, with shape :math:`(s)`, or a matrix, with shape
            :math:`(s, s)`.
        noise: The covariance :math:`Q` of the errors of the model from one time to the next,
            likewise; ``None`` for a perfect model.
        checkpoint: Whether gradients compute the steps of the model again instead of keeping
            them.

    Raises:
        ValueError: If the domain has no time or a mask, if its other axes do not hold the state
            of the model, or if a covariance is not positive definite.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> grid = Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 60.0).double()
        >>> prior = Markovian(grid, Lorenz63(), 8, start)
        >>> prior.sample(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 15])
    """

    mean: Tensor
    domain: Grid

    def __init__(
        self,
        domain: Grid,
        model: Dynamics,
        steps: int,
        initial: tuple[Float[Tensor, " s"], Covariance],
        noise: Covariance | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self._check_domain(domain, model, steps)
        self.domain, self.model, self.steps = domain, model, steps
        self.checkpoint = checkpoint
        self.times, self.states = domain.shape[0], math.prod(domain.shape[1:])
        where = type(self).__name__
        mean = initial[0].to(torch.float64)
        if mean.shape != (self.states,) or not mean.isfinite().all():
            msg = (
                f"{where}(initial=...): expected a mean of {self.states} finite numbers, got "
                f"shape {tuple(mean.shape)}. Flatten the state."
            )
            raise ValueError(msg)
        self.register_buffer("mean", mean)
        self.background = _Root(where, "initial", initial[1], self.states)
        self.error = None if noise is None else _Root(where, "noise", noise, self.states)

    def _check_domain(self, domain: Grid, model: Dynamics, steps: int) -> None:
        where = type(self).__name__
        if domain.dims[0] != "time" or domain.mask is not None:
            msg = (
                f"{where}(domain=...): expected a grid with time and without a mask, got "
                f"{domain!r}{' with one' if domain.mask is not None else ''}. The model holds "
                "its land itself."
            )
            raise ValueError(msg)
        states, held = math.prod(domain.shape[1:]), math.prod(model.shape)
        if states != held:
            msg = (
                f"{where}(domain=...): expected {held} nodes per time, the state of the model, "
                f"got {states}. Match the other axes to its shape {model.shape}."
            )
            raise ValueError(msg)
        if steps < 1:
            msg = f"{where}(steps=...): expected one step or more, got {steps}. Raise it."
            raise ValueError(msg)

    def advance(self, x: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch s"]:
        r"""Returns the state at the next time of the domain, :math:`M(x)`, differentiable."""
        state = x.reshape(*x.shape[:-1], *self.model.shape)
        moved: Tensor = self.model(state, self.steps, self.checkpoint)
        return moved.reshape(x.shape)

    def unfold(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k s"]:
        r"""Returns a field as states at every time."""
        return x.unflatten(-1, (self.times, self.states))

    def initial_sample(
        self, size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size s"]:
        r"""Draws first states :math:`x_0`."""
        z = torch.randn(size, self.states, dtype=torch.float64, generator=generator)
        return self.mean + self.background.times(z)

    def error_sample(
        self, size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size s"]:
        r"""Draws errors of the model :math:`\eta`; zeros where it is perfect."""
        if self.error is None:
            return torch.zeros(size, self.states, dtype=torch.float64)
        z = torch.randn(size, self.states, dtype=torch.float64, generator=generator)
        return self.error.times(z)

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        states = [self.initial_sample(size, generator)]
        for _ in range(self.times - 1):
            states.append(self.advance(states[-1]) + self.error_sample(size, generator))
        return torch.cat(states, dim=-1)


class WeakConstraint(Markovian, Energy, Whitened):
    r"""The trajectories of an imperfect model: the prior of weak-constraint 4DVar.

    .. math:: J_b(x) = \frac12 \|x_0 - m\|_{B^{-1}}^2
        + \frac12 \sum_{k=1}^{K-1} \|x_k - M(x_{k-1})\|_{Q^{-1}}^2

    The control holds the first state and the errors, all white: :math:`x_0 = m + B^{1/2} v_0` and
    :math:`x_k = M(x_{k-1}) + Q^{1/2} v_k`, with Cholesky roots.

    References:
        | Accounting for an imperfect model in 4D-Var (Trémolet, 2006)
        | https://doi.org/10.1256/qj.05.224

    Arguments:
        domain: A grid whose first axis is ``time``; the others hold the components of a state.
        model: The model.
        steps: The number of its time steps from one time of the domain to the next.
        initial: The mean and the covariance of the first state.
        noise: The covariance :math:`Q` of the errors of the model from one time to the next.
        checkpoint: Whether gradients compute the steps of the model again.

    Raises:
        ValueError: As :class:`Markovian`.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> grid = Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 60.0).double()
        >>> prior = WeakConstraint(grid, Lorenz63(), 8, start, torch.ones(3).double())
        >>> v = torch.ones(15, dtype=torch.float64)
        >>> prior.cost(prior.decode(v)).item()  # half the squared norm of v
        7.5
    """

    error: _Root

    def __init__(
        self,
        domain: Grid,
        model: Dynamics,
        steps: int,
        initial: tuple[Float[Tensor, " s"], Covariance],
        noise: Covariance,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(domain, model, steps, initial, noise, checkpoint)
        self.control_size = self.times * self.states

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        first, *others = self.unfold(v).unbind(-2)
        states = [self.mean + self.background.times(first)]
        for z in others:
            states.append(self.advance(states[-1]) + self.error.times(z))
        return torch.cat(states, dim=-1)

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        states = self.unfold(x)
        first = self.background.solve(states[..., :1, :] - self.mean)
        errors = self.error.solve(states[..., 1:, :] - self.advance(states[..., :-1, :]))
        return torch.cat([first, errors], dim=-2).flatten(-2)

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        return self.encode(x).square().sum(dim=-1) / 2


class StrongConstraint(Markovian, Energy, Whitened):
    r"""The trajectories of a perfect model: the prior of strong-constraint 4DVar.

    The control is the first state, :math:`x_0 = m + B^{1/2} v`; the model tells the others.

    References:
        | Variational algorithms for analysis and assimilation of meteorological observations:
        | theoretical aspects (Le Dimet & Talagrand, 1986)
        | https://doi.org/10.1111/j.1600-0870.1986.tb00459.x

    Arguments:
        domain: A grid whose first axis is ``time``; the others hold the components of a state.
        model: The model.
        steps: The number of its time steps from one time of the domain to the next.
        initial: The mean and the covariance of the first state.
        checkpoint: Whether gradients compute the steps of the model again.

    Raises:
        ValueError: As :class:`Markovian`.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> grid = Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 60.0).double()
        >>> prior = StrongConstraint(grid, Lorenz63(), 8, start)
        >>> prior.decode(torch.zeros(3, dtype=torch.float64))[:3].tolist()
        [0.0, 0.0, 25.0]
    """

    def __init__(
        self,
        domain: Grid,
        model: Dynamics,
        steps: int,
        initial: tuple[Float[Tensor, " s"], Covariance],
        checkpoint: bool = False,
    ) -> None:
        super().__init__(domain, model, steps, initial, None, checkpoint)
        self.control_size = self.states

    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        first = self.mean + self.background.times(v)
        states = self.model.trajectory(
            first.reshape(*v.shape[:-1], *self.model.shape),
            self.steps * (self.times - 1),
            self.steps,
            self.checkpoint,
        )
        return states.reshape(*v.shape[:-1], -1)

    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        return self.background.solve(x[..., : self.states] - self.mean)

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`\frac12 \|x_0 - m\|_{B^{-1}}^2`.

        A field that is no trajectory of the model has no density; of it only the first state is
        read.
        """
        return self.encode(x).square().sum(dim=-1) / 2
