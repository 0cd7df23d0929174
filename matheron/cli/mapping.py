r"""From a user's file to a map: read, choose or load a model, condition, draw, write."""

from __future__ import annotations

__all__ = [
    "Request",
    "Target",
    "check_request",
    "data_of",
    "fit_model",
    "make_map",
    "provenance",
    "target_of",
    "write_fields",
]

import math
import numpy as np
import pandas as pd
import torch
import warnings

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from jaxtyping import Float
from pathlib import Path
from torch import Tensor
from typing import Any

from .border import Names, say, working
from .model import Model
from .product import Heights, Product, write_map
from .settings import MARKOV, Settings
from .structure import Law
from .velocity import read_velocity
from ..data import (
    InputError,
    Observations,
    check_output,
    parse_grid,
    quantity_of,
    read,
    read_points,
    write_table,
)
from ..domain import Grid, Points
from ..fit import maximum_likelihood
from ..observations import LinearObservation, PointObservation, Stack
from ..posterior import Posterior
from ..priors import Trend
from ..priors.base import TrendedPrior
from ..priors.gp import GaussianProcess
from ..reconstruct import automatic
from ..selection import Choice, choose, choose_markov, instruments
from ..selection.laws import MarkovField, MarkovLaw
from ..solvers.base import LikelihoodSolver

MOST_NUMBERS = 1_000_000_000
"""The most numbers of an ensemble: 8 GB of memory."""


@dataclass(frozen=True)
class Request:
    r"""What is to be mapped, and where to."""

    files: Sequence[Path]
    variable: str | None
    names: Names
    grid: str | None
    at: Path | None
    members: int
    output: Path
    model: Path | None = None
    heights: Heights = field(default_factory=Heights)
    product: Product = field(default_factory=Product)
    covariates: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    r"""Where a map is wanted: a grid, or the points of a table."""

    domain: Grid | Points
    table: pd.DataFrame | None = None


def _flat(points: Points, metric: str | None) -> Points:
    r"""Returns the same points with the metric that was asked for."""
    if metric is None or metric == points.metric:
        return points
    return Points(
        points.coords,
        points.dims,
        metric=metric,
        epoch=points.epoch,
        covariates=points.covariates,
    )


def _flat_grid(grid: Grid, metric: str | None) -> Grid:
    if metric is None or metric == grid.metric:
        return grid
    mask = None if grid.mask is None else grid.mask.reshape(grid.shape)
    covariates = {k: grid.unflatten(v) for k, v in grid.covariates.items()}
    axes: dict[str, Any] = dict(grid.axes)
    return Grid(mask=mask, metric=metric, epoch=grid.epoch, covariates=covariates, **axes)


def check_request(request: Request) -> None:
    r"""Refuses what could not be written, before any work."""
    _check_target(request)
    check_output(request.output, (".nc",) if request.at is None else (".csv", ".parquet"))
    request.product.check(request.output, request.at)


def data_of(request: Request) -> Observations:
    r"""Reads the data that are to be mapped."""
    names: dict[str, Any] = {**request.names.given(), **asdict(request.heights)}
    data = read(list(request.files), request.variable, **names)
    request.product.check_quantity(data)
    return data


def target_of(request: Request, data: Observations, metric: str | None = None) -> Target:
    r"""Returns where the map is wanted, and says what the data are like."""
    target = _target(request, data, metric)
    _check_members(request.members, len(target.domain))
    _describe_data(data)
    return target


def _check_target(request: Request) -> None:
    if (request.grid is None) == (request.at is None):
        msg = (
            "map(grid=..., at=...): expected one of them, got "
            f"{'none' if request.grid is None else 'both'}. Give --grid same, spans, or --at."
        )
        raise InputError(msg)


def _target(request: Request, data: Observations, metric: str | None) -> Target:
    if request.at is not None:
        points, table = read_points(request.at, data)
        return Target(_flat(points, metric), table)
    assert request.grid is not None
    return Target(_flat_grid(parse_grid(request.grid, data), metric))


def _metric_of(model: Model, data: Observations, settings: Settings) -> str:
    r"""Returns the metric of a model, once its axes are known to be those of the data."""
    model.check(data.points.dims)
    _check_method(model, settings)
    _check_height(model, data)
    for name in ("trend", "metric"):
        if getattr(settings, name) not in {None, getattr(model, name)}:
            say(f"note: the {name} is that of the model, '{getattr(model, name)}'")
    if model.variable != data.variable:
        say(f"note: the model was fitted on '{model.variable}', not on '{data.variable}'")
    return model.metric


def _check_method(model: Model, settings: Settings) -> None:
    r"""Refuses a method that asks for another kind of prior than that of the model."""
    if settings.method in MARKOV and settings.method != model.method:
        kind = "a kernel" if model.method == "auto" else model.method
        msg = (
            f"map(method={settings.method}): expected a model of that method, got one of {kind}. "
            f"Fit one with --method {settings.method}, or leave --method out."
        )
        raise InputError(msg)
    for name in ("alpha", "velocity"):
        if getattr(settings, name) is not None:
            say(f"note: {name} is that of the model")


def _check_height(model: Model, data: Observations) -> None:
    r"""Refuses a model of anomalies for absolute heights: they differ by the mean currents."""
    fitted = quantity_of(model.variable)
    same = "sla" not in {fitted, data.quantity} or fitted == data.quantity
    if not same and fitted in {"sla", "adt"} and data.quantity != "unknown":
        msg = (
            f"map(model=...): expected {fitted}, as the model was fitted on, got {data.quantity} "
            f"('{data.variable}'). Add --mdt FILE, or fit a model again."
        )
        raise InputError(msg)


def _check_members(members: int, nodes: int) -> None:
    if members * nodes > MOST_NUMBERS:
        msg = (
            f"map(members={members}): expected at most {MOST_NUMBERS:.0e} numbers in all, got "
            f"{members * nodes:.2g} on {nodes} nodes. Draw fewer members, or take a coarser grid."
        )
        raise InputError(msg)


def _describe_data(data: Observations) -> None:
    for note in data.notes:
        say(f"note: {note}")
    if data.duplicates and data.noise is None:
        say(f"note: {data.duplicates} values differ from another at the same place: noise")
    if len(data) > 1 and data.values.std() == 0:
        say("note: the data are constant")


def fit_model(data: Observations, settings: Settings, start: Model | None = None) -> Model:
    r"""Chooses and fits a model for some data, or fits the one given again."""
    _describe_data(data)
    if start is not None:
        start.check(data.points.dims)
        _check_method(start, settings)
    points = _flat(data.points, settings.metric)
    solver = settings.likelihood_solver()
    if start is not None:
        return _fit_again(data, _flat(points, start.metric), solver, start)
    choice, law = _choose(data, points, points, settings)
    if solver is not None and isinstance(choice.prior, GaussianProcess):
        # the structure is chosen by the quickest; the numbers are its own
        with working(f"fit by {settings.method}"):
            _fit_quietly(choice.prior, choice.observation, choice.y, solver)
    return _as_model(data, choice, law)


def _fit_quietly(
    prior: TrendedPrior,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    solver: LikelihoodSolver | None,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the summary
        maximum_likelihood(prior, observation, y, solver)


def _codes(data: Observations) -> Tensor | None:
    return None if data.groups is None else data.groups.codes


def _choose(
    data: Observations, points: Points, domain: Grid | Points, settings: Settings
) -> tuple[Choice, Law]:
    if len(data) < 3:
        msg = (
            f"map(observations=...): expected 3 data or more to fit a model, got {len(data)}. "
            "Give a model: --model DIR."
        )
        raise InputError(msg)
    if settings.trend not in {None, "", "0"}:  # told now, rather than after the fit
        trend = Trend(str(settings.trend), points)
        for where in (points, domain.points):
            trend.design(where)
    known: dict[str, Any] = {
        "noise": data.noise,
        "groups": _codes(data),
        "trend": settings.trend,
        "seed": settings.seed,
        "say": say,
    }
    if settings.method in MARKOV:
        velocity = settings.velocity and read_velocity(Path(settings.velocity), data, domain)
        known |= {"method": settings.method, "alpha": settings.alpha, "velocity": velocity}
        with working("choose and fit a model"):
            return choose_markov(domain, points, data.values, **known)
    with working("choose and fit a model"):
        found = choose(domain, points, data.values, neighbors=settings.neighbors, **known)
    assert isinstance(found.prior, GaussianProcess)
    return found, found.prior.kernel


def _parts(observation: LinearObservation) -> list[PointObservation]:
    parts = observation.parts if isinstance(observation, Stack) else [observation]
    return [p for p in parts if isinstance(p, PointObservation)]


def _as_model(data: Observations, choice: Choice, law: Law) -> Model:
    parts = _parts(choice.observation)
    codes = [""] if data.groups is None or len(parts) == 1 else _labels(data)
    noise = [p.noise_variance.mean().sqrt().item() for p in parts]
    bias = 0.0 if parts[0].bias is None else parts[0].bias.variance.sqrt().item()
    prior = choice.prior
    return Model(
        law=law,
        trend=prior.trend.formula if prior.trend else "",
        metric=prior.domain.metric,
        dims=prior.domain.dims,
        noise=dict(zip(codes, noise, strict=True)),
        bias=bias,
        variable=data.variable,
        units=data.units,
        structure=choice.structure,
        summary=choice.fitted.summary(data.units or "field"),
        scores=choice.scores,
    )


def _labels(data: Observations) -> list[str]:
    assert data.groups is not None
    return [data.groups.labels[int(c)] for c in data.groups.codes.unique()]


def _observe(
    model: Model, data: Observations, points: Points, domain: Grid | Points
) -> tuple[LinearObservation, Float[Tensor, " m"]]:
    r"""Returns the observation of data whose noise the model knows."""
    if data.noise is not None:
        return PointObservation(domain, points, data.noise), data.values
    bias = model.bias or None
    if data.groups is None or len(data.groups.codes.unique()) < 2:
        label = data.groups.labels[0] if data.groups is not None else ""
        return PointObservation(domain, points, model.noise_of(label)), data.values
    index = [torch.nonzero(data.groups.codes == c)[:, 0] for c in data.groups.codes.unique()]
    parts = [
        PointObservation(domain, points[i], model.noise_of(label), bias_std=bias)
        for i, label in zip(index, _labels(data), strict=True)
    ]
    return Stack(*parts), torch.cat([data.values[i] for i in index])


def _fit_again(
    data: Observations, points: Points, solver: LikelihoodSolver | None, start: Model
) -> Model:
    observation, y = instruments(points, points, data.values, data.noise, _codes(data))
    _start_noise(observation, data, start)
    prior = start.prior(points, points)
    with working("fit the model again"):
        _fit_quietly(prior, observation, y, solver)
    law = prior.kernel if isinstance(prior, GaussianProcess) else _fitted(start.law, prior)
    return _as_model(data, Choice(prior, observation, y, start.structure, start.scores), law)


def _fitted(law: Law, prior: MarkovField) -> MarkovLaw:
    assert isinstance(law, MarkovLaw)
    return law.fitted(prior)


def _start_noise(observation: LinearObservation, data: Observations, start: Model) -> None:
    r"""Sets what is to be learned of the noise to what the model knows of it."""
    parts = _parts(observation)
    labels = _labels(data) if len(parts) > 1 else [""]
    pairs = [(p.error, start.noise_of(k)) for p, k in zip(parts, labels, strict=True)]
    if parts[0].bias is not None:
        pairs.append((parts[0].bias, start.bias))
    for noise, std in pairs:
        if noise.log_scale.requires_grad and std > 0:
            noise.log_scale.data.fill_(math.log(std) - noise.std.mean().log().item())


def make_map(request: Request, settings: Settings, command: str = "") -> None:
    r"""Maps some data, and writes the map whole or not at all."""
    check_request(request)
    if request.covariates:
        msg = (
            f"map(covariate={request.covariates[0]}): expected a trained solver with it, got "
            f"{request.model or 'no --model'}. Leave it out, or give --model one of `matheron fit "
            "OSSE`."
        )
        raise InputError(msg)
    model = None if request.model is None else Model.load(request.model)
    data = data_of(request)
    metric = settings.metric if model is None else _metric_of(model, data, settings)
    target = target_of(request, data, metric)
    points = _flat(data.points, metric)
    if model is None:
        choice, law = _choose(data, points, target.domain, settings)
        prior, observation, y = choice.prior, choice.observation, choice.y
        model = _as_model(data, choice, law)
        say(model.summary)
    else:
        observation, y = _observe(model, data, points, target.domain)
        prior = model.prior(target.domain, points)
    asked = settings.solver()
    solver, why = automatic(prior, observation) if asked is None else (asked, settings.method)
    say(f"solver: {why}")
    with working("condition"):
        fields = _fields(solver(prior, observation)(y), observation, request.members, settings)
    attributes = {
        **provenance(command, settings.method, settings.seed),
        "model": model.structure or "given",
        "model_summary": model.summary,
        "solver": why,
        "noise_std": model.typical_noise,
    }
    with working(f"write {request.output}"):
        write_fields(request, target, data, fields, attributes, model.law)


def _fields(
    posterior: Posterior, observation: LinearObservation, members: int, settings: Settings
) -> dict[str, Tensor]:
    mean, std = posterior.mean, posterior.std()
    noise = _datum_variance(observation)
    found = {"": mean, "_std": std, "_obs_std": (std.square() + noise).sqrt()}
    if members:
        generator = torch.Generator().manual_seed(settings.seed)
        found["_member"] = posterior.sample(members, generator)
    return {k: v.detach() for k, v in found.items()}


def _datum_variance(observation: LinearObservation) -> float:
    r"""Returns the variance that a new datum adds: noise, and the bias of its instrument."""
    bias = observation.bias_variance
    noise = observation.noise_variance.mean().item()
    return noise + (bias.mean().item() if len(bias) else 0.0)


def provenance(command: str, method: str, seed: int) -> dict[str, object]:
    r"""Returns what a map says of how it was made."""
    return {
        "command": command,
        "seed": seed,
        "method": method,
        "version": version("matheron"),
        "history": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ} {command}",
    }


def write_fields(
    request: Request,
    target: Target,
    data: Observations,
    fields: dict[str, Tensor],
    attributes: dict[str, object],
    law: Law | None = None,
) -> None:
    r"""Writes a map, or the table of the points, whole or not at all."""
    if target.table is not None:
        write_table(_table(target.table, data.variable, fields), request.output)
        return
    assert isinstance(target.domain, Grid)
    where = (request.output, target.domain)
    write_map(*where, data, fields, attributes, law, request.product, request.grid)


def _table(table: pd.DataFrame, variable: str, fields: dict[str, Tensor]) -> pd.DataFrame:
    if variable in table:
        say(f"note: the column {variable} of the points is kept as {variable}_given")
        table = table.rename(columns={variable: f"{variable}_given"})
    columns = {f"{variable}{k}": v.numpy() for k, v in fields.items() if k != "_member"}
    draws = fields.get("_member", torch.zeros(0, len(table))).numpy()
    columns |= {f"{variable}_member_{i}": np.asarray(v) for i, v in enumerate(draws)}
    new = pd.DataFrame(columns, index=table.index)
    return pd.concat([table.drop(columns=[c for c in columns if c in table]), new], axis=1)
