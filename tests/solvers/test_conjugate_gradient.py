"""Conjugate gradients against the dense normal equations, and what they say of their work."""

from __future__ import annotations

import math
import pytest
import torch
import torch.nn as nn

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.linalg.sparse import Sparse
from matheron.priors.markov import MarkovPrior
from matheron.priors.spde.lattice import Lattice
from matheron.priors.spde.mesh import Mesh
from matheron.priors.spde.whittle_matern import WhittleMatern
from matheron.solvers.conjugate_gradient import ConjugateGradient
from matheron.solvers.sparse_cholesky import SparseCholesky
from matheron.testing import check_calibration, check_solver, reference

DOUBLE = torch.float64


class Squared(MarkovPrior):
    """The field of (kappa^2 - Laplacian) x = w on a lattice a little wider than its domain."""

    def __init__(self, domain, lattice: Lattice, kappa: float = 1.0, trend=None) -> None:
        super().__init__()
        self.domain, self.lattice = domain, lattice
        self.log_kappa = nn.Parameter(torch.tensor(kappa, dtype=DOUBLE).log())
        self._set_trend(0.3, trend)

    def precision(self) -> Sparse:
        H, kappa2 = torch.eye(2, dtype=DOUBLE)[None], (2 * self.log_kappa).exp()
        K = self.lattice.stiffness(H) + Sparse.diag(kappa2 * self.lattice.volume)
        variance = 4 * math.pi * kappa2  # so that the variance is near one
        return K.product(K.scale(rows=1 / self.lattice.volume)) * (1 / variance)

    def embedding(self, points: mt.Points) -> Sparse:
        return self.lattice.interpolation(points)

    def places(self) -> Tensor:
        return self.lattice.places()


def uniform(size: int, low: float, high: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(size, dtype=DOUBLE, generator=generator)


def plane_grid() -> mt.Grid:
    y, x = torch.linspace(0, 3, 5, dtype=DOUBLE), torch.linspace(0, 4, 6, dtype=DOUBLE)
    return mt.Grid(y=y, x=x)


def prior(trend: str | None = None, kappa: float = 1.0) -> Squared:
    grid = plane_grid()
    return Squared(grid, Lattice(grid, extension=1.0), kappa, trend)


def sites(m: int = 14) -> mt.Points:
    return mt.Points(y=uniform(m, 0, 3, 1), x=uniform(m, 0, 4, 2))


def exact(**options) -> ConjugateGradient:
    """All the probes, and a tolerance near that of the machine."""
    return ConjugateGradient(tolerance=1e-13, probes=1000, lanczos=150, **options)


OBSERVATIONS = {
    "noisy": lambda grid: mt.PointObservation(grid, sites(), 0.3),
    "mixed": lambda grid: mt.PointObservation(grid, sites(), uniform(14, 0.1, 0.6, 5)),
    "biased": lambda grid: mt.PointObservation(grid, sites(), 0.3, bias_std=1.5),
    "gappy": lambda grid: mt.GriddedObservation(grid, uniform(30, 0, 1, 8) > 0.4, 0.2),
    "two": lambda grid: mt.Stack(
        mt.PointObservation(grid, sites(6), 0.1, bias_std=0.7),
        mt.PointObservation(grid, sites(9), 0.4),
    ),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_laws(name: str) -> None:
    field = prior()
    check_solver(exact(), field, OBSERVATIONS[name](field.domain), size=1500)


def test_laws_with_jacobi() -> None:
    field = prior()
    solver = exact(preconditioner="jacobi")
    check_solver(solver, field, OBSERVATIONS["noisy"](field.domain), size=1500)


@pytest.mark.parametrize("trend", ["1", "1 + x + y"])
def test_laws_of_a_trend(trend: str) -> None:
    field = prior(trend)
    check_solver(exact(), field, OBSERVATIONS["biased"](field.domain), size=1500)


def large() -> tuple[Squared, mt.PointObservation, Tensor]:
    axis = torch.linspace(0, 10, 21, dtype=DOUBLE)
    grid = mt.Grid(y=axis, x=axis)
    field = Squared(grid, Lattice(grid, extension=1.0))
    points = mt.Points(y=uniform(60, 0, 10, 1), x=uniform(60, 0, 10, 2))
    return field, mt.PointObservation(grid, points, 0.3), uniform(60, -1, 1, 3)


def test_defaults_on_more_nodes_than_draws() -> None:
    """The mean to 1e-5; std and evidence within five standard errors, as they say."""
    field, observation, y = large()
    mean, P, evidence = reference(field, observation, y)
    posterior = ConjugateGradient()(field, observation)(y)
    assert (posterior.mean - mean).abs().max() < 1e-5
    ratio = posterior.std().square() / P.diagonal()
    assert posterior.info["std"] == "from 256 draws"
    # the relative standard error of a variance from N draws is sqrt(2 / N)
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 256)
    assert (ratio - 1).abs().max() > 1e-3
    assert "log_evidence_standard_error" not in posterior.info
    gap = (posterior.log_evidence - evidence).abs().item()
    error = posterior.info["log_evidence_standard_error"]
    assert 1e-6 < gap < 5 * error
    assert error < 2.0
    assert posterior.info["log_evidence_truncation"] < 0.01


def test_agrees_with_the_factor_on_a_mesh() -> None:
    """With the defaults: mean and std to 1e-5 of the std of the field, members in law."""
    points = sites(40)
    mesh = Mesh.around(points, 0.25, margin=2.0)
    field = WhittleMatern(plane_grid(), lengthscale=1.0, lattice=mesh, trend="1")
    observation = mt.PointObservation(field.domain, points, 0.2)
    y = uniform(40, -1, 1, 3)
    exactly, found = (s(field, observation)(y) for s in (SparseCholesky(), ConjugateGradient()))
    assert (found.mean - exactly.mean).abs().max() < 1e-5
    assert (found.std() - exactly.std()).abs().max() < 1e-5
    draws = found.sample(400, torch.Generator().manual_seed(0))
    error = (draws.mean(dim=0) - exactly.mean) / (exactly.std() / 20)
    assert error.abs().max() < 5
    ratio = draws.var(dim=0) / exactly.std().square()
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / 400)


def test_evidence_tells_lengthscales_apart() -> None:
    """The error of the difference is under the difference between models a factor two apart."""
    field, observation, y = large()
    values, exacts = [], []
    for kappa in (0.5, 1.0, 4.0):
        other = Squared(field.domain, field.lattice, kappa)
        values.append(ConjugateGradient()(other, observation)(y).log_evidence)
        exacts.append(reference(other, observation, y)[2])
    order = torch.stack(exacts).argsort()
    assert torch.equal(torch.stack(values).argsort(), order)


def test_info_of_the_solves() -> None:
    field, observation, y = large()
    info = ConjugateGradient(tolerance=1e-6)(field, observation)(y).info
    assert info["converged"]
    assert 0 < info["iterations"] < 100
    assert info["residual"] < 2e-6


def test_lack_of_convergence() -> None:
    field, observation, y = large()
    with pytest.raises(ValueError, match="ConjugateGradient: expected residuals under"):
        _ = ConjugateGradient(steps=2)(field, observation)(y).mean
    loose = ConjugateGradient(steps=2, strict=False)(field, observation)(y)
    assert loose.mean.isfinite().all()
    assert not loose.info["converged"]


def test_calibration() -> None:
    check_calibration(ConjugateGradient(), prior(), sites(), 0.3)


def test_a_later_fit_does_not_move_the_posterior() -> None:
    field, observation, y = large()
    posterior = ConjugateGradient()(field, observation)(y)
    with torch.no_grad():
        field.log_kappa.add_(1.0)
    again = ConjugateGradient()(large()[0], observation)(y)
    assert_close(posterior.mean, again.mean)


BAD = {
    "preconditioner": (lambda: ConjugateGradient(preconditioner="ilu"), "incomplete, jacobi"),
    "tolerance": (lambda: ConjugateGradient(tolerance=0.0), "a tolerance under 1"),
    "noise": (
        lambda: ConjugateGradient()(prior(), mt.PointObservation(plane_grid(), sites(), 0.0)),
        "noise_std > 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_priors_without_a_precision_are_refused() -> None:
    field = mt.GaussianProcess(mt.Matern(1.5), plane_grid())
    with pytest.raises(TypeError, match="expected a prior that is MarkovPrior"):
        ConjugateGradient()(field, OBSERVATIONS["noisy"](plane_grid()))
