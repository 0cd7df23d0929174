r"""Directional derivatives of what modules compute, one parameter entry at a time."""

from __future__ import annotations

__all__ = ["tangents"]

import torch
import torch.autograd.forward_ad as forward
import torch.nn as nn

from collections.abc import Callable, Iterator, Sequence
from torch import Tensor
from torch.func import functional_call


class _Call(nn.Module):
    r"""A function seen as a module, so that its parameters can be replaced."""

    def __init__(self, modules: Sequence[nn.Module], function: Callable[[], list[Tensor]]) -> None:
        super().__init__()
        self.owners = nn.ModuleList(modules)
        self.function = function

    def forward(self) -> list[Tensor]:
        return self.function()


def tangents(
    modules: Sequence[nn.Module],
    parameters: Sequence[nn.Parameter],
    function: Callable[[], list[Tensor]],
) -> Iterator[list[Tensor | None]]:
    r"""Yields, for each entry of each parameter, the derivatives of what the function returns.

    Derivatives are exact (forward-mode differentiation); ``None`` stands for no dependence.

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
    call = _Call(modules, function)
    names = {id(p): name for name, p in call.named_parameters(remove_duplicate=True)}
    for parameter in parameters:
        flat = torch.eye(parameter.numel(), dtype=parameter.dtype)
        for direction in flat:
            with forward.dual_level():
                dual = forward.make_dual(parameter.detach(), direction.reshape(parameter.shape))
                outputs = functional_call(call, {names[id(parameter)]: dual}, ())
                parts = [forward.unpack_dual(t).tangent for t in outputs]
                yield [None if t is None else t.detach().clone() for t in parts]
