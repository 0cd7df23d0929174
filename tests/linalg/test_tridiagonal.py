"""A block tridiagonal matrix is a matrix: the dense one is the oracle."""

import pytest
import torch

from torch.testing import assert_close

from matheron.linalg.tridiagonal import BlockCholesky


def chain(batch, k, s, generator):
    """Returns blocks of positive definite matrices, and the matrices."""
    C = torch.randn(*batch, k - 1, s, s, dtype=torch.float64, generator=generator)
    root = torch.randn(*batch, k, s, s, dtype=torch.float64, generator=generator)
    D = root @ root.mT + 6 * s * torch.eye(s, dtype=torch.float64)
    A = torch.zeros(*batch, k * s, k * s, dtype=torch.float64)
    for i in range(k):
        here = slice(i * s, (i + 1) * s)
        A[..., here, here] = D[..., i, :, :]
        if i:
            before = slice((i - 1) * s, i * s)
            A[..., here, before] = C[..., i - 1, :, :]
            A[..., before, here] = C[..., i - 1, :, :].mT
    return D, C, A


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize(("k", "s"), [(1, 3), (5, 1), (4, 3)])
def test_the_factor_is_that_of_the_dense_matrix(batch, k, s, generator):
    D, C, A = chain(batch, k, s, generator)
    factor = BlockCholesky(D, C)
    r = torch.randn(*batch, k, s, dtype=torch.float64, generator=generator)
    flat = r.flatten(-2)[..., None]
    L = torch.linalg.cholesky(A)
    assert_close(factor.solve(r).flatten(-2), torch.linalg.solve(A, flat)[..., 0])
    forward = torch.linalg.solve_triangular(L, flat, upper=False)[..., 0]
    assert_close(factor.forward_solve(r).flatten(-2), forward)
    backward = torch.linalg.solve_triangular(L.mT, flat, upper=True)[..., 0]
    assert_close(factor.backward_solve(r).flatten(-2), backward)
    assert_close(factor.log_determinant(), torch.logdet(A))


@pytest.mark.parametrize(("k", "s"), [(1, 3), (5, 1), (4, 3)])
def test_the_selected_inverse_is_that_of_the_dense_matrix(k, s, generator):
    D, C, A = chain((2,), k, s, generator)
    diagonal, below = BlockCholesky(D, C).inverse_blocks()
    inverse = torch.linalg.inv(A).unflatten(1, (k, s)).unflatten(3, (k, s))
    assert diagonal.shape == D.shape
    assert below.shape == C.shape
    for i in range(k):
        assert_close(diagonal[:, i], inverse[:, i, :, i])
        if i:
            assert_close(below[:, i - 1], inverse[:, i, :, i - 1])
    variance = BlockCholesky(D, C).variance().flatten(1)
    assert_close(variance, torch.linalg.inv(A).diagonal(dim1=1, dim2=2))


def test_a_matrix_that_is_not_positive_definite_is_refused(generator):
    D, C, _ = chain((), 3, 2, generator)
    D[1] -= 100 * torch.eye(2)
    with pytest.raises(ValueError, match="not positive in block 1 of 3"):
        BlockCholesky(D, C)
