r"""A Markov law apart from its lattice: what a fit has found, to be put on any domain."""

from __future__ import annotations

__all__ = ["METHODS", "QUICK", "MarkovLaw", "narrowest"]

import copy
import torch

from dataclasses import dataclass, replace
from jaxtyping import Float
from torch import Tensor
from typing import Any

from .lattices import Spacing, lattice, spacing_for
from ..domain import Grid, Points
from ..kernels import Matern
from ..priors.spde.advection_diffusion import AdvectionDiffusion
from ..priors.spde.fields import ParameterField
from ..priors.spde.whittle_matern import WhittleMatern

METHODS = ("spde", "advection-diffusion")
MOST = 600_000
"""The largest number of unknowns of a lattice."""
FILL = 1.5e8
"""The largest product of unknowns and of those of a cut, in three dimensions: about 1 GB."""
QUICK = 0.4
"""The time in which a point forgets, in timescales: small waves are forgotten first."""
FRACTIONAL = 2
"""The unknowns of a node where a power is not whole."""

NOWHERE = Spacing({}, {})
"""The spacing of a law that has no lattice yet."""

MarkovField = WhittleMatern | AdvectionDiffusion


@dataclass(frozen=True)
class MarkovLaw:
    r"""The parameters of a Markov prior, and the spacing of its lattice.

    Arguments:
        method: ``"spde"`` or ``"advection-diffusion"``.
        alpha: The power of the operator.
        kernel: The variance and the lengthscales: over time too for ``"spde"``, over space alone
            for ``"advection-diffusion"``.
        timescale: The timescale, in days, of ``"advection-diffusion"``.
        velocity: Its velocity: constant and learned, or given; none where nothing is carried.
        spacing: The steps of the lattice.
    """

    method: str
    alpha: float
    kernel: Matern
    spacing: Spacing = NOWHERE
    timescale: float | None = None
    velocity: ParameterField | None = None

    @property
    def unknowns(self) -> int:
        r"""The number of unknowns of a node."""
        return 1 if float(self.alpha).is_integer() else FRACTIONAL

    def prior(self, domain: Grid | Points, points: Points, trend: str | None) -> MarkovField:
        r"""Returns the prior on a domain, with a lattice that covers the points as well.

        Raises:
            ValueError: If the lattice would be too large.
        """
        nodes = lattice(domain, points, self.spacing)
        self._check_size(nodes)
        make = self._still if self.method == "spde" else self._moving
        prior = make(domain, nodes, trend)
        with torch.no_grad():  # to the last digit, which principal axes do not keep
            prior.kernel.load_state_dict(self.kernel.state_dict())
        return prior

    def _scales(self) -> dict[str, Any]:
        scale, rotation = self.kernel.principal_axes()
        found: dict[str, Any] = {"lengthscale": scale.detach(), "variance": self.variance}
        if rotation is not None:
            angles = rotation.detach().reshape(-1).tolist()
            found["rotation"] = angles if len(angles) > 1 else angles[0]
        return found

    @property
    def variance(self) -> float:
        r"""The variance of the field."""
        return self.kernel.variance.item()

    def _still(self, domain: Grid | Points, nodes: Grid, trend: str | None) -> WhittleMatern:
        scales = self._scales()
        return WhittleMatern(domain, alpha=self.alpha, trend=trend, lattice=nodes, **scales)

    def _moving(self, domain: Grid | Points, nodes: Grid, trend: str | None) -> AdvectionDiffusion:
        assert self.timescale is not None
        return AdvectionDiffusion(
            domain,
            timescale=self.timescale,
            alpha=int(self.alpha),
            velocity=copy.deepcopy(self.velocity),
            trend=trend,
            times=nodes.axes["time"],
            lattice=_space_of(nodes),
            **self._scales(),
        )

    def local(self, points: Points) -> dict[str, Tensor]:
        r"""Returns the fields of parameters at some points, in the order of the axes of space.

        ``lengthscale`` is the square of the matrix of lengthscales, with shape (m, d, d), in
        squared metres on the sphere; ``velocity`` is per day, with shape (m, d).
        """
        timed = int("time" in points.dims)
        size = len(points.dims) - (timed if self.timescale is not None else 0)
        with torch.no_grad():
            root = self.kernel.scaled(torch.eye(size, dtype=torch.float64))
            square = torch.linalg.inv(root @ root.mT) * 2 * self.kernel.nu
            square = square[-(len(points.dims) - timed) :, -(len(points.dims) - timed) :]
            found = {"lengthscale": square.expand(len(points), -1, -1)}
            if self.velocity is not None:
                found["velocity"] = self.velocity(points)
        return found

    def _check_size(self, nodes: Grid) -> None:
        count = len(nodes) * self.unknowns
        if count > 2 * MOST:
            msg = (
                f"map(method={self.method}): expected a lattice of at most {MOST} "
                f"unknowns over the target and the data, got {count}. Map a smaller area, or use "
                "--method vecchia."
            )
            raise ValueError(msg)

    def fitted(self, prior: MarkovField) -> MarkovLaw:
        r"""Returns the law with the present parameters of a prior."""
        kernel = copy.deepcopy(prior.kernel).requires_grad_(True)
        if isinstance(prior, WhittleMatern):
            return replace(self, kernel=kernel)
        velocity = copy.deepcopy(prior.velocity)
        return replace(self, kernel=kernel, timescale=prior.timescale.item(), velocity=velocity)

    def spaced(self, domain: Grid | Points, points: Points, fineness: float) -> MarkovLaw | None:
        r"""Returns the law with the lattice that its scales ask for, ``None`` if too large."""
        moving = self.timescale is not None
        count = len(domain.dims) - moving
        scales = narrowest(self.kernel).tolist()
        scales = scales * count if len(scales) == 1 else scales
        if self.timescale is not None:
            scales = [self.timescale * QUICK, *scales]
        free = ("time",) if moving else ()
        most, fill = MOST // self.unknowns, FILL / self.unknowns**2
        spacing = spacing_for(domain, points, scales, most, fill, fineness, free)
        if spacing is None:
            return None
        return replace(self, spacing=spacing)


def _space_of(nodes: Grid) -> Grid:
    r"""Returns the axes of space of a grid, at sea where it is at any time."""
    axes: dict[str, Any] = {k: v for k, v in nodes.axes.items() if k != "time"}
    mask = None if nodes.mask is None else nodes.mask.unflatten(0, nodes.shape).any(dim=0)
    return Grid(**axes, mask=mask, metric=nodes.metric)


def narrowest(kernel: Matern) -> Float[Tensor, " d"]:
    r"""Returns the least lengthscale across each axis: what a lattice is to resolve.

    Example:
        >>> narrowest(Matern(1.5, 1.0, [2.0, 4.0])).tolist()
        [2.0, 4.0]
    """
    with torch.no_grad():
        logs = kernel.log_lengthscale
        if kernel.shear is None:
            return logs.exp().reshape(-1)
        eye = torch.eye(len(logs), dtype=torch.float64)
        root = kernel.scaled(eye) / (2 * kernel.nu).sqrt()  # the inverse of the lengthscales
        return (root @ root.mT).diagonal().rsqrt()
