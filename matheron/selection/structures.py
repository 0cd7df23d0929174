r"""The covariances and the trends to choose from."""

from __future__ import annotations

__all__ = ["Maker", "candidates", "extents", "plane_trend"]

import functools
import math
import torch

from collections.abc import Callable, Sequence

from ..domain import Points
from ..kernels import Gaussian, Kernel, Matern, separable
from ..priors import Trend

Maker = Callable[[], Kernel]


def extents(points: Points) -> tuple[float, list[float]]:
    r"""Returns the extent of time (zero without), and those of the space axes."""
    x = points.local()
    low, high = (0.05, 0.95) if len(x) > 4 else (0.0, 1.0)
    span = x.quantile(high, dim=0) - x.quantile(low, dim=0)
    spans = span.tolist()[: -1 if points.metric == "sphere" else None]
    time = (spans.pop(0) or 1.0) if "time" in points.dims else 0.0
    widest = max(spans, default=0.0) or 1.0
    return time, [s if s > 1e-6 * widest else widest for s in spans]  # data along one axis


def candidates(points: Points, variance: float) -> dict[str, Maker]:
    r"""Returns the kernels to try on some points, by name, at their first guess.

    The more data there are, the more scales are tried: two from 400 data on, three from 4000. With
    fewer than 1000, isotropic kernels are among them.

    Example:
        >>> list(candidates(Points(x=[0.0, 1.0, 2.0]), 1.0))[:2]
        ['Matern 1/2', 'Matern 3/2']
    """
    time, spans = extents(points)
    if time > 0 and spans:
        return _space_time(time, spans, _spacing(points), variance)
    every = _in_space(spans or [time], variance)
    m = len(points)
    scales = 1 if m < 400 else (2 if m < 4_000 else 3)
    tried = {k: v for k, v in every.items() if _scales(k) <= scales}
    if m < 1_000 and len(spans) > 1:
        start = 0.1 * math.exp(sum(math.log(v) for v in spans) / len(spans))
        for nu, name in ((0.5, "isotropic Matern 1/2"), (1.5, "isotropic Matern 3/2")):
            tried[name] = functools.partial(Matern, nu, variance, start)
    return tried


def _scales(name: str) -> int:
    return 3 if name.startswith("three") else name.count("+") + 1


def _spacing(points: Points) -> float:
    r"""Returns the median distance in space from a datum to the next in time, or the nearest."""
    x = points.local()
    x = x[torch.argsort(x[:, 0])][:, 1:]
    step = x.diff(dim=0).norm(dim=1)
    step = step[step > 0]
    return step.median().item() if len(step) else 1.0


def _in_space(spans: Sequence[float], variance: float) -> dict[str, Maker]:
    def part(nu: float, share: float, scale: float, free: bool = False) -> Matern:
        if len(spans) == 1:
            return Matern(nu, share * variance, scale * spans[0], learn_nu=free)
        lengths = [scale * s for s in spans]
        middle = math.exp(sum(math.log(v) for v in lengths) / len(lengths))
        angles = 0.0 if len(spans) == 2 else (0.0, 0.0, 0.0)
        lengths = [middle * (1 - 0.05 * i) for i in range(len(spans))]
        return Matern(nu, share * variance, lengths, angles, learn_nu=free)

    return {
        "Matern 1/2": lambda: part(0.5, 1.0, 0.2),
        "Matern 3/2": lambda: part(1.5, 1.0, 0.1),
        "Matern of free smoothness": lambda: part(0.8, 1.0, 0.1, free=True),
        "Matern 1/2 + Matern 1/2": lambda: part(0.5, 0.6, 0.4) + part(0.5, 0.4, 0.05),
        "Matern 1/2 + Matern 3/2": lambda: part(0.5, 0.7, 0.3) + part(1.5, 0.3, 0.02),
        "Matern 3/2 + Matern 3/2": lambda: part(1.5, 0.7, 0.2) + part(1.5, 0.3, 0.03),
        "three Matern 3/2": lambda: (
            part(1.5, 0.5, 0.3) + part(1.5, 0.3, 0.05) + part(1.5, 0.2, 0.01)
        ),
    }


def _space_time(
    time: float, spans: Sequence[float], spacing: float, variance: float
) -> dict[str, Maker]:
    middle = math.exp(sum(math.log(s) for s in spans) / len(spans))
    fine = min(2 * spacing, middle / 20)

    def joint(share: float, scale: float, duration: float) -> Kernel:
        return Matern(1.5, share * variance, [duration * time, *(scale * middle for _ in spans)])

    def over_time(nu: float, duration: float) -> Matern:
        kernel = Matern(nu, 1.0, duration * time, axes="time")
        kernel.log_variance.requires_grad_(False)  # that of the space kernel says it
        return kernel

    def apart(
        nus: tuple[float, float], share: float, scale: float, duration: float, free: bool = False
    ) -> Kernel:
        space = Matern(nus[1], share * variance, scale * middle, axes="space", learn_nu=free)
        return separable(over_time(nus[0], duration), space)

    def passing() -> Kernel:
        r"""What one pass sees and no other: errors along the track, waves too quick to map."""
        space = Gaussian(0.1 * variance, fine, axes="space")
        return separable(over_time(0.5, 0.003), space)

    return {
        "Matern 3/2 of space-time": lambda: joint(1.0, 0.1, 0.5),
        "separable, time 1/2, space 3/2": lambda: apart((0.5, 1.5), 1.0, 0.1, 1.0),
        "two separable scales": lambda: (
            apart((1.5, 1.5), 0.6, 0.06, 1.0) + apart((0.5, 1.5), 0.4, 0.3, 1.0)
        ),
        "space-time + errors along the track": lambda: joint(0.9, 0.08, 0.7) + passing(),
        "two separable scales + errors along the track": lambda: (
            apart((1.5, 2.0), 0.5, 0.05, 1.0, True) + apart((0.5, 1.5), 0.4, 0.25, 1.0) + passing()
        ),
    }


def plane_trend(points: Points) -> str:
    r"""Returns a plane over the axes of space, of those terms that the data can tell apart."""
    axes = [d for d in points.dims if d not in {"time", "z", "depth"}]
    terms = ["1"]
    for axis in axes if len(points) >= 5 * (1 + len(axes)) else ():
        F = Trend(" + ".join([*terms, axis]), points).design(points)
        F = F / F.norm(dim=0).clamp(min=1e-300)
        if torch.linalg.matrix_rank(F, rtol=1e-6) == F.shape[1]:
            terms.append(axis)
    return " + ".join(terms)
