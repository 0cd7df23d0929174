r"""Nature runs: oceans that nobody has seen, to be observed, mapped and scored."""

from __future__ import annotations

__all__ = ["PRESETS", "Preset", "mean_front", "nature_run"]

import contextlib
import dataclasses
import math
import numpy as np
import torch
import xarray as xr

from collections.abc import Callable, Iterator
from pathlib import Path
from torch import Tensor
from typing import Any

from . import spun_up
from .temperature import CELSIUS, OPEN_OCEAN, Climate, SurfaceTemperature, settings_of
from ..domain import EARTH_RADIUS
from ..dynamics import TwoLayerQG

VERSION = 1
"""Changes whenever the same seed gives another ocean."""

HOURS = 6
DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Preset:
    r"""A region of the ocean, and the two-layer turbulence that stands for it.

    Arguments:
        lat: The southern and northern ends of the box, in degrees.
        lon: The western and eastern ends of the box, in degrees.
        model: The arguments of :class:`~matheron.dynamics.TwoLayerQG`, but its size and step.
        step: The time step with 128 nodes on a side, in seconds.
        spin_up: The days until the turbulence is in balance.
        front: The half height of the mean front, in metres.
        width: The half width of the mean front, in degrees of latitude.
        tilt: The degrees of latitude that the front gains with each degree of longitude.
        climate: What the temperature of the surface would be without a flow.
    """

    lat: tuple[float, float]
    lon: tuple[float, float]
    model: dict[str, Any]
    step: float
    spin_up: int
    front: float
    width: float
    tilt: float = 0.0
    climate: Climate = OPEN_OCEAN


PRESETS = {
    # Eddies of .2 to .3 m, as wide and as quick as south of the Gulf Stream.
    "gulfstream": Preset(
        lat=(33.0, 43.0),
        lon=(-65.0, -55.0),
        model={
            "length": 1.28e6,
            "radius": 3e4,
            "beta": 1.75e-11,
            "flow": (0.15, 0.0),
            "drag": 1 / (10 * DAY),
            "coriolis": 9e-5,
        },
        step=4320.0,
        spin_up=250,
        front=0.6,
        width=1.5,
        tilt=0.15,
    ),
    # Eddies of 5 to 8 cm under a deformation radius of 14 km.
    "mediterranean": Preset(
        lat=(36.0, 42.0),
        lon=(1.0, 9.0),
        model={
            "length": 7.68e5,
            "radius": 1.4e4,
            "beta": 1.77e-11,
            "flow": (0.045, 0.0),
            "drag": 1 / (20 * DAY),
            "coriolis": 9.2e-5,
        },
        step=5400.0,
        spin_up=450,
        front=0.08,
        width=1.0,
        climate=Climate(north=14.0, south=20.0, width=1.1e5),
    ),
    # Eddies of 3 to 5 cm that live for weeks, as in the east of the basins.
    "quiet": Preset(
        lat=(38.0, 48.0),
        lon=(-30.0, -20.0),
        model={
            "length": 1.28e6,
            "radius": 1.8e4,
            "beta": 1.6e-11,
            "flow": (0.045, 0.0),
            "drag": 1 / (15 * DAY),
            "coriolis": 1e-4,
        },
        step=5400.0,
        spin_up=500,
        front=0.15,
        width=3.0,
        climate=Climate(north=13.0, south=19.0, width=2e5),
    ),
}
"""The regions, by name."""

Progress = Callable[[int, int], None]


def nature_run(
    preset: str = "gulfstream",
    seed: int = 0,
    days: int = 365,
    *,
    start: str = "2012-10-01",
    size: int = 128,
    spacing: float = 0.1,
    spin_up: int | None = None,
    sst: bool = False,
    cache: str | Path | bool = True,
    progress: Progress | None = None,
) -> xr.Dataset:
    r"""Returns the sea surface height of a turbulent ocean, every 6 hours on a box.

    The turbulence is that of two layers on a periodic square (:class:`TwoLayerQG`, in single
    precision), spun up from noise; the box, smaller than the square, is cut out by trigonometric
    interpolation, which is exact, and a mean front that does not move is added. The same preset,
    seed, size and machine give the same field; more days go on from it.

    Arguments:
        preset: The name of a region in :data:`PRESETS`.
        seed: The seed of the noise that the ocean grows from: another seed is another ocean.
        days: The number of days, with 4 fields each.
        start: The date of the first field.
        size: The number of nodes of the model on a side; the spacing is that of the presets,
            10 km in the open ocean and 6 km in the Mediterranean, with 128.
        spacing: The spacing of latitudes and longitudes, in degrees.
        spin_up: The days before the first field; by default those that the preset needs to be
            in balance. With fewer the eddies are still weak.
        sst: Whether the flow also carries a temperature, which it does not feel: the heights are
            the same, bit for bit. It follows the flow from the last days of the spin-up on.
        cache: The folder of the spun-up states; ``True`` is the user's own
            (``$XDG_CACHE_HOME/matheron/nature``), ``False`` keeps none.
        progress: Called with the days done and the days to do, spin-up included.

    Returns:
        ``ssh(time, lat, lon)`` in metres, the mean front included, and ``mdt(lat, lon)``; with a
        temperature also ``sst(time, lat, lon)`` in degrees Celsius.

    Raises:
        ValueError: If the preset is not known, ``days`` is under one, or ``spacing`` does not
            divide the box.

    Example:
        >>> truth = nature_run("gulfstream", days=1, size=16, spacing=1.0, spin_up=5, cache=False)
        >>> dict(truth.sizes)
        {'time': 4, 'lat': 11, 'lon': 11}
    """
    region = _preset(preset, spin_up)
    _check_days(days)
    model, per_output = _model(region, size)
    lat, lon = (_axis(name, getattr(region, name), spacing) for name in ("lat", "lon"))
    settings = {"preset": preset, "seed": seed, "size": size, "version": VERSION}
    settings |= {"spin_up": region.spin_up, "dt": model.dt, **region.model}
    warm = SurfaceTemperature(model, region.model["flow"][0], region.climate) if sst else None
    ocean = _Ocean(model, per_output, warm)
    with _one_thread(), torch.no_grad():
        state, tell = ocean.spun_up(settings, spun_up.folder(cache), region, days, progress)
        places = _places(region, lat, lon)
        fields, temperatures = ocean.fields(*state, days, places, tell)
    mdt = mean_front(region, lat, lon)
    ssh = (fields + mdt).astype(np.float32)
    times = np.datetime64(start, "ns") + np.arange(len(ssh)) * np.timedelta64(HOURS, "h")
    run = _dataset(ssh, mdt, times, lat, lon, {"preset": preset, "seed": seed})
    return run if warm is None else run.assign(sst=_labelled(temperatures))


def mean_front(region: Preset, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    r"""Returns the mean dynamic topography of a region, in metres, with shape (lat, lon).

    .. math:: -a \tanh\left( \frac{\varphi - \varphi_0 - t (\lambda - \lambda_0)}{w} \right)
    """
    at = np.mean(region.lat) + region.tilt * (lon - np.mean(region.lon))
    return -region.front * np.tanh((lat[:, None] - at) / region.width)


def _preset(name: str, spin_up: int | None) -> Preset:
    if name not in PRESETS:
        msg = (
            f"nature_run(preset=...): expected one of {', '.join(PRESETS)}, got {name!r}. "
            "Choose one."
        )
        raise ValueError(msg)
    region = PRESETS[name]
    return region if spin_up is None else dataclasses.replace(region, spin_up=spin_up)


def _check_days(days: int) -> None:
    if days < 1:
        msg = f"nature_run(days=...): expected one day or more, got {days}. Ask for 365, say."
        raise ValueError(msg)


def _model(region: Preset, size: int) -> tuple[TwoLayerQG, int]:
    """The model, and its number of steps from one output to the next."""
    steps = math.ceil(HOURS * 3600 * size / 128 / region.step - 1e-9)
    dt = HOURS * 3600 / steps
    return TwoLayerQG(size, dt=dt, dtype=torch.float32, **region.model), steps


def _axis(name: str, ends: tuple[float, float], spacing: float) -> np.ndarray:
    parts = (ends[1] - ends[0]) / spacing if spacing > 0 else 0.0
    count = round(parts)
    if count < 1 or abs(parts - count) > 1e-6:
        msg = (
            f"nature_run(spacing=...): expected degrees that divide the {ends[1] - ends[0]:g} "
            f"degrees of {name}, got {spacing}. Take 0.1, say."
        )
        raise ValueError(msg)
    # From whole multiples, so that 33.1 is the float that anyone would write.
    return np.round(ends[0] + np.arange(count + 1) * spacing, 9)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Grids this small gain nothing from threads that wait for each other at every operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _teller(progress: Progress | None, rest: int, total: int) -> Callable[[int, bool], None]:
    def tell(day: int, spun: bool) -> None:
        if progress is not None:
            progress(day + (rest if spun else 0), total)

    return tell


Tell = Callable[[int, bool], None]
Start = tuple[Tensor, Tensor | None]
"""The vorticity of an ocean, and the temperature that it carries, if any."""


@dataclasses.dataclass(frozen=True)
class _Ocean:
    r"""A model, its number of steps from one output to the next, and what it carries."""

    model: TwoLayerQG
    per_output: int
    warm: SurfaceTemperature | None = None

    def spun_up(
        self,
        settings: dict[str, Any],
        where: Path | None,
        region: Preset,
        days: int,
        progress: Progress | None,
    ) -> tuple[Start, Tell]:
        """The state in balance, from the cache if it is there, and what is told from then on."""
        known = settings if self.warm is None else settings | settings_of(region.climate)
        layers = 2 if self.warm is None else 3
        state = spun_up.load(where, known, layers) if where else None
        rest = 0 if state is not None else region.spin_up
        tell = _teller(progress, rest, rest + days)
        if state is None:
            state = self._spin_up(region, settings["seed"], tell)
            if where:
                spun_up.save(where, known, state)
        return (state[:2], state[2].double() if len(state) == 3 else None), tell

    def _spin_up(self, region: Preset, seed: int, tell: Tell) -> Tensor:
        """The vorticity, and below it the temperature, which starts late: it forgets sooner."""
        state = self.model.enter(self.model.initial(torch.Generator().manual_seed(seed)))
        warm, first = self.warm, max(0, region.spin_up - region.climate.spin_up)
        c = None
        for day in range(region.spin_up):
            c = warm.start() if warm is not None and day == first else c
            state, c = self._advance(state, c, self.per_output * 24 // HOURS)
            tell(day + 1, False)
        q = self.model.leave(state)
        if warm is None:
            return q
        return torch.cat([q, (warm.start() if c is None else c)[None].to(q.dtype)])

    def _advance(self, state: Tensor, c: Tensor | None, steps: int) -> Start:
        for _ in range(steps):
            before, state = state, self.model.advance(state)
            if self.warm is not None and c is not None:
                c = self.warm.advance(c, before, state)
        return state, c

    def fields(
        self,
        q: Tensor,
        c: Tensor | None,
        days: int,
        places: tuple[np.ndarray, np.ndarray],
        tell: Tell,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The heights and the temperatures on the box, from a spun-up state on."""
        across, along = (_trigonometric(at, self.model) for at in places)
        sides = [] if self.warm is None else [self.warm.weights(at) for at in places]
        state, outputs = self.model.enter(q), days * 24 // HOURS
        fields = np.empty((outputs, len(across), len(along)), dtype=np.float32)
        temperatures = fields[:0] if c is None else np.empty_like(fields)
        for k in range(outputs):
            fields[k] = (across @ self.model.elevation(state) @ along.mT).numpy()
            if c is not None:
                temperatures[k] = (sides[0] @ c @ sides[1].mT).numpy()
            state, c = self._advance(state, c, self.per_output)
            if (k + 1) % (24 // HOURS) == 0:
                tell((k + 1) * HOURS // 24, True)
        return fields, temperatures


def _places(region: Preset, lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where latitudes and longitudes are on the square, in metres from its middle."""
    middle = np.deg2rad(np.mean(region.lat))
    y = EARTH_RADIUS * (np.deg2rad(lat) - middle)
    return y, EARTH_RADIUS * np.cos(middle) * np.deg2rad(lon - np.mean(region.lon))


def _cut(
    region: Preset, model: TwoLayerQG, lat: np.ndarray, lon: np.ndarray
) -> tuple[Tensor, Tensor]:
    """The weights of the nodes of the square, middle on middle, along y and along x."""
    y, x = _places(region, lat, lon)
    return _trigonometric(y, model), _trigonometric(x, model)


def _trigonometric(at: np.ndarray, model: TwoLayerQG) -> Tensor:
    """Interpolation of a periodic function from its nodes, exact up to the Nyquist wave."""
    n = model.size
    nodes = np.arange(n) / n
    turn = 2 * np.pi * (at[:, None] / model.length + 0.5 - nodes)
    k = np.arange(1, n // 2)[:, None, None]
    weights = 1 + 2 * np.cos(k * turn).sum(0) + np.cos(n // 2 * turn)
    return torch.as_tensor(weights / n, dtype=model.dtype)


def _dataset(
    ssh: np.ndarray,
    mdt: np.ndarray,
    times: np.ndarray,
    lat: np.ndarray,
    lon: np.ndarray,
    made: dict[str, Any],
) -> xr.Dataset:
    above = {"units": "m", "standard_name": "sea_surface_height_above_geoid"}
    north = {"units": "degrees_north", "standard_name": "latitude"}
    east = {"units": "degrees_east", "standard_name": "longitude"}
    mean = {"units": "m", "long_name": "mean dynamic topography"}
    return xr.Dataset(
        {
            "ssh": (("time", "lat", "lon"), ssh, above),
            "mdt": (("lat", "lon"), mdt.astype(np.float32), mean),
        },
        {"time": times, "lat": ("lat", lat, north), "lon": ("lon", lon, east)},
        {"Conventions": "CF-1.8", **made, "version": VERSION},
    )


def _labelled(temperatures: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    told = {"units": CELSIUS, "standard_name": "sea_surface_temperature"}
    return ("time", "lat", "lon"), temperatures, told
