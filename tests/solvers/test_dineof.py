"""DINEOF against a loop of singular value decompositions written here, and its error map."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.linalg.filling import fill, low_rank, time_filter
from matheron.priors.eof import EOF
from matheron.solvers.dineof import DINEOF

DOUBLE = torch.float64
T, S = 20, 60


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def grid(mask: torch.Tensor | None = None) -> mt.Grid:
    return mt.Grid(
        time=torch.arange(float(T)), y=torch.arange(6.0), x=torch.arange(10.0), mask=mask
    )


def truth(rank: int, noise: float = 0.0) -> torch.Tensor:
    """Patterns whose mean over space is zero, with amplitudes of 3, 2, 1...; then noise."""
    patterns = normal(rank, S, seed=1)
    patterns = patterns - patterns.mean(dim=1, keepdim=True)
    size = torch.arange(rank, 0, -1, dtype=DOUBLE)
    return (normal(T, rank, seed=2) * size) @ patterns + noise * normal(T, S, seed=3)


def clear(part: float = 0.7, seed: int = 4) -> torch.Tensor:
    return torch.rand(T, S, generator=torch.Generator().manual_seed(seed)) < part


def gappy(seen: torch.Tensor, noise: float = 0.01, domain: mt.Grid | None = None):
    return mt.GriddedObservation(domain or grid(), seen.flatten(), noise)


def by_hand(
    x: np.ndarray, seen: np.ndarray, p: int, steps: int, F: np.ndarray | None = None
) -> np.ndarray:
    """The loop of the method, a whole decomposition at each step."""
    mean = x[seen].mean()
    X = np.where(seen, x - mean, 0.0)
    for _ in range(steps):
        u, s, v = np.linalg.svd(X if F is None else F @ X, full_matrices=False)
        rebuilt = (u[:, :p] * s[:p]) @ v[:p]
        X = np.where(seen, X, rebuilt)
    u, s, v = np.linalg.svd(X if F is None else F @ X, full_matrices=False)
    return (u[:, :p] * s[:p]) @ v[:p] + mean


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loop(smoothing: float) -> None:
    """The steps of the filling, by another decomposition; then from the start that is kept."""
    x, seen = truth(3, 0.3).numpy(), clear(0.85).numpy()
    F = _filter_by_hand(np.arange(float(T)), smoothing, 3)
    expected = by_hand(x, seen, 3, 25, F)
    mean = x[seen].mean()
    start = torch.as_tensor(np.where(seen, x - mean, 0.0)).mT
    turned = torch.as_tensor(F)
    filled = fill(start, ~torch.as_tensor(seen).mT, 3, 1.0, 1e-300, 25, turned)
    found = low_rank(filled.X @ turned.mT, 3).dense().mT + mean
    assert_close(found.numpy(), expected, rtol=1e-9, atol=1e-9)
    # the fixed point is the same, whatever is held out on the way
    far = by_hand(x, seen, 3, 2000, F)
    options = {"smoothing": smoothing, "smoothing_steps": 3}
    solver = DINEOF(modes=3, tolerance=1e-10, steps=2000, **options)
    posterior = solver(EOF(grid()), gappy(clear(0.85)))(truth(3, 0.3).flatten())
    assert_close(posterior.mean.reshape(T, S).numpy(), far, rtol=1e-6, atol=1e-6)


def _filter_by_hand(t: np.ndarray, alpha: float, steps: int) -> np.ndarray:
    F = np.eye(len(t))
    for _ in range(steps):
        new = F.copy()
        for j in range(len(t)):
            right = (F[j + 1] - F[j]) / (t[j + 1] - t[j]) if j + 1 < len(t) else 0.0
            left = (F[j] - F[j - 1]) / (t[j] - t[j - 1]) if j else 0.0
            ends = t[min(j + 1, len(t) - 1)] - t[max(j - 1, 0)]
            width = ends / 2 if 0 < j < len(t) - 1 else ends
            new[j] = F[j] + alpha / width * (right - left)
        F = new
    return F


def test_the_filter_in_time() -> None:
    t = np.array([0.0, 1.0, 2.5, 3.0, 7.0])
    found = time_filter(torch.as_tensor(t), 0.1, 4)
    assert_close(found.numpy(), _filter_by_hand(t, 0.1, 4))
    assert_close(found.sum(dim=1), torch.ones(5, dtype=DOUBLE))
    even = time_filter(torch.arange(6.0).double(), 0.5, 3)
    assert_close(even, even.mT)
    assert even.min() >= 0


def test_a_field_of_low_rank_is_recovered() -> None:
    """Of rank two with its mean taken off, as one pattern is flat."""
    x = truth(1) + 15.0 + 2 * normal(T, 1, seed=7)
    solver = DINEOF(modes=2, tolerance=1e-10, steps=2000)
    posterior = solver(EOF(grid()), gappy(clear(), 1e-9))(x.flatten())
    assert (posterior.mean.reshape(T, S) - x).abs().max() < 1e-6
    assert posterior.info["converged"]


@pytest.mark.parametrize("hold_out", ["points", "clouds"])
def test_the_number_of_patterns(hold_out: str) -> None:
    """Three of them, under noise; the error at data held out is about that of the noise."""
    told = []
    solver = DINEOF(
        hold_out=hold_out, fraction=0.1, progress=lambda p, rmse: told.append((p, rmse))
    )
    x = truth(3)
    posterior = solver(EOF(grid()), gappy(clear()))((x + 0.2 * normal(T, S, seed=9)).flatten())
    assert posterior.info["modes"] == 3
    assert dict(told) == posterior.info["held_out_rmse"]
    assert len(told) == 3 + 3  # three more without gain
    gap = ~clear()
    error = (posterior.mean.reshape(T, S) - x)[gap].square().mean().sqrt()
    assert error < 0.2


def settled(**options):
    seen = clear(0.5)
    seen[4] = False
    seen[4, 7] = True  # too little to train
    solver = DINEOF(modes=2, **options)
    observation = gappy(seen)
    conditional = solver(EOF(grid()), observation)
    y = truth(2, 0.3).flatten()
    return solver, conditional, observation, y, seen


def test_the_error_map() -> None:
    r"""diag(L C L'), C = mu^2 (L_p' L_p + mu^2)^-1, image by image, from the patterns learned."""
    solver, conditional, observation, y, seen = settled(redundancy=4.0)
    prior = solver.learn(EOF(grid()), observation, y)
    assert prior.modes is not None
    L = (prior.modes.mT * (prior.log_variances / 2).exp()).detach()
    posterior = conditional(y)
    mu2 = 4.0 * posterior.info["error_variance"]
    expected = []
    for k in seen:
        C = mu2 * torch.linalg.inv(L[k].mT @ L[k] + mu2 * torch.eye(2, dtype=DOUBLE))
        expected.append((L @ C @ L.mT).diagonal().sqrt())
    std = posterior.std()
    assert_close(std, torch.cat(expected))
    # and the same by another solver: the patterns that were learned, seen with that noise
    again = mt.SparseCholesky()(prior, gappy(seen, math.sqrt(mu2)))(y)
    assert_close(again.std(), std)
    few = slice(4 * S, 5 * S)  # the image that did not train
    assert_close(again.mean[few], posterior.mean[few])


def test_draws() -> None:
    """Their mean and covariance within five standard errors, images being independent."""
    _, conditional, _, y, _ = settled()
    posterior = conditional(y)
    x = posterior.sample(4000, torch.Generator().manual_seed(0))
    std = posterior.std()
    assert ((x.mean(dim=0) - posterior.mean).abs() < 5 * std / 4000**0.5 + 1e-9).all()
    assert ((x.std(dim=0) / std - 1).abs() < 5 / 8000**0.5).all()
    r = torch.corrcoef(x[:, ::150].mT)
    assert (r - torch.diag(r.diagonal())).abs().max() < 5 / 4000**0.5
    same = posterior.sample(3, torch.Generator().manual_seed(1))
    assert torch.equal(same, posterior.sample(3, torch.Generator().manual_seed(1)))


def test_the_redundancy_makes_the_spread_that_of_the_errors() -> None:
    """Errors of the data shared by blocks of sites: their number is found, and z-scores are 1."""
    common = normal(T, 10, seed=5).repeat_interleave(6, dim=1)
    x, seen = truth(2), clear(0.5)
    y = (x + 0.7 * common + 0.2 * normal(T, S, seed=6)).flatten()
    found = DINEOF(modes=2, fraction=0.2)(EOF(grid()), gappy(seen))(y)
    alone = DINEOF(modes=2, fraction=0.2, redundancy=1.0)(EOF(grid()), gappy(seen))(y)
    assert found.info["redundancy"] > 1
    z = [((p.mean - x.flatten()) / p.std()).square().mean().item() for p in (found, alone)]
    assert abs(math.log(z[0])) < abs(math.log(z[1]))


def test_land_and_order_and_seeds() -> None:
    """Land is not looked at; the same seed gives the same map, NaN in gaps or not."""
    land = torch.ones(6, 10, dtype=torch.bool)
    land[:2, :3] = False
    sea = land.flatten()
    domain, seen = grid(land), clear()[:, sea]
    x = truth(3, 0.2)[:, sea]
    posterior = DINEOF()(EOF(domain), gappy(seen, domain=domain))(x.flatten())
    dirty = torch.where(seen, x, torch.nan)
    conditional = DINEOF()(EOF(domain), gappy(seen, domain=domain))
    assert torch.equal(conditional(dirty.flatten()).mean, posterior.mean)
    assert posterior.to_xarray()["mean"].isnull().sum() == T * 6
    both = torch.stack([x.flatten(), 2 * x.flatten()])
    assert_close(conditional.estimate(both)[0], posterior.mean)
    assert_close(conditional.estimate(both)[1], 2 * posterior.mean, rtol=1e-6, atol=1e-6)


def test_sites_never_seen_and_images_without_data() -> None:
    seen = clear()
    seen[:, 11] = False
    seen[2] = False
    y = truth(2, 0.1).flatten()
    posterior = DINEOF(modes=2)(EOF(grid()), gappy(seen))(y)
    mean, std = (v.reshape(T, S) for v in (posterior.mean, posterior.std()))
    offset = y[seen.flatten()].mean()
    assert_close(mean[2], offset.expand(S))
    assert_close(mean[:, 11], offset.expand(T), rtol=0.0, atol=1e-9)
    assert std[:, 11].min() > 0.5 * std[2].mean()
    assert std[2].mean() > std[3].mean()


def test_a_known_mean_is_taken_off() -> None:
    x, pattern = truth(2, 0.1), 5 * normal(S, seed=8)
    plain = DINEOF(modes=2)(EOF(grid()), gappy(clear()))(x.flatten())
    about = EOF(grid(), pattern=pattern, mean=3.0)
    moved = DINEOF(modes=2)(about, gappy(clear()))((x + pattern + 3.0).flatten())
    assert_close(moved.mean.reshape(T, S) - pattern - 3.0, plain.mean.reshape(T, S))


def test_a_constant_field() -> None:
    posterior = DINEOF()(EOF(grid()), gappy(clear(), 0.0))(torch.full((T * S,), 7.0, dtype=DOUBLE))
    assert_close(posterior.mean, torch.full_like(posterior.mean, 7.0))
    assert posterior.std().max() == 0


def test_bad_data() -> None:
    seen, y = clear(), truth(2).flatten()
    with pytest.raises(ValueError, match="fewer patterns than images"):
        DINEOF(modes=T)(EOF(grid()), gappy(seen))(y).mean  # noqa: B018
    alone = torch.zeros_like(seen)
    alone[3] = True
    with pytest.raises(ValueError, match="at least two images"):
        DINEOF()(EOF(grid()), gappy(alone))(y).mean  # noqa: B018
    points = mt.PointObservation(grid(), grid().points[:5], 0.1)
    with pytest.raises(TypeError, match="Bin the data"):
        DINEOF()(EOF(grid()), points)
    with pytest.raises(ValueError, match="unknown patterns"):
        DINEOF()(EOF(grid(), normal(2, S)), gappy(seen))
    with pytest.raises(TypeError, match="that is EOF"):
        DINEOF()(mt.GaussianProcess(mt.Matern(1.5, 1.0, (1.0, 1.0, 1.0)), grid()), gappy(seen))
    with pytest.raises(ValueError, match="False everywhere"):
        gappy(torch.zeros_like(seen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": -1}, "at least 1"),
        ({"hold_out": "days"}, "'clouds' or 'points'"),
        ({"fraction": 1.5}, "between 0.0 and 1.0"),
        ({"tolerance": 0.0}, "between 0.0 and 1.0"),
        ({"redundancy": -2.0}, "between 0.0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DINEOF(**options)


def test_a_filter_that_is_too_strong() -> None:
    with pytest.raises(ValueError, match="half the square of the least time step"):
        DINEOF(smoothing=0.6)(EOF(grid()), gappy(clear()))
