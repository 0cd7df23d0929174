r"""Records to learn from, with noise and gaps, and the model that they make a first guess of."""

from __future__ import annotations

__all__ = ["Record", "first_guess"]

import torch

from jaxtyping import Bool, Float
from torch import Generator, Tensor

from .forecasts import Training, fit_forecasts
from .learned import LearnedDynamics
from ..domain import Grid
from ..dynamics import Dynamics
from ..dynamics.networks import NetworkDynamics
from ..observations import GriddedObservation


class Record:
    r"""Noisy windows with gaps, each an observation of a field.

    Arguments:
        x: The data, with shape :math:`(b, t, s)`; what stands under gaps is never read.
        seen: Where there are data, with the same shape.
        noise_std: The standard deviation of the noise, with shape :math:`()` or :math:`(s)`.

    Raises:
        ValueError: If the noise is not positive, a component is hardly ever seen, or a window
            holds nothing.
    """

    def __init__(
        self, x: Float[Tensor, "b t s"], seen: Bool[Tensor, "b t s"], noise_std: float | Tensor
    ) -> None:
        self.count, self.times, self.states = x.shape
        std = torch.as_tensor(noise_std, dtype=torch.float64).expand(self.states)
        self._check(seen, std)
        self.x, self.seen, self.std = x.where(seen, 0.0), seen, std
        self.grid = Grid(
            time=torch.arange(self.times, dtype=torch.float64),
            x=torch.arange(self.states, dtype=torch.float64),
        )

    def _check(self, seen: Tensor, std: Tensor) -> None:
        if not (std > 0).all():
            msg = (
                f"learn_dynamics(noise_std=...): expected positive numbers, got {std.tolist()}. "
                "Leave it out for clean data."
            )
            raise ValueError(msg)
        often = seen.sum(dim=(0, 1))
        if (often < 2).any() or not seen.flatten(1).any(dim=1).all():
            msg = (
                f"learn_dynamics(mask=...): expected two data or more of every component, and "
                f"some in every window, got {often.tolist()}. Drop what is never seen."
            )
            raise ValueError(msg)

    def observation(self, i: int) -> GriddedObservation:
        r"""Returns how a window is seen."""
        return GriddedObservation(self.grid, self.seen[i].flatten(), self.std.repeat(self.times))

    def alike(self) -> list[list[int]]:
        r"""Returns the windows that are seen at the same places, together."""
        groups: dict[bytes, list[int]] = {}
        for i, seen in enumerate(self.seen):
            groups.setdefault(seen.numpy().tobytes(), []).append(i)
        return list(groups.values())

    def values(self, i: int) -> Float[Tensor, " n"]:
        r"""Returns the data of a window, flat."""
        return self.x[i].flatten()

    def climate(self) -> tuple[Float[Tensor, " s"], Float[Tensor, "s s"]]:
        r"""Returns mean and covariance of what is seen; the latter diagonal, noise included."""
        count = self.seen.sum(dim=(0, 1))
        mean = self.x.sum(dim=(0, 1)) / count
        deviation = (self.x - mean).where(self.seen, 0.0)
        return mean, torch.diag(deviation.square().sum(dim=(0, 1)) / count)

    def filled(self) -> Float[Tensor, "b t s"]:
        r"""Returns the data, interpolated in time, with the nearest beyond the ends."""
        filled = [_interpolated(self.x[i], self.seen[i]) for i in range(self.count)]
        return torch.stack(filled)


def _interpolated(x: Float[Tensor, "t s"], seen: Bool[Tensor, "t s"]) -> Float[Tensor, "t s"]:
    columns = []
    for value, here in zip(x.unbind(1), seen.unbind(1), strict=True):
        at = here.nonzero()[:, 0]
        if len(at) < 2:
            level = value[at].mean() if len(at) else x[seen].mean()
            columns.append(level.expand(len(x)))
            continue
        t = torch.arange(len(x))
        right = torch.searchsorted(at, t).clamp(1, len(at) - 1)
        a, b = at[right - 1], at[right]
        weight = ((t - a) / (b - a)).clamp(0.0, 1.0).to(torch.float64)
        columns.append(value[a] + weight * (value[b] - value[a]))
    return torch.stack(columns, dim=1)


def first_guess(
    record: Record,
    model: Dynamics,
    steps: int,
    training: Training,
    generator: Generator | None = None,
) -> LearnedDynamics:
    r"""Returns a model fitted to data interpolated in time, with the errors it makes on them.

    Arguments:
        record: The data.
        model: The model, which is fitted in place.
        steps: The number of its time steps from one time to the next.
        training: How parameters are moved.
        generator: The random number generator.
    """
    mean, covariance = record.climate()
    x = record.filled()
    if isinstance(model, NetworkDynamics):
        model.normalise(x)
    Q = fit_forecasts(model, x, steps, training=training, generator=generator)
    return LearnedDynamics(model, steps, mean, covariance, Q)
