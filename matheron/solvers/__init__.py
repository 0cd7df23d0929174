r"""Solvers: from a prior and an observation to the conditional law."""

__all__ = [
    "ConjugateGradient",
    "DINEOF",
    "ExpansionGradient",
    "InducingPoints",
    "Kriging",
    "LikelihoodSolver",
    "LocalKriging",
    "Solver",
    "SparseCholesky",
    "Taper",
    "Vecchia",
]

from .base import LikelihoodSolver, Solver
from .conjugate_gradient import ConjugateGradient
from .dineof import DINEOF
from .expansion_gradient import ExpansionGradient
from .inducing import InducingPoints
from .kriging import Kriging
from .local import LocalKriging
from .sparse_cholesky import SparseCholesky
from .taper import Taper
from .vecchia import Vecchia
