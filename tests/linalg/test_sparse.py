r"""Sparse matrices against dense ones, and their gradients against finite differences."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from torch.autograd import gradcheck
from torch.testing import assert_close

from matheron.linalg.sparse import MOST, Assembly, Sparse


def make(rows, columns, density, seed):
    rng = np.random.default_rng(seed)
    return Sparse.from_scipy(sparse.random(rows, columns, density, random_state=rng))


def of(A, values):
    return Sparse(A.pattern, values)


A, B, C = make(7, 5, 0.5, 1), make(5, 6, 0.5, 2), make(7, 5, 0.3, 3)
x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def values(matrix):
    return matrix.values.clone().requires_grad_()


def test_algebra_is_that_of_dense_matrices():
    a, b, c = A.to_dense(), B.to_dense(), C.to_dense()
    assert_close(A @ x, a @ x)
    assert_close(A @ x[:, 0], a @ x[:, 0])
    assert_close(A.product(B).to_dense(), a @ b)
    assert_close((A + C).to_dense(), a + c)
    assert_close((A - C * 2.0).to_dense(), a - 2 * c)
    assert_close(A.T.to_dense(), a.T)
    assert_close(A.T.T.to_dense(), a)
    w = torch.arange(1.0, 8.0, dtype=torch.float64)
    assert_close(A.gram(w).to_dense(), a.T @ torch.diag(w) @ a)
    assert_close(A.scale(rows=w, columns=w[:5]).to_dense(), w[:, None] * a * w[:5])
    square = A.gram()
    assert_close(square.diagonal(), (a.T @ a).diagonal())
    assert_close(square.quadratic(x), (x * (a.T @ a @ x)).sum(dim=0))
    assert_close(torch.as_tensor(A.to_scipy().toarray()), a)


def test_blocks_stand_where_they_are_put():
    eye = Sparse.diag(torch.ones(7, dtype=torch.float64))
    found = Sparse.block([[A, None], [C, eye]]).to_dense()
    top = torch.cat([A.to_dense(), torch.zeros(7, 7, dtype=torch.float64)], dim=1)
    bottom = torch.cat([C.to_dense(), eye.to_dense()], dim=1)
    assert_close(found, torch.cat([top, bottom]))


def test_patterns_are_remembered():
    eye = Sparse.diag(torch.ones(7, dtype=torch.float64))
    for make_again in (
        lambda: A.product(B),
        lambda: A + C,
        lambda: A.gram(),
        lambda: A.T,
        lambda: Sparse.block([[A, None], [C, eye]]),
    ):
        assert make_again().pattern is make_again().pattern


def test_take_keeps_the_order_and_explicit_zeros():
    zeroed = of(A, torch.where(torch.arange(len(A.values)) % 2 == 0, 0.0, A.values))
    rows, columns = torch.tensor([4, 0, 6]), torch.tensor([3, 1])
    block = zeroed.take(rows, columns)
    assert_close(block.to_dense(), zeroed.to_dense()[rows][:, columns])
    assert block.pattern.nnz == A.take(rows, columns).pattern.nnz


def test_structure_adds_places_and_no_value():
    wide = A.structure(C.pattern)
    assert_close(wide.to_dense(), A.to_dense())
    places = {
        (int(i), int(j)) for i, j in zip(wide.pattern.rows, wide.pattern.indices, strict=True)
    }
    assert set(zip(C.pattern.rows.tolist(), C.pattern.indices.tolist(), strict=True)) <= places


def test_a_pattern_that_holds_another_stays_itself():
    wide = A.structure(C.pattern)
    assert (wide + C).pattern is wide.pattern
    assert wide.structure(A.pattern).pattern is wide.pattern
    assert_close((wide + C).to_dense(), A.to_dense() + C.to_dense())


def test_sandwich_reads_the_pattern_only():
    Z = A.gram().structure(B.product(B.T).pattern)
    full = Z.to_dense()
    assert_close(Z.sandwich(Sparse.diag(torch.ones(5, dtype=torch.float64))), full.diagonal())
    assert_close(Z.sandwich(A), (A.to_dense() @ full @ A.to_dense().T).diagonal())


def test_assembly_sums_repeated_places():
    assembly = Assembly(np.array([1, 0, 1]), np.array([2, 0, 2]), (2, 3))
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert assembly(v).to_dense().tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 4.0]]
    assert gradcheck(lambda v: assembly(v).to_dense(), v)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: of(A, a).product(of(B, b)).to_dense(),
        lambda a, b: (of(A, a).T.product(of(A, a)) @ x).sum() + b.sum(),
        lambda a, b: of(A, a).gram().diagonal() * b.sum(),
        lambda a, b: Sparse.block([[of(A, a), None], [None, of(B, b)]]).T.to_dense(),
    ],
)
def test_gradients(function):
    assert gradcheck(function, (values(A), values(B)))


def test_gradients_of_products_with_columns():
    z = x.clone().requires_grad_()
    assert gradcheck(lambda a, z: of(A, a) @ z, (values(A), z))
    assert gradcheck(lambda a, z: of(A, a) @ z[:, 0], (values(A), z))


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="expected 5 rows, got 7"):
        A.product(A)


def test_a_pattern_forgets_what_it_shared_with_others_long_ago():
    """Data that move are seen by another pattern each day: memory must not grow by it."""
    a, *others = (Sparse.from_scipy(np.tri(3)) for _ in range(3 * MOST))
    first = a + others[0]
    for other in others:
        assert (a + other).pattern is (a + other).pattern
        assert (a + others[0]).pattern is first.pattern  # what is used stays
    assert len(a.pattern._kept) == MOST


def test_a_second_derivative_in_values_is_refused_rather_than_wrong():
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad((Sparse.diag(a) @ x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
