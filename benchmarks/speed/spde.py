"""Fields given by equations, as they grow: time, memory, and the same by others in the same run.

In space, alpha = 2 in two dimensions; in space and time, advection and diffusion that vary, with a
noise of color 1, or white as in the reference implementation; one node in twenty is observed.
Beside them gstlearn's SPDE on the same data and covariance, on a lattice of about as many nodes,
and our dense `Kriging` at the number of data where they cross. Each size runs in a process of its
own, for its peak of memory. The processors' time is told too: where others use the machine it says
more than that of the wall.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import matplotlib.pyplot as plt
import numpy as np
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import torch

from collections.abc import Callable
from pathlib import Path
from torch import Tensor
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import RESULTS, finish

import matheron as mt

from matheron.priors.markov import MarkovPrior
from matheron.priors.spde import PerNode

THREADS, LENGTHSCALE, NOISE, SHARE = 2, 20.0, 0.1, 20
DAYS, SCALE, MEMORY = 9, 10.0, 5.0
PATIENCE, PEER_STD = 900, {"cholesky": 62, "iterative": 1000}
Row = dict[str, object]


def clock(what: str, run: Callable[[], Any], times: int = 1, **more: object) -> tuple[Any, Row]:
    """Returns the last result, and a row of the median times."""
    taken = []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        result = run()
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processors = (statistics.median(v) for v in zip(*taken, strict=True))
    return result, {"what": what, "wall_s": wall, "cpu_s": processors, **more}


def square(side: int, **more: Any) -> mt.Grid:
    axis = torch.arange(side, dtype=torch.float64)
    return mt.Grid(**more, y=axis, x=axis)


def seen_nodes(grid: mt.Grid, count: int, generator: torch.Generator) -> tuple[Tensor, mt.Points]:
    where = torch.randperm(len(grid), generator=generator)[:count]
    return where, grid.points[where]


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + NOISE * torch.randn(x.shape, dtype=torch.float64, generator=generator)


def posterior_rows(prior: MarkovPrior, seen: Any, y: Tensor, members: int) -> tuple[Any, list]:
    """Clocks what a map takes, from the data: conditioning, mean, exact std, members."""
    generator = torch.Generator().manual_seed(1)
    law, made = clock("condition: order and factor", lambda: mt.SparseCholesky()(prior, seen)(y))
    mean, first = clock("mean", lambda: law.mean)
    std, second = clock("exact std", lambda: law.std())
    drawn, third = clock(f"{members} conditional", lambda: law.sample(members, generator))
    rows = [made, first, second, third]
    error = ((drawn - mean) / std).square().mean().sqrt().item()
    third["note"] = f"their spread over the std {error:.3f}"
    total = {k: sum(float(str(r[k])) for r in rows) for k in ("wall_s", "cpu_s")}
    return (mean, std), [*rows, {"what": "all of it", **total}]


def spatial(side: int, folder: Path) -> list[Row]:
    """Draws a field, and maps it from one node in twenty; leaves data and map for the peer."""
    generator = torch.Generator().manual_seed(side)
    grid = square(side)
    prior, built = clock("lattice", lambda: mt.WhittleMatern(grid, LENGTHSCALE))
    truth, drawn = clock("1 unconditional", lambda: prior.sample(1, generator)[0])
    where, points = seen_nodes(grid, len(grid) // SHARE, generator)
    y = noisy(truth[where], generator)
    seen = mt.PointObservation(grid, points, NOISE)
    (mean, std), rows = posterior_rows(prior, seen, y, 1)
    z = ((mean - truth) / std).square().mean().sqrt().item()
    rows[1]["note"] = f"its error over the exact std {z:.3f}"
    tables = {"coords": points.coords, "y": y, "mean": mean, "std": std}
    np.savez(folder / f"spatial{side}.npz", **{k: v.numpy() for k, v in tables.items()})
    return unknowns(prior, [built, drawn, *rows])


def unknowns(prior: MarkovPrior, rows: list[Row]) -> list[Row]:
    return [{"unknowns": len(prior.places()), **row} for row in rows]


def gyres(grid: mt.Grid) -> tuple[Tensor, Tensor]:
    """Returns a velocity without divergence, and diffusivities that turn with the place."""
    y, x = (grid.points.coords.mT / 25).unbind()
    speed = SCALE / MEMORY
    m = torch.stack([-speed * y.sin() * x.cos(), speed * y.cos() * x.sin()], dim=-1)
    angle = (x + y) / 2
    along = torch.stack([angle.sin(), angle.cos()], dim=-1)
    level, eye = SCALE**2 / (2 * MEMORY), torch.eye(2, dtype=torch.float64)
    H = level * (0.5 * eye + 1.5 * along[:, :, None] * along[:, None, :])
    return m, H


def moving(side: int, days: int, white: bool) -> tuple[mt.Grid, mt.AdvectionDiffusion]:
    """Returns a field that is carried; with a white noise its precision has fewer entries."""
    grid = square(side, time=torch.arange(days, dtype=torch.float64))
    m, H = gyres(square(side))
    noise = {"color": 0, "tau": torch.full((side**2,), 10.0).double()} if white else {}
    return grid, mt.AdvectionDiffusion(grid, SCALE, MEMORY, velocity=m, diffusivity=H, **noise)


def spacetime(side: int, days: int, members: int, white: bool = False) -> list[Row]:
    """Clocks a map of a field that is carried, and its ensembles."""
    generator = torch.Generator().manual_seed(side)
    (grid, prior), built = clock("lattice", lambda: moving(side, days, white))
    draw = lambda: prior.sample(members, generator)
    fields, drawn = clock(f"{members} unconditional", draw)
    nominal = "" if white else ", nominal 1"
    drawn["note"] = f"their std {fields.std().item():.3f}{nominal}"
    where, points = seen_nodes(grid, len(grid) // SHARE, generator)
    y, truth = noisy(fields[0, where], generator), fields[0].clone()
    del fields
    seen = mt.PointObservation(grid, points, NOISE)
    (mean, std), rows = posterior_rows(prior, seen, y, members)
    rows[1]["note"] = f"its error over the exact std {error(mean - truth, std):.3f}"
    return unknowns(prior, [built, drawn, *rows])


def error(difference: Tensor, std: Tensor) -> float:
    return (difference / std).square().mean().sqrt().item()


def gradient(side: int) -> list[Row]:
    """Clocks the likelihood, and its gradient in a kappa for each node."""
    generator = torch.Generator().manual_seed(side)
    grid = square(side)
    truth = mt.WhittleMatern(grid, LENGTHSCALE).sample(1, generator)[0]
    where, points = seen_nodes(grid, len(grid) // SHARE, generator)
    y = noisy(truth[where], generator)
    seen = mt.PointObservation(grid, points, NOISE)
    prior = mt.WhittleMatern(grid, kappa=PerNode(grid, math.sqrt(2) / LENGTHSCALE))
    likelihood = mt.SparseCholesky().likelihood(prior, seen, y)
    free = [p for p in prior.parameters() if p.requires_grad]

    def slope() -> tuple[Tensor, ...]:
        return torch.autograd.grad(likelihood.value() - prior.penalty(), free)

    count = sum(p.numel() for p in free)
    _, first = clock("value and gradient, the first", slope)
    with torch.no_grad():
        _, value = clock("value", likelihood.value, 3)
    _, both = clock("value and gradient", slope, 3, bar_s=2.0)
    return unknowns(prior, [first, value, both | {"note": f"in {count} parameters"}])


def dense(side: int) -> list[Row]:
    """Maps a square from one node in twenty, with a dense matrix and with a sparse one."""
    generator = torch.Generator().manual_seed(side)
    grid = square(side)
    markov = mt.WhittleMatern(grid, LENGTHSCALE)
    where, points = seen_nodes(grid, len(grid) // SHARE, generator)
    y = noisy(markov.sample(1, generator)[0, where], generator)
    seen = mt.PointObservation(grid, points, NOISE)
    gaussian = mt.GaussianProcess(mt.Matern(1.0, 1.0, LENGTHSCALE), grid)

    def chart(solver: Any, prior: Any) -> tuple[Tensor, Tensor]:
        law = solver(prior, seen)(y)
        return law.mean, law.std()

    a, by_factor = clock(
        "mean and std, SparseCholesky", lambda: chart(mt.SparseCholesky(), markov)
    )
    b, by_matrix = clock("mean and std, dense Kriging", lambda: chart(mt.Kriging(), gaussian))
    apart = error(a[0] - b[0], b[1])
    by_matrix["note"] = f"means apart by {apart:.4f} std, stds by {error(a[1] - b[1], b[1]):.4f}"
    return unknowns(markov, [by_factor, by_matrix])


def peer(side: int, method: str, folder: Path) -> list[Row]:
    """Maps and simulates the same data by gstlearn, on a lattice of about as many nodes."""
    import gstlearn as gl

    data = np.load(folder / f"spatial{side}.npz")
    scale = LENGTHSCALE / math.sqrt(2)
    law = {"type": gl.ECov.MATERN, "range": scale, "sill": 1.0, "param": 1.0}
    model = gl.Model.createFromParam(**law, flagRange=False)
    model.addCovFromParam(type=gl.ECov.NUGGET, range=0, sill=NOISE**2)
    given = gl.Db.create()
    given["x"], given["y"], given["z"] = data["coords"][:, 1], data["coords"][:, 0], data["y"]
    given.setLocators(["x", "y"], gl.ELoc.X)
    given.setLocators(["z"], gl.ELoc.Z)
    chart = gl.DbGrid.create([side, side], [1.0, 1.0], [0.0, 0.0])
    margin = round(LENGTHSCALE)
    lattice = [side + 2 * margin] * 2, [1.0, 1.0], [-float(margin)] * 2
    mesh = gl.MeshETurbo(*lattice, [], False)  # a name keeps it: the list of meshes does not
    meshes = gl.VectorMeshes([mesh])
    factor = int(method == "cholesky")

    def kriging(std: bool) -> Any:
        found = gl.krigingSPDE(given, chart, model, True, std, factor, meshes)
        name = next(n for n in reversed(chart.getAllNames()) if "stdev" in n or not std)
        return found, np.asarray(chart[name])

    def drawn() -> Any:
        return gl.simulateSPDE(given, chart, model, 1, factor, meshes, None, meshes)

    (_, mean), first = clock("mean", lambda: kriging(False))
    apart = error(*(torch.as_tensor(v) for v in (mean - data["mean"], data["std"])))
    first["note"] = f"apart from ours by {apart:.4f} std"
    _, third = clock("1 conditional", drawn)
    rows = [first, third]
    if side <= PEER_STD[method]:  # by a factor: a solution for each target, or by a few draws
        (_, std), second = clock("mean and std", lambda: kriging(True))
        ratio = std / data["std"]
        second["note"] = f"its std over the exact one {ratio.mean():.3f} +- {ratio.std():.3f}"
        rows.insert(1, second)
    return [{"unknowns": (side + 2 * margin) ** 2, **row} for row in rows]


TASKS: dict[str, Callable[..., list[Row]]] = {
    "spatial": spatial,
    "spacetime": lambda side, folder: spacetime(side, DAYS, 100),
    "spacetime, white": lambda side, folder: spacetime(side, DAYS, 100, white=True),
    "ensemble": lambda side, folder: spacetime(side, 5, 100),
    "gradient": lambda side, folder: gradient(side),
    "dense": lambda side, folder: dense(side),
    "gstlearn, cholesky": lambda side, folder: peer(side, "cholesky", folder),
    "gstlearn, iterative": lambda side, folder: peer(side, "iterative", folder),
}
SIZES = {
    "spatial": (62, 125, 250, 500, 1000),
    "spacetime": (50, 100, 140),
    "spacetime, white": (50, 100, 200),
    "ensemble": (120,),
    "gradient": (300,),
    "dense": (10, 20, 40, 80, 120, 160, 200),
    "gstlearn, cholesky": (62, 250, 500, 1000),
    "gstlearn, iterative": (62, 250, 500, 1000),
}
QUICK = {"spatial": (125, 250), "spacetime": (50,), "dense": (20, 40)}


def work(task: str, size: int, folder: Path) -> list[Row]:
    """Runs one size of one task; kernels are compiled before, on a small one."""
    torch.set_num_threads(THREADS)
    if not task.startswith("gstlearn"):
        TASKS[task](16, folder)
    load = os.getloadavg()[0]
    rows = TASKS[task](size, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append({"what": "peak memory, GiB", "wall_s": peak, "note": "of the whole process"})
    return [{"task": task, "size": size, **row, "load": load} for row in rows]


def apart(task: str, size: int, folder: Path) -> list[Row]:
    """Runs one size of one task in a process of its own."""
    out = folder / "rows.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--task", task, "--size", str(size), "--out", str(out)]
    try:
        done = subprocess.run(command, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return [{"task": task, "size": size, "what": f"not done in {PATIENCE} s"}]
    if done.returncode:
        return [{"task": task, "size": size, "what": f"failed with code {done.returncode}"}]
    return json.loads(out.read_text())


def picture(rows: list[Row], path: Path) -> None:
    """Draws the cost per unknown as fields grow, and that of dense and sparse matrices."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    styles = {"spatial": "-o", "spacetime": "--s", "spacetime, white": ":^"}
    shown = {"condition: order and factor": "condition", "exact std": "exact std"}
    for task, style in styles.items():
        for k, (what, name) in enumerate(shown.items()):
            part = [r for r in rows if r["task"] == task and r["what"] == what]
            sizes = [int(str(r["unknowns"])) for r in part]
            cost = [1e6 * float(str(r["wall_s"])) / n for r, n in zip(part, sizes, strict=True)]
            left.loglog(sizes, cost, style, color=f"C{k}", label=f"{name}, {task}")
    left.set(xlabel="unknowns", ylabel="microseconds per unknown", title="As the field grows")
    for what in ("SparseCholesky", "dense Kriging"):
        part = [r for r in rows if r["what"] == f"mean and std, {what}"]
        seconds = [float(str(r["wall_s"])) for r in part]
        right.loglog([int(str(r["size"])) ** 2 for r in part], seconds, "-o", label=what)
    right.set(xlabel="nodes, one in twenty observed", ylabel="seconds", title="Mean and std")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=2)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Runs the tasks, one size after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--only", nargs="+", choices=list(TASKS), help="some of the tasks")
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help="this size only")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        given.out.write_text(json.dumps(work(given.task, given.size, given.out.parent)))
        return
    sizes = QUICK if given.quick else SIZES
    known = importlib.util.find_spec("gstlearn") is not None
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in given.only or sizes:
            if task.startswith("gstlearn") and not known:
                continue
            for size in (given.size,) if given.size else sizes.get(task, SIZES[task]):
                new = apart(task, size, Path(folder))
                finish(f"{task}, {size}, {THREADS} threads", "spde", new)
                rows += new
    if not given.quick and not given.only:
        picture(rows, RESULTS / "spde_size.png")


if __name__ == "__main__":
    main()
