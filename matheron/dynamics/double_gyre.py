r"""A closed basin whose two gyres and free jet are driven by the wind."""

from __future__ import annotations

__all__ = ["DoubleGyre", "jacobian"]

import math
import torch

from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import pad

from .base import Tendency
from .elliptic import Helmholtz


def jacobian(
    a: Float[Tensor, "*batch ny nx"], b: Float[Tensor, "*batch ny nx"], spacing: float
) -> Float[Tensor, "*batch ny nx"]:
    r"""Returns :math:`J(a, b) = \partial_x a \, \partial_y b - \partial_y a \, \partial_x b`.

    The differences are those of Arakawa: in a basin with :math:`a = b = 0` on its border, the sums
    of :math:`a J` and :math:`b J` vanish, and with them the sources of energy and enstrophy. It is
    zero on the border.

    References:
        | Computational design for long-term numerical integration of the equations of fluid motion
        | (Arakawa, 1966)
        | https://doi.org/10.1016/0021-9991(66)90015-5

    Arguments:
        a: The first field, e.g. a streamfunction.
        b: The second field, e.g. a vorticity.
        spacing: The spacing of both axes.

    Example:
        >>> x = torch.arange(5.0).double().expand(5, 5)
        >>> jacobian(x, x.mT, 1.0)[2].tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    along, across = a[..., 2:] - a[..., :-2], a[..., 2:, :] - a[..., :-2, :]
    # the sum of three forms: of differences, and of the divergences of both fluxes
    inside = along[..., 1:-1, :] * (b[..., 2:, 1:-1] - b[..., :-2, 1:-1])
    inside = inside - across[..., 1:-1] * (b[..., 1:-1, 2:] - b[..., 1:-1, :-2])
    flux = along * b[..., 1:-1]
    inside = inside + flux[..., 2:, :] - flux[..., :-2, :]
    flux = across * b[..., 1:-1, :]
    inside = inside - flux[..., 2:] + flux[..., :-2]
    flux = b[..., 2:, :] - b[..., :-2, :]
    flux = flux * a[..., 1:-1, :]
    inside = inside + flux[..., 2:] - flux[..., :-2]
    flux = b[..., 2:] - b[..., :-2]
    flux = flux * a[..., 1:-1]
    inside = inside - flux[..., 2:, :] + flux[..., :-2, :]
    return pad(inside / (12 * spacing**2), (1, 1, 1, 1))


class DoubleGyre(Tendency):
    r"""Quasi-geostrophic flow of one layer in a closed square basin, driven by the wind.

    .. math::
        \partial_t q + \epsilon J(\psi, q) + \beta \, \partial_x \psi
        = -2 \pi \tau \sin(2 \pi y) - r \zeta + A \Delta \zeta - A_2 \Delta^2 \zeta,

    where :math:`\zeta = \Delta \psi` and :math:`q = \zeta - F \psi`, with :math:`\psi`,
    :math:`\Delta \psi` and :math:`\Delta^2 \psi` zero on the border. Everything is without
    dimension: the side of the basin is one, time is counted in the time that the planetary
    vorticity gradient takes to act across it. The state is :math:`\psi`, with the shape
    :math:`(n, n)`, rows from south to north; its border stays zero.

    The defaults are those of a test case of ensemble data assimilation: 129 nodes on a side,
    states every 5 units of time, 4 steps, of a jet that meanders and sheds eddies, whose errors
    double in some 25 to 50 units.

    References:
        | A deterministic formulation of the ensemble Kalman filter: an alternative to ensemble
        | square root filters (Sakov & Oke, 2008)
        | https://doi.org/10.1111/j.1600-0870.2007.00299.x
        | Intrinsic low-frequency variability of the Gulf Stream (Jiang, Jin & Ghil, 1995)
        | https://doi.org/10.1175/1520-0485(1995)025<0764:MEASOA>2.0.CO;2

    Arguments:
        size: The number :math:`n` of nodes on a side, border included.
        dt: The time step.
        rossby: The weight :math:`\epsilon` of advection.
        screening: The square :math:`F` of the side in deformation radii.
        beta: The gradient :math:`\beta` of planetary vorticity.
        wind: The stress :math:`\tau` of the wind.
        drag: The bottom friction :math:`r`.
        viscosity: The lateral friction :math:`A`.
        hyperviscosity: The biharmonic friction :math:`A_2`.
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``.

    Raises:
        ValueError: If there are fewer than 3 nodes on a side, a coefficient of friction or the
            screening is negative, or the scheme is not known.

    Example:
        >>> model = DoubleGyre(17)
        >>> psi = model(torch.zeros(17, 17, dtype=torch.float64), 100)
        >>> bool(psi[4].sum() > 0 > psi[12].sum())  # the wind turns each half its own way
        True
    """

    forcing: Tensor

    def __init__(
        self,
        size: int = 129,
        dt: float = 1.25,
        rossby: float = 1e-5,
        screening: float = 1600.0,
        beta: float = 1.0,
        wind: float = 1.0,
        drag: float = 0.0,
        viscosity: float = 0.0,
        hyperviscosity: float = 2e-12,
        scheme: str = "runge-kutta",
    ) -> None:
        self._check_physics(size, screening, drag, viscosity, hyperviscosity)
        super().__init__((size, size), dt, scheme)
        self.rossby, self.screening, self.beta = rossby, screening, beta
        self.drag, self.viscosity, self.hyperviscosity = drag, viscosity, hyperviscosity
        self.spacing = 1 / (size - 1)
        rows = torch.ones(size, dtype=torch.float64)
        open_sea = torch.zeros(size, size, dtype=torch.bool)
        self.solver = Helmholtz(self.spacing * rows, self.spacing, screening * rows, open_sea)
        y = torch.arange(1, size - 1, dtype=torch.float64) / (size - 1)
        curl = -2 * math.pi * wind * torch.sin(2 * math.pi * y)
        forcing = pad(curl[:, None].expand(-1, size - 2), (1, 1, 1, 1))
        self.register_buffer("forcing", forcing, persistent=False)

    @staticmethod
    def _check_physics(size: int, *coefficients: float) -> None:
        if size < 3 or min(coefficients) < 0:
            msg = (
                f"DoubleGyre(...): expected 3 nodes or more on a side, and a screening and "
                f"frictions that are not negative, got {size} and {coefficients}. See the "
                "defaults."
            )
            raise ValueError(msg)

    def initial(
        self, generator: Generator | None = None, batch: tuple[int, ...] = ()
    ) -> Float[Tensor, "*batch n n"]:
        r"""Returns states of rest, stirred a little: a spin-up of 3000 units of time or more
        brings them to the attractor.

        Arguments:
            generator: The random number generator.
            batch: The shape of the batch.
        """
        n = self.shape[0] - 2
        z = torch.randn(*batch, n, n, dtype=torch.float64, generator=generator)
        q = pad(z, (1, 1, 1, 1))
        return self.leave(q * self.screening / 100)

    def enter(self, x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        return self.laplacian(x) - self.screening * x

    def leave(self, state: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        return self.solver.closed(state)

    def laplacian(self, field: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        r"""Returns the Laplacian of five points; zero on the border."""
        inside = field[..., 1:-1, 1:-1]
        around = field[..., 2:, 1:-1] + field[..., :-2, 1:-1]
        around = around + field[..., 1:-1, 2:] + field[..., 1:-1, :-2]
        return pad(torch.add(around, inside, alpha=-4) / self.spacing**2, (1, 1, 1, 1))

    def tendency(self, x: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        r"""Returns :math:`\partial_t q`, from :math:`q`; zero on the border."""
        psi = self.leave(x)
        drift = psi[..., 1:-1, 2:] - psi[..., 1:-1, :-2]
        slope = self.forcing - pad(drift * (self.beta / (2 * self.spacing)), (1, 1, 1, 1))
        slope = torch.add(slope, jacobian(psi, x, self.spacing), alpha=-self.rossby)
        zeta = torch.add(x, psi, alpha=self.screening)
        if self.drag:
            slope = torch.add(slope, zeta, alpha=-self.drag)
        if self.viscosity:
            slope = torch.add(slope, self.laplacian(zeta), alpha=self.viscosity)
        if self.hyperviscosity:
            twice = self.laplacian(self.laplacian(zeta))
            slope = torch.add(slope, twice, alpha=-self.hyperviscosity)
        return slope
