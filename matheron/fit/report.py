r"""What a fit found: estimates, standard errors, warnings."""

from __future__ import annotations

__all__ = ["Fit", "report"]

import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from dataclasses import dataclass, field
from jaxtyping import Float
from torch import Tensor

from .likelihood import Joint, Parts
from .optimise import FEW
from ..observations.base import Noise
from ..priors.base import GaussianPrior
from ..priors.quantities import Quantity


@dataclass
class Fit:
    r"""What a fit found: estimates, standard errors, and what to think of them.

    Arguments:
        log_likelihood: The log-likelihood at the estimates.
        rows: For each quantity: name, estimate, standard error (NaN if unknown) and units.
        parameters: The number of parameters, those of the trend included.
        data: The number of data.
        iterations: The number of steps taken.
        converged: Whether the last step was below tolerance.
        warnings: What could not be identified.
        penalty: What the prior of the parameters took off the likelihood that was maximised.
    """

    log_likelihood: float
    rows: list[tuple[str, float, float, str]] = field(default_factory=list)
    parameters: int = 0
    data: int = 0
    iterations: int = 0
    converged: bool = False
    warnings: list[str] = field(default_factory=list)
    penalty: float = 0.0

    @property
    def bic(self) -> float:
        r"""The Bayesian information criterion, :math:`p \log m - 2 \log p(y)`; less is better."""
        return self.parameters * math.log(self.data) - 2 * self.log_likelihood

    def summary(self, units: str = "field") -> str:
        r"""Returns a table of the estimates, in the user's units.

        Arguments:
            units: The units of the field.
        """
        head = f"{'parameter':<34}{'estimate':>14}{'std error':>13}  units"
        lines = [head, "-" * len(head)]
        for name, value, error, of in self.rows:
            shown = "-" if math.isnan(error) else f"{error:.3g}"
            lines.append(f"{name:<34}{value:>14.6g}{shown:>13}  {of.replace('field', units)}")
        state = "converged" if self.converged else "not converged"
        lines.append(
            f"log-likelihood {self.log_likelihood:.2f}, {self.data} data, {self.parameters} "
            f"parameters, BIC {self.bic:.1f}; {state} in {self.iterations} steps"
        )
        if self.penalty > 0:
            lines.append(f"penalised: the parameter fields cost {self.penalty:.2f} of likelihood")
        return "\n".join(lines + [f"warning: {w}" for w in self.warnings])

    def __str__(self) -> str:
        return self.summary()


def report(
    prior: GaussianPrior, every: Parts, likelihood: Joint, parameters: Sequence[nn.Parameter]
) -> Fit:
    r"""Returns the report of a fit, and gives the prior the coefficients of its trend."""
    size = sum(p.numel() for p in parameters)
    score = likelihood.score(parameters) if size <= FEW else None
    penalised = likelihood.value().item() if score is None else score.value
    penalty = prior.penalty().item()
    beta, V = likelihood.coefficients()
    notes: list[str] = []
    covariance = None
    if score is not None:
        modules = [prior, *(observation for observation, _ in every)]
        covariance, notes = _covariance(score.information, modules, parameters)
    rows = [
        (name, v.item(), _standard_error(v, parameters, covariance), units)
        for name, v, units in prior.quantities() + _of_noise(every)
    ]
    rows += _of_trend(prior, beta, V)
    data = sum(len(observation.points) * y[..., 0].numel() for observation, y in every)
    total = size + len(beta) * len(likelihood.each)
    return Fit(penalised + penalty, rows, total, data, warnings=notes, penalty=penalty)


def _of_trend(
    prior: GaussianPrior, beta: Float[Tensor, " q"], V: Float[Tensor, "q q"]
) -> list[tuple[str, float, float, str]]:
    if prior.trend is None:
        return []
    prior.coefficients = beta.detach()
    errors = V.diagonal().sqrt()
    return [
        (f"trend {name}", b.item(), e.item(), "field per unit")
        for name, b, e in zip(prior.trend.names, beta, errors, strict=True)
    ]


def _of_noise(every: Parts) -> list[Quantity]:
    r"""Returns the noise and the biases that are learned, numbered where there are several."""
    observations = [observation for observation, _ in every]
    found = observations[0] if len(every) == 1 else nn.ModuleList(observations)
    named = [(n, m) for n, m in found.named_modules() if isinstance(m, Noise)]
    first = {id(m.log_scale): (n.split("."), m) for n, m in reversed(named)}  # each scale once
    learned = [pair for pair in reversed(first.values()) if pair[1].log_scale.requires_grad]
    kinds = {"error": "noise std", "bias": "bias std"}
    last = [place[-1] for place, _ in learned]
    rows: list[Quantity] = []
    for (*place, kind), noise in learned:
        std = (noise.std.square().mean().sqrt() * noise.log_scale.exp()).reshape(())
        number = ".".join(str(int(k) + 1) for k in place if k.isdigit())
        label = kinds.get(kind, kind) + (f" {number}" if number and last.count(kind) > 1 else "")
        rows += [(label, std, "field"), (f"{label}, squared", std**2, "field^2")]
    return rows


def _covariance(
    information: Float[Tensor, "p p"],
    modules: Sequence[nn.Module],
    parameters: Sequence[nn.Parameter],
) -> tuple[Tensor, list[str]]:
    r"""Returns the covariance of the estimates, and the names of those not identified."""
    names = {id(p): n for m in modules for n, p in m.named_parameters()}
    labels = [names[id(p)] for p in parameters for _ in range(p.numel())]
    scale = information.diagonal().clamp(min=1e-12).sqrt()
    # a direction without information has a huge variance, where a pseudo-inverse has none
    values, vectors = torch.linalg.eigh(information / (scale[:, None] * scale))
    covariance = (vectors / values.clamp(min=1e-10 * len(values))) @ vectors.mT
    covariance = covariance / (scale[:, None] * scale)
    errors = covariance.diagonal().clamp(min=0).sqrt()
    vague = [n for n, e, s in zip(labels, errors, scale, strict=True) if e > 2 or s < 1e-5]
    notes = [
        f"{', '.join(sorted(set(vague)))} cannot be told from these data: the standard error of "
        "its logarithm is over 2. Fix it with requires_grad_(False), or give more data."
    ]
    return covariance, notes if vague else []


def _standard_error(
    value: Tensor, parameters: Sequence[nn.Parameter], covariance: Tensor | None
) -> float:
    if covariance is None or not value.requires_grad:
        return math.nan
    slopes = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, slopes, strict=True)
    ]
    g = torch.cat([f.reshape(-1) for f in filled])
    return (g @ covariance @ g).clamp(min=0).sqrt().item()
