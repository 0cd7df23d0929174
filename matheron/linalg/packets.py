"""Sums of wave packets, waves in windows of a lattice, without their matrix.

A datum sees a few windows on each axis and all the waves of each scale. The rows of the matrix are
products of these few numbers, so that they are not stored but made again at each product.
"""

from __future__ import annotations

__all__ = ["PacketScale", "Packets"]

import math
import numpy as np
import torch

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float, Int
from torch import Tensor

from .compiled import compiled
from .sparse import Pattern, Sparse
from .threads import chunked, in_threads


@dataclass(frozen=True)
class PacketScale:
    """What some points see of the packets of one scale.

    Arguments:
        waves: The waves at the points, with shape (m, a).
        windows: The windows that are not zero, on each axis, with shape (m, k).
        first: The place on each axis of the first of them, with shape (m).
        shape: The number of windows on each axis.
    """

    waves: Float[Tensor, "m a"]
    windows: Sequence[Float[Tensor, "m _"]]
    first: Sequence[Int[Tensor, " m"]]
    shape: Sequence[int]

    @property
    def count(self) -> int:
        """The number of packets."""
        return math.prod(self.shape) * self.waves.shape[1]

    @property
    def width(self) -> int:
        """The number of packets that a point sees."""
        return math.prod(w.shape[1] for w in self.windows) * self.waves.shape[1]

    def take(self, rows: Int[Tensor, " r"]) -> PacketScale:
        """Return what some of the points see."""
        windows, first = [w[rows] for w in self.windows], [f[rows] for f in self.first]
        return PacketScale(self.waves[rows], windows, first, self.shape)

    def dense_windows(self, axis: int) -> Float[Tensor, "m J"]:
        """Return the windows of an axis, with their zeros."""
        w, first = self.windows[axis], self.first[axis]
        places = first[:, None] + torch.arange(w.shape[1])
        return w.new_zeros(len(w), self.shape[axis]).scatter(1, places, w)

    def covariance(self, other: PacketScale) -> Float[Tensor, "m n"]:
        """Return the covariances between two sets of points if coefficients were white."""
        K = self.waves @ other.waves.mT
        for axis in range(len(self.shape)):
            K = K * (self.dense_windows(axis) @ other.dense_windows(axis).mT)
        return K

    def variance(self) -> Float[Tensor, " m"]:
        """Return the variances at the points if coefficients were white."""
        v = self.waves.square().sum(dim=1)
        for w in self.windows:
            v = v * w.square().sum(dim=1)
        return v

    def entries(self) -> tuple[Int[Tensor, "m k"], Float[Tensor, "m k"]]:
        """Return the packets that each point sees, in order, and their values there."""
        place = torch.zeros(len(self.waves), 1, dtype=torch.long)
        value = torch.ones(len(self.waves), 1, dtype=torch.float64)
        for w, first, size in zip(self.windows, self.first, self.shape, strict=True):
            near = first[:, None] + torch.arange(w.shape[1])
            place = (place[:, :, None] * size + near[:, None]).flatten(1)
            value = (value[:, :, None] * w[:, None]).flatten(1)
        a = self.waves.shape[1]
        place = (place[:, :, None] * a + torch.arange(a)).flatten(1)
        return place, (value[:, :, None] * self.waves[:, None]).flatten(1)


class Packets:
    """The matrix from the coefficients of packets of a few scales to the field at some points.

    Arguments:
        scales: What the points see of each scale.

    Example:
        >>> one = torch.ones(2, 1, dtype=torch.float64)
        >>> scale = PacketScale(one, [one], [torch.tensor([0, 1])], [2])
        >>> (Packets([scale]) @ torch.tensor([[3.0], [5.0]]).double())[:, 0].tolist()
        [3.0, 5.0]
    """

    def __init__(self, scales: Sequence[PacketScale]) -> None:
        self.scales = scales
        self.starts = np.cumsum([0, *(s.count for s in scales)])
        self.shape = (len(scales[0].waves), int(self.starts[-1]))

    @property
    def nnz(self) -> int:
        """The number of entries that the matrix would have."""
        return self.shape[0] * sum(s.width for s in self.scales)

    def sparse(self) -> Sparse:
        """Return the matrix itself, differentiable in waves and windows."""
        found = [s.entries() for s in self.scales]
        starts = self.starts[:-1].tolist()
        places = torch.cat([p + k for (p, _), k in zip(found, starts, strict=True)], dim=1)
        values = torch.cat([v for _, v in found], dim=1)
        indptr = np.arange(self.shape[0] + 1) * places.shape[1]
        return Sparse(Pattern(indptr, places.flatten().numpy(), self.shape), values.flatten())

    @cached_property
    def _arrays(self) -> list[tuple[np.ndarray, ...]]:
        return [_three_axes(s) for s in self.scales]

    @torch.no_grad()
    def __matmul__(self, u: Float[Tensor, "N c"]) -> Float[Tensor, "m c"]:
        given = np.ascontiguousarray(u.numpy())
        out = np.zeros((self.shape[0], given.shape[1]))
        runs = chunked(self.shape[0])

        def work(k: int) -> None:
            for start, arrays in zip(self.starts, self._arrays, strict=False):
                _gather(*runs[k], start, *arrays, given, out)

        in_threads(work, len(runs))
        return torch.as_tensor(out)

    @torch.no_grad()
    def adjoint(self, y: Float[Tensor, "m c"]) -> Float[Tensor, "N c"]:
        """Return A' y."""
        given = np.ascontiguousarray(y.numpy())
        out = np.zeros((self.shape[1], given.shape[1]))
        work = lambda k: _scatter(self.starts[k], *self._arrays[k], given, out)
        in_threads(work, len(self.scales))
        return torch.as_tensor(out)

    @torch.no_grad()
    def blocks(self, weights: Float[Tensor, " m"]) -> list[Float[Tensor, "w a a"]]:
        """Return, for each scale, the blocks of A' diag(weights) A of one window each."""
        given = np.ascontiguousarray(weights.numpy())
        sizes = [(math.prod(s.shape), s.waves.shape[1]) for s in self.scales]
        out = [np.zeros((w, a, a)) for w, a in sizes]
        in_threads(lambda k: _block(*self._arrays[k], given, out[k]), len(self.scales))
        return [torch.as_tensor(b) for b in out]

    @torch.no_grad()
    def gram(self, weights: Float[Tensor, " m"]) -> Float[Tensor, "N N"]:
        """Return A' diag(weights) A, dense: for few packets."""
        out = np.zeros((self.shape[1], self.shape[1]))
        runs = chunked(self.shape[1])
        for rows in torch.arange(self.shape[0]).split(2000):
            given = (*self._entries(rows), np.ascontiguousarray(weights[rows].numpy()))
            work = lambda k, given=given: _square(*runs[k], *given, out)
            in_threads(work, len(runs))
        lower = torch.as_tensor(out)
        return lower + lower.tril(-1).mT

    def _entries(self, rows: Int[Tensor, " r"]) -> tuple[np.ndarray, np.ndarray]:
        part = [s.take(rows).entries() for s in self.scales]
        starts = self.starts[:-1].tolist()
        places = torch.cat([p + k for (p, _), k in zip(part, starts, strict=True)], dim=1)
        return places.numpy(), torch.cat([v for _, v in part], dim=1).detach().numpy()


def _three_axes(scale: PacketScale) -> tuple[np.ndarray, ...]:
    """Return a scale as arrays on three axes, the first ones perhaps of one window."""
    m, missing = len(scale.waves), 3 - len(scale.shape)
    windows = [np.ones((m, 1))] * missing + [w.detach().numpy() for w in scale.windows]
    first = [np.zeros(m, dtype=np.int64)] * missing + [f.numpy() for f in scale.first]
    sizes = np.array([1] * missing + list(scale.shape))
    arrays = (scale.waves.detach().numpy(), *windows, np.stack(first, axis=1))
    return (*(np.ascontiguousarray(a) for a in arrays), sizes)


@compiled
def _gather(lo, hi, start, waves, wt, wy, wx, first, sizes, u, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    na = waves.shape[1]
    for i in range(lo, hi):
        for p in range(wt.shape[1]):
            for q in range(wy.shape[1]):
                row = ((first[i, 0] + p) * sizes[1] + first[i, 1] + q) * sizes[2] + first[i, 2]
                for r in range(wx.shape[1]):
                    w = wt[i, p] * wy[i, q] * wx[i, r]
                    at = start + (row + r) * na
                    if w == 0.0:
                        continue
                    if u.shape[1] == 1:
                        s = 0.0
                        for a in range(na):
                            s += waves[i, a] * u[at + a, 0]
                        out[i, 0] += w * s
                    else:
                        for a in range(na):
                            s = w * waves[i, a]
                            for c in range(u.shape[1]):
                                out[i, c] += s * u[at + a, c]


@compiled
def _scatter(start, waves, wt, wy, wx, first, sizes, y, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    na = waves.shape[1]
    for i in range(len(waves)):
        for p in range(wt.shape[1]):
            for q in range(wy.shape[1]):
                row = ((first[i, 0] + p) * sizes[1] + first[i, 1] + q) * sizes[2] + first[i, 2]
                for r in range(wx.shape[1]):
                    w = wt[i, p] * wy[i, q] * wx[i, r]
                    at = start + (row + r) * na
                    if w == 0.0:
                        continue
                    for a in range(na):
                        s = w * waves[i, a]
                        for c in range(y.shape[1]):
                            out[at + a, c] += s * y[i, c]


@compiled
def _block(waves, wt, wy, wx, first, sizes, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    na = waves.shape[1]
    for i in range(len(waves)):
        for p in range(wt.shape[1]):
            for q in range(wy.shape[1]):
                row = ((first[i, 0] + p) * sizes[1] + first[i, 1] + q) * sizes[2] + first[i, 2]
                for r in range(wx.shape[1]):
                    w = wt[i, p] * wy[i, q] * wx[i, r]
                    if w == 0.0:
                        continue
                    for a in range(na):
                        s = weights[i] * w * w * waves[i, a]
                        for b in range(na):
                            out[row + r, a, b] += s * waves[i, b]


@compiled
def _square(lo, hi, places, values, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in range(len(places)):
        start = np.searchsorted(places[i], lo)
        stop = np.searchsorted(places[i], hi)
        for p in range(start, stop):
            row, s = places[i, p], weights[i] * values[i, p]
            if s == 0.0:
                continue
            for q in range(p + 1):
                out[row, places[i, q]] += s * values[i, q]
