"""Laws of the joint prior of a field and of the parameters of its equation."""

import math
import pytest
import torch

import matheron as mt

from matheron.priors.spde.augmented import AugmentedSPDE
from matheron.priors.spde.lattice import Lattice
from matheron.priors.spde.parameters import Parameters, Spread

SPACE = {"y": torch.arange(6.0), "x": torch.arange(7.0)}
GRID = mt.Grid(time=torch.arange(3.0), **SPACE)
BARE = Lattice(mt.Grid(**SPACE))
SETTINGS = [{"margin": 1.0}, {"lattice": BARE}]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**settings: object) -> AugmentedSPDE:
    return AugmentedSPDE(GRID, 3.0, 4.0, std=2.0, every=3, **settings)


def dense_log_density(prior: AugmentedSPDE, x: torch.Tensor, theta: torch.Tensor) -> float:
    """The logarithm of a Gaussian density, from the covariance of the field itself."""
    s = prior.domain.points
    B = prior.given(theta).covariance(s, s)
    law = torch.distributions.MultivariateNormal(torch.zeros(len(s)).double(), (B + B.mT) / 2)
    return law.log_prob(x).item()


def test_without_departures_it_is_the_equation_of_the_constants() -> None:
    prior = AugmentedSPDE(
        GRID, (3.0, 4.0), 4.0, std=2.0, velocity=(0.2, -0.3), every=3, lattice=BARE
    )
    plain = mt.AdvectionDiffusion(
        GRID, (3.0, 4.0), 4.0, variance=4.0, velocity=(0.2, -0.3), lattice=BARE
    )
    mine = prior.given(prior.constants()[0]).precision().to_dense()
    theirs = plain.precision().to_dense()
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize("settings", SETTINGS)
def test_cost_is_a_density_with_its_determinant(settings: dict[str, object]) -> None:
    prior = small(**settings)
    x, theta = prior.sample_jointly(2, seeded())
    with torch.no_grad():
        mine = [(-prior.cost(v, t) + prior.penalty(t)).item() for v in x for t in theta]
        dense = [dense_log_density(prior, v, t) for v in x for t in theta]
    offsets = torch.tensor(mine) - torch.tensor(dense)  # one constant for all fields and laws
    assert (offsets - offsets[0]).abs().max() < 1e-6 * abs(dense[0])


@pytest.mark.parametrize("bare", [False, True])
def test_with_land_cost_is_a_density_with_its_determinant(bare: bool) -> None:
    sea = torch.ones(6, 7, dtype=torch.bool)
    sea[:4, 3] = False
    sea[4:, 5:] = False
    grid = mt.Grid(time=torch.arange(2.0), **SPACE, mask=sea.expand(2, -1, -1).clone())
    settings = {"lattice": Lattice(mt.Grid(**SPACE, mask=sea))} if bare else {"margin": 1.0}
    prior = AugmentedSPDE(grid, 3.0, 4.0, std=2.0, every=3, **settings)
    x, theta = prior.sample_jointly(2, seeded())
    with torch.no_grad():
        mine = [prior.log_density(v[None], t).item() for v in x for t in theta]
        dense = [dense_log_density(prior, v, t) for v in x for t in theta]
    offsets = torch.tensor(mine) - torch.tensor(dense)
    assert (offsets - offsets[0]).abs().max() < 1e-6 * abs(dense[0])


def test_where_there_is_no_sea_around_nothing_is_gathered() -> None:
    sea = torch.ones(6, 7, dtype=torch.bool)
    sea[:, 4:] = False
    grid = mt.Grid(time=torch.arange(2.0), **SPACE, mask=sea.expand(2, -1, -1).clone())
    prior = AugmentedSPDE(grid, 3.0, 4.0, every=2, lattice=Lattice(mt.Grid(**SPACE, mask=sea)))
    ones = torch.ones(prior.channels, int(sea.sum()), dtype=torch.float64)
    near = prior.coarse.points.axis("x") < 5
    assert not near.all()
    torch.testing.assert_close(prior.gathered(ones), near.double().expand(prior.channels, -1))


@pytest.mark.parametrize(
    ("still", "channels", "settings"),
    [({"shear": 0.0}, [3], {"margin": 1.0}), ({"velocity": 0.0}, [5, 6], {"lattice": BARE})],
)
def test_what_is_zero_is_left_out(
    still: dict[str, float], channels: list[int], settings: dict[str, object]
) -> None:
    """The same law with fewer neighbours, and no gradient in what does not vary."""
    prior = small(spread=Spread(**{"velocity": 0.0, **still}), **settings)
    whole = small(spread=Spread(velocity=0.0 if "shear" in still else None), **settings)
    x, theta = prior.sample_jointly(1, seeded())
    theta[:, channels] = 0.0
    one, other = (p.given(theta[0]).precision() for p in (prior, whole))
    assert one.pattern.nnz < other.pattern.nnz
    torch.testing.assert_close(one.to_dense(), other.to_dense(), rtol=1e-9, atol=1e-12)
    assert not prior.gradient(x, theta)[1][:, channels].any()


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_are_those_of_finite_differences(settings: dict[str, object]) -> None:
    prior = small(**settings)
    x, theta = (v[0] for v in prior.sample_jointly(1, seeded(1)))
    for_x, for_theta = prior.gradient(x, theta)
    dx = torch.randn(x.shape, generator=seeded(2)).double()
    dt = torch.randn(theta.shape, generator=seeded(3)).double()
    h = 1e-5
    with torch.no_grad():
        along_x = (prior.cost(x + h * dx, theta) - prior.cost(x - h * dx, theta)) / (2 * h)
        along_t = (prior.cost(x, theta + h * dt) - prior.cost(x, theta - h * dt)) / (2 * h)
    assert along_x.item() == pytest.approx((for_x * dx).sum().item(), rel=1e-6)
    assert along_t.item() == pytest.approx((for_theta * dt).sum().item(), rel=1e-5)


def test_score_has_mean_zero_at_the_true_parameters() -> None:
    prior = small(lattice=BARE)
    theta = prior.sample_parameters(1, seeded(4))[0].requires_grad_()
    fields = prior.given(theta.detach()).sample(150, seeded(5))
    density = prior.log_density(fields, theta)
    scores = torch.stack(
        [torch.autograd.grad(d, theta, retain_graph=True)[0].flatten() for d in density]
    )
    error = scores.std(dim=0) / math.sqrt(len(scores))
    assert (scores.mean(dim=0).abs() < 5 * error).all()


def test_every_real_number_is_an_equation() -> None:
    prior = small(lattice=BARE)
    for seed in range(5):
        theta = 4 * torch.randn(prior.channels, len(prior.coarse), generator=seeded(seed)).double()
        x = torch.randn(len(GRID), generator=seeded(seed)).double()
        for_x, for_theta = prior.gradient(x, theta)
        assert for_x.isfinite().all()
        assert for_theta.isfinite().all()
        assert (for_theta.flatten(1).abs().amax(dim=1) > 0).all()  # no gradient dies at a bound


def local_variance(prior: mt.AdvectionDiffusion, middle: slice) -> torch.Tensor:
    grid = prior.domain
    return grid.unflatten(prior.variance(grid.points))[-1, middle, middle]


def test_local_std_is_that_of_the_place() -> None:
    axis = torch.arange(25.0)
    grid = mt.Grid(time=torch.arange(3.0), y=axis, x=axis)
    prior = AugmentedSPDE(grid, 5.0, 4.0, std=2.0, every=24, margin=1.5)
    theta = prior.constants()[0]
    slope = prior.coarse.points.axis("x") / 12 - 1
    for channel in (0, 1, 2, 4):  # std, timescale and lengthscales go from left to right
        theta[channel] = slope / 2
    found = local_variance(prior.given(theta), slice(5, 20)).sqrt()
    p: Parameters = prior.parameters_of(theta)
    expected = prior.space.unflatten(p.std)[5:20, 5:20]
    flat = local_variance(prior.given(prior.constants()[0]), slice(5, 20)).sqrt() / 2.0
    torch.testing.assert_close(found / flat, expected, rtol=0.03, atol=0.0)
    assert expected.max() / expected.min() > 1.2


def test_a_variance_may_be_a_field_of_the_equation() -> None:
    grid = mt.Grid(time=torch.arange(2.0), x=torch.arange(40.0))
    wide = 1 + grid.axes["x"] / 20
    field = mt.AdvectionDiffusion(grid, 5.0, 4.0, variance=wide)
    plain = mt.AdvectionDiffusion(grid, 5.0, 4.0)
    ratio = (field.variance(grid.points) / plain.variance(grid.points)).reshape(2, -1)
    torch.testing.assert_close(ratio[:, 5:-5], wide[5:-5].expand(2, -1), rtol=0.01, atol=0.0)
    with pytest.raises(ValueError, match="expected one field of them"):
        mt.AdvectionDiffusion(grid, 5.0, 4.0, variance=wide, tau=wide)


def test_operator_of_a_plane_wave() -> None:
    """The symbol of the equation: rate + k'Hk + i m'k, with the right sign across the axes."""
    axis = torch.arange(30.0)
    grid = mt.Grid(time=torch.arange(2.0), y=axis, x=axis)
    prior = AugmentedSPDE(
        grid, 6.0, 4.0, every=29, lattice=Lattice(mt.Grid(y=axis, x=axis)), stabilize=False
    )
    theta = prior.constants()[0]
    theta[1], theta[2], theta[3], theta[5], theta[6] = 0.5, 0.4, 1.5, 0.6, -0.4
    equation = prior.given(theta)
    p = prior.parameters_of(theta)
    dynamics = equation._dynamics(0)
    k = torch.tensor([0.2, 0.13]).double()
    phase = prior.space.points.coords @ k
    wave = torch.stack([phase.cos(), phase.sin()], dim=-1)
    operator = (dynamics.K + dynamics.A).scale(rows=1 / equation.lattice.volume)
    found = torch.complex(*(operator @ wave).unbind(-1)) / torch.complex(*wave.unbind(-1))
    rate = 1 / p.timescale[0]
    H = rate * p.square[0] / 2  # nu = 1
    assert H[0, 1] > 0.1 * H[0, 0]
    expected = torch.complex(rate + k @ H @ k, p.velocity[0] @ k)
    inner = prior.space.unflatten(found.real)[10:20, 10:20], prior.space.unflatten(found.imag)
    assert (inner[0] - expected.real).abs().max() < 0.01 * expected.real
    assert (inner[1][10:20, 10:20] - expected.imag).abs().max() < 0.01 * expected.imag.abs()


def test_draws_have_the_law_of_the_parameters() -> None:
    prior = small(lattice=BARE)
    theta = prior.sample_parameters(4000, seeded())
    variance = theta.square().mean(dim=0)
    assert (variance - 1).abs().max() < 5 * math.sqrt(2 / len(theta))
    flat = theta[:500]
    expected = flat[0].numel() / 2  # the mean of half a chi-square
    error = math.sqrt(flat[0].numel() / 2 / len(flat))
    assert abs(prior.penalty(flat).mean().item() - expected) < 5 * error
    assert torch.equal(prior.sample(2, seeded(3)), prior.sample_jointly(2, seeded(3))[0])


def test_coarse_fields_come_and_go() -> None:
    prior = small(lattice=BARE)
    theta = torch.randn(2, prior.channels, len(prior.coarse), generator=seeded()).double()
    fine = prior.spread_out(theta)
    assert fine.shape == (2, prior.channels, len(prior.space))
    same = torch.full_like(fine, 3.0)
    torch.testing.assert_close(prior.gathered(same), torch.full_like(theta, 3.0))
    p = prior.parameters_of(theta[0])
    torch.testing.assert_close(p.std, 2 * (0.4 * fine[0, 0]).exp())
    torch.testing.assert_close(p.velocity, fine[0, -2:].mT * 3 / 4 / 2)


def test_the_likeliest_parameters_are_where_the_slope_vanishes() -> None:
    prior = small(lattice=BARE)
    x, theta = prior.sample_jointly(3, seeded(7), each=3)
    cost = lambda t: -prior.log_density(x, t).sum()
    total = lambda t: (cost(t) + prior.penalty(t)).item()
    found = prior.likeliest(cost, steps=60)
    assert total(found) < min(total(prior.constants()[0]), total(theta[0]))
    again = prior.likeliest(cost, theta[0], steps=60)
    assert total(again) == pytest.approx(total(found), abs=0.01)


def test_steps_share_their_factors() -> None:
    prior = small(lattice=BARE)
    evolution = prior.given(prior.sample_parameters(1, seeded())[0]).evolution()
    assert len({id(step) for step in evolution.steps}) == 1


def test_on_the_sphere_and_on_a_line() -> None:
    """Along a line there are four channels; on the sphere lengths are metres."""
    line = mt.Grid(time=torch.arange(3.0), x=torch.arange(20.0))
    globe = mt.Grid(
        time=torch.arange(2.0), lat=torch.arange(30.0, 33.5, 0.5), lon=torch.arange(-2.0, 2.0, 0.5)
    )
    for grid, length, channels in ((line, 4.0, 4), (globe, 150e3, 7)):
        prior = AugmentedSPDE(grid, length, 5.0, margin=1.0)
        assert prior.channels == channels == len(prior.names())
        x, theta = prior.sample_jointly(1, seeded())
        for_x, for_theta = prior.gradient(x, theta)
        assert for_x.isfinite().all()
        assert for_theta.isfinite().all()
        p = prior.parameters_of(theta[0])
        ratio = torch.linalg.det(p.square) ** (0.5 / p.square.shape[-1]) / length
        assert ratio.min() > 0.2
        assert ratio.max() < 5


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"std": -1.0}, "positive std"),
        ({"velocity": (1.0,)}, "2 numbers"),
        ({"lengthscale": (3.0, 3.0, 3.0)}, "one number"),
        ({"spread": Spread(std=-1.0)}, "at least zero"),
        ({"every": 0}, "one step or more"),
        ({"alpha": 4}, "expected 2"),
        (
            {"lattice": Lattice(mt.Grid(y=[0.0, 2.5, 5.0], x=[0.0, 3.0, 6.0]))},
            "nodes of the domain",
        ),
    ],
)
def test_refusals(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AugmentedSPDE(GRID, **{"lengthscale": 6.0, "timescale": 4.0, **arguments})


def test_a_space_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="Grid with time"):
        AugmentedSPDE(mt.Grid(**SPACE), 3.0, 4.0)
