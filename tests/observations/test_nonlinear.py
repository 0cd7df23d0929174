r"""Laws of observations through any function, and of the times of data."""

import pytest
import scipy.sparse
import torch

from torch.testing import assert_close

from matheron import Grid, GriddedObservation, MatrixObservation, PointObservation, Points, Stack
from matheron.observations.nonlinear import NonlinearObservation
from matheron.testing import check_observation

GRID = Grid(time=[0.0, 2.0, 3.0], x=[0.0, 1.0])


def speed(x):
    return torch.stack([x.norm(dim=-1), x[..., 0] ** 3], dim=-1)


def test_laws_of_observations():
    check_observation(NonlinearObservation(GRID, speed, 0.2, times=torch.tensor([0, 2])))
    check_observation(NonlinearObservation(GRID, torch.exp, torch.linspace(0.1, 0.6, 6)))


def test_states_at_times_are_seen():
    seen = NonlinearObservation(GRID, speed, 0.2, times=torch.tensor([2, 0]))
    x = torch.tensor([3.0, 4.0, 9.0, 9.0, 5.0, 12.0]).double()
    assert seen(x).tolist() == [13.0, 125.0, 5.0, 27.0]
    assert seen.time_index().tolist() == [2, 2, 0, 0]
    noise = seen.sample(x.expand(20_000, 6), torch.Generator().manual_seed(0)) - seen(x)
    # standard error of a variance: sigma^2 sqrt(2 / N)
    assert ((noise.var(dim=0) - 0.04).abs() < 5 * 0.04 * (2 / 20_000) ** 0.5).all()
    assert_close(seen.misfit(seen(x) + 0.2, seen(x)).item(), 2.0)


def test_linear_data_tell_their_times():
    points = Points(time=[3.0, 0.0, 2.0], x=[0.5, 0.0, 0.25])
    at_points = PointObservation(GRID, points, 0.1)
    assert at_points.time_index().tolist() == [2, 0, 1]
    mask = torch.tensor([False, True, False, False, True, True])
    gridded = GriddedObservation(GRID, mask, 0.1)
    assert gridded.time_index().tolist() == [0, 2, 2]
    rows = scipy.sparse.csr_array([[0.0, 0, 0.5, 0.5, 0, 0], [1.0, 0, 0, 0, 0, 0]])
    assert MatrixObservation(GRID, rows, 0.1).time_index().tolist() == [1, 0]
    assert Stack(gridded, at_points).time_index().tolist() == [0, 2, 2, 2, 0, 1]


def test_what_has_no_time_is_refused():
    with pytest.raises(TypeError, match="whole trajectories"):
        NonlinearObservation(GRID, torch.exp, 0.1).time_index()
    between = PointObservation(GRID, Points(time=[1.0], x=[0.0]), 0.1)
    with pytest.raises(ValueError, match="between two of them"):
        between.time_index()


@pytest.mark.parametrize("kind", ["points", "gridded", "stack"])
def test_the_misfit_is_the_cost(kind, generator):
    points = Points(time=[3.0, 0.0, 2.0], x=[0.5, 0.0, 0.25])
    at_points = PointObservation(GRID, points, 0.1, bias_std=0.5)
    gridded = GriddedObservation(GRID, torch.arange(6) % 2 == 0, 0.3)
    made = {"points": at_points, "gridded": gridded, "stack": Stack(gridded, at_points)}[kind]
    x = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    y = made.sample(x, generator)
    assert_close(made.misfit(made(x), y), made.cost(x, y))


@pytest.mark.parametrize(
    ("function", "times", "message"),
    [
        (lambda x: x.mean(dim=0), None, "with the batch of the state"),
        (torch.exp, torch.tensor([3]), "expected some of 0 to 2"),
        (torch.exp, torch.tensor([], dtype=torch.long), "expected some of 0 to 2"),
    ],
)
def test_bad_settings_are_refused(function, times, message):
    with pytest.raises(ValueError, match=message):
        NonlinearObservation(GRID, function, 0.1, times=times)


def test_bad_data_are_refused():
    seen = NonlinearObservation(GRID, torch.exp, 0.1)
    with pytest.raises(ValueError, match="expected 6 values"):
        seen.select(torch.zeros(5).double())
    with pytest.raises(ValueError, match="finite values"):
        seen.select(torch.full((6,), torch.nan).double())
    with pytest.raises(ValueError, match="a grid with time"):
        NonlinearObservation(Grid(x=[0.0, 1.0]), torch.exp, 0.1, times=torch.tensor([0]))
