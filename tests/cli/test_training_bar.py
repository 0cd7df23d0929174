"""The bar of a training: shown on a terminal, silent in a pipe."""

import io
import pytest
import subprocess
import sys

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


def test_the_command_line_starts_without_what_trainings_take() -> None:
    # Fabric takes more than a second to import, at every command
    code = "import sys, matheron.cli.app; print('lightning_fabric' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
