r"""A coast of turbid water: sediment from rivers and waves, carried by tides and drift."""

from __future__ import annotations

__all__ = ["Coast", "plume_run"]

import dataclasses
import math
import numpy as np
import torch
import xarray as xr

from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from typing import Any

from ..domain import EARTH_RADIUS

VERSION = 1
STEP = 3600.0
TIDE = 12.4206 * 3600
SPRING = 14.765 * 86400


@dataclasses.dataclass(frozen=True)
class Coast:
    r"""A coast that runs north, with the sea to its west, and what stirs and feeds it.

    Arguments:
        lat: The southern and northern ends of the box, in degrees.
        lon: The western and eastern ends of the box, in degrees.
        rivers: The latitude of every mouth, in degrees, and its mean load, in kilograms per
            second.
        tide: The speed of the tidal current at mean tide, in metres per second.
        drift: The standard deviation of the drift along the coast, in metres per second.
        eddies: The standard deviation of the slow eddies, in metres per second.
        diffusivity: The horizontal diffusivity, in square metres per second.
        settling: The time in which sediment settles where it is 10 m deep, in days; it grows as
            the depth.
        background: The load of the open sea, in grams per cubic metre.
        storm: What waves stir up along the shore in a day of mean weather, in grams per cubic
            metre.
    """

    lat: tuple[float, float] = (44.5, 48.0)
    lon: tuple[float, float] = (-5.0, -1.0)
    rivers: tuple[tuple[float, float], ...] = ((45.6, 120.0), (47.2, 60.0))
    tide: float = 0.35
    drift: float = 0.12
    eddies: float = 0.08
    diffusivity: float = 60.0
    settling: float = 3.0
    background: float = 0.2
    storm: float = 2.0


def plume_run(
    seed: int = 0,
    days: int = 365,
    *,
    coast: Coast | None = None,
    start: str = "2020-01-01",
    spacing: float = 0.05,
    every: int = 24,
    spin_up: int = 20,
) -> xr.Dataset:
    r"""Returns suspended sediment off a coast: positive, skewed, carried, and fed by events.

    .. math::
        \partial_t c + u \cdot \nabla c = \nabla \cdot (K \nabla c) - \frac{c - c_0}{\tau(z)} + s,

    where :math:`u` is a tide with its springs and neaps, a drift along the coast with a memory
    of 3 days, and slow eddies; :math:`s` comes from rivers, whose load is lognormal with a memory
    of 10 days, and from the shore when waves, lognormal with a memory of 2 days, stir it.
    Advection is semi-Lagrangian, every hour, with weights that are not negative: so is
    :math:`c`. A lognormal texture that moves with the drift stands for what is not resolved.

    Arguments:
        seed: The seed of weather, rivers, eddies and texture.
        days: The number of days.
        coast: The coast; the default is like that of the Bay of Biscay.
        start: The date of the first field.
        spacing: The spacing of latitudes and longitudes, in degrees.
        every: The number of hours from one field to the next.
        spin_up: The number of days before the first field.

    Returns:
        ``spm(time, lat, lon)``, in grams per cubic metre, with NaN on land.

    Raises:
        ValueError: If ``days`` or ``every`` is under one, or the spacing is too wide for a coast.

    Example:
        >>> spm = plume_run(days=2, spacing=0.25, spin_up=1)["spm"]
        >>> dict(spm.sizes), bool((spm.fillna(1) > 0).all())
        ({'time': 2, 'lat': 15, 'lon': 17}, True)
    """
    _check(days, every)
    coast = coast or Coast()
    generator = torch.Generator().manual_seed(seed)
    sea = _Sea(coast, spacing, generator)
    hours, first = days * 24, spin_up * 24
    weather = _Weather(coast, first + hours, generator)
    c, fields = np.full(sea.shape, coast.background), []
    for k in range(first + hours):
        if k >= first and (k - first) % every == 0:
            fields.append(sea.seen(c, weather.travelled[k]))
        c = sea.step(c, k * STEP, weather.at(k))
    times = np.datetime64(start, "ns") + np.arange(len(fields)) * np.timedelta64(every, "h")
    return _dataset(np.array(fields, dtype=np.float32), times, sea, seed)


def _check(days: int, every: int) -> None:
    for name, value in {"days": days, "every": every}.items():
        if value < 1:
            msg = f"plume_run({name}=...): expected 1 or more, got {value}. Ask for 1, say."
            raise ValueError(msg)


def _normal(generator: torch.Generator, *shape: int) -> np.ndarray:
    return torch.randn(*shape, dtype=torch.float64, generator=generator).numpy()


def _remembered(noise: np.ndarray, memory_h: float) -> np.ndarray:
    """A first-order autoregression of variance one, hour by hour, from white noise."""
    keep = math.exp(-1 / memory_h)
    x, out = noise[0], np.empty_like(noise)
    for k, z in enumerate(noise):
        out[k] = x
        x = keep * x + math.sqrt(1 - keep**2) * z
    return out


class _Weather:
    """Drift, waves and the loads of rivers, hour by hour."""

    def __init__(self, coast: Coast, hours: int, generator: torch.Generator) -> None:
        noise = _normal(generator, 2 + len(coast.rivers), hours)
        self.drift = coast.drift * _remembered(noise[0], 72.0)
        # Lognormal, of mean one: exp(s z - s^2 / 2).
        self.waves = np.exp(1.2 * _remembered(noise[1], 48.0) - 0.72)
        rivers = np.array([_remembered(z, 240.0) for z in noise[2:]]).reshape(-1, hours)
        self.rivers = np.exp(0.9 * rivers - 0.405)
        self.travelled = np.cumsum(self.drift) * STEP

    def at(self, k: int) -> tuple[float, float, np.ndarray]:
        return self.drift[k], self.waves[k], self.rivers[:, k]


class _Sea:
    """The box: where the sea is, how deep, and how it moves."""

    def __init__(self, coast: Coast, spacing: float, generator: torch.Generator) -> None:
        self.coast = coast
        self.lat, self.lon = (
            np.round(ends[0] + spacing * np.arange(round((ends[1] - ends[0]) / spacing) + 1), 9)
            for ends in (coast.lat, coast.lon)
        )
        self.shape = (len(self.lat), len(self.lon))
        degree = math.radians(spacing) * EARTH_RADIUS
        self.dy, self.dx = degree, degree * math.cos(math.radians(float(np.mean(self.lat))))
        self.sea = self._land(coast, _normal(generator, 4))
        if self.sea.sum() < 20 or self.sea.all():
            msg = (
                f"plume_run(spacing=...): expected degrees that tell sea from land, got {spacing}."
                " Take 0.05, say."
            )
            raise ValueError(msg)
        offshore = distance_transform_edt(self.sea, sampling=(self.dy, self.dx))
        self.depth = 5 + offshore / 1e3  # a shelf that falls by one metre in a kilometre
        self.shore = np.exp(-offshore / 8e3) * self.sea
        self.fade = np.clip(offshore / (2 * self.dx), 0, 1)  # no current through the coast
        self.decay = np.exp(-STEP / (coast.settling * 86400 * self.depth / 10))
        self.eddies = self._eddies(_normal(generator, *self.shape))
        self.mouths = [self._mouth(lat) for lat, _ in coast.rivers]
        self.texture = self._texture(generator)
        self.nodes = np.indices(self.shape).astype(np.float64)

    def _land(self, coast: Coast, noise: np.ndarray) -> np.ndarray:
        """A coast that leans to the east of the box, with capes and bays."""
        s = (self.lat - coast.lat[0]) / (coast.lat[1] - coast.lat[0])
        waves = sum(z * np.sin(2 * np.pi * (k + 1) * s) / (k + 1) for k, z in enumerate(noise))
        edge = coast.lon[0] + (coast.lon[1] - coast.lon[0]) * (0.88 - 0.15 * s + 0.025 * waves)
        return self.lon < edge[:, None]

    def _eddies(self, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A steady current without divergence, from a streamfunction that fades at the coast."""
        psi = gaussian_filter(noise, (25e3 / self.dy, 25e3 / self.dx)) * self.fade
        u, v = -np.gradient(psi, self.dy, axis=0), np.gradient(psi, self.dx, axis=1)
        scale = self.coast.eddies / math.sqrt(float((u**2 + v**2)[self.sea].mean()) / 2)
        return scale * u * self.sea, scale * v * self.sea

    def _mouth(self, lat: float) -> np.ndarray:
        """The share of a river's load that each node takes."""
        row = int(np.abs(self.lat - lat).argmin())
        node = np.flatnonzero(self.sea[row])[-1]
        spot = np.zeros(self.shape)
        spot[row, node] = 1
        spread = gaussian_filter(spot, (6e3 / self.dy, 6e3 / self.dx)) * self.sea
        return spread / spread.sum()

    def _texture(self, generator: torch.Generator) -> np.ndarray:
        """A smooth field of variance one, periodic along the coast and longer than the box."""
        noise = _normal(generator, 4 * self.shape[0], self.shape[1])
        widths = (8e3 / self.dy, 8e3 / self.dx)
        smooth = gaussian_filter(noise, widths, mode=("wrap", "nearest"))
        return smooth / smooth.std()

    def current(self, seconds: float, drift: float) -> tuple[np.ndarray, np.ndarray]:
        """The current in metres per second: tide, drift and eddies."""
        spring = 1 + 0.4 * math.cos(2 * math.pi * seconds / SPRING)
        phase = 2 * math.pi * seconds / TIDE
        across = 0.4 * self.coast.tide * spring * math.sin(phase)
        along = self.coast.tide * spring * math.cos(phase) + drift
        return across * self.fade + self.eddies[0], along * self.fade + self.eddies[1]

    def step(
        self, c: np.ndarray, seconds: float, weather: tuple[float, float, np.ndarray]
    ) -> np.ndarray:
        """The load one hour later."""
        drift, waves, rivers = weather
        u, v = self.current(seconds, drift)
        back = self.nodes - STEP * np.stack([v / self.dy, u / self.dx])
        c = map_coordinates(self._filled(c), back, order=1, mode="nearest")
        c = self._spread(np.where(self.sea, c, 0.0))
        c = self.coast.background + (c - self.coast.background) * self.decay
        c = c + self.coast.storm * waves * self.shore * (STEP / 86400)
        for (_, load), share, flow in zip(self.coast.rivers, self.mouths, rivers, strict=True):
            # Kilograms in an hour, over the 5 m of a plume that floats; in grams per cubic metre.
            c = c + 1e3 * load * flow * STEP * share / (self.dx * self.dy * 5)
        return c

    def _filled(self, c: np.ndarray) -> np.ndarray:
        """The load with land beside the sea at the value of the sea: nothing leaks to land."""
        sea, total = self.sea * 1.0, c * self.sea
        near = sum(np.roll(total, s, a) for s in (1, -1) for a in (0, 1))
        count = sum(np.roll(sea, s, a) for s in (1, -1) for a in (0, 1))
        mean = near / np.maximum(count, 1)
        return np.where(self.sea, c, np.where(count > 0, mean, self.coast.background))

    def _spread(self, c: np.ndarray) -> np.ndarray:
        """Diffusion between neighbours at sea, without a flux through coast or border."""
        out = c.copy()
        for axis, h in ((0, self.dy), (1, self.dx)):
            a, b = (np.take(self.sea, k, axis) for k in _pairs(self.shape[axis]))
            flux = self.coast.diffusivity * STEP / h**2 * np.diff(c, axis=axis) * (a & b)
            pad = [(0, 0), (0, 0)]
            pad[axis] = (1, 1)
            out += np.diff(np.pad(flux, pad), axis=axis)
        return out

    def seen(self, c: np.ndarray, travelled: float) -> np.ndarray:
        """The load under a texture that has moved along the coast; NaN on land."""
        rows = np.arange(self.shape[0]) - travelled / self.dy
        size = len(self.texture)
        low = np.floor(rows).astype(int)
        w = (rows - low)[:, None]
        z = (1 - w) * self.texture[low % size] + w * self.texture[(low + 1) % size]
        return np.where(self.sea, c * np.exp(0.25 * z - 0.03125), np.nan)


def _pairs(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(size - 1), np.arange(1, size)


def _dataset(spm: np.ndarray, times: np.ndarray, sea: _Sea, seed: int) -> xr.Dataset:
    what = {
        "units": "g m-3",
        "standard_name": "mass_concentration_of_suspended_matter_in_sea_water",
    }
    coords: dict[str, Any] = {
        "time": times,
        "lat": ("lat", sea.lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", sea.lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attributes = {"Conventions": "CF-1.8", "preset": "plume", "seed": seed, "version": VERSION}
    return xr.Dataset({"spm": (("time", "lat", "lon"), spm, what)}, coords, attributes)
