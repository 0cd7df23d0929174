r"""Gaussian covariances: their matrices by one product, their fields by Fourier series."""

from __future__ import annotations

__all__ = ["FourierSeries", "gaussian_matrix", "gaussian_parts"]

import math
import torch

from jaxtyping import Float
from torch import Generator, Tensor

from .composition import Composition
from .lattice import Lattice

HIGHEST = 7.5
"""The frequency, per lengthscale, beyond which a Gaussian spectrum is under 1e-12."""
MARGIN = 7.5
"""The lengthscales between a field and its next period: their correlation is under 1e-12."""
NUMBERS = 8_000_000
"""Numbers of a chunk."""

Parts = list[tuple[Float[Tensor, ""], Float[Tensor, "n d"]]]


def gaussian_parts(composition: Composition | None) -> Parts | None:
    r"""Returns variance and coordinates of each term, if all radial functions are Gaussian."""
    if composition is None:
        return None
    if any(f.radial != "gaussian" for term in composition for f in term.factors):
        return None
    return [(t.variance, torch.cat([f.coords for f in t.factors], -1)) for t in composition]


def gaussian_matrix(parts: Parts) -> Float[Tensor, "n n"]:
    r"""Returns :math:`\sum_t \sigma_t^2 \exp(-\|x_i - x_j\|^2 / 2)`.

    By :math:`x_i \cdot x_j - \|x_i\|^2 / 2 - \|x_j\|^2 / 2`, in place. Coordinates are taken about
    their mean, so that rounding is some 1e-16 of the squared width of the sites in lengthscales.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
        >>> gaussian_matrix([(torch.tensor(1.0).double(), x)])
        tensor([[1.0000, 0.1353],
                [0.1353, 1.0000]], dtype=torch.float64)
    """
    total: Tensor | None = None
    for variance, x in parts:
        x = x - x.mean(dim=0)
        half = x.square().sum(dim=-1) / 2
        K = x @ x.mT
        K.sub_(half[:, None]).sub_(half).clamp_(max=0.0).exp_().mul_(variance)
        total = K if total is None else total.add_(K)
    assert total is not None
    return total


class FourierSeries:
    r"""A stationary Gaussian field with a Gaussian covariance, drawn everywhere at once.

    .. math:: x(s) = \sum_{k \in \mathbb{Z}^d} \sqrt{S_k} \, z_k \, e^{i \omega_k \cdot s}

    over a period wider than the sites by 7.5 lengthscales. What the period and the highest
    frequency leave out is under 1e-11 of the variance, so that draws at the nodes of a lattice
    and at scattered data come from one field, whatever their number.

    Arguments:
        columns: The coordinates of all sites, in lengthscales, with shape :math:`(n, d)`.

    Example:
        >>> series = FourierSeries(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
        >>> series.size
        23
    """

    def __init__(self, columns: Float[Tensor, "n d"]) -> None:
        self.low = columns.amin(dim=0)
        self.period = (columns.amax(dim=0) - self.low + MARGIN).tolist()
        self.counts = [math.ceil(HIGHEST * p / (2 * math.pi)) for p in self.period]

    @property
    def size(self) -> int:
        r"""The number of coefficients of a draw."""
        return math.prod(2 * k + 1 for k in self.counts)

    def coefficients(self, size: int, generator: Generator | None) -> Float[Tensor, "size ..."]:
        r"""Draws the coefficients of fields of variance one."""
        shape = [2 * k + 1 for k in self.counts]
        return torch.randn(size, *shape, dtype=torch.float64, generator=generator)

    def _waves(self, s: Float[Tensor, " n"], axis: int) -> Float[Tensor, "n k"]:
        P, k = self.period[axis], torch.arange(1, self.counts[axis] + 1, dtype=torch.float64)
        omega = 2 * math.pi * k / P
        root = ((2 * math.pi) ** 0.5 / P) ** 0.5
        angle = (s - self.low[axis])[:, None] * omega
        weight = root * 2**0.5 * (-omega.square() / 4).exp()
        first = torch.full_like(s, root)[:, None]
        return torch.cat([first, angle.cos() * weight, angle.sin() * weight], dim=-1)

    def on_lattice(self, lattice: Lattice, z: Float[Tensor, "size ..."]) -> Tensor:
        r"""Returns the fields at the points of a lattice, with shape ``(size, n)``."""
        x = z
        for j, axis in enumerate(lattice.axes):
            x = torch.tensordot(x, self._waves(axis, j), dims=([1], [1]))
        return x.flatten(1)[:, lattice.index]

    def at(self, columns: Float[Tensor, "n d"], z: Float[Tensor, "size ..."]) -> Tensor:
        r"""Returns the fields at any points, with shape ``(size, n)``."""
        chunk = max(1, NUMBERS // max(1, z[0].numel() // z.shape[-1]))
        parts = [self._at(columns[i], z) for i in torch.arange(len(columns)).split(chunk)]
        return torch.cat(parts, dim=-1)

    def _at(self, columns: Float[Tensor, "n d"], z: Float[Tensor, "size ..."]) -> Tensor:
        waves = [self._waves(columns[:, j], j) for j in range(columns.shape[1])]
        found = []
        for each in z:
            x = (
                each.reshape(-1, each.shape[-1]) @ waves[-1].mT
            )  # the other frequencies, then the points
            for w in reversed(waves[:-1]):
                x = (x.unflatten(0, (-1, w.shape[1])) * w.mT).sum(dim=-2)
            found.append(x.flatten())
        return torch.stack(found)
