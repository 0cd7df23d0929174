r"""Scores that say which definition they follow: a number without its definition is no score."""

from __future__ import annotations

__all__ = ["Scored"]

import math

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scored:
    r"""Scores under one definition.

    Attributes:
        definition: The name of the definition, e.g. ``odc2020a``.
        values: The scores by name, not rounded. What a definition leaves undefined is NaN; a
            scale that is never resolved is infinite.
        units: The units of each score, or nothing.
        notes: What was done to the fields, and what to know before comparing, in words.
        decimals: How many decimals the leaderboard of the definition prints, by score.

    Example:
        >>> print(Scored("odc2020a", {"mu": 0.9249, "lambda_x": 1.2}, {"lambda_x": "deg"}))
        definition: odc2020a
          mu                       0.9249
          lambda_x                    1.2 deg
    """

    definition: str
    values: Mapping[str, float]
    units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    decimals: Mapping[str, int] = field(default_factory=dict)

    def printed(self, name: str) -> str:
        r"""Returns one score as its leaderboard prints it."""
        value = self.values[name]
        if math.isnan(value):
            return "undefined"
        if math.isinf(value):
            return "inf"
        return f"{value:.{self.decimals[name]}f}" if name in self.decimals else f"{value:.6g}"

    def __str__(self) -> str:
        rows = [f"  {k:<20} {self.printed(k):>10} {self.units.get(k, '')}" for k in self.values]
        lines = [f"definition: {self.definition}", *rows]
        return "\n".join(x.rstrip() for x in [*lines, *(f"  note: {n}" for n in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the scores as plain types, e.g. for JSON: what is not finite is a string.

        Example:
            >>> Scored("ocb", {"lambda_x": float("inf")}, {"lambda_x": "km"}).to_dict()["values"]
            {'lambda_x': 'inf'}
        """
        values = {k: v if math.isfinite(v) else str(v) for k, v in self.values.items()}
        return {
            "definition": self.definition,
            "values": values,
            "units": dict(self.units),
            "notes": list(self.notes),
        }
