"""A field and the parameters of its equation, both unknown: what is lost by not knowing them.

Truths are drawn from ``AugmentedSPDE`` on 24 x 24 places and 7 days: the standard deviation, the
timescale, the ellipse of the lengthscale and the velocity vary in space, smoothly. They are seen
at random places or along tracks, about a tenth of the nodes, with two levels of noise. Each case
is conditioned

- exactly, with the true parameters: the oracle, that no other can beat on average;
- exactly, with constants: those that are best for many training fields, and those that are most
  likely for the data of the case (maximum likelihood, seven numbers);
- exactly, with the parameters that a network tells from the data at once (amortised), and after
  some steps up their likelihood (refined), also from the constants alone, without a network;
- by the network: its own mean, with the anomalies of the exact law around it.

Scores are means over all nodes and cases: the root mean square error, the fair CRPS of 50
members, the spread over the error of the mean, the coverage of intervals of 90 %, and the median
relative error of parameters over places: of the standard deviation, of the timescale, of the
geometric mean of the half axes, and of the velocity, over its spread. Members of all methods are
made of the same white noise. The network is trained on simulations alone, never on the cases.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.fit.bilevel import JointSimulations, parameter_error
from matheron.linalg.descent import least
from matheron.metrics import crps_ensemble
from matheron.nets import UNet
from matheron.priors.spde.augmented import AugmentedSPDE
from matheron.solvers.neural.augmented import AugmentedConditional, AugmentedVariational

SIDE, DAYS, EACH = 24, 7, 4
NOISE = (0.1, 0.3)


@dataclass(frozen=True)
class Case:
    """A truth, its parameters, and its data."""

    x: torch.Tensor
    theta: torch.Tensor
    seen: mt.GriddedObservation
    y: torch.Tensor


def the_prior() -> AugmentedSPDE:
    axis = torch.arange(float(SIDE))
    grid = mt.Grid(time=torch.arange(float(DAYS)), y=axis, x=axis)
    return AugmentedSPDE(grid, lengthscale=5.0, timescale=5.0, smoothness=12.0, margin=1.0)


def gaps(generator: torch.Generator) -> torch.Tensor:
    """Random places on some days, tracks on others: about a tenth of the nodes."""
    mask = torch.zeros(DAYS, SIDE, SIDE, dtype=torch.bool)
    places = torch.arange(SIDE)
    for day in mask:
        if torch.rand((), generator=generator) < 0.5:
            day |= torch.rand(SIDE, SIDE, generator=generator) < 0.1
            continue
        for _ in range(3):
            start = torch.randint(-SIDE // 2, SIDE, (), generator=generator)
            slope = 0.3 + 0.4 * torch.rand((), generator=generator)
            track = (start + slope * places).round().long()
            track = track if torch.rand((), generator=generator) < 0.5 else track.flip(0)
            inside = (track >= 0) & (track < SIDE)
            day[places[inside], track[inside]] = True
    if not mask.any():
        mask[0, 0, 0] = True
    return mask.reshape(-1)


def network(prior: AugmentedSPDE, width: int) -> AugmentedVariational:
    generator = torch.Generator().manual_seed(1)
    c = DAYS
    net = UNet(2 * c + 1, c + prior.channels, width=width, levels=3, generator=generator)
    return AugmentedVariational(net, mt.SparseCholesky())


def trained(prior: AugmentedSPDE, options: argparse.Namespace) -> AugmentedVariational:
    """Returns the network, trained, or read where it was."""
    solver = network(prior, options.width)
    generator = torch.Generator().manual_seed(2)
    start = time.process_time()
    x, theta = prior.sample_jointly(options.pool, generator, each=EACH)
    source = JointSimulations(prior, (x.float(), theta), gaps, NOISE)
    drawn = time.process_time() - start
    schedule = mt.fit.Schedule(
        steps=options.steps, batch=16, rate=2e-3, clip=1.0, save_every=500, warm_up=100
    )
    history = mt.fit.train(
        solver,
        prior,
        source,
        mt.fit.field_error() + parameter_error(),
        schedule=schedule,
        generator=generator,
        checkpoint=options.checkpoint,
        progress=lambda p: print(p, flush=True) if p.step % 250 == 0 else None,
    )
    spent = time.process_time() - start - drawn
    print(f"drawn in {drawn:.0f} s, trained in {spent:.0f} s of processor", flush=True)
    print("loss", sum(history.losses[-200:]) / 200, flush=True)
    return solver


def cases(prior: AugmentedSPDE, count: int, noise: float, seed: int) -> list[Case]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for x, theta in zip(*prior.sample_jointly(count, generator), strict=True):
        mask = gaps(generator)
        seen = mt.GriddedObservation(prior.domain, mask, noise)
        e = noise * torch.randn(len(x), generator=generator).double()
        found.append(Case(x, theta, seen, torch.where(mask, x + e, 0.0)))
    return found


def most_likely(
    cost: Callable[[torch.Tensor], torch.Tensor], prior: AugmentedSPDE, steps: int
) -> torch.Tensor:
    """Returns the constants, the same everywhere, of least cost."""
    start = torch.zeros(prior.channels, 1, dtype=torch.float64)
    found = least(lambda v: cost(v.expand(-1, len(prior.coarse))), start, steps)
    return found.expand(-1, len(prior.coarse)).contiguous()


def of_many(prior: AugmentedSPDE) -> torch.Tensor:
    """Returns the best constants for many fields, seen everywhere."""
    fields = prior.sample_jointly(200, torch.Generator().manual_seed(3))[0]
    return most_likely(lambda t: -prior.log_density(fields, t).mean(), prior, 15)


class Methods:
    """Ways to tell parameters from data, each with the time that it takes."""

    def __init__(
        self, prior: AugmentedSPDE, solver: AugmentedVariational, options: argparse.Namespace
    ) -> None:
        self.prior, self.solver, self.options = prior, solver, options
        self.constants = of_many(prior)

    def conditional(self, case: Case) -> AugmentedConditional:
        with torch.no_grad():
            return self.solver(self.prior, case.seen)

    def stationary(self, case: Case) -> torch.Tensor:
        c = self.conditional(case)
        return most_likely(lambda t: c.data_cost(case.y, t), self.prior, self.options.refine + 3)

    def table(self) -> dict[str, Callable[[Case], torch.Tensor]]:
        refine = self.options.refine
        zero = self.prior.constants()[0]
        return {
            "true parameters (oracle)": lambda case: case.theta,
            "constants of the training set": lambda case: self.constants,
            "constants by likelihood": self.stationary,
            "amortised": lambda case: self.conditional(case).parameters(case.y),
            "refined": lambda case: self.conditional(case).refined(case.y, steps=refine),
            "refined, from constants": lambda case: self.conditional(case).refined(
                case.y, zero, refine
            ),
        }


def errors(prior: AugmentedSPDE, theta: torch.Tensor, case: Case) -> dict[str, float]:
    """Median relative errors of parameters, over places."""
    a, b = prior.parameters_of(theta), prior.parameters_of(case.theta)
    long = lambda p: torch.linalg.det(p.square) ** 0.25
    swift = (a.velocity - b.velocity).norm(dim=-1) / (prior.spread.velocity or 1.0) / math.sqrt(2)
    return {
        "e_std": (a.std / b.std - 1).abs().median().item(),
        "e_time": (a.timescale / b.timescale - 1).abs().median().item(),
        "e_length": (long(a) / long(b) - 1).abs().median().item(),
        "e_velocity": swift.median().item(),
    }


def scores(mean: torch.Tensor, members: torch.Tensor, x: torch.Tensor) -> dict[str, float]:
    low, high = (members.quantile(q, dim=0) for q in (0.05, 0.95))
    return {
        "mse": (mean - x).square().mean().item(),
        "crps": crps_ensemble(members, x).item(),
        "variance": members.var(dim=0).mean().item(),
        "cover90": ((low <= x) & (x <= high)).double().mean().item(),
    }


def run(methods: Methods, every: list[Case], size: int) -> list[dict[str, object]]:
    rows: dict[str, list[dict[str, float]]] = {}
    for number, case in enumerate(every):
        for name, tell in methods.table().items():
            start = time.process_time()
            theta = tell(case)
            law = methods.conditional(case).exact(case.y, theta)
            members = law.sample(size, torch.Generator().manual_seed(number))
            seconds = time.process_time() - start
            found = {**scores(law.mean, members, case.x), **errors(methods.prior, theta, case)}
            rows.setdefault(name, []).append({**found, "seconds": seconds})
            if name == "amortised":
                start = time.process_time()
                own = methods.conditional(case)(case.y)
                members = own.sample(size, torch.Generator().manual_seed(number))
                seconds = time.process_time() - start
                found = {**scores(own.mean, members, case.x), "seconds": seconds}
                rows.setdefault("network's mean, anomalies", []).append(found)
        print(f"case {number} done", flush=True)
    return [summary(name, found, rows["true parameters (oracle)"]) for name, found in rows.items()]


def summary(
    name: str, found: list[dict[str, float]], oracle: list[dict[str, float]]
) -> dict[str, object]:
    mean = lambda key, rows: sum(row[key] for row in rows) / len(rows)
    over = lambda key: 100 * (mean(key, found) / mean(key, oracle) - 1)
    row: dict[str, object] = {"method": name, "cases": len(found)}
    row["rmse"] = math.sqrt(mean("mse", found))
    row["mse over oracle %"] = over("mse")
    row["crps"] = mean("crps", found)
    row["crps over oracle %"] = over("crps")
    row["spread/skill"] = math.sqrt(mean("variance", found) / mean("mse", found))
    row["cover90"] = mean("cover90", found)
    row["seconds"] = mean("seconds", found)
    for key in ("e_std", "e_time", "e_length", "e_velocity"):
        if key in found[0]:
            row[key] = mean(key, found)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=12, help="of each level of noise")
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--pool", type=int, default=12_000, help="training fields")
    parser.add_argument("--steps", type=int, default=6000, help="of training")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--refine", type=int, default=5, help="steps of likelihood")
    parser.add_argument("--checkpoint", type=Path, help="where the training is kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = the_prior()
    solver = trained(prior, options)
    methods = Methods(prior, solver, options)
    for k, noise in enumerate(NOISE):
        rows = run(methods, cases(prior, options.cases, noise, 100 + k), options.members)
        named = [{"noise": noise, **row, "training": options.steps} for row in rows]
        finish(f"Joint estimation, noise {noise}", "spde_joint", named)


if __name__ == "__main__":
    main()
