r"""One file as it is read: named columns of equal length, before anything is left out."""

from __future__ import annotations

__all__ = ["Source", "merge"]

import numpy as np
import pandas as pd

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import call, refuse


@dataclass
class Source:
    r"""The content of one file, or of several files of one kind.

    Attributes:
        coords: The coordinates of every row by axis, with shape :math:`(m)`: dates or float64.
        names: The name of each axis in the file.
        values: The variable, with shape :math:`(m)`, NaN where it is missing.
        columns: The other columns, each with shape :math:`(m)`.
        axes: The axes of a gridded field, increasing, in the order of ``coords``; else nothing.
        sea: Where the field exists, on the last axes of the grid.
        attributes: ``units``, ``long_name``, ``standard_name`` and whatever else is known.
        table: The table itself, for a CSV or Parquet file.
        degrees: The units of latitude and longitude, as the file states them.
        rows: The row of each value in the file, or of its node, where missing ones are left out
            as the file is read: a swath is mostly gaps.
        total: The number of values in the file, with the missing ones, likewise.
    """

    path: Path
    variable: str
    coords: dict[str, np.ndarray]
    names: dict[str, str]
    values: np.ndarray
    columns: dict[str, np.ndarray]
    axes: dict[str, np.ndarray] = field(default_factory=dict)
    sea: np.ndarray | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    table: pd.DataFrame | None = None
    degrees: str = ""
    rows: np.ndarray | None = None
    total: int | None = None

    @property
    def size(self) -> int:
        r"""The number of values in the file, with those that are missing."""
        return self.values.size if self.total is None else self.total

    @property
    def file_rows(self) -> np.ndarray:
        r"""The row of each value in the file, from 0."""
        return np.arange(self.values.size) if self.rows is None else self.rows

    @property
    def gridded(self) -> bool:
        r"""Tells a field on a grid from scattered data."""
        return bool(self.axes)


def merge(sources: Sequence[Source]) -> Source:
    r"""Returns several files as one: dates of one grid one after the other, or all the points.

    Raises:
        InputError: If the files do not have the same coordinates, units and kind of time.
    """
    if len(sources) == 1:
        return sources[0]
    first = sources[0]
    for other in sources[1:]:
        _check_alike(first, other)
    if all(s.gridded for s in sources):
        return _stack(sources)
    return _in_turn(_concatenate(sources))


def _check_alike(first: Source, other: Source) -> None:
    facts: dict[str, Callable[[Source], str]] = {
        "coordinates": lambda s: ", ".join(s.coords),
        "units": lambda s: s.attributes.get("units", ""),
        "kind of times": lambda s: _kind(s.coords.get("time")),
        "kind of data": lambda s: "a grid" if s.gridded else "points",
    }
    for name, fact in facts.items():
        if fact(first) != fact(other):
            raise refuse(
                call("read", path=other.path),
                f"the {name} of {first.path.name} ({fact(first) or 'none'})",
                fact(other) or "none",
                "Convert the files to one convention, or read them one by one",
            )


def _kind(time: np.ndarray | None) -> str:
    return "" if time is None else "dates" if time.dtype.kind == "M" else "numbers"


def _concatenate(sources: Sequence[Source]) -> Source:
    shared = _shared_columns(sources)
    starts = np.cumsum([0, *(s.size for s in sources)])
    rows = [s.file_rows + start for s, start in zip(sources, starts, strict=False)]
    return Source(
        path=sources[0].path,
        variable=sources[0].variable,
        coords={k: np.concatenate([s.coords[k] for s in sources]) for k in sources[0].coords},
        names=sources[0].names,
        values=np.concatenate([s.values for s in sources]),
        columns={k: np.concatenate([s.columns[k] for s in sources]) for k in shared},
        attributes=sources[0].attributes,
        notes=_notes(sources),
        table=_tables(sources),
        degrees=sources[0].degrees,
        rows=np.concatenate(rows),
        total=int(starts[-1]),
    )


def _in_turn(source: Source) -> Source:
    r"""Returns the data sorted by time, where they have one; those of one instant as they were."""
    time = source.coords.get("time")
    if time is None or bool((time[1:] >= time[:-1]).all()):
        return source
    order = np.argsort(time, kind="stable")
    source.values, source.rows = source.values[order], source.file_rows[order]
    source.coords = {k: v[order] for k, v in source.coords.items()}
    source.columns = {k: v[order] for k, v in source.columns.items()}
    return source


def _shared_columns(sources: Sequence[Source]) -> list[str]:
    return [k for k in sources[0].columns if all(k in s.columns for s in sources)]


def _notes(sources: Sequence[Source]) -> list[str]:
    said = dict.fromkeys(note for s in sources for note in s.notes)
    return [f"read {len(sources)} files", *said]


def _tables(sources: Sequence[Source]) -> pd.DataFrame | None:
    tables = [s.table for s in sources if s.table is not None]
    return pd.concat(tables, ignore_index=True) if tables else None


def _stack(sources: Sequence[Source]) -> Source:
    r"""Returns one grid, from grids that differ by their dates only."""
    first = sources[0]
    for other in sources[1:]:
        _check_same_lattice(first, other)
    times = np.concatenate([s.axes["time"] for s in sources])
    order = np.argsort(times, kind="stable")
    if np.unique(times).size < times.size:
        got = f"{times.size - np.unique(times).size} dates twice"
        raise refuse(call("read", path=first.path), "each date once", got, "Remove a file")
    joined = _concatenate(sources)
    nodes = np.arange(joined.values.size).reshape(times.size, -1)[order].ravel()
    joined.values = joined.values[nodes]
    joined.coords = {k: v[nodes] for k, v in joined.coords.items()}
    joined.columns = {k: v[nodes] for k, v in joined.columns.items()}
    joined.axes, joined.sea = {**first.axes, "time": times[order]}, first.sea
    joined.rows = None  # the nodes of the grid that is made
    return joined


def _check_same_lattice(first: Source, other: Source) -> None:
    for name, axis in first.axes.items():
        same = name == "time" or np.array_equal(axis, other.axes[name])
        if "time" not in first.axes or not same:
            raise refuse(
                call("read", path=other.path),
                f"another date on the grid of {first.path.name}",
                "no time axis" if same else f"another axis '{first.names[name]}'",
                "Read the files one by one, or regrid them first",
            )
