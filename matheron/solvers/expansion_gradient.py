r"""Conditioning of expansions in many functions, by conjugate gradients on the coefficients."""

from __future__ import annotations

__all__ = ["ExpansionGradient"]

import torch

from dataclasses import replace
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver, check_linear, frozen
from .effects import EffectsConditional
from ..linalg.krylov import Apply, Convergence, conjugate_gradient
from ..linalg.lanczos import Estimate, estimate_of, probes_of, quadrature
from ..linalg.packets import Packets
from ..linalg.preconditioners import Preconditioner
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.expansion import ExpansionPrior

WHERE = "ExpansionGradient"
NUMBERS = 20_000_000
"""Numbers of a block of columns."""


class _Whitened(EffectsConditional):
    r"""The law of the coefficients in units of their std, :math:`u = D^{1/2} z`."""

    prior: ExpansionPrior

    def __init__(
        self, prior: ExpansionPrior, observation: LinearObservation, solver: ExpansionGradient
    ) -> None:
        super().__init__(prior, observation)
        self.solver = solver
        self.root = prior.coefficient_variance().sqrt()[:, None]
        self.G = prior.basis(observation.points)
        self.E = prior.basis(prior.domain.points)
        self.weight = 1 / _noise(observation)
        self.precondition = _Coarse(self.G, self.root[:, 0], self.weight, solver.coarse)
        self.solves: list[Convergence] = []

    def _apply(self, z: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        seen = self.G @ (self.root * z)
        return z + self.root * self.G.adjoint(self.weight[:, None] * seen)

    def _normal(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "N c"]:
        return self.root * self.G.adjoint(self.weight[:, None] * columns)

    @property
    def _width(self) -> int:
        return max(1, NUMBERS // self.G.shape[1])

    def _solve(self, b: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        return torch.cat([self._solve_block(part) for part in b.split(self._width, dim=1)], dim=1)

    def _solve_block(self, b: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        s = self.solver
        goal = (s.tolerance, s.steps, s.strict)
        z, info = conjugate_gradient(
            self._apply, b.contiguous(), self.precondition, *goal, where=WHERE
        )
        self.solves.append(info)
        return z

    def _field(self, z: Float[Tensor, "N c"]) -> Float[Tensor, "n c"]:
        return self.E @ (self.root * z)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        b = self._normal(columns)
        gram = columns.mT @ (self.weight[:, None] * columns) - b.mT @ self._solve(b)
        return torch.tensor(torch.nan, dtype=torch.float64), gram

    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        return self._field(self._solve(self._normal(columns)))

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        blocks = torch.arange(size).split(self._width)
        return torch.cat([self._draw(len(i), generator) for i in blocks])

    def _draw(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        r"""Draws by perturbing the right-hand side: its covariance is the matrix."""
        shape = (size, self.G.shape[1])
        z = torch.randn(*shape, dtype=torch.float64, generator=generator)
        e = self.observation.white_noise((size,), generator).mT.contiguous()
        return self._field(self._solve(z.mT + self._normal(e))).mT

    @property
    def _exact(self) -> bool:
        return len(self.prior.domain) <= self.solver.draws

    @cached_property
    def _variance(self) -> Float[Tensor, " n"]:
        if self._exact:
            return self.field_covariance().diagonal()
        generator = torch.Generator().manual_seed(self.solver.seed)
        total = torch.zeros(len(self.prior.domain), dtype=torch.float64)
        for i in torch.arange(self.solver.draws).split(self._width):
            total += self._draw(len(i), generator).square().sum(dim=0)
        return total / self.solver.draws

    def field_variance(self) -> Float[Tensor, " n"]:
        return self._variance

    def field_covariance(self) -> Float[Tensor, "n n"]:
        eye = torch.eye(len(self.prior.domain), dtype=torch.float64)
        C = self._field(self._solve(self.root * self.E.adjoint(eye)))
        return (C + C.mT) / 2

    @cached_property
    def _log_determinant(self) -> Estimate:
        r"""The estimate of the determinant of the matrix, by draws of signs."""
        generator = torch.Generator().manual_seed(self.solver.seed)
        N, white = self.G.shape[1], self.precondition.whiten(self._apply)
        blocks = probes_of(N, self.solver.probes, generator).split(self._width, dim=1)
        terms = torch.cat([quadrature(white, z, self.solver.lanczos) for z in blocks], dim=1)
        found = estimate_of(terms, exact=self.solver.probes >= N)
        return replace(found, value=found.value + self.precondition.log_determinant)

    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        found = self._log_determinant.value - self.observation.noise_log_precision()
        v = self.observation.select(y) - self.offset
        columns = torch.cat([v[:, None], self.effects.columns], dim=-1)
        return self.effects.log_likelihood(found, self.whiten(columns)[1], self.m)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        if not self.solves:
            self.estimate(y)
        return {
            "coefficients": self.G.shape[1],
            "dense": self.precondition.dense,
            "converged": all(s.converged for s in self.solves),
            "iterations": max(s.iterations for s in self.solves),
            "residual": max(s.residual for s in self.solves),
            "std": "exact" if self._exact else f"from {self.solver.draws} draws",
        }


class _Coarse(Preconditioner):
    r"""A factor of :math:`I + D^{1/2} G^\top R^{-1} G D^{1/2}`, nearly.

    The longest waves, which are few, are what data tell most of, and they tell it of all of them
    together: their block is factorised. For the others there is a block per window.
    """

    def __init__(
        self, G: Packets, root: Float[Tensor, " N"], weight: Float[Tensor, " m"], coarse: int
    ) -> None:
        ends = G.starts[-1] - G.starts[:-1]  # packets from each scale to the last
        first = int((ends > coarse).sum())
        self.start = int(G.starts[first])
        self.dense = int(G.starts[-1]) - self.start
        self.roots: list[Tensor] = []
        self.long = torch.eye(0, dtype=torch.float64)
        parts = root.split([s.count for s in G.scales])
        if first:
            blocks = Packets(G.scales[:first]).blocks(weight)
            self.roots = [_root(B, d) for B, d in zip(blocks, parts, strict=False)]
        if self.dense:
            B = Packets(G.scales[first:]).gram(weight)[None]
            self.long = _root(B, root[self.start :])[0]
        eye = [torch.eye(L.shape[-1], dtype=torch.float64) for L in self.roots]
        self.inverses = [_lower_solve(L, e) for L, e in zip(self.roots, eye, strict=True)]

    def forward_solve(self, r: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        return self._each(self.inverses, r, lambda v: _lower_solve(self.long, v))

    def backward_solve(self, r: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        upper = lambda v: torch.linalg.solve_triangular(self.long.mT, v, upper=True)
        return self._each([V.mT for V in self.inverses], r, upper)

    def multiply(self, z: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        return self._each(self.roots, z, lambda v: self.long @ v)

    def _each(
        self, blocks: list[Tensor], r: Float[Tensor, "N c"], long: Apply
    ) -> Float[Tensor, "N c"]:
        out, at = [], 0
        for V in blocks:
            size = V.shape[0] * V.shape[1]
            part = r[at : at + size].reshape(*V.shape[:2], -1)
            out.append((V @ part).reshape(size, -1))
            at += size
        return torch.cat([*out, long(r[at:])])

    @property
    def log_determinant(self) -> Float[Tensor, ""]:
        pivots = [L.diagonal(dim1=-2, dim2=-1).flatten() for L in [*self.roots, self.long]]
        return 2 * torch.cat(pivots).log().sum()


def _root(B: Float[Tensor, "w a a"], root: Float[Tensor, " N"]) -> Float[Tensor, "w a a"]:
    r"""Returns the factor of :math:`I + D^{1/2} B D^{1/2}`, in the memory of B."""
    d = root.reshape(B.shape[:2])
    eye = torch.eye(B.shape[-1], dtype=torch.float64)
    return torch.linalg.cholesky(B.mul_(d[:, :, None]).mul_(d[:, None]).add_(eye))


def _lower_solve(L: Float[Tensor, "*w a a"], r: Float[Tensor, "a c"]) -> Float[Tensor, "*w a c"]:
    return torch.linalg.solve_triangular(L, r, upper=False)


def _noise(observation: LinearObservation) -> Float[Tensor, " m"]:
    r"""Returns the variances of the noise, checked."""
    if not observation.pointwise:
        msg = (
            f"{WHERE}(observation=...): expected data at points, got "
            f"{type(observation).__name__}. Use SparseCholesky()."
        )
        raise TypeError(msg)
    R = observation.noise_variance
    if not (R > 0).all():
        msg = (
            f"{WHERE}(observation=...): expected noise_std > 0 for every datum, got 0. "
            "Give a small one, e.g. 1e-3 of the std of the field."
        )
        raise ValueError(msg)
    return R


class ExpansionGradient(Solver[ExpansionPrior]):
    r"""Conditioning of an expansion by conjugate gradients on its coefficients.

    .. math:: (I + D^{1/2} G^\top R^{-1} G D^{1/2}) \, z = D^{1/2} G^\top R^{-1} (y - \mu),
        \qquad x = \mu + E D^{1/2} z

    No matrix is stored but a block of the longest waves, whose factor makes the steps few: tens
    to hundreds. It is for tens of thousands of data and coefficients, where neither
    :class:`Kriging` nor :class:`SparseCholesky` finds room. The mean is good to ``tolerance``;
    members are exact draws, by perturbation of the right-hand side, to that tolerance. The std is
    exact where the domain has at most ``draws`` nodes; elsewhere it comes from draws, with a
    relative error of :math:`1 / \sqrt{2 \, \mathrm{draws}}`. The evidence is an estimate by
    stochastic Lanczos quadrature, to compare models with, not to fit one.

    References:
        | Sampling high-dimensional Gaussian distributions for general linear inverse problems
          (Orieux et al., 2012)
        | https://doi.org/10.1109/LSP.2012.2189104

    Arguments:
        tolerance: The norm of the residual to reach, relative to that of the right-hand side.
        steps: The largest number of steps of a solve.
        coarse: The largest number of coefficients of the block that is factorised.
        draws: The number of draws for the std of a domain of more nodes.
        probes: The number of draws for the evidence; with fewer coefficients there is nothing to
            draw.
        lanczos: The number of products for each of them.
        seed: The seed of the draws for the std and the evidence.
        strict: Whether to raise where the tolerance is not reached.

    Raises:
        ValueError: If a datum has no noise, or if a solve does not converge and ``strict``.
        TypeError: If data are not at points.

    Example:
        >>> import matheron as mt
        >>> from matheron.priors.wave_packets import WavePackets
        >>> grid = mt.Grid(y=torch.arange(5.0), x=torch.arange(5.0))
        >>> prior = WavePackets(grid, wavelengths=(2.0, 6.0), turning=4.0)
        >>> seen = mt.PointObservation(grid, mt.Points(y=[2.0], x=[2.0]), noise_std=0.1)
        >>> posterior = ExpansionGradient()(prior, seen)(torch.ones(1, dtype=torch.float64))
        >>> posterior.mean.argmax().item(), posterior.info["converged"]
        (12, True)
    """

    requires: ClassVar = ExpansionPrior

    def __init__(
        self,
        tolerance: float = 1e-6,
        steps: int = 2000,
        coarse: int = 4000,
        draws: int = 64,
        probes: int = 16,
        lanczos: int = 60,
        seed: int = 0,
        strict: bool = True,
    ) -> None:
        super().__init__()
        if not (0 < tolerance < 1 and steps > 0 and coarse >= 0):
            msg = (
                f"{WHERE}(...): expected a tolerance under 1 and positive counts, got "
                f"{(tolerance, steps, coarse)}. See the defaults."
            )
            raise ValueError(msg)
        if min(draws, probes, lanczos) < 2:
            msg = (
                f"{WHERE}(draws=..., probes=..., lanczos=...): expected at least 2 of each, got "
                f"{(draws, probes, lanczos)}. See the defaults."
            )
            raise ValueError(msg)
        self.tolerance, self.steps, self.coarse = tolerance, steps, coarse
        self.probes, self.lanczos = probes, lanczos
        self.draws, self.seed, self.strict = draws, seed, strict

    @torch.no_grad()
    def prepare(self, prior: ExpansionPrior, observation: Observation) -> GaussianConditional:
        linear = frozen(check_linear(self, observation))
        return _Whitened(frozen(prior), linear, self)
