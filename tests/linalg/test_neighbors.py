"""Neighbours in several metrics and among targets; what ordering and simulation refuse."""

from __future__ import annotations

import pytest
import torch

from torch import Tensor

from matheron.linalg.vecchia import (
    along_curve,
    joint_neighbors,
    maxmin_order,
    previous_neighbors,
    propagate,
    target_neighbors,
)


def uniform(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, dtype=torch.float64, generator=generator)


def nearest(x: Tensor, i: int, among: range) -> list[int]:
    """Earlier sites from the nearest on, by brute force."""
    return sorted(among, key=lambda j: (float((x[i] - x[j]).norm()), j))


def test_joint_neighbors_take_turns_between_metrics() -> None:
    x = uniform(60, 2)
    metrics = [x[:, :1], x[:, 1:]]
    table = joint_neighbors(metrics, 6)
    for i in range(60):
        lists = [nearest(m, i, range(i)) for m in metrics]
        turns = [j for pair in zip(*lists, strict=True) for j in pair]
        expected = list(dict.fromkeys(turns))[:6]
        assert [j for j in table[i].tolist() if j >= 0] == expected


def test_one_metric_is_the_nearest() -> None:
    x = uniform(50, 3)
    assert torch.equal(joint_neighbors([x], 5), previous_neighbors(x, 5))


def test_targets_look_at_the_nearest_and_at_earlier_targets() -> None:
    x, m = uniform(80, 2, 1), 60
    table = target_neighbors([x], 12, m)
    for t in range(20):
        near = nearest(x, m + t, range(m + t))[:12]
        later = nearest(x, m + t, range(m, m + t))[:2]
        expected = near + [j for j in later if j not in near]
        assert [j for j in table[t].tolist() if j >= 0] == expected


def test_along_the_curve_is_a_permutation_that_keeps_near_points_near() -> None:
    x = uniform(4000, 2, 2)
    order = along_curve(x)
    assert torch.equal(order.sort().values, torch.arange(4000))
    step = (x[order].diff(dim=0).norm(dim=1)).mean()
    assert step < 0.1 * (x.diff(dim=0).norm(dim=1)).mean()


def test_ordering_and_neighbors_refuse_bad_input() -> None:
    bad = torch.full((4, 2), float("nan"), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"maxmin_order\(coords=\.\.\.\): expected finite"):
        maxmin_order(bad)
    with pytest.raises(ValueError, match=r"previous_neighbors\(coords=\.\.\.\): expected finite"):
        previous_neighbors(bad, 2)
    with pytest.raises(
        ValueError, match=r"previous_neighbors\(size=\.\.\.\): expected a positive"
    ):
        previous_neighbors(uniform(4, 2), 0)


def test_propagate_refuses_what_it_cannot_fill_in_place() -> None:
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    table = torch.zeros(1, 1, dtype=torch.int32)
    for columns in (
        torch.zeros(2, 1),
        torch.zeros(3, 1, dtype=torch.float64),
        torch.zeros(4, 2, dtype=torch.float64)[::2],
    ):
        with pytest.raises(
            ValueError, match=r"propagate\(columns=\.\.\.\): expected contiguous float64"
        ):
            propagate(half, half[0], table, 1, columns)
