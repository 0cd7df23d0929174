"""Fields beside the data: the cost does not know of them, and solvers may."""

import pytest
import torch

import matheron as mt

from matheron.nets import BilinearAutoencoder, UNet
from matheron.observations import Informed
from matheron.priors.projection import Projection
from matheron.solvers import Tiled
from matheron.solvers.neural import DirectInversion, FixedPoint, NeuralVariational, RecurrentStep

GRID = mt.Grid(time=range(3), y=torch.arange(9.0), x=torch.arange(10.0))
N = len(GRID)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def field(seed, *batch):
    return torch.randn(*batch, N, dtype=torch.float64, generator=dice(seed))


@pytest.fixture(scope="module")
def seen():
    mask = torch.rand(N, generator=dice()) < 0.3
    return mt.GriddedObservation(GRID, mask, noise_std=0.2)


def prior():
    phi = BilinearAutoencoder(3, 4, generator=dice(1))
    return Projection(GRID, phi, std=0.5, scale=2.0).requires_grad_(False)


def test_the_cost_is_that_of_the_data_alone(seen):
    both = Informed(seen, 2)
    x, data, others = field(1, 4), field(2, 4), field(3, 4, 2)
    y = torch.cat([data, others.flatten(-2)], dim=-1)
    torch.testing.assert_close(both.cost(x, y), seen.cost(x, data))
    torch.testing.assert_close(both.gradient(x, y), seen.gradient(x, data))
    assert torch.equal(both.data(y), data)
    assert torch.equal(both.others(y), others)
    at_points = mt.PointObservation(GRID, GRID.points[:7], noise_std=1.0)
    few = Informed(at_points)
    z = torch.cat([data[:, :7], others[:, 0]], dim=-1)
    torch.testing.assert_close(few.cost(x, z), at_points.cost(x, data[:, :7]))


def test_what_cannot_be_is_refused(seen):
    with pytest.raises(ValueError, match="one field or more"):
        Informed(seen, 0)
    with pytest.raises(ValueError, match="2 fields of 270 nodes"):
        Informed(seen, 2).cost(field(1), field(2).repeat(2))
    with pytest.raises(TypeError, match="tells all of"):
        Informed(seen).sample(field(1))
    with pytest.raises(ValueError, match="a first guess beside"):
        FixedPoint(2, first="guess")(prior(), seen)
    with pytest.raises(ValueError, match="10 channels"):
        DirectInversion(UNet(7, 3, 4), mean=0.0, scale=1.0)(prior(), Informed(seen))


SOLVERS = {
    "direct": lambda: DirectInversion(
        UNet(10, 3, 4, generator=dice(2)), rest=0.1, first="guess", mean=0.0, scale=2.0
    ),
    "variational": lambda: NeuralVariational(
        RecurrentStep(3, 4, generator=dice(3)), steps=3, first="guess"
    ),
    "fixed point": lambda: FixedPoint(3, first="guess"),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_start_from_the_guess(name, seen):
    conditional = SOLVERS[name]().prepare(prior(), Informed(seen))
    data, guess = field(2, 2), field(3, 2)
    y = torch.cat([data, guess], dim=-1)
    path = conditional.trajectory(y)
    torch.testing.assert_close(path[0], guess, rtol=0, atol=1e-6)
    # members of a batch do not know each other
    alone = torch.stack([conditional.estimate(row) for row in y])
    torch.testing.assert_close(conditional.estimate(y), alone, rtol=0, atol=1e-5)
    # another guess, another estimate
    other = conditional.estimate(torch.cat([data, field(4, 2)], dim=-1))
    assert (other - conditional.estimate(y)).abs().max() > 1e-3


def test_a_network_without_weight_leaves_the_guess(seen):
    solver = SOLVERS["direct"]()
    for p in solver.network.leave.parameters():
        torch.nn.init.zeros_(p)
    guess = field(3)
    found = solver(prior(), Informed(seen))(torch.cat([field(2), guess]))
    torch.testing.assert_close(found.mean, guess, rtol=0, atol=1e-6)


def test_data_count_by_their_precision_beside_the_rest(seen):
    """A direct network is told the data less the guess, times r^2 / (r^2 + sigma^2)."""
    heard = []

    class Ear(torch.nn.Module):
        def forward(self, a):
            heard.append(a)
            return a[:, :3]

    solver = DirectInversion(Ear(), rest=0.1, first="guess", mean=0.5, scale=2.0)
    solver = solver.to(torch.float64)
    data, guess = field(2), field(3)
    x = solver(prior(), Informed(seen))(torch.cat([data, guess])).mean
    told = heard[0][0]
    r, weight = 0.2, 0.2**2 / (0.2**2 + 0.2**2)  # the rest in units of the field, and the noise
    expected = torch.where(seen.mask, weight * (data - guess) / r, 0.0)
    torch.testing.assert_close(told[:3].flatten().double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        told[3:6].flatten().double(), weight * seen.mask.double(), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        told[7:].flatten().double(), (guess - 0.5) / 2, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(x, guess + r * expected, rtol=1e-5, atol=1e-6)


def test_tiles_cut_the_guess_too(seen):
    solver = SOLVERS["fixed point"]()
    y = torch.cat([field(2), field(3)])
    whole = solver(prior(), Informed(seen))(y).mean
    tile = mt.Grid(time=range(3), y=torch.arange(9.0), x=torch.arange(8.0))
    phi = BilinearAutoencoder(3, 4, generator=dice(1))
    small = Projection(tile, phi, std=0.5, scale=2.0).requires_grad_(False)
    # three steps of a projection that looks a few nodes away: the halo is all that is seen
    cut = Tiled(solver, small, halo={"x": 2})(prior(), Informed(seen))(y).mean
    middle = torch.zeros(GRID.shape, dtype=torch.bool)
    middle[..., :1] = True  # what is furthest from the border of a tile that is none of the grid
    apart = (cut - whole).abs().reshape(GRID.shape)
    assert apart[middle].max() < 0.05 * whole.std()
    assert apart.max() > 0
