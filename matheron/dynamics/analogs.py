r"""Forecasts from the past: what followed the states most like this one."""

from __future__ import annotations

__all__ = ["Analogs"]

import numpy as np
import torch

from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Generator, Tensor

from .base import Dynamics

KINDS = ("constant", "incremental", "linear")
SAMPLINGS = ("gaussian", "multinomial")

Local = tuple[Tensor, Tensor, Tensor, Tensor]
"""Neighbours less the state, increments, weights that sum to one, and the mean forecast."""


class Analogs(Dynamics):
    r"""A model made of a catalogue of states and of what followed them.

    The :math:`k` nearest analogs :math:`a_j` of a state, with successors :math:`b_j`, weigh
    :math:`w_j \propto e^{-|x - a_j|^2 / \lambda^2}`, where :math:`\lambda` is the median of their
    distances. The forecast is

    - ``"constant"``: :math:`\sum_j w_j b_j`, within what has been seen;
    - ``"incremental"``: :math:`x + \sum_j w_j (b_j - a_j)`;
    - ``"linear"``: :math:`x + D(x)`, with :math:`D` the weighted least squares fit of
      :math:`b_j - a_j`, affine in :math:`a_j`, in the directions along which the analogs differ.

    The gradient is that of these formulas for given neighbours and weights.

    References:
        | The analog data assimilation (Lguensat, Tandeo, Ailliot, Pulido & Fablet, 2017)
        | https://doi.org/10.1175/MWR-D-16-0441.1
        | Atmospheric predictability as revealed by naturally occurring analogues (Lorenz, 1969)
        | https://doi.org/10.1175/1520-0469(1969)26<636:APARBN>2.0.CO;2

    Arguments:
        catalogue: Trajectories, with shape :math:`(*, t, s)`: each state but the last of a
            trajectory is an analog, the next one its successor.
        successors: What followed each state of ``catalogue`` instead, with its shape: states
            need be no trajectory then.
        dt: The time from a state to its successor.
        k: The number of analogs.
        kind: ``"constant"``, ``"incremental"`` or ``"linear"``.
        rcond: The spread of the analogs, relative to the widest direction, under which a
            direction counts as not seen (``"linear"``).

    Raises:
        ValueError: If the kind is not known, if there are fewer than :math:`k` analogs, or if
            numbers are not finite.

    Example:
        >>> from matheron.dynamics import Lorenz63
        >>> past = Lorenz63().trajectory(torch.ones(3, dtype=torch.float64), 6000)
        >>> model = Analogs(past[:5900], dt=0.01, k=20, kind="linear")
        >>> bool((model.step(past[5950]) - past[5951]).norm() < 0.05)
        True
    """

    states: Tensor
    increments: Tensor

    def __init__(
        self,
        catalogue: Float[Tensor, "*batch t s"],
        successors: Float[Tensor, "*batch t s"] | None = None,
        dt: float = 1.0,
        k: int = 50,
        kind: str = "linear",
        rcond: float = 0.01,
    ) -> None:
        super().__init__()
        before = catalogue if successors is not None else catalogue[..., :-1, :]
        after = catalogue[..., 1:, :] if successors is None else successors
        self.shape, self.dt = (catalogue.shape[-1],), dt
        self.k, self.kind, self.rcond = k, kind, rcond
        a = before.reshape(-1, *self.shape).to(torch.float64)
        b = after.reshape(-1, *self.shape).to(torch.float64)
        self._check_catalogue(a, b)
        self.register_buffer("states", a)
        self.register_buffer("increments", b - a)
        self._tree = cKDTree(a.numpy())

    def _check_catalogue(self, a: Tensor, b: Tensor) -> None:
        problem = None
        if self.kind not in KINDS:
            problem = f"kind=...): expected one of {KINDS}, got {self.kind!r}. Choose one"
        elif not 1 <= self.k <= len(a):
            problem = f"k=...): expected 1 to {len(a)} analogs, as many as there are, got {self.k}"
            problem += ". Give a longer catalogue"
        elif not (a.isfinite().all() and b.isfinite().all()):
            problem = "catalogue=...): expected finite numbers, got NaN or Inf. Drop those states"
        if problem:
            msg = f"Analogs({problem}."
            raise ValueError(msg)

    def neighbors(self, x: Float[Tensor, "*batch s"]) -> Int[Tensor, "*batch k"]:
        r"""Returns the places of the nearest analogs in the catalogue, nearest first."""
        flat = x.detach().reshape(-1, *self.shape).numpy()
        if not np.isfinite(flat).all():
            msg = "Analogs(x=...): expected finite states, got NaN or Inf. Did a filter diverge?"
            raise ValueError(msg)
        _, index = self._tree.query(flat, k=self.k)
        return torch.as_tensor(index).reshape(*x.shape[:-1], self.k)

    def weights(self, distance2: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        r"""Returns the weights of analogs from their squared distances: they sum to one."""
        unit = distance2.quantile(0.5, dim=-1, keepdim=True)
        # all at one place: they weigh the same
        unit = torch.where(unit > 0, unit, distance2.amax(dim=-1, keepdim=True))
        ratio = torch.where(unit > 0, distance2 / unit, 0.0)
        return torch.softmax(-ratio, dim=-1)

    def advance(self, state: Tensor) -> Tensor:
        return self._local(state)[3]

    def _local(self, x: Float[Tensor, "*batch s"]) -> Local:
        return self._local_of(x, self.neighbors(x))

    def _local_of(self, x: Float[Tensor, "*batch s"], index: Int[Tensor, "*batch k"]) -> Local:
        offset = self.states[index] - x.detach()[..., None, :]
        d = self.increments[index]
        w = self.weights(offset.square().sum(dim=-1))
        mean_offset = torch.einsum("...k,...ks->...s", w, offset)
        mean = torch.einsum("...k,...ks->...s", w, d)
        if self.kind == "constant":
            return offset, d, w, x.detach() + mean_offset + mean
        if self.kind == "incremental":
            return offset, d, w, x + mean
        A = self._slope(offset - mean_offset[..., None, :], d, w)
        beyond = x - (x.detach() + mean_offset)  # carries the gradient
        return offset, d, w, x + mean + torch.einsum("...rs,...s->...r", A, beyond)

    def _slope(self, a: Tensor, d: Tensor, w: Tensor) -> Float[Tensor, "*batch s s"]:
        r"""Returns the matrix :math:`A` of the least squares fit :math:`d \approx A a + c`."""
        weighted = (w[..., None] * a).mT
        values, vectors = torch.linalg.eigh(weighted @ a)
        kept = values > self.rcond**2 * values[..., -1:]
        inverse = torch.where(kept & (values > 0), 1 / values, 0.0)
        pseudo = (vectors * inverse[..., None, :]) @ vectors.mT
        return (pseudo @ (weighted @ d)).mT

    @torch.no_grad()
    def draw(
        self,
        x: Float[Tensor, "*batch s"],
        sampling: str = "gaussian",
        generator: Generator | None = None,
    ) -> Float[Tensor, "*batch s"]:
        r"""Draws what may follow a state, as uncertain as the analogs disagree.

        Arguments:
            x: The state.
            sampling: ``"gaussian"``, about the forecast, with the weighted covariance of what
                the forecast of each analog misses; or ``"multinomial"``, one of these misses,
                by its weight.
            generator: The random number generator.

        Raises:
            ValueError: If the sampling is not known.
        """
        if sampling not in SAMPLINGS:
            msg = (
                f"Analogs.draw(sampling=...): expected one of {SAMPLINGS}, got {sampling!r}. "
                "Choose one."
            )
            raise ValueError(msg)
        self._check(x, 1)
        offset, d, w, forecast = self._local(x)
        missed = self._missed(x, offset, d, w, forecast)
        if sampling == "multinomial":
            flat = torch.multinomial(w.reshape(-1, self.k), 1, generator=generator)
            picked = missed.reshape(-1, self.k, *self.shape)
            return forecast + picked[torch.arange(len(flat)), flat[:, 0]].reshape(x.shape)
        z = torch.randn(w.shape, dtype=torch.float64, generator=generator)
        # sum_j z_j sqrt(w_j) r_j has the covariance sum_j w_j r_j r_j'
        return forecast + torch.einsum("...k,...ks->...s", z * w.sqrt(), missed)

    def _missed(
        self, x: Tensor, offset: Tensor, d: Tensor, w: Tensor, forecast: Tensor
    ) -> Float[Tensor, "*batch k s"]:
        r"""Returns what the local forecast misses of the successor of each analog."""
        successors = x[..., None, :] + offset + d
        if self.kind == "constant":
            return successors - forecast[..., None, :]
        mean = torch.einsum("...k,...ks->...s", w, d)[..., None, :]
        if self.kind == "incremental":
            return d - mean
        a = offset - torch.einsum("...k,...ks->...s", w, offset)[..., None, :]
        return d - mean - a @ self._slope(a, d, w).mT

    @torch.no_grad()
    def error_covariance(
        self, steps: int = 1, size: int = 1000, generator: Generator | None = None
    ) -> Float[Tensor, "s s"]:
        r"""Returns the covariance of forecast errors, each state forecast without itself.

        Arguments:
            steps: The number of time steps; over more than one, errors are taken as independent.
            size: The number of states of the catalogue that are forecast, drawn at random.
            generator: The random number generator.

        Raises:
            ValueError: If no analog is left without the state itself.
        """
        n = len(self.states)
        if self.k >= n or steps < 1:
            msg = (
                f"Analogs.error_covariance(steps=...): expected one step or more and over {self.k}"
                f" analogs, got {steps} and {n}. Give a longer catalogue."
            )
            raise ValueError(msg)
        chosen = torch.randperm(n, generator=generator)[: min(size, n)]
        x = self.states[chosen]
        forecast = self._local_of(x, self._others(x, chosen))[3]
        errors = forecast - (x + self.increments[chosen])
        return steps * errors.mT @ errors / len(errors)

    def _others(self, x: Float[Tensor, "c s"], chosen: Int[Tensor, " c"]) -> Int[Tensor, "c k"]:
        r"""Returns the nearest analogs of states of the catalogue, these left out."""
        _, found = self._tree.query(x.numpy(), k=self.k + 1)
        index = torch.as_tensor(found)
        own = index == chosen[:, None]
        # where many states are the same, a state may not be among its own neighbours
        own[:, -1] |= ~own.any(dim=-1)
        return index[~own].reshape(len(x), self.k)
