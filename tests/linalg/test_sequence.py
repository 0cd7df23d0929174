"""Simulated variances in pieces: the same bits in any memory, with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matheron.linalg.vecchia import sequence


def chain(count: int) -> sequence.Law:
    """Each target looks at the two before it, and the first at a datum."""
    near = torch.arange(1, count + 1)[:, None] - torch.tensor([1, 2])
    weights = torch.tensor([0.6, 0.3], dtype=torch.float64).expand(count, 2)
    std = torch.linspace(0.5, 1.0, count, dtype=torch.float64)
    return sequence.frozen(weights, std, near.clamp(min=-1).to(torch.int32))


@pytest.mark.parametrize("size", [1, 32, 100])
def test_the_bits_do_not_depend_on_memory_or_threads(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    law, threads = chain(50), torch.get_num_threads()
    first = sequence.simulated_variance(law, 1, size, 0)
    for count, numbers in ((1, 1), (3, 1), (3, 2 * 50 * sequence.BATCH)):
        monkeypatch.setattr(sequence, "NUMBERS", numbers)
        torch.set_num_threads(count)
        again = sequence.simulated_variance(law, 1, size, 0)
        torch.set_num_threads(threads)
        assert np.array_equal(first, again)
    assert not np.array_equal(first, sequence.simulated_variance(law, 1, size, 1))


def test_the_simulated_variance_is_that_of_the_draws_by_plain_recursion() -> None:
    law, size = chain(20), 40
    weights, std, near = law
    parts = [np.random.default_rng((3, k)).standard_normal((20, sequence.BATCH)) for k in (0, 1)]
    draws = np.concatenate(parts, axis=1)[:, :size]
    z, expected = np.zeros((21, size)), np.zeros(20)  # the datum stays zero
    for i in range(20):
        mean = sum(w * z[j] for w, j in zip(weights[i], near[i], strict=True) if j >= 0)
        z[1 + i] = mean + std[i] * draws[i]
        expected[i] = std[i] ** 2 + np.mean(np.square(mean) * np.ones(size))
    found = sequence.simulated_variance(law, 1, size, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
