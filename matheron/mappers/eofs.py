r"""Mapping of images with gaps by empirical orthogonal functions."""

from __future__ import annotations

__all__ = ["dineof"]

import torch

from .problem import Mapped, Problem, Say
from ..observations import GriddedObservation
from ..priors.eof import EOF
from ..solvers.dineof import DINEOF


def dineof(problem: Problem, say: Say) -> Mapped:
    r"""The leading patterns of the data themselves, as many as held-out clouds ask for.

    Data are taken to the nearest node of the grid: it is for images, not for tracks. Those of
    other times than the grid's are left out.
    """
    times = problem.grid.axes["time"]
    problem = problem.near(times[0].item(), times[-1].item())
    nodes, weights = problem.grid.interpolation(problem.points.since(problem.grid.epoch))
    nearest = nodes.gather(1, weights.argmax(dim=1, keepdim=True))[:, 0]
    n = len(problem.grid)
    count = torch.zeros(n).double().index_add(0, nearest, torch.ones(len(nearest)).double())
    total = torch.zeros(n).double().index_add(0, nearest, problem.anomalies)
    seen = count > 0
    y = torch.where(seen, total / count.clamp(min=1), 0.0)
    std = 0.1 * problem.anomalies.std().item()
    if problem.noise is not None:
        std = problem.noise.square().mean().sqrt().item()
    observation = GriddedObservation(problem.grid, seen, std)
    posterior = DINEOF(seed=problem.seed)(EOF(problem.grid), observation)(y)
    say(f"{posterior.info['modes']} patterns of {posterior.info['images']} images")
    return Mapped(posterior, problem.shift, posterior.info)
