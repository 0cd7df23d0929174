r"""The long table of Copernicus Marine: one row per variable and per place, made wide."""

from __future__ import annotations

__all__ = ["is_long", "widen"]

import pandas as pd

from .names import ALIASES, clean

PLACE = ("platform_id", "platform", "platform_type", *ALIASES["time"], *ALIASES["lat"])
PLACE = (*PLACE, *ALIASES["lon"], "depth", "pressure", "elevation")
BAD = (3, 4, 9)
"""The flags of values that are bad, maybe to be corrected, or missing."""


def is_long(table: pd.DataFrame) -> bool:
    r"""Tells a table whose column ``variable`` names what its column ``value`` holds.

    Example:
        >>> is_long(pd.DataFrame({"variable": ["sla"], "lon": [0.0], "value": [0.1]}))
        True
    """
    bare = {clean(c): c for c in table.columns}
    if not {"variable", "value"} <= bare.keys():
        return False
    named = table[bare["variable"]]
    return bool(named.map(lambda v: isinstance(v, str)).all()) and bool(_place(table))


def _place(table: pd.DataFrame) -> list[str]:
    filled = [c for c in table.columns if clean(c) in PLACE and table[c].notna().any()]
    return filled if any(clean(c) in (*ALIASES["lat"], *ALIASES["lon"]) for c in filled) else []


def widen(table: pd.DataFrame) -> pd.DataFrame:
    r"""Returns a table with one column per variable, and one row per place, date and platform.

    Values whose flag ``value_qc`` says that they are bad become missing. What is measured twice
    at one place stays twice. Columns that say where the data come from are left out.

    Arguments:
        table: A table with columns ``variable`` and ``value``, and coordinates.

    Example:
        >>> wide = widen(pd.DataFrame({
        ...     "variable": ["sla", "mdt"], "lon": [1.0, 1.0], "lat": [40.0, 40.0],
        ...     "value": [0.1, 0.3], "value_qc": [1, 1],
        ... }))
        >>> wide.to_dict("list")
        {'lon': [1.0], 'lat': [40.0], 'mdt': [0.3], 'sla': [0.1]}
    """
    bare = {clean(c): c for c in table.columns}
    place, name, value = _place(table), bare["variable"], bare["value"]
    values = table[value]
    if "value_qc" in bare:
        flags = pd.to_numeric(table[bare["value_qc"]], errors="coerce")
        values = values.mask(flags.isin(BAD))
    tall = table[[*place, name]].assign(**{"value": values})
    tall["turn"] = tall.groupby([*place, name], dropna=False).cumcount()
    first = tall.groupby([*place, "turn"], dropna=False, sort=False).ngroup()
    wide = tall.assign(row=first).pivot(index="row", columns=name, values="value")
    where = tall.groupby(first)[place].first()
    return pd.concat([where, wide], axis=1).rename_axis(columns=None).reset_index(drop=True)
