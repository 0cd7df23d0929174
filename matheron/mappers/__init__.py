r"""Mappers by name: a prior and a solver each, as the ocean community knows them."""

__all__ = [
    "IMAGES",
    "MAPPERS",
    "Mapped",
    "Problem",
    "TRACKS",
    "challenge_kernel",
    "coarsen",
    "learned",
    "mapper",
    "oi_odc2020a",
    "superobs",
]

from .challenge import challenge_kernel, oi_odc2020a
from .coarsen import coarsen
from .learned import learned
from .problem import Mapped, Problem, superobs
from .registry import IMAGES, MAPPERS, TRACKS, mapper
