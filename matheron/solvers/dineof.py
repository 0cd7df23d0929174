r"""Gaps filled by the empirical orthogonal functions of the gappy data themselves."""

from __future__ import annotations

__all__ = ["DINEOF"]

import torch

from jaxtyping import Float
from torch import Generator, Tensor
from typing import Any, ClassVar

from .base import Solver
from .patterns import WHERE, Images, Learned, Progress, Rules, learn
from ..observations import GriddedObservation, Observation
from ..posterior import Conditional
from ..priors.eof import EOF


class _Learner(Conditional):
    r"""The law :math:`p(x \mid y)`, where the data tell the patterns too."""

    prior: EOF
    observation: GriddedObservation

    def __init__(self, prior: EOF, observation: GriddedObservation, rules: Rules) -> None:
        super().__init__(prior, observation)
        self.rules = rules
        self.T, self.S = prior.times, prior.sites
        self.known = prior.pattern + prior.constant
        self._last: tuple[Tensor, Learned] | None = None

    def _images(self, y: Float[Tensor, " n"]) -> Images:
        mask = self.observation.mask
        values = torch.zeros(len(mask), dtype=torch.float64)
        values[mask] = self.observation.select(y)
        seen = mask.reshape(self.T, self.S).mT
        values = torch.where(seen, values.reshape(self.T, self.S).mT - self.known[:, None], 0)
        trains = seen.double().mean(dim=0) >= self.rules.least
        if trains.sum() < 2:
            msg = (
                f"{WHERE}(observation=...): expected at least two images with "
                f"{100 * self.rules.least:.0f} % of their data, got {int(trains.sum())} of "
                f"{self.T}. Use Kriging or Vecchia, which need no other image."
            )
            raise ValueError(msg)
        return Images(values, seen, trains, self.observation.noise_variance.mean().item())

    def learned(self, y: Float[Tensor, " n"]) -> Learned:
        r"""Returns what the data tell; the last is remembered."""
        key = self.observation.select(y)
        if self._last is None or not torch.equal(self._last[0], key):
            self._last = (key, learn(self._images(y), self.prior.grid, self.rules))
        return self._last[1]

    def estimate(self, y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        flat = y.reshape(-1, y.shape[-1])
        fields = [(self.learned(v).fields + self.known).flatten() for v in flat]
        return torch.stack(fields).reshape(y.shape)

    def sample(
        self, y: Float[Tensor, " n"], size: int, generator: Generator | None = None
    ) -> Float[Tensor, "size n"]:
        found = self.learned(y)
        e = found.errors.draw(size, found.mu2, generator)
        alone = torch.randn(e.shape, dtype=torch.float64, generator=generator)
        return self.estimate(y) + (e + alone * found.rest.sqrt()).flatten(1)

    def std(
        self, y: Float[Tensor, " n"], size: int, generator: Generator | None
    ) -> Float[Tensor, " n"]:
        found = self.learned(y)
        return (found.errors.variance(found.mu2) + found.rest).flatten().sqrt()

    def info(self, y: Float[Tensor, " n"]) -> dict[str, Any]:
        found = self.learned(y)
        return {
            "modes": found.choice.modes,
            "held_out_rmse": found.choice.scores,
            "iterations": found.filled.steps,
            "change": found.filled.change,
            "converged": found.filled.change < self.rules.tolerance,
            "error_variance": found.mu2 / found.choice.redundancy,
            "redundancy": found.choice.redundancy,
            "images": int(self._images(y).trains.sum()),
        }


class DINEOF(Solver[EOF]):
    r"""Data interpolating empirical orthogonal functions: the gaps fill themselves.

    .. math:: X \approx U_p \Sigma_p V_p^\top

    Images are the columns of :math:`X`, about the mean of all data, their gaps first zero. Gaps
    are overwritten by the leading :math:`p` patterns of :math:`X` until they settle, for one
    pattern, then two, and so on; the number is that with the least error at data held out, which
    are then put back. Images with too few data do not train: they are the mean of the patterns
    given their own data.

    Errors are those of amplitudes with prior variance one, in units of :math:`L = U \Sigma /
    \sqrt{n}`, given data with errors of variance :math:`\mu^2`,

    .. math:: P = L C L^\top, \qquad C = \mu^2 (L_p^\top L_p + \mu^2 I)^{-1}

    image by image, where :math:`L_p` has the rows that are seen. :math:`\mu^2` is what the
    patterns leave of the data, times the number of data that share an error: their
    ``redundancy``, :math:`\ell^2 / \delta x \, \delta y` for errors with a lengthscale; by
    default such that data held out are as far from the map as it says. Members are draws of
    that law. The patterns themselves are taken as known. A site that is never seen has the std
    of the others.

    References:
        | EOF calculations and data filling from incomplete oceanographic datasets (Beckers and
          Rixen, 2003)
        | https://doi.org/10.1175/1520-0426(2003)020<1839:ECADFF>2.0.CO;2
        | DINEOF reconstruction of clouded images including error maps (Beckers et al., 2006)
        | https://doi.org/10.5194/os-2-183-2006

    Arguments:
        modes: The number of patterns; ``None`` to choose it.
        most: The largest number to try.
        hold_out: Which data to hold out: ``"clouds"``, pieces of the gaps of other images, or
            ``"points"``, any.
        fraction: The part of the data to hold out; by default the least of 3 % and 1 % plus 40.
        tolerance: The change of the gaps, in units of the std of the data, to stop at.
        steps: The largest number of steps for a number of patterns.
        patience: How many numbers without gain to try before stopping.
        smoothing: The strength :math:`\alpha` of the filter in time of the patterns, in squared
            days; see :func:`matheron.linalg.filling.time_filter`.
        smoothing_steps: The number of steps of the filter.
        least: The part of the sites that an image shows, under which it does not train.
        redundancy: The number of data that share an error; ``None`` to find it.
        seed: The seed of what is held out.
        progress: Called with each number of patterns and its error at the data held out.

    Raises:
        ValueError: If the patterns of the prior are known, fewer than two images train, there are
            not fewer patterns than images, or an argument is out of bounds.
        TypeError: If data are not on the grid.

    Example:
        >>> import matheron as mt
        >>> from matheron.priors.eof import EOF
        >>> days, x = torch.arange(8.0).double(), torch.arange(30.0).double()
        >>> grid = mt.Grid(time=days, x=x)
        >>> truth = (days[:, None] + torch.outer(days.cos(), x.sin())).flatten()
        >>> clear = torch.rand(240, generator=torch.Generator().manual_seed(0)) > 0.3
        >>> seen = mt.GriddedObservation(grid, clear, noise_std=0.01)
        >>> solver = DINEOF(modes=2, tolerance=1e-7, steps=5000)
        >>> posterior = solver(EOF(grid), seen)(truth)
        >>> bool((posterior.mean - truth).abs().max() < 0.01)
        True
    """

    requires: ClassVar = EOF

    def __init__(
        self,
        modes: int | None = None,
        most: int = 50,
        hold_out: str = "clouds",
        fraction: float | None = None,
        tolerance: float = 1e-3,
        steps: int = 300,
        patience: int = 3,
        smoothing: float = 0.0,
        smoothing_steps: int = 3,
        least: float = 0.05,
        redundancy: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        _check_counts(modes=modes or 1, most=most, steps=steps, patience=patience)
        _check_counts(smoothing_steps=smoothing_steps)
        _check_between("fraction", 0.5 if fraction is None else fraction, 0.0, 1.0)
        _check_between("tolerance", tolerance, 0.0, 1.0)
        _check_between("least", least, 0.0, 1.0, closed=True)
        _check_between("smoothing", smoothing, 0.0, float("inf"), closed=True)
        _check_between("redundancy", redundancy or 1.0, 0.0, float("inf"))
        if hold_out not in {"clouds", "points"}:
            msg = (
                f"{WHERE}(hold_out=...): expected 'clouds' or 'points', got {hold_out!r}. "
                "Use 'clouds'."
            )
            raise ValueError(msg)
        self.rules = Rules(
            modes=modes,
            most=most,
            hold_out=hold_out,
            fraction=fraction,
            tolerance=tolerance,
            steps=steps,
            patience=patience,
            smoothing=smoothing,
            smoothing_steps=smoothing_steps,
            least=least,
            redundancy=redundancy,
            seed=seed,
            progress=progress or (lambda modes, rmse: None),
        )

    @torch.no_grad()
    def prepare(self, prior: EOF, observation: Observation) -> _Learner:
        if prior.modes is not None or prior.trend is not None:
            msg = (
                f"{WHERE}(prior=...): expected a prior with unknown patterns and no trend, got "
                "others. Use EOF(grid), or SparseCholesky() for patterns that are known."
            )
            raise ValueError(msg)
        if not isinstance(observation, GriddedObservation) or observation.mask.ndim > 1:
            msg = (
                f"{WHERE}(observation=...): expected a GriddedObservation with one mask, got "
                f"{type(observation).__name__}. Bin the data on the grid."
            )
            raise TypeError(msg)
        _check_smoothing(self.rules.smoothing, prior.grid.axes["time"])
        return _Learner(prior, observation, self.rules)

    @torch.no_grad()
    def learn(self, prior: EOF, observation: Observation, y: Float[Tensor, " n"]) -> EOF:
        r"""Returns the prior with the patterns that the data tell, for other data to come."""
        found = self.prepare(prior, observation).learned(y)
        known = found.parts.size > 0
        variances = (found.parts.size.square() / len(found.parts.right))[known]
        modes = found.parts.left.mT[known].contiguous()
        duration = None if prior.log_duration is None else prior.log_duration.exp().item()
        mean = prior.constant + found.offset
        return EOF(prior.grid, modes, variances, duration, prior.pattern, mean)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            msg = f"{WHERE}({name}=...): expected at least 1, got {value}. Give a whole number."
            raise ValueError(msg)


def _check_between(name: str, value: float, low: float, high: float, closed: bool = False) -> None:
    if not (low < value < high or (closed and value == low)):
        msg = (
            f"{WHERE}({name}=...): expected a number between {low} and {high}, got {value}. "
            "See the defaults."
        )
        raise ValueError(msg)


def _check_smoothing(smoothing: float, times: Float[Tensor, " t"]) -> None:
    limit = float(times.diff().min()) ** 2 / 2 if len(times) > 1 else float("inf")
    if smoothing > limit:
        msg = (
            f"{WHERE}(smoothing=...): expected at most half the square of the least time step, "
            f"{limit:.4g}, got {smoothing}. Lower it, and raise smoothing_steps."
        )
        raise ValueError(msg)
