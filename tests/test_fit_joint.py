"""Fits to replicates and to several geometries, with a penalty, of Markov priors and fields."""

from __future__ import annotations

import itertools
import math
import pytest
import torch

from torch import Tensor
from torch.testing import assert_close

import matheron as mt

from matheron.fit.likelihood import default_solver, joint, parts
from matheron.fit.optimise import TRUST, flat, free, maximise
from matheron.linalg.sparse import Sparse
from matheron.priors import MarkovPrior
from matheron.priors.spde import WhittleMatern
from matheron.priors.spde.fields import Constant, ParameterField, PerNode, Spline
from matheron.priors.spde.lattice import Lattice
from matheron.priors.spde.network import Network
from matheron.solvers.base import Likelihood

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scattered(m: int, width: float = 10.0, seed: int = 0) -> mt.Points:
    x, y = width * torch.rand(2, m, dtype=DOUBLE, generator=generator(seed))
    return mt.Points(x=x, y=y)


class Pulled(mt.GaussianProcess):
    """A Gaussian process whose log-lengthscale has the prior N(log 3, 1 / weight)."""

    weight = 1e6

    def penalty(self) -> Tensor:
        return self.weight / 2 * (self.kernel.log_lengthscale - math.log(3.0)).square()


class Patch(MarkovPrior):
    """A Whittle-Matern field with alpha = 2, of variance near one, with a field kappa."""

    def __init__(self, grid: mt.Grid, kappa: ParameterField, trend: str | None = None) -> None:
        super().__init__()
        self.domain, self.kappa = grid, kappa
        self.lattice = Lattice(grid, extension=12.0, cross=False)
        self.log_tau = torch.nn.Parameter(torch.zeros((), dtype=DOUBLE))
        self.stiffness = self.lattice.stiffness(torch.eye(2, dtype=DOUBLE)[None])
        self._set_trend(0.0, trend)

    def precision(self) -> Sparse:
        kappa, volume = self.kappa(self.lattice.points), self.lattice.volume
        tau = self.log_tau.exp() / (math.sqrt(4 * math.pi) * kappa)
        K = (self.stiffness + Sparse.diag(kappa**2 * volume)).scale(columns=tau)
        return K.T.product(Sparse.diag(1 / volume).product(K))

    def embedding(self, points: mt.Points) -> Sparse:
        return self.lattice.interpolation(points)

    def places(self) -> Tensor:
        return self.lattice.places()

    def penalty(self) -> Tensor:
        return self.kappa.penalty()


def square(n: int) -> mt.Grid:
    return mt.Grid(y=torch.arange(float(n)), x=torch.arange(float(n)))


def process(trend: str | None = None, kind: type = mt.GaussianProcess) -> mt.GaussianProcess:
    return kind(mt.Matern(1.5, 1.0, 1.0), scattered(3), trend=trend)


def problem(m: int = 40, size: int = 3) -> tuple[mt.PointObservation, Tensor]:
    points = scattered(m, seed=4)
    truth = mt.GaussianProcess(mt.Matern(1.5, 2.0, 1.5), points)
    y = truth.sample(size, generator(1)).detach()
    y = y + 0.3 * torch.randn(size, m, dtype=DOUBLE, generator=generator(2))
    return mt.PointObservation(points, points, 0.2, learn_noise=True), y


# Replicates and geometries.


@pytest.mark.parametrize("solver", [mt.Kriging(), mt.Vecchia(39)])
@pytest.mark.parametrize("trend", [None, "1"])
def test_the_likelihood_of_replicates_is_the_sum(solver, trend: str | None) -> None:
    seen, y = problem()
    prior = process(trend)
    every = joint(solver, prior, parts(seen, y))
    each = [solver.likelihood(prior, seen, v) for v in y]
    total = sum(e.value() for e in each)
    assert_close(every.value(), total)
    split = joint(solver, prior, parts([seen, seen], [y[:2], y[2]]))
    assert_close(split.value(), total)
    parameters = free(prior, seen)
    score = every.score(parameters)
    assert_close(score.value, total.item())
    slopes = torch.autograd.grad(total, parameters)
    assert_close(
        score.gradient, torch.stack([s.reshape(()) for s in slopes]), rtol=1e-5, atol=1e-6
    )
    beta, V = every.coefficients()
    assert_close(beta, torch.stack([e.coefficients()[0] for e in each]).mean(dim=0))
    assert_close(V, each[0].coefficients()[1] / 3)  # of the mean of three alike


def test_replicates_of_a_markov_prior_share_a_factor_and_mean_the_same() -> None:
    grid = square(6)
    prior, seen = Patch(grid, Constant(0.5), "1"), mt.PointObservation(grid, grid.points, 0.3)
    y = torch.randn(3, 36, dtype=DOUBLE, generator=generator())
    assert isinstance(default_solver(9, prior), mt.SparseCholesky)
    shared = joint(mt.SparseCholesky(), prior, parts(seen, y))
    apart = joint(mt.Kriging(), prior, parts(seen, y))
    assert len(shared.each) == 1
    assert len(apart.each) == 3
    assert_close(shared.value(), apart.value(), rtol=1e-9, atol=1e-9)
    for a, b in zip(shared.coefficients(), apart.coefficients(), strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_more_replicates_tell_more() -> None:
    """Standard errors shrink with the square root of the number of replicates."""
    seen, y = problem(60, 12)
    errors = []
    for data in (y[:3], y):
        prior, again = process("1"), seen.take(torch.arange(60))
        again.error.log_scale.requires_grad_(True)
        mt.fit.maximum_likelihood(prior, again, data, tolerance=1e-6)
        rows = {name: (v, e) for name, v, e, _ in prior.fitted.rows}
        for name, truth in (("Matern variance", 2.0), ("Matern lengthscale", 1.5)):
            assert abs(rows[name][0] - truth) < 5 * rows[name][1]
        errors.append(rows["Matern lengthscale"][1] / rows["Matern lengthscale"][0])
        assert (prior.fitted.data, prior.fitted.parameters) == (data.numel(), 3 + len(data))
    assert 0.35 < errors[1] / errors[0] < 0.7  # one half, at two estimates of the parameters


def test_geometries_that_differ_are_fitted_together() -> None:
    truth, seen, data = mt.Matern(1.5, 2.0, 1.5), [], []
    for day in range(4):
        points = scattered(50 + day, seed=10 + day)
        g = generator(30 + day)
        x = mt.GaussianProcess(truth, points).sample(1, g)[0].detach()
        seen.append(mt.PointObservation(points, points, 0.1, learn_noise=True))
        data.append(x + 0.3 * torch.randn(len(points), dtype=DOUBLE, generator=g))
    prior = mt.fit.maximum_likelihood(process("1"), seen, data)
    rows = {name: (v, e) for name, v, e, _ in prior.fitted.rows}
    assert len(rows) == len(prior.fitted.rows)
    checks = {"Matern variance": 2.0, "Matern lengthscale": 1.5, "trend 1": 0.0}
    checks |= {f"noise std {k}": 0.3 for k in (1, 2, 3, 4)}
    for name, expected in checks.items():
        value, error = rows[name]
        assert abs(value - expected) < 5 * error, name
    evidence = sum(
        mt.Kriging()(prior, o)(v).log_evidence.item() for o, v in zip(seen, data, strict=True)
    )
    assert_close(prior.fitted.log_likelihood, evidence, rtol=1e-9, atol=1e-9)
    assert prior.fitted.data == 206
    for one in seen[1:]:
        one.error.log_scale = seen[0].error.log_scale  # one instrument on all days
    prior = mt.fit.maximum_likelihood(process("1"), seen, data)
    assert [r[0] for r in prior.fitted.rows].count("noise std") == 1


def test_lists_that_do_not_match_are_refused() -> None:
    seen, y = problem()
    with pytest.raises(ValueError, match=r"expected as many observations as data, got 2 and 1"):
        mt.fit.maximum_likelihood(process(), [seen, seen], [y[0]])
    with pytest.raises(ValueError, match=r"as many observations as data, got one and 1"):
        mt.fit.maximum_likelihood(process(), seen, [y[0]])
    with pytest.raises(ValueError, match=r"expected shape \(m\), or \(r, m\) .* got \(0, 40\)"):
        mt.fit.maximum_likelihood(process(), seen, y[:0])


# Penalties.


def test_a_penalty_pulls_and_is_said() -> None:
    seen, y = problem()
    prior = process(kind=Pulled)
    mt.fit.maximum_likelihood(prior, seen, y)
    assert_close(prior.kernel.lengthscale.item(), 3.0, rtol=1e-3, atol=0.0)
    fitted = prior.fitted
    assert fitted.penalty > 0
    assert "penalised: the parameter fields cost" in prior.summary()
    assert_close(fitted.penalty, prior.penalty().item())
    total = sum(mt.Kriging().likelihood(prior, seen, v).value() for v in y)
    assert_close(fitted.log_likelihood, total.item(), rtol=1e-9, atol=1e-9)
    # its curvature is part of the information: the standard error is that of the prior
    error = next(e for name, _, e, _ in fitted.rows if name == "Matern lengthscale")
    assert_close(error, 3.0 / Pulled.weight**0.5, rtol=1e-3, atol=0.0)


def test_the_penalised_score_is_the_gradient_of_the_value() -> None:
    seen, y = problem()
    prior = process(kind=Pulled)
    prior.weight = 50.0
    likelihood, parameters = joint(mt.Kriging(), prior, parts(seen, y)), free(prior, seen)
    score = likelihood.score(parameters)
    slopes = torch.autograd.grad(likelihood.value(), parameters)
    assert_close(score.gradient, torch.stack(slopes), rtol=1e-8, atol=1e-8)
    plain = joint(mt.Kriging(), process(), parts(seen, y)).score(free(process(), seen))
    assert plain is not None
    extra = score.information.diagonal().max()
    assert extra > 50


# Climbing.


class Valley(Likelihood):
    """Minus a curved valley: a hard function, whose gradient is steep far from its maximum."""

    def __init__(self, size: int = 30) -> None:
        self.theta = torch.nn.Parameter(torch.full((size,), -1.2, dtype=DOUBLE))
        self.seen: list[Tensor] = []

    def value(self) -> Tensor:
        x = self.theta
        self.seen.append(x.detach().clone())
        if (x > 4).any():
            msg = "singular"
            raise ValueError(msg)
        return -(100 * (x[1:] - x[:-1] ** 2).square() + (1 - x[:-1]).square()).sum()

    def coefficients(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(0), torch.zeros(0, 0)


def test_gradient_ascent_finds_the_end_of_a_valley() -> None:
    valley, trace = Valley(), []
    steps, converged = maximise(
        valley, [valley.theta], 400, 1e-10, lambda _, value: trace.append(value)
    )
    assert converged
    assert_close(valley.theta.detach(), torch.ones(30, dtype=DOUBLE), rtol=1e-3, atol=1e-3)
    assert all(b >= a for a, b in itertools.pairwise(trace))
    assert len(trace) == steps
    assert len(valley.seen) < 1.8 * steps  # most steps ask for the value once
    # no trial is further than the trust from one before it
    near = [
        min((a - b).abs().max() for b in valley.seen[:k]) for k, a in enumerate(valley.seen) if k
    ]
    assert max(near) <= TRUST + 1e-12


def test_what_is_singular_from_the_start_says_why() -> None:
    valley = Valley()
    with torch.no_grad():
        valley.theta += 10
    with pytest.raises(ValueError, match="singular"):
        maximise(valley, [valley.theta], 10, 1e-3, lambda *_: None)
    flat_valley = Valley()
    with torch.no_grad():
        flat_valley.theta.fill_(1.0)
    assert maximise(flat_valley, [flat_valley.theta], 10, 1e-3, lambda *_: None)[1]
    assert_close(flat([flat_valley.theta]), torch.ones(30, dtype=DOUBLE))


# Markov priors.


def test_a_markov_prior_is_fitted_and_cross_validated_as_by_kriging() -> None:
    grid = square(8)
    truth = Patch(grid, Constant(0.6))
    seen = mt.PointObservation(grid, scattered(50, 7.0), 0.1, learn_noise=True)
    x = truth.sample(1, generator(3))[0].detach()
    y = seen.sample(x, generator(4)).detach()
    prior = Patch(grid, Constant(0.4), "1")
    again = mt.PointObservation(grid, seen.points, 0.2, learn_noise=True)
    mt.fit.maximum_likelihood(prior, again, y, tolerance=1e-7)
    rows = {name: (v, e) for name, v, e, _ in prior.fitted.rows}
    for name, expected in (("tau", 1.0), ("noise std", 0.1), ("trend 1", 0.0)):
        value, error = rows[name]
        assert error > 0
        assert abs(value - expected) < 5 * error
    evidence = mt.Kriging()(prior, again)(y).log_evidence.item()
    assert_close(prior.fitted.log_likelihood, evidence, rtol=1e-9, atol=1e-9)
    fold = torch.arange(50) % 2
    scores = [mt.fit.cross_validate(prior, again, y, fold, s) for s in (None, mt.Kriging())]
    assert scores[0] == pytest.approx(scores[1], rel=1e-7)


def varying(grid: mt.Grid) -> Spline:
    field = Spline(grid, (3, 3), 0.35)
    with torch.no_grad():
        field.coefficients += 0.5 * torch.randn(
            field.coefficients.shape, dtype=DOUBLE, generator=generator()
        )
    return field


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [("spline", 0.5), ("network", 0.5), ("node", 0.75)])
def test_a_field_is_recovered_from_gappy_replicates(kind: str, share: float) -> None:
    """The error is under half (for free nodes, three quarters) of the best constant's."""
    grid, size = square(24), 20
    truth = varying(grid)
    points = grid.points[torch.rand(len(grid), generator=generator(1)) < 0.7]
    seen = mt.PointObservation(grid, points, 0.1, learn_noise=True)
    y = seen.sample(Patch(grid, truth).sample(size, generator(2)).detach(), generator(3)).detach()
    fields: dict[str, ParameterField] = {
        "spline": Spline(grid, (4, 4), 0.2),
        "network": Network(grid, 16, 2, 0.2, smoothness=0.1, generator=generator(4)),
        "node": PerNode(grid, 0.2, smoothness=100.0),
    }
    exact = truth(grid.points).detach().log()
    prior = Patch(grid, fields[kind])
    mt.fit.maximum_likelihood(prior, seen, y)
    error = (prior.kappa(grid.points).detach().log() - exact).square().mean().sqrt()
    constant = exact.std(correction=0)  # no constant does better than the mean
    assert error < share * constant, f"{error:.3f}, of {constant:.3f}"
    assert prior.fitted.penalty > 0
    assert math.isnan(prior.fitted.rows[0][2])  # no errors for so many


def logarithm(H: Tensor) -> Tensor:
    levels, axes = torch.linalg.eigh(H.detach())
    return (axes * levels.log()[:, None]) @ axes.mT


@pytest.mark.slow
def test_a_diffusivity_that_turns_is_recovered() -> None:
    """The error in log H is less than half that of the best constant matrix."""
    grid, truth = square(18), Spline(square(18), (3, 3), shape=(2, 2))
    with torch.no_grad():
        truth.coefficients += 0.6 * torch.randn(5, 5, 3, dtype=DOUBLE, generator=generator())
    exact = logarithm(truth(grid.points))
    points = grid.points[torch.rand(len(grid), generator=generator(1)) < 0.7]
    seen = mt.PointObservation(grid, points, 0.1)
    kappa = Constant(2**0.5 / 6).requires_grad_(False)  # the diffusivity holds the scales
    prior = WhittleMatern(grid, kappa=kappa, diffusivity=truth)
    y = seen.sample(prior.sample(20, generator(2)).detach(), generator(3)).detach()
    found = Spline(grid, (3, 3), shape=(2, 2))
    prior = WhittleMatern(grid, kappa=kappa, diffusivity=found)
    prior.kernel.requires_grad_(False)
    mt.fit.maximum_likelihood(prior, seen, y, tolerance=0.1)
    error = (logarithm(found(grid.points)) - exact).square().mean().sqrt()
    constant = (exact - exact.mean(dim=0)).square().mean().sqrt()
    assert error < constant / 2, f"{error:.3f}, of {constant:.3f}"


def test_a_field_is_fitted_from_one_gappy_realisation() -> None:
    """The fit is better than that of the constant, by likelihood and by its penalty."""
    grid = square(16)
    points = grid.points[torch.rand(len(grid), generator=generator(1)) < 0.8]
    seen = mt.PointObservation(grid, points, 0.1)
    x = Patch(grid, varying(grid)).sample(1, generator(2))[0].detach()
    y = seen.sample(x, generator(3)).detach()
    constant, spline = Patch(grid, Constant(0.3)), Patch(grid, Spline(grid, (4, 4), 0.3))
    for prior in (constant, spline):
        mt.fit.maximum_likelihood(prior, seen, y)
    gain = spline.fitted.log_likelihood - constant.fitted.log_likelihood
    assert gain > spline.fitted.penalty > 0
    z = mt.SparseCholesky()(spline, seen)(y)
    assert_close(z.log_evidence.item(), spline.fitted.log_likelihood, rtol=1e-9, atol=1e-8)
