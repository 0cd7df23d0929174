"""Lorenz-63 of which x alone is seen, every 8 steps: learned solvers beside the exact mean.

The protocol is that of ``lorenz63.py``: windows of 200 steps of .01, noise of variance 2, no data
in the first and last 10 steps. The windows of a training are any of long runs, with new noise each
time, so that none comes twice; those to choose by, to recalibrate members and to score come from
runs that start from other seeds, disjoint and with a gap of one window between them. The best
saved run of the reference has a mean square error of .947, on splits that overlap.

- ``direct``: a U-Net from the data to the trajectory.
- ``fixed-point``: a learned projection, and data put back, in turn.
- ``4dvarnet``: the model as the prior, and a network with a memory that descends.

Their U-Nets work on cells of 8 steps, one per datum. Members are by Matheron's rule, with windows
of the long runs for draws; the exact mean is by weights of millions of windows (first windows
only).
"""

from __future__ import annotations

import argparse
import math
import sys
import torch

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import matplotlib.pyplot as plt

from harness import RESULTS, finish
from lorenz63 import EDGE, EVERY, STEPS, VARIANCE, attractor, exact, run

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.fit.fabric import hardware
from matheron.fit.model_file import Card, save_model
from matheron.fit.training import train
from matheron.metrics import coverage, crps_ensemble
from matheron.nets import Patches, UNet
from matheron.priors.base import Sampling
from matheron.priors.projection import Projection
from matheron.solvers.neural import (
    DirectInversion,
    FixedPoint,
    LearnedSolver,
    NetworkStep,
    NeuralVariational,
)

GRID = mt.Grid(time=0.01 * torch.arange(float(STEPS)), x=torch.arange(3.0))
MASK = torch.zeros(GRID.shape, dtype=torch.bool)
MASK[EDGE : STEPS - EDGE : EVERY, 0] = True
Updates = dict[int, int]
UPDATES: dict[str, Updates] = {
    "direct": {1: 5_000},
    "fixed-point": {1: 2_500, 3: 1_500},
    "4dvarnet": {1: 4_000, 3: 2_500},
}
"""By the steps of a solver: of one step first, at a rate that stays, then of more."""
MEMORY = 8
"""The channels of the memory of 4DVarNet."""
MEMBERS = 50
TEST_SEED = 1063
"""Of the windows that are scored: no training, pilot or choice has seen it."""
SCORES = ("mse", "se", "over exact", "its se", "crps", "spread/skill", "coverage90")
Row = dict[str, object]
Told = argparse.Namespace
Model = tuple[LearnedSolver, Projection]


Turned = Callable[[Tensor, Generator | None], Tensor]
"""A symmetry of the model, drawn by chance."""


class Runs(Sampling):
    """The windows of long runs of a model, from any of their states on."""

    def __init__(self, grid: mt.Grid, states: Tensor, turned: Turned | None = None) -> None:
        super().__init__()
        self.domain, self.turned = grid, turned
        self.register_buffer("states", states.float())  # (members, times, components)

    def sample(self, size: int, generator: Generator | None = None) -> Tensor:
        members, times, _ = self.states.shape
        steps = self.domain.shape[0]
        i = torch.randint(members, (size, 1), generator=generator)
        k = torch.randint(times - steps + 1, (size, 1), generator=generator)
        x = self.states[i, k + torch.arange(steps)].double()
        return (x if self.turned is None else self.turned(x, generator)).flatten(1)


@dataclass
class Case:
    """A model seen in one way, with windows for all that is done."""

    seen: mt.GriddedObservation
    law: Runs
    held: Tensor
    aside: Tensor
    truth: Tensor
    seed: int
    y: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.y = self.seen.sample(self.truth, Generator().manual_seed(3))

    @property
    def grid(self) -> mt.Grid:
        return self.law.domain

    def units(self) -> dict[str, Tensor]:
        states = self.law.states[:, ::50].flatten(0, 1).double()
        return {"mean": states.mean(0), "scale": states.std(0)}

    def source(self, law: Runs | Tensor) -> mt.fit.Simulations:
        noise = math.sqrt(VARIANCE)
        return mt.fit.Simulations(self.grid, law, self.seen.mask, noise, count=100_000)


def windows(count: int, seed: int) -> Tensor:
    """Returns disjoint windows of runs, with gaps of one window, with shape (count, n)."""
    each = math.ceil(count / 40)
    x = run(2 * STEPS * 40, each, seed)[:, : 2 * STEPS * 40]
    return x.reshape(each, 40, 2, STEPS * 3)[:, :, 0].flatten(0, 1)[:count].contiguous()


@torch.no_grad()
def case_of(count: int) -> Case:
    law = Runs(GRID, run(3000, 3000, 40))
    held, aside, truth = (windows(n, s) for n, s in ((400, 41), (200, 43), (count, TEST_SEED)))
    seen = mt.GriddedObservation(GRID, MASK.flatten(), math.sqrt(VARIANCE))
    return Case(seen, law, held, aside, truth, TEST_SEED)


def models_of(method: str, case: Case, steps: Sequence[int], told: Told) -> list[Model]:
    """Returns solvers of some numbers of steps and their prior, with the same weights."""

    def cells(channels: int, out: int) -> Patches:
        net = {"width": told.width, "levels": 3, "dims": 1}
        generator = Generator().manual_seed(told.seed)
        return Patches(UNet(8 * channels, 8 * out, generator=generator, **net), 8)

    solvers: list[LearnedSolver]
    phi: torch.nn.Module = Lorenz63()
    if method == "direct":
        solvers = [DirectInversion(cells(7, 3), channels="x", **case.units())]
    elif method == "fixed-point":
        phi = cells(3, 3)
        solvers = [FixedPoint(k, channels="x", first="data") for k in steps]
    else:
        step = NetworkStep(cells(13 + MEMORY, 3 + MEMORY), 3, MEMORY, gain=(200.0, 10.0))
        solvers = [NeuralVariational(step, k, channels="x") for k in steps]
    prior = Projection(GRID, phi, channels="x", **case.units())
    return [(solver, prior) for solver in solvers]


def said(p: mt.fit.TrainingProgress) -> None:
    if p.step % max(1, p.steps // 10) == 0:
        print(f"  {p.step}/{p.steps} loss {p.loss:.3f} held {p.validation}", flush=True)


@dataclass
class Teacher:
    """Trains, and keeps the minutes and errors of validation."""

    case: Case
    told: Told
    method: str
    curve: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0

    def teach(self, model: Model, updates: int, rate: float, decay: str) -> None:
        every = max(1, updates // 10)
        loss = mt.fit.field_error()
        history = train(
            *model,
            self.case.source(self.case.law),
            loss if isinstance(model[0], DirectInversion) else mt.fit.every_iterate(loss, 2.0),
            self.case.source(self.case.held),
            mt.fit.Schedule(
                updates, self.told.batch, rate, decay, 200, clip=100.0, validate_every=every
            ),
            fabric=hardware(precision=self.told.precision),
            generator=Generator().manual_seed(self.told.seed),
            checkpoint=self._file(model),
            progress=said,
        )
        for step, value in history.validations:
            seconds = self.seconds + history.seconds * step / len(history.losses)
            self.curve.append((seconds / 60, value))
        self.seconds += history.seconds

    def _file(self, model: Model) -> Path | None:
        folder = self.told.checkpoints
        if folder is None:
            return None
        return folder / f"{self.method}_{getattr(model[0], 'steps', 1)}.safetensors"

    def curriculum(self, models: list[Model], updates: Updates) -> Model:
        """Returns the trained solver of all steps: of one step first, which is quick."""
        stages = list(zip(models, updates.values(), strict=True))
        for i, (model, count) in enumerate(stages):
            decay = "constant" if not i and len(stages) > 1 else "cosine"
            count = max(1, round(self.told.share * count))
            self.teach(model, count, self.told.rate / (2 if i else 1), decay)
        return models[-1]


@torch.no_grad()
def paths(model: Model, seen: mt.GriddedObservation, y: Tensor) -> Tensor:
    """Returns the iterates for many data, with shape (k, windows, n)."""
    law = model[0](model[1], seen)
    return torch.cat([law.trajectory(part)[1:] for part in y.split(200)], dim=1)


@torch.no_grad()
def ensemble(model: Model, case: Case, centre: Tensor, seed: int) -> Tensor:
    """Returns members by Matheron's rule, with shape (size, windows, n)."""
    generator, members = Generator().manual_seed(seed), []
    for mean in centre:
        x = case.law.sample(MEMBERS, generator)
        found = paths(model, case.seen, case.seen.sample(x, generator))[-1]
        members.append(mean + model[0].inflation * (x - found))
    return torch.stack(members, dim=1)


def calibration(members: Tensor, truth: Tensor) -> Row:
    mean, std = members.mean(0), members.std(0)
    error = (mean - truth).square().mean()
    return {
        "crps": crps_ensemble(members, truth).mean().item(),
        "spread/skill": (std.square().mean() / error).sqrt().item(),
        "coverage90": coverage(mean, std, truth, 0.9).mean().item(),
    }


def recalibrate(model: Model, case: Case) -> None:
    """Sets the inflation of members by windows that are set aside."""
    y = case.seen.sample(case.aside, Generator().manual_seed(4))
    members = ensemble(model, case, paths(model, case.seen, y)[-1], 8)
    ratio = calibration(members, case.aside)["spread/skill"]
    model[0].inflation.fill_(1 / ratio)


def scores(x: Tensor, case: Case, best: Tensor | None) -> Row:
    mse = (x - case.truth[: len(x)]).square().mean(-1)
    row: Row = {"windows": len(x), "mse": mse.mean().item()}
    row["se"] = (mse.std() / len(mse) ** 0.5).item()
    if best is not None:
        least = (best - case.truth[: len(best)]).square().mean(-1)
        ratio = (mse[: len(best)] - least) / least.mean()
        row["over exact"] = ratio.mean().item()
        row["its se"] = (ratio.std() / len(ratio) ** 0.5).item()
    return row


def judged(model: Model, case: Case, some: int, best: Tensor | None) -> tuple[Row, list[float]]:
    """Returns the scores of a trained solver, and the error of each of its iterates."""
    every = paths(model, case.seen, case.y)
    recalibrate(model, case)
    members = ensemble(model, case, every[-1, :some], 9)
    row = scores(every[-1], case, best) | calibration(members, case.truth[:some])
    row["inflation"] = model[0].inflation.item()
    row["weights"] = sum(p.numel() for m in model for p in m.parameters())
    return row, (every - case.truth).square().mean((1, 2)).tolist()


def drawn(name: str, pictures: dict[str, list], floor: float | None) -> None:
    """Draws errors against the minutes of training, and against the steps of a solver."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for method, (curve, steps) in pictures.items():
        axes[0].plot(*zip(*curve, strict=True), label=method)
        axes[1].plot(range(1, len(steps) + 1), steps, "o-", label=method)
    for ax, label in zip(axes, ("minutes of training", "steps of the solver"), strict=True):
        if floor is not None:
            ax.axhline(floor, color="k", lw=0.8, ls="--", label="exact mean")
        ax.set(xlabel=label, yscale="log")
    axes[0].set(ylabel="mean square error")
    axes[0].legend(frameon=False)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


def exact_row(case: Case, count: int, draws: int) -> tuple[Tensor, Row]:
    with torch.no_grad():
        best, _, sizes = exact(case.seen, case.y[:count], attractor(draws))
    size = {"least sample size": sizes.min().item()}
    name = {"method": "exact, attractor prior", "test seed": case.seed}
    return best, {**name, **scores(best, case, None), **size}


def parsed(methods: Iterable[str], **defaults: object) -> Told:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(methods))
    parser.add_argument("--share", type=float, default=1.0, help="of the updates")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=99, help="the most that are trained")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--precision", default="bf16-mixed", help="of the training")
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=2_000_000, help="of the exact mean")
    parser.add_argument("--exact", type=int, default=200, help="windows with an exact mean")
    parser.add_argument("--scored", type=int, default=200, help="windows whose members are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, help="a folder, to go on from")
    parser.add_argument("--save", type=Path, help="a folder for the last model")
    parser.set_defaults(**defaults)
    return parser.parse_args()


def kept(model: Model, row: Row, told: Told, variable: str) -> None:
    """Writes a model to be shipped, with the command that makes it."""
    settings = ("share", "batch", "width", "steps", "rate", "precision", "seed")
    script = f"benchmarks/accuracy/{Path(sys.argv[0]).name}"
    options = [f"--{k} {getattr(told, k)}" for k in settings]
    command = " ".join(["python", script, f"--methods {row['method']}", *options])
    found = {k: v for k, v in row.items() if k in SCORES}
    notes = "Trained on windows of long runs of the model, with new noise each time."
    card = Card(variable, seed=told.seed, command=command, scores=found, notes=notes)
    save_model(told.save, *model, card)


def learned(
    method: str,
    models_of: Callable[..., list[Model]],
    case: Case,
    told: Told,
    updates: Updates,
    best: Tensor | None,
) -> tuple[Row, Model, list]:
    """Trains and judges: returns the row, the model, and its errors by minutes and by steps."""
    updates = {k: n for k, n in updates.items() if k <= told.steps}
    teacher = Teacher(case, told, method)
    model = teacher.curriculum(models_of(method, case, list(updates), told), updates)
    row, steps = judged(model, case, told.scored, best)
    settings = {k: getattr(told, k) for k in ("share", "batch", "width", "rate", "precision")}
    row |= {"seconds": teacher.seconds, "updates": updates, "seed": told.seed, **settings}
    return {"method": method, "test seed": case.seed, **row}, model, [teacher.curve, steps]


def main() -> None:
    told = parsed(UPDATES)
    case, best, rows = case_of(told.windows), None, []
    if told.draws:
        best, row = exact_row(case, told.exact, told.draws)
        rows.append(row)
    pictures = {}
    for method in told.methods.split(","):
        row, model, pictures[method] = learned(
            method, models_of, case, told, UPDATES[method], best
        )
        finish("Lorenz-63", "lorenz63_learned", [*rows, row])
        rows = []
        if told.save:
            kept(model, row, told, "lorenz63")
    floor = None if best is None else (best - case.truth[: len(best)]).square().mean().item()
    drawn("lorenz63_learned", pictures, floor)


if __name__ == "__main__":
    main()
