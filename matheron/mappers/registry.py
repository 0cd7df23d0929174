r"""The mappers by the names that they have on a leaderboard."""

from __future__ import annotations

__all__ = ["IMAGES", "MAPPERS", "TRACKS", "mapper"]

from . import eofs, gaussian, markov, nudging, variational_qg, waves
from .problem import Mapper

TRACKS: dict[str, Mapper] = {
    "oi-odc2020a": gaussian.challenge,
    "oi-duacs": gaussian.tuned_duacs,
    "oi": gaussian.tuned,
    "vecchia": gaussian.vecchia,
    "miost": waves.miost,
    "spde": markov.spde,
    "advection-diffusion": markov.advection_diffusion,
    "dymost": gaussian.dymost,
    "bfn": nudging.bfn,
    "4dvarqg": variational_qg.variational_qg,
}
"""Those that map data along tracks and swaths."""

IMAGES: dict[str, Mapper] = {
    "dineof": eofs.dineof,
    "oi": gaussian.tuned,
    "vecchia": gaussian.vecchia,
    "spde": markov.spde,
}
"""Those that map images with gaps."""

MAPPERS: dict[str, Mapper] = {**TRACKS, **IMAGES}
"""All of them."""


def mapper(name: str) -> Mapper:
    r"""Returns a mapper by its name.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> mapper("oi-odc2020a").__doc__.split(":")[0]
        'The optimal interpolation of the 2020a challenge'
    """
    if name not in MAPPERS:
        msg = (
            f"mapper(name=...): expected one of {', '.join(sorted(MAPPERS))}, got {name!r}. "
            "Choose one."
        )
        raise ValueError(msg)
    return MAPPERS[name]
