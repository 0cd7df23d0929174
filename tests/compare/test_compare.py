"""Every method on one experiment: the same data, the same scores, nothing lost."""

from __future__ import annotations

import json
import numpy as np
import pytest
import torch
import xarray as xr

from matheron.compare import Board, problem_of, score_map
from matheron.compare.problems import map_grid
from matheron.compare.scores import truth_at
from matheron.osse import Experiment


@pytest.fixture(scope="module")
def small():
    return Experiment.make(
        "gulfstream", "1nadir,swot", days=6, size=32, spacing=0.5, spin_up=60, cache=False
    )


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    return small.save(tmp_path_factory.mktemp("osse") / "osse")


def test_data_are_the_truth_where_nothing_disturbs(small):
    problem = problem_of(small, step=1.0)
    truth = small.truth["ssh"]
    t = problem.grid.epoch + (problem.points.axis("time").numpy() * 86400e9).astype("timedelta64")
    at = {
        "time": ("m", t),
        "lat": ("m", problem.points.axis("lat").numpy()),
        "lon": ("m", problem.points.axis("lon").numpy()),
    }
    found = truth.interp({k: xr.DataArray(v[1], dims="m") for k, v in at.items()}).values
    known = np.isfinite(found)  # the truth ends at 18 h of the last day, the data do not
    assert known.mean() > 0.95
    assert np.abs(found - problem.values.numpy())[known].max() < 1e-4  # files are in float32
    assert len(problem.blocks[1]) < len(problem) / 4


def test_passes_are_short_and_apart(small):
    problem = problem_of(small, step=1.0)
    t = problem.points.axis("time")
    for k in problem.passes.unique():
        own = t[problem.passes == k]
        assert own.max() - own.min() < 0.02
    assert len(problem.passes.unique()) > 3


def test_known_mean_is_the_front(small):
    problem = problem_of(small, step=1.0)
    assert problem.anomalies.std() < problem.values.std()
    there = problem.grid.points
    found = small.mdt.interp(
        lat=xr.DataArray(there.axis("lat").numpy(), dims="n"),
        lon=xr.DataArray(there.axis("lon").numpy(), dims="n"),
    )
    torch.testing.assert_close(problem.known[1], torch.as_tensor(found.values).double())


def test_the_truth_has_the_best_scores(small):
    grid = map_grid(small, 0.5)
    truth = truth_at(small, grid)
    perfect = score_map(small, truth, torch.full_like(truth, 1e-3), grid)
    assert perfect["rmse"] == 0
    assert perfect["robust_mu_anomaly"] > 0.999
    worse = score_map(small, truth.flip(0), torch.full_like(truth, 1e-3), grid)
    assert worse["mu"] < perfect["mu"] - 0.3
    assert worse["crps"] > 10 * perfect["crps"]
    noise = 0.1 * torch.randn(len(truth), generator=torch.Generator().manual_seed(0))
    fair = score_map(small, truth + noise, torch.full_like(truth, 0.1), grid)
    # 5 standard errors of a share
    assert abs(fair["coverage_90"] - 0.9) < 5 * (0.09 / len(truth)) ** 0.5
    assert fair["rmse"] == pytest.approx(0.1, rel=5 / (2 * len(truth)) ** 0.5)


def test_a_board_is_kept_and_goes_on(folder, tmp_path):
    said = []
    board = Board(folder, tmp_path / "board", step=1.0, only=["jason1"])
    table = board.run(["oi-odc2020a"], said.append, alone=False)
    row = table.loc["oi-odc2020a"]
    assert row["rmse"] > 0
    assert row["seconds"] > 0
    board.run(["oi-odc2020a"], said.append, alone=False)
    assert said[-1] == "oi-odc2020a: kept"
    with xr.open_dataset(tmp_path / "board" / "oi-odc2020a.nc") as ds:
        assert set(ds) == {"ssh", "ssh_std"}
        grid = map_grid(Experiment.load(folder), 1.0)
        truth = grid.unflatten(truth_at(Experiment.load(folder), grid)).numpy()
        rmse = float(np.sqrt(((ds.ssh.values - truth) ** 2).mean()))
    assert rmse == pytest.approx(row["rmse"], rel=1e-5)
    other = Board(folder, tmp_path / "board", step=0.5, only=["jason1"])
    with pytest.raises(ValueError, match="same experiment and settings"):
        other.run(["oi-odc2020a"], said.append, alone=False)


def test_a_failure_is_a_row(folder, tmp_path, monkeypatch):
    def fails(problem, say):
        raise ValueError("f(x=...): expected luck, got none. Try again.")

    monkeypatch.setitem(__import__("matheron.mappers", fromlist=["x"]).MAPPERS, "oi", fails)
    board = Board(folder, tmp_path / "board", step=1.0)
    said = []
    table = board.run(["oi"], said.append, alone=False)
    assert "expected luck" in said[-1]
    assert "oi" not in table.index
    assert json.loads((tmp_path / "board" / "oi.json").read_text())["failed"].startswith("f(x=")


def test_a_row_that_is_there_is_of_this_run(folder, tmp_path, monkeypatch):
    board = Board(folder, tmp_path / "board", step=1.0)
    board.run(["oi-odc2020a"], lambda _: None, alone=False)
    # a process that the system stops writes nothing
    monkeypatch.setattr("matheron.compare.runs._Job.run", lambda job: None)
    said = []
    board.run(["oi-odc2020a"], said.append, force=True, alone=False)
    assert "stopped by the system" in said[-1]
    assert board.table().empty


def test_pictures_and_published_rows(folder, tmp_path):
    board = Board(folder, tmp_path / "board", step=1.0)
    board.run(["oi-odc2020a"], lambda _: None, alone=False)
    table = board.write(True, lambda _: None)
    assert table["published"].sum() > 10
    assert not table.loc["oi-odc2020a", "published"]
    names = {p.name for p in (tmp_path / "board").iterdir()}
    wanted = {"leaderboard.csv", "leaderboard.md", "leaderboard.png", "rmse.png", "scales.png"}
    assert wanted | {"oi-odc2020a_ssh.png", "oi-odc2020a_vorticity.png"} <= names
    assert "other data" in (tmp_path / "board" / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ["dineof"]}, "methods for tracks"),
        ({"methods": ["nobody"]}, "expected one of"),
        ({"only": ["moon"]}, "observations among"),
        ({"step": -1.0}, "a step in degrees"),
        ({"step": 0.0}, "a step in degrees"),
    ],
)
def test_bad_input_is_refused(folder, tmp_path, change, said):
    methods = change.pop("methods", ["oi-odc2020a"])
    board = Board(folder, tmp_path / "board", **({"step": 1.0} | change))
    with pytest.raises(ValueError, match=said):
        board.run(methods, lambda _: None, alone=False)
    assert not (tmp_path / "board").exists()


def test_images_are_scored_where_they_are_hidden():
    experiment = Experiment.make("sediment", days=4, cache=False, spacing=0.2)
    problem = problem_of(experiment)
    grid = problem.grid
    truth = truth_at(experiment, grid)
    assert (problem.values < 20).all()  # logarithms
    right = score_map(experiment, truth, torch.ones_like(truth), grid, problem)
    assert right["rmse"] == 0
    # what is wrong where it was seen does not count
    nodes, weights = grid.interpolation(problem.near(grid.axes["time"][0].item(), 1e9).points)
    wrong = truth.clone()
    wrong[nodes[weights > 0.5]] += 100.0
    assert score_map(experiment, wrong, torch.ones_like(truth), grid, problem)["rmse"] == 0
