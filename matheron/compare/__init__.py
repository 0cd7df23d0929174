r"""Every mapper on one experiment, judged by the same scores."""

__all__ = ["Board", "problem_of", "run_method", "score_map"]

from .board import Board
from .problems import problem_of
from .runs import run_method
from .scores import score_map
