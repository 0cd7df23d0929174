"""The first guess: kriging with scales that are kept; a lead hides the future."""

import numpy as np
import pytest
import torch

from matheron.domain import Grid, Points
from matheron.mappers.first_guess import FirstGuess
from matheron.mappers.problem import Problem
from matheron.observations import PointObservation
from matheron.priors import GaussianProcess
from matheron.solvers import Kriging

GRID = Grid(
    time=[0.0, 1.0, 2.0],
    lat=[30.0, 30.5, 31.0],
    lon=[5.0, 5.5],
    metric="sphere",
    epoch=np.datetime64("2012-10-01", "ns"),
)


def problem(size=40):
    dice = torch.Generator().manual_seed(0)
    u = torch.rand(size, 3, dtype=torch.float64, generator=dice)
    coords = torch.tensor([-3.0, 29.5, 4.5]) + u * torch.tensor([7.0, 2.0, 1.5])
    points = Points(coords, ("time", "lat", "lon"), metric="sphere", epoch=GRID.epoch)
    values = torch.randn(size, dtype=torch.float64, generator=dice)
    return Problem(GRID, points, values, passes=torch.arange(size))


def test_with_a_wide_window_it_is_kriging():
    law = FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, reach=50.0)
    p = problem()
    seen = PointObservation(GRID, p.points, noise_std=0.3)
    exact = Kriging()(GaussianProcess(law.kernel, GRID), seen)(p.values)
    torch.testing.assert_close(law.of(p, GRID), exact.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(law.std(p, GRID), exact.std(), rtol=0, atol=1e-9)


def test_where_there_are_no_data_the_std_is_that_of_the_field():
    law = FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, reach=50.0)
    nothing = problem().take(torch.zeros(40, dtype=torch.bool))
    assert torch.allclose(law.std(nothing, GRID), torch.tensor(0.8).double())
    assert (law.of(nothing, GRID) == 0).all()


@pytest.mark.parametrize("lead", [0, 1])
def test_a_lead_hides_what_comes_after(lead):
    law = FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, reach=50.0, lead=lead)
    p = problem()
    whole = law.of(p, GRID).reshape(GRID.shape)
    t = p.points.axis("time")
    for k, day in enumerate(GRID.axes["time"].tolist()):
        known = p.take(t < day - lead + 0.5)
        seen = PointObservation(GRID, known.points, noise_std=0.3)
        exact = Kriging()(GaussianProcess(law.kernel, GRID), seen)(known.values).mean
        torch.testing.assert_close(whole[k], exact.reshape(GRID.shape)[k], rtol=0, atol=1e-9)


def test_another_epoch_is_the_same_time():
    law = FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, reach=50.0, lead=1)
    axes = {**GRID.axes, "time": GRID.axes["time"] + 3}
    later = Grid(metric="sphere", epoch=GRID.epoch - np.timedelta64(3, "D"), **axes)
    torch.testing.assert_close(law.of(problem(), later), law.of(problem(), GRID))


def test_without_data_it_is_the_mean():
    law = FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, reach=1.5)
    assert not law.of(problem().take(torch.zeros(40, dtype=torch.bool)), GRID).any()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="expected positive numbers"):
        FirstGuess(60e3, 2.0, 0.0, 0.3, 2.5, 1.5, 5.0)
    with pytest.raises(ValueError, match="a lead of zero or more"):
        FirstGuess(60e3, 2.0, 0.8, 0.3, 2.5, 1.5, 5.0, lead=-1)
