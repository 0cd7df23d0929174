"""Real altimetry over the Mediterranean: parameters that vary in space, learned from the data.

    python mediterranean_joint.py [--missions al,h2,j2] [--transfer al]

As in ``mediterranean_spde.py missions``, each mission in turn is predicted from the two others, by
the sum of two fields and of errors along the track. The sea is mapped in two basins, apart. The
parameters of the finer field are

- constants of each basin, by the likelihood of the missions that are mapped, with all others;
- the constants of the other basin, noise included: what a region is worth to another;
- fields: the standard deviation, the timescale and the lengthscales along both axes, by the
  likelihood of the same data and their own law (``AugmentedSPDE``), the rest kept; or the standard
  deviation alone. No truth and no map is read.

Transfer in time, for some missions: parameters of the first ten days are used for the last ten,
beside those that are learned there. Standard errors are those of the paired differences of CRPS
to the constants, over passes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
import torch

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish
from mediterranean_spde import DAYS, Known, Model, even, scores, sea, tracks

import matheron as mt

from matheron.data import Observations
from matheron.domain import Grid
from matheron.metrics.scores import crps_gaussian
from matheron.priors.spde import AugmentedSPDE, Spread

STEP = 0.24
"""The step of the lattice in degrees: half a basin is one factor of a gigabyte."""
BASINS = {"west": (-7.0, 14.0), "east": (14.0, 38.0)}
HALO = 2.0
"""How far data and lattice go beyond a basin, in degrees of longitude."""
EVERY, SMOOTHNESS = 10, 400e3
"""The steps between the nodes of parameters, and the lengthscale of their fields in metres."""
WAYS = {"std": Spread(0.4, 0.0, 0.0, 0.0, 0.0), "fields": Spread(0.4, 0.3, 0.3, 0.0, 0.0)}
"""Velocities and ellipses that are not along the axes ask for four times the neighbours."""


@cache
def every() -> Observations:
    """Returns the data of all missions."""
    return tracks()


@dataclass(frozen=True)
class Window:
    """A basin over some days, from some of the missions: what is mapped, and what is asked."""

    basin: str
    mission: str
    first: float
    last: float

    @property
    def data(self) -> Observations:
        return every()

    @property
    def out(self) -> torch.Tensor:
        """The mission that is left out."""
        assert self.data.groups is not None
        return self.data.groups.codes == self.data.groups.labels.index(self.mission)

    def inside(self, halo: float) -> torch.Tensor:
        """Returns which data are in the basin, and in the days."""
        (west, east), lon = BASINS[self.basin], self.data.points.axis("lon")
        t = self.data.points.axis("time")
        near = (lon >= west - halo) & (lon < east + halo)
        return near & (t >= self.first) & (t <= self.last)

    @property
    def asked(self) -> torch.Tensor:
        return self.out & self.inside(0.0)

    def grid(self) -> Grid:
        (west, east), space = BASINS[self.basin], sea(self.data.points, STEP, 1)
        lon = space.axes["lon"]
        near = (lon >= west - HALO - STEP) & (lon <= east + HALO + STEP)
        times = self.first + even(self.last - self.first, DAYS)
        assert space.mask is not None
        mask = space.unflatten(torch.ones(len(space))).nan_to_num(0.0)[:, near] > 0
        wet = mask.expand(len(times), -1, -1).clone()
        axes = {"time": times, "lat": space.axes["lat"], "lon": lon[near]}
        return Grid(**axes, mask=wet, metric="sphere", epoch=self.data.points.epoch)

    def model(self) -> Model:
        return Model(self.data, self.inside(HALO) & ~self.out, self.grid())


class Joint:
    """The model with fields of parameters about the constants of another."""

    def __init__(self, model: Model, spread: Spread) -> None:
        fine, *self.others = model.prior.parts
        self.model, self.solver = model, mt.SparseCholesky()
        self.prior = AugmentedSPDE(
            model.grid,
            fine.kernel.lengthscale.item(),
            fine.timescale.item(),
            fine.kernel.variance.sqrt().item(),
            spread=spread,
            every=EVERY,
            smoothness=SMOOTHNESS,
            color=fine.form.color,
            damping="uniform",
            margin=1.0,
            interpolation="cubic",
        )

        start = self.prior.given(self.prior.constants()[0])
        self.sum = mt.MarkovSum(start, *self.others, trend="1 + lat + lon")

    def law(self, theta: torch.Tensor) -> mt.MarkovSum:
        """Returns one and the same sum, so that its patterns are analysed once."""
        self.sum.parts[0] = self.prior.given(theta)
        return self.sum

    def learned(self, steps: int) -> torch.Tensor:
        """Returns the likeliest fields."""
        model = self.model
        model.prior.requires_grad_(False)
        model.seen.requires_grad_(False)
        evidence = self.solver.likelihood(self.sum, model.seen, model.y)

        def cost(theta: torch.Tensor) -> torch.Tensor:
            self.law(theta)
            value = evidence.value()
            print(f"  log-likelihood {value.item():.1f}", flush=True)
            return -value

        return self.prior.likeliest(cost, steps=steps)

    @torch.no_grad()
    def at(self, points: mt.Points, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and std of the field."""
        posterior = self.solver(self.law(theta).on(points), self.model.seen)(self.model.y)
        return posterior.mean, posterior.std()


def told(prior: AugmentedSPDE, theta: torch.Tensor) -> str:
    """Returns the range of the parameters over the sea."""
    p = prior.parameters_of(theta)
    long = torch.linalg.det(p.square) ** 0.25 / 1e3
    ends = lambda v: "{:.3g} to {:.3g}".format(*v.quantile(v.new_tensor([0.05, 0.95])).tolist())
    return f"std {ends(100 * p.std)} cm, length {ends(long)} km, time {ends(p.timescale)} days"


def fitted(window: Window) -> tuple[Known, float]:
    """Returns the likeliest constants, and the seconds that they took."""
    start = time.process_time()
    model = window.model()
    model.fit()
    return model.parameters(), time.process_time() - start


def predicted(
    window: Window, known: Known, way: str, steps: int, learn: Window | None = None
) -> tuple[list[list[float]], float]:
    """Returns mean, std, truth and pass of the data that are asked for, and the seconds.

    Arguments:
        window: What is asked.
        known: The constants.
        way: Which parameters vary, learned from the window; none of them if it is empty.
        steps: The steps of their learning.
        learn: Another window to learn from.
    """
    start, data, at = time.process_time(), window.data, window.asked
    model, places = window.model().like(known), window.data.points[window.asked]
    if way:
        teacher = model if learn is None else learn.model().like(known)
        joint = Joint(teacher, WAYS[way])
        theta = joint.learned(steps)
        print(f"{window.basin}, {way}: {told(joint.prior, theta)}", flush=True)
        joint = joint if learn is None else Joint(model, WAYS[way])
    mean, std = joint.at(places, theta) if way else model.at(places)
    assert data.passes is not None
    piece = [mean, (std.square() + model.noise).sqrt(), data.values[at], data.passes[at].double()]
    return torch.stack(piece, dim=-1).tolist(), time.process_time() - start


class Apart:
    """Calls in processes of their own, one after the other: factors fill most of the memory.

    Arguments:
        kept: A file where constants are kept, for a run that goes on.
    """

    def __init__(self, kept: Path | None) -> None:
        self.kept = kept
        self.known: dict[str, tuple[Known, float]] = {}
        if kept is not None and kept.exists():
            self.known = json.loads(kept.read_text(encoding="utf-8"))

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> Any:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, torch.set_num_threads, (1,)) as pool:
            return pool.apply(call, arguments)

    def constants(self, window: Window) -> tuple[Known, float]:
        """Returns the likeliest constants of a window, and the seconds that they took."""
        key = repr(window)
        if key not in self.known:
            self.known[key] = self(fitted, window)
            if self.kept is not None:
                self.kept.write_text(json.dumps(self.known), encoding="utf-8")
        return self.known[key]


@dataclass
class Found:
    """Predictions of a mission, basin by basin."""

    pieces: list[list[list[float]]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, found: tuple[list[list[float]], float], before: float = 0.0) -> None:
        self.pieces.append(found[0])
        self.seconds += found[1] + before

    def whole(self) -> torch.Tensor:
        rows = [row for piece in self.pieces for row in piece]
        return torch.tensor(rows, dtype=torch.float64)

    def crps(self) -> torch.Tensor:
        mean, std, truth, _ = self.whole()[..., None].unbind(dim=1)
        return crps_gaussian(mean, std, truth)

    def row(self, reference: Found) -> dict[str, float]:
        """Returns the scores, and the gain in CRPS over a reference, with its standard error."""
        mean, std, truth, passes = self.whole().unbind(dim=-1)
        row, z = scores(mean, std, truth), (mean - truth).square().mean().sqrt()
        row["spread_skill"] = (std.square().mean().sqrt() / z).item()
        mine, theirs = self.crps(), reference.crps()
        sums = torch.stack([(mine - theirs)[passes == p].sum() for p in passes.unique()])
        row["crps over constants %"] = (100 * sums.sum() / theirs.sum()).item()
        error = sums.std() * math.sqrt(len(sums)) / theirs.sum()
        return {**row, "its se": 100 * error.item(), "seconds": self.seconds}


def missions(apart: Apart, mission: str, steps: int, ways: list[str]) -> None:
    """Leaves a mission out."""
    windows = {b: Window(b, mission, 0.0, 20.0) for b in BASINS}
    known = {b: apart.constants(w) for b, w in windows.items()}
    found = {k: Found() for k in ("constants", "constants of the other basin", *ways)}
    for basin, window in windows.items():
        own, other = (next(b for b in BASINS if (b == basin) == same) for same in (True, False))
        for name, giver in (("", own), (" of the other basin", other)):
            constants, spent = known[giver]
            found[f"constants{name}"].add(apart(predicted, window, constants, "", 0), spent)
        for way in ways:
            found[way].add(apart(predicted, window, known[own][0], way, steps))
    tell("mission left out", mission, found)


def transfer(apart: Apart, mission: str, steps: int) -> None:
    """Uses parameters of the first half of the days in the second."""
    names = ("constants", "constants of before", "fields", "fields of before")
    found = {k: Found() for k in names}
    for basin in BASINS:
        before, after = (Window(basin, mission, *d) for d in ((0.0, 10.0), (10.0, 20.0)))
        for end, window in ((" of before", before), ("", after)):
            known, spent = apart.constants(window)
            found[f"constants{end}"].add(apart(predicted, after, known, "", 0), spent)
            found[f"fields{end}"].add(apart(predicted, after, known, "fields", steps, window))
    tell("the last ten days", mission, found)


def tell(task: str, mission: str, found: dict[str, Found]) -> None:
    """Prints and records the rows of a mission."""
    head = {"task": task, "mission": mission}
    rows = [{**head, "parameters": k, **v.row(found["constants"])} for k, v in found.items()]
    finish(f"Mediterranean, {task}", "mediterranean_joint", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missions", default="al,h2,j2", help="left out in turn")
    parser.add_argument("--transfer", default="al", help="left out for the transfer in time")
    parser.add_argument("--steps", type=int, default=8, help="of L-BFGS for fields")
    parser.add_argument("--ways", default="std,fields", help="which parameters vary")
    parser.add_argument("--kept", type=Path, help="where constants are kept")
    asked = parser.parse_args()
    apart = Apart(asked.kept)
    for mission in filter(None, asked.missions.split(",")):
        missions(apart, mission, asked.steps, asked.ways.split(","))
    for mission in filter(None, asked.transfer.split(",")):
        transfer(apart, mission, asked.steps)


if __name__ == "__main__":
    main()
