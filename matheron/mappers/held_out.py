r"""Scales and spread that predict what is held out: passes, or what clouds might have hidden."""

from __future__ import annotations

__all__ = ["Chosen", "Covariance", "HeldOut", "leave_out", "pieces", "search"]

import math
import torch

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Tensor

from .problem import Problem, thinned
from ..domain import Points

Covariance = Callable[[float, Points], Tensor]
"""The covariance of the field at some points, as seen at a time."""

SIZE = 1100
"""The most data of a window, unless told otherwise."""
HALF = 6.5
"""The days to each side of a window."""
OWN = 1.5
"""The days to each side of its middle in which pieces are held out."""
WINDOWS = 5
"""Windows, unless told otherwise."""
FINEST = 0.1
"""The finest spacing of the data of a window, in degrees."""
STEP, LEAST = 0.25, 0.1
"""The first and the last step of a search, in logarithms."""
GAIN = 1e-3
"""The least gain, of the cost, for which a search moves."""
AWAY = 5
"""Images from one to that whose clouds are laid on it."""


def leave_out(
    S: Float[Tensor, "m m"], y: Float[Tensor, " m"], held: list[Int[Tensor, " _"]]
) -> tuple[Float[Tensor, " h"], Float[Tensor, " h"]]:
    r"""Returns the errors at pieces of the data, each predicted from all others, and variances.

    With :math:`Q = S^{-1}` and a piece :math:`p`, in closed form

    .. math:: y_p - \operatorname{E}[y_p \mid y_{-p}] = Q_{pp}^{-1} (Q y)_p, \qquad
        \operatorname{Var}[y_p \mid y_{-p}] = Q_{pp}^{-1}

    References:
        | Cross validation of kriging in a unique neighborhood (Dubrule, 1983)
        | https://doi.org/10.1007/BF01033232

    Arguments:
        S: The covariance of the data, with their noise.
        y: The data.
        held: The data of each piece.

    Example:
        >>> S = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
        >>> e, v = leave_out(S, torch.tensor([2.0, 1.0]).double(), [torch.tensor([1])])
        >>> e.item(), v.item()  # 1 - 2 / 2, 1 - 1 / 4
        (0.0, 0.75)
    """
    L = torch.linalg.cholesky(S)
    rows = torch.cat(held)
    W = torch.linalg.solve_triangular(L, torch.eye(len(S)).to(S)[:, rows], upper=False)
    z = torch.linalg.solve_triangular(L, y[:, None], upper=False)
    Q, b = W.mT @ W, (W.mT @ z)[:, 0]
    errors, variances = [], []
    for own in torch.arange(len(rows)).split([len(p) for p in held]):
        C = torch.linalg.inv(Q[own][:, own])
        errors.append(C @ b[own])
        variances.append(C.diagonal())
    return torch.cat(errors), torch.cat(variances)


def pieces(problem: Problem, spacing: float) -> Int[Tensor, " m"]:
    r"""Returns the piece of each datum that can be held out, -1 for those that cannot.

    Pieces of tracks are passes. Those of images are what they would not show under the clouds of
    another day. Those of data of one time are the data.

    Arguments:
        problem: The problem.
        spacing: The width of the cells in which images are compared, in degrees.
    """
    if problem.passes is not None:
        return problem.passes
    x = problem.points.since(problem.grid.epoch)
    times, when = x.axis("time").unique(return_inverse=True)
    if len(times) == 1:
        return torch.arange(len(problem))
    cells = torch.stack([(x.axis(k) / spacing).floor() for k in ("lat", "lon")], dim=-1)
    _, where = cells.unique(dim=0, return_inverse=True)
    seen = torch.zeros(len(times), int(where.max()) + 1, dtype=torch.bool)
    seen[when, where] = True
    other = seen.roll(min(AWAY, len(times) // 2), dims=0)
    return torch.where(other[when, where], -1, when)


@dataclass(frozen=True)
class _Window:
    r"""Data about a time, and the pieces of them that are held out."""

    time: float
    data: Problem
    held: list[Tensor]


@dataclass(frozen=True)
class Chosen:
    r"""Scales that were chosen, and what the errors at held-out pieces say of the variance.

    Arguments:
        scales: The scales, by name.
        noise: The std of the noise beside that of the instruments: the unresolved field.
        factor: The factor of all variances.
        error: The error at what was held out.
    """

    scales: dict[str, float]
    noise: float
    factor: float
    error: float

    @property
    def unresolved(self) -> float:
        r"""The std of the unresolved field, at its right size."""
        return self.noise * self.factor**0.5

    def words(self) -> str:
        r"""Returns them in words."""
        scales = ", ".join(f"{k} {v:.4g}" for k, v in self.scales.items())
        return (
            f"{scales}, unresolved std {self.unresolved:.3g}, held-out error {self.error:.4g}, "
            f"variances times {self.factor:.3g}"
        )


class HeldOut:
    r"""Pieces of the data held out, in windows about a few times.

    All pieces near the middle of a window are held out in turn, each predicted from all the other
    data of its window. Data are thinned, not averaged: they are to be as the field is.

    Arguments:
        problem: The problem.
        own: The variance of the error of its instruments, where the problem does not tell it.
        bias: The variance of the bias of each instrument.
        windows: The number of windows, over the time of the map.
        size: The most data of a window.
    """

    def __init__(
        self,
        problem: Problem,
        own: float = 0.0,
        bias: float = 0.0,
        windows: int = WINDOWS,
        size: int = SIZE,
    ) -> None:
        self.own, self.bias = own, bias
        every = [_window(problem, t, size) for t in _times(problem, windows)]
        self.windows = [w for w in every if w.held]

    @torch.no_grad()
    def errors(self, covariance: Covariance, noise: float) -> tuple[Tensor, Tensor]:
        r"""Returns the errors at what is held out, and their variances, noise included.

        Arguments:
            covariance: The covariance of the field.
            noise: The std of the noise beside that of the instruments.
        """
        found = [
            leave_out(self._law(w, covariance, noise), w.data.anomalies, w.held)
            for w in self.windows
        ]
        errors, variances = zip(*found, strict=True)
        return torch.cat(errors), torch.cat(variances)

    def judge(self, covariance: Covariance, noise: float) -> tuple[float, float]:
        r"""Returns the root mean square of the errors, and that of z-scores, squared.

        The latter is the factor of all variances that makes it one. Where nothing can be held
        out (a single pass), they are not a number and one.

        Arguments:
            covariance: The covariance of the field.
            noise: The std of the noise beside that of the instruments.
        """
        if not self.windows:
            return math.nan, 1.0
        e, v = self.errors(covariance, noise)
        return e.square().mean().sqrt().item(), (e.square() / v).mean().item()

    def _law(self, window: _Window, covariance: Covariance, noise: float) -> Tensor:
        data = window.data
        S = covariance(window.time, data.points)
        if self.bias and data.groups is not None:
            S = S + self.bias * (data.groups[:, None] == data.groups)
        own = self.own if data.noise is None else data.noise.square()
        return S + (own + noise**2) * torch.eye(len(data), dtype=torch.float64)

    def choose(
        self,
        covariance: Callable[[Mapping[str, float]], Covariance],
        start: Mapping[str, float],
        noise: float,
        step: float = STEP,
    ) -> Chosen:
        r"""Returns the scales and the noise of least error, and the factor of the variances.

        The mean of squares of the errors over their std is one by the factor: neither the field
        nor the noise is larger than the errors tell, and the mean is the same. Where nothing can
        be held out (a single pass), scales and noise are those to start from.

        Arguments:
            covariance: The covariance for given scales.
            start: The scales to start from.
            noise: The std of the noise to start from.
            step: The first step, in logarithms.
        """

        def cost(x: Mapping[str, float]) -> float:
            return self.judge(covariance(x), x["noise"])[0]

        best, _ = search(cost, {**start, "noise": noise}, step)
        error, factor = self.judge(covariance(best), best["noise"])
        scales = {k: v for k, v in best.items() if k != "noise"}
        return Chosen(scales, best["noise"], factor, error)


def _times(problem: Problem, count: int) -> list[float]:
    t = problem.grid.axes["time"]
    parts = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return sorted({round(v, 6) for v in torch.quantile(t, parts).tolist()})


def _window(problem: Problem, time: float, size: int) -> _Window:
    near, spacing = problem.near(time - HALF, time + HALF), FINEST
    if len(near) == 0:
        return _Window(time, near, [])
    data = thinned(near, spacing)
    while len(data) > size:
        spacing *= 1.2
        data = thinned(near, spacing)
    label = pieces(data, spacing)
    inside = (data.points.since(problem.grid.epoch).axis("time") - time).abs() < OWN
    held = [torch.nonzero(inside & (label == k))[:, 0] for k in label[inside].unique() if k >= 0]
    return _Window(time, data, [p for p in held if len(p) < len(data)])


def search(
    cost: Callable[[Mapping[str, float]], float], start: Mapping[str, float], step: float = STEP
) -> tuple[dict[str, float], float]:
    r"""Returns positive numbers of least cost near to some, by a search along each in turn.

    Example:
        >>> best, least = search(lambda x: abs(math.log(x["a"] / 3)), {"a": 1.0})
        >>> 2.7 < best["a"] < 3.3
        True
    """
    best, least = dict(start), cost(start)
    towards = dict.fromkeys(start, 1.0)  # the way that was good last is tried first
    while step >= LEAST:
        moved = False
        for name in start:
            for way in (towards[name], -towards[name]):
                size = 3 * step if name == "noise" else step
                found = {**best, name: best[name] * math.exp(way * size)}
                value = cost(found)
                if value < (1 - GAIN) * least:
                    best, least, towards[name], moved = found, value, way, True
                    break
        step = step if moved else step / 2
    return best, least
