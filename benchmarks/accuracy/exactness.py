"""Where approximations must be exact: Vecchia with all neighbours, a Markov chain, joint draws."""

from __future__ import annotations

import importlib.util
import math
import sys
import torch

from pathlib import Path
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import finish

import matheron as mt

from matheron.linalg.vecchia import gaussian_nll, previous_neighbors

DATA, NODES, CHAIN, DRAWS = 300, 150, 2_000, 4_000
Row = dict[str, object]


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def apart(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def all_neighbors() -> list[Row]:
    """Compares Vecchia, with all earlier data as neighbours, with the dense solution."""
    nodes, points = (
        mt.Points(4 * uniform(size, 2, seed=seed), ("y", "x"))
        for size, seed in ((NODES, 1), (DATA, 2))
    )
    kernel = mt.Matern(1.5, 2.0, (1.0, 2.0), 25.0) + mt.Matern(0.8, 0.5, 0.4, learn_nu=True)
    prior = mt.GaussianProcess(kernel, nodes, trend="1 + x")
    seen = mt.PointObservation(nodes, points, 0.2, learn_noise=True)
    y = normal(DATA, seed=3)
    parameters = [p for m in (prior, seen) for p in m.parameters() if p.requires_grad]
    solvers = (mt.Vecchia(DATA - 1, DATA + NODES), mt.Kriging())
    near, exact = (s.likelihood(prior, seen, y) for s in solvers)
    slopes = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(k.value(), parameters)])
        for k in (near, exact)
    ]
    a, b = near.score(parameters), exact.score(parameters)
    assert a is not None
    assert b is not None
    p, q = (s(prior, seen)(y) for s in solvers)
    errors = {
        "likelihood": apart(near.value().detach(), exact.value().detach()),
        "gradient, adjoint": apart(slopes[0], slopes[1]),
        "gradient, with the information": apart(a.gradient, b.gradient),
        "Fisher information": apart(a.information, b.information),
        "trend coefficients": apart(near.coefficients()[0], exact.coefficients()[0]),
        "mean": apart(p.mean, q.mean),
        "covariance": apart(p.covariance(), q.covariance()),
    }
    case = f"Vecchia, m = n - 1 = {DATA - 1}, against dense"
    return [{"case": case, "quantity": k, "error": v, "bar": 1e-8} for k, v in errors.items()]


def chain() -> list[Row]:
    """Compares one neighbour on a line, in order, with the dense likelihood."""
    x = (100 * uniform(CHAIN, 1, seed=4)).sort(dim=0).values
    y = normal(CHAIN, seed=5)
    rows: list[Row] = []
    for nu, law in ((0.5, "exponential, Markov: exact"), (1.5, "Matern 3/2, not Markov")):
        kernel = mt.Matern(nu, 1.3, 2.0)
        with torch.no_grad():
            near = -gaussian_nll(kernel.terms(x), 0 * y, y, previous_neighbors(x, 1))
            exact = torch.distributions.MultivariateNormal(0 * y, kernel(x, x)).log_prob(y)
        found: Row = {"case": f"1-D {law}, m = 1", "quantity": "likelihood"}
        rows.append(found | {"error": apart(near, exact)} | ({"bar": 1e-8} if nu == 0.5 else {}))
    return rows


def joint_law() -> list[Row]:
    """Compares the covariance of conditional draws with that of the posterior.

    The relative error of a sample covariance of S draws is, in Frobenius norm, about
    :math:`\\sqrt{(\\operatorname{tr}(C)^2 / \\|C\\|^2 + 1) / S}`.
    """
    sites, values = torch.tensor([0.0, 3.0]).double(), normal(2, seed=6)
    x = torch.linspace(-2.1, 5.1, 21, dtype=torch.float64)
    nodes = mt.Points(x=x)
    prior = mt.GaussianProcess(mt.Gaussian(1.0, 1.0), nodes)
    seen = mt.PointObservation(nodes, mt.Points(x=sites), 0.0)
    C = mt.Kriging()(prior, seen)(values).covariance()
    noise = math.sqrt((C.trace() ** 2 / C.square().sum() + 1) / DRAWS)
    draws = {
        f"{type(s).__name__}.sample": s(prior, seen)(values).sample(
            DRAWS, torch.Generator().manual_seed(0)
        )
        for s in (mt.Kriging(), mt.Vecchia(30))
    }
    if importlib.util.find_spec("gstools") is not None:
        draws["GSTools CondSRF"] = peer_draws(sites, values, x)
    case = f"covariance of {DRAWS} conditional draws"
    return [
        {
            "case": case,
            "quantity": name,
            "error": ((torch.cov(z.mT) - C).norm() / C.norm()).item(),
            "bar": noise * 3,
            "variance_error": apart(z.var(dim=0), C.diagonal()),
        }
        for name, z in draws.items()
    ]


def peer_draws(sites: Tensor, values: Tensor, x: Tensor) -> Tensor:
    import gstools

    model = gstools.Gaussian(dim=1, var=1.0, len_scale=1.0, rescale=0.5**0.5)
    field = gstools.CondSRF(gstools.krige.Simple(model, [sites.numpy()], values.numpy(), mean=0.0))
    field.set_pos([x.numpy()])
    found = [torch.as_tensor(field(seed=k, store=False).copy()) for k in range(DRAWS)]
    return torch.stack(found)


def main() -> None:
    """Prints the errors."""
    finish("Exactness", "exactness", [*all_neighbors(), *chain(), *joint_law()])


if __name__ == "__main__":
    main()
