r"""Kernels of warped coordinates: fields that are stationary on another map."""

from __future__ import annotations

__all__ = ["Deformed"]

import torch

from jaxtyping import Float
from torch import Tensor

from .base import Kernel
from .local import LocalField
from .warp.base import Warp
from ..linalg.composition import Composition

STARTS = {None: 0, "time": 0, "space": 1}
"""The first coordinate of the axes."""


class Deformed(Kernel):
    r"""A kernel of warped coordinates, with a variance that may vary from place to place.

    .. math:: c(a, b) = e^{(s(a) + s(b)) / 2} \, k(w(a), w(b))

    Whatever the warp and the field, it is positive definite. With a :class:`GaugedWarp` the
    lengthscale of the kernel keeps its units; without one, warp and lengthscale share them. A
    smooth warp cannot make one place more variable than another: that is for :math:`s`.

    On the sphere, the warp is of the metres to the north and to the east of the middle of the
    domain: for basins, not for the globe. Heights above the tangent plane are left as they are.

    Without a field of the variance, the compiled solvers take it.

    References:
        | Nonparametric estimation of nonstationary spatial covariance structure
        | (Sampson and Guttorp, 1992), https://doi.org/10.1080/01621459.1992.10475181
        | Modeling nonstationary and asymmetric multivariate spatial covariances via deformations
        | (Vu, Zammit-Mangion and Cressie, 2022), https://doi.org/10.5705/ss.202020.0156

    Arguments:
        kernel: The kernel :math:`k`.
        warp: The warp :math:`w`, of the first of the coordinates chosen by ``axes``; the others
            are left as they are.
        variance: The field :math:`s`, the logarithm of the variance relative to its mean, of as
            many coordinates, and with one output.
        axes: ``"time"`` for a warp of the first coordinate, ``"space"`` for one of those after
            it, ``None`` for one that begins with the first.

    Raises:
        ValueError: If ``axes`` is not one of these, or if the field does not fit.

    Example:
        >>> from matheron.kernels import AffineWarp, Matern
        >>> kernel = Deformed(Matern(0.5), AffineWarp(1, [[0.6931471805599453]]))  # stretched by 2
        >>> kernel(torch.zeros(1, 1), torch.ones(1, 1)).item()  # exp(-2)
        0.13533...
    """

    def __init__(
        self,
        kernel: Kernel,
        warp: Warp,
        variance: LocalField | None = None,
        axes: str | None = None,
    ) -> None:
        super().__init__()
        d = warp.dimensions
        if axes not in STARTS or (axes == "time" and d != 1):
            msg = (
                f"Deformed(axes=...): expected 'time' for a warp of one coordinate, 'space' or "
                f"None, got {axes!r} for {d}. Choose one."
            )
            raise ValueError(msg)
        if variance is not None and (variance.dimensions, variance.outputs) != (d, 1):
            msg = (
                f"Deformed(variance=...): expected a field of {d} coordinates with one output, "
                f"got {variance.dimensions} and {variance.outputs}. Build it over the same box."
            )
            raise ValueError(msg)
        self.kernel, self.warp, self.local_variance = kernel, warp, variance
        self.axes, self.start = axes, STARTS[axes]

    def _parts(self, x: Float[Tensor, "*batch k"]) -> tuple[Tensor, Tensor, Tensor]:
        i, j = self.start, self.start + self.warp.dimensions
        if x.shape[-1] < j:
            msg = (
                f"Deformed(warp=...): expected {j} coordinates or more, got {x.shape[-1]}. Make "
                "the warp of as many as the domain has."
            )
            raise ValueError(msg)
        return x[..., :i], x[..., i:j], x[..., j:]

    def moved(self, x: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        r"""Returns the coordinates with the warp done."""
        before, own, after = self._parts(x)
        return torch.cat([before, self.warp(own), after], dim=-1)

    def log_variance_field(self, x: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        r"""Returns the field :math:`s`; zero without one."""
        if self.local_variance is None:
            return x.new_zeros(x.shape[:-1])
        return self.local_variance(self._parts(x)[1])[..., 0]

    def forward(
        self, a: Float[Tensor, "*batch p k"], b: Float[Tensor, "*batch q k"]
    ) -> Float[Tensor, "*batch p q"]:
        x = self.moved(a)
        K = self.kernel(x, x if b is a else self.moved(b))
        if self.local_variance is None:
            return K
        s, t = self.log_variance_field(a), self.log_variance_field(b)
        return K * (s[..., :, None] / 2 + t[..., None, :] / 2).exp()

    def diagonal(self, a: Float[Tensor, "*batch p k"]) -> Float[Tensor, "*batch p"]:
        if self.local_variance is None:
            return self.kernel.diagonal(self.moved(a))
        return self.kernel.diagonal(self.moved(a)) * self.log_variance_field(a).exp()

    def terms(self, x: Float[Tensor, "n k"]) -> Composition | None:
        return None if self.local_variance is not None else self.kernel.terms(self.moved(x))

    def neighborhood(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n j"]:
        return self.kernel.neighborhood(self.moved(x))

    def neighborhoods(self, x: Float[Tensor, "n k"]) -> list[Float[Tensor, "n j"]]:
        return self.kernel.neighborhoods(self.moved(x))

    def penalty(self) -> Float[Tensor, ""]:
        r"""Returns :math:`-\log` of the prior density of the warp and of the field."""
        own = self.warp.penalty()
        return own if self.local_variance is None else own + self.local_variance.penalty()
