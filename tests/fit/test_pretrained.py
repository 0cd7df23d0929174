"""The trained solvers that come with the library: small, whole, and with their command."""

import pytest

from pathlib import Path

from matheron.data import InputError
from matheron.fit import load_model, model_folder, pretrained
from matheron.mappers import mapper

LARGEST = 4e6


@pytest.mark.parametrize("name", pretrained())
def test_they_can_be_loaded_and_are_small(name):
    folder = pretrained()[name]
    files = {p.name: p.stat().st_size for p in folder.iterdir()}
    assert set(files) == {"model.json", "weights.safetensors"}
    assert sum(files.values()) < LARGEST
    model = load_model(Path(name))
    card = model.card
    assert card.command
    assert card.seed is not None
    assert card.scores


def test_a_folder_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(pretrained()))
    assert model_folder(Path(name)) == pretrained()[name]
    Path(name).mkdir()
    assert model_folder(Path(name)) == Path(name)
    with pytest.raises(InputError):
        load_model(Path(name))


@pytest.mark.parametrize(
    "name", ["gulfstream-unet", "gulfstream-4dvarnet", "gulfstream-4dvarnet-spde"]
)
def test_the_gulfstream_is_a_mapper(name):
    found = mapper("mine", Path(name), "ssh", "m")
    scores = found.model.card.scores
    # it was better than its first guess on days that it did not learn from
    assert scores["rmse"] < 0.8 * scores["rmse_first_guess"]
    assert 0.9 < scores["spread_skill"] < 1.1
