r"""The definitions of scores, by name: numbers of two definitions are never compared."""

from __future__ import annotations

__all__ = ["DEFINITIONS", "Definition", "challenge_score"]

import torch

from collections.abc import Callable
from dataclasses import dataclass

from .fields import Field, Track, refusal
from .oceanbench import oceanbench
from .odc2020a import odc2020a
from .odc2021a import ocb, odc2021a
from .regimes import regimes
from .robust import robust
from .scored import Scored


@dataclass(frozen=True)
class Definition:
    r"""A definition of scores.

    Attributes:
        name: Its name.
        against: What it needs: ``("truth",)``, ``("tracks",)``, or either of them.
        score: Its function of a map and of what it needs.
        summary: What it is, in one line.
    """

    name: str
    against: tuple[str, ...]
    score: Callable[..., Scored]
    summary: str


DEFINITIONS = {
    d.name: d
    for d in (
        Definition("odc2020a", ("truth",), odc2020a, "data challenge 2020a: model truth, degrees"),
        Definition("oceanbench", ("truth",), oceanbench, "OceanBench SSH edition, with its axes"),
        Definition("odc2021a", ("tracks",), odc2021a, "data challenge 2021a: mean of days"),
        Definition("ocb", ("tracks",), ocb, "variant of 2021a: all data at once"),
        Definition("regimes", ("tracks",), regimes, "data challenges 2023a, 2024: by regime"),
        Definition("robust", ("truth", "tracks"), robust, "without the artefacts of the others"),
    )
}


def challenge_score(
    name: str,
    map: Field,
    *,
    truth: Field | None = None,
    tracks: Track | None = None,
    generator: torch.Generator | None = None,
) -> Scored:
    r"""Returns the scores of a map under a definition.

    Arguments:
        name: ``odc2020a``, ``oceanbench``, ``odc2021a``, ``ocb``, ``regimes`` or ``robust``.
        map: The map.
        truth: The truth, on a lattice.
        tracks: The data along tracks.
        generator: The random number generator, for intervals by bootstrap.

    Raises:
        ValueError: If the definition is unknown, or if what it needs is not given.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> days = np.datetime64("2012-10-22") + np.arange(16)
        >>> axes = (days, np.arange(33, 37.0), np.arange(-65, -49.0))
        >>> true = Field(rng.standard_normal((16, 4, 16)), *axes)
        >>> print(challenge_score("odc2020a", Field(0.9 * true.values, *axes), truth=true))
        definition: odc2020a
          mu                         0.90
          sigma                      0.00
          lambda_x              undefined deg
          lambda_t              undefined days
          note: 16 dates, 4 x 16 nodes
          note: the PSD score has no line at 0.5: the definition gives no scale
    """
    where = f"score(definition={name})"
    if name not in DEFINITIONS:
        raise refusal(where, f"one of {', '.join(DEFINITIONS)}", f"'{name}'", "Name a definition")
    definition = DEFINITIONS[name]
    given = {k: v for k, v in (("truth", truth), ("tracks", tracks)) if v is not None}
    if len(given) != 1 or not set(given) <= set(definition.against):
        cure = " or ".join(f"--{k} FILE" for k in definition.against)
        got = " and ".join(given) or "neither truth nor tracks"
        raise refusal(where, " or ".join(definition.against), got, f"Give {cure}")
    options = {"generator": generator} if name == "robust" else {}
    return definition.score(map, **given, **options)
