r"""The networks of one step of a learned descent: from gradients to a direction."""

from __future__ import annotations

__all__ = ["LightStep", "RecurrentStep", "Step"]

import abc
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from ...described import Described
from ...nets import Conv, ConvGRUCell, ConvLSTMCell, GatedPyramid, RecurrentCell

Memory = tuple[Any, ...]
CELLS: dict[str, type[ConvLSTMCell] | type[ConvGRUCell]] = {
    "lstm": ConvLSTMCell,
    "gru": ConvGRUCell,
}
AMPLITUDE = 10.0
"""What directions of the light step are multiplied by: smooth errors call for large ones."""


class Step(Described, nn.Module, abc.ABC):
    r"""A direction from the gradients of prior and data, with a memory.

    Attributes:
        channels: The number of channels of the field.
        dims: The number of space dimensions.
        linear: Whether the direction is linear in the gradients.
    """

    channels: int
    dims: int
    linear: ClassVar[bool] = False

    @abc.abstractmethod
    def start(self, known: Float[Tensor, "b q *space"]) -> Memory:
        r"""Returns the memory before the first step, from what is known of the places.

        Arguments:
            known: The weight of the data at every node, the logarithm of one plus their
                precision, and where there is sea: :math:`q = 2 c + 1`.
        """

    @abc.abstractmethod
    def forward(
        self, slopes: Float[Tensor, "b s *space"], memory: Memory
    ) -> tuple[Float[Tensor, "b c *space"], Memory]:
        r"""Returns the direction and the next memory.

        Arguments:
            slopes: The gradients of the prior, then of the data: :math:`s = 2 c` channels.
            memory: The memory.
        """


class LightStep(Step):
    r"""A preconditioner that is learned: linear in the gradients, gated by where data are.

    .. math:: d = P(q) \, [\nabla J_b, \nabla J_o]

    It has no constant: with a Gaussian prior and linear data the estimate is linear in the data,
    whatever the weights, as kriging is, and does not depend on how a field is cut into tiles
    beyond what the steps see.

    References:
        | A multigrid tutorial (Briggs, Henson & McCormick, 2000)
        | https://doi.org/10.1137/1.9780898719505

    Arguments:
        channels: The number of channels of the field.
        width: The number of channels inside.
        levels: The number of scales, each half as fine as the last.
        hidden: The number of channels inside the gates.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> import torch
        >>> step = LightStep(1, generator=torch.Generator().manual_seed(0))
        >>> memory = step.start(torch.ones(2, 3, 8, 9))
        >>> step(torch.ones(2, 2, 8, 9), memory)[0].shape
        torch.Size([2, 1, 8, 9])
    """

    linear = True

    def __init__(
        self,
        channels: int = 1,
        width: int = 8,
        levels: int = 4,
        hidden: int = 8,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        self.pyramid = GatedPyramid(
            2 * channels,
            channels,
            2 * channels + 1,
            width,
            levels,
            hidden,
            dims,
            padding,
            generator,
        )

    def start(self, known: Float[Tensor, "b q *space"]) -> Memory:
        return tuple(self.pyramid.gates(known))

    def forward(
        self, slopes: Float[Tensor, "b s *space"], memory: Memory
    ) -> tuple[Float[Tensor, "b c *space"], Memory]:
        return AMPLITUDE * self.pyramid(slopes, list(memory)), memory


class RecurrentStep(Step):
    r"""A convolutional recurrent cell that sees the gradients, as 4DVarNet has it.

    References:
        | Learning variational data assimilation models and solvers
        | (Fablet, Chapron, Drumetz, Mémin, Pannekoucke & Rousseau, 2021)
        | https://doi.org/10.1029/2021MS002572

    Arguments:
        channels: The number of channels of the field.
        width: The number of channels of the memory.
        cell: ``"lstm"``, or ``"gru"``, which is lighter.
        size: The width of the kernels, odd.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If the cell is not known, a count not positive, or a padding not known.

    Example:
        >>> import torch
        >>> step = RecurrentStep(1, 4, generator=torch.Generator().manual_seed(0))
        >>> memory = step.start(torch.ones(2, 3, 8, 9))
        >>> step(torch.ones(2, 2, 8, 9), memory)[0].shape
        torch.Size([2, 1, 8, 9])
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        cell: str = "lstm",
        size: int = 3,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            msg = (
                f"RecurrentStep(cell=...): expected one of {tuple(CELLS)}, got {cell!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        self.channels, self.dims = channels, dims
        self.cell: RecurrentCell = CELLS[cell](2 * channels, width, size, dims, padding, generator)
        self.places = Conv(
            2 * channels + 1,
            self.cell.inflow,
            size,
            dims,
            padding,
            bias=False,
            generator=generator,
        )
        self.leave = Conv(
            width, channels, 3, dims, padding, bias=False, gain=0.1, generator=generator
        )

    def start(self, known: Float[Tensor, "b q *space"]) -> Memory:
        return (self.places(known), self.cell.start(known))

    def forward(
        self, slopes: Float[Tensor, "b s *space"], memory: Memory
    ) -> tuple[Float[Tensor, "b c *space"], Memory]:
        places, state = memory
        h, state = self.cell(slopes, state, places)
        return self.leave(h), (places, state)
