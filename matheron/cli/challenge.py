r"""Scores of a map under a named definition, beside those that are published."""

from __future__ import annotations

__all__ = ["challenge_files", "check_plain", "show_challenge"]

import numpy as np
import torch

from pathlib import Path
from typing import Any

from .border import say
from ..data import InputError, Map, Observations, read, read_map
from ..data.quantity import check_same
from ..domain import Grid
from ..metrics.spectral import (
    DEFINITIONS,
    Field,
    Scored,
    Track,
    beside,
    challenge_score,
    published,
)

DIMS = ("time", "lat", "lon")
USUAL = {"ocb": "sla_filtered"}
"""The variable of an along-track product that a definition takes; otherwise the unfiltered one."""


def challenge_files(
    prediction: Path,
    truth: Path | None,
    tracks: Path | None,
    definition: str,
    *,
    variable: str | None = None,
    mdt: Path | None = None,
    lwe: str = "keep",
    seed: int = 0,
) -> Scored:
    r"""Returns the scores of a map in a file, under a definition.

    Raises:
        InputError: If a file cannot be used, or if quantities or units differ.
        ValueError: If the definition is unknown, or cannot be applied to the files.
    """
    if definition not in DEFINITIONS:
        known = ", ".join(DEFINITIONS)
        msg = f"score(definition={definition}): expected one of {known}, got another. Name one."
        raise InputError(msg)
    _check_given(definition, truth, tracks)
    chart = read_map(prediction, variable)
    generator = torch.Generator().manual_seed(seed)
    if tracks is not None:
        data = _read_tracks(tracks, chart, definition, variable, mdt, lwe)
        _agree(chart, data)
        against = _track(tracks, data)
        return challenge_score(
            definition, _field(prediction, chart), tracks=against, generator=generator
        )
    assert truth is not None
    true = _read_truth(truth, variable or chart.variable)
    _agree(chart, true)
    return challenge_score(definition, _field(prediction, chart), truth=_field(truth, true))


def check_plain(against: str | None, mdt: Path | None) -> None:
    r"""Refuses the options that only a definition knows."""
    for name, value in (("against", against), ("mdt", mdt)):
        if value is not None:
            msg = (
                f"score({name}={value}): expected a definition with it, got none. "
                "Give --definition, e.g. robust."
            )
            raise InputError(msg)


def _check_given(definition: str, truth: Path | None, tracks: Path | None) -> None:
    needed = DEFINITIONS[definition].against
    given = tuple(k for k, v in (("truth", truth), ("tracks", tracks)) if v is not None)
    if len(given) != 1 or given[0] not in needed:
        wanted = " or ".join(f"--{k} FILE" for k in needed)
        got = " and ".join(f"--{k}" for k in given) or "neither --truth nor --tracks"
        msg = f"score(definition={definition}): expected {wanted}, got {got}. Give {wanted}."
        raise InputError(msg)


def _agree(chart: Map, other: Map | Observations) -> None:
    told = check_same(chart, other)
    if told:
        say(f"note: {told}")


def _read_truth(path: Path, variable: str) -> Map:
    try:
        return read_map(path, variable)
    except InputError as error:
        if "variable" not in str(error):
            raise
    return read_map(path)


def _read_tracks(
    path: Path, chart: Map, definition: str, variable: str | None, mdt: Path | None, lwe: str
) -> Observations:
    options: dict[str, Any] = {"mdt": mdt, "lwe": lwe}
    for name in (variable or chart.variable, USUAL.get(definition, "sla_unfiltered")):
        try:
            return read(path, name, **options)
        except InputError as error:
            if "read(variable=" not in str(error):
                raise
    return read(path, **options)


def _check_grid(path: Path, grid: Grid) -> np.datetime64:
    if grid.dims != DIMS or grid.epoch is None:
        dated = "" if grid.epoch is not None else ", without dates"
        msg = (
            f"score(definition=..., file={path}): expected a field on dates, lat and lon, got "
            f"{', '.join(grid.dims)}{dated}. Give a map for each date."
        )
        raise InputError(msg)
    return grid.epoch


def _dates(epoch: np.datetime64, days: torch.Tensor) -> np.ndarray:
    # to the microsecond: days in double precision hold no more over a few years
    micro = np.round(days.numpy() * 86_400e6).astype(np.int64)
    return epoch.astype("datetime64[us]") + micro.astype("timedelta64[us]")


def _field(path: Path, chart: Map) -> Field:
    epoch = _check_grid(path, chart.grid)
    axes = chart.grid.axes
    values = chart.grid.unflatten(chart.mean).numpy()
    time = _dates(epoch, axes["time"])
    return Field(values, time, axes["lat"].numpy(), axes["lon"].numpy())


def _track(path: Path, data: Observations) -> Track:
    if data.groups is not None and len(data.groups.labels) > 1:
        msg = (
            f"score(tracks={path}): expected the data of one mission, got "
            f"{', '.join(data.groups.labels)}. Give them one at a time: tracks are cut by their "
            "pauses."
        )
        raise InputError(msg)
    if not set(DIMS) <= set(data.points.dims) or data.epoch is None:
        got = ", ".join(data.points.dims)
        msg = f"score(tracks={path}): expected dates, lat and lon, got {got}. Add the dates."
        raise InputError(msg)
    time, lat, lon = (data.points.axis(k) for k in DIMS)
    return Track(data.values.numpy(), _dates(data.epoch, time), lat.numpy(), lon.numpy())


def show_challenge(scored: Scored, against: str | None) -> tuple[str, dict[str, Any]]:
    r"""Returns scores as text and as plain types, with the published rows where asked for.

    Raises:
        InputError: If ``against`` is not ``"published"``.
    """
    text, plain = str(scored), scored.to_dict()
    if against is None:
        return text, plain
    if against != "published":
        msg = f"score(against={against}): expected published, got another word. Try published."
        raise InputError(msg)
    rows = published(scored.definition)
    plain["published"] = [
        {
            "method": r.method,
            "setting": r.setting,
            "generation": r.generation,
            "values": dict(r.values),
            "source": r.source,
            "other_data": True,
        }
        for r in rows
    ]
    return f"{text}\n{beside(scored)}", plain
