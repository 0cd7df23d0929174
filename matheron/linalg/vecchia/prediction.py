"""Prediction weights on the CPU."""

from __future__ import annotations

import numpy as np
import torch

from jaxtyping import Float, Int
from torch import Tensor

from .blocks import scratch_size
from .kernels import predict_chunk
from .launch import ROUND_OFF, check_lengths, extents, neighbor_table, scratch_memory
from .packing import array, pack
from ..composition import Composition
from ..threads import in_threads

__all__ = ["predict_weights"]


def predict_weights(
    composition: Composition,
    noise: Float[Tensor, " n"],
    neighbors: Int[Tensor, "t m"],
    start: int,
) -> tuple[Float[Tensor, "t m"], Float[Tensor, " t"]]:
    r"""Conditional mean weights and standard deviation of each target given its neighbours.

    .. math:: w_i = \Sigma_{cc}^{-1} \Sigma_{ci}, \quad s_i^2 = \Sigma_{ii} - w_i^\top \Sigma_{ci}

    The points are the data, then the targets. An earlier target that nearer neighbours determine
    to round-off tells nothing more: its
    weight is 0. A datum in this case is refused.

    Arguments:
        composition: The covariance of the signal at data and targets.
        noise: The noise variances, 0 for targets, with shape :math:`(n)`.
        neighbors: The neighbours of the targets among earlier points, absent ones -1, with shape
            :math:`(t, m)`.
        start: The number of data :math:`n - t`.

    Returns:
        The weights, with shape :math:`(t, m)`, and the standard deviations, with shape
        :math:`(t)`.

    Raises:
        ValueError: If data among the neighbours of a target determine one another.

    Example:
        >>> from matheron.linalg.composition import Factor, Term
        >>> x = torch.tensor([[0.0], [2.0], [2.0]], dtype=torch.float64)
        >>> signal = (Term(torch.tensor(1.0, dtype=torch.float64), (Factor(x, "exponential"),)),)
        >>> nearest = torch.tensor([[1, 0]], dtype=torch.int32)
        >>> weights, std = predict_weights(signal, 0 * x[:, 0], nearest, 2)
        >>> weights.round(decimals=6).abs(), std
        (tensor([[1., 0.]], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    where = "Vecchia.predict_weights"
    packed = pack(composition, where)
    size, dims = packed.coords.shape
    errors = array(noise)
    check_lengths(packed, where, noise=errors)
    table = neighbor_table(neighbors, size - start, where)
    rows = table.shape[1] + 1
    weights, std = np.zeros(table.shape), np.zeros(len(table))
    runs = extents(size - start)
    need = scratch_size(rows, dims, len(packed.model[0]), 0, 0, 0)

    def one(k: int) -> int:
        return predict_chunk(
            *runs[k],
            start,
            packed.coords,
            errors.reshape(-1, 1),
            np.zeros((size, 0)),
            table,
            packed.model,
            ROUND_OFF * rows,
            (False, False),
            scratch_memory(need),
            weights,
            std,
        )

    lost = [row for row in in_threads(one, len(runs)) if row >= 0]
    if lost:
        msg = (
            f"{where}(noise=...): expected neighbours that differ, got data that determine one "
            f"another among those of point {min(lost)}. "
            "Set noise_std > 0, or merge coincident data."
        )
        raise ValueError(msg)
    return torch.as_tensor(weights), torch.as_tensor(std)
