"""Trained solvers on disk: they come back to the bit, and nothing else is taken for one."""

import copy
import json
import pytest
import torch

from pathlib import Path
from safetensors.torch import load_file, save_file

import matheron as mt

from matheron.data import InputError
from matheron.described import Described
from matheron.fit.architecture import build, describe, known_classes
from matheron.fit.model_file import Card, load_model, save_model
from tests.fit.learned_models import Gain, Level, problem

CLASSES = {"Gain": Gain, "Level": Level}
CARD = Card("ssh", "m", {"mean": 0.1, "std": 0.3}, {"train": ["a", "b"]}, 7, "fit", {"mu": 0.9})


def _saved(folder: Path, **settings) -> tuple[Gain, Level]:
    law, _, _ = problem()
    solver, prior = Gain(6, dropout=0.25), Level(law.domain, width=3.0)
    with torch.no_grad():
        solver.gain.normal_(generator=torch.Generator().manual_seed(0))
        prior.level.fill_(0.7)
    save_model(folder, solver, prior, CARD, classes=CLASSES, **settings)
    return solver, prior


def test_a_model_comes_back_to_the_bit(tmp_path) -> None:
    solver, prior = _saved(tmp_path / "model")
    found = load_model(tmp_path / "model", classes=CLASSES)
    assert torch.equal(found.solver.gain, solver.gain)
    assert torch.equal(found.prior.level, prior.level)
    assert (found.solver.dropout.p, found.prior.width) == (0.25, 3.0)
    assert found.card == CARD
    assert found.grid.dims == prior.domain.dims
    assert not found.solver.training
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def test_a_model_is_used_on_another_grid_of_the_same_steps(tmp_path) -> None:
    _saved(tmp_path / "model")
    larger = mt.Grid(time=range(9), x=range(5))
    found = load_model(tmp_path / "model", larger, "ssh", CLASSES)
    assert found.prior.domain is larger
    one = mt.Grid(time=[3.0], x=[0.0])
    assert load_model(tmp_path / "model", one, classes=CLASSES).prior.domain is one


def _edit(folder: Path, **changes) -> None:
    path = folder / "model.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, **changes}))


def _truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def _swap(folder: Path) -> None:
    numbers = load_file(folder / "weights.safetensors")
    save_file({k: v + 1 for k, v in numbers.items()}, folder / "weights.safetensors")


def _strange(folder: Path) -> None:
    _edit(folder, parts={"solver": {"class": "system", "arguments": {"x": "rm"}}, "prior": None})


def _argument(folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    about["parts"]["solver"]["arguments"]["depth"] = 3
    _edit(folder, parts=about["parts"])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "model.json").unlink(), "that save_model made, got FileNotFound"),
        (
            lambda f: (f / "weights.safetensors").unlink(),
            "that save_model made, got File",
        ),
        (lambda f: (f / "model.json").write_text("{"), "that save_model made, got JSON"),
        (
            lambda f: (f / "model.json").write_text("[]"),
            "a trained solver, got another model",
        ),
        (lambda f: _edit(f, kind="kernel"), "a trained solver, got another model"),
        (lambda f: _edit(f, format=2), "a model of format 1 or less, got format 2.*Update"),
        (_truncate, "the numbers that model.json speaks of, got others, or a part"),
        (_swap, "the numbers that model.json speaks of, got others"),
        (_strange, "got ValueError: an unknown class 'system'"),
        (_argument, "got TypeError: .*unexpected keyword argument 'depth'"),
        (lambda f: _edit(f, card={"colour": 1}), "got TypeError"),
    ],
)
def test_what_is_no_whole_model_is_refused_in_one_line(tmp_path, harm, said) -> None:
    folder = tmp_path / "model"
    _saved(folder)
    harm(folder)
    with pytest.raises(InputError, match=said) as caught:
        load_model(folder, classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_another_variable_or_grid_is_refused(tmp_path) -> None:
    folder = tmp_path / "model"
    _saved(folder)
    with pytest.raises(InputError, match="the variable of the model, 'ssh', got 'sst'"):
        load_model(folder, variable="sst", classes=CLASSES)
    coarse = mt.Grid(time=range(9), x=[0.0, 2.0, 4.0])
    with pytest.raises(InputError, match="steps of 1 along 'x', as in its training, got 2"):
        load_model(folder, coarse, classes=CLASSES)
    globe = mt.Grid(time=range(9), lat=[0.0, 1.0], lon=[0.0, 1.0])
    with pytest.raises(InputError, match=r"a grid with axes \('time', 'x'\) on the plane, got"):
        load_model(folder, globe, classes=CLASSES)
    with pytest.raises(InputError, match="an unknown class 'Gain'; give classes="):
        load_model(folder)


def test_a_model_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "model"
    solver, _ = _saved(folder)
    law, _, _ = problem()
    with pytest.raises(ValueError, match="expected a class of the library, got Gain"):
        save_model(folder, Gain(6), Level(law.domain), CARD)

    def fails(*args, **kwargs) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("matheron.fit.model_file.save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        save_model(folder, Gain(6), Level(law.domain), CARD, classes=CLASSES)
    assert torch.equal(load_model(folder, classes=CLASSES).solver.gain, solver.gain)
    assert len(list(folder.iterdir())) == 2
    with pytest.raises(InputError, match="a folder that can be made"):
        save_model(folder / "model.json", Gain(6), Level(law.domain), CARD, classes=CLASSES)


class _Forgetful(Gain):
    """Its argument does not say how large it is."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.gain = torch.nn.Parameter(torch.zeros(size + 1, size, dtype=torch.float64))
        self.__dict__["_made_with"] = ((), {"size": size + 1})


def test_what_cannot_be_made_again_is_not_saved(tmp_path) -> None:
    law, _, _ = problem()
    classes = {"_Forgetful": _Forgetful, "Level": Level}
    with pytest.raises(InputError, match="a _Forgetful that its data make again, got Error"):
        save_model(tmp_path / "m", _Forgetful(6), Level(law.domain), CARD, classes=classes)
    assert not (tmp_path / "m").exists()


def test_an_architecture_may_be_given_by_hand(tmp_path) -> None:
    spec = {"class": "Gain", "arguments": {"size": 6, "dropout": 0.25}}
    solver, _ = _saved(tmp_path / "model", architecture={"solver": spec})
    assert torch.equal(load_model(tmp_path / "model", classes=CLASSES).solver.gain, solver.gain)


class _Nest(Described, torch.nn.Module):
    def __init__(self, *, inner, sizes=(), dtype=None, level=None, named=None, generator=None):
        super().__init__()
        self.inner, self.kept = inner, (sizes, dtype, level, named)


class _Settings(_Nest):
    def __init__(self, size, *rest, **settings):
        super().__init__(inner=Gain(size), **settings)


def test_arguments_are_kept_by_name() -> None:
    assert _Settings(2, 3, sizes=(1,)).made_with == {"size": 2, "sizes": (1,)}
    assert _Settings(size=2).made_with == {"size": 2}
    assert copy.deepcopy(_Settings(4)).made_with == {"size": 4}
    with pytest.raises(TypeError, match="missing 1 required"):
        _Settings()


def test_modules_tensors_and_types_are_plain_data() -> None:
    classes = known_classes({"_Nest": _Nest, "Gain": Gain})
    level = torch.tensor([1.0, 2.0], dtype=torch.float64)
    module = _Nest(
        inner=_Nest(inner=Gain(2), sizes=(3, [4, 5])),
        dtype=torch.float32,
        level=level,
        named={"a": 1, "b": None},
        generator=torch.Generator(),
    )
    tensors: dict[str, torch.Tensor] = {}
    spec = json.loads(json.dumps(describe(module, classes, tensors)))
    made = build(spec, classes, tensors, None)
    assert made.inner.kept[0] == (3, (4, 5))
    assert made.inner.inner.gain.shape == (2, 2)
    assert made.kept[1] is torch.float32
    assert torch.equal(made.kept[2], level)
    assert made.kept[3] == {"a": 1, "b": None}
    assert "generator" not in spec["arguments"]
    with pytest.raises(ValueError, match="expected a number, a word, a tensor"):
        describe(_Nest(inner=Gain(2), sizes=object()), classes, tensors)
    plain = {"Linear": torch.nn.Linear}
    with pytest.raises(ValueError, match="Derive it from Described, or give architecture"):
        describe(torch.nn.Linear(2, 2), plain, tensors)
