r"""Networks: arrays in, arrays out. They know no grid and no prior."""

__all__ = [
    "BilinearAutoencoder",
    "Conv",
    "ConvGRUCell",
    "ConvLSTMCell",
    "GatedPyramid",
    "Net",
    "Pullback",
    "RecurrentCell",
    "TwoScale",
    "UNet",
    "pullback",
]

from .bilinear import BilinearAutoencoder, TwoScale
from .layers import Conv, Net, Pullback, pullback
from .pyramid import GatedPyramid
from .recurrent import ConvGRUCell, ConvLSTMCell, RecurrentCell
from .unet import UNet
