r"""Modules as data: the name of a class and the arguments that it was made with.

Only classes of a list are ever made, from plain values: nothing is unpickled or evaluated.
"""

from __future__ import annotations

__all__ = ["Classes", "build", "describe", "known_classes"]

import contextlib
import inspect
import torch
import torch.nn as nn

from collections.abc import Mapping
from torch import Tensor
from types import ModuleType
from typing import Any

from . import spread
from .. import dynamics, kernels, nets, priors, solvers
from ..described import Described
from ..domain import Grid, Points
from ..priors import projection
from ..solvers import neural

Classes = Mapping[str, type[nn.Module]]
"""The classes that may be made, by name."""
PLAIN = (bool, int, float, str, type(None))
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def known_classes(extra: Classes | None = None) -> dict[str, type[nn.Module]]:
    r"""Returns the classes that may be made: the public ones of the library, and some more.

    Example:
        >>> known_classes()["Kriging"].__name__
        'Kriging'
    """
    found: dict[str, type[nn.Module]] = {}
    for package in (kernels, dynamics, nets, priors, projection, solvers, neural, spread):
        found |= _modules_of(package)
    return {**found, **(extra or {})}


def _modules_of(package: ModuleType) -> dict[str, type[nn.Module]]:
    public = {}
    for name in package.__all__:
        with contextlib.suppress(ImportError):  # of a library that is not here
            public[name] = getattr(package, name)
    return {k: v for k, v in public.items() if inspect.isclass(v) and issubclass(v, nn.Module)}


def describe(
    module: nn.Module, classes: Classes, tensors: dict[str, Tensor], place: str = ""
) -> dict[str, Any]:
    r"""Returns a module as plain data: its class, and the arguments that it was made with.

    Arguments:
        module: The module.
        classes: The classes that may be made.
        tensors: Where arguments that are tensors go, by their place.
        place: Where the module stands among others.

    Raises:
        ValueError: If its class is not known, or does not keep its arguments, or if one of these
            is no plain data.
    """
    name = type(module).__name__
    if classes.get(name) is not type(module):
        msg = (
            f"save_model({place or name}=...): expected a class of the library, got {name}. Give "
            f"classes={{{name!r}: {name}}} here and to load_model."
        )
        raise ValueError(msg)
    if not isinstance(module, Described):
        msg = (
            f"save_model({place or name}=...): expected an object that keeps the arguments it was "
            f"made with, got a {name}. Derive it from Described, or give architecture=..."
        )
        raise ValueError(msg)
    start = f"{place}." if place else ""
    arguments = {
        key: _plain(value, classes, tensors, f"{start}{key}")
        for key, value in module.made_with.items()
    }
    return {"class": name, "arguments": arguments}


def _plain(value: Any, classes: Classes, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, nn.Module):
        return describe(value, classes, tensors, where)
    if isinstance(value, (Grid, Points)):
        return {"domain": True}
    if isinstance(value, Tensor):
        tensors[where] = value.detach()
        return {"tensor": where}
    if isinstance(value, (tuple, list)):
        return [_plain(v, classes, tensors, f"{where}.{i}") for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        kept = {k: _plain(v, classes, tensors, f"{where}.{k}") for k, v in value.items()}
        return {"mapping": kept}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if not isinstance(value, PLAIN):
        msg = (
            f"save_model({where}=...): expected a number, a word, a tensor, a domain or a module, "
            f"got {type(value).__name__}. Give architecture=... instead."
        )
        raise ValueError(msg)
    return value


def build(
    spec: Any, classes: Classes, tensors: Mapping[str, Tensor], domain: Grid | Points | None
) -> Any:
    r"""Returns the module, or the value, that was described.

    Arguments:
        spec: The description.
        classes: The classes that may be made.
        tensors: The arguments that are tensors.
        domain: The domain of whatever has one.

    Raises:
        ValueError: If a class is not among those that may be made.

    Example:
        >>> from matheron.fit.architecture import build, known_classes
        >>> spec = {"class": "Matern", "arguments": {"nu": 1.5, "lengthscale": 2.0}}
        >>> type(build(spec, known_classes(), {}, None)).__name__
        'Matern'
    """
    if isinstance(spec, list):
        return tuple(build(v, classes, tensors, domain) for v in spec)
    if not isinstance(spec, Mapping):
        return spec
    if "tensor" in spec:
        return tensors[spec["tensor"]]
    if "dtype" in spec:
        return DTYPES[spec["dtype"]]
    if "domain" in spec:
        return domain
    if "mapping" in spec:
        return {k: build(v, classes, tensors, domain) for k, v in spec["mapping"].items()}
    name = spec["class"]
    if name not in classes:
        msg = f"an unknown class {name!r}; give classes={{{name!r}: ...}} if it is yours"
        raise ValueError(msg)
    arguments = {k: build(v, classes, tensors, domain) for k, v in spec["arguments"].items()}
    return classes[name](**arguments)
