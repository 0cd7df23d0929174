r"""A parameter field given by a small neural network."""

from __future__ import annotations

__all__ = ["Network"]

import itertools
import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import ClassVar

from .coordinates import Box, neighbour_differences
from .fields import LinkedField, Value, linked, weight
from ...domain import Grid, Points


class Network(LinkedField):
    r"""A field given by a small neural network of the coordinates, constant to start with.

    Coordinates are scaled to the box of the domain; beyond, the field is what it is at the
    nearest edge. Activations are smooth. The penalty is that of the Gaussian prior with density
    :math:`\exp(-\frac{\lambda}{2} \overline{\|\nabla \theta\|^2})`, the mean being over the box
    and the slopes per half-width of it.

    Arguments:
        domain: The domain whose box to cover; with an axis of time, the field varies in time.
        width: The number of units of a hidden layer.
        depth: The number of hidden layers.
        value: The constant to start from; by default 1, no velocity, or the identity.
        shape: The shape of one value: :math:`()`, :math:`(d)` or :math:`(d, d)`.
        smoothness: The weight :math:`\lambda` of the penalty.
        scale: What a vector is counted in; by default the largest component of ``value``, or 1.
        generator: The random number generator of the initial weights.

    Raises:
        ValueError: If ``width`` or ``depth`` is not positive, or the value is not allowed.

    Example:
        >>> grid = Grid(x=[0.0, 1.0])
        >>> Network(grid, value=2.0)(grid.points).tolist()
        [2.0, 2.0]
    """

    CELLS: ClassVar[int] = 13
    REPORTED = "(middle)"
    start: Tensor

    def __init__(
        self,
        domain: Grid | Points,
        width: int = 32,
        depth: int = 2,
        value: Value = None,
        shape: Sequence[int] = (),
        smoothness: float = 1.0,
        scale: float | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            msg = (
                f"Network(width={width}, depth={depth}): expected positive numbers, got "
                f"{min(width, depth)}. Use e.g. width=32, depth=2."
            )
            raise ValueError(msg)
        self.link, start = linked(value, shape, scale)
        self.smoothness = weight("Network", smoothness)
        self.box = Box(domain, domain.dims)
        self.register_buffer("start", start)
        self.inner = _layers(self._inputs, width, depth, len(start), generator)

    @property
    def _inputs(self) -> int:
        return len(self.box.dims) + sum(self.box.closed)

    def free(self, points: Points) -> Float[Tensor, "m k"]:
        return self._at(self.box(points))

    def middle(self) -> Float[Tensor, " k"]:
        return self._at(torch.full((1, len(self.box.dims)), 0.5, dtype=torch.float64))[0]

    def _at(self, s: Float[Tensor, "m j"]) -> Float[Tensor, "m k"]:
        r"""Returns the free numbers at places of the unit cube; a closed axis is a circle."""
        columns: list[Tensor] = []
        for x, closed in zip(s.unbind(dim=-1), self.box.closed, strict=True):
            turn = 2 * math.pi * x
            columns += [turn.cos(), turn.sin()] if closed else [2 * x - 1]
        return self.start + self.inner(torch.stack(columns, dim=-1).to(self.start.dtype))

    def penalty(self) -> Float[Tensor, ""]:
        total = torch.zeros((), dtype=torch.float64)
        for i in range(len(self.box.dims)):
            total = total + self._steps(i).square().sum(dim=-1).mean()
        return self.smoothness / 2 * total * (self.CELLS / 2) ** 2

    def _steps(self, axis: int) -> Tensor:
        r"""Returns the differences along an axis, through the middles of a lattice of cells."""
        ends = torch.linspace(0, 1, self.CELLS + 1, dtype=torch.float64)
        axes = [(ends[1:] + ends[:-1]) / 2] * len(self.box.dims)
        axes[axis] = ends
        nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        theta = self._at(nodes.flatten(0, -2)).unflatten(0, nodes.shape[:-1])
        return neighbour_differences(theta, axis, 1)


def _layers(
    inputs: int, width: int, depth: int, outputs: int, generator: Generator | None
) -> nn.Sequential:
    r"""Returns a network whose last layer is zero, its others drawn with the right variance."""
    sizes = [inputs, *[width] * depth, outputs]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        linear = nn.utils.skip_init(nn.Linear, a, b, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.normal_(0.0, (2.0 / a) ** 0.5, generator=generator)
            linear.bias.uniform_(-1.0, 1.0, generator=generator)
        layers += [linear, nn.SiLU()]
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    return nn.Sequential(*layers[:-1])
