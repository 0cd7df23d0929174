"""Tiles: their weights sum to one, and a map does not depend on them within the halo."""

import math
import pytest
import torch

from torch.testing import assert_close

from matheron.data.tiles import Tiling
from matheron.domain import Grid


def _field(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def _blur(x: torch.Tensor) -> torch.Tensor:
    """Three convolutions, nonlinear: a node sees three nodes to each side."""
    kernel = _field(1, 1, 3, 3, seed=1)
    for _ in range(3):
        x = torch.nn.functional.conv2d(x, kernel, padding=1).tanh()
    return x


def _by_tiles(grid: Grid, tiling: Tiling, x: torch.Tensor) -> torch.Tensor:
    size = [tiling.size[k] for k in ("y", "x")]
    parts = torch.stack([tiling.cut(x, tile) for tile in tiling])
    return tiling.blend(_blur(parts.reshape(-1, 1, *size)).reshape(parts.shape))


@pytest.mark.parametrize(
    ("n", "size", "halo", "overlap"),
    [(9, 9, 3, 0), (20, 7, 0, 0), (23, 9, 2, 3), (64, 20, 3, 3), (50, 21, 10, 0), (31, 30, 4, 1)],
)
def test_weights_sum_to_one_and_halos_weigh_nothing(n, size, halo, overlap) -> None:
    grid = Grid(x=range(n))
    tiling = Tiling(grid, {"x": size}, {"x": halo}, {"x": overlap})
    ones = torch.ones(len(tiling), size, dtype=torch.float64)
    assert_close(tiling.blend(ones), torch.ones(n, dtype=torch.float64), rtol=1e-14, atol=1e-14)
    for tile in tiling:
        (start,) = tile.start
        assert (tile.weights >= 0).all()
        if start > 0:
            assert (tile.weights[:halo] == 0).all()
        if start + size < n:
            assert (tile.weights[size - halo :] == 0).all()


@pytest.mark.parametrize(("size", "tiles"), [(64, 1), (38, 4), (25, 16)])
def test_a_map_does_not_depend_on_the_tiles_within_the_halo(size: int, tiles: int) -> None:
    grid = Grid(y=range(64), x=range(64))
    x = _field(64 * 64)
    tiling = Tiling(grid, {"y": size, "x": size}, {"y": 3, "x": 3})
    assert len(tiling) == tiles
    whole = _blur(x.reshape(1, 1, 64, 64)).flatten()
    assert_close(_by_tiles(grid, tiling, x), whole, rtol=1e-12, atol=1e-12)


def test_a_halo_that_is_too_small_shows() -> None:
    grid = Grid(y=range(64), x=range(64))
    x = _field(64 * 64)
    whole = _blur(x.reshape(1, 1, 64, 64)).flatten()
    short = Tiling(grid, {"y": 25, "x": 25}, {"y": 1, "x": 1})
    assert (_by_tiles(grid, short, x) - whole).abs().max() > 1e-3


def test_tiles_fade_smoothly() -> None:
    grid = Grid(x=range(100))
    tiling = Tiling(grid, {"x": 40}, {"x": 5}, {"x": 20})
    first = tiling[0].weights
    assert first.diff().abs().max() < 0.1
    assert (first.diff() <= 1e-15).all()


def test_land_is_cut_as_zero_and_left_out_of_the_whole() -> None:
    mask = torch.rand(12, 13, generator=torch.Generator().manual_seed(0)) < 0.7
    grid = Grid(y=range(12), x=range(13), mask=mask)
    x = _field(2, len(grid))
    tiling = Tiling(grid, {"y": 6, "x": 7}, {"y": 1, "x": 1})
    parts = torch.stack([tiling.cut(x, tile) for tile in tiling])
    assert_close(tiling.blend(parts), x)
    assert tiling.cut(torch.ones(len(grid), dtype=torch.bool), tiling[0]).dtype == torch.bool
    full = torch.where(mask, grid.unflatten(x), 0.0)
    assert torch.equal(parts[0].reshape(2, 6, 7), full[:, :6, :7])


def test_windows_of_time_are_tiles_too() -> None:
    """A stride of one day: each day comes from the window about it, as in mapping."""
    grid = Grid(time=range(9), x=range(4))
    tiling = Tiling(grid, {"time": 5}, {"time": 2}, {"time": 0})
    assert [t.start for t in tiling] == [(i, 0) for i in range(5)]
    days = torch.arange(5.0).double()[:, None, None].expand(5, 1, 20)
    found = grid.unflatten(tiling.blend(days)[0])[:, 0]
    assert found.tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4]


def test_the_grid_of_a_patch_is_that_of_its_nodes() -> None:
    grid = Grid(lat=torch.linspace(30, 40, 11), lon=torch.linspace(0, 20, 21))
    tiling = Tiling(grid, {"lat": 5, "lon": 6}, {"lat": 1})
    tile = tiling[len(tiling) - 1]
    patch = tiling.patch(tile)
    assert (patch.metric, patch.shape) == ("sphere", (5, 6))
    assert torch.equal(patch.points.coords, grid.points.coords[tile.nodes])
    assert math.prod(patch.shape) == len(tile.nodes)


def test_a_drawn_field_that_is_cut_has_no_seams() -> None:
    """Draws cut from a whole field blend to that field; draws of each tile do not."""
    grid = Grid(y=range(30), x=range(30))
    tiling = Tiling(grid, {"y": 12, "x": 12}, {"y": 2, "x": 2})
    smooth = _field(30, 1).cumsum(0) + _field(1, 30, seed=2).cumsum(1)
    parts = torch.stack([tiling.cut(smooth.flatten(), tile) for tile in tiling])
    assert_close(tiling.blend(parts), smooth.flatten(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "halo", "said"),
    [
        ({"z": 3}, {}, "expected sizes of axes"),
        ({"x": 40}, {}, "expected at most the 30 nodes"),
        ({"x": 6}, {"x": 2}, "more than halos and overlap, 6, got 6"),
    ],
)
def test_tilings_refuse(size, halo, said) -> None:
    with pytest.raises(ValueError, match=said):
        Tiling(Grid(y=range(30), x=range(30)), size, halo)
