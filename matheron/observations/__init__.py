r"""Observations: how a field is seen, and with what noise."""

__all__ = [
    "GriddedObservation",
    "LinearObservation",
    "MatrixObservation",
    "Observation",
    "PointObservation",
    "Stack",
]

from .base import LinearObservation, Observation
from .gridded import GriddedObservation
from .matrix import MatrixObservation
from .points import PointObservation
from .stack import Stack
