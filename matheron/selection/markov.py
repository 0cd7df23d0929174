r"""The choice of a Markov prior: a quick fit of its covariance, a lattice, the likelihood."""

from __future__ import annotations

__all__ = ["choose_markov"]

import contextlib
import copy
import functools
import math
import torch
import warnings

from collections.abc import Sequence
from dataclasses import replace
from jaxtyping import Float, Int
from torch import Tensor

from .choice import Choice, Say, instruments, scale_of
from .choosing import attempt, ordered
from .lattices import COARSE, FINENESS, FINEST
from .laws import QUICK, MarkovField, MarkovLaw, narrowest
from .structures import Maker, extents, plane_trend
from .trial import Trial, noise_like, trial_of
from ..domain import EARTH_RADIUS, Grid, Points
from ..fit import Fit, maximum_likelihood
from ..kernels import Kernel, Matern, Product, separable
from ..observations import LinearObservation, PointObservation, Stack
from ..priors.spde.fields import Constant, ParameterField
from ..solvers.sparse_cholesky import SparseCholesky

FITTED = 30_000
"""The number of unknowns up to which the likelihood of the lattice itself is maximised."""
POLISHED = 12_000
"""The number of unknowns up to which it is so again on a finer lattice."""
LEAST = 1e-3
"""The least std of the noise, as a share of that of the data or of the field."""
LONGEST = 3.0
"""The longest lengthscale, in widths of the data."""
RAISES = 12
"""How many times a lengthscale is raised by a third before none will do."""
SOLVER = SparseCholesky()
POWERS = {1: (1.0, 2.0), 2: (1.5, 2.0), 3: (2.0,)}
"""The powers to choose from, by the number of axes: exponential, and smoother."""


def choose_markov(
    domain: Grid | Points,
    points: Points,
    values: Float[Tensor, " m"],
    noise: Float[Tensor, " m"] | None = None,
    groups: Int[Tensor, " m"] | None = None,
    trend: str | None = None,
    method: str = "spde",
    alpha: float | None = None,
    velocity: ParameterField | None = None,
    seed: int = 0,
    say: Say | None = None,
) -> tuple[Choice, MarkovLaw]:
    r"""Chooses a Markov prior for some data: its power, its lattice, its parameters.

    A Gaussian process with nearly its covariance is fitted to a sample first. Its scales set the
    lattice, which covers the target and the data, with about four steps per lengthscale. Then
    the likelihood of the Markov prior itself is maximised on all the data.

    Arguments:
        domain: Where the field is wanted.
        points: The points of the data.
        values: The data.
        noise: The std of each datum, if it is known; it is learned otherwise.
        groups: The instrument of each datum, each with a noise and a bias of its own.
        trend: The trend, if it is not to be chosen.
        method: ``"spde"`` for :class:`matheron.WhittleMatern`, where time is one more direction;
            ``"advection-diffusion"`` for :class:`matheron.AdvectionDiffusion`.
        alpha: The power of the operator; the likelier of two by default.
        velocity: The velocity of advection; a constant one is learned by default.
        seed: The seed of the sample.
        say: Called with one line for each decision.

    Returns:
        The prior on ``domain``, fitted, and its law apart from the lattice.

    Raises:
        ValueError: If the method needs time and the data have none, or ``alpha`` does not suit
            the number of axes, or the lattice would be too large.

    Example:
        >>> x = torch.linspace(0, 10, 60, dtype=torch.float64)
        >>> y = torch.sin(x) + 0.1 * torch.randn(60, generator=torch.Generator().manual_seed(0))
        >>> choice, law = choose_markov(Points(x=[5.05]), Points(x=x), y, alpha=2.0)
        >>> choice.structure
        'spde, alpha 2'
    """
    say = say or (lambda _: None)
    _check(method, alpha, domain)
    observation, y = instruments(domain, points, values, noise, groups)
    codes = None if groups is None else ordered(groups)
    trial = trial_of(domain, observation, y, torch.Generator().manual_seed(seed))
    form = plane_trend(observation.points) if trend is None else trend
    ranked = _quick(trial, method, alpha, form, noise is not None, codes, say)
    structure = _first_placed(ranked, domain, observation.points)
    law, seen, report = ranked[structure]
    say(f"chosen: {structure}, trend {form or 'none'}")
    noise_like(observation, seen)
    if method == "advection-diffusion":
        law = _carried(law, velocity, domain)
    prior, law = _refine(law, domain, observation, y, form, report, say)
    return Choice(prior, observation, y, structure), law


def _check(method: str, alpha: float | None, domain: Grid | Points) -> None:
    d, timed = len(domain.dims), "time" in domain.dims
    if method == "advection-diffusion":
        if not timed or d == 1:
            msg = (
                f"map(method={method}): expected data with time and place, got {domain.dims}. "
                "Name the column of time with --time, or use --method spde."
            )
            raise ValueError(msg)
        if alpha is not None and alpha not in {2.0, 4.0}:
            msg = (
                f"map(alpha={alpha}): expected 2 or 4 for {method}, got {alpha}. Leave it out "
                "for 2."
            )
            raise ValueError(msg)
    elif alpha is not None and not (d / 2 + 0.05 <= alpha <= 10):
        msg = (
            f"map(alpha={alpha}): expected a number over {d / 2:g} by 0.05 or more, half "
            f"the number of axes {domain.dims}, and at most 10, got {alpha}. Leave it out to "
            "choose by likelihood."
        )
        raise ValueError(msg)


Ranked = dict[str, tuple[MarkovLaw, LinearObservation, Fit]]


def _quick(
    trial: Trial,
    method: str,
    alpha: float | None,
    form: str,
    noise: bool,
    groups: Int[Tensor, " m"] | None,
    say: Say,
) -> Ranked:
    r"""Returns laws, with noise and report, fitted by a Gaussian process; the likeliest first."""
    found: Ranked = {}
    for name, (power, make) in _makers(trial, method, alpha).items():
        fitted = attempt(trial, make, form, noise, groups)
        if fitted is None:
            continue
        report = fitted[0].fitted
        assert isinstance(report, Fit)
        found[name] = (_law(fitted[0].kernel, method, power), fitted[1], report)
        say(f"  {name:<34} BIC {report.bic:.1f} (quick fit of its covariance)")
    if not found:
        msg = (
            "map(values=...): expected data that some covariance fits, got none. "
            "Check for a constant field or repeated coordinates."
        )
        raise ValueError(msg)
    return dict(sorted(found.items(), key=lambda item: item[1][2].bic))


def _first_placed(ranked: Ranked, domain: Grid | Points, points: Points) -> str:
    r"""Returns the likeliest structure whose scales a lattice can resolve."""
    for name, (law, _, _) in ranked.items():
        if law.spaced(domain, points, FINENESS) is not None:
            return name
    return next(iter(ranked))


def _makers(trial: Trial, method: str, alpha: float | None) -> dict[str, tuple[float, Maker]]:
    r"""Returns the covariances to try, with the power of each."""
    points, variance = trial.points, scale_of(trial.y) ** 2
    time, spans = extents(points)
    if method == "advection-diffusion":
        power = 2.0 if alpha is None else alpha
        nu = power / 2 + 1 - len(spans) / 2
        make: Maker = functools.partial(_moving, nu, variance, time, spans)
        return {f"{method}, alpha {power:g}": (power, make)}
    d = len(points.dims)
    if time > 0 and spans:
        each: dict[str, Sequence[float]] = {"": [time, *spans]}
    else:
        each = {"": spans or [time]}
        if len(points) < 1_000 and d > 1:
            each["isotropic "] = [math.exp(sum(math.log(s) for s in spans) / d)]
    tried: dict[str, tuple[float, Maker]] = {}
    for power in POWERS.get(d, (float(d),)) if alpha is None else (alpha,):
        for kind, lengths in each.items():
            turned = "time" not in points.dims and len(lengths) == d
            make = functools.partial(_still, power - d / 2, variance, lengths, turned)
            tried[f"{kind}spde, alpha {power:g}"] = (power, make)
    return tried


def _still(nu: float, variance: float, spans: Sequence[float], turned: bool) -> Matern:
    scale = 0.2 if nu <= 0.5 else 0.1
    if len(spans) == 1:
        return Matern(nu, variance, scale * spans[0])
    if not turned:  # time and space: a scale for each axis
        middle = _middle(spans[1:])
        return Matern(nu, variance, [0.5 * spans[0], *(scale * middle for _ in spans[1:])])
    return _turned(nu, variance, spans, scale)


def _turned(nu: float, variance: float, spans: Sequence[float], scale: float) -> Matern:
    r"""Returns an anisotropic kernel that is nearly isotropic, but for its angles to be told."""
    lengths = [scale * _middle(spans) * (1 - 0.05 * i) for i in range(len(spans))]
    return Matern(nu, variance, lengths, 0.0 if len(spans) == 2 else (0.0, 0.0, 0.0))


def _middle(spans: Sequence[float]) -> float:
    return math.exp(sum(math.log(s) for s in spans) / len(spans))


def _moving(nu: float, variance: float, time: float, spans: Sequence[float]) -> Kernel:
    r"""Returns a kernel that forgets with time, much as the equation without advection."""
    over_time = Matern(0.5, 1.0, 0.5 * time, axes="time")
    over_time.log_variance.requires_grad_(False)  # that of the space kernel says it
    middle = _middle(spans)
    lengths = [0.1 * middle * (1 - 0.05 * i) for i in range(len(spans))]
    space = Matern(nu, variance, lengths if len(lengths) > 1 else lengths[0], axes="space")
    return separable(over_time, space)


def _law(kernel: Kernel, method: str, alpha: float) -> MarkovLaw:
    if isinstance(kernel, Matern):
        return MarkovLaw(method, alpha, kernel)
    assert isinstance(kernel, Product)
    over_time, space = kernel.parts
    assert isinstance(over_time, Matern)
    assert isinstance(space, Matern)
    scale = space.log_lengthscale.detach().exp()
    plain = Matern(space.nu.item(), space.variance.item(), scale)
    timescale = over_time.log_lengthscale.exp().item() / QUICK
    return MarkovLaw(method, alpha, plain, timescale=timescale)


def _carried(law: MarkovLaw, velocity: ParameterField | None, domain: Grid | Points) -> MarkovLaw:
    r"""Returns the law with its velocity: the one that is given, or one to be learned."""
    assert law.timescale is not None
    if velocity is None:
        scale = law.kernel.log_lengthscale.detach().exp().max().item() / law.timescale
        velocity = Constant([0.0] * (len(domain.dims) - 1), scale)
    return replace(law, velocity=velocity)


def _refine(
    law: MarkovLaw,
    domain: Grid | Points,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    form: str,
    quick: Fit,
    say: Say,
) -> tuple[MarkovField, MarkovLaw]:
    r"""Returns the prior on its lattice, of largest likelihood where that is affordable."""
    report: object = quick
    coarse = FINENESS if len(domain.dims) < 3 else COARSE
    for fineness, most, steps in ((coarse, FITTED, 8), (FINEST, POLISHED, 3)):
        law = _placed(_capped(law, observation.points), domain, observation.points, fineness, say)
        floor_noise(observation, _least(law, y))
        prior = law.prior(domain, observation.points, form)
        size = len(prior.places())
        say(_lattice_in_words(law, size, size <= most))
        if size <= most:
            prior = _climb(law, prior, observation, y, steps)
            law, report = law.fitted(prior), prior.fitted or report
    floor_noise(observation, _least(law, y))
    final = law.prior(domain, observation.points, form)
    final.fitted = report
    return final, law


def _least(law: MarkovLaw, y: Float[Tensor, " m"]) -> float:
    r"""Returns the least noise: with less, a sparse factor is not precise enough."""
    scale = scale_of(y)
    return LEAST * min(max(scale, law.variance**0.5), 30 * scale)


def floor_noise(observation: LinearObservation, least: float) -> None:
    r"""Raises what is learned of the noise to a least std: data need some in a sparse factor."""
    parts = observation.parts if isinstance(observation, Stack) else [observation]
    for part in parts:
        if isinstance(part, PointObservation) and part.error.log_scale.requires_grad:
            short = math.log(least) - part.error.std.mean().log().item()
            part.error.log_scale.data.clamp_(min=short)


def _placed(
    law: MarkovLaw, domain: Grid | Points, points: Points, fineness: float, say: Say
) -> MarkovLaw:
    r"""Returns the law with its lattice; scales that none can resolve are raised, and said."""
    raised, found = law, law.spaced(domain, points, fineness)
    for _ in range(RAISES):
        if found is not None:
            break
        raised = _raised(raised)
        found = raised.spaced(domain, points, fineness)
    if found is None:
        scale = narrowest(law.kernel).min().item()
        msg = (
            f"map(method={law.method}): expected a lengthscale that a lattice can resolve over "
            f"the target and the data, got {scale:.3g} ({points.metric}). Map a smaller area, or "
            "use --method vecchia."
        )
        raise ValueError(msg)
    if raised is not law:
        say("note: lengthscales are raised to what a lattice of this size can resolve")
    return found


def _capped(law: MarkovLaw, points: Points) -> MarkovLaw:
    r"""Returns a law whose lengthscales are not beyond what the data span: they could not tell."""
    time, spans = extents(points)
    longest = LONGEST * max(spans, default=time)
    if points.metric == "sphere":
        longest = min(longest, EARTH_RADIUS)
    scale = law.kernel.lengthscale.detach().clone().reshape(-1)
    timed = int(len(scale) == len(points.dims) and "time" in points.dims and len(spans) > 0)
    scale[timed:] = scale[timed:].clamp(max=longest)
    return replace(law, kernel=_rescaled(law.kernel, scale))


def _rescaled(kernel: Matern, scale: Float[Tensor, " d"]) -> Matern:
    r"""Returns a kernel with other lengthscales along its axes; itself if they are the same."""
    own, rotation = kernel.principal_axes()
    if torch.equal(own.detach().reshape(-1), scale):
        return kernel
    angles = None if rotation is None else rotation.detach().reshape(-1).tolist()
    variance, nu = kernel.variance.item(), kernel.nu.item()
    return Matern(nu, variance, scale.reshape(own.shape), angles)


def _raised(law: MarkovLaw) -> MarkovLaw:
    r"""Returns a law whose short lengthscales, and timescale, are a third longer."""
    scale = law.kernel.lengthscale.detach().reshape(-1)
    longer = torch.minimum(1.35 * scale, torch.maximum(scale.max(), 1.35 * scale.min()))
    kernel = _rescaled(law.kernel, longer)
    timescale = None if law.timescale is None else 1.35 * law.timescale
    return replace(law, kernel=kernel, timescale=timescale)


def _lattice_in_words(law: MarkovLaw, size: int, fit: bool) -> str:
    steps = ", ".join(f"{k} {v:.4g}" for k, v in law.spacing.steps.items())
    done = "its likelihood is maximised" if fit else "too many to fit again"
    return f"lattice: {size} unknowns, steps {steps}: {done}"


def _climb(
    law: MarkovLaw,
    prior: MarkovField,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    steps: int,
) -> MarkovField:
    r"""Returns the prior of largest likelihood; its noise is held where that has no maximum."""
    start = copy.deepcopy(observation.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        try:
            return maximum_likelihood(prior, observation, y, SOLVER, steps=steps, tolerance=0.3)
        except ValueError:  # noise on its way to zero, or scales on their way to infinity
            observation.load_state_dict(start)
            held = [p for p in observation.parameters() if p.requires_grad]
        observation.requires_grad_(False)
        again = law.prior(prior.domain, observation.points, _formula(prior))
        with contextlib.suppress(ValueError):
            maximum_likelihood(again, observation, y, SOLVER, steps=steps, tolerance=0.3)
        for parameter in held:
            parameter.requires_grad_(True)
    return (
        again
        if again.fitted is not None
        else law.prior(prior.domain, observation.points, _formula(prior))
    )


def _formula(prior: MarkovField) -> str:
    return "" if prior.trend is None else prior.trend.formula
