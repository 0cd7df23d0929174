r"""Ensemble Kalman filters and smoothers."""

from __future__ import annotations

__all__ = ["EnsembleKalman", "IterativeEnsembleKalman"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver
from .filters.analysis import EnsembleAnalysis
from .filters.iterative import gauss_newton
from .filters.localization import Localization
from .filters.trajectories import EnsembleConditional
from ..observations import Observation
from ..priors.base import Prior
from ..priors.dynamics import Markovian


class EnsembleKalman(Solver[Markovian]):
    r"""The ensemble Kalman filter, or smoother: the law of trajectories, from an ensemble of them.

    Members follow the model from one time to the next, with draws of its errors; at each time the
    data correct the state, and those before it through their covariance with the data. It is
    exact for linear models, as :math:`N` grows.

    References:
        | The ensemble Kalman filter: theoretical formulation and practical implementation
        | (Evensen, 2003)
        | https://doi.org/10.1007/s10236-003-0036-9

    Arguments:
        size: The number :math:`N` of members.
        method: ``"etkf"``, the symmetric square root; ``"perturbed"`` observations; ``"denkf"``;
            or ``"letkf"``, node by node with the data around it.
        lag: How many past times the data correct: ``None`` for all, a smoother; 0 for none, a
            filter.
        inflation: The factor of the analysis anomalies, or ``"adaptive"``, which needs no tuning.
        rotation: Whether the anomalies are rotated at random after each analysis.
        localization: How far a datum is seen, for ``"letkf"``.
        seed: The seed of the ensemble behind mean and standard deviation.

    Raises:
        ValueError: If ``size`` is under two, ``lag`` is negative, or the analysis is not known.

    Example:
        >>> import matheron as mt
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.priors.dynamics import StrongConstraint
        >>> grid = mt.Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 9.0).double()
        >>> prior = StrongConstraint(grid, Lorenz63(), 8, start)
        >>> seen = mt.PointObservation(grid, mt.Points(time=[2.0, 4.0], x=[0.0, 0.0]), 0.5)
        >>> posterior = EnsembleKalman(20)(prior, seen)(torch.tensor([1.0, 3.0]).double())
        >>> posterior.sample(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 15])
    """

    requires: ClassVar[type[Prior]] = Markovian

    def __init__(
        self,
        size: int = 50,
        method: str = "etkf",
        lag: int | None = None,
        inflation: float | str = 1.0,
        rotation: bool = False,
        localization: Localization | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lag is not None and lag < 0:
            msg = (
                f"EnsembleKalman(lag=...): expected zero or more, or None, got {lag}. Use None "
                "for a smoother, 0 for a filter."
            )
            raise ValueError(msg)
        self.size, self.lag, self.seed = size, lag, seed
        self.analysis = EnsembleAnalysis(method, inflation, rotation, localization)

    def prepare(self, prior: Markovian, observation: Observation) -> _Filtered:
        return _Filtered(self, prior, observation)


class _Filtered(EnsembleConditional):
    def __init__(self, solver: EnsembleKalman, prior: Markovian, observation: Observation) -> None:
        where = type(solver).__name__
        super().__init__(where, prior, observation, solver.size, solver.seed)
        self.analysis, self.lag = solver.analysis, solver.lag
        self.coefficients = [self._coefficients(k) for k in range(prior.times)]

    def _coefficients(self, k: int) -> Tensor | None:
        local = self.analysis.localization
        if local is None or len(self.arrivals.index[k]) == 0:
            return None
        return local.coefficients(self.arrivals.places(), self.arrivals.seen_places(k))

    def run(
        self, y: Float[Tensor, " m"], generator: Generator | None
    ) -> tuple[Float[Tensor, "size n"], dict[str, Any]]:
        states: list[Tensor] = []
        for k in range(self.prior.times):
            states.append(self._forecast(states, generator))
            if len(self.arrivals.index[k]):
                self._correct(k, states, y, generator)
        return torch.cat(states, dim=-1), {"method": self.analysis.method}

    def _forecast(self, states: list[Tensor], generator: Generator | None) -> Tensor:
        if not states:
            return self.prior.initial_sample(self.size, generator)
        return self.prior.advance(states[-1]) + self.prior.error_sample(self.size, generator)

    def _correct(self, k: int, states: list[Tensor], y: Tensor, generator: Any) -> None:
        since = 0 if self.lag is None else max(0, k - self.lag)
        states[since:] = self.analysis.update(
            states[since:],
            self.arrivals.predict(k, states),
            y[self.arrivals.index[k]],
            self.arrivals.noise(k),
            generator,
            self.coefficients[k],
        )
        states[-1] = self.analysis.spread(states[-1])


class IterativeEnsembleKalman(Solver[Markovian]):
    r"""The iterative ensemble Kalman smoother: 4DVar in the space of an ensemble, no adjoint.

    Data are taken in one time after the other; each time the first state of a window that ends
    there is corrected by Gauss-Newton, through the nonlinear model. The model is perfect.

    References:
        | An iterative ensemble Kalman smoother (Bocquet & Sakov, 2014)
        | https://doi.org/10.1002/qj.2236

    Arguments:
        size: The number :math:`N` of members.
        lag: The length of the window, in times of the domain; ``None`` for all that came before.
        iterations: The most iterations for the data of one time.
        tolerance: The change of the mean, in standard deviations, that stops them.
        inflation: The factor of the anomalies after the data of each time.
        rotation: Whether they are rotated at random then.
        strict: Whether iterations that did not converge are an error.
        seed: The seed of the ensemble behind mean and standard deviation.

    Raises:
        ValueError: If ``size`` is under two, ``lag`` or ``iterations`` under one, or the model
            has errors.

    Example:
        >>> import matheron as mt
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.priors.dynamics import StrongConstraint
        >>> grid = mt.Grid(time=torch.arange(5.0), x=torch.arange(3.0))
        >>> start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 9.0).double()
        >>> prior = StrongConstraint(grid, Lorenz63(), 8, start)
        >>> seen = mt.PointObservation(grid, mt.Points(time=[2.0, 4.0], x=[0.0, 0.0]), 0.5)
        >>> posterior = IterativeEnsembleKalman(20)(prior, seen)(torch.tensor([1.0, 3.0]).double())
        >>> posterior.info["converged"]
        True
    """

    requires: ClassVar[type[Prior]] = Markovian

    def __init__(
        self,
        size: int = 20,
        lag: int | None = None,
        iterations: int = 20,
        tolerance: float = 1e-3,
        inflation: float = 1.0,
        rotation: bool = False,
        strict: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (lag is not None and lag < 1) or iterations < 1:
            msg = (
                f"IterativeEnsembleKalman(lag=..., iterations=...): expected one or more, got "
                f"{lag} and {iterations}. Raise them."
            )
            raise ValueError(msg)
        self.size, self.lag, self.seed, self.strict = size, lag, seed, strict
        self.iterations, self.tolerance = iterations, tolerance
        self.after = EnsembleAnalysis("etkf", inflation, rotation)

    def prepare(self, prior: Markovian, observation: Observation) -> _Iterated:
        if prior.error is not None:
            msg = (
                "IterativeEnsembleKalman(prior=...): expected a perfect model, got one with "
                "errors. Use EnsembleKalman(), or Variational() with a WeakConstraint prior."
            )
            raise ValueError(msg)
        return _Iterated(self, prior, observation)


class _Iterated(EnsembleConditional):
    def __init__(
        self, solver: IterativeEnsembleKalman, prior: Markovian, observation: Observation
    ) -> None:
        where = type(solver).__name__
        super().__init__(where, prior, observation, solver.size, solver.seed)
        self.solver = solver

    def run(
        self, y: Float[Tensor, " m"], generator: Generator | None
    ) -> tuple[Float[Tensor, "size n"], dict[str, Any]]:
        done, window, residual = [], 0, 0.0
        E = self.prior.initial_sample(self.size, generator)
        for k in range(self.prior.times):
            if self.solver.lag is not None and k - window > self.solver.lag:
                done.append(E)
                E, window = self.prior.advance(E), window + 1
            if len(self.arrivals.index[k]):
                E, change = self._correct(E, k, window, y)
                E, residual = self.solver.after.refresh(E, generator), max(residual, change)
        done.extend(self._ahead(E, self.prior.times - 1 - window))
        return torch.cat(done, dim=-1), self._said(residual)

    def _ahead(self, x: Tensor, intervals: int) -> list[Tensor]:
        states = [x]
        for _ in range(intervals):
            states.append(self.prior.advance(states[-1]))
        return states

    def _correct(self, E: Tensor, k: int, window: int, y: Tensor) -> tuple[Tensor, float]:
        return gauss_newton(
            E,
            lambda x: self.arrivals.predict(k, self._ahead(x, k - window), window),
            y[self.arrivals.index[k]],
            self.arrivals.noise(k),
            self.solver.iterations,
            self.solver.tolerance,
        )

    def _said(self, residual: float) -> dict[str, Any]:
        converged = residual < self.solver.tolerance
        if self.solver.strict and not converged:
            msg = (
                f"IterativeEnsembleKalman(iterations=...): expected a change under "
                f"{self.solver.tolerance}, got {residual:.3g} after {self.solver.iterations}. "
                "Shorten the time between data, add members, or pass strict=False."
            )
            raise ValueError(msg)
        return {"converged": converged, "residual": residual}
