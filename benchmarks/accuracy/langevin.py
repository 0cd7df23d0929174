"""Members that walk by the law itself, beside those of a Laplace law and of ensemble smoothers.

Three problems whose answer is known: a Gaussian one (exact), a field of two states that is seen
between them (draws of the prior, weighed by the data), and data that are exponentials of the field
(likewise). Truths are draws of the prior.

    python benchmarks/accuracy/langevin.py [--twins 10] [--steps 800]
"""

from __future__ import annotations

import argparse
import sys
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.dynamics import Dynamics
from matheron.metrics import crps_ensemble
from matheron.priors import WeakConstraint
from matheron.priors.spde import AllenCahn, Lattice
from matheron.solvers import EnsembleKalman, Langevin, SparseCholesky, Variational

SIZE = 64


def generator(seed):
    return torch.Generator().manual_seed(seed)


class Written(Dynamics):
    """The steps of an equation, with dense matrices, for filters that know models only."""

    def __init__(self, prior):
        super().__init__()
        step, self.chain = prior.linear.evolution().steps[0], prior.prepare_nodes()
        self.dt, self.shape = 1.0, (len(prior.linear.lattice),)
        self.back = torch.linalg.inv(step.ahead.to_dense()).detach()
        self.behind = step.behind.to_dense().detach()

    def advance(self, u):
        return (u @ self.behind.mT + self.chain.push(u, self.chain.lengths[0])) @ self.back.mT


class Nothing(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def equation(drift, variance):
    x = torch.arange(6.0)
    grid = mt.Grid(time=0.5 * torch.arange(13.0), x=x)
    linear = mt.AdvectionDiffusion(
        grid, 6.0, 2.0, variance=variance, lattice=Lattice(mt.Grid(x=x))
    ).requires_grad_(False)
    return linear, mt.NonlinearSPDE(linear, drift)


def as_model(prior):
    evolution = prior.linear.evolution()
    model = Written(prior)
    S = torch.linalg.inv(evolution.steps[0].noise.precision().to_dense())
    noise, first = model.back @ S @ model.back.mT, torch.linalg.inv(evolution.initial.to_dense())
    start = torch.zeros(len(first), dtype=torch.float64), (first + first.mT) / 2
    return WeakConstraint(prior.domain, model, 1, start, (noise + noise.mT) / 2)


def problems():
    """Name, prior, and what sees it."""
    linear, still = equation(Nothing(), 1.0)
    grid = linear.domain
    at = torch.tensor([7, 16, 25, 28, 39, 46])
    yield "Gaussian", linear, still, mt.PointObservation(grid, grid.points[at], 0.2)
    _, prior = equation(AllenCahn(1.5), 0.1)
    at = torch.tensor([13, 16])
    yield "two states", prior, prior, mt.PointObservation(grid, grid.points[at], 0.1)
    at = torch.tensor([7, 28, 46])
    seen = mt.NonlinearObservation(grid, lambda x: x[..., at].exp(), 0.5)
    yield "exponential", linear, still, seen


def weighed(prior, seen, y, seed):
    """Members of the prior, drawn again by the weights that the data give them."""
    x = prior.sample(200_000, generator(seed))
    w = torch.exp(-seen.cost(x, y.expand(len(x), -1)))
    chosen = torch.multinomial(w, SIZE, replacement=True, generator=generator(seed + 1))
    return (w @ x) / w.sum(), x[chosen]


def solvers(name, prior, chain, seen, steps):
    walk = lambda over: lambda y, k: refined(prior, seen, y, k, steps, over)
    yield "Laplace", lambda y, k: drawn(Variational("sparse")(prior, seen)(y), k)
    if name != "exponential":  # the smoother takes data that are linear
        yield "ensemble smoother", lambda y, k: smoothed(as_model(chain), seen, y, k)
    yield "Langevin, nodes", walk("nodes")
    if name == "two states":
        yield "Langevin, control", walk("control")
    if name == "Gaussian":
        yield "exact", lambda y, k: drawn(SparseCholesky()(prior, seen)(y), k)
    else:
        yield "weighed prior", lambda y, k: weighed(prior, seen, y, 1000 + k)


def drawn(posterior, k):
    return posterior.mean, posterior.sample(SIZE, generator(k))


def smoothed(model, seen, y, k):
    posterior = EnsembleKalman(SIZE, seed=k)(model, seen)(y)
    return posterior.mean, posterior.sample(SIZE, generator(k))


def refined(prior, seen, y, k, steps, over):
    law = Langevin(Variational("sparse"), steps, SIZE, over=over, seed=k)(prior, seen)
    walk = law.walk(y)
    return walk.mean.mean(dim=0), walk.members


def scores(found, truths, seconds):
    mean = torch.stack([m for m, _ in found])
    members = torch.stack([x for _, x in found], dim=1)
    low, high = members.quantile(0.05, dim=0), members.quantile(0.95, dim=0)
    inside = ((truths >= low) & (truths <= high)).double().mean()
    return {
        "rmse": (mean - truths).square().mean().sqrt().item(),
        "crps": crps_ensemble(members, truths).mean().item(),
        "coverage_90": inside.item(),
        "seconds": seconds / len(truths),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--twins", type=int, default=10)
    parser.add_argument("--steps", type=int, default=800)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, prior, chain, seen in problems():
        truths = prior.sample(given.twins, generator(5)).detach()
        data = [seen.sample(x, generator(k)).detach() for k, x in enumerate(truths)]
        for solver, solve in solvers(name, prior, chain, seen, given.steps):
            start = time.perf_counter()
            with torch.no_grad():
                found = [solve(y, k) for k, y in enumerate(data)]
            row = scores(found, truths, time.perf_counter() - start)
            rows.append({"problem": name, "solver": solver, "twins": given.twins, **row})
            print(rows[-1], flush=True)
    finish("Walks by the law itself", "langevin", rows)


if __name__ == "__main__":
    main()
