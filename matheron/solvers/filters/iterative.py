r"""Gauss-Newton in the space of an ensemble."""

from __future__ import annotations

__all__ = ["gauss_newton"]

import math
import torch

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

from .transforms import Departures, thin_svd, whiten


def gauss_newton(
    E: Float[Tensor, "*batch size n"],
    predict: Callable[[Tensor], Tensor],
    y: Float[Tensor, "*batch m"],
    noise: Float[Tensor, " m"] | Float[Tensor, "m m"],
    iterations: int = 10,
    tolerance: float = 1e-3,
) -> tuple[Float[Tensor, "*batch size n"], float]:
    r"""Returns the analysis of an ensemble from data seen through a nonlinear function.

    With it comes the norm of the last change of :math:`w`, the largest of the batch.

    With :math:`x = \bar x + w A / \sqrt{N - 1}`, it minimises

    .. math:: J(w) = \tfrac12 |w|^2 + \tfrac12 \|y - h(\bar x + w A / \sqrt{N - 1})\|_{R^{-1}}^2

    where the sensitivity of :math:`h` to :math:`w` is that of an ensemble with the spread of the
    analysis (the transform variant). Anomalies are those of the Hessian at the end. For a linear
    :math:`h` the first iteration is the ensemble transform Kalman filter, and the second the
    same.

    References:
        | An iterative ensemble Kalman smoother (Bocquet & Sakov, 2014)
        | https://doi.org/10.1002/qj.2236

    Arguments:
        E: The ensemble.
        predict: The data that states predict, :math:`h`, through the model where there is one.
        y: The data.
        noise: The variance of each datum, or their covariance.
        iterations: The most iterations.
        tolerance: The norm of the change of :math:`w` that stops them.

    Example:
        >>> E = torch.tensor([[0.5], [1.0], [1.5]], dtype=torch.float64)
        >>> y, R = torch.tensor([4.0]).double(), torch.tensor([1e-4]).double()
        >>> Ea, change = gauss_newton(E, torch.square, y, R)
        >>> round(Ea.mean().item(), 2), change < 1e-3
        (2.0, True)
    """
    mean = E.mean(dim=-2, keepdim=True)
    A = (E - mean) / math.sqrt(E.shape[-2] - 1)
    N = E.shape[-2]
    w = E.new_zeros(*E.shape[:-2], 1, N)
    T = inverse = torch.eye(N, dtype=E.dtype)
    change = math.inf
    for _ in range(iterations):
        seen = _departures(predict(mean + (w + math.sqrt(N - 1) * T) @ A), inverse, y, noise)
        U, s, _ = thin_svd(seen.anomalies)
        slope = seen.innovation[..., None, :] @ seen.anomalies.mT - w
        step = slope + slope @ (U * (1 / (1 + s.square()) - 1)[..., None, :]) @ U.mT
        w = w + step
        root = (1 + s.square()).sqrt()
        T, inverse = _about_one(U, 1 / root), _about_one(U, root)
        change = step.norm(dim=-1).max().item()
        if change < tolerance:
            break
    return mean + (w + math.sqrt(N - 1) * T) @ A, change


def _about_one(U: Tensor, values: Tensor) -> Tensor:
    return torch.eye(U.shape[-2], dtype=U.dtype) + (U * (values - 1)[..., None, :]) @ U.mT


def _departures(predicted: Tensor, inverse: Tensor, y: Tensor, noise: Tensor) -> Departures:
    r"""Whitens, and gives the anomalies back the spread that the transform took from them."""
    if not predicted.isfinite().all():
        msg = (
            "gauss_newton(predict=...): expected finite data, got NaN or Inf. The model blew up: "
            "shorten its time step or the window."
        )
        raise ValueError(msg)
    mean = predicted.mean(dim=-2, keepdim=True)
    Y = inverse @ (predicted - mean) / math.sqrt(predicted.shape[-2] - 1)
    return Departures(whiten(Y, noise), whiten(y[..., None, :] - mean, noise)[..., 0, :])
