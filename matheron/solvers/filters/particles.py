r"""Particles: weights by the likelihood, systematic resampling."""

from __future__ import annotations

__all__ = ["effective_size", "jittered", "log_likelihood", "resampled"]

import torch

from jaxtyping import Float, Int
from torch import Generator, Tensor

from .transforms import whiten


def log_likelihood(
    predicted: Float[Tensor, "*batch size m"],
    y: Float[Tensor, "*batch m"],
    noise: Float[Tensor, " m"] | Float[Tensor, "m m"],
) -> Float[Tensor, "*batch size"]:
    r"""Returns :math:`-|y - H(E_i)|^2_{R^{-1}} / 2` for every particle."""
    return -whiten(y[..., None, :] - predicted, noise).square().sum(dim=-1) / 2


def effective_size(log_weights: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch"]:
    r"""Returns :math:`1 / \sum_i w_i^2`, from weights that need not sum to one.

    Example:
        >>> effective_size(torch.zeros(8, dtype=torch.float64)).item()
        8.0
    """
    return 1 / log_weights.softmax(dim=-1).square().sum(dim=-1)


def resampled(
    log_weights: Float[Tensor, "*batch size"], generator: Generator | None = None
) -> Int[Tensor, "*batch size"]:
    r"""Returns the index of the parent of every particle, by systematic resampling.

    A particle of weight :math:`w` has :math:`N w` children, up to one.

    References:
        | Comparison of resampling schemes for particle filtering (Douc & Cappé, 2005)
        | https://doi.org/10.1109/ISPA.2005.195385

    Example:
        >>> weights = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
        >>> resampled(weights.log(), torch.Generator().manual_seed(0)).tolist()
        [0, 0, 1, 2]
    """
    N = log_weights.shape[-1]
    levels = log_weights.softmax(dim=-1).cumsum(dim=-1)
    levels = levels / levels[..., -1:]
    start = torch.rand(*log_weights.shape[:-1], 1, dtype=log_weights.dtype, generator=generator)
    places = (torch.arange(N, dtype=log_weights.dtype) + start) / N
    return torch.searchsorted(levels, places).clamp(max=N - 1)


def jittered(
    E: Float[Tensor, "*batch size n"],
    covariance: Float[Tensor, "*batch n n"],
    bandwidth: float,
    generator: Generator | None = None,
) -> Float[Tensor, "*batch size n"]:
    r"""Returns particles moved by a Gaussian kernel, so that children of one parent differ.

    The kernel is the covariance before resampling times the square of the bandwidth, which is
    multiplied by :math:`N^{-1 / (n + 4)}`: a regularised particle filter.

    Arguments:
        E: The particles.
        covariance: The covariance of the particles, weighted.
        bandwidth: The factor of the usual bandwidth.
        generator: The random number generator.
    """
    N, n = E.shape[-2:]
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :]
    z = torch.randn(E.shape, dtype=E.dtype, generator=generator)
    return E + bandwidth * N ** (-1 / (n + 4)) * z @ root.mT
