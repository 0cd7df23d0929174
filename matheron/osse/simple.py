r"""Simple truths: fields of a Gaussian law, and the toy atmospheres of Lorenz."""

from __future__ import annotations

__all__ = ["Simulable", "gaussian_truth", "lorenz_truth"]

import numpy as np
import torch
import xarray as xr

from torch import Generator, Tensor
from typing import Protocol, runtime_checkable

from ..domain import Grid, Points, dates_of
from ..dynamics import Lorenz63, Lorenz96


@runtime_checkable
class Simulable(Protocol):
    r"""Whatever can be simulated on a grid: a prior, say."""

    @property
    def domain(self) -> Grid | Points:
        r"""Where its fields live."""

    def sample(self, size: int, generator: Generator | None = None) -> Tensor:
        r"""Draws fields, each with shape :math:`(n)`."""


def gaussian_truth(
    prior: Simulable, size: int = 1, generator: Generator | None = None, name: str = "field"
) -> xr.Dataset:
    r"""Returns fields drawn from a law on a grid, labelled, with NaN on masked nodes.

    Arguments:
        prior: A law with a ``domain`` that is a grid, and ``sample(size, generator)``.
        size: The number of fields.
        generator: The source of randomness.
        name: The name of the variable.

    Raises:
        TypeError: If the domain is not a grid.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(lat=[43.0, 44.0], lon=[5.0, 6.0, 7.0])
        >>> prior = mt.GaussianProcess(mt.Matern(1.5, 1.0, 1e5), grid)
        >>> dict(gaussian_truth(prior, 2).sizes)
        {'member': 2, 'lat': 2, 'lon': 3}
    """
    grid = prior.domain
    if not isinstance(grid, Grid):
        msg = (
            f"gaussian_truth(prior=...): expected a law on a Grid, got one on "
            f"{type(grid).__name__}. Build the prior on a grid."
        )
        raise TypeError(msg)
    with torch.no_grad():
        fields = grid.unflatten(prior.sample(size, generator)).numpy()
    axes = {k: v.numpy() for k, v in grid.axes.items()}
    if "time" in axes and grid.epoch is not None:
        axes["time"] = dates_of(axes["time"], grid.epoch)
    return xr.Dataset({name: (("member", *grid.dims), fields)}, axes)


def lorenz_truth(
    model: Lorenz63 | Lorenz96,
    steps: int,
    size: int = 1,
    generator: Generator | None = None,
    *,
    every: int = 1,
    spin_up: int = 1000,
) -> xr.Dataset:
    r"""Returns trajectories on the attractor of a toy atmosphere.

    Arguments:
        model: The atmosphere.
        steps: The number of time steps.
        size: The number of trajectories.
        generator: The source of randomness.
        every: The number of steps from one kept state to the next.
        spin_up: The number of steps before the first kept state.

    Returns:
        ``x(member, time, place)``, with the time in units of the model.

    Example:
        >>> dict(lorenz_truth(Lorenz63(), 100, 2, every=10).sizes)
        {'member': 2, 'time': 11, 'place': 3}
    """
    with torch.no_grad():
        start = model(model.initial(generator, (size,)), spin_up)
        path = model.trajectory(start, steps, every).numpy()
    time = model.dt * every * np.arange(path.shape[1])
    coords = {"time": time, "place": np.arange(path.shape[2])}
    return xr.Dataset({"x": (("member", "time", "place"), path)}, coords)
