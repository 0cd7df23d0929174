r"""Two layers of quasi-geostrophic turbulence over a flat bottom."""

from __future__ import annotations

__all__ = ["GRAVITY", "TwoLayerQG"]

import math
import torch

from jaxtyping import Complex, Float
from torch import Generator, Tensor

from .base import Dynamics, runge_kutta_4

GRAVITY = 9.81
"""The acceleration of gravity, in metres per second squared."""

FILTERS = ("exponential", "two-thirds")


def _wavenumbers(size: int, length: float) -> tuple[Tensor, Tensor]:
    unit = 2 * math.pi / length * size
    k = unit * torch.fft.rfftfreq(size, dtype=torch.float64)
    l = unit * torch.fft.fftfreq(size, dtype=torch.float64)
    return k.expand(size, -1), l[:, None].expand(-1, len(k))


def _exponential(k: Tensor, l: Tensor, spacing: float) -> Tensor:
    """The filter of high wavenumbers: one up to .65 of Nyquist, the round-off beyond Nyquist."""
    k = torch.hypot(k, l) * spacing
    return torch.exp(-23.6 * (k - 0.65 * math.pi).clamp(min=0) ** 4)


class TwoLayerQG(Dynamics):
    r"""The model of Phillips: two layers on a doubly periodic square, in a steady shear.

    .. math::
        \partial_t q_i + U_i \partial_x q_i + J(\psi_i, q_i) + Q_i \partial_x \psi_i
        = - \delta_{i 2}\, r\, \Delta \psi_i, \qquad
        q_i = \Delta \psi_i + F_i (\psi_{3 - i} - \psi_i),

    with :math:`F_1 = R^{-2} / (1 + \delta)`, :math:`F_2 = \delta F_1` and
    :math:`Q_i = \beta + F_i (U_i - U_{3 - i})`. The state is the potential vorticity :math:`q`
    of both layers, in :math:`s^{-1}`, with shape :math:`(2, n, n)` (layer, y, x). Derivatives are
    spectral; the time scheme is Runge-Kutta of fourth order, stable while
    :math:`|u| \delta t < 0.9\, \delta x` or so.

    References:
        | Energy transformations and meridional circulations (Phillips, 1954)
        | https://doi.org/10.1111/j.2153-3490.1954.tb01123.x
        | Atmospheric and Oceanic Fluid Dynamics, chapter 9 (Vallis, 2017)
        | https://doi.org/10.1017/9781107588417

    Arguments:
        size: The number :math:`n` of nodes on a side.
        length: The side of the square, in metres.
        radius: The deformation radius :math:`R`, in metres.
        ratio: The thickness of the upper layer over that of the lower one, :math:`\delta`.
        beta: The gradient :math:`\beta` of the Coriolis parameter, in :math:`m^{-1} s^{-1}`.
        flow: The steady zonal velocities :math:`(U_1, U_2)`, in metres per second.
        drag: The rate :math:`r` of the bottom drag, in :math:`s^{-1}`.
        coriolis: The Coriolis parameter :math:`f`, in :math:`s^{-1}`: it scales the sea surface
            height only.
        dt: The time step, in seconds.
        filter: What ends the cascade of enstrophy: an ``"exponential"`` filter of the highest
            wavenumbers after every step, or the ``"two-thirds"`` truncation, without dissipation.
        dtype: The precision; single is enough for a nature run.

    Raises:
        ValueError: If ``size`` is odd or under 4, a length is not positive, or ``filter`` is not
            known.

    Example:
        >>> model = TwoLayerQG(32)
        >>> q = model.initial(torch.Generator().manual_seed(0), (3,))
        >>> q = model(q, 5)
        >>> q.shape, model.ssh(q).shape
        (torch.Size([3, 2, 32, 32]), torch.Size([3, 32, 32]))
    """

    inversion: Tensor
    slope: Tensor
    divergence: Tensor
    carried: Tensor
    forced: Tensor
    damping: Tensor
    thickness: Tensor

    def __init__(
        self,
        size: int = 128,
        length: float = 1.2e6,
        radius: float = 3e4,
        ratio: float = 0.25,
        beta: float = 1.75e-11,
        flow: tuple[float, float] = (0.16, 0.0),
        drag: float = 1 / (10 * 86400),
        coriolis: float = 9e-5,
        dt: float = 3600.0,
        filter: str = "exponential",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self._check_arguments(size, filter, length=length, radius=radius, ratio=ratio)
        self.size, self.length, self.dt, self.shape = size, length, dt, (2, size, size)
        self.coriolis, self.dtype, self.filter = coriolis, dtype, filter
        k, l = _wavenumbers(size, length)
        F = torch.tensor([1.0, ratio], dtype=torch.float64) / radius**2 / (1 + ratio)
        self._keep("inversion", self._inverse(k**2 + l**2, F))
        self._keep("thickness", torch.tensor([ratio, 1.0]).double() / (1 + ratio))
        self._set_derivatives(k, l, length / size)
        self._set_linear(k, l, F, beta, flow, drag)

    @staticmethod
    def _check_arguments(size: int, filter: str, **positive: float) -> None:
        if size < 4 or size % 2:
            msg = f"TwoLayerQG(size=...): expected an even size, 4 or more, got {size}. Round it."
            raise ValueError(msg)
        if filter not in FILTERS:
            msg = f"TwoLayerQG(filter=...): expected one of {FILTERS}, got {filter!r}. Choose one."
            raise ValueError(msg)
        for name, value in positive.items():
            if not value > 0:
                msg = (
                    f"TwoLayerQG({name}=...): expected a positive number, got {value}. "
                    "Lengths are in metres."
                )
                raise ValueError(msg)

    def _keep(self, name: str, values: Tensor) -> None:
        kind = self.dtype.to_complex() if values.is_complex() else self.dtype
        self.register_buffer(name, values.to(kind), persistent=False)

    @staticmethod
    def _inverse(k2: Tensor, F: Tensor) -> Tensor:
        """The matrices (2, 2) that give the streamfunctions; their mean is zero."""
        det = k2 * (k2 + F.sum())
        rows = torch.stack([k2 + F[1], F[0] + 0 * k2, F[1] + 0 * k2, k2 + F[0]])
        inverse = -rows / det.where(det > 0, torch.inf)
        return inverse.unflatten(0, (2, 2))

    def _set_derivatives(self, k: Tensor, l: Tensor, spacing: float) -> None:
        # The derivative of the Nyquist wave is zero: it has no phase on the grid.
        nyquist = math.pi / spacing * (1 - 1e-9)
        ik, il = (1j * w.where(w.abs() < nyquist, 0.0) for w in (k, l))
        kept = torch.ones_like(k)
        if self.filter == "two-thirds":
            kept = (torch.maximum(k, l.abs()) * spacing < math.pi * 2 / 3 - 1e-9).double()
        self._keep("slope", torch.stack([-il, ik])[:, None])
        self._keep("divergence", -kept * torch.stack([ik, il])[:, None])
        exponential = self.filter == "exponential"
        self._keep("damping", _exponential(k, l, spacing) if exponential else kept)

    def _set_linear(
        self,
        k: Tensor,
        l: Tensor,
        F: Tensor,
        beta: float,
        flow: tuple[float, float],
        drag: float,
    ) -> None:
        U = torch.tensor(flow, dtype=torch.float64)
        gradient = beta + F * (U - U.flip(0))
        ik = self.slope[1].to(torch.complex128)
        bottom = torch.tensor([0.0, drag], dtype=torch.float64)[:, None, None]
        self._keep("carried", -ik * U[:, None, None])
        self._keep("forced", -ik * gradient[:, None, None] + bottom * (k**2 + l**2))

    def enter(self, x: Float[Tensor, "*batch n n"]) -> Complex[Tensor, "*batch n k"]:
        return torch.fft.rfft2(x)

    def leave(self, state: Complex[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n n"]:
        return torch.fft.irfft2(state, s=(self.size, self.size))

    def streamfunction(
        self, state: Complex[Tensor, "*batch 2 n k"]
    ) -> Complex[Tensor, "*batch 2 n k"]:
        r"""Returns the spectrum of :math:`\psi`, in :math:`m^2 s^{-1}`, from that of :math:`q`."""
        return (self.inversion * state.unsqueeze(-4)).sum(-3)

    def tendency(self, state: Complex[Tensor, "*batch 2 n k"]) -> Complex[Tensor, "*batch 2 n k"]:
        r"""Returns the spectrum of :math:`\partial_t q` from that of :math:`q`."""
        psi = self.streamfunction(state)
        spectra = torch.cat([self.slope * psi.unsqueeze(-4), state.unsqueeze(-4)], dim=-4)
        fields = self.leave(spectra)
        flux = self.enter(fields[..., :2, :, :, :] * fields[..., 2:, :, :, :])
        linear = torch.addcmul(self.forced * psi, self.carried, state)
        across, along = flux.unbind(-4)
        part = torch.addcmul(linear, self.divergence[0], across)
        return torch.addcmul(part, self.divergence[1], along)

    def advance(self, state: Tensor) -> Tensor:
        return self.damping * runge_kutta_4(self.tendency, state, self.dt)

    def elevation(self, state: Complex[Tensor, "*batch 2 n k"]) -> Float[Tensor, "*batch n n"]:
        r"""Returns the sea surface height, in metres, from the spectrum of :math:`q`."""
        psi = self.streamfunction(state)[..., 0, :, :]
        return self.leave(psi) * (self.coriolis / GRAVITY)

    def ssh(self, q: Float[Tensor, "*batch 2 n n"]) -> Float[Tensor, "*batch n n"]:
        r"""Returns the sea surface height :math:`f \psi_1 / g`, in metres."""
        return self.elevation(self.enter(q))

    def energy(self, q: Float[Tensor, "*batch 2 n n"]) -> Float[Tensor, "*batch"]:
        r"""Returns the energy of the eddies per unit of mass, in :math:`m^2 s^{-2}`.

        It is :math:`-\tfrac12 \langle h_1 \psi_1 q_1 + h_2 \psi_2 q_2 \rangle`, with the parts
        :math:`h_i` of the depth: kinetic and available potential energy together.
        """
        psi = self.leave(self.streamfunction(self.enter(q)))
        return -((psi * q).mean((-1, -2)) * self.thickness).sum(-1) / 2

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size 2 n n"]:
        r"""Returns weak random vorticity at scales over an eighth of the square."""
        noise = torch.randn(*size, *self.shape, dtype=torch.float64, generator=generator)
        k, l = (w.to(self.damping.device) for w in _wavenumbers(self.size, self.length))
        shape = torch.exp(-((torch.hypot(k, l) * self.length / (16 * math.pi)) ** 2))
        strength = 3e-5 * self.size / 128  # the same amplitude of each wave at all resolutions
        spectrum = torch.fft.rfft2(strength * noise.to(k.device)) * shape
        return self.leave(spectrum).to(self.dtype)
