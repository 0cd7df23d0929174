r"""Laws of the gradients of data: closed ones equal the derivative of the cost."""

import math
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.observations import LinearObservation, Observation
from matheron.testing import check_observation, small_grid


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def uniform(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def inside(m, seed=0):
    return mt.Points(uniform(m, 2, seed=seed) * torch.tensor([3.0, 4.0]).double(), ("y", "x"))


def build(kind):
    grid = small_grid()
    mask = uniform(30) < 0.4
    H = uniform(5, 30)
    made = {
        "points": lambda: mt.PointObservation(grid, inside(7), 0.1 + uniform(7)),
        "biased": lambda: mt.PointObservation(grid, inside(7), 0.2, bias_std=0.5),
        "gridded": lambda: mt.GriddedObservation(grid, mask, 0.1 + uniform(30)),
        "matrix": lambda: mt.MatrixObservation(grid, H.numpy(), noise_std=0.3),
        "correlated": lambda: mt.MatrixObservation(
            grid, H.numpy(), noise_covariance=(0.2 + torch.eye(5)).numpy()
        ),
        "stack": lambda: mt.Stack(
            mt.PointObservation(grid, inside(7), 0.2, bias_std=0.5),
            mt.GriddedObservation(grid, mask, 0.3),
        ),
        "nonlinear": lambda: mt.NonlinearObservation(
            grid, lambda x: x[..., :4].square(), 0.3, learn_noise=True
        ),
    }
    return made[kind]()


KINDS = ["points", "biased", "gridded", "matrix", "correlated", "stack", "nonlinear"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_cost(kind):
    seen = build(kind)
    x = normal(2, 3, 30)
    y = seen(normal(2, 3, 30, seed=1)).detach()
    v = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(seen.cost(v, y).sum(), v)
    with torch.no_grad():
        assert_close(seen.gradient(x, y), expected, rtol=1e-10, atol=1e-10)
        assert seen.gradient(x.float(), y).dtype == torch.float32
        assert_close(seen.gradient(x, y)[1, 2], seen.gradient(x[1, 2], y[1, 2]))
    assert_close(Observation.gradient(seen, x, y), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["points", "gridded", "nonlinear"])
def test_the_gradient_is_differentiable(kind):
    seen = build(kind)
    for p in seen.parameters():
        p.requires_grad_(True)
    y = seen(normal(2, 30, seed=1)).detach()
    x = normal(2, 30).requires_grad_()
    inputs = [x, *seen.parameters()]
    closed, plain = (
        torch.autograd.grad(g.sin().sum(), inputs)
        for g in (seen.gradient(x, y), Observation.gradient(seen, x, y))
    )
    for a, b in zip(closed, plain, strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_batch_of_masks_and_noises_is_each_in_turn():
    grid = small_grid()
    mask = uniform(4, 30) < 0.5
    noise = 0.1 + uniform(4, 30, seed=1)
    noise = torch.where(mask, noise, math.nan)  # never read under gaps
    y = torch.where(mask, normal(4, 30), math.nan)
    x = normal(4, 30, seed=2)
    whole = mt.GriddedObservation(grid, mask, noise)
    draws = whole.sample(x, torch.Generator().manual_seed(0))
    assert draws.isfinite().all()
    for k in range(4):
        one = mt.GriddedObservation(grid, mask[k], noise[k])
        check_observation(one)
        assert_close(whole.cost(x, y)[k], one.cost(x[k], y[k]))
        assert_close(whole.gradient(x, y)[k], one.gradient(x[k], y[k]))
    spread = mt.GriddedObservation(grid, mask, 0.1 + uniform(30))
    assert isinstance(spread, LinearObservation)
    assert spread.cost(x, y).shape == (4,)
    e = whole.sample(torch.zeros(2000, 4, 30).double(), torch.Generator().manual_seed(3))
    ratio = (e.var(dim=0)[mask] / noise[mask].square() - 1).abs().max()
    assert ratio < 5 * (2 / 1999) ** 0.5  # standard errors of a variance
    with pytest.raises(ValueError, match=r"noise_std=...\): expected one number, 30 of them, or"):
        mt.GriddedObservation(grid, mask, noise[:2])
