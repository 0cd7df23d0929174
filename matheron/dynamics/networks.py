r"""Models whose law of motion is learned from trajectories."""

from __future__ import annotations

__all__ = ["BilinearNetwork", "ConvDynamics", "MLPDynamics", "NetworkDynamics"]

import abc
import itertools
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from .base import Dynamics, runge_kutta_4

SCHEMES = ("runge-kutta", "residual")


def _drawn(shape: Sequence[int], fan: int, generator: Generator | None) -> nn.Parameter:
    r"""Returns weights that keep the variance of what they multiply."""
    z = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return nn.Parameter(z / fan**0.5)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64))


class NetworkDynamics(Dynamics, abc.ABC):
    r"""A model whose tendency is a network, in units where states have mean 0 and variance 1.

    .. math:: \dot x = s \, f_\theta\!\left( \frac{x - c}{s} \right)

    References:
        | Bilinear residual neural network for the identification and forecasting of geophysical
        | dynamics (Fablet, Ouala & Herzet, 2018)
        | https://doi.org/10.23919/EUSIPCO.2018.8553492

    Arguments:
        shape: The shape of a state.
        dt: The time step.
        scheme: ``"runge-kutta"``, of fourth order, or ``"residual"``,
            :math:`x + \delta t \, \dot x`, as in a residual network.

    Raises:
        ValueError: If the scheme is not known.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], dt: float, scheme: str = "runge-kutta") -> None:
        super().__init__()
        if scheme not in SCHEMES:
            msg = (
                f"{type(self).__name__}(scheme=...): expected one of {SCHEMES}, got {scheme!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        self.shape, self.dt, self.scheme = shape, dt, scheme
        self.register_buffer("centre", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(shape, dtype=torch.float64))

    @abc.abstractmethod
    def slope(self, z: Float[Tensor, ...]) -> Float[Tensor, ...]:
        r"""Returns :math:`f_\theta(z)`."""

    @torch.no_grad()
    def normalise(self, states: Float[Tensor, ...]) -> None:
        r"""Takes the mean and the standard deviation of states as origin and unit.

        Arguments:
            states: Some states, with shape ``(*batch, *shape)``.

        Raises:
            ValueError: If a component does not vary.
        """
        flat = states.reshape(-1, *self.shape)
        centre, scale = self._units(flat)
        if not (scale > 0).all():
            msg = (
                f"{type(self).__name__}.normalise(states=...): expected components that vary, "
                f"got {int((~(scale > 0)).sum())} that do not. Give more states, or drop them."
            )
            raise ValueError(msg)
        self.centre.copy_(centre)
        self.scale.copy_(scale)

    def _units(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return flat.mean(dim=0), flat.std(dim=0)

    def tendency(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        r"""Returns :math:`\dot x`."""
        return self.scale * self.slope((x - self.centre) / self.scale)

    def advance(self, state: Tensor) -> Tensor:
        z = (state - self.centre) / self.scale
        if self.scheme == "residual":
            z = z + self.dt * self.slope(z)
        else:
            z = runge_kutta_4(self.slope, z, self.dt)
        return self.centre + self.scale * z


class BilinearNetwork(NetworkDynamics):
    r"""A tendency made of a constant, a linear part, and products of linear parts.

    .. math:: f_\theta(z) = b + A z + W \left( L z \odot R z \right)

    With enough products it is any quadratic law: the equations of Lorenz among them, and any
    truncation of those of fluids.

    References:
        | Bilinear residual neural network for the identification and forecasting of geophysical
        | dynamics (Fablet, Ouala & Herzet, 2018)
        | https://doi.org/10.23919/EUSIPCO.2018.8553492

    Arguments:
        size: The number :math:`n` of components of a state.
        products: The number :math:`p` of products; :math:`2 n` by default.
        dt: The time step.
        scheme: ``"runge-kutta"`` or ``"residual"``.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If the scheme is not known, or a size not positive.

    Example:
        >>> model = BilinearNetwork(3, generator=torch.Generator().manual_seed(0))
        >>> model(torch.ones(5, 3, dtype=torch.float64), 10).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        size: int = 3,
        products: int | None = None,
        dt: float = 0.01,
        scheme: str = "runge-kutta",
        generator: Generator | None = None,
    ) -> None:
        p = 2 * size if products is None else products
        _check_sizes("BilinearNetwork", size, p)
        super().__init__((size,), dt, scheme)
        self.constant, self.linear = _zeros(size), _zeros(size, size)
        self.left = _drawn((p, size), size, generator)
        self.right = _drawn((p, size), size, generator)
        self.mixing = _drawn((size, p), 4 * p, generator)

    def slope(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        products = (z @ self.left.mT) * (z @ self.right.mT)
        return self.constant + z @ self.linear.mT + products @ self.mixing.mT

    def quadratic(self) -> Float[Tensor, "n n n"]:
        r"""Returns the symmetric :math:`B` of :math:`W (L z \odot R z) = B : z z^\top`."""
        B = torch.einsum("ip,pj,pk->ijk", self.mixing, self.left, self.right)
        return (B + B.mT) / 2

    def coefficients(
        self,
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"], Float[Tensor, "n n n"]]:
        r"""Returns :math:`b, A, B` of :math:`\dot x = b + A x + B : x x^\top`, in units of x."""
        c, s = self.centre, self.scale
        B = self.quadratic() * s[:, None, None] / (s[:, None] * s)
        A = self.linear * s[:, None] / s
        curved = B @ c
        return s * self.constant - A @ c + curved @ c, A - 2 * curved, B


class MLPDynamics(NetworkDynamics):
    r"""A tendency made of layers, :math:`f_\theta(z) = W_d \tanh(\dots \tanh(W_1 z + b_1))+b_d`.

    It knows nothing of the laws of fluids: the reference that structured networks should beat.

    References:
        | Multilayer feedforward networks are universal approximators
        | (Hornik, Stinchcombe & White, 1989)
        | https://doi.org/10.1016/0893-6080(89)90020-8

    Arguments:
        size: The number :math:`n` of components of a state.
        hidden: The widths of the hidden layers.
        dt: The time step.
        scheme: ``"runge-kutta"`` or ``"residual"``.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If the scheme is not known, or a size not positive.

    Example:
        >>> model = MLPDynamics(3, (16, 16), generator=torch.Generator().manual_seed(0))
        >>> model(torch.ones(5, 3, dtype=torch.float64), 10).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        size: int = 3,
        hidden: Sequence[int] = (32, 32),
        dt: float = 0.01,
        scheme: str = "runge-kutta",
        generator: Generator | None = None,
    ) -> None:
        _check_sizes("MLPDynamics", size, *hidden)
        super().__init__((size,), dt, scheme)
        widths = [size, *hidden, size]
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList([_drawn((b, a), a, generator) for a, b in pairs])
        self.biases = nn.ParameterList([_zeros(b) for _, b in pairs])

    def slope(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = (z.tanh() if i else z) @ W.mT + b
        return z


class ConvDynamics(NetworkDynamics):
    r"""A tendency that is the same everywhere on a circle, and looks at neighbours only.

    .. math:: f_\theta(z)_i = b + \sum_d a_d z_{i + d}
        + \sum_c w_c \Big( \sum_d l_{cd} z_{i + d} \Big) \Big( \sum_d r_{cd} z_{i + d} \Big)

    with :math:`|d| \leq r`: the bilinear network under the symmetry of a latitude circle, with as
    many numbers for 40 places as for 4000.

    References:
        | Bilinear residual neural network for the identification and forecasting of geophysical
        | dynamics (Fablet, Ouala & Herzet, 2018)
        | https://doi.org/10.23919/EUSIPCO.2018.8553492

    Arguments:
        size: The number :math:`n` of places on the circle.
        products: The number of products.
        reach: How many neighbours :math:`r` are seen on each side.
        dt: The time step.
        scheme: ``"runge-kutta"`` or ``"residual"``.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If the scheme is not known, or the circle is shorter than what is seen.

    Example:
        >>> model = ConvDynamics(40, generator=torch.Generator().manual_seed(0))
        >>> model(torch.ones(5, 40, dtype=torch.float64), 10).shape
        torch.Size([5, 40])
    """

    def __init__(
        self,
        size: int = 40,
        products: int = 4,
        reach: int = 2,
        dt: float = 0.05,
        scheme: str = "runge-kutta",
        generator: Generator | None = None,
    ) -> None:
        seen = 2 * reach + 1
        _check_sizes("ConvDynamics", products, reach, size - seen + 1)
        super().__init__((size,), dt, scheme)
        self.reach = reach
        self.constant, self.linear = _zeros(1), _zeros(seen)
        self.left = _drawn((products, seen), seen, generator)
        self.right = _drawn((products, seen), seen, generator)
        self.mixing = _drawn((products,), 4 * products, generator)

    def _units(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        # one unit for all places, or the law would not be the same everywhere
        return flat.mean().expand(flat.shape[1:]), flat.std().expand(flat.shape[1:])

    def slope(self, z: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        shifts = range(-self.reach, self.reach + 1)
        seen = torch.stack([z.roll(-d, -1) for d in shifts], dim=-1)
        products = (seen @ self.left.mT) * (seen @ self.right.mT)
        return self.constant + seen @ self.linear + products @ self.mixing


def _check_sizes(where: str, *sizes: int) -> None:
    if min(sizes) < 1:
        msg = (
            f"{where}(...): expected sizes of one or more, and a state at least as long as what "
            f"is seen of it, got {sizes}. Raise them."
        )
        raise ValueError(msg)
