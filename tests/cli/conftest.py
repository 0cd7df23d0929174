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


def markov_law(dims: tuple[str, ...] = ("lat", "lon")):
    """Returns a Markov law that needs no fit; one that moves, if it has a time."""
    from matheron.kernels import Matern
    from matheron.priors.spde.fields import Constant
    from matheron.selection.lattices import Spacing
    from matheron.selection.laws import MarkovLaw

    kernel = Matern(1.0, 0.5, [200e3, 250e3])
    steps, origin = {"lat": 0.5, "lon": 0.5}, {"lat": 36.0, "lon": -4.0}
    if "time" not in dims:
        return MarkovLaw("spde", 2.0, kernel, Spacing(steps, origin))
    spacing = Spacing({"time": 1.0, **steps}, {"time": 0.0, **origin})
    carried = Constant([0.0, 5e3], 20e3)
    return MarkovLaw("advection-diffusion", 2.0, kernel, spacing, 4.0, carried)


def save_markov(folder: Path, dims: tuple[str, ...] = ("lat", "lon")):
    """Writes a Markov model that needs no fit, and returns its law."""
    from matheron.cli.model import Model

    law = markov_law(dims)
    Model(law, "1", "sphere", dims, {"": 0.1}, variable="ssh").save(Path(folder))
    return law


@pytest.fixture
def make_markov():
    return save_markov


@pytest.fixture
def make_moving():
    return lambda folder: save_markov(folder, ("time", "lat", "lon"))


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
