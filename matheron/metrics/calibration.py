r"""Calibration: does the predicted law hold, and is its spread honest?

A law is calibrated where the truth looks like one more draw from it. Then the probability
integral transform (PIT) is uniform, every rank of the truth among the members is as likely,
an interval at 90 % holds 90 % of the truth, and the spread equals the error.
"""

from __future__ import annotations

__all__ = [
    "Reliability",
    "SpreadSkill",
    "Uniformity",
    "block_average",
    "block_coverage",
    "pit_ensemble",
    "pit_gaussian",
    "rank_histogram",
    "rank_uniformity",
    "reliability",
    "spread_skill",
    "uniformity",
]

import torch

from dataclasses import dataclass
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor
from typing import NamedTuple

from .base import average, check, check_std
from .ensemble import ensemble_bounds


def pit_gaussian(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
) -> Float[Tensor, "*#batch n"]:
    r"""Returns the probability integral transform :math:`\Phi((y - \mu) / \sigma)`.

    Uniform on :math:`(0, 1)` where the law is calibrated; its histogram is a U where the spread
    is too small, a dome where it is too large, and a slope where the mean is biased.

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma > 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.

    Returns:
        The transform of each point, with shape :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if a std is not positive.

    Example:
        >>> pit_gaussian(torch.zeros(2), torch.ones(2), torch.tensor([0.0, 1.6449]))
        tensor([0.5000, 0.9500])
    """
    check("pit_gaussian", mean=mean, std=std, truth=truth)
    check_std("pit_gaussian", std, strict=True)
    return torch.special.ndtr((truth - mean) / std)


def _ranks(members: Tensor, truth: Tensor, generator: torch.Generator | None) -> Tensor:
    below = (members < truth).sum(dim=0)
    ties = (members == truth).sum(dim=0)
    u = torch.rand(truth.shape, generator=generator, dtype=torch.float64, device=truth.device)
    return below + (u * (ties + 1)).long()


def pit_ensemble(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch n"]:
    r"""Returns the randomised probability integral transform of an ensemble.

    .. math:: (r + u) / (S + 1), \qquad u \sim U(0, 1)

    where :math:`r` is the rank of the truth among the :math:`S` members, ties broken at random.
    It is exactly uniform where the truth is one more draw, at any :math:`S`.

    Arguments:
        members: The ensemble, with shape :math:`(S, *, n)`.
        truth: The truth, with shape :math:`(*, n)`.
        generator: The random number generator.

    Returns:
        The transform of each point, with shape :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if sizes differ.

    Example:
        >>> pit = pit_ensemble(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2.5]))
        >>> bool(0.5 <= pit <= 0.75)
        True
    """
    check("pit_ensemble", members=members, truth=truth)
    ranks = _ranks(members, truth, generator)
    u = torch.rand(truth.shape, generator=generator, dtype=truth.dtype, device=truth.device)
    return (ranks + u) / (len(members) + 1)


def rank_histogram(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    generator: torch.Generator | None = None,
) -> Int[Tensor, " size_plus_1"]:
    r"""Returns how often the truth takes each rank among the members (Talagrand diagram).

    Flat where the ensemble is calibrated, a U where it is too narrow, a dome where it is too
    wide. Ties, e.g. of a rain gauge at zero, are broken at random.

    References:
        | Interpretation of rank histograms for verifying ensemble forecasts (Hamill, 2001)
        | https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2

    Arguments:
        members: The ensemble, with shape :math:`(S, *, n)`.
        truth: The truth, with shape :math:`(*, n)`.
        generator: The random number generator, for ties.

    Returns:
        The counts, with shape :math:`(S + 1)`.

    Raises:
        ValueError: If an input is not finite, or if sizes differ.

    Example:
        >>> members = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> rank_histogram(members, torch.tensor([0.5, 7.0]))
        tensor([0, 1, 1])
    """
    check("rank_histogram", members=members, truth=truth)
    ranks = _ranks(members, truth, generator)
    return torch.bincount(ranks.flatten(), minlength=len(members) + 1)


class Reliability(NamedTuple):
    r"""Nominal against observed coverage of central intervals."""

    level: Float[Tensor, " k"]
    coverage: Float[Tensor, " k"]


def reliability(
    pit: Float[Tensor, "*batch n"],
    levels: Float[Tensor, " k"] | None = None,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Reliability:
    r"""Returns the observed coverage of central intervals at every nominal level.

    The truth is inside the central interval of level :math:`\ell` where
    :math:`|2 u - 1| \leq \ell`, :math:`u` being the PIT, whatever law it came from.

    Arguments:
        pit: The PIT of each point, with shape :math:`(*, n)`.
        levels: The nominal levels, with shape :math:`(k)`. By default every 5 %.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If a PIT is not within :math:`[0, 1]`.

    Example:
        >>> reliability(torch.tensor([0.5, 0.99]), torch.tensor([0.5, 0.95])).coverage
        tensor([0.5000, 0.5000])
    """
    _check_pit("reliability", pit)
    if levels is None:
        levels = torch.linspace(0.05, 0.95, 19, dtype=pit.dtype, device=pit.device)
    w = torch.ones_like(pit) if weights is None else weights.expand_as(pit)
    inside = (2 * pit.flatten() - 1).abs() <= levels[:, None]
    return Reliability(levels, average(inside.to(pit.dtype), w.flatten()))


def _check_pit(where: str, pit: Tensor) -> None:
    check(where, pit=pit)
    if (pit < 0).any() or (pit > 1).any():
        msg = (
            f"{where}(pit=...): expected values between 0 and 1, got {pit.min().item():.4g} to "
            f"{pit.max().item():.4g}. Pass the output of pit_gaussian or pit_ensemble."
        )
        raise ValueError(msg)


class Uniformity(NamedTuple):
    r"""A test that the PIT, or the ranks, are uniform."""

    statistic: float
    pvalue: float


def uniformity(pit: Float[Tensor, "*batch n"]) -> Uniformity:
    r"""Returns the Kolmogorov-Smirnov test that the PIT is uniform.

    The p-value holds for *independent* points. Neighbouring points of a map are not: thin them
    beyond the lengthscale first, or read the statistic only.

    Arguments:
        pit: The PIT of each point, with shape :math:`(*, n)`.

    Raises:
        ValueError: If a PIT is not within :math:`[0, 1]`.

    Example:
        >>> test = uniformity((torch.arange(100.0) + 0.5) / 100)
        >>> round(test.statistic, 4), test.pvalue > 0.99
        (0.005, True)
    """
    _check_pit("uniformity", pit)
    test = stats.kstest(pit.flatten().numpy(force=True), "uniform")
    return Uniformity(float(test.statistic), float(test.pvalue))


def rank_uniformity(counts: Int[Tensor, " k"]) -> Uniformity:
    r"""Returns Pearson's chi-square test that the ranks are uniform.

    The p-value holds for independent points; see `uniformity`.

    Arguments:
        counts: The rank histogram, with shape :math:`(k)`.

    Raises:
        ValueError: If there are fewer than five expected counts per rank, where the law of the
            statistic is not known well enough.

    Example:
        >>> rank_uniformity(torch.tensor([10, 10, 10]))
        Uniformity(statistic=0.0, pvalue=1.0)
    """
    if counts.sum() < 5 * len(counts):
        msg = (
            f"rank_uniformity(counts=...): expected at least 5 points per rank, got "
            f"{int(counts.sum())} for {len(counts)} ranks. Merge neighbouring ranks."
        )
        raise ValueError(msg)
    test = stats.chisquare(counts.numpy(force=True))
    return Uniformity(float(test.statistic), float(test.pvalue))


@dataclass(frozen=True)
class SpreadSkill:
    r"""Predicted against observed error, by classes of predicted error."""

    spread: Float[Tensor, " k"]
    """The root mean square of the predicted std in each class."""
    skill: Float[Tensor, " k"]
    """The root mean square error of the mean in each class."""
    count: Int[Tensor, " k"]
    """The number of points of each class."""
    ratio: Float[Tensor, ""]
    """Spread over skill on all points: one where calibrated, below where over-confident."""


def spread_skill(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    bins: int = 10,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> SpreadSkill:
    r"""Returns spread and skill by classes of spread: is the error large where it is said to be?

    For an ensemble pass ``*ensemble_moments(members)`` as mean and std: they account for its
    size.

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma \geq 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        bins: The number of classes, of equal counts, from the smallest std to the largest.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, a std is negative, or there are more classes than
            points.

    Example:
        >>> truth = torch.tensor([1.0, -1.0, 3.0, -3.0])
        >>> spread_skill(torch.zeros(4), truth.abs() / 2, truth, bins=2).skill
        tensor([1., 3.])
    """
    check("spread_skill", mean=mean, std=std, truth=truth)
    check_std("spread_skill", std)
    weights = torch.ones_like(truth) if weights is None else weights
    error, std, w = (x.flatten() for x in torch.broadcast_tensors(mean - truth, std, weights))
    _check_bins(bins, len(std))
    classes = std.argsort(stable=True).tensor_split(bins)
    spread = torch.stack([_rms(std[k], w[k]) for k in classes])
    skill = torch.stack([_rms(error[k], w[k]) for k in classes])
    count = torch.tensor([len(k) for k in classes])
    return SpreadSkill(spread, skill, count, _rms(std, w) / _rms(error, w))


def _rms(x: Tensor, weights: Tensor) -> Tensor:
    return average(x.square(), weights).sqrt()


def _check_bins(bins: int, size: int) -> None:
    if not 1 <= bins <= size:
        msg = (
            f"spread_skill(bins=...): expected between 1 and {size} classes, got {bins}. "
            "Ask for fewer classes than points."
        )
        raise ValueError(msg)


def block_average(
    values: Float[Tensor, "*batch n"],
    blocks: Int[Tensor, " n"],
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "*batch k"]:
    r"""Returns the average of a field over each block of points.

    Any score of the averages is a score of the joint law: members with the right spread at each
    point but wrong correlations fail it.

    Arguments:
        values: The field, or ensemble, with shape :math:`(*, n)`.
        blocks: The number of the block of each point, from 0, with shape :math:`(n)`. Every
            number up to the largest is used.
        weights: The weights of the points, e.g. the areas of the cells, with shape :math:`(n)`.

    Returns:
        The averages, with shape :math:`(*, k)`.

    Raises:
        ValueError: If a value is not finite, or if a block has no point.

    Example:
        >>> block_average(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]))
        tensor([2., 5.])
    """
    check("block_average", values=values, blocks=blocks)
    w = values.new_ones(len(blocks)) if weights is None else weights
    total = _block_sum(w, blocks)
    if not (total > 0).all() or blocks.min() < 0:
        msg = (
            f"block_average(blocks=...): expected points with weight in every block from 0 to "
            f"{len(total) - 1}, got {int((total <= 0).sum())} empty blocks. Renumber them, e.g. "
            "blocks.unique(return_inverse=True)[1]."
        )
        raise ValueError(msg)
    return _block_sum(values * w, blocks) / total


def _block_sum(values: Tensor, blocks: Tensor) -> Tensor:
    sums = values.new_zeros(*values.shape[:-1], int(blocks.max()) + 1)
    return sums.index_add(-1, blocks, values)


def block_coverage(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    blocks: Int[Tensor, " n"],
    level: float = 0.9,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Returns the fraction of block averages of the truth inside the interval of the members.

    Where coverage holds point by point but not here, the ensemble has the wrong joint law: too
    little coverage means members that are too little correlated.

    Arguments:
        members: The joint ensemble, with shape :math:`(S, *, n)`.
        truth: The truth, with shape :math:`(*, n)`.
        blocks: The number of the block of each point, from 0, with shape :math:`(n)`.
        level: The nominal probability.
        weights: The weights of the points in their block, with shape :math:`(n)`.

    Returns:
        The coverage, with shape :math:`(*)`.

    Raises:
        ValueError: If an input is not finite, a block has no point, or the ensemble is too small
            for the level.

    Example:
        >>> members = torch.linspace(-1, 1, 39)[:, None].expand(39, 4)
        >>> block_coverage(members, torch.tensor([0.1, 0.2, 5.0, 6.0]), torch.tensor([0, 0, 1, 1]))
        tensor(0.5000)
    """
    check("block_coverage", members=members, truth=truth, blocks=blocks)
    lower, upper = ensemble_bounds(block_average(members, blocks, weights), level)
    y = block_average(truth, blocks, weights)
    return ((y >= lower) & (y <= upper)).to(truth.dtype).mean(dim=-1)
