r"""The covariance of sea level that operational altimetry maps use."""

from __future__ import annotations

__all__ = ["ArhanColin", "Propagating", "arhan_colin"]

import functools
import math
import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import Kernel, Product
from .spacetime import separable
from .stationary import Gaussian, Stationary
from ..linalg.composition import Composition, RadialTable, radial_table

ZERO = 3.34
"""The argument at which the correlation first vanishes, to the digits of the literature."""


class ArhanColin(Stationary):
    r"""The Arhan and Colin de Verdiere covariance, with a negative lobe.

    .. math:: c(r) = \sigma^2 \left( 1 + u + \frac{u^2}{6} - \frac{u^3}{6} \right) e^{-u},
        \qquad u = 3.34 \, r / \ell

    The lengthscale is the distance at which it first vanishes; it is negative beyond. In the
    plane its spectrum is, with wavenumbers :math:`k` in units of :math:`3.34 / \ell`,

    .. math:: S_2(k) \propto \frac{k^2}{(1 + k^2)^{9/2}} \ge 0

    so that it is positive definite there, without any power at the scale of the basin, as becomes
    a field whose mean is removed. In one dimension :math:`S_1 \propto (1 + 7 k^2) / (1 + k^2)^4`
    is positive too. In a volume :math:`S_3 \propto (7 k^2 - 1) / (1 + k^2)^5` is negative below
    :math:`k = 7^{-1/2}`: it is no covariance over (z, y, x), and is not to be used there. Between
    points at the surface of the sphere it is one, for lengthscales from 200 to 1000 km as tested.

    References:
        | On the eddy field in the Tourbillon area (Arhan and Colin de Verdiere, 1985)
        | https://doi.org/10.1175/1520-0485(1985)015<1153:DOEMIT>2.0.CO;2
        | Global high-resolution mapping of ocean circulation from TOPEX/Poseidon and ERS-1 and -2
        | (Ducet, Le Traon and Reverdin, 2000), https://doi.org/10.1029/2000JC900063

    Example:
        >>> kernel = ArhanColin(lengthscale=3.34)
        >>> r = torch.tensor([[0.0], [1.0], [5.0]])
        >>> [round(c, 3) for c in kernel(r[:1], r)[0].tolist()]
        [1.0, 0.736, -0.072]
    """

    radial = "table"

    def scaled(self, x: Float[Tensor, "*batch k"]) -> Tensor:
        scaled = super().scaled(x)
        if scaled.shape[-1] > 3:
            msg = (
                f"ArhanColin(axes=...): expected at most 3 coordinates, those of space, got "
                f"{scaled.shape[-1]}. Use arhan_colin(), or axes='space' and a kernel over 'time'."
            )
            raise ValueError(msg)
        return scaled * ZERO

    def _table(self) -> RadialTable:
        return _table()


def _value(u: Tensor) -> Tensor:
    return (1 + u + u**2 / 6 - u**3 / 6) * (-u).exp()


def _slope(u: Tensor) -> Tensor:
    return (u / 6) * (u**2 - 4 * u - 4) * (-u).exp()


@functools.lru_cache(maxsize=1)
def _table() -> RadialTable:
    return radial_table(_value, _slope, end=50.0)  # beyond, under 1e-17


def arhan_colin(
    lengthscale: float | Sequence[float] = 150e3,
    duration: float = 15.0,
    variance: float = 1.0,
    velocity: float | Sequence[float] | None = None,
    northing: Sequence[float] | None = None,
) -> Kernel:
    r"""Returns the space-time covariance of operational maps of sea level.

    .. math:: c(h, t) = \sigma^2 \, \rho(h - v t) \, e^{-t^2 / T^2}

    with the radial function :math:`\rho` of :class:`ArhanColin`. The Gaussian in time has no
    :math:`1/2`: its lengthscale is :math:`T / \sqrt{2}`.

    Arguments:
        lengthscale: The distance of the first zero, in metres on the sphere: one number, or one
            per axis of space.
        duration: :math:`T`, in days.
        variance: The variance :math:`\sigma^2`.
        velocity: The velocity :math:`v` of propagation along the last axis (to the east), in
            metres per day on the sphere; negative to the west. See :class:`Propagating`.
        northing: The northings at which ``velocity`` is given, if it varies.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(time=[0.0, 5.0], lat=[38.0, 39.0], lon=[-65.0, -64.0])
        >>> mt.GaussianProcess(arhan_colin(150e3, 15.0, velocity=-3e3), grid).sample(2).shape
        torch.Size([2, 8])
    """
    time = Gaussian(1.0, duration / math.sqrt(2), axes="time")
    kernel: Product = separable(time, ArhanColin(variance, lengthscale, axes="space"))
    return kernel if velocity is None else Propagating(kernel, velocity, northing)


class Propagating(Kernel):
    r"""A kernel seen along a motion to the east, whose speed may vary with the northing.

    .. math:: c(a, b) = k(w(a), w(b)), \qquad w(t, y, x) = (t, y, x - v(y) \, t)

    Structures drift at the velocity :math:`v`, as Rossby waves do to the west. Moving coordinates
    keeps every kernel positive definite. On the sphere coordinates are metres to the north and to
    the east of the middle of the domain: for basins, not for the globe.

    Arguments:
        kernel: The kernel, over time and two axes of space or more.
        velocity: The velocity, in units of the coordinates per day: one number, or one per
            northing.
        northing: The increasing northings (coordinates along the axis before the last one of the
            plane) at which ``velocity`` is given; linear between, constant beyond.

    Raises:
        ValueError: If ``velocity`` and ``northing`` do not match, or the latter do not increase.

    Example:
        >>> kernel = Propagating(Gaussian(), velocity=-2.0)
        >>> a, b = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, -2.0]])  # a day later, carried
        >>> kernel(a, b).item()  # exp(-1 / 2): as if it had not moved
        0.60653...
    """

    velocity: Tensor
    northing: Tensor

    def __init__(
        self,
        kernel: Kernel,
        velocity: float | Sequence[float] | Tensor,
        northing: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        v = torch.as_tensor(velocity, dtype=torch.float64).reshape(-1)
        y = torch.zeros(1) if northing is None else torch.as_tensor(northing)
        y = y.to(torch.float64).reshape(-1)
        if len(v) != len(y) or not v.isfinite().all() or not (y.diff() > 0).all():
            msg = (
                f"Propagating(velocity=..., northing=...): expected finite velocities, one per "
                f"increasing northing, got {len(v)} and {y.tolist()[:4]}. Give one number, or as "
                "many as there are northings."
            )
            raise ValueError(msg)
        self.register_buffer("velocity", v)
        self.register_buffer("northing", y)

    @property
    def linear(self) -> bool:
        return self.kernel.linear and len(self.velocity) == 1

    def moved(self, x: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        r"""Returns the coordinates :math:`w(x)`."""
        east = x[..., 2] - self._speed(x[..., 1]).to(x.dtype) * x[..., 0]
        return torch.cat([x[..., :2], east[..., None], x[..., 3:]], dim=-1)

    def _speed(self, y: Tensor) -> Tensor:
        if len(self.velocity) == 1:
            return self.velocity[0]
        nodes = self.northing
        i = torch.searchsorted(nodes, y.detach().contiguous()).clamp(1, len(nodes) - 1)
        w = ((y - nodes[i - 1]) / (nodes[i] - nodes[i - 1])).clamp(0.0, 1.0)
        return torch.lerp(self.velocity[i - 1], self.velocity[i], w)

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        return self.kernel(self.moved(a), self.moved(b))

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.kernel.diagonal(a)

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        return self.kernel.terms(self.moved(x))
