r"""The times of an equation of evolution, and the fields between them."""

from __future__ import annotations

__all__ = ["Timeline", "Weights"]

import math
import numpy as np
import torch

from jaxtyping import Float, Int
from torch import Tensor

from .discretization import Discretization
from .timed import untimed
from ...domain import Grid, Points
from ...linalg.sparse import Assembly, Sparse

MOST_STEPS = 100_000


class Timeline:
    r"""Times from the start of a window to its end, perhaps with some before it.

    Arguments:
        domain: The domain, with an axis of time.
        times: The times of the state, increasing; by default those of a grid.
        step: The longest step: longer intervals are cut into equal ones.
        spin_up: The number of steps before the window.

    Raises:
        ValueError: If the domain has no time, or the times or the step make no sense.

    Example:
        >>> line = Timeline(Grid(time=[0.0, 1.0, 3.0], x=[0.0]), step=1.0)
        >>> line.times.tolist(), line.steps.tolist()
        ([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        domain: Grid | Points,
        times: Float[Tensor, " k"] | None = None,
        step: float | None = None,
        spin_up: int = 0,
    ) -> None:
        _check(domain, times, step, spin_up)
        self.epoch, self.spin_up = domain.epoch, spin_up
        if times is None:
            times = _axis(domain, step)
        times = torch.as_tensor(times, dtype=torch.float64)
        if not (times.diff() > 0).all():
            shown = [round(v, 6) for v in times[:4].tolist()]
            msg = (
                f"AdvectionDiffusion(times=...): expected strictly increasing times, got {shown}"
                "... Sort them."
            )
            raise ValueError(msg)
        times = times if step is None else _refined(times, step)
        self.times = _before(times, step, spin_up)
        self.steps = self.times.diff()

    def __len__(self) -> int:
        return len(self.times)

    def around(self, points: Points) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
        r"""Returns the time before each point, and the weight of the next."""
        t = points.since(self.epoch).axis("time")
        first, last = self.times[self.spin_up].item(), self.times[-1].item()
        slack = 1e-9 * max(abs(first), abs(last), 1.0)
        outside = (t < first - slack) | (t > last + slack)
        if outside.any():
            worst = t[outside][0].item()
            msg = (
                f"AdvectionDiffusion(points=...): expected times within [{first:.6g}, {last:.6g}]"
                f", got {int(outside.sum())} of {len(t)} outside, e.g. {worst:.6g}. Widen the "
                "window: a grid whose times go on forecasts."
            )
            raise ValueError(msg)
        if len(self) == 1:
            return torch.zeros(len(t), dtype=torch.long), torch.zeros_like(t)
        before = (torch.searchsorted(self.times, t + slack, right=True) - 1).clamp(
            self.spin_up, len(self) - 2
        )
        weight = ((t - self.times[before]) / self.steps[before]).clamp(0.0, 1.0)
        return before, torch.where(weight < 1e-9, 0.0, torch.where(weight > 1 - 1e-9, 1.0, weight))


class Weights:
    r"""The weights of all the nodes at all times, at points; those of late are remembered.

    Arguments:
        lattice: The nodes.
        timeline: The times.
    """

    def __init__(self, lattice: Discretization, timeline: Timeline) -> None:
        self.lattice, self.timeline = lattice, timeline
        self._seen: list[tuple[Points, Sparse]] = []

    def __call__(self, points: Points) -> Sparse:
        for seen, found in self._seen:
            if seen is points or _same(seen, points):
                return found
        found = self._spread(self.lattice.interpolation(untimed(points)), points)
        self._seen = [(points, found), *self._seen[:7]]
        return found

    def _spread(self, space: Sparse, points: Points) -> Sparse:
        before, weight = self.timeline.around(points)
        rows, columns = space.pattern.rows, space.pattern.indices
        n, total = space.shape[1], space.shape[1] * len(self.timeline)
        first = before.numpy()[rows] * n + columns
        late = weight[space.pattern.row_index]
        after = np.minimum(first + n, total - 1)  # at the last time its weight is zero
        every = torch.cat([space.values * (1 - late), space.values * late])
        kept = torch.nonzero(every != 0)[:, 0]
        rows, columns = (
            np.tile(rows, 2)[kept.numpy()],
            np.concatenate([first, after])[kept.numpy()],
        )
        return Assembly(rows, columns, (space.shape[0], total))(every[kept])


def _axis(domain: Grid | Points, step: float | None) -> Float[Tensor, " k"]:
    if isinstance(domain, Grid):
        return domain.axes["time"]
    t = domain.axis("time")
    return torch.stack([t.min(), t.max()]) if t.max() > t.min() else t[:1]


def _refined(times: Float[Tensor, " k"], step: float) -> Float[Tensor, " j"]:
    counts = (times.diff() / step - 1e-9).ceil().clamp(min=1).long()
    if counts.sum() > MOST_STEPS:
        msg = (
            f"AdvectionDiffusion(step=...): expected at most {MOST_STEPS} steps, got "
            f"{int(counts.sum())}. Lengthen the step, or shorten the window."
        )
        raise ValueError(msg)
    pieces = [times[:1]]
    for start, width, count in zip(times[:-1], times.diff(), counts.tolist(), strict=True):
        pieces.append(start + width * torch.arange(1, count + 1, dtype=torch.float64) / count)
    return torch.cat(pieces)


def _before(times: Float[Tensor, " k"], step: float | None, count: int) -> Float[Tensor, " j"]:
    if count == 0:
        return times
    if len(times) == 1 and step is None:
        msg = (
            "AdvectionDiffusion(spin_up=...): expected a step with a single time, got none. "
            "Pass step=..."
        )
        raise ValueError(msg)
    width = times[1] - times[0] if len(times) > 1 else torch.tensor(step, dtype=torch.float64)
    earlier = times[0] - width * torch.arange(count, 0, -1, dtype=torch.float64)
    return torch.cat([earlier, times])


def _check(domain: Grid | Points, times: Tensor | None, step: float | None, spin_up: int) -> None:
    if "time" not in domain.dims or len(domain.dims) < 2:
        msg = (
            f"AdvectionDiffusion(domain=...): expected axes of time and space, got {domain.dims}. "
            "Name the axis of time 'time', or use WhittleMatern."
        )
        raise ValueError(msg)
    if step is not None and not (step > 0 and math.isfinite(step)):
        msg = (
            f"AdvectionDiffusion(step=...): expected a positive number, got {step}. "
            "Leave it out to step from time to time."
        )
        raise ValueError(msg)
    if spin_up < 0:
        msg = (
            f"AdvectionDiffusion(spin_up=...): expected a number of steps, got {spin_up}. "
            "Use 0 for none."
        )
        raise ValueError(msg)
    if not isinstance(domain, Grid) and times is None and step is None:
        msg = (
            "AdvectionDiffusion(domain=...): expected times or a step with scattered points, got "
            "neither. Pass step=..., e.g. a tenth of the timescale."
        )
        raise ValueError(msg)


def _same(a: Points, b: Points) -> bool:
    alike = a.dims == b.dims and a.metric == b.metric and a.epoch == b.epoch
    return alike and torch.equal(a.coords, b.coords)
