"""Cost of the dynamical solvers as the window and the state grow: seconds and memory.

Lorenz-96 seen every second step at half its places, with noise of variance 1. Each case runs in a
process of its own, on one thread; the memory is what its peak adds to that of the start. Methods
that iterate take three steps: their cost is that of a step, whatever the number that a problem
needs. ``power`` is the exponent of the growth of the seconds since the row before, in the axis
that grew.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish, show

import matheron as mt

from matheron.dynamics import Lorenz96
from matheron.priors.dynamics import Markovian, StrongConstraint, WeakConstraint
from matheron.solvers import EnsembleKalman, IterativeEnsembleKalman, Solver, Variational

STEPS, ERRORS = 3, 0.01
WINDOWS, STATES = (25, 50, 100), (10, 40, 80)
HELD = (25, 40)
"""The window while the state grows, and the state while the window does."""


def descent(method: str) -> Solver:
    return Variational(method, steps=STEPS, stages=1, tolerance=1e-300, strict=False)


METHODS: dict[str, tuple[str, Callable[[], Solver]]] = {
    "weak, smoother": ("weak", lambda: descent("smoother")),
    "weak, Gauss-Newton": ("weak", lambda: descent("gauss-newton")),
    "weak, L-BFGS": ("weak", lambda: descent("lbfgs")),
    "strong, Gauss-Newton": ("strong", lambda: descent("gauss-newton")),
    "strong, L-BFGS": ("strong", lambda: descent("lbfgs")),
    "strong, L-BFGS, checkpoints": ("checkpoint", lambda: descent("lbfgs")),
    "EnKS, 50 members": ("strong", lambda: EnsembleKalman(50, inflation=1.05)),
    "iEnKS, 50 members, lag 8": (
        "strong",
        lambda: IterativeEnsembleKalman(50, 8, STEPS, inflation=1.05, strict=False),
    ),
}


def problem(kind: str, window: int, states: int) -> tuple[Markovian, mt.GriddedObservation]:
    grid = mt.Grid(time=0.05 * torch.arange(float(window)), x=torch.arange(float(states)))
    model, mean = Lorenz96(states), torch.full((states,), 2.34, dtype=torch.float64)
    start = mean, torch.full((states,), 13.2, dtype=torch.float64)
    mask = torch.zeros(window, states, dtype=torch.bool)
    mask[::2, ::2] = True
    seen = mt.GriddedObservation(grid, mask.flatten(), 1.0)
    if kind == "weak":
        Q = torch.full((states,), ERRORS, dtype=torch.float64)
        return WeakConstraint(grid, model, 1, start, Q), seen
    return StrongConstraint(grid, model, 1, start, kind == "checkpoint"), seen


def peak() -> float:
    """Returns the peak of the memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(name: str, window: int, states: int) -> float:
    """Returns the seconds of one core that a method takes."""
    kind, make = METHODS[name]
    prior, seen = problem(kind, window, states)
    generator = torch.Generator().manual_seed(0)
    first = prior.model(prior.model.initial(generator), 500)
    y = seen.sample(prior.model.trajectory(first, window - 1).flatten(), generator)
    law, start = make()(prior, seen), time.process_time()
    law.estimate(y[None])
    return time.process_time() - start


def measure(name: str, window: int, states: int) -> tuple[float, float]:
    """Returns seconds and MB, once a small problem has run."""
    torch.set_num_threads(1)
    run(name, 10, 10)
    before = peak()
    return run(name, window, states), peak() - before


def study(names: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    cases = [("window", k, HELD[1]) for k in WINDOWS] + [("state", HELD[0], s) for s in STATES]
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for name in names:
            for axis, window, states in cases:
                seconds, memory = pool.apply(measure, (name, window, states))
                size, row = window if axis == "window" else states, {"method": name, "grows": axis}
                row |= {"window": window, "state": states, "seconds": seconds, "MB": memory}
                last = rows[-1] if rows and rows[-1]["grows"] == axis else None
                if last is not None and last["method"] == name:
                    longer = math.log(size / float(str(last[axis])))
                    row["power"] = math.log(seconds / float(str(last["seconds"]))) / longer
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="methods whose name holds this")
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    a = parser.parse_args()
    rows = study([name for name in METHODS if a.only in name])
    title = "Dynamical solvers: cost as the window and the state grow"
    (show if a.dry else lambda t, r: finish(t, "variational", r))(title, rows)


if __name__ == "__main__":
    main()
