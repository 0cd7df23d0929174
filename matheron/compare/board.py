r"""The leaderboard: a table, and the pictures that go with it."""

from __future__ import annotations

__all__ = ["Board"]

import json
import numpy as np
import pandas as pd
import xarray as xr

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .problems import chosen, images, map_grid
from .runs import model_sum, run_method
from .scores import truth_at
from .. import plots
from ..domain import dates_of
from ..mappers import IMAGES, TRACKS, mapper
from ..mappers.learned import LearnedMapper
from ..metrics.spectral import Field, published, spectral_score
from ..osse import Experiment

Say = Callable[[str], None]

COLUMNS = (
    "mu",
    "sigma",
    "lambda_x",
    "lambda_t",
    "robust_lambda_x",
    "robust_lambda_t",
    "rmse",
    "crps",
    "coverage_90",
    "spread_skill",
    "seconds",
    "seconds_std",
    "cpu_seconds",
    "peak_gib",
)


@dataclass
class Board:
    r"""The methods that were run on one experiment.

    Arguments:
        folder: The folder of the experiment.
        output: The folder of the maps, of the table and of the pictures.
        step: The step of the maps, in degrees.
        only: The observations to map from; all by default.
        members: The number of members to keep of each method.
        seed: The seed of whatever is drawn.
        models: The folders of trained solvers, by the names that they have as methods.
    """

    folder: Path
    output: Path
    step: float | None = None
    only: Sequence[str] | None = None
    members: int = 0
    seed: int = 0
    models: Mapping[str, Path] = field(default_factory=dict)

    def run(
        self, methods: Sequence[str], say: Say = print, force: bool = False, alone: bool = True
    ) -> pd.DataFrame:
        r"""Runs the methods that have no map yet, and returns the table of all of them.

        Maps that are there, of the same experiment and settings, are kept: what was stopped goes
        on where it was.

        Raises:
            ValueError: If a name is unknown, or the folder holds maps of another experiment.
        """
        experiment = Experiment.load(self.folder)
        self._check(experiment, methods)
        self._settle(experiment, force)
        for name in methods:
            if not force and self._kept(name):
                say(f"{name}: kept")
                continue
            row = run_method(
                self.folder,
                name,
                self.output,
                step=self.step,
                only=self.only,
                members=self.members,
                seed=self.seed,
                alone=alone,
                model=self.models.get(name),
            )
            say(f"{name}: {_in_short(row)}")
        return self.table()

    def _kept(self, name: str) -> bool:
        r"""Returns whether there is a map of a method, or of the same trained solver."""
        known = self.output / f"{name}.json"
        if not known.exists():
            return False
        row = json.loads(known.read_text(encoding="utf-8"))
        return "failed" not in row and row.get("model") == model_sum(self.models.get(name))

    def _check(self, experiment: Experiment, methods: Sequence[str]) -> None:
        chosen(experiment.observations, self.only)
        map_grid(experiment, self.step)
        fit = IMAGES if images(experiment) else TRACKS
        for name in methods:
            found = mapper(name, self.models.get(name), experiment.variable, "m")
            if isinstance(found, LearnedMapper):
                found.covariates.check(experiment.beside)
            if name not in fit and name not in self.models:
                what = "images" if images(experiment) else "tracks"
                msg = (
                    f"compare(methods={name}): expected methods for {what}, "
                    f"{', '.join(fit)}, got {name!r}. Choose among them."
                )
                raise ValueError(msg)

    def _settle(self, experiment: Experiment, force: bool) -> None:
        r"""Makes the folder, and notes what its maps are of."""
        self.output.mkdir(parents=True, exist_ok=True)
        first, last = experiment.calendar.scored
        mine = {
            "preset": experiment.preset,
            "constellation": experiment.recipe.constellation,
            "noise": experiment.recipe.noise,
            "experiment_seed": experiment.seed,
            "scored": [first, last],
            "step": self.step,
            "only": None if self.only is None else sorted(self.only),
            "seed": self.seed,
        }
        note = self.output / "compare.json"
        if note.exists() and json.loads(note.read_text(encoding="utf-8")) != mine:
            if not force:
                msg = (
                    f"compare(output={self.output}): expected a folder of the same experiment and "
                    "settings, got one of others. Choose another, or say --force."
                )
                raise ValueError(msg)
            for old in self.output.glob("*.json"):
                old.unlink()
        note.write_text(json.dumps(mine, indent=1), encoding="utf-8")

    def rows(self) -> list[dict[str, Any]]:
        r"""Returns the rows of the methods that were run."""
        found = sorted(self.output.glob("*.json"))
        every = [json.loads(p.read_text(encoding="utf-8")) for p in found]
        return [row for row in every if "method" in row]

    def table(self, against_published: bool = False) -> pd.DataFrame:
        r"""Returns the table, the best first: by ``mu`` for sea level, by ``rmse`` for images.

        Arguments:
            against_published: Whether to add the published rows of the 2020a challenge: they are
                of other data.
        """
        rows = [row for row in self.rows() if "failed" not in row]
        table = pd.DataFrame(rows)
        if table.empty:
            return table
        table = table.set_index("method")
        kept = [c for c in COLUMNS if c in table]
        by = ("mu", False) if "mu" in table else ("rmse", True)
        table = table[kept].sort_values(by[0], ascending=by[1])
        if against_published and "mu" in table:
            table["published"] = False
            others = [_published(r) for r in published("odc2020a") if r.generation == "current"]
            table = pd.concat([table, pd.DataFrame(others).set_index("method")])
        return table

    def write(self, against_published: bool = False, say: Say = print) -> pd.DataFrame:
        r"""Writes the table (CSV, Markdown) and the pictures, and returns the table."""
        table = self.table(against_published)
        if table.empty:
            return table
        table.to_csv(self.output / "leaderboard.csv")
        text = _markdown(table)
        (self.output / "leaderboard.md").write_text(text, encoding="utf-8")
        self._draw(table)
        say(f"wrote {self.output}/leaderboard.csv, .md and pictures")
        return table

    def _draw(self, table: pd.DataFrame) -> None:
        experiment = Experiment.load(self.folder)
        dots = table.rename(columns={"coverage_90": "coverage"})
        wanted = ("mu", "lambda_x", "lambda_t", "rmse", "crps", "coverage", "seconds")
        columns = [c for c in wanted if c in dots]
        units = {"rmse": "", "crps": ""} if images(experiment) else None
        figure = plots.leaderboard(dots, columns=columns, units=units)
        figure.savefig(self.output / "leaderboard.png", dpi=150)
        if not images(experiment):
            self._draw_maps(
                experiment, [k for k in table.index if (self.output / f"{k}.nc").exists()]
            )

    def _draw_maps(self, experiment: Experiment, names: Sequence[str]) -> None:
        grid = map_grid(experiment, self.step)
        assert grid.epoch is not None
        dates = dates_of(grid.axes["time"], grid.epoch)
        truth = grid.unflatten(truth_at(experiment, grid)).numpy()
        errors, planes, readings = {}, {}, {}
        rows = {row["method"]: row for row in self.rows()}
        seen = chosen(experiment.observations, self.only)
        for name in names:
            with xr.open_dataset(self.output / f"{name}.nc") as ds:
                mean, std = ds[experiment.variable].load(), ds[f"{experiment.variable}_std"].load()
            mean = mean.rename(latitude="lat", longitude="lon")
            std = std.rename(latitude="lat", longitude="lon")
            errors[name] = np.sqrt(((mean.values - truth) ** 2).mean(axis=(1, 2)))
            planes[name] = _plane(mean.values, truth, grid)
            row = rows[name]
            readings[name] = {
                "odc2020a": (row["lambda_x"], row["lambda_t"]),
                "robust": (row["robust_lambda_x"], row["robust_lambda_t"]),
            }
            day = dates[len(dates) // 2]
            true = experiment.truth[experiment.variable]
            for shown in ("ssh", "vorticity"):
                figure = plots.panels(true, seen, mean, day, field=shown)
                figure.savefig(self.output / f"{name}_{shown}.png", dpi=110)
            figure = plots.uncertainty(mean, std, mean.copy(data=truth))
            figure.savefig(self.output / f"{name}_uncertainty.png", dpi=110)
        figure = plots.rmse_in_time(dates, errors)
        figure.savefig(self.output / "rmse.png", dpi=130)
        figure = plots.score_plane(planes, readings=readings)
        figure.savefig(self.output / "scales.png", dpi=130)


def _plane(made: np.ndarray, truth: np.ndarray, grid: Any) -> Any:
    days = np.datetime64("2000-01-01") + np.arange(len(made))
    axes = (days, grid.axes["lat"].numpy(), grid.axes["lon"].numpy())
    return spectral_score(Field(made, *axes), Field(truth, *axes))


def _published(row: Any) -> dict[str, Any]:
    return {"method": f"{row.method}, {row.setting}", **row.values, "published": True}


def _in_short(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    names = [k for k in ("mu", "lambda_x", "rmse", "crps", "coverage_90", "seconds") if k in row]
    return ", ".join(f"{k} {row[k]:.3g}" for k in names)


def _markdown(table: pd.DataFrame) -> str:
    r"""Returns the table in Markdown."""
    head = ["method", *table.columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in table.iterrows():
        cells = [_cell(v) for v in row]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "other data" if value else ""
    return "" if pd.isna(value) else f"{value:.3g}"
