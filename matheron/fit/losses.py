r"""What a learned solver is trained for: losses, which are functions that can be added.

Each gives one number per window. Sums over nodes are divided by the sum of their weights, so
that a loss does not depend on the size of a patch, nor on the company of a window in its batch.
"""

from __future__ import annotations

__all__ = [
    "Loss",
    "Outcome",
    "crps",
    "data_misfit",
    "every_iterate",
    "field_error",
    "gaussian_likelihood",
    "gradient_error",
    "prior_cost",
    "variational_cost",
    "withheld_error",
]

import torch
import torch.nn as nn

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from jaxtyping import Float
from torch import Tensor

from ..data.batches import Batch
from ..domain import EARTH_RADIUS
from ..metrics.scores import crps_gaussian, log_score_gaussian
from ..observations import Observation
from ..priors.base import Energy, Prior

AGAINST = ("truth", "withheld")


@dataclass(frozen=True)
class Outcome:
    r"""What came of solving a batch.

    Arguments:
        batch: The batch.
        prior: The prior.
        observation: The observation.
        y: The data that the solver was given.
        x: Its estimates, with shape :math:`(b, n)`.
        iterates: All its iterates, from the first guess on, with shape :math:`(k, b, n)`.
        theta: The parameters that it estimates with them, with shape :math:`(b, c, p)`.
    """

    batch: Batch
    prior: Prior
    observation: Observation
    y: Float[Tensor, "b m"]
    x: Float[Tensor, "b n"]
    iterates: Float[Tensor, "k b n"] | None = None
    theta: Float[Tensor, "b c p"] | None = None


Rule = Callable[[Outcome], Float[Tensor, " b"]]
Spread = Callable[[Outcome], Float[Tensor, "b n"]]
"""What gives the standard deviation of the error of estimates: mostly a module."""


class Loss:
    r"""A weighted sum of rules, each of which gives one number per window.

    Losses are added and multiplied by numbers: ``field_error() + 0.1 * gradient_error(1e5)``.

    Arguments:
        name: The name of the rule.
        rule: The rule.
        module: What the rule has that is to be learned too, e.g. a spread.
        iterates: Whether the rule looks at all iterates.

    Example:
        >>> one = Loss("one", lambda outcome: torch.ones(2))
        >>> both = one + 0.5 * one
        >>> [(weight, name) for weight, name, _ in both.terms]
        [(1.0, 'one'), (0.5, 'one')]
    """

    def __init__(
        self, name: str, rule: Rule, module: nn.Module | None = None, iterates: bool = False
    ) -> None:
        self.terms: tuple[tuple[float, str, Rule], ...] = ((1.0, name, rule),)
        self.modules: tuple[nn.Module, ...] = () if module is None else (module,)
        self.iterates = iterates

    def __call__(self, outcome: Outcome) -> Float[Tensor, " b"]:
        return torch.stack([w * rule(outcome) for w, _, rule in self.terms]).sum(dim=0)

    def parts(self, outcome: Outcome) -> dict[str, Float[Tensor, " b"]]:
        r"""Returns each term by its name, without its weight."""
        return {name: rule(outcome) for _, name, rule in self.terms}

    def __add__(self, other: Loss) -> Loss:
        return self._with(
            self.terms + other.terms,
            (*self.modules, *(m for m in other.modules if m not in self.modules)),
            self.iterates or other.iterates,
        )

    def __mul__(self, weight: float | int) -> Loss:
        terms = tuple((weight * w, name, rule) for w, name, rule in self.terms)
        return self._with(terms, self.modules, self.iterates)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | int) -> Loss:
        return self * (1 / divisor)

    def __repr__(self) -> str:
        return " + ".join(f"{w:g} {name}" for w, name, _ in self.terms)

    def _with(
        self,
        terms: tuple[tuple[float, str, Rule], ...],
        modules: tuple[nn.Module, ...],
        iterates: bool,
    ) -> Loss:
        new = object.__new__(Loss)
        new.terms, new.modules, new.iterates = terms, modules, iterates
        return new


def _mean(values: Float[Tensor, "b n"], weights: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    r"""Returns weighted means; zero where nothing weighs. What weighs nothing is never read."""
    total = weights.sum(dim=-1)
    safe = torch.where(weights > 0, values, 0.0)
    return (weights * safe).sum(dim=-1) / torch.where(total > 0, total, 1.0)


def _truth(outcome: Outcome, where: str) -> Float[Tensor, "b n"]:
    if outcome.batch.truth is None:
        msg = (
            f"{where}(outcome=...): expected windows with a truth, got none. Train with "
            "withheld_error(), from data alone."
        )
        raise ValueError(msg)
    return outcome.batch.truth


def _hidden(outcome: Outcome, where: str) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    r"""Returns the data that the solver did not see, and their weights."""
    batch = outcome.batch
    if batch.hidden is None or batch.hidden_mask is None:
        msg = (
            f"{where}(outcome=...): expected windows with hidden data, got none. Give "
            "withhold=Withhold(...) to Windows."
        )
        raise ValueError(msg)
    return batch.hidden, batch.weights * batch.hidden_mask


def field_error() -> Loss:
    r"""Returns the mean square error, :math:`\sum_i w_i (x_i - x^t_i)^2 / \sum_i w_i`."""

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        e = outcome.x - _truth(outcome, "field_error")
        return _mean(e.square(), outcome.batch.weights)

    return Loss("field_error", rule)


def gradient_error(length: float) -> Loss:
    r"""Returns the mean square error of the gradient in space, in units of the field.

    .. math:: L^2 \sum_a \frac{\sum_i w_i \left( \partial_a (x - x^t)_i \right)^2}{\sum_i w_i}

    over the axes :math:`a` of space, by differences between neighbours, on the metric of the
    grid: on the sphere, degrees of longitude are as wide as they are at each latitude.

    Arguments:
        length: The length :math:`L`, e.g. that of eddies, in metres, or in units of the axes on
            the plane.

    Raises:
        ValueError: If the length is not positive.
    """
    if not length > 0:
        msg = f"gradient_error(length=...): expected a positive length, got {length}. Use 1e5."
        raise ValueError(msg)

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        e = outcome.x - _truth(outcome, "gradient_error")
        batch = outcome.batch
        return sum(
            (
                _mean((length * slope).square().flatten(1), w.flatten(1))
                for slope, w in _slopes(batch, batch.space(e), batch.space(batch.weights))
            ),
            start=e.new_zeros(len(e)),
        )

    return Loss("gradient_error", rule)


def _slopes(batch: Batch, e: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Yields the slopes along each axis of space, and their weights: the least of both ends."""
    e = torch.where(weights > 0, e, 0.0)
    for place, name in enumerate(batch.grid.dims, start=1):
        if name == "time" or e.shape[place] < 2:
            continue
        n = e.shape[place] - 1
        ends = [weights.narrow(place, i, n) for i in (0, 1)]
        difference = e.diff(dim=place) / _spacing(batch, name, place, e.ndim)
        yield difference, torch.minimum(*ends)


def _spacing(batch: Batch, name: str, place: int, ndim: int) -> Float[Tensor, "b ..."]:
    r"""Returns the distance between neighbours, in metres on the sphere."""
    axis = batch.axes[name] if name in batch.axes else batch.grid.axes[name][None]
    step = _along(axis.diff(dim=-1), place, ndim)
    if batch.grid.metric == "plane" or name not in ("lat", "lon"):
        return step
    metres = EARTH_RADIUS * step.deg2rad()
    if name == "lat":
        return metres
    lat = batch.axes["lat"] if "lat" in batch.axes else batch.grid.axes["lat"][None]
    return metres * _along(lat.deg2rad().cos(), batch.grid.dims.index("lat") + 1, ndim)


def _along(axis: Float[Tensor, "b k"], place: int, ndim: int) -> Float[Tensor, "b ..."]:
    shape = [len(axis)] + [1] * (ndim - 1)
    shape[place] = axis.shape[-1]
    return axis.reshape(shape)


def _energy(outcome: Outcome, where: str) -> Energy:
    if not isinstance(outcome.prior, Energy):
        msg = (
            f"{where}(outcome=...): expected a prior that is Energy, got "
            f"{type(outcome.prior).__name__}. Leave this term out."
        )
        raise TypeError(msg)
    return outcome.prior


def prior_cost(of: str = "estimate") -> Loss:
    r"""Returns the cost of the prior per node, :math:`J_b(x) / n`: it regularises.

    Arguments:
        of: ``"estimate"``, or ``"truth"``: a prior should find the truth likely. The cost has no
            term of normalisation: alone, it would be least for a prior that likes everything.

    Raises:
        ValueError: If ``of`` is neither.
    """
    if of not in ("estimate", "truth"):
        msg = f"prior_cost(of=...): expected 'estimate' or 'truth', got {of!r}. Choose one."
        raise ValueError(msg)

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        x = outcome.x if of == "estimate" else _truth(outcome, "prior_cost")
        return _energy(outcome, "prior_cost").cost(x) / x.shape[-1]

    return Loss(f"prior_cost_of_{of}", rule)


def data_misfit() -> Loss:
    r"""Returns the cost of the data that the solver sees, per node, :math:`J_o(x) / n`."""

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        return outcome.observation.cost(outcome.x, outcome.y) / outcome.x.shape[-1]

    return Loss("data_misfit", rule)


def variational_cost() -> Loss:
    r"""Returns the variational cost per node, :math:`(J_b(x) + J_o(x)) / n`: no truth is needed.

    The prior must stay: it would learn to like everything, as nothing holds its normalisation.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        prior = _energy(outcome, "variational_cost")
        if any(p.requires_grad for p in prior.parameters()):
            msg = (
                "variational_cost(prior=...): expected a prior that stays, got parameters that "
                "move: their best is to like everything. Call prior.requires_grad_(False), or "
                "train with withheld_error()."
            )
            raise ValueError(msg)
        x = outcome.x
        return (prior.cost(x) + outcome.observation.cost(x, outcome.y)) / x.shape[-1]

    return Loss("variational_cost", rule)


def withheld_error() -> Loss:
    r"""Returns the mean square error at hidden data, in units of their errors.

    .. math:: \sum_{i \in h} w_i \frac{(x_i - y_i)^2}{\sigma_i^2} \Big/ \sum_{i \in h} w_i

    No truth is needed: it is how to learn from real data. At its best it is one or more.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        y, weights = _hidden(outcome, "withheld_error")
        return _mean(((outcome.x - y) / outcome.batch.noise_std).square(), weights)

    return Loss("withheld_error", rule)


def _target(
    outcome: Outcome, spread: Spread, against: str, where: str
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    r"""Returns what is to be predicted, the std of the prediction, and the weights."""
    std = spread(outcome)
    if against == "truth":
        return _truth(outcome, where), std, outcome.batch.weights
    y, weights = _hidden(outcome, where)
    return y, (std.square() + outcome.batch.noise_std.square()).sqrt(), weights


def _gaussian(name: str, score: Callable[..., Tensor], spread: Spread, against: str) -> Loss:
    r"""Returns the mean of a score of a Gaussian law with a predicted spread."""
    if against not in AGAINST:
        msg = f"{name}(against=...): expected one of {AGAINST}, got {against!r}. Choose one."
        raise ValueError(msg)

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        truth, std, weights = _target(outcome, spread, against, name)
        # a last axis of one, so that scores are of each node and no average
        each = score(outcome.x[..., None], std[..., None], truth[..., None])
        return _mean(each, weights)

    return Loss(name, rule, spread if isinstance(spread, nn.Module) else None)


def gaussian_likelihood(spread: Spread, against: str = "truth") -> Loss:
    r"""Returns minus the mean log-density of a Gaussian law with a predicted spread.

    .. math:: \tfrac{1}{2} z^2 + \log \sigma + \tfrac{1}{2} \log 2 \pi, \qquad
        z = (x^t - x) / \sigma

    Arguments:
        spread: What gives the spread of an outcome; if it is a module, it is trained too.
        against: ``"truth"``, or ``"withheld"``: hidden data, whose errors are in the spread.

    Raises:
        ValueError: If ``against`` is neither.
    """
    return _gaussian("gaussian_likelihood", log_score_gaussian, spread, against)


def crps(spread: Spread, against: str = "truth") -> Loss:
    r"""Returns the continuous ranked probability score of a Gaussian law with a predicted spread.

    .. math:: \sigma \left( z \, (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right)

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437

    Arguments:
        spread: What gives the spread of an outcome; if it is a module, it is trained too.
        against: ``"truth"``, or ``"withheld"``: hidden data, whose errors are in the spread.

    Raises:
        ValueError: If ``against`` is neither.
    """
    return _gaussian("crps", crps_gaussian, spread, against)


def every_iterate(loss: Loss, growth: float = 1.0) -> Loss:
    r"""Returns a loss over all iterates but the first guess, so that each of them is usable.

    .. math:: \sum_{k \geq 1} g^k L(x_k) \Big/ \sum_{k \geq 1} g^k

    Arguments:
        loss: The loss :math:`L` of an iterate.
        growth: The factor :math:`g` from one iterate to the next.

    Raises:
        ValueError: If the factor is not positive.
    """
    if not growth > 0:
        msg = f"every_iterate(growth=...): expected a positive factor, got {growth}. Use 1.0."
        raise ValueError(msg)

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        if outcome.iterates is None or len(outcome.iterates) < 2:
            msg = (
                "every_iterate(outcome=...): expected a solver that gives its iterates, got one "
                "estimate. Use the loss as it is."
            )
            raise ValueError(msg)
        xs = outcome.iterates[1:]
        # weights from the last one back, so that no power overflows
        powers = xs.new_tensor([growth ** (k + 1 - len(xs)) for k in range(len(xs))])
        values = torch.stack([loss(replace(outcome, x=x, iterates=None)) for x in xs])
        return (powers[:, None] * values).sum(dim=0) / powers.sum()

    made = Loss("every_iterate", rule, iterates=True)
    made.modules = loss.modules
    return made
