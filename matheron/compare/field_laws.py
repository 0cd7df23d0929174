r"""The law of a field beside a trained solver: parameters by likelihood, size by days held out."""

from __future__ import annotations

__all__ = ["with_law"]

import dataclasses
import math
import torch

from collections.abc import Callable, Iterator
from jaxtyping import Float
from lightning_fabric import Fabric
from pathlib import Path
from torch import Generator, Tensor
from typing import Any

from .course import Course
from .lessons import Lesson
from ..data.batches import GUESS
from ..data.kept import KeptWindows
from ..domain import EARTH_RADIUS, Grid
from ..fit import LearnedModel, parameter_likelihood
from ..fit.schedule import Schedule, TrainingProgress
from ..fit.training import train
from ..linalg.descent import least
from ..mappers.field_law import FieldLaw, Windowed, joint_law
from ..mappers.learned import LearnedMapper
from ..nets import UNet
from ..solvers.neural import AugmentedVariational
from ..solvers.sparse_cholesky import SparseCholesky

Tell = Callable[[TrainingProgress], None]
STRIDE = {"train": 6, "validation": 3}
"""How many days apart windows begin."""
COARSE = 45e3
"""The longest step of the equation, in metres."""
LONG, SLOW = 120e3, 30.0
"""Where the descent to the constants starts: a lengthscale in metres, a timescale in days."""
FEWEST = 2.2
"""The fewest steps of the equation in a lengthscale."""
FAR = {"std": 1.0, "timescale": 1.0, "lengthscale": 0.7}
"""How far constants may be from there."""
MANY = 30
"""The windows that tell the constants, and the most steps of the descent."""
RATE = 2e-3
"""The largest learning rate of the network."""
PARAMETERS = 7
"""The fields of parameters of an equation in two dimensions."""


def with_law(
    model: LearnedModel,
    course: Course,
    *,
    checkpoint: Path | None = None,
    fabric: Fabric | None = None,
    progress: Tell | None = None,
) -> LearnedModel:
    r"""Returns a trained solver with a law of its field: what members and std are then made of.

    The law is an equation of advection and diffusion. Its constants are the most likely ones for
    true windows of the training. A network then tells, from what the solver makes of a window and
    from its data, the parameters with which the truth is the most likely,

    .. math:: \min_N \; - \frac{1}{n} \log p(x^\star \mid \theta = N(\hat x, y))

    Their size is fitted to the errors of maps of the days held out, when the model is calibrated.

    Arguments:
        model: The trained solver.
        course: The oceans that it was trained on.
        checkpoint: The file from which a training that was cut off goes on.
        fabric: What the training runs on.
        progress: What is told after each update.
    """
    plan, mapper = course.plan, LearnedMapper(model)
    window = mapper.window(course.grid)
    law = _started(mapper, course, window)
    kept = {part: _kept(law, mapper, course, part) for part in STRIDE}
    schedule = Schedule(
        plan.law_updates,
        plan.batch,
        RATE,
        warm_up=max(1, plan.law_updates // 10),
        clip=1.0,
        validate_every=max(1, plan.law_updates // 10),
        save_every=max(1, plan.law_updates // 10),
    )
    train(
        law.solver,
        law.prior(window).requires_grad_(False),
        kept["train"],
        parameter_likelihood(),
        kept["validation"],
        schedule,
        fabric=fabric,
        generator=Generator().manual_seed(plan.seed),
        checkpoint=checkpoint,
        progress=progress,
    )
    law.cpu().eval().requires_grad_(False)
    return dataclasses.replace(model, others={**model.others, "law": law})


def _started(mapper: LearnedMapper, course: Course, window: Grid) -> FieldLaw:
    r"""Returns the law with the most likely constants, and a network that tells nothing yet."""
    step = math.radians(window.axes["lat"].diff().median().item()) * EARTH_RADIUS
    coarser = max(1, math.floor(COARSE / step))
    mean, std = course.moments()
    settings: dict[str, Any] = {"noise": course.noise, "coarser": coarser}
    days, plan = mapper.times, course.plan
    net = UNet(
        3 * days + 1, days + 7, plan.width or 24, generator=Generator().manual_seed(plan.seed)
    )
    solver = AugmentedVariational(net, SparseCholesky(), first="guess", mean=mean, scale=std)
    length = max(LONG, FEWEST * coarser * step)
    start: dict[str, Any] = {"lengthscale": (length,) * 2, "timescale": SLOW, "std": std}
    start["velocity"] = (0.0, 0.0)
    law = FieldLaw(solver, **start, **settings)
    truths = torch.cat([_truths(law, one, days) for one in course.lessons])
    chosen = truths[:: max(1, len(truths) // MANY)]
    return FieldLaw(solver, **_most_likely(law, start, window, chosen), **settings)


def _truths(law: FieldLaw, lesson: Lesson, days: int) -> Float[Tensor, "k n"]:
    r"""Returns some true windows of the training, at the nodes of the equation."""
    assert lesson.truth is not None
    truth, (first, end) = lesson.truth.reshape(lesson.grid.shape), lesson.spans["train"]
    starts = range(first, end - days + 1, 2 * days)
    return torch.stack([law.at_nodes(truth[a : a + days]).flatten() for a in starts])


def _most_likely(
    law: FieldLaw, start: dict[str, Any], window: Grid, truths: Float[Tensor, "k n"]
) -> dict[str, Any]:
    r"""Returns the constants with which true windows are the most likely."""
    grid = law.prior(window).domain
    wide = max(grid.shape[1:])
    spread = {**FAR, "velocity": sum(start["lengthscale"]) / 24.0}
    prior = joint_law(grid, start, wide, law.color, spread=spread)
    level = torch.zeros(prior.channels, 1, dtype=torch.float64)

    def cost(z: Tensor) -> Tensor:
        theta = z.expand(-1, len(prior.coarse))
        fit = prior.log_density(truths, theta).mean() / truths.shape[1]
        return z.square().sum() / (2 * truths.numel()) - fit

    found = prior.parameters_of(least(cost, level, MANY).expand(-1, len(prior.coarse)))
    length = found.square.diagonal(dim1=1, dim2=2).mean(dim=0).sqrt()
    return {
        "lengthscale": torch.maximum(length, FEWEST * _metres(grid)).tolist(),
        "timescale": found.timescale.mean().item(),
        "std": found.std.mean().item(),
        "velocity": found.velocity.mean(dim=0).tolist(),
    }


def _metres(grid: Grid) -> Float[Tensor, " d"]:
    r"""Returns the step along each axis of space, the longest of the grid, in metres."""
    lat, lon = (grid.axes[k] for k in grid.dims[1:])
    wide = lat.abs().min().deg2rad().cos()
    steps = torch.stack([lat.diff().median(), lon.diff().median() * wide])
    return EARTH_RADIUS * steps.deg2rad()


def _kept(law: FieldLaw, mapper: LearnedMapper, course: Course, part: str) -> KeptWindows:
    r"""Returns what the solver makes of windows of a part of the days, with their truths."""
    parts: dict[str, list[Tensor]] = {k: [] for k in ("values", "mask", "truth", GUESS)}
    for lesson in course.lessons if part == "train" else course.held:
        for a, made in _made(mapper, lesson, part, course):
            values, mask, guess = law.data(made)
            assert lesson.truth is not None
            truth = lesson.truth.reshape(lesson.grid.shape)[a : a + mapper.times]
            rows = (values, mask, law.at_nodes(truth).reshape(1, -1), guess)
            for name, row in zip(parts, rows, strict=True):
                parts[name].append(row if row.dtype == torch.bool else row.float())
    grid = law.prior(mapper.window(course.grid)).domain
    mirrors = course.symmetries if part == "train" else ()
    return KeptWindows(grid, {k: torch.cat(v) for k, v in parts.items()}, course.noise, mirrors)


def _made(
    mapper: LearnedMapper, lesson: Lesson, part: str, course: Course
) -> Iterator[tuple[int, Windowed]]:
    r"""Yields the first day of some windows, and what the solver makes of them."""
    (first, end), days = lesson.spans[part], mapper.times
    shape = lesson.grid.shape
    values, mask = (x.reshape(shape) for x in (lesson.values, lesson.mask))
    for a in range(first, end - days + 1, STRIDE[part]):
        span = slice(a, a + days)
        axes = {k: v[:days] if k == "time" else v for k, v in lesson.grid.axes.items()}
        grid = Grid(metric="sphere", **axes)  # type: ignore[arg-type]
        guess = None if lesson.guess is None else lesson.guess.reshape(shape)[span].flatten()
        beside = {
            k: mapper.covariates.of_order_one(
                k, *(x.reshape(shape)[span].flatten() for x in lesson.beside[k])
            )
            for k in mapper.covariates.names
        }
        told = (values[span].flatten(), mask[span].flatten(), guess, None, beside)
        (estimate,) = mapper.windows(grid, *told, turned=False)
        seen = mapper.seen(mask[span])
        yield a, Windowed(estimate[None], values[span][None], seen)
