r"""Scores of a map or of a table against the truth."""

from __future__ import annotations

__all__ = ["TITLES", "check_truth", "read_like", "score_files", "show_scores"]

import numpy as np
import pandas as pd
import torch

from dataclasses import dataclass
from itertools import pairwise
from jaxtyping import Float
from pathlib import Path
from torch import Tensor
from typing import Any

from .border import say
from ..data import InputError, Map, Observations, read, read_map
from ..data.quantity import check_same
from ..data.tables import open_table
from ..domain import Grid, Points
from ..metrics.scores import summary

TABLES = {".csv", ".parquet", ".pq", ".txt", ".tsv"}
EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass
class Pairs:
    r"""Predictions beside the truth, where both exist."""

    mean: Float[Tensor, " m"]
    truth: Float[Tensor, " m"]
    std: Float[Tensor, " m"] | None
    obs_std: Float[Tensor, " m"] | None
    members: Float[Tensor, "size m"] | None
    points: Points
    units: str
    noisy: bool
    variable: str


def score_files(
    prediction: Path,
    truth: Path,
    variable: str | None,
    observations: Path | None,
    noisy: bool | None,
) -> dict[str, Any]:
    r"""Returns the scores: those of the field or of a datum, whichever the truth is."""
    if prediction.suffix.lower() in TABLES:
        pairs = _table_pairs(prediction, truth, variable)
    else:
        pairs = _map_pairs(prediction, truth, variable)
    if len(pairs.truth) == 0:
        msg = (
            f"score(truth={truth}): expected truth where {prediction} predicts, got none in "
            "common. Check the extents and the dates."
        )
        raise InputError(msg)
    noisy = pairs.noisy if noisy is None else noisy
    std = (pairs.obs_std if noisy else pairs.std) if pairs.obs_std is not None else pairs.std
    found: dict[str, Any] = {
        "count": len(pairs.truth),
        "units": pairs.units,
        "against": "data (std of a datum)" if noisy else "the field (std of the field)",
    }
    found |= _scores(pairs, std, None if noisy else pairs.members)
    if observations is not None:
        found["by_distance"] = _by_distance(pairs, std, read_like(observations, pairs.variable))
    return found


def check_truth(truth: Path | None, tracks: Path | None) -> Path:
    r"""Returns what a map is scored against: the truth, or tracks, one of the two.

    Raises:
        InputError: If neither or both are given.
    """
    given = [p for p in (truth, tracks) if p is not None]
    if len(given) != 1:
        got = "both" if given else "neither"
        msg = f"score(truth, tracks): expected one of the two, got {got}. Give --truth FILE."
        raise InputError(msg)
    return given[0]


def _scores(pairs: Pairs, std: Tensor | None, members: Tensor | None) -> dict[str, float]:
    if std is None:
        error = pairs.mean - pairs.truth
        return {
            "mae": error.abs().mean().item(),
            "rmse": error.square().mean().sqrt().item(),
            "bias": error.mean().item(),
        }
    few = members is not None and members.shape[1] <= 20_000
    return summary(pairs.mean, std, pairs.truth, members if few else None)


def _by_distance(pairs: Pairs, std: Tensor | None, data: Observations) -> list[dict[str, float]]:
    distance = pairs.points.nearest_distance(data.points)
    edges = distance.quantile(torch.tensor(EDGES, dtype=torch.float64)).unique()
    rows = []
    for low, high in pairwise(edges):
        inside = (distance >= low) & ((distance < high) | (high == edges[-1]))
        if not inside.any():
            continue
        part = Pairs(
            pairs.mean[inside],
            pairs.truth[inside],
            None,
            None,
            None,
            pairs.points,
            pairs.units,
            pairs.noisy,
            pairs.variable,
        )
        scores = _scores(part, None if std is None else std[inside], None)
        rows.append({"from": low.item(), "to": high.item(), "count": int(inside.sum()), **scores})
    return rows


def _map_pairs(prediction: Path, truth: Path, variable: str | None) -> Pairs:
    chart = read_map(prediction, variable)
    data = read_like(truth, variable or chart.variable, "time" not in chart.grid.dims)
    _check_dims(truth, data, chart.grid)
    told = check_same(chart, data)
    if told:
        say(f"note: {told}")
    inside = _inside(chart.grid, data.points)
    points = data.points[inside]
    if len(points) == 0:
        return _empty(chart, points)
    nodes, weights = chart.grid.interpolation(points)

    def at(x: Tensor | None) -> Tensor | None:
        return None if x is None else (x[..., nodes] * weights).sum(dim=-1)

    mean = at(chart.mean)
    assert mean is not None
    return Pairs(
        mean,
        data.values[inside],
        at(chart.std),
        at(chart.obs_std),
        at(chart.members),
        points,
        chart.units,
        noisy=data.grid is None,
        variable=chart.variable,
    )


def _empty(chart: Map, points: Points) -> Pairs:
    none = torch.zeros(0, dtype=torch.float64)
    return Pairs(
        none, none, None, None, None, points, chart.units, noisy=True, variable=chart.variable
    )


def _check_dims(truth: Path, data: Observations, grid: Grid) -> None:
    dated = [e is not None for e in (data.epoch, grid.epoch)]
    if data.points.dims != grid.dims or dated[0] != dated[1]:
        kinds = [
            ", ".join(d) + " (dates)" * e
            for d, e in zip((data.points.dims, grid.dims), dated, strict=True)
        ]
        msg = (
            f"score(truth={truth}): expected the coordinates {kinds[1]} of the map, got "
            f"{kinds[0]}. Give the truth on the coordinates of the map."
        )
        raise InputError(msg)


def read_like(path: Path, variable: str, squeeze: bool = True) -> Observations:
    r"""Returns the data of a variable, which may have another name where it is alone."""
    try:
        return read(path, variable, squeeze=squeeze)
    except InputError as error:
        if "variable" not in str(error):
            raise
    return read(path, squeeze=squeeze)


def _inside(grid: Grid, points: Points) -> Tensor:
    r"""Tells the points that the map covers: within its axes, not on land only."""
    inside = torch.ones(len(points), dtype=torch.bool)
    shifted = points.since(grid.epoch)
    for name, axis in grid.axes.items():
        s = shifted.axis(name)
        if name == "lon" and grid.metric == "sphere":
            s = axis[0] + torch.remainder(s - axis[0] + 1e-9, 360) - 1e-9
        slack = 1e-6 * max(axis.abs().max().item(), 1.0)
        inside &= (s >= axis[0] - slack) & (s <= axis[-1] + slack)
    if grid.mask is None:
        return inside
    dry = Grid(epoch=grid.epoch, metric=grid.metric, **grid.axes)  # type: ignore[arg-type]
    index = torch.nonzero(inside)[:, 0]
    nodes, weights = dry.interpolation(points[index])
    inside[index] = (weights * grid.mask[nodes]).sum(dim=-1) > 1e-6
    return inside


def _table_pairs(prediction: Path, truth: Path, variable: str | None) -> Pairs:
    table = open_table(prediction)
    name = variable or _predicted(prediction, table)
    data = read_like(truth, name)
    if name not in table:
        msg = (
            f"score(variable={name}): expected a column {name} in {prediction}, got "
            f"{', '.join(map(str, table.columns))}. Give --variable."
        )
        raise InputError(msg)
    own = read(prediction, name)
    columns = {k: f"{name}{k}" for k in ("", "_std", "_obs_std")}
    rows, matched = _match(own.points, data.points, truth)
    index = own.rows[rows].numpy()

    def take(column: str) -> Tensor | None:
        if column not in table:
            return None
        return torch.as_tensor(table[column].to_numpy(dtype=np.float64)[index])

    draws = [c for c in table.columns if str(c).startswith(f"{name}_member_")]
    members = torch.as_tensor(table[draws].to_numpy(dtype=np.float64)[index].T) if draws else None
    mean = take(columns[""])
    assert mean is not None
    return Pairs(
        mean,
        data.values[matched],
        take(columns["_std"]),
        take(columns["_obs_std"]),
        members,
        data.points[matched],
        data.units,
        noisy=True,
        variable=name,
    )


def _predicted(path: Path, table: pd.DataFrame) -> str:
    names = [str(c)[: -len("_obs_std")] for c in table.columns if str(c).endswith("_obs_std")]
    if len(names) != 1:
        msg = (
            f"score(prediction={path}): expected one variable with its _obs_std, got "
            f"{', '.join(names) or 'none'}. Give --variable."
        )
        raise InputError(msg)
    return names[0]


def _match(own: Points, truth: Points, path: Path) -> tuple[Tensor, Tensor]:
    r"""Returns the rows of predictions and of truth that are at the same place and time."""
    if own.dims != truth.dims:
        msg = (
            f"score(truth={path}): expected coordinates {own.dims}, got {truth.dims}. "
            "Give the truth at the points of the predictions."
        )
        raise InputError(msg)
    a, b = own.coords.clone(), truth.since(own.epoch).coords.clone()
    if "lon" in own.dims:
        lon = own.dims.index("lon")
        a[:, lon], b[:, lon] = a[:, lon] % 360, b[:, lon] % 360
    frames = [
        pd.DataFrame((x.numpy() * 1e6).round().astype(np.int64)).assign(row=np.arange(len(x)))
        for x in (a, b)
    ]
    keys = list(range(len(own.dims)))
    for frame in frames:  # repeated places pair up in turn
        frame["turn"] = frame.groupby(keys).cumcount()
    both = frames[0].merge(frames[1], on=[*keys, "turn"], suffixes=("", "_truth"))
    rows = both.sort_values("row")
    return torch.tensor(rows["row"].to_numpy()), torch.tensor(rows["row_truth"].to_numpy())


TITLES = {
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "bias": "bias",
    "crps": "CRPS",
    "interval_score": "interval score (95 %)",
    "coverage_50": "coverage of the 50 % interval",
    "coverage_90": "coverage of the 90 % interval",
    "coverage_95": "coverage of the 95 % interval",
    "spread_skill": "spread over skill",
    "crps_ensemble": "CRPS of the ensemble",
    "energy_score": "energy score",
}


def show_scores(scores: dict[str, Any]) -> str:
    r"""Returns scores as a table to read.

    Example:
        >>> print(show_scores({"count": 2, "units": "m", "against": "data", "rmse": 0.5}))
        2 values, against data, in m
          root mean square error         0.5
    """
    units = f", in {scores['units']}" if scores["units"] else ""
    lines = [f"{scores['count']} values, against {scores['against']}{units}"]
    lines += [f"  {TITLES[k]:<30} {scores[k]:.5g}" for k in TITLES if k in scores]
    if "by_distance" in scores:
        lines += ["  by distance to the nearest datum:"]
        for row in scores["by_distance"]:
            found = "  ".join(
                f"{k} {row[k]:.4g}" for k in ("rmse", "crps", "coverage_90") if k in row
            )
            lines.append(
                f"    {row['from']:>10.4g} to {row['to']:<10.4g} n={row['count']:<7} {found}"
            )
    return "\n".join(lines)
