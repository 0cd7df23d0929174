"""Members of a field whose parameters vary: what they cost, against the size of the grid.

Fields of 15 days are drawn from ``AugmentedSPDE``, a tenth of the nodes are seen, and 200 members
are drawn from the exact law given the parameters: the precision, its factor, the mean, the draws.
Each size runs in a process of its own; memory is the largest of that process. The lattice ends
with the domain, without a margin. ``again`` is the mean of other data with other parameters: the
order of elimination is then known.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.priors import AugmentedSPDE
from matheron.priors.spde import Lattice

DAYS = 15


def measured(side: int, members: int, color: int) -> dict[str, object]:
    """Returns the row of a size."""
    axis = torch.arange(float(side))
    grid = mt.Grid(time=torch.arange(float(DAYS)), y=axis, x=axis)
    place = mt.Grid(y=axis, x=axis)
    known = {"lengthscale": 8.0, "timescale": 8.0, "smoothness": 30.0, "every": 8}
    prior = AugmentedSPDE(grid, **known, color=color, lattice=Lattice(place, cross=True))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(len(prior.coarse), prior.channels, generator=generator).double()
    theta = (prior.white @ z).mT
    with torch.no_grad():
        start = time.perf_counter()
        law = prior.given(theta)
        x = law.sample(1, generator)[0]
        drawn = time.perf_counter() - start
        mask = torch.rand(len(grid), generator=generator) < 0.1
        seen = mt.GriddedObservation(grid, mask, 0.1)
        y = seen.sample(x, generator)
        start = time.perf_counter()
        posterior = mt.SparseCholesky()(prior.given(theta), seen)(y)
        error = (posterior.mean - x).square().mean().sqrt().item()
        conditioned = time.perf_counter() - start
        other = prior.given(0.5 * theta)
        start = time.perf_counter()
        _ = mt.SparseCholesky()(other, seen)(2 * y).mean
        again = time.perf_counter() - start
        start = time.perf_counter()
        found = posterior.sample(members, generator)
        sampled = time.perf_counter() - start
    return {
        "side": side,
        "days": DAYS,
        "nodes": len(grid),
        "color": color,
        "draw of the prior (s)": drawn,
        "mean (s)": conditioned,
        "again (s)": again,
        f"{members} members (s)": sampled,
        "in all (s)": conditioned + sampled,
        "microseconds per node": 1e6 * (conditioned + sampled) / len(grid),
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rmse": error,
        "spread": found.std(dim=0).square().mean().sqrt().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 48, 64, 96, 128])
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--color", type=int, default=1, help="of the noise in space")
    told = parser.parse_args()
    rows = []
    for side in told.sides:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measured, (side, told.members, told.color)))
        print(rows[-1], flush=True)
    finish(f"{told.members} members of {DAYS} days, exactly", "spde_members", rows)


if __name__ == "__main__":
    main()
