r"""Priors: what fields look like before any data."""

__all__ = [
    "AdvectionDiffusion",
    "AlongTrackError",
    "Denoising",
    "Energy",
    "GaussianPrior",
    "GaussianProcess",
    "KernelPrior",
    "MarkovPrior",
    "MarkovSum",
    "Prior",
    "Sampling",
    "Trend",
    "TrendedPrior",
    "WhittleMatern",
]

from .addition import MarkovSum
from .base import Denoising, Energy, GaussianPrior, KernelPrior, Prior, Sampling
from .gp import GaussianProcess
from .markov import MarkovPrior
from .spde import AdvectionDiffusion, WhittleMatern
from .track_error import AlongTrackError
from .trend import Trend
