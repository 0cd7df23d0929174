"""Lorenz-96, 40 places, an eighth of them seen with noise of variance 2: 4DVar on long windows.

Windows of 200 steps of .05, seen every 4 steps at a random half of the places. Such a window is 17
Lyapunov times long: the cost has many minima, and data are taken in growing windows. The rule that
stops looks at gradient and cost only; the climate comes from another run.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import finish, show

import matheron as mt

from matheron.dynamics import Lorenz96
from matheron.metrics import coverage, crps_gaussian
from matheron.priors.dynamics import StrongConstraint
from matheron.solvers.variational import Variational

PLACES, STEPS, EVERY, VARIANCE = 40, 200, 4, 2.0
Row = dict[str, object]


def prior_of(steps: int) -> StrongConstraint:
    """Returns the prior, with the mean and covariance of another run."""
    model, generator = Lorenz96(PLACES), torch.Generator().manual_seed(1)
    start = model(model.initial(generator, (64,)), 500)
    states = model.trajectory(start, 1000, 20).flatten(0, 1)
    grid = mt.Grid(time=0.05 * torch.arange(float(steps)), x=torch.arange(float(PLACES)))
    return StrongConstraint(grid, model, 1, (states.mean(0), torch.cov(states.mT)))


def observation(grid: mt.Grid) -> mt.GriddedObservation:
    generator = torch.Generator().manual_seed(4)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    for k in range(0, grid.shape[0], EVERY):
        mask[k, torch.randperm(PLACES, generator=generator)[: PLACES // 2]] = True
    return mt.GriddedObservation(grid, mask.flatten(), math.sqrt(VARIANCE))


def study(method: str, windows: int, cuts: int, steps: int, starts: int) -> Row:
    prior = prior_of(steps)
    seen = observation(prior.domain)
    model, generator = prior.model, torch.Generator().manual_seed(2)
    first = model(model.initial(generator, (windows,)), 1000)
    x = model.trajectory(first, steps - 1).flatten(1)
    y = seen.sample(x, generator)
    start = time.perf_counter()
    solver = Variational(method, windows=cuts, starts=starts, strict=False)(prior, seen)
    mean = solver.estimate(y)
    spent = time.perf_counter() - start
    print(f"{spent:.0f} s, mean squared error {(mean - x).square().mean():.3f}", flush=True)
    std = torch.stack([solver.std(v, 0, None) for v in y])
    mse = (mean - x).square().mean(-1)
    found = [solver.mode(v) for v in y]
    return {
        "method": f"4DVar {method}",
        "windows": windows,
        "steps": steps,
        "cuts": cuts,
        "starts": starts,
        "mse": mse.mean().item(),
        "median mse": mse.median().item(),
        "worst mse": mse.max().item(),
        "crps": crps_gaussian(mean, std, x).mean().item(),
        "spread/skill": (std.square().mean() / mse.mean()).sqrt().item(),
        "coverage90": coverage(mean, std, x, 0.9).mean().item(),
        "converged": sum(bool(f.converged[0]) for f in found) / windows,
        "seconds per window": spent / windows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="gauss-newton,lbfgs")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--cuts", type=int, default=25)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    a = parser.parse_args()
    with torch.no_grad():
        rows = [study(m, a.windows, a.cuts, a.steps, a.starts) for m in a.methods.split(",")]
    (show if a.dry else lambda t, r: finish(t, "lorenz96", r))("Lorenz-96", rows)


if __name__ == "__main__":
    main()
