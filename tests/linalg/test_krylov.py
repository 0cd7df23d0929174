"""Conjugate gradients, incomplete factors, and determinants by draws, against dense algebra."""

from __future__ import annotations

import math
import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from torch import Tensor
from torch.testing import assert_close

from matheron.linalg.krylov import conjugate_gradient
from matheron.linalg.lanczos import (
    log_determinant,
    quadrature,
    square_root,
    stochastic_log_determinant,
)
from matheron.linalg.preconditioners import IncompleteCholesky, Jacobi, Preconditioner
from matheron.linalg.sparse import Sparse

DOUBLE = torch.float64


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def laplacian(side: int) -> sparse.csr_array:
    line = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    eye = sparse.eye_array(side)
    return sparse.csr_array(sparse.kron(line, eye) + sparse.kron(eye, line))


def matern(side: int, kappa: float = 0.3, alpha: int = 2) -> Sparse:
    """The precision of a Whittle-Matern field on a lattice."""
    K = sparse.csr_array(laplacian(side) + kappa**2 * sparse.eye_array(side**2))
    return Sparse.from_scipy(K if alpha == 1 else K @ K)


PRECONDITIONERS = {
    "none": lambda A: None,
    "jacobi": Jacobi,
    "incomplete": IncompleteCholesky,
}


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("alpha", [1, 2])
def test_solves_are_those_of_dense_algebra(name: str, alpha: int) -> None:
    A, b = matern(12, alpha=alpha), normal(144, 5)
    M = PRECONDITIONERS[name](A)
    x, info = conjugate_gradient(A.__matmul__, b, M, tolerance=1e-12)
    assert_close(x, torch.linalg.solve(A.to_dense(), b), rtol=1e-8, atol=1e-8)
    assert info.converged
    assert info.residual < 1e-11


def test_one_column_has_the_shape_of_its_data() -> None:
    A, b = matern(5), normal(25)
    x, _ = conjugate_gradient(A.__matmul__, b, tolerance=1e-12)
    assert x.shape == (25,)
    assert_close(A @ x, b)


def test_columns_do_not_know_each_other() -> None:
    """Columns of other sizes, one that is zero, one that converges at once."""
    A = matern(10)
    eigenvector = torch.linalg.eigh(A.to_dense()).eigenvectors[:, 3]
    zero = torch.zeros(100, dtype=DOUBLE)
    b = torch.stack([normal(100), zero, eigenvector, 1e9 * normal(100)], dim=1)
    x, _ = conjugate_gradient(A.__matmul__, b, Jacobi(A), tolerance=1e-13)
    for i in range(4):
        alone, _ = conjugate_gradient(A.__matmul__, b[:, i], Jacobi(A), tolerance=1e-13)
        assert_close(x[:, i], alone, rtol=1e-9, atol=1e-12)
    assert_close(x[:, 3], 1e9 * x[:, 0], rtol=1e-9, atol=0)


def test_better_preconditioners_take_fewer_steps() -> None:
    A = matern(40, kappa=0.1)
    A = A.scale(rows=1 + 30 * normal(1600).square()).scale(columns=1 + 30 * normal(1600).square())
    steps = {
        name: conjugate_gradient(A.__matmul__, normal(1600), make(A))[1].iterations
        for name, make in PRECONDITIONERS.items()
        if name != "none"
    }
    assert steps["incomplete"] < steps["jacobi"] / 1.5


def test_no_convergence_is_said() -> None:
    A = matern(20, kappa=0.05)
    with pytest.raises(ValueError, match="solver: expected residuals under 1e-08 in 3"):
        conjugate_gradient(A.__matmul__, normal(400), steps=3, where="solver")
    _, info = conjugate_gradient(A.__matmul__, normal(400), steps=3, strict=False)
    assert not info.converged
    assert info.iterations == 3
    assert info.residual > 1e-3


def test_an_indefinite_matrix_is_said() -> None:
    d = torch.linspace(-1, 1, 10, dtype=DOUBLE)[:, None]
    with pytest.raises(ValueError, match="positive definite"):
        conjugate_gradient(lambda v: d * v, normal(10))
    with pytest.raises(ValueError, match="positive definite"):
        log_determinant(lambda v: d * v, 10)
    for kind in (Jacobi, IncompleteCholesky):
        with pytest.raises(ValueError, match="positive diagonal"):
            kind(Sparse.diag(d[:, 0]))


def lower(M: Preconditioner, n: int) -> Tensor:
    return torch.linalg.inv(M.forward_solve(torch.eye(n, dtype=DOUBLE)))


def test_incomplete_factor_without_fill_is_cholesky() -> None:
    """A tridiagonal matrix has no fill: the factor is the true one."""
    n = 30
    T = sparse.diags_array([-1.0, 2.1, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    A = Sparse.from_scipy(T)
    M = IncompleteCholesky(A)
    assert M.shift == 0
    assert_close(lower(M, n), torch.linalg.cholesky(A.to_dense()))
    assert_close(M(A.to_dense()), torch.eye(n, dtype=DOUBLE))
    assert_close(M.log_determinant, torch.logdet(A.to_dense()))


def test_incomplete_factor_agrees_on_the_pattern() -> None:
    A = matern(6, alpha=1)
    M = IncompleteCholesky(A)
    L = lower(M, 36)
    dense = A.to_dense()
    seen = dense != 0
    assert_close((L @ L.mT)[seen], dense[seen])
    assert ((L.abs() > 1e-12) <= (seen & (torch.ones(36, 36).tril() > 0))).all()


@pytest.mark.parametrize("kind", [Jacobi, IncompleteCholesky])
def test_preconditioner_is_the_inverse_of_its_factor(kind: type[Preconditioner]) -> None:
    A = matern(6)
    M = kind(A)
    L, r = lower(M, 36), normal(36, 3)
    assert_close(M(r), torch.linalg.solve(L @ L.mT, r))
    assert_close(M.multiply(r), L @ r)
    assert_close(M.backward_solve(r), torch.linalg.solve(L.mT, r))
    assert_close(M.log_determinant, torch.logdet(L @ L.mT))
    white = M.whiten(A.__matmul__)(torch.eye(36, dtype=DOUBLE))
    assert_close(torch.logdet(white) + M.log_determinant, torch.logdet(A.to_dense()))


def test_breakdown_of_the_incomplete_factor_is_mended() -> None:
    """Positive definite, and yet without an incomplete factor (Kershaw's matrix)."""
    A = torch.tensor([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]]).double()
    assert torch.linalg.eigvalsh(A).min() > 0
    M = IncompleteCholesky(Sparse.from_scipy(sparse.csr_array(A.numpy())))
    assert M.shift > 0
    L = lower(M, 4)
    assert torch.linalg.eigvals(torch.linalg.solve(L @ L.mT, A)).real.min() > 0
    x, _ = conjugate_gradient(lambda v: A @ v, normal(4, 2), M, tolerance=1e-12)
    assert_close(A @ x, normal(4, 2))


def test_determinant_is_exact_with_all_probes() -> None:
    A = matern(7)
    found = log_determinant(A.__matmul__, 49, probes=49, steps=60)
    assert_close(found.value, torch.logdet(A.to_dense()), rtol=1e-8, atol=1e-8)
    assert found.standard_error == 0


def test_truncation_tells_of_too_few_steps() -> None:
    A, exact = matern(9, kappa=0.05), torch.logdet(matern(9, kappa=0.05).to_dense())
    few, many = (log_determinant(A.__matmul__, 81, 81, steps) for steps in (12, 150))
    assert 0.1 < (few.value - exact).abs() < few.truncation
    assert (many.value - exact).abs() < 1e-6
    assert many.truncation < 1e-3


def test_quadrature_is_the_logarithm_of_the_matrix() -> None:
    A, z = matern(7), normal(49, 3)
    w, V = torch.linalg.eigh(A.to_dense())
    exact = ((V.mT @ z).square() * w.log()[:, None]).sum(dim=0)
    assert_close(quadrature(A.__matmul__, z, 60)[0], exact, rtol=1e-9, atol=1e-9)


def test_quadrature_of_an_eigenvector_and_of_the_identity() -> None:
    """Lanczos ends at once; what follows must not spoil it."""
    A = matern(5)
    w, V = torch.linalg.eigh(A.to_dense())
    z = torch.stack([V[:, 2], 3 * V[:, 7], normal(25)], dim=1)
    found = quadrature(A.__matmul__, z, 25)
    assert_close(found[:, :2], torch.stack([w[2].log(), 9 * w[7].log()]).expand(2, 2))
    twice = quadrature(lambda v: 2 * v, z, 4)
    assert_close(twice, math.log(2) * z.square().sum(dim=0).expand(2, 3))


@pytest.mark.parametrize("kind", [Jacobi, IncompleteCholesky])
def test_determinant_within_five_standard_errors(kind: type[Preconditioner]) -> None:
    A = matern(20)
    M = kind(A)
    generator = torch.Generator().manual_seed(3)
    found = log_determinant(M.whiten(A.__matmul__), 400, 40, 120, generator)
    gap = found.value + M.log_determinant - torch.logdet(A.to_dense())
    assert 0 < found.standard_error < 10
    assert gap.abs() < 5 * found.standard_error


def test_standard_error_is_that_of_repeats() -> None:
    A = matern(12, alpha=1)
    finds = [
        log_determinant(A.__matmul__, 144, 10, 60, torch.Generator().manual_seed(k))
        for k in range(60)
    ]
    values = torch.stack([f.value for f in finds])
    stated = torch.stack([f.standard_error for f in finds]).square().mean().sqrt()
    # the relative standard error of a std from 60 repeats is 1 / sqrt(120)
    assert abs(values.std() / stated - 1) < 5 / math.sqrt(120)
    assert (values.mean() - torch.logdet(A.to_dense())).abs() < 5 * stated / math.sqrt(60)


@pytest.mark.parametrize("side", [4, 20])
def test_square_root(side: int) -> None:
    A, z = matern(side), normal(side**2, 3)
    w, V = torch.linalg.eigh(A.to_dense())
    exact = V @ (w.sqrt()[:, None] * (V.mT @ z))
    found = square_root(A.__matmul__, z, tolerance=1e-9)
    assert ((found - exact).norm(dim=0) / exact.norm(dim=0)).max() < 1e-8


@pytest.mark.parametrize("kind", [Jacobi, IncompleteCholesky])
def test_square_root_of_a_whitened_matrix_is_a_root_of_it(kind: type[Preconditioner]) -> None:
    A = matern(6)
    M = kind(A)
    root = M.multiply(square_root(M.whiten(A.__matmul__), torch.eye(36, dtype=DOUBLE), 1e-12))
    assert_close(root @ root.mT, A.to_dense(), rtol=1e-8, atol=1e-8)


def test_square_root_that_is_not_reached_is_said() -> None:
    A = matern(20, kappa=0.01)
    with pytest.raises(ValueError, match="sampler: expected last terms under"):
        square_root(A.__matmul__, normal(400, 1), tolerance=1e-10, steps=10, where="sampler")


def shifted(log_kappa: Tensor, side: int = 8) -> Sparse:
    K = Sparse.from_scipy(laplacian(side))
    K = K + Sparse.diag((2 * log_kappa).exp().expand(side**2))
    return K.product(K)


def test_gradient_of_one_number() -> None:
    """Exact with all probes; within five standard errors of the average with few."""
    p = torch.tensor(-1.0, dtype=DOUBLE, requires_grad=True)
    (exact,) = torch.autograd.grad(torch.logdet(shifted(p).to_dense()), p)

    def slope(probes: int, seed: int) -> Tensor:
        A = shifted(p)
        generator = torch.Generator().manual_seed(seed)
        value = stochastic_log_determinant(A, Jacobi(A), probes, 64, 1e-10, generator)
        return torch.autograd.grad(value, p)[0]

    assert_close(slope(64, 0), exact, rtol=1e-6, atol=0)
    finds = torch.stack([slope(20, k) for k in range(20)])
    assert (finds.mean() - exact).abs() < 5 * finds.std() / math.sqrt(20)
    assert finds.std() / exact.abs() < 0.1


def test_same_generator_same_estimate() -> None:
    A = matern(12)
    a, b = (
        log_determinant(A.__matmul__, 144, 4, 30, torch.Generator().manual_seed(1)).value
        for _ in range(2)
    )
    assert torch.equal(a, b)
    assert not np.isnan(a.item())
