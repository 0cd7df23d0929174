"""A composition as the flat arrays that the compiled passes read."""

from __future__ import annotations

import numpy as np
import torch

from dataclasses import dataclass
from itertools import pairwise
from torch import Tensor

from .stages import EXPONENTIAL, GAUSSIAN, MATERN32, MATERN52, TABLE
from ..composition import Composition, Factor, RadialTable

__all__ = ["Packed", "array", "factors_of", "pack"]

KINDS = {
    "exponential": EXPONENTIAL,
    "matern32": MATERN32,
    "matern52": MATERN52,
    "gaussian": GAUSSIAN,
    "table": TABLE,
}
Model = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Packed:
    """Coordinates of all factors side by side, and the rest of the composition.

    Arguments:
        coords: The coordinates, with shape :math:`(n, D)`.
        bounds: The first and last column of each factor.
        model: Per factor (kind, first and last column, table row, knots, roots) and inverse step;
            bounds of the terms; variances; table.
    """

    coords: np.ndarray
    bounds: tuple[tuple[int, int], ...]
    model: Model


def array(tensor: Tensor) -> np.ndarray:
    """Contiguous float64 array of a tensor, which shares its memory where it can."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float64).numpy())


def factors_of(composition: Composition) -> list[Factor]:
    """All factors in order."""
    return [factor for term in composition for factor in term.factors]


def interleave(table: RadialTable) -> np.ndarray:
    """Rows of a table: value, slope per knot, and the same for the derivative in the shape."""
    columns = (
        table.values,
        table.slopes * table.step,
        table.shape_values,
        table.shape_slopes * table.step,
    )
    return array(torch.stack(columns, 1))


def side_by_side(coords: list[np.ndarray], where: str) -> np.ndarray:
    """All coordinates in one array."""
    sizes = {len(c) for c in coords}
    if len(sizes) != 1:
        msg = (
            f"{where}(composition=...): expected coordinates of one length, got {sorted(sizes)}. "
            "Use the same points in every factor."
        )
        raise ValueError(msg)
    joined = np.ascontiguousarray(np.concatenate(coords, axis=1))
    if not np.isfinite(joined).all():
        row = int(np.argmax(~np.isfinite(joined).all(1)))
        msg = (
            f"{where}(composition=...): expected finite coordinates, got {joined[row].tolist()} "
            f"at point {row}. Drop this point."
        )
        raise ValueError(msg)
    return joined


def pack(composition: Composition, where: str) -> Packed:
    """Flat arrays of a composition."""
    factors = factors_of(composition)
    coords = [array(f.coords) for f in factors]
    ends = np.cumsum([0] + [c.shape[1] for c in coords])
    tables, rows, first = [], [], 0
    for k, factor in enumerate(factors):
        row = [KINDS[factor.radial], ends[k], ends[k + 1], 0, 0, 0]
        if factor.table is not None:
            tables.append(interleave(factor.table))
            row[3:] = [first, len(tables[-1]), factor.table.roots]
            first += len(tables[-1])
        rows.append(row)
    steps = [1.0 / f.table.step if f.table is not None else 1.0 for f in factors]
    terms = np.cumsum([0] + [len(term.factors) for term in composition])
    variances = [float(term.variance.detach()) for term in composition]
    model = (
        np.array(rows, dtype=np.int64),
        np.array(steps, dtype=np.float64),
        terms.astype(np.int64),
        np.array(variances, dtype=np.float64),
        np.concatenate(tables) if tables else np.zeros((1, 4)),
    )
    bounds = tuple((int(a), int(b)) for a, b in pairwise(ends))
    return Packed(side_by_side(coords, where), bounds, model)
