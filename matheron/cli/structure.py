r"""The law of a model as structure and numbers, and back: nothing that is run is stored."""

from __future__ import annotations

__all__ = ["Law", "build", "structure_of"]

import math
import numpy as np
import torch

from collections.abc import Mapping
from torch import Tensor
from typing import Any

from ..data import InputError
from ..domain import Grid
from ..kernels import Gaussian, Kernel, Matern, Product, Stationary, Sum, Wendland
from ..priors.spde.fields import Constant, ParameterField
from ..priors.spde.velocity import Given
from ..selection.lattices import Spacing
from ..selection.laws import METHODS, MarkovLaw

Law = Kernel | MarkovLaw
Numbers = dict[str, Tensor]
FAMILIES: dict[str, type[Stationary]] = {
    "Matern": Matern,
    "Gaussian": Gaussian,
    "Wendland": Wendland,
}
COMPOSITES: dict[str, type[Sum] | type[Product]] = {"Sum": Sum, "Product": Product}


def structure_of(law: Law) -> tuple[str, dict[str, Any], Numbers]:
    r"""Returns the kind of a law, what is needed to build it again, and its numbers."""
    if isinstance(law, Kernel):
        return "kernel", _of_kernel(law), _plain(law.state_dict())
    spec: dict[str, Any] = {
        "method": law.method,
        "alpha": law.alpha,
        "kernel": _of_kernel(law.kernel),
        "steps": dict(law.spacing.steps),
        "origin": dict(law.spacing.origin),
    }
    numbers = {f"kernel.{k}": v for k, v in law.kernel.state_dict().items()}
    if law.timescale is not None:
        numbers["timescale"] = torch.tensor(law.timescale, dtype=torch.float64)
    if law.velocity is not None:
        spec["velocity"], found = _of_velocity(law.velocity)
        numbers |= {f"velocity.{k}": v for k, v in found.items()}
    return "markov", spec, _plain(numbers)


def _plain(numbers: Mapping[str, Tensor]) -> Numbers:
    return {k: v.detach().contiguous() for k, v in numbers.items()}


def build(kind: str, spec: dict[str, Any], numbers: Numbers) -> Law:
    r"""Returns the law of a structure and its numbers.

    Raises:
        ValueError: If they do not make one.
    """
    if kind == "kernel":
        kernel = _kernel(spec)
        kernel.load_state_dict(numbers)
        return kernel
    if spec["method"] not in METHODS:
        raise ValueError(f"unknown method {spec['method']!r}")  # noqa: EM102
    space = _kernel(spec["kernel"])
    space.load_state_dict(_below("kernel", numbers))
    steps, origin = (_numbers(spec[k]) for k in ("steps", "origin"))
    if not isinstance(space, Matern) or steps.keys() != origin.keys() or min(steps.values()) <= 0:
        raise ValueError("no lattice")  # noqa: EM101
    moving = spec["method"] == "advection-diffusion"
    return MarkovLaw(
        spec["method"],
        float(spec["alpha"]),
        space,
        Spacing(steps, origin),
        numbers["timescale"].item() if moving else None,
        _velocity(spec["velocity"], _below("velocity", numbers)) if moving else None,
    )


def _below(name: str, numbers: Numbers) -> Numbers:
    return {k.removeprefix(f"{name}."): v for k, v in numbers.items() if k.startswith(f"{name}.")}


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    if not all(math.isfinite(v) for v in values.values()):
        raise ValueError("a lattice that is not finite")  # noqa: EM101
    return {k: float(v) for k, v in values.items()}


def _of_kernel(kernel: Kernel) -> dict[str, Any]:
    r"""Returns what is needed to build a kernel again, but for its numbers."""
    if isinstance(kernel, Sum | Product):
        parts = [_of_kernel(k) for k in kernel.parts if isinstance(k, Kernel)]
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


def _kernel(spec: dict[str, Any]) -> Kernel:
    r"""Returns the kernel of a structure, its numbers still to be loaded."""
    if spec["type"] in COMPOSITES:
        return COMPOSITES[spec["type"]](*(_kernel(s) for s in spec["parts"]))
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


def _of_velocity(field: ParameterField) -> tuple[dict[str, Any], Numbers]:
    if isinstance(field, Constant):
        return {"type": "Constant"}, dict(field.state_dict())
    assert isinstance(field, Given)
    assert isinstance(field.domain, Grid)
    grid, epoch = field.domain, field.domain.epoch
    spec = {
        "type": "Given",
        "dims": list(grid.dims),
        "epoch": None if epoch is None else str(epoch),
    }
    return spec, {"values": field.values, **{f"axis_{k}": v for k, v in grid.axes.items()}}


def _velocity(spec: dict[str, Any], numbers: Numbers) -> ParameterField:
    if spec["type"] == "Constant":
        field = Constant(torch.zeros_like(numbers["theta"]), 1.0)
        field.load_state_dict(numbers)
        return field
    epoch = None if spec["epoch"] is None else np.datetime64(spec["epoch"], "ns")
    axes: dict[str, Any] = {k: numbers[f"axis_{k}"] for k in spec["dims"]}
    return Given(Grid(**axes, epoch=epoch), numbers["values"])
