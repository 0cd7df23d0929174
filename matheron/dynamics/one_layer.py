r"""One active layer over a deep sea at rest: how the map of the sea surface moves by itself."""

from __future__ import annotations

__all__ = ["OneLayerQG"]

import math
import torch

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from .base import Dynamics
from .elliptic import Helmholtz
from .quasigeostrophic import GRAVITY

EARTH_RADIUS = 6_371_008.8
ROTATION = 7.292115e-5


def _upwind(velocity: Tensor, q: Tensor, axis: int, way: float) -> Tensor:
    """Velocity times the difference of ``q`` from node to node: centred, and made dissipative
    by the third-order upwind choice, for the present way of time.
    """
    n = q.shape[axis]
    # Beyond the box the field stays as it ends: felt by the nodes beside the border only.
    reach = torch.arange(-2, n + 2, device=q.device).clamp(0, n - 1)
    a, b, c, d, e = (q.index_select(axis, reach[k : k + n]) for k in range(5))
    centred = a - e + 8 * (d - b)
    curved = a + e - 4 * (b + d) + 6 * c
    return (velocity * centred + way * velocity.abs() * curved) / 12


class OneLayerQG(Dynamics):
    r"""The quasi-geostrophic flow of one layer of light water, by finite differences.

    .. math::
        \partial_t q + J(\psi, q) + \beta\, \partial_x \psi = 0, \qquad
        q = \Delta \psi - \frac{f^2}{c^2} \psi, \qquad \psi = \frac{g}{f} \eta.

    The state is the sea surface height :math:`\eta`, in metres, with shape :math:`(n_y, n_x)`.
    The border and the land keep the values of the state they are given; to move the border, set
    it between steps, ``torch.where(model.frozen, border, eta)``. A coast is a streamline where
    its values are equal; no value may be NaN.

    Advection is third-order upwind, the inversion exact (:class:`Helmholtz`), the time scheme
    that of Heun. With a negative ``dt`` the flow runs backwards; the upwind scheme still
    dissipates, as nudging back and forth needs.

    References:
        | Dynamic interpolation of sea surface height and potential applications for future
        | high-resolution altimetry mapping (Ubelmann, Klein & Fu, 2015)
        | https://doi.org/10.1175/JTECH-D-14-00152.1
        | Mapping altimetry in the forthcoming SWOT era by back-and-forth nudging a one-layer
        | quasigeostrophic model (Le Guillou et al., 2021)
        | https://doi.org/10.1175/JTECH-D-20-0104.1

    Arguments:
        width: The spacing along x of every row, in metres, with shape :math:`(n_y)`.
        height: The spacing along y, in metres.
        coriolis: The parameter :math:`f` of every row, in :math:`s^{-1}`, with shape
            :math:`(n_y)`.
        beta: Its gradient :math:`\beta`, in :math:`m^{-1} s^{-1}`, with shape :math:`(n_y)`.
        frozen: Where the height is given: land. The border is, in any case. Shape
            :math:`(n_y, n_x)`.
        speed: The speed :math:`c` of long internal gravity waves, in metres per second; the
            deformation radius is :math:`c / f`.
        dt: The time step, in seconds; negative to go backwards.

    Raises:
        ValueError: If ``speed`` is not positive, or :math:`f` vanishes or changes sign.

    Example:
        >>> lat, lon = torch.linspace(33, 43, 41).double(), torch.linspace(-65, -55, 41).double()
        >>> model = OneLayerQG.on_sphere(lat, lon, speed=2.7)
        >>> front = -0.6 * torch.tanh(lat - 38)[:, None].expand(41, 41)
        >>> bool(torch.allclose(model(front, 72), front))  # a zonal jet stays
        True
    """

    width: Tensor
    coriolis: Tensor
    beta: Tensor

    def __init__(
        self,
        width: Float[Tensor, " ny"],
        height: float,
        coriolis: Float[Tensor, " ny"],
        beta: Float[Tensor, " ny"],
        frozen: Bool[Tensor, "ny nx"],
        speed: float = 2.7,
        dt: float = 1200.0,
    ) -> None:
        super().__init__()
        self._check_physics(coriolis, speed)
        self.dt, self.height, self.shape = dt, height, tuple(frozen.shape)
        self.solver = Helmholtz(width, height, (coriolis / speed) ** 2, frozen)
        columns = {"width": width, "coriolis": coriolis, "beta": beta}
        for name, values in columns.items():
            self.register_buffer(name, values[:, None].to(torch.float64), persistent=False)

    @classmethod
    def on_sphere(
        cls,
        lat: Float[Tensor, " ny"],
        lon: Float[Tensor, " nx"],
        frozen: Bool[Tensor, "ny nx"] | None = None,
        speed: float = 2.7,
        dt: float = 1200.0,
    ) -> OneLayerQG:
        r"""Returns the model of a box of latitudes and longitudes, in degrees, evenly spaced.

        Raises:
            ValueError: If an axis is not evenly spaced.
        """
        rise, turn = (_spacing(name, axis) for name, axis in {"lat": lat, "lon": lon}.items())
        phi = torch.deg2rad(lat.to(torch.float64))
        frozen = torch.zeros(len(lat), len(lon), dtype=torch.bool) if frozen is None else frozen
        return cls(
            EARTH_RADIUS * phi.cos() * turn,
            EARTH_RADIUS * rise,
            2 * ROTATION * phi.sin(),
            2 * ROTATION * phi.cos() / EARTH_RADIUS,
            frozen,
            speed,
            dt,
        )

    @classmethod
    def on_plane(
        cls,
        shape: tuple[int, int],
        spacing: float,
        coriolis: float = 9e-5,
        beta: float = 1.75e-11,
        frozen: Bool[Tensor, "ny nx"] | None = None,
        speed: float = 2.7,
        dt: float = 1200.0,
    ) -> OneLayerQG:
        r"""Returns the model of a plane box, with a spacing in metres and a constant :math:`f`."""
        rows = torch.ones(shape[0], dtype=torch.float64)
        frozen = torch.zeros(shape, dtype=torch.bool) if frozen is None else frozen
        return cls(spacing * rows, spacing, coriolis * rows, beta * rows, frozen, speed, dt)

    @staticmethod
    def _check_physics(coriolis: Tensor, speed: float) -> None:
        if not speed > 0:
            msg = (
                f"OneLayerQG(speed=...): expected a positive speed, got {speed}. "
                "It is in metres per second, 2.7 at middle latitudes."
            )
            raise ValueError(msg)
        if not (coriolis * coriolis[0] > 0).all():
            msg = (
                "OneLayerQG(coriolis=...): expected values of one sign, got some of both or zero. "
                "Keep the box off the equator."
            )
            raise ValueError(msg)

    @property
    def frozen(self) -> Bool[Tensor, "ny nx"]:
        r"""Where the height is given: land and border."""
        return self.solver.frozen

    def enter(self, x: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        return x * (GRAVITY / self.coriolis)

    def leave(self, state: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        return state * (self.coriolis / GRAVITY)

    def vorticity(self, psi: Float[Tensor, "*batch ny nx"]) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns :math:`q` from :math:`\psi`; on land without the Laplacian."""
        inside = pad(self.frozen[1:-1, 1:-1], (1, 1, 1, 1))
        turning = torch.where(inside, 0.0, self.solver.laplacian(psi))
        return turning - self.solver.screening[:, None] * psi

    def invert(
        self, q: Float[Tensor, "*batch ny nx"], boundary: Float[Tensor, "*batch ny nx"]
    ) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns :math:`\psi` from :math:`q` at sea and :math:`\psi` on land and border."""
        return self.solver(q, boundary)

    def velocity(
        self, psi: Float[Tensor, "*batch ny nx"]
    ) -> tuple[Float[Tensor, "*batch ny nx"], Float[Tensor, "*batch ny nx"]]:
        r"""Returns :math:`(-\partial_y \psi, \partial_x \psi)`; zero across the border."""
        u = (psi[..., :-2, :] - psi[..., 2:, :]) / (2 * self.height)
        v = (psi[..., 2:] - psi[..., :-2]) / (2 * self.width)
        return pad(u, (0, 0, 1, 1)), pad(v, (1, 1))

    def tendency(
        self, q: Float[Tensor, "*batch ny nx"], psi: Float[Tensor, "*batch ny nx"]
    ) -> Float[Tensor, "*batch ny nx"]:
        r"""Returns :math:`\partial_t q`; zero on land and border."""
        u, v = self.velocity(psi)
        way = math.copysign(1.0, self.dt)
        carried = _upwind(u, q, -1, way) / self.width + _upwind(v, q, -2, way) / self.height
        return torch.where(self.frozen, 0.0, -carried - self.beta * v)

    def advance(self, state: Tensor) -> Tensor:
        q = self.vorticity(state)
        first = self.tendency(q, state)
        guess = q + self.dt * first
        second = self.tendency(guess, self.invert(guess, state))
        return self.invert(q + self.dt / 2 * (first + second), state)


def _spacing(name: str, axis: Tensor) -> float:
    steps = torch.deg2rad(axis.to(torch.float64)).diff()
    if not (len(axis) > 2 and (steps - steps.mean()).abs().max() < 1e-4 * steps.mean()):
        msg = (
            f"OneLayerQG.on_sphere({name}=...): expected increasing, evenly spaced degrees, got "
            f"{[round(v, 6) for v in axis[:4].tolist()]}... Interpolate to an even grid first."
        )
        raise ValueError(msg)
    return steps.mean().item()
