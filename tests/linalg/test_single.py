"""Factors in single precision: their solutions and draws against those in double precision."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

import matheron.linalg.cholesky.numeric as numeric
import matheron.linalg.cholesky.symbolic as symbolic

from matheron.linalg.cholesky import Analysis, Cholesky, SingleCholesky
from matheron.linalg.sparse import Sparse


def line(n):
    return sparse.diags_array([2.0, -1.0, -1.0], offsets=[0, 1, -1], shape=(n, n))


def problem(side=24, shift=0.05, power=2, units=1.0):
    """A smooth field on a square, seen in places; the units of the unknowns differ."""
    eye = sparse.eye_array(side)
    K = sparse.kron(line(side), eye) + sparse.kron(eye, line(side))
    K = sparse.csr_array(K + shift * sparse.eye_array(side**2))
    Q = K
    for _ in range(power - 1):
        Q = Q @ K
    rng = np.random.default_rng(0)
    scale = sparse.diags_array(units ** rng.uniform(-1, 1, side**2))
    Q = scale @ (Q + sparse.diags_array(1.0 * (rng.random(side**2) < 0.2))) @ scale
    axis = torch.arange(float(side))
    places = torch.cartesian_prod(axis, axis).double()
    Q = Sparse.from_scipy(0.5 * (Q + Q.T))
    return Q, Analysis(Q.pattern, places)


@pytest.fixture(params=["subtrees", "tiles"])
def cut(request, monkeypatch):
    if request.param == "tiles":
        monkeypatch.setattr(symbolic, "SMALL", 0.0)
        monkeypatch.setattr(numeric, "LARGE", 0.0)
        monkeypatch.setattr(numeric.slices, "__defaults__", (5,))


@pytest.mark.parametrize("units", [1.0, 1e9])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_solutions_are_those_in_double_precision(power, units, cut, generator):
    """To the condition number times the rounding of either."""
    Q, analysis = problem(power=power, units=units)
    n = Q.shape[0]
    quick, exact = SingleCholesky(Q, analysis), Cholesky(Q, analysis)
    s = Q.diagonal().sqrt()[:, None]
    for columns in (1, 70):
        b = torch.randn(n, columns, generator=generator).double() * s
        ours, theirs = (f.solve(b) * s for f in (quick, exact))
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-9 * theirs.abs().max().item())


def test_a_vector_is_a_column(generator):
    Q, analysis = problem()
    quick = SingleCholesky(Q, analysis)
    b = torch.randn(Q.shape[0], 3, generator=generator).double()
    b[:, 1] *= 1e60
    b[:, 2] = 0.0
    x = quick.solve(b)
    assert (x[:, 2] == 0.0).all()
    for k in range(2):
        torch.testing.assert_close(quick.solve(b[:, k]), x[:, k], rtol=1e-9, atol=0.0)
    z = torch.randn(Q.shape[0], 2, generator=generator).double()
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(quick.sqrt_solve(z[:, 0]), quick.sqrt_solve(z)[:, 0], **near)
    torch.testing.assert_close(quick.sqrt_solve(z), Cholesky(Q, analysis).sqrt_solve(z), **near)
    assert quick.solve(b[:, :0]).shape == (Q.shape[0], 0)


@pytest.mark.parametrize("power", [2, 3])
def test_draws_have_the_law_to_the_nats_that_are_told(power):
    """The divergence of Gaussian laws, by dense algebra: (tr M - log|M| - n) / 2, M = R' Q R."""
    Q, analysis = problem(side=16, shift=0.01, power=power)
    n = Q.shape[0]
    quick = SingleCholesky(Q, analysis)
    R = quick.sqrt_solve(torch.eye(n, dtype=torch.float64))
    e = torch.linalg.eigvalsh(R.T @ Q.to_dense() @ R) - 1
    divergence = (e - torch.log1p(e)).sum().item() / 2
    assert 0 < divergence < 1e-6
    # rounding differs from column to column, and a column of one number has less of it
    assert divergence < 2 * quick.information
    assert quick.information == pytest.approx(n * quick.defect**2 / 4)


def test_the_units_of_the_matrix_do_not_matter(generator):
    Q, analysis = problem()
    z = torch.randn(Q.shape[0], 4, generator=generator).double()
    one = SingleCholesky(Q, analysis)
    for units in (2.0**-180, 2.0**180):
        other = SingleCholesky(Q * units, analysis)
        assert other.defect == one.defect
        assert torch.equal(other.sqrt_solve(z), one.sqrt_solve(z) / units**0.5)
        assert torch.equal(other.solve(z), one.solve(z) / units)


def test_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(symbolic, "SMALL", 1e4)
    found, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        Q, analysis = problem()
        quick = SingleCholesky(Q, analysis)
        b = torch.linspace(0, 1, 2 * Q.shape[0], dtype=torch.float64).reshape(-1, 2)
        found.append((torch.tensor(quick.defect), quick.solve(b), quick.sqrt_solve(b)))
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_two_precisions_share_an_analysis(generator):
    Q, analysis = problem()
    b = torch.randn(Q.shape[0], generator=generator).double()
    first = Cholesky(Q, analysis).solve(b)
    quick, exact = SingleCholesky(Q * 4.0, analysis), Cholesky(Q * 2.0, analysis)
    torch.testing.assert_close(exact.solve(b), first / 2, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(quick.solve(b), first / 4, rtol=1e-8, atol=0.0)


def test_refused():
    Q, analysis = problem()
    with pytest.raises(ValueError, match=r"solve\(b=...\): expected 576 rows, got 3"):
        SingleCholesky(Q, analysis).solve(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="the same Pattern object"):
        SingleCholesky(problem()[0], analysis)
    for less, pivot in ((1.0, r"-.*"), (1e9, r"-1e\+09")):
        values = Q.values.clone()
        values[Q.pattern.row_index == Q.pattern.column_index] -= less
        message = rf"^here: expected .* in single precision, got a pivot of {pivot} at unknown"
        with pytest.raises(ValueError, match=message):
            SingleCholesky(Sparse(Q.pattern, values), analysis, where="here")
    Q, analysis = problem(side=40, shift=1e-3, power=4)
    rough = Sparse.from_scipy(Q.to_scipy() - 0.999 * seen(Q))
    message = r"^here: expected .*single precision.* double precision"
    with pytest.raises(ValueError, match=message):
        SingleCholesky(rough, where="here")
    Cholesky(rough)


def seen(Q):
    """What the data add to the precision of the problem."""
    rng = np.random.default_rng(0)
    rng.uniform(-1, 1, Q.shape[0])
    return sparse.diags_array(1.0 * (rng.random(Q.shape[0]) < 0.2))


def test_empty():
    factor = SingleCholesky(Sparse.from_scipy(sparse.csr_array((0, 0))))
    assert factor.solve(torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 2)
    assert factor.information == 0.0
