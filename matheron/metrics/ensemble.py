r"""Scores of an ensemble: CRPS, energy and variogram scores, quantiles and moments.

Members come first: an ensemble of :math:`S` members on :math:`n` points has shape
:math:`(S, *, n)`. A *fair* score is the one that an infinite ensemble of the same law would get
on average; without it small ensembles are punished for being small.
"""

from __future__ import annotations

__all__ = [
    "crps_ensemble",
    "energy_score",
    "ensemble_bounds",
    "ensemble_moments",
    "variogram_score",
]

import math
import torch

from collections.abc import Iterator
from jaxtyping import Float
from torch import Tensor

from .base import average, check, check_level

CHUNK = 2**23
"""The number of values that temporary arrays hold at most (64 MiB in float64)."""


def _check_size(where: str, members: Tensor, least: int, cure: str) -> None:
    if members.shape[0] < least:
        msg = (
            f"{where}(members=...): expected at least {least} members, got {members.shape[0]}. "
            f"{cure}."
        )
        raise ValueError(msg)


def _columns(members: Tensor) -> Iterator[slice]:
    # Sorting makes copies: by blocks of points, the memory does not grow with the map.
    n = members.shape[-1]
    step = max(1, CHUNK * n // members.numel())
    return (slice(i, i + step) for i in range(0, n, step))


def _divisor(where: str, members: Tensor, fair: bool) -> int:
    size = members.shape[0]
    if fair:
        _check_size(where, members, 2, "Draw more, or pass fair=False")
    return size * (size - 1) if fair else size**2


def crps_ensemble(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    fair: bool = True,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Returns the continuous ranked probability score of an ensemble, averaged over points.

    .. math:: \frac{1}{S} \sum_k |x_k - y| - \frac{1}{2 D} \sum_{k, l} |x_k - x_l|

    with :math:`D = S (S - 1)` where ``fair``, else :math:`S^2`. The double sum costs one sort.
    The score is in units of the field, is 0 for a perfect ensemble, and is the absolute error
    for a single member (with ``fair=False``).

    References:
        | Fair scores for ensemble forecasts (Ferro, 2014)
        | https://doi.org/10.1002/qj.2270

    Arguments:
        members: The ensemble :math:`x`, with shape :math:`(S, *, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        fair: Whether to remove the bias due to the size of the ensemble.
        weights: The weights of the points, with shape :math:`(n)` or :math:`(*, n)`.

    Returns:
        The score, with shape :math:`(*)`.

    Raises:
        ValueError: If an input is not finite, or if a fair score is asked of one member.

    Example:
        >>> crps_ensemble(torch.tensor([[0.0], [2.0]]), torch.tensor([1.0]), fair=False)
        tensor(0.5000)
    """
    check("crps_ensemble", members=members, truth=truth)
    divisor = _divisor("crps_ensemble", members, fair)
    scores = [_crps(members[..., c] - truth[..., c], divisor) for c in _columns(members)]
    return average(torch.cat(scores, dim=-1), weights)


def _crps(errors: Tensor, divisor: int) -> Tensor:
    size = len(errors)
    # sum_{k<l} |x_k - x_l| = sum_k (2k - S - 1) x_(k) over the sorted members
    ranks = torch.arange(1 - size, size, 2, dtype=errors.dtype, device=errors.device)
    spread = torch.einsum("s,s...->...", ranks, errors.sort(dim=0).values)
    return errors.abs().mean(dim=0) - spread / divisor


def ensemble_bounds(
    members: Float[Tensor, "size *batch n"], level: float = 0.95
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    r"""Returns the bounds of the central interval of an ensemble.

    The quantile at probability :math:`p` interpolates the order statistics at
    :math:`p (S + 1)`: a truth drawn from the same law as the members falls below
    :math:`x_{(k)}` with probability :math:`k / (S + 1)`, so that coverage is exact wherever
    :math:`p (S + 1)` is whole, e.g. with 19, 39 or 99 members, and has no bias towards narrow
    intervals elsewhere.

    Arguments:
        members: The ensemble, with shape :math:`(S, *, n)`.
        level: The nominal probability of the interval.

    Returns:
        The lower and upper bounds, each with shape :math:`(*, n)`.

    Raises:
        ValueError: If the ensemble is too small for the level: it takes
            :math:`2 / (1 - level) - 1` members.

    Example:
        >>> lower, upper = ensemble_bounds(torch.arange(19.0).reshape(19, 1), level=0.9)
        >>> lower.item(), upper.item()
        (0.0, 18.0)
    """
    check("ensemble_bounds", members=members)
    check_level("ensemble_bounds", level)
    least = math.ceil(2 / (1 - level) - 1 - 1e-9)
    _check_size("ensemble_bounds", members, least, f"Draw more, or lower the level {level}")
    position = (1 - level) / 2 * (len(members) + 1) - 1
    pairs = [_bounds(members[..., c], position) for c in _columns(members)]
    lower, upper = zip(*pairs, strict=True)
    return torch.cat(lower, dim=-1), torch.cat(upper, dim=-1)


def _bounds(members: Tensor, position: float) -> tuple[Tensor, Tensor]:
    ordered = members.sort(dim=0).values
    k = math.floor(position + 1e-9)
    weight = max(position - k, 0.0)
    lower = torch.lerp(ordered[k], ordered[k + 1], weight)
    return lower, torch.lerp(ordered[-1 - k], ordered[-2 - k], weight)


def ensemble_moments(
    members: Float[Tensor, "size *batch n"],
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    r"""Returns the mean of an ensemble, and the std of a new draw around that mean.

    .. math:: s^2 = \left(1 + \frac{1}{S}\right) \frac{1}{S - 1} \sum_k (x_k - \bar x)^2

    The factor accounts for the error of :math:`\bar x`, so that spread and skill of a reliable
    ensemble are equal at any size.

    References:
        | Why should ensemble spread match the RMSE of the ensemble mean? (Fortin et al., 2014)
        | https://doi.org/10.1175/JHM-D-14-0008.1

    Arguments:
        members: The ensemble, with shape :math:`(S, *, n)`.

    Returns:
        The mean and the std, each with shape :math:`(*, n)`.

    Raises:
        ValueError: If there are fewer than two members, or if one is not finite.

    Example:
        >>> mean, std = ensemble_moments(torch.tensor([[0.0], [2.0]]))
        >>> mean.item(), round(std.item() ** 2, 6)
        (1.0, 3.0)
    """
    check("ensemble_moments", members=members)
    _check_size("ensemble_moments", members, 2, "Draw more members")
    return members.mean(dim=0), members.std(dim=0) * math.sqrt(1 + 1 / len(members))


def energy_score(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    fair: bool = True,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Returns the energy score of a joint ensemble: the CRPS of a whole field.

    .. math:: \frac{1}{S} \sum_k \|x_k - y\| - \frac{1}{2 D} \sum_{k, l} \|x_k - x_l\|,
        \qquad \|v\|^2 = \sum_i w_i v_i^2

    with :math:`D = S (S - 1)` where ``fair``, else :math:`S^2`, and weights scaled to a mean of
    one. With one point this is the CRPS.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437

    Arguments:
        members: The ensemble :math:`x`, with shape :math:`(S, *, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        fair: Whether to remove the bias due to the size of the ensemble.
        weights: The weights :math:`w` of the points, with shape :math:`(n)`.

    Returns:
        The score, with shape :math:`(*)`.

    Raises:
        ValueError: If an input is not finite, or if a fair score is asked of one member.

    Example:
        >>> members = torch.tensor([[0.0, 0.0], [6.0, 8.0]])
        >>> energy_score(members, torch.zeros(2), fair=False)
        tensor(2.5000)
    """
    check("energy_score", members=members, truth=truth)
    divisor = _divisor("energy_score", members, fair)
    errors = (members - truth) * _norm_weights(members, weights)
    distances = _distances(errors.movedim(0, -2))
    return errors.norm(dim=-1).mean(dim=0) - distances.sum(dim=(-2, -1)) / (2 * divisor)


def _norm_weights(members: Tensor, weights: Tensor | None) -> Tensor:
    weights = members.new_ones(members.shape[-1]) if weights is None else weights
    return (weights / average(weights, torch.ones_like(weights))).sqrt()


def _distances(x: Tensor) -> Tensor:
    # |x|^2 + |y|^2 - 2 x.y loses half the digits where members are close
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def variogram_score(
    members: Float[Tensor, "size *batch n"],
    truth: Float[Tensor, "*batch n"],
    weights: Float[Tensor, "n n"] | None = None,
    p: float = 0.5,
) -> Float[Tensor, "*batch"]:
    r"""Returns the variogram score of order :math:`p`: does the ensemble vary like the truth?

    .. math:: \sum_{i \neq j} w_{ij} \Big( |y_i - y_j|^p
        - \frac{1}{S} \sum_k |x_{ki} - x_{kj}|^p \Big)^2 \Big/ \sum_{i \neq j} w_{ij}

    It sees wrong correlations that the energy score hardly sees, and does not see a constant
    bias. The cost is :math:`O(S n^2)` and the memory :math:`O(S n)`: score some thousands of
    points, not a map.

    References:
        | Variogram-based proper scoring rules (Scheuerer & Hamill, 2015)
        | https://doi.org/10.1175/MWR-D-14-00269.1

    Arguments:
        members: The ensemble :math:`x`, with shape :math:`(S, *, n)`.
        truth: The truth :math:`y`, with shape :math:`(*, n)`.
        weights: The weights :math:`w` of the pairs, e.g. inverse distances, with shape
            :math:`(n, n)`. The diagonal has no effect. By default all equal.
        p: The order.

    Returns:
        The score, with shape :math:`(*)`.

    Raises:
        ValueError: If an input is not finite, ``p`` is not positive, or no pair has weight.

    Example:
        >>> members = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> variogram_score(members, torch.tensor([0.0, 4.0]))
        tensor(1.)
    """
    check("variogram_score", members=members, truth=truth)
    _check_order(p)
    n = truth.shape[-1]
    rows = max(1, CHUNK // members.numel())
    score, total = truth.new_zeros(truth.shape[:-1]), truth.new_zeros(())
    for block in torch.arange(n, device=truth.device).split(rows):
        w = _pair_weights(weights, block, truth)
        gap = _variation(truth, block, p) - _variation(members, block, p).mean(dim=0)
        score = score + (w * gap**2).sum(dim=(-2, -1))
        total = total + w.sum()
    _check_pairs(total)
    return score / total


def _variation(x: Tensor, block: Tensor, p: float) -> Tensor:
    return (x[..., block, None] - x[..., None, :]).abs() ** p


def _pair_weights(weights: Tensor | None, block: Tensor, like: Tensor) -> Tensor:
    n = like.shape[-1]
    rows = like.new_ones(len(block), n) if weights is None else weights[block]
    return rows * (block[:, None] != torch.arange(n, device=like.device))


def _check_order(p: float) -> None:
    if p <= 0:
        msg = f"variogram_score(p=...): expected a positive order, got {p}. Pass e.g. 0.5."
        raise ValueError(msg)


def _check_pairs(total: Tensor) -> None:
    if not total > 0:
        msg = (
            f"variogram_score(weights=...): expected pairs with a positive total weight, got "
            f"{total.item():.4g}. Score at least two points, with non-negative weights."
        )
        raise ValueError(msg)
