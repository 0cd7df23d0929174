r"""Dense covariance matrices: their square roots, and what to say when there is none."""

from __future__ import annotations

__all__ = ["factorise", "square_root"]

import torch

from jaxtyping import Float
from torch import Tensor


def factorise(K: Float[Tensor, "n n"], where: str) -> Float[Tensor, "n n"]:
    r"""Returns the Cholesky factor of a positive definite matrix.

    Raises:
        ValueError: If the matrix is not positive definite in double precision. Nothing is added
            to its diagonal: the message says what to change.

    Example:
        >>> factorise(torch.tensor([[4.0]], dtype=torch.float64), "Kriging")
        tensor([[2.]], dtype=torch.float64)
    """
    L, info = torch.linalg.cholesky_ex(K)
    if info > 0:
        msg = (
            f"{where}: expected a positive definite covariance, got a pivot that is not positive "
            f"at datum {int(info) - 1} of {len(K)}. Give the data some noise_std, merge "
            "coincident data, or use a rougher kernel."
        )
        raise ValueError(msg)
    return L


def square_root(K: Float[Tensor, "n n"], where: str, strict: bool = False) -> Float[Tensor, "n n"]:
    r"""Returns :math:`A` such that :math:`A A^\top = K`, for a covariance that may be singular.

    A singular covariance (coincident sites, a very smooth field) has a root all the same, by its
    eigenvalues. Those that rounding made negative are zero.

    Arguments:
        K: The covariance.
        where: The caller, to be named in an error.
        strict: Whether a singular covariance is an error.

    Raises:
        ValueError: If an eigenvalue is negative beyond rounding, or if ``strict`` and singular.

    Example:
        >>> A = square_root(torch.ones(2, 2, dtype=torch.float64), "prior")
        >>> (A @ A.mT).round(decimals=12).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    L, info = torch.linalg.cholesky_ex(K)
    if info == 0:
        return L
    if strict:
        return factorise(K, where)
    values, vectors = torch.linalg.eigh(K)
    if values[0] < -1e-9 * values[-1]:
        msg = (
            f"{where}: expected a positive definite covariance, got an eigenvalue of "
            f"{values[0].item():.3g}. Check that the kernel is valid in this dimension."
        )
        raise ValueError(msg)
    return vectors * values.clamp(min=0).sqrt()
