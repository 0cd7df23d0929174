"""The story of a trained solver, as a user would see it."""

import pytest

from matheron.compare import Board


@pytest.mark.slow
def test_the_trained_solver_is_ahead_of_kriging(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli("demo", "--story", "gulfstream", "-o", "told", "--seed", 3)
    assert ran.code == 0, ran.err
    assert "matheron compare told/osse" in ran.err
    table = Board(tmp_path / "told" / "osse", tmp_path / "told" / "board").table()
    assert table.loc["gulfstream-4dvarnet", "rmse"] < 0.85 * table.loc["oi", "rmse"]
    assert table.loc["gulfstream-4dvarnet", "lambda_x"] < table.loc["oi", "lambda_x"]
