r"""What a learned solver is trained on: batches of windows, and where they come from."""

from __future__ import annotations

__all__ = ["GUESS", "Batch", "Source", "fingerprint_of"]

import abc
import dataclasses
import hashlib
import torch

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from typing import Any

from ..domain import Grid

GUESS = "guess"
"""The name of a first guess among the fields that go along with data."""


@dataclass(frozen=True)
class Batch:
    r"""Some windows: what the solver sees, what it should find, and what counts.

    States are flat and of one size, land included; what is on land weighs nothing, and is not
    seen. Under gaps the data are zero, whatever the truth: nothing leaks.

    Arguments:
        grid: A grid of the size of a window.
        values: The data, zero where there are none, with shape :math:`(b, n)`.
        mask: Where the solver sees data.
        noise_std: The standard deviation of their errors, with shape :math:`()` or :math:`(b, n)`.
        weights: The weight of each node: of its time, of its place, zero on land.
        truth: The truth, zero on land, where it is known.
        hidden: The data that the solver does not see, zero where there are none.
        hidden_mask: Where they are.
        axes: The coordinates of each window, each with shape :math:`(b, k)`.
        covariates: Other fields, by name: values, and where they are known.
    """

    grid: Grid
    values: Float[Tensor, "b n"]
    mask: Bool[Tensor, "b n"]
    noise_std: Float[Tensor, ...]
    weights: Float[Tensor, "b n"]
    truth: Float[Tensor, "b n"] | None = None
    hidden: Float[Tensor, "b n"] | None = None
    hidden_mask: Bool[Tensor, "b n"] | None = None
    axes: Mapping[str, Float[Tensor, "b k"]] = field(default_factory=dict)
    covariates: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str) -> Batch:
        r"""Returns the batch on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        axes = {k: v.to(device) for k, v in self.axes.items()}
        covariates = {k: (v.to(device), m.to(device)) for k, (v, m) in self.covariates.items()}
        return dataclasses.replace(self, axes=axes, covariates=covariates, **moved)

    def space(self, x: Shaped[Tensor, "b n"]) -> Shaped[Tensor, "b ..."]:
        r"""Returns states with the shape of a window."""
        return x.unflatten(-1, self.grid.shape)


class Source(abc.ABC):
    r"""Where batches come from: a data set, or a law to draw from.

    What is random in a window is drawn from a seed of its own, so that the same seeds give the
    same batch, whatever was drawn before, and on however many machines.

    Attributes:
        grid: A grid of the size of a window.
    """

    grid: Grid

    @abc.abstractmethod
    def __len__(self) -> int:
        r"""The number of windows of an epoch."""

    @abc.abstractmethod
    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> Batch:
        r"""Returns some windows.

        Arguments:
            index: Which ones, counted from zero.
            seeds: The seed of what is random in each.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        r"""Returns what tells these data from others, in a few characters."""


def fingerprint_of(tensors: Iterable[Tensor | None], *settings: object) -> str:
    r"""Returns a hash of tensors and of settings, as their ``repr``.

    Example:
        >>> fingerprint_of([torch.zeros(2)], "a") == fingerprint_of([torch.zeros(2)], "b")
        False
    """
    found = hashlib.blake2b(repr(settings).encode(), digest_size=8)
    for x in tensors:
        found.update(b"none" if x is None else x.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
