r"""Observations through any function: a wind speed, a saturated sensor, an angle."""

from __future__ import annotations

__all__ = ["NonlinearObservation"]

import torch

from collections.abc import Callable
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .base import Noise, Observation, _finite
from ..domain import Grid

Function = Callable[[Tensor], Tensor]


class NonlinearObservation(Observation):
    r"""Any function of the field, or of its state at some times, with independent noise.

    .. math:: y = h(x) + \varepsilon, \qquad \varepsilon \sim \mathcal{N}(0, R)

    With ``times``, the function sees the state at each of them, with shape :math:`(*, t, s)`, and
    returns :math:`q` data for each, with shape :math:`(*, t, q)`; the data of a time come one
    after the other. Without, it sees the field, with shape :math:`(*, n)`, and returns all the
    data, with shape :math:`(*, m)`. It is to be differentiable, and to take any batch.

    References:
        | Atmospheric Modeling, Data Assimilation and Predictability (Kalnay, 2002)
        | https://doi.org/10.1017/CBO9780511802270

    Arguments:
        domain: The domain of the state, with :math:`n` nodes.
        function: The function :math:`h`.
        noise_std: The standard deviation of the noise, in the units of the data, with shape
            :math:`()` or :math:`(m)`.
        times: Which times of the domain are seen, counted from zero, with shape :math:`(t)`.
        learn_noise: Whether a fit may scale ``noise_std``.

    Raises:
        ValueError: If there is no datum, if times are not those of the domain, if the function
            does not keep the batch, or if a standard deviation is negative.

    Example:
        >>> grid = Grid(time=[0.0, 1.0, 2.0], x=[0.0, 1.0])
        >>> speed = NonlinearObservation(
        ...     grid, lambda x: x.norm(dim=-1, keepdim=True), 0.1, times=torch.tensor([0, 2])
        ... )
        >>> speed(torch.tensor([3.0, 4.0, 0.0, 0.0, 6.0, 8.0]).double()).tolist()
        [5.0, 10.0]
    """

    domain: Grid

    def __init__(
        self,
        domain: Grid,
        function: Function,
        noise_std: float | Tensor,
        times: Int[Tensor, " t"] | None = None,
        learn_noise: bool = False,
    ) -> None:
        super().__init__()
        self.domain, self.function, self.times = domain, function, times
        if times is not None:
            self._check_times(domain, times)
        self.count = self._counted()
        self.error = Noise(type(self).__name__, "noise_std", noise_std, self.count, learn_noise)

    def _check_times(self, domain: Grid, times: Tensor) -> None:
        if domain.dims[0] != "time" or domain.mask is not None:
            msg = (
                f"NonlinearObservation(times=...): expected a grid with time and without a mask, "
                f"got {domain!r}. Leave times out, and let the function see the whole field."
            )
            raise ValueError(msg)
        if len(times) == 0 or times.min() < 0 or times.max() >= domain.shape[0]:
            msg = (
                f"NonlinearObservation(times=...): expected some of 0 to {domain.shape[0] - 1}, "
                f"got {times[:4].tolist()}... They count the times of the domain."
            )
            raise ValueError(msg)

    @torch.no_grad()
    def _counted(self) -> int:
        n = len(self.domain)
        seen = self._seen(torch.linspace(0.5, 1.5, 2 * n, dtype=torch.float64).reshape(2, n))
        if seen.ndim != 2 or seen.shape[0] != 2 or seen.shape[1] == 0:
            msg = (
                f"NonlinearObservation(function=...): expected data with the batch of the state, "
                f"here (2, m), got shape {tuple(seen.shape)}. Work on the last axis only."
            )
            raise ValueError(msg)
        return seen.shape[1]

    @property
    def noise_variance(self) -> Float[Tensor, " m"]:
        r"""The diagonal of :math:`R`, in squared units of the data."""
        return self.error.variance

    def time_index(self) -> Int[Tensor, " m"]:
        if self.times is None:
            return super().time_index()
        return self.times.repeat_interleave(self.count // len(self.times))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self._seen(x)

    def _seen(self, x: Tensor) -> Tensor:
        if self.times is None:
            return self.function(x)
        states = x.unflatten(-1, (self.domain.shape[0], -1))[..., self.times, :]
        return self.function(states).flatten(-2)

    def sample(
        self, x: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch m"]:
        y = self(x)
        e = torch.randn(y.shape, dtype=torch.float64, generator=generator)
        return y + e * self.noise_variance.sqrt()

    def select(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        r"""Returns the data, checked: finite, and as many as there are."""
        if y.shape[-1] != self.count:
            msg = (
                f"NonlinearObservation(y=...): expected {self.count} values, as many as the "
                f"function returns, got {y.shape[-1]}. Pass them in its order."
            )
            raise ValueError(msg)
        return _finite(type(self).__name__, y)

    def misfit(
        self, d: Float[Tensor, "*batch m"], y: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch"]:
        return ((self.select(y) - d).square() / self.noise_variance).sum(dim=-1) / 2
