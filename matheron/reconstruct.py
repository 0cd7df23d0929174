r"""The automatic choice of a solver: the only module that knows them all."""

from __future__ import annotations

__all__ = ["automatic", "reconstruct"]

import warnings
import xarray as xr

from jaxtyping import Float
from torch import Generator, Tensor

from .observations import LinearObservation
from .priors.base import GaussianPrior, KernelPrior
from .priors.expansion import ExpansionPrior
from .priors.markov import MarkovPrior
from .solvers.base import Solver
from .solvers.expansion_gradient import ExpansionGradient
from .solvers.kriging import Kriging
from .solvers.sparse_cholesky import SparseCholesky
from .solvers.vecchia import Vecchia


def automatic(prior: GaussianPrior, observation: LinearObservation) -> tuple[Solver, str]:
    r"""Returns the solver for a problem, and why.

    Kriging is exact, and quick up to a few thousand data and nodes; beyond, Vecchia. A Markov
    prior is conditioned exactly by its sparse factor, whatever the number of data.

    Example:
        >>> import matheron as mt
        >>> prior = mt.GaussianProcess(mt.Matern(1.5), mt.Grid(x=[0.0, 1.0]))
        >>> seen = mt.PointObservation(prior.domain, mt.Points(x=[0.5]), noise_std=0.1)
        >>> automatic(prior, seen)[1]
        'Kriging: exact, as 1 data and 2 nodes are few'
    """
    m, n = len(observation.points), len(prior.domain)
    if isinstance(prior, ExpansionPrior) and m + n > 6000:
        return ExpansionGradient(), f"ExpansionGradient: by its basis, as {m} data are many"
    if isinstance(prior, ExpansionPrior):
        return Kriging(), f"Kriging: exact, as {m} data and {n} nodes are few"
    if isinstance(prior, MarkovPrior):
        return SparseCholesky(), f"SparseCholesky: exact, as {type(prior).__name__} is sparse"
    if m <= 3000 and m + n <= 6000:
        return Kriging(), f"Kriging: exact, as {m} data and {n} nodes are few"
    if isinstance(prior, KernelPrior):
        near = 120 if m + n <= 50_000 else 60  # twice as many where it is quick all the same
        return Vecchia(30, near), f"Vecchia: near neighbours, as {m} data and {n} nodes are many"
    return Kriging(), f"Kriging: the only solver for {type(prior).__name__}"


def reconstruct(
    prior: GaussianPrior,
    observation: LinearObservation,
    y: Float[Tensor, " m"],
    size: int = 0,
    generator: Generator | None = None,
) -> xr.Dataset:
    r"""Returns the map of a field: ``mean``, ``std`` and, if ``size > 0``, ``member``.

    The solver is chosen for you, and said in the attribute ``solver`` of the dataset.

    Arguments:
        prior: The prior.
        observation: The observation.
        y: The data; NaN are left out, with a warning.
        size: The number of members.
        generator: The random number generator of the members.

    Example:
        >>> import matheron as mt
        >>> import torch
        >>> prior = mt.GaussianProcess(mt.Matern(1.5), mt.Grid(x=[0.0, 1.0]))
        >>> seen = mt.PointObservation(prior.domain, mt.Points(x=[0.5]), noise_std=0.1)
        >>> ds = mt.reconstruct(prior, seen, torch.tensor([1.0], dtype=torch.float64))
        >>> ds["mean"].dims, ds.attrs["solver"]
        (('x',), 'Kriging: exact, as 1 data and 2 nodes are few')
    """
    missing = y.isnan()
    if missing.any() and observation.size == len(observation.points):
        warnings.warn(
            f"reconstruct(y=...): left out {int(missing.sum())} NaN of {len(y)} data", stacklevel=2
        )
        observation, y = observation.take(~missing), y[~missing]
    solver, why = automatic(prior, observation)
    dataset = solver(prior, observation)(y).to_xarray(size, generator)
    dataset.attrs["solver"] = why
    return dataset
