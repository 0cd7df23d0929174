"""Learned solvers on real altimetry over the Mediterranean: taught by maps of 2005, used in 2014.

    python mediterranean_learned.py [--missions al,h2,j2] [--updates 800] [--tuning 100]

Each mission in turn is predicted from the two others, as in ``mediterranean.py``. The first guess
is kriging with the covariance chosen and fitted on the two (two scales, errors along the track). A
U-Net mends it. It learns on windows whose truth is known: daily maps of 2005, seen along the
places of the tracks of 2014 with the errors that these have, first guess included; or such maps
with what they are too smooth to hold, by Matheron's rule: a draw of the law less the map of its
data. Then it goes on learning on the real passes of the two missions, withheld in turn.

One network serves all missions: its simulations take the numbers of the first one's law, fitted
on the two others, and no datum of 2014. What is fine-tuned is so for each mission.

What part of the correction is kept, and the size of errors, are told by passes of the two missions
that are withheld. The third is only scored.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import math
import sys
import time
import torch

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import RESULTS, finish, show
from mediterranean_kriging import DAYS, PAD, Interpolation, Law, Sea
from mediterranean_spde import scores, tracks

import matheron as mt

from matheron.data import Augmentation, Observations, Purpose, Several, Windows
from matheron.data.patches import QUASI_GEOSTROPHIC
from matheron.data.withheld_passes import WithheldPasses, about_guess, folds_of
from matheron.domain import Grid
from matheron.fit import Schedule, field_error, gradient_error, train, withheld_error
from matheron.fit.objective import observe
from matheron.nets import UNet
from matheron.solvers import DirectInversion

LENGTH = 11
"""The days of a window; its middle is wanted."""
assert LENGTH == 2 * PAD + 1
TRAIN, HELD = (0, 39), (50, 61)
"""The days of the maps to train on, and to validate by."""
PATCH, WIDTH, BATCH = 48, 16, 6
FOLDS = 4
EDDIES, SLOPES = 50e3, 0.3
USE = Purpose("mapping", width=3.0)


# windows to learn from


@dataclass
class Lesson:
    """A truth, what is seen of it, and the first guess."""

    truth: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    guess: torch.Tensor

    def windows(self, grid: Grid, noise: float, span: tuple[int, int], moved: bool) -> Windows:
        """Returns the windows about the days of a span."""
        return Windows(
            grid,
            (LENGTH, PATCH, PATCH),
            self.values,
            self.mask,
            noise,
            truth=self.truth,
            span=span,
            purpose=USE,
            stride=None if moved else (2, PATCH, PATCH),
            augmentation=_augmented() if moved else None,
            covariates={"guess": (self.guess, torch.ones_like(self.mask))},
        )


def _augmented() -> Augmentation:
    return Augmentation(shift=True, mirrors=QUASI_GEOSTROPHIC)


def lessons(
    law: Law, shifts: list[int], pairs: list[torch.Tensor], seed: int, residuals: torch.Tensor
) -> tuple[list[Lesson], list[Lesson]]:
    """Returns lessons for each pair of missions and each shift of the tracks in time.

    Arguments:
        law: The covariance, and the errors of the data.
        shifts: The day of the maps on which the tracks begin.
        pairs: Which data are seen.
        seed: The seed of errors.
        residuals: What maps are too smooth to hold: one for each pair and shift.

    Returns:
        Lessons whose truth is the maps, and those with the residuals.
    """
    generator, sea, n = torch.Generator().manual_seed(seed), law.sea, len(shifts)
    found: list[list[Lesson]] = [[], []]
    for k, pair in enumerate(pairs):
        maps = torch.stack([sea.truth(shift) for shift in shifts])
        truth = torch.cat([maps, maps + residuals[k * n : (k + 1) * n]])
        y = sea.at_tracks(truth) + law.errors(2 * n, generator)
        guess, there = Interpolation(law, pair).maps(y)
        for j, (x, v, g, h) in enumerate(zip(truth, y, guess, there, strict=True)):
            cells = about_guess(sea.grid, law.data.points[pair], v[pair], g, h[pair])
            found[j // n].append(Lesson(x.float(), cells.mean.float(), cells.mask, g.float()))
    return found[0], found[1]


def lacking(law: Law, size: int, seed: int) -> torch.Tensor:
    """Draws what maps of all missions lack: by Matheron's rule, a field less its map."""
    generator = torch.Generator().manual_seed(seed)
    x = law.draws(size, generator)
    y = law.sea.at_tracks(x) + law.errors(size, generator)
    everything = torch.ones(len(law.data.values), dtype=torch.bool)
    return x - Interpolation(law, everything).maps(y)[0]


@dataclass
class Units:
    """What is known of fields: mean, std, that of the errors of the guess, and of data."""

    mean: float
    std: float
    rest: float
    noise: float

    @classmethod
    def of(cls, told: list[Lesson], shape: tuple[int, int]) -> Units:
        """Returns what lessons tell, over the days that are mapped."""
        x, g, y = (
            torch.stack([getattr(one, k) for one in told]).unflatten(-1, shape)[:, PAD:-PAD]
            for k in ("truth", "guess", "values")
        )
        seen = y != 0
        rest, noise = ((a - b).std().item() for a, b in ((x, g), (y[seen], x[seen])))
        return cls(0.0, x.std().item(), rest, noise)


# solvers


def built(grid: Grid, units: Units, seed: int) -> tuple[DirectInversion, mt.GaussianProcess]:
    """Returns a network that mends a first guess, at its first weights."""
    net = UNet(3 * LENGTH + 1, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    rest = units.rest / units.std
    solver = DirectInversion(net, rest=rest, mean=units.mean, scale=units.std, first="guess")
    return solver, plain(grid)


def plain(grid: Grid) -> mt.GaussianProcess:
    """Returns a prior of which the network takes the grid only."""
    return mt.GaussianProcess(mt.Matern(2.5, 1.0, (10.0, 1e5, 1e5)), grid).requires_grad_(False)


@dataclass
class Seen:
    """Real data of which some are seen, and the map of these."""

    sea: Sea
    data: Observations
    noise: float
    seen: torch.Tensor
    guess: torch.Tensor
    there: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, law: Law, seen: torch.Tensor) -> Seen:
        made = Interpolation(law, seen)
        guess, there = (x[0] for x in made.maps(law.data.values[None]))
        variance = torch.zeros(len(seen), dtype=torch.float64)
        j = (~seen).nonzero()[:, 0]
        variance[j] = made.variance(j)
        return cls(law.sea, law.data, law.noise, seen, guess, there, variance)

    @torch.no_grad()
    def correction(self, solver: DirectInversion, units: Units) -> torch.Tensor:
        """Returns what a solver adds to the map, at the places of all data."""
        sea, data = self.sea, self.data
        cells = about_guess(
            sea.grid,
            data.points[self.seen],
            data.values[self.seen],
            self.guess,
            self.there[self.seen],
        )
        size = (LENGTH, *sea.mask.shape)
        beside = {"guess": (self.guess, torch.ones_like(cells.mask))}
        windows = Windows(sea.grid, size, cells.mean, cells.mask, units.noise, covariates=beside)
        index = torch.arange(len(windows))
        batch = windows.batch(index, index)
        observation, y = observe(batch)
        found = batch.space(solver(plain(windows.grid), observation).estimate(y))
        added = (found - batch.space(batch.covariates["guess"][0]))[:, PAD][:, sea.mask]
        x = torch.zeros(sea.shape, dtype=torch.float64)
        x[PAD:-PAD] = added
        return sea.at_tracks(x.flatten())


Corrected = Callable[[Seen], torch.Tensor]
"""What gives a correction of a map, at the places of all data."""


@dataclass
class Kept:
    """What passes withheld among the missions that are kept tell: a part, and a factor."""

    part: float
    factor: float

    @classmethod
    def by(cls, folds: list[Seen], added: list[torch.Tensor], allowed: torch.Tensor) -> Kept:
        """Returns the part of least error, and the factor of variances that errors have."""
        hidden = [~f.seen & allowed for f in folds]
        r = torch.cat([(f.data.values - f.there)[h] for f, h in zip(folds, hidden, strict=True)])
        d = torch.cat([a[h] for a, h in zip(added, hidden, strict=True)])
        v = torch.cat([f.variance[h] for f, h in zip(folds, hidden, strict=True)])
        part = ((r * d).sum() / d.square().sum()).clamp(0, 1).item() if d.any() else 1.0
        over = (r - part * d).square().mean() - folds[0].noise
        return cls(part, max(0.1, (over / v.mean()).item()))


def taught(
    solver: DirectInversion, prior: mt.GaussianProcess, source, held, units: Units, updates: int
) -> float:
    """Trains on windows with a truth; returns the seconds."""
    loss = (field_error() + SLOPES * gradient_error(EDDIES)) / units.rest**2
    return _trained(solver, prior, source, held, loss, updates, 1.5e-3)


def _trained(solver, prior, source, held, loss, updates: int, rate: float) -> float:
    every = max(1, updates // 10)
    schedule = Schedule(
        updates, BATCH, rate, warm_up=max(1, updates // 20), clip=1.0, validate_every=every
    )

    def tell(p) -> None:
        if p.step % every == 0 or p.step == 1:
            known = math.nan if p.validation is None else p.validation
            print(f"  {p.step}: {p.loss:.4f}, {known:.4f}, {p.eta:.0f} s", flush=True)

    dice = torch.Generator().manual_seed(0)
    history = train(solver, prior, source, loss, held, schedule, generator=dice, progress=tell)
    print(f"  best at {history.best_step}: {history.best:.4f}", flush=True)
    return history.seconds


def tuned(solver: DirectInversion, case: Case, units: Units, updates: int) -> float:
    """Trains on real passes that are withheld in turn; those of the first fold validate."""
    loss = (units.noise / units.rest) ** 2 * withheld_error()
    source, held = (case.withheld(units, hidden) for hidden in (range(1, FOLDS), [0]))
    return _trained(solver, plain(source.grid), source, held, loss, updates, 1e-4)


def course(law: Law) -> dict[str, tuple[list[Lesson], list[Lesson]]]:
    """Returns what to train on, and what to validate by, for both kinds of truth."""
    codes, t = law.data.groups.codes, law.data.points.axis("time")
    pairs = [codes != k for k in codes.unique()]
    shifts, n = list(range(2, TRAIN[1] - DAYS - 1)), len(pairs)
    rest = lacking(law, n * (len(shifts) + 2), seed=0)
    parts = [
        (shifts, pairs),
        ([HELD[0]], [p & (t < 10.5) for p in pairs]),
        ([HELD[1] - DAYS + 1], [p & (t > 8.5) for p in pairs]),
    ]
    drawn = rest.split([n * len(days) for days, _ in parts])
    learn, *held = (
        lessons(law, days, seen, seed, e)
        for seed, ((days, seen), e) in enumerate(zip(parts, drawn, strict=True))
    )
    names = ("maps of 2005", "maps made whole")
    return {name: (learn[k], [*held[0][k], *held[1][k]]) for k, name in enumerate(names)}


def sources(grid: Grid, learn: list[Lesson], held: list[Lesson], noise: float):
    """Returns the windows of lessons: of all days, and of those that are held out."""
    n = len(held) // 2
    spans = [(2, 8 + LENGTH)] * n + [(11, 17 + LENGTH)] * n
    told = [one.windows(grid, noise, (0, grid.shape[0]), True) for one in learn]
    pairs = zip(held, spans, strict=True)
    return Several(told), Several([one.windows(grid, noise, s, False) for one, s in pairs])


class Case:
    """One mission left out: the map of the others, of their folds, and what is scored."""

    def __init__(self, law: Law, out: torch.Tensor, mission: str) -> None:
        self.out, self.data, self.sea, self.mission = out, law.data, law.sea, mission
        kept = (~self.out).nonzero()[:, 0]
        dice = torch.Generator().manual_seed(0)
        self.fold = torch.full((len(self.out),), -1)
        self.fold[kept] = folds_of(self.data.passes[kept], FOLDS, dice)
        self.folds = [Seen.of(law, ~out & (self.fold != k)) for k in range(FOLDS)]
        self.whole = Seen.of(law, ~out)

    def withheld(self, units: Units, hidden) -> WithheldPasses:
        """Returns the windows of real data, of which passes are withheld."""
        kept = ~self.out

        def guess(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            one = next(f for f in self.folds if torch.equal(f.seen[kept], seen))
            return one.guess, one.there[kept]

        moved = len(hidden) > 1
        return WithheldPasses(
            self.sea.grid,
            (LENGTH, PATCH, PATCH),
            self.data.points[kept],
            self.data.values[kept],
            units.noise,
            self.fold[kept],
            guess,
            hidden=hidden,
            purpose=USE,
            stride=None if moved else (2, PATCH, PATCH),
            augmentation=_augmented() if moved else None,
        )

    def kept(self, corrected: Corrected) -> Kept:
        """Returns what passes withheld tell of a correction that has not learned from them."""
        return Kept.by(self.folds, [corrected(f) for f in self.folds], ~self.out)

    def row(self, name: str, corrected: Corrected, kept: Kept, **others: float) -> dict:
        """Returns the scores of a part of a correction."""
        mean = self.whole.there + kept.part * corrected(self.whole)
        std = (kept.factor * self.whole.variance + self.whole.noise).sqrt()
        told = {"mission": self.mission, "solver": name, **dataclasses.asdict(kept)}
        return told | self.scored(mean, std) | others

    def scored(self, mean: torch.Tensor, std: torch.Tensor) -> dict[str, float]:
        """Returns the scores at the mission that is left out."""
        return scores(mean[self.out], std[self.out], self.data.values[self.out])


def first_rows(case: Case) -> list[dict]:
    """Returns the scores of the first guess, and of the same with another spread."""
    return [
        case.row("OI, the first guess", _nothing, Kept(0.0, 1.0)),
        case.row("OI, spread by passes withheld", _nothing, case.kept(_nothing)),
    ]


def _nothing(seen: Seen) -> torch.Tensor:
    return torch.zeros_like(seen.there)


def learned(
    name: str, learn: list[Lesson], held: list[Lesson], cases: list[Case], asked
) -> list[dict]:
    """Returns the rows of a network that learns from a kind of truth, mission by mission."""
    sea = cases[0].sea
    units = Units.of(learn, sea.shape)
    print(name, units, flush=True)
    source, validation = sources(sea.grid, learn, held, units.noise)
    first, prior = built(source.grid, units, seed=0)
    seconds = taught(first, prior, source, validation, units, asked.updates)
    told = {"seconds": seconds} | skill(first, prior, validation)
    print(told, flush=True)
    rows = []
    for case in cases:
        rows += mended(name, first, units, case, asked.tuning, told)
    finish(f"Mediterranean, {name}", "mediterranean_learned", rows)
    return rows


@torch.no_grad()
def skill(solver: DirectInversion, prior: mt.GaussianProcess, windows: Several) -> dict:
    """Returns the errors on simulated days held out, of the guess and of a solver."""
    total = torch.zeros(3, dtype=torch.float64)
    for index in torch.arange(len(windows)).split(BATCH):
        batch = windows.batch(index, index)
        observation, y = observe(batch)
        found = (solver(prior, observation).estimate(y), batch.covariates["guess"][0])
        e = [(batch.weights * (x - batch.truth).square()).sum() for x in found]
        total += torch.stack([*e, batch.weights.sum()])
    ours, guess = (total[:2] / total[2]).sqrt().tolist()
    return {"simulated_rmse_cm": 100 * ours, "simulated_guess_cm": 100 * guess}


def mended(
    name: str,
    first: DirectInversion,
    units: Units,
    case: Case,
    tuning: int,
    told: dict[str, float],
) -> list[dict]:
    """Returns the rows of a network at a mission: as it is, a part of it, and fine-tuned."""

    def corrected(seen: Seen) -> torch.Tensor:
        return seen.correction(solver, units)

    solver = first
    kept = case.kept(corrected)
    whole = dataclasses.replace(kept, part=1.0)
    rows = [
        case.row(name, corrected, whole, **told),
        case.row(f"{name}, part kept", corrected, kept, **told),
    ]
    if tuning:
        solver = copy.deepcopy(first)
        told = {"seconds": tuned(solver, case, units, tuning)}
        # the folds are known by now: the factor is that of the network before
        rows.append(case.row(f"{name}, fine-tuned", corrected, whole, **told))
    return rows


def steps(law: Law, course: dict[str, tuple[list[Lesson], list[Lesson]]]) -> list[dict]:
    """Returns how much fields and data differ between two places of a pass, in cm.

    What the data have over the field of the law is their errors; what maps have under it is what
    a solver that learns from them takes for noise.
    """
    data, (own, length) = law.data, (law.own, law.length / 1e3)
    fields = {"tracks of 2014": data.values[None]}
    for name, (learn, _) in course.items():
        fields[name] = law.sea.at_tracks(torch.stack([one.truth for one in learn]).double())
    rows = []
    for lag in (1, 2, 4, 8, 16):
        same = data.passes[lag:] == data.passes[:-lag]
        x = data.points.cartesian()[:, 1:]
        away = (x[lag:] - x[:-lag]).norm(dim=-1) / 1e3
        same &= away < 15 * lag + 5
        far = away[same].mean().item()
        row = {"lag_km": far}
        for name, f in fields.items():
            row[name] = 100 * (f[:, lag:] - f[:, :-lag])[:, same].square().mean().sqrt().item()
        noise = 2 * own * (1 - math.exp(-0.5 * (far / length) ** 2))
        row["tracks less errors"] = math.sqrt(max(0.0, row["tracks of 2014"] ** 2 - 1e4 * noise))
        rows.append(row)
    return rows


def others(mission: str) -> list[dict]:
    """Returns the last scores of other methods at a mission."""
    found = []
    for name, task in (("GP, Vecchia", "mediterranean"), ("SPDE", "mediterranean_spde")):
        path = RESULTS / f"{task}.csv"
        if path.exists():
            with path.open(encoding="utf-8") as file:
                last = [r for r in csv.DictReader(file) if r["mission"] == mission][-1]
            names = [k for k in last if k.endswith(("_cm", "_50", "_90")) or k == "z2"]
            head = {"mission": mission, "solver": name}
            found.append(head | {k: float(last[k]) for k in names})
    return found


def means(rows: list[dict]) -> list[dict]:
    """Returns the mean scores of each solver over the missions."""
    kinds, found = ("rmse_cm", "crps_cm", "z2", "coverage_90"), []
    for name in dict.fromkeys(r["solver"] for r in rows):
        own = [r for r in rows if r["solver"] == name]
        mean = {k: sum(r.get(k, math.nan) for r in own) / len(own) for k in kinds}
        found.append({"solver": name, "missions": len(own), **mean})
    return found


def main() -> None:
    """Leaves missions out in turn."""
    told = argparse.ArgumentParser()
    told.add_argument("--missions", default="al,h2,j2")
    told.add_argument("--truths", default="maps of 2005,maps made whole")
    told.add_argument("--updates", type=int, default=800)
    told.add_argument("--tuning", type=int, default=100)
    asked = told.parse_args()
    data, rows, cases, lesson = tracks(), [], [], {}
    sea = Sea(data.points)
    for mission in asked.missions.split(","):
        start, out = time.perf_counter(), data.groups.codes == data.groups.labels.index(mission)
        law = Law(data, ~out, sea)
        cases.append(Case(law, out, mission))
        if not lesson:  # of the first law: of its numbers, not of its data
            lesson = course(law)
            show("rms differences along passes, cm", steps(law, lesson))
        print(f"{mission}: {time.perf_counter() - start:.0f} s", flush=True)
        rows += first_rows(cases[-1])
    finish("Mediterranean, first guess", "mediterranean_learned", rows)
    for name in asked.truths.split(","):
        rows += learned(name, *lesson.pop(name), cases, asked)
    for mission in asked.missions.split(","):
        rows += others(mission)
    show("means over the missions", means(rows))


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
