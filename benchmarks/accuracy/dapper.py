"""Twin experiments with Lorenz's models, beside the errors that DAPPER publishes.

The settings are those of its files ``mods/Lorenz63/sakov2012`` and ``mods/Lorenz96/sakov2008``:
Lorenz 63 seen whole every 25 steps of .01 with the variance 2; Lorenz 96 with 40 places seen
whole every step of .05 with the variance 1. Its numbers are quoted with two digits, from one run
of 1000 analyses. Ours are means of 10 000 analyses: 20 independent experiments of 500, each after
a spin-up, which is what one of 10 000 tells, and gives a standard error. The error is the root of
the mean square over components, averaged over analyses.

DAPPER itself is run in the same session where it can be imported; it is not needed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import torch

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.dynamics import Lorenz63, Lorenz96
from matheron.solvers.filters import (
    EnsembleAnalysis,
    EnsembleCycle,
    IterativeCycle,
    Localization,
    OptimalInterpolation,
    ParticleCycle,
    Scheme,
    ThreeDVar,
    TwinExperiment,
)

EXPERIMENTS = 20
Climate = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A scheme, the model it runs on, and the error that DAPPER publishes for it."""

    name: str
    model: str
    published: float
    scheme: Callable[[Climate], Scheme]


def ensemble(
    size: int,
    method: str = "etkf",
    inflation: float | str = 1.0,
    rotation: bool = False,
    radius: float | None = None,
) -> Callable[[Climate], Scheme]:
    local = None if radius is None else Localization(radius, period=40.0)
    analysis = EnsembleAnalysis(method, inflation, rotation, local)
    return lambda climate: EnsembleCycle(size, analysis)


def iterative(size: int, inflation: float) -> Callable[[Climate], Scheme]:
    return lambda climate: IterativeCycle(size, inflation=inflation, rotation=True)


def particles(size: int, threshold: float, jitter: float) -> Callable[[Climate], Scheme]:
    return lambda climate: ParticleCycle(size, threshold, jitter)


def variational(share: float) -> Callable[[Climate], Scheme]:
    return lambda climate: ThreeDVar(share * climate[1])


CASES = [
    Case("OI", "l63", 1.25, lambda climate: OptimalInterpolation(*climate)),
    Case("3DVar .1", "l63", 1.04, variational(0.1)),
    Case("EnKF sqrt N3 1.30", "l63", 0.80, ensemble(3, "etkf", 1.30)),
    Case("EnKF sqrt N10 1.02 rot", "l63", 0.60, ensemble(10, "etkf", 1.02, True)),
    Case("EnKF perturbed N100 1.01", "l63", 0.56, ensemble(100, "perturbed", 1.01)),
    Case("EnKF-N N10 rot", "l63", 0.54, ensemble(10, "etkf", "adaptive", True)),
    Case("iEnKS N10 1.02 rot", "l63", 0.31, iterative(10, 1.02)),
    Case("particles N100", "l63", 0.38, particles(100, 0.3, 2.4)),
    Case("particles N800", "l63", 0.28, particles(800, 0.2, 0.9)),
    Case("OI", "l96", 0.95, lambda climate: OptimalInterpolation(*climate)),
    Case("3DVar .02", "l96", 0.41, variational(0.02)),
    Case("EnKF perturbed N40 1.06", "l96", 0.22, ensemble(40, "perturbed", 1.06)),
    Case("DEnKF N40 1.01", "l96", 0.18, ensemble(40, "denkf", 1.01)),
    Case("EnKF sqrt N24 1.013 rot", "l96", 0.18, ensemble(24, "etkf", 1.013, True)),
    Case("EnKF-N N24 rot", "l96", 0.21, ensemble(24, "etkf", "adaptive", True)),
    Case("LETKF N7 1.04 rot loc 4", "l96", 0.22, ensemble(7, "letkf", 1.04, True, 4.0)),
]


def twin(model: str) -> TwinExperiment:
    if model == "l63":
        lorenz = Lorenz63()
        return TwinExperiment(lorenz, 25, 2**0.5, lorenz.initial)
    circle = torch.arange(40.0, dtype=torch.float64)[:, None]
    lorenz = Lorenz96()
    return TwinExperiment(lorenz, 1, 1.0, lorenz.initial, places=circle, first_std=0.001**0.5)


def run(case: Case, analyses: int, seed: int) -> dict[str, object]:
    experiment = twin(case.model)
    climate = experiment.climate(generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    spin_up = 100 if case.model == "l63" else 400
    start = time.perf_counter()
    scores = experiment(
        case.scheme(climate), analyses // EXPERIMENTS, spin_up, EXPERIMENTS, generator
    )
    return {
        "model": case.model,
        "scheme": case.name,
        "rmse": scores.rmse,
        "standard_error": scores.standard_error,
        "published": case.published,
        "ratio": scores.rmse / case.published,
        "spread": scores.spread,
        "analyses": scores.analyses,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose model and name hold this")
    parser.add_argument("--analyses", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if importlib.util.find_spec("dapper") is None:
        print("DAPPER is not installed here: its published errors are quoted, it is not timed.")
    chosen = [c for c in CASES if options.only.lower() in f"{c.model} {c.name}".lower()]
    rows = [run(case, options.analyses, options.seed) for case in chosen]
    finish("Lorenz models: ours beside DAPPER's published errors", "dapper", rows)


if __name__ == "__main__":
    main()
