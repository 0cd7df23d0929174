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

import torch
import warnings

from dataclasses import replace

from .challenge import oi_odc2020a
from .problem import Mapped, Problem, Say, superobs
from ..domain import Grid, Points
from ..fit import Fit, maximum_likelihood
from ..kernels import Kernel, Matern, Product, separable
from ..kernels.arhan_colin import arhan_colin
from ..observations import LinearObservation
from ..posterior import Posterior
from ..priors import GaussianProcess
from ..priors.base import KernelPrior
from ..priors.lagrangian import LagrangianProcess
from ..priors.spde.velocity import Given, geostrophic
from ..selection import choose, instruments
from ..selection.choice import scale_of
from ..solvers.kriging import Kriging
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
LONGER = (1.0, 1.5, 2.0, 3.0)
"""The memory of water that is followed, over that at a fixed place: to choose from."""
HELD = 5
"""One pass in so many is held out to choose by."""
DUACS_LENGTHS = (150e3, 200e3, 250e3, 300e3, 400e3)
"""First zeros to choose from, in metres."""
DUACS_DURATIONS = (7.0, 10.0, 15.0, 20.0)
"""Times to choose from, in days."""
NOISY = 0.1
"""The std of the noise, over that of the field, where the covariance is too smooth."""


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
    if len(t) <= FIT:
        return problem
    first = (len(t) - FIT) // 2
    return problem.near(t[first].item(), t[first + FIT - 1].item())


def _words(prior: GaussianProcess) -> str:
    rows = [row for row in prior.quantities() if "^(2 nu)" not in row[0]]
    return ", ".join(f"{name} {value.item():.4g} {units}" for name, value, units in rows)


def observed(problem: Problem, like: LinearObservation) -> tuple[LinearObservation, torch.Tensor]:
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
    spacing, found = FEWEST, superobs(problem, FEWEST)
    while _most(found, half) > WINDOW:
        spacing *= 1.2
        found = superobs(problem, spacing)
    return half, found


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
    r"""Optimal interpolation with scales, smoothness and noise of largest likelihood."""
    prior, seen = fitted(superobs(problem, FEWEST), separated(problem, 1.5, 1.5, free=True), say)
    return Mapped(local(problem, prior, seen, say), problem.shift)


def tuned_duacs(problem: Problem, say: Say) -> Mapped:
    r"""Optimal interpolation with the covariance of Arhan and Colin de Verdiere, as DUACS has it.

    Its scales are those that predict passes held out: the likelihood of a field as smooth as this
    sees the shortest lags alone. The variance is that of the data, and the noise a tenth of their
    std, which stands for what the covariance is too smooth for.
    """
    data, variance = superobs(problem, FEWEST), scale_of(problem.anomalies) ** 2
    noise = NOISY * variance**0.5
    own = data.noise if data.noise is not None else torch.zeros(len(data)).double()
    data = replace(data, noise_std=(own.square() + noise**2).sqrt())
    like, _ = instruments(data.grid, data.points, data.anomalies, data.noise, data.groups)
    scores: dict[tuple[float, float], float] = {}
    for length in DUACS_LENGTHS:
        for duration in DUACS_DURATIONS:
            prior = GaussianProcess(arhan_colin(length, duration, variance), data.grid)
            scores[length, duration] = _held_out(data, like, prior)
    length, duration = min(scores, key=lambda k: scores[k])
    say(f"first zero at {length / 1e3:g} km, {duration:g} days, by passes held out")
    prior = GaussianProcess(arhan_colin(length, duration, variance), problem.grid)
    return Mapped(local(data, prior, like, say), problem.shift)


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
    r"""Optimal interpolation of water that is followed along a first guess of the flow.

    The flow is that in balance with the map of the tuned optimal interpolation, mean included.
    How much longer water remembers than places do is chosen on passes that are held out.
    """
    data = superobs(problem, FEWEST)
    plain, seen = fitted(data, separated(problem, 1.5, 1.5, free=True), say)
    first = local(problem, plain, seen, say).mean + problem.shift
    east, north = geostrophic(problem.grid, first)
    flow = Given(problem.grid, torch.stack([north, east], dim=-1) * 86400.0)
    scores = {r: _held_out(data, seen, _carried(plain, flow, r, data.grid)) for r in LONGER}
    best = min(scores, key=lambda r: scores[r])
    shown = {r: round(v, 5) for r, v in scores.items()}
    say(f"memory {best:g} times longer in moving water: held-out error by ratio {shown}")
    prior = _carried(plain, flow, best, problem.grid)
    half, data = window_of(problem, plain)
    observation, y = observed(data, seen)
    solver = LocalKriging(window=half * min(best, 1.5), max_size=10 * WINDOW)
    return Mapped(solver(prior, observation)(y), problem.shift, {"longer": best})


def _carried(plain: GaussianProcess, flow: Given, longer: float, grid: Grid) -> LagrangianProcess:
    time, space = parts(plain.kernel)
    slow = Matern(time.nu.item(), 1.0, time.lengthscale.item() * longer, axes="time")
    return LagrangianProcess(separable(slow, space), grid, flow)


def _on(prior: GaussianProcess | LagrangianProcess, points: Points) -> KernelPrior:
    if isinstance(prior, LagrangianProcess):
        return prior.on(points)
    return GaussianProcess(prior.kernel, points)


@torch.no_grad()
def _held_out(
    problem: Problem, like: LinearObservation, prior: GaussianProcess | LagrangianProcess
) -> float:
    r"""Returns the error at passes left out, in the windows about a few times.

    Without passes there is none to tell by: zero, and the first of the choices is kept.
    """
    if problem.passes is None:
        return 0.0
    times = problem.grid.axes["time"]
    total, count = 0.0, 0
    for time in torch.quantile(times, torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)):
        near = problem.near(time.item() - 8.0, time.item() + 8.0)
        near = superobs(near, 0.3)
        assert near.passes is not None
        out = near.passes % HELD == 0
        t = near.points.since(problem.grid.epoch).axis("time")
        out_now = out & ((t - time).abs() < 1.5)
        if out.all() or not out_now.any():
            continue
        kept, left = near.take(~out), near.take(out_now)
        seen, y = observed(kept, like)
        law = prior.at(time.item()) if isinstance(prior, LagrangianProcess) else prior
        mean = Kriging()(_on(law, left.points), seen)(y).mean
        total += (mean - left.anomalies).square().sum().item()
        count += len(left)
    return (total / max(count, 1)) ** 0.5
