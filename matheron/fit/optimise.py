r"""Climbing a likelihood: Fisher scoring for few parameters, L-BFGS for many."""

from __future__ import annotations

__all__ = ["FEW", "Progress", "assign", "flat", "free", "maximise"]

import math
import torch
import torch.nn as nn

from collections.abc import Callable, Sequence
from jaxtyping import Float
from torch import Tensor

from ..solvers.base import Likelihood, Score

Progress = Callable[[int, float], None]
"""What is called with the step and the log-likelihood."""
FEW = 25
"""The number of parameters up to which to use the Fisher information."""
TRUST = 1.0
"""The largest change of a parameter in one step: most are logarithms."""
MEMORY = 20
"""The number of past steps from which L-BFGS takes the curvature."""


def free(*modules: nn.Module) -> list[nn.Parameter]:
    r"""Returns the parameters that are to be learned, each once."""
    found = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    return list(found.values())


def flat(parameters: Sequence[nn.Parameter]) -> Float[Tensor, " p"]:
    r"""Returns the values of parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def assign(parameters: Sequence[nn.Parameter], theta: Float[Tensor, " p"]) -> None:
    r"""Sets parameters from one vector."""
    sizes = [p.numel() for p in parameters]
    with torch.no_grad():
        for p, value in zip(parameters, theta.split(sizes), strict=True):
            p.copy_(value.reshape(p.shape))


def _try(likelihood: Likelihood, parameters: Sequence[nn.Parameter]) -> Score | None:
    r"""Returns the score, or ``None`` where the covariance is singular: a step too far."""
    try:
        score = likelihood.score(parameters)
    except ValueError:
        return None
    return score if score is None or math.isfinite(score.value) else None


def _step(information: Tensor, gradient: Tensor, damping: float) -> Float[Tensor, " p"]:
    # parameters are logarithms: a ridge of order one keeps those that the data do not see (a
    # noise on its way to zero) from taking over the step, and leaves the others alone
    ridge = damping * information.diagonal().clamp(min=0) + 0.5
    step = torch.linalg.solve(information + torch.diag(ridge), gradient)
    return step / max(1.0, step.abs().max().item() / TRUST)


def _fisher_scoring(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    score: Score,
    steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    damping = 1e-4
    for i in range(1, steps + 1):
        theta, moved = flat(parameters), False
        for _ in range(12):
            step = _step(score.information, score.gradient, damping)
            gain = float(step @ score.gradient)
            if gain < tolerance:
                assign(parameters, theta)  # not at a step that was refused
                return i, True
            assign(parameters, theta + step)
            trial = _try(likelihood, parameters)
            if trial is not None and trial.value >= score.value - 1e-9 * abs(score.value):
                improved, moved = trial.value - score.value, True
                score, damping = trial, max(damping * 0.2, 1e-6)
                break
            damping = max(damping * 10, 1e-2)
        if not moved:
            assign(parameters, theta)
            return i, False
        progress(i, score.value)
        if abs(improved) < tolerance:
            return i, True
    return steps, False


class _Slope:
    r"""The loss, minus the log-likelihood, and its gradient as functions of one vector."""

    def __init__(self, likelihood: Likelihood, parameters: Sequence[nn.Parameter]) -> None:
        self.likelihood, self.parameters = likelihood, parameters

    def __call__(self, theta: Float[Tensor, " p"]) -> tuple[float, Float[Tensor, " p"]]:
        assign(self.parameters, theta)
        try:
            loss = -self.likelihood.value()
        except ValueError:  # singular: a step too far; the line search comes back
            return math.inf, torch.zeros_like(theta)
        slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, slopes, strict=True)
        ]
        gradient = torch.cat([f.reshape(-1) for f in filled]).to(theta.dtype)
        fine = bool(gradient.isfinite().all())
        return (loss.item() if fine and loss.isfinite() else math.inf), gradient


def _direction(
    gradient: Float[Tensor, " p"], pairs: Sequence[tuple[Tensor, Tensor]]
) -> Float[Tensor, " p"]:
    r"""Returns the quasi-Newton direction of descent, by the two-loop recursion.

    References:
        | Updating quasi-Newton matrices with limited storage (Nocedal, 1980)
        | https://doi.org/10.1090/S0025-5718-1980-0572855-7
    """
    if not pairs:  # nothing is known of the curvature: a fifth of an e-fold at most
        return -0.2 * gradient / gradient.abs().max().clamp(min=1e-300)
    q, saved = gradient.clone(), []
    for s, g in reversed(pairs):
        a = (s @ q) / (s @ g)
        saved.append(a)
        q = q - a * g
    s, g = pairs[-1]
    q = q * ((s @ g) / (g @ g))
    for (s, g), a in zip(pairs, reversed(saved), strict=True):
        q = q + (a - (g @ q) / (s @ g)) * s
    return -q / max(1.0, q.abs().max().item() / TRUST)


def _search(
    function: _Slope,
    theta: Float[Tensor, " p"],
    loss: float,
    gradient: Float[Tensor, " p"],
    direction: Float[Tensor, " p"],
) -> tuple[float, Float[Tensor, " p"], Float[Tensor, " p"]] | None:
    r"""Returns a step that lowers the loss and flattens its slope, never beyond the trust.

    The weak conditions of Wolfe, by bisection: a step that is too long is cut by the parabola
    through what is known, one that is too short is doubled.
    """
    slope = float(direction @ gradient)
    if not slope < 0:
        return None
    longest = TRUST / direction.abs().max().item()
    low, high, t = 0.0, math.inf, min(1.0, longest)
    best = None
    for _ in range(12):
        found = function(theta + t * direction)
        if found[0] > loss + 1e-4 * t * slope:
            high = t
        elif float(direction @ found[1]) < 0.9 * slope and t < longest:
            low, best = t, (found[0], found[1], t * direction)
        else:
            return found[0], found[1], t * direction
        if high == math.inf:
            t = min(2 * t, longest)
        else:
            t = _between(low, high, t, loss, slope, found[0])
    return best


def _between(low: float, high: float, t: float, loss: float, slope: float, new: float) -> float:
    r"""Returns where to look next: the foot of the parabola, kept off the ends."""
    middle, reach = (low + high) / 2, high - low
    if low > 0 or not math.isfinite(new):
        return low + 0.3 * reach if math.isinf(new) else middle
    bend = new - loss - slope * t
    foot = -slope * t * t / (2 * bend) if bend > 0 else middle
    return min(max(foot, low + 0.1 * reach), high - 0.1 * reach)


def _lbfgs(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    function, theta = _Slope(likelihood, parameters), flat(parameters)
    loss, gradient = function(theta)
    if math.isinf(loss):
        likelihood.value()  # says why
    pairs: list[tuple[Tensor, Tensor]] = []
    small = 0
    for i in range(1, steps + 1):
        found = _search(function, theta, loss, gradient, _direction(gradient, pairs))
        if found is None:
            assign(parameters, theta)
            if not pairs:  # not even along the gradient
                return i, float(gradient.abs().max()) < tolerance
            pairs = []
            continue
        new, slope, step = found
        if step @ (slope - gradient) > 1e-12 * step.norm() * (slope - gradient).norm():
            pairs = [*pairs, (step, slope - gradient)][-MEMORY:]
        small = small + 1 if loss - new < tolerance else 0
        theta, loss, gradient = theta + step, new, slope
        progress(i, -loss)
        if small == 2:
            break
    assign(parameters, theta)
    return i, small == 2


def maximise(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    steps: int | None,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    r"""Climbs to the maximum of a likelihood; parameters are changed in place.

    Arguments:
        likelihood: The likelihood.
        parameters: The parameters.
        steps: The largest number of steps; by default 40 of scoring, 200 of L-BFGS.
        tolerance: The gain below which to stop.
        progress: Called after each step.

    Returns:
        The number of steps, and whether they converged.
    """
    few = sum(p.numel() for p in parameters) <= FEW
    score = likelihood.score(parameters) if few else None
    if score is not None:
        return _fisher_scoring(likelihood, parameters, score, steps or 40, tolerance, progress)
    return _lbfgs(likelihood, parameters, steps or 200, tolerance, progress)
