"""Sea surface temperature under clouds: DINEOF and optimal interpolation on the Alboran Sea.

Ten daily maps, whose clouds hide from a tenth of the sea to most of it. Data are held out in two
ways: any points, and pieces of the clouds of one day laid over another. Optimal interpolation has
the Gaussian process that was chosen and fitted on a sample of the data that are left. DINEOF has
ten images only, of which the patterns must come: it is made for hundreds.
"""

from __future__ import annotations

import argparse
import sys
import time
import torch
import warnings

from collections.abc import Callable
from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr

from harness import finish, real_data

import matheron as mt

from matheron.metrics import summary
from matheron.priors.eof import EOF
from matheron.selection import choose
from matheron.solvers.dineof import DINEOF

Law = tuple[Tensor, Tensor, str]


def read(coarsen: int) -> tuple[mt.Grid, Tensor, Tensor]:
    """Returns the grid of the sea, the temperatures, and where they are seen."""
    with xr.open_dataset(real_data("alboran_sst_avhrr.nc")) as ds:
        ds = ds.isel(lat=slice(None, None, coarsen), lon=slice(None, None, coarsen)).load()
    sea = ds["mask"].values == 1
    grid = mt.Grid(
        time=ds["time"].values,
        lat=ds["lat"].values.astype(float),
        lon=ds["lon"].values.astype(float),
        mask=sea,
    )
    values = grid.flatten(torch.as_tensor(ds["SST"].values.astype(np.float64)))
    return grid, values, values.isfinite()


def points_held_out(seen: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Any of the data."""
    return seen & (torch.rand(seen.shape, generator=generator) < part)


def clouds_held_out(
    grid: mt.Grid, seen: Tensor, part: float, generator: torch.Generator, pieces: int = 20
) -> Tensor:
    """Pieces of the clouds of one day, laid over what is clear on another, far from its data."""
    clear = seen.reshape(grid.shape[0], -1)
    out, each = torch.zeros_like(clear), int(part * int(seen.sum()) / pieces)
    x = grid.points[torch.arange(clear.shape[1])].local()[:, 1:]
    while int(out.sum()) < part * int(seen.sum()):
        day, other = torch.randint(len(clear), (2,), generator=generator).tolist()
        under = torch.nonzero(clear[day] & ~clear[other] & ~out[day])[:, 0]
        size = min(each, len(under))
        if size == 0:
            continue
        middle = under[torch.randint(len(under), (1,), generator=generator)]
        near = (x[under] - x[middle]).square().sum(dim=1).topk(size, largest=False).indices
        out[day, under[near]] = True
    return out.flatten()


def by_patterns(hold_out: str, smoothing: float) -> Callable[[mt.Grid, Tensor, Tensor], Law]:
    """DINEOF, which reads its own gaps."""

    def predict(grid: mt.Grid, values: Tensor, kept: Tensor) -> Law:
        solver = DINEOF(hold_out=hold_out, smoothing=smoothing)
        observation = mt.GriddedObservation(grid, kept, noise_std=0.05)
        posterior = solver(EOF(grid), observation)(values)
        info = posterior.info
        std = (posterior.std().square() + info["error_variance"]).sqrt()
        return posterior.mean, std, f"{info['modes']} modes, redundancy {info['redundancy']:.0f}"

    return predict


def by_interpolation(grid: mt.Grid, values: Tensor, kept: Tensor, size: int = 3000) -> Law:
    """A Gaussian process: chosen on a sample of the data, given all of those that are near."""
    generator = torch.Generator().manual_seed(1)
    some = torch.nonzero(kept)[:, 0]
    some = some[torch.randperm(len(some), generator=generator)[:size]]
    points = grid.points
    choice = choose(grid, points[some], values[some], neighbors=20)
    noise = choice.observation.noise_variance.mean()
    seen = mt.PointObservation(grid, points[kept], noise.sqrt().item())
    posterior = mt.Vecchia(20, 40)(choice.prior, seen)(values[kept])
    std = (posterior.std().square() + noise).sqrt().detach()
    return posterior.mean, std, choice.structure


def main() -> None:
    """Holds out each kind of data, by each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coarsen", type=int, default=2, help="every so many sites")
    parser.add_argument("--part", type=float, default=0.1, help="the part of the data held out")
    parser.add_argument("--only", default="", help="the methods whose names hold this")
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    grid, values, seen = read(given.coarsen)
    generator = torch.Generator().manual_seed(0)
    held = {
        "points": points_held_out(seen, given.part, generator),
        "clouds": clouds_held_out(grid, seen, given.part, generator),
    }
    methods: dict[str, Callable[[mt.Grid, Tensor, Tensor], Law]] = {
        "DINEOF": by_patterns("clouds", 0.0),
        "DINEOF, smooth in time": by_patterns("clouds", 0.4),
        "GP, chosen": by_interpolation,
    }
    for kind, out in held.items():
        rows: list[dict[str, object]] = []
        for name, predict in methods.items():
            if given.only not in name:
                continue
            start = time.perf_counter()
            mean, std, how = predict(grid, values, seen & ~out)
            scores = summary(mean[out], std[out], values[out])
            rows.append(
                {
                    "held_out": kind,
                    "method": name,
                    "coarsen": given.coarsen,
                    "data": int((seen & ~out).sum()),
                    "scored": int(out.sum()),
                    "rmse": scores["rmse"],
                    "crps": scores["crps"],
                    "coverage_90": scores["coverage_90"],
                    "seconds": time.perf_counter() - start,
                    "how": how,
                }
            )
        finish(f"Alboran Sea, {kind} held out", "alboran", rows)


if __name__ == "__main__":
    main()
