"""Maps and draws by tiles: the same as of the whole, within the halo."""

import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.data import Tiling
from matheron.nets import UNet, coarsest
from matheron.posterior import Estimator
from matheron.priors.base import Prior
from matheron.solvers.base import Solver
from matheron.solvers.neural import DirectInversion
from matheron.solvers.tiled import Tiled

REACH = 3


class _BlurConditional(Estimator):
    def estimate(self, y):
        mask, shape = self.observation.mask, self.prior.domain.shape
        weight = mask / self.observation.error.variance

        def blur(x):
            x = x.reshape(-1, 1, *shape)
            return torch.nn.functional.avg_pool2d(x, 2 * REACH + 1, 1, REACH).flatten(1)

        found = blur(weight * y) / (1 + blur(weight))
        return found.reshape(y.shape)


class _Blur(Solver):
    """A local average of the data: a node looks three nodes away."""

    requires = Prior

    def prepare(self, prior, observation):
        return _BlurConditional(prior, observation)


def _grid(n: int, mask: torch.Tensor | None = None) -> mt.Grid:
    return mt.Grid(y=range(n), x=range(n), mask=mask)


def _law(grid: mt.Grid) -> mt.GaussianProcess:
    return mt.GaussianProcess(mt.Matern(1.5, lengthscale=4.0), grid)


def _problem(grid: mt.Grid, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(len(grid), generator=g) < 0.3
    noise = 0.1 + torch.rand(len(grid), dtype=torch.float64, generator=g)
    return mt.GriddedObservation(grid, mask, noise), torch.randn(
        len(grid), dtype=torch.float64, generator=g
    )


@pytest.mark.parametrize(("size", "tiles"), [(32, 1), (21, 4), (15, 16)])
def test_maps_and_draws_do_not_depend_on_the_tiles(size: int, tiles: int) -> None:
    grid = _grid(32)
    observation, y = _problem(grid)
    halo = {"y": REACH, "x": REACH}
    solver = Tiled(_Blur(), _law(_grid(size)), halo)
    law = _law(grid)
    whole = _Blur()(law, observation)(y)
    found = solver(law, observation)(y)
    assert len(found.conditional.tiling) == tiles
    assert_close(found.mean, whole.mean, rtol=1e-12, atol=1e-12)
    # the same draws of the whole field, cut: no seams
    draws = [p.sample(3, torch.Generator().manual_seed(1)) for p in (found, whole)]
    assert_close(draws[0], draws[1], rtol=1e-9, atol=1e-9)


def test_land_and_tiles_without_data() -> None:
    mask = torch.ones(32, 32, dtype=torch.bool)
    mask[:10, :10] = False
    grid = _grid(32, mask)
    observation, y = _problem(grid)
    seen = observation.mask & (grid.points.axis("x") > 20)
    observation = mt.GriddedObservation(grid, seen, 0.1)
    y = torch.where(seen, y, torch.nan)  # what stands under gaps is never read
    found = Tiled(_Blur(), _law(_grid(15)), {"y": REACH, "x": REACH})(_law(grid), observation)(y)
    assert found.mean.isfinite().all()
    far = grid.points.axis("x") < 20 - REACH
    assert found.mean[far].abs().max() < 1e-12
    assert found.mean[~far].abs().max() > 0.1


def test_gradients_reach_the_solver_of_patches() -> None:
    grid = _grid(20)
    observation, y = _problem(grid)
    y = y.requires_grad_()
    tiled = Tiled(_Blur(), _law(_grid(12)), {"y": REACH, "x": REACH}, {"y": 1, "x": 1})
    tiled(_law(grid), observation).estimate(y).sum().backward()
    assert (y.grad[observation.mask] != 0).all()
    assert (y.grad[~observation.mask] == 0).all()


def test_tiled_refuses() -> None:
    grid = _grid(20)
    observation, _ = _problem(grid)
    land = torch.ones(12, 12, dtype=torch.bool)
    land[0] = False
    with pytest.raises(ValueError, match="expected a prior on a grid without land"):
        Tiled(_Blur(), _law(_grid(12, land)))
    points = mt.PointObservation(grid, mt.Points(y=[1.0], x=[2.0]), 0.1)
    with pytest.raises(TypeError, match="expected a GriddedObservation on a grid"):
        Tiled(_Blur(), _law(_grid(12)))(_law(grid), points)
    with pytest.raises(ValueError, match="expected at most the 20 nodes"):
        Tiled(_Blur(), _law(_grid(30)))(_law(grid), observation)


def test_patches_that_leave_a_part_of_a_cell_are_refused() -> None:
    grid = _grid(20)
    observation, _ = _problem(grid)
    tiled = Tiled(_Blur(), _law(_grid(11)), {"y": 1, "x": 1}, cell={"y": 2, "x": 2})
    with pytest.raises(ValueError, match=r"leaves whole cells of the 20 nodes.* Take 12\."):
        tiled(_law(grid), observation)


@pytest.mark.parametrize(("cell", "same"), [(2, True), (1, False)])
def test_networks_with_coarse_scales_do_not_see_the_tiles(cell: int, same: bool) -> None:
    """Patches that start at whole coarse cells average the nodes that the whole does."""
    grid, halo = _grid(45), {"y": 14, "x": 14}
    observation, y = _problem(grid)
    net = UNet(3, 1, width=4, levels=2, generator=torch.Generator().manual_seed(2))
    assert coarsest(net) == 2
    solver = DirectInversion(net, mean=0.0, scale=1.0, dtype=torch.float64)
    size = Tiling.fitting(45, 33, 2) if same else 34
    both = {"y": cell, "x": cell}
    tiled = Tiled(solver, _law(_grid(size)), halo, {"y": 1, "x": 1}, both)
    whole, found = solver(_law(grid), observation)(y), tiled(_law(grid), observation)(y)
    assert len(found.conditional.tiling) > 1
    apart = (found.mean - whole.mean).abs().max() / whole.mean.std()
    assert (apart < 1e-12) == same, apart
