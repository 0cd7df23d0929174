r"""Radial functions of the distances between sites, in one pass, where no gradient is asked for.

In torch each step of a covariance (differences, squares, roots, exponentials) is a matrix of its
own: for windows of thousands of data the time goes to memory.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs
# Compiled functions are typed by numba.

from __future__ import annotations

__all__ = ["closed_form", "half_integer", "quick", "quick_table", "suits"]

import functools
import math
import numpy as np
import torch
import torch.autograd.forward_ad as forward

from collections.abc import Callable
from jaxtyping import Float
from torch import Tensor

from ..linalg.compiled import compiled
from ..linalg.composition import RadialTable
from ..linalg.threads import chunked, in_threads

ORDERS = 8
"""Half-integers to this one and a half have a closed form: for smoother ones digits are lost."""


@functools.lru_cache(maxsize=ORDERS + 1)
def half_integer(order: int) -> tuple[float, ...]:
    r"""Returns the polynomial of the Matern of smoothness ``order`` + 1/2, from the constant on.

    .. math:: \rho(u) = e^{-u} \sum_{k=0}^p \frac{p!}{(2p)!}
        \frac{(2p - k)!}{(p - k)! \, k!} (2u)^k

    Example:
        >>> half_integer(2)[:2]
        (1.0, 1.0)
    """
    p, f = order, math.factorial
    return tuple(f(p) * f(2 * p - k) * 2**k / (f(2 * p) * f(p - k) * f(k)) for k in range(p + 1))


def closed_form(u: Float[Tensor, "*shape"], polynomial: tuple[float, ...]) -> Tensor:
    r"""Returns a polynomial times :math:`e^{-u}`, differentiable.

    Example:
        >>> closed_form(torch.tensor([0.0, 1.0]), half_integer(0)).tolist()[0]
        1.0
    """
    value = torch.full_like(u, polynomial[-1])
    for k in reversed(polynomial[:-1]):
        value = value * u + k
    return value * (-u).exp()


def suits(a: Tensor, b: Tensor, *parameters: Tensor) -> bool:
    r"""Returns whether two sets of sites can be told to the compiled pass.

    They cannot where a derivative is asked for, backward or forward, by sites or parameters.
    """
    plain = all(
        x.ndim == 2 and x.device.type == "cpu" and x.dtype == torch.float64 for x in (a, b)
    )
    still = (forward.unpack_dual(x).tangent is None for x in (a, b, *parameters))
    return plain and not torch.is_grad_enabled() and all(still)


def quick(
    a: Float[Tensor, "p k"],
    b: Float[Tensor, "q k"],
    variance: float,
    polynomial: tuple[float, ...] | None,
) -> Float[Tensor, "p q"]:
    r"""Returns the covariance of a Matern of half-integer smoothness; the Gaussian for ``None``.

    Example:
        >>> a, b = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
        >>> quick(a, b, 2.0, (1.0,)).item()  # 2 / e
        0.73575...
    """
    c = np.array(polynomial or (), dtype=np.float64)
    return _in_rows(a, b, lambda x, y, out: _closed(x, y, variance, c, out))


def quick_table(
    a: Float[Tensor, "p k"], b: Float[Tensor, "q k"], variance: float, table: RadialTable
) -> Float[Tensor, "p q"]:
    r"""Returns the covariance of a radial function that is tabulated."""
    values = table.values.detach().numpy()
    slopes = (table.slopes * table.step).detach().numpy()
    head = (variance, table.roots, 1 / table.step, values, slopes)
    return _in_rows(a, b, lambda x, y, out: _tabled(x, y, *head, out))


def _in_rows(a: Tensor, b: Tensor, function: Callable[..., None]) -> Tensor:
    out = torch.empty(len(a), len(b), dtype=torch.float64)
    x, y, into = (np.ascontiguousarray(v.detach().numpy()) for v in (a, b, out))
    bounds = chunked(len(a))
    in_threads(lambda k: function(x[slice(*bounds[k])], y, into[slice(*bounds[k])]), len(bounds))
    return out


@compiled
def _square(x, y):
    total = 0.0
    for k in range(len(x)):
        total += (x[k] - y[k]) * (x[k] - y[k])
    return total


@compiled
def _closed(x, y, variance, c, out):
    degree = len(c)
    for i in range(len(x)):
        for j in range(len(y)):
            square = _square(x[i], y[j])
            if degree == 0:
                out[i, j] = variance * math.exp(-0.5 * square)
                continue
            u = math.sqrt(square)
            value = c[degree - 1]
            for k in range(degree - 2, -1, -1):
                value = value * u + c[k]
            out[i, j] = variance * value * math.exp(-u)


@compiled
def _tabled(x, y, variance, roots, inverse, values, slopes, out):
    last = len(values) - 1
    for i in range(len(x)):
        for j in range(len(y)):
            s = math.sqrt(_square(x[i], y[j]))
            for _ in range(roots):
                s = math.sqrt(s)
            place = s * inverse
            if place >= last:
                out[i, j] = 0.0
                continue
            k = int(place)
            t = place - k
            a, b, da, db = values[k], values[k + 1], slopes[k], slopes[k + 1]
            c2, c3 = 3.0 * (b - a) - 2.0 * da - db, 2.0 * (a - b) + da + db
            out[i, j] = variance * (a + t * (da + t * (c2 + t * c3)))
