r"""Back-and-forth nudging of a one-layer model: BFN-QG."""

from __future__ import annotations

__all__ = ["BackAndForth", "bfn"]

import torch

from collections.abc import Iterator
from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .basin import QUARTERS, Basin, Windows
from .calibrated import Calibrated
from .problem import Mapped, Problem, Say
from ..domain import EARTH_RADIUS
from ..dynamics import OneLayerQG

TOLERANCE = 1e-3
"""The change of the states of a pass, over their spread, at which a window has converged."""


@dataclass(frozen=True)
class Nudge:
    r"""How the model is drawn to the data.

    Arguments:
        gain: The share :math:`K` of the difference that is taken off, every quarter of a day.
        duration: The days :math:`\tau` to each side of a datum in which it counts.
        spread: The distance over which a datum counts, in metres.
        length: The days of a window.
        stride: The days from one window to the next.
        passes: The most passes forward and backward.
    """

    gain: float = 0.7
    duration: float = 1.0
    spread: float = 10e3
    length: int = 7
    stride: int = 2
    passes: int = 8


class BackAndForth(Calibrated):
    r"""The law of a sea that a model is nudged to data in, forward and backward in time.

    In each window the model starts from the first guess, runs forward, then backward (with the
    nudging of the same sign, and dissipation in both ways), and so on. Every quarter of a day the
    potential vorticity is drawn to that of the data,

    .. math:: q \mathrel{-}= \frac{f^2}{c^2} \, K w \, (\psi_y - \psi),

    with weights :math:`w` that fall off with the distance in space and in time. So only the
    stretching of layers is nudged: the inversion spreads it over a deformation radius. The
    border is that of the first guess. The states of the last pass forward are blended.

    Members are runs with perturbed data, first guess and border; their spread is scaled such that
    it matches the error at passes that were held out.

    References:
        | Mapping altimetry in the forthcoming SWOT era by back-and-forth nudging a one-layer
        | quasigeostrophic model (Le Guillou et al., 2021)
        | https://doi.org/10.1175/JTECH-D-20-0104.1

    Arguments:
        basin: The sea and its data.
        nudge: How it is nudged.
        members: The runs that the std is from.
        seed: The seed of the runs that calibrate it.
    """

    def __init__(self, basin: Basin, nudge: Nudge, members: int = 8, seed: int = 0) -> None:
        super().__init__(basin, members, seed)
        self.nudge = nudge
        size = min(QUARTERS * nudge.length, basin.total)
        self.windows = Windows.over(basin.total, size, QUARTERS * nudge.stride)

    def on(self, basin: Basin) -> BackAndForth:
        return BackAndForth(basin, self.nudge, self.members, self.seed)

    def run(self, y: Float[Tensor, " m"]) -> Float[Tensor, "q n"]:
        return self.drive(y, self.basin.guess(y))

    def runs(self, size: int, generator: Generator | None) -> Float[Tensor, "size q n"]:
        guess, y = self.basin.simulate(size, generator)
        return self.drive(y, guess)

    def _weights(self) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Yields for each quarter the data that count then, and their weight at every node."""
        basin, nudge = self.basin, self.nudge
        t = basin.observation.points.since(basin.grid.epoch).axis("time")
        for time in basin.grid.axes["time"]:
            age = (t - time).abs() / nudge.duration
            near = torch.nonzero(age < 1)[:, 0]
            yield near, self._closeness(near) * _gaspari_cohn(2 * age[near])

    def _spread(self, y: Float[Tensor, "*batch m"]) -> tuple[Tensor, Tensor]:
        r"""Returns the data about every quarter and node, and how much they count there."""
        values, largest = [], []
        for near, w in self._weights():
            values.append((y[..., near] @ w.mT) / w.sum(dim=1).clamp(min=1e-12))
            largest.append(w.amax(dim=1) if len(near) else y.new_zeros(self.basin.n))
        return torch.stack(values, dim=-2), torch.stack(largest)

    def _closeness(self, near: Tensor) -> Float[Tensor, "n k"]:
        points = self.basin.observation.points[near]
        lat, lon = (self.basin.days.points[: self.basin.n].axis(k) for k in ("lat", "lon"))
        north = torch.deg2rad(lat[:, None] - points.axis("lat"))
        turn = torch.remainder(lon[:, None] - points.axis("lon") + 180.0, 360.0) - 180.0
        east = torch.deg2rad(turn) * torch.deg2rad(lat).cos()[:, None]
        far = (north.square() + east.square()) * (EARTH_RADIUS / self.nudge.spread) ** 2
        return torch.exp(-far / 2)

    def drive(
        self, y: Float[Tensor, "*batch m"], guess: Float[Tensor, "*batch q n"]
    ) -> Float[Tensor, "*batch q n"]:
        r"""Returns heights every quarter of a day, from anomalies and a first guess."""
        basin, index = self.basin, self.windows.index
        shape = (*guess.shape[:-2], *index.shape, *basin.shape)
        border = guess[..., index, :].reshape(shape).to(basin.dtype)
        values, weight = self._spread(y)
        target = (values + basin.mean)[..., index, :].reshape(shape).to(basin.dtype)
        pull = (self.nudge.gain * weight)[index].unflatten(-1, basin.shape).to(basin.dtype)
        fastest = 1.3 * basin.fastest(guess)
        ways = [basin.model(fastest, way) for way in (1, -1)]
        x, last = border[..., 0, :, :], border
        count = index.shape[1] - 1
        for _ in range(self.nudge.passes):
            states = self._integrate(ways[0], x, border, target, pull)
            change = (states - last).square().mean().sqrt() / (states - border).std().clamp(1e-9)
            last = states
            if change < TOLERANCE:
                break
            back = [v.flip(-3) for v in (border, target, pull)]
            x = self._integrate(ways[1], states[..., count, :, :], *back)[..., count, :, :]
        return self.windows.blend(last.double().flatten(-2))

    def _integrate(
        self, model: OneLayerQG, x: Tensor, border: Tensor, target: Tensor, pull: Tensor
    ) -> Tensor:
        r"""Returns the states of a pass, the first one included."""
        steps = round(86400 / QUARTERS / abs(model.dt))
        states = [x]
        for k in range(1, border.shape[-3]):
            x = torch.where(model.frozen, border[..., k, :, :], model(x, steps))
            x = _nudged(model, x, target[..., k, :, :], pull[..., k, :, :])
            states.append(x)
        return torch.stack(states, dim=-3)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {"windows": len(self.windows.starts)} | super().info(y)


def _nudged(model: OneLayerQG, x: Tensor, target: Tensor, pull: Tensor) -> Tensor:
    psi = model.enter(x)
    stretching = model.solver.screening[:, None] * pull * (model.enter(target) - psi)
    return model.leave(model.invert(model.vorticity(psi) - stretching, psi))


def _gaspari_cohn(r: Tensor) -> Tensor:
    r"""Returns the compact approximation of a Gaussian, zero from 2 on."""
    near = 1 - r**2 * (5 / 3 - 5 / 8 * r - r**2 / 2 + r**3 / 4)
    s = r.clamp(min=1e-9)
    far = 4 - 5 * s + s**2 * (5 / 3 + 5 / 8 * s - s**2 / 2 + s**3 / 12) - 2 / (3 * s)
    return torch.where(r < 1, near, far.clamp(min=0))


def bfn(
    problem: Problem,
    say: Say,
    *,
    nudge: Nudge | None = None,
    spacing: float = 0.2,
    speed: float = 2.7,
    members: int = 8,
) -> Mapped:
    r"""A one-layer quasi-geostrophic model, nudged back and forth to the data (BFN-QG).

    Its border and first guess are an optimal interpolation.

    Arguments:
        problem: The problem.
        say: Where to say what is found.
        nudge: How the model is nudged, and in which windows.
        spacing: The width of a cell of the model, in degrees.
        speed: The speed :math:`c` of long internal waves, in metres per second.
        members: The runs that the std is from.
    """
    basin = Basin(problem, say, spacing, speed)
    law = BackAndForth(basin, nudge or Nudge(), members, problem.seed)
    return Mapped(law(basin.y), problem.shift, {"windows": len(law.windows.starts)})
