"""Every mapper on one simulated ocean: the leaderboard.

    python leaderboard.py gulfstream [METHOD...]   four nadir altimeters, then these and SWOT
    python leaderboard.py gulfstream --only 4nadirs [METHOD...]           the first of them
    python leaderboard.py sediment [METHOD...]     images under clouds

A METHOD may be a trained solver: ``unet=FOLDER``, made by

    matheron osse --preset gulfstream --seed 1 --train -o osse
    matheron fit osse --method unet --oceans 8 --updates 4500 -o FOLDER

Maps that are there are kept; with ``--again`` those of the methods are made anew.

Truth: two layers of quasi-geostrophic turbulence and a mean front, over the 42 days of the 2020a
challenge, without errors of the instruments as there. The mean front is known to all mappers but
the challenge's own optimal interpolation. Numbers are not those of the published leaderboard:
that is of another ocean.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import RESULTS, finish

from matheron.cli.comparing import named
from matheron.compare import Board
from matheron.mappers import IMAGES, TRACKS
from matheron.osse import Experiment

NADIRS = ("topex-poseidon_interleaved", "jason1", "geosat2", "envisat")
SHOWN = ("leaderboard.png", "scales.png", "rmse.png")


def main() -> None:
    """Makes the experiment, or goes on with the one that is there, and maps it."""
    told = argparse.ArgumentParser()
    told.add_argument("preset", nargs="?", default="gulfstream")
    told.add_argument("methods", nargs="*")
    told.add_argument("--only", help="one of the sets of observations")
    told.add_argument("--again", action="store_true")
    told.add_argument("--seed", type=int, default=1, help="that of the ocean")
    asked = told.parse_intermixed_args()
    preset, sea = asked.preset, asked.preset != "sediment"
    told_folders = named(",".join(asked.methods)) if asked.methods else {}
    methods = list(told_folders) or list(TRACKS if sea else IMAGES)
    models = {k: v for k, v in told_folders.items() if v is not None}
    place = Path(tempfile.gettempdir()) / "matheron-leaderboard" / preset
    if asked.seed != 1:
        place = place.with_name(f"{preset}-{asked.seed}")
    if not (place / "osse" / "osse.json").exists():
        made = Experiment.make(preset, "4nadirs,swot" if sea else None, seed=asked.seed)
        place.mkdir(parents=True, exist_ok=True)
        made.save(place / "osse")
    every = Experiment.load(place / "osse").observations
    sets = {"4nadirs": [k for k in every if "swot" not in k], "4nadirs,swot": list(every)}
    sets = sets if sea else {"clouds": list(every)}
    for name in [asked.only] if asked.only else sets:
        board = Board(place / "osse", place / name, only=sets[name], models=models)
        for method in methods if asked.again else ():
            (place / name / f"{method}.json").unlink(missing_ok=True)
        board.run(methods)
        table = board.write()
        known = {"preset": preset, "observations": name, "ocean": asked.seed}
        rows = [{**known, "method": k, **r} for k, r in _of(table)]
        task = "leaderboard" if sea else "leaderboard_sediment"
        finish(f"Leaderboard, {preset}, {name}", task, [r for r in rows if r["method"] in methods])
        for picture in SHOWN if asked.seed == 1 else ():
            if (place / name / picture).exists():
                label = f"leaderboard_{name.replace(',', '_')}_{picture.removesuffix('.png')}.png"
                shutil.copy(place / name / picture, RESULTS / label)


def _of(table) -> list:
    return [(k, row.to_dict()) for k, row in table.iterrows()]


if __name__ == "__main__":
    main()
