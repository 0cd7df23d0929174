r"""Fields that are carried, spread and forgotten: space and time by one equation."""

from __future__ import annotations

__all__ = ["AdvectionDiffusion"]

import copy
import math
import torch
import torch.nn as nn

from collections.abc import Sequence
from jaxtyping import Float
from torch import Generator, Tensor

from .covering import check_resolution, cover, regular
from .dynamics import Coefficients, Dynamics, Excess, Form
from .evolution import Evolution, Step
from .fields import Constant, ParameterField
from .lattice import Lattice
from .timed import Coefficient, NodalField, TimedField, space_of, timed_field
from .timeline import Timeline, Weights
from .transport import Transport
from ..markov import MarkovPrior
from ..quantities import Quantity, of_kernel
from ...domain import Grid, Points
from ...kernels.base import positive
from ...kernels.stationary import Matern
from ...linalg.sparse import Sparse

Velocity = ParameterField | Tensor | Sequence[float] | None
Start = str | MarkovPrior | tuple[Tensor, Sparse]
WHERE = "AdvectionDiffusion"


class AdvectionDiffusion(MarkovPrior):
    r"""A field in space and time, solution of an equation of advection and diffusion.

    .. math:: \frac{\partial x}{\partial t}
        + \left\{ \kappa^2 + m \cdot \nabla - \nabla \cdot (H \nabla) \right\}^{\alpha/2} x
        = \tau z

    :math:`z` is white in time; in space it is white (``color=0``) or has the precision
    :math:`(\kappa^2 - \nabla \cdot H \nabla)^c` for a color :math:`c`. Without advection, with
    constant coefficients, the field at one time is that of :class:`matheron.Matern` with the same
    ``variance``, ``lengthscale`` and ``rotation`` and with :math:`\nu = \alpha / 2 + c - d / 2`
    for a color :math:`c`: 1 by default in two dimensions. There a white noise with
    :math:`\alpha = 2` has an infinite variance, :math:`\nu = 0`, but for what the lattice cuts
    off; it takes a ``tau``, not a ``variance``. Large scales are forgotten as
    :math:`e^{-t/T}`, with :math:`\kappa^\alpha = 1 / T` and
    :math:`H = \kappa^2 \ell \ell^\top / (2 \nu)`, and small scales sooner: the correlation at one
    place, with ``alpha=2`` in two dimensions, is
    :math:`\nu \int_1^\infty s^{-\nu - 1} e^{-s t / T} \, ds`, which is 0.33 at :math:`T / 2` and
    0.15 at :math:`T` for :math:`\nu = 1`.

    With ``damping="uniform"`` all scales fade alike, whatever their size:

    .. math:: \frac{\partial x}{\partial t} + m \cdot \nabla x + \frac{x}{T} = \tau z

    so that without advection the covariance is :math:`e^{-t / T}` times that of
    :class:`matheron.Matern` with :math:`\nu = c - d / 2`, exactly at the times of the state. It
    takes colors up to 4, for smooth fields; its precision has the least neighbours for a
    smoothness, as :math:`H` has a part in the noise alone.

    In time, steps of length :math:`\delta` are implicit. With the mass :math:`C`, the operator
    :math:`K = \kappa^2 C + G(H)` and that of advection :math:`A`, both in weak form,

    .. math:: \left( C + \theta \delta K_k + \tfrac{\delta}{2} A_k \right) x_k =
        \left( C - (1 - \theta) \delta K_{k-1} - \tfrac{\delta}{2} A_{k-1} \right) x_{k-1} + r_k

    (``alpha=2``) for :math:`\theta = 1` (Euler) or 1/2 (Crank-Nicolson), where the noise has the
    precision :math:`C^{-1} \tau^{-1} N \tau^{-1} C^{-1} / \delta` and :math:`N` is
    :math:`C (C^{-1} K)^c`. So the precision of the field is block tridiagonal. Both
    schemes have their variance right, through :math:`\tau`. Euler's is of first order: it forgets
    too slowly what lasts less than a step, and a wave that fades at a rate :math:`a` goes only
    :math:`(1 + 1 / (1 + \delta a)) / 2` of its way. Crank-Nicolson's is of second order, but turns
    the sign of waves that fade in less than half a step. Between the times of the state the field
    is interpolated.

    Advection keeps the variance where the velocity has no divergence. In the cells next to land
    values are carried, not piled up, and no flux goes through. The lattice goes beyond the domain
    by a margin, and further by the mean way of the velocity in a time :math:`T`. Where the Peclet
    number of a cell, :math:`|m| h / (2 H)`, is more than one, diffusion is added along the
    velocity, for the noise and the initial law too. The initial law is stationary where
    coefficients are constant; otherwise ``spin_up`` gives it steps to settle.

    Lengths are in metres on the sphere, and times in days: so velocities are in metres per day
    (86400 times m/s), diffusivities in squared metres per day, with axes in the order of the
    domain, (lat, lon) or (y, x).

    References:
        | The SPDE approach for spatio-temporal datasets with advection and diffusion
          (Clarotto et al., 2024)
        | https://doi.org/10.1016/j.spasta.2024.100847
        | Numerical Solution of Time-Dependent Advection-Diffusion-Reaction Equations
          (Hundsdorfer and Verwer, 2003)
        | https://doi.org/10.1007/978-3-662-09017-6

    Arguments:
        domain: Where the field is wanted: a grid with an axis of time, or points with time.
        lengthscale: The lengthscale :math:`\ell` in space, in metres on the sphere, else in the
            units of the axes: one number, or one per axis of space.
        timescale: The time :math:`T` in which large scales are forgotten, in days. It sizes the
            margin even where ``kappa`` and ``diffusivity`` are given.
        variance: The marginal variance :math:`\sigma^2`, in squared units of the field: a number,
            or a field of them, that of the place where coefficients vary little in a lengthscale.
        velocity: The velocity :math:`m`: one vector, to be learned from there; values at the
            nodes of the domain, with shape :math:`(n, d)`, at one time or at all; or a field.
        alpha: The power, 2 or 4.
        color: The color of the noise, from 0 to 4.
        mean: The known mean, in the units of the field.
        trend: The unknown trend, e.g. ``"1 + lon + lat"``; see :class:`Trend`.
        kappa: The field :math:`\kappa`, in days to the power :math:`-1 / \alpha`, in place of
            that of ``timescale``: a parameter field, or values at the nodes.
        diffusivity: The field :math:`H`, in place of that of ``lengthscale`` and ``timescale``.
        tau: The field :math:`\tau`, in place of ``variance``.
        rotation: The angle of the last lengthscale, as :class:`matheron.Matern` takes it.
        damping: ``"diffusive"``, or ``"uniform"`` for a separable law.
        scheme: ``"euler"``, or ``"crank-nicolson"``, the more accurate with short steps.
        step: The longest step of time: longer intervals of the grid are cut into equal ones.
        times: The times of the state; by default those of the grid.
        initial: The law at the first time: ``"stationary"``, a Markov prior on the nodes of the
            lattice, or their mean and precision.
        spin_up: The number of steps before the first time.
        margin: How far the lattice goes beyond the domain, in lengthscales.
        lattice: The grid of space, or the lattice, that the equation is solved on. By default the
            grid of the domain, or a regular one with five nodes per lengthscale.
        interpolation: What the field is between the nodes in space: ``"linear"``, or ``"cubic"``
            where it is smooth and the nodes are few. A lattice that is given has its own.
        stabilize: Whether to add diffusion where cells are too coarse for the velocity.
        conservative: Whether advection is :math:`\nabla \cdot (m x)` in the domain, which differs
            from :math:`m \cdot \nabla x` where the velocity has a divergence.

    Raises:
        ValueError: If the domain has no time and space, if a number is not positive, if the
            lengthscale is under two steps of the lattice, or if a field does not fit.

    Example:
        >>> grid = Grid(time=[0.0, 1.0, 2.0], y=torch.arange(5.0), x=torch.arange(6.0))
        >>> prior = AdvectionDiffusion(grid, lengthscale=3.0, timescale=4.0, velocity=(0.0, 1.0))
        >>> prior.sample(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 90])
    """

    def __init__(
        self,
        domain: Grid | Points,
        lengthscale: float | Sequence[float] | Tensor,
        timescale: float,
        variance: float | ParameterField | Tensor = 1.0,
        velocity: Velocity = None,
        alpha: int = 2,
        color: int = 1,
        mean: float = 0.0,
        trend: str | None = None,
        *,
        kappa: Coefficient = None,
        diffusivity: Coefficient = None,
        tau: Coefficient = None,
        rotation: float | Sequence[float] | None = None,
        damping: str = "diffusive",
        scheme: str = "euler",
        step: float | None = None,
        times: Float[Tensor, " k"] | None = None,
        initial: Start = "stationary",
        spin_up: int = 0,
        margin: float = 2.0,
        lattice: Grid | Lattice | None = None,
        interpolation: str = "linear",
        stabilize: bool = True,
        conservative: bool = True,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.timeline = Timeline(domain, times, step, spin_up)
        self.form = Form.of(len(domain.dims) - 1, alpha, color, scheme, damping)
        d = self.form.dimension
        self.kappa = timed_field("kappa", kappa, domain, ())
        self.diffusivity = timed_field("diffusivity", diffusivity, domain, (d, d))
        self.tau = timed_field("tau", tau, domain, ())
        varying, level = _split(variance, tau)
        self.variance_field = timed_field("variance", varying, domain, ())
        self._set_kernel(lengthscale, level, rotation)
        self._set_timescale(timescale)
        self.velocity = self._velocity(velocity)
        self.lattice = self._cover(lattice, margin, interpolation, stabilize)
        self._excess = Excess(self.lattice)
        self._chain: Evolution | None = None
        self.transport = Transport(self.lattice, conservative, stabilize)
        self._fields = self._timed()
        self.initial = _checked(initial, len(self.lattice))
        self._set_trend(mean, trend)
        self._check_resolution()
        self._weights = Weights(self.lattice, self.timeline)

    def _set_kernel(
        self,
        lengthscale: float | Sequence[float] | Tensor,
        variance: float | Tensor,
        rotation: float | Sequence[float] | None,
    ) -> None:
        r"""Sets the kernel that has the parameters of space; those that are replaced rest."""
        positive(WHERE, "variance", variance)
        scale = positive(WHERE, "lengthscale", lengthscale)
        if scale.ndim and len(scale) != self.form.dimension:
            msg = (
                f"{WHERE}(lengthscale=...): expected one number, or one per axis of "
                f"{self.domain.dims[1:]}, got {len(scale)}. Give as many as axes of space."
            )
            raise ValueError(msg)
        if self.form.nu <= 0 and self.tau is None:
            msg = (
                f"{WHERE}(color=...): expected a smoothness over {self.form.dimension / 2} for a "
                f"finite variance, got {self.form.spatial}. Take color={self._least()}, or give "
                "tau=..."
            )
            raise ValueError(msg)
        self.kernel = Matern(max(self.form.nu, 0.5), variance, scale, rotation)
        for parameter in (self.kernel.log_lengthscale, self.kernel.shear):
            if parameter is not None:
                parameter.requires_grad_(self.diffusivity is None)
        free = self.tau is None and self.variance_field is None
        self.kernel.log_variance.requires_grad_(free)

    def _least(self) -> int:
        r"""Returns the least color whose variance is finite."""
        return self.form.color + math.floor(1 - self.form.nu)

    def _set_timescale(self, timescale: float) -> None:
        free = self.kappa is None or self.diffusivity is None
        start = positive(WHERE, "timescale", timescale).log()
        self.log_timescale = nn.Parameter(start, requires_grad=free)

    @property
    def timescale(self) -> Float[Tensor, ""]:
        r"""The time in which large scales are forgotten, in days."""
        return self.log_timescale.exp()

    def _velocity(self, velocity: Velocity) -> ParameterField | None:
        if velocity is None or isinstance(velocity, ParameterField):
            return timed_field("velocity", velocity, self.domain, (self.form.dimension,))
        m = torch.as_tensor(velocity, dtype=torch.float64)
        self._check_units(m)
        if m.shape != (self.form.dimension,) or not m.isfinite().all():
            return timed_field("velocity", m, self.domain, (self.form.dimension,))
        return Constant(m, (self._reach().max() / self.timescale).item())

    def _check_units(self, m: Tensor) -> None:
        way = m.abs().max() * self.timescale
        if self.domain.metric == "sphere" and 0 < way < 1e-3 * self._reach().min():
            msg = (
                f"{WHERE}(velocity=...): expected metres per day, got at most "
                f"{m.abs().max().item():.3g}, which goes nowhere in a timescale. Multiply m/s by "
                "86400."
            )
            raise ValueError(msg)

    def _square(self) -> Float[Tensor, "1 d d"]:
        r"""Returns :math:`\ell \ell^\top / (2 \nu)`: the kernel takes its root from distances."""
        scaled = self.kernel.scaled(torch.eye(self.form.dimension, dtype=torch.float64))
        return torch.linalg.inv(scaled @ scaled.mT)[None]

    @torch.no_grad()
    def _reach(self) -> Float[Tensor, " d"]:
        return (2 * self.kernel.nu * self._square()[0].diagonal()).sqrt()

    @torch.no_grad()
    def _cover(
        self, lattice: Grid | Lattice | None, margin: float, interpolation: str, stabilize: bool
    ) -> Lattice:
        space, reach = space_of(self.domain), self._reach()
        if lattice is None and isinstance(space, Points):
            lattice = regular(WHERE, space, reach)
        if self.velocity is not None:  # what flows in is forgotten on the way
            way = self.velocity(self.domain.points).abs().mean(dim=0) * self.timescale
            reach = reach + way / margin
        oblique = self.kernel.shear is not None or self.diffusivity is not None
        build = lambda cross: cover(WHERE, space, lattice, reach, margin, cross, interpolation)
        found = build(oblique)
        if isinstance(found, Lattice) and stabilize and not found.cross and self._coarse(found):
            found = build(True)  # for the diffusion along the velocity
        if not isinstance(found, Lattice):
            msg = (
                f"{WHERE}(lattice=...): expected a Grid or a Lattice, got {type(found).__name__}. "
                "Pass lattice=Grid(...)."
            )
            raise TypeError(msg)
        return found

    def _coarse(self, lattice: Lattice) -> bool:
        r"""Returns whether cells of the domain may have a Peclet number over one."""
        if self.velocity is None or self.form.uniform:
            return False
        fastest = self.velocity(self.domain.points).abs().amax(dim=0)
        widest = lattice.spacing[~lattice.margin].amax(dim=0)
        slowest = self.timescale.pow(-2 / self.form.alpha) * self._square()[0].diagonal().min()
        return bool((fastest * widest).sum() / 2 > slowest)

    def _timed(self) -> dict[str, TimedField | NodalField]:
        points, epoch = self.lattice.points, self.timeline.epoch
        fields = {"kappa": self.kappa, "diffusivity": self.diffusivity, "tau": self.tau}
        fields |= {"velocity": self.velocity, "variance": self.variance_field}
        return {k: TimedField(f, points, epoch) for k, f in fields.items() if f is not None}

    @torch.no_grad()
    def _check_resolution(self) -> None:
        c = self._coefficients(0)
        square = 2 * self.kernel.nu * c.diffusivity / c.rate[:, None, None]
        narrow = torch.linalg.inv(square).diagonal(dim1=-2, dim2=-1).rsqrt()
        wide = narrow.expand(len(self.lattice), -1)
        check_resolution(WHERE, wide, self.lattice, self.lattice.grid.dims)

    def _coefficients(self, k: int) -> Coefficients:
        r"""Returns the coefficients at the k-th time."""
        time, fields = self.timeline.times[k], self._fields
        level = self.timescale.pow(-2 / self.form.alpha).reshape(1)
        rate = fields["kappa"](time).square() if "kappa" in fields else level
        H = level * self._square()
        H = fields["diffusivity"](time) if "diffusivity" in fields else H
        m = self.transport.velocity(fields["velocity"](time)) if "velocity" in fields else None
        tau = fields["tau"](time) if "tau" in fields else None
        excess = self._excess(rate, H, self.form.spatial) if tau is None else rate
        variance = fields["variance"](time) if "variance" in fields else self.kernel.variance
        return Coefficients(rate, H, m, tau, variance, excess)

    def at_nodes(self, **values: Tensor) -> AdvectionDiffusion:
        r"""Returns the same equation with coefficients that are given at the nodes of the lattice.

        What does not depend on them is shared: the lattice, the patterns and their analyses. They
        are the same at all times, and may carry a gradient. None of them is checked. A variance
        takes the place of ``tau``.

        Arguments:
            values: Some of ``kappa``, ``diffusivity``, ``velocity`` and ``variance``, with
                shapes :math:`(N)`, :math:`(N, d, d)`, :math:`(N, d)` and :math:`(N)`.

        Raises:
            ValueError: If a name or a shape is another.

        Example:
            >>> grid = Grid(time=[0.0, 1.0], y=torch.arange(5.0), x=torch.arange(5.0))
            >>> prior = AdvectionDiffusion(grid, lengthscale=3.0, timescale=4.0)
            >>> twice = prior.at_nodes(variance=torch.full((len(prior.lattice),), 4.0).double())
            >>> bool(torch.allclose(twice.precision().values, prior.precision().values / 4))
            True
        """
        d, N = self.form.dimension, len(self.lattice)
        shapes = {"kappa": (N,), "diffusivity": (N, d, d), "velocity": (N, d), "variance": (N,)}
        for name, value in values.items():
            if shapes.get(name) != tuple(value.shape):
                msg = (
                    f"{WHERE}.at_nodes({name}=...): expected some of {shapes}, got "
                    f"{tuple(value.shape)}. Give one value per node of prior.lattice."
                )
                raise ValueError(msg)
        new = self.along(None)
        kept = {
            k: v for k, v in self._fields.items() if (k, "variance" in values) != ("tau", True)
        }
        new._fields = kept | {k: NodalField(v) for k, v in values.items()}
        return new

    def along(self, chain: Evolution | None) -> AdvectionDiffusion:
        r"""Returns the same equation with a chain that is given, e.g. of other coefficients.

        Arguments:
            chain: The chain, with as many steps as there are; ``None`` for that of its own
                coefficients.
        """
        new = copy.copy(self)
        new._chain = chain
        return new

    def _dynamics(self, k: int) -> Dynamics:
        return Dynamics(self.form, self._coefficients(k), self.transport)

    def evolution(self) -> Evolution:
        r"""Returns the chain of fields, at the present parameters.

        Steps of one length are one object if the coefficients do not vary in time.
        """
        if self._chain is not None:
            return self._chain
        varies = any(field.varies for field in self._fields.values())
        first = self._dynamics(0)
        lengths = self.timeline.steps.tolist()
        steps: list[Step] = []
        known: dict[float, Step] = {}
        before = first
        for k, length in enumerate(lengths):
            key = float(k) if varies else round(length / lengths[0], 9)
            if key not in known:
                after = self._dynamics(k + 1) if varies else first
                known[key] = after.after(before, length)
                before = after
            steps.append(known[key])
        return Evolution(self._first_precision(first), steps, first.factorise)

    def _first_precision(self, first: Dynamics) -> Sparse:
        if isinstance(self.initial, MarkovPrior):
            return self.initial.precision()
        if isinstance(self.initial, tuple):
            return self.initial[1]
        steps = self.timeline.steps
        return first.stationary(steps[0].item() if len(steps) else 0.0)

    def first_mean(self) -> Float[Tensor, " N"] | None:
        r"""Returns the mean of the nodes at the first time, or ``None`` where it is zero."""
        if isinstance(self.initial, MarkovPrior):
            return self.initial.mean(self.lattice.points) - self.constant
        return self.initial[0] - self.constant if isinstance(self.initial, tuple) else None

    def mean(self, points: Points) -> Float[Tensor, " m"]:
        start = self.first_mean()
        if start is None or not start.any():
            return super().mean(points)
        with torch.no_grad():  # a fit holds the mean of the data while it moves the parameters
            return super().mean(points) + self.embedding(points) @ self.evolution().mean(start)

    def precision(self) -> Sparse:
        return self.evolution().precision()

    def log_determinant(self) -> Float[Tensor, ""]:
        return self.evolution().log_determinant()

    def sample_nodes(self, size: int, generator: Generator | None = None) -> Tensor:
        return self.evolution().sample(size, generator)

    def embedding(self, points: Points) -> Sparse:
        return self._weights(points)

    def places(self) -> Float[Tensor, "N k"]:
        nodes = self.lattice.places()
        index = torch.arange(len(self.timeline), dtype=torch.float64)
        index = index.repeat_interleave(len(nodes))[:, None]
        return torch.cat([index, nodes.repeat(len(self.timeline), 1)], dim=-1)

    def nodes(self) -> Points:
        times, space = self.timeline.times, self.lattice.points
        t = times.repeat_interleave(len(space))[:, None]
        coords = torch.cat([t, space.coords.repeat(len(times), 1)], dim=-1)
        dims, epoch = ("time", *space.dims), self.timeline.epoch
        return Points(coords, dims, metric=space.metric, epoch=epoch)  # type: ignore[arg-type]

    def penalty(self) -> Float[Tensor, ""]:
        fields = (self.kappa, self.diffusivity, self.tau, self.velocity, self.variance_field)
        kinds = (ParameterField, MarkovPrior)
        every = (*fields, self.initial)
        return sum((f.penalty() for f in every if isinstance(f, kinds)), super().penalty())

    def quantities(self) -> list[Quantity]:
        rows = of_kernel(self.kernel, self.lattice.grid)
        if not self.kernel.log_variance.requires_grad:
            rows = [row for row in rows if "variance" not in row[0]]
        if self.diffusivity is not None:
            rows = [row for row in rows if row[0] == "Matern variance"]
        if self.log_timescale.requires_grad:
            rows.append(("timescale", self.timescale, "days"))
        return rows + self._velocity_rows()

    def _velocity_rows(self) -> list[Quantity]:
        if not isinstance(self.velocity, Constant):
            return []
        metres = self.lattice.grid.metric == "sphere"
        m = self.velocity(self.lattice.points[:1])[0] / (1000 if metres else 1)
        units = "km/day" if metres else "units of the axis/day"
        names = [f"velocity {name}" for name in self.lattice.grid.dims]
        return [(name, v, units) for name, v in zip(names, m, strict=True)]


def _split(
    variance: float | ParameterField | Tensor, tau: Coefficient
) -> tuple[Coefficient, float | Tensor]:
    r"""Returns the variance as a field, if it is one, and as a number, else 1."""
    field = isinstance(variance, ParameterField) or torch.as_tensor(variance).ndim > 0
    if not field:
        return None, variance  # type: ignore[return-value]
    if tau is not None:
        msg = (
            f"{WHERE}(tau=..., variance=...): expected one field of them, got both. Give tau, the "
            "weight of the noise, or the variance of the solution."
        )
        raise ValueError(msg)
    return variance, 1.0  # type: ignore[return-value]


def _checked(initial: Start, n: int) -> Start:
    if isinstance(initial, MarkovPrior):
        shape: object = tuple(initial.precision().shape)
    elif isinstance(initial, tuple):
        shape = (*initial[0].shape, initial[1].shape[0])
    else:
        shape = (n, n) if initial == "stationary" else repr(initial)
    if shape != (n, n):
        msg = (
            f"{WHERE}(initial=...): expected 'stationary', or a law on the {n} nodes of the "
            f"lattice, got {shape}. Build it with the lattice of this prior."
        )
        raise ValueError(msg)
    return initial
