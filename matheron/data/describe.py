r"""What is in a file, in words: the first thing to ask of data that one did not make."""

from __future__ import annotations

__all__ = ["Description", "describe"]

import numpy as np

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InputError
from .files import TABLES, check_file, expand
from .longitude import branch_of
from .netcdf import netcdf_variables
from .quantity import words_of
from .read import Observations, read
from .tables import table_variables

LARGEST_HEIGHT = 5.0
"""The largest sea level, in metres: above, it is likely in centimetres."""


@dataclass(frozen=True)
class Description:
    r"""What is in a file.

    Attributes:
        path: The file.
        facts: For each variable, its facts by name, in words.
        warnings: What may surprise, in words.
    """

    path: str
    facts: dict[str, dict[str, str]]
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [self.path]
        for variable, facts in self.facts.items():
            width = max(map(len, facts), default=0)
            lines += [f"  {variable}", *(f"    {k:<{width}}  {v}" for k, v in facts.items())]
        return "\n".join([*lines, *(f"  warning: {w}" for w in self.warnings)])


def describe(
    path: str | Path | Sequence[str | Path], variable: str | None = None, **names: str | None
) -> Description:
    r"""Returns what is in a file: variables, units, extent, gaps, duplicates, missions.

    Arguments:
        path: A file, or several of one kind, as for :func:`read`.
        variable: The variable to describe; all by default.
        names: The names of coordinates, as for :func:`read`.

    Raises:
        InputError: If no variable of the file can be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "buoys.csv"
        ...     _ = file.write_text("lon,lat,sst [degC]\n-9,43,14.5\n-8,44,15.0\n")
        ...     facts = describe(file).facts
        >>> facts["sst"]["units"], facts["sst"]["lon"]
        ('degC', '-9 to -8 (-180..180)')
    """
    variables = [variable] if variable is not None else _variables(expand(path)[0], names)
    facts: dict[str, dict[str, str]] = {}
    warnings, errors = [], []
    for one in variables:
        try:
            data = read(path, one, squeeze=False, **names)  # type: ignore[arg-type]
        except InputError as error:
            errors.append(error)
            continue
        facts[data.variable] = _facts(data)
        warnings += [w for w in _warnings(data) if w not in warnings]
    if not facts:
        raise errors[0]
    return Description(str(path), facts, [*warnings, *map(str, errors)])


def _variables(path: Path, names: dict[str, str | None]) -> Sequence[str | None]:
    lister = table_variables if check_file(path) in TABLES else netcdf_variables
    found = lister(path, names)
    return [v for v in found if not v.endswith("_member")] or [None]


def _facts(data: Observations) -> dict[str, str]:
    total = len(data) + data.dropped
    values = data.values.numpy()
    facts = {
        "name": data.long_name,
        "quantity": words_of(data.variable, data.attributes),
        "units": data.units or "not stated",
        "kind": repr(data.grid) if data.grid is not None else "scattered points",
        "values": f"{len(data)} of {total} ({data.dropped / total:.1%} missing)",
        "range": f"{values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}, "
        f"std {values.std():.6g}",
        **{k: _extent(data, k) for k in data.points.dims},
        "duplicates": f"{data.duplicates} at the coordinates of another"
        if data.duplicates
        else "",
        "noise": "a std for each value" if data.noise is not None else "",
        "missions": _missions(data),
        "passes": "" if data.passes is None else str(int(data.passes.max()) + 1),
        "covariates": ", ".join(data.covariates),
        "done": "; ".join(data.notes),
    }
    return {k: v for k, v in facts.items() if v}


def _extent(data: Observations, axis: str) -> str:
    values = data.points.axis(axis).numpy()
    low, high = values.min(), values.max()
    if axis == "time" and data.epoch is not None:
        return " to ".join(_date(data.epoch, v) for v in (low, high)) + f" ({high - low:.4g} days)"
    branch = f" ({branch_of(values)})" if axis == "lon" else ""
    return f"{low:.6g} to {high:.6g}{branch}"


def _date(epoch: np.datetime64, days: float) -> str:
    return str((epoch + np.timedelta64(round(days * 86400), "s")).astype("datetime64[s]"))


def _missions(data: Observations) -> str:
    if data.groups is None:
        return ""
    counts = data.groups.codes.bincount(minlength=len(data.groups.labels)).tolist()
    return ", ".join(f"{k} ({n})" for k, n in zip(data.groups.labels, counts, strict=True))


def _warnings(data: Observations) -> list[str]:
    v, values = data.variable, data.values.numpy()
    is_height = bool(words_of(data.variable, data.attributes))
    told = {
        f"'{v}' has no units": not data.units,
        f"'{v}' reaches {np.abs(values).max():.4g}: are its units metres?": is_height
        and float(np.abs(values).max()) > LARGEST_HEIGHT
        and data.units in {"", "m"},
        f"'{v}' is constant": values.size > 1 and bool(np.ptp(values) == 0),
        f"'{v}' has {data.duplicates} values at the coordinates of another: a noise is needed": (
            data.duplicates > 0
        ),
        f"'{v}' is positive and skewed: consider its logarithm": _is_skewed(values),
        "times are plain numbers: their unit is not known": "time" in data.points.dims
        and data.epoch is None,
    }
    return [warning for warning, is_so in told.items() if is_so]


def _is_skewed(values: np.ndarray) -> bool:
    if values.size < 20 or values.min() <= 0 or values.std() == 0:
        return False
    return bool((((values - values.mean()) / values.std()) ** 3).mean() > 2.0)
