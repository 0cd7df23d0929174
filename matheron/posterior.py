r"""What is known once the data are in.

A solver prepares the conditional law :math:`p(x \mid \cdot)` once; calling it on data gives the
posterior :math:`p(x \mid y)`. There are two ways to own a conditional law, each the shadow of the
other: an estimator becomes a sampler by Matheron's rule, a sampler an estimator by averaging.
"""

from __future__ import annotations

__all__ = ["Conditional", "Estimator", "GaussianConditional", "Posterior", "Sampler"]

import abc
import numpy as np
import torch
import xarray as xr

from functools import cached_property
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any

from .domain import Grid, Points, dates_of
from .observations import LinearObservation, Observation
from .priors.base import Prior, Sampling


class Conditional(abc.ABC):
    r"""The conditional law :math:`p(x \mid \cdot)`, prepared once, applied to any :math:`y`."""

    prior: Prior
    observation: Observation

    def __init__(self, prior: Prior, observation: Observation) -> None:
        self.prior, self.observation = prior, observation

    @abc.abstractmethod
    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        r"""Returns :math:`x^\star(y) \approx \mathbb{E}[x \mid y]`."""

    @abc.abstractmethod
    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        r"""Draws :math:`x_i \sim p(x \mid y)`."""

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        r"""Returns the standard deviation of :math:`x` given :math:`y`, by default from draws."""
        return self.sample(y, size, generator).std(dim=0)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        r"""Returns what the solver has to say of its own work."""
        return {}

    def __call__(self, y: Float[Tensor, " m"]) -> Posterior:
        return Posterior(self, y)


class Estimator(Conditional):
    r"""A conditional law owned through :math:`y \mapsto x^\star(y)`."""

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        r"""Draws fields :math:`x_s`, and returns them with the estimates of their data."""
        if not isinstance(self.prior, Sampling):
            msg = (
                f"Posterior.sample: expected a prior that can be simulated, for Matheron's rule, "
                f"got {type(self.prior).__name__}. Use a solver that samples by itself."
            )
            raise TypeError(msg)
        x_s = self.prior.sample(size, generator)
        return x_s, self.estimate(self.observation.sample(x_s, generator))

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        r"""Draws by Matheron's rule, :math:`x^\star(y) + x_s - x^\star(H x_s + \varepsilon)`."""
        x_s, estimate = self.simulate(size, generator)
        return self.estimate(y) + x_s - estimate


class Sampler(Conditional):
    r"""A conditional law owned through its draws.

    Arguments:
        size: The number of draws whose average is the estimate.
    """

    size: int = 64

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        draws = [
            self.sample(v, self.size, torch.Generator().manual_seed(0)).mean(dim=0)
            for v in y.reshape(-1, y.shape[-1])
        ]
        return torch.stack(draws).reshape(*y.shape[:-1], -1)


class GaussianConditional(Estimator):
    r"""A Gaussian conditional law, whose covariance does not depend on the data."""

    observation: LinearObservation

    @abc.abstractmethod
    def variance(self) -> Float[Tensor, " n"]:
        r"""Returns the posterior variance of every node."""

    @abc.abstractmethod
    def covariance(self) -> Float[Tensor, "n n"]:
        r"""Returns the posterior covariance, dense: for small domains."""

    @abc.abstractmethod
    def log_evidence(self, y: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        r"""Returns :math:`\log p(y)`, maximised over the coefficients of an unknown trend."""

    def std(
        self,
        y: Float[Tensor, " m"],
        size: int,
        generator: Generator | None,
    ) -> Float[Tensor, " n"]:
        return self.variance().clamp(min=0).sqrt()


class Posterior:
    r"""The law :math:`p(x \mid y)`: mean, standard deviation, ensemble.

    Nothing here carries a gradient: what a fit differentiates is the likelihood of a solver.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(x=[0.0, 1.0, 2.0])
        >>> prior = mt.GaussianProcess(mt.Matern(0.5, lengthscale=2.0), grid)
        >>> seen = mt.PointObservation(grid, mt.Points(x=[1.0]), noise_std=0.0)
        >>> posterior = mt.Kriging()(prior, seen)(torch.tensor([2.0], dtype=torch.float64))
        >>> posterior.mean[1].item(), posterior.std()[1].item()
        (2.0, 0.0)
    """

    def __init__(self, conditional: Conditional, y: Float[Tensor, " m"]) -> None:
        if y.ndim != 1:
            msg = (
                f"Posterior(y=...): expected one vector of data, got shape {tuple(y.shape)}. "
                "Call conditional.estimate(y) for the means of a batch, or loop over it."
            )
            raise ValueError(msg)
        self.conditional, self.y = conditional, y

    @cached_property
    @torch.no_grad()
    def mean(self) -> Float[Tensor, " n"]:
        r"""The mean, in the units of the field."""
        return self.conditional.estimate(self.y)

    @torch.no_grad()
    def std(self, size: int = 256, generator: Generator | None = None) -> Float[Tensor, " n"]:
        r"""Returns the standard deviation; ``size`` counts draws, where it takes draws."""
        return self.conditional.std(self.y, size, generator)

    @torch.no_grad()
    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        r"""Draws an ensemble."""
        if size < 1:
            msg = (
                f"Posterior.sample(size=...): expected at least one draw, got {size}. "
                "Ask for one or more."
            )
            raise ValueError(msg)
        return self.conditional.sample(self.y, size, generator)

    @torch.no_grad()
    def covariance(self) -> Float[Tensor, "n n"]:
        r"""Returns the covariance between nodes, where the law is Gaussian."""
        return self._gaussian("covariance").covariance()

    @property
    @torch.no_grad()
    def log_evidence(self) -> Float[Tensor, ""]:
        r"""The log-likelihood of the data, where the law is Gaussian."""
        return self._gaussian("log_evidence").log_evidence(self.y)

    @property
    def info(self) -> dict[str, Any]:
        r"""What the solver says of its own work."""
        return self.conditional.info(self.y)

    def _gaussian(self, name: str) -> GaussianConditional:
        if not isinstance(self.conditional, GaussianConditional):
            msg = (
                f"Posterior.{name}: expected a Gaussian conditional law, got "
                f"{type(self.conditional).__name__}. Use draws: posterior.sample(size)."
            )
            raise TypeError(msg)
        return self.conditional

    def to_xarray(
        self,
        size: int = 0,
        generator: Generator | None = None,
        name: str | None = None,
        units: str | None = None,
    ) -> xr.Dataset:
        r"""Returns labelled fields: ``mean``, ``std`` and, if ``size > 0``, ``member``.

        Arguments:
            size: The number of members.
            generator: The random number generator of the members.
            name: The name of the field, for the attributes.
            units: The units of the field.
        """
        fields = {"mean": self.mean[None], "std": self.std(generator=generator)[None]}
        if size:
            fields["member"] = self.sample(size, generator)
        domain = self.conditional.prior.domain
        return xr.Dataset(
            {k: _labelled(domain, k, v, name, units) for k, v in fields.items()},
            coords=_coordinates(domain),
            attrs={"Conventions": "CF-1.8", "source": "matheron"},
        )


UNITS = {"lat": "degrees_north", "lon": "degrees_east"}
STANDARD = {"lat": "latitude", "lon": "longitude", "time": "time"}


def _coordinates(domain: Grid | Points) -> dict[str, Any]:
    on_grid = isinstance(domain, Grid)
    columns = domain.axes if isinstance(domain, Grid) else {k: domain.axis(k) for k in domain.dims}
    coordinates: dict[str, Any] = {}
    for name, axis in columns.items():
        attrs = {"standard_name": STANDARD[name]} if name in STANDARD else {}
        attrs |= {"units": UNITS[name]} if name in UNITS else {}
        values: Any = axis.numpy()
        if name == "time" and domain.epoch is not None:
            values = dates_of(values, domain.epoch)
        elif name == "time":
            attrs["units"] = "1"
        coordinates[name] = ((name if on_grid else "point",), np.asarray(values), attrs)
    return coordinates


def _labelled(
    domain: Grid | Points, kind: str, x: Tensor, name: str | None, units: str | None
) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    x = x.detach()
    values = domain.unflatten(x) if isinstance(domain, Grid) else x
    dims = domain.dims if isinstance(domain, Grid) else ("point",)
    attrs = {"long_name": f"{kind} of {name or 'the field'}"} | ({"units": units} if units else {})
    if kind == "member":
        return ("realization", *dims), values.numpy(), attrs
    return dims, values[0].numpy(), attrs
