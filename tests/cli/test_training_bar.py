"""The bar of a training: shown on a terminal, silent in a pipe."""

import io
import pytest

from rich.console import Console

from matheron.cli import training
from matheron.fit.schedule import TrainingProgress


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(monkeypatch, terminal: bool) -> None:
    out = io.StringIO()
    shown = Console(file=out, force_terminal=terminal, width=100)
    monkeypatch.setattr(training, "console", shown)
    with training.training_bar("training") as tell:
        tell(TrainingProgress(1, 3, 0.5, None, 1e-3, 8.0))
        tell(TrainingProgress(2, 3, 0.25, 0.75, 1e-3, 4.0))
    told = out.getvalue()
    assert ("loss 0.25, validation 0.75" in told) == terminal
    assert terminal or not told
