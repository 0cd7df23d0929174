"""Sparse Cholesky factorisation with gradients: multifrontal, on all threads."""

from __future__ import annotations

from .factor import Analysis as Analysis
from .factor import Cholesky as Cholesky
from .single import SingleCholesky as SingleCholesky
from .warming import warm_up as warm_up

__all__ = ["Analysis", "Cholesky", "SingleCholesky", "warm_up"]
