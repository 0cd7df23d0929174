r"""Solvers: from a prior and an observation to the conditional law."""

__all__ = ["InducingPoints", "Kriging", "LikelihoodSolver", "Solver", "Taper", "Vecchia"]

from .base import LikelihoodSolver, Solver
from .inducing import InducingPoints
from .kriging import Kriging
from .taper import Taper
from .vecchia import Vecchia
