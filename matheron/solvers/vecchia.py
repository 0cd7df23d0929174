r"""Kriging with near neighbours only, for any number of data."""

from __future__ import annotations

__all__ = ["Vecchia"]

import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .base import Likelihood, LikelihoodSolver, Score, check_linear, frozen
from .effects import Effects, EffectsConditional
from .vecchia_latent import LatentConditional
from ..linalg.composition import Composition
from ..linalg.places import distinct_places
from ..linalg.tangents import tangents
from ..linalg.vecchia import (
    Tangent,
    fisher,
    joint_neighbors,
    marginal_variance,
    maxmin_order,
    predict_weights,
    propagate,
    stored_along_curve,
    target_neighbors,
    torch_engine,
    whiten,
)
from ..observations import LinearObservation, Observation
from ..posterior import GaussianConditional
from ..priors.base import KernelPrior

DRAWS = 1024
"""Draws for a standard deviation that is not within reach exactly."""
NUMBERS = 32_000_000
"""Numbers of a chunk of columns."""


class _Likelihood(Likelihood):
    def __init__(
        self, solver: Vecchia, prior: KernelPrior, observation: LinearObservation, y: Tensor
    ) -> None:
        self.solver, self.prior, self.observation = solver, prior, observation
        with torch.no_grad():
            self.x = prior.coordinates(observation.points)
            near = prior.kernel.neighborhood(self.x)
            order = maxmin_order(near, solver.seed)
            metrics = [x[order] for x in prior.kernel.neighborhoods(self.x)]
            table = joint_neighbors(metrics, solver.neighbors)
            self.order, self.neighbors = stored_along_curve(order, table, near[order])
            self.v = observation.select(y) - prior.mean(observation.points)
        self.x = self.x[self.order]

    def _columns(self) -> tuple[Effects, Tensor]:
        effects = Effects.of(self.prior, self.observation)
        return effects, torch.cat([self.v[:, None], effects.columns], dim=-1)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Tensor]:
        r"""Returns the log-determinant, and the products of whitened columns."""
        noise = self.observation.noise_variance[self.order]
        columns = columns[self.order]
        composition = self.solver.composition(self.prior, self.x)
        if composition is not None:
            return whiten(composition, noise, columns, self.neighbors)
        kernel = self.prior.kernel
        parameters = [p for p in kernel.parameters() if p.requires_grad]
        return torch_engine.whiten(kernel, self.x, noise, columns, self.neighbors, parameters)

    def _whiten(self) -> tuple[Effects, Tensor, Tensor]:
        effects, columns = self._columns()
        return effects, *self.whiten(columns)

    def value(self) -> Float[Tensor, ""]:
        effects, logdet, gram = self._whiten()
        return effects.log_likelihood(logdet, gram, len(self.v))

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        effects, _, gram = self._whiten()
        V = torch.linalg.inv(effects.normal_matrix(gram[1:, 1:]))
        return (V @ gram[1:, 0])[: effects.p], V[: effects.p, : effects.p]

    def _of_kernel(self) -> list[Tensor]:
        r"""Returns everything in the covariance that depends on parameters, flat.

        Where coordinates are a linear map of the sites, the map alone, which is much smaller.
        """
        linear = self.prior.kernel.linear
        x = torch.eye(self.x.shape[1], dtype=torch.float64) if linear else self.x
        composition = self.prior.kernel.terms(x)
        assert composition is not None
        factors = [f for t in composition for f in t.factors]
        return [
            *(t.variance for t in composition),
            *(f.coords for f in factors),
            *(f.table.shape for f in factors if f.table is not None),
        ]

    def _of_noise(self) -> list[Tensor]:
        return [self.observation.noise_variance, self.observation.bias_variance]

    def _tangents(
        self, composition: Composition, parameters: Sequence[nn.Parameter]
    ) -> tuple[list[Tangent], list[Tensor | None]]:
        of_noise = {id(p) for p in self.observation.parameters()}
        kernel = [p for p in parameters if id(p) not in of_noise]
        slopes = iter(list(tangents([self.prior], kernel, self._of_kernel)) if kernel else [])
        found: list[Tangent] = []
        biases: list[Tensor | None] = []
        for parameter in parameters:
            if id(parameter) not in of_noise:
                for _ in range(parameter.numel()):
                    found.append(self._tangent(composition, next(slopes)))
                    biases.append(None)
                continue
            for noise, bias in tangents([self.observation], [parameter], self._of_noise):
                moved = None if noise is None or not noise.any() else noise[self.order]
                found.append(Tangent(noise=moved))
                biases.append(bias)
        return found, biases

    def _tangent(self, composition: Composition, slope: Sequence[Tensor | None]) -> Tangent:
        keys = [(i, j) for i, t in enumerate(composition) for j in range(len(t.factors))]
        tabled = [k for k in keys if composition[k[0]].factors[k[1]].table is not None]
        T, K, zero = len(composition), len(keys), torch.zeros((), dtype=torch.float64)
        moves = {
            k: v for k, v in zip(keys, slope[T : T + K], strict=True) if v is not None and v.any()
        }
        if self.prior.kernel.linear:
            moves = {k: self.x @ v for k, v in moves.items()}
        shapes = zip(tabled, slope[T + K :], strict=True)
        return Tangent(
            coords=moves,
            variances=torch.stack([zero if v is None else v for v in slope[:T]]),
            shapes={k: float(v) for k, v in shapes if v is not None},
        )

    @torch.no_grad()
    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        composition = self.solver.composition(self.prior, self.x)
        if composition is None:
            return None
        effects, columns = self._columns()
        noise = self.observation.noise_variance[self.order]
        directions, biases = self._tangents(composition, parameters)
        logdet, gram, dlogdet, dgram, information = fisher(
            composition, noise, columns[self.order], self.neighbors, directions
        )
        A = effects.normal_matrix(gram[1:, 1:])
        beta = torch.linalg.solve(A, gram[1:, 0])
        contrast = torch.cat([torch.ones(1).double(), -beta])
        G, p = gram[1 + effects.p :, 1 + effects.p :], effects.p
        V = torch.linalg.inv(A[p:, p:])
        gradient = -(dlogdet + torch.einsum("i,jik,k->j", contrast, dgram, contrast)) / 2
        gradient -= torch.einsum("ab,jba->j", V, dgram[:, 1 + p :, 1 + p :]) / 2
        slopes = [torch.zeros(len(V)).double() if b is None else b for b in biases]
        S = torch.stack(slopes) if slopes else torch.zeros(0, len(V)).double()
        v = effects.variance
        gradient += (S * (beta[p:].square() / v**2 - 1 / v + V.diagonal() / v**2) / 2).sum(-1)
        inner = G - G @ V @ G  # the products of the biases, with their own variance counted
        information = information + S @ inner.square() @ S.mT / 2
        value = effects.log_likelihood(logdet, gram, len(self.v))
        return Score(value.item(), gradient, information)


class _Response(EffectsConditional):
    r"""The joint law of targets that each look at near data and at near earlier targets."""

    def __init__(
        self, solver: Vecchia, prior: KernelPrior, observation: LinearObservation
    ) -> None:
        super().__init__(prior, observation)
        s = prior.domain.points
        data, targets = prior.coordinates(observation.points), prior.coordinates(s)
        noise = observation.noise_variance
        _check_repeats(data, noise)
        self.slot, self.chosen = _slots(data, targets, noise)
        every = torch.cat([data, targets[self.chosen]])
        near = prior.kernel.neighborhood(every)
        order = maxmin_order(near[self.m :], solver.seed) if len(self.chosen) else self.chosen
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        moved = self.slot >= self.m
        self.slot[moved] = self.m + rank[self.slot[moved] - self.m]
        self.chosen = self.chosen[order]
        sites = torch.cat([torch.arange(self.m), self.m + order])
        self.noise = torch.cat([noise, noise.new_zeros(len(order))])
        metrics = [x[sites] for x in prior.kernel.neighborhoods(every)]
        self.neighbors = target_neighbors(metrics, solver.prediction_neighbors, self.m)
        self.weights, self.spread = solver.weights(
            prior, every[sites], self.noise, self.neighbors, self.m
        )
        zero = torch.zeros(observation.size, dtype=torch.float64)
        self.likelihood = _Likelihood(solver, prior, observation, zero)

    def whiten(self, columns: Float[Tensor, "m c"]) -> tuple[Tensor, Float[Tensor, "c c"]]:
        return self.likelihood.whiten(columns)

    def carry(
        self, columns: Float[Tensor, "m c"], draws: Float[Tensor, "t c"] | None = None
    ) -> Float[Tensor, "n c"]:
        z = columns.new_zeros(self.m + len(self.chosen), columns.shape[1])
        z[: self.m] = columns
        propagate(self.weights, self.spread, self.neighbors, self.m, z, draws)
        return z[self.slot]

    def deviate(self, size: int, generator: Generator | None) -> Float[Tensor, "size n"]:
        e = torch.randn(size, len(self.chosen), dtype=torch.float64, generator=generator)
        x = e.new_empty(size, len(self.slot))
        chunk = max(1, NUMBERS // (self.m + len(self.chosen)))
        for i in torch.arange(size).split(chunk):
            x[i] = self.carry(x.new_zeros(()).expand(self.m, len(i)), e[i].mT).mT
        return x

    def field_variance(self) -> Float[Tensor, " n"]:
        own = marginal_variance(self.weights, self.spread, self.neighbors, self.m, DRAWS, 0)
        return torch.cat([own.new_zeros(self.m), own])[self.slot]

    def field_covariance(self) -> Float[Tensor, "n n"]:
        t = len(self.chosen)
        unit = torch.eye(t, dtype=torch.float64)
        A = self.carry(unit.new_zeros(self.m, t), unit)
        return A @ A.mT


def _check_repeats(data: Float[Tensor, "m k"], noise: Float[Tensor, " m"]) -> None:
    exact = data[noise == 0]
    _, first = distinct_places(exact)
    if len(first) < len(exact):
        msg = (
            f"Vecchia(observation=...): expected distinct sites where noise_std is zero, got "
            f"{len(exact) - len(first)} repeated of {len(data)}. Give noise_std, or average them."
        )
        raise ValueError(msg)


def _slots(
    data: Float[Tensor, "m k"], targets: Float[Tensor, "n k"], noise: Float[Tensor, " m"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " t"]]:
    r"""Returns where each node reads its value, and the nodes that are targets of their own.

    Nodes at the site of a datum without noise read the datum; nodes that coincide read one value.
    """
    m = len(data)
    exact = torch.nonzero(noise == 0)[:, 0]
    place, first = distinct_places(torch.cat([data[exact], targets]))
    first = first[place[len(exact) :]]  # of each node: the first site at its place
    known = first < len(exact)
    slot = torch.empty(len(targets), dtype=torch.long)
    slot[known] = exact[first[known]]
    own = first[~known] - len(exact)
    chosen, rank = torch.unique(own, return_inverse=True)
    slot[~known] = m + rank
    return slot, chosen


class Vecchia(LikelihoodSolver[KernelPrior]):
    r"""Conditions each site on its nearest neighbours among the earlier ones.

    .. math:: p(y) \approx \prod_i p(y_i \mid y_{c(i)}), \qquad |c(i)| \le m

    Data come first, in a max-min order, then the nodes of the domain, each conditioned on near
    data *and* near earlier nodes: draws have the right joint law. Neighbours are chosen in the
    metric of the kernel. Time grows as :math:`n m^3`, memory as :math:`n m`; exact as
    :math:`m \to n`.

    The form ``"response"`` conditions data on data, with their noise. The form ``"latent"``
    conditions the *field* on the field, and takes the noise in exactly through a sparse precision
    :math:`Q + A^\top R^{-1} A`: closer to kriging where noise is large beside what the neighbours
    leave, for up to some tens of thousands of places of data, each with noise. It concerns the
    posterior and its evidence; :meth:`likelihood`, thus a fit, keeps to the response form. Beyond
    6000 places of data and nodes together, its standard deviations come in part from 1024 draws
    of a fixed seed.

    References:
        | Estimation and model identification for continuous spatial processes (Vecchia, 1988)
        | Permutation and grouping methods for sharpening Gaussian process approximations
        | (Guinness, 2018), https://doi.org/10.1080/00401706.2018.1437476

    Arguments:
        neighbors: The number :math:`m` of neighbours of a datum, in the likelihood.
        prediction_neighbors: The number of neighbours of a node; twice as many by default.
        engine: ``"compiled"`` (CPU), ``"torch"`` (any kernel), or ``"auto"``, which compiles
            where the kernel allows.
        seed: The seed of the max-min order.
        form: ``"response"`` or ``"latent"``.

    Raises:
        ValueError: If a number of neighbours is not positive, if the covariance of some
            neighbours is singular, or if the form is latent and a datum has no noise.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 0.5, 1.0, 1.5, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5), grid)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[0.0, 1.0]), noise_std=0.1)
        >>> posterior = mt.Vecchia(neighbors=4)(prior, seen)(torch.ones(2, dtype=torch.float64))
        >>> posterior.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 5])
    """

    requires = KernelPrior

    def __init__(
        self,
        neighbors: int = 30,
        prediction_neighbors: int | None = None,
        engine: str = "auto",
        seed: int = 0,
        form: str = "response",
    ) -> None:
        super().__init__()
        if neighbors < 1 or (prediction_neighbors is not None and prediction_neighbors < 1):
            msg = (
                f"Vecchia(neighbors=...): expected at least one neighbour, got {neighbors} and "
                f"{prediction_neighbors}. Use e.g. 30."
            )
            raise ValueError(msg)
        if engine not in {"auto", "compiled", "torch"}:
            msg = f"Vecchia(engine=...): expected auto, compiled or torch, got {engine!r}."
            raise ValueError(msg)
        if form not in {"response", "latent"}:
            msg = f"Vecchia(form=...): expected response or latent, got {form!r}."
            raise ValueError(msg)
        self.neighbors, self.engine, self.seed, self.form = neighbors, engine, seed, form
        self.prediction_neighbors = prediction_neighbors or 2 * neighbors

    def composition(self, prior: KernelPrior, x: Float[Tensor, "n k"]) -> Composition | None:
        r"""Returns the kernel in the form that is compiled, or ``None`` to use torch."""
        composition = None if self.engine == "torch" else prior.kernel.terms(x)
        if composition is None and self.engine == "compiled":
            msg = (
                f"Vecchia(engine='compiled'): expected a sum of products of stationary kernels, "
                f"got {type(prior.kernel).__name__}. Use engine='auto'."
            )
            raise ValueError(msg)
        return composition

    def weights(
        self,
        prior: KernelPrior,
        x: Float[Tensor, "n k"],
        noise: Float[Tensor, " n"],
        neighbors: Int[Tensor, "t m"],
        start: int,
    ) -> tuple[Float[Tensor, "t m"], Float[Tensor, " t"]]:
        r"""Returns the kriging weights and standard deviations of the targets."""
        composition = self.composition(prior, x)
        if composition is not None:
            return predict_weights(composition, noise, neighbors, start)
        return torch_engine.predict_weights(prior.kernel, x, noise, neighbors, start)

    @torch.no_grad()
    def prepare(self, prior: KernelPrior, observation: Observation) -> GaussianConditional:
        still, seen = frozen(prior), frozen(check_linear(self, observation))
        if self.form == "response":
            return _Response(self, still, seen)
        sizes = self.neighbors, self.prediction_neighbors
        return LatentConditional(still, seen, self.weights, *sizes, self.seed)

    def likelihood(
        self, prior: KernelPrior, observation: LinearObservation, y: Float[Tensor, " m"]
    ) -> Likelihood:
        return _Likelihood(self, prior, observation, y)

    def coarse(self) -> Vecchia | None:
        return None if self.neighbors <= 10 else Vecchia(10, engine=self.engine, seed=self.seed)
