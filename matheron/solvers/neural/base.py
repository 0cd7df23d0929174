r"""What learned solvers share: units, first guess, ensembles, one path for training and use."""

from __future__ import annotations

__all__ = ["Geometry", "LearnedConditional", "LearnedSolver", "Solved"]

import abc
import copy
import dataclasses
import torch

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar, TypeVar

from ..base import Solver, frozen
from ...described import Described
from ...observations import Informed, Observation
from ...posterior import Estimator
from ...priors.base import Energy, GaussianPrior, Prior, Sampling
from ...priors.layout import Layout
from ...priors.projection import Projection

P = TypeVar("P", bound=Prior)
FIRST = ("mean", "data", "guess")
CHUNK = 2**18
"""The most numbers of the draws that are estimated at once."""


@dataclass(frozen=True)
class Geometry:
    r"""What the data tell of the places, and of the field where it starts, in its units.

    Arguments:
        precision: The precision :math:`\sigma^2 H^\top R^{-1} H 1` of the data at every node, in
            inverse squares of the field's standard deviation, with shape :math:`(*, n)`.
        slope: The gradient of their cost at the start, in inverse units of it, likewise.
        start: The mean of the prior, or the first guess that came with the data.
        others: The fields that came with the data, with shape :math:`(*, k, n)`.
    """

    precision: Float[Tensor, "*batch n"]
    slope: Float[Tensor, "*batch n"]
    start: Float[Tensor, "*batch n"]
    others: Float[Tensor, "*batch k n"]

    @property
    def weight(self) -> Float[Tensor, "*batch n"]:
        r"""The weight of the data against a prior without correlations, from 0 to 1."""
        return self.precision / (1 + self.precision)

    @property
    def guess(self) -> Float[Tensor, "*batch n"]:
        r"""The data less the start, times their weight; zero in the gaps."""
        return -self.slope / (1 + self.precision)

    def finer(self, part: float) -> Geometry:
        r"""Returns the same in units of a part of the field's standard deviation."""
        return dataclasses.replace(
            self, precision=part**2 * self.precision, slope=part * self.slope
        )


@dataclass(frozen=True)
class Solved:
    r"""All that a loss may look at of an estimate.

    Arguments:
        x: The estimate, with shape :math:`(*, n)`.
        iterates: The fields on the way, if they were asked for, with shape :math:`(k, *, n)`.
        theta: The parameters that are estimated with it, with shape :math:`(*, c, p)`.
    """

    x: Float[Tensor, "*batch n"]
    iterates: Float[Tensor, "k *batch n"] | None = None
    theta: Float[Tensor, "*batch c p"] | None = None


class LearnedConditional(Estimator):
    r"""An estimate by a network, and draws by Matheron's rule: an approximation."""

    def __init__(self, prior: Prior, observation: Observation, solver: LearnedSolver) -> None:
        super().__init__(prior, observation)
        self.solver, self.layout = solver, Layout(prior.domain, solver.channels)
        mean, scale = solver.units(prior, self.layout)
        n = len(prior.domain)
        self.mean, self.scale = mean.expand(n), scale.expand(n)
        sea = self.layout.sea().any(dim=0)[None, None]
        self.sea = sea.to(solver.dtype)
        self.told = observation.fields if isinstance(observation, Informed) else 0
        self._check_others(observation.beside if isinstance(observation, Informed) else ())
        if solver.first == "guess" and not self.told:
            msg = (
                f"{type(solver).__name__}(first='guess'): expected data with a first guess beside "
                f"them, got {type(observation).__name__}. Give Informed(observation), and the "
                "guess after the data."
            )
            raise ValueError(msg)

    def _check_others(self, names: tuple[str, ...]) -> None:
        wanted = self.solver.others
        if names != wanted:
            expected = f"the fields {', '.join(wanted)}" if wanted else "no named fields"
            msg = (
                f"{type(self.solver).__name__}(others=...): expected {expected} beside the data, "
                f"got {', '.join(names) or 'none'}. Give Informed(observation, beside=...) those."
            )
            raise ValueError(msg)

    @abc.abstractmethod
    def iterates(self, y: Float[Tensor, "*batch m"]) -> Iterator[Float[Tensor, "*batch n"]]:
        r"""Yields the fields on the way, the first guess to begin with."""

    def trajectory(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "k *batch n"]:
        r"""Returns the fields on the way, the first guess to begin with, the estimate last."""
        return torch.stack(list(self.iterates(y))).to(torch.float64)

    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        for last in self.iterates(y):  # noqa: B007
            pass
        return last.to(torch.float64)

    def solved(self, y: Float[Tensor, "*batch m"], iterates: bool = False) -> Solved:
        r"""Returns the estimate, with what else it has for a loss to look at.

        Arguments:
            y: The data.
            iterates: Whether the fields on the way are wanted too.
        """
        if not iterates:
            return Solved(self.estimate(y))
        path = self.trajectory(y)
        return Solved(path[-1], path)

    def geometry(self, y: Float[Tensor, "*batch m"]) -> Geometry:
        r"""Returns what the data tell, by how their gradient answers to a rise of the field."""
        m, others = self._begin(y)
        slope = self.observation.gradient(m, y)
        answer = self.observation.gradient(m + self.scale, y) - slope
        precision = (self.scale * answer).clamp(min=0)
        if not precision.isfinite().all():
            msg = (
                f"{type(self.solver).__name__}(observation=...): expected data with noise, got "
                "some without. Give them a noise_std, or use Kriging()."
            )
            raise ValueError(msg)
        return Geometry(precision, self.scale * slope, m, others)

    def _begin(self, y: Float[Tensor, "*batch m"]) -> tuple[Tensor, Tensor]:
        r"""Returns where the estimate starts, and the fields that came with the data."""
        mean, batch = self.mean.expand(*y.shape[:-1], -1), y.shape[:-1]
        if not isinstance(self.observation, Informed):
            return mean, y.new_zeros(*batch, 0, mean.shape[-1])
        others = self.observation.others(y)
        return (others[..., 0, :] if self.solver.first == "guess" else mean), others

    def beside(self, geometry: Geometry) -> list[Float[Tensor, "b c *space"]]:
        r"""Returns the first guesses that came with the data as arrays, in units of the field."""
        z = (geometry.others[..., : self.told, :] - self.mean) / self.scale
        return [self.arrays(part) for part in z.unbind(dim=-2)]

    def named(self, geometry: Geometry) -> list[Float[Tensor, "b c *space"]]:
        r"""Returns the named fields that came with the data as arrays."""
        end = self.told + len(self.solver.others)
        return [self.arrays(z) for z in geometry.others[..., self.told : end, :].unbind(dim=-2)]

    def arrays(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "b c *space"]:
        r"""Returns states as arrays, in the type of the network."""
        return self.layout.spread(x).to(self.solver.dtype)

    def known(self, geometry: Geometry) -> Float[Tensor, "b q *space"]:
        r"""Returns what is known of the places: how precise data are there, and where sea is."""
        w, p = self.arrays(geometry.weight), self.arrays(geometry.precision.log1p())
        return torch.cat([w, p, self.sea.expand(len(w), *self.sea.shape[1:])], dim=1)

    def first(self, geometry: Geometry) -> Float[Tensor, "*batch n"]:
        r"""Returns the first guess, in the type of the network."""
        x = geometry.start
        if self.solver.first == "data":
            x = x + self.scale * geometry.guess
        return x.to(self.solver.dtype)

    def info(self, y: Float[Tensor, " m"]) -> dict[str, Any]:
        with torch.no_grad():
            path = self.trajectory(y)
            found: dict[str, Any] = {"approximate": True, "iterations": len(path) - 1}
            if isinstance(self.prior, Energy):
                for name, x in (("cost_before", path[0]), ("cost_after", path[-1])):
                    total = self.prior.cost(x) + self.observation.cost(x, y)
                    found[name] = total.item()
        return found

    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        prior = self.solver.simulator or self.prior
        if not isinstance(prior, Sampling):
            msg = (
                f"Posterior.sample: expected a prior that can be simulated, for Matheron's rule, "
                f"got {type(prior).__name__}. Build {type(self.solver).__name__} with "
                "simulator=..., e.g. a Gaussian prior fitted to the same fields."
            )
            raise TypeError(msg)
        x_s = prior.sample(size, generator)
        y_s = self.observation.sample(x_s, generator)
        chunks = y_s.split(max(1, CHUNK // len(prior.domain)))
        return x_s, torch.cat([self.estimate(y) for y in chunks])

    def sample(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        r"""Draws by Matheron's rule, the departures from the estimate times the inflation."""
        x_s, estimate = self.simulate(size, generator)
        return self.estimate(y) + self.solver.inflation.to(x_s.dtype) * (x_s - estimate)


class LearnedSolver(Described, Solver[P]):
    r"""A solver with weights that are learned from examples: never exact, quick to apply.

    Training differentiates ``solver(prior, observation).estimate(y)``, the path that is used
    afterwards: nothing in it depends on a mode. While gradients are on, prior, observation and
    solver are taken as they are; without, they are copied, so that a posterior is not moved by
    later training. Members of a batch do not know each other.

    It works in units of the field's standard deviation, in the floating type of its weights, and
    returns double precision. Ensembles come by Matheron's rule, with the draws of the prior or of
    a ``simulator``; :attr:`inflation` multiplies their departures from the estimate, to be set by
    a recalibration on held-out data, to a number or one per node.

    Arguments:
        channels: The axis whose places are the channels; see :class:`Layout`.
        mean: The mean of fields, in their units, a number or one per channel; by default that of
            the prior.
        scale: Their standard deviation, likewise; by default that of the prior, which may take
            time to work out where it is Gaussian.
        first: The first guess: ``"mean"``; ``"data"``, the data where they are; or ``"guess"``,
            the first field that comes with the data: see :class:`Informed`.
        simulator: A prior to draw fields from, where ``prior`` cannot be sampled.
        dtype: The floating type of the weights.
        checkpoint: Whether gradients compute the steps again instead of keeping them.
        others: The names of the fields of order one that come with the data, which the network
            looks at: as many channels each as the field has; see :class:`Informed`.

    Raises:
        ValueError: If a setting is not known, ``scale`` is not positive, or the solver has no
            network to look at other fields.
        TypeError: If the prior does not tell the units of fields.
    """

    looks: ClassVar[bool] = True
    """Whether its network looks at fields beside the data."""

    inflation: Tensor
    mean: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        channels: str | None = "time",
        mean: float | Float[Tensor, "*c"] | None = None,
        scale: float | Float[Tensor, "*c"] | None = None,
        first: str = "mean",
        simulator: Sampling | None = None,
        checkpoint: bool = False,
        others: Sequence[str] = (),
    ) -> None:
        super().__init__()
        where = type(self).__name__
        if others and not self.looks:
            msg = (
                f"{where}(others=...): expected none, as nothing in it looks at other fields, got "
                f"{', '.join(others)}. Use DirectInversion or NeuralVariational."
            )
            raise ValueError(msg)
        self.others = tuple(others)
        if first not in FIRST:
            msg = f"{where}(first=...): expected one of {FIRST}, got {first!r}. Choose one."
            raise ValueError(msg)
        self.channels, self.first, self.checkpoint = channels, first, checkpoint
        self._simulator = (simulator,)  # not a part: training must not move it
        for name, value in (("mean", mean), ("scale", scale)):
            held = None if value is None else torch.as_tensor(value, dtype=torch.float64)
            if name == "scale" and held is not None and not (held > 0).all():
                msg = (
                    f"{where}(scale=...): expected positive numbers, got {held.min().item()}. "
                    "Give the standard deviation of fields."
                )
                raise ValueError(msg)
            self.register_buffer(name, held)
        self.register_buffer("inflation", torch.ones((), dtype=torch.float64))

    @property
    def simulator(self) -> Sampling | None:
        r"""The prior to draw fields from, where one was given."""
        return self._simulator[0]

    @property
    def dtype(self) -> torch.dtype:
        r"""The floating type of the weights."""
        return next((p.dtype for p in self.parameters()), torch.float64)

    def units(
        self, prior: Prior, layout: Layout
    ) -> tuple[Float[Tensor, "*mean"], Float[Tensor, "*scale"]]:
        r"""Returns the mean and the standard deviation of fields, by node or one for all."""
        given = {"mean": self.mean, "scale": self.scale}
        for name, values in given.items():
            if values is not None:
                layout.check(type(self).__name__, name, values)
        mean = None if self.mean is None else layout.flat(self.mean)
        scale = None if self.scale is None else layout.flat(self.scale)
        with torch.no_grad():
            if mean is None:
                mean = self._of_prior(prior).drift()
            if scale is None:
                scale = _scale(self._of_prior(prior))
        return mean.to(torch.float64), scale.to(torch.float64)

    def _of_prior(self, prior: Prior) -> Projection | GaussianPrior:
        if isinstance(prior, Projection | GaussianPrior):
            return prior
        msg = (
            f"{type(self).__name__}(prior=...): expected a prior that tells the mean and the "
            f"standard deviation of fields, got {type(prior).__name__}. Build the solver with "
            "mean=... and scale=..., in the units of the field."
        )
        raise TypeError(msg)

    def prepare(self, prior: P, observation: Observation) -> LearnedConditional:
        if torch.is_grad_enabled():
            return self.conditional(prior, observation)
        kept = copy.deepcopy(self).requires_grad_(False)
        return kept.conditional(frozen(prior), frozen(observation))

    @abc.abstractmethod
    def conditional(self, prior: P, observation: Observation) -> LearnedConditional:
        r"""Returns the conditional law of the present weights, differentiable in them."""


def _scale(prior: Projection | GaussianPrior) -> Tensor:
    if isinstance(prior, Projection):
        return prior.layout.flat(prior.scale)
    return prior.variance(prior.domain.points).mean().sqrt()
