"""4DVarNet-SPDE on a simulated Gulf Stream: are its members to be believed?

    python four_dvarnet_spde.py OSSE FOLDER [FOLDER ...]

Each FOLDER is a trained solver of the OSSE, of any purpose:

    matheron osse --preset gulfstream --seed 1 --train -o OSSE
    matheron fit OSSE --method 4dvarnet --oceans 16 --updates 3000 --precision bf16 -o base
    matheron fit OSSE --method 4dvarnet-spde --from base --oceans 16 -o FOLDER

Where a folder has a law of the field, its std and its members are beside those that the same map
has without it: std from the density of data, members of one correlation. Scores are of 200
members against the truth of the scored days: RMSE of the mean, fair CRPS, coverage of the central
90 %, spread over skill, r of the std with the absolute error (of all nodes and days, and the mean
over days), and the largest departure of the rank histogram from a flat one, in tenths. Regions
are the jet, where the truth varies the most (a third of the nodes), and the rest. The row of
optimal interpolation (``oi``) is tuned on the same data; ``oi, guess`` is the one that the solver
mends, of data up to the same day, whose std is scaled to its errors on the scored days themselves:
the best that it could say of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import torch
import xarray as xr

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import RESULTS, finish

from matheron import plots
from matheron.compare import problem_of
from matheron.compare.scores import truth_at
from matheron.domain import dates_of
from matheron.mappers import learned, mapper
from matheron.mappers.learned import LearnedMapper
from matheron.metrics import crps_ensemble, rank_histogram
from matheron.metrics.scores import crps_gaussian
from matheron.osse import Experiment

MEMBERS = 200
TENTHS = 10


def rows_of(name: str, mapped, shift, truth, shape, model: str = "") -> list[dict[str, object]]:
    """Returns the scores of a map, everywhere and by region."""
    start = time.process_time()
    posterior = mapped.posterior
    mean = posterior.mean + shift
    std = posterior.std()
    members = posterior.sample(MEMBERS, torch.Generator().manual_seed(0)) + shift
    seconds = time.process_time() - start
    spread = truth.reshape(shape).std(dim=0)
    jet = (spread > spread.flatten().quantile(2 / 3)).expand(shape).flatten()
    found = []
    for region, where in (("all", jet | True), ("jet", jet), ("rest", ~jet)):
        scores = scored(mean[where], std[where], members[:, where], truth[where])
        found.append({"model": model, "law": name, "region": region, **scores})
    found[0]["r_days"] = daily(std.reshape(shape), (mean - truth).abs().reshape(shape))
    found[0]["cpu_seconds"] = seconds
    return found


def scored(mean, std, members, truth) -> dict[str, object]:
    """Returns the scores of some nodes."""
    error = mean - truth
    low, high = members.quantile(0.05, dim=0), members.quantile(0.95, dim=0)
    counts = rank_histogram(members[: TENTHS * 20 - 1], truth, torch.Generator().manual_seed(0))
    tenths = counts.reshape(TENTHS, -1).sum(dim=1).double() / counts.sum()
    return {
        "rmse": error.square().mean().sqrt().item(),
        "crps": crps_ensemble(members, truth).item(),
        "coverage": ((truth >= low) & (truth <= high)).double().mean().item(),
        "spread_skill": (std.square().mean() / error.square().mean()).sqrt().item(),
        "r": torch.corrcoef(torch.stack([std, error.abs()]))[0, 1].item(),
        "rank_worst": (tenths * TENTHS - 1).abs().max().item(),
    }


def daily(std, error) -> float:
    """Returns the mean over days of the correlation of std and error."""
    pairs = zip(std.flatten(1), error.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(p))[0, 1] for p in pairs]).mean().item()


def guess_rows(found: LearnedMapper, problem, truth, shape, model: str) -> list[dict[str, object]]:
    """Returns the scores of the first guess, its std scaled to its errors."""
    guess = found.model.others["guess"]
    plain = dataclasses.replace(problem, known=None, values=problem.anomalies)
    start = time.process_time()
    mean, std = guess.of(plain, problem.grid) + problem.shift, guess.std(plain, problem.grid)
    seconds = time.process_time() - start
    error = mean - truth
    std = std * (error.square().mean() / std.square().mean()).sqrt()
    crps = crps_gaussian(torch.zeros_like(error)[None], std[None], error[None]).mean().item()
    inside = (error.abs() < 1.6449 * std).double().mean().item()
    r = torch.corrcoef(torch.stack([std, error.abs()]))[0, 1].item()
    return [
        {
            "model": model,
            "law": "oi, guess",
            "region": "all",
            "rmse": error.square().mean().sqrt().item(),
            "crps": crps,
            "coverage": inside,
            "spread_skill": 1.0,
            "r": r,
            "r_days": daily(std.reshape(shape), error.abs().reshape(shape)),
            "cpu_seconds": seconds,
        }
    ]


def without_law(found: LearnedMapper, alone: Path | None) -> LearnedMapper | None:
    """Returns the same map with the spread that it has without a law, if its folder is given."""
    if alone is None:
        return None
    base = learned(alone)
    model = dataclasses.replace(base.model, solver=found.model.solver, prior=found.model.prior)
    return LearnedMapper(model)


def main() -> None:
    """Maps the scored days by each trained solver."""
    told = argparse.ArgumentParser()
    told.add_argument("osse", type=Path)
    told.add_argument("folders", nargs="+", help="FOLDER, or FOLDER=BASE with the solver alone")
    told.add_argument("--without-oi", action="store_true")
    asked = told.parse_args()
    experiment = Experiment.load(asked.osse)
    problem = problem_of(experiment)
    truth, shape = truth_at(experiment, problem.grid), problem.grid.shape
    seen = experiment.recipe.constellation
    rows: list[dict[str, object]] = []
    if not asked.without_oi:
        made = mapper("oi")(problem, print)
        rows += rows_of("oi", made, problem.shift, truth, shape)
    for word in asked.folders:
        folder, _, base = word.partition("=")
        found = learned(Path(folder))
        name = f"{found.purpose.name} {found.purpose.lead}".replace("mapping 0", "mapping")
        alone = without_law(found, Path(base) if base else None)
        rows += guess_rows(found, problem, truth, shape, name)
        for law, one in (("density", alone), ("spde", found)):
            if one is None:
                continue
            made = one(problem, print)
            rows += rows_of(law, made, problem.shift, truth, shape, name)
        draw(name.replace(" ", "_"), seen, made, problem, truth)
    for row in rows:
        row["observations"] = seen
    finish("Members of 4DVarNet-SPDE", "four_dvarnet_spde", rows)


def draw(name: str, seen: str, made, problem, truth) -> None:
    """Draws std beside errors, and the parameters of one day."""
    grid, label = problem.grid, f"{name}_{seen.replace(',', '_')}"
    axes = {k: v.numpy() for k, v in grid.axes.items()}
    axes["time"] = dates_of(grid.axes["time"], grid.epoch)
    fields = {"mean": made.posterior.mean + problem.shift, "std": made.posterior.std()}
    fields["truth"] = truth
    maps = {k: xr.DataArray(v.reshape(grid.shape).numpy(), axes) for k, v in fields.items()}
    figure = plots.told_errors(maps["mean"], maps["std"], maps["truth"])
    figure.savefig(RESULTS / f"four_dvarnet_spde_{label}.png", dpi=110)
    departures = made.posterior.conditional.departures(made.posterior.y)
    if departures is None or name != "mapping":
        return
    told = departures.parameters(len(departures) // 2)
    space = departures.prior.space
    some = torch.arange(len(space)).reshape(space.shape)[1::3, 1::3].flatten()
    sites = space.points[some]
    for kind, figure in {
        "std": plots.field(space, told.std, title="std of the prior", units="m", kind="std"),
        "lengthscale": plots.ellipses(space, sites, told.square[some]),
        "velocity": plots.arrows(space, sites, told.velocity[some] / 86400.0),
    }.items():
        figure.savefig(RESULTS / f"four_dvarnet_spde_{label}_{kind}.png", dpi=110)


if __name__ == "__main__":
    main()
