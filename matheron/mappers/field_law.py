r"""The law of a field about a learned map: an equation whose parameters the map tells."""

from __future__ import annotations

__all__ = ["FieldLaw", "Windowed", "joint_law"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing import Any

from ..described import Described
from ..domain import Grid
from ..observations import GriddedObservation, Informed
from ..priors.spde import AugmentedSPDE, Lattice
from ..solvers.neural import AugmentedVariational

SPREAD = {"std": 0.6, "timescale": 0.3, "lengthscale": 0.3}
"""How far parameters go from their constants."""
RANGE = 2.5
"""The lengthscale of the fields of parameters, in those of the field."""
TURNOVER = 12.0
"""Days in which the std of the velocity goes a lengthscale."""


@dataclass(frozen=True)
class Windowed:
    r"""Some windows of days: what a map makes of each, and what it was made of.

    Arguments:
        estimate: The fields of all days of each window.
        values: The data in the cells, zero where there are none.
        seen: Where the solver saw some.
    """

    estimate: Float[Tensor, "k t h w"]
    values: Float[Tensor, "k t h w"]
    seen: Bool[Tensor, "k t h w"]


class FieldLaw(Described, nn.Module):
    r"""The law of a mapped field: advection and diffusion, with parameters that a network tells.

    .. math:: x \mid \theta \sim \mathcal{N}(0, Q(\theta)^{-1}), \qquad
        \theta = N(\hat x, y)

    The network looks at the map of a window and at the data that it was made of, and was trained
    for the likelihood of true fields, determinant included: see :func:`matheron.compare.learn`.
    Members are the map plus departures that are those of the exact posterior given the
    parameters, :math:`x - K_\theta (H x + \varepsilon)`, with :math:`x` and
    :math:`\varepsilon` drawn once for all days, so that members go on from day to day. The map
    is better than the estimate of this law, and their size is that of errors on days held out:

    .. math:: \sigma = s^b \, g

    with :math:`s` the std of the law and :math:`g` a :class:`matheron.fit.GapSpread`.

    The equation is solved on a grid some times coarser than that of the map, without a margin.

    References:
        | Neural variational data assimilation with uncertainty quantification using SPDE priors
          (Beauchamp, Fablet, Benaichouche, Tandeo, Desassis & Chapron, 2025)
        | https://doi.org/10.1175/AIES-D-24-0060.1

    Arguments:
        solver: What tells the parameters, with ``first="guess"``.
        lengthscale: The constants of the law, from which parameters depart: the lengthscale along
            each axis of space, in metres.
        timescale: The timescale, in days.
        std: The standard deviation, in units of the field.
        velocity: The velocity along each axis of space, in metres per day.
        noise: The standard deviation of the data about the field.
        coarser: How many steps of the map make one of the equation.
        every: How many steps of the equation lie between the nodes of the parameters.
        color: The color of the noise of the equation.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        solver: AugmentedVariational,
        lengthscale: Sequence[float],
        timescale: float,
        std: float,
        velocity: Sequence[float],
        noise: float,
        coarser: int = 2,
        every: int = 4,
        color: int = 2,
    ) -> None:
        super().__init__()
        if min(*lengthscale, timescale, std, noise, coarser, every) <= 0:
            msg = (
                f"FieldLaw(std=...): expected positive numbers, got {[*lengthscale]}, "
                f"{timescale}, {std}, {noise}, {coarser}, {every}. Train it with 4dvarnet-spde."
            )
            raise ValueError(msg)
        self.solver = solver
        self.constants: dict[str, Any] = {
            "lengthscale": tuple(lengthscale),
            "timescale": timescale,
            "std": std,
            "velocity": tuple(velocity),
        }
        self.noise, self.coarser, self.every, self.color = noise, coarser, every, color
        self.power = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
        self._priors: dict[bytes, AugmentedSPDE] = {}

    # between the grid of the map and that of the equation

    def coarse(self, fine: Grid) -> Grid:
        r"""Returns the grid of the equation, over that of a map."""
        axes = {k: v if k == "time" else self._coarse(v) for k, v in fine.axes.items()}
        return Grid(metric=fine.metric, **axes)  # type: ignore[arg-type]

    def _coarse(self, axis: Float[Tensor, " k"]) -> Float[Tensor, " j"]:
        step = (axis[-1] - axis[0]) / (len(axis) - 1) * self.coarser
        count = math.ceil((len(axis) - 1) / self.coarser) + 1
        return axis[0] + step * torch.arange(count, dtype=torch.float64)

    def picked(self, size: int) -> Int[Tensor, " j"]:
        r"""Returns the nodes of a map at those of the equation; the last one, beyond its end."""
        count = math.ceil((size - 1) / self.coarser) + 1
        return (self.coarser * torch.arange(count)).clamp(max=size - 1)

    def at_nodes(self, x: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch i j"]:
        r"""Returns the values of maps at the nodes of the equation."""
        return x[..., self.picked(x.shape[-2]), :][..., self.picked(x.shape[-1])]

    def _cells(self, h: int, w: int) -> Int[Tensor, " p"]:
        r"""Returns the node of the equation whose cell each node of a map is in."""
        i, j = (torch.div(torch.arange(n) + self.coarser // 2, self.coarser) for n in (h, w))
        i, j = i.floor().long(), j.floor().long()
        return (i[:, None] * len(self.picked(w)) + j).flatten()

    def data(self, windows: Windowed) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns data, where there are some, and maps, at the nodes of the equation.

        What data differ from the map by is averaged, so that their places do not matter.

        Returns:
            Values, mask and map, each with shape :math:`(k, n)`.
        """
        k, t, h, w = windows.estimate.shape
        cells, count = self._cells(h, w), len(self.picked(h)) * len(self.picked(w))
        seen = windows.seen.double().flatten(2)
        rest = torch.where(windows.seen, windows.values - windows.estimate, 0.0).flatten(2)
        total, many = (
            x.new_zeros(k, t, count).index_add(2, cells, x) for x in (rest.double(), seen)
        )
        guess = self.at_nodes(windows.estimate.double()).flatten(2)
        mask = many > 0
        values = torch.where(mask, guess + total / many.clamp(min=1), 0.0)
        return values.flatten(1), mask.flatten(1), guess.flatten(1)

    # the law

    def prior(self, window: Grid) -> AugmentedSPDE:
        r"""Returns the joint law of field and parameters in a window of the grid of a map."""
        coarse = self.coarse(window)
        days = coarse.axes["time"]
        axes = {**coarse.axes, "time": days - days[0]}
        key = b"".join(a.numpy().tobytes() for a in axes.values()) + coarse.metric.encode()
        if key not in self._priors:
            grid = Grid(metric=coarse.metric, **axes)  # type: ignore[arg-type]
            self._priors = {key: self._prior(grid)}
        return self._priors[key]

    def _prior(self, grid: Grid) -> AugmentedSPDE:
        return joint_law(grid, self.constants, self.every, self.color)

    @torch.no_grad()
    def tell(self, window: Grid, windows: Windowed) -> Float[Tensor, "k c q"]:
        r"""Returns the parameters of each window; the constants where there are no data."""
        prior, found = self.prior(window), []
        values, mask, guess = self.data(windows)
        for y, m, x in zip(values, mask, guess, strict=True):
            if not m.any():
                found.append(prior.constants()[0])
                continue
            seen = Informed(GriddedObservation(prior.domain, m, self.noise), 1)
            conditional = self.solver(prior, seen)
            found.append(conditional.parameters(torch.cat([y, x])))  # type: ignore[attr-defined]
        return torch.stack(found)

    def sigma(
        self, std: Float[Tensor, "*batch h w"], gaps: Float[Tensor, "*batch h w"]
    ) -> Float[Tensor, "*batch h w"]:
        r"""Returns the std of the errors of the map, from that of the law and that of the gaps."""
        return std**self.power * gaps


def joint_law(
    grid: Grid, constants: dict[str, Any], every: int, color: int, **settings: Any
) -> AugmentedSPDE:
    r"""Returns the joint law of field and parameters, whose lattice ends with the grid.

    Arguments:
        grid: Its grid.
        constants: The constants of the equation.
        every: The steps between nodes of the parameters.
        color: The color of the noise.
        settings: Others of :class:`AugmentedSPDE`, in place of the usual ones.
    """
    length = sum(constants["lengthscale"]) / len(constants["lengthscale"])
    space = {k: v for k, v in grid.axes.items() if k != "time"}
    lattice = Lattice(Grid(metric=grid.metric, **space), cross=True)  # type: ignore[arg-type]
    usual = {"spread": SPREAD | {"velocity": length / TURNOVER}, "smoothness": RANGE * length}
    return AugmentedSPDE(
        grid, **constants, every=every, color=color, lattice=lattice, **(usual | settings)
    )
