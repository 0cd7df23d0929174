r"""A field in the Vecchia approximation, seen through independent noise: sparse precisions."""

from __future__ import annotations

__all__ = ["LatentField"]

import numpy as np
import scipy.sparse as sparse
import torch

from functools import cached_property
from jaxtyping import Float, Int
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor


class LatentField:
    r"""The law of a field at some places, given data that see it through noise.

    .. math:: Q = (I - W)^\top D^{-1} (I - W), \qquad Q' = Q + A^\top R^{-1} A

    The prior precision :math:`Q` has the Vecchia approximation of the field alone as its law;
    :math:`A` says at which place each datum is. The factor of :math:`Q'` is sparse; its fill
    grows with the number of dimensions in which the places lie.

    Arguments:
        weights: The weights :math:`W` of the neighbours of each place, with shape :math:`(k, c)`.
        std: The conditional standard deviations, the root of :math:`D`, with shape :math:`(k)`.
        neighbors: The earlier neighbours, absent ones -1, with shape :math:`(k, c)`.
        place: The place of each datum, with shape :math:`(m)`.
        noise: The variance :math:`R` of the noise, with shape :math:`(m)`.

    Raises:
        ValueError: If a noise is zero, or if the neighbours of a place determine it.

    Example:
        >>> none = torch.full((1, 1), -1, dtype=torch.int32)
        >>> one, first = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
        >>> field = LatentField(torch.zeros_like(one)[:, None], one, none, first, 3 * one)
        >>> field.estimate(torch.tensor([[8.0]], dtype=torch.float64)).item()  # 8 / (1 + 3)
        2.0
    """

    def __init__(
        self,
        weights: Float[Tensor, "k c"],
        std: Float[Tensor, " k"],
        neighbors: Int[Tensor, "k c"],
        place: Int[Tensor, " m"],
        noise: Float[Tensor, " m"],
    ) -> None:
        _check_noise(noise)
        _check_std(std)
        self.place, self.noise, self.size = place, noise, len(std)
        self.root = _root(weights.numpy(), std.numpy(), neighbors.numpy())
        told = torch.zeros(self.size, dtype=torch.float64).index_add(0, place, 1 / noise)
        precision = self.root.T @ self.root + sparse.diags_array(told.numpy())
        self.precision = sparse.csc_array(precision)
        self.factor = _factorise(self.precision)
        pivots = torch.as_tensor(self.factor.U.diagonal())
        self.logdet = 2 * std.log().sum() + noise.log().sum() + pivots.log().sum()

    def solve(self, columns: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
        r"""Returns the columns divided by the posterior precision, :math:`Q'^{-1} C`."""
        if columns.numel() == 0:
            return columns
        return torch.as_tensor(self.factor.solve(np.asfortranarray(columns.numpy())))

    def gather(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "k c"]:
        r"""Returns the sum of the rows of the data at each place, :math:`A^\top C`."""
        return columns.new_zeros(self.size, columns.shape[1]).index_add(0, self.place, columns)

    def estimate(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "k c"]:
        r"""Returns the posterior mean at the places, :math:`Q'^{-1} A^\top R^{-1} C`."""
        return self.solve(self.gather(columns / self.noise[:, None]))

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        r"""Returns :math:`\log |S|` and :math:`C^\top S^{-1} C`, for some columns.

        Here :math:`S = A Q^{-1} A^\top + R` is the covariance of the data. With :math:`X` the
        estimate of the columns, the products are :math:`(C - A X)^\top R^{-1} (C - A X) + X^\top Q
        X`: nothing is subtracted.
        """
        x = self.estimate(columns)
        noise = (columns - x[self.place]) / self.noise.sqrt()[:, None]
        field = torch.as_tensor(self.root @ x.numpy())
        return self.logdet, noise.mT @ noise + field.mT @ field

    def perturb(
        self, field: Float[Tensor, "k c"], noise: Float[Tensor, "m c"]
    ) -> Float[Tensor, "k c"]:
        r"""Returns deviations from the posterior mean, :math:`Q'^{-1} (L e + A^\top R^{-1/2} u)`.

        Here :math:`L L^\top = Q`: from standard normal numbers they have the posterior law, from
        the columns of the identity they are a root of the posterior covariance.
        """
        seen = self.gather(noise / self.noise.sqrt()[:, None])
        return self.solve(torch.as_tensor(self.root.T @ field.numpy()) + seen)

    @cached_property
    def own_variance(self) -> Float[Tensor, " k"]:
        r"""The posterior variance of each place given all other places, :math:`1 / Q'_{ii}`."""
        return 1 / torch.as_tensor(self.precision.diagonal())

    def given_others(self, x: Float[Tensor, "k c"]) -> Float[Tensor, "k c"]:
        r"""Returns the conditional mean of a deviation at each place given all other places."""
        return x - self.own_variance[:, None] * torch.as_tensor(self.precision @ x.numpy())


def _root(weights: np.ndarray, std: np.ndarray, neighbors: np.ndarray) -> sparse.csr_array:
    r"""Returns :math:`D^{-1/2} (I - W)`."""
    k, present = len(std), neighbors >= 0
    rows, columns = np.nonzero(present)[0].astype(np.int32), neighbors[present]  # as splu wants
    W = sparse.csr_array((weights[present], (rows, columns)), shape=(k, k))
    return sparse.csr_array(sparse.diags_array(1 / std) @ (sparse.diags_array(np.ones(k)) - W))


def _factorise(precision: sparse.csc_array) -> SuperLU:
    msg = (
        "Vecchia(form='latent'): expected a positive definite precision, got a pivot that is not "
        "positive. Use form='response', or merge data that nearly coincide."
    )
    try:
        factor = splu(
            precision,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError as error:  # exactly singular
        raise ValueError(msg) from error
    # no row was exchanged for another pivot, and every pivot is positive
    aligned = np.array_equal(factor.perm_r, factor.perm_c)
    pivots = factor.U.diagonal()
    if not aligned or not (np.isfinite(pivots) & (pivots > 0)).all():
        raise ValueError(msg)
    return factor


def _check_noise(noise: Float[Tensor, " m"]) -> None:
    if not (noise > 0).all():
        msg = (
            f"Vecchia(form='latent'): expected noise_std > 0 at every datum, got "
            f"{int((noise <= 0).sum())} of {len(noise)} without noise. Use form='response'."
        )
        raise ValueError(msg)


def _check_std(std: Float[Tensor, " k"]) -> None:
    if not (std > 0).all():
        msg = (
            f"Vecchia(form='latent'): expected a field rougher than round-off, got "
            f"{int((std <= 0).sum())} of {len(std)} places that their neighbours determine. "
            "Use form='response', or merge data that nearly coincide."
        )
        raise ValueError(msg)
