r"""Fields that a projection leaves as they are: priors that are learned."""

from __future__ import annotations

__all__ = ["Projection"]

import abc
import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

from .base import Energy, GaussianPrior
from .layout import Layout
from ..domain import Grid
from ..dynamics import Dynamics
from ..linalg.dense import square_root
from ..nets import pullback

Adjoint = Callable[[Tensor], Tensor]


class _Operator(nn.Module, abc.ABC):
    r"""A map between states, with the adjoint of its Jacobian.

    Attributes:
        normal: Whether states are in units where fields have mean 0 and variance 1.
    """

    normal = False

    @abc.abstractmethod
    def pullback(self, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Adjoint]:
        r"""Returns :math:`\Phi(x)` and :math:`r \mapsto J^\top r`."""


class _OnArrays(_Operator):
    r"""A network."""

    normal = True
    sea: Tensor | None

    def __init__(self, net: nn.Module, layout: Layout, land: bool) -> None:
        super().__init__()
        self.net, self.layout = net, layout
        sea = layout.sea().any(dim=0)[None, None].to(torch.float64) if land else None
        self.register_buffer("sea", sea, persistent=False)

    def _net(self, a: Tensor) -> tuple[Tensor, Adjoint]:
        if self.sea is None:
            return pullback(self.net, a)
        sea = self.sea.to(a.dtype).expand(len(a), *self.sea.shape[1:])
        y, adjoint = pullback(self.net, torch.cat([a, sea], dim=1))
        return y, lambda r: adjoint(r)[:, :-1]

    def pullback(self, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Adjoint]:
        inner = next((p.dtype for p in self.net.parameters()), x.dtype)
        batch, spread = x.shape[:-1], self.layout.spread
        y, adjoint = self._net(spread(x).to(inner))

        def back(a: Tensor) -> Tensor:
            return self.layout.gather(a, batch).to(x.dtype)

        return back(y), lambda r: back(adjoint(spread(r).to(inner)))


class _Evolution(_Operator):
    r"""Every state but the first, forecast from the one before it."""

    def __init__(self, domain: Grid, model: Dynamics, steps: int) -> None:
        super().__init__()
        self.net, self.steps, self.times = model, steps, domain.shape[0]
        if domain.dims[0] != "time" or len(domain) != self.times * model_size(model):
            msg = (
                f"Projection(domain=...): expected a grid with time, and {model_size(model)} "
                f"nodes per time, the state of the model, got {domain!r}. Match its other axes."
            )
            raise ValueError(msg)

    def _advance(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        states = x.unflatten(-1, (self.times, -1))
        last = states[..., :-1, :].reshape(-1, *self.net.shape).to(torch.float64)
        moved = self.net(last, self.steps).reshape(states[..., 1:, :].shape).to(x.dtype)
        return torch.cat([states[..., :1, :], moved], dim=-2).flatten(-2)

    def pullback(self, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Adjoint]:
        found = torch.func.vjp(self._advance, x)
        return found[0], lambda r: found[1](r)[0]


def model_size(model: Dynamics) -> int:
    r"""Returns the number of components of a state."""
    return int(torch.tensor(model.shape).prod())


class _Whitening(_Operator):
    r"""The map whose rest is white: :math:`x - \Phi(x) = L^{-1} (x - \mu)`."""

    centre: Tensor
    white: Tensor

    def __init__(self, prior: GaussianPrior) -> None:
        super().__init__()
        s = prior.domain.points
        root = square_root(prior.covariance(s, s), "Projection.linear", strict=True)
        white = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
        self.register_buffer("centre", prior.drift())
        self.register_buffer("white", white)

    def pullback(self, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Adjoint]:
        W = self.white.to(x.dtype)
        return x - (x - self.centre.to(x.dtype)) @ W.mT, lambda r: r - r @ W


class Projection(Energy):
    r"""Fields near those that a map leaves as they are.

    .. math:: J_b(x) = \frac{1}{2 s^2} \|x - \Phi(x)\|^2

    The cost is a sum over the nodes of one field, never an average over nodes or a batch: the
    gradient at a node does not know how large the field is, nor what else is in the batch. With
    :math:`r = x - \Phi(x)` it is

    .. math:: \nabla J_b(x) = \frac{1}{s^2} \left( r - J_\Phi(x)^\top r \right)

    made of forward operations for the networks of :mod:`matheron.nets` that know their adjoint.
    A Gaussian law is the special case :math:`s = 1`, :math:`\Phi(x) = x - L^{-1} (x - \mu)` with
    :math:`B = L L^\top`: see :meth:`linear`. A model of time evolution guesses every state from
    the one before.

    References:
        | Learning variational data assimilation models and solvers
        | (Fablet, Chapron, Drumetz, Mémin, Pannekoucke & Rousseau, 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        domain: The grid of the field, with :math:`n` nodes.
        phi: The map :math:`\Phi`: a network on arrays ``(batch, channels, *space)``, in units
            where fields have mean 0 and variance 1, or a :class:`Dynamics`, in its own.
        std: The standard deviation :math:`s` of the rest, in the units of the field, positive.
        channels: The axis whose places are the channels; see :class:`Layout`.
        mean: The mean of fields, in their units: a number, or one per channel.
        scale: Their standard deviation, in their units, likewise.
        land: Whether the network has one more channel, which says where the sea is.
        steps: The number of time steps of a :class:`Dynamics` from one time to the next.
        learn_std: Whether training may change ``std``.

    Raises:
        TypeError: If the domain is not a grid.
        ValueError: If the layout does not fit, or ``std`` or ``scale`` is not positive.

    Example:
        >>> from matheron.nets import BilinearAutoencoder
        >>> grid = Grid(time=[0.0, 1.0, 2.0], y=torch.arange(8.0), x=torch.arange(9.0))
        >>> phi = BilinearAutoencoder(3, 4, generator=torch.Generator().manual_seed(0))
        >>> prior = Projection(grid, phi, std=0.1)
        >>> prior.gradient(torch.zeros(5, 216, dtype=torch.float64)).shape
        torch.Size([5, 216])
    """

    domain: Grid
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        domain: Grid,
        phi: nn.Module,
        std: float = 1.0,
        channels: str | None = "time",
        mean: float | Float[Tensor, "*c"] = 0.0,
        scale: float | Float[Tensor, "*c"] = 1.0,
        land: bool = False,
        steps: int = 1,
        learn_std: bool = True,
    ) -> None:
        super().__init__()
        self.domain, self.layout = domain, Layout(domain, channels)
        m, s = (torch.as_tensor(v, dtype=torch.float64).clone() for v in (mean, scale))
        for name, values in (("mean", m), ("scale", s)):
            self.layout.check("Projection", name, values)
        self._check_positive("scale", s)
        self._check_positive("std", torch.as_tensor(std))
        self.register_buffer("mean", m)
        self.register_buffer("scale", s)
        self.log_std = nn.Parameter(
            torch.as_tensor(std, dtype=torch.float64).log(), requires_grad=learn_std
        )
        self.operator: _Operator
        if isinstance(phi, _Operator):
            self.operator = phi
        elif isinstance(phi, Dynamics):
            self.operator = _Evolution(domain, phi, steps)
        else:
            self.operator = _OnArrays(phi, self.layout, land)

    @staticmethod
    def _check_positive(name: str, values: Tensor) -> None:
        if not (values > 0).all() or not values.isfinite().all():
            msg = (
                f"Projection({name}=...): expected positive numbers, got {values.min().item()}. "
                "Give that of the field."
            )
            raise ValueError(msg)

    @classmethod
    def linear(cls, prior: GaussianPrior, channels: str | None = "time") -> Projection:
        r"""Returns a Gaussian prior, at its present parameters, as a projection.

        Its matrices are dense: it is for grids of at most a few thousand nodes. It spares a solver
        that is trained from factorising a covariance at every step.

        Arguments:
            prior: The Gaussian prior, on a grid.
            channels: The axis whose places are the channels.

        Example:
            >>> from matheron.kernels import Matern
            >>> from matheron.priors import GaussianProcess
            >>> gaussian = GaussianProcess(Matern(0.5), Grid(x=[0.0, 1.0, 2.0]))
            >>> x = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
            >>> torch.allclose(Projection.linear(gaussian).gradient(x), gaussian.gradient(x))
            True
        """
        with torch.no_grad():
            domain = prior.domain
            layout = Layout(domain, channels)
            scale = prior.variance(domain.points).mean().sqrt()
            whitening = _Whitening(prior)
        assert isinstance(layout.domain, Grid)
        return cls(layout.domain, whitening, 1.0, channels, scale=scale, learn_std=False)

    @property
    def std(self) -> Float[Tensor, ""]:
        r"""The standard deviation of the rest, in the units of the field."""
        return self.log_std.exp()

    def drift(self) -> Float[Tensor, "*n"]:
        r"""Returns the mean of fields: one number, or one per node."""
        if isinstance(self.operator, _Whitening):
            return self.operator.centre
        return self.layout.flat(self.mean)

    def pullback(self, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Adjoint]:
        r"""Returns :math:`\Phi(x)`, in the units of the field, and :math:`r \mapsto J^\top r`."""
        if not self.operator.normal:
            return self.operator.pullback(x)
        mean, scale = self.layout.flat(self.mean).to(x), self.layout.flat(self.scale).to(x)
        y, adjoint = self.operator.pullback((x - mean) / scale)
        return mean + scale * y, lambda r: adjoint(r * scale) / scale

    def project(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`\Phi(x)`, in the units of the field."""
        return self.pullback(x)[0]

    def cost(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        r = x - self.project(x)
        return r.square().sum(dim=-1) / (2 * self.std.square()).to(x.dtype)

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        y, adjoint = self.pullback(x)
        r = x - y
        return (r - adjoint(r)) / self.std.square().to(x.dtype)
