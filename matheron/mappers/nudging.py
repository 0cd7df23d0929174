r"""Back-and-forth nudging of a one-layer model: BFN-QG."""

from __future__ import annotations

__all__ = ["BackAndForth", "bfn"]

import torch

from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, NamedTuple

from .basin import A_DAY, QUARTERS, Basin, Windows
from .calibrated import Calibrated
from .problem import Mapped, Problem, Say
from ..domain import EARTH_RADIUS, Grid, Points, nearest_turn
from ..dynamics import OneLayerQG

TOLERANCE = 1e-3
"""The change of the states of a pass, over their spread, at which a window has converged."""
LEAST = 0.01
"""The weight under which a datum does not count."""


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
    duration: float = 0.4
    spread: float = 30e3
    length: int = 5
    stride: int = 2
    passes: int = 4


class Near(NamedTuple):
    r"""The data that count at a time, the nodes about them, and the nodes they count for."""

    rows: Tensor
    places: Tensor
    weights: Tensor
    into: Tensor
    of: Tensor
    share: Tensor


class BackAndForth(Calibrated):
    r"""The law of a sea that a model is nudged to data in, forward and backward in time.

    In each window the model starts from the first guess, runs forward, then backward (with the
    nudging of the same sign, and dissipation in both ways), and so on. Every quarter of a day the
    potential vorticity is drawn to that of the data,

    .. math:: q \mathrel{-}= \frac{f^2}{c^2} \, K w \, (\psi_y - \psi),

    with weights :math:`w` that fall off with the distance in space and in time. So only the
    stretching of layers is nudged: the inversion spreads it over a deformation radius. The
    border is that of the first guess. The states of the last pass forward are blended over the
    windows.

    Members are runs with perturbed data, first guess and border; their spread is made that of the
    error at passes that were held out.

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

    def __init__(self, basin: Basin, nudge: Nudge, members: int = 6, seed: int = 0) -> None:
        super().__init__(basin, members, seed)
        self.nudge = nudge
        size = min(QUARTERS * nudge.length, basin.total)
        self.windows = Windows.over(basin.total, size, QUARTERS * nudge.stride)

    def on(self, basin: Basin) -> BackAndForth:
        return BackAndForth(basin, self.nudge, self.members, self.seed)

    def run(self, y: Float[Tensor, " m"]) -> Float[Tensor, "q n"]:
        same = torch.equal(y, self.basin.y)
        return self.drive(y, self.basin.first_guess if same else self.basin.guess(y))

    def runs(self, size: int, generator: Generator | None) -> Float[Tensor, "size q n"]:
        guess, y = self.basin.simulate(size, generator)
        return self.drive(y, guess)

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        r"""The nodes about each datum at any time, and their weights."""
        axes, points = self.basin.days.axes, self.basin.observation.points
        flat = Grid(metric="sphere", lat=axes["lat"], lon=axes["lon"])
        where = Points(points.coords[:, 1:], ("lat", "lon"), metric="sphere")
        return flat.interpolation(where)

    @cached_property
    def _quarters(self) -> list[Near]:
        r"""What every quarter of a day is nudged to."""
        return [self._near(k) for k in range(self.basin.total + 1)]

    def _near(self, k: int) -> Near:
        basin, nudge = self.basin, self.nudge
        time = basin.grid.axes["time"][k]
        t = basin.observation.points.since(basin.grid.epoch).axis("time")
        age = (t - time).abs() / nudge.duration
        rows = torch.nonzero(age < 1)[:, 0]
        w = self._closeness(rows) * _gaspari_cohn(2 * age[rows])
        w = w * nudge.gain / w.sum(dim=1, keepdim=True).clamp(min=1.0)
        into, of = torch.nonzero(w > LEAST * nudge.gain, as_tuple=True)
        places, weights = self._places
        return Near(rows, places[rows], weights[rows], into, of, w[into, of])

    @cached_property
    def _steps(self) -> list[Near]:
        r"""What every step of all the windows is nudged to."""
        return [self._together(column) for column in self.windows.index.mT.tolist()]

    def _together(self, quarters: list[int]) -> Near:
        parts, start = [self._quarters[k] for k in quarters], 0
        moved = []
        for w, part in enumerate(parts):
            shift = w * self.basin.n
            moved.append(
                Near(
                    part.rows,
                    part.places + shift,
                    part.weights.to(self.basin.dtype),
                    part.into + shift,
                    part.of + start,
                    part.share.to(self.basin.dtype),
                )
            )
            start += len(part.rows)
        return Near(*(torch.cat(column) for column in zip(*moved, strict=True)))

    def _closeness(self, near: Tensor) -> Float[Tensor, "n k"]:
        points = self.basin.observation.points[near]
        lat, lon = (self.basin.days.points[: self.basin.n].axis(k) for k in ("lat", "lon"))
        north = torch.deg2rad(lat[:, None] - points.axis("lat"))
        turn = nearest_turn(lon[:, None] - points.axis("lon"))
        east = torch.deg2rad(turn) * torch.deg2rad(lat).cos()[:, None]
        far = (north.square() + east.square()) * (EARTH_RADIUS / self.nudge.spread) ** 2
        return torch.exp(-far / 2)

    def drive(
        self, y: Float[Tensor, "*batch m"], guess: Float[Tensor, "*batch q n"]
    ) -> Float[Tensor, "*batch q n"]:
        r"""Returns heights every quarter of a day, from anomalies and a first guess."""
        basin, index = self.basin, self.windows.index
        border = guess[..., index, :].to(basin.dtype)
        total = (y + basin.at_data).to(basin.dtype)
        fastest = 1.3 * basin.fastest(guess)
        forward, backward = (basin.model(fastest, way) for way in (1, -1))
        x, last = border[..., 0, :], border
        for _ in range(self.nudge.passes):
            states = self._integrate(forward, x, border, total, self._steps)
            change = (states - last).square().mean() / (states - border).square().mean()
            last = states
            if not change > TOLERANCE**2:
                break
            back = self._integrate(
                backward, states[..., -1, :], border.flip(-2), total, self._steps[::-1]
            )
            x = back[..., -1, :]
        return self.windows.blend(last.double())

    def _integrate(
        self, model: OneLayerQG, x: Tensor, border: Tensor, y: Tensor, near: list[Near]
    ) -> Tensor:
        r"""Returns the states of a pass, the first one included."""
        steps = round(A_DAY / QUARTERS / abs(model.dt))
        states, frozen = [x], model.frozen.flatten()
        for k in range(1, border.shape[-2]):
            x = model(x.unflatten(-1, self.basin.shape), steps).flatten(-2)
            x = torch.where(frozen, border[..., k, :], x)
            x = self._nudged(model, x, y, near[k])
            states.append(x)
        return torch.stack(states, dim=-2)

    def _nudged(self, model: OneLayerQG, x: Tensor, y: Tensor, near: Near) -> Tensor:
        flat = x.flatten(-2)
        seen = (flat[..., near.places] * near.weights).sum(dim=-1)
        pull = (y[..., near.rows] - seen)[..., near.of] * near.share
        pull = torch.zeros_like(flat).index_add(-1, near.into, pull)
        psi, more = (model.enter(v.reshape(*x.shape[:-1], *self.basin.shape)) for v in (x, pull))
        q = model.vorticity(psi) - model.solver.screening[:, None] * more
        return model.leave(model.invert(q, psi)).flatten(-2)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        return {"windows": len(self.windows.starts)} | super().info(y)


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
    members: int = 6,
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
