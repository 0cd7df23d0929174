"""The compiled pass without gradients, and the closed forms of half-integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matheron.kernels import Gaussian, Matern, Wendland
from matheron.kernels.arhan_colin import ArhanColin
from matheron.kernels.quick import half_integer
from matheron.linalg.composition import bessel_matern
from matheron.linalg.tangents import tangents

KERNELS = [
    Matern(0.5, 2.0, 1.3),
    Matern(1.5, axes="time"),
    Matern(3.5, 0.5, (1.5, 0.7), axes="space"),
    Matern(2.2),
    Gaussian(2.0),
    Wendland(lengthscale=2.0),
    ArhanColin(lengthscale=2.0, axes="space"),
]


def sites(m, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}-{k.axes}")
def test_without_gradients_is_as_with_them(kernel):
    a, b = sites(17, 0), torch.cat([sites(30, 1), sites(17, 0)])
    slow = kernel(a, b)
    assert slow.requires_grad
    with torch.no_grad():
        fast = kernel(a, b)
    torch.testing.assert_close(fast, slow.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", range(9))
def test_half_integers_are_the_bessel_function(order):
    u = np.concatenate([[0.0], np.geomspace(1e-2, 30.0, 60)])
    c = half_integer(order)
    found = sum(k * u**i for i, k in enumerate(c)) * np.exp(-u)
    np.testing.assert_allclose(found, bessel_matern(order + 0.5, u), rtol=1e-10, atol=1e-13)


def test_half_integers_have_gradients_in_space_and_scale():
    kernel = Matern(3.5, 2.0, 1.5)
    a = sites(4, 0).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: kernel(x, sites(5, 1)), (a,))
    kernel(a, sites(5, 1)).sum().backward()
    assert kernel.log_lengthscale.grad.abs() > 0


def test_same_bits_whatever_the_threads():
    a, b = sites(100, 0), sites(80, 1)
    kernel, before = Matern(3.5), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(kernel(a, b))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_batches_and_single_precision_go_the_other_way():
    kernel = Matern(1.5)
    with torch.no_grad():
        batch = kernel(sites(6, 0).reshape(2, 3, 3), sites(8, 1).reshape(2, 4, 3))
        single = kernel(sites(6, 0).float(), sites(8, 1).float())
    assert batch.shape == (2, 3, 4)
    assert single.shape == (6, 8)


@pytest.mark.parametrize("name", ["log_lengthscale", "log_variance"])
def test_forward_derivatives_are_not_lost_without_gradients(name):
    a, b = sites(4, 0), sites(5, 1)
    kernel = Matern(1.5, 2.0, 0.7)
    own = getattr(kernel, name)
    kernel(a, b).sum().backward()
    with torch.no_grad():
        (found,) = next(iter(tangents([kernel], [own], lambda: [kernel(a, b)])))
    torch.testing.assert_close(found.sum(), own.grad.squeeze())
