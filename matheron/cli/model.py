r"""A fitted model on disk: its structure as JSON, its numbers as safetensors."""

from __future__ import annotations

__all__ = ["Model"]

import contextlib
import json
import os
import shutil
import tempfile
import torch

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from safetensors.torch import load_file, save_file
from typing import Any

from .structure import Law, build, structure_of
from ..data import InputError
from ..domain import Grid, Points
from ..fit import pretrained
from ..fit.model_file import BROKEN
from ..priors import GaussianProcess
from ..selection.laws import MarkovField, MarkovLaw

FORMAT = 1


@dataclass
class Model:
    r"""A law and a trend, with the noise and the bias of each instrument.

    Arguments:
        law: The kernel, or the Markov law, fitted.
        trend: The trend.
        metric: The metric of the domain.
        dims: The axes of the domain.
        noise: The std of the noise of each instrument, by its label ("" where there is one).
        bias: The std of the biases, zero where there is none.
        variable: The variable that was fitted.
        units: Its units.
        structure: The structure in words.
        summary: The report of the fit.
        scores: The held-out CRPS of each candidate.
    """

    law: Law
    trend: str
    metric: str
    dims: tuple[str, ...]
    noise: dict[str, float]
    bias: float = 0.0
    variable: str = ""
    units: str = ""
    structure: str = ""
    summary: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    def prior(self, domain: Grid | Points, points: Points) -> GaussianProcess | MarkovField:
        r"""Returns the prior on a domain, for data at some points."""
        self.check(domain.dims)
        if isinstance(self.law, MarkovLaw):
            return self.law.prior(domain, points, self.trend)
        return GaussianProcess(self.law, domain, trend=self.trend)

    @property
    def method(self) -> str:
        r"""The method that the model is of; ``"auto"`` for a kernel, which any solver takes."""
        return self.law.method if isinstance(self.law, MarkovLaw) else "auto"

    def check(self, dims: tuple[str, ...]) -> None:
        r"""Refuses data that have other axes than those of the model."""
        if dims != self.dims:
            msg = (
                f"Model(dims={self.dims}): expected data on these axes ({self.metric}), got "
                f"{dims}. Fit a model on these data."
            )
            raise InputError(msg)

    def _checked(self) -> Model:
        numbers = [*structure_of(self.law)[2].values(), torch.tensor(self.bias)]
        noise = [torch.tensor(float(v)) for v in self.noise.values()]
        if not noise or not all(v.isfinite().all() for v in [*numbers, *noise]):
            raise ValueError("numbers are missing or not finite")  # noqa: EM101
        return self

    def noise_of(self, label: str) -> float:
        r"""Returns the noise of an instrument; the typical one where it is unknown."""
        return self.noise.get(label, self.typical_noise)

    @property
    def typical_noise(self) -> float:
        r"""The root mean square of the noises."""
        return (sum(v**2 for v in self.noise.values()) / len(self.noise)) ** 0.5

    def save(self, folder: Path) -> None:
        r"""Writes the model, each file whole or not at all."""
        plain = {k: v for k, v in asdict_shallow(self).items() if k != "law"}
        kind, spec, numbers = structure_of(self.law)
        content = {"format": FORMAT, kind: spec, **plain}
        text = json.dumps(content, indent=1)
        with _folder(folder):
            _replace(folder / "model.safetensors", lambda p: save_file(numbers, p))
            _replace(folder / "model.json", lambda p: Path(p).write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, folder: Path) -> Model:
        r"""Returns a model that was saved.

        Raises:
            InputError: If the folder does not hold a whole model.
        """
        if not folder.exists():
            names = ", ".join(pretrained())
            msg = (
                f"Model.load({folder}): expected a folder, or a solver of the library ({names}), "
                "got neither. Check the path."
            )
            raise InputError(msg)
        try:
            content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            numbers = load_file(folder / "model.safetensors")
            if content.pop("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT}")  # noqa: EM102
            kind = "markov" if "markov" in content else "kernel"
            law = build(kind, content.pop(kind), numbers)
            content["dims"] = tuple(content["dims"])
            return cls(law=law, **content)._checked()
        except BROKEN as error:
            short = " ".join(str(error).split())[:120]
            msg = (
                f"Model.load({folder}): expected a folder made by `matheron fit`, got "
                f"{type(error).__name__}: {short}. Fit it again."
            )
            raise InputError(msg) from None


def asdict_shallow(model: Model) -> dict[str, Any]:
    r"""Returns the fields of a model; the law is not copied."""
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    r"""Makes a folder, which is removed again if it cannot be filled."""
    new = not path.exists()
    path.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            shutil.rmtree(path)
        raise


def _replace(path: Path, write: Any) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    os.close(handle)
    try:
        write(name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
