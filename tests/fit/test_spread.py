"""The spread from gaps: brute force, and what it learns."""

import pytest
import torch

from torch.testing import assert_close

import matheron as mt

from matheron.data.batches import Batch
from matheron.fit.losses import Outcome, crps
from matheron.fit.spread import GapSpread, _density
from tests.fit.learned_models import Level


def test_densities_are_those_of_boxes() -> None:
    mask = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    found = _density(mask, 2)
    for b in range(2):
        for t in range(3):
            for i in range(6):
                for j in range(7):
                    box = mask[b, max(0, t - 2) : t + 3, max(0, i - 2) : i + 3]
                    box = box[..., max(0, j - 2) : j + 3]
                    assert_close(found[b, t, i, j], box.double().mean())


def test_the_spread_learns_the_errors_in_the_gaps() -> None:
    """Errors of 0.2 in the half that is seen, of 1 in the other: a score finds both."""
    grid, g = mt.Grid(time=[0.0], x=range(60)), torch.Generator().manual_seed(0)
    mask = (torch.arange(60) < 30).expand(400, 60)
    e = torch.randn(400, 60, dtype=torch.float64, generator=g) * torch.where(mask, 0.2, 1.0)
    zero, weights = torch.zeros_like(e), torch.ones_like(e)
    weights[:, 28:32] = 0.0  # where a box sees both halves
    batch = Batch(grid, zero, mask, torch.tensor(0.1).double(), weights, truth=e)
    observation = mt.GriddedObservation(grid, mask, 0.1)
    outcome = Outcome(batch, Level(grid), observation, zero, zero)
    spread = GapSpread(0.5, widths=(1,))
    rule = crps(spread)
    optimiser = torch.optim.LBFGS(spread.parameters(), max_iter=100)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = rule(outcome).mean()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        found = spread(outcome)[0]
    # a standard deviation of m numbers is known to sigma / sqrt(2 m), 1.3 times less by the CRPS
    error = 5 * 1.3 / (2 * 400 * 28) ** 0.5
    assert found[10].item() == pytest.approx(0.2, rel=error)
    assert found[50].item() == pytest.approx(1.0, rel=error)


def test_spreads_refuse() -> None:
    for wrong in ({"std": 0.0}, {"widths": (0,)}, {"widths": ()}):
        with pytest.raises(ValueError, match="expected a positive number and positive widths"):
            GapSpread(**wrong)
