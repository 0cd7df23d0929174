"""Lorenz-96, 40 places, an eighth of them seen with noise of variance 2, on long windows.

Windows of 200 steps of .05, seen every 4 steps at a random half of the places. Such a window is 17
Lyapunov times long: the cost of a first state has many minima. Beside strong-constraint 4DVar,
which takes the data in growing windows, stand the iterated Kalman smoother, which moves every
state, plain gradient descent, and ensemble Kalman smoothers, iterative or not. The rule that stops
looks at gradient and cost only; the climate comes from another run. Lags and inflations of the
ensembles were tried on two other windows. Learned solvers publish .827,
plain descent 3.36.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import record, show

import matheron as mt

from matheron.dynamics import Lorenz96
from matheron.metrics import coverage, crps_gaussian
from matheron.priors.dynamics import StrongConstraint
from matheron.solvers import EnsembleKalman, IterativeEnsembleKalman, Solver, Variational

PLACES, STEPS, EVERY, VARIANCE = 40, 200, 4, 2.0
NAMES = {
    "smoother": "iterated Kalman smoother",
    "ienks": "iterative ensemble Kalman smoother",
    "enks": "ensemble Kalman smoother",
    "gauss-newton": "strong 4DVar, Gauss-Newton",
    "lbfgs": "strong 4DVar, L-BFGS",
    "gradient-descent": "strong 4DVar, gradient descent",
}
Row = dict[str, object]
Way = Callable[[Tensor], tuple[Tensor, Tensor, float]]
Ways = dict[str, Way]
SETTINGS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "smoother": lambda a: {"starts": a.starts},
    "ienks": lambda a: {"members": 60, "lag": a.lag, "inflation": a.inflation},
    "enks": lambda a: {"members": 200, "lag": 40, "inflation": 1.02},
    "gauss-newton": lambda a: {"cuts": a.cuts},
    "lbfgs": lambda a: {"cuts": a.cuts},
    "gradient-descent": lambda a: {"descents": a.descents},
}


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


def score(name: str, mean: Tensor, std: Tensor, x: Tensor, seconds: float) -> Row:
    mse = (mean - x).square().mean(-1)
    return {
        "method": name,
        "windows": len(x),
        "steps": x.shape[1] // PLACES,
        "mse": mse.mean().item(),
        "median mse": mse.median().item(),
        "worst mse": mse.max().item(),
        "crps": crps_gaussian(mean, std, x).mean().item(),
        "spread/skill": (std.square().mean() / mse.mean()).sqrt().item(),
        "coverage90": coverage(mean, std, x, 0.9).mean().item(),
        "seconds per window": seconds / len(x),
    }


def variational(prior: StrongConstraint, seen: mt.GriddedObservation, solver: Variational) -> Way:
    """Returns a function from data to mean, std and share of minima that were reached."""

    def run(y: Tensor) -> tuple[Tensor, Tensor, float]:
        law = solver(prior, seen)
        mean = law.estimate(y)
        reached = sum(bool(law.mode(v).converged[0]) for v in y) / len(y)
        return mean, torch.stack([law.std(v, 0, None) for v in y]), reached

    return run


def ensemble(prior: StrongConstraint, seen: mt.GriddedObservation, solver: Solver) -> Way:
    """Returns the same for an ensemble smoother."""

    def run(y: Tensor) -> tuple[Tensor, Tensor, float]:
        law = solver(prior, seen)
        mean, std, reached = law.estimate(y), torch.zeros_like(y), 0.0
        for i, v in enumerate(y):
            std[i] = law.std(v, 0, None)
            reached += law.info(v).get("converged", True) / len(y)
        return mean, std, reached

    return run


def ways(a: argparse.Namespace, prior: StrongConstraint, seen: mt.GriddedObservation) -> Ways:
    staged = Variational("smoother", steps=40, decrease=1e-8, starts=a.starts, strict=False)
    growing = {"windows": a.cuts, "strict": False}
    solvers = {
        "smoother": staged,
        "gauss-newton": Variational("gauss-newton", **growing),
        "lbfgs": Variational("lbfgs", **growing),
        "gradient-descent": Variational("gradient-descent", steps=a.descents, strict=False),
    }
    ensembles = {
        "ienks": IterativeEnsembleKalman(
            60, a.lag, inflation=a.inflation, rotation=True, strict=False
        ),
        "enks": EnsembleKalman(200, lag=40, inflation=1.02, rotation=True),
    }
    found = {name: variational(prior, seen, solver) for name, solver in solvers.items()}
    return {**found, **{name: ensemble(prior, seen, s) for name, s in ensembles.items()}}


def study(a: argparse.Namespace) -> list[Row]:
    prior = prior_of(a.steps)
    seen = observation(prior.domain)
    model, generator = prior.model, torch.Generator().manual_seed(2)
    first = model(model.initial(generator, (a.windows,)), 1000)
    x = model.trajectory(first, a.steps - 1).flatten(1)
    y = seen.sample(x, generator)
    rows = []
    for name in a.methods.split(","):
        start = time.perf_counter()
        mean, std, reached = ways(a, prior, seen)[name](y)
        row = score(NAMES[name], mean, std, x, time.perf_counter() - start)
        rows.append(row | {"converged": reached, **SETTINGS[name](a)})
        show(name, rows[-1:])
        if not a.dry:  # some take long: what is done is kept
            record("lorenz96", rows[-1:])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="smoother,ienks,enks,lbfgs,gradient-descent")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cuts", type=int, default=25, help="growing windows of 4DVar")
    parser.add_argument("--starts", type=int, default=10, help="most ways of the smoother")
    parser.add_argument("--descents", type=int, default=300, help="steps of plain descent")
    parser.add_argument("--lag", type=int, default=8, help="of the iterative ensembles")
    parser.add_argument("--inflation", type=float, default=1.1)
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    a = parser.parse_args()
    with torch.no_grad():
        show("Lorenz-96", study(a))


if __name__ == "__main__":
    main()
