"""The demonstration with Lorenz 63."""

import json
import pandas as pd
import pytest
import torch

from pathlib import Path

from matheron.cli import lorenz_story


@pytest.mark.slow
def test_the_story_runs_through(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    ran = cli("demo", "--story", "lorenz63", "-o", "demo")
    assert ran.code == 0, ran.err
    made = {p.name for p in Path("demo").iterdir()}
    assert made == {"scores.json", "series.csv", "phase_space.png", "time_series.png"}
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    scores = json.loads(Path("demo/scores.json").read_text())
    assert all(name in ran.out for name in scores)
    rmse = {name: found["rmse"] for name, found in scores.items()}
    # a model is worth more than none, the true one more than a learned one
    assert rmse["weak 4DVar"] < rmse["learned model"] < rmse["Gaussian process"] < 2.5
    assert rmse["EnKS"] < rmse["EnKF"]
    series = pd.read_csv("demo/series.csv")
    assert series.x_data.isna().mean() == 0.5
    error = ((series.z_enks - series.z_true) ** 2).mean() ** 0.5
    assert error < 2 * rmse["EnKS"]


def test_a_story_that_is_not_known_is_told(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    ran = cli("demo", "--story", "lorenz84", "-o", "demo")
    assert ran.code == 2
    assert "expected one of sea, lorenz63" in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not Path("demo").exists()


@pytest.mark.parametrize(("output", "match"), [("file", "got a file"), ("no/demo", "parent")])
def test_a_bad_folder_is_told_before_any_work(output, match, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    ran = cli("demo", "--story", "lorenz63", "-o", output)
    assert ran.code == 2
    assert match in ran.err
    assert "simulate" not in ran.err


def test_the_folder_is_whole_or_as_it_was(tmp_path):
    folder = tmp_path / "demo"

    def interrupted():
        with lorenz_story._whole(folder) as beside:
            (beside / "scores.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with lorenz_story._whole(folder) as beside:
        (beside / "scores.json").write_text("{}")
    assert {p.name for p in folder.iterdir()} == {"mine.txt", "scores.json"}
    assert list(tmp_path.iterdir()) == [folder]


def test_scores_are_those_of_an_ensemble_about_the_truth(generator):
    truth = torch.randn(400, 3, dtype=torch.float64, generator=generator)
    centre = truth + 0.5 * torch.randn(400, 3, dtype=torch.float64, generator=generator)
    noise = torch.randn(39, 400, 3, dtype=torch.float64, generator=generator)
    found = lorenz_story.scores_of(truth, centre + 0.5 * noise)
    # 1200 independent errors: five standard errors of each score
    assert abs(found["rmse"] - 0.5 * (1 + 1 / 39) ** 0.5) < 5 * 0.5 / (2 * 1200) ** 0.5
    assert abs(found["coverage_90"] - 0.9) < 5 * (0.9 * 0.1 / 1200) ** 0.5
    assert abs(found["spread_skill"] - 1) < 5 / (2 * 1200) ** 0.5 + 1 / 39
    assert abs(found["crps"] - 0.5 / torch.pi**0.5) < 5 * 0.5 * 0.6 / 1200**0.5
