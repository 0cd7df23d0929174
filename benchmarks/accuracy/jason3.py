"""Winds along the tracks of Jason-3, over the whole globe: a sphere against a map of degrees.

Blocks of the sphere are held out in turn, with all their times; the folds are the same for both
models, and know of neither seam. Blocks of 1000 km are about as wide as the gaps that six days of
tracks leave at the equator; those of 500 km are within them. Both models are the product of an
exponential in time and a Matern of free smoothness in space, with a nugget and a constant mean,
fitted by the same Vecchia likelihood on the same training data. The sphere has one lengthscale
in space (chords, in metres); the map of degrees has one per axis, one more parameter.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import torch
import warnings

from collections.abc import Callable
from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from harness import finish, real_data

import matheron as mt

from matheron.kernels import Kernel
from matheron.metrics import summary

DAY, FOLDS, NEIGHBORS = 86_400.0, 5, 20
Law = tuple[Tensor, Tensor]


def read(metric: str) -> tuple[mt.Points, Tensor]:
    """Returns the tracks on the sphere, or on a plane whose axes are degrees."""
    table = pd.read_parquet(real_data("jason3_windspeed.parquet"))
    axes = {"time": table["time"] / DAY, "lat": table["lat"], "lon": table["lon"]}
    given = {k: torch.as_tensor(v.to_numpy(), dtype=torch.float64) for k, v in axes.items()}
    values = torch.as_tensor(table["windspeed"].to_numpy(), dtype=torch.float64)
    return mt.Points(**given, metric=metric), values


def over_space(variance: float, lengthscale: float | tuple[float, float]) -> Kernel:
    duration = mt.Matern(0.5, 1.0, 1.0, axes="time")
    duration.log_variance.requires_grad_(False)  # that in space says it
    space = mt.Matern(0.7, variance, lengthscale, axes="space", learn_nu=True)
    return mt.separable(duration, space)


MODELS: dict[str, tuple[str, Callable[[float], Kernel]]] = {
    "sphere": ("sphere", lambda v: over_space(v, 1e6)),
    "degrees, per axis": ("plane", lambda v: over_space(v, (9.0, 10.0))),
}


def predict(
    make: Callable[[float], Kernel], points: mt.Points, y: Tensor, out: Tensor
) -> tuple[Law, mt.GaussianProcess]:
    """Fits to the data that are kept, and predicts those held out, noise included."""
    targets, kept = points[out], y[~out]
    prior = mt.GaussianProcess(make(kept.var().item()), targets, trend="1")
    seen = mt.PointObservation(targets, points[~out], 0.7, learn_noise=True)
    mt.fit.maximum_likelihood(prior, seen, kept, mt.Vecchia(NEIGHBORS), steps=15, refresh=2)
    posterior = mt.Vecchia(NEIGHBORS, 2 * NEIGHBORS)(prior, seen)(kept)
    noise = seen.noise_variance[0].detach()
    return (posterior.mean, (posterior.std().square() + noise).sqrt()), prior


def cross_validate(name: str, size: float, fold: Tensor) -> tuple[dict[str, object], Law]:
    """Predicts each fold from the others."""
    metric, make = MODELS[name]
    points, y = read(metric)
    mean, std = torch.empty_like(y), torch.empty_like(y)
    start = time.perf_counter()
    for k in range(FOLDS):
        out = fold == k
        (mean[out], std[out]), prior = predict(make, points, y, out)
        print(f"{name}, {size / 1000:.0f} km, fold {k}\n{prior.summary()}", flush=True)
    return row(name, size, (mean, std), y, time.perf_counter() - start), (mean, std)


def row(name: str, size: float, law: Law, y: Tensor, seconds: float) -> dict[str, object]:
    scores = summary(*law, y)
    named = {k: scores[k] for k in ("rmse", "crps", "coverage_50", "coverage_90", "coverage_95")}
    lon = read("plane")[0].axis("lon")
    seam = (lon < 20) | (lon > 340)  # where the map of degrees is cut
    named["rmse_at_the_seam"] = (law[0] - y)[seam].square().mean().sqrt().item()
    named["rmse_elsewhere"] = (law[0] - y)[~seam].square().mean().sqrt().item()
    head = {"model": name, "block_km": size / 1000}
    return head | named | {"seconds": seconds, "load": os.getloadavg()[0]}


def gain(laws: dict[str, Law], size: float, fold: Tensor) -> dict[str, object]:
    """Returns by how many standard errors, over blocks, the sphere is the better one."""
    points, y = read("sphere")
    squares = [(laws[name][0] - y).square() for name in MODELS]
    _, block = cells(points, size)
    total = torch.zeros(int(block.max()) + 1, dtype=torch.float64)
    total = total.index_add(0, block, squares[1] - squares[0])
    error = (total - total.mean()).square().sum().sqrt()
    return {
        "model": "gain of the sphere, standard errors",
        "block_km": size / 1000,
        "rmse": (total.sum() / error).item(),
    }


def cells(points: mt.Points, size: float) -> tuple[Tensor, Tensor]:
    """Returns cubes of space, the units of dependence of the errors."""
    cube = (points.cartesian(points.center)[:, 1:] / size).floor()
    found = torch.unique(cube, dim=0, return_inverse=True)
    return found[0], found[1]


def main() -> None:
    """Compares both models at each size of block."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=float, nargs="+", default=[1000.0, 500.0], help="km")
    warnings.simplefilter("ignore", UserWarning)
    for size in (1000 * s for s in parser.parse_args().blocks):
        points, _ = read("sphere")
        fold = mt.fit.blocks(points, size, FOLDS, torch.Generator().manual_seed(0))
        found = {name: cross_validate(name, size, fold) for name in MODELS}
        rows = [r for r, _ in found.values()]
        rows.append(gain({name: law for name, (_, law) in found.items()}, size, fold))
        finish(f"Jason-3 winds, blocks of {size / 1000:.0f} km", "jason3", rows)


if __name__ == "__main__":
    main()
