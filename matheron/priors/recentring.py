r"""Priors whose law is told about a time of analysis."""

from __future__ import annotations

__all__ = ["Recentring"]

import abc

from .base import KernelPrior


class Recentring(KernelPrior):
    r"""A kernel prior that can be told about any time of analysis.

    Its coordinates are exact at one time, and approximate far from it. A solver that works by
    windows asks for the prior about the middle of each. The kernel is the same for all.
    """

    @abc.abstractmethod
    def at(self, time: float) -> KernelPrior:
        r"""Returns the prior about another time, in days since the epoch of the domain."""
