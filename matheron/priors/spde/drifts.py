r"""What a field does to itself, beside being carried, spread and forgotten."""

from __future__ import annotations

__all__ = ["AllenCahn", "Logistic", "ModelDrift", "Reaction"]

import abc
import math
import torch
import torch.nn as nn

from jaxtyping import Float
from torch import Tensor

from ...dynamics import Dynamics


class Reaction(nn.Module, abc.ABC):
    r"""A rate of change that depends on the field at the same place only, :math:`f(x(s))`.

    It is then known that its derivative is a number per place, and it may tell by itself where it
    brings a field in a step: exactly, where that is known, whatever the length of the step.
    """

    @abc.abstractmethod
    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        r"""Returns the rate of change of every place, in units of the field per unit of time."""

    def moved(
        self, x: Float[Tensor, "*batch n"], span: float | Float[Tensor, ...]
    ) -> Float[Tensor, "*batch n"]:
        r"""Returns the field some time later, by the reaction alone; one Euler step by default."""
        rate: Tensor = self(x)
        return x + span * rate


class AllenCahn(Reaction):
    r"""Two states that a field falls to, :math:`f(x) = r x (1 - x^2 / s^2)`.

    References:
        | A microscopic theory for antiphase boundary motion and its application to antiphase
          domain coarsening (Allen and Cahn, 1979)
        | https://doi.org/10.1016/0001-6160(79)90196-2

    Arguments:
        rate: The rate :math:`r` at which a small field grows, per unit of time.
        scale: The size :math:`s` of the two states, in units of the field.

    Example:
        >>> AllenCahn(2.0, 3.0)(torch.tensor([0.0, 3.0, -3.0])).tolist()
        [0.0, 0.0, 0.0]
    """

    def __init__(self, rate: float, scale: float = 1.0) -> None:
        super().__init__()
        _check_positive("AllenCahn", rate=rate, scale=scale)
        self.rate, self.scale = rate, scale

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return self.rate * x * (1 - (x / self.scale).square())

    def moved(
        self, x: Float[Tensor, "*batch n"], span: float | Float[Tensor, ...]
    ) -> Float[Tensor, "*batch n"]:
        growth = torch.as_tensor(self.rate * span).exp()
        return x * growth / (1 + (x / self.scale).square() * (growth.square() - 1)).sqrt()


class Logistic(Reaction):
    r"""Growth up to what a place can bear, :math:`f(x) = r x (1 - x_+ / c)`: a bloom.

    Below zero, where a field that is Gaussian at first may come, it is :math:`r x`.

    References:
        | On the logistic law of population growth (Pearl and Reed, 1920)
        | https://doi.org/10.1073/pnas.6.6.275

    Arguments:
        rate: The rate :math:`r` of growth, per unit of time.
        capacity: What a place can bear, :math:`c`, in units of the field.

    Example:
        >>> Logistic(2.0, 4.0)(torch.tensor([0.0, 2.0, 4.0])).tolist()
        [0.0, 2.0, 0.0]
    """

    def __init__(self, rate: float, capacity: float) -> None:
        super().__init__()
        _check_positive("Logistic", rate=rate, capacity=capacity)
        self.rate, self.capacity = rate, capacity

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return self.rate * x * (1 - x.clamp(min=0.0) / self.capacity)

    def moved(
        self, x: Float[Tensor, "*batch n"], span: float | Float[Tensor, ...]
    ) -> Float[Tensor, "*batch n"]:
        growth = torch.as_tensor(self.rate * span).exp()
        return x * growth / (1 + x.clamp(min=0.0) / self.capacity * (growth - 1))


class ModelDrift(nn.Module):
    r"""The mean rate of change of a model over some of its steps, :math:`(M^j(x) - x) / (j t)`.

    With as many steps as make one of the equation, what the model does in it is taken whole, by
    the model's own scheme, and then spread, forgotten and shaken by the equation.

    Arguments:
        model: The model; the nodes of a time, in their order, are its state.
        steps: The number :math:`j` of its steps.
        unit: How many units of time of the field are one of the model's: 1 / 86400 for a model
            in seconds and a field in days.

    Example:
        >>> from matheron.dynamics import Lorenz96
        >>> drift = ModelDrift(Lorenz96(8, dt=1e-4))
        >>> drift(torch.zeros(2, 8, dtype=torch.float64))[0, 0].item()  # its forcing
        8.0
    """

    def __init__(self, model: Dynamics, steps: int = 1, unit: float = 1.0) -> None:
        super().__init__()
        if steps < 1 or not unit > 0:
            msg = (
                f"ModelDrift(steps=..., unit=...): expected one step or more and a positive unit, "
                f"got {steps} and {unit}. Use 1 / 86400 for seconds in days."
            )
            raise ValueError(msg)
        self.model, self.steps = model, steps
        self.span = steps * abs(model.dt) * unit

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        state = x.reshape(*x.shape[:-1], *self.model.shape)
        moved: Tensor = self.model(state, self.steps)
        return (moved.reshape(x.shape) - x) / self.span


def _check_positive(where: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            msg = (
                f"{where}({name}=...): expected a positive number, got {value}. Its sign is that "
                "of the equation."
            )
            raise ValueError(msg)
