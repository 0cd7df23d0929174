r"""Schemes that assimilate data cycle after cycle: a forecast, then an analysis.

They work on many experiments at once, as batches, and carry from one cycle to the next no more
than they need.
"""

from __future__ import annotations

__all__ = [
    "EnsembleCycle",
    "IterativeCycle",
    "OptimalInterpolation",
    "ParticleCycle",
    "Scheme",
    "System",
    "ThreeDVar",
    "Weighted",
]

import abc
import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Generic, TypeVar

from .analysis import EnsembleAnalysis
from .iterative import gauss_newton
from .particles import effective_size, jittered, log_likelihood, resampled

C = TypeVar("C")


@dataclass(frozen=True)
class System:
    r"""What a scheme knows of the world: how states move, and how they are seen.

    Arguments:
        advance: The model over one cycle, for flat states with shape :math:`(*, s)`.
        observe: The operator :math:`H`, from :math:`(*, s)` to :math:`(*, m)`.
        noise: The variance of the noise of each datum, with shape :math:`(m)`.
        places: The places of the components of a state, with shape :math:`(s, d)`, for
            localisation.
        seen_places: The places of the data, with shape :math:`(m, d)`.
    """

    advance: Callable[[Tensor], Tensor]
    observe: Callable[[Tensor], Tensor]
    noise: Float[Tensor, " m"]
    places: Float[Tensor, "s d"] | None = None
    seen_places: Float[Tensor, "m d"] | None = None


@dataclass(frozen=True)
class Weighted:
    r"""An ensemble, perhaps with weights.

    Arguments:
        members: The members, with shape :math:`(*, N, s)`.
        log_weights: The logarithms of the weights up to a constant, with shape :math:`(*, N)`.
    """

    members: Float[Tensor, "*batch size s"]
    log_weights: Float[Tensor, "*batch size"] | None = None

    @property
    def mean(self) -> Float[Tensor, "*batch s"]:
        r"""The mean."""
        if self.log_weights is None:
            return self.members.mean(dim=-2)
        return (self.log_weights.softmax(dim=-1)[..., None] * self.members).sum(dim=-2)

    @property
    def covariance(self) -> Float[Tensor, "*batch s s"]:
        r"""The covariance, unbiased where weights are equal."""
        A = self.members - self.mean[..., None, :]
        if self.log_weights is None:
            return A.mT @ A / (A.shape[-2] - 1)
        w = self.log_weights.softmax(dim=-1)[..., None]
        # where one member has all the weight, nothing is left of the anomalies either
        unbiased = 1 - w.square().sum(dim=-2, keepdim=True)
        return (w * A).mT @ A / unbiased.clamp(min=1e-3)

    @property
    def spread(self) -> Float[Tensor, "*batch"]:
        r"""The root of the mean variance over the components; zero for one member."""
        if self.members.shape[-2] == 1:
            return self.members.new_zeros(self.members.shape[:-2])
        if self.log_weights is None:
            return self.members.var(dim=-2).mean(dim=-1).sqrt()
        return self.covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1).sqrt()


class Scheme(abc.ABC, Generic[C]):
    r"""A way to assimilate data cycle after cycle."""

    size: int = 1
    """The number of members."""

    @abc.abstractmethod
    def start(self, members: Float[Tensor, "*batch size s"]) -> C:
        r"""Returns what is carried from the first states."""

    @abc.abstractmethod
    def cycle(
        self,
        carried: C,
        y: Float[Tensor, "*batch m"],
        system: System,
        generator: Generator | None = None,
    ) -> tuple[C, Weighted]:
        r"""Returns what is carried on, and the analysis, after one forecast and its data."""


class EnsembleCycle(Scheme[Tensor]):
    r"""The ensemble Kalman filter, by any analysis.

    Arguments:
        size: The number :math:`N` of members.
        analysis: The analysis.

    Example:
        >>> filter = EnsembleCycle(10, EnsembleAnalysis("etkf", inflation=1.02, rotation=True))
        >>> system = System(lambda x: 2 * x, lambda x: x, torch.ones(3).double())
        >>> E = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> carried, analysis = filter.cycle(filter.start(E), torch.ones(3).double(), system)
        >>> analysis.mean.shape
        torch.Size([3])
    """

    def __init__(self, size: int, analysis: EnsembleAnalysis) -> None:
        self.size, self.analysis = size, analysis

    def start(self, members: Float[Tensor, "*batch size s"]) -> Tensor:
        return members

    def cycle(
        self,
        carried: Tensor,
        y: Float[Tensor, "*batch m"],
        system: System,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Weighted]:
        E, coefficients = system.advance(carried), None
        if self.analysis.localization is not None:
            coefficients = self._coefficients(system)
        E = self.analysis(E, system.observe(E), y, system.noise, generator, coefficients)
        return E, Weighted(E)

    def _coefficients(self, system: System) -> Tensor:
        localization = self.analysis.localization
        if localization is None or system.places is None or system.seen_places is None:
            msg = (
                "EnsembleCycle(analysis='letkf'): expected a system with places, got none. Give "
                "System(places=..., seen_places=...)."
            )
            raise ValueError(msg)
        return localization.coefficients(system.places, system.seen_places)


class IterativeCycle(Scheme[tuple[Tensor, int]]):
    r"""The iterative ensemble Kalman smoother: Gauss-Newton on the start of a moving window.

    Each datum is assimilated once, at the end of the window. The analysis is that of its end;
    what is carried is the ensemble of its start. The model is perfect.

    References:
        | An iterative EnKF for strongly nonlinear systems (Sakov, Oliver & Bertino, 2012)
        | https://doi.org/10.1175/MWR-D-11-00176.1
        | An iterative ensemble Kalman smoother (Bocquet & Sakov, 2014)
        | https://doi.org/10.1002/qj.2236

    Arguments:
        size: The number :math:`N` of members.
        lag: The number of cycles of the window.
        iterations: The most iterations of a cycle.
        tolerance: The change of the weights of the mean, in standard deviations, that stops them.
        inflation: The factor of the anomalies of the start, after each cycle.
        rotation: Whether these anomalies are rotated at random.

    Raises:
        ValueError: If ``lag`` or ``iterations`` is under one.

    Example:
        >>> smoother = IterativeCycle(10, lag=2)
        >>> system = System(lambda x: 2 * x, lambda x: x, torch.ones(3).double())
        >>> E = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
        >>> (start, intervals), _ = smoother.cycle((E, 0), torch.ones(3).double(), system)
        >>> intervals  # the window is not full yet
        1
    """

    def __init__(
        self,
        size: int,
        lag: int = 1,
        iterations: int = 10,
        tolerance: float = 1e-3,
        inflation: float = 1.0,
        rotation: bool = False,
    ) -> None:
        if lag < 1 or iterations < 1:
            msg = (
                f"IterativeCycle(lag=..., iterations=...): expected one or more, got {lag} and "
                f"{iterations}. Raise them."
            )
            raise ValueError(msg)
        self.size, self.lag = size, lag
        self.iterations, self.tolerance = iterations, tolerance
        self.after = EnsembleAnalysis("etkf", inflation, rotation)

    def start(self, members: Float[Tensor, "*batch size s"]) -> tuple[Tensor, int]:
        return members, 0

    def cycle(
        self,
        carried: tuple[Tensor, int],
        y: Float[Tensor, "*batch m"],
        system: System,
        generator: Generator | None = None,
    ) -> tuple[tuple[Tensor, int], Weighted]:
        E, window = carried[0], carried[1] + 1

        def ahead(x: Tensor) -> Tensor:
            for _ in range(window):
                x = system.advance(x)
            return x

        E, _ = gauss_newton(
            E,
            lambda x: system.observe(ahead(x)),
            y,
            system.noise,
            self.iterations,
            self.tolerance,
        )
        analysis = Weighted(ahead(E))
        E = self.after.refresh(E, generator)
        if window < self.lag:
            return (E, window), analysis
        return (system.advance(E), window - 1), analysis


class ParticleCycle(Scheme[Weighted]):
    r"""The bootstrap particle filter, with systematic resampling.

    References:
        | Novel approach to nonlinear/non-Gaussian Bayesian state estimation
        | (Gordon, Salmond & Smith, 1993)
        | https://doi.org/10.1049/ip-f-2.1993.0015

    Arguments:
        size: The number :math:`N` of particles.
        threshold: The share of the effective size under which particles are resampled.
        jitter: The bandwidth of the kernel that moves particles after resampling, in units of
            the usual one; 0 for none. A model without errors asks for some.
        error: Draws the errors of the model over one cycle, for a shape; ``None`` for none.

    Raises:
        ValueError: If ``threshold`` or ``jitter`` is out of bounds.

    Example:
        >>> system = System(lambda x: 2 * x, lambda x: x, torch.ones(1).double())
        >>> particles = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> filter = ParticleCycle(3)
        >>> y = torch.tensor([2.0], dtype=torch.float64)
        >>> round(filter.cycle(filter.start(particles), y, system)[1].mean.item(), 3)
        2.0
    """

    def __init__(
        self,
        size: int,
        threshold: float = 0.5,
        jitter: float = 0.0,
        error: Callable[[torch.Size, Generator | None], Tensor] | None = None,
    ) -> None:
        if jitter < 0 or not 0 <= threshold <= 1:
            msg = (
                f"ParticleCycle(threshold=..., jitter=...): expected a share and at least zero, "
                f"got {threshold} and {jitter}. Try 0.5 and 0."
            )
            raise ValueError(msg)
        self.size, self.threshold, self.jitter, self.error = size, threshold, jitter, error

    def start(self, members: Float[Tensor, "*batch size s"]) -> Weighted:
        return Weighted(members, members.new_zeros(members.shape[:-1]))

    def cycle(
        self,
        carried: Weighted,
        y: Float[Tensor, "*batch m"],
        system: System,
        generator: Generator | None = None,
    ) -> tuple[Weighted, Weighted]:
        assert carried.log_weights is not None
        E = system.advance(carried.members)
        if self.error is not None:
            E = E + self.error(E.shape, generator)
        likelihood = log_likelihood(system.observe(E), y, system.noise)
        weights = (carried.log_weights + likelihood).log_softmax(dim=-1)
        analysis = Weighted(E, weights)
        return self._renewed(analysis, generator), analysis

    def _renewed(self, analysis: Weighted, generator: Generator | None) -> Weighted:
        E, weights = analysis.members, analysis.log_weights
        assert weights is not None
        poor = effective_size(weights) < self.threshold * self.size
        if not poor.any():
            return analysis
        parents = resampled(weights, generator)
        new = E.take_along_dim(parents[..., None], dim=-2)
        if self.jitter:
            new = jittered(new, analysis.covariance, self.jitter, generator)
        E = torch.where(poor[..., None, None], new, E)
        return Weighted(E, torch.where(poor[..., None], 0.0, weights))


class ThreeDVar(Scheme[Tensor]):
    r"""3DVar: forecasts updated with a covariance that never changes.

    Arguments:
        covariance: The covariance of forecast errors, say a small part of that of the climate,
            with shape :math:`(s, s)`.

    Example:
        >>> system = System(lambda x: 2 * x, lambda x: x, torch.ones(1).double())
        >>> x, y = torch.ones(1, 1).double(), torch.tensor([3.0]).double()
        >>> ThreeDVar(torch.ones(1, 1).double()).cycle(x, y, system)[1].mean.item()
        2.5
    """

    def __init__(self, covariance: Float[Tensor, "s s"]) -> None:
        self.covariance = covariance

    def start(self, members: Float[Tensor, "*batch size s"]) -> Tensor:
        return members

    def background(self, carried: Tensor, system: System) -> Tensor:
        r"""Returns the state that the data correct."""
        return system.advance(carried)

    def cycle(
        self,
        carried: Tensor,
        y: Float[Tensor, "*batch m"],
        system: System,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Weighted]:
        x = self.background(carried, system)
        # H is linear: its columns are what it sees of the unit vectors
        H = (system.observe(torch.eye(len(self.covariance), dtype=torch.float64))).mT
        S = H @ self.covariance @ H.mT + torch.diag(system.noise)
        gain = torch.linalg.solve(S, H @ self.covariance)
        x = x + (y[..., None, :] - system.observe(x)) @ gain
        return x, Weighted(x)


class OptimalInterpolation(ThreeDVar):
    r"""Optimal interpolation about the mean of the climate: no forecast at all.

    Arguments:
        mean: The mean of the climate, with shape :math:`(s)`.
        covariance: Its covariance, with shape :math:`(s, s)`.

    Example:
        >>> system = System(lambda x: 2 * x, lambda x: x, torch.ones(1).double())
        >>> x, y = torch.ones(1, 1).double(), torch.tensor([3.0]).double()
        >>> climate = torch.zeros(1).double(), torch.ones(1, 1).double()
        >>> OptimalInterpolation(*climate).cycle(x, y, system)[1].mean.item()
        1.5
    """

    def __init__(self, mean: Float[Tensor, " s"], covariance: Float[Tensor, "s s"]) -> None:
        super().__init__(covariance)
        self.mean = mean

    def background(self, carried: Tensor, system: System) -> Tensor:
        return self.mean.expand_as(carried)
