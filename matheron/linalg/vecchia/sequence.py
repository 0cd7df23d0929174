"""Sequential recursion over targets: conditional simulation and marginal variances."""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch

from functools import partial
from jaxtyping import Float, Int
from torch import Tensor

from .lanes import WIDTH, load, splat, store, total
from .packing import array
from ..compiled import compiled
from ..threads import in_threads

__all__ = ["marginal_variance", "propagate"]

Law = tuple[np.ndarray, np.ndarray, np.ndarray]
EXACT_LIMIT = 16000
BATCH = 4 * WIDTH
NUMBERS = 2**26
"""Numbers in memory at once, for the simulations of all threads: half a gigabyte."""


@compiled
def recursion(weights, std, neighbors, start, first, shift, z):
    """Targets from ``first`` on, in place, for one batch of columns.

    ``z`` holds the point ``j`` in row ``j - shift``, earlier points being 0; the rows of the
    targets
    hold their draws.
    """
    for i in range(first, len(weights)):
        row = 4 * (start + i - shift)
        scale = splat(std[i])
        a = scale * load(z, row)
        b = scale * load(z, row + 1)
        c = scale * load(z, row + 2)
        d = scale * load(z, row + 3)
        for p in range(weights.shape[1]):
            j = 4 * (neighbors[i, p] - shift)
            if neighbors[i, p] >= 0 and j >= 0:
                w = splat(weights[i, p])
                a = a + w * load(z, j)
                b = b + w * load(z, j + 1)
                c = c + w * load(z, j + 2)
                d = d + w * load(z, j + 3)
        store(z, row, a)
        store(z, row + 1, b)
        store(z, row + 2, c)
        store(z, row + 3, d)


@compiled
def conditional_squares(weights, std, neighbors, start, z, squares):
    """Targets in place from their draws, earlier points being 0, and the sum over the columns of
    the squares of their conditional means.
    """
    for i in range(len(weights)):
        a = splat(0.0)
        b = splat(0.0)
        c = splat(0.0)
        d = splat(0.0)
        for p in range(weights.shape[1]):
            j = 4 * (neighbors[i, p] - start)
            if neighbors[i, p] >= 0 and j >= 0:
                w = splat(weights[i, p])
                a = a + w * load(z, j)
                b = b + w * load(z, j + 1)
                c = c + w * load(z, j + 2)
                d = d + w * load(z, j + 3)
        squares[i] = total(a * a + b * b + c * c + d * d)
        row = 4 * i
        scale = splat(std[i])
        store(z, row, a + scale * load(z, row))
        store(z, row + 1, b + scale * load(z, row + 1))
        store(z, row + 2, c + scale * load(z, row + 2))
        store(z, row + 3, d + scale * load(z, row + 3))


def propagate(
    weights: Float[Tensor, "t m"],
    std: Float[Tensor, " t"],
    neighbors: Int[Tensor, "t m"],
    start: int,
    columns: Float[Tensor, "n c"],
    noise_draws: Float[Tensor, "t c"] | None = None,
) -> Float[Tensor, "n c"]:
    r"""Fill the rows of the targets from the rows before them, for many columns at once, in place.

    .. math:: z_i = \sum_k w_{ik} z_{c(i, k)} + s_i \varepsilon_i

    Arguments:
        weights: The weights :math:`w`, with shape :math:`(t, m)`.
        std: The conditional standard deviations :math:`s`, with shape :math:`(t)`.
        neighbors: The neighbours of the targets, absent ones -1, with shape :math:`(t, m)`.
        start: The number of rows :math:`n - t` that are given.
        columns: The columns, data above, contiguous float64 on the CPU, with shape :math:`(n, c)`;
            the rows of the targets are written.
        noise_draws: The standard normal draws :math:`\varepsilon`, with shape :math:`(t, c)`; None
            for the mean.

    Returns:
        The same ``columns``.

    Raises:
        ValueError: If ``columns`` is not contiguous float64 with :math:`n` rows.

    Example:
        >>> z = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
        >>> half = torch.tensor([[0.5]], dtype=torch.float64)
        >>> propagate(half, half[0], torch.tensor([[0]], dtype=torch.int32), 1, z)[1].item()
        1.0
    """
    if (
        columns.dtype != torch.float64
        or not columns.is_contiguous()
        or len(columns) != start + len(weights)
    ):
        msg = (
            "Vecchia.propagate(columns=...): expected contiguous float64 with "
            f"{start + len(weights)} rows, got {columns.dtype} with shape "
            f"{tuple(columns.shape)}. Build it with torch.zeros(n, c, dtype=torch.float64)."
        )
        raise ValueError(msg)
    values = columns.detach().numpy()
    draws = None if noise_draws is None else noise_draws.detach().numpy()
    law = frozen(weights, std, neighbors)
    # Conditional simulation leaves the data at zero: then only earlier targets matter.
    shift = 0 if columns[:start].any() else start

    def one(k: int) -> None:
        here = slice(k * BATCH, min((k + 1) * BATCH, values.shape[1]))
        size = here.stop - here.start
        z = np.zeros((len(values) - shift, BATCH))
        z[: start - shift, :size] = values[shift:start, here]
        if draws is not None:
            z[start - shift :, :size] = draws[:, here]
        recursion(*law, start, 0, shift, z.reshape(-1))
        values[start:, here] = z[start - shift :, :size]

    in_threads(one, -(-values.shape[1] // BATCH))
    return columns


def frozen(weights: Tensor, std: Tensor, neighbors: Tensor) -> Law:
    """Weights, standard deviations and neighbours as contiguous arrays."""
    return array(weights), array(std), np.ascontiguousarray(neighbors.detach().numpy(), np.int32)


def exact_variance(law: Law, start: int) -> np.ndarray:
    """Variance of each target: sum over earlier targets of the squared response to their draw."""
    count = len(law[0])

    def one(k: int) -> np.ndarray:
        first = k * BATCH
        z = np.zeros((count - first, BATCH))
        np.fill_diagonal(z, 1.0)
        recursion(*law, start, first, start + first, z.reshape(-1))
        return np.einsum("ij,ij->i", z, z)

    variance = np.zeros(count)
    for k, part in enumerate(in_threads(one, -(-count // BATCH))):
        variance[k * BATCH :] += part
    return variance


def simulated_variance(law: Law, start: int, size: int, seed: int) -> np.ndarray:
    """Rao-Blackwell estimate: own variance exact, that of the conditional mean by simulation.

    Each batch of draws has its own seed and is added in turn: the bits depend neither on the
    number of threads nor on how many batches are in memory at once.
    """
    count = len(law[1])
    pieces = -(-size // BATCH)
    together = max(1, NUMBERS // (BATCH * max(count, 1)))

    def one(first: int, k: int) -> np.ndarray:
        z = np.random.default_rng((seed, first + k)).standard_normal((count, BATCH))
        z[:, size - (first + k) * BATCH :] = 0.0
        squares = np.empty(count)
        conditional_squares(*law, start, z.reshape(-1), squares)
        return squares

    variance = np.zeros(count)
    for first in range(0, pieces, together):
        some = min(together, pieces - first)
        for part in in_threads(partial(one, first), some):
            variance += part
    return law[1] ** 2 + variance / size


def marginal_variance(
    weights: Float[Tensor, "t m"],
    std: Float[Tensor, " t"],
    neighbors: Int[Tensor, "t m"],
    start: int,
    size: int = 100,
    seed: int = 0,
) -> Float[Tensor, " t"]:
    r"""Variance of each target given the data, all earlier targets integrated out.

    Exact up to 16 000 targets; beyond, :math:`s_i^2 + \widehat{\operatorname{Var}} \sum_k w_{ik}
    z_{c(i, k)}` over simulated targets, with
    a relative error of the second term of :math:`\sqrt{2 / \text{size}}`.

    Arguments:
        weights: The weights, with shape :math:`(t, m)`.
        std: The conditional standard deviations, with shape :math:`(t)`.
        neighbors: The neighbours of the targets, absent ones -1, with shape :math:`(t, m)`.
        start: The number of data.
        size: The number of simulations.
        seed: The seed of the simulations.

    Returns:
        The variances, with shape :math:`(t)`.

    Example:
        >>> half = torch.full((2, 1), 0.5, dtype=torch.float64)
        >>> marginal_variance(half, half[:, 0], torch.tensor([[0], [1]], dtype=torch.int32), 1)
        tensor([0.2500, 0.3125], dtype=torch.float64)
    """
    law = frozen(weights, std, neighbors)
    if len(weights) <= EXACT_LIMIT:
        return torch.as_tensor(exact_variance(law, start))
    return torch.as_tensor(simulated_variance(law, start, size, seed))
