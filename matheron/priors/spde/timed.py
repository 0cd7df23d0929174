r"""From the arguments of a prior in space and time to fields, over space or over both."""

from __future__ import annotations

__all__ = ["Coefficient", "NodalField", "TimedField", "space_of", "timed_field", "untimed"]

import torch

from jaxtyping import Float
from torch import Tensor

from .fields import ParameterField
from .velocity import Given
from ...domain import Grid, Points

Coefficient = ParameterField | Tensor | None
WHERE = "AdvectionDiffusion"


def space_of(domain: Grid | Points) -> Grid | Points:
    r"""Returns a domain without its time: what is sea at any time is sea.

    Example:
        >>> space_of(Grid(time=[0.0, 1.0], x=[0.0, 2.0]))
        Grid(x: 2, metric='plane')
    """
    if isinstance(domain, Points):
        return untimed(domain)
    axes = {name: axis for name, axis in domain.axes.items() if name != "time"}
    mask = None if domain.mask is None else domain.mask.unflatten(0, domain.shape).any(dim=0)
    return Grid(mask=mask, metric=domain.metric, **axes)  # type: ignore[arg-type]


def untimed(points: Points) -> Points:
    r"""Returns points without their time."""
    if points.dims[0] != "time":
        msg = (
            f"{WHERE}(points=...): expected points with time, got {points.dims}. Give them the "
            "axis 'time'."
        )
        raise ValueError(msg)
    return Points(points.coords[:, 1:], points.dims[1:], metric=points.metric)


def timed_field(
    name: str, value: Coefficient, domain: Grid | Points, shape: tuple[int, ...]
) -> ParameterField | None:
    r"""Returns a field; values at nodes are over space, or over time and space.

    Raises:
        ValueError: If there is not one finite value of the right shape per node.
    """
    if value is None:
        return None
    if not isinstance(value, ParameterField):
        value = _given(name, value, domain, shape)
    if tuple(value.shape) != shape:
        msg = (
            f"{WHERE}({name}=...): expected a field of shape {shape}, got {tuple(value.shape)}. "
            "Give one value per node, in the order of the axes of space."
        )
        raise ValueError(msg)
    _check_allowed(name, value, domain)
    return value


@torch.no_grad()
def _check_allowed(name: str, field: ParameterField, domain: Grid | Points) -> None:
    r"""Checks that numbers are positive, and matrices symmetric and positive definite."""
    values = field(domain.points)
    if len(field.shape) == 1:
        return
    if field.shape:
        least = torch.linalg.eigvalsh(values).min().item()
        symmetric, what = torch.allclose(values, values.mT), "symmetric positive definite matrices"
    else:
        least, symmetric, what = values.min().item(), True, "positive values"
    if not (least > 0 and symmetric):
        msg = (
            f"{WHERE}({name}=...): expected {what}, got {least:.3g} as the least"
            f"{'' if symmetric else ', and no symmetry'}. Check the units."
        )
        raise ValueError(msg)


def _given(
    name: str, value: Tensor, domain: Grid | Points, shape: tuple[int, ...]
) -> ParameterField:
    value, space = torch.as_tensor(value, dtype=torch.float64), space_of(domain)
    found = next((d for d in (space, domain) if value.shape == (len(d.points), *shape)), None)
    if found is None or not value.isfinite().all():
        sizes = f"{(len(space.points), *shape)} or {(len(domain.points), *shape)}"
        msg = (
            f"{WHERE}({name}=...): expected finite values of shape {sizes}, got "
            f"{tuple(value.shape)} with {int((~value.isfinite()).sum())} not finite. Give one per "
            "node that is not masked, in the order of the axes of space."
        )
        raise ValueError(msg)
    return Given(found, value)


class TimedField:
    r"""A field at the nodes of a lattice, at any time.

    Arguments:
        field: The field.
        points: The nodes, without time.
        epoch: What time is counted from.
    """

    def __init__(self, field: ParameterField, points: Points, epoch: object) -> None:
        self.field, self.points, self.epoch = field, points, epoch
        self.varies = _varies(field, points)

    def __call__(self, time: Float[Tensor, ""]) -> Tensor:
        if not self.varies:
            return self.field(self.points)
        coords = torch.cat([time.expand(len(self.points), 1), self.points.coords], dim=-1)
        dims, metric = ("time", *self.points.dims), self.points.metric
        return self.field(Points(coords, dims, metric=metric, epoch=self.epoch))  # type: ignore[arg-type]


class NodalField:
    r"""Values at the nodes of a lattice, the same at all times; they may carry a gradient.

    Arguments:
        values: The values, with shape :math:`(N)`, :math:`(N, d)` or :math:`(N, d, d)`.
    """

    varies = False

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, time: Float[Tensor, ""]) -> Tensor:
        return self.values


def _varies(field: ParameterField, points: Points) -> bool:
    r"""Returns whether a field asks for time: it then refuses points that have none."""
    try:
        field(points[:1])
    except ValueError:
        return True
    return False
