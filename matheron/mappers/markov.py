r"""Markov fields in space and time, at rest or carried by a current."""

from __future__ import annotations

__all__ = ["advection_diffusion", "spde"]

import math
import torch

from torch import Tensor
from typing import Any

from .gaussian import FEWEST, HELD, fitted, observed, parts, separated
from .problem import Mapped, Problem, Say, superobs
from ..domain import Grid
from ..observations import LinearObservation
from ..posterior import Posterior
from ..priors import AdvectionDiffusion
from ..priors.spde.velocity import geostrophic
from ..selection.choice import scale_of
from ..solvers.sparse_cholesky import SparseCholesky

COLOR = 4
"""The color of the noise: a smoothness of 3 in space."""
NODES = 3.0
"""Nodes of the lattice per lengthscale: with cubics between them they are enough."""
STEPS = 6.0
"""Steps of time per timescale."""
SHORTEST = 1.0
"""The shortest step of time, in days."""
UNRESOLVED = 0.02
"""The least std of the noise, over that of the field: what the lattice does not resolve."""
LONGER = (1.0, 2.0, 4.0, 8.0)
"""Memories to choose from, over the likeliest: see :func:`_remembering`."""
DAYS = 10.0
"""The days to each side of a time that a choice is made by."""
PARTS = (0.3, 0.6, 1.0)
"""The part of the current that carries: to choose from, by the evidence."""
FASTEST = 60e3
"""The fastest current, in metres a day."""


Scales = tuple[float, float, float]
"""Lengthscale, timescale and variance."""


def _lattice(problem: Problem, step: float) -> Grid:
    r"""Returns a regular lattice over the data and the grid, with steps of so many metres."""
    points = problem.points
    lat = torch.cat([points.axis("lat"), problem.grid.axes["lat"]])
    lon = torch.cat([points.axis("lon"), problem.grid.axes["lon"]])
    middle = problem.grid.axes["lon"].mean()
    lon = middle + torch.remainder(lon - middle + 180.0, 360.0) - 180.0
    width = step / 111.2e3
    axes: dict[str, Any] = {
        "lat": _even(lat, width),
        "lon": _even(lon, width / math.cos(math.radians(lat.mean().item()))),
    }
    return Grid(**axes, metric="sphere")


def _even(s: Tensor, step: float) -> Tensor:
    low, high = s.min().item(), s.max().item()
    count = max(3, math.ceil((high - low) / step) + 1)
    return torch.linspace(low, high, count, dtype=torch.float64)


def _law(problem: Problem, scales: Scales) -> dict[str, Any]:
    r"""Returns what a prior of some scales is built with."""
    length, scale, variance = scales
    points = problem.points.since(problem.grid.epoch)
    t = torch.cat([points.axis("time"), problem.grid.axes["time"]])
    return {
        "lengthscale": length,
        "timescale": scale,
        "variance": variance,
        "color": COLOR,
        "damping": "uniform",
        "interpolation": "cubic",
        "margin": 1.0,
        "lattice": _lattice(problem, length / NODES),
        "times": _even(t, max(scale / STEPS, SHORTEST)),
    }


def _prepared(problem: Problem, say: Say) -> tuple[Problem, Scales, LinearObservation]:
    r"""Returns data, scales and noise, by likelihood but for the memory, by held-out passes."""
    data = superobs(problem, FEWEST)
    start, seen = fitted(data, separated(data, COLOR - 1.0, 0.5), say)
    _at_least(seen, UNRESOLVED * scale_of(data.anomalies))
    time, space = parts(start.kernel)
    scales = (space.lengthscale.item(), time.lengthscale.item(), space.variance.item())
    return data, _remembering(data, scales, seen, say), seen


@torch.no_grad()
def _remembering(data: Problem, scales: Scales, like: LinearObservation, say: Say) -> Scales:
    r"""Returns the scales with the memory that predicts passes that are held out.

    The likelihood of a process that is rough in time sees the shortest lags, over which the sea
    is smooth: it tells little of the memory over the days between passes.
    """
    length, scale, variance = scales
    middle = data.grid.axes["time"].median().item()
    near = data.near(middle - DAYS, middle + DAYS)
    if near.passes is None or not (near.passes % HELD == 0).any():
        return scales
    out = near.passes % HELD == 0
    kept, held = near.take(~out), near.take(out)
    seen, y = observed(kept, like)
    errors: dict[float, float] = {}
    for ratio in LONGER:
        law = _law(near, (length, scale * ratio, variance))
        prior = AdvectionDiffusion(near.grid, **law)
        mean = SparseCholesky()(prior.on(held.points), seen)(y).mean
        errors[scale * ratio] = (mean - held.anomalies).square().mean().sqrt().item()
    best = min(errors, key=lambda k: errors[k])
    shown = {round(k, 1): round(v, 4) for k, v in errors.items()}
    say(f"memory of {best:.3g} days: held-out error by days {shown}")
    return length, best, variance


@torch.no_grad()
def _at_least(seen: LinearObservation, std: float) -> None:
    state = seen.state_dict()
    for name, value in state.items():
        if name.endswith("error.log_scale"):
            own = state[name.replace("log_scale", "std")]
            value.clamp_(min=math.log(std / own.mean().item()))


@torch.no_grad()
def _mapped(
    problem: Problem, law: dict[str, Any], like: LinearObservation, velocity: Tensor | None = None
) -> tuple[Posterior, AdvectionDiffusion]:
    prior = AdvectionDiffusion(problem.grid, velocity=velocity, **law)
    seen, y = observed(problem, like)
    return SparseCholesky()(prior, seen)(y), prior


def spde(problem: Problem, say: Say) -> Mapped:
    r"""A Markov field that is forgotten in time, by the exact sparse factor.

    Its scales are those of largest likelihood.
    """
    data, scales, like = _prepared(problem, say)
    posterior, prior = _mapped(data, _law(data, scales), like)
    say(f"{len(prior.timeline)} times, {len(prior.lattice)} nodes each")
    return Mapped(posterior, problem.shift)


def advection_diffusion(problem: Problem, say: Say) -> Mapped:
    r"""The same field, carried by the current of its own first map.

    How much of the current carries, and how much longer what is carried is remembered, has the
    largest evidence.
    """
    data, scales, like = _prepared(problem, say)
    law = _law(data, scales)
    best, prior = _mapped(data, law, like)
    say(f"{len(prior.timeline)} times, {len(prior.lattice)} nodes each")
    evidence = best.log_evidence.item()
    say(f"evidence {evidence:.1f} at rest")
    east, north = geostrophic(problem.grid, best.mean + problem.shift)
    flow = (torch.stack([north, east], dim=-1) * 86400.0).clamp(-FASTEST, FASTEST)
    info = {"carried": 0.0, "longer": 1.0}
    for part in PARTS:
        for longer in (1.0, 2.0):
            slower = law | {"timescale": law["timescale"] * longer}
            found, _ = _mapped(data, slower, like, part * flow)
            value = found.log_evidence.item()
            say(f"evidence {value:.1f} with {part:g} of the current, {longer:g} times longer")
            if value > evidence:
                best, evidence = found, value
                info = {"carried": part, "longer": longer}
    return Mapped(best, problem.shift, info)
