"""Suspended sediment under clouds: learned solvers beside optimal interpolation and DINEOF.

    python sediment_learned.py [--gaps clouds,random] [--methods dineof,oi,unet,unet-data,...]
        [--minutes 10 | --updates 2000]

Images of a positive field off a coast, with lognormal errors of 25 %, are mapped by their
logarithm and scored where they were hidden, as decimal logarithms, like the published table
(Vient et al., 2022, https://doi.org/10.3390/rs14164024): OI .346, DINEOF .253, 4DVarNet .168 under
patches; .304, .237, .156 at random; .176, .167, .104 on an OSSE. Fields are others: what may be
compared is 4DVarNet over DINEOF, .62 to .67 there.

Solvers learn on other coasts, with other rivers, winds and clouds, from the truth, or from the
data alone (``-data``): then the truth is never read, and the loss is at data withheld.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish, show

from matheron.compare import Board, Plan, course_of, learn, timed
from matheron.osse import Experiment

SEED = 1
PLAIN = ("oi", "dineof", "vecchia")
PLANS = {
    "unet": Plan("unet", window=9, oceans=4),
    "4dvarnet": Plan("4dvarnet", window=9, oceans=4, iterations=4, patch=32, width=16, batch=4),
}
LEARNED = PLANS | {
    # of data alone three lessons are made of each ocean
    f"{name}-data": dataclasses.replace(plan, supervision="data", oceans=1)
    for name, plan in PLANS.items()
}
PUBLISHED = (
    {"gaps": "patch", "method": "OI", "rmse_log10": 0.346},
    {"gaps": "patch", "method": "DINEOF", "rmse_log10": 0.253},
    {"gaps": "patch", "method": "4DVarNet", "rmse_log10": 0.168, "over_dineof": 0.66},
    {"gaps": "random", "method": "OI", "rmse_log10": 0.304},
    {"gaps": "random", "method": "DINEOF", "rmse_log10": 0.237},
    {"gaps": "random", "method": "4DVarNet", "rmse_log10": 0.156, "over_dineof": 0.66},
    {"gaps": "OSSE", "method": "OI", "rmse_log10": 0.176},
    {"gaps": "OSSE", "method": "DINEOF", "rmse_log10": 0.167},
    {"gaps": "OSSE", "method": "4DVarNet", "rmse_log10": 0.104, "over_dineof": 0.62},
)


def made(place: Path, gaps: str) -> Path:
    """Returns the folder of the experiment, made if it is not there."""
    folder = place / gaps
    if not (folder / "osse.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        Experiment.make("sediment", gaps, seed=SEED, train=True).save(folder)
    return folder


def taught(name: str, folder: Path, place: Path, effort: tuple[float, int | None]) -> Path:
    """Returns the folder of a solver, trained if it is not there, for minutes or updates."""
    minutes, updates = effort
    model = place / f"{folder.name}-{name}-{f'{updates}' if updates else f'{minutes:g}min'}"
    if (model / "model.json").exists():
        return model
    plan = LEARNED[name]
    oceans = place / f"{folder.name}-{plan.supervision}-{plan.first}.safetensors"
    plan = dataclasses.replace(plan, updates=updates or plan.updates)
    course = course_of(Experiment.load(folder), plan, print, oceans)
    course = course if updates else timed(course, minutes)
    model.mkdir(exist_ok=True)
    learn(course, model, checkpoint=model / "run.safetensors", progress=_tell)
    (model / "run.safetensors").unlink(missing_ok=True)
    return model


def _tell(progress) -> None:
    if progress.step % max(1, progress.steps // 10) == 0:
        print(
            f"{progress.step} of {progress.steps}: loss {progress.loss:.4f}, validation "
            f"{progress.validation or math.nan:.4f}, {progress.eta:.0f} s left",
            flush=True,
        )


def row_of(table, name: str, gaps: str, card: dict) -> dict:
    """Returns the row of a method, in decimal logarithms."""
    ten, row = math.log(10.0), table.loc[name]
    dineof = table.loc["dineof", "rmse"] if "dineof" in table.index else math.nan
    return {
        "gaps": gaps,
        "method": name,
        "rmse_log10": row["rmse"] / ten,
        "crps_log10": row["crps"] / ten,
        "coverage_90": row["coverage_90"],
        "spread_skill": row["spread_skill"],
        "over_dineof": row["rmse"] / dineof,
        "seconds": row["seconds"],
        "training_seconds": card.get("scores", {}).get("training_seconds", math.nan),
        "training": card.get("notes", ""),
    }


def main() -> None:
    """Maps by each method, and keeps its row as soon as it is there."""
    told = argparse.ArgumentParser()
    told.add_argument("--gaps", default="clouds,random")
    told.add_argument("--methods", default=",".join(["dineof", "oi", "vecchia", *LEARNED]))
    told.add_argument("--minutes", type=float, default=10.0)
    told.add_argument("--updates", type=int, help="instead of --minutes")
    told.add_argument("--folder", type=Path, default=None)
    asked = told.parse_args()
    place = asked.folder or Path(tempfile.gettempdir()) / "matheron-sediment"
    for gaps in asked.gaps.split(","):
        folder = made(place, gaps)
        for name in asked.methods.split(","):
            row = mapped(name, gaps, folder, place, (asked.minutes, asked.updates))
            finish(f"Suspended sediment, {gaps}", "sediment_learned", [row])
    show("published, other data", PUBLISHED)


def mapped(
    name: str, gaps: str, folder: Path, place: Path, effort: tuple[float, int | None]
) -> dict:
    """Returns the row of one method."""
    models, card = {}, {}
    if name not in PLAIN:
        models[name] = taught(name, folder, place, effort)
        card = json.loads((models[name] / "model.json").read_text(encoding="utf-8"))["card"]
    board = Board(folder, place / f"board-{gaps}", models=models)
    return row_of(board.run([name]), name, gaps, card)


if __name__ == "__main__":
    main()
