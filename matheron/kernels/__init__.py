r"""Covariance functions: stationary families, their sums and products, space-time models, and
those that vary from place to place.
"""

__all__ = [
    "AffineWarp",
    "ArhanColin",
    "AxialWarp",
    "Deformed",
    "FlowWarp",
    "GaugedWarp",
    "Gaussian",
    "Gneiting",
    "Kernel",
    "LocalField",
    "Matern",
    "NetworkField",
    "Nugget",
    "PaciorekSchervish",
    "Periodic",
    "Product",
    "Propagating",
    "RadialWarp",
    "Scaled",
    "SplineField",
    "Stationary",
    "Sum",
    "Warp",
    "WarpChain",
    "Wendland",
    "arhan_colin",
    "radial_lattice",
    "separable",
    "sum_metric",
]

from typing import TYPE_CHECKING, Any

from . import warp
from .arhan_colin import ArhanColin, Propagating, arhan_colin
from .base import Kernel, Product, Scaled, Sum
from .deformed import Deformed
from .local import LocalField, NetworkField, SplineField
from .nugget import Nugget
from .paciorek import PaciorekSchervish
from .periodic import Periodic
from .spacetime import Gneiting, separable, sum_metric
from .stationary import Gaussian, Matern, Stationary, Wendland
from .warp import (
    AffineWarp,
    AxialWarp,
    GaugedWarp,
    RadialWarp,
    Warp,
    WarpChain,
    radial_lattice,
)

if TYPE_CHECKING:
    from .warp import FlowWarp


def __getattr__(name: str) -> Any:
    if name != "FlowWarp":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return warp.FlowWarp  # imported when it is asked for
