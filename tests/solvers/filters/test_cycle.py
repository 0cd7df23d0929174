"""Laws of long cycles: Kalman's recursion, stationary filters, published errors."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.dynamics import Lorenz63, Lorenz96
from matheron.solvers.filters import (
    EnsembleAnalysis,
    EnsembleCycle,
    IterativeCycle,
    Localization,
    OptimalInterpolation,
    ParticleCycle,
    System,
    ThreeDVar,
    TwinExperiment,
    Weighted,
)

S = 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=generator(seed))


M = 0.98 * torch.linalg.qr(normal(S, S, seed=9))[0]
H = normal(2, S, seed=8)
R = torch.tensor([0.5, 1.5]).double()
SYSTEM = System(lambda x: x @ M.mT, lambda x: x @ H.mT, R)


def kalman(x, P, y):
    x, P = M @ x, M @ P @ M.mT
    K = torch.linalg.solve(H @ P @ H.mT + torch.diag(R), H @ P).mT
    return x + K @ (y - H @ x), P - K @ H @ P


@pytest.mark.parametrize(
    "scheme",
    [
        EnsembleCycle(8, EnsembleAnalysis("etkf")),
        EnsembleCycle(8, EnsembleAnalysis("etkf", rotation=True)),
        IterativeCycle(8),
        IterativeCycle(8, lag=3, rotation=True),
    ],
    ids=["filter", "rotated", "iterative", "lag"],
)
def test_cycles_are_kalman_where_all_is_linear(scheme):
    E, data = normal(2, 8, S), normal(6, 2, 2, seed=1)
    moments = [(F.mean(dim=0), torch.cov(F.mT)) for F in E]
    carried = scheme.start(E)
    for y in data:
        carried, analysis = scheme.cycle(carried, y, SYSTEM, generator())
        moments = [kalman(*m, v) for m, v in zip(moments, y, strict=True)]
        assert_close(analysis.mean, torch.stack([x for x, _ in moments]), rtol=1e-8, atol=1e-8)
        P = torch.stack([P for _, P in moments])
        assert_close(analysis.covariance, P, rtol=1e-8, atol=1e-8)
        spread = P.diagonal(dim1=-2, dim2=-1).mean(dim=-1).sqrt()
        assert_close(analysis.spread, spread)


def test_3dvar_and_oi_are_their_formulas():
    x, y = normal(2, 1, S), normal(2, 2, seed=1)
    B, mean = torch.cov(normal(9, S, seed=2).mT), normal(S, seed=3)
    K = B @ H.mT @ torch.linalg.inv(H @ B @ H.mT + torch.diag(R))
    _, analysis = ThreeDVar(B).cycle(x, y, SYSTEM)
    f = x[:, 0] @ M.mT
    assert_close(analysis.mean, f + (y - f @ H.mT) @ K.mT)
    _, analysis = OptimalInterpolation(mean, B).cycle(x, y, SYSTEM)
    assert_close(analysis.mean, mean + (y - H @ mean) @ K.mT)


def test_particles_tend_to_kalman():
    E, y = normal(30, 4000, S), normal(30, 2, seed=1)[:1].expand(30, -1)
    scheme = ParticleCycle(4000, threshold=1.0)
    carried, analysis = scheme.cycle(scheme.start(E), y, SYSTEM, generator())
    x, P = kalman(torch.zeros(S).double(), torch.eye(S).double(), y[0])
    for found, expected in ((analysis.mean, x), (analysis.covariance, P)):
        error = found.std(dim=0) / math.sqrt(30)
        assert ((found.mean(dim=0) - expected).abs() < 5 * error + 5 / 4000).all()
    assert carried.log_weights is not None
    assert (carried.log_weights == 0).all()  # resampled
    assert_close(carried.mean, analysis.mean, rtol=0, atol=0.1)


def test_weights_count_in_mean_and_covariance():
    E = normal(4, S)
    twice = Weighted(E[[0, 0, 1, 2, 3]])
    weighted = Weighted(E, torch.tensor([2.0, 1.0, 1.0, 1.0]).double().log())
    assert_close(twice.mean, weighted.mean)
    A = twice.members - twice.mean
    w = torch.tensor([2.0, 1.0, 1.0, 1.0]).double() / 5
    assert_close(weighted.covariance, A.mT @ A / 5 / (1 - w.square().sum()))


def test_statistics_are_those_of_the_generator():
    model = Lorenz63()
    twin = TwinExperiment(model, 10, 1.0, model.initial, warm_up=100)
    scheme = EnsembleCycle(6, EnsembleAnalysis("perturbed", inflation=1.1))
    a, b, c = (twin(scheme, 10, 2, 3, generator(s)) for s in (1, 1, 2))
    assert a.rmse == b.rmse
    assert a.rmse != c.rmse
    assert a.analyses == 30
    assert_close(a.experiments.mean().item(), a.rmse)


def test_analyses_beat_forecasts_and_data():
    model = Lorenz96(12)
    twin = TwinExperiment(model, 1, 1.0, model.initial)
    scores = twin(EnsembleCycle(15, EnsembleAnalysis("etkf", 1.02)), 100, 100, 4, generator())
    assert scores.rmse < scores.forecast_rmse < 1.0
    assert 0.7 < scores.spread / scores.rmse < 1.6


PUBLISHED = {
    "L63, square root": ("l63", 0.60, EnsembleCycle(10, EnsembleAnalysis("etkf", 1.02, True))),
    "L63, finite size": (
        "l63",
        0.54,
        EnsembleCycle(10, EnsembleAnalysis("etkf", "adaptive", True)),
    ),
    "L63, iterative": ("l63", 0.31, IterativeCycle(10, inflation=1.02, rotation=True)),
    "L96, perturbed": ("l96", 0.22, EnsembleCycle(40, EnsembleAnalysis("perturbed", 1.06))),
    "L96, local": (
        "l96",
        0.22,
        EnsembleCycle(7, EnsembleAnalysis("letkf", 1.04, True, Localization(4.0, period=40.0))),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_errors_are_met(name):
    which, published, scheme = PUBLISHED[name]
    places = torch.arange(40.0).double()[:, None]
    if which == "l63":
        model = Lorenz63()
        twin, spin_up = TwinExperiment(model, 25, 2**0.5, model.initial), 60
    else:
        model = Lorenz96()
        twin = TwinExperiment(model, 1, 1.0, model.initial, places=places, first_std=0.03)
        spin_up = 200
    scores = twin(scheme, 60, spin_up, 50, generator(1))
    # the published number is of 1000 analyses, ours of 3000, and it has two digits
    error = scores.standard_error * math.sqrt(1 + 3) + 0.005
    assert abs(scores.rmse - published) < 5 * error
    assert abs(scores.rmse / published - 1) < 0.15


def test_errors_say_the_cure():
    with pytest.raises(ValueError, match="expected one or more"):
        IterativeCycle(5, lag=0)
    with pytest.raises(ValueError, match="threshold"):
        ParticleCycle(5, threshold=-1.0)
    with pytest.raises(ValueError, match="expected one or more"):
        TwinExperiment(Lorenz63(), 0, 1.0, Lorenz63().initial)
    local = EnsembleCycle(5, EnsembleAnalysis("letkf", localization=Localization(1.0)))
    with pytest.raises(ValueError, match="a system with places"):
        local.cycle(normal(5, S), normal(2), SYSTEM)
    with pytest.raises(ValueError, match="The model blew up"):
        IterativeCycle(5).cycle((normal(5, S) / 0, 0), normal(2), SYSTEM)
