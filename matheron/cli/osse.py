r"""An experiment from the command line: an ocean, its observations, and what to do with them."""

from __future__ import annotations

__all__ = ["made", "make_osse", "next_command"]

import contextlib
import shlex

from collections.abc import Callable, Iterator
from pathlib import Path
from rich.progress import Progress, TaskID
from typing import Any

from .border import console, say
from ..osse.experiment import Experiment
from ..osse.folder import check


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    r"""Yields what draws a bar for each work; on a terminal only."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield tell


def made(preset: str, **settings: Any) -> Experiment:
    r"""Makes an experiment behind a bar: the settings are those of :meth:`Experiment.make`."""
    with _bars() as tell:
        return Experiment.make(preset, progress=tell, **settings)


def make_osse(
    output: Path,
    preset: str,
    constellation: str | None,
    noise: str | None,
    seed: int,
    days: int | None,
    train: bool,
    size: int | None,
    sst: bool | str,
    force: bool,
) -> str:
    r"""Makes an experiment and writes its folder; returns what was made, in words."""
    check(output, force)
    names: dict[str, Any] = {"constellation": constellation, "noise": noise, "seed": seed}
    experiment = made(preset, **names, days=days, train=train, size=size, sst=sst)
    experiment.save(output, force)
    say(f"wrote {output}/")
    if train:
        where = shlex.quote(str(output))
        more = " --covariates sst" if sst else ""
        say(f"to learn on it: matheron fit {where} --method unet{more} --minutes 30 -o model")
    return experiment.summary


def next_command(folder: Path, preset: str) -> str:
    r"""Returns the command that goes on from an experiment.

    Example:
        >>> next_command(Path("osse"), "gulfstream")
        'matheron compare osse --methods oi,spde,miost -o leaderboard'
    """
    methods = "oi,dineof" if preset == "sediment" else "oi,spde,miost"
    return f"matheron compare {shlex.quote(str(folder))} --methods {methods} -o leaderboard"
