"""Known fields of parameters, recovered by likelihood: lengthscale, its anisotropy, velocity.

The truth is drawn from an equation whose kappa and H vary over 64 x 64 nodes, or whose velocity
varies over 32 x 32 nodes and 8 days. It is seen with noise through gaps, once or as 20 replicates.
Splines are fitted, with the weight of their penalty chosen by the likelihood of data that were
held out (no penalty at all, or the best stationary model, are among the choices); the truth is not
looked at. Errors and scores are those at nodes that were not seen, beside the best stationary fit.
"""

from __future__ import annotations

import argparse
import cmocean.cm
import io
import math
import multiprocessing
import numpy as np
import sys
import time
import torch
import warnings

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from matplotlib.figure import Figure
from pathlib import Path
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import RESULTS, finish, show

import matheron as mt

from matheron.metrics import crps_gaussian, log_score_gaussian
from matheron.plots import arrows, ellipses
from matheron.priors.spde import Spline, Streamfunction

DOUBLE = torch.float64
NOISE, REPLICATES = 0.1, 20
SEEN = {"space": 0.3, "space-time": 0.4}
Row = dict[str, object]
Weight = float | None
Fields = dict[str, Tensor]
Task = tuple[str, int, int]
Prior = mt.WhittleMatern | mt.AdvectionDiffusion


@dataclass
class Study:
    """A truth, the two models that are fitted, and what is read of them.

    Arguments:
        name: The name of the study.
        truth: The prior that the truth is drawn from.
        stationary: Returns the stationary model, at its first guess.
        varying: Returns the model with fields, from the stationary fit and a weight.
        fields: Returns the fields of a prior, as they are compared and drawn.
        block: The width of the blocks that are held out, in units of the axes.
        weights: The weights of the penalty to choose from.
    """

    name: str
    truth: Prior
    stationary: Callable[[], Prior]
    varying: Callable[[Prior, float], Prior]
    fields: Callable[[Prior], Fields]
    block: float
    weights: tuple[float, ...]


@dataclass
class Data:
    """What is seen, the data of every replicate, the truth, and the nodes that are not seen."""

    seen: mt.PointObservation
    y: Tensor
    x: Tensor
    unseen: Tensor


def unit(s: mt.Points, name: str, side: int) -> Tensor:
    return s.axis(name) / (side - 1)


def turning(angle: Tensor, ratio: float) -> Tensor:
    """Returns matrices of determinant one, longer by a ratio (squared) along an angle."""
    e = torch.stack([angle.sin(), angle.cos()], dim=-1)
    eye = torch.eye(2, dtype=DOUBLE)
    return eye / ratio + (ratio - 1 / ratio) * e[:, :, None] * e[:, None, :]


def square_of(prior: Prior) -> Tensor:
    """Returns H / kappa^2 of a stationary kernel."""
    scaled = prior.kernel.scaled(torch.eye(2, dtype=DOUBLE)).detach()
    return torch.linalg.inv(scaled @ scaled.mT)


def logarithm(H: Tensor) -> Tensor:
    levels, axes = torch.linalg.eigh(H)
    return (axes * levels.log()[:, None]) @ axes.mT


def split(square: Tensor) -> tuple[Tensor, Tensor]:
    """Returns kappa and H of determinant one: only H / kappa^2 is in the covariance."""
    kappa = torch.linalg.det(square) ** -0.25
    return kappa, square * kappa.square()[:, None, None]


def in_space(side: int) -> Study:
    """Kappa by a factor of 2.5 across the map, H that turns by half a turn along it."""
    axis = torch.arange(side, dtype=DOUBLE)
    grid = mt.Grid(y=axis, x=axis)
    s = grid.points
    wave = torch.sin(2 * math.pi * unit(s, "y", side))
    kappa = 2**0.5 / (7 * torch.exp(0.45 * wave))
    H = turning(math.pi * unit(s, "x", side), 2.0)

    def stationary() -> mt.WhittleMatern:
        return mt.WhittleMatern(grid, (6.0, 6.0), rotation=0.0)

    def varying(best: Prior, weight: float) -> mt.WhittleMatern:
        start, shape = split(square_of(best)[None])
        return mt.WhittleMatern(
            grid,
            variance=best.kernel.variance.item(),
            kappa=Spline(grid, 5, start[0], smoothness=weight),
            diffusivity=Spline(grid, 5, shape[0], (2, 2), smoothness=weight),
        )

    def fields(prior: Prior) -> Fields:
        assert isinstance(prior, mt.WhittleMatern)
        square = square_of(prior).expand(len(grid), 2, 2)
        if prior.kappa is not None and prior.diffusivity is not None:
            square = prior.diffusivity(s) / prior.kappa(s).square()[:, None, None]
        level, shape = split(square.detach())
        return {"log kappa": level.log(), "log H": logarithm(shape)}

    truth = mt.WhittleMatern(grid, kappa=kappa, diffusivity=H)
    return Study("space", truth, stationary, varying, fields, side / 8, (0.1, 1.0, 10.0))


def in_time(side: int, days: int) -> Study:
    """A vortex and a current beside it; lengthscale and timescale are unknown constants."""
    axis = torch.arange(side, dtype=DOUBLE)
    grid = mt.Grid(time=torch.arange(days, dtype=DOUBLE), y=axis, x=axis)
    space = mt.Grid(y=axis, x=axis).points
    y, x = (2 * unit(space, k, side) - 1 for k in ("y", "x"))
    swirl = 5.0 * torch.exp(-2 * (x.square() + y.square()))
    m = torch.stack([swirl * x, 0.8 - swirl * y], dim=-1)
    options = {"lengthscale": 5.0, "timescale": 12.0}

    def stationary() -> mt.AdvectionDiffusion:
        return mt.AdvectionDiffusion(grid, 4.0, 8.0, velocity=(0.0, 0.1), margin=1.5)

    def varying(best: Prior, weight: float) -> mt.AdvectionDiffusion:
        assert isinstance(best, mt.AdvectionDiffusion)
        flow = Streamfunction(grid, 5, scale=1.0, smoothness=weight)
        return mt.AdvectionDiffusion(
            grid,
            best.kernel.lengthscale.item(),
            best.timescale.item(),
            best.kernel.variance.item(),
            velocity=flow,
            margin=1.5,
        )

    def fields(prior: Prior) -> Fields:
        assert isinstance(prior, mt.AdvectionDiffusion)
        assert prior.velocity is not None
        return {"m": prior.velocity(space).detach()}

    truth = mt.AdvectionDiffusion(grid, velocity=m, **options)
    return Study("space-time", truth, stationary, varying, fields, side / 8, (0.3, 3.0))


def gaps(domain: mt.Grid, share: float, generator: torch.Generator) -> Tensor:
    """Returns which nodes are seen: there are holes as of clouds, and nodes lost at random."""
    axis = domain.axes["x"]
    clouds = mt.WhittleMatern(mt.Grid(y=axis, x=axis), len(axis) / 8)
    sky = clouds.sample(len(domain) // len(axis) ** 2, generator).detach().reshape(-1)
    open_ = min(1.0, 1.6 * share)
    kept = torch.rand(len(domain), dtype=DOUBLE, generator=generator) < share / open_
    return kept & (sky >= sky.quantile(1 - open_))


def draw(study: Study, size: int, share: float, seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    domain = study.truth.domain
    assert isinstance(domain, mt.Grid)
    x = study.truth.sample(size, generator).detach()
    mask = gaps(domain, share, generator)
    seen = mt.PointObservation(domain, domain.points[mask], NOISE, learn_noise=True)
    y = seen.sample(x, generator).detach()
    return Data(seen, y, x, ~mask)


def fresh(seen: mt.PointObservation, kept: Tensor | None = None) -> mt.PointObservation:
    points = seen.points if kept is None else seen.points[kept]
    return mt.PointObservation(seen.domain, points, NOISE, learn_noise=True)


def fit(prior: Prior, seen: mt.PointObservation, y: Tensor) -> Prior:
    data = y if len(y) > 1 else y[0]
    return mt.fit.maximum_likelihood(prior, seen, data, mt.SparseCholesky(), tolerance=0.3)


def fits(
    study: Study, seen: mt.PointObservation, y: Tensor, weights: Sequence[Weight]
) -> Iterator[tuple[Weight, Prior, mt.PointObservation]]:
    """Yields the fit with each weight, None for the stationary one, each with its noise."""
    base = fresh(seen)
    best = fit(study.stationary(), base, y)
    for weight in weights:
        noise = base if weight is None else fresh(seen)
        yield weight, best if weight is None else fit(study.varying(best, weight), noise, y), noise


def evidence(prior: Prior, seen: mt.PointObservation, y: Tensor) -> float:
    conditional = mt.SparseCholesky()(prior, seen)
    return sum(conditional(v).log_evidence.item() for v in y)


def held_out(study: Study, data: Data) -> dict[Weight, float]:
    """Returns the log-likelihood, per datum, of data that each fit was not shown.

    Of replicates a fourth of them is held out, of one realisation a fourth of the blocks.
    """
    weights = (None, *study.weights)
    if len(data.y) > 1:
        few = 3 * len(data.y) // 4
        shown, held = data.y[:few], data.y[few:]
        return {
            weight: evidence(prior, noise, held) / held.numel()
            for weight, prior, noise in fits(study, data.seen, shown, weights)
        }
    fold = mt.fit.blocks(data.seen.points, study.block, 4, torch.Generator().manual_seed(0))
    kept, found = fold > 0, {}
    y = data.y[:, kept]
    for weight, prior, noise in fits(study, fresh(data.seen, kept), y, weights):
        std = noise.noise_variance[0].item() ** 0.5
        every = mt.PointObservation(data.seen.domain, data.seen.points, std)
        gain = evidence(prior, every, data.y) - evidence(prior, noise, y)
        found[weight] = gain / int((~kept).sum())
    return found


def rms(error: Tensor) -> float:
    """Returns the root of the mean over nodes of the squared norm."""
    return error.square().reshape(len(error), -1).sum(dim=1).mean().sqrt().item()


def scores(prior: Prior, seen: mt.PointObservation, data: Data) -> Row:
    """Returns the scores at the nodes that were not seen, against the truth without noise."""
    conditional = mt.SparseCholesky()(prior, seen)
    std = conditional(data.y[0]).std()[data.unseen]
    mean, truth = conditional.estimate(data.y)[:, data.unseen], data.x[:, data.unseen]
    std = std.expand_as(mean)
    return {
        "rmse": (mean - truth).square().mean().sqrt().item(),
        "crps": crps_gaussian(mean, std, truth).mean().item(),
        "log score": log_score_gaussian(mean, std, truth).mean().item(),
    }


def compare(study: Study, data: Data, label: str, seed: int) -> tuple[list[Row], Fields]:
    """Fits both models; returns their rows, and the fields of the second."""
    start = time.perf_counter()
    trials = held_out(study, data)
    weight = max(trials, key=lambda k: trials[k])
    exact = study.fields(study.truth)
    rows: list[Row] = []
    found = exact
    share = f"{data.y.shape[1] / data.x.shape[1]:.2f}"
    models = fits(study, data.seen, data.y, (None, weight))
    for name, (use, prior, seen) in zip(("stationary", "fields"), models, strict=True):
        found = study.fields(prior)
        row: Row = {"study": study.name, "data": label, "seen": share, "seed": seed}
        row |= {"model": name, "weight": "none" if use is None else use}
        row |= {"held out": trials[use]} | {k: rms(v - exact[k]) for k, v in found.items()}
        rows.append(row | scores(prior, seen, data) | {"seconds": time.perf_counter() - start})
        start = time.perf_counter()
    tried = {"none" if k is None else k: round(v, 4) for k, v in trials.items()}
    print(f"{study.name}, {label}, seed {seed}: held out {tried}", flush=True)
    return rows, found


def sites(domain: mt.Grid, count: int) -> Tensor:
    """Returns regular nodes of the map, some in a row."""
    axis = domain.axes["x"]
    at = torch.linspace(0, len(axis) - 1, count + 2).round().long()[1:-1]
    return (at[:, None] * len(axis) + at).reshape(-1)


def picture(space: Study, moving: Study, found: dict[Task, Fields]) -> Figure:
    """Draws the truth, what one realisation tells, what replicates tell, and its error."""
    figure = Figure(figsize=(14, 8.6), layout="constrained")
    axes = figure.subplots(3, 4)
    for study, rows, title in ((space, axes[:2], "space"), (moving, axes[2:], "space-time")):
        laws = [study.fields(study.truth), found[title, 1, 0], found[title, REPLICATES, 0]]
        titles = ["truth", "from one realisation", f"from {REPLICATES} replicates"]
        if "m" in laws[0]:
            draw_arrows(rows[0], flat(study), [*(f["m"] for f in laws)], titles)
        else:
            draw_levels(figure, rows[0], flat(study), [f["log kappa"] for f in laws], titles)
            draw_ellipses(rows[1], flat(study), laws, titles)
    return figure


def flat(study: Study) -> mt.Grid:
    domain = study.truth.domain
    assert isinstance(domain, mt.Grid)
    return mt.Grid(y=domain.axes["y"], x=domain.axes["x"])


def draw_levels(
    figure: Figure, axes: np.ndarray, grid: mt.Grid, laws: list[Tensor], titles: list[str]
) -> None:
    low, high = laws[0].min().item(), laws[0].max().item()
    half = (high - low) / 2
    for ax, title, v in zip(axes, [*titles, "error"], [*laws, laws[2] - laws[0]], strict=True):
        scale = {"cmap": cmocean.cm.dense, "vmin": low, "vmax": high}
        if title == "error":
            scale = {"cmap": cmocean.cm.balance, "vmin": -half, "vmax": half}
        drawn = ax.imshow(v.reshape(grid.shape), origin="lower", **scale)
        ax.set_title(f"log kappa: {title}", fontsize="medium")
        figure.colorbar(drawn, ax=ax, shrink=0.75)


def draw_ellipses(axes: np.ndarray, grid: mt.Grid, laws: list[Fields], titles: list[str]) -> None:
    at = sites(grid, 8)
    for ax, title, law in zip(axes, titles, laws, strict=False):
        square = torch.linalg.matrix_exp(law["log H"])
        square = square * (2 * torch.exp(-2 * law["log kappa"]))[:, None, None]  # 2 nu H / kappa^2
        ellipses(grid, grid.points[at], square[at], ax, title=title)
    error = (laws[2]["log H"] - laws[0]["log H"]).square().sum(dim=(1, 2)).sqrt()
    mt.plots.field(grid, error, axes[3], title="size of the error of log H", kind="std")


def draw_arrows(axes: np.ndarray, grid: mt.Grid, laws: list[Tensor], titles: list[str]) -> None:
    at = sites(grid, 7)
    every = zip(axes, [*titles, "error"], [*laws, laws[2] - laws[0]], strict=True)
    for ax, title, m in every:
        arrows(grid, grid.points[at], m[at], ax, title=title, units="/day")


def save(figure: Figure, path: Path) -> None:
    """Writes a small image: 250 colours are enough."""
    image = io.BytesIO()
    figure.savefig(image, dpi=72)
    Image.open(image).convert("RGB").quantize(250).save(path, optimize=True)


def study_of(name: str, quick: bool) -> Study:
    if name == "space":
        return in_space(32 if quick else 64)
    return in_time(*((12, 4) if quick else (32, 8)))


def work(task: Task, quick: bool) -> tuple[Task, list[Row], Fields]:
    """Does one task, in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # constants of the stationary fit, not told well
    name, size, seed = task
    study = study_of(name, quick)
    label = "one realisation" if size == 1 else f"{size} replicates"
    rows, found = compare(study, draw(study, size, SEEN[name], seed), label, seed)
    return task, rows, found


def main() -> None:
    """Prints the tables and draws the maps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small maps, nothing recorded")
    parser.add_argument("--seeds", type=int, default=3, help="single realisations of the plane")
    options = parser.parse_args()
    quick = options.quick
    tasks = [("space-time", REPLICATES, 0), ("space-time", 1, 0), ("space", REPLICATES, 0)]
    tasks += [("space", 1, seed) for seed in range(1 if quick else options.seeds)]
    found: dict[Task, Fields] = {}
    rows: list[Row] = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for task, new, fields in pool.map(work, tasks, [quick] * len(tasks)):
            found[task] = fields
            rows += new
    title = "Fields of parameters, and scores at nodes not seen"
    if quick:
        show(title, rows)
    else:
        finish(title, "parameter_fields", rows)
        figure = picture(study_of("space", quick), study_of("space-time", quick), found)
        save(figure, RESULTS / "parameter_fields.png")


if __name__ == "__main__":
    main()
