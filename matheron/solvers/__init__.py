r"""Solvers: from a prior and an observation to the conditional law."""

__all__ = [
    "ConjugateGradient",
    "InducingPoints",
    "Kriging",
    "LikelihoodSolver",
    "Solver",
    "SparseCholesky",
    "Taper",
    "Vecchia",
]

from .base import LikelihoodSolver, Solver
from .conjugate_gradient import ConjugateGradient
from .inducing import InducingPoints
from .kriging import Kriging
from .sparse_cholesky import SparseCholesky
from .taper import Taper
from .vecchia import Vecchia
