"""Lorenz-96 of which an eighth is seen: learned solvers, with the model or a learned prior.

The protocol is that of ``lorenz96.py``: 40 places, windows of 200 steps of .05, every fourth seen
at a random half of the places, noise of variance 2, the same nodes in all windows. The windows of
a training are any of long runs, turned by chance around the circle, with new noise each time;
those to choose by, to recalibrate members and to score come from runs that start from other
seeds. The reference publishes .827 for the model as the prior and a recurrent network that
descends, and less for a learned prior of two scales.

- ``direct``: a U-Net from the data to the trajectory.
- ``4dvarnet-ode``: the model as the prior, and a network with a memory that descends.
- ``4dvarnet-two-scale``: a learned projection as the prior, and the same.
- ``enks``, ``smoother``...: the ways of ``lorenz96.py``, on the first of the same windows.

Their U-Nets work on cells of 4 steps and 2 places. Members are by Matheron's rule, with windows of
the long runs for draws.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from collections.abc import Sequence
from pathlib import Path
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import finish
from lorenz63_learned import (
    Case,
    Model,
    Row,
    Runs,
    Told,
    Updates,
    drawn,
    kept,
    learned,
    parsed,
    paths,
)
from lorenz96 import NAMES, PLACES, STEPS, observation, prior_of, score, ways

import matheron as mt

from matheron.dynamics import Lorenz96
from matheron.nets import Patches, TwoScale, UNet
from matheron.priors.projection import Projection
from matheron.solvers.neural import (
    DirectInversion,
    LearnedSolver,
    NetworkStep,
    NeuralVariational,
)

GRID = mt.Grid(time=0.05 * torch.arange(float(STEPS)), x=torch.arange(float(PLACES)))
UPDATES: dict[str, Updates] = {
    "direct": {1: 1_200},
    "4dvarnet-ode": {1: 400, 5: 900, 8: 500},
    "4dvarnet-two-scale": {1: 400, 5: 900, 8: 500},
}
"""By the steps of a solver: of one step first, at a rate that stays, then of more."""
MEMORY = 4
"""The channels of the memory of 4DVarNet."""
ROUND = ("zeros", "circular")
TEST_SEED = 1096
"""Of the windows that are scored: no training, pilot or choice has seen it."""
CELL = (4, 2)


def turned(x: Tensor, generator: Generator | None) -> Tensor:
    """Returns each window, with shape (k, times, places), turned around the circle."""
    shift = torch.randint(PLACES, (len(x), 1, 1), generator=generator)
    return x.gather(2, ((torch.arange(PLACES) + shift) % PLACES).expand_as(x))


def run(steps: int, members: int, seed: int) -> Tensor:
    """Returns runs on the attractor, with shape (members, steps, places)."""
    model, generator = Lorenz96(PLACES), Generator().manual_seed(seed)
    start = model(model.initial(generator, (members,)), 1000)
    return model.trajectory(start, steps - 1)


@torch.no_grad()
def case_of(count: int) -> Case:
    law = Runs(GRID, run(1500, 400, 40), turned)
    rest = (run(STEPS, n, seed).flatten(1) for n, seed in ((64, 41), (4, 43), (count, TEST_SEED)))
    held, aside, truth = rest
    return Case(observation(GRID), law, held, aside, truth, TEST_SEED)


def _plain(solver: NeuralVariational) -> NeuralVariational:
    """Returns a solver whose steps are the directions of its network: it tracks where it is."""
    for p in (solver.rate, solver.momentum, solver.straight):
        p.requires_grad_(False)
    return solver


def models_of(method: str, case: Case, steps: Sequence[int], told: Told) -> list[Model]:
    """Returns solvers of some numbers of steps and their prior, with the same weights."""
    states = case.law.states[:, ::50].double()
    units = {"mean": states.mean(), "scale": states.std()}
    common = {"dims": 2, "padding": ROUND, "generator": Generator().manual_seed(told.seed)}

    def cells(channels: int, out: int) -> Patches:
        each = math.prod(CELL)
        return Patches(UNet(each * channels, each * out, told.width, 3, **common), CELL)

    solvers: list[LearnedSolver]
    phi: torch.nn.Module = Lorenz96(PLACES)
    if method == "direct":
        solvers = [DirectInversion(cells(3, 1), channels=None, **units)]
    else:
        gain = (20.0 if method.endswith("ode") else 2.0, 10.0)
        step = NetworkStep(cells(6 + MEMORY, 1 + MEMORY), 1, MEMORY, gain=gain, tracks=True)
        solvers = [_plain(NeuralVariational(step, k, channels=None)) for k in steps]
    if method.endswith("two-scale"):
        phi = TwoScale(1, 16, 4, **common)
    prior = Projection(GRID, phi, channels=None, **units)
    return [(solver, prior) for solver in solvers]


@torch.no_grad()
def classical(name: str, case: Case, count: int = 8) -> Row:
    """Returns the scores of a solver that is not learned, on the first windows."""
    settings = argparse.Namespace(starts=10, lag=8, inflation=1.1, cuts=25, descents=300)
    way, start = ways(settings, prior_of(STEPS), case.seen)[name], time.perf_counter()
    mean, std, _ = way(case.y[:count])
    spent = time.perf_counter() - start
    row = score(NAMES[name], mean, std, case.truth[:count], spent)
    mse = (mean - case.truth[:count]).square().mean(-1)
    return row | {"se": (mse.std() / count**0.5).item(), "test seed": case.seed}


def seconds(model: Model, case: Case, count: int = 8) -> float:
    """Returns the time that a window takes."""
    start = time.perf_counter()
    paths(model, case.seen, case.y[:count])
    return (time.perf_counter() - start) / count


def main() -> None:
    told = parsed(UPDATES, width=24, batch=8, windows=256, scored=4)
    case, pictures = case_of(told.windows), {}
    for method in told.methods.split(","):
        if method in NAMES:
            finish("Lorenz-96", "lorenz96_learned", [classical(method, case)])
            continue
        row, model, pictures[method] = learned(
            method, models_of, case, told, UPDATES[method], best=None
        )
        row["seconds per window"] = seconds(model, case)
        finish("Lorenz-96", "lorenz96_learned", [row])
        if told.save:
            kept(model, row, told, "lorenz96")
    if pictures:
        drawn("lorenz96_learned", pictures, None)


if __name__ == "__main__":
    main()
