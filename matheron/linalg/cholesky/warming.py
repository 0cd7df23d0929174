"""Compile everything once."""

from __future__ import annotations

__all__ = ["warm_up"]

import scipy.sparse as sparse
import torch

from .factor import Analysis, Cholesky
from .single import SingleCholesky
from ..sparse import Sparse


def warm_up() -> None:
    """Compile every pass on a tiny problem; the machine code is kept on disk for later processes.

    Example:
        >>> warm_up()
    """
    n = 64
    Q = Sparse.from_scipy(
        sparse.diags_array([4.0, -1, -1, -1, -1], offsets=[0, 1, -1, 8, -8], shape=(n, n))
    )
    Q.values.requires_grad_()
    places = torch.arange(n, dtype=torch.float64)[:, None]
    pairs = Analysis(Q.pattern, places.div(2, rounding_mode="floor"))
    for analysis in (Analysis(Q.pattern, places), Analysis(Q.pattern), pairs):
        factor = Cholesky(Q, analysis)
        b = torch.ones(n, 2, dtype=torch.float64, requires_grad=True)
        (factor.logdet() + factor.solve(b).sum() + factor.solve(b[:, 0]).sum()).backward()
        factor.sqrt_solve(b)
        quick = SingleCholesky(Q, analysis)
        quick.solve(b)
        quick.solve(b[:, 0])
