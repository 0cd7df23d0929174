r"""Covariance functions: stationary families, their sums and products, and space-time models."""

__all__ = [
    "ArhanColin",
    "Gaussian",
    "Gneiting",
    "Kernel",
    "Matern",
    "Nugget",
    "Periodic",
    "Product",
    "Propagating",
    "Scaled",
    "Stationary",
    "Sum",
    "Wendland",
    "arhan_colin",
    "separable",
    "sum_metric",
]

from .arhan_colin import ArhanColin, Propagating, arhan_colin
from .base import Kernel, Product, Scaled, Sum
from .nugget import Nugget
from .periodic import Periodic
from .spacetime import Gneiting, separable, sum_metric
from .stationary import Gaussian, Matern, Stationary, Wendland
