r"""Scores by classes of distance to the nearest datum."""

from __future__ import annotations

__all__ = ["ByDistance", "by_distance"]

import numpy as np
import torch

from collections.abc import Callable
from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from .base import check


@dataclass(frozen=True)
class ByDistance:
    r"""A score by classes of distance to the nearest datum."""

    edges: Float[Tensor, " k_plus_1"]
    score: Float[Tensor, " k"]
    """The score of each class, NaN where it has no point."""
    count: Float[Tensor, " k"]
    """The number of points of each class."""


def by_distance(
    distance: Float[Tensor, " n"],
    bins: int | Float[Tensor, " k_plus_1"],
    score: Callable[..., Tensor],
    *fields: Float[Tensor, "... n"],
    weights: Float[Tensor, " n"] | None = None,
) -> ByDistance:
    r"""Returns a score by classes of distance: is the map still good far from the data?

    Arguments:
        distance: The distance from each point to the nearest datum, with shape :math:`(n)`, e.g.
            ``points.nearest_distance(data)``.
        bins: The edges of the classes, increasing, with shape :math:`(k + 1)`; or the number
            of classes with equal counts. A class holds its lower edge, the last one both.
        score: Any score of `matheron.metrics` that returns one number, e.g. ``rmse``.
        fields: The arguments of ``score``, each with shape :math:`(n)` or :math:`(S, n)`.
        weights: The weights of the points, with shape :math:`(n)`.

    Raises:
        ValueError: If an input is not finite, or if the edges are not increasing.

    Example:
        >>> from matheron.metrics import mae
        >>> distance = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> error = torch.tensor([1.0, 1.0, 2.0, 4.0])
        >>> by_distance(distance, 2, mae, error, torch.zeros(4)).score
        tensor([1., 3.])
    """
    check("by_distance", distance=distance, **{f"fields[{i}]": f for i, f in enumerate(fields)})
    edges = _edges(distance, bins)
    label = torch.searchsorted(edges, distance, right=True) - 1
    label = torch.where(distance == edges[-1], len(edges) - 2, label)
    inside = [label == k for k in range(len(edges) - 1)]
    values = [_score_of(score, fields, weights, keep) for keep in inside]
    count = torch.stack([keep.sum() for keep in inside]).to(distance.dtype)
    return ByDistance(edges, torch.stack(values), count)


def _score_of(
    score: Callable[..., Tensor], fields: tuple[Tensor, ...], weights: Tensor | None, keep: Tensor
) -> Tensor:
    if not keep.any():
        return fields[0].new_tensor(torch.nan)
    chosen = {} if weights is None else {"weights": weights[keep]}
    return score(*(f[..., keep] for f in fields), **chosen)


def _edges(distance: Tensor, bins: int | Tensor) -> Tensor:
    edges = _quantiles(distance, bins) if isinstance(bins, int) else bins
    if len(edges) < 2 or not (edges.diff() > 0).all():
        msg = (
            f"by_distance(bins=...): expected at least two increasing edges, got "
            f"{edges.tolist()}. Pass edges in the units of the distance."
        )
        raise ValueError(msg)
    return edges


def _quantiles(distance: Tensor, bins: int) -> Tensor:
    # numpy, since torch refuses quantiles of more than 2^24 values
    edges = np.quantile(distance.numpy(force=True), np.linspace(0, 1, max(bins, 1) + 1))
    return torch.as_tensor(edges, dtype=distance.dtype, device=distance.device).unique()
