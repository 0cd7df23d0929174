r"""Warps of coordinates that never fold: units that compose, and normalizing flows."""

__all__ = [
    "AffineWarp",
    "AxialWarp",
    "FlowWarp",
    "GaugedWarp",
    "RadialWarp",
    "Warp",
    "WarpChain",
    "radial_lattice",
]

import importlib

from typing import TYPE_CHECKING, Any

from .base import Warp, WarpChain
from .gauge import GaugedWarp
from .units import AffineWarp, AxialWarp, RadialWarp, radial_lattice

if TYPE_CHECKING:
    from .flow import FlowWarp


def __getattr__(name: str) -> Any:
    if name != "FlowWarp":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return importlib.import_module(".flow", __name__).FlowWarp  # flows are a library of their own
