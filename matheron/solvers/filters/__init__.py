r"""Filters: ensembles and particles that follow a model and take data in as they come."""

from .analysis import EnsembleAnalysis
from .cycle import CycleScores, TwinExperiment
from .iterative import gauss_newton
from .localization import Localization, gaspari_cohn, local_weights
from .particles import effective_size, jittered, log_likelihood, resampled
from .schemes import (
    EnsembleCycle,
    IterativeCycle,
    OptimalInterpolation,
    ParticleCycle,
    Scheme,
    System,
    ThreeDVar,
    Weighted,
)
from .transforms import (
    Departures,
    deterministic_weights,
    finite_size_inflation,
    perturbed_weights,
    random_rotation,
    reweighted,
    symmetric_weights,
    whitened,
)

__all__ = [
    "CycleScores",
    "Departures",
    "EnsembleAnalysis",
    "EnsembleCycle",
    "IterativeCycle",
    "Localization",
    "OptimalInterpolation",
    "ParticleCycle",
    "Scheme",
    "System",
    "ThreeDVar",
    "TwinExperiment",
    "Weighted",
    "deterministic_weights",
    "effective_size",
    "finite_size_inflation",
    "gaspari_cohn",
    "gauss_newton",
    "jittered",
    "local_weights",
    "log_likelihood",
    "perturbed_weights",
    "random_rotation",
    "resampled",
    "reweighted",
    "symmetric_weights",
    "whitened",
]
