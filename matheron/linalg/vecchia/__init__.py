"""Vecchia approximation: ordering, neighbours, likelihood, Fisher information, prediction,
simulation.
"""

from __future__ import annotations

from . import torch_engine as torch_engine
from .information import Tangent as Tangent
from .information import fisher as fisher
from .likelihood import gaussian_nll as gaussian_nll
from .likelihood import whiten as whiten
from .merging import joint_neighbors as joint_neighbors
from .merging import target_neighbors as target_neighbors
from .neighbors import previous_neighbors as previous_neighbors
from .ordering import along_curve as along_curve
from .ordering import maxmin_order as maxmin_order
from .ordering import stored_along_curve as stored_along_curve
from .prediction import predict_weights as predict_weights
from .sequence import marginal_variance as marginal_variance
from .sequence import propagate as propagate
from .warm_up import warm_up as warm_up

__all__ = [
    "along_curve",
    "Tangent",
    "fisher",
    "gaussian_nll",
    "joint_neighbors",
    "marginal_variance",
    "maxmin_order",
    "predict_weights",
    "previous_neighbors",
    "propagate",
    "torch_engine",
    "stored_along_curve",
    "target_neighbors",
    "warm_up",
    "whiten",
]
