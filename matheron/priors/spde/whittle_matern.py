r"""Matern fields by a stochastic partial differential equation."""

from __future__ import annotations

__all__ = ["WhittleMatern"]

import numpy as np
import torch

from collections.abc import Sequence
from functools import cached_property
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .covering import check_resolution, cover
from .discretization import Discretization
from .fields import ParameterField
from .normalisation import lattice_variance, limit_variance
from .operators import Operators
from .rational import Part, order_for, parts
from .whittle_arguments import (
    Field,
    as_field,
    check_choices,
    check_elliptic,
    check_scales,
    split_variance,
)
from ..markov import MarkovPrior
from ..quantities import Quantity, of_kernel, of_parameters
from ...domain import Grid, Points
from ...kernels.base import positive
from ...kernels.stationary import Matern
from ...linalg.sparse import Sparse

ROBIN = 1 / 1.42
"""The slope of a field that goes on outside, in units of kappa."""
DIRICHLET = 1e3
"""The weight of a node that is zero: more would spoil the precision of numbers."""


class WhittleMatern(MarkovPrior):
    r"""A field with a Matern covariance, solution of a Whittle-Matern equation on a lattice.

    .. math:: \tau (\kappa^2 - \nabla \cdot H \nabla)^{\alpha/2} x = w

    The covariance is that of :class:`matheron.Matern` with the same ``variance``,
    ``lengthscale`` and ``rotation``, and :math:`\nu = \alpha - d/2`: exponential in one dimension
    with :math:`\alpha = 1`, in two with 3/2, in three with 2; :math:`\kappa d K_1(\kappa d)` in
    two dimensions with 2. With :math:`\kappa = \sqrt{2 \nu} / \ell` the precision is, for
    :math:`\alpha = 1` and 2, in terms of the mass :math:`C` and the stiffness :math:`G`,

    .. math:: K = \kappa^2 C + G, \qquad Q_1 = \tau K \tau, \qquad Q_2 = K \tau^2 C^{-1} K

    Whole :math:`\alpha` are exact, others a sum of a few fields, see
    :func:`matheron.priors.spde.rational.parts`. Where coefficients vary in space, ``kappa``,
    ``diffusivity`` and ``tau`` take the place of ``lengthscale``, of :math:`H = I` and of
    ``variance``; a field for ``variance`` multiplies the solution by its root. Time, if it is an
    axis, is one more direction, with its own lengthscale.

    Steps that are not small change the variance, but hardly the covariance beyond a step or two:
    :math:`\tau` shares that error between them, node by node. With 8 steps per lengthscale it is
    under 1 % of the variance each way for :math:`\alpha = 2` in two dimensions, with 5 under 2 %.

    Between nodes the field is interpolated linearly, and its variance is less: in the middle of
    cells with 8 steps per lengthscale by 3 % for :math:`\alpha = 2`, by 10 % for 3/2.

    The lattice goes beyond the domain, where its steps grow, so that the variance is flat to the
    edges. Towards land the field has no flux, and correlation does not go through it: there the
    variance is larger, up to twice along a straight coast, and many times in a lake or a bay that
    is narrower than a lengthscale, from which nothing flows away.

    References:
        | An explicit link between Gaussian fields and GMRFs (Lindgren et al., 2011)
        | https://doi.org/10.1111/j.1467-9868.2011.00777.x
        | Mitigating the influence of the boundary (Daon and Stadler, 2018), for Robin's condition
        | https://doi.org/10.3934/ipi.2018045

    Arguments:
        domain: Where the field is wanted: a grid, perhaps with land, or points.
        lengthscale: The lengthscale :math:`\ell`, in metres on the sphere, days for time, else in
            the units of the axes: one number, or one per axis.
        variance: The marginal variance :math:`\sigma^2`, in squared units of the field: a number,
            or a field of them.
        alpha: The power :math:`\alpha`, more than :math:`d / 2`.
        rotation: The angle of the last lengthscale, as :class:`matheron.Matern` takes it.
        mean: The known mean, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + lon + lat"``; see :class:`Trend`.
        kappa: The field :math:`\kappa`, in inverse units of length: a parameter field, or values
            at the nodes of the domain.
        diffusivity: The field :math:`H`, one symmetric positive definite matrix per node.
        tau: The field :math:`\tau`, in place of ``variance``.
        lattice: The grid, or the discretisation, that the equation is solved on. By default the
            domain if it is a grid, or a regular grid with eight nodes per lengthscale (five if
            they would be more than a million).
        boundary: The condition at the outer boundary: ``"robin"`` (the flux of a field that goes
            on outside, nearly), ``"neumann"`` (no flux) or ``"dirichlet"`` (zero).
        margin: How far the lattice goes beyond the domain, in lengthscales.
        order: The number of fields that make a power which is not whole: by default two up to
            ten nodes per lengthscale, three up to a hundred, else four.
        interpolation: What the field is between the nodes: ``"linear"``, or ``"cubic"`` where it
            is smooth and the nodes are few. A lattice that is given has its own.

    Raises:
        ValueError: If ``lengthscale`` is not positive, or is under two steps of the lattice; if
            ``alpha`` is not more than half the number of axes; if a field does not fit.

    Example:
        >>> grid = Grid(y=torch.arange(7.0), x=torch.arange(9.0))
        >>> prior = WhittleMatern(grid, lengthscale=2.0, variance=1.0)
        >>> prior.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 63])
    """

    def __init__(
        self,
        domain: Grid | Points,
        lengthscale: float | Sequence[float] | Tensor | None = None,
        variance: float | ParameterField | Tensor = 1.0,
        alpha: float = 2.0,
        rotation: float | Sequence[float] | None = None,
        mean: float = 0.0,
        trend: str | None = None,
        *,
        kappa: Field = None,
        diffusivity: Field = None,
        tau: Field = None,
        lattice: Grid | Discretization | None = None,
        boundary: str = "robin",
        margin: float = 2.0,
        order: int | None = None,
        interpolation: str = "linear",
    ) -> None:
        super().__init__()
        self.domain, self.alpha, self.boundary = domain, float(alpha), boundary
        self.dimension = len(domain.dims)
        self.nu = self.alpha - self.dimension / 2
        check_choices(self.nu, self.alpha, self.dimension, boundary, order)
        check_scales(domain, lengthscale, kappa, diffusivity, rotation)
        self.kappa = as_field("kappa", kappa, domain, ())
        self.diffusivity = as_field("diffusivity", diffusivity, domain, (self.dimension,) * 2)
        self.tau = as_field("tau", tau, domain, ())
        varying, constant = split_variance(variance, tau)
        self.variance_field = as_field("variance", varying, domain, ())
        self.kernel = self._kernel(lengthscale, constant, rotation)
        self.lattice = self._cover(lattice, margin, interpolation)
        self.parts = self._parts(order)
        self._set_trend(mean, trend)

    def _kernel(
        self,
        lengthscale: float | Sequence[float] | Tensor | None,
        variance: Tensor,
        rotation: float | Sequence[float] | None,
    ) -> Matern:
        r"""Returns the kernel that holds the parameters, at rest where fields replace them."""
        where, start = "WhittleMatern", 1.0 if lengthscale is None else lengthscale
        positive(where, "variance", variance)
        scale = positive(where, "lengthscale", start)
        if scale.ndim and len(scale) != self.dimension:
            msg = (
                f"WhittleMatern(lengthscale=...): expected one number, or one per axis of "
                f"{self.domain.dims}, got {len(scale)}. Give as many as there are axes."
            )
            raise ValueError(msg)
        kernel = Matern(self.nu, variance, scale, rotation)
        kernel.log_lengthscale.requires_grad_(self.kappa is None)
        free = self.tau is None and self.variance_field is None
        kernel.log_variance.requires_grad_(free)
        return kernel

    @torch.no_grad()
    def _cover(
        self, lattice: Grid | Discretization | None, margin: float, interpolation: str
    ) -> Discretization:
        H, kappa = self._coefficients(self.domain.points)
        H = 2 * self.nu * H / kappa.square()[:, None, None]
        check_elliptic(H)
        reach = H.diagonal(dim1=-2, dim2=-1).sqrt().amax(dim=0)
        cross = self.kernel.shear is not None or self.diffusivity is not None
        found = cover("WhittleMatern", self.domain, lattice, reach, margin, cross, interpolation)
        H, kappa = self._coefficients(found.points)
        H = 2 * self.nu * H / kappa.square()[:, None, None]
        narrow = torch.linalg.inv(H).diagonal(dim1=-2, dim2=-1).rsqrt()
        check_resolution("WhittleMatern", narrow.expand(len(found), -1), found, self.domain.dims)
        return found

    @torch.no_grad()
    def _parts(self, order: int | None) -> list[Part]:
        r"""Returns the parts of the power, in units of the mean of log kappa^2."""
        H, kappa = self._coefficients(self.lattice.points)
        level = kappa.square() / kappa.log().mean().mul(2).exp()
        steps = 4 * H.diagonal(dim1=-2, dim2=-1) / self.lattice.spacing.square()
        top = level.max() * (1 + (steps.sum(dim=-1) / kappa.square()).quantile(0.9))
        slack = 1.0 if self.kappa is None else 0.5  # a fit may move it
        low, high = slack * level.min().item(), 2 * top.item()
        if order is None:
            nodes = (2 * self.nu * steps / kappa.square()[:, None] / 4).amax(dim=-1).sqrt()
            order = order_for(nodes.median().item())
        return parts(self.alpha, self.dimension, order, low, high)

    def _coefficients(self, points: Points) -> tuple[Float[Tensor, "n d d"], Float[Tensor, " k"]]:
        r"""Returns :math:`H` and :math:`\kappa` at some points, or once if they are constant.

        Without fields :math:`\kappa = 1`, and :math:`H` holds the lengthscales.
        """
        d = self.dimension
        H = torch.eye(d, dtype=torch.float64)[None]
        kappa = torch.ones(1, dtype=torch.float64)
        if self.kappa is not None:
            kappa = self.kappa(points)
        elif self.diffusivity is not None:
            kappa = (2 * self.kernel.nu).sqrt() / self.kernel.lengthscale.reshape(1)
        else:
            # coordinates that the kernel scales are those of the equation with H = I
            scaled = self.kernel.scaled(H[0])
            H = torch.linalg.inv(scaled @ scaled.mT)[None]
        if self.diffusivity is not None:
            H = self.diffusivity(points)
        return H, kappa

    def places(self) -> Float[Tensor, "N k"]:
        return self.lattice.places().repeat(len(self.parts), 1)

    def nodes(self) -> Points:
        return Points.join(*[self.lattice.points] * len(self.parts))

    def embedding(self, points: Points) -> Sparse:
        A = self.lattice.interpolation(points)
        return A if len(self.parts) == 1 else Sparse.block([[A] * len(self.parts)])

    def penalty(self) -> Float[Tensor, ""]:
        fields = (self.kappa, self.diffusivity, self.tau, self.variance_field)
        return sum((f.penalty() for f in fields if f is not None), super().penalty())

    def quantities(self) -> list[Quantity]:
        if self.kappa is None and self.diffusivity is None and self.tau is None:
            return of_kernel(self.kernel, self.domain)
        return of_parameters(self)

    def _operators(self) -> Operators:
        r"""Returns what the present parameters make of the equation."""
        H, kappa = self._coefficients(self.lattice.points)
        level = kappa.log().mean().mul(2).exp()
        K = self.lattice.stiffness(H) + Sparse.diag(kappa.square() * self.lattice.volume)
        K = K + Sparse.diag(self._boundary(H, kappa, K))
        tau = self._tau(H, kappa, level)
        where = f"{type(self).__name__}.precision"
        return Operators(self.lattice, K, self.alpha, level, tau, self._amplitude(), where)

    def _boundary(
        self, H: Float[Tensor, "n d d"], kappa: Float[Tensor, " k"], K: Sparse
    ) -> Float[Tensor, " N"]:
        mass = self.lattice.boundary_mass()
        if self.boundary == "neumann":
            return torch.zeros_like(mass)
        if self.boundary == "robin":
            return ROBIN * kappa * torch.linalg.det(H) ** (0.5 / self.dimension) * mass
        return DIRICHLET * K.diagonal() * (mass > 0)

    def _tau(
        self, H: Float[Tensor, "n d d"], kappa: Float[Tensor, " k"], level: Float[Tensor, ""]
    ) -> Float[Tensor, " N"]:
        r"""Returns the field :math:`\tau`; where none is given, that of a variance of one."""
        if self.tau is not None:
            return self.tau(self.lattice.points)
        spacing, where = self._steps if len(H) == len(kappa) == 1 else (self.lattice.spacing, None)
        kappa = kappa.expand(len(spacing))
        H = (H / kappa.square()[:, None, None]).expand(len(spacing), -1, -1)
        variance = lattice_variance(H, spacing, self.parts, level / kappa.square())
        rational = (kappa.square() / level) ** (self.alpha - self.parts[0].power)
        limit = limit_variance(H, self.alpha)
        tau = (variance * rational * limit) ** 0.25 * kappa**-self.alpha
        return tau if where is None else tau[where]

    @cached_property
    def _steps(self) -> tuple[Float[Tensor, "k d"], Int[Tensor, " N"]]:
        r"""The spacings that differ, but for rounding, and which one each node has."""
        steps = self.lattice.spacing
        logs = (steps.log() * 1e9).round()
        rows, where = np.unique(logs.numpy(), axis=0, return_inverse=True)
        return torch.as_tensor(rows / 1e9).exp(), torch.as_tensor(where.reshape(-1))

    def _amplitude(self) -> Float[Tensor, " N"]:
        r"""Returns what multiplies the solution: the standard deviation asked for."""
        one = torch.ones(len(self.lattice), dtype=torch.float64)
        if self.tau is not None:
            return one
        if self.variance_field is not None:
            return self.variance_field(self.lattice.points).sqrt()
        return one * self.kernel.variance.sqrt()

    def precision(self) -> Sparse:
        operators = self._operators()
        each = [operators.precision(part) for part in self.parts]
        if len(each) == 1:
            return each[0]
        rows = range(len(each))
        return Sparse.block([[each[i] if i == j else None for j in rows] for i in rows])

    def log_determinant(self) -> Float[Tensor, ""]:
        operators = self._operators()
        return torch.stack([operators.log_determinant(part) for part in self.parts]).sum()

    @torch.no_grad()
    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        operators = self._operators()
        each = [operators.sample(part, size, generator) for part in self.parts]
        return torch.cat(each, dim=-1)
