"""Losses: brute force, what weighs nothing is never read, and scores that are proper."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.data.batches import Batch
from matheron.domain import EARTH_RADIUS, Grid
from matheron.fit.losses import (
    Outcome,
    crps,
    data_misfit,
    every_iterate,
    field_error,
    gaussian_likelihood,
    gradient_error,
    prior_cost,
    variational_cost,
    withheld_error,
)
from matheron.observations import GriddedObservation
from tests.fit.learned_models import Level

SHAPE = (2, 4, 5)


def _grid(plane: bool = False) -> Grid:
    t, a, b = (torch.arange(float(k)) for k in SHAPE)
    if plane:
        return Grid(time=t, y=2 * a, x=b)
    return Grid(time=t, lat=40 + 0.5 * a, lon=0.25 * b)


def _outcome(grid: Grid | None = None, size: int = 3, **settings) -> Outcome:
    grid = grid or _grid()
    n, g = len(grid), torch.Generator().manual_seed(0)

    def draw() -> torch.Tensor:
        return torch.randn(size, n, dtype=torch.float64, generator=g)

    truth, x, mask, hidden = draw(), draw(), draw() > 0, draw() > 0.5
    hidden = hidden & ~mask
    arguments = {
        "values": torch.where(mask, truth + 0.1, 0.0),
        "mask": mask,
        "noise_std": torch.tensor(0.2, dtype=torch.float64),
        "weights": draw().abs(),
        "truth": truth,
        "hidden": torch.where(hidden, truth + 0.3, 0.0),
        "hidden_mask": hidden,
    } | settings
    batch = Batch(grid, **arguments)
    prior = Level(grid, width=2.0).requires_grad_(False)
    observation = GriddedObservation(grid, mask, 0.2)
    return Outcome(batch, prior, observation, batch.values, x)


def _replaced(outcome: Outcome, **fields) -> Outcome:
    return Outcome(**{**vars(outcome), **fields})


def test_field_error_is_a_weighted_mean() -> None:
    o = _outcome()
    w = o.batch.weights
    expected = (w * (o.x - o.batch.truth) ** 2).sum(-1) / w.sum(-1)
    assert_close(field_error()(o), expected)


def _brute_gradient(o: Outcome, length: float, spacings) -> torch.Tensor:
    e, w = (o.batch.space(v) for v in (o.x - o.batch.truth, o.batch.weights))
    found = []
    for b in range(len(e)):
        total = 0.0
        for axis in (1, 2):
            up = weights = 0.0
            for t in range(SHAPE[0]):
                for i in range(SHAPE[1] - (axis == 1)):
                    for j in range(SHAPE[2] - (axis == 2)):
                        p, q = (t, i, j), (t, i + (axis == 1), j + (axis == 2))
                        ww = min(w[b][p], w[b][q])
                        up += ww * ((e[b][q] - e[b][p]) / spacings(axis, i)) ** 2
                        weights += ww
            total += length**2 * up / weights
        found.append(total)
    return torch.stack(found)


def test_gradient_error_is_on_the_metric_of_the_plane() -> None:
    o = _outcome(_grid(plane=True))
    expected = _brute_gradient(o, 3.0, lambda axis, i: 2.0 if axis == 1 else 1.0)
    assert_close(gradient_error(3.0)(o), expected)


def test_gradient_error_is_on_the_metric_of_the_sphere() -> None:
    o = _outcome()
    degree = EARTH_RADIUS * math.pi / 180

    def spacing(axis: int, i: int) -> float:
        cos = math.cos(math.radians(40 + 0.5 * i))
        return degree * (0.5 if axis == 1 else 0.25 * cos)

    assert_close(gradient_error(1e5)(o), _brute_gradient(o, 1e5, spacing))
    # the axes of the windows, where they are given, are those that count
    lat = torch.stack([70 + 0.5 * torch.arange(4.0).double()] * 3)
    moved = _outcome(axes={"lat": lat, "lon": 0.25 * torch.arange(5.0).double().expand(3, 5)})

    def north(axis: int, i: int) -> float:
        cos = math.cos(math.radians(70 + 0.5 * i))
        return degree * (0.5 if axis == 1 else 0.25 * cos)

    assert_close(gradient_error(1e5)(moved), _brute_gradient(moved, 1e5, north))


ALL = [field_error(), gradient_error(1e5), withheld_error(), crps(lambda o: 1 + 0 * o.x)]


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_what_weighs_nothing_is_never_read(loss) -> None:
    o = _outcome()
    land = torch.zeros(3, len(o.batch.grid), dtype=torch.bool)
    land[:, ::3] = True
    weights = torch.where(land, 0.0, o.batch.weights)
    own = _outcome(weights=weights)
    assert torch.equal(loss(own), loss(_replaced(own, x=torch.where(land, 1e9, own.x))))
    x = own.x.clone().requires_grad_()
    loss(_replaced(own, x=x)).sum().backward()
    assert (x.grad[land] == 0).all()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    nothing = _outcome(weights=torch.zeros_like(weights))
    assert (loss(nothing) == 0).all()


@pytest.mark.parametrize("loss", [*ALL, prior_cost(), data_misfit(), variational_cost()], ids=repr)
def test_a_window_does_not_know_its_company(loss) -> None:
    o = _outcome()
    first = {k: v[:1] for k, v in vars(o.batch).items() if isinstance(v, torch.Tensor) and v.ndim}
    alone = _outcome(size=1, **first)
    observation = GriddedObservation(o.batch.grid, o.batch.mask[:1], 0.2)
    alone = _replaced(alone, x=o.x[:1], y=o.y[:1], observation=observation)
    assert_close(loss(alone)[0], loss(o)[0], rtol=1e-12, atol=0)
    assert loss(o).shape == (3,)


def test_costs_are_those_of_prior_and_observation() -> None:
    o = _outcome()
    n = len(o.batch.grid)
    assert_close(prior_cost()(o), o.x.square().sum(-1) / 8 / n)
    assert_close(prior_cost("truth")(o), o.batch.truth.square().sum(-1) / 8 / n)
    misfit = torch.where(o.batch.mask, o.x - o.y, 0.0).square().sum(-1) / (2 * 0.04)
    assert_close(data_misfit()(o), misfit / n)
    assert_close(variational_cost()(o), (prior_cost() + data_misfit())(o))


def test_a_prior_that_learns_is_refused_by_the_variational_cost() -> None:
    o = _outcome()
    o.prior.requires_grad_(True)
    with pytest.raises(ValueError, match="expected a prior that stays"):
        variational_cost()(o)


def test_withheld_error_is_in_units_of_the_noise() -> None:
    o = _outcome()
    perfect = _replaced(o, x=o.batch.hidden)
    assert (withheld_error()(perfect) == 0).all()
    off = _replaced(o, x=o.batch.hidden + 0.4)
    assert_close(withheld_error()(off), torch.full((3,), 4.0).double())
    with pytest.raises(ValueError, match="expected windows with hidden data"):
        withheld_error()(_outcome(hidden=None, hidden_mask=None))


def test_losses_add_up() -> None:
    o = _outcome()
    both = (50 * field_error() + gradient_error(1e5) * 0.1) / 2
    assert_close(both(o), 25 * field_error()(o) + 0.05 * gradient_error(1e5)(o))
    assert repr(both) == "25 field_error + 0.05 gradient_error"
    assert_close(both.parts(o)["field_error"], field_error()(o))


@pytest.mark.parametrize("against", ["truth", "withheld"])
@pytest.mark.parametrize("loss", [crps, gaussian_likelihood])
def test_scores_are_best_where_the_spread_is_that_of_the_error(loss, against: str) -> None:
    """Proper scores: of all spreads, the true one is best, up to five standard errors."""
    grid, g = _grid(), torch.Generator().manual_seed(1)
    size, sigma = 500, 0.7
    n = len(grid)
    truth, e = (torch.randn(size, n, dtype=torch.float64, generator=g) for _ in range(2))
    noise = 0.2 * torch.randn(size, n, dtype=torch.float64, generator=g)
    hidden = torch.ones(size, n, dtype=torch.bool)
    settings = {"truth": truth, "hidden": truth + noise, "hidden_mask": hidden}
    o = _replaced(_outcome(size=size, **settings), x=truth + sigma * e)
    log_std = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    rule = loss(lambda o: log_std.exp().expand_as(o.x), against)
    optimiser = torch.optim.LBFGS([log_std], max_iter=50)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = rule(o).mean()
        value.backward()
        return value

    optimiser.step(closure)
    # a standard deviation of m numbers is known to sigma / sqrt(2 m); the CRPS is 1.3 times less
    # efficient, and weights leave two thirds of the numbers
    total = (sigma**2 + (0.04 if against == "withheld" else 0.0)) ** 0.5
    error = total / (2 * size * n * 0.5) ** 0.5 * 1.3
    assert abs(log_std.exp().item() - sigma) < 5 * error * total / sigma


def test_a_spread_that_is_a_module_is_trained_too() -> None:
    class Spread(torch.nn.Module):
        def forward(self, o: Outcome) -> torch.Tensor:
            return torch.ones_like(o.x)

    spread = Spread()
    loss = field_error() + 0.1 * crps(spread) + 0.1 * gaussian_likelihood(spread)
    assert loss.modules == (spread,)
    assert every_iterate(loss).modules == (spread,)


def test_every_iterate_counts() -> None:
    o = _outcome()
    xs = torch.stack([o.x, o.x + 1, o.x - 2])
    seen = _replaced(o, x=xs[-1], iterates=xs)
    a, b = (field_error()(_replaced(o, x=x)) for x in xs[1:])
    assert_close(every_iterate(field_error())(seen), (a + b) / 2)
    assert_close(every_iterate(field_error(), growth=3.0)(seen), (a + 3 * b) / 4)
    assert every_iterate(field_error()).iterates
    assert (0.5 * every_iterate(field_error()) + field_error()).iterates
    with pytest.raises(ValueError, match="expected a solver that gives its iterates"):
        every_iterate(field_error())(o)


def test_losses_refuse() -> None:
    with pytest.raises(ValueError, match="expected windows with a truth"):
        field_error()(_outcome(truth=None))
    with pytest.raises(ValueError, match="expected a positive length, got 0"):
        gradient_error(0.0)
    with pytest.raises(ValueError, match="expected 'estimate' or 'truth'"):
        prior_cost("data")
    with pytest.raises(ValueError, match="expected one of"):
        crps(lambda o: o.x, "data")
    with pytest.raises(ValueError, match="expected a positive factor"):
        every_iterate(field_error(), 0.0)
