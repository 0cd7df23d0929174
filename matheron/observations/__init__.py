r"""Observations: how a field is seen, and with what noise."""

__all__ = [
    "GriddedObservation",
    "Informed",
    "LinearObservation",
    "MatrixObservation",
    "NonlinearObservation",
    "Observation",
    "PointObservation",
    "Stack",
]

from .base import LinearObservation, Observation
from .gridded import GriddedObservation
from .informed import Informed
from .matrix import MatrixObservation
from .nonlinear import NonlinearObservation
from .points import PointObservation
from .stack import Stack
