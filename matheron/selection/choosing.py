r"""The choice of a kernel by held-out blocks and by likelihood."""

from __future__ import annotations

__all__ = ["attempt", "choose", "ordered"]

import torch

from jaxtyping import Float, Int
from torch import Tensor

from .choice import Choice, Say, fit_quietly, instruments, scale_of
from .structures import Maker, candidates, plane_trend
from .trial import SAMPLE, Trial, judge, noise_like, sampled, trial_of, worse
from ..domain import Grid, Points
from ..fit import Fit
from ..observations import LinearObservation
from ..priors import GaussianProcess


def choose(
    domain: Grid | Points,
    points: Points,
    values: Float[Tensor, " m"],
    noise: Float[Tensor, " m"] | None = None,
    groups: Int[Tensor, " m"] | None = None,
    trend: str | None = None,
    neighbors: int = 30,
    seed: int = 0,
    say: Say | None = None,
) -> Choice:
    r"""Chooses the structure of a Gaussian process for some data, and fits it.

    Arguments:
        domain: Where the field is wanted: its distance to the data sets the size of the blocks.
        points: The points of the data.
        values: The data.
        noise: The std of each datum, if it is known; it is learned otherwise.
        groups: The instrument of each datum, each with a noise and a bias of its own.
        trend: The trend, if it is not to be chosen.
        neighbors: The number of neighbours of the last fit.
        seed: The seed of the blocks and of the sample.
        say: Called with one line for each decision.

    Returns:
        The prior on ``domain``, fitted on all the data, and how it was chosen.

    Example:
        >>> x = torch.linspace(0, 10, 60, dtype=torch.float64)
        >>> choice = choose(Points(x=[5.05]), Points(x=x), torch.sin(x))
        >>> choice.structure in choice.scores
        True
    """
    say = say or (lambda _: None)
    generator = torch.Generator().manual_seed(seed)
    observation, y = instruments(domain, points, values, noise, groups)
    codes = None if groups is None else ordered(groups)
    trial = trial_of(domain, observation, y, generator)
    makers = candidates(observation.points, scale_of(values) ** 2)
    if values.max() == values.min():  # a constant tells nothing of the structure
        makers = dict(list(makers.items())[:1])
    form = trend if trend is not None else plane_trend(observation.points)
    fits: dict[str, tuple[GaussianProcess, LinearObservation]] = {}
    judged: dict[str, Tensor] = {}
    block = torch.zeros(0)
    for name, make in makers.items():
        fitted = attempt(trial, make, form, noise is not None, codes)
        if fitted is not None:
            fits[name] = fitted
            judged[name], block = judge(trial, *fitted)
            say(f"  {name:<34} held-out CRPS {judged[name].mean():.4g}, BIC {_bic(fitted):.1f}")
    best = _choose_among(fits, judged, block)
    prior, seen = fits[best]
    structure, scores = best, {k: v.mean().item() for k, v in judged.items()}
    say(f"chosen: {best}, trend {prior.trend.formula if prior.trend else 'none'}")
    noise_like(observation, seen)
    final = _move(prior, domain)
    fit_quietly(final, observation, y, neighbors, refine=len(points) > SAMPLE)
    return Choice(final, observation, y, structure, scores)


def _bic(fitted: tuple[GaussianProcess, LinearObservation]) -> float:
    report = fitted[0].fitted
    assert isinstance(report, Fit)
    return report.bic


def _choose_among(
    fits: dict[str, tuple[GaussianProcess, LinearObservation]],
    judged: dict[str, Tensor],
    block: Tensor,
) -> str:
    r"""Returns the likeliest (by BIC) of those within an error of the best predictions."""
    if not fits:
        msg = (
            "choose(values=...): expected data that some covariance fits, got none. "
            "Check for a constant field or repeated coordinates."
        )
        raise ValueError(msg)
    first = min(judged, key=lambda k: judged[k].mean().item())
    equal = [k for k in judged if k == first or worse(judged[k], judged[first], block) < 1.0]
    return min(equal, key=lambda k: _bic(fits[k]))


def ordered(groups: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    return groups[torch.argsort(groups, stable=True)]


def _move(prior: GaussianProcess, domain: Grid | Points) -> GaussianProcess:
    r"""Returns the fitted kernel and trend as a prior on another domain."""
    formula = None if prior.trend is None else prior.trend.formula
    return GaussianProcess(prior.kernel, domain, prior.constant, formula)


def attempt(
    trial: Trial, make: Maker, trend: str, noise: bool, groups: Int[Tensor, " m"] | None
) -> tuple[GaussianProcess, LinearObservation] | None:
    observation, y = sampled(trial, noise, groups)
    prior = GaussianProcess(make(), observation.domain, trend=trend)
    try:
        fit_quietly(prior, observation, y, 15)
    except ValueError:  # singular at the first guess: not a model for these data
        return None
    return prior, observation
