r"""Observations: how a field is seen, and with what noise."""

__all__ = [
    "GriddedObservation",
    "LinearObservation",
    "Observation",
    "PointObservation",
    "Stack",
]

from .base import LinearObservation, Observation
from .gridded import GriddedObservation
from .points import PointObservation
from .stack import Stack
