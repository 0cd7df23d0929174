r"""Models of how a state moves in time: differentiable, batched, and knowing no grid."""

from .base import Dynamics
from .elliptic import Helmholtz
from .lorenz import Lorenz63, Lorenz96
from .one_layer import OneLayerQG
from .quasigeostrophic import TwoLayerQG

__all__ = ["Dynamics", "Helmholtz", "Lorenz63", "Lorenz96", "OneLayerQG", "TwoLayerQG"]
