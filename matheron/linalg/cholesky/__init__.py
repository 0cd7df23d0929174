"""Sparse Cholesky factorisation with gradients: multifrontal, on all threads."""

from __future__ import annotations

from .factor import Analysis as Analysis
from .factor import Cholesky as Cholesky
from .warming import warm_up as warm_up

__all__ = ["Analysis", "Cholesky", "warm_up"]
