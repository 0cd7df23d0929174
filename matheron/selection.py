r"""Choosing the structure of a prior: scales, smoothness, anisotropy, trend.

Candidates are fitted by maximum likelihood on a sample of the data, and judged by how well they
predict *blocks* of data held out, as wide as the gaps that are to be mapped. What is to be mapped
itself is never seen.
"""

from __future__ import annotations

__all__ = ["Choice", "candidates", "choose", "instruments"]

import functools
import math
import torch
import warnings

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from .domain import Grid, Points
from .fit import Fit, maximum_likelihood, predict
from .kernels import Gaussian, Kernel, Matern, separable
from .metrics.scores import crps_gaussian
from .observations import LinearObservation, PointObservation, Stack
from .priors import GaussianProcess, Trend
from .solvers.kriging import Kriging
from .solvers.vecchia import Vecchia

SAMPLE = 8_000
"""The number of data on which candidates are fitted."""
PROBES = 1_500
"""The number of held-out data at which candidates are judged."""

Say = Callable[[str], None]
Maker = Callable[[], Kernel]


@dataclass
class Choice:
    r"""A prior chosen and fitted, with its observation, its data and the reasons.

    Arguments:
        prior: The prior, on the domain that was asked for.
        observation: The observation, its noise fitted.
        y: The data, in the order of the observation.
        structure: The structure in words.
        scores: The held-out CRPS of each candidate, in the units of the field.
    """

    prior: GaussianProcess
    observation: LinearObservation
    y: Float[Tensor, " m"]
    structure: str
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def fitted(self) -> Fit:
        r"""The report of the fit."""
        assert isinstance(self.prior.fitted, Fit)
        return self.prior.fitted


def _scale(values: Float[Tensor, " m"]) -> float:
    r"""Returns the std of the data, or a millionth of them where they are constant."""
    largest = values.abs().max().item() or 1.0
    return max(values.std(correction=0).item(), 1e-6 * largest)


def instruments(
    domain: Grid | Points,
    points: Points,
    values: Float[Tensor, " m"],
    noise: Float[Tensor, " m"] | None = None,
    groups: Int[Tensor, " m"] | None = None,
) -> tuple[LinearObservation, Float[Tensor, " m"]]:
    r"""Returns the observation of a table of data, and the data in its order.

    Each group (mission, sensor) has its own noise and a bias, to be learned; so has the noise of
    a table without groups, unless the table gives it.

    Example:
        >>> from matheron.domain import Grid
        >>> data = Points(x=[0.0, 1.0])
        >>> values = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> observation, y = instruments(Grid(x=[0.0, 1.0]), data, values)
        >>> len(observation.points)
        2
    """
    guess = _scale(values)
    everywhere = torch.full_like(values, 0.2 * guess) if noise is None else noise.clamp(min=1e-12)
    if groups is None or len(groups.unique()) < 2:
        std = everywhere if noise is not None else 0.2 * guess
        return PointObservation(domain, points, std, learn_noise=noise is None), values
    members = [torch.nonzero(groups == code)[:, 0] for code in groups.unique()]
    parts = [
        PointObservation(
            domain,
            points[i],
            everywhere[i] if noise is not None else 0.2 * guess,
            learn_noise=noise is None,
            bias_std=0.2 * guess,
            learn_bias=False,
        )
        for i in members
    ]
    for part in parts:
        part.bias = parts[0].bias  # one law for all biases: each mission draws from it
    assert parts[0].bias is not None
    parts[0].bias.log_scale.requires_grad_(True)
    return Stack(*parts), torch.cat([values[i] for i in members])


def _extents(points: Points) -> tuple[float, list[float]]:
    r"""Returns the extent of time (zero without), and those of the space axes."""
    x = points.local()
    low, high = (0.05, 0.95) if len(x) > 4 else (0.0, 1.0)
    span = x.quantile(high, dim=0) - x.quantile(low, dim=0)
    spans = span.tolist()[: -1 if points.metric == "sphere" else None]
    time = (spans.pop(0) or 1.0) if "time" in points.dims else 0.0
    widest = max(spans, default=0.0) or 1.0
    return time, [s if s > 1e-6 * widest else widest for s in spans]  # data along one axis


def candidates(points: Points, variance: float) -> dict[str, Maker]:
    r"""Returns the kernels to try on some points, by name, at their first guess.

    The more data there are, the more scales are tried: two from 400 data on, three from 4000. With
    fewer than 1000, isotropic kernels are among them.

    Example:
        >>> list(candidates(Points(x=[0.0, 1.0, 2.0]), 1.0))[:2]
        ['Matern 1/2', 'Matern 3/2']
    """
    time, spans = _extents(points)
    if time > 0 and spans:
        return _space_time(time, spans, _spacing(points), variance)
    every = _in_space(spans or [time], variance)
    m = len(points)
    scales = 1 if m < 400 else (2 if m < 4_000 else 3)
    tried = {k: v for k, v in every.items() if _scales(k) <= scales}
    if m < 1_000 and len(spans) > 1:
        start = 0.1 * math.exp(sum(math.log(v) for v in spans) / len(spans))
        for nu, name in ((0.5, "isotropic Matern 1/2"), (1.5, "isotropic Matern 3/2")):
            tried[name] = functools.partial(Matern, nu, variance, start)
    return tried


def _scales(name: str) -> int:
    return 3 if name.startswith("three") else name.count("+") + 1


def _spacing(points: Points) -> float:
    r"""Returns the median distance in space from a datum to the next in time, or the nearest."""
    x = points.local()
    x = x[torch.argsort(x[:, 0])][:, 1:]
    step = x.diff(dim=0).norm(dim=1)
    step = step[step > 0]
    return step.median().item() if len(step) else 1.0


def _in_space(spans: Sequence[float], variance: float) -> dict[str, Maker]:
    def part(nu: float, share: float, scale: float, free: bool = False) -> Matern:
        if len(spans) == 1:
            return Matern(nu, share * variance, scale * spans[0], learn_nu=free)
        lengths = [scale * s for s in spans]
        middle = math.exp(sum(math.log(v) for v in lengths) / len(lengths))
        angles = 0.0 if len(spans) == 2 else (0.0, 0.0, 0.0)
        lengths = [middle * (1 - 0.05 * i) for i in range(len(spans))]
        return Matern(nu, share * variance, lengths, angles, learn_nu=free)

    return {
        "Matern 1/2": lambda: part(0.5, 1.0, 0.2),
        "Matern 3/2": lambda: part(1.5, 1.0, 0.1),
        "Matern of free smoothness": lambda: part(0.8, 1.0, 0.1, free=True),
        "Matern 1/2 + Matern 1/2": lambda: part(0.5, 0.6, 0.4) + part(0.5, 0.4, 0.05),
        "Matern 1/2 + Matern 3/2": lambda: part(0.5, 0.7, 0.3) + part(1.5, 0.3, 0.02),
        "Matern 3/2 + Matern 3/2": lambda: part(1.5, 0.7, 0.2) + part(1.5, 0.3, 0.03),
        "three Matern 3/2": lambda: (
            part(1.5, 0.5, 0.3) + part(1.5, 0.3, 0.05) + part(1.5, 0.2, 0.01)
        ),
    }


def _space_time(
    time: float, spans: Sequence[float], spacing: float, variance: float
) -> dict[str, Maker]:
    middle = math.exp(sum(math.log(s) for s in spans) / len(spans))
    fine = min(2 * spacing, middle / 20)

    def joint(share: float, scale: float, duration: float) -> Kernel:
        return Matern(1.5, share * variance, [duration * time, *(scale * middle for _ in spans)])

    def over_time(nu: float, duration: float) -> Matern:
        kernel = Matern(nu, 1.0, duration * time, axes="time")
        kernel.log_variance.requires_grad_(False)  # that of the space kernel says it
        return kernel

    def apart(
        nus: tuple[float, float], share: float, scale: float, duration: float, free: bool = False
    ) -> Kernel:
        space = Matern(nus[1], share * variance, scale * middle, axes="space", learn_nu=free)
        return separable(over_time(nus[0], duration), space)

    def passing() -> Kernel:
        r"""What one pass sees and no other: errors along the track, waves too quick to map."""
        space = Gaussian(0.1 * variance, fine, axes="space")
        return separable(over_time(0.5, 0.003), space)

    return {
        "Matern 3/2 of space-time": lambda: joint(1.0, 0.1, 0.5),
        "separable, time 1/2, space 3/2": lambda: apart((0.5, 1.5), 1.0, 0.1, 1.0),
        "two separable scales": lambda: (
            apart((1.5, 1.5), 0.6, 0.06, 1.0) + apart((0.5, 1.5), 0.4, 0.3, 1.0)
        ),
        "space-time + errors along the track": lambda: joint(0.9, 0.08, 0.7) + passing(),
        "two separable scales + errors along the track": lambda: (
            apart((1.5, 2.0), 0.5, 0.05, 1.0, True) + apart((0.5, 1.5), 0.4, 0.25, 1.0) + passing()
        ),
    }


def _trend(points: Points) -> str:
    r"""Returns a plane over the axes of space, of those terms that the data can tell apart."""
    axes = [d for d in points.dims if d not in {"time", "z", "depth"}]
    terms = ["1"]
    for axis in axes if len(points) >= 5 * (1 + len(axes)) else ():
        F = Trend(" + ".join([*terms, axis]), points).design(points)
        F = F / F.norm(dim=0).clamp(min=1e-300)
        if torch.linalg.matrix_rank(F, rtol=1e-6) == F.shape[1]:
            terms.append(axis)
    return " + ".join(terms)


def _clusters(
    near: Float[Tensor, "m k"], size: int, generator: torch.Generator
) -> Int[Tensor, " size"]:
    r"""Returns a sample that keeps both short and long distances: patches of neighbours."""
    if len(near) <= size:
        return torch.arange(len(near))
    patch = 200
    centers = near[torch.randperm(len(near), generator=generator)[: size // patch]]
    _, index = cKDTree(near.numpy()).query(centers.numpy(), k=patch)
    return torch.as_tensor(index.ravel()).unique()


@dataclass
class _Trial:
    r"""All the data, the blocks that are held out in turn, and the sample to fit on."""

    points: Points
    y: Float[Tensor, " m"]
    observation: LinearObservation
    block: Int[Tensor, " m"]
    folds: list[tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]]
    sample: Int[Tensor, " k"]


def _trial(
    domain: Grid | Points,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    generator: torch.Generator,
) -> _Trial:
    points = observation.points
    x = points.local()
    block = _blocks(points, x, _gap(domain, points))
    folds = []
    for held in _held_out(observation, block, generator):
        index = torch.nonzero(held)[:, 0]
        probe = torch.zeros_like(held)
        probe[index[torch.randperm(len(index), generator=generator)[:PROBES]]] = True
        folds.append((~held, probe))
    return _Trial(points, y, observation, block, folds, _clusters(x, SAMPLE, generator))


def _held_out(
    observation: LinearObservation, block: Int[Tensor, " m"], generator: torch.Generator
) -> list[Bool[Tensor, " m"]]:
    r"""Returns what to hold out in turn: instruments where there are several, else blocks."""
    m = len(block)
    if isinstance(observation, Stack):
        label = torch.repeat_interleave(
            torch.arange(len(observation.parts)),
            torch.tensor([len(p.points) for p in observation.parts]),
        )
        return [label == k for k in range(len(observation.parts))]
    count = int(block.max()) + 1
    turns = 5 if m <= 3_000 else (3 if m <= 20_000 else 1)
    order = torch.randperm(count, generator=generator)
    fold = (torch.arange(count) % max(min(5, count), 2))[order]
    held = [fold[block] == k for k in range(turns)]
    held = [h for h in held if h.any() and not h.all()]
    return held or [torch.arange(m) % 2 == 1]  # one block only: every other datum


def _blocks(points: Points, x: Float[Tensor, "m k"], side: float) -> Int[Tensor, " m"]:
    r"""Returns the block of each datum: a square in space, and a quarter of the time."""
    time, spans = _extents(points)
    start = 1 if time > 0 and spans else 0
    block = (x[:, start:] / side).floor()
    if start:
        block = torch.cat([(x[:, :1] / (time / 4)).floor(), block], dim=1)
    return torch.unique(block, dim=0, return_inverse=True)[1]


def _gap(domain: Grid | Points, points: Points) -> float:
    r"""Returns the side of a block in whose middle half the targets are from the data."""
    nodes = domain.points
    pick = torch.linspace(0, len(nodes) - 1, min(len(nodes), 5000)).long()
    distance = nodes[pick].nearest_distance(points)
    far = distance[distance > 0]
    spacing = points.nearest_distance(nodes[pick]).median().item() if len(far) == 0 else 0.0
    reach = far.quantile(0.75).item() if len(far) else spacing
    _, spans = _extents(points)
    widest = max(spans or [1.0])
    return min(max(4 * reach, widest / 50), widest / 4)


def _judge(
    trial: _Trial, prior: GaussianProcess, observation: LinearObservation
) -> tuple[Tensor, Tensor]:
    r"""Returns the CRPS of every probe, and the block of each."""
    full = _noise_like(trial.observation, observation)
    scores, labels = [], []
    for kept, probe in trial.folds:
        solver = Kriging() if int(kept.sum()) <= 1500 else Vecchia(20, 30)
        mean, std = predict(prior, full, trial.y, kept, probe, solver)
        # each datum by itself: a batch of means over one value
        scores.append(crps_gaussian(mean[:, None], std[:, None], trial.y[probe][:, None]))
        labels.append(trial.block[probe])
    return torch.cat(scores), torch.cat(labels)


def _worse(a: Tensor, b: Tensor, block: Int[Tensor, " k"]) -> float:
    r"""Returns by how many standard errors the scores ``a`` are worse than ``b``.

    Errors within a block are alike: the blocks, not the data, are counted.
    """
    _, label = block.unique(return_inverse=True)
    count = int(label.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add(0, label, a - b)
    size = torch.zeros(count, dtype=torch.float64).index_add(0, label, torch.ones_like(a))
    mean = (a - b).mean()
    error = ((total - mean * size).square().sum() * count / max(count - 1, 1)).sqrt() / len(a)
    return (mean / error.clamp(min=1e-300)).item()


def _noise_like(full: LinearObservation, fitted: LinearObservation) -> LinearObservation:
    r"""Gives the observation of all the data the noise that was fitted on a sample."""
    full.load_state_dict(
        {k: v for k, v in fitted.state_dict().items() if k.endswith("log_scale")}, strict=False
    )
    return full


def _sampled(
    trial: _Trial, noise: bool, groups: Int[Tensor, " m"] | None
) -> tuple[LinearObservation, Float[Tensor, " k"]]:
    i = trial.sample.sort().values
    std = trial.observation.noise_variance.detach().sqrt()[i] if noise else None
    return instruments(
        trial.points[i], trial.points[i], trial.y[i], std, None if groups is None else groups[i]
    )


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
    codes = None if groups is None else _ordered(groups)
    trial = _trial(domain, observation, y, generator)
    makers = candidates(observation.points, _scale(values) ** 2)
    if values.max() == values.min():  # a constant tells nothing of the structure
        makers = dict(list(makers.items())[:1])
    form = trend if trend is not None else _trend(observation.points)
    fits: dict[str, tuple[GaussianProcess, LinearObservation]] = {}
    judged: dict[str, Tensor] = {}
    block = torch.zeros(0)
    for name, make in makers.items():
        fitted = _attempt(trial, make, form, noise is not None, codes)
        if fitted is not None:
            fits[name] = fitted
            judged[name], block = _judge(trial, *fitted)
            say(f"  {name:<34} held-out CRPS {judged[name].mean():.4g}, BIC {_bic(fitted):.1f}")
    best = _choose_among(fits, judged, block)
    prior, seen = fits[best]
    structure, scores = best, {k: v.mean().item() for k, v in judged.items()}
    say(f"chosen: {best}, trend {prior.trend.formula if prior.trend else 'none'}")
    _noise_like(observation, seen)
    final = _move(prior, domain)
    _fit_quietly(final, observation, y, neighbors, refine=len(points) > SAMPLE)
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
    equal = [k for k in judged if k == first or _worse(judged[k], judged[first], block) < 1.0]
    return min(equal, key=lambda k: _bic(fits[k]))


def _ordered(groups: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    return groups[torch.argsort(groups, stable=True)]


def _move(prior: GaussianProcess, domain: Grid | Points) -> GaussianProcess:
    r"""Returns the fitted kernel and trend as a prior on another domain."""
    formula = None if prior.trend is None else prior.trend.formula
    return GaussianProcess(prior.kernel, domain, prior.constant, formula)


def _attempt(
    trial: _Trial, make: Maker, trend: str, noise: bool, groups: Int[Tensor, " m"] | None
) -> tuple[GaussianProcess, LinearObservation] | None:
    observation, y = _sampled(trial, noise, groups)
    prior = GaussianProcess(make(), observation.domain, trend=trend)
    try:
        _fit_quietly(prior, observation, y, 15)
    except ValueError:  # singular at the first guess: not a model for these data
        return None
    return prior, observation


def _fit_quietly(
    prior: GaussianProcess,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    neighbors: int,
    refine: bool = False,
) -> None:
    solver = Kriging() if len(y) <= 60 else Vecchia(neighbors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        maximum_likelihood(
            prior,
            observation,
            y,
            solver,
            steps=8 if refine else 15,
            refresh=1 if refine else 2,
            tolerance=0.5 if refine else 0.1,
            coarse=not refine,
        )
