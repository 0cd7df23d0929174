r"""Data with other fields beside them: a first guess, another variable."""

from __future__ import annotations

__all__ = ["Informed", "with_known"]

from collections.abc import Iterable, Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from .base import Observation


def with_known(names: Iterable[str]) -> tuple[str, ...]:
    r"""Returns the names of fields with gaps: after each that of where it is known, 1 or 0.

    Example:
        >>> with_known(["sst"])
        ('sst', 'sst_known')
    """
    return tuple(part for name in names for part in (name, f"{name}_known"))


class Informed(Observation):
    r"""Data, and fields on the whole grid that a learned solver may look at.

    The fields follow the data in :math:`y`: first guesses by other methods, in the units of the
    field; then others, of order one, by name: sea temperature beside sea level. They are no data:
    the cost does not know of them, as a first guess made of the same data would count these twice.

    Arguments:
        observation: How the field is seen, with :math:`m` data.
        fields: The number of fields in the units of the field; the first is where a solver may
            start.
        beside: The names of the other fields, which are of order one and zero in their gaps.

    Raises:
        ValueError: If there is no field, or two of one name.

    Example:
        >>> import torch
        >>> from matheron import Grid, GriddedObservation
        >>> grid = Grid(x=[0.0, 1.0])
        >>> seen = Informed(GriddedObservation(grid, torch.tensor([True, False]), 0.1))
        >>> y = torch.tensor([1.0, 0.0, 0.9, 0.8], dtype=torch.float64)  # data, then the guess
        >>> seen.data(y).tolist(), seen.others(y).tolist()
        ([1.0, 0.0], [[0.9, 0.8]])
    """

    def __init__(
        self, observation: Observation, fields: int = 1, beside: Sequence[str] = ()
    ) -> None:
        super().__init__()
        if fields < 0 or fields + len(beside) < 1:
            msg = (
                f"Informed(fields=...): expected one field or more, got {fields}. Use the "
                "observation alone."
            )
            raise ValueError(msg)
        if len(set(beside)) < len(beside):
            msg = (
                f"Informed(beside=...): expected each name once, got {', '.join(beside)}. Rename "
                "one."
            )
            raise ValueError(msg)
        self.observation, self.fields, self.beside = observation, fields, tuple(beside)
        self.domain = observation.domain

    def _split(self, y: Float[Tensor, "*batch k"]) -> tuple[Tensor, Tensor]:
        count = self.fields + len(self.beside)
        told = count * len(self.domain)
        if y.shape[-1] <= told:
            msg = (
                f"Informed(y=...): expected data and {count} fields of {len(self.domain)} "
                f"nodes after them, got {y.shape[-1]} values. Concatenate them."
            )
            raise ValueError(msg)
        return y[..., :-told], y[..., -told:]

    def data(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data."""
        return self._split(y)[0]

    def others(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch f n"]:
        r"""Returns the fields beside them, those in the units of the field to begin with."""
        return self._split(y)[1].unflatten(-1, (self.fields + len(self.beside), -1))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data without noise; the fields beside them are not told by the state."""
        return self.observation(x)

    def sample(
        self, x: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch k"]:
        r"""Refuses: what stands beside the data is not told by the state."""
        msg = (
            "Informed.sample: expected an observation that the state tells all of, got fields "
            "beside it. Draw from the observation alone, and make the fields of its data."
        )
        raise TypeError(msg)

    def misfit(
        self, d: Float[Tensor, "*batch m"], y: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch"]:
        return self.observation.misfit(d, self.data(y))

    def gradient(
        self, x: Float[Tensor, "*batch n"], y: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch n"]:
        return self.observation.gradient(x, self.data(y))

    def select(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch j"]:
        return self.observation.select(self.data(y))
