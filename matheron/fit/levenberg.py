r"""Nonlinear least squares by the method of Levenberg and Marquardt."""

from __future__ import annotations

__all__ = ["least_squares"]

import torch
import torch.nn as nn

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from .optimise import Progress

CHUNK = 2000
"""The samples whose derivatives are held at once."""
TRIALS = 12
"""The most dampings tried for one step."""


def least_squares(
    residuals: nn.Module,
    samples: tuple[Float[Tensor, "n ..."], ...],
    steps: int = 50,
    tolerance: float = 1e-9,
    progress: Progress | None = None,
) -> None:
    r"""Moves the parameters of a module, in place, to the least mean square of its residuals.

    .. math:: \left( J^\top J + \lambda \, \mathrm{diag}(J^\top J) \right) \delta = -J^\top r

    References:
        | An algorithm for least-squares estimation of nonlinear parameters (Marquardt, 1963)
        | https://doi.org/10.1137/0111030

    Arguments:
        residuals: What is to be small: takes one sample, returns a vector.
        samples: The samples, along the first axes.
        steps: The largest number of steps.
        tolerance: The relative decrease of the cost at which it rests.
        progress: What is called with the step and the cost.

    Example:
        >>> class Line(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        ...     def forward(self, t, y):
        ...         return y - self.slope * t
        >>> line, t = Line(), torch.arange(4, dtype=torch.float64)
        >>> least_squares(line, (t, 3 * t))
        >>> round(line.slope.item(), 6)
        3.0
    """
    moved = {n: p for n, p in residuals.named_parameters() if p.requires_grad}
    problem = _Problem(residuals, moved, samples)
    theta = torch.cat([p.detach().reshape(-1) for p in moved.values()])
    cost, damping = problem.cost(theta), 1e-3
    for step in range(steps):
        A, g = problem.normal(theta)
        found, damping, new = _step(problem.cost, theta, cost, A, g, damping)
        if found is None:
            break
        theta, gain, cost = found, cost - new, new
        if progress is not None:
            progress(step + 1, cost)
        if gain <= tolerance * (cost + gain):
            break
    problem.set(theta)


def _step(
    cost: Callable[[Tensor], float],
    theta: Float[Tensor, " p"],
    before: float,
    A: Float[Tensor, "p p"],
    g: Float[Tensor, " p"],
    damping: float,
) -> tuple[Tensor | None, float, float]:
    r"""Returns a lower point, the next damping, and the cost there; or none."""
    d = A.diagonal()
    d = d.clamp(min=1e-12 * max(d.max().item(), 1e-300))  # what no sample sees stays
    for _ in range(TRIALS):
        L, info = torch.linalg.cholesky_ex(A + damping * torch.diag(d))
        if not info:
            ahead = theta - torch.cholesky_solve(g[:, None], L)[:, 0]
            after = cost(ahead)
            if after < before:
                return ahead, max(damping / 5, 1e-9), after
        damping = 4 * damping
    return None, damping, before


class _Problem:
    r"""The cost and its normal equations, over chunks of samples."""

    def __init__(
        self,
        residuals: nn.Module,
        moved: dict[str, nn.Parameter],
        samples: tuple[Tensor, ...],
    ) -> None:
        self.residuals, self.moved, self.samples = residuals, moved, samples
        self.count = len(samples[0])

    def _named(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([p.numel() for p in self.moved.values()])
        return {n: v.reshape(p.shape) for (n, p), v in zip(self.moved.items(), parts, strict=True)}

    def _of(self, theta: Tensor, *sample: Tensor) -> Tensor:
        return functional_call(self.residuals, self._named(theta), sample)

    @torch.no_grad()
    def cost(self, theta: Float[Tensor, " p"]) -> float:
        over = (None, *(0 for _ in self.samples))
        r = vmap(self._of, in_dims=over)(theta, *self.samples)
        return r.square().sum().item() / (2 * self.count)

    def normal(self, theta: Float[Tensor, " p"]) -> tuple[Tensor, Tensor]:
        p = len(theta)
        A, g = theta.new_zeros(p, p), theta.new_zeros(p)
        over = (None, *(0 for _ in self.samples))
        both = jacrev(lambda *a: (self._of(*a),) * 2, has_aux=True)
        for i in torch.arange(self.count).split(CHUNK):
            J, r = vmap(both, in_dims=over)(theta, *(s[i] for s in self.samples))
            J, r = J.detach().reshape(-1, p), r.detach().reshape(-1)
            A += J.mT @ J
            g += J.mT @ r
        return A / self.count, g / self.count

    def set(self, theta: Float[Tensor, " p"]) -> None:
        r"""Puts the parameters in their places."""
        with torch.no_grad():
            for name, value in self._named(theta).items():
                self.moved[name].copy_(value)
