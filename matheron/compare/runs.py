r"""One mapper on one experiment, in a process of its own: its memory and time are its own."""

from __future__ import annotations

__all__ = ["model_sum", "run_method"]

import json
import multiprocessing
import resource
import sys
import time
import torch
import traceback

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .problems import images, problem_of
from .scores import score_map
from ..data import map_dataset, write_dataset
from ..fit import model_folder
from ..mappers import mapper
from ..osse import Experiment

GIB = 2**30 if sys.platform == "darwin" else 2**20
"""What the system counts memory in, to the gibibyte."""


def run_method(
    folder: Path,
    name: str,
    output: Path,
    *,
    step: float | None = None,
    only: Sequence[str] | None = None,
    members: int = 0,
    seed: int = 0,
    alone: bool = True,
    model: Path | None = None,
) -> dict[str, Any]:
    r"""Maps an experiment by one method, writes the map and its row, and returns the row.

    ``NAME.nc`` holds mean, std and members; ``NAME.json`` the scores, the seconds and the memory.
    Both are written whole or not at all. A method that fails leaves a row that says why.

    Arguments:
        folder: The folder of the experiment.
        name: The name of the mapper.
        output: The folder of the maps.
        step: The step of the map, in degrees.
        only: The observations to map from.
        members: The number of members to draw and keep.
        seed: The seed of whatever is drawn.
        alone: Whether to run in a process of its own.
        model: The folder of a trained solver, which then has that name.
    """
    mapper(name, model)
    job = _Job(folder, name, output, step, only, members, seed, model)
    job.row.unlink(missing_ok=True)  # a row that is there afterwards is of this run
    if alone:
        process = multiprocessing.get_context("spawn").Process(target=job.run)
        process.start()
        process.join()
    else:
        job.run()
    if not job.row.exists():
        return {"method": name, "failed": "stopped by the system: perhaps out of memory"}
    return json.loads(job.row.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class _Job:
    r"""One run of one method: what it maps, and where its map and its row go."""

    folder: Path
    name: str
    output: Path
    step: float | None
    only: Sequence[str] | None
    members: int
    seed: int
    model: Path | None = None

    @property
    def row(self) -> Path:
        r"""The file of the row."""
        return self.output / f"{self.name}.json"

    def run(self) -> None:
        r"""Maps, and writes the row whole, with the reason if it fails."""
        row: dict[str, Any] = {"method": self.name, "version": version("matheron")}
        row["seed"] = self.seed
        try:
            row |= self._mapped()
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            traceback.print_exc()
            row["failed"] = str(error).splitlines()[0] if str(error) else type(error).__name__
        part = self.row.with_suffix(".json.part")
        part.write_text(json.dumps(row, indent=1), encoding="utf-8")
        part.replace(self.row)

    def _mapped(self) -> dict[str, Any]:
        experiment = Experiment.load(self.folder)
        problem = problem_of(experiment, self.step, self.only, self.seed)
        units = "1" if images(experiment) else "m"
        method = mapper(self.name, self.model, experiment.variable, units)
        said: list[str] = []
        generator = torch.Generator().manual_seed(self.seed)
        begun = resource.getrusage(resource.RUSAGE_SELF)
        before, start = begun.ru_utime + begun.ru_stime, time.perf_counter()
        found = method(problem, said.append)
        mean = found.mean
        mapped = time.perf_counter()
        std = found.std(generator)
        done = time.perf_counter()
        draws = found.sample(self.members, generator) if self.members else None
        row: dict[str, Any] = {"data": len(problem), "model": model_sum(self.model)}
        row |= score_map(experiment, mean, std, problem.grid, problem)
        row |= {"seconds": mapped - start, "seconds_std": done - mapped}
        row["seconds_members"] = time.perf_counter() - done
        used = resource.getrusage(resource.RUSAGE_SELF)
        row |= {"cpu_seconds": used.ru_utime + used.ru_stime - before}
        row |= {"peak_gib": used.ru_maxrss / GIB, "said": said}
        path = self.output / f"{self.name}.nc"
        _write(experiment, problem.grid, mean, std, draws, path, row)
        return row


def model_sum(model: Path | None) -> str | None:
    r"""Returns what tells the numbers of a trained solver from others."""
    if model is None:
        return None
    return json.loads((model_folder(model) / "model.json").read_text(encoding="utf-8"))["checksum"]


def _write(
    experiment: Experiment,
    grid: Any,
    mean: torch.Tensor,
    std: torch.Tensor,
    members: torch.Tensor | None,
    path: Path,
    row: Mapping[str, Any],
) -> None:
    name = f"log_{experiment.variable}" if images(experiment) else experiment.variable
    told = {"method": path.stem, "seed": experiment.seed, "version": version("matheron")}
    dataset = map_dataset(
        grid,
        mean,
        std,
        members=members,
        variable=name,
        units="1" if images(experiment) else "m",
        attributes={**told, "parameters": "; ".join(row["said"])},
    )
    write_dataset(dataset, path)
