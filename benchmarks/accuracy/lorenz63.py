"""Lorenz-63 seen every 8 steps: strong-constraint 4DVar beside exact posterior means.

The protocol is that of the learned solvers (windows of 200 steps of .01, noise of variance 2, no
data in the first and last 10 steps), but for windows that are disjoint with a gap between them,
and a climate that comes from another run. The rule that stops looks at gradient and cost only.

Two oracles give exact posterior means: importance sampling under the Gaussian prior of 4DVar, and
under the law of the attractor itself, whose draws are all the windows of a long run.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import torch

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


def importance(
    prior: StrongConstraint,
    seen: mt.GriddedObservation,
    y: Tensor,
    modes: Tensor,
    covariances: Tensor,
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the exact means and stds under the Gaussian prior, and the effective sizes.

    The proposals of a window are a mixture of Student laws (5 degrees of freedom), about minima
    with shape (k, 3), with their covariances widened by a half.
    """
    generator = torch.Generator().manual_seed(0)
    L = torch.linalg.cholesky(1.5 * covariances)
    which = torch.randint(len(modes), (size,), generator=generator)
    z = torch.randn(size, 3, dtype=torch.float64, generator=generator)
    chi = torch.randn(size, 5, dtype=torch.float64, generator=generator).square().mean(-1)
    v = modes[which] + (L[which] @ (z / chi.sqrt()[:, None])[..., None])[..., 0]
    r = torch.linalg.solve_triangular(L[:, None], (v - modes[:, None])[..., None], upper=False)
    log_q = -4 * torch.log1p(r.square().sum((-2, -1)) / 5)
    log_q = log_q - L.diagonal(dim1=-2, dim2=-1).log().sum(-1)[:, None]
    x = prior.decode(v)
    log_p = -v.square().sum(-1) / 2 - seen.misfit(seen(x), y.expand(size, -1))
    w = torch.softmax(log_p - log_q.logsumexp(0), 0)
    mean = w @ x
    return mean, (w @ (x - mean).square()).sqrt(), 1 / w.square().sum()


def attractor(seen: mt.GriddedObservation, y: Tensor, members: int) -> list[Tensor]:
    """Returns the exact means, stds and effective sizes under the law of the attractor.

    Every window of long runs is a draw of the prior.
    """
    mask = seen.mask.reshape(STEPS, 3)
    data = y.reshape(-1, STEPS, 3)
    when, what = torch.nonzero(mask, as_tuple=True)
    best: list[list[Tensor]] = []
    for seed in range(members // 500):
        x = run(1200, 500, 100 + seed)
        windows = x.unfold(1, STEPS, 1).flatten(0, 1).transpose(-1, -2)
        h = windows[:, when, what]
        r = data[:, when, what]
        log_w = -(h.square().sum(-1)[:, None] - 2 * h @ r.mT) / (2 * VARIANCE)
        top = log_w.topk(400, dim=0)
        best.append([top.values, windows[top.indices].flatten(-2)])
    log_w, bank = (torch.cat(part) for part in zip(*best, strict=True))
    w = torch.softmax(log_w, 0)
    mean = torch.einsum("kb,kbn->bn", w, bank)
    var = torch.einsum("kb,kbn->bn", w, (bank - mean).square())
    return [mean, var.clamp(min=1e-12).sqrt(), 1 / w.square().sum(0)]


def gaussian_row(name: str, mean: Tensor, std: Tensor, x: Tensor) -> Row:
    """Returns the scores of a mean and a std."""
    mse = (mean - x).square()
    return {
        "method": name,
        "mse": mse.mean().item(),
        "se": (mse.mean(-1).std() / len(x) ** 0.5).item(),
        "median mse": mse.mean(-1).median().item(),
        "crps": crps_gaussian(mean, std, x).mean().item(),
        "spread/skill": (std.square().mean() / mse.mean()).sqrt().item(),
        "coverage90": coverage(mean, std, x, 0.9).mean().item(),
    }


def study(
    name: str, methods: list[str], windows: int, members: int, bank: int, samples: int
) -> list[Row]:
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
        show(name, rows[-1:])
    start = time.perf_counter()
    draws = perturbed(Variational("lbfgs", steps=40), cost, v, members)
    fields = prior.decode(draws)
    spent = time.perf_counter() - start
    row = gaussian_row(f"4DVar ensemble of {members}", fields.mean(0), fields.std(0), x)
    row["crps"] = crps_ensemble(fields, x).mean().item()
    rows.append(row | {"seconds per window": spent / windows})
    modes = torch.cat([v[None], draws[:5]])
    _, P = spread(Cost(cost.control, seen, y.repeat(6, 1)), modes.flatten(0, 1))
    P = P.unflatten(0, (6, windows))
    exact = [importance(prior, seen, y[i], modes[:, i], P[:, i], samples) for i in range(windows)]
    means, stds, sizes = (torch.stack(part) for part in zip(*exact, strict=True))
    row = gaussian_row("exact, Gaussian prior", means, stds, x)
    rows.append(row | {"least sample size": sizes.min().item()})
    if bank:
        mean, std, sizes = attractor(seen, y, bank)
        row = gaussian_row("exact, attractor prior", mean, std, x)
        rows.append(row | {"least sample size": sizes.min().item()})
    return [{"seen": name, "windows": windows, **row} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--bank", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--methods", default="lbfgs,gauss-newton")
    parser.add_argument("--seen", choices=[*SEEN, "both"], default="both")
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    arguments = parser.parse_args()
    names = list(SEEN) if arguments.seen == "both" else [arguments.seen]
    rows: list[Row] = []
    with torch.no_grad():
        for name in names:
            bank = arguments.bank if name == "x" else 0
            rows += study(
                name,
                arguments.methods.split(","),
                arguments.windows,
                arguments.members,
                bank,
                arguments.samples,
            )
    (show if arguments.dry else lambda t, r: finish(t, "lorenz63", r))("Lorenz-63", rows)


if __name__ == "__main__":
    main()
