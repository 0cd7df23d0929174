r"""The toy atmospheres of Lorenz."""

from __future__ import annotations

__all__ = ["Lorenz63", "Lorenz96", "TwoScaleLorenz96"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .base import Tendency


class Lorenz63(Tendency):
    r"""The convection of Lorenz (1963).

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
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``.

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
        scheme: str = "runge-kutta",
    ) -> None:
        super().__init__((3,), dt, scheme)
        for name, value in {"sigma": sigma, "rho": rho, "beta": beta}.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))

    def tendency(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        r"""Returns :math:`\dot x`."""
        a, b, c = x.unbind(-1)
        return torch.stack(
            [self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c], dim=-1
        )

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size 3"]:
        r"""Returns states near the attractor, each with shape :math:`(3)`."""
        noise = torch.randn(*size, 3, dtype=torch.float64, generator=generator)
        mean = noise.new_tensor([0.0, 0.0, 25.0])
        return mean + 5 * noise


class Lorenz96(Tendency):
    r"""The latitude circle of Lorenz (1996).

    .. math:: \dot x_i = (x_{i + 1} - x_{i - 2}) x_{i - 1} - x_i + F

    References:
        | Predictability: a problem partly solved (Lorenz, 1996)
        | https://doi.org/10.1017/CBO9780511617652.004

    Arguments:
        size: The number :math:`n` of places on the circle.
        dt: The time step: .05 is 6 hours; negative to go backwards.
        forcing: The forcing :math:`F`.
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``.

    Raises:
        ValueError: If there are fewer than 4 places, or the scheme is not known.

    Example:
        >>> model = Lorenz96(40)
        >>> x = model.initial(torch.Generator().manual_seed(0), (5,))
        >>> model(x, 20).shape
        torch.Size([5, 40])
    """

    forcing: Tensor

    def __init__(
        self,
        size: int = 40,
        dt: float = 0.05,
        forcing: float | Tensor = 8.0,
        scheme: str = "runge-kutta",
    ) -> None:
        super().__init__((size,), dt, scheme)
        if size < 4:
            msg = f"Lorenz96(size=...): expected 4 places or more, got {size}. Take 40, say."
            raise ValueError(msg)
        self.register_buffer("forcing", torch.as_tensor(forcing, dtype=torch.float64))

    @staticmethod
    def advection(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`(x_{i + 1} - x_{i - 2}) x_{i - 1}`, which conserves :math:`|x|^2`."""
        return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1)

    def tendency(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\dot x`."""
        return self.advection(x) - x + self.forcing

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size n"]:
        r"""Returns states about rest, each with shape :math:`(n)`."""
        noise = torch.randn(*size, *self.shape, dtype=torch.float64, generator=generator)
        return self.forcing + noise


class TwoScaleLorenz96(Tendency):
    r"""The latitude circle of Lorenz (1996) with its fast and small scales.

    .. math::
        \dot X_i &= (X_{i + 1} - X_{i - 2}) X_{i - 1} - X_i + F
            - \frac{h c}{b} \sum_{j = 1}^{J} Y_{ij} \\
        \dot Y_l &= c b (Y_{l - 1} - Y_{l + 2}) Y_{l + 1} - c Y_l + \frac{h c}{b} X_{i(l)}

    The small scales :math:`Y_{ij} = Y_l` follow each other around the whole circle, :math:`l` from
    1 to :math:`n J`. A state holds :math:`X`, then :math:`Y`. What the coupling takes from
    :math:`|X|^2` it gives to :math:`|Y|^2`.

    References:
        | Predictability: a problem partly solved (Lorenz, 1996)
        | https://doi.org/10.1017/CBO9780511617652.004
        | Effects of stochastic parametrizations in the Lorenz '96 system (Wilks, 2005)
        | https://doi.org/10.1256/qj.04.03

    Arguments:
        size: The number :math:`n` of places on the circle.
        each: The number :math:`J` of small scales at each.
        dt: The time step; negative to go backwards.
        forcing: The forcing :math:`F`.
        coupling: The coupling :math:`h`; zero leaves :class:`Lorenz96`.
        speed: How much faster the small scales are, :math:`c`.
        smallness: How much smaller they are, :math:`b`.
        scheme: ``"runge-kutta"``, ``"euler"`` or ``"implicit"``.

    Raises:
        ValueError: If there are fewer than 4 places or no small scales, or the scheme is not
            known.

    Example:
        >>> model = TwoScaleLorenz96(8, 4)
        >>> x = model.initial(torch.Generator().manual_seed(0), (5,))
        >>> large, small = model.scales(model(x, 20))
        >>> large.shape, small.shape
        (torch.Size([5, 8]), torch.Size([5, 8, 4]))
    """

    forcing: Tensor
    coupling: Tensor

    def __init__(
        self,
        size: int = 36,
        each: int = 10,
        dt: float = 0.005,
        forcing: float | Tensor = 10.0,
        coupling: float | Tensor = 1.0,
        speed: float = 10.0,
        smallness: float = 10.0,
        scheme: str = "runge-kutta",
    ) -> None:
        super().__init__((size * (1 + each),), dt, scheme)
        if size < 4 or each < 1:
            msg = (
                f"TwoScaleLorenz96(size=..., each=...): expected 4 places or more and some small "
                f"scales, got {size} and {each}. Take 36 and 10, say."
            )
            raise ValueError(msg)
        self.size, self.each, self.speed, self.smallness = size, each, speed, smallness
        self.register_buffer("forcing", torch.as_tensor(forcing, dtype=torch.float64))
        self.register_buffer("coupling", torch.as_tensor(coupling, dtype=torch.float64))

    def scales(
        self, x: Float[Tensor, "*batch s"]
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n j"]]:
        r"""Returns the large scales and the small ones at each of their places."""
        large, small = x.split([self.size, self.size * self.each], dim=-1)
        return large, small.unflatten(-1, (self.size, self.each))

    def tendency(self, x: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch s"]:
        r"""Returns the tendencies of both scales."""
        X, Y = self.scales(x)
        share = self.coupling * self.speed / self.smallness
        large = Lorenz96.advection(X) - X + self.forcing - share * Y.sum(dim=-1)
        flat = Y.flatten(-2)
        turned = Lorenz96.advection(flat.flip(-1)).flip(-1)  # the small scales run the other way
        small = self.speed * (self.smallness * turned - flat)
        return torch.cat([large, small + share * X.repeat_interleave(self.each, dim=-1)], dim=-1)

    def initial(
        self, generator: Generator | None = None, size: tuple[int, ...] = ()
    ) -> Float[Tensor, "*size s"]:
        r"""Returns states about rest, each with shape :math:`(n + n J)`."""
        noise = torch.randn(*size, *self.shape, dtype=torch.float64, generator=generator)
        large, small = noise.split([self.size, self.size * self.each], dim=-1)
        return torch.cat([self.forcing / 2 + large, 0.1 * small], dim=-1)
