r"""Markov fields in space and time, at rest or carried by a current."""

from __future__ import annotations

__all__ = ["advection_diffusion", "spde"]

import math
import torch

from torch import Tensor
from typing import Any

from .held_out import Chosen
from .moving import moving
from .problem import Mapped, Problem, Say
from .tuning import Smooth, noisy, prepared
from ..domain import Grid, nearest_turn
from ..observations import LinearObservation
from ..posterior import Posterior
from ..priors import AdvectionDiffusion
from ..solvers.sparse_cholesky import SparseCholesky

COLOR = 4
"""The color of the noise: a smoothness of 3 in space."""
NODES = 3.0
"""Nodes of the lattice per lengthscale: with cubics between them they are enough."""
STEPS = 10.0
"""Steps of time per timescale: what happens within a step is lost, and not in the std."""
SHORTEST = 1.0
"""The shortest step of time, in days; others are whole multiples."""
ROOM = 80_000
"""The nodes of all times beyond which the lattice is made coarser."""


def _lattice(problem: Problem, step: float) -> Grid:
    r"""Returns a regular lattice over the data and the grid, with steps of so many metres."""
    points = problem.points
    lat = torch.cat([points.axis("lat"), problem.grid.axes["lat"]])
    lon = torch.cat([points.axis("lon"), problem.grid.axes["lon"]])
    middle = problem.grid.axes["lon"].mean()
    lon = nearest_turn(lon, middle)
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


def _times(problem: Problem, step: float) -> Tensor:
    r"""Returns even times over the data and the map, whose first one is among them."""
    step = SHORTEST * max(1, math.floor(step / SHORTEST))
    own = problem.grid.axes["time"]
    t = torch.cat([problem.points.since(problem.grid.epoch).axis("time"), own]) - own[0]
    first, last = math.floor(t.min().item() / step), math.ceil(t.max().item() / step)
    return own[0] + step * torch.arange(first, max(last, first + 1) + 1, dtype=torch.float64)


def _law(problem: Problem, chosen: Chosen, variance: float) -> dict[str, Any]:
    r"""Returns what a prior of some scales is built with."""
    length, scale = chosen.scales["lengthscale"], chosen.scales["duration"]
    times, step = _times(problem, scale / STEPS), length / NODES
    many = len(times) * len(_lattice(problem, step)) / ROOM
    return {
        "lengthscale": length,
        "timescale": scale,
        "variance": variance * chosen.factor,
        "color": COLOR,
        "damping": "uniform",
        "interpolation": "cubic",
        "margin": 1.0,
        "lattice": _lattice(problem, step * max(many, 1.0) ** 0.5),
        "times": times,
    }


def _separable(problem: Problem) -> Smooth:
    r"""Returns the law without a lattice: it is separable.

    Its scales are not by likelihood: that of a process that is rough in time sees the shortest
    lags, over which the sea is smooth, and tells little of the memory between passes.
    """
    return Smooth(problem, nu_time=0.5, nu=COLOR - 1.0)


@torch.no_grad()
def _mapped(
    problem: Problem,
    law: dict[str, Any],
    seen: tuple[LinearObservation, Tensor],
    velocity: Tensor | None = None,
) -> tuple[Posterior, AdvectionDiffusion]:
    prior = AdvectionDiffusion(problem.grid, velocity=velocity, **law)
    return SparseCholesky()(prior, seen[0])(seen[1]), prior


def spde(problem: Problem, say: Say) -> Mapped:
    r"""A Markov field that is forgotten in time, by the exact sparse factor.

    Its scales, its variance and what it does not resolve are those that predict held-out data.
    """
    law = _separable(problem)
    start = prepared(problem, law, say)
    kind = _law(start.data, start.chosen, law.std**2)
    posterior, prior = _mapped(start.data, kind, noisy(start.data, start.seen, start.chosen))
    say(f"{len(prior.timeline)} times, {len(prior.lattice)} nodes each")
    return Mapped(posterior, problem.shift, unresolved=start.chosen.unresolved)


def advection_diffusion(problem: Problem, say: Say) -> Mapped:
    r"""The same field, carried by the drift that a quasi-geostrophic model tells of its first map.

    How much of the drift carries, and how much longer what moves is remembered, is chosen by
    held-out data.
    """
    law = _separable(problem)
    start = prepared(problem, law, say)
    data, seen = start.data, start.seen
    still = _law(data, start.chosen, law.std**2)
    first = _mapped(data, still, noisy(data, seen, start.chosen))[0].mean + problem.shift
    found = moving(problem, start.held, law.chosen, start.chosen, first, say)
    kind = _law(data, found.chosen, law.std**2)
    posterior, prior = _mapped(data, kind, noisy(data, seen, found.chosen), found.velocity)
    say(f"{len(prior.timeline)} times, {len(prior.lattice)} nodes each")
    info = {"drift": found.part, "longer": found.longer}
    return Mapped(posterior, problem.shift, info, found.chosen.unresolved)
