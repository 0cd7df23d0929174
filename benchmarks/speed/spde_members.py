"""Members of a field whose parameters vary: what they cost, against the size of the grid.

Fields of 15 days are drawn from ``AugmentedSPDE``, a tenth of the nodes are seen, and 200 members
are drawn from the exact law given the parameters: the precision, its factor, the mean, the draws.
The factor is in double or in single precision: the mean is the same, and ``nats`` is what all the
nodes of a member together tell of its factor. Each row is from a process of its own, what it calls
compiled before; memory is the largest of that process. The lattice ends with the domain, without a
margin. ``again`` is the mean of other data with other parameters: the order of elimination is then
known. ``mean`` counts the factor too; ``of cores`` is the time of all the threads, which other
work on the machine moves less. ``exponent`` is that of the time of cores against the nodes, from
the size before.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import time
import torch

from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.linalg.cholesky import warm_up
from matheron.priors import AugmentedSPDE
from matheron.priors.spde import Lattice

Row = dict[str, object]


def law(side: int, days: int, color: int) -> AugmentedSPDE:
    """Returns the law of a field and of its parameters."""
    axis = torch.arange(float(side))
    grid = mt.Grid(time=torch.arange(float(days)), y=axis, x=axis)
    place = mt.Grid(y=axis, x=axis)
    known = {"lengthscale": 8.0, "timescale": 8.0, "smoothness": 30.0, "every": 8}
    return AugmentedSPDE(grid, **known, color=color, lattice=Lattice(place, cross=True))


@torch.no_grad()
def conditioned(prior: AugmentedSPDE, precision: str, members: int) -> Row:
    """Returns the times of a law, from its parameters to its members."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(len(prior.coarse), prior.channels, generator=generator).double()
    theta = (prior.white @ z).mT
    n, times = len(prior.domain), [(time.perf_counter(), time.process_time())]
    lap = lambda: times.append((time.perf_counter(), time.process_time()))
    x = prior.given(theta).sample(1, generator)[0]
    lap()
    seen = mt.GriddedObservation(prior.domain, torch.rand(n, generator=generator) < 0.1, 0.1)
    y, solver = seen.sample(x, generator), mt.SparseCholesky(precision=precision)
    lap()
    conditional = solver(prior.given(theta), seen)
    lap()
    posterior = conditional(y)
    error = (posterior.mean - x).square().mean().sqrt().item()
    lap()
    found = posterior.sample(members, generator)
    lap()
    spread, told = found.std(dim=0).square().mean().sqrt().item(), posterior.info
    work = conditional.engine.analysis
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    del conditional, posterior, found
    lap()
    _ = solver(prior.given(0.5 * theta), seen)(2 * y).mean
    lap()
    first, _, factor, mean, drawn, _, again = (b[0] - a[0] for a, b in pairwise(times))
    return {
        "draw of the prior (s)": first,
        "factor (s)": factor,
        "mean (s)": factor + mean,
        f"{members} members (s)": drawn,
        "in all (s)": factor + mean + drawn,
        "again (s)": again,
        "in all, of cores (s)": times[5][1] - times[2][1],
        "microseconds per node": 1e6 * (factor + mean + drawn) / n,
        "GiB": peak,
        "operations": work.operations,
        "entries": work.entries,
        "nats": told.get("information", 0.0),
        "rmse": error,
        "spread": spread,
    }


def measured(side: int, days: int, precision: str, members: int, color: int, threads: int) -> Row:
    """Returns the row of a size, and of a precision of the factor."""
    torch.set_num_threads(threads)
    warm_up()
    conditioned(law(8, 3, color), precision, 8)
    prior = law(side, days, color)
    row = {"side": side, "days": days, "nodes": len(prior.domain), "color": color}
    return row | {"precision": precision} | conditioned(prior, precision, members)


def exponent(row: Row, before: list[Row]) -> float:
    """Returns the growth of the time since the last row of the same precision."""
    same = [r for r in before if r["precision"] == row["precision"]]
    if not same or same[-1]["nodes"] == row["nodes"]:
        return math.nan
    ratio = lambda name: math.log(row[name] / same[-1][name])  # type: ignore[operator]
    return ratio("in all, of cores (s)") / ratio("nodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 48, 64, 96, 128])
    parser.add_argument("--days", type=int, nargs="+", default=[15])
    parser.add_argument("--precisions", nargs="+", default=["double", "single"])
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--color", type=int, default=1, help="of the noise in space")
    parser.add_argument("--threads", type=int, default=2)
    told = parser.parse_args()
    rows: list[Row] = []
    sizes = [(side, days, p) for days in told.days for side in told.sides for p in told.precisions]
    for size in sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measured, (*size, told.members, told.color, told.threads))
        rows.append(row | {"exponent": exponent(row, rows)})
        print(rows[-1], flush=True)
    finish(f"{told.members} members of some days, exactly", "spde_members", rows)


if __name__ == "__main__":
    main()
