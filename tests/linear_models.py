"""Linear models of time, and the Gaussian laws of their trajectories: problems with an answer."""

from __future__ import annotations

import torch

from matheron import Grid
from matheron.dynamics import Dynamics
from matheron.priors.base import GaussianPrior


class Linear(Dynamics):
    """x -> A x."""

    def __init__(self, A):
        super().__init__()
        self.register_buffer("A", A)
        self.dt, self.shape = 1.0, (len(A),)

    def advance(self, state):
        return state @ self.A.mT


class Implied(GaussianPrior):
    """The Gaussian law of the trajectories of a linear model, on the nodes of its grid."""

    def __init__(self, prior):
        super().__init__()
        self.domain = prior.domain
        eye = torch.eye(prior.control_size, dtype=torch.float64)
        self.mu = prior.decode(0 * eye[0])
        D = prior.decode(eye) - self.mu
        self.B = D.mT @ D

    def _weights(self, points):
        nodes, weights = self.domain.interpolation(points)
        rows = torch.arange(len(points))[:, None].expand_as(nodes)
        W = torch.zeros(len(points), len(self.domain), dtype=torch.float64)
        return W.index_put((rows, nodes), weights, accumulate=True)

    def mean(self, points):
        return self._weights(points) @ self.mu

    def covariance(self, a, b):
        return self._weights(a) @ self.B @ self._weights(b).mT


def normal(*size, seed=0):
    """Returns white noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator)


def positive(s, seed, least=0.3):
    """Returns a covariance."""
    root = normal(s, s, seed=seed)
    return root @ root.mT / s + least * torch.eye(s, dtype=torch.float64)


def grid_of(times, s):
    """Returns the grid of trajectories of states of a size."""
    return Grid(time=torch.arange(float(times)), x=torch.arange(float(s)))
