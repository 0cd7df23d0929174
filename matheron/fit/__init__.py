r"""Fitting: maximum likelihood, cross-validation, models of time and solvers that are learned."""

from __future__ import annotations

import importlib

from typing import Any

__all__ = [
    "Card",
    "Fit",
    "GapSpread",
    "JointSimulations",
    "LearnedDynamics",
    "LearnedModel",
    "Loss",
    "Schedule",
    "Simulations",
    "Stage",
    "Training",
    "bilevel",
    "blocks",
    "cross_validate",
    "crps",
    "data_misfit",
    "default_solver",
    "ensemble_likelihood",
    "every_iterate",
    "field_error",
    "fit_deformation",
    "fit_forecasts",
    "gaussian_likelihood",
    "gradient_error",
    "hardware",
    "learn_dynamics",
    "load_model",
    "maximum_likelihood",
    "model_folder",
    "parameter_error",
    "parameter_likelihood",
    "posterior_crps",
    "posterior_moments",
    "predict",
    "pretrained",
    "prior_cost",
    "save_model",
    "train",
    "variational_cost",
    "withheld_error",
    "withheld_likelihood",
]

from .bilevel import (
    JointSimulations,
    bilevel,
    parameter_error,
    parameter_likelihood,
    posterior_crps,
    withheld_likelihood,
)
from .deformation import Stage, fit_deformation
from .dynamics import ensemble_likelihood, learn_dynamics
from .forecasts import Training, fit_forecasts
from .learned import LearnedDynamics
from .likelihood import default_solver
from .losses import (
    Loss,
    crps,
    data_misfit,
    every_iterate,
    field_error,
    gaussian_likelihood,
    gradient_error,
    prior_cost,
    variational_cost,
    withheld_error,
)
from .maximum import maximum_likelihood
from .model_file import Card, LearnedModel, load_model, save_model
from .moments import posterior_moments
from .pretrained import model_folder, pretrained
from .report import Fit
from .schedule import Schedule
from .simulations import Simulations
from .spread import GapSpread
from .validate import blocks, cross_validate, predict

LATE = {"hardware": "fabric", "train": "training"}
"""Names whose module is imported when they are asked for: Fabric takes a second to import."""


def __getattr__(name: str) -> Any:
    if name not in LATE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f".{LATE[name]}", __name__), name)
