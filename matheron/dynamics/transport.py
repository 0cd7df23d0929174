r"""A tracer that is carried, spread and forgotten, on a lattice."""

from __future__ import annotations

__all__ = ["Transport"]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import Tendency

LARGEST = {"runge-kutta": 2.7, "euler": 2.0, "implicit": 2.0}
"""The largest product of the time step and the fastest rate of the lattice, for each scheme."""


class Transport(Tendency):
    r"""Advection, diffusion and decay of a tracer, by finite volumes.

    .. math:: \dot c + \nabla \cdot (u \, c) = \nabla \cdot (K \nabla c) - r \, c

    What leaves a cell enters its neighbour, so that without decay the total is kept to rounding.
    At faces the tracer is that of the cell upstream (``"upwind"``, which makes no new extrema
    where the flow converges nowhere, and spreads as :math:`|u| \Delta / 2`), or the mean of both
    (``"centred"``, of second order, which does not spread but may overshoot). A step by Euler is
    stable for a centred flow only with diffusion.

    References:
        | Finite Volume Methods for Hyperbolic Problems (LeVeque, 2002)
        | https://doi.org/10.1017/CBO9780511791253

    Arguments:
        shape: The shape of the lattice, along one axis or more.
        spacing: The distance :math:`\Delta` of nodes along each axis.
        velocity: The velocity along each axis: numbers, or values at the nodes; averages of two
            nodes stand at the face between them.
        diffusivity: The diffusivity :math:`K`, in squared units of distance per unit of time.
        decay: The rate :math:`r` at which the tracer is forgotten.
        dt: The time step.
        periodic: Whether each axis closes on itself; nothing crosses the ends of the others.
        faces: ``"upwind"`` or ``"centred"``.
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``.

    Raises:
        ValueError: If axes, spacings and velocities do not match, a rate is negative, or the time
            step is too long for the lattice.

    Example:
        >>> ring = Transport((8,), (1.0,), (1.0,), dt=1.0, scheme="euler")  # one cell per step
        >>> c = torch.arange(8.0, dtype=torch.float64)
        >>> ring(c, 3).tolist()
        [5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    """

    velocity: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing: Sequence[float],
        velocity: Sequence[float | Tensor],
        diffusivity: float = 0.0,
        decay: float = 0.0,
        dt: float = 1.0,
        periodic: bool | Sequence[bool] = True,
        faces: str = "upwind",
        scheme: str = "runge-kutta",
    ) -> None:
        super().__init__(shape, dt, scheme)
        axes = len(shape)
        self.periodic = [periodic] * axes if isinstance(periodic, bool) else list(periodic)
        self.spacing, self.faces = [float(d) for d in spacing], faces
        self._check_axes(shape, velocity, faces)
        values = [torch.as_tensor(u, dtype=torch.float64).expand(shape) for u in velocity]
        self.register_buffer("velocity", torch.stack(values))
        self.diffusivity, self.decay = diffusivity, decay
        self._check_step()

    def _check_axes(self, shape: tuple[int, ...], velocity: Sequence[object], faces: str) -> None:
        counts = {len(shape), len(self.spacing), len(velocity), len(self.periodic)}
        if len(counts) > 1 or min(self.spacing) <= 0 or min(shape) < 2:
            msg = (
                f"Transport(shape=...): expected as many spacings, all positive, and velocities "
                f"as axes of 2 nodes or more, got {shape}, {self.spacing} and {len(velocity)}. "
                "Match them."
            )
            raise ValueError(msg)
        if faces not in {"upwind", "centred"}:
            msg = (
                f"Transport(faces=...): expected 'upwind' or 'centred', got {faces!r}. Choose one."
            )
            raise ValueError(msg)

    def _check_step(self) -> None:
        fastest, rates = self.decay, (self.diffusivity, self.decay)
        for u, d in zip(self.velocity, self.spacing, strict=True):
            fastest += 2 * u.abs().max().item() / d + 4 * self.diffusivity / d**2
        if min(rates) < 0 or not 0 < self.dt * fastest <= LARGEST[self.scheme]:
            msg = (
                f"Transport(dt=...): expected rates of at least zero and a time step up to "
                f"{LARGEST[self.scheme] / max(fastest, 1e-300):.3g}, got {rates} and "
                f"{self.dt:g}. Shorten it, or coarsen the lattice."
            )
            raise ValueError(msg)

    def tendency(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        slope = -self.decay * x
        for axis, d in enumerate(self.spacing):
            flux = self._flux(x, axis)
            slope = slope - (flux - flux.roll(1, axis - len(self.shape))) / d
        return slope

    def _flux(self, x: Tensor, axis: int) -> Tensor:
        r"""Returns what crosses the face after each node, along one axis."""
        dim, u = axis - len(self.shape), self.velocity[axis]
        u, ahead = (u + u.roll(-1, dim)) / 2, x.roll(-1, dim)
        if self.faces == "upwind":
            carried = u.clamp(min=0) * x + u.clamp(max=0) * ahead
        else:
            carried = u * (x + ahead) / 2
        flux = carried - self.diffusivity * (ahead - x) / self.spacing[axis]
        if self.periodic[axis]:
            return flux
        inner = torch.arange(self.shape[axis]) < self.shape[axis] - 1
        return flux * inner.reshape(-1, *[1] * (-dim - 1))
