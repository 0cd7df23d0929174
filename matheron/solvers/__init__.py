r"""Solvers: from a prior and an observation to the conditional law."""

__all__ = [
    "ConjugateGradient",
    "DINEOF",
    "EnsembleKalman",
    "ExpansionGradient",
    "InducingPoints",
    "IterativeEnsembleKalman",
    "Kriging",
    "LikelihoodSolver",
    "LocalKriging",
    "Localization",
    "ParticleFilter",
    "Solver",
    "SparseCholesky",
    "Taper",
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
from .local import LocalKriging
from .model_error import estimate_model_error
from .particle_filter import ParticleFilter
from .sparse_cholesky import SparseCholesky
from .taper import Taper
from .variational import Variational
from .vecchia import Vecchia
