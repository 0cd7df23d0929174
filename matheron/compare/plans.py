r"""What solvers that learn are made of, and how long they learn."""

from __future__ import annotations

__all__ = ["NETWORKS", "VALIDATIONS", "Plan"]

import math

from collections.abc import Callable
from dataclasses import dataclass
from torch import Generator
from typing import Any

from ..domain import Grid
from ..fit import Loss, Schedule
from ..fit.losses import every_iterate, field_error, gradient_error
from ..kernels import Matern
from ..nets import BilinearAutoencoder, UNet
from ..priors import GaussianProcess
from ..priors.base import Prior
from ..priors.projection import Projection
from ..solvers.base import Solver
from ..solvers.neural import DirectInversion, FixedPoint, NeuralVariational, RecurrentStep

Made = tuple[Solver[Any], Prior]
EDDIES = 50e3
"""The length that errors of slopes are measured by, in metres."""
SLOPES = 0.3
"""The weight of the errors of slopes."""
GROWTH = 1.5
"""How much more each iterate counts than the one before."""
VALIDATIONS = 20
"""How often a training is validated, and kept."""


@dataclass(frozen=True)
class Plan:
    r"""What is trained, on what, and for how long.

    Arguments:
        method: ``"unet"``: a network from data to field; ``"4dvarnet"``: a descent of a cost,
            both of which are learned; ``"fixedpoint"``: a projection, again and again.
        window: The number of days that a day is mapped from, odd.
        step: The step of the grid, in degrees.
        patch: The most nodes of a window on a side.
        width: The channels of the networks; those of the method by default.
        iterations: The iterations of the solver; none of ``"unet"``.
        updates: The number of updates of the weights.
        batch: The windows of an update.
        rate: The largest learning rate.
        exchange: The probability that a window is seen through the gaps of another time.
        seed: The seed of weights, and of the order of windows.

    Raises:
        ValueError: If the method is not known, or a number not positive.
    """

    method: str = "4dvarnet"
    window: int = 9
    step: float = 0.2
    patch: int = 48
    width: int | None = None
    iterations: int = 10
    updates: int = 2000
    batch: int = 4
    rate: float = 1e-3
    exchange: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in NETWORKS:
            msg = (
                f"Plan(method=...): expected one of {', '.join(NETWORKS)}, got {self.method!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        names = ("window", "step", "patch", "iterations", "updates", "batch", "rate")
        wrong = [k for k in names if not 0 < getattr(self, k) < math.inf]
        if wrong or (self.width is not None and self.width < 1):
            name = (wrong or ["width"])[0]
            msg = f"Plan({name}=...): expected a positive number, got {getattr(self, name)}. "
            raise ValueError(msg + "Raise it.")

    @property
    def schedule(self) -> Schedule:
        r"""How weights are moved."""
        every = max(1, self.updates // VALIDATIONS)
        return Schedule(
            self.updates,
            self.batch,
            self.rate,
            warm_up=max(1, self.updates // 20),
            clip=1.0,
            validate_every=every,
            save_every=every,
            save_minutes=2.0,
        )

    def made(self, grid: Grid, mean: float, std: float) -> Made:
        r"""Returns the solver and the prior at their first weights.

        Arguments:
            grid: The grid of a window.
            mean: The mean of the field.
            std: Its std.
        """
        return NETWORKS[self.method](self, grid, mean, std)

    def loss(self, std: float) -> Loss:
        r"""Returns what is made small: errors of heights and slopes, in units of the field."""
        error = (field_error() + SLOPES * gradient_error(EDDIES)) / std**2
        return error if self.method == "unet" else every_iterate(error, GROWTH)


def _direct(plan: Plan, grid: Grid, mean: float, std: float) -> Made:
    c, width = plan.window, plan.width or 24
    net = UNet(2 * c + 1, c, width, generator=Generator().manual_seed(plan.seed))
    # the network takes the grid of the prior, and nothing else
    prior = GaussianProcess(Matern(2.5, std**2, (10.0, 100e3, 100e3)), grid)
    return DirectInversion(net, mean=mean, scale=std), prior.requires_grad_(False)


def _descent(plan: Plan, grid: Grid, mean: float, std: float) -> Made:
    c, width, dice = plan.window, plan.width or 32, Generator().manual_seed(plan.seed)
    phi = BilinearAutoencoder(c, width, (1, 2), generator=dice)
    step = RecurrentStep(c, width, generator=dice)
    prior = Projection(grid, phi, std=std, mean=mean, scale=std)
    return NeuralVariational(step, steps=plan.iterations), prior


def _projected(plan: Plan, grid: Grid, mean: float, std: float) -> Made:
    net = UNet(plan.window, width=plan.width or 16, generator=Generator().manual_seed(plan.seed))
    prior = Projection(grid, net, std=std, mean=mean, scale=std)
    return FixedPoint(plan.iterations), prior


NETWORKS: dict[str, Callable[[Plan, Grid, float, float], Made]] = {
    "unet": _direct,
    "4dvarnet": _descent,
    "fixedpoint": _projected,
}
"""What makes solver and prior, by method."""
