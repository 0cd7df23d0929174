r"""Windows of which some data are withheld from the solver, to judge it by."""

from __future__ import annotations

__all__ = ["HIDDEN", "SEA", "Shown"]

import dataclasses
import torch

from jaxtyping import Int
from torch import Tensor

from .batches import Batch, Source, fingerprint_of
from .patches import Windows

SEA, HIDDEN = "sea", "withheld"
"""The names of what goes along with the windows: the sea, and data withheld."""


class Shown(Source):
    r"""Windows of which the land weighs nothing, and of which some data are withheld.

    Both come with the windows as fields beside them, which the solver does not see.

    Arguments:
        windows: The windows, whose data are those that are not withheld.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows, self.grid = windows, windows.grid

    def __len__(self) -> int:
        return len(self.windows)

    def fingerprint(self) -> str:
        return fingerprint_of([], "shown", self.windows.fingerprint())

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        batch = self.windows.batch(index, seeds)
        others = dict(batch.covariates)
        if SEA in others:
            batch = dataclasses.replace(batch, weights=batch.weights * others.pop(SEA)[1])
        if HIDDEN in others:
            batch = _with_hidden(batch, *others.pop(HIDDEN))
        return dataclasses.replace(batch, covariates=others)


def _with_hidden(batch: Batch, values: Tensor, mask: Tensor) -> Batch:
    r"""Returns a batch with more hidden data: those of the future are hidden already."""
    assert batch.hidden is not None
    assert batch.hidden_mask is not None
    hidden, both = torch.where(mask, values, batch.hidden), batch.hidden_mask | mask
    return dataclasses.replace(batch, hidden=hidden, hidden_mask=both)
