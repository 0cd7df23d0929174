r"""Learned dynamics: the equations of Lorenz, from a trajectory.

A bilinear network (a linear part, and products of linear parts) and a perceptron learn the law of
motion from 10 units of time. The first finds the equations to the last digit; the second knows
only where it has been.
"""

import torch

from pathlib import Path

from matheron.dynamics import Lorenz63
from matheron.dynamics.networks import BilinearNetwork, MLPDynamics
from matheron.fit.dynamics import learn_dynamics
from matheron.fit.forecasts import Training
from matheron.plots.phase import phase_space

generator = torch.Generator().manual_seed(4)
true = Lorenz63(dt=0.02)
path = true.trajectory(true(true.initial(generator), 1000), 500)
new = true(path[-1], 500)
truth = true.trajectory(new, 750)

models = {
    "bilinear network": BilinearNetwork(dt=0.02, generator=generator),
    "perceptron": MLPDynamics(3, (12, 12), dt=0.02, generator=generator),
}
runs = {}
for name, model in models.items():
    learn_dynamics(model, path, training=Training("gauss-newton", 30))
    with torch.no_grad():
        runs[name] = model.trajectory(new, 750)[None]
    gone = (runs[name][0] - truth).norm(dim=-1) > 5
    lasts = 0.02 * int(gone.int().argmax()) if gone.any() else 15.0
    print(f"{name}: within 5 of the truth for {lasts:.1f} units of time")

_, A, B = models["bilinear network"].coefficients()
print("linear part, true: -10 10 0 | 28 -1 0 | 0 0 -2.67")
print(A.detach().numpy().round(2))
print(f"products, true: -.5 and .5: {B[1, 0, 2].item():.3f} and {B[2, 0, 1].item():.3f}")

figure = phase_space(truth, runs)
figure.savefig(Path(__file__).with_suffix(".png").name, dpi=110)
