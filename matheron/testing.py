r"""Laws that every prior, observation and solver must honour.

They are public, so that a stranger's prior is checked by the same laws as ours. Each function
raises ``AssertionError`` at the first law that is broken. Tolerances are those of the machine, or
five standard errors of the Monte Carlo estimate.
"""

from __future__ import annotations

__all__ = ["check_kernel", "check_observation", "check_prior", "check_solver"]

import io
import math
import torch

from jaxtyping import Float
from torch import Tensor
from torch.testing import assert_close

from .domain import Grid, Points
from .kernels import Kernel
from .observations import LinearObservation, Observation, PointObservation
from .posterior import Conditional, GaussianConditional, Posterior
from .priors.base import Denoising, Energy, GaussianPrior, Prior, Sampling
from .solvers.base import LikelihoodSolver, Solver


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=_generator(seed))


def _covariance_error(x: Float[Tensor, "size n"], B: Float[Tensor, "n n"]) -> float:
    r"""Returns the worst error of a sample covariance, in standard errors.

    The standard error of an entry is :math:`\sqrt{(B_{ii} B_{jj} + B_{ij}^2) / N}`.
    """
    d = B.diagonal()
    se = ((torch.outer(d, d) + B.square()) / len(x)).sqrt()
    floor = 1e-9 * d.max()
    return ((torch.cov(x.mT) - B).abs() / (se + floor)).max().item()


def check_kernel(kernel: Kernel, dimensions: int, size: int = 60) -> None:
    r"""Checks a kernel: symmetry, diagonal, positive definiteness, gradients, two precisions.

    Arguments:
        kernel: The kernel.
        dimensions: The number of coordinates to try it on.
        size: The number of sites.
    """
    scattered = _normal(size, dimensions)
    side = max(2, round(size ** (1 / dimensions)))
    axes = [torch.linspace(0, 2, side, dtype=torch.float64)] * dimensions
    lattice = torch.cartesian_prod(*axes).reshape(-1, dimensions)
    for x in (scattered, lattice):
        B = kernel(x, x)
        assert_close(B, B.mT)
        assert_close(B.diagonal(), kernel.diagonal(x))
        least, most = torch.linalg.eigvalsh(B.detach())[[0, -1]]
        assert least > -1e-9 * most, f"not positive definite in d = {dimensions}: {least:.3g}"
        pairs = kernel(x[:, None], x.flip(0)[:, None])[:, 0, 0]
        assert_close(pairs, kernel(x, x.flip(0)).diagonal())
        composition = kernel.terms(x)
        assert composition is None or composition[0].factors[0].coords.shape[0] == len(x)
    _check_gradients(kernel, lambda: kernel(scattered, scattered[:7]).sin().sum())


def _check_gradients(module: torch.nn.Module, function: object) -> None:
    assert callable(function)
    free = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    slopes = torch.autograd.grad(function(), [p for _, p in free], allow_unused=True)
    for (name, _), slope in zip(free, slopes, strict=True):
        assert slope is not None, f"no gradient reaches {name}"
        assert slope.isfinite().all(), f"the gradient of {name} is not finite"
        assert (slope != 0).any(), f"the gradient of {name} is zero"


def check_prior(prior: Prior, size: int = 4000) -> None:
    r"""Checks a prior: the faces that it has agree with each other.

    Arguments:
        prior: The prior, on a domain of a few dozen nodes.
        size: The number of draws for the laws of the ensemble.
    """
    n = len(prior.domain)
    if isinstance(prior, Sampling):
        x = prior.sample(3, _generator()).detach()
        assert x.shape == (3, n)
        assert x.isfinite().all()
        same = prior.sample(3, _generator()).detach()
        assert torch.equal(x, same), "the same generator must give the same draw"
    if isinstance(prior, Energy):
        x = _normal(4, n)
        assert prior.cost(x).shape == (4,)
        assert_close(prior.cost(x)[1], prior.cost(x[1]))
    if isinstance(prior, Denoising):
        x = _normal(2, n)
        assert_close(prior.denoise(x, 0.3)[1], prior.denoise(x[1], 0.3))
    if isinstance(prior, GaussianPrior):
        _check_gaussian(prior, size)
    _check_state(prior)


def _check_state(module: torch.nn.Module) -> None:
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    module.load_state_dict(torch.load(stream, weights_only=True))


def _check_gaussian(prior: GaussianPrior, size: int) -> None:
    s = prior.domain.points
    B, mu = prior.covariance(s, s).detach(), prior.drift().detach()
    assert_close(B, B.mT)
    assert_close(B.diagonal(), prior.variance(s).detach())
    assert torch.linalg.eigvalsh(B).min() > -1e-9 * B.diagonal().max()
    # cost and covariance: B grad J = x - mu
    x = _normal(len(s)).requires_grad_()
    (slope,) = torch.autograd.grad(prior.cost(x), x)
    assert_close(B @ slope, (x - mu).detach(), rtol=1e-6, atol=1e-6)
    # draws and covariance: five standard errors, over n(n+1)/2 entries
    worst = _covariance_error(prior.sample(size, _generator()).detach(), B)
    assert worst < 5.0, f"the covariance of draws is off by {worst:.1f} standard errors"
    # Tweedie: the Jacobian of the denoiser is B (B + sigma^2)^-1
    J = torch.autograd.functional.jacobian(lambda z: prior.denoise(z, 0.3), x.detach())
    S = B + 0.09 * torch.eye(len(B), dtype=B.dtype)
    assert_close(J, torch.linalg.solve(S, B).mT, rtol=1e-6, atol=1e-8)


def check_observation(observation: Observation, size: int = 4000) -> None:
    r"""Checks an observation: adjoint, unbiased weights, noise, cost.

    Arguments:
        observation: The observation.
        size: The number of draws of the noise.
    """
    n = len(observation.domain)
    x = _normal(5, n)
    y = observation(x)
    assert observation.cost(x, y).shape == (5,)
    assert_close(observation.cost(x, y), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(observation.sample(x, _generator()), observation.sample(x, _generator()))
    if not isinstance(observation, LinearObservation):
        return
    v = _normal(*y.shape, seed=1)
    assert_close((observation(x) * v).sum(), (x * observation.adjoint(v)).sum())
    ones = observation.select(observation(torch.ones(n, dtype=torch.float64)))
    assert_close(ones, torch.ones_like(ones))
    zero = torch.zeros(size, n, dtype=torch.float64)
    e = observation.select(observation.sample(zero, _generator())).detach()
    B = observation.bias_design
    R = (B * observation.bias_variance) @ B.mT + torch.diag(observation.noise_variance)
    assert _covariance_error(e, R.detach()) < 5.0
    _check_noise_cost(observation, R.detach())


def _check_noise_cost(observation: LinearObservation, R: Float[Tensor, "m m"]) -> None:
    if not (observation.noise_variance > 0).all():
        return
    x = torch.zeros(len(observation.domain), dtype=torch.float64)
    y = observation.sample(x, _generator(2)).detach()
    v = observation.select(y)
    assert_close(observation.cost(x, y).detach(), v @ torch.linalg.solve(R, v) / 2)


def reference(
    prior: GaussianPrior, observation: LinearObservation, y: Float[Tensor, " k"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"], Float[Tensor, ""]]:
    r"""Returns mean, covariance and log-evidence by the dense normal equations.

    The trend has a flat prior: its coefficients join the state with an infinite variance, and the
    evidence is the largest over them.
    """
    s, t = observation.points, prior.domain.points
    v = observation.select(y) - prior.mean(s)
    B = observation.bias_design
    S = prior.covariance(s, s) + (B * observation.bias_variance) @ B.mT
    S = S + torch.diag(observation.noise_variance)
    C, F, G = prior.covariance(t, s), prior.design(s), prior.design(t)
    p = F.shape[1]
    # the saddle-point system of universal kriging, unlike the solvers' least squares
    system = torch.cat(
        [torch.cat([S, F], 1), torch.cat([F.mT, torch.zeros(p, p, dtype=S.dtype)], 1)]
    )
    right = torch.cat([C, G], dim=1)
    weights = torch.linalg.solve(system, right.mT).mT
    mean = prior.mean(t) + weights[:, : len(v)] @ v
    covariance = prior.covariance(t, t) - weights @ right.mT
    beta = torch.linalg.lstsq(F.mT @ torch.linalg.solve(S, F), F.mT @ torch.linalg.solve(S, v))[0]
    r = v - F @ beta
    evidence = -(r @ torch.linalg.solve(S, r) + torch.logdet(2 * math.pi * S)) / 2
    return mean.detach(), covariance.detach(), evidence.detach()


def check_solver(
    solver: Solver,
    prior: GaussianPrior,
    observation: LinearObservation,
    tolerance: float = 1e-6,
    size: int = 3000,
) -> None:
    r"""Checks a solver against the dense normal equations, on a small Gaussian problem.

    Arguments:
        solver: The solver.
        prior: A Gaussian prior on a domain of a few dozen nodes.
        observation: A linear observation of a few dozen data.
        tolerance: The error allowed, relative to the prior's standard deviation: of the machine
            for exact solvers, stated by name for the others.
        size: The number of draws.
    """
    generator = _generator()
    x = torch.linalg.cholesky(_joint(prior, observation)) @ _normal(
        len(prior.domain) + len(observation.points)
    )
    s = observation.points
    v = x[len(prior.domain) :] + prior.mean(s) + prior.design(s).sum(dim=1)
    y = _place(observation, v + observation.noise((), generator)).detach()
    mean, P, evidence = reference(prior, observation, y)
    conditional = solver(prior, observation)
    posterior = conditional(y)
    unit = prior.variance(prior.domain.points).detach().sqrt()
    assert ((posterior.mean - mean).abs() / unit).max() < tolerance, "mean"
    std = P.diagonal().clamp(min=0).sqrt()
    assert ((posterior.std() - std).abs() / unit).max() < max(tolerance, 1e-6), "std"
    _check_batch(conditional, y)
    if isinstance(conditional, GaussianConditional):
        error = (conditional.covariance() - P).abs() / torch.outer(unit, unit)
        assert error.max() < tolerance, "covariance"
        gap = (conditional.log_evidence(y) - evidence).abs() / len(y)
        assert gap < tolerance, f"evidence: {gap.item():.3g} per datum"
    draws = posterior.sample(size, generator)
    assert draws.shape == (size, len(prior.domain))
    worst = _covariance_error(draws, P)
    assert worst < 5.0 + tolerance * size**0.5, f"draws: covariance off by {worst:.1f} SE"
    off = ((draws.mean(dim=0) - mean).abs() / (std / size**0.5 + 1e-6 * unit)).max()
    assert off < 5.0 + tolerance * size**0.5, f"draws: mean off by {off:.1f} standard errors"
    again = posterior.sample(3, _generator(5)), posterior.sample(3, _generator(5))
    assert torch.equal(*again), "the same generator must give the same draws"
    _check_equivariance(conditional, prior, observation, y)
    if isinstance(solver, LikelihoodSolver):
        _check_evidence_gradient(solver, prior, observation, y)


def _joint(prior: GaussianPrior, observation: LinearObservation) -> Float[Tensor, "k k"]:
    s = Points.join(prior.domain.points, observation.points)
    K = prior.covariance(s, s).detach()
    return K + 1e-9 * K.diagonal().max() * torch.eye(len(K), dtype=K.dtype)


def _place(observation: LinearObservation, v: Float[Tensor, " m"]) -> Float[Tensor, " k"]:
    r"""Returns data whose :meth:`select` is ``v``."""
    if observation.size == len(v):
        return v
    rank = observation.select(torch.arange(observation.size, dtype=torch.float64)).long()
    return torch.zeros(observation.size, dtype=torch.float64).index_put((rank,), v)


def _check_batch(conditional: Conditional, y: Float[Tensor, " k"]) -> None:
    batch = torch.stack([y, 2 * y, torch.zeros_like(y)])
    each = torch.stack([conditional.estimate(v) for v in batch])
    assert_close(conditional.estimate(batch), each, rtol=1e-9, atol=1e-9)
    wide = conditional.estimate(batch.expand(2, *batch.shape))
    assert_close(wide[1], each, rtol=1e-9, atol=1e-9)


def _check_equivariance(
    conditional: Conditional,
    prior: GaussianPrior,
    observation: LinearObservation,
    y: Float[Tensor, " k"],
) -> None:
    r"""The estimate is affine in the data; a trend with a constant follows a shift of the data."""
    zero = conditional.estimate(torch.zeros_like(y))
    slope = conditional.estimate(y) - zero
    assert_close(conditional.estimate(-3 * y), zero - 3 * slope, rtol=1e-8, atol=1e-8)
    F = prior.design(observation.points)
    if F.shape[1]:
        shifted = conditional.estimate(y + _place(observation, F[:, 0]))
        expected = conditional.estimate(y) + prior.design(prior.domain.points)[:, 0]
        assert_close(shifted, expected, rtol=1e-7, atol=1e-7)


def _check_evidence_gradient(
    solver: LikelihoodSolver,
    prior: GaussianPrior,
    observation: LinearObservation,
    y: Float[Tensor, " k"],
    step: float = 1e-5,
) -> None:
    parameters = {
        id(p): p for m in (prior, observation) for p in m.parameters() if p.requires_grad
    }
    free = list(parameters.values())
    if not free:
        return
    likelihood = solver.likelihood(prior, observation, y)
    slopes = torch.autograd.grad(likelihood.value(), free, allow_unused=True)
    analytic = torch.cat(
        [
            torch.zeros(p.numel()).double() if g is None else g.reshape(-1)
            for p, g in zip(free, slopes, strict=True)
        ]
    )
    numeric = torch.tensor([d for p in free for d in _differences(likelihood.value, p, step)])
    scale = numeric.abs().max() + 1
    assert ((analytic - numeric).abs() / scale).max() < 1e-5, "gradient of the evidence"
    score = likelihood.score(free)
    if score is not None:
        assert ((score.gradient - numeric).abs() / scale).max() < 1e-5, "score"
        assert_close(score.information, score.information.mT)
        assert torch.linalg.eigvalsh(score.information).min() > -1e-6 * scale


@torch.no_grad()
def _differences(function: object, parameter: Tensor, step: float) -> list[float]:
    assert callable(function)
    found, start = [], parameter.clone()
    for i in range(parameter.numel()):
        values = []
        for sign in (1, -1):
            moved = start.reshape(-1).clone()
            moved[i] += sign * step
            parameter.copy_(moved.reshape(start.shape))
            values.append(float(function()))
        parameter.copy_(start)
        found.append((values[0] - values[1]) / (2 * step))
    return found


def check_calibration(
    solver: Solver,
    prior: GaussianPrior,
    points: Points,
    noise_std: float,
    twins: int = 200,
) -> None:
    r"""Checks calibration over twin experiments: z-scores of truth have variance one.

    The mean of :math:`z^2` over nodes is averaged over twins; its spread over twins gives the
    standard error, of which five are allowed.
    """
    domain = prior.domain
    observation = PointObservation(domain, points, noise_std)
    conditional = solver(prior, observation)
    root = torch.linalg.cholesky(_joint(prior, observation))
    x = _normal(twins, len(root)) @ root.mT
    truth = x[:, : len(domain)] + prior.drift()
    data = x[:, len(domain) :] + prior.mean(points) + observation.noise((twins,), _generator(1))
    std = Posterior(conditional, data[0]).std()
    z = ((conditional.estimate(data) - truth) / std).square().mean(dim=1)
    error = (z.mean() - 1) / (z.std() / twins**0.5)
    assert error.abs() < 5, f"z-scores have variance {z.mean():.3f}, {error:.1f} SE from one"


def small_grid() -> Grid:
    r"""Returns the grid on which the laws are tried: 5 by 6 nodes on the plane."""
    return Grid(
        y=torch.linspace(0, 3, 5, dtype=torch.float64),
        x=torch.linspace(0, 4, 6, dtype=torch.float64),
    )
