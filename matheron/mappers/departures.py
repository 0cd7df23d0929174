r"""What members of a learned map depart from it by: draws of the law of the field."""

from __future__ import annotations

__all__ = ["Departures"]

import torch

from collections.abc import Sequence
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor

from .field_law import FieldLaw, Windowed
from ..domain import Grid, Points
from ..observations import PointObservation
from ..posterior import GaussianConditional
from ..priors import AdvectionDiffusion
from ..priors.spde import Parameters
from ..priors.spde.evolution import Evolution

NOTHING = 1e3
"""The std of a datum that tells nothing, in those of the field."""


class Departures:
    r"""The law of the departures from the maps of some days in a row.

    The parameters of the field change from day to day: those of a day are told from the window
    about it. Each map has the exact conditional law of its window given the data there. Draws of
    all days begin as one draw of the field and of the errors of data: they go on from day to day
    as the field does. What they do not know is that a window has data before and after it.

    Arguments:
        law: The law of the field.
        window: The grid of a window of the map, its days first.
        windows: The windows, one for each day.
        wanted: Which day of a window is mapped.
    """

    def __init__(self, law: FieldLaw, window: Grid, windows: Windowed, wanted: int) -> None:
        self.law, self.wanted, self.days = law, wanted, window.shape[0]
        self.prior = law.prior(window)
        self.theta = law.tell(window, windows)
        self.mask = law.data(windows)[1]
        time = self.prior.domain.axes["time"][wanted : wanted + 1]
        self.place = Grid(metric=window.metric, **{**window.axes, "time": time})  # type: ignore[arg-type]

        self._stds: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.theta)

    def parameters(self, day: int) -> Parameters:
        r"""Returns the parameters of a day, at the nodes of the equation."""
        return self.prior.parameters_of(self.theta[day])

    def conditional(self, day: int) -> tuple[AdvectionDiffusion, Points, GaussianConditional]:
        r"""Returns the law of a window, where it is seen, and its law given data there.

        What is wanted of it is its map of one day.
        """
        law = self.prior.given(self.theta[day]).along(self._chain(day, day + self.days))
        law.domain = self.place
        nodes, noise = torch.nonzero(self.mask[day])[:, 0], self.law.noise
        if not len(nodes):
            nodes, noise = torch.zeros(1, dtype=torch.long), NOTHING * self.prior.std
        points = self.prior.domain.points[nodes]
        found = self.law.solver.conditioner(law, PointObservation(self.place, points, noise))
        assert isinstance(found, GaussianConditional)
        return law, points, found

    @torch.no_grad()
    def std(self, days: Sequence[int] | None = None) -> Float[Tensor, "k h w"]:
        r"""Returns the exact std of each map, that of the nodes of the equation interpolated."""
        chosen = range(len(self)) if days is None else days
        return torch.stack([self._smooth(self._exact(k)) for k in chosen])

    def _exact(
        self, day: int, conditional: GaussianConditional | None = None
    ) -> Float[Tensor, "h w"]:
        r"""Returns the std of a day, which is kept: it takes as long as its draws."""
        if day not in self._stds:
            law = self.conditional(day)[2] if conditional is None else conditional
            # between the nodes a draw is an average, less variable than they are
            std = law.variance().clamp(min=0).sqrt()
            self._stds[day] = std.reshape(self.place.shape[1:])
        return self._stds[day]

    def _smooth(self, std: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        r"""Returns a std between the nodes of the equation as they have it."""
        names = self.place.dims[1:]
        picked = {k: self.law.picked(n).unique() for k, n in zip(names, std.shape, strict=True)}
        axes = {k: self.place.axes[k][at] for k, at in picked.items()}
        nodes, weights = Grid(metric=self.place.metric, **axes).interpolation(self._plane)  # type: ignore[arg-type]
        values = std[picked[names[0]]][:, picked[names[1]]].flatten()
        return (values[nodes] * weights).sum(dim=1).reshape(std.shape)

    @cached_property
    def _plane(self) -> Points:
        space = {k: v for k, v in self.place.axes.items() if k != "time"}
        return Grid(metric=self.place.metric, **space).points  # type: ignore[arg-type]

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size d h w"]:
        r"""Draws departures of variance one, exactly."""
        many = len(self) + self.days - 1
        states = self._chain(0, many).sample(size, generator).unflatten(1, (many, -1))
        errors = torch.randn(
            *states.shape[:2], len(self.prior.space), dtype=torch.float64, generator=generator
        )
        found = []
        for day in range(len(self)):
            span = slice(day, day + self.days)
            found.append(self._departed(day, states[:, span], errors[:, span]))
        return torch.stack(found, dim=1)

    def _departed(
        self, day: int, states: Float[Tensor, "size t q"], errors: Float[Tensor, "size t p"]
    ) -> Float[Tensor, "size h w"]:
        law, points, conditional = self.conditional(day)
        x = states.flatten(1).mT.contiguous()
        seen = (law.embedding(points) @ x).mT
        if self.mask[day].any():
            seen = seen + self.law.noise * errors.flatten(1)[:, self.mask[day]]
        drawn = (law.embedding(self.place.points) @ x).mT - conditional.estimate(seen)
        return drawn.unflatten(1, self.place.shape[1:]) / self._exact(day, conditional)

    @cached_property
    def _evolutions(self) -> list[Evolution]:
        r"""The laws of the field with the parameters of each day."""
        return [self.prior.given(theta).evolution() for theta in self.theta]

    def _chain(self, first: int, end: int) -> Evolution:
        r"""Returns the law of some days in a row, counted from the first of the first window."""
        last = len(self) - 1
        days = [self._evolutions[min(max(k - self.wanted, 0), last)] for k in range(first, end)]
        return Evolution(days[0].initial, [one.steps[0] for one in days[1:]], days[0].factorise)
