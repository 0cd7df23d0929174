r"""Learned solvers from the command line: trained on an experiment, used on any data."""

from __future__ import annotations

__all__ = ["is_learned", "map_learned", "train_model"]

import contextlib
import dataclasses
import json
import math
import torch

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from torch import Tensor
from typing import Any

from .border import output_folder, say, working
from .mapping import Request, check_request, data_of, provenance, target_of, write_fields
from .settings import Settings
from .training import training_bar
from .. import compare
from ..compare import Plan
from ..compare.plans import LAW
from ..compare.starts import LAW_RUN, check_start
from ..data import Gridded, Observations
from ..data.errors import call, refuse
from ..data.quantity import ABSOLUTE, metres
from ..data.write import whole_or_not
from ..domain import Grid
from ..fit import LearnedModel, model_folder
from ..mappers.first_guess import FirstGuess
from ..mappers.learned import LOG, LearnedMapper, learned
from ..mappers.problem import Mapped, Problem
from ..osse import Experiment

PLAN, RUN, OCEANS = "plan.json", "run.safetensors", "oceans.safetensors"
LEFT = (RUN, LAW_RUN, PLAN, OCEANS)
"""What was asked for, where the training stands, and on what: until the model is there."""


def train_model(
    experiment: Path,
    output: Path,
    given: dict[str, Any],
    minutes: float | None = None,
    resume: bool = False,
    command: str = "",
    accelerator: str | None = None,
    start: Path | None = None,
) -> str:
    r"""Trains a solver on an experiment, writes the folder of the model; returns it in words.

    What is cut off at any moment goes on with ``resume``, to the same weights.

    Arguments:
        experiment: The folder of the experiment.
        output: The folder of the model.
        given: What was asked of the plan; ``None`` where it was not.
        minutes: How long it may take about, instead of a number of updates.
        resume: Whether to go on from a training that is there.
        command: The command, for the card.
        accelerator: ``"cpu"``, which is the default, ``"gpu"`` or ``"auto"``.
        start: The folder of a trained solver to begin with; by default weights are drawn.
    """
    _check_accelerator(accelerator)
    first = None if start is None else learned(start).model
    folder = _folder(output, resume)
    asked = {k: v for k, v in given.items() if v is not None}
    if minutes is not None and "updates" in asked:
        what = "one of them"
        raise refuse(call("fit", minutes=minutes), what, "updates as well", "Leave one out")
    if minutes is not None and not 0 < minutes < math.inf:
        raise refuse(call("fit", minutes=minutes), "a positive number", str(minutes), "Give 30")
    if resume and (folder / "model.json").exists():
        return _finished(folder)
    ocean = Experiment.load(experiment)
    known = _known(folder, asked) if resume else None
    guess = None
    if first is not None and asked.get("method") == LAW:
        asked, known_guess = _as_trained(first) | asked, first.others.get("guess")
        guess = known_guess if isinstance(known_guess, FirstGuess) else None
    plan, command = known or (Plan(**asked), command)
    if first is not None and plan.lawful:
        check_start(plan, first)
    with _begun(folder):
        with working("prepare the oceans to train on"):
            course = compare.course_of(ocean, plan, say, folder / OCEANS, guess)
        fabric = compare.hardware_of(plan, accelerator or "cpu")
        if minutes is not None and known is None:
            with working("time some updates"):
                course = compare.timed(course, minutes, fabric)
            say(f"{course.plan.updates} updates in {minutes:g} minutes")
        elif minutes is not None:
            say(f"note: {plan.updates} updates, as the training began with")
        _note(folder, course.plan, command)
        with training_bar(plan.method) as tell:
            kept: dict[str, Any] = {"command": command, "checkpoint": folder / RUN}
            compare.learn(course, folder, **kept, fabric=fabric, progress=tell, start=first)
    say(f"wrote {folder}/")
    return _finished(folder)


def _as_trained(model: LearnedModel) -> dict[str, Any]:
    r"""Returns what a plan has to be for the law of the field of a solver that is trained."""
    card, first = model.card, "oi" if "guess" in model.others else "none"
    told = {"purpose": card.purpose, "lead": card.lead, "window": model.grid.shape[0]}
    return told | {"first": first, "covariates": tuple(card.covariates)}


def _check_accelerator(name: str | None) -> None:
    where, cure = call("fit", accelerator=name), "Leave it out to learn on the processor"
    if name not in (None, "cpu", "gpu", "auto"):
        raise refuse(where, "cpu, gpu or auto", str(name), cure)
    if name == "gpu" and not torch.cuda.is_available():
        raise refuse(where, "a machine with one", "none that torch sees", cure)


def _folder(output: Path, resume: bool) -> Path:
    folder = output_folder(output, resume)
    if any((folder / name).exists() for name in (PLAN, OCEANS)) and not resume:
        what, got = "a new folder", "one with a training that was cut off"
        cure = "Give --resume to go on with it, or name another folder"
        raise refuse(call("fit", output=output), what, got, cure)
    return folder


def _known(folder: Path, asked: dict[str, Any]) -> tuple[Plan, str] | None:
    r"""Returns the plan of a training that was cut off and its command, if there is one."""
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        plan, command = Plan(**told["plan"]), str(told["command"])
    except (OSError, TypeError, KeyError, ValueError) as error:
        where, short = call("fit", resume=folder), " ".join(str(error).split())[:120]
        raise refuse(where, "the plan of a training", short, "Delete the folder") from None
    for name, value in asked.items():
        if getattr(plan, name) != (tuple(value) if isinstance(value, list) else value):
            where, cure = call("fit", **{name: value}), "Leave it out, or name another folder"
            raise refuse(where, f"{getattr(plan, name)}, as it began with", str(value), cure)
    return plan, command


def _note(folder: Path, plan: Plan, command: str) -> None:
    told = {"command": command, "plan": dataclasses.asdict(plan)}
    with whole_or_not(folder.absolute() / PLAN) as part:
        part.write_text(json.dumps(told, indent=1), encoding="utf-8")


@contextlib.contextmanager
def _begun(folder: Path) -> Iterator[None]:
    r"""Makes the folder; takes it away if what was asked for is refused before any work."""
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    except ValueError:
        if not any((folder / name).exists() for name in (RUN, LAW_RUN)):
            for name in (PLAN, OCEANS):
                (folder / name).unlink(missing_ok=True)
            if new:
                folder.rmdir()
        raise


def _finished(folder: Path) -> str:
    r"""Removes what is left of a training whose model is there; returns the model in words."""
    card = learned(folder).model.card
    for name in LEFT:
        (folder / name).unlink(missing_ok=True)
    scores = card.scores
    days = ", ".join(f"{k} {a} to {b}" for k, (a, b) in card.split.items())
    units = "" if card.units == "1" else f" {card.units}"  # a logarithm has none
    return (
        f"{card.notes}\n{days}\n"
        f"on the days held out: rmse {scores['rmse']:.4g}{units}{_of_guess(scores)}, "
        f"crps {scores['crps']:.4g}{units}, spread over error {scores['spread_skill']:.3g}; "
        f"std of the field {card.normalisation['std']:.4g}{units}"
    )


def _of_guess(scores: Mapping[str, float]) -> str:
    if "rmse_first_guess" not in scores:
        return ""
    return f" (first guess {scores['rmse_first_guess']:.4g})"


def is_learned(folder: Path | None) -> bool:
    r"""Returns whether a folder holds a trained solver, rather than a fitted law."""
    if folder is None:
        return False
    try:
        about = json.loads((model_folder(folder) / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("kind") == "learned"


def map_learned(request: Request, settings: Settings, command: str = "") -> None:
    r"""Maps some data by a trained solver, and writes the map whole or not at all."""
    assert request.model is not None
    check_request(request)
    mapper = learned(request.model)
    if request.at is not None or settings.method != "auto":
        got = f"--at {request.at}" if request.at else f"--method {settings.method}"
        where, cure = call("map", model=request.model), "Give --grid, and no method"
        raise refuse(where, "a grid: a trained solver has a method of its own", got, cure)
    beside = _beside(mapper, request.covariates)
    data = data_of(request)
    mean = 0.0
    if mapper.model.card.variable.startswith(LOG):
        data, mean = _logarithms(mapper, data, request.model)
    else:
        _check_same(mapper, data, request.model)
    target = target_of(request, data)
    assert isinstance(target.domain, Grid)
    with working("map"):
        values = data.values - mean
        problem = Problem(target.domain, data.points, values, seed=settings.seed, beside=beside)
        fields = _fields(mapper(problem, say), mean, request.members, settings.seed)
    attributes = {
        **provenance(command, "learned", settings.seed),
        "model": mapper.model.card.notes,
        "model_command": mapper.model.card.command,
    }
    with working(f"write {request.output}"):
        write_fields(request, target, data, fields, attributes)


def _beside(mapper: LearnedMapper, given: Sequence[str]) -> dict[str, Gridded]:
    r"""Reads the fields that a solver looks at, given as NAME=FILE; refused before any work."""
    files = {}
    for text in given:
        name, _, path = (part.strip() for part in text.partition("="))
        where = call("map", covariate=text)
        if not path or name in files:
            raise refuse(where, "each name once, and a file after '='", text, "Write sst=sst.nc")
        if name not in mapper.covariates.names:
            known = ", ".join(mapper.covariates.names) or "none"
            expected = f"a field of the training of the model ({known})"
            raise refuse(where, expected, f"'{name}'", "Leave it out")
        files[name] = Path(path)
    mapper.covariates.check(files)
    return {name: Gridded.read(name, path) for name, path in files.items()}


def _logarithms(
    mapper: LearnedMapper, data: Observations, folder: Path
) -> tuple[Observations, float]:
    r"""Returns the logarithms of data of a positive field, and their mean, which is taken off."""
    card, where = mapper.model.card, call("map", model=folder)
    if data.variable not in (card.variable, card.variable.removeprefix(LOG)):
        expected = f"'{card.variable.removeprefix(LOG)}', or '{card.variable}'"
        raise refuse(where, expected, f"'{data.variable}'", "Name the variable, or train again")
    if data.variable != card.variable:
        if not (data.values > 0).all():
            bad = f"{int((data.values <= 0).sum())} that are not"
            raise refuse(where, "positive data, as a logarithm is mapped", bad, "Mask them")
        told = f"logarithm of {data.long_name or data.variable}"
        new: dict[str, Any] = {"variable": card.variable, "units": "1", "long_name": told}
        data = dataclasses.replace(data, values=data.values.log(), attributes={}, **new)
    return data, data.values.mean().item()


def _fields(found: Mapped, mean: float, members: int, seed: int) -> dict[str, Tensor]:
    fields = {"": found.mean + mean, "_std": found.std()}
    if members:
        fields["_member"] = found.sample(members, torch.Generator().manual_seed(seed)) + mean
    return fields


def _check_same(mapper: LearnedMapper, data: Observations, folder: Path) -> None:
    r"""Refuses data of another variable, with the mean currents in them, or in other units."""
    card, where = mapper.model.card, call("map", model=folder)
    if data.quantity in ABSOLUTE:
        got = f"'{data.variable}', which holds the mean currents"
        raise refuse(where, "sea level anomalies", got, "Add --mdt FILE --quantity sla")
    if data.quantity != "sla" and data.variable != card.variable:
        cure = "Name the variable, or say --quantity sla"
        raise refuse(where, "sea level anomalies", f"'{data.variable}'", cure)
    if data.units and card.units and metres(data.units) != metres(card.units):
        got, cure = f"'{data.units}'", "Convert them"
        raise refuse(where, f"data in '{card.units}', as in the training", got, cure)
