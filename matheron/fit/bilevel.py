r"""What a solver of a field and of its parameters is trained for, and simulations to train on."""

from __future__ import annotations

__all__ = [
    "JointBatch",
    "JointSimulations",
    "bilevel",
    "parameter_error",
    "parameter_likelihood",
    "posterior_crps",
    "withheld_likelihood",
]

import dataclasses
import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import Any

from .losses import Loss, Outcome, field_error
from .moments import posterior_moments
from .simulations import Gaps, Simulations
from ..data.batches import Batch, fingerprint_of
from ..metrics.scores import crps_gaussian
from ..observations import GriddedObservation
from ..priors.spde.augmented import AugmentedSPDE
from ..solvers.base import LikelihoodSolver


@dataclass(frozen=True)
class JointBatch(Batch):
    r"""Some windows, and the parameters that their fields were drawn with.

    Arguments:
        theta: The parameters, with shape :math:`(b, c, k)`: for the loss, never for the solver.
    """

    theta: Float[Tensor, "b c k"] | None = None


class JointSimulations(Simulations):
    r"""Fields and their parameters, drawn beforehand, each seen through gaps and with noise.

    Arguments:
        prior: The joint prior.
        draws: Fields and parameters, as :meth:`AugmentedSPDE.sample_jointly` gives them.
        gaps: Where fields are seen; see :class:`Simulations`.
        noise_std: The standard deviation of the noise; see :class:`Simulations`.
        weights: The weight of each node; one by default.

    Raises:
        ValueError: If there are not as many fields as parameters, or as :class:`Simulations` does.

    Example:
        >>> import matheron as mt
        >>> grid = mt.Grid(time=[0.0, 1.0], y=torch.arange(7.0), x=torch.arange(8.0))
        >>> prior = AugmentedSPDE(grid, lengthscale=3.0, timescale=4.0)
        >>> draws = prior.sample_jointly(4, torch.Generator().manual_seed(0))
        >>> windows = JointSimulations(prior, draws, 0.3, noise_std=0.1)
        >>> windows.batch(torch.arange(3), torch.arange(3)).theta.shape
        torch.Size([3, 7, 9])
    """

    def __init__(
        self,
        prior: AugmentedSPDE,
        draws: tuple[Float[Tensor, "r n"], Float[Tensor, "q c k"]],
        gaps: float | Tensor | Gaps,
        noise_std: float | tuple[float, float],
        weights: Float[Tensor, " n"] | None = None,
    ) -> None:
        x, self.theta = draws
        if len(x) != len(self.theta):
            msg = (
                f"JointSimulations(draws=...): expected as many fields as parameters, got "
                f"{len(x)} and {len(self.theta)}. Draw them with prior.sample_jointly(size)."
            )
            raise ValueError(msg)
        super().__init__(prior.domain, x, gaps, noise_std, weights=weights)

    def fingerprint(self) -> str:
        return fingerprint_of([self.theta], super().fingerprint())

    def batch(self, index: Int[Tensor, " b"], seeds: Int[Tensor, " b"]) -> JointBatch:
        plain = super().batch(index, seeds)
        kept: dict[str, Any] = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
        return JointBatch(**kept, theta=self.theta[index])


def _both(outcome: Outcome, where: str) -> tuple[Float[Tensor, "b c k"], AugmentedSPDE]:
    if outcome.theta is None:
        msg = (
            f"{where}(outcome=...): expected a solver that estimates parameters, got one that "
            "does not. Use AugmentedVariational."
        )
        raise TypeError(msg)
    if not isinstance(outcome.prior, AugmentedSPDE):
        msg = (
            f"{where}(outcome=...): expected an AugmentedSPDE, got "
            f"{type(outcome.prior).__name__}. Leave this term out."
        )
        raise TypeError(msg)
    return outcome.theta, outcome.prior


def parameter_error() -> Loss:
    r"""Returns the mean square error of parameters, in units of their spread.

    At its best the estimate is the mean of the parameters given the data: amortised inference, by
    simulation alone. What does not vary is left out.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        (theta, prior), batch = _both(outcome, "parameter_error"), outcome.batch
        if not isinstance(batch, JointBatch) or batch.theta is None:
            msg = (
                "parameter_error(outcome=...): expected windows whose parameters are known, got "
                "others. Train on JointSimulations, or with parameter_likelihood()."
            )
            raise ValueError(msg)
        varies = prior.spreads > 0
        return (theta - batch.theta)[:, varies].square().mean(dim=(-2, -1))

    return Loss("parameter_error", rule)


def parameter_likelihood() -> Loss:
    r"""Returns minus the log-density of the truth given the parameters, per node.

    .. math:: -\frac{1}{n} \log p(x^\star \mid \theta)

    The determinant of the precision is in it. The truth is in the loss only: parameters are
    estimated from data. It needs no true parameters, and a truth on all nodes.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        theta, prior = _both(outcome, "parameter_likelihood")
        truth = outcome.batch.truth
        if truth is None:
            msg = (
                "parameter_likelihood(outcome=...): expected windows with a truth, got none. Use "
                "withheld_likelihood(), from data alone."
            )
            raise ValueError(msg)
        each = [prior.log_density(x[None], t)[0] for x, t in zip(truth, theta, strict=True)]
        return -torch.stack(each) / truth.shape[-1]

    return Loss("parameter_likelihood", rule)


def bilevel(field: float = 1.0, likelihood: float = 1.0) -> Loss:
    r"""Returns :math:`\lambda_1 |x - x^\star|^2 / n - \lambda_2 \log p(x^\star \mid \theta) / n`.

    Both are per node, so that the weights do not depend on the size of the window.

    References:
        | Neural variational data assimilation with uncertainty quantification using SPDE priors
          (Beauchamp, Fablet, Benaichouche, Tandeo, Desassis & Chapron, 2025)
        | https://doi.org/10.1175/AIES-D-24-0060.1

    Arguments:
        field: The weight :math:`\lambda_1`, in inverse squares of the units of the field.
        likelihood: The weight :math:`\lambda_2`.
    """
    return field * field_error() + likelihood * parameter_likelihood()


def _seen(outcome: Outcome, k: int, hidden: bool) -> tuple[GriddedObservation, Tensor]:
    r"""Returns the data of a window, or those with the hidden ones too."""
    batch = outcome.batch
    values, mask = batch.values[k], batch.mask[k]
    if hidden and batch.hidden is not None and batch.hidden_mask is not None:
        values, mask = values + batch.hidden[k], mask | batch.hidden_mask[k]
    noise = batch.noise_std if batch.noise_std.ndim == 0 else batch.noise_std[k]
    return GriddedObservation(batch.grid, mask, noise), values


def posterior_crps(probes: int = 4, generator: Generator | None = None) -> Loss:
    r"""Returns the CRPS of the exact posterior given the parameters that are estimated.

    .. math:: \frac{1}{n} \sum_i \mathrm{CRPS} \left( \mathcal{N}(m_i(\theta), s_i^2(\theta)),
        x^\star_i \right)

    It is the score of the members that are drawn with them. The estimate of the field by the
    network has no part in it: add :func:`field_error`. Values are exact; gradients go through
    the mean and the variance: see :func:`posterior_moments`. Each window takes a factor, some
    times the cost of :func:`parameter_likelihood`.

    Arguments:
        probes: The number of vectors of random signs for the gradient of the variance.
        generator: The random number generator of the signs; by default that of torch, which
            :func:`train` seeds for each batch.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        theta, prior = _both(outcome, "posterior_crps")
        truth, weights = outcome.batch.truth, outcome.batch.weights
        if truth is None:
            msg = (
                "posterior_crps(outcome=...): expected windows with a truth, got none. Use "
                "withheld_likelihood(), from data alone."
            )
            raise ValueError(msg)
        each = []
        for k, t in enumerate(theta):
            seen = _seen(outcome, k, hidden=False)
            m, v = posterior_moments(prior.given(t), *seen, probes, generator)
            each.append(crps_gaussian(m, v.sqrt(), truth[k], weights[k]))
        return torch.stack(each)

    return Loss("posterior_crps", rule)


def withheld_likelihood(conditioner: LikelihoodSolver[Any]) -> Loss:
    r"""Returns minus the log-density of hidden data given the others, per hidden datum.

    .. math:: -\frac{1}{h} \left( \log p(y, y_h \mid \theta) - \log p(y \mid \theta) \right)

    No truth is needed: it is how to learn parameters from real data.

    Arguments:
        conditioner: What knows the likelihood, e.g. ``SparseCholesky()``.
    """

    def rule(outcome: Outcome) -> Float[Tensor, " b"]:
        theta, prior = _both(outcome, "withheld_likelihood")
        if outcome.batch.hidden_mask is None:
            msg = (
                "withheld_likelihood(outcome=...): expected windows with hidden data, got none. "
                "Give withhold=Withhold(...) to Windows."
            )
            raise ValueError(msg)
        each = []
        for k, t in enumerate(theta):
            law = prior.given(t)
            more, fewer = (
                conditioner.likelihood(law, *_seen(outcome, k, hidden)).value()
                for hidden in (True, False)
            )
            each.append((fewer - more) / outcome.batch.hidden_mask[k].sum().clamp(min=1))
        return torch.stack(each)

    return Loss("withheld_likelihood", rule)
