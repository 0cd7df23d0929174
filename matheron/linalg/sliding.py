r"""Cholesky factors of windows that slide: what they share is factorised once."""

from __future__ import annotations

__all__ = ["Bordered", "bordered", "groups"]

import torch

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from .dense import factorise


@dataclass(frozen=True)
class Bordered:
    r"""The factor of a matrix in two blocks, a core and a border.

    .. math:: S = \begin{pmatrix} L & 0 \\ V^\top & M \end{pmatrix}
        \begin{pmatrix} L & 0 \\ V^\top & M \end{pmatrix}^\top

    Arguments:
        index: The rows of the whole matrix, the core's first, with shape :math:`(m)`.
        core: The factor :math:`L` of the core, with shape :math:`(c, c)`.
        link: :math:`V = L^{-1} S_{cb}`, with shape :math:`(c, b)`.
        border: The factor :math:`M` of the Schur complement, with shape :math:`(b, b)`.
    """

    index: Int[Tensor, " m"]
    core: Float[Tensor, "c c"]
    link: Float[Tensor, "c b"]
    border: Float[Tensor, "b b"]

    def whiten(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        r"""Returns the inverse of the factor times columns, in the order of :attr:`index`."""
        c = len(self.core)
        top = torch.linalg.solve_triangular(self.core, columns[:c], upper=False)
        rest = columns[c:] - self.link.mT @ top
        return torch.cat([top, torch.linalg.solve_triangular(self.border, rest, upper=False)])

    def unwhiten(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        r"""Returns the inverse of the transposed factor times columns."""
        c = len(self.core)
        low = torch.linalg.solve_triangular(self.border.mT, columns[c:], upper=True)
        top = columns[:c] - self.link @ low
        return torch.cat([torch.linalg.solve_triangular(self.core.mT, top, upper=True), low])


def bordered(
    S: Float[Tensor, "u u"], windows: Sequence[Int[Tensor, " _"]], where: str
) -> list[Bordered]:
    r"""Returns the factors of the blocks of a matrix, in each of several windows.

    The rows common to all windows are factorised once. For :math:`w` windows of :math:`m` rows,
    each of which drops a few and takes a few, the time falls from :math:`w m^3 / 3` to little
    more than :math:`m^3 / 3`.

    Arguments:
        S: A positive definite matrix over all rows of all windows, with shape :math:`(u, u)`.
        windows: The rows of each window, as they stand in ``S``.
        where: The caller, to be named in an error.

    Raises:
        ValueError: If a block is not positive definite in double precision.

    Example:
        >>> S = torch.eye(3, dtype=torch.float64) * 4.0
        >>> first, second = bordered(S, [torch.tensor([0, 1]), torch.tensor([1, 2])], "doc")
        >>> second.index.tolist(), second.whiten(torch.ones(2, 1, dtype=torch.float64)).tolist()
        ([1, 2], [[0.5], [0.5]])
    """
    held = torch.zeros(len(S), dtype=torch.long)
    for rows in windows:
        held[rows] += 1
    core, edge = torch.nonzero(held == len(windows))[:, 0], held < len(windows)
    edge = torch.nonzero(edge & (held > 0))[:, 0]
    L = factorise(S[core][:, core], where)
    V = torch.linalg.solve_triangular(L, S[core][:, edge], upper=False)
    rest = S[edge][:, edge] - V.mT @ V
    place = torch.full((len(S),), -1)
    place[edge] = torch.arange(len(edge))
    found = []
    for rows in windows:
        own = place[rows]
        own = own[own >= 0]
        M = factorise(rest[own][:, own], where)
        found.append(Bordered(torch.cat([core, edge[own]]), L, V[:, own], M))
    return found


def groups(centers: Sequence[float], reach: float) -> list[range]:
    r"""Returns runs of increasing centres, each within ``reach`` of the first of its run.

    Example:
        >>> groups([0.0, 1.0, 2.0, 5.0], 2.0)
        [range(0, 3), range(3, 4)]
    """
    found: list[range] = []
    start = 0
    for i in range(1, len(centers) + 1):
        if i == len(centers) or centers[i] - centers[start] > reach:
            found.append(range(start, i))
            start = i
    return found
