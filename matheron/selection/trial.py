r"""The trial of a candidate: fitted on a sample, judged on blocks that are held out."""

from __future__ import annotations

__all__ = ["SAMPLE", "Trial", "judge", "noise_like", "sampled", "trial_of", "worse"]

import torch

from dataclasses import dataclass
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from .choice import instruments
from .structures import extents
from ..domain import Grid, Points
from ..fit import predict
from ..metrics.scores import crps_gaussian
from ..observations import LinearObservation, Stack
from ..priors import GaussianProcess
from ..solvers.kriging import Kriging
from ..solvers.vecchia import Vecchia

SAMPLE = 8_000
"""The number of data on which candidates are fitted."""
PROBES = 1_500
"""The number of held-out data at which candidates are judged."""


def clusters(
    near: Float[Tensor, "m k"], size: int, generator: torch.Generator
) -> Int[Tensor, " size"]:
    r"""Returns a sample that keeps both short and long distances: patches of neighbours."""
    if len(near) <= size:
        return torch.arange(len(near))
    patch = 200
    centers = near[torch.randperm(len(near), generator=generator)[: size // patch]]
    _, index = cKDTree(near.numpy()).query(centers.numpy(), k=patch)
    return torch.as_tensor(index.ravel()).unique()


@dataclass
class Trial:
    r"""All the data, the blocks that are held out in turn, and the sample to fit on."""

    points: Points
    y: Float[Tensor, " m"]
    observation: LinearObservation
    block: Int[Tensor, " m"]
    folds: list[tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]]
    sample: Int[Tensor, " k"]


def trial_of(
    domain: Grid | Points,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    generator: torch.Generator,
) -> Trial:
    points = observation.points
    x = points.local()
    block = _blocks(points, x, _gap(domain, points))
    folds = []
    for held in _held_out(observation, block, generator):
        index = torch.nonzero(held)[:, 0]
        probe = torch.zeros_like(held)
        probe[index[torch.randperm(len(index), generator=generator)[:PROBES]]] = True
        folds.append((~held, probe))
    return Trial(points, y, observation, block, folds, clusters(x, SAMPLE, generator))


def _held_out(
    observation: LinearObservation, block: Int[Tensor, " m"], generator: torch.Generator
) -> list[Bool[Tensor, " m"]]:
    r"""Returns what to hold out in turn: instruments where there are several, else blocks."""
    m = len(block)
    if isinstance(observation, Stack):
        label = torch.repeat_interleave(
            torch.arange(len(observation.parts)),
            torch.tensor([len(p.points) for p in observation.parts]),
        )
        return [label == k for k in range(len(observation.parts))]
    count = int(block.max()) + 1
    turns = 5 if m <= 3_000 else (3 if m <= 20_000 else 1)
    order = torch.randperm(count, generator=generator)
    fold = (torch.arange(count) % max(min(5, count), 2))[order]
    held = [fold[block] == k for k in range(turns)]
    held = [h for h in held if h.any() and not h.all()]
    return held or [torch.arange(m) % 2 == 1]  # one block only: every other datum


def _blocks(points: Points, x: Float[Tensor, "m k"], side: float) -> Int[Tensor, " m"]:
    r"""Returns the block of each datum: a square in space, and a quarter of the time."""
    time, spans = extents(points)
    start = 1 if time > 0 and spans else 0
    block = (x[:, start:] / side).floor()
    if start:
        block = torch.cat([(x[:, :1] / (time / 4)).floor(), block], dim=1)
    return torch.unique(block, dim=0, return_inverse=True)[1]


def _gap(domain: Grid | Points, points: Points) -> float:
    r"""Returns the side of a block in whose middle half the targets are from the data."""
    nodes = domain.points
    pick = torch.linspace(0, len(nodes) - 1, min(len(nodes), 5000)).long()
    distance = nodes[pick].nearest_distance(points)
    far = distance[distance > 0]
    spacing = points.nearest_distance(nodes[pick]).median().item() if len(far) == 0 else 0.0
    reach = far.quantile(0.75).item() if len(far) else spacing
    _, spans = extents(points)
    widest = max(spans or [1.0])
    return min(max(4 * reach, widest / 50), widest / 4)


def judge(
    trial: Trial, prior: GaussianProcess, observation: LinearObservation
) -> tuple[Tensor, Tensor]:
    r"""Returns the CRPS of every probe, and the block of each."""
    full = noise_like(trial.observation, observation)
    scores, labels = [], []
    for kept, probe in trial.folds:
        solver = Kriging() if int(kept.sum()) <= 1500 else Vecchia(20, 30)
        mean, std = predict(prior, full, trial.y, kept, probe, solver)
        # each datum by itself: a batch of means over one value
        scores.append(crps_gaussian(mean[:, None], std[:, None], trial.y[probe][:, None]))
        labels.append(trial.block[probe])
    return torch.cat(scores), torch.cat(labels)


def worse(a: Tensor, b: Tensor, block: Int[Tensor, " k"]) -> float:
    r"""Returns by how many standard errors the scores ``a`` are worse than ``b``.

    Errors within a block are alike: the blocks, not the data, are counted.
    """
    _, label = block.unique(return_inverse=True)
    count = int(label.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add(0, label, a - b)
    size = torch.zeros(count, dtype=torch.float64).index_add(0, label, torch.ones_like(a))
    mean = (a - b).mean()
    error = ((total - mean * size).square().sum() * count / max(count - 1, 1)).sqrt() / len(a)
    return (mean / error.clamp(min=1e-300)).item()


def noise_like(full: LinearObservation, fitted: LinearObservation) -> LinearObservation:
    r"""Gives the observation of all the data the noise that was fitted on a sample."""
    full.load_state_dict(
        {k: v for k, v in fitted.state_dict().items() if k.endswith("log_scale")}, strict=False
    )
    return full


def sampled(
    trial: Trial, noise: bool, groups: Int[Tensor, " m"] | None
) -> tuple[LinearObservation, Float[Tensor, " k"]]:
    i = trial.sample.sort().values
    std = trial.observation.noise_variance.detach().sqrt()[i] if noise else None
    return instruments(
        trial.points[i], trial.points[i], trial.y[i], std, None if groups is None else groups[i]
    )
