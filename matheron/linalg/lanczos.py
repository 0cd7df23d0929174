"""Determinants and roots of matrices too large to factorise, by Lanczos and random signs."""

from __future__ import annotations

__all__ = [
    "Estimate",
    "estimate_of",
    "log_determinant",
    "probes_of",
    "quadrature",
    "square_root",
    "stochastic_log_determinant",
]

import math
import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .krylov import Apply, conjugate_gradient
from .preconditioners import Preconditioner
from .sparse import Sparse, outer_entries

CHECK = 20
"""Steps between two looks at what is left out."""


@dataclass(frozen=True)
class Estimate:
    """A number known by draws.

    Arguments:
        value: The estimate.
        standard_error: Its standard error; 0 where there is nothing to draw.
        truncation: How far it is from that of half as many steps, which bounds what more steps
            would bring.
    """

    value: Float[Tensor, ""]
    standard_error: Float[Tensor, ""]
    truncation: Float[Tensor, ""]


def probes_of(n: int, size: int, generator: Generator | None = None) -> Float[Tensor, "n k"]:
    r"""Return random signs z with E[z z'] = I; the unit vectors, exact, where ``size`` allows.

    The columns are scaled so that the trace of A is the sum of z' A z over columns.
    """
    if size >= n:
        return torch.eye(n, dtype=torch.float64)
    signs = torch.randint(0, 2, (n, size), generator=generator)
    return (2.0 * signs.double() - 1.0) / math.sqrt(size)


def log_determinant(
    apply: Apply,
    n: int,
    probes: int = 32,
    steps: int = 100,
    generator: Generator | None = None,
) -> Estimate:
    r"""Return an estimate of :math:`\log |A|`, by stochastic Lanczos quadrature.

    .. math:: \log |A| = \mathrm{tr} \log A \approx \frac{1}{k} \sum_i z_i^\top \log(A) \, z_i

    with random signs :math:`z_i`; each term is a Gauss quadrature, from some steps of Lanczos.
    The standard error tells of the signs; look at the truncation for the steps. A should be well
    conditioned, so whiten it first (:meth:`Preconditioner.whiten`). If ``probes`` is at least n,
    nothing is drawn.

    References:
        | Fast estimation of tr(f(A)) via stochastic Lanczos quadrature (Ubaru et al., 2017)
        | https://doi.org/10.1137/16M1104974

    Arguments:
        apply: The product with A, symmetric and positive definite.
        n: The size of A.
        probes: The number of draws, at least two.
        steps: The number of products with A for each.
        generator: The random number generator of the signs.

    Raises:
        ValueError: If A is not positive definite.

    Example:
        >>> d = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        >>> found = log_determinant(lambda v: d[:, None] * v, 3)
        >>> round(found.value.exp().item(), 9), found.standard_error.item()
        (8.0, 0.0)
    """
    z = probes_of(n, probes, generator)
    return estimate_of(quadrature(apply, z, steps), exact=probes >= n)


def estimate_of(terms: Float[Tensor, "2 k"], exact: bool) -> Estimate:
    """Return the sum of some terms, and its errors, from their spread and from half the steps."""
    full, half = terms
    spread = full.new_tensor(0.0) if exact else full.std() * math.sqrt(len(full))
    return Estimate(full.sum(), spread, (full.sum() - half.sum()).abs())


def quadrature(apply: Apply, z: Float[Tensor, "n k"], steps: int) -> Float[Tensor, "2 k"]:
    r"""Return :math:`z^\top \log(A) z` for each column, from some steps of Lanczos, and half.

    Memory is of three blocks of columns: directions are not made orthogonal again, which repeats
    eigenvalues, with their weight shared among the copies.
    """
    diagonal, below = _lanczos(apply, z, steps)
    half = max(1, steps // 2)
    both = [
        _log_term(diagonal, below),
        _log_term(diagonal[:, :half], below[:, : half - 1]),
    ]
    return z.square().sum(dim=0) * torch.stack(both)


def _log_term(diagonal: Float[Tensor, "k s"], below: Float[Tensor, "k t"]) -> Float[Tensor, " k"]:
    """Return the first entries of the logarithms of some tridiagonal matrices."""
    eigenvalues, vectors = _eigen(diagonal, below)
    return (vectors[:, 0].square() * eigenvalues.log()).sum(dim=1)


class _Lanczos:
    """The directions of Lanczos from some starting columns, one at a time.

    A column that has seen its whole space goes on with zeros.
    """

    def __init__(self, apply: Apply, z: Float[Tensor, "n k"]) -> None:
        self.apply, self.q = apply, z / z.norm(dim=0)
        self.before = torch.zeros_like(z)
        self.b = self.scale = z.new_zeros(z.shape[1])
        self.over = torch.zeros(z.shape[1], dtype=torch.bool)

    def step(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Go on to the next direction; return the entries on and below the diagonal."""
        v = self.apply(self.q)
        a = (self.q * v).sum(dim=0)
        v = v - a * self.q - self.b * self.before
        self.scale, b = torch.maximum(self.scale, a.abs()), v.norm(dim=0)
        a = a.masked_fill(self.over, 1.0)
        self.over = self.over | (b <= 1e-12 * self.scale)
        self.b = b.masked_fill(self.over, 0.0)
        self.before, self.q = self.q, (v / b).masked_fill(self.over, 0.0)
        return a, self.b


def _lanczos(
    apply: Apply, z: Float[Tensor, "n k"], steps: int
) -> tuple[Float[Tensor, "k s"], Float[Tensor, "k t"]]:
    """Return the tridiagonal matrices of some columns: diagonals, and what is below.

    There may be more steps than unknowns: rounding makes some be needed twice.
    """
    lanczos = _Lanczos(apply, z)
    return _stacked([lanczos.step() for _ in range(steps)])


def _stacked(entries: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    diagonal, below = (torch.stack(part, dim=1) for part in zip(*entries, strict=True))
    return diagonal, below[:, :-1]


def _eigen(
    diagonal: Float[Tensor, "k s"], below: Float[Tensor, "k t"]
) -> tuple[Float[Tensor, "k s"], Float[Tensor, "k s s"]]:
    """Return the eigenvalues, checked to be positive, and vectors of tridiagonal matrices."""
    T = torch.diag_embed(diagonal) + torch.diag_embed(below, 1) + torch.diag_embed(below, -1)
    eigenvalues, vectors = torch.linalg.eigh(T)
    if not (eigenvalues > 0).all():
        msg = (
            f"Lanczos(apply=...): expected a positive definite matrix, got an eigenvalue near "
            f"{eigenvalues.min():.3g}. Check the parameters of the prior."
        )
        raise ValueError(msg)
    return eigenvalues, vectors


def square_root(
    apply: Apply,
    z: Float[Tensor, "n k"],
    tolerance: float = 1e-6,
    steps: int = 1000,
    where: str = "square_root",
) -> Float[Tensor, "n k"]:
    r"""Return :math:`A^{1/2} z` for each column, by Lanczos: draws with covariance A from noise.

    With :math:`V` the directions of Lanczos and :math:`T` their tridiagonal matrix, it is
    :math:`\|z\| V T^{1/2} e_1`. The directions are made a second time rather than kept, so that
    memory is of a few blocks of columns. Whiten A first: there are as many steps as for a solve.

    References:
        | Preconditioned Krylov subspace methods for sampling (Chow and Saad, 2014)
        | https://doi.org/10.1137/130920587

    Arguments:
        apply: The product with A, symmetric and positive definite.
        z: The columns.
        tolerance: The error, relative to the result.
        steps: The largest number of steps.
        where: The name of the caller, for the message.

    Raises:
        ValueError: If the last terms are above the tolerance, or if A is not positive definite.

    Example:
        >>> d = torch.tensor([[1.0], [4.0], [9.0]], dtype=torch.float64)
        >>> square_root(lambda v: d * v, torch.ones_like(d)).round(decimals=9).tolist()
        [[1.0], [2.0], [3.0]]
    """
    lanczos, entries = _Lanczos(apply, z), []
    for size in range(1, steps + 1):
        entries.append(lanczos.step())
        if size % CHECK == 0 or size == steps or lanczos.over.all():
            terms = _root_terms(*_stacked(entries)) * z.norm(dim=0)[:, None]
            # the last terms tell what is left out: they decrease at a steady rate
            tail = (terms[:, -(size // 5 + 1) :].norm(dim=1) / terms.norm(dim=1)).max()
            if tail <= tolerance or lanczos.over.all():
                return _combine(apply, z, terms)
    msg = (
        f"{where}: expected last terms under {tolerance:g} in {steps} steps, got {tail:.3g}. "
        "Raise steps or tolerance, or use a better preconditioner."
    )
    raise ValueError(msg)


def _root_terms(
    diagonal: Float[Tensor, "k s"], below: Float[Tensor, "k t"]
) -> Float[Tensor, "k s"]:
    """Return the first columns of the roots of some tridiagonal matrices."""
    w, V = _eigen(diagonal, below)
    return ((V * w.sqrt()[:, None]) @ V[:, 0, :, None])[..., 0]


def _combine(
    apply: Apply, z: Float[Tensor, "n k"], terms: Float[Tensor, "k s"]
) -> Float[Tensor, "n k"]:
    """Return the sum of the directions of Lanczos, made again, times some terms."""
    total, lanczos = torch.zeros_like(z), _Lanczos(apply, z)
    for term in terms.mT:
        total += lanczos.q * term
        lanczos.step()
    return total


def stochastic_log_determinant(
    A: Sparse,
    preconditioner: Preconditioner,
    probes: int = 32,
    steps: int = 100,
    tolerance: float = 1e-8,
    generator: Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Return an estimate of :math:`\log |A|` whose gradient is one of Hutchinson's.

    .. math:: \partial \log |A| = \mathrm{tr}(A^{-1} \partial A)
        \approx \frac{1}{k} \sum_i (A^{-1} z_i)^\top \partial A \, z_i

    Use it for a few numbers that the whole matrix shares, such as one variance or one
    lengthscale: their gradient is an average, good to a percent or so. Do not use it for a field
    of parameters: the gradient at one node is then drowned in noise, by a factor of thirty at 50
    draws, as the far entries of the inverse cancel only in the mean. A selected inverse
    (:meth:`matheron.linalg.cholesky.Cholesky.selected_inverse`) is exact and cheaper there.

    Arguments:
        A: The matrix, symmetric and positive definite.
        preconditioner: An approximation of A.
        probes: The number of draws.
        steps: The number of steps of Lanczos for each.
        tolerance: The tolerance of the solves for the gradient.
        generator: The random number generator of the signs.

    Example:
        >>> from matheron.linalg.preconditioners import Jacobi
        >>> A = Sparse.diag(torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True))
        >>> stochastic_log_determinant(A, Jacobi(A)).backward()
        >>> A.values.grad.tolist()
        [0.5, 0.3333333333333333]
    """
    z = probes_of(A.shape[0], probes, generator)
    fixed = A.detach()
    with torch.no_grad():
        terms = quadrature(preconditioner.whiten(fixed.__matmul__), z, steps)[0]
        value = terms.sum() + preconditioner.log_determinant
        x, _ = conjugate_gradient(fixed.__matmul__, z, preconditioner, tolerance)
    found: Tensor = _Gradient.apply(A.values, value, A, x, z)
    return found


class _Gradient(torch.autograd.Function):
    """A value, with the gradient of a trace of the inverse."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, value: Tensor, A: Sparse, x: Tensor, z: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, z)
        ctx.pattern = A.pattern
        return value.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, z = ctx.saved_tensors
        both = outer_entries(ctx.pattern, x, z) + outer_entries(ctx.pattern, z, x)
        return g * both / 2, None, None, None, None
