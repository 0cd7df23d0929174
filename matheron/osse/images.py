r"""See a positive field as a radiometer would: day by day, with errors, and not through clouds."""

from __future__ import annotations

__all__ = ["GAPS", "LOG_STD", "hidden_cells", "see"]

import numpy as np
import torch
import xarray as xr

from collections.abc import Sequence
from jaxtyping import Bool

from .clouds import AVHRR, Clouds
from .spectra import white

GAPS = ("clouds", "random")
"""What hides cells: clouds, or chance, cell by cell, as many on each day as clouds do."""

LOG_STD = 0.25
"""The standard deviation of the logarithm of the errors: 25 %, as ocean colour has at best."""


def hidden_cells(
    truth: xr.DataArray,
    name: str,
    generator: torch.Generator | None = None,
    clouds: Clouds = AVHRR,
) -> Bool[np.ndarray, "time lat lon"]:
    r"""Returns which cells of each image are hidden.

    Arguments:
        truth: The field over (time, lat, lon), NaN on land.
        name: One of :data:`GAPS`. With ``random`` as many cells of the sea are hidden on each day
            as ``clouds`` hides with the same generator: only the shape of gaps differs.
        generator: The random generator.
        clouds: The law of clouds.
    """
    lat, lon, time = (truth[k].values for k in ("lat", "lon", "time"))
    under = clouds.draw(lat, lon, time, generator).values
    return under if name == "clouds" else _scattered(truth.values, under, generator)


def _scattered(
    truth: np.ndarray, under: np.ndarray, generator: torch.Generator | None
) -> np.ndarray:
    """As many cells of the sea as are under clouds, anywhere."""
    sea = np.isfinite(truth).reshape(len(truth), -1)
    count = (under.reshape(sea.shape) & sea).sum(axis=1)
    draw = torch.rand(sea.shape, dtype=torch.float64, generator=generator).numpy()
    order = np.where(sea, draw, 2.0).argsort(axis=1).argsort(axis=1)
    return (order < count[:, None]).reshape(truth.shape)


def _noisy(values: np.ndarray, generator: torch.Generator | None) -> np.ndarray:
    """Multiplied by lognormal errors of mean one: exp(s z - s^2 / 2)."""
    return values * np.exp(LOG_STD * white(values.shape, generator) - LOG_STD**2 / 2)


def see(
    truth: xr.Dataset,
    names: Sequence[str] = ("clouds",),
    generator: torch.Generator | None = None,
    *,
    noisy: bool = True,
    variable: str = "spm",
    clouds: Clouds = AVHRR,
) -> dict[str, xr.Dataset]:
    r"""Observes a field image by image, through gaps: NaN where hidden, and on land.

    .. math:: y = x \exp(s z - s^2 / 2)

    Errors are independent from cell to cell, and are the same whatever hides the cells.

    Arguments:
        truth: The truth, with a variable of ``time``, ``lat`` and ``lon``.
        names: What hides cells, by name: see :data:`GAPS`.
        generator: The random generator: one number of it is drawn, whatever the names.
        noisy: Whether there are errors.
        variable: The variable to observe.
        clouds: The law of clouds.

    Example:
        >>> time = np.datetime64("2020-01-01") + np.arange(5) * np.timedelta64(1, "D")
        >>> axes = {"time": time, "lat": np.arange(44, 46, 0.1), "lon": np.arange(-4, -2, 0.1)}
        >>> truth = xr.Dataset({"spm": (tuple(axes), np.ones((5, 20, 20)))}, axes)
        >>> list(see(truth, ["clouds", "random"]))
        ['clouds', 'random']
    """
    field = truth[variable].transpose("time", "lat", "lon")
    seed = int(torch.randint(2**31, (), generator=generator))
    errors = torch.Generator().manual_seed(seed ^ 1)
    values = _noisy(field.values, errors) if noisy else field.values
    seen = {}
    for name in names:
        hidden = hidden_cells(field, name, torch.Generator().manual_seed(seed), clouds)
        image = field.copy(data=np.where(hidden, np.nan, values).astype(np.float32))
        told = {"gaps": name, "log_noise_std": LOG_STD if noisy else 0.0}
        seen[name] = image.to_dataset().assign_attrs(truth.attrs | told)
    return seen
