r"""The derivative of a cost, differentiable in turn where gradients are on."""

from __future__ import annotations

__all__ = ["slope_of"]

import torch

from collections.abc import Callable, Iterable
from jaxtyping import Float
from torch import Tensor


def slope_of(
    cost: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch n"], parameters: Iterable[Tensor]
) -> Float[Tensor, "*batch n"]:
    r"""Returns the gradient of costs, whether gradients are on or not.

    Where they are on, it is differentiable in ``x`` and in the parameters, if those move.

    Arguments:
        cost: What gives one cost per member, each of its own field.
        x: The fields.
        parameters: What the cost depends on, too.

    Example:
        >>> with torch.no_grad():
        ...     slope_of(lambda x: x.square().sum(-1), torch.ones(2, 3), [])[0]
        tensor([2., 2., 2.])
    """
    on = torch.is_grad_enabled()
    with torch.enable_grad():
        v = x if on and x.requires_grad else x.detach().requires_grad_()
        kept = on and (x.requires_grad or any(p.requires_grad for p in parameters))
        (slope,) = torch.autograd.grad(cost(v).sum(), v, create_graph=kept)
    return slope
