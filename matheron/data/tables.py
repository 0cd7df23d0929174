r"""Tables of points: CSV and Parquet."""

from __future__ import annotations

__all__ = ["open_table", "table_source", "table_variables"]

import csv
import numpy as np
import pandas as pd
import pyarrow as pa
import re
import warnings

from collections.abc import Mapping
from pathlib import Path

from .checks import numbers_of
from .errors import InputError, call, refuse
from .files import check_file
from .long import is_long, widen
from .names import (
    CYCLES,
    GROUPS,
    PASSES,
    clean,
    find_coordinates,
    is_flag,
    is_index,
    pick_variable,
    spare_coordinates,
    unit_in_name,
)
from .quantity import principal
from .source import Source
from .times import decode_time

MISSING = ("--", "-", "*", "?", "missing", "masked")


def open_table(path: str | Path) -> pd.DataFrame:
    r"""Returns a CSV (comma, semicolon, tab or blanks) or Parquet table.

    Raises:
        InputError: If the file is not a table, is cut short, or has no row.
    """
    path = Path(path)
    kind = check_file(path)
    table = _open_parquet(path) if kind == "parquet" else _open_csv(path)
    if len(table) == 0:
        got = f"none below the header {list(table.columns)[:6]}"
        raise refuse(call("read", path=path), "at least one row", got, "Check the file")
    table.columns = [str(c).strip() for c in table.columns]
    hollow = [c for c in table.columns if is_index(c) and table[c].isna().all()]
    table = table.drop(columns=hollow)  # the end of rows that end with a separator
    return widen(table) if is_long(table) else _one_time(table)


def _open_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise _broken(path, "a whole Parquet table", error) from error
    named = [n for n in table.index.names if n is not None]
    return table.reset_index() if named else table


def _broken(path: Path, expected: str, error: Exception) -> InputError:
    reason = re.sub(r"\s+", " ", str(error)).strip()[:120]
    return refuse(call("read", path=path), expected, reason, "Download or write the file again")


def _open_csv(path: Path) -> pd.DataFrame:
    try:
        head = _head(path)
        separator = _separator(head[0])
        decimal = (
            "," if separator == ";" and any(re.search(r"\d,\d", h) for h in head[1:]) else "."
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=r"\s+" if separator == " " else separator,
                decimal=decimal,
                comment="#",
                index_col=False,
                skipinitialspace=True,
                na_values=list(MISSING),
                low_memory=False,
                encoding="utf-8-sig",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        raise _broken(path, "as many fields in every row as in the header", error) from error
    except pd.errors.EmptyDataError as error:
        raise _broken(path, "a header and rows", error) from error
    except UnicodeDecodeError as error:
        raise _broken(path, "text in UTF-8", error) from error


def _head(path: Path, lines: int = 5) -> list[str]:
    head = []
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                head.append(line)
            if len(head) == lines:
                break
    if not head:
        msg = "no line that is not a comment"
        raise pd.errors.EmptyDataError(msg)
    return head


def _separator(header: str) -> str:
    counts = {s: header.count(s) for s in (",", ";", "\t")}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else " " if re.search(r"\S\s+\S", header.strip()) else ","


def _one_time(table: pd.DataFrame) -> pd.DataFrame:
    r"""Joins a column of dates and a column of clock times into one column of datetimes."""
    bare = {clean(c): c for c in table.columns}
    if not {"date", "time"} <= bare.keys():
        return table
    date, time = table[bare["date"]].astype(str), table[bare["time"]].astype(str)
    if not time.str.match(r"^\d{1,2}:\d{2}").all() or not date.str.match(r"^\d{4}-").all():
        return table
    joined = date.str.slice(0, 10) + "T" + time.str.zfill(5)
    return table.assign(**{bare["time"]: joined}).drop(columns=bare["date"])


def table_source(
    path: Path, variable: str | None, asked: Mapping[str, str | None], noise: str | None = None
) -> Source:
    r"""Returns a table as columns: coordinates, the variable, and the others.

    Raises:
        InputError: If the file, its coordinates or its variable cannot be used.
    """
    table = open_table(path)
    columns = list(table.columns)
    names = find_coordinates(path, columns, asked, {})
    others = [c for c in columns if c not in names.values()]
    left = principal(_candidates(table, others, noise))
    chosen = pick_variable(path, variable, left, others)
    units = unit_in_name(chosen)
    return Source(
        path=path,
        variable=clean_name(chosen),
        coords={k: _coordinate(path, k, v, table[v]) for k, v in names.items()},
        names=names,
        values=numbers_of(path, "variable", chosen, table[chosen]),
        columns={c: _column(table[c]) for c in others if c != chosen},
        attributes={"units": units} if units else {},
        notes=_other_pair(names, columns),
        table=table,
    )


def clean_name(name: str) -> str:
    r"""Returns the name of a column without its unit in brackets, its case kept."""
    return name[: len(name) - len(unit_in_name(name)) - 2].strip() if unit_in_name(name) else name


def _candidates(table: pd.DataFrame, others: list[str], noise: str | None) -> list[str]:
    apart = {
        *GROUPS,
        *PASSES,
        *CYCLES,
        *(clean(n) for n in (noise, *spare_coordinates(others)) if n),
    }
    left = [c for c in others if clean(c) not in apart and not is_flag(c)]
    numeric = [c for c in left if _measures(table[c])]
    # A lone column of text is taken for the variable, so that its faulty row is named.
    return numeric or [c for c in left if table[c].dtype == object or _is_text(table[c])]


def _is_text(column: pd.Series) -> bool:
    return bool(pd.api.types.is_string_dtype(column.dtype))


def _other_pair(names: Mapping[str, str], columns: list[str]) -> list[str]:
    spare = spare_coordinates([c for c in columns if c not in names.values()])
    used = [v for k, v in names.items() if k not in {"time", "z"}]
    told = f"located by {' and '.join(used)}; {' and '.join(spare)} are kept as covariates"
    return [told] if spare else []


def _measures(column: pd.Series) -> bool:
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        return False
    return bool(pd.api.types.is_numeric_dtype(dtype))


def _coordinate(path: Path, axis: str, name: str, column: pd.Series) -> np.ndarray:
    if axis == "time":
        return decode_time(path, column, unit_in_name(name))
    return numbers_of(path, axis, name, column)


def _column(column: pd.Series) -> np.ndarray:
    if _measures(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype=object)


def table_variables(path: Path, asked: Mapping[str, str | None]) -> list[str]:
    r"""Returns the variables of a table that can be read."""
    table = open_table(path)
    names = find_coordinates(path, list(table.columns), asked, {})
    return _candidates(table, [c for c in table.columns if c not in names.values()], None)
