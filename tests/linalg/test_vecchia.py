"""The Vecchia engines against dense algebra, against each other, and against brute force."""

from __future__ import annotations

import math
import numpy as np
import pytest
import torch

from torch import Tensor

from matheron.linalg.composition import (
    Composition,
    Factor,
    Term,
    correlation,
    dense,
    distance,
    matern_table,
)
from matheron.linalg.vecchia import (
    Tangent,
    fisher,
    gaussian_nll,
    marginal_variance,
    maxmin_order,
    predict_weights,
    previous_neighbors,
    propagate,
    torch_engine,
    whiten,
)
from matheron.linalg.vecchia.sequence import frozen, simulated_variance

KINDS = ("closed", "table", "nested")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def leaf_tensors(n: int) -> dict[str, Tensor]:
    """Everything a composition may depend on; also two coincident points."""
    x = uniform(n, 2)
    x[5] = x[3]
    return {
        "first": scalar(1.3),
        "second": scalar(0.6),
        "nu": scalar(0.8),
        "plane": x * 4,
        "line": x[:, :1] * 3,
        "space": torch.cat([x * 2, x[:, :1].cos()], 1),
        "noise": 0.05 + 0.1 * uniform(n, seed=1),
        "columns": draw(n, 3),
    }


def compose(kind: str, t: dict[str, Tensor]) -> Composition:
    if kind == "closed":
        return (Term(t["first"], (Factor(t["plane"], "matern32"),)),)
    table = Factor(t["space"], "table", matern_table(t["nu"]))
    if kind == "table":
        return (Term(t["first"], (table,)),)
    product = (Factor(t["plane"], "matern52"), Factor(t["line"], "exponential"))
    return (Term(t["first"], product), Term(t["second"], (table, Factor(t["line"], "gaussian"))))


def all_earlier(n: int) -> Tensor:
    """All earlier points, in a scrambled order."""
    table = torch.full((n, n - 1), -1, dtype=torch.int32)
    for i in range(n):
        table[i, :i] = torch.randperm(i, generator=torch.Generator().manual_seed(i))
    return table


def with_gradients(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone().requires_grad_() for k, v in tensors.items()}


def dense_whiten(covariance: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    root = torch.linalg.cholesky(covariance)
    return 2 * root.diagonal().log().sum(), columns.mT @ torch.cholesky_solve(columns, root)


def gradients(value: Tensor, tensors: dict[str, Tensor]) -> list[Tensor | None]:
    return list(
        torch.autograd.grad(value, list(tensors.values()), allow_unused=True, retain_graph=True)
    )


def assert_same_gradients(
    found: list[Tensor | None], expected: list[Tensor | None], rtol: float = 1e-8
) -> None:
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


# Likelihood.


@pytest.mark.parametrize("kind", KINDS)
def test_whiten_with_all_neighbors_is_dense(kind: str) -> None:
    n = 37
    t = with_gradients(leaf_tensors(n))
    logdet, gram = whiten(compose(kind, t), t["noise"], t["columns"], all_earlier(n))
    reference = dense_whiten(dense(compose(kind, t)) + t["noise"].diag(), t["columns"])
    torch.testing.assert_close((logdet, gram), reference, rtol=1e-10, atol=1e-10)
    mix = draw(3, 3, seed=5)
    found = gradients(0.7 * logdet + (mix * gram).sum(), t)
    expected = gradients(0.7 * reference[0] + (mix * reference[1]).sum(), t)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cost_with_all_neighbors_is_dense(kind: str) -> None:
    n = 37
    t = with_gradients(leaf_tensors(n))
    y = t["columns"][:, 0]
    found = gaussian_nll(compose(kind, t), t["noise"], y, all_earlier(n))
    law = torch.distributions.MultivariateNormal(
        torch.zeros_like(y), dense(compose(kind, t)) + t["noise"].diag()
    )
    torch.testing.assert_close(found, -law.log_prob(y), rtol=1e-10, atol=1e-10)
    assert_same_gradients(gradients(found, t), gradients(-law.log_prob(y), t))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_few_neighbors_match_finite_differences(kind: str) -> None:
    n, step = 40, 1e-5
    neighbors = previous_neighbors(leaf_tensors(n)["plane"], 6)
    t = with_gradients(leaf_tensors(n))

    def cost(t: dict[str, Tensor]) -> Tensor:
        return gaussian_nll(compose(kind, t), t["noise"], t["columns"][:, 0], neighbors)

    slopes = dict(zip(t, gradients(cost(t), t), strict=True))
    for name, slope in slopes.items():
        if slope is None:
            continue
        way = draw(*slope.shape, seed=3) if slope.ndim else torch.ones_like(slope)
        if slope.ndim:
            way[[3, 5]] = 0.0  # coincident points: an exponential has a kink there
        sides = []
        for sign in (1, -1):
            moved = {k: v.detach() for k, v in t.items()}
            moved[name] = moved[name] + sign * step * way
            sides.append(cost(moved))
        expected = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close((slope * way).sum(), expected, rtol=1e-5, atol=1e-6)


def test_exponential_on_a_line_needs_one_neighbor() -> None:
    x = uniform(60, 1).sort(0).values * 8
    signal = (Term(scalar(1.7), (Factor(x, "exponential"),)),)
    chain = torch.arange(-1, 59, dtype=torch.int32)[:, None]
    found = whiten(signal, torch.zeros(60, dtype=torch.float64), draw(60, 2), chain)
    torch.testing.assert_close(
        found, dense_whiten(dense(signal), draw(60, 2)), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 17])
def test_any_number_of_points(size: int) -> None:
    x = uniform(size, 2)
    signal = (Term(scalar(1.7), (Factor(x, "matern52"),)),)
    noise = torch.full((size,), 0.1, dtype=torch.float64)
    found = whiten(signal, noise, draw(size, 1), previous_neighbors(x, 20))
    torch.testing.assert_close(
        found, dense_whiten(dense(signal) + noise.diag(), draw(size, 1)), rtol=1e-10, atol=1e-10
    )


def test_no_column_and_no_neighbor() -> None:
    x = uniform(20, 2)
    signal = (Term(scalar(1.7), (Factor(x, "matern52"),)),)
    noise = torch.full((20,), 0.3, dtype=torch.float64)
    absent = torch.full((20, 3), -1, dtype=torch.int32)
    logdet, gram = whiten(signal, noise, torch.zeros(20, 0, dtype=torch.float64), absent)
    assert math.isclose(float(logdet), 20 * math.log(2.0), rel_tol=1e-12)
    assert gram.shape == (0, 0)


# Fisher information.


def tangents_by_hand(
    kind: str, t: dict[str, Tensor]
) -> tuple[list[Tangent], list[dict[str, Tensor]]]:
    """Tangents of four parameters, and the same as directions in the tensors."""
    zero, one = scalar(0.0), scalar(1.0)
    nested = kind == "nested"
    both = torch.stack([t["first"], t["second"]]) if nested else t["first"].reshape(1)
    move = draw(*t["plane"].shape, seed=9)
    bend = draw(*t["space"].shape, seed=8)
    hue = uniform(len(move), seed=7)
    directions: list[dict[str, Tensor]] = [
        {"first": t["first"], "second": t["second"]},
        {"noise": hue},
    ]
    given = [Tangent(variances=both), Tangent(noise=hue)]
    if kind != "table":
        only = torch.stack([one, zero]) if nested else one.reshape(1)
        directions.append({"plane": move, "first": one})
        given.append(Tangent(coords={(0, 0): move}, variances=only))
    if kind != "closed":
        key = (1, 0) if nested else (0, 0)
        directions.append({"nu": one, "space": bend, "noise": hue})
        given.append(Tangent(shapes={key: 1.0}, coords={key: bend}, noise=hue))
    return given, directions


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_with_all_neighbors_is_dense(kind: str) -> None:
    n = 29
    t = leaf_tensors(n)
    t["plane"][5] += 0.1
    given, directions = tangents_by_hand(kind, t)
    found = fisher(compose(kind, t), t["noise"], t["columns"], all_earlier(n), given)

    def covariance(*values: Tensor) -> Tensor:
        moved = dict(zip(t, values, strict=True))
        return dense(compose(kind, moved)) + moved["noise"].diag()

    def along(direction: dict[str, Tensor]) -> Tensor:
        ways = tuple(direction.get(k, torch.zeros_like(v)) for k, v in t.items())
        return torch.autograd.functional.jvp(covariance, tuple(t.values()), ways)[1]

    matrix = covariance(*t.values())
    slopes = [along(d) for d in directions]
    ratios = [torch.linalg.solve(matrix, s) for s in slopes]
    weighted = torch.linalg.solve(matrix, t["columns"])
    torch.testing.assert_close(found[:2], dense_whiten(matrix, t["columns"]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        found[2], torch.stack([r.trace() for r in ratios]), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(
        found[3], torch.stack([-weighted.mT @ s @ weighted for s in slopes]), rtol=1e-8, atol=1e-7
    )
    info = torch.stack([torch.stack([0.5 * (a @ b).trace() for b in ratios]) for a in ratios])
    torch.testing.assert_close(found[4], info, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_with_few_neighbors_agrees_with_the_reverse_pass(kind: str) -> None:
    n = 43
    t = with_gradients(leaf_tensors(n))
    neighbors = previous_neighbors(t["plane"], 7)
    given, directions = tangents_by_hand(kind, {k: v.detach() for k, v in t.items()})
    found = fisher(compose(kind, t), t["noise"], t["columns"], neighbors, given)
    logdet, gram = whiten(compose(kind, t), t["noise"], t["columns"], neighbors)

    def project(value: Tensor) -> Tensor:
        slopes = dict(zip(t, gradients(value, t), strict=True))
        parts = [
            [(slopes[k] * w).sum() for k, w in d.items() if slopes[k] is not None]
            for d in directions
        ]
        return torch.stack([sum(p, scalar(0.0)) for p in parts])

    torch.testing.assert_close(found[0], logdet.detach())
    torch.testing.assert_close(found[1], gram.detach())
    torch.testing.assert_close(found[2], project(logdet), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[3][:, 0, 1], project(gram[0, 1]), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[3][:, 2, 2], project(gram[2, 2]), rtol=1e-8, atol=1e-8)


# Two engines, one law.


@pytest.mark.parametrize("radial", ["matern32", "table"])
def test_compiled_and_torch_engines_agree(radial: str) -> None:
    n = 700  # more than one chunk of the torch engine
    names = ("scale", "variance", "nu", "x", "noise", "columns")
    start = (
        scalar(3.0),
        scalar(1.2),
        scalar(0.9),
        uniform(n, 2),
        0.1 + uniform(n, seed=2),
        draw(n, 2),
    )
    neighbors = previous_neighbors(start[3], 10)
    mix = draw(2, 2, seed=4)
    results = []
    for compiled in (True, False):
        t = {k: v.clone().requires_grad_() for k, v in zip(names, start, strict=True)}
        table = matern_table(t["nu"]) if radial == "table" else None

        def covariance(a: Tensor, b: Tensor, t: dict[str, Tensor] = t, table=table) -> Tensor:
            return t["variance"] * correlation(
                radial, table, distance(a * t["scale"], b * t["scale"])
            )

        if compiled:
            signal = (Term(t["variance"], (Factor(t["x"] * t["scale"], radial, table),)),)
            pair = whiten(signal, t["noise"], t["columns"], neighbors)
            along = [
                Tangent(coords={(0, 0): t["x"].detach()}),
                Tangent(variances=torch.ones(1, dtype=torch.float64)),
            ]
            scores = fisher(signal, t["noise"], t["columns"], neighbors, along)
        else:
            needed = [t["scale"], t["variance"], t["nu"]]
            pair = torch_engine.whiten(
                covariance, t["x"], t["noise"], t["columns"], neighbors, needed
            )
            scores = torch_engine.fisher(
                covariance, t["x"], t["noise"], t["columns"], neighbors, needed[:2]
            )
        slopes = gradients(pair[0] + (mix * pair[1]).sum(), t)
        results.append((*pair, *scores, *(0.0 * t["nu"] if g is None else g for g in slopes)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-10, atol=1e-10 * max(1.0, float(b.detach().abs().max()))
        )


def test_engines_agree_on_prediction() -> None:
    x, start = uniform(620, 2), 40
    noise = torch.cat(
        [0.1 * torch.ones(start, dtype=torch.float64), torch.zeros(580, dtype=torch.float64)]
    )
    neighbors = previous_neighbors(x, 9, start)
    found = predict_weights(
        (Term(scalar(2.0), (Factor(x, "exponential"),)),), noise, neighbors, start
    )
    expected = torch_engine.predict_weights(
        lambda a, b: 2 * torch.exp(-distance(a, b)), x, noise, neighbors, start
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    n = 1500
    signal, results = leaf_tensors(n), []
    neighbors = previous_neighbors(signal["plane"], 12)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            t = with_gradients(signal)
            cost = gaussian_nll(compose("nested", t), t["noise"], t["columns"][:, 0], neighbors)
            given, _ = tangents_by_hand("nested", signal)
            scores = fisher(compose("nested", t), t["noise"], t["columns"], neighbors, given)
            again = previous_neighbors(signal["plane"], 12)
            results.append(
                [cost, *(g for g in gradients(cost, t) if g is not None), *scores, again]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# Ordering and neighbours.


def brute_force(x: np.ndarray, size: int, start: int) -> np.ndarray:
    table = np.full((len(x) - start, size), -1)
    for i in range(start, len(x)):
        square = ((x[:i] - x[i]) ** 2).sum(1)
        nearest = np.lexsort((np.arange(i), square))[:size]
        table[i - start, : len(nearest)] = nearest
    return table


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["random", "lattice", "duplicates", "constant"])
@pytest.mark.parametrize("start", [0, 70])
def test_neighbors_are_the_nearest(dims: int, layout: str, start: int) -> None:
    rng = np.random.default_rng(dims)
    x = {
        "random": rng.random((200, dims)),
        "lattice": rng.integers(0, 4, (200, dims)).astype(float),
        "duplicates": np.repeat(rng.random((20, dims)), 10, 0),
        "constant": np.ones((200, dims)),
    }[layout]
    found = previous_neighbors(torch.as_tensor(x), 9, start)
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), brute_force(x, 9, start))


def fill_distance(x: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.sqrt(((x[:, None] - x[chosen]) ** 2).sum(-1).min(1).max()))


def greedy(x: np.ndarray, first: int, count: int) -> np.ndarray:
    chosen, square = [first], ((x - x[first]) ** 2).sum(1)
    for _ in range(count - 1):
        chosen.append(int(square.argmax()))
        square = np.minimum(square, ((x - x[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_maxmin_spreads_the_points(dims: int) -> None:
    x = np.random.default_rng(dims).random((900, dims))
    order = maxmin_order(torch.as_tensor(x), seed=1).numpy()
    np.testing.assert_array_equal(np.sort(order), np.arange(900))
    best = greedy(x, order[0], 512)
    for count in (4, 16, 64, 256, 512):
        # A greedy choice is within twice the best possible; ours within twice the greedy one.
        assert fill_distance(x, order[:count]) <= 2 * fill_distance(x, best[:count])


def test_maxmin_is_deterministic_and_total() -> None:
    for x in (
        uniform(500, 2),
        torch.ones(50, 3, dtype=torch.float64),
        uniform(20, 2).repeat(9, 1),
        uniform(1, 2),
    ):
        order = maxmin_order(x, seed=3)
        assert torch.equal(order, maxmin_order(x, seed=3))
        assert torch.equal(order.sort().values, torch.arange(len(x)))
    assert len(maxmin_order(uniform(0, 2))) == 0


# Prediction and simulation.


def problem(data: int, targets: int) -> tuple[Composition, Tensor, Tensor, Tensor]:
    """Signal, noise, and dense covariance of data and targets."""
    x = uniform(data + targets, 2)
    signal = (Term(scalar(1.5), (Factor(x * 3, "matern32"),)),)
    noise = torch.zeros(data + targets, dtype=torch.float64)
    noise[:data] = 0.2
    return signal, noise, dense(signal) + noise.diag(), x


def conditional(matrix: Tensor, data: int) -> tuple[Tensor, Tensor]:
    """Kriging weights and covariance of the targets, densely."""
    gain = torch.linalg.solve(matrix[:data, :data], matrix[:data, data:]).mT
    return gain, matrix[data:, data:] - gain @ matrix[:data, data:]


def test_prediction_given_all_is_the_dense_conditional_law() -> None:
    data, targets = 25, 33
    signal, noise, matrix, x = problem(data, targets)
    neighbors = previous_neighbors(x, data + targets, data)
    weights, std = predict_weights(signal, noise, neighbors, data)
    gain, covariance = conditional(matrix, data)
    y = draw(data, 2)
    columns = torch.cat([y, torch.zeros(targets, 2, dtype=torch.float64)])
    mean = propagate(weights, std, neighbors, data, columns)[data:]
    torch.testing.assert_close(mean, gain @ y, rtol=1e-8, atol=1e-8)
    roots = torch.zeros(data + targets, targets, dtype=torch.float64)
    propagate(weights, std, neighbors, data, roots, torch.eye(targets, dtype=torch.float64))
    torch.testing.assert_close(roots[data:] @ roots[data:].mT, covariance, rtol=1e-8, atol=1e-8)
    found = marginal_variance(weights, std, neighbors, data, 10, 0)
    torch.testing.assert_close(found, covariance.diagonal(), rtol=1e-8, atol=1e-8)


def test_simulated_variance_is_within_its_error() -> None:
    data, targets, size = 20, 60, 4000
    signal, noise, _, x = problem(data, targets)
    neighbors = previous_neighbors(x, 8, data)
    weights, std = predict_weights(signal, noise, neighbors, data)
    exact = marginal_variance(weights, std, neighbors, data, size, 0)
    found = simulated_variance(frozen(weights, std, neighbors), data, size, 0)
    own = std.square()
    error = (exact - own) * math.sqrt(
        2 / size
    )  # of a variance estimated from `size` normal draws of known mean
    assert ((torch.as_tensor(found) - exact).abs() <= 5 * error + 1e-12).all()


def test_many_targets_take_the_simulated_variance() -> None:
    targets = 16100
    x = torch.arange(targets, dtype=torch.float64)[:, None] / 20
    signal = (Term(scalar(1.0), (Factor(x, "exponential"),)),)
    chain = torch.arange(-1, targets - 1, dtype=torch.int32)[:, None]
    weights, std = predict_weights(signal, torch.zeros(targets, dtype=torch.float64), chain, 0)
    found = marginal_variance(weights, std, chain, 0, 400, 0)
    # A stationary chain: every variance is 1, estimated with a relative error of sqrt(2 / 400) at
    # most.
    assert (found - 1).abs().max() <= 6 * math.sqrt(2 / 400)
    assert (found - 1).abs().mean() <= math.sqrt(2 / 400)


def test_a_target_at_an_exact_datum_interpolates() -> None:
    x = uniform(30, 2)
    x = torch.cat([x, x[:10], uniform(6, 2, seed=3)])
    for radial in ("exponential", "matern52", "gaussian"):
        signal = (Term(scalar(1.5), (Factor(x * 6, radial),)),)
        noise = torch.zeros(46, dtype=torch.float64)
        neighbors = previous_neighbors(x, 12, 30)
        weights, std = predict_weights(signal, noise, neighbors, 30)
        assert weights.isfinite().all()
        assert std[:10].max() < 1e-5
        y = draw(30)
        mean = propagate(
            weights,
            std,
            neighbors,
            30,
            torch.cat([y, torch.zeros(16, dtype=torch.float64)])[:, None].contiguous(),
        )
        torch.testing.assert_close(mean[30:40, 0], y[:10], rtol=1e-5, atol=1e-5)


def test_simulations_have_the_conditional_covariance() -> None:
    data, targets, size = 15, 6, 20000
    signal, noise, matrix, x = problem(data, targets)
    neighbors = previous_neighbors(x, data + targets, data)
    weights, std = predict_weights(signal, noise, neighbors, data)
    _, covariance = conditional(matrix, data)
    columns = torch.zeros(data + targets, size, dtype=torch.float64)
    z = propagate(weights, std, neighbors, data, columns, draw(targets, size, seed=6))[data:]
    found = z @ z.mT / size
    scale = covariance.diagonal()
    error = (
        (covariance.square() + scale[:, None] * scale) / size
    ).sqrt()  # of a sample covariance of known mean
    assert ((found - covariance).abs() <= 5 * error).all()


# Refusals.


def test_coincident_exact_data_are_refused() -> None:
    x = uniform(40, 2)
    x[33] = x[7]
    signal = (Term(scalar(1.5), (Factor(x, "exponential"),)),)
    zero, y = torch.zeros(40, dtype=torch.float64), draw(40)
    neighbors = previous_neighbors(x, 10)
    with pytest.raises(ValueError, match=r"not positive definite at datum 33\. Set noise_std > 0"):
        gaussian_nll(signal, zero, y, neighbors)
    with pytest.raises(ValueError, match="not positive definite at datum 33"):
        whiten(signal, zero, y[:, None], neighbors)
    with pytest.raises(ValueError, match="not positive definite at datum 33"):
        fisher(signal, zero, y[:, None], neighbors, [])
    with pytest.raises(ValueError, match="not positive definite at datum 33"):
        torch_engine.whiten(
            lambda a, b: torch.exp(-distance(a, b)), x, zero, y[:, None], neighbors
        )
    target = torch.cat([x, x[33:34] + 0.01])
    signal = (Term(scalar(1.5), (Factor(target, "exponential"),)),)
    near = previous_neighbors(target, 10, 40)
    with pytest.raises(
        ValueError, match="data that determine one another among those of point 40"
    ):
        predict_weights(signal, torch.zeros(41, dtype=torch.float64), near, 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"noise": torch.full((20,), float("nan"), dtype=torch.float64)},
            r"\(noise=\.\.\.\): expected finite",
        ),
        (
            {"y": torch.full((20,), float("inf"), dtype=torch.float64)},
            r"\(y=\.\.\.\): expected finite",
        ),
        (
            {"x": torch.full((20, 2), float("nan"), dtype=torch.float64)},
            "expected finite coordinates",
        ),
    ],
)
def test_bad_input_is_refused(change: dict[str, Tensor], message: str) -> None:
    x = uniform(20, 2)
    given = {
        "noise": torch.ones(20, dtype=torch.float64),
        "y": draw(20),
        "neighbors": previous_neighbors(x, 4),
        "x": x,
        **change,
    }
    signal = (Term(scalar(1.5), (Factor(given["x"], "exponential"),)),)
    with pytest.raises(ValueError, match=message):
        gaussian_nll(signal, given["noise"], given["y"], given["neighbors"])
