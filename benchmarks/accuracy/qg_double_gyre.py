"""A wind-driven double gyre seen along tracks: our LETKF beside DAPPER's, on the same data.

The case is that of Sakov & Oke (2008) with the settings of DAPPER's ``mods/QG/sakov2008``: 129
nodes on a side; every 5 units of time, 300 data with the noise variance 4 at every 55th or 56th
node, row after row, like the tracks of a satellite, which start elsewhere each time; a perfect
model; members and truth are states of long runs. DAPPER publishes, for its LETKF with a radius of
10 nodes, errors of .64 (25 members, inflation 1.04) and .52 (45 members, 1.02), of 250 to 1500
units of time, from one run.

The model here is ours, whose elliptic equation is solved exactly; DAPPER's is Fortran, to be
compiled. ``--peer`` runs DAPPER's LETKF on our model, truth, data and first ensemble: what remains
is the filter. Its local analyses are those of boxes of 2 by 2 nodes, its default here; ours are
those of single nodes. Seconds are those
of the processor; those of an analysis are of everything but the model.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import numpy as np
import sys
import time
import torch

from dataclasses import dataclass
from pathlib import Path
from torch import Generator, Tensor
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.dynamics.double_gyre import DoubleGyre
from matheron.solvers.filters import EnsembleAnalysis, EnsembleCycle, Localization, System

INTERVAL, VARIANCE, DATA, RADIUS = 4, 4.0, 300, 10.0
SETTINGS = {25: (1.04, 0.64), 45: (1.02, 0.52)}
Row = dict[str, object]


class Timed:
    """The model over one interval, of flat states, and the time that it took."""

    def __init__(self, size: int) -> None:
        self.model, self.seconds = DoubleGyre(size), 0.0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        begin = time.process_time()
        moved = self.model(x.reshape(*x.shape[:-1], *self.model.shape), INTERVAL)
        self.seconds += time.process_time() - begin
        return moved.reshape(x.shape)


@torch.no_grad()
def climate(model: DoubleGyre, samples: int, generator: Generator) -> Tensor:
    """Returns states of a run, 50 units of time apart, after 3500 from rest."""
    x = model(model.initial(generator), 700 * INTERVAL)
    path = model.trajectory(x, samples * 10 * INTERVAL, 10 * INTERVAL)[1:]
    return path.flatten(1)[torch.randperm(samples, generator=generator)]


@dataclass
class Twin:
    """A truth at every interval, the nodes that are seen then, and the data."""

    truth: Tensor
    seen: list[Tensor]
    data: list[Tensor]


def twin(ahead: Timed, x: Tensor, analyses: int, generator: Generator) -> Twin:
    made = Twin(x[None], [], [])
    tracks = torch.linspace(0, len(x) - 1, DATA).floor().long()
    reach, states = int(tracks[1] - tracks[0]), [x]
    for _ in range(analyses):
        states.append(ahead(states[-1]))
        start = int(torch.randint(reach, (), generator=generator))
        made.seen.append((tracks + start).clamp(max=len(x) - 1))
        noise = torch.randn(DATA, dtype=torch.float64, generator=generator)
        made.data.append(states[-1][made.seen[-1]] + VARIANCE**0.5 * noise)
    made.truth = torch.stack(states)
    return made


def places(size: int) -> Tensor:
    axis = torch.arange(size, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def ours(ahead: Timed, made: Twin, E: Tensor, inflation: float) -> tuple[list[float], Row]:
    """Returns the error of every analysis."""
    analysis = EnsembleAnalysis("letkf", inflation, localization=Localization(RADIUS))
    scheme, at = EnsembleCycle(len(E), analysis), places(ahead.model.shape[0])
    noise = torch.full((DATA,), VARIANCE, dtype=torch.float64)
    carried, errors, spread = scheme.start(E), [], []
    ahead.seconds, begin = 0.0, time.process_time()
    for k, (seen, y) in enumerate(zip(made.seen, made.data, strict=True)):
        system = System(ahead, lambda x, seen=seen: x[..., seen], noise, at, at[seen])
        carried, found = scheme.cycle(carried, y, system)
        errors.append(rms(found.mean - made.truth[k + 1]))
        spread.append(found.spread.item())
        told(k, errors)
    seconds = time.process_time() - begin
    half = spread[len(spread) // 2 :]
    return errors, {
        "spread": sum(half) / len(half),
        "analysis_s": (seconds - ahead.seconds) / len(errors),
        "forecast_s": ahead.seconds / len(errors),
    }


def peer(ahead: Timed, made: Twin, E: Tensor, inflation: float) -> tuple[list[float], Row]:
    """Runs DAPPER's LETKF on the same model, truth, data and first ensemble."""
    mods = importlib.import_module("dapper.mods")
    localized = importlib.import_module("dapper.tools.localization").nd_Id_localization
    methods = importlib.import_module("dapper.da_methods")
    size, states = ahead.model.shape[0], E.shape[1]

    def step(x: Any, t: float, dt: float) -> Any:
        return ahead(torch.from_numpy(np.ascontiguousarray(x))).numpy()

    def observed(ko: int) -> Any:
        seen = made.seen[ko].numpy()
        return mods.Operator(
            M=DATA,
            model=mods.ens_compatible(lambda E: E[seen]),
            noise=mods.GaussRV(C=VARIANCE * np.eye(DATA)),
            localizer=localized((size, size), [2, 2], seen, periodic=False),
        )

    HMM = mods.HiddenMarkovModel(
        {"M": states, "model": step, "noise": 0},
        {"time_dependent": observed},
        mods.Chronology(dt=5.0, dko=1, Ko=len(made.data) - 1, BurnIn=0),
        mods.RV(M=states, func=lambda size: E.numpy().copy()[:size]),
    )
    scheme = methods.LETKF(N=len(E), infl=inflation, loc_rad=RADIUS, mp=False)
    ahead.seconds, begin = 0.0, time.process_time()
    data = np.stack([y.numpy() for y in made.data])
    scheme.assimilate(HMM, made.truth.numpy(), data, liveplots=False)
    seconds = time.process_time() - begin
    errors = scheme.stats.err.rms.a
    half = scheme.stats.spread.rms.a[len(errors) // 2 :]
    return [float(v) for v in errors], {
        "spread": float(np.mean(half)),
        "analysis_s": (seconds - ahead.seconds) / len(errors),
        "forecast_s": ahead.seconds / len(errors),
    }


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def told(k: int, errors: list[float]) -> None:
    if k % 10 == 9:
        print(k + 1, round(sum(errors[-10:]) / 10, 4), flush=True)


def mean(errors: list[float], burn_in: int) -> float:
    kept = errors[burn_in:]
    return sum(kept) / len(kept) if kept else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=129, help="nodes on a side")
    parser.add_argument("--members", type=int, default=25, choices=sorted(SETTINGS))
    parser.add_argument("--analyses", type=int, default=100)
    parser.add_argument("--burn-in", type=int, default=50)
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true", help="run DAPPER too, where it is there")
    options = parser.parse_args()
    runs = {"ours": ours}
    if options.peer:
        if importlib.util.find_spec("dapper") is None:
            sys.exit("benchmark not run: DAPPER cannot be imported; leave out --peer")
        runs["DAPPER"] = peer
    ahead, generator = Timed(options.size), Generator().manual_seed(options.seed)
    states = climate(ahead.model, options.samples, generator)
    print("standard deviation of the climate:", round(states.std(dim=0).mean().item(), 2))
    made = twin(ahead, states[0], options.analyses, generator)
    inflation, published = SETTINGS[options.members]
    rows: list[Row] = []
    for name, run in runs.items():
        errors, more = run(ahead, made, states[1 : 1 + options.members], inflation)
        rows.append({
            "filter": name,
            "nodes": options.size**2,
            "members": options.members,
            "inflation": inflation,
            "radius": RADIUS,
            "rmse": mean(errors, options.burn_in),
            "last_quarter": mean(errors, len(errors) * 3 // 4),
            "published": published if options.size == 129 else "",
            "analyses": len(errors) - options.burn_in,
            **more,
        })  # fmt: skip
        print(rows[-1], flush=True)
    finish("LETKF of a double gyre seen along tracks", "qg_double_gyre", rows)


if __name__ == "__main__":
    main()
