r"""Which sea level a variable is: an anomaly, an absolute topography, or a height as it is."""

from __future__ import annotations

__all__ = [
    "ABSOLUTE",
    "LONG_NAMES",
    "METRES",
    "STANDARD_NAMES",
    "check_same",
    "metres",
    "principal",
    "quantity_of",
    "words_of",
]

import re

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from .errors import InputError, call, refuse
from .names import clean

STANDARD_NAMES = {
    "sla": "sea_surface_height_above_sea_level",
    "adt": "sea_surface_height_above_geoid",
    "ssh": "sea_surface_height_above_reference_ellipsoid",
}
LONG_NAMES = {"sla": "Sea level anomaly", "adt": "Absolute dynamic topography"}
ABSOLUTE = ("adt", "ssh")
"""The heights that hold the mean currents; an anomaly does not."""
WORDS = {
    "sla": "sea level anomaly (SLA)",
    "adt": "absolute dynamic topography (ADT)",
    "ssh": "sea surface height (SSH): above the geoid, or an anomaly? ask the producer",
}
STEMS = {
    "sla": r"(m?sla|ssha|ssh_?anomaly|sea_level_anomaly|h_ssha)(_|$)",
    "adt": r"(m?adt|zos|absolute_dynamic_topography)(_|$)",
    "ssh": r"(g?ssh|sossheig|sea_surface_height)(_|$)",
}
NOT_HEIGHTS = (
    r"(err|error|mdt|mean_dynamic_topography)(_|$)|.*_(std|error|err|variance|norm|qc|member)$"
)
ASIDE = (
    r"(lwe|dac|mdt|mean_dynamic_topography|tpa_correction|[uv]gosa?|err|.*_tide)(_|$)|.*_variance$"
)
"""What stands beside the height in a file of sea level, and is seldom what is mapped."""
METRES = {
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters", "centimetres"), 0.01),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 0.001),
}


@runtime_checkable
class Tagged(Protocol):
    r"""What knows its quantity: observations and maps."""

    @property
    def variable(self) -> str:
        r"""The name of the variable."""

    @property
    def units(self) -> str:
        r"""Its units, or nothing."""

    @property
    def quantity(self) -> str:
        r"""``"sla"``, ``"adt"``, ``"ssh"`` or ``"unknown"``."""


def quantity_of(variable: str, attributes: Mapping[str, str] | None = None) -> str:
    r"""Returns which sea level a variable is: sla, adt, ssh or unknown.

    The name tells, and the CF standard name where the name does not: producers often give
    anomalies the standard name of heights above the ellipsoid.

    Arguments:
        variable: The name of the variable.
        attributes: What the file says of it, e.g. its ``standard_name``.

    Example:
        >>> [quantity_of(v) for v in ("sla_filtered", "ADT", "gssh", "err_sla", "sst")]
        ['sla', 'adt', 'ssh', 'unknown', 'unknown']
        >>> quantity_of("ssh", {"standard_name": "sea_surface_height_above_sea_level"})
        'sla'
    """
    name = clean(variable)
    if re.match(NOT_HEIGHTS, name):
        return "unknown"
    stem = next((k for k, pattern in STEMS.items() if re.match(pattern, name)), "unknown")
    said = (attributes or {}).get("standard_name", "")
    named = next((k for k, standard in STANDARD_NAMES.items() if said == standard), "unknown")
    return named if stem == "unknown" or (stem == "ssh" and named != "unknown") else stem


def words_of(variable: str, attributes: Mapping[str, str]) -> str:
    r"""Returns the quantity in words, or nothing where it is no sea level."""
    return WORDS.get(quantity_of(variable, attributes), "")


def principal(candidates: Sequence[str]) -> list[str]:
    r"""Returns the heights among the variables of a file, without what goes with them.

    Corrections, velocities, errors and the mean topography are put aside where there is a
    height; other files are left as they are.

    Example:
        >>> principal(["sla_filtered", "lwe", "mdt", "ugos"]), principal(["mdt"])
        (['sla_filtered'], ['mdt'])
    """
    if all(quantity_of(c) == "unknown" for c in candidates):
        return list(candidates)
    return [c for c in candidates if not re.match(ASIDE, clean(c))]


def metres(units: str) -> float | None:
    r"""Returns how many metres the unit is; nothing where it is no length.

    Example:
        >>> metres("cm"), metres("degC")
        (0.01, None)
    """
    return METRES.get(units.strip().lower())


def check_same(a: Tagged, b: Tagged) -> str:
    r"""Refuses to compare an anomaly with an absolute height, or metres with centimetres.

    Arguments:
        a: Observations or a map.
        b: What they are compared or mixed with.

    Returns:
        What the user should be told, in words; nothing where both are the same for sure.

    Raises:
        InputError: If one is a sea level anomaly and the other is not, or if units differ.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> a, b = (Some(variable=k, units="m", quantity=k) for k in ("sla", "adt"))
        >>> check_same(a, b)
        Traceback (most recent call last):
        ...
        matheron.data.errors.InputError: check_same(variable=adt): expected sla as 'sla', got ...
    """
    pair, where = {a.quantity, b.quantity}, call("check_same", variable=b.variable)
    if "sla" in pair and pair & set(ABSOLUTE):
        raise mixed(where, a.quantity, f"'{a.variable}'", b.quantity)
    scales = [metres(x.units) for x in (a, b)]
    if None not in scales and scales[0] != scales[1]:
        cure = "Convert one of them"
        raise refuse(where, f"the units of '{a.variable}' ({a.units})", f"'{b.units}'", cure)
    if pair == set(ABSOLUTE):
        return (
            f"'{a.variable}' ({a.quantity}) and '{b.variable}' ({b.quantity}) are taken for the "
            "same height: they may differ by a constant"
        )
    return _doubt(a, b) if "unknown" in pair and len(pair) == 2 else ""


def mixed(where: str, expected: str, like: str, got: str) -> InputError:
    r"""Returns the error of an anomaly that meets an absolute height."""
    cure = "Add the mean topography to the anomaly: --mdt FILE; or take one variable of each file"
    return refuse(where, f"{expected} as {like}", got, cure)


def _doubt(a: Tagged, b: Tagged) -> str:
    silent, other = (a, b) if a.quantity == "unknown" else (b, a)
    return f"nothing says that '{silent.variable}' is {other.quantity}, as '{other.variable}' is"
