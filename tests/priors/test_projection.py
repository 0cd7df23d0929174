r"""Laws of projections, of closed gradients, and of the way from states to arrays."""

import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.nets import BilinearAutoencoder, TwoScale, UNet
from matheron.priors import WeakConstraint
from matheron.priors.base import Energy
from matheron.priors.layout import Layout
from matheron.priors.projection import Projection
from matheron.testing import check_prior, small_grid


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def days(mask=None):
    axes = {"time": torch.arange(3.0), "y": torch.arange(6.0), "x": torch.arange(7.0)}
    return mt.Grid(**axes, mask=mask)


def land():
    mask = torch.ones(6, 7, dtype=torch.bool)
    mask[2:4, 3:6] = False
    return days(mask)


def lorenz_grid():
    return mt.Grid(time=torch.arange(9.0), x=torch.arange(3.0))


def net(kind, channels=3, **settings):
    made = {
        "bilinear": lambda: BilinearAutoencoder(
            channels, 4, (1, 2), generator=generator(), **settings
        ),
        "two-scale": lambda: TwoScale(channels, 4, 2, generator=generator(), **settings),
        "unet": lambda: UNet(channels, width=4, levels=2, generator=generator(), **settings),
    }
    return made[kind]()


def build(kind):
    if kind == "land":
        phi = net("bilinear", 4, out=3).double()
        return Projection(land(), phi, 0.3, mean=0.5, scale=2.0, land=True)
    if kind == "components":
        phi = net("two-scale", 3, dims=1).double()
        scale = torch.tensor([8.0, 9.0, 8.5])
        mean = torch.tensor([0.0, 0.0, 25.0])
        return Projection(lorenz_grid(), phi, 0.7, channels="x", mean=mean, scale=scale)
    if kind == "dynamics":
        return Projection(lorenz_grid(), Lorenz63(), 0.7, steps=5)
    if kind == "linear":
        grid = small_grid()
        return Projection.linear(mt.GaussianProcess(mt.Matern(1.5, lengthscale=2.0), grid))
    return Projection(days(), net(kind).double(), 0.3, mean=0.5, scale=2.0)


KINDS = ["bilinear", "two-scale", "unet", "land", "components", "dynamics", "linear"]


@pytest.mark.parametrize("kind", KINDS)
def test_laws(kind):
    check_prior(build(kind))


def by_autograd(prior, x):
    v = x.detach().requires_grad_()
    return torch.autograd.grad(prior.cost(v).sum(), v)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_cost(kind):
    prior = build(kind)
    x = normal(2, 2, len(prior.domain))
    assert_close(prior.gradient(x), by_autograd(prior, x), rtol=1e-9, atol=1e-9)
    assert_close(prior.gradient(x), Energy.gradient(prior, x), rtol=1e-9, atol=1e-9)
    expected = by_autograd(prior, x)
    with torch.no_grad():
        assert_close(prior.gradient(x), expected, rtol=1e-9, atol=1e-9)
        assert not Energy.gradient(prior, x).requires_grad


@pytest.mark.parametrize("kind", ["bilinear", "two-scale", "unet", "dynamics"])
def test_the_gradient_is_differentiable_in_the_parameters(kind):
    prior = build(kind)
    x = normal(2, len(prior.domain))
    parameters = [p for p in prior.parameters() if p.requires_grad]
    closed, plain = (
        torch.autograd.grad(g.sin().sum(), parameters)
        for g in (prior.gradient(x), Energy.gradient(prior, x))
    )
    for a, b in zip(closed, plain, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def gaussian(kind):
    grid = small_grid()
    made = {
        "kernel": lambda: mt.GaussianProcess(mt.Matern(1.5, lengthscale=2.0), grid, mean=0.7),
        "whittle": lambda: mt.WhittleMatern(grid, lengthscale=2.5, variance=2.0, mean=0.7),
        "parts": lambda: mt.WhittleMatern(grid, lengthscale=2.5, alpha=1.5),
        "trend": lambda: mt.WhittleMatern(grid, lengthscale=2.5, trend="1 + x"),
    }
    return made[kind]()


GAUSSIAN = ["kernel", "whittle", "parts", "trend"]


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_closed_gradients_of_gaussian_priors(kind):
    prior = gaussian(kind)
    x = normal(2, 3, 30)
    B, mu = prior.covariance(prior.domain.points, prior.domain.points), prior.drift()
    expected = torch.linalg.solve(B, (x - mu).reshape(-1, 30).mT).mT.reshape(x.shape)
    assert_close(prior.gradient(x), expected, rtol=1e-6, atol=1e-6)
    assert_close(prior.prepare_gradient()(x), prior.gradient(x))
    assert prior.gradient(x.float()).dtype == torch.float32
    parameters = [p for p in prior.parameters() if p.requires_grad]
    closed, dense = (
        torch.autograd.grad(g.sin().sum(), parameters) for g in (prior.gradient(x), expected)
    )
    for a, b in zip(closed, dense, strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_default_gradient_serves_priors_without_their_own():
    start = torch.tensor([0.0, 0.0, 25.0]).double(), torch.full((3,), 60.0).double()
    prior = WeakConstraint(lorenz_grid(), Lorenz63(), 5, start, torch.ones(3).double())
    x = 10 * normal(2, 27)
    expected = by_autograd(prior, x)
    with torch.no_grad():
        assert_close(prior.gradient(x), expected)
    v = x.clone().requires_grad_()
    assert prior.gradient(v).requires_grad
    assert not prior.gradient(x).requires_grad  # nothing to differentiate in


@pytest.mark.parametrize("kind", ["kernel", "whittle", "parts"])
def test_a_gaussian_law_is_a_projection(kind):
    prior = gaussian(kind)
    projection = Projection.linear(prior)
    x = normal(4, 30)
    assert_close(projection.gradient(x), prior.gradient(x), rtol=1e-6, atol=1e-6)
    assert_close(projection.cost(x), prior.cost(x), rtol=1e-6, atol=1e-6)
    assert_close(projection.drift(), prior.drift())


def test_a_model_guesses_each_state_from_the_one_before():
    prior, model = build("dynamics"), Lorenz63()
    x = model.trajectory(normal(3), 40, 5).reshape(-1)
    assert prior.cost(x) < 1e-18
    x = normal(27)
    states = x.reshape(9, 3)
    rest = states[1:] - model(states[:-1], 5)
    assert_close(prior.cost(x), rest.square().sum() / (2 * 0.7**2))


@pytest.mark.parametrize("kind", ["bilinear", "two-scale"])
def test_costs_are_sums_whatever_the_size_of_the_field(kind):
    r"""Twice the field, twice the cost; the gradient of a node stays what it is."""
    phi = net(kind, 1, padding="circular").double()
    one = mt.Grid(y=torch.arange(8.0), x=torch.arange(8.0))
    four = mt.Grid(y=torch.arange(16.0), x=torch.arange(16.0))
    x = normal(8, 8)
    small, large = Projection(one, phi, 0.3), Projection(four, phi, 0.3)
    assert_close(large.cost(x.repeat(2, 2).flatten()), 4 * small.cost(x.flatten()))
    slope = large.gradient(x.repeat(2, 2).flatten()).reshape(16, 16)
    assert_close(slope[:8, :8], small.gradient(x.flatten()).reshape(8, 8))


@pytest.mark.parametrize("kind", ["bilinear", "two-scale", "unet"])
def test_members_of_a_batch_do_not_know_each_other(kind):
    prior = build(kind)
    x = normal(3, len(prior.domain))
    for x_k, g in zip(x, prior.gradient(x), strict=True):
        assert_close(g, prior.gradient(x_k), rtol=1e-12, atol=1e-12)


def test_single_precision_inside_is_near_double():
    single, double = Projection(days(), net("bilinear"), 0.3), build("bilinear")
    double = Projection(days(), double.operator.net, 0.3)
    x = normal(2, 126)
    assert single.gradient(x).dtype == torch.float64
    assert_close(single.gradient(x), double.gradient(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("domain", "channels", "shape"),
    [
        (days(), "time", (3, 6, 7)),
        (land(), "time", (3, 6, 7)),
        (lorenz_grid(), "x", (3, 9)),
        (lorenz_grid(), "time", (9, 3)),
        (lorenz_grid(), None, (1, 9, 3)),
        (small_grid(), "time", (1, 5, 6)),
    ],
)
def test_the_way_to_arrays_and_back(domain, channels, shape):
    layout = Layout(domain, channels)
    assert (layout.channels, *layout.space) == shape
    x = normal(2, 4, len(domain))
    a = layout.spread(x)
    assert a.shape == (8, *shape)
    assert torch.equal(layout.gather(a, (2, 4)), x)
    r = normal(8, *shape, seed=1)
    assert_close((a * r).sum(), (x * layout.gather(r, (2, 4))).sum())
    assert torch.equal(layout.sea(), layout.spread(torch.ones(1, len(domain)))[0] > 0)


def test_channels_are_the_axis_that_was_named():
    x = torch.arange(27.0)
    assert Layout(lorenz_grid(), "x").spread(x)[0, 1].tolist() == x[1::3].tolist()
    per = Layout(lorenz_grid(), "x").flat(torch.tensor([1.0, 2.0, 3.0]))
    assert per.tolist() == [1.0, 2.0, 3.0] * 9


CUBE = mt.Grid(z=[0.0, 1.0], y=[0.0, 1.0], x=[0.0, 1.0])
BAD = [
    (lambda: Layout(CUBE), ValueError, r"Layout\(channels=None\): expected an axis of"),
    (lambda: Layout(days(), "lon"), ValueError, r"Layout\(channels='lon'\)"),
    (lambda: Layout(days().points), TypeError, r"Layout\(domain=...\): expected a Grid"),
    (lambda: Projection(days(), net("unet"), 0.0), ValueError, r"std=...\): expected positive"),
    (
        lambda: Projection(days(), net("unet"), scale=torch.ones(4)),
        ValueError,
        r"scale=...\): expected one number or 3, one per channel, got shape \(4,\)",
    ),
    (
        lambda: Projection(days(), Lorenz63()),
        ValueError,
        r"expected a grid with time, and 3 nodes per time",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
