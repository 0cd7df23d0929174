r"""The story of a trained solver: a sea it has never seen, and the same data mapped by kriging."""

from __future__ import annotations

__all__ = ["tell_gulfstream"]

from pathlib import Path

from .border import say
from .demonstrate import demo_folder
from .osse import made
from ..compare import Board
from ..fit import load_model, pretrained

MODEL = "gulfstream-4dvarnet"
DAYS = (14, 7)
"""The days before the first map, and those that are mapped."""
SHOWN = ("mu", "lambda_x", "rmse", "crps", "coverage_90", "seconds")


def tell_gulfstream(output: Path, seed: int = 0) -> None:
    r"""Simulates a Gulf Stream and its altimetry, and maps it by kriging and by a trained solver.

    The seeds of the oceans that the solver learned from are of another stream than this one.
    """
    folder = demo_folder(output)
    folder.mkdir(exist_ok=True)
    say("1. simulate the Gulf Stream, seen by four altimeters")
    if not (folder / "osse" / "osse.json").exists():
        made("gulfstream", constellation="4nadirs", seed=seed, days=DAYS).save(folder / "osse")
    model = pretrained()[MODEL]
    say(f"2. map it by optimal interpolation, and by: {load_model(model).card.notes}")
    board = Board(folder / "osse", folder / "board", models={MODEL: model})
    board.run(["oi", MODEL], say)
    table = board.write(False, say)
    say("3. scores against the truth (heights in metres, scales in degrees)")
    print(table[list(SHOWN)].to_string(float_format=lambda v: f"{v:.3g}", na_rep=""))
    say(f"done: pictures and maps are in {folder}/board. The same, by hand:")
    say(f"  matheron compare {folder}/osse --methods oi,{MODEL}={MODEL} -o board")
