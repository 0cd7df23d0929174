r"""A fitted model on disk: its structure as JSON, its numbers as safetensors."""

from __future__ import annotations

__all__ = ["Model"]

import contextlib
import json
import os
import safetensors
import shutil
import tempfile
import torch

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from safetensors.torch import load_file, save_file
from typing import Any

from ..data import InputError
from ..domain import Grid, Points
from ..kernels import Gaussian, Kernel, Matern, Product, Stationary, Sum, Wendland
from ..priors import GaussianProcess

FORMAT = 1
FAMILIES: dict[str, type[Stationary]] = {
    "Matern": Matern,
    "Gaussian": Gaussian,
    "Wendland": Wendland,
}
COMPOSITES: dict[str, type[Sum] | type[Product]] = {"Sum": Sum, "Product": Product}


def structure_of(kernel: Kernel) -> dict[str, Any]:
    r"""Returns what is needed to build a kernel again, but for its numbers."""
    if isinstance(kernel, Sum | Product):
        parts = [structure_of(k) for k in kernel.parts if isinstance(k, Kernel)]
        return {"type": type(kernel).__name__, "parts": parts}
    if not isinstance(kernel, Matern | Gaussian | Wendland):
        msg = (
            f"Model(kernel=...): expected sums and products of {', '.join(FAMILIES)}, got "
            f"{type(kernel).__name__}. Keep the script that fitted it instead."
        )
        raise InputError(msg)
    scale, shear = kernel.log_lengthscale, kernel.shear
    spec: dict[str, Any] = {
        "type": type(kernel).__name__,
        "axes": kernel.axes,
        "scales": None if scale.ndim == 0 else len(scale),
        "angles": None if shear is None else len(shear),
        "fixed": sorted(n for n, p in kernel.named_parameters() if not p.requires_grad),
    }
    if isinstance(kernel, Wendland):
        spec["smoothness"] = kernel.smoothness
    return spec


def build(spec: dict[str, Any]) -> Kernel:
    r"""Returns the kernel of a structure, its numbers still to be loaded."""
    if spec["type"] in COMPOSITES:
        return COMPOSITES[spec["type"]](*(build(s) for s in spec["parts"]))
    options: dict[str, Any] = {"axes": spec["axes"]}
    if spec["scales"] is not None:
        options["lengthscale"] = [1.0] * spec["scales"]
    if spec["angles"] is not None:
        options["rotation"] = [0.0] * spec["angles"]
    if "smoothness" in spec:
        options["smoothness"] = spec["smoothness"]
    kernel = FAMILIES[spec["type"]](**options)
    for name, parameter in kernel.named_parameters():
        parameter.requires_grad_(name not in spec["fixed"])
    return kernel


@dataclass
class Model:
    r"""A kernel and a trend, with the noise and the bias of each instrument.

    Arguments:
        kernel: The kernel, fitted.
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

    kernel: Kernel
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

    def prior(self, domain: Grid | Points) -> GaussianProcess:
        r"""Returns the prior on a domain."""
        self.check(domain.dims)
        return GaussianProcess(self.kernel, domain, trend=self.trend)

    def check(self, dims: tuple[str, ...]) -> None:
        r"""Refuses data that have other axes than those of the model."""
        if dims != self.dims:
            msg = (
                f"Model(dims={self.dims}): expected data on these axes ({self.metric}), got "
                f"{dims}. Fit a model on these data."
            )
            raise InputError(msg)

    def _checked(self) -> Model:
        numbers = [*self.kernel.state_dict().values(), torch.tensor(self.bias)]
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
        plain = {k: v for k, v in asdict_shallow(self).items() if k != "kernel"}
        content = {"format": FORMAT, "kernel": structure_of(self.kernel), **plain}
        numbers = {k: v.contiguous() for k, v in self.kernel.state_dict().items()}
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
        try:
            content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            numbers = load_file(folder / "model.safetensors")
            if content.pop("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT}")  # noqa: EM102
            kernel = build(content.pop("kernel"))
            kernel.load_state_dict(numbers)
            content["dims"] = tuple(content["dims"])
            return cls(kernel=kernel, **content)._checked()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
            safetensors.SafetensorError,
        ) as error:
            short = " ".join(str(error).split())[:120]
            msg = (
                f"Model.load({folder}): expected a folder made by `matheron fit`, got "
                f"{type(error).__name__}: {short}. Fit it again."
            )
            raise InputError(msg) from None


def asdict_shallow(model: Model) -> dict[str, Any]:
    r"""Returns the fields of a model; the kernel, a module, is not copied."""
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
