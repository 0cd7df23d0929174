r"""The reference lattice of a box: where what is learned of a place is averaged and smoothed."""

from __future__ import annotations

__all__ = ["bending", "box", "lattice"]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor


def box(where: str, low: Sequence[float], high: Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""Returns the middle and the half-widths of a box, checked.

    Raises:
        ValueError: If the sides are not finite and positive.

    Example:
        >>> [t.tolist() for t in box("Warp", [0.0, 1.0], [4.0, 3.0])]
        [[2.0, 2.0], [2.0, 1.0]]
    """
    a, b = (torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in (low, high))
    if len(a) != len(b) or not len(a) or not ((b - a).isfinite() & (b > a)).all():
        msg = (
            f"{where}(low=..., high=...): expected the corners of a box with sides that are not "
            f"empty, got {a.tolist()} and {b.tolist()}. Take the least and the largest "
            "coordinates of the data."
        )
        raise ValueError(msg)
    return (a + b) / 2, (b - a) / 2


def lattice(half: Float[Tensor, " d"], nodes: int) -> Float[Tensor, "m d"]:
    r"""Returns the nodes of a lattice over the box :math:`[-h, h]`, the last axis fastest.

    Example:
        >>> lattice(torch.ones(1).double(), 3).tolist()
        [[-1.0], [0.0], [1.0]]
    """
    axis = torch.linspace(-1, 1, nodes, dtype=torch.float64)
    corners = torch.cartesian_prod(*[axis] * len(half)).reshape(-1, len(half))
    return corners * half


def bending(
    values: Float[Tensor, "m c"], half: Float[Tensor, " d"], nodes: int
) -> Float[Tensor, ""]:
    r"""Returns the mean square of the second derivatives of values on a lattice.

    .. math:: \sum_{i, j} \overline{|\partial_i \partial_j v|^2}

    It is zero for values that are linear in the coordinates.

    Arguments:
        values: The values at the nodes of :func:`lattice`.
        half: The half-widths of the box.
        nodes: The number of nodes along each axis.

    Example:
        >>> half = torch.ones(2).double()
        >>> x = lattice(half, 5)
        >>> round(bending(x.square(), half, 5).item(), 12)  # the Hessians have one entry, 2
        8.0
    """
    d, step = len(half), 2 * half / (nodes - 1)
    full = values.reshape(*[nodes] * d, -1)
    total = values.new_zeros(())
    for i in range(d):
        for j in range(i, d):
            second = full.diff(dim=i).diff(dim=j) / (step[i] * step[j])
            total = total + (1 if i == j else 2) * second.square().sum(dim=-1).mean()
    return total
