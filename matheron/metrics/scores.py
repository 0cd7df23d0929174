r"""Scores of a map against a truth, as the field defines them.

Every score is a pure function of tensors with shape :math:`(*, n)` and returns its average over
the :math:`n` points, weighted or not, with shape :math:`(*)`. Errors are estimate minus truth.
``std`` is that of a new datum, noise included, wherever the truth is itself a noisy datum.
"""

from __future__ import annotations

__all__ = [
    "bias",
    "coverage",
    "coverage_bounds",
    "crps_gaussian",
    "interval_score",
    "interval_score_bounds",
    "log_score_gaussian",
    "mae",
    "rmse",
    "summary",
]

import math
import torch

from jaxtyping import Float
from torch import Tensor

from .base import average, check, check_level, check_std
from .calibration import spread_skill
from .ensemble import crps_ensemble, energy_score


def mae(
    estimate: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the mean absolute error :math:`\overline{|x - y|}`, in units of the field.

    Arguments:
        estimate: The estimate :math:`x`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if sizes differ.

    Example:
        >>> mae(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
        tensor(2.)
    """
    check("mae", estimate=estimate, truth=truth)
    return average((estimate - truth).abs(), weights)


def rmse(
    estimate: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the root mean square error :math:`\sqrt{\overline{(x - y)^2}}`.

    The square root is taken after the average over points, for each batch member apart.

    Arguments:
        estimate: The estimate :math:`x`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if sizes differ.

    Example:
        >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 9.0]))
        tensor(5.)
    """
    check("rmse", estimate=estimate, truth=truth)
    return average((estimate - truth).square(), weights).sqrt()


def bias(
    estimate: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the mean error :math:`\overline{x - y}`: positive where the estimate is too high.

    Arguments:
        estimate: The estimate :math:`x`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if sizes differ.

    Example:
        >>> bias(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]))
        tensor(-1.)
    """
    check("bias", estimate=estimate, truth=truth)
    return average(estimate - truth, weights)


def crps_gaussian(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the continuous ranked probability score of a Gaussian law.

    .. math:: \sigma \left( z \, (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right),
        \qquad z = (y - \mu) / \sigma

    It is in units of the field, at best 0, and tends to the absolute error as
    :math:`\sigma \to 0`.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma \geq 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if a std is negative.

    Example:
        >>> crps_gaussian(torch.zeros(1), torch.ones(1), torch.zeros(1))
        tensor(0.2337)
    """
    check("crps_gaussian", mean=mean, std=std, truth=truth)
    check_std("crps_gaussian", std)
    z = (truth - mean) / std.clamp_min(torch.finfo(std.dtype).tiny)
    density = (-0.5 * z**2).exp() / math.sqrt(2 * math.pi)
    score = (truth - mean) * (z / math.sqrt(2)).erf() + std * (2 * density - math.pi**-0.5)
    return average(score, weights)


def log_score_gaussian(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the logarithmic score of a Gaussian law: minus its log density at the truth.

    .. math:: \tfrac{1}{2} z^2 + \log \sigma + \tfrac{1}{2} \log 2 \pi

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma > 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if a std is not positive.

    Example:
        >>> log_score_gaussian(torch.zeros(1), torch.ones(1), torch.zeros(1))
        tensor(0.9189)
    """
    check("log_score_gaussian", mean=mean, std=std, truth=truth)
    check_std("log_score_gaussian", std, strict=True)
    z = (truth - mean) / std
    return average(0.5 * z**2 + std.log() + 0.5 * math.log(2 * math.pi), weights)


def _gaussian_bounds(where: str, mean: Tensor, std: Tensor, level: float) -> tuple[Tensor, Tensor]:
    check_std(where, std)
    check_level(where, level)
    half = std * math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()
    return mean - half, mean + half


def interval_score(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    level: float = 0.95,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the interval score of the central interval of a Gaussian law.

    With bounds :math:`l, u = \mu \mp \Phi^{-1}(1 - \alpha / 2) \, \sigma` and
    :math:`\alpha` one minus the level,

    .. math:: (u - l) + \frac{2}{\alpha} \max(l - y, 0) + \frac{2}{\alpha} \max(y - u, 0)

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma \geq 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        level: The nominal probability :math:`1 - \alpha`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, a std is negative, or the level is out of (0, 1).

    Example:
        >>> interval_score(torch.zeros(1), torch.ones(1), torch.zeros(1))
        tensor(3.9199)
    """
    check("interval_score", mean=mean, std=std, truth=truth)
    lower, upper = _gaussian_bounds("interval_score", mean, std, level)
    return interval_score_bounds(lower, upper, truth, level, weights)


def interval_score_bounds(
    lower: Float[Tensor, "*#batch n"],
    upper: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    level: float = 0.95,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the interval score of given bounds, e.g. those of an ensemble.

    Arguments:
        lower: The lower bound :math:`l`, with shape :math:`(*, n)`.
        upper: The upper bound :math:`u \geq l`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        level: The nominal probability of the interval.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, bounds are crossed, or the level is out of (0, 1).

    Example:
        >>> interval_score_bounds(torch.zeros(1), torch.ones(1), torch.tensor([1.5]), level=0.9)
        tensor(11.)
    """
    check("interval_score_bounds", lower=lower, upper=upper, truth=truth)
    check_level("interval_score_bounds", level)
    _check_order("interval_score_bounds", lower, upper)
    miss = (lower - truth).clamp_min(0) + (truth - upper).clamp_min(0)
    return average(upper - lower + 2 / (1 - level) * miss, weights)


def _check_order(where: str, lower: Tensor, upper: Tensor) -> None:
    crossed = int((lower > upper).sum())
    if crossed:
        msg = (
            f"{where}(lower=..., upper=...): expected lower <= upper, got {crossed} crossed "
            "intervals. Swap the bounds."
        )
        raise ValueError(msg)


def coverage(
    mean: Float[Tensor, "*#batch n"],
    std: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    level: float = 0.95,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the fraction of the truth inside the central interval of a Gaussian law.

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*, n)`.
        std: The standard deviation :math:`\sigma \geq 0`, with shape :math:`(*, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        level: The nominal probability, which the coverage should equal.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, a std is negative, or the level is out of (0, 1).

    Example:
        >>> coverage(torch.zeros(4), torch.ones(4), torch.tensor([0.0, 1.0, 2.0, -3.0]))
        tensor(0.5000)
    """
    check("coverage", mean=mean, std=std, truth=truth)
    return coverage_bounds(*_gaussian_bounds("coverage", mean, std, level), truth, weights)


def coverage_bounds(
    lower: Float[Tensor, "*#batch n"],
    upper: Float[Tensor, "*#batch n"],
    truth: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*#batch"]:
    r"""Returns the fraction of the truth within given bounds, both included.

    Arguments:
        lower: The lower bound, with shape :math:`(*, n)`.
        upper: The upper bound, with shape :math:`(*, n)`.
        truth: The truth, with shape :math:`(*, n)`.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Raises:
        ValueError: If an input is not finite, or if bounds are crossed.

    Example:
        >>> coverage_bounds(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 1.1]))
        tensor(0.5000)
    """
    check("coverage_bounds", lower=lower, upper=upper, truth=truth)
    _check_order("coverage_bounds", lower, upper)
    return average(((truth >= lower) & (truth <= upper)).to(truth.dtype), weights)


def summary(
    mean: Float[Tensor, " n"],
    std: Float[Tensor, " n"],
    truth: Float[Tensor, " n"],
    members: Float[Tensor, "size n"] | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> dict[str, float]:
    r"""Returns the usual scores of a map by name.

    ``spread_skill`` is the ratio of the predicted std to the error: below one, the map claims
    to know more than it does. With members, ``crps_ensemble`` and ``energy_score`` are added.

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(n)`.
        std: The standard deviation of a new datum, with shape :math:`(n)`.
        truth: The truth :math:`y`, with shape :math:`(n)`.
        members: The joint ensemble, with shape :math:`(S, n)`.
        weights: The weights of the points, with shape :math:`(n)`.

    Raises:
        ValueError: If an input is not finite, or if a std is negative.

    Example:
        >>> scores = summary(torch.zeros(2), torch.ones(2), torch.tensor([0.0, 2.0]))
        >>> scores["mae"], scores["coverage_95"]
        (1.0, 0.5)
    """
    law = (mean, std, truth)
    scores = {
        "mae": mae(mean, truth, weights),
        "rmse": rmse(mean, truth, weights),
        "bias": bias(mean, truth, weights),
        "crps": crps_gaussian(*law, weights),
        "interval_score": interval_score(*law, weights=weights),
        "coverage_50": coverage(*law, 0.50, weights),
        "coverage_90": coverage(*law, 0.90, weights),
        "coverage_95": coverage(*law, 0.95, weights),
        "spread_skill": spread_skill(*law, bins=1, weights=weights).ratio,
    }
    if members is not None:
        scores["crps_ensemble"] = crps_ensemble(members, truth, weights=weights)
        scores["energy_score"] = energy_score(members, truth, weights=weights)
    return {name: score.item() for name, score in scores.items()}
