r"""The networks of one step of a learned descent: from gradients to a direction."""

from __future__ import annotations

__all__ = ["LightStep", "NetworkStep", "RecurrentStep", "Step", "bent"]

import abc
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from ...described import Described
from ...nets import Conv, ConvGRUCell, ConvLSTMCell, GatedPyramid, Net, RecurrentCell

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
        beside: The channels of fields beside the data that it looks at.
    """

    channels: int
    dims: int
    beside: int = 0
    linear: ClassVar[bool] = False

    @abc.abstractmethod
    def start(self, known: Float[Tensor, "b q *space"]) -> Memory:
        r"""Returns the memory before the first step, from what is known of the places.

        Arguments:
            known: The weight of the data at every node, the logarithm of one plus their
                precision, where there is sea, and the fields beside the data:
                :math:`q = 2 c + 1 + b`.
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
        beside: The channels :math:`b` of fields beside the data, which it is then told of.

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
        beside: int = 0,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            msg = (
                f"RecurrentStep(cell=...): expected one of {tuple(CELLS)}, got {cell!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        self.channels, self.dims, self.beside = channels, dims, beside
        self.cell: RecurrentCell = CELLS[cell](2 * channels, width, size, dims, padding, generator)
        self.places = Conv(
            2 * channels + 1 + beside,
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


def bent(g: Tensor, bound: float) -> Tensor:
    r"""Returns :math:`a \, \mathrm{asinh}(g / a)`: numbers under the bound stay, others bend.

    Example:
        >>> [round(v, 2) for v in bent(torch.tensor([0.1, 300.0]), 3.0).tolist()]
        [0.1, 15.9]
    """
    return bound * (g / bound).asinh()


class NetworkStep(Step):
    r"""Any network as a step with a memory: what one step sees may span the whole field.

    .. math:: [d_k, h_{k+1}] = N([a \, \mathrm{asinh}(s \, g_k / a), q, \tanh h_k])

    A recurrent cell moves what it knows by the width of its kernels at each step. A network with
    several scales, e.g. a :class:`matheron.nets.UNet`, moves it everywhere at once, so that few
    steps are enough, and the first of them is already a direct inversion. Gradients :math:`g` are
    multiplied by :math:`s`, which is learned, prior and data apart: those of a model of time are
    far smaller where errors are smooth than where they are rough. Large ones are bent, so that an
    iterate far from the attractor of a model does no harm.

    References:
        | Recurrent inference machines for solving inverse problems (Putzky & Welling, 2017)
        | https://doi.org/10.48550/arXiv.1706.04008

    Arguments:
        network: A network of :math:`4 c + 1 + b + w` channels, the gradients, what is known of
            the places and the memory, that gives :math:`c + w`, for a field of :math:`c` channels.
            It takes :math:`c` more if it is told where it is.
        channels: The number of channels of the field :math:`c`.
        width: The number of channels of the memory :math:`w`.
        gain: The first value of :math:`s`, for the prior and for the data.
        bound: The size :math:`a` from which gradients are bent.
        tracks: Whether the network is told where it is: the sum of its directions so far, which is
            the way from the first guess where steps are of size one and have no momentum. The
            gradients of a model that is not linear mean something else elsewhere.
        beside: The channels :math:`b` of fields beside the data.

    Raises:
        ValueError: If the network takes another number of channels, a count is not positive, or
            a gain or bound is not.

    Example:
        >>> import torch
        >>> from matheron.nets import UNet
        >>> net = UNet(4 + 1 + 2, 1 + 2, width=4, generator=torch.Generator().manual_seed(0))
        >>> step = NetworkStep(net, 1, width=2)
        >>> memory = step.start(torch.ones(2, 3, 8, 9))
        >>> step(torch.ones(2, 2, 8, 9), memory)[0].shape
        torch.Size([2, 1, 8, 9])
    """

    def __init__(
        self,
        network: Net,
        channels: int = 1,
        width: int = 8,
        gain: tuple[float, float] = (1.0, 1.0),
        bound: float = 3.0,
        tracks: bool = False,
        beside: int = 0,
    ) -> None:
        super().__init__()
        needed = (5 if tracks else 4) * channels + 1 + beside + width
        if min(channels, width) < 1 or beside < 0 or network.channels != needed:
            msg = (
                f"NetworkStep(network=...): expected a network of {needed} channels, for "
                f"{channels} of the field and {width} of the memory, got {network.channels}. "
                "Build it for them."
            )
            raise ValueError(msg)
        if not min(*gain, bound) > 0:
            msg = (
                f"NetworkStep(gain=...): expected positive numbers, got {gain}, {bound}. Use 1.0."
            )
            raise ValueError(msg)
        self.channels, self.dims, self.width, self.bound = channels, network.dims, width, bound
        self.beside = beside
        self.network, self.tracks = network, tracks
        self.log_gain = nn.Parameter(torch.tensor(gain).log())

    def start(self, known: Float[Tensor, "b q *space"]) -> Memory:
        blank = known.new_zeros(len(known), self.width + self.channels, *known.shape[2:])
        return (known, *blank.split([self.width, self.channels], dim=1))

    def forward(
        self, slopes: Float[Tensor, "b s *space"], memory: Memory
    ) -> tuple[Float[Tensor, "b c *space"], Memory]:
        known, h, moved = memory
        gain = self.log_gain.exp().repeat_interleave(self.channels)
        g = slopes * gain.reshape(-1, *(1,) * self.dims)
        seen = [bent(g, self.bound), known, h.tanh()]
        found = self.network(torch.cat([*seen, moved] if self.tracks else seen, dim=1))
        direction, h = found.split([self.channels, self.width], dim=1)
        return direction, (known, h, moved - direction)
