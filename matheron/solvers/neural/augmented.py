r"""Learned solvers for a field and the parameters of its law at once: 4DVarNet-SPDE."""

from __future__ import annotations

__all__ = ["AugmentedConditional", "AugmentedVariational"]

import torch
import torch.nn as nn

from collections.abc import Iterator, Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import CHUNK, Geometry, LearnedConditional, LearnedSolver, Solved
from .steps import bent
from ..base import LikelihoodSolver
from ...nets import Net
from ...observations import LinearObservation, Observation
from ...posterior import Posterior
from ...priors.base import Prior
from ...priors.layout import Layout
from ...priors.spde.augmented import AugmentedSPDE

MEMBERS = ("anomalies", "matheron")
Joint = tuple[Tensor, Tensor]
"""A field and its parameters, with shapes (*, n) and (*, c, k)."""


class AugmentedConditional(LearnedConditional):
    r"""Estimates of a field and of its parameters, from data alone."""

    prior: AugmentedSPDE
    solver: AugmentedVariational

    def __init__(
        self, prior: AugmentedSPDE, observation: Observation, solver: AugmentedVariational
    ) -> None:
        super().__init__(prior, observation, solver)
        self.places = Layout(prior.space, None)
        solver.check(self.layout.channels, prior.channels, self.layout.dims)

    # the estimates

    def joint_iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Joint]:
        r"""Yields fields and their parameters on the way: first guess, one pass, steps."""
        geometry, batch = self.geometry(y), y.shape[:-1]
        x, theta = self.first(geometry), self.prior.constants()[0].expand(*batch, -1, -1)
        yield x, theta
        x, theta = self._guess(geometry, theta)
        yield x, theta
        if not self.solver.steps:
            return
        damping = self.prior.stiffness * self.scale.square() + geometry.precision
        known = self.known(geometry)
        memory = self._memory(known)
        for k in range(self.solver.steps):
            x, theta, memory = self._step(k, (x, theta), memory, (y, damping, known))
            yield x, theta

    def iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Float[Tensor, "*batch n"]]:
        for x, _ in self.joint_iterates(y):
            yield x

    def estimate_jointly(self, y: Float[Tensor, "*batch m"]) -> Joint:
        r"""Returns the estimates of the field and of its parameters."""
        for x, theta in self.joint_iterates(y):  # noqa: B007
            pass
        return x.double(), theta.double()

    def solved(self, y: Float[Tensor, "*batch m"], iterates: bool = False) -> Solved:
        path = list(self.joint_iterates(y))
        xs = torch.stack([x for x, _ in path]).double()
        return Solved(xs[-1], xs if iterates else None, path[-1][1])

    def parameters(self, y: Float[Tensor, " m"]) -> Float[Tensor, "c k"]:
        r"""Returns the estimate of the parameters."""
        with torch.no_grad():
            return self.estimate_jointly(y)[1]

    def _guess(self, geometry: Geometry, theta: Tensor) -> Joint:
        batch = geometry.start.shape[:-1]
        d, w = self.arrays(geometry.guess), self.arrays(geometry.weight)
        sea = self.sea.expand(len(w), *self.sea.shape[1:])
        told = self.beside(geometry)[:1] if self.solver.first == "guess" else []
        found = self.solver.guess(torch.cat([d, w, *told, sea], dim=1))
        z, fields = found.split([self.layout.channels, self.prior.channels], dim=1)
        x = geometry.start + self.scale * self.layout.gather(z, batch)
        return x.to(self.solver.dtype), theta + self._coarse(fields, batch)

    def _memory(self, known: Float[Tensor, "b q *space"]) -> list[Tensor]:
        blank = known.new_zeros(len(known), self.solver.width, *known.shape[2:])
        return [blank for _ in self.solver.networks]

    def _step(
        self, k: int, at: Joint, memory: list[Tensor], data: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        (x, theta), (y, damping, known) = at, data
        slopes = self._slopes(x, theta, y, damping)
        seen = torch.cat([*slopes, known, self._fine(theta)], dim=1)
        move, fields, memory = self.solver.directions(seen, memory, self.layout.channels)
        batch = x.shape[:-1]
        x = x - self.scale.to(x.dtype) * self.solver.rate[k] * self.layout.gather(move, batch)
        return x, theta - self._coarse(self.solver.rate[k] * fields, batch), memory

    def _slopes(
        self, x: Tensor, theta: Tensor, y: Tensor, damping: Tensor
    ) -> list[Float[Tensor, "b s *space"]]:
        r"""Returns the gradients of the prior and of the data, which are not differentiated."""
        x, theta = x.detach().double(), theta.detach()
        for_x, for_theta = self.prior.gradient(x, theta)
        of_data = self.observation.gradient(x, y).detach()
        fields = [self.arrays(self.scale * g / damping) for g in (for_x, of_data)]
        return self.solver.bent([*fields, self._fine(for_theta)])

    def _fine(self, theta: Float[Tensor, "*batch c k"]) -> Float[Tensor, "b c *space"]:
        r"""Returns parameters on the grid of the field, without time."""
        fine = self.prior.spread_out(theta.double())
        fine = fine.reshape(-1, *fine.shape[-2:])
        arrays = self.places.spread(fine)
        return arrays.reshape(*fine.shape[:2], *self.places.space).to(self.solver.dtype)

    def _coarse(
        self, fields: Float[Tensor, "b c *space"], batch: Sequence[int]
    ) -> Float[Tensor, "*batch c k"]:
        r"""Returns the means of fields around the nodes of the parameters."""
        b, c = fields.shape[:2]
        flat = self.places.gather(fields.double().reshape(b * c, 1, *self.places.space), (b, c))
        found = self.prior.gathered(flat)
        return found.reshape(*batch, *found.shape[1:])

    # what follows from them

    def exact(self, y: Float[Tensor, " m"], theta: Tensor | None = None) -> Posterior:
        r"""Returns the exact posterior given parameters, by default those that are estimated."""
        theta = self.parameters(y) if theta is None else theta
        with torch.no_grad():
            law = self.solver.conditioner(self.prior.given(theta), self.observation)
        return law(y)

    def refined(
        self,
        y: Float[Tensor, " m"],
        theta: Float[Tensor, "c k"] | None = None,
        steps: int = 5,
    ) -> Float[Tensor, "c k"]:
        r"""Returns parameters after some steps up the likelihood of the data and their own law.

        .. math:: \max_\theta \; \log p(y \mid \theta) + \log p(\theta)

        by L-BFGS, in terms of the white noise that parameters are made of.

        Arguments:
            y: The data.
            theta: Where to start; by default the estimate of the networks.
            steps: The number of steps.
        """
        theta = self.parameters(y) if theta is None else theta
        return self.prior.likeliest(lambda t: self.data_cost(y, t), theta, steps)

    def evidence_cost(
        self, y: Float[Tensor, " m"], theta: Float[Tensor, "c k"]
    ) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log p(y \mid \theta) - \log p(\theta)`, differentiable."""
        return self.data_cost(y, theta) + self.prior.penalty(theta)

    def data_cost(self, y: Float[Tensor, " m"], theta: Float[Tensor, "c k"]) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log p(y \mid \theta)`, differentiable."""
        conditioner, observation = self.solver.conditioner, self.observation
        if not isinstance(observation, LinearObservation):
            msg = (
                f"AugmentedVariational.refined(observation=...): expected a LinearObservation, "
                f"got {type(observation).__name__}. Use the estimate of the networks."
            )
            raise TypeError(msg)
        return -conditioner.likelihood(self.prior.given(theta), observation, y).value()

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        r"""Draws around the estimate, with the law of the parameters that are estimated."""
        x, theta = self.estimate_jointly(y)
        if self.solver.members == "matheron":
            anomalies = self._residuals(theta, size, generator)
        else:
            law = self.exact(y, theta)
            anomalies = law.sample(size, generator) - law.mean
        return x + self.solver.inflation.to(x.dtype) * anomalies

    def _residuals(
        self, theta: Float[Tensor, "c k"], size: int, generator: Generator | None
    ) -> Float[Tensor, "size n"]:
        r"""Returns draws less their estimates, by Matheron's rule."""
        x_s = self.prior.given(theta).sample(size, generator)
        chunks = self.observation.sample(x_s, generator).split(max(1, CHUNK // x_s.shape[-1]))
        return x_s - torch.cat([self.estimate(y) for y in chunks])

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        if self.solver.members == "matheron":
            return super().std(y, size, generator)
        return self.solver.inflation * self.exact(y).std()

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        theta = self.parameters(y)
        return {"approximate": True, "iterations": self.solver.steps + 1, "theta": theta}


class AugmentedVariational(LearnedSolver[AugmentedSPDE]):
    r"""A learned descent in a field and in the parameters of its law: 4DVarNet-SPDE.

    One pass of a network, ``guess``, tells a field and its parameters from the data; a second
    network may then take steps in both from the gradients of their joint cost,

    .. math:: [x, \theta]_{k+1} = [x, \theta]_k - \rho_k \, N \! \left(
        a \, \mathrm{asinh}(s \, g_k / a), \, q, \, \theta_k, \, \tanh h_k \right), \qquad
        g_k = \left( D^{-1} \nabla_x J_b, \, D^{-1} \nabla_x J_o, \, \nabla_\theta J_b \right)

    where :math:`J_b = -\log p(x, \theta)` holds the log-determinant of the precision. Gradients
    in parameters are brought to the grid of the field, and moves back to theirs by averages.
    Gradients are what the network is told, and are not differentiated: that of a log-determinant
    has no cheap derivative. Training moves the weights through the iterates themselves.

    Parameters start from their constants and see nothing but the data: no truth, at no time. With
    ``steps=0`` they are amortised, told at once. A few steps of their likelihood,
    :meth:`AugmentedConditional.refined`, may follow, and :meth:`AugmentedConditional.exact` is
    the exact posterior with them.

    Members are draws around the estimate, given the parameters that are estimated:
    ``"anomalies"`` of the exact posterior, or by Matheron's rule, ``"matheron"``, whose draws go
    through the networks, and so hold what the networks are short of.

    References:
        | Neural variational data assimilation with uncertainty quantification using SPDE priors
          (Beauchamp, Fablet, Benaichouche, Tandeo, Desassis & Chapron, 2025)
        | https://doi.org/10.1175/AIES-D-24-0060.1

    Arguments:
        guess: A network of :math:`2 c + 1` channels, for :math:`c` of the field, as for
            :class:`DirectInversion`, or of :math:`3 c + 1` with ``first="guess"``, that gives
            :math:`c + p`, for :math:`p` of the parameters.
        conditioner: What conditions the field given its parameters: ``SparseCholesky()``.
        network: The network of a step, of :math:`4 c + 1 + 2 p + w` channels, that gives
            :math:`c + p + w`, with :math:`w` of memory; or two, with their own weights and
            memories, that give :math:`c + w` and :math:`p + w`.
        steps: The number of steps.
        width: The number of channels of the memory :math:`w`.
        members: ``"anomalies"`` or ``"matheron"``.
        bound: The size :math:`a` from which gradients are bent.
        dtype: The floating type of the weights.
        settings: Those of :class:`LearnedSolver`.

    Raises:
        ValueError: If a setting is not known, there are steps and no network, or a network takes
            another number of channels.

    Example:
        >>> import matheron as mt
        >>> from matheron.nets import UNet
        >>> grid = mt.Grid(time=[0.0, 1.0], y=torch.arange(8.0), x=torch.arange(8.0))
        >>> prior = AugmentedSPDE(grid, lengthscale=3.0, timescale=4.0)
        >>> net = UNet(2 * 2 + 1, 2 + 7, width=4, generator=torch.Generator().manual_seed(0))
        >>> seen = mt.GriddedObservation(grid, torch.arange(128) % 5 == 0, noise_std=0.1)
        >>> solver = AugmentedVariational(net, mt.SparseCholesky())
        >>> posterior = solver(prior, seen)(torch.ones(128, dtype=torch.float64))
        >>> posterior.mean.shape, posterior.info["theta"].shape
        (torch.Size([128]), torch.Size([7, 9]))
    """

    requires: ClassVar = AugmentedSPDE

    def __init__(
        self,
        guess: Net,
        conditioner: LikelihoodSolver[Any],
        network: Net | tuple[Net, Net] | None = None,
        steps: int = 0,
        width: int = 8,
        members: str = "anomalies",
        bound: float = 3.0,
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if members not in MEMBERS:
            msg = (
                f"AugmentedVariational(members=...): expected one of {MEMBERS}, got {members!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        if steps < 0 or (steps > 0 and network is None) or min(width, bound) <= 0:
            msg = (
                f"AugmentedVariational(steps=...): expected a network for steps, a positive width "
                f"and bound, got {steps} steps, {width} and {bound}. Use steps=0 without one."
            )
            raise ValueError(msg)
        self.steps, self.width, self.members, self.bound = steps, width, members, bound
        self.guess, self.conditioner = guess.to(dtype), conditioner
        each = () if network is None else network if isinstance(network, tuple) else (network,)
        self.networks = nn.ModuleList(net.to(dtype) for net in each)
        self.rate = nn.Parameter(torch.ones(steps, dtype=dtype))
        self.log_gain = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=steps > 0)

    def units(self, prior: Prior, layout: Layout) -> Joint:
        assert isinstance(prior, AugmentedSPDE)
        one = torch.ones((), dtype=torch.float64)
        given = [None if v is None else layout.flat(v) for v in (self.mean, self.scale)]
        mean = prior.equation.constant * one if given[0] is None else given[0]
        return mean, prior.std * one if given[1] is None else given[1]

    def check(self, fields: int, parameters: int, dims: int) -> None:
        r"""Says so if a network does not fit a field of so many channels."""
        many = 3 if self.first == "guess" else 2
        needed = {"guess": (self.guess, many * fields + 1)}
        for k, net in enumerate(self.networks):
            channels = 4 * fields + 1 + 2 * parameters + self.width
            needed[f"network {k}"] = (net, channels)  # type: ignore[assignment]
        for name, (net, channels) in needed.items():
            if (net.channels, net.dims) != (channels, dims):
                msg = (
                    f"AugmentedVariational({name}=...): expected a network of {channels} channels "
                    f"in {dims} dimensions, got {net.channels} in {net.dims}. Build it for them."
                )
                raise ValueError(msg)

    def bent(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        r"""Returns gradients times their gains, large ones bent."""
        gains = self.log_gain.exp()
        return [bent(s * g, self.bound) for s, g in zip(slopes, gains, strict=True)]

    def directions(
        self, seen: Float[Tensor, "b s *space"], memory: list[Tensor], fields: int
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        r"""Returns the directions of the field and of the parameters, and the next memories."""
        pairs = zip(self.networks, memory, strict=True)
        found = [net(torch.cat([seen, h.tanh()], dim=1)) for net, h in pairs]
        memory = [f[:, -self.width :] for f in found]
        moves = torch.cat([f[:, : -self.width] for f in found], dim=1)
        return moves[:, :fields], moves[:, fields:], memory

    def conditional(self, prior: AugmentedSPDE, observation: Observation) -> AugmentedConditional:
        return AugmentedConditional(prior, observation, self)
