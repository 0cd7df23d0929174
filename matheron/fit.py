r"""Fitting: one loop, maximum likelihood by Fisher scoring or by L-BFGS, and cross-validation."""

from __future__ import annotations

__all__ = ["Fit", "blocks", "cross_validate", "default_solver", "maximum_likelihood", "predict"]

import math
import torch
import torch.nn as nn
import warnings

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .domain import Points
from .kernels.stationary import Matern, Stationary
from .metrics.scores import summary as score_summary
from .observations import LinearObservation
from .observations.base import Noise
from .priors.base import KernelPrior
from .priors.gp import GaussianProcess
from .solvers.base import Likelihood, LikelihoodSolver, Score, Solver
from .solvers.kriging import Kriging
from .solvers.vecchia import Vecchia

Progress = Callable[[int, float], None]


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
    """

    log_likelihood: float
    rows: list[tuple[str, float, float, str]] = field(default_factory=list)
    parameters: int = 0
    data: int = 0
    iterations: int = 0
    converged: bool = False
    warnings: list[str] = field(default_factory=list)

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
        return "\n".join(lines + [f"warning: {w}" for w in self.warnings])

    def __str__(self) -> str:
        return self.summary()


def _free(*modules: nn.Module) -> list[nn.Parameter]:
    found = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    return list(found.values())


def _flat(parameters: Sequence[nn.Parameter]) -> Float[Tensor, " p"]:
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def _assign(parameters: Sequence[nn.Parameter], theta: Float[Tensor, " p"]) -> None:
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
    return step / max(1.0, step.abs().max().item())


def _fisher_scoring(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    score, damping = likelihood.score(parameters), 1e-4
    assert score is not None
    for i in range(1, steps + 1):
        theta, moved = _flat(parameters), False
        for _ in range(12):
            step = _step(score.information, score.gradient, damping)
            gain = float(step @ score.gradient)
            if gain < tolerance:
                _assign(parameters, theta)  # not at a step that was refused
                return i, True
            _assign(parameters, theta + step)
            trial = _try(likelihood, parameters)
            if trial is not None and trial.value >= score.value - 1e-9 * abs(score.value):
                improved, moved = trial.value - score.value, True
                score, damping = trial, max(damping * 0.2, 1e-6)
                break
            damping = max(damping * 10, 1e-2)
        if not moved:
            _assign(parameters, theta)
            return i, False
        progress(i, score.value)
        if abs(improved) < tolerance:
            return i, True
    return steps, False


def _lbfgs(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=1,
        max_eval=26,  # the line search has what one iteration leaves of it
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        try:
            loss = -likelihood.value()
        except ValueError:  # singular: a step too far; the line search comes back
            return torch.tensor(math.inf, dtype=torch.float64)
        loss.backward()
        return loss.detach()

    last = math.inf
    for i in range(1, steps + 1):
        value = float(optimizer.step(closure))
        progress(i, -value)
        if last - value < tolerance and i > 1:
            return i, True
        last = value
    return steps, False


def _maximise(
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
    steps: int,
    tolerance: float,
    progress: Progress,
) -> tuple[int, bool]:
    few = sum(p.numel() for p in parameters) <= 25
    scoring = few and likelihood.score(parameters) is not None
    method = _fisher_scoring if scoring else _lbfgs
    return method(likelihood, parameters, steps, tolerance, progress)


def maximum_likelihood(
    prior: KernelPrior,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    solver: LikelihoodSolver | None = None,
    steps: int = 40,
    tolerance: float = 0.02,
    refresh: int = 3,
    progress: Progress | None = None,
    coarse: bool = True,
) -> KernelPrior:
    r"""Fits a prior, and what is learned of the noise, by maximum likelihood.

    Parameters are changed in place, as when a network is trained; the prior is returned, with the
    report as ``prior.fitted``, printed by ``prior.summary()``. Those that do not require a
    gradient are left as they are. The noise is fitted where the observation was built with
    ``learn_noise=True``.

    The coefficients of the trend are profiled out (generalised least squares). Fisher scoring is
    used for up to 25 parameters, L-BFGS beyond. Where the solver orders data by the kernel, the
    order is refreshed as the lengthscales change.

    References:
        | Gaussian process learning via Fisher scoring of Vecchia's approximation (Guinness, 2021)
        | https://doi.org/10.1007/s11222-020-09999-1

    Arguments:
        prior: The prior, with its parameters at a first guess.
        observation: The observation, with its noise at a first guess.
        y: The data.
        solver: Whose likelihood to maximise: :class:`Vecchia` by default above 1500 data,
            :class:`Kriging` below.
        steps: The largest number of steps at each refreshed geometry.
        tolerance: The gain in log-likelihood below which to stop.
        refresh: The largest number of times to refresh the geometry.
        progress: Called with the step and the log-likelihood after each step.
        coarse: Whether to start with a cheaper likelihood, where the solver has one.

    Raises:
        ValueError: If nothing is to be learned, or data are not finite.

    Example:
        >>> import matheron as mt
        >>> generator = torch.Generator().manual_seed(0)
        >>> line = mt.Points(x=torch.arange(200.0))
        >>> truth = mt.GaussianProcess(mt.Matern(0.5, lengthscale=5.0), line)
        >>> y = truth.sample(1, generator)[0]
        >>> seen = mt.PointObservation(line, line, noise_std=0.0)
        >>> prior = mt.GaussianProcess(mt.Matern(0.5), line)
        >>> prior = mt.fit.maximum_likelihood(prior, seen, y)
        >>> 2 < prior.kernel.lengthscale.item() < 12
        True
    """
    parameters = _free(prior, observation)
    if not parameters:
        msg = (
            "maximum_likelihood(prior=...): expected parameters to learn, got none that require "
            "a gradient. Call prior.requires_grad_(True)."
        )
        raise ValueError(msg)
    solver = solver or default_solver(len(observation.points))
    report = progress or (lambda *_: None)
    total, converged = 0, False
    start = solver.coarse() if coarse else None
    if start is not None:
        likelihood = start.likelihood(prior, observation, y)
        total += _maximise(likelihood, parameters, steps, max(tolerance, 0.5), report)[0]
    for _ in range(max(1, refresh)):
        before = _flat(parameters)
        likelihood = solver.likelihood(prior, observation, y)
        taken, converged = _maximise(likelihood, parameters, steps, tolerance, report)
        total += taken
        if (_flat(parameters) - before).abs().max() < 0.02:
            break
    result = _report(prior, observation, likelihood, parameters)
    result.iterations, result.converged = total, converged
    prior.fitted = result
    for text in result.warnings:
        warnings.warn(text, stacklevel=2)
    return prior


def default_solver(size: int) -> LikelihoodSolver:
    r"""Returns the solver to use for a number of data: exact while that is quick."""
    return Kriging() if size <= 1500 else Vecchia()


def _quantities(
    prior: KernelPrior, observation: LinearObservation
) -> list[tuple[str, Tensor, str]]:
    r"""Returns what a reader wants to know of each parameter: name, value and units."""
    rows: list[tuple[str, Tensor, str]] = []
    parts = [k for k in prior.kernel.modules() if _has_parameters(k)]
    for i, part in enumerate(parts, start=1):
        head = f"{type(part).__name__}" + (f" {i}" if len(parts) > 1 else "")
        rows += [(f"{head} {name}", v, u) for name, v, u in _of_kernel(part, prior)]
    named = [(n, m) for n, m in observation.named_modules() if isinstance(m, Noise)]
    kinds = {"error": "noise std", "bias": "bias std"}
    last = [n.split(".")[-1] for n, m in named if m.log_scale.requires_grad]
    for name, noise in named:
        *place, kind = name.split(".")
        if noise.log_scale.requires_grad:
            std = (noise.std.square().mean().sqrt() * noise.log_scale.exp()).reshape(())
            number = f" {int(place[-1]) + 1}" if place and last.count(kind) > 1 else ""
            label = kinds.get(kind, kind) + number
            rows += [(label, std, "field"), (f"{label}, squared", std**2, "field^2")]
    return rows


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _of_kernel(part: nn.Module, prior: KernelPrior) -> list[tuple[str, Tensor, str]]:
    rows = []
    for name, parameter in part.named_parameters(recurse=False):
        if not parameter.requires_grad or name in {"log_lengthscale", "shear"}:
            continue
        clean = name.removeprefix("log_").removeprefix("angle_")
        value = parameter.exp() if name.startswith("log_") else parameter.sin().square()
        rows.append((clean, value, "field^2" if clean == "variance" else "-"))
    return rows + (_of_scales(part, prior) if isinstance(part, Stationary) else [])


def _of_scales(part: Stationary, prior: KernelPrior) -> list[tuple[str, Tensor, str]]:
    dims = prior.domain.dims
    if part.axes is not None:
        dims = dims[:1] if part.axes == "time" else dims[1:]
    sphere = prior.domain.metric == "sphere"
    scale, rotation = part.principal_axes()
    single = scale.ndim == 0
    rows = []
    for name, value in zip(dims, [scale] if single else scale, strict=False):
        in_km = sphere and name in {"lat", "lon"}
        units = "km" if in_km else ("days" if name == "time" else f"units of {name}")
        label = "lengthscale" if single else f"lengthscale {name}"
        rows.append((label, value / 1000 if in_km else value, units))
        if single:
            break
    if rotation is not None:
        rows += [("rotation", angle, "degrees") for angle in rotation.reshape(-1)]
    if single and isinstance(part, Matern):
        label, value, units = rows[0]
        ratio = part.variance / value ** (2 * part.nu)
        rows.append(("variance/lengthscale^(2 nu)", ratio, f"field^2/{units}^(2 nu)"))
    return rows


def _report(
    prior: KernelPrior,
    observation: LinearObservation,
    likelihood: Likelihood,
    parameters: Sequence[nn.Parameter],
) -> Fit:
    score = likelihood.score(parameters) if _flat(parameters).numel() <= 25 else None
    value = likelihood.value().item() if score is None else score.value
    beta, V = likelihood.coefficients()
    quantities = _quantities(prior, observation)
    notes: list[str] = []
    covariance = None
    if score is not None:
        covariance, notes = _covariance(score.information, prior, observation, parameters)
    rows = [
        (name, v.item(), _standard_error(v, parameters, covariance), units)
        for name, v, units in quantities
    ]
    if isinstance(prior, GaussianProcess) and prior.trend is not None:
        prior.coefficients = beta.detach()
        errors = V.diagonal().sqrt()
        rows += [
            (f"trend {name}", b.item(), e.item(), "field per unit")
            for name, b, e in zip(prior.trend.names, beta, errors, strict=True)
        ]
    p = _flat(parameters).numel() + len(beta)
    return Fit(value, rows, p, len(observation.points), warnings=notes)


def _covariance(
    information: Float[Tensor, "p p"],
    prior: KernelPrior,
    observation: LinearObservation,
    parameters: Sequence[nn.Parameter],
) -> tuple[Tensor, list[str]]:
    r"""Returns the covariance of the estimates, and the names of those not identified."""
    names = {id(p): n for m in (prior, observation) for n, p in m.named_parameters()}
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


def blocks(
    points: Points, size: float, folds: int = 5, generator: torch.Generator | None = None
) -> Int[Tensor, " m"]:
    r"""Returns a fold for each point, so that points of one block share a fold.

    Blocks are squares (boxes) of side ``size`` in space: metres on the sphere, units of the axes
    on the plane. Time is left out: a block holds all its times.

    Example:
        >>> from matheron.domain import Points
        >>> blocks(Points(x=[0.0, 0.1, 5.0]), size=1.0, folds=2).shape
        torch.Size([3])
    """
    if not size > 0:
        msg = f"blocks(size=...): expected a positive size, got {size}. Use the width of a gap."
        raise ValueError(msg)
    start = 1 if "time" in points.dims else 0
    cell = (points.local()[:, start:] / size).floor().long()
    _, block = torch.unique(cell, dim=0, return_inverse=True)
    count = int(block.max()) + 1
    if count < folds:
        msg = (
            f"blocks(size={size}): expected at least {folds} blocks, one per fold, got {count}. "
            "Use smaller blocks or fewer folds."
        )
        raise ValueError(msg)
    fold = torch.arange(count) % folds
    return fold[torch.randperm(count, generator=generator)][block]


def cross_validate(
    prior: GaussianProcess,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    blocks: Int[Tensor, " m"],
    solver: Solver | None = None,
) -> dict[str, float]:
    r"""Returns the scores of predicting each fold from the others.

    The parameters are those of the prior; they are not fitted again. Held-out data are predicted
    with their noise (and bias, where instruments have one).

    Arguments:
        prior: The prior.
        observation: The observation of all the data.
        y: The data.
        blocks: The fold of each datum, e.g. from :func:`matheron.fit.blocks`; a mission or a
            track number leaves those out in turn.
        solver: The solver, by default the one that fits the number of data.

    Raises:
        ValueError: If there is only one fold.

    Example:
        >>> import matheron as mt
        >>> line = mt.Points(x=torch.arange(20.0))
        >>> prior = mt.GaussianProcess(mt.Matern(1.5, lengthscale=5.0), line)
        >>> seen = mt.PointObservation(line, line, noise_std=0.1)
        >>> y = torch.sin(torch.arange(20.0, dtype=torch.float64) / 5)
        >>> scores = mt.fit.cross_validate(prior, seen, y, torch.arange(20) // 5)
        >>> scores["rmse"] < 1
        True
    """
    labels = torch.unique(blocks)
    if len(labels) < 2:
        msg = f"cross_validate(blocks=...): expected two folds or more, got {len(labels)}."
        raise ValueError(msg)
    v = observation.select(y)
    mean, std = torch.empty_like(v), torch.empty_like(v)
    for label in labels:
        out = blocks == label
        mean[out], std[out] = predict(prior, observation, v, ~out, out, solver)
    return score_summary(mean, std, v)


@torch.no_grad()
def predict(
    prior: GaussianProcess,
    observation: LinearObservation,
    v: Float[Tensor, " m"],
    kept: Bool[Tensor, " m"],
    out: Bool[Tensor, " m"],
    solver: Solver | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns mean and std (noise included) of the data ``out`` given the data ``kept``.

    Held-out data are taken for those of new instruments: the bias of one whose other data are
    kept is not added to the mean, and its variance is in the std.
    """
    targets = observation.points[out]
    solver = solver or default_solver(int(kept.sum()))
    part = observation.take(kept, targets)
    posterior = solver(prior.on(targets), part)(v[kept])
    noise = observation.noise_variance[out]
    bias = (observation.bias_design.square() @ observation.bias_variance)[out]
    return posterior.mean, (posterior.std() ** 2 + noise + bias).sqrt()
