r"""Every mapper on one experiment, judged by the same scores; solvers that learn on another."""

from __future__ import annotations

import importlib

from typing import Any

__all__ = [
    "Board",
    "Course",
    "Plan",
    "course_of",
    "hardware_of",
    "learn",
    "problem_of",
    "run_method",
    "score_map",
    "timed",
]

from .board import Board
from .course import Course, course_of
from .plans import Plan
from .problems import problem_of
from .runs import run_method
from .scores import score_map

LATE = ("hardware_of", "learn", "timed")
"""Names whose module is imported when they are asked for: that of training takes a second."""


def __getattr__(name: str) -> Any:
    if name not in LATE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(".learning", __name__), name)
