r"""Deformed kernels fitted in stages, from what data tell best to what they tell least."""

from __future__ import annotations

__all__ = ["Stage", "fit_deformation"]

import contextlib
import math
import torch
import torch.nn as nn

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from .likelihood import Joint, default_solver, joint, parts
from .optimise import Progress, flat, free, maximise
from ..kernels import AffineWarp, Deformed
from ..observations import LinearObservation
from ..priors.base import KernelPrior
from ..solvers.base import Likelihood, LikelihoodSolver, Score


@dataclass
class Stage:
    r"""What a stage of the fit reached.

    Arguments:
        name: ``"stationary"``, ``"anisotropic"``, ``"warp"`` or ``"all"``.
        log_likelihood: The log-likelihood, without the penalty.
        penalty: The penalty of the warp and of the field of the variance.
        parameters: The number of parameters learned so far, those of the trend included.
        data: The number of data.
        iterations: The number of steps taken.
        converged: Whether the last step was below tolerance.
    """

    name: str
    log_likelihood: float
    penalty: float
    parameters: int
    data: int
    iterations: int
    converged: bool

    @property
    def bic(self) -> float:
        r"""The Bayesian information criterion; less is better. Penalised numbers count fully."""
        return self.parameters * math.log(self.data) - 2 * self.log_likelihood


class _Penalised(Likelihood):
    r"""A likelihood less the penalty of a deformed kernel."""

    def __init__(self, inner: Joint, deformed: Deformed) -> None:
        self.inner, self.deformed = inner, deformed

    def value(self) -> Float[Tensor, ""]:
        return self.inner.value() - self.deformed.penalty()

    @torch.no_grad()
    def both(self) -> tuple[float, float]:
        r"""Returns the likelihood and the penalty."""
        return self.inner.value().item(), self.deformed.penalty().item()

    def coefficients(self) -> tuple[Tensor, Tensor]:
        return self.inner.coefficients()

    def score(self, parameters: Sequence[nn.Parameter]) -> Score | None:
        own = _of_place(self.deformed) if self.deformed.penalty().requires_grad else set()
        if any(id(p) in own for p in parameters):
            return None  # L-BFGS then: the curvature of the penalty is not counted here
        score = self.inner.score(parameters)
        if score is None:
            return None
        value = score.value - self.deformed.penalty().item()
        return Score(value, score.gradient, score.information)


def fit_deformation(
    prior: KernelPrior,
    observation: LinearObservation | Sequence[LinearObservation],
    y: Float[Tensor, ...] | Sequence[Float[Tensor, ...]],
    solver: LikelihoodSolver | None = None,
    steps: int | None = None,
    tolerance: float = 0.02,
    refresh: int = 2,
    progress: Progress | None = None,
) -> list[Stage]:
    r"""Fits a prior whose kernel is deformed, by maximum likelihood, in four stages.

    The kernel (and the noise) alone; with them the :class:`AffineWarp` of the warp, if there is
    one; the warp and the field of the variance alone; everything. Neighbours are refreshed in the
    warped space. What is maximised is the likelihood of the data *given their sites*, less the
    penalty of the warp: nothing is asked of the sites. A joint likelihood with
    :math:`|\det \partial w|^{-1}` for them has no maximum, as it grows without end where the
    warp shrinks. Parameters are changed in place.

    Compare the stages: where the last is not better by its criterion, or on blocks of data that
    are withheld, the stationary model is enough.

    Arguments:
        prior: The prior, with one :class:`Deformed` in its kernel.
        observation: The observation, or a list of them.
        y: The data, with shape :math:`(m)`, or :math:`(r, m)` for replicates; or a list of them.
        solver: Whose likelihood to maximise; see :func:`maximum_likelihood`.
        steps: The largest number of steps for each geometry.
        tolerance: The gain in log-likelihood below which to stop.
        refresh: The number of geometries in each stage.
        progress: Called with the step and the (penalised) log-likelihood after each step.

    Returns:
        The stages, in order.

    Raises:
        ValueError: If the kernel holds no :class:`Deformed`, or several.

    Example:
        >>> import matheron as mt
        >>> from matheron.kernels import AxialWarp, GaugedWarp
        >>> line = mt.Points(x=torch.arange(40.0))
        >>> warp = GaugedWarp(AxialWarp(1, knots=2), [0.0], [39.0])
        >>> prior = mt.GaussianProcess(Deformed(mt.Matern(0.5, lengthscale=5.0), warp), line)
        >>> y = prior.sample(1, torch.Generator().manual_seed(0))[0].detach()
        >>> stages = fit_deformation(prior, mt.PointObservation(line, line, 0.1), y)
        >>> [stage.name for stage in stages]
        ['stationary', 'warp', 'all']
    """
    every, deformed = parts(observation, y), _only(prior)
    solver = solver or default_solver(max(len(seen.points) for seen, _ in every), prior)
    learned = free(prior, *(seen for seen, _ in every))
    data = sum(len(seen.points) * v[..., 0].numel() for seen, v in every)
    say, known, found = progress or (lambda *_: None), set[nn.Parameter](), list[Stage]()
    for name, chosen in _stages(deformed, learned):
        known |= set(chosen)
        total, converged = 0, False
        with _only_learning(learned, chosen):
            for _ in range(max(1, refresh)):
                before = flat(chosen)
                likelihood = _Penalised(joint(solver, prior, every), deformed)
                taken, converged = maximise(likelihood, chosen, steps, tolerance, say)
                total += taken
                if (flat(chosen) - before).abs().max() < 0.02:
                    break
        size = sum(p.numel() for p in known) + _of_trend(prior) * len(likelihood.inner.each)
        found.append(Stage(name, *likelihood.both(), size, data, total, converged))
    return found


def _of_trend(prior: KernelPrior) -> int:
    return 0 if prior.trend is None else len(prior.trend.terms)


def _of_place(deformed: Deformed) -> set[int]:
    r"""Returns which parameters are of the warp or of the field of the variance."""
    fields = (deformed.warp, deformed.local_variance)
    return {id(p) for m in fields if m is not None for p in m.parameters()}


def _only(prior: KernelPrior) -> Deformed:
    found = [k for k in prior.kernel.modules() if isinstance(k, Deformed)]
    if len(found) != 1:
        msg = (
            f"fit_deformation(prior=...): expected one Deformed in the kernel, got {len(found)}. "
            "Use maximum_likelihood for kernels without a warp."
        )
        raise ValueError(msg)
    return found[0]


def _stages(
    deformed: Deformed, learned: Sequence[nn.Parameter]
) -> Iterator[tuple[str, list[nn.Parameter]]]:
    r"""Yields the name of each stage and what it learns, those without anything left out."""
    own = _of_place(deformed)
    affine = [m for m in deformed.warp.modules() if isinstance(m, AffineWarp)]
    straight = {id(p) for m in affine for p in m.parameters()}
    base = [p for p in learned if id(p) not in own]
    linear = [p for p in learned if id(p) in straight]
    bent = [p for p in learned if id(p) in own]
    wanted = {
        "stationary": base,
        "anisotropic": [*base, *linear] if linear else [],
        "warp": bent if len(bent) > len(linear) else [],
        "all": list(learned) if bent else [],
    }
    yield from ((name, chosen) for name, chosen in wanted.items() if chosen)


@contextlib.contextmanager
def _only_learning(
    learned: Sequence[nn.Parameter], chosen: Sequence[nn.Parameter]
) -> Iterator[None]:
    r"""Lets gradients reach only the parameters that are chosen."""
    wanted = {id(p) for p in chosen}
    try:
        for p in learned:
            p.requires_grad_(id(p) in wanted)
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)
