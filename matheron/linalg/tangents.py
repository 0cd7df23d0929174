r"""Directional derivatives of what modules compute, one parameter entry at a time."""

from __future__ import annotations

__all__ = ["tangents"]

import contextlib
import torch
import torch.autograd.forward_ad as forward
import torch.nn as nn

from collections.abc import Callable, Iterator, Sequence
from torch import Tensor
from typing import Any


@contextlib.contextmanager
def _replaced(holders: Sequence[tuple[nn.Module, str]], value: Tensor) -> Iterator[None]:
    r"""Puts a tensor in the place of a parameter, wherever the parameter is held."""
    kept = [module._parameters[name] for module, name in holders]
    try:
        for module, name in holders:
            module._parameters[name] = value  # type: ignore[assignment]
        yield
    finally:
        for (module, name), parameter in zip(holders, kept, strict=True):
            module._parameters[name] = parameter


FEW = 300
"""The number of output entries up to which one backward pass for each is the quicker way."""


def tangents(
    modules: Sequence[nn.Module],
    parameters: Sequence[nn.Parameter],
    function: Callable[[], list[Tensor]],
) -> Iterator[list[Tensor | None]]:
    r"""Yields, for each entry of each parameter, the derivatives of what the function returns.

    Derivatives are exact: by backward passes where there are few outputs, by forward-mode
    differentiation where there are many. ``None`` stands for no dependence.

    Arguments:
        modules: The modules that own the parameters.
        parameters: The parameters.
        function: A function of the modules, that returns tensors.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(3.0)
        >>> [t[0].item() for t in tangents([layer], [layer.weight], lambda: [layer.weight**2])]
        [6.0]
    """
    with torch.enable_grad():
        outputs = function()
    if sum(t.numel() for t in outputs) <= FEW:
        yield from _backward(outputs, parameters)
    else:
        yield from _forward(modules, parameters, function)


def _backward(
    outputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> Iterator[list[Tensor | None]]:
    rows = [_rows(t, parameters) for t in outputs]
    for k, parameter in enumerate(parameters):
        for i in range(parameter.numel()):
            yield [
                None if r[k] is None else r[k][:, i].reshape(t.shape)
                for r, t in zip(rows, outputs, strict=True)
            ]


@torch.enable_grad()
def _rows(output: Tensor, parameters: Sequence[nn.Parameter]) -> list[Any]:
    r"""Returns the Jacobian of one output in each parameter, a row for each entry, or None."""
    if not output.requires_grad:
        return [None] * len(parameters)
    each = [
        torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
        for entry in output.reshape(-1)
    ]
    return [_stacked(p, column) for p, *column in zip(parameters, *each, strict=True)]


def _stacked(parameter: Tensor, column: Sequence[Tensor | None]) -> Tensor | None:
    if all(g is None for g in column):
        return None
    zero = torch.zeros_like(parameter)
    return torch.stack([(zero if g is None else g).reshape(-1) for g in column])


def _forward(
    modules: Sequence[nn.Module],
    parameters: Sequence[nn.Parameter],
    function: Callable[[], list[Tensor]],
) -> Iterator[list[Tensor | None]]:
    every = {id(m): m for owner in modules for m in owner.modules()}.values()
    for parameter in parameters:
        holders = [(m, n) for m in every for n, p in m._parameters.items() if p is parameter]
        for direction in torch.eye(parameter.numel(), dtype=parameter.dtype):
            with forward.dual_level():
                dual = forward.make_dual(parameter.detach(), direction.reshape(parameter.shape))
                with _replaced(holders, dual):
                    parts = [forward.unpack_dual(t).tangent for t in function()]
                found = [None if t is None else t.detach().clone() for t in parts]
            yield found
