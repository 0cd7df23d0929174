r"""Projections made of products of convolutions: what a field should look like."""

from __future__ import annotations

__all__ = ["BilinearAutoencoder", "TwoScale"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, cast

from .layers import Adjoint, Conv, Pullback, check_counts, check_dims, pool, pool_adjoint, unpool


class _Products(Pullback):
    r"""Linear features beside products of them: :math:`W [A h, B h \odot C h]`."""

    def __init__(self, width: int, out: int, size: int, **settings: Any) -> None:
        super().__init__()
        self.channels, self.dims = width, settings["dims"]
        self.linear = Conv(width, width, size, **settings)
        self.left = Conv(width, width, size, **settings)
        self.right = Conv(width, width, size, **settings)
        self.mixing = Conv(2 * width, out, size, **settings)

    def pullback(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Adjoint]:
        a, b = self.left(x), self.right(x)
        y = self.mixing(torch.cat([self.linear(x), a * b], dim=1))

        def adjoint(r: Tensor) -> Tensor:
            straight, product = self.mixing.adjoint(r).chunk(2, dim=1)
            bent = self.left.adjoint(product * b) + self.right.adjoint(product * a)
            return self.linear.adjoint(straight) + bent

        return y, adjoint


class _Scale(Pullback):
    r"""Two convolutions and products, on averages over cells."""

    def __init__(
        self,
        channels: int,
        out: int,
        width: int,
        factor: int,
        size: int,
        hole: bool,
        generator: Generator | None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.channels, self.dims = channels, settings["dims"]
        self.factor = self.cell = factor
        self.modes, self.smooth = (
            settings["padding"],
            not hole,
        )  # what goes between cells would tell a node of itself
        self.first = Conv(channels, width, size, hole=hole, generator=generator, **settings)
        inner = 1 if hole else size
        self.second = Conv(width, width, inner, generator=generator, **settings)
        self.products = _Products(width, out, inner, generator=generator, **settings)

    def pullback(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Adjoint]:
        space, f = x.shape[2:], self.factor
        h = self.first(pool(x, f) if f > 1 else x)
        y, products = self.products.pullback(self.second(h.relu()))
        positive = h > 0

        def adjoint(r: Tensor) -> Tensor:
            r = self._up(r, space, adjoint=True)
            r = self.first.adjoint(self.second.adjoint(products(r)) * positive)
            return pool_adjoint(r, space, f) if f > 1 else r

        return self._up(y, space), adjoint

    def _up(self, y: Tensor, space: Sequence[int], adjoint: bool = False) -> Tensor:
        f = self.factor
        if f == 1:
            return y
        if self.smooth:
            return unpool(y, space, f, self.modes, adjoint)
        cells = f**self.dims  # copies to the nodes of a cell: the adjoint of its average
        if adjoint:
            return pool(y * cells, f)
        return pool_adjoint(y, space, f) * cells


class _Sum(Pullback):
    r"""A sum of networks."""

    parts: nn.ModuleList

    def pullback(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Adjoint]:
        found = [cast(Pullback, part).pullback(x) for part in self.parts]
        y = torch.stack([y for y, _ in found]).sum(dim=0)
        return y, lambda r: torch.stack([adjoint(r) for _, adjoint in found]).sum(dim=0)


class BilinearAutoencoder(_Sum):
    r"""A sum over scales of convolutions, a product of two of them, and a convolution.

    Fields are averaged over cells, and what comes of them is interpolated back. It knows its
    adjoint.

    References:
        | Learning variational data assimilation models and solvers
        | (Fablet, Chapron, Drumetz, Mémin, Pannekoucke & Rousseau, 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        channels: The number of channels, e.g. of days.
        width: The number of channels inside.
        factors: The sides of the cells, one per scale.
        size: The width of the kernels, odd.
        out: The number of channels that it gives; as many as it takes by default.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> phi = BilinearAutoencoder(15, 8, generator=torch.Generator().manual_seed(0))
        >>> phi(torch.zeros(2, 15, 20, 21)).shape
        torch.Size([2, 15, 20, 21])
    """

    def __init__(
        self,
        channels: int,
        width: int = 32,
        factors: Sequence[int] = (2,),
        size: int = 3,
        out: int | None = None,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        where, self.channels, self.dims = type(self).__name__, channels, dims
        check_counts(where, channels=channels, width=width, factors=min(factors, default=0))
        out, modes = channels if out is None else out, check_dims(where, dims, padding)
        parts = [
            _Scale(channels, out, width, f, size, False, generator, dims=dims, padding=modes)
            for f in factors
        ]
        self.parts = nn.ModuleList(parts)


class TwoScale(_Sum):
    r"""A field guessed at every node from its neighbours, at two scales, never from itself.

    The first convolution of each scale has no centre, and what follows stays in its place: the
    projection of a Gibbs field. It cannot become the identity, whatever its weights (but near a
    border that reflects), and it knows its adjoint.

    References:
        | Learning variational data assimilation models and solvers
        | (Fablet, Chapron, Drumetz, Mémin, Pannekoucke & Rousseau, 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        channels: The number of channels, e.g. of days.
        width: The number of channels inside.
        factor: The side of the cells of the coarse scale.
        size: The width of the first kernels, odd.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> phi = TwoScale(1, 4, dims=1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.zeros(1, 1, 12)
        >>> change = phi(x.index_fill(2, torch.tensor([5]), 1.0)) - phi(x)
        >>> change[0, 0, 5].item()
        0.0
    """

    def __init__(
        self,
        channels: int,
        width: int = 32,
        factor: int = 4,
        size: int = 5,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        check_counts(type(self).__name__, channels=channels, width=width, factor=factor)
        modes = check_dims(type(self).__name__, dims, padding)
        parts = [
            _Scale(channels, channels, width, f, size, True, generator, dims=dims, padding=modes)
            for f in (1, factor)
        ]
        self.parts = nn.ModuleList(parts)
