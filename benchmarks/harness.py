"""What the benchmarks share: where the real data are, a table on the screen, rows in a CSV."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys

from collections.abc import Sequence
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def real_data(*parts: str) -> Path:
    """Returns a real data file; the benchmark stops, and says so, where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("MATHERON_DATA", beside)).joinpath(*parts)
    if not path.exists():
        sys.exit(f"benchmark not run: {'/'.join(parts)} is absent; set MATHERON_DATA")
    return path


def _commit() -> str:
    root = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(title: str, rows: Sequence[dict[str, object]]) -> None:
    """Prints rows as a table."""
    names = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[_shown(row.get(k, "")) for k in names] for row in rows]
    widths = [max(len(k), *(len(c[i]) for c in cells)) for i, k in enumerate(names)]
    print(f"\n{title}")
    print("  ".join(k.ljust(w) for k, w in zip(names, widths, strict=True)))
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)), flush=True)


def record(task: str, rows: Sequence[dict[str, object]]) -> None:
    """Appends rows to the CSV of a task, each with the date, the commit and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{task}.csv"
    head = {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    full = [{**head, **row} for row in rows]
    old: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = list(csv.DictReader(file))
    names = list(dict.fromkeys(k for row in [*old, *full] for k in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows([*old, *full])


def finish(title: str, task: str, rows: Sequence[dict[str, object]]) -> None:
    """Prints and records."""
    show(title, rows)
    record(task, rows)
