r"""Models of how a state moves in time: differentiable, batched, and knowing no grid."""

__all__ = [
    "Analogs",
    "BilinearNetwork",
    "ConvDynamics",
    "DoubleGyre",
    "Dynamics",
    "Helmholtz",
    "Lorenz63",
    "Lorenz96",
    "MLPDynamics",
    "NetworkDynamics",
    "OneLayerQG",
    "Tendency",
    "Transport",
    "TwoLayerQG",
    "TwoScaleLorenz96",
]

from .analogs import Analogs
from .base import Dynamics, Tendency
from .double_gyre import DoubleGyre
from .elliptic import Helmholtz
from .lorenz import Lorenz63, Lorenz96, TwoScaleLorenz96
from .networks import BilinearNetwork, ConvDynamics, MLPDynamics, NetworkDynamics
from .one_layer import OneLayerQG
from .quasigeostrophic import TwoLayerQG
from .transport import Transport
