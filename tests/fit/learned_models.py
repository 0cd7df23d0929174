"""A small Gaussian problem, and solvers of a few lines that learn."""

import torch
import torch.nn as nn

import matheron as mt

from matheron.described import Described
from matheron.fit.simulations import Simulations
from matheron.posterior import Conditional
from matheron.priors.base import Energy, Prior
from matheron.solvers.base import Solver
from matheron.solvers.neural import LearnedConditional


class GainConditional(LearnedConditional):
    def __init__(self, solver, prior, observation):
        Conditional.__init__(self, prior, observation)
        self.solver = solver

    def iterates(self, y):
        seen = torch.where(self.observation.mask, y, 0.0)
        best = self.solver.dropout(seen) @ self.solver.gain.mT + self.prior.level
        yield from (torch.zeros_like(best), best / 2, best)


class Gain(Described, Solver):
    """x = K y: with gaps that stay, the best K is that of kriging."""

    requires = Prior

    def __init__(self, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.gain = nn.Parameter(torch.zeros(size, size, dtype=torch.float64))

    def prepare(self, prior, observation):
        return GainConditional(self, prior, observation)


class Level(Energy):
    """A prior with one parameter, and a cost."""

    def __init__(self, domain, width: float = 1.0) -> None:
        super().__init__()
        self.domain, self.width = domain, width
        self.level = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def cost(self, x):
        return (x - self.level).square().sum(dim=-1) / (2 * self.width**2)


def problem(noise=0.3, count=48):
    """A grid, a law, and windows that are seen at the same nodes."""
    grid = mt.Grid(time=[0.0, 1.0], x=[0.0, 1.0, 2.0])
    law = mt.GaussianProcess(mt.Matern(1.5, lengthscale=(2.0, 2.0)), grid)
    mask = torch.tensor([True, False, True, False, True, False])
    fields = law.sample(count, torch.Generator().manual_seed(1))
    return law, mask, Simulations(grid, fields, mask, noise)
