"""Lorenz-63 seen every 8 steps: strong-constraint 4DVar beside exact posterior means.

The protocol is that of the learned solvers (windows of 200 steps of .01, noise of variance 2, no
data in the first and last 10 steps), but for windows that are disjoint with a gap between them,
and a climate that comes from another run. The rule that stops looks at gradient and cost only.

Two oracles give exact posterior means, by weights of millions of draws: under the Gaussian prior
of 4DVar, and under the law of the attractor itself, whose draws are all the windows of long runs.
``over exact`` is the error over that of the first, less one, with the standard error of the
difference window by window.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

from collections.abc import Iterable, Iterator
from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import finish, show

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.metrics import coverage, crps_ensemble, crps_gaussian
from matheron.priors.dynamics import StrongConstraint
from matheron.solvers.controls import Cost, Tangent, control_of
from matheron.solvers.variational import Variational

STEPS, EVERY, VARIANCE, EDGE = 200, 8, 2.0, 10
SEEN = {"xyz": (0, 1, 2), "x": (0,)}
PART = 20_000
"""Draws at a time."""
Row = dict[str, object]


def run(steps: int, members: int, seed: int) -> Tensor:
    """Returns runs on the attractor, with shape (members, steps + 1, 3)."""
    model, generator = Lorenz63(), torch.Generator().manual_seed(seed)
    start = model(model.initial(generator, (members,)), 3000)
    return model.trajectory(start, steps)


def climate() -> StrongConstraint:
    """Returns the prior, with the mean and covariance of another run."""
    states = run(2000, 64, seed=1)[:, ::20].flatten(0, 1)
    grid = mt.Grid(time=0.01 * torch.arange(float(STEPS)), x=torch.arange(3.0))
    return StrongConstraint(grid, Lorenz63(), 1, (states.mean(0), torch.cov(states.mT)))


def observation(grid: mt.Grid, components: tuple[int, ...]) -> mt.GriddedObservation:
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    for c in components:
        mask[EDGE : STEPS - EDGE : EVERY, c] = True
    return mt.GriddedObservation(grid, mask.flatten(), math.sqrt(VARIANCE))


def truths(windows: int) -> Tensor:
    """Returns disjoint windows of one run, with gaps of one window."""
    x = run(2 * STEPS * windows, 1, seed=2)[0, : 2 * STEPS * windows]
    return x.reshape(windows, 2, STEPS * 3)[:, 0]


def spread(cost: Cost, v: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the std of the fields and the covariance of the controls, at minima."""
    stds, covariances = [], []
    for i in torch.arange(len(v)).split(64):
        tangent = Tangent(cost.take(i), v[i])
        fields, data = tangent.jacobians()
        L = torch.linalg.cholesky(tangent.matrix(data))
        stds.append(torch.linalg.solve_triangular(L, fields, upper=False).norm(dim=-2))
        covariances.append(torch.cholesky_inverse(L))
    return torch.cat(stds), torch.cat(covariances)


def perturbed(solver: Variational, cost: Cost, v: Tensor, members: int) -> Tensor:
    """Returns minima for perturbed data and prior, with shape (members, windows, 3)."""
    generator = torch.Generator().manual_seed(5)
    x = cost.control.decode(v).expand(members, -1, -1)
    noise = cost.observation.sample(x, generator) - cost.observation(x)
    centre = torch.randn(members, *v.shape, dtype=torch.float64, generator=generator)
    other = Cost(
        cost.control,
        cost.observation,
        (cost.y + noise).flatten(0, 1),
        centre.flatten(0, 1),
    )
    found = solver.minimise(other, v.repeat(members, 1), 1e-3)
    return found.v.unflatten(0, (members, len(v)))


def exact(
    seen: mt.GriddedObservation, y: Tensor, draws: Iterable[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the posterior means, stds and effective sizes, by weights of draws of the prior.

    Draws come in parts with shape (k, n). Sums are kept in units of the largest weight so far.
    """
    mask = seen.mask
    top = torch.full((len(y),), -torch.inf, dtype=torch.float64)
    sums = torch.zeros(len(y), 2 + 2 * y.shape[-1], dtype=torch.float64)
    for x in draws:
        h = x[:, mask]
        log_w = (h @ y[:, mask].mT - h.square().sum(-1)[:, None] / 2) / VARIANCE
        new = torch.maximum(top, log_w.amax(0))
        w, scale = torch.exp(log_w - new).mT, torch.exp(top - new)
        sums *= scale[:, None]
        sums[:, 1] *= scale  # a sum of squares
        sums += torch.cat([w.sum(1)[:, None], w.square().sum(1)[:, None], w @ x, w @ x**2], 1)
        top = new
    total, squares = sums[:, :1], sums[:, 1]
    mean, square = (sums[:, 2:] / total).chunk(2, dim=-1)
    return mean, (square - mean**2).clamp(min=1e-12).sqrt(), total[:, 0] ** 2 / squares


def gaussian(prior: StrongConstraint, size: int) -> Iterator[Tensor]:
    """Yields draws of the prior of 4DVar."""
    generator = torch.Generator().manual_seed(11)
    for _ in range(size // PART):
        v = torch.randn(PART, prior.control_size, dtype=torch.float64, generator=generator)
        yield prior.decode(v)


def attractor(size: int) -> Iterator[Tensor]:
    """Yields draws of the attractor: every window of long runs."""
    for seed in range(size // PART):
        x = run(STEPS - 1 + PART // 20, 20, 100 + seed)
        yield x.unfold(1, STEPS, 1).flatten(0, 1).transpose(-1, -2).flatten(-2)


def gaussian_row(name: str, mean: Tensor, std: Tensor, x: Tensor) -> Row:
    """Returns the scores of a mean and a std."""
    mse = (mean - x).square()
    return {
        "method": name,
        "mse": mse.mean().item(),
        "se": _standard_error(mse.mean(-1)),
        "median mse": mse.mean(-1).median().item(),
        "crps": crps_gaussian(mean, std, x).mean().item(),
        "spread/skill": (std.square().mean() / mse.mean()).sqrt().item(),
        "coverage90": coverage(mean, std, x, 0.9).mean().item(),
        "by window": mse.mean(-1),
    }


def _standard_error(values: Tensor) -> float:
    return (values.std() / len(values) ** 0.5).item()


def compared(rows: list[Row]) -> list[Row]:
    """Returns the rows with the error over that of the exact mean under the same prior."""
    windows = [row.pop("by window") for row in rows]
    names = [row["method"] for row in rows]
    best = windows[names.index("exact, Gaussian prior")]
    for row, mse in zip(rows, windows, strict=True):
        row["over exact"] = (mse.mean() / best.mean() - 1).item()
        row["its se"] = _standard_error((mse - best) / best.mean())
    return rows


def study(name: str, methods: list[str], windows: int, members: int, size: int) -> list[Row]:
    prior, x = climate(), truths(windows)
    seen = observation(prior.domain, SEEN[name])
    y = seen.sample(x, torch.Generator().manual_seed(3))
    cost, rows = Cost(control_of(prior), seen, y), []
    starts = 1 if name == "xyz" else 4
    for method in methods:
        start = time.perf_counter()
        solver = Variational(method, steps=100, windows=4, starts=starts, strict=False)
        conditional = solver(prior, seen)
        mean = conditional.estimate(y)
        spent = time.perf_counter() - start
        found = [conditional.mode(v) for v in y]
        v = torch.cat([f.v for f in found])
        if method == "smoother":  # it moves trajectories, not first states
            std, v = torch.stack([conditional.std(d, 0, None) for d in y]), prior.encode(v)
        else:
            std, _ = spread(cost, v)
        row = gaussian_row(f"4DVar {method}", mean, std, x)
        row["converged"] = sum(bool(f.converged[0]) for f in found) / windows
        rows.append(row | {"seconds per window": spent / windows})
        print(name, row["method"], row["mse"], flush=True)
    start = time.perf_counter()
    fields = prior.decode(perturbed(Variational("lbfgs", steps=40), cost, v, members))
    spent = time.perf_counter() - start
    row = gaussian_row(f"4DVar ensemble of {members}", fields.mean(0), fields.std(0), x)
    row["crps"] = crps_ensemble(fields, x).mean().item()
    rows.append(row | {"seconds per window": spent / windows})
    for law, parts in {"Gaussian": gaussian(prior, size), "attractor": attractor(size)}.items():
        mean, std, sizes = exact(seen, y, parts)
        row = gaussian_row(f"exact, {law} prior", mean, std, x)
        rows.append(row | {"least sample size": sizes.min().item()})
        print(name, row["method"], row["mse"], flush=True)
    return [{"seen": name, "windows": windows, **row} for row in compared(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--draws", type=int, default=6_000_000, help="of each oracle")
    parser.add_argument("--methods", default="smoother")
    parser.add_argument("--seen", choices=[*SEEN, "both"], default="both")
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    arguments = parser.parse_args()
    names = list(SEEN) if arguments.seen == "both" else [arguments.seen]
    methods, size = arguments.methods.split(","), arguments.draws
    with torch.no_grad():
        rows = [
            row
            for name in names
            for row in study(name, methods, arguments.windows, arguments.members, size)
        ]
    (show if arguments.dry else lambda t, r: finish(t, "lorenz63", r))("Lorenz-63", rows)


if __name__ == "__main__":
    main()
