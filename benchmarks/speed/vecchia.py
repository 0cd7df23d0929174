"""Vecchia side by side with gpboost: the same data, kernel, neighbours and threads, in one run.

Data are a Matern 3/2 field on the unit square, at scattered sites, with noise; the field is drawn
by the library. Each size runs in a process of its own, for its peak of memory. The likelihood is
compared on the same order and neighbours, so that both compute the same number; fits and
predictions are compared as each library does them, with its own order.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
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
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.linalg.vecchia import gaussian_nll, previous_neighbors, stored_along_curve
from matheron.metrics import log_score_gaussian, summary

NEIGHBORS, THREADS, TARGETS = 30, 2, 10_000
LENGTHSCALE, NOISE = 0.1, 0.3
PEER_SIZES = (10_000, 100_000)
LARGEST = 1_000_000
Row = dict[str, object]


class Clocked(NamedTuple):
    """Median times of the wall and of the processors, in seconds, and the last result."""

    wall: float
    processors: float
    result: Any


def turns(runs: dict[str, Callable[[], Any]], times: dict[str, int]) -> dict[str, Clocked]:
    """Clocks each library in turn, so that a load on the machine falls on both.

    On a machine that others use, the time of the processors tells more than that of the wall.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for i in range(max(times.values())):
        for name in (n for n in runs if i < times[n]):
            start = time.perf_counter(), time.process_time()
            results[name] = runs[name]()
            wall, processors = time.perf_counter() - start[0], time.process_time() - start[1]
            taken[name].append((wall, processors))
    found = {}
    for name, each in taken.items():
        wall, processors = (statistics.median(v) for v in zip(*each, strict=True))
        found[name] = Clocked(wall, processors, results[name])
    return found


def draw(points: mt.Points, seed: int) -> Tensor:
    """Draws the field: a datum far away says nothing, and leaves the law of the prior."""
    prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, LENGTHSCALE), points)
    seen = mt.PointObservation(points, mt.Points(x=[1e3], y=[1e3]), 1.0)
    nothing = torch.zeros(1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return mt.Vecchia(NEIGHBORS, NEIGHBORS)(prior, seen)(nothing).sample(1, generator)[0]


def simulate(size: int) -> tuple[mt.Points, Tensor, mt.Points, Tensor]:
    """Returns data, then new points with a noisy datum each, both in random order."""
    generator = torch.Generator().manual_seed(size)
    x = torch.rand(size + TARGETS, 2, dtype=torch.float64, generator=generator)
    points = mt.Points(x, ("y", "x"))
    noise = torch.randn(len(x), dtype=torch.float64, generator=generator)
    y = draw(points, size) + NOISE * noise
    return points[:size], y[:size], points[size:], y[size:]


def ours_fit(points: mt.Points, y: Tensor) -> tuple[mt.GaussianProcess, mt.PointObservation]:
    """Fits from the data alone: order, neighbours and their refreshing included."""
    variance = y.var().item()
    prior = mt.GaussianProcess(mt.Matern(1.5, variance, 0.25), points)
    seen = mt.PointObservation(points, points, 0.5 * math.sqrt(variance), learn_noise=True)
    return mt.fit.maximum_likelihood(prior, seen, y, mt.Vecchia(NEIGHBORS)), seen


def ours_predict(fitted: tuple, y: Tensor, targets: mt.Points) -> tuple[Tensor, Tensor]:
    prior, seen = fitted
    posterior = mt.Vecchia(NEIGHBORS)(prior.on(targets), seen)(y)
    noise = seen.noise_variance[0].detach()
    return posterior.mean, (posterior.std().square() + noise).sqrt()


def peer_model(x: Any, ordering: str) -> Any:
    import gpboost

    return gpboost.GPModel(
        gp_coords=x,
        cov_function="matern",
        cov_fct_shape=1.5,
        gp_approx="vecchia",
        num_neighbors=NEIGHBORS,
        vecchia_ordering=ordering,
        num_parallel_threads=THREADS,
        likelihood="gaussian",
    )


def peer_fit(x: Any, y: Any) -> Any:
    model = peer_model(x, "random")
    model.fit(y=y)
    return model


def peer_predict(model: Any, targets: mt.Points) -> tuple[Tensor, Tensor]:
    found = model.predict(
        gp_coords_pred=targets.coords.numpy(), predict_var=True, predict_response=True
    )
    mean, variance = (torch.as_tensor(found[k]) for k in ("mu", "var"))
    return mean, variance.sqrt()


def cost(points: mt.Points, y: Tensor) -> tuple[Callable[[], float], Callable[[], float]]:
    """Returns the likelihood, and the likelihood with the gradient in all parameters and in all
    coordinates, on the order of the data (stored along a curve, as the solver does).
    """
    kernel = mt.Matern(1.5, 1.0, LENGTHSCALE)
    table = previous_neighbors(points.coords, NEIGHBORS)
    order, near = stored_along_curve(torch.arange(len(points)), table, points.coords)
    x, y = points.coords[order].requires_grad_(True), y[order]
    noise = torch.full_like(y, NOISE**2, requires_grad=True)

    @torch.no_grad()
    def value() -> float:
        return gaussian_nll(kernel.terms(x), noise, y, near).item()

    def gradient() -> float:
        x.grad = noise.grad = None
        result = gaussian_nll(kernel.terms(x), noise, y, near)
        result.backward()
        return result.item()

    return value, gradient


def scores(law: tuple[Tensor, Tensor], truth: Tensor) -> dict[str, float]:
    found = summary(*law, truth)
    kept = {k: found[k] for k in ("rmse", "crps", "coverage_95")}
    return kept | {"log_score": log_score_gaussian(*law, truth).item()}


def likelihoods(points: mt.Points, y: Tensor, peer: bool, times: int) -> list[Row]:
    """Clocks the likelihood and its gradient."""
    value, gradient = cost(points, y)
    runs: dict[str, Callable[[], Any]] = {"ours": value}
    if peer:
        model, data = peer_model(points.coords.numpy(), "none"), y.numpy()
        at = torch.tensor([NOISE**2, 1.0, LENGTHSCALE], dtype=torch.float64).numpy()
        runs["gpboost"] = lambda: model.neg_log_likelihood(at, data)
    for run in [*runs.values(), gradient]:
        run()  # compiled, warm
    found = turns(runs, dict.fromkeys(runs, times))
    with_gradient = turns({"ours": gradient}, {"ours": times})
    rows = [row("likelihood", found), row("likelihood and all gradients", with_gradient)]
    if peer:
        a, b = found["ours"].result, found["gpboost"].result
        rows[0]["note"] = f"values {a:.6f} and {b:.6f}, apart by {abs(a / b - 1):.1e}"
        rows[1]["note"] = "in parameters, noises, coordinates; gpboost gives none of its own"
    return rows


def row(what: str, found: dict[str, Clocked]) -> Row:
    ours, peer = found["ours"], found.get("gpboost")
    result: Row = {"what": what, "ours_s": ours.wall}
    if peer is not None:
        result |= {"gpboost_s": peer.wall, "ratio": peer.wall / ours.wall}
    result["ours_cpu_s"] = ours.processors
    if peer is not None:
        ratio = peer.processors / ours.processors
        result |= {"gpboost_cpu_s": peer.processors, "ratio_cpu": ratio}
    return result | {"load": os.getloadavg()[0]}


def whole(
    data: tuple[mt.Points, Tensor, mt.Points, Tensor], peer: bool, times: dict[str, int]
) -> list[Row]:
    """Clocks a fit from the data, and a prediction; scores both on the same new data."""
    points, y, targets, truth = data
    runs: dict[str, Callable[[], Any]] = {"ours": lambda: ours_fit(points, y)}
    if peer:
        runs["gpboost"] = lambda: peer_fit(points.coords.numpy(), y.numpy())
    fits = turns(runs, times)
    fit_row = row("whole fit", fits)
    prior, seen = fits["ours"].result
    told = [seen.noise_variance[0].item(), prior.kernel.variance.item()]
    told.append(prior.kernel.lengthscale.item())
    fit_row["note"] = "ours " + " ".join(f"{v:.4f}" for v in told)
    predictions: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours_predict(fits["ours"].result, y, targets)
    }
    if peer:
        model = fits["gpboost"].result
        found = model.get_cov_pars(format_pandas=False)
        fit_row["note"] += ", gpboost " + " ".join(f"{float(v):.4f}" for v in found)
        predictions["gpboost"] = lambda: peer_predict(model, targets)
    laws = turns(predictions, dict.fromkeys(predictions, 1 if len(y) > 50_000 else 3))
    rows = [fit_row, row(f"prediction of {len(targets)}", laws)]
    scored = {name: scores(each.result, truth) for name, each in laws.items()}
    return rows + [
        {"what": f"held-out {k}", **{f"{name}_s": found[k] for name, found in scored.items()}}
        for k in scored["ours"]
    ]


def one_size(size: int, peer: bool) -> list[Row]:
    torch.set_num_threads(THREADS)
    data = simulate(size)
    times = 7 if size < 50_000 else (5 if size < 500_000 else 3)
    rows = likelihoods(data[0], data[1], peer, times)
    repeats = {10_000: {"ours": 3, "gpboost": 2}, 100_000: {"ours": 3, "gpboost": 1}}
    given = repeats.get(size, {"ours": 1})
    rows += whole(data, peer, given if peer else {"ours": given["ours"]})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append({"what": "peak memory, GiB", "ours_s": peak, "note": "of the whole process"})
    return [{"n": size, **r} for r in rows]


def apart(size: int, peer: bool) -> list[Row]:
    """Runs one size in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--size", str(size), "--out", str(out)]
        subprocess.run(command + ([] if peer else ["--alone"]), check=True)
        return json.loads(out.read_text())


def growth(rows: list[Row]) -> list[Row]:
    """Compares the growth of the processors' time with that of n log n."""
    found: list[Row] = []
    for what in ("likelihood", "likelihood and all gradients", "whole fit"):
        times = {int(str(r["n"])): float(str(r["ours_cpu_s"])) for r in rows if r["what"] == what}
        sizes = sorted(times)
        for a, b in itertools.pairwise(sizes):
            law = b * math.log(b) / (a * math.log(a))
            note = f"times {times[b] / times[a]:.1f}, n log n {law:.1f}"
            found.append({"n": b, "what": f"growth of {what}", "note": note})
    return found


def main() -> None:
    """Runs the sizes one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 000 data only")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help="without the peer")
    given = parser.parse_args()
    peer = not given.alone and importlib.util.find_spec("gpboost") is not None
    if given.size:
        given.out.write_text(json.dumps(one_size(given.size, peer)))
        return
    rows: list[Row] = []
    for size in PEER_SIZES[:1] if given.quick else (*PEER_SIZES, LARGEST):
        new = apart(size, peer and size in PEER_SIZES)
        finish(f"Vecchia, n = {size}, {NEIGHBORS} neighbours, {THREADS} threads", "vecchia", new)
        rows += new
    if len(rows) > len(new):
        finish("Growth", "vecchia", growth(rows))


if __name__ == "__main__":
    main()
