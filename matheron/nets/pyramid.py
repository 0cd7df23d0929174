r"""A linear map at several scales, whose weights depend on where data are."""

from __future__ import annotations

__all__ = ["GatedPyramid"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .layers import Conv, Net, check_counts, check_dims, pool, unpool

Gates = list[tuple[Tensor, Tensor]]


class _Gate(nn.Module):
    r"""Factors between zero and two, from what is known of a place."""

    def __init__(self, channels: int, width: int, hidden: int, **settings: Any) -> None:
        super().__init__()
        self.first = Conv(channels, hidden, 3, gain=2**0.5, **settings)
        self.second = Conv(hidden, 2 * width, 1, gain=0.5, **settings)

    def forward(self, q: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        before, after = self.second(self.first(q).relu()).sigmoid().mul(2).chunk(2, dim=1)
        return before, after


class GatedPyramid(Net):
    r"""A map that is linear in a field, with no constant: convolutions at scales of 1, 2, 4...

    .. math:: P(q)\, g = \sum_l U^l \, c'_l(q) \, K'_l \, c_l(q) \, (K_l D)^l g

    Averages :math:`D` go down, interpolations :math:`U` go up as in a cycle of multigrid. The
    gates :math:`c_l` are functions of what is known of the places, e.g. how precise their data
    are; they are worked out once by :meth:`gates`.

    References:
        | A multigrid tutorial (Briggs, Henson & McCormick, 2000)
        | https://doi.org/10.1137/1.9780898719505

    Arguments:
        channels: The number of channels of the field that it takes.
        out: The number of channels that it gives.
        known: The number of channels of what is known of the places; 0 for no gates.
        width: The number of channels inside.
        levels: The number of scales.
        hidden: The number of channels inside the gates.
        dims: The number of space dimensions, one or two.
        padding: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or one per dimension.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a count is not positive, or a padding not known.

    Example:
        >>> net = GatedPyramid(1, 1, known=2, generator=torch.Generator().manual_seed(0))
        >>> g, q = torch.ones(2, 1, 9, 9), torch.rand(2, 2, 9, 9)
        >>> torch.allclose(net(2 * g, net.gates(q)), 2 * net(g, net.gates(q)))
        True
    """

    def __init__(
        self,
        channels: int,
        out: int,
        known: int,
        width: int = 8,
        levels: int = 4,
        hidden: int = 8,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts("GatedPyramid", channels=channels, width=width, levels=levels, hidden=hidden)
        self.modes = check_dims("GatedPyramid", dims, padding)
        kept: Any = {"dims": dims, "padding": self.modes}
        kept["generator"] = generator
        linear = kept | {"bias": False}
        self.levels, self.known = levels, known
        self.channels, self.dims, self.cell = channels, dims, 2 ** (levels - 1)
        self.enter = nn.ModuleList(
            [Conv(channels if k == 0 else width, width, **linear) for k in range(levels)]
        )
        # what is smooth is corrected more: the inverse of an elliptic operator grows with scale
        self.across = nn.ModuleList(
            [Conv(width, width, gain=2.0**k, **linear) for k in range(levels)]
        )
        self.up = nn.ModuleList([Conv(width, width, gain=0.5, **linear) for _ in range(levels)])
        self.leave = Conv(width, out, gain=0.01, **linear)
        gates = [_Gate(known, width, hidden, **kept) for _ in range(levels if known else 0)]
        self.gate = nn.ModuleList(gates)

    def gates(self, q: Float[Tensor, "b k *space"]) -> Gates:
        r"""Returns the factors of every scale."""
        found: Gates = []
        for gate in self.gate:
            q = pool(q, 2) if found else q
            found.append(gate(q))
        return found

    def forward(self, g: Float[Tensor, "b c *space"], gates: Gates) -> Float[Tensor, "b d *space"]:
        going: list[Tensor] = []
        for k, conv in enumerate(self.enter):
            g = conv(pool(g, 2) if k else g)
            g = g * gates[k][0] if gates else g
            going.append(g)
        total = torch.zeros_like(going[-1])
        for k in reversed(range(self.levels)):
            here = self.across[k](going[k]) + total
            total = self.up[k](here * gates[k][1] if gates else here)
            total = unpool(total, going[k - 1].shape[2:], 2, self.modes) if k else total
        return self.leave(total)
