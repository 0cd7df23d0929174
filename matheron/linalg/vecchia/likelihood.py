"""The likelihood on the CPU, differentiable in everything by a closed-form adjoint.

References:
    | Gaussian process learning via Fisher scoring of Vecchia's approximation (Guinness, 2021)
    | https://doi.org/10.1007/s11222-020-09999-1
"""

from __future__ import annotations

import math
import numpy as np
import torch

from collections.abc import Sequence
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing import Any

from .blocks import scratch_size
from .kernels import reverse_chunk
from .lanes import WIDTH
from .launch import (
    ROUND_OFF,
    check_lengths,
    extents,
    neighbor_table,
    raise_if_singular,
    scratch_memory,
)
from .packing import Packed, array, factors_of, pack
from ..composition import Composition
from ..threads import chunked, in_threads

__all__ = ["gaussian_nll", "whiten"]


def zero_buffer(highest: int, width: int, wanted: bool) -> np.ndarray:
    """Where a run adds the gradients of its points and of their neighbours."""
    return np.zeros((highest + 1 if wanted else 0, width))


def highest_rows(table: np.ndarray, runs: Sequence[tuple[int, int]]) -> list[int]:
    """Last row that each run of blocks touches: its own, or a neighbour's."""
    size = len(table)
    spans = [(first * WIDTH, min(size, last * WIDTH)) for first, last in runs]
    return [max(b - 1, int(table[a:b].max(initial=-1))) for a, b in spans]


def add_up(buffers: list[np.ndarray], size: int, width: int) -> np.ndarray:
    """Sum of the buffers, in the order of the runs, by slices of points over threads."""
    result = np.zeros((size, width))

    def one(k: int) -> None:
        a, b = pieces[k]
        for buffer in buffers:
            part = buffer[a:b]
            result[a : a + len(part)] += part

    pieces = chunked(size)
    in_threads(one, len(pieces))
    return result


@dataclass
class Reverse:
    """Value and gradient of one reverse pass."""

    logdet: float
    gram: np.ndarray
    variances: np.ndarray
    shapes: np.ndarray
    noise: np.ndarray
    columns: np.ndarray
    coords: np.ndarray


def reverse(
    packed: Packed,
    noise: np.ndarray,
    columns: np.ndarray,
    neighbors: np.ndarray,
    g0: float,
    weights: np.ndarray,
    want: tuple[bool, bool, bool],
    where: str,
) -> Reverse:
    """One pass: value and, where wanted, the gradient of ``g0 logdet + sum(weights * gram)``."""
    size, dims = packed.coords.shape
    extra, terms, count = columns.shape[1], len(packed.model[3]), len(packed.model[0])
    rows = neighbors.shape[1] + 1
    width = 1 + extra + (dims if want[2] else 0)
    runs = extents(size)
    sums = np.zeros((len(runs), 1 + extra * extra + terms + count))
    buffers = [zero_buffer(row, width, want[0]) for row in highest_rows(neighbors, runs)]
    need = scratch_size(rows, dims, count, extra, 0, 0)

    def one(k: int) -> int:
        return reverse_chunk(
            *runs[k],
            0,
            packed.coords,
            noise.reshape(-1, 1),
            columns,
            neighbors,
            packed.model,
            ROUND_OFF * rows,
            g0,
            weights,
            want,
            scratch_memory(need),
            sums[k],
            buffers[k],
        )

    raise_if_singular(in_threads(one, len(runs)), where)
    totals = sums.sum(0)
    each = add_up(buffers, size, width) if want[0] else np.zeros((0, width))
    middle = 1 + extra * extra
    gram = totals[1:middle].reshape(extra, extra)
    variances = totals[middle : middle + terms]
    return Reverse(
        totals[0],
        gram,
        variances,
        totals[middle + terms :],
        each[:, 0],
        each[:, 1 : 1 + extra],
        each[:, 1 + extra :],
    )


def leaves(composition: Composition) -> list[Tensor]:
    """The tensors a composition is differentiated in: variances, shapes of the tables,
    coordinates.
    """
    factors = factors_of(composition)
    shapes = [f.table.shape for f in factors if f.table is not None]
    return [term.variance for term in composition] + shapes + [f.coords for f in factors]


def wanted(composition: Composition, needs: Sequence[bool]) -> tuple[bool, bool, bool]:
    """Whether any gradient, that of a shape, that of some coordinates is needed, given the flags
    of noise, columns and leaves.
    """
    terms, factors = len(composition), factors_of(composition)
    tables = sum(f.table is not None for f in factors)
    ours = needs[2:]
    return any(needs), any(ours[terms : terms + tables]), any(ours[terms + tables :])


def gradients(composition: Composition, packed: Packed, result: Reverse) -> list[Tensor]:
    """Gradients of noise, columns and leaves, in the order of :func:`leaves`."""
    factors = factors_of(composition)
    shapes = [result.shapes[k] for k, f in enumerate(factors) if f.table is not None]
    coords = [result.coords[:, a:b] for a, b in packed.bounds]
    if not result.coords.shape[1]:
        coords = [np.zeros(0)] * len(factors)
    return [
        torch.as_tensor(g)
        for g in (result.noise, result.columns, *result.variances, *shapes, *coords)
    ]


def match(gradient: Tensor, like: Tensor, need: bool) -> Tensor | None:
    """Gradient in the shape, type and place of its tensor; None where it is not needed."""
    return gradient.reshape(like.shape).to(like) if need else None


class Whiten(torch.autograd.Function):
    """Log-determinant and Gram matrix, with the backward pass by the closed-form adjoint."""

    @staticmethod
    def forward(
        ctx: Any,
        composition: Composition,
        neighbors: Tensor,
        noise: Tensor,
        columns: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        where = "Vecchia.whiten"
        ctx.save_for_backward(noise, columns, *tensors)
        packed = pack(composition, where)
        inputs = (
            array(noise),
            array(columns),
            neighbor_table(neighbors, len(packed.coords), where),
        )
        check_lengths(packed, where, noise=inputs[0], columns=inputs[1])
        ctx.kept = (composition, packed, inputs)
        c = columns.shape[1]
        result = reverse(packed, *inputs, 0.0, np.zeros((c, c)), (False, False, False), where)
        return noise.new_tensor(result.logdet), torch.as_tensor(result.gram).to(noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g0: Tensor, upstream: Tensor) -> tuple[Tensor | None, ...]:
        composition, packed, (noise, columns, table) = ctx.kept
        needs = ctx.needs_input_grad[2:]
        weights = array(0.5 * (upstream + upstream.T))
        want = wanted(composition, needs)
        given = (packed, noise, columns, table, float(g0), weights)
        result = reverse(*given, want, "Vecchia.whiten")
        found = gradients(composition, packed, result)
        matched = [match(g, t, n) for g, t, n in zip(found, ctx.saved_tensors, needs, strict=True)]
        return None, None, *matched


class GaussianCost(torch.autograd.Function):
    """Negative log-likelihood; the gradient is computed with the value and kept."""

    @staticmethod
    def forward(
        ctx: Any,
        composition: Composition,
        neighbors: Tensor,
        noise: Tensor,
        y: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        where = "Vecchia.gaussian_nll"
        packed = pack(composition, where)
        inputs = (
            array(noise),
            array(y).reshape(-1, 1),
            neighbor_table(neighbors, len(packed.coords), where),
        )
        check_lengths(packed, where, noise=inputs[0], y=inputs[1])
        needs = ctx.needs_input_grad[2:]
        result = reverse(
            packed, *inputs, 0.5, np.array([[0.5]]), wanted(composition, needs), where
        )
        if any(needs):
            found = gradients(composition, packed, result)
            ctx.kept = [
                match(g, t, n) for g, t, n in zip(found, (noise, y, *tensors), needs, strict=True)
            ]
        value = 0.5 * (
            result.logdet + result.gram[0, 0] + len(packed.coords) * math.log(2 * math.pi)
        )
        return noise.new_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if g is None else upstream * g for g in ctx.kept)


def whiten(
    composition: Composition,
    noise: Float[Tensor, " n"],
    columns: Float[Tensor, "n c"],
    neighbors: Int[Tensor, "n m"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "c c"]]:
    r"""Log-determinant and Gram matrix of some columns under the Vecchia approximation of a
    covariance.

    .. math:: \log |\Sigma|, \quad Y^\top \Sigma^{-1} Y, \qquad \Sigma^{-1} = \sum_i a_i a_i^\top

    Differentiable once in coordinates, variances, shapes, noise and columns.

    Arguments:
        composition: The covariance of the signal.
        noise: The noise variances, with shape :math:`(n)`.
        columns: The columns :math:`Y`, with shape :math:`(n, c)`.
        neighbors: The earlier neighbours of each point, absent ones -1, with shape :math:`(n, m)`.

    Returns:
        The log-determinant, with shape :math:`()`, and the Gram matrix, with shape :math:`(c, c)`.

    Raises:
        ValueError: If the covariance of a point and its neighbours is not positive definite.

    Example:
        >>> from matheron.linalg.composition import Factor, Term
        >>> x = torch.arange(3, dtype=torch.float64).reshape(3, 1)
        >>> signal = (Term(torch.tensor(1.0, dtype=torch.float64), (Factor(x, "exponential"),)),)
        >>> chain = torch.tensor([[-1], [0], [1]], dtype=torch.int32)
        >>> logdet, gram = whiten(signal, 0 * x[:, 0], torch.ones_like(x), chain)
        >>> round(logdet.item(), 4), round(gram.item(), 4)
        (-0.2908, 1.9242)
    """
    return Whiten.apply(composition, neighbors, noise, columns, *leaves(composition))


def gaussian_nll(
    composition: Composition,
    noise: Float[Tensor, " n"],
    y: Float[Tensor, " n"],
    neighbors: Int[Tensor, "n m"],
) -> Float[Tensor, ""]:
    r"""Negative log-likelihood of data under the Vecchia approximation, value and gradients in one
    pass.

    .. math:: \tfrac12 \left(\log |\Sigma| + y^\top \Sigma^{-1} y + n \log 2\pi\right)

    Differentiable once in coordinates, variances, shapes, noise and data.

    Arguments:
        composition: The covariance of the signal.
        noise: The noise variances, with shape :math:`(n)`.
        y: The data less their mean, with shape :math:`(n)`.
        neighbors: The earlier neighbours of each point, absent ones -1, with shape :math:`(n, m)`.

    Returns:
        The negative log-likelihood, with shape :math:`()`.

    Raises:
        ValueError: If the covariance of a point and its neighbours is not positive definite.

    Example:
        >>> from matheron.linalg.composition import Factor, Term
        >>> x = torch.arange(3, dtype=torch.float64).reshape(3, 1)
        >>> signal = (Term(torch.tensor(1.0, dtype=torch.float64), (Factor(x, "exponential"),)),)
        >>> chain = torch.tensor([[-1], [0], [1]], dtype=torch.int32)
        >>> cost = gaussian_nll(signal, 0 * x[:, 0], torch.ones_like(x[:, 0]), chain)
        >>> round(cost.item(), 4)
        3.5735
    """
    return GaussianCost.apply(composition, neighbors, noise, y, *leaves(composition))
