r"""All that a solver is trained on: some oceans, the first guess of each, and how they are cut."""

from __future__ import annotations

__all__ = ["Course", "course_of"]

import dataclasses
import json
import math
import numpy as np
import torch

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from typing import Any

from .lessons import Lesson, Spans, lesson_of, shown_of, spans_of
from .plans import COVARIATES, EDDIES, Plan, Units
from .problems import images, map_grid, problem_of
from .withheld import TURNS, clean
from ..data import Augmentation, Mirror, Source
from ..data.patches import QUASI_GEOSTROPHIC
from ..data.several import Several
from ..data.write import whole_or_not
from ..domain import EARTH_RADIUS, Grid
from ..mappers import Problem
from ..mappers.first_guess import FirstGuess, first_guess
from ..osse import Experiment

Say = Callable[[str], None]
SEA_LEVEL = "ssh"
STRETCH = 60
"""The days of the data that the scales of a first guess are chosen by."""
STEPS = 2.0
"""The length that errors of slopes of images are measured by, in steps of the grid."""


@dataclass(frozen=True)
class Course:
    r"""Oceans to train on, the first of which has days to validate by.

    Arguments:
        lessons: The oceans.
        plan: What is trained, which says how they are cut.
        variable: The name of the field.
        about: The experiment in a few words.
        guess: What makes the first guess of data.
        images: Whether data are images, whose logarithm is mapped.
        labels: The units of other fields, by name.
    """

    lessons: list[Lesson]
    plan: Plan
    variable: str
    about: str
    guess: FirstGuess | None = None
    images: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        r"""The grid of the first ocean."""
        return self.lessons[0].grid

    @property
    def held(self) -> list[Lesson]:
        r"""The lessons that have days held out: those of the first ocean."""
        return [one for one in self.lessons if "validation" in one.spans]

    def moments(self) -> tuple[float, float]:
        r"""Returns mean and std of the truth, over the days of the training."""
        x = torch.cat([one.fields() for one in self.lessons])
        return x.mean().item(), self._clean(x.std().item())

    def _clean(self, std: float) -> float:
        r"""Returns the std of what is judged by without the errors that data have."""
        return clean(std, self.noise) if self.plan.blind else std

    @property
    def noise(self) -> float:
        r"""The std of the data about the truth at the nodes, over the days of the training.

        Without a truth, it is what neighbours differ by.
        """
        if self.plan.blind:
            found = [one.nugget() for one in self.lessons]
            return (sum(found) / len(found)) ** 0.5
        e = torch.cat([one.errors() for one in self.lessons])
        return max(e.square().mean().sqrt().item(), 1e-3 * self.moments()[1])

    @property
    def rest(self) -> float:
        r"""The std of the errors of the first guess in units of the field; one without."""
        if self.guess is None:
            return 1.0
        e = torch.cat([one.departures() for one in self.lessons])
        return self._clean(e.square().mean().sqrt().item()) / self.moments()[1]

    def windows(self) -> tuple[Several, Source]:
        r"""Returns the windows to train on, and those to validate by."""
        size = (self.plan.window, *(min(self.plan.patch, n) for n in self.grid.shape[1:]))
        known = (size, self.noise, self.plan.use)
        moved = Augmentation(self.plan.exchanged, shift=True, mirrors=self.symmetries)
        scales = self.scales
        train = [one.windows("train", *known, moved, scales) for one in self.lessons]
        held = [one.windows("validation", *known, scales=scales) for one in self.held]
        return Several(train), held[0] if len(held) == 1 else Several(held)

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        r"""Returns mean and std of what is seen of other fields, over the days of the training."""
        found = {}
        for name in self.plan.covariates:
            pairs = [(one.beside[name], one.days("train")) for one in self.lessons]
            x = torch.cat([x[known & days] for (x, known), days in pairs])
            found[name] = (x.mean().item(), x.std().item())
        return found

    @property
    def symmetries(self) -> tuple[Mirror, ...]:
        r"""Returns the symmetries of the field and of what goes with it.

        There are none that turn time where it has an end, or with a field that forgets.
        """
        if self.variable != SEA_LEVEL:
            return ()
        mapping, found = self.plan.purpose == "mapping", []
        for mirror in QUASI_GEOSTROPHIC:
            signs = {k: COVARIATES[k].get(str(mirror)) for k in self.plan.covariates}
            others = tuple((k, sign) for k, sign in signs.items() if sign is not None)
            if len(others) == len(signs) and (mapping or "time" not in mirror.axes):
                found.append(dataclasses.replace(mirror, others=others))
        return tuple(found)

    def units(self, grid: Grid) -> Units:
        r"""Returns what is known of the field, for windows on a grid."""
        length = STEPS * _step_of(grid) if self.images else EDDIES
        return Units(grid, *self.moments(), self.rest, self.noise, length)

    # on disk

    def save(self, path: Path) -> None:
        r"""Writes the oceans as one file, whole or not at all."""
        parts = [(k, one.tensors) for k, one in enumerate(self.lessons)]
        tensors = {f"{k}.{name}": v for k, found in parts for name, v in found.items()}
        about: dict[str, Any] = {"identity": self.plan.oceans_alone, "experiment": self.about}
        about["guess"] = None if self.guess is None else self.guess.made_with
        with whole_or_not(path.absolute()) as part:
            save_file(tensors, part, {"about": json.dumps(about)})


def _step_of(grid: Grid) -> float:
    r"""Returns the step in space, in metres: the mean of those of latitude and longitude."""
    lat, lon = (grid.axes[k] for k in ("lat", "lon"))
    wide = math.cos(math.radians(lat.mean().item()))
    degrees = (lat.diff().median().item() + wide * lon.diff().median().item()) / 2
    return EARTH_RADIUS * math.radians(degrees)


def course_of(
    experiment: Experiment,
    plan: Plan,
    say: Say,
    keep: Path | None = None,
    guess: FirstGuess | None = None,
) -> Course:
    r"""Returns the oceans to train on: that of the experiment, and as many more as planned.

    The last fifth of the days of the first is for validation. The others are simulated, each with
    a seed of its own.

    Without a truth, each ocean gives as many lessons as there are turns: each withholds data of
    other days, and its first guess is made of those that are left.

    Arguments:
        experiment: The experiment, with another ocean to train on.
        plan: What is trained.
        say: Where to say what is being done.
        keep: A file where the oceans are kept, and read again if they are those of the plan.
        guess: What makes first guesses, where the plan has them; by default the optimal
            interpolation whose scales predict what is held out of the first ocean.

    Raises:
        ValueError: If there is no ocean to train on, or not enough days.
    """
    first = _other(experiment, plan)
    grid = map_grid(first, plan.step)
    spans = spans_of(grid, plan.window)
    if keep is not None and keep.exists():
        found = _read(keep, first, plan, spans)
        if found is not None:
            return found
    if plan.first == "oi" and guess is None:
        guess = _guess(_seen(first, plan, spans), plan, say)
    lessons = _lessons(first, plan, spans, guess)
    for k in range(1, plan.oceans):
        say(f"ocean {k + 1} of {plan.oceans}")
        own = spans_of(grid, plan.window, held=False)
        lessons += _lessons(_further(first, k), plan, own, guess)
    course = _course(lessons, plan, first, guess)
    if keep is not None:
        course.save(keep)
    return course


def _lessons(
    ocean: Experiment, plan: Plan, spans: Spans, guess: FirstGuess | None
) -> list[Lesson]:
    r"""Returns the lesson of an ocean; or several, whose data are withheld in turn."""
    if not plan.blind:
        return [lesson_of(ocean, plan.step, plan.window, spans, guess, plan.covariates)]
    lessons = []
    for turn in range(TURNS):
        seen, lesson = shown_of(ocean, plan.step, plan.window, spans, turn, plan.seed)
        found = None if guess is None else guess.of(seen, seen.grid)
        lessons.append(dataclasses.replace(lesson, guess=found))
    return lessons


def _seen(ocean: Experiment, plan: Plan, spans: Spans) -> Problem:
    r"""Returns the data that scales are chosen by: without a truth, what is seen at first."""
    if not plan.blind:
        whole = problem_of(ocean, plan.step)
        return dataclasses.replace(whole, known=None, values=whole.anomalies)
    return shown_of(ocean, plan.step, plan.window, spans, 0, plan.seed)[0]


def _about(experiment: Experiment) -> str:
    own = experiment.recipe
    return f"{own.preset}, {own.constellation}, noise {own.noise}, seed {experiment.seed}"


def _guess(whole: Problem, plan: Plan, say: Say) -> FirstGuess:
    r"""Returns the first guess whose scales predict what is held out of some of the days."""
    days = whole.grid.axes["time"]
    middle = len(days) // 2
    chosen = days[max(0, middle - STRETCH // 2) : middle + STRETCH // 2]
    axes = {**whole.grid.axes, "time": chosen}
    grid = Grid(metric="sphere", epoch=whole.grid.epoch, **axes)  # type: ignore[arg-type]
    near = whole.near(chosen[0].item() - plan.window, chosen[-1].item() + plan.window)
    return first_guess(dataclasses.replace(near, grid=grid), say, plan.lag)


def _read(path: Path, first: Experiment, plan: Plan, spans: Spans) -> Course | None:
    r"""Returns the oceans of a file, if they are those of a plan."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None  # what is not whole is made again
    names = {"identity": plan.oceans_alone, "experiment": _about(first)}
    if any(about[k] != v for k, v in names.items()):
        return None
    grid = map_grid(first, plan.step)
    lessons, turns = [], TURNS if plan.blind else 1
    for k in range(plan.oceans * turns):
        own = spans if k < turns else spans_of(grid, plan.window, held=False)
        found = {n.removeprefix(f"{k}."): v for n, v in tensors.items() if n.startswith(f"{k}.")}
        lessons.append(Lesson.read(grid, own, found))
    guess = None if about["guess"] is None else FirstGuess(**about["guess"])
    return _course(lessons, plan, first, guess)


def _course(
    lessons: list[Lesson], plan: Plan, first: Experiment, guess: FirstGuess | None
) -> Course:
    variable = f"log_{first.variable}" if images(first) else first.variable
    labels = {k: str(first.beside[k].seen[k].attrs.get("units", "")) for k in plan.covariates}
    return Course(lessons, plan, variable, _about(first), guess, images(first), labels)


def _other(experiment: Experiment, plan: Plan) -> Experiment:
    r"""Returns the ocean to train on as an experiment whose scored days are all its days."""
    other, calendar = experiment.training, experiment.calendar
    if other is None:
        msg = (
            "learn(experiment=...): expected one with another ocean to train on, got none. Make "
            "it with `matheron osse --train`."
        )
        raise ValueError(msg)
    _check_images(experiment, plan)
    for name in plan.covariates:
        if name not in other.beside:
            msg = (
                f"learn(covariates={name}): expected an experiment with it, got "
                f"{', '.join(other.beside) or 'none'}. Make it with `matheron osse --{name}`."
            )
            raise ValueError(msg)
    swapped = dataclasses.replace(calendar, scored=calendar.training, training=calendar.scored)
    return dataclasses.replace(
        experiment,
        seed=other.seed,
        calendar=swapped,
        truth=other.truth,
        observations=other.observations,
        training=None,
        beside=other.beside,
    )


def _check_images(experiment: Experiment, plan: Plan) -> None:
    r"""Refuses what goes with images only, or does not go with them."""
    if plan.blind and not images(experiment):
        msg = (
            f"learn(supervision={plan.supervision}): expected images, whose gaps are laid over "
            "other days, got tracks. Use --supervision truth."
        )
        raise ValueError(msg)
    if plan.step is not None and images(experiment):
        msg = (
            f"learn(step={plan.step}): expected none for images, which are mapped at their own "
            "nodes, got a step. Leave it out."
        )
        raise ValueError(msg)


def _further(first: Experiment, k: int) -> Experiment:
    r"""Returns one more ocean like the first, with a seed of its own."""
    seed = int(np.random.SeedSequence([first.seed, k]).generate_state(1)[0])
    days = first.calendar.count("scored")
    truth, seen = first.recipe.make(seed, first.calendar.scored[0], days, lambda *_: None)
    beside = first.recipe.beside(seed, truth)
    truth = truth[[first.variable]]
    return dataclasses.replace(first, seed=seed, truth=truth, observations=seen, beside=beside)
