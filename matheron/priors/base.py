r"""What a prior can do. A solver asks for one of these abilities, never for a class."""

from __future__ import annotations

__all__ = [
    "Denoising",
    "Energy",
    "GaussianPrior",
    "KernelPrior",
    "Prior",
    "Sampling",
    "TrendedPrior",
    "Whitened",
]

import abc
import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Float
from torch import Generator, Tensor

from .quantities import Quantity, of_kernel, of_parameters
from .trend import Trend
from ..described import Described
from ..domain import Grid, Points
from ..kernels import Kernel
from ..linalg.dense import square_root
from ..linalg.slope import slope_of

Gradient = Callable[[Tensor], Tensor]


class Prior(Described, nn.Module, abc.ABC):
    r"""A probability law :math:`p(x)` for a field on a domain."""

    domain: Grid | Points


class Energy(Prior):
    r"""A prior whose density is known up to a constant."""

    @abc.abstractmethod
    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`J_b(x) = -\log p(x) + \mathrm{cst}`."""

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\nabla J_b(x)`, in the type of ``x``.

        It is differentiable where gradients are on, in ``x`` and in the parameters. By default it
        is the derivative of :meth:`cost`: a loss behind it is then differentiated twice.
        """
        return slope_of(self.cost, x, self.parameters())

    def prepare_gradient(self) -> Gradient:
        r"""Returns :meth:`gradient` as a function, with what does not depend on ``x`` done."""
        return self.gradient


class Sampling(Prior):
    r"""A prior that can be simulated."""

    @abc.abstractmethod
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        r"""Draws :math:`x_i \sim p(x)`."""

    def _check_size(self, size: int) -> None:
        if size < 1:
            msg = (
                f"{type(self).__name__}.sample(size=...): expected at least one draw, got {size}. "
                "Ask for one or more."
            )
            raise ValueError(msg)


class Denoising(Prior):
    r"""A prior that knows the mean of a field seen through white noise."""

    @abc.abstractmethod
    def denoise(
        self, x_t: Float[Tensor, "*batch n"], sigma: float | Tensor
    ) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\mathbb{E}[x \mid x_t = x + \sigma z]`."""


class Whitened(Prior):
    r"""A prior that is a function of white noise, its control: :math:`x = D(v)`.

    With :math:`v \sim \mathcal{N}(0, I)`, :math:`D(v)` is a draw. In terms of the control the
    cost of the prior is :math:`|v|^2 / 2`, whatever its units and correlations: a variational
    solver is then well conditioned.

    Attributes:
        control_size: The number :math:`c` of controls.
    """

    control_size: int

    @abc.abstractmethod
    def decode(self, v: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the state :math:`D(v)`, differentiable."""

    @abc.abstractmethod
    def encode(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch c"]:
        r"""Returns the control of a state that has one, so that ``decode`` gives it back."""


class GaussianPrior(Energy, Sampling, Denoising):
    r"""A Gaussian law :math:`\mathcal{N}(\mu, B)`, perhaps about an unknown trend.

    The trend is :math:`F \beta`, with coefficients that the data are to tell; :math:`\mu` holds
    their present values.
    """

    trend: Trend | None = None
    coefficients: Tensor
    fitted: object | None = None

    def summary(self) -> str:
        r"""Returns the report of the last fit: estimates, standard errors, warnings."""
        if self.fitted is None:
            msg = (
                f"{type(self).__name__}.summary: expected a fitted prior, got one that was not. "
                "Call matheron.fit.maximum_likelihood first."
            )
            raise ValueError(msg)
        return str(self.fitted)

    def quantities(self) -> list[Quantity]:
        r"""Returns what the report of a fit says of the parameters: name, value and units."""
        return of_parameters(self)

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the parameters; zero by default.

        A fit subtracts it from the log-likelihood.
        """
        return torch.zeros((), dtype=torch.float64)

    @abc.abstractmethod
    def mean(self, points: Points) -> Float[Tensor, " m"]:
        r"""Returns :math:`\mathbb{E}[f(s)]`, without the unknown trend."""

    @abc.abstractmethod
    def covariance(self, a: Points, b: Points) -> Float[Tensor, "p q"]:
        r"""Returns :math:`\mathrm{Cov}(f(a), f(b))`."""

    def variance(self, points: Points) -> Float[Tensor, " m"]:
        r"""Returns :math:`\mathrm{Var}(f(s))`."""
        chunks = torch.arange(len(points)).split(1024)
        return torch.cat([self.covariance(points[i], points[i]).diagonal() for i in chunks])

    def design(self, points: Points) -> Float[Tensor, "m p"]:
        r"""Returns the columns :math:`F` of the unknown trend; none by default."""
        return torch.zeros(len(points), 0, dtype=torch.float64)

    def drift(self) -> Float[Tensor, " n"]:
        r"""Returns the mean on the domain, with the present coefficients of the trend."""
        return self.mean(self.domain.points)

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        L = square_root(self._domain_covariance(), where=type(self).__name__, strict=True)
        z = torch.linalg.solve_triangular(L, (x - self.drift())[..., None], upper=False)
        return z.square().sum(dim=(-2, -1)) / 2

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`B^{-1} (x - \mu)`, in the type of ``x``, differentiable."""
        return self.prepare_gradient()(x)

    def prepare_gradient(self) -> Gradient:
        L, mu = (
            square_root(self._domain_covariance(), type(self).__name__, strict=True),
            self.drift(),
        )

        def gradient(x: Tensor) -> Tensor:
            r = (x - mu).reshape(-1, len(mu))
            return torch.cholesky_solve(r.mT, L).mT.reshape(x.shape).to(x.dtype)

        return gradient

    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        L = square_root(self._domain_covariance(), where=type(self).__name__)
        z = torch.randn(size, len(L), dtype=L.dtype, generator=generator)
        return self.drift() + z @ L.mT

    def denoise(
        self, x_t: Float[Tensor, "*batch n"], sigma: float | Tensor
    ) -> Float[Tensor, "*batch n"]:
        B, mu = self._domain_covariance(), self.drift()
        S = B + torch.as_tensor(sigma) ** 2 * torch.eye(len(B), dtype=B.dtype)
        return mu + torch.linalg.solve(S, (x_t - mu)[..., None])[..., 0] @ B

    def _domain_covariance(self) -> Float[Tensor, "n n"]:
        s = self.domain.points
        if len(s) > 12_000:
            msg = (
                f"{type(self).__name__}: expected at most 12000 nodes for a dense covariance, got "
                f"{len(s)}. Condition with Vecchia(), which samples without one, or cut the grid."
            )
            raise ValueError(msg)
        return self.covariance(s, s)


class TrendedPrior(GaussianPrior):
    r"""A Gaussian prior about a known constant, or about an unknown trend."""

    def _set_trend(self, mean: float, trend: str | None) -> None:
        self.constant = float(mean)
        self.trend = None if trend in {None, "", "0"} else Trend(str(trend), self.domain)
        p = 0 if self.trend is None else len(self.trend.terms)
        self.register_buffer("coefficients", torch.zeros(p, dtype=torch.float64))

    def mean(self, points: Points) -> Float[Tensor, " m"]:
        return torch.full((len(points),), self.constant, dtype=torch.float64)

    def design(self, points: Points) -> Float[Tensor, "m p"]:
        return super().design(points) if self.trend is None else self.trend.design(points)

    def drift(self) -> Float[Tensor, " n"]:
        s = self.domain.points
        return self.mean(s) + self.design(s) @ self.coefficients.to(torch.float64)


class KernelPrior(GaussianPrior):
    r"""A Gaussian prior whose covariance is a kernel of Cartesian coordinates."""

    kernel: Kernel

    def quantities(self) -> list[Quantity]:
        return of_kernel(self.kernel, self.domain)

    @abc.abstractmethod
    def coordinates(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns the Cartesian coordinates that the kernel takes."""

    def covariance(self, a: Points, b: Points) -> Float[Tensor, "p q"]:
        return self.kernel(self.coordinates(a), self.coordinates(b))

    def variance(self, points: Points) -> Float[Tensor, " m"]:
        return self.kernel.diagonal(self.coordinates(points))
