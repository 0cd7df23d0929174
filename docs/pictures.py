"""Makes the picture and the score table of the README, from the demonstration itself.

Run it from the project's root: ``python docs/pictures.py``. It writes ``docs/images/demo.png``
and puts the table between the two marks of ``README.md``.
"""

from __future__ import annotations

import json
import tempfile
import torch
import xarray as xr

from pathlib import Path

from matheron.cli.demonstrate import demonstrate
from matheron.data import read_map
from matheron.plots import fields

ROOT = Path(__file__).resolve().parents[1]
MARKS = "<!-- scores -->", "<!-- end of scores -->"
TITLES = {
    "rmse": "root mean square error (m)",
    "crps": "CRPS (m)",
    "coverage_50": "coverage of the 50 % interval",
    "coverage_90": "coverage of the 90 % interval",
    "coverage_95": "coverage of the 95 % interval",
    "spread_skill": "spread over skill",
}


def picture(folder: Path) -> None:
    """Draws truth, mean, one member and std."""
    chart, truth = read_map(folder / "map.nc"), read_map(folder / "truth.nc")
    assert chart.members is not None
    with xr.open_dataset(folder / "truth.nc") as ds:
        on_map = ds.ssh.interp(latitude=chart.grid.axes["lat"], longitude=chart.grid.axes["lon"])
        true = torch.as_tensor(on_map.values).flatten()
    panels = {
        "the truth, which nobody sees": true,
        "mean, from two satellites' tracks": chart.mean,
        "one of 50 members": chart.members[0],
        "another": chart.members[1],
    }
    figure = fields(chart.grid, panels, units=truth.units, columns=2)
    figure.savefig(ROOT / "docs" / "images" / "demo.png", dpi=110)


def table(folder: Path) -> str:
    """Returns the scores as Markdown."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    methods = [name for name, found in scores.items() if "crps" in found]
    head = ["| score of the demonstration | " + " | ".join(methods) + " |"]
    head += ["|---" * (1 + len(methods)) + "|"]
    rows = [
        f"| {title} | " + " | ".join(f"{scores[m][k]:.3g}" for m in methods) + " |"
        for k, title in TITLES.items()
    ]
    return "\n".join([*head, *rows])


def main() -> None:
    """Runs the demonstration, and renews picture and table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "demo"
        demonstrate(folder)
        picture(folder)
        readme = ROOT / "README.md"
        head, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
        _, tail = rest.split(MARKS[1])
        text = f"{head}{MARKS[0]}\n{table(folder)}\n{MARKS[1]}{tail}"
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
