r"""What is chosen: a prior, and the observation of a table of data."""

from __future__ import annotations

__all__ = ["Choice", "Say", "fit_quietly", "instruments", "scale_of"]

import torch
import warnings

from collections.abc import Callable
from dataclasses import dataclass, field
from jaxtyping import Float, Int
from torch import Tensor

from ..domain import Grid, Points
from ..fit import Fit, maximum_likelihood
from ..observations import LinearObservation, PointObservation, Stack
from ..priors import GaussianProcess
from ..priors.base import TrendedPrior
from ..solvers.kriging import Kriging
from ..solvers.vecchia import Vecchia

Say = Callable[[str], None]


@dataclass
class Choice:
    r"""A prior chosen and fitted, with its observation, its data and the reasons.

    Arguments:
        prior: The prior, on the domain that was asked for.
        observation: The observation, its noise fitted.
        y: The data, in the order of the observation.
        structure: The structure in words.
        scores: The held-out CRPS of each candidate, in the units of the field.
    """

    prior: TrendedPrior
    observation: LinearObservation
    y: Float[Tensor, " m"]
    structure: str
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def fitted(self) -> Fit:
        r"""The report of the fit."""
        assert isinstance(self.prior.fitted, Fit)
        return self.prior.fitted


def scale_of(values: Float[Tensor, " m"]) -> float:
    r"""Returns the std of the data, or a millionth of them where they are constant."""
    largest = values.abs().max().item() or 1.0
    return max(values.std(correction=0).item(), 1e-6 * largest)


def instruments(
    domain: Grid | Points,
    points: Points,
    values: Float[Tensor, " m"],
    noise: Float[Tensor, " m"] | None = None,
    groups: Int[Tensor, " m"] | None = None,
) -> tuple[LinearObservation, Float[Tensor, " m"]]:
    r"""Returns the observation of a table of data, and the data in its order.

    Each group (mission, sensor) has its own noise and a bias, to be learned; so has the noise of
    a table without groups, unless the table gives it.

    Example:
        >>> from matheron.domain import Grid
        >>> data = Points(x=[0.0, 1.0])
        >>> values = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> observation, y = instruments(Grid(x=[0.0, 1.0]), data, values)
        >>> len(observation.points)
        2
    """
    guess = scale_of(values)
    everywhere = torch.full_like(values, 0.2 * guess) if noise is None else noise.clamp(min=1e-12)
    if groups is None or len(groups.unique()) < 2:
        std = everywhere if noise is not None else 0.2 * guess
        return PointObservation(domain, points, std, learn_noise=noise is None), values
    members = [torch.nonzero(groups == code)[:, 0] for code in groups.unique()]
    parts = [
        PointObservation(
            domain,
            points[i],
            everywhere[i] if noise is not None else 0.2 * guess,
            learn_noise=noise is None,
            bias_std=0.2 * guess,
            learn_bias=False,
        )
        for i in members
    ]
    for part in parts:
        part.bias = parts[0].bias  # one law for all biases: each mission draws from it
    assert parts[0].bias is not None
    parts[0].bias.log_scale.requires_grad_(True)
    return Stack(*parts), torch.cat([values[i] for i in members])


def fit_quietly(
    prior: GaussianProcess,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    neighbors: int,
    refine: bool = False,
) -> None:
    r"""Fits a Gaussian process, its warnings left for the report."""
    solver = Kriging() if len(y) <= 60 else Vecchia(neighbors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the report
        maximum_likelihood(
            prior,
            observation,
            y,
            solver,
            steps=8 if refine else 15,
            refresh=1 if refine else 2,
            tolerance=0.5 if refine else 0.1,
            coarse=not refine,
        )
