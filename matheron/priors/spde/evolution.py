r"""A Markov chain of fields, step by step: its precision, its determinant and its draws."""

from __future__ import annotations

__all__ = ["Evolution", "Noise", "Step"]

import itertools
import torch

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor

from ...linalg.cholesky import Cholesky
from ...linalg.sparse import Sparse

Factorise = Callable[[Sparse], Cholesky]


@dataclass(eq=False)
class Noise:
    r"""The noise of a step, :math:`r = C \tau \sqrt{\delta} \eta`.

    :math:`\eta` is white, or has the precision :math:`C (C^{-1} K)^c` for a color :math:`c`:
    none of them asks for a root of a matrix but that of a sparse factor.

    Arguments:
        operator: The symmetric operator :math:`K`.
        volume: The mass :math:`C`.
        tau: The amplitude :math:`\tau`.
        step: The length :math:`\delta` of the step.
        color: How many times :math:`K` colors the noise.
        factorise: What makes a factor.
    """

    operator: Sparse
    volume: Float[Tensor, " N"]
    tau: Float[Tensor, " N"]
    step: float
    color: int
    factorise: Factorise

    def field_precision(self) -> Sparse:
        r"""Returns the precision of :math:`\eta`."""
        return power(self.operator, self.volume, self.color)

    def precision(self) -> Sparse:
        r"""Returns the precision of :math:`r`."""
        return self._precision

    @cached_property
    def _precision(self) -> Sparse:
        w = 1 / (self.volume * self.tau * self.step**0.5)
        return self.field_precision().scale(rows=w, columns=w)

    @cached_property
    def factor(self) -> Cholesky:
        r"""The factor of :math:`K`."""
        return self.factorise(self.operator)

    def log_determinant(self) -> Float[Tensor, ""]:
        volumes = self.volume.log().sum()
        scales = (
            2 * (volumes + self.tau.log().sum())
            + len(self.tau) * torch.tensor(self.step, dtype=torch.float64).log()
        )
        if self.color == 0:
            return volumes - scales
        return self.color * self.factor.logdet() - (self.color - 1) * volumes - scales

    def sample(self, z: Float[Tensor, "N size"]) -> Float[Tensor, "N size"]:
        r"""Returns the noise made of white numbers."""
        volume = self.volume[:, None]
        e = self.factor.sqrt_solve(z) if self.color % 2 else z / volume.sqrt()
        for _ in range(self.color // 2):
            e = self.factor.solve(volume * e)
        return (self.volume * self.tau * self.step**0.5)[:, None] * e

    def whiten(self, r: Float[Tensor, "N size"]) -> Float[Tensor, "N size"]:
        r"""Returns the white numbers that the noise is made of."""
        volume = self.volume[:, None]
        e = r / (self.volume * self.tau * self.step**0.5)[:, None]
        for _ in range(self.color // 2):
            e = (self.operator @ e) / volume
        return self.factor.half_solve(self.operator @ e) if self.color % 2 else e * volume.sqrt()


@dataclass(eq=False)
class Step:
    r"""One step, :math:`M x_k = E x_{k-1} + r_k`.

    Arguments:
        ahead: The matrix :math:`M`.
        behind: The matrix :math:`E`.
        noise: The law of :math:`r_k`.
        symmetric: Whether :math:`M` is.
    """

    ahead: Sparse
    behind: Sparse
    noise: Noise
    symmetric: bool

    @cached_property
    def factor(self) -> Cholesky:
        r"""The factor of :math:`M`, or of :math:`M^\top C^{-1} M` if it is not symmetric."""
        return self.noise.factorise(self.ahead if self.symmetric else self._normal)

    @property
    def _normal(self) -> Sparse:
        return self.ahead.gram(1 / self.noise.volume)

    @cached_property
    def _adjoint(self) -> Sparse:
        return self.ahead.scale(rows=1 / self.noise.volume).T

    def solve(self, b: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        r"""Returns :math:`M^{-1} b`."""
        return self.factor.solve(b if self.symmetric else self._adjoint @ b)

    def advance(self, x: Float[Tensor, "N c"]) -> Float[Tensor, "N c"]:
        r"""Returns the next fields, without noise."""
        return self.solve(self.behind @ x)

    @cached_property
    def blocks(self) -> tuple[Sparse, Sparse, Sparse]:
        r"""What the step adds to the precision: before, across and after."""
        S = self.noise.precision()
        SM, SE = S.product(self.ahead), S.product(self.behind)
        before, after = self.behind.T.product(SE), self.ahead.T.product(SM)
        return before, -self.behind.T.product(SM), after

    @cached_property
    def log_determinant(self) -> Float[Tensor, ""]:
        r"""What the step adds to the log-determinant."""
        whole = self.factor.logdet()
        whole = 2 * whole if self.symmetric else whole + self.noise.volume.log().sum()
        return whole + self.noise.log_determinant()


class Evolution:
    r"""The chain :math:`x_0 \sim \mathcal{N}(0, Q_0^{-1})`, :math:`M_k x_k = E_k x_{k-1} + r_k`.

    With :math:`L` the block bidiagonal matrix of the :math:`M_k` and :math:`-E_k`, the precision
    :math:`L^\top S^{-1} L` is block tridiagonal and sparse.

    References:
        | Gaussian Markov Random Fields: Theory and Applications (Rue and Held, 2005)
        | https://doi.org/10.1201/9780203492024

    Arguments:
        initial: The precision :math:`Q_0`.
        steps: The steps; those that are alike may be one object, and share their factors.
        factorise: What makes a factor.
    """

    def __init__(self, initial: Sparse, steps: Sequence[Step], factorise: Factorise) -> None:
        self.initial, self.steps, self.factorise = initial, steps, factorise

    @cached_property
    def factor(self) -> Cholesky:
        r"""The factor of the initial precision."""
        return self.factorise(self.initial)

    def precision(self) -> Sparse:
        r"""Returns the precision of all the fields, one after the other."""
        if not self.steps:
            return self.initial
        blocks = [step.blocks for step in self.steps]
        inner = [a[2] + b[0] for a, b in itertools.pairwise(blocks)]
        diagonal = [self.initial + blocks[0][0], *inner, blocks[-1][2]]
        rows: list[list[Sparse | None]] = [[None] * len(diagonal) for _ in diagonal]
        for k, block in enumerate(diagonal):
            rows[k][k] = block
        for k, (_, across, _) in enumerate(blocks):
            rows[k][k + 1], rows[k + 1][k] = across, across.T
        return Sparse.block(rows)

    def log_determinant(self) -> Float[Tensor, ""]:
        r"""Returns that of the precision, from factors of one field each."""
        total = self.factor.logdet()
        for step, count in Counter(self.steps).items():
            total = total + count * step.log_determinant
        return total

    def quadratic(self, u: Float[Tensor, "all c"]) -> Float[Tensor, " c"]:
        r"""Returns :math:`u^\top Q u`, step by step: the precision is not put together."""
        states = u.unflatten(0, (-1, self.initial.shape[0]))
        total = self.initial.quadratic(states[0].contiguous())
        groups: dict[int, list[int]] = {}
        for k, step in enumerate(self.steps):
            groups.setdefault(id(step), []).append(k)
        for numbers in groups.values():  # steps that are one object, all at once
            step = self.steps[numbers[0]]
            at = torch.tensor(numbers)
            before, after = (states[at + i].movedim(0, 1).flatten(1) for i in (0, 1))
            rest = step.ahead @ after.contiguous() - step.behind @ before.contiguous()
            each = step.noise.precision().quadratic(rest)
            total = total + each.unflatten(0, (len(at), -1)).sum(dim=0)
        return total

    def mean(self, start: Float[Tensor, " N"]) -> Float[Tensor, " all"]:
        r"""Returns the means of all the fields, from that of the first."""
        means = [start[:, None]]
        for step in self.steps:
            means.append(step.advance(means[-1]))
        return torch.cat(means)[:, 0]

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None) -> Float[Tensor, "size all"]:
        r"""Draws all the fields, one after the other, all the members at once."""
        n = self.initial.shape[0]
        draw = lambda: torch.randn(n, size, dtype=torch.float64, generator=generator)
        fields = [self.factor.sqrt_solve(draw())]
        for step in self.steps:
            fields.append(step.solve(step.behind @ fields[-1] + step.noise.sample(draw())))
        return torch.cat(fields).mT


def power(K: Sparse, volume: Float[Tensor, " N"], exponent: int) -> Sparse:
    r"""Returns :math:`C (C^{-1} K)^p`: the mass, the operator, :math:`K C^{-1} K`..."""
    if exponent == 0:
        return Sparse.diag(volume)
    found = K
    for _ in range(exponent - 1):
        found = K.product(found.scale(rows=1 / volume))
    return found
