r"""Fitting: maximum likelihood by Fisher scoring or by L-BFGS, and cross-validation."""

__all__ = ["Fit", "blocks", "cross_validate", "default_solver", "maximum_likelihood", "predict"]

from .likelihood import default_solver
from .maximum import maximum_likelihood
from .report import Fit
from .validate import blocks, cross_validate, predict
