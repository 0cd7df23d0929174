"""Sparse Cholesky: everything against dense algebra, on graphs of many kinds."""

import gc
import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch

import matheron.linalg.cholesky.inverse as inverse
import matheron.linalg.cholesky.numeric as numeric
import matheron.linalg.cholesky.symbolic as symbolic

from matheron.linalg.cholesky import Analysis, Cholesky
from matheron.linalg.sparse import Sparse


def laplacian(*shape):
    """Differences between neighbours of a lattice."""
    total = sparse.csr_array((1, 1))
    for size in shape:
        ends = np.r_[1.0, 2 * np.ones(size - 2), 1.0] if size > 1 else np.zeros(1)
        line = sparse.diags_array(
            [ends, -np.ones(size - 1), -np.ones(size - 1)], offsets=[0, 1, -1]
        )
        n = total.shape[0]
        total = sparse.kron(total, sparse.eye_array(size)) + sparse.kron(sparse.eye_array(n), line)
    return total


def nodes(*shape):
    mesh = np.meshgrid(*(np.arange(float(s)) for s in shape), indexing="ij")
    return torch.as_tensor(np.stack([m.ravel() for m in mesh], axis=1))


def shifted(G, shift=0.5):
    return sparse.csr_array(G + shift * sparse.eye_array(G.shape[0]))


def matern(smooth):
    K = shifted(laplacian(14, 11))
    return (K.T @ K if smooth else K), nodes(14, 11)


def space_time():
    K, steps, n = shifted(laplacian(7, 6), 1.3), 5, 42
    rng = np.random.default_rng(1)
    drift = sparse.csr_array(K + 0.2 * sparse.diags_array(rng.random(n - 1), offsets=1))
    D = sparse.kron(sparse.eye_array(steps), drift) - sparse.kron(
        sparse.eye_array(steps, k=-1), sparse.eye_array(n)
    )
    return D.T @ D, nodes(steps, 7, 6)


def random_graph(n=150, seed=0):
    rng = np.random.default_rng(seed)
    A = sparse.random_array((n, n), density=2.0 / n, rng=rng)
    return shifted(A @ A.T, 1.0), None


def two_fields():
    K = shifted(laplacian(9, 8))
    return sparse.kron(K.T @ K, np.array([[2.0, 0.7], [0.7, 1.0]])), nodes(9, 8).repeat_interleave(
        2, dim=0
    )


def disconnected():
    K = shifted(laplacian(6, 5))
    parts = sparse.block_diag([K.T @ K, 3.0 * np.eye(2), shifted(laplacian(40)), np.eye(1)])
    return parts, None


def apart():
    K = shifted(laplacian(6, 5))
    both = torch.cat([nodes(6, 5), nodes(6, 5) + 100.0])
    return sparse.block_diag([K.T @ K, K]), both


def arrow(n=400):
    A = sparse.lil_array((n, n))
    A.setdiag(np.linspace(2, 3, n))
    A[0, 1:], A[1:, 0], A[0, 0] = 0.1, 0.1, 10.0
    return A, None


def dense_blocks():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((40, 40))
    return sparse.csr_array(A @ A.T + 40 * np.eye(40)), torch.as_tensor(rng.random((40, 2)))


def clique_chain(size=450):
    """Dense blocks in a row: fronts that are worked through in tiles."""
    rng = np.random.default_rng(4)
    A = rng.standard_normal((size, size)) / size
    near = sparse.kron(sparse.diags_array([1.0, 1.0], offsets=[1, -1], shape=(3, 3)), A @ A.T)
    full = sparse.kron(sparse.eye_array(3), np.eye(size) * 5 + A @ A.T)
    return full + near, nodes(3, size)[:, :1]


CASES = {
    "5 points": lambda: matern(False),
    "13 points": lambda: matern(True),
    "13 points, no places": lambda: (matern(True)[0], None),
    "cube": lambda: (shifted(laplacian(7, 6, 5)), nodes(7, 6, 5)),
    "line": lambda: (shifted(laplacian(90)), nodes(90)),
    "space-time": space_time,
    "space-time, no places": lambda: (space_time()[0], None),
    "random graph": random_graph,
    "two fields": two_fields,
    "two fields, no places": lambda: (two_fields()[0], None),
    "disconnected": disconnected,
    "apart": apart,
    "arrow": arrow,
    "diagonal": lambda: (sparse.diags_array(np.linspace(1, 2, 70)), None),
    "dense": dense_blocks,
    "one place": lambda: (dense_blocks()[0], torch.zeros(40, 1, dtype=torch.float64)),
    "one": lambda: (sparse.csr_array([[4.0]]), None),
}
PLANS = ("subtrees", "fronts", "tiles")


@pytest.fixture(params=PLANS)
def cut(request, monkeypatch):
    """Small problems are worked through as large ones are: by fronts, and by their tiles."""
    if request.param != "subtrees":
        monkeypatch.setattr(symbolic, "SMALL", 0.0)
    if request.param == "tiles":
        for module in (numeric, inverse):
            monkeypatch.setattr(module, "LARGE", 0.0)
        monkeypatch.setattr(numeric.slices, "__defaults__", (5,))
    return request.param


def problem(name):
    Q, places = CASES[name]()
    Q = Sparse.from_scipy(sparse.csr_array(Q))
    return Q, Q.to_dense(), Analysis(Q.pattern, places)


def on_pattern(Q, dense):
    return dense[Q.pattern.row_index, Q.pattern.column_index]


@pytest.mark.parametrize("name", CASES)
def test_dense(name, cut, generator):
    Q, D, analysis = problem(name)
    factor, Z, n = Cholesky(Q, analysis), torch.linalg.inv(D), len(D)
    near = {"rtol": 0.0, "atol": 1e-10 * max(1.0, Z.abs().max().item())}
    torch.testing.assert_close(factor.logdet(), torch.logdet(D), rtol=1e-12, atol=1e-10)
    for b in (torch.randn(n, generator=generator).double(), torch.eye(n, dtype=torch.float64)):
        torch.testing.assert_close(factor.solve(b), Z @ b, **near)
    root = factor.sqrt_solve(torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(root @ root.T, Z, **near)
    torch.testing.assert_close(factor.selected_inverse().values, on_pattern(Q, Z), **near)
    torch.testing.assert_close(factor.variance(), Z.diagonal(), **near)
    z = torch.randn(n, generator=generator).double()
    torch.testing.assert_close(factor.sqrt_solve(z), root @ z, **near)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name, generator):
    """The function reads (Q + Q') / 2, and so does the dense one."""
    Q, D, analysis = problem(name)
    values, b = Q.values.requires_grad_(), torch.randn(len(D), 3, generator=generator).double()
    b.requires_grad_()
    w = torch.randn(len(D), 3, generator=generator).double()
    factor = Cholesky(Q, analysis)
    found = torch.autograd.grad(factor.logdet() + (factor.solve(b) * w).sum(), [values, b])
    dense = Q.to_dense()
    half = 0.5 * (dense + dense.T)
    cost = torch.logdet(half) + (torch.linalg.solve(half, b) * w).sum()
    for ours, theirs in zip(found, torch.autograd.grad(cost, [values, b]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8 * theirs.abs().max().item())


def test_gradcheck(generator):
    Q, _, analysis = problem("two fields, no places")
    b = torch.randn(Q.shape[0], generator=generator).double().requires_grad_()

    def outputs(values, b):
        factor = Cholesky(Sparse(Q.pattern, values), analysis)
        return factor.logdet(), factor.solve(b)

    inputs = (Q.values.clone().requires_grad_(), b)
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_gradient_by_finite_differences():
    Q, _, analysis = problem("13 points")
    turned = Q.pattern.transpose[1]
    step = torch.randn(Q.pattern.nnz, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-3 * (step + step[turned])
    value = lambda h: Cholesky(Sparse(Q.pattern, Q.values + h * step), analysis).logdet()
    Z = Cholesky(Q, analysis).selected_inverse()
    # fourth-order differences
    slope = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / 12
    torch.testing.assert_close(slope, (Z.values * step).sum(), rtol=1e-8, atol=1e-10)


def test_tiles():
    """Fronts that are large enough to be worked through in tiles by themselves."""
    Q, places = clique_chain()
    Q = Sparse.from_scipy(sparse.csr_array(Q))
    D = Q.to_dense()
    factor, Z = Cholesky(Q, places=places), torch.linalg.inv(D)
    torch.testing.assert_close(factor.logdet(), torch.logdet(D), rtol=1e-12, atol=0.0)
    near = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(factor.selected_inverse().values, on_pattern(Q, Z), **near)
    b = torch.ones(len(D), 2, dtype=torch.float64)
    torch.testing.assert_close(factor.solve(b), Z @ b, **near)


@pytest.mark.parametrize("name", ["13 points", "clique chain"])
def test_same_bits_on_any_number_of_threads(name, monkeypatch):
    monkeypatch.setattr(symbolic, "SMALL", 1e4)
    Q, places = clique_chain() if name == "clique chain" else CASES[name]()
    found, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        fresh = Sparse.from_scipy(sparse.csr_array(Q))
        factor = Cholesky(fresh, places=places)
        b = torch.linspace(0, 1, 2 * Q.shape[0], dtype=torch.float64).reshape(-1, 2)
        found.append(
            [factor.logdet(), factor.solve(b), factor.sqrt_solve(b[:, 0]), factor.variance()]
        )
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_two_live_factors_of_one_analysis():
    Q, D, analysis = problem("13 points")
    first = Cholesky(Q, analysis)
    second = Cholesky(Q * 2.0, analysis)
    b = torch.ones(len(D), dtype=torch.float64)
    torch.testing.assert_close(second.solve(b), torch.linalg.solve(2 * D, b))
    torch.testing.assert_close(first.solve(b), torch.linalg.solve(D, b))
    del first
    gc.collect()
    third = Cholesky(Q * 3.0, analysis)
    torch.testing.assert_close(second.variance(), torch.linalg.inv(2 * D).diagonal())
    torch.testing.assert_close(third.variance(), torch.linalg.inv(3 * D).diagonal())


def test_factor_is_kept_for_the_gradient():
    """The factor may be forgotten before the gradient is taken."""
    Q, D, analysis = problem("13 points")
    values = Q.values.requires_grad_()
    cost = Cholesky(Q, analysis).logdet()
    Cholesky(Q * 5.0, analysis).variance()
    (found,) = torch.autograd.grad(cost, values)
    torch.testing.assert_close(found, on_pattern(Q, torch.linalg.inv(D)).detach())


@pytest.mark.parametrize("name", ["13 points", "disconnected", "arrow"])
def test_not_positive_definite(name, cut):
    Q, D, analysis = problem(name)
    bad = Sparse(Q.pattern, Q.values.clone())
    at = torch.nonzero((Q.pattern.row_index == 7) & (Q.pattern.column_index == 7)).item()
    bad.values[at] -= 1.0001 / torch.linalg.inv(D)[7, 7]
    message = r"^Somewhere: expected a positive definite precision, got a pivot of -.* at unknown"
    with pytest.raises(ValueError, match=message) as caught:
        Cholesky(bad, analysis, where="Somewhere")
    assert "\n" not in str(caught.value)
    Cholesky(Q, analysis)  # the analysis still serves


def test_pivot_is_named():
    Q = Sparse.from_scipy(sparse.diags_array(np.array([2.0, 3.0, -0.25, 1.0])))
    with pytest.raises(ValueError, match=r"a pivot of -0\.25 at unknown 2\."):
        Cholesky(Q)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(value):
    Q, _, analysis = problem("13 points")
    Q.values[3] = value
    with pytest.raises(ValueError, match=r"^fit: expected a finite precision, got (nan|inf)"):
        Cholesky(Q, analysis, where="fit")


def test_missing_diagonal():
    Q = Sparse.from_scipy(sparse.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]])))
    with pytest.raises(ValueError, match="got a pivot of 0 at"):
        Cholesky(Q)


def test_empty():
    Q = Sparse.from_scipy(sparse.csr_array((0, 0)))
    factor = Cholesky(Q)
    assert factor.logdet().item() == 0.0
    assert factor.solve(torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 2)
    assert factor.variance().shape == (0,)


def test_refused():
    half = Sparse.from_scipy(sparse.csr_array(np.array([[2.0, 0.0], [1.0, 2.0]])))
    with pytest.raises(ValueError, match="expected both triangles"):
        Analysis(half.pattern)
    Q, _, analysis = problem("13 points")
    with pytest.raises(ValueError, match="expected finite coordinates of 154 unknowns"):
        Analysis(Q.pattern, torch.zeros(3, 2, dtype=torch.float64))
    other = problem("13 points")[0]
    with pytest.raises(ValueError, match="the same Pattern object"):
        Cholesky(other, analysis)
    with pytest.raises(ValueError, match=r"solve\(b=...\): expected 154 rows, got 3"):
        Cholesky(Q, analysis).solve(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("with_places", [True, False])
def test_superlu(with_places):
    """On a medium problem, against the LU factors of scipy."""
    K = shifted(laplacian(90, 80), 0.1)
    Q = sparse.csc_array(K.T @ K)
    lu = scipy.sparse.linalg.splu(Q, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    ours = Sparse.from_scipy(Q)
    factor = Cholesky(ours, places=nodes(90, 80) if with_places else None)
    theirs = np.log(np.abs(lu.U.diagonal())).sum()
    assert factor.logdet().item() == pytest.approx(theirs, rel=1e-10)
    b = np.random.default_rng(0).standard_normal((7200, 5))
    np.testing.assert_allclose(
        factor.solve(torch.as_tensor(b)).numpy(), lu.solve(b), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("side", [240, 256])
def test_operations_of_a_square(side):
    """Within a tenth of the 829/84 multiplications per cube of the side that George counts, for
    sides whose samples could repeat too.
    """
    line = sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(side, side))
    Q = Sparse.from_scipy(sparse.kron(line, line))
    assert Analysis(Q.pattern, nodes(side, side)).operations < 1.1 * 829 / 84 * side**3


@pytest.mark.parametrize("with_places", [True, False])
def test_fill_grows_as_n_log_n(with_places):
    """Nested dissection of a square: the entries of the factor, per n log2 n, do not grow."""
    found = []
    for side in (32, 64, 128):
        K = Sparse.from_scipy(shifted(laplacian(side, side)))
        places = nodes(side, side) if with_places else None
        found.append(Analysis(K.pattern, places).entries / (side**2 * 2 * np.log2(side)))
    assert max(found) < 4.0
    assert found[2] < 1.1 * found[1]
