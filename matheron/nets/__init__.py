r"""Networks: arrays in, arrays out. They know no grid and no prior."""

__all__ = [
    "BilinearAutoencoder",
    "Conv",
    "ConvGRUCell",
    "ConvLSTMCell",
    "GatedPyramid",
    "Net",
    "Patches",
    "Pullback",
    "RecurrentCell",
    "Residual",
    "TwoScale",
    "UNet",
    "coarsest",
    "pullback",
]

from .bilinear import BilinearAutoencoder, TwoScale
from .layers import Conv, Net, Pullback, coarsest, pullback
from .patches import Patches
from .pyramid import GatedPyramid
from .recurrent import ConvGRUCell, ConvLSTMCell, RecurrentCell
from .residual import Residual
from .unet import UNet
