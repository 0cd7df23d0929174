"""Unions and blocks of patterns, and products with columns, against scipy."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from matheron.linalg.merging import apply_columns, beside, union
from matheron.linalg.sparse import Sparse


def matrix(shape, density=0.2, seed=0):
    return sparse.csr_array(
        sparse.random_array(shape, density=density, rng=np.random.default_rng(seed))
    )


@pytest.mark.parametrize("densities", [(0.2, 0.3), (0.3, 0.0), (0.0, 0.3), (1.0, 0.2), (0.2, 1.0)])
@pytest.mark.parametrize("shape", [(40, 30), (1, 5), (0, 3), (70, 1)])
def test_union(shape, densities):
    a, b = (matrix(shape, d, k) for k, d in enumerate(densities))
    for m in (a, b):
        m.sort_indices()
    rows = [(m.indptr.astype(np.int64), m.indices.astype(np.int64)) for m in (a, b)]
    (start, columns), first, second = union(*rows)
    every = (abs(a) + abs(b)).tocsr()
    every.sort_indices()
    assert np.array_equal(start, every.indptr)
    assert np.array_equal(columns, every.indices)
    assert (first is None) == (every.nnz == a.nnz)
    first = np.arange(a.nnz) if first is None else first
    total = np.zeros(every.nnz)
    total[first] += a.data
    total[second] += b.data
    np.testing.assert_allclose(total, (a + b).tocsr().sorted_indices().data, rtol=1e-15)


def test_blocks():
    a, b, c = matrix((6, 4)), matrix((6, 5), seed=1), matrix((3, 5), seed=2)
    parts = [(0, 0, a), (0, 4, b), (6, 4, c)]
    placed = [(i, j, (m.indptr.astype(np.int64), m.indices.astype(np.int64))) for i, j, m in parts]
    start, columns, source = beside(placed, 9)
    values = np.concatenate([m.data for _, _, m in parts])[source]
    found = sparse.csr_array((values, columns, start), shape=(9, 9))
    assert found.has_sorted_indices
    expected = sparse.block_array([[a, b], [None, c]])
    assert np.array_equal(found.toarray(), expected.toarray())


@pytest.mark.parametrize("columns", [1, 4, 37])
def test_products_with_columns(columns):
    A = Sparse.from_scipy(matrix((50, 30)))
    x = np.random.default_rng(1).standard_normal((30, columns))
    found = apply_columns((A.pattern.indptr, A.pattern.indices), A.values.numpy(), x)
    np.testing.assert_allclose(found, A.to_scipy() @ x, rtol=1e-13, atol=1e-13)
    turned = torch.as_tensor(np.ascontiguousarray(x.T)).mT
    np.testing.assert_allclose((A @ turned).numpy(), found, rtol=1e-13, atol=1e-13)
