"""Twin experiments with Lorenz's models, beside the errors that DAPPER publishes.

The settings are those of its files ``mods/Lorenz63/sakov2012`` and ``mods/Lorenz96/sakov2008``:
Lorenz 63 seen whole every 25 steps of .01 with the variance 2; Lorenz 96 with 40 places seen
whole every step of .05 with the variance 1. Its numbers have two digits, from one run of 1000
analyses. Ours are means of 10 000: 20 independent experiments of 500, each after a spin-up, which
tell as much as one of 10 000, and a standard error with it. The error is the root of the mean
square over components, averaged over analyses.

A filter that loses track now and then (an error over the noise, in one experiment) says so in the
column ``lost``; ``tracked`` is the error of the others, which is what one lucky run would show,
and what the ratio compares.

Where DAPPER can be imported, ``--peer`` runs it too: one run of 1000 analyses, its own default.
Its time holds diagnostics that ours does not compute.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
import torch

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    peer: tuple[str, dict[str, Any]]


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


def oi(climate: Climate) -> Scheme:
    return OptimalInterpolation(*climate)


def peer(name: str, *upd: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    """Returns the class of DAPPER, and its settings."""
    return name, {**({"upd_a": upd[0]} if upd else {}), **settings}


CASES = [
    Case("OI", "l63", 1.25, oi, peer("OptInterp")),
    Case("3DVar .1", "l63", 1.04, variational(0.1), peer("Var3D", xB=0.1)),
    Case(
        "EnKF sqrt N3 1.30",
        "l63",
        0.80,
        ensemble(3, "etkf", 1.30),
        peer("EnKF", "Sqrt", N=3, infl=1.3),
    ),
    Case(
        "EnKF sqrt N10 1.02 rot",
        "l63",
        0.60,
        ensemble(10, "etkf", 1.02, True),
        peer("EnKF", "Sqrt", N=10, infl=1.02, rot=True),
    ),
    Case(
        "EnKF perturbed N100 1.01",
        "l63",
        0.56,
        ensemble(100, "perturbed", 1.01),
        peer("EnKF", "PertObs", N=100, infl=1.01),
    ),
    Case(
        "EnKF-N N10 rot",
        "l63",
        0.54,
        ensemble(10, "etkf", "adaptive", True),
        peer("EnKF_N", N=10, rot=True),
    ),
    Case(
        "iEnKS N10 1.02 rot",
        "l63",
        0.31,
        iterative(10, 1.02),
        peer("iEnKS", "Sqrt", N=10, infl=1.02, rot=True),
    ),
    Case(
        "particles N100",
        "l63",
        0.38,
        particles(100, 0.3, 2.4),
        peer("PartFilt", N=100, reg=2.4, NER=0.3),
    ),
    Case(
        "particles N800",
        "l63",
        0.28,
        particles(800, 0.2, 0.9),
        peer("PartFilt", N=800, reg=0.9, NER=0.2),
    ),
    Case("OI", "l96", 0.95, oi, peer("OptInterp")),
    Case("3DVar .02", "l96", 0.41, variational(0.02), peer("Var3D", xB=0.02)),
    Case(
        "EnKF perturbed N40 1.06",
        "l96",
        0.22,
        ensemble(40, "perturbed", 1.06),
        peer("EnKF", "PertObs", N=40, infl=1.06),
    ),
    Case(
        "DEnKF N40 1.01",
        "l96",
        0.18,
        ensemble(40, "denkf", 1.01),
        peer("EnKF", "DEnKF", N=40, infl=1.01),
    ),
    Case(
        "EnKF sqrt N24 1.013 rot",
        "l96",
        0.18,
        ensemble(24, "etkf", 1.013, True),
        peer("EnKF", "Sqrt", N=24, infl=1.013, rot=True),
    ),
    Case(
        "EnKF-N N24 rot",
        "l96",
        0.21,
        ensemble(24, "etkf", "adaptive", True),
        peer("EnKF_N", N=24, rot=True),
    ),
    Case(
        "LETKF N7 1.04 rot loc 4",
        "l96",
        0.22,
        ensemble(7, "letkf", 1.04, True, 4.0),
        peer("LETKF", N=7, infl=1.04, rot=True, loc_rad=4),
    ),
]
MODELS = {"l63": "Lorenz63.sakov2012", "l96": "Lorenz96.sakov2008"}


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
    spin_up, each = 100 if case.model == "l63" else 400, analyses // EXPERIMENTS
    start = time.perf_counter()
    scores = experiment(case.scheme(climate), each, spin_up, EXPERIMENTS, generator)
    seconds = time.perf_counter() - start
    lost = scores.experiments > experiment.noise_std
    tracked = scores.experiments[~lost].mean().item()
    return {
        "model": case.model,
        "scheme": case.name,
        "rmse": scores.rmse,
        "standard_error": scores.standard_error,
        "lost": f"{int(lost.sum())}/{EXPERIMENTS}",
        "tracked": tracked,
        "published": case.published,
        "ratio": tracked / case.published,
        "spread": scores.spread,
        "analyses": scores.analyses,
        "ms_per_analysis": 1e3 * seconds / (EXPERIMENTS * (spin_up + each)),
    }


def run_peer(case: Case, seed: int, analyses: int = 1000) -> dict[str, object]:
    """Runs DAPPER on one case, with its own model, truth and data."""
    name, settings = case.peer
    HMM = importlib.import_module(f"dapper.mods.{MODELS[case.model]}").HMM
    importlib.import_module("dapper.tools.seeding").set_seed(seed + 1)
    scheme = getattr(importlib.import_module("dapper.da_methods"), name)(**settings)
    HMM.tseq.Ko = analyses
    xx, yy = HMM.simulate()
    start = time.perf_counter()
    scheme.assimilate(HMM, xx, yy, liveplots=False)
    seconds = time.perf_counter() - start
    scheme.stats.average_in_time()
    return {
        "peer_rmse": float(scheme.avrgs.err.rms.a.val),
        "peer_ms_per_analysis": 1e3 * seconds / analyses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose model and name hold this")
    parser.add_argument("--analyses", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true", help="run DAPPER too, where it is there")
    options = parser.parse_args()
    with_peer = options.peer and importlib.util.find_spec("dapper") is not None
    if options.peer and not with_peer:
        print("DAPPER cannot be imported here: its published errors are quoted, it is not run.")
    rows = []
    for case in CASES:
        if options.only.lower() in f"{case.model} {case.name}".lower():
            row = run(case, options.analyses, options.seed)
            rows.append({**row, **(run_peer(case, options.seed) if with_peer else {})})
    finish("Lorenz models: ours beside DAPPER's published errors", "lorenz", rows)


if __name__ == "__main__":
    main()
