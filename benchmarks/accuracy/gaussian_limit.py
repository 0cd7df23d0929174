"""How near a learned solver comes to exact kriging, where kriging is the best there is.

Truths are Gaussian on 64 by 64 nodes: a stationary Whittle-Matern field, one whose lengthscale and
anisotropy change over the map, and a Gaussian process with a Matern kernel. A tenth to a fifth of
the nodes are seen, at random, with noises of .05 to .5 standard deviations. Learned solvers are
given the true prior and trained with Adam on one thread, on draws of it; every iterate counts in
the loss. The excess is that of their mean square error over that of exact kriging, in per cent, on
draws, masks and noises that training did not see; its standard error is that of the paired
difference. The distance is the mean square between the two estimates in per cent of the error of
kriging: the part of the excess that does not come and go with the draw of the truth.

The rows named ``untrained`` have other noises, other shares of nodes, and other masks: tracks, and
clouds of 16 by 16 nodes. The rows named ``ensemble`` compare the variance of 200 members, by
Matheron's rule, with that of kriging.
"""

from __future__ import annotations

import argparse
import math
import matplotlib.pyplot as plt
import sys
import time
import torch

from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import RESULTS, finish

from matheron import GaussianProcess, Grid, GriddedObservation, Kriging, Matern, WhittleMatern
from matheron.priors import Energy, GaussianPrior
from matheron.priors.projection import Projection
from matheron.priors.spde.lattice import Lattice
from matheron.solvers import SparseCholesky
from matheron.solvers.neural import (
    LearnedSolver,
    LightStep,
    NeuralVariational,
    RecurrentStep,
    UnrolledDescent,
)

SIDE = 64
NOISES = (0.05, 0.15, 0.5)
TRUTHS = ("stationary", "non-stationary", "kernel")


def truth_law(name: str) -> GaussianPrior:
    """Returns the law of the truth, with a variance of one."""
    axis = torch.arange(float(SIDE), dtype=torch.float64)
    grid = Grid(y=axis, x=axis)
    if name == "kernel":
        prior: GaussianPrior = GaussianProcess(Matern(1.5, lengthscale=8.0), grid)
    elif name == "stationary":
        prior = WhittleMatern(grid, lengthscale=8.0, lattice=Lattice(grid))
    else:
        s = grid.points.coords / SIDE
        kappa = 2**0.5 / (5 + 10 * s[:, 1])
        turn = math.pi * s[:, 0]
        e = torch.stack([turn.sin(), turn.cos()], dim=-1)
        H = 0.5 * torch.eye(2, dtype=torch.float64) + e[:, :, None] * e[:, None, :]
        prior = WhittleMatern(grid, kappa=kappa, diffusivity=H, lattice=Lattice(grid))
    return prior.requires_grad_(False)


def random_mask(size: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    share = low + (high - low) * torch.rand(size, 1, generator=generator)
    return torch.rand(size, SIDE * SIDE, generator=generator) < share


def tracks(size: int, generator: torch.Generator) -> torch.Tensor:
    """Returns masks of six slanted lines each way, a node wide."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    shift = torch.randint(0, 21, (size, 2, 1, 1), generator=generator)
    up, down = (2 * x + y + shift[:, 0]) % 21 < 1, (2 * x - y + shift[:, 1]) % 21 < 1
    return (up | down).flatten(1)


def clouds(size: int, generator: torch.Generator) -> torch.Tensor:
    """Returns masks that see 30 % of the nodes, but none under 8 clouds of 16 by 16."""
    seen = torch.rand(size, SIDE, SIDE, generator=generator) < 0.3
    corner = torch.randint(0, SIDE - 16, (size, 8, 2), generator=generator)
    for member, places in zip(seen, corner.tolist(), strict=True):
        for i, j in places:
            member[i : i + 16, j : j + 16] = False
    return seen.flatten(1)


@dataclass(frozen=True)
class Case:
    """Truths and data, and what kriging makes of them."""

    name: str
    noise: float
    truth: torch.Tensor
    observation: GriddedObservation
    y: torch.Tensor
    exact: torch.Tensor


@torch.no_grad()
def build(prior: GaussianPrior, name: str, noise: float, mask: torch.Tensor, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    truth = prior.sample(len(mask), generator)
    observation = GriddedObservation(prior.domain, mask, noise)
    y = observation.sample(truth, generator)
    exact = torch.stack([solve(prior, m, noise, v) for m, v in zip(mask, y, strict=True)])
    return Case(name, noise, truth, observation, y, exact)


def solve(prior: GaussianPrior, mask: torch.Tensor, noise: float, y: torch.Tensor) -> torch.Tensor:
    one = GriddedObservation(prior.domain, mask, noise)
    exact = Kriging() if isinstance(prior, GaussianProcess) else SparseCholesky()
    return exact(prior, one)(y).mean


def cases(prior: GaussianPrior, size: int) -> list[Case]:
    """Returns the held-out problems: as in training, then others."""
    generator = torch.Generator().manual_seed(11)
    known = [
        build(prior, "as trained", s, random_mask(size, 0.1, 0.2, generator), 100 + k)
        for k, s in enumerate(NOISES)
    ]
    half = size // 2
    other = {
        "untrained noise .02": (0.02, random_mask(half, 0.1, 0.2, generator)),
        "untrained noise 1": (1.0, random_mask(half, 0.1, 0.2, generator)),
        "untrained 5 % seen": (0.15, random_mask(half, 0.05, 0.05, generator)),
        "untrained 40 % seen": (0.15, random_mask(half, 0.4, 0.4, generator)),
        "untrained tracks": (0.15, tracks(half, generator)),
        "untrained clouds": (0.15, clouds(half, generator)),
    }
    named = enumerate(other.items())
    return known + [build(prior, k, s, m, 200 + i) for i, (k, (s, m)) in named]


def solver_of(name: str, steps: int, seed: int) -> LearnedSolver:
    generator = torch.Generator().manual_seed(seed)
    if name == "descent":
        return UnrolledDescent(steps, mean=0.0, scale=1.0)
    if name == "light":
        return NeuralVariational(LightStep(1, generator=generator), steps, mean=0.0, scale=1.0)
    network = RecurrentStep(1, 24, cell=name, generator=generator)
    return NeuralVariational(network, steps, mean=0.0, scale=1.0)


@torch.no_grad()
def score(solver: LearnedSolver, prior: Energy, case: Case, k: int = -1) -> dict[str, float]:
    x = solver(prior, case.observation).trajectory(case.y)[k]
    best = (case.exact - case.truth).square().mean(dim=1)
    more = (x - case.truth).square().mean(dim=1) - best
    apart = (x - case.exact).square().mean()
    unit = 100 / best.mean().item()
    error = more.std() / len(more) ** 0.5
    return {
        "excess": unit * more.mean().item(),
        "standard_error": unit * error.item(),
        "distance": unit * apart.item(),
        "kriging_mse": best.mean().item(),
    }


class Training:
    """Adam with a warm-up and a cosine, until its seconds of one thread are spent."""

    def __init__(
        self, solver: LearnedSolver, prior: Energy, pool: torch.Tensor, budget: float, seed: int
    ) -> None:
        self.solver, self.prior, self.pool, self.budget = solver, prior, pool, budget
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.Adam(solver.parameters(), lr=5e-3)
        self.rate, self.spent, self.count = 5e-3, 0.0, 0

    def until(self, seconds: float) -> None:
        while self.spent < seconds:
            start = time.process_time()
            self.step()
            self.spent += time.process_time() - start
            self.count += 1

    def step(self, size: int = 8) -> None:
        g, n = self.generator, self.pool.shape[1]
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.spent / self.budget)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (self.count + 1) / 20) * (cosine + 0.01)
        truth = self.pool[torch.randint(len(self.pool), (size,), generator=g)]
        low, high = math.log(min(NOISES)), math.log(max(NOISES))
        noise = (low + (high - low) * torch.rand(size, 1, generator=g)).exp().expand(-1, n)
        mask = random_mask(size, 0.1, 0.2, g)
        observation = GriddedObservation(self.prior.domain, mask, noise)
        path = self.solver(self.prior, observation).trajectory(observation.sample(truth, g))[1:]
        error = (path - truth).square().mean(dim=-1)
        weight = torch.arange(1.0, len(path) + 1, dtype=error.dtype)[:, None].square()
        last = error[-1].detach() + 1e-3  # so that precise data weigh as much as poor ones
        loss = ((weight / weight.sum() * error).sum(dim=0) / last).mean()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.solver.parameters(), 1.0)
        self.optimiser.step()


def ensemble(
    solver: LearnedSolver, given: Energy, prior: GaussianPrior, size: int = 200
) -> dict[str, float]:
    """Returns the variance of members over that of kriging, in the mean over nodes."""
    generator = torch.Generator().manual_seed(31)
    mask = random_mask(1, 0.15, 0.15, generator)[0]
    one = GriddedObservation(prior.domain, mask, 0.15)
    with torch.no_grad():
        y = one.sample(prior.sample(1, generator)[0], generator)
        exact = Kriging() if isinstance(prior, GaussianProcess) else SparseCholesky()
        variance = exact(prior, one)(y).std().square()
        solver._simulator = (prior,)
        draws = solver(given, one)(y).sample(size, generator)
    ratio = draws.var(dim=0) / variance
    return {"ratio": ratio.mean().item(), "spread_of_ratio": ratio.std().item()}


def run(truth: str, network: str, options: argparse.Namespace) -> list[dict[str, object]]:
    prior = truth_law(truth)
    given = Projection.linear(prior) if truth == "kernel" else prior
    held_out = cases(prior, options.size)
    with torch.no_grad():
        pool = prior.sample(2000, torch.Generator().manual_seed(options.seed + 1))
    solver = solver_of(network, options.steps, options.seed)
    training = Training(solver, given, pool, options.seconds, options.seed + 2)
    head = {
        "truth": truth,
        "network": network,
        "parameters": sum(p.numel() for p in solver.parameters()),
        "seed": options.seed,
    }
    rows: list[dict[str, object]] = []

    def add(case: Case, k: int) -> None:
        row = {"case": case.name, "noise": case.noise, "steps": k, "seconds": training.spent}
        rows.append({**head, **row, "updates": training.count, **score(solver, given, case, k)})

    for share in (0.1, 0.2, 0.35, 0.5, 0.75):
        training.until(share * options.seconds)
        add(held_out[1], options.steps)
        print(rows[-1], flush=True)
    training.until(options.seconds)
    for case in held_out:
        add(case, options.steps)
    for k in range(1, options.steps):
        add(held_out[1], k)
    variance = ensemble(solver, given, prior)
    rows.append({**head, "case": "ensemble", "noise": 0.15, "steps": options.steps, **variance})
    return rows


def picture(rows: list[dict[str, object]]) -> None:
    """Draws the distance to kriging against the seconds of training and against steps."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    rows = [row for row in rows if row["case"] == "as trained" and row["noise"] == NOISES[1]]
    for truth, network in dict.fromkeys((row["truth"], row["network"]) for row in rows):
        own = [row for row in rows if (row["truth"], row["network"]) == (truth, network)]
        last = max(row["steps"] for row in own)
        end = max(row["seconds"] for row in own)
        for ax, name, held in ((axes[0], "seconds", "steps"), (axes[1], "steps", "seconds")):
            kept = {"steps": last, "seconds": end}[held]
            line = sorted((row[name], row["distance"]) for row in own if row[held] == kept)
            ax.plot(*zip(*line, strict=True), marker="o", ms=3, label=f"{truth}, {network}")
    axes[0].set(xlabel="training, seconds of one thread", ylabel="distance to kriging (%)")
    axes[1].set(xlabel="steps", yscale="log")
    axes[1].legend(fontsize="small")
    for ax in axes:
        ax.axhline(1.0, color="grey", lw=0.8)
    figure.savefig(RESULTS / "gaussian_limit.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truths", nargs="+", default=TRUTHS)
    parser.add_argument("--networks", nargs="+", default=["light", "lstm", "descent"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=240.0, help="of training, on one thread")
    parser.add_argument("--size", type=int, default=32, help="held-out fields per case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, object]] = []
    for truth in options.truths:
        for network in options.networks:
            rows = run(truth, network, options)
            finish(f"{truth}, {network}", "gaussian_limit", rows)
            found += rows
            picture(found)


if __name__ == "__main__":
    main()
