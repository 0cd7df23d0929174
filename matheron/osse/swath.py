r"""The points of a swath: across the track, by great circles."""

from __future__ import annotations

__all__ = ["Swath", "across_track", "ground_frame", "lonlat", "unit_vectors"]

import numpy as np

from dataclasses import dataclass
from jaxtyping import Float

from .orbits import RepeatOrbit
from ..domain import EARTH_RADIUS


def unit_vectors(
    lon: Float[np.ndarray, "*t"], lat: Float[np.ndarray, "*t"]
) -> Float[np.ndarray, "*t 3"]:
    r"""Returns points of the sphere as unit vectors.

    Arguments:
        lon: The longitudes, in degrees.
        lat: The latitudes, in degrees.
    """
    lon, lat = np.deg2rad(lon), np.deg2rad(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def lonlat(
    vectors: Float[np.ndarray, "*t 3"],
) -> tuple[Float[np.ndarray, "*t"], Float[np.ndarray, "*t"]]:
    r"""Returns the longitudes in [0, 360) and the latitudes of vectors, in degrees.

    Arguments:
        vectors: The vectors, of any length.
    """
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.mod(np.rad2deg(np.arctan2(y, x)), 360.0), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def ground_frame(
    orbit: RepeatOrbit, times: Float[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"]]:
    r"""Returns the points under a satellite and the directions of flight over the ground.

    The directions are unit tangents of the sphere, by centred differences over one second: the
    turn of the Earth is in them.

    Arguments:
        orbit: The orbit.
        times: The times, in seconds since the epoch of the orbit.
    """
    here = unit_vectors(*orbit.track(times))
    step = unit_vectors(*orbit.track(times + 0.5)) - unit_vectors(*orbit.track(times - 0.5))
    along = step - (step * here).sum(-1, keepdims=True) * here
    return here, along / np.linalg.norm(along, axis=-1, keepdims=True)


def across_track(
    here: Float[np.ndarray, "t 3"],
    along: Float[np.ndarray, "t 3"],
    offsets: Float[np.ndarray, " p"],
) -> tuple[Float[np.ndarray, "t p"], Float[np.ndarray, "t p"]]:
    r"""Returns the points at given distances on either side of a track.

    They lie on the great circle that crosses the track at a right angle:
    :math:`q = \cos(s / R) \, p + \sin(s / R) \, (d \times p)` for the point :math:`p` and the
    direction of flight :math:`d`.

    Arguments:
        here: The points of the track, as unit vectors.
        along: The directions of flight, as unit tangents.
        offsets: The distances :math:`s`, in kilometres: positive to the right.

    Example:
        >>> here, along = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
        >>> lon, lat = across_track(here, along, np.array([-111.2, 111.2]))
        >>> lon.round(2).tolist(), lat.round(2).tolist()
        ([[359.0, 1.0]], [[0.0, 0.0]])
    """
    right = np.cross(along, here)
    angle = (offsets * 1e3 / EARTH_RADIUS)[:, None]
    return lonlat(np.cos(angle) * here[:, None] + np.sin(angle) * right[:, None])


@dataclass(frozen=True)
class Swath:
    r"""Two strips of pixels, left and right of the track, with a gap at nadir.

    Arguments:
        inner: The distance of the nearest pixels to the track, in kilometres.
        outer: The distance of the farthest ones, in kilometres.
        across: The step across the track, in kilometres.
        along: The step along the track, in kilometres.

    Raises:
        ValueError: If a step is not positive, or if ``outer`` is not beyond ``inner``.

    Example:
        >>> Swath(inner=10.0, outer=20.0, across=5.0).offsets.tolist()
        [-20.0, -15.0, -10.0, 10.0, 15.0, 20.0]
    """

    inner: float = 10.0
    outer: float = 60.0
    across: float = 2.0
    along: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.inner < self.outer < 1000.0:
            msg = (
                f"Swath(inner={self.inner}, outer={self.outer}): expected 0 < inner < outer in "
                f"kilometres, got {self.inner} and {self.outer}. SWOT is seen from 10 to 60 km."
            )
            raise ValueError(msg)
        for name in ("across", "along"):
            step = getattr(self, name)
            if not 0.0 < step <= 500.0:
                msg = (
                    f"Swath({name}={step}): expected a positive step in kilometres, got {step}. "
                    "The finest one of SWOT is 2 km."
                )
                raise ValueError(msg)

    @property
    def offsets(self) -> Float[np.ndarray, " p"]:
        r"""The distances of the pixels to the track, in kilometres: negative on the left."""
        count = int(np.floor((self.outer - self.inner) / self.across + 1e-9)) + 1
        right = self.inner + self.across * np.arange(count, dtype=np.float64)
        return np.concatenate([-right[::-1], right])
