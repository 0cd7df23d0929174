r"""Data with other fields beside them: a first guess, another variable."""

from __future__ import annotations

__all__ = ["Informed"]

from jaxtyping import Float
from torch import Generator, Tensor

from .base import Observation


class Informed(Observation):
    r"""Data, and fields on the whole grid that a learned solver may look at.

    The fields follow the data in :math:`y`: a first guess by another method, in the units of the
    field, sea temperature beside sea level. They are no data: the cost does not know of them, as a
    first guess made of the same data would count these twice.

    Arguments:
        observation: How the field is seen, with :math:`m` data.
        fields: The number :math:`k` of fields.

    Raises:
        ValueError: If there is no field.

    Example:
        >>> import torch
        >>> from matheron import Grid, GriddedObservation
        >>> grid = Grid(x=[0.0, 1.0])
        >>> seen = Informed(GriddedObservation(grid, torch.tensor([True, False]), 0.1))
        >>> y = torch.tensor([1.0, 0.0, 0.9, 0.8], dtype=torch.float64)  # data, then the guess
        >>> seen.data(y).tolist(), seen.others(y).tolist()
        ([1.0, 0.0], [[0.9, 0.8]])
    """

    def __init__(self, observation: Observation, fields: int = 1) -> None:
        super().__init__()
        if fields < 1:
            msg = (
                f"Informed(fields=...): expected one field or more, got {fields}. Use the "
                "observation alone."
            )
            raise ValueError(msg)
        self.observation, self.fields = observation, fields
        self.domain = observation.domain

    def _split(self, y: Float[Tensor, "*batch k"]) -> tuple[Tensor, Tensor]:
        told = self.fields * len(self.domain)
        if y.shape[-1] <= told:
            msg = (
                f"Informed(y=...): expected data and {self.fields} fields of {len(self.domain)} "
                f"nodes after them, got {y.shape[-1]} values. Concatenate them."
            )
            raise ValueError(msg)
        return y[..., :-told], y[..., -told:]

    def data(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data."""
        return self._split(y)[0]

    def others(self, y: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch f n"]:
        r"""Returns the fields beside them."""
        return self._split(y)[1].unflatten(-1, (self.fields, -1))

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
