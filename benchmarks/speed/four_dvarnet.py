"""A training step of 4DVarNet: the published recipe beside ours, on the same data and sizes.

The reference is rebuilt from its description (4dvarnet-starter, base configuration): a bilinear
auto-encoder with 32 channels at half the resolution, costs that are means over pixels, a gradient
by automatic differentiation through which training differentiates again, divided by one norm over
the whole batch, and a convolutional LSTM with 48 channels. Ours has a network of the same kind and
widths, sums for costs, and an adjoint made of forward operations: one differentiation.

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

import matheron as mt

from matheron.nets import BilinearAutoencoder
from matheron.priors.projection import Projection
from matheron.solvers.neural import NeuralVariational, RecurrentStep

DAYS, SIDE, BATCH = 15, 64, 4


class Bilinear(nn.Module):
    """The auto-encoder of the reference."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(DAYS, width, 3, padding=1)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.parts = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(2 * width, DAYS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(F.relu(self.enter(F.avg_pool2d(x, 2))))
        plain, a, b = (part(h) for part in self.parts)
        y = self.leave(torch.cat([plain, a * b], dim=1))
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)


class Reference(nn.Module):
    """The unrolled solver of the reference."""

    def __init__(self, steps: int, width: int = 48) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.phi = Bilinear()
        self.gates = nn.Conv2d(DAYS + width, 4 * width, 3, padding=1)
        self.leave = nn.Conv2d(width, DAYS, 3, padding=1, bias=False)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        x = torch.where(mask, y, 0.0).requires_grad_()
        h = c = y.new_zeros(len(y), self.width, *y.shape[2:])
        norm: Tensor | None = None
        for k in range(self.steps):
            cost = (x - self.phi(x)).square().mean() + (x - y)[mask].square().mean()
            (slope,) = torch.autograd.grad(cost, x, create_graph=True)
            norm = slope.square().mean().sqrt() if norm is None else norm
            gates = self.gates(torch.cat([slope / norm, h], dim=1)).chunk(4, dim=1)
            take, forget, give = (g.sigmoid() for g in gates[:3])
            c = forget * c + take * gates[3].tanh()
            h = give * c.tanh()
            x = x - self.leave(h) / (k + 1) - 1e3 * (k + 1) / self.steps * slope
        return x


def reference(steps: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    net = Reference(steps)
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
        (estimate(y, mask) - truth).square().mean().backward()
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
        "steps": steps,
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
