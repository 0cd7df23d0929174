r"""Trained solvers on disk: numbers as safetensors, all else as JSON. Nothing is unpickled."""

from __future__ import annotations

__all__ = ["BROKEN", "Card", "LearnedModel", "load_model", "save_model"]

import contextlib
import dataclasses
import hashlib
import json
import numpy as np
import safetensors
import torch.nn as nn

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from safetensors.torch import load, save_file
from torch import Tensor
from typing import Any

from .architecture import Classes, build, describe, known_classes
from .pretrained import model_folder
from ..data.errors import InputError, call, refuse
from ..data.write import whole_or_not
from ..domain import Grid
from ..priors.base import Prior
from ..solvers.base import Solver

BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    safetensors.SafetensorError,
)
"""What reading and building a model raise where a file is not whole, or not of a model."""
FORMAT = 1
KIND = "learned"
WEIGHTS, ABOUT = "weights.safetensors", "model.json"
NEEDED = ("solver", "prior")
CLOSE = 0.01
"""The largest relative difference between steps of grids that are taken for the same."""


@dataclass(frozen=True)
class Card:
    r"""What to know of a trained solver before it is used.

    Arguments:
        variable: The name of the field.
        units: Its units.
        normalisation: What the field is made of order one by, e.g. ``mean`` and ``std``.
        split: The first and the last time of each part of the data.
        seed: The seed of the training.
        command: The command that made it.
        scores: What it reached, by name.
        notes: Anything else.
        purpose: What its windows are for: see :class:`matheron.data.Purpose`.
        lead: How many times ahead it forecasts.
        symmetries: Those of the field, that it was trained by: see :class:`matheron.data.Mirror`.
        covariates: Other fields that it is given beside the data: what each is made of order one
            by (``mean``, ``std``) and its ``units``, by name.
    """

    variable: str = ""
    units: str = ""
    normalisation: Mapping[str, float] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    command: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    purpose: str = "mapping"
    lead: int = 0
    symmetries: Sequence[str] = field(default_factory=list)
    covariates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class LearnedModel:
    r"""A trained solver with its prior.

    Arguments:
        solver: The solver.
        prior: The prior, on the domain that was asked for.
        card: What to know of them.
        grid: The grid of the windows that they were trained on.
        others: Whatever else was trained, by name, e.g. a spread.
    """

    solver: Solver[Any]
    prior: Prior
    card: Card
    grid: Grid
    others: Mapping[str, nn.Module] = field(default_factory=dict)


def save_model(
    folder: Path,
    solver: Solver[Any],
    prior: Prior,
    card: Card,
    *,
    others: Mapping[str, nn.Module] | None = None,
    architecture: Mapping[str, Any] | None = None,
    classes: Classes | None = None,
) -> None:
    r"""Writes a trained solver as a folder of two files, each whole or not at all.

    ``model.json`` says what there is, ``weights.safetensors`` holds the numbers. Before anything
    is written the model is made from its description, so that what is saved can be loaded.

    Arguments:
        folder: The folder, made if it does not exist.
        solver: The solver.
        prior: The prior, on a grid of the size of a window.
        card: What to know of them.
        others: Whatever else was trained, by name.
        architecture: The description of each part by name, as JSON values, where modules do not
            keep their arguments: ``{"solver": {"class": ..., "arguments": {...}}}``.
        classes: More classes that may be made, by name.

    Raises:
        ValueError: If a part cannot be described, or made again, or the folder not be written.
    """
    grid = prior.domain
    if not isinstance(grid, Grid):
        got = type(grid).__name__
        raise refuse(call("save_model", prior="..."), "a prior on a grid", got, "Give it a Grid")
    known = known_classes(classes)
    tensors: dict[str, Tensor] = {}
    parts: dict[str, nn.Module] = {"solver": solver, "prior": prior, **(others or {})}
    given = architecture or {}
    specs = {
        name: given[name] if name in given else describe(part, known, tensors, name)
        for name, part in parts.items()
    }
    specs = json.loads(json.dumps(specs))
    for name, part in parts.items():
        _check_made(name, specs[name], part, known, tensors, grid)
    numbers = {f"{name}.{k}": v for name, m in parts.items() for k, v in m.state_dict().items()}
    numbers |= {f"argument:{k}": v for k, v in tensors.items()}
    numbers |= {f"axis:{k}": v for k, v in grid.axes.items()}
    about = {
        "kind": KIND,
        "format": FORMAT,
        "version": version("matheron"),
        "grid": _about_grid(grid),
        "parts": specs,
        "card": dataclasses.asdict(card),
    }
    _write(folder, numbers, about)


def _check_made(
    name: str,
    spec: Any,
    part: nn.Module,
    classes: Classes,
    tensors: Mapping[str, Tensor],
    grid: Grid,
) -> None:
    try:
        made = build(spec, classes, tensors, grid)
        made.load_state_dict(part.state_dict())
        same = type(made) is type(part)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        same, short = False, " ".join(str(error).split())[:120]
    else:
        short = f"a {type(made).__name__}"
    if not same:
        where, cure = call("save_model", **{name: "..."}), "Give architecture=... by hand"
        raise refuse(where, f"a {type(part).__name__} that its data make again", short, cure)


def _about_grid(grid: Grid) -> dict[str, Any]:
    epoch = None if grid.epoch is None else str(grid.epoch)
    about = {"dims": list(grid.dims), "shape": list(grid.shape), "metric": grid.metric}
    return {**about, "steps": _steps(grid), "epoch": epoch}


def _steps(grid: Grid) -> dict[str, float]:
    return {k: a.diff().median().item() for k, a in grid.axes.items() if len(a) > 1}


def _write(folder: Path, numbers: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    if folder.is_file() or not folder.absolute().parent.is_dir():
        where, got = call("save_model", folder=folder), "a file, or no parent folder"
        raise refuse(where, "a folder that can be made", got, "Name another one")
    folder.mkdir(exist_ok=True)
    plain = {k: v.detach().cpu().clone().contiguous() for k, v in numbers.items()}
    with contextlib.ExitStack() as both:  # the files take their places together, at the end
        text = both.enter_context(whole_or_not(folder.absolute() / ABOUT))
        weights = both.enter_context(whole_or_not(folder.absolute() / WEIGHTS))
        save_file(plain, weights)
        about["checksum"] = _checksum(weights.read_bytes())
        text.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def load_model(
    folder: Path,
    domain: Grid | None = None,
    variable: str | None = None,
    classes: Classes | None = None,
) -> LearnedModel:
    r"""Returns a trained solver, on another grid of the same steps if one is given.

    Arguments:
        folder: The folder; or the name of one of :func:`matheron.fit.pretrained`.
        domain: The grid of the prior; that of the windows of the training by default.
        variable: The field to be mapped, refused if the model is of another.
        classes: More classes that may be made, by name. What is beside solver and prior is left
            out if its class is not known.

    Raises:
        InputError: If the folder does not hold a whole model, if it is of a later version, or of
            another variable, or if the grid has other axes or steps.
    """
    where, folder = call("load_model", folder=folder), model_folder(folder)
    try:
        about = _about(folder, where)
        content = (folder / WEIGHTS).read_bytes()
        if _checksum(content) != about["checksum"]:
            got, cure = f"others, or a part of {WEIGHTS}", "Copy the folder again, or train again"
            raise refuse(where, f"the numbers that {ABOUT} speaks of", got, cure)
        card = Card(**about["card"])
        _check_variable(where, card.variable, variable)
        numbers = load(content)
        grid = _grid(about["grid"], _named(numbers, "axis:"))
        _check_grid(where, about["grid"], domain)
        parts = _parts(about["parts"], numbers, known_classes(classes), domain or grid)
        solver, prior = parts.pop("solver"), parts.pop("prior")
        return LearnedModel(solver, prior, card, grid, parts)
    except InputError:
        raise
    except BROKEN as error:
        short = " ".join(str(error).split())[:120]
        got, cure = f"{type(error).__name__}: {short}", "Train it again, or name another folder"
        raise refuse(where, "a folder that save_model made", got, cure) from None


def _about(folder: Path, where: str) -> dict[str, Any]:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if not isinstance(about, dict) or about.get("kind") != KIND:
        got = f"another {ABOUT}"
        raise refuse(where, "a trained solver", got, "Name a folder that save_model made")
    found = about.get("format")
    if not isinstance(found, int) or found > FORMAT:
        got = f"format {found}, of version {about.get('version')}"
        raise refuse(where, f"a model of format {FORMAT} or less", got, "Update matheron")
    return about


def _named(numbers: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k[len(start) :]: v for k, v in numbers.items() if k.startswith(start)}


def _parts(
    specs: Mapping[str, Any], numbers: Mapping[str, Tensor], classes: Classes, domain: Grid
) -> dict[str, Any]:
    arguments, made = _named(numbers, "argument:"), {}
    for name, spec in specs.items():
        if name not in NEEDED and spec["class"] not in classes:
            continue
        made[name] = build(spec, classes, arguments, domain)
        made[name].load_state_dict(_named(numbers, f"{name}."))
        made[name].eval()
    return made


def _grid(about: Mapping[str, Any], axes: Mapping[str, Tensor]) -> Grid:
    epoch = None if about["epoch"] is None else np.datetime64(about["epoch"])
    ordered: dict[str, Any] = {k: axes[k] for k in about["dims"]}
    return Grid(metric=about["metric"], epoch=epoch, **ordered)


def _check_variable(where: str, own: str, asked: str | None) -> None:
    if asked is not None and own and asked != own:
        got, cure = f"'{asked}'", "Train a model of it, or name the right variable"
        raise refuse(where, f"the variable of the model, '{own}'", got, cure)


def _check_grid(where: str, about: Mapping[str, Any], domain: Grid | None) -> None:
    if domain is None:
        return
    own = (tuple(about["dims"]), about["metric"])
    if (domain.dims, domain.metric) != own:
        got = f"{domain.dims} on the {domain.metric}"
        cure = "Give a grid with the axes of the model"
        raise refuse(where, f"a grid with axes {own[0]} on the {own[1]}", got, cure)
    for name, step in _steps(domain).items():
        trained = about["steps"].get(name, step)
        if abs(step - trained) > CLOSE * abs(trained):
            expected = f"steps of {trained:.6g} along '{name}', as in its training"
            raise refuse(where, expected, f"{step:.6g}", "Give a grid with these steps")
