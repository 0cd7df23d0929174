"""Analog data assimilation on Lorenz 63, beside the true model, by the protocol of AnDA.

The settings are those of the package AnDA (Lguensat et al., 2017): states every .01, the first
component seen every 8 of them with noise of variance 2, a catalogue of 100 units of time, 100
members, first states known with variance .1. Each experiment is a window of 10 units of time; the
error is the root of the mean square over all times and components. Published, for a smoother:
.528 with analogs, .451 with the true model.

Model errors of analogs are those of forecasts of the catalogue by cross-validation.
"""

from __future__ import annotations

import argparse
import sys
import time
import torch

from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.dynamics.analogs import Analogs
from matheron.metrics import coverage_bounds, crps_ensemble, ensemble_bounds
from matheron.priors.dynamics import Markovian

TIMES, EVERY, VARIANCE, MEMBERS = 1000, 8, 2.0, 100
PUBLISHED = {"true model": 0.451, "analogs, linear": 0.528}


def on_attractor(generator: torch.Generator, steps: int) -> Tensor:
    model = Lorenz63()
    return model.trajectory(model(model.initial(generator), 2000), steps)


def models(generator: torch.Generator) -> dict[str, tuple[torch.nn.Module, Tensor | None]]:
    """Returns the models, each with the covariance of its errors over one step."""
    catalogue = on_attractor(generator, 10_000)
    found: dict[str, tuple[torch.nn.Module, Tensor | None]] = {"true model": (Lorenz63(), None)}
    for kind, k in (("linear", 50), ("incremental", 20), ("constant", 20)):
        analogs = Analogs(catalogue, k=k, kind=kind, dt=0.01)
        found[f"analogs, {kind}"] = (analogs, analogs.error_covariance(generator=generator))
    return found


def observation() -> mt.GriddedObservation:
    grid = mt.Grid(time=0.01 * torch.arange(float(TIMES)), x=torch.arange(3.0))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[EVERY::EVERY, 0] = True
    return mt.GriddedObservation(grid, mask.flatten(), VARIANCE**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=10)
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    law, seen, rows = models(generator), observation(), []
    truths = [on_attractor(generator, TIMES - 1) for _ in range(options.experiments)]
    data = [seen.sample(x.flatten(), generator) for x in truths]
    starts = [x[0] + 0.1**0.5 * torch.randn(3, generator=generator).double() for x in truths]
    for name, (model, noise) in law.items():
        if options.only not in name:
            continue
        for scheme, lag in (("EnKF", 0), ("EnKS", 200)):
            solver = mt.EnsembleKalman(MEMBERS, "perturbed", lag=lag)
            errors, crps, covered, begin = [], [], [], time.perf_counter()
            for x, y, start in zip(truths, data, starts, strict=True):
                initial = (start, torch.full((3,), 0.1).double())
                prior = Markovian(seen.domain, model, 1, initial, noise)
                E = solver.prepare(prior, seen).ensemble(y)
                errors.append((E.mean(dim=0) - x.flatten()).square().mean())
                crps.append(crps_ensemble(E, x.flatten()))
                covered.append(coverage_bounds(*ensemble_bounds(E, 0.9), x.flatten()))
            rmse = torch.stack(errors).sqrt()
            rows.append(
                {
                    "model": name,
                    "scheme": scheme,
                    "rmse": rmse.mean().item(),
                    "standard_error": (rmse.std() / len(rmse) ** 0.5).item(),
                    "published": PUBLISHED.get(name, "") if lag else "",
                    "crps": torch.stack(crps).mean().item(),
                    "coverage_90": torch.stack(covered).mean().item(),
                    "experiments": len(rmse),
                    "seconds": (time.perf_counter() - begin) / len(rmse),
                }
            )
            print(rows[-1], flush=True)
    finish("Lorenz 63 by analogs, the first component seen", "analogs", rows)


if __name__ == "__main__":
    main()
