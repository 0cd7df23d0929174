r"""Multiscale fields of wave packets, the basis of MIOST."""

from __future__ import annotations

__all__ = ["PacketKernel", "WavePackets"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float, Int
from torch import Tensor

from .expansion import ExpansionPrior
from .quantities import Quantity
from ..domain import EARTH_RADIUS, Grid, Points
from ..kernels.base import Kernel, positive
from ..linalg.packets import Packets, PacketScale

WHERE = "WavePackets"
FARTHEST = 30.0
"""Degrees from the middle of the domain to where the tangent plane will do."""


class WavePackets(ExpansionPrior):
    r"""A field of waves in windows, of many wavelengths and directions: the basis of MIOST.

    .. math:: f(s, t) = m + \sum_{k, \theta, c} \sqrt{2} \, w_{kc}(s, t) \left( u_{k \theta c}
        \cos \kappa_{k \theta} \cdot s + v_{k \theta c} \sin \kappa_{k \theta} \cdot s \right)

    Wavelengths :math:`\lambda_k = 2 \pi / |\kappa_k|` are geometric, about a ratio of ``1 + step
    / cycles`` apart, and directions fill half a turn. The windows are products over the axes of
    :math:`\cos^2(\pi (x - c) / 2 h)`; on the axes of space :math:`h = \lambda_k \,
    \mathrm{cycles} / 2`, in time

    .. math:: h = T \, (\lambda_k / \lambda_0)^p, \text{ within two limits,}

    and their centres are :math:`h / \mathrm{overlap}` apart. Coefficients are independent; their
    std is that of longer waves, :math:`\lambda \geq \lambda_0`, and falls off as
    :math:`(\lambda / \lambda_0)^q` for shorter ones.

    The squares of such windows sum to a constant if they overlap by 3/2 or more (and twice that is
    whole); with an overlap of 1 their sum varies by a factor two along each axis. By default each
    window is divided by the root of that sum, so that the variance is flat exactly, whatever the
    overlap. With ``flat=False`` they are as they were published, and ``variance`` is the mean over
    space and time. Centres go beyond the domain, so that its edges are like its middle.

    On the sphere, positions are on the plane tangent to the middle of the domain: distances are
    right to 0.4 % ten degrees wide, to 3 % thirty degrees wide. Other solvers than
    :class:`Kriging`, which asks for the covariance, hold the windows fixed when they fit: the
    duration is then not learned.

    References:
        | Reconstructing ocean surface current combining altimetry and future spaceborne Doppler
          data (Ubelmann et al., 2021)
        | https://doi.org/10.1029/2020JC016560

    Arguments:
        domain: Where the field is wanted: two axes of space, and perhaps time.
        variance: The variance of the field, in its squared units.
        wavelengths: The shortest and the longest wavelength, in metres on the sphere, in the units
            of the axes on the plane.
        turning: The wavelength :math:`\lambda_0` where std and duration bend, in the same units.
        slope: The power :math:`q`.
        duration: The half-width :math:`T` of the windows in time at :math:`\lambda_0`, in days.
        duration_slope: The power :math:`p`.
        durations: The limits of the half-widths in time, in days.
        cycles: The number of wavelengths in a window.
        step: The ratio of neighbouring wavelengths is ``1 + step / cycles``.
        overlap: The half-width over the distance of centres, in space and in time.
        directions: The number of directions; by default the whole part of :math:`\pi` times
            ``cycles``, less one.
        flat: Whether windows are divided by the root of the sum of their squares.
        margin: How far from the domain data may be, in the units of space and in days; by default
            the shortest wavelength and the shortest half-width.
        learn_duration: Whether a fit may change ``duration``.
        mean: The known mean, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + lon + lat"``.

    Raises:
        ValueError: If the domain has not two axes of space or is too wide, or a number is not
            positive or out of order.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], lat=[38.0, 39.0], lon=[-60.0, -59.0, -58.0])
        >>> prior = WavePackets(grid, variance=0.04, wavelengths=(2e5, 8e5))
        >>> prior.variance(grid.points).sqrt()[::4].tolist()
        [0.2, 0.2, 0.2]
    """

    def __init__(
        self,
        domain: Grid | Points,
        variance: float = 1.0,
        wavelengths: tuple[float, float] = (80e3, 970e3),
        turning: float = 300e3,
        slope: float = 2.0,
        duration: float = 10.0,
        duration_slope: float = 1.28,
        durations: tuple[float, float] = (2.5, 40.0),
        cycles: float = 3.5,
        step: float = 1.5,
        overlap: tuple[float, float] = (1.0, 1.0),
        directions: int | None = None,
        flat: bool = True,
        margin: tuple[float, float] | None = None,
        learn_duration: bool = False,
        mean: float = 0.0,
        trend: str | None = None,
    ) -> None:
        super().__init__()
        _check_domain(domain)
        _check_ordered("wavelengths", wavelengths)
        _check_ordered("durations", durations)
        _check_overlap(overlap)
        self.domain, self.flat = domain, flat
        self.timed = "time" in domain.dims
        self.center = domain.center if domain.metric == "sphere" else (0.0, 0.0)
        self.epoch, self.overlap, self.durations = domain.epoch, overlap, durations
        self.turning, self.duration_slope = turning, duration_slope
        self.wavelengths = _geometric(wavelengths, 1 + _number("step", step) / cycles)
        self.half_widths = self.wavelengths * _number("cycles", cycles) / 2
        self.directions = directions or max(1, int(math.pi * cycles) - 1)
        self.log_variance = _logarithm("variance", variance)
        self.log_slope = _logarithm("slope", slope)
        self.log_duration = _logarithm("duration", duration, learn_duration and self.timed)
        _number("turning", turning)
        self._set_box(margin or (wavelengths[0], durations[0]))
        self._set_trend(mean, trend)

    def _set_box(self, margin: tuple[float, float]) -> None:
        x = self._frame(self.domain.points)
        least, most = x.min(dim=0).values, x.max(dim=0).values
        self.middle, self.reach = (least + most) / 2, (most - least) / 2
        beyond = [margin[1]] * self.timed + [margin[0]] * 2
        self.reach = self.reach + torch.tensor(beyond, dtype=torch.float64)

    def _frame(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns days, if there is time, and positions on the plane."""
        if points.dims != self.domain.dims or points.metric != self.domain.metric:
            msg = (
                f"{WHERE}(domain=...): expected points with dims {self.domain.dims} on the "
                f"{self.domain.metric}, got {points.dims} on the {points.metric}. "
                "Name the coordinates alike."
            )
            raise ValueError(msg)
        x = points.since(self.epoch).cartesian(self.center)
        if self.domain.metric == "sphere":
            _check_near(x[:, -1])
            x = x[:, :-1]
        return x

    def _inside(self, x: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        r"""Returns coordinates from the middle of the box, checked to be within it."""
        x = x - self.middle
        out = (x.abs() > self.reach * (1 + 1e-9) + 1e-9).any(dim=1)
        if out.any():
            msg = (
                f"{WHERE}(margin=...): expected points within the box of the domain, got "
                f"{int(out.sum())} of {len(out)} beyond it. Drop them, or give a margin."
            )
            raise ValueError(msg)
        return x

    def half_durations(self) -> Float[Tensor, " K"]:
        r"""Returns the half-widths of the windows in time, in days, of each wavelength."""
        ratio = (self.wavelengths / self.turning) ** self.duration_slope
        return (self.log_duration.exp() * ratio).clamp(*self.durations)

    def spectrum(self) -> Float[Tensor, " K"]:
        r"""Returns the variance of the field at each wavelength; its sum is the variance."""
        share = (self.wavelengths / self.turning).clamp(max=1) ** (2 * self.log_slope.exp())
        return self.log_variance.exp() * share / share.sum()

    def _white(self) -> Float[Tensor, " K"]:
        r"""Returns the variance of the coefficients of each wavelength."""
        raw = [] if self.flat else [self.overlap[0]] * 2 + [self.overlap[1]] * self.timed
        return self.spectrum() / (2 * self.directions * math.prod(0.75 * v for v in raw))

    def basis(self, points: Points) -> Packets:
        return Packets(self._scales(points))

    def _scales(self, points: Points) -> list[PacketScale]:
        return self.scales_at(self._frame(points))

    def scales_at(self, x: Float[Tensor, "m k"]) -> list[PacketScale]:
        r"""Returns what sites see of each wavelength: days, if any, and places on the plane."""
        x = self._inside(x)
        days = self.half_durations()
        return [self._scale(x, k, days[k]) for k in range(len(days))]

    def _scale(self, x: Float[Tensor, "m k"], k: int, days: Tensor) -> PacketScale:
        widths = [days] * self.timed + [self.half_widths[k]] * 2
        overlaps = [self.overlap[1]] * self.timed + [self.overlap[0]] * 2
        axes = [
            _windows(x[:, j], self.reach[j].item(), widths[j], overlaps[j], self.flat)
            for j in range(x.shape[1])
        ]
        windows, first, shape = zip(*axes, strict=True)
        return PacketScale(self._waves(x[:, -2:], k), windows, first, shape)

    def _waves(self, x: Float[Tensor, "m 2"], k: int) -> Float[Tensor, "m a"]:
        angle = torch.arange(self.directions, dtype=torch.float64) * math.pi / self.directions
        towards = torch.stack([angle.sin(), angle.cos()])  # the last axis points east
        phase = x @ towards * (2 * math.pi / self.wavelengths[k])
        return math.sqrt(2) * torch.cat([phase.cos(), phase.sin()], dim=1)

    def counts(self) -> list[int]:
        r"""Returns the number of packets of each wavelength."""
        return [s.count for s in self._scales(self.domain.points[:1])]

    def coefficient_variance(self) -> Float[Tensor, " N"]:
        return self._white().repeat_interleave(torch.tensor(self.counts()))

    def covariance(self, a: Points, b: Points) -> Float[Tensor, "p q"]:
        return self.covariance_at(self._frame(a), self._frame(b))

    def covariance_at(
        self, a: Float[Tensor, "p k"], b: Float[Tensor, "q k"]
    ) -> Float[Tensor, "p q"]:
        r"""Returns the covariances between sites: days, if any, and places on the plane."""
        left, right, d = self.scales_at(a), self.scales_at(b), self._white()
        K = torch.zeros(len(a), len(b), dtype=torch.float64)
        for k, (s, r) in enumerate(zip(left, right, strict=True)):
            K = K + d[k] * s.covariance(r)
        return K

    def variance(self, points: Points) -> Float[Tensor, " m"]:
        return self.variance_at(self._frame(points))

    def variance_at(self, x: Float[Tensor, "m k"]) -> Float[Tensor, " m"]:
        r"""Returns the variances at sites: days, if any, and places on the plane."""
        d = self._white()
        return torch.stack([d[k] * s.variance() for k, s in enumerate(self.scales_at(x))]).sum(0)

    def quantities(self) -> list[Quantity]:
        std = (self.log_variance / 2).exp()
        rows = [("std", std, "field"), ("slope", self.log_slope.exp(), "-")]
        return rows + [("duration", self.log_duration.exp(), "days")] * self.timed


class PacketKernel(Kernel):
    r"""The covariance of wave packets, for solvers that ask for one of coordinates.

    Where few data see many packets, it is quicker to solve for the data than for the packets.

    Arguments:
        packets: The packets. Coordinates are those of their domain.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], lat=[38.0, 39.0], lon=[-60.0, -59.0])
        >>> packets = WavePackets(grid, variance=0.04)
        >>> x = grid.points.cartesian(grid.center)
        >>> a, b = PacketKernel(packets)(x, x), packets.covariance(grid.points, grid.points)
        >>> torch.allclose(a, b)
        True
    """

    def __init__(self, packets: WavePackets) -> None:
        super().__init__()
        self.packets = packets

    def _plane(self, x: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch j"]:
        return x[..., :-1] if self.packets.domain.metric == "sphere" else x

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        if a.ndim > 2:
            return torch.stack([self(x, s) for x, s in zip(a, b, strict=True)])
        return self.packets.covariance_at(self._plane(a), self._plane(b))

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.packets.variance_at(self._plane(a).flatten(0, -2)).reshape(a.shape[:-1])


def _windows(
    x: Float[Tensor, " m"], half: float, width: Tensor, overlap: float, flat: bool
) -> tuple[Float[Tensor, "m k"], Int[Tensor, " m"], int]:
    r"""Returns the windows that each coordinate is in, the first of them, and how many there are.

    Centres are at whole steps from the middle: all those whose windows reach the box.
    """
    step = width / overlap
    near, reach = math.ceil(2 * overlap), half * (1 + 1e-9) + 1e-9
    d = step.item()
    farthest = math.floor(reach / d - overlap) + near
    farthest = max(farthest, math.ceil(reach / d + overlap) - 1, 0)
    first = torch.floor(x / d - overlap).long() + 1
    place = first[:, None] + torch.arange(near)
    far = (x[:, None] - place * step) / width
    w = torch.where(far.abs() < 1, (far * math.pi / 2).cos().square(), 0)
    w = w / w.square().sum(dim=1, keepdim=True).sqrt() if flat else w
    return w, first + farthest, 2 * farthest + 1


def _geometric(wavelengths: Sequence[float], ratio: float) -> Float[Tensor, " K"]:
    shortest, longest = wavelengths
    count = round(math.log(longest / shortest) / math.log(ratio)) + 1
    ends = (math.log(shortest), math.log(longest))
    return torch.linspace(*ends, max(count, 1), dtype=torch.float64).exp()


def _number(name: str, value: float) -> float:
    return positive(WHERE, name, value).item()


def _logarithm(name: str, value: float, learn: bool = True) -> nn.Parameter:
    return nn.Parameter(positive(WHERE, name, value).log(), requires_grad=learn)


def _check_domain(domain: Grid | Points) -> None:
    space = [k for k in domain.dims if k != "time"]
    if len(space) != 2:
        msg = (
            f"{WHERE}(domain=...): expected two axes of space, and perhaps time, got "
            f"{domain.dims}. Take one depth at a time."
        )
        raise ValueError(msg)


def _check_ordered(name: str, limits: Sequence[float]) -> None:
    if len(limits) != 2 or not 0 < limits[0] <= limits[1] < math.inf:
        msg = (
            f"{WHERE}({name}=...): expected two positive numbers, the lower one first, got "
            f"{tuple(limits)}. Check the units."
        )
        raise ValueError(msg)


def _check_overlap(overlap: Sequence[float]) -> None:
    if len(overlap) != 2 or not all(1 <= v < math.inf for v in overlap):
        msg = (
            f"{WHERE}(overlap=...): expected at least 1 in space and in time, got "
            f"{tuple(overlap)}. Windows further apart leave holes."
        )
        raise ValueError(msg)


def _check_near(up: Float[Tensor, " m"]) -> None:
    least = math.cos(math.radians(FARTHEST)) - 1
    if up.min() / EARTH_RADIUS < least:
        msg = (
            f"{WHERE}(domain=...): expected points within {FARTHEST:.0f} degrees of the middle, "
            "got some beyond, where no plane will do. Map it by smaller boxes."
        )
        raise ValueError(msg)
