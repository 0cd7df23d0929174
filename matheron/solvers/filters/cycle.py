r"""Twin experiments over many cycles, of which only the statistics are kept."""

from __future__ import annotations

__all__ = ["CycleScores", "TwinExperiment"]

import math
import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor

from .schemes import Scheme, System
from ...dynamics import Dynamics


@dataclass(frozen=True)
class CycleScores:
    r"""What many cycles say of a scheme, each score a mean over cycles and experiments.

    Arguments:
        rmse: The error of the mean of the analyses: the root of the mean square over components.
        forecast_rmse: That of the forecasts.
        spread: The spread of the analyses.
        standard_error: The standard error of ``rmse``, between the independent experiments; NaN
            for one.
        analyses: The number of analyses that were scored.
        experiments: The error of each experiment; far above the others where a filter lost track.
    """

    rmse: float
    forecast_rmse: float
    spread: float
    standard_error: float
    analyses: int
    experiments: Float[Tensor, " e"]


class TwinExperiment:
    r"""A truth that a model makes, and noisy data of it at every cycle.

    Several experiments run side by side, each with its own truth and noise: ten of a thousand
    cycles, after a spin-up, tell as much as one of ten thousand.

    Arguments:
        model: The model, of the truth and of the forecasts.
        steps: The number of its time steps in one cycle.
        noise_std: The standard deviation of the noise of the data.
        observe: What is seen of a flat state, linear; all of it by default.
        places: The places of the components, with shape :math:`(s, d)`, for localisation.
        seen_places: The places of the data, with shape :math:`(m, d)`; ``places`` by default.
        start: The first states, for a batch shape, near the attractor.
        warm_up: The number of time steps from there to the attractor.
        first_std: The spread of the first ensemble, and the error of its mean; ``noise_std`` by
            default.

    Raises:
        ValueError: If ``steps`` is not positive.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.solvers.filters import EnsembleAnalysis, EnsembleCycle
        >>> model = Lorenz63()
        >>> twin = TwinExperiment(model, 10, 1.0, start=model.initial, warm_up=200)
        >>> scheme = EnsembleCycle(10, EnsembleAnalysis("etkf", inflation=1.02))
        >>> scores = twin(scheme, 20, 5, 2, torch.Generator().manual_seed(0))
        >>> scores.rmse < 1.0, scores.analyses
        (True, 40)
    """

    def __init__(
        self,
        model: Dynamics,
        steps: int,
        noise_std: float,
        start: Callable[[Generator | None, tuple[int, ...]], Tensor],
        observe: Callable[[Tensor], Tensor] | None = None,
        places: Float[Tensor, "s d"] | None = None,
        seen_places: Float[Tensor, "m d"] | None = None,
        warm_up: int = 1000,
        first_std: float | None = None,
    ) -> None:
        if steps < 1:
            msg = f"TwinExperiment(steps=...): expected one or more, got {steps}. Raise it."
            raise ValueError(msg)
        self.model, self.steps, self.noise_std = model, steps, noise_std
        self.begin, self.warm_up = start, warm_up
        self.first_std = noise_std if first_std is None else first_std
        observe = observe or torch.clone
        data = observe(torch.zeros(math.prod(model.shape), dtype=torch.float64)).shape[-1]
        noise = torch.full((data,), noise_std**2, dtype=torch.float64)
        seen_places = places if seen_places is None else seen_places
        self.system = System(self.advance, observe, noise, places, seen_places)

    def advance(self, x: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch s"]:
        r"""Returns flat states one cycle later."""
        state = x.reshape(*x.shape[:-1], *self.model.shape)
        moved: Tensor = self.model(state, self.steps)
        return moved.reshape(x.shape)

    @torch.no_grad()
    def climate(
        self, members: int = 100, samples: int = 200, generator: Generator | None = None
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, "s s"]]:
        r"""Returns mean and covariance of the states of long runs, one sample per cycle."""
        x = self._truth(members, generator)
        states = []
        for _ in range(samples):
            x = self.advance(x)
            states.append(x)
        flat = torch.cat(states)
        return flat.mean(dim=0), torch.cov(flat.mT)

    def _truth(self, experiments: int, generator: Generator | None) -> Float[Tensor, "e s"]:
        x = self.begin(generator, (experiments,))
        moved: Tensor = self.model(x, self.warm_up)
        return moved.reshape(experiments, -1)

    @torch.no_grad()
    def __call__(
        self,
        scheme: Scheme,
        analyses: int = 1000,
        spin_up: int = 100,
        experiments: int = 10,
        generator: Generator | None = None,
    ) -> CycleScores:
        r"""Returns the scores of a scheme.

        Arguments:
            scheme: The scheme.
            analyses: The number of cycles that are scored, in each experiment.
            spin_up: The number of cycles before.
            experiments: The number of experiments.
            generator: The random number generator.
        """
        truth = self._truth(experiments, generator)
        carried = scheme.start(self._first(truth, scheme.size, generator))
        totals = torch.zeros(3, experiments, dtype=torch.float64)
        before = truth
        for k in range(spin_up + analyses):
            truth = self.advance(truth)
            y = self.system.observe(truth)
            y = y + self.noise_std * torch.randn(y.shape, dtype=y.dtype, generator=generator)
            forecast = self.advance(before)
            carried, analysis = scheme.cycle(carried, y, self.system, generator)
            before = analysis.mean
            if k >= spin_up:
                totals[0] += _rmse(before - truth)
                totals[1] += _rmse(forecast - truth)
                totals[2] += analysis.spread
        return _scores(totals / analyses, analyses * experiments)

    def _first(self, truth: Tensor, size: int, generator: Generator | None) -> Tensor:
        shape = (len(truth), 1 + size, truth.shape[-1])
        z = torch.randn(shape, dtype=torch.float64, generator=generator)
        return truth[:, None] + self.first_std * (z[:, :1] + (z[:, 1:] if size > 1 else 0.0))


def _rmse(error: Tensor) -> Tensor:
    return error.square().mean(dim=-1).sqrt()


def _scores(means: Float[Tensor, "3 e"], count: int) -> CycleScores:
    rmse, forecast, spread = means.mean(dim=-1).tolist()
    experiments = means.shape[-1]
    error = (means[0].std() / experiments**0.5).item() if experiments > 1 else math.nan
    return CycleScores(rmse, forecast, spread, error, count, means[0])
