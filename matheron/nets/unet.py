r"""A small U-Net with residual blocks."""

from __future__ import annotations

__all__ = ["UNet"]

import torch
import torch.nn as nn
import torch.nn.functional as F

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .layers import Conv, Net, check_counts, check_dims, pool, unpool


class _Block(nn.Module):
    r"""Two convolutions beside a short cut."""

    def __init__(self, channels: int, out: int, **settings: Any) -> None:
        super().__init__()
        self.first = Conv(channels, out, gain=2**0.5, **settings)
        self.second = Conv(out, out, gain=0.5, **settings)
        self.short = Conv(channels, out, 1, bias=False, **settings)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d *space"]:
        return self.short(x) + self.second(F.silu(self.first(x)))


class UNet(Net):
    r"""Residual blocks at several scales, and what was seen at a scale given back to it.

    There is no normalisation over the batch nor over space: members of a batch do not know each
    other, and a node does not know the size of the field. Sizes need not be powers of two.

    References:
        | U-Net: convolutional networks for biomedical image segmentation
        | (Ronneberger, Fischer & Brox, 2015)
        | https://doi.org/10.1007/978-3-319-24574-4_28

    Arguments:
        channels: The number of channels that it takes.
        out: The number of channels that it gives; as many as it takes by default.
        width: The number of channels of the finest scale; each coarser one has twice as many.
        levels: The number of scales, each half as fine as the last.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> net = UNet(2, 1, width=4, generator=torch.Generator().manual_seed(0))
        >>> net(torch.zeros(3, 2, 21, 30)).shape
        torch.Size([3, 1, 21, 30])
    """

    def __init__(
        self,
        channels: int,
        out: int | None = None,
        width: int = 16,
        levels: int = 3,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts("UNet", channels=channels, width=width, levels=levels)
        self.channels, self.dims, self.cell = channels, dims, 2 ** (levels - 1)
        self.modes = check_dims("UNet", dims, padding)
        kept: Any = {"dims": dims, "padding": self.modes}
        kept["generator"] = generator
        widths = [width * 2**k for k in range(levels)]
        self.enter = Conv(channels, width, **kept)
        self.down = nn.ModuleList(
            [_Block(widths[max(k - 1, 0)], w, **kept) for k, w in enumerate(widths)]
        )
        self.up = nn.ModuleList(
            [_Block(widths[k] + widths[k + 1], widths[k], **kept) for k in range(levels - 1)]
        )
        self.leave = Conv(width, channels if out is None else out, gain=0.1, **kept)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d *space"]:
        seen: list[Tensor] = []
        if self.dims == 2:  # channels beside each other: the convolutions of processors like it
            x = x.contiguous(memory_format=torch.channels_last)
        h = self.enter(x)
        for block in self.down:
            h = block(pool(h, 2) if seen else h)
            seen.append(h)
        for fine, block in zip(reversed(seen[:-1]), reversed(self.up), strict=True):
            h = block(torch.cat([fine, unpool(h, fine.shape[2:], 2, self.modes)], dim=1))
        return self.leave(h)
