r"""Laws of variational assimilation: in a linear problem it is kriging, and a Kalman smoother."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

from torch.testing import assert_close

import matheron as mt

from matheron import Grid, GriddedObservation, PointObservation, Points
from matheron.dynamics import Lorenz63, Lorenz96, OneLayerQG, TwoLayerQG
from matheron.dynamics.lorenz import TwoScaleLorenz96
from matheron.dynamics.transport import Transport
from matheron.observations.nonlinear import NonlinearObservation
from matheron.priors.base import Energy
from matheron.priors.dynamics import StrongConstraint, WeakConstraint
from matheron.solvers import Kriging
from matheron.solvers.controls import Cost, Tangent, control_of, derivative
from matheron.solvers.descent import ROUNDING, QuasiNewton, minimise
from matheron.solvers.laplace import factor
from matheron.solvers.variational import Variational
from matheron.testing import check_solver
from tests.linear_models import Implied, Linear, grid_of, normal, positive

METHODS = ["gauss-newton", "lbfgs", "gradient-descent"]


def problem(constraint, times=6, s=3):
    """A linear prior, its matrices, an observation of some nodes, and data."""
    A, m = 0.7 * normal(s, s, seed=3), normal(s, seed=4)
    B, Q = positive(s, 1), positive(s, 2) if constraint == "weak" else None
    grid = grid_of(times, s)
    if constraint == "weak":
        prior = WeakConstraint(grid, Linear(A), 1, (m, B), Q)
    else:
        prior = StrongConstraint(grid, Linear(A), 1, (m, B))
    nodes = torch.tensor([1, 3, 5, 7, 8, 9, 12, 16, 17])
    std = torch.linspace(0.2, 0.6, len(nodes), dtype=torch.float64)
    seen = PointObservation(grid, grid.points[nodes], std)
    dice = torch.Generator().manual_seed(5)
    y = seen.sample(prior.sample(1, dice)[0], dice)
    Q = torch.zeros(s, s, dtype=torch.float64) if Q is None else Q
    return prior, (A, m, B, Q), seen, nodes, y


def rts(matrices, nodes, R, y, times):
    """Mean and covariances by a Kalman filter and the smoother of Rauch, Tung and Striebel."""
    A, m, P, Q = matrices
    s = len(m)
    forecasts, analyses = [], []
    for k in range(times):
        if k:
            m, P = A @ m, A @ P @ A.mT + Q
        forecasts.append((m, P))
        here = torch.nonzero(nodes // s == k)[:, 0]
        H = torch.eye(s, dtype=torch.float64)[nodes[here] % s]
        gain = P @ H.mT @ torch.linalg.inv(H @ P @ H.mT + torch.diag(R[here]))
        m, P = m + gain @ (y[here] - H @ m), P - gain @ H @ P
        analyses.append((m, P))
    means, covariances = [analyses[-1][0]], [analyses[-1][1]]
    for k in range(times - 2, -1, -1):
        (m, P), (mf, Pf) = analyses[k], forecasts[k + 1]
        C = P @ A.mT @ torch.linalg.pinv(Pf)
        covariances.insert(0, P + C @ (covariances[0] - Pf) @ C.mT)
        means.insert(0, m + C @ (means[0] - mf))
    return torch.cat(means), covariances


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constraint", ["weak", "strong"])
def test_linear_assimilation_is_kriging_and_a_kalman_smoother(constraint, method):
    prior, matrices, seen, nodes, y = problem(constraint)
    posterior = Variational(method, steps=3000, tolerance=1e-9)(prior, seen)(y)
    mean, covariances = rts(matrices, nodes, seen.noise_variance, y, prior.times)
    assert_close(posterior.mean, mean, rtol=1e-6, atol=1e-6)
    std = torch.cat([P.diagonal() for P in covariances]).sqrt()
    assert_close(posterior.std(), std, rtol=1e-6, atol=1e-6)
    kriged = Kriging()(Implied(prior), seen)(y)
    assert_close(posterior.mean, kriged.mean, rtol=1e-6, atol=1e-6)
    assert_close(posterior.std(), kriged.std(), rtol=1e-6, atol=1e-6)
    assert posterior.info["converged"]
    # a descent rests where the cost J falls by less than eps J: gradients of (2 L eps J)^1/2
    H = torch.eye(len(prior.domain), dtype=torch.float64)[nodes]
    seen_by = H @ Implied(prior).B @ H.mT / seen.noise_variance
    steepest = 1 + torch.linalg.eigvals(seen_by).real.max()
    floor = (2 * steepest * ROUNDING * max(1.0, posterior.info["cost"])).sqrt()
    assert posterior.info["gradient_norm"] < floor


def test_the_smoother_of_a_linear_problem_is_that_of_rauch_tung_and_striebel():
    prior, matrices, seen, nodes, y = problem("weak")
    posterior = Variational("smoother")(prior, seen)(y)
    mean, covariances = rts(matrices, nodes, seen.noise_variance, y, prior.times)
    assert_close(posterior.mean, mean, rtol=1e-8, atol=1e-8)
    std = torch.cat([P.diagonal() for P in covariances]).sqrt()
    assert_close(posterior.std(), std, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("constraint", ["weak", "strong"])
@pytest.mark.parametrize("ensemble", ["laplace", "rto"])
def test_draws_have_the_posterior_covariance(constraint, ensemble):
    prior, _, seen, _, y = problem(constraint)
    posterior = Variational(ensemble=ensemble)(prior, seen)(y)
    exact = Kriging()(Implied(prior), seen)(y)
    size, P = 10_000, exact.covariance()
    x = posterior.sample(size, torch.Generator().manual_seed(0))
    d = P.diagonal().clamp(min=0)
    assert ((x.mean(0) - exact.mean).abs() / (d / size + 1e-12).sqrt()).max() < 5
    se = ((torch.outer(d, d) + P.square()) / size).sqrt()
    assert ((torch.cov(x.mT) - P).abs() / (se + 1e-9)).max() < 5


def test_conjugate_gradients_and_lanczos_are_the_dense_matrix(monkeypatch):
    prior, _, seen, _, y = problem("weak")
    dense = Variational(tolerance=1e-9)(prior, seen)(y)
    std = dense.std()
    monkeypatch.setattr("matheron.solvers.variational.EXACT", 0)
    posterior = Variational(tolerance=1e-9, dense=0)(prior, seen)(y)
    assert_close(posterior.mean, dense.mean, rtol=1e-7, atol=1e-7)
    size = 20_000
    x = posterior.sample(size, torch.Generator().manual_seed(0))
    # the standard error of a std is std / sqrt(2 N)
    assert ((x.std(0) - std).abs() / (std / (2 * size) ** 0.5)).max() < 5
    assert ((x.mean(0) - dense.mean).abs() / (std / size**0.5)).max() < 5


@pytest.mark.parametrize("method", METHODS)
def test_three_dimensional_laws(method):
    grid = Grid(x=torch.linspace(0, 4, 9), y=torch.linspace(0, 2, 4))
    prior = mt.GaussianProcess(mt.Matern(1.5, variance=2.0, lengthscale=1.5), grid, mean=0.7)
    seen = PointObservation(grid, grid.points[torch.arange(1, 36, 4)], 0.5)
    check_solver(Variational(method, tolerance=1e-10, steps=2000), prior, seen)


def test_a_markov_field_with_gaps_biases_and_blocks(generator):
    grid = Grid(x=torch.arange(6.0), y=torch.arange(5.0))
    prior = mt.WhittleMatern(grid, lengthscale=3.0)
    gridded = GriddedObservation(grid, torch.arange(30) % 3 == 0, 0.4)
    biased = PointObservation(grid, grid.points[::4], 0.3, bias_std=0.8)
    for seen in (gridded, biased):
        y = seen.sample(prior.sample(1, generator)[0], generator)
        if seen is gridded:
            y = torch.where(seen.mask, y, torch.nan)  # what stands under the gaps is not read
        exact, found = Kriging()(prior, seen)(y), Variational()(prior, seen)(y)
        assert_close(found.mean, exact.mean, rtol=1e-6, atol=1e-6)
        assert_close(found.std(), exact.std(), rtol=1e-6, atol=1e-6)
    matrix = biased.matrix()
    R = positive(biased.count, 7)
    seen = mt.MatrixObservation(grid, matrix, noise_covariance=R)
    y = seen.sample(prior.sample(1, generator)[0], generator)
    exact, found = mt.SparseCholesky()(prior, seen)(y), Variational()(prior, seen)(y)
    assert_close(found.mean, exact.mean, rtol=1e-6, atol=1e-6)
    assert_close(found.std(), exact.std(), rtol=1e-6, atol=1e-6)


class Laplacian(Energy):
    """A smoothness penalty: a cost and nothing else."""

    def __init__(self, domain):
        super().__init__()
        self.domain = domain

    def cost(self, x):
        return x.diff(dim=-1).square().sum(dim=-1) + 0.1 * x.square().sum(dim=-1)


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_that_is_a_cost(method):
    grid = Grid(x=torch.arange(7.0))
    seen = PointObservation(grid, Points(x=[1.0, 4.5]), 0.5)
    y = torch.tensor([1.0, -2.0]).double()
    posterior = Variational(method, steps=5000, tolerance=1e-9)(Laplacian(grid), seen)(y)
    D = torch.eye(7).double().diff(dim=0)
    H = seen.matrix().to_dense()
    A = 2 * D.mT @ D + 0.2 * torch.eye(7).double() + 4 * H.mT @ H
    assert_close(posterior.mean, torch.linalg.solve(A, 4 * H.mT @ y), rtol=1e-6, atol=1e-6)
    assert_close(posterior.std(), torch.linalg.inv(A).diagonal().sqrt(), rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match="Whitened"):
        Variational(ensemble="rto")(Laplacian(grid), seen)(y).sample(2)


def test_a_nonlinear_observation_of_one_number():
    # the posterior of x given y = x^3 + e is known by quadrature; its mode by a fine grid
    grid = Grid(x=[0.0])
    prior = mt.GaussianProcess(mt.Matern(0.5), grid)
    seen = NonlinearObservation(grid, lambda x: x**3, 0.5)
    y = torch.tensor([2.0]).double()
    x = torch.linspace(-3, 3, 600_001, dtype=torch.float64)[:, None]
    cost = prior.cost(x) + seen.cost(x, y.expand(len(x), 1))
    mode = x[cost.argmin()]
    assert Variational()(prior, seen)(y).mean.item() == 0.0  # a lesser minimum, where h is flat
    for method in METHODS:
        posterior = Variational(method, starts=8)(prior, seen)(y)
        assert_close(posterior.mean, mode, rtol=0, atol=1e-5)
        hessian = 1 + (3 * mode**2) ** 2 / 0.25
        assert_close(posterior.std(), hessian.rsqrt(), rtol=1e-4, atol=0)


def lorenz(kind="strong", times=14):
    start = torch.tensor([0.0, 0.0, 23.5]).double(), torch.tensor([60.0, 80.0, 75.0]).double()
    grid = grid_of(times, 3)
    if kind == "strong":
        return StrongConstraint(grid, Lorenz63(), 8, start)
    return WeakConstraint(grid, Lorenz63(), 8, start, torch.full((3,), 0.1).double())


def lorenz_data(prior, members=3):
    generator = torch.Generator().manual_seed(0)
    first = Lorenz63()(Lorenz63().initial(generator, (members,)), 1000)
    x = Lorenz63().trajectory(first, 8 * (prior.times - 1), every=8).flatten(1)
    seen = NonlinearObservation(prior.domain, lambda x: x[..., :2].sinh().asinh() + x[..., 1:] / 9,
                                1.4, times=torch.arange(prior.times))  # fmt: skip
    everything = GriddedObservation(prior.domain, torch.ones(x.shape[1]).bool(), 2**0.5)
    return x, everything, seen, generator


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_all_methods_find_one_minimum(kind):
    prior = lorenz(kind, times=5)
    x, full, nonlinear, generator = lorenz_data(prior, 2)
    for seen in (full, nonlinear):
        y = seen.sample(x, generator)
        found = [
            Variational(method, steps=500, windows=2)(prior, seen).estimate(y)
            for method in ("gauss-newton", "lbfgs")
        ]
        assert_close(found[0], found[1], rtol=0, atol=1e-4)
        error = (found[0] - x).square().mean()
        assert error < 1.5  # the noise has a variance of 2
        alone = Variational(windows=2)(prior, seen)(y[1])
        assert_close(alone.mean, found[0][1], rtol=0, atol=1e-6)
        assert alone.info["gradient_norm"] < 1e-4


@pytest.mark.slow
def test_growing_windows_find_a_lower_minimum():
    prior = lorenz("strong", times=26)
    x, seen, _, generator = lorenz_data(prior, 8)
    y = seen.sample(x, generator)
    at_once = Variational(strict=False)(prior, seen).estimate(y)
    growing = Variational(windows=4)(prior, seen).estimate(y)
    costs = [prior.cost(v) + seen.cost(v, y) for v in (at_once, growing)]
    assert (costs[1] <= costs[0] + 1e-6).all()
    assert (growing - x).square().mean() < 0.3


def test_perturbed_minima_of_a_nonlinear_model_spread_as_the_hessian_says():
    prior = lorenz("strong", times=5)
    x, seen, _, generator = lorenz_data(prior)
    y = seen.sample(x, generator)[0]
    laplace = Variational("lbfgs")(prior, seen)(y)
    draws = Variational("lbfgs", ensemble="rto")(prior, seen)(y).sample(200, generator)
    # the posterior is nearly Gaussian: 15 % beyond the 5 standard errors of a std
    ratio = draws.std(0) / laplace.std()
    assert ((ratio - 1).abs() < 0.15 + 5 / 400**0.5).all()


def island():
    frozen = torch.zeros(9, 10, dtype=torch.bool)
    frozen[3:5, 4:7] = True
    return OneLayerQG.on_plane((9, 10), 2e4, frozen=frozen)


MODELS = {
    "Lorenz63": (Lorenz63, 5.0),
    "Lorenz96": (lambda: Lorenz96(8), 3.0),
    "ImplicitLorenz96": (lambda: Lorenz96(8, scheme="implicit"), 3.0),
    "TwoScaleLorenz96": (lambda: TwoScaleLorenz96(4, 3), 1.0),
    "Transport": (lambda: Transport((4, 5), (1.0, 1.0), (0.3, -0.2), 0.1, 0.1, 0.5), 1.0),
    "OneLayerQG": (island, 0.1),
    "TwoLayerQG": (lambda: TwoLayerQG(8), 2e-5),
}


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_tangent_linear_model_and_its_adjoint(name, checkpoint, generator):
    model, scale = MODELS[name][0](), MODELS[name][1]
    x = scale * torch.randn(2, *model.shape, dtype=torch.float64, generator=generator)
    u = scale * torch.randn(2, *model.shape, dtype=torch.float64, generator=generator)
    run = lambda x: model(x, 5, checkpoint)
    tangent = derivative(run, x, u)
    h = 1e-5
    near = (8 * (run(x + h * u) - run(x - h * u)) - run(x + 2 * h * u) + run(x - 2 * h * u)) / 12
    assert_close(tangent, near / h, rtol=1e-6, atol=1e-8 * scale)
    x.requires_grad_()
    w = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    (back,) = torch.autograd.grad(run(x), x, w)
    assert_close((back * u).sum(), (w * tangent).sum(), rtol=1e-10, atol=0)
    with torch.no_grad(), forward_ad.dual_level():  # the other mode of torch is the oracle
        dual = run(forward_ad.make_dual(x.detach(), u))
        assert_close(tangent, forward_ad.unpack_dual(dual).tangent, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["strong", "weak"])
def test_products_are_those_of_the_dense_matrix(kind):
    prior = lorenz(kind, times=3)
    x, full, nonlinear, generator = lorenz_data(prior)
    for seen in (full, nonlinear):
        cost = Cost(control_of(prior), seen, seen.sample(x, generator))
        v = 0.3 * normal(3, prior.control_size)
        tangent = Tangent(cost, v)
        fields, data = tangent.jacobians()
        u, w = normal(3, prior.control_size, seed=1), normal(*data[:, 0].shape, seed=2)
        assert_close(tangent.push(u), (u[:, None] @ data)[:, 0])
        assert_close((tangent.push(u) * w).sum(), (u * tangent.pull(w)).sum())
        assert_close(tangent.product(u), (tangent.matrix(data) @ u[..., None])[..., 0])
        h = 1e-6
        ahead, behind = (cost.control.decode(v + s * u) for s in (h, -h))
        near = (ahead - behind) / (2 * h)
        assert_close((u[:, None] @ fields)[:, 0], near, rtol=1e-6, atol=1e-5)


def test_the_rule_that_stops():
    prior, _, seen, _, y = problem("weak")
    with pytest.raises(ValueError, match=r"expected gradients under 1e-07 in 2 steps"):
        Variational("lbfgs", steps=2)(prior, seen).estimate(y)
    loose = Variational("lbfgs", steps=2, strict=False)(prior, seen)(y)
    assert not loose.info["converged"]
    assert loose.info["iterations"] == 2
    rest = Variational("lbfgs", tolerance=1e-30, decrease=1e-3)(prior, seen)(y)
    assert rest.info["converged"]


def test_a_hessian_too_large_for_double_precision():
    root = normal(6, 6)
    A = 1e16 * torch.outer(root[0], root[0]) + 10 * torch.outer(root[1], root[1])
    spoilt = A + torch.eye(6).double()
    spoilt = spoilt - 3 * torch.outer(root[2], root[2])  # what rounding may do
    L = factor(spoilt, white=True)
    assert_close(L, L.tril())
    assert torch.linalg.svdvals(L)[-1] > 1 - 1e-6
    with pytest.raises(ValueError, match="a saddle"):
        factor(-torch.eye(3).double(), white=False)


def test_descents_are_alone_in_a_batch():
    prior, _, seen, _, y = problem("weak")
    cost = Cost(control_of(prior), seen, torch.stack([y, 3 * y, -y]))
    v = normal(3, prior.control_size)
    together = minimise(cost, v, QuasiNewton(3, 5), 300, 1e-8)
    for i in range(3):
        alone = minimise(cost.take(torch.tensor([i])), v[i : i + 1], QuasiNewton(1, 5), 300, 1e-8)
        assert_close(together.v[i], alone.v[0], rtol=1e-8, atol=1e-8)
        assert together.iterations[i] == alone.iterations[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "newton"}, "Variational\\(method"),
        ({"ensemble": "mcmc"}, "Variational\\(ensemble"),
        ({"tolerance": 0.0}, "a positive tolerance"),
        ({"windows": 0}, "counts"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Variational(**settings)


def test_bad_problems_are_refused():
    prior, _, seen, _, y = problem("weak")
    grid = prior.domain
    with pytest.raises(ValueError, match="data with noise"):
        Variational()(prior, PointObservation(grid, grid.points[:2], 0.0))
    trend = mt.GaussianProcess(mt.Matern(0.5, lengthscale=(1.0, 1.0)), grid, trend="1")
    with pytest.raises(ValueError, match="without an unknown trend"):
        Variational()(trend, seen)
    with pytest.raises(ValueError, match="finite values"):
        Variational()(prior, seen).estimate(y * torch.nan)
