r"""Analyses of an ensemble, as weights: every member of the analysis is a sum of anomalies.

With members :math:`E_i`, their mean :math:`\bar E` and anomalies :math:`A = E - \bar E`, an
analysis is :math:`E^a = \bar E + W A`: an :math:`(N, N)` matrix of weights. It depends on the
data through the whitened anomalies :math:`S = (H E - \overline{H E}) R^{-1/2} / \sqrt{N - 1}` and
the whitened innovation :math:`d = (y - \overline{H E}) R^{-1/2}` only, so that the same weights
update the state of now, those of the past (a smoother), and parameters.
"""

from __future__ import annotations

__all__ = [
    "Departures",
    "deterministic_weights",
    "finite_size_inflation",
    "perturbed_weights",
    "random_rotation",
    "reweighted",
    "symmetric_weights",
    "thin_svd",
    "whiten",
    "whitened",
]

import math
import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor

MODEST = 1e4
"""The variance of predictions, in that of the noise, up to which squares lose next to nothing."""


@dataclass(frozen=True)
class Departures:
    r"""What an ensemble says of the data, and what it misses, in units of the noise.

    Arguments:
        anomalies: :math:`S`, with shape :math:`(*, N, m)`.
        innovation: :math:`d`, with shape :math:`(*, m)`.
    """

    anomalies: Float[Tensor, "*batch size m"]
    innovation: Float[Tensor, "*batch m"]

    def inflated(self, factor: float | Float[Tensor, "*batch"]) -> Departures:
        r"""Returns the same with the anomalies multiplied by a factor."""
        factor = torch.as_tensor(factor, dtype=torch.float64)[..., None, None]
        return Departures(self.anomalies * factor, self.innovation)


def whitened(
    predicted: Float[Tensor, "*batch size m"],
    y: Float[Tensor, "*batch m"],
    noise: Float[Tensor, " m"] | Float[Tensor, "m m"],
) -> Departures:
    r"""Returns :math:`S` and :math:`d`.

    Arguments:
        predicted: The data that each member predicts, :math:`H(E_i)`.
        y: The data.
        noise: The variance of each datum, or the covariance :math:`R`.

    Raises:
        ValueError: If there are fewer than two members, if predictions are not finite, or if the
            noise is not positive.
    """
    _check(predicted, noise)
    mean = predicted.mean(dim=-2)
    S = (predicted - mean[..., None, :]) / math.sqrt(predicted.shape[-2] - 1)
    return Departures(whiten(S, noise), whiten((y - mean)[..., None, :], noise)[..., 0, :])


def whiten(v: Float[Tensor, "*batch r m"], noise: Tensor) -> Float[Tensor, "*batch r m"]:
    r"""Returns :math:`v R^{-1/2}`, from variances or by the Cholesky factor of a covariance."""
    if noise.ndim == 1:
        return v / noise.sqrt()
    L = torch.linalg.cholesky(noise)
    return torch.linalg.solve_triangular(L, v.mT, upper=False).mT


def _check(predicted: Tensor, noise: Tensor) -> None:
    if predicted.shape[-2] < 2:
        msg = (
            f"whitened(predicted=...): expected two members or more, got {predicted.shape[-2]}. "
            "An ensemble of one has no spread."
        )
        raise ValueError(msg)
    if not predicted.isfinite().all():
        msg = (
            "whitened(predicted=...): expected a finite ensemble, got NaN or Inf. The filter or "
            "the model blew up: shorten the time step, inflate, or add members."
        )
        raise ValueError(msg)
    variance = noise if noise.ndim == 1 else noise.diagonal()
    if not (variance > 0).all():
        msg = (
            f"whitened(noise=...): expected positive variances, got {variance.min().item()}. "
            "Give data without error a small noise_std."
        )
        raise ValueError(msg)


def symmetric_weights(seen: Departures) -> Float[Tensor, "*batch size size"]:
    r"""Returns the weights of the ensemble transform Kalman filter, by its symmetric root.

    .. math:: w = d S^\top (I + S S^\top)^{-1} / \sqrt{N - 1}, \qquad T = (I + S S^\top)^{-1/2}

    and :math:`W_{ij} = w_j + T_{ij}`. Mean and covariance are those of Kalman, given the
    covariance of the ensemble.

    References:
        | Efficient data assimilation for spatiotemporal chaos: a local ensemble transform Kalman
        | filter (Hunt, Kostelich & Szunyogh, 2007)
        | https://doi.org/10.1016/j.physd.2006.11.008

    Example:
        >>> E = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> y, R = torch.tensor([3.0]).double(), torch.tensor([1.0]).double()
        >>> Ea = reweighted(E, symmetric_weights(whitened(E, y, R)))
        >>> round(Ea.mean().item(), 9), round(Ea.var().item(), 9)  # variances 1 and 1
        (2.0, 0.5)
    """
    S = seen.anomalies
    if S.shape[-1] > S.shape[-2] and S.square().sum(dim=(-2, -1)).max() <= MODEST:
        return _weights_by_gram(S, seen.innovation)
    U, s, V = thin_svd(S)
    return _mean_weights(seen, U, s, V) + _root(U, s)


def _weights_by_gram(S: Tensor, d: Tensor) -> Float[Tensor, "*batch size size"]:
    r"""Returns the same from the eigenvectors of :math:`S S^\top`: four times as fast."""
    values, U = torch.linalg.eigh(S @ S.mT)
    keep = 1 / (1 + values.clamp(min=0.0))[..., None, :]
    mean = (d[..., None, :] @ S.mT @ U * keep) @ U.mT
    # the null space of S is in U too: nothing is to be put back
    return mean / math.sqrt(S.shape[-2] - 1) + (U * keep.sqrt()) @ U.mT


def thin_svd(S: Float[Tensor, "*batch size m"]) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns :math:`U, s, V` of :math:`S = U s V^\top`, without the null spaces."""
    U, s, V = torch.linalg.svd(S, full_matrices=False)
    return U, s, V.mT


def _gain(U: Tensor, s: Tensor, V: Tensor) -> Float[Tensor, "*batch m size"]:
    r"""Returns :math:`S^\top (I + S S^\top)^{-1}`."""
    return (V * (s / (1 + s.square()))[..., None, :]) @ U.mT


def _mean_weights(
    seen: Departures, U: Tensor, s: Tensor, V: Tensor
) -> Float[Tensor, "*batch 1 size"]:
    gain = _gain(U, s, V)
    return seen.innovation[..., None, :] @ gain / math.sqrt(gain.shape[-1] - 1)


def _root(U: Tensor, s: Tensor) -> Float[Tensor, "*batch size size"]:
    shrink = 1 / (1 + s.square()).sqrt() - 1
    return torch.eye(U.shape[-2], dtype=U.dtype) + (U * shrink[..., None, :]) @ U.mT


def perturbed_weights(
    seen: Departures, generator: Generator | None = None
) -> Float[Tensor, "*batch size size"]:
    r"""Returns the weights of the stochastic ensemble Kalman filter, by perturbed observations.

    Each member assimilates the data plus a draw of their noise. The draws are centred, so that
    the mean is Kalman's; the covariance is on average.

    References:
        | Analysis scheme in the ensemble Kalman filter (Burgers, van Leeuwen & Evensen, 1998)
        | https://doi.org/10.1175/1520-0493(1998)126<1719:ASITEK>2.0.CO;2
    """
    S = seen.anomalies
    N = S.shape[-2]
    D = torch.randn(S.shape, dtype=S.dtype, generator=generator)
    D = D - D.mean(dim=-2, keepdim=True)
    U, s, V = thin_svd(S)
    spread = torch.eye(N, dtype=S.dtype) + (D / math.sqrt(N - 1) - S) @ _gain(U, s, V)
    return _mean_weights(seen, U, s, V) + spread


def deterministic_weights(seen: Departures) -> Float[Tensor, "*batch size size"]:
    r"""Returns the weights of the deterministic ensemble Kalman filter, by half the gain.

    The spread is a little larger than Kalman's: an inflation that grows with the update.

    References:
        | A deterministic formulation of the ensemble Kalman filter (Sakov & Oke, 2008)
        | https://doi.org/10.1111/j.1600-0870.2007.00299.x
    """
    S = seen.anomalies
    U, s, V = thin_svd(S)
    spread = torch.eye(S.shape[-2], dtype=S.dtype) - S @ _gain(U, s, V) / 2
    return _mean_weights(seen, U, s, V) + spread


def reweighted(
    E: Float[Tensor, "*batch size n"], weights: Float[Tensor, "*batch size size"]
) -> Float[Tensor, "*batch size n"]:
    r"""Returns :math:`\bar E + W A`."""
    mean = E.mean(dim=-2, keepdim=True)
    return mean + weights @ (E - mean)


def random_rotation(
    size: int, generator: Generator | None = None, batch: tuple[int, ...] = ()
) -> Float[Tensor, "*batch size size"]:
    r"""Returns random orthogonal matrices that keep the vector of ones.

    Applied to anomalies they keep mean and covariance, and undo the clustering of members that
    symmetric roots may build up.

    References:
        | Implications of the form of the ensemble transformation in the ensemble square root
        | filters (Sakov & Oke, 2008)
        | https://doi.org/10.1175/2007MWR2021.1

    Example:
        >>> R = random_rotation(4, torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(R.sum(dim=1), torch.ones(4).double()))
        True
    """
    z = torch.randn(*batch, size - 1, size - 1, dtype=torch.float64, generator=generator)
    Q, T = torch.linalg.qr(z)
    Q = Q * T.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # uniform over the group
    basis = _without_mean(size)
    return basis @ Q @ basis.mT + 1 / size


def _without_mean(size: int) -> Float[Tensor, "size rest"]:
    r"""Returns an orthonormal basis of the vectors that sum to zero (Householder)."""
    v = torch.full((size,), 1 / math.sqrt(size), dtype=torch.float64)
    v[0] += 1
    return (torch.eye(size, dtype=torch.float64) - torch.outer(v, v) / v[0])[:, 1:]


def finite_size_inflation(seen: Departures, strength: float = 1.0) -> Float[Tensor, "*batch"]:
    r"""Returns the inflation :math:`\lambda` that the forecasts of a small ensemble need.

    The covariance of an ensemble is itself uncertain. Integrated out, that uncertainty makes an
    inflation, the minimum of

    .. math::
        J(\lambda) = d (I + \lambda^2 S^\top S)^{-1} d^\top
        + (N - 1) (\epsilon / \lambda^2 + c \log \lambda^2)

    where :math:`\epsilon = (N + 1) / N` and :math:`c = N / (N - 1)`, corrected so that the mode of
    :math:`\lambda` stays near one where the data say little. Nothing is left to tune.

    References:
        | Expanding the validity of the ensemble Kalman filter without the intrinsic need for
        | inflation (Bocquet, Raanes & Hannart, 2015)
        | https://doi.org/10.5194/npg-22-645-2015

    Arguments:
        seen: The whitened ensemble.
        strength: How many times the prior of :math:`\lambda` is counted; 2 where models are
            almost linear.

    Example:
        >>> E = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
        >>> R = torch.ones(1, dtype=torch.float64)
        >>> near, far = (whitened(E, torch.tensor([v]).double(), R) for v in (0.5, 9.0))
        >>> [round(finite_size_inflation(seen).item(), 1) for seen in (near, far)]
        [1.0, 5.2]
    """
    S = seen.anomalies
    N = S.shape[-2]
    _, s, V = thin_svd(S)
    power = (seen.innovation[..., None, :] @ V)[..., 0, :].square()
    # each direction that no datum sees counts one
    blind = N - s.shape[-1]
    certainty = ((1 / (1 + s.square())).sum(dim=-1) + blind) / N
    correction = ((N**2 - 1) / N**2) ** (certainty / 2)
    epsilon = strength * (N + 1) / N / correction
    c = strength * N / (N - 1) * correction

    def slope(u: Tensor) -> Tensor:  # lambda dJ / dlambda / 2
        gone = (u.exp()[..., None] * s).square()
        fit = (power * gone / (1 + gone).square()).sum(dim=-1)
        return -fit + (N - 1) * (c - epsilon * (-2 * u).exp())

    return _root_of(slope, torch.zeros_like(certainty)).exp()


def _root_of(slope: object, start: Tensor) -> Tensor:
    r"""Bisects for the zero of a function that is negative at -3 and positive at 8."""
    assert callable(slope)
    low, high = start - 3.0, start + 8.0
    for _ in range(48):
        middle = (low + high) / 2
        rises = slope(middle) > 0
        low, high = torch.where(rises, low, middle), torch.where(rises, middle, high)
    return (low + high) / 2
