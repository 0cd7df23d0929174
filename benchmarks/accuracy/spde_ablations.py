"""What a field and its parameters are trained for: losses, steps, weights and starts, compared.

On the cases of ``spde_joint.py``. Networks go on from its trained guess, or start from scratch,
for a few hundred updates each, all with the same windows in the same order:

- loss: the error of the field alone, which teaches no parameters; with that of the parameters;
  with minus the log-density of the truth given the parameters; with the CRPS of the exact
  posterior with the parameters; with the log-density of data that are withheld;
- no steps after the guess, or two, that are told the gradients of the joint cost, with one
  network for field and parameters or one for each. Their gradients are those of a lattice
  without margin, four times quicker; they are what a network is told, not what is scored.

Each is scored as a law: the exact posterior with its parameters. Two more rows are laws about the
network's own estimate of the field: with the anomalies of that posterior, and with members that
go through the networks (Matheron). Standard errors are those of the paired differences of CRPS
to the trained guess, over all cases, in per cent of the oracle; what another order of windows
and other first weights do is a row, too.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import sys
import time
import torch

from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish
from spde_joint import (
    DAYS,
    EACH,
    NOISE,
    SIDE,
    Case,
    cases,
    errors,
    gaps,
    network,
    scores,
    summary,
    the_prior,
)

import matheron as mt

from matheron.fit.bilevel import (
    JointBatch,
    JointSimulations,
    bilevel,
    parameter_error,
    posterior_crps,
    withheld_likelihood,
)
from matheron.fit.checkpoint import read_checkpoint
from matheron.fit.losses import Loss, field_error
from matheron.nets import UNet
from matheron.priors.spde import AugmentedSPDE, Lattice
from matheron.solvers.neural.augmented import AugmentedConditional, AugmentedVariational

GUESS = "weights.solver.guess."
WIDTH, MEMORY, STEPS = 16, 8, 2
DRAWN = 12
"""The cases of a level of noise in ``spde_joint.py``."""
HIDDEN = 0.2
"""The part of the data that is withheld."""
Rows = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Way:
    """A training: its loss, and what is trained from where."""

    name: str
    loss: Loss
    updates: int
    warm: bool = True
    steps: int = 0
    split: bool = False
    withhold: bool = False
    batch: int = 8
    seed: int = 5


def ways(asked: argparse.Namespace) -> list[Way]:
    many, few, both = asked.updates, asked.few, field_error() + parameter_error()
    withheld = field_error() + withheld_likelihood(mt.SparseCholesky())
    found = [
        Way("guess, more of the same", both, many),
        Way("guess, likelihood of the truth", bilevel(), few),
        Way("guess, CRPS of the posterior", field_error() + posterior_crps(), few),
        Way("guess, withheld likelihood", withheld, few // 2, withhold=True, batch=4),
        Way("scratch, field error alone", field_error(), many, warm=False),
        Way("scratch, parameter error", both, many, warm=False),
        Way("scratch, parameter error, again", both, many, warm=False, seed=6),
        Way("scratch, likelihood of the truth", bilevel(), many, warm=False),
        Way("guess and steps, shared", both, many, steps=STEPS),
        Way("guess and steps, split", both, many, steps=STEPS, split=True),
        Way("scratch and steps, shared", both, many, warm=False, steps=STEPS),
    ]
    return [way for way in found if asked.only in way.name]


class Withholding(JointSimulations):
    """Windows, some of whose data are withheld from the solver."""

    def batch(self, index: torch.Tensor, seeds: torch.Tensor) -> JointBatch:
        whole = super().batch(index, seeds)
        dice = torch.Generator().manual_seed(int(seeds[0]))
        hidden_mask = whole.mask & (torch.rand(whole.mask.shape, generator=dice) < HIDDEN)
        mask = whole.mask & ~hidden_mask
        return dataclasses.replace(
            whole,
            values=torch.where(mask, whole.values, 0.0),
            mask=mask,
            hidden=torch.where(hidden_mask, whole.values, 0.0),
            hidden_mask=hidden_mask,
        )


def bare() -> AugmentedSPDE:
    """The prior on a lattice without a margin: quick gradients."""
    axis = torch.arange(float(SIDE))
    grid = mt.Grid(time=torch.arange(float(DAYS)), y=axis, x=axis)
    lattice = Lattice(mt.Grid(y=axis, x=axis))
    return AugmentedSPDE(grid, lengthscale=5.0, timescale=5.0, smoothness=12.0, lattice=lattice)


def stepped(prior: AugmentedSPDE, guess: torch.nn.Module, way: Way) -> AugmentedVariational:
    """Returns the solver of a way, whose steps do nothing before training."""
    c, p, generator = DAYS, prior.channels, torch.Generator().manual_seed(way.seed)
    if not way.steps:
        return AugmentedVariational(guess, mt.SparseCholesky())

    def one(channels: int) -> UNet:
        inner = 4 * c + 1 + 2 * p + MEMORY
        net = UNet(inner, channels + MEMORY, width=WIDTH, levels=3, generator=generator)
        if way.warm:
            torch.nn.init.zeros_(net.leave.weight)
            torch.nn.init.zeros_(net.leave.bias)
        return net

    nets = (one(c), one(p)) if way.split else one(c + p)
    return AugmentedVariational(guess, mt.SparseCholesky(), nets, way.steps, MEMORY)


def trained(way: Way, guess: torch.nn.Module, draws: tuple) -> tuple:
    """Returns a solver and the processor seconds of its training."""
    prior = bare() if way.steps else the_prior()
    torch.manual_seed(way.seed)
    start = copy.deepcopy(guess) if way.warm else fresh(prior, way.seed)
    solver = stepped(prior, start, way)
    kind = Withholding if way.withhold else JointSimulations
    schedule = mt.fit.Schedule(
        steps=way.updates,
        batch=way.batch,
        rate=5e-4 if way.warm else 2e-3,
        clip=1.0,
        warm_up=20,
    )
    begun = time.process_time()
    history = mt.fit.train(
        solver,
        prior,
        kind(prior, draws, gaps, NOISE),
        way.loss,
        schedule=schedule,
        generator=torch.Generator().manual_seed(way.seed),
    )
    seconds = time.process_time() - begun
    ends = [sum(part) / len(part) for part in (history.losses[:20], history.losses[-20:])]
    print(f"{way.name}: {seconds:.0f} s, loss {ends[0]:.3f} to {ends[1]:.3f}", flush=True)
    return solver, seconds


def fresh(prior: AugmentedSPDE, seed: int) -> torch.nn.Module:
    """Returns a guess that was not trained."""
    generator = torch.Generator().manual_seed(seed)
    channels = (2 * DAYS + 1, DAYS + prior.channels)
    return UNet(*channels, width=WIDTH, levels=3, generator=generator)


def known_guess(prior: AugmentedSPDE, path: Path) -> torch.nn.Module:
    """Returns the guess that ``spde_joint.py --checkpoint`` kept."""
    guess = network(prior, WIDTH).guess
    tensors, counters = read_checkpoint(path)
    guess.load_state_dict({k[len(GUESS) :]: v for k, v in tensors.items() if GUESS in k})
    print(f"a guess of {counters['step']} updates", flush=True)
    return guess


class Scored:
    """The cases, and rows of scores for each solver."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.renew()
        self.size, pairs = asked.members, list(enumerate(NOISE))
        each = [cases(self.prior, DRAWN, v, 100 + k)[: asked.cases] for k, v in pairs]
        self.cases = [case for level in each for case in level]
        self.rows: Rows = {}
        for number, case in enumerate(self.cases):
            self.add("oracle", self.posterior(number, case, case.theta), 0.0)

    def renew(self) -> None:
        """Forgets what was worked out for the places that were seen: it adds up."""
        self.prior, self.quick = the_prior(), bare()

    def add(self, name: str, found: dict[str, float], seconds: float) -> None:
        self.rows.setdefault(name, []).append({**found, "seconds": seconds})

    def posterior(self, number: int, case: Case, theta: torch.Tensor) -> dict[str, float]:
        with torch.no_grad():
            law = mt.SparseCholesky()(self.prior.given(theta), case.seen)(case.y)
        members = law.sample(self.size, torch.Generator().manual_seed(number))
        return {**scores(law.mean, members, case.x), **errors(self.prior, theta, case)}

    def conditional(self, solver: AugmentedVariational, case: Case) -> AugmentedConditional:
        with torch.no_grad():
            return solver(self.quick if solver.steps else self.prior, case.seen)

    def judge(self, name: str, solver: AugmentedVariational, through: bool) -> None:
        """Adds the rows of a solver; those of its own members if they are wanted."""
        self.renew()
        for number, case in enumerate(self.cases):
            start, c = time.process_time(), self.conditional(solver, case)
            with torch.no_grad():
                x, theta = c.estimate_jointly(case.y)
            seconds = time.process_time() - start
            found = self.posterior(number, case, theta)
            found["own mse"] = (x - case.x).square().mean().item()
            self.add(name, found, seconds)
            for kind in ("anomalies", "matheron") if through else ():
                start = time.process_time()
                members = self.own(solver, case, kind, number)
                found = scores(x, members, case.x)
                label = f"{name}: its own mean, {kind}"
                self.add(label, found, time.process_time() - start)

    def own(
        self, solver: AugmentedVariational, case: Case, kind: str, number: int
    ) -> torch.Tensor:
        """Draws members about the network's own estimate."""
        solver.members = kind
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            members = self.conditional(solver, case).sample(case.y, self.size, generator)
        solver.members = "anomalies"
        return members

    def table(self, told: dict[str, Way], seconds: dict[str, float]) -> list[dict[str, object]]:
        oracle, guess = self.rows["oracle"], self.rows["trained guess"]
        level = sum(row["crps"] for row in oracle) / len(oracle)
        table = []
        for name, found in self.rows.items():
            row = summary(name, found, oracle)
            rest = torch.tensor([a["crps"] - b["crps"] for a, b in zip(found, guess, strict=True)])
            row["crps over guess %"] = (100 * rest.mean() / level).item()
            row["its se"] = (100 * rest.std() / math.sqrt(len(rest)) / level).item()
            if "own mse" in found[0]:
                row["own rmse"] = math.sqrt(sum(r["own mse"] for r in found) / len(found))
            way = told.get(name)
            row["windows"] = way.updates * way.batch if way else 0
            row["training s"] = seconds.get(name, 0.0)
            table.append(row)
        return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("guess", type=Path, help="what spde_joint.py --checkpoint kept")
    parser.add_argument("--cases", type=int, default=8, help="of each level of noise")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--pool", type=int, default=1200, help="training fields")
    parser.add_argument("--updates", type=int, default=120, help="of quick losses")
    parser.add_argument("--few", type=int, default=30, help="updates of others")
    parser.add_argument("--only", default="", help="what is in the names of the ways to take")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    prior = the_prior()
    guess = known_guess(prior, asked.guess)
    draws = prior.sample_jointly(asked.pool, torch.Generator().manual_seed(4), each=EACH)
    scored = Scored(asked)
    scored.judge("trained guess", AugmentedVariational(guess, mt.SparseCholesky()), through=True)
    told, seconds = {}, {}
    for way in ways(asked):
        solver, seconds[way.name] = trained(way, guess, draws)
        told[way.name] = way
        scored.judge(way.name, solver, through=way.name == "guess and steps, shared")
    finish("Ablations", "spde_ablations", scored.table(told, seconds))


if __name__ == "__main__":
    main()
