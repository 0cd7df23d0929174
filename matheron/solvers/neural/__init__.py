r"""Solvers that are learned: they never promise to be exact, and are quick to apply."""

__all__ = [
    "AugmentedConditional",
    "AugmentedVariational",
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

from .augmented import AugmentedConditional, AugmentedVariational
from .base import LearnedConditional, LearnedSolver
from .direct import DirectInversion
from .fixed_point import FixedPoint
from .steps import LightStep, NetworkStep, RecurrentStep, Step
from .unrolled import NeuralVariational, UnrolledDescent
