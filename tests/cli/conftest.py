"""A folder with sound files, and the command line run inside this process."""

import numpy as np
import pandas as pd
import pytest
import shutil
import sys
import torch

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Ran:
    """What a command gave: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs one command line inside this process."""
    from matheron.cli import main

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["matheron", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        seen = capsys.readouterr()
        return Ran(int(ended.value.code or 0), seen.out, seen.err)

    return run


def tracks(size: int = 40, seed: int = 0) -> pd.DataFrame:
    """Returns noisy data of a smooth field."""
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-4, 4, size), rng.uniform(36, 42, size)
    ssh = np.sin(lon / 2) + np.cos(lat / 2) + 0.1 * rng.standard_normal(size)
    return pd.DataFrame({"lon": lon, "lat": lat, "ssh": ssh}).round(6)


@pytest.fixture
def make_tracks():
    return tracks


def save_model(
    folder: Path, dims: tuple[str, ...] = ("lat", "lon"), metric: str = "sphere"
) -> Path:
    """Writes a model that needs no fit."""
    from matheron.cli.model import Model
    from matheron.kernels import Matern, separable

    space = Matern(1.5, 0.5, 200e3 if metric == "sphere" else 2.0, axes="space")
    alone = Matern(1.5, 0.5, 200e3 if metric == "sphere" else 2.0)
    kernel = separable(Matern(0.5, 1.0, 3.0, axes="time"), space) if "time" in dims else alone
    Model(kernel, "1", metric, dims, {"": 0.1}, variable="ssh").save(folder)
    return folder


@pytest.fixture
def make_model():
    return save_model


@pytest.fixture
def here(sound, tmp_path, monkeypatch):
    """A working folder of one's own, with sound files."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A folder with sound data, points, a model, and a map and its truth."""
    from matheron.data import map_dataset, write_dataset
    from matheron.domain import Grid

    folder = tmp_path_factory.mktemp("sound")
    data = tracks()
    data.to_csv(folder / "tracks.csv", index=False)
    data[["lon", "lat"]].head(5).to_csv(folder / "points.csv", index=False)
    save_model(folder / "model")
    grid = Grid(lat=[36.0, 38.0, 40.0, 42.0], lon=[-4.0, -2.0, 0.0, 2.0, 4.0])
    lon, lat = grid.points.axis("lon"), grid.points.axis("lat")
    truth = torch.sin(lon / 2) + torch.cos(lat / 2)
    std = torch.full_like(truth, 0.1)
    members = truth + 0.1 * torch.randn(
        7, len(truth), generator=torch.Generator().manual_seed(1), dtype=truth.dtype
    )
    made = map_dataset(grid, truth + 0.05, std, 1.4 * std, members, variable="ssh", units="m")
    write_dataset(made, folder / "map.nc")
    write_dataset(map_dataset(grid, truth, variable="ssh", units="m"), folder / "truth.nc")
    return folder
