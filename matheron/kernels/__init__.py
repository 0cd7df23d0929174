r"""Covariance functions: stationary families, their sums and products, and space-time models."""

__all__ = [
    "Gaussian",
    "Gneiting",
    "Kernel",
    "Matern",
    "Nugget",
    "Periodic",
    "Product",
    "Scaled",
    "Stationary",
    "Sum",
    "Wendland",
    "separable",
    "sum_metric",
]

from .base import Kernel, Product, Scaled, Sum
from .nugget import Nugget
from .periodic import Periodic
from .spacetime import Gneiting, separable, sum_metric
from .stationary import Gaussian, Matern, Stationary, Wendland
