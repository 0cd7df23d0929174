"""Systems too large to factorise, by iterations.

A matrix is a function here, that takes a block of columns. A factor, where there is room for one,
is exact and mostly faster (:mod:`matheron.linalg.cholesky`): it takes tens to hundreds of products
to gain the digits that it gives at once.
"""

from __future__ import annotations

__all__ = ["Apply", "Convergence", "conjugate_gradient"]

import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
"""A symmetric matrix: a block of columns with shape (n, c) in, another one out."""


@dataclass(frozen=True)
class Convergence:
    """How a solve by iterations went.

    Arguments:
        converged: Whether every column is within the tolerance.
        iterations: The number of steps of the slowest column.
        residual: The largest residual of a column, relative to its right-hand side.
    """

    converged: bool
    iterations: int
    residual: float


def conjugate_gradient(
    apply: Apply,
    b: Float[Tensor, "*n"],
    precondition: Apply | None = None,
    tolerance: float = 1e-8,
    steps: int = 5000,
    strict: bool = True,
    where: str = "conjugate_gradient",
) -> tuple[Float[Tensor, "*n"], Convergence]:
    r"""Return the solution of A x = b, for one column or many, and how it went.

    Columns are solved side by side, each with its own steps: those that have converged leave the
    block, so that the answer for one does not depend on the others.

    References:
        | Iterative Methods for Sparse Linear Systems (Saad, 2003)
        | https://doi.org/10.1137/1.9780898718003

    Arguments:
        apply: The product with A, symmetric and positive definite.
        b: The right-hand sides, with shape (n) or (n, c).
        precondition: The product with an approximation of the inverse of A.
        tolerance: The norm of the residual to reach, relative to that of the right-hand side.
        steps: The largest number of steps.
        strict: Whether to raise where the tolerance is not reached.
        where: The name of the caller, for the message.

    Raises:
        ValueError: If a column has not converged and ``strict``, or if A is not positive definite.

    Example:
        >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> x, info = conjugate_gradient(lambda v: A @ v, A @ torch.ones(2).double())
        >>> x.round(decimals=9).tolist(), info.iterations
        ([1.0, 1.0], 2)
    """
    block = b.reshape(len(b), -1)
    state = _Block(apply, precondition, block, tolerance, where)
    for _ in range(steps):
        if not state.active.numel():
            break
        state.step()
    residual = state.true_residual()
    done = not state.active.numel()
    info = Convergence(done, state.iterations, residual)
    if strict and not done:
        msg = (
            f"{where}: expected residuals under {tolerance:g} in {steps} steps, got "
            f"{residual:.3g}. Raise steps or tolerance, use a better preconditioner, or a sparse "
            "factor if memory allows."
        )
        raise ValueError(msg)
    return state.x.reshape(b.shape), info


class _Block:
    """The state of conjugate gradients for a block of columns."""

    def __init__(
        self,
        apply: Apply,
        precondition: Apply | None,
        b: Float[Tensor, "n c"],
        tolerance: float,
        where: str,
    ) -> None:
        self.apply, self.b, self.where = apply, b, where
        self.precondition = precondition or (lambda r: r)
        self.x = torch.zeros_like(b)
        self.norm = b.norm(dim=0)
        self.goal = tolerance * self.norm
        self.active = torch.nonzero(self.norm > 0)[:, 0]
        self.r = b[:, self.active]
        self.z = self.precondition(self.r)
        self.p = self.z
        self.rho = (self.r * self.z).sum(dim=0)
        self.iterations = 0

    def step(self) -> None:
        Ap = self.apply(self.p)
        curvature = (self.p * Ap).sum(dim=0)
        if not (curvature > 0).all():
            msg = (
                f"{self.where}: expected a positive definite matrix and preconditioner, got a "
                f"curvature of {curvature.min():.3g}. Check the parameters of the prior."
            )
            raise ValueError(msg)
        alpha = self.rho / curvature
        self.x[:, self.active] += alpha * self.p
        self.r = self.r - alpha * Ap
        self.iterations += 1
        self._drop()
        self.z = self.precondition(self.r)
        rho = (self.r * self.z).sum(dim=0)
        self.p = self.z + rho / self.rho * self.p
        self.rho = rho

    def _drop(self) -> None:
        """Let the columns leave that have converged."""
        left = self.r.norm(dim=0) > self.goal[self.active]
        if not left.all():
            self.active, self.rho = self.active[left], self.rho[left]
            self.r, self.p = self.r[:, left], self.p[:, left]

    def true_residual(self) -> float:
        """Return the largest relative residual, computed afresh."""
        if not self.x.numel():
            return 0.0
        r = (self.b - self.apply(self.x)).norm(dim=0)
        return float((r / self.norm.clamp(min=torch.finfo(r.dtype).tiny)).max())
