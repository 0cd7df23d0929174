r"""How a field is laid out for networks: which axis is the channels, which are space."""

from __future__ import annotations

__all__ = ["Layout"]

import math
import torch

from collections.abc import Sequence
from jaxtyping import Bool, Float
from torch import Tensor

from ..domain import Grid, Points


class Layout:
    r"""The way between states :math:`(*, n)` and arrays ``(batch, channels, *space)``.

    Maps in time have the days as channels and are convolved in space. The trajectory of a small
    model has its components as channels and is convolved in time: ``channels="x"``. On land the
    array holds zeros.

    Arguments:
        domain: The grid of the state, with :math:`n` nodes.
        channels: The axis whose places are the channels; ``None`` for one channel. A grid without
            ``time`` has one channel by default.

    Raises:
        TypeError: If the domain is not a grid.
        ValueError: If the axis is not of the grid, or not one or two are left for space.

    Example:
        >>> layout = Layout(Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0]))
        >>> layout.channels, layout.space
        (2, (3,))
        >>> layout.spread(torch.arange(6.0)).tolist()
        [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
    """

    def __init__(self, domain: Grid | Points, channels: str | None = "time") -> None:
        if not isinstance(domain, Grid):
            msg = (
                f"Layout(domain=...): expected a Grid, got {type(domain).__name__}. Networks work "
                "on arrays: put the prior on a grid, and observe it at points."
            )
            raise TypeError(msg)
        if channels == "time" and "time" not in domain.dims:
            channels = None
        self.domain, self.axis = domain, channels
        names = [d for d in domain.dims if d != channels]
        if len(names) not in {1, 2} or (channels is not None and channels not in domain.dims):
            msg = (
                f"Layout(channels={channels!r}): expected an axis of {domain.dims} that leaves "
                f"one or two for space, got {tuple(names)} left. Name another axis, or None."
            )
            raise ValueError(msg)
        self._place = 0 if channels is None else domain.dims.index(channels)
        sizes = dict(zip(domain.dims, domain.shape, strict=True))
        self.space = tuple(sizes[d] for d in names)
        self.channels = 1 if channels is None else sizes[channels]

    @property
    def dims(self) -> int:
        r"""The number of space dimensions."""
        return len(self.space)

    def sea(self) -> Bool[Tensor, " c *space"]:
        r"""Returns where the field exists."""
        everywhere = torch.ones(math.prod(self.domain.shape), dtype=torch.bool)
        mask = everywhere if self.domain.mask is None else self.domain.mask
        return self._forth(mask[None])[0]

    def _forth(self, full: Tensor) -> Tensor:
        a = full.reshape(-1, *self.domain.shape)
        return a[:, None] if self.axis is None else a.movedim(1 + self._place, 1)

    def spread(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "b c *space"]:
        r"""Returns states as arrays."""
        mask = self.domain.mask
        if mask is not None:
            full = x.new_zeros(*x.shape[:-1], len(mask))
            x = full.index_copy(-1, torch.nonzero(mask)[:, 0], x)
        return self._forth(x)

    def gather(
        self, a: Float[Tensor, "b c *space"], batch: Sequence[int] = ()
    ) -> Float[Tensor, "*batch n"]:
        r"""Returns arrays as states: the adjoint of :meth:`spread`, and its inverse at sea.

        Arguments:
            a: The arrays.
            batch: The shape of the batch of the states.
        """
        full = a[:, 0] if self.axis is None else a.movedim(1, 1 + self._place)
        flat = full.reshape(*batch, math.prod(self.domain.shape))
        return flat if self.domain.mask is None else flat[..., self.domain.mask]

    def flat(self, values: Float[Tensor, "*c"]) -> Float[Tensor, "*n"]:
        r"""Returns one number per channel as one per node; a single number stays what it is."""
        if values.ndim == 0:
            return values
        column = values.reshape(1, -1, *(1,) * self.dims)
        return self.gather(column.expand(1, self.channels, *self.space))

    def check(self, where: str, name: str, values: Float[Tensor, "*c"]) -> None:
        r"""Says so if numbers are neither one nor one per channel."""
        if values.shape not in {(), (self.channels,)}:
            msg = (
                f"{where}({name}=...): expected one number or {self.channels}, one per channel, "
                f"got shape {tuple(values.shape)}. Match the axis {self.axis!r}."
            )
            raise ValueError(msg)
