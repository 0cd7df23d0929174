r"""One axis of a lattice: its nodes, its cells, and how it is extended."""

from __future__ import annotations

__all__ = ["Axis", "extended"]

import math
import torch

from dataclasses import dataclass
from jaxtyping import Float
from torch import Tensor

from ...domain import EARTH_RADIUS


@dataclass(frozen=True)
class Axis:
    r"""The nodes of an axis, each in the middle of a cell.

    Arguments:
        nodes: The coordinates of the nodes.
        step: The distance to the next node above, on the equator for longitudes.
        below: The width of the cell below the node; a cell has the volume of a box of widths.
        above: The width of the cell above the node.
        length: The length of the cell, which differs from its width for latitudes only.
        cosine: The cosine of the latitude of each face, from below the first node to above the
            last; 1 for other axes.
        closed: Whether the first node follows the last.
        period: What separates a node from itself, along a closed axis of the plane.
        before: How many nodes were added before those of the domain.
        count: How many nodes are those of the domain.
    """

    nodes: Float[Tensor, " k"]
    step: Float[Tensor, " k"]
    below: Float[Tensor, " k"]
    above: Float[Tensor, " k"]
    length: Float[Tensor, " k"]
    cosine: Float[Tensor, " faces"]
    closed: bool
    period: float
    before: int
    count: int

    @property
    def width(self) -> Float[Tensor, " k"]:
        r"""The width of each cell."""
        return self.below + self.above


def extended(
    name: str,
    nodes: Float[Tensor, " k"],
    widths: tuple[float, float],
    growth: float,
    closed: bool,
    sphere: bool,
) -> Axis:
    r"""Returns an axis with nodes added outside, whose spacing grows away from the domain.

    The widths of the extension are in the units of the axis. A longitude whose extension goes
    around the Earth is closed, and a latitude stops at the poles.
    """
    turn = sphere and name == "lon"
    closed = closed or (turn and _closes(nodes))
    before, after = _added(nodes, widths, growth)
    gap = 360.0 - (nodes[-1] - nodes[0]).item()
    if closed:
        before, after = nodes.new_zeros(0), nodes.new_zeros(0)
    elif turn and sum(widths) > 0 and before.sum() + after.sum() > 0.9 * gap:
        closed, (before, after) = True, _around(nodes, gap, growth)
    elif sphere and name == "lat":
        before = _to_pole(before, 90 + nodes[0].item())
        after = _to_pole(after, 90 - nodes[-1].item())
    low, high = nodes[0] - before.cumsum(0).flip(0), nodes[-1] + after.cumsum(0)
    every = torch.cat([low, nodes, high])
    if turn and every.abs().max() > 360:
        every = every - 360 * every.sign()[every.abs().argmax()]
    return _axis(name, every, closed, sphere, len(before), len(nodes))


def _closes(nodes: Tensor) -> bool:
    if nodes[-1] - nodes[0] >= 360.0 * (1 - 1e-9):
        msg = (
            f"Lattice(grid=...): expected each longitude once, got {nodes[0].item():g} and "
            f"{nodes[-1].item():g}, which are one place. Drop the last."
        )
        raise ValueError(msg)
    return len(nodes) > 1 and bool(nodes[0] + 360 - nodes[-1] <= 1.5 * nodes.diff().max())


def _added(nodes: Tensor, widths: tuple[float, float], growth: float) -> tuple[Tensor, Tensor]:
    steps = nodes.diff() if len(nodes) > 1 else nodes.new_full((1,), max(widths) / 10)
    return _graded(steps[0], widths[0], growth), _graded(steps[-1], widths[1], growth)


def _graded(step: Tensor, width: float, growth: float) -> Float[Tensor, " k"]:
    r"""Returns steps that grow from that of the domain, and add up to a width at least."""
    if width <= 0:
        return step.new_zeros(0)
    ratio = width / step.item()
    count = math.log1p(ratio * (growth - 1) / growth) / math.log(growth) if growth > 1 else ratio
    return step * growth ** torch.arange(1, math.ceil(count - 1e-9) + 1, dtype=step.dtype)


def _around(nodes: Tensor, gap: float, growth: float) -> tuple[Tensor, Tensor]:
    r"""Returns steps from both ends that meet on the other side of the Earth."""
    before, after = _added(nodes, (gap / 2, gap / 2), growth)
    # the last of the steps parts the last node of one side from that of the other
    scale = gap / (before.sum() + after[:-1].sum())
    return before[:-1] * scale, after[:-1] * scale


def _to_pole(steps: Tensor, room: float) -> Float[Tensor, " k"]:
    r"""Returns steps of latitude that end half a step from the pole, if they would cross it."""
    kept = steps[steps.cumsum(0) + steps / 2 < room]
    if len(kept) == len(steps):
        return steps
    if not len(kept):
        return kept
    return kept * room / (kept.sum() + kept[-1] / 2)


def _axis(name: str, nodes: Tensor, closed: bool, sphere: bool, before: int, count: int) -> Axis:
    step, last = _steps(nodes, closed, sphere and name == "lon")
    under = torch.cat([last, step[:-1]])
    low, high = nodes - under / 2, nodes + step / 2
    parts = {
        "step": step,
        "below": under / 2,
        "above": step / 2,
        "length": (under + step) / 2,
        "cosine": nodes.new_ones(len(nodes) + 1),
    }
    if sphere and name == "lon":
        metres = math.radians(1.0) * EARTH_RADIUS
        parts |= {k: metres * v for k, v in parts.items() if k != "cosine"}
    elif sphere and name == "lat":
        low[0], high[-1] = _at_pole(low[0], under[0]), _at_pole(high[-1], step[-1])
        parts = _meridian(nodes, step, low, high)
    period = (nodes[-1] - nodes[0] + last[0]).item() if closed else 0.0
    return Axis(nodes, **parts, closed=closed, period=period, before=before, count=count)


def _steps(nodes: Tensor, closed: bool, turn: bool) -> tuple[Tensor, Tensor]:
    r"""Returns the step above each node, and that below the first."""
    steps = nodes.diff()
    if not closed:
        return torch.cat([steps, steps[-1:]]), steps[:1]
    over = nodes[:1] + 360 - nodes[-1:] if turn else steps.mean()[None]
    return torch.cat([steps, over]), over


def _at_pole(face: Tensor, step: Tensor) -> Tensor:
    r"""Returns the last face of latitude: the pole, if it is less than half a step off."""
    return torch.where(face.abs() + step / 2 > 90 - 1e-9, 90.0 * face.sign(), face)


def _meridian(nodes: Tensor, step: Tensor, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    nodes, step, low, high = (v.deg2rad() for v in (nodes, step, low, high))
    below, above = nodes.sin() - low.sin(), high.sin() - nodes.sin()
    faces = torch.cat([low, high[-1:]])
    cosine = torch.where(faces.abs() >= math.pi / 2 - 1e-12, 0.0, faces.cos())
    sizes = {"step": step, "below": below, "above": above, "length": high - low}
    return {k: EARTH_RADIUS * v for k, v in sizes.items()} | {"cosine": cosine}
