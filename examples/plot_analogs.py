r"""Analogs: the past as a model.

No equations here: a catalogue of 100 units of time of Lorenz 63, and forecasts from what followed
the states most like the present one. They stand in the place of the model in an ensemble Kalman
smoother, with errors that cross-validation tells.
"""

import torch

from pathlib import Path

import matheron as mt

from matheron.dynamics import Lorenz63
from matheron.dynamics.analogs import Analogs
from matheron.plots.phase import phase_space
from matheron.priors import Markovian

generator = torch.Generator().manual_seed(3)
true, times = Lorenz63(), 150
path = true.trajectory(true(true.initial(generator), 1000), 10_000 + 4 * times)
catalogue, truth = path[:10_000], path[10_000 : 10_000 + 4 * times : 4]

grid = mt.Grid(time=0.04 * torch.arange(float(times)), x=torch.arange(3.0))
mask = torch.zeros(times, 3, dtype=torch.bool)
mask[::2, 0] = True  # x alone, every 8 steps
observation = mt.GriddedObservation(grid, mask.flatten(), noise_std=2**0.5)
y = observation.sample(truth.flatten(), generator)
climate = catalogue.mean(dim=0), torch.cov(catalogue.mT)

models = {"true model": (true, None)}
for kind in ("constant", "incremental", "linear"):
    analogs = Analogs(catalogue, k=40, kind=kind, dt=0.01)
    models[f"analogs, {kind}"] = (analogs, analogs.error_covariance(4, generator=generator))

ensembles = {}
for name, (model, errors) in models.items():
    prior = Markovian(grid, model, 4, climate, errors)
    posterior = mt.EnsembleKalman(40, lag=40)(prior, observation)(y)
    ensembles[name] = posterior.sample(20, generator).unflatten(-1, (times, 3))
    error = (posterior.mean - truth.flatten()).square().mean().sqrt()
    print(f"{name}: root mean square error {error:.2f}, of a climate of 8")

figure = phase_space(truth, ensembles)
figure.savefig(Path(__file__).with_suffix(".png").name, dpi=110)
