"""Laws of the moments of an exact posterior that carry gradients, and of the score of them."""

import dataclasses
import math
import pytest
import torch

import matheron as mt

from matheron.fit.bilevel import JointSimulations, posterior_crps
from matheron.fit.losses import Outcome
from matheron.fit.moments import posterior_moments
from matheron.metrics.scores import crps_gaussian
from matheron.priors.spde.augmented import AugmentedSPDE

GRID = mt.Grid(time=torch.arange(2.0), y=torch.arange(5.0), x=torch.arange(6.0))
PRIOR = AugmentedSPDE(GRID, 3.0, 4.0, std=2.0, every=3, margin=1.0)
SEEN = mt.GriddedObservation(GRID, torch.arange(len(GRID)) % 4 == 0, 0.3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case() -> tuple[torch.Tensor, torch.Tensor]:
    x, theta = PRIOR.sample_jointly(1, seeded())
    return SEEN.sample(x[0], seeded(1)), theta[0]


def test_values_are_those_of_the_exact_solver() -> None:
    y, theta = case()
    mean, variance = posterior_moments(PRIOR.given(theta), SEEN, y, 1, seeded())
    exact = mt.SparseCholesky()(PRIOR.given(theta), SEEN)(y)
    torch.testing.assert_close(mean, exact.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance, exact.std().square(), rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    """That of the mean to a rounding, that of the variance to five standard errors."""
    y, theta = case()
    direction = torch.randn(theta.shape, generator=seeded(2)).double()
    weights = torch.randn(2, len(GRID), generator=seeded(3)).double()

    def sums(t: torch.Tensor, seed: int = 0) -> list[torch.Tensor]:
        moments = posterior_moments(PRIOR.given(t), SEEN, y, 4, seeded(seed))
        return [(w * v).sum() for w, v in zip(weights, moments, strict=True)]

    h = 1e-5
    with torch.no_grad():
        ends = [sums(theta + s * h * direction) for s in (1, -1)]
    expected = [((a - b) / (2 * h)).item() for a, b in zip(*ends, strict=True)]
    slopes = []
    for seed in range(60):
        t = theta.clone().requires_grad_()
        grads = [torch.autograd.grad(v, t, retain_graph=True)[0] for v in sums(t, seed)]
        slopes.append([(g * direction).sum().item() for g in grads])
    of_mean, of_variance = torch.tensor(slopes).double().unbind(dim=-1)
    assert of_mean[0].item() == pytest.approx(expected[0], rel=1e-5)
    error = of_variance.std() / math.sqrt(len(of_variance))
    assert abs(of_variance.mean() - expected[1]) < 5 * error
    assert error < 0.3 * abs(expected[1])


def test_the_loss_is_the_score_of_the_exact_posterior() -> None:
    draws = PRIOR.sample_jointly(2, seeded(4))
    batch = JointSimulations(PRIOR, draws, 0.4, 0.3).batch(torch.arange(2), torch.arange(2))
    weights = torch.rand(batch.weights.shape, generator=seeded(5)).double()
    batch = dataclasses.replace(batch, weights=weights)
    seen = mt.GriddedObservation(GRID, batch.mask, batch.noise_std)
    theta = PRIOR.sample_parameters(2, seeded(6)).requires_grad_()
    outcome = Outcome(batch, PRIOR, seen, batch.values, batch.truth, None, theta)
    found = posterior_crps()(outcome)
    for k in range(2):
        law = PRIOR.given(theta[k].detach())
        alone = mt.GriddedObservation(GRID, batch.mask[k], batch.noise_std)
        exact = mt.SparseCholesky()(law, alone)(batch.values[k])
        score = crps_gaussian(exact.mean, exact.std(), batch.truth[k], weights[k])
        torch.testing.assert_close(found[k].detach(), score)
    (slope,) = torch.autograd.grad(found.sum(), theta)
    assert (slope.abs().amax(dim=-1) > 0).all()  # every parameter of every window
    with pytest.raises(ValueError, match="windows with a truth"):
        posterior_crps()(
            dataclasses.replace(outcome, batch=dataclasses.replace(batch, truth=None))
        )


def test_a_trend_is_refused() -> None:
    line = mt.Grid(x=torch.arange(9.0))
    prior = mt.WhittleMatern(line, lengthscale=3.0, alpha=2.0, trend="1")
    seen = mt.GriddedObservation(line, torch.arange(9) == 4, 0.1)
    with pytest.raises(ValueError, match="without trend and biases"):
        posterior_moments(prior, seen, torch.ones(9).double())
