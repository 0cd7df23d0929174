r"""What a covariance function is, and how covariance functions combine."""

from __future__ import annotations

__all__ = ["Kernel", "Product", "Scaled", "Sum", "positive"]

import abc
import itertools
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor
from typing import cast

from ..described import Described
from ..linalg.composition import Composition, Term


def positive(where: str, name: str, value: float | Sequence[float] | Tensor) -> Tensor:
    r"""Returns a strictly positive float64 tensor, or says what is wrong with it."""
    v = torch.as_tensor(value, dtype=torch.float64)
    if v.numel() == 0 or not (v.isfinite().all() and (v > 0).all()):
        msg = f"{where}({name}=...): expected positive numbers, got {v.tolist()}. Check the units."
        raise ValueError(msg)
    return v.clone()


class Kernel(Described, nn.Module, abc.ABC):
    r"""A covariance function :math:`c(a, b)` of coordinates.

    Coordinates are Cartesian (see :meth:`matheron.domain.Points.cartesian`), so that a kernel
    which is positive definite in :math:`\mathbb{R}^k` is so on the sphere too.
    """

    @property
    def linear(self) -> bool:
        r"""Whether the coordinates of :meth:`terms` are a linear map of the sites."""
        return False

    @abc.abstractmethod
    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        r"""Returns the covariances :math:`c(a_i, b_j)`."""

    @abc.abstractmethod
    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        r"""Returns the variances :math:`c(a_i, a_i)`."""

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        r"""Returns the kernel as a sum of products of radial functions over the sites ``x``.

        This is the form that the compiled solvers take. ``None`` where there is none; solvers
        then call :meth:`forward` on small blocks.
        """
        return None

    def neighborhood(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n j"]:
        r"""Returns coordinates in which near means correlated, over all scales together.

        Each radial function is an ellipsoid; ellipsoids add up by their share of the variance.
        """
        composition = self.terms(x)
        if composition is None:
            return x / x.std(dim=0, correction=0).clamp(min=1e-12)
        total = sum(term.variance for term in composition)
        parts = [
            (term.variance / total).sqrt() * factor.coords
            for term in composition
            for factor in term.factors
        ]
        return compress(torch.cat(parts, dim=-1).detach())

    def neighborhoods(self, x: Float[Tensor, "n k"]) -> list[Float[Tensor, "n j"]]:
        r"""Returns such coordinates for each scale of the kernel, those of large variance first.

        A scale with less than a thousandth of the variance has no say.
        """
        composition = self.terms(x)
        if composition is None or len(composition) == 1:
            return [self.neighborhood(x)]
        total = sum(term.variance.item() for term in composition)
        parts = [t for t in composition if t.variance.item() > 1e-3 * total]
        parts.sort(key=lambda term: -term.variance.item())
        return [compress(torch.cat([f.coords for f in t.factors], -1).detach()) for t in parts]

    def __add__(self, other: Kernel) -> Sum:
        return Sum(self, other)

    def __mul__(self, other: Kernel | float) -> Kernel:
        return Product(self, other) if isinstance(other, Kernel) else Scaled(self, other)

    __rmul__ = __mul__


def compress(x: Float[Tensor, "n j"]) -> Float[Tensor, "n i"]:
    r"""Returns coordinates with the same distances in as few dimensions as they need."""
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - mean).mT @ (x - mean))
    keep = values > 1e-12 * values[-1].clamp(min=1e-300)
    return ((x - mean) @ vectors[:, keep]).contiguous() if keep.any() else x[:, :1].contiguous()


class Sum(Kernel):
    r"""The sum of kernels: nested scales.

    Example:
        >>> from matheron.kernels import Matern
        >>> kernel = Matern(0.5, variance=1.0) + Matern(1.5, variance=2.0)
        >>> kernel.diagonal(torch.zeros(2, 1))
        tensor([3., 3.], dtype=torch.float64, grad_fn=<AddBackward0>)
    """

    parts: Sequence[Kernel]

    def __init__(self, *parts: Kernel) -> None:
        super().__init__()
        flat = [p.parts if isinstance(p, Sum) else [p] for p in parts]
        self.parts = cast(Sequence[Kernel], nn.ModuleList(itertools.chain.from_iterable(flat)))

    @property
    def linear(self) -> bool:
        return all(part.linear for part in self.parts)

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        total = self.parts[0](a, b)
        for part in self.parts[1:]:
            total = total + part(a, b)
        return total

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        total = self.parts[0].diagonal(a)
        for part in self.parts[1:]:
            total = total + part.diagonal(a)
        return total

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        every = [part.terms(x) for part in self.parts]
        known = [terms for terms in every if terms is not None]
        return tuple(itertools.chain.from_iterable(known)) if len(known) == len(every) else None


class Product(Kernel):
    r"""The product of kernels, e.g. separable space and time.

    Example:
        >>> from matheron.kernels import Matern, Periodic
        >>> kernel = Matern(1.5, lengthscale=10.0) * Periodic(period=1.0)
        >>> kernel(torch.zeros(1, 1), torch.ones(1, 1)).item() < 1
        True
    """

    parts: Sequence[Kernel]

    def __init__(self, *parts: Kernel) -> None:
        super().__init__()
        self.parts = cast(Sequence[Kernel], nn.ModuleList(parts))

    @property
    def linear(self) -> bool:
        return all(part.linear for part in self.parts)

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        product = self.parts[0](a, b)
        for part in self.parts[1:]:
            product = product * part(a, b)
        return product

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        product = self.parts[0].diagonal(a)
        for part in self.parts[1:]:
            product = product * part.diagonal(a)
        return product

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        every = [part.terms(x) for part in self.parts]
        known = [terms for terms in every if terms is not None]
        if len(known) < len(every):
            return None
        return tuple(_multiply(combination) for combination in itertools.product(*known))


def _multiply(terms: Sequence[Term]) -> Term:
    variance = terms[0].variance
    for term in terms[1:]:
        variance = variance * term.variance
    return Term(variance, tuple(factor for term in terms for factor in term.factors))


class Scaled(Kernel):
    r"""A kernel times a positive constant, which is not learned.

    Example:
        >>> from matheron.kernels import Matern
        >>> (2.0 * Matern(0.5)).diagonal(torch.zeros(1, 1)).item()
        2.0
    """

    scale: Tensor

    def __init__(self, kernel: Kernel, scale: float) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("scale", positive("Scaled", "scale", scale))

    @property
    def linear(self) -> bool:
        return self.kernel.linear

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        return self.scale * self.kernel(a, b)

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        return self.scale * self.kernel.diagonal(a)

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        terms = self.kernel.terms(x)
        return terms and tuple(Term(self.scale * t.variance, t.factors) for t in terms)
