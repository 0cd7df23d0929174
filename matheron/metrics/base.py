r"""What every score shares: the check of its inputs, and the average over points."""

from __future__ import annotations

__all__ = ["average", "check", "check_level", "check_std"]

from jaxtyping import Float
from torch import Tensor


def check(where: str, **fields: Tensor) -> None:
    r"""Refuses fields that are empty, of unequal lengths, or not finite.

    Missing data are removed before a score, never inside one: a score that skips NaN compares
    methods on different points without saying so.

    Arguments:
        where: The function whose arguments are checked.
        fields: The arguments by name, each with shape :math:`(*, n)`.

    Raises:
        ValueError: If a field is empty, has NaN or Inf, or if the last sizes differ.

    Example:
        >>> import torch
        >>> check("mae", estimate=torch.zeros(3), truth=torch.tensor([0.0, torch.nan, 1.0]))
        Traceback (most recent call last):
        ...
        ValueError: mae(truth=...): expected finite values, got 1 NaN or Inf among 3. Drop...
    """
    sizes = {k: x.shape[-1] if x.ndim else 0 for k, x in fields.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        names = ", ".join(fields)
        msg = (
            f"{where}({names}): expected the same number of points, at least one, got {sizes}. "
            "Score all fields on the same points."
        )
        raise ValueError(msg)
    for name, x in fields.items():
        _check_finite(where, name, x)


def _check_finite(where: str, name: str, x: Tensor) -> None:
    bad = int((~x.isfinite()).sum())
    if bad:
        msg = (
            f"{where}({name}=...): expected finite values, got {bad} NaN or Inf among "
            f"{x.numel()}. Drop those points from every argument first, e.g. "
            f"keep = {name}.isfinite()."
        )
        raise ValueError(msg)


def check_std(where: str, std: Tensor, *, strict: bool = False) -> None:
    r"""Refuses standard deviations that are negative or, where ``strict``, zero."""
    bad = int((std <= 0).sum() if strict else (std < 0).sum())
    if bad:
        what = "positive" if strict else "non-negative"
        msg = (
            f"{where}(std=...): expected {what} standard deviations, got {bad} that are not among "
            f"{std.numel()}. Pass the std of a new datum, noise included."
        )
        raise ValueError(msg)


def check_level(where: str, level: float) -> None:
    r"""Refuses a nominal level out of :math:`(0, 1)`."""
    if not 0 < level < 1:
        msg = (
            f"{where}(level=...): expected a level between 0 and 1, got {level}. "
            "Pass e.g. 0.95 for 95 %."
        )
        raise ValueError(msg)


def average(
    values: Float[Tensor, "*batch n"], weights: Float[Tensor, "*#batch n"] | None = None
) -> Float[Tensor, "*batch"]:
    r"""Returns the weighted average over points.

    .. math:: \bar v = \sum_i w_i v_i \, / \, \sum_i w_i

    Arguments:
        values: The values :math:`v`, with shape :math:`(*, n)`.
        weights: The weights :math:`w \geq 0`, e.g. the areas of the cells, with shape
            :math:`(n)` or :math:`(*, n)`. Only their ratios matter. By default all equal.

    Returns:
        The average, with shape :math:`(*)`.

    Raises:
        ValueError: If a weight is negative or not finite, or if all are zero.

    Example:
        >>> import torch
        >>> average(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0]))
        tensor(2.)
    """
    if weights is None:
        return values.mean(dim=-1)
    check("average", values=values, weights=weights)
    total = weights.sum(dim=-1)
    if (weights < 0).any() or (total <= 0).any():
        msg = (
            f"average(weights=...): expected non-negative weights with a positive sum, got a "
            f"minimum of {weights.min().item():.4g} and a sum of {total.min().item():.4g}. "
            "Pass e.g. cell areas."
        )
        raise ValueError(msg)
    return (weights * values).sum(dim=-1) / total
