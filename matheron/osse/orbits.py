r"""Ground tracks of altimeters on repeat orbits, in closed form.

An orbit that repeats is two integers (revolutions and nodal days per cycle), the length of the
cycle, and the shape of one revolution. The track follows at any time, without an ephemeris: it is
within 0.5 km (rms) of the official ones of SWOT.
"""

from __future__ import annotations

__all__ = ["RepeatOrbit", "geodetic_latitude"]

import math
import numpy as np

from dataclasses import dataclass
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike

EQUATORIAL_RADIUS = 6_378_137.0
FLATTENING = 1.0 / 298.257223563
"""The ellipsoid WGS84: equatorial radius in metres, flattening."""

DAY = 86_400.0
QUARTER = math.pi / 2
EPOCH = np.datetime64("2000-01-01")


def geodetic_latitude(
    geocentric: Float[np.ndarray, "*t"], radius: float
) -> Float[np.ndarray, "*t"]:
    r"""Returns the geodetic latitude of the point of the ellipsoid under a satellite, in radians.

    It solves :math:`\tan\varphi = (z + e^2 N \sin\varphi) / p`,
    :math:`N = a / \sqrt{1 - e^2 \sin^2 \varphi}`, by fixed point: the error falls 150 times at
    each of six steps.

    Arguments:
        geocentric: The geocentric latitude of the satellite, in radians.
        radius: The distance of the satellite to the centre of the Earth, in metres.

    Example:
        >>> latitude = geodetic_latitude(np.array([np.pi / 4]), 7.27e6)
        >>> round(float(np.rad2deg(latitude)[0]), 4)
        45.1685
    """
    squared = FLATTENING * (2.0 - FLATTENING)
    z, p = radius * np.sin(geocentric), radius * np.cos(geocentric)
    latitude = geocentric
    for _ in range(6):
        normal = EQUATORIAL_RADIUS / np.sqrt(1.0 - squared * np.sin(latitude) ** 2)
        latitude = np.arctan2(z + squared * normal * np.sin(latitude), p)
    return latitude


@dataclass(frozen=True)
class RepeatOrbit:
    r"""A near-circular orbit whose ground track closes after a cycle.

    With :math:`t` in seconds since the epoch, :math:`T` the revolution, :math:`D` the nodal days
    of a cycle of length :math:`C`, :math:`e` the eccentricity and :math:`\omega` the perigee,

    .. math:: u = M + 2 e \sin(M - \omega), \qquad M = u_0 + 2 \pi t / T
    .. math:: \sin\varphi' = \sin i \sin u, \qquad
        \lambda = \lambda_0 + \mathrm{atan2}(\cos i \sin u, \cos u) - 2 \pi D t / C

    and the geocentric latitude :math:`\varphi'` is turned into a geodetic one. A pass is half a
    revolution, from one extreme latitude to the other: pass 0 ascends, pass 1 descends, and so on
    from the last lowest latitude before the epoch.

    References:
        | Satellite Altimetry and Earth Sciences (Fu & Cazenave, 2001), chapter 1

    Arguments:
        revolutions: The revolutions of a cycle.
        days: The nodal days of a cycle: turns of the Earth under the plane of the orbit.
        period: The length of a cycle, in days.
        inclination: The inclination :math:`i`, in degrees.
        altitude: The semi-major axis less the equatorial radius, in metres.
        eccentricity: The eccentricity :math:`e`; terms in :math:`e^2` are left out.
        perigee: The argument of the perigee :math:`\omega`, in degrees.
        longitude: The longitude of the ascending node at the epoch :math:`\lambda_0`, in degrees.
        phase: The mean argument of latitude at the epoch :math:`u_0`, in degrees.
        epoch: The date of :math:`t = 0`.

    Raises:
        ValueError: If a number is out of its range, or if the cycle is not the shortest one.

    Example:
        >>> orbit = RepeatOrbit(127, 10, 9.91564, inclination=66.04, altitude=1336e3)
        >>> lon, lat = orbit.track(np.array([0.0, 9.91564 * 86400]))
        >>> (lon % 360).round(6).tolist()[0], orbit.passes, round(orbit.spacing, 4)
        (0.0, 254, 2.8346)
    """

    revolutions: int
    days: int
    period: float
    inclination: float
    altitude: float
    eccentricity: float = 0.0
    perigee: float = 90.0
    longitude: float = 0.0
    phase: float = 0.0
    epoch: np.datetime64 = EPOCH

    def __post_init__(self) -> None:
        self._expect("revolutions", self.revolutions >= 1, "at least 1")
        self._expect("days", self.days >= 1, "at least 1")
        self._expect("period", 0.0 < self.period < math.inf, "a positive number of days")
        self._expect("inclination", 0.0 < self.inclination < 180.0, "degrees inside (0, 180)")
        self._expect("altitude", 0.0 < self.altitude < math.inf, "a positive height in metres")
        self._expect("eccentricity", 0.0 <= self.eccentricity <= 0.05, "a value in [0, 0.05]")
        for name in ("perigee", "longitude", "phase"):
            self._expect(name, math.isfinite(getattr(self, name)), "finite degrees")
        if math.gcd(self.revolutions, self.days) > 1:
            msg = (
                f"RepeatOrbit(revolutions={self.revolutions}, days={self.days}): expected "
                f"coprime numbers, got a common factor {math.gcd(self.revolutions, self.days)}. "
                "Divide them and the period by it."
            )
            raise ValueError(msg)

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            value = getattr(self, name)
            msg = (
                f"RepeatOrbit({name}={value}): expected {what}, got {value}. Check its units, "
                "or take a mission of constellation()."
            )
            raise ValueError(msg)

    @property
    def revolution(self) -> float:
        r"""The duration of a revolution, from node to node, in seconds."""
        return self.period * DAY / self.revolutions

    @property
    def passes(self) -> int:
        r"""The passes of a cycle: two per revolution."""
        return 2 * self.revolutions

    @property
    def spacing(self) -> float:
        r"""The distance of neighbouring ascending tracks at the equator, in degrees."""
        return 360.0 / self.revolutions

    def seconds(self, dates: ArrayLike) -> Float[np.ndarray, "*t"]:
        r"""Returns dates as seconds since the epoch.

        Arguments:
            dates: The dates, as ``datetime64``.

        Raises:
            TypeError: If they are not dates.

        Example:
            >>> orbit = RepeatOrbit(14, 1, 0.99349, inclination=77.6, altitude=857e3)
            >>> float(orbit.seconds(np.datetime64("2000-01-02")))
            86400.0
        """
        dates = np.asarray(dates)
        if not np.issubdtype(dates.dtype, np.datetime64):
            msg = (
                f"RepeatOrbit.seconds(dates=...): expected dates, got {dates.dtype}. "
                "Pass numpy.datetime64."
            )
            raise TypeError(msg)
        return np.asarray((dates - self.epoch) / np.timedelta64(1, "s"), dtype=np.float64)

    def dates(self, times: Float[np.ndarray, "*t"]) -> Shaped[np.ndarray, "*t"]:
        r"""Returns seconds since the epoch as dates, to the nanosecond.

        Arguments:
            times: The times, in seconds.
        """
        nanoseconds = np.round(times * 1e9).astype("timedelta64[ns]")
        return self.epoch.astype("datetime64[ns]") + nanoseconds

    def argument(self, times: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        r"""Returns the argument of latitude :math:`u`: radians from the ascending node.

        Arguments:
            times: The times :math:`t`, in seconds since the epoch.
        """
        mean = math.radians(self.phase) + (2.0 * math.pi / self.revolution) * times
        return mean + 2.0 * self.eccentricity * np.sin(mean - math.radians(self.perigee))

    def times(self, argument: Float[np.ndarray, "*t"]) -> Float[np.ndarray, "*t"]:
        r"""Returns the seconds since the epoch at which the satellite is at an argument.

        Arguments:
            argument: The argument of latitude :math:`u`, in radians, turns included.

        Example:
            >>> orbit = RepeatOrbit(14, 1, 0.99349, 77.6, 857e3, eccentricity=1e-3)
            >>> u = np.array([0.3, 20.0])
            >>> bool(np.allclose(orbit.argument(orbit.times(u)), u, atol=1e-12))
            True
        """
        mean, perigee = np.array(argument), math.radians(self.perigee)
        for _ in range(12):  # the map contracts by 2 e
            mean = argument - 2.0 * self.eccentricity * np.sin(mean - perigee)
        return (mean - math.radians(self.phase)) * (self.revolution / (2.0 * math.pi))

    def track(
        self, times: Float[np.ndarray, "*t"]
    ) -> tuple[Float[np.ndarray, "*t"], Float[np.ndarray, "*t"]]:
        r"""Returns the point under the satellite.

        Arguments:
            times: The times :math:`t`, in seconds since the epoch.

        Returns:
            The longitude in [0, 360) and the geodetic latitude, in degrees.
        """
        u, i = self.argument(times), math.radians(self.inclination)
        latitude = geodetic_latitude(
            np.arcsin(math.sin(i) * np.sin(u)), EQUATORIAL_RADIUS + self.altitude
        )
        ahead = np.rad2deg(np.arctan2(math.cos(i) * np.sin(u), np.cos(u)))
        turned = 360.0 * self.days / (self.period * DAY) * times
        return np.mod(self.longitude + ahead - turned, 360.0), np.rad2deg(latitude)

    def pass_starts(self, passes: Int[np.ndarray, "*k"]) -> Float[np.ndarray, "*k"]:
        r"""Returns when passes start, in seconds since the epoch.

        Arguments:
            passes: The passes, counted from the epoch; even ones ascend.

        Example:
            >>> orbit = RepeatOrbit(14, 1, 0.99349, inclination=77.6, altitude=857e3)
            >>> starts = orbit.pass_starts(np.array([0, 1]))
            >>> orbit.track(starts)[1].round(2).tolist()
            [-77.67, 77.67]
        """
        turns = math.floor((self.phase + 90.0) / 360.0)
        return self.times((np.asarray(passes, dtype=np.float64) + 2 * turns) * math.pi - QUARTER)

    def pass_at(self, times: Float[np.ndarray, "*t"]) -> Int[np.ndarray, "*t"]:
        r"""Returns the passes under way, counted from the epoch.

        Arguments:
            times: The times, in seconds since the epoch.
        """
        turns = math.floor((self.phase + 90.0) / 360.0)
        halves = np.floor((self.argument(times) + QUARTER) / math.pi)
        return np.asarray(halves).astype(np.int64) - 2 * turns
