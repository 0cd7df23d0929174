r"""Descents of the variational cost whose steps are learned: 4DVarNet, and its plain form."""

from __future__ import annotations

__all__ = ["NeuralVariational", "UnrolledDescent"]

import abc
import torch
import torch.nn as nn

from collections.abc import Iterator
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute
from typing import Any, ClassVar

from .base import Geometry, LearnedConditional, LearnedSolver
from .steps import Memory, Step
from ...observations import Observation
from ...priors.base import Energy


class _Descent(LearnedConditional):
    r"""A descent with a given number of steps."""

    prior: Energy
    solver: _Unrolled

    def __init__(self, prior: Energy, observation: Observation, solver: _Unrolled) -> None:
        super().__init__(prior, observation, solver)
        self.slope = prior.prepare_gradient()
        self.stiffness = self._stiffness()

    @torch.no_grad()
    def _stiffness(self) -> Float[Tensor, ""]:
        r"""Returns the curvature of the prior in the direction of a checkerboard.

        For stencils whose signs alternate it bounds all curvatures (Gershgorin): where they are
        the same everywhere a step of its inverse cannot diverge. The median does not see edges.
        """
        shape = self.prior.domain.shape  # type: ignore[union-attr]
        places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).sum(dim=0)
        board = self.prior.domain.flatten(1.0 - 2.0 * (places % 2).to(torch.float64))  # type: ignore[union-attr]
        answer = self.slope(self.mean + self.scale * board) - self.slope(self.mean)
        return (self.scale * answer).abs().median().clamp(min=1e-12)

    def iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Float[Tensor, "*batch n"]]:
        geometry = self.geometry(y)
        x, damping = self.first(geometry), self.stiffness + geometry.precision
        memory = self._start(geometry)
        v: Tensor | None = None
        yield x
        for k in range(self.solver.steps):
            if self.solver.checkpoint and torch.is_grad_enabled():
                found = recompute(self._step, k, x, v, memory, y, damping, use_reentrant=False)
            else:
                found = self._step(k, x, v, memory, y, damping)
            x, v, memory = found
            yield x

    def _start(self, geometry: Geometry) -> Memory:
        network = self.solver.network
        if network is None:
            return ()
        return network.start(torch.cat([self.known(geometry), *self.named(geometry)], dim=1))

    def _step(
        self,
        k: int,
        x: Tensor,
        v: Tensor | None,
        memory: Memory,
        y: Tensor,
        damping: Tensor,
    ) -> tuple[Tensor, Tensor, Memory]:
        slopes = [self.slope(x), self.observation.gradient(x, y)]
        both = [self.arrays(self.scale * g / damping) for g in slopes]
        total = both[0] + both[1]
        direction, memory = self.solver.direction(k, torch.cat(both, dim=1), total, memory)
        v = direction if v is None else self.solver.momentum[k] * v + direction
        move = self.layout.gather(v, x.shape[:-1])
        return x - self.scale.to(x.dtype) * self.solver.rate[k] * move, v, memory


class _Unrolled(LearnedSolver[Energy], abc.ABC):
    requires: ClassVar = Energy
    network: Step | None

    def __init__(self, steps: int, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__(**settings)
        if steps < 1:
            msg = (
                f"{type(self).__name__}(steps=...): expected one step or more, got {steps}. "
                "Raise it."
            )
            raise ValueError(msg)
        self.steps = steps
        self.rate = nn.Parameter(torch.ones(steps, dtype=dtype))
        self.momentum = nn.Parameter(torch.zeros(steps, dtype=dtype))

    @abc.abstractmethod
    def direction(
        self, k: int, slopes: Tensor, total: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        r"""Returns the direction of a step, in standard deviations of the field."""

    def conditional(self, prior: Energy, observation: Observation) -> LearnedConditional:
        return _Descent(prior, observation, self)


class UnrolledDescent(_Unrolled):
    r"""Gradient descent with step sizes that are learned, one per step, and momentum.

    .. math:: v_k = m_k v_{k-1} + D^{-1} \nabla J(x_k), \qquad x_{k+1} = x_k - \rho_k v_k

    The scaling :math:`D` is diagonal: the stiffness of the prior plus the precision of the data.
    The start, :math:`\rho = 1` and :math:`m = 0`, is damped Jacobi.

    References:
        | Learning fast approximations of sparse coding (Gregor & LeCun, 2010)
        | https://doi.org/10.5555/3104322.3104374

    Arguments:
        steps: The number of steps.
        momentum: Whether momentum is learned, too.
        dtype: The floating type inside.
        settings: Those of :class:`LearnedSolver`.

    Raises:
        ValueError: If ``steps`` is not positive, or a setting is not known.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 1.0, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5, lengthscale=2.0), grid)
        >>> seen = mt.GriddedObservation(grid, torch.tensor([False, True, False]), 1.0)
        >>> solver = UnrolledDescent(steps=200, dtype=torch.float64)
        >>> posterior = solver(prior, seen)(torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64))
        >>> round(posterior.mean[1].item(), 3)  # kriging has 1
        1.0
    """

    network = None
    looks: ClassVar = False

    def __init__(
        self,
        steps: int = 20,
        momentum: bool = True,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        super().__init__(steps, dtype, **settings)
        self.momentum.requires_grad_(momentum)

    def direction(
        self, k: int, slopes: Tensor, total: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        return total, memory


class NeuralVariational(_Unrolled):
    r"""A descent of the variational cost whose directions are learned: 4DVarNet.

    .. math:: d_k = a_k D^{-1} \nabla J(x_k) + \Gamma\!\left(
        D^{-1} \nabla J_b(x_k), D^{-1} \nabla J_o(x_k), h_k \right), \quad
        v_k = m_k v_{k-1} + d_k, \quad x_{k+1} = x_k - \rho_k v_k

    Gradients are those of sums, in units of the field's standard deviation, scaled by the
    diagonal :math:`D` of the stiffness of the prior plus the precision of the data: they are of
    order one, and do not know the size of the patch nor the batch. Before training
    :math:`a = 1` for a network that is linear in the gradients, which is damped Jacobi beside
    small directions of the network; for others :math:`a = 0`, as a plain step on a cost that is
    not quadratic may go anywhere, while their directions are bounded.

    The number of steps belongs to the model, with their sizes. Train on :meth:`trajectory` of the
    conditional law for estimates that are of use after any of them.

    References:
        | Learning variational data assimilation models and solvers
        | (Fablet, Chapron, Drumetz, Mémin, Pannekoucke & Rousseau, 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        network: The network of a step: :class:`LightStep`, :class:`RecurrentStep` or
            :class:`NetworkStep`. Fields by name (``others``) are part of what it knows of the
            places.
        steps: The number of steps.
        dtype: The floating type of the weights, and inside.
        settings: Those of :class:`LearnedSolver`.

    Raises:
        ValueError: If ``steps`` is not positive, a setting is not known, or the network has other
            channels or dimensions than the prior.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(y=torch.arange(8.0), x=torch.arange(8.0))
        >>> prior = mt.WhittleMatern(grid, lengthscale=3.0)
        >>> seen = mt.GriddedObservation(grid, torch.arange(64) % 5 == 0, noise_std=0.1)
        >>> from matheron.solvers.neural import LightStep
        >>> network = LightStep(1, levels=2, generator=torch.Generator().manual_seed(0))
        >>> posterior = NeuralVariational(network, steps=5)(prior, seen)(torch.ones(64).double())
        >>> posterior.mean.shape, posterior.info["iterations"]
        (torch.Size([64]), 5)
    """

    network: Step

    def __init__(
        self,
        network: Step,
        steps: int = 10,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        super().__init__(steps, dtype, **settings)
        self.network = network.to(dtype)
        # a cost that is not quadratic may send a plain step anywhere: directions of a network
        # that is not linear are bounded, and are all there is before training
        straight = torch.ones(steps) if network.linear else torch.zeros(steps)
        self.straight = nn.Parameter(straight.to(dtype))

    def direction(
        self, k: int, slopes: Tensor, total: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        bent, memory = self.network(slopes, memory)
        return self.straight[k] * total + bent, memory

    def conditional(self, prior: Energy, observation: Observation) -> LearnedConditional:
        found = super().conditional(prior, observation)
        layout, network = found.layout, self.network
        if (layout.channels, layout.dims) != (network.channels, network.dims):
            msg = (
                f"NeuralVariational(network=...): expected {layout.channels} channels in "
                f"{layout.dims} dimensions, those of the prior, got {network.channels} in "
                f"{network.dims}. Build the network for them, or name the axis channels=..."
            )
            raise ValueError(msg)
        if len(self.others) * layout.channels != network.beside:
            msg = (
                f"NeuralVariational(network=...): expected {len(self.others) * layout.channels} "
                f"channels of the fields beside the data, got {network.beside}. Build the network "
                "with beside=..."
            )
            raise ValueError(msg)
        return found
