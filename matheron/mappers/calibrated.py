r"""The law of a mapper that runs a model: its members, spread to match held-out passes."""

from __future__ import annotations

__all__ = ["Calibrated", "Spread", "held_out"]

import abc
import torch

from dataclasses import asdict, dataclass
from functools import cached_property
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from typing import Any

from .basin import Basin
from ..posterior import Conditional

HELD = 5
"""One pass in so many is held out, to calibrate the spread."""


@dataclass(frozen=True)
class Spread:
    r"""What makes the spread of a few runs that of the error of a map.

    .. math:: \operatorname{Var} = a^2 s^2 + b^2

    Arguments:
        factor: The factor :math:`a` of the spread :math:`s` of the runs.
        error: The std :math:`b` of what all runs have in common.
    """

    factor: float
    error: float

    def variance(self, spread: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the variance of the error for the variance of runs."""
        return self.factor**2 * spread + self.error**2

    @classmethod
    def fitted(
        cls, error: Float[Tensor, " m"], spread: Float[Tensor, " m"], noise: Float[Tensor, " m"]
    ) -> Spread:
        r"""Returns the spread of largest Gaussian likelihood, on a lattice.

        Arguments:
            error: The differences of a map and of data that it was not given.
            spread: The variances of runs there.
            noise: The variances of the errors of the data.

        Example:
            >>> flat, none = torch.full((4,), 0.01).double(), torch.zeros(4).double()
            >>> error = torch.tensor([0.2, -0.2, 0.2, -0.2], dtype=torch.float64)
            >>> found = Spread.fitted(error, flat, none)
            >>> abs(found.variance(flat)[0].item() - 0.04) < 0.005
            True
        """
        a = torch.cat([torch.zeros(1), torch.logspace(-1, 0.7, 24)]).double()
        b = error.square().mean().sqrt() * torch.linspace(0, 1.5, 31, dtype=torch.float64)
        a, b = (v.flatten() for v in torch.meshgrid(a, b, indexing="ij"))
        v = a[:, None] ** 2 * spread + b[:, None] ** 2 + noise
        cost = (v.clamp(min=1e-18).log() + error.square() / v.clamp(min=1e-18)).mean(dim=1)
        best = cost.argmin()
        return cls(a[best].item(), b[best].item())


class Calibrated(Conditional):
    r"""A conditional law by runs of a model: the mean from one, the spread from a few.

    The map is a mean of a run and of its first guess, whose errors are of different kinds. The
    weight of the run is that of least error at passes that were held out; it falls to zero over a
    few cells to the border, where the run knows nothing else.

    Members are runs with perturbed data and first guess. That they differ little does not mean
    that they are right: the model is one, and data draw it to one state. So the deviations from
    their mean are scaled, and a draw of the prior, as small as need be, is added; both numbers are
    those of largest likelihood at passes that a run is not given (:class:`Spread`).

    Arguments:
        basin: The sea and its data.
        members: The number of runs of an ensemble that is asked for its std.
        seed: The seed of the runs that calibrate it.
    """

    def __init__(self, basin: Basin, members: int, seed: int) -> None:
        super().__init__(basin.prior, basin.observation)
        self.basin, self.members, self.seed = basin, members, seed

    @abc.abstractmethod
    def on(self, basin: Basin) -> Calibrated:
        r"""Returns the same law for other data."""

    @abc.abstractmethod
    def run(self, y: Float[Tensor, " m"]) -> Float[Tensor, "q n"]:
        r"""Returns heights every quarter of a day, from anomalies."""

    @abc.abstractmethod
    def runs(self, size: int, generator: Generator | None) -> Float[Tensor, "size q n"]:
        r"""Returns the heights of perturbed runs."""

    def mixed(
        self, run: Float[Tensor, "q n"], guess: Float[Tensor, "q n"], weight: float
    ) -> Float[Tensor, "q n"]:
        r"""Returns the mean of a run and of its first guess, which has it all on the border."""
        return guess + weight * self.basin.ramp * (run - guess)

    @cached_property
    def weight(self) -> float:
        r"""The weight of the run beside its first guess; one without passes to hold out."""
        if self._trial is None:
            return 1.0
        law, out, run, guess = self._trial
        zero = out.seen(guess)
        more = out.seen(law.mixed(run, guess, 1.0)) - zero
        best = more @ (out.y - zero) / more.square().sum().clamp(min=1e-18)
        return best.clamp(0.0, 1.0).item()

    @cached_property
    def _trial(self) -> tuple[Calibrated, Basin, Tensor, Tensor] | None:
        r"""The law without some passes, the sea with these only, a run and its first guess."""
        held = held_out(self.basin)
        if held is None:
            return None
        law = self.on(self.basin.take(~held))
        return law, self.basin.take(held), law.run(law.basin.y), law.basin.first_guess

    @cached_property
    def _center(self) -> Float[Tensor, " n"]:
        return self._map(self.basin.y)

    def _map(self, y: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        same = torch.equal(y, self.basin.y)
        guess = self.basin.first_guess if same else self.basin.guess(y)
        return self.basin.onto(self.mixed(self.run(y), guess, self.weight))

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        rows = [
            self._center if torch.equal(v, self.basin.y) else self._map(v)
            for v in y.reshape(-1, y.shape[-1])
        ]
        return torch.stack(rows).reshape(*y.shape[:-1], -1)

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        _check_data(self.basin, y)
        runs = self.basin.onto(self.runs(max(size, 2), generator))
        apart = (runs - runs.mean(dim=0)) * (len(runs) / (len(runs) - 1)) ** 0.5
        other = self.basin.onto(self.basin.quarters(self.basin.draw(size, generator)))
        return self._center + self.spread.factor * apart[:size] + self.spread.error * other

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        _check_data(self.basin, y)
        runs = self.basin.onto(self.runs(min(size, self.members), generator))
        return self.spread.variance(runs.var(dim=0)).sqrt()

    @cached_property
    def spread(self) -> Spread:
        r"""The spread that passes held out ask for; that of the runs without passes."""
        if self._trial is None:
            return Spread(1.0, 0.0)
        law, out, run, guess = self._trial
        error = out.seen(law.mixed(run, guess, self.weight)) - out.y
        runs = law.runs(self.members, torch.Generator().manual_seed(self.seed))
        noise = out.observation.noise_variance.detach()
        return Spread.fitted(error, out.seen(runs).var(dim=0), noise)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {"weight": self.weight, **asdict(self.spread)}


def held_out(basin: Basin) -> Bool[Tensor, " m"] | None:
    r"""Returns the data of the passes that are held out, if there are some and others."""
    if basin.data.passes is None:
        return None
    held = basin.data.passes % HELD == 0
    return None if held.all() or not held.any() else held


def _check_data(basin: Basin, y: Tensor) -> None:
    if y.shape != basin.y.shape or not torch.equal(y, basin.y):
        msg = (
            f"Calibrated.sample(y=...): expected the data that the law was made for, got others "
            f"with shape {tuple(y.shape)}. Map the problem with these data."
        )
        raise ValueError(msg)
