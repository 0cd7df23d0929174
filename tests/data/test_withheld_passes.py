"""Real tracks as windows: what is withheld is neither seen nor guessed from."""

import pytest
import torch

from matheron.data import Augmentation, Mirror, Purpose, to_cells
from matheron.data.withheld_passes import WithheldPasses, about_guess, folds_of
from matheron.domain import Grid, Points
from matheron.fit import Schedule, train, withheld_error
from matheron.kernels import Matern
from matheron.nets import UNet
from matheron.priors import GaussianProcess
from matheron.solvers import DirectInversion

GRID = Grid(time=range(7), lat=range(6), lon=range(8), metric="sphere")
M = 120


def table(seed=0):
    dice = torch.Generator().manual_seed(seed)
    u = torch.rand(3, M, dtype=torch.float64, generator=dice)
    points = Points(time=6 * u[0], lat=5 * u[1], lon=7 * u[2], metric="sphere")
    y = torch.randn(M, dtype=torch.float64, generator=dice)
    return points, y, torch.arange(M) // 8


def nearest(points, y):
    """A first guess that tells which data it was made of: the sum of those that are kept."""

    def guess(kept):
        total = y[kept].sum()
        return total * torch.ones(len(GRID)).double(), total * torch.ones(M).double()

    return guess


def source(**settings):
    points, y, passes = table()
    fold = folds_of(passes, 5, torch.Generator().manual_seed(1))
    made = WithheldPasses(GRID, (5, 6, 8), points, y, 0.1, fold, nearest(points, y), **settings)
    return made, points, y, fold


def test_passes_are_dealt_out_whole_and_evenly():
    passes = torch.tensor([3, 3, 1, 1, 1, 9, 4, 4, 7, 0, 0, 5])
    fold = folds_of(passes, 3, torch.Generator().manual_seed(0))
    for one in passes.unique():
        assert len(fold[passes == one].unique()) == 1
    passes_of = [len(passes[fold == k].unique()) for k in range(3)]
    assert max(passes_of) - min(passes_of) <= 1
    again = folds_of(passes, 3, torch.Generator().manual_seed(0))
    assert torch.equal(fold, again)


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_without_a_pass_are_refused(folds):
    with pytest.raises(ValueError, match="a pass for each"):
        folds_of(torch.tensor([1, 1, 2, 3]), folds)


def test_each_fold_is_hidden_once_from_data_and_guess():
    made, points, y, fold = source()
    per_fold = len(made) // 5
    assert len(made) == 5 * per_fold
    for k in range(5):
        index = torch.arange(k * per_fold, (k + 1) * per_fold)
        batch = made.batch(index, index)
        kept = fold != k
        guess = batch.covariates["guess"][0]
        torch.testing.assert_close(guess, torch.full_like(guess, y[kept].sum().item()))
        assert list(batch.covariates) == ["guess"]
        for mask, values, told in (
            (batch.mask, batch.values, kept),
            (batch.hidden_mask, batch.hidden, ~kept),
        ):
            # the guess is flat: departures about it are the data themselves
            cells = to_cells(GRID, points[told], y[told])
            for i in range(per_fold):
                own = cells.mask.reshape(GRID.shape)[i : i + 5].flatten()
                assert torch.equal(mask[i], own)
                expected = cells.mean.reshape(GRID.shape)[i : i + 5].flatten()
                torch.testing.assert_close(values[i], expected)


def test_hidden_values_change_nothing_of_what_is_seen():
    points, y, passes = table()
    fold = folds_of(passes, 4, torch.Generator().manual_seed(1))
    other = torch.where(fold == 2, y + 100.0, y)
    one, two = (
        WithheldPasses(GRID, (7, 6, 8), points, v, 0.1, fold, nearest(points, v), hidden=[2])
        for v in (y, other)
    )
    a, b = (s.batch(torch.tensor([0]), torch.tensor([0])) for s in (one, two))
    assert torch.equal(a.values, b.values)
    assert torch.equal(a.covariates["guess"][0], b.covariates["guess"][0])
    assert not torch.equal(a.hidden, b.hidden)
    assert one.fingerprint() != two.fingerprint()


def test_what_a_guess_does_within_a_cell_is_no_error():
    points, _, _ = table()
    shape = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    plane, there = GRID.points.coords @ shape, points.coords @ shape
    cells = about_guess(GRID, points, there + 0.25, plane, there)
    torch.testing.assert_close(cells.mean[cells.mask], plane[cells.mask] + 0.25)
    assert not cells.mean[~cells.mask].any()
    plain = to_cells(GRID, points, there + 0.25)
    assert (plain.mean - plane - 0.25)[plain.mask].abs().max() > 0.1


def test_mirrors_turn_hidden_data_too():
    mirror = Augmentation(mirrors=(Mirror(("lat",), -1.0),))
    plain, turned = source()[0], source(augmentation=mirror)[0]
    index = torch.zeros(1, dtype=torch.long)
    a = plain.batch(index, index)
    found = set()
    for seed in range(10):
        b = turned.batch(index, torch.tensor([seed]))
        was = not torch.equal(a.mask, b.mask)
        found.add(was)
        expected = -a.space(a.hidden).flip(2) if was else a.space(a.hidden)
        torch.testing.assert_close(b.space(b.hidden), expected)
    assert found == {True, False}


def test_data_of_the_future_stay_hidden():
    made, points, _, _ = source(purpose=Purpose("forecast", lead=2), hidden=[0])
    batch = made.batch(torch.tensor([0]), torch.tensor([0]))
    times = batch.space(batch.mask)[0].flatten(1).any(dim=1)
    assert times.tolist() == [True, True, True, False, False]
    day = points.axis("time").round()
    later = set(day[(day >= 3) & (day < 5)].tolist())
    hidden = batch.space(batch.hidden_mask)[0].flatten(1).any(dim=1)
    assert hidden[3:].all() == (later == {3.0, 4.0})


def test_a_fold_without_data_is_refused():
    with pytest.raises(ValueError, match="a fold with data"):
        source(hidden=[9])


def test_a_solver_learns_what_guesses_get_wrong_from_real_passes_alone():
    """Guesses are low by one: what is learned from withheld passes removes it, and no truth is."""
    points, y, passes = table()
    fold = folds_of(passes, 5, torch.Generator().manual_seed(1))
    y = 0.1 * y + 1.0

    def low(kept):
        return torch.zeros(len(GRID)).double(), torch.zeros(M).double()

    learn, held = (
        WithheldPasses(GRID, (5, 6, 8), points, y, 0.1, fold, low, hidden=k)
        for k in ([1, 2, 3, 4], [0])
    )
    net = UNet(16, 5, width=4, levels=2, generator=torch.Generator().manual_seed(0))
    solver = DirectInversion(net, mean=0.0, scale=1.0, first="guess")
    law = Matern(1.5, 1.0, (1.0, 1e5, 1e5))
    prior = GaussianProcess(law, learn.grid).requires_grad_(False)
    history = train(
        solver,
        prior,
        learn,
        withheld_error(),
        held,
        Schedule(steps=60, batch=4, rate=1e-2, validate_every=10),
        generator=torch.Generator().manual_seed(2),
    )
    # the mean square of the guess is 1.01 in units of 0.01; that of white data about one is 1
    assert history.losses[0] > 80
    assert history.best < 10
