r"""Longitudes: one continuous branch, whatever the seam of the file."""

from __future__ import annotations

__all__ = ["branch_of", "one_branch", "same_branch"]

import numpy as np

GAP = 30.0
"""An empty span, in degrees, wide enough to put the seam in it."""


def one_branch(lon: np.ndarray) -> np.ndarray:
    r"""Returns longitudes without a jump of one turn inside the data.

    The seam is moved to the widest empty span where this one is over 30 degrees. Longitudes that
    are continuous already are left as they are; data all around the globe too, but for mixed
    branches.

    Example:
        >>> one_branch(np.array([359.0, 0.5, 2.0])).tolist()
        [-1.0, 0.5, 2.0]
        >>> one_branch(np.array([179.0, -179.5])).tolist()
        [179.0, 180.5]
    """
    if lon.size == 0:
        return lon
    turned = np.unique(np.mod(lon, 360.0))
    gaps = np.diff(turned, append=turned[0] + 360.0)
    widest, extent = int(gaps.argmax()), np.ptp(lon)
    if gaps[widest] >= GAP and extent > 360.0 - gaps[widest] + 1e-6:
        start = turned[(widest + 1) % turned.size]
        lon = start + np.mod(lon - start + 1e-9, 360.0) - 1e-9
    elif extent > 360.0 + 1e-6:
        lon = np.mod(lon + 180.0, 360.0) - 180.0
    return _usual_range(lon)


def _usual_range(lon: np.ndarray) -> np.ndarray:
    if lon.max() > 360.0:
        return lon - 360.0
    return lon + 360.0 if lon.min() < -180.0 else lon


def same_branch(lon: np.ndarray, like: np.ndarray) -> np.ndarray:
    r"""Returns longitudes moved by whole turns, all together, onto the branch of ``like``.

    Example:
        >>> same_branch(np.array([-66.0, -54.0]), like=np.array([295.0, 305.0])).tolist()
        [294.0, 306.0]
    """
    middle = (np.min(like) + np.max(like)) / 2 - (np.min(lon) + np.max(lon)) / 2
    turns = np.round(middle / 360.0)
    inside = np.min(lon) >= np.min(like) and np.max(lon) <= np.max(like)
    return lon if inside or turns == 0 else lon + 360.0 * turns


def branch_of(lon: np.ndarray) -> str:
    r"""Names the branch of longitudes, for the user.

    Example:
        >>> branch_of(np.array([294.0, 306.0]))
        '0..360'
    """
    if np.min(lon) < 0:
        return "-180..180" if np.max(lon) <= 180 else "continuous across the seam"
    return "0..360" if np.max(lon) > 180 else "either (0..180)"
