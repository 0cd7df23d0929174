r"""Optimal interpolation and 3DVar: one answer, by two roads.

A cold eddy is seen along three tracks. Optimal interpolation (kriging) solves for the weights of
the data; 3DVar descends a cost. With one covariance and one noise they are the same map.
"""

import torch

from pathlib import Path

import matheron as mt

from matheron.plots import fields

generator = torch.Generator().manual_seed(0)
grid = mt.Grid(y=torch.linspace(0.0, 4.0, 33), x=torch.linspace(0.0, 6.0, 49))

# the prior: anomalies of .2 m over 80 km, here in units of 100 km
prior = mt.GaussianProcess(mt.Matern(1.5, variance=0.04, lengthscale=0.8), grid)
truth = prior.sample(1, generator)[0]

# the nodes near three tracks, with noise of 3 cm
mask = torch.zeros(grid.shape, dtype=torch.bool)
for start in (4, 18, 33):
    mask[torch.arange(33), start + torch.arange(33) // 3] = True
observation = mt.GriddedObservation(grid, mask.flatten(), noise_std=0.03)
y = observation.sample(truth, generator)

oi = mt.Kriging()(prior, observation)(y)
variational = mt.Variational()(prior, observation)(y)

apart = (oi.mean - variational.mean).abs().max().item()
print(f"largest difference of the two maps: {apart:.1e} m, of a field of .2 m")
print(f"3DVar took {variational.info['iterations']} steps")

panels = {"truth": truth, "optimal interpolation": oi.mean, "3DVar": variational.mean}
panels["a member of the posterior"] = variational.sample(1, generator)[0]
figure = fields(grid, panels, units="m", columns=2)
figure.savefig(Path(__file__).with_suffix(".png").name, dpi=110)
