"""Data in cells: brute force, and the error of their means by simulation."""

import numpy as np
import pytest
import torch

from torch.testing import assert_close

from matheron.data.cells import to_cells
from matheron.domain import Grid, Points


def _grid() -> Grid:
    days = np.datetime64("2014-01-01") + np.arange(4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[0, 0] = False
    return Grid(time=days, lat=[10.0, 10.5, 11.0], lon=[-1.0, -0.5, 0.0, 0.5], mask=mask)


def _data(m: int = 400):
    g = torch.Generator().manual_seed(0)
    u = torch.rand(4, m, dtype=torch.float64, generator=g)
    seconds = ((u[0] * 5.0 - 0.7) * 86400).round().numpy().astype("timedelta64[s]")
    time = np.datetime64("2014-01-01") + seconds
    lon = torch.remainder(-1.4 + 2.6 * u[2], 360.0)
    points = Points(time=time, lat=9.6 + 1.8 * u[1], lon=lon)
    return points, u[3], 0.1 + u[0]


def test_cells_are_means_of_the_nearest_data() -> None:
    grid = _grid()
    points, values, std = _data()
    cells = to_cells(grid, points, values, std, correlation=0.3)
    t, lat, lon = points.since(grid.epoch).coords.unbind(-1)
    lon = torch.remainder(lon + 180, 360) - 180
    kept = 0
    for i, (a, b, c) in enumerate(grid.points.coords.tolist()):
        own = ((t - a).abs() < 0.5) & ((lat - b).abs() < 0.25) & ((lon - c).abs() < 0.25)
        k = int(own.sum())
        kept += k
        assert cells.count[i] == k
        if k == 0:
            assert cells.mean[i] == 0
            assert cells.noise_std[i].isinf()
            continue
        assert_close(cells.mean[i], values[own].mean())
        s = std[own]
        variance = (0.7 * s.square().sum() + 0.3 * s.sum() ** 2) / k**2
        assert_close(cells.noise_std[i], variance.sqrt())
    assert cells.dropped == len(values) - kept
    assert torch.equal(cells.mask, cells.count > 0)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_error_of_a_mean_is_that_of_simulated_data(correlation: float) -> None:
    grid = Grid(x=[0.0, 1.0])
    points = Points(x=[-0.2, 0.0, 0.3, 1.0])
    std = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=torch.float64)
    found = to_cells(grid, points, torch.zeros(4).double(), std, correlation).noise_std
    g = torch.Generator().manual_seed(0)
    size = 20_000
    own = torch.randn(size, 4, dtype=torch.float64, generator=g)
    shared = torch.randn(size, 1, dtype=torch.float64, generator=g)
    e = std * ((1 - correlation) ** 0.5 * own + correlation**0.5 * shared)
    means = e[:, :3].mean(dim=1)
    # the standard error of a standard deviation: sigma / sqrt(2 N)
    assert abs(means.std() - found[0]) < 5 * found[0] / (2 * size) ** 0.5
    assert found[1] == 1.0


def test_cells_of_one_time_and_the_dateline() -> None:
    grid = Grid(time=[0.0], lat=[0.0, 1.0], lon=[179.0, 180.0, 181.0])
    points = Points(time=[0.4, 0.6, 0.0], lat=[0.0, 0.0, 1.0], lon=[179.2, 180.0, -179.0])
    cells = to_cells(grid, points, torch.tensor([1.0, 2.0, 3.0]).double())
    assert cells.mean.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 3.0]
    assert cells.dropped == 1


def test_cells_refuse() -> None:
    grid, points = Grid(x=[0.0, 1.0]), Points(x=[0.0])
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected axes"):
        to_cells(grid, Points(y=[0.0]), one)
    with pytest.raises(ValueError, match="expected 1 finite values"):
        to_cells(grid, points, one * torch.nan)
    with pytest.raises(ValueError, match="errors of zero or more"):
        to_cells(grid, points, one, -1.0)
    with pytest.raises(ValueError, match="expected a number from 0 to 1, got 2"):
        to_cells(grid, points, one, 1.0, 2.0)
