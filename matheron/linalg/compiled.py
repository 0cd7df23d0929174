"""How the hot loops are compiled."""

from __future__ import annotations

import inspect

from collections.abc import Callable
from numba import njit
from numba.extending import intrinsic
from typing import Any

__all__ = ["compiled", "instruction"]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba: without the interpreter's lock, cached on disk, with fused
    multiply-add but IEEE infinities.

    Decorators that an import hook puts around the function (type checkers of the tests) are taken
    off.
    """
    plain = inspect.unwrap(function)
    fast = {"contract", "nsz", "arcp"}
    return njit(nogil=True, cache=True, error_model="numpy", fastmath=fast)(plain)


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a numba intrinsic."""
    return intrinsic(inspect.unwrap(function))
