r"""What mappers share: covariances, the noise of data, scales that predict what is held out."""

from __future__ import annotations

__all__ = [
    "FEWEST",
    "NOISY",
    "Prepared",
    "Smooth",
    "fitted",
    "held_out",
    "noisy",
    "own_noise",
    "parts",
    "plain",
    "prepared",
    "reach_of",
    "scales_of",
    "separated",
    "smoothed",
    "window_of",
    "within",
]

import math
import torch
import warnings

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from torch import Tensor

from .held_out import SIZE, WINDOWS, Chosen, Covariance, HeldOut
from .problem import Mapped, Problem, Say, superobs
from ..domain import Points
from ..fit import Fit, maximum_likelihood
from ..kernels import Kernel, Matern, Product, separable
from ..observations import LinearObservation
from ..priors import GaussianProcess
from ..priors.base import KernelPrior
from ..selection import instruments
from ..selection.choice import scale_of
from ..solvers.local import LocalKriging
from ..solvers.vecchia import Vecchia

FEWEST = 0.1
"""The width of the finest cells that data are averaged over, in degrees."""
WINDOW = 2500
"""The most data of a window."""
CORRELATION = 0.1
"""The correlation in time at which a window ends: what is beyond says little that is new."""
START = 4000
"""The data of the fit that a search starts from."""
NOISY = 0.1
"""The std of what the covariance is too smooth for, over that of the field: a first guess."""
OPERATIONS = 1.3e10
"""The multiplications of a window that its std may take."""


def separated(problem: Problem, nu: float, nu_time: float) -> Product:
    r"""Returns a separable covariance at a first guess: a part in time, a part in space."""
    variance = scale_of(problem.anomalies) ** 2
    time = Matern(nu_time, 1.0, 12.0, axes="time")
    time.log_variance.requires_grad_(False)  # that of space says it
    return separable(time, Matern(nu, variance, 100e3, axes="space"))


def parts(kernel: Kernel) -> tuple[Matern, Matern]:
    r"""Returns the parts of a separable covariance, in time and in space."""
    assert isinstance(kernel, Product)
    time, space = kernel.parts
    assert isinstance(time, Matern)
    assert isinstance(space, Matern)
    return time, space


def fitted(
    problem: Problem, kernel: Kernel, say: Say
) -> tuple[GaussianProcess, LinearObservation]:
    r"""Returns a prior of largest likelihood, on the grid, and the noise of the data.

    The likelihood is Vecchia's, of the data of a stretch of time in the middle where there are
    too many.
    """
    data = _stretch(problem)
    observation, y = instruments(data.grid, data.points, data.anomalies, data.noise, data.groups)
    prior = GaussianProcess(kernel, data.grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        maximum_likelihood(prior, observation, y, Vecchia(30), steps=15, refresh=2, tolerance=0.5)
    assert isinstance(prior.fitted, Fit)
    say(f"fitted on {len(y)} data: {_words(prior)}")
    return prior, observation


def _stretch(problem: Problem) -> Problem:
    t = problem.points.since(problem.grid.epoch).axis("time").sort().values
    if len(t) <= START:
        return problem
    first = (len(t) - START) // 2
    return problem.near(t[first].item(), t[first + START - 1].item())


def _words(prior: GaussianProcess) -> str:
    rows = [row for row in prior.quantities() if "^(2 nu)" not in row[0]]
    return ", ".join(f"{name} {value.item():.4g} {units}" for name, value, units in rows)


def window_of(problem: Problem, prior: KernelPrior) -> tuple[float, Problem]:
    r"""Returns the half-width of the windows, and data that are few enough for them."""
    half = reach_of(prior, CORRELATION)
    return half, within(problem, half)


def reach_of(prior: KernelPrior, correlation: float) -> float:
    r"""Returns the days after which the correlation in time has fallen to a number."""
    lag = torch.arange(1.0, 61.0, dtype=torch.float64)
    site = prior.domain.points[:1]
    later = site.coords.repeat(60, 1)
    later[:, 0] += lag
    points = type(site)(later, site.dims, metric=site.metric, epoch=site.epoch)
    c = prior.covariance(site, points)[0] / prior.variance(site)
    near = torch.nonzero(c < correlation)[:, 0]
    return lag[near[0]].item() if len(near) else 60.0


def within(problem: Problem, half: float, most: int = WINDOW) -> Problem:
    r"""Returns averages of the data that are few enough for windows of a half-width."""
    spacing, found = FEWEST, superobs(problem, FEWEST)
    room = min(most, math.sqrt(OPERATIONS * len(problem.grid.axes["time"]) / len(problem.grid)))
    while _most(found, half) > room:
        spacing *= 1.2
        found = superobs(problem, spacing)
    return found


def _most(problem: Problem, half: float) -> int:
    t = problem.points.since(problem.grid.epoch).axis("time").sort().values
    times = problem.grid.axes["time"]
    inside = torch.searchsorted(t, times + half) - torch.searchsorted(t, times - half)
    return int(inside.max())


@dataclass(frozen=True)
class Smooth:
    r"""Separable Matern covariances with the variance of some data, of a given smoothness."""

    problem: Problem
    nu_time: float
    nu: float

    @cached_property
    def std(self) -> float:
        r"""The std of the data."""
        return scale_of(self.problem.anomalies)

    def of(self, scales: Mapping[str, float], factor: float = 1.0) -> Product:
        r"""Returns the covariance of some scales, with the variance times a factor."""
        time = Matern(self.nu_time, 1.0, scales["duration"], axes="time")
        space = Matern(self.nu, factor * self.std**2, scales["lengthscale"], axes="space")
        return separable(time, space)

    def chosen(self, choice: Chosen) -> Product:
        r"""Returns the covariance that was chosen."""
        return self.of(choice.scales, choice.factor)

    def covariance(self, scales: Mapping[str, float]) -> Covariance:
        r"""Returns it as a function of points."""
        return plain(self.of(scales))


def plain(kernel: Kernel) -> Covariance:
    r"""Returns the covariance of a Gaussian process, which is the same at all times."""

    def covariance(time: float, points: Points) -> Tensor:
        x = GaussianProcess(kernel, points).coordinates(points)
        return kernel(x, x)

    return covariance


def scales_of(prior: GaussianProcess) -> dict[str, float]:
    r"""Returns the scales of a separable prior."""
    time, space = parts(prior.kernel)
    return {"lengthscale": space.lengthscale.item(), "duration": time.lengthscale.item()}


def own_noise(seen: LinearObservation) -> float:
    r"""Returns the variance of the noise of an observation, its mean over the data."""
    return seen.noise_variance.detach().mean().item()


def held_out(
    problem: Problem, seen: LinearObservation, windows: int = WINDOWS, size: int = SIZE
) -> HeldOut:
    r"""Returns pieces of the data to choose by, with the noise and the biases of instruments."""
    biases = seen.bias_variance.detach()
    bias = biases.mean().item() if len(biases) else 0.0
    return HeldOut(problem, own_noise(seen), bias, windows, size)


def smoothed(
    problem: Problem, prior: KernelPrior, like: LinearObservation, chosen: Chosen, say: Say
) -> Mapped:
    r"""Returns the map with a prior and a noise that were chosen, by moving windows."""
    half, data = window_of(problem, prior)
    say(f"windows of {half:g} days to each side, {len(data)} data after averaging")
    observation, y = noisy(data, like, chosen)
    posterior = LocalKriging(window=half, max_size=10 * WINDOW)(prior, observation)(y)
    info = {**chosen.scales, "factor": chosen.factor}
    return Mapped(posterior, problem.shift, info, chosen.unresolved)


def noisy(
    data: Problem, like: LinearObservation, chosen: Chosen
) -> tuple[LinearObservation, Tensor]:
    r"""Returns the observation of data with the noise that was chosen beside their own."""
    own = data.noise
    own = torch.full((len(data),), own_noise(like)).double() if own is None else own.square()
    std = ((own + chosen.noise**2) * chosen.factor).sqrt()
    seen, y = instruments(data.grid, data.points, data.anomalies, std, data.groups)
    biases = {k: v for k, v in like.state_dict().items() if "bias" in k}
    seen.load_state_dict(biases, strict=False)
    return seen, y


@dataclass(frozen=True)
class Prepared:
    r"""Data, and what they choose.

    Arguments:
        data: The data, averaged.
        seen: Their observation, with the noise and the biases of the instruments.
        held: The pieces that are held out.
        chosen: The scales, and the noise, that predict them.
    """

    data: Problem
    seen: LinearObservation
    held: HeldOut
    chosen: Chosen


def prepared(
    problem: Problem, law: Smooth, say: Say, spacing: float = FEWEST, size: int = SIZE
) -> Prepared:
    r"""Returns what a separable covariance needs, by pieces that are held out.

    Those of largest likelihood are where the search starts: it sees the shortest lags alone.

    Arguments:
        problem: The problem.
        law: The covariance.
        say: Where to say what is found.
        spacing: The width of the cells that data are averaged over, in degrees.
        size: The most data of a window in which some are held out.
    """
    data = superobs(problem, spacing)
    first, seen = fitted(data, separated(data, law.nu, law.nu_time), say)
    held = held_out(data, seen, size=size)
    chosen = held.choose(law.covariance, scales_of(first), NOISY * law.std)
    say(f"by pieces held out: {chosen.words()}")
    return Prepared(data, seen, held, chosen)
