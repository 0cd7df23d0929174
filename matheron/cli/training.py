r"""How a training is shown: a bar with the time to go, on a terminal only."""

from __future__ import annotations

__all__ = ["training_bar"]

import contextlib

from collections.abc import Callable, Iterator
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .border import console
from ..fit.schedule import TrainingProgress


@contextlib.contextmanager
def training_bar(what: str = "training") -> Iterator[Callable[[TrainingProgress], None]]:
    r"""Yields what draws a bar: the step, the losses, and the time to go.

    Arguments:
        what: What is being done, in words.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        task = bars.add_task(what, total=None)

        def tell(progress: TrainingProgress) -> None:
            words = f"{what} {progress.step}/{progress.steps}, loss {progress.loss:.4g}"
            if progress.validation is not None:
                words += f", validation {progress.validation:.4g}"
            bars.update(task, description=words, completed=progress.step, total=progress.steps)

        yield tell
