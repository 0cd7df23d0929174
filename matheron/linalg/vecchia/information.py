"""The Fisher information on the CPU, with value and gradient in one forward pass.

References:
    | Gaussian process learning via Fisher scoring of Vecchia's approximation (Guinness, 2021)
    | https://doi.org/10.1007/s11222-020-09999-1
"""

from __future__ import annotations

import numpy as np
import torch

from collections.abc import Sequence
from dataclasses import dataclass, field
from jaxtyping import Float, Int
from torch import Tensor

from .blocks import scratch_size
from .forward import fisher_chunk
from .launch import (
    ROUND_OFF,
    check_lengths,
    extents,
    neighbor_table,
    raise_if_singular,
    scratch_memory,
)
from .packing import array, pack
from ..composition import Composition
from ..threads import in_threads

__all__ = ["Tangent", "fisher"]


@dataclass(frozen=True)
class Tangent:
    r"""Derivative of a composition and of its noise along one parameter.

    Arguments:
        coords: The derivatives of the coordinates :math:`(n, d)` of the factors that move, by
            (term, factor).
        variances: The derivatives of the variances of the terms, with shape :math:`(T)`.
        shapes: The derivatives of the shapes of the tables that change, by (term, factor).
        noise: The derivative of the noise variances, with shape :math:`(n)`, or None.
    """

    coords: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    variances: Tensor | None = None
    shapes: dict[tuple[int, int], float] = field(default_factory=dict)
    noise: Tensor | None = None


def flat_tangents(
    composition: Composition,
    tangents: Sequence[Tangent],
    bounds: tuple[tuple[int, int], ...],
    size: int,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Flat arrays of the tangents: by variance, shape and coordinates; common flags; packed
    coordinates; noises.
    """
    keys = [(t, k) for t, term in enumerate(composition) for k in range(len(term.factors))]
    by_variance = np.zeros((len(tangents), len(composition)))
    by_shape = np.zeros((len(tangents), len(keys)))
    by_coords = np.full((len(tangents), len(keys)), -1, dtype=np.int64)
    columns, used = [np.zeros((size, 0))], 0
    noises = np.zeros((size, len(tangents) if any(t.noise is not None for t in tangents) else 0))
    for j, tangent in enumerate(tangents):
        if tangent.variances is not None:
            by_variance[j] = array(tangent.variances)
        for key, value in tangent.shapes.items():
            by_shape[j, keys.index(key)] = float(value)
        for key, moves in tangent.coords.items():
            f = keys.index(key)
            by_coords[j, f] = used
            used += bounds[f][1] - bounds[f][0]
            columns.append(array(moves))
        if tangent.noise is not None:
            noises[:, j] = array(tangent.noise)
    common = common_flags(composition, tangents, by_variance, by_shape, by_coords)
    return (
        (by_variance, by_shape, by_coords),
        common,
        np.ascontiguousarray(np.concatenate(columns, 1)),
        noises,
    )


def common_flags(
    composition: Composition,
    tangents: Sequence[Tangent],
    by_variance: np.ndarray,
    by_shape: np.ndarray,
    by_coords: np.ndarray,
) -> np.ndarray:
    """For each parameter: whether it scales the whole signal and does nothing else to it, its
    rate, whether it moves the noise.
    """
    variances = np.array([float(term.variance.detach()) for term in composition])
    rates = by_variance / variances
    scales = (
        (by_coords < 0).all(1)
        & (by_shape == 0).all(1)
        & np.isclose(rates, rates[:, :1], rtol=1e-14, atol=0).all(1)
    )
    return np.stack([scales, rates[:, 0], [t.noise is not None for t in tangents]], 1).astype(
        np.float64
    )


def fisher(
    composition: Composition,
    noise: Float[Tensor, " n"],
    columns: Float[Tensor, "n c"],
    neighbors: Int[Tensor, "n m"],
    tangents: Sequence[Tangent],
) -> tuple[
    Float[Tensor, ""],
    Float[Tensor, "c c"],
    Float[Tensor, " p"],
    Float[Tensor, "p c c"],
    Float[Tensor, "p p"],
]:
    r"""Log-determinant and Gram matrix, their derivatives along some parameters, and the Fisher
    information, in one pass.

    .. math:: I_{jk} = \tfrac12 \operatorname{tr}(\Sigma^{-1} \partial_j \Sigma\, \Sigma^{-1}
    \partial_k \Sigma)

    A parameter that only scales the signal or changes the noise costs two triangular products and
    no covariance.

    Arguments:
        composition: The covariance of the signal.
        noise: The noise variances, with shape :math:`(n)`.
        columns: The columns, with shape :math:`(n, c)`.
        neighbors: The earlier neighbours of each point, absent ones -1, with shape :math:`(n, m)`.
        tangents: The derivatives of the composition along each of the :math:`p` parameters.

    Returns:
        The log-determinant, the Gram matrix, their derivatives, with shapes :math:`(p)` and
        :math:`(p, c, c)`, and the information,
        with shape :math:`(p, p)`.

    Raises:
        ValueError: If the covariance of a point and its neighbours is not positive definite.

    Example:
        >>> from matheron.linalg.composition import Factor, Term
        >>> x = torch.arange(3, dtype=torch.float64).reshape(3, 1)
        >>> one = torch.tensor(1.0, dtype=torch.float64)
        >>> signal = (Term(one, (Factor(x, "exponential"),)),)
        >>> chain = torch.tensor([[-1], [0], [1]], dtype=torch.int32)
        >>> scale = Tangent(variances=one.reshape(1))
        >>> fisher(signal, 0 * x[:, 0], torch.ones_like(x), chain, [scale])[-1]
        tensor([[1.5000]], dtype=torch.float64)
    """
    where = "Vecchia.fisher"
    packed = pack(composition, where)
    size, dims = packed.coords.shape
    given = (array(noise), array(columns))
    check_lengths(packed, where, noise=given[0], columns=given[1])
    table = neighbor_table(neighbors, size, where)
    along, common, moves, noises = flat_tangents(composition, tangents, packed.bounds, size)
    want = (moves.shape[1] > 0, bool(along[1].any()), noises.shape[1] > 0)
    extra, p, count = given[1].shape[1], len(tangents), len(packed.model[0])
    rows = table.shape[1] + 1
    runs = extents(size)
    width = 1 + extra * extra + p
    sums = np.zeros((len(runs), 1 + extra * extra + p * width))
    need = scratch_size(rows, dims, count, extra, moves.shape[1], 2 * p)

    def one(k: int) -> int:
        return fisher_chunk(
            *runs[k],
            0,
            packed.coords,
            given[0].reshape(-1, 1),
            given[1],
            table,
            packed.model,
            ROUND_OFF * rows,
            along,
            common,
            moves,
            noises,
            want,
            scratch_memory(need),
            sums[k],
        )

    raise_if_singular(in_threads(one, len(runs)), where)
    return unpack_sums(torch.as_tensor(sums.sum(0)), extra, p)


def unpack_sums(sums: Tensor, extra: int, p: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Results of the Fisher pass from its sums."""
    middle = 1 + extra * extra
    each = sums[middle:].reshape(p, middle + p)
    half = each[:, 1:middle].reshape(p, extra, extra)
    lower = each[:, middle:]
    info = lower.tril() + lower.tril(-1).T
    return (
        sums[0],
        sums[1:middle].reshape(extra, extra),
        each[:, 0].clone(),
        -(half + half.mT),
        info,
    )
