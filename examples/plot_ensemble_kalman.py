r"""Ensemble Kalman filter and smoother: uncertainty that moves with the flow.

Lorenz 96, 40 places on a latitude circle, half of them seen every 6 hours with noise of variance
1. The ensemble needs no adjoint: members follow the model, and their covariance spreads what the
data say to the places and, in the smoother, to the times without data.
"""

import torch

from pathlib import Path

import matheron as mt

from matheron.dynamics import Lorenz96
from matheron.plots import fields

generator = torch.Generator().manual_seed(2)
model, times = Lorenz96(40), 80
grid = mt.Grid(time=torch.arange(float(times)), x=torch.arange(40.0))

run = model.trajectory(model(model.initial(generator), 500), 4000, every=4)
climate = run.mean(dim=0), torch.cov(run.mT)
truth = model.trajectory(run[-1], times - 1).flatten()

mask = torch.zeros(times, 40, dtype=torch.bool)
mask[:, ::2] = True
observation = mt.GriddedObservation(grid, mask.flatten(), noise_std=1.0)
y = observation.sample(truth, generator)
prior = mt.StrongConstraint(grid, model, 1, climate)

panels = {"truth": truth}
for name, lag in {"filter": 0, "smoother": 10}.items():
    solver = mt.EnsembleKalman(60, inflation=1.05, rotation=True, lag=lag)
    posterior = solver(prior, observation)(y)
    settled = slice(40 * 20, None)  # the first days are those of finding the track
    error = (posterior.mean - truth)[settled].square().mean().sqrt()
    spread = posterior.std()[settled].square().mean().sqrt()
    print(f"{name}: error {error:.2f}, spread {spread:.2f}, of a climate of 3.6")
    panels[f"mean of the {name}"] = posterior.mean
panels["std of the smoother, tenfold"] = 10 * posterior.std()

labelled = mt.Grid(y=grid.axes["time"], x=grid.axes["x"])  # time upwards, place across
figure = fields(labelled, panels, columns=2)
figure.savefig(Path(__file__).with_suffix(".png").name, dpi=110)
