r"""Priors given by stochastic partial differential equations."""

__all__ = [
    "AdvectionDiffusion",
    "AllenCahn",
    "AugmentedSPDE",
    "Constant",
    "Covariates",
    "Discretization",
    "Given",
    "Lattice",
    "Logistic",
    "Mesh",
    "ModelDrift",
    "Network",
    "NonlinearSPDE",
    "ParameterField",
    "Parameters",
    "PerNode",
    "Reaction",
    "Spline",
    "Spread",
    "Streamfunction",
    "WhittleMatern",
    "geostrophic",
]

from .advection_diffusion import AdvectionDiffusion
from .augmented import AugmentedSPDE
from .discretization import Discretization
from .drifts import AllenCahn, Logistic, ModelDrift, Reaction
from .fields import Constant, Covariates, ParameterField, PerNode, Spline
from .lattice import Lattice
from .mesh import Mesh
from .network import Network
from .nonlinear import NonlinearSPDE
from .parameters import Parameters, Spread
from .velocity import Given, Streamfunction, geostrophic
from .whittle_matern import WhittleMatern
