r"""How much of a drift to believe, and how much longer what drifts is remembered."""

from __future__ import annotations

__all__ = ["Moving", "carried", "moving"]

import torch

from collections.abc import Callable
from dataclasses import dataclass, replace
from jaxtyping import Float
from torch import Tensor

from .drift import drift
from .held_out import Chosen, Covariance, HeldOut
from .problem import Problem, Say
from ..kernels import Kernel
from ..priors.lagrangian import LagrangianProcess
from ..priors.spde.velocity import Given

PARTS = (0.0, 0.5, 1.0, 1.5)
"""The part of the drift that carries: to choose from."""
LONGER = (1.0, 1.5, 2.0)
"""The memory of what is followed, over that at a fixed place: to choose from."""
FASTEST = 60e3
"""The fastest drift, in metres a day."""

Law = Callable[[Chosen], Kernel]
"""The covariance of what is followed, for given scales and factor."""


@dataclass(frozen=True)
class Moving:
    r"""A drift that was chosen.

    Arguments:
        velocity: The velocity at the nodes of the map, north and east, in metres per day; zero
            where nothing is gained by motion.
        part: The part of the drift that this is.
        longer: The memory of what is followed, over that at a fixed place.
        chosen: The scales, that of time times ``longer``, and the factor of the variances.
    """

    velocity: Float[Tensor, "n 2"]
    part: float
    longer: float
    chosen: Chosen


def carried(problem: Problem, kernel: Kernel, velocity: Float[Tensor, "n 2"]) -> LagrangianProcess:
    r"""Returns the process of what is carried with a velocity, at the nodes of the map."""
    return LagrangianProcess(kernel, problem.grid, Given(problem.grid, velocity))


def moving(
    problem: Problem,
    held: HeldOut,
    law: Law,
    chosen: Chosen,
    heights: Float[Tensor, " n"],
    say: Say,
) -> Moving:
    r"""Returns the part of the drift, and the memory, that predict best what is held out.

    Arguments:
        problem: The problem.
        held: The pieces that are held out.
        law: The covariance for given scales.
        chosen: The scales of what stays where it is.
        heights: A first map, mean included, in metres.
        say: Where to say what is found.
    """
    c = drift(problem.grid, heights).clamp(-FASTEST, FASTEST)

    def judged(part: float, longer: float) -> Moving:
        scales = chosen.scales | {"duration": chosen.scales["duration"] * longer}
        one = replace(chosen, scales=scales, factor=1.0)
        prior = carried(problem, law(one), part * c)
        error, factor = held.judge(_followed(prior), chosen.noise)
        return Moving(part * c, part, longer, replace(one, error=error, factor=factor))

    def best(found: list[Moving]) -> Moving:
        return min(found, key=lambda m: m.chosen.error)

    with torch.no_grad():
        still = Moving(0 * c, 0.0, 1.0, chosen)
        at_once = best([still, *(judged(part, 1.0) for part in PARTS[1:])])
        if at_once.part == 0:
            say("nothing is gained by motion")
            return still
        found = best([at_once, *(judged(at_once.part, k) for k in LONGER[1:])])
    say(
        f"{found.part:g} of the drift, memory {found.longer:g} times longer: held-out error "
        f"{found.chosen.error:.4g}, at rest {chosen.error:.4g}"
    )
    return found


def _followed(prior: LagrangianProcess) -> Covariance:
    return lambda time, points: prior.at(time).on(points).covariance(points, points)
