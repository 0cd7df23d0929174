r"""The automatic choice of a solver: the only module that knows them all."""

from __future__ import annotations

__all__ = ["reconstruct"]


def reconstruct() -> None:
    pass
