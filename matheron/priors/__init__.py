r"""Priors: what fields look like before any data."""

__all__ = [
    "Denoising",
    "Energy",
    "GaussianPrior",
    "GaussianProcess",
    "KernelPrior",
    "MarkovPrior",
    "Prior",
    "Sampling",
    "Trend",
]

from .base import Denoising, Energy, GaussianPrior, KernelPrior, MarkovPrior, Prior, Sampling
from .gp import GaussianProcess
from .trend import Trend
