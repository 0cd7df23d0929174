r"""Solvers that are learned: they never promise to be exact, and are quick to apply."""

__all__ = [
    "DirectInversion",
    "FixedPoint",
    "LearnedConditional",
    "LearnedSolver",
    "LightStep",
    "NetworkStep",
    "NeuralVariational",
    "RecurrentStep",
    "Step",
    "UnrolledDescent",
]

from .base import LearnedConditional, LearnedSolver
from .direct import DirectInversion
from .fixed_point import FixedPoint
from .steps import LightStep, NetworkStep, RecurrentStep, Step
from .unrolled import NeuralVariational, UnrolledDescent
