r"""Convolutional cells with a memory."""

from __future__ import annotations

__all__ = ["ConvGRUCell", "ConvLSTMCell", "RecurrentCell"]

import abc
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from .layers import Conv, check_counts

State = tuple[Tensor, ...]


class RecurrentCell(nn.Module, abc.ABC):
    r"""A cell: from what comes in and its memory, what goes out and the next memory.

    Attributes:
        width: The number of channels that go out.
        inflow: The number of channels of what may be added before the gates.
    """

    width: int
    inflow: int

    @abc.abstractmethod
    def start(self, x: Float[Tensor, "b c *space"]) -> State:
        r"""Returns the memory before anything came in."""

    @abc.abstractmethod
    def forward(
        self, x: Float[Tensor, "b c *space"], state: State, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        r"""Returns what goes out, and the memory after it.

        Arguments:
            x: What comes in.
            state: The memory.
            context: What is added before the gates, with :attr:`inflow` channels: what a
                convolution makes of that which stays the same at all steps is made once.
        """

    def _blank(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.width, *x.shape[2:])


class ConvLSTMCell(RecurrentCell):
    r"""A long short-term memory whose products are convolutions.

    References:
        | Convolutional LSTM network: a machine learning approach for precipitation nowcasting
        | (Shi, Chen, Wang, Yeung, Wong & Woo, 2015)
        | https://doi.org/10.48550/arXiv.1506.04214

    Arguments:
        channels: The number of channels that come in.
        width: The number of channels that go out.
        size: The width of the kernel, odd.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> cell = ConvLSTMCell(2, 8, generator=torch.Generator().manual_seed(0))
        >>> x = torch.zeros(3, 2, 6, 7)
        >>> cell(x, cell.start(x))[0].shape
        torch.Size([3, 8, 6, 7])
    """

    def __init__(
        self,
        channels: int,
        width: int,
        size: int = 3,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts(type(self).__name__, channels=channels, width=width)
        self.width, self.inflow = width, 4 * width
        self.gates = Conv(channels + width, 4 * width, size, dims, padding, generator=generator)

    def start(self, x: Float[Tensor, "b c *space"]) -> State:
        return self._blank(x), self._blank(x)

    def forward(
        self, x: Float[Tensor, "b c *space"], state: State, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        h, memory = state
        gates = self.gates(torch.cat([x, h], dim=1))
        gates = gates if context is None else gates + context
        take, forget, give, new = gates.chunk(4, dim=1)
        memory = forget.sigmoid() * memory + take.sigmoid() * new.tanh()
        h = give.sigmoid() * memory.tanh()
        return h, (h, memory)


class ConvGRUCell(RecurrentCell):
    r"""A gated recurrent unit whose products are convolutions: three quarters of an LSTM.

    References:
        | Delving deeper into convolutional networks for learning video representations
        | (Ballas, Yao, Pal & Courville, 2016)
        | https://doi.org/10.48550/arXiv.1511.06432

    Arguments:
        channels: The number of channels that come in.
        width: The number of channels that go out.
        size: The width of the kernel, odd.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> cell = ConvGRUCell(2, 8, dims=1, generator=torch.Generator().manual_seed(0))
        >>> x = torch.zeros(3, 2, 6)
        >>> cell(x, cell.start(x))[0].shape
        torch.Size([3, 8, 6])
    """

    def __init__(
        self,
        channels: int,
        width: int,
        size: int = 3,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts(type(self).__name__, channels=channels, width=width)
        self.width, self.inflow = width, 3 * width
        both = channels + width
        self.gates = Conv(both, 2 * width, size, dims, padding, generator=generator)
        self.candidate = Conv(both, width, size, dims, padding, generator=generator)

    def start(self, x: Float[Tensor, "b c *space"]) -> State:
        return (self._blank(x),)

    def forward(
        self, x: Float[Tensor, "b c *space"], state: State, context: Tensor | None = None
    ) -> tuple[Tensor, State]:
        (h,) = state
        first, second = self.gates(torch.cat([x, h], dim=1)), None
        if context is not None:
            added, second = context.split([2 * self.width, self.width], dim=1)
            first = first + added
        renew, keep = first.sigmoid().chunk(2, dim=1)
        new = self.candidate(torch.cat([x, renew * h], dim=1))
        new = (new if second is None else new + second).tanh()
        h = keep * h + (1 - keep) * new
        return h, (h,)
