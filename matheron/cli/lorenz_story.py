r"""The story of a chaotic model: simulate it, see it through noise, reconstruct it, score."""

from __future__ import annotations

__all__ = ["tell_lorenz63"]

import contextlib
import json
import os
import pandas as pd
import shutil
import tempfile
import torch

from collections.abc import Iterator
from jaxtyping import Bool, Float
from pathlib import Path
from torch import Generator, Tensor

from .border import say, working
from .demonstrate import demo_folder
from ..data import write_table
from ..domain import Grid
from ..dynamics import Lorenz63
from ..dynamics.networks import BilinearNetwork
from ..fit import maximum_likelihood
from ..fit.dynamics import learn_dynamics
from ..kernels import Matern
from ..metrics import coverage_bounds, crps_ensemble, ensemble_bounds, rmse
from ..observations import GriddedObservation
from ..plots.phase import phase_space, time_series
from ..posterior import Posterior
from ..priors import GaussianProcess, Markovian, StrongConstraint, WeakConstraint
from ..solvers import EnsembleKalman, Kriging, Solver, Variational

STEPS, EVERY, TIMES = 4, 2, 200
"""Steps of .01 between the times of the grid, times between data, and their number."""
NOISE, MEMBERS, PAST = 2**0.5, 40, 10
ROUNDS, DRAWS = 15, 4
"""The rounds of learning, and the trajectories drawn in each."""
Ensembles = dict[str, Float[Tensor, "size t s"]]


class _Twin:
    r"""A true trajectory, noisy data of it, and earlier data of the same kind."""

    def __init__(self, generator: Generator) -> None:
        model = Lorenz63()
        start = model(model.initial(generator), 2000)
        path = model.trajectory(start, STEPS * (TIMES * (PAST + 1) - 1), every=STEPS)
        noise = torch.randn(path.shape, dtype=torch.float64, generator=generator)
        windows = path.reshape(PAST + 1, TIMES, 3)
        noisy = (path + NOISE * noise).reshape(windows.shape)
        self.truth, self.data, self.past = windows[-1], noisy[-1], noisy[:-1]
        self.times = 0.01 * STEPS * torch.arange(TIMES, dtype=torch.float64)
        self.grid = Grid(time=self.times, x=torch.arange(3, dtype=torch.float64))
        self.seen = torch.zeros(TIMES, 3, dtype=torch.bool)
        self.seen[::EVERY] = True
        self.observation = GriddedObservation(self.grid, self.seen.flatten(), NOISE)

    def start(self) -> tuple[Float[Tensor, " s"], Float[Tensor, "s s"]]:
        r"""Returns mean and covariance of the earlier data."""
        earlier = self.past[:, ::EVERY].flatten(0, 1)
        return earlier.mean(dim=0), torch.cov(earlier.mT)

    def members(
        self, solver: Solver, prior: Markovian, generator: Generator
    ) -> Float[Tensor, "size t s"]:
        posterior: Posterior = solver(prior, self.observation)(self.data.flatten())
        return posterior.sample(MEMBERS, generator).unflatten(-1, (TIMES, 3))


def _interpolated(twin: _Twin, generator: Generator) -> Float[Tensor, "size t s"]:
    r"""Returns members that know no model: a fitted Gaussian process for each component."""
    mean, variance = twin.start()[0], twin.start()[1].diagonal()
    grid, columns = Grid(time=twin.times), []
    for k in range(3):
        kernel = Matern(2.5, variance=variance[k].item(), lengthscale=0.3)
        kernel.log_variance.requires_grad_(False)  # that of the climate, which earlier data tell
        prior = GaussianProcess(kernel, grid)
        seen = GriddedObservation(grid, twin.seen[:, k], NOISE)
        y = twin.data[:, k] - mean[k]
        maximum_likelihood(prior, seen, y, solver=Kriging())
        columns.append(Kriging()(prior, seen)(y).sample(MEMBERS, generator) + mean[k])
    return torch.stack(columns, dim=-1)


def _learned(twin: _Twin, generator: Generator) -> tuple[WeakConstraint, float]:
    r"""Returns a prior whose model was learned from the earlier data, and its mean error."""
    model = BilinearNetwork(dt=0.02, generator=generator)
    mask = twin.seen.expand(PAST, TIMES, 3)
    learned = learn_dynamics(
        model,
        twin.past,
        mask,
        NOISE,
        steps=STEPS // 2,
        iterations=ROUNDS,
        members=DRAWS,
        solver=Variational("smoother", strict=False),
        generator=generator,
    )
    return learned.prior(twin.grid), learned.noise.diagonal().mean().sqrt().item()


def _reconstructed(twin: _Twin, generator: Generator) -> Ensembles:
    start, found = twin.start(), {}
    with working("3. reconstruct without a model: a Gaussian process for each component"):
        found["Gaussian process"] = _interpolated(twin, generator)
    perfect = StrongConstraint(twin.grid, Lorenz63(), STEPS, start)
    with working("4. with the true model: ensemble Kalman filter and smoother"):
        for name, lag in (("EnKF", 0), ("EnKS", 25)):
            kalman = EnsembleKalman(MEMBERS, inflation=1.02, lag=lag)
            found[name] = twin.members(kalman, perfect, generator)
    small = torch.full((3,), 1e-3, dtype=torch.float64)
    weak = WeakConstraint(twin.grid, Lorenz63(), STEPS, start, small)
    smoother = Variational("smoother", strict=False)
    with working("5. with the true model, nearly: weak-constraint 4DVar"):
        found["weak 4DVar"] = twin.members(smoother, weak, generator)
    with working("6. with a model that is learned from earlier noisy data"):
        prior, error = _learned(twin, generator)
        found["learned model"] = twin.members(smoother, prior, generator)
    say(f"   its errors: {error:.2f} each {0.01 * STEPS:.2f}; those of the data: {NOISE:.2f}")
    return found


def scores_of(truth: Float[Tensor, "t s"], E: Float[Tensor, "size t s"]) -> dict[str, float]:
    r"""Returns what an ensemble is worth."""
    x, members = truth.flatten(), E.flatten(1)
    error = rmse(members.mean(dim=0), x).item()
    return {
        "rmse": error,
        "crps": crps_ensemble(members, x).item(),
        "coverage_90": coverage_bounds(*ensemble_bounds(members, 0.9), x).item(),
        "spread_skill": members.var(dim=0).mean().sqrt().item() / error,
    }


def _table(scores: dict[str, dict[str, float]]) -> str:
    names = ("rmse", "crps", "coverage_90", "spread_skill")
    lines = [f"{'':<18}" + "".join(f"{n:>14}" for n in names)]
    for method, found in scores.items():
        lines.append(f"{method:<18}" + "".join(f"{found[n]:>14.3f}" for n in names))
    return "\n".join(lines)


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    r"""Yields a folder whose files move into another once all of them are there."""
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    try:
        yield beside
        folder.mkdir(exist_ok=True)
        for file in sorted(beside.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(beside)


def _series(twin: _Twin, found: Ensembles) -> pd.DataFrame:
    columns = {"time": twin.times}
    for k, name in enumerate("xyz"):
        columns[f"{name}_true"] = twin.truth[:, k]
        columns[f"{name}_data"] = twin.data[:, k].where(twin.seen[:, k], torch.nan)
        for method, E in found.items():
            label = method.replace(" ", "_").lower()
            columns[f"{name}_{label}"] = E[..., k].mean(dim=0)
            columns[f"{name}_{label}_std"] = E[..., k].std(dim=0)
    return pd.DataFrame({k: v.numpy() for k, v in columns.items()})


def _draw(folder: Path, twin: _Twin, found: Ensembles) -> None:
    seen: Bool[Tensor, "t s"] = twin.seen
    phase_space(twin.truth, found, twin.data, seen).savefig(folder / "phase_space.png", dpi=130)
    few = {name: found[name] for name in ("Gaussian process", "weak 4DVar", "learned model")}
    figure = time_series(twin.times, twin.truth, few, twin.data, seen)
    figure.savefig(folder / "time_series.png", dpi=130)


def tell_lorenz63(output: Path, seed: int = 0) -> None:
    r"""Simulates Lorenz 63, reconstructs it in five ways, scores them, into a folder."""
    folder, generator = demo_folder(output), torch.Generator().manual_seed(seed)
    duration = 0.01 * STEPS * TIMES
    say(f"1. simulate Lorenz 63 for {duration:g} units of time, and {PAST} times as long before")
    twin = _Twin(generator)
    say(f"2. observe all of it every {EVERY * STEPS} steps, with noise of variance 2")
    found = _reconstructed(twin, generator)
    scores = {name: scores_of(twin.truth, E) for name, E in found.items()}
    print(_table(scores))
    with _whole(folder) as beside, working("7. draw the attractor and the series"):
        (beside / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
        write_table(_series(twin, found), beside / "series.csv")
        _draw(beside, twin, found)
    say(f"done: see {folder}/phase_space.png and {folder}/time_series.png")
