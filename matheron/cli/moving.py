r"""The part of the demonstration about time: a field that is carried along, and forecast."""

from __future__ import annotations

__all__ = ["forecast"]

import torch

from torch import Generator, Tensor

from ..domain import Grid
from ..observations import PointObservation
from ..priors.spde.advection_diffusion import AdvectionDiffusion
from ..solvers import SparseCholesky

SEEN = 6
AHEAD = 2
DATA = 90
"""The number of data of a day."""
NOISE = 0.01


def _prior() -> AdvectionDiffusion:
    r"""Returns eddies of 80 km that are carried to the east, 20 cm/s, and fade in a week."""
    grid = Grid(
        time=torch.arange(float(SEEN + AHEAD), dtype=torch.float64),
        lat=torch.linspace(36.0, 39.0, 13, dtype=torch.float64),
        lon=torch.linspace(0.0, 5.0, 21, dtype=torch.float64),
    )
    speed = 0.2 * 86_400
    return AdvectionDiffusion(grid, 80e3, 7.0, variance=0.01, velocity=(0.0, speed))


def _data(prior: AdvectionDiffusion, truth: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    r"""Returns the nodes that are seen on the first days, and what is seen there."""
    size = len(prior.domain.points) // (SEEN + AHEAD)
    days = [k * size + torch.randperm(size, generator=generator)[:DATA] for k in range(SEEN)]
    index = torch.cat(days)
    noise = torch.randn(len(index), generator=generator, dtype=torch.float64)
    return index, truth[index] + NOISE * noise


def forecast(generator: Generator) -> list[dict[str, float]]:
    r"""Returns the errors of a forecast by days ahead, and those of persistence.

    Example:
        >>> rows = forecast(torch.Generator().manual_seed(0))
        >>> [row["lead"] for row in rows], rows[0]["rmse"] < rows[0]["persistence"]
        ([1.0, 2.0], True)
    """
    prior = _prior()
    truth = prior.sample(1, generator)[0]
    index, y = _data(prior, truth, generator)
    seen = PointObservation(prior.domain, prior.domain.points[index], NOISE)
    posterior = SparseCholesky()(prior, seen)(y)
    mean, std, true = (
        x.unflatten(0, (SEEN + AHEAD, -1)) for x in (posterior.mean, posterior.std(), truth)
    )
    rms = lambda x: x.square().mean().sqrt().item()
    return [
        {
            "lead": float(k),
            "rmse": rms(mean[SEEN - 1 + k] - true[SEEN - 1 + k]),
            "persistence": rms(mean[SEEN - 1] - true[SEEN - 1 + k]),
            "std": rms(std[SEEN - 1 + k]),
        }
        for k in range(1, AHEAD + 1)
    ]
