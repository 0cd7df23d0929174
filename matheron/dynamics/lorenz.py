r"""The toy atmospheres of Lorenz."""

from __future__ import annotations

__all__ = ["Lorenz63", "Lorenz96"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .base import Dynamics, runge_kutta_4


class Lorenz63(Dynamics):
    r"""The convection of Lorenz (1963), by a Runge-Kutta scheme of fourth order.

    .. math::
        \dot x = \sigma (y - x), \quad \dot y = x (\rho - z) - y, \quad \dot z = x y - \beta z

    References:
        | Deterministic nonperiodic flow (Lorenz, 1963)
        | https://doi.org/10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2

    Arguments:
        dt: The time step, without units; negative to go backwards.
        sigma: The Prandtl number :math:`\sigma`.
        rho: The Rayleigh number :math:`\rho`, over its critical value.
        beta: The aspect ratio :math:`\beta`.

    Example:
        >>> model = Lorenz63()
        >>> x = model.initial(torch.Generator().manual_seed(0))
        >>> model.trajectory(x, 100).shape
        torch.Size([101, 3])
    """

    sigma: Tensor
    rho: Tensor
    beta: Tensor

    def __init__(
        self,
        dt: float = 0.01,
        sigma: float | Tensor = 10.0,
        rho: float | Tensor = 28.0,
        beta: float | Tensor = 8 / 3,
    ) -> None:
        super().__init__()
        self.dt, self.shape = dt, (3,)
        for name, value in {"sigma": sigma, "rho": rho, "beta": beta}.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))

    def tendency(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        r"""Returns :math:`\dot x`."""
        a, b, c = x.unbind(-1)
        return torch.stack(
            [self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c], dim=-1
        )

    def advance(self, state: Tensor) -> Tensor:
        return runge_kutta_4(self.tendency, state, self.dt)

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size 3"]:
        r"""Returns states near the attractor, each with shape :math:`(3)`."""
        noise = torch.randn(*size, 3, dtype=torch.float64, generator=generator)
        mean = noise.new_tensor([0.0, 0.0, 25.0])
        return mean + 5 * noise


class Lorenz96(Dynamics):
    r"""The latitude circle of Lorenz (1996), by a Runge-Kutta scheme of fourth order.

    .. math:: \dot x_i = (x_{i + 1} - x_{i - 2}) x_{i - 1} - x_i + F

    References:
        | Predictability: a problem partly solved (Lorenz, 1996)
        | https://doi.org/10.1017/CBO9780511617652.004

    Arguments:
        size: The number :math:`n` of places on the circle.
        dt: The time step: .05 is 6 hours; negative to go backwards.
        forcing: The forcing :math:`F`.

    Raises:
        ValueError: If there are fewer than 4 places.

    Example:
        >>> model = Lorenz96(40)
        >>> x = model.initial(torch.Generator().manual_seed(0), (5,))
        >>> model(x, 20).shape
        torch.Size([5, 40])
    """

    forcing: Tensor

    def __init__(self, size: int = 40, dt: float = 0.05, forcing: float | Tensor = 8.0) -> None:
        super().__init__()
        if size < 4:
            msg = f"Lorenz96(size=...): expected 4 places or more, got {size}. Take 40, say."
            raise ValueError(msg)
        self.dt, self.shape = dt, (size,)
        self.register_buffer("forcing", torch.as_tensor(forcing, dtype=torch.float64))

    @staticmethod
    def advection(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`(x_{i + 1} - x_{i - 2}) x_{i - 1}`, which conserves :math:`|x|^2`."""
        return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1)

    def tendency(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\dot x`."""
        return self.advection(x) - x + self.forcing

    def advance(self, state: Tensor) -> Tensor:
        return runge_kutta_4(self.tendency, state, self.dt)

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size n"]:
        r"""Returns states about rest, each with shape :math:`(n)`."""
        noise = torch.randn(*size, *self.shape, dtype=torch.float64, generator=generator)
        return self.forcing + noise
