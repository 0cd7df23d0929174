r"""Fitting a model of time evolution to what it should forecast."""

from __future__ import annotations

__all__ = ["Training", "fit_forecasts", "forecast_errors"]

import math
import torch
import torch.nn as nn

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor

from .levenberg import least_squares
from .optimise import Progress, free
from ..dynamics import Dynamics

METHODS = ("auto", "gauss-newton", "lbfgs", "adam")
FEW = 200
"""The most parameters that are moved by Gauss-Newton of themselves."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean cost of some forecasts: first states, and those to be forecast."""


@dataclass(frozen=True)
class Training:
    r"""How the parameters of a model are moved.

    Arguments:
        method: ``"gauss-newton"``, for up to a few hundred parameters; ``"lbfgs"``, all forecasts
            at once, for a few thousand; ``"adam"``, on random batches; or ``"auto"``, the first
            for up to 200 parameters, else the second.
        steps: The largest number of iterations, or the number of batches of Adam.
        rate: The first step size of Adam; it falls to zero along a cosine.
        batch: The size of a batch of Adam.
        tolerance: The relative decrease of the cost at which Gauss-Newton rests, and the
            largest slope at which L-BFGS does.

    Raises:
        ValueError: If the method is not known, or a number not positive.
    """

    method: str = "auto"
    steps: int = 300
    rate: float = 1e-2
    batch: int = 512
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        least = min(self.steps, self.batch, self.rate, self.tolerance)
        if self.method not in METHODS or not least > 0:
            msg = (
                f"Training(method=...): expected one of {METHODS} and positive numbers, got "
                f"{self.method!r} and {least}. See the defaults."
            )
            raise ValueError(msg)


def fit_forecasts(
    model: Dynamics,
    trajectories: Float[Tensor, "*batch t s"],
    steps: int = 1,
    horizon: int = 1,
    noise: Float[Tensor, " s"] | Float[Tensor, "s s"] | None = None,
    training: Training | None = None,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "s s"]:
    r"""Fits the parameters of a model, in place, to trajectories that are known.

    .. math:: \frac{1}{2 K h} \sum_k \sum_{j=1}^{h} \|x_{k+j} - M_\theta^j(x_k)\|_{Q^{-1}}^2

    References:
        | Bilinear residual neural network for the identification and forecasting of geophysical
        | dynamics (Fablet, Ouala & Herzet, 2018)
        | https://doi.org/10.23919/EUSIPCO.2018.8553492

    Arguments:
        model: The model, with parameters that may move.
        trajectories: The states, flat, with shape :math:`(*, t, s)`.
        steps: The number of time steps of the model from one state to the next.
        horizon: How many states :math:`h` ahead are forecast.
        noise: The covariance :math:`Q` that weighs the errors: variances, with shape
            :math:`(s)`, or a matrix; by default the variances of the changes of the states.
        training: How parameters are moved.
        generator: The random number generator of the batches.
        progress: What is called with the iteration and the cost.

    Returns:
        The covariance of the errors of forecasts of one interval, with shape :math:`(s, s)`.

    Raises:
        ValueError: If nothing can move, if trajectories are too short or not finite, or if
            forecasts of the fitted model are not finite.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> from matheron.dynamics.networks import BilinearNetwork
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = BilinearNetwork(generator=generator)
        >>> path = Lorenz63().trajectory(torch.ones(3, dtype=torch.float64), 500)
        >>> model.normalise(path)
        >>> Q = fit_forecasts(model, path, training=Training(steps=50))
        >>> bool(Q.diagonal().sqrt().max() < 0.05)
        True
    """
    training = training or Training()
    starts, ahead = _pairs(trajectories, horizon)
    whiten = _whitener(starts, ahead, noise)

    errors_of = _Errors(model, whiten, steps)
    parameters = free(model)
    if not parameters:
        msg = (
            f"fit_forecasts(model=...): expected parameters that may move, got none in "
            f"{type(model).__name__}. Use a network, or requires_grad_(True)."
        )
        raise ValueError(msg)
    few = sum(p.numel() for p in parameters) <= FEW
    method = training.method
    if method == "auto":
        method = "gauss-newton" if few else "lbfgs"
    if method == "gauss-newton":
        samples, tolerance = (starts, ahead), training.tolerance
        least_squares(errors_of, samples, training.steps, tolerance, progress)
    else:
        move = _descend if method == "lbfgs" else _stir
        move(parameters, errors_of.loss, (starts, ahead), training, generator, progress)
    with torch.no_grad():
        errors = forecast_errors(model, starts, ahead[:, :1], steps)[:, 0]
    if not errors.isfinite().all():
        msg = (
            f"fit_forecasts(training=...): expected finite forecasts, got "
            f"{int((~errors.isfinite()).any(dim=-1).sum())} that are not. Lower the rate or the "
            "horizon, or normalise the states first."
        )
        raise ValueError(msg)
    return errors.mT @ errors / len(errors)


class _Errors(nn.Module):
    r"""The errors of forecasts, made white."""

    def __init__(self, model: Dynamics, whiten: Callable[[Tensor], Tensor], steps: int) -> None:
        super().__init__()
        self.model, self.whiten, self.steps = model, whiten, steps

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.whiten(forecast_errors(self.model, x, targets, self.steps))

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        r"""Returns half the mean square over forecasts."""
        errors: Tensor = self(x, targets)
        return errors.square().sum(dim=(-1, -2)).mean() / 2


def forecast_errors(
    model: Dynamics,
    x: Float[Tensor, "*batch s"],
    targets: Float[Tensor, "*batch h s"],
    steps: int = 1,
) -> Float[Tensor, "*batch h s"]:
    r"""Returns :math:`x_{k+j} - M^j(x_k)` for :math:`j = 1 \dots h`, differentiable.

    Arguments:
        model: The model.
        x: The states to start from, flat.
        targets: The states that follow.
        steps: The number of time steps of the model from one to the next.
    """
    state, horizon = x.reshape(*x.shape[:-1], *model.shape), targets.shape[-2]
    path = model.trajectory(state, steps * horizon, steps)
    flat = path.reshape(*x.shape[:-1], horizon + 1, x.shape[-1])
    return targets - flat[..., 1:, :]


def _pairs(trajectories: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    r"""Returns first states and those that follow."""
    t = trajectories.shape[-2]
    if horizon < 1 or t <= horizon:
        msg = (
            f"fit_forecasts(trajectories=...): expected more states in a row than the horizon of "
            f"{horizon}, of one or more, got {t}. Shorten the horizon, or join trajectories."
        )
        raise ValueError(msg)
    if not trajectories.isfinite().all():
        msg = (
            "fit_forecasts(trajectories=...): expected finite states, got NaN or Inf. Give gaps "
            "as a mask to learn_dynamics()."
        )
        raise ValueError(msg)
    windows = trajectories.detach().unfold(-2, horizon + 1, 1).movedim(-1, -2)
    flat = windows.reshape(-1, horizon + 1, trajectories.shape[-1]).to(torch.float64)
    return flat[:, 0].contiguous(), flat[:, 1:].contiguous()


def _whitener(starts: Tensor, ahead: Tensor, noise: Tensor | None) -> Callable[[Tensor], Tensor]:
    if noise is None:
        noise = (ahead[:, 0] - starts).square().mean(dim=0)
    if noise.ndim == 1:
        root = noise.sqrt()
        return lambda e: e / root
    L = torch.linalg.cholesky(noise)
    inverse = torch.linalg.inv(L)
    return lambda e: e @ inverse.mT


def _descend(
    parameters: list[nn.Parameter],
    loss: Loss,
    data: tuple[Tensor, Tensor],
    training: Training,
    generator: Generator | None,
    progress: Progress | None,
) -> None:
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=training.steps,
        max_eval=2 * training.steps,
        history_size=50,
        tolerance_grad=training.tolerance,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )
    count = 0

    def closure() -> float:
        nonlocal count
        optimiser.zero_grad()
        value = loss(*data)
        value.backward()  # type: ignore[no-untyped-call]
        count += 1
        if progress is not None:
            progress(count, value.item())
        # a step into the void is one that the line search takes back
        return value.item() if value.isfinite() else 1e300

    optimiser.step(closure)
    optimiser.zero_grad()


def _stir(
    parameters: list[nn.Parameter],
    loss: Loss,
    data: tuple[Tensor, Tensor],
    training: Training,
    generator: Generator | None,
    progress: Progress | None,
) -> None:
    optimiser = torch.optim.Adam(parameters, lr=training.rate)
    left = torch.empty(0, dtype=torch.long)
    for i in range(training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.rate * (1 + math.cos(math.pi * i / training.steps)) / 2
        if not len(left):
            left = torch.randperm(len(data[0]), generator=generator)
        chosen, left = left[: training.batch], left[training.batch :]
        optimiser.zero_grad()
        value = loss(data[0][chosen], data[1][chosen])
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if progress is not None:
            progress(i + 1, value.item())
    optimiser.zero_grad()
