r"""The joint law of a field and of the parameters of its equation, which vary in space."""

from __future__ import annotations

__all__ = ["AugmentedSPDE"]

import math
import torch

from collections.abc import Callable, Mapping
from functools import cached_property
from jaxtyping import Float, Int
from torch import Generator, Tensor
from typing import Any

from .advection_diffusion import AdvectionDiffusion
from .coordinates import Box
from .evolution import Evolution
from .links import Link
from .parameters import Parameters, Spread
from .timed import space_of
from ..base import Sampling
from ..gp import GaussianProcess
from ...domain import Grid, Points
from ...kernels.stationary import Matern
from ...linalg.cholesky import Analysis, Cholesky
from ...linalg.dense import square_root
from ...linalg.descent import least
from ...linalg.sparse import Assembly, Sparse

WHERE = "AugmentedSPDE"


class AugmentedSPDE(Sampling):
    r"""A field of advection and diffusion, with parameters that vary in space and have a law too.

    .. math:: -\log p(x, \theta) = \tfrac{1}{2} (x - \mu)^\top Q(\theta) (x - \mu)
        - \tfrac{1}{2} \log |Q(\theta)| - \log p(\theta) + \mathrm{cst}

    :math:`Q(\theta)` is the precision of :class:`AdvectionDiffusion`. Its determinant is a part of
    the cost: without it the best standard deviation would be infinite. The parameters
    :math:`\theta` are :math:`c` fields on a coarse grid, linear between its nodes: the logarithms
    of the standard deviation and of the timescale, the matrix logarithm of the lengthscale, and
    the velocity, each as its departure from a constant, in units of its spread:

    .. math:: \sigma = \sigma_0 e^{s_1 \theta_1}, \quad T = T_0 e^{s_2 \theta_2}, \quad
        \ell = \ell_0 \exp \begin{pmatrix} s_3 \theta_3 & s_3 \theta_4 / \sqrt{2} \\
        s_3 \theta_4 / \sqrt{2} & s_3 \theta_5 \end{pmatrix}, \quad
        m = m_0 + s_6 (\theta_6, \theta_7)

    in two dimensions, where :math:`\ell \ell^\top` is the squared lengthscale. Any real number
    gives an equation that makes sense: nothing is clipped, so that no gradient dies at a bound.
    A priori, each is an independent Gaussian field of variance one, of Matern with
    :math:`\nu = 3/2`; no axis is preferred. They are constant in time, so that all steps of one
    length share their factors, and in the margin of the lattice they are those of the nearest
    edge. The standard deviation is that of the place where parameters vary little within a
    lengthscale.

    Where the lattice has nodes that the field does not, e.g. a margin, they are integrated out,
    exactly: that takes one sparse factor of all of them, and most of the time. A ``lattice`` whose
    nodes are those of the domain, ``Lattice(grid)``, spares it: the boundary, where the variance
    is higher, is then a part of the domain, which must be wide. Land is a wall to the field, not
    to its parameters.

    References:
        | Neural variational data assimilation with uncertainty quantification using SPDE priors
          (Beauchamp, Fablet, Benaichouche, Tandeo, Desassis & Chapron, 2025)
        | https://doi.org/10.1175/AIES-D-24-0060.1
        | Exploring a new class of non-stationary spatial Gaussian random fields with varying local
          anisotropy (Fuglstad et al., 2015)
        | https://doi.org/10.5705/ss.2013.106w

    Arguments:
        domain: The grid of the field, with an axis of time and one or two of space.
        lengthscale: The constant :math:`\ell_0`, one number or one per axis of space, as
            :class:`AdvectionDiffusion` has it.
        timescale: The constant :math:`T_0`, in days.
        std: The constant :math:`\sigma_0`, in the units of the field.
        velocity: The constant :math:`m_0`, one number per axis of space; by default zero.
        spread: How far the parameters go from their constants: a :class:`Spread`, or its
            arguments by name.
        every: How many steps of the grid lie between the nodes of the parameters, at most.
        smoothness: The lengthscale of the fields of parameters; by default twice that of the
            field.
        settings: Others of :class:`AdvectionDiffusion`, e.g. ``margin`` or ``lattice``.

    Raises:
        ValueError: If a number is not positive, or the domain has not one or two axes of space
            beside time, or the lattice has not its nodes.

    Example:
        >>> grid = Grid(time=[0.0, 1.0], y=torch.arange(7.0), x=torch.arange(8.0))
        >>> prior = AugmentedSPDE(grid, lengthscale=3.0, timescale=4.0)
        >>> x, theta = prior.sample_jointly(2, torch.Generator().manual_seed(0))
        >>> x.shape, theta.shape, prior.cost(x, theta).shape
        (torch.Size([2, 112]), torch.Size([2, 7, 9]), torch.Size([2]))
    """

    domain: Grid
    lengthscale: Tensor
    velocity: Tensor
    spreads: Tensor
    white: Tensor

    def __init__(
        self,
        domain: Grid,
        lengthscale: float | tuple[float, ...],
        timescale: float,
        std: float = 1.0,
        velocity: tuple[float, ...] | None = None,
        spread: Spread | Mapping[str, float] | None = None,
        every: int = 4,
        smoothness: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.domain, self.space = domain, _space(domain)
        self.dimension = len(self.space.dims)
        spread = Spread(**spread) if isinstance(spread, Mapping) else spread or Spread()
        self.spread = spread.filled(WHERE, lengthscale, timescale)
        self._set_constants(lengthscale, timescale, std, velocity)
        self.equation = self._equation(settings)
        self.coarse = _coarse(self.space, every)
        smoothness = 2 * self.lengthscale.mean().item() if smoothness is None else smoothness
        law = GaussianProcess(Matern(1.5, 1.0, smoothness), self.coarse)
        s = self.coarse.points
        root = square_root(law.covariance(s, s).detach(), WHERE, strict=True)
        self.register_buffer("white", root)
        self.link = Link((self.dimension,) * 2)
        self.register_buffer("spreads", self._spreads())
        self._at_nodes = self._weights(self.equation.lattice.points)
        self._at_places = self._weights(self.space.points)
        self._seen, self._hidden = self._split()
        self._key = (len(domain), self._hidden.numpy().tobytes())  # the same in a copy

    def _set_constants(
        self,
        lengthscale: float | tuple[float, ...],
        timescale: float,
        std: float,
        velocity: tuple[float, ...] | None,
    ) -> None:
        d = self.dimension
        scale = torch.as_tensor(lengthscale, dtype=torch.float64)
        if scale.ndim and scale.shape != (d,):
            msg = (
                f"{WHERE}(lengthscale=...): expected one number, or {d}, one per axis of space, "
                f"got {tuple(scale.shape)}. Give one per axis."
            )
            raise ValueError(msg)
        m = torch.as_tensor((0.0,) * d if velocity is None else velocity, dtype=torch.float64)
        if m.shape != (d,) or not std > 0:
            msg = (
                f"{WHERE}(velocity=...): expected {d} numbers beside a positive std, got "
                f"{m.tolist()} and {std}. Give one per axis of space."
            )
            raise ValueError(msg)
        self.register_buffer("lengthscale", scale.expand(d).clone())
        self.register_buffer("velocity", m)
        self.std, self.timescale = float(std), float(timescale)

    def _equation(self, settings: dict[str, Any]) -> AdvectionDiffusion:
        r"""Returns the equation of the constants, whose coefficients are fields."""
        n, d = len(self.space), self.dimension
        swift = self.velocity.abs() + (self.spread.velocity or 0.0)
        lengthscale = self.lengthscale
        one = torch.ones(n, dtype=torch.float64)
        nu = settings.get("color", 1) + (settings.get("damping") != "uniform") - d / 2
        H = torch.diag_embed(one[:, None] * lengthscale.square() / self.timescale / (2 * nu))
        # what is zero is left out, with the neighbours that it would ask for
        velocity = swift.expand(n, d).contiguous() if swift.any() else None
        diffusivity = H if self.spread.shear else None
        found = AdvectionDiffusion(
            self.domain,
            lengthscale if (lengthscale != lengthscale[0]).any() else lengthscale[0].item(),
            self.timescale,
            variance=one * self.std**2,
            velocity=velocity,
            diffusivity=diffusivity,
            **settings,
        )
        if found.form.alpha != 2 or found.tau is not None:
            msg = f"{WHERE}(alpha=...): expected 2 and no tau, got others. Leave them out."
            raise ValueError(msg)
        return found.requires_grad_(False)

    def _spreads(self) -> Float[Tensor, " c"]:
        s, d = self.spread, self.dimension
        i, j = torch.triu_indices(d, d)
        matrix = torch.where(i == j, s.lengthscale, (s.shear or 0.0) / math.sqrt(2))
        each = [s.std, s.timescale, *matrix.tolist(), *(s.velocity or 0.0,) * d]
        return torch.tensor(each, dtype=torch.float64)

    def _weights(self, points: Points) -> Sparse:
        r"""Returns the weights of the nodes of the parameters at some points."""
        moved = Box(self.coarse, self.coarse.dims).moved(points)
        nodes, weights = self.coarse.interpolation(moved)
        rows = torch.arange(len(nodes)).repeat_interleave(nodes.shape[1])
        shape = (len(nodes), len(self.coarse))
        return Assembly(rows.numpy(), nodes.reshape(-1).numpy(), shape)(weights.reshape(-1))

    def _split(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " h"]]:
        r"""Returns the nodes of the lattice that the field has, in its order, and the others."""
        A = self.equation.embedding(self.domain.points)
        chosen = A.pattern.column_index[A.values > 0.5]
        if len(chosen) != len(self.domain) or not torch.allclose(
            A.values.sum(), A.values.max() * len(chosen)
        ):
            msg = (
                f"{WHERE}(lattice=...): expected a lattice that has the nodes of the domain, got "
                "another. Give Lattice(grid), or leave it out."
            )
            raise ValueError(msg)
        free = torch.ones(A.shape[1], dtype=torch.bool).index_fill(0, chosen, False)
        return chosen, torch.nonzero(free)[:, 0]

    # the parameters

    @property
    def channels(self) -> int:
        r"""The number :math:`c` of fields of parameters."""
        return len(self.spreads)

    def names(self) -> tuple[str, ...]:
        r"""Returns what each channel of :math:`\theta` is."""
        dims = self.space.dims
        i, j = torch.triu_indices(self.dimension, self.dimension).tolist()
        pairs = [f"log lengthscale {dims[a]}{dims[b]}" for a, b in zip(i, j, strict=True)]
        return ("log std", "log timescale", *pairs, *(f"velocity {name}" for name in dims))

    def constants(self, size: int = 1) -> Float[Tensor, "size c k"]:
        r"""Returns parameters that are the constants everywhere: zeros."""
        return torch.zeros(size, self.channels, len(self.coarse), dtype=torch.float64)

    def parameters_of(self, theta: Float[Tensor, "c k"]) -> Parameters:
        r"""Returns the parameters at the nodes of the domain, without time."""
        return self._local(theta, self._at_places)

    def spread_out(self, theta: Float[Tensor, "*batch c k"]) -> Float[Tensor, "*batch c s"]:
        r"""Returns channels of :math:`\theta` at the nodes of the domain, without time."""
        flat = theta.reshape(-1, theta.shape[-1]).mT.contiguous()
        return (self._at_places @ flat).mT.reshape(*theta.shape[:-1], -1)

    def gathered(self, fields: Float[Tensor, "*batch c s"]) -> Float[Tensor, "*batch c k"]:
        r"""Returns the mean of fields around each node of the parameters, zero where none is."""
        W = self._at_places.T
        flat = fields.reshape(-1, fields.shape[-1]).mT.contiguous()
        weight = W @ flat.new_ones(len(flat), 1)
        mean = (W @ flat) / torch.where(weight > 0, weight, 1.0)
        return mean.mT.reshape(*fields.shape[:-1], -1)

    def _local(self, theta: Float[Tensor, "c k"], weights: Sparse) -> Parameters:
        d = self.dimension
        fields = (weights @ (theta.double() * self.spreads[:, None]).mT.contiguous()).mT
        log_std, log_time, log_length, m = fields.split([1, 1, self.link.size, d])
        ell = self.lengthscale[:, None] * self.link(log_length.mT)
        return Parameters(
            self.std * log_std[0].exp(),
            self.timescale * log_time[0].exp(),
            ell @ ell.mT,
            self.velocity + m.mT,
        )

    def given(self, theta: Float[Tensor, "c k"]) -> AdvectionDiffusion:
        r"""Returns the law of the field given its parameters, differentiable in them.

        Everything that does not depend on them is shared between calls.
        """
        p = self._local(theta, self._at_nodes)
        rate = 1 / p.timescale
        H = p.square * (rate / (2 * self.equation.form.nu))[:, None, None]
        moving = {} if self.equation.velocity is None else {"velocity": p.velocity}
        return self.equation.at_nodes(
            kappa=rate.sqrt(), diffusivity=H, variance=p.std.square(), **moving
        )

    # the law

    def penalty(self, theta: Float[Tensor, "*batch c k"]) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`-\log p(\theta)`, up to a constant."""
        z = torch.linalg.solve_triangular(self.white, theta.mT, upper=False)
        return z.square().sum(dim=(-2, -1)) / 2

    def cost(
        self, x: Float[Tensor, "*batch n"], theta: Float[Tensor, "*batch c k"]
    ) -> Float[Tensor, "*batch"]:
        r"""Returns :math:`-\log p(x, \theta)`, up to a constant that does not depend on either."""
        xs, thetas = x.reshape(-1, x.shape[-1]), theta.reshape(-1, *theta.shape[-2:])
        each = [self._field_cost(a, b) for a, b in zip(xs, thetas, strict=True)]
        return torch.stack(each).reshape(x.shape[:-1]) + self.penalty(theta)

    def gradient(
        self, x: Float[Tensor, "*batch n"], theta: Float[Tensor, "*batch c k"]
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch c k"]]:
        r"""Returns the gradients of the cost in the field and in its parameters.

        They carry no gradient in turn: that of a log-determinant has no cheap derivative.
        """
        with torch.enable_grad():
            a, b = x.detach().double().requires_grad_(), theta.detach().double().requires_grad_()
            for_x, for_theta = torch.autograd.grad(self.cost(a, b).sum(), (a, b))
        return for_x, for_theta

    def log_density(
        self, x: Float[Tensor, "r n"], theta: Float[Tensor, "c k"]
    ) -> Float[Tensor, " r"]:
        r"""Returns :math:`\log p(x \mid \theta)`, up to a constant, of some fields at once."""
        equation = self.given(theta)
        evolution = equation.evolution()
        half = evolution.log_determinant() / 2
        r = (x.double() - equation.drift()).mT.contiguous()
        if len(self._hidden):
            return half - self._marginal(equation, evolution, r)
        u = r.new_zeros(r.shape).index_copy(0, self._seen, r)
        return half - evolution.quadratic(u) / 2

    def _field_cost(
        self, x: Float[Tensor, " n"], theta: Float[Tensor, "c k"]
    ) -> Float[Tensor, ""]:
        return -self.log_density(x[None], theta)[0]

    def _marginal(
        self, equation: AdvectionDiffusion, evolution: Evolution, r: Float[Tensor, "n c"]
    ) -> Float[Tensor, " c"]:
        r"""Returns what is taken off half the log-determinant, others nodes integrated out.

        .. math:: \tfrac{1}{2} \min_v \begin{pmatrix} r \\ v \end{pmatrix}^\top Q
            \begin{pmatrix} r \\ v \end{pmatrix} + \tfrac{1}{2} \log |Q_{vv}|
        """
        Q = evolution.precision()
        inner, across = self._blocks(Q)
        analysis = inner.pattern.keep(
            "analysis", lambda: Analysis(inner.pattern, equation.places()[self._hidden])
        )
        factor = Cholesky(inner, analysis, where=f"{WHERE}.cost")
        with torch.no_grad():  # at the minimum nothing moves with it
            v = -factor.solve(across @ r)
        u = r.new_zeros(Q.shape[0], r.shape[1])
        u = u.index_copy(0, self._seen, r).index_copy(0, self._hidden, v)
        return (evolution.quadratic(u) + factor.logdet()) / 2

    def _blocks(self, Q: Sparse) -> tuple[Sparse, Sparse]:
        r"""Returns the block of the hidden nodes, and that to the others; patterns are kept."""
        ones = Sparse(Q.pattern, torch.arange(Q.pattern.nnz, dtype=torch.float64) + 1)

        def place(columns: Tensor) -> tuple[Any, Tensor]:
            found = ones.take(self._hidden, columns)
            return found.pattern, found.values.long() - 1

        patterns = Q.pattern.keep(
            ("augmented", self._key), lambda: (place(self._hidden), place(self._seen))
        )
        return tuple(Sparse(pattern, Q.values[at]) for pattern, at in patterns)  # type: ignore[return-value]

    @cached_property
    @torch.no_grad()
    def stiffness(self) -> float:
        r"""The curvature of the cost at one node, with the constants: the median over nodes."""
        Q = self.given(self.constants()[0]).precision()
        return Q.diagonal()[self._seen].median().item()

    def likeliest(
        self,
        cost: Callable[[Tensor], Tensor],
        start: Float[Tensor, "c k"] | None = None,
        steps: int = 5,
    ) -> Float[Tensor, "c k"]:
        r"""Returns parameters that make a cost, and that of their own law, small.

        .. math:: \min_\theta \; J(\theta) - \log p(\theta)

        by L-BFGS, in terms of the white noise that parameters are made of. With the cost
        :math:`-\log p(y \mid \theta)` of data they are those of largest posterior density.

        Arguments:
            cost: The cost :math:`J`, differentiable.
            start: Where to start, by default the constants.
            steps: The number of steps, at most.
        """
        theta = self.constants()[0] if start is None else start
        z = torch.linalg.solve_triangular(self.white, theta.mT.double(), upper=False)

        def total(z: Float[Tensor, "k c"]) -> Float[Tensor, ""]:
            theta = (self.white @ z).mT
            return cost(theta) + self.penalty(theta)

        return (self.white @ least(total, z, steps)).mT.contiguous()

    # draws

    def sample_parameters(
        self, size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size c k"]:
        r"""Draws :math:`\theta`."""
        shape = (size, self.channels, len(self.coarse))
        z = torch.randn(shape, dtype=torch.float64, generator=generator)
        return z @ self.white.mT

    def sample_jointly(
        self, size: int, generator: Generator | None = None, each: int = 1
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size c k"]]:
        r"""Draws :math:`(x, \theta)`.

        Arguments:
            size: The number of draws.
            generator: The random number generator.
            each: How many draws in a row have the same parameters, which takes less time.
        """
        theta = self.sample_parameters(-(-size // each), generator)
        x = torch.cat([self.given(t).sample(each, generator) for t in theta])
        return x[:size], theta.repeat_interleave(each, dim=0)[:size]

    def sample(self, size: int, generator: Generator | None = None) -> Float[Tensor, "size n"]:
        self._check_size(size)
        return self.sample_jointly(size, generator)[0]


def _space(domain: Grid) -> Grid:
    space = space_of(domain) if isinstance(domain, Grid) and "time" in domain.dims else domain
    if not isinstance(space, Grid) or space is domain or len(space.dims) not in {1, 2}:
        msg = (
            f"{WHERE}(domain=...): expected a Grid with time and one or two axes of space, got "
            f"{domain!r}. Name the axis of time 'time'."
        )
        raise ValueError(msg)
    return space


def _coarse(space: Grid, every: int) -> Grid:
    r"""Returns a regular grid over the box of another, with no land."""
    if every < 1:
        msg = f"{WHERE}(every=...): expected one step or more, got {every}. Use e.g. 4."
        raise ValueError(msg)
    axes: dict[str, Any] = {}
    for name, axis in space.axes.items():
        cells = max(math.ceil((len(axis) - 1) / every), 1)
        axes[name] = torch.linspace(axis[0].item(), axis[-1].item(), cells + 1).double()
    return Grid(**axes, metric=space.metric)
