"""Compile everything once."""

from __future__ import annotations

import torch

from .information import Tangent, fisher
from .likelihood import gaussian_nll
from .merging import target_neighbors
from .neighbors import previous_neighbors
from .ordering import along_curve, maxmin_order
from .prediction import predict_weights
from .sequence import frozen, propagate, simulated_variance
from ..composition import Factor, Term

__all__ = ["warm_up"]


def warm_up() -> None:
    """Compile every pass on a tiny problem; the machine code is kept on disk for later processes.

    Example:
        >>> warm_up()
    """
    x = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(6, 2)[
        maxmin_order(torch.zeros(6, 2, dtype=torch.float64))
    ]
    one = torch.ones((), dtype=torch.float64)
    signal = (Term(one, (Factor(x, "matern32"),)),)
    noise, y = torch.ones(6, dtype=torch.float64), x[:, 0].clone().requires_grad_()
    neighbors = previous_neighbors(x, 2)
    target_neighbors([x, x[:, :1]], 2, 4)
    along_curve(x)
    gaussian_nll(signal, noise, y, neighbors).backward()
    fisher(signal, noise, x, neighbors, [Tangent(variances=one.reshape(1))])
    weights, std = predict_weights(signal, noise, neighbors[4:], 4)
    propagate(weights, std, neighbors[4:], 4, x.clone())
    simulated_variance(frozen(weights, std, neighbors[4:]), 4, 1, 0)
