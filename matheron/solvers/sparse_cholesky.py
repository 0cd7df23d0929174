r"""Conditioning of Gaussian Markov fields, exactly, by a sparse factor."""

from __future__ import annotations

__all__ = ["SparseCholesky"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Likelihood, LikelihoodSolver, Score, check_linear, frozen
from .effects import Effects, EffectsConditional
from .sight import noise_weights, sight
from ..described import Described
from ..linalg.cholesky import Cholesky, SingleCholesky
from ..linalg.sparse import Sparse
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.markov import MarkovPrior

WHERE = "SparseCholesky"


class _Markov(EffectsConditional):
    prior: MarkovPrior

    def __init__(
        self, prior: MarkovPrior, observation: LinearObservation, matheron: bool, single: bool
    ) -> None:
        super().__init__(prior, observation)
        self.matheron, self.single = matheron, single
        self.E = prior.embedding(prior.domain.points)
        self.G = sight(prior, observation)
        self.W = noise_weights(observation, WHERE)
        self.Q = prior.precision()
        Q = self.Q + self.G.T.product(self.W.product(self.G))
        # what the std of the nodes of the domain reads of the inverse must be in the pattern
        self.precise = Q.structure(self.E.gram().pattern)
        self.engine = self._engine()
        self.engine.analysis.release()  # no other factorisation comes, and memory is scarce
        self.size = Q.shape[0]

    def _engine(self) -> Cholesky | SingleCholesky:
        r"""Returns what solves and draws."""
        if not self.single:
            return self.factor
        where = f"{WHERE}(precision='single')"
        return SingleCholesky(self.precise, places=self.prior.places(), where=where)

    @cached_property
    def factor(self) -> Cholesky:
        r"""The factor of the posterior precision, in double precision."""
        return self.prior.factorise(self.precise, f"{WHERE}(prior=...)")

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        if not isinstance(self.engine, SingleCholesky):
            return {}
        return {"defect": self.engine.defect, "information": self.engine.information}

    def _normal(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "N c"]:
        return self.G.T @ (self.W @ columns)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        logdet = self.factor.logdet() - self.prior.log_determinant()
        logdet = logdet - self.observation.noise_log_precision()
        return logdet, self.gram(columns)

    def gram(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "c c"]:
        return _Products(self.engine, self.Q, self.W, self.G, columns).gram()

    def carry(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
        return self.E @ self.engine.solve(self._normal(columns))

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        if self.matheron:
            u = self.prior.sample_nodes(size, generator).mT.contiguous()
            e = self.observation.white_noise((size,), generator).mT.contiguous()
            return (self.E @ u - self.carry(self.G @ u + e)).mT
        z = torch.randn(size, self.size, dtype=torch.float64, generator=generator)
        return (self.E @ self.engine.sqrt_solve(z.mT)).mT

    def field_variance(self) -> Float[Tensor, " n"]:
        return self.factor.selected_inverse().sandwich(self.E)

    def field_covariance(self) -> Float[Tensor, "n n"]:
        return self.E @ self.engine.solve(self.E.T.to_dense())


class _Evidence(Likelihood):
    r"""The likelihood of one vector of data, or of independent replicates of them."""

    def __init__(
        self, prior: MarkovPrior, observation: LinearObservation, y: Float[Tensor, "*r m"]
    ) -> None:
        self.prior, self.observation = prior, observation
        r = observation.select(y) - observation.seen(prior.mean)
        self.r = r.detach().reshape(-1, r.shape[-1])
        self.G = sight(prior, observation)
        self.step = 1e-5

    def _factor(self) -> tuple[Cholesky, Sparse, Sparse]:
        W, Q = noise_weights(self.observation, WHERE), self.prior.precision()
        precise = Q + self.G.T.product(W.product(self.G))
        return self.prior.factorise(precise, f"{WHERE}(prior=...)"), Q, W

    def value(self) -> Float[Tensor, ""]:
        factor, Q, W = self._factor()
        effects = Effects.of(self.prior, self.observation)
        r, m = self.r.shape
        columns = torch.cat([self.r.mT, effects.columns], dim=-1)
        products = _Products(factor, Q, W, self.G, columns)
        beside = products.gram(slice(r, None))  # the effects with the data, and with themselves
        logdet = factor.logdet() - self.prior.log_determinant()
        logdet = logdet - self.observation.noise_log_precision()
        squares = products.squares()[:r]
        return effects.of_replicates(logdet, squares, beside[:, :r], beside[:, r:], m)

    @torch.no_grad()
    def coefficients(self) -> tuple[Float[Tensor, " q"], Float[Tensor, "q q"]]:
        effects = Effects.of(self.prior, self.observation)
        p = effects.p
        if p == 0:
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, 0, dtype=torch.float64)
        A, solved = self._normal_equations(effects, self._inverse())
        V = torch.linalg.inv(A)
        beta = V @ (effects.columns.mT @ solved[:, : len(self.r)]).mean(dim=1)
        return beta[:p], V[:p, :p] / len(self.r)

    def _normal_equations(self, effects: Effects, solve: _Inverse) -> tuple[Tensor, Tensor]:
        r"""Returns the normal matrix of the effects, and the data and columns, whitened twice."""
        solved = solve(torch.cat([self.r.mT, effects.columns], dim=-1))
        gram = effects.columns.mT @ solved[:, len(self.r) :]
        return effects.normal_matrix(gram), solved

    def _inverse(self) -> _Inverse:
        factor, _, W = self._factor()
        return _Inverse(factor, W, self.G)

    @torch.no_grad()
    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        with torch.enable_grad():
            value = self.value()
            slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        flat = [
            torch.zeros(p.numel(), dtype=torch.float64) if g is None else g.reshape(-1)
            for p, g in zip(parameters, slopes, strict=True)
        ]
        return Score(value.item(), torch.cat(flat).double(), self._information(parameters))

    def _information(self, parameters: Sequence[nn.Parameter]) -> Float[Tensor, "p p"]:
        r"""Returns the average of the observed and the expected information.

        With :math:`P` the projection of the data off the effects,

        .. math:: I_{ij} = \tfrac{1}{2} (\partial_i S P y)^\top P (\partial_j S P y)

        where :math:`\partial S` acts through the derivatives of the precision, taken by central
        differences: they are good to nine digits, and no sum of them is needed.

        References:
            | Average information REML (Gilmour et al., 1995)
            | https://doi.org/10.2307/2533274
        """
        effects = Effects.of(self.prior, self.observation)
        inverse = self._inverse()
        A, solved = self._normal_equations(effects, inverse)
        size = len(self.r)
        X, SX = effects.columns, solved[:, size:]
        project = lambda Sv: Sv - SX @ torch.linalg.solve(A, X.mT @ Sv)
        Py = project(solved[:, :size])
        prior = self.prior.factorise(self.prior.precision())
        u = prior.solve(self.G.T @ Py)
        numbers = [(p, i) for p in parameters for i in range(p.numel())]
        moved = torch.stack([self._moved(p, i, prior, u, Py) for p, i in numbers])
        columns = moved.permute(1, 0, 2).reshape(len(Py), -1)  # (m, parameters * replicates)
        P = project(inverse(columns)).reshape(len(Py), len(moved), size)
        return torch.einsum("imr,mjr->ij", moved, P) / 2

    def _moved(
        self,
        parameter: nn.Parameter,
        index: int,
        prior: Cholesky,
        u: Float[Tensor, "N r"],
        Py: Float[Tensor, "m r"],
    ) -> Float[Tensor, "m r"]:
        r"""Returns :math:`\partial S P y` for one number of a parameter."""
        start = parameter.reshape(-1)[index].item()
        sides = []
        for sign in (1, -1):
            parameter.reshape(-1)[index] = start + sign * self.step
            noise = self.observation.noise_times(Py)
            B, v = self.observation.bias_design, self.observation.bias_variance
            sides.append((self.prior.precision() @ u, noise + (B * v) @ (B.mT @ Py)))
        parameter.reshape(-1)[index] = start
        forces, noises = ((a - b) / (2 * self.step) for a, b in zip(*sides, strict=True))
        return noises - self.G @ prior.solve(forces)


class _Products:
    r"""Products :math:`C^\top S^{-1} C` of columns by the inverse of the covariance of the data.

    .. math:: c^\top S^{-1} c = \min_u \; (c - G u)^\top W (c - G u) + u^\top Q u

    No large terms cancel, so that they are right where the noise is small. As they do not move
    with :math:`u` to first order, it carries no gradient.
    """

    def __init__(
        self,
        factor: Cholesky | SingleCholesky,
        Q: Sparse,
        W: Sparse,
        G: Sparse,
        columns: Float[Tensor, "m c"],
    ) -> None:
        with torch.no_grad():
            self.u = factor.solve(G.T @ (W @ columns))
        self.e = columns - G @ self.u
        self.We, self.Qu = W @ self.e, Q @ self.u

    def gram(self, rows: slice = slice(None)) -> Float[Tensor, "r c"]:
        return self.e[:, rows].mT @ self.We + self.u[:, rows].mT @ self.Qu

    def squares(self) -> Float[Tensor, " c"]:
        return (self.e * self.We).sum(dim=0) + (self.u * self.Qu).sum(dim=0)


class _Inverse:
    r"""The inverse of the covariance of the data, biases left out, applied to columns."""

    def __init__(self, factor: Cholesky, W: Sparse, G: Sparse) -> None:
        self.factor, self.W, self.G = factor, W, G

    def __call__(self, columns: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        weighted = self.W @ columns
        return weighted - self.W @ (self.G @ self.factor.solve(self.G.T @ weighted))


class SparseCholesky(Described, LikelihoodSolver[MarkovPrior]):
    r"""Exact conditioning of a Markov field, by a sparse factor of the posterior precision.

    .. math:: Q_{\mathrm{post}} = Q + G^\top R^{-1} G, \qquad
        \mathbb{E}[u \mid y] = Q_{\mathrm{post}}^{-1} G^\top R^{-1} (y - \mu)

    The std is exact, from the entries of the inverse on the pattern of the factor. An unknown
    trend and the biases of instruments are estimated with the field. In space-time, this is the
    Kalman smoother of the model, all times at once; times after the last datum are forecasts.

    References:
        | Gaussian Markov Random Fields: Theory and Applications (Rue and Held, 2005)
        | https://doi.org/10.1201/9780203492024

    Arguments:
        sampling: ``"direct"`` draws with the factor of the posterior, ``"matheron"`` corrects
            draws of the prior by Matheron's rule. Both have the same law.
        precision: ``"double"``, or ``"single"`` for a factor of half the memory and time where the
            mean and members are wanted, e.g. of large grids. The mean is corrected to ten digits,
            and members have the exact law to 0.001 nats or better, all nodes together: see
            :class:`matheron.linalg.cholesky.SingleCholesky`; ``posterior.info`` tells how near.
            The std and the evidence take a factor in double precision all the same, when asked
            for.

    Raises:
        ValueError: If ``sampling`` or ``precision`` is neither, a datum has no noise, or the law
            is too ill-conditioned for single precision.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=torch.arange(40.0))
        >>> prior = mt.WhittleMatern(grid, lengthscale=8.0, alpha=2.0)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[20.0]), noise_std=0.1)
        >>> posterior = mt.SparseCholesky()(prior, seen)(torch.ones(1, dtype=torch.float64))
        >>> posterior.mean.argmax().item()
        20
    """

    requires: ClassVar = MarkovPrior

    def __init__(self, sampling: str = "direct", precision: str = "double") -> None:
        super().__init__()
        if sampling not in {"direct", "matheron"}:
            msg = (
                f"SparseCholesky(sampling=...): expected 'direct' or 'matheron', got "
                f"{sampling!r}. Use 'direct'."
            )
            raise ValueError(msg)
        if precision not in {"double", "single"}:
            msg = (
                f"SparseCholesky(precision=...): expected 'double' or 'single', got "
                f"{precision!r}. Use 'double'."
            )
            raise ValueError(msg)
        self.sampling, self.precision = sampling, precision

    @torch.no_grad()
    def prepare(self, prior: MarkovPrior, observation: Observation) -> GaussianConditional:
        linear = frozen(check_linear(self, observation))
        matheron, single = self.sampling == "matheron", self.precision == "single"
        return _Markov(frozen(prior), linear, matheron, single)

    def likelihood(
        self, prior: MarkovPrior, observation: LinearObservation, y: Float[Tensor, "*r m"]
    ) -> Likelihood:
        return _Evidence(prior, observation, y)
