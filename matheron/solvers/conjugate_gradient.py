r"""Conditioning of Gaussian Markov fields too large for a factor, by iterations."""

from __future__ import annotations

__all__ = ["ConjugateGradient"]

import torch

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver, check_linear, frozen
from .effects import EffectsConditional
from .sight import noise_weights, sight
from ..linalg.krylov import Convergence, conjugate_gradient
from ..linalg.lanczos import Estimate, estimate_of, probes_of, quadrature, square_root
from ..linalg.preconditioners import IncompleteCholesky, Jacobi, Preconditioner
from ..linalg.sparse import Sparse
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.markov import MarkovPrior

PRECONDITIONERS: dict[str, Callable[[Sparse], Preconditioner]] = {
    "incomplete": IncompleteCholesky,
    "jacobi": Jacobi,
}
NUMBERS = 20_000_000
"""Numbers of a block of columns."""
ROOT_TOLERANCE = 1e-6
"""The relative error of a draw of the prior, far under what any number of draws can tell."""


class _Iterative(EffectsConditional):
    prior: MarkovPrior

    def __init__(
        self, prior: MarkovPrior, observation: LinearObservation, solver: ConjugateGradient
    ) -> None:
        super().__init__(prior, observation)
        self.solver = solver
        self.E = prior.embedding(prior.domain.points)
        self.G = sight(prior, observation)
        self.W = noise_weights(observation, "ConjugateGradient")
        self.before = prior.precision()
        self.after = self.before + self.G.T.product(self.W.product(self.G))
        make = PRECONDITIONERS[solver.preconditioner]
        self.precondition = make(self.after)
        self.precondition_before = make(self.before)
        self.solves: list[Convergence] = []

    def _solve(self, b: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        return torch.cat([self._solve_block(part) for part in b.split(self._width, dim=1)], dim=1)

    def _solve_block(self, b: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        x, info = conjugate_gradient(
            self.after.__matmul__,
            b.contiguous(),
            self.precondition,
            self.solver.tolerance,
            self.solver.steps,
            self.solver.strict,
            where="ConjugateGradient",
        )
        self.solves.append(info)
        return x

    @property
    def _width(self) -> int:
        return max(1, NUMBERS // self.after.shape[0])

    def _normal(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "N c"]:
        return self.G.T @ (self.W @ columns)

    @cached_property
    def _log_determinant(self) -> Estimate:
        r"""The estimate of :math:`\log |Q_{post}| - \log |Q|`, by the same draws for both."""
        N, generator = self.after.shape[0], torch.Generator().manual_seed(self.solver.seed)
        z = probes_of(N, self.solver.probes, generator)
        pairs = ((self.after, self.precondition), (self.before, self.precondition_before))
        terms, known = [], []
        for Q, M in pairs:
            white = M.whiten(Q.__matmul__)
            blocks = z.split(self._width, dim=1)
            parts = [quadrature(white, b, self.solver.lanczos) for b in blocks]
            terms.append(torch.cat(parts, dim=1))
            known.append(M.log_determinant)
        found = estimate_of(terms[0] - terms[1], exact=self.solver.probes >= N)
        return replace(found, value=found.value + known[0] - known[1])

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        # the determinant takes hundreds of products, and only the evidence asks for it
        b = self._normal(columns)
        gram = columns.mT @ (self.W @ columns) - b.mT @ self._solve(b)
        return torch.tensor(torch.nan, dtype=torch.float64), gram

    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        return self.E @ self._solve(self._normal(columns))

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        blocks = torch.arange(size).split(self._width)
        return torch.cat([self._draw(len(i), generator) for i in blocks])

    def _draw(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        r"""Draws by perturbing the right-hand side: its covariance is the matrix."""
        M = self.precondition_before
        z = torch.randn(size, self.before.shape[0], dtype=torch.float64, generator=generator)
        root = square_root(
            M.whiten(self.before.__matmul__),
            z.mT.contiguous(),
            ROOT_TOLERANCE,
            self.solver.steps,
            where="ConjugateGradient",
        )
        e = self.observation.white_noise((size,), generator)
        return (self.E @ self._solve(M.multiply(root) + self._normal(e.mT.contiguous()))).mT

    @property
    def _exact(self) -> bool:
        return self.E.shape[0] <= self.solver.draws

    def field_variance(self) -> Float[Tensor, " n"]:
        if self._exact:
            return self.field_covariance().diagonal()
        generator = torch.Generator().manual_seed(self.solver.seed)
        total = torch.zeros(self.E.shape[0], dtype=torch.float64)
        for i in torch.arange(self.solver.draws).split(self._width):
            total += self._draw(len(i), generator).square().sum(dim=0)
        return total / self.solver.draws

    def field_covariance(self) -> Float[Tensor, "n n"]:
        C = self.E @ self._solve(self.E.T.to_dense())
        return (C + C.mT) / 2

    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        found = self._log_determinant.value - self.observation.noise_log_precision()
        v = self.observation.select(y) - self.offset
        columns = torch.cat([v[:, None], self.effects.columns], dim=-1)
        return self.effects.log_likelihood(found, self.whiten(columns)[1], self.m)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        if not self.solves:
            self.estimate(y)
        return {
            "preconditioner": self.solver.preconditioner,
            "converged": all(s.converged for s in self.solves),
            "iterations": max(s.iterations for s in self.solves),
            "residual": max(s.residual for s in self.solves),
            "std": "exact" if self._exact else f"from {self.solver.draws} draws",
            **self._evidence_errors(),
        }

    def _evidence_errors(self) -> dict[str, float]:
        r"""Returns the errors of the evidence, once it has been asked for."""
        if "_log_determinant" not in self.__dict__:
            return {}
        found = self._log_determinant
        return {
            "log_evidence_standard_error": found.standard_error.item() / 2,
            "log_evidence_truncation": found.truncation.item() / 2,
        }


class ConjugateGradient(Solver[MarkovPrior]):
    r"""Conditioning of a Markov field by conjugate gradients, without any factor.

    .. math:: (Q + G^\top R^{-1} G) \, u = G^\top R^{-1} (y - \mu)

    Memory is of a few blocks of columns, so that it goes on where :class:`SparseCholesky`, which
    is exact and faster, finds no room. The mean is good to ``tolerance``. Members perturb the
    right-hand side by a draw with the covariance of the matrix. The std is exact where the
    domain has at most ``draws`` nodes; elsewhere it comes from draws, with a relative error of
    :math:`1 / \sqrt{2 \, \mathrm{draws}}`. The evidence is an estimate by stochastic Lanczos
    quadrature, whose errors are in ``info``: the standard error of its draws, and how far it is
    from half as many products. That is enough to compare models, not to fit one.

    References:
        | Sampling high-dimensional Gaussian distributions for general linear inverse problems
          (Orieux et al., 2012)
        | https://doi.org/10.1109/LSP.2012.2189104
        | Preconditioned Krylov subspace methods for sampling (Chow and Saad, 2014)
        | https://doi.org/10.1137/130920587

    Arguments:
        tolerance: The norm of the residual to reach, relative to that of the right-hand side.
        steps: The largest number of steps of a solve.
        preconditioner: ``"incomplete"``, a Cholesky factor without fill, or ``"jacobi"``.
        draws: The number of draws for the std of a domain of more nodes.
        probes: The number of draws for the evidence; with fewer nodes there is nothing to draw.
        lanczos: The number of products for each of them.
        seed: The seed of the draws for the std and the evidence.
        strict: Whether to raise where the tolerance is not reached.

    Raises:
        ValueError: If the preconditioner is unknown, if a datum has no noise, or if a solve does
            not converge and ``strict``.

    Example:
        >>> import matheron as mt
        >>> from matheron.priors.spde import WhittleMatern
        >>> grid = mt.Grid(x=torch.arange(40.0))
        >>> prior = WhittleMatern(grid, lengthscale=8.0)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[20.0]), noise_std=0.1)
        >>> posterior = ConjugateGradient()(prior, seen)(torch.ones(1, dtype=torch.float64))
        >>> posterior.mean.argmax().item(), posterior.info["converged"]
        (20, True)
    """

    requires: ClassVar = MarkovPrior

    def __init__(
        self,
        tolerance: float = 1e-8,
        steps: int = 5000,
        preconditioner: str = "incomplete",
        draws: int = 256,
        probes: int = 32,
        lanczos: int = 100,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        super().__init__()
        if preconditioner not in PRECONDITIONERS:
            msg = (
                f"ConjugateGradient(preconditioner=...): expected one of "
                f"{', '.join(PRECONDITIONERS)}, got {preconditioner!r}. Use 'incomplete'."
            )
            raise ValueError(msg)
        if not (0 < tolerance < 1 and steps > 0 and draws > 1 and probes > 1 and lanczos > 1):
            msg = (
                f"ConjugateGradient(...): expected a tolerance under 1 and counts above 1, got "
                f"{(tolerance, steps, draws, probes, lanczos)}. See the defaults."
            )
            raise ValueError(msg)
        self.tolerance, self.steps, self.preconditioner = tolerance, steps, preconditioner
        self.draws, self.probes, self.lanczos = draws, probes, lanczos
        self.seed, self.strict = seed, strict

    @torch.no_grad()
    def prepare(self, prior: MarkovPrior, observation: Observation) -> GaussianConditional:
        linear = frozen(check_linear(self, observation))
        return _Iterative(frozen(prior), linear, self)
