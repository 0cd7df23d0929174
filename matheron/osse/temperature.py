r"""The temperature of the surface of a simulated ocean: carried by its flow, forgotten slowly."""

from __future__ import annotations

__all__ = ["Climate", "SurfaceTemperature", "advected", "see_temperature"]

import dataclasses
import math
import numpy as np
import torch
import xarray as xr

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Complex, Float
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import Tensor

from .clouds import AVHRR
from .spectra import white
from ..domain import EARTH_RADIUS
from ..dynamics import TwoLayerQG

VERSION = 1
"""Changes whenever the same flow gives another temperature."""
DAY = 86400.0
COURANT = 0.4
"""The most of a cell that leaves it through one face in one step."""
ERROR_STD = 0.3
"""The std of the errors of the analysed temperature, in degrees."""
ERROR_SCALE, ERROR_MEMORY = 1e5, 4.0
"""Where and when errors are others: metres, days."""
FOOTPRINT = 0.25
"""The width over which an analysis averages, in degrees."""
CELSIUS = "degree_Celsius"


@dataclass(frozen=True)
class Climate:
    r"""What the temperature would be without a flow, and how fast it is again.

    .. math:: \dot T + u \cdot \nabla T = \kappa \Delta T - (T - \bar T) / \tau, \qquad
        \bar T(y) = \frac{T_n + T_s}{2} + \frac{T_n - T_s}{2} \tanh \frac{y}{w}

    Arguments:
        north: The temperature :math:`T_n` far to the north, in degrees Celsius.
        south: That far to the south.
        width: The half width :math:`w` of the front, in metres.
        memory: The time :math:`\tau` after which the flow is forgotten, in days.
        diffusivity: The diffusivity :math:`\kappa`, in square metres per second.
        spin_up: The days until the temperature follows the flow.
    """

    north: float = 12.0
    south: float = 26.0
    width: float = 1.7e5
    memory: float = 45.0
    diffusivity: float = 50.0
    spin_up: int = 60

    def at(self, y: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        r"""Returns the climatology at distances to the north of the middle, in metres."""
        middle, half = (self.north + self.south) / 2, (self.north - self.south) / 2
        return middle + half * np.tanh(y / self.width)


OPEN_OCEAN = Climate()
"""That of the Gulf Stream."""


def advected(
    c: Float[Tensor, "n k"],
    fluxes: Sequence[Float[Tensor, "n k"]],
    jump: float = 0.0,
) -> Float[Tensor, "n k"]:
    r"""Returns a tracer carried by a flow without divergence, on a doubly periodic lattice.

    What leaves a cell enters its neighbour: the total is kept to rounding. In a cell the tracer is
    a slope that makes no new extrema (monotonized central), so that there are none in the field;
    where it is smooth the scheme is of second order. Axes take turns, there and back.

    References:
        | Towards the ultimate conservative difference scheme. IV (van Leer, 1977)
        | https://doi.org/10.1016/0021-9991(77)90095-X
        | Multidimensional flux-form semi-Lagrangian transport schemes (Lin & Rood, 1996)
        | https://doi.org/10.1175/1520-0493(1996)124<2046:MFFSLT>2.0.CO;2

    Arguments:
        c: The tracer.
        fluxes: How many cells go through the face after each node in the time that passes, along
            each axis.
        jump: What the tracer gains from one period of the first axis to the next.

    Example:
        >>> c = torch.zeros(4, 4, dtype=torch.float64)
        >>> c[0, 0] = 1.0
        >>> one = torch.ones(4, 4, dtype=torch.float64)
        >>> round(advected(c, (0 * one, one)).sum().item(), 12)
        1.0
    """
    largest = max(float(f.abs().max()) for f in fluxes)
    steps = 2 * max(1, math.ceil(largest / COURANT / 2))
    jumps = (jump, 0.0)
    for k in range(steps):
        weight = torch.ones_like(c)
        for axis in (0, 1) if k % 2 == 0 else (1, 0):
            c, weight = _swept(c, weight, fluxes[axis] / steps, axis, jumps[axis])
    return c


def _swept(
    c: Tensor, weight: Tensor, flux: Tensor, axis: int, jump: float
) -> tuple[Tensor, Tensor]:
    r"""Returns tracer and content of cells after the flow along one axis.

    A flow along one axis fills cells and empties them; the other axis puts that right. All is in
    differences from the cell itself, so that the tracer may go on beyond a period.
    """
    ahead = _ahead(c, axis, jump)
    behind = ahead.roll(1, axis)
    slope = _limited(ahead, behind)
    part = flux / torch.where(flux > 0, weight, weight.roll(-1, axis))
    out = torch.where(
        flux > 0,
        (1 - part) / 2 * slope,
        ahead - (1 + part) / 2 * slope.roll(-1, axis),
    )
    into, before = flux.roll(1, axis), out.roll(1, axis) - behind
    left = weight - flux + into
    return c - (flux * out - into * before) / left, left


def _ahead(c: Tensor, axis: int, jump: float) -> Tensor:
    r"""Returns the difference of the next node along an axis and each node."""
    d = c.roll(-1, axis) - c
    if jump:
        d.select(axis, -1).add_(jump)
    return d


def _limited(ahead: Tensor, behind: Tensor) -> Tensor:
    size = torch.minimum(2 * torch.minimum(ahead.abs(), behind.abs()), (ahead + behind).abs() / 2)
    return torch.where(ahead * behind > 0, size * ahead.sign(), 0.0)


class SurfaceTemperature:
    r"""The temperature at the nodes of a model of quasi-geostrophic turbulence.

    It goes with the flow of the upper layer: its eddies and the steady current that they live on.
    That goes on beyond the square to the north and to the south, where the climatology does not
    come back: it is taken for one step of a staircase.

    Arguments:
        model: The model.
        current: The steady velocity of the upper layer to the east, in metres per second.
        climate: What the temperature would be without a flow.
    """

    def __init__(self, model: TwoLayerQG, current: float, climate: Climate) -> None:
        self.model, self.current, self.climate = model, current, climate
        n, self.step = model.size, model.length / model.size
        self.nodes = (np.arange(n) / n - 0.5) * model.length
        rest = torch.as_tensor(climate.at(self.nodes))
        self.rest = rest[:, None].expand(n, n)
        ends = climate.at(np.array([-0.5, 0.5]) * model.length)
        self.jump = float(ends[1] - ends[0])
        self.kept = math.exp(-model.dt / (climate.memory * DAY))
        k, l = (torch.fft.rfftfreq(n), torch.fft.fftfreq(n)[:, None])
        self.corner = torch.exp(1j * math.pi * (k + l))  # half a step to the north and to the east

    def start(self) -> Float[Tensor, "n n"]:
        r"""Returns the temperature of an ocean at rest."""
        return self.rest.clone()

    def advance(
        self,
        c: Float[Tensor, "n n"],
        before: Complex[Tensor, "2 n k"],
        after: Complex[Tensor, "2 n k"],
    ) -> Float[Tensor, "n n"]:
        r"""Returns the temperature after a step of the model.

        Arguments:
            c: The temperature.
            before: The state of the model, as it steps.
            after: That at the end of the step.
        """
        c = advected(c, self.fluxes((before + after) / 2), self.jump)
        spread = self.climate.diffusivity * self.model.dt / self.step**2
        for axis, jump in ((0, self.jump), (1, 0.0)):
            d = _ahead(c, axis, jump)
            c = c + spread * (d - d.roll(1, axis))
        return self.rest + self.kept * (c - self.rest)

    def fluxes(
        self, state: Complex[Tensor, "2 n k"]
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
        r"""Returns the cells that go through each face in a step, to the north and to the east.

        Differences of the streamfunction at corners have no divergence, to rounding.
        """
        psi = self.model.leave(self.model.streamfunction(state)[0] * self.corner).double()
        part = self.model.dt / self.step**2
        north, east = part * (psi - psi.roll(1, 1)), -part * (psi - psi.roll(1, 0))
        return north, east + self.current * self.model.dt / self.step

    def weights(self, at: Float[np.ndarray, " k"]) -> Float[Tensor, "k n"]:
        r"""Returns the weights of the nodes along an axis: linear, which makes no extrema."""
        place = (at - self.nodes[0]) / self.step
        away = np.abs(place[:, None] - np.arange(len(self.nodes)))
        away = np.minimum(away, len(self.nodes) - away)
        return torch.as_tensor(np.clip(1 - away, 0, None))


def see_temperature(
    truth: xr.Dataset,
    generator: torch.Generator | None = None,
    *,
    error_std: float = ERROR_STD,
    clouds: bool = False,
) -> xr.Dataset:
    r"""Returns what an analysis of temperature gives each day: smooth, with smooth errors.

    Errors are Gaussian, of 100 km and four days.

    Arguments:
        truth: The truth, with ``sst(time, lat, lon)`` each day.
        generator: The random number generator.
        error_std: The std of errors, in degrees.
        clouds: Whether clouds hide it: NaN there.

    Example:
        >>> time = np.datetime64("2020-01-01") + np.arange(5) * np.timedelta64(1, "D")
        >>> axes = {"time": time, "lat": np.arange(44, 46, 0.1), "lon": np.arange(-4, -2, 0.1)}
        >>> truth = xr.Dataset({"sst": (tuple(axes), np.full((5, 20, 20), 15.0))}, axes)
        >>> see_temperature(truth, torch.Generator().manual_seed(0))["sst"].dims
        ('time', 'lat', 'lon')
    """
    field = truth["sst"].transpose("time", "lat", "lon")
    lat, lon, time = (field[k].values for k in ("lat", "lon", "time"))
    # the std of a Gaussian is that of the average over the footprint
    cells = [FOOTPRINT / 12**0.5 / abs(a[1] - a[0]) for a in (lat, lon)]
    values = gaussian_filter(field.values.astype(np.float64), (0, *cells), mode="nearest")
    steps = [EARTH_RADIUS * np.deg2rad(abs(a[1] - a[0])) for a in (lat, lon)]
    steps[1] *= np.cos(np.deg2rad(lat.mean()))
    values += error_std * _errors(values.shape, steps, generator)
    told = {"error_std": error_std, "gaps": "clouds" if clouds else "none"}
    if clouds:
        hidden = AVHRR.draw(lat.astype(np.float64), lon.astype(np.float64), time, generator)
        values = np.where(hidden.values, np.nan, values)
    seen = field.copy(data=values.astype(np.float32)).to_dataset(name="sst")
    return seen.assign_attrs(truth.attrs | told)


def _errors(
    shape: tuple[int, int, int], steps: Sequence[float], generator: torch.Generator | None
) -> Float[np.ndarray, "t h w"]:
    r"""Draws smooth fields of variance one that change slowly."""
    widths = [ERROR_SCALE / 2 / s for s in steps]
    margins = [math.ceil(4 * w) for w in widths]
    wide = [n + 2 * m for n, m in zip(shape[1:], margins, strict=True)]
    inner = tuple(slice(m, m + n) for n, m in zip(shape[1:], margins, strict=True))
    kept, size = math.exp(-1 / ERROR_MEMORY), math.prod(_spread(w) for w in widths)
    found, noise = np.empty(shape), white((*wide,), generator)
    for day in range(shape[0]):
        found[day] = gaussian_filter(noise, widths)[inner] / size
        noise = kept * noise + math.sqrt(1 - kept**2) * white((*wide,), generator)
    return found


def _spread(width: float) -> float:
    r"""Returns the std of white noise that was smoothed along one axis."""
    impulse = np.zeros(2 * math.ceil(4 * width) + 3)
    impulse[len(impulse) // 2] = 1.0
    return float(np.sqrt(np.square(gaussian_filter1d(impulse, width)).sum()))


def settings_of(climate: Climate) -> dict[str, object]:
    r"""Returns what tells a temperature from others of the same flow."""
    return {"sst": VERSION, **dataclasses.asdict(climate)}
