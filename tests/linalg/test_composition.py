"""Radial functions: closed forms against definitions, tables against Bessel functions, gradients
in distance and shape.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scipy.special import gamma, kv

from matheron.linalg.composition import (
    Factor,
    Term,
    correlation,
    dense,
    matern_table,
    radial_table,
)

ORDERS = (0.2, 0.3, 0.8, 1.0, 1.7, 3.3, 10.0, 30.0)


def scalar(value: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=grad)


def distances(last: float = 40.0) -> torch.Tensor:
    far = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * last
    return torch.cat(
        [torch.zeros(1, dtype=torch.float64), torch.logspace(-6, 0, 500, dtype=torch.float64), far]
    )


def bessel(nu: float, u: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        value = 2 ** (1 - nu) / gamma(nu) * u**nu * kv(nu, u)
    return np.where(u > 0, value, 1.0)


@pytest.mark.parametrize("nu", ORDERS)
def test_table_is_the_bessel_function(nu: float) -> None:
    u = distances()
    found = correlation("table", matern_table(scalar(nu)), u)
    expected = bessel(nu, u.numpy())
    usable = np.isfinite(expected)
    assert usable.mean() > 0.8
    np.testing.assert_allclose(found.numpy()[usable], expected[usable], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("nu", "radial"), [(0.5, "exponential"), (1.5, "matern32"), (2.5, "matern52")]
)
def test_table_at_half_integers_is_the_closed_form(nu: float, radial: str) -> None:
    u = distances()
    found = correlation("table", matern_table(scalar(nu)), u)
    torch.testing.assert_close(found, correlation(radial, None, u), rtol=0, atol=1e-11)


def test_large_order_is_nearly_gaussian_and_finite() -> None:
    u = distances(5.0)
    nu = 50.0
    found = correlation("table", matern_table(scalar(nu)), u * (2 * nu) ** 0.5)
    assert found.isfinite().all()
    # The relative distance between Matern and Gaussian spectra is of order 1 / nu.
    torch.testing.assert_close(found, correlation("gaussian", None, u), rtol=0, atol=1.0 / nu)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("nu", [0.06, 0.4, 0.8, 1.0, 2.2, 7.0])
def test_gradients_in_distance_and_order(nu: float) -> None:
    u = torch.linspace(0.05, 6, 25, dtype=torch.float64, requires_grad=True)

    def value(u: torch.Tensor, nu: torch.Tensor) -> torch.Tensor:
        return correlation("table", matern_table(nu), u)

    assert torch.autograd.gradcheck(
        value, (u, scalar(nu, grad=True)), eps=1e-5, rtol=1e-5, atol=1e-7, check_forward_ad=True
    )


def test_wendland_table_has_compact_support() -> None:
    table = radial_table(
        lambda u: (1 - u) ** 4 * (4 * u + 1), lambda u: -20 * u * (1 - u) ** 3, 1.0
    )
    u = torch.linspace(0, 2, 777, dtype=torch.float64)
    expected = (1 - u).clamp(min=0) ** 4 * (4 * u + 1)
    torch.testing.assert_close(correlation("table", table, u), expected, rtol=0, atol=1e-11)


def test_float32_is_close_to_float64() -> None:
    u = distances(10.0)
    table = matern_table(scalar(0.7))
    found = correlation("table", table, u.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), correlation("table", table, u), rtol=0, atol=2e-5)


def test_dense_is_the_sum_of_products() -> None:
    x = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = Factor(x, "matern32"), Factor(x[:, :1] * 3, "gaussian")
    one, two = (dense((Term(scalar(1.0), (f,)),)) for f in (a, b))
    both = dense((Term(scalar(0.7), (a, b)), Term(scalar(0.2), (a,))))
    torch.testing.assert_close(both, 0.7 * one * two + 0.2 * one)


@pytest.mark.parametrize("nu", [0.0, 0.05, 51.0, float("nan")])
def test_order_out_of_bounds_is_refused(nu: float) -> None:
    with pytest.raises(ValueError, match=r"matern_table\(nu=\.\.\.\): expected"):
        matern_table(scalar(nu))


def test_unknown_radial_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Factor\(radial=\.\.\.\): expected one of"):
        Factor(torch.zeros(1, 1, dtype=torch.float64), "spherical")
    with pytest.raises(ValueError, match=r"Factor\(table=\.\.\.\): expected"):
        Factor(torch.zeros(1, 1, dtype=torch.float64), "table")
