r"""What a model of time evolution can do, and the steps that it may take."""

from __future__ import annotations

__all__ = ["Dynamics", "Tendency", "euler", "implicit_midpoint", "runge_kutta_4"]

import abc
import math
import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from ..described import Described


def runge_kutta_4(tendency: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    r"""Returns the state after one classical Runge-Kutta step of fourth order.

    Example:
        >>> x = runge_kutta_4(lambda x: -x, torch.ones(1, dtype=torch.float64), 0.1)
        >>> round(x.item() - math.exp(-0.1), 9)
        8.2e-08
    """
    k1 = tendency(x)
    k2 = tendency(torch.add(x, k1, alpha=dt / 2))
    k3 = tendency(torch.add(x, k2, alpha=dt / 2))
    k4 = tendency(torch.add(x, k3, alpha=dt))
    slope = torch.add(k1 + k4, k2 + k3, alpha=2)
    return torch.add(x, slope, alpha=dt / 6)


def euler(tendency: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    r"""Returns the state after one step of Euler, of first order.

    Example:
        >>> euler(lambda x: -x, torch.ones(1, dtype=torch.float64), 0.1).item()
        0.9
    """
    return torch.add(x, tendency(x), alpha=dt)


def implicit_midpoint(tendency: Callable[[Tensor], Tensor], x: Tensor, dt: float) -> Tensor:
    r"""Returns the state after one implicit step through the midpoint, of second order.

    .. math:: x' = x + \delta t \, f\left(\frac{x + x'}{2}\right)

    It keeps quadratic invariants, such as energies, exactly, and goes back as it came. The
    equation is solved by fixed-point iterations, which converge where the step is under two over
    the Lipschitz constant of :math:`f`.

    Raises:
        ValueError: If they do not converge.

    Example:
        >>> x = implicit_midpoint(lambda x: -x, torch.ones(1, dtype=torch.float64), 0.1)
        >>> round(x.item() - 0.95 / 1.05, 12)
        0.0
    """
    new = euler(tendency, x, dt)
    goal = 1e-14 * max(1.0, x.detach().abs().max().item())
    for _ in range(ITERATIONS):
        last, new = new, torch.add(x, tendency((x + new) / 2), alpha=dt)
        if (new - last).detach().abs().max().item() <= goal:
            return new
    msg = (
        f"implicit_midpoint(dt=...): expected iterations that converge, got none in {ITERATIONS} "
        f"with dt = {dt:g}. Shorten the step."
    )
    raise ValueError(msg)


ITERATIONS = 100
"""The most iterations of an implicit step."""
SCHEMES = {"runge-kutta": runge_kutta_4, "euler": euler, "implicit": implicit_midpoint}


class Dynamics(Described, nn.Module, abc.ABC):
    r"""A law :math:`x_{k + 1} = M(x_k)` with a constant time step.

    A state has the shape ``(*batch, *shape)``; members of a batch do not know each other. A
    subclass writes :meth:`advance`; where it steps in other variables than those of the state
    (a spectrum, say), also :meth:`enter` and :meth:`leave`, so that long runs change variables
    once.

    Attributes:
        shape: The shape of one state.
        dt: The time step :math:`\delta t`, in the units of time of the model.
    """

    shape: tuple[int, ...]
    dt: float

    @abc.abstractmethod
    def advance(self, state: Tensor) -> Tensor:
        r"""Returns the inner state one time step later."""

    def enter(self, x: Float[Tensor, ...]) -> Tensor:
        r"""Returns the inner state of a state; itself by default."""
        return x

    def leave(self, state: Tensor) -> Float[Tensor, ...]:
        r"""Returns the state of an inner state; itself by default."""
        return state

    def step(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        r"""Returns the state one time step later."""
        return self(x, 1)

    def forward(
        self, x: Float[Tensor, ...], steps: int = 1, checkpoint: bool = False
    ) -> Float[Tensor, ...]:
        r"""Returns the state ``steps`` time steps later.

        Arguments:
            x: The state, with shape ``(*batch, *shape)``.
            steps: The number of time steps.
            checkpoint: Whether the backward pass computes the steps again instead of keeping
                them: memory then grows as :math:`\sqrt{\text{steps}}`, and time by a third.

        Raises:
            ValueError: If the shape is not that of the model, or ``steps`` is negative.

        Example:
            >>> from matheron.dynamics import Lorenz63
            >>> Lorenz63()(torch.ones(4, 3, dtype=torch.float64), 10).shape
            torch.Size([4, 3])
        """
        self._check(x, steps)
        state, segment = self.enter(x), max(1, math.isqrt(steps))
        for done in range(0, steps, segment):
            state = self._run(state, min(segment, steps - done), checkpoint)
        return self.leave(state)

    def trajectory(
        self, x: Float[Tensor, ...], steps: int, every: int = 1, checkpoint: bool = False
    ) -> Float[Tensor, ...]:
        r"""Returns the states on the way, the first one included, with time after the batch.

        Arguments:
            x: The first state, with shape ``(*batch, *shape)``.
            steps: The number of time steps.
            every: The number of time steps from one returned state to the next.
            checkpoint: Whether the backward pass computes the steps between returned states
                again instead of keeping them.

        Raises:
            ValueError: If the shape is not that of the model, ``steps`` is negative, or ``every``
                does not divide it.

        Example:
            >>> from matheron.dynamics import Lorenz63
            >>> Lorenz63().trajectory(torch.ones(4, 3, dtype=torch.float64), 10, every=5).shape
            torch.Size([4, 3, 3])
        """
        self._check(x, steps)
        if every < 1 or steps % every:
            msg = (
                f"{type(self).__name__}.trajectory(every=...): expected a divisor of {steps} "
                f"steps, got {every}. Change one or the other."
            )
            raise ValueError(msg)
        states, state = [x], self.enter(x)
        for _ in range(steps // every):
            state = self._run(state, every, checkpoint)
            states.append(self.leave(state))
        return torch.stack(states, dim=x.ndim - len(self.shape))

    def _run(self, state: Tensor, steps: int, checkpoint: bool = False) -> Tensor:
        if checkpoint:
            return recompute(
                self._run, state, steps, use_reentrant=False, preserve_rng_state=False
            )
        for _ in range(steps):
            state = self.advance(state)
        return state

    def _check(self, x: Tensor, steps: int) -> None:
        if tuple(x.shape[max(x.ndim - len(self.shape), 0) :]) != self.shape:
            msg = (
                f"{type(self).__name__}(x=...): expected states with the last axes {self.shape}, "
                f"got shape {tuple(x.shape)}. Batch axes come first."
            )
            raise ValueError(msg)
        if steps < 0:
            msg = (
                f"{type(self).__name__}(steps=...): expected zero or more, got {steps}. "
                "Build the model with a negative dt to go backwards."
            )
            raise ValueError(msg)


class Tendency(Dynamics):
    r"""A law known by its tendency, :math:`\dot x = f(x)`, and a scheme that follows it.

    Arguments:
        shape: The shape of one state.
        dt: The time step; negative to go backwards.
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``, through the midpoint.

    Raises:
        ValueError: If the scheme is not known.

    Example:
        >>> from matheron.dynamics import Lorenz96
        >>> model = Lorenz96(8, scheme="implicit")
        >>> model(torch.full((8,), 8.0, dtype=torch.float64), 10)[0].item()  # at rest
        8.0
    """

    def __init__(self, shape: tuple[int, ...], dt: float, scheme: str = "runge-kutta") -> None:
        super().__init__()
        if scheme not in SCHEMES:
            msg = (
                f"{type(self).__name__}(scheme=...): expected one of {tuple(SCHEMES)}, got "
                f"{scheme!r}. Choose one."
            )
            raise ValueError(msg)
        self.shape, self.dt, self.scheme = shape, dt, scheme

    @abc.abstractmethod
    def tendency(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        r"""Returns :math:`\dot x`."""

    def advance(self, state: Tensor) -> Tensor:
        return SCHEMES[self.scheme](self.tendency, state, self.dt)
