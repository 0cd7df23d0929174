"""Models of Lorenz 63 that are learned: how far they forecast, and whether they keep its climate.

The record is 64 units of time, seen every .08: clean, with noise of variance 2 on every component,
or with that noise and half of the numbers missing at random. Learned are the bilinear network and
a multilayer perceptron; clean data by regression, the others by expectation and maximisation (em)
or by steps on the likelihood (scoring). The bar of the others is scoring that starts from the true
law: what remains of its errors is what the data do not tell.

- The error of forecasts, from true states that were not learned from, by lead. The standard
  deviation of the climate is 7.9, 8.9 and 8.6.
- The largest Lyapunov exponent, .906 for the truth.
- The distance of attractors: Wasserstein's between long runs, sliced along random directions; that
  between two runs of the truth is what sampling makes of zero.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import torch

from collections.abc import Callable
from pathlib import Path
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.dynamics import Dynamics, Lorenz63
from matheron.dynamics.networks import BilinearNetwork, MLPDynamics
from matheron.fit.dynamics import learn_dynamics
from matheron.fit.forecasts import Training, fit_forecasts
from matheron.fit.learned import LearnedDynamics
from matheron.fit.records import Record
from matheron.fit.scoring import Scoring
from matheron.solvers import Variational

VARIANCE, DT, LEADS = 2.0, 0.02, (0.1, 0.5, 1.0, 2.0)
Row = dict[str, object]


def on_attractor(generator: Generator, runs: int, duration: float) -> Tensor:
    """Returns true trajectories every .02."""
    model = Lorenz63()
    start = model(model.initial(generator, (runs,)), 2000)
    return model.trajectory(start, round(duration / DT) * 2, every=2)


def record(case: str, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """Returns windows of 4 units of time every .04, and where they are seen."""
    truth = on_attractor(generator, 1, 64 - DT)[0, ::2].reshape(16, 100, 3)
    if case == "clean":
        return truth, None
    noise = torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    mask = torch.zeros(truth.shape, dtype=torch.bool)
    mask[:, ::2] = True
    if case == "gappy":
        mask &= torch.rand(truth.shape, generator=generator) < 0.5
    return truth + VARIANCE**0.5 * noise, mask


MODELS: dict[str, Callable[[Generator], Dynamics]] = {
    "bilinear": lambda g: BilinearNetwork(dt=DT, generator=g),
    "perceptron": lambda g: MLPDynamics(3, (24, 24), dt=DT, generator=g),
}


@torch.no_grad()
def lyapunov(model: Dynamics, x: Tensor, duration: float = 60.0) -> float:
    """Returns the mean rate at which neighbours part, made near again every .1."""
    steps, total = round(0.1 / DT), 0.0
    apart = 1e-6 * torch.ones_like(x) / x.shape[-1] ** 0.5
    count = round(duration / 0.1)
    for i in range(count):
        both = model(torch.stack([x, x + apart]), steps)
        x, gap = both[0], both[1] - both[0]
        size = gap.norm(dim=-1, keepdim=True)
        if i >= count // 10:
            total += (size / 1e-6).log().mean().item()
        apart = 1e-6 * gap / size
    return total / (0.1 * (count - count // 10))


@torch.no_grad()
def cloud(model: Dynamics, x: Tensor, duration: float = 60.0) -> Tensor:
    """Returns the states of long runs, the first sixth left out."""
    steps = round(duration / 0.1)
    path = model.trajectory(x, steps * round(0.1 / DT), every=round(0.1 / DT))
    return path[:, steps // 6 :].flatten(0, 1)


def distance(a: Tensor, b: Tensor) -> float:
    """Returns the sliced distance of Wasserstein, of order one."""
    ways = torch.randn(3, 64, dtype=torch.float64, generator=Generator().manual_seed(0))
    ways = ways / ways.norm(dim=0)
    return ((a @ ways).sort(dim=0).values - (b @ ways).sort(dim=0).values).abs().mean().item()


@torch.no_grad()
def judged(model: Dynamics, test: Tensor, starts: Tensor, true: Tensor) -> Row:
    path = model.trajectory(test[:, 0], test.shape[1] - 1)
    errors = (path - test).square().mean(dim=(0, 2)).sqrt()
    row: Row = {f"rmse_{lead}": errors[round(lead / DT)].item() for lead in LEADS}
    runs = cloud(model, starts)
    if not runs.isfinite().all() or runs.abs().max() > 200:
        return row | {"lyapunov": float("nan"), "attractor": float("nan")}
    return row | {"lyapunov": lyapunov(model, starts), "attractor": distance(runs, true)}


def learned(
    model: Dynamics,
    x: Tensor,
    mask: Tensor | None,
    method: str,
    options: argparse.Namespace,
    generator: Generator,
) -> LearnedDynamics:
    if mask is None:
        return learn_dynamics(model, x, steps=2, training=Training("gauss-newton", 100))
    solver = Variational("smoother", strict=False) if method == "em" else None
    if method == "from truth":
        return from_truth(model, x, mask, options.rounds)
    return learn_dynamics(
        model,
        x,
        mask,
        VARIANCE**0.5,
        2,
        options.rounds,
        options.members,
        solver=solver,
        generator=generator,
        progress=lambda i, v: print(i, round(v, 3), flush=True),
        method=method,
    )


def from_truth(model: Dynamics, x: Tensor, mask: Tensor, rounds: int) -> LearnedDynamics:
    """Returns what scoring makes of the true law, with errors of 3 % of the climate at first."""
    data = Record(x, mask, VARIANCE**0.5)
    _, covariance = data.climate()
    scoring = Scoring(data, Training())
    state = scoring.start(model, 2)
    fit_forecasts(model, on_attractor(Generator().manual_seed(5), 1, 60.0), training=Training())
    state.noise = torch.diag(1e-3 * covariance.diagonal())
    while scoring.run(state) and len(state.log_likelihoods) < rounds:
        print(len(state.log_likelihoods), round(state.log_likelihoods[-1], 3), flush=True)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose model and data hold this")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = Generator().manual_seed(100 + options.seed)
    test = on_attractor(generator, 200, max(LEADS))
    starts, others = (on_attractor(generator, 40, 0.0)[:, 0] for _ in range(2))
    true = cloud(Lorenz63(DT), others)
    head = {"model": "truth, step .02", "data": "", "rounds": 0, "seconds": 0.0}
    rows: list[Row] = [head | judged(Lorenz63(DT), test, starts, true)]
    print(rows[-1], flush=True)
    for data in ("clean", "noisy", "gappy"):
        methods = ("regression",) if data == "clean" else ("scoring", "em", "from truth")
        for name, method in itertools.product(MODELS, methods):
            if options.only not in f"{name} {data} {method}":
                continue
            generator = Generator().manual_seed(options.seed)
            x, mask = record(data, generator)
            model, begin = MODELS[name](generator), time.perf_counter()
            state = learned(model, x, mask, method, options, generator)
            head = {
                "model": name,
                "data": data,
                "method": method,
                "rounds": len(state.log_likelihoods),
                "seconds": time.perf_counter() - begin,
                "log_likelihood": max(state.log_likelihoods, default=float("nan")),
            }
            rows.append(head | judged(model, test, starts, true))
            print(rows[-1], flush=True)
    finish("Learned models of Lorenz 63", "learned_lorenz63", rows)


if __name__ == "__main__":
    main()
