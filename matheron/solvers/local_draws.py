r"""Joint draws of a field at many sites, without the dense covariance where they are many."""

from __future__ import annotations

__all__ = ["draw"]

import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from ..kernels import Kernel
from ..linalg.dense import square_root
from ..linalg.gaussian import FourierSeries, Parts, gaussian_parts
from ..linalg.lattice import Lattice
from ..linalg.places import distinct_places
from ..linalg.vecchia import (
    maxmin_order,
    predict_weights,
    propagate,
    target_neighbors,
    torch_engine,
)

DENSE = 3000
"""The sites up to which a draw is by the root of their covariance."""
COEFFICIENTS = 2_000_000
"""The coefficients up to which a draw is a Fourier series."""
PRODUCTS = 2e11
"""The products of a draw up to which a Fourier series is summed at scattered sites."""
NEIGHBORS = 40
"""The sites from which a site is drawn, where neither is within reach."""


@torch.no_grad()
def draw(
    kernel: Kernel, sites: Sequence[Float[Tensor, "_ k"]], size: int, generator: Generator | None
) -> list[Float[Tensor, "size _"]]:
    r"""Draws one field of mean zero at several sets of sites, with shape ``(size, n)`` for each.

    By a root of the dense covariance up to 3000 sites. Beyond, by a Fourier series where the
    covariance is Gaussian, exact to 1e-11 of the variance; else one site after another, each from
    40 earlier ones, as Vecchia does.

    Example:
        >>> from matheron.kernels import Gaussian
        >>> a, b = torch.zeros(2, 1).double(), torch.ones(1, 1).double()
        >>> x, y = draw(Gaussian(), [a, b], 5, torch.Generator().manual_seed(0))
        >>> x.shape, y.shape, bool((x[:, 0] - x[:, 1]).abs().max() < 1e-6)
        (torch.Size([5, 2]), torch.Size([5, 1]), True)
    """
    x, counts = torch.cat(list(sites)), [len(s) for s in sites]
    if len(x) <= DENSE:
        root = square_root(kernel(x, x), where="LocalKriging.sample")
        z = torch.randn(size, root.shape[1], dtype=root.dtype, generator=generator)
        return list((z @ root.mT).split(counts, dim=-1))
    parts = gaussian_parts(kernel.terms(x))
    if parts is not None and _within_reach(parts, counts):
        return _by_series(parts, counts, size, generator)
    return list(_one_by_one(kernel, x, size, generator).split(counts, dim=-1))


def _scattered(columns: Float[Tensor, "n d"], counts: Sequence[int]) -> int:
    r"""Returns the number of sites that stand on no lattice."""
    return sum(len(c) for c in columns.split(list(counts)) if len(c) and Lattice.of(c) is None)


def _within_reach(parts: Parts, counts: Sequence[int]) -> bool:
    sizes = [FourierSeries(c).size for _, c in parts]
    work = sum(k * _scattered(c, counts) for k, (_, c) in zip(sizes, parts, strict=True))
    return max(sizes) <= COEFFICIENTS and work <= PRODUCTS


def _by_series(
    parts: Parts, counts: Sequence[int], size: int, generator: Generator | None
) -> list[Tensor]:
    found = [torch.zeros(size, n, dtype=torch.float64) for n in counts]
    for variance, columns in parts:
        series = FourierSeries(columns)
        z = series.coefficients(size, generator)
        for total, own in zip(found, columns.split(list(counts)), strict=True):
            lattice = Lattice.of(own) if len(own) else None
            x = series.at(own, z) if lattice is None else series.on_lattice(lattice, z)
            total += variance.sqrt() * x
    return found


def _one_by_one(
    kernel: Kernel, x: Float[Tensor, "n k"], size: int, generator: Generator | None
) -> Float[Tensor, "size n"]:
    near = kernel.neighborhood(x)
    place, first = distinct_places(near)
    order = first[maxmin_order(near[first], 0)]
    rank = torch.empty(len(x), dtype=torch.long)
    rank[order] = torch.arange(len(order))
    sites, noise = x[order], torch.zeros(len(order), dtype=torch.float64)
    metrics = [m[order] for m in kernel.neighborhoods(x)]
    neighbors = target_neighbors(metrics, NEIGHBORS, 1)
    composition = kernel.terms(sites)
    if composition is None:
        weights, spread = torch_engine.predict_weights(kernel, sites, noise, neighbors, 1)
    else:
        weights, spread = predict_weights(composition, noise, neighbors, 1)
    z = torch.zeros(len(order), size, dtype=torch.float64)
    e = torch.randn(len(order), size, dtype=torch.float64, generator=generator)
    z[0] = e[0] * kernel.diagonal(sites[:1]).sqrt()
    propagate(weights, spread, neighbors, 1, z, e[1:])
    return z[rank[first[place]]].mT.contiguous()
