r"""The least of a smooth cost of some hundred numbers."""

from __future__ import annotations

__all__ = ["least"]

import torch

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

Cost = Callable[[Tensor], Tensor]


def least(cost: Cost, start: Float[Tensor, ...], steps: int) -> Float[Tensor, ...]:
    r"""Returns where a cost is least, after some steps of L-BFGS with a line search.

    Steps are good where the cost is about as curved along all axes: give white coordinates.

    Arguments:
        cost: The cost, a number, differentiable.
        start: Where to start.
        steps: The number of steps, at most.

    Example:
        >>> target = torch.tensor([1.0, -2.0], dtype=torch.float64)
        >>> found = least(lambda z: (z - target).square().sum(), torch.zeros_like(target), 5)
        >>> found.tolist()
        [1.0, -2.0]
    """
    z = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    descent = torch.optim.LBFGS([z], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value = cost(z)
        (slope,) = torch.autograd.grad(value, z)
        z.grad = slope.contiguous()
        return value.detach()

    with torch.enable_grad():
        descent.step(closure)
    return z.detach()
