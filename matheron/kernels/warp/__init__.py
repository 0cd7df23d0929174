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

from .base import Warp, WarpChain
from .flow import FlowWarp
from .gauge import GaugedWarp
from .units import AffineWarp, AxialWarp, RadialWarp, radial_lattice
