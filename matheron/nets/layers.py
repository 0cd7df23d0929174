r"""What networks are made of: layers on arrays ``(batch, channels, *space)``, with adjoints.

The adjoint of a layer is written with forward operations. A gradient that a solver follows is
then part of its forward pass, and a loss behind it needs one backward pass, not two.
"""

from __future__ import annotations

__all__ = [
    "Conv",
    "Net",
    "Pullback",
    "coarsest",
    "fold",
    "pool",
    "pool_adjoint",
    "pullback",
    "unpool",
    "wrap",
]

import abc
import functools
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

from collections.abc import Callable, Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from ..described import Described

Adjoint = Callable[[Tensor], Tensor]
PADDINGS = ("zeros", "circular", "reflect")


class Net(Described, nn.Module):
    r"""A map between arrays of equal space, in any floating type.

    Attributes:
        channels: The number of channels that it takes.
        dims: The number of space dimensions, one or two.
        cell: The side of the largest cells that it averages over: moved by as many nodes, a field
            gives the same answer, moved.
    """

    channels: int
    dims: int
    cell: int = 1


def coarsest(*modules: nn.Module) -> int:
    r"""Returns the side of the largest cells of the networks in some modules, of all together.

    Example:
        >>> from matheron.nets import UNet
        >>> coarsest(nn.ModuleList([UNet(1, levels=3), UNet(1, levels=2)]))
        4
    """
    nets = [net for m in modules for net in m.modules() if isinstance(net, Net)]
    return math.lcm(*(net.cell for net in nets))


class Pullback(Net, abc.ABC):
    r"""A network that knows the adjoint of its own Jacobian."""

    @abc.abstractmethod
    def pullback(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Adjoint]:
        r"""Returns :math:`\Phi(x)`, and the function :math:`r \mapsto J(x)^\top r`."""

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d *space"]:
        return self.pullback(x)[0]


def pullback(net: nn.Module, x: Float[Tensor, ...]) -> tuple[Tensor, Adjoint]:
    r"""Returns :math:`\Phi(x)` and :math:`r \mapsto J(x)^\top r`, for any module.

    Networks that do not know their adjoint are differentiated, so that a loss behind it is
    differentiated twice.

    Example:
        >>> y, adjoint = pullback(nn.Tanh(), torch.zeros(1, 1, 3))
        >>> adjoint(torch.ones(1, 1, 3)).tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    if isinstance(net, Pullback):
        return net.pullback(x)
    found = torch.func.vjp(net, x)
    return found[0], lambda r: found[1](r)[0]


def check_dims(where: str, dims: int, padding: str | Sequence[str]) -> tuple[str, ...]:
    r"""Returns the padding of every space dimension, checked."""
    modes = (padding,) * dims if isinstance(padding, str) else tuple(padding)
    if dims not in {1, 2} or len(modes) != dims or not set(modes) <= set(PADDINGS):
        msg = (
            f"{where}(dims={dims}, padding={padding!r}): expected one or two dimensions, each "
            f"with one of {PADDINGS}, got others. Name one padding, or one per dimension."
        )
        raise ValueError(msg)
    return modes


def check_counts(where: str, **counts: int) -> None:
    r"""Says so if a number of channels, scales or steps is not positive."""
    for name, count in counts.items():
        if count < 1:
            msg = f"{where}({name}=...): expected one or more, got {count}. Raise it."
            raise ValueError(msg)


def drawn(
    shape: Sequence[int], generator: Generator | None, gain: float = 1.0
) -> Float[Tensor, ...]:
    r"""Returns weights that keep the variance of what they multiply, times ``gain`` squared."""
    z = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return (z * gain / math.prod(shape[1:]) ** 0.5).to(torch.float32)


def wrap(x: Float[Tensor, "b c *space"], width: int, modes: Sequence[str]) -> Tensor:
    r"""Returns an array with a border of some nodes on every side."""
    for mode, axis in zip(modes, range(2, x.ndim), strict=True):
        n = x.shape[axis]
        if mode != "zeros" and n < width + (mode == "reflect"):
            msg = (
                f"Conv(padding={mode!r}): expected at least {width + (mode == 'reflect')} nodes "
                f"along each dimension for a border of {width}, got {n}. Use fewer levels, or "
                "padding='zeros'."
            )
            raise ValueError(msg)
        if mode == "zeros":
            pads = [0, 0] * (x.ndim - 1 - axis) + [width, width]
            x = F.pad(x, pads)
        elif mode == "circular":
            x = torch.cat([x.narrow(axis, n - width, width), x, x.narrow(axis, 0, width)], axis)
        else:
            left = x.narrow(axis, 1, width).flip(axis)
            right = x.narrow(axis, n - 1 - width, width).flip(axis)
            x = torch.cat([left, x, right], axis)
    return x


def fold(r: Float[Tensor, "b c *space"], width: int, modes: Sequence[str]) -> Tensor:
    r"""Returns the adjoint of :func:`wrap`: the border, added to where it came from."""
    for mode, axis in zip(modes, range(2, r.ndim), strict=True):
        n = r.shape[axis] - 2 * width
        core = r.narrow(axis, width, n)
        if mode != "zeros":
            left, right = r.narrow(axis, 0, width), r.narrow(axis, n + width, width)
            core = core.clone()
            if mode == "circular":
                core.narrow(axis, n - width, width).add_(left)
                core.narrow(axis, 0, width).add_(right)
            else:
                core.narrow(axis, 1, width).add_(left.flip(axis))
                core.narrow(axis, n - 1 - width, width).add_(right.flip(axis))
        r = core
    return r


class Conv(Pullback):
    r"""A convolution that keeps the size, with an odd kernel.

    Arguments:
        channels: The number of channels that it takes.
        out: The number of channels that it gives.
        size: The width of the kernel, odd.
        dims: The number of space dimensions, one or two.
        padding: What is beyond the edges: ``"zeros"``, ``"circular"`` or ``"reflect"``, one or
            one per dimension.
        bias: Whether a constant is added.
        gain: What the standard deviation of the first weights is multiplied by.
        hole: Whether the centre of the kernel is zero, and stays so.
        generator: The random number generator of the first weights.

    Raises:
        ValueError: If a size or a padding is not one of those.

    Example:
        >>> conv = Conv(1, 4, generator=torch.Generator().manual_seed(0))
        >>> conv(torch.ones(2, 1, 5, 6)).shape
        torch.Size([2, 4, 5, 6])
    """

    keep: Tensor | None

    def __init__(
        self,
        channels: int,
        out: int,
        size: int = 3,
        dims: int = 2,
        padding: str | Sequence[str] = "zeros",
        bias: bool = True,
        gain: float = 1.0,
        hole: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_counts(type(self).__name__, channels=channels, out=out, size=size)
        if size % 2 == 0:
            msg = f"Conv(size=...): expected an odd width, got {size}. Add one."
            raise ValueError(msg)
        self.channels, self.dims, self.width = channels, dims, size // 2
        self.modes = check_dims("Conv", dims, padding)
        self.plain = set(self.modes) == {"zeros"}
        shape = (out, channels, *(size,) * dims)
        self.weight = nn.Parameter(drawn(shape, generator, gain))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        keep = torch.ones((size,) * dims)
        keep[(size // 2,) * dims] = 0.0
        self.register_buffer("keep", keep if hole else None, persistent=False)

    def _kernel(self) -> Tensor:
        return self.weight if self.keep is None else self.weight * self.keep

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d *space"]:
        conv = F.conv2d if self.dims == 2 else F.conv1d
        if self.plain or not self.width:
            return conv(x, self._kernel(), self.bias, padding=self.width)
        return conv(wrap(x, self.width, self.modes), self._kernel(), self.bias)

    def adjoint(self, r: Float[Tensor, "b d *space"]) -> Float[Tensor, "b c *space"]:
        r"""Returns the adjoint of the linear part."""
        transposed = F.conv_transpose2d if self.dims == 2 else F.conv_transpose1d
        if self.plain or not self.width:
            return transposed(r, self._kernel(), padding=self.width)
        return fold(transposed(r, self._kernel()), self.width, self.modes)

    def pullback(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Adjoint]:
        return self(x), self.adjoint


@functools.lru_cache(maxsize=64)
def _average(size: int, factor: int, dtype: torch.dtype) -> Tensor:
    r"""Returns the matrix of averages over cells."""
    count = -(-size // factor)
    member = (torch.arange(size) // factor == torch.arange(count)[:, None]).to(torch.float64)
    return (member / member.sum(dim=1, keepdim=True)).to(dtype)


@functools.lru_cache(maxsize=64)
def _between(size: int, factor: int, round_: bool, dtype: torch.dtype) -> Tensor:
    r"""Returns the matrix of interpolation between the centres of cells, perhaps on a circle."""
    count = -(-size // factor)
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / factor - 0.5
    at = at if round_ else at.clamp(0, count - 1)
    lower, rows = at.floor().long(), torch.arange(size)
    w = at - lower
    found = torch.zeros(size, count, dtype=torch.float64)
    for node, weight in ((lower, 1 - w), (lower + 1, w)):
        node = node % count if round_ else node.clamp(max=count - 1)
        found = found.index_put((rows, node), weight, accumulate=True)
    return found.to(dtype)


def _along(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    r"""Returns an array with a matrix applied along each space dimension."""
    if len(matrices) == 1:
        return x @ matrices[0].mT
    return matrices[0] @ (x @ matrices[1].mT)


def pool(x: Float[Tensor, "b c *space"], factor: int) -> Float[Tensor, "b c *coarse"]:
    r"""Returns averages over cells; the last ones may be smaller.

    Example:
        >>> pool(torch.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
        [[[2.0, 5.0]]]
    """
    space = x.shape[2:]
    if all(n % factor == 0 for n in space):
        return (F.avg_pool2d if len(space) == 2 else F.avg_pool1d)(x, factor)
    return _along(x, [_average(n, factor, x.dtype).to(x.device) for n in space])


def pool_adjoint(
    r: Float[Tensor, "b c *coarse"], space: Sequence[int], factor: int
) -> Float[Tensor, "b c *space"]:
    r"""Returns the adjoint of :func:`pool`, on an array of some size."""
    return _along(r, [_average(n, factor, r.dtype).to(r.device).mT for n in space])


def unpool(
    x: Float[Tensor, "b c *coarse"],
    space: Sequence[int],
    factor: int,
    modes: Sequence[str] | None = None,
    adjoint: bool = False,
) -> Tensor:
    r"""Returns an array interpolated linearly between the centres of cells, or the adjoint.

    Arguments:
        x: The array of the cells; for the adjoint, that of the nodes.
        space: The sizes of the array of the nodes.
        factor: The side of the cells.
        modes: The padding of each dimension: where it is circular, and cells fill the circle, the
            last cell is beside the first.
        adjoint: Whether to return the adjoint.

    Example:
        >>> unpool(torch.tensor([[[0.0, 2.0]]]), (4,), 2).tolist()
        [[[0.0, 0.5, 1.5, 2.0]]]
    """
    names = modes or ("zeros",) * len(space)
    found = [
        _between(n, factor, mode == "circular" and n % factor == 0, x.dtype).to(x.device)
        for n, mode in zip(space, names, strict=True)
    ]
    return _along(x, [m.mT for m in found] if adjoint else found)
