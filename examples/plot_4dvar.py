r"""4DVar: the trajectory of a model that passes nearest to the data.

Only the first component of Lorenz 63 is seen, every .08, with noise of variance 2. The model does
the rest: strong-constraint 4DVar takes it as perfect; weak-constraint 4DVar lets it err a little.
Bands are two standard deviations, from the curvature of the cost at its minimum.
"""

import torch

from pathlib import Path

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.plots.phase import time_series

generator = torch.Generator().manual_seed(1)
model, steps, times = Lorenz63(), 4, 80
grid = mt.Grid(time=0.04 * torch.arange(float(times)), x=torch.arange(3.0))

# the climate, from a long run, is the law of the first state
run = model.trajectory(model(model.initial(generator), 1000), 20_000, every=10)
climate = run.mean(dim=0), torch.cov(run.mT)
truth = model.trajectory(run[-1], steps * (times - 1), every=steps)

mask = torch.zeros(times, 3, dtype=torch.bool)
mask[::2, 0] = True
observation = mt.GriddedObservation(grid, mask.flatten(), noise_std=2**0.5)
y = observation.sample(truth.flatten(), generator)

errors = torch.full((3,), 0.01, dtype=torch.float64)
priors = {
    "strong constraint": mt.StrongConstraint(grid, model, steps, climate),
    "weak constraint": mt.WeakConstraint(grid, model, steps, climate, errors),
}
ensembles = {}
for name, prior in priors.items():
    posterior = mt.Variational("smoother")(prior, observation)(y)
    ensembles[name] = posterior.sample(40, generator).unflatten(-1, (times, 3))
    error = (posterior.mean - truth.flatten()).square().mean().sqrt()
    print(f"{name}: root mean square error {error:.2f}, of a climate of 8")

data = y.reshape(times, 3)
figure = time_series(grid.axes["time"], truth, ensembles, data, mask)
figure.savefig(Path(__file__).with_suffix(".png").name, dpi=110)
