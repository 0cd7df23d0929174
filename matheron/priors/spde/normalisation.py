r"""The variance that an equation gives on a lattice, node by node."""

from __future__ import annotations

__all__ = ["lattice_variance", "limit_variance"]

import math
import torch

from collections.abc import Sequence
from jaxtyping import Float
from torch import Tensor

from .chebyshev import tabulated
from .rational import Part


def limit_variance(H: Float[Tensor, "n d d"], alpha: float) -> Float[Tensor, " n"]:
    r"""Returns the variance of :math:`(1 - \nabla \cdot H \nabla)^{-\alpha/2} w` in space.

    .. math:: \frac{\Gamma(\nu)}{\Gamma(\alpha) (4 \pi)^{d/2} \sqrt{|H|}}, \qquad
        \nu = \alpha - d / 2

    Example:
        >>> limit_variance(torch.ones(1, 1, 1).double(), 1.0)
        tensor([0.5000], dtype=torch.float64)
    """
    half = H.shape[-1] / 2
    factor = math.gamma(alpha - half) / math.gamma(alpha) / (4 * math.pi) ** half
    return factor / torch.linalg.det(H).sqrt()


def lattice_variance(
    H: Float[Tensor, "n d d"],
    spacing: Float[Tensor, "n d"],
    parts: Sequence[Part],
    scale: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    r"""Returns the variance of the parts of :math:`(1 - \nabla \cdot H \nabla)^{-\alpha} w`.

    It is that of an infinite lattice with the spacing of the node. It tends to
    :func:`limit_variance` as the spacing vanishes; with 8 nodes per lengthscale it is more by 2 %
    for :math:`\alpha = 2` in two dimensions, or less where :math:`H` is oblique.

    The power is an integral over the heat kernel, which on a lattice is a product over axes of
    Bessel functions; a coupling of the last two axes is integrated over the waves of one of them,
    and others come in by the determinant of :math:`H` only.

    References:
        | Random Walks: A Review (Hughes, 1995), for the lattice heat kernel
        | https://global.oup.com/academic/product/9780198537885

    Arguments:
        H: The diffusivity, over :math:`\kappa^2`.
        spacing: The distances between nodes along the axes.
        parts: The parts of the power, in units of ``scale``.
        scale: The scale of the shifts of the parts, over :math:`\kappa^2`.

    Example:
        >>> unit, h = torch.ones(1, 1, 1).double(), torch.full((1, 1), 1e-3).double()
        >>> lattice_variance(unit, h, [Part(1)], torch.ones(1).double())  # 1 / 2
        tensor([0.5000], dtype=torch.float64)
    """
    d = H.shape[-1]
    jumps = H / (spacing[:, :, None] * spacing[:, None, :])
    across = jumps.diagonal(dim1=-2, dim2=-1)
    logs = [across.log()]
    coupled = d > 1 and bool((jumps[:, -2, -1] != 0).any())
    if coupled:
        share = jumps[:, -2, -1].square() / across[:, -2:].prod(dim=-1)
        logs.append(-torch.log1p(-share)[:, None])
    shifted = any(part.shift > 0 for part in parts)
    if shifted:
        logs.append(scale.log()[:, None])

    def relative(x: Float[Tensor, "m k"]) -> Float[Tensor, " m"]:
        r"""Returns the logarithm of the variance times the root of the determinant of H."""
        free, across = torch.zeros_like(x[:, 0]), x[:, :d].exp()
        rest = (-x[:, d]).exp() if coupled else free + 1
        scale = x[:, -1].exp() if shifted else free + 1
        return _relative(across, rest, scale, parts).log()

    return tabulated(relative, torch.cat(logs, dim=-1)).exp() / torch.linalg.det(H).sqrt()


def _relative(
    across: Float[Tensor, "m d"],
    rest: Float[Tensor, " m"],
    scale: Float[Tensor, " m"],
    parts: Sequence[Part],
) -> Float[Tensor, " m"]:
    t = _times(1e-5 / across.detach().max().item())
    heat = _heat(across, t)
    if bool((rest < 1).any()):
        heat = _heat(across[:, :-2], t) * _coupled_heat(across[:, -2:], rest, t)
    total = sum(_mixture(part, scale, t) for part in parts)
    kernel = 0.4 * t * torch.exp(-t) * total
    return (across.prod(dim=-1) * rest).sqrt() * (kernel * heat).sum(dim=-1)


def _times(first: float) -> Float[Tensor, " k"]:
    r"""Returns times with regular logarithms: the rule of trapezes errs by a millionth or less.

    They change by whole steps only, so that gradients are those of what is computed.
    """
    low, high = math.floor(math.log(first) / 0.4), math.ceil(math.log(80.0) / 0.4)
    return (0.4 * torch.arange(low, high + 1, dtype=torch.float64)).exp()


def _heat(across: Float[Tensor, "n d"], t: Float[Tensor, " k"]) -> Float[Tensor, "n k"]:
    r"""Returns the probability of a walk to be where it began, on independent axes."""
    heat = across.new_ones(len(across), len(t))
    for a in across.unbind(dim=-1):
        heat = heat * torch.special.i0e(2 * a[:, None] * t)
    return heat


def _coupled_heat(
    across: Float[Tensor, "n 2"], rest: Float[Tensor, " n"], t: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    r"""Returns it on two axes that are coupled, from the waves :math:`\theta` along the second.

    .. math:: \frac{1}{\pi} \int_0^\pi e^{-2 t (a + b (1 - \cos \theta))}
        I_0(2 t \sqrt{a^2 + c^2 \sin^2 \theta}) \, d\theta

    The rule is that of the middle in :math:`\phi`, with :math:`\tan(\theta / 2) = \rho
    \tan(\phi / 2)`, where :math:`\rho` is the width of what is left of the waves at that time.
    """
    a, b = across[:, 0, None, None], across[:, 1, None, None]
    oblique = a * b * (1 - rest[:, None, None])  # c^2
    times, count = t[:, None], 12
    x = (math.pi / 2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count).tan()
    width = (1 + 2 * times * (b - oblique / a)).rsqrt()
    u = width * x
    cosine, sine = (1 - u.square()) / (1 + u.square()), 2 * u / (1 + u.square())
    reach = (a.square() + oblique * sine.square()).sqrt()
    waves = (2 * times * (reach - a - b * (1 - cosine))).exp()
    waves = waves * torch.special.i0e(2 * times * reach)
    return (waves * width * (1 + x.square()) / (1 + u.square())).mean(dim=-1)


def _mixture(
    part: Part, scale: Float[Tensor, " n"], t: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    r"""Returns the function whose Laplace transform is the part."""
    m, p = part.power, part.shift * scale[:, None]
    if part.shift == 0:
        return part.weight * t ** (m - 1) / math.gamma(m) + 0 * p
    # e^-pt, without the first terms of its series that the whole factors take away
    rest = torch.exp(-p * t)
    for k in range(m - 1):
        rest = rest - (-p * t) ** k / math.factorial(k)
    return part.weight * rest / (-p) ** (m - 1)
