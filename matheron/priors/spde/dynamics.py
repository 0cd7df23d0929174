r"""The operators of an equation of evolution at one time, and the laws that they give."""

from __future__ import annotations

__all__ = ["Coefficients", "Dynamics", "Excess", "Form"]

import numpy as np
import torch

from dataclasses import dataclass
from functools import cached_property
from jaxtyping import Float
from torch import Tensor

from .evolution import Noise, Step, power
from .lattice import Lattice
from .normalisation import lattice_variance, limit_variance
from .rational import Part
from .stepping import stepping_ratio
from .transport import Transport
from ...linalg.cholesky import Analysis, Cholesky
from ...linalg.sparse import Sparse

SCHEMES = {"euler": 1.0, "crank-nicolson": 0.5}
DAMPINGS = ("diffusive", "uniform")


@dataclass(frozen=True)
class Form:
    r"""What is chosen of an equation, and does not change.

    Arguments:
        dimension: The number of axes of space.
        alpha: The power of the operator, 2 or 4.
        color: The color of the noise, from 0 to 4.
        implicit: The weight of the new field in what fades: 1 (Euler) or 1/2 (Crank-Nicolson).
        uniform: Whether all scales fade alike.
    """

    dimension: int
    alpha: int
    color: int
    implicit: float
    uniform: bool = False

    @classmethod
    def of(
        cls, dimension: int, alpha: int, color: int, scheme: str, damping: str = "diffusive"
    ) -> Form:
        r"""Returns the form of some choices, checked."""
        uniform = damping == "uniform"
        choices: dict[str, tuple[object, tuple[object, ...]]] = {
            "damping": (damping, DAMPINGS),
            "alpha": (alpha, (2,) if uniform else (2, 4)),
            "color": (color, (0, 1, 2, 3, 4)),
            "scheme": (scheme, tuple(SCHEMES)),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                msg = (
                    f"AdvectionDiffusion({name}=...): expected one of {allowed}, got {value!r}. "
                    "Choose one."
                )
                raise ValueError(msg)
        # steps that are fitted to an exponential are centred, whatever is asked for
        return cls(dimension, alpha, color, 0.5 if uniform else SCHEMES[scheme], uniform)

    @property
    def spatial(self) -> int:
        r"""The power of the operator in the covariance in space."""
        return self.color + (0 if self.uniform else self.alpha // 2)

    @property
    def nu(self) -> float:
        r"""The smoothness in space."""
        return self.spatial - self.dimension / 2

    @property
    def damping(self) -> float:
        r"""The part of a step that damps the variance: 1 for Euler, 0 for Crank-Nicolson."""
        return 2 * self.implicit - 1


@dataclass(frozen=True)
class Coefficients:
    r"""The coefficients at one time, at each node or once for all.

    Arguments:
        rate: The rate :math:`\kappa^2`.
        diffusivity: The diffusivity :math:`H`.
        velocity: The velocity :math:`m`, if there is one.
        tau: The amplitude of the noise, if it is given.
        variance: The variance, if the amplitude is not given: one number, or one per node.
        excess: The variance on the lattice, over that of the equation in space.
    """

    rate: Float[Tensor, " n"]
    diffusivity: Float[Tensor, "k d d"]
    velocity: Float[Tensor, "N d"] | None
    tau: Float[Tensor, " m"] | None
    variance: Float[Tensor, "*N"]
    excess: Float[Tensor, " N"]


class Excess:
    r"""The part of the error of a lattice that is taken off the variance, node by node.

    It is the root of the excess of variance over the equation in space, as in
    :class:`WhittleMatern`, for axes that are not coupled.

    Arguments:
        lattice: The lattice.
    """

    def __init__(self, lattice: Lattice) -> None:
        self.spacing = lattice.spacing
        logs = (self.spacing.log() * 1e6).round()  # alike to a millionth
        rows, where = np.unique(logs.numpy(), axis=0, return_inverse=True)
        self.distinct = torch.as_tensor(rows / 1e6).exp()
        self.where = torch.as_tensor(where.reshape(-1))

    def __call__(
        self, rate: Float[Tensor, " n"], H: Float[Tensor, "k d d"], alpha: int
    ) -> Float[Tensor, " N"]:
        once = len(rate) == len(H) == 1
        spacing = self.distinct if once else self.spacing
        across = H.diagonal(dim1=-2, dim2=-1) / rate[:, None]
        across = torch.diag_embed(across.expand(len(spacing), -1))
        one = torch.ones(len(spacing), dtype=torch.float64)
        found = lattice_variance(across, spacing, [Part(alpha)], one)
        found = (found / limit_variance(across, float(alpha))).sqrt()
        return found[self.where] if once else found


class Dynamics:
    r"""The operators :math:`K`, which is symmetric, and :math:`A`, of advection.

    .. math:: K = \kappa^2 C + G(H), \qquad D = K + A, \qquad
        B = D \;(\alpha = 2), \quad D C^{-1} D \;(\alpha = 4)

    :math:`B` is the sum of a part by which waves fade, and of one by which they move. Where all
    scales fade alike the first is :math:`\kappa^2 C`, and :math:`K` only colors the noise.

    Arguments:
        form: What is chosen of the equation.
        coefficients: The coefficients.
        transport: The operator of advection, on its lattice.
    """

    def __init__(self, form: Form, coefficients: Coefficients, transport: Transport) -> None:
        self.form, self.coefficients, self.transport = form, coefficients, transport
        self.volume = transport.lattice.volume
        m, H = coefficients.velocity, coefficients.diffusivity
        # what makes the noise alone needs no diffusion more
        self.H = H if m is None or form.uniform else transport.diffusivity(H, m)
        self.K = transport.lattice.stiffness(self.H) + Sparse.diag(coefficients.rate * self.volume)
        self.A = None if m is None else transport.operator(m)
        if form.alpha == 4:
            _check_growth(self.drift)

    @cached_property
    def drift(self) -> Float[Tensor, " n"]:
        r"""The squared speed :math:`m^\top H^{-1} m / \kappa^2`."""
        m, rate = self.coefficients.velocity, self.coefficients.rate
        if m is None:
            return torch.zeros_like(rate)
        return (m * torch.linalg.solve(self.H, m[..., None])[..., 0]).sum(dim=-1) / rate

    @cached_property
    def fading(self) -> Sparse:
        r"""The part of the operator by which waves fade: its even part in the velocity."""
        if self.form.alpha == 2:
            return self.K
        R = power(self.K, self.volume, 2)
        return R if self.A is None else R + self.A.product(self.per_volume(self.A))

    def _faded(self, step: float) -> Sparse:
        r"""Returns what fades in a step."""
        if not self.form.uniform:
            return self.fading
        return Sparse.diag((self.fitted(step) * self.volume).expand(len(self.volume)))

    @cached_property
    def moving(self) -> Sparse | None:
        r"""The part of the operator by which waves move: its odd part in the velocity."""
        if self.A is None or self.form.alpha == 2:
            return self.A
        return self.K.product(self.per_volume(self.A)) + self.A.product(self.per_volume(self.K))

    def per_volume(self, operator: Sparse) -> Sparse:
        r"""Returns :math:`C^{-1}` times an operator."""
        return operator.scale(rows=1 / self.volume)

    def factorise(self, Q: Sparse) -> Cholesky:
        r"""Returns the factor of a matrix on the nodes of one time."""
        places = self.transport.lattice.places
        analysis = Q.pattern.keep("analysis", lambda: Analysis(Q.pattern, places()))
        return Cholesky(Q, analysis, where="AdvectionDiffusion.precision")

    def tau(self, step: float) -> Float[Tensor, " N"]:
        r"""Returns the amplitude of the noise, which gives the variance with such steps.

        In space the waves have the spectrum :math:`\tau^2 (\kappa^2 + k^\top H k)^{-\alpha_s} / 2`
        with :math:`\alpha_s = \alpha / 2 + c`, for a color :math:`c`.
        """
        form, c = self.form, self.coefficients
        if c.tau is not None:
            fit = (self.fitted(step) / c.rate).sqrt() if form.uniform else torch.ones(1).double()
            return (c.tau * fit).expand(len(self.volume))
        unit = limit_variance(self.H / c.rate[:, None, None], float(form.spatial)) * c.excess
        if form.uniform:
            level = 2 * c.variance * self.fitted(step) * c.rate**form.spatial
            return (level / unit).sqrt().expand(len(self.volume))
        beta = form.damping * step * c.rate ** (form.alpha / 2)
        drift = self.drift if form.alpha == 4 else torch.zeros_like(beta)
        n = max(len(drift), len(beta))
        lost = (beta.expand(n), drift.expand(n), form.dimension, form.alpha, form.color)
        unit = unit * stepping_ratio(*lost)
        return (2 * c.variance * c.rate**form.spatial / unit).sqrt().expand(len(self.volume))

    def stationary(self, step: float) -> Sparse:
        r"""Returns the precision of the law that such steps keep, for constant coefficients.

        It is :math:`M^\top S^{-1} M - E^\top S^{-1} E` where operators commute. Advection, centred
        in time, has no part in it with :math:`\alpha = 2`, which makes it positive definite
        whatever the coefficients.
        """
        form = self.form
        if form.uniform:
            return self._uniform_stationary()
        N = power(self.K, self.volume, form.color)
        Q = power(self.K, self.volume, form.spatial) * 2.0
        if form.alpha == 4 and self.A is not None:
            a = self.per_volume(self.A)
            Q = Q - a.T.product(N.product(a)) * 2.0
        if form.damping and step > 0:
            b = self.per_volume(self.fading)
            Q = Q + b.T.product(N.product(b)) * (form.damping * step)
        w = 1 / self.tau(step)
        return Q.scale(rows=w, columns=w)

    def _uniform_stationary(self) -> Sparse:
        r"""Returns that precision where all scales fade alike, whatever the steps."""
        w = (2 * self.coefficients.rate).sqrt() / self.tau(0.0)
        return power(self.K, self.volume, self.form.color).scale(rows=w, columns=w)

    def fitted(self, step: float) -> Float[Tensor, " n"]:
        r"""Returns the rate whose centred steps fade as an exponential does.

        .. math:: \frac{2}{\delta} \tanh \frac{\delta \kappa^2}{2}
        """
        half = self.coefficients.rate * (step / 2)
        return torch.tanh(half) / (step / 2) if step > 0 else self.coefficients.rate

    def after(self, before: Dynamics, step: float) -> Step:
        r"""Returns the step from an earlier time to this one.

        With :math:`F` the part that fades and :math:`V` the part that moves,

        .. math:: (C + \delta \theta F_k + \tfrac{\delta}{2} V_k) x_k =
            (C - \delta (1 - \theta) F_{k-1} - \tfrac{\delta}{2} V_{k-1}) x_{k-1} + r_k
        """
        mass, theta = Sparse.diag(self.volume), self.form.implicit
        ahead, behind = mass + self._faded(step) * (theta * step), mass
        if theta < 1:
            behind = behind - before._faded(step) * ((1 - theta) * step)
        if self.moving is not None and before.moving is not None:
            ahead = ahead + self.moving * (step / 2)
            behind = behind - before.moving * (step / 2)
        noise = Noise(self.K, self.volume, self.tau(step), step, self.form.color, self.factorise)
        return Step(ahead, behind, noise, symmetric=self.A is None)


def _check_growth(drift: Float[Tensor, " n"]) -> None:
    if drift.max() >= 4:
        msg = (
            "AdvectionDiffusion(velocity=...): expected |H^(-1/2) m| < 2 kappa with alpha=4, got "
            f"{drift.max().sqrt().item():.3g} kappa: some waves would grow. Use alpha=2."
        )
        raise ValueError(msg)
