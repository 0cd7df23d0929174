"""4DVarNet as published and ours, on the same simulated ocean, for the same time.

An experiment made by ``matheron osse gulfstream --train -o DIR``: windows of 15 days, data of its
satellites averaged over cells, no first guess. Each solver trains for the same processor time on
one thread, with Adam and a rate that falls to zero; then both map the days that were held out.

- ``reference``: the published recipe (reference_4dvarnet.py): 10 steps, batches of 4, its loss and
  rates, the pull rescaled to the size of the patch;
- ``4dvarnet``: what ``matheron fit --method 4dvarnet --first-guess none`` makes, at both
  precisions; ``4dvarnet, guess``: the same from a first guess by optimal interpolation;
- ``unet``: the direct network of the same width, from the same first guess.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
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

from matheron.compare import Course, Plan, course_of, hardware_of
from matheron.data import Source
from matheron.data.batches import Batch
from matheron.fit.objective import Objective, observe
from matheron.fit.training import train
from matheron.osse import Experiment

Estimate = Callable[[Batch], Tensor]
TIMED = 4


def batches(source: Source, size: int, generator: torch.Generator):
    """Yields batches without end."""
    while True:
        index = torch.randint(len(source), (size,), generator=generator)
        yield source.batch(index, torch.randint(2**31, (size,), generator=generator))


def slopes(x: Tensor) -> Tensor:
    """Returns the size of the gradient by Sobel's kernels, as the reference has it."""
    kernel = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    both = torch.stack([kernel, kernel.mT])[:, None]
    found = F.conv2d(x.flatten(0, 1)[:, None], both)
    return (found.square().sum(dim=1) + 1e-8).sqrt()


def reference(course: Course, seconds: float, seed: int) -> tuple[Estimate, nn.Module, int]:
    """Returns the published recipe, trained, and the number of its updates."""
    torch.manual_seed(seed)
    source, _ = course.windows()
    days, *side = source.grid.shape
    mean, std = course.moments()
    net = Reference(days, 10, pull=1e3 * math.prod(side) / 240**2)
    outer = [p for k, p in net.named_parameters() if not k.startswith("phi.")]
    groups = [{"params": outer, "lr": 1e-3}, {"params": net.phi.parameters(), "lr": 5e-4}]
    adam = torch.optim.Adam(groups)
    first = [group["lr"] for group in groups]

    def estimate(batch: Batch) -> Tensor:
        y = batch.space((batch.values - mean) / std).float()
        with torch.enable_grad():  # its gradient, at any time
            return net(y, batch.space(batch.mask))

    w = 1 - (torch.arange(1.0, 2 * days, 2) - days).abs() / days
    start, updates = time.process_time(), 0
    for batch in batches(source, 4, torch.Generator().manual_seed(seed)):
        spent = (time.process_time() - start) / seconds
        if spent >= 1:
            break
        for group, rate in zip(groups, first, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * spent)) / 2
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = (g["lr"] for g in groups)
        truth = batch.space((batch.truth - mean) / std).float()
        x = estimate(batch)
        e = (w[:, None, None] * (x - truth)).square().mean()
        weights = w.repeat(len(batch))[:, None, None]
        g = (weights * (slopes(x) - slopes(truth))).square().mean()
        loss = 50 * e + 1000 * g + (x - net.phi(x)).square().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.step()
        updates += 1
    return lambda batch: mean + std * estimate(batch).detach().flatten(1), net, updates


def ours(course: Course, seconds: float, seed: int) -> tuple[Estimate, nn.Module, int]:
    """Returns a method of the library, trained, and the number of its updates."""
    plan = dataclasses.replace(course.plan, seed=seed)
    source, _ = course.windows()
    units = course.units(source.grid)

    def trained(updates: int, ticks: list[float]):
        solver, prior = plan.made(units)
        schedule = dataclasses.replace(plan.schedule, steps=updates, warm_up=updates // 20 + 1)
        dice, note = torch.Generator().manual_seed(seed), lambda _: ticks.append(now())
        loss = plan.loss(units)
        kept = {"fabric": hardware_of(plan), "generator": dice, "progress": note}
        train(solver, prior, source, loss, None, schedule, **kept)
        return Objective(solver, prior, loss, observe)

    now, ticks = time.process_time, list[float]()
    trained(TIMED + 1, ticks)
    updates = int(seconds * TIMED / (ticks[-1] - ticks[0]))
    made = trained(updates, [])
    return lambda batch: made.solve(batch).x, made, updates


@torch.no_grad()
def error(course: Course, estimate: Estimate) -> float:
    """Returns the error of the wanted days of the windows held out."""
    _, held = course.windows()
    middle = held.grid.shape[0] // 2
    total, count = 0.0, 0
    for i in range(0, len(held), 8):
        index = torch.arange(i, min(i + 8, len(held)))
        batch = held.batch(index, torch.zeros_like(index))
        e = batch.space(estimate(batch).double() - batch.truth)[:, middle]
        total, count = total + e.square().sum().item(), count + e.numel()
    return math.sqrt(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0, help="of the processor, each")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+")
    told = parser.parse_args()
    torch.set_num_threads(1)
    ocean = Experiment.load(told.experiment)
    bare, guess = Plan("4dvarnet", first="none"), Plan("4dvarnet")
    plans = {
        "reference": bare,
        "4dvarnet": bare,
        "4dvarnet, bf16": dataclasses.replace(bare, precision="bf16"),
        "4dvarnet, guess, bf16": dataclasses.replace(guess, precision="bf16"),
        "unet, guess, bf16": dataclasses.replace(guess, method="unet", precision="bf16"),
    }
    courses = {first: course_of(ocean, Plan(first=first), print) for first in ("none", "oi")}
    rows = []
    for name, plan in plans.items():
        if told.only and name not in told.only:
            continue
        for seed in range(told.seeds):
            course = dataclasses.replace(courses[plan.first], plan=plan)
            build = reference if name == "reference" else ours
            estimate, weights, updates = build(course, told.seconds, seed)
            row = {"solver": name, "seed": seed, "updates": updates, "seconds": told.seconds}
            row["weights"] = sum(p.numel() for p in weights.parameters())
            row["rmse"] = error(course, estimate)
            print(row, flush=True)
            rows.append(row)
    finish("4DVarNet for the same time, a simulated Gulf Stream", "four_dvarnet_accuracy", rows)


if __name__ == "__main__":
    main()
