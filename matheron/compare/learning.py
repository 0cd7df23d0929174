r"""Solvers that learn on another ocean of an experiment, and what is told of their errors."""

from __future__ import annotations

__all__ = ["learn", "timed"]

import dataclasses
import math
import time
import torch

from collections.abc import Callable
from jaxtyping import Float
from lightning_fabric import Fabric
from pathlib import Path
from torch import Generator, Tensor

from .lessons import Lesson, lesson_of
from .plans import VALIDATIONS, Plan
from ..domain import Grid
from ..fit import Card, GapSpread, LearnedModel, save_model
from ..fit.schedule import History, TrainingProgress
from ..fit.training import train
from ..mappers.learned import ERROR_SCALES, LearnedMapper
from ..metrics.scores import crps_gaussian
from ..osse import Experiment

Tell = Callable[[TrainingProgress], None]
TIMED = 4
"""The updates that are timed."""
SHARE = 0.85
"""The part of the time that updates take; the others are validations and what is done after."""
ROUNDS = 40
"""The most iterations of the fit of a spread."""
HALF = 1.6783
"""Where (1 + a) exp(-a) is one half."""


def learn(
    experiment: Experiment,
    plan: Plan,
    folder: Path,
    *,
    command: str = "",
    checkpoint: Path | None = None,
    fabric: Fabric | None = None,
    progress: Tell | None = None,
) -> LearnedModel:
    r"""Trains a solver on the other ocean of an experiment, and writes it as a folder.

    The std is fitted on the days held out, by CRPS, as a function of the density of data; what
    errors are correlated by is measured there.

    Arguments:
        experiment: The experiment, with an ocean to train on.
        plan: What is trained.
        folder: The folder of the model.
        command: The command that asked for it, for the card.
        checkpoint: The file from which a training that was cut off goes on.
        fabric: What the training runs on: one processor by default.
        progress: What is told after each update.

    Returns:
        The trained solver, its spread and its card.

    Raises:
        ValueError: If there is no ocean to train on, or too few days; or what
            :func:`matheron.fit.train` refuses.
    """
    lesson = lesson_of(experiment, plan.step, plan.window)
    source, validation = lesson.windows(plan.patch, plan.exchange)
    solver, prior = plan.made(source.grid, *lesson.moments())
    history = train(
        solver,
        prior,
        source,
        plan.loss(lesson.moments()[1]),
        validation,
        plan.schedule,
        fabric=fabric,
        generator=Generator().manual_seed(plan.seed),
        checkpoint=checkpoint,
        progress=progress,
    )
    solver.cpu().eval()
    prior.cpu().eval()
    spread = GapSpread(lesson.moments()[1])
    card = _card(experiment, plan, lesson, history, command)
    model = LearnedModel(solver, prior, card, source.grid, {"spread": spread})
    model = _calibrated(model, lesson)
    save_model(folder, solver, prior, model.card, others=model.others)
    return model


def timed(
    experiment: Experiment, plan: Plan, minutes: float, fabric: Fabric | None = None
) -> Plan:
    r"""Returns the plan with as many updates as take some minutes on this machine.

    Raises:
        ValueError: If the time is not positive.
    """
    if not 0 < minutes < math.inf:
        msg = f"timed(minutes=...): expected a positive number, got {minutes}. Give e.g. 30."
        raise ValueError(msg)
    lesson = lesson_of(experiment, plan.step, plan.window)
    source, _ = lesson.windows(plan.patch, plan.exchange)
    solver, prior = plan.made(source.grid, *lesson.moments())
    ticks: list[float] = []
    train(
        solver,
        prior,
        source,
        plan.loss(lesson.moments()[1]),
        schedule=dataclasses.replace(plan.schedule, steps=TIMED),
        fabric=fabric,
        generator=Generator().manual_seed(plan.seed),
        progress=lambda _: ticks.append(time.perf_counter()),
    )
    each = (ticks[-1] - ticks[0]) / (len(ticks) - 1)  # the first one warms up
    updates = max(VALIDATIONS, int(SHARE * 60 * minutes / each))
    return dataclasses.replace(plan, updates=updates)


def _card(
    experiment: Experiment, plan: Plan, lesson: Lesson, history: History, command: str
) -> Card:
    mean, std = lesson.moments()
    own = experiment.recipe
    known = f"{plan.method} on {own.preset}, {own.constellation}, noise {own.noise}"
    about = f"{plan.window} days, {plan.step:g} degrees, {plan.updates} updates"
    return Card(
        variable=experiment.variable,
        units="m",
        normalisation={"mean": mean, "std": std, "noise": lesson.noise},
        split=lesson.dates(),
        seed=plan.seed,
        command=command,
        scores={"validation": history.best or math.nan, "training_seconds": history.seconds},
        notes=f"{known}; {about}",
    )


# errors on the days held out


def _calibrated(model: LearnedModel, lesson: Lesson) -> LearnedModel:
    r"""Returns the model with the law of its errors, as maps of the days held out have them."""
    start, end = lesson.spans["validation"]
    shape, half = lesson.grid.shape, lesson.window // 2
    days = {k: a[start:end] if k == "time" else a for k, a in lesson.grid.axes.items()}
    grid = Grid(metric="sphere", **days)  # type: ignore[arg-type]
    y, seen, truth = (
        x.reshape(shape)[start:end] for x in (lesson.values, lesson.mask, lesson.truth)
    )
    mapper = LearnedMapper(model)
    errors = mapper.daily(grid, y.flatten(), seen.flatten()) - truth[half : len(truth) - half]
    spread = model.others["spread"]
    assert isinstance(spread, GapSpread)
    windows = seen.unfold(0, lesson.window, 1).movedim(-1, 1)
    score = _fit_spread(spread, windows, errors, half)
    std = mapper.spread(grid, seen.flatten())
    steps = [a.diff().median().item() for a in grid.axes.values()]
    scales = [_scale_along(errors / std, place) * step for place, step in enumerate(steps)]
    numbers = {**model.card.normalisation, **dict(zip(ERROR_SCALES, scales, strict=True))}
    scores = {
        **model.card.scores,
        "rmse": errors.square().mean().sqrt().item(),
        "crps": score,
        "spread_skill": (std.square().mean() / errors.square().mean()).sqrt().item(),
    }
    card = dataclasses.replace(model.card, normalisation=numbers, scores=scores)
    return dataclasses.replace(model, card=card)


def _fit_spread(spread: GapSpread, windows: Tensor, errors: Tensor, middle: int) -> float:
    r"""Fits a spread to errors of the middle of windows by CRPS, and returns that."""
    with torch.no_grad():
        spread.level.copy_(errors.square().mean().sqrt().log())
    optimiser = torch.optim.LBFGS(
        spread.parameters(), max_iter=ROUNDS, line_search_fn="strong_wolfe"
    )
    zero, scale = torch.zeros_like(errors)[..., None], errors.square().mean().sqrt()

    def score() -> Tensor:
        std = spread.of(windows)[:, middle]
        return crps_gaussian(zero, std[..., None], errors[..., None]).mean() / scale

    def closure() -> float:
        optimiser.zero_grad()
        value = score()
        value.backward()
        return value.item()

    optimiser.step(closure)
    optimiser.zero_grad()
    spread.requires_grad_(False)
    return (score() * scale).item()


def _scale_along(z: Float[Tensor, "d h w"], place: int) -> float:
    r"""Returns the Matern scale (3/2), in steps, whose correlation halves where that of z does."""
    z = z.movedim(place, -1)
    most = max(2, z.shape[-1] // 2)
    c = [1.0]
    for lag in range(1, most):
        both = z[..., lag:] * z[..., :-lag]
        c.append((both.mean() / z.square().mean()).item())
        if c[-1] < 0.5:
            break
    lag = len(c) - 1
    part = (c[-2] - 0.5) / (c[-2] - c[-1]) if c[-1] < 0.5 else 1.0
    half = lag - 1 + part
    return max(half, 0.25) * math.sqrt(3.0) / HALF
