r"""Solvers that learn on another ocean of an experiment, and what is told of their errors."""

from __future__ import annotations

__all__ = ["hardware_of", "learn", "timed"]

import dataclasses
import math
import time
import torch
import torch.nn as nn

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from pathlib import Path
from torch import Generator, Tensor

from .course import Course
from .field_laws import with_law
from .lessons import Lesson
from .plans import PRECISIONS, VALIDATIONS, Plan
from .starts import LAW_RUN, check_start
from .withheld import NOISY, clean
from ..domain import Grid
from ..fit import Card, GapSpread, LearnedModel, save_model
from ..fit.fabric import hardware
from ..fit.schedule import History, TrainingProgress
from ..fit.training import train
from ..mappers.departures import Departures
from ..mappers.field_law import FieldLaw, Windowed
from ..mappers.learned import CLASSES, ERROR_SCALES, LearnedMapper
from ..metrics.scores import crps_gaussian

Tell = Callable[[TrainingProgress], None]
TIMED = 4
"""The updates that are timed."""
SHARE = 0.85
"""The part of the time that updates take; the others are validations and what is done after."""
RIDGE = 0.01
"""What the slopes of a spread cost where it is known from few data only: they are drawn out."""
ROUNDS = 40
"""The most iterations of the fit of a spread."""
HALF = 1.6783
"""Where (1 + a) exp(-a) is one half."""


def hardware_of(plan: Plan, accelerator: str = "cpu") -> Fabric:
    r"""Returns what the training of a plan runs on.

    Arguments:
        plan: What is planned, its precision among it.
        accelerator: ``"cpu"``, ``"gpu"`` or ``"auto"``.
    """
    return hardware(accelerator, precision=PRECISIONS[plan.precision])


def learn(
    course: Course,
    folder: Path,
    *,
    command: str = "",
    checkpoint: Path | None = None,
    fabric: Fabric | None = None,
    progress: Tell | None = None,
    start: LearnedModel | None = None,
) -> LearnedModel:
    r"""Trains a solver on the oceans of a course, and writes it as a folder.

    The std is fitted on the days held out, by CRPS, as a function of the density of data; what
    errors are correlated by is measured there.

    Arguments:
        course: The oceans, and what is planned.
        folder: The folder of the model.
        command: The command that asked for it, for the card.
        checkpoint: The file from which a training that was cut off goes on.
        fabric: What the training runs on: by default one processor, at the precision of the plan.
        progress: What is told after each update.
        start: A trained solver whose weights are the first ones, e.g. of other data or another
            purpose; by default they are drawn. Where a law of the field is to be learned, it is
            taken as it is.

    Returns:
        The trained solver, its spread and its card.

    Raises:
        ValueError: What :func:`matheron.fit.train` refuses, or if ``start`` has other weights.
    """
    fabric = hardware_of(course.plan) if fabric is None else fabric
    lawful = course.plan.lawful
    if lawful and start is not None:
        model = _taken(start, course, command)
    else:
        model = _trained(course, command, checkpoint, fabric, progress, start)
    if lawful:
        beside = None if checkpoint is None else checkpoint.with_name(LAW_RUN)
        model = with_law(model, course, checkpoint=beside, fabric=fabric, progress=progress)
    model = _calibrated(model, course)
    save_model(folder, model.solver, model.prior, model.card, others=model.others, classes=CLASSES)
    return model


def _trained(
    course: Course,
    command: str,
    checkpoint: Path | None,
    fabric: Fabric,
    progress: Tell | None,
    start: LearnedModel | None,
) -> LearnedModel:
    r"""Returns a solver that is trained, of which nothing is told yet of its errors."""
    plan = course.plan
    source, validation = course.windows()
    units = course.units(source.grid)
    solver, prior = plan.made(units)
    if start is not None:
        _begin(solver, start.solver)
        _begin(prior, start.prior)
    history = train(
        solver,
        prior,
        source,
        plan.loss(units),
        validation,
        plan.schedule,
        fabric=fabric,
        generator=Generator().manual_seed(plan.seed),
        checkpoint=checkpoint,
        progress=progress,
    )
    solver.cpu().eval()
    prior.cpu().eval()
    others: dict[str, nn.Module] = {"spread": GapSpread(units.std)}
    if course.guess is not None:
        others["guess"] = course.guess
    return LearnedModel(solver, prior, _card(course, history, command), source.grid, others)


def _taken(start: LearnedModel, course: Course, command: str) -> LearnedModel:
    r"""Returns a trained solver as it is, to learn the law of its field."""
    check_start(course.plan, start)
    card = start.card
    notes = f"{card.notes}; with the law of its field on {course.about}"
    card = dataclasses.replace(card, command=command, notes=notes)
    kept = {k: v for k, v in start.others.items() if k == "guess"}
    return dataclasses.replace(start, card=card, others={"spread": GapSpread(1.0), **kept})


@torch.no_grad()
def _begin(part: nn.Module, known: nn.Module) -> None:
    r"""Gives a part the weights of another one; what data are made of order one by stays."""
    own, given = dict(part.named_parameters()), dict(known.named_parameters())
    shapes = [{k: tuple(v.shape) for k, v in p.items()} for p in (own, given)]
    if shapes[0] != shapes[1]:
        other = sorted({k for k, _ in set(shapes[0].items()) ^ set(shapes[1].items())})[0]
        msg = (
            f"learn(start=...): expected the weights of {type(part).__name__}, got others, e.g. "
            f"of {other}. Name a model of the same method, window and width."
        )
        raise ValueError(msg)
    for name, value in own.items():
        value.copy_(given[name])


def timed(course: Course, minutes: float, fabric: Fabric | None = None) -> Course:
    r"""Returns the course with as many updates as take some minutes on this machine.

    Raises:
        ValueError: If the time is not positive.
    """
    if not 0 < minutes < math.inf:
        msg = f"timed(minutes=...): expected a positive number, got {minutes}. Give e.g. 30."
        raise ValueError(msg)
    plan = course.plan
    source, _ = course.windows()
    units = course.units(source.grid)
    fabric = hardware_of(plan) if fabric is None else fabric
    solver, prior = plan.made(units)
    ticks: list[float] = []
    train(
        solver,
        prior,
        source,
        plan.loss(units),
        schedule=dataclasses.replace(plan.schedule, steps=TIMED),
        fabric=fabric,
        generator=Generator().manual_seed(plan.seed),
        progress=lambda _: ticks.append(time.perf_counter()),
    )
    each = (ticks[-1] - ticks[0]) / (len(ticks) - 1)  # the first one warms up
    updates = max(VALIDATIONS, int(SHARE * 60 * minutes / each))
    return dataclasses.replace(course, plan=dataclasses.replace(plan, updates=updates))


def _card(course: Course, history: History, command: str) -> Card:
    (mean, std), plan = course.moments(), course.plan
    known = f"{plan.method} on {course.about}"
    use = plan.purpose if plan.purpose == "mapping" else f"{plan.purpose}, lead {plan.lead}"
    many = f", {plan.oceans} oceans" if plan.oceans > 1 else ""
    many += ", from data alone" if plan.blind else ""
    many += f", with {' and '.join(plan.covariates)}" if plan.covariates else ""
    step = plan.step or course.grid.axes["lat"].diff().median().item()
    about = f"{use}, {plan.window} days, {step:.3g} degrees, {plan.updates} updates{many}"
    return Card(
        variable=course.variable,
        units="1" if course.images else "m",
        normalisation={"mean": mean, "std": std, "noise": course.noise},
        split=course.lessons[0].dates(),
        seed=plan.seed,
        command=command,
        scores={"validation": history.best or math.nan, "training_seconds": history.seconds},
        notes=f"{known}; {about}",
        purpose=plan.purpose,
        lead=plan.lead,
        symmetries=[str(m) for m in course.symmetries],
        covariates={
            name: {"mean": mean, "std": std, "units": course.labels[name]}
            for name, (mean, std) in course.scales.items()
        },
    )


# errors on the days held out


@dataclass(frozen=True)
class _Held:
    r"""Maps of days held out: their errors, where these count, and where data were seen.

    Arguments:
        errors: The errors, zero where they do not count.
        counts: Where they do.
        seen: Where the solver saw data, in the window of each day.
        first: The errors of the first guess, likewise.
        noise: The std of the errors of what maps are judged by.
        law: The std that the law of the field gives, where there is one.
    """

    errors: Float[Tensor, "d h w"]
    counts: Bool[Tensor, "d h w"]
    seen: Bool[Tensor, "d k h w"]
    first: Float[Tensor, "d h w"] | None = None
    noise: float = 0.0
    law: Float[Tensor, "d h w"] | None = None

    @property
    def all(self) -> Float[Tensor, " j"]:
        r"""The errors that count."""
        return self.errors[self.counts]

    def over(self, later: _Held) -> _Held:
        r"""Returns the maps of both: of the other where this one's do not count."""
        days = self.counts.flatten(1).any(dim=1)[:, None, None]
        first = None
        if self.first is not None and later.first is not None:
            first = torch.where(days, self.first, later.first)
        return dataclasses.replace(
            self,
            errors=torch.where(days, self.errors, later.errors),
            counts=torch.where(days, self.counts, later.counts),
            seen=torch.where(days[..., None], self.seen, later.seen),
            first=first,
        )


def _held(mapper: LearnedMapper, lesson: Lesson) -> tuple[Grid, _Held]:
    r"""Returns the days held out of a lesson, and the maps of those that have a window."""
    start, end = lesson.spans["validation"]
    days = {k: a[start:end] if k == "time" else a for k, a in lesson.grid.axes.items()}
    grid = Grid(metric="sphere", **days)  # type: ignore[arg-type]

    def held(x: Tensor) -> Tensor:
        return x.reshape(lesson.grid.shape)[start:end]

    def wanted(x: Tensor) -> Tensor:
        first = mapper.wanted
        return held(x)[first : first + grid.shape[0] - mapper.times + 1]

    def errors(x: Tensor) -> Tensor:
        return torch.where(counts, x - truth, 0.0)

    guess = None if lesson.guess is None else held(lesson.guess).flatten()
    mask = held(lesson.mask)
    truth, counts = (wanted(x) for x in lesson.target)
    asked = counts.flatten(1).any(dim=1)
    beside = {
        k: mapper.covariates.of_order_one(k, *(held(x).flatten() for x in lesson.beside[k]))
        for k in mapper.covariates.names
    }
    values = held(lesson.values)
    made = list(mapper.windows(grid, values.flatten(), mask.flatten(), guess, asked, beside))
    found = torch.stack([window[mapper.wanted] for window in made])
    first = None if lesson.guess is None else errors(wanted(lesson.guess))
    maps = _Held(errors(found), counts, mapper.seen(mask), first)
    if mapper.law is None:
        return grid, maps
    runs = values.unfold(0, mapper.times, 1).movedim(-1, 1)
    windows = Windowed(torch.stack(made), runs, maps.seen)
    law = Departures(mapper.law, mapper.window(grid), windows, mapper.wanted)
    return grid, dataclasses.replace(maps, law=law.std())


def _calibrated(model: LearnedModel, course: Course) -> LearnedModel:
    r"""Returns the model with the law of its errors, as maps of the days held out have them.

    Without a truth, errors are those at data that are withheld; the errors of these are taken off.
    """
    mapper, noise = LearnedMapper(model), course.noise if course.plan.blind else 0.0
    maps = [_held(mapper, lesson) for lesson in course.held]
    grid, made = maps[0]
    for _, other in maps[1:]:
        made = made.over(other)
    noise = min(noise, NOISY**0.5 * _rms(made.all))
    made = dataclasses.replace(made, noise=noise)
    sigma = _Sigma(model, made, mapper.wanted)
    score = _fit_spread(sigma)
    with torch.no_grad():
        std = sigma.everywhere()
    steps = [a.diff().median().item() for a in grid.axes.values()]
    z, white = made.errors / std, (noise / std).square()[made.counts].mean().item()
    scales = [_scale_along(z, k, made.counts, white) * s for k, s in enumerate(steps)]
    numbers = {**model.card.normalisation, **dict(zip(ERROR_SCALES, scales, strict=True))}
    told = (std.square() + noise**2)[made.counts].mean()
    scores = {
        **model.card.scores,
        "rmse": clean(_rms(made.all), noise),
        "crps": score,
        "spread_skill": (told / made.all.square().mean()).sqrt().item(),
    }
    if made.first is not None:
        scores["rmse_first_guess"] = clean(_rms(made.first[made.counts]), noise)
    card = dataclasses.replace(model.card, normalisation=numbers, scores=scores)
    return dataclasses.replace(model, card=card)


def _rms(errors: Tensor) -> float:
    return errors.square().mean().sqrt().item()


class _Sigma:
    r"""The std of maps of days held out, as their errors are to have it.

    Arguments:
        model: The trained solver, whose spread and power are fitted.
        made: The maps.
        middle: Which day of a window is mapped.
    """

    def __init__(self, model: LearnedModel, made: _Held, middle: int) -> None:
        spread, law = model.others["spread"], model.others.get("law")
        assert isinstance(spread, GapSpread)
        self.spread, self.made, self.middle = spread, made, middle
        self.law = law if isinstance(law, FieldLaw) else None
        self.power = [] if self.law is None else [self.law.power]
        self.moving = [*spread.parameters(), *self.power]

    def everywhere(self) -> Float[Tensor, "d h w"]:
        r"""Returns the std of every node of the maps."""
        gaps = self.spread.of(self.made.seen)[:, self.middle]
        if self.law is None or self.made.law is None:
            return gaps
        return self.law.sigma(self.made.law, gaps)

    def told(self) -> Float[Tensor, " j"]:
        r"""Returns the std where errors count, that of what judges them left out."""
        return self.everywhere()[self.made.counts]

    @torch.no_grad()
    def resize(self) -> None:
        r"""Gives the std the size of the errors."""
        size = clean(_rms(self.made.all), self.made.noise) / _rms(self.told())
        self.spread.level.add_(math.log(size))


def _fit_spread(sigma: _Sigma) -> float:
    r"""Fits a spread to errors of the middle of windows by CRPS, and returns that.

    Its pattern is that of least CRPS, its size that of the errors: the CRPS of errors with heavy
    tails asks for less than their variance, and ensembles would be too narrow by it.
    """
    errors, noise = sigma.made.all, sigma.made.noise
    for part in sigma.moving:
        part.requires_grad_(True)
    sigma.resize()
    optimiser = torch.optim.LBFGS(sigma.moving, max_iter=ROUNDS, line_search_fn="strong_wolfe")
    zero, scale = torch.zeros_like(errors)[..., None], errors.square().mean().sqrt()

    def score() -> Tensor:
        std = sigma.told()
        if noise:
            std = (std.square() + noise**2).sqrt()
        return crps_gaussian(zero, std[..., None], errors[..., None]).mean() / scale

    def closure() -> float:
        optimiser.zero_grad()
        value = score()
        if noise:
            value = value + RIDGE * sigma.spread.slopes.square().sum()
        value.backward()
        return value.item()

    optimiser.step(closure)
    optimiser.zero_grad()
    sigma.resize()
    for part in sigma.moving:
        part.requires_grad_(False)
    return (score() * scale).item()


def _scale_along(
    z: Float[Tensor, "d h w"],
    place: int,
    counts: Bool[Tensor, "d h w"] | None = None,
    white: float = 0.0,
) -> float:
    r"""Returns the Matern scale (3/2), in steps, whose correlation halves where that of z does.

    Pairs count where both of them do. What is white in z, of a given variance, is left out.
    """
    z = z.movedim(place, -1)
    w = torch.ones_like(z) if counts is None else counts.movedim(place, -1).to(z.dtype)
    most = max(2, z.shape[-1] // 2)
    c, variance = [1.0], (z.square() * w).mean() / w.mean()
    if white:
        variance = torch.clamp(variance - white, min=(1 - NOISY) * variance)
    for lag in range(1, most):
        both = z[..., lag:] * z[..., :-lag]
        share = (w[..., lag:] * w[..., :-lag]).mean()
        if share == 0:
            break
        c.append(((both * w[..., lag:] * w[..., :-lag]).mean() / share / variance).item())
        if c[-1] < 0.5:
            break
    if len(c) < 2:
        return math.sqrt(3.0) / HALF
    lag = len(c) - 1
    part = (c[-2] - 0.5) / (c[-2] - c[-1]) if c[-1] < 0.5 else 1.0
    half = lag - 1 + part
    return max(half, 0.25) * math.sqrt(3.0) / HALF
