"""Compile everything once, for the set-up of a machine."""

from __future__ import annotations

__all__ = ["warm_up"]

from . import cholesky, vecchia


def warm_up() -> None:
    """Compile every hot loop; the machine code is kept on disk for later processes.

    Example:
        >>> warm_up()
    """
    vecchia.warm_up()
    cholesky.warm_up()
