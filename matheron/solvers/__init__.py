r"""Solvers: from a prior and an observation to the conditional law."""

__all__ = [
    "AugmentedVariational",
    "ConjugateGradient",
    "DINEOF",
    "DirectInversion",
    "EnsembleKalman",
    "ExpansionGradient",
    "FixedPoint",
    "InducingPoints",
    "IterativeEnsembleKalman",
    "Kriging",
    "Langevin",
    "LightStep",
    "LikelihoodSolver",
    "LocalKriging",
    "Localization",
    "NetworkStep",
    "NeuralVariational",
    "ParticleFilter",
    "RecurrentStep",
    "Solver",
    "SparseCholesky",
    "Taper",
    "Tiled",
    "UnrolledDescent",
    "Variational",
    "Vecchia",
    "estimate_model_error",
]

from .base import LikelihoodSolver, Solver
from .conjugate_gradient import ConjugateGradient
from .dineof import DINEOF
from .ensemble_kalman import EnsembleKalman, IterativeEnsembleKalman
from .expansion_gradient import ExpansionGradient
from .filters.localization import Localization
from .inducing import InducingPoints
from .kriging import Kriging
from .langevin import Langevin
from .local import LocalKriging
from .model_error import estimate_model_error
from .neural import (
    AugmentedVariational,
    DirectInversion,
    FixedPoint,
    LightStep,
    NetworkStep,
    NeuralVariational,
    RecurrentStep,
    UnrolledDescent,
)
from .particle_filter import ParticleFilter
from .sparse_cholesky import SparseCholesky
from .taper import Taper
from .tiled import Tiled
from .variational import Variational
from .vecchia import Vecchia
