"""A training step of 4DVarNet: the published recipe beside ours, on the same data and sizes.

The reference is rebuilt from its description (reference_4dvarnet.py). Ours of the same kind has a
network of the same widths, sums for costs, and an adjoint made of forward operations: one
differentiation. ``4dvarnet`` is what ``matheron fit --method 4dvarnet`` makes: three steps of a
U-Net; which of them is the better after the same time is in accuracy/four_dvarnet.py.

Each runs in a process of its own: seconds, of the processor, are medians of steps (forward,
backward and Adam), memory is the largest of the process less that before the first step.
``batch`` is how much an estimate changes when another window joins the batch, in per cent of its
root mean square.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
import torch
import torch.nn as nn
import torch.nn.functional as F

from collections.abc import Callable
from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish
from reference_4dvarnet import Reference

import matheron as mt

from matheron.compare.plans import Plan, Units
from matheron.nets import BilinearAutoencoder
from matheron.priors.projection import Projection
from matheron.solvers.neural import NeuralVariational, RecurrentStep

DAYS, SIDE, BATCH = 15, 64, 4


def reference(steps: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    net = Reference(DAYS, steps)
    return net, net


def ours(
    steps: int, recompute: bool, cell: str = "lstm"
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    axis = torch.arange(float(SIDE), dtype=torch.float64)
    grid = mt.Grid(time=torch.arange(float(DAYS)), y=axis, x=axis)
    g = torch.Generator().manual_seed(0)
    phi = BilinearAutoencoder(DAYS, 32, factors=(2,), generator=g)
    prior = Projection(grid, phi, std=1.0)
    step = RecurrentStep(DAYS, 48, cell, generator=g)
    solver = NeuralVariational(step, steps, first="data", checkpoint=recompute)

    def estimate(y: Tensor, mask: Tensor) -> Tensor:
        seen = mt.GriddedObservation(grid, mask.flatten(1), 1.0)
        return solver(prior, seen).estimate(y.flatten(1).double()).unflatten(1, y.shape[1:])

    return nn.ModuleList([solver, prior]), estimate


def method(steps: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    axis = torch.arange(float(SIDE), dtype=torch.float64) / 5
    grid = mt.Grid(time=torch.arange(float(DAYS)), lat=axis, lon=axis, metric="sphere")
    solver, prior = Plan("4dvarnet", window=DAYS, first="none").made(Units(grid, 0.0, 1.0))

    def estimate(y: Tensor, mask: Tensor) -> Tensor:
        seen = mt.GriddedObservation(grid, mask.flatten(1), 1.0)
        return solver(prior, seen).estimate(y.flatten(1).double()).unflatten(1, y.shape[1:])

    return nn.ModuleList([solver, prior]), estimate


def data(size: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    truth = torch.randn(size, DAYS, SIDE // 8, SIDE // 8, generator=g)
    truth = F.interpolate(truth, size=(SIDE, SIDE), mode="bicubic")
    mask = torch.rand(truth.shape, generator=g) < 0.1
    return truth, torch.where(mask, truth, 0.0), mask


VARIANTS = {
    "reference": reference,
    "ours": lambda steps: ours(steps, False),
    "ours, steps computed again": lambda steps: ours(steps, True),
    "ours, gru": lambda steps: ours(steps, False, "gru"),
    "4dvarnet": method,
    "4dvarnet, bf16": method,
}


def measured(name: str, steps: int, repeats: int) -> dict[str, object]:
    """Returns the row of a variant."""
    torch.manual_seed(0)
    weights, estimate = VARIANTS[name](steps)
    adam = torch.optim.Adam(weights.parameters(), lr=1e-4)
    truth, y, mask = data(BATCH)
    before = _peak()
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        adam.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in name):
            found = estimate(y, mask)
        (found - truth).square().mean().backward()
        adam.step()
        seconds.append(time.process_time() - start)
    # the second window is ten times as large
    scaled = torch.cat([y[:1], 10 * y[1:2]])
    alone, together = (
        estimate(v, m).detach()[0] for v, m in ((y[:1], mask[:1]), (scaled, mask[:2]))
    )
    change = (together - alone).square().mean().sqrt() / alone.square().mean().sqrt()
    return {
        "variant": name,
        "steps": 3 if name.startswith("4dvarnet") else steps,
        "weights": sum(p.numel() for p in weights.parameters()),
        "seconds": statistics.median(seconds[1:]),
        "MiB": (_peak() - before) / 1024,
        "batch": 100 * change.item(),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    told = parser.parse_args()
    rows = []
    for name in VARIANTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (name, told.steps, told.repeats)))
    first = rows[0]
    for row in rows:
        row["time of the reference over it"] = first["seconds"] / row["seconds"]
    finish(f"4DVarNet, a training step of {BATCH} x {DAYS} x {SIDE}^2", "four_dvarnet", rows)


if __name__ == "__main__":
    main()
