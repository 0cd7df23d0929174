r"""The demonstration: a sea that is simulated, seen along tracks, mapped, and scored."""

from __future__ import annotations

__all__ = ["demo_folder", "demonstrate"]

import json
import math
import pandas as pd
import torch
import xarray as xr

from collections.abc import Sequence
from pathlib import Path
from torch import Generator, Tensor
from typing import Any

from .border import Names, say
from .mapping import Request, make_map
from .moving import forecast
from .scoring import TITLES, score_files
from .settings import Settings
from ..data import InputError, map_dataset, read, write_dataset, write_table
from ..domain import Grid, Points
from ..kernels import Matern
from ..observations import PointObservation
from ..priors import GaussianProcess
from ..report import report
from ..solvers import Vecchia

MAPS = {"Gaussian process": "map.nc", "spde": "spde.nc"}
NOISE = {"alpha": 0.02, "beta": 0.04}
BIAS = {"alpha": 0.015, "beta": -0.02}


def _sea() -> Grid:
    return Grid(
        lat=torch.linspace(34.0, 42.0, 65, dtype=torch.float64),
        lon=torch.linspace(-4.0, 8.0, 97, dtype=torch.float64),
    )


def _truth(grid: Grid, generator: Generator) -> Tensor:
    r"""Draws a sea surface: eddies of 60 km over a front of 300 km, and a slope."""
    eddies = Matern(1.5, variance=0.006, lengthscale=(50e3, 70e3), rotation=25.0)
    prior = GaussianProcess(eddies + Matern(2.5, 0.02, 250e3), grid)
    # one datum far away: with nothing to condition on, the posterior is the prior
    far = PointObservation(grid, Points(lat=[-60.0], lon=[180.0]), 1.0)
    zero = torch.zeros(1, dtype=torch.float64)
    field = Vecchia(30, 40)(prior, far)(zero).sample(1, generator)[0]
    return field + 0.01 * (grid.points.axis("lat") - 38.0)


def _tracks(generator: Generator) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Returns the passes of two satellites: straight lines, both ways, 7 km apart."""
    found = {}
    for name, step, slope in (("alpha", 1.5, 0.35), ("beta", 2.1, -0.30)):
        shift = torch.rand(1, generator=generator, dtype=torch.float64).item()
        lat = torch.arange(34.05, 41.95, 0.063, dtype=torch.float64)
        passes = []
        for k, start in enumerate(torch.arange(-6.0 + shift, 10.0, step).tolist()):
            lon = start + (slope if k % 2 else -slope) * (lat - 38.0) * 1.2
            inside = (lon > -3.95) & (lon < 7.95)
            passes.append(torch.stack([lat[inside], lon[inside]]))
        both = torch.cat(passes, dim=1)
        found[name] = (both[0], both[1])
    return found


def _observe(grid: Grid, truth: Tensor, generator: Generator) -> pd.DataFrame:
    frames = []
    for mission, (lat, lon) in _tracks(generator).items():
        nodes, weights = grid.interpolation(Points(lat=lat, lon=lon))
        noise = torch.randn(len(lat), generator=generator, dtype=torch.float64)
        ssh = (truth[nodes] * weights).sum(dim=-1) + BIAS[mission] + NOISE[mission] * noise
        columns = {"lon": lon.numpy(), "lat": lat.numpy(), "ssh": ssh.numpy()}
        frames.append(pd.DataFrame(columns).assign(mission=mission))
    return pd.concat(frames, ignore_index=True).round(6)


def demo_folder(path: Path) -> Path:
    r"""Returns the folder of a demonstration, refused where it could not be made."""
    if path.exists() and not path.is_dir():
        msg = f"demo(output={path}): expected a folder, got a file. Name another folder."
        raise InputError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"demo(output={path}): expected an existing parent folder, got none. Make it first."
        raise InputError(msg)
    return path


def _commands(folder: Path) -> Sequence[str]:
    span = "--grid -4:8:0.125,34:42:0.125"
    return (
        f"matheron info {folder}/tracks.csv",
        f"matheron map {folder}/tracks.csv {span} --members 50 -o {folder}/map.nc",
        f"matheron map {folder}/tracks.csv {span} --method spde -o {folder}/spde.nc",
        f"matheron score {folder}/map.nc --truth {folder}/truth.nc",
        f"matheron score {folder}/spde.nc --truth {folder}/truth.nc",
        f"matheron report {folder}/spde.nc --truth {folder}/truth.nc -o {folder}/spde.html",
    )


def demonstrate(output: Path, seed: int = 0) -> None:
    r"""Simulates, observes, maps, scores and reports, into a folder."""
    folder = demo_folder(output)
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    grid = _sea()
    say("1. simulate a sea surface, 65 x 97 nodes")
    truth = _truth(grid, generator)
    dataset = map_dataset(grid, truth, variable="ssh", units="m", long_name="sea surface height")
    write_dataset(dataset, folder / "truth.nc")
    say("2. observe it along the tracks of two satellites, each with noise and a bias")
    tracks = write_table(_observe(grid, truth, generator), folder / "tracks.csv")
    say("3. map the observations: choose a model, fit it, condition, draw 50 members")
    commands, spans = _commands(folder), "-4:8:0.125,34:42:0.125"
    request = Request([tracks], "ssh", Names(), spans, None, 50, folder / "map.nc")
    make_map(request, Settings(seed=seed), command=commands[1])
    say("4. map them again, as the solution of a stochastic partial differential equation")
    request = Request([tracks], "ssh", Names(), spans, None, 0, folder / "spde.nc")
    make_map(request, Settings(method="spde", seed=seed), command=commands[2])
    say("5. score both maps against the truth")
    scores = _scores(folder, tracks)
    say("6. forecast a field that moves, from six days of data")
    scores["forecast"] = forecast(generator)
    (folder / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    print(_table(scores))
    say("7. draw a report of each map")
    for file in MAPS.values():
        _report(folder, file, tracks, generator)
    say(f"done: open {folder}/map.html and {folder}/spde.html. The same, by hand:")
    for command in commands:
        say(f"  {command}")


def _scores(folder: Path, tracks: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, file in MAPS.items():
        scores = score_files(folder / file, folder / "truth.nc", "ssh", tracks, noisy=False)
        if not math.isfinite(scores["crps"]):
            msg = "demo: expected finite scores, got NaN. Please report this."
            raise RuntimeError(msg)
        found[name] = scores
    return found


def _table(scores: dict[str, Any]) -> str:
    r"""Returns the scores of both maps side by side, and those of the forecast by its lead."""
    both = [scores[name] for name in MAPS]
    count, units = both[0]["count"], both[0]["units"]
    lines = [f"{count} values, against {both[0]['against']}" + (f", in {units}" if units else "")]
    lines += [f"  {'':<30} {'   '.join(f'{k:>16}' for k in MAPS)}"]
    for key, title in TITLES.items():
        if all(key in s for s in both):
            lines.append(f"  {title:<30} {'   '.join(f'{s[key]:>16.5g}' for s in both)}")
    lines.append("a field that moves, root mean square error by days ahead")
    for row in scores["forecast"]:
        lines.append(
            f"  {row['lead']:>4.0f}   forecast {row['rmse']:.4f}   persistence "
            f"{row['persistence']:.4f}   predicted std {row['std']:.4f}"
        )
    return "\n".join(lines)


def _report(folder: Path, file: str, tracks: Path, generator: Generator) -> None:
    with xr.open_dataset(folder / file) as chart, xr.open_dataset(folder / "truth.nc") as true:
        report(
            chart.load(),
            (folder / file).with_suffix(".html"),
            truth=true.load(),
            observations=read(tracks, "ssh"),
            generator=generator,
        )
