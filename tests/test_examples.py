"""The examples run, and each makes its picture."""

import pytest
import runpy

from pathlib import Path

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("plot_*.py"))


def test_there_is_one_for_every_school():
    names = {path.stem for path in EXAMPLES}
    assert names >= {
        "plot_3dvar_and_oi",
        "plot_4dvar",
        "plot_ensemble_kalman",
        "plot_analogs",
        "plot_learned_dynamics",
    }
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_makes_one_picture(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert [file.name for file in tmp_path.iterdir()] == [f"{path.stem}.png"]
    assert "nan" not in capsys.readouterr().out
