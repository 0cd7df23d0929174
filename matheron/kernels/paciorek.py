r"""Kernels whose lengthscales and variance vary from place to place."""

from __future__ import annotations

__all__ = ["PaciorekSchervish"]

import torch
import torch.nn as nn
import torch.nn.functional as F

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .base import Kernel, positive
from .local import LocalField
from .quick import ORDERS, closed_form, half_integer
from ..linalg.composition import correlation, matern_table


class PaciorekSchervish(Kernel):
    r"""The Matern covariance with an ellipse of lengthscales, and a variance, of each place.

    .. math::
        c(a, b) = \sigma_a \sigma_b \frac{|\Sigma_a|^{1/4} |\Sigma_b|^{1/4}}
        {|\bar\Sigma|^{1/2}} M_\nu \left( \sqrt{(a - b)^\top \bar\Sigma^{-1} (a - b)} \right),
        \qquad \bar\Sigma = \tfrac{1}{2} (\Sigma_a + \Sigma_b)

    It is positive definite whatever the matrices, which are, with :math:`D` the lengthscales,

    .. math:: \Sigma_x = D L_x L_x^\top D, \qquad L_x = \mathrm{lower \ triangular}, \quad
        (L_x)_{ii} = e^{\theta_i(x)}

    The field gives half the logarithm of the relative variance, the logarithms on the diagonals
    and what is below, about the constants that are parameters of the kernel. The smoothness is
    the same everywhere. Coordinates beyond those of the field (the height above the tangent
    plane, on the sphere) take the geometric mean of the lengthscales.

    References:
        | Spatial modelling using a new class of nonstationary covariance functions
        | (Paciorek and Schervish, 2006), https://doi.org/10.1002/env.785

    Arguments:
        field: The field, of :math:`d` coordinates and :math:`1 + d (d + 1) / 2` outputs.
        nu: The smoothness :math:`\nu`, which is not learned.
        variance: The variance :math:`\sigma^2` of an average place.
        lengthscale: The lengthscales of an average place, in the units of the coordinates: one
            number, or one per coordinate of the field.
        axes: ``"space"`` for a kernel of the coordinates after the first, ``None`` for all.

    Raises:
        ValueError: If the field does not fit, or a number is not as said.

    Example:
        >>> from matheron.kernels import SplineField
        >>> field = SplineField([0.0, 0.0], [1.0, 1.0], outputs=4)
        >>> kernel = PaciorekSchervish(field, nu=0.5, lengthscale=2.0)
        >>> kernel(torch.zeros(1, 2).double(), torch.tensor([[0.0, 2.0]]).double()).item()
        0.36787...
    """

    def __init__(
        self,
        field: LocalField,
        nu: float = 1.5,
        variance: float | Tensor = 1.0,
        lengthscale: float | Sequence[float] | Tensor = 1.0,
        axes: str | None = None,
    ) -> None:
        super().__init__()
        where, d = "PaciorekSchervish", field.dimensions
        scale = positive(where, "lengthscale", lengthscale)
        if field.outputs != 1 + d * (d + 1) // 2 or scale.numel() not in {1, d}:
            msg = (
                f"{where}(field=..., lengthscale=...): expected {1 + d * (d + 1) // 2} outputs "
                f"over {d} coordinates, and one lengthscale or {d}, got {field.outputs} and "
                f"{scale.numel()}. Give the field outputs=1 + d * (d + 1) // 2."
            )
            raise ValueError(msg)
        if axes not in {None, "space"} or not 0.05 < nu <= 50:
            msg = (
                f"{where}(axes=..., nu=...): expected 'space' or None and a smoothness between "
                f"0.05 and 50, got {axes!r} and {nu}. Multiply by a kernel over 'time'."
            )
            raise ValueError(msg)
        self.field, self.axes, self.nu, self.dimensions = field, axes, float(nu), d
        self.log_variance = nn.Parameter(positive(where, "variance", variance).log())
        self.log_lengthscale = nn.Parameter(scale.log().expand(d).clone())
        below = torch.zeros(d * (d - 1) // 2, dtype=torch.float64)
        self.shear = nn.Parameter(below) if d > 1 else None

    def _selected(self, x: Tensor) -> Tensor:
        return x if self.axes is None else x[..., 1:]

    def _local(self, x: Float[Tensor, "*batch k"]) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns log standard deviations, matrices and their log-determinants, of each site."""
        d, k = self.dimensions, x.shape[-1]
        if k < d:
            msg = (
                f"PaciorekSchervish(field=...): expected {d} coordinates or more, got {k}. Make "
                "the field of as many as the domain has."
            )
            raise ValueError(msg)
        theta = self.field(x[..., :d])
        logs = theta[..., 1 : 1 + d] + self.log_lengthscale
        L = torch.diag_embed(logs.exp())
        if self.shear is not None:
            L = L + self._below(theta[..., 1 + d :] + self.shear)
        mean = logs.mean(dim=-1)
        S = _extended(L @ L.mT, (2 * mean).exp(), k)
        return self.log_variance / 2 + theta[..., 0], S, 2 * logs.sum(dim=-1) + 2 * (k - d) * mean

    def _below(self, theta: Float[Tensor, "*batch j"]) -> Float[Tensor, "*batch d d"]:
        r"""Returns the matrices with what is below the diagonal, and zero elsewhere."""
        d = self.dimensions
        i, j = torch.tril_indices(d, d, -1)
        units = theta.new_zeros(len(i), d * d)
        units[torch.arange(len(i)), i * d + j] = 1.0
        entries = theta * self.log_lengthscale.exp()[i]
        return (entries @ units).unflatten(-1, (d, d))

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        a, b = self._selected(a), self._selected(b)
        s, S, det_a = self._local(a)
        t, T, det_b = self._local(b)
        h = a[..., :, None, :] - b[..., None, :, :]
        det, square = _elimination(S[..., :, None, :, :], T[..., None, :, :, :], h)
        logs = s[..., :, None] + t[..., None, :] - det / 2
        logs = logs + (det_a[..., :, None] + det_b[..., None, :]) / 4
        return logs.exp() * self._correlation(_root(2 * self.nu * square))

    def _correlation(self, u: Tensor) -> Tensor:
        order = round(self.nu - 0.5, 12)
        if order.is_integer() and order <= ORDERS:
            return closed_form(u, half_integer(int(order)))
        return correlation("table", matern_table(u.new_tensor(self.nu)), u)

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        s, _, _ = self._local(self._selected(a))
        return (2 * s).exp()

    def neighborhood(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n j"]:
        if self.axes is not None:
            return super().neighborhood(x)
        logs = self.log_lengthscale.detach()
        rest = logs.mean().expand(x.shape[-1] - len(logs))
        return x * (-torch.cat([logs, rest])).exp()

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the field."""
        return self.field.penalty()


def _extended(
    S: Float[Tensor, "*batch d d"], rest: Float[Tensor, "*batch"], k: int
) -> Float[Tensor, "*batch k k"]:
    r"""Returns matrices with more coordinates, along which they are multiples of the identity."""
    d = S.shape[-1]
    if k == d:
        return S
    outer = torch.zeros(k, k, dtype=S.dtype, device=S.device)
    outer[range(d, k), range(d, k)] = 1.0
    inside = F.pad(S, (0, k - d, 0, k - d))
    return inside + rest[..., None, None] * outer


def _elimination(
    S: Float[Tensor, "*batch p 1 k k"],
    T: Float[Tensor, "*batch 1 q k k"],
    h: Float[Tensor, "*batch p q k"],
) -> tuple[Float[Tensor, "*batch p q"], Float[Tensor, "*batch p q"]]:
    r"""Returns :math:`\log |\bar\Sigma|` and :math:`h^\top \bar\Sigma^{-1} h` of each pair.

    By elimination, entry by entry: for matrices this small much quicker than a library call each.
    """
    k = h.shape[-1]
    A = [[(S[..., i, j] + T[..., i, j]) / 2 for j in range(i + 1)] for i in range(k)]
    v = list(h.unbind(dim=-1))
    det, square = torch.zeros_like(v[0]), torch.zeros_like(v[0])
    for j in range(k):
        pivot = A[j][j]
        det, square = det + pivot.log(), square + v[j].square() / pivot
        for i in range(j + 1, k):
            ratio = A[i][j] / pivot
            v[i] = v[i] - ratio * v[j]
            for m in range(j + 1, i + 1):
                A[i][m] = A[i][m] - ratio * A[m][j]
    return det, square


def _root(square: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Returns square roots, with zero gradient at zero."""
    near = square == 0
    return torch.where(near, 0.0, torch.where(near, 1.0, square).sqrt())
