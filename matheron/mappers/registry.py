r"""The mappers by the names that they have on a leaderboard."""

from __future__ import annotations

__all__ = ["IMAGES", "MAPPERS", "TRACKS", "mapper"]

from pathlib import Path

from . import eofs, gaussian, markov, nudging, variational_qg, waves
from .learned import learned
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


def mapper(
    name: str, model: Path | None = None, variable: str | None = None, units: str | None = None
) -> Mapper:
    r"""Returns a mapper by its name, or that of a trained solver, whatever its name.

    Arguments:
        name: The name.
        model: The folder of a trained solver.
        variable: The variable of the problems, refused if that solver is of another.
        units: Their units, likewise.

    Raises:
        ValueError: If there is none of that name, if it is that of another than the model, or if
            the model is of another variable.

    Example:
        >>> mapper("oi-odc2020a").__doc__.split(":")[0]
        'The optimal interpolation of the 2020a challenge'
    """
    if model is not None:
        _check_new(name, model)
        return learned(model, variable, units)
    if name not in MAPPERS:
        msg = (
            f"mapper(name=...): expected one of {', '.join(sorted(MAPPERS))}, got {name!r}. "
            "Choose one."
        )
        raise ValueError(msg)
    return MAPPERS[name]


def _check_new(name: str, model: Path) -> None:
    # the name is that of files, and of a row among others
    if name in MAPPERS or not name.replace("-", "").replace("_", "").isalnum():
        msg = (
            f"mapper(name=...): expected a new name of letters, digits and dashes for {model}, "
            f"got {name!r}. Write e.g. my-unet={model}."
        )
        raise ValueError(msg)
