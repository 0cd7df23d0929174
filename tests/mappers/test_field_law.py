"""The law of a mapped field: its data, its std and its members against dense algebra."""

import copy
import math
import pytest
import sys
import torch

from pathlib import Path

from matheron import Grid, SparseCholesky
from matheron.compare import Plan, learn, problem_of
from matheron.data.kept import KeptWindows
from matheron.data.patches import Mirror
from matheron.fit import load_model
from matheron.mappers import learned
from matheron.mappers.departures import Departures
from matheron.mappers.field_law import FieldLaw, Windowed
from matheron.mappers.learned import CLASSES
from matheron.nets import UNet
from matheron.solvers.neural import AugmentedVariational
from tests.learned_ocean import course, ocean, trained

DAYS, WIDE = 3, 6


def window(side=WIDE, step=0.5):
    axis = 40.0 + step * torch.arange(side, dtype=torch.float64)
    days = torch.arange(DAYS, dtype=torch.float64)
    return Grid(time=days, lat=axis, lon=axis - 100.0, metric="sphere")


def law(coarser=1, net_scale=0.0):
    net = UNet(3 * DAYS + 1, DAYS + 7, width=4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(net_scale)
    solver = AugmentedVariational(net, SparseCholesky(), first="guess", mean=0.0, scale=1.0)
    return FieldLaw(solver, (150e3, 150e3), 5.0, 1.0, (0.0, 5e3), 0.1, coarser)


def windows(many=4, side=WIDE, seed=0):
    dice = torch.Generator().manual_seed(seed)
    shape = (many, DAYS, side, side)
    x = torch.randn(shape, generator=dice).double()
    seen = torch.rand(shape, generator=dice) < 0.3
    return Windowed(x, torch.where(seen, x + 0.1, 0.0), seen)


def dense(departures, day):
    """The covariance of the wanted day given the data of its window, by dense algebra."""
    given = departures.conditional(day)[0]
    nodes = given.embedding(departures.prior.domain.points).to_dense()
    covariance = nodes @ torch.linalg.inv(given.precision().to_dense()) @ nodes.T
    seen = departures.mask[day]
    noise = departures.law.noise**2 * torch.eye(int(seen.sum()), dtype=torch.float64)
    gain = torch.linalg.solve(covariance[seen][:, seen] + noise, covariance[seen])
    left = covariance - covariance[:, seen] @ gain
    n = WIDE * WIDE
    own = slice(departures.wanted * n, (departures.wanted + 1) * n)
    return left[own, own]


def test_data_are_the_map_and_what_they_differ_from_it_by():
    grid, made = window(5, 0.2), windows(1, 5)
    values, mask, guess = law(coarser=2).data(made)
    assert len(law(coarser=2).prior(grid).domain) == values.shape[1] == DAYS * 9
    assert torch.equal(guess, made.estimate[:, :, ::2, ::2].flatten(1))
    # each cell has the nodes that are nearer to its node than to the one before
    owner = torch.tensor([0, 1, 1, 2, 2])
    for t in range(DAYS):
        for i in range(3):
            for j in range(3):
                own = (owner == i)[:, None] & (owner == j) & made.seen[0, t]
                k = t * 9 + i * 3 + j
                assert mask[0, k] == own.any()
                rest = (made.values - made.estimate)[0, t][own]
                wanted = guess[0, k] + rest.mean() if own.any() else torch.tensor(0.0).double()
                assert torch.allclose(values[0, k], wanted, atol=1e-12)


@pytest.mark.parametrize("net_scale", [0.0, 1.0], ids=["constants", "told"])
def test_std_is_that_of_the_dense_law(net_scale):
    found = Departures(law(net_scale=net_scale), window(), windows(), 1)
    assert (found.theta.abs().max() > 0.01) == (net_scale > 0)
    for day in (0, 3):
        wanted = dense(found, day).diagonal().sqrt().reshape(WIDE, WIDE)
        assert torch.allclose(found.std([day])[0], wanted, rtol=1e-6)


def test_members_have_the_correlations_of_the_dense_law():
    many = 4000
    found = Departures(law(), window(), windows(2), 1)
    draws = found.sample(many, torch.Generator().manual_seed(1))
    assert draws.shape == (many, 2, WIDE, WIDE)
    for day in range(2):
        covariance = dense(found, day)
        std = covariance.diagonal().sqrt()
        wanted = covariance / std[:, None] / std
        got = torch.corrcoef(draws[:, day].flatten(1).mT)
        # the error of a correlation r of n draws is (1 - r^2) / sqrt(n)
        bound = 5 * (1 - wanted.square()).clamp(min=0.02) / math.sqrt(many)
        assert ((got - wanted).abs() < bound).all()
        size = draws[:, day].square().mean(dim=0)
        assert ((size - 1).abs() < 5 * math.sqrt(2 / many)).all()


def blank(many):
    made = windows(many)
    return Windowed(made.estimate, made.values * 0, made.seen & False)


def test_members_go_on_from_day_to_day():
    many = 2000
    found = Departures(law(), window(), blank(2), 1)
    draws = found.sample(many, torch.Generator().manual_seed(1))
    both = (draws[:, 0] * draws[:, 1]).mean(dim=0).flatten()
    given = found.prior.given(found.theta[0])
    nodes = given.embedding(found.prior.domain.points).to_dense()
    covariance = nodes @ torch.linalg.inv(given.precision().to_dense()) @ nodes.T
    std, n = covariance.diagonal().sqrt(), WIDE * WIDE
    wanted = (covariance / std[:, None] / std)[n : 2 * n, 2 * n :].diagonal()
    assert (wanted > 0.5).all()
    assert ((both - wanted).abs() < 5 * (1 + wanted.square()).sqrt() / math.sqrt(many)).all()


def test_where_there_are_no_data_the_law_is_that_of_the_field():
    found = Departures(law(), window(), blank(1), 1)
    wanted = dense(found, 0).diagonal().sqrt().reshape(WIDE, WIDE)
    assert torch.allclose(found.std()[0], wanted, rtol=1e-5)


def test_parameters_look_at_data_and_map_alone():
    one, made = law(net_scale=1.0), windows(1)
    theta = one.tell(window(), made)
    again = one.tell(window(), made)
    other = one.tell(window(), Windowed(made.estimate + 0.5, made.values, made.seen))
    assert torch.equal(theta, again)
    assert not torch.allclose(theta, other, atol=1e-4)


@pytest.mark.parametrize("name", ["lengthscale", "timescale", "std", "noise"])
def test_constants_are_positive(name):
    known = {"lengthscale": (1e5, 1e5), "timescale": 5.0, "std": 1.0, "noise": 0.1}
    known[name] = (0.0, 1e5) if name == "lengthscale" else 0.0
    with pytest.raises(ValueError, match="expected positive numbers"):
        FieldLaw(law().solver, velocity=(0.0, 0.0), **known)


def test_parameters_go_from_day_to_day_by_steps_of_their_own():
    found = Departures(law(net_scale=1.0), window(), windows(), 1)
    given = found.conditional(2)[0]
    # the second window holds the days 2, 3 and 4, the last of which has the parameters of day 3
    laws = [found.prior.given(found.theta[k]) for k in (1, 2, 3)]
    whole = given.precision().to_dense()
    n = len(whole) // DAYS
    for k in range(1, DAYS):
        alone = laws[k].precision().to_dense()
        step = slice((k - 1) * n, k * n), slice(k * n, (k + 1) * n)
        assert torch.allclose(whole[step], alone[step], rtol=1e-10, atol=1e-12)
    first, others = laws[0].precision().to_dense(), laws[1].precision().to_dense()
    start = laws[0].evolution().initial.to_dense()
    assert torch.allclose(whole[:n, :n] - start, others[:n, :n] - _initial(laws[1]), rtol=1e-9)
    assert not torch.allclose(first[:n, n : 2 * n], whole[:n, n : 2 * n], rtol=1e-3)


def _initial(law):
    return law.evolution().initial.to_dense()


# windows that are kept


def test_windows_are_turned_with_their_sign():
    grid = window()
    x = torch.randn(1, len(grid), generator=torch.Generator().manual_seed(0)).double()
    parts = {"values": x, "mask": x > 0, "truth": 2 * x, "guess": 3 * x}
    mirror = Mirror(("lat",), sign=-1.0)
    source = KeptWindows(grid, parts, 0.1, [mirror])
    index = torch.zeros(20, dtype=torch.long)
    batch = source.batch(index, torch.arange(20))
    turned = -grid.unflatten(x).flip(-2).flatten()
    plain = (batch.values == x).all(dim=1)
    assert 0 < plain.sum() < 20
    for k in range(20):
        y = x[0] if plain[k] else turned
        assert torch.equal(batch.values[k], y)
        assert torch.equal(batch.truth[k], 2 * y)
        assert torch.equal(batch.covariates["guess"][0][k], 3 * y)
        assert torch.equal(batch.mask[k], (x[0] > 0) if plain[k] else turned < 0)
    alone = source.batch(index[:1], torch.tensor([7]))
    assert torch.equal(alone.values[0], batch.values[7])


def test_windows_of_another_size_are_refused():
    x = torch.zeros(2, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="one row per window"):
        KeptWindows(window(), {"values": x, "mask": x == 0, "truth": x, "guess": x}, 0.1)


# in a trained solver


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A trained solver alone, and with the law of its field."""
    folder = tmp_path_factory.mktemp("law") / "model"
    start = load_model(trained("unet"), classes=CLASSES)
    learn(course("4dvarnet-spde", law_updates=4), folder, start=start)
    return learned(trained("unet")), learned(folder)


def test_the_map_is_that_of_the_solver_and_its_size_that_of_errors(both):
    problem = problem_of(ocean(), 0.5)
    alone, lawful = (mapper(problem, print).posterior for mapper in both)
    assert torch.equal(alone.mean, lawful.mean)
    assert both[1].model.card.scores["spread_skill"] == pytest.approx(1.0, abs=1e-9)
    assert not torch.allclose(alone.std(), lawful.std(), rtol=1e-3)


def test_members_are_the_map_and_its_std(both):
    many, mapper = 400, copy.deepcopy(both[1])
    with torch.no_grad():  # parameters that are constant: windows then have one law
        for p in mapper.law.solver.guess.parameters():
            p.zero_()
    posterior = mapper(problem_of(ocean(), 0.5), print).posterior
    draws = posterior.sample(many, torch.Generator().manual_seed(0))
    again = posterior.sample(many, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    z = (draws - posterior.mean) / posterior.std()
    assert (z.mean(dim=0).abs() < 5 / math.sqrt(many)).all()
    assert ((z.square().mean(dim=0) - 1).abs() < 5 * math.sqrt(2 / many)).all()


def test_a_law_is_of_true_fields():
    with pytest.raises(ValueError, match="expected truth"):
        Plan("4dvarnet-spde", supervision="data")


def test_a_law_of_another_purpose_is_refused(both):
    plan = course("4dvarnet-spde", purpose="near-real-time", law_updates=4)
    with pytest.raises(ValueError, match=r"learn\(start=...\)"):
        learn(plan, Path("nowhere"), start=both[0].model)


def test_windows_that_are_too_large_are_refused(both, monkeypatch):
    monkeypatch.setattr(sys.modules["matheron.mappers.learned"], "ROOM", 100)
    with pytest.raises(ValueError, match="Map smaller boxes"):
        both[1](problem_of(ocean(), 0.5), print)
