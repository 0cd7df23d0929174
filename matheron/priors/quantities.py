r"""What a reader wants to know of the parameters of a prior: names, values and units."""

from __future__ import annotations

__all__ = ["Described", "Quantity", "of_kernel", "of_parameters"]

import abc
import torch.nn as nn

from torch import Tensor

from ..domain import Grid, Points
from ..kernels import Kernel
from ..kernels.stationary import Matern, Stationary

Quantity = tuple[str, Tensor, str]
"""A name, a value that is differentiable in the parameters, and its units."""


class Described(nn.Module, abc.ABC):
    r"""A module that says what a reader wants to know of its parameters."""

    @abc.abstractmethod
    def quantities(self) -> list[Quantity]:
        r"""Returns names (which follow that of the module, if not empty), values and units."""


def of_parameters(module: nn.Module, place: str = "") -> list[Quantity]:
    r"""Returns each single number that is learned, by the name of its parameter.

    Those named ``log_...`` are logarithms. Parameters of many numbers, such as the coefficients
    of a field, are for a map, not for a table: of those there is what the field says itself.
    """
    rows = []
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad and parameter.numel() == 1:
            rows.append(_of_number(place, name, parameter.reshape(())))
    for name, child in module.named_children():
        inner = f"{place}{name}"
        if isinstance(child, Described):
            rows += [(f"{inner} {n}".strip(), v, u) for n, v, u in _learned(child)]
        else:
            rows += of_parameters(child, f"{inner}.")
    return rows


def _learned(child: Described) -> list[Quantity]:
    return [row for row in child.quantities() if row[1].requires_grad]


def _of_number(place: str, name: str, parameter: Tensor) -> Quantity:
    value = parameter.exp() if name.startswith("log_") else parameter
    clean = name.removeprefix("log_")
    return place + clean, value, "field^2" if clean == "variance" else "-"


def of_kernel(kernel: Kernel, domain: Grid | Points) -> list[Quantity]:
    r"""Returns what is learned of a kernel, in kilometres, days and units of the axes.

    Example:
        >>> grid = Grid(x=[0.0, 1.0])
        >>> [name for name, _, _ in of_kernel(Matern(1.5), grid)]
        ['Matern variance', 'Matern lengthscale', 'Matern variance/lengthscale^(2 nu)']
    """
    rows: list[Quantity] = []
    parts = [k for k in kernel.modules() if _has_parameters(k)]
    for i, part in enumerate(parts, start=1):
        head = f"{type(part).__name__}" + (f" {i}" if len(parts) > 1 else "")
        rows += [(f"{head} {name}", v, u) for name, v, u in _of_part(part, domain)]
    return rows


def _has_parameters(module: nn.Module) -> bool:
    own = any(True for _ in module.parameters(recurse=False))
    return own and isinstance(module, Kernel)  # the weights of a warp say nothing one by one


def _of_part(part: nn.Module, domain: Grid | Points) -> list[Quantity]:
    rows = []
    for name, parameter in part.named_parameters(recurse=False):
        if not parameter.requires_grad or name in {"log_lengthscale", "shear"}:
            continue
        clean = name.removeprefix("log_").removeprefix("angle_")
        value = parameter.exp() if name.startswith("log_") else parameter.sin().square()
        rows.append((clean, value, "field^2" if clean == "variance" else "-"))
    return rows + (_of_scales(part, domain) if isinstance(part, Stationary) else [])


def _of_scales(part: Stationary, domain: Grid | Points) -> list[Quantity]:
    dims = domain.dims
    if part.axes is not None:
        dims = dims[:1] if part.axes == "time" else dims[1:]
    sphere = domain.metric == "sphere"
    scale, rotation = part.principal_axes()
    single = scale.ndim == 0
    rows = []
    for name, value in zip(dims, [scale] if single else scale, strict=False):
        in_km = sphere and name in {"lat", "lon"}
        units = "km" if in_km else ("days" if name == "time" else f"units of {name}")
        label = "lengthscale" if single else f"lengthscale {name}"
        rows.append((label, value / 1000 if in_km else value, units))
        if single:
            break
    if rotation is not None:
        rows += [("rotation", angle, "degrees") for angle in rotation.reshape(-1)]
    if single and isinstance(part, Matern):
        label, value, units = rows[0]
        ratio = part.variance / value ** (2 * part.nu)
        rows.append(("variance/lengthscale^(2 nu)", ratio, f"field^2/{units}^(2 nu)"))
    return rows
