r"""Priors: what fields look like before any data."""

__all__ = [
    "AdvectionDiffusion",
    "AlongTrackError",
    "AugmentedSPDE",
    "Denoising",
    "EOF",
    "Energy",
    "ExpansionPrior",
    "GaussianPrior",
    "GaussianProcess",
    "KernelPrior",
    "LagrangianProcess",
    "Layout",
    "MarkovPrior",
    "MarkovSum",
    "Markovian",
    "Nodal",
    "NonlinearSPDE",
    "Prior",
    "Projection",
    "Recentring",
    "Sampling",
    "StrongConstraint",
    "Trend",
    "TrendedPrior",
    "WavePackets",
    "WeakConstraint",
    "Whitened",
    "WhittleMatern",
]

from .addition import MarkovSum
from .base import (
    Denoising,
    Energy,
    GaussianPrior,
    KernelPrior,
    Prior,
    Sampling,
    TrendedPrior,
    Whitened,
)
from .dynamics import Markovian, StrongConstraint, WeakConstraint
from .eof import EOF
from .expansion import ExpansionPrior
from .gp import GaussianProcess
from .lagrangian import LagrangianProcess
from .layout import Layout
from .markov import MarkovPrior
from .nodal import Nodal
from .projection import Projection
from .recentring import Recentring
from .spde import AdvectionDiffusion, AugmentedSPDE, NonlinearSPDE, WhittleMatern
from .track_error import AlongTrackError
from .trend import Trend
from .wave_packets import WavePackets
