r"""Optimal interpolation by Gaussian processes: that of the challenge, tuned, and others."""

from __future__ import annotations

__all__ = [
    "challenge",
    "dymost",
    "fitted",
    "local",
    "observed",
    "parts",
    "separated",
    "tuned",
    "tuned_duacs",
    "vecchia",
]

import math
import torch
import warnings

from collections.abc import Mapping
from dataclasses import dataclass, replace
from torch import Tensor

from .challenge import oi_odc2020a
from .held_out import SIZE, WINDOWS, Chosen, Covariance, HeldOut
from .moving import carried, moving
from .problem import Mapped, Problem, Say, superobs
from ..domain import Points
from ..fit import Fit, maximum_likelihood
from ..kernels import Kernel, Matern, Product, separable
from ..kernels.arhan_colin import arhan_colin
from ..observations import LinearObservation
from ..posterior import Posterior
from ..priors import GaussianProcess
from ..priors.base import KernelPrior
from ..selection import choose, instruments
from ..selection.choice import scale_of
from ..solvers.local import LocalKriging
from ..solvers.vecchia import Vecchia

FEWEST = 0.1
"""The width of the finest cells that data are averaged over, in degrees."""
WINDOW = 2500
"""The most data of a window."""
CORRELATION = 0.1
"""The correlation in time at which a window ends: what is beyond says little that is new."""
FIT = 12_000
"""The most data of a fit."""
START = 4000
"""The data of the fit that a search starts from."""
SMOOTH = (1.5, 2.5, 3.5)
"""The smoothness, in time and in space: to choose from."""
NOISY = 0.1
"""The std of what the covariance is too smooth for, over that of the field: a first guess."""
OPERATIONS = 1.3e10
"""The multiplications of a window that its std may take."""


def challenge(problem: Problem, say: Say) -> Mapped:
    r"""The optimal interpolation of the 2020a challenge: nothing is tuned, no mean is removed."""
    say("fixed scales: 1 degree, 7 days; variance 1, noise .05")
    points, values = problem.blocks or (problem.points, problem.values)
    posterior = oi_odc2020a(points, values, problem.grid)
    return Mapped(posterior, torch.zeros(len(problem.grid), dtype=torch.float64))


def separated(problem: Problem, nu: float, nu_time: float, free: bool = False) -> Product:
    r"""Returns a separable covariance at a first guess: a part in time, a part in space."""
    variance = scale_of(problem.anomalies) ** 2
    time = Matern(nu_time, 1.0, 12.0, axes="time")
    time.log_variance.requires_grad_(False)  # that of space says it
    return separable(time, Matern(nu, variance, 100e3, axes="space", learn_nu=free))


def parts(kernel: Kernel) -> tuple[Matern, Matern]:
    r"""Returns the parts of a separable covariance, in time and in space."""
    assert isinstance(kernel, Product)
    time, space = kernel.parts
    assert isinstance(time, Matern)
    assert isinstance(space, Matern)
    return time, space


def fitted(
    problem: Problem, kernel: Kernel, say: Say, most: int = FIT
) -> tuple[GaussianProcess, LinearObservation]:
    r"""Returns a prior of largest likelihood, on the grid, and the noise of the data.

    The likelihood is Vecchia's, of the data of a stretch of time in the middle where there are
    too many.
    """
    data = _stretch(problem, most)
    observation, y = instruments(data.grid, data.points, data.anomalies, data.noise, data.groups)
    prior = GaussianProcess(kernel, data.grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        maximum_likelihood(prior, observation, y, Vecchia(30), steps=15, refresh=2, tolerance=0.5)
    assert isinstance(prior.fitted, Fit)
    say(f"fitted on {len(y)} data: {_words(prior)}")
    return prior, observation


def _stretch(problem: Problem, most: int) -> Problem:
    t = problem.points.since(problem.grid.epoch).axis("time").sort().values
    if len(t) <= most:
        return problem
    first = (len(t) - most) // 2
    return problem.near(t[first].item(), t[first + most - 1].item())


def _words(prior: GaussianProcess) -> str:
    rows = [row for row in prior.quantities() if "^(2 nu)" not in row[0]]
    return ", ".join(f"{name} {value.item():.4g} {units}" for name, value, units in rows)


def observed(problem: Problem, like: LinearObservation) -> tuple[LinearObservation, Tensor]:
    r"""Returns the observation of data with the noise that was fitted on others of its kind."""
    seen, y = instruments(
        problem.grid, problem.points, problem.anomalies, problem.noise, problem.groups
    )
    # the scale is that of a first guess, which is another for other data
    known = {
        k: v
        for k, v in like.state_dict().items()
        if k.endswith("log_scale") or (k.endswith(".std") and v.ndim == 0)
    }
    seen.load_state_dict(known, strict=False)
    return seen, y


def window_of(problem: Problem, prior: KernelPrior) -> tuple[float, Problem]:
    r"""Returns the half-width of the windows, and data that are few enough for them."""
    lag = torch.arange(1.0, 61.0, dtype=torch.float64)
    site = prior.domain.points[:1]
    later = site.coords.repeat(60, 1)
    later[:, 0] += lag
    points = type(site)(later, site.dims, metric=site.metric, epoch=site.epoch)
    c = prior.covariance(site, points)[0] / prior.variance(site)
    near = torch.nonzero(c < CORRELATION)[:, 0]
    half = lag[near[0]].item() if len(near) else 60.0
    return half, within(problem, half)


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


@torch.no_grad()
def local(problem: Problem, prior: KernelPrior, like: LinearObservation, say: Say) -> Posterior:
    r"""Returns the posterior by moving windows."""
    half, data = window_of(problem, prior)
    say(f"windows of {half:g} days to each side, {len(data)} data after averaging")
    seen, y = observed(data, like)
    return LocalKriging(window=half, max_size=10 * WINDOW)(prior, seen)(y)


def tuned(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation with the scales, smoothness and noise that predict held-out data.

    Those of largest likelihood are where the search starts: it sees the shortest lags alone.
    """
    data = superobs(problem, FEWEST)
    first, seen = fitted(data, separated(data, 2.5, 2.5), say, START)
    held, start, kernel = held_out(data, seen), scales_of(first), Smooth(problem, 2.5, 2.5)
    best = held.choose(kernel.covariance, start, NOISY * kernel.std)
    for timed in (True, False):
        for nu in SMOOTH:
            other = replace(kernel, nu_time=nu) if timed else replace(kernel, nu=nu)
            if other == kernel:
                continue
            found = held.choose(other.covariance, best.scales, best.noise, step=0.15)
            if found.error < best.error:
                kernel, best = other, found
    say(f"smoothness {kernel.nu_time:g} in time, {kernel.nu:g} in space; {best.words()}")
    prior = GaussianProcess(kernel.of(best.scales, best.factor), problem.grid)
    return smoothed(problem, prior, seen, best, say)


def tuned_duacs(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation with the covariance of Arhan and Colin de Verdiere, as DUACS has it.

    Its scales, and the noise that stands for what it is too smooth for, are those that predict
    passes held out: the likelihood of a field as smooth as this sees the shortest lags alone.
    """
    data, variance = superobs(problem, FEWEST), scale_of(problem.anomalies) ** 2
    seen, _ = instruments(data.grid, data.points, data.anomalies, data.noise, data.groups)
    if data.noise is None:
        _, seen = fitted(data, separated(data, 2.5, 2.5), say, START)

    def covariance(x: Mapping[str, float]) -> Covariance:
        return plain(arhan_colin(x["lengthscale"], x["duration"], variance))

    start = {"lengthscale": 150e3, "duration": 10.0}
    best = held_out(data, seen).choose(covariance, start, NOISY * variance**0.5)
    say(f"by passes held out: {best.words()}")
    length, duration = best.scales["lengthscale"], best.scales["duration"]
    kernel = arhan_colin(length, duration, variance * best.factor)
    return smoothed(problem, GaussianProcess(kernel, problem.grid), seen, best, say)


@dataclass(frozen=True)
class Smooth:
    r"""Separable Matern covariances with the variance of some data, of a given smoothness."""

    problem: Problem
    nu_time: float
    nu: float

    @property
    def std(self) -> float:
        r"""The std of the data."""
        return scale_of(self.problem.anomalies)

    def of(self, scales: Mapping[str, float], factor: float = 1.0) -> Product:
        r"""Returns the covariance of some scales, with the variance times a factor."""
        time = Matern(self.nu_time, 1.0, scales["duration"], axes="time")
        space = Matern(self.nu, factor * self.std**2, scales["lengthscale"], axes="space")
        return separable(time, space)

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


def vecchia(problem: Problem, say: Say) -> Mapped:
    r"""A Gaussian process whose structure is chosen by held-out data, by near neighbours."""
    data = superobs(problem, FEWEST)
    choice = choose(
        data.grid,
        data.points,
        data.anomalies,
        data.noise,
        data.groups,
        trend="1",
        seed=data.seed,
        say=say,
    )
    posterior = Vecchia(30, 60)(choice.prior, choice.observation)(choice.y)
    return Mapped(posterior, problem.shift, {"structure": choice.structure})


def dymost(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation of structures that are followed as a quasi-geostrophic model says.

    The model tells the drift of a first map, another optimal interpolation, mean included. How
    much of it carries, and how much longer what moves is remembered, is chosen by held-out passes.
    """
    data, law = superobs(problem, FEWEST), Smooth(problem, 2.5, 2.5)
    start, seen = fitted(data, separated(data, 2.5, 2.5), say, START)
    held = held_out(data, seen)
    best = held.choose(law.covariance, scales_of(start), NOISY * law.std)
    say(best.words())
    still = GaussianProcess(law.of(best.scales, best.factor), problem.grid)
    first = smoothed(problem, still, seen, best, say)
    found = moving(problem, held, lambda c: law.of(c.scales, c.factor), best, first.mean, say)
    chosen = found.chosen
    prior = carried(problem, law.of(chosen.scales, chosen.factor), found.velocity)
    half, fewer = window_of(problem, still)
    observation, y = noisy(fewer, seen, chosen)
    solver = LocalKriging(window=half * min(found.longer, 1.5), max_size=10 * WINDOW)
    info = {"drift": found.part, "longer": found.longer}
    return Mapped(solver(prior, observation)(y), problem.shift, info, chosen.unresolved)
