r"""Laws of forecasts by analogs."""

import copy
import pytest
import torch

from torch.testing import assert_close

from matheron import EnsembleKalman, Grid, GriddedObservation
from matheron.dynamics import Lorenz63
from matheron.dynamics.analogs import Analogs
from matheron.priors.dynamics import Markovian


def distances(a, b):
    # not by |a|^2 - 2ab + |b|^2, which rounds to 1e-6
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


KINDS = ("constant", "incremental", "linear")


@pytest.fixture
def affine(generator):
    """States about everywhere, and what an affine law makes of them."""
    x = torch.randn(300, 3, dtype=torch.float64, generator=generator)
    A = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    return x, lambda x: x @ A.mT + 2.0, A


@pytest.fixture(scope="module")
def past():
    model = Lorenz63()
    start = model(torch.ones(3, dtype=torch.float64), 1000)
    return model.trajectory(start, 4000)


def test_the_linear_kind_is_exact_for_affine_laws(affine, generator):
    x, law, A = affine
    model = Analogs(x, law(x), k=20, kind="linear", rcond=1e-8)
    new = torch.randn(4, 5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    assert_close(model.step(new), law(new), rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(model.step(new)[..., 0].sum(), new)
    assert_close(slope, A[0].expand(4, 5, 3), rtol=1e-7, atol=1e-7)


def test_the_incremental_kind_is_exact_for_constant_winds(generator):
    x = torch.randn(100, 2, dtype=torch.float64, generator=generator)
    model = Analogs(x, x + 3.0, k=5, kind="incremental")
    far = torch.full((2,), 9.0, dtype=torch.float64)
    assert_close(model(far, 4), far + 12, rtol=1e-12, atol=0)


def test_one_constant_analog_gives_a_successor_of_the_catalogue(past, generator):
    model = Analogs(past, k=1, kind="constant", dt=0.01)
    after = model.step(past[::7] + 0.1 * torch.randn(past[::7].shape, generator=generator))
    assert distances(after, past[1:]).amin(dim=1).max() < 1e-12


def test_neighbours_are_those_of_brute_force(past, generator):
    model = Analogs(past, k=7)
    x = past[::100] + torch.randn(past[::100].shape, dtype=torch.float64, generator=generator)
    brute = distances(x, past[:-1]).argsort(dim=1)[:, :7]
    assert torch.equal(model.neighbors(x), brute)
    assert torch.equal(model.neighbors(x.reshape(1, *x.shape)), brute[None])


def test_weights_are_those_of_the_formula(past):
    model, x = Analogs(past, k=9), past[50] + 0.3
    distance = distances(x[None], past[:-1])[0].sort().values[:9]
    unit = distance.square().quantile(0.5)
    expected = (-distance.square() / unit).exp()
    assert_close(model.weights(distance.square()), expected / expected.sum(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_the_catalogue_among_copies_of_itself(kind):
    """All analogs at one place: no distance tells them apart, and no slope can be fitted."""
    x = torch.ones(6, 2, dtype=torch.float64)
    model = Analogs(x, x + torch.arange(6.0, dtype=torch.float64)[:, None], k=6, kind=kind)
    assert_close(model.step(x[0]), x[0] + 2.5, rtol=1e-12, atol=0)
    assert model.error_covariance(size=3).isfinite().all() if len(x) > model.k else True


def test_trajectories_are_not_joined(generator):
    """The last state of a trajectory has no successor."""
    x = torch.randn(4, 10, 3, dtype=torch.float64, generator=generator)
    model = Analogs(x, k=1)
    assert len(model.states) == 36
    assert torch.equal(model.states[9], x[1, 0])


def test_errors_are_those_of_leaving_each_state_out(past, generator):
    few = past[:200]
    model = Analogs(few, k=10, kind="linear")
    errors = []
    for i in range(199):
        keep = torch.arange(199) != i
        other = Analogs(few[:-1][keep], few[1:][keep], k=10, kind="linear")
        errors.append(other.step(few[i]) - few[i + 1])
    e = torch.stack(errors)
    found = model.error_covariance(size=199, generator=generator)
    assert_close(found, e.mT @ e / 199, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", ["gaussian", "multinomial"])
def test_draws_have_the_spread_of_the_analogs(past, kind, sampling, generator):
    model = Analogs(past, k=15, kind=kind)
    x = past[33] + 0.2
    count = 20000
    draws = model.draw(x.expand(count, 3), sampling, generator)
    offset, d, w, forecast = model._local(x)
    missed = model._missed(x, offset, d, w, forecast)
    mean, variance = forecast + w @ missed, w @ missed.square() - (w @ missed).square()
    if sampling == "gaussian":
        mean, variance = forecast, w @ missed.square()
    # 5 standard errors of a mean; and of a variance with the kurtosis of few analogs, under 9.
    assert ((draws.mean(0) - mean).abs() < 5 * (variance / count).sqrt() + 1e-12).all()
    assert ((draws.var(0) / variance - 1).abs() < 5 * (8 / count) ** 0.5).all()


def test_forecasts_get_better_with_the_catalogue_and_with_the_order(past):
    new = Lorenz63()(past[-1], 500)
    truth = Lorenz63().trajectory(new, 300)
    error = {}
    for kind in KINDS:
        for size in (500, 4000):
            model = Analogs(past[:size], k=20, kind=kind)
            error[kind, size] = (model.step(truth[:-1]) - truth[1:]).square().mean().sqrt()
    for kind in KINDS:
        assert error[kind, 4000] < error[kind, 500]
    assert error["linear", 4000] < error["incremental", 4000] < error["constant", 4000]


@pytest.mark.parametrize("lag", [0, None])
def test_they_are_a_model_as_any_other(past, lag, generator):
    """An ensemble Kalman filter and smoother with analogs come close to those with the truth."""
    start, noise = past[:-1].mean(0), torch.cov(past.mT)
    true = Lorenz63().trajectory(Lorenz63()(past[-1], 300), 320, every=8)
    grid = Grid(time=torch.arange(41.0), x=torch.arange(3.0))
    seen = GriddedObservation(grid, torch.ones(123, dtype=torch.bool), 2**0.5)
    y = seen.sample(true.flatten(), generator)
    analogs = Analogs(past, k=30, dt=0.01)
    error = {}
    for name, model in {"analogs": analogs, "true": Lorenz63()}.items():
        Q = 0.01 * torch.eye(3, dtype=torch.float64)
        prior = Markovian(grid, model, 8, (start, noise), Q)
        mean = EnsembleKalman(40, lag=lag)(prior, seen)(y).mean
        error[name] = (mean - true.flatten()).square().mean().sqrt()
    assert error["analogs"] < 1.5 * error["true"]
    assert error["true"] < 1.0 < 2**0.5


def test_a_copy_forecasts_the_same(past):
    model = Analogs(past, k=5)
    assert torch.equal(copy.deepcopy(model).step(past[3]), model.step(past[3]))


def test_bad_arguments_are_told(past):
    for settings, match in [
        ({"kind": "cubic"}, r"kind=\.\.\..*got 'cubic'"),
        ({"k": 5000}, r"k=\.\.\..*expected 1 to 4000"),
        ({"k": 0}, "got 0"),
    ]:
        with pytest.raises(ValueError, match=match):
            Analogs(past, **settings)
    with pytest.raises(ValueError, match=r"catalogue=\.\.\..*NaN"):
        Analogs(past * torch.nan)
    with pytest.raises(ValueError, match=r"draw\(sampling=\.\.\..*'bootstrap'"):
        Analogs(past).draw(past[0], "bootstrap")
    with pytest.raises(ValueError, match="Did a filter diverge"):
        Analogs(past).step(past[0] * torch.nan)
    with pytest.raises(ValueError, match="longer catalogue"):
        Analogs(past[:6], k=5).error_covariance()
