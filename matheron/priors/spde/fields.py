r"""Parameter fields: the coefficients of an equation, varying in space and in time."""

from __future__ import annotations

__all__ = [
    "Constant",
    "Covariates",
    "LinkedField",
    "ParameterField",
    "PerNode",
    "Spline",
    "Value",
    "linked",
    "weight",
]

import abc
import itertools
import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor
from typing import ClassVar

from .coordinates import Box, Nearest, cubic_splines, neighbour_differences, space_axes
from .links import Link
from ..quantities import Described, Quantity
from ...domain import Grid, Points

Value = float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None


class ParameterField(Described):
    r"""A field of parameters: positive numbers, vectors, or positive definite matrices.

    Time is an argument of the field if it was built over time, and ignored if it was not.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        r"""The shape of one value: :math:`()`, :math:`(d)` or :math:`(d, d)`."""

    @abc.abstractmethod
    def forward(self, points: Points) -> Tensor:
        r"""Returns the values, with shape :math:`(m)`, :math:`(m, d)` or :math:`(m, d, d)`."""

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the field; zero by default."""
        return torch.zeros((), dtype=torch.float64)

    def quantities(self) -> list[Quantity]:
        r"""Returns what the report of a fit says of the field; nothing by default."""
        return []


class LinkedField(ParameterField):
    r"""A field whose values come from free numbers :math:`\theta(s)`, through a :class:`Link`.

    The exponential for a number, a multiple of ``scale`` for a vector, the matrix exponential for
    a matrix: every free number gives an equation that makes sense, and what is penalised is a
    logarithm.
    """

    REPORTED: ClassVar[str] = "(mean)"
    link: Link

    @property
    def shape(self) -> tuple[int, ...]:
        return self.link.shape

    @abc.abstractmethod
    def free(self, points: Points) -> Float[Tensor, "m k"]:
        r"""Returns the free numbers :math:`\theta(s)`."""

    @abc.abstractmethod
    def middle(self) -> Float[Tensor, " k"]:
        r"""Returns free numbers that stand for the whole field in a table."""

    def quantities(self) -> list[Quantity]:
        value = self.link(self.middle()[None])[0]
        places = itertools.product(*(range(d) for d in value.shape))
        upper = [p for p in places if p == tuple(sorted(p))]  # a matrix is symmetric
        names = [f"{self.REPORTED} {''.join(str(i + 1) for i in p)}".strip() for p in upper]
        return [(name, value[p], "-") for name, p in zip(names, upper, strict=True)]

    def forward(self, points: Points) -> Tensor:
        return self.link(self.free(points))


def linked(value: Value, shape: Sequence[int], scale: float | None) -> tuple[Link, Tensor]:
    r"""Returns the link of a field, and the free numbers that it starts from."""
    if scale is None:
        size = torch.as_tensor(0.0 if value is None else value, dtype=torch.float64).abs().max()
        scale = size.item() if len(shape) == 1 and size > 0 else 1.0
    link = Link(shape, scale)
    return link, link.start(value)


def weight(where: str, value: float) -> float:
    r"""Returns the weight of a penalty, checked."""
    if not (value >= 0 and math.isfinite(value)):
        msg = (
            f"{where}(smoothness=...): expected a number at least zero, got {value}. Use 0 for no "
            "penalty."
        )
        raise ValueError(msg)
    return float(value)


class Constant(LinkedField):
    r"""A parameter that is the same everywhere.

    Arguments:
        value: The value to start from: a positive number, a vector, or a positive definite
            matrix.
        scale: What a vector is counted in; by default its largest component.

    Raises:
        ValueError: If the value is not allowed.

    Example:
        >>> Constant(2.0)(Points(x=[0.0, 1.0])).tolist()
        [2.0, 2.0]
    """

    REPORTED = ""

    def __init__(
        self,
        value: float | Sequence[float] | Sequence[Sequence[float]] | Tensor,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(torch.as_tensor(value).shape)
        self.link, start = linked(value, shape, scale)
        self.theta = nn.Parameter(start)

    def free(self, points: Points) -> Float[Tensor, "m k"]:
        return self.theta.expand(len(points), -1)

    def middle(self) -> Float[Tensor, " k"]:
        return self.theta


class Spline(LinkedField):
    r"""A smooth field: tensor products of cubic B-splines over the box of a domain.

    .. math:: \theta(s) = \sum_j c_j \prod_i b_{j_i}(s_i)

    Outside of the box, the field is what it is at the nearest edge. Second differences of
    neighbouring coefficients, along each axis, have the Gaussian prior
    :math:`\mathcal{N}(0, 1 / \lambda)`; constants and slopes are free.

    References:
        | Flexible smoothing with B-splines and penalties (Eilers and Marx, 1996)
        | https://doi.org/10.1214/ss/1038425655

    Arguments:
        domain: The domain whose box to cover.
        knots: The number of knots, two or more, along each axis of space, or of time and space;
            one number is for every axis of space.
        value: The constant to start from; by default 1, no velocity, or the identity.
        shape: The shape of one value: :math:`()`, :math:`(d)` or :math:`(d, d)`.
        smoothness: The weight :math:`\lambda` of the penalty.
        scale: What a vector is counted in, e.g. a typical velocity; by default the largest
            component of ``value``, or 1.

    Raises:
        ValueError: If there are not as many knots as axes, or the value is not allowed.

    Example:
        >>> grid = Grid(y=[0.0, 1.0, 2.0], x=[0.0, 1.0])
        >>> field = Spline(grid, knots=(4, 3), shape=(2, 2))
        >>> field(grid.points).shape, field.coefficients.shape
        (torch.Size([6, 2, 2]), torch.Size([6, 5, 3]))
    """

    def __init__(
        self,
        domain: Grid | Points,
        knots: int | Sequence[int] = 5,
        value: Value = None,
        shape: Sequence[int] = (),
        smoothness: float = 1.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.link, start = linked(value, shape, scale)
        self.smoothness = weight("Spline", smoothness)
        self.box, self.knots = _box(domain, knots)
        counts = [k if c else k + 2 for k, c in zip(self.knots, self.box.closed, strict=True)]
        self.coefficients = nn.Parameter(start.expand(*counts, -1).clone())

    def free(self, points: Points) -> Float[Tensor, "m k"]:
        return self.combine(points)

    def middle(self) -> Float[Tensor, " k"]:
        return self.coefficients.flatten(0, -2).mean(dim=0)

    def combine(self, points: Points, slope: int | None = None) -> Float[Tensor, "m k"]:
        r"""Returns the free numbers, or their slope along an axis, per width of the box."""
        s = self.box(points)
        lines = [x.unique(return_inverse=True) for x in s.unbind(dim=-1)]
        if math.prod(len(places) for places, _ in lines) > 4 * len(s):
            return self._scattered(s, slope)
        c, index = self.coefficients.double(), torch.zeros(len(s), dtype=torch.long)
        for i, (places, inverse) in enumerate(lines):  # a lattice: one axis after the other
            basis = self._basis(i, places, slope == i)
            c = torch.tensordot(basis, c, dims=([1], [i])).movedim(0, i)
            index = index * len(places) + inverse
        return c.flatten(0, -2)[index]

    def _basis(self, i: int, s: Float[Tensor, " m"], slope: bool) -> Float[Tensor, "m j"]:
        number, value, rate = cubic_splines(s, self.knots[i], self.box.closed[i])
        empty = s.new_zeros(len(s), self.coefficients.shape[i])
        return empty.scatter_add(1, number, rate if slope else value)

    def _scattered(self, s: Float[Tensor, "m j"], slope: int | None) -> Float[Tensor, "m k"]:
        number = torch.zeros(len(s), 1, dtype=torch.long)
        product = torch.ones(len(s), 1, dtype=torch.float64)
        for i, (knots, closed) in enumerate(zip(self.knots, self.box.closed, strict=True)):
            index, value, rate = cubic_splines(s[:, i], knots, closed)
            value = rate if i == slope else value
            number = (number * self.coefficients.shape[i])[..., None] + index[:, None]
            product = product[..., None] * value[:, None]
            number, product = number.flatten(1), product.flatten(1)
        c = self.coefficients.double().flatten(0, -2)
        return (c[number] * product[..., None]).sum(dim=1)

    def penalty(self) -> Float[Tensor, ""]:
        total = torch.zeros((), dtype=torch.float64)
        for i, closed in enumerate(self.box.closed):
            total = total + _energy(self.coefficients, i, 2, closed)
        return self.smoothness / 2 * total


def _energy(c: Tensor, axis: int, order: int, closed: bool = False) -> Float[Tensor, ""]:
    return neighbour_differences(c, axis, order, closed).square().sum()


def _box(domain: Grid | Points, knots: int | Sequence[int]) -> tuple[Box, tuple[int, ...]]:
    space = space_axes(domain)
    each = (knots,) * len(space) if isinstance(knots, int) else tuple(knots)
    dims = space if len(each) == len(space) else domain.dims
    box = Box(domain, dims)
    fewest = [4 if closed else 2 for closed in box.closed]
    if len(each) != len(dims) or any(k < f for k, f in zip(each, fewest, strict=True)):
        msg = (
            f"Spline(knots=...): expected two or more (around the globe, four) for each of the "
            f"axes {space}, or {domain.dims}, got {each}. Give one number per axis."
        )
        raise ValueError(msg)
    return box, each


class Covariates(LinkedField):
    r"""A log-linear field of covariates, e.g. depth or distance to the coast.

    .. math:: \theta(s) = \theta_0 + \sum_j a_j z_j(s)

    Covariates :math:`z_j` are standardised over the domain. Points that do not carry them take
    those of the nearest node of the domain. The slopes have the Gaussian prior
    :math:`a_j \sim \mathcal{N}(0, 1 / \lambda)`.

    References:
        | Spatial modeling with R-INLA: a review (Bakka et al., 2018)
        | https://doi.org/10.1002/wics.1443

    Arguments:
        domain: The domain, with ``covariates``.
        names: The names of the covariates.
        value: The constant to start from; by default 1, no velocity, or the identity.
        shape: The shape of one value: :math:`()`, :math:`(d)` or :math:`(d, d)`.
        smoothness: The weight :math:`\lambda` of the penalty.
        scale: What a vector is counted in; by default the largest component of ``value``, or 1.

    Raises:
        ValueError: If the domain has no such covariate, or the value is not allowed.

    Example:
        >>> grid = Grid(x=[0.0, 1.0], covariates={"depth": [10.0, 20.0]})
        >>> Covariates(grid, ["depth"], value=3.0)(Points(x=[0.2])).item()
        3.0
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        domain: Grid | Points,
        names: Sequence[str],
        value: Value = None,
        shape: Sequence[int] = (),
        smoothness: float = 1.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        unknown = [name for name in names if name not in domain.covariates]
        if unknown or not names:
            msg = (
                f"Covariates(names=...): expected some of {sorted(domain.covariates)}, got "
                f"{list(names)}. Pass them in Grid(covariates=...) or Points(covariates=...)."
            )
            raise ValueError(msg)
        self.link, start = linked(value, shape, scale)
        self.smoothness, self.names = weight("Covariates", smoothness), tuple(names)
        self.nearest, self.table = Nearest(domain), self._columns(domain.covariates)
        self.register_buffer("center", self.table.mean(dim=0))
        self.register_buffer("spread", self.table.std(dim=0, correction=0).clamp(min=1e-12))
        self.level = nn.Parameter(start)
        self.slopes = nn.Parameter(start.new_zeros(len(names), len(start)))

    def _columns(self, covariates: dict[str, Tensor]) -> Float[Tensor, "m j"]:
        return torch.stack([covariates[name] for name in self.names], dim=-1)

    def free(self, points: Points) -> Float[Tensor, "m k"]:
        if all(name in points.covariates for name in self.names):
            z = self._columns(points.covariates)
        else:
            z = self.table[self.nearest(points)]
        return self.level + ((z - self.center) / self.spread) @ self.slopes

    def middle(self) -> Float[Tensor, " k"]:
        return self.level

    def penalty(self) -> Float[Tensor, ""]:
        return self.smoothness / 2 * self.slopes.square().sum()


class PerNode(LinkedField):
    r"""A field with a free value at each node of a grid, and that of the nearest node elsewhere.

    Differences between neighbours have the Gaussian prior :math:`\mathcal{N}(0, 1 / \lambda)`;
    the level is free. Across land there are no neighbours.

    Arguments:
        grid: The grid; with an axis of time, the field varies in time.
        value: The constant to start from, or the values at the nodes.
        shape: The shape of one value: :math:`()`, :math:`(d)` or :math:`(d, d)`.
        smoothness: The weight :math:`\lambda` of the penalty.
        scale: What a vector is counted in; by default the largest component of ``value``, or 1.

    Raises:
        ValueError: If a value is not allowed.

    Example:
        >>> field = PerNode(Grid(x=[0.0, 1.0]), torch.tensor([1.0, 2.0]))
        >>> field(Points(x=[0.9, 9.0])).tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        grid: Grid,
        value: Value = None,
        shape: Sequence[int] = (),
        smoothness: float = 1.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.smoothness = grid, weight("PerNode", smoothness)
        self.nearest = Nearest(grid)
        values = torch.as_tensor(0.0 if value is None else value, dtype=torch.float64)
        if values.shape == (len(grid), *shape):
            self.link, _ = linked(None, shape, scale or (values.abs().max().item() or 1.0))
            start = self.link.inverse(values)
        else:
            self.link, level = linked(value, shape, scale)
            start = level.expand(len(grid), -1)
        # a level of its own, although the nodes could do it: alone they move it very slowly
        self.level = nn.Parameter(start.mean(dim=0))
        self.rest = nn.Parameter(start - start.mean(dim=0))

    def free(self, points: Points) -> Float[Tensor, "m k"]:
        return self.level + self.rest[self.nearest(points)]

    def middle(self) -> Float[Tensor, " k"]:
        return self.level + self.rest.mean(dim=0)

    def penalty(self) -> Float[Tensor, ""]:
        full = self.grid.unflatten(self.rest.mT)  # NaN on land
        total = torch.zeros((), dtype=torch.float64)
        for i, closed in enumerate(self.nearest.box.closed, start=1):
            step = neighbour_differences(full, i, 1, closed)
            total = total + torch.where(step.isnan(), 0.0, step).square().sum()
        return self.smoothness / 2 * total
