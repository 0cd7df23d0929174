r"""Priors given by stochastic partial differential equations."""

__all__ = [
    "AdvectionDiffusion",
    "AugmentedSPDE",
    "Constant",
    "Covariates",
    "Discretization",
    "Given",
    "Lattice",
    "Mesh",
    "Network",
    "ParameterField",
    "Parameters",
    "PerNode",
    "Spline",
    "Spread",
    "Streamfunction",
    "WhittleMatern",
    "geostrophic",
]

from .advection_diffusion import AdvectionDiffusion
from .augmented import AugmentedSPDE, Parameters, Spread
from .discretization import Discretization
from .fields import Constant, Covariates, ParameterField, PerNode, Spline
from .lattice import Lattice
from .mesh import Mesh
from .network import Network
from .velocity import Given, Streamfunction, geostrophic
from .whittle_matern import WhittleMatern
