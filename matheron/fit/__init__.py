r"""Fitting: maximum likelihood, cross-validation, and models of time learned from data."""

__all__ = [
    "Fit",
    "LearnedDynamics",
    "Training",
    "blocks",
    "cross_validate",
    "default_solver",
    "ensemble_likelihood",
    "fit_forecasts",
    "learn_dynamics",
    "maximum_likelihood",
    "predict",
]

from .dynamics import ensemble_likelihood, learn_dynamics
from .forecasts import Training, fit_forecasts
from .learned import LearnedDynamics
from .likelihood import default_solver
from .maximum import maximum_likelihood
from .report import Fit
from .validate import blocks, cross_validate, predict
