r"""What solvers that learn are made of, and how long they learn."""

from __future__ import annotations

__all__ = ["LAW", "NETWORKS", "PRECISIONS", "VALIDATIONS", "Plan", "Units"]

import math

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from torch import Generator
from typing import Any

from ..data import Purpose
from ..domain import Grid
from ..fit import Loss, Schedule
from ..fit.losses import every_iterate, field_error, gradient_error, withheld_error
from ..kernels import Matern
from ..nets import BilinearAutoencoder, Residual, UNet
from ..observations.informed import with_known
from ..priors import GaussianProcess
from ..priors.base import Prior
from ..priors.projection import Projection
from ..solvers.base import Solver
from ..solvers.neural import DirectInversion, FixedPoint, NetworkStep, NeuralVariational

Made = tuple[Solver[Any], Prior]
EDDIES = 50e3
"""The length that errors of slopes are measured by, in metres."""
SLOPES = 0.3
"""The weight of the errors of slopes."""
GROWTH = 1.5
"""How much more each iterate counts than the one before."""
NEAR = 3.0
"""Within how many days of the wanted one the days of a window count in the training."""
LAW = "4dvarnet-spde"
"""The method that learns the law of the field as well."""
ITERATIONS = {"unet": 1, "4dvarnet": 3, "fixedpoint": 5, LAW: 3}
"""The iterations of the solvers; steps of a network with several scales need be few."""
CLOSE = 0.3
"""How far from its projection a field is at first, in errors of the first guess."""
MEMORY = 16
"""The channels of the memory of a descent."""
COVARIATES: dict[str, dict[str, float]] = {"sst": {"-lat": -1.0}}
r"""The fields that may go along with the data, and their signs under the symmetries of the field.

What a flow carries turns over with it: with :math:`\psi(x, -y)` of the other sign, the tracer
about its mean is :math:`-T(x, -y)`, warm where it was cold, as the climatology that it returns to.
It goes back to that in no flow that runs backwards: under the reversal of time there is no sign.
"""
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
"""The precisions of networks while they learn, and what Fabric calls them."""
CHOICES: dict[str, tuple[str, ...]] = {
    "first": ("oi", "none"),
    "supervision": ("truth", "data"),
    "precision": tuple(PRECISIONS),
}
"""What some settings may be."""
VALIDATIONS = 20
"""How often a training is validated, and kept."""


@dataclass(frozen=True)
class Units:
    r"""What is known of a field before the training.

    Arguments:
        grid: The grid of a window.
        mean: The mean of the field.
        std: Its std.
        rest: The std of the errors of the first guess, in units of that of the field.
        noise: The std of the errors of data.
        length: The length that errors of slopes are measured by, in metres.
    """

    grid: Grid
    mean: float
    std: float
    rest: float = 1.0
    noise: float = 1.0
    length: float = EDDIES


@dataclass(frozen=True)
class Plan:
    r"""What is trained, on what, and for how long.

    Arguments:
        method: ``"unet"``: a network from data to field; ``"4dvarnet"``: a descent of a cost,
            both of which are learned; ``"fixedpoint"``: a projection, again and again;
            ``"4dvarnet-spde"``: the descent, and the law of the field, told from its maps, that
            std and members are made of.
        window: The number of days that a day is mapped from, odd.
        step: The step of the grid, in degrees; by default 0.2 for tracks, that of the images for
            images.
        patch: The most nodes of a window on a side.
        width: The channels of the networks; those of the method by default.
        iterations: The iterations of the solver; 3 of ``"4dvarnet"`` and 5 of ``"fixedpoint"`` by
            default.
        updates: The number of updates of the weights.
        batch: The windows of an update.
        rate: The largest learning rate.
        exchange: The probability that a window is seen through the gaps of another time; one half
            by default, and zero where a first guess is made of the data, or no truth is read.
        oceans: The oceans to train on: that of the experiment, and others that are simulated.
        first: What the solver starts from: ``"oi"``, an optimal interpolation that it mends; or
            ``"none"``.
        purpose: ``"mapping"``, ``"near-real-time"`` or ``"forecast"``.
        lead: How many days ahead a forecast is.
        supervision: What estimates are judged by: ``"truth"``; or ``"data"``, data of images that
            are withheld from the solver, and the truth is never read.
        seed: The seed of weights, and of the order of windows.
        precision: The precision of networks while they learn: ``"32"``; or ``"bf16"``, about
            twice as fast where the processor has it.
        covariates: The names of other fields of the ocean that it is given beside the data.
        law_updates: The number of updates of what tells the law of the field.

    Raises:
        ValueError: If the method is not known, or a number not positive.
    """

    method: str = "4dvarnet"
    window: int = 15
    step: float | None = None
    patch: int = 48
    width: int | None = None
    iterations: int | None = None
    updates: int = 2000
    batch: int = 8
    rate: float = 1.5e-3
    exchange: float | None = None
    oceans: int = 1
    first: str = "oi"
    purpose: str = "mapping"
    lead: int = 0
    seed: int = 0
    supervision: str = "truth"
    precision: str = "32"
    covariates: Sequence[str] = ()
    law_updates: int = 400

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariates", tuple(self.covariates))  # a list in a file
        if self.method not in NETWORKS:
            msg = (
                f"Plan(method=...): expected one of {', '.join(NETWORKS)}, got {self.method!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        numbers = "window step patch iterations updates batch rate oceans law_updates"
        names = numbers.split()
        given = [k for k in names if getattr(self, k) is not None]
        wrong = [k for k in given if not 0 < getattr(self, k) < math.inf]
        if wrong or (self.width is not None and self.width < 1):
            name = (wrong or ["width"])[0]
            msg = f"Plan({name}=...): expected a positive number, got {getattr(self, name)}. "
            raise ValueError(msg + "Raise it.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                msg = (
                    f"Plan({name}=...): expected one of {known}, got {getattr(self, name)!r}. "
                    "Choose one."
                )
                raise ValueError(msg)
        self._check_exchange()
        self._check_covariates()
        self.use.visible(self.window)

    def _check_exchange(self) -> None:
        if self.blind and self.exchange:
            msg = (
                f"Plan(exchange={self.exchange}): expected none where no truth is read, got a "
                "probability. Leave it out: gaps are exchanged to withhold data."
            )
            raise ValueError(msg)
        if self.first != "none" and self.exchange:
            msg = (
                f"Plan(exchange={self.exchange}): expected none where a first guess is made of "
                "the data, got a probability. Use first='none' with it."
            )
            raise ValueError(msg)

    def _check_covariates(self) -> None:
        names = self.covariates
        if self.lawful and self.blind:
            msg = (
                f"Plan(supervision={self.supervision}): expected truth for {LAW}, whose law is "
                "that of true fields, got data. Use 4dvarnet, or --supervision truth."
            )
            raise ValueError(msg)
        unknown = [k for k in names if k not in COVARIATES] + (
            list(names) if len(set(names)) < len(names) else []
        )
        if unknown:
            msg = (
                f"Plan(covariates=...): expected some of {', '.join(COVARIATES)}, each once, got "
                f"{', '.join(names)}. Leave out {unknown[0]!r}."
            )
            raise ValueError(msg)
        if names and self.method == "fixedpoint":
            msg = (
                "Plan(method='fixedpoint'): expected no covariates, as its projection looks at "
                f"the field alone, got {', '.join(names)}. Take 'unet' or '4dvarnet'."
            )
            raise ValueError(msg)

    @property
    def steps(self) -> int:
        r"""The iterations of the solver."""
        return self.iterations or ITERATIONS[self.method]

    @property
    def lawful(self) -> bool:
        r"""Whether the law of the field is learned too."""
        return self.method == LAW

    @property
    def blind(self) -> bool:
        r"""Whether no truth is read."""
        return self.supervision == "data"

    @property
    def use(self) -> Purpose:
        r"""What windows are for."""
        return Purpose(self.purpose, self.lead, width=NEAR)

    @property
    def lag(self) -> int | None:
        r"""How many days before a day its data end; ``None`` for data before and after."""
        return None if self.purpose == "mapping" else self.lead

    @property
    def exchanged(self) -> float:
        r"""The probability that a window is seen through the gaps of another time."""
        if self.exchange is not None:
            return self.exchange
        return 0.5 if self.first == "none" and not self.blind else 0.0

    @property
    def oceans_alone(self) -> list[Any]:
        r"""What tells the oceans to train on from others."""
        others = [self.supervision, self.seed] if self.blind else []
        others += [list(self.covariates)] if self.covariates else []
        return [self.oceans, self.step, self.window, self.first, self.lag, *others]

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

    def made(self, units: Units) -> Made:
        r"""Returns the solver and the prior at their first weights.

        Arguments:
            units: The grid of a window, and what is known of the field.
        """
        return NETWORKS[self.method](self, units)

    @property
    def start(self) -> dict[str, Any]:
        r"""What a solver is told of its first guess, and of the fields beside the data."""
        told: dict[str, Any] = {} if self.first == "none" else {"first": "guess"}
        return told | ({"others": with_known(self.covariates)} if self.covariates else {})

    @property
    def beside(self) -> int:
        r"""The channels of the fields beside the data."""
        return self.window * len(with_known(self.covariates))

    def loss(self, units: Units) -> Loss:
        r"""Returns what is made small: errors of heights and slopes, in units of the start.

        Without a truth, those at data that are withheld.
        """
        error = field_error() + SLOPES * gradient_error(units.length)
        if self.blind:
            error = units.noise**2 * withheld_error()
        error = error / (units.rest * units.std) ** 2
        return error if self.method == "unet" else every_iterate(error, GROWTH)


def _direct(plan: Plan, units: Units) -> Made:
    c, width = plan.window, plan.width or 24
    channels = (2 if plan.first == "none" else 3) * c + 1 + plan.beside
    net = UNet(channels, c, width, generator=Generator().manual_seed(plan.seed))
    # the network takes the grid of the prior, and nothing else
    law = Matern(2.5, units.std**2, (10.0, 100e3, 100e3))
    prior = GaussianProcess(law, units.grid).requires_grad_(False)
    known: Any = {"mean": units.mean, "scale": units.std, **plan.start}
    return DirectInversion(net, rest=units.rest, **known), prior


def _descent(plan: Plan, units: Units) -> Made:
    c, width, dice = plan.window, plan.width or 24, Generator().manual_seed(plan.seed)
    net = UNet(4 * c + 1 + plan.beside + MEMORY, c + MEMORY, width, generator=dice)
    phi = BilinearAutoencoder(c, width, (1, 2), generator=dice)
    prior = Projection(units.grid, phi, std=units.std, mean=units.mean, scale=units.std)
    step = NetworkStep(net, c, MEMORY, beside=plan.beside)
    return NeuralVariational(step, steps=plan.steps, **plan.start), prior


def _projected(plan: Plan, units: Units) -> Made:
    net = UNet(plan.window, width=plan.width or 24, generator=Generator().manual_seed(plan.seed))
    phi = Residual(net)
    std = CLOSE * units.rest * units.std
    prior = Projection(units.grid, phi, std=std, mean=units.mean, scale=units.std)
    return FixedPoint(plan.steps, **plan.start), prior


NETWORKS: dict[str, Callable[[Plan, Units], Made]] = {
    "unet": _direct,
    "4dvarnet": _descent,
    "fixedpoint": _projected,
    LAW: _descent,
}
"""What makes solver and prior, by method."""
