r"""What the commands share: words to the user, names of coordinates, output folders."""

from __future__ import annotations

__all__ = ["Names", "console", "output_folder", "say", "working"]

import contextlib
import time

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from rich.console import Console
from typing import Any

from ..data import InputError

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    r"""Says one line on stderr."""
    console.print(text, markup=False)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    r"""Shows that work goes on, on a terminal; says how long it took, in a pipe as well."""
    start = time.perf_counter()
    with console.status(text) if console.is_terminal else contextlib.nullcontext():
        yield
    say(f"{text}: {time.perf_counter() - start:.1f} s")


@dataclass(frozen=True)
class Names:
    r"""The names of coordinates in a file, where they are not the usual ones."""

    lon: str | None = None
    lat: str | None = None
    time: str | None = None
    x: str | None = None
    y: str | None = None

    def given(self) -> dict[str, Any]:
        r"""Returns the names that were given."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def output_folder(path: Path, resume: bool) -> Path:
    r"""Returns an output folder, refused if it holds a model that would be lost."""
    if path.exists() and not path.is_dir():
        msg = f"fit(output={path}): expected a folder, got a file. Name another folder."
        raise InputError(msg)
    if not path.parent.is_dir():
        msg = f"fit(output={path}): expected an existing parent folder, got none. Make it first."
        raise InputError(msg)
    if (path / "model.json").exists() and not resume:
        msg = (
            f"fit(output={path}): expected a new folder, got one with a model. "
            "Give --resume to go on from it, or name another folder."
        )
        raise InputError(msg)
    return path
