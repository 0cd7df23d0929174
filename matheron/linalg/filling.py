"""Matrices with gaps, filled by their own leading singular vectors."""

from __future__ import annotations

__all__ = ["Filled", "LowRank", "fill", "low_rank", "time_filter"]

import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """Leading singular vectors and values.

    Arguments:
        left: With shape (s, p).
        size: The singular values, with shape (p).
        right: With shape (t, p).
    """

    left: Float[Tensor, "s p"]
    size: Float[Tensor, " p"]
    right: Float[Tensor, "t p"]

    def dense(self) -> Float[Tensor, "s t"]:
        """Return the matrix."""
        return (self.left * self.size) @ self.right.mT


@dataclass(frozen=True)
class Filled:
    """A matrix whose gaps are filled, and how it went.

    Arguments:
        X: The matrix.
        steps: The number of steps.
        change: The last change of the filling, relative to the scale.
    """

    X: Float[Tensor, "s t"]
    steps: int
    change: float


def low_rank(X: Float[Tensor, "s t"], p: int) -> LowRank:
    r"""Return the p leading singular vectors, by the smaller of X'X and XX'.

    Singular values are good to :math:`10^{-8}` of the largest, which is far below what is kept of
    gappy data; those below are zero.

    Example:
        >>> X = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]).double()
        >>> low_rank(X, 1).size.tolist()
        [4.0]
    """
    if X.shape[0] < X.shape[1]:
        turned = low_rank(X.mT, p)
        return LowRank(turned.right, turned.size, turned.left)
    values, V = torch.linalg.eigh(X.mT @ X)
    size = values.flip(0)[:p].clamp(min=0).sqrt()
    V = V.flip(1)[:, :p]
    known = size > 1e-8 * size[:1].clamp(min=1e-300)
    inverse = torch.where(known, 1 / size.clamp(min=1e-300), 0)
    return LowRank((X @ V) * inverse, torch.where(known, size, 0), V)


def fill(
    X: Float[Tensor, "s t"],
    missing: Bool[Tensor, "s t"],
    p: int,
    scale: float,
    tolerance: float,
    steps: int,
    F: Float[Tensor, "t t"] | None = None,
) -> Filled:
    r"""Fill gaps by the p leading singular vectors of the filled matrix, until they settle.

    .. math:: X_{ij} \leftarrow [U_p \Sigma_p V_p^\top]_{ij} \text{ where it is missing, with }
        U \Sigma V^\top = X F^\top

    References:
        | EOF calculations and data filling from incomplete oceanographic datasets (Beckers and
          Rixen, 2003)
        | https://doi.org/10.1175/1520-0426(2003)020<1839:ECADFF>2.0.CO;2

    Arguments:
        X: The matrix, its gaps at a first guess.
        missing: Where the gaps are.
        p: The number of singular vectors.
        scale: The scale of the values.
        tolerance: The root mean square change of the filling, over the scale, to stop at.
        steps: The largest number of steps.
        F: A filter of the columns.

    Example:
        >>> X = torch.tensor([[1.0, 2.0], [2.0, 0.0]]).double()
        >>> gap = torch.tensor([[False, False], [False, True]])
        >>> fill(X, gap, 1, 1.0, 1e-12, 5000).X[1, 1].round(decimals=3).item()
        4.0
    """
    count = int(missing.sum())
    change, done = 0.0, 0
    for _ in range(steps if count else 0):
        new = low_rank(X if F is None else X @ F.mT, p).dense()
        moved = torch.where(missing, new - X, 0)
        X = X + moved
        change = float(moved.norm()) / (count**0.5 * scale)
        done += 1
        if change < tolerance:
            break
    return Filled(X, done, change)


def time_filter(times: Float[Tensor, " t"], strength: float, steps: int) -> Float[Tensor, "t t"]:
    r"""Return the matrix of some steps of diffusion in time, without flux at the ends.

    .. math:: x_j \leftarrow x_j + \frac{\alpha}{\delta_j} \left( \frac{x_{j+1} - x_j}{t_{j+1} -
        t_j} - \frac{x_j - x_{j-1}}{t_j - t_{j-1}} \right), \qquad
        \delta_j = \frac{t_{j+1} - t_{j-1}}{2}

    At the ends :math:`\delta` is the step next to them, so that with equal steps the matrix is
    symmetric. It is stable, and no value of the matrix negative, if
    :math:`\alpha \leq \min \delta t^2 / 2`.

    References:
        | Enhancing temporal correlations in EOF expansions for the reconstruction of missing data
          using DINEOF (Alvera-Azcarate et al., 2009)
        | https://doi.org/10.5194/os-5-475-2009

    Arguments:
        times: The times, increasing.
        strength: The number :math:`\alpha`, in squared units of time.
        steps: The number of steps.

    Example:
        >>> time_filter(torch.arange(3.0).double(), 0.25, 1)[1].tolist()
        [0.25, 0.5, 0.25]
    """
    n, dt = len(times), times.diff()
    D = torch.zeros(n, n, dtype=torch.float64)
    i = torch.arange(n - 1)
    D[i, i + 1] = 1 / dt
    D[i + 1, i] = 1 / dt
    D -= torch.diag(D.sum(dim=1))
    width = torch.cat([dt[:1], (dt[1:] + dt[:-1]) / 2, dt[-1:]])
    one = torch.eye(n, dtype=torch.float64) + strength * D / width[:, None]
    return torch.linalg.matrix_power(one, steps)
