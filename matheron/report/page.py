r"""The page as text: one HTML file with its style and pictures inside."""

from __future__ import annotations

__all__ = ["page", "picture", "score_table", "section", "table", "write_whole"]

import base64
import html
import io
import math
import os

from collections.abc import Mapping, Sequence
from matplotlib.figure import Figure
from pathlib import Path

SHOWN = {
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "bias": "bias, map minus truth",
    "crps": "CRPS, Gaussian",
    "crps_ensemble": "CRPS, ensemble",
    "interval_score": "interval score at 95 %",
    "coverage_50": "coverage of the 50 % interval",
    "coverage_90": "coverage of the 90 % interval",
    "coverage_95": "coverage of the 95 % interval",
    "spread_skill": "spread over skill",
    "energy_score": "energy score",
}
UNITLESS = {"spread_skill"}


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5d9de; --soft: #5b6570 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #14171b; --line: #353b43; --soft: #9aa4b0 }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p { color: var(--soft); margin: .3rem 0 .8rem }
table { border-collapse: collapse; font-size: .92rem }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere }
th { font-weight: 500; color: var(--soft); white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; padding: .4rem;
  box-sizing: border-box }
"""


def page(title: str, sections: Sequence[str]) -> str:
    r"""Returns the whole page."""
    title = html.escape(title)
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: report</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def section(title: str, body: str) -> str:
    r"""Returns a titled part of the page."""
    return f"<section>\n<h2>{html.escape(title)}</h2>\n{body}\n</section>"


def picture(title: str, figure: Figure, text: str) -> str:
    r"""Returns a part of the page with a sentence and a figure, which is held inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    image = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
    return section(title, f"<p>{html.escape(text)}</p>\n{image}")


def table(rows: Mapping[str, str]) -> str:
    cells = (
        f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items()
    )
    return "<table>\n" + "\n".join(cells) + "\n</table>"


def score_table(values: Mapping[str, float], units: str) -> str:
    r"""Returns a table of scores in the units of the field, coverages in per cent."""
    cells = []
    for name, value in values.items():
        said, unit = html.escape(SHOWN.get(name, name)), html.escape(units)
        if name.startswith("coverage"):
            text, unit = f"{100 * value:.1f}", "%"
        else:
            text = f"{value:.4g}" if math.isfinite(value) else "none"
            unit = "" if name in UNITLESS else unit
        cells.append(f'<tr><th>{said}</th><td class="number">{text}</td><td>{unit}</td></tr>')
    return "<table>\n" + "\n".join(cells) + "\n</table>"


def write_whole(path: Path, text: str) -> None:
    r"""Writes a file whole or not at all: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
