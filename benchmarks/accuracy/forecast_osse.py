"""Forecasts of a simulated Gulf Stream, one to five days ahead, beside persistence.

A separable Markov field is fitted on the data of four altimeters before the first "now" and
conditioned on those up to each "now"; its map of "now", kept as it is, is persistence. Scores are
against the truth, of the anomalies from the mean front.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
import torch

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

from matheron.compare import problem_of
from matheron.compare.scores import truth_at
from matheron.domain import Grid
from matheron.mappers import mapper
from matheron.metrics import summary
from matheron.osse import Experiment

NOWS = (10.0, 16.0, 22.0, 28.0, 34.0)
LEADS = 5
BACK = 25.0
"""The days of data before now."""


def main() -> None:
    """Forecasts from each "now", and scores by lead."""
    start = time.perf_counter()
    place = Path(tempfile.gettempdir()) / "matheron-leaderboard" / "gulfstream" / "osse"
    if not (place / "osse.json").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        Experiment.make("gulfstream", "4nadirs,swot", seed=1).save(place)
    experiment = Experiment.load(place)
    nadirs = [k for k in experiment.observations if "swot" not in k]
    whole = problem_of(experiment, only=nadirs)
    pieces = []
    for now in NOWS:
        axes = {k: whole.grid.axes[k] for k in ("lat", "lon")}
        times = now + torch.arange(LEADS + 1, dtype=torch.float64)
        grid = Grid(time=times, **axes, metric="sphere", epoch=whole.grid.epoch)
        n = len(axes["lat"]) * len(axes["lon"])
        front = whole.known[1][:n].repeat(LEADS + 1)
        near = whole.near(now - BACK, now)
        problem = dataclasses.replace(near, grid=grid, known=(near.known[0], front))
        found = mapper("spde")(problem, print)
        truth = truth_at(experiment, grid)
        rows = torch.stack([found.mean, found.std(), truth], dim=-1).reshape(LEADS + 1, n, 3)
        pieces.append(rows)
    every = torch.stack(pieces, dim=1)
    rows = []
    for lead in range(1, LEADS + 1):
        mean, std, truth = every[lead].reshape(-1, 3).unbind(dim=-1)
        kept, kept_std, _ = every[0].reshape(-1, 3).unbind(dim=-1)
        ours, still = summary(mean, std, truth), summary(kept, kept_std, truth)
        rows.append(
            {
                "lead_days": lead,
                "rmse_m": ours["rmse"],
                "persistence_rmse_m": still["rmse"],
                "crps_m": ours["crps"],
                "persistence_crps_m": still["crps"],
                "coverage_90": ours["coverage_90"],
                "persistence_coverage_90": still["coverage_90"],
                "spread_skill": ours["spread_skill"],
                "seconds": time.perf_counter() - start,
            }
        )
    finish("Forecasts of a simulated Gulf Stream", "forecast_osse", rows)


if __name__ == "__main__":
    main()
