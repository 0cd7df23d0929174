r"""Mapping with a basis of wave packets, as MIOST does."""

from __future__ import annotations

__all__ = ["miost"]

import torch

from collections.abc import Mapping
from dataclasses import replace
from jaxtyping import Float
from torch import Generator, Tensor

from .held_out import Covariance
from .problem import Mapped, Problem, Say, superobs
from .tuning import FEWEST, NOISY, fitted, held_out, noisy, separated, within
from ..observations import LinearObservation
from ..posterior import Estimator, Posterior
from ..priors import GaussianProcess
from ..priors.wave_packets import PacketKernel, WavePackets
from ..selection.choice import scale_of
from ..solvers.local import LocalKriging

BEYOND = 12.0
"""How far beyond the map data are used, in days."""
HALF = 9.0
"""The days to each side of a window."""
MOST = 1600
"""The most data of a window."""
OVERLAP = (1.0, 2.0)
"""The half-widths of packets over their distance, in space and in time.

Packets of time that overlap but once let go of the field between their middles.
"""
START_AT = {"duration": 9.0, "growth": 1.0, "slope": 1.6}
"""Where the search starts: days, and powers of the wavelength."""
TRIAL = (4, 700)
"""The windows of a choice, and their data: a covariance of packets takes time."""
FAINTEST = 0.02
"""The least std of what packets do not resolve, over that of the field."""


def miost(problem: Problem, say: Say) -> Mapped:
    r"""Wave packets of many scales, directions and places, each with its share of the variance.

    How long they last, how that grows with their length, the slope of their spectrum, and what
    they do not resolve are those that predict passes held out.
    """
    times = problem.grid.axes["time"]
    near = problem.near(times[0].item() - BEYOND, times[-1].item() + BEYOND)
    fine = superobs(near, FEWEST)
    _, like = fitted(fine, separated(fine, 2.5, 2.5), say)
    std = scale_of(fine.anomalies)

    def covariance(scales: Mapping[str, float]) -> Covariance:
        prior = _packets(near, scales, std**2)
        return lambda time, points: prior.covariance(points, points)

    best = held_out(near, like, *TRIAL).choose(covariance, START_AT, NOISY / 2 * std)
    best = replace(best, noise=max(best.noise, FAINTEST * std))
    say(f"by passes held out: {best.words()}")
    prior, data = _packets(near, best.scales, std**2 * best.factor), within(near, HALF, MOST)
    seen, y = noisy(data, like, best)
    say(f"{sum(prior.counts())} packets, {len(data)} data after averaging")
    posterior = Posterior(_Windowed(prior, seen), y)
    return Mapped(posterior, problem.shift, dict(best.scales), best.unresolved)


def _packets(problem: Problem, scales: Mapping[str, float], variance: float) -> WavePackets:
    r"""Returns the packets over the map and the data about it."""
    times = problem.grid.axes["time"]
    t = problem.points.since(problem.grid.epoch).axis("time")
    beyond = max((times[0] - t.min()).item(), (t.max() - times[-1]).item(), 2.5)
    return WavePackets(
        problem.grid,
        variance,
        slope=scales["slope"],
        duration=scales["duration"],
        duration_slope=scales["growth"],
        overlap=OVERLAP,
        margin=(120e3, beyond + 1.0),
    )


class _Windowed(Estimator):
    r"""The law of packets by moving windows, where data are fewer than packets.

    The steps of a gradient on the packets are a thousand, for a map that is right to a
    millimetre: their windows overlap, so that many sums of them are nearly one. Draws are of the
    packets, all of them together.
    """

    prior: WavePackets
    observation: LinearObservation

    @torch.no_grad()
    def __init__(self, prior: WavePackets, observation: LinearObservation) -> None:
        super().__init__(prior, observation)
        field = GaussianProcess(PacketKernel(prior), prior.domain)
        self.local = LocalKriging(window=HALF, max_size=10 * MOST)(field, observation)

    @torch.no_grad()
    def estimate(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        return self.local.estimate(y)

    def std(
        self, y: Float[Tensor, " m"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        return self.local.std(y, size, generator)

    @torch.no_grad()
    def simulate(
        self, size: int, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "size n"], Float[Tensor, "size n"]]:
        root = self.prior.coefficient_variance().sqrt()[:, None]
        shape = (size, len(root))
        z = root * torch.randn(shape, dtype=torch.float64, generator=generator).mT
        x = (self.prior.basis(self.prior.domain.points) @ z).mT
        y = (self.prior.basis(self.observation.points) @ z).mT
        return x, self.estimate(y + self.observation.noise((size,), generator))
